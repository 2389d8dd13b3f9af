//! Keeping a portal's registrations in line: robots and event handlers.
//!
//! An update of the application deletes its robots, a change of our address leaves old handlers behind, a new line has
//! to appear in every robot. So nothing is installed once: what should be is compared with what the portal has and with
//! the fingerprints of what was sent last, and the difference is sent (protocol reference, sections "What uninstall and
//! update remove", "Subscribing" and "Robots", read 2026-11). Two calls when something changed, one when nothing did.

use std::sync::Arc;

use serde_json::Value;
use url::Url;

use super::batch::{BATCH_MAX, Batch, Param, encode};
use super::client::{Entries, Failed};
use super::errors::{Fault, store_down};
use super::robots::{Fields, Place, render};
use super::wire::read_scopes;
use super::{Bitrix24, sha256_hex};
use crate::domain::effect::CrmError;
use crate::domain::language::Language;
use crate::domain::outcome::FailureClass;
use crate::domain::portal::Portal;
use crate::forms::{flag, items, member, text, text_at, texts};
use crate::i18n;
use crate::manifests::{Handlers, Scope};

/// The right with which a portal opens its chats.
const CHATS_RIGHT: &str = "imopenlines";
/// The right with which a portal shows our pages on its cards.
const PLACES_RIGHT: &str = "placement";

/// How many registrations of a kind there should be, and how many stand as they should.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// There should be.
    pub wanted: usize,
    /// Stand in the portal now.
    pub stand: usize,
}

/// What was found and done in one portal.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Robots, after what was done.
    pub robots: Tally,
    /// Event handlers, after what was done.
    pub events: Tally,
    /// Places of our pages, after what was done.
    pub places: Tally,
    /// Places in which a page of ours appears now that it did not before.
    pub placed: Vec<String>,
    /// Places taken back: they led to an old address of ours, or nothing is wanted there.
    pub unplaced: Vec<String>,
    /// Why robots are not available here (plan, rights): the portal's code. `None` when they are.
    pub robots_unavailable: Option<String>,
    /// Codes of robots added.
    pub added: Vec<String>,
    /// Codes of robots changed.
    pub updated: Vec<String>,
    /// Codes of robots deleted, because the catalogue has them no more.
    pub deleted: Vec<String>,
    /// Events now told to us that were not before.
    pub bound: Vec<String>,
    /// Handlers removed: they stood at an old address of ours.
    pub unbound: Vec<String>,
    /// Rights the application lacks.
    pub missing_scopes: Vec<Scope>,
    /// What failed and is no matter of plan or rights.
    pub problems: Vec<CrmError>,
}

impl Report {
    /// What an administrator should know, in whole sentences; empty when all is well.
    #[must_use]
    pub fn notes(&self, language: Language) -> Vec<String> {
        let say = |key: &str, values: &[(&str, &str)]| i18n::text(language, &format!("install.{key}"), values);
        let mut notes: Vec<String> = self
            .missing_scopes
            .iter()
            .map(|scope| say("scope_missing", &[("scope", &scope.code), ("reason", scope.reason.of(language))]))
            .collect();
        notes.extend(self.robots_unavailable.as_ref().map(|code| say("robots_unavailable", &[("code", code)])));
        notes.extend(self.problems.iter().map(|problem| say("problem", &[("error", &problem.to_string())])));
        notes
    }
}

/// One step of bringing the portal in line.
enum Change {
    /// Register this robot of the plan.
    Add(usize),
    /// Register this robot of the plan anew.
    Update(usize),
    /// Remove the robot with this code.
    Delete(String),
    /// Have this event told to us.
    Bind(String),
    /// Remove the handler of this event at this address.
    Unbind(String, String),
}

/// One robot as it should be.
struct Wanted {
    code: String,
    fields: Fields,
    fingerprint: String,
}

impl Wanted {
    fn key(code: &str) -> String {
        format!("robot:{code}")
    }
}

/// An event handler the portal knows.
struct Bound {
    event: String,
    handler: String,
}

