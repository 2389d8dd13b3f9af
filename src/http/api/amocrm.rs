//! Connecting accounts of amoCRM: by a person's consent, or by a token made by hand.

use actix_web::Responder;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{Document, Optional};
use super::portals::{PortalView, view};
use crate::crm::amocrm::InstallError;
use crate::domain::portal::CrmKind;
use crate::http::State;
use crate::http::admin::Admin;
use crate::http::amocrm::keep;
use crate::http::problem::Problem;

/// Nothing has to be said.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Authorize {}

/// Where to go.
#[derive(Serialize, ToSchema)]
pub(super) struct AuthorizeView {
    /// The vendor's consent screen, to be opened by an administrator of the account within an hour; good for one account.
    #[schema(example = "https://www.amocrm.ru/oauth?client_id=1f2e3d4c-5b6a-4798-8a9b-0c1d2e3f4a5b&state=3f6c0e9a51")]
    url: String,
}

/// Ask for an account: gives the address of the vendor's consent screen.
#[utoipa::path(post, path = "/api/v1/amocrm/{app}/authorize", tag = "portals", operation_id = "authorize_amocrm",
    params(("app" = String, Path, description = "Name of the integration in the configuration")),
    request_body = Option<Authorize>,
    responses((status = 200, description = "Where the person goes", body = AuthorizeView),
        (status = 404, description = "No such integration")))]
pub(super) async fn authorize(
    _: Admin,
    state: Data<State>,
    app: Path<String>,
    _nothing: Optional<Authorize>,
) -> Result<impl Responder, Problem> {
    let missing = || Problem::NotFound("there is no such integration".to_owned());
    if !state.amocrm.has_app(&app) {
        return Err(missing());
    }
    let word = state.storage.begin_authorization(&app).await?;
    let url = state.amocrm.consent_url(&app, &word).ok_or_else(missing)?;
    Ok(Json(AuthorizeView { url }))
}

/// An account to connect.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AddPortal {
    /// `amocrm`; portals of Bitrix24 install themselves.
    #[schema(example = "amocrm")]
    crm: String,
    /// Name of the integration in the configuration.
    #[schema(example = "main")]
    app: String,
    /// The account's host.
    #[schema(example = "acme.amocrm.ru")]
    host: String,
    /// The token that was made for the integration by hand; it never comes back.
    #[schema(value_type = String)]
    long_lived_token: SecretString,
}

/// Connect an account of amoCRM with a long-lived token.
#[utoipa::path(post, path = "/api/v1/portals", tag = "portals", operation_id = "add_portal", request_body = AddPortal,
    responses((status = 201, description = "The account", body = PortalView),
        (status = 404, description = "No such integration"),
        (status = 422, description = "The host is no account, or the account does not take the token")))]
pub(super) async fn add(
    _: Admin,
    state: Data<State>,
    Document(wanted): Document<AddPortal>,
) -> Result<impl Responder, Problem> {
    if wanted.crm != CrmKind::Amocrm.code() {
        return Err(Problem::Unprocessable("crm: only amocrm is connected this way".to_owned()));
    }
    if !state.amocrm.has_app(&wanted.app) {
        return Err(Problem::NotFound("there is no such integration".to_owned()));
    }
    let since = state.clock.now();
    let installed = state.amocrm.install_long_lived(&wanted.app, &wanted.host, &wanted.long_lived_token).await;
    let installed = installed.map_err(|error| match error {
        InstallError::ForeignHost => Problem::Unprocessable(format!("host: {error}")),
        InstallError::Foreign | InstallError::Refused(_) => {
            Problem::Unprocessable(format!("long_lived_token: {error}"))
        }
        InstallError::Unavailable(_) => {
            tracing::warn!(%error, "an account could not be asked");
            Problem::Unprocessable(format!("host: {error}"))
        }
    })?;
    let portal = keep(&state, &wanted.app, installed, since).await?;
    Ok((Json(view(&state, &portal).await?), StatusCode::CREATED))
}
