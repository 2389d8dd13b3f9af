//! Runs of jobs: beginning what must not be done twice, and how it ended.

use std::collections::HashSet;

use super::db::{Tx, args};
use super::messages::{self, Attempt, MessageNews};
use super::writer::{Context, Harvest, Outcome, Step};
use super::{Storage, StorageError, sql};
use crate::domain::ids::WorkerId;
use crate::domain::job::JobState;
use crate::domain::time::Timestamp;

/// Jobs about to do what must not be done twice.
#[derive(Clone, Debug)]
pub struct Start {
    /// Ids of the jobs.
    pub jobs: Vec<String>,
    /// Who begins; it must own the jobs' queues.
    pub worker: WorkerId,
    /// The mark of this run, different for every run ([`Right::Begun`]).
    pub run: String,
    /// True for work that first looks whether it was done already; it may begin from any living state.
    pub again: bool,
}

/// What becomes of a job after a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is done.
    Done,
    /// It stays.
    Keep {
        /// In this state.
        state: JobState,
        /// To be looked at again then.
        due: Timestamp,
        /// Failed tries that count, this one included.
        tries: u32,
        /// Why, for people; kept with dead letters.
        reason: Option<String>,
    },
}

/// Stands for the store where a worker is named; no worker's id looks like this.
const STORE: &str = "*";

/// By what right a run settles a job. Without it nothing is changed: the job is somebody else's by now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Right {
    /// It began the job under this mark, and nobody has begun it since: it knows best how that ended, whoever owns the
    /// queue now.
    Begun(String),
    /// Its worker owns the job's queue, and the job still stands where the run saw it.
    Owner(WorkerId, JobState),
    /// The store's own: the job has just been made in this commit, or no process works on this database.
    Store,
}

impl Right {
    /// Mark, worker and state seen, as the statements take them; what does not apply is empty.
    pub(super) fn columns(&self) -> [&str; 3] {
        match self {
            Self::Begun(run) => [run, "", ""],
            Self::Owner(worker, seen) => ["", worker.as_str(), seen.code()],
            Self::Store => ["", STORE, ""],
        }
    }
}

/// How one run ended.
#[derive(Clone, PartialEq, Debug)]
pub struct Settlement {
    /// The job.
    pub job: String,
    /// By what right.
    pub right: Right,
    /// What becomes of it.
    pub fate: Fate,
    /// What it means for the message.
    pub news: Option<MessageNews>,
    /// For the journal.
    pub attempt: Option<Attempt>,
}

impl Storage {
    /// Marks jobs as begun, durably; only those named in the answer may be run.
    ///
    /// # Errors
    /// [`StorageError`]; none may be run.
    #[tracing::instrument(name = "storage.start", target = "mostik::span", skip_all)]
    pub async fn start(&self, start: Start) -> Result<HashSet<String>, StorageError> {
        match self.writer.write(Step::Start(start)).await? {
            Outcome::Start(ids) => Ok(ids.into_iter().collect()),
            _ => Err(StorageError::Broken("start: wrong outcome".to_owned())),
        }
    }

    /// Stores how runs ended, with everything that follows from it. Of jobs that are somebody else's by now only the try is
    /// noted.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was stored.
    #[tracing::instrument(name = "storage.settle", target = "mostik::span", skip_all)]
    pub async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), StorageError> {
        self.writer.write(Step::Settle(settlements)).await?;
        Ok(())
    }
}

pub(super) async fn write_starts(
    tx: &mut Tx,
    now: Timestamp,
    starts: &[&Start],
) -> Result<Vec<Vec<String>>, StorageError> {
    let rows = |again: bool| {
        let chosen = starts.iter().filter(|start| start.again == again);
        let row = |start: &Start, job: &String| args![job.as_str(), start.run.as_str(), start.worker.as_str(), now.0];
        chosen.flat_map(|start| start.jobs.iter().map(|job| row(start, job))).collect()
    };
    let mut begun = HashSet::new();
    for row in tx.batch_rows(sql::JOBS_START, rows(false)).await? {
        begun.insert(row.text("id")?);
    }
    for row in tx.batch_rows(sql::JOBS_START_AGAIN, rows(true)).await? {
        begun.insert(row.text("id")?);
    }
    Ok(starts.iter().map(|start| start.jobs.iter().filter(|job| begun.contains(*job)).cloned().collect()).collect())
}

pub(super) async fn write(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    settlements: &[&Settlement],
    harvest: &mut Harvest,
) -> Result<(), StorageError> {
    let mut settlements = settlements.to_vec();
    settlements.sort_by(|one, other| one.job.cmp(&other.job));
    let done = settlements.iter().filter(|settlement| settlement.fate == Fate::Done);
    let done = done.map(|settlement| {
        let [run, worker, seen] = settlement.right.columns();
        args![settlement.job.as_str(), run, worker, seen]
    });
    let kept = settlements
        .iter()
        .filter_map(|settlement| keep_row(&settlement.job, settlement.right.columns(), &settlement.fate, now));
    let (done, kept) = (done.collect(), kept.collect());
    // Jobs before messages, in every step, so that two processes do not wait for each other.
    let mut held = HashSet::new();
    for row in tx.batch_rows(sql::JOBS_DELETE_HELD, done).await? {
        held.insert(row.text("id")?);
    }
    for row in tx.batch_rows(sql::JOBS_PUT, kept).await? {
        held.insert(row.text("id")?);
    }
    let ours = settlements.iter().filter(|settlement| held.contains(&settlement.job));
    let news: Vec<&MessageNews> = ours.filter_map(|settlement| settlement.news.as_ref()).collect();
    messages::move_up(tx, context, now, &news, harvest).await?;
    messages::journal(tx, context, settlements.iter().filter_map(|settlement| settlement.attempt.as_ref())).await
}

/// The row of a job that stays; `right` are the columns that say by what right.
pub(super) fn keep_row(job: &str, right: [&str; 3], fate: &Fate, now: Timestamp) -> Option<Vec<super::db::Arg>> {
    let [run, worker, seen] = right;
    match fate {
        Fate::Done => None,
        Fate::Keep { state, due, tries, reason } => {
            Some(args![job, run, worker, seen, state.code(), due.0, i64::from(*tries), reason.clone(), now.0])
        }
    }
}
