//! The API as its callers see it: over an application with a real store, and a scheduler that does not run, so that
//! nothing leaves.
//!
//! Every answer goes through [`Api::send`], which holds it to what all of them promise: no secret in any body, never a
//! 5xx but 503, and a problem document for every refusal.

mod channels;
mod dead_letters;
mod document;
mod messages;
mod portals;
mod refusals;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use actix_web::http::header::{CONTENT_TYPE, HeaderMap};
use actix_web::http::{Method, StatusCode};
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::{App, web};
use serde_json::{Value, json};

use crate::crm::amocrm::AmoKeys;
use crate::domain::ids::{ChannelId, IdSource};
use crate::domain::job::{JobState, QueueKey};
use crate::domain::language::Language;
use crate::domain::portal::{CrmKind, Portal};
use crate::domain::time::{Clock, Millis, Timestamp};
use crate::http::State;
use crate::http::peers::Peers;
use crate::outbound::Outbound;
use crate::pipeline::{Parts, Pipeline, PipelineSettings, mailbox};
use crate::providers::{ResolvedSettings, whatsapp_cloud};
use crate::storage::db::Db;
use crate::storage::portals::Installation;
use crate::storage::sealed::Sealer;
use crate::storage::settle::Right;
use crate::storage::{Storage, StorageOptions};

const TOKEN: &str = "admin-token-of-the-test";
/// Values that may stand in no body.
const SECRETS: [&str; 4] = [TOKEN, "access-s3cret", "app-s3cret", "verify-s3cret"];
const MASTER_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const START: i64 = 1_763_766_000_000;

struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[derive(Default)]
struct Counted(AtomicU64);

