//! Words that a consent screen brings back: unguessable, good for one return, and for an hour.

use sha2::{Digest, Sha256};

use super::db::args;
use super::{Storage, StorageError, sql};
use crate::domain::time::{Millis, Timestamp};

/// A person who takes longer begins again.
const GOOD_FOR: Millis = Millis::hours(1);

impl Storage {
    /// A fresh word for a consent screen of this application.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was kept.
    pub async fn begin_authorization(&self, app: &str) -> Result<String, StorageError> {
        let now = self.clock.now();
        self.db.write(sql::AUTHORIZATIONS_EXPIRE, args![self.expired(now).0]).await?;
        let state = self.fresh_word()?;
        self.db.write(sql::AUTHORIZATION_ADD, args![state.as_str(), app, now.0]).await?;
        Ok(state)
    }

    /// A word nobody can guess: 64 hexadecimal digits.
    pub(super) fn fresh_word(&self) -> Result<String, StorageError> {
        // Every sealing draws a fresh nonce.
        let sealed = self.sealer.seal("authorizations.state", &self.ids.ulid())?;
        Ok(Sha256::digest(sealed.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Uses a word up; false when it was never given for this application, was used before, or is too old.
    ///
    /// # Errors
    /// [`StorageError`]; it is still good.
    pub async fn end_authorization(&self, app: &str, state: &str) -> Result<bool, StorageError> {
        let after = self.expired(self.clock.now()).0;
        Ok(self.db.write(sql::AUTHORIZATION_USE, args![state, app, after]).await? == 1)
    }

    fn expired(&self, now: Timestamp) -> Timestamp {
        now.plus(Millis(-GOOD_FOR.0))
    }
}
