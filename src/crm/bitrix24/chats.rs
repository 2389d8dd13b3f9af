//! Chats of open lines: connectors and the lines they stand on, clients' messages on their way in, and what operators are
//! told of theirs (protocol reference, section "Open-line connector", read 2026-11).
//!
//! `imconnector.send.messages` shows a message as often as it is sent, so it travels like a new comment: marked as begun,
//! and after doubt looked for in the chat's history by the vendor's id before it is sent again.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use serde_json::Value;

use super::batch::{BATCH_MAX, Batch, Param, encode};
use super::client::{Entries, Failed};
use super::errors::{own, read_error, store_down};
use super::reconcile::entry;
use super::{Bitrix24, bbcode, sha256_hex};
use crate::crm::Chats;
use crate::crm::chat_words;
use crate::crm::comments::unmarked;
use crate::domain::channel::Messenger;
use crate::domain::chat::{ChatLine, ChatPlace, ChatPost, ChatVerdict, PostFile};
use crate::domain::effect::{Applied, CrmEffect, CrmError, PortalTrouble};
use crate::domain::event::InboundContent;
use crate::domain::ids::ProviderMessageId;
use crate::domain::language::Language;
use crate::domain::message::ChangeKind;
use crate::domain::outcome::{ErrorCode, FailureClass};
use crate::domain::portal::Portal;
use crate::domain::text::excerpt;
use crate::domain::time::Timestamp;
use crate::forms::{flag, items, member, text_at, texts};
use crate::i18n;
use crate::manifests::{Connector, Handlers};
use crate::outbound::download::Download;

pub(super) const SEND: &str = "imconnector.send.messages";
const UPDATE: &str = "imconnector.update.messages";
const DELETE: &str = "imconnector.delete.messages";
const DELIVERED: &str = "imconnector.send.status.delivery";
pub(super) const NOTE: &str = "im.message.add";
const NOTIFY: &str = "im.notify.system.add";
const HISTORY: &str = "imopenlines.session.history.get";
const REGISTER: &str = "imconnector.register";
const LIST: &str = "imconnector.list";
const STATUS: &str = "imconnector.status";
const ACTIVATE: &str = "imconnector.activate";
const SET_DATA: &str = "imconnector.connector.data.set";
const SET_ERROR: &str = "imconnector.set.error";

/// The portal has nobody who could be the author.
const NO_SUCH_USER: &str = "CONNECTOR_PROXY_NO_USER_IM";

/// Longest name of a client that the portal takes.
const NAME_MAX: usize = 25;
/// Entries that one place may need in a call.
const STEPS_OF_PLACE: usize = 3;

/// How a post is told, and under which id. What changes or takes back a message that was never shown here stands for
/// itself.
pub(super) fn post_method(post: &ChatPost) -> (&'static str, &ProviderMessageId) {
    match (&post.content, &post.quote) {
        (InboundContent::Edited { of, .. }, Some(_)) => (UPDATE, of),
        (InboundContent::Deleted { of }, Some(_)) => (DELETE, of),
        (_, _) => (SEND, &post.provider_id),
    }
}

/// How a verdict is told.
pub(super) fn verdict_method(verdict: &ChatVerdict) -> &'static str {
    if verdict.outcome.is_ok() { DELIVERED } else { NOTE }
}

/// The chat's number from the answer about one message of a client.
///
/// The call succeeds as a whole though the message failed, so its own element decides. A message that is nothing but a
/// file which the portal could not fetch is refused; the next try may have more luck.
pub(super) fn read_shown(with_file: bool, answer: Result<&Value, CrmError>) -> Result<Applied, CrmError> {
    let value = answer.map_err(|error| if error.code == NO_SUCH_USER { no_such_author(error.text) } else { error })?;
    let element = value.pointer("/DATA/RESULT").map(items).unwrap_or_default().into_iter().next();
    let Some(element) = element else {
        let text = "the answer says nothing of the message";
        return Err(own(FailureClass::Indeterminate, PortalTrouble::None, "no_element", text));
    };
    if member(element, "SUCCESS").and_then(flag) == Some(false) {
        let said = member(element, "ERRORS").map(texts).unwrap_or_default().join("; ");
        if said.contains(NO_SUCH_USER) {
            return Err(no_such_author(said));
        }
        let class = if with_file { FailureClass::Unavailable } else { FailureClass::Rejected };
        return Err(own(class, PortalTrouble::None, "message_refused", said));
    }
    Ok(Applied::Shown(text_at(element, &["session", "CHAT_ID"])))
}

