//! Lanes of one queue in memory: order inside a lane, none between lanes. Pure: no clock, no I/O.
//!
//! Only the head of a lane can run; while it runs or waits, the lane waits with it and nobody else does. The queue
//! holds a *window* of what the database has: jobs beyond it are read when the window drains, so a portal with 50,000
//! waiting effects costs no more memory than one with 2,000.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use crate::domain::job::{Job, JobKind};
use crate::domain::time::Timestamp;
use crate::storage::writer::Queued;

/// Most jobs held per queue.
const WINDOW: usize = 2000;
/// The window is filled again when it has drained to this.
const REFILL: usize = 500;

/// Jobs that go into one call together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Group {
    /// Results of waiting robots, and comments: told to the CRM in one batch.
    Effects,
    /// Commands.
    Commands,
    /// Sends.
    Sends,
    /// Comparing registrations; each alone.
    Reconcile,
}

/// Which group a kind of job belongs to.
#[must_use]
pub fn group_of(kind: JobKind) -> Group {
    match kind {
        JobKind::Command => Group::Commands,
        JobKind::Send => Group::Sends,
        JobKind::Comment | JobKind::Reply => Group::Effects,
        JobKind::Reconcile => Group::Reconcile,
    }
}

/// Lower goes first: somebody waits for a reply, a person looks at a comment later.
fn urgency(kind: JobKind) -> u8 {
    match kind {
        JobKind::Reply => 0,
        JobKind::Command | JobKind::Send => 1,
        JobKind::Comment => 2,
        JobKind::Reconcile => 3,
    }
}

/// Place of a lane among those that may run: urgency, then how long it has waited.
type Place = (Group, u8, Timestamp, String);

#[derive(Default)]
struct Lane {
    /// Waiting jobs in order of `seq`.
    jobs: VecDeque<Queued>,
    /// One of its jobs is running.
    busy: bool,
    /// Where it stands in `ready`.
    place: Option<Place>,
    /// Where it stands in `later`.
    later: Option<(Timestamp, String)>,
}

/// Lanes of one queue.
#[derive(Default)]
pub struct Lanes {
    lanes: HashMap<String, Lane>,
    /// Lanes whose head is due.
    ready: BTreeSet<(Group, u8, Timestamp, String)>,
    /// Lanes whose head becomes due later.
    later: BTreeSet<(Timestamp, String)>,
    /// Lane of each waiting job by its id (running ones are not among them).
    waiting: HashMap<String, String>,
    /// Ids of running jobs.
    running: HashSet<String>,
    /// The database holds jobs behind the window.
    more: bool,
    /// The last `seq` the window reaches to.
    reaches: String,
}

impl Lanes {
    /// Adds a job. One that waits already stays where it is; one behind a full window is left to the database.
    pub fn push(&mut self, queued: Queued, now: Timestamp) {
        let behind = queued.job.seq > self.reaches;
        if behind && (self.more || self.waiting.len() >= WINDOW) {
            self.more = true;
            return;
        }
        self.insert(queued, now);
    }

    /// Takes a page that was read from the database after what the window reached to; `whole` when there is nothing behind it.
    pub fn fill(&mut self, page: Vec<Queued>, whole: bool, now: Timestamp) {
        self.more = !whole;
        for queued in page {
            // The page may be older than what began since; a running job is not waiting.
            if !self.running.contains(&queued.job.id) {
                self.insert(queued, now);
            }
        }
    }

    fn insert(&mut self, queued: Queued, now: Timestamp) {
        if queued.job.seq > self.reaches {
            self.reaches.clone_from(&queued.job.seq);
        }
        let key = queued.job.lane.clone();
        match self.waiting.entry(queued.job.id.clone()) {
            Entry::Occupied(_) => return,
            Entry::Vacant(place) => place.insert(key.clone()),
        };
        let lane = self.lanes.entry(key.clone()).or_default();
        let at = lane.jobs.partition_point(|other| other.job.seq < queued.job.seq);
        lane.jobs.insert(at, queued);
        self.place(&key, now);
    }

    /// Takes up to `max` heads of one group that are due, most urgent first; their lanes are busy until
    /// [`Lanes::finish`].
    pub fn take(&mut self, group: Group, max: usize, now: Timestamp) -> Vec<Queued> {
        self.ripen(now);
        let start = (group, 0, Timestamp(i64::MIN), String::new());
        let chosen: Vec<Place> =
            self.ready.range(start..).take_while(|place| place.0 == group).take(max).cloned().collect();
        let mut taken = Vec::with_capacity(chosen.len());
        for place in chosen {
            self.ready.remove(&place);
            let Some(lane) = self.lanes.get_mut(&place.3) else { continue };
            lane.place = None;
            if let Some(queued) = lane.jobs.pop_front() {
                lane.busy = true;
                self.waiting.remove(&queued.job.id);
                self.running.insert(queued.job.id.clone());
                taken.push(queued);
            }
        }
        taken
    }

