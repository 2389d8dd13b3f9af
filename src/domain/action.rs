//! The catalogue of CRM actions: what a robot or a Salesbot step can ask for.

use serde::{Deserialize, Serialize};

/// One entry of the catalogue. Its code is saved in customers' automations and never changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// Send a text, a template or files to one or more people.
    SendMessage,
    /// Send files, from the CRM or by link, to one or more people.
    SendFile,
    /// Send a document that the CRM makes, once it is ready.
    SendDocument,
    /// Send a text or a document to a group.
    SendToGroup,
    /// Send files to a group.
    SendFileToGroup,
    /// Give clients' chats in the CRM another name.
    RenameChat,
    /// Put tags on clients' dialogs, or take them off.
    TagDialog,
    /// Say whether phones have an account of a messenger, as far as earlier traffic tells.
    CheckPhone,
}

impl ActionKind {
    /// The whole catalogue; a test asks for a robot file and texts for each entry.
    pub const ALL: [Self; 8] = [
        Self::SendMessage,
        Self::SendFile,
        Self::SendDocument,
        Self::SendToGroup,
        Self::SendFileToGroup,
        Self::RenameChat,
        Self::TagDialog,
        Self::CheckPhone,
    ];

    /// The code under which CRMs and saved automations know the action.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::SendMessage => "send_message",
            Self::SendFile => "send_file",
            Self::SendDocument => "send_document",
            Self::SendToGroup => "send_to_group",
            Self::SendFileToGroup => "send_file_to_group",
            Self::RenameChat => "rename_chat",
            Self::TagDialog => "tag_dialog",
            Self::CheckPhone => "check_phone",
        }
    }

    /// Finds the action by its code, ignoring case as Bitrix24 does.
    #[must_use]
    pub fn find(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.code().eq_ignore_ascii_case(code))
    }
}
