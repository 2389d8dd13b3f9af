//! The door to messaging providers: one vendor, one file, one entry in [`REGISTRY`].
//!
//! Invariants: providers never see the storage, the pipeline or a CRM; every file here is in the registry; an ability
//! that a vendor lacks is absent (`None`), never present and pretending.

mod failures;
pub mod telegram_bot;
pub mod whatsapp_cloud;

#[cfg(test)]
mod contract;

use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::capability::ProviderSpec;
use crate::domain::channel::Channel;
use crate::domain::event::ProviderEvent;
use crate::domain::message::OutboundMessage;
use crate::domain::outcome::{Accepted, SendError};
use crate::domain::template::TemplateDef;
use crate::outbound::Outbound;

/// One messaging provider.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Everything that is fixed about it.
    fn spec(&self) -> &'static ProviderSpec;

    /// Hands one message to the vendor.
    ///
    /// # Errors
    /// [`SendError`] with the class the vendor's error table gives; an answer that makes no sense is `Indeterminate`.
    async fn send(&self, channel: &Channel, message: &OutboundMessage) -> Result<Accepted, SendError>;

    /// Reads a callback whose signature has been verified. Pure: no call, no clock.
    ///
    /// # Errors
    /// [`WebhookError`] when the body is not what this vendor sends, or concerns another channel.
    fn parse(&self, channel: &Channel, body: &[u8]) -> Result<Vec<ProviderEvent>, WebhookError>;

    /// A harmless call that proves the credentials; `Ok` carries what the vendor says of the sender, for people.
    ///
    /// # Errors
    /// As [`Provider::send`].
    async fn probe(&self, channel: &Channel) -> Result<String, SendError>;

    /// Approved templates, where the vendor has them.
    fn templates(&self) -> Option<&dyn Templates> {
        None
    }

    /// Where callbacks go, where that is told to the vendor by a call.
    fn webhooks(&self) -> Option<&dyn Webhooks> {
        None
    }
}

/// The ability to tell the vendor where its callbacks go. Such a channel connects itself when it is made, and is looked at
/// from time to time, because the address is lost when somebody else uses the same credentials.
#[async_trait]
pub trait Webhooks: Send + Sync {
    /// What the vendor knows the sender by. It keeps one address for each, so no two channels may share a sender.
    fn sender(&self, channel: &Channel) -> String;

    /// Looks where callbacks go, and sets the address if that is not `url` or calls there fail.
    ///
    /// # Errors
    /// As [`Provider::send`], but never `Indeterminate`: it may always be repeated.
    async fn keep(&self, channel: &Channel, url: &str) -> Result<Kept, SendError>;
}

/// What was found where callbacks go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// They went nowhere or elsewhere, and come here from now on.
    pub mended: bool,
    /// Why the vendor could not hand over what still waits there, in its words; empty when nothing is wrong.
    pub trouble: String,
}

/// The ability to list approved templates.
#[async_trait]
pub trait Templates: Send + Sync {
    /// Every translation of the template `name`, whatever its state.
    ///
    /// # Errors
    /// As [`Provider::send`].
    async fn find(&self, channel: &Channel, name: &str) -> Result<Vec<TemplateDef>, SendError>;

    /// Every translation of every template, for people to choose from; `None` where the vendor only knows single ones.
    ///
    /// # Errors
    /// As [`Provider::send`].
    async fn list(&self, _channel: &Channel) -> Result<Option<Vec<TemplateDef>>, SendError> {
        Ok(None)
    }
}

/// Why a verified callback could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WebhookError {
    /// The body is not what this vendor sends; the text says what is missing.
    #[error("malformed callback: {0}")]
    Malformed(String),
    /// Every part of the body concerns senders that are not this channel.
    #[error("callback for another sender")]
    ForeignSender,
}

/// How to make a provider from its configuration.
pub struct Entry {
    /// What is fixed about it.
    pub spec: &'static ProviderSpec,
    /// Default address of the vendor's API and its version, overridden by `[providers.<id>]`.
    pub defaults: ProviderSettings,
    /// Makes it.
    pub build: fn(Arc<Outbound>, ResolvedSettings) -> Arc<dyn Provider>,
}

/// Where the vendor's API stands, as constants of the adapter.
#[derive(Clone, Copy, Debug)]
pub struct ProviderSettings {
    /// Base address without a slash at the end.
    pub base_url: &'static str,
    /// Version segment, or empty.
    pub api_version: &'static str,
}

/// The same after the configuration has had its say.
#[derive(Clone, Debug)]
pub struct ResolvedSettings {
    /// Base address without a slash at the end.
    pub base_url: String,
    /// Version segment, or empty.
    pub api_version: String,
}

/// Every provider there is.
pub static REGISTRY: &[&Entry] = &[&whatsapp_cloud::ENTRY, &telegram_bot::ENTRY];

/// Finds an entry by its id.
#[must_use]
pub fn find(id: &str) -> Option<&'static Entry> {
    REGISTRY.iter().copied().find(|entry| entry.spec.id == id)
}
