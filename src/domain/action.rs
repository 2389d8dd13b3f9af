//! The catalogue of CRM actions: what a robot or a Salesbot step can ask for.

use serde::{Deserialize, Serialize};

/// One entry of the catalogue. Its code is saved in customers' automations and never changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// Send a text, a template or files to one or more people.
    SendMessage,
}

impl ActionKind {
    /// The whole catalogue; a test asks for a robot file and texts for each entry.
    pub const ALL: [Self; 1] = [Self::SendMessage];

    /// The code under which CRMs and saved automations know the action.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::SendMessage => "send_message",
        }
    }

    /// Finds the action by its code, ignoring case as Bitrix24 does.
    #[must_use]
    pub fn find(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.code().eq_ignore_ascii_case(code))
    }
}
