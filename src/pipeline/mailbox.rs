//! What is said to the scheduler, and by whom: the store tells of new jobs, runs tell what became of theirs.

use std::collections::BTreeSet;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::domain::capability::PeerPace;
use crate::domain::channel::Ramp;
use crate::domain::job::QueueKey;
use crate::domain::portal::CrmKind;
use crate::domain::time::Timestamp;
use crate::storage::StorageError;
use crate::storage::jobs::JobsPage;
use crate::storage::portals::KnownPortal;
use crate::storage::writer::{JobSink, Queued};

/// A word to the scheduler.
pub(super) enum Message {
    Jobs(Vec<Queued>),
    Gone(Vec<(QueueKey, String)>),
    Unsure(BTreeSet<QueueKey>),
    News,
    Wake(QueueKey),
    Taken(Vec<QueueKey>),
    Looked { more: bool },
    Page { queue: QueueKey, page: Result<JobsPage, StorageError>, took: Duration },
    Finished(Box<Finished>),
    Called { queue: QueueKey, awaited: bool, crm: CrmKind },
    Holding { queue: QueueKey, hold: Hold },
    PeerRefused { queue: QueueKey, lane: String },
    State { queue: QueueKey, state: WorkState },
    Lost,
}

/// What the store says of a queue's channel or portal.
#[derive(Default)]
pub(super) struct WorkState {
    pub(super) paused: bool,
    /// Messages per second of a channel.
    pub(super) pace: Option<f64>,
    /// How a channel comes back to that pace.
    pub(super) ramp: Option<Ramp>,
    /// The pace towards one recipient of a channel.
    pub(super) per_peer: Option<PeerPace>,
    /// The portal.
    pub(super) portal: Option<Arc<KnownPortal>>,
}

/// One run is over.
pub(super) struct Finished {
    /// The queue.
    pub(super) queue: QueueKey,
    /// The lane that may go on.
    pub(super) lane: String,
    /// The job that ran.
    pub(super) id: String,
    /// The job, if it has to run again (with its new `due`).
    pub(super) again: Option<Queued>,
}

/// Why a queue stands still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hold {
    /// The other side asked for patience.
    Until(Timestamp),
    /// The provider was sent too much at once: it gets nothing until then, and less for a while.
    Throttled(Timestamp),
    /// The portal's CRM does not listen to our address until then.
    Address(Timestamp),
    /// The channel or portal needs a person.
    Paused,
}

/// The scheduler's mailbox; also the store's sink for new jobs.
#[derive(Clone)]
pub struct Handle {
    mail: mpsc::UnboundedSender<Message>,
    owned: Arc<RwLock<std::collections::HashSet<QueueKey>>>,
    broken: CancellationToken,
}

/// The other end, to be given to [`super::scheduler::run`].
pub struct Mailbox {
    pub(super) inbox: mpsc::UnboundedReceiver<Message>,
}

/// Makes the mailbox. The queue between store and scheduler is unbounded on purpose: what is in it is durable and
/// counted by the window of each queue; a bound would make the writer wait for the scheduler that waits for the writer.
#[must_use]
pub fn mailbox() -> (Handle, Mailbox) {
    let (mail, inbox) = mpsc::unbounded_channel();
    (Handle { mail, owned: Arc::default(), broken: CancellationToken::new() }, Mailbox { inbox })
}

impl Handle {
    pub(super) fn send(&self, message: Message) {
        // A closed mailbox means the process is stopping; jobs are in the database.
        let _ = self.mail.send(message);
    }

    /// A channel's or portal's state has changed.
    pub fn wake(&self, queue: QueueKey) {
        self.send(Message::Wake(queue));
    }

    /// Channels whose queues this process runs.
    pub(super) fn owned_channels(&self) -> Vec<QueueKey> {
        let owned = self.owned.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        owned.iter().filter(|queue| matches!(queue, QueueKey::Channel(_))).cloned().collect()
    }

    /// The lease was over for a while.
    pub(super) fn lost(&self) {
        self.send(Message::Lost);
    }

    /// A run is over.
    pub(super) fn finished(&self, finished: Finished) {
        self.send(Message::Finished(Box::new(finished)));
    }

    /// The queue must stand still.
    pub(super) fn hold(&self, queue: QueueKey, hold: Hold) {
        self.send(Message::Holding { queue, hold });
    }

    /// The provider was sent too much for one recipient.
    pub(super) fn peer_refused(&self, queue: QueueKey, lane: String) {
        self.send(Message::PeerRefused { queue, lane });
    }

    /// Held by everything the service cannot do without: dropped, whether by a panic or because the work ended, it tells
    /// [`Handle::broken`]. Whatever may end well disarms it.
    pub(crate) fn vital(&self) -> DropGuard {
        self.broken.clone().drop_guard()
    }

    /// Ends when something has ended that the service cannot do without. Half a service is worse than none: a process
    /// that still answers, but sends nothing, is restarted by nobody.
    pub(crate) async fn broken(&self) {
        self.broken.cancelled().await;
    }

    pub(super) fn set_owned(&self, queue: &QueueKey, owned: bool) {
        let mut set = self.owned.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if owned {
            set.insert(queue.clone());
        } else {
            set.remove(queue);
        }
    }
}

impl JobSink for Handle {
    fn owns(&self, queue: &QueueKey) -> bool {
        self.owned.read().unwrap_or_else(std::sync::PoisonError::into_inner).contains(queue)
    }

    fn jobs(&self, jobs: Vec<Queued>) {
        self.send(Message::Jobs(jobs));
    }

    fn gone(&self, jobs: Vec<(QueueKey, String)>) {
        self.send(Message::Gone(jobs));
    }

    fn unsure(&self, queues: BTreeSet<QueueKey>) {
        self.send(Message::Unsure(queues));
    }

    fn news(&self) {
        self.send(Message::News);
    }
}
