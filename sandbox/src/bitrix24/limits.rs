//! The portal's two limiters. Source: §3.6, and b24restdocs, "REST API Limits": the request counter is kept for each
//! portal apart and sees nothing of a caller but its address, so applications on one server share it.

use std::collections::HashMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::clock::Millis;

const WINDOW_MINUTES: i64 = 10;

/// Limits of one portal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PortalLimits {
    /// Requests per second that drain from the bucket; 0 = no bucket at all. Enterprise: 5.
    pub drain_per_s: f64,
    /// Size of the bucket. Enterprise: 250.
    pub burst: f64,
    /// Execution-time budget; absent = limiter off and no `operating` in answers.
    pub operating: Option<OperatingLimit>,
}

/// Execution time per application and method in ten one-minute buckets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OperatingLimit {
    /// Seconds per ten minutes.
    pub budget_s: f64,
    /// What one call is said to take, seconds. Only calls above 0.1 s are counted.
    pub default_cost_s: f64,
    /// The same for single methods.
    pub cost_s: HashMap<String, f64>,
}

impl Default for OperatingLimit {
    fn default() -> Self {
        Self { budget_s: 480.0, default_cost_s: 0.02, cost_s: HashMap::new() }
    }
}

impl Default for PortalLimits {
    fn default() -> Self {
        Self { drain_per_s: 2.0, burst: 50.0, operating: Some(OperatingLimit::default()) }
    }
}

impl PortalLimits {
    /// No limits at all, for load tests of other things.
    pub fn off() -> Self {
        Self { drain_per_s: 0.0, burst: 0.0, operating: None }
    }
}

#[derive(Default)]
struct Spent {
    /// `(minute, seconds)`, oldest first, at most ten.
    minutes: Vec<(i64, f64)>,
}

/// What `time.operating` and `time.operating_reset_at` say after a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operating {
    pub(crate) spent_s: f64,
    pub(crate) reset_at: i64,
}

#[derive(Default)]
struct Bucket {
    level: f64,
    at_ms: Millis,
}

pub(crate) struct Limiter {
    pub(crate) limits: PortalLimits,
    /// One bucket per source address.
    buckets: HashMap<IpAddr, Bucket>,
    spent: HashMap<(String, &'static str), Spent>,
}

impl Limiter {
    pub(crate) fn new(limits: PortalLimits) -> Self {
        Self { limits, buckets: HashMap::new(), spent: HashMap::new() }
    }

    /// Takes one place in the leaky bucket; `false` = `QUERY_LIMIT_EXCEEDED`.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds between two calls fit an f64")]
    pub(crate) fn take(&mut self, source: IpAddr, now: Millis) -> bool {
        if self.limits.drain_per_s <= 0.0 {
            return true;
        }
        let bucket = self.buckets.entry(source).or_default();
        let drained = (now - bucket.at_ms).max(0) as f64 / 1000.0 * self.limits.drain_per_s;
        bucket.level = (bucket.level - drained).max(0.0);
        bucket.at_ms = now;
        if bucket.level + 1.0 > self.limits.burst + 1e-9 {
            return false;
        }
        bucket.level += 1.0;
        true
    }

    /// Whether the application may call the method at all now.
    pub(crate) fn may_operate(&mut self, client_id: &str, method: &'static str, now: Millis) -> bool {
        let Some(limit) = &self.limits.operating else { return true };
        let budget = limit.budget_s;
        let Some(spent) = self.spent.get_mut(&(client_id.to_owned(), method)) else { return true };
        spent.forget(now);
        spent.sum() < budget
    }

