//! The governor against a simulated portal: a leaky bucket of 50 that drains 2 a second, on a clock of its own.

use std::collections::{BTreeMap, HashMap};

use super::*;
use crate::domain::ids::PortalId;
use crate::domain::job::{GIVEN, Job, JobKind, QueueKey};
use crate::storage::writer::Work;

fn budget(calls: f64) -> Budget {
    Budget { calls, burst: 50.0, per_second: 2.0, blocked_until: None }
}

const NOW: Timestamp = Timestamp(10_000);
const FEW: Demand = Demand { oldest: NOW, full: false, awaited: false, spoken_for: 0 };
const FULL: Demand = Demand { full: true, ..FEW };
const AWAITED: Demand = Demand { awaited: true, ..FEW };

#[test]
fn a_full_bucket_lets_a_lonely_comment_go_almost_at_once() {
    assert_eq!(leave_at(budget(50.0), FEW, NOW), NOW.plus(Millis(50)));
}

#[test]
fn an_empty_bucket_makes_calls_gather() {
    let (half, low) = (leave_at(budget(25.0), FEW, NOW), leave_at(budget(8.0), FEW, NOW));
    assert!(low > half && half > NOW.plus(Millis(500)), "{half:?} {low:?}");
    assert_eq!(leave_at(budget(25.0), FULL, NOW), NOW.plus(SETTLE));
    assert_eq!(leave_at(budget(25.0), Demand { full: true, ..AWAITED }, NOW), NOW);
}

#[test]
fn the_reserve_is_for_those_who_wait() {
    assert!(leave_at(budget(6.9), Demand { oldest: Timestamp(0), ..FULL }, NOW) > NOW);
    assert!(leave_at(budget(7.0), Demand { oldest: Timestamp(0), ..FULL }, NOW) <= NOW);
    assert!(leave_at(budget(3.0), Demand { oldest: Timestamp(0), ..AWAITED }, NOW) <= NOW);
    assert_eq!(leave_at(budget(0.5), AWAITED, NOW), NOW.plus(Millis(250)));
}

#[test]
fn calls_that_waiting_robots_will_need_are_spoken_for() {
    let comments = |spoken_for| Demand { oldest: Timestamp(0), spoken_for, ..FULL };
    assert!(leave_at(budget(26.9), comments(20), NOW) > NOW);
    assert!(leave_at(budget(27.0), comments(20), NOW) <= NOW);
    assert!(leave_at(budget(31.0), comments(1000), NOW) <= NOW, "comments are never shut out of a full bucket");
    let small = Budget { calls: 2.0, burst: 2.0, ..budget(0.0) };
    assert!(leave_at(small, comments(1000), NOW) <= NOW, "nor of a small one");
}

#[test]
fn a_blocked_portal_waits_whatever_its_bucket_says() {
    let until = NOW.plus(Millis(900));
    assert_eq!(leave_at(Budget { blocked_until: Some(until), ..budget(50.0) }, AWAITED, NOW), until);
}

#[test]
fn a_portal_that_takes_more_has_more_under_way_and_one_free_for_who_waits() {
    let at_once = |per_second: f64, awaited: bool| {
        let budget = Budget { per_second, ..budget(50.0) };
        let under_way = |unawaited| UnderWay { awaited: 0, unawaited };
        (0..100).take_while(|running| under_way(*running).has_room(awaited, budget)).count()
    };
    assert_eq!((at_once(2.0, true), at_once(2.0, false)), (3, 2));
    assert_eq!((at_once(5.0, true), at_once(5.0, false)), (5, 4), "a portal of the largest plan");
    assert_eq!((at_once(0.0, true), at_once(1000.0, true)), (3, 16), "within bounds");
}

/// What happens to a card.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Happening {
    /// The message of this card is in this state: its comment is asked for.
    State(usize, u8),
    /// The robot of this card may have its result from now on.
    Reply(usize),
    /// The call with this number is answered.
    Answer(usize),
}

const BATCH: usize = 50;
/// The state in which nothing changes any more.
const FINAL: u8 = 3;

struct Simulation {
    now: i64,
    happenings: BTreeMap<(i64, usize), Happening>,
    planned: usize,
    lanes: Lanes,
    under_way: UnderWay,
    calls: Vec<(bool, Vec<Queued>)>,
    /// How long the portal takes for a call.
    answers_after: i64,
    /// The portal's bucket.
    level: f64,
    level_at: i64,
    /// States of the messages, and what their comments say.
    states: HashMap<usize, u8>,
    /// Per card: when its comment was first there, when it said the final state, when its robot had the result.
    added: BTreeMap<usize, i64>,
    settled: BTreeMap<usize, i64>,
    replied: BTreeMap<usize, i64>,
}