impl Bitrix24 {
    /// Brings robots and event handlers of a portal in line and tells what was done. `lines` are ids and names of the
    /// lines bound to the portal.
    ///
    /// # Errors
    /// The portal or the store could not be asked at all. Single steps that failed stand in [`Report::problems`]; what
    /// the plan does not offer stands in the report and is no error.
    pub async fn reconcile_report(&self, portal: &Portal, lines: &[(String, String)]) -> Result<Report, CrmError> {
        // A page and a job may compare the same portal at once; each would add what the other has just added.
        let turn = self.comparing.get_with(portal.id.clone(), async { Arc::default() }).await;
        let _turn = turn.lock().await;
        let admin = self.client.tokens.usable(portal).await?;
        let mut look = Batch::default();
        let places = [look.push("scope", &[]), look.push("bizproc.robot.list", &[]), look.push("event.get", &[])];
        let answer = self.client.batch(portal, &look).await.map_err(|failed| failed.error(true))?;
        let [granted, robots, handlers] = places.map(|at| entry(&answer, at));
        let mut report = Report::default();
        let granted = granted.ok().map(read_scopes);
        if let Some(granted) = &granted {
            let chats = granted.iter().any(|have| have.eq_ignore_ascii_case(CHATS_RIGHT));
            self.chats_granted.insert(portal.id.clone(), chats).await;
            report.missing_scopes = self.manifest.missing_scopes(granted).into_iter().cloned().collect();
        }
        let granted = granted.unwrap_or_default();
        let wanted = self.wanted(portal, lines, &admin.user_id);
        let mut changes = Vec::new();
        report.robots.wanted = wanted.len();
        match robots.map(texts) {
            Ok(known) => changes.extend(self.robot_changes(portal, &wanted, &known).await?),
            Err(error) => report.note(error),
        }
        let address = self.events_address(portal);
        report.events.wanted = self.manifest.events.iter().filter(|event| event.is_known_to(&granted)).count();
        match handlers.map(read_bound) {
            Ok(bound) => changes.extend(self.event_changes(portal, &address, &bound, &granted)),
            Err(error) => report.note(error),
        }
        changes.truncate(BATCH_MAX);
        let missing = |of: fn(&Change) -> bool| changes.iter().filter(|change| of(change)).count();
        let robots_missing = missing(|change| matches!(change, Change::Add(_) | Change::Update(_)));
        let events_missing = missing(|change| matches!(change, Change::Bind(_)));
        self.carry_out(portal, &wanted, &address, &admin.user_id, changes, &mut report).await?;
        if report.robots_unavailable.is_none() {
            let mended = report.added.len() + report.updated.len();
            report.robots.stand = (report.robots.wanted + mended).saturating_sub(robots_missing);
        }
        report.events.stand = (report.events.wanted + report.bound.len()).saturating_sub(events_missing);
        if granted.iter().any(|have| have.eq_ignore_ascii_case(PLACES_RIGHT)) {
            self.keep_places(portal, &mut report).await?;
        }
        tracing::info!(
            portal.id = %portal.id, crm = "bitrix24", added = report.added.len(), updated = report.updated.len(),
            deleted = report.deleted.len(), bound = report.bound.len(), unbound = report.unbound.len(),
            placed = report.placed.len(), unplaced = report.unplaced.len(),
            robots.unavailable = report.robots_unavailable, scopes.missing = report.missing_scopes.len(),
            problems = report.problems.len(), "registrations compared"
        );
        Ok(report)
    }

    /// Asks the portal to send us an event (`ONAPPTEST`), to see whether events come through.
    ///
    /// # Errors
    /// The portal did not take the wish.
    pub async fn ask_for_event(&self, portal: &Portal) -> Result<(), CrmError> {
        let mut batch = Batch::default();
        let at = batch.push("event.test", &[]);
        let answer = self.client.batch(portal, &batch).await.map_err(|failed| failed.error(true))?;
        entry(&answer, at).map(|_| ())
    }

    fn wanted(&self, portal: &Portal, lines: &[(String, String)], user_id: &str) -> Vec<Wanted> {
        let of_robot = |robot: &crate::robots::Robot| {
            let path = &self.manifest.handlers.robots;
            let handler = Handlers::address(path, &self.settings.public_url, &portal.app, &robot.code);
            let fields = render(robot, &Place { handler, user_id, language: portal.language, lines });
            let fingerprint = sha256_hex(encode(&fields).as_bytes());
            Wanted { code: robot.code.clone(), fields, fingerprint }
        };
        self.robots.iter().map(of_robot).collect()
    }

