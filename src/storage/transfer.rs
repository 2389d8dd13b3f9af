//! Moving a store from SQLite to PostgreSQL: everything, once, and compared.
//!
//! Tables and columns are read from the databases, so that one that is added later is moved too. PostgreSQL gets all of
//! it in one transaction: an interrupted move leaves an empty database, and starts over. The source is noted as moved
//! before that transaction is committed, so that no moment exists in which both would be served; a source noted as moved
//! whose target stayed empty is simply moved again.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt as _;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Executor as _, PgPool, Postgres, Row as _, Transaction};

use super::StorageError;
use super::db::Db;
use super::past::MOVED;
use super::sql::{self, transfer};
use crate::domain::time::Timestamp;

/// Rows and bytes of one page: bounds the memory.
const PAGE_ROWS: usize = 500;
const PAGE_BYTES: usize = 4 << 20;
/// Progress is told every so many rows.
const TELL_EVERY: u64 = 50_000;

/// One table that was moved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moved {
    /// Its name.
    pub table: String,
    /// Its rows, the same number on both sides.
    pub rows: u64,
}

/// Kinds of columns: the schema uses these two only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Text,
    Int,
}

struct Table {
    name: String,
    columns: Vec<String>,
    kinds: Vec<Kind>,
}

/// Values of one column of a page.
enum Column {
    Text(Vec<Option<String>>),
    Int(Vec<Option<i64>>),
}

/// Rows of a table without their order, which the databases do not agree on: their number, and the sum of their digests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Content {
    rows: u64,
    sum: u128,
}

impl Content {
    fn add(&mut self, row: RowDigest) {
        let digest = row.0.finalize();
        let first = digest.iter().take(16).fold(0_u128, |sum, byte| (sum << 8) | u128::from(*byte));
        self.rows += 1;
        self.sum = self.sum.wrapping_add(first);
    }
}

#[derive(Default)]
struct RowDigest(Sha256);

impl RowDigest {
    fn text(&mut self, value: Option<&str>) {
        match value {
            None => self.0.update([0]),
            Some(text) => {
                self.0.update([1]);
                self.0.update(text.len().to_be_bytes());
                self.0.update(text);
            }
        }
    }

    fn int(&mut self, value: Option<i64>) {
        match value {
            None => self.0.update([0]),
            Some(number) => {
                self.0.update([2]);
                self.0.update(number.to_be_bytes());
            }
        }
    }
}

/// Moves everything from `from` (SQLite, nobody works on it: the caller holds its lock) to `to` (PostgreSQL, empty).
/// `tell` is given a line of progress now and then.
///
/// # Errors
/// [`StorageError`] in words that say what to do; PostgreSQL is as empty as it was.
pub async fn to_postgres(
    from: &str,
    to: &str,
    now: Timestamp,
    mut tell: impl FnMut(&str),
) -> Result<Vec<Moved>, StorageError> {
    let config = |words: &str| StorageError::Config(words.to_owned());
    let Some(file) = Db::sqlite_file(from)? else {
        return Err(config("only a SQLite database can be moved; for PostgreSQL use pg_dump"));
    };
    if Db::sqlite_file(to)?.is_some() {
        return Err(config("the target must be postgres://…; a SQLite database is moved by copying a backup"));
    }
    // Refuses a database that is not there or of another version.
    Db::open_beside(from, true).await?.close().await;
    let source = take_source(&file, now)?;
    let Db::Postgres(target) = Db::open(to).await? else { return Err(config("the target must be postgres://…")) };
    let moved = fill(&source, &target, to, now, &mut tell).await;
    Db::Postgres(target).close().await;
    moved
}

