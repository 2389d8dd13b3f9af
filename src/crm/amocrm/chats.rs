//! Chats of an account: clients' messages on their way in, what operators are told of theirs, and the connection itself
//! (protocol reference, sections 6.11, 7.4, 7.8 and 7.9, read 2026-11).
//!
//! A message has our id, and the service takes none twice: after doubt it is sent again, and a refusal is looked up in the
//! chat's history. A conversation has our name for it, so it is found again after every new installation.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use serde_json::{Map, Value, json};
use url::Url;

use super::Amocrm;
use super::amojo::{Ask, ChatKeys, Refusal};
use super::client;
use super::notes::Verdict;
use crate::crm::{Chats, chat_words, own, store_down};
use crate::domain::channel::Messenger;
use crate::domain::chat::{ChatKey, ChatLine, ChatPlace, ChatPost, ChatVerdict, PostFile};
use crate::domain::effect::{Applied, CrmEffect, CrmError, PortalTrouble};
use crate::domain::event::InboundContent;
use crate::domain::ids::ProviderMessageId;
use crate::domain::language::Language;
use crate::domain::outcome::{ErrorCode, FailureClass};
use crate::domain::portal::Portal;
use crate::domain::status::MessageState;
use crate::domain::text::excerpt;
use crate::forms::{at, items, text_at};
use crate::i18n;
use crate::outbound::download::Download;
use crate::outbound::{Call, Method};

/// Where it is remembered under which name an account's chats are told of.
pub const SCOPE: &str = "chats:scope";
/// Who speaks for us, in an account and as the author of what nobody in particular wrote.
const TITLE: &str = "Mostik";
const BOT: &str = "mostik";
/// A message of an operator may be unknown for a moment after its hook.
const UNKNOWN_REST: Duration = Duration::from_secs(2);
/// Messages of a chat that are searched for one that may have been shown: pages, and messages per page.
const PAGES_MAX: usize = 4;
const PAGE: usize = 50;
/// Longest text of an error that is shown to an operator.
const ERROR_MAX: usize = 250;

/// An account's connection: its keys, and the name of its chats.
struct Line<'a> {
    keys: &'a ChatKeys,
    scope: String,
}

impl Line<'_> {
    fn path(&self, rest: &str) -> String {
        format!("/v2/origin/custom/{}{rest}", self.scope)
    }
}

impl Amocrm {
    /// The channel of chats of an integration, where it has one.
    pub(super) fn chat_keys(&self, app: &str) -> Option<&ChatKeys> {
        self.settings.apps.get(app)?.chats.as_ref()
    }

    /// True when the integration has a channel of chats.
    #[must_use]
    pub fn has_chats(&self, app: &str) -> bool {
        self.chat_keys(app).is_some()
    }

    /// Carries out what concerns chats among the effects.
    pub(super) async fn tell_chats(&self, portal: &Portal, effects: &[CrmEffect]) -> Vec<Verdict> {
        let speaks = |effect: &CrmEffect| match effect {
            CrmEffect::Post(_) => true,
            CrmEffect::Verdict(verdict) => status_of(portal.language, verdict).is_some(),
            CrmEffect::Comment(_) | CrmEffect::Reply(_) => false,
        };
        // Most calls carry notes only.
        let line = match effects.iter().any(speaks) {
            true => Some(self.line(portal).await),
            false => None,
        };
        let line = line.as_ref();
        join_all(effects.iter().map(|effect| async move {
            match (effect, line) {
                (CrmEffect::Post(post), Some(Ok(line))) => Some(self.show(portal, line, post).await),
                (CrmEffect::Verdict(verdict), Some(Ok(line))) => Some(self.tell(portal, line, verdict).await),
                (CrmEffect::Post(_) | CrmEffect::Verdict(_), Some(Err(error))) => Some(Err(error.clone())),
                // That it has left is what an operator sees from the beginning.
                (CrmEffect::Verdict(_), None) => Some(Ok(Applied::Done)),
                (CrmEffect::Post(_) | CrmEffect::Comment(_) | CrmEffect::Reply(_), _) => None,
            }
        }))
        .await
    }

