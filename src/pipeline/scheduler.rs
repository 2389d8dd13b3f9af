//! The only loop: takes jobs from the store, keeps lanes and rates, and starts what may run.
//!
//! One task owns all queues of this process as plain data; runs are tasks of their own and report back. Nothing is
//! kept per lane but the jobs in it, so a hundred thousand quiet portals cost nothing. Queues are owned as a whole:
//! order, rates and batches are therefore decided in one place, also with several replicas.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Pipeline;
use super::lanes::{FEW, Group, Lanes};
use super::limits::{Batch, ChannelPace, next_batch};
use crate::domain::channel::{ChannelState, Ramp};
use crate::domain::job::QueueKey;
use crate::domain::portal::{CrmKind, PortalState};
use crate::domain::time::{Millis, Timestamp};
use crate::storage::StorageError;
use crate::storage::jobs::JobsPage;
use crate::storage::writer::{JobSink, Queued, Work};

/// Batches of one portal under way at once: one being answered, one being built.
const BATCHES_MAX: usize = 2;
/// Tasks that turn commands of one portal into messages at once, and commands per task.
const INTAKES_MAX: usize = 2;
const INTAKE_BATCH: usize = 128;
/// How often a paused channel or portal is looked at again without being woken.
const PAUSED_LOOK: Millis = Millis::seconds(30);
/// A queue without work is let go after this.
const IDLE: Millis = Millis::minutes(2);
/// How often the registrations of all portals are compared.
const COMPARING: Millis = Millis::hours(24);
/// Every so many sweeps (seconds), portals that wait for tokens are given those that came.
const REVIVING: u64 = 20;
/// Jobs due for longer than this that nobody runs have fallen through somewhere.
const STRAGGLING: Millis = Millis::seconds(20);

enum Message {
    Jobs(Vec<Queued>),
    Gone(Vec<(QueueKey, String)>),
    News,
    Wake(QueueKey),
    Taken(QueueKey, Result<bool, StorageError>),
    Page { queue: QueueKey, page: Result<JobsPage, StorageError>, took: Duration },
    Finished(Box<Finished>),
    Holding { queue: QueueKey, hold: Hold },
    State { queue: QueueKey, state: WorkState },
    Lost,
}

/// What the store says of a queue's channel or portal.
#[derive(Clone, Copy, Default)]
struct WorkState {
    paused: bool,
    /// Messages per second of a channel.
    pace: Option<f64>,
    /// How a channel comes back to that pace.
    ramp: Option<Ramp>,
    /// The CRM of a portal.
    crm: Option<CrmKind>,
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
    /// The vendor asked for patience.
    Until(Timestamp),
    /// The channel or portal needs a person.
    Paused,
}

/// The scheduler's mailbox; also the store's sink for new jobs.
#[derive(Clone)]
pub struct Handle {
    mail: mpsc::UnboundedSender<Message>,
    owned: Arc<RwLock<std::collections::HashSet<QueueKey>>>,
}

/// The other end, to be given to [`run`].
pub struct Mailbox {
    inbox: mpsc::UnboundedReceiver<Message>,
}

/// Makes the mailbox. The queue between store and scheduler is unbounded on purpose: what is in it is durable and
/// counted by the window of each queue; a bound would make the writer wait for the scheduler that waits for the writer.
#[must_use]
pub fn mailbox() -> (Handle, Mailbox) {
    let (mail, inbox) = mpsc::unbounded_channel();
    (Handle { mail, owned: Arc::default() }, Mailbox { inbox })
}

impl Handle {
    fn send(&self, message: Message) {
        // A closed mailbox means the process is stopping; jobs are in the database.
        let _ = self.mail.send(message);
    }

    /// A channel's or portal's state has changed.
    pub fn wake(&self, queue: QueueKey) {
        self.send(Message::Wake(queue));
    }

    /// A run is over.
    pub(super) fn finished(&self, finished: Finished) {
        self.send(Message::Finished(Box::new(finished)));
    }

    /// The queue must stand still.
    pub(super) fn hold(&self, queue: QueueKey, hold: Hold) {
        self.send(Message::Holding { queue, hold });
    }

