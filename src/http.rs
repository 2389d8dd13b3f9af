//! The outside of the service: routes, proofs, refusals. Handlers are thin: read, check, call one step, answer.

pub mod admin;
pub mod amocrm;
pub mod api;
pub mod bitrix24;
mod crm_files;
pub mod health;
pub mod peers;
pub mod problem;
pub mod verified;
pub mod webhooks;

use std::sync::Arc;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CONTENT_TYPE};
use actix_web::middleware::{ErrorHandlerResponse, ErrorHandlers, Next};
use actix_web::{ResponseError, web};
use secrecy::SecretString;
use tracing::Instrument as _;
use tracing::field::Empty;

use self::problem::Problem;
use crate::crm::amocrm::Amocrm;
use crate::crm::bitrix24::Bitrix24;
use crate::domain::ids::IdSource;
use crate::domain::time::Clock;
use crate::pipeline::Pipeline;
use crate::storage::Storage;
use crate::telemetry::SPANS;

/// What handlers share.
pub struct State {
    /// The pipeline.
    pub pipeline: Arc<Pipeline>,
    /// The store.
    pub storage: Arc<Storage>,
    /// The Bitrix24 adapter, for pages and proofs.
    pub bitrix24: Arc<Bitrix24>,
    /// The amoCRM adapter, for proofs.
    pub amocrm: Arc<Amocrm>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids.
    pub ids: Arc<dyn IdSource>,
    /// Our own address as the world sees it, without a slash at the end.
    pub public_url: String,
    /// Bearer token of the management API; `None` switches the API off.
    pub admin_token: Option<SecretString>,
    /// Who calls from where; `Peers::new(server.trusted_proxies)`.
    pub peers: peers::Peers,
}

/// Gives refusals that the web framework makes by itself (a body that is too large, a method that is not there) the one
/// body of all refusals. To be wrapped around the whole application.
#[must_use]
pub fn refusals<B: MessageBody + 'static>() -> ErrorHandlers<B> {
    let mut handlers = ErrorHandlers::new();
    for status in
        [StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::PAYLOAD_TOO_LARGE]
    {
        handlers = handlers.handler(status, in_our_words);
    }
    handlers
}

fn in_our_words<B>(response: ServiceResponse<B>) -> actix_web::Result<ErrorHandlerResponse<B>> {
    let is_ours = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == problem::CONTENT_TYPE);
    if is_ours {
        return Ok(ErrorHandlerResponse::Response(response.map_into_left_body()));
    }
    let problem = match response.status() {
        StatusCode::NOT_FOUND => Problem::NotFound(String::new()),
        StatusCode::METHOD_NOT_ALLOWED => Problem::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => Problem::TooLarge,
        _ => Problem::Malformed("the request ended early or could not be read".to_owned()),
    };
    let (request, theirs) = response.into_parts();
    let mut ours = problem.error_response();
    if let Some(methods) = theirs.headers().get(ALLOW) {
        ours.headers_mut().insert(ALLOW, methods.clone());
    }
    Ok(ErrorHandlerResponse::Response(ServiceResponse::new(request, ours).map_into_right_body()))
}

/// Puts a request into a span. The address of a route is told, never the one that was called: it may carry a secret.
///
/// # Errors
/// Those of the request.
pub async fn traced<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> actix_web::Result<ServiceResponse<B>> {
    let span = tracing::info_span!(
        target: SPANS, "http.request", method = %request.method(), route = Empty, status = Empty
    );
    async move {
        let response = next.call(request).await?;
        let route = response.request().match_pattern().unwrap_or_default();
        let span = tracing::Span::current();
        span.record("route", route).record("status", response.status().as_u16());
        Ok(response)
    }
    .instrument(span)
    .await
}

/// The whole table of addresses.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/healthz", web::get().to(health::healthz))
        .route("/readyz", web::get().to(health::readyz))
        .route("/metrics", web::get().to(health::metrics))
        .service(
            web::resource("/webhooks/{provider}/{channel}")
                .route(web::get().to(webhooks::handshake))
                .route(web::post().to(webhooks::receive)),
        )
        .configure(bitrix24::routes)
        .configure(amocrm::routes)
        .configure(api::routes)
        .configure(crm_files::routes)
        .configure(crate::ui::assets)
        .default_service(web::to(|| async { Problem::NotFound(String::new()).error_response() }));
}
