//! How fast a channel may send: all recipients together, and to each of them. Known from the provider's documents,
//! lowered by what its answers say.
//!
//! Pure but for [`Turnstile`]: the time comes in. The clock is the one of the jobs, in whole milliseconds.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::capability::PeerPace;
use crate::domain::time::{Millis, Timestamp};

/// So many milliseconds early a message may leave, to make up for a moment in which nobody came to send it. The pace is
/// lower by as much, so that no second sees more than the provider allows: `(1000 + EARLY) / interval` is the rate.
const EARLY: f64 = 25.0;
/// What a throttle answer leaves of the pace at that moment.
const SLOWED: f64 = 0.5;
/// It is never lowered below this share of the documented pace.
const SLOWEST: f64 = 1.0 / 16.0;
/// Share of the documented pace that comes back per second: from a half to all of it in half a minute.
const RECOVERY: f64 = 1.0 / 60.0;
/// Throttle answers within this time after the pace was lowered speak of the same wall: their sends left before.
const SAME_WALL: Millis = Millis::seconds(1);

/// Pace of one channel: messages per second, spread evenly. An answer that throttles halves it; then it recovers
/// steadily, and never above what is documented.
pub struct ChannelPace {
    documented: f64,
    /// The pace that a throttle answer left, and from when on it recovers.
    lowered: Option<(f64, Timestamp)>,
    /// When the next message would leave if all had left evenly, in milliseconds.
    next: f64,
}

impl ChannelPace {
    /// A pace of `per_second` messages.
    #[must_use]
    pub fn new(per_second: f64) -> Self {
        Self { documented: per_second.max(0.001), lowered: None, next: 0.0 }
    }

    /// The pace it was made for.
    #[must_use]
    pub fn documented(&self) -> f64 {
        self.documented
    }

    /// Messages per second as of `now`.
    #[must_use]
    pub fn per_second(&self, now: Timestamp) -> f64 {
        let Some((lowered, since)) = self.lowered else { return self.documented };
        let seconds = now.since(since).0.max(0) as f64 / 1000.0;
        self.documented.min(lowered + self.documented * RECOVERY * seconds)
    }

    /// Milliseconds between two messages.
    fn interval(&self, now: Timestamp) -> f64 {
        (1000.0 + EARLY) / self.per_second(now)
    }

    /// Time between two messages as of `now`.
    #[must_use]
    pub fn spacing(&self, now: Timestamp) -> Duration {
        Duration::from_secs_f64(self.interval(now) / 1000.0)
    }

    /// Takes up to `wanted` permits; with none left, also tells how long to wait for the next.
    #[must_use]
    pub fn take(&mut self, wanted: usize, now: Timestamp) -> (usize, Option<Millis>) {
        let interval = self.interval(now);
        let at = now.0 as f64;
        self.next = self.next.max(at);
        for taken in 0..wanted {
            let ahead = self.next - at - EARLY;
            if ahead > 0.0 {
                #[expect(clippy::cast_possible_truncation, reason = "an interval, bounded above")]
                let wait = ahead.min(3_600_000.0).ceil() as i64;
                return (taken, Some(Millis(wait.max(1))));
            }
            self.next += interval;
        }
        (wanted, None)
    }

    /// Gives back permits taken at the same moment that nobody had a use for.
    pub fn give_back(&mut self, unused: usize, now: Timestamp) {
        self.next -= self.interval(now) * unused as f64;
    }

    /// The provider throttled the channel and is left alone until `until`.
    pub fn throttled(&mut self, now: Timestamp, until: Timestamp) {
        // Nothing leaves early after a wall.
        self.next = self.next.max(until.0 as f64 + EARLY);
        if self.lowered.is_some_and(|(_, since)| now < since.plus(SAME_WALL)) {
            return;
        }
        let left = (self.per_second(now) * SLOWED).max(self.documented * SLOWEST);
        self.lowered = Some((left, until));
    }
}

/// Keeps the sends of one channel apart at the moment they leave. They are begun evenly, but a slow commit or a busy machine
/// may hold up what was begun, and then it would leave all at once: more in a second than the provider allows.
#[derive(Debug, Default)]
pub struct Turnstile(Mutex<Option<Instant>>);

impl Turnstile {
    /// Comes back when the next send may leave: `interval` after the one before it, or at once if there is no pace.
    pub async fn pass(&self, interval: Option<Duration>) {
        let Some(interval) = interval else { return };
        let now = Instant::now();
        let slot = {
            let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = next.map_or(now, |next| next.max(now));
            *next = Some(slot + interval);
            slot
        };
        if slot > now {
            tokio::time::sleep_until(slot).await;
        }
    }
}

/// So many recipients are let in before idle ones are looked for.
const SWEEP_EVERY: usize = 256;
/// Most refusals in a row that lengthen the wait: 4³ = 64 s.
const REFUSALS_MAX: u32 = 3;

/// Pace towards each recipient of one channel, by lane. Remembers only those whose pace still says something, so a
/// recipient who gets a message now and then costs memory for some seconds.
pub struct PeerPaces {
    pace: PeerPace,
    peers: HashMap<String, Peer>,
    since_sweep: usize,
}

