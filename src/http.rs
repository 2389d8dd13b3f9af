//! The outside of the service: routes, proofs, refusals. Handlers are thin: read, check, call one step, answer.

pub mod admin;
pub mod api;
pub mod bitrix24;
pub mod health;
pub mod peers;
pub mod problem;
pub mod verified;
pub mod webhooks;

use std::sync::Arc;

use actix_web::{ResponseError, web};
use secrecy::SecretString;

use crate::crm::bitrix24::Bitrix24;
use crate::domain::ids::IdSource;
use crate::domain::time::Clock;
use crate::pipeline::Pipeline;
use crate::storage::Storage;

/// What handlers share.
pub struct State {
    /// The pipeline.
    pub pipeline: Arc<Pipeline>,
    /// The store.
    pub storage: Arc<Storage>,
    /// The Bitrix24 adapter, for pages and proofs.
    pub bitrix24: Arc<Bitrix24>,
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
        .configure(api::routes)
        .configure(crate::ui::assets)
        .default_service(web::to(|| async { problem::Problem::NotFound(String::new()).error_response() }));
}
