//! What an operator does: settings that are wrong, a look from beside the service, stopping it, and whose files they are.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use sandbox::{Action, Fault};
use serde_json::json;

use crate::world::{Wish, World};

const KEY: &str = "master_key = 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='";
const PHONE: &str = "79161234567";

fn mostik(command: &str, config: &Path) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_mostik"));
    program.args([command, "--config"]).arg(config).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn what_serve_refuses_is_told_by_check_config_and_doctor_in_the_same_words() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("[database]\nurl = 'sqlite://{}'\n", folder.path().join("m.db").display());
    let security = format!("[security]\n{KEY}\n");
    let config = folder.path().join("mostik.toml");
    for (key, text) in [
        ("security.master_key", database.clone()),
        ("security.master_key", format!("{database}[security]\nmaster_key = 'c2hvcnQ='\n")),
        ("security.previous_keys", format!("{database}[security]\n{KEY}\nprevious_keys = ['x']\n")),
        ("bitrix24.oauth_hosts", format!("{database}{security}[bitrix24]\noauth_hosts = []\n")),
        ("database.url", format!("{security}[database]\nurl = 'mysql://x'\n")),
        (
            "bitrix24.apps.main.client_id",
            format!("{database}{security}[bitrix24.apps.main]\nclient_id = ''\nclient_secret = 's'\n"),
        ),
        (
            "bitrix24.apps.main.client_secret",
            format!("{database}{security}[bitrix24.apps.main]\nclient_id = 'x'\nclient_secret = ''\n"),
        ),
        ("phones.country", format!("{database}{security}[phones]\ncountry = 'XX'\n")),
        ("log.level", format!("{database}{security}[log]\nlevel = 'loud'\n")),
    ] {
        std::fs::write(&config, &text).unwrap();
        let refused = mostik("serve", &config);
        let words = String::from_utf8_lossy(&refused.stderr).lines().last().unwrap_or_default().to_owned();
        let reason = words.split_once(key).map(|(_, rest)| format!("{key}{rest}"));
        let reason = reason.unwrap_or_else(|| panic!("{key} is not named: {words}"));
        assert_eq!(refused.status.code(), Some(1), "{words}");
        for command in ["check-config", "doctor"] {
            let output = mostik(command, &config);
            assert_eq!(output.status.code(), Some(1), "{command} finds {key} fine: {}", said(&output));
            assert!(said(&output).contains(&reason), "{command}: {} does not say: {reason}", said(&output));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_calls_every_portal_and_disturbs_no_running_service_on_sqlite() {
    look_from_beside(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_calls_every_portal_and_disturbs_no_running_service_on_postgres() {
    look_from_beside(true).await;
}

async fn look_from_beside(postgres: bool) {
    let world = World::with(Wish { postgres, ..Wish::default() }).await;
    let config = world.config().to_owned();
    let doctor = || {
        let config = config.clone();
        async move { tokio::task::spawn_blocking(move || mostik("doctor", &config)).await.unwrap() }
    };
    let well = doctor().await;
    let domain = world.portal.domain();
    assert!(well.status.success(), "{}", said(&well));
    assert!(said(&well).contains(&format!("ok    {domain}: answers")), "{}", said(&well));

    let payment = Action::Error {
        code: "PAYMENT_REQUIRED".into(),
        status: None,
        description: None,
        retry_after: None,
        after: false,
    };
    let id = world.sandbox.add_fault(Fault::new("rest.batch", payment));
    let ill = doctor().await;
    assert_eq!(ill.status.code(), Some(1), "{}", said(&ill));
    assert!(said(&ill).contains(&format!("BAD   {domain}")) && said(&ill).contains("plan"), "{}", said(&ill));
    world.sandbox.remove_fault(id);

    assert_eq!(world.get_text("/readyz").await.0, 200);
    let deal = world.deal(PHONE);
    world.open_window(PHONE).await;
    world.fire(deal, &json!({"recipients": "main", "text": "Здравствуйте"}));
    world.until("the service works on", |w| w.comment(deal).contains("Прочитано")).await;
}

#[test]
fn doctor_makes_no_database_and_migrates_none() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("data").join("mostik.db");
    let config = folder.path().join("mostik.toml");
    let text = format!(
        "[database]\nurl = 'sqlite://{}'\n[security]\n{KEY}\n[bitrix24]\noauth_hosts = ['http://127.0.0.1:9']\n",
        database.display()
    );
    std::fs::write(&config, text).unwrap();
    let output = mostik("doctor", &config);
    assert!(said(&output).contains("mostik migrate") && !output.status.success(), "{}", said(&output));
    assert!(!database.exists() && !database.parent().unwrap().exists());

    std::fs::create_dir(database.parent().unwrap()).unwrap();
    std::fs::write(&database, []).unwrap();
    let output = mostik("doctor", &config);
    assert!(said(&output).contains("is behind") && said(&output).contains("mostik migrate"), "{}", said(&output));
    assert_eq!(std::fs::metadata(&database).unwrap().len(), 0, "the database was changed");

    assert!(mostik("migrate", &config).status.success());
    let output = mostik("doctor", &config);
    assert!(said(&output).contains("schema up to date"), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_reads_the_database() {
    let world = World::new().await;
    let config = std::fs::read_to_string(world.config()).unwrap();
    let file = config.split("sqlite://").nth(1).unwrap().split('"').next().unwrap();
    let folder = Path::new(file).parent().unwrap();
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("mostik.db") {
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
            seen.push(name);
        }
    }
    seen.sort();
    assert_eq!(seen, ["mostik.db", "mostik.db-shm", "mostik.db-wal", "mostik.db.lock"]);
    assert_eq!(std::fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700, "the folder is ours");
}

/// A send that does not end in time, beside a request that never arrives whole.
async fn stopped_in_the_middle(send: Action) {
    let config = "[delivery]\nunclear_wait = \"1500ms\"\n".to_owned();
    let mut world = World::with(Wish { config, ..Wish::default() }).await;
    world.open_window(PHONE).await;
    world.sandbox.add_fault(Fault::new("graph.messages", send).times(1));
    let slow = world.deal(PHONE);
    world.fire(slow, &json!({"recipients": "main", "text": "Здравствуйте"}));
    world.until("the send is under way", |w| w.sandbox.faults()[0].fired == 1).await;
    let address = world.base().strip_prefix("http://").unwrap().to_owned();
    let mut half = std::net::TcpStream::connect(&address).unwrap();
    let head = format!(
        "POST /bitrix24/main/events HTTP/1.1\r\nHost: {address}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\nevent=ONAPP"
    );
    half.write_all(head.as_bytes()).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;

    let began = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &world.pid().to_string()]).status().unwrap().success());
    let code = tokio::task::block_in_place(|| world.wait_for_end());
    let took = began.elapsed();
    assert_eq!(code, Some(0), "{}", world.log());
    assert!(took < Duration::from_secs(10), "took {took:?}");
    drop(half);

    world.restart().await;
    let later = world.deal("79167654321");
    world.open_window("79167654321").await;
    world.fire(later, &json!({"recipients": "main", "text": "Здравствуйте"}));
    world.until("the later message is read", |w| w.comment(later).contains("Прочитано")).await;
    assert_eq!(world.messages("79167654321").len(), 1);
    // What the vendor took comes back as an echo; what it never got is sent again once the echo must have come, which
    // after a down time is six times as long (ADR 0004).
    let waited = Duration::from_secs(90);
    world.within(waited, "the slow message is read", |w| w.comment(slow).contains("Прочитано")).await;
    assert_eq!(world.messages(PHONE).len(), 1);
    assert_eq!(world.sandbox.ledger().repeated(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_before_a_slow_send_was_done_takes_ten_seconds_and_loses_nothing() {
    stopped_in_the_middle(Action::Delay { ms: 20_000 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_after_a_slow_send_was_done_takes_ten_seconds_and_doubles_nothing() {
    stopped_in_the_middle(Action::DropAnswer { hold_ms: 60_000 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redrive_from_the_shell_leaves_out_what_may_have_arrived_until_told() {
    let config = "[delivery]\nunclear_wait = \"1500ms\"\n".to_owned();
    let world = World::with(Wish { config, ..Wish::default() }).await;
    world.open_window(PHONE).await;
    world.sandbox.add_fault(Fault::new("graph.messages", Action::CutBefore).times(1));
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "Пропало"}));
    let config = world.config().to_owned();
    let redrive = |options: &'static [&'static str]| {
        let config = config.clone();
        async move {
            let run = move || {
                let mut program = Command::new(env!("CARGO_BIN_EXE_mostik"));
                program.arg("redrive").args(options).arg("--config").arg(config).output().unwrap()
            };
            said(&tokio::task::spawn_blocking(run).await.unwrap())
        }
    };
    let deadline = Instant::now() + crate::world::SOON;
    let mut listed = String::new();
    while !listed.contains("не ответил") {
        assert!(Instant::now() < deadline, "no dead letter: {listed}");
        listed = redrive(&["--list", "--language", "ru"]).await;
    }
    let counted = redrive(&["--all", "--dry-run"]).await;
    assert!(counted.contains("0 match") && counted.contains("1 may have reached the person"), "{counted}");
    let none = redrive(&["--all"]).await;
    assert!(none.contains("0 live again"), "{none}");
    assert!(world.messages(PHONE).is_empty());
    let one = redrive(&["--all", "--undecided", "--reason", "no_answer", "--kind", "send"]).await;
    assert!(one.contains("1 live again"), "{one}");
    world.until("the running service sends it", |w| w.comment(deal).contains("Прочитано")).await;
    assert_eq!((world.messages(PHONE).len(), world.comments(deal).len()), (1, 1));
}

#[test]
fn the_package_for_bitrix24_is_written_and_wrong_wishes_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mostik.toml");
    let app = |name: &str| format!("[bitrix24.apps.{name}]\nclient_id = 'local.1'\nclient_secret = 's'\n");
    let text = format!("[server]\npublic_url = 'https://c.example'\n[security]\n{KEY}\n{}", app("main"));
    std::fs::write(&config, &text).unwrap();
    let package = |out: &Path, more: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_mostik"));
        program.args(["package", "bitrix24", "--config"]).arg(&config).arg("--out").arg(out).args(more);
        program.stdin(Stdio::null()).output().unwrap()
    };
    let out = folder.path().join("listing");
    let written = package(&out, &[]);
    assert!(written.status.success(), "{}", said(&written));
    for (name, piece) in [
        ("card.ru.md", "https://c.example/bitrix24/main/install"),
        ("card.en.md", "`imopenlines`: to show operators"),
        ("checklist.ru.md", "- [x] Адрес — https"),
        ("checklist.en.md", "- [ ] Screenshots"),
    ] {
        assert!(said(&written).contains(name), "{}", said(&written));
        let text = std::fs::read_to_string(out.join(name)).unwrap();
        assert!(text.contains(piece), "{name}: {text}");
    }
    assert!(std::fs::metadata(out.join("icon.png")).unwrap().len() > 1000);
    let refused = package(&out, &["--app", "other"]);
    assert!(!refused.status.success() && said(&refused).contains("bitrix24.apps.other"), "{}", said(&refused));
    std::fs::write(&config, format!("{text}{}", app("second"))).unwrap();
    let refused = package(&out, &[]);
    assert!(!refused.status.success() && said(&refused).contains("--app"), "{}", said(&refused));
    std::fs::write(folder.path().join("large.png"), b"no picture").unwrap();
    let shots = folder.path().to_str().unwrap();
    let refused = package(&out, &["--app", "second", "--screenshots", shots]);
    assert!(!refused.status.success() && said(&refused).contains("large.png"), "{}", said(&refused));
}
