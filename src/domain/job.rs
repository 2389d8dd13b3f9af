//! Durable work: queues, lanes and jobs.
//!
//! A *queue* belongs to one worker at a time and has limits of its own (a channel's rate, a portal's bucket). Inside
//! it, *lanes* keep order (one dialog, one card): a job waits for the one before it in its lane and for nothing else.

use std::fmt;

use super::ids::{ChannelId, CommandId, MessageId, PortalId};
use super::time::Timestamp;

/// What a worker owns as a whole.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum QueueKey {
    /// Commands of a portal that need nothing from the CRM to start.
    Intake(PortalId),
    /// Calls to a portal: effects, and commands that must read the card first.
    Crm(PortalId),
    /// Sends of a channel.
    Channel(ChannelId),
}

impl fmt::Display for QueueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Intake(portal) => write!(f, "in:{portal}"),
            Self::Crm(portal) => write!(f, "crm:{portal}"),
            Self::Channel(channel) => write!(f, "out:{channel}"),
        }
    }
}

impl QueueKey {
    /// Reads what `Display` wrote; `None` for a key this version does not know.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, id) = text.split_once(':')?;
        match kind {
            "in" => Some(Self::Intake(PortalId::parse(id)?)),
            "crm" => Some(Self::Crm(PortalId::parse(id)?)),
            "out" => Some(Self::Channel(ChannelId::parse(id)?)),
            _ => None,
        }
    }
}

/// What a job does. Its word is part of the job's id, so that the same work is never queued twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum JobKind {
    /// Turn a command into messages.
    Command,
    /// Hand one message to a provider.
    Send,
    /// Bring the comment of one message up to date.
    Comment,
    /// Give a waiting robot its result.
    Reply,
    /// Compare what a portal has registered with what it should have.
    Reconcile,
    /// Show operators what a client wrote.
    Chat,
}

impl JobKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Command, Self::Send, Self::Comment, Self::Reply, Self::Reconcile, Self::Chat];

    /// The kinds a queue may hold.
    #[must_use]
    pub fn of_queue(queue: &QueueKey) -> &'static [Self] {
        match queue {
            QueueKey::Intake(_) => &[Self::Command],
            QueueKey::Channel(_) => &[Self::Send],
            QueueKey::Crm(_) => &[Self::Reply, Self::Chat, Self::Command, Self::Comment, Self::Reconcile],
        }
    }

    /// True when a job of this kind is the only one of its lane, so that it has nothing to wait for.
    #[must_use]
    pub fn is_alone_in_its_lane(self) -> bool {
        match self {
            Self::Reply => true,
            Self::Command | Self::Send | Self::Comment | Self::Reconcile | Self::Chat => false,
        }
    }

    /// The word in the database and in metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Send => "send",
            Self::Comment => "comment",
            Self::Reply => "reply",
            Self::Reconcile => "reconcile",
            Self::Chat => "chat",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn find(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// Where a job stands in the database. A job that is done is deleted; its traces are in the journal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum JobState {
    /// May run when due.
    Ready,
    /// A worker has begun what must not be done twice.
    Started,
    /// It was begun, and nobody knows how it ended.
    Unclear,
    /// Given up; a person may redrive it.
    Dead,
}

impl JobState {
    /// The word in the database.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Started => "started",
            Self::Unclear => "unclear",
            Self::Dead => "dead",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn find(code: &str) -> Option<Self> {
        [Self::Ready, Self::Started, Self::Unclear, Self::Dead].into_iter().find(|state| state.code() == code)
    }
}

/// Reason of a robot's result that has been given and will be given once more, because a too early one is lost.
pub const GIVEN: &str = "given, and once more to be sure";

/// Why a job was given up (or, while that is still open, may have to be). Stored as the first words of the job's reason.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum GivenUp {
    /// A message could not be sent by its deadline; it surely was not.
    Expired,
    /// The connection ended without an answer: the vendor very likely has the message.
    NoAnswer,
    /// Somebody between us and the vendor answered: the vendor may never have seen it.
    Gateway,
    /// This or another process ended between the mark and the answer.
    ProcessEnded,
    /// The message was there and its job was not: a defect, or a foreign hand in the database.
    Lost,
    /// The person had just got the same text, so a person is asked first.
    Held,
    /// It was open in a backup: it may have been done since.
    Restored,
    /// Whoever was called refused for good; the reason is in their words.
    Refused,
}

impl GivenUp {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::Expired,
        Self::NoAnswer,
        Self::Gateway,
        Self::ProcessEnded,
        Self::Lost,
        Self::Held,
        Self::Restored,
        Self::Refused,
    ];

    /// The word in the API.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NoAnswer => "no_answer",
            Self::Gateway => "gateway",
            Self::ProcessEnded => "process_ended",
            Self::Lost => "lost",
            Self::Held => "held",
            Self::Restored => "restored",
            Self::Refused => "refused",
        }
    }

    /// Finds a reason by its word in the API.
    #[must_use]
    pub fn find(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// The words in the database; empty for [`Self::Refused`], whose words are others'.
    #[must_use]
    pub fn stored(self) -> &'static str {
        match self {
            Self::Expired => "not sent in time",
            Self::NoAnswer => "no answer",
            Self::Gateway => "answer of a gateway",
            Self::ProcessEnded => "the process ended meanwhile",
            Self::Lost => "its job was gone",
            Self::Held => "the person had just got the same text",
            Self::Restored => "restored from a backup",
            Self::Refused => "",
        }
    }

    /// The words in the database with particulars, which may be empty.
    #[must_use]
    pub fn with(self, particulars: &str) -> String {
        match (self.stored(), particulars) {
            ("", words) | (words, "") => words.to_owned(),
            (words, particulars) => format!("{words}: {particulars}"),
        }
    }

    /// Reads a stored reason: which it is, and its particulars.
    #[must_use]
    pub fn read(stored: &str) -> (Self, &str) {
        let known = Self::ALL.into_iter().filter(|reason| !reason.stored().is_empty());
        let found = known.filter_map(|reason| Some((reason, stored.strip_prefix(reason.stored())?)));
        for (reason, rest) in found {
            if rest.is_empty() {
                return (reason, "");
            }
            if let Some(particulars) = rest.strip_prefix(": ") {
                return (reason, particulars);
            }
        }
        (Self::Refused, stored)
    }
}

