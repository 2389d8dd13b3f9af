//! Channels: connected senders, their state and their queues. Credentials go in and never come back.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::Responder;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path, Query};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::body::{Document, Optional};
use super::lines;
use super::page::{Page, PageQuery, cursor_of, limit_of};
use super::views::moment;
use crate::config::Span;
use crate::domain::capability::ProviderSpec;
use crate::domain::channel::{Channel, ChannelSettings, ChannelState, Ramp};
use crate::domain::ids::ChannelId;
use crate::domain::job::QueueKey;
use crate::domain::time::{Millis, Timestamp};
use crate::http::State;
use crate::http::admin::Admin;
use crate::http::problem::Problem;
use crate::numbers;
use crate::pipeline::addresses::NotConnected;
use crate::providers::{self, REGISTRY};
use crate::storage::channels::NewChannel;

/// Longest value of one credential, in bytes. The longest known are tokens of some 300.
const CREDENTIAL_MAX: usize = 4096;
/// Longest reason of a pause, in characters.
const REASON_MAX: usize = 200;
/// Messages per second that a setting may ask for. Below the least of it a queue would seem to stand still.
const PACE: std::ops::RangeInclusive<f64> = 0.01..=10_000.0;

/// A channel to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AddChannel {
    /// Id of the provider.
    #[schema(example = "whatsapp_cloud")]
    provider: String,
    /// Its name for people, usually the number: 1 to 100 characters.
    #[schema(example = "+7 495 000-00-00", max_length = 100)]
    name: String,
    /// The provider's fields by name. `whatsapp_cloud`: `phone_number_id`, `access_token`, `app_secret`,
    /// `verify_token`, and `waba_id` for templates. `telegram_bot`: `token`; the bot is asked and connected at once.
    credentials: BTreeMap<String, String>,
    /// Options; left out, the provider's own limits and the configuration hold.
    #[serde(default)]
    settings: Settings,
}

/// Options of a channel.
#[derive(Deserialize, Serialize, Default, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    /// Messages per second this channel may send, 0.01 to 10000; null is the provider's documented rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    messages_per_second: Option<f64>,
    /// Country (ISO 3166, two letters) in which numbers without a country code are read; null is the configured one.
    #[schema(example = "RU")]
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<String>,
}

/// Why a channel is paused.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Pause {
    /// For people, at most 200 characters.
    #[serde(default)]
    #[schema(max_length = 200)]
    reason: Option<String>,
}

/// What becomes of what has waited in a paused channel.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Resume {
    /// `true` starts slowly, with a tenth of the channel's pace that doubles every minute; an object says otherwise.
    ramp: Option<RampRequest>,
    /// Messages taken over longer ago than this are withdrawn first (`30m`, `2h`, `1d`): they end as `cancelled`, and
    /// their cards and waiting robots are told.
    #[schema(value_type = Option<String>, example = "2h")]
    drop_older_than: Option<Span>,
}

/// Whether and how a channel starts slowly.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
enum RampRequest {
    /// The usual way, or not at all.
    Usual(bool),
    /// Another way.
    Shaped(RampShape),
}

/// How a channel starts slowly.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
struct RampShape {
    /// Part of the channel's pace to begin with, in percent: 1 to 100; left out, 10.
    start_percent: Option<u32>,
    /// The part doubles each time after so long, `1s` to `24h`; left out, `1m`.
    #[schema(value_type = Option<String>, example = "1m")]
    double_every: Option<Span>,
}

/// Which waiting messages are withdrawn.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct CancelQuery {
    /// Only those taken over longer ago than this (`30m`, `2h`, `1d`).
    #[param(value_type = Option<String>, example = "2h")]
    older_than: Option<Span>,
}

/// How far a channel is on its way back to its pace.
#[derive(Serialize, ToSchema)]
pub(super) struct RampView {
    /// When it was resumed.
    #[schema(format = DateTime)]
    began_at: String,
    /// Percent of its pace that hold now.
    percent: u32,
    /// When more will hold.
    #[schema(format = DateTime)]
    next_at: String,
}

/// One connected sender.
#[derive(Serialize, ToSchema)]
pub(super) struct ChannelView {
    /// Its id.
    #[schema(example = "chan_01JD0000000000000000000000")]
    id: String,
    /// The line it belongs to.
    line: String,
    /// Id of the provider.
    #[schema(example = "whatsapp_cloud")]
    provider: String,
    /// Its name for people.
    name: String,
    /// `active` or `paused`.
    state: &'static str,
    /// Why it is paused; empty when it is not.
    reason: String,
    /// Its way back to its pace; null when it sends as fast as it may, or not at all.
    ramp: Option<RampView>,
    /// The address to enter at the provider; `telegram_bot` is told by itself.
    webhook_url: String,
    /// Names of the credentials it has. Their values never come back.
    credentials: Vec<String>,
    /// Options.
    settings: Settings,
}

