//! Calls that the simulated vendors make: a bounded pool of senders over keep-alive connections.
//!
//! One courier is Bitrix24's queue server (events, robots), another is Meta's webhook sender. Both share the knobs of
//! [`CourierKnobs`]; retries are the business of whoever sends (the queue server has none).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};

use crate::{
    faults::{Action, Subject},
    journal::{Direction, Entry},
    world::World,
};

/// How calls to the service are made.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CourierKnobs {
    /// Nothing is sent until this is false again; waiting calls then go out at once.
    pub hold: bool,
    /// With `hold`: release in random order.
    pub shuffle: bool,
    /// Every call is put off by this, milliseconds.
    pub delay_ms: u64,
    /// Every call is put off by a random time up to this, milliseconds: calls overtake each other.
    pub jitter_ms: u64,
    /// Every call is made so many more times.
    pub duplicate: u32,
    /// Chance that a call is never made.
    pub lose: f64,
    /// A call without an answer after this many milliseconds has failed.
    pub timeout_ms: u64,
}

impl Default for CourierKnobs {
    fn default() -> Self {
        Self { hold: false, shuffle: false, delay_ms: 0, jitter_ms: 0, duplicate: 0, lose: 0.0, timeout_ms: 15_000 }
    }
}

/// How a call went: HTTP status, 0 = no answer.
pub(crate) struct Receipt {
    pub(crate) status: u16,
}

type Start = Box<dyn FnOnce(&Arc<World>) + Send>;
type Done = Box<dyn FnOnce(&Arc<World>, &Receipt) + Send>;

/// One call to be made.
pub(crate) struct Parcel {
    pub(crate) target: Arc<str>,
    pub(crate) scope: Arc<str>,
    pub(crate) phone: String,
    pub(crate) url: Arc<str>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    /// Called when the call is about to be made.
    pub(crate) start: Option<Start>,
    /// Called with its outcome.
    pub(crate) done: Option<Done>,
}

impl Parcel {
    /// A copy; `done` belongs to the original alone.
    fn copy(&self) -> Self {
        Self {
            target: self.target.clone(),
            scope: self.scope.clone(),
            phone: self.phone.clone(),
            url: self.url.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
            start: None,
            done: None,
        }
    }
}

/// The pool.
pub(crate) struct Courier {
    ready: mpsc::UnboundedSender<Parcel>,
    waiting: Mutex<Vec<Parcel>>,
    knobs: RwLock<CourierKnobs>,
    in_flight: AtomicUsize,
}

