//! Calls of robots that never came: what the history of stages says, what calls are known, and what is decided about the
//! difference (`docs/adr/0018`).

use std::time::Duration;

use moka::future::Cache;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::db::{Row, args};
use super::{Storage, StorageError, sql};
use crate::domain::ids::{CommandId, PortalId};
use crate::domain::portal::{CardKind, CardRef};
use crate::domain::stage::{LostCall, LostMode, LostState, StageRobot};
use crate::domain::time::{Millis, Timestamp};

/// Calls read at once.
const CALLS_PAGE: i64 = 500;

/// A call of a robot that came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownCall {
    /// What it became.
    pub command: CommandId,
    /// For which card.
    pub card: CardRef,
    /// The robot, in the CRM's own words.
    pub robot: String,
    /// When it came.
    pub received: Timestamp,
    /// Digest of the work asked for.
    pub print: String,
}

/// How far the history of one kind of card has been read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StageLook {
    /// The kind.
    pub kind: CardKind,
    /// The last entry that was judged.
    pub after: i64,
    /// When it was read.
    pub looked: Timestamp,
    /// The CRM's code when it refused to tell; empty when it told.
    pub trouble: String,
}

/// What one look has found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LookResult {
    /// How far it went.
    pub look: StageLook,
    /// Robots of which something new is known.
    pub robots: Vec<StageRobot>,
    /// Calls that did not come.
    pub lost: Vec<LostCall>,
}

/// Which portals have lost calls: nobody else's calls are compared with them.
pub(super) struct LostCache(Cache<PortalId, bool>);

impl LostCache {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(10_000).time_to_live(Duration::from_secs(30)).build())
    }
}

