//! Chats in CRMs: operators' messages on their way to clients, and where chats stand.

use std::collections::HashMap;
use std::sync::Arc;

use super::Pipeline;
use super::changes;
use super::files;
use super::guards;
use super::intake::{blank, refused};
use super::mirrors;
use crate::crm::Crm;
use crate::domain::capability::{Capabilities, MediaKind};
use crate::domain::channel::{Channel, ChannelState, Messenger};
use crate::domain::chat::{ChatFile, ChatLine, ChatPlace, ChatVerdict, OperatorMessage};
use crate::domain::command::{Command, CommandBody, Reply, WaitFor};
use crate::domain::effect::CrmError;
use crate::domain::guards::{ActionGuards, LineSettings};
use crate::domain::ids::{CommandId, CrmUserId, MessageId, ReplyToken};
use crate::domain::message::{ChangeKind, Content, MessageRecord};
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::portal::Portal;
use crate::domain::status::MessageState;
use crate::domain::time::{Millis, Timestamp};
use crate::http::verified::Verified;
use crate::storage::StorageError;
use crate::storage::changes::key_of;
use crate::storage::chats::Connected;
use crate::storage::messages::NewMessage;

/// An operator is told how things stand so long after the last moment at which the message could leave.
const VERDICT_MARGIN: Millis = Millis::minutes(1);

impl Pipeline {
    /// Takes operators' messages of a portal over, told by an event that was raised then (if it says). After `Ok` the CRM
    /// may be told that we have them.
    ///
    /// # Errors
    /// [`StorageError`]: the CRM must be told to come again; those already taken over stay so.
    pub async fn accept_answers(
        &self,
        portal: &Portal,
        answers: Verified<Vec<OperatorMessage>>,
        raised: Option<Timestamp>,
    ) -> Result<(), StorageError> {
        self.take_answers(portal, answers.into_inner(), raised).await
    }

    /// The same for messages whose chats had to be found first ([`Pipeline::accept_written`]).
    pub(super) async fn take_answers(
        &self,
        portal: &Portal,
        answers: Vec<OperatorMessage>,
        raised: Option<Timestamp>,
    ) -> Result<(), StorageError> {
        let received = self.clock.now();
        // The portal's clock may be wrong, and its event late: the earlier of the two moments is nearer to the truth.
        let raised = raised.map_or(received, |raised| raised.min(received));
        let deadline = guards::deadline(self, received, &ActionGuards::default(), &LineSettings::default());
        for answer in answers {
            let echo_of = match &answer.change {
                Some(_) => None,
                None => mirrors::recognise(self, portal, &answer, raised).await?,
            };
            if let Some(message) = &echo_of {
                tracing::debug!(portal.id = %portal.id, message.id = %message, "a message past its chat comes back");
            }
            let author = match &answer.change {
                Some(_) => self.author_of(portal, &answer.reference.message).await?,
                None => answer.author.clone(),
            };
            let answer = OperatorMessage { echo_of, author, ..answer };
            let command = Command {
                id: CommandId::new(&self.ids.ulid()),
                portal: portal.id.clone(),
                dedupe_key: dedupe_key(&answer),
                card: None,
                // What the CRM needs to find the message again stands in the body.
                reply: Some(Reply {
                    token: ReplyToken(String::new()),
                    wait: WaitFor::Accepted,
                    answer_by: deadline.plus(VERDICT_MARGIN),
                }),
                comment: false,
                responsible: answer.author.clone(),
                received,
                robot: None,
                body: CommandBody::Answer(Box::new(answer)),
            };
            self.storage.accept(command).await?;
        }
        Ok(())
    }

    /// Who wrote what the portal knows by this number: of changes it does not say it again.
    async fn author_of(&self, portal: &Portal, number: &str) -> Result<Option<CrmUserId>, StorageError> {
        let Some(id) = self.storage.answer_numbered(&portal.id, number).await? else { return Ok(None) };
        let known = self.storage.load_commands(std::slice::from_ref(&id)).await?.remove(&id);
        Ok(known.and_then(|known| known.command.ok()).and_then(|command| command.responsible))
    }

