//! Portals and the lines they may use.

use std::sync::Arc;

use actix_web::Responder;
use actix_web::web::{Data, Json, Path, Query};
use serde::Serialize;
use utoipa::ToSchema;

use super::lines;
use super::page::{Page, PageQuery, cursor_of, limit_of};
use crate::domain::channel::Line;
use crate::domain::ids::PortalId;
use crate::domain::portal::Portal;
use crate::http::State;
use crate::http::admin::Admin;
use crate::http::problem::Problem;
use crate::storage::portals::KnownPortal;

/// One Bitrix24 portal or amoCRM account.
#[derive(Serialize, ToSchema)]
pub(super) struct PortalView {
    /// Its id.
    #[schema(example = "prt_01JD0000000000000000000000")]
    id: String,
    /// `bitrix24` or `amocrm`.
    crm: &'static str,
    /// Which of the configured applications is installed there.
    app: String,
    /// The CRM's own id of the portal.
    member_id: String,
    /// Host as people know it.
    #[schema(example = "acme.bitrix24.ru")]
    domain: String,
    /// What people there read: `ru` or `en`.
    language: &'static str,
    /// `installed`, `needs_auth`, `blocked` or `uninstalled`.
    state: &'static str,
    /// Why it cannot be talked to; empty when it can.
    reason: String,
    /// Ids of the lines it may use.
    lines: Vec<String>,
}

/// List portals in the order they were installed.
#[utoipa::path(get, path = "/api/v1/portals", tag = "portals", operation_id = "list_portals", params(PageQuery),
    responses((status = 200, description = "A page of portals", body = Page<PortalView>)))]
pub(super) async fn list(_: Admin, state: Data<State>, page: Query<PageQuery>) -> Result<impl Responder, Problem> {
    let limit = limit_of(page.limit)?;
    let after = cursor_of(page.cursor.as_deref(), PortalId::parse)?;
    let portals = state.storage.list_portals(after.as_ref(), limit + 1).await?;
    let mut views = Vec::with_capacity(portals.len());
    for portal in &portals {
        views.push(view(&state, portal).await?);
    }
    Ok(Json(Page::of(views, limit, |portal| portal.id.clone(), |portal| portal)))
}

/// Let a portal use a line. Its robots show the line as soon as the portal has been told.
#[utoipa::path(put, path = "/api/v1/portals/{portal}/lines/{line}", tag = "portals", operation_id = "bind_line",
    params(("portal" = String, Path, description = "Id of the portal"),
        ("line" = String, Path, description = "Id of the line")),
    responses((status = 200, description = "The portal with its lines", body = PortalView),
        (status = 404, description = "No such portal or line")))]
pub(super) async fn bind(
    _: Admin,
    state: Data<State>,
    path: Path<(String, String)>,
) -> Result<impl Responder, Problem> {
    let (portal, line) = both(&state, path).await?;
    state.pipeline.bind(&portal.portal, &line.id).await?;
    tracing::info!(portal.id = %portal.portal.id, line.id = %line.id, "line bound");
    Ok(Json(view(&state, &portal.portal).await?))
}

/// Take a line from a portal. Robots that have it chosen fail from then on, and say so.
#[utoipa::path(delete, path = "/api/v1/portals/{portal}/lines/{line}", tag = "portals", operation_id = "unbind_line",
    params(("portal" = String, Path, description = "Id of the portal"),
        ("line" = String, Path, description = "Id of the line")),
    responses((status = 200, description = "The portal with its lines", body = PortalView),
        (status = 404, description = "No such portal or line, or the portal does not have it")))]
pub(super) async fn unbind(
    _: Admin,
    state: Data<State>,
    path: Path<(String, String)>,
) -> Result<impl Responder, Problem> {
    let (portal, line) = both(&state, path).await?;
    if !state.pipeline.unbind(&portal.portal, &line.id).await? {
        return Err(Problem::NotFound("the portal does not have this line".to_owned()));
    }
    tracing::info!(portal.id = %portal.portal.id, line.id = %line.id, "line unbound");
    Ok(Json(view(&state, &portal.portal).await?))
}

pub(super) async fn find(state: &State, id: &str) -> Result<Arc<KnownPortal>, Problem> {
    let missing = || Problem::NotFound("there is no such portal".to_owned());
    let id = PortalId::parse(id).ok_or_else(missing)?;
    state.storage.portal(&id).await?.ok_or_else(missing)
}

/// What a path of a portal and a line names.
async fn both(state: &State, path: Path<(String, String)>) -> Result<(Arc<KnownPortal>, Line), Problem> {
    let (portal, line) = path.into_inner();
    Ok((find(state, &portal).await?, lines::find(state, &line).await?))
}

pub(super) async fn view(state: &State, portal: &Portal) -> Result<PortalView, Problem> {
    let lines = state.storage.lines_of_portal(&portal.id).await?;
    Ok(PortalView {
        id: portal.id.to_string(),
        crm: portal.crm.code(),
        app: portal.app.clone(),
        member_id: portal.member_id.clone(),
        domain: portal.domain.clone(),
        language: portal.language.code(),
        state: portal.state.code(),
        reason: portal.state_reason.clone(),
        lines: lines.iter().map(|line| line.id.to_string()).collect(),
    })
}
