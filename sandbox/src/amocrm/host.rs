//! The pages of an account in which a widget lives: it is served from its archive, given tokens, and what it saves is kept.
//! Source: §2, §4.4–§4.6, §5. The browser's side, with the documented objects and callbacks, is `host/host.js`.
//!
//! Addresses stand below `/{subdomain}/host`; files of the widget below `/{subdomain}/widgets/{code}`, as amoCRM serves them.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::package::{self, Files};
use super::{AccountCell, AmoAccount, BotCall, flow};
use crate::{
    courier::Parcel,
    http::{Request, Response, form::FormBody},
    php::Php,
    world::World,
};

/// Code under which the widget is installed; made by amoCRM at the upload.
const CODE: &str = "mostik_widget";
/// §2: the sample lives so long.
const TOKEN_LIVES_S: i64 = 1_800;
/// Scripts of this page and of the widget, and calls to whatever service the widget belongs to.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self' http://127.0.0.1:*; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A widget in an account.
#[derive(Clone)]
pub(crate) struct Widget {
    client_id: String,
    files: Arc<Files>,
    installed: bool,
    settings: Map<String, Value>,
}

/// A block that was saved in the designer.
#[derive(Clone, Debug, Serialize)]
pub struct SavedBlock {
    /// Which block of the widget.
    pub handler: String,
    /// What the widget made of the form: the bot's code, frozen.
    pub code: Value,
}

/// An action of the Digital Pipeline: a stage, and what the widget's form held.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// The stage.
    pub status: i64,
    /// Settings, all texts.
    pub settings: Map<String, Value>,
}

/// What the pages keep.
#[derive(Default)]
pub(crate) struct HostState {
    widget: Option<Widget>,
    blocks: Vec<SavedBlock>,
    triggers: Vec<Trigger>,
    /// Answers to the hooks of triggers, oldest first.
    hooks: Vec<u16>,
}

impl AmoAccount {
    /// Uploads a widget's archive, as in the integration's form; refused with everything that is wrong with it.
    pub fn upload_widget(&self, client_id: &str, archive: &[u8]) -> anyhow::Result<()> {
        let files = package::unpack(archive).map_err(anyhow::Error::msg)?;
        let wrong = package::check(&files);
        if !wrong.is_empty() {
            anyhow::bail!("{}", wrong.join("\n"));
        }
        let widget =
            Widget { client_id: client_id.to_owned(), files: Arc::new(files), installed: false, settings: Map::new() };
        self.cell.state.lock().host.widget = Some(widget);
        Ok(())
    }

    /// Address of the account's pages for people.
    pub fn page_url(&self) -> String {
        format!("http://127.0.0.1:{}/{}/host", self.world.amo.port, self.cell.state.lock().subdomain)
    }

    /// Whether the widget was installed with its settings.
    pub fn widget_installed(&self) -> bool {
        self.cell.state.lock().host.widget.as_ref().is_some_and(|widget| widget.installed)
    }

    /// Blocks saved in the designer, oldest first.
    pub fn blocks(&self) -> Vec<SavedBlock> {
        self.cell.state.lock().host.blocks.clone()
    }

    /// Actions of the pipeline.
    pub fn triggers(&self) -> Vec<Trigger> {
        self.cell.state.lock().host.triggers.clone()
    }

    /// Saves an action of the pipeline, as its dialog does.
    pub fn add_trigger(&self, trigger: Trigger) {
        self.cell.state.lock().host.triggers.push(trigger);
    }

    /// Answers to the hooks of triggers, oldest first.
    pub fn hook_answers(&self) -> Vec<u16> {
        self.cell.state.lock().host.hooks.clone()
    }

