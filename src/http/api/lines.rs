//! Lines: what an administrator picks in a robot.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path, Query};
use actix_web::{Responder, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::Document;
use super::line_settings::{SettingsChange, SettingsView};
use super::page::{Page, PageQuery, cursor_of, limit_of};
use crate::domain::channel::Line;
use crate::domain::ids::LineId;
use crate::http::State;
use crate::http::admin::Admin;
use crate::http::problem::Problem;

/// Longest name of a line or channel, in characters.
const NAME_MAX: usize = 100;

/// A line to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewLine {
    /// As people will pick it in a robot: 1 to 100 characters.
    #[schema(example = "Sales", max_length = 100)]
    name: String,
}

/// One business purpose that joins channels.
#[derive(Serialize, ToSchema)]
pub(super) struct LineView {
    /// Its id.
    #[schema(example = "line_01JD0000000000000000000000")]
    id: String,
    /// As it was named.
    #[schema(example = "Sales")]
    name: String,
    /// What holds for the messages of its automations.
    settings: SettingsView,
}

/// What to change of a line.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeLine {
    /// Only these are changed.
    settings: SettingsChange,
}

impl From<Line> for LineView {
    fn from(line: Line) -> Self {
        Self { id: line.id.to_string(), settings: SettingsView::of(&line.settings), name: line.name }
    }
}

/// Add a line.
///
/// If it is the service's only line, every installed portal that has none is bound to it.
#[utoipa::path(post, path = "/api/v1/lines", tag = "lines", operation_id = "create_line", request_body = NewLine,
    responses((status = 201, description = "Added", body = LineView), (status = 422, description = "The name cannot be used")))]
pub(super) async fn create(
    _: Admin,
    state: Data<State>,
    Document(new): Document<NewLine>,
) -> Result<impl Responder, Problem> {
    let line = state.storage.add_line(&name_of(&new.name)?).await?;
    tracing::info!(line.id = %line.id, "line added");
    if let Err(error) = state.pipeline.bind_new_line(&line.id).await {
        // The line is there; to ask for a repetition would make a second one.
        tracing::error!(%error, line.id = %line.id, "not every portal was bound to the new line: bind the rest by hand");
    }
    Ok((Json(LineView::from(line)), StatusCode::CREATED))
}

/// List lines, oldest first.
#[utoipa::path(get, path = "/api/v1/lines", tag = "lines", operation_id = "list_lines", params(PageQuery),
    responses((status = 200, description = "A page of lines", body = Page<LineView>)))]
pub(super) async fn list(_: Admin, state: Data<State>, page: Query<PageQuery>) -> Result<impl Responder, Problem> {
    let limit = limit_of(page.limit)?;
    let after = cursor_of(page.cursor.as_deref(), LineId::parse)?;
    let lines = state.storage.lines(after.as_ref(), limit + 1).await?;
    Ok(web::Json(Page::of(lines, limit, |line| line.id.to_string(), LineView::from)))
}

/// Show a line.
#[utoipa::path(get, path = "/api/v1/lines/{line}", tag = "lines", operation_id = "get_line",
    params(("line" = String, Path, description = "Id of the line")),
    responses((status = 200, description = "The line", body = LineView), (status = 404, description = "No such line")))]
pub(super) async fn get(_: Admin, state: Data<State>, line: Path<String>) -> Result<impl Responder, Problem> {
    Ok(Json(LineView::from(find(&state, &line).await?)))
}

/// Change the settings of a line.
///
/// They hold for messages planned from then on. Messages of this API follow the line's deadline only.
#[utoipa::path(patch, path = "/api/v1/lines/{line}", tag = "lines", operation_id = "change_line",
    params(("line" = String, Path, description = "Id of the line")), request_body = ChangeLine,
    responses((status = 200, description = "The line as it is now", body = LineView),
        (status = 404, description = "No such line"), (status = 422, description = "A value that cannot be")))]
pub(super) async fn change(
    _: Admin,
    state: Data<State>,
    line: Path<String>,
    Document(change): Document<ChangeLine>,
) -> Result<impl Responder, Problem> {
    let mut line = find(&state, &line).await?;
    line.settings = change.settings.apply(&line.settings)?;
    state.storage.set_line_settings(&line.id, &line.settings).await?;
    tracing::info!(line.id = %line.id, "line settings changed");
    Ok(Json(LineView::from(line)))
}

/// A line by the id in a path.
///
/// # Errors
/// 404 when there is none.
pub(super) async fn find(state: &State, id: &str) -> Result<Line, Problem> {
    let missing = || Problem::NotFound("there is no such line".to_owned());
    let id = LineId::parse(id).ok_or_else(missing)?;
    state.storage.line_now(&id).await?.ok_or_else(missing)
}

/// A name for people, without space around it.
///
/// # Errors
/// 422 when it is empty, too long or no single line.
pub(super) fn name_of(text: &str) -> Result<String, Problem> {
    let name = text.trim();
    let fits = (1..=NAME_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if fits {
        return Ok(name.to_owned());
    }
    Err(Problem::Unprocessable(format!("name: one line of 1 to {NAME_MAX} characters")))
}
