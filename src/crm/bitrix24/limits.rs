//! Our twin of a portal's limits: how many calls are free, and which methods have used up their time.
//!
//! Bitrix24 counts in a leaky bucket per portal and source address (2 a second, burst 50; Enterprise 5 and 250), and
//! adds up the running time of each method over ten minutes (about 480 s in the cloud). Whoever passes the first is
//! answered `QUERY_LIMIT_EXCEEDED`, the second `OPERATION_TIME_LIMIT` for that method alone (protocol reference, section
//! "Limits"; b24restdocs, "REST API Limits"; read 2026-11).
//!
//! "Portal" is the account as Bitrix24 counts it, and not our installation: several applications of ours in one portal
//! call from one address and share its bucket, so the twin belongs to the account (`member_id`). Applications of others
//! on our address share it too, unseen by us, so the portal's own answer has the last word (`docs/adr/0007`).
//!
//! Only portals with recent activity are kept in memory: an entry that says nothing any more is dropped.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::errors::Wait;
use crate::crm::Budget;
use crate::domain::time::{Millis, Timestamp};
use crate::forms::{integer, member, number};

/// Running time of one method, in seconds of its ten-minute window, from which on we call more slowly.
const OPERATING_SLOW: f64 = 300.0;
/// From here on the method is not called until its window moves on: self-hosted portals stop at 420 s.
const OPERATING_STOP: f64 = 420.0;
/// Waited for a method whose window we do not know.
const METHOD_WAIT: Millis = Millis::minutes(1);
/// Waited when Bitrix24 holds the application back as a whole.
const LONG_WAIT: Millis = Millis::minutes(10);
/// Longest step of the waits 1, 2, 4 s after a full bucket.
const BUCKET_STEPS: u32 = 2;
/// So many entries are let in before idle ones are looked for.
const SWEEP_EVERY: usize = 256;

/// The twins of all portals in use, by account (`member_id`).
pub(super) struct Limits {
    per_second: f64,
    burst: f64,
    portals: Mutex<Portals>,
}

#[derive(Default)]
struct Portals {
    twins: HashMap<String, Twin>,
    since_sweep: usize,
}

/// What is known of one portal.
struct Twin {
    /// Calls in the bucket at `at`.
    level: f64,
    at: Timestamp,
    blocked_until: Option<Timestamp>,
    /// Full-bucket answers in a row.
    refusals: u32,
    methods: HashMap<&'static str, Operating>,
}

#[derive(Clone, Copy)]
struct Operating {
    seconds: f64,
    resets: Timestamp,
}

impl Limits {
    /// A set of empty buckets with this drain (calls per second) and size (calls).
    pub(super) fn new(per_second: f64, burst: f64) -> Self {
        Self { per_second: per_second.max(0.01), burst: burst.max(1.0), portals: Mutex::default() }
    }

    /// One call leaves.
    pub(super) fn spend(&self, account: &str, now: Timestamp) {
        let mut portals = self.lock();
        let twin = self.twin(&mut portals, account, now);
        twin.level = (twin.level + 1.0).min(self.burst);
    }

