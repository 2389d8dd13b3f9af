//! What the tests stand on: a receiver that plays the service, and small clients.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use sandbox::{AppSpec, Portal, PortalLimits, PortalSpec, Sandbox, TokenPair};
use serde_json::{Value, json};

/// How long a test waits for something that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// One request as the service would see it.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Got {
    /// Decoded form fields in order.
    pub(crate) fn fields(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(self.body.as_bytes()).into_owned().collect()
    }

    pub(crate) fn field(&self, name: &str) -> Option<String> {
        self.fields().into_iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Plays the service: records everything, answers what it is told.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) base: String,
    got: Arc<Mutex<Vec<Got>>>,
    status: Arc<AtomicU16>,
    delay_ms: Arc<AtomicU16>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let receiver = Self {
            base,
            got: Arc::default(),
            status: Arc::new(AtomicU16::new(200)),
            delay_ms: Arc::new(AtomicU16::new(0)),
        };
        let serving = receiver.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let receiver = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let receiver = receiver.clone();
                        async move { Ok::<_, Infallible>(receiver.answer(request).await) }
                    });
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        receiver
    }

    async fn answer(&self, request: hyper::Request<hyper::body::Incoming>) -> hyper::Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let query = head.uri.query().unwrap_or("").to_owned();
        let got = Got {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            headers: head
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                .collect(),
            body: String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap(),
            query: query.clone(),
        };
        let challenge = form_urlencoded::parse(query.as_bytes())
            .find(|(name, _)| name == "hub.challenge")
            .map(|(_, value)| value.into_owned());
        self.got.lock().unwrap().push(got);
        let delay = self.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay.into())).await;
        }
        let mut response = hyper::Response::new(Full::from(challenge.unwrap_or_default()));
        *response.status_mut() = self.status.load(Ordering::Relaxed).try_into().unwrap();
        response
    }

    pub(crate) fn answer_with(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    pub(crate) fn answer_after(&self, delay_ms: u16) {
        self.delay_ms.store(delay_ms, Ordering::Relaxed);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(crate) fn all(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    pub(crate) fn on(&self, path: &str) -> Vec<Got> {
        self.all().into_iter().filter(|got| got.path == path).collect()
    }

    /// Forms whose `event` field is this.
    pub(crate) fn events(&self, event: &str) -> Vec<Got> {
        self.all().into_iter().filter(|got| got.field("event").as_deref() == Some(event)).collect()
    }

    pub(crate) fn clear(&self) {
        self.got.lock().unwrap().clear();
    }
}

#[expect(clippy::disallowed_methods, reason = "tests are clients of the sandbox")]
pub(crate) fn client() -> reqwest::Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap()
}

/// A sandbox with one portal and one application whose pages and handlers are `receiver`'s.
pub(crate) struct Stage {
    pub(crate) sandbox: Sandbox,
    pub(crate) portal: Portal,
    pub(crate) app: AppSpec,
    pub(crate) service: Receiver,
    pub(crate) http: reqwest::Client,
}

impl Stage {
    /// Everything is there, nothing is installed.
    pub(crate) async fn bare() -> Self {
        let sandbox = Sandbox::start().await.unwrap();
        let service = Receiver::start().await;
        let app = sandbox.add_app(AppSpec {
            application_url: service.url("/app"),
            installer_url: Some(service.url("/install")),
            event_handler_url: Some(service.url("/events")),
            ..AppSpec::default()
        });
        let limits = PortalLimits::off();
        let portal = sandbox.add_portal(PortalSpec { limits, ..PortalSpec::default() }).await.unwrap();
        Self { sandbox, portal, app, service, http: client() }
    }

    /// Installed and quiet.
    pub(crate) async fn installed() -> Self {
        let stage = Self::bare().await;
        stage.portal.install(&stage.app.client_id).await.unwrap();
        stage.sandbox.settled(SOON).await.unwrap();
        stage.service.clear();
        stage
    }

    pub(crate) fn tokens(&self) -> TokenPair {
        self.portal.issue_tokens(&self.app.client_id, 1).unwrap()
    }

    /// A REST call with an administrator's token: status and body.
    pub(crate) async fn rest(&self, method: &str, params: Value) -> (u16, Value) {
        self.rest_as(&self.tokens().access_token, method, params).await
    }

    pub(crate) async fn rest_as(&self, token: &str, method: &str, params: Value) -> (u16, Value) {
        let url = format!("{}{method}", self.portal.client_endpoint());
        let answer = self.http.post(url).bearer_auth(token).json(&params).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap())
    }

    /// A call that must succeed: its `result`.
    pub(crate) async fn ok(&self, method: &str, params: Value) -> Value {
        let (status, body) = self.rest(method, params).await;
        assert_eq!(status, 200, "{method}: {body}");
        assert!(body.get("error").is_none(), "{method}: {body}");
        body["result"].clone()
    }

    /// A call that must fail: status and code.
    pub(crate) async fn refused(&self, method: &str, params: Value) -> (u16, String) {
        let (status, body) = self.rest(method, params).await;
        let code = body["error"].as_str().unwrap_or_else(|| panic!("{method} did not fail: {body}")).to_owned();
        (status, code)
    }

    /// Registers a waiting robot with two results and puts it on PREPARATION.
    pub(crate) async fn with_robot(&self, more: Value) {
        let mut robot = json!({
            "CODE": "send_message", "HANDLER": self.service.url("/robots/send_message"), "AUTH_USER_ID": 1,
            "USE_SUBSCRIPTION": "Y", "NAME": {"en": "Send", "ru": "Отправить"},
            "PROPERTIES": {
                "phones": {"Name": "Phones", "Type": "string", "Multiple": "Y"},
                "text": {"Name": "Text", "Type": "text", "Required": "Y"},
            },
            "RETURN_PROPERTIES": {"status": {"Name": "Status", "Type": "string"}, "detail": {"Name": "Detail"}},
        });
        for (key, value) in more.as_object().unwrap() {
            robot[key] = value.clone();
        }
        self.ok("bizproc.robot.add", robot).await;
        self.portal.add_automation(sandbox::Automation {
            stage_id: "PREPARATION".into(),
            robot: "send_message".into(),
            properties: [
                ("phones".to_owned(), json!("{=Document:PHONE}")),
                ("text".to_owned(), json!("Заказ {=Document:TITLE} готов\nждём")),
            ]
            .into(),
            timeout_s: 86_400,
            ..sandbox::Automation::default()
        });
    }

    /// Moves a new deal onto the robot's stage and waits for the callback.
    pub(crate) async fn fire(&self) -> (i64, Got) {
        let contact = self.portal.add_contact("Анна", "Тест", "+7 916 123-45-67").unwrap();
        let deal = self.portal.add_deal("№ 1042", contact).unwrap();
        self.portal.move_item(sandbox::entity::DEAL, deal, "PREPARATION").unwrap();
        self.sandbox.settled(SOON).await.unwrap();
        let callback = self.service.on("/robots/send_message").pop().expect("no callback came");
        (deal, callback)
    }
}