    /// A disposable token as a browser gets it (§2), with some claims changed; for callers who forge.
    pub fn visitor_token(&self, client_id: &str, changes: &Value) -> anyhow::Result<String> {
        let integration = self.world.amo.integration(client_id);
        let integration = integration.ok_or_else(|| anyhow::anyhow!("no such integration"))?;
        let mut claims = visitor_claims(&self.world, &self.cell, client_id, &integration.redirect_uri);
        if let (Some(claims), Some(changes)) = (claims.as_object_mut(), changes.as_object()) {
            claims.extend(changes.clone());
        }
        Ok(visitor_token(&integration.client_secret, &claims))
    }

    /// A lead is moved: actions of its new stage call their hooks (§5.1), once.
    pub fn move_lead(&self, lead: i64, status: i64) -> anyhow::Result<()> {
        let url = {
            let mut state = self.cell.state.lock();
            let card = state.leads.get_mut(&lead).and_then(Value::as_object_mut);
            card.ok_or_else(|| anyhow::anyhow!("no such lead"))?.insert("status_id".to_owned(), json!(status));
            state.host.widget.as_ref().and_then(|widget| {
                let manifest: Value = serde_json::from_slice(widget.files.get("manifest.json")?).ok()?;
                manifest["dp"]["webhook_url"].as_str().map(str::to_owned)
            })
        };
        let Some(url) = url else { return Ok(()) };
        for trigger in self.triggers().into_iter().filter(|trigger| trigger.status == status) {
            self.call_hook(&url, lead, &trigger);
        }
        Ok(())
    }

    /// Calls the hook of an action for a lead (§5.1); also to repeat a call that was made before.
    pub fn call_hook(&self, url: &str, lead: i64, trigger: &Trigger) {
        let time = self.world.now_ms() / 1000;
        let call = json!({
            "event": {"type": 15, "type_code": "lead_appeared_in_status", "time": time,
                "data": {"id": lead, "element_type": 2, "status_id": trigger.status, "pipeline_id": 7_001_200,
                    "direction_of_movement": "went_to_trigger"}},
            "action": {"settings": {"widget": {"settings": trigger.settings}}},
            "subdomain": self.cell.state.lock().subdomain, "account_id": self.cell.id,
        });
        let mut form = FormBody::with_capacity(1024);
        for (key, value) in call.as_object().into_iter().flatten() {
            form.put_value(&mut vec![key.clone()], &Php::from_json(value));
        }
        let later = self.cell.clone();
        let parcel = Parcel {
            target: Arc::from("amo.pipeline"),
            scope: Arc::from(self.cell.scope().as_str()),
            phone: String::new(),
            url: Arc::from(url),
            headers: vec![("content-type", "application/x-www-form-urlencoded".to_owned())],
            body: form.finish().into(),
            start: None,
            done: Some(Box::new(move |world, receipt| {
                later.state.lock().host.hooks.push(receipt.status);
                world.change("amo.pipeline", &later.scope(), lead.to_string());
            })),
        };
        self.world.amo.courier.send(&self.world, parcel);
    }

    /// Runs a saved block on a lead; gives its `continue_id`.
    pub fn run_block(&self, block: usize, lead: i64) -> anyhow::Result<i64> {
        let (saved, client_id) = {
            let state = self.cell.state.lock();
            let widget = state.host.widget.as_ref().ok_or_else(|| anyhow::anyhow!("no widget"))?;
            (state.host.blocks.get(block).cloned(), widget.client_id.clone())
        };
        let code = saved.ok_or_else(|| anyhow::anyhow!("no such block"))?.code;
        match flow::run(&code, (0, 0), &Map::new()) {
            flow::Next::Call { url, data, at } => {
                let bot = self.run_bot(&BotCall { client_id, url, lead, data })?;
                if let Some(run) = self.cell.state.lock().bots.iter_mut().find(|run| run.continue_id == bot) {
                    run.block = Some((code, at));
                }
                Ok(bot)
            }
            flow::Next::Exit(way) => anyhow::bail!("the block left by {way} without a call"),
            flow::Next::Stuck(words) => anyhow::bail!("{words}"),
        }
    }
}

