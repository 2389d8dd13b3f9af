//! Jobs taken and settled by the owner of their queue, through the methods of the store that the scheduler uses.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mostik::app::{SystemClock, Ulids};
use mostik::domain::ids::{ChannelId, IdSource, MessageId, ProviderMessageId, WorkerId};
use mostik::domain::job::{Job, QueueKey};
use mostik::domain::status::MessageState;
use mostik::domain::time::{Clock, Millis};
use mostik::storage::db::Db;
use mostik::storage::messages::{Attempt, MessageNews};
use mostik::storage::sealed::Sealer;
use mostik::storage::settle::{Fate, Right, Settlement, Start};
use mostik::storage::writer::{JobSink, Queued};
use mostik::storage::{Storage, StorageError, StorageOptions};

use crate::fill::{Lot, Store, home, homes};
use crate::measure::{RUNS, Steal, load, median, now_ms, store_name};
use crate::world::{MASTER_KEY, fresh_postgres};

/// Queues, each of a portal of its own.
const QUEUES: u64 = 100;
/// Jobs of each queue; the first one has so many times more.
const JOBS: u64 = 400;
const LONGER: u64 = 10;
/// Jobs begun, and settled, at once.
const BATCH: usize = 100;
/// Jobs read at once, as the scheduler does.
const PAGE: usize = 1000;

/// What a settlement says beside "done".
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// Nothing: the protocol of the queue alone.
    Bare,
    /// All that follows from a send: the message moves up, its try is noted, its comment is asked for.
    Full,
}

/// Takes nothing: what a step leaves to do is not done here.
struct Nobody;

impl JobSink for Nobody {
    fn owns(&self, _queue: &QueueKey) -> bool {
        true
    }
    fn jobs(&self, _jobs: Vec<Queued>) {}
    fn gone(&self, _jobs: Vec<(QueueKey, String)>) {}
    fn unsure(&self, _queues: std::collections::BTreeSet<QueueKey>) {}
    fn news(&self) {}
}

/// One owner of all queues.
struct Owner {
    storage: Storage,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    worker: WorkerId,
}

/// Five runs of each weight.
pub(crate) async fn claims(postgres: bool) {
    let folder = tempfile::tempdir().unwrap();
    let url = if postgres {
        fresh_postgres(None).await
    } else {
        format!("sqlite://{}", folder.path().join("mostik.db").display())
    };
    let db = Db::open(&url).await.unwrap();
    db.migrate().await.unwrap();
    let store = Store::open(&url).await;
    homes(&store, QUEUES, now_ms()).await;
    let owner = Arc::new(Owner::new(db).await);
    println!("store: {}, {QUEUES} queues, {BATCH} jobs at once, load {}", store_name(postgres), load());
    println!(
        "{:>4} {:>6} {:>10} {:>24} {:>14} {:>6}",
        "run", "jobs", "jobs/s", "others, least to most", "longest queue", "steal"
    );
    let mut next = 0;
    for weight in [Weight::Bare, Weight::Full] {
        let mut rates = Vec::new();
        for number in 1..=RUNS {
            let count = QUEUES * JOBS + (LONGER - 1) * JOBS;
            fill(&store, next, count).await;
            next += count;
            let steal = Steal::now();
            let began = Instant::now();
            let shares = Arc::clone(&owner).work(weight).await;
            #[expect(clippy::cast_precision_loss, reason = "a count")]
            let rate = count as f64 / began.elapsed().as_secs_f64();
            let (longest, others) = shares.split_first().unwrap();
            let range = format!("{} to {}", others.iter().min().unwrap(), others.iter().max().unwrap());
            println!("{number:>4} {count:>6} {rate:>10.0} {range:>24} {longest:>14} {:>6.2}", steal.since());
            rates.push(rate);
            let left = store.number("SELECT COUNT(*) FROM jobs WHERE kind = 'send'").await;
            assert_eq!(left, 0, "jobs were left");
        }
        let what = match weight {
            Weight::Bare => "taken and settled",
            Weight::Full => "taken and settled, with message, try and comment",
        };
        println!("median: {:.0} jobs/s {what}", median(rates));
    }
    println!("shares: jobs of a queue that were settled when the first queue had ended");
    store.close().await;
    owner.storage.close().await;
}

/// Writes messages with their sends: the first queue gets the most.
async fn fill(store: &Store, from: u64, count: u64) {
    let queue = format!(
        "(CASE WHEN (n.i - {from}) % {whole} < {QUEUES} THEN (n.i - {from}) % {whole} ELSE 0 END)",
        whole = QUEUES + LONGER - 1
    );
    let lot = Lot {
        from,
        to: from + count,
        portal: home("prt", &queue),
        channel: home("chan", &queue),
        card: "'deal:' || CAST(n.i AS TEXT)".to_owned(),
        state: ("queued", 0),
        since: now_ms() - 60_000,
        step: 0,
    };
    lot.write(store).await;
    lot.sends(store).await;
    store.analyze().await;
}