impl Courier {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Parcel>) {
        let (ready, queue) = mpsc::unbounded_channel();
        let waiting = Mutex::default();
        (Self { ready, waiting, knobs: RwLock::default(), in_flight: AtomicUsize::new(0) }, queue)
    }

    pub(crate) fn knobs(&self) -> CourierKnobs {
        self.knobs.read().clone()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn held(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Changes the knobs; taking `hold` away releases what waits.
    pub(crate) fn set_knobs(&self, world: &World, knobs: CourierKnobs) {
        let (held, shuffle) = (knobs.hold, knobs.shuffle);
        *self.knobs.write() = knobs;
        if held {
            return;
        }
        let mut released = std::mem::take(&mut *self.waiting.lock());
        if shuffle {
            for at in (1..released.len()).rev() {
                let other = usize::try_from(world.ids.up_to(at as u64)).unwrap_or(0);
                released.swap(at, other);
            }
        }
        for parcel in released {
            self.enqueue(world, parcel);
        }
    }

    /// Throws away what waits.
    pub(crate) fn drop_held(&self) -> usize {
        std::mem::take(&mut *self.waiting.lock()).len()
    }

    /// Applies faults and knobs, then queues.
    pub(crate) fn send(self: &Arc<Self>, world: &Arc<World>, parcel: Parcel) {
        let may = |action: &Action| {
            matches!(action, Action::Delay { .. } | Action::Duplicate { .. } | Action::Reorder { .. } | Action::Lose)
        };
        let subject =
            Subject { target: &parcel.target, portal: &parcel.scope, phone: &parcel.phone, body: &parcel.body };
        let verdict = world.faults.decide(subject, may);
        let knobs = self.knobs.read();
        let is_lost = verdict.action == Some(Action::Lose) || (knobs.lose > 0.0 && world.ids.unit() < knobs.lose);
        if is_lost {
            world.journal.count(&format!("{}.lost", parcel.target));
            record(world, &parcel, 0, Bytes::new(), "lost on purpose");
            return;
        }
        let mut delay_ms = verdict.delay_ms + knobs.delay_ms;
        if knobs.jitter_ms > 0 {
            delay_ms += world.ids.up_to(knobs.jitter_ms);
        }
        if let Some(Action::Reorder { within_ms }) = verdict.action {
            delay_ms += world.ids.up_to(within_ms);
        }
        let (mut copies, mut gap) = (knobs.duplicate, 0);
        drop(knobs);
        if let Some(Action::Duplicate { copies: more, gap_ms }) = verdict.action {
            copies += more;
            gap = gap_ms;
        }
        for nth in 0..u64::from(copies) {
            self.later(world, parcel.copy(), delay_ms + (nth + 1) * gap);
        }
        self.later(world, parcel, delay_ms);
    }

    fn later(self: &Arc<Self>, world: &Arc<World>, parcel: Parcel, delay_ms: u64) {
        if delay_ms == 0 {
            return self.put(world, parcel);
        }
        let (courier, later_world) = (self.clone(), world.clone());
        world.timetable.after(delay_ms, move || courier.put(&later_world, parcel));
    }

    fn put(&self, world: &World, parcel: Parcel) {
        if self.knobs.read().hold {
            self.waiting.lock().push(parcel);
        } else {
            self.enqueue(world, parcel);
        }
    }

    fn enqueue(&self, world: &World, parcel: Parcel) {
        world.pending.add();
        if self.ready.send(parcel).is_err() {
            world.pending.done();
        }
    }

    /// Takes parcels in order, at most `concurrency` on their way at a time.
    pub(crate) async fn run(
        self: Arc<Self>,
        world: Arc<World>,
        mut queue: mpsc::UnboundedReceiver<Parcel>,
        concurrency: usize,
    ) {
        let slots = Arc::new(Semaphore::new(concurrency.max(1)));
        loop {
            let parcel = tokio::select! {
                parcel = queue.recv() => parcel,
                () = world.stop.cancelled() => return,
            };
            let Some(parcel) = parcel else { return };
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let (courier, world) = (self.clone(), world.clone());
            tokio::spawn(async move {
                courier.in_flight.fetch_add(1, Ordering::Relaxed);
                courier.deliver(&world, parcel).await;
                courier.in_flight.fetch_sub(1, Ordering::Relaxed);
                drop(slot);
                world.pending.done();
            });
        }
    }

    async fn deliver(&self, world: &Arc<World>, mut parcel: Parcel) {
        let timeout = Duration::from_millis(self.knobs.read().timeout_ms);
        if let Some(start) = parcel.start.take() {
            start(world);
        }
        let mut request = world.client.post(&*parcel.url).timeout(timeout).body(parcel.body.clone());
        for (name, value) in &parcel.headers {
            request = request.header(*name, value);
        }
        let sent = tokio::select! {
            sent = post(request) => sent,
            () = world.stop.cancelled() => return,
        };
        let (status, answer, note) = match sent {
            Ok((status, answer)) => (status, answer, String::new()),
            Err(error) => (0, Bytes::new(), format!("{error:#}")),
        };
        let outcome = if (200..300).contains(&status) { "ok" } else { "failed" };
        world.journal.count(&parcel.target);
        if outcome == "failed" {
            world.journal.count(&format!("{}.failed", parcel.target));
        }
        record(world, &parcel, status, answer, &note);
        if let Some(done) = parcel.done.take() {
            done(world, &Receipt { status });
        }
    }
}

async fn post(request: reqwest::RequestBuilder) -> anyhow::Result<(u16, Bytes)> {
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    Ok((status, answer.bytes().await?))
}

fn record(world: &World, parcel: &Parcel, status: u16, answer: Bytes, note: &str) {
    world.journal.record(|| Entry {
        at_ms: world.clock.now_ms(),
        direction: Direction::Out,
        target: parcel.target.clone(),
        scope: parcel.scope.clone(),
        line: format!("POST {}", parcel.url),
        body: parcel.body.clone(),
        status,
        answer,
        note: note.to_owned(),
    });
}