struct Peer {
    /// When everything borrowed is paid back.
    paid: Timestamp,
    /// The provider asked for patience until then.
    patience: Timestamp,
    /// Refusals in a row.
    refusals: u32,
}

impl PeerPaces {
    /// The pace of the provider's specification.
    #[must_use]
    pub fn new(pace: PeerPace) -> Self {
        Self { pace, peers: HashMap::new(), since_sweep: 0 }
    }

    /// Borrows one message to this recipient from the future.
    ///
    /// # Errors
    /// How long to wait: everything that may be borrowed is, or the provider asked for patience.
    pub fn take(&mut self, lane: &str, now: Timestamp) -> Result<(), Millis> {
        let (interval, burst) = self.pace.towards(lane);
        let most = Millis(interval.0 * i64::from(burst.saturating_sub(1)));
        let peer = self.peer(lane, now);
        let wait = peer.patience.since(now).0.max(peer.paid.since(now).0 - most.0);
        if wait > 0 {
            return Err(Millis(wait));
        }
        peer.paid = peer.paid.max(now).plus(interval);
        Ok(())
    }

    /// The provider refused one for this pace: all that can be borrowed is, whoever borrowed it (a process before this
    /// one, another service on the same number). Refusals in a row wait 1, 4, 16, 64 s, as the provider asks.
    pub fn refused(&mut self, lane: &str, now: Timestamp) {
        let (interval, burst) = self.pace.towards(lane);
        let all = Millis(interval.0 * i64::from(burst));
        let peer = self.peer(lane, now);
        peer.paid = now.plus(all);
        peer.patience = now.plus(Millis::seconds(4_i64.pow(peer.refusals.min(REFUSALS_MAX))));
        peer.refusals += 1;
    }