/// The author has left: it is tried again with another.
fn no_such_author(said: String) -> CrmError {
    own(FailureClass::Unavailable, PortalTrouble::None, CrmError::AUTHOR_REFUSED, said)
}

impl Bitrix24 {
    fn connector_of(&self, messenger: Messenger) -> Option<&Connector> {
        self.connectors.iter().find(|connector| connector.messenger == messenger)
    }

    /// The messenger of one of our connectors in a portal with our application `app`; `None` for a foreign one.
    #[must_use]
    pub fn messenger_of(&self, app: &str, connector: &str) -> Option<Messenger> {
        let known = self.connectors.iter().find(|known| known.id_for(app).eq_ignore_ascii_case(connector.trim()));
        known.map(|known| known.messenger)
    }

    pub(super) fn connector_id(&self, portal: &Portal, messenger: Messenger) -> String {
        self.connector_of(messenger).map(|connector| connector.id_for(&portal.app)).unwrap_or_default()
    }

    /// Puts a client's message into a call, or one of ours as an employee's; gives its entry. What an employee is the author
    /// of comes back as an event, as if it had been written in the chat.
    pub(super) fn push_post(&self, portal: &Portal, post: &ChatPost, batch: &mut Batch) -> usize {
        let chat = post.chat.to_string();
        let phone = post.phone();
        let name = if post.name.trim().is_empty() { phone.clone().unwrap_or_default() } else { post.name.clone() };
        let mut user = vec![
            ("id".to_owned(), Param::from(chat.as_str())),
            ("name".to_owned(), Param::from(name.chars().take(NAME_MAX).collect::<String>())),
        ];
        user.extend(phone.map(|phone| ("phone".to_owned(), Param::from(phone))));
        let seconds = u64::try_from(post.at.0 / 1000).unwrap_or_default();
        let (method, id) = post_method(post);
        let mut message = vec![("id".to_owned(), Param::from(id.as_str())), ("date".to_owned(), seconds.into())];
        if method != DELETE {
            message.push(("text".to_owned(), words_of(portal.language, post).into()));
        }
        if let Some(PostFile::At { url, name, .. }) = &post.file {
            // The portal keeps the end of a longer name.
            let file = Param::map([("url", url.as_str().into()), ("name", name.as_str().into())]);
            message.push(("files".to_owned(), Param::List(vec![file])));
        }
        message.extend(post.author.as_ref().map(|author| ("user_id".to_owned(), Param::from(author.as_str()))));
        let element = Param::map([
            ("user", Param::Map(user)),
            ("message", Param::Map(message)),
            ("chat", Param::map([("id", chat.as_str().into())])),
        ]);
        let params = [
            ("CONNECTOR", self.connector_id(portal, post.messenger).into()),
            ("LINE", post.place.as_str().into()),
            ("MESSAGES", Param::List(vec![element])),
        ];
        batch.push(method, &params)
    }

