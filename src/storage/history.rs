//! Lists of messages by what no index keeps: their channel and their state, which changes four times in a message's life.
//!
//! A list walks back through the messages by their ids, which tell their time, and no further than a bounded number of them;
//! a page may therefore be short, even empty, and still say where the next one begins.

use super::db::args;
use super::messages::{self, BEHIND_ALL, MessageFilter, MessageHistory};
use super::{Storage, StorageError, sql};
use crate::domain::ids::{ChannelId, MessageId};

/// Most messages that one page walks through.
const WALK: i64 = 10_000;

/// A part of the history, newest first.
#[derive(Clone, PartialEq, Debug)]
pub struct Walked {
    /// What fits the filter, at most as many as it asks for.
    pub found: Vec<MessageHistory>,
    /// All that is older has not been looked at: it is the history before this message. `None` when nothing is older.
    pub rest: Option<MessageId>,
}

impl Storage {
    /// History, newest first, as far as one page may look.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn walk_messages(&self, filter: &MessageFilter) -> Result<Walked, StorageError> {
        self.walk_messages_by(filter, WALK).await
    }

    pub(super) async fn walk_messages_by(&self, filter: &MessageFilter, most: i64) -> Result<Walked, StorageError> {
        // Somebody's messages are found by an index, and everybody's fill the page at once.
        if filter.peer.is_some() || (filter.channel.is_none() && filter.state.is_none()) {
            return Ok(Walked { found: self.list_messages(filter).await?, rest: None });
        }
        let before = filter.before.as_ref().map_or(BEHIND_ALL, MessageId::as_str);
        let end = self.db.row(sql::MESSAGE_AFTER_MANY, args![before, most - 1]).await?;
        let end = end.map(|row| row.text("id")).transpose()?;
        let args = args![
            filter.channel.as_ref().map_or("", ChannelId::as_str),
            filter.state.as_deref().unwrap_or_default(),
            before,
            i64::from(filter.limit),
            end.as_deref().unwrap_or_default(),
        ];
        let rows = self.db.rows(sql::MESSAGES_WALKED, args).await?;
        let found = rows.iter().map(messages::read).collect::<Result<_, _>>()?;
        Ok(Walked { found, rest: end.map(MessageId::stored) })
    }
}
