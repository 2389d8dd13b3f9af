//! Rates: how fast a channel may send, and when a portal's next batch should leave.

use std::num::NonZeroU32;

use governor::clock::{Clock as _, DefaultClock};
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::crm::Budget;
use crate::domain::time::{Millis, Timestamp};

/// Pace of one channel: so many messages per second, spread evenly.
pub struct ChannelPace {
    limiter: RateLimiter<NotKeyed, InMemoryState, DefaultClock>,
    clock: DefaultClock,
    per_second: f64,
}

impl ChannelPace {
    /// A pace of `per_second` messages. The burst is small on purpose: a vendor that counts in any window of a second
    /// must not see more than it allows.
    #[must_use]
    pub fn new(per_second: f64) -> Self {
        let nanos = (1e9 / per_second.max(0.001)).clamp(1.0, 1e12);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped above")]
        let interval = std::time::Duration::from_nanos(nanos as u64);
        let burst = NonZeroU32::new(if per_second > 1000.0 { 1000 } else { 2 }).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(interval).map_or(Quota::per_second(burst), |quota| quota.allow_burst(burst));
        Self { limiter: RateLimiter::direct(quota), clock: DefaultClock::default(), per_second }
    }

    /// The pace it was made for.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.per_second
    }

    /// Takes up to `wanted` permits; with none left, also tells how long to wait for the next.
    #[must_use]
    pub fn take(&self, wanted: usize) -> (usize, Option<Millis>) {
        for taken in 0..wanted {
            if let Err(not_yet) = self.limiter.check() {
                let wait = not_yet.wait_time_from(self.clock.now());
                let millis = i64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(i64::MAX);
                return (taken, Some(Millis(millis.max(1))));
            }
        }
        (wanted, None)
    }
}

/// Whether a portal's next batch leaves now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Batch {
    /// Now.
    Now,
    /// Look again then.
    Wait(Timestamp),
}

/// A batch gathers for this long at least: what comes together leaves together.
const GATHER_LEAST: Millis = Millis(50);
/// Milliseconds more with an empty bucket.
const GATHER_EMPTY: f64 = 2_000.0;
/// Calls of the bucket that only somebody's waiting may use.
const RESERVE: f64 = 6.0;

/// Decides when a batch should leave: at once while the portal's bucket is full, later and fuller as it empties.
///
/// A call carries one effect or fifty at the same price. With a full bucket the person at the card sees the comment at
/// once; during a bulk move the same haste would spend the bucket on batches of three, and everything after them
/// would wait for two calls a second. So the emptier the bucket, the longer a batch gathers.
#[must_use]
pub fn next_batch(
    budget: Budget,
    due: usize,
    batch_max: usize,
    oldest: Timestamp,
    urgent: bool,
    now: Timestamp,
) -> Batch {
    if let Some(until) = budget.blocked_until.filter(|until| *until > now) {
        return Batch::Wait(until);
    }
    let needed = if urgent { 1.0 } else { 1.0 + RESERVE.min(budget.burst / 4.0) };
    if budget.calls < needed {
        return Batch::Wait(now.plus(refill(budget, needed)));
    }
    if due >= batch_max {
        return Batch::Now;
    }
    let full = (budget.calls / budget.burst.max(1.0)).clamp(0.0, 1.0);
    // Gathering time by how full the bucket is. Under a steady stream the bucket settles where a batch gathers for as
    // long as one call takes to come free (2 calls a second: at three quarters), and the rest is left for a rush.
    #[expect(clippy::cast_possible_truncation, reason = "some seconds at most")]
    let gather = Millis(GATHER_LEAST.0 + (GATHER_EMPTY * (1.0 - full)) as i64);
    let leave = oldest.plus(if urgent { Millis(gather.0 / 2) } else { gather });
    if leave <= now { Batch::Now } else { Batch::Wait(leave) }
}

/// Time until the bucket holds `needed` calls.
fn refill(budget: Budget, needed: f64) -> Millis {
    let missing = (needed - budget.calls).max(0.0) / budget.per_second.max(0.01);
    #[expect(clippy::cast_possible_truncation, reason = "at most some minutes")]
    let millis = (missing * 1000.0).min(600_000.0).ceil() as i64;
    Millis(millis.max(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(calls: f64) -> Budget {
        Budget { calls, burst: 50.0, per_second: 2.0, blocked_until: None }
    }

    const NOW: Timestamp = Timestamp(10_000);

    #[test]
    fn a_full_bucket_lets_a_lonely_comment_go_almost_at_once() {
        assert_eq!(next_batch(budget(50.0), 1, 50, NOW, false, NOW.plus(Millis(50))), Batch::Now);
    }

    #[test]
    fn an_empty_bucket_makes_batches_gather() {
        let half = next_batch(budget(25.0), 3, 50, NOW, false, NOW);
        let low = next_batch(budget(8.0), 3, 50, NOW, false, NOW);
        let (Batch::Wait(half), Batch::Wait(low)) = (half, low) else { panic!("{half:?} {low:?}") };
        assert!(low > half);
        assert_eq!(next_batch(budget(25.0), 50, 50, NOW, false, NOW), Batch::Now);
    }

    #[test]
    fn the_reserve_is_for_those_who_wait() {
        assert!(matches!(next_batch(budget(3.0), 50, 50, NOW, false, NOW), Batch::Wait(_)));
        assert_eq!(next_batch(budget(3.0), 50, 50, NOW, true, NOW), Batch::Now);
        assert_eq!(next_batch(budget(0.5), 50, 50, NOW, true, NOW), Batch::Wait(NOW.plus(Millis(250))));
    }

    #[test]
    fn a_blocked_portal_waits_whatever_its_bucket_says() {
        let blocked = Budget { blocked_until: Some(NOW.plus(Millis(900))), ..budget(50.0) };
        assert_eq!(next_batch(blocked, 50, 50, NOW, true, NOW), Batch::Wait(NOW.plus(Millis(900))));
    }

    #[test]
    fn a_pace_spreads_sends_evenly() {
        let pace = ChannelPace::new(80.0);
        let (taken, wait) = pace.take(100);
        assert!(taken <= 3, "{taken}");
        assert!((1..=13).contains(&wait.unwrap().0));
        assert_eq!(ChannelPace::new(100_000.0).take(500), (500, None));
    }
}
