//! Messages: adding them, moving them up, reading them back.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::db::{Arg, Row, Tx, args};
use super::guards::MessageGuards;
use super::mirrors::{self, Left};
use super::progress::CommentTarget;
use super::troubles::{self, Troubled};
use super::writer::{Context, Harvest, add_jobs};
use super::{Storage, StorageError, progress, sql};
use crate::domain::ids::{ChannelId, CommandId, CrmCommentId, CrmUserId, MessageId, PortalId, ProviderMessageId};
use crate::domain::message::{Content, Draft, MessageRecord, MessageTimes, Silence};
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::portal::CardRef;
use crate::domain::status::MessageState;
use crate::domain::time::{Millis, Timestamp};

/// A message about to be stored.
#[derive(Clone, PartialEq, Debug)]
pub struct NewMessage {
    /// The message; `state` is `Queued`, or `Failed` with a failure, or `Sent` for a deed that is done.
    pub record: MessageRecord,
    /// Whether its card gets a comment.
    pub comments: bool,
    /// Not to be sent after this.
    pub not_after: Option<Timestamp>,
    /// Not to be sent before this; `None` is at once.
    pub due: Option<Timestamp>,
    /// What is asked of earlier messages before it is stored.
    pub guards: MessageGuards,
    /// An operator has just written it by hand.
    pub answer: bool,
}

impl NewMessage {
    pub(super) fn comment_target(&self) -> Option<CommentTarget> {
        let portal = self.record.portal.clone().filter(|_| self.comments)?;
        let (message, card) = (self.record.id.clone(), self.record.card?.to_string());
        Some(CommentTarget { message, portal, card, on_the_way: false })
    }
}

/// News that moves a message.
#[derive(Clone, PartialEq, Debug)]
pub struct MessageNews {
    /// Which message.
    pub id: MessageId,
    /// The channel the news came from; `None` for our own.
    pub channel: Option<ChannelId>,
    /// The step reached.
    pub state: MessageState,
    /// When.
    pub at: Timestamp,
    /// The vendor's id, if told.
    pub provider_id: Option<ProviderMessageId>,
    /// Why, for a failure.
    pub failure: Option<Failure>,
    /// The vendor's code of the failure; may be empty.
    pub vendor_code: String,
    /// True when the fallback template was sent.
    pub used_fallback: bool,
    /// True when the vendor will tell nothing more of the message, so that nothing is awaited of it.
    pub last: bool,
}

impl MessageNews {
    /// News without particulars.
    #[must_use]
    pub fn new(id: MessageId, state: MessageState, at: Timestamp) -> Self {
        Self {
            id,
            channel: None,
            state,
            at,
            provider_id: None,
            failure: None,
            vendor_code: String::new(),
            used_fallback: false,
            last: false,
        }
    }
}

/// One try, for the journal.
#[derive(Clone, PartialEq, Debug)]
pub struct Attempt {
    /// Id of the job.
    pub job: String,
    /// The message, if the job was about one.
    pub message: Option<MessageId>,
    /// When it began.
    pub at: Timestamp,
    /// How long it took.
    pub duration: Millis,
    /// `ok`, or the class of the failure.
    pub outcome: String,
    /// Class of the failure.
    pub failure_class: Option<String>,
    /// The vendor's code; may be empty.
    pub vendor_code: String,
    /// The vendor's words; cut to 2,000 characters when stored.
    pub raw: String,
}

/// A message with everything the API shows of it.
#[derive(Clone, PartialEq, Debug)]
pub struct MessageHistory {
    /// The message.
    pub record: MessageRecord,
    /// True when a person wrote it.
    pub inbound: bool,
    /// Raw stored content of an inbound message.
    pub inbound_content: Option<String>,
}

