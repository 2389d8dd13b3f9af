//! The collecting writer: a task that writes whatever queued up while its last commit ran (on PostgreSQL several, each
//! for steps of its own).
//!
//! A commit at full durability costs the same for one step as for hundreds, so steps are collected without any timer:
//! at low load a step is written at once, at high load hundreds share one commit. Inside a batch, steps of one kind
//! become one many-row statement. If a batch is refused because of one step in it, every step is written alone, so
//! that only the guilty one fails.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::accept::{self, Accept, Arrival};
use super::db::{Arg, Db, Tx, args};
use super::dead_letters::{self, Redrive, Redriven};
use super::effects::{self, EffectSettlement};
use super::ingest::{self, Ingest, Ingested};
use super::jobs;
use super::messages::{self, Create, Created};
use super::pages::Sign;
use super::plan::{self, Plan};
use super::settle::{self, Settlement, Start};
use super::watch::{self, Finding};
use super::{StorageError, StorageOptions, progress, sql, workers};
use crate::domain::command::Command;
use crate::domain::ids::{IdSource, MessageId, PortalId};
use crate::domain::job::{Job, QueueKey};
use crate::domain::message::MessageRecord;
use crate::domain::time::{Clock, Timestamp};

/// Steps that may wait for the writer; beyond that callers are told that the store is overloaded.
const WAITING_MAX: usize = 4096;
/// Most steps of one commit.
const STEPS_MAX: usize = 512;
/// So often the same batch may meet another commit in its way.
const CLASHES_MAX: u32 = 5;

/// A job, with what it works on if that is at hand (saves reading it back).
#[derive(Clone, Debug)]
pub struct Queued {
    /// The job.
    pub job: Job,
    /// What it works on.
    pub work: Work,
}

/// What a job works on.
#[derive(Clone, Debug)]
pub enum Work {
    /// Read it from the database when the job runs.
    Stored,
    /// A command to turn into messages.
    Command(Arc<Command>),
    /// A message to hand to a provider.
    Message(Arc<MessageRecord>),
}

/// Who takes jobs after the commit that made them: the scheduler.
pub trait JobSink: Send + Sync {
    /// True when this process owns the queue, so that new jobs can be handed over in memory.
    fn owns(&self, queue: &QueueKey) -> bool;

    /// New or changed jobs of queues this process owns.
    fn jobs(&self, jobs: Vec<Queued>);

    /// Jobs that ended without being run here (the echo settled them).
    fn gone(&self, jobs: Vec<(QueueKey, String)>);

    /// Jobs may have come into these queues: nobody knows whether the commit that brought them was made.
    fn unsure(&self, queues: BTreeSet<QueueKey>);

    /// There is work in queues this process does not own yet; look for it now.
    fn news(&self);
}

/// What the steps need besides a transaction.
#[derive(Clone)]
pub(super) struct Context {
    /// Fresh ids.
    pub(super) ids: Arc<dyn IdSource>,
    /// The time.
    pub(super) clock: Arc<dyn Clock>,
    /// Takes jobs after the commit.
    pub(super) sink: Arc<dyn JobSink>,
    /// What was configured.
    pub(super) options: StorageOptions,
}

/// One step waiting to be written.
pub(super) enum Step {
    /// A CRM's command.
    Accept(Box<Arrival>),
    /// A command turned into messages.
    Plan(Box<Plan>),
    /// Work about to begin that must not be done twice.
    Start(Start),
    /// How sends ended.
    Settle(Vec<Settlement>),
    /// What a provider told.
    Ingest(Ingest),
    /// How effects ended.
    Effects(Vec<EffectSettlement>),
    /// A message from the API.
    Create(Box<Create>),
    /// A job asked for from outside.
    Ask(Box<Job>),
    /// A dead letter to live again.
    Redrive(Redrive),
    /// Sends to withdraw.
    Cancel(Vec<MessageId>),
    /// Sends whose deadline is over.
    Expire(Vec<MessageId>),
    /// What the watch found out.
    Watch(Vec<Finding>),
    /// Commands whose CRM must be answered now.
    Overdue(Vec<Vec<Arg>>),
    /// A portal has called.
    Sign(PortalId, Sign),
}

/// What a step gives back.
pub(super) enum Outcome {
    /// Of [`Step::Accept`].
    Accept(Accept),
    /// Of [`Step::Plan`]: false when the command had been planned before.
    Plan(bool),
    /// Of [`Step::Start`]: ids of the jobs that may run.
    Start(Vec<String>),
    /// Of [`Step::Create`].
    Create(Created),
    /// Of [`Step::Redrive`].
    Redrive(Redriven),
    /// Of [`Step::Cancel`] and [`Step::Expire`]: how many.
    Withdrawn(usize),
    /// Of [`Step::Ingest`].
    Ingest(Ingested),
    /// Of the others.
    Done,
}

