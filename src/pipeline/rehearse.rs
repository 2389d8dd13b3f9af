//! What would become of a message, asked by somebody who is still writing the step that will send it.

use std::sync::Arc;

use super::Pipeline;
use super::intake::{channels_for, contents_of, pick_line};
use super::preflight::{self, Refusal};
use crate::domain::channel::Channel;
use crate::domain::command::{RecipientSource, SendMessage};
use crate::domain::ids::PortalId;
use crate::domain::outcome::{ErrorCode, Failure};
use crate::numbers;
use crate::providers::Provider;
use crate::storage::StorageError;

impl Pipeline {
    /// Why a message would be refused whoever gets it; `None` when nothing is known against it. Nothing is stored or sent.
    ///
    /// What only the moment can tell (an open window, a paused channel, a vendor who does not answer) is no reason here.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn rehearse(&self, portal: &PortalId, send: &SendMessage) -> Result<Option<Failure>, StorageError> {
        if let Some(failure) = self.nobody(send) {
            return Ok(Some(failure));
        }
        let lines = self.storage.lines_of_portal(portal).await?;
        let line = match pick_line(&lines, &send.line) {
            Ok(line) => line,
            Err(failure) => return Ok(Some(failure)),
        };
        let channels = match channels_for(self, line, send.messenger).await? {
            Ok(channels) => channels,
            Err(failure) => return Ok(Some(failure)),
        };
        let mut refused = None;
        for channel in &channels {
            let Some(provider) = self.provider_of(channel) else { continue };
            match self.rehearse_on(portal, channel, provider, send).await {
                // Which channel it will be is chosen for each person; one that can is enough.
                None => return Ok(None),
                Some(failure) => refused = refused.or(Some(failure)),
            }
        }
        Ok(refused)
    }

    /// Why nobody could be reached: no number is given, or none that is one.
    fn nobody(&self, send: &SendMessage) -> Option<Failure> {
        let given = &send.recipients;
        match given.source {
            RecipientSource::Main | RecipientSource::All => return None,
            RecipientSource::Group => return Some(Failure::with(ErrorCode::Unsupported, "recipients: group")),
            RecipientSource::Given => {}
        }
        if given.phones.is_empty() && given.chat_ids.is_empty() && given.messenger_field.is_empty() {
            return Some(Failure::new(ErrorCode::NoRecipient));
        }
        let unreadable = given.phones.iter().find(|phone| numbers::read(phone, self.country()).is_err());
        unreadable.map(|phone| Failure::with(ErrorCode::BadPhone, phone.clone()))
    }

    async fn rehearse_on(
        &self,
        portal: &PortalId,
        channel: &Channel,
        provider: &Arc<dyn Provider>,
        send: &SendMessage,
    ) -> Option<Failure> {
        if let Err(failure) = contents_of(send, &provider.spec().capabilities) {
            return Some(failure);
        }
        for call in [&send.template, &send.fallback].into_iter().flatten() {
            match preflight::fill(self, channel, provider, Some(portal), call, self.clock.now()).await {
                Err(Refusal::Failed(failure)) => return Some(failure),
                Err(Refusal::Provider(_)) | Ok(_) => {}
            }
        }
        None
    }
}
