//! From a command to messages: whom, through which channel, and with what. Everything that can be refused without
//! asking a provider is refused here, as a message that has failed and says why.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::future::join_all;

use super::Pipeline;
use super::chats;
use super::checks;
use super::guards::{self, Rules};
use super::mailbox::Finished;
use super::peers::{self, Given};
use super::sources::{self, FromCrm};
use super::tags;
use crate::domain::address::is_group;
use crate::domain::capability::{Capabilities, MediaKind};
use crate::domain::channel::{Channel, ChannelState, Line, Messenger};
use crate::domain::command::{Command, CommandBody, RecipientSource, Recipients, SendMessage};
use crate::domain::crm_file::FileLink;
use crate::domain::deed::{Deed, PhoneEvidence};
use crate::domain::effect::{CardPerson, CrmError};
use crate::domain::guards::LineSettings;
use crate::domain::ids::{CommandId, MessageId};
use crate::domain::job::{JobState, QueueKey};
use crate::domain::message::{Content, Draft, MessageRecord, MessageTimes};
use crate::domain::outcome::{ErrorCode, Failure, FailureClass};
use crate::domain::status::MessageState;
use crate::domain::text::{pick_variants, seed_of};
use crate::domain::time::{Millis, Timestamp};
use crate::storage::StorageError;
use crate::storage::guards::MessageGuards;
use crate::storage::messages::NewMessage;
use crate::storage::plan::Plan;
use crate::storage::settle::{Fate, Right, Settlement};
use crate::storage::writer::{Queued, Work};

/// Runs commands that need nothing from the CRM.
pub(super) async fn run(pipeline: &Arc<Pipeline>, queue: &QueueKey, jobs: Vec<Queued>) {
    let runs = with_commands(pipeline, queue, jobs).await.into_iter().map(|(queued, command)| async move {
        let planned = plan_and_store(pipeline, &command, &FromCrm::default()).await;
        finish(pipeline, queue, queued, planned);
    });
    join_all(runs).await;
}

/// Runs commands whose card or files have to be asked for first: one call for all of them.
pub(super) async fn run_with_cards(pipeline: &Arc<Pipeline>, queue: &QueueKey, jobs: Vec<Queued>) {
    let commands = with_commands(pipeline, queue, jobs).await;
    let QueueKey::Crm(portal_id) = queue else { return };
    let asking: Vec<Arc<Command>> = commands.iter().map(|(_, command)| Arc::clone(command)).collect();
    let told = match sources::ask(pipeline, portal_id, &asking).await {
        Ok(told) => told,
        Err(error) => {
            tracing::warn!(%error, "cards could not be read");
            for (queued, _) in commands {
                again_soon(pipeline, queue, queued);
            }
            return;
        }
    };
    let runs = commands.into_iter().zip(told).map(|((queued, command), told)| async move {
        match told {
            Ok(told) => {
                let planned = plan_and_store(pipeline, &command, &told).await;
                finish(pipeline, queue, queued, planned);
            }
            Err(error) => card_unreadable(pipeline, queue, queued, &command, error).await,
        }
    });
    join_all(runs).await;
}

/// Puts the command beside each job; jobs whose command cannot be read are buried.
async fn with_commands(pipeline: &Arc<Pipeline>, queue: &QueueKey, jobs: Vec<Queued>) -> Vec<(Queued, Arc<Command>)> {
    let missing: Vec<CommandId> = jobs
        .iter()
        .filter(|queued| matches!(queued.work, Work::Stored))
        .filter_map(|queued| queued.job.command())
        .collect();
    let stored = match pipeline.storage.load_commands(&missing).await {
        Ok(stored) => stored,
        Err(error) => {
            tracing::warn!(%error, "commands could not be read");
            for queued in jobs {
                again_soon(pipeline, queue, queued);
            }
            return Vec::new();
        }
    };
    let mut ready = Vec::with_capacity(jobs.len());
    for queued in jobs {
        let found = match &queued.work {
            Work::Command(command) => Ok(Arc::clone(command)),
            Work::Stored | Work::Message(_) => match queued.job.command().and_then(|id| stored.get(&id)) {
                Some(known) => known.command.clone().map(Arc::new),
                None => Err("the command is gone".to_owned()),
            },
        };
        match found {
            Ok(command) => ready.push((queued, command)),
            Err(reason) => bury(pipeline, queue, queued, reason).await,
        }
    }
    ready
}