    fn keys_of(&self, portal: &Portal) -> Result<&ChatKeys, CrmError> {
        self.chat_keys(&portal.app).ok_or_else(|| {
            let text = "the integration has no channel of chats: amocrm.apps.*.chat_channel_id";
            own(FailureClass::Misconfigured, PortalTrouble::None, "no_chat_channel", text)
        })
    }

    /// The account's connection; connects it where it is not.
    async fn line(&self, portal: &Portal) -> Result<Line<'_>, CrmError> {
        let keys = self.keys_of(portal)?;
        match self.known_scope(portal).await? {
            Some(scope) => Ok(Line { keys, scope }),
            None => self.connect(portal).await,
        }
    }

    async fn known_scope(&self, portal: &Portal) -> Result<Option<String>, CrmError> {
        let known = self.store.load_registrations(&portal.id).await.map_err(store_down)?;
        Ok(known.into_iter().find(|(key, _)| key == SCOPE).map(|(_, scope)| scope))
    }

    /// The id by which the chats service knows the account.
    async fn amojo_id(&self, portal: &Portal) -> Result<String, CrmError> {
        let path = format!("{}?with=amojo_id", client::ACCOUNT);
        let account = self.client.call(portal, client::Ask::get("account", &path)).await.map_err(|f| f.error(true))?;
        let id = text_at(&account, &["amojo_id"]);
        if id.is_empty() {
            let text = "the account has no chats";
            return Err(own(FailureClass::NotPermitted, PortalTrouble::None, "no_amojo_id", text));
        }
        Ok(id)
    }

    /// Connects the account; may be repeated, and has to be after every installation.
    async fn connect(&self, portal: &Portal) -> Result<Line<'_>, CrmError> {
        let keys = self.keys_of(portal)?;
        let account = self.amojo_id(portal).await?;
        let body = json!({"account_id": account, "title": TITLE, "hook_api_version": "v2"});
        if self.known_scope(portal).await?.is_none() {
            // A hook may come before the answer is kept, and comes once; this is what the vendor always answers.
            let expected = format!("{}_{account}", keys.channel_id);
            self.store.save_registration(&portal.id, SCOPE, Some(&expected)).await.map_err(store_down)?;
        }
        let path = format!("/v2/origin/custom/{}/connect", keys.channel_id);
        let answer = self.amojo.call(keys, portal, Ask::post("chats_connect", &path, &body)).await;
        let answer = answer.map_err(|refusal| match refusal.status {
            // A private channel serves the accounts on its list.
            Some(404) => CrmError { class: FailureClass::Misconfigured, ..refusal.error },
            Some(_) | None => refusal.error,
        })?;
        let scope = text_at(&answer, &["scope_id"]);
        let is_name = !scope.is_empty() && scope.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if !is_name {
            let text = "the chats service named no scope";
            return Err(own(FailureClass::Unavailable, PortalTrouble::None, "no_scope", text));
        }
        self.store.save_registration(&portal.id, SCOPE, Some(&scope)).await.map_err(store_down)?;
        Ok(Line { keys, scope })
    }

    /// Shows a client's message, or one of ours that went past the chat.
    async fn show(&self, portal: &Portal, line: &Line<'_>, post: &ChatPost) -> Result<Applied, CrmError> {
        let done = |_: Value| Applied::Done;
        match (&post.content, &post.of, &post.quote) {
            (InboundContent::Reaction { emoji, .. }, Some(of), Some(_)) => {
                let body = reaction(post, of, emoji);
                let reacted = self.send(portal, line, "chats_react", "/react", &body).await;
                match reacted {
                    // An emoji the channel does not take, or a message from before the chats: said in words.
                    Err(refusal) if matches!(refusal.status, Some(400 | 404)) => {}
                    other => return other.map(done).map_err(|refusal| refusal.error),
                }
            }
            (InboundContent::Edited { body, .. }, Some(of), Some(_)) => {
                let edit = edit(post, of, body);
                match self.send(portal, line, "chats_edit", "", &edit).await {
                    Err(refusal) if matches!(refusal.status, Some(400 | 404)) => {}
                    other => return other.map(done).map_err(|refusal| refusal.error),
                }
            }
            _ => {}
        }
        let body = self.new_message(portal.language, line, post);
        match self.send(portal, line, "chats_message", "", &body).await {
            Ok(_) => Ok(Applied::Done),
            // No message is taken twice; which one was meant, the chat tells.
            Err(refusal) if post.maybe_shown && refusal.status == Some(400) => {
                match self.is_shown(portal, line, post).await? {
                    true => Ok(Applied::Done),
                    false => Err(refusal.error),
                }
            }
            Err(refusal) => Err(refusal.error),
        }
    }

    /// Sends into the account's chats; connects it again where the service does not know it any more: after a new
    /// installation nobody tells us that chats were cut.
    async fn send(
        &self,
        portal: &Portal,
        line: &Line<'_>,
        name: &'static str,
        rest: &str,
        body: &Value,
    ) -> Result<Value, Refusal> {
        let path = line.path(rest);
        // A message that may stand there is looked for before anybody gives it up.
        let ask = Ask { repeatable: !rest.is_empty(), ..Ask::post(name, &path, body) };
        match self.amojo.call(line.keys, portal, ask).await {
            Err(refusal) if refusal.is_unconnected => {
                let line = self.connect(portal).await?;
                let path = line.path(rest);
                self.amojo.call(line.keys, portal, Ask { path: &path, ..ask }).await
            }
            other => other,
        }
    }

    /// Looks for a message in its chat, newest first.
    async fn is_shown(&self, portal: &Portal, line: &Line<'_>, post: &ChatPost) -> Result<bool, CrmError> {
        // Of a chat that exists this tells the service's own id, and changes nothing.
        let body = json!({"conversation_id": post.chat.to_string(), "user": self.client_of(post)});
        let path = line.path("/chats");
        let chat = self.amojo.call(line.keys, portal, Ask::post("chats_create", &path, &body)).await;
        let chat = text_at(&chat.map_err(|refusal| refusal.error)?, &["id"]);
        let path = line.path(&format!("/chats/{chat}/history"));
        let msgid = msgid(&post.chat, &post.provider_id);
        for page in 0..PAGES_MAX {
            let query = format!("?offset={}&limit={PAGE}", page * PAGE);
            let ask = Ask {
                name: "chats_history",
                method: Method::Get,
                path: &path,
                query: &query,
                body: None,
                repeatable: true,
            };
            let answer = self.amojo.call(line.keys, portal, ask).await.map_err(|refusal| refusal.error)?;
            let messages = at(&answer, &["messages"]).map(items).unwrap_or_default();
            if messages.iter().any(|message| text_at(message, &["message", "client_id"]) == msgid) {
                return Ok(true);
            }
            if messages.len() < PAGE {
                break;
            }
        }
        Ok(false)
    }

    /// Tells an operator how far a message has got. Safe to repeat.
    async fn tell(&self, portal: &Portal, line: &Line<'_>, verdict: &ChatVerdict) -> Result<Applied, CrmError> {
        let Some(body) = status_of(portal.language, verdict) else { return Ok(Applied::Done) };
        let message = &verdict.answer.reference.message;
        let path = line.path(&format!("/{message}/delivery_status"));
        let ask = Ask::post("chats_status", &path, &body);
        let mut told = self.amojo.call(line.keys, portal, ask).await;
        if matches!(&told, Err(refusal) if refusal.status == Some(404)) {
            tokio::time::sleep(UNKNOWN_REST).await;
            told = self.amojo.call(line.keys, portal, ask).await;
        }
        told.map(|_| Applied::Done).map_err(|refusal| refusal.error)
    }

    /// The client of a chat as a participant.
    fn client_of(&self, post: &ChatPost) -> Value {
        let phone = post.phone();
        let named = Some(post.name.trim()).filter(|name| !name.is_empty()).map(str::to_owned);
        let name = named.or_else(|| phone.clone()).unwrap_or_else(|| post.messenger.title().to_owned());
        let mut client = json!({"id": post.chat.to_string(), "name": name});
        if let Some(phone) = phone {
            client["profile"] = json!({"phone": phone});
        }
        client
    }

    fn new_message(&self, language: Language, line: &Line<'_>, post: &ChatPost) -> Value {
        let mut client = self.client_of(post);
        let mut payload = stamps(post);
        // Where an operator began, the first words we bring join his chat and contact to ours; without them there would be
        // a second of each.
        if let (Some(chat), Some(person)) = (&post.crm_chat, &post.crm_person) {
            payload.insert("conversation_ref_id".to_owned(), json!(chat));
            client["ref_id"] = json!(person);
        }
        let message = message_of(language, post);
        payload.insert("message".to_owned(), message);
        payload.insert("msgid".to_owned(), json!(msgid(&post.chat, &post.provider_id)));
        // What we said ourselves makes no lead and rings no bell.
        payload.insert("silent".to_owned(), json!(post.author.is_some()));
        if !post.place.is_empty() {
            payload.insert("source".to_owned(), json!({"external_id": post.place}));
        }
        if post.author.is_some() {
            // As the channel's bot: what it says does not come back as a hook.
            payload.insert("sender".to_owned(), json!({"id": BOT, "name": TITLE, "ref_id": line.keys.bot_id}));
            payload.insert("receiver".to_owned(), client);
        } else {
            payload.insert("sender".to_owned(), client);
        }
        json!({"event_type": "new_message", "payload": payload})
    }

    /// The account's chats are not wanted any more.
    async fn disconnect(&self, portal: &Portal, keys: &ChatKeys) -> Result<(), CrmError> {
        let body = json!({"account_id": self.amojo_id(portal).await?});
        let path = format!("/v2/origin/custom/{}/disconnect", keys.channel_id);
        let ask = Ask { method: Method::Delete, ..Ask::post("chats_disconnect", &path, &body) };
        match self.amojo.call(keys, portal, ask).await {
            // What is not connected needs nothing.
            Err(refusal) if refusal.status != Some(404) => return Err(refusal.error),
            Ok(_) | Err(_) => {}
        }
        tracing::info!(portal.id = %portal.id, crm = "amocrm", "chats disconnected");
        self.store.save_registration(&portal.id, SCOPE, None).await.map_err(store_down)
    }
}