    fn events_address(&self, portal: &Portal) -> String {
        Handlers::address(&self.manifest.handlers.events, &self.settings.public_url, &portal.app, "")
    }

    async fn robot_changes(
        &self,
        portal: &Portal,
        wanted: &[Wanted],
        known: &[String],
    ) -> Result<Vec<Change>, CrmError> {
        let sent = self.store.load_registrations(&portal.id).await.map_err(store_down)?;
        let mut changes = Vec::new();
        for (at, robot) in wanted.iter().enumerate() {
            let key = Wanted::key(&robot.code);
            let same = sent.iter().any(|(kept, print)| *kept == key && *print == robot.fingerprint);
            if !known.iter().any(|code| code.eq_ignore_ascii_case(&robot.code)) {
                changes.push(Change::Add(at));
            } else if !same {
                changes.push(Change::Update(at));
            }
        }
        let strange = known.iter().filter(|code| !wanted.iter().any(|robot| robot.code.eq_ignore_ascii_case(code)));
        changes.extend(strange.cloned().map(Change::Delete));
        Ok(changes)
    }

    fn event_changes(&self, portal: &Portal, address: &str, bound: &[Bound], granted: &[String]) -> Vec<Change> {
        let events = &self.manifest.events;
        let mut changes: Vec<Change> = events
            .iter()
            .filter(|event| event.is_known_to(granted))
            .filter(|event| !is_bound(bound, &event.code, address))
            .map(|event| Change::Bind(event.code.clone()))
            .collect();
        let path = Handlers::address(&self.manifest.handlers.events, "", &portal.app, "");
        for known in bound {
            let at_old_place =
                known.handler != address && Url::parse(&known.handler).is_ok_and(|url| url.path().ends_with(&path));
            let unwanted = known.handler == address && !events.iter().any(|event| event.code == known.event);
            if at_old_place || unwanted {
                changes.push(Change::Unbind(known.event.clone(), known.handler.clone()));
            }
        }
        changes
    }

    /// Sends the changes. A robot that turns out to be there already is updated, one that is gone is added, and a
    /// handler that "is already bound" is looked up: hence up to two calls.
    async fn carry_out(
        &self,
        portal: &Portal,
        wanted: &[Wanted],
        address: &str,
        user_id: &str,
        mut changes: Vec<Change>,
        report: &mut Report,
    ) -> Result<(), CrmError> {
        for last in [false, true] {
            if changes.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::default();
            for change in &changes {
                push(&mut batch, change, wanted, address, user_id);
            }
            let recheck = batch.push("event.get", &[]);
            let answer = self.client.batch(portal, &batch).await.map_err(|failed| failed.error(true))?;
            let bound = entry(&answer, recheck).map(read_bound).unwrap_or_default();
            let mut again = Vec::new();
            for (at, change) in changes.into_iter().enumerate() {
                let fault = match answer.get(at) {
                    Some(Ok(_)) => None,
                    Some(Err(failed)) => Some(failed.clone()),
                    None => Some(Failed { fault: Fault::Unanswered, retry_after: None }),
                };
                let known = |code: &str| fault.as_ref().is_some_and(|failed| failed.fault.is(code));
                match change {
                    Change::Add(robot) if known("ERROR_ACTIVITY_ALREADY_INSTALLED") && !last => {
                        again.push(Change::Update(robot));
                    }
                    Change::Update(robot) if known("ERROR_ACTIVITY_NOT_FOUND") && !last => {
                        again.push(Change::Add(robot));
                    }
                    Change::Delete(code) if fault.is_none() || known("ERROR_ACTIVITY_NOT_FOUND") => {
                        self.remember(portal, &Wanted::key(&code), None).await?;
                        report.deleted.push(code);
                    }
                    Change::Bind(event) if fault.is_none() => report.bound.push(event),
                    // "Already bound" has no code of its own; what the portal lists decides.
                    Change::Bind(event) if is_bound(&bound, &event, address) => report.bound.push(event),
                    Change::Unbind(event, handler) if fault.is_none() => {
                        report.unbound.push(format!("{event} {handler}"));
                    }
                    Change::Add(robot) if fault.is_none() => {
                        if let Some(robot) = wanted.get(robot) {
                            self.remember(portal, &Wanted::key(&robot.code), Some(&robot.fingerprint)).await?;
                            report.added.push(robot.code.clone());
                        }
                    }
                    Change::Update(robot) if fault.is_none() => {
                        if let Some(robot) = wanted.get(robot) {
                            self.remember(portal, &Wanted::key(&robot.code), Some(&robot.fingerprint)).await?;
                            report.updated.push(robot.code.clone());
                        }
                    }
                    Change::Add(_) | Change::Update(_) | Change::Delete(_) => {
                        report.note(error_of(fault));
                    }
                    Change::Bind(_) | Change::Unbind(..) => report.problems.push(error_of(fault)),
                }
            }
            changes = again;
        }
        Ok(())
    }