fn visitor_claims(world: &World, cell: &AccountCell, client_id: &str, redirect: &str) -> Value {
    let now = world.now_ms() / 1000;
    let (scheme, rest) = redirect.split_once("://").unwrap_or(("https", redirect));
    let host = rest.split(['/', ':']).next().unwrap_or_default();
    json!({
        "iss": format!("https://{}", cell.host()), "aud": format!("{scheme}://{host}"),
        "jti": format!("{}-{}", world.ids.hex(8), world.ids.hex(4)), "iat": now, "nbf": now, "exp": now + TOKEN_LIVES_S,
        "account_id": cell.id, "subdomain": cell.state.lock().subdomain.clone(), "client_uuid": client_id,
        "user_id": 2_718_281, "is_admin": true,
    })
}

/// Signed with HS256 (§2).
fn visitor_token(secret: &str, claims: &Value) -> String {
    let segment = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", segment(&json!({"typ": "JWT", "alg": "HS256"})), segment(claims));
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map(|mut mac| {
        mac.update(signed.as_bytes());
        mac.finalize().into_bytes()
    });
    format!("{signed}.{}", mac.map(|mac| URL_SAFE_NO_PAD.encode(mac)).unwrap_or_default())
}

/// Files of the pages: path, content type, text.
const FILES: [(&str, &str, &str); 4] = [
    ("", "text/html", include_str!("host/host.html")),
    ("host.js", "text/javascript", include_str!("host/host.js")),
    ("host.css", "text/css", include_str!("host/host.css")),
    ("jquery.js", "text/javascript", include_str!("host/vendor/jquery-3.7.1.min.js")),
];

fn file(kind: &str, body: impl Into<bytes::Bytes>) -> Response {
    Response::new(200, kind, body)
        .with_header(CONTENT_SECURITY_POLICY, POLICY.to_owned())
        .with_header(X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned())
        .with_header(CACHE_CONTROL, "no-store".to_owned())
}

fn refused(status: u16, words: &str) -> Response {
    Response::value(status, &json!({"error": words}))
}

/// A file of the widget, below `/{subdomain}/widgets/{code}`.
pub(super) fn widget_file(account: &AmoAccount, code: &str, rest: &[&str]) -> Response {
    let widget = account.cell.state.lock().host.widget.clone().filter(|_| code == CODE);
    let name = rest.join("/");
    let found = widget.and_then(|widget| widget.files.get(&name).cloned());
    let kind = match name.rsplit('.').next().unwrap_or_default() {
        "js" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "css" => "text/css; charset=utf-8",
        "png" => "image/png",
        _ => "application/octet-stream",
    };
    found.map_or_else(|| refused(404, "no such file"), |content| file(kind, content))
}

/// Pages, and what they ask.
pub(super) fn route(account: &AmoAccount, request: &Request, rest: &[&str]) -> Response {
    let (method, path) = (request.method.as_str(), rest.join("/"));
    if method == "GET"
        && let Some((_, kind, text)) = FILES.iter().find(|(name, _, _)| *name == path)
    {
        return file(&format!("{kind}; charset=utf-8"), *text);
    }
    // Pages of other origins have no business here.
    let origin = request.header("origin");
    if !origin.is_empty() && origin != format!("http://127.0.0.1:{}", account.world.amo.port) {
        return refused(403, "asked by a foreign page");
    }
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    match (method, rest) {
        ("GET", ["state"]) => Response::value(200, &state(account)),
        ("POST", ["token"]) => {
            let client = account.cell.state.lock().host.widget.as_ref().map(|widget| widget.client_id.clone());
            match client.map(|client| account.visitor_token(&client, &json!({}))) {
                Some(Ok(token)) => Response::value(200, &json!({"token": token})),
                _ => refused(404, "no widget"),
            }
        }
        ("POST", ["settings"]) => install(account, &body),
        ("POST", ["blocks"]) => save_block(account, &body),
        ("POST", ["blocks", block, "run"]) => {
            let ran = block
                .parse()
                .map_err(anyhow::Error::from)
                .and_then(|block| account.run_block(block, body["lead"].as_i64().unwrap_or(0)));
            match ran {
                Ok(bot) => Response::value(200, &json!({"continue_id": bot})),
                Err(error) => refused(400, &format!("{error:#}")),
            }
        }
        ("POST", ["triggers"]) => match serde_json::from_value::<Trigger>(body) {
            Ok(trigger) => {
                account.add_trigger(trigger);
                Response::value(200, &json!({}))
            }
            Err(error) => refused(400, &error.to_string()),
        },
        ("POST", ["leads", lead, "status"]) => {
            let status = body["status"].as_i64().unwrap_or(0);
            match lead.parse().map_err(anyhow::Error::from).and_then(|lead| account.move_lead(lead, status)) {
                Ok(()) => Response::value(200, &json!({})),
                Err(error) => refused(400, &format!("{error:#}")),
            }
        }
        _ => refused(404, "no such page"),
    }
}