/// Our id of a message towards the service. Ids of vendors are unique on one channel only.
fn msgid(chat: &ChatKey, id: &ProviderMessageId) -> String {
    format!("{}:{}", chat.channel, id.as_str())
}

/// Times and conversation, which every event has.
fn stamps(post: &ChatPost) -> Map<String, Value> {
    let stamps = json!({
        "timestamp": post.at.0 / 1000, "msec_timestamp": post.at.0, "conversation_id": post.chat.to_string(),
    });
    stamps.as_object().cloned().unwrap_or_default()
}

fn edit(post: &ChatPost, of: &ProviderMessageId, text: &str) -> Value {
    let mut payload = stamps(post);
    payload.insert("msgid".to_owned(), json!(msgid(&post.chat, of)));
    payload.insert("message".to_owned(), json!({"type": "text", "text": text}));
    json!({"event_type": "edit_message", "payload": payload})
}

fn reaction(post: &ChatPost, of: &ProviderMessageId, emoji: &str) -> Value {
    let mut body = json!({
        "conversation_id": post.chat.to_string(), "msgid": msgid(&post.chat, of),
        "user": {"id": post.chat.to_string()}, "type": if emoji.is_empty() { "unreact" } else { "react" },
    });
    if !emoji.is_empty() {
        body["emoji"] = json!(emoji);
    }
    body
}