    /// Lets the chats of a line and messenger stand in a place of a portal; the CRM is brought in line soon after.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was changed.
    pub async fn connect_chats(&self, portal: &Portal, line: &ChatLine) -> Result<Connected, StorageError> {
        let connected = self.storage.connect_chats(line).await?;
        if connected == Connected::Yes {
            tracing::info!(portal.id = %portal.id, line.id = %line.line, messenger = line.messenger.code(), "chats connected");
            self.ask_reconcile(portal).await?;
        }
        Ok(connected)
    }

    /// Takes a messenger's chats out of a place; false when none stood there.
    ///
    /// # Errors
    /// [`StorageError`]; may be repeated.
    pub async fn disconnect_chats(
        &self,
        portal: &Portal,
        messenger: Messenger,
        place: &str,
    ) -> Result<bool, StorageError> {
        let stood = self.storage.disconnect_chats(&portal.id, messenger, place).await?;
        if stood {
            tracing::info!(portal.id = %portal.id, messenger = messenger.code(), "chats disconnected");
            self.ask_reconcile(portal).await?;
        }
        Ok(stood)
    }

    /// A place of chats was deleted in the CRM.
    ///
    /// # Errors
    /// [`StorageError`]; may be repeated.
    pub async fn forget_place(&self, portal: &Portal, place: &str) -> Result<(), StorageError> {
        if self.storage.forget_place(&portal.id, place).await? > 0 {
            tracing::info!(portal.id = %portal.id, "a place of chats is gone");
            self.ask_reconcile(portal).await?;
        }
        Ok(())
    }

    /// A channel has stopped, works again or is new: the place of its chats shows that.
    pub async fn show_channel_state(&self, channel: &Channel) {
        if let Err(error) = self.tell_place(channel).await {
            tracing::warn!(%error, channel.id = %channel.id, "the place of its chats is not told; the next comparison does it");
        }
    }

    async fn tell_place(&self, channel: &Channel) -> Result<(), StorageError> {
        let Some(provider) = self.provider_of(channel) else { return Ok(()) };
        let line = self.storage.chat_line_of(&channel.line, provider.spec().messenger).await?;
        let Some(line) = line else { return Ok(()) };
        match self.storage.portal(&line.portal).await? {
            Some(known) => self.ask_reconcile(&known.portal).await,
            None => Ok(()),
        }
    }

    /// Messengers that this version can connect.
    #[must_use]
    pub fn messengers(&self) -> Vec<Messenger> {
        let mut messengers: Vec<Messenger> = self.providers.values().map(|p| p.spec().messenger).collect();
        messengers.sort_unstable();
        messengers.dedup();
        messengers
    }

    /// Names of a line's channels for one messenger, and whether none of them sends.
    async fn place_of(&self, line: ChatLine) -> Result<ChatPlace, StorageError> {
        const TITLE_MAX: usize = 200;
        let channels = self.storage.channels_of_line(&line.line).await?;
        let of_messenger = |channel: &&Arc<Channel>| {
            self.provider_of(channel).is_some_and(|provider| provider.spec().messenger == line.messenger)
        };
        let channels: Vec<&Arc<Channel>> = channels.iter().filter(of_messenger).collect();
        let title = channels.iter().map(|channel| channel.name.as_str()).collect::<Vec<_>>().join(", ");
        let broken = channels.iter().all(|channel| matches!(channel.state, ChannelState::Paused(_)));
        Ok(ChatPlace { line, title: title.chars().take(TITLE_MAX).collect(), broken })
    }
}

/// What makes an operator's message, or a change of it, unique in its portal. The same words may come back later, so an edit is
/// known by its time as well; a message is deleted once.
fn dedupe_key(answer: &OperatorMessage) -> String {
    let own = key_of(&answer.reference.message);
    match &answer.change {
        None => own,
        Some(change) if change.kind == ChangeKind::Withdraw => format!("{own}:{}", change.kind.code()),
        Some(change) => {
            let words = mirrors::print(&answer.text.render(answer.messenger));
            format!("{own}:{}:{}:{words}", change.kind.code(), change.raised.0)
        }
    }
}

/// Brings the chats of a portal in line with what is wanted there.
pub(super) async fn reconcile(
    pipeline: &Pipeline,
    crm: &Arc<dyn Crm>,
    portal: &Portal,
) -> Result<Result<(), CrmError>, StorageError> {
    let Some(chats) = crm.chats() else { return Ok(Ok(())) };
    let mut places = Vec::new();
    for line in pipeline.storage.chat_lines(&portal.id).await? {
        places.push(pipeline.place_of(line).await?);
    }
    match chats.reconcile_chats(portal, &pipeline.messengers(), &places).await {
        Ok(gone) => {
            for line in gone {
                tracing::info!(portal.id = %portal.id, line.id = %line.line, "chats were disconnected in the CRM");
                pipeline.storage.disconnect_chats(&portal.id, line.messenger, &line.place).await?;
            }
            Ok(Ok(()))
        }
        Err(error) => Ok(Err(error)),
    }
}

