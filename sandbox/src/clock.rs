//! The sandbox's own clock and its timetable of things to do later.
//!
//! Both portals and phones live by one clock that tests can push forward: a 24-hour window closes, a token expires and a
//! workflow times out the moment [`Clock::advance`] is called, without anyone waiting for it.

use std::{
    cmp::Ordering as Order,
    collections::BinaryHeap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Milliseconds since the Unix epoch, on the sandbox's clock.
pub type Millis = i64;

/// Wall clock at start plus monotonic time since then plus what tests added.
#[derive(Debug)]
pub(crate) struct Clock {
    base_ms: Millis,
    started: Instant,
    offset_ms: AtomicI64,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the sandbox is a world of its own and this is its only clock")]
    pub(crate) fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            base_ms: i64::try_from(since_epoch.as_millis()).unwrap_or(0),
            started: Instant::now(),
            offset_ms: AtomicI64::new(0),
        }
    }

    pub(crate) fn now_ms(&self) -> Millis {
        let run = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(0);
        self.base_ms + run + self.offset_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn now_secs(&self) -> i64 {
        self.now_ms() / 1000
    }

    pub(crate) fn offset_ms(&self) -> Millis {
        self.offset_ms.load(Ordering::Relaxed)
    }

    fn advance(&self, by: Duration) {
        self.offset_ms.fetch_add(i64::try_from(by.as_millis()).unwrap_or(0), Ordering::Relaxed);
    }
}

type Job = Box<dyn FnOnce() + Send>;

struct Planned {
    due_ms: Millis,
    order: u64,
    counted: bool,
    job: Job,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Planned {}
impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}
impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Order {
        (other.due_ms, other.order).cmp(&(self.due_ms, self.order))
    }
}

/// Counts work the sandbox still owes to somebody: planned jobs and queued or running deliveries.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    count: AtomicUsize,
    changed: Notify,
}

impl Pending {
    pub(crate) fn add(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn done(&self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.changed.notify_waiters();
        }
    }

    pub(crate) fn get(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    pub(crate) async fn zero(&self) {
        loop {
            let changed = self.changed.notified();
            if self.get() == 0 {
                return;
            }
            changed.await;
        }
    }
}

/// Runs small, non-blocking jobs at a time of the sandbox's clock. One heap and one task, however many jobs.
pub(crate) struct Timetable {
    clock: Arc<Clock>,
    heap: Mutex<BinaryHeap<Planned>>,
    order: AtomicU64,
    earlier: Notify,
    pending: Arc<Pending>,
}

impl Timetable {
    pub(crate) fn new(clock: Arc<Clock>, pending: Arc<Pending>) -> Self {
        Self { clock, heap: Mutex::default(), order: AtomicU64::new(0), earlier: Notify::new(), pending }
    }

    /// Plans a job that counts as unfinished work (see [`Pending`]).
    pub(crate) fn after(&self, delay_ms: u64, job: impl FnOnce() + Send + 'static) {
        self.pending.add();
        self.plan(delay_ms, true, Box::new(job));
    }

    /// Plans a far-away job (a workflow's timeout) for which nobody should wait.
    pub(crate) fn in_background(&self, delay_ms: u64, job: impl FnOnce() + Send + 'static) {
        self.plan(delay_ms, false, Box::new(job));
    }

    fn plan(&self, delay_ms: u64, counted: bool, job: Job) {
        let due_ms = self.clock.now_ms().saturating_add(i64::try_from(delay_ms).unwrap_or(i64::MAX / 2));
        let order = self.order.fetch_add(1, Ordering::Relaxed);
        let is_first = {
            let mut heap = self.heap.lock();
            let is_first = heap.peek().is_none_or(|first| due_ms < first.due_ms);
            heap.push(Planned { due_ms, order, counted, job });
            is_first
        };
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// Moves the clock and runs what became due.
    pub(crate) fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.earlier.notify_one();
    }

    pub(crate) fn clear(&self) {
        let dropped = std::mem::take(&mut *self.heap.lock());
        for planned in dropped {
            if planned.counted {
                self.pending.done();
            }
        }
    }

    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut due = Vec::new();
        while !stop.is_cancelled() {
            let now = self.clock.now_ms();
            let wait_ms = {
                let mut heap = self.heap.lock();
                while heap.peek().is_some_and(|first| first.due_ms <= now) {
                    due.extend(heap.pop());
                }
                heap.peek().map(|first| first.due_ms - now)
            };
            if !due.is_empty() {
                for planned in due.drain(..) {
                    (planned.job)();
                    if planned.counted {
                        self.pending.done();
                    }
                }
                tokio::task::yield_now().await;
                continue;
            }
            let nap = Duration::from_millis(u64::try_from(wait_ms.unwrap_or(60_000)).unwrap_or(0).clamp(1, 60_000));
            tokio::select! {
                () = tokio::time::sleep(nap) => {}
                () = self.earlier.notified() => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

/// Formats as ISO 8601 with an offset, e.g. `2026-01-01T12:00:01+03:00`.
pub(crate) fn iso(ms: Millis, offset_min: i64) -> String {
    let local = ms.div_euclid(1000) + offset_min * 60;
    let (days, secs) = (local.div_euclid(86_400), local.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (sign, off) = if offset_min < 0 { ('-', -offset_min) } else { ('+', offset_min) };
    let (hour, min, sec) = (secs / 3600, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{min:02}:{sec:02}{sign}{:02}:{:02}", off / 60, off % 60)
}

/// Days since 1970-01-01 to year, month, day in the Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_dates_are_right_around_leap_days() {
        assert_eq!(iso(0, 0), "1970-01-01T00:00:00+00:00");
        assert_eq!(iso(1_709_164_799_000, 0), "2024-02-28T23:59:59+00:00");
        assert_eq!(iso(1_709_164_800_000, 180), "2024-02-29T03:00:00+03:00");
        assert_eq!(iso(1_767_225_600_000, -300), "2025-12-31T19:00:00-05:00");
    }

    #[tokio::test]
    async fn jobs_run_in_time_order_and_advance_makes_them_due() {
        let clock = Arc::new(Clock::new());
        let pending = Arc::new(Pending::default());
        let table = Arc::new(Timetable::new(clock, pending.clone()));
        let stop = CancellationToken::new();
        let runner = tokio::spawn(table.clone().run(stop.clone()));
        let seen = Arc::new(Mutex::new(Vec::new()));
        for (delay, name) in [(3_600_000, "late"), (1_800_000, "early")] {
            let seen = seen.clone();
            table.after(delay, move || seen.lock().push(name));
        }
        table.advance(Duration::from_secs(7200));
        pending.zero().await;
        assert_eq!(*seen.lock(), ["early", "late"]);
        stop.cancel();
        runner.await.unwrap();
    }
}