    /// Puts what an operator is told into a call; gives its entry.
    ///
    /// A confirmation clears the "not delivered" mark, and its ids are what later edits of the message will name, so it
    /// comes once, with all of them. For failures there is no method: the mark stays, and a note that clients never see
    /// says why.
    pub(super) fn push_verdict(&self, portal: &Portal, verdict: &ChatVerdict, batch: &mut Batch) -> usize {
        let answer = &verdict.answer;
        let reference = &answer.reference;
        match &verdict.outcome {
            Ok(ids) => {
                let ids = ids.iter().map(|id| Param::from(id.as_str())).collect();
                let seconds = u64::try_from(verdict.at.0 / 1000).unwrap_or_default();
                let im = Param::map([
                    ("chat_id", reference.chat.as_str().into()),
                    ("message_id", reference.message.as_str().into()),
                ]);
                let element = Param::map([
                    ("im", im),
                    ("message", Param::map([("id", Param::List(ids)), ("date", seconds.into())])),
                    ("chat", Param::map([("id", answer.chat.to_string().into())])),
                ]);
                let params = [
                    ("CONNECTOR", self.connector_id(portal, answer.messenger).into()),
                    ("LINE", answer.place.as_str().into()),
                    ("MESSAGES", Param::List(vec![element])),
                ];
                batch.push(DELIVERED, &params)
            }
            Err(_) => {
                let note = note_of(portal.language, verdict);
                let chat = format!("chat{}", reference.chat);
                batch.push(NOTE, &[("DIALOG_ID", chat.into()), ("MESSAGE", note.into()), ("SYSTEM", "Y".into())])
            }
        }
    }

    /// Our token's user may have no access to a chat; then the operator gets the note as a notification. Gives the places
    /// of the effects that were told this way.
    pub(super) async fn notify_where_barred(
        &self,
        portal: &Portal,
        effects: &[CrmEffect],
        notes: &[(usize, usize)],
        answer: &Result<Entries, Failed>,
    ) -> HashSet<usize> {
        let Ok(entries) = answer else { return HashSet::new() };
        let mut batch = Batch::default();
        let mut asked = Vec::new();
        for (at, note) in notes {
            let barred = matches!(entries.get(*note), Some(Err(failed)) if failed.fault.is("ACCESS_ERROR"));
            let Some(CrmEffect::Verdict(verdict)) = effects.get(*at).filter(|_| barred) else { continue };
            let Some(operator) = &verdict.answer.author else { continue };
            let params = [
                ("USER_ID", operator.as_str().into()),
                ("MESSAGE", note_of(portal.language, verdict).into()),
                ("TAG", format!("mostik|{}", verdict.answer.reference.message).into()),
            ];
            asked.push((*at, batch.push(NOTIFY, &params)));
        }
        if asked.is_empty() {
            return HashSet::new();
        }
        match self.client.batch(portal, &batch).await {
            Ok(entries) => {
                let told = |(_, entry): &(usize, usize)| matches!(entries.get(*entry), Some(Ok(_)));
                asked.into_iter().filter(told).map(|(at, _)| at).collect()
            }
            Err(_) => HashSet::new(),
        }
    }

    /// For clients' messages that an earlier try may have shown: those that stand in their chats, or could not be looked
    /// for. In a chat whose number was never told nothing can be looked for: such a message is sent again, because twice
    /// before an operator's eyes is better than never.
    pub(super) async fn look_for_shown(
        &self,
        portal: &Portal,
        effects: &[CrmEffect],
        now: Timestamp,
    ) -> HashMap<usize, Result<Applied, CrmError>> {
        let mut batch = Batch::default();
        let mut asked = Vec::new();
        let mut found = HashMap::new();
        for (at, effect) in effects.iter().enumerate() {
            let CrmEffect::Post(post) = effect else { continue };
            let Some(chat) = post.crm_chat.as_ref().filter(|_| post.maybe_shown) else { continue };
            if let Some(error) = self.method_is_hot(portal, HISTORY, now) {
                found.insert(at, Err(error));
                continue;
            }
            asked.push((at, batch.push(HISTORY, &[("CHAT_ID", chat.as_str().into())]), post, chat));
        }
        if batch.is_empty() {
            return found;
        }
        let answer = self.client.batch(portal, &batch).await;
        for (at, place, post, chat) in asked {
            let history = match &answer {
                Ok(entries) => entry(entries, place),
                Err(failed) => Err(failed.error(true)),
            };
            match history {
                Ok(history) if holds(history, post.provider_id.as_str()) => {
                    found.insert(at, Ok(Applied::Shown(chat.clone())));
                }
                Ok(_) => {}
                Err(error) => {
                    found.insert(at, Err(error));
                }
            }
        }
        found
    }
}

