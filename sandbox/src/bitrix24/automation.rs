//! Robots at work: automations on stages, callbacks to handlers, waiting workflows and their results.
//! Source: §6.3, §6.4.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    PortalCell, PortalState,
    crm::kinds,
    events::{Auth, put_auth, queue_post},
    rest::{Answer, Hit, RestError},
    robots::{Property, Robot},
};
use crate::{clock::Millis, courier::Parcel, http::form::FormBody, journal::Severity, php::Php, world::World};

/// Finished and waiting runs beyond this are forgotten, oldest first.
const RUNS_KEPT: usize = 200_000;
/// §6.3: a timeout is capped at five years.
const TIMEOUT_MAX_S: i64 = 5 * 365 * 86_400;

/// A robot placed on a stage by an administrator.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Automation {
    /// Number, for removal; given by the sandbox.
    pub id: u64,
    /// Card type: 1 lead, 2 deal, N smart process.
    pub entity_type_id: i64,
    /// Stage, e.g. `PREPARATION`.
    pub stage_id: String,
    /// Code of the robot.
    pub robot: String,
    /// Its application; absent = the first one that has such a robot.
    pub client_id: Option<String>,
    /// Values of its properties; `{=Document:FIELD}` is replaced by the card's field.
    pub properties: BTreeMap<String, Value>,
    /// "Wait for the result"; only counts if the robot leaves the choice open.
    pub use_subscription: Option<bool>,
    /// Seconds a waiting robot waits at most; 0 = for ever.
    pub timeout_s: i64,
}

impl Default for Automation {
    fn default() -> Self {
        Self {
            id: 0,
            entity_type_id: kinds::DEAL,
            stage_id: String::new(),
            robot: String::new(),
            client_id: None,
            properties: BTreeMap::new(),
            use_subscription: None,
            timeout_s: 0,
        }
    }
}

/// Where one run of a robot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RobotState {
    /// The robot does not wait; the workflow went on at once.
    NotWaiting,
    /// Waits for `bizproc.event.send`.
    Waiting,
    /// Got its result.
    Finished,
    /// Went on without a result; `IsTimeout` = 1.
    TimedOut,
    /// The workflow was stopped by hand.
    Terminated,
}

/// What one `bizproc.event.send` did. It always answers `true`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SendEffect {
    /// The workflow went on with these values.
    Applied,
    /// Came before the workflow was waiting: lost.
    TooEarly,
    /// The workflow had gone on already: ignored.
    Ignored,
}

/// One `bizproc.event.send`.
#[derive(Clone, Debug, Serialize)]
pub struct SentResult {
    /// When, milliseconds.
    pub at_ms: Millis,
    /// `RETURN_VALUES` as sent.
    pub values: Value,
    /// `LOG_MESSAGE`.
    pub log: String,
    /// What it did.
    pub effect: SendEffect,
}

/// One run of a robot, as shown.
#[derive(Clone, Debug, Serialize)]
pub struct RobotRun {
    /// The execution's own token.
    pub event_token: String,
    /// Workflow instance.
    pub workflow_id: String,
    /// Application.
    pub client_id: String,
    /// Robot.
    pub code: String,
    /// Card type.
    pub entity_type_id: i64,
    /// Card.
    pub entity_id: i64,
    /// Whether it waits for a result.
    pub use_subscription: bool,
    /// State.
    pub state: RobotState,
    /// Start, milliseconds.
    pub started_ms: Millis,
    /// When the callback was first posted, milliseconds.
    pub callback_ms: Option<Millis>,
    /// HTTP status of the callback; 0 = no answer; absent = not (yet) made.
    pub callback_status: Option<u16>,
    /// When it went on, milliseconds.
    pub finished_ms: Option<Millis>,
    /// Results that later robots see; keys as registered.
    pub results: BTreeMap<String, Value>,
    /// Every `event.send` for it.
    pub sends: Vec<SentResult>,
    /// Lines in the workflow's log.
    pub log: Vec<String>,
}

impl RobotRun {
    /// A result as text.
    pub fn result(&self, key: &str) -> Option<String> {
        self.results.get(key).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }
}

pub(crate) struct Workflow {
    run: RobotRun,
    returns: Arc<[String]>,
}

impl Workflow {
    pub(crate) fn run(&self) -> &RobotRun {
        &self.run
    }
}

/// A callback that waits to be posted.
pub(crate) struct Fired {
    token: Arc<str>,
    url: String,
    body: FormBody,
    timeout_s: i64,
}

