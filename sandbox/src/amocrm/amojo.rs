//! amoCRM's chats service: channels, connections, chats, and what is said in them. Source: §7.
//!
//! It shares the port of everything else of amoCRM: `/v2/origin/custom/…` is the service, `/attachments/…` are files that
//! managers attached. Types are strict, signatures are checked to the letter, and hooks are sent once.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha1::Sha1;

use super::chat_rules::{self, Said};
use super::{AccountCell, AmoAccount};
use crate::{
    clock::Millis,
    courier::Parcel,
    http::{Request, Response},
    journal::Severity,
    world::{Call, VendorError, World, fetch},
};

/// §7.3: a signature is good for so long.
const SIGNATURE_LIVES_MS: Millis = 15 * 60_000;
/// §7.4: messages in one page of a history.
const HISTORY_MAX: usize = 50;

/// A channel of chats as support registers it (§7.2).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChatChannelSpec {
    /// UUID; made up if empty.
    pub channel_id: String,
    /// 40 hex characters, used as text; made up if empty.
    pub secret: String,
    /// amojo's id of its bot; made up if empty.
    pub bot_id: String,
    /// `https://…/:scope_id`.
    pub hook_url: String,
    /// The integration it belongs to.
    pub client_id: String,
}

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SaidBy {
    /// The client.
    Client,
    /// The channel's bot: sent past amoCRM.
    Bot,
    /// A person in amoCRM.
    Manager,
}

/// One message of a chat.
#[derive(Clone, Debug, Serialize)]
pub struct AmojoMessage {
    /// amojo's id.
    pub id: String,
    /// The connector's id; empty for managers' messages.
    pub msgid: String,
    /// Who.
    pub by: SaidBy,
    /// `text`, `picture` …
    pub kind: String,
    /// Words.
    pub text: String,
    /// Name of its file; may be empty.
    pub file_name: String,
    /// Bytes that were downloaded of its file; `None` while it is not.
    pub fetched: Option<usize>,
    /// Without a lead and without a bell.
    pub silent: bool,
    /// How often it was changed.
    pub edits: u32,
    /// What is shown beside it.
    pub reaction: Option<String>,
    /// Statuses that were told, in order: 1 delivered, 2 read, -1 error.
    pub statuses: Vec<i64>,
    /// The code and words of the error.
    pub error: Option<(i64, String)>,
    /// Answer to the hook that told of it; 0 = none.
    pub hook: Option<u16>,
    #[serde(skip)]
    at_ms: Millis,
}

/// One chat.
#[derive(Clone, Debug, Serialize)]
pub struct AmojoChat {
    /// amojo's id.
    pub id: String,
    /// The connector's id; `None` where a manager wrote first and nothing has come since.
    pub conversation_id: Option<String>,
    /// amojo's id of the person.
    pub person: String,
    /// The connector's id of the person.
    pub person_id: Option<String>,
    /// The person's name.
    pub name: String,
    /// Their phone; may be empty.
    pub phone: String,
    /// The source it came by.
    pub source: Option<String>,
    /// It made an unsorted lead.
    pub unsorted: bool,
    /// Messages, oldest first.
    pub messages: Vec<AmojoMessage>,
    #[serde(skip)]
    scope: String,
}

/// An account that a channel is connected to.
struct Connection {
    account: Arc<AccountCell>,
    channel: String,
}

/// Everything of the service.
#[derive(Default)]
pub(crate) struct Amojo {
    channels: HashMap<String, Arc<ChatChannelSpec>>,
    connected: HashMap<String, Connection>,
    chats: Vec<AmojoChat>,
    /// Files that managers attached.
    files: HashMap<String, Bytes>,
}

impl Amojo {
    /// Registers a channel.
    pub(crate) fn register(&mut self, world: &World, mut spec: ChatChannelSpec) -> ChatChannelSpec {
        for (slot, made) in [
            (&mut spec.channel_id, super::uuid(world)),
            (&mut spec.secret, world.ids.hex(40)),
            (&mut spec.bot_id, super::uuid(world)),
        ] {
            if slot.is_empty() {
                *slot = made;
            }
        }
        self.channels.insert(spec.channel_id.clone(), Arc::new(spec.clone()));
        spec
    }

