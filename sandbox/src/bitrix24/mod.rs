//! Simulated Bitrix24: an OAuth server, any number of portals, and the queue server that calls applications.

mod automation;
mod batch;
mod crm;
mod disk;
mod events;
mod frame;
mod handle;
mod handlers;
mod kanban;
mod lifecycle;
mod limits;
mod messageservice;
mod model;
pub(crate) mod oauth;
mod openlines;
mod pages;
mod rest;
mod robots;
mod system;
mod table;
mod tokens;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU16},
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;

pub use automation::{Automation, RobotRun, RobotState, SendEffect, SentResult};
pub use crm::{ItemSpec, ItemView, Multi, StageSpec, TimelineEntry};
pub use handle::Portal;
pub use kanban::{KanbanCard, KanbanColumn, Note, RunBrief, StageRobot};
pub use limits::{OperatingLimit, PortalLimits};
pub use messageservice::{SenderView, SmsSpec, SmsView};
pub use model::{AppSpec, InstallView, MethodConfirm, OAuthOptions, PortalSpec, Switches, UserSpec};
pub use openlines::{Attachment, Chat, ChatAuthor, ChatMessage, FileShown, Notification, Serving, Standing};
pub use pages::{Page, PageRequest};
pub use robots::{RobotKind, RobotView};
pub use tokens::TokenPair;

pub(crate) use model::{Install, PortalCell, PortalState, User};

use crate::{
    courier::{Courier, Parcel},
    http::bind,
    world::World,
};

/// Everything of Bitrix24 in one sandbox.
pub(crate) struct Bitrix {
    pub(crate) oauth_port: u16,
    pub(crate) queue: Arc<Courier>,
    pub(crate) tokens: tokens::TokenStore,
    pub(crate) oauth: RwLock<OAuthOptions>,
    apps: RwLock<HashMap<String, Arc<AppSpec>>>,
    portals: RwLock<Vec<Arc<PortalCell>>>,
    by_member: RwLock<HashMap<String, Arc<PortalCell>>>,
}

impl Bitrix {
    pub(crate) fn new(oauth_port: u16) -> (Self, mpsc::UnboundedReceiver<Parcel>) {
        let (queue, parcels) = Courier::new();
        let bitrix = Self {
            oauth_port,
            queue: Arc::new(queue),
            tokens: tokens::TokenStore::default(),
            oauth: RwLock::default(),
            apps: RwLock::default(),
            portals: RwLock::default(),
            by_member: RwLock::default(),
        };
        (bitrix, parcels)
    }

    pub(crate) fn oauth_host(&self) -> String {
        format!("127.0.0.1:{}", self.oauth_port)
    }

    pub(crate) fn server_endpoint(&self) -> String {
        format!("http://{}/rest/", self.oauth_host())
    }

    pub(crate) fn app(&self, client_id: &str) -> Option<Arc<AppSpec>> {
        self.apps.read().get(client_id).cloned()
    }

    pub(crate) fn apps(&self) -> Vec<AppSpec> {
        let mut apps: Vec<AppSpec> = self.apps.read().values().map(|app| (**app).clone()).collect();
        apps.sort_by(|left, right| left.client_id.cmp(&right.client_id));
        apps
    }

    /// Registers an application (or replaces it); missing ids are made up.
    pub(crate) fn add_app(&self, world: &World, mut spec: AppSpec) -> Arc<AppSpec> {
        if spec.client_id.is_empty() {
            let kind = if spec.market { "app" } else { "local" };
            spec.client_id = format!("{kind}.{}.{}", world.ids.hex(13), world.ids.digits(8));
        }
        if spec.client_secret.is_empty() {
            spec.client_secret = world.ids.letters(50);
        }
        let app = Arc::new(spec);
        self.apps.write().insert(app.client_id.clone(), app.clone());
        app
    }

    pub(crate) fn remove_app(&self, client_id: &str) -> bool {
        self.apps.write().remove(client_id).is_some()
    }

    pub(crate) fn portal(&self, member_id: &str) -> Option<Arc<PortalCell>> {
        self.by_member.read().get(member_id).cloned()
    }

    pub(crate) fn portals(&self) -> Vec<Arc<PortalCell>> {
        self.portals.read().clone()
    }
}

/// Creates a portal and opens its port.
pub(crate) async fn create_portal(world: &Arc<World>, spec: PortalSpec) -> anyhow::Result<Arc<PortalCell>> {
    let (listener, port) = bind(spec.port).await?;
    let member_id = spec.member_id.clone().unwrap_or_else(|| world.ids.hex(32));
    if world.bitrix.portal(&member_id).is_some() {
        anyhow::bail!("a portal with member_id {member_id} exists already");
    }
    let cell = Arc::new(PortalCell {
        member_id: Arc::from(member_id.as_str()),
        name: spec.name.clone(),
        port: AtomicU16::new(port),
        switches: RwLock::new(spec.switches.clone()),
        limiter: Mutex::new(limits::Limiter::new(spec.limits.clone())),
        state: Mutex::new(PortalState::new()),
    });
    world.bitrix.by_member.write().insert(member_id, cell.clone());
    world.bitrix.portals.write().push(cell.clone());
    world.listen(listener, Arc::new(rest::Door { world: world.clone(), portal: cell.clone(), port }));
    world.change("portal", &cell.member_id, "");
    Ok(cell)
}

/// Gives the portal a new address; the old one answers 302 from now on (§2.6).
pub(crate) async fn rename_portal(world: &Arc<World>, portal: &Arc<PortalCell>, port: u16) -> anyhow::Result<u16> {
    let (listener, port) = bind(port).await?;
    world.listen(listener, Arc::new(rest::Door { world: world.clone(), portal: portal.clone(), port }));
    portal.port.store(port, std::sync::atomic::Ordering::Release);
    world.change("portal", &portal.member_id, "renamed");
    Ok(port)
}