    fn set_owned(&self, queue: &QueueKey, owned: bool) {
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

    fn news(&self) {
        self.send(Message::News);
    }
}

/// One queue in memory.
struct Queue {
    lanes: Lanes,
    running: usize,
    /// The channel's or portal's state is being read.
    asking: bool,
    /// Known to be allowed to work; `None` until it has been asked.
    allowed: Option<bool>,
    held_until: Option<Timestamp>,
    /// What the store said last.
    known: WorkState,
    /// The pace that holds now: a part of the channel's while its ramp lasts.
    pace: Option<ChannelPace>,
    /// The moment it is in the alarm list for.
    alarm: Option<Timestamp>,
    touched: Timestamp,
}

impl Queue {
    fn new(now: Timestamp) -> Self {
        Self {
            lanes: Lanes::default(),
            running: 0,
            asking: false,
            allowed: None,
            held_until: None,
            known: WorkState::default(),
            pace: None,
            alarm: None,
            touched: now,
        }
    }

    /// Lets the pace hold that is due at `now`; tells when another will be.
    fn keep_pace(&mut self, now: Timestamp) -> Option<Timestamp> {
        let percent = self.known.ramp.map_or(100, |ramp| ramp.percent(now));
        if let Some(full) = self.known.pace {
            let per_second = full * f64::from(percent) / 100.0;
            if self.pace.as_ref().is_none_or(|known| (known.per_second() - per_second).abs() > 1e-9) {
                self.pace = Some(ChannelPace::new(per_second));
            }
        }
        self.known.ramp.and_then(|ramp| ramp.next_step(now))
    }
}

struct Scheduler {
    pipeline: Arc<Pipeline>,
    queues: HashMap<QueueKey, Queue>,
    alarms: BTreeSet<(Timestamp, QueueKey)>,
    runs: TaskTracker,
}

/// Longest wait for runs under way when the process stops; what is cut is settled by the next process.
const RUNS_END: Duration = Duration::from_secs(7);

/// Runs until `stop`; then lets running work finish and returns. Queues are still ours until [`hand_back`].
pub async fn run(pipeline: Arc<Pipeline>, mailbox: Mailbox, stop: CancellationToken) {
    let mut inbox = mailbox.inbox;
    let lease = pipeline.settings.lease;
    let beating = tokio::spawn(beat(Arc::clone(&pipeline), lease, stop.clone()));
    let sweeping = tokio::spawn(sweep(Arc::clone(&pipeline), stop.clone()));
    let watching = tokio::spawn(super::watch::run(Arc::clone(&pipeline), stop.clone()));
    let comparing = tokio::spawn(compare(Arc::clone(&pipeline), stop.clone()));
    let mut scheduler = Scheduler {
        pipeline: Arc::clone(&pipeline),
        queues: HashMap::new(),
        alarms: BTreeSet::new(),
        runs: TaskTracker::new(),
    };
    let mut look = tokio::time::interval(Duration::from_millis(500));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut rounds: u64 = 0;
    let mut batch = Vec::new();
    loop {
        let sleep = scheduler.until_next_alarm();
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            taken = inbox.recv_many(&mut batch, 256) => {
                if taken == 0 { break; }
                scheduler.handle_all(&mut batch);
            }
            () = tokio::time::sleep(sleep) => scheduler.ring_alarms(),
            _ = look.tick() => {
                rounds += 1;
                scheduler.look_around(rounds);
            }
        }
    }
    scheduler.runs.close();
    let _ = tokio::time::timeout(RUNS_END, scheduler.runs.wait()).await;
    beating.abort();
    sweeping.abort();
    watching.abort();
    comparing.abort();
}

/// Lets every queue go, so that another process (or the next one) takes it at once. To be called when nothing can store
/// jobs any more.
pub async fn hand_back(pipeline: &Pipeline) {
    if let Err(error) = pipeline.storage.worker_leave(&pipeline.worker).await {
        tracing::warn!(%error, "queues could not be handed back; they are taken over when the lease ends");
    }
}

