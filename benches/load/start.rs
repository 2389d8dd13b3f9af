//! Time from start to ready.

use std::time::{Duration, Instant};

use crate::measure::{median, usage};
use crate::world::{Wish, World};

/// Kills and starts the service on its database.
pub(crate) async fn start(postgres: bool) {
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
