//! Jobs as rows: adding, asking, reading and withdrawing.

use super::db::{Row, Tx, args};
use super::messages::{MessageNews, move_up};
use super::writer::{Context, Harvest};
use super::{Storage, StorageError, sql};
use crate::domain::ids::MessageId;
use crate::domain::job::{GivenUp, Job, JobKind, JobState, QueueKey};
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::status::MessageState;
use crate::domain::time::Timestamp;

/// Jobs of one queue as the database has them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobsPage {
    /// The jobs; in order when they are all.
    pub jobs: Vec<Job>,
    /// There are no others.
    pub whole: bool,
}

/// Jobs in one state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JobCount {
    /// The state.
    pub state: JobState,
    /// How many.
    pub jobs: i64,
    /// When the first of them became due.
    pub first_due: Timestamp,
}

fn row_of(job: &Job, now: Timestamp) -> Vec<super::db::Arg> {
    args![
        job.id.as_str(),
        job.queue.to_string(),
        job.lane.as_str(),
        job.kind.code(),
        job.subject.as_str(),
        job.seq.as_str(),
        "ready",
        0,
        0,
        job.due.0,
        job.not_after.map(|at| at.0),
        now.0,
    ]
}

/// Adds jobs; known ones stay as they are.
pub(super) async fn add(tx: &mut Tx, now: Timestamp, jobs: impl Iterator<Item = &Job>) -> Result<(), StorageError> {
    tx.batch(sql::JOBS_ADD, jobs.map(|job| row_of(job, now)).collect()).await?;
    Ok(())
}

/// Adds jobs, or counts one more request for known work; gives them as they stand now, the dead left out.
pub(super) async fn ask<'a>(
    tx: &mut Tx,
    now: Timestamp,
    jobs: impl Iterator<Item = &'a Job>,
) -> Result<Vec<Job>, StorageError> {
    let mut seen = std::collections::HashSet::new();
    let rows = jobs.filter(|job| seen.insert(job.id.clone())).map(|job| row_of(job, now)).collect();
    let mut asked = Vec::new();
    for row in tx.batch_rows(sql::JOBS_ASK, rows).await? {
        let job = read(&row)?;
        if job.state != JobState::Dead {
            asked.push(job);
        }
    }
    Ok(asked)
}

pub(super) fn read(row: &Row) -> Result<Job, StorageError> {
    let broken = |what: &str, value: &str| StorageError::Broken(format!("jobs.{what}: {value}"));
    let (queue, kind, state) = (row.text("queue")?, row.text("kind")?, row.text("state")?);
    Ok(Job {
        id: row.text("id")?,
        queue: QueueKey::parse(&queue).ok_or_else(|| broken("queue", &queue))?,
        lane: row.text("lane")?,
        kind: JobKind::find(&kind).ok_or_else(|| broken("kind", &kind))?,
        subject: row.text("subject")?,
        seq: row.text("seq")?,
        due: Timestamp(row.int("due_ms")?),
        not_after: row.maybe_int("not_after_ms")?.map(Timestamp),
        tries: u32::try_from(row.int("tries")?).unwrap_or(u32::MAX),
        revision: row.int("revision")?,
        state: JobState::find(&state).ok_or_else(|| broken("state", &state))?,
        started: row.maybe_int("started_ms")?.map(Timestamp),
        reason: row.maybe_text("reason")?,
    })
}

impl Storage {
    /// What a queue has to do: all of it when that is at most `few` jobs; else, of every kind, up to `few` jobs that
    /// are the first of their lanes and due at `now`.
    ///
    /// # Errors
    /// [`StorageError`].
    #[tracing::instrument(name = "storage.load_jobs", target = "mostik::span", skip_all)]
    pub async fn load_jobs(&self, queue: &QueueKey, few: usize, now: Timestamp) -> Result<JobsPage, StorageError> {
        let (key, limit) = (queue.to_string(), i64::try_from(few).unwrap_or(i64::MAX));
        if self.db.row(sql::JOBS_BEYOND, args![key.as_str(), limit]).await?.is_none() {
            // One more than fits tells that some were added since.
            let rows = self.db.rows(sql::JOBS_ALL, args![key.as_str(), limit.saturating_add(1)]).await?;
            let whole = rows.len() <= few;
            return Ok(JobsPage { jobs: rows.iter().map(read).collect::<Result<_, _>>()?, whole });
        }
        let mut jobs = Vec::new();
        for kind in JobKind::of_queue(queue) {
            let rows = self.db.rows(sql::JOBS_HEADS, args![key.as_str(), kind.code(), now.0, limit]).await?;
            for row in &rows {
                jobs.push(read(row)?);
            }
        }
        Ok(JobsPage { jobs, whole: false })
    }