/// A sandbox with one business number whose webhooks go to `service`.
pub(crate) struct Line {
    pub(crate) sandbox: Sandbox,
    pub(crate) number: sandbox::Number,
    pub(crate) service: Receiver,
    pub(crate) http: reqwest::Client,
}

/// The customer of most tests.
pub(crate) const ANNA: &str = "79161234567";

impl Line {
    /// Number and webhooks ready, no window open, quick statuses, no pair limit.
    pub(crate) async fn start() -> Self {
        let sandbox = Sandbox::start().await.unwrap();
        let service = Receiver::start().await;
        let number = sandbox
            .add_number(sandbox::NumberSpec {
                phone_number_id: "330011223344556".into(),
                waba_id: "214466880011223".into(),
                display_phone_number: "79990001122".into(),
                throughput: 0,
                ..Default::default()
            })
            .unwrap();
        number.subscribe(&service.url("/hook")).await.unwrap();
        service.clear();
        sandbox.set_graph(|graph| {
            (graph.sent_ms, graph.delivered_ms, graph.read_ms) = (1, 1, 1);
            graph.pair_limit = None;
        });
        Self { sandbox, number, service, http: client() }
    }

    /// The same with Anna's window open.
    pub(crate) async fn open() -> Self {
        let line = Self::start().await;
        line.sandbox.phone(ANNA).open_window(&line.number);
        line
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/v24.0/{path}", self.sandbox.addresses().graph)
    }

    pub(crate) fn token(&self) -> String {
        self.number.view().spec.access_token
    }

    pub(crate) async fn post(&self, body: &Value) -> (u16, Value) {
        let url = self.url(&format!("{}/messages", self.number.id()));
        let answer = self.http.post(url).bearer_auth(self.token()).json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Sends the given parts to Anna: status and body.
    pub(crate) async fn send(&self, parts: Value) -> (u16, Value) {
        let mut body = json!({"messaging_product": "whatsapp", "to": ANNA});
        for (key, value) in parts.as_object().unwrap() {
            body[key] = value.clone();
        }
        self.post(&body).await
    }

    /// A send that must be accepted: the message id.
    pub(crate) async fn accepted(&self, parts: Value) -> String {
        let (status, body) = self.send(parts).await;
        assert_eq!(status, 200, "{body}");
        body["messages"][0]["id"].as_str().unwrap().to_owned()
    }

    /// A send that must be refused: HTTP status and code.
    pub(crate) async fn refused(&self, parts: Value) -> (u16, i64) {
        let (status, body) = self.send(parts.clone()).await;
        (status, body["error"]["code"].as_i64().unwrap_or_else(|| panic!("accepted: {parts}")))
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.http.get(self.url(path)).bearer_auth(self.token()).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// All statuses that came by webhook, in the order of arrival: posts run in parallel, so that is any order.
    pub(crate) fn arrivals(&self) -> Vec<Value> {
        self.values().iter().flat_map(|value| value["statuses"].as_array().cloned().unwrap_or_default()).collect()
    }

    /// The same in the order of a message's life.
    pub(crate) fn statuses(&self) -> Vec<Value> {
        let mut statuses = self.arrivals();
        statuses.sort_by_key(|status| ["sent", "delivered", "read"].iter().position(|own| status["status"] == *own));
        statuses
    }

    /// `value` of every webhook.
    pub(crate) fn values(&self) -> Vec<Value> {
        self.service.on("/hook").iter().map(|got| got.json()["entry"][0]["changes"][0]["value"].clone()).collect()
    }

    pub(crate) async fn settled(&self) {
        self.sandbox.settled(SOON).await.unwrap();
    }
}
