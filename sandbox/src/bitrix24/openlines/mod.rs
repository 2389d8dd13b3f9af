//! Open lines: connectors, the lines they stand on, and the chats in which operators answer. Source: §5, §8.6.
//!
//! Not simulated, and refused: attachments, avatars and group chats of `imconnector.send.messages`, reading statuses.

mod chats;
mod connectors;
pub(crate) mod files;
mod handle;
mod messages;

use std::collections::BTreeMap;

use serde::Serialize;

pub(crate) use chats::{history_get, message_add, notify_add};
pub(crate) use connectors::{activate, data_set, list, name_set, register, set_error, status, unregister};
pub(crate) use messages::{delete, send, send_delivery, update};

pub use files::{Attachment, FileShown, Serving};

use super::rest::RestError;
use crate::{clock::Millis, php::Php};

/// Everything of open lines in one portal.
#[derive(Default)]
pub(crate) struct OpenLines {
    /// Names by number.
    pub(crate) lines: BTreeMap<i64, String>,
    pub(crate) connectors: BTreeMap<String, Connector>,
    /// By connector and line.
    pub(crate) standings: BTreeMap<(String, i64), Standing>,
    pub(crate) chats: BTreeMap<i64, Chat>,
    pub(crate) notifications: Vec<Notification>,
    /// What operators attached, by number.
    pub(crate) attachments: BTreeMap<i64, Attachment>,
    last_chat: i64,
    last_message: i64,
    last_guest: i64,
}

/// A registered connector.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    pub(crate) client_id: String,
    pub(crate) name: String,
    pub(crate) needs_signature: bool,
    pub(crate) needs_system: bool,
    pub(crate) edits: bool,
    pub(crate) deletes: bool,
}

/// How a connector stands on a line.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Standing {
    /// Switched on.
    pub active: bool,
    /// Marked as broken.
    pub error: bool,
    /// What was told by `connector.data.set`.
    pub data: BTreeMap<String, String>,
}

/// A chat of a client.
#[derive(Clone, Debug, Serialize)]
pub struct Chat {
    /// Its number.
    pub id: i64,
    /// The connector, lower case.
    pub connector: String,
    /// The line.
    pub line: i64,
    /// The chat's name at the connector.
    pub external_chat: String,
    /// The client's name at the connector.
    pub external_user: String,
    /// The client's own number in the portal.
    pub user_id: i64,
    /// Name as it was told last.
    pub user_name: String,
    /// The chat's own name; empty until it was given one.
    pub name: String,
    /// Phone as it was told last.
    pub user_phone: String,
    /// Session.
    pub session_id: i64,
    /// Messages, oldest first.
    pub messages: Vec<ChatMessage>,
    /// False: the application's user may not enter, `ACCESS_ERROR`.
    pub open_to_app: bool,
}

/// Who wrote in a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChatAuthor {
    /// The client.
    Client,
    /// An operator, or any employee.
    Employee(i64),
    /// The portal itself, to the client.
    System,
    /// A note that clients never see.
    Note,
}

/// One message of a chat.
#[derive(Clone, Debug, Serialize)]
pub struct ChatMessage {
    /// Its number, unique in the portal.
    pub id: i64,
    /// Who wrote it.
    pub author: ChatAuthor,
    /// Text as shown.
    pub text: String,
    /// Files.
    pub files: Vec<FileShown>,
    /// Ids at the connector.
    pub external_ids: Vec<String>,
    /// The operator sees the clock: nobody has confirmed it.
    pub sending: bool,
    /// How often it was confirmed.
    pub confirmed: u32,
    /// When it came, milliseconds.
    pub at_ms: Millis,
}

/// A notification of one user.
#[derive(Clone, Debug, Serialize)]
pub struct Notification {
    /// Who got it.
    pub user_id: i64,
    /// Its text.
    pub text: String,
    /// A later one of this tag replaces it.
    pub tag: String,
}

impl OpenLines {
    pub(crate) fn add_line(&mut self, name: &str) -> i64 {
        let id = self.lines.keys().last().map_or(7, |last| last + 1);
        self.lines.insert(id, name.to_owned());
        id
    }