/// Clients' messages that stand in their chats without their file: the portal drops what it cannot fetch, and says nothing.
/// Gives a note for each, by the chat's number.
pub(super) fn lost_files(language: Language, posts: &[(&ChatPost, &Value)]) -> Vec<(String, String)> {
    let lost = |(post, value): &(&ChatPost, &Value)| {
        let Some(PostFile::At { url, name, .. }) = &post.file else { return None };
        let element = value.pointer("/DATA/RESULT").map(items).unwrap_or_default().into_iter().next()?;
        let taken = element.pointer("/message/files").map(items).unwrap_or_default();
        let refused = member(element, "SUCCESS").and_then(flag) == Some(false);
        let chat = text_at(element, &["session", "CHAT_ID"]);
        let name = unmarked(name);
        let values = [("name", name.as_str()), ("url", url.as_str())];
        (taken.is_empty() && !refused && !chat.is_empty())
            .then(|| (chat, i18n::text(language, "chat.file_lost", &values)))
    };
    posts.iter().filter_map(lost).collect()
}

/// True when a chat's history holds a message of this id of ours.
fn holds(history: &Value, id: &str) -> bool {
    let Some(messages) = member(history, "message") else { return false };
    let of = |message: &Value| member(message, "params").and_then(|params| member(params, "connectorMid")).map(texts);
    items(messages).into_iter().any(|message| of(message).is_some_and(|ids| ids.iter().any(|known| known == id)))
}

/// A client's words as the chat shows them. What looks like BBCode in them is none of theirs, and is not to become a link
/// or a mention in the portal, which shows lines that begin with `>>` as a quotation.
fn words_of(language: Language, post: &ChatPost) -> String {
    chat_words::of_post(language, post, unmarked, ">>")
}

/// Why an operator's message did not go out, and what to do.
fn note_of(language: Language, verdict: &ChatVerdict) -> String {
    const LENGTH: usize = 60;
    let Err(failure) = &verdict.outcome else { return String::new() };
    let words = verdict.answer.text.plain();
    let words = if words.trim().is_empty() {
        verdict.answer.files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>().join(", ")
    } else {
        words
    };
    let reason = i18n::error(language, failure.code, &failure.detail);
    let advice = i18n::advice(language, failure.code);
    let words = unmarked(&excerpt(&words, LENGTH));
    let values = [("text", words.as_str()), ("reason", reason.as_str()), ("advice", advice.as_str())];
    let key = match verdict.answer.change.as_ref().map(|change| change.kind) {
        Some(ChangeKind::Edit) => "chat.not_edited",
        Some(ChangeKind::Withdraw) => "chat.not_withdrawn",
        None if failure.code == ErrorCode::Undecided => "chat.undecided",
        None => "chat.not_sent",
    };
    i18n::text(language, key, &values)
}

/// A step towards what should be.
enum Step {
    /// Register the connector of this fingerprint.
    Register { key: String, print: String },
    /// Switch a place on and tell what it shows.
    Switch { key: String, print: String },
    /// Say that a place is broken.
    Break { key: String, print: String },
    /// Switch off what nobody wants any more.
    Off { key: String },
}

const CONNECTOR_KEY: &str = "connector:";
const PLACE_KEY: &str = "open-line:";
const BROKEN: &str = "broken";