    /// The portal took a call: refusals in a row are over, and the method's running time is known.
    pub(super) fn answered(&self, account: &str, now: Timestamp, times: &[(&'static str, &Value)]) {
        let mut portals = self.lock();
        let twin = self.twin(&mut portals, account, now);
        twin.refusals = 0;
        for (method, time) in times {
            let Some(seconds) = member(time, "operating").and_then(number) else { continue };
            let resets = member(time, "operating_reset_at").and_then(integer).map(Timestamp::from_seconds);
            let resets = resets.filter(|at| *at > now).unwrap_or_else(|| now.plus(METHOD_WAIT));
            if seconds >= OPERATING_SLOW {
                twin.methods.insert(method, Operating { seconds, resets });
            } else {
                twin.methods.remove(method);
            }
        }
    }

    /// The portal refused for a limit. Gives the wait, and keeps others from running into the same wall.
    pub(super) fn refused(
        &self,
        account: &str,
        now: Timestamp,
        wait: Wait,
        method: Option<&'static str>,
    ) -> Option<Millis> {
        let mut portals = self.lock();
        let twin = self.twin(&mut portals, account, now);
        match wait {
            Wait::Schedule => None,
            Wait::Bucket => {
                let pause = Millis::seconds(1 << twin.refusals.min(BUCKET_STEPS));
                twin.refusals = twin.refusals.saturating_add(1);
                twin.level = self.burst;
                twin.block(now.plus(pause));
                Some(pause)
            }
            Wait::Method => {
                let known = method.and_then(|method| twin.methods.get(method)).map(|known| known.resets);
                let resets = known.filter(|at| *at > now).unwrap_or_else(|| now.plus(METHOD_WAIT));
                if let Some(method) = method {
                    twin.methods.insert(method, Operating { seconds: f64::MAX, resets });
                }
                Some(resets.since(now))
            }
            Wait::Long => {
                twin.block(now.plus(LONG_WAIT));
                Some(LONG_WAIT)
            }
        }
    }

    /// How long this method must not be called, if it must not.
    pub(super) fn method_wait(&self, account: &str, method: &str, now: Timestamp) -> Option<Millis> {
        let portals = self.lock();
        let known = portals.twins.get(account)?.methods.get(method)?;
        (known.seconds >= OPERATING_STOP && known.resets > now).then(|| known.resets.since(now))
    }

    /// What may be called now.
    ///
    /// A method that runs hot (from 300 s on) lowers the pace of the portal in proportion to what is left until 420 s,
    /// down to a tenth; from 420 s on it is kept from being called ([`Limits::method_wait`]), and only it.
    pub(super) fn budget(&self, account: &str, now: Timestamp) -> Budget {
        let mut budget =
            Budget { calls: self.burst, burst: self.burst, per_second: self.per_second, blocked_until: None };
        let portals = self.lock();
        let Some(twin) = portals.twins.get(account) else { return budget };
        let pace = twin.pace(now);
        budget.per_second *= pace;
        budget.calls = (self.burst - twin.level_at(now, self.per_second)).max(0.0);
        if pace < 1.0 {
            // As if the bucket were smaller: what is kept in reserve shrinks with it, so that everything still moves.
            budget.burst = (self.burst * pace).max(1.0);
            budget.calls = budget.calls.min(budget.burst);
        }
        budget.blocked_until = twin.blocked_until.filter(|until| *until > now);
        budget
    }

    fn twin<'a>(&self, portals: &'a mut Portals, account: &str, now: Timestamp) -> &'a mut Twin {
        if !portals.twins.contains_key(account) {
            portals.since_sweep += 1;
            if portals.since_sweep >= SWEEP_EVERY.max(portals.twins.len() / 2) {
                portals.twins.retain(|_, twin| !twin.is_idle(now, self.per_second));
                portals.since_sweep = 0;
            }
        }
        let twin = portals.twins.entry(account.to_owned()).or_insert_with(|| Twin {
            level: 0.0,
            at: now,
            blocked_until: None,
            refusals: 0,
            methods: HashMap::new(),
        });
        twin.level = twin.level_at(now, self.per_second);
        twin.at = now.max(twin.at);
        twin
    }

    fn lock(&self) -> MutexGuard<'_, Portals> {
        self.portals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Twin {
    fn level_at(&self, now: Timestamp, per_second: f64) -> f64 {
        let seconds = now.since(self.at).0.max(0) as f64 / 1000.0;
        (self.level - seconds * per_second).max(0.0)
    }

    fn block(&mut self, until: Timestamp) {
        self.blocked_until = Some(self.blocked_until.map_or(until, |earlier| earlier.max(until)));
    }

    /// Share of the full pace that the hottest method leaves, from 1 down to a tenth.
    fn pace(&self, now: Timestamp) -> f64 {
        let hot = self.methods.values().filter(|known| known.resets > now && known.seconds < OPERATING_STOP);
        let hottest = hot.map(|known| known.seconds).fold(OPERATING_SLOW, f64::max);
        ((OPERATING_STOP - hottest) / (OPERATING_STOP - OPERATING_SLOW)).clamp(0.1, 1.0)
    }

    fn is_idle(&self, now: Timestamp, per_second: f64) -> bool {
        self.level_at(now, per_second) <= 0.0
            && self.blocked_until.is_none_or(|until| until <= now)
            && self.methods.values().all(|known| known.resets <= now)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PER_SECOND: f64 = 2.0;
    const BURST: f64 = 50.0;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1000 + seconds)
    }

    fn limits() -> (Limits, &'static str) {
        (Limits::new(PER_SECOND, BURST), "acme")
    }

