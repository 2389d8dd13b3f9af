//! Lanes alone, and beside a database.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::domain::ids::ChannelId;
use crate::domain::job::QueueKey;
use crate::storage::writer::Work;

fn job(lane: &str, seq: u32, due: i64) -> Queued {
    let queue = QueueKey::Channel(ChannelId::stored("chan_1".into()));
    let subject = format!("msg_{seq}");
    let job = Job::new(JobKind::Send, &subject, queue, lane.into(), format!("{seq:08}"), Timestamp(due));
    Queued { job, work: Work::Stored }
}

fn seqs(taken: &[Queued]) -> Vec<u32> {
    taken.iter().map(|queued| queued.job.seq.parse().unwrap()).collect()
}

const NOW: Timestamp = Timestamp(100);

#[test]
fn a_lane_runs_one_job_at_a_time_in_order() {
    let mut lanes = Lanes::default();
    for queued in [job("a", 2, 0), job("a", 1, 0), job("b", 3, 0)] {
        lanes.push(queued, NOW);
    }
    let first = lanes.take(Group::Sends, 10, NOW);
    assert_eq!(seqs(&first), [1, 3]);
    assert!(lanes.take(Group::Sends, 10, NOW).is_empty());
    lanes.finish("a", "send:msg_1", None, NOW);
    assert_eq!(seqs(&lanes.take(Group::Sends, 10, NOW)), [2]);
    lanes.finish("a", "send:msg_2", None, NOW);
    lanes.finish("b", "send:msg_3", None, NOW);
    assert!(lanes.is_idle());
}

#[test]
fn a_retry_holds_up_its_own_lane_only() {
    let mut lanes = Lanes::default();
    for queued in [job("a", 1, 0), job("a", 2, 0), job("b", 3, 0)] {
        lanes.push(queued, NOW);
    }
    let taken = lanes.take(Group::Sends, 1, NOW);
    let mut again = taken.into_iter().next().unwrap();
    again.job.due = Timestamp(500);
    lanes.finish("a", "send:msg_1", Some(again), NOW);
    assert_eq!(seqs(&lanes.take(Group::Sends, 10, NOW)), [3]);
    assert_eq!(lanes.next_due(), Some(Timestamp(500)));
    assert_eq!(seqs(&lanes.take(Group::Sends, 10, Timestamp(500))), [1]);
}

#[test]
fn the_same_job_waits_only_once_but_may_be_asked_for_while_it_runs() {
    let mut lanes = Lanes::default();
    lanes.push(job("a", 1, 0), NOW);
    lanes.push(job("a", 1, 0), NOW);
    let taken = lanes.take(Group::Sends, 10, NOW);
    assert_eq!(taken.len(), 1);
    lanes.push(job("a", 1, 0), NOW);
    lanes.finish("a", "send:msg_1", Some(taken.into_iter().next().unwrap()), NOW);
    assert_eq!(lanes.take(Group::Sends, 10, NOW).len(), 1);
    lanes.finish("a", "send:msg_1", None, NOW);
    assert!(lanes.is_idle());
}

#[test]
fn a_queue_that_was_lost_forgets_what_waits_but_not_what_runs() {
    let mut lanes = Lanes::default();
    for queued in [job("a", 1, 0), job("a", 2, 0), job("b", 3, 900), job("c", 4, 0)] {
        lanes.push(queued, NOW);
    }
    assert_eq!(seqs(&lanes.take(Group::Sends, 1, NOW)), [1]);
    lanes.start_over();
    assert!(lanes.take(Group::Sends, 10, NOW).is_empty() && lanes.is_empty() && !lanes.is_idle());
    assert_eq!((lanes.next_due(), lanes.next_look()), (None, Some(Timestamp(i64::MAX))));
    // Ours again: the database still shows what runs here, and what waits behind it.
    lanes.look_again(NOW);
    assert_eq!(lanes.next_look(), Some(NOW));
    lanes.reading();
    lanes.fill(Some((vec![job("a", 1, 0), job("a", 2, 0)], true)), NOW, Duration::ZERO);
    assert!(lanes.take(Group::Sends, 10, NOW).is_empty(), "the lane waits for its run");
    lanes.finish("a", "send:msg_1", None, NOW);
    assert_eq!(seqs(&lanes.take(Group::Sends, 10, NOW)), [2]);
}

fn end_all(lanes: &mut Lanes, taken: &[Queued]) {
    taken.iter().for_each(|queued| lanes.finish(&queued.job.lane, &queued.job.id, None, NOW));
}

fn overfull() -> (Lanes, u32) {
    let mut lanes = Lanes::default();
    let total = u32::try_from(WINDOW).unwrap() + 10;
    for seq in 0..total {
        lanes.push(job(&format!("l{seq}"), seq, 0), NOW);
    }
    (lanes, total)
}