    /// §7.4: disabling an integration disconnects its channel, and nobody is told.
    pub(crate) fn cut(&mut self, client_id: &str, account: i64) {
        let channels = &self.channels;
        self.connected.retain(|_, known| {
            known.account.id != account
                || channels.get(&known.channel).is_none_or(|channel| channel.client_id != client_id)
        });
    }

    fn chat_mut(&mut self, scope: &str, conversation: &str) -> Option<&mut AmojoChat> {
        self.chats.iter_mut().find(|chat| chat.scope == scope && chat.conversation_id.as_deref() == Some(conversation))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hmac(secret: &str, content: &[u8]) -> String {
    let mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).map(|mut mac| {
        mac.update(content);
        hex(&mac.finalize().into_bytes())
    });
    mac.unwrap_or_default()
}

fn refusal(status: u16, kind: &str, words: &str) -> Response {
    let body = json!({"status": 0, "error_code": status, "error_type": kind, "error_description": words});
    Response::value(status, &body)
}

/// One request that was signed by a channel.
struct Ask<'a> {
    world: &'a Arc<World>,
    request: &'a Request,
    target: &'static str,
    channel: Arc<ChatChannelSpec>,
}

impl Ask<'_> {
    fn refuse(&self, status: u16, kind: &str, words: &str) -> Response {
        let message = format!("{} {}: {words}", self.request.method, self.request.path);
        self.world.violation(Severity::Refused, self.target, &self.channel.channel_id, kind, message);
        refusal(status, kind, words)
    }

    fn body(&self) -> Result<Value, Response> {
        serde_json::from_slice(&self.request.body).map_err(|_unread| self.refuse(400, "BAD_REQUEST", "no JSON"))
    }
}

/// Why a request is not signed as it must be (§7.3); `None` for a good one.
fn unsigned(world: &World, request: &Request, secret: &str) -> Option<&'static str> {
    let (date, md5, kind) = (request.header("date"), request.header("content-md5"), request.header("content-type"));
    if kind != "application/json" {
        return Some("Content-Type is not application/json to the letter");
    }
    if md5 != hex(&Md5::digest(&request.body)) {
        return Some("Content-MD5 is not that of the body");
    }
    let Some(at) = chat_rules::date_ms(date) else { return Some("Date is none") };
    if (world.now_ms() - at).abs() > SIGNATURE_LIVES_MS {
        return Some("Date is more than fifteen minutes off");
    }
    let text = format!("{}\n{md5}\n{kind}\n{date}\n{}", request.method, request.path);
    (request.header("x-signature") != hmac(secret, text.as_bytes())).then_some("X-Signature does not fit")
}

fn target(method: &str, rest: &[&str]) -> &'static str {
    match (method, rest) {
        ("POST", [_, "connect"]) => "amojo.connect",
        ("DELETE", [_, "disconnect"]) => "amojo.disconnect",
        ("POST", [_]) => "amojo.message",
        ("POST", [_, "chats"]) => "amojo.chats",
        ("GET", [_, "chats", _, "history"]) => "amojo.history",
        ("POST", [_, _, "delivery_status"]) => "amojo.status",
        ("POST", [_, "react"]) => "amojo.react",
        ("POST", [_, "typing"]) => "amojo.typing",
        _ => "amojo.other",
    }
}

/// The service, below `/v2/origin/custom`.
pub(super) async fn route(world: &Arc<World>, request: &Request, rest: &[&str]) -> Response {
    let target = target(request.method.as_str(), rest);
    let scope = rest.first().copied().unwrap_or_default();
    let process = || {
        let id = scope.split('_').next().unwrap_or_default();
        let Some(channel) = world.amo.amojo.lock().channels.get(id).cloned() else {
            return refusal(404, "ORIGIN_NOT_REGISTERED", "NOT_FOUND");
        };
        let ask = Ask { world, request, target, channel };
        if let Some(words) = unsigned(world, request, &ask.channel.secret) {
            world.violation(Severity::Refused, target, id, "ORIGIN_INVALID_SIGNATURE", words);
            return refusal(403, "ORIGIN_INVALID_SIGNATURE", "invalid signature");
        }
        answer(&ask, rest).unwrap_or_else(|refused| refused)
    };
    let error = |wanted: &VendorError| {
        let words = wanted.description.as_deref().unwrap_or(&wanted.code);
        refusal(wanted.status.unwrap_or(500), &wanted.code, words)
    };
    world.admit(Call { request, target, scope, phone: "" }, process, error, || {}).await
}

