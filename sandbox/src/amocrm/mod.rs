//! Simulated amoCRM: accounts, OAuth, the parts of REST v4 that a connector needs, and a Salesbot that calls it.
//! Source: amocrm.md; section numbers below are of that document.
//!
//! One port plays every host: `http://127.0.0.1:PORT/{subdomain}/…` is an account's, `/api-b/…` the shared API host that
//! knows renamed accounts (§1.6). Without a subdomain (`/api/v4/…`) the host is not checked.

mod amojo;
mod chat_rules;
mod flow;
mod handle;
mod host;
mod notes;
mod oauth;
pub(crate) mod package;
mod rest;
mod salesbot;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

pub use amojo::{AmojoChat, AmojoMessage, ChatChannelSpec, Outgoing, SaidBy};
pub use handle::{AmoAccount, AmoInstall};
pub use host::{SavedBlock, Trigger};
pub use notes::AmoNote;
pub use salesbot::{BotCall, BotRun, BotState};

use crate::{
    clock::Millis,
    courier::{Courier, CourierKnobs, Parcel},
    http::{Handler, Reply, Request, Response},
    journal::Severity,
    world::World,
};

/// §6.2.
const PER_SECOND: usize = 7;
/// Refusals after which the address is shut out: "continued violation".
const PATIENCE: u32 = 30;
/// The shared API host of every account (§0.2).
const SHARED: &str = "api-b";

/// An integration (§1.1); missing ids and secret are made up.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IntegrationSpec {
    /// UUID.
    pub client_id: String,
    /// 64 characters.
    pub client_secret: String,
    /// Compared byte for byte.
    pub redirect_uri: String,
    /// Called when the integration is disabled.
    pub uninstall_url: Option<String>,
}

/// An account to create.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountSpec {
    /// Label in front of the domain.
    pub subdomain: String,
    /// `amocrm.ru` or `kommo.com` (§8).
    pub domain: String,
}

impl Default for AccountSpec {
    fn default() -> Self {
        Self { subdomain: "acme".to_owned(), domain: "amocrm.ru".to_owned() }
    }
}

/// How amoCRM behaves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AmoOptions {
    /// Lifetime of access tokens, seconds.
    pub access_lives_s: i64,
    /// Bots are called with JSON instead of a form (§11, point 1).
    pub json_bots: bool,
    /// Requests are counted.
    pub limits: bool,
    /// Seconds that a 429 asks for.
    pub retry_after_s: i64,
}

impl Default for AmoOptions {
    fn default() -> Self {
        Self { access_lives_s: 86_400, json_bots: false, limits: true, retry_after_s: 1 }
    }
}

/// Everything of amoCRM in one sandbox.
pub(crate) struct Amo {
    pub(crate) port: u16,
    pub(crate) courier: Arc<Courier>,
    pub(crate) options: RwLock<AmoOptions>,
    integrations: RwLock<HashMap<String, Arc<IntegrationSpec>>>,
    accounts: RwLock<Vec<Arc<AccountCell>>>,
    door: Mutex<DoorCount>,
    pub(crate) amojo: Mutex<amojo::Amojo>,
}

/// Who came when.
#[derive(Default)]
struct DoorCount {
    address: VecDeque<Millis>,
    grants: HashMap<(i64, String), VecDeque<Millis>>,
    refused: u32,
    shut: bool,
}

/// One account.
pub(crate) struct AccountCell {
    pub(crate) id: i64,
    pub(crate) domain: String,
    /// How the chats service calls it (§7.1).
    pub(crate) amojo_id: String,
    pub(crate) state: Mutex<AccountState>,
}

/// What changes in it.
#[derive(Default)]
pub(crate) struct AccountState {
    subdomain: String,
    paid: bool,
    installs: HashMap<String, bool>,
    codes: HashMap<String, oauth::Grant>,
    access: HashMap<String, oauth::Grant>,
    refresh: HashMap<String, oauth::Refresh>,
    leads: BTreeMap<i64, Value>,
    contacts: BTreeMap<i64, Value>,
    notes: Vec<notes::AmoNote>,
    bots: Vec<salesbot::BotRun>,
    host: host::HostState,
    next_id: i64,
}

impl AccountState {
    fn next(&mut self) -> i64 {
        self.next_id += 1;
        40_000_000 + self.next_id
    }
}

impl AccountCell {
    pub(crate) fn scope(&self) -> String {
        self.id.to_string()
    }

    pub(crate) fn host(&self) -> String {
        format!("{}.{}", self.state.lock().subdomain, self.domain)
    }
}

impl Amo {
    pub(crate) fn new(port: u16) -> (Self, mpsc::UnboundedReceiver<Parcel>) {
        let (courier, parcels) = Courier::new();
        let amo = Self {
            port,
            courier: Arc::new(courier),
            options: RwLock::default(),
            integrations: RwLock::default(),
            accounts: RwLock::default(),
            door: Mutex::default(),
            amojo: Mutex::default(),
        };
        (amo, parcels)
    }

    /// Knobs that every sandbox begins with: §3.4 gives a handler two seconds.
    pub(crate) fn usual_knobs() -> CourierKnobs {
        CourierKnobs { timeout_ms: 2_000, ..CourierKnobs::default() }
    }

    /// `account_url` of the service.
    pub(crate) fn account_url(&self) -> String {
        format!("http://127.0.0.1:{}/{{subdomain}}", self.port)
    }

