//! The way in for providers: verified callbacks become news of messages.

use super::Pipeline;
use crate::domain::channel::Channel;
use crate::domain::event::ProviderEvent;
use crate::http::verified::Verified;
use crate::providers::WebhookError;
use crate::storage::StorageError;
use crate::storage::ingest::Ingest;

/// Why a callback was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The body is not what this vendor sends.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// The store did not take it; the vendor has to send it again.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The channel's provider is not part of this version.
    #[error("unknown provider {0}")]
    UnknownProvider(String),
}

impl Pipeline {
    /// Takes a callback over whose signature was verified for this channel.
    ///
    /// # Errors
    /// [`IngestError`]; after `Storage` the vendor must be told to come again.
    pub async fn ingest(&self, channel: &Channel, body: &Verified<Vec<u8>>) -> Result<(), IngestError> {
        let provider =
            self.provider_of(channel).ok_or_else(|| IngestError::UnknownProvider(channel.provider.clone()))?;
        let mut ingest = Ingest {
            channel: channel.id.clone(),
            messenger: provider.spec().messenger,
            statuses: Vec::new(),
            inbound: Vec::new(),
            phones: Vec::new(),
            typed: Vec::new(),
        };
        for event in provider.parse(channel, body.get())? {
            match event {
                ProviderEvent::Status(status) => ingest.statuses.push(status),
                ProviderEvent::Inbound(message) => ingest.inbound.push(message),
                ProviderEvent::PhoneShared(told) => ingest.phones.push(told),
                ProviderEvent::Typed(typed) => ingest.typed.push(typed),
                ProviderEvent::TemplatesChanged => self.templates.forget(),
            }
        }
        let messages = ingest.inbound.len() + ingest.typed.len();
        if ingest.statuses.is_empty() && messages == 0 && ingest.phones.is_empty() {
            return Ok(());
        }
        let ingested = self.storage.ingest(ingest).await?;
        if ingested.unknown > 0 {
            tracing::debug!(count = ingested.unknown, channel.id = %channel.id, "statuses of messages that are not ours");
        }
        Ok(())
    }
}
