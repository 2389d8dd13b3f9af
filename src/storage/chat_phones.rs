//! Which chats phones lead to, on messengers that know people by chats.

use std::collections::HashMap;

use super::db::{Tx, args};
use super::ingest::Ingest;
use super::{Storage, StorageError, sql};
use crate::domain::ids::ChannelId;
use crate::domain::phone::Phone;
use crate::domain::time::Timestamp;

impl Storage {
    /// The chats of these phones on these channels, as the people themselves have told: `(channel, phone)` to the
    /// person's address.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn chats_of(
        &self,
        asked: &[(ChannelId, Phone)],
    ) -> Result<HashMap<(ChannelId, Phone), String>, StorageError> {
        let rows = asked.iter().map(|(channel, phone)| args![channel.as_str(), phone.digits()]).collect();
        let mut found = HashMap::new();
        for row in self.db.batch_rows(sql::CHAT_PHONES_FIND, rows).await? {
            let phone = row.text("phone")?;
            let phone = Phone::from_digits(&phone)
                .ok_or_else(|| StorageError::Broken("chat_phones.phone is no phone".to_owned()))?;
            found.insert((ChannelId::stored(row.text("channel_id")?), phone), row.text("peer")?);
        }
        Ok(found)
    }
}

/// Remembers the phones that people shared. Two of one phone in a batch are one row: the last one counts.
pub(super) async fn write(tx: &mut Tx, now: Timestamp, ingests: &[&Ingest]) -> Result<(), StorageError> {
    let mut shared: HashMap<(&str, &str), &str> = HashMap::new();
    for ingest in ingests {
        for told in &ingest.phones {
            shared.insert((ingest.channel.as_str(), told.phone.digits()), told.peer.as_str());
        }
    }
    let rows = shared.into_iter().map(|((channel, phone), peer)| args![channel, phone, peer, now.0]);
    tx.batch(sql::CHAT_PHONES_PUT, rows.collect()).await?;
    Ok(())
}
