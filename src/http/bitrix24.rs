//! Bitrix24's side: robots, life-cycle events, and the pages it shows in its frame.

mod app;
mod card;
mod lost;
mod pass;
mod settings;
mod sms;

use actix_web::{HttpRequest, HttpResponse, web};
use secrecy::{ExposeSecret, SecretString};

use self::pass::{Pass, Scope};
use super::State;
use super::problem::Problem;
use super::verified::Verified;
use crate::crm::TokenPair;
use crate::crm::asked::CommandOptions;
use crate::crm::bitrix24::command::command;
use crate::crm::bitrix24::wire::{Auth, Event, PageOpen, WireError, event_call, page_open, robot_call};
use crate::crm::bitrix24::{Proof, ProveError};
use crate::domain::ids::{CommandId, PortalId};
use crate::domain::job::QueueKey;
use crate::domain::language::Language;
use crate::domain::portal::{CrmKind, Portal, PortalState};
use crate::forms::{self, FormLimits};
use crate::storage::pages::Sign;
use crate::storage::portals::{Installation, KnownPortal};
use crate::telemetry;
use crate::ui::{self, FrameNotice, FrameView};

const SOURCE: &str = "bitrix24";
/// The event that a portal sends when it is asked to send one.
const TEST_EVENT: &str = "ONAPPTEST";

fn decode(body: &[u8]) -> Result<serde_json::Value, Problem> {
    forms::decode(body, FormLimits::default()).map_err(|e| Problem::Malformed(e.to_string()))
}

fn require_form(request: &HttpRequest) -> Result<(), Problem> {
    let kind = request.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let plain = kind.split(';').next().unwrap_or_default().trim();
    if plain.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        Ok(())
    } else {
        Err(Problem::UnsupportedMedia("application/x-www-form-urlencoded is expected".to_owned()))
    }
}

impl From<WireError> for Problem {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Unsigned(_) => Self::Forbidden(error.to_string()),
            WireError::Malformed(_) => Self::Malformed(error.to_string()),
        }
    }
}

fn require_app(state: &State, app: &str) -> Result<(), Problem> {
    if state.bitrix24.has_app(app) { Ok(()) } else { Err(Problem::NotFound(format!("no application {app}"))) }
}

/// The portal behind a call of the queue server, once its application token has been compared.
///
/// A portal whose token is not known yet (it was installed from a page of an old version that does not tell it) proves
/// itself by its access token instead, and is believed from then on.
async fn prove_sender(state: &State, app: &str, auth: &Auth) -> Result<Verified<Portal>, Problem> {
    let refuse = |why: &str| {
        telemetry::webhook(SOURCE, "unsigned");
        tracing::warn!(app, member_id = %auth.member_id, why, "call refused");
        Err(Problem::Forbidden("the application token does not fit".to_owned()))
    };
    let find = |fresh| state.storage.find_portal(CrmKind::Bitrix24, app, &auth.member_id, fresh);
    let proves = |known: &KnownPortal| known.application_token.as_deref().is_some_and(|kept| auth.proves(kept));
    let Some(known) = find(false).await? else { return refuse("unknown portal") };
    if proves(&known) {
        return Ok(Verified::checked(known.portal.clone()));
    }
    // The token may have been replaced a moment ago by another process.
    let Some(known) = find(true).await? else { return refuse("unknown portal") };
    if proves(&known) {
        return Ok(Verified::checked(known.portal.clone()));
    }
    if known.application_token.is_some() || known.portal.state == PortalState::Uninstalled {
        return refuse("wrong application token");
    }
    let Some(access) = &auth.access_token else { return refuse("no application token known") };
    let endpoint = auth.server_endpoint.as_deref();
    let since = state.clock.now();
    let proof =
        state.bitrix24.prove(app, access, endpoint, &auth.member_id).await.map_err(|error| refusal_of(&error))?;
    // The token itself is proved by nothing but the word of who sent it: an administrator's is good enough to keep.
    if !state.bitrix24.who(&proof, access).await.is_ok_and(|who| who.is_admin) {
        return Ok(Verified::checked(known.portal.clone()));
    }
    let token = Some(auth.application_token.expose_secret().to_owned());
    let installation = installation(app, &proof, token, known.portal.language);
    Ok(Verified::checked(state.storage.install_portal(&installation, None, since).await?))
}