/// One piece of durable work. What it works on is found by `subject`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    /// `kind:subject`: the same work has the same id, however often it is asked for.
    pub id: String,
    /// Who may run it.
    pub queue: QueueKey,
    /// What it must not overtake.
    pub lane: String,
    /// What it does.
    pub kind: JobKind,
    /// Id of the command, message or portal it works on.
    pub subject: String,
    /// Order inside the lane: a ULID.
    pub seq: String,
    /// Not before.
    pub due: Timestamp,
    /// Not after; `None` when it never gets too late.
    pub not_after: Option<Timestamp>,
    /// Failed tries that count.
    pub tries: u32,
    /// Grows each time the same work is asked for again while it waits or runs.
    pub revision: i64,
    /// Where it stands.
    pub state: JobState,
    /// When what must not be done twice was begun.
    pub started: Option<Timestamp>,
    /// Why it is unclear, dead or done once more ([`GIVEN`]); a word of ours or a sentence for people.
    pub reason: Option<String>,
}

/// Before the person's address: the lane beside a dialog's.
const BESIDE: &str = "beside:";
/// Before the person's address: the lane of what operators answer.
const ANSWERS: &str = "answers:";
/// Before a chat's name: the lane of what went to the client past it.
const PAST: &str = "past:";

impl Job {
    /// The lane of what somebody writes to a person beside the dialog that robots have.
    #[must_use]
    pub fn lane_beside(peer: &str) -> String {
        format!("{BESIDE}{peer}")
    }

    /// The lane of what operators answer to a person: beside the dialog that robots have, and before everybody.
    #[must_use]
    pub fn lane_of_answers(peer: &str) -> String {
        format!("{ANSWERS}{peer}")
    }

    /// The lane of what is shown in a chat because it went to the client past it: beside the words of people, which must
    /// not wait for it.
    #[must_use]
    pub fn lane_past(chat: &str) -> String {
        format!("{PAST}{chat}")
    }

    /// True for showing what nobody has written in the chat: a robot's message, or one typed on the phone.
    #[must_use]
    pub fn is_mirror(&self) -> bool {
        self.kind == JobKind::Chat && self.lane.starts_with(PAST)
    }

    /// True for a send that an operator has just written by hand.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        self.kind == JobKind::Send && self.lane.starts_with(ANSWERS)
    }

    /// Whom a send is for, whichever of the person's lanes it stands in.
    #[must_use]
    pub fn peer(&self) -> &str {
        [BESIDE, ANSWERS].iter().find_map(|prefix| self.lane.strip_prefix(prefix)).unwrap_or(&self.lane)
    }

    /// A fresh job.
    #[must_use]
    pub fn new(kind: JobKind, subject: &str, queue: QueueKey, lane: String, seq: String, due: Timestamp) -> Self {
        Self {
            id: Self::id_of(kind, subject),
            queue,
            lane,
            kind,
            subject: subject.to_owned(),
            seq,
            due,
            not_after: None,
            tries: 0,
            revision: 0,
            state: JobState::Ready,
            started: None,
            reason: None,
        }
    }

    /// The id under which this work is known.
    #[must_use]
    pub fn id_of(kind: JobKind, subject: &str) -> String {
        format!("{}:{subject}", kind.code())
    }

    /// True when somebody stands still until it has run: a robot without its result.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.kind == JobKind::Reply && self.reason.as_deref() != Some(GIVEN)
    }

    /// The message it works on, for jobs that work on one.
    #[must_use]
    pub fn message(&self) -> Option<MessageId> {
        MessageId::parse(&self.subject)
    }

    /// The command it works on, for jobs that work on one.
    #[must_use]
    pub fn command(&self) -> Option<CommandId> {
        CommandId::parse(&self.subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_keys_read_back() {
        for text in ["in:prt_1", "crm:prt_1", "out:chan_1"] {
            assert_eq!(QueueKey::parse(text).unwrap().to_string(), text);
        }
        assert!(QueueKey::parse("out:prt_1").is_none());
    }

    #[test]
    fn reasons_read_back_with_their_particulars() {
        for reason in GivenUp::ALL {
            assert_eq!(GivenUp::find(reason.code()), Some(reason));
            assert_eq!(GivenUp::read(reason.stored()), (reason, ""));
            assert_eq!(GivenUp::read(&reason.with("down")), (reason, "down"));
        }
        assert_eq!(GivenUp::read("no answer at all"), (GivenUp::Refused, "no answer at all"));
    }

    #[test]
    fn the_same_work_has_the_same_id() {
        assert_eq!(Job::id_of(JobKind::Comment, "msg_1"), "comment:msg_1");
    }
}