/// A file that a manager attached.
pub(super) fn attachment(world: &World, name: &str) -> Response {
    match world.amo.amojo.lock().files.get(name) {
        Some(content) => Response::new(200, "application/octet-stream", content.clone()),
        None => Response::html(404, "<html>404</html>"),
    }
}

fn answer(ask: &Ask<'_>, rest: &[&str]) -> Result<Response, Response> {
    match (ask.request.method.as_str(), rest) {
        ("POST", [id, "connect"]) => connect(ask, id),
        ("DELETE", [id, "disconnect"]) => disconnect(ask, id),
        (method, [scope, rest @ ..]) => {
            if !ask.world.amo.amojo.lock().connected.contains_key(*scope) {
                return Err(ask.refuse(404, "ORIGIN_NOT_REGISTERED", "NOT_FOUND"));
            }
            match (method, rest) {
                ("POST", []) => said(ask, scope),
                ("POST", ["chats"]) => create(ask, scope),
                ("GET", ["chats", chat, "history"]) => history(ask, scope, chat),
                ("POST", [message, "delivery_status"]) => status(ask, scope, message),
                ("POST", ["react"]) => react(ask, scope),
                ("POST", ["typing"]) => typing(ask),
                _ => Err(ask.refuse(404, "NOT_FOUND", "no such method")),
            }
        }
        _ => Err(ask.refuse(404, "NOT_FOUND", "no such method")),
    }
}

/// The account that a body names; only where the integration is installed.
fn account(ask: &Ask<'_>, body: &Value) -> Result<Arc<AccountCell>, Response> {
    let wanted = body["account_id"].as_str().unwrap_or_default();
    let known = ask.world.amo.accounts().into_iter().find(|cell| cell.amojo_id == wanted);
    let installed =
        |cell: &Arc<AccountCell>| cell.state.lock().installs.get(&ask.channel.client_id).copied().unwrap_or_default();
    known.filter(installed).ok_or_else(|| ask.refuse(404, "NOT_FOUND", "the account is unknown to this channel"))
}

fn connect(ask: &Ask<'_>, id: &str) -> Result<Response, Response> {
    let body = ask.body()?;
    let wrong = |words: &str| ask.refuse(400, "BAD_REQUEST", words);
    chat_rules::only(&body, &["account_id", "title", "hook_api_version", "is_time_window_disabled"])
        .map_err(|words| wrong(&words))?;
    if body["hook_api_version"] != "v2" || !(body["title"].is_null() || body["title"].is_string()) {
        return Err(wrong("hook_api_version or title"));
    }
    let cell = account(ask, &body)?;
    let scope = format!("{id}_{}", cell.amojo_id);
    let connection = Connection { account: cell.clone(), channel: id.to_owned() };
    ask.world.amo.amojo.lock().connected.insert(scope.clone(), connection);
    ask.world.change("amojo.connect", &cell.scope(), scope.as_str());
    Ok(Response::value(
        200,
        &json!({"account_id": cell.amojo_id, "scope_id": scope, "title": body["title"], "hook_api_version": "v2",
            "is_time_window_disabled": false}),
    ))
}

fn disconnect(ask: &Ask<'_>, id: &str) -> Result<Response, Response> {
    let body = ask.body()?;
    let scope = format!("{id}_{}", body["account_id"].as_str().unwrap_or_default());
    match ask.world.amo.amojo.lock().connected.remove(&scope) {
        Some(_) => Ok(Response::text(200, "")),
        None => Err(ask.refuse(404, "ORIGIN_NOT_REGISTERED", "NOT_FOUND")),
    }
}

