//! The action `rename_chat`: the chats that clients have in the CRM get another name.
//!
//! A name may be given twice without harm, so nothing is marked as begun: what fails for a passing reason is done again with
//! the whole command.

use std::sync::Arc;

use super::Pipeline;
use super::checks::asked_of;
use super::intake::{blank, refused};
use crate::crm::Crm;
use crate::domain::chat::ChatName;
use crate::domain::command::{Command, RenameChat};
use crate::domain::deed::Deed;
use crate::domain::effect::{CardPerson, CrmError};
use crate::domain::message::Content;
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::portal::Portal;
use crate::domain::status::MessageState;
use crate::storage::StorageError;
use crate::storage::messages::NewMessage;

/// Renames the chats that a command means and tells of each person.
///
/// The inner error is the CRM's and passing: the command is to be carried out again.
pub(super) async fn carry_out(
    pipeline: &Pipeline,
    crm: &Arc<dyn Crm>,
    portal: &Portal,
    command: &Command,
    rename: &RenameChat,
    people: &[CardPerson],
) -> Result<Result<Vec<NewMessage>, CrmError>, StorageError> {
    let refuse = |failure: Failure| Ok(Ok(vec![refused(pipeline, command, "", failure)]));
    let Some(names) = crm.chat_names() else {
        return refuse(Failure::with(ErrorCode::Unsupported, "chats"));
    };
    let asked = match asked_of(pipeline, command, &rename.recipients, &rename.line, rename.messenger, people).await? {
        Ok(asked) => asked,
        Err(failure) => return refuse(failure),
    };
    let stand = pipeline.storage.chats_in(&portal.id, &asked.pairs()).await?;
    let mut told: Vec<NewMessage> = Vec::new();
    for (given, peers) in asked.given.iter().zip(&asked.peers) {
        let own = asked.channels.iter().zip(peers).filter_map(|(channel, peer)| {
            let key = (channel.id.clone(), peer.clone().ok()?);
            stand.get(&key).map(|stands| ChatName { stands: stands.clone(), name: rename.name.clone() })
        });
        let chats: Vec<ChatName> = own.collect();
        if chats.is_empty() {
            let failure =
                peers.iter().find_map(|peer| peer.as_ref().err()).filter(|_| peers.iter().all(Result::is_err));
            let failure = failure.cloned().unwrap_or_else(|| Failure::new(ErrorCode::NoChat));
            told.push(refused(pipeline, command, given.text(), failure));
            continue;
        }
        for (chat, answer) in chats.iter().zip(names.rename(portal, &chats).await) {
            told.push(match answer {
                Ok(()) => done(pipeline, command, chat, rename),
                Err(error) if error.class.is_final() => {
                    let failure = Failure::with(ErrorCode::Rejected, error.code);
                    refused(pipeline, command, &chat.stands.chat.peer, failure)
                }
                Err(error) => return Ok(Err(error)),
            });
        }
    }
    Ok(Ok(told))
}

fn done(pipeline: &Pipeline, command: &Command, chat: &ChatName, rename: &RenameChat) -> NewMessage {
    let mut message = blank(pipeline, command, &chat.stands.chat.peer);
    message.record.channel = Some(chat.stands.chat.channel.clone());
    message.record.state = MessageState::Sent;
    message.record.draft.content = Content::Deed(Deed::RenameChat { name: rename.name.clone() });
    message
}