pub(super) async fn add(tx: &mut Tx, now: Timestamp, new: &[&NewMessage]) -> Result<(), StorageError> {
    let mut rows = Vec::with_capacity(new.len());
    for message in new {
        let record = &message.record;
        let content = serde_json::to_string(&record.draft).map_err(|e| StorageError::Broken(e.to_string()))?;
        let failed_at = (record.state == MessageState::Failed).then_some(now.0);
        rows.push(args![
            record.id.as_str(),
            false,
            record.channel.as_ref().map(ToString::to_string),
            record.peer.as_str(),
            record.portal.as_ref().map(ToString::to_string),
            record.command.as_ref().map(ToString::to_string),
            record.card.map(|card| card.to_string()),
            message.comments,
            record.responsible.as_ref().map(ToString::to_string),
            content,
            false,
            record.state.code(),
            record.state.rank(),
            None::<String>,
            record.failure.as_ref().map(|failure| failure.code.code().to_owned()),
            record.failure.as_ref().map(|failure| failure.detail.clone()),
            record.times.created.0,
            failed_at,
            None::<i64>,
            now.0,
            record.state.is_awaited(),
        ]);
    }
    tx.batch(sql::MESSAGES_ADD, rows).await?;
    Ok(())
}

/// Messages that no command of ours asked for: a provider told of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    /// A person wrote it.
    Inbound,
    /// Somebody of ours typed it on the sender's own phone.
    Typed,
}

/// The row of such a message for [`sql::MESSAGES_ADD`]: between a channel and a person, known to the vendor since then.
pub(super) fn told_row(
    id: &MessageId,
    (channel, peer): (&ChannelId, &str),
    told: Told,
    (provider_id, at): (&ProviderMessageId, Timestamp),
    content: String,
    now: Timestamp,
) -> Vec<Arg> {
    let (inbound, state, rank) = match told {
        Told::Inbound => (true, "received", 0),
        Told::Typed => (false, MessageState::Sent.code(), MessageState::Sent.rank()),
    };
    args![
        id.as_str(),
        inbound,
        Some(channel.to_string()),
        peer,
        None::<String>,
        None::<String>,
        None::<String>,
        false,
        None::<String>,
        content,
        false,
        state,
        rank,
        Some(provider_id.to_string()),
        None::<String>,
        None::<String>,
        now.0,
        None::<i64>,
        Some(at.0),
        now.0,
        told == Told::Typed,
    ]
}

/// Moves messages up, keeps the times of late news, and lets comments and commands follow.
pub(super) async fn move_up(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    news: &[&MessageNews],
    harvest: &mut Harvest,
) -> Result<(), StorageError> {
    let (notes, news): (Vec<&MessageNews>, Vec<&MessageNews>) =
        news.iter().partition(|item| item.state == MessageState::Queued);
    note(tx, context, now, &notes, harvest).await?;
    for round in rounds(&news) {
        move_once(tx, context, now, &round, harvest).await?;
    }
    Ok(())
}

/// Splits news so that merging those of one message says the same as hearing them one after the other: what comes behind
/// a failure counts if the message had got too far to fail.
fn rounds<'a>(news: &[&'a MessageNews]) -> Vec<Vec<&'a MessageNews>> {
    let mut rounds: Vec<Vec<&MessageNews>> = Vec::new();
    let mut last: BTreeMap<&str, (usize, bool)> = BTreeMap::new();
    for item in news {
        let (round, ended) = last.entry(item.id.as_str()).or_default();
        *round += usize::from(*ended);
        *ended = matches!(item.state, MessageState::Failed | MessageState::Cancelled);
        if rounds.len() <= *round {
            rounds.push(Vec::new());
        }
        if let Some(place) = rounds.get_mut(*round) {
            place.push(item);
        }
    }
    rounds
}