impl Storage {
    /// Portals whose robots have called since a moment, with what is wanted there: a page behind `after`, without those
    /// where nothing is wanted.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn portals_with_robots(
        &self,
        since: Timestamp,
        after: &str,
        limit: u32,
    ) -> Result<Vec<(PortalId, LostMode)>, StorageError> {
        let rows = self.db.rows(sql::PORTALS_WITH_ROBOTS, args![since.0, after, i64::from(limit)]).await?;
        rows.iter().map(|row| Ok((PortalId::stored(row.text("portal_id")?), mode_of(row)?))).collect()
    }

    /// What is wanted about lost calls in a portal.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn lost_mode(&self, portal: &PortalId) -> Result<LostMode, StorageError> {
        let row = self.db.row(sql::LOST_RULE, args![portal.as_str()]).await?;
        row.as_ref().map_or(Ok(LostMode::default()), mode_of)
    }

    /// Keeps it.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was changed.
    pub async fn set_lost_mode(&self, portal: &PortalId, mode: LostMode) -> Result<(), StorageError> {
        let args = args![portal.as_str(), mode.code(), self.clock.now().0];
        self.db.write(sql::LOST_RULE_PUT, args).await?;
        Ok(())
    }

    /// A portal's calls of robots that came at a moment or later, oldest first; not those that were made up for.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn known_calls(&self, portal: &PortalId, since: Timestamp) -> Result<Vec<KnownCall>, StorageError> {
        let (mut from, mut after, mut known) = (since.0, String::new(), Vec::new());
        loop {
            let args = args![portal.as_str(), from, after.as_str(), CALLS_PAGE];
            let rows = self.db.rows(sql::CALLS_OF_PORTAL, args).await?;
            for row in &rows {
                (from, after) = (row.int("received_ms")?, row.text("id")?);
                if !LostCall::is_key(&row.text("dedupe_key")?) {
                    known.extend(read_call(row)?);
                }
            }
            if rows.len() < usize::try_from(CALLS_PAGE).unwrap_or(usize::MAX) {
                return Ok(known);
            }
        }
    }

    /// How far a portal's history has been read.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn stage_looks(&self, portal: &PortalId) -> Result<Vec<StageLook>, StorageError> {
        let rows = self.db.rows(sql::LOOKS_OF_PORTAL, args![portal.as_str()]).await?;
        rows.iter()
            .map(|row| {
                Ok(StageLook {
                    kind: kind_of(row)?,
                    after: row.int("after_id")?,
                    looked: Timestamp(row.int("looked_ms")?),
                    trouble: row.text("trouble")?,
                })
            })
            .collect()
    }

    /// What is known of robots on a portal's stages.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn stage_robots(&self, portal: &PortalId) -> Result<Vec<StageRobot>, StorageError> {
        let rows = self.db.rows(sql::STAGE_ROBOTS_OF_PORTAL, args![portal.as_str()]).await?;
        rows.iter()
            .map(|row| {
                Ok(StageRobot {
                    kind: kind_of(row)?,
                    stage: row.text("stage")?,
                    robot: row.text("robot")?,
                    seen: row.int("seen")?,
                    skipped: row.int("skipped")?,
                    command: CommandId::stored(row.text("command_id")?),
                    card: card_of(row)?,
                    print: row.text("print")?,
                    same: row.int("same")?,
                    seen_at: Timestamp(row.int("seen_ms")?),
                })
            })
            .collect()
    }

    /// Keeps what a look has found, all of it or nothing.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was kept, so the same entries are looked at again.
    pub async fn keep_look(&self, portal: &PortalId, found: &LookResult) -> Result<(), StorageError> {
        let robots = found.robots.iter().map(|robot| {
            args![
                portal.as_str(),
                robot.kind.to_string(),
                robot.stage.as_str(),
                robot.robot.as_str(),
                robot.seen,
                robot.skipped,
                robot.command.as_str(),
                robot.card.to_string(),
                robot.print.as_str(),
                robot.same,
                robot.seen_at.0,
            ]
        });
        let lost = found.lost.iter().map(|lost| {
            args![
                portal.as_str(),
                lost.id.as_str(),
                lost.card.to_string(),
                lost.stage.as_str(),
                lost.robot.as_str(),
                lost.entered.0,
                lost.found.0,
                lost.sure,
                lost.state.code(),
                lost.found.0,
            ]
        });
        let look = &found.look;
        let place = args![portal.as_str(), look.kind.to_string(), look.after, look.looked.0, look.trouble.as_str()];
        let mut tx = self.db.begin().await?;
        tx.batch(sql::STAGE_ROBOTS_PUT, robots.collect()).await?;
        tx.batch(sql::LOST_CALLS_ADD, lost.collect()).await?;
        tx.exec(sql::LOOK_PUT, place).await?;
        tx.commit().await
    }

    /// Lost calls of a portal behind the id `after`, the oldest entries first; all of them, or those of one state.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn lost_calls(
        &self,
        portal: &PortalId,
        state: Option<LostState>,
        after: &str,
        limit: u32,
    ) -> Result<Vec<LostCall>, StorageError> {
        let args = args![portal.as_str(), state.map_or("", LostState::code), after, i64::from(limit)];
        self.db.rows(sql::LOST_CALLS_LIST, args).await?.iter().map(read).collect()
    }

    /// Lost calls of a portal by id; unknown ones are missing.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn lost_calls_by_id(&self, portal: &PortalId, ids: &[String]) -> Result<Vec<LostCall>, StorageError> {
        let rows = ids.iter().map(|id| args![portal.as_str(), id.as_str()]).collect();
        self.db.batch_rows(sql::LOST_CALLS_BY_ID, rows).await?.iter().map(read).collect()
    }

    /// How many lost calls of a portal nobody has decided about.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn lost_calls_open(&self, portal: &PortalId) -> Result<i64, StorageError> {
        let row = self.db.row(sql::LOST_CALLS_OPEN, args![portal.as_str()]).await?;
        row.map_or(Ok(0), |row| row.int("n"))
    }

    /// Calls that were surely lost and that nobody has decided about, for cards that entered at `entered` or later, found
    /// before `found`.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn lost_calls_ready(
        &self,
        portal: &PortalId,
        entered: Timestamp,
        found: Timestamp,
        limit: u32,
    ) -> Result<Vec<LostCall>, StorageError> {
        let args = args![portal.as_str(), entered.0, found.0, i64::from(limit)];
        self.db.rows(sql::LOST_CALLS_READY, args).await?.iter().map(read).collect()
    }

    /// Decides about a lost call; false if somebody has before.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was changed.
    pub async fn decide_lost_call(&self, portal: &PortalId, id: &str, state: LostState) -> Result<bool, StorageError> {
        let args = args![portal.as_str(), id, state.code(), self.clock.now().0];
        Ok(self.db.write(sql::LOST_CALL_DECIDE, args).await? == 1)
    }

    /// Whether calls for cards of a portal that entered a stage since then were given up for lost; asked at most every half
    /// minute, so one that was found since may be missing.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn has_lost_calls(&self, portal: &PortalId, since: Timestamp) -> Result<bool, StorageError> {
        if let Some(known) = self.lost.0.get(portal).await {
            return Ok(known);
        }
        let args = args![portal.as_str(), format!("{:013}", since.0)];
        let any = self.db.row(sql::LOST_CALLS_ANY, args).await?.is_some();
        self.lost.0.insert(portal.clone(), any).await;
        Ok(any)
    }

    /// The lost call that a robot's late call for a card may be: the latest whose card entered between two moments.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn lost_call_of(
        &self,
        portal: &PortalId,
        card: CardRef,
        robot: &str,
        entered: (Timestamp, Timestamp),
    ) -> Result<Option<LostCall>, StorageError> {
        let args = args![portal.as_str(), card.to_string(), robot, entered.0.0, entered.1.0];
        self.db.row(sql::LOST_CALL_OF_CARD, args).await?.as_ref().map(read).transpose()
    }

    /// Whether this process looks for lost calls now: one of all replicas does, every so often.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn claim_lost_calls(&self, by: &str, every: Millis) -> Result<bool, StorageError> {
        let now = self.clock.now();
        let before = now.plus(Millis(-every.0));
        Ok(self.db.write(sql::NOTE_CLAIM, args!["lost_calls", by, now.0, before.0]).await? == 1)
    }
}

