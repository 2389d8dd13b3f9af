//! What is seen from outside: metrics that are there and true, health that tells the truth while the database is gone,
//! and old rows that forget their people.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::arena::port_of;
use crate::bad_input::robot_call;
use crate::proxy::{Flow, Proxy};
use crate::world::{Wish, World, postgres_server};

const PHONE: &str = "79161234567";

/// The value of a metric line that begins so.
fn value(metrics: &str, start: &str) -> Option<f64> {
    metrics.lines().find(|line| line.starts_with(start)).and_then(|line| line.rsplit(' ').next()?.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_there_and_true_after_a_run() {
    let world = World::with(Wish { bitrix24: "repeat_result = \"0s\"\n", ..Wish::default() }).await;
    world.open_window(PHONE).await;
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "Здравствуйте"}));
    world.until("the comment says read", |w| w.comment(deal).contains("Прочитано")).await;
    world.until("the robot has its result", |w| w.result(deal).is_some()).await;
    let lone = world.deal("79160000000");
    world.fire(lone, &json!({"recipients": "main", "text": "Окно закрыто"}));
    world.until("the card says why not", |w| !w.comment(lone).is_empty()).await;
    let (status, _) = world.post(&format!("/api/v1/channels/{}/pause", world.channel), json!({})).await;
    assert_eq!(status, 200);

    let deadline = Instant::now() + Duration::from_secs(10);
    let metrics = loop {
        let (_, metrics) = world.get_text("/metrics").await;
        if value(&metrics, "mostik_outbox_depth{state=\"ready\"}") == Some(0.0)
            && value(&metrics, "mostik_channel_paused") == Some(1.0)
        {
            break metrics;
        }
        assert!(Instant::now() < deadline, "{metrics}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let is = |start: &str, expected: f64| assert_eq!(value(&metrics, start), Some(expected), "{start}\n{metrics}");
    is("mostik_jobs_settled_total{kind=\"send\",provider=\"whatsapp_cloud\",class=\"ok\"}", 1.0);
    is("mostik_jobs_settled_total{kind=\"send\",provider=\"whatsapp_cloud\",class=\"refused\"}", 1.0);
    is("mostik_jobs_settled_total{kind=\"command\",provider=\"\",class=\"ok\"}", 2.0);
    is("mostik_attempt_duration_seconds_count{provider=\"whatsapp_cloud\"}", 1.0);
    is("mostik_outbox_depth{state=\"started\"}", 0.0);
    is("mostik_outbox_depth{state=\"unclear\"}", 0.0);
    is("mostik_dead_letters", 0.0);
    is("mostik_lane_oldest_due_seconds", 0.0);
    is("mostik_store_up", 1.0);
    let at_least = |start: &str, least: f64| {
        assert!(value(&metrics, start).is_some_and(|value| value >= least), "{start}\n{metrics}");
    };
    at_least("mostik_webhooks_total{source=\"bitrix24\",result=\"ok\"}", 2.0);
    at_least("mostik_webhooks_total{source=\"whatsapp_cloud\",result=\"ok\"}", 2.0);
    at_least("mostik_crm_calls_total{crm=\"bitrix24\",method=\"crm.timeline.comment.add\",result=\"ok\"}", 2.0);
    at_least("mostik_attempt_duration_seconds_bucket{provider=\"whatsapp_cloud\",le=\"+Inf\"}", 1.0);
    for (name, _, help) in mostik::telemetry::METRICS {
        // These appear once there was something to count.
        use mostik::telemetry::{CRM_STOPPED, LIMITER_WAIT, RETENTION_ROWS};
        let rare = [CRM_STOPPED, LIMITER_WAIT, RETENTION_ROWS];
        assert!(rare.contains(name) || metrics.contains(&format!("# HELP {name} {help}")), "{name}\n{metrics}");
    }
    assert!(!world.log().contains("job.attempt{"), "spans are off unless they are asked for");
    let attempts = world.log().lines().filter(|line| line.trim_end().contains(" attempt ")).count();
    assert!(attempts >= 4, "one line per attempt: a send, two comments, a result at least; {}", world.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_tell_the_way_of_a_message_and_nobodys_phone() {
    let world = World::with(Wish { spans: true, ..Wish::default() }).await;
    world.open_window(PHONE).await;
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "Совершенно секретно"}));
    world.until("the comment says read", |w| w.comment(deal).contains("Прочитано")).await;
    world.until("spans are written", |w| w.log().contains("provider.call{")).await;
    let log = world.log();
    for (span, fields) in [
        ("http.request", "method=POST route=\"/bitrix24/{app}/robots/{code}\" status=200"),
        ("crm.call", "crm=\"bitrix24\""),
        ("provider.call", "provider=whatsapp_cloud message.id=msg_"),
        ("lane.run", "lane.key=out:chan_"),
        ("job.attempt", "job.kind=\"send\" job.attempt=1"),
        ("storage.accept", ""),
        ("storage.plan", ""),
        ("storage.start", ""),
        ("storage.settle", ""),
        ("storage.ingest", ""),
        ("storage.settle_effects", ""),
    ] {
        let ends = |line: &str| line.contains("close") && line.contains(span) && line.contains(fields);
        assert!(log.lines().any(ends), "{span} {fields}\n{log}");
    }
    // A try has no parent: its line begins with itself.
    assert!(log.lines().filter(|line| line.contains("job.attempt{")).all(|line| !line.contains("lane.run{")), "{log}");
    for secret in [PHONE, "9161234567", "секретно", "Анна", "admin-token-of-the-tests"] {
        assert!(!log.contains(secret), "{secret} is in the spans: {log}");
    }
}