/// Proves to the other replicas that this process lives.
async fn beat(pipeline: Arc<Pipeline>, lease: Millis, stop: CancellationToken) {
    let mut first = true;
    let mut written = pipeline.clock.now();
    loop {
        let now = pipeline.clock.now();
        match pipeline.storage.worker_beat(&pipeline.worker, first, lease).await {
            Ok(()) => {
                if now.since(written) > lease {
                    // Others may have taken our queues meanwhile; what is still ours is found again.
                    pipeline.scheduler.send(Message::Lost);
                }
                written = now;
                if first {
                    pipeline.scheduler.send(Message::News);
                }
                first = false;
            }
            Err(error) => tracing::warn!(%error, "the worker's sign of life was not written"),
        }
        tokio::select! {
            () = tokio::time::sleep(Millis(lease.0 / 3).to_duration()) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Takes every one of these queues that can be had.
async fn take_all(pipeline: &Pipeline, queues: Vec<QueueKey>) {
    for queue in queues {
        let taken = pipeline.storage.queue_take(&pipeline.worker, &queue).await;
        pipeline.scheduler.send(Message::Taken(queue, taken));
    }
}

/// Answers CRMs whose time is over, and gives portals the tokens that came for them.
async fn sweep(pipeline: Arc<Pipeline>, stop: CancellationToken) {
    for round in 1_u64.. {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = stop.cancelled() => return,
        }
        match pipeline.storage.answer_overdue().await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "waiting robots answered because their time was over"),
            Err(error) => tracing::warn!(%error, "overdue robots could not be looked up"),
        }
        if !round.is_multiple_of(REVIVING) {
            continue;
        }
        match pipeline.storage.revive_offered().await {
            Ok(portals) => portals.into_iter().for_each(|portal| pipeline.state_changed(QueueKey::Crm(portal))),
            Err(error) => tracing::warn!(%error, "portals without tokens could not be looked up"),
        }
    }
}

/// Compares the registrations of all portals at the start and every day.
async fn compare(pipeline: Arc<Pipeline>, stop: CancellationToken) {
    loop {
        let wait = match pipeline.reconcile_all().await {
            Ok(()) => COMPARING,
            Err(error) => {
                tracing::warn!(%error, "portals could not be asked for their registrations");
                Millis::minutes(1)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait.to_duration()) => {}
            () = stop.cancelled() => return,
        }
    }
}

impl Scheduler {
    fn now(&self) -> Timestamp {
        self.pipeline.clock.now()
    }

    fn until_next_alarm(&self) -> Duration {
        match self.alarms.first() {
            Some((at, _)) => at.since(self.now()).to_duration().max(Duration::from_millis(1)),
            None => Duration::from_secs(3600),
        }
    }

    fn handle_all(&mut self, batch: &mut Vec<Message>) {
        let mut touched: BTreeSet<QueueKey> = BTreeSet::new();
        for message in batch.drain(..) {
            self.handle(message, &mut touched);
        }
        for queue in touched {
            self.pump(&queue);
        }
    }

    fn handle(&mut self, message: Message, touched: &mut BTreeSet<QueueKey>) {
        let now = self.now();
        match message {
            Message::Jobs(jobs) => self.take_in(jobs, now, touched),
            Message::Gone(jobs) => {
                for (key, id) in jobs {
                    if let Some(queue) = self.queues.get_mut(&key) {
                        queue.lanes.remove(&id, now);
                        touched.insert(key);
                    }
                }
            }
            Message::News => self.look_for_news(true),
            Message::Wake(key) => {
                if let Some(queue) = self.queues.get_mut(&key) {
                    queue.allowed = None;
                    queue.held_until = None;
                    touched.insert(key);
                }
            }
            Message::Taken(key, result) => self.taken(key, result, now),
            Message::Page { queue: key, page, took } => {
                self.read_page(&key, page, took, now);
                touched.insert(key);
            }
            Message::Finished(finished) => {
                if let Some(queue) = self.queues.get_mut(&finished.queue) {
                    queue.running = queue.running.saturating_sub(1);
                    queue.lanes.finish(&finished.lane, &finished.id, finished.again, now);
                    touched.insert(finished.queue);
                }
            }
            Message::Holding { queue: key, hold } => {
                if let Some(queue) = self.queues.get_mut(&key) {
                    match hold {
                        Hold::Until(at) => queue.held_until = Some(queue.held_until.map_or(at, |known| known.max(at))),
                        Hold::Paused => {
                            queue.allowed = None;
                            queue.held_until = None;
                        }
                    }
                    touched.insert(key);
                }
            }
            Message::State { queue: key, state } => {
                if let Some(queue) = self.queues.get_mut(&key) {
                    queue.asking = false;
                    queue.allowed = Some(!state.paused);
                    queue.known = state;
                    touched.insert(key);
                }
            }
            Message::Lost => self.lost_everything(),
        }
    }

