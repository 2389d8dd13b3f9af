//! The only loop: takes jobs from the store, keeps lanes and rates, and starts what may run.
//!
//! One task owns all queues of this process as plain data; runs are tasks of their own and report back. Nothing is
//! kept per lane but the jobs in it, so a hundred thousand quiet portals cost nothing. Queues are owned as a whole:
//! order, rates and batches are therefore decided in one place, also with several replicas.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::Pipeline;
use super::deliver::Pace;
use super::governor::{NextCall, UnderWay, next_call};
use super::lanes::{FEW, Group, Lanes};
use super::limits::{ChannelPace, PeerPaces, Turnstile};
use super::mailbox::{Handle, Hold, Mailbox, Message, WorkState};
use super::news::{self, Looking};
use super::stops::{Gate, Stops};
use super::upkeep;
use crate::domain::channel::{ChannelState, Ramp};
use crate::domain::job::{JobState, QueueKey};
use crate::domain::portal::{CrmKind, PortalState};
use crate::domain::time::{Millis, Timestamp};
use crate::storage::StorageError;
use crate::storage::jobs::JobsPage;
use crate::storage::portals::KnownPortal;
use crate::storage::writer::{Queued, Work};
use crate::telemetry;

/// Tasks that turn commands of one portal into messages at once, and commands per task.
const INTAKES_MAX: usize = 2;
const INTAKE_BATCH: usize = 128;
/// How often a paused channel or portal is looked at again without being woken.
const PAUSED_LOOK: Millis = Millis::seconds(30);
/// A queue without work is let go after this.
const IDLE: Millis = Millis::minutes(2);
/// A recipient who has had enough for the moment is looked at again after this at most.
const PEER_LOOK: Millis = Millis::seconds(4);
/// How often the database is looked at for work that nobody was told of.
const LOOK: Millis = Millis(500);
/// How long after a failed try our own queues are asked for again.
const OWN_AGAIN: Duration = Duration::from_secs(1);

/// One queue in memory.
struct Queue {
    lanes: Lanes,
    /// Known to be ours. One that was lost is kept until its last run ends, so that its lanes wait for that.
    owned: bool,
    running: usize,
    /// The channel's or portal's state is being read.
    asking: bool,
    /// It changed while it was being read: what comes may be from before.
    outdated: bool,
    /// Known to be allowed to work; `None` until it has been asked.
    allowed: Option<bool>,
    held_until: Option<Timestamp>,
    /// The pace that holds now: a part of the channel's while its ramp lasts.
    pace: Option<ChannelPace>,
    turnstile: Arc<Turnstile>,
    /// Messages per second of a channel, and how it comes back to that after a pause.
    full: Option<f64>,
    ramp: Option<Ramp>,
    peers: Option<PeerPaces>,
    portal: Option<Arc<KnownPortal>>,
    /// Calls to the portal.
    under_way: UnderWay,
    /// The moment it is in the alarm list for.
    alarm: Option<Timestamp>,
    touched: Timestamp,
}

impl Queue {
    fn new(now: Timestamp) -> Self {
        Self {
            lanes: Lanes::default(),
            owned: true,
            running: 0,
            asking: false,
            outdated: false,
            allowed: None,
            held_until: None,
            pace: None,
            turnstile: Arc::default(),
            full: None,
            ramp: None,
            peers: None,
            portal: None,
            under_way: UnderWay::default(),
            alarm: None,
            touched: now,
        }
    }

    /// Lets the pace hold that is due at `now`; tells when another will be.
    fn keep_pace(&mut self, now: Timestamp) -> Option<Timestamp> {
        let percent = self.ramp.map_or(100, |ramp| ramp.percent(now));
        if let Some(full) = self.full {
            let per_second = full * f64::from(percent) / 100.0;
            if self.pace.as_ref().is_none_or(|known| (known.documented() - per_second).abs() > 1e-9) {
                self.pace = Some(ChannelPace::new(per_second));
            }
        }
        self.ramp.and_then(|ramp| ramp.next_step(now))
    }

