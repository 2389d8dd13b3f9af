//! The outside of the service: routes, proofs, refusals. Handlers are thin: read, check, call one step, answer.

pub mod api;
pub mod peers;
pub mod problem;
pub mod verified;

use std::sync::Arc;

use secrecy::SecretString;

use crate::domain::time::Clock;
use crate::pipeline::Pipeline;
use crate::storage::Storage;

/// What handlers share.
pub struct State {
    /// The pipeline.
    pub pipeline: Arc<Pipeline>,
    /// The store.
    pub storage: Arc<Storage>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Our own address as the world sees it, without a slash at the end.
    pub public_url: String,
    /// Bearer token of the management API; `None` switches the API off.
    pub admin_token: Option<SecretString>,
    /// Who calls from where; `Peers::new(server.trusted_proxies)`.
    pub peers: peers::Peers,
}
