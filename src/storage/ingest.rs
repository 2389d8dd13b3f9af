//! What a provider tells, durably and in one commit with everything that follows from it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sha2::{Digest, Sha256};

use super::chats::{self, Arrived};
use super::db::{Tx, args};
use super::messages::{self, MessageNews, Told};
use super::mirrors;
use super::writer::{Context, Harvest, Outcome, Step};
use super::{Storage, StorageError, chat_phones, sql};
use crate::domain::channel::Messenger;
use crate::domain::event::{InboundMessage, Received, SharedPhone, StatusNews, TypedMessage};
use crate::domain::ids::{ChannelId, MessageId, ProviderMessageId};
use crate::domain::job::{Job, JobKind, QueueKey};
use crate::domain::time::{Millis, Timestamp};

/// News of one callback.
#[derive(Clone, Debug)]
pub struct Ingest {
    /// The channel whose signature was verified; news can touch no other channel's messages.
    pub channel: ChannelId,
    /// The messenger of that channel.
    pub messenger: Messenger,
    /// News about messages of ours.
    pub statuses: Vec<StatusNews>,
    /// What people wrote.
    pub inbound: Vec<InboundMessage>,
    /// Phones that people shared.
    pub phones: Vec<SharedPhone>,
    /// What was typed on the phone of the channel itself.
    pub typed: Vec<TypedMessage>,
}

/// What was new in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ingested {
    /// Statuses that belong to no message of ours.
    pub unknown: usize,
}

impl Storage {
    /// Stores a callback's news.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]: the provider must not be told that we have it.
    #[tracing::instrument(name = "storage.ingest", target = "mostik::span", skip_all)]
    pub async fn ingest(&self, ingest: Ingest) -> Result<Ingested, StorageError> {
        match self.writer.write(Step::Ingest(ingest)).await? {
            Outcome::Ingest(ingested) => Ok(ingested),
            _ => Err(StorageError::Broken("ingest: wrong outcome".to_owned())),
        }
    }
}

pub(super) async fn write(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    ingests: &[&Ingest],
    harvest: &mut Harvest,
) -> Result<Vec<Ingested>, StorageError> {
    let known = find_by_provider_id(tx, ingests).await?;
    let mut news: Vec<MessageNews> = Vec::new();
    let mut answers = Vec::with_capacity(ingests.len());
    for ingest in ingests {
        let mut answer = Ingested::default();
        for status in &ingest.statuses {
            let key = (ingest.channel.as_str(), status.provider_id.as_str());
            match status.message.clone().or_else(|| known.get(&key).cloned()) {
                Some(id) => news.push(news_of(ingest, status, id, now)),
                None => answer.unknown += 1,
            }
        }
        answers.push(answer);
    }
    settle_unclear(tx, &news, harvest).await?;
    messages::move_up(tx, context, now, &news.iter().collect::<Vec<_>>(), harvest).await?;
    store_inbound(tx, context, now, ingests, harvest).await?;
    mirrors::store_typed(tx, context, now, ingests, harvest).await?;
    chat_phones::write(tx, now, ingests).await?;
    Ok(answers)
}

/// Statuses without our own id are found by the vendor's.
async fn find_by_provider_id<'a>(
    tx: &mut Tx,
    ingests: &[&'a Ingest],
) -> Result<HashMap<(&'a str, &'a str), MessageId>, StorageError> {
    let mut asked: HashMap<String, (&str, &str)> = HashMap::new();
    for ingest in ingests {
        for status in ingest.statuses.iter().filter(|status| status.message.is_none()) {
            let provider_id = status.provider_id.as_str();
            asked.insert(provider_id.to_owned(), (ingest.channel.as_str(), provider_id));
        }
    }
    let rows = asked.values().map(|(channel, id)| args![*channel, *id]).collect();
    let mut known = HashMap::new();
    for row in tx.batch_rows(sql::MESSAGES_BY_PROVIDER_ID, rows).await? {
        if let Some(key) = asked.get(&row.text("provider_id")?) {
            known.insert(*key, MessageId::stored(row.text("id")?));
        }
    }
    Ok(known)
}