    fn hold_until(&mut self, at: Timestamp) {
        self.held_until = Some(self.held_until.map_or(at, |known| known.max(at)));
    }

    /// Puts back sends to people who have had enough for the moment: they delay their own lane only.
    fn keep_peer_pace(&mut self, jobs: Vec<Queued>, now: Timestamp) -> Vec<Queued> {
        let Some(peers) = &mut self.peers else { return jobs };
        let mut kept = Vec::with_capacity(jobs.len());
        for queued in jobs {
            // One that was begun is not sent now: its echo is looked for.
            let sends = queued.job.state == JobState::Ready;
            match if sends { peers.take(queued.job.peer(), now) } else { Ok(()) } {
                Ok(()) => kept.push(queued),
                Err(wait) => {
                    let (lane, id) = (queued.job.lane.clone(), queued.job.id.clone());
                    let mut later = queued;
                    later.job.due = now.plus(wait.min(PEER_LOOK));
                    self.lanes.finish(&lane, &id, Some(later), now);
                }
            }
        }
        kept
    }
}

struct Scheduler {
    pipeline: Arc<Pipeline>,
    queues: HashMap<QueueKey, Queue>,
    alarms: BTreeSet<(Timestamp, QueueKey)>,
    stops: Stops,
    looking: Looking,
    /// The queue behind which stragglers are looked for next.
    stragglers: Arc<std::sync::Mutex<String>>,
    runs: Runs,
}

/// Queues that are read from the database at once: a rush over a thousand of them leaves connections for those who store.
const READS_MAX: usize = 4;

/// What runs at the moment.
struct Runs {
    tasks: TaskTracker,
    mail: Handle,
    reads: Arc<Semaphore>,
}

impl Runs {
    /// Starts one. If it panicked it would hold its jobs and its queue for ever, so the process ends and begins anew.
    fn spawn(&self, run: impl Future<Output = ()> + Send + 'static) {
        let vital = self.mail.vital();
        self.tasks.spawn(async move {
            run.await;
            vital.disarm();
        });
    }
}

/// Longest wait for runs under way when the process stops; what is cut is settled by the next process.
const RUNS_END: Duration = Duration::from_secs(7);

/// Runs until `stop`; then lets running work finish and returns. Queues are still ours until [`upkeep::hand_back`].
pub async fn run(pipeline: Arc<Pipeline>, mailbox: Mailbox, stop: CancellationToken) {
    let mut inbox = mailbox.inbox;
    let sweeping = beside(&pipeline, upkeep::sweep(Arc::clone(&pipeline), stop.clone()));
    let comparing = beside(&pipeline, upkeep::compare(Arc::clone(&pipeline), stop.clone()));
    let watching = beside(&pipeline, super::watch::run(Arc::clone(&pipeline), stop.clone()));
    let missing = beside(&pipeline, super::lost_calls::run(Arc::clone(&pipeline), stop.clone()));
    let connecting = beside(&pipeline, super::addresses::run(Arc::clone(&pipeline), stop.clone()));
    let mut scheduler = Scheduler {
        pipeline: Arc::clone(&pipeline),
        queues: HashMap::new(),
        alarms: BTreeSet::new(),
        stops: Stops::default(),
        looking: Looking::default(),
        stragglers: Arc::default(),
        runs: Runs {
            tasks: TaskTracker::new(),
            mail: pipeline.scheduler.clone(),
            reads: Arc::new(Semaphore::new(READS_MAX)),
        },
    };
    let mut look = tokio::time::interval(LOOK.to_duration());
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
    scheduler.runs.tasks.close();
    let _ = tokio::time::timeout(RUNS_END, scheduler.runs.tasks.wait()).await;
    sweeping.abort();
    watching.abort();
    missing.abort();
    connecting.abort();
    comparing.abort();
}

/// Starts what must go on until the process stops.
pub(crate) fn beside(pipeline: &Pipeline, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let vital = pipeline.scheduler.vital();
    tokio::spawn(async move {
        let _vital = vital;
        work.await;
    })
}

