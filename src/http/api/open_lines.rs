//! Where the chats of a portal stand: what the settings page of a connector chooses, for programs.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path};
use actix_web::{HttpResponse, Responder};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::Document;
use super::{lines, portals};
use crate::domain::channel::Messenger;
use crate::domain::chat::ChatLine;
use crate::http::State;
use crate::http::admin::Admin;
use crate::http::problem::Problem;
use crate::storage::chats::Connected;

/// Longest number of an open line that is taken.
const PLACE_MAX: usize = 20;

/// An open line to connect.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewOpenLine {
    /// The messenger whose clients write there.
    #[schema(example = "whatsapp")]
    messenger: String,
    /// Bitrix24's number of the open line.
    #[schema(example = "7")]
    open_line: String,
    /// The line whose channels are connected; the portal must have it.
    #[schema(example = "line_01JD0000000000000000000000")]
    line: String,
    /// Reserved: an empty object.
    #[serde(default)]
    settings: NoSettings,
}

/// No settings yet.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NoSettings {}

/// An open line and the line whose clients write there.
#[derive(Serialize, ToSchema)]
pub(super) struct OpenLineView {
    /// The messenger.
    #[schema(example = "whatsapp")]
    messenger: &'static str,
    /// Bitrix24's number of the open line.
    #[schema(example = "7")]
    open_line: String,
    /// The line.
    #[schema(example = "line_01JD0000000000000000000000")]
    line: String,
}

impl From<ChatLine> for OpenLineView {
    fn from(line: ChatLine) -> Self {
        Self { messenger: line.messenger.code(), open_line: line.place, line: line.line.to_string() }
    }
}

/// Connect an open line: clients of the line's channels write there from now on, and nowhere else.
#[utoipa::path(post, path = "/api/v1/portals/{portal}/open-lines", tag = "portals", operation_id = "connect_open_line",
    params(("portal" = String, Path, description = "Id of the portal")), request_body = NewOpenLine,
    responses((status = 201, description = "Connected; the portal shows it in a moment", body = OpenLineView),
        (status = 404, description = "No such portal or line, or the portal does not have it"),
        (status = 409, description = "The line's chats stand in another portal")))]
pub(super) async fn create(
    _: Admin,
    state: Data<State>,
    path: Path<String>,
    body: Document<NewOpenLine>,
) -> Result<impl Responder, Problem> {
    let NewOpenLine { messenger, open_line, line, settings: NoSettings {} } = body.0;
    let known = portals::find(&state, &path).await?;
    let line = lines::find(&state, &line).await?;
    let bound = state.storage.lines_of_portal(&known.portal.id).await?;
    if !bound.iter().any(|bound| bound.id == line.id) {
        return Err(Problem::NotFound("the portal does not have this line".to_owned()));
    }
    let wanted = ChatLine {
        portal: known.portal.id.clone(),
        messenger: messenger_of(&state, &messenger)?,
        place: place_of(open_line)?,
        line: line.id,
    };
    match state.pipeline.connect_chats(&known.portal, &wanted).await? {
        Connected::Yes => Ok((Json(OpenLineView::from(wanted)), StatusCode::CREATED)),
        Connected::Elsewhere => Err(Problem::Conflict("the chats of this line stand in another portal".to_owned())),
    }
}

/// List the open lines connected in a portal.
#[utoipa::path(get, path = "/api/v1/portals/{portal}/open-lines", tag = "portals", operation_id = "list_open_lines",
    params(("portal" = String, Path, description = "Id of the portal")),
    responses((status = 200, description = "All of them", body = Vec<OpenLineView>),
        (status = 404, description = "No such portal")))]
pub(super) async fn list(_: Admin, state: Data<State>, path: Path<String>) -> Result<impl Responder, Problem> {
    let known = portals::find(&state, &path).await?;
    let lines = state.storage.chat_lines(&known.portal.id).await?;
    Ok(Json(lines.into_iter().map(OpenLineView::from).collect::<Vec<_>>()))
}

/// Disconnect an open line from a messenger. Its chats stay in the portal; what clients write is shown nowhere.
#[utoipa::path(delete, path = "/api/v1/portals/{portal}/open-lines/{messenger}/{open_line}", tag = "portals",
    operation_id = "disconnect_open_line",
    params(("portal" = String, Path, description = "Id of the portal"),
        ("messenger" = String, Path, description = "The messenger"),
        ("open_line" = String, Path, description = "Bitrix24's number of the open line")),
    responses((status = 204, description = "Disconnected"), (status = 404, description = "Nothing was connected there")))]
pub(super) async fn remove(
    _: Admin,
    state: Data<State>,
    path: Path<(String, String, String)>,
) -> Result<impl Responder, Problem> {
    let (portal, messenger, open_line) = path.into_inner();
    let known = portals::find(&state, &portal).await?;
    let messenger = messenger_of(&state, &messenger)?;
    if !state.pipeline.disconnect_chats(&known.portal, messenger, &open_line).await? {
        return Err(Problem::NotFound("nothing is connected there".to_owned()));
    }
    Ok(HttpResponse::NoContent().finish())
}

fn messenger_of(state: &State, word: &str) -> Result<Messenger, Problem> {
    let served = |messenger: &Messenger| state.pipeline.messengers().contains(messenger);
    Messenger::find(word)
        .filter(served)
        .ok_or_else(|| Problem::Malformed("messenger: none of those that can be connected".to_owned()))
}

fn place_of(open_line: String) -> Result<String, Problem> {
    let number = (1..=PLACE_MAX).contains(&open_line.len()) && open_line.bytes().all(|b| b.is_ascii_digit());
    if number { Ok(open_line) } else { Err(Problem::Malformed("open_line: a number".to_owned())) }
}
