//! Calls of robots that never came: the CRM makes each once, so a call that is lost on its way is a message that nobody
//! misses but the client. Who entered a stage is compared with the calls that came; what is missing is shown, and done
//! when a person says so, or a rule (`docs/adr/0018`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Pipeline;
use crate::crm::Stages;
use crate::domain::command::{Command, CommandBody};
use crate::domain::effect::{CrmError, PortalTrouble};
use crate::domain::ids::{CommandId, PortalId};
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::portal::{CardKind, CardRef, Portal, PortalState};
use crate::domain::stage::{LostCall, LostMode, LostState, StageEntry, StageRobot};
use crate::domain::time::{Millis, Timestamp};
use crate::http::verified::Verified;
use crate::storage::StorageError;
use crate::storage::accept::Accept;
use crate::storage::lost_calls::{KnownCall, LookResult, StageLook};

/// Portals whose robots have been silent for longer are not asked.
const SILENT: Millis = Millis::hours(14 * 24);
/// Our clock and the CRM's may differ by so much.
const SKEW: Millis = Millis::minutes(1);
/// A portal that called within so long before or after a moment reached us then.
const NEAR: Millis = Millis::minutes(2);
/// A portal that could not be asked for so long is begun anew: all its calls since then would have to be read.
const STALE: Millis = Millis::hours(3 * 24);
/// Most pages of one kind of card read in one look; the next one goes on.
const PAGES_MAX: usize = 40;
/// Calls that must stay free in a portal's bucket: results for waiting robots go first.
const SPARE: f64 = 5.0;
/// Most calls that one pass of the rule makes up for, by portal.
const REPLAYS: u32 = 200;
/// Portals read at once.
const PORTALS: u32 = 200;

/// When lost calls are looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LostCallSettings {
    /// How often; zero is never.
    pub every: Millis,
    /// A call that has not come so long after the entry is lost.
    pub after: Millis,
}

/// What became of the wish to make up for one lost call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplayEnd {
    /// Its work is done now.
    Done,
    /// It was not open (any more): decided before, come after all, or the card stands elsewhere.
    Settled(LostState),
    /// What the robot asks for differs from card to card, or is not known any more: somebody has to say it.
    WorkUnknown,
    /// The CRM did not tell where the card stands; it stays open.
    NotAsked,
}

/// Looks until `stop`. With several replicas each pass is made by one of them.
pub(super) async fn run(pipeline: Arc<Pipeline>, stop: CancellationToken) {
    let every = pipeline.settings.lost_calls.every;
    if every.0 <= 0 {
        // Switched off. Work that goes on beside the scheduler may not end before it does.
        return stop.cancelled().await;
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(every.to_duration()) => {}
            () = stop.cancelled() => return,
        }
        // A little less than the whole time, so that the length of the last pass skips none.
        let looked = match pipeline.storage.claim_lost_calls(pipeline.worker.as_str(), Millis(every.0 / 10 * 9)).await {
            Ok(true) => pass(&pipeline, &stop).await,
            Ok(false) => continue,
            Err(error) => Err(error),
        };
        if let Err(error) = looked {
            tracing::warn!(%error, "calls that never came could not be looked for");
        }
    }
}

async fn pass(pipeline: &Pipeline, stop: &CancellationToken) -> Result<(), StorageError> {
    let (since, mut after) = (pipeline.clock.now().plus(Millis(-SILENT.0)), String::new());
    loop {
        let portals = pipeline.storage.portals_with_robots(since, &after, PORTALS).await?;
        for (portal, mode) in &portals {
            if stop.is_cancelled() {
                return Ok(());
            }
            // One portal's trouble is not another's.
            if let Err(error) = pipeline.look_for_lost_calls(portal, *mode).await {
                tracing::warn!(%error, portal.id = %portal, "calls that never came could not be looked for");
            }
        }
        match portals.last() {
            Some((last, _)) if portals.len() >= PORTALS as usize => after = last.to_string(),
            Some(_) | None => return Ok(()),
        }
    }
}

/// What one look at a portal knows.
struct Look {
    now: Timestamp,
    after: Millis,
    calls: HashMap<CardRef, Vec<KnownCall>>,
    /// When any robot of the portal called, in order.
    heard: Vec<Timestamp>,
    robots: BTreeMap<(String, String), StageRobot>,
}

