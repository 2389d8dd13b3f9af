//! How a try ended, and whose move it is.

use serde::{Deserialize, Serialize};

use super::ids::ProviderMessageId;
use super::time::Millis;

/// The one word that decides what happens to a job; call sites never decide themselves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The vendor refuses this message or recipient for good. Settle; the manager sees the reason.
    Rejected,
    /// Rules forbid it now (window closed, no template, no consent). Settle; the manager sees what to do instead.
    NotPermitted,
    /// Credentials, plan or sender are broken. Pause the channel or portal, keep the queue, call the administrator.
    Misconfigured,
    /// Surely not done, too many requests. Wait; no attempt is used up.
    Throttled,
    /// Surely not done, the other side is down. Retry by schedule until the deadline.
    Unavailable,
    /// The request left, and the answer did not come or makes no sense. Never repeat blindly; wait for the echo.
    Indeterminate,
}

impl FailureClass {
    /// Every class.
    pub const ALL: [Self; 6] = [
        Self::Rejected,
        Self::NotPermitted,
        Self::Misconfigured,
        Self::Throttled,
        Self::Unavailable,
        Self::Indeterminate,
    ];

    /// The word used in the journal, in metrics and in the API.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::NotPermitted => "not_permitted",
            Self::Misconfigured => "misconfigured",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Indeterminate => "indeterminate",
        }
    }

    /// True when the other side said no to the thing itself: asking again later brings nothing.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Rejected | Self::NotPermitted => true,
            Self::Misconfigured | Self::Throttled | Self::Unavailable | Self::Indeterminate => false,
        }
    }
}

/// The closed list of reasons that robots, Salesbots and the API report (`error_code`, `surface.md` §5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The 24-hour service window is closed and no template was given.
    WindowClosed,
    /// Nobody to write to.
    NoRecipient,
    /// The text given as a phone number is none.
    BadPhone,
    /// The messenger does not reach this number.
    NotOnMessenger,
    /// No such line, or several lines and none chosen.
    NoLine,
    /// The line has no channel for this messenger.
    NoChannel,
    /// The channel is paused.
    ChannelPaused,
    /// No approved template of this name and language.
    TemplateNotFound,
    /// The parameters do not fit the template.
    TemplateParams,
    /// The person does not want messages.
    OptedOut,
    /// The text is longer than the messenger takes.
    TooLong,
    /// The file is larger than the messenger takes.
    FileTooLarge,
    /// The messenger does not take files of this kind, or cannot fetch it.
    FileType,
    /// The CRM has no such file, or does not give it.
    FileNotFound,
    /// The client has no chat in the CRM.
    NoChat,
    /// The channel cannot do this.
    Unsupported,
    /// A CRM placeholder was not filled in.
    UnresolvedPlaceholder,
    /// It was not sent in time.
    Expired,
    /// The provider refused it.
    Rejected,
    /// It is not known whether it was sent.
    Undecided,
    /// The command itself could not be understood.
    BadRequest,
    /// The channel's credentials or account need the administrator.
    Misconfigured,
    /// Neither text nor template nor file was given.
    NoContent,
    /// A person withdrew it before it left.
    Cancelled,
    /// The CRM did not give the data needed (recipients of the card).
    CrmUnavailable,
    /// Taken by the provider, but the awaited step was not confirmed in time.
    NotConfirmed,
    /// Still waiting to be sent when the time for the result was over.
    StillQueued,
    /// A newer message of the same robot took its place before it left.
    Superseded,
    /// The person has just got the same text; it is not sent.
    DuplicateText,
    /// The person has just got the same text; it is held until somebody releases it.
    DuplicateHeld,
    /// The messenger lets nobody be written to who has not written first, and this person is not known to have.
    CannotWriteFirst,
    /// The group is gone, or the sender is not in it or may not write there.
    NotInGroup,
    /// The group goes on under another id, which the particulars name.
    GroupMoved,
    /// The messenger does not let this message be changed or taken back, or not any more.
    CannotChange,
}