async fn bury(pipeline: &Arc<Pipeline>, queue: &QueueKey, queued: Queued, reason: String) {
    tracing::error!(job.id = %queued.job.id, reason, "a job was given up");
    crate::telemetry::settled(queued.job.kind.code(), "", "given_up");
    let due = queued.job.due;
    keep(pipeline, queue, queued, JobState::Dead, due, Some(reason)).await;
}

/// Stores that a job stays as it is now, to run again when `due` unless it is dead.
async fn keep(
    pipeline: &Arc<Pipeline>,
    queue: &QueueKey,
    mut queued: Queued,
    state: JobState,
    due: Timestamp,
    reason: Option<String>,
) {
    let fate = Fate::Keep { state, due, tries: queued.job.tries, reason };
    let right = Right::Owner(pipeline.worker.clone(), queued.job.state);
    let settlement = Settlement { job: queued.job.id.clone(), right, fate, news: None, attempt: None };
    if pipeline.storage.settle(vec![settlement]).await.is_err() {
        return again_soon(pipeline, queue, queued);
    }
    let done = finished(queue, &queued, None);
    queued.job.due = due;
    let again = (state != JobState::Dead).then_some(queued);
    pipeline.scheduler.finished(Finished { again, ..done });
}

fn finished(queue: &QueueKey, queued: &Queued, again: Option<Queued>) -> Finished {
    Finished { queue: queue.clone(), lane: queued.job.lane.clone(), id: queued.job.id.clone(), again }
}

/// For when the store does not answer: what it has of the job stays as it is.
fn again_soon(pipeline: &Pipeline, queue: &QueueKey, mut queued: Queued) {
    let done = finished(queue, &queued, None);
    queued.job.due = pipeline.clock.now().plus(Millis::seconds(1));
    pipeline.scheduler.finished(Finished { again: Some(queued), ..done });
}

fn finish(pipeline: &Pipeline, queue: &QueueKey, queued: Queued, planned: Result<(), StorageError>) {
    match planned {
        Ok(()) => {
            crate::telemetry::settled(queued.job.kind.code(), "", "ok");
            pipeline.scheduler.finished(finished(queue, &queued, None));
        }
        Err(error) => {
            tracing::warn!(%error, job.id = %queued.job.id, "a command could not be planned");
            again_soon(pipeline, queue, queued);
        }
    }
}

/// The CRM did not give the card: later if that may help, otherwise the command fails in words.
async fn card_unreadable(
    pipeline: &Arc<Pipeline>,
    queue: &QueueKey,
    queued: Queued,
    command: &Command,
    error: CrmError,
) {
    super::report::note_trouble(pipeline, queue, &error).await;
    let now = pipeline.clock.now();
    let plan = &pipeline.settings.retries;
    let not_after = deadline_of(pipeline, command).await;
    // Reading changes nothing, so an unclear answer may be asked for again.
    let class = if error.class == FailureClass::Indeterminate { FailureClass::Unavailable } else { error.class };
    let seed = seed_of(&queued.job.id);
    use super::policy::{Decision, decide};
    let decision = if now > not_after {
        Decision::Expire
    } else {
        decide(plan, class, error.retry_after, queued.job.tries, Some(not_after), now, seed)
    };
    match decision {
        Decision::Again { due, counts } => {
            let mut next = queued;
            next.job.tries += u32::from(counts);
            keep(pipeline, queue, next, JobState::Ready, due, None).await;
        }
        Decision::Pause => {
            let due = now.plus(super::report::trouble_look(&error));
            keep(pipeline, queue, queued, JobState::Ready, due, None).await;
        }
        Decision::Settle | Decision::Expire | Decision::Unclear => {
            let code = if decision == Decision::Expire { ErrorCode::Expired } else { ErrorCode::CrmUnavailable };
            let failure = Failure::with(code, error.code.clone());
            let planned = store(pipeline, command, vec![refused(pipeline, command, "", failure)]).await;
            finish(pipeline, queue, queued, planned);
        }
    }
}

/// Until when a command whose card cannot be read is worth carrying out. A line that cannot be told says nothing.
async fn deadline_of(pipeline: &Pipeline, command: &Command) -> Timestamp {
    let lines = pipeline.storage.lines_of_portal(&command.portal).await.unwrap_or_default();
    let settings =
        pick_line(&lines, command.body.line()).map_or_else(|_| LineSettings::default(), |line| line.settings.clone());
    guards::deadline(pipeline, command.received, &guards::of_command(command), &settings)
}

