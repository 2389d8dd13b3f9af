//! When callbacks of vendors may have found nobody, and how long what was missed may take to come again.
//!
//! A vendor whose callback is not taken calls again, at intervals that grow. So after a stop the absence of an echo or a
//! status means nothing yet; but neither does a short stop of yesterday make today's absence meaningless. What counts
//! is the last stretch of deaf moments that followed each other so closely that a callback may have met one after the
//! other: whatever was missed before has surely come meanwhile (`docs/adr/0004`).

use super::time::{Millis, Timestamp};

/// Vendors call again at intervals that grow by up to this factor (WhatsApp: "with decreasing frequency", for 7 days).
const STRETCH: i64 = 6;
/// After so long they do not call again.
const RETRIES_END: Millis = Millis::hours(7 * 24);

/// A stretch of time in which callbacks may have found nobody: one stop, or several from one of which to the next a vendor's
/// tries may lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deaf {
    /// Its beginning; the beginning of time if nothing is known of what was before.
    pub from: Timestamp,
    /// Its end.
    pub until: Timestamp,
}

impl Deaf {
    /// Nothing was ever missed.
    pub const NEVER: Self = Self { from: Timestamp(0), until: Timestamp(0) };

    /// When everything has come again that was missed of what began at `began`. `least` is how long the vendor takes to
    /// call again after its first try, at most.
    #[must_use]
    pub fn made_up(self, began: Timestamp, least: Millis) -> Timestamp {
        // Its tries may have failed for so long, and the next interval may be so many times that.
        let failed = self.until.since(self.from.max(began)).0.max(0);
        let wait = least.0.max(failed.saturating_mul(STRETCH)).min(RETRIES_END.0);
        self.until.plus(Millis(wait))
    }

    /// Whether a silence of that length until `now` says anything: somebody was there to hear for all of it, or what was
    /// missed has had its time to come again.
    #[must_use]
    pub fn lets_count(self, silence: Millis, now: Timestamp, least: Millis) -> bool {
        self.until.plus(silence) <= now || self.made_up(self.from, least) <= now
    }

    /// The last stretch of all these.
    #[must_use]
    pub fn last(mut all: Vec<Self>, least: Millis) -> Self {
        all.sort_unstable_by_key(|deaf| deaf.from);
        all.into_iter().reduce(|known, next| known.then(next, least)).unwrap_or(Self::NEVER)
    }

    /// The last stretch of this one and one that began later.
    fn then(self, next: Self, least: Millis) -> Self {
        if next.from > self.made_up(self.from, least) {
            return next;
        }
        Self { from: self.from, until: self.until.max(next.until) }
    }
}

/// What the store knows of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Presence {
    /// Its last sign of life.
    pub seen: Timestamp,
    /// It left in order, letting everything end.
    pub left: bool,
    /// What it may have missed.
    pub deaf: Deaf,
}

