//! How calls to a CRM ended.

use std::collections::HashSet;

use super::db::{Tx, args};
use super::settle::{Fate, keep_row};
use super::writer::{Harvest, Queued, Step, Work};
use super::{Storage, StorageError, chats, jobs, sql};
use crate::domain::chat::ChatKey;
use crate::domain::ids::{CommandId, CrmCommentId, MessageId, WorkerId};
use crate::domain::time::Timestamp;

/// How one effect ended.
#[derive(Clone, PartialEq, Debug)]
pub struct EffectSettlement {
    /// The job.
    pub job: String,
    /// Whose run it was. The job changes only while this worker owns its queue; what became of the CRM is kept anyway.
    pub worker: WorkerId,
    /// The job's revision when it ran: if it grew meanwhile, the work is asked for again.
    pub revision: i64,
    /// What becomes of the job.
    pub fate: Fate,
    /// The comment that now tells about a message.
    pub comment: Option<(MessageId, CrmCommentId)>,
    /// The command whose CRM now has its result.
    pub replied: Option<CommandId>,
    /// The chat in which a client's message now stands, and the CRM's number of it (may be empty).
    pub shown: Option<(ChatKey, String)>,
}

impl Storage {
    /// Stores how effects ended. Work asked for again while it ran is handed over anew.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was stored.
    #[tracing::instrument(name = "storage.settle_effects", target = "mostik::span", skip_all)]
    pub async fn settle_effects(&self, settlements: Vec<EffectSettlement>) -> Result<(), StorageError> {
        self.writer.write(Step::Effects(settlements)).await?;
        Ok(())
    }
}

pub(super) async fn write(
    tx: &mut Tx,
    now: Timestamp,
    settlements: &[&EffectSettlement],
    harvest: &mut Harvest,
) -> Result<(), StorageError> {
    // Messages, jobs, commands, each by id: the order of every writer, so that no two processes wait for each other.
    let mut settlements = settlements.to_vec();
    settlements.sort_by(|one, other| one.job.cmp(&other.job));
    let comments = settlements.iter().filter_map(|settlement| settlement.comment.as_ref());
    tx.batch(sql::COMMENTS_PUT, comments.map(|(message, id)| args![message.as_str(), id.as_str()]).collect()).await?;
    let shown: Vec<(&ChatKey, &str)> =
        settlements.iter().filter_map(|s| s.shown.as_ref()).map(|(chat, number)| (chat, number.as_str())).collect();
    chats::note_numbers(tx, &shown).await?;
    let kept = settlements.iter().filter_map(|settlement| {
        keep_row(&settlement.job, ["", settlement.worker.as_str(), ""], &settlement.fate, now)
    });
    tx.batch(sql::JOBS_PUT, kept.collect()).await?;

    let done: Vec<&&EffectSettlement> = settlements.iter().filter(|settlement| settlement.fate == Fate::Done).collect();
    let rows = done.iter().map(|settlement| args![settlement.job.as_str(), settlement.revision]).collect();
    let deleted = tx.batch(sql::JOBS_DELETE_REVISION, rows).await?;
    let distinct = done.iter().map(|settlement| settlement.job.as_str()).collect::<HashSet<_>>().len();
    if usize::try_from(deleted).unwrap_or(0) < distinct {
        // Some were asked for again while they ran: what is left of them waits anew.
        let left =
            done.iter().map(|settlement| args![settlement.job.as_str(), settlement.worker.as_str(), now.0]).collect();
        for row in tx.batch_rows(sql::JOBS_AGAIN, left).await? {
            harvest.jobs.push(Queued { job: jobs::read(&row)?, work: Work::Stored });
        }
    }
    let mut replied: Vec<&CommandId> =
        settlements.iter().filter_map(|settlement| settlement.replied.as_ref()).collect();
    replied.sort_unstable();
    tx.batch(sql::COMMANDS_CLOSE, replied.into_iter().map(|command| args![command.as_str(), now.0]).collect()).await?;
    Ok(())
}
