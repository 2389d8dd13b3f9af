//! The load program: figures of `docs/PERFORMANCE.md`, each by one command.
//!
//! ```text
//! cargo bench --bench load -- accepts [--postgres]     durable accepts per second beside a bare handler
//! cargo bench --bench load -- deals N [--postgres] [--bucket] [--rate R]
//!                                                      N deals moved at once, through the whole pipeline
//! cargo bench --bench load -- start                    time from start to ready, memory at rest
//! ```
//!
//! The real service and the simulated vendors share the machine's cores with this program. `steal` of `/proc/stat` is
//! printed with every run: above 0.10 of a core the run says more about the neighbours than about us.
#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a load program fails by panicking")]
#![expect(clippy::print_stdout, reason = "it prints its figures")]

#[path = "../tests/it/world.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod world;

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use world::{DEAL, Wish, World};

const CONNECTIONS: usize = 64;
const RUNS: usize = 5;
const RUN: Duration = Duration::from_secs(4);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["bare", port] = words.as_slice() {
        return bare(port.parse().unwrap());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let postgres = words.contains(&"--postgres");
    let value = |name: &str| {
        let at = words.iter().position(|word| *word == name)?;
        words.get(at + 1)?.parse::<f64>().ok()
    };
    match words.first() {
        Some(&"accepts") => runtime.block_on(accepts(postgres)),
        Some(&"deals") => {
            let count: usize = words.get(1).and_then(|word| word.parse().ok()).expect("deals N");
            let rate = value("--rate");
            runtime.block_on(deals(count, postgres, words.contains(&"--bucket"), rate));
        }
        Some(&"start") => runtime.block_on(start(postgres)),
        _ => println!("load: accepts | deals N | start; see the head of benches/load.rs"),
    }
}

// --- measuring --------------------------------------------------------------------------------------------------

/// Share of a core that the host took away since the last call.
struct Steal(u64, Instant);

impl Steal {
    fn now() -> Self {
        Self(Self::read(), Instant::now())
    }

    fn read() -> u64 {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let first = stat.lines().next().unwrap_or_default();
        first.split_whitespace().nth(8).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
    }

    /// In cores; a tick is 10 ms.
    fn since(&self) -> f64 {
        let ticks = Self::read() - self.0;
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let seconds = ticks as f64 / 100.0;
        seconds / self.1.elapsed().as_secs_f64()
    }
}

/// Resident memory and CPU seconds of a process.
fn usage(pid: u32) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    let kib: f64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0.0);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |index: usize| after.split_whitespace().nth(index).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
    (kib / 1024.0, (field(11) + field(12)) / 100.0)
}

fn percentile(sorted: &[u32], share: f64) -> f64 {
    if sorted.is_empty() {
        return 0.0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = ((sorted.len() - 1) as f64 * share).round() as usize;
    f64::from(sorted[index]) / 1000.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

// --- a lean HTTP client -----------------------------------------------------------------------------------------

/// Sends requests over one kept connection and reads answers without a body of interest.
struct Line {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Line {
    async fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::with_capacity(4096) }
    }

    async fn post(&mut self, path: &str, body: &str) -> u16 {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let mut request = head.into_bytes();
        request.extend_from_slice(body.as_bytes());
        self.stream.write_all(&request).await.unwrap();
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await.unwrap();
            assert!(read > 0, "connection closed");
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).to_lowercase();
                let length: usize = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length:"))
                    .and_then(|length| length.trim().parse().ok())
                    .unwrap_or(0);
                while self.buffer.len() < end + 4 + length {
                    self.stream.read_buf(&mut self.buffer).await.unwrap();
                }
                return head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
            }
        }
    }
}