    async fn remember(&self, portal: &Portal, key: &str, fingerprint: Option<&str>) -> Result<(), CrmError> {
        self.store.save_registration(&portal.id, key, fingerprint).await.map_err(store_down)
    }
}

impl Report {
    /// Sorts the failure of a step about robots: plan and rights are no problem of ours.
    fn note(&mut self, error: CrmError) {
        match error.class {
            FailureClass::NotPermitted => self.robots_unavailable = Some(error.code),
            FailureClass::Rejected
            | FailureClass::Misconfigured
            | FailureClass::Throttled
            | FailureClass::Unavailable
            | FailureClass::Indeterminate => self.problems.push(error),
        }
    }
}

fn push(batch: &mut Batch, change: &Change, wanted: &[Wanted], address: &str, user_id: &str) {
    let robot =
        |at: &usize| wanted.get(*at).map(|robot| (robot.code.clone(), robot.fields.clone())).unwrap_or_default();
    match change {
        Change::Add(at) => {
            let (code, fields) = robot(at);
            let mut params = vec![("CODE", code.into())];
            params.extend(fields);
            batch.push("bizproc.robot.add", &params);
        }
        Change::Update(at) => {
            let (code, fields) = robot(at);
            let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            batch.push("bizproc.robot.update", &[("CODE", code.into()), ("FIELDS", Param::Map(fields))]);
        }
        Change::Delete(code) => {
            batch.push("bizproc.robot.delete", &[("CODE", code.as_str().into())]);
        }
        Change::Bind(event) => {
            // The installing administrator's token comes with every event, not that of whoever caused it.
            let params = [("event", event.as_str().into()), ("handler", address.into()), ("auth_type", user_id.into())];
            batch.push("event.bind", &params);
        }
        Change::Unbind(event, handler) => {
            batch.push("event.unbind", &[("event", event.as_str().into()), ("handler", handler.as_str().into())]);
        }
    }
}

pub(super) fn entry(answer: &Entries, at: usize) -> Result<&Value, CrmError> {
    match answer.get(at) {
        Some(Ok(value)) => Ok(value),
        Some(Err(failed)) => Err(failed.error(true)),
        None => Err(Fault::Unanswered.error(true, None)),
    }
}

fn error_of(fault: Option<Failed>) -> CrmError {
    fault.map_or_else(|| Fault::Unanswered.error(true, None), |failed| failed.error(true))
}

/// The online handlers in an answer of `event.get`.
fn read_bound(value: &Value) -> Vec<Bound> {
    let online = |row: &&Value| !member(row, "offline").and_then(flag).unwrap_or(false);
    let read = |row: &Value| Bound {
        event: text_at(row, &["event"]).to_ascii_uppercase(),
        handler: member(row, "handler").and_then(text).unwrap_or_default(),
    };
    items(value).into_iter().filter(online).map(read).collect()
}

fn is_bound(bound: &[Bound], event: &str, address: &str) -> bool {
    bound.iter().any(|known| known.event.eq_ignore_ascii_case(event) && known.handler == address)
}
