//! What people do on a card's page: they see the dialogs with the people of the card, and write to them.
//!
//! Who may open which card is decided by the CRM before anything here is asked; here, a page reaches the addresses of its
//! own card on the channels of its own portal, and nothing else.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Pipeline;
use super::peers::{self, Given};
use super::submit::{RequestKey, SubmitError};
use crate::domain::channel::Channel;
use crate::domain::command::SendMessage;
use crate::domain::dialog::ServiceWindow;
use crate::domain::effect::CardPerson;
use crate::domain::ids::{ChannelId, CrmUserId, PortalId};
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::portal::CardRef;
use crate::storage::StorageError;
use crate::storage::messages::{Created, MessageHistory};

/// Most addresses of one card that are looked at.
const WAYS_MAX: usize = 20;
/// Most messages of one dialog that a page shows.
const MESSAGES_MAX: u32 = 60;

/// A card as somebody sees it.
#[derive(Clone, Debug)]
pub struct SeenCard {
    /// The portal it stands in.
    pub portal: PortalId,
    /// The card.
    pub card: CardRef,
    /// Its people, as far as that person may see them.
    pub people: Vec<CardPerson>,
    /// Who looks at it.
    pub user: CrmUserId,
}

/// One way to talk to one person of a card.
#[derive(Clone)]
pub struct CardDialog {
    /// The channel.
    pub channel: Arc<Channel>,
    /// The person's address there.
    pub peer: String,
    /// Their name: as the messenger knows it, else as the card does; may be empty.
    pub name: String,
    /// Until when free text is allowed.
    pub window: ServiceWindow,
    /// Newest messages, oldest first.
    pub messages: Vec<MessageHistory>,
}

/// What somebody wrote on the page.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The channel that sends.
    pub channel: ChannelId,
    /// An address of one of the dialogs, or an `@name` where the messenger has such.
    pub to: String,
    /// Text, template or file; its recipients are not looked at.
    pub send: SendMessage,
    /// Recognises the same letter when it comes again.
    pub key: RequestKey,
}

