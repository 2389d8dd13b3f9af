//! Runs of jobs: beginning what must not be done twice, and how it ended.

use std::collections::HashSet;

use super::db::{Tx, args};
use super::messages::{self, Attempt, MessageNews};
use super::writer::{Context, Harvest, Outcome, Step};
use super::{Storage, StorageError, sql};
use crate::domain::job::JobState;
use crate::domain::time::Timestamp;

/// Jobs about to do what must not be done twice.
#[derive(Clone, Debug)]
pub struct Start {
    /// Ids of the jobs.
    pub jobs: Vec<String>,
    /// Who begins: names the worker and the run.
    pub by: String,
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

/// How one run ended.
#[derive(Clone, PartialEq, Debug)]
pub struct Settlement {
    /// The job.
    pub job: String,
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

    /// Stores how runs ended, with everything that follows from it.
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
        chosen.flat_map(|start| start.jobs.iter().map(|job| args![job.as_str(), start.by.as_str(), now.0])).collect()
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
    let news: Vec<&MessageNews> = settlements.iter().filter_map(|settlement| settlement.news.as_ref()).collect();
    messages::move_up(tx, context, now, &news, harvest).await?;
    messages::journal(tx, context, settlements.iter().filter_map(|settlement| settlement.attempt.as_ref())).await?;
    let done = settlements.iter().filter(|settlement| settlement.fate == Fate::Done);
    tx.batch(sql::JOBS_DELETE, done.map(|settlement| args![settlement.job.as_str()]).collect()).await?;
    let kept = settlements.iter().filter_map(|settlement| keep_row(&settlement.job, &settlement.fate, now));
    tx.batch(sql::JOBS_PUT, kept.collect()).await?;
    Ok(())
}

/// The row of a job that stays.
pub(super) fn keep_row(job: &str, fate: &Fate, now: Timestamp) -> Option<Vec<super::db::Arg>> {
    match fate {
        Fate::Done => None,
        Fate::Keep { state, due, tries, reason } => {
            Some(args![job, state.code(), due.0, i64::from(*tries), reason.clone(), now.0])
        }
    }
}