/// The messages that an operator's message comes to; none if the client has it already.
pub(super) async fn plan(
    pipeline: &Pipeline,
    command: &Command,
    answer: &OperatorMessage,
) -> Result<Vec<NewMessage>, StorageError> {
    if answer.echo_of.is_some() {
        return Ok(Vec::new());
    }
    let peer = &answer.chat.peer;
    let refuse = |failure| Ok(vec![as_answer(refused(pipeline, command, peer, failure))]);
    let no_channel = || Failure::with(ErrorCode::NoChannel, answer.messenger.title());
    let Some(channel) = pipeline.storage.find_channel(&answer.chat.channel).await? else { return refuse(no_channel()) };
    let provider = pipeline.provider_of(&channel).filter(|provider| provider.spec().messenger == answer.messenger);
    let Some(provider) = provider else { return refuse(no_channel()) };
    // Only the portal in which this line's chats stand may speak for it.
    let stands = pipeline.storage.chat_line_of(&channel.line, answer.messenger).await?;
    if stands.is_none_or(|line| line.portal != command.portal) {
        return refuse(no_channel());
    }
    if let Some(change) = &answer.change {
        return match changes::plan(pipeline, command, answer, change, &provider.spec().capabilities).await? {
            Ok(messages) => Ok(messages),
            Err(failure) => refuse(failure),
        };
    }
    let known = pipeline.storage.portal(&command.portal).await?;
    let Some(known) = known.filter(|_| !answer.files.is_empty()) else {
        return Ok(messages_of(pipeline, command, answer, &channel, &provider.spec().capabilities));
    };
    let not_after = guards::deadline(pipeline, command.received, &ActionGuards::default(), &LineSettings::default());
    match files::hand_out(pipeline, &known.portal, &command.id, answer, not_after).await? {
        Ok(answer) => Ok(messages_of(pipeline, command, &answer, &channel, &provider.spec().capabilities)),
        Err(failure) => refuse(failure),
    }
}

/// One message for each part of an operator's message, or one that has failed and says why.
fn messages_of(
    pipeline: &Pipeline,
    command: &Command,
    answer: &OperatorMessage,
    channel: &Channel,
    capabilities: &Capabilities,
) -> Vec<NewMessage> {
    let peer = &answer.chat.peer;
    let contents = match contents_of(answer, capabilities) {
        Ok(contents) => contents,
        Err(failure) => return vec![as_answer(refused(pipeline, command, peer, failure))],
    };
    contents
        .into_iter()
        .map(|content| {
            let mut message = as_answer(blank(pipeline, command, peer));
            message.record.channel = Some(channel.id.clone());
            message.record.draft.content = content;
            message
        })
        .collect()
}

/// The message of ours that a command is only the echo of.
pub(super) fn echo_of(command: &Command) -> Option<MessageId> {
    match &command.body {
        CommandBody::Answer(answer) => answer.echo_of.clone(),
        CommandBody::SendMessage(_)
        | CommandBody::RenameChat(_)
        | CommandBody::TagDialog(_)
        | CommandBody::CheckPhone(_)
        | CommandBody::Invalid { .. } => None,
    }
}

fn as_answer(message: NewMessage) -> NewMessage {
    NewMessage { answer: true, ..message }
}

/// Text and files in the parts the messenger takes: one file with words short enough carries them as its caption, else
/// the words go first.
fn contents_of(answer: &OperatorMessage, capabilities: &Capabilities) -> Result<Vec<Content>, Failure> {
    let mut files = Vec::new();
    for file in &answer.files {
        files.push((file, media_of(file, capabilities)?));
    }
    let whole = answer.text.render(answer.messenger);
    let whole = whole.trim();
    let captioned = match files.as_slice() {
        [(_, media)] => {
            !whole.is_empty()
                && capabilities.captions.contains(media)
                && whole.chars().count() <= capabilities.caption_max
        }
        _ => false,
    };
    let mut contents = Vec::new();
    if !captioned {
        let parts = answer.text.split(answer.messenger, capabilities.text_max);
        contents.extend(parts.into_iter().map(|body| Content::Text { body }));
    }
    for (file, media) in files {
        let caption = if captioned { whole.to_owned() } else { String::new() };
        contents.push(Content::Media { media, link: file.link.clone(), caption, filename: file.name.clone() });
    }
    if contents.is_empty() { Err(Failure::new(ErrorCode::NoContent)) } else { Ok(contents) }
}

