//! People and groups, what they send to bots and what they see of them. Source: channels.md §3.2, §3.4, §3.5.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{clock::Millis, ids::Ids};

/// Something a person sends to a bot.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum BotInbound {
    /// Types a text; `/start payload` is one.
    Text {
        /// Text.
        body: String,
    },
    /// Sends a file. The content is a stub unless given.
    Media {
        /// `photo`, `video`, `audio`, `voice`, `document`, `sticker`, `video_note`, `animation`.
        kind: String,
        /// MIME type; the messenger names none for photos and stickers.
        #[serde(default)]
        mime: Option<String>,
        /// File name.
        #[serde(default)]
        filename: Option<String>,
        /// Caption.
        #[serde(default)]
        caption: Option<String>,
        /// Content, base64.
        #[serde(default)]
        base64: Option<String>,
    },
    /// Shares a contact: the person's own when `own` is true, else somebody else's.
    Contact {
        /// Phone in any notation.
        phone: String,
        /// By the button, so that the messenger vouches for it.
        own: bool,
    },
    /// Shares a place.
    Location {
        /// Degrees.
        latitude: f64,
        /// Degrees.
        longitude: f64,
    },
    /// Throws a dice: something without text or file.
    Dice,
    /// Changes the text of an earlier message.
    Edit {
        /// Message that is changed.
        message_id: i64,
        /// New text.
        body: String,
    },
}

/// A group as the bot stands to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupState {
    /// The bot is a member.
    Member,
    /// It was thrown out.
    Kicked,
    /// It may not write.
    ReadOnly,
    /// The group goes on under another number.
    Migrated(i64),
}

/// A message in either direction.
#[derive(Clone, Debug, Serialize)]
pub struct BotMessage {
    /// The bot's number.
    pub bot: i64,
    /// Chat.
    pub chat: i64,
    /// Number within the chat.
    pub message_id: i64,
    /// True when the bot sent it.
    pub from_bot: bool,
    /// Time on the sandbox's clock, milliseconds.
    pub at_ms: Millis,
    /// `text`, `photo`, `document` …
    pub kind: String,
    /// Text or caption.
    pub text: String,
    /// Address of the file; empty = none.
    pub file: String,
}

/// A person, as shown.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PersonView {
    /// Number of the account, which is that of the private chat.
    pub id: i64,
    /// First name.
    pub first_name: String,
    /// Without `@`; empty = none.
    pub username: String,
    /// Bots that the person has started.
    pub started: HashSet<i64>,
    /// Bots that the person blocks.
    pub blocked: HashSet<i64>,
    /// The account was deleted.
    pub deactivated: bool,
}

/// A file that a bot can fetch.
pub(crate) struct StoredFile {
    pub(crate) bot: i64,
    pub(crate) path: String,
    pub(crate) bytes: Vec<u8>,
}

/// All of them.
#[derive(Default)]
pub(crate) struct People {
    pub(crate) persons: BTreeMap<i64, PersonView>,
    /// Groups by number and bot.
    pub(crate) groups: HashMap<(i64, i64), GroupState>,
    /// Public names of groups and channels.
    pub(crate) names: HashMap<String, i64>,
    pub(crate) messages: Vec<BotMessage>,
    pub(crate) files: HashMap<String, StoredFile>,
    last_message: i64,
}

impl People {
    pub(crate) fn next_message(&mut self) -> i64 {
        self.last_message += 1;
        self.last_message
    }

    pub(crate) fn person(&mut self, id: i64) -> &mut PersonView {
        self.persons.entry(id).or_insert_with(|| PersonView {
            id,
            first_name: "Ирина".to_owned(),
            ..PersonView::default()
        })
    }

    /// As `User`.
    pub(crate) fn as_user(&mut self, id: i64) -> Value {
        let person = self.person(id);
        let mut user = json!({"id": id, "is_bot": false, "first_name": person.first_name});
        if !person.username.is_empty() {
            user["username"] = json!(person.username);
        }
        user
    }

