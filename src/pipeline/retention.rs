//! Tidying up: what is old enough is blanked or deleted, slowly, beside the work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Pipeline;
use crate::domain::time::Millis;
use crate::storage::StorageError;
use crate::storage::retention::{Growth, Retention, Rule, TABLES};
use crate::telemetry;

/// When tidying is done, and how long what is kept.
#[derive(Clone, Copy, Debug)]
pub struct RetentionPlan {
    /// How often everything is looked through.
    pub every: Millis,
    /// How long what is kept.
    pub keep: Retention,
}

/// First pass after a start: the work that waited comes first.
const FIRST: Millis = Millis::minutes(1);
/// After each step the store rests so many times as long as the step took, so that tidying has a fifth of it at most.
const REST: u32 = 4;
/// Shortest rest.
const REST_MIN: Duration = Duration::from_millis(5);

/// Tidies up until `stop`. With several replicas each pass is made by one of them.
pub async fn run(pipeline: Arc<Pipeline>, plan: RetentionPlan, stop: CancellationToken) {
    let mut wait = Millis(FIRST.0.min(plan.every.0));
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait.to_duration()) => {}
            () = stop.cancelled() => return,
        }
        wait = plan.every;
        // A little less than the whole time, so that the last pass's own length and the clock's step do not skip one.
        let since_last = Millis(plan.every.0 / 10 * 9);
        let passed = match pipeline.storage.claim_purge(pipeline.worker.as_str(), since_last).await {
            Ok(true) => pass(&pipeline, &plan.keep, &stop).await,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = passed {
            tracing::warn!(%error, "old rows were not all treated; the next pass goes on");
        }
    }
}

async fn pass(pipeline: &Pipeline, keep: &Retention, stop: &CancellationToken) -> Result<(), StorageError> {
    for (_, growth) in TABLES {
        let Growth::Grows(rules) = growth else { continue };
        for rule in *rules {
            let Some(age) = (rule.age)(keep) else { continue };
            let rows = apply(pipeline, rule, age, stop).await?;
            if rows > 0 {
                tracing::info!(table = rule.table, act = rule.act.code(), rows, "old rows treated");
            }
        }
    }
    Ok(())
}

async fn apply(pipeline: &Pipeline, rule: &Rule, age: Millis, stop: &CancellationToken) -> Result<u64, StorageError> {
    let before = pipeline.clock.now().plus(Millis(-age.0));
    let (mut after, mut rows) = (String::new(), 0);
    while !stop.is_cancelled() {
        let began = Instant::now();
        let purged = pipeline.storage.purge(rule, &after, before).await?;
        telemetry::purged(rule.table, rule.act.code(), purged.rows);
        rows += purged.rows;
        match purged.next {
            None => break,
            Some(next) => after = next,
        }
        tokio::time::sleep((began.elapsed() * REST).max(REST_MIN)).await;
    }
    Ok(rows)
}
