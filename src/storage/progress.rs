//! What follows from a message's move: its comment, and the result of the command it belongs to.

use std::collections::BTreeSet;

use super::db::{Row, Tx, args};
use super::writer::{Context, Harvest, Queued, Work};
use super::{Storage, StorageError, jobs, sql};
use crate::domain::ids::{CommandId, MessageId, PortalId};
use crate::domain::job::{Job, JobKind, QueueKey};
use crate::domain::time::{Millis, Timestamp};

/// How long a comment rests that will soon have more to say: a provider tells "accepted", "sent" and "delivered" within
/// moments, and one call to the CRM can say the last of them. Nobody at a card sees the difference.
const MORE_TO_COME: Millis = Millis(300);

/// Which card shows a message's comment.
pub(super) struct CommentTarget {
    /// The message.
    pub(super) message: MessageId,
    /// The portal of the card.
    pub(super) portal: PortalId,
    /// The card in text form: the lane, so that comments of one card keep their order.
    pub(super) card: String,
    /// The message is on its way, and more is expected to be told of it soon.
    pub(super) on_the_way: bool,
}

impl CommentTarget {
    /// Reads it from a message's `id`, `portal_id`, `card` and `comments`; `None` when no card shows the message.
    pub(super) fn of(row: &Row) -> Result<Option<Self>, StorageError> {
        let (portal, card) = (row.maybe_text("portal_id")?, row.maybe_text("card")?);
        let (Some(portal), Some(card), true) = (portal, card, row.flag("comments")?) else { return Ok(None) };
        let message = MessageId::stored(row.text("id")?);
        Ok(Some(Self { message, portal: PortalId::stored(portal), card, on_the_way: false }))
    }
}

/// Asks for the comments of these messages to be brought up to date. Asking twice is asking once.
pub(super) async fn ask_comments(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    targets: impl Iterator<Item = CommentTarget>,
    harvest: &mut Harvest,
) -> Result<(), StorageError> {
    let asked: Vec<Job> = targets
        .map(|target| {
            let queue = QueueKey::Crm(target.portal);
            let due = if target.on_the_way { now.plus(MORE_TO_COME) } else { now };
            Job::new(JobKind::Comment, target.message.as_str(), queue, target.card, context.ids.ulid(), due)
        })
        .collect();
    for job in jobs::ask(tx, now, asked.iter()).await? {
        harvest.jobs.push(Queued { job, work: Work::Stored });
    }
    Ok(())
}

/// Looks whether commands have what they waited for, and gives their CRMs the result.
pub(super) async fn commands(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    ids: BTreeSet<String>,
    harvest: &mut Harvest,
) -> Result<(), StorageError> {
    let rows: Vec<_> = ids.into_iter().map(|id| args![id]).collect();
    tx.lock(sql::COMMANDS_LOCK, &rows).await?;
    let mut finished = Vec::new();
    for row in tx.batch_rows(sql::COMMANDS_PROGRESS, rows).await? {
        if row.int("reached")? >= row.int("total")? {
            finished.push(args![row.text("id")?, true, now.0]);
        }
    }
    answer(tx, context, now, finished, harvest).await
}

/// Marks commands as answered and queues their replies.
pub(super) async fn answer(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    rows: Vec<Vec<super::db::Arg>>,
    harvest: &mut Harvest,
) -> Result<(), StorageError> {
    let mut replies = Vec::new();
    for row in tx.batch_rows(sql::COMMANDS_ANSWER, rows).await? {
        replies.push(Queued { job: reply_of(&row, context, now)?, work: Work::Stored });
    }
    super::writer::add_jobs(tx, now, replies, harvest).await
}

/// The reply waits until the CRM can be listening; it has a lane of its own, so that a comment never holds it up.
fn reply_of(row: &Row, context: &Context, now: Timestamp) -> Result<Job, StorageError> {
    let command = CommandId::stored(row.text("id")?);
    let portal = PortalId::stored(row.text("portal_id")?);
    let earliest = Timestamp(row.int("received_ms")?).plus(context.options.reply_not_before);
    let lane = command.to_string();
    Ok(Job::new(JobKind::Reply, command.as_str(), QueueKey::Crm(portal), lane, context.ids.ulid(), earliest.max(now)))
}

impl Storage {
    /// Gives every CRM whose time is over the result as it stands; tells how many there were.
    ///
    /// # Errors
    /// [`StorageError`]; none was answered.
    pub async fn answer_overdue(&self) -> Result<usize, StorageError> {
        let now = self.clock.now();
        let overdue = self.db.rows(sql::COMMANDS_OVERDUE, args![now.0]).await?;
        if overdue.is_empty() {
            return Ok(0);
        }
        let rows: Result<Vec<_>, StorageError> =
            overdue.iter().map(|row| Ok(args![row.text("id")?, false, now.0])).collect();
        let count = overdue.len();
        self.writer.write(super::writer::Step::Overdue(rows?)).await?;
        Ok(count)
    }
}