    pub(crate) fn add_integration(&self, world: &World, mut spec: IntegrationSpec) -> Arc<IntegrationSpec> {
        if spec.client_id.is_empty() {
            spec.client_id = uuid(world);
        }
        if spec.client_secret.is_empty() {
            spec.client_secret = world.ids.letters(64);
        }
        let spec = Arc::new(spec);
        self.integrations.write().insert(spec.client_id.clone(), spec.clone());
        spec
    }

    pub(crate) fn integration(&self, client_id: &str) -> Option<Arc<IntegrationSpec>> {
        self.integrations.read().get(client_id).cloned()
    }

    pub(crate) fn accounts(&self) -> Vec<Arc<AccountCell>> {
        self.accounts.read().clone()
    }

    pub(crate) fn add_account(&self, world: &World, spec: AccountSpec) -> anyhow::Result<Arc<AccountCell>> {
        let taken = |cell: &&Arc<AccountCell>| cell.state.lock().subdomain == spec.subdomain;
        if spec.subdomain == SHARED || self.accounts.read().iter().any(|cell| taken(&cell)) {
            anyhow::bail!("the subdomain {} is taken", spec.subdomain);
        }
        let id = 31_000_000 + i64::try_from(world.ids.up_to(900_000)).unwrap_or(0);
        let state = AccountState { subdomain: spec.subdomain, paid: true, ..AccountState::default() };
        let cell = Arc::new(AccountCell { id, domain: spec.domain, amojo_id: uuid(world), state: Mutex::new(state) });
        self.accounts.write().push(cell.clone());
        world.change("amo.account", &cell.scope(), "");
        Ok(cell)
    }

    fn by_label(&self, label: &str) -> Option<Arc<AccountCell>> {
        self.accounts.read().iter().find(|cell| cell.state.lock().subdomain == label).cloned()
    }

    /// Counts a request. Gives the refusal when there were too many (§6.2).
    fn count(&self, world: &World, grant: Option<&(i64, String)>) -> Option<Response> {
        let options = self.options.read().clone();
        let now = world.now_ms();
        let mut door = self.door.lock();
        if door.shut {
            return Some(Response::html(403, "<html><head><title>403 Forbidden</title></head></html>"));
        }
        if !options.limits {
            return None;
        }
        let full = |times: &mut VecDeque<Millis>| {
            while times.front().is_some_and(|at| now - at >= 1_000) {
                times.pop_front();
            }
            times.push_back(now);
            times.len() > PER_SECOND
        };
        let by_address = full(&mut door.address);
        let by_grant = grant.is_some_and(|grant| full(door.grants.entry(grant.clone()).or_default()));
        if !(by_address || by_grant) {
            return None;
        }
        door.refused += 1;
        door.shut = door.refused >= PATIENCE;
        let scope = grant.map(|(account, _)| account.to_string()).unwrap_or_default();
        world.violation(Severity::Limit, "amo", &scope, "429", "more than 7 requests in a second");
        Some(problem(429, "Too Many Requests", json!({"retry_after": options.retry_after_s})))
    }

    pub(crate) fn set_shut(&self, shut: bool) {
        *self.door.lock() = DoorCount { shut, ..DoorCount::default() };
    }
}

/// Made up.
pub(crate) fn uuid(world: &World) -> String {
    [8, 4, 4, 4, 12].map(|length| world.ids.hex(length)).join("-")
}

/// A problem document (§6.3) with more members.
pub(crate) fn problem(status: u16, title: &str, more: Value) -> Response {
    let mut body = json!({
        "title": title, "type": format!("https://httpstatus.es/{status}"), "status": status, "detail": title,
    });
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    Response::new(status, "application/problem+json", crate::http::json::escaped(&body))
}

/// The port.
pub(crate) struct Door(pub(crate) Arc<World>);

impl Handler for Door {
    fn handle(self: Arc<Self>, request: Request) -> Reply {
        Box::pin(async move { route(&self.0, request).await })
    }

    fn cut_request(&self) -> Option<usize> {
        self.0.cut_request("wire.amo", "")
    }
}

async fn route(world: &Arc<World>, request: Request) -> Response {
    let path = request.path.clone();
    let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (label, rest) = match segments.as_slice() {
        ["v2", "origin", "custom", rest @ ..] => return amojo::route(world, &request, rest).await,
        ["attachments", name] => return amojo::attachment(world, name),
        [first, ..] if matches!(*first, "api" | "oauth2") => (None, segments.as_slice()),
        [first, rest @ ..] => (Some(*first), rest),
        [] => (None, segments.as_slice()),
    };
    if !request.header("cookie").is_empty() {
        world.violation(Severity::Careless, "amo", "", "cookie", "keep no cookie jar (§6.1)");
    }
    // A host that is nobody's (any more): §1.5, §1.6.
    if let Some(label) = label
        && label != SHARED
        && world.amo.by_label(label).is_none()
    {
        world.journal.count("amo.wrong_host");
        return Response::html(404, "<html><h1>404 Not Found</h1></html>");
    }
    if let (Some(cell), [place @ ("host" | "widgets"), rest @ ..]) =
        (label.and_then(|label| world.amo.by_label(label)), rest)
    {
        let account = AmoAccount { world: world.clone(), cell };
        return match (*place, rest) {
            ("widgets", [code, rest @ ..]) => host::widget_file(&account, code, rest),
            _ => host::route(&account, &request, rest),
        };
    }
    match rest {
        ["oauth2", ..] => oauth::route(world, &request, label, rest).await,
        ["api", "v4", rest @ ..] if label != Some(SHARED) => rest::route(world, &request, label, rest).await,
        _ => problem(404, "Not Found", json!({})),
    }
}