    /// The lease was over for a while: nothing in memory can be trusted. Runs under way settle as they end; the store
    /// refuses to begin what somebody else has begun.
    fn lost_everything(&mut self) {
        for key in self.queues.keys() {
            self.pipeline.scheduler.set_owned(key, false);
        }
        self.queues.clear();
        self.alarms.clear();
        tracing::warn!("the lease was over for a while; queues are taken anew");
        self.look_for_news(true);
    }

    fn take_in(&mut self, jobs: Vec<Queued>, now: Timestamp, touched: &mut BTreeSet<QueueKey>) {
        let mut foreign = Vec::new();
        for queued in jobs {
            let key = queued.job.queue.clone();
            match self.queues.get_mut(&key) {
                Some(queue) => {
                    queue.touched = now;
                    queue.lanes.push(queued, now);
                    touched.insert(key);
                }
                // The queue was let go between the commit and now.
                None => foreign.push(queued.job),
            }
        }
        if !foreign.is_empty() {
            let pipeline = Arc::clone(&self.pipeline);
            self.runs.spawn(async move {
                if let Err(error) = pipeline.storage.tell_queues(&foreign).await {
                    tracing::warn!(%error, "a queue could not be told of its jobs; the next look finds them");
                }
                pipeline.scheduler.send(Message::News);
            });
        }
    }

    /// Looks in the database for queues with work that nobody runs.
    fn look_around(&mut self, rounds: u64) {
        // Every half second for news of other replicas, every five for queues whose owner is gone, every twenty for
        // jobs that fell through.
        self.look_for_news(rounds.is_multiple_of(10));
        if rounds.is_multiple_of(40) {
            let pipeline = Arc::clone(&self.pipeline);
            self.runs.spawn(async move {
                match pipeline.storage.queues_straggling(STRAGGLING).await {
                    Ok(queues) => take_all(&pipeline, queues).await,
                    Err(error) => tracing::warn!(%error, "stragglers could not be looked up"),
                }
            });
            self.let_go_of_idle();
        }
    }

    fn look_for_news(&mut self, orphans: bool) {
        let pipeline = Arc::clone(&self.pipeline);
        self.runs.spawn(async move {
            match pipeline.storage.queues_to_look_at(&pipeline.worker, orphans).await {
                Ok(queues) => take_all(&pipeline, queues).await,
                Err(error) => tracing::warn!(%error, "queues with news could not be looked up"),
            }
        });
    }

