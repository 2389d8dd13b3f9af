//! A world to test in: simulated Bitrix24 and WhatsApp, and the service as a child process on its own database.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sandbox::{
    AppSpec, Automation, Message, Number, NumberSpec, Options, Portal, PortalSpec, RobotRun, Sandbox, StageSpec,
    Switches, TimelineEntry,
};
use serde_json::{Value, json};

pub(crate) const DEAL: i64 = 2;
pub(crate) const LEAD: i64 = 1;
const ADMIN_TOKEN: &str = "admin-token-of-the-tests";
pub(crate) const MASTER_KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
/// Longest wait for anything that should happen.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// How a world differs from the usual one.
pub(crate) struct Wish {
    /// On PostgreSQL instead of SQLite.
    pub(crate) postgres: bool,
    /// On this database, whichever it is.
    pub(crate) database: Option<String>,
    /// More configuration, by section.
    pub(crate) config: String,
    /// More lines of the section `[bitrix24]`.
    pub(crate) bitrix24: &'static str,
    /// Settings of the channel.
    pub(crate) channel: Value,
    /// The simulated vendors' options.
    pub(crate) sandbox: Options,
    /// The portal counts neither requests nor their time.
    pub(crate) no_bucket: bool,
    /// Filter of the service's log.
    pub(crate) log: &'static str,
    /// Spans of the trace are part of it.
    pub(crate) spans: bool,
    /// The application has all its rights, also those that chats and tabs on cards need.
    pub(crate) open_lines: bool,
    /// More rights of the application.
    pub(crate) scopes: &'static [&'static str],
    /// Language of the portal.
    pub(crate) language: &'static str,
    /// Port of the service; any free one if absent.
    pub(crate) port: Option<u16>,
    /// Port at which portals and providers find the service; its own if absent.
    pub(crate) front: Option<u16>,
    /// Port at which the service finds the provider; the simulated one if absent.
    pub(crate) graph: Option<u16>,
    /// Port at which the service finds the database server; its own if absent.
    pub(crate) database_port: Option<u16>,
    /// Address of another PostgreSQL server than the one of all tests.
    pub(crate) server: Option<String>,
    /// How long the service waits for an answer of PostgreSQL.
    pub(crate) answer_within: &'static str,
}

impl Default for Wish {
    fn default() -> Self {
        let mut sandbox = Options::default();
        sandbox.graph.retry_scale = 0.001;
        sandbox.graph.sent_ms = 20;
        sandbox.graph.delivered_ms = 40;
        sandbox.graph.read_ms = 40;
        sandbox.graph.jitter_ms = 10;
        sandbox.graph.http_links = true;
        sandbox.telegram.retry_scale = 0.01;
        Self {
            postgres: false,
            database: None,
            config: String::new(),
            bitrix24: "",
            channel: json!({}),
            sandbox,
            no_bucket: false,
            log: "info,mostik=debug",
            spans: false,
            open_lines: false,
            scopes: &[],
            language: "ru",
            port: None,
            front: None,
            graph: None,
            database_port: None,
            server: None,
            answer_within: "5s",
        }
    }
}

/// A running process of the service.
pub(crate) struct Service {
    child: Child,
    config: PathBuf,
    log: PathBuf,
    base: String,
}