impl Pipeline {
    /// The dialogs with the people of a card, also those in which nothing was said yet; the last used first.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn card_dialogs(&self, seen: &SeenCard) -> Result<Vec<CardDialog>, StorageError> {
        let now = self.clock.now();
        let channels = self.channels_of_portal(&seen.portal).await?;
        let mut dialogs = Vec::new();
        let mut messages: HashMap<String, Vec<MessageHistory>> = HashMap::new();
        let mut known = HashMap::new();
        for (channel, peer, name) in self.ways_of(seen, &channels).await? {
            if !messages.contains_key(&peer) {
                let found = self.storage.messages_with(&seen.portal, &peer, MESSAGES_MAX).await?;
                messages.insert(peer.clone(), found);
                for person in self.storage.known_person(&seen.portal, &peer).await? {
                    known.insert((person.channel.clone(), peer.clone()), person);
                }
            }
            let person = known.get(&(channel.id.clone(), peer.clone()));
            let last = person.and_then(|person| person.last_inbound);
            let rule = self.provider_of(&channel).and_then(|provider| provider.spec().capabilities.service_window);
            let of_channel = |history: &&MessageHistory| history.record.channel.as_ref() == Some(&channel.id);
            let own = messages.get(&peer).into_iter().flatten().filter(of_channel);
            let mut own: Vec<MessageHistory> = own.cloned().collect();
            own.reverse();
            let name = person.map(|person| person.name.clone()).filter(|name| !name.is_empty()).unwrap_or(name);
            let window = ServiceWindow::judge(rule, last, now);
            dialogs.push(CardDialog { channel, peer, name, window, messages: own });
        }
        let latest = |dialog: &CardDialog| dialog.messages.last().map(|last| last.record.id.clone());
        dialogs.sort_by_key(|dialog| std::cmp::Reverse(latest(dialog)));
        Ok(dialogs)
    }

    /// Takes over what somebody wrote on a card's page. After `Ok` it is kept, and the card's comment follows it like any
    /// other message of the card. It leaves before what robots have planned, as whatever people write by hand.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was stored.
    pub async fn write_on_card(&self, seen: &SeenCard, letter: Letter) -> Result<Created, SubmitError> {
        let refuse = |failure| Err(SubmitError::Refused(failure));
        let channels = self.channels_of_portal(&seen.portal).await?;
        let Some(channel) = channels.iter().find(|channel| channel.id == letter.channel) else {
            return refuse(Failure::new(ErrorCode::NoChannel));
        };
        let of_card = self.ways_of(seen, std::slice::from_ref(channel)).await?;
        let peer = if of_card.iter().any(|(_, peer, _)| *peer == letter.to) {
            letter.to
        } else if letter.to.starts_with('@') {
            let given = [Given::Chat(letter.to)];
            let read = peers::resolve(self, &[&given], std::slice::from_ref(channel)).await?;
            match read.into_iter().flatten().next() {
                Some(Ok(peer)) => peer,
                Some(Err(failure)) => return refuse(failure),
                None => return refuse(Failure::new(ErrorCode::NoRecipient)),
            }
        } else {
            return refuse(Failure::new(ErrorCode::NoRecipient));
        };
        let created = self.take_over(channel, &peer, &letter.send, Some(letter.key), |message| {
            message.answer = true;
            message.comments = true;
            message.record.portal = Some(seen.portal.clone());
            message.record.card = Some(seen.card);
            message.record.responsible = Some(seen.user.clone());
        });
        created.await
    }

    /// Channels of the portal's lines that this version can use, in the order of their lines.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn channels_of_portal(&self, portal: &PortalId) -> Result<Vec<Arc<Channel>>, StorageError> {
        let mut channels = Vec::new();
        for line in self.storage.lines_of_portal(portal).await?.iter() {
            let of_line = self.storage.channels_of_line(&line.id).await?;
            channels.extend(of_line.iter().filter(|channel| self.provider_of(channel).is_some()).cloned());
        }
        Ok(channels)
    }

    /// Every address of the card's people on these channels, with the name of its person; each once.
    async fn ways_of(
        &self,
        seen: &SeenCard,
        channels: &[Arc<Channel>],
    ) -> Result<Vec<(Arc<Channel>, String, String)>, StorageError> {
        let phones = seen.people.iter().flat_map(|person| person.phones.iter().map(|phone| (phone, &person.name)));
        let (phones, names): (Vec<[Given; 1]>, Vec<&String>) =
            phones.take(WAYS_MAX).map(|(phone, name)| ([Given::Phone(phone.clone())], name)).unzip();
        let people: Vec<&[Given]> = phones.iter().map(<[Given; 1]>::as_slice).collect();
        let read = peers::resolve(self, &people, channels).await?;
        let mut met = HashSet::new();
        let mut ways = Vec::new();
        for (peers, name) in read.into_iter().zip(names) {
            for (peer, channel) in peers.into_iter().zip(channels) {
                // A phone that leads nowhere on this messenger is no way.
                let Ok(peer) = peer else { continue };
                if met.insert((channel.id.clone(), peer.clone())) {
                    ways.push((Arc::clone(channel), peer, name.clone()));
                }
            }
        }
        // Whoever was written to by name stays with the card. Phones do not: those of a contact who is hidden from this
        // person must not come back by what others have written.
        for (channel, peer) in self.storage.written_to(&seen.portal, seen.card).await? {
            if !peer.contains('@') {
                continue;
            }
            let Some(channel) = channels.iter().find(|known| known.id == channel) else { continue };
            if met.insert((channel.id.clone(), peer.clone())) {
                ways.push((Arc::clone(channel), peer, String::new()));
            }
        }
        Ok(ways)
    }
}
