//! Messages that went to a person past the chat in which operators answer: asking for them to be shown there, and
//! recognising what the CRM then tells of them (`docs/adr/0011`).

use std::collections::{HashMap, HashSet};

use super::db::{Row, Tx, args};
use super::ingest::{Ingest, inbound_id};
use super::messages::{self, Told};
use super::writer::{Context, Harvest, Queued, Work, add_jobs};
use super::{Storage, StorageError, chats, sql};
use crate::domain::chat::{ChatKey, ChatPost};
use crate::domain::event::InboundContent;
use crate::domain::ids::{ChannelId, CrmUserId, MessageId, PortalId};
use crate::domain::job::{Job, JobKind, QueueKey};
use crate::domain::message::{Content, Draft};
use crate::domain::status::MessageState;
use crate::domain::time::{Millis, Timestamp};

/// So long after the last call that showed a message its echo may be raised.
const ECHO_WINDOW: Millis = Millis::minutes(2);
/// Two echoes of one message are told apart by looking again.
const CLAIMS_MAX: usize = 3;

/// A message that has just left.
pub(super) struct Left {
    message: String,
    channel: String,
    peer: String,
    command: Option<String>,
}

impl Left {
    /// Reads a row of `MESSAGES_MOVE`; `None` unless the message left by this very move: `own` news are the provider's
    /// answer, and a message without one is heard of by its echo first.
    pub(super) fn of(row: &Row, own: bool) -> Result<Option<Self>, StorageError> {
        let left = match MessageState::find(&row.text("state")?) {
            Some(MessageState::Accepted | MessageState::Sent | MessageState::Delivered | MessageState::Read) => true,
            Some(MessageState::Queued | MessageState::Undecided | MessageState::Failed | MessageState::Cancelled)
            | None => false,
        };
        let first = own || row.maybe_int("accepted_ms")?.is_none();
        let Some(channel) = row.maybe_text("channel_id")?.filter(|_| left && first) else { return Ok(None) };
        let command = row.maybe_text("command_id")?;
        Ok(Some(Self { message: row.text("id")?, channel, peer: row.text("peer")?, command }))
    }
}

/// Asks for messages to be shown in the chats of their dialogs, in the commit that says that they left.
pub(super) async fn ask(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    left: Vec<Left>,
    harvest: &mut Harvest,
) -> Result<(), StorageError> {
    if left.is_empty() {
        return Ok(());
    }
    let rows = left.into_iter().map(|item| args![item.message, item.channel, item.peer, item.command, now.0]);
    let mut jobs = Vec::new();
    for row in tx.batch_rows(sql::CHAT_MIRRORS_ASK, rows.collect()).await? {
        let chat = ChatKey { channel: ChannelId::stored(row.text("channel_id")?), peer: row.text("peer")? };
        let queue = QueueKey::Crm(PortalId::stored(row.text("portal_id")?));
        let seq = chats::place_now(context);
        let lane = Job::lane_past(&chat.to_string());
        let job = Job::new(JobKind::Chat, &row.text("message_id")?, queue, lane, seq, now);
        jobs.push(Queued { job, work: Work::Stored });
    }
    add_jobs(tx, now, jobs, harvest).await
}

/// Stores what people of ours typed on the phone itself, as messages that have been sent; a repeated callback, or word of
/// a message that we sent, changes nothing.
pub(super) async fn store_typed(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    ingests: &[&Ingest],
    harvest: &mut Harvest,
) -> Result<(), StorageError> {
    let all = || ingests.iter().flat_map(|ingest| ingest.typed.iter().map(|typed| (&ingest.channel, typed)));
    if all().next().is_none() {
        return Ok(());
    }
    let asked = all().map(|(channel, typed)| args![channel.as_str(), typed.provider_id.as_str()]).collect();
    let mut known = HashSet::new();
    for row in tx.batch_rows(sql::MESSAGES_BY_PROVIDER_ID, asked).await? {
        known.insert(row.text("provider_id")?);
    }
    let mut left = HashMap::new();
    let mut rows = Vec::new();
    for (channel, typed) in all().filter(|(_, typed)| !known.contains(typed.provider_id.as_str())) {
        let words = typed.content.words();
        let draft = Draft { typed: Some(typed.content.clone()), ..Draft::of(Content::Text { body: words }) };
        let content = serde_json::to_string(&draft).map_err(|e| StorageError::Broken(e.to_string()))?;
        let id = inbound_id(channel, &typed.provider_id, typed.at, now);
        rows.push(messages::told_row(
            &id,
            (channel, &typed.peer),
            Told::Typed,
            (&typed.provider_id, typed.at.min(now)),
            content,
            now,
        ));
        let (message, channel, peer) = (id.to_string(), channel.to_string(), typed.peer.clone());
        left.insert(message.clone(), Left { message, channel, peer, command: None });
    }
    let mut new = Vec::new();
    for row in tx.batch_rows(sql::MESSAGES_ADD, rows).await? {
        new.extend(left.remove(&row.text("id")?));
    }
    ask(tx, context, now, new, harvest).await
}