fn refusal_of(error: &ProveError) -> Problem {
    telemetry::webhook(SOURCE, "unproved");
    tracing::warn!(%error, "not proved");
    match error {
        ProveError::UnknownApp(_) => Problem::NotFound(error.to_string()),
        ProveError::ForeignServer | ProveError::Foreign(_) | ProveError::Refused(_) => {
            Problem::Forbidden(error.to_string())
        }
        ProveError::Unavailable(_) => Problem::Unavailable,
    }
}

fn installation(app: &str, proof: &Proof, application_token: Option<String>, language: Language) -> Installation {
    Installation {
        crm: CrmKind::Bitrix24,
        app: app.to_owned(),
        member_id: proof.member_id.clone(),
        domain: proof.domain.clone(),
        client_endpoint: proof.client_endpoint.clone(),
        server_endpoint: proof.server_endpoint.clone(),
        application_token,
        language,
    }
}

/// A robot calls. Answered after the command is stored, and before anything is done about it.
pub async fn robot(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    body: web::Bytes,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let (app, _code) = path.into_inner();
    require_app(&state, &app)?;
    require_form(&request)?;
    let call = robot_call(&decode(&body)?)?;
    let portal = prove_sender(&state, &app, &call.auth).await?;
    let now = state.clock.now();
    let id = CommandId::new(&state.ids.ulid());
    let command = command(portal.get(), &call, id, now, &CommandOptions::default());
    let portal = portal.into_inner();
    state.pipeline.accept_call(Verified::checked(command), call.ts).await?;
    telemetry::webhook(SOURCE, "ok");
    note(&state, &portal.id, Sign::Robot).await;
    if let Some(pair) = call.auth.token_pair(false, now) {
        state.storage.offer_tokens(&portal.id, pair.clone()).await;
        revive(&state, &portal.id, &pair).await;
    }
    Ok(HttpResponse::Ok().finish())
}

/// A robot's call carries a fresh pair of tokens: a portal whose own pairs have died is tried again with it. Its state
/// is asked for only now, after the pair has been offered: whoever finds the old pairs dead looks for an offer after he
/// has written that state, so one of the two sees the other.
async fn revive(state: &State, id: &PortalId, pair: &TokenPair) {
    let needs = |known: &KnownPortal| known.portal.state == PortalState::NeedsAuth;
    let revived = match state.storage.portal(id).await {
        Ok(Some(known)) if needs(&known) => state.storage.revive_portal(id, Some(pair)).await,
        Ok(_) => return,
        Err(error) => Err(error),
    };
    match revived {
        Ok(true) => {
            tracing::info!(portal.id = %id, "a robot's call brought fresh tokens");
            state.pipeline.state_changed(QueueKey::Crm(id.clone()));
        }
        Ok(false) => {}
        Err(error) => tracing::warn!(%error, portal.id = %id, "the portal could not be revived"),
    }
}

/// Something happened to the application in a portal.
pub async fn event(
    request: HttpRequest,
    path: web::Path<String>,
    body: web::Bytes,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let app = path.into_inner();
    require_app(&state, &app)?;
    require_form(&request)?;
    let call = event_call(&decode(&body)?)?;
    match &call.event {
        Event::Install { language, .. } | Event::Update { language } => {
            let language = Language::of_portal(language);
            let portal = install(&state, &app, &call.auth, language).await?;
            // Installing and updating remove robots in the portal, whatever we remember of them.
            state.storage.forget_registrations(&portal.id).await?;
            note(&state, &portal.id, Sign::Event).await;
            state.pipeline.ask_reconcile(&portal).await?;
        }
        Event::Uninstall { clean } => {
            let portal = prove_sender(&state, &app, &call.auth).await?.into_inner();
            state.storage.uninstall_portal(&portal.id).await?;
            if *clean {
                state.storage.clean_portal(&portal.id).await?;
            }
            state.pipeline.state_changed(QueueKey::Crm(portal.id.clone()));
            tracing::info!(portal.id = %portal.id, clean, "application removed");
        }
        Event::Operator(event) => {
            let portal = prove_sender(&state, &app, &call.auth).await?.into_inner();
            let Some(messenger) = state.bitrix24.messenger_of(&app, &event.connector) else {
                tracing::warn!(portal.id = %portal.id, connector = event.connector, "event of a connector that is none of ours");
                return Ok(HttpResponse::Ok().finish());
            };
            note(&state, &portal.id, Sign::Event).await;
            let messages = event.messages.iter().cloned().map(|message| message.into_message(messenger)).collect();
            state.pipeline.accept_answers(&portal, Verified::checked(messages), call.ts).await?;
        }
        Event::ConnectorOff { connector, .. } => {
            let portal = prove_sender(&state, &app, &call.auth).await?.into_inner();
            note(&state, &portal.id, Sign::Event).await;
            // Our own doing is told in the same words, late and out of order: the portal is asked how it stands.
            if state.bitrix24.messenger_of(&app, connector).is_some() {
                state.pipeline.ask_reconcile(&portal).await?;
            }
        }
        Event::LineGone { place } => {
            let portal = prove_sender(&state, &app, &call.auth).await?.into_inner();
            state.pipeline.forget_place(&portal, place).await?;
        }
        Event::Other(name) => {
            let portal = prove_sender(&state, &app, &call.auth).await?.into_inner();
            tracing::debug!(event = name, "event without a use");
            note(&state, &portal.id, if name == TEST_EVENT { Sign::Test } else { Sign::Event }).await;
        }
    }
    telemetry::webhook(SOURCE, "ok");
    Ok(HttpResponse::Ok().finish())
}

