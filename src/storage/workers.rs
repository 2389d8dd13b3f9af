//! Who runs what: workers prove that they live, and own queues as a whole.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::db::{Db, Tx, args};
use super::{Storage, StorageError, sql};
use crate::domain::ids::WorkerId;
use crate::domain::job::{Job, QueueKey};
use crate::domain::time::{Millis, Timestamp};

/// The database server's clock as it was last read, and when that was on this machine's steady clock.
#[derive(Default)]
pub(super) struct ServerClock(Mutex<Option<(Timestamp, Instant)>>);

/// How well workers have heard the callbacks of providers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hearing {
    /// Until when one of them may have left some unheard; the beginning of time if none did.
    pub deaf_until: Timestamp,
    /// One of them gives no sign of life and may still come back.
    pub silent: bool,
}

impl Storage {
    /// The time by which leases are written and judged. Clocks of different machines disagree, so replicas share one: the
    /// database server's, read with every sign of life and counted on by the steady clock in between. On SQLite there
    /// is one process, and its own clock will do.
    pub(super) async fn lease_time(&self, fresh: bool) -> Result<Timestamp, StorageError> {
        if matches!(self.db, Db::Sqlite { .. }) {
            return Ok(self.clock.now());
        }
        let known = *self.server_clock.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((told, at)) = known.filter(|_| !fresh) {
            let since = i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX);
            return Ok(told.plus(Millis(since)));
        }
        let row = self.db.row(sql::SERVER_TIME, args![]).await?;
        let text = row.ok_or_else(|| StorageError::Broken("the server tells no time".to_owned()))?.text("now")?;
        let time: jiff::Timestamp = text.parse().map_err(|e| StorageError::Broken(format!("time {text}: {e}")))?;
        let told = Timestamp(time.as_millisecond());
        // Noted after the answer: what is counted on from here lags behind, and nobody's lease is thought over too early.
        *self.server_clock.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((told, Instant::now()));
        Ok(told)
    }

    /// The database server's clock, for processes that share one; `None` on SQLite.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn server_time(&self) -> Result<Option<Timestamp>, StorageError> {
        match self.db {
            Db::Sqlite { .. } => Ok(None),
            Db::Postgres(_) => Ok(Some(self.lease_time(false).await?)),
        }
    }

    /// The worker lives until `now + lease`. On SQLite, where only one process may run, whoever was here before is
    /// gone and leaves its queues at once.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn worker_beat(&self, worker: &WorkerId, first: bool, lease: Millis) -> Result<(), StorageError> {
        let now = self.lease_time(true).await?;
        if first && matches!(self.db, Db::Sqlite { .. }) {
            self.db.write(sql::WORKER_OTHERS_LEAVE, args![worker.as_str()]).await?;
        }
        self.db.write(sql::WORKER_BEAT, args![worker.as_str(), now.0, now.plus(lease).0]).await?;
        if first {
            self.db.write(sql::WORKER_FORGET, args![now.plus(Millis(-Millis::hours(1).0)).0]).await?;
        }
        Ok(())
    }

    /// Callbacks of providers that met this worker until `at` may not have been taken.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn worker_deaf(&self, worker: &WorkerId, at: Timestamp) -> Result<(), StorageError> {
        self.db.write(sql::WORKER_DEAF, args![worker.as_str(), at.0]).await?;
        Ok(())
    }

    /// How well the other workers have heard. One that fell silent not longer than `patience` after its lease may still
    /// come back and tell; after that it is taken for gone.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn others_hearing(&self, worker: &WorkerId, patience: Millis) -> Result<Hearing, StorageError> {
        let mut hearing = Hearing { deaf_until: Timestamp(0), silent: false };
        // On SQLite there are no others.
        if matches!(self.db, Db::Sqlite { .. }) {
            return Ok(hearing);
        }
        let now = self.lease_time(false).await?;
        for row in self.db.rows(sql::WORKERS_HEARING, args![worker.as_str()]).await? {
            let until = Timestamp(row.int("lease_until_ms")?);
            hearing.deaf_until = hearing.deaf_until.max(Timestamp(row.int("deaf_ms")?));
            hearing.silent |= until < now && now <= until.plus(patience);
        }
        Ok(hearing)
    }

    /// The worker leaves and lets everything go.
    ///
    /// # Errors
    /// [`StorageError`]; its lease will run out by itself.
    pub async fn worker_leave(&self, worker: &WorkerId) -> Result<(), StorageError> {
        self.db.write(sql::QUEUES_RELEASE, args![worker.as_str(), self.clock.now().0]).await?;
        self.db.write(sql::WORKER_LEAVE, args![worker.as_str()]).await?;
        Ok(())
    }

    /// Queues this worker should look at: ones with news that are free or its own, and ones whose owner is gone.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn queues_to_look_at(&self, worker: &WorkerId, orphans: bool) -> Result<Vec<QueueKey>, StorageError> {
        let (due, alive) = (self.clock.now(), self.lease_time(false).await?);
        let mut keys = self.db.rows(sql::QUEUES_WITH_NEWS, args![worker.as_str(), due.0, alive.0]).await?;
        if orphans {
            keys.extend(self.db.rows(sql::QUEUES_ORPHANED, args![worker.as_str(), alive.0]).await?);
        }
        let mut queues = Vec::new();
        for row in keys {
            queues.extend(QueueKey::parse(&row.text("key")?));
        }
        queues.sort_unstable();
        queues.dedup();
        Ok(queues)
    }

    /// Queues that are this worker's as far as the store knows: after a gap in its signs of life those that nobody else
    /// has taken meanwhile.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn queues_owned(&self, worker: &WorkerId) -> Result<Vec<QueueKey>, StorageError> {
        let rows = self.db.rows(sql::QUEUES_OWNED, args![worker.as_str()]).await?;
        let keys = rows.iter().map(|row| row.text("key")).collect::<Result<Vec<_>, _>>()?;
        Ok(keys.iter().filter_map(|key| QueueKey::parse(key)).collect())
    }

    /// Queues in which jobs have been due for longer than `age`: a hand-over may have been missed.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn queues_straggling(&self, age: Millis) -> Result<Vec<QueueKey>, StorageError> {
        let rows = self.db.rows(sql::QUEUES_STRAGGLING, args![self.clock.now().plus(Millis(-age.0)).0]).await?;
        let keys = rows.iter().map(|row| row.text("queue")).collect::<Result<Vec<_>, _>>()?;
        Ok(keys.iter().filter_map(|key| QueueKey::parse(key)).collect())
    }

    /// Takes a queue if it is free, its owner is gone, or it is ours already.
    ///
    /// # Errors
    /// [`StorageError`]; it was not taken.
    pub async fn queue_take(&self, worker: &WorkerId, queue: &QueueKey) -> Result<bool, StorageError> {
        let args = args![queue.to_string(), worker.as_str(), self.lease_time(false).await?.0];
        Ok(self.db.write(sql::QUEUE_TAKE, args).await? == 1)
    }

    /// Lets a queue go; `next` is when its next job becomes due.
    ///
    /// # Errors
    /// [`StorageError`]; it is still ours.
    pub async fn queue_release(
        &self,
        worker: &WorkerId,
        queue: &QueueKey,
        next: Option<Timestamp>,
    ) -> Result<(), StorageError> {
        let next = next.map(|at| at.0);
        self.db.write(sql::QUEUE_RELEASE, args![queue.to_string(), worker.as_str(), next]).await?;
        Ok(())
    }

    /// Tells whoever owns these jobs' queues that they are there.
    ///
    /// # Errors
    /// [`StorageError`]; the slow look for stragglers will find them.
    pub async fn tell_queues(&self, jobs: &[Job]) -> Result<(), StorageError> {
        let mut tx = self.db.begin().await?;
        tell(&mut tx, jobs.iter()).await?;
        tx.commit().await
    }
}

pub(super) async fn tell(tx: &mut Tx, jobs: impl Iterator<Item = &Job>) -> Result<(), StorageError> {
    let mut due: BTreeMap<String, i64> = BTreeMap::new();
    for job in jobs {
        let earliest = due.entry(job.queue.to_string()).or_insert(job.due.0);
        *earliest = job.due.0.min(*earliest);
    }
    let rows = due.into_iter().map(|(queue, due)| args![queue, None::<String>, Some(due)]).collect();
    tx.batch(sql::QUEUES_NEWS, rows).await?;
    Ok(())
}