/// What a batch leaves to be done after its commit.
#[derive(Default)]
pub(super) struct Harvest {
    /// Jobs to hand over.
    pub(super) jobs: Vec<Queued>,
    /// Jobs that ended elsewhere.
    pub(super) gone: Vec<(QueueKey, String)>,
}

type Waiting = (Step, oneshot::Sender<Result<Outcome, StorageError>>);

/// Hands steps to the writers.
pub(super) struct WriterHandle {
    /// Of everything but what the others are for.
    main: mpsc::Sender<Waiting>,
    /// Empty where one connection writes everything.
    beside: Option<Beside>,
    ended: tokio::sync::Mutex<Vec<oneshot::Receiver<()>>>,
    stopping: tokio_util::sync::CancellationToken,
}

/// Writers beside the main one, of what touches no row that another writer is about to change (or they would wait for each
/// other, and now and then each for the other). A commit on PostgreSQL is up to some fifteen answers to wait for, one after
/// the other: while one writer waits, another has the server, and a send does not leave later because statuses are being
/// written.
struct Beside {
    /// Of commands. Those of one card always go to the same one, so that they are stored in the order in which they came.
    accepting: [mpsc::Sender<Waiting>; 2],
    /// Of sends that are about to begin.
    starting: mpsc::Sender<Waiting>,
}

impl Beside {
    fn all(&self) -> impl Iterator<Item = &mpsc::Sender<Waiting>> {
        self.accepting.iter().chain([&self.starting])
    }
}

/// Starts the writers: one, on a thread of its own, for SQLite, whose calls block; tasks for PostgreSQL.
pub(super) fn start(db: Db, context: Context) -> WriterHandle {
    let stopping = tokio_util::sync::CancellationToken::new();
    let mut ended = Vec::new();
    let on_a_thread = matches!(db, Db::Sqlite { .. });
    let mut start = || {
        let (queue, inbox) = mpsc::channel(WAITING_MAX);
        let (over, end) = oneshot::channel();
        let (db, context, stop) = (db.clone(), context.clone(), stopping.clone());
        let work = async move {
            run(db, context, inbox, stop).await;
            // Nobody may be waiting for it.
            let _ = over.send(());
        };
        if on_a_thread {
            on_own_thread(work)
        } else {
            drop(tokio::spawn(work))
        }
        ended.push(end);
        queue
    };
    let beside = (!on_a_thread).then(|| Beside { accepting: [start(), start()], starting: start() });
    let main = start();
    WriterHandle { main, beside, ended: tokio::sync::Mutex::new(ended), stopping }
}

fn on_own_thread(work: impl Future<Output = ()> + Send + 'static) {
    // Without a thread nothing can be stored: every write is then told that the store is closing.
    let named = std::thread::Builder::new().name("sqlite-writer".to_owned());
    let begun = named.spawn(move || match tokio::runtime::Builder::new_current_thread().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => tracing::error!(%error, "the writer could not be started"),
    });
    if let Err(error) = begun {
        tracing::error!(%error, "the writer's thread could not be started");
    }
}

impl WriterHandle {
    /// Writes one step; returns after its commit.
    pub(super) async fn write(&self, step: Step) -> Result<Outcome, StorageError> {
        let (reply, answer) = oneshot::channel();
        let stopped = || StorageError::Unavailable("the store is closing".to_owned());
        match self.queue_of(&step).try_send((step, reply)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                return Err(StorageError::Unavailable("too many steps are waiting to be written".to_owned()));
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(stopped()),
        }
        answer.await.map_err(|_gone| stopped())?
    }

    fn queue_of(&self, step: &Step) -> &mpsc::Sender<Waiting> {
        let Some(beside) = &self.beside else { return &self.main };
        let arrival = match step {
            Step::Accept(arrival) => arrival,
            Step::Start(start) if !start.again => return &beside.starting,
            Step::Start(_)
            | Step::Plan(_)
            | Step::Ingest(_)
            | Step::Settle(_)
            | Step::Effects(_)
            | Step::Create(_)
            | Step::Ask(_)
            | Step::Redrive(_)
            | Step::Cancel(_)
            | Step::Expire(_)
            | Step::Watch(_)
            | Step::Overdue(_)
            | Step::Sign(_, _) => return &self.main,
        };
        let mut hasher = DefaultHasher::new();
        arrival.command.portal.hash(&mut hasher);
        match arrival.command.card {
            Some(card) => card.hash(&mut hasher),
            None => arrival.command.id.hash(&mut hasher),
        }
        let [first, second] = &beside.accepting;
        if hasher.finish().is_multiple_of(2) { first } else { second }
    }