fn news_of(ingest: &Ingest, status: &StatusNews, id: MessageId, now: Timestamp) -> MessageNews {
    MessageNews {
        id,
        channel: Some(ingest.channel.clone()),
        state: status.state,
        // A vendor's clock that runs ahead must not write the future into the card.
        at: status.at.min(now),
        provider_id: Some(status.provider_id.clone()),
        failure: status.failure.clone(),
        vendor_code: status.vendor_code.clone(),
        used_fallback: false,
        last: false,
    }
}

/// The echo has come: sends that nobody knew the end of are over, and none is repeated.
async fn settle_unclear(tx: &mut Tx, news: &[MessageNews], harvest: &mut Harvest) -> Result<(), StorageError> {
    let send = |item: &MessageNews| {
        let queue = QueueKey::Channel(item.channel.clone()?).to_string();
        Some((Job::id_of(JobKind::Send, item.id.as_str()), queue))
    };
    let sends: BTreeSet<(String, String)> = news.iter().filter_map(send).collect();
    let rows = sends.into_iter().map(|(job, queue)| args![job, queue]).collect();
    for row in tx.batch_rows(sql::JOBS_DELETE_ECHOED, rows).await? {
        if let Some(queue) = QueueKey::parse(&row.text("queue")?) {
            harvest.gone.push((queue, row.text("id")?));
        }
    }
    Ok(())
}

async fn store_inbound(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    ingests: &[&Ingest],
    harvest: &mut Harvest,
) -> Result<(), StorageError> {
    let mut rows = Vec::new();
    let mut arrived = Vec::new();
    let mut wrote: BTreeMap<(&str, &str), (&str, Timestamp)> = BTreeMap::new();
    for ingest in ingests {
        for message in &ingest.inbound {
            let at = message.at.min(now);
            let received = Received { content: message.content.clone(), reply_to: message.reply_to.clone() };
            let content = serde_json::to_string(&received).map_err(|e| StorageError::Broken(e.to_string()))?;
            let id = inbound_id(&ingest.channel, &message.provider_id, message.at, now);
            let (channel, peer) = (&ingest.channel, message.peer.as_str());
            arrived.push(Arrived { channel, peer, messenger: ingest.messenger, message: id.clone() });
            rows.push(messages::told_row(
                &id,
                (&ingest.channel, &message.peer),
                Told::Inbound,
                (&message.provider_id, at),
                content,
                now,
            ));
            if !message.opens_window {
                continue;
            }
            let last = wrote.entry((ingest.channel.as_str(), &message.peer)).or_insert((&message.name, at));
            if at >= last.1 {
                *last = (if message.name.is_empty() { last.0 } else { &message.name }, at);
            }
        }
    }
    let mut new = HashSet::new();
    for row in tx.batch_rows(sql::MESSAGES_ADD, rows).await? {
        new.insert(row.text("id")?);
    }
    // One callback may carry a message twice; only what is new is shown, and once.
    arrived.retain(|message| new.remove(message.message.as_str()));
    let rows = wrote.into_iter().map(|((channel, peer), (name, at))| args![channel, peer, name, Some(at.0), now.0]);
    tx.batch(sql::DIALOGS_WROTE, rows.collect()).await?;
    chats::ask_posts(tx, context, now, &arrived, harvest).await
}

/// The id of a message that the vendor tells of is made of the channel and the vendor's id, so a repeated callback meets its own row.
/// It starts with the vendor's time like a ULID, so that history sorts by it; a time that cannot be is none, because it
/// would stand at the top of the history for ever.
pub(super) fn inbound_id(channel: &ChannelId, own: &ProviderMessageId, at: Timestamp, now: Timestamp) -> MessageId {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let digest = Sha256::new().chain_update(channel.as_str()).chain_update([0]).chain_update(own.as_str()).finalize();
    let letter = |index: usize| char::from(ALPHABET.get(index & 31).copied().unwrap_or(b'0'));
    let at = if at < now.plus(Millis::hours(24)) { at } else { Timestamp(0) };
    let millis = usize::try_from(at.0).unwrap_or(0);
    let time = (0..10).rev().map(|place| letter(millis >> (5 * place)));
    let rest = digest.iter().take(16).map(|byte| letter(usize::from(*byte)));
    MessageId::new(&time.chain(rest).collect::<String>())
}
