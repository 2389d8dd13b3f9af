//! One suite for both databases: what the store promises, whoever keeps it.
//!
//! SQLite runs in a temporary file. PostgreSQL runs when `TEST_DATABASE_URL` names a server (`tests/run` always does);
//! every test gets a database of its own there.

mod authorizations;
mod backends;
mod changes;
mod chat_phones;
mod chats;
mod guards;
mod history;
mod mirrors;
mod model;
mod pages;
mod past;
mod plans;
mod retention;
mod statuses;
mod steps;
mod tenancy;
pub(super) mod things;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::db::{Arg, Db, Dialect, expanded};
use super::sealed::Sealer;
use super::writer::{JobSink, Queued};
use super::{Storage, StorageOptions, sql};
use crate::domain::ids::{IdSource, WorkerId};
use crate::domain::job::{Job, JobKind, QueueKey};
use crate::domain::time::{Clock, Millis, Timestamp};

/// A clock that stands where it is put.
pub(super) struct TestClock(AtomicI64);

impl TestClock {
    pub(super) fn set(&self, at: i64) {
        self.0.store(at, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// Ids in order, without a clock.
#[derive(Default)]
pub(super) struct TestIds(AtomicU64);

impl IdSource for TestIds {
    fn ulid(&self) -> String {
        format!("01TEST{:020}", self.0.fetch_add(1, Ordering::SeqCst))
    }
}

/// Remembers what the store handed over.
#[derive(Default)]
pub(super) struct TestSink {
    pub(super) jobs: Mutex<Vec<Queued>>,
    pub(super) gone: Mutex<Vec<String>>,
}

impl JobSink for TestSink {
    fn owns(&self, _queue: &QueueKey) -> bool {
        true
    }
    fn jobs(&self, jobs: Vec<Queued>) {
        self.jobs.lock().unwrap().extend(jobs);
    }
    fn gone(&self, jobs: Vec<(QueueKey, String)>) {
        self.gone.lock().unwrap().extend(jobs.into_iter().map(|(_, id)| id));
    }
    fn unsure(&self, _queues: BTreeSet<QueueKey>) {}
    fn news(&self) {}
}

/// A store on a fresh database.
pub(super) struct World {
    pub(super) storage: Storage,
    pub(super) clock: Arc<TestClock>,
    pub(super) sink: Arc<TestSink>,
    pub(super) db: Db,
    _folder: Option<tempfile::TempDir>,
}

impl World {
    async fn on(db: Db, folder: Option<tempfile::TempDir>) -> Self {
        db.migrate().await.unwrap();
        db.migrate().await.unwrap();
        let clock = Arc::new(TestClock(AtomicI64::new(1_000_000)));
        let sink = Arc::new(TestSink::default());
        let sealer = Sealer::new("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", &[]).unwrap();
        let options = StorageOptions { reply_not_before: Millis::seconds(2) };
        let (ids, as_sink) = (Arc::new(TestIds::default()), Arc::clone(&sink) as Arc<dyn JobSink>);
        let storage = Storage::new(db.clone(), sealer, ids, Arc::clone(&clock) as Arc<dyn Clock>, as_sink, options);
        Self { storage, clock, sink, db, _folder: folder }
    }

    /// Makes a worker own a queue.
    pub(super) async fn own(&self, worker: &WorkerId, queue: &QueueKey) {
        self.storage.worker_beat(worker, Millis::minutes(1)).await.unwrap();
        let nothing = Job::new(JobKind::Send, "", queue.clone(), String::new(), String::new(), self.clock.now());
        self.storage.tell_queues(&[nothing]).await.unwrap();
        assert!(!self.storage.queues_take(worker, std::slice::from_ref(queue)).await.unwrap().is_empty());
    }

    /// Columns that stand in indexes in place of others say what those say.
    pub(super) async fn derived_columns_agree(&self) {
        for text in DERIVED {
            let wrong = self.db.row(text, vec![]).await.unwrap().unwrap().int("n").unwrap();
            assert_eq!(wrong, 0, "{text}");
        }
    }

    /// Jobs handed over since the last call, by id.
    pub(super) fn handed_over(&self) -> BTreeMap<String, Queued> {
        let jobs = std::mem::take(&mut *self.sink.jobs.lock().unwrap());
        jobs.into_iter().map(|queued| (queued.job.id.clone(), queued)).collect()
    }
}

pub(super) async fn sqlite() -> World {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("data/mostik.db").display());
    World::on(Db::open(&url).await.unwrap(), Some(folder)).await
}

/// Address of an empty database; `None` when no server was given (`tests/run` always gives one).
pub(super) async fn postgres_url() -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "where the test server is, is told by the environment")]
    let server = std::env::var("TEST_DATABASE_URL").ok()?;
    let name = format!("mostik_contract_{}", ulid::Ulid::new().to_string().to_lowercase());
    let (base, _) = server.rsplit_once('/').unwrap();
    let Db::Postgres(admin) = Db::open(&server).await.unwrap() else {
        panic!("TEST_DATABASE_URL is no postgres:// URL")
    };
    let create: &'static str = Box::leak(format!("CREATE DATABASE {name}").into_boxed_str());
    sqlx::Executor::execute(&admin, sqlx::query(create)).await.unwrap();
    admin.close().await;
    Some(format!("{base}/{name}"))
}