impl IdSource for Counted {
    fn ulid(&self) -> String {
        format!("{:026}", self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

struct Api {
    state: web::Data<State>,
    clock: Arc<TestClock>,
    /// Kept open, so that the scheduler seems to be there.
    _mailbox: mailbox::Mailbox,
    _folder: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    json: Value,
}

impl Answer {
    fn text(&self, pointer: &str) -> &str {
        self.json.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer} in {}", self.json))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Api {
    async fn start() -> Self {
        Self::with_token(Some(TOKEN)).await
    }

    async fn with_token(token: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&format!("sqlite://{}", folder.path().join("test.db").display())).await.unwrap();
        db.migrate().await.unwrap();
        let clock = Arc::new(TestClock(AtomicI64::new(START)));
        let ids: Arc<dyn IdSource> = Arc::new(Counted::default());
        let (scheduler, mailbox) = mailbox::mailbox();
        let storage = Arc::new(Storage::new(
            db,
            Sealer::new(MASTER_KEY, &[]).unwrap(),
            Arc::clone(&ids),
            Arc::clone(&clock) as Arc<dyn Clock>,
            Arc::new(scheduler.clone()),
            StorageOptions { reply_not_before: Millis(0) },
        ));
        let outbound = Arc::new(Outbound::new(Vec::new()).unwrap());
        let settings = ResolvedSettings { base_url: "http://127.0.0.1:1".to_owned(), api_version: String::new() };
        let provider = (whatsapp_cloud::ENTRY.build)(Arc::clone(&outbound), settings);
        let bitrix24 = crate::crm::bitrix24::Settings {
            apps: std::collections::BTreeMap::new(),
            oauth_hosts: vec!["https://oauth.example".to_owned()],
            insecure_http: false,
            public_url: "https://mostik.example".to_owned(),
            requests_per_second: 2.0,
            burst: 50.0,
            mask_phones: false,
            time_zone: "UTC".to_owned(),
        };
        let store = Arc::clone(&storage) as Arc<dyn crate::crm::TokenStore>;
        let as_clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let bitrix24 = crate::crm::bitrix24::Bitrix24::new(
            Arc::clone(&outbound),
            Arc::clone(&store),
            Arc::clone(&as_clock),
            bitrix24,
        );
        let keys = AmoKeys { client_id: "amo-client".to_owned(), secrets: vec!["amo-s3cret".into()], chats: None };
        let amocrm = crate::crm::amocrm::Settings {
            apps: std::collections::BTreeMap::from([("main".to_owned(), keys)]),
            account_url: "https://{subdomain}.amocrm.ru".to_owned(),
            account_hosts: vec!["amocrm.ru".to_owned()],
            chats_url: "https://amojo.{domain}".to_owned(),
            public_url: "https://mostik.example".to_owned(),
            requests_per_second: 5,
            mask_phones: false,
            time_zone: "UTC".to_owned(),
        };
        let amocrm = crate::crm::amocrm::Amocrm::new(outbound, store, as_clock, amocrm);
        let pipeline = Pipeline::new(Parts {
            storage: Arc::clone(&storage),
            crms: HashMap::new(),
            providers: HashMap::from([(whatsapp_cloud::SPEC.id, provider)]),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            ids: Arc::clone(&ids),
            settings: PipelineSettings::for_tests(Millis::seconds(30)),
            scheduler,
        });
        let state = State {
            pipeline,
            storage,
            bitrix24: Arc::new(bitrix24.unwrap()),
            amocrm: Arc::new(amocrm.unwrap()),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            ids,
            public_url: "https://mostik.example".to_owned(),
            admin_token: token.map(Into::into),
            peers: Peers::default(),
        };
        Self { state: web::Data::new(state), clock, _mailbox: mailbox, _folder: folder }
    }

    /// Makes our worker own the channel's queue; gives the right to say what became of a send that has not begun.
    async fn right(&self, channel: &str) -> Right {
        let worker = &self.state.pipeline.worker;
        let queue = QueueKey::parse(&format!("out:{channel}")).unwrap();
        assert!(!self.state.storage.queues_take(worker, std::slice::from_ref(&queue)).await.unwrap().is_empty());
        Right::Owner(worker.clone(), JobState::Ready)
    }

    /// Sends as it is, without a token.
    async fn send(&self, request: TestRequest) -> Answer {
        let app = init_service(App::new().app_data(self.state.clone()).configure(super::routes)).await;
        let response = call_service(&app, request.to_request()).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = read_body(response).await;
        let text = std::str::from_utf8(&body).unwrap();
        for secret in SECRETS {
            assert!(!text.contains(secret), "a secret in {text}");
        }
        let json: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"));
        assert!(!status.is_server_error() || status == StatusCode::SERVICE_UNAVAILABLE, "{status}: {text}");
        if status.is_success() {
            assert_eq!(headers.get(CONTENT_TYPE).unwrap(), "application/json");
        } else {
            assert_eq!(headers.get(CONTENT_TYPE).unwrap(), "application/problem+json");
            assert_eq!(json["status"], status.as_u16());
            assert!(json["type"].as_str().unwrap().starts_with("urn:mostik:problem:"), "{text}");
            assert!(json["title"].is_string());
        }
        Answer { status, headers, json }
    }

    fn request(method: &str, path: &str) -> TestRequest {
        let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes()).unwrap();
        let peer = "203.0.113.7:5000".parse().unwrap();
        TestRequest::default().method(method).uri(&format!("/api/v1{path}")).peer_addr(peer)
    }

    fn authorized(method: &str, path: &str) -> TestRequest {
        Self::request(method, path).insert_header(("Authorization", format!("Bearer {TOKEN}")))
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Self::authorized("get", path)).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Self::authorized("post", path).set_json(body)).await
    }

    async fn call(&self, method: &str, path: &str) -> Answer {
        self.send(Self::authorized(method, path)).await
    }

    /// Ids of a list, page by page.
    async fn all(&self, path: &str, limit: usize) -> Vec<String> {
        let mut ids = Vec::new();
        let mut cursor = String::new();
        loop {
            let sign = if path.contains('?') { '&' } else { '?' };
            let page = self.get(&format!("{path}{sign}limit={limit}&cursor={cursor}")).await;
            assert_eq!(page.status, StatusCode::OK, "{}", page.json);
            let items = page.json["items"].as_array().unwrap();
            assert!(items.len() <= limit);
            ids.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
            match page.json["next"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => return ids,
            }
        }
    }

    async fn add_line(&self, name: &str) -> String {
        let answer = self.post("/lines", &json!({"name": name})).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.json);
        answer.text("/id").to_owned()
    }

    async fn add_channel(&self) -> String {
        let line = self.add_line("Sales").await;
        let answer = self.post(&format!("/lines/{line}/channels"), &new_channel()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.json);
        answer.text("/id").to_owned()
    }

    async fn add_portal(&self, member: &str) -> Portal {
        let installation = Installation {
            crm: CrmKind::Bitrix24,
            app: "main".to_owned(),
            member_id: member.to_owned(),
            domain: format!("{member}.bitrix24.example"),
            client_endpoint: format!("https://{member}.bitrix24.example/rest/"),
            server_endpoint: "https://oauth.example/rest/".to_owned(),
            application_token: Some("app-s3cret".to_owned()),
            language: Language::Ru,
        };
        self.state.storage.install_portal(&installation, None, Timestamp(i64::MAX)).await.unwrap()
    }

    async fn send_text(&self, channel: &str, to: &str) -> String {
        let answer = self.post("/messages", &json!({"channel": channel, "to": to, "text": "Good day"})).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json);
        answer.text("/id").to_owned()
    }
}

fn channel_id(text: &str) -> ChannelId {
    ChannelId::parse(text).unwrap()
}

fn new_channel() -> Value {
    json!({
        "provider": "whatsapp_cloud",
        "name": "+7 495 000-00-00",
        "credentials": {
            "phone_number_id": "100000000000001",
            "waba_id": "100000000000002",
            "access_token": "access-s3cret",
            "app_secret": "app-s3cret",
            "verify_token": "verify-s3cret",
        },
        "settings": {},
    })
}
