//! The action `tag_dialog`: words of the automation's own on clients' dialogs.

use std::collections::BTreeSet;

use super::Pipeline;
use super::checks::asked_of;
use super::intake::{blank, refused};
use crate::domain::command::{Command, TagDialog};
use crate::domain::deed::Deed;
use crate::domain::effect::{CardPerson, OwnResults};
use crate::domain::message::{Content, MessageRecord};
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::status::MessageState;
use crate::storage::StorageError;
use crate::storage::messages::NewMessage;

/// What tagging comes to: one deed per dialog, done with its plan.
pub(super) async fn plan(
    pipeline: &Pipeline,
    command: &Command,
    wish: &TagDialog,
    people: &[CardPerson],
) -> Result<Vec<NewMessage>, StorageError> {
    let asked = asked_of(pipeline, command, &wish.recipients, &wish.line, wish.messenger, people).await?;
    let asked = match asked {
        Ok(asked) => asked,
        Err(failure) => return Ok(vec![refused(pipeline, command, "", failure)]),
    };
    let known = pipeline.storage.dialog_tags(&asked.pairs()).await?;
    let mut told: Vec<NewMessage> = Vec::new();
    for (given, peers) in asked.given.iter().zip(&asked.peers) {
        let dialogs: Vec<_> = asked
            .channels
            .iter()
            .zip(peers)
            .filter_map(|(channel, peer)| Some((channel, peer.as_deref().ok()?)))
            .collect();
        if dialogs.is_empty() {
            let failure = peers.iter().find_map(|peer| peer.as_ref().err().cloned());
            let failure = failure.unwrap_or_else(|| Failure::new(ErrorCode::NoChannel));
            told.push(refused(pipeline, command, given.text(), failure));
        }
        for (channel, peer) in dialogs {
            let mut tags: BTreeSet<String> =
                known.get(&(channel.id.clone(), peer.to_owned())).cloned().unwrap_or_default();
            tags.extend(wish.add.iter().cloned());
            tags.retain(|tag| !wish.remove.contains(tag));
            let mut message = blank(pipeline, command, peer);
            message.record.channel = Some(channel.id.clone());
            message.record.state = MessageState::Sent;
            message.record.draft.content = Content::Deed(Deed::TagDialog {
                add: wish.add.clone(),
                remove: wish.remove.clone(),
                tags: tags.into_iter().collect(),
            });
            let same = |known: &NewMessage| {
                known.record.peer == message.record.peer && known.record.channel == message.record.channel
            };
            if !told.iter().any(same) {
                told.push(message);
            }
        }
    }
    Ok(told)
}

/// The result that only this action has: the tags that the dialogs have now, each once.
pub(super) fn results(messages: &[MessageRecord]) -> OwnResults {
    let mut all = BTreeSet::new();
    for record in messages {
        if let Content::Deed(Deed::TagDialog { tags, .. }) = &record.draft.content {
            all.extend(tags.iter().cloned());
        }
    }
    vec![("tags", all.into_iter().collect())]
}
