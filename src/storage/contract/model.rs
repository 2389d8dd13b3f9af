//! The protocol by which processes share queues, held against a small model of it.
//!
//! Workers take a queue, look at it, begin jobs, settle them, fall silent and come back, in any order and with views as
//! old as they like; every step is the real one. The model says what each may change. So at any moment a queue has at
//! most one living owner, a job is begun by at most one run, a settlement by somebody else changes nothing, no job is
//! lost, and none begins before the ones ahead of it in its lane.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::World;
use super::things::{command, furnished, message};
use crate::domain::command::WaitFor;
use crate::domain::ids::{ChannelId, LineId, PortalId, WorkerId};
use crate::domain::job::{Job, JobState, QueueKey};
use crate::domain::time::{Millis, Timestamp};
use crate::storage::channels::NewChannel;
use crate::storage::plan::Plan;
use crate::storage::settle::{Fate, Right, Settlement, Start};

const WORKERS: usize = 3;
const LANES: usize = 2;
const JOBS_PER_LANE: usize = 3;
const STEPS: usize = 60;

/// What a worker does next.
#[derive(Clone, Debug)]
enum Step {
    Beat(usize),
    /// Its lease ends without a word.
    Lapse(usize),
    Leave(usize),
    Take(usize),
    Release(usize),
    /// Reads the queue; what it begins and settles later is what it saw then.
    Look(usize),
    /// Begins a job of a lane, whichever it believes to be next.
    Begin(usize, usize, usize),
    /// One of the runs begun so far ends so.
    End(usize, JobState, bool),
    /// Settles the first job of a lane without having begun it, as it saw it.
    Judge(usize, usize, JobState, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let worker = || 0..WORKERS;
    let state = || proptest::sample::select(vec![JobState::Ready, JobState::Unclear, JobState::Dead]);
    prop_oneof![
        3 => worker().prop_map(Step::Beat),
        2 => worker().prop_map(Step::Lapse),
        1 => worker().prop_map(Step::Leave),
        4 => worker().prop_map(Step::Take),
        1 => worker().prop_map(Step::Release),
        4 => worker().prop_map(Step::Look),
        6 => (worker(), 0..LANES, 0..JOBS_PER_LANE).prop_map(|(worker, lane, nth)| Step::Begin(worker, lane, nth)),
        4 => (0..8_usize, state(), any::<bool>()).prop_map(|(run, state, done)| Step::End(run, state, done)),
        3 => (worker(), 0..LANES, state(), any::<bool>())
            .prop_map(|(worker, lane, state, done)| Step::Judge(worker, lane, state, done)),
    ]
}

/// What should be in the database.
#[derive(Default)]
struct Model {
    alive: [bool; WORKERS],
    owner: Option<usize>,
    /// State and the run that began it last, by id, for each lane in order.
    lanes: Vec<Vec<(String, JobState, Option<String>)>>,
    /// Heads of the lanes as each worker saw them last.
    seen: [BTreeMap<usize, (String, JobState)>; WORKERS],
    /// Runs begun: job and mark.
    runs: Vec<(String, String)>,
}

impl Model {
    fn find(&mut self, id: &str) -> Option<&mut (String, JobState, Option<String>)> {
        self.lanes.iter_mut().flatten().find(|job| job.0 == id)
    }

    fn remove(&mut self, id: &str) {
        self.lanes.iter_mut().for_each(|lane| lane.retain(|job| job.0 != id));
    }

    /// The first job of a lane that is not dead.
    fn head(&self, lane: usize) -> Option<&(String, JobState, Option<String>)> {
        self.lanes[lane].iter().find(|job| job.1 != JobState::Dead)
    }

    /// What a settlement should do.
    fn settle(&mut self, id: &str, may: bool, to: JobState, done: bool) {
        match self.find(id) {
            Some(_) if may && done => self.remove(id),
            Some(job) if may && job.1 != JobState::Dead => job.1 = to,
            _ => {}
        }
    }
}

struct Field<'a> {
    world: &'a World,
    queue: QueueKey,
    model: Model,
}

fn worker(index: usize) -> WorkerId {
    WorkerId::new(&format!("W{index}"))
}

fn settlement(job: &str, right: Right, to: JobState, done: bool) -> Settlement {
    let due = Timestamp(1_000_000);
    let fate = if done { Fate::Done } else { Fate::Keep { state: to, due, tries: 0, reason: None } };
    Settlement { job: job.to_owned(), right, fate, news: None, attempt: None }
}