fn said(ask: &Ask<'_>, scope: &str) -> Result<Response, Response> {
    let body = ask.body()?;
    let said = chat_rules::read(&body, &ask.channel.bot_id).map_err(|words| ask.refuse(400, "BAD_REQUEST", &words))?;
    let mut amojo = ask.world.amo.amojo.lock();
    if said.edits {
        let chat = amojo.chat_mut(scope, &said.conversation_id);
        let message = chat.and_then(|chat| chat.messages.iter_mut().find(|message| message.msgid == said.msgid));
        let Some(message) = message else { return Err(ask.refuse(404, "NOT_FOUND", "no such message")) };
        message.text = said.text;
        message.edits += 1;
        let id = message.id.clone();
        return Ok(Response::value(200, &json!({"new_message": {"msgid": id, "ref_id": said.msgid}})));
    }
    let known = |message: &AmojoMessage| message.msgid == said.msgid;
    if amojo.chats.iter().any(|chat| chat.scope == scope && chat.messages.iter().any(known)) {
        drop(amojo);
        // §7.4: not accepted. No carelessness: it is how a connector finds out.
        ask.world.journal.count("amojo.repeated");
        return Err(refusal(400, "BAD_REQUEST", "msgid is known"));
    }
    let place = find_or_open(ask, &mut amojo, scope, &said)?;
    let chat = &mut amojo.chats[place];
    let message = AmojoMessage {
        id: super::uuid(ask.world),
        msgid: said.msgid.clone(),
        by: if said.by_bot { SaidBy::Bot } else { SaidBy::Client },
        kind: said.kind.clone(),
        text: said.text.clone(),
        file_name: said.file_name.clone(),
        fetched: None,
        silent: said.silent,
        edits: 0,
        reaction: None,
        statuses: Vec::new(),
        error: None,
        hook: None,
        at_ms: said.at_ms,
    };
    if !said.silent && !said.by_bot && !chat.unsorted && chat.messages.iter().all(|m| m.by != SaidBy::Manager) {
        chat.unsorted = true;
    }
    let (chat_id, id) = (chat.id.clone(), message.id.clone());
    chat.messages.push(message);
    chat.messages.sort_by_key(|message| message.at_ms);
    drop(amojo);
    if let Some(media) = said.media {
        download(ask.world, chat_id, id.clone(), media, said.file_size);
    }
    ask.world.change("amojo.message", scope, id.as_str());
    let receiver = said.by_bot.then(|| said.person_id.clone());
    Ok(Response::value(
        200,
        &json!({"new_message": {"conversation_id": said.conversation_id, "sender_id": said.sender_id,
            "receiver_id": receiver, "msgid": id, "ref_id": said.msgid}}),
    ))
}

/// The chat a message belongs into: known by the connector's id, joined to one that a manager began (§7.9), or new.
fn find_or_open(ask: &Ask<'_>, amojo: &mut Amojo, scope: &str, said: &Said) -> Result<usize, Response> {
    let of_scope = |chat: &AmojoChat| chat.scope == scope;
    let by_name = amojo
        .chats
        .iter()
        .position(|chat| of_scope(chat) && chat.conversation_id.as_deref() == Some(&said.conversation_id));
    if let Some(reference) = &said.conversation_ref {
        let begun = amojo.chats.iter().position(|chat| of_scope(chat) && chat.id == *reference);
        let Some(begun) = begun else { return Err(ask.refuse(400, "BAD_REQUEST", "conversation_ref_id is unknown")) };
        if by_name.is_some_and(|named| named != begun) || said.person_ref.as_ref() != Some(&amojo.chats[begun].person) {
            return Err(ask.refuse(400, "BAD_REQUEST", "conversation_ref_id and ref_id are of different chats"));
        }
        let chat = &mut amojo.chats[begun];
        if chat.conversation_id.as_ref().is_some_and(|known| *known != said.conversation_id) {
            return Err(ask.refuse(400, "BAD_REQUEST", "the chat has another conversation_id"));
        }
        chat.conversation_id = Some(said.conversation_id.clone());
        chat.person_id = Some(said.person_id.clone());
        chat.name.clone_from(&said.name);
        return Ok(begun);
    }
    if let Some(place) = by_name {
        return Ok(place);
    }
    amojo.chats.push(AmojoChat {
        id: super::uuid(ask.world),
        conversation_id: Some(said.conversation_id.clone()),
        person: super::uuid(ask.world),
        person_id: Some(said.person_id.clone()),
        name: said.name.clone(),
        phone: said.phone.trim_start_matches('+').to_owned(),
        source: said.source.clone(),
        unsorted: false,
        messages: Vec::new(),
        scope: scope.to_owned(),
    });
    Ok(amojo.chats.len() - 1)
}