async fn plan_and_store(pipeline: &Pipeline, command: &Command, told: &FromCrm) -> Result<(), StorageError> {
    let messages = messages_of(pipeline, command, told).await?;
    store(pipeline, command, messages).await
}

/// What a command comes to, if that can be said without asking the CRM: it is then stored in the commit that takes the
/// command over. `None` leaves it to the queue.
pub(super) async fn plan_at_once(pipeline: &Pipeline, command: &Command) -> Option<Plan> {
    if command.body.needs_crm() {
        return None;
    }
    match messages_of(pipeline, command, &FromCrm::default()).await {
        Ok(messages) => Some(plan_of(command, messages)),
        Err(error) => {
            tracing::warn!(%error, command.id = %command.id, "a command could not be planned at once");
            None
        }
    }
}

async fn messages_of(pipeline: &Pipeline, command: &Command, told: &FromCrm) -> Result<Vec<NewMessage>, StorageError> {
    match &command.body {
        CommandBody::Invalid { failure } => Ok(vec![refused(pipeline, command, "", failure.clone())]),
        CommandBody::SendMessage(send) => plan_send(pipeline, command, send, told).await,
        // Carried out where its people were asked for; without that nothing was done.
        CommandBody::RenameChat(_) => Ok(told.done.clone()),
        CommandBody::TagDialog(wish) => tags::plan(pipeline, command, wish, &told.people).await,
        CommandBody::CheckPhone(check) => checks::plan(pipeline, command, check, &told.people).await,
        CommandBody::Answer(answer) => chats::plan(pipeline, command, answer).await,
    }
}

fn plan_of(command: &Command, messages: Vec<NewMessage>) -> Plan {
    Plan { command: command.id.clone(), waits: command.reply.is_some(), messages }
}

async fn store(pipeline: &Pipeline, command: &Command, messages: Vec<NewMessage>) -> Result<(), StorageError> {
    pipeline.storage.plan(plan_of(command, messages)).await.map(|_planned_before| ())
}

/// One person to write to.
pub(super) struct Recipient {
    /// As it was given: the ways to reach them, best first.
    pub(super) ways: Vec<Given>,
    /// Name for the address book.
    name: String,
}

async fn plan_send(
    pipeline: &Pipeline,
    command: &Command,
    send: &SendMessage,
    told: &FromCrm,
) -> Result<Vec<NewMessage>, StorageError> {
    let refuse = |failure: Failure| Ok(vec![refused(pipeline, command, "", failure)]);
    if send.recipients.source == RecipientSource::Group {
        return refuse(Failure::with(ErrorCode::Unsupported, "recipients: group"));
    }
    let send = match told.with_files(command, send) {
        Ok(send) => send,
        Err(failure) => return refuse(failure),
    };
    let name = format!("{} {}", send.first_name, send.last_name);
    let recipients = recipients_of(&send.recipients, name.trim(), &told.people);
    if recipients.is_empty() {
        return refuse(Failure::new(ErrorCode::NoRecipient));
    }
    let lines = pipeline.storage.lines_of_portal(&command.portal).await?;
    let line = match pick_line(&lines, &send.line) {
        Ok(line) => line,
        Err(failure) => return refuse(failure),
    };
    let channels = match channels_for(pipeline, line, send.messenger).await? {
        Ok(channels) => channels,
        Err(failure) => return refuse(failure),
    };
    let channels = match groups_only(pipeline, &send, channels) {
        Ok(channels) => channels,
        Err(failure) => return refuse(failure),
    };
    let rules = Rules::new(pipeline, command, &send.guards, line);
    let people: Vec<&[Given]> = recipients.iter().map(|recipient| recipient.ways.as_slice()).collect();
    let read = peers::resolve(pipeline, &people, &channels).await?;
    let last_wrote = match channels.len() {
        0 | 1 => HashMap::new(),
        _ => pipeline.storage.last_inbound(&pairs(&channels, &read)).await?,
    };
    let mut seen = HashSet::new();
    let mut messages = Vec::new();
    for (recipient, peers) in recipients.iter().zip(&read) {
        match choose(&channels, peers, &last_wrote) {
            Some((_, peer)) if send.to_group && !is_group(peer) => {
                let given = recipient.ways.first().map_or("", Given::text);
                messages.push(refused(pipeline, command, given, Failure::with(ErrorCode::NotInGroup, given)));
            }
            Some((channel, peer)) if seen.insert(peer.to_owned()) => {
                messages.extend(messages_for(pipeline, &rules, command, (&send, told), recipient, peer, channel));
            }
            Some(_the_same_person_again) => {}
            None => {
                let given = recipient.ways.first().map_or("", Given::text);
                let failure = peers.iter().find_map(|peer| peer.as_ref().err().cloned());
                let failure = failure.unwrap_or_else(|| Failure::new(ErrorCode::NoChannel));
                messages.push(refused(pipeline, command, given, failure));
            }
        }
    }
    Ok(messages)
}

