//! What is asked of earlier messages before a message is stored: does it replace one that waits, has the person just got
//! the same text. Asked inside the commit that stores the message, so two at once cannot both pass; and asked only for
//! messages that want it.

use std::collections::{HashMap, HashSet};

use super::db::{Tx, args};
use super::messages::NewMessage;
use super::plan::Plan;
use super::writer::{Context, Harvest, Outcome, Step};
use super::{Storage, StorageError, jobs, sql};
use crate::domain::guards::{DUPLICATE_HOURS, NOT_AFTER_MINUTES};
use crate::domain::ids::MessageId;
use crate::domain::job::{JobState, QueueKey};
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::status::MessageState;
use crate::domain::time::{Millis, Timestamp};

/// What one message asks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MessageGuards {
    /// Stands for portal, card, robot and person: messages of the command that held it before are withdrawn.
    pub turn: Option<String>,
    /// The text must be new to the person.
    pub text: Option<TextGuard>,
}

/// A text that must not come twice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TextGuard {
    /// Stands for line, person and content.
    pub mark: String,
    /// For how long.
    pub window: Millis,
    /// True when it is then held for a person, false when it fails.
    pub hold: bool,
}

/// True when something has to be asked before this plan is stored.
pub(super) fn guarded(plan: &Plan) -> bool {
    plan.messages.iter().any(|message| message.guards != MessageGuards::default())
}

/// Asks; gives the plan as it has to be stored. Messages that were replaced are withdrawn by then.
pub(super) async fn judge(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    plan: &Plan,
    harvest: &mut Harvest,
) -> Result<Plan, StorageError> {
    let mut judged = plan.clone();
    take_turns(tx, context, now, plan, harvest).await?;
    let mut verdicts: HashMap<&str, Option<Failure>> = HashMap::new();
    let mut guarded: Vec<(&mut NewMessage, &TextGuard)> = Vec::new();
    for (message, asked) in judged.messages.iter_mut().zip(&plan.messages) {
        if let Some(text) = asked.guards.text.as_ref().filter(|_| asked.record.state == MessageState::Queued) {
            guarded.push((message, text));
        }
    }
    for (message, text) in guarded {
        // The parts of one message have one mark, and one fate.
        let verdict = match verdicts.get(text.mark.as_str()) {
            Some(known) => known.clone(),
            None => {
                let verdict = claim(tx, now, &message.record.id, text).await?;
                verdicts.insert(&text.mark, verdict.clone());
                verdict
            }
        };
        if let Some(failure) = verdict {
            message.record.state = MessageState::Failed;
            message.record.failure = Some(failure);
        }
    }
    Ok(judged)
}

async fn claim(
    tx: &mut Tx,
    now: Timestamp,
    message: &MessageId,
    text: &TextGuard,
) -> Result<Option<Failure>, StorageError> {
    let holder = tx.row(sql::TEXT_LOCK, args![text.mark.as_str(), message.as_str(), now.0]).await?;
    let holder = holder.ok_or_else(|| StorageError::Broken("sent_texts: no row".to_owned()))?;
    let holder = MessageId::stored(holder.text("message_id")?);
    let since = now.0.saturating_sub(text.window.0);
    let claim = args![text.mark.as_str(), message.as_str(), now.0, since];
    if holder == *message || tx.exec(sql::TEXT_CLAIM, claim).await? > 0 {
        return Ok(None);
    }
    let earlier = format!("№{}", holder.short());
    let code = if text.hold { ErrorCode::DuplicateHeld } else { ErrorCode::DuplicateText };
    Ok(Some(Failure::with(code, earlier)))
}

/// Withdraws what the new messages replace.
async fn take_turns(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    plan: &Plan,
    harvest: &mut Harvest,
) -> Result<(), StorageError> {
    let mut taken = HashSet::new();
    for message in plan.messages.iter().filter(|message| message.record.state == MessageState::Queued) {
        let Some(turn) = &message.guards.turn else { continue };
        if !taken.insert(turn.as_str()) {
            continue;
        }
        let ours = args![turn.as_str(), plan.command.as_str(), now.0];
        let before = tx.row(sql::ROBOT_TURN, ours.clone()).await?;
        let before = before.map(|row| row.text("command_id")).transpose()?;
        if let Some(before) = before.filter(|before| before != plan.command.as_str()) {
            let waiting = waiting_of(tx, &before, &message.record.peer).await?;
            let failure = Failure::new(ErrorCode::Superseded);
            jobs::withdraw(tx, context, now, &waiting, Some(&failure), harvest).await?;
            tx.exec(sql::ROBOT_TURN_PUT, ours).await?;
        }
    }
    Ok(())
}

/// The messages of a command to one person, if all of them wait: half a message is worse than an old one.
async fn waiting_of(tx: &mut Tx, command: &str, peer: &str) -> Result<Vec<MessageId>, StorageError> {
    let mut waiting = Vec::new();
    for row in tx.rows(sql::SENDS_OF_COMMAND, args![command]).await? {
        if row.text("peer")? != peer {
            continue;
        }
        let state = MessageState::find(&row.text("state")?);
        let job = row.maybe_text("job_state")?.and_then(|word| JobState::find(&word));
        match (state, job) {
            (Some(MessageState::Queued), Some(JobState::Ready)) => waiting.push(MessageId::stored(row.text("id")?)),
            (Some(MessageState::Failed | MessageState::Cancelled), _) => {}
            _ => return Ok(Vec::new()),
        }
    }
    Ok(waiting)
}

impl Storage {
    /// Gives up the sends of a queue whose deadline is over and that have not begun; tells how many. They end as
    /// `failed` and can be redriven.
    ///
    /// # Errors
    /// [`StorageError`]; those given up already stay so.
    pub async fn expire_sends(&self, queue: &QueueKey) -> Result<usize, StorageError> {
        const PAGE: i64 = 200;
        let mut expired = 0;
        loop {
            let now = self.clock.now().0;
            let rows = self.db.rows(sql::SENDS_OVERDUE, args![queue.to_string(), now, PAGE]).await?;
            let ids = rows.iter().map(|row| Ok(MessageId::stored(row.text("subject")?)));
            let ids = ids.collect::<Result<Vec<_>, StorageError>>()?;
            if ids.is_empty() {
                return Ok(expired);
            }
            match self.writer.write(Step::Expire(ids)).await? {
                // All of them have begun or ended meanwhile.
                Outcome::Withdrawn(0) => return Ok(expired),
                Outcome::Withdrawn(count) => expired += count,
                _ => return Err(StorageError::Broken("expire: wrong outcome".to_owned())),
            }
        }
    }

    /// Forgets texts and turns that no guard asks for any more.
    ///
    /// # Errors
    /// [`StorageError`]; what is left goes the next time.
    pub async fn forget_old_guards(&self) -> Result<(), StorageError> {
        let now = self.clock.now();
        let before = |window: Millis| now.plus(Millis(-window.0)).0;
        self.db.write(sql::TEXTS_FORGET, args![before(Millis::hours(*DUPLICATE_HOURS.end()))]).await?;
        let longest = Millis::minutes(*NOT_AFTER_MINUTES.end());
        self.db.write(sql::ROBOT_TURNS_FORGET, args![before(longest)]).await?;
        Ok(())
    }
}
