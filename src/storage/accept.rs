//! Accepting a command: the row that proves we have it, and the job that carries it out, in one commit. The CRM gets
//! its 200 after that and not before.

use std::collections::HashSet;
use std::sync::Arc;

use super::db::{Tx, args};
use super::plan::{self, Plan};
use super::writer::{Context, Harvest, Outcome, Queued, Step, Work, add_jobs};
use super::{Storage, StorageError, chats, sql};
use crate::domain::command::{Command, CommandBody};
use crate::domain::job::{Job, JobKind, QueueKey};
use crate::domain::time::Timestamp;

/// A command on its way in.
pub(super) struct Arrival {
    /// The command.
    pub(super) command: Command,
    /// What it comes to, if that is known already.
    pub(super) plan: Option<Plan>,
}

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
    #[tracing::instrument(name = "storage.accept", target = "mostik::span", skip_all)]
    pub async fn accept(&self, command: Command) -> Result<Accept, StorageError> {
        self.arrive(Arrival { command, plan: None }).await
    }

    /// Takes a command over together with what it comes to, in one commit. If an earlier command for the same card has
    /// not been planned yet, this one waits behind it as if it came without its plan.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]: the caller must not tell the CRM that we have it.
    pub async fn accept_planned(&self, command: Command, plan: Plan) -> Result<Accept, StorageError> {
        self.arrive(Arrival { command, plan: Some(plan) }).await
    }

    async fn arrive(&self, arrival: Arrival) -> Result<Accept, StorageError> {
        match self.writer.write(Step::Accept(Box::new(arrival))).await? {
            Outcome::Accept(answer) => Ok(answer),
            _ => Err(StorageError::Broken("accept: wrong outcome".to_owned())),
        }
    }
}

pub(super) async fn write(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    arrivals: &[&Arrival],
    harvest: &mut Harvest,
) -> Result<Vec<Accept>, StorageError> {
    let plans = plans_in_order(tx, arrivals).await?;
    let mut rows = Vec::with_capacity(arrivals.len());
    for (Arrival { command, .. }, plan) in arrivals.iter().zip(&plans) {
        let payload = serde_json::to_string(command).map_err(|e| StorageError::Broken(e.to_string()))?;
        let wait_rank = command.reply.as_ref().map_or(-1, |reply| reply.wait.state().rank());
        let answer_by = command.reply.as_ref().map(|reply| reply.answer_by.0);
        rows.push(args![
            command.id.as_str(),
            command.portal.as_str(),
            command.dedupe_key.as_str(),
            payload,
            plan.map_or("new", Plan::state),
            wait_rank,
            answer_by,
            false,
            plan.is_some(),
            command.received.0,
            now.0,
        ]);
    }
    let mut added = HashSet::new();
    for row in tx.batch_rows(sql::COMMANDS_ADD, rows).await? {
        added.insert(row.text("id")?);
    }
    let is_new = |command: &Command| added.contains(command.id.as_str());
    let mut planned = Vec::new();
    let mut waiting = Vec::new();
    for (Arrival { command, .. }, plan) in arrivals.iter().zip(plans).filter(|(arrival, _)| is_new(&arrival.command)) {
        match plan {
            Some(plan) => planned.push(plan),
            None => waiting.push(Queued {
                job: job_of(command, &context.ids.ulid(), now),
                work: Work::Command(Arc::new(command.clone())),
            }),
        }
    }
    add_jobs(tx, now, waiting, harvest).await?;
    plan::carry_out(tx, context, now, &planned, harvest).await?;
    let answer = |arrival: &&Arrival| if is_new(&arrival.command) { Accept::New } else { Accept::Duplicate };
    Ok(arrivals.iter().map(answer).collect())
}

/// The plans that may be carried out at once: not those of a command behind another one for the same card that has not
/// been planned yet, or its message would overtake the other's.
async fn plans_in_order<'a>(tx: &mut Tx, arrivals: &[&'a Arrival]) -> Result<Vec<Option<&'a Plan>>, StorageError> {
    let lanes: Vec<Vec<(String, String)>> = arrivals.iter().map(|arrival| lanes_of(&arrival.command)).collect();
    let planned = arrivals.iter().zip(&lanes).filter(|(arrival, _)| arrival.plan.is_some());
    let asked = planned.flat_map(|(_, lanes)| lanes).map(|(queue, lane)| args![queue.as_str(), lane.as_str()]);
    let mut behind = HashSet::new();
    for row in tx.batch_rows(sql::LANES_WITH_COMMANDS, asked.collect()).await? {
        behind.insert((row.text("queue")?, row.text("lane")?));
    }
    let mut plans = Vec::with_capacity(arrivals.len());
    for (arrival, lanes) in arrivals.iter().zip(lanes) {
        let plan = arrival.plan.as_ref().filter(|_| !lanes.iter().any(|lane| behind.contains(lane)));
        if plan.is_none() {
            behind.extend(lanes);
        }
        plans.push(plan);
    }
    Ok(plans)
}

/// Queues and lanes in which earlier commands for the same card may wait to be planned; none without a card.
fn lanes_of(command: &Command) -> Vec<(String, String)> {
    let queues = [QueueKey::Intake(command.portal.clone()), QueueKey::Crm(command.portal.clone())];
    command.card.map_or_else(Vec::new, |card| queues.map(|queue| (queue.to_string(), card.to_string())).to_vec())
}

/// A command that must read its card first waits for the portal's bucket; any other does not.
fn job_of(command: &Command, seq: &str, now: Timestamp) -> Job {
    if let CommandBody::Answer(answer) = &command.body {
        return chats::job_of(command, answer, now);
    }
    let queue = if command.body.needs_crm() {
        QueueKey::Crm(command.portal.clone())
    } else {
        QueueKey::Intake(command.portal.clone())
    };
    let card = command.card.filter(|_| !command.body.may_take_long());
    let lane = card.map_or_else(|| command.id.to_string(), |card| card.to_string());
    Job::new(JobKind::Command, command.id.as_str(), queue, lane, seq.to_owned(), now)
}
