//! amoCRM's side: the return from the consent screen, Salesbot steps, and the word that an integration was disabled.

mod chats;
mod pipeline;
mod widget;

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;

use super::State;
use super::problem::Problem;
use super::verified::Verified;
use crate::crm::amocrm::salesbot::{self, BodyKind, StepError};
use crate::crm::amocrm::{Grant, InstallError, Installed};
use crate::domain::ids::CommandId;
use crate::domain::job::QueueKey;
use crate::domain::language::Language;
use crate::domain::portal::{CrmKind, Portal, PortalState};
use crate::domain::time::Timestamp;
use crate::storage::portals::{Installation, KnownPortal};
use crate::telemetry;
use crate::ui::{self, FrameNotice};

const SOURCE: &str = "amocrm";
/// amoCRM's own server waits three seconds for its answer, and never comes again.
const SERVER_WAITS: Duration = Duration::from_secs(2);

fn require_app(state: &State, app: &str) -> Result<(), Problem> {
    if state.amocrm.has_app(app) { Ok(()) } else { Err(Problem::NotFound(format!("no integration {app}"))) }
}

fn query<T: for<'de> Deserialize<'de>>(request: &HttpRequest) -> Result<T, Problem> {
    web::Query::<T>::from_query(request.query_string())
        .map(web::Query::into_inner)
        .map_err(|_unread| Problem::Malformed("the query cannot be read".to_owned()))
}

impl From<StepError> for Problem {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Unproved(_) => Self::Forbidden("the token does not fit".to_owned()),
            StepError::Malformed(what) => Self::Malformed(what),
        }
    }
}

impl From<InstallError> for Problem {
    fn from(error: InstallError) -> Self {
        telemetry::webhook(SOURCE, "unproved");
        tracing::warn!(%error, "an account was not installed");
        match error {
            InstallError::ForeignHost | InstallError::Foreign | InstallError::Refused(_) => {
                Self::Forbidden(error.to_string())
            }
            InstallError::Unavailable(_) => Self::Unavailable,
        }
    }
}

/// What a consent screen brings back.
#[derive(Deserialize)]
struct Return {
    code: Option<String>,
    referer: Option<String>,
    state: Option<String>,
    client_id: Option<String>,
    error: Option<String>,
    from_widget: Option<String>,
}

/// Keeps an account that has proved itself, and lets its work begin.
///
/// # Errors
/// [`Problem::Unavailable`] when the store is down.
pub(super) async fn keep(state: &State, app: &str, installed: Installed, since: Timestamp) -> Result<Portal, Problem> {
    let installation = Installation {
        crm: CrmKind::Amocrm,
        app: app.to_owned(),
        member_id: installed.account_id,
        domain: installed.domain,
        client_endpoint: installed.client_endpoint,
        server_endpoint: installed.server_endpoint,
        application_token: None,
        language: installed.language,
    };
    let portal = state.storage.install_portal(&installation, Some(&installed.pair), since).await?;
    state.pipeline.bind_new_portal(&portal.id).await?;
    // Also an account that was here before: its chats were cut, and nobody tells of that.
    state.pipeline.ask_reconcile(&portal).await?;
    state.pipeline.state_changed(QueueKey::Crm(portal.id.clone()));
    tracing::info!(portal.id = %portal.id, app, crm = SOURCE, "installed");
    Ok(portal)
}

/// A person comes back from the consent screen, or amoCRM's server tells of an installation from its market.
pub async fn oauth(
    request: HttpRequest,
    path: web::Path<String>,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let app = path.into_inner();
    require_app(&state, &app)?;
    let back: Return = query(&request)?;
    if let Some(word) = &back.state
        && !state.storage.end_authorization(&app, word).await?
    {
        telemetry::webhook(SOURCE, "unproved");
        return Err(Problem::Forbidden("this consent was not asked for here, or is used up".to_owned()));
    }
    let host = back.referer.unwrap_or_default();
    let language = if host.ends_with(".ru") { Language::Ru } else { Language::En };
    if back.error.is_some() {
        return said("amocrm_refused", language);
    }
    let code = back.code.filter(|code| !code.is_empty());
    let code = code.ok_or_else(|| Problem::Malformed("no code".to_owned()))?;
    if back.client_id.is_some_and(|id| !state.amocrm.is_client(&app, &id)) {
        return Err(Problem::Forbidden("the code is for another integration".to_owned()));
    }
    let of_server = back.from_widget.is_some();
    // On its own: a browser that goes away must not take the only code with it.
    let installing = tokio::spawn(async move {
        let since = state.clock.now();
        let installed = state.amocrm.install(Grant { app: &app, host: &host, code: &code }).await?;
        keep(&state, &app, installed, since).await
    });
    let installed = match of_server {
        false => installing.await,
        true => match tokio::time::timeout(SERVER_WAITS, installing).await {
            Ok(installed) => installed,
            // It goes on; how it ends is logged.
            Err(_) => return Ok(HttpResponse::Ok().finish()),
        },
    };
    let portal = installed.map_err(|error| {
        tracing::error!(%error, "an installation broke off");
        Problem::Internal
    })??;
    telemetry::webhook(SOURCE, "ok");
    said("amocrm_ready", portal.language)
}

