//! What the pages inside a CRM read: signs of life of a portal, dialogs with the people of a card, and the passes with
//! which a page calls back.

use std::time::Duration;

use moka::future::Cache;

use super::db::args;
use super::messages::{MessageHistory, read};
use super::writer::Step;
use super::{Storage, StorageError, sql};
use crate::domain::ids::{ChannelId, PortalId};
use crate::domain::portal::CardRef;
use crate::domain::time::Timestamp;

/// What a pass is sealed for; a value sealed for any other place does not open as one.
const PASS: &str = "page.pass";

/// What a portal has called us with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sign {
    /// Any event.
    Event,
    /// A robot.
    Robot,
    /// The event that we asked for to see whether events come through.
    Test,
}

impl Sign {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Event, Self::Robot, Self::Test];

    /// The word in the database.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Robot => "robot",
            Self::Test => "test",
        }
    }
}

/// Portals whose calls were written down a moment ago: thousands of robots an hour are one row.
pub(super) struct Heard(Cache<(PortalId, Sign), ()>);

impl Heard {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(20_000).time_to_live(Duration::from_secs(60)).build())
    }
}

/// How a portal shows that it is there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Signs {
    /// When it last called, by kind; missing kinds have never come.
    pub seen: Vec<(Sign, Timestamp)>,
    /// When it last gave tokens that still live; `None` without living tokens.
    pub tokens: Option<Timestamp>,
}

impl Signs {
    /// When it last called with this.
    #[must_use]
    pub fn last(&self, sign: Sign) -> Option<Timestamp> {
        self.seen.iter().find(|(kind, _)| *kind == sign).map(|(_, at)| *at)
    }
}

/// What a channel knows of one person.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownPerson {
    /// The channel.
    pub channel: ChannelId,
    /// Their name at the messenger; may be empty.
    pub name: String,
    /// When they last wrote.
    pub last_inbound: Option<Timestamp>,
}

impl Storage {
    /// Writes down that a portal has just called, if that was not done within the last minute. Somebody waits for a
    /// test, so that is written at once.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was changed.
    pub async fn note_sign(&self, portal: &PortalId, sign: Sign) -> Result<(), StorageError> {
        if sign != Sign::Test {
            let key = (portal.clone(), sign);
            if self.heard.0.contains_key(&key) {
                return Ok(());
            }
            self.heard.0.insert(key, ()).await;
        }
        // With what else is being written: a commit of its own per portal and minute would be many.
        self.writer.write(Step::Sign(portal.clone(), sign)).await?;
        Ok(())
    }

    /// When a portal last called and last gave tokens.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn signs(&self, portal: &PortalId) -> Result<Signs, StorageError> {
        let mut signs = Signs::default();
        for row in self.db.rows(sql::SIGNS_OF_PORTAL, args![portal.as_str()]).await? {
            let word = row.text("kind")?;
            let sign = Sign::ALL.into_iter().find(|sign| sign.code() == word);
            let sign = sign.ok_or_else(|| StorageError::Broken(format!("portal_signs.kind: {word}")))?;
            signs.seen.push((sign, Timestamp(row.int("at_ms")?)));
        }
        let row = self.db.row(sql::TOKENS_OBTAINED, args![portal.as_str()]).await?;
        signs.tokens = row.map(|row| row.maybe_int("at_ms")).transpose()?.flatten().map(Timestamp);
        Ok(signs)
    }

    /// Messages with one person on the channels of a portal's lines, newest first; none that another portal has sent.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn messages_with(
        &self,
        portal: &PortalId,
        peer: &str,
        limit: u32,
    ) -> Result<Vec<MessageHistory>, StorageError> {
        let args = args![peer, portal.as_str(), i64::from(limit)];
        self.db.rows(sql::MESSAGES_WITH_PERSON, args).await?.iter().map(read).collect()
    }

    /// What the channels of a portal's lines know of one person.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn known_person(&self, portal: &PortalId, peer: &str) -> Result<Vec<KnownPerson>, StorageError> {
        let rows = self.db.rows(sql::DIALOGS_WITH_PERSON, args![peer, portal.as_str()]).await?;
        rows.iter()
            .map(|row| {
                Ok(KnownPerson {
                    channel: ChannelId::stored(row.text("channel_id")?),
                    name: row.text("name")?,
                    last_inbound: row.maybe_int("last_inbound_ms")?.map(Timestamp),
                })
            })
            .collect()
    }

    /// Whom people wrote to on a card's page: channel and address.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn written_to(&self, portal: &PortalId, card: CardRef) -> Result<Vec<(ChannelId, String)>, StorageError> {
        let rows = self.db.rows(sql::WRITTEN_TO_ON_CARD, args![portal.as_str(), card.to_string()]).await?;
        rows.iter().map(|row| Ok((ChannelId::stored(row.text("channel_id")?), row.text("peer")?))).collect()
    }

    /// Seals what a page is allowed, so that the page can carry it without being able to read or change it.
    ///
    /// # Errors
    /// [`StorageError::Config`] without a master key.
    pub fn seal_pass(&self, text: &str) -> Result<String, StorageError> {
        self.sealer.seal(PASS, text)
    }

    /// Opens what [`Storage::seal_pass`] sealed; `None` for anything else.
    #[must_use]
    pub fn open_pass(&self, sealed: &str) -> Option<String> {
        self.sealer.open(PASS, sealed).ok()
    }
}
