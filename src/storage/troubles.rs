//! What operators must hear of their messages before or after the portal has its answer: that nobody knows whether one
//! went out, that one failed though the provider had taken it, and, where the CRM's chats show it, that one was delivered
//! and read.

use std::collections::HashSet;

use super::chats::{lane_of, place_now};
use super::db::{Row, Tx, args};
use super::writer::{Context, Harvest, Queued, Work};
use super::{StorageError, jobs, sql};
use crate::domain::chat::ChatKey;
use crate::domain::ids::{ChannelId, PortalId};
use crate::domain::job::{Job, JobKind, QueueKey};
use crate::domain::portal::CrmKind;
use crate::domain::status::MessageState;
use crate::domain::time::Timestamp;

/// A message that has just met trouble, or got somewhere.
pub(super) struct Troubled {
    message: String,
    channel: String,
    peer: String,
    command: String,
    receipt: bool,
}

impl Troubled {
    /// Reads a row of `MESSAGES_MOVE`; `None` where nothing is to be said, or the command's own answer says it.
    pub(super) fn of(row: &Row) -> Result<Option<Self>, StorageError> {
        let (told, receipt) = match MessageState::find(&row.text("state")?) {
            Some(MessageState::Undecided) => (true, false),
            Some(MessageState::Failed) => (row.maybe_int("accepted_ms")?.is_some(), false),
            // What stands on a card is no operator's; most messages do, and need no second look.
            Some(MessageState::Delivered | MessageState::Read) => (row.maybe_text("card")?.is_none(), true),
            Some(MessageState::Queued | MessageState::Accepted | MessageState::Sent | MessageState::Cancelled)
            | None => (false, false),
        };
        let of = row.maybe_text("channel_id")?.zip(row.maybe_text("command_id")?).filter(|_| told);
        let Some((channel, command)) = of else { return Ok(None) };
        Ok(Some(Self { message: row.text("id")?, channel, peer: row.text("peer")?, command, receipt }))
    }
}

/// Asks for operators to be told, where they wrote the messages in a chat.
pub(super) async fn ask(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    troubled: Vec<Troubled>,
    harvest: &mut Harvest,
) -> Result<(), StorageError> {
    if troubled.is_empty() {
        return Ok(());
    }
    let receipts: HashSet<String> =
        troubled.iter().filter(|item| item.receipt).map(|item| item.message.clone()).collect();
    let rows = troubled.into_iter().map(|item| args![item.message, item.channel, item.peer, item.command]);
    let mut asked = Vec::new();
    for row in tx.batch_rows(sql::CHAT_TROUBLES, rows.collect()).await? {
        let shown = CrmKind::find(&row.text("crm")?).is_some_and(CrmKind::shows_receipts);
        if receipts.contains(&row.text("message_id")?) && !shown {
            continue;
        }
        let chat = ChatKey { channel: ChannelId::stored(row.text("channel_id")?), peer: row.text("peer")? };
        let queue = QueueKey::Crm(PortalId::stored(row.text("portal_id")?));
        asked.push(Job::new(JobKind::Chat, &row.text("message_id")?, queue, lane_of(&chat), place_now(context), now));
    }
    for job in jobs::ask(tx, now, asked.iter()).await? {
        harvest.jobs.push(Queued { job, work: Work::Stored });
    }
    Ok(())
}
