//! Where vendors call us, on channels whose vendor is told by a call: set when the channel is made, looked at from time to
//! time, and set again when it is lost. Whoever else uses the same credentials takes it away without a word, and then nobody
//! hears what people write.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::Pipeline;
use super::mailbox::Hold;
use crate::domain::channel::{Channel, ChannelSettings, ChannelState};
use crate::domain::ids::{ChannelId, LineId};
use crate::domain::job::QueueKey;
use crate::domain::outcome::{FailureClass, SendError};
use crate::domain::time::{Millis, Timestamp};
use crate::providers::Webhooks;
use crate::storage::StorageError;

/// Longest and shortest time between two rounds; a round asks nobody who is not due.
const ROUND_MAX: Millis = Millis::seconds(15);
const ROUND_MIN: Millis = Millis(200);
/// After trouble a channel is looked at again so soon, or sooner.
const AFTER_TROUBLE: Millis = Millis::seconds(30);
/// Vendors asked at once.
const AT_ONCE: usize = 8;

/// Why a channel cannot be made.
#[derive(Debug)]
pub enum NotConnected {
    /// The vendor does not take the credentials; these are its words.
    Refused(String),
    /// This channel has the same sender already, and a vendor calls one address for each.
    Taken(ChannelId),
}

impl Pipeline {
    /// The address that the vendor calls for a channel.
    #[must_use]
    pub fn webhook_url(&self, channel: &Channel) -> String {
        format!("{}/webhooks/{}/{}", self.settings.public_url, channel.provider, channel.id)
    }

    /// Asks the vendor whether these credentials work, before a channel is made of them. Only where the channel will be
    /// connected by a call; the others prove themselves by their first callback and their first message.
    ///
    /// A vendor that does not answer at the moment refuses nothing: the channel is connected as soon as it does.
    ///
    /// # Errors
    /// [`StorageError`] when the channels there are could not be read.
    pub async fn may_connect(
        &self,
        provider: &str,
        credentials: &BTreeMap<String, String>,
    ) -> Result<Result<(), NotConnected>, StorageError> {
        let Some(provider) = self.providers.get(provider) else { return Ok(Ok(())) };
        let Some(webhooks) = provider.webhooks() else { return Ok(Ok(())) };
        let candidate = Channel {
            id: ChannelId::new("0"),
            line: LineId::new("0"),
            provider: provider.spec().id.to_owned(),
            name: String::new(),
            credentials: credentials.clone(),
            settings: ChannelSettings::default(),
            state: ChannelState::Active,
            ramp: None,
        };
        let sender = webhooks.sender(&candidate);
        let channels = channels_of(self, &candidate.provider).await?;
        let same = |channel: &&Channel| webhooks.sender(channel) == sender;
        if let Some(other) = channels.iter().find(same) {
            return Ok(Err(NotConnected::Taken(other.id.clone())));
        }
        Ok(match provider.probe(&candidate).await {
            Err(error) if error.class == FailureClass::Misconfigured => {
                Err(NotConnected::Refused(error.failure.detail))
            }
            Ok(_) | Err(_) => Ok(()),
        })
    }

    /// Has the vendor call us for this channel from now on, where that takes a call. What goes wrong is mended by the next
    /// round.
    pub async fn connect(&self, channel: &Channel) {
        if let Some(webhooks) = self.provider_of(channel).and_then(|provider| provider.webhooks()) {
            look(self, channel, webhooks).await;
        }
    }
}

/// Stops a channel that cannot work until somebody mends it; its queue stays.
pub(super) async fn pause(pipeline: &Pipeline, channel: &Channel, error: &SendError) {
    let reason = format!("{} {}", error.vendor_code, error.failure.detail).trim().to_owned();
    tracing::error!(
        channel.id = %channel.id, vendor.code = %error.vendor_code,
        "channel paused: its credentials or account need the administrator"
    );
    let state = ChannelState::Paused(reason);
    if let Err(error) = pipeline.storage.set_channel_state(&channel.id, &state, None).await {
        tracing::error!(%error, "the pause could not be stored");
    }
    pipeline.show_channel_state(channel).await;
    pipeline.scheduler.hold(QueueKey::Channel(channel.id.clone()), Hold::Paused);
}