    /// Ends when one of the writers has: not everything can be stored any more.
    pub(super) async fn ended(&self) {
        let every = self.beside.iter().flat_map(Beside::all).chain([&self.main]).map(|queue| Box::pin(queue.closed()));
        futures_util::future::select_all(every).await;
    }

    /// Writes what is queued and ends.
    pub(super) async fn stop(&self) {
        self.stopping.cancel();
        for ended in self.ended.lock().await.drain(..) {
            // None panics; if one did, the process is ending anyway.
            let _ = ended.await;
        }
    }
}

async fn run(
    db: Db,
    context: Context,
    mut inbox: mpsc::Receiver<Waiting>,
    stopping: tokio_util::sync::CancellationToken,
) {
    let mut batch: Vec<Waiting> = Vec::with_capacity(STEPS_MAX);
    loop {
        tokio::select! {
            biased;
            taken = inbox.recv_many(&mut batch, STEPS_MAX) => if taken == 0 { return },
            () = stopping.cancelled() => inbox.close(),
        }
        if batch.is_empty() {
            // Closed: what is still queued is taken by the next turns, then `recv_many` gives 0.
            if inbox.is_empty() {
                return;
            }
            continue;
        }
        let (steps, replies): (Vec<Step>, Vec<_>) = batch.drain(..).unzip();
        let results = match write_through(&db, &context, &steps).await {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            Err(StorageError::Broken(_)) if steps.len() > 1 => one_by_one(&db, &context, &steps).await,
            Err(error) => steps.iter().map(|_| Err(error.clone())).collect::<Vec<_>>(),
        };
        for (reply, result) in replies.into_iter().zip(results) {
            // A caller that went away has no use for the answer; its step is written all the same.
            let _ = reply.send(result);
        }
    }
}

/// Writes a batch, again if another writer's commit was in the way: who called has done nothing wrong, and a CRM that is told
/// to come again does not come.
async fn write_through(db: &Db, context: &Context, steps: &[Step]) -> Result<Vec<Outcome>, StorageError> {
    let mut clashes = 0;
    loop {
        match write(db, context, steps).await {
            Err(StorageError::Clash(error)) => {
                clashes += 1;
                if clashes == CLASHES_MAX {
                    return Err(StorageError::Unavailable(error));
                }
                tracing::info!(error, clashes, "a batch is written again");
            }
            result => return result,
        }
    }
}

async fn one_by_one(db: &Db, context: &Context, steps: &[Step]) -> Vec<Result<Outcome, StorageError>> {
    let mut results = Vec::with_capacity(steps.len());
    for step in steps {
        let outcome = write_through(db, context, std::slice::from_ref(step)).await.and_then(|outcomes| {
            outcomes.into_iter().next().ok_or_else(|| StorageError::Broken("a step gave no outcome".to_owned()))
        });
        if let Err(error) = &outcome {
            tracing::error!(%error, "a step was refused by the database");
        }
        results.push(outcome);
    }
    results
}

/// Writes a batch in one transaction and hands the new jobs over.
async fn write(db: &Db, context: &Context, steps: &[Step]) -> Result<Vec<Outcome>, StorageError> {
    let now = context.clock.now();
    let mut harvest = Harvest::default();
    let mut tx = db.begin_on_own_thread().await?;
    let outcomes = write_steps(&mut tx, context, now, steps, &mut harvest).await?;
    let foreign = tell_foreign_queues(&mut tx, context, &mut harvest).await?;
    if let Err(error) = tx.commit().await {
        // Its answer may be all that was lost; whoever asks again is then told that it was done, and hands nothing over.
        context.sink.unsure(harvest.jobs.into_iter().map(|queued| queued.job.queue).collect());
        return Err(error);
    }
    if !harvest.jobs.is_empty() {
        context.sink.jobs(harvest.jobs);
    }
    if !harvest.gone.is_empty() {
        context.sink.gone(harvest.gone);
    }
    if foreign {
        context.sink.news();
    }
    Ok(outcomes)
}

