//! What a portal is made of: users, installations, switches.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::{
    automation::{Automation, Workflow},
    crm::Crm,
    disk::Disk,
    frame::Frame,
    limits::{Limiter, PortalLimits},
    messageservice::{Sender, SmsView},
    openlines::OpenLines,
    robots::Robot,
};
use crate::php::Php;

/// An application as its vendor (or an administrator) describes it, §1.2.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppSpec {
    /// `local.<13hex>.<8digits>` or `app.…`; made up when empty.
    pub client_id: String,
    /// Made up when empty.
    pub client_secret: String,
    /// Menu caption.
    pub name: String,
    /// Page shown when the application is opened.
    pub application_url: String,
    /// Page shown once; absent = the application counts as installed at once.
    pub installer_url: Option<String>,
    /// Receives ONAPPINSTALL, ONAPPUPDATE and ONAPPUNINSTALL server to server.
    pub event_handler_url: Option<String>,
    /// Granted scopes.
    pub scopes: Vec<String>,
    /// Has pages; `false` = UI-less, ONAPPINSTALL is sent at once.
    pub ui: bool,
    /// Mass-market application (else local).
    pub market: bool,
    /// Version that new installations get.
    pub version: i64,
}

impl Default for AppSpec {
    fn default() -> Self {
        let scopes = ["crm", "bizproc", "placement", "user_brief", "imopenlines", "messageservice", "im", "disk"];
        Self {
            client_id: String::new(),
            client_secret: String::new(),
            name: "Mostik".to_owned(),
            application_url: String::new(),
            installer_url: None,
            event_handler_url: None,
            scopes: scopes.map(str::to_owned).to_vec(),
            ui: true,
            market: false,
            version: 1,
        }
    }
}

/// A portal to be created.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PortalSpec {
    /// For people.
    pub name: String,
    /// 0 = any free port.
    pub port: u16,
    /// 32 hex; made up when absent.
    pub member_id: Option<String>,
    /// Behaviour.
    pub switches: Switches,
    /// Limits.
    pub limits: PortalLimits,
}

/// Whether a method needs an administrator's confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MethodConfirm {
    /// `METHOD_CONFIRM_WAITING`, 401.
    Waiting,
    /// `METHOD_CONFIRM_DENIED`, 403.
    Denied,
}

/// How a portal behaves. Everything can be changed while it runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Switches {
    /// `false`: the plan has no REST, `ACCESS_DENIED` "REST is available only on commercial plans.".
    pub rest_available: bool,
    /// `false`: the plan has no robots, `bizproc.*` is not found.
    pub robots_available: bool,
    /// Every call answers `OVERLOAD_LIMIT`.
    pub overloaded: bool,
    /// Every call answers `CONNECTION_ERROR` (portal cannot reach the OAuth server).
    pub connection_error: bool,
    /// The portal is gone: 404 with HTML, or `PORTAL_DELETED` with 403 if `deleted_as_json`.
    pub deleted: bool,
    /// See `deleted`.
    pub deleted_as_json: bool,
    /// HTTP status of a maintenance page that every call gets instead of an answer (502, 503, 504).
    pub maintenance: Option<u16>,
    /// Methods that wait for, or were denied, an administrator's confirmation.
    pub method_confirm: BTreeMap<String, MethodConfirm>,
    /// Page opens carry no SERVER_ENDPOINT, APPLICATION_TOKEN, APPLICATION_SCOPE and no PLACEMENT_OPTIONS (old modules).
    pub old_pages: bool,
    /// `event.send` is lost in so many milliseconds after the callback (§6.4).
    pub event_send_deaf_ms: u64,
    /// Portal's offset from UTC in its dates, minutes.
    pub offset_min: i64,
    /// Events of CRM changes are sent without any token (nobody known caused them).
    pub events_without_auth: bool,
    /// An application update also deletes every stored event handler (docs) and not only ONAPPINSTALL's (code), §1.7.
    pub update_drops_handlers: bool,
    /// Interface language, `LANG` of pages and `LANGUAGE_ID` of events.
    pub language: String,
    /// Tariff as `app.info` tells it.
    pub license: String,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            rest_available: true,
            robots_available: true,
            overloaded: false,
            connection_error: false,
            deleted: false,
            deleted_as_json: false,
            maintenance: None,
            method_confirm: BTreeMap::new(),
            old_pages: false,
            event_send_deaf_ms: 1_000,
            offset_min: 180,
            events_without_auth: false,
            update_drops_handlers: false,
            language: "ru".to_owned(),
            license: "ru_pro100".to_owned(),
        }
    }
}

/// How the OAuth server behaves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OAuthOptions {
    /// Life of an access token, seconds.
    pub access_life_s: i64,
    /// Life of a refresh token, seconds.
    pub refresh_life_s: i64,
    /// A used refresh token keeps working for so many milliseconds; 0 = never.
    pub grace_ms: i64,
    /// A refresh also ends the old access token's life.
    pub revoke_on_refresh: bool,
    /// `expires` and `user_id` as text, as some captured answers have it.
    pub numbers_as_text: bool,
}

impl Default for OAuthOptions {
    fn default() -> Self {
        Self {
            access_life_s: 3_600,
            refresh_life_s: 180 * 86_400,
            grace_ms: 0,
            revoke_on_refresh: false,
            numbers_as_text: false,
        }
    }
}

/// A user of a portal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserSpec {
    /// 0 = next free id.
    pub id: i64,
    /// Given name.
    pub name: String,
    /// Family name.
    pub last_name: String,
    /// Portal administrator.
    pub admin: bool,
    /// Dismissed: tokens answer `authorization_error`.
    pub fired: bool,
    /// E-mail.
    pub email: String,
}