/// Of the channels those that can write to groups, where a group is meant.
fn groups_only(
    pipeline: &Pipeline,
    send: &SendMessage,
    channels: Vec<Arc<Channel>>,
) -> Result<Vec<Arc<Channel>>, Failure> {
    if !send.to_group {
        return Ok(channels);
    }
    let spec = |channel: &Arc<Channel>| pipeline.provider_of(channel).map(|provider| provider.spec());
    let titles: Vec<&str> = channels.iter().filter_map(|channel| Some(spec(channel)?.title)).collect();
    let detail = titles.join(", ");
    let able: Vec<Arc<Channel>> =
        channels.into_iter().filter(|channel| spec(channel).is_some_and(|spec| spec.capabilities.groups)).collect();
    if able.is_empty() { Err(Failure::with(ErrorCode::Unsupported, detail)) } else { Ok(able) }
}

/// The people an action is about. `name` is the one the automation gave, which may be empty.
pub(super) fn recipients_of(recipients: &Recipients, name: &str, people: &[CardPerson]) -> Vec<Recipient> {
    match recipients.source {
        RecipientSource::Main | RecipientSource::All => people
            .iter()
            .map(|person| Recipient {
                ways: person.phones.iter().filter(|phone| !phone.is_empty()).cloned().map(Given::Phone).collect(),
                name: if name.is_empty() { person.name.clone() } else { name.to_owned() },
            })
            .filter(|recipient| !recipient.ways.is_empty())
            .collect(),
        RecipientSource::Given | RecipientSource::Group => {
            let phones = recipients.phones.iter().cloned().map(Given::Phone);
            let chats = recipients.chat_ids.iter().chain(&recipients.messenger_field).cloned();
            let ways = phones.chain(chats.map(Given::Chat));
            ways.map(|given| Recipient { ways: vec![given], name: name.to_owned() }).collect()
        }
    }
}

/// The line a robot names; the only one, when it names none.
pub(super) fn pick_line<'a>(lines: &'a [Line], wanted: &str) -> Result<&'a Line, Failure> {
    match (wanted, lines) {
        ("", [only]) => Ok(only),
        ("", []) => Err(Failure::new(ErrorCode::NoLine)),
        ("", several) => {
            let names: Vec<&str> = several.iter().map(|line| line.name.as_str()).collect();
            Err(Failure::with(ErrorCode::NoLine, names.join(", ")))
        }
        (wanted, known) => {
            let found = known.iter().find(|line| line.id.as_str() == wanted);
            found.ok_or_else(|| Failure::with(ErrorCode::NoLine, wanted))
        }
    }
}

/// Channels of a line for the chosen messenger, in the line's order of preference.
pub(super) async fn channels_for(
    pipeline: &Pipeline,
    line: &Line,
    messenger: Option<Messenger>,
) -> Result<Result<Vec<Arc<Channel>>, Failure>, StorageError> {
    let all = pipeline.storage.channels_of_line(&line.id).await?;
    let fits = |channel: &&Arc<Channel>| match (messenger, pipeline.provider_of(channel)) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(wanted), Some(provider)) => provider.spec().messenger == wanted,
    };
    let channels: Vec<Arc<Channel>> = all.iter().filter(fits).cloned().collect();
    if channels.is_empty() {
        let detail = messenger.map_or("", Messenger::title);
        return Ok(Err(Failure::with(ErrorCode::NoChannel, detail)));
    }
    Ok(Ok(channels))
}