/// `None` when no server was given.
pub(super) async fn postgres() -> Option<World> {
    let url = postgres_url().await?;
    Some(World::on(Db::open(&url).await.unwrap(), None).await)
}

/// Tables of the schema, as the migrations say.
pub(super) fn tables_of_the_schema() -> BTreeSet<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let texts = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    let of = |text: String| {
        let names = text.lines().filter_map(|line| line.strip_prefix("CREATE TABLE "));
        names.map(|name| name.split_whitespace().next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    texts.flat_map(of).collect()
}

/// Count rows whose derived columns are wrong.
const DERIVED: [&str; 3] = [
    "SELECT COUNT(*) AS n FROM messages WHERE awaited <> CASE WHEN inbound = 0
        AND state IN ('queued', 'undecided', 'accepted', 'sent') AND silence <> 'closed' THEN 1 ELSE 0 END",
    "SELECT COUNT(*) AS n FROM jobs WHERE (dead_ms IS NULL) <> (state <> 'dead') OR dead_ms <> changed_ms",
    "SELECT COUNT(*) AS n FROM commands WHERE state = 'answered' AND answer_by_ms IS NOT NULL",
];

/// Runs one promise on both databases.
macro_rules! on_both {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $(mod $name {
            #[tokio::test]
            async fn on_sqlite() {
                let world = $crate::storage::contract::sqlite().await;
                super::promises::$name(&world).await;
                world.derived_columns_agree().await;
                world.storage.close().await;
            }

            #[tokio::test]
            async fn on_postgres() {
                if let Some(world) = $crate::storage::contract::postgres().await {
                    super::promises::$name(&world).await;
                    world.derived_columns_agree().await;
                    world.storage.close().await;
                }
            }
        })*
    };
}
use on_both;

async fn prepare_all(db: &Db) {
    for (name, text) in sql::statements() {
        check(db, name, text, &[]).await;
    }
    for (name, batch) in sql::batches() {
        match db {
            Db::Sqlite { .. } => {
                for rows in [1, 3] {
                    let kinds: Vec<char> = batch.kinds.chars().cycle().take(batch.kinds.len() * rows).collect();
                    check(db, name, expanded(batch, rows, Dialect::Sqlite), &kinds).await;
                }
            }
            // The types of its arrays stand in the text.
            Db::Postgres(_) => check(db, name, expanded(batch, 1, Dialect::Postgres), &[]).await,
        }
    }
}

async fn check(db: &Db, name: &str, text: &'static str, kinds: &[char]) {
    use sqlx::{Executor, SqlSafeStr, TypeInfo};
    match db {
        Db::Sqlite { .. } => {
            let explain: &'static str = Box::leak(format!("EXPLAIN {text}").into_boxed_str());
            let places = (1..20).take_while(|place| text.contains(&format!("${place}"))).count().max(kinds.len());
            let nulls = (0..places).map(|_| Arg::MaybeText(None)).collect();
            let mut tx = db.begin().await.unwrap();
            tx.rows(explain, nulls).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        Db::Postgres(pool) => {
            let of = |kind: &char| match kind {
                'i' => <i64 as sqlx::Type<sqlx::Postgres>>::type_info(),
                _ => <String as sqlx::Type<sqlx::Postgres>>::type_info(),
            };
            let types: Vec<_> = kinds.iter().map(of).collect();
            assert!(types.iter().all(|kind| !kind.is_null()));
            let statement = text.into_sql_str();
            pool.prepare_with(statement, &types).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}

#[tokio::test]
async fn every_statement_is_understood_by_sqlite() {
    prepare_all(&sqlite().await.db).await;
}

#[tokio::test]
async fn every_statement_is_understood_by_postgres() {
    if let Some(world) = postgres().await {
        prepare_all(&world.db).await;
    }
}
