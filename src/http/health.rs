//! For operations: is it alive, is it ready, what does it count.

use actix_web::{HttpResponse, web};
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;

use super::State;
use super::admin::Admin;
use super::problem::Problem;
use crate::domain::channel::ChannelState;
use crate::domain::status::MessageState;
use crate::storage::StorageError;
use crate::telemetry;

/// The process runs.
pub async fn healthz() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain").body("ok\n")
}

/// The process can do its work: the store answers.
pub async fn readyz(state: web::Data<State>) -> Result<HttpResponse, Problem> {
    state.storage.ping().await.map_err(|error| {
        tracing::warn!(%error, "not ready");
        Problem::Unavailable
    })?;
    Ok(HttpResponse::Ok().content_type("text/plain").body("ready\n"))
}

/// Metrics in Prometheus' text form; only with the administrator's token.
pub(super) async fn metrics(_: Admin, state: web::Data<State>, handle: web::Data<PrometheusHandle>) -> HttpResponse {
    if let Err(error) = measure(&state).await {
        tracing::warn!(%error, "gauges could not be read");
    }
    HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(handle.render())
}

/// Gauges are read when they are asked for, not all the time.
#[expect(clippy::cast_precision_loss, reason = "counts and seconds far below 2^52")]
async fn measure(state: &State) -> Result<(), StorageError> {
    let mut dead = 0;
    for word in ["ready", "started", "unclear"] {
        gauge!(telemetry::OUTBOX_DEPTH, "state" => word).set(0.0);
    }
    for (word, count) in state.storage.count_jobs().await? {
        if word == "dead" {
            dead = count;
        } else {
            gauge!(telemetry::OUTBOX_DEPTH, "state" => word).set(count as f64);
        }
    }
    gauge!(telemetry::DEAD_LETTERS).set(dead as f64);
    let waited = state.storage.oldest_due().await?.map_or(0, |due| state.clock.now().since(due).0.max(0));
    gauge!(telemetry::OLDEST_DUE).set(waited as f64 / 1000.0);
    let oldest = state.storage.oldest_open().await?;
    for open in [MessageState::Queued, MessageState::Undecided, MessageState::Accepted, MessageState::Sent] {
        let since = oldest.iter().find(|(word, _)| word == open.code());
        let age = since.map_or(0, |(_, since)| state.clock.now().since(*since).0.max(0));
        gauge!(telemetry::OLDEST_OPEN, "state" => open.code()).set(age as f64 / 1000.0);
    }
    let paused = state.storage.channels().await?;
    let paused = paused.iter().filter(|channel| matches!(channel.state, ChannelState::Paused(_))).count();
    gauge!(telemetry::CHANNEL_PAUSED).set(paused as f64);
    Ok(())
}
