//! What the tests of this room share: a portal, a store, a clock, and a server that answers what it is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{AppKeys, Bitrix24, Settings};
use crate::crm::{StoreDown, TokenPair, TokenStore};
use crate::domain::ids::PortalId;
use crate::domain::language::Language;
use crate::domain::portal::{CrmKind, Portal, PortalState};
use crate::domain::time::{Clock, Millis, Timestamp};
use crate::forms::{FormLimits, at, decode, text_at};
use crate::outbound::Outbound;

pub(super) const MEMBER: &str = "d41f0c6a2b7e4c8f9a1b3c5d7e9f0a12";
pub(super) const CLIENT_ID: &str = "local.66d1a0b2c3d4e5.12345678";
/// 2026-11-21 11:03 UTC.
pub(super) const NOW: Timestamp = Timestamp(1_795_258_980_000);

/// A portal whose REST stands at `endpoint`.
pub(super) fn portal(endpoint: &str) -> Portal {
    Portal {
        id: PortalId::new("1"),
        crm: CrmKind::Bitrix24,
        app: "main".to_owned(),
        member_id: MEMBER.to_owned(),
        domain: "acme-demo.bitrix24.com".to_owned(),
        client_endpoint: endpoint.to_owned(),
        server_endpoint: endpoint.to_owned(),
        language: Language::En,
        state: PortalState::Installed,
        state_reason: String::new(),
    }
}

/// A pair that says in its texts which generation it is: `access-<user>-<generation>`.
pub(super) fn pair(user: &str, generation: u32, lives: Millis) -> TokenPair {
    TokenPair {
        user_id: user.to_owned(),
        is_admin: true,
        access: format!("access-{user}-{generation}"),
        refresh: format!("refresh-{user}-{generation}"),
        expires: NOW.plus(lives),
    }
}

pub(super) struct TestClock(AtomicI64);

