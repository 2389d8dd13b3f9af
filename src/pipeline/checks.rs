//! The action `check_phone`: whether phones have an account, as far as earlier traffic tells.
//!
//! The official APIs cannot be asked, and nobody is written to only to find out. So the answer is often "unknown", and it
//! always says what it rests on.

use std::sync::Arc;

use super::Pipeline;
use super::intake::{blank, channels_for, pick_line, recipients_of, refused};
use super::peers::{self, Given};
use crate::domain::address::Addressing;
use crate::domain::channel::{Channel, Messenger};
use crate::domain::command::{CheckPhone, Command, RecipientSource, Recipients};
use crate::domain::deed::{Deed, PhoneEvidence, PhoneSign};
use crate::domain::effect::{CardPerson, OwnResults};
use crate::domain::ids::ChannelId;
use crate::domain::message::{Content, MessageRecord};
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::status::MessageState;
use crate::storage::StorageError;
use crate::storage::messages::NewMessage;

/// Whom an action is about, every address for itself, and what each channel knows it by.
pub(super) struct Asked {
    /// As it was given.
    pub(super) given: Vec<Given>,
    /// Of the line, in its order.
    pub(super) channels: Vec<Arc<Channel>>,
    /// By what was given, then by channel.
    pub(super) peers: Vec<Vec<Result<String, Failure>>>,
}

impl Asked {
    /// Every address on every channel.
    pub(super) fn pairs(&self) -> Vec<(ChannelId, String)> {
        let of = |peers: &Vec<Result<String, Failure>>| -> Vec<_> {
            let pairs = self.channels.iter().zip(peers);
            pairs.filter_map(|(channel, peer)| Some((channel.id.clone(), peer.clone().ok()?))).collect()
        };
        self.peers.iter().flat_map(of).collect()
    }
}

/// Looks up whom an action means that sends nothing; the inner error is why nobody can be told.
pub(super) async fn asked_of(
    pipeline: &Pipeline,
    command: &Command,
    recipients: &Recipients,
    line: &str,
    messenger: Option<Messenger>,
    people: &[CardPerson],
) -> Result<Result<Asked, Failure>, StorageError> {
    if recipients.source == RecipientSource::Group {
        return Ok(Err(Failure::with(ErrorCode::Unsupported, "recipients: group")));
    }
    // Every phone of a person is a question of its own.
    let given: Vec<Given> =
        recipients_of(recipients, "", people).into_iter().flat_map(|recipient| recipient.ways).collect();
    if given.is_empty() {
        return Ok(Err(Failure::new(ErrorCode::NoRecipient)));
    }
    let lines = pipeline.storage.lines_of_portal(&command.portal).await?;
    let channels = match pick_line(&lines, line) {
        Ok(line) => channels_for(pipeline, line, messenger).await?,
        Err(failure) => return Ok(Err(failure)),
    };
    let channels = match channels {
        Ok(channels) => channels,
        Err(failure) => return Ok(Err(failure)),
    };
    let ways: Vec<&[Given]> = given.iter().map(std::slice::from_ref).collect();
    let peers = peers::resolve(pipeline, &ways, &channels).await?;
    Ok(Ok(Asked { given, channels, peers }))
}

/// The answers of a check: one entry per phone, done already.
pub(super) async fn plan(
    pipeline: &Pipeline,
    command: &Command,
    check: &CheckPhone,
    people: &[CardPerson],
) -> Result<Vec<NewMessage>, StorageError> {
    let asked = asked_of(pipeline, command, &check.recipients, &check.line, check.messenger, people).await?;
    let asked = match asked {
        Ok(asked) => asked,
        Err(failure) => return Ok(vec![refused(pipeline, command, "", failure)]),
    };
    let (pairs, channels) = (asked.pairs(), &asked.channels);
    let traffic = pipeline.storage.phone_traffic(&pairs).await?;
    let mut answers: Vec<NewMessage> = Vec::new();
    for (given, peers) in asked.given.iter().zip(&asked.peers) {
        let on_channels = channels.iter().zip(peers).filter_map(|(channel, peer)| {
            let (peer, evidence) = match peer {
                Ok(peer) => {
                    let traffic = traffic.get(&(channel.id.clone(), peer.clone())).copied().unwrap_or_default();
                    (peer.as_str(), of_chat(pipeline, channel, traffic.evidence()))
                }
                // A phone nobody has shared leads to no chat, and that says nothing of the phone.
                Err(failure) if failure.code == ErrorCode::CannotWriteFirst => (given.text(), PhoneEvidence::default()),
                Err(_) => return None,
            };
            Some((channel, peer, evidence))
        });
        let best = on_channels.max_by_key(|(_, _, evidence)| evidence.sign);
        let answer = match best {
            Some((channel, peer, evidence)) => done(pipeline, command, channel, peer, evidence),
            None => {
                let failure = peers.iter().find_map(|peer| peer.as_ref().err().cloned());
                let failure = failure.unwrap_or_else(|| Failure::new(ErrorCode::NoChannel));
                refused(pipeline, command, given.text(), failure)
            }
        };
        // The same phone in two notations is one.
        if !answers.iter().any(|known| known.record.peer == answer.record.peer) {
            answers.push(answer);
        }
    }
    Ok(answers)
}

/// A phone that leads to a chat was shared there by its person, though nothing may have been written since.
fn of_chat(pipeline: &Pipeline, channel: &Channel, evidence: PhoneEvidence) -> PhoneEvidence {
    let spec = pipeline.provider_of(channel).map(|provider| provider.spec().addressing);
    match spec {
        Some(Addressing::Chats { .. }) if evidence.sign < PhoneSign::PhoneShared => {
            PhoneEvidence { sign: PhoneSign::PhoneShared, at: None }
        }
        Some(Addressing::Chats { .. } | Addressing::Phones) | None => evidence,
    }
}

fn done(
    pipeline: &Pipeline,
    command: &Command,
    channel: &Arc<Channel>,
    peer: &str,
    evidence: PhoneEvidence,
) -> NewMessage {
    let mut message = blank(pipeline, command, peer);
    message.record.channel = Some(channel.id.clone());
    message.record.state = MessageState::Sent;
    message.record.draft.content = Content::Deed(Deed::CheckPhone(evidence));
    message
}

/// The results that only this action has: `exists` by phone.
pub(super) fn results(messages: &[MessageRecord]) -> OwnResults {
    let exists = |record: &MessageRecord| match &record.draft.content {
        Content::Deed(Deed::CheckPhone(evidence)) => evidence.sign.exists().code().to_owned(),
        Content::Text { .. }
        | Content::Media { .. }
        | Content::Template(_)
        | Content::Deed(Deed::RenameChat { .. } | Deed::TagDialog { .. }) => String::new(),
    };
    vec![
        ("exists", messages.iter().map(exists).collect()),
        ("phones", messages.iter().map(|record| record.peer.clone()).collect()),
    ]
}
