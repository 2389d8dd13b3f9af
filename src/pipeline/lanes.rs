//! Lanes of one queue in memory: order inside a lane, none between lanes. Pure: no clock, no I/O.
//!
//! Only the head of a lane can run; while it runs or waits, the lane waits with it and nobody else does.
//!
//! Memory holds all of a queue as long as that is little. Beyond a limit it holds a *part*: what comes in is then
//! left to the database, and the first jobs of lanes that are due are read from there whenever few are left to run. So
//! a portal with 50,000 waiting effects costs no more memory than one with 4,000, and jobs that wait for a later moment
//! keep nobody from running.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use crate::domain::job::{Job, JobKind};
use crate::domain::time::{Millis, Timestamp};
use crate::storage::writer::Queued;

/// Most jobs of a queue that memory holds before it leaves the rest to the database.
const WINDOW: usize = 4000;
/// A queue with no more jobs than this is read as a whole; of a longer one so many heads of each kind are read.
pub const FEW: usize = 2000;
/// More is read when no more than so many lanes can run.
const REFILL: usize = 500;
/// Least time between two looks at the database.
const LOOK: Millis = Millis(50);
/// So many times longer than a look takes is rested after it: a long queue must not keep the database busy.
const REST: u32 = 4;
/// Most: looks that bring nothing, while nothing ends and nothing comes in, become rarer up to this.
const LOOK_MAX: Millis = Millis(5_000);
/// Of a part, jobs that wait for longer than this are left to the database.
const FAR: Millis = Millis(5_000);

/// Jobs that go into one call together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Group {
    /// Results of waiting robots, and comments: told to the CRM in one batch.
    Effects,
    /// Clients' messages on their way to operators. Apart from effects, because the portal takes a second for each.
    Chats,
    /// Commands.
    Commands,
    /// Sends.
    Sends,
    /// Comparing registrations; each alone.
    Reconcile,
    /// What went to clients past their chats, to be shown there: after everything that people write.
    Mirrors,
}

/// Which group a job belongs to.
#[must_use]
pub fn group_of(job: &Job) -> Group {
    match job.kind {
        JobKind::Command => Group::Commands,
        JobKind::Send => Group::Sends,
        JobKind::Comment | JobKind::Reply => Group::Effects,
        JobKind::Reconcile => Group::Reconcile,
        JobKind::Chat if job.is_mirror() => Group::Mirrors,
        JobKind::Chat => Group::Chats,
    }
}

/// Lower goes first: somebody waits for a reply, a person looks at a comment later.
fn urgency(job: &Job) -> u8 {
    match job.kind {
        JobKind::Reply if job.is_awaited() => AWAITED,
        JobKind::Chat if job.is_mirror() => 2,
        // A person has just written it, and looks at the other's face.
        JobKind::Chat => AWAITED,
        JobKind::Send if job.is_answer() => AWAITED,
        JobKind::Command | JobKind::Send => 1,
        JobKind::Comment | JobKind::Reply => 2,
        JobKind::Reconcile => 3,
    }
}

/// Urgency of what somebody waits for.
const AWAITED: u8 = 0;

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

/// Heads of lanes that are due.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Due {
    /// How many.
    pub count: usize,
    /// Since when the oldest is.
    pub oldest: Option<Timestamp>,
    /// How many of them somebody waits for (a robot's result), instead of looking at it later.
    pub awaited: usize,
    /// Since when the oldest of those is due.
    pub oldest_awaited: Option<Timestamp>,
}

/// Lanes of one queue.
#[derive(Default)]
pub struct Lanes {
    lanes: HashMap<String, Lane>,
    /// Lanes whose head is due.
    ready: BTreeSet<Place>,
    /// Lanes whose head becomes due later.
    later: BTreeSet<(Timestamp, String)>,
    /// Lane of each waiting job by its id (running ones are not among them).
    waiting: HashMap<String, String>,
    /// How many of the waiting jobs somebody waits for.
    awaited: usize,
    /// Ids of running jobs.
    running: HashSet<String>,
    /// What is known of the database.
    sight: Sight,
    /// How long the last look at it took.
    took: Duration,
}

