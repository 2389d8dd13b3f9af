//! Chats of messengers inside a CRM, where operators read and answer: Bitrix24's open lines, amoCRM's chats.
//!
//! A dialog has one chat for ever. What names it towards the CRM is made of our channel and the person alone, so the
//! chat is found again after the application was removed and installed anew.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::capability::MediaKind;
use super::channel::Messenger;
use super::event::InboundContent;
use super::ids::{ChannelId, CrmUserId, LineId, MessageId, PortalId, ProviderMessageId};
use super::markup::Markup;
use super::message::ChangeKind;
use super::outcome::{ErrorCode, Failure};
use super::status::MessageState;
use super::time::Timestamp;

/// Where the chats of one line and messenger stand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChatLine {
    /// The portal that has them.
    pub portal: PortalId,
    /// The messenger.
    pub messenger: Messenger,
    /// The CRM's own name of the place: the number of the open line in Bitrix24, the name of the source in amoCRM.
    pub place: String,
    /// Our line whose channels' clients write there.
    pub line: LineId,
}

/// A place as the CRM should have it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChatPlace {
    /// Which.
    pub line: ChatLine,
    /// What the CRM shows of it: names of the channels.
    pub title: String,
    /// True while none of its channels sends, so that the CRM shows it as broken.
    pub broken: bool,
}

/// Which chat, towards a CRM: `channel:peer`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct ChatKey {
    /// Our channel.
    pub channel: ChannelId,
    /// The person's address at the messenger.
    pub peer: String,
}

impl fmt::Display for ChatKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.channel, self.peer)
    }
}

impl ChatKey {
    /// Reads what `Display` wrote; `None` for a chat that is none of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (channel, peer) = text.split_once(':')?;
        let channel = ChannelId::parse(channel)?;
        (!peer.is_empty()).then(|| Self { channel, peer: peer.to_owned() })
    }
}

/// Where the chat of a dialog stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChatStands {
    /// Which chat.
    pub chat: ChatKey,
    /// The messenger.
    pub messenger: Messenger,
    /// The CRM's own name of the place.
    pub place: String,
}

/// A chat and the name it is to have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChatName {
    /// The chat.
    pub stands: ChatStands,
    /// Its new name.
    pub name: String,
}

/// A client's message, to be shown to operators; or one of ours that went to the client past the chat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChatPost {
    /// Our id of it.
    pub message: MessageId,
    /// The chat it belongs into.
    pub chat: ChatKey,
    /// The messenger.
    pub messenger: Messenger,
    /// Where the chat stands.
    pub place: String,
    /// The CRM's number of the chat, if it has told.
    pub crm_chat: Option<String>,
    /// The CRM's own name of the client, where an operator wrote first and the client's words have to be joined to that.
    pub crm_person: Option<String>,
    /// The client's name; may be empty.
    pub name: String,
    /// The vendor's id of the message.
    pub provider_id: ProviderMessageId,
    /// When it was written.
    pub at: Timestamp,
    /// The employee who is shown as its author; `None` for the client.
    pub author: Option<CrmUserId>,
    /// What it says.
    pub content: InboundContent,
    /// The message that it answers, reacts to, changes or takes back.
    pub of: Option<ProviderMessageId>,
    /// First words of that message, once they were looked up; may be empty. `None` where the message is not known.
    pub quote: Option<String>,
    /// Its file, once somebody has looked at it.
    pub file: Option<PostFile>,
    /// True when an earlier try may have shown it without our hearing of it: look for it first.
    pub maybe_shown: bool,
}

/// What becomes of the file of a post.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PostFile {
    /// The CRM fetches it here.
    At {
        /// Address of ours; it ends.
        url: String,
        /// Its name.
        name: String,
        /// Bytes, where they are known before.
        size: Option<u64>,
    },
    /// It is not passed on, for this reason.
    Refused(Failure),
}

impl ChatPost {
    /// True when the CRM is to fetch a file.
    #[must_use]
    pub fn is_with_file(&self) -> bool {
        matches!(self.file, Some(PostFile::At { .. }))
    }

    /// The client's phone with `+`, at messengers that know people by it; `None` for groups and hidden numbers.
    #[must_use]
    pub fn phone(&self) -> Option<String> {
        let by_phone = match self.messenger {
            Messenger::Whatsapp | Messenger::Sms => true,
            Messenger::Telegram | Messenger::Max | Messenger::Vk | Messenger::Avito | Messenger::Email => false,
        };
        let digits = (7..=15).contains(&self.chat.peer.len()) && self.chat.peer.bytes().all(|b| b.is_ascii_digit());
        (by_phone && digits).then(|| format!("+{}", self.chat.peer))
    }
}