/// Everything the pages draw.
fn state(account: &AmoAccount) -> Value {
    let mut manifest = Value::Null;
    let mut texts = Map::new();
    let state = account.cell.state.lock();
    if let Some(widget) = &state.host.widget {
        let json = |name: &str| widget.files.get(name).and_then(|text| serde_json::from_slice(text).ok());
        manifest = json("manifest.json").unwrap_or_default();
        for language in manifest["widget"]["locale"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            texts.insert(language.to_owned(), json(&format!("i18n/{language}.json")).unwrap_or_default());
        }
    }
    let notes: Vec<Value> =
        state.notes.iter().map(|note| json!({"id": note.id, "lead": note.entity_id, "text": note.text})).collect();
    json!({
        "account": {"id": account.cell.id, "subdomain": state.subdomain},
        "code": CODE, "path": format!("/{}/widgets/{CODE}", state.subdomain),
        "manifest": manifest, "i18n": texts,
        "installed": state.host.widget.as_ref().is_some_and(|widget| widget.installed),
        "settings": state.host.widget.as_ref().map(|widget| widget.settings.clone()),
        "leads": state.leads.values().collect::<Vec<_>>(), "contacts": state.contacts.values().collect::<Vec<_>>(),
        "notes": notes, "blocks": state.host.blocks, "triggers": state.host.triggers, "bots": state.bots,
    })
}

/// The button of the integration's modal: required settings must be filled in, custom ones with JSON (§4.2).
fn install(account: &AmoAccount, body: &Value) -> Response {
    let mut state = account.cell.state.lock();
    let Some(widget) = state.host.widget.as_mut() else { return refused(404, "no widget") };
    let manifest: Value =
        widget.files.get("manifest.json").and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default();
    let fields = body["fields"].as_object().cloned().unwrap_or_default();
    for (key, setting) in manifest["settings"].as_object().into_iter().flatten() {
        let value = fields.get(key).and_then(Value::as_str).unwrap_or_default();
        if setting["required"] == true && value.is_empty() {
            return refused(400, &format!("{key} is required"));
        }
        if setting["type"] == "custom" && !value.is_empty() && serde_json::from_str::<Value>(value).is_err() {
            return refused(400, &format!("{key} is no JSON and is not stored"));
        }
    }
    widget.settings = fields;
    widget.installed = true;
    Response::value(200, &json!({}))
}

fn save_block(account: &AmoAccount, body: &Value) -> Response {
    let code = body["code"].as_str().unwrap_or_default();
    let exits: Vec<String> =
        body["exits"].as_array().into_iter().flatten().filter_map(|exit| exit.as_str().map(str::to_owned)).collect();
    if let Some(words) = flow::wrong(code, &exits) {
        return refused(400, &words);
    }
    let block = SavedBlock {
        handler: body["handler"].as_str().unwrap_or_default().to_owned(),
        code: serde_json::from_str(code).unwrap_or_default(),
    };
    let mut state = account.cell.state.lock();
    state.host.blocks.push(block);
    Response::value(200, &json!({"block": state.host.blocks.len() - 1}))
}
