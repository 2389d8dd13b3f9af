//! What a CRM asks of us, in words both CRMs share.

use serde::{Deserialize, Serialize};

use super::channel::Messenger;
use super::chat::OperatorMessage;
use super::crm_file::CrmFile;
use super::guards::ActionGuards;
use super::ids::{CommandId, CrmUserId, PortalId, ReplyToken};
use super::message::TemplateCall;
use super::outcome::Failure;
use super::portal::CardRef;
use super::time::Timestamp;

/// One request of a CRM. Stored as versioned JSON before the CRM gets its 200, so old rows parse for ever.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Command {
    /// Ours.
    pub id: CommandId,
    /// Who asks.
    pub portal: PortalId,
    /// What makes the request unique in its portal (a robot's event token): our shield against duplicates.
    pub dedupe_key: String,
    /// The card it was asked on; `None` for documents that are no CRM cards.
    pub card: Option<CardRef>,
    /// What to answer, if the CRM waits.
    pub reply: Option<Reply>,
    /// Whether the card gets a comment.
    pub comment: bool,
    /// Who is shown as the author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub responsible: Option<CrmUserId>,
    /// When it came.
    pub received: Timestamp,
    /// Which robot of the portal's automations asks, in the CRM's own words; `None` when the call does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub robot: Option<String>,
    /// The work itself.
    pub body: CommandBody,
}

/// How and when the waiting CRM is continued.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reply {
    /// Handed back to the CRM.
    pub token: ReplyToken,
    /// Which step of the message's life is waited for.
    pub wait: WaitFor,
    /// The result is given at this moment at the latest.
    pub answer_by: Timestamp,
}

/// Which step a waiting robot or Salesbot waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitFor {
    /// The provider took the message.
    #[default]
    Accepted,
    /// It is on the device.
    Delivered,
    /// It was opened.
    Read,
}

impl WaitFor {
    /// The word in automations and the database.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Delivered => "delivered",
            Self::Read => "read",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn find(code: &str) -> Option<Self> {
        [Self::Accepted, Self::Delivered, Self::Read].into_iter().find(|wait| wait.code() == code.trim())
    }

    /// The state at which the waiting ends well.
    #[must_use]
    pub fn state(self) -> super::status::MessageState {
        use super::status::MessageState;
        match self {
            Self::Accepted => MessageState::Accepted,
            Self::Delivered => MessageState::Delivered,
            Self::Read => MessageState::Read,
        }
    }
}

/// The work of a command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum CommandBody {
    /// Send something to somebody.
    SendMessage(Box<SendMessage>),
    /// Give clients' chats another name.
    RenameChat(Box<RenameChat>),
    /// Put tags on dialogs, or take them off.
    TagDialog(Box<TagDialog>),
    /// Say whether phones have an account.
    CheckPhone(Box<CheckPhone>),
    /// Send what an operator wrote in a chat.
    Answer(Box<OperatorMessage>),
    /// The request reached us but cannot be carried out; the CRM is told why.
    Invalid {
        /// What is wrong.
        failure: Failure,
    },
}

/// Inputs of the actions that send something to somebody, still as the automation's author wrote them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SendMessage {
    /// To whom.
    pub recipients: Recipients,
    /// Id of the line; empty means "the only one".
    pub line: String,
    /// Fixed messenger; `None` is `auto`.
    pub messenger: Option<Messenger>,
    /// Free text; may be empty when there is a template or a file.
    pub text: String,
    /// Template with its parameters.
    pub template: Option<TemplateCall>,
    /// Template for a closed window.
    pub fallback: Option<TemplateCall>,
    /// Addresses of files, or files of the CRM ([`CrmFile`]).
    pub files: Vec<String>,
    /// Text under the first file.
    pub caption: String,
    /// True when only a group may get it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub to_group: bool,
    /// For messengers that keep an address book.
    pub first_name: String,
    /// For messengers that keep an address book.
    pub last_name: String,
    /// Deadline, quiet hours and the like, where the action does not follow its line.
    #[serde(skip_serializing_if = "ActionGuards::is_empty")]
    pub guards: ActionGuards,
}

/// Inputs of the action `check_phone`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckPhone {
    /// Whose phones.
    pub recipients: Recipients,
    /// Id of the line; empty means "the only one".
    pub line: String,
    /// Fixed messenger; `None` is `auto`: any of the line's.
    pub messenger: Option<Messenger>,
}

/// Inputs of the action `rename_chat`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RenameChat {
    /// Whose chats.
    pub recipients: Recipients,
    /// Id of the line; empty means "the only one".
    pub line: String,
    /// Fixed messenger; `None` is `auto`: any of the line's.
    pub messenger: Option<Messenger>,
    /// The new name.
    pub name: String,
}

/// Inputs of the action `tag_dialog`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TagDialog {
    /// Whose dialogs.
    pub recipients: Recipients,
    /// Id of the line; empty means "the only one".
    pub line: String,
    /// Fixed messenger; `None` is `auto`: any of the line's.
    pub messenger: Option<Messenger>,
    /// Tags to put on.
    pub add: Vec<String>,
    /// Tags to take off; one that is in both lists is taken off.
    pub remove: Vec<String>,
}