impl Pipeline {
    /// Compares one portal's history of stages with its calls, and does what the rule says.
    async fn look_for_lost_calls(&self, portal: &PortalId, mode: LostMode) -> Result<(), StorageError> {
        let Some(known) = self.storage.portal(portal).await? else { return Ok(()) };
        let Some(stages) = self.stages(&known.portal) else { return Ok(()) };
        let now = self.clock.now();
        let looks = self.storage.stage_looks(portal).await?;
        let fresh = |look: &&StageLook| !is_stale(look, now);
        let last = looks.iter().filter(fresh).map(|look| look.looked).min().unwrap_or(now);
        // Entries that were too young last time, and calls that came before them by our clock.
        let since = last.plus(Millis(-2 * self.settings.lost_calls.after.0 - SKEW.0 - NEAR.0));
        let calls = self.storage.known_calls(portal, since).await?;
        let mut kinds: Vec<CardKind> = looks.iter().map(|look| look.kind).collect();
        for call in &calls {
            if !kinds.contains(&call.card.kind) {
                kinds.push(call.card.kind);
            }
        }
        for kind in kinds {
            if self.crms.get(&known.portal.crm).is_none_or(|crm| crm.budget(&known.portal, now).calls < SPARE) {
                return Ok(());
            }
            let known_look = looks.iter().find(|look| look.kind == kind);
            self.look_at_kind(&known.portal, stages, kind, known_look, &calls, now).await?;
        }
        match mode {
            LostMode::Replay => self.replay_by_rule(portal, now).await,
            LostMode::Off | LostMode::Ask => Ok(()),
        }
    }

    fn stages(&self, portal: &Portal) -> Option<&dyn Stages> {
        let crm = self.crms.get(&portal.crm).filter(|_| portal.state == PortalState::Installed)?;
        crm.stages()
    }

    async fn look_at_kind(
        &self,
        portal: &Portal,
        stages: &dyn Stages,
        kind: CardKind,
        known: Option<&StageLook>,
        calls: &[KnownCall],
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let nothing = |look: StageLook| LookResult { look, robots: Vec::new(), lost: Vec::new() };
        let Some(known) = known.filter(|known| !is_stale(known, now)) else {
            // From here on: what was before our time, or while nobody could look, is not judged by half of what is known.
            let look = match stages.newest_entry(portal, kind).await {
                Ok(after) => StageLook { kind, after, looked: now, trouble: String::new() },
                Err(error) if refused(&error) => closed(kind, now, error),
                Err(error) => {
                    tracing::info!(%error, portal.id = %portal.id, "the history of stages was not read");
                    return Ok(());
                }
            };
            return self.storage.keep_look(&portal.id, &nothing(look)).await;
        };
        let robots = self.storage.stage_robots(&portal.id).await?;
        let own = robots.into_iter().filter(|robot| robot.kind == kind);
        let robots = own.map(|robot| ((robot.stage.clone(), robot.robot.clone()), robot)).collect();
        let mut look = Look::new(now, self.settings.lost_calls.after, calls, robots);
        let mut after = known.after;
        for _ in 0..PAGES_MAX {
            let page = match stages.entries(portal, kind, after).await {
                Ok(page) => page,
                Err(error) if refused(&error) => {
                    return self.storage.keep_look(&portal.id, &nothing(closed(kind, now, error))).await;
                }
                Err(error) => {
                    tracing::info!(%error, portal.id = %portal.id, "the history of stages was not read");
                    return Ok(());
                }
            };
            let young = page.entries.iter().position(|entry| entry.entered.plus(look.after) > now);
            let (old, rest) = page.entries.split_at(young.unwrap_or(page.entries.len()));
            let (changed, lost) = look.judge(old, rest);
            after = old.last().map_or(after, |entry| entry.id);
            // What is left to judge next time sets how far back calls are read then.
            let behind = page.more && young.is_none();
            let looked = if behind { known.looked } else { now };
            if !lost.is_empty() {
                tracing::warn!(portal.id = %portal.id, count = lost.len(), "robots did not call for cards that entered their stages");
            }
            let look_now = StageLook { kind, after, looked, trouble: String::new() };
            let found = LookResult { look: look_now, robots: changed, lost };
            self.storage.keep_look(&portal.id, &found).await?;
            if !behind {
                break;
            }
        }
        Ok(())
    }

