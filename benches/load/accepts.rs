//! Durable accepts per second beside a bare handler.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;

use crate::client::{Figures, Numbers, Pace, RUN, Request, run};
use crate::measure::{RUNS, Steal, load, median, store_name, usage};
use crate::world::{self, Wish, World};

/// The handler every accept is compared with: reads the body, answers 200, keeps nothing.
pub(crate) fn bare(port: u16) {
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

pub(crate) struct Bare(Child, u16);

impl Bare {
    pub(crate) async fn start() -> Self {
        let port = world::free_port();
        let program = std::env::current_exe().unwrap();
        let child = Command::new(program).args(["bare", &port.to_string()]).stdout(Stdio::null()).spawn().unwrap();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self(child, port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.1
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Callbacks of a robot in the world's portal, by number: another deal, token and phone each.
pub(crate) fn callback(world: &World) -> impl Fn(u64) -> Request + Clone + Send + Sync + 'static {
    let secret = world.portal.app(&world.client_id).unwrap().application_token;
    let (member, domain) = (world.portal.member_id(), world.portal.domain());
    // A call that comes late is compared with those that were given up for lost.
    let ts = crate::measure::now_ms() / 1000;
    move |number: u64| {
        let body = format!(
            "workflow_id=6a4d1c0f2b7e93.{number}&code=send_message&document_id%5B0%5D=crm\
             &document_id%5B1%5D=CCrmDocumentDeal&document_id%5B2%5D=DEAL_{deal}&document_type%5B0%5D=crm\
             &document_type%5B1%5D=CCrmDocumentDeal&document_type%5B2%5D=DEAL\
             &event_token=6a4d1c0f2b7e93.{number}%7CA70120_33921_55810_90112%7CkW3xJq8ZpL0vYt6RbN1mC4dF7gH2sT5u.9f0c2d4e6b8a1c3e5f7091b3d5f7a9c1\
             &properties%5Brecipients%5D=given&properties%5Bphones%5D%5B0%5D=%2B79{phone:09}\
             &properties%5Btext%5D=%D0%97%D0%B0%D0%BA%D0%B0%D0%B7+{number}+%D0%B3%D0%BE%D1%82%D0%BE%D0%B2\
             &use_subscription=N&timeout_duration=0&ts={ts}&auth%5Bdomain%5D={domain}\
             &auth%5Bmember_id%5D={member}&auth%5Bapplication_token%5D={secret}",
            deal = number + 1,
            phone = number % 1_000_000_000,
        );
        Request::form("/bitrix24/main/robots/send_message", body)
    }
}

/// The same for the bare handler, which has one address.
pub(crate) fn bare_request<F: Fn(u64) -> Request + Clone>(of: &F) -> impl Fn(u64) -> Request + use<F> {
    let of = of.clone();
    move |number| Request { path: "/".to_owned(), ..of(number) }
}

/// Robots' calls as fast as they are answered, in five runs, and then at a fixed rate.
pub(crate) async fn accepts(postgres: bool) {
    let world = World::with(Wish { postgres, log: "warn", ..Wish::default() }).await;
    // Sends wait, so that what is measured is accepting and planning; both go on at once in real life.
    let pause = format!("/api/v1/channels/{}/pause", world.channel);
    assert_eq!(world.post(&pause, json!({"reason": "load"})).await.0, 200);
    let port = world.service.port();
    let callback = callback(&world);
    let (bare, numbers) = (Bare::start().await, Numbers::default());
    println!("store: {}, load {}", store_name(postgres), load());
    println!(
        "{:>4} {:>10} {:>10} {:>7} {:>8} {:>8} {:>8} {:>6}",
        "run", "bare/s", "accepts/s", "ratio", "p50 ms", "p99 ms", "CPU µs", "steal"
    );
    let (mut ratios, mut rates, mut p99s) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=RUNS {
        let steal = Steal::now();
        let hello = run(bare.port(), bare_request(&callback), &numbers, Pace::Full(RUN)).await.rate;
        let (_, cpu_before) = usage(world.pid());
        let Figures { rate, p50, p99 } = run(port, callback.clone(), &numbers, Pace::Full(RUN)).await;
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
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let count = (pace * RUN.as_secs_f64()) as u64;
        let Figures { rate, p50, p99 } = run(port, callback.clone(), &numbers, Pace::Open(pace, count)).await;
        println!("paced at {pace:.0}/s: {rate:.0}/s, p50 {p50:.2} ms, p99 {p99:.2} ms");
    }
    let (rss, _) = usage(world.pid());
    println!("memory after it all: {rss:.0} MiB");
}
