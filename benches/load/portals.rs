//! An installation with many portals, of which one in a hundred has something to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::{App, HttpResponse, HttpServer, web};
use futures_util::{StreamExt, stream};
use mostik::storage::sealed::Sealer;
use sandbox::{NumberSpec, Portal};
use serde_json::{Value, json};

use crate::accepts::callback;
use crate::client::Line;
use crate::fill::Store;
use crate::measure::{Steal, load, now_ms, store_name, threads, usage};
use crate::world::{self, DEAL, MASTER_KEY, SOON, Wish, World};

/// One of so many portals is active.
const ACTIVE: usize = 100;
/// Messages of each active portal.
const DEALS: usize = 3;
/// Portals written at once.
const PAGE: usize = 2_000;

/// An active portal.
struct Busy {
    portal: Portal,
    stage: String,
    line: String,
}

/// Installs `count` portals, with tokens, lines and channels, and lets one in a hundred work.
pub(crate) async fn portals(count: usize, postgres: bool) {
    let mut wish = Wish { postgres, log: "warn", ..Wish::default() };
    wish.sandbox.graph.pair_limit = None;
    wish.sandbox.calls_kept = 0;
    wish.channel = json!({"messages_per_second": 1000});
    let mut world = World::with(wish).await;
    world.number.set_throughput(0);
    println!("store: {}, {count} portals, load {}", store_name(postgres), load());
    tokio::time::sleep(Duration::from_secs(2)).await;
    show(&world, "one portal, at rest");

    let busy = busy(&mut world, count / ACTIVE).await;
    let quiet_at = quiet_portals();
    world.kill();
    let began = Instant::now();
    furnish(&world, &busy, count, quiet_at).await;
    println!("{:<44} {:>8.1} s", "portals written", began.elapsed().as_secs_f64());

    let mut firsts = Vec::new();
    for _ in 0..5 {
        world.kill();
        firsts.push(first_answer(&mut world).await);
    }
    println!("{:<44} {:>8.0} ms", "start to the first answered callback", crate::measure::median(firsts));
    world.until_ready().await;
    show(&world, "started");
    let steal = Steal::now();
    let began = Instant::now();
    let (_, cpu_before) = usage(world.pid());
    let mut deals = Vec::new();
    for (place, busy) in busy.iter().enumerate() {
        for nth in 0..DEALS {
            let deal = busy.portal.add_deal(&format!("+7916{:07}", place * DEALS + nth), 0).unwrap();
            busy.portal.move_item(DEAL, deal, &busy.stage).unwrap();
            deals.push((&busy.portal, deal));
        }
    }
    let is_read =
        |(portal, deal): &(&Portal, i64)| portal.timeline(DEAL, *deal).iter().any(|c| c.text.contains("Прочитано"));
    world.within(SOON * 15, "every message is read on its card", |_| deals.iter().all(is_read)).await;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{:<44} {:>8.1} s, steal {:.2}",
        format!("{} deals moved, all read on their cards", deals.len()),
        seconds,
        steal.since()
    );
    println!(
        "{:<44} {:>8.0} %",
        "CPU of the service meanwhile, of one core",
        (usage(world.pid()).1 - cpu_before) / seconds * 100.0
    );
    show(&world, "with one in a hundred active");
    assert_eq!(world.sandbox.ledger().repeated(), 0, "messages were sent twice");
    // Every portal's registrations are compared after a start; memory must not follow their number.
    let (began, mut most) = (Instant::now(), 0.0_f64);
    let (_, cpu_before) = usage(world.pid());
    while began.elapsed() < Duration::from_secs(90) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        most = most.max(usage(world.pid()).0);
    }
    println!("{:<44} {most:>8.0} MiB", "most memory while portals are compared");
    println!(
        "{:<44} {:>8.0} %",
        "CPU of the service meanwhile, of one core",
        (usage(world.pid()).1 - cpu_before) / 90.0 * 100.0
    );
    show(&world, "at the end");
}

fn show(world: &World, what: &str) {
    let (memory, _) = usage(world.pid());
    println!("{:<44} {memory:>8.0} MiB, {} threads", format!("memory, {what}"), threads(world.pid()));
}

/// Real portals with a line and a number each.
async fn busy(world: &mut World, count: usize) -> Vec<Busy> {
    let mut lines = Vec::new();
    let usual = world.line.clone();
    for number in 0..count.max(1) {
        let (status, line) = world.post("/api/v1/lines", json!({"name": format!("Продажи {number}")})).await;
        assert_eq!(status, 201, "{line}");
        world.line = line["id"].as_str().unwrap().to_owned();
        let spec = NumberSpec { verify_token: "verify-me".into(), throughput: 0, ..NumberSpec::default() };
        let number = world.sandbox.add_number(spec).unwrap();
        world.channel_of(&number, json!({"messages_per_second": 1000})).await;
        lines.push(world.line.clone());
    }
    world.line = usual;
    let (world, properties) = (
        &*world,
        json!({"recipients": "given", "phones": "{=Document:TITLE}", "template": "order_update:ru", "params": ["Анна", "{=Document:ID}"]}),
    );
    let properties = &properties;
    stream::iter(lines)
        .map(|line| async move {
            let (portal, stage) = world.other_portal(properties).await;
            Busy { portal, stage, line }
        })
        .buffer_unordered(8)
        .collect()
        .await
}