#[async_trait]
impl Chats for Bitrix24 {
    async fn reconcile_chats(
        &self,
        portal: &Portal,
        messengers: &[Messenger],
        places: &[ChatPlace],
    ) -> Result<Vec<ChatLine>, CrmError> {
        // Rights are read by the comparison of robots and events, which goes before.
        if self.chats_granted.get(&portal.id).await != Some(true) {
            return Ok(Vec::new());
        }
        let turn = self.comparing.get_with(portal.id.clone(), async { std::sync::Arc::default() }).await;
        let _turn = turn.lock().await;
        let sent = self.store.load_registrations(&portal.id).await.map_err(store_down)?;
        let sent: HashMap<&str, &str> = sent.iter().map(|(key, print)| (key.as_str(), print.as_str())).collect();
        let mut look = Batch::default();
        look.push(LIST, &[]);
        let states: Vec<usize> =
            places.iter().map(|place| look.push(STATUS, &self.place_params(portal, place))).collect();
        let answer = self.client.batch(portal, &look).await.map_err(|failed| failed.error(true))?;
        let known = match entry(&answer, 0) {
            Ok(list) => list.as_object().map(|list| list.keys().cloned().collect::<Vec<_>>()).unwrap_or_default(),
            Err(error) if error.class == FailureClass::NotPermitted => {
                tracing::info!(portal.id = %portal.id, vendor.code = error.code, "the portal offers no chats");
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let mut gone = Vec::new();
        let mut batch = Batch::default();
        let mut steps = Vec::new();
        for connector in self.connectors.iter().filter(|connector| messengers.contains(&connector.messenger)) {
            let id = connector.id_for(&portal.app);
            let (key, fields) = (format!("{CONNECTOR_KEY}{id}"), self.connector_fields(portal, connector, &id));
            let print = sha256_hex(encode(&fields).as_bytes());
            if sent.get(key.as_str()) != Some(&print.as_str()) || !known.contains(&id) {
                steps.push((batch.push(REGISTER, &fields), Step::Register { key, print }));
            }
        }
        for (place, state) in places.iter().zip(states) {
            let state = entry(&answer, state)?;
            let key = self.place_key(portal, place.line.messenger, &place.line.place);
            let before = sent.get(key.as_str()).copied();
            let stands = member(state, "CONFIGURED").and_then(flag).unwrap_or(false);
            // We had switched it on, and now it is off: somebody took it off the line. Not so after the portal forgot all of
            // ours, for then our own memory of it was wiped too.
            if before.is_some() && !stands {
                self.store.save_registration(&portal.id, &key, None).await.map_err(store_down)?;
                gone.push(place.line.clone());
                continue;
            }
            let print = sha256_hex(place.title.as_bytes());
            if place.broken && before != Some(BROKEN) {
                if !stands {
                    self.push_switch(portal, place, &mut batch);
                }
                let at = batch.push(SET_ERROR, &self.place_params(portal, place));
                steps.push((at, Step::Break { key, print: BROKEN.to_owned() }));
            } else if !place.broken && before != Some(print.as_str()) {
                steps.push((self.push_switch(portal, place, &mut batch), Step::Switch { key, print }));
            }
            if batch.len() + STEPS_OF_PLACE > BATCH_MAX {
                break;
            }
        }
        let wanted: HashSet<String> =
            places.iter().map(|place| self.place_key(portal, place.line.messenger, &place.line.place)).collect();
        for key in sent.keys().filter(|key| key.starts_with(PLACE_KEY) && !wanted.contains(**key)) {
            let Some((connector, line)) = key.trim_start_matches(PLACE_KEY).rsplit_once(':') else { continue };
            let params = [("CONNECTOR", connector.into()), ("LINE", line.into()), ("ACTIVE", "0".into())];
            steps.push((batch.push(ACTIVATE, &params), Step::Off { key: (*key).to_owned() }));
        }
        if !batch.is_empty() {
            let answer = self.client.batch(portal, &batch).await.map_err(|failed| failed.error(true))?;
            self.remember_steps(portal, &answer, steps).await?;
        }
        Ok(gone)
    }

    fn heard(&self, portal: &Portal, post: &ChatPost) -> String {
        bbcode::parse(&words_of(portal.language, post)).plain()
    }

    async fn open(&self, portal: &Portal, link: &str) -> Result<Download, CrmError> {
        self.open_link(portal, link).await
    }
}

impl Bitrix24 {
    fn place_params(&self, portal: &Portal, place: &ChatPlace) -> [(&'static str, Param); 2] {
        let connector = self.connector_id(portal, place.line.messenger);
        [("CONNECTOR", connector.into()), ("LINE", place.line.place.as_str().into())]
    }

    fn place_key(&self, portal: &Portal, messenger: Messenger, place: &str) -> String {
        format!("{PLACE_KEY}{}:{place}", self.connector_id(portal, messenger))
    }

    /// Switching on sets every flag and clears an error; what is shown comes after it. `ACTIVE` knows numbers only: a text
    /// that is not empty switches on, whatever it says.
    fn push_switch(&self, portal: &Portal, place: &ChatPlace, batch: &mut Batch) -> usize {
        let [connector, line] = self.place_params(portal, place);
        let at = batch.push(ACTIVATE, &[connector.clone(), line.clone(), ("ACTIVE", "1".into())]);
        let data = Param::map([("ID", place.line.line.as_str().into()), ("NAME", place.title.as_str().into())]);
        batch.push(SET_DATA, &[connector, line, ("DATA", data)]);
        at
    }

    fn connector_fields(&self, portal: &Portal, connector: &Connector, id: &str) -> Vec<(&'static str, Param)> {
        let path = &self.manifest.handlers.settings;
        let handler = Handlers::address(path, &self.settings.public_url, &portal.app, id);
        let picture: String = form_urlencoded::byte_serialize(connector.icon.as_bytes()).collect();
        // A data address knows `%20`, not the `+` of forms.
        let picture = format!("data:image/svg+xml,{}", picture.replace('+', "%20"));
        let icon = Param::map([
            ("DATA_IMAGE", picture.into()),
            ("COLOR", connector.color.as_str().into()),
            ("SIZE", "90%".into()),
            ("POSITION", "center".into()),
        ]);
        let changes = if connector.changes { "Y" } else { "N" };
        vec![
            ("ID", id.into()),
            ("NAME", connector.name.of(portal.language).into()),
            ("ICON", icon),
            ("PLACEMENT_HANDLER", handler.into()),
            // A client's message stays as it came; operators sign as their line says, not before every text.
            ("DEL_EXTERNAL_MESSAGES", "N".into()),
            // Where the messenger takes nothing back, the portal does not offer it.
            ("EDIT_INTERNAL_MESSAGES", changes.into()),
            ("DEL_INTERNAL_MESSAGES", changes.into()),
            ("NEWSLETTER", "N".into()),
            ("NEED_SYSTEM_MESSAGES", "Y".into()),
            ("NEED_SIGNATURE", "N".into()),
            ("CHAT_GROUP", "N".into()),
        ]
    }

    async fn remember_steps(
        &self,
        portal: &Portal,
        answer: &Entries,
        steps: Vec<(usize, Step)>,
    ) -> Result<(), CrmError> {
        let mut first_error = None;
        for (at, step) in steps {
            let result = entry(answer, at).and_then(|value| refusal_of(value).map_or(Ok(()), Err));
            let (key, print) = match (&result, step) {
                (Ok(()), Step::Register { key, print } | Step::Switch { key, print } | Step::Break { key, print }) => {
                    tracing::info!(portal.id = %portal.id, crm = "bitrix24", registration = key, "chats brought in line");
                    (key, Some(print))
                }
                // What is not there any more is off.
                (Ok(()), Step::Off { key }) => (key, None),
                (Err(error), Step::Off { key }) if error.class == FailureClass::Rejected => (key, None),
                (Err(error), _) => {
                    first_error.get_or_insert_with(|| error.clone());
                    continue;
                }
            };
            self.store.save_registration(&portal.id, &key, print.as_deref()).await.map_err(store_down)?;
        }
        first_error.map_or(Ok(()), Err)
    }
}

/// Registration answers well and means it badly: `result: false` beside an error.
fn refusal_of(value: &Value) -> Option<CrmError> {
    let (code, said) = read_error(value).filter(|(code, said)| !code.is_empty() || !said.is_empty())?;
    Some(own(FailureClass::Rejected, PortalTrouble::None, &code, said))
}