/// What a post shows: a file or a place as such, everything else in words.
fn message_of(language: Language, post: &ChatPost) -> Value {
    let words = chat_words::of_post(language, post, str::to_owned, "> ");
    match (&post.file, &post.content) {
        (Some(PostFile::At { url, name, size }), InboundContent::Media { media, .. }) => {
            let kind = match media.as_str() {
                "image" | "sticker" => "picture",
                "video" => "video",
                "audio" => "audio",
                "voice" => "voice",
                _ => "file",
            };
            let size = size.unwrap_or_default();
            json!({"type": kind, "text": words, "media": url, "file_name": name, "file_size": size})
        }
        (_, InboundContent::Location { latitude, longitude, .. }) => {
            match (latitude.parse::<f64>(), longitude.parse::<f64>()) {
                (Ok(lat), Ok(lon)) => json!({"type": "location", "text": words, "location": {"lon": lon, "lat": lat}}),
                _ => json!({"type": "text", "text": words}),
            }
        }
        _ => json!({"type": "text", "text": words}),
    }
}

/// The delivery status of an operator's message; `None` while it is what is shown from the beginning.
fn status_of(language: Language, verdict: &ChatVerdict) -> Option<Value> {
    let failure = match (&verdict.outcome, verdict.reached) {
        (Ok(_), MessageState::Delivered) => return Some(json!({"status_code": 1})),
        (Ok(_), MessageState::Read) => return Some(json!({"status_code": 2})),
        (
            Ok(_),
            MessageState::Queued
            | MessageState::Accepted
            | MessageState::Sent
            | MessageState::Undecided
            | MessageState::Failed
            | MessageState::Cancelled,
        ) => return None,
        (Err(failure), _) => failure,
    };
    // 904: a conversation cannot be had; 905: the words say why.
    let nobody = [ErrorCode::NotOnMessenger, ErrorCode::NoRecipient, ErrorCode::BadPhone, ErrorCode::NoChannel];
    let code = if nobody.contains(&failure.code) { 904 } else { 905 };
    let reason = i18n::error(language, failure.code, &failure.detail);
    let words = format!("{reason}. {}", i18n::advice(language, failure.code));
    Some(json!({"status_code": -1, "error_code": code, "error": excerpt(words.trim(), ERROR_MAX)}))
}

