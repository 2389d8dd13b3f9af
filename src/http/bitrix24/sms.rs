//! Short messages of a portal that go through our lines.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{SOURCE, Sign, decode, note, prove_sender, require_app, require_form};
use crate::crm::bitrix24::sms::{sms_call, sms_command};
use crate::domain::ids::CommandId;
use crate::domain::portal::PortalState;
use crate::forms::{member, text};
use crate::http::State;
use crate::http::problem::Problem;
use crate::http::verified::Verified;
use crate::telemetry;

/// Part of the query that proves a call; some carry nothing else.
const KEY: &str = "key";

/// The portal wants a message sent. Answered after it is stored, and before anything is done about it.
///
/// The proof in the address counts for every call: it names portal and sender, and nobody else can make one. The
/// application's token is compared besides, where it comes along.
pub(super) async fn take(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    body: web::Bytes,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let (app, code) = path.into_inner();
    require_app(&state, &app)?;
    require_form(&request)?;
    let refuse = |why: &str| {
        telemetry::webhook(SOURCE, "unsigned");
        tracing::warn!(app, why, "short message refused");
        Problem::Forbidden("the address does not prove who calls".to_owned())
    };
    let proof = member(&decode(request.query_string().as_bytes())?, KEY).and_then(text).unwrap_or_default();
    let portal = state.storage.open_sms_proof(&proof, &code).ok_or_else(|| refuse("no proof"))?;
    let call = sms_call(&decode(&body)?)?;
    if !call.code.eq_ignore_ascii_case(&code) {
        return Err(refuse("another sender"));
    }
    let known = state.storage.portal(&portal).await?;
    let known = known.filter(|known| known.portal.app == app && known.portal.state != PortalState::Uninstalled);
    let known = known.ok_or_else(|| refuse("no portal"))?;
    if let Some(auth) = &call.auth
        && prove_sender(&state, &app, auth).await?.get().id != portal
    {
        return Err(refuse("another portal"));
    }
    let senders = state.storage.sms_senders(&portal).await?;
    let Some((sender, _)) = senders.into_iter().find(|(sender, _)| sender.code() == code) else {
        // It was taken away here, and the portal has not heard of it yet: a refusal is all that it understands.
        return Err(Problem::NotFound("this line sends no short messages".to_owned()));
    };
    let id = CommandId::new(&state.ids.ulid());
    let command = sms_command(&known.portal.id, &sender, &call, id, state.clock.now());
    state.pipeline.accept(Verified::checked(command)).await?;
    telemetry::webhook(SOURCE, "ok");
    note(&state, &portal, Sign::Event).await;
    Ok(HttpResponse::Ok().finish())
}