async fn move_once(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    news: &[&MessageNews],
    harvest: &mut Harvest,
) -> Result<(), StorageError> {
    let merged = merge(news);
    let rows = merged.values().map(|step| step.move_row(now)).collect();
    let mut moved = HashSet::new();
    let mut comments = Vec::new();
    let mut commands = BTreeSet::new();
    let mut echoes: BTreeMap<String, i64> = BTreeMap::new();
    let (mut left, mut troubled) = (Vec::new(), Vec::new());
    for row in tx.batch_rows(sql::MESSAGES_MOVE, rows).await? {
        let id = row.text("id")?;
        let state = MessageState::find(&row.text("state")?);
        let accepted = row.maybe_int("accepted_ms")?;
        if let Some(step) = merged.get(id.as_str())
            && let (Some(channel), Some(accepted)) = (&step.news.channel, accepted)
        {
            let latest = echoes.entry(channel.to_string()).or_insert(accepted);
            *latest = accepted.max(*latest);
        }
        let own = merged.get(id.as_str()).is_some_and(|step| step.news.channel.is_none());
        left.extend(Left::of(&row, own)?);
        troubled.extend(Troubled::of(&row)?);
        if let Some(command) = row.maybe_text("command_id")? {
            commands.insert(command);
        }
        // A card that was told of a silence must hear that it is over.
        let silent = row.maybe_int("silent_ms")?.is_some();
        let quiet = state == Some(MessageState::Sent) && accepted.is_some() && !silent;
        let on_the_way = matches!(state, Some(MessageState::Accepted | MessageState::Sent | MessageState::Delivered));
        comments
            .extend(CommentTarget::of(&row)?.filter(|_| !quiet).map(|target| CommentTarget { on_the_way, ..target }));
        moved.insert(id);
    }
    let late = merged.values().filter(|step| !moved.contains(step.news.id.as_str())).filter_map(Merged::late_row);
    tx.batch(sql::MESSAGES_LATE, late.collect()).await?;
    tx.batch(sql::CHANNELS_ECHO, echoes.into_iter().map(|(channel, at)| args![channel, at]).collect()).await?;
    mirrors::ask(tx, context, now, left, harvest).await?;
    troubles::ask(tx, context, now, troubled, harvest).await?;
    progress::ask_comments(tx, context, now, comments.into_iter(), harvest).await?;
    progress::commands(tx, context, now, commands, harvest).await
}

/// Keeps with waiting messages why they wait, and lets their comments say so.
async fn note(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    notes: &[&MessageNews],
    harvest: &mut Harvest,
) -> Result<(), StorageError> {
    let row = |news: &&MessageNews| {
        let failure = news.failure.as_ref()?;
        Some(args![news.id.as_str(), failure.code.code(), failure.detail.as_str(), news.vendor_code.as_str()])
    };
    let mut targets = Vec::new();
    for row in tx.batch_rows(sql::MESSAGES_NOTE, notes.iter().filter_map(row).collect()).await? {
        targets.extend(CommentTarget::of(&row)?);
    }
    progress::ask_comments(tx, context, now, targets.into_iter(), harvest).await
}

/// All news of one message in a batch: the highest step, and the time of each.
struct Merged<'a> {
    news: &'a MessageNews,
    accepted: Option<i64>,
    sent: Option<i64>,
    delivered: Option<i64>,
    read: Option<i64>,
    provider_id: Option<&'a ProviderMessageId>,
}

fn merge<'a>(news: &[&'a MessageNews]) -> BTreeMap<&'a str, Merged<'a>> {
    let mut merged: BTreeMap<&str, Merged<'a>> = BTreeMap::new();
    for item in news {
        let step = merged.entry(item.id.as_str()).or_insert(Merged {
            news: item,
            accepted: None,
            sent: None,
            delivered: None,
            read: None,
            provider_id: None,
        });
        if step.news.state.advance(item.state) == item.state {
            step.news = item;
        }
        step.provider_id = step.provider_id.or(item.provider_id.as_ref());
        let at = Some(item.at.0);
        match item.state {
            MessageState::Accepted => step.accepted = step.accepted.or(at),
            MessageState::Sent => step.sent = step.sent.or(at),
            MessageState::Delivered => step.delivered = step.delivered.or(at),
            MessageState::Read => step.read = step.read.or(at),
            MessageState::Queued | MessageState::Undecided | MessageState::Failed | MessageState::Cancelled => {}
        }
    }
    merged
}

impl Merged<'_> {
    fn move_row(&self, now: Timestamp) -> Vec<Arg> {
        let news = self.news;
        let ended = matches!(news.state, MessageState::Failed | MessageState::Cancelled);
        args![
            news.id.as_str(),
            news.channel.as_ref().map(ToString::to_string),
            news.state.code(),
            news.state.rank(),
            news.state.enters_below(),
            self.accepted,
            self.sent,
            self.delivered,
            self.read,
            ended.then_some(news.at.0),
            self.provider_id.map(ToString::to_string),
            news.failure.as_ref().map(|failure| failure.code.code().to_owned()),
            news.failure.as_ref().map(|failure| failure.detail.clone()),
            Some(news.vendor_code.clone()).filter(|code| !code.is_empty()),
            news.used_fallback,
            now.0,
            if news.last { Silence::Closed.code() } else { "" },
            news.state.is_awaited() && !news.last,
        ]
    }

    fn late_row(&self) -> Option<Vec<Arg>> {
        let told = self.accepted.or(self.sent).or(self.delivered).or(self.read).is_some() || self.provider_id.is_some();
        told.then(|| {
            args![
                self.news.id.as_str(),
                self.news.channel.as_ref().map(ToString::to_string),
                self.accepted,
                self.sent,
                self.delivered,
                self.read,
                self.provider_id.map(ToString::to_string),
            ]
        })
    }
}