/// One connected sender with its queue.
#[derive(Serialize, ToSchema)]
pub(super) struct ChannelDetail {
    /// The channel.
    #[serde(flatten)]
    channel: ChannelView,
    /// Messages that wait, are being sent, or are not yet known to be sent.
    queue: i64,
}

/// A resumed channel and what became of its queue.
#[derive(Serialize, ToSchema)]
pub(super) struct Resumed {
    /// The channel, with the length of what is left of its queue.
    #[serde(flatten)]
    channel: ChannelDetail,
    /// Messages withdrawn because they were too old.
    cancelled: usize,
}

/// What became of a queue.
#[derive(Serialize, ToSchema)]
pub(super) struct Cancelled {
    /// Messages withdrawn; those already leaving are not among them.
    cancelled: usize,
}

/// Add a channel to a line.
#[utoipa::path(post, path = "/api/v1/lines/{line}/channels", tag = "channels", operation_id = "create_channel",
    params(("line" = String, Path, description = "Id of the line")), request_body = AddChannel,
    responses((status = 201, description = "Added; secrets never come back", body = ChannelView),
        (status = 404, description = "No such line"), (status = 409, description = "Another channel has this sender"),
        (status = 422, description = "Unknown provider, or credentials or settings that do not fit it")))]
pub(super) async fn create(
    _: Admin,
    state: Data<State>,
    line: Path<String>,
    Document(add): Document<AddChannel>,
) -> Result<impl Responder, Problem> {
    let line = lines::find(&state, &line).await?;
    let spec = spec_of(&add.provider)?;
    let new = NewChannel {
        line: line.id,
        provider: spec.id.to_owned(),
        name: lines::name_of(&add.name)?,
        credentials: credentials_of(spec, add.credentials)?,
        settings: settings_of(add.settings)?,
    };
    state.pipeline.may_connect(spec.id, &new.credentials).await?.map_err(|why| match why {
        NotConnected::Refused(words) => {
            Problem::Unprocessable(format!("credentials: {} refuses them: {words}", spec.title))
        }
        NotConnected::Taken(other) => {
            Problem::Conflict(format!("credentials: channel {other} has this sender already"))
        }
    })?;
    let id = state.storage.add_channel(new).await?;
    tracing::info!(channel.id = %id, provider = spec.id, "channel added");
    let channel = load(&state, &id).await?;
    state.pipeline.connect(&channel).await;
    // The vendor may have stopped it at once.
    let channel = load(&state, &id).await?;
    Ok((Json(view(&state, &channel)), StatusCode::CREATED))
}

/// List channels, oldest first.
#[utoipa::path(get, path = "/api/v1/channels", tag = "channels", operation_id = "list_channels", params(PageQuery),
    responses((status = 200, description = "A page of channels", body = Page<ChannelView>)))]
pub(super) async fn list(_: Admin, state: Data<State>, page: Query<PageQuery>) -> Result<impl Responder, Problem> {
    let limit = limit_of(page.limit)?;
    let after = cursor_of(page.cursor.as_deref(), ChannelId::parse)?;
    let channels = state.storage.channels(after.as_ref(), limit + 1).await?;
    Ok(Json(Page::of(channels, limit, |channel| channel.id.to_string(), |channel| view(&state, &channel))))
}

/// Show a channel with the length of its queue.
#[utoipa::path(get, path = "/api/v1/channels/{channel}", tag = "channels", operation_id = "get_channel",
    params(("channel" = String, Path, description = "Id of the channel")),
    responses((status = 200, description = "The channel", body = ChannelDetail),
        (status = 404, description = "No such channel")))]
pub(super) async fn get(_: Admin, state: Data<State>, channel: Path<String>) -> Result<impl Responder, Problem> {
    let channel = find(&state, &channel).await?;
    detail(&state, &channel).await.map(Json)
}

/// Pause a channel: it takes messages and keeps them until it is resumed.
#[utoipa::path(post, path = "/api/v1/channels/{channel}/pause", tag = "channels", operation_id = "pause_channel",
    params(("channel" = String, Path, description = "Id of the channel")),
    request_body(content = Option<Pause>, description = "May be left out"),
    responses((status = 200, description = "The paused channel", body = ChannelDetail),
        (status = 404, description = "No such channel"), (status = 422, description = "The reason is too long")))]