/// Sends what a robot of the portal sends; gives the status and `Retry-After`.
async fn callback(world: &World) -> (u16, Option<String>) {
    let member = world.portal.member_id();
    let secret = world.portal.app(&world.client_id).unwrap().application_token;
    let url = format!("{}/bitrix24/main/robots/send_message", world.base());
    let call = world.http.post(url).header("content-type", "application/x-www-form-urlencoded");
    let answer = call.body(robot_call(world, &secret, &member, "")).send().await.unwrap();
    let after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    (answer.status().as_u16(), after)
}

/// Waits for an answer of `/readyz`.
async fn until_readyz(world: &World, wanted: u16) {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let (status, _) = world.get_text("/readyz").await;
        if status == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "/readyz answers {status}, not {wanted}: {}", world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The database goes away and comes back under a running service.
async fn outage(world: &World, take_away: impl FnOnce(), give_back: impl FnOnce()) {
    let before = world.deal(PHONE);
    world.open_window(PHONE).await;
    world.fire(before, &json!({"recipients": "main", "text": "До"}));
    world.until("it works", |w| w.comment(before).contains("Прочитано")).await;

    tokio::task::block_in_place(take_away);
    until_readyz(world, 503).await;
    assert_eq!(world.get_text("/healthz").await.0, 200, "the process lives");
    assert_eq!(value(&world.get_text("/metrics").await.1, "mostik_store_up"), Some(0.0));
    for _ in 0..2 {
        let (status, after) = callback(world).await;
        assert_eq!((status, after.is_some()), (503, true), "a callback that was not stored is not acknowledged");
    }
    let lost = world.deal("79160000001");
    world.fire(lost, &json!({"recipients": "main", "text": "Во время"}));
    world.until("the portal was told no", |w| w.run_of(lost).callback_status.is_some_and(|it| it != 200)).await;

    // Long enough for everything that the service does by the clock to have failed.
    tokio::time::sleep(Duration::from_secs(2)).await;
    tokio::task::block_in_place(give_back);
    until_readyz(world, 200).await;
    let after = world.deal(PHONE);
    world.fire(after, &json!({"recipients": "main", "text": "После"}));
    world.within(Duration::from_secs(10), "it works again", |w| w.comment(after).contains("Прочитано")).await;
    assert_eq!(callback(world).await.0, 200);
    assert_eq!(world.messages(PHONE).len(), 2);
    assert_eq!(world.sandbox.ledger().repeated(), 0);
}

fn run(program: &mut Command) -> String {
    let output = program.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A server of our own, stopped and removed at the end.
struct Server(std::path::PathBuf);

impl Server {
    fn tool(&self, action: &str, port: &str) -> String {
        let tool = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/postgres");
        run(Command::new(tool).arg(action).arg(&self.0).arg(port))
    }

    /// Sends a signal to each of its processes.
    fn signal(&self, name: &str) {
        let known = std::fs::read_to_string(self.0.join("cluster/postmaster.pid")).unwrap();
        let main = known.lines().next().unwrap().to_owned();
        let own = run(Command::new("ps").args(["-o", "pid=", "--ppid", &main]));
        let all = std::iter::once(main.as_str()).chain(own.split_whitespace());
        // One may have ended meanwhile.
        let _ = Command::new("kill").arg(format!("-{name}")).args(all).status().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.0.join("cluster/postmaster.pid").exists() {
            // A test that failed may have left it standing.
            self.signal("CONT");
        }
        self.tool("stop", "");
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_is_down_nothing_is_acknowledged_and_afterwards_it_works_again() {
    // Not below a private folder: the server runs as a user of its own.
    let server = Server(std::env::temp_dir().join(format!("mostik-outage-{}", std::process::id())));
    let url = tokio::task::block_in_place(|| server.tool("start", ""));
    let port = url.rsplit(':').next().unwrap().split('/').next().unwrap().to_owned();
    let world = World::with(Wish { database: Some(url), ..Wish::default() }).await;
    let (down, up) = (|| server.tool("stop", ""), || server.tool("start", &port));
    outage(&world, || drop(down()), || drop(up())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_never_answers_nothing_is_acknowledged_and_afterwards_it_works_again() {
    let server = Server(std::env::temp_dir().join(format!("mostik-silent-{}", std::process::id())));
    let url = tokio::task::block_in_place(|| server.tool("start", ""));
    let config = "[delivery]\nlease = \"2s\"\n".to_owned();
    let world = World::with(Wish { database: Some(url), config, answer_within: "500ms", ..Wish::default() }).await;
    let silent = Box::pin(outage(&world, || server.signal("STOP"), || server.signal("CONT")));
    // Without a limit of its own a call would wait for as long as the server stands.
    tokio::time::timeout(Duration::from_secs(150), silent).await.expect("something waits for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_behind_a_wire_that_swallows_everything_is_found_again_on_new_connections() {
    let wire = Proxy::to(&[port_of(&postgres_server())]);
    let config = "[delivery]\nlease = \"2s\"\n".to_owned();
    let wish =
        Wish { postgres: true, database_port: Some(wire.port), config, answer_within: "500ms", ..Wish::default() };
    let world = World::with(wish).await;
    let silent = Box::pin(outage(&world, || wire.set(Flow::Lost), || wire.set(Flow::Open)));
    tokio::time::timeout(Duration::from_secs(150), silent).await.expect("something waits for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_takes_nothing_nothing_is_acknowledged_and_afterwards_it_works_again() {
    let config = "[delivery]\nlease = \"1s\"\n".to_owned();
    let world = World::with(Wish { config, ..Wish::default() }).await;
    let database = world.database();
    let log = format!("{}-wal", database.strip_prefix("sqlite://").unwrap());
    let pid = world.pid().to_string();
    // No file may grow at all: every further write of a page fails, as on a full disk, and so does every line of the
    // service's own log.
    let limit = |size: String| run(Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={size}:")]));
    let full = || {
        assert!(std::fs::metadata(&log).unwrap().len() > 0);
        drop(limit("0".to_owned()));
    };
    outage(&world, full, || drop(limit("unlimited".to_owned()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_messages_forget_their_people_while_the_service_runs() {
    let config = "[retention]\nevery = \"1s\"\n".to_owned();
    let world = World::with(Wish { config, bitrix24: "repeat_result = \"0s\"\n", ..Wish::default() }).await;
    world.open_window(PHONE).await;
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "Забудьте меня"}));
    world.until("the comment says read", |w| w.comment(deal).contains("Прочитано")).await;
    world.until("the robot has its result", |w| w.result(deal).is_some()).await;
    let (_, list) = world.get(&format!("/api/v1/messages?peer={PHONE}")).await;
    let ids: Vec<String> =
        list["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 2, "one in each direction: {list}");

    let comment = world.comment(deal);
    {
        let database = world.database();
        let file = rusqlite::Connection::open(database.strip_prefix("sqlite://").unwrap()).unwrap();
        file.busy_timeout(Duration::from_secs(5)).unwrap();
        let forty_days = 40_i64 * 86_400_000;
        file.execute("UPDATE messages SET created_ms = created_ms - ?1", [forty_days]).unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    for id in &ids {
        loop {
            let (status, message) = world.get(&format!("/api/v1/messages/{id}")).await;
            assert_eq!(status, 200, "{message}");
            if message["peer"] == "" {
                let text = message["content"]["text"].as_str().unwrap_or_default();
                assert_eq!((text, &message["provider_ids"]), ("", &json!([])), "{message}");
                break;
            }
            assert!(Instant::now() < deadline, "{message} {}", world.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    assert_eq!(world.comment(deal), comment, "the card belongs to the customer and keeps its comment");
    let (_, metrics) = world.get_text("/metrics").await;
    assert_eq!(
        value(&metrics, "mostik_retention_rows_total{table=\"messages\",act=\"blanked\"}"),
        Some(2.0),
        "{metrics}"
    );
}