    /// As `Chat`.
    pub(crate) fn as_chat(&mut self, chat: i64) -> Value {
        if chat < 0 {
            let kind = if chat <= -1_000_000_000_000 { "supergroup" } else { "group" };
            return json!({"id": chat, "type": kind, "title": "Доставка"});
        }
        let person = self.person(chat);
        json!({"id": chat, "type": "private", "first_name": person.first_name})
    }

    /// What a person sends, as content fields of a `Message`, with the kind and the words for the book.
    pub(crate) fn content(
        &mut self,
        ids: &Ids,
        bot: i64,
        sender: i64,
        what: &BotInbound,
    ) -> anyhow::Result<(Value, String, String)> {
        Ok(match what {
            BotInbound::Text { body } | BotInbound::Edit { body, .. } => {
                ensure!(!body.is_empty(), "an empty text cannot be typed");
                let mut content = json!({"text": body});
                if body.starts_with('/') {
                    let length = body.split(' ').next().unwrap_or_default().encode_utf16().count();
                    content["entities"] = json!([{"type": "bot_command", "offset": 0, "length": length}]);
                }
                (content, "text".to_owned(), body.clone())
            }
            BotInbound::Media { kind, mime, filename, caption, base64 } => {
                let bytes = match base64 {
                    Some(text) => STANDARD.decode(text).context("base64")?,
                    None => format!("content of a {kind}").into_bytes(),
                };
                let id = format!("BQACAg{}", ids.letters(40));
                let size = bytes.len();
                let name = filename.clone().unwrap_or_else(|| format!("file_{}", self.files.len()));
                let path = format!("{kind}s/file_{}_{name}", self.files.len());
                self.files.insert(id.clone(), StoredFile { bot, path, bytes });
                let unique = ids.letters(6);
                let mut file = json!({"file_id": id, "file_unique_id": unique, "file_size": size});
                match kind.as_str() {
                    "photo" => {
                        // Two sizes, the larger one last; the smaller is no file of the book.
                        let small = json!({"file_id": format!("AgACAg{}", ids.letters(40)), "file_unique_id": "s",
                            "file_size": 900, "width": 90, "height": 60});
                        file["width"] = json!(1280);
                        file["height"] = json!(853);
                        file = json!([small, file]);
                    }
                    "sticker" => {
                        file["type"] = json!("regular");
                        file["emoji"] = json!("👍");
                        file["width"] = json!(512);
                        file["height"] = json!(512);
                        file["is_animated"] = json!(false);
                        file["is_video"] = json!(false);
                    }
                    "video" | "audio" | "voice" | "document" | "video_note" | "animation" => {
                        if let Some(mime) = mime {
                            file["mime_type"] = json!(mime);
                        }
                        if let Some(name) = filename {
                            file["file_name"] = json!(name);
                        }
                        if kind != "document" {
                            file["duration"] = json!(3);
                        }
                    }
                    other => anyhow::bail!("nobody can send a {other}"),
                }
                let mut content = json!({ (kind.as_str()): file });
                if let Some(caption) = caption {
                    content["caption"] = json!(caption);
                }
                (content, kind.clone(), caption.clone().unwrap_or_default())
            }
            BotInbound::Contact { phone, own } => {
                let mut contact = json!({"phone_number": phone, "first_name": self.person(sender).first_name});
                contact["user_id"] = json!(if *own { sender } else { sender + 1 });
                (json!({"contact": contact}), "contact".to_owned(), phone.clone())
            }
            BotInbound::Location { latitude, longitude } => {
                let place = json!({"latitude": latitude, "longitude": longitude});
                (json!({"location": place}), "location".to_owned(), String::new())
            }
            BotInbound::Dice => (json!({"dice": {"emoji": "🎲", "value": 4}}), "dice".to_owned(), String::new()),
        })
    }
}
