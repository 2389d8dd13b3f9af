//! A message on its way out, and one that came in.

use serde::{Deserialize, Serialize};

use super::capability::MediaKind;
use super::channel::Messenger;
use super::deed::Deed;
use super::event::InboundContent;
use super::guards::Quiet;
use super::ids::{ChannelId, CommandId, CrmCommentId, CrmUserId, MessageId, PortalId, ProviderMessageId};
use super::outcome::Failure;
use super::portal::CardRef;
use super::status::MessageState;
use super::template::{FilledTemplate, TemplateRef};
use super::text::excerpt;
use super::time::Timestamp;

/// What is to be sent to one recipient, as it is stored with the message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Draft {
    /// The main content.
    pub content: Content,
    /// Sent instead of a free text when the service window is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<TemplateCall>,
    /// Name for messengers that keep an address book.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub recipient_name: String,
    /// Hours in which it is not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<Quiet>,
    /// What was typed on the sender's own phone, past us; `content` then holds its words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub typed: Option<InboundContent>,
    /// An earlier message that this one changes or takes back; `content` then holds its new words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
}

/// What is to happen to a message that has been sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It says something else from now on.
    Edit,
    /// It vanishes.
    Withdraw,
}

impl ChangeKind {
    /// The word in the API and in keys.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Edit => "edit",
            Self::Withdraw => "withdraw",
        }
    }
}

/// A change of one message that was sent before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Change {
    /// Which message.
    pub of: MessageId,
    /// What happens to it.
    pub kind: ChangeKind,
}

impl Draft {
    /// Content to be sent as it is, to somebody whose name is not known.
    #[must_use]
    pub fn of(content: Content) -> Self {
        Self { content, fallback: None, recipient_name: String::new(), quiet: None, typed: None, change: None }
    }
}

/// Content before it meets the provider.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Content {
    /// Free text.
    Text {
        /// The text as the person will read it.
        body: String,
    },
    /// A file by public address.
    Media {
        /// How the messenger shows it.
        media: MediaKind,
        /// Where the provider fetches it.
        link: String,
        /// Text under it; may be empty.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        caption: String,
        /// Name shown for a document; may be empty.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        filename: String,
    },
    /// An approved template with the robot's raw parameters.
    Template(TemplateCall),
    /// No message: what an action did, or could not do.
    Deed(Deed),
}

/// A template and what the robot gave for it, not yet fitted together.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TemplateCall {
    /// Which template.
    pub template: TemplateRef,
    /// Parameters as given ([`super::template::fill`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<String>,
    /// Addresses of files for the header.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
}

impl Content {
    /// True when the messenger's service window must be open for it.
    #[must_use]
    pub fn needs_window(&self) -> bool {
        match self {
            Self::Text { .. } | Self::Media { .. } => true,
            Self::Template(_) | Self::Deed(_) => false,
        }
    }

    /// First words for the card, at most 80 characters.
    #[must_use]
    pub fn excerpt(&self) -> String {
        const LENGTH: usize = 80;
        match self {
            Self::Text { body } => excerpt(body, LENGTH),
            Self::Media { caption, filename, link, .. } => {
                let text = [caption, filename, link].into_iter().find(|text| !text.is_empty());
                excerpt(text.map_or("", String::as_str), LENGTH)
            }
            Self::Template(call) => excerpt(&call.params.join(", "), LENGTH),
            Self::Deed(_) => String::new(),
        }
    }
}

/// A message ready for a provider: what [`crate::providers::Provider::send`] takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutboundMessage {
    /// Ours; travels with the message where the vendor has a field for it, and comes back in the echo.
    pub id: MessageId,
    /// Address at the messenger: digits for phone messengers.
    pub to: String,
    /// What to send.
    pub content: OutboundContent,
}

