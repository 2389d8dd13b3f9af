//! The book of messages: what was processed and what phones really show.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use serde::Serialize;
use serde_json::Value;

use crate::clock::Millis;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// From a business number to a phone.
    Out,
    /// From a phone to a business number.
    In,
}

/// A button under a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Button {
    /// `quick_reply` (template), `reply` (interactive), `list_row`, `url`, `phone`, `copy_code`, `flow`, `other`.
    pub kind: String,
    /// Caption.
    pub text: String,
    /// Payload, id, or address.
    pub value: String,
}

/// A medium in a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MediaShown {
    /// `image`, `video`, `audio`, `document`, `sticker`.
    pub kind: String,
    /// Media id, if sent by id.
    pub id: String,
    /// Address, if sent by link.
    pub link: String,
    /// File name (documents).
    pub filename: String,
    /// Caption.
    pub caption: String,
}

/// What the person sees.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Shown {
    /// Message type.
    pub kind: String,
    /// Main text: body, caption, emoji of a reaction, name of a place …
    pub text: String,
    /// Header text.
    pub header: String,
    /// Footer text.
    pub footer: String,
    /// Buttons and list rows.
    pub buttons: Vec<Button>,
    /// Medium.
    pub media: Option<MediaShown>,
    /// `name:language` of a template.
    pub template: Option<String>,
    /// Anything else (contacts, coordinates), as sent.
    pub raw: Value,
}

/// One step of a message's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delivery {
    /// `sent`, `delivered`, `read`, `failed`.
    pub status: String,
    /// When, milliseconds.
    pub at_ms: Millis,
    /// Error code of `failed`.
    pub code: Option<u32>,
}

/// One message.
#[derive(Clone, Debug, Serialize)]
pub struct Message {
    /// Message id.
    pub wamid: String,
    /// Direction.
    pub route: Route,
    /// Business number.
    pub phone_number_id: String,
    /// Customer's phone.
    pub phone: String,
    /// When it was accepted (or sent by the phone), milliseconds.
    pub at_ms: Millis,
    /// What is shown.
    pub shown: Shown,
    /// `biz_opaque_callback_data`.
    pub opaque: Option<String>,
    /// Quoted message.
    pub reply_to: Option<String>,
    /// Whether it has reached the phone.
    pub arrived: bool,
    /// Its life so far.
    pub statuses: Vec<Delivery>,
    /// Reaction of the other side.
    pub reaction: Option<String>,
    /// Inbound: the business has marked it as read.
    pub marked_read: bool,
}

impl Message {
    /// Last status, empty before the first.
    pub fn status(&self) -> &str {
        self.statuses.last().map_or("", |delivery| delivery.status.as_str())
    }

    /// Whether this status has come.
    pub fn has(&self, status: &str) -> bool {
        self.statuses.iter().any(|delivery| delivery.status == status)
    }

    /// Error code if it failed.
    pub fn failure(&self) -> Option<u32> {
        self.statuses.iter().find_map(|delivery| delivery.code)
    }
}

#[derive(Default)]
pub(crate) struct Book {
    messages: HashMap<Arc<str>, Message>,
    order: VecDeque<Arc<str>>,
    by_opaque: HashMap<String, Vec<Arc<str>>>,
    by_phone: HashMap<String, Vec<Arc<str>>>,
    /// Accepted from the business, ever.
    pub(crate) accepted: u64,
    /// Opaque ids seen more than once.
    pub(crate) repeated: u64,
}

impl Book {
    pub(crate) fn add(&mut self, message: Message, keep: usize) {
        let wamid: Arc<str> = Arc::from(message.wamid.as_str());
        if message.route == Route::Out {
            self.accepted += 1;
        }
        if let Some(opaque) = &message.opaque {
            let same = self.by_opaque.entry(opaque.clone()).or_default();
            same.push(wamid.clone());
            if same.len() == 2 {
                self.repeated += 1;
            }
        }
        self.by_phone.entry(message.phone.clone()).or_default().push(wamid.clone());
        self.order.push_back(wamid.clone());
        self.messages.insert(wamid, message);
        if self.order.len() > keep.max(1) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(old) = self.order.pop_front() else { return };
        let Some(message) = self.messages.remove(&old) else { return };
        if let Some(opaque) = &message.opaque {
            self.by_opaque.remove(opaque);
        }
        if let Some(list) = self.by_phone.get_mut(&message.phone) {
            list.retain(|own| *own != old);
        }
    }

    pub(crate) fn get(&self, wamid: &str) -> Option<&Message> {
        self.messages.get(wamid)
    }

    pub(crate) fn get_mut(&mut self, wamid: &str) -> Option<&mut Message> {
        self.messages.get_mut(wamid)
    }

    pub(crate) fn of_phone(&self, phone: &str) -> Vec<Message> {
        let list = self.by_phone.get(phone).map_or(&[][..], Vec::as_slice);
        list.iter().filter_map(|wamid| self.messages.get(wamid)).cloned().collect()
    }

    pub(crate) fn of_opaque(&self, opaque: &str) -> Vec<Message> {
        let list = self.by_opaque.get(opaque).map_or(&[][..], Vec::as_slice);
        list.iter().filter_map(|wamid| self.messages.get(wamid)).cloned().collect()
    }

    /// The last `limit` messages, oldest first.
    pub(crate) fn last(&self, limit: usize) -> Vec<Message> {
        let skip = self.order.len().saturating_sub(limit);
        self.order.iter().skip(skip).filter_map(|wamid| self.messages.get(wamid)).cloned().collect()
    }

    /// The newest message that each phone shows, most recent phone first: at most `phones` of them, found among the
    /// last `look_at` messages.
    pub(crate) fn newest_by_phone(&self, phones: usize, look_at: usize) -> Vec<&Message> {
        let mut seen = HashSet::new();
        let newest = self.order.iter().rev().take(look_at).filter_map(|wamid| self.messages.get(wamid));
        newest.filter(|message| message.arrived && seen.insert(message.phone.as_str())).take(phones).collect()
    }

    /// Opaque ids with more than one message.
    pub(crate) fn repeated_opaques(&self) -> Vec<String> {
        self.by_opaque.iter().filter(|(_, list)| list.len() > 1).map(|(opaque, _)| opaque.clone()).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Message> {
        self.order.iter().filter_map(|wamid| self.messages.get(wamid))
    }
}