impl Owner {
    async fn new(db: Db) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ids: Arc<dyn IdSource> = Arc::new(Ulids::new(Arc::clone(&clock)));
        let sealer = Sealer::new(MASTER_KEY, &[]).unwrap();
        let options = StorageOptions { reply_not_before: Millis::seconds(2) };
        let storage = Storage::new(db, sealer, Arc::clone(&ids), Arc::clone(&clock), Arc::new(Nobody), options);
        let worker = WorkerId::new(&ids.ulid());
        storage.worker_beat(&worker, Millis::hours(1)).await.unwrap();
        let owner = Self { storage, clock, ids, worker };
        for number in 0..QUEUES {
            assert!(
                !owner
                    .storage
                    .queues_take(&owner.worker, std::slice::from_ref(&queue(number)))
                    .await
                    .unwrap()
                    .is_empty()
            );
        }
        owner
    }

    /// Empties all queues, each by a task of its own. Gives how much of each was done when the first one had ended.
    async fn work(self: Arc<Self>, weight: Weight) -> Vec<u64> {
        let done: Arc<Vec<AtomicU64>> = Arc::new((0..QUEUES).map(|_| AtomicU64::new(0)).collect());
        let shares = Arc::new(std::sync::OnceLock::new());
        let mut tasks = Vec::new();
        for number in 0..QUEUES {
            let (owner, done, shares) = (Arc::clone(&self), Arc::clone(&done), Arc::clone(&shares));
            tasks.push(tokio::spawn(async move {
                let queue = queue(number);
                let own = &done[usize::try_from(number).unwrap()];
                loop {
                    let jobs = owner.jobs(&queue).await;
                    if jobs.is_empty() {
                        break;
                    }
                    for jobs in jobs.chunks(BATCH) {
                        owner.one_batch(&queue, jobs, weight).await;
                        own.fetch_add(u64::try_from(jobs.len()).unwrap(), Ordering::Relaxed);
                    }
                }
                let _ = shares.set(done.iter().map(|count| count.load(Ordering::Relaxed)).collect::<Vec<_>>());
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        shares.get().unwrap().clone()
    }

    /// What a queue has to do. While all readers are busy it is asked again, as the scheduler does.
    async fn jobs(&self, queue: &QueueKey) -> Vec<Job> {
        loop {
            match self.storage.load_jobs(queue, PAGE, self.clock.now()).await {
                Ok(page) => return page.jobs,
                Err(StorageError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Begins jobs and settles those that may run.
    async fn one_batch(&self, queue: &QueueKey, jobs: &[Job], weight: Weight) {
        let run = self.ids.ulid();
        let ids: Vec<String> = jobs.iter().map(|job| job.id.clone()).collect();
        let by_id: HashMap<&str, &Job> = jobs.iter().map(|job| (job.id.as_str(), job)).collect();
        let start = Start { jobs: ids, worker: self.worker.clone(), run: run.clone(), again: false };
        let begun = self.storage.start(start).await.unwrap();
        assert_eq!(begun.len(), jobs.len(), "a job of {queue} could not be begun");
        let settlements: Vec<Settlement> = begun
            .iter()
            .map(|id| {
                let message = MessageId::stored(by_id[id.as_str()].subject.clone());
                let full = weight == Weight::Full;
                Settlement {
                    job: id.clone(),
                    right: Right::Begun(run.clone()),
                    fate: Fate::Done,
                    news: full.then(|| self.accepted(&message)),
                    attempt: full.then(|| self.attempt(id, &message)),
                }
            })
            .collect();
        self.storage.settle(settlements).await.unwrap();
    }

    fn accepted(&self, message: &MessageId) -> MessageNews {
        let id = ProviderMessageId(format!("wamid.HBgLNzkxNjA{}", self.ids.ulid()));
        let news = MessageNews::new(message.clone(), MessageState::Accepted, self.clock.now());
        MessageNews { provider_id: Some(id), ..news }
    }

    fn attempt(&self, job: &str, message: &MessageId) -> Attempt {
        Attempt {
            job: job.to_owned(),
            message: Some(message.clone()),
            at: self.clock.now(),
            duration: Millis(40),
            outcome: "ok".to_owned(),
            failure_class: None,
            vendor_code: String::new(),
            raw: "{\"messaging_product\":\"whatsapp\"}".to_owned(),
        }
    }
}

fn queue(number: u64) -> QueueKey {
    QueueKey::Channel(ChannelId::new(&format!("01J0000000000000{number:010}")))
}