/// A message past its chat, as it is to be shown there.
#[derive(Clone, PartialEq, Debug)]
pub struct Mirror {
    /// Where, and under which id; its content is what `draft` comes to.
    pub post: ChatPost,
    /// What was sent.
    pub draft: Draft,
    /// True when a CRM's automation asked for it.
    pub automatic: bool,
    /// Whose message it is.
    pub responsible: Option<CrmUserId>,
    /// Whom the CRM does not take as its author.
    pub refused: Option<CrmUserId>,
}

/// A message that is about to be shown past its chat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MirrorCall {
    /// Which.
    pub message: MessageId,
    /// Who is shown as its author.
    pub author: CrmUserId,
    /// A digest of its words as the CRM tells them back.
    pub print: String,
}

impl Storage {
    /// Messages past their chats; those without a chat are left out. An author shown before is shown again.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn mirrors(&self, messages: &[MessageId]) -> Result<Vec<Mirror>, StorageError> {
        let rows = messages.iter().map(|id| args![id.as_str()]).collect();
        self.db.batch_rows(sql::CHAT_MIRRORS, rows).await?.iter().map(read).collect()
    }

    /// Remembers, before the call, what is about to be shown: from now on its echo is recognised.
    ///
    /// # Errors
    /// [`StorageError`]; nothing may be shown.
    pub async fn begin_mirrors(&self, calls: &[MirrorCall]) -> Result<(), StorageError> {
        if calls.is_empty() {
            return Ok(());
        }
        let until = self.clock.now().plus(ECHO_WINDOW);
        let row = |call: &MirrorCall| args![call.message.as_str(), call.author.as_str(), call.print.as_str(), until.0];
        let mut tx = self.db.begin().await?;
        tx.batch(sql::CHAT_MIRRORS_BEGIN, calls.iter().map(row).collect()).await?;
        tx.commit().await
    }

    /// The CRM does not take this author of a message, and has shown nothing: the next try names another.
    ///
    /// # Errors
    /// [`StorageError`]; the author stays.
    pub async fn refuse_author(&self, message: &MessageId, author: &CrmUserId) -> Result<(), StorageError> {
        self.db.write(sql::CHAT_MIRROR_REFUSED, args![message.as_str(), author.as_str()]).await?;
        Ok(())
    }

    /// The message whose echo this is: words of this digest that `author` wrote in a chat, told by the portal under
    /// `number` and raised at `at`. The same number gets the same answer again; each call that showed a message accounts
    /// for one number.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was recognised.
    pub async fn claim_echo(
        &self,
        portal: &PortalId,
        chat: &ChatKey,
        author: &CrmUserId,
        print: &str,
        (number, at): (&str, Timestamp),
    ) -> Result<Option<MessageId>, StorageError> {
        for _ in 0..CLAIMS_MAX {
            let (channel, peer) = (chat.channel.as_str(), chat.peer.as_str());
            let args = args![channel, peer, print, portal.as_str(), author.as_str(), at.0];
            let rows = self.db.rows(sql::CHAT_MIRRORS_LIKE, args).await?;
            let mut open = None;
            for row in &rows {
                let message = row.text("message_id")?;
                if row.text("echoes")?.contains(&format!(",{number},")) {
                    return Ok(Some(MessageId::stored(message)));
                }
                let heard = row.int("heard")?;
                if open.is_none() && heard < row.int("calls")? {
                    open = Some((message, heard));
                }
            }
            let Some((message, heard)) = open else { return Ok(None) };
            if self.db.write(sql::CHAT_MIRROR_HEARD, args![message.as_str(), heard, number]).await? > 0 {
                return Ok(Some(MessageId::stored(message)));
            }
        }
        Err(StorageError::Unavailable("an echo could not be told apart from others".to_owned()))
    }
}

fn read(row: &Row) -> Result<Mirror, StorageError> {
    let content = row.text("content")?;
    let draft = serde_json::from_str(&content).map_err(|e| StorageError::Broken(format!("messages.content: {e}")))?;
    let somebody =
        |column: &str| Ok::<_, StorageError>(Some(row.text(column)?).filter(|id| !id.is_empty()).map(CrmUserId));
    let author = somebody("author")?;
    let post = chats::post_of(row, InboundContent::Text { body: String::new() })?;
    Ok(Mirror {
        post: ChatPost { author, ..post },
        draft,
        automatic: row.maybe_text("command_id")?.is_some(),
        responsible: row.maybe_text("responsible")?.map(CrmUserId),
        refused: somebody("refused")?,
    })
}