    /// Makes up for what was surely lost, is not too old, and was found in an earlier look: a call that was being stored
    /// during that one is known by now.
    async fn replay_by_rule(&self, portal: &PortalId, now: Timestamp) -> Result<(), StorageError> {
        let entered = now.plus(Millis(-self.settings.not_after.0));
        let ready = self.storage.lost_calls_ready(portal, entered, now, REPLAYS).await?;
        if ready.is_empty() {
            return Ok(());
        }
        let ends = self.replay(portal, ready, None).await?;
        let done = ends.iter().filter(|(_, end)| *end == ReplayEnd::Done).count();
        tracing::info!(portal.id = %portal, done, asked = ends.len(), "lost calls were made up for by rule");
        Ok(())
    }

    /// Does the work of lost calls, each at most once however often it is asked for. `body` is the work when a person
    /// says what it is; otherwise it is what the robot asks for every card.
    ///
    /// # Errors
    /// [`StorageError`]; may be repeated.
    pub async fn replay(
        &self,
        portal: &PortalId,
        lost: Vec<LostCall>,
        body: Option<&CommandBody>,
    ) -> Result<Vec<(String, ReplayEnd)>, StorageError> {
        let Some(known) = self.storage.portal(portal).await? else { return Ok(Vec::new()) };
        let Some(stages) = self.stages(&known.portal) else {
            return Ok(lost.into_iter().map(|lost| (lost.id, ReplayEnd::NotAsked)).collect());
        };
        let cards: Vec<CardRef> = lost.iter().map(|lost| lost.card).collect();
        let standing = stages.stages_of(&known.portal, &cards).await;
        let first = lost.iter().map(|lost| lost.entered).min().unwrap_or(self.clock.now());
        let calls = self.storage.known_calls(portal, first.plus(Millis(-SKEW.0))).await?;
        let robots = self.storage.stage_robots(portal).await?;
        let mut ends = Vec::with_capacity(lost.len());
        for (lost, stands) in lost.into_iter().zip(standing) {
            let end = match (lost.state, stands) {
                (LostState::Open, Ok(stage)) if stage.as_ref() != Some(&lost.stage) => LostState::MovedOn.into(),
                (LostState::Open, Ok(_)) if came(&lost, &calls) => LostState::Came.into(),
                (LostState::Open, Ok(_)) => self.make_up(portal, &lost, body, &robots).await?,
                (LostState::Open, Err(error)) => {
                    tracing::info!(%error, portal.id = %portal, "where a card stands was not told");
                    ReplayEnd::NotAsked
                }
                (decided, _) => decided.into(),
            };
            let state = match end {
                ReplayEnd::Done => Some(LostState::Replayed),
                ReplayEnd::Settled(state) => Some(state),
                ReplayEnd::WorkUnknown | ReplayEnd::NotAsked => None,
            };
            if let Some(state) = state {
                self.storage.decide_lost_call(portal, &lost.id, state).await?;
            }
            ends.push((lost.id, end));
        }
        Ok(ends)
    }

    async fn make_up(
        &self,
        portal: &PortalId,
        lost: &LostCall,
        body: Option<&CommandBody>,
        robots: &[StageRobot],
    ) -> Result<ReplayEnd, StorageError> {
        let sample = self.sample(lost, robots, body.is_none()).await?;
        let Some(body) = body.or(sample.as_ref().map(|sample| &sample.body)) else { return Ok(ReplayEnd::WorkUnknown) };
        let command = Command {
            id: CommandId::new(&self.ids.ulid()),
            portal: portal.clone(),
            dedupe_key: lost.dedupe_key(),
            card: Some(lost.card),
            reply: None,
            comment: sample.as_ref().is_none_or(|sample| sample.comment),
            responsible: sample.as_ref().and_then(|sample| sample.responsible.clone()),
            received: self.clock.now(),
            robot: Some(lost.robot.clone()),
            body: body.clone(),
        };
        Ok(match self.storage.accept(command).await? {
            Accept::New => ReplayEnd::Done,
            // Made up for before the row said so, or it came in this very moment: done either way, and once.
            Accept::Duplicate => ReplayEnd::Settled(LostState::Replayed),
        })
    }

