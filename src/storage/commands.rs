//! Reading commands back: to plan them, and to tell their CRMs what became of them.

use std::collections::HashMap;

use super::db::args;
use super::{Storage, StorageError, messages, sql};
use crate::domain::command::Command;
use crate::domain::ids::CommandId;
use crate::domain::message::MessageRecord;

/// A command as it is stored.
#[derive(Clone, Debug)]
pub struct StoredCommand {
    /// The command; an error for a payload this version cannot read.
    pub command: Result<Command, String>,
    /// Whether it was answered before its time was over.
    pub in_time: bool,
}

impl Storage {
    /// Commands by id.
    ///
    /// # Errors
    /// [`StorageError`].
    #[tracing::instrument(name = "storage.load_commands", target = "mostik::span", skip_all)]
    pub async fn load_commands(&self, ids: &[CommandId]) -> Result<HashMap<CommandId, StoredCommand>, StorageError> {
        let rows = ids.iter().map(|id| args![id.as_str()]).collect();
        let mut commands = HashMap::new();
        for row in self.db.batch_rows(sql::COMMANDS_BY_ID, rows).await? {
            let command = serde_json::from_str(&row.text("payload")?).map_err(|e| e.to_string());
            let stored = StoredCommand { command, in_time: row.flag("in_time")? };
            commands.insert(CommandId::stored(row.text("id")?), stored);
        }
        Ok(commands)
    }

    /// The messages of commands, in the order they were made.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn messages_of_commands(
        &self,
        ids: &[CommandId],
    ) -> Result<HashMap<CommandId, Vec<MessageRecord>>, StorageError> {
        let rows = ids.iter().map(|id| args![id.as_str()]).collect();
        let mut found: HashMap<CommandId, Vec<MessageRecord>> = HashMap::new();
        for row in self.db.batch_rows(sql::MESSAGES_BY_COMMAND, rows).await? {
            let record = messages::read(&row)?.record;
            if let Some(command) = record.command.clone() {
                found.entry(command).or_default().push(record);
            }
        }
        Ok(found)
    }
}
