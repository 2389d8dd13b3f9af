//! Chats in CRMs: where they stand, which dialogs have one, and what is still to be shown there.

use std::collections::{BTreeMap, HashMap};

use super::db::{Row, Tx, args};
use super::writer::{Context, Harvest, Queued, Work, add_jobs};
use super::{Storage, StorageError, sql};
use crate::domain::channel::Messenger;
use crate::domain::chat::{ChatKey, ChatLine, ChatPost, OperatorMessage};
use crate::domain::command::Command;
use crate::domain::event::{InboundContent, Received};
use crate::domain::ids::{ChannelId, LineId, MessageId, PortalId, ProviderMessageId};
use crate::domain::job::{Job, JobKind, QueueKey};
use crate::domain::message::Draft;
use crate::domain::text::excerpt;
use crate::domain::time::{Millis, Timestamp};

/// How long an operator's message waits for one written before it whose event is late: the CRM's events overtake each
/// other, and the client must read them in the order they were written.
const ORDER_WINDOW: Millis = Millis(700);

/// What became of a wish to have a line's chats in a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Connected {
    /// They stand there now.
    Yes,
    /// They stand in another portal already.
    Elsewhere,
}

/// A message of a client that has just been stored.
pub(super) struct Arrived<'a> {
    pub(super) channel: &'a ChannelId,
    pub(super) peer: &'a str,
    pub(super) messenger: Messenger,
    pub(super) message: MessageId,
}

impl Storage {
    /// Lets the chats of a line and messenger stand in a place, and nowhere else from now on. What stood in that place
    /// before gives way.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was changed.
    pub async fn connect_chats(&self, line: &ChatLine) -> Result<Connected, StorageError> {
        let mut tx = self.db.begin().await?;
        let (messenger, portal) = (line.messenger.code(), line.portal.as_str());
        let elsewhere = tx.row(sql::CHAT_LINE_ELSEWHERE, args![line.line.as_str(), messenger, portal]).await?;
        if elsewhere.is_some() {
            return Ok(Connected::Elsewhere);
        }
        tx.exec(sql::CHAT_LINE_MOVE_AWAY, args![line.line.as_str(), messenger, portal, line.place.as_str()]).await?;
        let args = args![portal, messenger, line.place.as_str(), line.line.as_str(), self.clock.now().0];
        tx.exec(sql::CHAT_LINE_PUT, args).await?;
        tx.commit().await?;
        Ok(Connected::Yes)
    }

    /// The chats of a messenger no longer stand in this place; false when none did.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was changed.
    pub async fn disconnect_chats(
        &self,
        portal: &PortalId,
        messenger: Messenger,
        place: &str,
    ) -> Result<bool, StorageError> {
        let args = args![portal.as_str(), messenger.code(), place];
        Ok(self.db.write(sql::CHAT_LINE_DROP, args).await? > 0)
    }

    /// The place is gone in the CRM, and every messenger's chats with it; tells how many there were.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was changed.
    pub async fn forget_place(&self, portal: &PortalId, place: &str) -> Result<u64, StorageError> {
        self.db.write(sql::CHAT_PLACE_DROP, args![portal.as_str(), place]).await
    }

    /// Where chats stand in a portal, by messenger and place.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn chat_lines(&self, portal: &PortalId) -> Result<Vec<ChatLine>, StorageError> {
        self.db.rows(sql::CHAT_LINES_OF_PORTAL, args![portal.as_str()]).await?.iter().map(read_line).collect()
    }

    /// Where the chats of a line and messenger stand; `None` when they stand nowhere, or in a portal that has removed the
    /// application.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn chat_line_of(&self, line: &LineId, messenger: Messenger) -> Result<Option<ChatLine>, StorageError> {
        let row = self.db.row(sql::CHAT_LINE_OF_LINE, args![line.as_str(), messenger.code()]).await?;
        row.as_ref().map(read_line).transpose()
    }

    /// First words of messages by channel and the vendor's id, whoever wrote them.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn quotes(
        &self,
        messages: &[(ChannelId, ProviderMessageId)],
    ) -> Result<HashMap<(ChannelId, ProviderMessageId), String>, StorageError> {
        const LENGTH: usize = 80;
        let rows = messages.iter().map(|(channel, id)| args![channel.as_str(), id.as_str()]).collect();
        let mut quotes = HashMap::new();
        for row in self.db.batch_rows(sql::CHAT_QUOTES, rows).await? {
            let key = (ChannelId::stored(row.text("channel_id")?), ProviderMessageId(row.text("provider_id")?));
            let stored = row.text("content")?;
            // What a newer version wrote, or nobody knows any more, is quoted without words.
            let words = if row.flag("inbound")? {
                serde_json::from_str::<InboundContent>(&stored).map(|content| content.words())
            } else {
                serde_json::from_str::<Draft>(&stored).map(|draft| draft.content.excerpt())
            };
            quotes.insert(key, excerpt(&words.unwrap_or_default(), LENGTH));
        }
        Ok(quotes)
    }

    /// What clients wrote, to be shown in their chats; messages without a chat are left out.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn chat_posts(&self, messages: &[MessageId]) -> Result<HashMap<MessageId, ChatPost>, StorageError> {
        let rows = messages.iter().map(|id| args![id.as_str()]).collect();
        let mut posts = HashMap::new();
        for row in self.db.batch_rows(sql::CHAT_POSTS, rows).await? {
            let post = read_post(&row)?;
            posts.insert(post.message.clone(), post);
        }
        Ok(posts)
    }
}

