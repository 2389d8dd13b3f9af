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
    /// Somebody of ours wrote on the phone of the channel itself.
    Typed(TypedMessage),
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
    /// The message that it answers, where the person has said so.
    pub reply_to: Option<ProviderMessageId>,
    /// What they sent.
    pub content: InboundContent,
}

/// A message from a person as it is stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Received {
    /// What they sent.
    #[serde(flatten)]
    pub content: InboundContent,
    /// The message that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<ProviderMessageId>,
}

impl Received {
    /// The message of which something is shown beside this one: what it answers, reacts to, changes or takes back.
    #[must_use]
    pub fn of(&self) -> Option<&ProviderMessageId> {
        match &self.content {
            InboundContent::Reaction { of, .. }
            | InboundContent::Edited { of, .. }
            | InboundContent::Deleted { of } => Some(of),
            InboundContent::Text { .. }
            | InboundContent::Media { .. }
            | InboundContent::Location { .. }
            | InboundContent::Contacts { .. }
            | InboundContent::Other { .. } => self.reply_to.as_ref(),
        }
    }
}

impl InboundContent {
    /// The words in it; empty where there are none.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Text { body } | Self::Edited { body, .. } => body.clone(),
            Self::Media { caption, filename, .. } => {
                if caption.is_empty() {
                    filename.clone()
                } else {
                    caption.clone()
                }
            }
            Self::Location { name, .. } => name.clone(),
            Self::Contacts { cards } => cards.join("\n"),
            Self::Reaction { emoji, .. } => emoji.clone(),
            Self::Deleted { .. } | Self::Other { .. } => String::new(),
        }
    }
}

/// A message that somebody of ours wrote to a person on the sender's own phone, past us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TypedMessage {
    /// The vendor's id; our shield against duplicates.
    pub provider_id: ProviderMessageId,
    /// The address of the person written to.
    pub peer: String,
    /// When, by the vendor's clock.
    pub at: Timestamp,
    /// What was sent.
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
        /// Its name, where the person's programs tell one; may be empty.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        filename: String,
    },
    /// A place.
    Location {
        /// Degrees, as a decimal number.
        latitude: String,
        /// Degrees, as a decimal number.
        longitude: String,
        /// Name and address as far as told, on one line; may be empty.
        name: String,
    },
    /// Cards of people.
    Contacts {
        /// One line for each: name and phones.
        cards: Vec<String>,
    },
    /// A reaction to a message.
    Reaction {
        /// The message.
        of: ProviderMessageId,
        /// What is shown beside it; empty when it was taken back.
        emoji: String,
    },
    /// An earlier message of theirs says something else from now on.
    Edited {
        /// The message.
        of: ProviderMessageId,
        /// Its new words.
        body: String,
    },
    /// An earlier message of theirs was taken back.
    Deleted {
        /// The message.
        of: ProviderMessageId,
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
