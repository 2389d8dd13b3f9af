//! Jobs as rows: adding, asking, reading and withdrawing.

use super::db::{Row, Tx, args};
use super::{Storage, StorageError, sql};
use crate::domain::ids::MessageId;
use crate::domain::job::{Job, JobKind, JobState, QueueKey};
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
            let count = match self.writer.write(super::writer::Step::Cancel(queue.clone(), ids)).await? {
                super::writer::Outcome::Cancelled(count) => count,
                _ => return Err(StorageError::Broken("cancel: wrong outcome".to_owned())),
            };
            cancelled += count;
            if count == 0 {
                return Ok(cancelled);
            }
        }
    }

    /// Jobs by state, for gauges.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn count_jobs(&self) -> Result<Vec<(String, i64)>, StorageError> {
        let rows = self.db.rows(sql::JOBS_COUNT, vec![]).await?;
        rows.iter().map(|row| Ok((row.text("state")?, row.int("n")?))).collect()
    }

    /// When the longest waiting job became due.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn oldest_due(&self) -> Result<Option<Timestamp>, StorageError> {
        let row = self.db.row(sql::JOBS_OLDEST, vec![]).await?;
        Ok(row.map(|row| row.maybe_int("oldest")).transpose()?.flatten().map(Timestamp))
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

/// The step behind [`Storage::cancel_sends`]: only what has not begun is withdrawn, whatever was seen before.
pub(super) async fn write_cancel(
    tx: &mut Tx,
    context: &super::writer::Context,
    now: Timestamp,
    queue: &QueueKey,
    messages: &[MessageId],
    harvest: &mut super::writer::Harvest,
) -> Result<usize, StorageError> {
    use super::messages::{MessageNews, move_up};
    let rows = messages.iter().map(|id| args![Job::id_of(JobKind::Send, id.as_str())]).collect();
    let mut news = Vec::new();
    for row in tx.batch_rows(sql::JOBS_DELETE_READY, rows).await? {
        let id = MessageId::stored(row.text("subject")?);
        harvest.gone.push((queue.clone(), row.text("id")?));
        news.push(MessageNews::new(id, MessageState::Cancelled, now));
    }
    move_up(tx, context, now, &news.iter().collect::<Vec<_>>(), harvest).await?;
    Ok(news.len())
}
