//! Chats of amoCRM accounts: which lines' clients are written to there.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path};
use actix_web::{HttpResponse, Responder};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::Document;
use super::{lines, portals};
use crate::domain::channel::Messenger;
use crate::domain::chat::ChatLine;
use crate::domain::ids::LineId;
use crate::domain::portal::{CrmKind, Portal};
use crate::http::State;
use crate::http::admin::Admin;
use crate::http::problem::Problem;
use crate::storage::chats::Connected;

/// A line whose clients write in the account's chats from now on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewChats {
    /// The line; the account must have it.
    #[schema(example = "line_01JD0000000000000000000000")]
    line: String,
}

/// A line and messenger whose clients write in the account's chats.
#[derive(Serialize, ToSchema)]
pub(super) struct ChatsView {
    /// The line.
    #[schema(example = "line_01JD0000000000000000000000")]
    line: String,
    /// The messenger.
    #[schema(example = "whatsapp")]
    messenger: &'static str,
    /// amoCRM's name of the source (`external_id`).
    #[schema(example = "whatsapp-01JD0000000000000000000000")]
    source: String,
}

impl From<ChatLine> for ChatsView {
    fn from(line: ChatLine) -> Self {
        Self { line: line.line.to_string(), messenger: line.messenger.code(), source: line.place }
    }
}

/// The name of a source: at most 36 printable signs, for ever the same for a line and messenger.
fn source(line: &LineId, messenger: Messenger) -> String {
    let body = line.as_str().get(LineId::PREFIX.len()..).unwrap_or_default();
    format!("{}-{body}", messenger.code())
}

async fn account(state: &State, id: &str) -> Result<Portal, Problem> {
    let known = portals::find(state, id).await?;
    let is_amocrm = known.portal.crm == CrmKind::Amocrm;
    if !is_amocrm {
        return Err(Problem::Unprocessable("only amoCRM has such chats; Bitrix24 has open lines".to_owned()));
    }
    if !state.amocrm.has_chats(&known.portal.app) {
        let text = format!("amocrm.apps.{}.chat_channel_id is not configured", known.portal.app);
        return Err(Problem::Unprocessable(text));
    }
    Ok(known.portal.clone())
}

/// Connect a line's chats: its clients write in the account, whatever their messenger, and nowhere else.
#[utoipa::path(post, path = "/api/v1/portals/{portal}/chats", tag = "portals", operation_id = "connect_chats",
    params(("portal" = String, Path, description = "Id of the account")), request_body = NewChats,
    responses((status = 201, description = "Connected; the account shows it in a moment", body = Vec<ChatsView>),
        (status = 404, description = "No such account or line, or the account does not have it"),
        (status = 409, description = "The line's chats stand in another portal"),
        (status = 422, description = "No account of amoCRM, or no channel of chats is configured")))]
pub(super) async fn create(
    _: Admin,
    state: Data<State>,
    path: Path<String>,
    body: Document<NewChats>,
) -> Result<impl Responder, Problem> {
    let portal = account(&state, &path).await?;
    let line = lines::find(&state, &body.0.line).await?;
    let bound = state.storage.lines_of_portal(&portal.id).await?;
    if !bound.iter().any(|bound| bound.id == line.id) {
        return Err(Problem::NotFound("the account does not have this line".to_owned()));
    }
    let mut connected = Vec::new();
    for messenger in state.pipeline.messengers() {
        let place = source(&line.id, messenger);
        let wanted = ChatLine { portal: portal.id.clone(), messenger, place, line: line.id.clone() };
        match state.pipeline.connect_chats(&portal, &wanted).await? {
            Connected::Yes => connected.push(ChatsView::from(wanted)),
            Connected::Elsewhere => {
                return Err(Problem::Conflict("the chats of this line stand in another portal".to_owned()));
            }
        }
    }
    Ok((Json(connected), StatusCode::CREATED))
}

/// List the lines and messengers connected to an account's chats.
#[utoipa::path(get, path = "/api/v1/portals/{portal}/chats", tag = "portals", operation_id = "list_chats",
    params(("portal" = String, Path, description = "Id of the account")),
    responses((status = 200, description = "All of them", body = Vec<ChatsView>),
        (status = 404, description = "No such account"),
        (status = 422, description = "No account of amoCRM, or no channel of chats is configured")))]
pub(super) async fn list(_: Admin, state: Data<State>, path: Path<String>) -> Result<impl Responder, Problem> {
    let portal = account(&state, &path).await?;
    let lines = state.storage.chat_lines(&portal.id).await?;
    Ok(Json(lines.into_iter().map(ChatsView::from).collect::<Vec<_>>()))
}

/// Disconnect a line's chats. They stay in the account; what clients write is shown nowhere.
#[utoipa::path(delete, path = "/api/v1/portals/{portal}/chats/{line}", tag = "portals", operation_id = "disconnect_chats",
    params(("portal" = String, Path, description = "Id of the account"),
        ("line" = String, Path, description = "The line")),
    responses((status = 204, description = "Disconnected"), (status = 404, description = "Nothing was connected"),
        (status = 422, description = "No account of amoCRM, or no channel of chats is configured")))]
pub(super) async fn remove(
    _: Admin,
    state: Data<State>,
    path: Path<(String, String)>,
) -> Result<impl Responder, Problem> {
    let (portal, line) = path.into_inner();
    let portal = account(&state, &portal).await?;
    let mut stood = false;
    for known in state.storage.chat_lines(&portal.id).await?.into_iter().filter(|known| known.line.as_str() == line) {
        stood |= state.pipeline.disconnect_chats(&portal, known.messenger, &known.place).await?;
    }
    if !stood {
        return Err(Problem::NotFound("nothing is connected".to_owned()));
    }
    Ok(HttpResponse::NoContent().finish())
}
