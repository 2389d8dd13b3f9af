//! What must survive: one [`Storage`] on SQLite or PostgreSQL.
//!
//! Every method is a whole business step; a transaction never leaves this room, so nobody can hold one over the
//! network. Steps of the hot path (accept, plan, start, settle, ingest) go through one collecting [`writer`]: whatever
//! queued up while the last commit ran is written by the next one, a statement per kind of step, and everybody is
//! answered after the commit.
//!
//! There are no storage traits: there is one implementation, the two databases part ways in [`db`] only, and one
//! contract suite runs on both (`docs/adr/0001`).

pub mod accept;
pub mod addresses;
pub mod authorizations;
pub mod backup;
pub mod changes;
pub mod channels;
pub mod chat_phones;
pub mod chats;
pub mod commands;
#[cfg(test)]
mod contract;
mod crm_chats;
pub mod db;
pub mod dead_letters;
mod deeds;
pub mod effects;
pub mod guards;
pub mod history;
pub mod ingest;
pub mod jobs;
pub mod lost_calls;
pub mod messages;
pub mod mirrors;
pub mod pages;
pub mod past;
pub mod plan;
mod planner;
pub mod portals;
mod postgres;
pub mod progress;
pub mod retention;
pub mod sealed;
pub mod settle;
pub mod sms;
mod sql;
pub mod sqlite;
pub mod transfer;
mod troubles;
pub mod watch;
pub mod workers;
pub mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use crate::crm::StoreDown;
use crate::domain::ids::IdSource;
use crate::domain::time::{Clock, Millis};

use db::Db;
use sealed::Sealer;
use writer::WriterHandle;

/// Why a step was not taken. Nothing of a failed step is kept.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// The database does not answer, is full or busy. The step may be tried again.
    #[error("database unavailable: {0}")]
    Unavailable(String),
    /// Another commit was in the way (a deadlock, a serialization failure). The same again at once will do.
    #[error("database busy: {0}")]
    Clash(String),
    /// The configuration of the database is wrong; an administrator must act.
    #[error("{0}")]
    Config(String),
    /// The schema could not be brought up to date.
    #[error("schema: {0}")]
    Schema(String),
    /// A stored value could not be read or a statement was refused: a defect, or a foreign hand in the database.
    #[error("storage: {0}")]
    Broken(String),
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        let passing = match &error {
            sqlx::Error::Database(inner)
                if inner.code().is_some_and(|code| code.len() == 5 && code.starts_with("40")) =>
            {
                return Self::Clash(error.to_string());
            }
            sqlx::Error::Database(inner) => is_passing(&inner.code().unwrap_or_default()),
            // What we asked for, or what is stored, does not fit: the same answer will come again.
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::Configuration(_)
            | sqlx::Error::Decode(_)
            | sqlx::Error::Encode(_)
            | sqlx::Error::InvalidArgument(_)
            | sqlx::Error::Migrate(_)
            | sqlx::Error::RowNotFound
            | sqlx::Error::TypeNotFound { .. } => false,
            // Connections that end, in whichever way: `Protocol` is what a connection says that is cut while it is made.
            _ => true,
        };
        if passing { Self::Unavailable(error.to_string()) } else { Self::Broken(error.to_string()) }
    }
}

impl From<StorageError> for StoreDown {
    fn from(error: StorageError) -> Self {
        Self(error.to_string())
    }
}

/// Conditions that pass by themselves or by an operator's hand: SQLite's primary result codes (extended codes carry
/// them in the low byte) and PostgreSQL's classes.
fn is_passing(code: &str) -> bool {
    if code.len() == 5 {
        return ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class))
            // Read-only for now; a transaction whose process stood still for too long; a lock that somebody holds.
            || ["25006", "25P03", "55P03"].contains(&code);
    }
    const BUSY_LOCKED_READONLY_IOERR_FULL_CANTOPEN: [i64; 6] = [5, 6, 8, 10, 13, 14];
    code.parse::<i64>().is_ok_and(|code| BUSY_LOCKED_READONLY_IOERR_FULL_CANTOPEN.contains(&(code & 0xff)))
}