fn read_messenger(row: &Row) -> Result<Messenger, StorageError> {
    let word = row.text("messenger")?;
    Messenger::find(&word).ok_or_else(|| StorageError::Broken(format!("chats.messenger: {word}")))
}

fn read_line(row: &Row) -> Result<ChatLine, StorageError> {
    Ok(ChatLine {
        portal: PortalId::stored(row.text("portal_id")?),
        messenger: read_messenger(row)?,
        place: row.text("place")?,
        line: LineId::stored(row.text("line_id")?),
    })
}

fn read_post(row: &Row) -> Result<ChatPost, StorageError> {
    let content = row.text("content")?;
    let received: Received = serde_json::from_str(&content)
        .map_err(|e| StorageError::Broken(format!("messages.content of a client: {e}")))?;
    let of = received.of().cloned();
    Ok(ChatPost { of, ..post_of(row, received.content)? })
}

/// What is to be shown of a message, with its chat.
pub(super) fn post_of(row: &Row, content: InboundContent) -> Result<ChatPost, StorageError> {
    Ok(ChatPost {
        message: MessageId::stored(row.text("id")?),
        chat: ChatKey { channel: ChannelId::stored(row.text("channel_id")?), peer: row.text("peer")? },
        messenger: read_messenger(row)?,
        place: row.text("place")?,
        crm_chat: Some(row.text("crm_chat")?).filter(|number| !number.is_empty()),
        crm_person: Some(row.text("crm_person")?).filter(|person| !person.is_empty()),
        name: row.text("name")?,
        provider_id: ProviderMessageId(row.maybe_text("provider_id")?.unwrap_or_default()),
        at: Timestamp(row.int("at_ms")?),
        author: None,
        content,
        of: None,
        quote: None,
        file: None,
        maybe_shown: false,
    })
}

/// The lane of a chat towards its CRM: what a client wrote is shown in order.
pub(super) fn lane_of(chat: &ChatKey) -> String {
    format!("chat:{chat}")
}

/// Orders a chat by the vendor's time and then by arrival: callbacks overtake each other, and one that failed comes again
/// later. The id of a client's message begins with that time (`ingest`).
fn place_in_time(message: &MessageId, arrival: &str) -> String {
    const TIME: usize = 10;
    let body = message.as_str().get(MessageId::PREFIX.len()..).unwrap_or_default();
    format!("{}{arrival}", body.get(..TIME).unwrap_or_default())
}

/// The same for what happens now.
pub(super) fn place_now(context: &Context) -> String {
    const TIME: usize = 10;
    let now = context.ids.ulid();
    format!("{}{now}", now.get(..TIME).unwrap_or_default())
}

/// Asks for new messages of clients to be shown, where their dialogs have a chat or get one now. In the commit that stores
/// them, so that none is forgotten.
pub(super) async fn ask_posts(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    arrived: &[Arrived<'_>],
    harvest: &mut Harvest,
) -> Result<(), StorageError> {
    if arrived.is_empty() {
        return Ok(());
    }
    let dialogs: BTreeMap<(&str, &str), Messenger> =
        arrived.iter().map(|new| ((new.channel.as_str(), new.peer), new.messenger)).collect();
    let rows = dialogs.iter().map(|((channel, peer), messenger)| args![*channel, *peer, messenger.code(), now.0]);
    let mut portals = HashMap::new();
    for row in tx.batch_rows(sql::CHATS_OPEN, rows.collect()).await? {
        let key = (row.text("channel_id")?, row.text("peer")?);
        portals.insert(key, PortalId::stored(row.text("portal_id")?));
    }
    let mut jobs = Vec::new();
    for new in arrived {
        let Some(portal) = portals.get(&(new.channel.to_string(), new.peer.to_owned())) else { continue };
        let chat = ChatKey { channel: new.channel.clone(), peer: new.peer.to_owned() };
        let (queue, seq) = (QueueKey::Crm(portal.clone()), place_in_time(&new.message, &context.ids.ulid()));
        let job = Job::new(JobKind::Chat, new.message.as_str(), queue, lane_of(&chat), seq, now);
        jobs.push(Queued { job, work: Work::Stored });
    }
    add_jobs(tx, now, jobs, harvest).await
}

/// The job of an operator's message: it waits a moment for what was written before it, and stands in its chat's lane in
/// the CRM's own order.
pub(super) fn job_of(command: &Command, answer: &OperatorMessage, now: Timestamp) -> Job {
    // Behind the message it is about, and one change behind the other; of the same second, as they came.
    let place = answer.change.as_ref().map(|change| format!(":{:015}:{}", change.raised.0, command.id));
    let seq = format!("{}{}", answer.place_in_chat(), place.unwrap_or_default());
    let queue = QueueKey::Intake(command.portal.clone());
    let due = now.plus(ORDER_WINDOW);
    Job::new(JobKind::Command, command.id.as_str(), queue, lane_of(&answer.chat), seq, due)
}

/// Remembers the CRM's numbers of chats in which clients' messages have been shown.
pub(super) async fn note_numbers(tx: &mut Tx, shown: &[(&ChatKey, &str)]) -> Result<(), StorageError> {
    let numbers: BTreeMap<(&str, &str), &str> = shown
        .iter()
        .filter(|(_, number)| !number.is_empty())
        .map(|(chat, number)| ((chat.channel.as_str(), chat.peer.as_str()), *number))
        .collect();
    let rows = numbers.into_iter().map(|((channel, peer), number)| args![channel, peer, number]);
    tx.batch(sql::CHATS_NUMBER, rows.collect()).await?;
    Ok(())
}