#[test]
fn what_memory_has_no_room_for_is_read_when_little_is_left_to_run() {
    let (mut lanes, total) = overfull();
    assert_eq!(lanes.len(), WINDOW);
    assert_eq!(lanes.next_look(), None, "there is enough to run");
    let taken = lanes.take(Group::Sends, WINDOW - REFILL, NOW);
    end_all(&mut lanes, &taken);
    assert!(lanes.next_look().is_some());
    lanes.push(job("dropped", total, 0), NOW);
    assert_eq!(lanes.len(), REFILL);
    lanes.reading();
    assert_eq!(lanes.next_look(), None, "it is being read");
    lanes.push(job("late", total + 1, 0), NOW);
    lanes.fill(
        Some(((total - 10..total + 1).map(|seq| job(&format!("l{seq}"), seq, 0)).collect(), true)),
        NOW,
        Duration::ZERO,
    );
    assert_eq!(lanes.len(), REFILL + 12, "the page, and what came in while it was read");
    assert_eq!(lanes.next_look(), None, "all is here");
    lanes.push(job("new", total + 2, 0), NOW);
    assert_eq!(lanes.len(), REFILL + 13);
}

#[test]
fn jobs_of_later_keep_nobody_from_running() {
    let mut lanes = Lanes::default();
    for seq in 0..=u32::try_from(WINDOW).unwrap() {
        lanes.push(job(&format!("l{seq}"), seq, 900_000), NOW);
    }
    lanes.push(job("due", 90_000, 0), NOW);
    assert!(lanes.next_look().is_some_and(|at| at <= NOW.plus(LOOK)));
    lanes.reading();
    lanes.fill(Some((vec![job("due", 90_000, 0)], false)), NOW, Duration::ZERO);
    assert_eq!(seqs(&lanes.take(Group::Sends, 10, NOW)), [90_000]);
    // Nothing new: looks become rarer, until something ends.
    let mut last = NOW;
    for _ in 0..12 {
        last = lanes.next_look().unwrap();
        lanes.reading();
        lanes.fill(Some((Vec::new(), false)), last, Duration::ZERO);
    }
    assert_eq!(lanes.next_look(), Some(last.plus(LOOK_MAX)));
    lanes.finish("due", "send:msg_90000", None, last);
    assert_eq!(lanes.next_look(), Some(last.plus(LOOK)));
}

#[test]
fn a_part_keeps_no_job_that_waits_for_long_and_none_behind_it() {
    let (mut lanes, total) = overfull();
    lanes.reading();
    lanes.fill(Some((vec![job("l0", total, 0)], false)), NOW, Duration::ZERO);
    let mut first = lanes.take(Group::Sends, 1, NOW).remove(0);
    assert_eq!((first.job.lane.as_str(), lanes.len()), ("l0", WINDOW));
    first.job.due = NOW.plus(FAR).plus(Millis(1));
    let id = first.job.id.clone();
    lanes.finish("l0", &id, Some(first), NOW);
    assert_eq!(lanes.len(), WINDOW - 1, "the one behind it is left to the database as well");
}

#[test]
fn a_page_that_was_read_before_a_job_was_put_off_does_not_bring_it_back() {
    let mut lanes = Lanes::default();
    lanes.push(job("a", 1, 0), NOW);
    let mut first = lanes.take(Group::Sends, 1, NOW).remove(0);
    lanes.look_again(NOW);
    lanes.reading();
    first.job.due = Timestamp(90_000);
    lanes.finish("a", "send:msg_1", Some(first), NOW);
    lanes.fill(Some((vec![job("a", 1, 0), job("a", 2, 0)], true)), NOW, Duration::ZERO);
    assert!(lanes.take(Group::Sends, 10, NOW).is_empty(), "the second waits for the first");
    assert_eq!(seqs(&lanes.take(Group::Sends, 10, Timestamp(90_000))), [1]);
}

#[test]
fn news_that_comes_while_the_database_is_read_is_not_forgotten() {
    let mut lanes = Lanes::default();
    lanes.look_again(NOW);
    lanes.reading();
    lanes.look_again(NOW);
    lanes.fill(Some((Vec::new(), true)), NOW, Duration::ZERO);
    assert!(lanes.next_look().is_some());
}