/// Who is known where: channel and address.
fn pairs(channels: &[Arc<Channel>], people: &[Vec<Result<String, Failure>>]) -> Vec<(String, String)> {
    let of_person = |peers: &Vec<Result<String, Failure>>| {
        let known = channels.iter().zip(peers).filter_map(|(channel, peer)| Some((channel, peer.as_ref().ok()?)));
        known.map(|(channel, peer)| (channel.id.to_string(), peer.clone())).collect::<Vec<_>>()
    };
    people.iter().flat_map(of_person).collect()
}

/// Of the channels that reach the person: the one they last wrote to; otherwise the first that works; otherwise the first.
fn choose<'a>(
    channels: &'a [Arc<Channel>],
    peers: &'a [Result<String, Failure>],
    last_wrote: &HashMap<(String, String), Timestamp>,
) -> Option<(&'a Arc<Channel>, &'a str)> {
    let reach: Vec<(&Arc<Channel>, &str)> =
        channels.iter().zip(peers).filter_map(|(channel, peer)| Some((channel, peer.as_deref().ok()?))).collect();
    let wrote = |(channel, peer): &(&Arc<Channel>, &str)| {
        last_wrote.get(&(channel.id.to_string(), (*peer).to_owned())).copied()
    };
    let latest = reach.iter().filter(|way| wrote(way).is_some()).max_by_key(|way| wrote(way));
    let works = |way: &&(&Arc<Channel>, &str)| way.0.state == ChannelState::Active;
    latest.or_else(|| reach.iter().find(works)).or_else(|| reach.first()).copied()
}

/// The messages one recipient gets, in order.
fn messages_for(
    pipeline: &Pipeline,
    rules: &Rules<'_>,
    command: &Command,
    (send, told): (&SendMessage, &FromCrm),
    recipient: &Recipient,
    peer: &str,
    channel: &Arc<Channel>,
) -> Vec<NewMessage> {
    let Some(provider) = pipeline.provider_of(channel) else { return Vec::new() };
    let capabilities = provider.spec().capabilities;
    let contents = match told.check_sizes(&capabilities).and_then(|()| contents_of(send, &capabilities)) {
        Ok(contents) => contents,
        Err(failure) => {
            let mut message = refused(pipeline, command, peer, failure);
            message.record.channel = Some(channel.id.clone());
            return vec![message];
        }
    };
    let first_fallback = send.fallback.clone();
    let guards = rules.guards(peer, &contents);
    let mut messages: Vec<NewMessage> = contents
        .into_iter()
        .enumerate()
        .map(|(index, content)| {
            let mut message = blank(pipeline, command, peer);
            let seed = seed_of(message.record.id.as_str());
            message.record.channel = Some(channel.id.clone());
            message.record.draft = Draft {
                // A template stands in for the whole, so only the first part has one.
                fallback: first_fallback.clone().filter(|_| index == 0),
                recipient_name: recipient.name.clone(),
                ..Draft::of(vary(content, seed))
            };
            message
        })
        .collect();
    rules.put_on(&mut messages, peer, &guards, pipeline.clock.now());
    messages
}

/// Puts text, files and template into the parts the messenger takes.
///
/// # Errors
/// The [`Failure`] that a card or caller is told: what the messenger does not take, with its limit.
pub(crate) fn contents_of(send: &SendMessage, capabilities: &Capabilities) -> Result<Vec<Content>, Failure> {
    if let Some(call) = &send.template {
        if !capabilities.templates {
            return Err(Failure::with(ErrorCode::Unsupported, call.template.label()));
        }
        let mut call = call.clone();
        if call.files.is_empty() {
            call.files.clone_from(&send.files);
        }
        return Ok(vec![Content::Template(call)]);
    }
    let mut text = send.text.clone();
    let mut files = Vec::new();
    for (index, link) in send.files.iter().enumerate() {
        let reachable = link.starts_with("https://") || link.starts_with("http://") || FileLink::parse(link).is_some();
        if !reachable {
            return Err(Failure::with(ErrorCode::FileType, link.chars().take(100).collect::<String>()));
        }
        let media = MediaKind::of_name(link);
        if !capabilities.media_by_link.contains(&media) {
            return Err(Failure::with(ErrorCode::Unsupported, file_name(link)));
        }
        let mut caption = if index == 0 { send.caption.clone() } else { String::new() };
        let can_caption = capabilities.captions.contains(&media);
        let alone = send.files.len() == 1 && caption.is_empty();
        if alone && can_caption && !text.is_empty() && capabilities.text_unit.length(&text) <= capabilities.caption_max
        {
            caption = std::mem::take(&mut text);
        }
        if !caption.is_empty() && !can_caption {
            // Sound has no caption: the words go before it.
            text = if text.is_empty() { std::mem::take(&mut caption) } else { format!("{text}\n{caption}") };
            caption.clear();
        }
        let length = capabilities.text_unit.length(&caption);
        if length > capabilities.caption_max {
            return Err(Failure::with(ErrorCode::TooLong, format!("{length} / {}", capabilities.caption_max)));
        }
        files.push(Content::Media { media, filename: file_name(link), link: link.clone(), caption });
    }
    let length = capabilities.text_unit.length(&text);
    if length > capabilities.text_max {
        return Err(Failure::with(ErrorCode::TooLong, format!("{length} / {}", capabilities.text_max)));
    }
    let mut contents = Vec::new();
    if !text.is_empty() {
        contents.push(Content::Text { body: text });
    }
    contents.extend(files);
    if contents.is_empty() {
        return Err(Failure::new(ErrorCode::NoContent));
    }
    Ok(contents)
}

