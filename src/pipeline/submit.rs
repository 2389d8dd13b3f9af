//! The way in for programs: one message to one recipient through a channel they name.

use std::sync::Arc;

use super::Pipeline;
use super::guards;
use super::intake;
use super::peers::{self, Given};
use crate::domain::channel::Channel;
use crate::domain::command::SendMessage;
use crate::domain::message::Draft;
use crate::domain::outcome::{ErrorCode, Failure};
use crate::storage::StorageError;
use crate::storage::messages::{Created, NewMessage};

/// Why a message was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// It can never be sent like this; the caller has to mend it.
    #[error("refused: {}", .0.code.code())]
    Refused(Failure),
    /// The store did not take it; the caller should come again.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What makes a repeated request recognisable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestKey {
    /// The caller's own key.
    pub key: String,
    /// Stands for the request's content.
    pub fingerprint: String,
}

impl Pipeline {
    /// Takes one message over. After `Ok` it is kept: a crash loses nothing.
    ///
    /// `send` is taken literally: a program has said what it means, so there are no variants to pick and no CRM
    /// placeholders to look for. Its recipients, line and messenger are not looked at, because `to` and `channel` say
    /// it. A paused channel takes messages too and keeps them.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was stored.
    pub async fn submit(
        &self,
        channel: &Arc<Channel>,
        to: &str,
        send: &SendMessage,
        key: Option<RequestKey>,
    ) -> Result<Created, SubmitError> {
        let given = [Given::Phone(to.to_owned())];
        let read = peers::resolve(self, &[&given], std::slice::from_ref(channel)).await?;
        let read = read.into_iter().flatten().next().unwrap_or_else(|| Err(Failure::new(ErrorCode::NoRecipient)));
        // Without the address: the caller knows it, and refusals travel further than messages.
        let peer = read.map_err(|failure| SubmitError::Refused(Failure::new(failure.code)))?;
        self.take_over(channel, &peer, send, key, |_message| {}).await
    }

    /// Takes over what somebody writes now to an address of this channel; `dress` says whose it is.
    pub(super) async fn take_over(
        &self,
        channel: &Arc<Channel>,
        peer: &str,
        send: &SendMessage,
        key: Option<RequestKey>,
        dress: impl FnOnce(&mut NewMessage),
    ) -> Result<Created, SubmitError> {
        let provider = self.provider_of(channel).ok_or_else(|| {
            SubmitError::Refused(Failure::with(ErrorCode::Unsupported, format!("provider {}", channel.provider)))
        })?;
        let contents = intake::contents_of(send, &provider.spec().capabilities).map_err(SubmitError::Refused)?;
        let mut contents = contents.into_iter();
        let (Some(content), None) = (contents.next(), contents.next()) else {
            let failure = Failure::with(ErrorCode::Unsupported, "this takes several messages; one request sends one");
            return Err(SubmitError::Refused(failure));
        };
        let mut message = intake::queued(self, peer, self.clock.now());
        message.record.channel = Some(channel.id.clone());
        message.record.draft = Draft { fallback: send.fallback.clone(), ..Draft::of(content) };
        // The program says when it sends and what: of the line's guards only the deadline holds.
        if let Some(line) = self.storage.find_line(&channel.line).await? {
            let received = message.record.times.created;
            message.not_after = Some(guards::deadline(self, received, &send.guards, &line.settings));
        }
        dress(&mut message);
        let key = key.map(|known| (known.key, known.fingerprint));
        Ok(self.storage.create_message(message, key).await?)
    }
}