    /// The last call of a robot, if it is still known; with `constant`, only if its work is the same for every card.
    async fn sample(
        &self,
        lost: &LostCall,
        robots: &[StageRobot],
        constant: bool,
    ) -> Result<Option<Command>, StorageError> {
        let robot = robots
            .iter()
            .find(|robot| robot.kind == lost.card.kind && robot.stage == lost.stage && robot.robot == lost.robot);
        let Some(robot) = robot.filter(|robot| !constant || robot.is_constant()) else { return Ok(None) };
        let mut stored = self.storage.load_commands(std::slice::from_ref(&robot.command)).await?;
        let command = stored.remove(&robot.command).and_then(|stored| stored.command.ok());
        Ok(command.filter(|command| !constant || command.body.is_for_any_card()))
    }

    /// Takes over a call of a robot that the CRM has held back for long: if it was given up for lost, both are one
    /// request, whichever comes first. `sent` is when the CRM made the call, by its clock.
    ///
    /// # Errors
    /// [`StorageError`]: the CRM must be told to come again.
    pub async fn accept_call(
        &self,
        command: Verified<Command>,
        sent: Option<Timestamp>,
    ) -> Result<Accept, StorageError> {
        let Some(lost) = self.lost_call_behind(command.get(), sent).await? else { return self.accept(command).await };
        let command = command.into_inner();
        let one = Command { dedupe_key: lost.dedupe_key(), ..command.clone() };
        if self.storage.accept(one).await? == Accept::New {
            self.storage.decide_lost_call(&command.portal, &lost.id, LostState::Came).await?;
            return Ok(Accept::New);
        }
        if lost.state != LostState::Replayed || command.reply.is_none() {
            return Ok(Accept::Duplicate);
        }
        // Its work was done without it. The robot waits all the same, and is told so.
        tracing::info!(portal.id = %command.portal, "a call came that was made up for already");
        let failure = Failure::with(ErrorCode::DuplicateText, "replayed");
        let told = Command { body: CommandBody::Invalid { failure }, comment: false, ..command };
        self.storage.accept(told).await
    }

    /// The lost call that this call is. One that comes at once is only compared with what was done already: a portal that
    /// called late for reasons of its own (a delay that was added, a queue of robots that stood still) says a fresh time.
    async fn lost_call_behind(
        &self,
        command: &Command,
        sent: Option<Timestamp>,
    ) -> Result<Option<LostCall>, StorageError> {
        let settings = self.settings.lost_calls;
        let late = SKEW.0.min(settings.after.0 / 2);
        let (Some(sent), Some(card), Some(robot)) = (sent, command.card, command.robot.as_deref()) else {
            return Ok(None);
        };
        if settings.every.0 <= 0 {
            return Ok(None);
        }
        let is_late = command.received.since(sent).0 >= late;
        let from = sent.plus(Millis(-if is_late { settings.after.0 } else { self.settings.not_after.0 }));
        if !is_late && !self.storage.has_lost_calls(&command.portal, from).await? {
            return Ok(None);
        }
        let found = self.storage.lost_call_of(&command.portal, card, robot, (from, sent.plus(SKEW))).await?;
        Ok(found.filter(|lost| is_late || lost.state == LostState::Replayed))
    }
}

impl From<LostState> for ReplayEnd {
    fn from(state: LostState) -> Self {
        Self::Settled(state)
    }
}

/// Where no history is told: it is begun anew when it is.
fn closed(kind: CardKind, now: Timestamp, error: CrmError) -> StageLook {
    StageLook { kind, after: i64::MAX, looked: now, trouble: error.code }
}

/// Nothing can be gone on from: too much was missed, or the history was not told.
fn is_stale(look: &StageLook, now: Timestamp) -> bool {
    look.after == i64::MAX || now.since(look.looked).0 > STALE.0
}

/// A call for this entry has come by now.
fn came(lost: &LostCall, calls: &[KnownCall]) -> bool {
    let from = lost.entered.plus(Millis(-SKEW.0));
    calls.iter().any(|call| call.card == lost.card && call.robot == lost.robot && call.received >= from)
}