#[async_trait]
impl Chats for Amocrm {
    async fn reconcile_chats(
        &self,
        portal: &Portal,
        _messengers: &[Messenger],
        places: &[ChatPlace],
    ) -> Result<Vec<ChatLine>, CrmError> {
        let Some(keys) = self.chat_keys(&portal.app) else {
            if !places.is_empty() {
                tracing::error!(portal.id = %portal.id, app = portal.app, "chats are wanted; the integration has no channel");
            }
            return Ok(Vec::new());
        };
        if places.is_empty() {
            if self.known_scope(portal).await?.is_some() {
                self.disconnect(portal, keys).await?;
            }
            return Ok(Vec::new());
        }
        // Each time: disabling the integration disconnects its chats, and nobody tells.
        self.connect(portal).await?;
        tracing::info!(portal.id = %portal.id, crm = "amocrm", "chats connected");
        Ok(Vec::new())
    }

    fn heard(&self, portal: &Portal, post: &ChatPost) -> String {
        chat_words::of_post(portal.language, post, str::to_owned, "> ")
    }

    /// Hooks carry addresses of files, which only the vendor's own hosts may be: anything else was chosen by somebody.
    async fn open(&self, portal: &Portal, link: &str) -> Result<Download, CrmError> {
        let gone = |text: &str| own(FailureClass::Rejected, PortalTrouble::None, "no_file", text);
        let address = Url::parse(link.trim()).map_err(|_no_url| gone("the file's address is none"))?;
        let service =
            Url::parse(&self.amojo.base(portal)).map_err(|_no_url| gone("the chats service has no address"))?;
        let domain = portal.domain.split_once('.').map_or("", |(_, domain)| domain);
        let of_vendor = address.scheme() == "https"
            && address.host_str().is_some_and(|host| {
                host.strip_suffix(domain).is_some_and(|label| !domain.is_empty() && label.ends_with('.'))
            });
        if !of_vendor && address.origin() != service.origin() {
            return Err(gone("the file's address is not the vendor's"));
        }
        let download =
            self.client.outbound.open(Call::get(address.as_str())).await.map_err(|error| {
                own(FailureClass::Unavailable, PortalTrouble::None, "no_download", error.to_string())
            })?;
        match download.status {
            200 => Ok(download),
            status @ (408 | 429 | 500..=599) => {
                let text = format!("the vendor answered {status} instead of the file");
                Err(own(FailureClass::Unavailable, PortalTrouble::None, "no_download", text))
            }
            status => Err(gone(&format!("the vendor answered {status} instead of the file"))),
        }
    }
}
