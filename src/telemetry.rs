//! What is seen from outside: log lines and metrics. Labels are of bounded size; nothing here carries a phone, a name,
//! a text or a token.

use metrics::{counter, histogram};
use tracing_subscriber::EnvFilter;

use crate::domain::time::Millis;

/// Jobs that ended, by kind, provider and class.
pub const JOBS_SETTLED: &str = "mostik_jobs_settled_total";
/// How long a try took, in seconds.
pub const ATTEMPT_SECONDS: &str = "mostik_attempt_duration_seconds";
/// Jobs by state.
pub const OUTBOX_DEPTH: &str = "mostik_outbox_depth";
/// How long the longest due job has waited, in seconds.
pub const OLDEST_DUE: &str = "mostik_lane_oldest_due_seconds";
/// How long the message that has been longest in its state has been there, by state, in seconds.
pub const OLDEST_OPEN: &str = "mostik_oldest_open_message_seconds";
/// Jobs given up.
pub const DEAD_LETTERS: &str = "mostik_dead_letters";
/// Callbacks by source and result.
pub const WEBHOOKS: &str = "mostik_webhooks_total";
/// Effects told to CRMs by kind and result.
pub const CRM_CALLS: &str = "mostik_crm_calls_total";
/// Paused channels.
pub const CHANNEL_PAUSED: &str = "mostik_channel_paused";

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

/// Counts one try at a provider.
pub fn attempt(kind: &'static str, provider: &str, class: &str, took: Millis) {
    counter!(JOBS_SETTLED, "kind" => kind, "provider" => provider.to_owned(), "class" => class.to_owned()).increment(1);
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a call")]
    histogram!(ATTEMPT_SECONDS, "provider" => provider.to_owned()).record(took.0 as f64 / 1000.0);
}

/// Counts one effect told to a CRM.
pub fn effect(kind: &'static str, result: &'static str) {
    counter!(CRM_CALLS, "kind" => kind, "result" => result).increment(1);
}

/// Counts one callback.
pub fn webhook(source: &'static str, result: &'static str) {
    counter!(WEBHOOKS, "source" => source, "result" => result).increment(1);
}
