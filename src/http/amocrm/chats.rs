//! Hooks of the chats service: stored, then answered. They come once, within five seconds, and are never repeated.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{SOURCE, require_app};
use crate::crm::amocrm::CHATS_SCOPE;
use crate::crm::amocrm::chat_hook::{self, HookError};
use crate::domain::portal::PortalState;
use crate::http::State;
use crate::http::problem::Problem;
use crate::http::verified::Verified;
use crate::telemetry;

impl From<HookError> for Problem {
    fn from(error: HookError) -> Self {
        match error {
            HookError::Foreign => Self::Forbidden(error.to_string()),
            HookError::Malformed(what) => Self::Malformed(what),
        }
    }
}

/// An operator has written in a chat, or something else happened there.
pub(super) async fn told(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    body: web::Bytes,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let (app, scope) = path.into_inner();
    require_app(&state, &app)?;
    let signature = request.headers().get("x-signature").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !state.amocrm.proves_chat_hook(&app, signature, &body) {
        telemetry::webhook(SOURCE, "unsigned");
        tracing::warn!(app, "a hook of chats with a wrong signature");
        return Err(Problem::Forbidden("the signature does not fit".to_owned()));
    }
    let written = chat_hook::read(&scope, &body)?;
    let portal = state.storage.portal_registered(CHATS_SCOPE, &scope).await?;
    let known = match portal {
        Some(portal) => state.storage.portal(&portal).await?,
        None => None,
    };
    let known = known.filter(|known| known.portal.app == app && known.portal.state != PortalState::Uninstalled);
    let known = known.ok_or_else(|| {
        tracing::warn!(app, "a hook for chats that are not connected here");
        Problem::NotFound("these chats are not connected here".to_owned())
    })?;
    if let Some(written) = written {
        state.pipeline.accept_written(&known.portal, Verified::checked(written)).await?;
    }
    telemetry::webhook(SOURCE, "ok");
    Ok(HttpResponse::Ok().finish())
}
