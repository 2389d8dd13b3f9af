//! Signed callbacks of the vendor at a fixed rate, and the proof that none was lost.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;

use crate::accepts::{Bare, bare_request};
use crate::client::{Figures, Numbers, Pace, Request, run};
use crate::fill::{Lot, Store, message_id, provider_id};
use crate::measure::{RUNS, Steal, load, median, now_ms, store_name, usage};
use crate::world::{Wish, World};

/// Callbacks per second.
const RATE: f64 = 3000.0;
/// Messages of one run; each is told of three times.
const MESSAGES: u64 = 5000;
/// So many messages later than "sent" comes "delivered", and so many later again "read": a second each.
const APART: u64 = 1000;
const STEPS: [&str; 3] = ["sent", "delivered", "read"];

/// What the vendor signs with and names in its callbacks.
#[derive(Clone)]
struct Sender {
    path: String,
    secret: String,
    waba: String,
    number: String,
    phone: String,
    /// Seconds.
    now: i64,
}

impl Sender {
    /// The callback with this number. A run tells "sent", "delivered" and "read" of its messages in turn, at the end of
    /// its messages going back to the first: so some steps come in the wrong order, as they do in life.
    fn callback(&self, number: u64) -> Request {
        let (lot, place) = (number / (3 * MESSAGES), number % (3 * MESSAGES));
        let (turn, step) = (place / 3, place % 3);
        let message = lot * MESSAGES + (turn + MESSAGES - step * APART) % MESSAGES;
        let status = json!({
            "id": provider_id(message),
            "status": STEPS[usize::try_from(step).unwrap()],
            "timestamp": self.now.to_string(),
            "recipient_id": "79161234567",
            "biz_opaque_callback_data": message_id(message),
            "conversation": {"id": "4b1d7c2e9f", "origin": {"type": "utility"}},
            "pricing": {"billable": true, "pricing_model": "PMP", "category": "utility", "type": "regular"},
        });
        let metadata = json!({"display_phone_number": self.phone, "phone_number_id": self.number});
        let value = json!({"messaging_product": "whatsapp", "metadata": metadata, "statuses": [status]});
        let body = json!({
            "object": "whatsapp_business_account",
            "entry": [{"id": self.waba, "changes": [{"value": value, "field": "messages"}]}],
        })
        .to_string();
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).unwrap();
        mac.update(body.as_bytes());
        let mut head = "Content-Type: application/json\r\nX-Hub-Signature-256: sha256=".to_owned();
        for byte in mac.finalize().into_bytes() {
            write!(head, "{byte:02x}").unwrap();
        }
        head.push_str("\r\n");
        Request { path: self.path.clone(), head, body }
    }
}

/// Posts [`RATE`] callbacks a second in five runs, and then asks the database.
pub(crate) async fn statuses(postgres: bool) {
    let mut world = World::with(Wish { postgres, log: "warn", ..Wish::default() }).await;
    let runs = u64::try_from(RUNS).unwrap();
    let cards: Vec<i64> = (0..runs * MESSAGES).map(|_| world.portal.add_deal("Заказ", 0).unwrap()).collect();
    world.kill();
    let store = Store::open(&world.database()).await;
    let portal = store.text("SELECT id FROM portals").await;
    let now = now_ms();
    // What has just been accepted, with a card each: every step is told there too, at the pace of the portal's limit.
    let lot = Lot {
        from: 0,
        to: runs * MESSAGES,
        portal: format!("'{portal}'"),
        channel: format!("'{}'", world.channel),
        card: format!("'deal:' || CAST(n.i + {} AS TEXT)", cards[0]),
        state: ("accepted", 2),
        since: now - 60_000,
        step: 0,
    };
    lot.write(&store).await;
    store.analyze().await;
    store.close().await;
    world.restart().await;

    let view = world.number.view();
    let sender = Sender {
        path: format!("/webhooks/whatsapp_cloud/{}", world.channel),
        secret: view.spec.app_secret,
        waba: view.spec.waba_id,
        number: view.spec.phone_number_id,
        phone: view.spec.display_phone_number,
        now: now / 1000,
    };
    let callback = move |number: u64| sender.callback(number);
    let port = world.service.port();
    let (bare, numbers, bare_numbers) = (Bare::start().await, Numbers::default(), Numbers::default());
    println!("store: {}, {RATE:.0} callbacks a second, load {}", store_name(postgres), load());
    println!(
        "{:>4} {:>8} {:>8} {:>8} {:>12} {:>12} {:>8} {:>6}",
        "run", "reached", "p50 ms", "p99 ms", "bare p50 ms", "bare p99 ms", "CPU µs", "steal"
    );
    let (mut p50s, mut p99s) = (Vec::new(), Vec::new());
    let count = 3 * MESSAGES;
    for number in 1..=RUNS {
        let steal = Steal::now();
        let (_, cpu_before) = usage(world.pid());
        let Figures { rate, p50, p99 } = run(port, callback.clone(), &numbers, Pace::Open(RATE, count)).await;
        let (_, cpu_after) = usage(world.pid());
        let hello = run(bare.port(), bare_request(&callback), &bare_numbers, Pace::Open(RATE, count)).await;
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        let cpu = (cpu_after - cpu_before) / count as f64 * 1e6;
        println!(
            "{number:>4} {rate:>8.0} {p50:>8.2} {p99:>8.2} {:>12.2} {:>12.2} {cpu:>8.0} {:>6.2}",
            hello.p50,
            hello.p99,
            steal.since()
        );
        p50s.push(p50);
        p99s.push(p99);
    }
    println!("median: p50 {:.2} ms, p99 {:.2} ms; none was refused", median(p50s), median(p99s));
    prove(&world, runs * MESSAGES).await;
}

/// Every message is read, and every step has its time.
async fn prove(world: &World, messages: u64) {
    let store = Store::open(&world.database()).await;
    let whole = "SELECT COUNT(*) FROM messages WHERE state = 'read' AND sent_ms IS NOT NULL AND delivered_ms IS NOT NULL \
                 AND read_ms IS NOT NULL";
    let told = store.number(whole).await;
    assert_eq!(u64::try_from(told).unwrap(), messages, "callbacks were answered with 200 and lost");
    let comments = store.number("SELECT COUNT(*) FROM jobs WHERE kind = 'comment'").await;
    println!(
        "none was lost: {told} messages are read with all their times; {comments} comments still wait for the portal's limit"
    );
    store.close().await;
}
