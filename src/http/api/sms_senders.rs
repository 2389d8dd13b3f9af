//! Lines that a portal offers as senders of its short messages: what the settings page of a connector switches, for programs.

use actix_web::web::{Data, Json, Path};
use actix_web::{HttpResponse, Responder};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::Document;
use super::{lines, portals};
use crate::crm::TokenStore as _;
use crate::domain::channel::Messenger;
use crate::domain::ids::PortalId;
use crate::domain::portal::CrmKind;
use crate::domain::sms::SmsSender;
use crate::domain::template::TemplateRef;
use crate::http::State;
use crate::http::admin::Admin;
use crate::http::problem::Problem;

/// How a line sends short messages.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SenderSettings {
    /// Template (`name:language`) that goes out when the messenger's window is closed; the text is its only parameter. Left
    /// out, such a message fails, and the comment on its card says why.
    #[serde(default)]
    #[schema(example = "sms:ru")]
    template: Option<String>,
}

/// A line that is a sender.
#[derive(Serialize, ToSchema)]
pub(super) struct SenderView {
    /// Its code in the portal.
    code: String,
    /// The messenger.
    #[schema(example = "whatsapp")]
    messenger: &'static str,
    /// The line.
    line: String,
    /// The template for a closed window; null without one.
    template: Option<String>,
    /// The portal has it. While it does not: the right `messageservice` may be missing.
    registered: bool,
}

impl SenderView {
    fn new(sender: &SmsSender, registered: &[(String, String)]) -> Self {
        let key = format!("sms:{}", sender.code());
        Self {
            registered: registered.iter().any(|(known, _)| *known == key),
            code: sender.code(),
            messenger: sender.messenger.code(),
            line: sender.line.to_string(),
            template: sender.template.as_ref().map(TemplateRef::label),
        }
    }
}

/// List the lines that a portal offers as senders of short messages.
#[utoipa::path(get, path = "/api/v1/portals/{portal}/sms-senders", tag = "portals", operation_id = "list_sms_senders",
    params(("portal" = String, Path, description = "Id of the portal")),
    responses((status = 200, description = "All of them", body = Vec<SenderView>),
        (status = 404, description = "No such portal")))]
pub(super) async fn list(_: Admin, state: Data<State>, path: Path<String>) -> Result<impl Responder, Problem> {
    let known = portals::find(&state, &path).await?;
    let senders = state.storage.sms_senders(&known.portal.id).await?;
    let registered = registered(&state, &known.portal.id).await?;
    Ok(Json(senders.iter().map(|(sender, _)| SenderView::new(sender, &registered)).collect::<Vec<_>>()))
}

/// Let a Bitrix24 portal send its short messages (cards, automations, mailings) through a line.
#[utoipa::path(put, path = "/api/v1/portals/{portal}/sms-senders/{messenger}/{line}", tag = "portals",
    operation_id = "put_sms_sender",
    params(("portal" = String, Path, description = "Id of the portal"),
        ("messenger" = String, Path, description = "The messenger"),
        ("line" = String, Path, description = "Id of the line; the portal must have it")),
    request_body = SenderSettings,
    responses((status = 200, description = "It is one; the portal shows it in a moment", body = SenderView),
        (status = 404, description = "No such portal or line, or the portal does not have it"),
        (status = 409, description = "The CRM has no senders")))]
pub(super) async fn put(
    _: Admin,
    state: Data<State>,
    path: Path<(String, String, String)>,
    Document(settings): Document<SenderSettings>,
) -> Result<impl Responder, Problem> {
    let (portal, messenger, line) = path.into_inner();
    let known = portals::find(&state, &portal).await?;
    let line = lines::find(&state, &line).await?;
    let bound = state.storage.lines_of_portal(&known.portal.id).await?;
    if !bound.iter().any(|bound| bound.id == line.id) {
        return Err(Problem::NotFound("the portal does not have this line".to_owned()));
    }
    if known.portal.crm != CrmKind::Bitrix24 {
        return Err(Problem::Conflict("only Bitrix24 has senders of short messages".to_owned()));
    }
    let unreadable = || Problem::Malformed("template: name:language".to_owned());
    let template = settings.template.filter(|name| !name.trim().is_empty());
    let template = template.map(|name| TemplateRef::parse(&name).ok_or_else(unreadable)).transpose()?;
    let sender = SmsSender { messenger: messenger_of(&messenger)?, line: line.id, template };
    state.pipeline.make_sender(&known.portal, &sender).await?;
    Ok(Json(SenderView::new(&sender, &registered(&state, &known.portal.id).await?)))
}

/// Take a line from the senders of a portal.
#[utoipa::path(delete, path = "/api/v1/portals/{portal}/sms-senders/{messenger}/{line}", tag = "portals",
    operation_id = "delete_sms_sender",
    params(("portal" = String, Path, description = "Id of the portal"),
        ("messenger" = String, Path, description = "The messenger"),
        ("line" = String, Path, description = "Id of the line")),
    responses((status = 204, description = "It is none any more"),
        (status = 404, description = "No such portal or line, or it was none")))]
pub(super) async fn remove(
    _: Admin,
    state: Data<State>,
    path: Path<(String, String, String)>,
) -> Result<impl Responder, Problem> {
    let (portal, messenger, line) = path.into_inner();
    let known = portals::find(&state, &portal).await?;
    let line = lines::find(&state, &line).await?;
    if !state.pipeline.unmake_sender(&known.portal, messenger_of(&messenger)?, &line.id).await? {
        return Err(Problem::NotFound("the line sends no short messages of this portal".to_owned()));
    }
    Ok(HttpResponse::NoContent().finish())
}

async fn registered(state: &State, portal: &PortalId) -> Result<Vec<(String, String)>, Problem> {
    state.storage.load_registrations(portal).await.map_err(|_down| Problem::Unavailable)
}

fn messenger_of(word: &str) -> Result<Messenger, Problem> {
    Messenger::find(word).ok_or_else(|| Problem::Malformed("messenger: none that this service knows".to_owned()))
}
