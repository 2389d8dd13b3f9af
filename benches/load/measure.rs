//! What is measured of the machine and of a process.

use std::time::Instant;

/// Runs of which the median counts.
pub(crate) const RUNS: usize = 5;

/// Share of a core that the host took away since the last call.
pub(crate) struct Steal(u64, Instant);

impl Steal {
    pub(crate) fn now() -> Self {
        Self(Self::read(), Instant::now())
    }

    fn read() -> u64 {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let first = stat.lines().next().unwrap_or_default();
        first.split_whitespace().nth(8).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
    }

    /// In cores; a tick is 10 ms.
    pub(crate) fn since(&self) -> f64 {
        let ticks = Self::read() - self.0;
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let seconds = ticks as f64 / 100.0;
        seconds / self.1.elapsed().as_secs_f64()
    }
}

/// A number of `/proc/<pid>/status`.
fn status(pid: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

/// Threads of a process.
pub(crate) fn threads(pid: u32) -> f64 {
    status(pid, "Threads:")
}

/// Resident memory in MiB and CPU seconds of a process.
pub(crate) fn usage(pid: u32) -> (f64, f64) {
    let kib = status(pid, "VmRSS:");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |index: usize| after.split_whitespace().nth(index).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
    (kib / 1024.0, (field(11) + field(12)) / 100.0)
}

pub(crate) fn percentile(sorted: &[u32], share: f64) -> f64 {
    if sorted.is_empty() {
        return 0.0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = ((sorted.len() - 1) as f64 * share).round() as usize;
    f64::from(sorted[index]) / 1000.0
}

/// How busy the machine was in the last minute: tasks that wanted a core.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The store's name for a heading.
pub(crate) fn store_name(postgres: bool) -> &'static str {
    if postgres { "PostgreSQL" } else { "SQLite, synchronous=FULL" }
}

/// Milliseconds UTC.
pub(crate) fn now_ms() -> i64 {
    mostik::domain::time::Clock::now(&mostik::app::SystemClock).0
}