impl Simulation {
    fn new(answers_after: i64) -> Self {
        Self {
            now: -10_000,
            happenings: BTreeMap::new(),
            planned: 0,
            lanes: Lanes::default(),
            under_way: UnderWay::default(),
            calls: Vec::new(),
            answers_after,
            level: 0.0,
            level_at: -10_000,
            states: HashMap::new(),
            added: BTreeMap::new(),
            settled: BTreeMap::new(),
            replied: BTreeMap::new(),
        }
    }

    fn at(&mut self, at: i64, happening: Happening) {
        self.planned += 1;
        self.happenings.insert((at, self.planned), happening);
    }

    fn free(&self) -> f64 {
        50.0 - (self.level - (self.now - self.level_at) as f64 / 1000.0 * 2.0).max(0.0)
    }

    fn job(kind: JobKind, card: usize, due: i64) -> Queued {
        let queue = QueueKey::Crm(PortalId::stored("prt_1".into()));
        let lane = format!("{}:{card}", kind.code());
        let job = Job::new(kind, &format!("{card}"), queue, lane, format!("{card:08}"), Timestamp(due));
        Queued { job, work: Work::Stored }
    }

    fn run(&mut self) {
        let mut look = None;
        loop {
            let event = self.happenings.first_key_value().map(|((at, _), _)| *at);
            let Some(at) = event.into_iter().chain(look.map(|at: Timestamp| at.0)).min() else { return };
            self.now = self.now.max(at);
            while let Some(entry) = self.happenings.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let happening = entry.remove();
                self.happen(happening);
            }
            look = self.call();
            assert!(self.now < 600_000, "it does not come to an end");
        }
    }

    fn happen(&mut self, happening: Happening) {
        let now = Timestamp(self.now);
        match happening {
            Happening::State(card, state) => {
                self.states.insert(card, state);
                self.lanes.push(Self::job(JobKind::Comment, card, self.now), now);
            }
            Happening::Reply(card) => self.lanes.push(Self::job(JobKind::Reply, card, self.now + 2_000), now),
            Happening::Answer(call) => {
                let (awaited, jobs) = &mut self.calls[call];
                *self.under_way.count(*awaited) -= 1;
                for queued in std::mem::take(jobs) {
                    self.lanes.finish(&queued.job.lane, &queued.job.id, None, now);
                }
            }
        }
    }

    fn call(&mut self) -> Option<Timestamp> {
        let now = Timestamp(self.now);
        let budget = Budget { calls: self.free(), ..budget(0.0) };
        let (next, look) = next_call(&mut self.lanes, budget, self.under_way, BATCH, now);
        let Some(NextCall { jobs, awaited, .. }) = next else { return look };
        assert!(self.free() >= 1.0, "the portal refuses a call");
        self.level = 50.0 - self.free() + 1.0;
        self.level_at = self.now;
        *self.under_way.count(awaited) += 1;
        let answered = self.now + self.answers_after;
        for queued in &jobs {
            let card: usize = queued.job.subject.parse().unwrap();
            if queued.job.kind == JobKind::Reply {
                assert!(self.replied.insert(card, answered).is_none(), "a result is given once");
                continue;
            }
            self.added.entry(card).or_insert(answered);
            if self.states[&card] >= FINAL {
                assert!(self.settled.insert(card, answered).is_none(), "the final state is written once");
            }
        }
        self.calls.push((awaited, jobs));
        self.at(answered, Happening::Answer(self.calls.len() - 1));
        look
    }

    fn last(times: &BTreeMap<usize, i64>) -> i64 {
        times.values().copied().max().unwrap_or(0)
    }

    /// Deals moved at once: planned and sent at 1,500 a second, statuses after the given times.
    fn deals(&mut self, count: usize, statuses: [i64; 3]) {
        for card in 0..count {
            let accepted = i64::try_from(card).unwrap() * 2 / 3 + 50;
            self.at(accepted, Happening::State(card, 0));
            self.at(accepted, Happening::Reply(card));
            for (state, after) in (1..).zip(statuses) {
                self.at(accepted + after, Happening::State(card, state));
            }
        }
    }
}

