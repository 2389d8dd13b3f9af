//! Messages of operators whose CRM names a chat by our word for it, or, where an operator writes first, a person by phone:
//! finding the place, the messenger and the person behind them (`docs/adr/0019`).

use std::sync::Arc;

use super::Pipeline;
use super::peers::{self, Given};
use crate::domain::channel::{Channel, ChannelState, Messenger};
use crate::domain::chat::{ChatKey, ChatLine, ChatStands, OperatorMessage, WrittenInChat};
use crate::domain::ids::ChannelId;
use crate::domain::portal::Portal;
use crate::http::verified::Verified;
use crate::storage::StorageError;

impl Pipeline {
    /// Takes an operator's message over. After `Ok` the CRM may be told that we have it; a message to nobody we can reach
    /// is taken, too, and its author is told why it did not go out.
    ///
    /// # Errors
    /// [`StorageError`]: nothing was taken over.
    pub async fn accept_written(&self, portal: &Portal, written: Verified<WrittenInChat>) -> Result<(), StorageError> {
        let written = written.into_inner();
        let raised = written.written;
        let lines = self.storage.chat_lines(&portal.id).await?;
        let stands = match &written.chat {
            Some(chat) => self.place_of_chat(chat, &lines).await?,
            None => self.begun_by_operator(portal, &written, &lines).await?,
        };
        // Nobody's chat: planning refuses it in words.
        let stands = stands.unwrap_or_else(|| ChatStands {
            chat: written.chat.unwrap_or_else(|| ChatKey { channel: ChannelId::new("NONE"), peer: written.phone }),
            messenger: lines.first().map_or(Messenger::Whatsapp, |line| line.messenger),
            place: written.place.unwrap_or_default(),
        });
        let message = OperatorMessage {
            chat: stands.chat,
            messenger: stands.messenger,
            place: stands.place,
            reference: written.reference,
            author: None,
            text: written.text,
            files: written.files,
            written: Some(written.written),
            echo_of: None,
            change: None,
        };
        self.take_answers(portal, vec![message], Some(raised)).await
    }

    async fn place_of_chat(&self, chat: &ChatKey, lines: &[ChatLine]) -> Result<Option<ChatStands>, StorageError> {
        let Some(channel) = self.storage.find_channel(&chat.channel).await? else { return Ok(None) };
        let Some(messenger) = self.provider_of(&channel).map(|provider| provider.spec().messenger) else {
            return Ok(None);
        };
        let line = lines.iter().find(|line| line.line == channel.line && line.messenger == messenger);
        let place = line.map(|line| line.place.clone()).unwrap_or_default();
        Ok(Some(ChatStands { chat: chat.clone(), messenger, place }))
    }

    /// The chat of somebody to whom an operator writes first, in the place that was chosen, or the only one in which
    /// anybody can be written to.
    async fn begun_by_operator(
        &self,
        portal: &Portal,
        written: &WrittenInChat,
        lines: &[ChatLine],
    ) -> Result<Option<ChatStands>, StorageError> {
        let mut found = Vec::new();
        for line in lines {
            let channels = self.storage.channels_of_line(&line.line).await?;
            found.extend(self.sender_of(line, &channels).map(|channel| (line, Arc::clone(channel))));
        }
        let named = found.iter().find(|(line, _)| Some(&line.place) == written.place.as_ref());
        // A place that was chosen and is none of ours is not replaced by another: the words would leave from elsewhere.
        let only = || found.first().filter(|_| found.len() == 1 && written.place.is_none());
        let Some((line, channel)) = named.or_else(only) else { return Ok(None) };
        // CRMs leave the plus away before a number that has its country in front.
        let ways = [format!("+{}", written.phone.trim_start_matches('+')), written.phone.clone()].map(Given::Phone);
        let reached = peers::resolve(self, &[&ways], std::slice::from_ref(channel)).await?;
        let Some(peer) = reached.into_iter().flatten().find_map(Result::ok) else { return Ok(None) };
        let chat = ChatKey { channel: channel.id.clone(), peer };
        let stands = ChatStands { chat, messenger: line.messenger, place: line.place.clone() };
        self.storage.begin_chat(&portal.id, &stands, (&written.reference.chat, &written.person)).await?;
        Ok(Some(stands))
    }

    /// The channel by which a first message of a place goes out: one that works, if there is one.
    fn sender_of<'a>(&self, line: &ChatLine, channels: &'a [Arc<Channel>]) -> Option<&'a Arc<Channel>> {
        let fits = |channel: &&Arc<Channel>| {
            self.provider_of(channel).is_some_and(|provider| provider.spec().messenger == line.messenger)
        };
        let works = |channel: &&Arc<Channel>| match channel.state {
            ChannelState::Active => true,
            ChannelState::Paused(_) => false,
        };
        channels.iter().filter(fits).find(works).or_else(|| channels.iter().find(fits))
    }
}