impl TestClock {
    pub(super) fn advance(&self, by: Millis) {
        self.0.fetch_add(by.0, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

/// Keeps everything in memory and notes every change in the world's journal.
pub(super) struct MemoryStore {
    pub(super) tokens: Mutex<Vec<TokenPair>>,
    pub(super) registrations: Mutex<BTreeMap<String, String>>,
    pub(super) endpoint: Mutex<Option<(String, String)>>,
    /// So many of the next saves fail.
    pub(super) failing_saves: Mutex<u32>,
    journal: Journal,
}

type Journal = Arc<Mutex<Vec<String>>>;

#[async_trait]
impl TokenStore for MemoryStore {
    async fn load_tokens(&self, _: &PortalId) -> Result<Vec<TokenPair>, StoreDown> {
        Ok(self.tokens.lock().unwrap().clone())
    }

    async fn save_tokens(&self, _: &PortalId, pair: &TokenPair) -> Result<(), StoreDown> {
        {
            let mut failing = self.failing_saves.lock().unwrap();
            if *failing > 0 {
                *failing -= 1;
                return Err(StoreDown("disk full".to_owned()));
            }
        }
        // A slow store shows whether anybody uses the pair too early.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let mut tokens = self.tokens.lock().unwrap();
        tokens.retain(|kept| kept.user_id != pair.user_id);
        tokens.insert(0, pair.clone());
        self.journal.lock().unwrap().push(format!("saved {}", pair.access));
        Ok(())
    }

    async fn drop_tokens(&self, _: &PortalId, pair: &TokenPair) -> Result<(), StoreDown> {
        self.tokens.lock().unwrap().retain(|kept| kept.refresh != pair.refresh);
        self.journal.lock().unwrap().push(format!("dropped {}", pair.access));
        Ok(())
    }

    async fn save_endpoint(&self, _: &PortalId, domain: &str, endpoint: &str) -> Result<(), StoreDown> {
        *self.endpoint.lock().unwrap() = Some((domain.to_owned(), endpoint.to_owned()));
        Ok(())
    }

    async fn load_registrations(&self, _: &PortalId) -> Result<Vec<(String, String)>, StoreDown> {
        Ok(self.registrations.lock().unwrap().clone().into_iter().collect())
    }

    async fn save_registration(&self, _: &PortalId, key: &str, fingerprint: Option<&str>) -> Result<(), StoreDown> {
        let mut registrations = self.registrations.lock().unwrap();
        match fingerprint {
            Some(fingerprint) => registrations.insert(key.to_owned(), fingerprint.to_owned()),
            None => registrations.remove(key),
        };
        Ok(())
    }
}

/// A request as the server got it.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) path: String,
    /// The document, or the form as an object.
    pub(super) body: Value,
}

impl Received {
    /// The token it was made with.
    pub(super) fn token(&self) -> String {
        text_at(&self.body, &["auth"])
    }

    /// Methods of a batch, in order.
    pub(super) fn methods(&self) -> Vec<String> {
        self.calls().into_iter().map(|(_, method, _)| method).collect()
    }

    /// Parameters of one entry of a batch.
    pub(super) fn params(&self, entry: usize) -> Value {
        self.calls().into_iter().nth(entry).unwrap().2
    }

    fn calls(&self) -> Vec<(String, String, Value)> {
        let commands = self.body["cmd"].as_object().cloned().unwrap_or_default();
        let read = |(key, command): (String, Value)| {
            let command = command.as_str().unwrap().to_owned();
            let (method, query) = command.split_once('?').unwrap_or((&command, ""));
            (key, method.to_owned(), decode(query.as_bytes(), FormLimits::default()).unwrap())
        };
        commands.into_iter().map(read).collect()
    }
}

/// What the server does with a request.
pub(super) enum Answered {
    /// Answers with a document.
    Json(u16, Value),
    /// Answers with a page.
    Page(u16, &'static str),
    /// Sends elsewhere.
    Redirect(String),
    /// Reads the request and hangs up.
    Cut,
}

/// Answers a batch as the portal does: references filled in, each entry for itself, `[]` for empty maps.
pub(super) fn answer_batch(
    request: &Received,
    mut call: impl FnMut(&str, &Value) -> Result<Value, (&'static str, &'static str)>,
) -> Answered {
    let (mut results, mut errors, mut times) = (Map::new(), Map::new(), Map::new());
    for (key, method, params) in request.calls() {
        let params = fill_references(&params, &results);
        times.insert(key.clone(), json!({"operating": 0.1, "operating_reset_at": 1_795_259_580}));
        match call(&method, &params) {
            Ok(value) => results.insert(key, value),
            Err((code, text)) => errors.insert(key, json!({"error": code, "error_description": text})),
        };
    }
    let map = |map: Map<String, Value>| if map.is_empty() { json!([]) } else { Value::Object(map) };
    let result = json!({
        "result": map(results), "result_error": map(errors), "result_total": [], "result_next": [],
        "result_time": map(times),
    });
    Answered::Json(200, json!({"result": result, "time": {"start": 1, "finish": 2}}))
}

/// A value that is one reference becomes what it points to; a path stops at the last member there is.
fn fill_references(value: &Value, results: &Map<String, Value>) -> Value {
    match value {
        Value::String(text) => match text.strip_prefix("$result[").and_then(|rest| rest.strip_suffix(']')) {
            Some(path) => {
                let mut keys = path.split("][");
                let mut found = results.get(keys.next().unwrap()).cloned().unwrap_or(Value::Null);
                for key in keys {
                    match at(&found, &[key]) {
                        Some(next) => found = next.clone(),
                        None => break,
                    }
                }
                found
            }
            None => value.clone(),
        },
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), fill_references(value, results))).collect(),
        Value::Array(list) => list.iter().map(|value| fill_references(value, results)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// The authorization server's answer with the generation after the one asked with.
pub(super) fn fresh_tokens(request: &Received, client_endpoint: &str) -> Answered {
    let refresh = text_at(&request.body, &["refresh_token"]);
    let (user, generation) = refresh.strip_prefix("refresh-").unwrap().rsplit_once('-').unwrap();
    let next = generation.parse::<u32>().unwrap() + 1;
    Answered::Json(
        200,
        json!({
            "access_token": format!("access-{user}-{next}"), "refresh_token": format!("refresh-{user}-{next}"),
            "expires": "1795262580", "expires_in": "3600", "scope": "crm,bizproc", "domain": "oauth.bitrix.info",
            "server_endpoint": "https://oauth.bitrix.info/rest/", "client_endpoint": client_endpoint,
            "member_id": MEMBER, "user_id": 1, "status": "L",
        }),
    )
}

/// The authorization server's word on a token.
pub(super) fn token_info(client_id: &str, member_id: &str, client_endpoint: &str) -> Answered {
    Answered::Json(
        200,
        json!({"result": {
            "client_id": client_id, "scope": "crm,bizproc,imopenlines,im,placement,disk", "user_id": 7,
            "install": {"installed": true, "status": "L", "scope": "crm,bizproc,imopenlines,im,placement,disk", "domain": "Acme-Demo.bitrix24.com",
                "client_endpoint": client_endpoint, "member_id": member_id},
        }, "time": {}}),
    )
}

pub(super) type Handler = dyn Fn(&Received, &MemoryStore) -> Answered + Send + Sync;

/// A server on a port of its own.
pub(super) struct Stub {
    pub(super) base: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Stub {
    pub(super) async fn start(store: &Arc<MemoryStore>, handler: Arc<Handler>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (noted, store) = (Arc::clone(&received), Arc::clone(store));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&handler), Arc::clone(&noted), Arc::clone(&store)));
            }
        });
        Self { base, received }
    }

    /// The base of its REST.
    pub(super) fn rest(&self) -> String {
        format!("{}/rest/", self.base)
    }

    /// What it got, by the end of the path.
    pub(super) fn received(&self, path: &str) -> Vec<Received> {
        self.received.lock().unwrap().iter().filter(|request| request.path.ends_with(path)).cloned().collect()
    }
}