#[test]
fn a_thousand_deals_at_once_are_told_in_time() {
    let mut world = Simulation::new(40);
    world.deals(1000, [20, 60, 100]);
    world.run();
    assert_eq!((world.added.len(), world.settled.len(), world.replied.len()), (1000, 1000, 1000));
    let (added, settled, replied) =
        (Simulation::last(&world.added), Simulation::last(&world.settled), Simulation::last(&world.replied));
    // The last one was accepted at 0.72 s; results must not be given before two seconds have passed.
    assert!(added <= 1_500, "last comment after {added} ms");
    assert!(replied <= 3_500, "last result after {replied} ms");
    assert!(settled <= 3_500, "last final state after {settled} ms");
    assert!(world.calls.len() <= 48, "{} calls for 2,000 effects", world.calls.len());
}

#[test]
fn with_statuses_as_late_as_in_life_results_still_come_first() {
    let mut world = Simulation::new(40);
    world.deals(1000, [800, 1_500, 4_000]);
    world.run();
    let (added, settled, replied) =
        (Simulation::last(&world.added), Simulation::last(&world.settled), Simulation::last(&world.replied));
    assert!(added <= 1_500, "last comment after {added} ms");
    assert!(replied <= 3_500, "last result after {replied} ms");
    // 20 calls for the comments, 20 for the results, 20 more for the final states: ten more than the bucket holds, and
    // six are left in it.
    assert!(settled <= 15_000, "last final state after {settled} ms");
}

#[test]
fn results_and_comments_share_calls_and_results_go_first() {
    let mut world = Simulation::new(40);
    for card in 0..110 {
        world.at(-2_000, Happening::Reply(card));
        world.at(0, Happening::State(card, FINAL));
    }
    world.run();
    assert_eq!(world.calls.len(), 5, "220 effects of two kinds");
    let sizes: Vec<usize> = world
        .replied
        .values()
        .fold(BTreeMap::new(), |mut sizes, at| {
            *sizes.entry(*at).or_insert(0) += 1;
            sizes
        })
        .into_values()
        .collect();
    assert_eq!(sizes.iter().sum::<usize>(), 110);
    assert!(sizes.len() <= 3, "{sizes:?}");
    assert!(Simulation::last(&world.replied) <= *world.settled.values().min().unwrap() + 40);
}

#[test]
fn a_portal_that_answers_slowly_still_takes_the_result_of_a_waiting_robot() {
    let mut world = Simulation::new(20_000);
    for card in 0..500 {
        world.at(0, Happening::State(card, FINAL));
    }
    world.at(3_000, Happening::Reply(1000));
    world.run();
    assert!(world.replied[&1000] <= 5_000 + 20_000 + 1_100, "{}", world.replied[&1000]);
    assert_eq!(world.settled.len(), 500);
}

#[test]
fn waiting_robots_do_not_queue_behind_thousands_of_comments() {
    let mut world = Simulation::new(40);
    for card in 0..6_000 {
        world.at(0, Happening::State(card, FINAL));
    }
    for n in 0..30 {
        world.at(n * 700, Happening::Reply(10_000 + usize::try_from(n).unwrap()));
    }
    world.run();
    for (card, at) in &world.replied {
        let due = (i64::try_from(*card).unwrap() - 10_000) * 700 + 2_000;
        assert!(at - due <= 1_100, "result {card}: {} ms after it was due", at - due);
    }
    assert_eq!(world.replied.len(), 30);
    // What memory has no room for is left to the database, which this portal does not have.
    assert!(world.settled.len() >= 2_000);
}

#[test]
fn a_result_given_once_more_waits_like_a_comment() {
    let mut lanes = Lanes::default();
    let mut again = Simulation::job(JobKind::Reply, 1, 0);
    again.job.reason = Some(GIVEN.to_owned());
    lanes.push(again, NOW);
    assert_eq!((lanes.awaited(), lanes.due(Group::Effects, 9, NOW).awaited), (0, 0));
    lanes.push(Simulation::job(JobKind::Reply, 2, 0), NOW);
    lanes.push(Simulation::job(JobKind::Reply, 3, 99_000), NOW);
    assert_eq!((lanes.awaited(), lanes.due(Group::Effects, 9, NOW).awaited), (2, 1));
    let taken = lanes.take(Group::Effects, 1, NOW);
    assert_eq!((taken[0].job.subject.as_str(), lanes.awaited()), ("2", 1));
    lanes.remove("reply:3", NOW);
    assert_eq!(lanes.awaited(), 0);
}