    /// Books one call and tells the new sum.
    pub(crate) fn operate(&mut self, client_id: &str, method: &'static str, now: Millis) -> Option<(f64, Operating)> {
        let limit = self.limits.operating.as_ref()?;
        let cost = limit.cost_s.get(method).copied().unwrap_or(limit.default_cost_s);
        let minute = now.div_euclid(60_000);
        if cost <= 0.1 {
            let known = self.spent.get_mut(&(client_id.to_owned(), method));
            let operating =
                known.map_or(Operating { spent_s: 0.0, reset_at: (minute + WINDOW_MINUTES) * 60 }, |spent| {
                    spent.forget(now);
                    spent.operating(minute)
                });
            return Some((cost, operating));
        }
        let spent = self.spent.entry((client_id.to_owned(), method)).or_default();
        spent.forget(now);
        match spent.minutes.last_mut() {
            Some((last, seconds)) if *last == minute => *seconds += cost,
            _ => spent.minutes.push((minute, cost)),
        }
        Some((cost, spent.operating(minute)))
    }

    pub(crate) fn reset(&mut self) {
        self.buckets.clear();
        self.spent.clear();
    }
}

impl Spent {
    fn forget(&mut self, now: Millis) {
        let oldest = now.div_euclid(60_000) - WINDOW_MINUTES;
        self.minutes.retain(|(minute, _)| *minute > oldest);
    }

    fn sum(&self) -> f64 {
        self.minutes.iter().map(|(_, seconds)| seconds).sum()
    }

    fn operating(&self, minute: i64) -> Operating {
        let first = self.minutes.first().map_or(minute, |(first, _)| *first);
        Operating { spent_s: self.sum(), reset_at: (first + WINDOW_MINUTES) * 60 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1));

    #[test]
    fn every_source_address_has_a_bucket_of_its_own() {
        let elsewhere = IpAddr::from([203, 0, 113, 2]);
        let mut limiter = Limiter::new(PortalLimits::default());
        assert_eq!((0..60).filter(|_| limiter.take(HERE, 1_000_000)).count(), 50);
        assert_eq!((0..60).filter(|_| limiter.take(elsewhere, 1_000_000)).count(), 50);
        assert!(!limiter.take(HERE, 1_000_000));
    }

    #[test]
    fn bucket_holds_fifty_and_drains_two_a_second() {
        let mut limiter = Limiter::new(PortalLimits::default());
        let taken = (0..60).filter(|_| limiter.take(HERE, 1_000_000)).count();
        assert_eq!(taken, 50);
        assert!(!limiter.take(HERE, 1_000_400));
        assert!(limiter.take(HERE, 1_000_500));
        assert!(!limiter.take(HERE, 1_000_600));
        let later = (0..60).filter(|_| limiter.take(HERE, 1_010_600)).count();
        assert_eq!(later, 20);
    }

    #[test]
    fn method_time_is_summed_over_ten_minutes_and_only_above_a_tenth_of_a_second() {
        let cost_s = HashMap::from([("crm.item.add".to_owned(), 200.0)]);
        let operating = Some(OperatingLimit { cost_s, ..OperatingLimit::default() });
        let mut limiter = Limiter::new(PortalLimits { operating, ..PortalLimits::default() });
        let start = 600_000_000;
        for at in 0..3 {
            assert!(limiter.may_operate("a", "crm.item.add", start + at * 60_000));
            limiter.operate("a", "crm.item.add", start + at * 60_000);
        }
        assert!(!limiter.may_operate("a", "crm.item.add", start + 180_000));
        assert!(limiter.may_operate("b", "crm.item.add", start + 180_000));
        assert!(limiter.may_operate("a", "profile", start + 180_000));
        let (_, told) = limiter.operate("a", "crm.item.add", start + 180_000).unwrap();
        assert_eq!(told.reset_at * 1000, start + 600_000);
        assert!((told.spent_s - 800.0).abs() < 1e-9);
        assert!(limiter.may_operate("a", "crm.item.add", start + 13 * 60_000));
        limiter.operate("a", "profile", start);
        assert!(limiter.operate("a", "profile", start).unwrap().1.spent_s.abs() < 1e-9);
    }
}