/// Writes tries into the journal.
pub(super) async fn journal<'a>(
    tx: &mut Tx,
    context: &Context,
    attempts: impl Iterator<Item = &'a Attempt>,
) -> Result<(), StorageError> {
    const RAW_MAX: usize = 2000;
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let rows = attempts
        .map(|attempt| {
            args![
                format!("att_{}", context.ids.ulid()),
                attempt.job.as_str(),
                attempt.message.as_ref().map(ToString::to_string),
                attempt.at.0,
                attempt.duration.0,
                attempt.outcome.as_str(),
                attempt.failure_class.clone(),
                some(&attempt.vendor_code),
                some(&attempt.raw.chars().take(RAW_MAX).collect::<String>()),
            ]
        })
        .collect();
    tx.batch(sql::ATTEMPTS_ADD, rows).await?;
    Ok(())
}

/// Reads an outgoing message; an inbound one gets an empty draft, its content is read apart.
pub(super) fn read(row: &Row) -> Result<MessageHistory, StorageError> {
    let content = row.text("content")?;
    let inbound = row.flag("inbound")?;
    let draft = if inbound {
        Draft::of(Content::Text { body: String::new() })
    } else {
        serde_json::from_str(&content).map_err(|e| StorageError::Broken(format!("messages.content: {e}")))?
    };
    let at = |column: &str| Ok::<_, StorageError>(row.maybe_int(column)?.map(Timestamp));
    let code = row.maybe_text("error_code")?;
    let failure = code.map(|code| Failure {
        // A code written by a newer version reads as a plain refusal.
        code: ErrorCode::find(&code).unwrap_or(ErrorCode::Rejected),
        detail: row.maybe_text("error_detail").ok().flatten().unwrap_or_default(),
    });
    let record = MessageRecord {
        id: MessageId::stored(row.text("id")?),
        channel: row.maybe_text("channel_id")?.map(ChannelId::stored),
        messenger: None,
        peer: row.text("peer")?,
        portal: row.maybe_text("portal_id")?.map(PortalId::stored),
        command: row.maybe_text("command_id")?.map(CommandId::stored),
        card: row.maybe_text("card")?.and_then(|card| CardRef::parse(&card)),
        draft,
        used_fallback: row.flag("used_fallback")?,
        // Inbound messages are not in a state of ours; they count as read by us.
        state: MessageState::find(&row.text("state")?).unwrap_or(MessageState::Read),
        provider_id: row.maybe_text("provider_id")?.map(ProviderMessageId),
        failure,
        vendor_code: row.maybe_text("vendor_code")?.unwrap_or_default(),
        comment: row.maybe_text("comment_id")?.map(CrmCommentId),
        responsible: row.maybe_text("responsible")?.map(CrmUserId),
        silence: Silence::find(&row.text("silence")?),
        times: MessageTimes {
            created: Timestamp(row.int("created_ms")?),
            entered: Timestamp(row.int("changed_ms")?),
            accepted: at("accepted_ms")?,
            sent: at("sent_ms")?,
            delivered: at("delivered_ms")?,
            read: at("read_ms")?,
            failed: at("failed_ms")?,
            silent: at("silent_ms")?,
        },
    };
    Ok(MessageHistory { record, inbound, inbound_content: inbound.then_some(content) })
}

/// Sorts behind every id of a message, in every language's order.
const BEHIND_ALL: &str = "n";

/// Which messages to list; what is `None` does not narrow.
#[derive(Clone, Debug, Default)]
pub struct MessageFilter {
    /// The person's address.
    pub peer: Option<String>,
    /// The channel.
    pub channel: Option<ChannelId>,
    /// The state's word, or `received`.
    pub state: Option<String>,
    /// Only messages older than this one (the last of the page before).
    pub before: Option<MessageId>,
    /// Most entries.
    pub limit: u32,
}