/// amoCRM fetches files shortly after (§7.4).
fn download(world: &Arc<World>, chat: String, id: String, url: String, size: i64) {
    let world = world.clone();
    let tasks = world.tasks.clone();
    tasks.spawn(async move {
        let (status, length) = match fetch(world.client.get(&url)).await {
            Ok((status, _, body)) => (status, body.len()),
            Err(_) => (0, 0),
        };
        if status != 200 || (size > 0 && i64::try_from(length).ok() != Some(size)) {
            let words = format!("status {status}, {length} bytes instead of {size}");
            world.violation(Severity::Careless, "amojo.message", "", "media", words);
            return;
        }
        let mut amojo = world.amo.amojo.lock();
        let chat = amojo.chats.iter_mut().find(|known| known.id == chat);
        if let Some(message) = chat.and_then(|chat| chat.messages.iter_mut().find(|message| message.id == id)) {
            message.fetched = Some(length);
        }
    });
}

fn create(ask: &Ask<'_>, scope: &str) -> Result<Response, Response> {
    let body = ask.body()?;
    let said = chat_rules::read_chat(&body).map_err(|words| ask.refuse(400, "BAD_REQUEST", &words))?;
    let mut amojo = ask.world.amo.amojo.lock();
    let place = find_or_open(ask, &mut amojo, scope, &said)?;
    let chat = &amojo.chats[place];
    let user = json!({"id": chat.person, "client_id": chat.person_id, "name": chat.name, "phone": chat.phone});
    Ok(Response::value(200, &json!({"id": chat.id, "user": user})))
}

fn history(ask: &Ask<'_>, scope: &str, chat: &str) -> Result<Response, Response> {
    let number = |key: &str, otherwise: usize| {
        ask.request.query_param(key).map_or(Some(otherwise), |text| text.parse::<usize>().ok())
    };
    let (Some(offset), Some(limit)) = (number("offset", 0), number("limit", HISTORY_MAX).filter(|n| *n <= HISTORY_MAX))
    else {
        return Err(ask.refuse(400, "BAD_REQUEST", "offset or limit"));
    };
    let amojo = ask.world.amo.amojo.lock();
    let Some(chat) = amojo.chats.iter().find(|known| known.scope == scope && known.id == chat) else {
        return Err(ask.refuse(404, "NOT_FOUND", "no such chat"));
    };
    let person = json!({"id": chat.person, "client_id": chat.person_id, "name": chat.name, "phone": chat.phone});
    let shown: Vec<Value> = chat
        .messages
        .iter()
        .rev()
        .skip(offset)
        .take(limit)
        .map(|message| {
            json!({"timestamp": message.at_ms / 1000, "sender": person, "message": {"id": message.id,
                "client_id": message.msgid, "type": message.kind, "text": message.text, "media": "",
                "thumbnail": "", "file_name": message.file_name, "file_size": 0}})
        })
        .collect();
    if shown.is_empty() {
        return Ok(Response::text(204, ""));
    }
    Ok(Response::value(200, &json!({"messages": shown})))
}

fn status(ask: &Ask<'_>, scope: &str, id: &str) -> Result<Response, Response> {
    let body = ask.body()?;
    let (code, error) = chat_rules::read_status(&body).map_err(|words| ask.refuse(400, "BAD_REQUEST", &words))?;
    let mut amojo = ask.world.amo.amojo.lock();
    let of_manager = |message: &&mut AmojoMessage| message.id == id && message.by == SaidBy::Manager;
    let found = amojo
        .chats
        .iter_mut()
        .filter(|chat| chat.scope == scope)
        .find_map(|chat| chat.messages.iter_mut().find(of_manager));
    let Some(message) = found else { return Err(ask.refuse(404, "NOT_FOUND", "no such message")) };
    let last = message.statuses.last().copied().unwrap_or_default();
    if last == -1 && code != -1 || code > 0 && code < last || code == -1 && last == 2 {
        return Err(ask.refuse(400, "BAD_REQUEST", "statuses go one way"));
    }
    message.statuses.push(code);
    message.error = error.or(message.error.take());
    ask.world.change("amojo.status", scope, id);
    Ok(Response::text(200, ""))
}

