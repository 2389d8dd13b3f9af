//! Business numbers, their accounts and access tokens. Source: §1.1, §5.4, §7, §10.3.

use std::{collections::HashSet, sync::Arc};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::{Graph, error::GraphError};
use crate::{clock::Millis, world::World};

/// A business number to be added.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NumberSpec {
    /// Path element for sending; made up when empty.
    pub phone_number_id: String,
    /// WhatsApp business account; made up when empty, shared when it exists.
    pub waba_id: String,
    /// Digits of the number itself; made up when empty.
    pub display_phone_number: String,
    /// Name that customers see.
    pub verified_name: String,
    /// System user token; made up when empty.
    pub access_token: String,
    /// Meta application; made up when empty.
    pub app_id: String,
    /// Key of the webhook signature; made up when empty.
    pub app_secret: String,
    /// For the verification challenge.
    pub verify_token: String,
    /// Where webhooks go; absent = nowhere yet.
    pub callback_url: Option<String>,
    /// Messages per second, in and out; 0 = no limit.
    pub throughput: u32,
    /// Test number: only these may be written to (131030).
    pub allow_list: Option<Vec<String>>,
    /// The account gets the default templates.
    pub default_templates: bool,
}

impl Default for NumberSpec {
    fn default() -> Self {
        Self {
            phone_number_id: String::new(),
            waba_id: String::new(),
            display_phone_number: String::new(),
            verified_name: "Ромашка".to_owned(),
            access_token: String::new(),
            app_id: String::new(),
            app_secret: String::new(),
            verify_token: "vt-77".to_owned(),
            callback_url: None,
            throughput: 80,
            allow_list: None,
            default_templates: true,
        }
    }
}

/// A business number, as shown.
#[derive(Clone, Debug, Serialize)]
pub struct NumberView {
    /// Everything it was made with, made-up parts filled in.
    #[serde(flatten)]
    pub spec: NumberSpec,
    /// Registered with the platform; else sends answer 133010.
    pub registered: bool,
    /// `GREEN`, `YELLOW`, `RED`.
    pub quality: String,
    /// Account is subscribed to webhooks.
    pub subscribed: bool,
}

/// What can change about a number.
#[derive(Clone, Debug)]
pub(crate) struct NumberState {
    pub(crate) callback_url: Option<Arc<str>>,
    pub(crate) verify_token: String,
    pub(crate) throughput: u32,
    pub(crate) registered: bool,
    /// Deleted numbers answer 33.
    pub(crate) deleted: bool,
    pub(crate) quality: String,
}

#[derive(Default)]
pub(crate) struct Bucket {
    level: f64,
    at_ms: Millis,
}

pub(crate) struct NumberCell {
    pub(crate) id: Arc<str>,
    pub(crate) spec: NumberSpec,
    pub(crate) state: RwLock<NumberState>,
    bucket: Mutex<Bucket>,
}

/// A WhatsApp business account.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    pub(crate) numbers: Vec<String>,
    pub(crate) subscribed: bool,
    /// `override_callback_uri` of the account.
    pub(crate) callback_url: Option<String>,
}

/// An access token.
#[derive(Clone, Debug)]
pub(crate) struct TokenRow {
    pub(crate) app_id: String,
    pub(crate) numbers: HashSet<String>,
    pub(crate) wabas: HashSet<String>,
    /// Unix seconds; 0 = never.
    pub(crate) expires_at: i64,
    pub(crate) valid: bool,
    pub(crate) may_send: bool,
}

impl NumberCell {
    /// Counts one message against the throughput of §7; a bucket that holds one second's worth.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds between two messages fit an f64")]
    pub(crate) fn take(&self, now: Millis) -> bool {
        let limit = f64::from(self.state.read().throughput);
        if limit <= 0.0 {
            return true;
        }
        let mut bucket = self.bucket.lock();
        let drained = (now - bucket.at_ms).max(0) as f64 / 1000.0 * limit;
        bucket.level = (bucket.level - drained).max(0.0);
        bucket.at_ms = now;
        if bucket.level + 1.0 > limit + 1e-9 {
            return false;
        }
        bucket.level += 1.0;
        true
    }
}

