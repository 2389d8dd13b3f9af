//! What operators do to messages they have sent: new words, or none at all. A change travels as a message of its own behind the
//! one it is about, in the same lane, so that it waits, is repeated and is told like any other. Carrying one out twice does no
//! harm, which is why doubt about its end is no doubt (`docs/adr/0017`).

use std::sync::Arc;

use super::Pipeline;
use super::intake::blank;
use super::preflight::Refusal;
use crate::domain::capability::Capabilities;
use crate::domain::chat::{AnswerChange, OperatorMessage};
use crate::domain::command::Command;
use crate::domain::ids::MessageId;
use crate::domain::message::{Change, ChangeKind, Content, MessageRecord, OutboundContent};
use crate::domain::outcome::{ErrorCode, Failure, FailureClass, SendError, ThrottleScope};
use crate::domain::status::MessageState;
use crate::domain::time::Timestamp;
use crate::providers::Provider;
use crate::storage::StorageError;
use crate::storage::messages::NewMessage;

/// What a change comes to: one message for each part of what was written; none when a later change has taken its place.
/// `Err` says why the messenger is not even asked.
pub(super) async fn plan(
    pipeline: &Pipeline,
    command: &Command,
    answer: &OperatorMessage,
    change: &AnswerChange,
    capabilities: &Capabilities,
) -> Result<Result<Vec<NewMessage>, Failure>, StorageError> {
    if !pipeline.storage.take_change(&command.portal, &command.id, answer, change).await? {
        return Ok(Ok(Vec::new()));
    }
    let cannot = || Failure::with(ErrorCode::CannotChange, answer.messenger.title());
    let can = match change.kind {
        ChangeKind::Edit => capabilities.edits,
        ChangeKind::Withdraw => capabilities.withdraws.is_some(),
    };
    if !can {
        return Ok(Err(cannot()));
    }
    let number = &answer.reference.message;
    let parts = pipeline.storage.messages_changed(&command.portal, &answer.chat.channel, number, &change.of).await?;
    // A number is the portal's word: it leads to this person's messages and nobody else's.
    let mut parts: Vec<MessageRecord> = parts.into_iter().filter(|part| part.peer == answer.chat.peer).collect();
    if change.kind == ChangeKind::Withdraw {
        pipeline.storage.withdraw_sends(parts.iter().map(|part| part.id.clone()).collect()).await?;
        parts = pipeline.storage.load_messages(&parts.iter().map(|part| part.id.clone()).collect::<Vec<_>>()).await?;
        let known = !parts.is_empty();
        parts.retain(|part| !never_left(part.state));
        if parts.is_empty() {
            // Nobody has seen what is gone before it left.
            return Ok(if known { Ok(Vec::new()) } else { Err(cannot()) });
        }
    }
    let wishes = match change.kind {
        ChangeKind::Withdraw => parts.iter().map(|part| (part.id.clone(), None)).collect(),
        ChangeKind::Edit => match edits(&parts, answer, capabilities) {
            Ok(wishes) => wishes,
            Err(failure) => return Ok(Err(failure)),
        },
    };
    let message = |(of, words): (MessageId, Option<String>)| {
        let mut message = NewMessage { answer: true, ..blank(pipeline, command, &answer.chat.peer) };
        let kind = if words.is_some() { ChangeKind::Edit } else { ChangeKind::Withdraw };
        message.record.channel = Some(answer.chat.channel.clone());
        message.record.draft.content = Content::Text { body: words.unwrap_or_default() };
        message.record.draft.change = Some(Change { of, kind });
        message
    };
    Ok(Ok(wishes.into_iter().map(message).collect()))
}

