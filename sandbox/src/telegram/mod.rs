//! Simulated Telegram Bot API: bots, the people and groups that talk to them, and webhooks.
//!
//! Sources: channels.md §1.3, §1.5, §3; the server accepts GET (parameters in the query) and POST (JSON or form) for every
//! method. What is not simulated is refused: other methods, multipart bodies, `parse_mode`, keyboards.

mod bots;
mod changes;
mod error;
mod handle;
mod methods;
mod people;
mod webhooks;

use std::{collections::HashMap, sync::Arc};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use bots::{BotSpec, BotView, WebhookView};
pub use handle::{Bot, BotPerson};
pub use people::{BotInbound, BotMessage, GroupState, PersonView};

use crate::{
    courier::{Courier, Parcel},
    http::{Handler, Reply, Request},
    sandbox::Options,
    world::World,
};

/// How the Bot API server behaves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelegramOptions {
    /// Messages per second of one bot; 0 = no limit.
    pub per_second: u32,
    /// One message to one private chat per so many milliseconds, sustained; 0 = no limit.
    pub chat_interval_ms: i64,
    /// So many to one private chat at once ("short bursts pass"; the vendor names no number).
    pub chat_burst: u32,
    /// Messages per minute into one group; 0 = no limit.
    pub group_per_minute: u32,
    /// Factor for the pauses between webhook retries (1 = as slow as Telegram).
    pub retry_scale: f64,
    /// Webhooks may stand at `http` addresses of this machine, as the vendor's own local server allows; else https on
    /// the documented ports only.
    pub local_webhooks: bool,
}

impl Default for TelegramOptions {
    fn default() -> Self {
        Self {
            per_second: 30,
            chat_interval_ms: 1_000,
            chat_burst: 5,
            group_per_minute: 20,
            retry_scale: 1.0,
            local_webhooks: true,
        }
    }
}

/// Everything of Telegram in one sandbox.
pub(crate) struct Telegram {
    pub(crate) port: u16,
    pub(crate) courier: Arc<Courier>,
    pub(crate) options: RwLock<Arc<TelegramOptions>>,
    /// By the number before the token's colon.
    pub(crate) bots: RwLock<HashMap<i64, Arc<bots::BotCell>>>,
    pub(crate) people: Mutex<people::People>,
}

impl Telegram {
    pub(crate) fn new(port: u16, options: &Options) -> (Self, mpsc::UnboundedReceiver<Parcel>) {
        let (courier, parcels) = Courier::new();
        let telegram = Self {
            port,
            courier: Arc::new(courier),
            options: RwLock::new(Arc::new(options.telegram.clone())),
            bots: RwLock::default(),
            people: Mutex::default(),
        };
        (telegram, parcels)
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn options(&self) -> Arc<TelegramOptions> {
        self.options.read().clone()
    }
}

/// The Bot API server's port.
pub(crate) struct Door(pub(crate) Arc<World>);

impl Handler for Door {
    fn handle(self: Arc<Self>, request: Request) -> Reply {
        Box::pin(async move { methods::route(&self.0, &request).await })
    }

    fn cut_request(&self) -> Option<usize> {
        self.0.cut_request("wire.telegram", "")
    }
}