/// Opens the source so that nobody else can write to it, and makes sure that nobody lives on it.
fn take_source(file: &std::path::Path, now: Timestamp) -> Result<Connection, StorageError> {
    let source =
        Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    source.busy_timeout(std::time::Duration::ZERO)?;
    source.execute_batch("BEGIN IMMEDIATE").map_err(|error| {
        StorageError::Unavailable(format!("the source is in use ({error}): stop what works on it, then run this again"))
    })?;
    let living: Option<(String, i64)> =
        source.query_row(sql::WORKERS_LIVING, [now.0], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    match living {
        None => Ok(source),
        Some((worker, until)) => Err(StorageError::Unavailable(format!(
            "the source is in use by {worker}: stop the service; if it crashed, wait {} s and run this again",
            (until - now.0) / 1000 + 1
        ))),
    }
}

async fn fill(
    source: &Connection,
    target: &PgPool,
    to: &str,
    now: Timestamp,
    tell: &mut impl FnMut(&str),
) -> Result<Vec<Moved>, StorageError> {
    let tables = tables(source)?;
    Db::Postgres(target.clone()).migrate().await?;
    let mut tx = target.begin().await?;
    same_schema(&tables, &mut tx).await?;
    let names: Vec<String> = tables.iter().map(|table| table.name.clone()).collect();
    tx.execute(transfer::PATIENCE).await?;
    tx.execute(AssertSqlSafe(transfer::lock(&names))).await?;
    for table in &tables {
        let rows: i64 = tx.fetch_one(AssertSqlSafe(transfer::count(&table.name))).await?.try_get(0)?;
        if rows > 0 {
            return Err(StorageError::Config(format!(
                "the target is not empty ({rows} rows in {}): name an empty database",
                table.name
            )));
        }
    }
    // A note of an earlier move that did not come to its end is none of the content.
    source.execute(sql::NOTE_DROP, [MOVED])?;
    let mut moved = Vec::with_capacity(tables.len());
    for table in &tables {
        let sent = copy(source, &mut tx, table, tell).await?;
        let arrived = read_back(&mut tx, table).await?;
        if sent != arrived {
            return Err(StorageError::Broken(format!(
                "{}: {} rows were sent and {} arrived, or their content differs; nothing was kept",
                table.name, sent.rows, arrived.rows
            )));
        }
        tell(&format!("{}: {} rows moved and compared", table.name, sent.rows));
        moved.push(Moved { table: table.name.clone(), rows: sent.rows });
    }
    source.execute(sql::NOTE_ADD, (MOVED, where_to(to), now.0))?;
    source.execute_batch("COMMIT")?;
    tx.commit().await.map_err(|error| {
        StorageError::Unavailable(format!("PostgreSQL did not confirm the last step ({error}): run this again"))
    })?;
    Ok(moved)
}

/// The target's address without user and password.
fn where_to(to: &str) -> String {
    let place = to.split_once("://").map_or(to, |(_, rest)| rest);
    let place = place.rsplit_once('@').map_or(place, |(_, host)| host);
    format!("postgres://{}", place.split('?').next().unwrap_or_default())
}

/// The source's tables, those that others refer to first.
fn tables(source: &Connection) -> Result<Vec<Table>, StorageError> {
    let names: Vec<String> =
        source.prepare(transfer::SQLITE_TABLES)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut parents: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for name in &names {
        let mut statement = source.prepare(transfer::SQLITE_PARENTS)?;
        let of: BTreeSet<String> = statement.query_map([name], |row| row.get(0))?.collect::<Result<_, _>>()?;
        parents.insert(name.clone(), of.into_iter().filter(|parent| parent != name).collect());
    }
    let mut ordered = Vec::with_capacity(names.len());
    while !parents.is_empty() {
        let ready: Vec<String> = parents.iter().filter(|(_, of)| of.is_empty()).map(|(name, _)| name.clone()).collect();
        if ready.is_empty() {
            return Err(StorageError::Broken("tables refer to each other in a circle".to_owned()));
        }
        for name in ready {
            parents.remove(&name);
            parents.values_mut().for_each(|of| {
                of.remove(&name);
            });
            ordered.push(table(source, name)?);
        }
    }
    Ok(ordered)
}

fn table(source: &Connection, name: String) -> Result<Table, StorageError> {
    let mut table = Table { name, columns: Vec::new(), kinds: Vec::new() };
    let mut statement = source.prepare(transfer::SQLITE_COLUMNS)?;
    let mut rows = statement.query([&table.name])?;
    while let Some(row) = rows.next()? {
        let (column, kind): (String, String) = (row.get(0)?, row.get(1)?);
        table.kinds.push(match kind.as_str() {
            "TEXT" => Kind::Text,
            "BIGINT" => Kind::Int,
            other => return Err(StorageError::Broken(format!("{}.{column} is {other}", table.name))),
        });
        table.columns.push(column);
    }
    Ok(table)
}

/// Both sides were migrated by this program; anything else would lose columns in silence.
async fn same_schema(tables: &[Table], tx: &mut Transaction<'static, Postgres>) -> Result<(), StorageError> {
    let mut theirs = BTreeSet::new();
    for row in tx.fetch_all(transfer::POSTGRES_COLUMNS).await? {
        theirs.insert((row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?));
    }
    let of =
        |table: &Table| table.columns.iter().map(|column| (table.name.clone(), column.clone())).collect::<Vec<_>>();
    let ours: BTreeSet<(String, String)> = tables.iter().flat_map(of).collect();
    match ours.symmetric_difference(&theirs).next() {
        None => Ok(()),
        Some((table, column)) => Err(StorageError::Schema(format!("{table}.{column} is on one side only"))),
    }
}

/// Sends every row of a table, a page at a time.
async fn copy(
    source: &Connection,
    tx: &mut Transaction<'static, Postgres>,
    table: &Table,
    tell: &mut impl FnMut(&str),
) -> Result<Content, StorageError> {
    let kinds: Vec<&str> = table.kinds.iter().map(|kind| if *kind == Kind::Text { "text" } else { "bigint" }).collect();
    let insert = transfer::write(&table.name, &table.columns, &kinds);
    let total: i64 = source.query_row(&transfer::count(&table.name), [], |row| row.get(0))?;
    let mut content = Content::default();
    let mut statement = source.prepare(&transfer::read(&table.name, &table.columns))?;
    let mut rows = statement.query([])?;
    let (mut page, mut bytes) = (empty_page(table), 0);
    let mut in_page = 0;
    loop {
        let row = rows.next()?;
        if row.is_none() || in_page == PAGE_ROWS || bytes >= PAGE_BYTES {
            if in_page > 0 {
                send(tx, &insert, std::mem::replace(&mut page, empty_page(table))).await?;
            }
            (in_page, bytes) = (0, 0);
        }
        let Some(row) = row else { return Ok(content) };
        let mut digest = RowDigest::default();
        for (index, column) in page.iter_mut().enumerate() {
            bytes += push(column, row.get_ref(index)?, &mut digest)
                .ok_or_else(|| StorageError::Broken(format!("{}: a value of another kind", table.name)))?;
        }
        content.add(digest);
        in_page += 1;
        if content.rows.is_multiple_of(TELL_EVERY) {
            tell(&format!("{}: {} of {total} rows", table.name, content.rows));
        }
    }
}

fn empty_page(table: &Table) -> Vec<Column> {
    let column = |kind: &Kind| match kind {
        Kind::Text => Column::Text(Vec::new()),
        Kind::Int => Column::Int(Vec::new()),
    };
    table.kinds.iter().map(column).collect()
}

/// Adds a value to its column; gives its size, or `None` when it does not fit the column.
fn push(column: &mut Column, value: ValueRef<'_>, digest: &mut RowDigest) -> Option<usize> {
    match (column, value) {
        (Column::Text(list), ValueRef::Null) => {
            digest.text(None);
            list.push(None);
            Some(0)
        }
        (Column::Text(list), ValueRef::Text(bytes)) => {
            let text = std::str::from_utf8(bytes).ok()?;
            digest.text(Some(text));
            list.push(Some(text.to_owned()));
            Some(bytes.len())
        }
        (Column::Int(list), ValueRef::Null) => {
            digest.int(None);
            list.push(None);
            Some(0)
        }
        (Column::Int(list), ValueRef::Integer(number)) => {
            digest.int(Some(number));
            list.push(Some(number));
            Some(8)
        }
        (Column::Text(_) | Column::Int(_), _) => None,
    }
}

async fn send(tx: &mut Transaction<'static, Postgres>, insert: &str, page: Vec<Column>) -> Result<(), StorageError> {
    let mut query = sqlx::query(AssertSqlSafe(insert.to_owned()));
    for column in page {
        query = match column {
            Column::Text(values) => query.bind(values),
            Column::Int(values) => query.bind(values),
        };
    }
    tx.execute(query).await?;
    Ok(())
}

/// What PostgreSQL has of a table now, read as a stream.
async fn read_back(tx: &mut Transaction<'static, Postgres>, table: &Table) -> Result<Content, StorageError> {
    let mut content = Content::default();
    let mut rows = tx.fetch(AssertSqlSafe(transfer::read(&table.name, &table.columns)));
    while let Some(row) = rows.try_next().await? {
        let mut digest = RowDigest::default();
        for (index, kind) in table.kinds.iter().enumerate() {
            match kind {
                Kind::Text => digest.text(row.try_get::<Option<&str>, _>(index)?),
                Kind::Int => digest.int(row.try_get(index)?),
            }
        }
        content.add(digest);
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;
    use crate::domain::command::WaitFor;
    use crate::storage::contract::things::{command, furnished};
    use crate::storage::contract::{postgres_url, sqlite, tables_of_the_schema};
    use crate::storage::db::args;

    const NOW: Timestamp = Timestamp(2_000_000);

    #[tokio::test]
    async fn every_table_of_the_schema_is_moved_also_one_that_was_added_later() {
        const LATER: &str = "CREATE TABLE later (id TEXT PRIMARY KEY, n BIGINT)";
        let Some(to) = postgres_url().await else { return };
        let source = sqlite().await;
        let Db::Sqlite { readers, .. } = &source.db else { panic!("not SQLite") };
        let from = format!("sqlite://{}", readers.file().display());
        let (portal, _) = furnished(&source).await;
        source.storage.accept(command(&portal, "k1", WaitFor::Accepted)).await.unwrap();
        source.db.write(LATER, vec![]).await.unwrap();
        let mut tx = source.db.begin().await.unwrap();
        for n in 0..1234_usize {
            let row = args![format!("{n}{}", "ё".repeat(n % 7)), (n % 3 != 0).then_some(1_i64)];
            tx.exec("INSERT INTO later (id, n) VALUES ($1, $2)", row).await.unwrap();
        }
        tx.commit().await.unwrap();
        source.storage.close().await;
        let target = Db::open(&to).await.unwrap();
        target.migrate().await.unwrap();

        let refused = to_postgres(&from, &to, NOW, |_| {}).await.unwrap_err();
        assert!(refused.to_string().contains("later.id is on one side only"), "{refused}");
        target.write(LATER, vec![]).await.unwrap();

        // Interrupted in the middle: the target stays empty, and the next run starts over.
        let (middle, mut lines) = (Notify::new(), 0);
        let interrupted = {
            let copying = to_postgres(&from, &to, NOW, |_| {
                lines += 1;
                if lines == 3 {
                    middle.notify_one();
                }
            });
            tokio::select! { biased; () = middle.notified() => None, moved = copying => Some(moved) }
        };
        assert!(interrupted.is_none(), "{interrupted:?}");
        let count = |table: &str| -> &'static str { Box::leak(format!("SELECT COUNT(*) AS n FROM {table}").into()) };
        for table in tables_of_the_schema() {
            assert_eq!(target.row(count(&table), vec![]).await.unwrap().unwrap().int("n").unwrap(), 0, "{table}");
        }

        let moved = to_postgres(&from, &to, NOW, |_| {}).await.unwrap();
        let mut expected = tables_of_the_schema();
        expected.insert("later".to_owned());
        assert_eq!(moved.iter().map(|table| table.table.clone()).collect::<BTreeSet<_>>(), expected);
        for table in &moved {
            let there = target.row(count(&table.table), vec![]).await.unwrap().unwrap().int("n").unwrap();
            assert_eq!(u64::try_from(there).unwrap(), table.rows, "{}", table.table);
        }
        let rows = |name: &str| moved.iter().find(|table| table.table == name).unwrap().rows;
        assert_eq!((rows("later"), rows("commands"), rows("channels"), rows("jobs")), (1234, 1, 1, 1));
        let refused = to_postgres(&from, &to, NOW, |_| {}).await.unwrap_err();
        assert!(refused.to_string().contains("not empty"), "{refused}");
        target.close().await;
    }

    #[tokio::test]
    async fn a_source_in_use_is_refused() {
        let source = sqlite().await;
        let Db::Sqlite { readers, .. } = &source.db else { panic!("not SQLite") };
        let file = readers.file().to_path_buf();
        let worker = crate::domain::ids::WorkerId::new("1");
        source.storage.worker_beat(&worker, crate::domain::time::Millis::seconds(10)).await.unwrap();
        let at = |ms: i64| take_source(&file, Timestamp(ms)).map(|_| ()).map_err(|error| error.to_string());
        assert!(at(1_005_000).unwrap_err().contains("wait 6 s"));
        at(1_010_001).unwrap();
        let writing = source.db.begin().await.unwrap();
        assert!(at(1_010_001).unwrap_err().contains("stop what works on it"));
        drop(writing);
        source.storage.close().await;
    }

    #[test]
    fn the_note_of_a_move_holds_no_password() {
        for (url, place) in [
            ("postgres://u:s3cret@db.example:5432/mostik?sslmode=require", "postgres://db.example:5432/mostik"),
            ("postgresql:///mostik?host=/run/pg&password=s3cret", "postgres:///mostik"),
        ] {
            assert_eq!(where_to(url), place);
        }
    }
}
