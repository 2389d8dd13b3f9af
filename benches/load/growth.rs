//! Deals per second beside a history of thousands and of millions of rows.

use std::time::Instant;

use crate::deals::Scene;
use crate::fill::{Lot, ROWS_PER_MESSAGE, Store, home, homes};
use crate::measure::{RUNS, Steal, load, median, now_ms, store_name, usage};

/// Rows of history.
const SIZES: [u64; 3] = [1_000, 100_000, 3_000_000];
/// Portals, each with a line and a channel, among which they are spread.
const HOMES: u64 = 1_000;
/// Deals of one run.
const DEALS: usize = 1_000;
/// The history is as old as this: younger than anything that retention treats.
const AGE_MS: i64 = 25 * 24 * 3_600_000;

/// One row of the table.
struct Line {
    rate: f64,
    cpu: f64,
}

/// The same deals in one world whose history grows, and at the end in a fresh one, to see how the machine has changed.
pub(crate) async fn growth(postgres: bool, most: Option<u64>) {
    println!("store: {}, {DEALS} deals a run, limits off, load {}", store_name(postgres), load());
    println!(
        "{:>9} {:>9} {:>11} {:>9} {:>9} {:>9} {:>9} {:>7} {:>6}",
        "rows", "deals/s", "CPU µs/deal", "start ms", "ready ms", "gauges ms", "list ms", "MiB", "steal"
    );
    let mut scene = Scene::set(postgres, false, None).await;
    let (mut written, mut first) = (0, None);
    for rows in SIZES.into_iter().filter(|rows| most.is_none_or(|most| *rows <= most)) {
        scene.world.kill();
        let store = Store::open(&scene.world.database()).await;
        if written == 0 {
            homes(&store, HOMES, now_ms() - AGE_MS).await;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a count"
        )]
        let messages = (rows as f64 / ROWS_PER_MESSAGE) as u64;
        // In steps, so that a step's transaction stays small.
        while written < messages {
            let to = messages.min(written + 50_000);
            history(written, to).write(&store).await;
            history(written, to).traces(&store).await;
            written = to;
        }
        store.analyze().await;
        store.close().await;
        let line = measured(&mut scene, &rows.to_string()).await;
        let base = first.get_or_insert(line.rate);
        println!("{:>9} {:>+8.0}% of the first", "", line.rate / *base * 100.0 - 100.0);
    }
    drop(scene);
    let mut fresh = Scene::set(postgres, false, None).await;
    fresh.world.kill();
    measured(&mut fresh, "0, fresh").await;
}

fn history(from: u64, to: u64) -> Lot {
    let index = format!("(n.i % {HOMES})");
    Lot {
        from,
        to,
        portal: home("prt", &index),
        channel: home("chan", &index),
        card: "'deal:' || CAST(n.i AS TEXT)".to_owned(),
        state: ("read", 5),
        since: now_ms() - AGE_MS,
        step: 1_000,
    }
}

/// Starts the service and moves deals.
async fn measured(scene: &mut Scene, name: &str) -> Line {
    let began = Instant::now();
    scene.world.restart().await;
    let start = began.elapsed().as_secs_f64() * 1000.0;
    // The first run warms the caches, as the days before have in life.
    scene.run(DEALS).await;
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    let steal = Steal::now();
    for _ in 0..RUNS {
        let outcome = scene.run(DEALS).await;
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        let count = DEALS as f64;
        rates.push(count / outcome.settled());
        costs.push(outcome.cpu / count * 1e6);
    }
    let line = Line { rate: median(rates), cpu: median(costs) };
    let ready = asked(scene, "/readyz").await;
    let gauges = asked(scene, "/metrics").await;
    let list = asked(scene, "/api/v1/messages?limit=50").await;
    println!(
        "{name:>9} {:>9.0} {:>11.0} {start:>9.0} {ready:>9.1} {gauges:>9.1} {list:>9.1} {:>7.0} {:>6.2}",
        line.rate,
        line.cpu,
        usage(scene.world.pid()).0,
        steal.since()
    );
    line
}

/// How long an answer takes, in milliseconds: the median of five, a second apart, so that nothing is kept from the one
/// before.
async fn asked(scene: &Scene, path: &str) -> f64 {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let began = Instant::now();
        let (status, _) = scene.world.get(path).await;
        assert_eq!(status, 200, "{path}");
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    }
    median(times)
}
