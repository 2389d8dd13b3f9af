//! From the class of a failure to what happens next. The only place that decides.

use crate::domain::outcome::FailureClass;
use crate::domain::time::{Millis, Timestamp};

/// When failed work is tried again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetryPlan {
    /// Waits before the second, third … try; the last one repeats.
    pub waits: Vec<Millis>,
}

/// What happens to a job after a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It has failed for good; tell people and let the lane go on.
    Settle,
    /// The channel or portal stops until a person acts; the job stays as it is.
    Pause,
    /// Try again then; the try counts only if `counts`.
    Again {
        /// When.
        due: Timestamp,
        /// Whether it used up a try.
        counts: bool,
    },
    /// Too late for another try.
    Expire,
    /// Nobody knows whether it was done.
    Unclear,
}

/// Shortest and longest wait a vendor can impose on us.
const THROTTLE_MIN: Millis = Millis(200);
const THROTTLE_MAX: Millis = Millis::minutes(15);

/// Decides. `tries` are the counted tries before this one; `seed` spreads the waits (±20 %).
#[must_use]
pub fn decide(
    plan: &RetryPlan,
    class: FailureClass,
    retry_after: Option<Millis>,
    tries: u32,
    not_after: Option<Timestamp>,
    now: Timestamp,
    seed: u64,
) -> Decision {
    let again = |wait: Millis, counts: bool| {
        let due = now.plus(wait);
        if not_after.is_some_and(|limit| due > limit) { Decision::Expire } else { Decision::Again { due, counts } }
    };
    match class {
        FailureClass::Rejected | FailureClass::NotPermitted => Decision::Settle,
        FailureClass::Misconfigured => Decision::Pause,
        FailureClass::Throttled => {
            let asked = retry_after.unwrap_or(Millis::seconds(1));
            again(Millis(asked.0.clamp(THROTTLE_MIN.0, THROTTLE_MAX.0)), false)
        }
        FailureClass::Unavailable => {
            let index = usize::try_from(tries).unwrap_or(usize::MAX).min(plan.waits.len().saturating_sub(1));
            let planned = plan.waits.get(index).copied().unwrap_or(Millis::seconds(30));
            // A vendor may ask for more patience, but not park us for a week.
            let asked = retry_after.map_or(planned.0, |asked| asked.0.clamp(planned.0, planned.0.saturating_mul(2)));
            again(jitter(Millis(asked), seed.wrapping_add(u64::from(tries))), true)
        }
        FailureClass::Indeterminate => Decision::Unclear,
    }
}

/// Spreads a wait over ±20 %, so that what failed together does not return together.
#[must_use]
pub fn jitter(wait: Millis, seed: u64) -> Millis {
    let spread = i64::try_from(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33).unwrap_or(0) % 401 - 200;
    Millis(wait.0.saturating_add(wait.0 / 1000 * spread + wait.0 % 1000 * spread / 1000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan() -> RetryPlan {
        RetryPlan { waits: vec![Millis::seconds(5), Millis::seconds(30), Millis::minutes(2)] }
    }

    #[test]
    fn refusals_are_settled_and_unclear_answers_never_repeated() {
        for class in [FailureClass::Rejected, FailureClass::NotPermitted] {
            assert_eq!(decide(&plan(), class, None, 0, None, Timestamp(0), 1), Decision::Settle);
        }
        assert_eq!(decide(&plan(), FailureClass::Indeterminate, None, 0, None, Timestamp(0), 1), Decision::Unclear);
        assert_eq!(decide(&plan(), FailureClass::Misconfigured, None, 0, None, Timestamp(0), 1), Decision::Pause);
    }

    #[test]
    fn a_throttle_uses_up_no_try_and_is_clamped() {
        let week = Some(Millis::hours(24 * 7));
        let decision = decide(&plan(), FailureClass::Throttled, week, 3, None, Timestamp(0), 1);
        assert_eq!(decision, Decision::Again { due: Timestamp(THROTTLE_MAX.0), counts: false });
    }

    #[test]
    fn nothing_is_tried_after_its_deadline() {
        let decision = decide(&plan(), FailureClass::Unavailable, None, 2, Some(Timestamp(1000)), Timestamp(0), 1);
        assert_eq!(decision, Decision::Expire);
    }

    proptest! {
        #[test]
        fn waits_follow_the_plan_within_a_fifth(tries in 0u32..10, seed: u64) {
            let waits = plan().waits;
            let planned = waits[(tries as usize).min(waits.len() - 1)].0;
            let decision = decide(&plan(), FailureClass::Unavailable, None, tries, None, Timestamp(0), seed);
            let Decision::Again { due, counts } = decision else { panic!("{decision:?}") };
            prop_assert!(counts);
            prop_assert!((planned * 4 / 5..=planned * 6 / 5).contains(&due.0), "{} of {planned}", due.0);
        }
    }
}