/// Starts the robots of the stage that a card has just entered.
pub(crate) fn fire(world: &World, portal: &PortalCell, state: &mut PortalState, type_id: i64, id: i64) -> Vec<Fired> {
    let Some(stage) = state.crm.item(type_id, id).map(|item| item.stage_id.clone()) else { return Vec::new() };
    let placed: Vec<Arc<Automation>> = state
        .automations
        .iter()
        .filter(|automation| automation.entity_type_id == type_id && automation.stage_id == stage)
        .cloned()
        .collect();
    placed.iter().filter_map(|automation| start(world, portal, state, automation, id)).collect()
}

fn start(
    world: &World,
    portal: &PortalCell,
    state: &mut PortalState,
    automation: &Automation,
    id: i64,
) -> Option<Fired> {
    let type_id = automation.entity_type_id;
    let install = match &automation.client_id {
        Some(client_id) => state.installs.get(client_id),
        None => state.installs.values().find(|install| install.robots.contains_key(&automation.robot)),
    };
    let Some((install, robot)) = install.and_then(|install| Some((install, install.robots.get(&automation.robot)?)))
    else {
        world.journal.count("robot.missing");
        return None;
    };
    if install.payment_expired || !install.active {
        world.journal.count("robot.unpaid");
        return None;
    }
    let now = world.now_ms();
    let waits = match robot.use_subscription.as_str() {
        "Y" => true,
        "N" => false,
        _ => automation.use_subscription.unwrap_or(false),
    };
    let timeout_s = automation.timeout_s.clamp(0, TIMEOUT_MAX_S);
    let workflow_id = format!("{:08x}{}.{}", now / 1000, world.ids.hex(6), world.ids.digits(8));
    let base = 10_000 + automation.id * 7;
    let activity = format!("A{base}_{}_{}_{}", base * 3 % 90_000, base * 5 % 90_000, base * 11 % 90_000);
    let token: Arc<str> = format!("{workflow_id}|{activity}|{}.{}", world.ids.letters(32), world.ids.hex(64)).into();

    let mut form = FormBody::with_capacity(2048);
    form.put(&["workflow_id"], &workflow_id);
    form.put(&["code"], &robot.code);
    let document = kinds::document(type_id, id);
    for (at, part) in document.id.iter().enumerate() {
        form.put(&["document_id", &at.to_string()], part);
    }
    for (at, part) in document.kind.iter().enumerate() {
        form.put(&["document_type", &at.to_string()], part);
    }
    form.put(&["event_token"], &token);
    put_properties(&mut form, state, robot, automation, id);
    form.put(&["use_subscription"], if waits { "Y" } else { "N" });
    form.put_int(&["timeout_duration"], timeout_s);
    form.put_int(&["ts"], now / 1000);
    let auth = if robot.auth_user_id > 0 {
        Auth::User { id: robot.auth_user_id, with_refresh: true, hops: None }
    } else {
        Auth::Nobody
    };
    put_auth(&mut form, world, portal, install, auth, now);

    let fired = Fired {
        token: token.clone(),
        url: robot.handler.clone(),
        body: form,
        timeout_s: if waits { timeout_s } else { 0 },
    };
    let run = RobotRun {
        event_token: token.to_string(),
        workflow_id,
        client_id: install.app.client_id.clone(),
        code: robot.code.clone(),
        entity_type_id: type_id,
        entity_id: id,
        use_subscription: waits,
        state: if waits { RobotState::Waiting } else { RobotState::NotWaiting },
        started_ms: now,
        callback_ms: None,
        callback_status: None,
        finished_ms: None,
        results: BTreeMap::new(),
        sends: Vec::new(),
        log: Vec::new(),
    };
    let workflow = Workflow { run, returns: robot.return_properties.clone().into() };
    remember(state, token, workflow);
    world.journal.count("robot.fired");
    Some(fired)
}

fn remember(state: &mut PortalState, token: Arc<str>, workflow: Workflow) {
    let card = (workflow.run.entity_type_id, workflow.run.entity_id);
    state.workflows_of.entry(card).or_default().push(token.clone());
    state.workflow_order.push_back(token.clone());
    state.workflows.insert(token, workflow);
    if state.workflow_order.len() > RUNS_KEPT
        && let Some(old) = state.workflow_order.pop_front()
        && let Some(gone) = state.workflows.remove(&old)
    {
        let card = (gone.run.entity_type_id, gone.run.entity_id);
        if let Some(tokens) = state.workflows_of.get_mut(&card) {
            tokens.retain(|token| *token != old);
        }
    }
}