async fn write_steps(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    steps: &[Step],
    harvest: &mut Harvest,
) -> Result<Vec<Outcome>, StorageError> {
    let (mut accepts, mut plans, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    let (mut settles, mut ingests, mut results, mut overdue) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut rare = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        match step {
            Step::Accept(arrival) => accepts.push((index, &**arrival)),
            Step::Plan(plan) => plans.push((index, &**plan)),
            Step::Start(start) => starts.push((index, start)),
            Step::Settle(list) => settles.extend(list),
            Step::Ingest(ingest) => ingests.push((index, ingest)),
            Step::Effects(list) => results.extend(list),
            Step::Create(_)
            | Step::Ask(_)
            | Step::Redrive(_)
            | Step::Cancel(_)
            | Step::Expire(_)
            | Step::Watch(_)
            | Step::Sign(_, _) => {
                rare.push((index, step));
            }
            Step::Overdue(rows) => overdue.extend(rows.iter().cloned()),
        }
    }
    let mut outcomes: Vec<Outcome> = steps.iter().map(|_| Outcome::Done).collect();
    let mut put = |index: usize, outcome: Outcome| {
        if let Some(place) = outcomes.get_mut(index) {
            *place = outcome;
        }
    };
    if !accepts.is_empty() {
        let arrivals: Vec<&Arrival> = accepts.iter().map(|(_, arrival)| *arrival).collect();
        let answers = accept::write(tx, context, now, &arrivals, harvest).await?;
        accepts.iter().zip(answers).for_each(|((index, _), answer)| put(*index, Outcome::Accept(answer)));
    }
    if !plans.is_empty() {
        let list: Vec<&Plan> = plans.iter().map(|(_, plan)| *plan).collect();
        let answers = plan::write(tx, context, now, &list, harvest).await?;
        plans.iter().zip(answers).for_each(|((index, _), answer)| put(*index, Outcome::Plan(answer)));
    }
    if !starts.is_empty() {
        let list: Vec<&Start> = starts.iter().map(|(_, start)| *start).collect();
        let answers = settle::write_starts(tx, now, &list).await?;
        starts.iter().zip(answers).for_each(|((index, _), answer)| put(*index, Outcome::Start(answer)));
    }
    if !settles.is_empty() {
        settle::write(tx, context, now, &settles, harvest).await?;
    }
    if !ingests.is_empty() {
        let list: Vec<&Ingest> = ingests.iter().map(|(_, ingest)| *ingest).collect();
        let answers = ingest::write(tx, context, now, &list, harvest).await?;
        ingests.iter().zip(answers).for_each(|((index, _), answer)| put(*index, Outcome::Ingest(answer)));
    }
    if !results.is_empty() {
        effects::write(tx, now, &results, harvest).await?;
    }
    for (index, step) in rare {
        put(index, write_rare(tx, context, now, step, harvest).await?);
    }
    if !overdue.is_empty() {
        progress::answer(tx, context, now, overdue, harvest).await?;
    }
    Ok(outcomes)
}

/// Steps that are too rare to be worth a many-row statement.
async fn write_rare(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    step: &Step,
    harvest: &mut Harvest,
) -> Result<Outcome, StorageError> {
    match step {
        Step::Create(create) => Ok(Outcome::Create(messages::write_create(tx, context, now, create, harvest).await?)),
        Step::Ask(job) => {
            let asked = jobs::ask(tx, now, std::iter::once(&**job)).await?;
            harvest.jobs.extend(asked.into_iter().map(|job| Queued { job, work: Work::Stored }));
            Ok(Outcome::Done)
        }
        Step::Redrive(redrive) => Ok(Outcome::Redrive(dead_letters::write(tx, now, redrive, harvest).await?)),
        Step::Cancel(messages) => {
            Ok(Outcome::Withdrawn(jobs::withdraw(tx, context, now, messages, None, harvest).await?))
        }
        Step::Expire(messages) => {
            Ok(Outcome::Withdrawn(jobs::write_expire(tx, context, now, messages, harvest).await?))
        }
        Step::Watch(findings) => {
            watch::write(tx, context, now, findings, harvest).await?;
            Ok(Outcome::Done)
        }
        Step::Sign(portal, sign) => {
            tx.exec(sql::SIGN_PUT, args![portal.as_str(), sign.code(), now.0]).await?;
            Ok(Outcome::Done)
        }
        Step::Accept(_)
        | Step::Plan(_)
        | Step::Start(_)
        | Step::Settle(_)
        | Step::Ingest(_)
        | Step::Effects(_)
        | Step::Overdue(_) => Ok(Outcome::Done),
    }
}

/// Sorts out jobs of queues that are not ours; their queues are told that there is news.
async fn tell_foreign_queues(tx: &mut Tx, context: &Context, harvest: &mut Harvest) -> Result<bool, StorageError> {
    let (own, foreign): (Vec<Queued>, Vec<Queued>) =
        std::mem::take(&mut harvest.jobs).into_iter().partition(|queued| context.sink.owns(&queued.job.queue));
    harvest.jobs = own;
    if foreign.is_empty() {
        return Ok(false);
    }
    workers::tell(tx, foreign.iter().map(|queued| &queued.job)).await?;
    Ok(true)
}

/// Adds jobs to the database and to the harvest.
pub(super) async fn add_jobs(
    tx: &mut Tx,
    now: Timestamp,
    new: Vec<Queued>,
    harvest: &mut Harvest,
) -> Result<(), StorageError> {
    jobs::add(tx, now, new.iter().map(|queued| &queued.job)).await?;
    harvest.jobs.extend(new);
    Ok(())
}
