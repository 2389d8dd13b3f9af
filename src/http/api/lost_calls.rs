//! Calls of a portal's robots that never came (`docs/adr/0018`).

use std::collections::BTreeMap;

use actix_web::Responder;
use actix_web::web::{Data, Json, Path, Query};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::body::Document;
use super::page::{LIMIT_MAX, Page, cursor_of, limit_of};
use super::portals;
use super::views::moment;
use crate::crm::asked;
use crate::domain::command::CommandBody;
use crate::domain::ids::PortalId;
use crate::domain::stage::{LostCall, LostMode, LostState};
use crate::http::State;
use crate::http::admin::Admin;
use crate::http::problem::Problem;
use crate::pipeline::lost_calls::ReplayEnd;

/// Whose properties a person fills in: what lost calls can be made up for with.
const ACTION: &str = "send_message";

/// A card entered a stage, and a robot that stands there did not call.
#[derive(Serialize, ToSchema)]
pub(super) struct LostCallView {
    /// Its id.
    id: String,
    /// The card.
    #[schema(example = "deal:134")]
    card: String,
    /// The stage, in the portal's own words.
    #[schema(example = "C1:PREPARATION")]
    stage: String,
    /// The robot, in the portal's own words.
    robot: String,
    /// When the card entered, by the portal's clock.
    #[schema(example = "2026-11-22T10:00:00.000Z")]
    entered_at: String,
    /// When the call was missed.
    found_at: String,
    /// False when the robot seems to have a condition, and may have left this card out by itself.
    sure: bool,
    /// `open`, `replayed`, `came`, `moved_on` or `dismissed`.
    state: &'static str,
}

/// How far the history of one kind of card has been compared.
#[derive(Serialize, ToSchema)]
pub(super) struct LookView {
    /// Kind of the cards.
    #[schema(example = "deal")]
    kind: String,
    /// When it was compared last.
    looked_at: String,
    /// The portal's code when its plan or rights do not allow to ask; empty when they do.
    trouble: String,
}

/// Lost calls, and how they are looked for.
#[derive(Serialize, ToSchema)]
pub(super) struct LostCallsView {
    /// What is done: `off`, `ask` or `replay`.
    mode: &'static str,
    /// How many nobody has decided about.
    open: i64,
    /// How many robots on stages are known, and expected to call.
    watched: usize,
    /// How far the portal's history has been compared.
    looks: Vec<LookView>,
    /// The calls, the oldest entries first.
    #[serde(flatten)]
    calls: Page<LostCallView>,
}

/// Which lost calls.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct LostQuery {
    /// Only this state.
    state: Option<String>,
    /// Most items.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// What is done about lost calls of a portal.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LostRule {
    /// `off`: they are not looked for; `ask`: they are shown; `replay`: what was surely lost, and is the same for every
    /// card, is done.
    #[schema(example = "ask")]
    mode: String,
}

/// Lost calls to make up for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Replay {
    /// Their ids, 1 to 200.
    ids: Vec<String>,
    /// What to do, as the properties of the robot `send_message`; left out: what the robot asks for every card.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    properties: Option<BTreeMap<String, Value>>,
}

/// Lost calls about which nothing is to be done.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Dismissal {
    /// Their ids, 1 to 200.
    ids: Vec<String>,
}

/// What became of one.
#[derive(Serialize, ToSchema)]
pub(super) struct ReplayedCall {
    /// Its id.
    id: String,
    /// `replayed`, `came`, `moved_on`, `dismissed`; `work_unknown`: the robot fills something in from the card, so give
    /// `properties`; `not_asked`: the portal did not answer, try again.
    end: &'static str,
}

/// What became of each.
#[derive(Serialize, ToSchema)]
pub(super) struct ReplayedCalls {
    /// The calls that are known.
    calls: Vec<ReplayedCall>,
    /// Ids of none.
    unknown: Vec<String>,
}

impl From<LostCall> for LostCallView {
    fn from(call: LostCall) -> Self {
        Self {
            card: call.card.to_string(),
            stage: call.stage,
            robot: call.robot,
            entered_at: moment(call.entered),
            found_at: moment(call.found),
            sure: call.sure,
            state: call.state.code(),
            id: call.id,
        }
    }
}

/// List calls of robots that never came: Bitrix24 makes each once, so a lost one is a message nobody sent.
#[utoipa::path(get, path = "/api/v1/portals/{portal}/lost-calls", tag = "portals", operation_id = "list_lost_calls",
    params(("portal" = String, Path, description = "Id of the portal"), LostQuery),
    responses((status = 200, description = "A page of them", body = LostCallsView),
        (status = 404, description = "No such portal")))]
pub(super) async fn list(
    _: Admin,
    state: Data<State>,
    path: Path<String>,
    query: Query<LostQuery>,
) -> Result<impl Responder, Problem> {
    let portal = portals::find(&state, &path).await?.portal.id.clone();
    let limit = limit_of(query.limit)?;
    let wanted = query
        .state
        .as_deref()
        .map(|word| LostState::find(word).ok_or_else(|| Problem::Malformed("state: none of a lost call".to_owned())));
    let after = cursor_of(query.cursor.as_deref(), |text| Some(text.to_owned()))?.unwrap_or_default();
    let calls = state.storage.lost_calls(&portal, wanted.transpose()?, &after, limit + 1).await?;
    let robots = state.storage.stage_robots(&portal).await?;
    let looks = state.storage.stage_looks(&portal).await?.into_iter();
    Ok(Json(LostCallsView {
        mode: state.storage.lost_mode(&portal).await?.code(),
        open: state.storage.lost_calls_open(&portal).await?,
        watched: robots.iter().filter(|robot| robot.is_known()).count(),
        looks: looks
            .map(|look| LookView { kind: look.kind.to_string(), looked_at: moment(look.looked), trouble: look.trouble })
            .collect(),
        calls: Page::of(calls, limit, |call| call.id.clone(), LostCallView::from),
    }))
}

