//! What we tell a CRM.

use super::channel::Messenger;
use super::chat::{ChatPost, ChatVerdict};
use super::deed::Deed;
use super::ids::{CrmCommentId, CrmUserId, MessageId, ProviderMessageId, ReplyToken};
use super::message::Silence;
use super::outcome::{ErrorCode, Failure, FailureClass};
use super::portal::CardRef;
use super::status::MessageState;
use super::time::{Millis, Timestamp};

/// One thing to tell a CRM. Adapters match on it exhaustively.
#[derive(Clone, PartialEq, Debug)]
pub enum CrmEffect {
    /// Bring the living comment of one message up to date.
    Comment(Box<CommentEffect>),
    /// Give a waiting robot or Salesbot its result. Safe to repeat.
    Reply(Box<ReplyEffect>),
    /// Show operators what a client wrote.
    Post(Box<ChatPost>),
    /// Tell an operator what became of their message. Safe to repeat.
    Verdict(Box<ChatVerdict>),
}

impl CrmEffect {
    /// True when doing it twice would be seen, so that it is marked as begun first and looked for after doubt.
    #[must_use]
    pub fn adds(&self) -> bool {
        match self {
            Self::Comment(comment) => comment.existing.is_none(),
            Self::Post(_) => true,
            Self::Reply(_) | Self::Verdict(_) => false,
        }
    }

    /// True when an earlier try may have done it without our hearing of it.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        match self {
            Self::Comment(comment) => comment.existing.is_none() && comment.maybe_written,
            Self::Post(post) => post.maybe_shown,
            Self::Reply(_) | Self::Verdict(_) => false,
        }
    }
}

/// The living comment of one message.
#[derive(Clone, PartialEq, Debug)]
pub struct CommentEffect {
    /// Where it stands.
    pub card: CardRef,
    /// The comment made earlier; `None` when there is none yet.
    pub existing: Option<CrmCommentId>,
    /// True when an earlier try may have written it without our hearing of it: look for [`MessageId::short`] on the
    /// card first.
    pub maybe_written: bool,
    /// What it says.
    pub view: CommentView,
}

/// Everything a comment shows.
#[derive(Clone, PartialEq, Debug)]
pub struct CommentView {
    /// The message; its short form is printed, so that people and the reconciler can find it.
    pub message: MessageId,
    /// Messenger, if a channel was found.
    pub messenger: Option<Messenger>,
    /// Name of the channel; may be empty.
    pub channel: String,
    /// The person's address in full; the adapter masks it if the setting says so.
    pub peer: String,
    /// First words of the text, or values of a template.
    pub excerpt: String,
    /// Name of the template sent, if one was.
    pub template: Option<String>,
    /// What was done, where that is no message; `state` is then `sent` or `failed`.
    pub deed: Option<Deed>,
    /// Where the message stands.
    pub state: MessageState,
    /// Since when.
    pub at: Timestamp,
    /// Why it failed or is undecided.
    pub failure: Option<Failure>,
    /// The vendor's code of that failure; may be empty.
    pub vendor_code: String,
    /// False when the messenger tells nothing of a message once it has taken it.
    pub receipts: bool,
    /// What is said of a confirmation that did not come.
    pub silence: Option<Silence>,
    /// How long none had come when that was said.
    pub silent_for: Millis,
    /// Whose message it is.
    pub responsible: Option<CrmUserId>,
    /// The end of the quiet hours it waits for, or could not wait for.
    pub planned: Option<Planned>,
}

/// When a message leaves that came in quiet hours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Planned {
    /// The end of the quiet hours.
    pub at: Timestamp,
    /// By whose clock ([`crate::zones`]).
    pub zone: String,
    /// True when that is the client's clock.
    pub of_client: bool,
    /// True when that is after the message's deadline, so that it will not leave.
    pub too_late: bool,
}

/// The result of an action.
#[derive(Clone, PartialEq, Debug)]
pub struct ReplyEffect {
    /// What the CRM gave us to continue it.
    pub token: ReplyToken,
    /// The result.
    pub result: ActionResult,
}

/// The result of an action, before it is put into the CRM's words (`product.md` §2).
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ActionResult {
    /// One entry per recipient.
    pub recipients: Vec<RecipientResult>,
    /// True when the awaited step was reached, or finally missed, before the time was over.
    pub in_time: bool,
    /// First error, if any.
    pub error: Option<ErrorCode>,
    /// Ids the provider gave.
    pub message_ids: Vec<ProviderMessageId>,
    /// When the last of the messages was delivered, if all were.
    pub delivered_at: Option<Timestamp>,
    /// True for actions that send no messages, so that there are neither ids nor times of any.
    pub sends_nothing: bool,
    /// What only some actions give back.
    pub own: OwnResults,
}

/// Results that only some actions have, by their key in the robot's file; lists stand in the order of the recipients.
pub type OwnResults = Vec<(&'static str, Vec<String>)>;

impl ActionResult {
    /// `Y` only if there were recipients and all of them succeeded.
    #[must_use]
    pub fn success(&self) -> bool {
        !self.recipients.is_empty() && self.recipients.iter().all(|recipient| recipient.outcome.is_ok())
    }
}

/// What became of one recipient.
#[derive(Clone, PartialEq, Debug)]
pub struct RecipientResult {
    /// Chat id: digits of the phone, or what was given when it could not be read.
    pub chat_id: String,
    /// Success, or why not.
    pub outcome: Result<(), Failure>,
}

/// How the CRM took one effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Applied {
    /// The comment stands under this id (new or updated).
    Comment(CrmCommentId),
    /// A client's message stands in the CRM's chat of this number; empty when it did not tell.
    Shown(String),
    /// Done, nothing to remember.
    Done,
}

/// Why a CRM call failed, decided by the adapter's error table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CrmError {
    /// Decides what the pipeline does.
    pub class: FailureClass,
    /// What the failure means for the portal as a whole.
    pub portal: PortalTrouble,
    /// The CRM's code (`QUERY_LIMIT_EXCEEDED`), or a short word of ours when there was no answer.
    pub code: String,
    /// The CRM's wording, without tokens.
    pub text: String,
    /// How long to wait, when the CRM or its limits say so.
    pub retry_after: Option<Millis>,
    /// How far the failure reaches.
    pub reach: Reach,
}

/// How far a failure reaches: what would fare no better if it were tried now.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reach {
    /// This entry of the call.
    Entry,
    /// Every call to this portal.
    Call,
    /// Every call to this CRM from our address, whatever the portal: the CRM no longer listens to us.
    Address,
}

/// What a failed call means beyond itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PortalTrouble {
    /// Nothing.
    None,
    /// The tokens are dead.
    NeedsAuth,
    /// Plan, payment or rights.
    Blocked,
    /// The application is gone.
    Uninstalled,
}

impl CrmError {
    /// The code of a refusal of the employee who was to be shown as an author, whatever the CRM calls it.
    pub const AUTHOR_REFUSED: &str = "author_refused";
}

impl std::fmt::Display for CrmError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}): {}", self.code, self.class.code(), self.text)
    }
}

impl std::error::Error for CrmError {}

/// A question about a card: whom does it concern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecipientQuery {
    /// Which card.
    pub card: CardRef,
    /// Every contact, or only the main one.
    pub all: bool,
}

/// A person of a card, with every phone in the CRM's order of preference.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CardPerson {
    /// Name, for messengers that keep an address book.
    pub name: String,
    /// Phones as people wrote them, best first.
    pub phones: Vec<String>,
}
