//! `cargo demo` as people start it: the real program, its simulated vendors and its child, from outside.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);

/// The demo's program stands beside ours; a build of the workspace makes both.
fn demo() -> Command {
    let service = PathBuf::from(env!("CARGO_BIN_EXE_mostik"));
    let program = service.with_file_name("demo");
    assert!(program.is_file(), "{} is missing: run `cargo build --workspace` first", program.display());
    let mut command = Command::new(program);
    command.arg("--service").arg(service).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A setting of this machine's own Mostik must not reach the demo's.
    command.env("MOSTIK__NO_SUCH_SECTION__KEY", "1").env("LANG", "ru_RU.UTF-8").env_remove("LC_ALL");
    command
}

/// A demo that runs, and what it has printed.
struct Demo {
    child: Child,
    printed: String,
    page: String,
    http: reqwest::Client,
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.signal("-TERM");
        let _ = self.child.wait();
    }
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mut child = demo().args(arguments).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut printed, mut page) = (String::new(), String::new());
        while !printed.contains("Ctrl-C") {
            let Some(line) = lines.next() else {
                let mut error = String::new();
                child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
                panic!("the demo has ended: {printed}{error}");
            };
            let line = line.unwrap();
            if let Some(address) = line.strip_prefix("open ") {
                page = address.to_owned();
            }
            printed.push_str(&line);
            printed.push('\n');
        }
        // Another test of this process may have done it already.
        drop(rustls::crypto::ring::default_provider().install_default());
        #[expect(clippy::disallowed_methods, reason = "tests call the demo from outside")]
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { child, printed, page, http }
    }

    fn signal(&self, signal: &str) {
        let _ = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
    }

    /// The service's process: the demo's only child.
    fn service(&self) -> String {
        let pid = self.child.id();
        let mut found = String::new();
        for thread in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            found.push_str(&std::fs::read_to_string(thread.unwrap().path().join("children")).unwrap_or_default());
        }
        found.trim().to_owned()
    }

    fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        let mut error = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        (status, error)
    }

    async fn get(&self, path: &str) -> Value {
        self.http.get(format!("{}control/{path}", self.page)).send().await.unwrap().json().await.unwrap()
    }

    /// Moves the first deal of a stage and waits until its comment says one of these words.
    async fn moved(&self, from: &str, to: &str, words: &[&str]) -> String {
        let board = self.get("page").await;
        let portal = board["portal"]["member_id"].as_str().unwrap().to_owned();
        let columns = board["portal"]["columns"].as_array().unwrap().clone();
        let column = columns.iter().find(|column| column["stage_id"] == from).unwrap();
        let deal = column["cards"][0]["id"].clone();
        let url = format!("{}control/portals/{portal}/move", self.page);
        let answer = self.http.post(url).json(&json!({"ids": [deal], "stage_id": to})).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let deadline = Instant::now() + SOON;
        loop {
            let card = self.get(&format!("portals/{portal}/items/2/{deal}")).await;
            let text = card["timeline"][0]["text"].as_str().unwrap_or_default().to_owned();
            let waits = card["runs"][0]["finished_ms"].is_null();
            if !waits && words.iter().any(|word| text.contains(word)) {
                return text;
            }
            assert!(Instant::now() < deadline, "{words:?} not seen: {card}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stage_of_the_demo_does_what_is_printed() {
    let demo = Demo::start(&[]);
    assert!(demo.page.starts_with("http://127.0.0.1:") && demo.page.ends_with('/'), "{}", demo.printed);
    for word in ["Что попробовать", "Токен", "«Принят»"] {
        assert!(demo.printed.contains(word), "{}", demo.printed);
    }
    let page = demo.http.get(&demo.page).send().await.unwrap();
    assert_eq!(page.status(), 200);
    let first = demo.moved("NEW", "PREPARATION", &["Доставлено", "Прочитано"]).await;
    assert!(first.contains("order_update:ru"), "{first}");
    let fallback = demo.moved("NEW", "PREPAYMENT_INVOICE", &["Прочитано"]).await;
    assert!(fallback.contains("order_ready:ru"), "{fallback}");
    let refused = demo.moved("NEW", "EXECUTING", &["Не отправлено"]).await;
    assert!(refused.contains("24-часовое окно закрыто") && refused.contains("Что делать:"), "{refused}");
    let totals = demo.get("page").await["totals"].clone();
    assert_eq!(
        (&totals["accepted"], &totals["repeated"], &totals["refused"], &totals["failed"]),
        (&json!(2), &json!(0), &json!(0), &json!(0))
    );

    let service = demo.service();
    assert!(!service.is_empty());
    demo.signal("-INT");
    let (status, error) = demo.end();
    assert!(status.success(), "{error}");
    assert!(!PathBuf::from(format!("/proc/{service}")).exists(), "the service is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_dies_is_told_with_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept");
    let demo = Demo::start(&["--lang", "en", "--data", path.to_str().unwrap()]);
    let second = self::demo().args(["--once", "--data", path.to_str().unwrap()]).output().unwrap();
    let error = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && error.contains("another demo is running"), "{error}");
    Command::new("kill").args(["-KILL", &demo.service()]).status().unwrap();
    let (status, error) = demo.end();
    assert_eq!(status.code(), Some(1));
    assert!(error.contains("the service has ended by itself") && error.contains("service.log"), "{error}");
    assert!(path.join("service.log").is_file());

    let again = self::demo().args(["--once", "--lang", "en", "--data", path.to_str().unwrap()]).output().unwrap();
    let printed = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert!(printed.lines().any(|line| line.starts_with("open http://127.0.0.1:")), "{printed}");
}

#[test]
fn mistakes_are_said_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (arguments, word) in [
        (&["--port", port.as_str()][..], "choose another with --port"),
        (&["--fast"], "see --help"),
        (&["--data", "/proc/none"], "choose another with --data"),
        (&["--service", "/bin/false"], "the service did not start"),
    ] {
        let ended = demo().args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success() && error.contains(word), "{arguments:?}: {error}");
    }
}
