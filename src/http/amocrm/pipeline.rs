//! The Digital Pipeline calls: a lead has come to a stage for which somebody chose our action.

use actix_web::{HttpRequest, HttpResponse, web};
use subtle::ConstantTimeEq as _;

use super::{SOURCE, account, body_kind, require_app};
use crate::crm::amocrm::trigger;
use crate::domain::ids::CommandId;
use crate::http::State;
use crate::http::problem::Problem;
use crate::http::verified::Verified;
use crate::telemetry;

/// A call. Answered after the command is stored, and before anything is done about it: it comes only once.
pub(super) async fn moved(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    body: web::Bytes,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let (app, word) = path.into_inner();
    require_app(&state, &app)?;
    let trigger = trigger::read(body_kind(&request)?, &body)?;
    let known = account(&state, &app, &trigger.account_id).await?;
    let given = if word == trigger::IN_SETTINGS { &trigger.key } else { &word };
    let wanted = known.application_token.as_deref().unwrap_or_default();
    if wanted.is_empty() || !bool::from(given.as_bytes().ct_eq(wanted.as_bytes())) {
        telemetry::webhook(SOURCE, "unsigned");
        tracing::warn!(app, portal.id = %known.portal.id, "a call of the pipeline with a wrong word");
        return Err(Problem::Forbidden("the key does not fit".to_owned()));
    }
    telemetry::webhook(SOURCE, "ok");
    if trigger.enters {
        let (id, now) = (CommandId::new(&state.ids.ulid()), state.clock.now());
        state.pipeline.accept(Verified::checked(trigger::command(&known.portal, &trigger, id, now))).await?;
    }
    Ok(HttpResponse::Ok().finish())
}
