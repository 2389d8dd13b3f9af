//! Deals moved at once, through the whole pipeline.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::measure::{Steal, usage};
use crate::world::{DEAL, Wish, World};

/// A portal whose deals fire a waiting robot.
pub(crate) struct Scene {
    /// The world it is in.
    pub(crate) world: World,
    stage: String,
    moved: usize,
}

/// How one move of many deals went; moments are seconds after it.
pub(crate) struct Outcome {
    accepted: Option<f64>,
    sent: Option<f64>,
    /// The last card has its comment.
    first: f64,
    /// The last comment is in its final state.
    settled: f64,
    /// The last robot has its result.
    replied: f64,
    /// CPU seconds of the service.
    pub(crate) cpu: f64,
}

impl Outcome {
    /// When the last message had reached its card in its final state.
    pub(crate) fn settled(&self) -> f64 {
        self.settled
    }
}

impl Scene {
    /// `bucket`: the portal counts requests and their time; `rate`: messages a second that the provider takes.
    pub(crate) async fn set(postgres: bool, bucket: bool, rate: Option<f64>) -> Self {
        let mut wish = Wish { postgres, log: "info", no_bucket: !bucket, ..Wish::default() };
        wish.sandbox.graph.pair_limit = None;
        wish.sandbox.graph.batch_max = 20;
        wish.sandbox.graph.batch_linger_ms = 5;
        wish.sandbox.calls_kept = 0;
        // A vendor does not wait for one answer of ours before the next call; few senders would measure our commits.
        wish.sandbox.senders = 256;
        if !bucket {
            wish.config = "[delivery]\nworkers = 256\n".into();
            wish.bitrix24 = "requests_per_second = 1000.0\nburst = 10000";
        }
        wish.channel = json!({"messages_per_second": rate.unwrap_or(10_000.0)});
        let world = World::with(wish).await;
        world.number.set_throughput(rate.map_or(0, |_| 80));
        let stage = world.robot(&json!({"recipients": "given", "phones": "{=Document:TITLE}", "template": "order_update:ru", "params": ["Анна", "{=Document:ID}"]}));
        Self { world, stage, moved: 0 }
    }

    /// Moves so many new deals at once and waits for the last of everything.
    pub(crate) async fn run(&mut self, count: usize) -> Outcome {
        let world = &self.world;
        let before = self.moved;
        self.moved += count;
        let phone = |n: usize| format!("+7916{n:07}");
        let ids: Vec<i64> = (before..self.moved).map(|n| world.portal.add_deal(&phone(n), 0).unwrap()).collect();
        let (_, cpu_before) = usage(world.pid());
        let began = Instant::now();
        world.portal.move_items(DEAL, &ids, &self.stage).unwrap();
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
            let run = |id: &i64| world.portal.deal_run(*id);
            if accepted.is_none() && ids.last().and_then(run).is_some_and(|run| run.callback_status.is_some()) {
                accepted = at;
            }
            if sent.is_none() && world.sandbox.ledger().accepted() >= u64::try_from(self.moved).unwrap() {
                sent = at;
            }
            if first.is_none() && world.portal.timeline_total() >= self.moved {
                first = at;
            }
            if first.is_none() {
                continue;
            }
            if replied.is_none() && ids.iter().all(|id| run(id).is_some_and(|run| run.finished_ms.is_some())) {
                replied = at;
            }
            let is_read = |id: &i64| world.comments(*id).iter().any(|c| c.text.contains("Прочитано"));
            if settled.is_none() && ids.iter().all(is_read) {
                settled = at;
            }
        }
        let (_, cpu_after) = usage(world.pid());
        let (first, settled, replied) = (first.unwrap(), settled.unwrap(), replied.unwrap());
        assert_eq!(world.sandbox.ledger().repeated(), 0, "messages were sent twice");
        Outcome { accepted, sent, first, settled, replied, cpu: cpu_after - cpu_before }
    }
}

/// Prints how one move of `count` deals went.
pub(crate) async fn deals(count: usize, postgres: bool, bucket: bool, rate: Option<f64>) {
    let mut scene = Scene::set(postgres, bucket, rate).await;
    let (idle, _) = usage(scene.world.pid());
    let steal = Steal::now();
    let outcome = scene.run(count).await;
    let world = &scene.world;
    let (peak, _) = usage(world.pid());
    let total = outcome.settled.max(outcome.replied);
    let show = |what: &str, at: Option<f64>| println!("{what:<44} {:>8.2} s", at.unwrap_or(0.0));
    println!(
        "{count} deals, {}, bucket {}, provider {}",
        if postgres { "PostgreSQL" } else { "SQLite FULL" },
        if bucket { "on" } else { "off" },
        rate.map_or("unthrottled".to_owned(), |r| format!("at {r}/s"))
    );
    show("last callback answered", outcome.accepted);
    show("last message at the provider", outcome.sent);
    show("last card has its comment", Some(outcome.first));
    show("last comment in its final state", Some(outcome.settled));
    show("last robot has its result", Some(outcome.replied));
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    let n = count as f64;
    println!("{:<44} {:>8.0} /s", "deals per second, to the last comment", n / outcome.first);
    println!("{:<44} {:>8.0} /s", "deals per second, to the very last", n / total);
    println!("{:<44} {:>8.0} µs", "CPU of the service per deal", outcome.cpu / n * 1e6);
    println!("{:<44} {:>5.0} → {:.0} MiB", "memory, idle and after", idle, peak);
    println!("{:<44} {:>8}", "calls to the portal", world.sandbox.counter("rest.batch"));
    println!("{:<44} {:>8}", "messages sent twice", world.sandbox.ledger().repeated());
    println!("{:<44} {:>8.2}", "steal, cores", steal.since());
}