impl Service {
    fn spawn(config: &std::path::Path, log: &std::path::Path) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        // A file that may not grow any more is an error to the service, not its end.
        Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_mostik"), "serve", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    pub(crate) fn port(&self) -> u16 {
        self.base.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal: `STOP`, `CONT`, `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let (name, pid) = (format!("-{name}"), self.child.id().to_string());
        assert!(Command::new("kill").args([&name, &pid]).status().unwrap().success());
    }

    /// Ends it without a word, as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// No file may grow beyond so many bytes, as on a full disk; `None` takes the limit away.
    pub(crate) fn limit_files(&self, bytes: Option<u64>) {
        let limit = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
        let args = ["--pid".to_owned(), self.child.id().to_string(), format!("--fsize={limit}:unlimited")];
        assert!(Command::new("prlimit").args(args).status().unwrap().success());
    }

    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Starts it again as it was.
    pub(crate) fn start(&mut self) {
        self.child = Self::spawn(&self.config, &self.log);
    }

    pub(crate) async fn until_ready(&mut self, http: &reqwest::Client) {
        let deadline = Instant::now() + SOON;
        loop {
            let asked = http.get(format!("{}/readyz", self.base)).timeout(Duration::from_secs(2));
            if asked.send().await.is_ok_and(|answer| answer.status() == 200) {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the service ended with {status}: {}", self.log());
            }
            assert!(Instant::now() < deadline, "the service is not ready: {}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A caller of the messaging API.
pub(crate) struct Submitter {
    http: reqwest::Client,
    channel: String,
}

impl Submitter {
    /// Hands a text over to the process at this port; gives the answer's status, 0 without one. The same text to the same
    /// phone is the same request.
    pub(crate) async fn text(&self, port: u16, phone: &str, text: &str) -> u16 {
        let url = format!("http://127.0.0.1:{port}/api/v1/messages");
        let body = json!({"channel": self.channel, "to": phone, "text": text});
        let asked = self.http.post(url).bearer_auth(ADMIN_TOKEN).header("Idempotency-Key", format!("{phone}/{text}"));
        let answer = asked.json(&body).timeout(Duration::from_secs(5)).send().await;
        answer.map_or(0, |answer| answer.status().as_u16())
    }
}

/// Everything.
pub(crate) struct World {
    pub(crate) sandbox: Sandbox,
    pub(crate) portal: Portal,
    pub(crate) number: Number,
    pub(crate) client_id: String,
    pub(crate) channel: String,
    pub(crate) line: String,
    pub(crate) http: reqwest::Client,
    pub(crate) service: Service,
    stage: AtomicU32,
    folder: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Wish::default()).await
    }

    /// Starts vendors and service, installs the application, connects a number.
    pub(crate) async fn with(wish: Wish) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::start_with(wish.sandbox).await.unwrap();
        let port = wish.port.unwrap_or_else(free_port);
        let own_base = format!("http://127.0.0.1:{port}");
        let base = format!("http://127.0.0.1:{}", wish.front.unwrap_or(port));
        let client_secret = "secret-of-the-application".to_owned();
        let scopes: &[&str] = if wish.open_lines {
            &["crm", "bizproc", "imopenlines", "im", "placement", "disk"]
        } else {
            &["crm", "bizproc"]
        };
        let app = sandbox.add_app(AppSpec {
            client_secret: client_secret.clone(),
            application_url: format!("{base}/bitrix24/main/app"),
            installer_url: Some(format!("{base}/bitrix24/main/install")),
            event_handler_url: Some(format!("{base}/bitrix24/main/events")),
            scopes: scopes.iter().chain(wish.scopes).map(|scope| (*scope).to_owned()).collect(),
            ..AppSpec::default()
        });
        let switches = Switches { language: wish.language.to_owned(), ..Switches::default() };
        let portal =
            sandbox.add_portal(PortalSpec { name: "Ромашка".into(), switches, ..PortalSpec::default() }).await.unwrap();
        if wish.no_bucket {
            portal.set_limits(sandbox::PortalLimits::off());
        }
        let database = match wish.database {
            Some(url) => url,
            None if wish.postgres => with_port(&fresh_postgres(wish.server.as_deref()).await, wish.database_port),
            None => format!("sqlite://{}", folder.path().join("data").join("mostik.db").display()),
        };
        let addresses = sandbox.addresses();
        let config = folder.path().join("mostik.toml");
        let text = format!(
            r#"
[server]
bind = "127.0.0.1:{port}"
public_url = "{base}"
[database]
url = "{database}"
answer_within = "{answer_within}"
[security]
master_key = "{MASTER_KEY}"
admin_token = "{ADMIN_TOKEN}"
[network]
allow_private = ["127.0.0.0/8"]
[bitrix24]
oauth_hosts = ["{oauth}"]
insecure_http = true
{bitrix24}
[bitrix24.apps.main]
client_id = "{id}"
client_secret = "{client_secret}"
[providers.whatsapp_cloud]
base_url = "{graph}"
[providers.telegram_bot]
base_url = "{telegram}"
[log]
level = "{level}"
spans = {spans}
{more}
"#,
            oauth = addresses.oauth,
            graph = with_port(&addresses.graph, wish.graph),
            telegram = addresses.telegram,
            id = app.client_id,
            bitrix24 = wish.bitrix24,
            level = wish.log,
            spans = wish.spans,
            more = wish.config,
            answer_within = wish.answer_within,
        );
        std::fs::write(&config, text).unwrap();
        let log = folder.path().join("service.log");
        let child = Service::spawn(&config, &log);
        let service = Service { child, config, log, base: own_base };
        #[expect(clippy::disallowed_methods, reason = "tests call the service from outside")]
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let number =
            sandbox.add_number(NumberSpec { verify_token: "verify-me".into(), ..NumberSpec::default() }).unwrap();
        let mut world = Self {
            sandbox,
            portal,
            number,
            client_id: app.client_id,
            channel: String::new(),
            line: String::new(),
            http,
            service,
            stage: AtomicU32::new(0),
            folder,
        };
        world.until_ready().await;
        world.connect(wish.channel).await;
        world.portal.install(&world.client_id).await.unwrap();
        world
            .until("the robot is registered", |w| w.portal.robots().iter().any(|robot| robot.code == "send_message"))
            .await;
        world
    }

    /// Makes a line and a channel, and lets the vendor verify the callback address.
    async fn connect(&mut self, settings: Value) {
        let (status, line) = self.post("/api/v1/lines", json!({"name": "Sales"})).await;
        assert_eq!(status, 201, "{line}");
        self.line = line["id"].as_str().unwrap().to_owned();
        self.channel = self.channel_of(&self.number, settings).await;
    }

    /// Makes a channel of the line for this number; gives its id.
    pub(crate) async fn channel_of(&self, number: &Number, settings: Value) -> String {
        let view = number.view();
        let channel = json!({
            "provider": "whatsapp_cloud",
            "name": "+7 999 000-11-22",
            "credentials": {
                "phone_number_id": view.spec.phone_number_id,
                "waba_id": view.spec.waba_id,
                "access_token": view.spec.access_token,
                "app_secret": view.spec.app_secret,
                "verify_token": "verify-me",
            },
            "settings": settings,
        });
        let (status, channel) = self.post(&format!("/api/v1/lines/{}/channels", self.line), channel).await;
        assert_eq!(status, 201, "{channel}");
        number.subscribe(channel["webhook_url"].as_str().unwrap()).await.unwrap();
        channel["id"].as_str().unwrap().to_owned()
    }

    /// One more portal with the application in it, and a stage whose robot has these properties.
    pub(crate) async fn other_portal(&self, properties: &Value) -> (Portal, String) {
        let portal = self.sandbox.add_portal(PortalSpec::default()).await.unwrap();
        portal.set_limits(self.portal.limits());
        portal.install(&self.client_id).await.unwrap();
        let registered = |_: &Self| portal.robots().iter().any(|robot| robot.code == "send_message");
        self.until("the robot is registered in the other portal", registered).await;
        let stage = self.robot_in(&portal, DEAL, properties, |_| {});
        (portal, stage)
    }

    pub(crate) fn base(&self) -> &str {
        &self.service.base
    }

    /// The service's configuration file.
    pub(crate) fn config(&self) -> &std::path::Path {
        &self.service.config
    }

    /// Address of the database the service is configured with.
    pub(crate) fn database(&self) -> String {
        let config = std::fs::read_to_string(&self.service.config).unwrap();
        let (_, rest) = config.split_once("[database]\nurl = \"").unwrap();
        rest.split('"').next().unwrap().to_owned()
    }

    /// Configures another database; the next start uses it.
    pub(crate) fn set_database(&self, url: &str) {
        let config = std::fs::read_to_string(&self.service.config).unwrap();
        std::fs::write(&self.service.config, config.replace(&self.database(), url)).unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.service.child.id()
    }

    /// What the service has logged so far.
    pub(crate) fn log(&self) -> String {
        self.service.log()
    }

    /// Ends the process without a word, as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.service.kill();
    }

    /// Waits until the process has ended by itself; gives its exit code.
    pub(crate) fn wait_for_end(&mut self) -> Option<i32> {
        self.service.wait()
    }

    /// Starts it again on the same database.
    pub(crate) async fn restart(&mut self) {
        self.service.start();
        self.until_ready().await;
    }

    pub(crate) async fn until_ready(&mut self) {
        self.service.until_ready(&self.http).await;
    }

    /// Starts another process on the same database, with a port of its own and with what else differs: pairs of what
    /// stands in the configuration and what is to stand there.
    pub(crate) async fn replica(&self, changes: &[(String, String)]) -> Service {
        let port = free_port();
        let name = format!("replica-{port}");
        let mut text = std::fs::read_to_string(&self.service.config).unwrap();
        let bind = format!("bind = \"127.0.0.1:{}\"", self.service.port());
        let changes = changes.iter().cloned().chain([(bind, format!("bind = \"127.0.0.1:{port}\""))]);
        for (from, to) in changes {
            assert!(text.contains(&from), "{from} is not in {text}");
            text = text.replace(&from, &to);
        }
        let config = self.folder.path().join(format!("{name}.toml"));
        std::fs::write(&config, text).unwrap();
        let log = self.folder.path().join(format!("{name}.log"));
        let child = Service::spawn(&config, &log);
        let mut replica = Service { child, config, log, base: format!("http://127.0.0.1:{port}") };
        replica.until_ready(&self.http).await;
        replica
    }

    /// Hands texts over to the messaging API.
    pub(crate) fn submitter(&self) -> Submitter {
        Submitter { http: self.http.clone(), channel: self.channel.clone() }
    }

    /// Waits until the condition holds; shows the log when it does not.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        self.within(SOON, what, condition).await;
    }

    pub(crate) async fn within(&self, limit: Duration, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + limit;
        while !condition(self) {
            if Instant::now() > deadline {
                let log = self.log();
                let tail: Vec<&str> = log.lines().rev().take(40).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                panic!("not within {limit:?}: {what}\n{}\nrefusals: {:?}", tail.join("\n"), self.sandbox.refusals());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    // --- the management API -------------------------------------------------------------------------------------

    pub(crate) async fn delete(&self, path: &str) -> u16 {
        let url = format!("{}{path}", self.service.base);
        self.http.delete(url).bearer_auth(ADMIN_TOKEN).send().await.unwrap().status().as_u16()
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> (u16, Value) {
        let url = format!("{}{path}", self.service.base);
        let answer = self.http.put(url).bearer_auth(ADMIN_TOKEN).json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let url = format!("{}{path}", self.service.base);
        let answer = self.http.post(url).bearer_auth(ADMIN_TOKEN).json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let url = format!("{}{path}", self.service.base);
        let answer = self.http.get(url).bearer_auth(ADMIN_TOKEN).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    pub(crate) async fn get_text(&self, path: &str) -> (u16, String) {
        let url = format!("{}{path}", self.service.base);
        let answer = self.http.get(url).bearer_auth(ADMIN_TOKEN).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap_or_default())
    }

    // --- the CRM ------------------------------------------------------------------------------------------------

    /// Puts a robot with these properties on a stage of its own; gives the stage.
    pub(crate) fn robot(&self, properties: &Value) -> String {
        self.robot_on(DEAL, properties, |_| {})
    }

    pub(crate) fn robot_on(&self, kind: i64, properties: &Value, change: impl FnOnce(&mut Automation)) -> String {
        self.robot_in(&self.portal, kind, properties, change)
    }

    fn robot_in(&self, portal: &Portal, kind: i64, properties: &Value, change: impl FnOnce(&mut Automation)) -> String {
        let stage = format!("STAGE_{}", self.stage.fetch_add(1, Ordering::SeqCst));
        portal.add_stage(StageSpec {
            entity_type_id: kind,
            category_id: 0,
            stage_id: stage.clone(),
            name: stage.clone(),
            semantics: String::new(),
        });
        let properties: BTreeMap<String, Value> = serde_json::from_value(properties.clone()).unwrap();
        let mut automation = Automation {
            entity_type_id: kind,
            stage_id: stage.clone(),
            robot: "send_message".into(),
            properties,
            ..Automation::default()
        };
        change(&mut automation);
        portal.add_automation(automation);
        stage
    }

    /// A deal whose contact has this phone.
    pub(crate) fn deal(&self, phone: &str) -> i64 {
        let contact = self.portal.add_contact("Анна", "Тестова", phone).unwrap();
        self.portal.add_deal("Заказ", contact).unwrap()
    }

    /// Moves a deal to a stage with a robot of these properties.
    pub(crate) fn fire(&self, deal: i64, properties: &Value) {
        let stage = self.robot(properties);
        self.portal.move_item(DEAL, deal, &stage).unwrap();
    }

    pub(crate) fn comments(&self, deal: i64) -> Vec<TimelineEntry> {
        self.portal.timeline(DEAL, deal)
    }

    /// The text of the only comment; empty while there is none.
    pub(crate) fn comment(&self, deal: i64) -> String {
        let comments = self.comments(deal);
        assert!(comments.len() <= 1, "more than one comment: {comments:?}");
        comments.into_iter().next().map(|comment| comment.text).unwrap_or_default()
    }

    pub(crate) fn run_of(&self, deal: i64) -> RobotRun {
        self.portal.deal_run(deal).expect("the robot ran")
    }

    /// The result that reached the waiting robot, once it did.
    pub(crate) fn result(&self, deal: i64) -> Option<BTreeMap<String, Value>> {
        self.portal.deal_run(deal).filter(|run| run.finished_ms.is_some()).map(|run| run.results)
    }

    /// Waits for the robot's result.
    pub(crate) async fn result_of(&self, deal: i64) -> BTreeMap<String, Value> {
        self.until("the robot has its result", |w| w.result(deal).is_some()).await;
        self.result(deal).unwrap()
    }

    /// What the vendors had to refuse or found careless.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.sandbox.violations().iter().map(|violation| format!("{violation:?}")).collect()
    }

    // --- the phone ----------------------------------------------------------------------------------------------

    /// Messages of ours that the vendor has processed for this phone.
    pub(crate) fn messages(&self, phone: &str) -> Vec<Message> {
        let all = self.sandbox.ledger().by_phone(phone);
        all.into_iter().filter(|message| message.opaque.is_some()).collect()
    }

    /// The person writes, so that free text is allowed.
    pub(crate) async fn open_window(&self, phone: &str) {
        self.sandbox.phone(phone).say(&self.number, "Здравствуйте").unwrap();
        self.until_stored(phone).await;
    }

    /// Waits until something that came from this phone is stored.
    pub(crate) async fn until_stored(&self, phone: &str) {
        let path = format!("/api/v1/messages?peer={phone}&state=received");
        let deadline = Instant::now() + SOON;
        loop {
            let (_, list) = self.get(&path).await;
            if list["items"].as_array().is_some_and(|items| !items.is_empty()) {
                return;
            }
            assert!(Instant::now() < deadline, "the inbound message was not stored: {list} {}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A text result of a robot.
pub(crate) fn text(results: &BTreeMap<String, Value>, key: &str) -> String {
    match results.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) => {
            list.iter().map(|value| value.as_str().unwrap_or_default()).collect::<Vec<_>>().join(",")
        }
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// A port nobody listens on, below those the system gives to outgoing connections: it stays free until it is bound, and
/// while the process behind it is being restarted.
pub(crate) fn free_port() -> u16 {
    let random = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    std::iter::repeat_with(|| 15_000 + u16::try_from(random() % 15_000).unwrap())
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap()
}

/// The address with another port, if one is given.
fn with_port(url: &str, port: Option<u16>) -> String {
    let Some(port) = port else { return url.to_owned() };
    let (scheme, rest) = url.split_once("://").unwrap();
    let (host, path) = rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, format!("/{path}")));
    format!("{scheme}://{}:{port}{path}", host.rsplit_once(':').unwrap().0)
}

/// Address of the PostgreSQL server that `tests/run` started.
pub(crate) fn postgres_server() -> String {
    #[expect(clippy::disallowed_methods, reason = "where the test server is, is told by the environment")]
    let server = std::env::var("TEST_DATABASE_URL");
    server.expect("TEST_DATABASE_URL: run tests/run, or start PostgreSQL with tests/tools/postgres")
}

/// A fresh database, on the server of all tests unless another is given.
pub(crate) async fn fresh_postgres(server: Option<&str>) -> String {
    let server = server.map_or_else(postgres_server, str::to_owned);
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let name = format!("mostik_it_{}_{}", std::process::id(), COUNTER.fetch_add(1, Ordering::SeqCst));
    let (base, _) = server.rsplit_once('/').unwrap();
    let create: &'static str = Box::leak(format!("CREATE DATABASE {name}").into_boxed_str());
    let pool = sqlx::PgPool::connect(&server).await.unwrap();
    sqlx::Executor::execute(&pool, create).await.unwrap();
    pool.close().await;
    format!("{base}/{name}")
}
