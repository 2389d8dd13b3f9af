//! What our widget asks from somebody's browser: what can be chosen, whether a step would do, what was written to a client,
//! and to write first.
//!
//! The caller is proved by amoCRM's disposable token. Browsers ask from the account's own pages only: other origins get no
//! permission, and refusals carry it too, because without it the widget would see no reason (protocol reference, sections
//! "Disposable token" and "Calling your server from the widget", read 2026-11).

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, Data, Json, ReqData};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, Responder, ResponseError as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{SOURCE, account, require_app};
use crate::crm::amocrm::widget::{self, Carrier, Visitor};
use crate::domain::channel::{Channel, ChannelState};
use crate::domain::command::CommandBody;
use crate::domain::ids::{ChannelId, CommandId, PortalId};
use crate::domain::language::Language;
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::portal::Portal;
use crate::domain::template::{HeaderKind, TemplateDef};
use crate::http::State;
use crate::http::api::body::Document;
use crate::http::api::views::{moment, words_of};
use crate::http::problem::Problem;
use crate::http::verified::Verified;
use crate::storage::messages::{MessageFilter, MessageHistory};
use crate::{i18n, manifests, numbers, robots, telemetry};

/// The header that carries the disposable token.
const TOKEN: &str = "x-auth-token";
/// Messages shown of one client.
const DIALOG_MAX: u32 = 30;
/// Most phones of one client that are looked at.
const PHONES_MAX: usize = 10;
/// Longest word for one click, in bytes.
const REQUEST_MAX: usize = 64;

/// Who asks, once it is proved.
#[derive(Clone)]
struct Visit {
    portal: Portal,
    visitor: Visitor,
}

/// Addresses below `/amocrm/{app}/widget`.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("/widget")
            .wrap(from_fn(guard))
            .service(web::resource("/options").get(options))
            .service(web::resource("/check").post(check))
            .service(web::resource("/dialogs").post(dialogs))
            .service(web::resource("/messages").post(send)),
    );
}

/// Lets through whoever is proved, and tells browsers which pages may read the answer.
async fn guard<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> actix_web::Result<ServiceResponse<EitherBody<B>>> {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let (asked, refused) = match prove(request.request(), origin.as_ref()).await {
        Ok(None) => (Some(HttpResponse::NoContent().finish()), false),
        Ok(Some(visit)) => {
            request.extensions_mut().insert(visit);
            (None, false)
        }
        Err((problem, foreign)) => (Some(problem.error_response()), foreign),
    };
    let mut answer = match asked {
        Some(answer) => request.into_response(answer).map_into_right_body(),
        None => next.call(request).await?.map_into_left_body(),
    };
    if let Some(origin) = origin.filter(|_| !refused) {
        let headers = answer.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let say = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "Content-Type, X-Auth-Token"),
            (header::ACCESS_CONTROL_MAX_AGE, "600"),
        ];
        for (name, value) in say {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("Origin"));
    Ok(answer)
}

/// The visit; `None` when a browser only asks whether it may. A refusal says whether its page is foreign, too: such a page
/// reads nothing, not even why.
async fn prove(request: &HttpRequest, origin: Option<&HeaderValue>) -> Result<Option<Visit>, (Problem, bool)> {
    let broken = || (Problem::Internal, true);
    let state = request.app_data::<Data<State>>().ok_or_else(broken)?;
    let app = request.match_info().get("app").ok_or_else(broken)?;
    require_app(state, app).map_err(|problem| (problem, true))?;
    let foreign = || (Problem::Forbidden("this page is no account's".to_owned()), true);
    let origin = origin.map(|origin| origin.to_str().unwrap_or_default());
    if origin.is_some_and(|origin| !state.amocrm.is_page(origin)) {
        return Err(foreign());
    }
    if request.method() == Method::OPTIONS {
        return Ok(None);
    }
    let token = request.headers().get(TOKEN).and_then(|token| token.to_str().ok()).unwrap_or_default();
    let visitor = state.amocrm.prove_visitor(app, token).map_err(|error| {
        telemetry::webhook(SOURCE, "unsigned");
        tracing::warn!(app, %error, "a call of the widget refused");
        (Problem::from(error), false)
    })?;
    let known = account(state, app, &visitor.account_id).await.map_err(|problem| (problem, false))?;
    // A page of another account, even of ours, has no business with this one's token.
    if origin.is_some_and(|origin| !state.amocrm.is_page_of(origin, &known.portal)) {
        return Err(foreign());
    }
    Ok(Some(Visit { portal: known.portal.clone(), visitor }))
}