/// The portal does not allow to ask (rights, plan, kind of card), rather than being in trouble for now.
fn refused(error: &CrmError) -> bool {
    use crate::domain::outcome::FailureClass;
    match error.class {
        FailureClass::NotPermitted | FailureClass::Rejected => error.portal == PortalTrouble::None,
        FailureClass::Misconfigured
        | FailureClass::Throttled
        | FailureClass::Unavailable
        | FailureClass::Indeterminate => false,
    }
}

impl Look {
    fn new(now: Timestamp, after: Millis, calls: &[KnownCall], robots: BTreeMap<(String, String), StageRobot>) -> Self {
        let mut by_card: HashMap<CardRef, Vec<KnownCall>> = HashMap::new();
        for call in calls {
            by_card.entry(call.card).or_default().push(call.clone());
        }
        let mut heard: Vec<Timestamp> = calls.iter().map(|call| call.received).collect();
        heard.sort_unstable();
        Self { now, after, calls: by_card, heard, robots }
    }

    /// Judges entries that are old enough; `young` ones only tell when a card went on. Gives the robots of which something
    /// new is known, and the calls that did not come.
    fn judge(&mut self, old: &[StageEntry], young: &[StageEntry]) -> (Vec<StageRobot>, Vec<LostCall>) {
        let mut changed: HashSet<(String, String)> = HashSet::new();
        let mut lost = Vec::new();
        for (at, entry) in old.iter().enumerate() {
            let later = old.iter().skip(at + 1).chain(young);
            let next = later.filter(|later| later.card == entry.card).map(|later| later.entered).min();
            let calls = self.calls.get(&entry.card).map(Vec::as_slice).unwrap_or_default();
            let (from, until) = (entry.entered.plus(Millis(-SKEW.0)), entry.entered.plus(self.after));
            let here: Vec<KnownCall> =
                calls.iter().filter(|call| call.received >= from && call.received <= until).cloned().collect();
            // Whoever calls after the card went on may belong to the next stage.
            let own = here.iter().filter(|call| next.is_none_or(|next| call.received < next));
            for call in own {
                changed.insert(self.learn(entry, call));
            }
            let reached = self.heard_near(entry.entered);
            for (key, robot) in self.robots.iter_mut().filter(|((stage, _), _)| *stage == entry.stage) {
                if !robot.is_known() || here.iter().any(|call| call.robot == robot.robot) {
                    continue;
                }
                lost.push(LostCall {
                    id: format!("{:013}-{}-{}-{}", entry.entered.0, entry.card.kind, entry.id, robot.robot),
                    card: entry.card,
                    stage: entry.stage.clone(),
                    robot: robot.robot.clone(),
                    entered: entry.entered,
                    found: self.now,
                    // Where others were heard it was left out, switched off or put off.
                    sure: robot.is_steady() && !reached,
                    state: LostState::Open,
                });
                if reached {
                    robot.skipped += 1;
                    changed.insert(key.clone());
                }
            }
        }
        (self.robots.iter().filter(|(key, _)| changed.contains(*key)).map(|(_, robot)| robot.clone()).collect(), lost)
    }

    /// A robot has called for a card on this stage.
    fn learn(&mut self, entry: &StageEntry, call: &KnownCall) -> (String, String) {
        let key = (entry.stage.clone(), call.robot.clone());
        let robot = self.robots.entry(key.clone()).or_insert_with(|| StageRobot {
            kind: entry.card.kind,
            stage: entry.stage.clone(),
            robot: call.robot.clone(),
            seen: 0,
            skipped: 0,
            command: call.command.clone(),
            card: entry.card,
            print: String::new(),
            same: 0,
            seen_at: call.received,
        });
        if robot.print != call.print {
            robot.same = 1;
        } else if robot.card != call.card {
            robot.same += 1;
        }
        robot.seen += 1;
        (robot.command, robot.card, robot.print) = (call.command.clone(), call.card, call.print.clone());
        robot.seen_at = call.received;
        key
    }

    /// A robot of the portal reached us at about this time.
    fn heard_near(&self, at: Timestamp) -> bool {
        let near = Millis(NEAR.0.min(self.after.0 / 5));
        let first = self.heard.partition_point(|heard| *heard < at.plus(Millis(-near.0)));
        self.heard.get(first).is_some_and(|heard| *heard <= at.plus(near))
    }
}

#[cfg(test)]
mod tests;