/// Writes down that a portal has called, for the page that shows how it stands. Nothing hangs on it.
async fn note(state: &State, portal: &PortalId, sign: Sign) {
    if let Err(error) = state.storage.note_sign(portal, sign).await {
        tracing::warn!(%error, portal.id = %portal, "a sign of life was not written down");
    }
}

/// Installs a portal on the word of the authorization server and of the portal itself, never on the word of the event:
/// anybody who may use the application could send one, with an application token of his own making.
async fn install(state: &State, app: &str, auth: &Auth, language: Language) -> Result<Portal, Problem> {
    let Some(access) = &auth.access_token else {
        return Err(Problem::Forbidden("no access token".to_owned()));
    };
    let endpoint = auth.server_endpoint.as_deref();
    let since = state.clock.now();
    let proof = state.bitrix24.prove(app, access, endpoint, &auth.member_id).await.map_err(|e| refusal_of(&e))?;
    let who = state.bitrix24.who(&proof, access).await.map_err(|error| {
        tracing::warn!(%error, "the portal did not say who installs");
        Problem::Unavailable
    })?;
    if !who.is_admin {
        telemetry::webhook(SOURCE, "unproved");
        tracing::warn!(app, member_id = %auth.member_id, "somebody who is no administrator installs");
        return Err(Problem::Forbidden("only an administrator installs".to_owned()));
    }
    let token = Some(auth.application_token.expose_secret().to_owned());
    let installation = installation(app, &proof, token, language);
    let pair = auth.token_pair(true, since).map(|pair| TokenPair { user_id: who.user_id, ..pair });
    let portal = state.storage.install_portal(&installation, pair.as_ref(), since).await?;
    state.pipeline.bind_new_portal(&portal.id).await?;
    state.pipeline.state_changed(QueueKey::Crm(portal.id.clone()));
    tracing::info!(portal.id = %portal.id, app, "installed");
    Ok(portal)
}

/// The installer's page.
pub async fn install_page(
    request: HttpRequest,
    path: web::Path<String>,
    body: web::Bytes,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    page(&request, &path, &body, &state, true).await
}

/// The application's own page.
pub async fn app_page(
    request: HttpRequest,
    path: web::Path<String>,
    body: web::Bytes,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    page(&request, &path, &body, &state, false).await
}

/// Somebody opened an address that belongs into the portal's frame.
pub async fn visitor(path: web::Path<String>, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    require_app(&state, &path)?;
    ui::visitor().map_err(broken)
}

/// The same for a page with a name of its own.
async fn other_visitor(path: web::Path<(String, String)>, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    require_app(&state, &path.0)?;
    ui::visitor().map_err(broken)
}

fn broken(error: askama::Error) -> Problem {
    tracing::error!(%error, "a page could not be made");
    Problem::Internal
}

/// Who opens a page with this form; `None` for a bookmark, a moderator, a curious visitor.
fn opened(request: &HttpRequest, form: &serde_json::Value) -> Result<Option<PageOpen>, Problem> {
    match page_open(&decode(request.query_string().as_bytes())?, form) {
        Ok(opened) => Ok(Some(opened)),
        Err(WireError::Unsigned(_)) => Ok(None),
        Err(WireError::Malformed(what)) => Err(Problem::Malformed(what)),
    }
}