/// New words for the parts that have words; parts that are left over vanish. More parts than there were cannot be put where the
/// old ones stand.
fn edits(
    parts: &[MessageRecord],
    answer: &OperatorMessage,
    capabilities: &Capabilities,
) -> Result<Vec<(MessageId, Option<String>)>, Failure> {
    let texts: Vec<&MessageRecord> =
        parts.iter().filter(|part| matches!(part.draft.content, Content::Text { .. })).collect();
    if !texts.is_empty() {
        let words = answer.text.split(answer.messenger, capabilities.text_max);
        if words.is_empty() {
            return Err(Failure::new(ErrorCode::NoContent));
        }
        if words.len() > texts.len() {
            return Err(Failure::with(ErrorCode::TooLong, format!("{} / {}", words.len(), texts.len())));
        }
        let words = words.into_iter().map(Some).chain(std::iter::repeat(None));
        return Ok(texts.iter().map(|part| part.id.clone()).zip(words).collect());
    }
    let captioned = parts.iter().find(|part| match &part.draft.content {
        Content::Media { media, .. } => capabilities.captions.contains(media),
        Content::Text { .. } | Content::Template(_) | Content::Deed(_) => false,
    });
    let Some(part) = captioned else { return Err(Failure::with(ErrorCode::CannotChange, answer.messenger.title())) };
    let words = answer.text.render(answer.messenger);
    let length = capabilities.text_unit.length(words.trim());
    if length > capabilities.caption_max {
        return Err(Failure::with(ErrorCode::TooLong, format!("{length} / {}", capabilities.caption_max)));
    }
    Ok(vec![(part.id.clone(), Some(words.trim().to_owned()))])
}

fn never_left(state: MessageState) -> bool {
    match state {
        MessageState::Failed | MessageState::Cancelled => true,
        MessageState::Queued
        | MessageState::Undecided
        | MessageState::Accepted
        | MessageState::Sent
        | MessageState::Delivered
        | MessageState::Read => false,
    }
}

/// What of a change leaves at `now`. Its message stands before it in the lane, so how that ended is known by now.
pub(super) async fn prepare(
    pipeline: &Pipeline,
    provider: &Arc<dyn Provider>,
    record: &MessageRecord,
    change: &Change,
    now: Timestamp,
) -> Result<OutboundContent, Refusal> {
    let refuse = |code: ErrorCode| Err(Refusal::Failed(Failure::new(code)));
    let overtaken = match &record.command {
        Some(command) => !pipeline.storage.change_stands(command).await.map_err(later)?,
        None => false,
    };
    if overtaken {
        return refuse(ErrorCode::Superseded);
    }
    let target = pipeline.storage.find_message(&change.of).await.map_err(later)?;
    let Some(target) = target.map(|known| known.record) else { return refuse(ErrorCode::CannotChange) };
    let of = match (target.provider_id, change.kind) {
        (Some(id), _) => id,
        // What never left is gone already.
        (None, ChangeKind::Withdraw) if never_left(target.state) => return refuse(ErrorCode::Superseded),
        (None, _) if target.state == MessageState::Undecided => return refuse(ErrorCode::Undecided),
        (None, _) => return refuse(ErrorCode::CannotChange),
    };
    let capabilities = &provider.spec().capabilities;
    match (change.kind, &record.draft.content) {
        (ChangeKind::Withdraw, _) => {
            let age = now.since(target.times.accepted.or(target.times.sent).unwrap_or(target.times.created));
            match capabilities.withdraws.filter(|limit| age < *limit) {
                Some(_) => Ok(OutboundContent::Withdraw { of }),
                None => refuse(ErrorCode::CannotChange),
            }
        }
        (ChangeKind::Edit, Content::Text { body }) => {
            let caption = matches!(target.draft.content, Content::Media { .. });
            Ok(OutboundContent::Edit { of, body: body.clone(), caption })
        }
        (ChangeKind::Edit, Content::Media { .. } | Content::Template(_) | Content::Deed(_)) => {
            refuse(ErrorCode::CannotChange)
        }
    }
}

/// The store did not answer, and nothing was asked of the vendor.
fn later(error: StorageError) -> Refusal {
    Refusal::Provider(Box::new(SendError {
        class: FailureClass::Unavailable,
        failure: Failure::with(ErrorCode::Expired, error.to_string()),
        vendor_code: String::new(),
        raw: String::new(),
        retry_after: None,
        answered_by_gateway: false,
        scope: ThrottleScope::Channel,
    }))
}
