//! What a CRM calls its chats: whose portal an address of chats is, and which chat an operator has begun.

use super::db::args;
use super::{Storage, StorageError, sql};
use crate::domain::chat::{ChatKey, ChatStands};
use crate::domain::ids::PortalId;

impl Storage {
    /// The portal in which something was registered under this key with this very fingerprint.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn portal_registered(&self, key: &str, fingerprint: &str) -> Result<Option<PortalId>, StorageError> {
        let row = self.db.row(sql::CHAT_SCOPE, args![key, fingerprint]).await?;
        row.map(|row| Ok(PortalId::stored(row.text("portal_id")?))).transpose()
    }

    /// An operator has written first to somebody without a chat: remembers what the CRM calls the chat and the person, so
    /// that the client's answer is shown in that chat and not in a second one. May be repeated.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was changed.
    pub async fn begin_chat(
        &self,
        portal: &PortalId,
        stands: &ChatStands,
        (crm_chat, crm_person): (&str, &str),
    ) -> Result<(), StorageError> {
        let ChatStands { chat: ChatKey { channel, peer }, messenger, place } = stands;
        let args = args![
            channel.as_str(),
            peer.as_str(),
            portal.as_str(),
            messenger.code(),
            place.as_str(),
            crm_chat,
            crm_person,
            self.clock.now().0
        ];
        self.db.write(sql::CHAT_BEGUN, args).await?;
        Ok(())
    }
}