pub(super) async fn pause(
    _: Admin,
    state: Data<State>,
    channel: Path<String>,
    Optional(pause): Optional<Pause>,
) -> Result<impl Responder, Problem> {
    let reason = pause.and_then(|pause| pause.reason).unwrap_or_default();
    let reason = reason.trim();
    if reason.chars().count() > REASON_MAX {
        return Err(Problem::Unprocessable(format!("reason: at most {REASON_MAX} characters")));
    }
    let reason = if reason.is_empty() { "paused by an administrator" } else { reason };
    let channel = find(&state, &channel).await?;
    change(&state, &channel.id, &ChannelState::Paused(reason.to_owned()), None).await.map(Json)
}

/// Resume a channel: what has waited leaves, as fast as the channel may send or slowly at first, without what is too old.
///
/// What is too old is withdrawn before anything leaves. A slow start outlasts a restart of the service; a pause ends it.
#[utoipa::path(post, path = "/api/v1/channels/{channel}/resume", tag = "channels", operation_id = "resume_channel",
    params(("channel" = String, Path, description = "Id of the channel")),
    request_body(content = Option<Resume>, description = "May be left out"),
    responses((status = 200, description = "The resumed channel", body = Resumed),
        (status = 404, description = "No such channel"), (status = 422, description = "No such slow start")))]
pub(super) async fn resume(
    _: Admin,
    state: Data<State>,
    channel: Path<String>,
    Optional(resume): Optional<Resume>,
) -> Result<impl Responder, Problem> {
    let resume = resume.unwrap_or_default();
    let ramp = ramp_of(resume.ramp, state.clock.now())?;
    let channel = find(&state, &channel).await?;
    let cancelled = match resume.drop_older_than {
        Some(age) => withdraw(&state, &channel, Some(age)).await?,
        None => 0,
    };
    let channel = change(&state, &channel.id, &ChannelState::Active, ramp).await?;
    Ok(Json(Resumed { channel, cancelled }))
}

/// Withdraw messages of the channel that have not begun to leave: all of them, or those too old. Their cards and waiting
/// robots are told.
#[utoipa::path(delete, path = "/api/v1/channels/{channel}/queue", tag = "channels", operation_id = "cancel_queue",
    params(("channel" = String, Path, description = "Id of the channel"), CancelQuery),
    responses((status = 200, description = "How many; they end as `cancelled`", body = Cancelled),
        (status = 404, description = "No such channel")))]
pub(super) async fn cancel(
    _: Admin,
    state: Data<State>,
    channel: Path<String>,
    query: Query<CancelQuery>,
) -> Result<impl Responder, Problem> {
    let channel = find(&state, &channel).await?;
    let cancelled = withdraw(&state, &channel, query.older_than).await?;
    Ok(Json(Cancelled { cancelled }))
}

/// Withdraws what has not begun to leave and is older than `age`; tells how many.
async fn withdraw(state: &State, channel: &Channel, age: Option<Span>) -> Result<usize, Problem> {
    let before = age.map_or(Timestamp(i64::MAX), |age| state.clock.now().plus(Millis(-age.0.0)));
    let cancelled = state.storage.cancel_sends(&QueueKey::Channel(channel.id.clone()), before).await?;
    tracing::info!(channel.id = %channel.id, cancelled, "queue cancelled");
    Ok(cancelled)
}

/// The ramp asked for, from now on.
///
/// # Errors
/// 422 for one that is none.
fn ramp_of(request: Option<RampRequest>, now: Timestamp) -> Result<Option<Ramp>, Problem> {
    let shape = match request {
        None | Some(RampRequest::Usual(false)) => return Ok(None),
        Some(RampRequest::Usual(true)) => RampShape::default(),
        Some(RampRequest::Shaped(shape)) => shape,
    };
    let start_percent = shape.start_percent.unwrap_or(Ramp::START_PERCENT);
    let double_every = shape.double_every.map_or(Ramp::DOUBLE_EVERY, |span| span.0);
    if !(1..=100).contains(&start_percent) {
        return Err(Problem::Unprocessable("ramp.start_percent: 1 to 100".to_owned()));
    }
    if !(Millis::seconds(1)..=Millis::hours(24)).contains(&double_every) {
        return Err(Problem::Unprocessable("ramp.double_every: 1s to 24h".to_owned()));
    }
    Ok(Some(Ramp { began: now, start_percent, double_every }))
}

