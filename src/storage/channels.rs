//! Lines and their channels. Credentials are sealed; what is read often is kept in memory for a short while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;

use super::db::{Row, args};
use super::{Storage, StorageError, sql};
use crate::domain::channel::{Channel, ChannelSettings, ChannelState, Line, Ramp};
use crate::domain::guards::LineSettings;
use crate::domain::ids::{ChannelId, LineId, PortalId};
use crate::domain::time::Timestamp;

/// How long another process's change may stay unseen.
const FRESH: Duration = Duration::from_secs(10);

/// What is kept in memory of lines and channels.
pub(super) struct ChannelCache {
    channels: Cache<ChannelId, Arc<Channel>>,
    lines: Cache<PortalId, Arc<Vec<Line>>>,
    line: Cache<LineId, Arc<Line>>,
    of_line: Cache<LineId, Arc<Vec<Arc<Channel>>>>,
}

impl ChannelCache {
    pub(super) fn new() -> Self {
        Self {
            channels: Cache::builder().max_capacity(10_000).time_to_live(FRESH).build(),
            lines: Cache::builder().max_capacity(10_000).time_to_live(FRESH).build(),
            line: Cache::builder().max_capacity(10_000).time_to_live(FRESH).build(),
            of_line: Cache::builder().max_capacity(10_000).time_to_live(FRESH).build(),
        }
    }

    fn forget(&self) {
        self.channels.invalidate_all();
        self.lines.invalidate_all();
        self.line.invalidate_all();
        self.of_line.invalidate_all();
    }
}

/// A channel about to be added.
#[derive(Clone)]
pub struct NewChannel {
    /// The line it joins.
    pub line: LineId,
    /// Registry id of its provider.
    pub provider: String,
    /// Its name for people.
    pub name: String,
    /// Credentials in clear; sealed before they touch the disk.
    pub credentials: BTreeMap<String, String>,
    /// Options.
    pub settings: ChannelSettings,
}