/// How a file is shown: as what it is, or as a document where the messenger does not take such files by address.
fn media_of(file: &ChatFile, capabilities: &Capabilities) -> Result<MediaKind, Failure> {
    if !file.link.starts_with("https://") && !file.link.starts_with("http://") {
        return Err(Failure::with(ErrorCode::FileType, file.name.as_str()));
    }
    [file.media, MediaKind::Document]
        .into_iter()
        .find(|media| capabilities.media_by_link.contains(media))
        .ok_or_else(|| Failure::with(ErrorCode::Unsupported, file.name.as_str()))
}

/// What operators are to hear of messages that met trouble, as they stand now: of those that are out of it, nothing. Where
/// the CRM's chats show it, also how far messages have got; a failure is the last that can be said there, so what may still
/// end well is no trouble yet.
pub(super) async fn troubles(
    pipeline: &Pipeline,
    portal: &Portal,
    messages: &[MessageId],
) -> Result<HashMap<MessageId, ChatVerdict>, StorageError> {
    if messages.is_empty() {
        return Ok(HashMap::new());
    }
    let records = pipeline.storage.load_messages(messages).await?;
    let commands: Vec<CommandId> = records.iter().filter_map(|record| record.command.clone()).collect();
    let receipts = portal.crm.shows_receipts();
    let parts = match receipts {
        true => pipeline.storage.messages_of_commands(&commands).await?,
        false => HashMap::new(),
    };
    let commands = pipeline.storage.load_commands(&commands).await?;
    let told = |record: MessageRecord| {
        let id = record.command.as_ref()?;
        let command = commands.get(id)?.command.as_ref().ok()?;
        let CommandBody::Answer(answer) = &command.body else { return None };
        let parts = parts.get(id).map_or(std::slice::from_ref(&record), Vec::as_slice);
        let verdict = verdict(answer, parts, pipeline.clock.now());
        let told = match &verdict.outcome {
            Ok(_) => receipts,
            Err(failure) => !(receipts && matches!(failure.code, ErrorCode::Undecided | ErrorCode::StillQueued)),
        };
        told.then_some((record.id, verdict))
    };
    Ok(records.into_iter().filter_map(told).collect())
}

/// What an operator is told: the ids of all parts once all are taken, else why the first that failed did. An echo's only
/// part is the message it is of.
pub(super) fn verdict(answer: &OperatorMessage, messages: &[MessageRecord], now: Timestamp) -> ChatVerdict {
    let trouble = |record: &MessageRecord| match record.state {
        MessageState::Accepted | MessageState::Sent | MessageState::Delivered | MessageState::Read => None,
        MessageState::Undecided => Some(Failure::new(ErrorCode::Undecided)),
        MessageState::Queued => Some(Failure::new(ErrorCode::StillQueued)),
        MessageState::Failed | MessageState::Cancelled => {
            Some(record.failure.clone().unwrap_or_else(|| Failure::new(ErrorCode::Cancelled)))
        }
    };
    // A part that was overtaken says less than one that failed.
    let overtaken = |failure: &Failure| failure.code == ErrorCode::Superseded;
    let failed = messages.iter().filter_map(trouble).min_by_key(overtaken);
    let outcome = match (failed, &answer.change) {
        (Some(failure), _) => Err(failure),
        // The portal knows the message by these already.
        (None, Some(change)) => Ok(change.of.clone()),
        (None, None) => Ok(messages.iter().filter_map(|record| record.provider_id.clone()).collect()),
    };
    let taken = messages.iter().filter_map(|record| record.times.accepted).max();
    let reached = messages.iter().map(|record| record.state).min_by_key(|state| state.rank());
    ChatVerdict {
        answer: answer.clone(),
        reached: reached.unwrap_or(MessageState::Queued),
        outcome,
        at: taken.unwrap_or(now),
    }
}
