//! The way in for CRMs: what is accepted here is kept.

use super::{Pipeline, intake};
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
        let command = command.into_inner();
        match intake::plan_at_once(self, &command).await {
            Some(plan) => self.storage.accept_planned(command, plan).await,
            None => self.storage.accept(command).await,
        }
    }
}