/// Property values as PHP posts them: `null` is empty text, an empty multiple value vanishes, `bool` is `Y`/`N`.
fn put_properties(form: &mut FormBody, state: &PortalState, robot: &Robot, automation: &Automation, id: i64) {
    for property in &robot.properties {
        let stored = automation.properties.get(&property.id).map(Php::from_json);
        let value = stored.unwrap_or_else(|| property.default.clone());
        let values = filled(state, automation.entity_type_id, id, &value);
        if property.multiple {
            for (at, text) in values.iter().filter(|text| !text.is_empty()).enumerate() {
                form.put(&["properties", &property.id, &at.to_string()], &typed(property, text));
            }
        } else {
            form.put(&["properties", &property.id], &typed(property, &values.join(", ")));
        }
    }
}

fn typed(property: &Property, text: &str) -> String {
    match property.kind.as_str() {
        "bool" => if matches!(text, "Y" | "y" | "1" | "true") { "Y" } else { "N" }.to_owned(),
        _ => text.to_owned(),
    }
}

/// The values behind a stored value: placeholders replaced, a multi-field on its own spread out.
fn filled(state: &PortalState, type_id: i64, id: i64, value: &Php) -> Vec<String> {
    match value {
        Php::Array(entries) => entries.iter().flat_map(|(_, inner)| filled(state, type_id, id, inner)).collect(),
        Php::Str(text) => {
            let trimmed = text.trim();
            if let Some((field, "")) = placeholder(trimmed) {
                return state.crm.document_field(type_id, id, field);
            }
            let mut out = String::with_capacity(text.len());
            let mut rest = text.as_str();
            while let Some(at) = rest.find("{=") {
                out.push_str(&rest[..at]);
                rest = &rest[at..];
                if let Some((field, after)) = placeholder(rest) {
                    out.push_str(&state.crm.document_field(type_id, id, field).join(", "));
                    rest = after;
                } else {
                    out.push_str("{=");
                    rest = &rest[2..];
                }
            }
            out.push_str(rest);
            vec![out]
        }
        Php::Bool(flag) => vec![if *flag { "Y" } else { "N" }.to_owned()],
        other => vec![other.text()],
    }
}

/// Reads `{=Document:FIELD}` (with or without a ` > modifier`) at the start of `text`.
fn placeholder(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix("{=Document:")?;
    let end = inner.find('}')?;
    let field = inner[..end].split('>').next().unwrap_or("").trim();
    Some((field, &inner[end + 1..]))
}

/// Hands the callbacks to the queue server and starts the timeouts.
pub(crate) fn launch(world: &Arc<World>, portal: &Arc<PortalCell>, fired: Vec<Fired>) {
    for callback in fired {
        let token = callback.token;
        if callback.timeout_s > 0 {
            let (world_then, portal_then, token_then) = (world.clone(), portal.clone(), token.clone());
            let delay_ms = u64::try_from(callback.timeout_s).unwrap_or(0) * 1000;
            world.timetable.in_background(delay_ms, move || time_out(&world_then, &portal_then, &token_then));
        }
        let (start_portal, start_token) = (portal.clone(), token.clone());
        let (done_portal, done_token) = (portal.clone(), token);
        let parcel = queue_post(Arc::from("robot.callback"), portal, &callback.url, callback.body);
        let parcel = Parcel {
            start: Some(Box::new(move |world| {
                let mut state = start_portal.state.lock();
                if let Some(workflow) = state.workflows.get_mut(&start_token) {
                    workflow.run.callback_ms.get_or_insert(world.now_ms());
                }
            })),
            done: Some(Box::new(move |_world, receipt| {
                let mut state = done_portal.state.lock();
                if let Some(workflow) = state.workflows.get_mut(&done_token) {
                    workflow.run.callback_status = Some(receipt.status);
                }
            })),
            ..parcel
        };
        world.bitrix.queue.send(world, parcel);
    }
}

fn time_out(world: &World, portal: &PortalCell, token: &str) {
    let mut state = portal.state.lock();
    let Some(workflow) = state.workflows.get_mut(token) else { return };
    if workflow.run.state != RobotState::Waiting {
        return;
    }
    workflow.run.state = RobotState::TimedOut;
    workflow.run.finished_ms = Some(world.now_ms());
    workflow.run.results.insert("IsTimeout".to_owned(), Value::from(1));
    let card = kinds::card(workflow.run.entity_type_id, workflow.run.entity_id);
    drop(state);
    world.journal.count("robot.timed_out");
    world.change("robot", &portal.member_id, card);
}