/// What may have been missed before a process that begins at `now`: what the others told, and the time since the last
/// sign of life. A process that has neither left nor been silent for longer than `patience` may have fallen at any
/// moment since it was seen.
#[must_use]
pub fn before_start(others: &[Presence], now: Timestamp, patience: Millis, least: Millis) -> Deaf {
    let last = others.iter().map(|other| other.seen).max().unwrap_or(Timestamp(0));
    let fallen = others.iter().filter(|other| !other.left && now.since(other.seen) <= patience);
    let from = fallen.map(|other| other.seen).fold(last, Timestamp::min).min(now);
    let told = others.iter().map(|other| other.deaf).filter(|deaf| *deaf != Deaf::NEVER);
    // One that fell long ago was still sent to for a while.
    let long_ago = others.iter().filter(|other| !other.left && now.since(other.seen) > patience);
    let long_ago = long_ago.map(|other| Deaf { from: other.seen, until: other.seen.plus(patience) });
    Deaf::last(told.chain(long_ago).chain([Deaf { from, until: now }]).collect(), least)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEAST: Millis = Millis::seconds(60);

    fn deaf(from: i64, until: i64) -> Deaf {
        Deaf { from: Timestamp(from * 1000), until: Timestamp(until * 1000) }
    }

    fn present(seen: i64, left: bool) -> Presence {
        Presence { seen: Timestamp(seen * 1000), left, deaf: Deaf::NEVER }
    }

    #[test]
    fn what_began_within_a_stop_missed_less_of_it() {
        let stop = deaf(100, 200);
        assert_eq!(stop.made_up(Timestamp(0), LEAST), Timestamp(800_000));
        assert_eq!(stop.made_up(Timestamp(150_000), LEAST), Timestamp(500_000));
        assert_eq!(stop.made_up(Timestamp(199_000), LEAST), Timestamp(260_000), "the vendor's first interval at least");
        let week = Millis::hours(7 * 24);
        assert_eq!(deaf(0, 30 * 86_400).made_up(Timestamp(0), LEAST), Timestamp(30 * 86_400_000).plus(week));
    }

    #[test]
    fn a_silence_of_hours_counts_soon_after_a_restart_and_not_soon_after_a_long_stop() {
        let (hour, restart, long) = (Millis::hours(1), deaf(1000, 1005), deaf(1000, 1000 + 7200));
        let counts = |deaf: Deaf, after: i64| deaf.lets_count(hour, deaf.until.plus(Millis::seconds(after)), LEAST);
        assert!(!counts(restart, 59), "the vendor has not called again yet");
        assert!(counts(restart, 60));
        assert!(!counts(long, 3599));
        assert!(counts(long, 3600), "somebody has been there for all of it");
        let day = |after: i64| long.lets_count(Millis::hours(24), long.until.plus(Millis::seconds(after)), LEAST);
        assert!(!day(12 * 3600 - 1) && day(12 * 3600), "what came in two hours comes again within twelve");
    }

    #[test]
    fn ten_restarts_in_a_row_are_not_one_long_stop() {
        let restarts: Vec<Deaf> = (0..10).map(|nth| deaf(nth * 300, nth * 300 + 5)).collect();
        let last = Deaf::last(restarts, LEAST);
        assert_eq!(last, deaf(2700, 2705), "five minutes are enough for whatever five seconds made it miss");
        // But of a dozen restarts within some seconds nobody knows that.
        let restarts: Vec<Deaf> = (0..12).map(|nth| deaf(nth * 20, nth * 20 + 5)).collect();
        assert_eq!(Deaf::last(restarts, LEAST), deaf(0, 225));
    }

    #[test]
    fn a_process_that_begins_counts_from_the_last_sign_of_life() {
        let (now, patience) = (Timestamp(1_000_000), Millis::seconds(40));
        let before = |others: &[Presence]| before_start(others, now, patience, LEAST);
        assert_eq!(before(&[]), deaf(0, 1000), "nothing is known");
        assert_eq!(before(&[present(900, true)]), deaf(900, 1000));
        assert_eq!(before(&[present(300, false), present(990, true)]), deaf(990, 1000), "one was there all the time");
        assert_eq!(before(&[present(970, false), present(999, false)]), deaf(970, 1000), "either may have fallen");
        let told = Presence { deaf: deaf(900, 950), ..present(995, true) };
        assert_eq!(before(&[told]), deaf(900, 1000), "a vendor's tries may lead from one to the other");
        let told = Presence { deaf: deaf(100, 110), ..present(995, true) };
        assert_eq!(before(&[told]), deaf(995, 1000));
        assert_eq!(before(&[present(2000, true)]), deaf(1000, 1000), "a clock that was set back");
    }

    proptest! {
        /// A vendor calls until it is heard, the next interval at most [`STRETCH`] times the last one.
        #[test]
        fn what_was_missed_has_come_when_it_is_said_to(
            stops in proptest::collection::vec((1_i64..200_000, 1_i64..100_000), 1..8),
            place in 0_usize..8,
            into in 0.0_f64..1.0,
            first in 1_i64..60_000,
            growth in proptest::collection::vec(0.01_f64..6.0, 40),
        ) {
            let mut at = 0;
            let mut stretches = Vec::new();
            for (up, down) in stops {
                stretches.push(Deaf { from: Timestamp(at + up), until: Timestamp(at + up + down) });
                at += up + down;
            }
            let missed = |time: Timestamp| stretches.iter().any(|deaf| deaf.from <= time && time <= deaf.until);
            let stop = stretches[place % stretches.len()];
            #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "some minutes")]
            let echo = stop.from.plus(Millis((stop.until.since(stop.from).0 as f64 * into) as i64));
            let (mut tried, mut interval) = (echo, first);
            let mut growth = growth.into_iter().cycle();
            while missed(tried) {
                tried = tried.plus(Millis(interval));
                #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "some minutes")]
                let next = (interval as f64 * growth.next().unwrap_or(1.0)) as i64;
                interval = next.max(1);
            }
            let known: Vec<Deaf> = stretches.iter().filter(|deaf| deaf.from <= tried).copied().collect();
            for split in 0..=known.len() {
                // Told in two parts, as by a process and the next one.
                let (one, other) = known.split_at(split);
                let parts = [one, other].into_iter().filter(|part| !part.is_empty());
                let said = Deaf::last(parts.map(|part| Deaf::last(part.to_vec(), LEAST)).collect(), LEAST);
                prop_assert!(tried <= said.made_up(echo, LEAST), "{tried:?} {said:?}");
            }
        }
    }
}
