//! Our lines as senders of a CRM's short messages.

use super::channel::Messenger;
use super::ids::LineId;
use super::template::TemplateRef;

/// A line that a CRM offers as a sender of short messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SmsSender {
    /// Through which messenger.
    pub messenger: Messenger,
    /// The line.
    pub line: LineId,
    /// What goes out when the messenger's window is closed: a template whose only parameter is the text.
    pub template: Option<TemplateRef>,
}

impl SmsSender {
    /// Its code in the CRM: lower-case letters, digits and `_`.
    #[must_use]
    pub fn code(&self) -> String {
        format!("mostik_{}_{}", self.messenger.code(), self.line).to_ascii_lowercase()
    }
}

/// A sender as it should stand in a CRM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SmsPlace {
    /// Its code.
    pub code: String,
    /// What people choose.
    pub name: String,
    /// Where the CRM calls; different each time, because it carries a sealed proof.
    pub handler: String,
    /// The same without the proof: what tells whether something changed.
    pub print: String,
}