    /// A running job is over; `again` puts it back at the head of its lane, unless it was asked for anew meanwhile.
    pub fn finish(&mut self, lane: &str, id: &str, again: Option<Queued>, now: Timestamp) {
        self.running.remove(id);
        if let Some(state) = self.lanes.get_mut(lane) {
            state.busy = false;
        }
        if let Some(queued) = again {
            self.insert(queued, now);
        }
        self.place(lane, now);
    }

    /// A waiting job is over without having run here.
    pub fn remove(&mut self, id: &str, now: Timestamp) {
        let Some(key) = self.waiting.remove(id) else { return };
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.jobs.retain(|queued| queued.job.id != id);
        }
        self.place(&key, now);
    }

    /// Groups that have something due, most urgent group first.
    pub fn due_groups(&mut self, now: Timestamp) -> Vec<Group> {
        self.ripen(now);
        let mut groups: Vec<(u8, Timestamp, Group)> = Vec::new();
        for group in [Group::Effects, Group::Commands, Group::Sends, Group::Reconcile] {
            let start = (group, 0, Timestamp(i64::MIN), String::new());
            if let Some(first) = self.ready.range(start..).next().filter(|place| place.0 == group) {
                groups.push((first.1, first.2, group));
            }
        }
        groups.sort_unstable();
        groups.into_iter().map(|(_, _, group)| group).collect()
    }

    /// How many heads of a group are due, counted up to `max`, and since when the oldest is.
    #[must_use]
    pub fn due(&mut self, group: Group, max: usize, now: Timestamp) -> (usize, Option<Timestamp>) {
        self.ripen(now);
        let start = (group, 0, Timestamp(i64::MIN), String::new());
        let mut oldest: Option<Timestamp> = None;
        let mut count = 0;
        for place in self.ready.range(start..).take_while(|place| place.0 == group).take(max) {
            count += 1;
            oldest = Some(oldest.map_or(place.2, |known| known.min(place.2)));
        }
        (count, oldest)
    }

    /// True when somebody waits for something due in the group (a robot's result), not merely looks at it later.
    #[must_use]
    pub fn somebody_waits(&self, group: Group) -> bool {
        let start = (group, 0, Timestamp(i64::MIN), String::new());
        self.ready.range(start..).next().is_some_and(|place| place.0 == group && place.1 == 0)
    }

    /// When the next head becomes due that is not yet.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.later.first().map(|(due, _)| *due)
    }

    /// Whether the window should be filled, and from where.
    #[must_use]
    pub fn wants_more(&self) -> Option<String> {
        (self.more && self.waiting.len() <= REFILL).then(|| self.reaches.clone())
    }

    /// True when nothing waits, runs or lies behind the window.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty() && !self.more
    }

    /// Jobs that wait in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True when no job waits in memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Puts a lane where its head belongs, or forgets it when it is empty.
    fn place(&mut self, key: &str, now: Timestamp) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if let Some(place) = lane.place.take() {
            self.ready.remove(&place);
        }
        if let Some(later) = lane.later.take() {
            self.later.remove(&later);
        }
        if lane.busy {
            return;
        }
        let Some(head) = lane.jobs.front() else {
            self.lanes.remove(key);
            return;
        };
        if head.job.due > now {
            let later = (head.job.due, key.to_owned());
            lane.later = Some(later.clone());
            self.later.insert(later);
        } else {
            let place = place_of(&head.job);
            lane.place = Some(place.clone());
            self.ready.insert(place);
        }
    }

    /// Lanes whose head has become due by now may run.
    fn ripen(&mut self, now: Timestamp) {
        while let Some((due, key)) = self.later.first().cloned() {
            if due > now {
                return;
            }
            self.place(&key, now);
            // `place` moved it; if the lane were gone, the entry must not stay.
            self.later.remove(&(due, key));
        }
    }
}

fn place_of(job: &Job) -> Place {
    (group_of(job.kind), urgency(job.kind), job.due, job.lane.clone())
}

#[cfg(test)]
mod tests {
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
    fn jobs_behind_a_full_window_are_left_to_the_database() {
        let mut lanes = Lanes::default();
        let total = u32::try_from(WINDOW).unwrap() + 10;
        for seq in 0..total {
            lanes.push(job(&format!("l{seq}"), seq, 0), NOW);
        }
        assert_eq!(lanes.len(), WINDOW);
        assert_eq!(lanes.wants_more(), None);
        let taken = lanes.take(Group::Sends, WINDOW - REFILL, NOW);
        taken.iter().for_each(|queued| lanes.finish(&queued.job.lane, &queued.job.id, None, NOW));
        let after = lanes.wants_more().unwrap();
        assert_eq!(after, format!("{:08}", WINDOW - 1));
        lanes.push(job("late", total + 1, 0), NOW);
        assert_eq!(lanes.len(), REFILL);
        lanes.fill((total - 10..total).map(|seq| job(&format!("l{seq}"), seq, 0)).collect(), true, NOW);
        assert_eq!(lanes.len(), REFILL + 10);
        assert_eq!(lanes.wants_more(), None);
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
}