#[derive(Deserialize)]
struct Reader {
    #[serde(default)]
    lang: String,
}

fn language(code: &str, portal: &Portal) -> Language {
    match code {
        "" => portal.language,
        code => Language::of_portal(code),
    }
}

/// What can be chosen in forms.
#[derive(Serialize)]
struct Options {
    actions: Vec<ActionView>,
    lines: Vec<LineView>,
    templates: Vec<TemplateView>,
    /// The account's word for the triggers of its pipelines.
    key: String,
    /// What could not be found out just now, in words.
    trouble: Vec<String>,
}

#[derive(Serialize)]
struct ActionView {
    code: String,
    name: String,
    properties: Vec<PropertyView>,
}

#[derive(Serialize)]
struct PropertyView {
    key: String,
    kind: &'static str,
    required: bool,
    multiple: bool,
    default: String,
    name: String,
    hint: String,
    choices: Vec<ChoiceView>,
}

#[derive(Serialize)]
struct ChoiceView {
    value: String,
    name: String,
}

#[derive(Serialize)]
struct LineView {
    id: String,
    name: String,
    channels: Vec<ChannelView>,
}

#[derive(Serialize)]
struct ChannelView {
    id: String,
    name: String,
    messenger: &'static str,
    title: &'static str,
    works: bool,
    state: String,
    templates: bool,
}

#[derive(Serialize)]
struct TemplateView {
    label: String,
    line: String,
    channel: String,
    sendable: bool,
    status: String,
    body: String,
    /// What has to be given, in order; a name where the template uses names.
    params: Vec<Option<String>>,
    /// The file at the top has to be given.
    file: bool,
}

impl TemplateView {
    fn of(line: &str, channel: &Channel, def: TemplateDef) -> Self {
        let buttons = def.buttons.iter().filter(|button| button.kind.is_required()).map(|_| None);
        let file = match def.header {
            HeaderKind::Image | HeaderKind::Video | HeaderKind::Document => true,
            HeaderKind::Fixed | HeaderKind::Text | HeaderKind::Location => false,
        };
        Self {
            label: def.id.label(),
            line: line.to_owned(),
            channel: channel.id.to_string(),
            sendable: def.sendable,
            status: def.status,
            body: def.body,
            params: def.header_variables.into_iter().chain(def.body_variables).chain(buttons).collect(),
            file,
        }
    }
}

async fn options(
    visit: ReqData<Visit>,
    state: Data<State>,
    reader: web::Query<Reader>,
) -> Result<impl Responder, Problem> {
    let portal = &visit.portal;
    let language = language(&reader.lang, portal);
    let (mut lines, mut templates, mut trouble) = (Vec::new(), Vec::new(), Vec::new());
    for line in state.storage.lines_of_portal(&portal.id).await?.iter() {
        let mut channels = Vec::new();
        for channel in state.storage.channels_of_line(&line.id).await?.iter() {
            let Some(provider) = state.pipeline.provider_of(channel) else { continue };
            channels.push(channel_view(channel, provider.spec().messenger, provider.templates().is_some(), language));
            match state.pipeline.templates_of(channel).await {
                Ok(found) => {
                    templates.extend(found.iter().map(|def| TemplateView::of(line.id.as_str(), channel, def.clone())));
                }
                Err(error) => {
                    tracing::warn!(channel.id = %channel.id, class = error.class.code(), "templates were not told");
                    let named = [("channel", channel.name.as_str())];
                    trouble.push(i18n::text(language, "widget.no_templates", &named));
                }
            }
        }
        lines.push(LineView { id: line.id.to_string(), name: line.name.clone(), channels });
    }
    let key = state.storage.word_of(&portal.id).await?;
    Ok(Json(Options { actions: actions(language)?, lines, templates, key, trouble }))
}

fn channel_view(
    channel: &Channel,
    messenger: crate::domain::channel::Messenger,
    templates: bool,
    language: Language,
) -> ChannelView {
    let (works, state) = match &channel.state {
        ChannelState::Active => (true, i18n::text(language, "page.works", &[])),
        ChannelState::Paused(reason) => (false, format!("{}: {reason}", i18n::text(language, "page.paused", &[]))),
    };
    ChannelView {
        id: channel.id.to_string(),
        name: channel.name.clone(),
        messenger: messenger.code(),
        title: messenger.title(),
        works,
        state,
        templates,
    }
}