/// Content that needs no further decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OutboundContent {
    /// Free text.
    Text(String),
    /// A file by public address.
    Media {
        /// How the messenger shows it.
        media: MediaKind,
        /// Where the provider fetches it.
        link: String,
        /// Text under it; may be empty.
        caption: String,
        /// Name of a document; may be empty.
        filename: String,
    },
    /// A template with its values.
    Template(FilledTemplate),
    /// An earlier message says this from now on. Safe to repeat.
    Edit {
        /// The vendor's id of that message.
        of: ProviderMessageId,
        /// Its new words.
        body: String,
        /// True when the words stand under a file.
        caption: bool,
    },
    /// An earlier message vanishes. Safe to repeat.
    Withdraw {
        /// The vendor's id of that message.
        of: ProviderMessageId,
    },
}

impl OutboundContent {
    /// True when an earlier message is changed, instead of one being sent.
    #[must_use]
    pub fn is_change(&self) -> bool {
        match self {
            Self::Edit { .. } | Self::Withdraw { .. } => true,
            Self::Text(_) | Self::Media { .. } | Self::Template(_) => false,
        }
    }
}

/// A message as the journal knows it.
#[derive(Clone, PartialEq, Debug)]
pub struct MessageRecord {
    /// Ours.
    pub id: MessageId,
    /// The channel; `None` when none could be chosen.
    pub channel: Option<ChannelId>,
    /// Messenger of the channel.
    pub messenger: Option<Messenger>,
    /// The person's address: digits for phones, or the text as it was given when it could not be read.
    pub peer: String,
    /// The portal whose command made it.
    pub portal: Option<PortalId>,
    /// The command that made it.
    pub command: Option<CommandId>,
    /// The card that shows it.
    pub card: Option<CardRef>,
    /// What was to be sent.
    pub draft: Draft,
    /// True when the fallback template was sent instead of the content.
    pub used_fallback: bool,
    /// Where it stands.
    pub state: MessageState,
    /// The vendor's id.
    pub provider_id: Option<ProviderMessageId>,
    /// Why it failed or is undecided.
    pub failure: Option<Failure>,
    /// The vendor's code of that failure.
    pub vendor_code: String,
    /// The comment that tells about it on the card.
    pub comment: Option<CrmCommentId>,
    /// Whose message it is.
    pub responsible: Option<CrmUserId>,
    /// What its card was told of a confirmation that did not come; a move of the message takes it back.
    pub silence: Option<Silence>,
    /// Times by step.
    pub times: MessageTimes,
}

/// What is said of a message whose next confirmation did not come (`docs/adr/0009`). It is no state: the message stands
/// where it was last seen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Silence {
    /// None has come yet.
    Told,
    /// None is awaited any more; should one come all the same, it counts.
    Closed,
}

impl Silence {
    /// The word in the API and the database; nothing said is the empty word there.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::Closed => "closed",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn find(code: &str) -> Option<Self> {
        [Self::Told, Self::Closed].into_iter().find(|silence| silence.code() == code)
    }
}

/// When each step was reached; `None` where it was not (or is not known).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MessageTimes {
    /// Taken over from the CRM or the API.
    pub created: Timestamp,
    /// It entered the state it is in.
    pub entered: Timestamp,
    /// The provider took it.
    pub accepted: Option<Timestamp>,
    /// The messenger has it.
    pub sent: Option<Timestamp>,
    /// On the device.
    pub delivered: Option<Timestamp>,
    /// Opened.
    pub read: Option<Timestamp>,
    /// Failed or cancelled.
    pub failed: Option<Timestamp>,
    /// The card was told that no confirmation has come.
    pub silent: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_drafts_of_version_one_parse_for_ever() {
        let text = r#"{"content":{"kind":"text","body":"Hi"},"fallback":{"template":{"name":"hello","language":"ru"},"params":["Ada"]}}"#;
        let draft: Draft = serde_json::from_str(text).unwrap();
        assert!(draft.content.needs_window());
        assert_eq!(draft.fallback.unwrap().template.label(), "hello:ru");
        let media = r#"{"content":{"kind":"media","media":"image","link":"https://x.example/a.png"}}"#;
        assert_eq!(serde_json::from_str::<Draft>(media).unwrap().content.excerpt(), "https://x.example/a.png");
    }
}
