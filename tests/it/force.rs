//! Everything at once: random trouble with the processes, the database, the disk, the provider and the portal, while
//! callbacks and statuses come twice and in the wrong order. Bounded by default; `docs/FORCE.md` says how to run it for
//! hours, and how to run one seed again.

use std::time::Duration;

use crate::arena::{Arena, Trouble, ordeal};
use crate::world::Wish;

/// A number from the environment.
fn told(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "how long and with which seed, is told by the environment")]
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}

async fn force(replicas: usize, kinds: &[Trouble]) {
    let seed = told("MOSTIK_FORCE_SEED").unwrap_or_else(rand::random);
    let seconds = told("MOSTIK_FORCE_SECONDS").unwrap_or(15);
    eprintln!("seed {seed}, {seconds} s");
    let own_server = kinds.contains(&Trouble::DatabaseEnds);
    let mut wish = Wish { postgres: replicas > 1, no_bucket: true, ..Wish::default() };
    wish.sandbox.seed = Some(seed);
    let mut arena = Arena::new(replicas, seed, wish, "1s", own_server).await;
    arena.world.sandbox.set_queue_knobs(|knobs| {
        knobs.duplicate = 1;
        knobs.jitter_ms = 200;
    });
    arena.world.sandbox.set_webhook_knobs(|knobs| {
        knobs.duplicate = 2;
        knobs.jitter_ms = 300;
    });
    ordeal(&mut arena, kinds, Duration::from_secs(seconds)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_on_sqlite_keeps_its_promises_by_force() {
    use Trouble::{DiskFull, Kill, NoPortal, NoProvider, Pause, Restart};
    force(1, &[Kill, Pause, Restart, NoProvider, NoPortal, DiskFull]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_on_postgres_keep_their_promises_by_force() {
    use Trouble::{Cut, DatabaseEnds, Kill, NoPortal, NoProvider, Pause, Restart, Stall};
    force(3, &[Kill, Pause, Restart, Stall, Cut, NoProvider, NoPortal, DatabaseEnds]).await;
}
