//! What is seen from outside: log lines and metrics. Labels are of bounded size; nothing here carries a phone, a name,
//! a text or a token.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::domain::time::Millis;

/// Jobs that ended: done, or given up. By kind, provider (empty for calls to a CRM) and class: `ok`, the class of the
/// failure, `refused` before any call, `over` (settled or withdrawn meanwhile) or `given_up`.
pub const JOBS_SETTLED: &str = "mostik_jobs_settled_total";
/// How long a try at a provider took, in seconds.
pub const ATTEMPT_SECONDS: &str = "mostik_attempt_duration_seconds";
/// Jobs by state, in the whole store: the same on every replica.
pub const OUTBOX_DEPTH: &str = "mostik_outbox_depth";
/// How long the longest due job has waited, in seconds, in the whole store.
pub const OLDEST_DUE: &str = "mostik_lane_oldest_due_seconds";
/// How long the message that has been longest in its state has been there, by state, in seconds.
pub const OLDEST_OPEN: &str = "mostik_oldest_open_message_seconds";
/// Jobs given up, in the whole store.
pub const DEAD_LETTERS: &str = "mostik_dead_letters";
/// Callbacks by source and result.
pub const WEBHOOKS: &str = "mostik_webhooks_total";
/// Calls to CRMs by CRM, method and result.
pub const CRM_CALLS: &str = "mostik_crm_calls_total";
/// Paused channels, in the whole store.
pub const CHANNEL_PAUSED: &str = "mostik_channel_paused";
/// 1 while a CRM does not listen to our address, by CRM.
pub const CRM_STOPPED: &str = "mostik_crm_stopped";
/// How long a limit told a queue to wait, in seconds, each time it did; by what is limited.
pub const LIMITER_WAIT: &str = "mostik_limiter_wait_seconds";
/// Old rows blanked or deleted, by table.
pub const RETENTION_ROWS: &str = "mostik_retention_rows_total";
/// Whether the store takes writes: 1 or 0.
pub const STORE_UP: &str = "mostik_store_up";

/// Every metric with its kind; alert rules and documents are compared with it.
pub const METRICS: &[(&str, Kind, &str)] = &[
    (JOBS_SETTLED, Kind::Counter, "Jobs that ended, by kind, provider and class"),
    (ATTEMPT_SECONDS, Kind::Seconds, "How long a try at a provider took"),
    (OUTBOX_DEPTH, Kind::Gauge, "Jobs in the whole store by state; the same on every replica"),
    (OLDEST_DUE, Kind::Gauge, "Seconds the longest due job has waited, in the whole store"),
    (OLDEST_OPEN, Kind::Gauge, "Seconds the message that has been longest in its state has been there, by state"),
    (DEAD_LETTERS, Kind::Gauge, "Jobs given up that wait for a person, in the whole store"),
    (WEBHOOKS, Kind::Counter, "Callbacks by source and result"),
    (CRM_CALLS, Kind::Counter, "Calls to CRMs by CRM, method and result"),
    (CHANNEL_PAUSED, Kind::Gauge, "Paused channels in the whole store"),
    (CRM_STOPPED, Kind::Gauge, "1 while a CRM does not listen to our address, by CRM"),
    (LIMITER_WAIT, Kind::Seconds, "How long a limit told a queue to wait"),
    (RETENTION_ROWS, Kind::Counter, "Old rows blanked or deleted, by table"),
    (STORE_UP, Kind::Gauge, "1 when the store takes writes"),
];

/// How a metric behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A histogram of seconds.
    Seconds,
}

/// Upper bounds of the histograms, in seconds. Buckets, not quantiles: only they can be added up over replicas.
const BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Installs the recorder of this process and describes every metric.
///
/// # Errors
/// There is a recorder already.
pub fn install_metrics() -> Result<PrometheusHandle, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for (name, kind, _) in METRICS {
        if *kind == Kind::Seconds {
            builder = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), BUCKETS)?;
        }
    }
    let handle = builder.install_recorder()?;
    for (name, kind, help) in METRICS {
        match kind {
            Kind::Counter => describe_counter!(*name, *help),
            Kind::Gauge => describe_gauge!(*name, *help),
            Kind::Seconds => describe_histogram!(*name, Unit::Seconds, *help),
        }
    }
    Ok(handle)
}

/// Target of every span of the trace: http.request, crm.call, provider.call, lane.run, job.attempt, storage.….
///
/// Off unless `log.spans` is set; the filter then never lets one begin, which costs a comparison.
pub const SPANS: &str = "mostik::span";

/// The filter of a running service: what the operator wrote, and whether spans are part of it.
///
/// # Errors
/// As [`filter`].
pub fn filter_with_spans(text: &str, spans: bool) -> Result<EnvFilter, String> {
    filter(text)?;
    filter(&format!("{text},{SPANS}={}", if spans { "info" } else { "off" }))
}

/// Reads a filter of the log.
///
/// The library takes any bare word for the name of a module, so that a misspelt level would silence everything else;
/// bare words are levels here, and a module is written with its level (`mostik=debug`).
///
/// # Errors
/// What is wrong, in words.
pub fn filter(text: &str) -> Result<EnvFilter, String> {
    let plain = |word: &&str| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let is_level = |word: &str| !word.is_empty() && word.parse::<tracing::level_filters::LevelFilter>().is_ok();
    let mut words = text.split(',').filter(plain);
    if let Some(word) = words.find(|word| !is_level(word)) {
        return Err(format!("`{word}` is no level; write off, error, warn, info, debug or trace, or mostik=debug"));
    }
    EnvFilter::try_new(text).map_err(|e| format!("`{text}`: {e}"))
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a call or a wait")]
fn seconds(span: Millis) -> f64 {
    span.0 as f64 / 1000.0
}

/// Counts one try at a provider.
pub fn attempt(provider: &str, took: Millis) {
    histogram!(ATTEMPT_SECONDS, "provider" => provider.to_owned()).record(seconds(took));
}

/// Counts one job that ended.
pub fn settled(kind: &'static str, provider: &str, class: &str) {
    counter!(JOBS_SETTLED, "kind" => kind, "provider" => provider.to_owned(), "class" => class.to_owned()).increment(1);
}

/// Counts one call to a CRM.
pub fn crm_call(crm: &'static str, method: &'static str, result: &'static str) {
    counter!(CRM_CALLS, "crm" => crm, "method" => method, "result" => result).increment(1);
}

/// Notes that a limit (`channel`, `portal`) told a queue to wait.
pub fn limiter_wait(limit: &'static str, wait: Millis) {
    histogram!(LIMITER_WAIT, "limit" => limit).record(seconds(wait));
}

/// Counts old rows that were treated.
pub fn purged(table: &'static str, act: &'static str, rows: u64) {
    counter!(RETENTION_ROWS, "table" => table, "act" => act).increment(rows);
}

/// Says whether a CRM listens to our address.
pub fn crm_stopped(crm: &'static str, stopped: bool) {
    gauge!(CRM_STOPPED, "crm" => crm).set(if stopped { 1.0 } else { 0.0 });
}

/// Counts one callback.
pub fn webhook(source: &'static str, result: &'static str) {
    counter!(WEBHOOKS, "source" => source, "result" => result).increment(1);
}