fn react(ask: &Ask<'_>, scope: &str) -> Result<Response, Response> {
    let body = ask.body()?;
    let wrong = |words: &str| ask.refuse(400, "BAD_REQUEST", words);
    chat_rules::only(&body, &["conversation_id", "conversation_ref_id", "msgid", "id", "user", "type", "emoji"])
        .map_err(|words| wrong(&words))?;
    let emoji = body["emoji"].as_str().map(str::to_owned);
    let reacts = match body["type"].as_str() {
        Some("react") if emoji.is_some() => true,
        Some("unreact") => false,
        _ => return Err(wrong("type or emoji")),
    };
    if body["user"]["id"].as_str().is_none_or(str::is_empty) {
        return Err(wrong("user.id"));
    }
    let mut amojo = ask.world.amo.amojo.lock();
    let chat = amojo.chat_mut(scope, body["conversation_id"].as_str().unwrap_or_default());
    let message =
        chat.and_then(|chat| chat.messages.iter_mut().find(|message| body["msgid"] == message.msgid.as_str()));
    let Some(message) = message else { return Err(ask.refuse(404, "NOT_FOUND", "no such message")) };
    message.reaction = emoji.filter(|_| reacts);
    Ok(Response::text(200, ""))
}

fn typing(ask: &Ask<'_>) -> Result<Response, Response> {
    chat_rules::only(&ask.body()?, &["conversation_id", "sender", "duration_ms"])
        .map_err(|words| ask.refuse(400, "BAD_REQUEST", &words))?;
    Ok(Response::text(204, ""))
}

/// What a manager sends.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// Words; may be empty when there is a file.
    pub text: String,
    /// Type, name and content of a file.
    pub file: Option<(String, String, Vec<u8>)>,
    /// Buttons below: rows of text and address.
    pub buttons: Vec<Vec<(String, String)>>,
}

impl AmoAccount {
    /// amojo's id of the account.
    pub fn amojo_id(&self) -> String {
        self.cell.amojo_id.clone()
    }

    /// Names under which channels are connected to the account.
    pub fn chat_scopes(&self) -> Vec<String> {
        let amojo = self.world.amo.amojo.lock();
        let own = amojo.connected.iter().filter(|(_, known)| known.account.id == self.cell.id);
        own.map(|(scope, _)| scope.clone()).collect()
    }

    /// Chats of the account, oldest first.
    pub fn chats(&self) -> Vec<AmojoChat> {
        let end = format!("_{}", self.cell.amojo_id);
        let amojo = self.world.amo.amojo.lock();
        amojo.chats.iter().filter(|chat| chat.scope.ends_with(&end)).cloned().collect()
    }

    /// A manager writes in a chat; gives the message's id. The hook is sent once.
    pub fn manager_says(&self, chat: &str, outgoing: &Outgoing) -> anyhow::Result<String> {
        let mut amojo = self.world.amo.amojo.lock();
        let found = amojo.chats.iter().position(|known| known.id == chat);
        let place = found.ok_or_else(|| anyhow::anyhow!("no such chat"))?;
        self.tell(&mut amojo, place, outgoing)
    }

    /// A manager writes first to a phone, by a source (§7.9); gives the ids of chat and message.
    pub fn write_first(&self, phone: &str, source: Option<&str>, text: &str) -> anyhow::Result<(String, String)> {
        let scope = self.chat_scopes().pop().ok_or_else(|| anyhow::anyhow!("no chats are connected"))?;
        let mut amojo = self.world.amo.amojo.lock();
        let id = super::uuid(&self.world);
        amojo.chats.push(AmojoChat {
            id: id.clone(),
            conversation_id: None,
            person: super::uuid(&self.world),
            person_id: None,
            name: String::new(),
            phone: phone.to_owned(),
            source: source.map(str::to_owned),
            unsorted: false,
            messages: Vec::new(),
            scope,
        });
        let place = amojo.chats.len() - 1;
        let message = self.tell(&mut amojo, place, &Outgoing { text: text.to_owned(), ..Outgoing::default() })?;
        Ok((id, message))
    }

