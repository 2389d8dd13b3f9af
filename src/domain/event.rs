//! What a provider tells.

use serde::{Deserialize, Serialize};

use super::ids::{MessageId, ProviderMessageId};
use super::outcome::Failure;
use super::phone::Phone;
use super::status::MessageState;
use super::time::Timestamp;

/// One piece of news from a provider, about one channel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProviderEvent {
    /// A message of ours moved on.
    Status(StatusNews),
    /// A person wrote.
    Inbound(InboundMessage),
    /// A person told us their phone.
    PhoneShared(SharedPhone),
    /// The provider's list of templates changed; cached lists are stale.
    TemplatesChanged,
}

/// News about a message of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatusNews {
    /// The vendor's id.
    pub provider_id: ProviderMessageId,
    /// Our id, where the vendor echoes it.
    pub message: Option<MessageId>,
    /// The step reached.
    pub state: MessageState,
    /// When, by the vendor's clock.
    pub at: Timestamp,
    /// Why, for a failure.
    pub failure: Option<Failure>,
    /// The vendor's code of the failure; may be empty.
    pub vendor_code: String,
}

/// The phone of a person, who told it themselves, at a messenger that knows people by something else. From now on the
/// phone leads to their chat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SharedPhone {
    /// The person's address at the messenger.
    pub peer: String,
    /// Their phone.
    pub phone: Phone,
}

/// A message from a person.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InboundMessage {
    /// The vendor's id; our shield against duplicates.
    pub provider_id: ProviderMessageId,
    /// The person's address at the messenger: digits for phones.
    pub peer: String,
    /// Name as the messenger shows it; may be empty.
    pub name: String,
    /// When, by the vendor's clock.
    pub at: Timestamp,
    /// True when the person wrote it themselves, so that it opens the service window; false for the messenger's own
    /// notices ("changed their number").
    pub opens_window: bool,
    /// What they sent.
    pub content: InboundContent,
}

/// What a person sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum InboundContent {
    /// Text, or the text of a pressed button.
    Text {
        /// As it was written.
        body: String,
    },
    /// A file, by the vendor's id.
    Media {
        /// Vendor's word for the kind (`image`, `sticker` …).
        media: String,
        /// Vendor's id of the file.
        id: String,
        /// MIME type.
        mime: String,
        /// Text under it; may be empty.
        caption: String,
    },
    /// Anything else: the vendor's word for it. Shown as a placeholder, never dropped.
    Other {
        /// Vendor's word.
        what: String,
    },
}

impl InboundContent {
    /// The word of [`Self::Other`] for the messenger's notice that the person has left this number.
    pub const NUMBER_LEFT: &str = "number_left";
}