async fn serve(
    mut socket: TcpStream,
    handler: Arc<Handler>,
    noted: Arc<Mutex<Vec<Received>>>,
    store: Arc<MemoryStore>,
) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let head_end = loop {
            if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if socket.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8_lossy(buffer.get(..head_end)?).to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1)?.lines().next()?.trim().parse::<usize>().ok()?;
        while buffer.len() < head_end + length {
            if socket.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        }
        let path = head.split_whitespace().nth(1)?.to_owned();
        let body: Vec<u8> = buffer.drain(..head_end + length).skip(head_end).collect();
        let is_json = head.contains("application/json");
        let body =
            if is_json { serde_json::from_slice(&body).ok()? } else { decode(&body, FormLimits::default()).ok()? };
        let request = Received { path, body };
        store.journal.lock().unwrap().push(format!("{} {}", request.path, request.token()));
        noted.lock().unwrap().push(request.clone());
        let (status, header, text) = match handler(&request, &store) {
            Answered::Json(status, document) => (status, String::new(), document.to_string()),
            Answered::Page(status, page) => (status, String::new(), page.to_owned()),
            Answered::Redirect(location) => (302, format!("Location: {location}\r\n"), String::new()),
            Answered::Cut => return None,
        };
        let head = format!("HTTP/1.1 {status} X\r\n{header}Content-Length: {}\r\n\r\n", text.len());
        socket.write_all(head.as_bytes()).await.ok()?;
        socket.write_all(text.as_bytes()).await.ok()?;
    }
}

/// A portal, its authorization server (both at one stub) and the adapter.
pub(super) struct World {
    pub(super) stub: Stub,
    pub(super) store: Arc<MemoryStore>,
    pub(super) clock: Arc<TestClock>,
    pub(super) crm: Arc<Bitrix24>,
    pub(super) portal: Portal,
}

impl World {
    /// A world with one living administrator's token of user 1.
    pub(super) async fn start(handler: impl Fn(&Received, &MemoryStore) -> Answered + Send + Sync + 'static) -> Self {
        Self::with(vec![pair("1", 1, Millis::minutes(30))], &[], handler).await
    }

    /// A world with these tokens and further authorization servers.
    pub(super) async fn with(
        tokens: Vec<TokenPair>,
        more_oauth_hosts: &[String],
        handler: impl Fn(&Received, &MemoryStore) -> Answered + Send + Sync + 'static,
    ) -> Self {
        let store = memory_store(tokens);
        let stub = Stub::start(&store, Arc::new(handler)).await;
        let clock = Arc::new(TestClock(AtomicI64::new(NOW.0)));
        let mut oauth_hosts = vec![stub.base.clone()];
        oauth_hosts.extend_from_slice(more_oauth_hosts);
        let crm = adapter(&store, &clock, settings(oauth_hosts));
        let portal = portal(&stub.rest());
        Self { stub, store, clock, crm: Arc::new(crm), portal }
    }

    pub(super) fn journal(&self) -> Vec<String> {
        self.store.journal.lock().unwrap().clone()
    }
}

pub(super) fn memory_store(tokens: Vec<TokenPair>) -> Arc<MemoryStore> {
    Arc::new(MemoryStore {
        tokens: Mutex::new(tokens),
        registrations: Mutex::default(),
        endpoint: Mutex::default(),
        failing_saves: Mutex::default(),
        journal: Journal::default(),
    })
}

pub(super) fn settings(oauth_hosts: Vec<String>) -> Settings {
    let keys = AppKeys { client_id: CLIENT_ID.to_owned(), client_secret: SecretString::from("falsesecret") };
    Settings {
        apps: BTreeMap::from([("main".to_owned(), keys)]),
        oauth_hosts,
        insecure_http: true,
        public_url: "https://c.example".to_owned(),
        requests_per_second: 2.0,
        burst: 50.0,
        mask_phones: false,
        time_zone: "Europe/Moscow".to_owned(),
    }
}

pub(super) fn adapter(store: &Arc<MemoryStore>, clock: &Arc<TestClock>, settings: Settings) -> Bitrix24 {
    let outbound = Arc::new(Outbound::new(vec!["127.0.0.0/8".parse().unwrap()]).unwrap());
    let (store, clock): (Arc<dyn TokenStore>, Arc<dyn Clock>) = (Arc::clone(store) as _, Arc::clone(clock) as _);
    Bitrix24::new(outbound, store, clock, settings).unwrap()
}