impl Storage {
    /// Adds a line.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn add_line(&self, name: &str) -> Result<Line, StorageError> {
        let id = LineId::new(&self.ids.ulid());
        self.db.write(sql::LINE_ADD, args![id.as_str(), name, self.clock.now().0]).await?;
        self.channels.forget();
        Ok(Line { id, name: name.to_owned(), settings: LineSettings::default() })
    }

    /// One line, as of at most ten seconds ago.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn find_line(&self, id: &LineId) -> Result<Option<Arc<Line>>, StorageError> {
        if let Some(known) = self.channels.line.get(id).await {
            return Ok(Some(known));
        }
        let Some(line) = self.line_now(id).await?.map(Arc::new) else { return Ok(None) };
        self.channels.line.insert(id.clone(), Arc::clone(&line)).await;
        Ok(Some(line))
    }

    /// Changes what holds for a line's messages, from the next one planned on (by other processes within ten seconds).
    ///
    /// # Errors
    /// [`StorageError`]; nothing was changed.
    pub async fn set_line_settings(&self, id: &LineId, settings: &LineSettings) -> Result<(), StorageError> {
        let text = serde_json::to_string(settings).map_err(|e| StorageError::Broken(e.to_string()))?;
        self.db.write(sql::LINE_SETTINGS, args![id.as_str(), text]).await?;
        self.channels.forget();
        Ok(())
    }

    /// Lines, oldest first, those after `after` (`None` is the beginning).
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn lines(&self, after: Option<&LineId>, limit: u32) -> Result<Vec<Line>, StorageError> {
        let after = after.map_or("", LineId::as_str);
        self.db.rows(sql::LINES, args![after, i64::from(limit)]).await?.iter().map(read_line).collect()
    }

    /// One line as it is now, for whoever changes it.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn line_now(&self, id: &LineId) -> Result<Option<Line>, StorageError> {
        self.db.row(sql::LINE_GET, args![id.as_str()]).await?.as_ref().map(read_line).transpose()
    }

    /// Adds a channel to a line.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn add_channel(&self, new: NewChannel) -> Result<ChannelId, StorageError> {
        let id = ChannelId::new(&self.ids.ulid());
        let json = |value: Result<String, serde_json::Error>| value.map_err(|e| StorageError::Broken(e.to_string()));
        let credentials = self.sealer.seal(&place(&id), &json(serde_json::to_string(&new.credentials))?)?;
        let settings = json(serde_json::to_string(&new.settings))?;
        let now = self.clock.now().0;
        let args = args![id.as_str(), new.line.as_str(), new.provider, new.name, credentials, settings, now];
        self.db.write(sql::CHANNEL_ADD, args).await?;
        self.channels.forget();
        Ok(id)
    }

    /// One channel with its credentials, as of at most ten seconds ago.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn find_channel(&self, id: &ChannelId) -> Result<Option<Arc<Channel>>, StorageError> {
        if let Some(known) = self.channels.channels.get(id).await {
            return Ok(Some(known));
        }
        let Some(row) = self.db.row(sql::CHANNEL_GET, args![id.as_str()]).await? else { return Ok(None) };
        let channel = Arc::new(self.read_channel(&row)?);
        self.channels.channels.insert(id.clone(), Arc::clone(&channel)).await;
        Ok(Some(channel))
    }

    /// Channels with their credentials, oldest first, those after `after` (`None` is the beginning).
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn channels(&self, after: Option<&ChannelId>, limit: u32) -> Result<Vec<Channel>, StorageError> {
        let after = after.map_or("", ChannelId::as_str);
        let rows = self.db.rows(sql::CHANNELS, args![after, i64::from(limit)]).await?;
        rows.iter().map(|row| self.read_channel(row)).collect()
    }

    /// Channels of one provider with their credentials, oldest first, those after `after` (`None` is the beginning).
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn channels_of_provider(
        &self,
        provider: &str,
        after: Option<&ChannelId>,
        limit: u32,
    ) -> Result<Vec<Channel>, StorageError> {
        let after = after.map_or("", ChannelId::as_str);
        let rows = self.db.rows(sql::CHANNELS_OF_PROVIDER, args![provider, after, i64::from(limit)]).await?;
        rows.iter().map(|row| self.read_channel(row)).collect()
    }

    /// How many channels are paused.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn count_paused_channels(&self) -> Result<i64, StorageError> {
        let row = self.db.row(sql::CHANNELS_PAUSED, vec![]).await?;
        row.map_or(Ok(0), |row| row.int("n"))
    }

    /// Channels of one line, oldest first: the line's order of preference. As of at most ten seconds ago.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn channels_of_line(&self, line: &LineId) -> Result<Arc<Vec<Arc<Channel>>>, StorageError> {
        if let Some(known) = self.channels.of_line.get(line).await {
            return Ok(known);
        }
        let rows = self.db.rows(sql::CHANNELS_OF_LINE, args![line.as_str()]).await?;
        let channels =
            rows.iter().map(|row| Ok(Arc::new(self.read_channel(row)?))).collect::<Result<_, StorageError>>()?;
        let channels: Arc<Vec<Arc<Channel>>> = Arc::new(channels);
        self.channels.of_line.insert(line.clone(), Arc::clone(&channels)).await;
        Ok(channels)
    }

    /// Pauses (with a reason for people) or resumes a channel, which then sends as fast as it may unless a ramp is given.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn set_channel_state(
        &self,
        id: &ChannelId,
        state: &ChannelState,
        ramp: Option<Ramp>,
    ) -> Result<(), StorageError> {
        let (word, reason) = match state {
            ChannelState::Active => ("active", ""),
            ChannelState::Paused(reason) => ("paused", reason.as_str()),
        };
        let ramp = ramp.map(|ramp| serde_json::to_string(&ramp)).transpose();
        let ramp = ramp.map_err(|e| StorageError::Broken(e.to_string()))?;
        self.db.write(sql::CHANNEL_STATE, args![id.as_str(), word, reason, ramp, self.clock.now().0]).await?;
        self.channels.forget();
        Ok(())
    }

    /// Until when the channel's way back has proven to work: the time at which the latest message was accepted whose
    /// echo has come.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn channel_echo(&self, id: &ChannelId) -> Result<Option<Timestamp>, StorageError> {
        let row = self.db.row(sql::CHANNEL_GET, args![id.as_str()]).await?;
        Ok(row.map(|row| row.maybe_int("echo_ms")).transpose()?.flatten().map(Timestamp))
    }

    /// Lets a portal use a line.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn bind_line(&self, portal: &PortalId, line: &LineId) -> Result<(), StorageError> {
        self.db.write(sql::BIND, args![portal.as_str(), line.as_str(), self.clock.now().0]).await?;
        self.channels.forget();
        Ok(())
    }

    /// Takes a line from a portal; false when it was not bound.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn unbind_line(&self, portal: &PortalId, line: &LineId) -> Result<bool, StorageError> {
        let changed = self.db.write(sql::UNBIND, args![portal.as_str(), line.as_str()]).await?;
        self.channels.forget();
        Ok(changed > 0)
    }

    /// Lines a portal may use, oldest first, as of at most ten seconds ago.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn lines_of_portal(&self, portal: &PortalId) -> Result<Arc<Vec<Line>>, StorageError> {
        if let Some(known) = self.channels.lines.get(portal).await {
            return Ok(known);
        }
        let rows = self.db.rows(sql::LINES_OF_PORTAL, args![portal.as_str()]).await?;
        let lines = Arc::new(rows.iter().map(read_line).collect::<Result<Vec<_>, _>>()?);
        self.channels.lines.insert(portal.clone(), Arc::clone(&lines)).await;
        Ok(lines)
    }

    fn read_channel(&self, row: &Row) -> Result<Channel, StorageError> {
        let id = ChannelId::stored(row.text("id")?);
        let broken = |what: &str, e: serde_json::Error| StorageError::Broken(format!("channels.{what} of {id}: {e}"));
        let credentials = self.sealer.open(&place(&id), &row.text("credentials")?)?;
        let state = match row.text("state")?.as_str() {
            "paused" => ChannelState::Paused(row.text("state_reason")?),
            _ => ChannelState::Active,
        };
        let ramp = row.maybe_text("ramp")?.map(|ramp| serde_json::from_str(&ramp));
        Ok(Channel {
            line: LineId::stored(row.text("line_id")?),
            provider: row.text("provider")?,
            name: row.text("name")?,
            credentials: serde_json::from_str(&credentials).map_err(|e| broken("credentials", e))?,
            settings: serde_json::from_str(&row.text("settings")?).map_err(|e| broken("settings", e))?,
            ramp: ramp.transpose().map_err(|e| broken("ramp", e))?,
            state,
            id,
        })
    }
}

fn read_line(row: &Row) -> Result<Line, StorageError> {
    let id = LineId::stored(row.text("id")?);
    let settings = serde_json::from_str(&row.text("settings")?)
        .map_err(|e| StorageError::Broken(format!("lines.settings of {id}: {e}")))?;
    Ok(Line { id, name: row.text("name")?, settings })
}

/// Where a channel's credentials are sealed to.
fn place(id: &ChannelId) -> String {
    format!("channels.credentials:{id}")
}