/// How much of a queue's jobs memory holds.
#[derive(Default)]
enum Sight {
    /// All.
    #[default]
    Whole,
    /// A part.
    Part {
        /// When to look at the database.
        look: Timestamp,
        /// The wait after a look that brings nothing.
        wait: Millis,
    },
    /// A part, and the database is being read. What happens meanwhile is newer than the page will be.
    Reading {
        /// Jobs that came in.
        late: Vec<Queued>,
        /// More came in than can be kept.
        missed: bool,
        /// Jobs that ended or were put off.
        ended: HashSet<String>,
        /// The wait after this look, should it bring nothing.
        wait: Millis,
    },
}

impl Lanes {
    /// Adds a job. One that waits already stays where it is; one that memory has no room for is left to the database.
    pub fn push(&mut self, queued: Queued, now: Timestamp) {
        let alone = queued.job.kind.is_alone_in_its_lane();
        match &mut self.sight {
            Sight::Whole if self.waiting.len() < WINDOW => self.insert(queued, now),
            Sight::Whole => self.look_again(now),
            // Nothing in the database has to run before it.
            Sight::Part { .. } | Sight::Reading { .. } if alone && self.waiting.len() < 2 * WINDOW => {
                self.insert(queued, now);
            }
            Sight::Part { .. } => self.look_soon(now),
            Sight::Reading { late, .. } if late.len() < WINDOW => late.push(queued),
            Sight::Reading { missed, .. } => *missed = true,
        }
    }

    /// The database may hold more than memory knows of.
    pub fn look_again(&mut self, now: Timestamp) {
        match &mut self.sight {
            // The page may be older than the news.
            Sight::Reading { missed, .. } => *missed = true,
            Sight::Whole | Sight::Part { .. } => self.sight = Sight::Part { look: now, wait: self.rest() },
        }
    }

    /// Forgets all that waits, because somebody else may have had the queue. Lanes of running jobs stay busy until those
    /// end.
    pub fn start_over(&mut self) {
        self.ready.clear();
        self.later.clear();
        self.waiting.clear();
        self.lanes.retain(|_, lane| lane.busy);
        for lane in self.lanes.values_mut() {
            lane.jobs.clear();
        }
        // Whoever takes the queue again looks at once.
        self.sight = Sight::Part { look: Timestamp(i64::MAX), wait: LOOK_MAX };
    }

    /// Least time between two looks at the database.
    fn rest(&self) -> Millis {
        let rest = i64::try_from((self.took * REST).as_millis()).unwrap_or(LOOK_MAX.0);
        Millis(rest.clamp(LOOK.0, LOOK_MAX.0))
    }

    /// Something has changed in the database, or is about to.
    fn look_soon(&mut self, now: Timestamp) {
        let rest = self.rest();
        match &mut self.sight {
            Sight::Whole => {}
            Sight::Part { look, wait } => {
                *look = (*look).min(now.plus(rest));
                *wait = rest;
            }
            Sight::Reading { wait, .. } => *wait = rest,
        }
    }

    /// When the database should be read; `None` when there is no need.
    #[must_use]
    pub fn next_look(&self) -> Option<Timestamp> {
        match self.sight {
            Sight::Part { look, .. } if self.ready.len() <= REFILL => Some(look),
            Sight::Part { .. } | Sight::Whole | Sight::Reading { .. } => None,
        }
    }

    /// The database is being read from now on, until [`Lanes::fill`].
    pub fn reading(&mut self) {
        let wait = match self.sight {
            Sight::Part { wait, .. } => wait,
            Sight::Whole | Sight::Reading { .. } => self.rest(),
        };
        self.sight = Sight::Reading { late: Vec::new(), missed: false, ended: HashSet::new(), wait };
    }

    /// Takes what was read in `took`, `whole` when that is all there is; `None` when it could not be read.
    pub fn fill(&mut self, page: Option<(Vec<Queued>, bool)>, now: Timestamp, took: Duration) {
        self.took = took;
        let Sight::Reading { late, missed, ended, wait } = std::mem::take(&mut self.sight) else {
            return self.look_again(now);
        };
        let known = self.waiting.len();
        let (jobs, whole) = page.unwrap_or_default();
        for queued in jobs {
            if !self.running.contains(&queued.job.id) && !ended.contains(&queued.job.id) {
                self.insert(queued, now);
            }
        }
        if whole && !missed {
            for queued in late {
                self.push(queued, now);
            }
            return;
        }
        let grew = self.waiting.len() > known;
        let wait = if grew { self.rest() } else { Millis((wait.0 * 2).min(LOOK_MAX.0)) };
        self.sight = Sight::Part { look: now.plus(wait), wait };
        if !late.is_empty() || missed {
            self.look_soon(now);
        }
    }