impl Default for UserSpec {
    fn default() -> Self {
        let name = "Ольга".to_owned();
        Self { id: 0, name, last_name: "Смирнова".to_owned(), admin: false, fired: false, email: String::new() }
    }
}

pub(crate) type User = UserSpec;

/// A stored event handler, §4.1.
#[derive(Clone, Debug)]
pub(crate) struct EventHandler {
    pub(crate) row: i64,
    pub(crate) event: String,
    pub(crate) handler: String,
    pub(crate) auth_type: i64,
    pub(crate) offline: bool,
}

/// A bound placement, §9.1.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    pub(crate) row: i64,
    pub(crate) code: String,
    pub(crate) handler: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) user_id: i64,
    pub(crate) options: Php,
    pub(crate) lang_all: Php,
}

/// One application on one portal.
pub(crate) struct Install {
    pub(crate) app: Arc<AppSpec>,
    /// Grows with every installation; tokens of an earlier one are dead.
    pub(crate) epoch: u64,
    pub(crate) application_token: String,
    pub(crate) installed: bool,
    pub(crate) active: bool,
    pub(crate) payment_expired: bool,
    pub(crate) status: String,
    pub(crate) version: i64,
    pub(crate) user_id: i64,
    pub(crate) scopes: Arc<[String]>,
    /// Users who may use the application; absent = everybody.
    pub(crate) access: Option<Vec<i64>>,
    pub(crate) handlers: Vec<EventHandler>,
    pub(crate) placements: Vec<Placement>,
    pub(crate) robots: BTreeMap<String, Robot>,
    pub(crate) senders: BTreeMap<String, Sender>,
    pub(crate) options: Php,
    pub(crate) user_options: HashMap<i64, Php>,
}

impl Install {
    pub(crate) fn scope_list(&self) -> String {
        self.scopes.join(",")
    }
}

/// An installation, as shown.
#[derive(Clone, Debug, Serialize)]
pub struct InstallView {
    /// Application.
    pub client_id: String,
    /// Constant of this installation.
    pub application_token: String,
    /// `INSTALLED` flag.
    pub installed: bool,
    /// Installed version.
    pub version: i64,
    /// Who installed.
    pub user_id: i64,
    /// Scopes.
    pub scopes: Vec<String>,
    /// `(event, handler)` of stored event handlers.
    pub event_handlers: Vec<(String, String)>,
    /// `(placement, handler)`.
    pub placements: Vec<(String, String)>,
    /// Codes of robots and activities.
    pub robots: Vec<String>,
    /// Subscription or trial has ended.
    pub payment_expired: bool,
}

impl Install {
    pub(crate) fn view(&self) -> InstallView {
        InstallView {
            client_id: self.app.client_id.clone(),
            application_token: self.application_token.clone(),
            installed: self.installed,
            version: self.version,
            user_id: self.user_id,
            scopes: self.scopes.to_vec(),
            event_handlers: self.handlers.iter().map(|row| (row.event.clone(), row.handler.clone())).collect(),
            placements: self.placements.iter().map(|row| (row.code.clone(), row.handler.clone())).collect(),
            robots: self.robots.keys().cloned().collect(),
            payment_expired: self.payment_expired,
        }
    }
}

/// What a portal stores.
pub(crate) struct PortalState {
    pub(crate) users: BTreeMap<i64, User>,
    pub(crate) installs: BTreeMap<String, Install>,
    pub(crate) epochs: u64,
    pub(crate) rows: i64,
    pub(crate) crm: Crm,
    pub(crate) automations: Vec<Arc<Automation>>,
    pub(crate) workflows: HashMap<Arc<str>, Workflow>,
    pub(crate) workflow_order: VecDeque<Arc<str>>,
    pub(crate) workflows_of: HashMap<(i64, i64), Vec<Arc<str>>>,
    pub(crate) frames: HashMap<String, Frame>,
    pub(crate) frame_order: VecDeque<String>,
    pub(crate) openlines: OpenLines,
    pub(crate) disk: Disk,
    pub(crate) sms: Vec<SmsView>,
}

impl PortalState {
    pub(crate) fn new() -> Self {
        let admin =
            User { id: 1, name: "Анна".into(), last_name: "Петрова".into(), admin: true, ..User::default() };
        Self {
            users: BTreeMap::from([(1, admin)]),
            installs: BTreeMap::new(),
            epochs: 0,
            rows: 40,
            crm: Crm::new(),
            automations: Vec::new(),
            workflows: HashMap::new(),
            workflow_order: VecDeque::new(),
            workflows_of: HashMap::new(),
            frames: HashMap::new(),
            frame_order: VecDeque::new(),
            openlines: OpenLines::default(),
            disk: Disk::default(),
            sms: Vec::new(),
        }
    }

    /// Ids of handler rows: one sequence, so that they are never equal by chance.
    pub(crate) fn next_row(&mut self) -> i64 {
        self.rows += 1;
        self.rows
    }

    pub(crate) fn first_admin(&self) -> Option<i64> {
        self.users.values().find(|user| user.admin && !user.fired).map(|user| user.id)
    }
}

/// One portal.
pub(crate) struct PortalCell {
    pub(crate) member_id: Arc<str>,
    pub(crate) name: String,
    pub(crate) port: AtomicU16,
    pub(crate) switches: RwLock<Switches>,
    pub(crate) limiter: Mutex<Limiter>,
    pub(crate) state: Mutex<PortalState>,
}

impl PortalCell {
    pub(crate) fn domain(&self) -> String {
        format!("127.0.0.1:{}", self.port.load(Ordering::Acquire))
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}/rest/", self.domain())
    }
}