/// A channel by the id in a path.
///
/// # Errors
/// 404 when there is none.
async fn find(state: &State, id: &str) -> Result<Arc<Channel>, Problem> {
    let id = ChannelId::parse(id).ok_or_else(missing)?;
    load(state, &id).await
}

async fn load(state: &State, id: &ChannelId) -> Result<Arc<Channel>, Problem> {
    state.storage.find_channel(id).await?.ok_or_else(missing)
}

fn missing() -> Problem {
    Problem::NotFound("there is no such channel".to_owned())
}

async fn change(
    state: &State,
    id: &ChannelId,
    to: &ChannelState,
    ramp: Option<Ramp>,
) -> Result<ChannelDetail, Problem> {
    state.storage.set_channel_state(id, to, ramp).await?;
    state.pipeline.state_changed(QueueKey::Channel(id.clone()));
    let channel = load(state, id).await?;
    state.pipeline.show_channel_state(&channel).await;
    tracing::info!(channel.id = %channel.id, state = state_of(&channel).0, "channel changed by hand");
    detail(state, &channel).await
}

async fn detail(state: &State, channel: &Channel) -> Result<ChannelDetail, Problem> {
    let queue = state.storage.count_queue(&QueueKey::Channel(channel.id.clone())).await?;
    Ok(ChannelDetail { channel: view(state, channel), queue })
}

fn view(state: &State, channel: &Channel) -> ChannelView {
    let (word, reason) = state_of(channel);
    let now = state.clock.now();
    let ramp = channel.ramp.and_then(|ramp| {
        let next_at = moment(ramp.next_step(now)?);
        Some(RampView { began_at: moment(ramp.began), percent: ramp.percent(now), next_at })
    });
    ChannelView {
        id: channel.id.to_string(),
        line: channel.line.to_string(),
        provider: channel.provider.clone(),
        name: channel.name.clone(),
        state: word,
        reason: reason.to_owned(),
        ramp,
        webhook_url: state.pipeline.webhook_url(channel),
        credentials: channel.credentials.keys().cloned().collect(),
        settings: Settings {
            messages_per_second: channel.settings.messages_per_second,
            country: channel.settings.country.clone(),
        },
    }
}

fn state_of(channel: &Channel) -> (&'static str, &str) {
    match &channel.state {
        ChannelState::Active => ("active", ""),
        ChannelState::Paused(reason) => ("paused", reason),
    }
}

fn spec_of(provider: &str) -> Result<&'static ProviderSpec, Problem> {
    providers::find(provider).map(|entry| entry.spec).ok_or_else(|| {
        let known: Vec<&str> = REGISTRY.iter().map(|entry| entry.spec.id).collect();
        Problem::Unprocessable(format!("provider: one of {}", known.join(", ")))
    })
}

/// Credentials as they are stored: known fields, without space around them, the required ones all there.
fn credentials_of(spec: &ProviderSpec, given: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Problem> {
    let refuse = |text: String| Err(Problem::Unprocessable(text));
    let mut kept = BTreeMap::new();
    for (name, value) in given {
        let Some(field) = spec.credentials.iter().find(|field| field.name == name) else {
            let known: Vec<&str> = spec.credentials.iter().map(|field| field.name).collect();
            return refuse(format!("credentials: a field that {} does not have; it has {}", spec.id, known.join(", ")));
        };
        let value = value.trim();
        if value.len() > CREDENTIAL_MAX || value.chars().any(char::is_control) {
            return refuse(format!("credentials.{}: one line of at most {CREDENTIAL_MAX} bytes", field.name));
        }
        if !value.is_empty() {
            kept.insert(name, value.to_owned());
        }
    }
    let is_missing = |field: &str| !kept.contains_key(field);
    match spec.credentials.iter().find(|field| field.required && is_missing(field.name)) {
        Some(field) => refuse(format!("credentials.{}: required", field.name)),
        None => Ok(kept),
    }
}

fn settings_of(given: Settings) -> Result<ChannelSettings, Problem> {
    if given.messages_per_second.is_some_and(|pace| !PACE.contains(&pace)) {
        let text = format!("settings.messages_per_second: {} to {}", PACE.start(), PACE.end());
        return Err(Problem::Unprocessable(text));
    }
    let country = given.country.map(|country| country.trim().to_ascii_uppercase());
    if country.as_deref().is_some_and(|country| !numbers::is_country(country)) {
        return Err(Problem::Unprocessable("settings.country: two letters of ISO 3166, such as RU".to_owned()));
    }
    Ok(ChannelSettings { messages_per_second: given.messages_per_second, country })
}