    #[test]
    fn the_bucket_fills_and_drains() {
        let (limits, portal) = limits();
        assert_eq!(limits.budget(portal, at(0)).calls, 50.0);
        for _ in 0..10 {
            limits.spend(portal, at(0));
        }
        assert_eq!(limits.budget(portal, at(0)).calls, 40.0);
        assert_eq!(limits.budget(portal, at(2)).calls, 44.0);
        assert_eq!(limits.budget(portal, at(60)).calls, 50.0);
        for _ in 0..99 {
            limits.spend(portal, at(60));
        }
        assert_eq!(limits.budget(portal, at(60)).calls, 0.0);
        assert_eq!(limits.budget(portal, at(61)).calls, 2.0);
        assert_eq!(limits.budget("other", at(60)).calls, 50.0);
    }

    #[test]
    fn a_clock_that_steps_back_does_no_harm() {
        let (limits, portal) = limits();
        limits.spend(portal, at(10));
        limits.spend(portal, at(0));
        assert_eq!(limits.budget(portal, at(0)).calls, 48.0);
        assert_eq!(limits.budget(portal, at(11)).calls, 50.0);
    }

    #[test]
    fn a_full_bucket_is_believed_and_waits_grow() {
        let (limits, portal) = limits();
        let mut waits = Vec::new();
        for _ in 0..5 {
            waits.push(limits.refused(portal, at(0), Wait::Bucket, None).unwrap().0);
        }
        assert_eq!(waits, [1000, 2000, 4000, 4000, 4000]);
        let budget = limits.budget(portal, at(0));
        assert_eq!((budget.calls, budget.blocked_until), (0.0, Some(at(4))));
        assert_eq!(limits.budget(portal, at(4)).blocked_until, None);
        limits.answered(portal, at(5), &[]);
        assert_eq!(limits.refused(portal, at(5), Wait::Bucket, None), Some(Millis::seconds(1)));
    }

    #[test]
    fn an_overload_holds_the_whole_portal() {
        let (limits, portal) = limits();
        assert_eq!(limits.refused(portal, at(0), Wait::Long, None), Some(Millis::minutes(10)));
        assert_eq!(limits.budget(portal, at(1)).blocked_until, Some(at(600)));
        assert_eq!(limits.refused(portal, at(0), Wait::Schedule, None), None);
    }

    #[test]
    fn a_hot_method_slows_down_and_then_stops_alone() {
        let (limits, portal) = limits();
        let time = |seconds: f64| json!({"operating": seconds, "operating_reset_at": 1120});
        limits.answered(portal, at(0), &[("m.add", &time(299.0))]);
        assert_eq!(limits.budget(portal, at(0)).per_second, 2.0);
        limits.answered(portal, at(0), &[("m.add", &time(360.0)), ("m.send", &json!({"operating": "1.5"}))]);
        let budget = limits.budget(portal, at(0));
        assert_eq!((budget.per_second, budget.calls), (1.0, 25.0));
        assert_eq!(limits.method_wait(portal, "m.add", at(0)), None);
        limits.answered(portal, at(0), &[("m.add", &time(420.0))]);
        assert_eq!(limits.method_wait(portal, "m.add", at(0)), Some(Millis::seconds(120)));
        assert_eq!(limits.method_wait(portal, "m.send", at(0)), None);
        assert_eq!(limits.budget(portal, at(0)).blocked_until, None);
        assert_eq!(limits.method_wait(portal, "m.add", at(121)), None);
        assert_eq!(limits.budget(portal, at(121)).per_second, 2.0);
    }

    #[test]
    fn a_blocked_method_waits_for_its_window() {
        let (limits, portal) = limits();
        let hot = json!({"operating": 400, "operating_reset_at": "1300"});
        limits.answered(portal, at(0), &[("m.add", &hot)]);
        assert_eq!(limits.refused(portal, at(0), Wait::Method, Some("m.add")), Some(Millis::seconds(300)));
        assert_eq!(limits.method_wait(portal, "m.add", at(100)), Some(Millis::seconds(200)));
        assert_eq!(limits.refused(portal, at(0), Wait::Method, Some("m.other")), Some(Millis::minutes(1)));
        assert_eq!(limits.refused(portal, at(0), Wait::Method, None), Some(Millis::minutes(1)));
    }

    #[test]
    fn idle_portals_are_forgotten() {
        let limits = Limits::new(PER_SECOND, BURST);
        for n in 0..10_000_i64 {
            limits.spend(&n.to_string(), at(n));
        }
        assert!(limits.lock().twins.len() < 2 * SWEEP_EVERY, "{}", limits.lock().twins.len());
    }
}
