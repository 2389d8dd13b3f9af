//! Who calls, by address, and how often somebody at that address was wrong.
//!
//! Beyond a few wrong tokens, an address is told nothing any more, not even that a token is right; otherwise guessing
//! would go on. An address that has shown the right token is believed for an hour: its wrong ones are counted as
//! anybody's, but they do not shut out the right one. Otherwise whoever sits behind the same proxy as our users could
//! close the API for them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use actix_web::HttpRequest;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use ipnet::IpNet;

use crate::domain::time::{Millis, Timestamp};

/// One wrong token more per so long.
const ONE_PER: Duration = Duration::from_secs(6);
/// Wrong tokens at once.
const BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(19);
/// How long an address is believed after the right token.
const BELIEVED: Millis = Millis::hours(1);
/// How often what is known of addresses is cleared of what is old.
const TIDY: Millis = Millis::minutes(1);
/// Addresses known at once; those beyond share one count.
const KNOWN_MAX: usize = 20_000;

/// Addresses of callers, and what is known of them. Small: at most some 5 MiB under attack.
pub struct Peers {
    /// Networks of proxies whose `X-Forwarded-For` is believed.
    trusted: Vec<IpNet>,
    wrong: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Until when each address is believed.
    right: HashMap<IpAddr, Timestamp>,
    tidied: Timestamp,
}

/// What a token was worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The right one.
    Right,
    /// A wrong one.
    Wrong,
    /// Too many wrong ones came from this address; nothing is said of this one. Seconds to wait.
    TooMany(u64),
}

impl Default for Peers {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Peers {
    /// `trusted` are the networks of our own proxies (`[server] trusted_proxies`).
    #[must_use]
    pub fn new(trusted: Vec<IpNet>) -> Self {
        let quota = Quota::with_period(ONE_PER).unwrap_or(Quota::per_minute(BURST)).allow_burst(BURST);
        Self { trusted, wrong: RateLimiter::keyed(quota), clock: DefaultClock::default(), known: Mutex::default() }
    }

    /// The caller's address: the last one on its way that is not a proxy of ours. Headers of anybody else are not
    /// believed.
    #[must_use]
    pub fn address(&self, request: &HttpRequest) -> IpAddr {
        let mut address = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |socket| plain(socket.ip()));
        let lines: Vec<&str> =
            request.headers().get_all("x-forwarded-for").filter_map(|value| value.to_str().ok()).collect();
        let mut way = lines.iter().rev().flat_map(|line| line.rsplit(','));
        while self.trusted.iter().any(|net| net.contains(&address)) {
            match way.next().and_then(|before| before.trim().parse().ok()) {
                Some(before) => address = plain(before),
                None => break,
            }
        }
        address
    }

    /// Counts a token that came from `address`.
    pub fn judge(&self, address: IpAddr, is_right: bool, now: Timestamp) -> Verdict {
        let address = block(address);
        if is_right && self.is_believed(address, now) {
            return Verdict::Right;
        }
        self.tidy(now);
        let shared = IpAddr::V4(Ipv4Addr::BROADCAST);
        let key = if self.wrong.len() < KNOWN_MAX { address } else { shared };
        if let Err(not_yet) = self.wrong.check_key(&key) {
            let wait = not_yet.wait_time_from(self.clock.now());
            return Verdict::TooMany(wait.as_secs().saturating_add(1));
        }
        if !is_right {
            return Verdict::Wrong;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.right.len() < KNOWN_MAX {
            known.right.insert(address, now.plus(BELIEVED));
        }
        Verdict::Right
    }

    fn is_believed(&self, address: IpAddr, now: Timestamp) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.right.get(&address).is_some_and(|until| *until > now)
    }

    fn tidy(&self, now: Timestamp) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(known.tidied) < TIDY {
            return;
        }
        known.tidied = now;
        known.right.retain(|_, until| *until > now);
        self.wrong.retain_recent();
        self.wrong.shrink_to_fit();
    }
}

/// An IPv4 address in IPv6 clothes is an IPv4 address.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// What counts as one caller: an IPv4 address, or the /64 that an IPv6 customer gets.
fn block(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_our_proxies_are_believed() {
        let peers = Peers::new(vec!["10.0.0.0/8".parse().unwrap()]);
        for (socket, forwarded, expected) in [
            ("203.0.113.7:1", vec![], "203.0.113.7"),
            ("203.0.113.7:1", vec!["198.51.100.1"], "203.0.113.7"),
            ("10.0.0.1:1", vec![], "10.0.0.1"),
            ("10.0.0.1:1", vec!["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1:1", vec!["8.8.8.8, 198.51.100.1, 10.0.0.9"], "198.51.100.1"),
            ("10.0.0.1:1", vec!["8.8.8.8", "198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1:1", vec!["nonsense"], "10.0.0.1"),
            ("[::ffff:10.0.0.1]:1", vec!["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1:1", vec!["10.0.0.2"], "10.0.0.2"),
        ] {
            let mut request = TestRequest::default().peer_addr(socket.parse().unwrap());
            for line in &forwarded {
                request = request.append_header(("X-Forwarded-For", *line));
            }
            assert_eq!(peers.address(&request.to_http_request()), ip(expected), "{socket} {forwarded:?}");
        }
    }

    #[test]
    fn wrong_tokens_are_counted_per_address() {
        let peers = Peers::default();
        for _ in 0..20 {
            assert_eq!(peers.judge(ip("203.0.113.7"), false, NOW), Verdict::Wrong);
        }
        assert!(matches!(peers.judge(ip("203.0.113.7"), false, NOW), Verdict::TooMany(1..=7)));
        assert_eq!(peers.judge(ip("203.0.113.8"), false, NOW), Verdict::Wrong);
    }

    #[test]
    fn guessing_on_after_too_many_tells_nothing() {
        let peers = Peers::default();
        while peers.judge(ip("203.0.113.7"), false, NOW) == Verdict::Wrong {}
        assert!(matches!(peers.judge(ip("203.0.113.7"), true, NOW), Verdict::TooMany(_)));
    }

    #[test]
    fn nobody_is_shut_out_by_a_neighbour() {
        let peers = Peers::default();
        assert_eq!(peers.judge(ip("203.0.113.7"), true, NOW), Verdict::Right);
        while peers.judge(ip("203.0.113.7"), false, NOW) == Verdict::Wrong {}
        assert_eq!(peers.judge(ip("203.0.113.7"), true, NOW), Verdict::Right);
        let later = NOW.plus(BELIEVED);
        assert!(matches!(peers.judge(ip("203.0.113.7"), true, later), Verdict::TooMany(_)));
    }

    #[test]
    fn an_ipv6_customer_is_one_caller() {
        let peers = Peers::default();
        for host in 0..20 {
            assert_eq!(peers.judge(ip(&format!("2001:db8::{host:x}")), false, NOW), Verdict::Wrong);
        }
        assert!(matches!(peers.judge(ip("2001:db8::ffff"), false, NOW), Verdict::TooMany(_)));
        assert_eq!(peers.judge(ip("2001:db8:0:1::1"), false, NOW), Verdict::Wrong);
    }

    #[test]
    fn memory_is_bounded() {
        let peers = Peers::default();
        for n in 0..u32::try_from(KNOWN_MAX).unwrap() + 100 {
            peers.judge(IpAddr::V4(Ipv4Addr::from_bits(n)), false, NOW);
        }
        assert!(peers.wrong.len() <= KNOWN_MAX + 1);
    }
}