impl Field<'_> {
    async fn take(&mut self, step: &Step, nth: usize) {
        let storage = &self.world.storage;
        match step {
            Step::Beat(at) => {
                storage.worker_beat(&worker(*at), Millis::minutes(5)).await.unwrap();
                self.model.alive[*at] = true;
            }
            Step::Lapse(at) => {
                storage.worker_beat(&worker(*at), Millis(-1000)).await.unwrap();
                self.model.alive[*at] = false;
            }
            Step::Leave(at) => {
                storage.worker_leave(&worker(*at)).await.unwrap();
                self.model.alive[*at] = false;
                self.model.owner = self.model.owner.filter(|owner| owner != at);
            }
            Step::Release(at) => {
                storage.queue_release(&worker(*at), &self.queue, None).await.unwrap();
                self.model.owner = self.model.owner.filter(|owner| owner != at);
            }
            Step::Take(at) => {
                let free = self.model.owner.is_none_or(|owner| owner == *at || !self.model.alive[owner]);
                assert_eq!(
                    !storage.queues_take(&worker(*at), std::slice::from_ref(&self.queue)).await.unwrap().is_empty(),
                    free,
                    "{step:?}"
                );
                if free {
                    self.model.owner = Some(*at);
                }
            }
            Step::Look(at) => {
                let page = storage.load_jobs(&self.queue, 100, Timestamp(i64::MAX)).await.unwrap();
                let mut seen = BTreeMap::new();
                for job in &page.jobs {
                    seen.entry(lane_of(job)).or_insert((job.id.clone(), job.state));
                }
                for (lane, head) in &seen {
                    assert_eq!(self.model.head(*lane).map(|job| &job.0), Some(&head.0), "order of lane {lane}");
                }
                self.model.seen[*at] = seen;
            }
            Step::Begin(at, lane, which) => {
                let Some((id, state, _)) = self.model.lanes[*lane].get(*which).cloned() else { return };
                let run = format!("{at}/{nth}");
                let start = Start { jobs: vec![id.clone()], worker: worker(*at), run: run.clone(), again: false };
                let begun = !storage.start(start).await.unwrap().is_empty();
                let first = self.model.head(*lane).is_some_and(|head| head.0 == id);
                let may = first && state == JobState::Ready && self.model.owner == Some(*at);
                assert_eq!(begun, may, "{step:?}");
                if begun {
                    *self.model.find(&id).unwrap() = (id.clone(), JobState::Started, Some(run.clone()));
                    self.model.runs.push((id, run));
                }
            }
            Step::End(run, to, done) => {
                let Some((id, run)) = self.model.runs.iter().rev().nth(*run).cloned() else { return };
                storage.settle(vec![settlement(&id, Right::Begun(run.clone()), *to, *done)]).await.unwrap();
                let may = self.model.find(&id).is_some_and(|job| job.2.as_ref() == Some(&run));
                self.model.settle(&id, may, *to, *done);
            }
            Step::Judge(at, lane, to, done) => {
                let Some((id, seen)) = self.model.seen[*at].get(lane).cloned() else { return };
                storage.settle(vec![settlement(&id, Right::Owner(worker(*at), seen), *to, *done)]).await.unwrap();
                let stands = self.model.find(&id).is_some_and(|job| job.1 == seen);
                let may = stands && self.model.owner == Some(*at);
                self.model.settle(&id, may, *to, *done);
            }
        }
    }

    /// The database holds what the model says, and nothing else.
    async fn compare(&self, ids: &[String], step: &Step) {
        let stored = self.world.storage.jobs_now(ids).await.unwrap();
        let stored: BTreeMap<String, JobState> = stored.into_iter().map(|job| (job.id, job.state)).collect();
        let model = self.model.lanes.iter().flatten().map(|job| (job.0.clone(), job.1));
        assert_eq!(stored, model.collect(), "after {step:?}");
    }
}

fn lane_of(job: &Job) -> usize {
    job.lane.strip_prefix("790").unwrap().parse().unwrap()
}

/// A channel of its own with jobs in every lane; gives their ids by lane.
async fn prepare(world: &World, portal: &PortalId, line: &LineId, case: usize) -> (ChannelId, Vec<Vec<String>>) {
    let new = NewChannel {
        line: line.clone(),
        provider: "whatsapp_cloud".into(),
        name: format!("case {case}"),
        credentials: BTreeMap::new(),
        settings: crate::domain::channel::ChannelSettings::default(),
    };
    let channel = world.storage.add_channel(new).await.unwrap();
    let mut lanes = vec![Vec::new(); LANES];
    for nth in 0..JOBS_PER_LANE {
        let command = command(portal, &format!("case{case}n{nth}"), WaitFor::Accepted);
        world.storage.accept(command.clone()).await.unwrap();
        let messages: Vec<_> =
            (0..LANES).map(|lane| message(&command, &channel, &format!("790{lane}"), None)).collect();
        for (lane, message) in messages.iter().enumerate() {
            lanes[lane].push(format!("send:{}", message.record.id));
        }
        let plan = Plan { command: command.id.clone(), waits: true, messages };
        assert!(world.storage.plan(plan).await.unwrap());
    }
    (channel, lanes)
}

async fn play(world: &World, portal: &PortalId, line: &LineId, case: usize, steps: &[Step]) {
    let (channel, lanes) = prepare(world, portal, line, case).await;
    let ids: Vec<String> = lanes.iter().flatten().cloned().collect();
    let queue = QueueKey::Channel(channel);
    for at in 0..WORKERS {
        world.storage.worker_leave(&worker(at)).await.unwrap();
    }
    world.own(&worker(0), &queue).await;
    let lanes = lanes.into_iter().map(|lane| lane.into_iter().map(|id| (id, JobState::Ready, None)).collect());
    let model = Model { owner: Some(0), alive: [true, false, false], lanes: lanes.collect(), ..Model::default() };
    let mut field = Field { world, queue, model };
    for (nth, step) in steps.iter().enumerate() {
        field.take(step, nth).await;
        field.compare(&ids, step).await;
    }
}

/// Plays random games on one store.
fn games(world: impl Future<Output = Option<World>>, cases: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let Some(world) = runtime.block_on(world) else { return };
    let (portal, _) = runtime.block_on(furnished(&world));
    let line = runtime.block_on(world.storage.lines_of_portal(&portal)).unwrap()[0].id.clone();
    let case = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let played = runner.run(&proptest::collection::vec(step(), STEPS), |steps| {
        case.set(case.get() + 1);
        runtime.block_on(play(&world, &portal, &line, case.get(), &steps));
        Ok(())
    });
    played.unwrap();
    runtime.block_on(world.storage.close());
}

#[test]
fn workers_share_a_queue_as_the_model_says_on_sqlite() {
    games(async { Some(super::sqlite().await) }, 64);
}

#[test]
fn workers_share_a_queue_as_the_model_says_on_postgres() {
    games(super::postgres(), 32);
}