/// The store.
pub struct Storage {
    db: Db,
    sealer: Sealer,
    writer: WriterHandle,
    portals: portals::PortalCache,
    heard: pages::Heard,
    channels: channels::ChannelCache,
    lost: lost_calls::LostCache,
    ids: Arc<dyn IdSource>,
    clock: Arc<dyn Clock>,
    writable: Proof,
    server_clock: workers::ServerClock,
    /// Number of the last sign of life.
    beats: AtomicI64,
}

/// When the store was last asked whether it takes writes, and what it said.
type Proof = tokio::sync::Mutex<Option<(Instant, Result<(), StorageError>)>>;

/// How long that answer is good: probes come from outside, and a write costs a disk's turn.
const PROOF_LASTS: Duration = Duration::from_secs(1);

/// What the store needs to be told.
#[derive(Clone, Copy, Debug)]
pub struct StorageOptions {
    /// A waiting CRM is answered no sooner than this after it asked (`CrmSpec::reply_not_before`).
    pub reply_not_before: Millis,
}

impl Storage {
    /// Puts the store on an opened and migrated database. Jobs that a step creates are handed to `sink` after its
    /// commit.
    #[must_use]
    pub fn new(
        db: Db,
        sealer: Sealer,
        ids: Arc<dyn IdSource>,
        clock: Arc<dyn Clock>,
        sink: Arc<dyn writer::JobSink>,
        options: StorageOptions,
    ) -> Self {
        let writer = writer::start(
            db.clone(),
            writer::Context { ids: Arc::clone(&ids), clock: Arc::clone(&clock), sink, options },
        );
        Self {
            db,
            sealer,
            writer,
            portals: portals::PortalCache::new(),
            heard: pages::Heard::new(),
            channels: channels::ChannelCache::new(),
            lost: lost_calls::LostCache::new(),
            ids,
            clock,
            writable: Proof::default(),
            server_clock: workers::ServerClock::default(),
            beats: AtomicI64::new(0),
        }
    }

    /// What kind of database it is, for people.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.db.kind()
    }

    /// Proves that the database answers; writes nothing.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] with the reason.
    pub async fn ping(&self) -> Result<(), StorageError> {
        self.db.row(sql::PING, vec![]).await?;
        Ok(())
    }

    /// Proves that the store takes writes, with one that means nothing: a full disk, a read-only replica and a lock that
    /// somebody holds let reads pass. Asked more often than every second, it gives the answer of then.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] with the reason.
    pub async fn prove_writable(&self) -> Result<(), StorageError> {
        let mut known = self.writable.lock().await;
        if let Some((at, answer)) = &*known
            && at.elapsed() < PROOF_LASTS
        {
            return answer.clone();
        }
        let answer = self.db.write(sql::NOTE_SIGN, db::args![self.clock.now().0]).await.map(|_rows| ());
        *known = Some((Instant::now(), answer.clone()));
        answer
    }

    /// Ends when the collecting writer has: nothing can be stored any more.
    pub async fn writer_ended(&self) {
        self.writer.ended().await;
    }

    /// Writes what is queued and closes the database.
    pub async fn close(&self) {
        self.writer.stop().await;
        self.db.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_ends_in_whichever_way_passes_and_a_wrong_question_does_not() {
        let unavailable = |error: sqlx::Error| matches!(StorageError::from(error), StorageError::Unavailable(_));
        assert!(unavailable(sqlx::Error::Protocol("unexpected response from SSLRequest: 0x00".to_owned())));
        assert!(unavailable(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())));
        assert!(unavailable(sqlx::Error::PoolTimedOut));
        assert!(!unavailable(sqlx::Error::RowNotFound));
        assert!(!unavailable(sqlx::Error::ColumnNotFound("key".to_owned())));
    }

    #[test]
    fn what_a_server_says_passes_unless_it_is_about_the_question() {
        for code in ["08006", "53300", "55P03", "57P01", "57P03", "58030", "25006", "25P03", "57014", "5", "13", "266"]
        {
            assert!(is_passing(code), "{code}");
        }
        for code in ["22P05", "23505", "42P01", "42601", "P0001", "19", "1"] {
            assert!(!is_passing(code), "{code}");
        }
    }
}
