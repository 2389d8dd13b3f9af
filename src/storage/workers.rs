//! Who runs what: workers prove that they live, and own queues as a whole.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::db::{Db, Row, Tx, args};
use super::{Storage, StorageError, sql};
use crate::domain::hearing::{self, Deaf, Presence};
use crate::domain::ids::WorkerId;
use crate::domain::job::{Job, QueueKey};
use crate::domain::time::{Millis, Timestamp};

/// The database server's clock as it was last read, and when that was on this machine's steady clock.
#[derive(Default)]
pub(super) struct ServerClock(Mutex<Option<(Timestamp, Instant)>>);

/// Most queues with news that one look brings; stands in the statement too.
const LOOK_MAX: usize = 256;

/// What a look for queues has found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueuesFound {
    /// The queues, in their order.
    pub queues: Vec<QueueKey>,
    /// There may be more of them.
    pub full: bool,
}

/// How well workers have heard the callbacks of providers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hearing {
    /// When some of them may have left some unheard.
    pub deaf: Vec<Deaf>,
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

    /// A worker begins, with its first sign of life. On SQLite, where only one process may run, whoever was here before is
    /// gone and leaves its queues at once. Gives what may have been missed until now; the worker goes on telling it,
    /// so that those who left can be forgotten. One that neither left nor was silent for longer than `patience` may have
    /// fallen at any moment since it was seen; `least` as in [`Deaf::made_up`].
    ///
    /// # Errors
    /// [`StorageError`]; may be repeated.
    pub async fn worker_begin(
        &self,
        worker: &WorkerId,
        lease: Millis,
        patience: Millis,
        least: Millis,
    ) -> Result<Deaf, StorageError> {
        let rows = self.db.rows(sql::WORKERS_HEARING, args![worker.as_str()]).await?;
        let others = rows.iter().map(presence).collect::<Result<Vec<_>, _>>()?;
        let deaf = hearing::before_start(&others, self.clock.now(), patience, least);
        self.worker_beat(worker, lease).await?;
        self.worker_deaf(worker, deaf).await?;
        if matches!(self.db, Db::Sqlite { .. }) {
            self.db.write(sql::WORKER_OTHERS_LEAVE, args![worker.as_str()]).await?;
        }
        let long_ago = self.lease_time(false).await?.plus(Millis(-Millis::hours(1).0));
        self.db.write(sql::WORKER_FORGET, args![long_ago.0]).await?;
        Ok(deaf)
    }

    /// The worker lives until `now + lease`.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn worker_beat(&self, worker: &WorkerId, lease: Millis) -> Result<(), StorageError> {
        let now = self.lease_time(true).await?;
        // One that comes late, because nobody waited for its answer any more, must not undo a later one.
        let number = self.beats.fetch_add(1, Ordering::Relaxed) + 1;
        let args = args![worker.as_str(), now.0, now.plus(lease).0, number, self.clock.now().0];
        self.db.write(sql::WORKER_BEAT, args).await?;
        Ok(())
    }

    /// Callbacks of providers that met this worker then may not have been taken.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn worker_deaf(&self, worker: &WorkerId, deaf: Deaf) -> Result<(), StorageError> {
        self.db.write(sql::WORKER_DEAF, args![worker.as_str(), deaf.from.0, deaf.until.0]).await?;
        Ok(())
    }

    /// How well the other workers have heard. One that fell silent not longer than `patience` after its lease may still
    /// come back and tell; after that it is taken for gone.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn others_hearing(&self, worker: &WorkerId, patience: Millis) -> Result<Hearing, StorageError> {
        let mut hearing = Hearing { deaf: Vec::new(), silent: false };
        // On SQLite there are no others.
        if matches!(self.db, Db::Sqlite { .. }) {
            return Ok(hearing);
        }
        let now = self.lease_time(false).await?;
        for row in self.db.rows(sql::WORKERS_HEARING, args![worker.as_str()]).await? {
            let (until, other) = (Timestamp(row.int("lease_until_ms")?), presence(&row)?);
            hearing.deaf.extend(Some(other.deaf).filter(|deaf| *deaf != Deaf::NEVER));
            hearing.silent |= !other.left && until < now && now <= until.plus(patience);
        }
        Ok(hearing)
    }

    /// The worker leaves and lets everything go. What it told stays.
    ///
    /// # Errors
    /// [`StorageError`]; its lease will run out by itself.
    pub async fn worker_leave(&self, worker: &WorkerId) -> Result<(), StorageError> {
        self.db.write(sql::QUEUES_RELEASE, args![worker.as_str(), self.clock.now().0]).await?;
        // Its lease is over at once, and everybody sees it.
        let over = self.lease_time(false).await?.plus(Millis(-1));
        self.db.write(sql::WORKER_LEAVE, args![worker.as_str(), over.0, self.clock.now().0]).await?;
        Ok(())
    }

    /// Queues this worker should look at: ones with news that are free or its own, and ones whose owner is gone.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn queues_to_look_at(&self, worker: &WorkerId, orphans: bool) -> Result<QueuesFound, StorageError> {
        let (due, alive) = (self.clock.now(), self.lease_time(false).await?);
        let mut keys = self.db.rows(sql::QUEUES_WITH_NEWS, args![worker.as_str(), due.0, alive.0]).await?;
        let mut full = keys.len() >= LOOK_MAX;
        if orphans {
            let orphaned = self.db.rows(sql::QUEUES_ORPHANED, args![worker.as_str(), alive.0]).await?;
            full |= orphaned.len() >= LOOK_MAX;
            keys.extend(orphaned);
        }
        let mut queues = Vec::new();
        for row in keys {
            queues.extend(QueueKey::parse(&row.text("key")?));
        }
        queues.sort_unstable();
        queues.dedup();
        Ok(QueuesFound { queues, full })
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

    /// Queues behind the key `after` in which jobs have been due for longer than `age`: a hand-over may have been missed.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn queues_straggling(&self, age: Millis, after: &str) -> Result<QueuesFound, StorageError> {
        let before = self.clock.now().plus(Millis(-age.0));
        let rows = self.db.rows(sql::QUEUES_STRAGGLING, args![before.0, after]).await?;
        let keys = rows.iter().map(|row| row.text("queue")).collect::<Result<Vec<_>, _>>()?;
        let queues = keys.iter().filter_map(|key| QueueKey::parse(key)).collect();
        Ok(QueuesFound { queues, full: rows.len() >= LOOK_MAX })
    }

    /// Takes those of the queues, in one commit, that are free, whose owner is gone, or that are ours already; gives them.
    ///
    /// # Errors
    /// [`StorageError`]; none was taken.
    pub async fn queues_take(&self, worker: &WorkerId, queues: &[QueueKey]) -> Result<Vec<QueueKey>, StorageError> {
        let alive = self.lease_time(false).await?;
        // In one order, so that two processes do not wait for each other.
        let mut keys: Vec<String> = queues.iter().map(ToString::to_string).collect();
        keys.sort_unstable();
        let rows = keys.into_iter().map(|key| args![key, worker.as_str(), alive.0]).collect();
        let mut tx = self.db.begin().await?;
        let taken = tx.batch_rows(sql::QUEUES_TAKE, rows).await?;
        tx.commit().await?;
        let keys = taken.iter().map(|row| row.text("key")).collect::<Result<Vec<_>, _>>()?;
        Ok(keys.iter().filter_map(|key| QueueKey::parse(key)).collect())
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

fn presence(row: &Row) -> Result<Presence, StorageError> {
    let left = row.maybe_int("left_ms")?;
    Ok(Presence {
        seen: Timestamp(left.unwrap_or(row.int("seen_ms")?)),
        left: left.is_some(),
        deaf: Deaf { from: Timestamp(row.int("deaf_from_ms")?), until: Timestamp(row.int("deaf_ms")?) },
    })
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
