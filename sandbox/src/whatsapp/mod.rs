//! Simulated WhatsApp Cloud API: the Graph server, customers' phones, signed webhooks.

mod edges;
mod error;
mod handle;
mod inbound;
mod ledger;
mod media;
mod messages;
mod numbers;
mod phones;
mod statuses;
mod template_send;
mod templates;
mod validate;
mod webhooks;

use std::{collections::HashMap, sync::Arc};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use handle::{Ledger, Number, Phone};
pub use inbound::Inbound;
pub use ledger::{Button, Delivery, MediaShown, Message, Route, Shown};
pub use numbers::{NumberSpec, NumberView};
pub use phones::{PhoneTraits, PhoneView};
pub use templates::{TemplateSpec, TemplateView};

use crate::{
    courier::{Courier, Parcel},
    http::{Handler, Reply, Request},
    sandbox::Options,
    world::World,
};

/// Limit of messages from one number to one phone, §7.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PairLimit {
    /// One message per so many milliseconds, sustained.
    pub interval_ms: i64,
    /// So many at once, borrowed from the future.
    pub burst: i64,
}

impl Default for PairLimit {
    fn default() -> Self {
        Self { interval_ms: 6_000, burst: 45 }
    }
}

/// How the Graph server behaves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GraphOptions {
    /// API versions alive; others are refused.
    pub versions: Vec<u32>,
    /// From acceptance to `sent` (or `failed`), milliseconds.
    pub sent_ms: u64,
    /// From `sent` to `delivered`.
    pub delivered_ms: u64,
    /// From `delivered` to `read`.
    pub read_ms: u64,
    /// Random extra for each of these, up to.
    pub jitter_ms: u64,
    /// Phones read what arrives without being asked to.
    pub auto_read: bool,
    /// Statuses of a number in one POST, at most.
    pub batch_max: usize,
    /// How long statuses wait for company, milliseconds.
    pub batch_linger_ms: u64,
    /// Factor for the pauses between webhook retries (1 = as slow as Meta).
    pub retry_scale: f64,
    /// Failures of the phone (not on WhatsApp, blocked, window) are answered at once instead of by webhook.
    pub sync_failures: bool,
    /// `link` media are really fetched (loopback hosts only); else only their form is checked.
    pub fetch_links: bool,
    /// `link` media may be `http` (tests on loopback); Meta wants https.
    pub http_links: bool,
    /// HTTP status of the throttle group: 429 today, 400 by the older table.
    pub throttle_status: u16,
    /// Pair limit; absent = off.
    pub pair_limit: Option<PairLimit>,
    /// Length of the customer service window, seconds.
    pub window_s: i64,
    /// A phone nobody has described is on WhatsApp.
    pub unknown_phones_exist: bool,
    /// Messages the ledger keeps; older ones are forgotten (totals stay exact).
    pub ledger_kept: usize,
}

impl Default for GraphOptions {
    fn default() -> Self {
        Self {
            versions: (21..=26).collect(),
            sent_ms: 20,
            delivered_ms: 40,
            read_ms: 80,
            jitter_ms: 0,
            auto_read: true,
            batch_max: 1,
            batch_linger_ms: 5,
            retry_scale: 1.0,
            sync_failures: false,
            fetch_links: false,
            http_links: true,
            throttle_status: 429,
            pair_limit: Some(PairLimit::default()),
            window_s: 24 * 3600,
            unknown_phones_exist: true,
            ledger_kept: 500_000,
        }
    }
}

/// Everything of WhatsApp in one sandbox.
pub(crate) struct Graph {
    pub(crate) port: u16,
    pub(crate) courier: Arc<Courier>,
    pub(crate) options: RwLock<Arc<GraphOptions>>,
    pub(crate) numbers: RwLock<HashMap<String, Arc<numbers::NumberCell>>>,
    pub(crate) accounts: RwLock<HashMap<String, numbers::Account>>,
    pub(crate) tokens: RwLock<HashMap<String, numbers::TokenRow>>,
    pub(crate) phones: Mutex<phones::Phones>,
    pub(crate) ledger: Mutex<ledger::Book>,
    pub(crate) templates: RwLock<templates::Catalogue>,
    pub(crate) media: Mutex<media::Store>,
    pub(crate) batches: Mutex<HashMap<String, Vec<webhooks::StatusNews>>>,
}

impl Graph {
    pub(crate) fn new(port: u16, options: &Options) -> (Self, mpsc::UnboundedReceiver<Parcel>) {
        let (courier, parcels) = Courier::new();
        let graph = Self {
            port,
            courier: Arc::new(courier),
            options: RwLock::new(Arc::new(options.graph.clone())),
            numbers: RwLock::default(),
            accounts: RwLock::default(),
            tokens: RwLock::default(),
            phones: Mutex::default(),
            ledger: Mutex::default(),
            templates: RwLock::default(),
            media: Mutex::default(),
            batches: Mutex::default(),
        };
        (graph, parcels)
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn number(&self, phone_number_id: &str) -> Option<Arc<numbers::NumberCell>> {
        self.numbers.read().get(phone_number_id).cloned()
    }
}

/// The Graph server's port.
pub(crate) struct Door(pub(crate) Arc<World>);

impl Handler for Door {
    fn handle(self: Arc<Self>, request: Request) -> Reply {
        Box::pin(async move { edges::route(&self.0, request).await })
    }

    fn cut_request(&self) -> Option<usize> {
        self.0.cut_request("wire.graph", "")
    }
}