fn said(key: &'static str, language: Language) -> Result<HttpResponse, Problem> {
    ui::frame_notice(&FrameNotice { language, key, domain: None }).map_err(|error| {
        tracing::error!(%error, "a page could not be made");
        Problem::Internal
    })
}

/// A Salesbot step. Answered after the command is stored, and before anything is done about it.
pub async fn step(
    request: HttpRequest,
    path: web::Path<String>,
    body: web::Bytes,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let app = path.into_inner();
    require_app(&state, &app)?;
    let kind = body_kind(&request)?;
    let proved = state.amocrm.prove_step(&app, kind, &body).map_err(|error| {
        telemetry::webhook(SOURCE, "unsigned");
        tracing::warn!(app, %error, "step refused");
        Problem::from(error)
    })?;
    let known = account(&state, &app, &proved.account_id).await?;
    let step = state.amocrm.read_step(&known.portal, &proved, kind, &body)?;
    let (id, now) = (CommandId::new(&state.ids.ulid()), state.clock.now());
    let command = salesbot::command(&known.portal, &step, id, now);
    state.pipeline.accept(Verified::checked(command)).await?;
    telemetry::webhook(SOURCE, "ok");
    Ok(HttpResponse::Ok().finish())
}

/// An installed account.
async fn account(state: &State, app: &str, account_id: &str) -> Result<Arc<KnownPortal>, Problem> {
    let known = state.storage.find_portal(CrmKind::Amocrm, app, account_id, false).await?;
    // Installed a moment ago by another process.
    let known = match known {
        Some(known) => Some(known),
        None => state.storage.find_portal(CrmKind::Amocrm, app, account_id, true).await?,
    };
    known.filter(|known| known.portal.state != PortalState::Uninstalled).ok_or_else(|| {
        telemetry::webhook(SOURCE, "unsigned");
        tracing::warn!(app, "a call for an account that is not installed");
        Problem::Forbidden("the account is not installed here".to_owned())
    })
}

fn body_kind(request: &HttpRequest) -> Result<BodyKind, Problem> {
    let kind = request.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    match kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/x-www-form-urlencoded" => Ok(BodyKind::Form),
        "application/json" => Ok(BodyKind::Json),
        _ => Err(Problem::UnsupportedMedia("a form or JSON is expected".to_owned())),
    }
}

/// The word that an integration was disabled. The vendor writes the integration's id under either name.
#[derive(Deserialize)]
struct Removal {
    account_id: String,
    client_uuid: Option<String>,
    client_id: Option<String>,
    signature: String,
}

/// The integration was disabled in an account. The word has no time and can be replayed, also after a new installation:
/// the account is asked whether it is true before anything is forgotten.
pub async fn uninstall(
    request: HttpRequest,
    path: web::Path<String>,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let app = path.into_inner();
    require_app(&state, &app)?;
    let removal: Removal = query(&request)?;
    let client_id = removal.client_uuid.or(removal.client_id).unwrap_or_default();
    if !state.amocrm.proves_removal(&app, &client_id, &removal.account_id, &removal.signature) {
        telemetry::webhook(SOURCE, "unsigned");
        tracing::warn!(app, "a removal with a wrong signature");
        return Err(Problem::Forbidden("the signature does not fit".to_owned()));
    }
    telemetry::webhook(SOURCE, "ok");
    let known = state.storage.find_portal(CrmKind::Amocrm, &app, &removal.account_id, true).await?;
    let Some(known) = known.filter(|known| known.portal.state != PortalState::Uninstalled) else {
        return Ok(HttpResponse::Ok().finish());
    };
    let portal = &known.portal;
    match state.amocrm.is_gone(portal).await {
        Ok(true) => {
            state.storage.uninstall_portal(&portal.id).await?;
            state.pipeline.state_changed(QueueKey::Crm(portal.id.clone()));
            tracing::info!(portal.id = %portal.id, crm = SOURCE, "integration disabled");
        }
        Ok(false) => tracing::warn!(portal.id = %portal.id, "a removal was told, but the account lets us in"),
        // Its next call will tell.
        Err(error) => tracing::warn!(%error, portal.id = %portal.id, "a removal could not be confirmed"),
    }
    Ok(HttpResponse::Ok().finish())
}

/// Addresses below `/amocrm/{app}`.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("/amocrm/{app}")
            .app_data(web::PayloadConfig::new(salesbot::BODY_MAX))
            .service(web::resource("/oauth").get(oauth))
            .service(web::resource("/uninstall").get(uninstall))
            .service(web::resource("/salesbot").post(step))
            .service(web::resource("/pipeline/{key}").post(pipeline::moved))
            .service(web::resource("/chats/{scope}").post(chats::told))
            .configure(widget::routes),
    );
}