#[test]
fn a_look_that_takes_long_is_followed_by_a_longer_rest() {
    let (mut lanes, _) = overfull();
    let taken = lanes.take(Group::Sends, WINDOW, NOW);
    lanes.reading();
    lanes.fill(Some((Vec::new(), false)), NOW, Duration::from_millis(300));
    end_all(&mut lanes, &taken);
    assert_eq!(lanes.next_look(), Some(NOW.plus(Millis(100))), "the look that was decided before");
    lanes.reading();
    lanes.fill(Some((Vec::new(), false)), NOW, Duration::from_millis(300));
    lanes.push(job("new", 90_000, 0), NOW);
    assert_eq!(lanes.next_look(), Some(NOW.plus(Millis(1200))));
}

#[test]
fn work_asked_for_again_while_it_runs_and_the_database_is_read_is_not_lost() {
    let mut lanes = Lanes::default();
    lanes.push(job("a", 1, 0), NOW);
    let taken = lanes.take(Group::Sends, 1, NOW);
    lanes.look_again(NOW);
    lanes.reading();
    lanes.push(job("a", 1, 0), NOW);
    end_all(&mut lanes, &taken);
    lanes.fill(Some((vec![job("a", 1, 0)], true)), NOW, Duration::ZERO);
    assert_eq!(lanes.take(Group::Sends, 10, NOW).len(), 1);
}

#[test]
fn a_page_that_is_not_all_and_a_failed_read_are_followed_by_another_look() {
    let mut lanes = Lanes::default();
    lanes.look_again(NOW);
    assert_eq!(lanes.next_look(), Some(NOW));
    lanes.reading();
    lanes.push(job("a", 1, 0), NOW);
    lanes.fill(None, NOW, Duration::ZERO);
    assert!(lanes.is_empty() && !lanes.is_idle());
    assert_eq!(lanes.next_look(), Some(NOW.plus(LOOK)), "the job that came in is only in the database");
    lanes.reading();
    lanes.fill(Some((vec![job("a", 1, 0)], true)), NOW, Duration::ZERO);
    end_all(&mut lanes, &[job("a", 1, 0)]);
    assert_eq!(lanes.next_look(), None);
}

#[test]
fn a_removed_job_lets_the_next_one_pass() {
    let mut lanes = Lanes::default();
    lanes.push(job("a", 1, 900), NOW);
    lanes.push(job("a", 2, 0), NOW);
    assert!(lanes.take(Group::Sends, 10, NOW).is_empty());
    lanes.remove("send:msg_1", NOW);
    assert_eq!(seqs(&lanes.take(Group::Sends, 10, NOW)), [2]);
}

proptest! {
    /// Whatever is pushed, taken, retried and removed: no lane runs two jobs, none overtakes, none is lost.
    #[test]
    fn order_holds_in_every_lane(steps in proptest::collection::vec((0u8..4, 0u8..5, 0u8..3), 1..200)) {
        let mut lanes = Lanes::default();
        let mut running: Vec<Queued> = Vec::new();
        let mut last_done: HashMap<String, u32> = HashMap::new();
        let (mut seq, mut pushed, mut done) = (0u32, 0u32, 0u32);
        for (action, lane, extra) in steps {
            match action {
                0 | 1 => {
                    seq += 1;
                    pushed += 1;
                    lanes.push(job(&lane.to_string(), seq, 0), NOW);
                }
                2 => running.extend(lanes.take(Group::Sends, usize::from(extra) + 1, NOW)),
                _ => if let Some(queued) = running.pop() {
                    let (lane, id) = (queued.job.lane.clone(), queued.job.id.clone());
                    if extra == 0 {
                        lanes.finish(&lane, &id, Some(queued), NOW);
                    } else {
                        let this: u32 = queued.job.seq.parse().unwrap();
                        prop_assert!(last_done.insert(lane.clone(), this).is_none_or(|before| before < this));
                        done += 1;
                        lanes.finish(&lane, &id, None, NOW);
                    }
                },
            }
            let mut busy: Vec<&str> = running.iter().map(|queued| queued.job.lane.as_str()).collect();
            busy.sort_unstable();
            let all = busy.len();
            busy.dedup();
            prop_assert_eq!(all, busy.len());
        }
        prop_assert_eq!(lanes.len() + running.len(), (pushed - done) as usize);
    }
}

/// Lanes beside a database that others write to as well, with everything between the two under way for as long as the
/// test likes.
#[derive(Default)]
struct Model {
    /// Lane, place and due time of the jobs that are not done, by id.
    stored: BTreeMap<String, (String, u32, i64)>,
    lanes: Lanes,
    now: Timestamp,
    seq: u32,
    running: Vec<Queued>,
    /// Committed, not yet handed over.
    coming: Vec<Queued>,
    /// Settled in the database, not yet told.
    ended: Vec<(String, String, Option<Queued>)>,
    page: Option<(Vec<Queued>, bool)>,
}