    fn peer(&mut self, lane: &str, now: Timestamp) -> &mut Peer {
        if !self.peers.contains_key(lane) {
            self.since_sweep += 1;
            if self.since_sweep >= SWEEP_EVERY.max(self.peers.len() / 2) {
                self.peers.retain(|_, peer| peer.paid > now || peer.patience > now);
                self.since_sweep = 0;
            }
        }
        self.peers.entry(lane.to_owned()).or_insert(Peer { paid: now, patience: now, refusals: 0 })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use futures_util::stream::FuturesUnordered;

    use super::*;

    const NOW: Timestamp = Timestamp(10_000);

    fn at(millis: i64) -> Timestamp {
        NOW.plus(Millis(millis))
    }

    /// Sends `count` messages as the scheduler does: whenever the pace says, `late` milliseconds late each time.
    fn run(pace: &mut ChannelPace, count: usize, from: Timestamp, late: i64) -> Vec<i64> {
        let (mut now, mut sent) = (from, Vec::new());
        while sent.len() < count {
            let (taken, wait) = pace.take(count - sent.len(), now);
            sent.extend(std::iter::repeat_n(now.0, taken));
            now = now.plus(Millis(wait.map_or(0, |wait| wait.0 + late)));
        }
        sent
    }

    /// Most messages in any window of a second; `sent` is in order.
    fn most_in_a_second(sent: &[i64]) -> usize {
        let within = |(from, start): (usize, &i64)| sent.partition_point(|at| *at < start + 1000) - from;
        sent.iter().enumerate().map(within).max().unwrap()
    }

    #[test]
    fn groups_have_a_pace_of_their_own() {
        let pace = PeerPace { interval: Millis::seconds(1), burst: 2, in_groups: Some((Millis::seconds(3), 1)) };
        let mut peers = PeerPaces::new(pace);
        let mut taken = |lane: &str, millis| peers.take(lane, at(millis));
        assert_eq!((taken("tg.42", 0), taken("tg.42", 0), taken("tg.42", 0)), (Ok(()), Ok(()), Err(Millis(1_000))));
        for group in ["tg.-42", "beside:tg.-43", "tg.@shop_news"] {
            assert_eq!((taken(group, 0), taken(group, 0)), (Ok(()), Err(Millis(3_000))), "{group}");
        }
    }

    #[test]
    fn a_thousand_messages_use_the_pace_fully_and_never_pass_it() {
        for (rate, count) in [(80.0, 1000), (20.0, 250), (7.0, 100), (1000.0, 10_000)] {
            for late in [0, 1, 3, 9] {
                let sent = run(&mut ChannelPace::new(rate), count, NOW, late);
                let took = (sent[count - 1] - sent[0]) as f64 / 1000.0;
                let ideal = count as f64 / rate;
                assert!(took <= 1.1 * ideal, "{rate}/s, {late} ms late: {took} s instead of {ideal}");
                let most = most_in_a_second(&sent);
                assert!(most as f64 <= rate, "{rate}/s, {late} ms late: {most} in a second");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_held_up_leaves_one_by_one() {
        let (turnstile, pace) = (Turnstile::default(), ChannelPace::new(20.0));
        let begun = Instant::now();
        let mut left = Vec::new();
        let mut sends: FuturesUnordered<_> = (0..30).map(|_| turnstile.pass(Some(pace.spacing(NOW)))).collect();
        while sends.next().await.is_some() {
            left.push(i64::try_from(begun.elapsed().as_millis()).unwrap());
        }
        assert!(most_in_a_second(&left) <= 20, "{left:?}");
        assert!(left[29] <= 1600, "{left:?}");
        tokio::time::sleep(Duration::from_secs(5)).await;
        let waited = Instant::now();
        turnstile.pass(Some(pace.spacing(NOW))).await;
        turnstile.pass(None).await;
        assert_eq!(waited.elapsed(), Duration::ZERO, "nobody was before it");
    }

    #[test]
    fn messages_are_spread_evenly() {
        let sent = run(&mut ChannelPace::new(80.0), 400, NOW, 0);
        let gaps: Vec<i64> = sent.windows(2).skip(5).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| (12..=14).contains(gap)), "{gaps:?}");
        assert_eq!(ChannelPace::new(100_000.0).take(500, NOW), (500, None));
    }

    #[test]
    fn a_throttle_halves_the_pace_and_it_recovers_steadily() {
        let mut pace = ChannelPace::new(80.0);
        let _ = run(&mut pace, 100, NOW, 0);
        let (wall, until) = (at(2_000), at(4_000));
        pace.throttled(wall, until);
        // Sixty more sends were under way and hit the same wall.
        for more in 0..60 {
            pace.throttled(wall.plus(Millis(more)), until);
        }
        assert_eq!(pace.per_second(until), 40.0);
        let sent = run(&mut pace, 3000, until, 0);
        let in_second = |second: i64| {
            let from = until.0 + second * 1000;
            sent.iter().filter(|at| (from..from + 1000).contains(*at)).count()
        };
        assert!((37..=41).contains(&in_second(0)), "{}", in_second(0));
        let counts: Vec<usize> = (0..32).map(in_second).collect();
        assert!(counts.windows(2).all(|pair| pair[1] + 2 >= pair[0]), "it recovers without a step back: {counts:?}");
        assert!(in_second(15) > 54 && in_second(15) < 66, "{counts:?}");
        assert!(most_in_a_second(&sent) <= 80, "{counts:?}");
        assert_eq!(pace.per_second(until.plus(Millis::seconds(30))), 80.0);
    }

    #[test]
    fn walls_one_after_another_lower_it_step_by_step_and_not_to_nothing() {
        let mut pace = ChannelPace::new(80.0);
        let mut rates = Vec::new();
        for n in 0..6 {
            let now = at(n * 3_000);
            pace.throttled(now, now.plus(Millis::seconds(2)));
            rates.push(pace.per_second(now.plus(Millis::seconds(2))));
        }
        assert!(rates.windows(2).all(|pair| pair[1] < pair[0] || pair[1] <= 6.5), "{rates:?}");
        assert!(rates.iter().all(|rate| *rate >= 5.0), "{rates:?}");
    }

    #[test]
    fn a_recipient_gets_the_burst_and_then_one_per_interval() {
        let mut peers = PeerPaces::new(PeerPace { interval: Millis::seconds(6), burst: 45, in_groups: None });
        for _ in 0..45 {
            assert_eq!(peers.take("a", NOW), Ok(()));
        }
        assert_eq!(peers.take("a", NOW), Err(Millis::seconds(6)));
        assert_eq!(peers.take("b", NOW), Ok(()), "others are not delayed");
        assert_eq!(peers.take("a", at(6_000)), Ok(()));
        assert_eq!(peers.take("a", at(6_001)), Err(Millis(5_999)));
        assert_eq!(peers.take("a", at(400_000)), Ok(()), "all is paid back");
    }

    #[test]
    fn refusals_towards_one_recipient_wait_longer_each_time() {
        let mut peers = PeerPaces::new(PeerPace { interval: Millis(1), burst: 45, in_groups: None });
        let mut now = NOW;
        let mut waits = Vec::new();
        for _ in 0..5 {
            peers.refused("a", now);
            let wait = peers.take("a", now).unwrap_err();
            waits.push(wait.0 / 1000);
            now = now.plus(wait);
            assert_eq!(peers.take("b", now), Ok(()));
        }
        assert_eq!(waits, [1, 4, 16, 64, 64]);
        let mut real = PeerPaces::new(PeerPace { interval: Millis::seconds(6), burst: 45, in_groups: None });
        real.refused("a", NOW);
        assert_eq!(real.take("a", NOW), Err(Millis::seconds(6)), "one per interval: nothing can be borrowed");
    }

    #[test]
    fn idle_recipients_are_forgotten() {
        let mut peers = PeerPaces::new(PeerPace { interval: Millis::seconds(6), burst: 45, in_groups: None });
        for n in 0..100_000 {
            assert_eq!(peers.take(&format!("lane {n}"), at(n * 13)), Ok(()));
        }
        assert!(peers.peers.len() < 1500, "{}", peers.peers.len());
    }
}
