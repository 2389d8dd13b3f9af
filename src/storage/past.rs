//! A store of the past: a backup that was put in place, or a node that was moved away.
//!
//! What was open when a backup was taken may have been done since, and nobody can tell from the backup: its sends may
//! have left, its commands may have become messages under other ids, and the echoes that would settle it may have come
//! and gone. So nothing of it is done blindly (`docs/adr/0005`): sends and commands become dead letters that a person
//! redrives or leaves, messages become undecided, and comments are looked for on the card before they are written.

use super::db::args;
use super::messages::MessageNews;
use super::settle::{Fate, Right, Settlement};
use super::{Storage, StorageError, sql};
use crate::domain::ids::MessageId;
use crate::domain::job::{GivenUp, JobKind, JobState};
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::status::MessageState;
use crate::domain::time::Timestamp;

/// Note: this is a backup; the value says of when, in milliseconds.
pub(super) const BACKUP: &str = "backup";
/// Note: everything was moved away; the value says where to.
pub(super) const MOVED: &str = "moved";

/// Jobs of one step.
const PAGE: i64 = 200;

impl Storage {
    /// When the backup was taken that this database is; `None` when it is none, or was settled already.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn is_backup(&self) -> Result<Option<Timestamp>, StorageError> {
        let Some(row) = self.db.row(sql::NOTE_GET, args![BACKUP]).await? else { return Ok(None) };
        let value = row.text("value")?;
        let taken = value.parse().map_err(|_no_number| StorageError::Broken(format!("store_notes.backup: {value}")))?;
        Ok(Some(Timestamp(taken)))
    }

    /// Where this database's content was moved to; `None` when it was not.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn moved_to(&self) -> Result<Option<String>, StorageError> {
        self.db.row(sql::NOTE_GET, args![MOVED]).await?.map(|row| row.text("value")).transpose()
    }

    /// Notes that this database is of the past, unless that is noted already; gives the moment it is of.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn call_backup(&self) -> Result<Timestamp, StorageError> {
        let now = self.clock.now();
        self.db.write(sql::NOTE_ADD, args![BACKUP, now.0.to_string(), now.0]).await?;
        Ok(self.is_backup().await?.unwrap_or(now))
    }

    /// The worker that lives longest, with the end of its lease; `None` when no service runs on this database.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn living_worker(&self) -> Result<Option<(String, Timestamp)>, StorageError> {
        let row = self.db.row(sql::WORKERS_LIVING, args![self.lease_time(true).await?.0]).await?;
        row.map(|row| Ok((row.text("id")?, Timestamp(row.int("lease_until_ms")?)))).transpose()
    }

    /// Puts everything in doubt that was open at `taken`, and only then forgets that this is a backup; so a process that
    /// dies in the middle does the rest at the next start. Tells how many jobs wait for a person now. To be called
    /// before anything works on the queues.
    ///
    /// # Errors
    /// [`StorageError`]; call it again.
    pub async fn doubt(&self, taken: Timestamp) -> Result<usize, StorageError> {
        let mut doubts = 0;
        loop {
            let rows = self.db.rows(sql::JOBS_IN_DOUBT, args![taken.0, PAGE]).await?;
            if rows.is_empty() {
                break;
            }
            doubts += rows.len();
            let mut settlements = Vec::with_capacity(rows.len());
            for row in rows {
                let kind = row.text("kind")?;
                let is_send = kind == JobKind::Send.code();
                settlements.push(self.doubtful(row.text("id")?, is_send.then_some(row.text("subject")?), taken));
            }
            self.settle(settlements).await?;
        }
        let mut tx = self.db.begin_patiently().await?;
        tx.exec(sql::COMMENTS_IN_DOUBT, vec![]).await?;
        for note in [BACKUP, MOVED] {
            tx.exec(sql::NOTE_DROP, args![note]).await?;
        }
        tx.commit().await?;
        Ok(doubts)
    }

    /// One job becomes a dead letter, and its message, if it is a send, undecided.
    fn doubtful(&self, job: String, message: Option<String>, taken: Timestamp) -> Settlement {
        let now = self.clock.now();
        let of = jiff::Timestamp::from_millisecond(taken.0).map(|at| at.to_string()).unwrap_or_default();
        let reason = GivenUp::Restored.with(&of);
        let news = message.map(|id| MessageNews {
            failure: Some(Failure::new(ErrorCode::Undecided)),
            ..MessageNews::new(MessageId::stored(id), MessageState::Undecided, now)
        });
        let fate = Fate::Keep { state: JobState::Dead, due: now, tries: 0, reason: Some(reason) };
        Settlement { job, right: Right::Store, fate, news, attempt: None }
    }
}
