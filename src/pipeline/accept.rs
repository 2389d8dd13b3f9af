//! The way in for CRMs: what is accepted here is kept.

use super::Pipeline;
use crate::domain::command::Command;
use crate::http::verified::Verified;
use crate::storage::StorageError;
use crate::storage::accept::Accept;

impl Pipeline {
    /// Takes a verified command over. After `Ok` the CRM may be told that we have it: a crash loses nothing.
    ///
    /// # Errors
    /// [`StorageError`]: the CRM must be told to come again.
    pub async fn accept(&self, command: Verified<Command>) -> Result<Accept, StorageError> {
        self.storage.accept(command.into_inner()).await
    }
}