/// A queue of more jobs than this is read in parts.
const MODEL_FEW: usize = 3;

impl Model {
    fn commit(&mut self, lane: u8, due: i64) -> Queued {
        self.seq += 1;
        let queued = job(&lane.to_string(), self.seq, due);
        self.stored.insert(queued.job.id.clone(), (queued.job.lane.clone(), self.seq, due));
        queued
    }

    fn has_before(&self, lane: &str, seq: u32) -> bool {
        self.stored.values().any(|(other, place, _)| other == lane && *place < seq)
    }

    fn read(&mut self) {
        if self.page.is_some() || self.lanes.next_look().is_none_or(|at| at > self.now) {
            return;
        }
        self.lanes.reading();
        let whole = self.stored.len() <= MODEL_FEW;
        let mut rows: Vec<_> = self.stored.values().cloned().collect();
        rows.sort_by_key(|(_, seq, due)| (if whole { 0 } else { *due }, *seq));
        if !whole {
            rows.retain(|(lane, seq, due)| *due <= self.now.0 && !self.has_before(lane, *seq));
            rows.truncate(MODEL_FEW);
        }
        self.page = Some((rows.into_iter().map(|(lane, seq, due)| job(&lane, seq, due)).collect(), whole));
    }

    /// A job has run; `wait` puts it off instead of ending it.
    fn settle(&mut self, at: usize, wait: Option<i64>) {
        let mut queued = self.running.remove(at);
        let (lane, id) = (queued.job.lane.clone(), queued.job.id.clone());
        let again = match (self.stored.get_mut(&id), wait) {
            (Some(row), Some(wait)) => {
                row.2 = self.now.0 + wait;
                queued.job.due = Timestamp(row.2);
                Some(queued)
            }
            (Some(_), None) | (None, _) => {
                self.stored.remove(&id);
                None
            }
        };
        self.ended.push((lane, id, again));
    }

    fn tell(&mut self) {
        for (lane, id, again) in self.ended.drain(..) {
            self.lanes.finish(&lane, &id, again, self.now);
        }
    }

    fn hand_over(&mut self) {
        self.coming.drain(..).for_each(|queued| self.lanes.push(queued, self.now));
    }

    fn fill(&mut self, readable: bool) {
        if let Some(page) = self.page.take() {
            self.lanes.fill(readable.then_some(page), self.now, Duration::ZERO);
        }
    }

    fn step(&mut self, action: u8, lane: u8, extra: u8) {
        match action {
            0 | 1 => {
                let due = if extra == 5 { self.now.0 + 9_000 } else { 0 };
                let queued = self.commit(lane, due);
                self.coming.push(queued);
                if extra > 1 {
                    self.hand_over();
                }
            }
            // Another process commits and tells.
            2 => {
                self.commit(lane, 0);
                self.lanes.look_again(self.now);
            }
            3 => self.running.extend(self.lanes.take(Group::Sends, usize::from(extra) + 1, self.now)),
            4 | 5 if !self.running.is_empty() => {
                let at = usize::from(lane) % self.running.len();
                self.settle(at, [Some(10), Some(8_000), None].get(usize::from(extra)).copied().flatten());
            }
            6 => self.tell(),
            7 => self.read(),
            8 => self.fill(extra > 0),
            _ => self.now = self.now.plus(Millis(i64::from(extra) * 900)),
        }
    }

    /// Nothing stands in the way any more.
    fn quiet_round(&mut self) {
        self.hand_over();
        self.fill(true);
        while !self.running.is_empty() {
            self.settle(0, None);
        }
        self.tell();
        self.now = self.now.plus(Millis(300));
        self.read();
        self.running = self.lanes.take(Group::Sends, 10, self.now);
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let busy: HashSet<&str> = self.running.iter().map(|queued| queued.job.lane.as_str()).collect();
        prop_assert_eq!(busy.len(), self.running.len(), "two jobs of one lane run");
        for queued in &self.running {
            if let Some((lane, seq, _)) = self.stored.get(&queued.job.id) {
                prop_assert!(!self.has_before(lane, *seq), "{} overtakes", seq);
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// However commits, news, reads and ends of runs are mixed: no lane runs two jobs, none overtakes, none is left.
    #[test]
    fn order_holds_beside_a_database(steps in proptest::collection::vec((0u8..10, 0u8..4, 0u8..6), 1..80)) {
        let mut model = Model { now: NOW, ..Model::default() };
        for (action, lane, extra) in steps {
            model.step(action, lane, extra);
            model.check()?;
        }
        for _ in 0..400 {
            model.quiet_round();
            model.check()?;
        }
        prop_assert!(model.stored.is_empty(), "never run: {:?}", model.stored);
    }
}