/// One run against an address: requests per second, p50 and p99 in milliseconds.
async fn run(
    port: u16,
    path: &str,
    body: impl Fn(u64) -> String + Send + Sync + 'static,
    pace: Option<f64>,
) -> [f64; 3] {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let body = Arc::new(body);
    let began = Instant::now();
    let mut tasks = Vec::new();
    for index in 0..CONNECTIONS {
        let (body, path) = (Arc::clone(&body), path.to_owned());
        tasks.push(tokio::spawn(async move {
            let mut line = Line::open(port).await;
            let mut times: Vec<u32> = Vec::new();
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let gap = pace.map(|rate| Duration::from_secs_f64(CONNECTIONS as f64 / rate));
            let mut next = Instant::now();
            if let Some(gap) = gap {
                next += gap.mul_f64(f64::from(u32::try_from(index).unwrap()) / 64.0);
            }
            while began.elapsed() < RUN {
                if let Some(gap) = gap {
                    tokio::time::sleep_until(next.into()).await;
                    next += gap;
                }
                let text = body(NUMBER.fetch_add(1, Ordering::Relaxed));
                let sent = Instant::now();
                let status = line.post(&path, &text).await;
                assert_eq!(status, 200, "refused: {}", String::from_utf8_lossy(&line.buffer));
                times.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            times
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    let seconds = began.elapsed().as_secs_f64();
    all.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    let rate = all.len() as f64 / seconds;
    [rate, percentile(&all, 0.5), percentile(&all, 0.99)]
}

// --- accepts ----------------------------------------------------------------------------------------------------

/// The handler every accept is compared with: reads the body, answers 200, keeps nothing.
fn bare(port: u16) {
    use actix_web::{App, HttpResponse, HttpServer, web};
    actix_web::rt::System::new()
        .block_on(async {
            let server = HttpServer::new(|| {
                App::new().route("/", web::post().to(|_body: web::Bytes| async { HttpResponse::Ok().finish() }))
            });
            server.bind(("127.0.0.1", port)).unwrap().run().await
        })
        .unwrap();
}

struct Bare(Child, u16);

impl Bare {
    async fn start() -> Self {
        let port = world::free_port();
        let program = std::env::current_exe().unwrap();
        let child = Command::new(program).args(["bare", &port.to_string()]).stdout(Stdio::null()).spawn().unwrap();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self(child, port)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn accepts(postgres: bool) {
    let world = World::with(Wish { postgres, log: "warn", ..Wish::default() }).await;
    // Sends wait, so that what is measured is accepting and planning; both go on at once in real life.
    let pause = format!("/api/v1/channels/{}/pause", world.channel);
    assert_eq!(world.post(&pause, json!({"reason": "load"})).await.0, 200);
    let port: u16 = world.base().rsplit_once(':').unwrap().1.parse().unwrap();
    let secret = world.portal.app(&world.client_id).unwrap().application_token;
    let (member, domain) = (world.portal.member_id(), world.portal.domain());
    let callback = move |number: u64| {
        format!(
            "workflow_id=6a4d1c0f2b7e93.{number}&code=send_message&document_id%5B0%5D=crm\
             &document_id%5B1%5D=CCrmDocumentDeal&document_id%5B2%5D=DEAL_{deal}&document_type%5B0%5D=crm\
             &document_type%5B1%5D=CCrmDocumentDeal&document_type%5B2%5D=DEAL\
             &event_token=6a4d1c0f2b7e93.{number}%7CA70120_33921_55810_90112%7CkW3xJq8ZpL0vYt6RbN1mC4dF7gH2sT5u.9f0c2d4e6b8a1c3e5f7091b3d5f7a9c1\
             &properties%5Brecipients%5D=given&properties%5Bphones%5D%5B0%5D=%2B79{phone:09}\
             &properties%5Btext%5D=%D0%97%D0%B0%D0%BA%D0%B0%D0%B7+{number}+%D0%B3%D0%BE%D1%82%D0%BE%D0%B2\
             &use_subscription=N&timeout_duration=0&ts=1767021111&auth%5Bdomain%5D={domain}\
             &auth%5Bmember_id%5D={member}&auth%5Bapplication_token%5D={secret}",
            deal = number + 1,
            phone = number % 1_000_000_000,
        )
    };
    let path = "/bitrix24/main/robots/send_message";
    let bare = Bare::start().await;
    println!("store: {}", if postgres { "PostgreSQL" } else { "SQLite, synchronous=FULL" });
    println!(
        "{:>4} {:>10} {:>10} {:>7} {:>8} {:>8} {:>8} {:>6}",
        "run", "bare/s", "accepts/s", "ratio", "p50 ms", "p99 ms", "CPU µs", "steal"
    );
    let (mut ratios, mut rates, mut p99s) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=RUNS {
        let steal = Steal::now();
        let [hello, ..] = run(bare.1, "/", callback.clone(), None).await;
        let (_, cpu_before) = usage(world.pid());
        let [rate, p50, p99] = run(port, path, callback.clone(), None).await;
        let (_, cpu_after) = usage(world.pid());
        let cpu = (cpu_after - cpu_before) / (rate * RUN.as_secs_f64()) * 1e6;
        println!(
            "{number:>4} {hello:>10.0} {rate:>10.0} {:>7.3} {p50:>8.2} {p99:>8.2} {cpu:>8.0} {:>6.2}",
            rate / hello,
            steal.since()
        );
        ratios.push(rate / hello);
        rates.push(rate);
        p99s.push(p99);
    }
    println!("median: {:.0} accepts/s, ratio {:.3}, p99 {:.1} ms", median(rates.clone()), median(ratios), median(p99s));
    for pace in [1000.0, median(rates) / 2.0] {
        let [rate, p50, p99] = run(port, path, callback.clone(), Some(pace)).await;
        println!("paced at {pace:.0}/s: {rate:.0}/s, p50 {p50:.2} ms, p99 {p99:.2} ms");
    }
    let (rss, _) = usage(world.pid());
    println!("memory after it all: {rss:.0} MiB");
}

// --- deals ------------------------------------------------------------------------------------------------------

async fn deals(count: usize, postgres: bool, bucket: bool, rate: Option<f64>) {
    let mut wish = Wish { postgres, log: "info", no_bucket: !bucket, ..Wish::default() };
    wish.sandbox.graph.pair_limit = None;
    wish.sandbox.graph.batch_max = 20;
    wish.sandbox.graph.batch_linger_ms = 5;
    wish.sandbox.calls_kept = 0;
    if !bucket {
        wish.config = "[delivery]\nworkers = 256\n".into();
        wish.bitrix24 = "requests_per_second = 1000.0\nburst = 10000";
    }
    wish.channel = json!({"messages_per_second": rate.unwrap_or(10_000.0)});
    let world = World::with(wish).await;
    world.number.set_throughput(rate.map_or(0, |_| 80));
    let stage = world.robot(&json!({"recipients": "given", "phones": "{=Document:TITLE}", "template": "order_update:ru", "params": ["Анна", "{=Document:ID}"]}));
    let ids: Vec<i64> = (0..count).map(|n| world.portal.add_deal(&format!("+7916{n:07}"), 0).unwrap()).collect();
    let (idle, cpu_before) = usage(world.pid());
    let steal = Steal::now();
    let began = Instant::now();
    world.portal.move_items(DEAL, &ids, &stage).unwrap();
    let (mut accepted, mut sent, mut first, mut settled, mut replied) = (None, None, None, None, None);
    let limit = Duration::from_secs(300);
    while settled.is_none() || replied.is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(
            began.elapsed() < limit,
            "not done: {:?}\n{:?}",
            world.sandbox.counters(),
            world.sandbox.refusals().iter().take(5).collect::<Vec<_>>()
        );
        let at = Some(began.elapsed().as_secs_f64());
        let all = u64::try_from(count).unwrap();
        if accepted.is_none()
            && ids.last().and_then(|id| world.portal.deal_run(*id)).is_some_and(|run| run.callback_status.is_some())
        {
            accepted = at;
        }
        if sent.is_none() && world.sandbox.ledger().accepted() >= all {
            sent = at;
        }
        if first.is_none() && world.portal.timeline_total() >= count {
            first = at;
        }
        if first.is_some()
            && replied.is_none()
            && ids.iter().all(|id| world.portal.deal_run(*id).is_some_and(|run| run.finished_ms.is_some()))
        {
            replied = at;
        }
        if first.is_some()
            && settled.is_none()
            && ids.iter().all(|id| world.comments(*id).iter().any(|c| c.text.contains("Прочитано")))
        {
            settled = at;
        }
    }
    let (peak, cpu_after) = usage(world.pid());
    let total = settled.unwrap().max(replied.unwrap());
    let show = |what: &str, at: Option<f64>| println!("{what:<44} {:>8.2} s", at.unwrap_or(0.0));
    println!(
        "{count} deals, {}, bucket {}, provider {}",
        if postgres { "PostgreSQL" } else { "SQLite FULL" },
        if bucket { "on" } else { "off" },
        rate.map_or("unthrottled".to_owned(), |r| format!("at {r}/s"))
    );
    show("last callback answered", accepted);
    show("last message at the provider", sent);
    show("last card has its comment", first);
    show("last comment in its final state", settled);
    show("last robot has its result", replied);
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    let n = count as f64;
    println!("{:<44} {:>8.0} /s", "deals per second, to the last comment", n / first.unwrap());
    println!("{:<44} {:>8.0} /s", "deals per second, to the very last", n / total);
    println!("{:<44} {:>8.0} µs", "CPU of the service per deal", (cpu_after - cpu_before) / n * 1e6);
    println!("{:<44} {:>5.0} → {:.0} MiB", "memory, idle and after", idle, peak);
    println!("{:<44} {:>8}", "calls to the portal", world.sandbox.counter("rest.batch"));
    println!("{:<44} {:>8}", "messages sent twice", world.sandbox.ledger().repeated());
    println!("{:<44} {:>8.2}", "steal, cores", steal.since());
}

// --- start ------------------------------------------------------------------------------------------------------

async fn start(postgres: bool) {
    let mut world = World::with(Wish { postgres, log: "info", ..Wish::default() }).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("memory at rest: {:.0} MiB", usage(world.pid()).0);
    let mut times = Vec::new();
    for _ in 0..9 {
        world.kill();
        let began = Instant::now();
        world.restart().await;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    println!(
        "start to ready: median {:.0} ms of {:?}",
        median(times.clone()),
        times.iter().map(|t| t.round()).collect::<Vec<_>>()
    );
}