/// The catalogue in one language.
fn actions(language: Language) -> Result<Vec<ActionView>, Problem> {
    let catalogue = manifests::amocrm::steps().map_err(|error| {
        tracing::error!(error, "the catalogue cannot be read");
        Problem::Internal
    })?;
    Ok(catalogue.iter().map(|robot| action_view(robot, language)).collect())
}

fn action_view(robot: &robots::Robot, language: Language) -> ActionView {
    let property = |property: &robots::Property| PropertyView {
        key: property.key.clone(),
        kind: property.kind.code(),
        required: property.required,
        multiple: property.multiple,
        default: property.default.clone().unwrap_or_default(),
        name: property.name.of(language).to_owned(),
        hint: property.description.as_ref().map_or("", |hint| hint.of(language)).to_owned(),
        choices: property
            .options
            .iter()
            .map(|choice| ChoiceView { value: choice.value.clone(), name: choice.name.of(language).to_owned() })
            .collect(),
    };
    ActionView {
        code: robot.code.clone(),
        name: robot.name.of(language).to_owned(),
        properties: robot.properties.iter().map(property).collect(),
    }
}

/// A form that is being filled in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Draft {
    #[serde(default)]
    lang: String,
    /// As a step will carry it.
    data: Value,
    /// It will be an action of a pipeline's stage, and no step of a bot.
    #[serde(default)]
    pipeline: bool,
}

#[derive(Serialize)]
struct Checked {
    problems: Vec<ProblemView>,
}

/// What would go wrong, and where in the form.
#[derive(Serialize)]
struct ProblemView {
    field: String,
    text: String,
}

/// Why an action would be refused whoever it concerns, as far as that can be told now.
async fn foreseen(state: &State, portal: &PortalId, body: &CommandBody) -> Result<Option<Failure>, Problem> {
    Ok(match body {
        CommandBody::Invalid { failure } => Some(failure.clone()),
        CommandBody::SendMessage(send) => state.pipeline.rehearse(portal, send).await?,
        CommandBody::Answer(_)
        | CommandBody::RenameChat(_)
        | CommandBody::TagDialog(_)
        | CommandBody::CheckPhone(_) => None,
    })
}

/// Says what of a form would fail when it is carried out.
async fn check(
    visit: ReqData<Visit>,
    state: Data<State>,
    Document(draft): Document<Draft>,
) -> Result<impl Responder, Problem> {
    let language = language(&draft.lang, &visit.portal);
    let carrier = if draft.pipeline { Carrier::Pipeline } else { Carrier::Bot };
    let rehearsal = widget::rehearse(&draft.data, carrier);
    let failure = foreseen(&state, &visit.portal.id, &rehearsal.body).await?;
    let mut problems: Vec<ProblemView> = failure.iter().map(|failure| problem_view(failure, language)).collect();
    for place in rehearsal.may_be_empty {
        let number = place.to_string();
        let text = i18n::text(language, "widget.may_be_empty", &[("number", number.as_str())]);
        problems.push(ProblemView { field: "params".to_owned(), text });
    }
    Ok(Json(Checked { problems }))
}

fn problem_view(failure: &Failure, language: Language) -> ProblemView {
    let sentence = i18n::error(language, failure.code, &failure.detail);
    let advice = i18n::advice(language, failure.code);
    let text = if advice.is_empty() { sentence } else { format!("{sentence}. {advice}") };
    ProblemView { field: field_of(failure).to_owned(), text }
}

/// The field of the form that a failure is about.
fn field_of(failure: &Failure) -> &str {
    match failure.code {
        ErrorCode::NoLine => "line",
        ErrorCode::NoChannel => "messenger",
        ErrorCode::TemplateNotFound => "template",
        ErrorCode::TemplateParams => "params",
        ErrorCode::FileType | ErrorCode::FileTooLarge => "files",
        ErrorCode::NoRecipient | ErrorCode::BadPhone => "phones",
        ErrorCode::BadRequest => failure.detail.split_once('=').map_or("", |(key, _)| key),
        _ => "text",
    }
}

/// A client, by the phones of a card.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Client {
    #[serde(default)]
    lang: String,
    phones: Vec<String>,
}

#[derive(Serialize)]
struct Dialog {
    messages: Vec<MessageView>,
}