async fn page(
    request: &HttpRequest,
    app: &str,
    body: &[u8],
    state: &State,
    installing: bool,
) -> Result<HttpResponse, Problem> {
    require_app(state, app)?;
    let Some(opened) = opened(request, &decode(body)?)? else { return ui::visitor().map_err(broken) };
    let notice = match open(state, app, &opened).await {
        Ok(view) => return ui::frame(&FrameView { installing, ..view }).map_err(broken),
        Err(notice) => notice,
    };
    match notice {
        Refused::Said(key) => notice_in_frame(&opened, key),
        Refused::Problem(problem) => Err(problem),
    }
}

/// Says one thing inside the frame that asked for the page. It holds nothing and does nothing, so whoever says to be the
/// portal may frame it; without that the browser would show an empty frame.
fn notice_in_frame(opened: &PageOpen, key: &'static str) -> Result<HttpResponse, Problem> {
    let language = Language::of_portal(&opened.language);
    ui::frame_notice(&FrameNotice { language, key, domain: Some(opened.domain.clone()) }).map_err(broken)
}

/// Why a page is not shown.
enum Refused {
    /// In words, on a page.
    Said(&'static str),
    /// As a refusal.
    Problem(Problem),
}

impl From<crate::storage::StorageError> for Refused {
    fn from(error: crate::storage::StorageError) -> Self {
        Self::Problem(error.into())
    }
}

/// Proves who opened the page, brings the installation up to date and says how it stands.
async fn open(state: &State, app: &str, opened: &PageOpen) -> Result<FrameView, Refused> {
    let (portal, proof) = enter(state, app, opened).await?;
    let language = Language::of_portal(&opened.language);
    let pass = Pass::new(state, &portal, &proof.user_id, language, Scope::App);
    app::describe(state, &portal, &pass).await
}

/// Proves who opened a page.
async fn prove_viewer(
    state: &State,
    app: &str,
    token: &SecretString,
    server_endpoint: Option<&str>,
    member_id: &str,
) -> Result<Proof, Refused> {
    state.bitrix24.prove(app, token, server_endpoint, member_id).await.map_err(|error| match error {
        ProveError::Unavailable(error) => {
            tracing::warn!(%error, "authorization server unavailable");
            Refused::Said("try_later")
        }
        other => Refused::Problem(refusal_of(&other)),
    })
}

/// Proves that an administrator opened the page, and brings the installation up to date.
async fn enter(state: &State, app: &str, opened: &PageOpen) -> Result<(Portal, Proof), Refused> {
    let Some(tokens) = &opened.tokens else { return Err(Refused::Said("no_access")) };
    let access: &SecretString = &tokens.access;
    let endpoint = opened.server_endpoint.as_deref();
    let since = state.clock.now();
    let proof = prove_viewer(state, app, access, endpoint, &opened.member_id).await?;
    let who = state.bitrix24.who(&proof, access).await.map_err(|error| {
        tracing::warn!(%error, "the portal did not say who opened the page");
        Refused::Said("try_later")
    })?;
    if !who.is_admin {
        return Err(Refused::Said("admins_only"));
    }
    let reads = if who.language.is_empty() { &opened.language } else { &who.language };
    let token = opened.application_token.as_ref().map(|token| token.expose_secret().to_owned());
    let installation = installation(app, &proof, token, Language::of_portal(reads));
    let pair = opened.token_pair(&who.user_id, who.is_admin, state.clock.now());
    let portal = state.storage.install_portal(&installation, pair.as_ref(), since).await?;
    state.pipeline.bind_new_portal(&portal.id).await?;
    state.pipeline.state_changed(QueueKey::Crm(portal.id.clone()));
    Ok((portal, proof))
}

/// Addresses below `/bitrix24/{app}`.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("/bitrix24/{app}")
            .service(web::resource("/install").post(install_page).get(visitor))
            .service(web::resource("/app").post(app_page).get(visitor))
            .service(web::resource("/app/{action}").post(app::act).get(other_visitor))
            .service(web::resource("/placements/{name}").post(card::page).get(other_visitor))
            .service(web::resource("/card/dialogs").get(card::dialogs))
            .service(web::resource("/card/messages").post(card::write))
            .service(web::resource("/card/templates/{channel}").get(card::templates))
            .service(web::resource("/card/pass").post(card::renew))
            .service(web::resource("/events").post(event))
            .service(web::resource("/robots/{code}").post(robot))
            .service(web::resource("/sms/{sender}").post(sms::take))
            .service(web::resource("/settings/{connector}").post(settings::page).get(other_visitor)),
    );
}
