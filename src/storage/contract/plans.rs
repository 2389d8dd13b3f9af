//! How statements find their rows: by an index, or they would become slower with every year of history and with every
//! portal. SQLite decides by the text alone; PostgreSQL is kept from reading whole tables by its settings, so what it
//! still reads whole has no index.

use super::super::db::{Arg, Db, Dialect, args, expanded};
use super::super::sql;
use crate::domain::ids::PortalId;
use crate::domain::job::{Job, JobKind, QueueKey};
use crate::domain::time::Timestamp;

/// Statements that look through a whole table or a whole index, and why that is bounded.
const WHOLE: &[(&str, &str)] = &[
    ("WORKERS_LIVING", "workers: one row per process"),
    ("WORKER_OTHERS_LEAVE", "workers: one row per process"),
    ("WORKERS_HEARING", "workers: one row per process"),
    ("WORKER_FORGET", "workers: one row per process"),
    ("JOBS_COUNT", "jobs, for gauges: at most a twentieth of the time (http::health)"),
    ("JOBS_IN_DOUBT", "once, after a restore"),
    ("COMMENTS_IN_DOUBT", "once, after a restore"),
    ("AUTHORIZATIONS_EXPIRE", "consents asked for in the last hour"),
    ("CHANNELS_PAUSED", "paused channels"),
    ("MESSAGES_WATCHED", "messages of which something is awaited, every fifteen seconds"),
    ("MESSAGES_OLDEST_OPEN", "the same, for gauges: at most a twentieth of the time (http::health)"),
    ("PORTALS_NEEDING_AUTH", "portals whose tokens have died"),
    (
        "PORTAL_UPSERT",
        "messages, and only if a foreign key is broken at that moment: SQLite plans for it and does not do it",
    ),
    ("CLEAN_JOBS_OF_QUEUE", "jobs, once per portal that is removed"),
    ("CLEAN_SENT_TEXTS", "texts of lines that ask for the guard, once per portal that is cleaned"),
    ("CLEAN_ROBOT_TURNS", "turns of robots that ask for the guard, once per portal that is cleaned"),
];

/// Tables that a statement makes itself.
const OWN: &[&str] = &["v", "u", "due", "known", "CONSTANT"];

async fn plan(db: &Db, text: &str, values: usize) -> Vec<String> {
    let explain: &'static str = Box::leak(format!("EXPLAIN QUERY PLAN {text}").into_boxed_str());
    let nulls = (0..values).map(|_| Arg::MaybeText(None)).collect();
    let mut tx = db.begin().await.unwrap();
    let rows = tx.rows(explain, nulls).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    rows.iter().map(|row| row.text("detail").unwrap()).collect()
}

/// The tables of a plan that are looked through, with or without an index.
fn scanned(plan: &[String]) -> Vec<&str> {
    let names = plan.iter().filter_map(|line| line.strip_prefix("SCAN ")?.split_whitespace().next());
    names.filter(|name| !OWN.contains(name) && !name.starts_with(|c: char| c == '(' || c.is_ascii_digit())).collect()
}

#[tokio::test]
async fn every_statement_finds_its_rows_by_an_index() {
    let world = super::sqlite().await;
    let mut wrong = Vec::new();
    let mut judge = |name: &str, plan: Vec<String>| {
        let expected = WHOLE.iter().any(|(known, _)| *known == name);
        if scanned(&plan).is_empty() == expected {
            wrong.push(format!("{name}: {plan:?}"));
        }
    };
    for (name, text) in sql::statements() {
        let places = (1..20).take_while(|place| text.contains(&format!("${place}"))).count();
        judge(name, plan(&world.db, text, places).await);
    }
    for (name, batch) in sql::batches() {
        let text = expanded(batch, 2, Dialect::Sqlite);
        judge(name, plan(&world.db, text, 2 * batch.kinds.len()).await);
    }
    assert!(wrong.is_empty(), "read whole tables, or stand in the list without doing so:\n{}", wrong.join("\n"));
}

/// Statements that run all the time, whoever works: they may not know how many portals there are.
#[tokio::test]
async fn what_runs_all_the_time_reads_no_whole_table_on_postgres() {
    let Some(world) = super::postgres().await else { return };
    let single = [
        "QUEUES_WITH_NEWS",
        "QUEUES_ORPHANED",
        "QUEUES_OWNED",
        "COMMANDS_OVERDUE",
        "CHANNEL_PROVIDERS",
        "CHANNELS_PAUSED",
        "MESSAGES_OLDEST_OPEN",
        "PORTALS_NEEDING_AUTH",
        "MESSAGES_OF_PEER",
    ];
    let texts = sql::statements().filter(|(name, _)| single.contains(name));
    let texts: Vec<_> =
        texts.chain([("MESSAGES_WATCHED", expanded(sql::MESSAGES_WATCHED, 1, Dialect::Postgres))]).collect();
    assert_eq!(texts.len(), single.len() + 1);
    let mut tx = world.db.begin().await.unwrap();
    for (name, text) in texts {
        // NULL stands in the places: PostgreSQL plans without knowing the values, as it does for a prepared statement.
        let mut text = text.to_owned();
        for place in (1..20).rev() {
            text = text
                .replace(&format!("${place}::text[]"), "ARRAY['']")
                .replace(&format!("${place}::bigint[]"), "ARRAY[1::bigint]");
            let value = if name == "MESSAGES_OF_PEER" && place != 4 { "'x'" } else { "1" };
            let value = if name.starts_with("QUEUES") && place == 1 { "'x'" } else { value };
            text = text.replace(&format!("${place}"), value);
        }
        let explain: &'static str = Box::leak(format!("EXPLAIN {text}").into_boxed_str());
        let plan: Vec<String> =
            tx.rows(explain, vec![]).await.unwrap().iter().map(|row| row.text("QUERY PLAN").unwrap()).collect();
        let whole = |line: &&String| line.contains("Seq Scan on") && !line.contains("workers");
        assert_eq!(plan.iter().find(whole), None, "{name}: {plan:#?}");
    }
}

/// A table of jobs is empty most of the time; when it fills at once, PostgreSQL must not go on as if it were.
#[tokio::test]
async fn a_table_that_grew_at_once_is_looked_at_again_on_postgres() {
    let Some(world) = super::postgres().await else { return };
    world.db.write("ANALYZE jobs", args![]).await.unwrap();
    assert_eq!(world.storage.look_at_grown_tables().await.unwrap(), Vec::<&str>::new());
    let job = |number: usize| {
        let queue = QueueKey::Crm(PortalId::stored("prt_1".to_owned()));
        Job::new(
            JobKind::Reply,
            &format!("cmd_{number}"),
            queue,
            number.to_string(),
            format!("{number:05}"),
            Timestamp(1),
        )
    };
    let jobs: Vec<Job> = (0..1000).map(job).collect();
    let mut tx = world.db.begin().await.unwrap();
    crate::storage::jobs::add(&mut tx, Timestamp(1), jobs.iter()).await.unwrap();
    tx.commit().await.unwrap();
    // Its running count follows within a second.
    for _ in 0..100 {
        let looked_at = world.storage.look_at_grown_tables().await.unwrap();
        if !looked_at.is_empty() {
            assert_eq!(looked_at, ["jobs"]);
            assert_eq!(world.storage.look_at_grown_tables().await.unwrap(), Vec::<&str>::new(), "once is enough");
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("nobody noticed a thousand jobs");
}