    fn tell(&self, amojo: &mut Amojo, place: usize, outgoing: &Outgoing) -> anyhow::Result<String> {
        let (id, now) = (super::uuid(&self.world), self.world.now_ms());
        let (mut kind, mut media, mut file_name, mut size) = ("text".to_owned(), String::new(), String::new(), 0);
        if let Some((of, name, content)) = &outgoing.file {
            let stored = format!("{}-{name}", self.world.ids.hex(8));
            size = content.len();
            amojo.files.insert(stored.clone(), Bytes::from(content.clone()));
            media = format!("http://127.0.0.1:{}/attachments/{stored}", self.world.amo.port);
            (kind, file_name) = (of.clone(), name.clone());
        }
        let rows: Vec<Value> = outgoing
            .buttons
            .iter()
            .map(|row| row.iter().map(|(text, url)| json!({"text": text, "url": url})).collect::<Value>())
            .collect();
        let markup = if rows.is_empty() { Value::Null } else { json!({"mode": "inline", "buttons": rows}) };
        let chat = &mut amojo.chats[place];
        let mut conversation = json!({"id": chat.id});
        let mut receiver = json!({"id": chat.person, "phone": chat.phone, "email": ""});
        // Absent where nothing has come yet.
        if let (Some(name), Some(person)) = (&chat.conversation_id, &chat.person_id) {
            conversation["client_id"] = json!(name);
            receiver["client_id"] = json!(person);
        }
        let mut message = json!({"receiver": receiver, "sender": {"id": self.cell.amojo_id}, "conversation": conversation,
            "timestamp": now / 1000, "msec_timestamp": now,
            "message": {"id": id, "type": kind, "text": outgoing.text, "markup": markup, "tag": "", "media": media,
                "thumbnail": "", "file_name": file_name, "file_size": size}});
        if let Some(source) = &chat.source {
            message["source"] = json!({"external_id": source});
        }
        let told = AmojoMessage {
            id: id.clone(),
            msgid: String::new(),
            by: SaidBy::Manager,
            kind,
            text: outgoing.text.clone(),
            file_name,
            fetched: None,
            silent: false,
            edits: 0,
            reaction: None,
            statuses: Vec::new(),
            error: None,
            hook: None,
            at_ms: now,
        };
        chat.messages.push(told);
        let (chat_id, scope) = (chat.id.clone(), chat.scope.clone());
        let body = json!({"account_id": self.cell.amojo_id, "time": now / 1000, "message": message}).to_string();
        // A channel that is not connected sends nothing, and says nothing of it.
        let Some(connection) = amojo.connected.get(&scope) else { return Ok(id) };
        let Some(channel) = amojo.channels.get(&connection.channel) else { return Ok(id) };
        self.call_chat_hook(channel, &scope, body.into(), Some((chat_id, id.clone())));
        Ok(id)
    }

    /// Somebody types in a chat of this name: a hook that is nothing to most (§7.10).
    pub fn typing_hook(&self, scope: &str) {
        let amojo = self.world.amo.amojo.lock();
        let id = scope.split('_').next().unwrap_or_default();
        let Some(channel) = amojo.channels.get(id) else { return };
        let now = self.world.now_ms() / 1000;
        let body = json!({"account_id": self.cell.amojo_id, "time": now, "action": {"typing": {"user": {"id": "x"},
            "conversation": {"id": "y"}, "expired_at": now + 5}}});
        self.call_chat_hook(channel, scope, body.to_string().into(), None);
    }

    fn call_chat_hook(&self, channel: &ChatChannelSpec, scope: &str, body: Bytes, of: Option<(String, String)>) {
        let signature = hmac(&channel.secret, &body);
        let parcel = Parcel {
            target: Arc::from("amojo.hook"),
            scope: Arc::from(self.cell.scope().as_str()),
            phone: String::new(),
            url: Arc::from(channel.hook_url.replace(":scope_id", scope).as_str()),
            headers: vec![
                ("content-type", "application/json".to_owned()),
                ("x-signature", signature),
                ("user-agent", "amoCRM amoJo/1.0".to_owned()),
            ],
            body,
            start: None,
            done: Some(Box::new(move |world, receipt| {
                let Some((chat, id)) = of else { return };
                let mut amojo = world.amo.amojo.lock();
                let chat = amojo.chats.iter_mut().find(|known| known.id == chat);
                if let Some(message) = chat.and_then(|chat| chat.messages.iter_mut().find(|m| m.id == id)) {
                    message.hook = Some(receipt.status);
                }
            })),
        };
        self.world.amo.courier.send(&self.world, parcel);
    }
}
