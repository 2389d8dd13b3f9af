//! What a portal is told next: whether a call leaves now, and with what.
//!
//! A call to a CRM carries one effect or fifty at the same price, and a portal takes two calls a second. So what comes
//! together leaves together, what somebody waits for goes first, and what nobody waits for leaves calls for it: those
//! that results already known will need, and some for people. Pure: no clock, no I/O; the tests run it against a
//! simulated portal.

use super::lanes::{Group, Lanes};
use crate::crm::Budget;
use crate::domain::time::{Millis, Timestamp};
use crate::storage::writer::Queued;

/// Calls to one portal under way at once: at least so many, and for a portal that takes more of them a second, as many as
/// that; the last one is for what somebody waits for, so that a slow portal still has a free one for a waiting robot.
const CALLS_AT_ONCE: usize = 3;
/// Most.
const CALLS_MAX: usize = 16;
/// A call gathers for this long at least: what comes together leaves together.
const GATHER_LEAST: Millis = Millis(50);
/// Milliseconds more with an empty bucket.
const GATHER_EMPTY: f64 = 2_000.0;
/// A full call of comments waits for this long. It waits at all because in a rush every comment is about to change
/// (accepted, sent, delivered within a moment), and a state that is written at once costs a second call.
const SETTLE: Millis = Millis(250);
/// Clients' messages in one call. The portal takes up to three seconds for each, one after the other, and cuts a call
/// after sixty; and an unclear end concerns all of them.
const CHATS_MAX: usize = 10;
/// Calls of the bucket that only somebody's waiting may use.
const RESERVE: f64 = 6.0;
/// Share of the bucket that can be kept for what somebody waits for.
const RESERVE_MAX: f64 = 0.6;

/// Calls to one portal that are under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UnderWay {
    /// Calls that somebody waits for.
    pub awaited: usize,
    /// Others.
    pub unawaited: usize,
}

impl UnderWay {
    fn has_room(self, awaited: bool, budget: Budget) -> bool {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a handful, never negative")]
        let at_once = (budget.per_second.clamp(0.0, CALLS_MAX as f64).ceil() as usize).max(CALLS_AT_ONCE);
        self.awaited + self.unawaited < at_once && (awaited || self.unawaited < at_once - 1)
    }

    /// Where calls of this kind are counted.
    pub fn count(&mut self, awaited: bool) -> &mut usize {
        if awaited { &mut self.awaited } else { &mut self.unawaited }
    }
}

/// One call.
pub struct NextCall {
    /// What kind of jobs it carries.
    pub group: Group,
    /// The jobs; their lanes are busy now.
    pub jobs: Vec<Queued>,
    /// True when somebody waits for one of them.
    pub awaited: bool,
}

/// What leaves now, if anything does, and when to look again if nothing happens before.
pub fn next_call(
    lanes: &mut Lanes,
    budget: Budget,
    under_way: UnderWay,
    batch_max: usize,
    now: Timestamp,
) -> (Option<NextCall>, Option<Timestamp>) {
    let mut look = lanes.next_due();
    for group in lanes.due_groups(now) {
        let batch_max = if group == Group::Chats { CHATS_MAX.min(batch_max) } else { batch_max };
        let due = lanes.due(group, batch_max, now);
        let awaited = due.awaited > 0 || matches!(group, Group::Commands | Group::Chats);
        if !under_way.has_room(awaited, budget) {
            continue;
        }
        // A call full of comments with a few results in it is not what results should be spent on while more of them
        // are about to come.
        let more_to_come = due.awaited > 0 && due.awaited < batch_max && lanes.awaited() > due.awaited;
        let demand = Demand {
            oldest: due.oldest_awaited.or(due.oldest).unwrap_or(now),
            full: due.count >= batch_max && !more_to_come,
            awaited,
            spoken_for: lanes.awaited().div_ceil(batch_max.max(1)),
        };
        match leave_at(budget, demand, now) {
            at if at > now => look = Some(look.map_or(at, |known: Timestamp| known.min(at))),
            _ => {
                let max = if group == Group::Reconcile { 1 } else { batch_max };
                let jobs = lanes.take(group, max, now);
                // One call per look: the budget has changed.
                return (Some(NextCall { group, jobs, awaited }), Some(now.plus(Millis(1))));
            }
        }
    }
    (None, look)
}

/// What waits for a call.
#[derive(Clone, Copy, Debug)]
struct Demand {
    /// Since when the oldest of it is due.
    oldest: Timestamp,
    /// Waiting makes the call no better.
    full: bool,
    /// Somebody waits for some of it.
    awaited: bool,
    /// Calls that everything somebody waits for will need, due or not yet.
    spoken_for: usize,
}

/// When a call should leave: at once while the portal's bucket is full, later and fuller as it empties. A moment that
/// is not later than `now` means now; a later one may turn out to be too early and is then asked for again.
///
/// With a full bucket the person at the card sees the comment at once; during a bulk move the same haste would spend
/// the bucket on calls of three, and everything after them would wait for two calls a second.
fn leave_at(budget: Budget, demand: Demand, now: Timestamp) -> Timestamp {
    if let Some(until) = budget.blocked_until.filter(|until| *until > now) {
        return until;
    }
    let burst = budget.burst.max(1.0);
    let kept = if demand.awaited {
        0.0
    } else {
        (RESERVE.min(burst / 4.0) + demand.spoken_for as f64).min(burst * RESERVE_MAX)
    };
    let needed = (1.0 + kept).min(burst);
    if budget.calls < needed {
        return now.plus(refill(budget, needed));
    }
    let level = (budget.calls / burst).clamp(0.0, 1.0);
    // By the square, so that half a bucket still feels like a full one. Under a steady stream the bucket settles where a
    // call gathers for as long as one takes to come free (2 calls a second: at a half), and the rest is left for a rush.
    #[expect(clippy::cast_possible_truncation, reason = "some seconds at most")]
    let gather = Millis(GATHER_LEAST.0 + (GATHER_EMPTY * (1.0 - level).powi(2)) as i64);
    demand.oldest.plus(match (demand.awaited, demand.full) {
        (true, true) => Millis(0),
        (true, false) => Millis(gather.0 / 2),
        (false, true) => SETTLE,
        (false, false) => gather,
    })
}

/// Time until the bucket holds `needed` calls.
fn refill(budget: Budget, needed: f64) -> Millis {
    let missing = (needed - budget.calls).max(0.0) / budget.per_second.max(0.01);
    #[expect(clippy::cast_possible_truncation, reason = "at most some minutes")]
    let millis = (missing * 1000.0).min(600_000.0).ceil() as i64;
    Millis(millis.max(5))
}

#[cfg(test)]
mod tests;