/// A run of a queue. Its lanes are not named: a lane may be somebody's phone.
fn run_span(key: &QueueKey, jobs: usize) -> tracing::Span {
    tracing::info_span!(target: telemetry::SPANS, parent: None, "lane.run", lane.key = %key, jobs)
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
            Message::Unsure(queues) => {
                for key in queues {
                    if let Some(queue) = self.queues.get_mut(&key).filter(|queue| queue.owned) {
                        queue.lanes.look_again(now);
                        touched.insert(key);
                    }
                }
            }
            Message::News => self.look_for_news(true),
            Message::Wake(key) => {
                if let Some(queue) = self.queues.get_mut(&key) {
                    queue.allowed = None;
                    queue.held_until = None;
                    queue.outdated = queue.asking;
                    touched.insert(key);
                }
            }
            Message::Taken(keys) => keys.into_iter().for_each(|key| self.taken(key, now)),
            Message::Looked { more } => {
                if let Some(orphans) = self.looking.over(more) {
                    self.look_for_news(orphans);
                }
            }
            Message::Page { queue: key, page, took } => {
                self.read_page(&key, page, took, now);
                touched.insert(key);
            }
            Message::Finished(finished) => {
                if let Some(queue) = self.queues.get_mut(&finished.queue) {
                    queue.running = queue.running.saturating_sub(1);
                    // Of a queue that was lost the database knows better.
                    let again = finished.again.filter(|_| queue.owned);
                    queue.lanes.finish(&finished.lane, &finished.id, again, now);
                    if queue.owned {
                        touched.insert(finished.queue);
                    } else if queue.running == 0 {
                        self.queues.remove(&finished.queue);
                    }
                }
            }
            Message::Called { queue: key, awaited, crm } => {
                self.called(&key, awaited, crm, now);
                touched.insert(key);
            }
            Message::Holding { queue: key, hold } => {
                self.hold(&key, hold, now);
                touched.insert(key);
            }
            Message::PeerRefused { queue: key, lane } => {
                if let Some(peers) = self.queues.get_mut(&key).and_then(|queue| queue.peers.as_mut()) {
                    peers.refused(&lane, now);
                }
            }
            Message::State { queue: key, state } => {
                if let Some(queue) = self.queues.get_mut(&key) {
                    queue.asking = false;
                    // Asked again at once if it is from before a change.
                    queue.allowed = Some(!state.paused).filter(|_| !std::mem::take(&mut queue.outdated));
                    queue.portal = state.portal;
                    queue.full = state.pace;
                    queue.ramp = state.ramp;
                    if queue.peers.is_none() {
                        queue.peers = state.per_peer.map(PeerPaces::new);
                    }
                    touched.insert(key);
                }
            }
            Message::Lost => self.lost_everything(),
        }
    }

    fn hold(&mut self, key: &QueueKey, hold: Hold, now: Timestamp) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        match hold {
            Hold::Until(at) => queue.hold_until(at),
            Hold::Throttled(at) => {
                queue.hold_until(at);
                if let Some(pace) = &mut queue.pace {
                    pace.throttled(now, at);
                }
            }
            Hold::Paused => {
                queue.allowed = None;
                queue.held_until = None;
            }
            Hold::Address(at) => {
                let Some(crm) = queue.portal.as_ref().map(|known| known.portal.crm) else { return };
                if self.stops.stop(crm, at) {
                    crate::telemetry::crm_stopped(crm.code(), true);
                    tracing::error!(
                        crm = crm.code(),
                        "the CRM no longer listens to our address: nothing is sent to any of its portals; its support \
                         can lift that, and one call asks now and then"
                    );
                }
            }
        }
    }

    /// A call to a portal is over.
    fn called(&mut self, key: &QueueKey, awaited: bool, crm: CrmKind, now: Timestamp) {
        if let Some(queue) = self.queues.get_mut(key) {
            let count = queue.under_way.count(awaited);
            *count = count.saturating_sub(1);
        }
        // Also when the queue is somebody else's by now: nobody else would open the door again.
        if self.stops.called(crm, key, now) {
            crate::telemetry::crm_stopped(crm.code(), false);
            tracing::info!(crm = crm.code(), "the CRM listens to our address again");
        }
    }

    /// The lease was over for a while: what waits in memory cannot be trusted. Runs under way go on as far as they may; the
    /// store refuses to begin or settle what is somebody else's by now.
    fn lost_everything(&mut self) {
        for (key, queue) in &mut self.queues {
            self.pipeline.scheduler.set_owned(key, false);
            queue.owned = false;
            queue.lanes.start_over();
            queue.allowed = None;
            queue.held_until = None;
            queue.alarm = None;
        }
        self.queues.retain(|_, queue| queue.running > 0);
        self.alarms.clear();
        tracing::warn!("the lease was over for a while; queues are taken anew");
        self.look_for_news(true);
        // Most are still ours, and the look for news and orphans does not show those.
        let pipeline = Arc::clone(&self.pipeline);
        self.runs.spawn(async move {
            // The database has just been in trouble, and nothing else looks for them soon. A process that stops, or has lost
            // its lease again, is told so by the next turn.
            while let Err(error) = news::take_own(&pipeline).await {
                tracing::warn!(%error, "our own queues could not be taken yet");
                tokio::time::sleep(OWN_AGAIN).await;
                if !pipeline.lease.pass().holds() {
                    return;
                }
            }
        });
    }

    fn take_in(&mut self, jobs: Vec<Queued>, now: Timestamp, touched: &mut BTreeSet<QueueKey>) {
        let mut foreign = Vec::new();
        for queued in jobs {
            let key = queued.job.queue.clone();
            match self.queues.get_mut(&key) {
                Some(queue) if queue.owned => {
                    queue.touched = now;
                    queue.lanes.push(queued, now);
                    touched.insert(key);
                }
                // The queue was let go or lost between the commit and now.
                Some(_) | None => foreign.push(queued.job),
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
        // Every half second for news of other replicas, twice a lease for queues whose owner is gone, every twenty for jobs
        // that fell through.
        let orphans = u64::try_from(self.pipeline.settings.lease.0 / (2 * LOOK.0)).unwrap_or(1).max(1);
        self.look_for_news(rounds.is_multiple_of(orphans));
        if rounds.is_multiple_of(40) {
            self.runs.spawn(news::look_for_stragglers(Arc::clone(&self.pipeline), Arc::clone(&self.stragglers)));
            self.let_go_of_idle();
        }
    }

    fn look_for_news(&mut self, orphans: bool) {
        // Without a living lease a queue would be anybody's at once, and nothing begun in it could leave.
        if self.pipeline.lease.pass().holds() && self.looking.begin(orphans) {
            self.runs.spawn(news::look(Arc::clone(&self.pipeline), orphans));
        }
    }

    fn taken(&mut self, key: QueueKey, now: Timestamp) {
        self.pipeline.scheduler.set_owned(&key, true);
        let queue = self.queues.entry(key.clone()).or_insert_with(|| Queue::new(now));
        queue.owned = true;
        queue.touched = now;
        queue.lanes.look_again(now);
        self.pump(&key);
    }

    fn read(&self, key: QueueKey, now: Timestamp) {
        let (pipeline, reads) = (Arc::clone(&self.pipeline), Arc::clone(&self.runs.reads));
        self.runs.spawn(async move {
            let _turn = reads.acquire().await;
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
            .filter(|(_, queue)| queue.owned && queue.running == 0 && queue.lanes.is_idle())
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
        let Some(queue) = self.queues.get_mut(key).filter(|queue| queue.owned) else { return };
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
        let (pipeline, reads) = (Arc::clone(&self.pipeline), Arc::clone(&self.runs.reads));
        self.runs.spawn(async move {
            let _turn = reads.acquire().await;
            let state = match &key {
                QueueKey::Channel(id) => match pipeline.storage.find_channel(id).await {
                    Ok(Some(channel)) => {
                        let can = pipeline.provider_of(&channel).map(|provider| provider.spec().capabilities);
                        let documented = can.map(|can| can.messages_per_second);
                        WorkState {
                            paused: matches!(channel.state, ChannelState::Paused(_)),
                            pace: channel.settings.messages_per_second.or(documented),
                            ramp: channel.ramp,
                            per_peer: can.and_then(|can| can.per_peer),
                            portal: None,
                        }
                    }
                    Ok(None) | Err(_) => WorkState { paused: true, ..WorkState::default() },
                },
                QueueKey::Crm(id) => match pipeline.storage.portal(id).await {
                    Ok(Some(known)) => WorkState {
                        paused: known.portal.state != PortalState::Installed,
                        portal: Some(known),
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
        let due = queue.lanes.due(Group::Sends, room, now).count;
        let mut next = queue.lanes.next_due();
        if due == 0 {
            return next;
        }
        let faster = queue.keep_pace(now);
        let (permits, wait) = queue.pace.as_mut().map_or((due, None), |pace| pace.take(due, now));
        if let Some(wait) = wait {
            telemetry::limiter_wait("channel", wait);
            let at = faster.map_or(now.plus(wait), |faster| faster.min(now.plus(wait)));
            next = Some(next.map_or(at, |known| known.min(at)));
        }
        let taken = queue.lanes.take(Group::Sends, permits, now);
        let jobs = queue.keep_peer_pace(taken, now);
        let unused = permits.saturating_sub(jobs.len());
        if unused > 0 {
            if let Some(pace) = &mut queue.pace {
                pace.give_back(unused, now);
            }
            next = Some(now.plus(Millis(1)));
        }
        if jobs.is_empty() {
            return next;
        }
        queue.running += jobs.len();
        let pace = Pace {
            spacing: queue.pace.as_ref().map(|pace| pace.spacing(now)),
            turnstile: Arc::clone(&queue.turnstile),
        };
        let pipeline = Arc::clone(&self.pipeline);
        let key = key.clone();
        let span = run_span(&key, jobs.len());
        self.runs.spawn(async move { super::deliver::run(&pipeline, &key, jobs, &pace).await }.instrument(span));
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
            let span = run_span(&key, jobs.len());
            self.runs.spawn(async move { super::intake::run(&pipeline, &key, jobs).await }.instrument(span));
        }
        queue.lanes.next_due()
    }

    fn pump_crm(&mut self, key: &QueueKey, now: Timestamp) -> Option<Timestamp> {
        let queue = self.queues.get_mut(key)?;
        let portal = &queue.portal.as_ref()?.portal;
        let gate = self.stops.gate(portal.crm, now);
        if let Gate::Closed(until) = gate {
            return Some(until);
        }
        let crm = Arc::clone(self.pipeline.crm(portal.crm)?);
        let (budget, batch_max) = (crm.budget(portal, now), crm.spec().batch_max);
        let (call, look) = next_call(&mut queue.lanes, budget, queue.under_way, batch_max, now);
        let Some(NextCall { group, jobs, awaited }) = call else {
            if let Some(at) = look.filter(|_| !queue.lanes.due_groups(now).is_empty()) {
                telemetry::limiter_wait("portal", at.since(now));
            }
            return look;
        };
        if gate == Gate::Ask {
            self.stops.ask(portal.crm, key);
        }
        queue.running += jobs.len();
        *queue.under_way.count(awaited) += 1;
        let (pipeline, key) = (Arc::clone(&self.pipeline), key.clone());
        let span = run_span(&key, jobs.len());
        let kind = portal.crm;
        let run = async move {
            super::report::run(&pipeline, &key, group, jobs).await;
            pipeline.scheduler.send(Message::Called { queue: key, awaited, crm: kind });
        };
        self.runs.spawn(run.instrument(span));
        look
    }
}