    fn taken(&mut self, key: QueueKey, result: Result<bool, StorageError>, now: Timestamp) {
        match result {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, queue = %key, "a queue could not be taken");
                return;
            }
        }
        self.pipeline.scheduler.set_owned(&key, true);
        let queue = self.queues.entry(key.clone()).or_insert_with(|| Queue::new(now));
        queue.touched = now;
        queue.lanes.look_again(now);
        self.pump(&key);
    }

    fn read(&self, key: QueueKey, now: Timestamp) {
        let pipeline = Arc::clone(&self.pipeline);
        self.runs.spawn(async move {
            let began = std::time::Instant::now();
            let page = pipeline.storage.load_jobs(&key, FEW, now).await;
            pipeline.scheduler.send(Message::Page { queue: key, page, took: began.elapsed() });
        });
    }

    fn read_page(&mut self, key: &QueueKey, page: Result<JobsPage, StorageError>, took: Duration, now: Timestamp) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        let page = match page {
            Ok(page) => {
                let jobs = page.jobs.into_iter().map(|job| Queued { job, work: Work::Stored }).collect();
                Some((jobs, page.whole))
            }
            Err(error) => {
                tracing::warn!(%error, queue = %key, "jobs could not be read");
                None
            }
        };
        queue.lanes.fill(page, now, took);
    }

    fn let_go_of_idle(&mut self) {
        let now = self.now();
        let idle: Vec<QueueKey> = self
            .queues
            .iter()
            .filter(|(_, queue)| queue.running == 0 && queue.lanes.is_idle())
            .filter(|(_, queue)| now.since(queue.touched) > IDLE)
            .map(|(key, _)| key.clone())
            .collect();
        for key in idle {
            self.pipeline.scheduler.set_owned(&key, false);
            if let Some(alarm) = self.queues.remove(&key).and_then(|queue| queue.alarm) {
                self.alarms.remove(&(alarm, key.clone()));
            }
            let pipeline = Arc::clone(&self.pipeline);
            self.runs.spawn(async move {
                if let Err(error) = pipeline.storage.queue_release(&pipeline.worker, &key, None).await {
                    tracing::warn!(%error, queue = %key, "a queue could not be let go");
                }
            });
        }
    }

    fn ring_alarms(&mut self) {
        let now = self.now();
        while let Some((at, key)) = self.alarms.first().cloned() {
            if at > now {
                return;
            }
            self.alarms.remove(&(at, key.clone()));
            if let Some(queue) = self.queues.get_mut(&key) {
                queue.alarm = None;
            }
            self.pump(&key);
        }
    }

    fn set_alarm(&mut self, key: &QueueKey, at: Timestamp) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        if let Some(known) = queue.alarm {
            if known <= at {
                return;
            }
            self.alarms.remove(&(known, key.clone()));
        }
        queue.alarm = Some(at);
        self.alarms.insert((at, key.clone()));
    }

    /// Starts whatever of a queue may run now, and sets its alarm for what may run later.
    fn pump(&mut self, key: &QueueKey) {
        let now = self.now();
        let Some(queue) = self.queues.get_mut(key) else { return };
        let look = queue.lanes.next_look();
        if look.is_some_and(|at| at <= now) {
            queue.lanes.reading();
            self.read(key.clone(), now);
        } else if let Some(at) = look {
            self.set_alarm(key, at);
        }
        let Some(queue) = self.queues.get_mut(key) else { return };
        if queue.lanes.is_empty() {
            return;
        }
        match queue.allowed {
            Some(true) => {}
            None => {
                if !queue.asking {
                    queue.asking = true;
                    self.ask_state(key.clone());
                }
                return;
            }
            Some(false) => {
                queue.allowed = None;
                let at = now.plus(PAUSED_LOOK);
                queue.held_until = Some(at);
                self.set_alarm(key, at);
                return;
            }
        }
        if let Some(until) = queue.held_until {
            if until > now {
                self.set_alarm(key, until);
                return;
            }
            queue.held_until = None;
        }
        let next = match key {
            QueueKey::Channel(_) => self.pump_channel(key, now),
            QueueKey::Intake(_) => self.pump_intake(key, now),
            QueueKey::Crm(_) => self.pump_crm(key, now),
        };
        if let Some(at) = next {
            self.set_alarm(key, at);
        }
    }

    /// Reads whether the channel or portal may work.
    fn ask_state(&self, key: QueueKey) {
        let pipeline = Arc::clone(&self.pipeline);
        self.runs.spawn(async move {
            let state = match &key {
                QueueKey::Channel(id) => match pipeline.storage.find_channel(id).await {
                    Ok(Some(channel)) => {
                        let documented =
                            pipeline.provider_of(&channel).map(|p| p.spec().capabilities.messages_per_second);
                        WorkState {
                            paused: matches!(channel.state, ChannelState::Paused(_)),
                            pace: channel.settings.messages_per_second.or(documented),
                            ramp: channel.ramp,
                            crm: None,
                        }
                    }
                    Ok(None) | Err(_) => WorkState { paused: true, ..WorkState::default() },
                },
                QueueKey::Crm(id) => match pipeline.storage.portal(id).await {
                    Ok(Some(known)) => WorkState {
                        paused: known.portal.state != PortalState::Installed,
                        crm: Some(known.portal.crm),
                        ..WorkState::default()
                    },
                    Ok(None) | Err(_) => WorkState { paused: true, ..WorkState::default() },
                },
                QueueKey::Intake(_) => WorkState::default(),
            };
            pipeline.scheduler.send(Message::State { queue: key, state });
        });
    }

    fn pump_channel(&mut self, key: &QueueKey, now: Timestamp) -> Option<Timestamp> {
        let queue = self.queues.get_mut(key)?;
        let room = self.pipeline.settings.workers.saturating_sub(queue.running);
        let (due, _) = queue.lanes.due(Group::Sends, room, now);
        let mut next = queue.lanes.next_due();
        if due == 0 {
            return next;
        }
        let faster = queue.keep_pace(now);
        let (permits, wait) = queue.pace.as_ref().map_or((due, None), |pace| pace.take(due));
        if let Some(wait) = wait {
            let at = faster.map_or(now.plus(wait), |faster| faster.min(now.plus(wait)));
            next = Some(next.map_or(at, |known| known.min(at)));
        }
        let jobs = queue.lanes.take(Group::Sends, permits, now);
        if jobs.is_empty() {
            return next;
        }
        queue.running += jobs.len();
        let pipeline = Arc::clone(&self.pipeline);
        let key = key.clone();
        self.runs.spawn(async move { super::deliver::run(&pipeline, &key, jobs).await });
        next
    }

    fn pump_intake(&mut self, key: &QueueKey, now: Timestamp) -> Option<Timestamp> {
        let queue = self.queues.get_mut(key)?;
        // Jobs are counted, tasks are meant: a task takes up to a whole batch.
        while queue.running < INTAKES_MAX * INTAKE_BATCH {
            let jobs = queue.lanes.take(Group::Commands, INTAKE_BATCH, now);
            if jobs.is_empty() {
                break;
            }
            queue.running += jobs.len();
            let pipeline = Arc::clone(&self.pipeline);
            let key = key.clone();
            self.runs.spawn(async move { super::intake::run(&pipeline, &key, jobs).await });
        }
        queue.lanes.next_due()
    }

    fn pump_crm(&mut self, key: &QueueKey, now: Timestamp) -> Option<Timestamp> {
        let QueueKey::Crm(portal) = key else { return None };
        let crm = Arc::clone(self.pipeline.crm(self.queues.get(key)?.known.crm?)?);
        let (batch_max, budget) = (crm.spec().batch_max, crm.budget(portal, now));
        let queue = self.queues.get_mut(key)?;
        let groups = queue.lanes.due_groups(now);
        let mut next = queue.lanes.next_due();
        for group in groups {
            if queue.running >= BATCHES_MAX * batch_max {
                break;
            }
            let (due, oldest) = queue.lanes.due(group, batch_max, now);
            let urgent = queue.lanes.somebody_waits(group) || group == Group::Commands;
            let decision = next_batch(budget, due, batch_max, oldest.unwrap_or(now), urgent, now);
            match decision {
                Batch::Wait(at) => next = Some(next.map_or(at, |known: Timestamp| known.min(at))),
                Batch::Now => {
                    let max = if group == Group::Reconcile { 1 } else { batch_max };
                    let jobs = queue.lanes.take(group, max, now);
                    queue.running += jobs.len();
                    let pipeline = Arc::clone(&self.pipeline);
                    let key = key.clone();
                    self.runs.spawn(async move { super::report::run(&pipeline, &key, group, jobs).await });
                    // One batch per look: the budget has changed.
                    next = Some(now.plus(Millis(1)));
                    break;
                }
            }
        }
        next
    }
}