/// One message of a client.
#[derive(Serialize)]
struct MessageView {
    id: String,
    at: String,
    inbound: bool,
    text: String,
    channel: String,
    messenger: &'static str,
    state: &'static str,
    /// The state in words; for a failure with its reason.
    words: String,
}

/// What was written with a client over the account's own channels, oldest first.
async fn dialogs(
    visit: ReqData<Visit>,
    state: Data<State>,
    Document(client): Document<Client>,
) -> Result<impl Responder, Problem> {
    let language = language(&client.lang, &visit.portal);
    let country = state.pipeline.country();
    let read = client.phones.iter().take(PHONES_MAX).filter_map(|phone| numbers::read(phone, country).ok());
    let mut peers: Vec<String> = read.map(|phone| phone.digits().to_owned()).collect();
    peers.sort_unstable();
    peers.dedup();
    let mut found: Vec<MessageView> = Vec::new();
    for channel in channels_of(&state, &visit.portal).await? {
        for peer in &peers {
            let messages = messages_with(&state, &channel.id, peer).await?;
            found.extend(messages.iter().map(|history| message_view(&state, history, &channel, language)));
        }
    }
    found.sort_by(|one, other| one.at.cmp(&other.at).then_with(|| one.id.cmp(&other.id)));
    let older = found.len().saturating_sub(usize::try_from(DIALOG_MAX).unwrap_or(usize::MAX));
    Ok(Json(Dialog { messages: found.split_off(older) }))
}

/// The channels of the lines that are bound to the account: of others it sees nothing.
async fn channels_of(state: &State, portal: &Portal) -> Result<Vec<std::sync::Arc<Channel>>, Problem> {
    let mut channels = Vec::new();
    for line in state.storage.lines_of_portal(&portal.id).await?.iter() {
        channels.extend(state.storage.channels_of_line(&line.id).await?.iter().cloned());
    }
    Ok(channels)
}

async fn messages_with(state: &State, channel: &ChannelId, peer: &str) -> Result<Vec<MessageHistory>, Problem> {
    let filter = MessageFilter {
        peer: Some(peer.to_owned()),
        channel: Some(channel.clone()),
        state: None,
        before: None,
        limit: DIALOG_MAX,
    };
    Ok(state.storage.list_messages(&filter).await?)
}

fn message_view(state: &State, history: &MessageHistory, channel: &Channel, language: Language) -> MessageView {
    let record = &history.record;
    let code = if history.inbound { "received" } else { record.state.code() };
    let words = match &record.failure {
        Some(failure) => i18n::error(language, failure.code, &failure.detail),
        None => i18n::text(language, &format!("widget.state_{code}"), &[]),
    };
    MessageView {
        id: record.id.to_string(),
        at: moment(record.times.created),
        inbound: history.inbound,
        text: words_of(history),
        channel: channel.name.clone(),
        messenger: state.pipeline.provider_of(channel).map_or("", |provider| provider.spec().messenger.title()),
        state: code,
        words,
    }
}

/// A message to write.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    lang: String,
    /// The widget's own word for this click: a repetition sends nothing again.
    request: String,
    data: Value,
}

#[derive(Serialize)]
struct Taken {
    id: String,
}

/// Writes to a client. What becomes of it is told in the card's notes and in the panel.
async fn send(
    visit: ReqData<Visit>,
    state: Data<State>,
    Document(written): Document<Written>,
) -> Result<impl Responder, Problem> {
    let language = language(&written.lang, &visit.portal);
    let visible = written.request.bytes().all(|byte| byte.is_ascii_graphic());
    if !(1..=REQUEST_MAX).contains(&written.request.len()) || !visible {
        return Err(Problem::Malformed(format!("request: 1 to {REQUEST_MAX} visible ASCII characters")));
    }
    let made = (CommandId::new(&state.ids.ulid()), state.clock.now());
    let command = widget::command(&visit.portal, &visit.visitor, &written.request, &written.data, made);
    let failure = foreseen(&state, &visit.portal.id, &command.body).await?;
    // Somebody sits before the form: they are told at once, instead of by a note.
    if let Some(failure) = failure {
        return Err(Problem::Unprocessable(problem_view(&failure, language).text));
    }
    let id = command.id.to_string();
    state.pipeline.accept(Verified::checked(command)).await?;
    Ok((Json(Taken { id }), StatusCode::ACCEPTED))
}
