//! What actions do that is no message (`docs/adr/0014`), and what they are told of earlier traffic.

use std::collections::{BTreeSet, HashMap};

use super::db::{Tx, args};
use super::messages::NewMessage;
use super::{Storage, StorageError, sql};
use crate::domain::channel::Messenger;
use crate::domain::chat::{ChatKey, ChatStands};
use crate::domain::deed::{Deed, PhoneTraffic};
use crate::domain::event::InboundContent;
use crate::domain::ids::{ChannelId, PortalId};
use crate::domain::message::Content;
use crate::domain::status::MessageState;
use crate::domain::time::Timestamp;

/// True for a deed that was done when it was planned.
pub(super) fn is_done(message: &NewMessage) -> bool {
    matches!(message.record.draft.content, Content::Deed(_)) && message.record.state == MessageState::Sent
}

/// Closes the deeds among new messages that are done already, and does what is done here: tags. One that is put on and taken
/// off is taken off.
pub(super) async fn close(tx: &mut Tx, now: Timestamp, new: &[&NewMessage]) -> Result<(), StorageError> {
    let done = new.iter().filter(|message| is_done(message));
    let rows: Vec<_> = done.map(|message| args![message.record.id.as_str(), now.0]).collect();
    tx.batch(sql::DEEDS_DONE, rows).await?;
    let (mut put, mut off) = (Vec::new(), Vec::new());
    for record in new.iter().filter(|message| is_done(message)).map(|message| &message.record) {
        if let (Content::Deed(Deed::TagDialog { add, remove, .. }), Some(channel)) =
            (&record.draft.content, &record.channel)
        {
            let dialog = (channel.as_str(), record.peer.as_str());
            put.extend(add.iter().map(|tag| args![dialog.0, dialog.1, tag.as_str(), now.0]));
            off.extend(remove.iter().map(|tag| args![dialog.0, dialog.1, tag.as_str()]));
        }
    }
    tx.batch(sql::TAGS_ADD, put).await?;
    tx.batch(sql::TAGS_DROP, off).await?;
    Ok(())
}

impl Storage {
    /// The tags of these dialogs; those without any are missing.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn dialog_tags(
        &self,
        asked: &[(ChannelId, String)],
    ) -> Result<HashMap<(ChannelId, String), BTreeSet<String>>, StorageError> {
        let rows = asked.iter().map(|(channel, peer)| args![channel.as_str(), peer.as_str()]).collect();
        let mut found: HashMap<(ChannelId, String), BTreeSet<String>> = HashMap::new();
        for row in self.db.batch_rows(sql::TAGS_FIND, rows).await? {
            let dialog = (ChannelId::stored(row.text("channel_id")?), row.text("peer")?);
            found.entry(dialog).or_default().insert(row.text("tag")?);
        }
        Ok(found)
    }

    /// Which of these dialogs have their chat in this portal, and where.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn chats_in(
        &self,
        portal: &PortalId,
        asked: &[(ChannelId, String)],
    ) -> Result<HashMap<(ChannelId, String), ChatStands>, StorageError> {
        let rows =
            asked.iter().map(|(channel, peer)| args![portal.as_str(), channel.as_str(), peer.as_str()]).collect();
        let mut found = HashMap::new();
        for row in self.db.batch_rows(sql::CHATS_IN, rows).await? {
            let (channel, peer) = (ChannelId::stored(row.text("channel_id")?), row.text("peer")?);
            let messenger = row.text("messenger")?;
            let messenger = Messenger::find(&messenger)
                .ok_or_else(|| StorageError::Broken("chats.messenger is no messenger".to_owned()))?;
            let chat = ChatKey { channel: channel.clone(), peer: peer.clone() };
            found.insert((channel, peer), ChatStands { chat, messenger, place: row.text("place")? });
        }
        Ok(found)
    }

    /// What the traffic between channels and addresses tells of the addresses. Those without any are missing.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn phone_traffic(
        &self,
        asked: &[(ChannelId, String)],
    ) -> Result<HashMap<(ChannelId, String), PhoneTraffic>, StorageError> {
        let notice = InboundContent::Other { what: InboundContent::NUMBER_LEFT.to_owned() };
        let notice = serde_json::to_string(&notice).map_err(|e| StorageError::Broken(e.to_string()))?;
        let rows =
            asked.iter().map(|(channel, peer)| args![channel.as_str(), peer.as_str(), notice.as_str()]).collect();
        let mut found = HashMap::new();
        for row in self.db.batch_rows(sql::PHONE_TRAFFIC, rows).await? {
            let at = |column: &str| row.maybe_int(column).map(|at| at.map(Timestamp));
            let traffic = PhoneTraffic {
                wrote: at("wrote_ms")?,
                delivered: at("delivered_ms")?,
                not_reached: at("not_reached_ms")?,
                left: at("left_ms")?,
            };
            found.insert((ChannelId::stored(row.text("channel_id")?), row.text("peer")?), traffic);
        }
        Ok(found)
    }
}