    fn insert(&mut self, queued: Queued, now: Timestamp) {
        let key = queued.job.lane.clone();
        match self.waiting.entry(queued.job.id.clone()) {
            Entry::Occupied(_) => return,
            Entry::Vacant(place) => place.insert(key.clone()),
        };
        self.awaited += usize::from(queued.job.is_awaited());
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
                self.awaited -= usize::from(queued.job.is_awaited());
                self.running.insert(queued.job.id.clone());
                taken.push(queued);
            }
        }
        taken
    }

    /// A running job is over; `again` puts it back at the head of its lane, unless it was asked for anew meanwhile.
    pub fn finish(&mut self, lane: &str, id: &str, again: Option<Queued>, now: Timestamp) {
        self.running.remove(id);
        self.ended(id);
        self.look_soon(now);
        if let Some(state) = self.lanes.get_mut(lane) {
            state.busy = false;
        }
        match again {
            // Not while the database is being read: the page may hold jobs behind this one, and not this one.
            Some(queued) if queued.job.due > now.plus(FAR) && matches!(self.sight, Sight::Part { .. }) => {
                return self.forget(lane);
            }
            Some(queued) => self.insert(queued, now),
            None => {}
        }
        self.place(lane, now);
    }

    /// What a page that is being read says of this job is out of date.
    fn ended(&mut self, id: &str) {
        if let Sight::Reading { ended, .. } = &mut self.sight {
            ended.insert(id.to_owned());
        }
    }

    /// Leaves a lane to the database, with all that waits in it.
    fn forget(&mut self, key: &str) {
        let Some(lane) = self.lanes.remove(key) else { return };
        if let Some(place) = lane.place {
            self.ready.remove(&place);
        }
        if let Some(later) = lane.later {
            self.later.remove(&later);
        }
        for queued in lane.jobs {
            self.waiting.remove(&queued.job.id);
            self.awaited -= usize::from(queued.job.is_awaited());
        }
    }

    /// A waiting job is over without having run here.
    pub fn remove(&mut self, id: &str, now: Timestamp) {
        self.ended(id);
        if let Sight::Reading { late, .. } = &mut self.sight {
            late.retain(|queued| queued.job.id != id);
        }
        let Some(key) = self.waiting.remove(id) else { return };
        if let Some(lane) = self.lanes.get_mut(&key) {
            let gone = lane.jobs.iter().position(|queued| queued.job.id == id).and_then(|at| lane.jobs.remove(at));
            self.awaited -= usize::from(gone.is_some_and(|queued| queued.job.is_awaited()));
        }
        self.place(&key, now);
    }

    /// Groups that have something due, most urgent group first.
    pub fn due_groups(&mut self, now: Timestamp) -> Vec<Group> {
        self.ripen(now);
        let mut groups: Vec<(u8, Timestamp, Group)> = Vec::new();
        let all = [Group::Effects, Group::Chats, Group::Commands, Group::Sends, Group::Reconcile, Group::Mirrors];
        for group in all {
            let start = (group, 0, Timestamp(i64::MIN), String::new());
            if let Some(first) = self.ready.range(start..).next().filter(|place| place.0 == group) {
                groups.push((first.1, first.2, group));
            }
        }
        groups.sort_unstable();
        groups.into_iter().map(|(_, _, group)| group).collect()
    }

    /// The heads of a group that are due, counted up to `max`, most urgent first.
    #[must_use]
    pub fn due(&mut self, group: Group, max: usize, now: Timestamp) -> Due {
        self.ripen(now);
        let start = (group, 0, Timestamp(i64::MIN), String::new());
        let mut due = Due::default();
        for place in self.ready.range(start..).take_while(|place| place.0 == group).take(max) {
            due.count += 1;
            due.oldest = Some(due.oldest.map_or(place.2, |known| known.min(place.2)));
            if place.1 == AWAITED {
                (due.awaited, due.oldest_awaited) = (due.count, due.oldest);
            }
        }
        due
    }

    /// How many waiting jobs somebody waits for, due or not yet.
    #[must_use]
    pub fn awaited(&self) -> usize {
        self.awaited
    }

    /// When the next head becomes due that is not yet.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.later.first().map(|(due, _)| *due)
    }

    /// True when nothing waits or runs, here or in the database.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty() && matches!(self.sight, Sight::Whole)
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
    (group_of(job), urgency(job), job.due, job.lane.clone())
}

#[cfg(test)]
mod tests;