/// Stops a workflow by hand.
pub(crate) fn terminate(world: &World, portal: &PortalCell, token: &str) -> bool {
    let mut state = portal.state.lock();
    let Some(workflow) = state.workflows.get_mut(token) else { return false };
    if workflow.run.state == RobotState::Waiting {
        workflow.run.state = RobotState::Terminated;
        workflow.run.finished_ms = Some(world.now_ms());
    }
    true
}

fn denied() -> RestError {
    RestError::new(403, "ACCESS_DENIED", "Access denied!")
}

/// `bizproc.event.send`: `true` in every case but a wrong token.
pub(crate) fn event_send(hit: &mut Hit<'_>, params: &Php) -> Result<Answer, RestError> {
    let token = params.get_ci("EVENT_TOKEN").map(Php::text).unwrap_or_default();
    let values = params.get_ci("RETURN_VALUES").filter(|values| values.is_array()).cloned().unwrap_or(Php::empty());
    let log = params.get_ci("LOG_MESSAGE").map(Php::text).unwrap_or_default();
    let deaf_ms = i64::try_from(hit.portal.switches.read().event_send_deaf_ms).unwrap_or(0);
    let now = hit.now;
    let mut unknown = Vec::new();
    let mut state = hit.portal.state.lock();
    let workflow = state.workflows.get_mut(token.as_str()).ok_or_else(denied)?;
    let Workflow { run, returns } = workflow;
    if *run.client_id != *hit.caller.client_id {
        return Err(denied());
    }
    let is_deaf = run.callback_ms.is_none_or(|sent| now < sent + deaf_ms);
    let effect = match run.state {
        RobotState::Waiting if is_deaf => SendEffect::TooEarly,
        RobotState::Waiting => SendEffect::Applied,
        _ => SendEffect::Ignored,
    };
    if effect == SendEffect::Applied {
        run.state = RobotState::Finished;
        run.finished_ms = Some(now);
        for (key, value) in values.entries() {
            let name = key.to_string();
            match returns.iter().find(|known| known.eq_ignore_ascii_case(&name)) {
                Some(known) => drop(run.results.insert(known.clone(), value.to_json())),
                None => unknown.push(name),
            }
        }
        run.log.push(if log.is_empty() { "Got a result from the application".to_owned() } else { log.clone() });
    }
    if run.sends.len() < 100 {
        run.sends.push(SentResult { at_ms: now, values: values.to_json(), log, effect });
    }
    let card = kinds::card(run.entity_type_id, run.entity_id);
    drop(state);
    let (count, complaint) = match effect {
        SendEffect::Applied => ("robot.result.applied", None),
        SendEffect::TooEarly => ("robot.result.too_early", Some("event.send before the workflow waits is lost")),
        SendEffect::Ignored => ("robot.result.ignored", None),
    };
    hit.world.journal.count(count);
    let target = "rest.bizproc.event.send";
    if let Some(message) = complaint {
        hit.world.violation(Severity::Careless, target, &hit.portal.member_id, "event_send_too_early", message);
    }
    if !unknown.is_empty() {
        let message = format!("results that the robot does not declare are dropped: {}", unknown.join(", "));
        hit.world.violation(Severity::Careless, target, &hit.portal.member_id, "unknown_return_value", message);
    }
    hit.world.change("robot", &hit.portal.member_id, card);
    Answer::yes()
}

/// `bizproc.activity.log`: a line in the log while the robot waits.
pub(crate) fn activity_log(hit: &mut Hit<'_>, params: &Php) -> Result<Answer, RestError> {
    let token = params.get_ci("EVENT_TOKEN").map(Php::text).unwrap_or_default();
    let log = params.get_ci("LOG_MESSAGE").map(Php::text).unwrap_or_default();
    let mut state = hit.portal.state.lock();
    let workflow = state.workflows.get_mut(token.as_str()).ok_or_else(denied)?;
    if *workflow.run.client_id != *hit.caller.client_id {
        return Err(denied());
    }
    if log.is_empty() {
        return Err(RestError::bad("ERROR_EMPTY_LOG_MESSAGE", "Empty log message!"));
    }
    if workflow.run.state == RobotState::Waiting && workflow.run.log.len() < 1000 {
        workflow.run.log.push(log);
    }
    Answer::yes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_take_a_field_and_drop_a_modifier() {
        assert_eq!(placeholder("{=Document:TITLE}!"), Some(("TITLE", "!")));
        assert_eq!(placeholder("{=Document:UF_CRM_FILE > publink}"), Some(("UF_CRM_FILE", "")));
        assert_eq!(placeholder("{=Variable:X}"), None);
    }
}