fn mode_of(row: &Row) -> Result<LostMode, StorageError> {
    let word = row.text("mode")?;
    LostMode::find(&word).ok_or_else(|| StorageError::Broken(format!("lost_call_rules.mode: {word}")))
}

fn kind_of(row: &Row) -> Result<CardKind, StorageError> {
    let word = row.text("kind")?;
    CardKind::parse(&word).ok_or_else(|| StorageError::Broken(format!("kind of card: {word}")))
}

fn card_of(row: &Row) -> Result<CardRef, StorageError> {
    let word = row.text("card")?;
    CardRef::parse(&word).ok_or_else(|| StorageError::Broken(format!("card: {word}")))
}

fn read(row: &Row) -> Result<LostCall, StorageError> {
    let state = row.text("state")?;
    Ok(LostCall {
        id: row.text("id")?,
        card: card_of(row)?,
        stage: row.text("stage")?,
        robot: row.text("robot")?,
        entered: Timestamp(row.int("entered_ms")?),
        found: Timestamp(row.int("found_ms")?),
        sure: row.flag("sure")?,
        state: LostState::find(&state).ok_or_else(|| StorageError::Broken(format!("lost_calls.state: {state}")))?,
    })
}

/// A stored command as a call of a robot; `None` when no robot asked, or when what it asked for has been forgotten.
fn read_call(row: &Row) -> Result<Option<KnownCall>, StorageError> {
    #[derive(Deserialize)]
    struct Asked {
        card: Option<CardRef>,
        #[serde(default)]
        robot: Option<String>,
        body: Value,
    }
    let Ok(asked) = serde_json::from_str::<Asked>(&row.text("payload")?) else { return Ok(None) };
    let (Some(card), Some(robot)) = (asked.card, asked.robot) else { return Ok(None) };
    let digest = Sha256::digest(asked.body.to_string().as_bytes());
    let print = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let received = Timestamp(row.int("received_ms")?);
    Ok(Some(KnownCall { command: CommandId::stored(row.text("id")?), card, robot, received, print }))
}
