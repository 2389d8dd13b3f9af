//! For operations: is it alive, is it ready, what does it count.

use std::time::{Duration, Instant};

use actix_web::{HttpResponse, web};
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;

use super::State;
use super::admin::Admin;
use super::problem::Problem;
use crate::domain::job::JobState;
use crate::domain::status::MessageState;
use crate::storage::StorageError;
use crate::telemetry;

/// The process runs.
pub async fn healthz() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain").body("ok\n")
}

/// The process can do its work: the store takes writes. A callback that cannot be stored is not acknowledged, so a
/// process that cannot store should get none.
pub async fn readyz(state: web::Data<State>) -> Result<HttpResponse, Problem> {
    state.storage.prove_writable().await.map_err(|error| {
        tracing::warn!(%error, "not ready");
        Problem::Unavailable
    })?;
    Ok(HttpResponse::Ok().content_type("text/plain").body("ready\n"))
}

/// When the gauges were last read, and how long that took.
#[derive(Default)]
pub struct Gauges(tokio::sync::Mutex<Option<(Instant, Duration)>>);

/// Reading the gauges takes at most one part in so many of the store's time, however often somebody asks and however
/// long the queue is; in between the last figures stand.
const GAUGES_SHARE: u32 = 20;

/// Metrics in Prometheus' text form; only with the administrator's token.
pub(super) async fn metrics(
    _: Admin,
    state: web::Data<State>,
    gauges: web::Data<Gauges>,
    handle: web::Data<PrometheusHandle>,
) -> HttpResponse {
    let mut last = gauges.0.lock().await;
    if last.is_none_or(|(at, took)| at.elapsed() >= took * GAUGES_SHARE) {
        let began = Instant::now();
        let measured = measure(&state).await;
        gauge!(telemetry::STORE_UP).set(if measured.is_ok() { 1.0 } else { 0.0 });
        if let Err(error) = measured {
            tracing::warn!(%error, "gauges could not be read");
        }
        *last = Some((Instant::now(), began.elapsed()));
    }
    drop(last);
    HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(handle.render())
}

/// Gauges are read when they are asked for, not all the time. They are of the whole store, so every replica tells the
/// same: whoever adds replicas up takes the largest.
#[expect(clippy::cast_precision_loss, reason = "counts and seconds far below 2^52")]
async fn measure(state: &State) -> Result<(), StorageError> {
    state.storage.prove_writable().await?;
    let counts = state.storage.count_jobs().await?;
    let count = |wanted: JobState| counts.iter().find(|count| count.state == wanted);
    for living in [JobState::Ready, JobState::Started, JobState::Unclear] {
        let jobs = count(living).map_or(0, |count| count.jobs);
        gauge!(telemetry::OUTBOX_DEPTH, "state" => living.code()).set(jobs as f64);
    }
    gauge!(telemetry::DEAD_LETTERS).set(count(JobState::Dead).map_or(0, |count| count.jobs) as f64);
    let now = state.clock.now();
    let waited = count(JobState::Ready).map_or(0, |count| now.since(count.first_due).0.max(0));
    gauge!(telemetry::OLDEST_DUE).set(waited as f64 / 1000.0);
    let oldest = state.storage.oldest_open().await?;
    for open in [MessageState::Queued, MessageState::Undecided, MessageState::Accepted, MessageState::Sent] {
        let since = oldest.iter().find(|(word, _)| word == open.code());
        let age = since.map_or(0, |(_, since)| state.clock.now().since(*since).0.max(0));
        gauge!(telemetry::OLDEST_OPEN, "state" => open.code()).set(age as f64 / 1000.0);
    }
    gauge!(telemetry::CHANNEL_PAUSED).set(state.storage.count_paused_channels().await? as f64);
    Ok(())
}