/// To whom an action goes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Recipients {
    /// Where they come from.
    pub source: RecipientSource,
    /// Phones as people write them, already split at `,` and `;`.
    pub phones: Vec<String>,
    /// Chat ids and `@usernames`.
    pub chat_ids: Vec<String>,
    /// Values of a messenger multi-field.
    pub messenger_field: Vec<String>,
}

/// Where recipients come from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecipientSource {
    /// The values given in the automation.
    #[default]
    Given,
    /// The card's main contact (or company, or the lead itself).
    Main,
    /// Every contact of the card.
    All,
    /// The group that belongs to the card's contact.
    Group,
}

impl RecipientSource {
    /// Reads the word of the automation.
    #[must_use]
    pub fn find(code: &str) -> Option<Self> {
        match code.trim() {
            "given" => Some(Self::Given),
            "main" => Some(Self::Main),
            "all" => Some(Self::All),
            "group" => Some(Self::Group),
            _ => None,
        }
    }
}

impl CommandBody {
    /// True when the same words may be meant for another card: whom they go to follows from the card, and is not said here.
    #[must_use]
    pub fn is_for_any_card(&self) -> bool {
        match self {
            Self::SendMessage(send) => send.recipients.source != RecipientSource::Given,
            Self::TagDialog(tag) => tag.recipients.source != RecipientSource::Given,
            Self::RenameChat(_) | Self::CheckPhone(_) | Self::Answer(_) | Self::Invalid { .. } => false,
        }
    }

    /// Whom it is about; `None` when that is not for the automation to say.
    #[must_use]
    pub fn recipients(&self) -> Option<&Recipients> {
        match self {
            Self::SendMessage(send) => Some(&send.recipients),
            Self::CheckPhone(check) => Some(&check.recipients),
            Self::RenameChat(rename) => Some(&rename.recipients),
            Self::TagDialog(wish) => Some(&wish.recipients),
            Self::Answer(_) | Self::Invalid { .. } => None,
        }
    }

    /// The line it asks for; empty when it names none.
    #[must_use]
    pub fn line(&self) -> &str {
        match self {
            Self::SendMessage(send) => &send.line,
            Self::CheckPhone(check) => &check.line,
            Self::RenameChat(rename) => &rename.line,
            Self::TagDialog(wish) => &wish.line,
            Self::Answer(_) | Self::Invalid { .. } => "",
        }
    }

    /// True when nobody gets a message for it.
    #[must_use]
    pub fn sends_nothing(&self) -> bool {
        match self {
            Self::CheckPhone(_) | Self::RenameChat(_) | Self::TagDialog(_) => true,
            Self::SendMessage(_) | Self::Answer(_) | Self::Invalid { .. } => false,
        }
    }

    /// The files of the CRM it wants to send, each once.
    #[must_use]
    pub fn crm_files(&self) -> Vec<CrmFile> {
        let Self::SendMessage(send) = self else { return Vec::new() };
        let of_templates = [&send.template, &send.fallback].into_iter().flatten().flat_map(|call| &call.files);
        let mut files: Vec<CrmFile> =
            send.files.iter().chain(of_templates).filter_map(|file| CrmFile::parse(file)).collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    /// True when the CRM may have to be asked again and again: nobody else of the card must wait behind that.
    #[must_use]
    pub fn may_take_long(&self) -> bool {
        self.crm_files().iter().any(CrmFile::may_take_long)
    }

    /// True when the CRM must be asked before the work can start.
    #[must_use]
    pub fn needs_crm(&self) -> bool {
        self.needs_card() || matches!(self, Self::RenameChat(_)) || !self.crm_files().is_empty()
    }

    /// True when the card must be read before the work can start.
    #[must_use]
    pub fn needs_card(&self) -> bool {
        self.recipients().is_some_and(|recipients| match recipients.source {
            RecipientSource::Main | RecipientSource::All => true,
            RecipientSource::Given | RecipientSource::Group => false,
        })
    }
}

/// Splits a list as people write it: `,` and `;` separate, spaces around do not count, empty parts vanish.
#[must_use]
pub fn split_list(text: &str) -> Vec<String> {
    text.split([',', ';', '\n']).map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_as_people_write_them() {
        assert_eq!(split_list("8 (900) 123-45-67; +7900, ,@ada"), ["8 (900) 123-45-67", "+7900", "@ada"]);
        assert!(split_list(" ; ").is_empty());
    }

    #[test]
    fn stored_commands_of_version_one_parse_for_ever() {
        let text = r#"{"id":"cmd_1","portal":"prt_1","dedupe_key":"k","card":{"kind":"deal","id":134},
            "reply":{"token":"t","wait":"accepted","answer_by":5},"comment":true,"received":1,
            "body":{"action":"send_message","recipients":{"source":"main"},"text":"Hi","unknown":1}}"#;
        let command: Command = serde_json::from_str(text).unwrap();
        assert!(command.body.needs_card());
        let custom = r#"{"kind":{"custom":180},"id":5}"#;
        assert_eq!(serde_json::from_str::<CardRef>(custom).unwrap().to_string(), "custom180:5");
    }
}