/// The CRM's own numbers of an operator's message, handed back when its end is told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChatReference {
    /// Its chat.
    pub chat: String,
    /// The message.
    pub message: String,
}

/// A file in an operator's message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChatFile {
    /// Its name.
    pub name: String,
    /// How messengers show it.
    pub media: MediaKind,
    /// Where it can be fetched without signing in: an address, or a path of the portal; ours once it is to be sent.
    pub link: String,
}

/// What an operator wrote in a chat: the command behind [`super::command::CommandBody::Answer`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OperatorMessage {
    /// The chat.
    pub chat: ChatKey,
    /// The messenger.
    pub messenger: Messenger,
    /// Where the chat stands.
    pub place: String,
    /// What the CRM calls the message.
    pub reference: ChatReference,
    /// Who wrote it; `None` for what the CRM says by itself (a greeting).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<CrmUserId>,
    /// What was written; may be empty when there are files.
    #[serde(default)]
    pub text: Markup,
    /// Files, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<ChatFile>,
    /// When it was written, by the CRM's clock: tells the order of messages where the CRM's ids have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Timestamp>,
    /// The message of ours that went past the chat, was shown in it, and comes back as if it had been written there. It is
    /// with the client already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo_of: Option<MessageId>,
    /// What the operator did to a message written earlier; `text` then holds its new words, and `reference` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<AnswerChange>,
}

/// A change of what an operator wrote earlier.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AnswerChange {
    /// What happens to it.
    pub kind: ChangeKind,
    /// The vendor's ids under which it was confirmed.
    pub of: Vec<ProviderMessageId>,
    /// When the CRM raised it: a later change counts, whichever comes first.
    pub raised: Timestamp,
}

impl OperatorMessage {
    /// Where it stands among the messages of its chat; texts that sort as they were written.
    #[must_use]
    pub fn place_in_chat(&self) -> String {
        match self.written {
            Some(written) => format!("{:020}:{}", written.0, self.reference.message),
            None => format!("{:020}", self.reference.message.parse::<u64>().unwrap_or(u64::MAX)),
        }
    }
}

/// What an operator wrote, as a CRM tells it that knows a chat by our name of it, or a person who has none yet by phone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrittenInChat {
    /// The chat; `None` where an operator writes first.
    pub chat: Option<ChatKey>,
    /// The CRM's own name of the place, if it has told.
    pub place: Option<String>,
    /// The person's phone as the CRM writes it; may be empty.
    pub phone: String,
    /// The CRM's own name of the person; may be empty.
    pub person: String,
    /// What the CRM calls the message.
    pub reference: ChatReference,
    /// What was written; may be empty when there are files.
    pub text: Markup,
    /// Files, in order.
    pub files: Vec<ChatFile>,
    /// When, by the CRM's clock.
    pub written: Timestamp,
}

/// What became of an operator's message, to be told in its chat.
#[derive(Clone, PartialEq, Debug)]
pub struct ChatVerdict {
    /// The message.
    pub answer: OperatorMessage,
    /// How far all of its parts have got.
    pub reached: MessageState,
    /// Ids the provider gave, one for each part; or why (a part of) it did not go out.
    pub outcome: Result<Vec<ProviderMessageId>, Failure>,
    /// When.
    pub at: Timestamp,
}

impl ChatVerdict {
    /// True when nobody needs to hear of it: what was deleted is gone, and a change that a later one has overtaken is
    /// answered for by that one.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        let Some(change) = &self.answer.change else { return false };
        match &self.outcome {
            Ok(_) => change.kind == ChangeKind::Withdraw,
            Err(failure) => failure.code == ErrorCode::Superseded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_reads_back_and_a_foreign_one_is_none() {
        let key = ChatKey { channel: ChannelId::new("01J"), peer: "79001234567".into() };
        assert_eq!(ChatKey::parse(&key.to_string()), Some(key));
        for strange in ["", "chan_01J", "chan_01J:", "line_01J:1", "79001234567"] {
            assert_eq!(ChatKey::parse(strange), None, "{strange}");
        }
    }

    #[test]
    fn stored_answers_of_version_one_parse_for_ever() {
        let text = r#"{"chat":{"channel":"chan_1","peer":"7900"},"messenger":"whatsapp","place":"7",
            "reference":{"chat":"1767","message":"86497"},"text":[{"text":"Hi","style":{"bold":true}}]}"#;
        let answer: OperatorMessage = serde_json::from_str(text).unwrap();
        assert_eq!(answer.text.render(Messenger::Whatsapp), "*Hi*");
    }
}