/// Writes the quiet portals, and binds the lines of the active ones.
async fn furnish(world: &World, busy: &[Busy], count: usize, quiet_at: u16) {
    let store = Store::open(&world.database()).await;
    let now = now_ms();
    let sealer = Arc::new(Sealer::new(MASTER_KEY, &[]).unwrap());
    let seal = |place: String, text: &str| sealer.seal(&place, text).unwrap();
    for busy in busy {
        let id = format!("SELECT id FROM portals WHERE member_id = '{}'", busy.portal.member_id());
        let id = store.text(&id).await;
        store
            .insert("portal_lines (portal_id, line_id, bound_ms)", &[format!("('{id}', '{}', {now})", busy.line)])
            .await;
    }
    let view = world.number.view();
    let credentials = json!({
        "phone_number_id": view.spec.phone_number_id,
        "waba_id": view.spec.waba_id,
        "access_token": view.spec.access_token,
        "app_secret": view.spec.app_secret,
        "verify_token": "verify-me",
    })
    .to_string();
    let pair = json!({"access": "a".repeat(70), "refresh": "r".repeat(70)}).to_string();
    let numbers: Vec<usize> = (busy.len() + 1..count).collect();
    for page in numbers.chunks(PAGE) {
        let mut rows: [Vec<String>; 7] = Default::default();
        for number in page {
            // Each stands at an address of its own, so that no two share a connection.
            let host = format!("127.{}.{}.{}", 1 + number / 62_500, number / 250 % 250, 1 + number % 250);
            let ulid = format!("01J0000000000000{number:010}");
            let (portal, line, channel) = (format!("prt_{ulid}"), format!("line_{ulid}"), format!("chan_{ulid}"));
            let secret = seal(format!("portals.application_token:{portal}"), &"t".repeat(32));
            let sealed = seal(format!("portal_tokens.pair:{portal}:1"), &pair);
            let keys = seal(format!("channels.credentials:{channel}"), &credentials);
            let place = format!("http://{host}:{quiet_at}/rest/");
            rows[0].push(format!(
                "('{portal}', 'bitrix24', 'main', 'quiet{number:027}', '{host}:{quiet_at}', '{place}', '{place}', '{secret}', \
                 'ru', 'installed', '', {now}, {now})"
            ));
            rows[1].push(format!("('{portal}', '1', 1, '{sealed}', NULL, {}, {now}, 0)", now + 3_600_000));
            rows[2].push(format!("('{portal}', 'robot:send_message', '{}')", "0".repeat(64)));
            rows[3].push(format!("('{line}', 'Продажи', {now})"));
            rows[4].push(format!(
                "('{channel}', '{line}', 'whatsapp_cloud', '+7 495', '{keys}', '{{}}', 'active', '', {now}, {now})"
            ));
            rows[5].push(format!("('{portal}', '{line}', {now})"));
            rows[6].extend([format!("('crm:{portal}')"), format!("('in:{portal}')"), format!("('out:{channel}')")]);
        }
        for (into, rows) in [
            "portals (id, crm, app, member_id, domain, client_endpoint, server_endpoint, application_token, language, state, \
             state_reason, installed_ms, changed_ms)",
            "portal_tokens (portal_id, user_id, is_admin, pair, before, expires_ms, obtained_ms, dead)",
            "registrations (portal_id, key, fingerprint)",
            "lines (id, name, created_ms)",
            "channels (id, line_id, provider, name, credentials, settings, state, state_reason, created_ms, changed_ms)",
            "portal_lines (portal_id, line_id, bound_ms)",
            "queues (key)",
        ]
        .into_iter()
        .zip(&rows)
        {
            store.insert(into, rows).await;
        }
    }
    store.analyze().await;
    store.close().await;
}

/// Milliseconds from the start of the process to the first callback that it answers with 200.
async fn first_answer(world: &mut World) -> f64 {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let request = callback(world)(NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let port = world.service.port();
    let began = Instant::now();
    world.service.start();
    loop {
        if let Some(mut line) = Line::open(port).await
            && line.post(&request).await == 200
        {
            return began.elapsed().as_secs_f64() * 1000.0;
        }
        assert!(began.elapsed() < SOON, "no answer: {}", world.log());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A portal that has nothing registered and takes whatever is registered, at every loopback address; gives the port. It
/// stands for the quiet ones: what they answer only has to be cheap.
fn quiet_portals() -> u16 {
    let port = world::free_port();
    let answer = |body: web::Json<Value>| async move {
        let commands = body.get("cmd").and_then(Value::as_object).cloned().unwrap_or_default();
        let results = commands.into_iter().map(|(key, command)| {
            let method = command.as_str().unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
            let result = match method.as_str() {
                "scope" => json!(["crm", "bizproc"]),
                "bizproc.robot.list" | "event.get" => json!([]),
                _ => json!(true),
            };
            (key, result)
        });
        let results: serde_json::Map<String, Value> = results.collect();
        HttpResponse::Ok().json(json!({"result": {"result": results, "result_error": [], "result_time": []}}))
    };
    std::thread::spawn(move || {
        let server = HttpServer::new(move || App::new().route("/rest/batch", web::post().to(answer))).workers(1);
        let running = server.bind(("0.0.0.0", port)).unwrap().disable_signals().run();
        actix_web::rt::System::new().block_on(running).unwrap();
    });
    port
}
