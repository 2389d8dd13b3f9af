//! Accepting a command: the row that proves we have it, and the job that carries it out, in one commit. The CRM gets
//! its 200 after that and not before.

use std::collections::HashSet;
use std::sync::Arc;

use super::db::{Tx, args};
use super::writer::{Context, Harvest, Outcome, Queued, Step, Work, add_jobs};
use super::{Storage, StorageError, sql};
use crate::domain::command::Command;
use crate::domain::job::{Job, JobKind, QueueKey};
use crate::domain::time::Timestamp;

/// What became of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accept {
    /// It is ours now.
    New,
    /// We have had it before; nothing was added.
    Duplicate,
}

impl Storage {
    /// Takes a command over, durably.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]: the caller must not tell the CRM that we have it.
    pub async fn accept(&self, command: Command) -> Result<Accept, StorageError> {
        match self.writer.write(Step::Accept(Box::new(command))).await? {
            Outcome::Accept(answer) => Ok(answer),
            _ => Err(StorageError::Broken("accept: wrong outcome".to_owned())),
        }
    }
}

pub(super) async fn write(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    commands: &[&Command],
    harvest: &mut Harvest,
) -> Result<Vec<Accept>, StorageError> {
    let mut rows = Vec::with_capacity(commands.len());
    for command in commands {
        let payload = serde_json::to_string(command).map_err(|e| StorageError::Broken(e.to_string()))?;
        let wait_rank = command.reply.as_ref().map_or(-1, |reply| reply.wait.state().rank());
        let answer_by = command.reply.as_ref().map(|reply| reply.answer_by.0);
        rows.push(args![
            command.id.as_str(),
            command.portal.as_str(),
            command.dedupe_key.as_str(),
            payload,
            "new",
            wait_rank,
            answer_by,
            0,
            command.received.0,
            now.0,
        ]);
    }
    let mut added = HashSet::new();
    for row in tx.batch_rows(sql::COMMANDS_ADD, rows).await? {
        added.insert(row.text("id")?);
    }
    let new: Vec<Queued> = commands
        .iter()
        .filter(|command| added.contains(command.id.as_str()))
        .map(|command| Queued {
            job: job_of(command, &context.ids.ulid(), now),
            work: Work::Command(Arc::new((*command).clone())),
        })
        .collect();
    add_jobs(tx, now, new, harvest).await?;
    Ok(commands
        .iter()
        .map(|command| if added.contains(command.id.as_str()) { Accept::New } else { Accept::Duplicate })
        .collect())
}

/// A command that must read its card first waits for the portal's bucket; any other does not.
fn job_of(command: &Command, seq: &str, now: Timestamp) -> Job {
    let queue = if command.body.needs_card() {
        QueueKey::Crm(command.portal.clone())
    } else {
        QueueKey::Intake(command.portal.clone())
    };
    let lane = command.card.map_or_else(|| command.id.to_string(), |card| card.to_string());
    Job::new(JobKind::Command, command.id.as_str(), queue, lane, seq.to_owned(), now)
}