impl ErrorCode {
    /// The whole list; a test asks for texts in every language.
    pub const ALL: [Self; 34] = [
        Self::WindowClosed,
        Self::NoRecipient,
        Self::BadPhone,
        Self::NotOnMessenger,
        Self::NoLine,
        Self::NoChannel,
        Self::ChannelPaused,
        Self::TemplateNotFound,
        Self::TemplateParams,
        Self::OptedOut,
        Self::TooLong,
        Self::FileTooLarge,
        Self::FileType,
        Self::FileNotFound,
        Self::NoChat,
        Self::Unsupported,
        Self::UnresolvedPlaceholder,
        Self::Expired,
        Self::Rejected,
        Self::Undecided,
        Self::BadRequest,
        Self::Misconfigured,
        Self::NoContent,
        Self::Cancelled,
        Self::CrmUnavailable,
        Self::NotConfirmed,
        Self::StillQueued,
        Self::Superseded,
        Self::DuplicateText,
        Self::DuplicateHeld,
        Self::CannotWriteFirst,
        Self::NotInGroup,
        Self::GroupMoved,
        Self::CannotChange,
    ];

    /// The code as CRMs and the API see it. Never renamed.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::WindowClosed => "window_closed",
            Self::NoRecipient => "no_recipient",
            Self::BadPhone => "bad_phone",
            Self::NotOnMessenger => "not_on_messenger",
            Self::NoLine => "no_line",
            Self::NoChannel => "no_channel",
            Self::ChannelPaused => "channel_paused",
            Self::TemplateNotFound => "template_not_found",
            Self::TemplateParams => "template_params",
            Self::OptedOut => "opted_out",
            Self::TooLong => "too_long",
            Self::FileTooLarge => "file_too_large",
            Self::FileType => "file_type",
            Self::FileNotFound => "file_not_found",
            Self::NoChat => "no_chat",
            Self::Unsupported => "unsupported",
            Self::UnresolvedPlaceholder => "unresolved_placeholder",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Undecided => "undecided",
            Self::BadRequest => "bad_request",
            Self::Misconfigured => "misconfigured",
            Self::NoContent => "no_content",
            Self::Cancelled => "cancelled",
            Self::CrmUnavailable => "crm_unavailable",
            Self::NotConfirmed => "not_confirmed",
            Self::StillQueued => "still_queued",
            Self::Superseded => "superseded",
            Self::DuplicateText => "duplicate_text",
            Self::DuplicateHeld => "duplicate_held",
            Self::CannotWriteFirst => "cannot_write_first",
            Self::NotInGroup => "not_in_group",
            Self::GroupMoved => "group_moved",
            Self::CannotChange => "cannot_change",
        }
    }

    /// Reads a stored code back.
    #[must_use]
    pub fn find(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|error| error.code() == code)
    }
}

/// A failure in the product's words: the code, and the particulars that complete its text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// Which of the closed list.
    pub code: ErrorCode,
    /// Particulars to show after the text of the code: a vendor's wording, a file name, a placeholder. May be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Failure {
    /// A failure that needs no particulars.
    #[must_use]
    pub fn new(code: ErrorCode) -> Self {
        Self { code, detail: String::new() }
    }

    /// A failure with particulars.
    #[must_use]
    pub fn with(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// What a provider said when it took a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// The id later statuses will carry.
    pub id: ProviderMessageId,
}

/// Why a provider call did not end in [`Accepted`]. Every field has been decided by the adapter's error table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SendError {
    /// Decides what the pipeline does.
    pub class: FailureClass,
    /// What people and CRMs are told.
    pub failure: Failure,
    /// The vendor's own code as text (`131047`), empty when there was no answer.
    pub vendor_code: String,
    /// The vendor's answer as it came, cut by the journal. Never contains our credentials.
    pub raw: String,
    /// How long the vendor asks us to wait.
    pub retry_after: Option<Millis>,
    /// For `Indeterminate`: true when an answer came that was not the vendor's own (a gateway's page), so the request
    /// may never have reached the vendor; false when the connection ended without any answer.
    pub answered_by_gateway: bool,
    /// For `Throttled`: who has to wait.
    pub scope: ThrottleScope,
}

/// Whom a vendor's "too many" concerns.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum ThrottleScope {
    /// The whole sender.
    #[default]
    Channel,
    /// This recipient only.
    Peer,
}