/// Every channel of a provider.
async fn channels_of(pipeline: &Pipeline, provider: &str) -> Result<Vec<Channel>, StorageError> {
    const PAGE: u32 = 200;
    let mut channels: Vec<Channel> = Vec::new();
    loop {
        let after = channels.last().map(|channel| channel.id.clone());
        let page = pipeline.storage.channels_of_provider(provider, after.as_ref(), PAGE).await?;
        if page.is_empty() {
            return Ok(channels);
        }
        channels.extend(page);
    }
}

/// Looks at all channels whose turn it is, until `stop`. One process of all does it.
pub(super) async fn run(pipeline: Arc<Pipeline>, stop: CancellationToken) {
    if pipeline.providers.values().all(|provider| provider.webhooks().is_none()) {
        // Nothing to look at; but whoever started this takes an end for trouble.
        return stop.cancelled().await;
    }
    let every = pipeline.settings.check_webhooks;
    let pace = Millis((every.0 / 2).clamp(ROUND_MIN.0, ROUND_MAX.0)).to_duration();
    let mut due = HashMap::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(pace) => {}
            () = stop.cancelled() => return,
        }
        match round(&pipeline, &due, every).await {
            Ok(next) => due = next,
            Err(error) => tracing::warn!(%error, "channels could not be read to look where callbacks go"),
        }
    }
}

/// One round; gives when each channel is due next. A channel that was paused is due as soon as it works again.
async fn round(
    pipeline: &Arc<Pipeline>,
    due: &HashMap<ChannelId, Timestamp>,
    every: Millis,
) -> Result<HashMap<ChannelId, Timestamp>, StorageError> {
    if !pipeline.storage.is_first_worker(&pipeline.worker).await? {
        return Ok(HashMap::new());
    }
    let now = pipeline.clock.now();
    let mut next = HashMap::new();
    let mut asked = Vec::new();
    let providers = pipeline.providers.iter().filter(|(_, provider)| provider.webhooks().is_some());
    let mut channels = Vec::new();
    for (provider, _) in providers {
        channels.extend(channels_of(pipeline, provider).await?);
    }
    for channel in channels {
        if channel.state != ChannelState::Active {
            continue;
        }
        match due.get(&channel.id) {
            Some(at) if *at > now => {
                next.insert(channel.id.clone(), *at);
            }
            Some(_) | None => asked.push(channel),
        }
    }
    let looks = futures_util::stream::iter(asked).map(|channel| async move {
        let webhooks = pipeline.provider_of(&channel).and_then(|provider| provider.webhooks())?;
        let wait = if look(pipeline, &channel, webhooks).await { every } else { every.min(AFTER_TROUBLE) };
        Some((channel.id.clone(), pipeline.clock.now().plus(wait)))
    });
    next.extend(looks.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await.into_iter().flatten());
    Ok(next)
}

/// Looks once; false when there was trouble.
async fn look(pipeline: &Pipeline, channel: &Channel, webhooks: &dyn Webhooks) -> bool {
    /// Longer than any answer; the others do not wait for one vendor.
    const PATIENCE: Duration = Duration::from_secs(45);
    let looked = tokio::time::timeout(PATIENCE, webhooks.keep(channel, &pipeline.webhook_url(channel))).await;
    match looked {
        Ok(Ok(kept)) => {
            if kept.mended {
                tracing::warn!(channel.id = %channel.id, "callbacks went elsewhere; they come here again");
            }
            if !kept.trouble.is_empty() {
                let trouble = kept.trouble.as_str();
                tracing::warn!(channel.id = %channel.id, trouble, "the vendor could not hand callbacks over");
            }
            kept.trouble.is_empty()
        }
        Ok(Err(error)) if error.class == FailureClass::Misconfigured => {
            pause(pipeline, channel, &error).await;
            false
        }
        Ok(Err(error)) => {
            let (class, code) = (error.class.code(), error.vendor_code.as_str());
            tracing::warn!(channel.id = %channel.id, class, vendor.code = code, "where callbacks go could not be looked up");
            false
        }
        Err(_elapsed) => false,
    }
}