/// What became of a message given through the API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Created {
    /// It is queued under this id.
    New(MessageId),
    /// The same key and content came before; this is the message of then.
    Known(MessageId),
    /// The key came before with another content.
    Conflict,
}

impl Storage {
    /// One message.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn find_message(&self, id: &MessageId) -> Result<Option<MessageHistory>, StorageError> {
        self.db.row(sql::MESSAGE_GET, args![id.as_str()]).await?.map(|row| read(&row)).transpose()
    }

    /// Outgoing messages by id, in no order.
    ///
    /// # Errors
    /// [`StorageError`].
    #[tracing::instrument(name = "storage.load_messages", target = "mostik::span", skip_all)]
    pub async fn load_messages(&self, ids: &[MessageId]) -> Result<Vec<MessageRecord>, StorageError> {
        let rows = ids.iter().map(|id| args![id.as_str()]).collect();
        let rows = self.db.batch_rows(sql::MESSAGES_BY_ID, rows).await?;
        rows.iter().map(|row| Ok(read(row)?.record)).collect()
    }

    /// History, newest first.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn list_messages(&self, filter: &MessageFilter) -> Result<Vec<MessageHistory>, StorageError> {
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        let mut args = args![
            text(filter.channel.as_ref().map(ChannelId::as_str)),
            text(filter.state.as_deref()),
            filter.before.as_ref().map_or(BEHIND_ALL, MessageId::as_str),
            i64::from(filter.limit),
        ];
        let mut statement = sql::MESSAGES_LIST;
        if let Some(peer) = &filter.peer {
            statement = sql::MESSAGES_OF_PEER;
            args.extend(args![peer.as_str()]);
        }
        self.db.rows(statement, args).await?.iter().map(read).collect()
    }

    /// Every try of a message, oldest first.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn attempts(&self, id: &MessageId) -> Result<Vec<Attempt>, StorageError> {
        let rows = self.db.rows(sql::ATTEMPTS_OF_MESSAGE, args![id.as_str()]).await?;
        rows.iter()
            .map(|row| {
                Ok(Attempt {
                    job: String::new(),
                    message: Some(id.clone()),
                    at: Timestamp(row.int("at_ms")?),
                    duration: Millis(row.int("duration_ms")?),
                    outcome: row.text("outcome")?,
                    failure_class: row.maybe_text("failure_class")?,
                    vendor_code: row.maybe_text("vendor_code")?.unwrap_or_default(),
                    raw: row.maybe_text("raw")?.unwrap_or_default(),
                })
            })
            .collect()
    }

    /// Takes a message from the API over. `key` is the caller's idempotency key and `fingerprint` stands for the
    /// content, so that a repeated call is recognised and a reused key is refused.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was stored.
    #[tracing::instrument(name = "storage.create_message", target = "mostik::span", skip_all)]
    pub async fn create_message(
        &self,
        new: NewMessage,
        key: Option<(String, String)>,
    ) -> Result<Created, StorageError> {
        use super::writer::{Outcome, Step};
        match self.writer.write(Step::Create(Box::new(Create { new, key }))).await? {
            Outcome::Create(created) => Ok(created),
            _ => Err(StorageError::Broken("create: wrong outcome".to_owned())),
        }
    }
}

/// The step behind [`Storage::create_message`].
#[derive(Clone, Debug)]
pub(super) struct Create {
    new: NewMessage,
    key: Option<(String, String)>,
}

pub(super) async fn write_create(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    create: &Create,
    harvest: &mut Harvest,
) -> Result<Created, StorageError> {
    let id = create.new.record.id.clone();
    if let Some((key, fingerprint)) = &create.key {
        let args = args![key.as_str(), fingerprint.as_str(), id.as_str(), now.0];
        if tx.exec(sql::API_REQUEST_ADD, args).await? == 0 {
            let known = tx.row(sql::API_REQUEST_GET, args![key.as_str()]).await?;
            let known = known.ok_or_else(|| StorageError::Broken("api_requests: key vanished".to_owned()))?;
            let same = known.text("fingerprint")? == *fingerprint;
            let message = MessageId::stored(known.text("message_id")?);
            return Ok(if same { Created::Known(message) } else { Created::Conflict });
        }
    }
    add(tx, now, &[&create.new]).await?;
    add_jobs(tx, now, super::plan::sends(context, now, &[&create.new]), harvest).await?;
    Ok(Created::New(id))
}
