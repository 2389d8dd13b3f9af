//! Planning: a command becomes messages, each with its send, in one commit and only once.

use std::collections::HashSet;
use std::sync::Arc;

use super::db::{Tx, args};
use super::messages::{self, NewMessage};
use super::settle::{self, Fate, Right};
use super::writer::{Context, Harvest, Outcome, Queued, Step, Work, add_jobs};
use super::{Storage, StorageError, deeds, guards, jobs, progress, sql};
use crate::domain::ids::CommandId;
use crate::domain::job::{GivenUp, Job, JobKind, JobState, QueueKey};
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::status::MessageState;
use crate::domain::time::Timestamp;

/// What a command comes to.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The command.
    pub command: CommandId,
    /// True when the CRM waits for a result.
    pub waits: bool,
    /// One entry per message; recipients that cannot be written to are messages that have failed already. Empty where
    /// nothing is to be sent: then the CRM has its result at once.
    pub messages: Vec<NewMessage>,
}

impl Plan {
    /// The state of its command once it is planned.
    pub(super) fn state(&self) -> &'static str {
        if self.waits { "open" } else { "closed" }
    }
}

impl Storage {
    /// Stores what a command comes to; false when that had been done before.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was stored.
    #[tracing::instrument(name = "storage.plan", target = "mostik::span", skip_all)]
    pub async fn plan(&self, plan: Plan) -> Result<bool, StorageError> {
        match self.writer.write(Step::Plan(Box::new(plan))).await? {
            Outcome::Plan(applied) => Ok(applied),
            _ => Err(StorageError::Broken("plan: wrong outcome".to_owned())),
        }
    }

    /// When each of these people last wrote: `(channel, peer)` to the moment.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn last_inbound(
        &self,
        people: &[(String, String)],
    ) -> Result<std::collections::HashMap<(String, String), Timestamp>, StorageError> {
        let rows = people.iter().map(|(channel, peer)| args![channel.as_str(), peer.as_str()]).collect();
        let mut found = std::collections::HashMap::new();
        for row in self.db.batch_rows(sql::DIALOGS_FIND, rows).await? {
            if let Some(at) = row.maybe_int("last_inbound_ms")? {
                found.insert((row.text("channel_id")?, row.text("peer")?), Timestamp(at));
            }
        }
        Ok(found)
    }
}

pub(super) async fn write(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    plans: &[&Plan],
    harvest: &mut Harvest,
) -> Result<Vec<bool>, StorageError> {
    let rows = plans.iter().map(|plan| args![plan.command.as_str(), plan.state(), now.0]).collect();
    let mut applied = HashSet::new();
    for row in tx.batch_rows(sql::COMMANDS_PLANNED, rows).await? {
        applied.insert(row.text("id")?);
    }
    let fresh: Vec<&Plan> = plans.iter().copied().filter(|plan| applied.contains(plan.command.as_str())).collect();
    carry_out(tx, context, now, &fresh, harvest).await?;
    let done = plans.iter().map(|plan| args![Job::id_of(JobKind::Command, plan.command.as_str())]).collect();
    tx.batch(sql::JOBS_DELETE, done).await?;
    Ok(plans.iter().map(|plan| applied.contains(plan.command.as_str())).collect())
}

/// Adds the messages of plans whose commands have just been marked as planned, with everything that follows.
pub(super) async fn carry_out(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    fresh: &[&Plan],
    harvest: &mut Harvest,
) -> Result<(), StorageError> {
    let (guarded, plain): (Vec<&Plan>, Vec<&Plan>) = fresh.iter().copied().partition(|plan| guards::guarded(plan));
    store(tx, context, now, &plain, harvest).await?;
    for plan in guarded {
        let judged = guards::judge(tx, context, now, plan, harvest).await?;
        store(tx, context, now, &[&judged], harvest).await?;
    }
    Ok(())
}

/// Stores messages with their sends, and whatever follows from those that have failed already.
async fn store(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    plans: &[&Plan],
    harvest: &mut Harvest,
) -> Result<(), StorageError> {
    let new: Vec<&NewMessage> = plans.iter().flat_map(|plan| &plan.messages).collect();
    messages::add(tx, now, &new).await?;
    deeds::close(tx, now, &new).await?;
    add_jobs(tx, now, sends(context, now, &new), harvest).await?;
    hold(tx, context, now, &new).await?;
    let over = |message: &NewMessage| message.record.state.is_final() || deeds::is_done(message);
    let told = new.iter().filter(|message| over(message) || message.due.is_some());
    progress::ask_comments(tx, context, now, told.filter_map(|message| message.comment_target()), harvest).await?;
    let ended = |plan: &Plan| plan.messages.is_empty() || plan.messages.iter().any(over);
    let finished = plans.iter().filter(|plan| plan.waits && ended(plan));
    progress::commands(tx, context, now, finished.map(|plan| plan.command.to_string()).collect(), harvest).await
}

/// Messages held for a person become dead letters at once: whoever redrives one, releases it.
async fn hold(tx: &mut Tx, context: &Context, now: Timestamp, new: &[&NewMessage]) -> Result<(), StorageError> {
    let failure = |message: &NewMessage| message.record.failure.clone();
    let held: Vec<(Job, Failure)> = new
        .iter()
        .filter_map(|message| {
            let failure = failure(message).filter(|failure| failure.code == ErrorCode::DuplicateHeld)?;
            Some((send_of(context, now, message)?, failure))
        })
        .collect();
    jobs::add(tx, now, held.iter().map(|(job, _)| job)).await?;
    let dead = held.iter().filter_map(|(job, failure)| {
        let reason = Some(GivenUp::Held.with(&failure.detail));
        let fate = Fate::Keep { state: JobState::Dead, due: now, tries: 0, reason };
        settle::keep_row(&job.id, Right::Store.columns(), &fate, now)
    });
    tx.batch(sql::JOBS_PUT, dead.collect()).await?;
    Ok(())
}

/// The send of every message that has not failed already.
pub(super) fn sends(context: &Context, now: Timestamp, new: &[&NewMessage]) -> Vec<Queued> {
    new.iter()
        .filter(|message| message.record.state == MessageState::Queued)
        .filter_map(|message| {
            let job = send_of(context, now, message)?;
            Some(Queued { job, work: Work::Message(Arc::new(message.record.clone())) })
        })
        .collect()
}

/// The send of one message; `None` when no channel could be chosen.
///
/// A dialog is a lane. Messages that no command asked for have a lane of their own beside it: what somebody writes now
/// does not wait for what robots have planned for the morning (`docs/adr/0006`). So do operators' answers, which moreover
/// leave before everything else of the channel (`docs/adr/0011`).
fn send_of(context: &Context, now: Timestamp, message: &NewMessage) -> Option<Job> {
    let record = &message.record;
    let queue = QueueKey::Channel(record.channel.clone()?);
    let lane = match (message.answer, &record.command) {
        (true, _) => Job::lane_of_answers(&record.peer),
        (false, Some(_)) => record.peer.clone(),
        (false, None) => Job::lane_beside(&record.peer),
    };
    let due = message.due.unwrap_or(now);
    let mut job = Job::new(JobKind::Send, record.id.as_str(), queue, lane, context.ids.ulid(), due);
    job.not_after = message.not_after;
    Some(job)
}