/// Picks the variants of `{a|b}` in what the author wrote.
fn vary(content: Content, seed: u64) -> Content {
    match content {
        Content::Text { body } => Content::Text { body: pick_variants(&body, seed) },
        Content::Media { media, link, caption, filename } => {
            Content::Media { media, link, caption: pick_variants(&caption, seed), filename }
        }
        Content::Template(mut call) => {
            call.params = call.params.iter().map(|param| pick_variants(param, seed)).collect();
            Content::Template(call)
        }
        Content::Deed(deed) => Content::Deed(deed),
    }
}

/// The last part of an address's path.
fn file_name(link: &str) -> String {
    let path = link.split(['?', '#']).next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default().chars().take(200).collect()
}

pub(super) fn blank(pipeline: &Pipeline, command: &Command, peer: &str) -> NewMessage {
    let mut message = queued(pipeline, peer, command.received);
    message.record.portal = Some(command.portal.clone());
    message.record.command = Some(command.id.clone());
    message.record.card = command.card;
    message.record.responsible.clone_from(&command.responsible);
    message.comments = command.comment;
    message
}

/// A message to `peer` that waits for its content and its channel, and that no CRM asked for.
pub(super) fn queued(pipeline: &Pipeline, peer: &str, received: Timestamp) -> NewMessage {
    let record = MessageRecord {
        id: MessageId::new(&pipeline.ids.ulid()),
        channel: None,
        messenger: None,
        peer: peer.to_owned(),
        portal: None,
        command: None,
        card: None,
        draft: Draft::of(Content::Text { body: String::new() }),
        used_fallback: false,
        state: MessageState::Queued,
        provider_id: None,
        failure: None,
        vendor_code: String::new(),
        comment: None,
        responsible: None,
        silence: None,
        times: MessageTimes { created: received, entered: received, ..MessageTimes::default() },
    };
    NewMessage {
        record,
        comments: false,
        not_after: Some(pipeline.deadline(received)),
        due: None,
        guards: MessageGuards::default(),
        answer: false,
    }
}

/// A recipient that cannot be written to: a message that has failed already, so that card and robot hear of it the
/// same way as of any other.
pub(super) fn refused(pipeline: &Pipeline, command: &Command, peer: &str, failure: Failure) -> NewMessage {
    let mut message = blank(pipeline, command, &peer.chars().take(100).collect::<String>());
    message.record.state = MessageState::Failed;
    message.record.failure = Some(failure);
    let text = |body: String| Content::Text { body };
    match &command.body {
        CommandBody::SendMessage(send) => {
            let template = send.template.clone().map(Content::Template);
            message.record.draft.content = template.unwrap_or_else(|| text(send.text.clone()));
        }
        CommandBody::RenameChat(rename) => {
            message.record.draft.content = Content::Deed(Deed::RenameChat { name: rename.name.clone() });
        }
        CommandBody::TagDialog(wish) => {
            let (add, remove) = (wish.add.clone(), wish.remove.clone());
            message.record.draft.content = Content::Deed(Deed::TagDialog { add, remove, tags: Vec::new() });
        }
        CommandBody::CheckPhone(_) => {
            message.record.draft.content = Content::Deed(Deed::CheckPhone(PhoneEvidence::default()));
        }
        CommandBody::Answer(answer) => message.record.draft.content = text(answer.text.plain()),
        CommandBody::Invalid { .. } => {}
    }
    message
}
