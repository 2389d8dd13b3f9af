//! What operators did to messages they had written earlier: which change counts, and which messages it is about.

use super::db::args;
use super::{Storage, StorageError, sql};
use crate::domain::chat::{AnswerChange, OperatorMessage};
use crate::domain::ids::{ChannelId, CommandId, MessageId, PortalId, ProviderMessageId};
use crate::domain::message::{ChangeKind, MessageRecord};

/// What makes the messages of an operator unique in their portal; a change has a longer one that begins with it.
#[must_use]
pub fn key_of(number: &str) -> String {
    format!("chat:{number}")
}

impl Storage {
    /// Gives a change the turn of its message; false when a later change or a deletion has it. May be repeated.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was changed.
    pub async fn take_change(
        &self,
        portal: &PortalId,
        command: &CommandId,
        answer: &OperatorMessage,
        change: &AnswerChange,
    ) -> Result<bool, StorageError> {
        let key = format!("{portal}:{}", answer.reference.message);
        let gone = i64::from(change.kind == ChangeKind::Withdraw);
        let now = self.clock.now();
        let args = args![key, portal.as_str(), command.as_str(), change.raised.0, gone, now.0];
        Ok(self.db.write(sql::CHAT_CHANGE_TAKE, args).await? > 0)
    }

    /// True while no later change has taken the turn of this one.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn change_stands(&self, command: &CommandId) -> Result<bool, StorageError> {
        Ok(self.db.row(sql::CHAT_CHANGE_STANDS, args![command.as_str()]).await?.is_some())
    }

    /// The command of the operator's message that a portal knows by this number, if it is still kept.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn answer_numbered(&self, portal: &PortalId, number: &str) -> Result<Option<CommandId>, StorageError> {
        let row = self.db.row(sql::COMMAND_BY_KEY, args![portal.as_str(), key_of(number)]).await?;
        row.map(|row| Ok(CommandId::stored(row.text("id")?))).transpose()
    }

    /// The messages that a change is about, in the order they were made: those with these ids of the vendor, and every part
    /// of what the portal knows by this number.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn messages_changed(
        &self,
        portal: &PortalId,
        channel: &ChannelId,
        number: &str,
        of: &[ProviderMessageId],
    ) -> Result<Vec<MessageRecord>, StorageError> {
        let asked = of.iter().map(|id| args![channel.as_str(), id.as_str()]).collect();
        let rows = self.db.batch_rows(sql::MESSAGES_BY_PROVIDER_ID, asked).await?;
        let ids: Result<Vec<MessageId>, StorageError> =
            rows.iter().map(|row| Ok(MessageId::stored(row.text("id")?))).collect();
        let mut found = self.load_messages(&ids?).await?;
        if let Some(command) = self.answer_numbered(portal, number).await? {
            let own = self.messages_of_commands(std::slice::from_ref(&command)).await?.remove(&command);
            found.extend(own.unwrap_or_default());
        }
        found.sort_by(|one, other| one.id.as_str().cmp(other.id.as_str()));
        found.dedup_by(|one, other| one.id == other.id);
        Ok(found)
    }
}