    fn next_message(&mut self) -> i64 {
        self.last_message = self.last_message.max(86_000) + 1;
        self.last_message
    }

    /// Adds a message to a chat; gives its number.
    pub(crate) fn put(
        &mut self,
        chat: i64,
        author: ChatAuthor,
        text: &str,
        external_ids: Vec<String>,
        at_ms: Millis,
    ) -> Option<i64> {
        let id = self.next_message();
        let sending = matches!(author, ChatAuthor::Employee(_) | ChatAuthor::System);
        let own = self.chats.get_mut(&chat)?;
        own.messages.push(ChatMessage {
            id,
            author,
            text: text.to_owned(),
            files: Vec::new(),
            external_ids,
            sending,
            confirmed: 0,
            at_ms,
        });
        Some(id)
    }

    /// Changes a client's message, known by its id at the connector, or takes it away; an unknown id is no error.
    pub(crate) fn change(&mut self, connector: &str, external_chat: &str, id: &str, text: Option<&str>) {
        let own = |chat: &&mut Chat| chat.connector == connector && chat.external_chat == external_chat;
        for chat in self.chats.values_mut().filter(own) {
            let is_it = |message: &ChatMessage| message.external_ids.iter().any(|own| own == id);
            match text {
                Some(text) => {
                    chat.messages.iter_mut().filter(|own| is_it(own)).for_each(|own| text.clone_into(&mut own.text))
                }
                None => chat.messages.retain(|own| !is_it(own)),
            }
        }
    }

    /// Gives a message its files.
    pub(crate) fn put_files(&mut self, chat: i64, message: i64, files: Vec<FileShown>) {
        let messages = self.chats.get_mut(&chat).map(|own| &mut own.messages);
        if let Some(own) = messages.and_then(|messages| messages.iter_mut().find(|own| own.id == message)) {
            own.files = files;
        }
    }

    /// The chat of a client, made at the first message (§5.1: one for ever).
    fn chat_of(&mut self, connector: &str, line: i64, external_chat: &str, external_user: &str) -> i64 {
        let is_it = |chat: &&Chat| {
            chat.connector == connector
                && chat.line == line
                && chat.external_chat == external_chat
                && chat.external_user == external_user
        };
        if let Some(known) = self.chats.values().find(is_it) {
            return known.id;
        }
        self.last_chat = self.last_chat.max(1_766) + 1;
        let id = self.last_chat;
        let guest = self.chats.values().find(|chat| chat.connector == connector && chat.external_user == external_user);
        let user_id = guest.map_or_else(
            || {
                self.last_guest = self.last_guest.max(584) + 1;
                self.last_guest
            },
            |known| known.user_id,
        );
        self.chats.insert(
            id,
            Chat {
                id,
                connector: connector.to_owned(),
                line,
                external_chat: external_chat.to_owned(),
                external_user: external_user.to_owned(),
                user_id,
                user_name: String::new(),
                name: String::new(),
                user_phone: String::new(),
                session_id: id - 1_444,
                messages: Vec::new(),
                open_to_app: true,
            },
        );
        id
    }

    /// The connectors of an application are gone, and every line loses them (§1.7).
    pub(crate) fn drop_connectors_of(&mut self, client_id: &str) {
        let own: Vec<String> =
            self.connectors.iter().filter(|(_, own)| own.client_id == client_id).map(|(id, _)| id.clone()).collect();
        self.connectors.retain(|_, own| own.client_id != client_id);
        self.standings.retain(|(connector, _), _| !own.contains(connector));
    }
}

/// Connector and line of a call, as it must name them: the id in lower case.
fn connector_and_line(params: &Php) -> Result<(String, i64), RestError> {
    let connector = required(params, "CONNECTOR")?;
    let line = required(params, "LINE")?;
    let line = line.trim().parse().map_err(|_text| RestError::argument("LINE"))?;
    Ok((connector, line))
}

fn required(params: &Php, name: &str) -> Result<String, RestError> {
    let value = params.get_ci(name).map(Php::text).unwrap_or_default();
    if value.is_empty() { Err(RestError::argument(name)) } else { Ok(value) }
}