/// Adds a number; an existing account or token is shared.
pub(crate) fn create(world: &World, mut spec: NumberSpec) -> anyhow::Result<Arc<NumberCell>> {
    let fill = |text: &mut String, made: String| {
        if text.is_empty() {
            *text = made;
        }
    };
    fill(&mut spec.phone_number_id, world.ids.digits(15));
    fill(&mut spec.waba_id, world.ids.digits(15));
    fill(&mut spec.display_phone_number, format!("7999{}", world.ids.digits(7)));
    fill(&mut spec.access_token, format!("EAAG{}", world.ids.letters(60)));
    fill(&mut spec.app_id, world.ids.digits(16));
    fill(&mut spec.app_secret, world.ids.hex(32));
    let graph = &world.graph;
    if graph.number(&spec.phone_number_id).is_some() {
        anyhow::bail!("phone_number_id {} exists already", spec.phone_number_id);
    }
    let is_new_account = {
        let mut accounts = graph.accounts.write();
        let is_new = !accounts.contains_key(&spec.waba_id);
        let account = accounts.entry(spec.waba_id.clone()).or_default();
        account.numbers.push(spec.phone_number_id.clone());
        account.subscribed |= is_new;
        is_new
    };
    if is_new_account && spec.default_templates {
        graph.templates.write().add_defaults(world, &spec.waba_id);
    }
    {
        let mut tokens = graph.tokens.write();
        let row = tokens.entry(spec.access_token.clone()).or_insert_with(|| TokenRow {
            app_id: spec.app_id.clone(),
            numbers: HashSet::new(),
            wabas: HashSet::new(),
            expires_at: 0,
            valid: true,
            may_send: true,
        });
        row.numbers.insert(spec.phone_number_id.clone());
        row.wabas.insert(spec.waba_id.clone());
    }
    let cell = Arc::new(NumberCell {
        id: Arc::from(spec.phone_number_id.as_str()),
        state: RwLock::new(NumberState {
            callback_url: spec.callback_url.as_deref().map(Arc::from),
            verify_token: spec.verify_token.clone(),
            throughput: spec.throughput,
            registered: true,
            deleted: false,
            quality: "GREEN".to_owned(),
        }),
        bucket: Mutex::default(),
        spec,
    });
    graph.numbers.write().insert(cell.spec.phone_number_id.clone(), cell.clone());
    world.change("number", &cell.id, "");
    Ok(cell)
}

pub(crate) fn view(graph: &Graph, cell: &NumberCell) -> NumberView {
    let state = cell.state.read().clone();
    let subscribed = graph.accounts.read().get(&cell.spec.waba_id).is_some_and(|account| account.subscribed);
    NumberView {
        spec: NumberSpec {
            callback_url: state.callback_url.as_deref().map(str::to_owned),
            verify_token: state.verify_token,
            throughput: state.throughput,
            ..cell.spec.clone()
        },
        registered: state.registered,
        quality: state.quality,
        subscribed,
    }
}

/// Checks a bearer token: present, known, alive.
pub(crate) fn check_token(world: &World, token: Option<&str>) -> Result<TokenRow, GraphError> {
    let Some(token) = token.filter(|token| !token.is_empty()) else {
        return Err(GraphError::new(200, "Provide valid app ID or access token"));
    };
    let tokens = world.graph.tokens.read();
    let Some(row) = tokens.get(token) else {
        return Err(GraphError::new(190, "Invalid OAuth access token - Cannot parse access token"));
    };
    if !row.valid || (row.expires_at > 0 && row.expires_at <= world.clock.now_secs()) {
        return Err(GraphError::new(190, "Error validating access token: Session has expired"));
    }
    Ok(row.clone())
}

/// The number behind a path element, if this token may use it.
pub(crate) fn check_number(world: &World, row: &TokenRow, id: &str) -> Result<Arc<NumberCell>, GraphError> {
    let missing = format!(
        "Unsupported post request. Object with ID '{id}' does not exist, cannot be loaded due to missing permissions, or does not support this operation"
    );
    let cell = world.graph.number(id).ok_or_else(|| GraphError::new(100, missing))?;
    if cell.state.read().deleted {
        return Err(GraphError::new(33, "The business phone number has been deleted"));
    }
    if !row.numbers.contains(id) {
        return Err(GraphError::new(10, "Application does not have permission for this action"));
    }
    Ok(cell)
}