/// Choose what is done about lost calls of a portal.
#[utoipa::path(put, path = "/api/v1/portals/{portal}/lost-calls/rule", tag = "portals", operation_id = "rule_lost_calls",
    params(("portal" = String, Path, description = "Id of the portal")), request_body = LostRule,
    responses((status = 200, description = "It holds from the next look on", body = LostRule),
        (status = 404, description = "No such portal")))]
pub(super) async fn rule(
    _: Admin,
    state: Data<State>,
    path: Path<String>,
    Document(wanted): Document<LostRule>,
) -> Result<impl Responder, Problem> {
    let portal = portals::find(&state, &path).await?.portal.id.clone();
    let mode = LostMode::find(&wanted.mode).ok_or_else(|| Problem::Malformed("mode: off, ask or replay".to_owned()))?;
    state.storage.set_lost_mode(&portal, mode).await?;
    tracing::info!(portal.id = %portal, mode = mode.code(), "what is done about lost calls was chosen");
    Ok(Json(wanted))
}

/// Do the work of lost calls. Each is done at most once, however often it is asked for, also if the call comes after all.
#[utoipa::path(post, path = "/api/v1/portals/{portal}/lost-calls/replay", tag = "portals",
    operation_id = "replay_lost_calls",
    params(("portal" = String, Path, description = "Id of the portal")), request_body = Replay,
    responses((status = 200, description = "What became of each", body = ReplayedCalls),
        (status = 404, description = "No such portal"),
        (status = 422, description = "No ids, too many, or properties that cannot be carried out")))]
pub(super) async fn replay(
    _: Admin,
    state: Data<State>,
    path: Path<String>,
    Document(wanted): Document<Replay>,
) -> Result<impl Responder, Problem> {
    let portal = portals::find(&state, &path).await?.portal.id.clone();
    let body = wanted.properties.as_ref().map(body_of).transpose()?;
    let (known, unknown) = known_of(&state, &portal, wanted.ids).await?;
    let ends = state.pipeline.replay(&portal, known, body.as_ref()).await?;
    tracing::info!(portal.id = %portal, asked = ends.len(), "lost calls were made up for by hand");
    let calls = ends.into_iter().map(|(id, end)| ReplayedCall { id, end: word_of(end) }).collect();
    Ok(Json(ReplayedCalls { calls, unknown }))
}

/// Say that nothing is to be done about lost calls.
#[utoipa::path(post, path = "/api/v1/portals/{portal}/lost-calls/dismiss", tag = "portals",
    operation_id = "dismiss_lost_calls",
    params(("portal" = String, Path, description = "Id of the portal")), request_body = Dismissal,
    responses((status = 200, description = "How each stands", body = ReplayedCalls),
        (status = 404, description = "No such portal"), (status = 422, description = "No ids, or too many")))]
pub(super) async fn dismiss(
    _: Admin,
    state: Data<State>,
    path: Path<String>,
    Document(wanted): Document<Dismissal>,
) -> Result<impl Responder, Problem> {
    let portal = portals::find(&state, &path).await?.portal.id.clone();
    let (known, unknown) = known_of(&state, &portal, wanted.ids).await?;
    let ids: Vec<String> = known.into_iter().map(|call| call.id).collect();
    for id in &ids {
        state.storage.decide_lost_call(&portal, id, LostState::Dismissed).await?;
    }
    let now = state.storage.lost_calls_by_id(&portal, &ids).await?;
    let calls = now.into_iter().map(|call| ReplayedCall { id: call.id, end: call.state.code() }).collect();
    Ok(Json(ReplayedCalls { calls, unknown }))
}

/// The lost calls with these ids, and the ids of none.
async fn known_of(
    state: &State,
    portal: &PortalId,
    mut ids: Vec<String>,
) -> Result<(Vec<LostCall>, Vec<String>), Problem> {
    if !(1..=LIMIT_MAX as usize).contains(&ids.len()) {
        return Err(Problem::Unprocessable(format!("ids: 1 to {LIMIT_MAX}")));
    }
    ids.sort_unstable();
    ids.dedup();
    let known = state.storage.lost_calls_by_id(portal, &ids).await?;
    ids.retain(|id| known.iter().all(|call| call.id != *id));
    Ok((known, ids))
}

fn body_of(properties: &BTreeMap<String, Value>) -> Result<CommandBody, Problem> {
    let lower = properties.iter().map(|(key, value)| (key.to_ascii_lowercase(), value.clone())).collect();
    match asked::body_of(ACTION, &lower) {
        CommandBody::Invalid { failure } => {
            Err(Problem::Unprocessable(format!("properties: {} {}", failure.code.code(), failure.detail)))
        }
        body @ (CommandBody::SendMessage(_)
        | CommandBody::RenameChat(_)
        | CommandBody::TagDialog(_)
        | CommandBody::CheckPhone(_)
        | CommandBody::Answer(_)) => Ok(body),
    }
}

fn word_of(end: ReplayEnd) -> &'static str {
    match end {
        ReplayEnd::Done => LostState::Replayed.code(),
        ReplayEnd::Settled(state) => state.code(),
        ReplayEnd::WorkUnknown => "work_unknown",
        ReplayEnd::NotAsked => "not_asked",
    }
}