    /// Jobs as they are now, in no order.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn jobs_now(&self, ids: &[String]) -> Result<Vec<Job>, StorageError> {
        let rows = ids.iter().map(|id| args![id.as_str()]).collect();
        self.db.batch_rows(sql::JOBS_BY_ID, rows).await?.iter().map(read).collect()
    }

    /// Asks for a job from outside the pipeline (reconciling a portal).
    ///
    /// # Errors
    /// [`StorageError`]; the job was not queued.
    pub async fn ask_job(&self, job: Job) -> Result<(), StorageError> {
        self.writer.write(super::writer::Step::Ask(Box::new(job))).await?;
        Ok(())
    }

    /// Withdraws sends of a channel that have not begun, of messages taken over before that time; tells how many. They
    /// end as `cancelled`; their cards and waiting robots are told.
    ///
    /// # Errors
    /// [`StorageError`]; those already withdrawn stay so.
    pub async fn cancel_sends(&self, queue: &QueueKey, before: Timestamp) -> Result<usize, StorageError> {
        const PAGE: i64 = 200;
        let mut cancelled = 0;
        loop {
            let rows = self.db.rows(sql::SENDS_WAITING, args![queue.to_string(), before.0, PAGE]).await?;
            let ids = rows.iter().map(|row| Ok(MessageId::stored(row.text("subject")?)));
            let ids = ids.collect::<Result<Vec<_>, StorageError>>()?;
            if ids.is_empty() {
                return Ok(cancelled);
            }
            let count = self.withdraw_sends(ids).await?;
            cancelled += count;
            if count == 0 {
                return Ok(cancelled);
            }
        }
    }

    /// Withdraws those sends of these messages that have not begun; they end as `cancelled`. Tells how many were.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was withdrawn.
    pub async fn withdraw_sends(&self, messages: Vec<MessageId>) -> Result<usize, StorageError> {
        match self.writer.write(super::writer::Step::Cancel(messages)).await? {
            super::writer::Outcome::Withdrawn(count) => Ok(count),
            _ => Err(StorageError::Broken("cancel: wrong outcome".to_owned())),
        }
    }

    /// Jobs by state, for gauges. Looks through the whole queue: not to be asked for all the time.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn count_jobs(&self) -> Result<Vec<JobCount>, StorageError> {
        let rows = self.db.rows(sql::JOBS_COUNT, vec![]).await?;
        let read = |row: &Row| {
            let word = row.text("state")?;
            let state = JobState::find(&word).ok_or_else(|| StorageError::Broken(format!("jobs.state: {word}")))?;
            Ok(JobCount { state, jobs: row.int("n")?, first_due: Timestamp(row.int("oldest_ms")?) })
        };
        rows.iter().map(read).collect()
    }

    /// Living jobs of one queue.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn count_queue(&self, queue: &QueueKey) -> Result<i64, StorageError> {
        let row = self.db.row(sql::JOBS_OF_QUEUE, args![queue.to_string()]).await?;
        row.map_or(Ok(0), |row| row.int("n"))
    }
}

/// The step behind [`Storage::cancel_sends`], and what becomes of messages that are replaced: only what has not begun is
/// withdrawn, whatever was seen before. Tells how many were.
pub(super) async fn withdraw(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    messages: &[MessageId],
    failure: Option<&Failure>,
    harvest: &mut Harvest,
) -> Result<usize, StorageError> {
    let rows = messages.iter().map(|id| args![Job::id_of(JobKind::Send, id.as_str())]).collect();
    let gone = tx.batch_rows(sql::JOBS_DELETE_READY, rows).await?;
    end(tx, context, now, &gone, MessageState::Cancelled, failure, harvest).await
}

/// The step behind [`Storage::expire_sends`].
pub(super) async fn write_expire(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    messages: &[MessageId],
    harvest: &mut Harvest,
) -> Result<usize, StorageError> {
    let row = |id: &MessageId| args![Job::id_of(JobKind::Send, id.as_str()), GivenUp::Expired.stored(), now.0];
    let gone = tx.batch_rows(sql::JOBS_EXPIRE, messages.iter().map(row).collect()).await?;
    end(tx, context, now, &gone, MessageState::Failed, Some(&Failure::new(ErrorCode::Expired)), harvest).await
}

/// Ends the messages of sends that will not run: here, in memory, and on the card.
async fn end(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    gone: &[Row],
    state: MessageState,
    failure: Option<&Failure>,
    harvest: &mut Harvest,
) -> Result<usize, StorageError> {
    let mut news = Vec::with_capacity(gone.len());
    for row in gone {
        let (job, queue) = (row.text("id")?, row.text("queue")?);
        // It may have been made in this very commit.
        harvest.jobs.retain(|queued| queued.job.id != job);
        harvest.gone.extend(QueueKey::parse(&queue).map(|queue| (queue, job)));
        let id = MessageId::stored(row.text("subject")?);
        news.push(MessageNews { failure: failure.cloned(), ..MessageNews::new(id, state, now) });
    }
    move_up(tx, context, now, &news.iter().collect::<Vec<_>>(), harvest).await?;
    Ok(news.len())
}
