//! The only room that knows there are two databases.
//!
//! One SQL text serves both: `$n` places for single statements, and `{rows}` for statements that take many rows at
//! once (`Batch`). SQLite has one writer (every write goes through its single connection, [`super::sqlite`]) and a pool
//! of readers; PostgreSQL has one pool.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use rusqlite::types::Value;
use sqlx::migrate::{Migrate as _, MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Arguments, ConnectOptions, Connection as _, Executor as _, PgPool, Row as _, SqlSafeStr};

use super::StorageError;
use super::postgres::{self, Loan, Patience};
use super::sqlite::{self, LocalRow, Readers, SqliteTx, Writer};
use super::{planner, sql};

/// Most rows one statement of SQLite takes; a power of two. Bounds the number of prepared statements.
const ROWS_MAX: usize = 128;
/// Most rows one statement of PostgreSQL takes.
const ARRAY_MAX: usize = 4096;
/// Prepared statements kept per connection: every constant of `sql.rs` in every batch size.
pub(super) const STATEMENTS: NonZeroUsize = NonZeroUsize::new(512).unwrap();
/// Every statement finds its rows by an index. Left to itself the planner keeps plans it made while a table was small:
/// a rush of 10,000 jobs then reads all of them with every statement, until the next ANALYZE.
const POSTGRES_SETTINGS: &str =
    "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off";
/// Most connections to PostgreSQL: four writers, and what is read meanwhile.
const CONNECTIONS: u32 = 10;
/// Longest wait for a connection, and for an answer of PostgreSQL unless something else was configured.
pub(super) const ACQUIRE: Duration = Duration::from_secs(5);

/// A database.
#[derive(Clone, Debug)]
pub enum Db {
    /// Embedded: one process only.
    Sqlite {
        /// The one connection that writes.
        writer: Writer,
        /// Connections that only read.
        readers: Readers,
    },
    /// A server; several processes may share it.
    Postgres(PgPool),
}

/// A transaction. Never leaves the storage; dropping it without [`Tx::commit`] rolls it back.
pub(super) enum Tx {
    /// On SQLite.
    Sqlite(SqliteTx),
    /// On PostgreSQL.
    Postgres(Loan),
}

/// A value bound to a statement.
#[derive(Clone, Debug)]
pub(super) enum Arg {
    /// Text.
    Text(String),
    /// Whole number, time or flag.
    Int(i64),
    /// Text or NULL.
    MaybeText(Option<String>),
    /// Whole number or NULL.
    MaybeInt(Option<i64>),
}

/// PostgreSQL keeps no U+0000 in text; what comes from outside may hold it.
fn storable(value: String) -> String {
    if value.contains('\0') { value.replace('\0', "\u{FFFD}") } else { value }
}

impl From<&str> for Arg {
    fn from(value: &str) -> Self {
        Self::Text(storable(value.to_owned()))
    }
}
impl From<String> for Arg {
    fn from(value: String) -> Self {
        Self::Text(storable(value))
    }
}
impl From<i64> for Arg {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}
impl From<bool> for Arg {
    fn from(value: bool) -> Self {
        Self::Int(i64::from(value))
    }
}
impl From<Option<String>> for Arg {
    fn from(value: Option<String>) -> Self {
        Self::MaybeText(value.map(storable))
    }
}
impl From<Option<i64>> for Arg {
    fn from(value: Option<i64>) -> Self {
        Self::MaybeInt(value)
    }
}

/// Builds the values of one statement or row: `args![id, now, None::<String>]`.
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::storage::db::Arg::from($value)),*] };
}
pub(super) use args;

/// A statement that takes many rows: `VALUES {rows}` stands where they are listed. It has no other places, because
/// SQLite finds numbered places by a linear search and would spend its time on names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    /// Text with `VALUES {rows}` once; `{lock}` at its end holds the rows of the table `c` for [`Tx::lock`].
    pub(super) text: &'static str,
    /// One letter per value of a row: `t` text, `i` whole number.
    pub(super) kinds: &'static str,
}

/// One row of an answer.
pub(super) enum Row {
    /// From SQLite.
    Local(LocalRow),
    /// From PostgreSQL.
    Postgres(PgRow),
}

impl Row {
    /// Text of a column.
    pub(super) fn text(&self, column: &str) -> Result<String, StorageError> {
        self.maybe_text(column)?.ok_or_else(|| is_null(column))
    }

    /// Text of a column, or `None` for NULL.
    pub(super) fn maybe_text(&self, column: &str) -> Result<Option<String>, StorageError> {
        match self {
            Self::Postgres(row) => Ok(row.try_get(column)?),
            Self::Local(row) => match row.value(column)? {
                Value::Text(value) => Ok(Some(value.clone())),
                Value::Null => Ok(None),
                other => Err(StorageError::Broken(format!("{column} is {}", other.data_type()))),
            },
        }
    }

    /// Whole number of a column.
    pub(super) fn int(&self, column: &str) -> Result<i64, StorageError> {
        self.maybe_int(column)?.ok_or_else(|| is_null(column))
    }

    /// Whole number of a column, or `None` for NULL.
    pub(super) fn maybe_int(&self, column: &str) -> Result<Option<i64>, StorageError> {
        match self {
            Self::Postgres(row) => Ok(row.try_get(column)?),
            Self::Local(row) => match row.value(column)? {
                Value::Integer(value) => Ok(Some(*value)),
                Value::Null => Ok(None),
                other => Err(StorageError::Broken(format!("{column} is {}", other.data_type()))),
            },
        }
    }

    /// Flag of a column.
    pub(super) fn flag(&self, column: &str) -> Result<bool, StorageError> {
        Ok(self.int(column)? != 0)
    }
}

fn is_null(column: &str) -> StorageError {
    StorageError::Broken(format!("{column} is NULL"))
}

impl Db {
    /// Opens `sqlite://path` or `postgres://…`; a SQLite file and its folder are made if missing.
    ///
    /// # Errors
    /// [`StorageError::Config`] for an address that is none, [`StorageError::Unavailable`] when the database does not
    /// answer.
    pub async fn open(url: &str) -> Result<Self, StorageError> {
        Self::open_within(url, ACQUIRE).await
    }

    /// The same; every answer of PostgreSQL is waited for up to `limit`.
    ///
    /// # Errors
    /// As [`Db::open`].
    pub async fn open_within(url: &str, limit: Duration) -> Result<Self, StorageError> {
        match address(url)? {
            Address::Postgres(options) => Self::open_postgres(*options, limit).await,
            Address::Sqlite(file) => {
                sqlite::make_folder_of(&file)
                    .map_err(|e| StorageError::Config(format!("cannot make the folder of the database: {e}")))?;
                Ok(Self::Sqlite { writer: Writer::open(&file)?, readers: Readers::of(&file) })
            }
        }
    }

    /// Opens a database for a look beside a service that may be running: makes nothing and migrates nothing.
    /// `read_only` holds for SQLite, where a second process should not write unless it has to.
    ///
    /// # Errors
    /// As [`Db::open`]; [`StorageError::Schema`] when there is no file, or its schema is not the one of this program.
    pub async fn open_beside(url: &str, read_only: bool) -> Result<Self, StorageError> {
        let db = match address(url)? {
            Address::Postgres(options) => Self::open_postgres(*options, ACQUIRE).await?,
            Address::Sqlite(file) => {
                if !file.exists() {
                    let what = format!("{} does not exist yet; run `mostik migrate`", file.display());
                    return Err(StorageError::Schema(what));
                }
                let writer = if read_only { Writer::look_at(&file)? } else { Writer::open(&file)? };
                Self::Sqlite { writer, readers: Readers::of(&file) }
            }
        };
        match db.require_schema().await {
            Ok(()) => Ok(db),
            Err(error) => {
                db.close().await;
                Err(error)
            }
        }
    }

    /// Whether [`Db::open`] could make sense of an address; asks nobody.
    ///
    /// # Errors
    /// [`StorageError::Config`] in words that say what to write.
    pub fn check_url(url: &str) -> Result<(), StorageError> {
        address(url).map(|_| ())
    }

    /// The file an address of SQLite names; `None` for any other database.
    ///
    /// # Errors
    /// [`StorageError::Config`] for an address that is none.
    pub fn sqlite_file(url: &str) -> Result<Option<PathBuf>, StorageError> {
        Ok(match address(url)? {
            Address::Sqlite(file) => Some(file),
            Address::Postgres(_) => None,
        })
    }

    async fn open_postgres(options: PgConnectOptions, limit: Duration) -> Result<Self, StorageError> {
        let pool = postgres::limited(PgPoolOptions::new().max_connections(CONNECTIONS), limit, POSTGRES_SETTINGS);
        Ok(Self::Postgres(pool.connect_with(options).await?))
    }

    /// Compares the migrations that were applied with those of this program.
    async fn require_schema(&self) -> Result<(), StorageError> {
        let ours = migrations();
        let table = &ours.table_name;
        let applied = match self {
            Self::Sqlite { readers, .. } => {
                let mut connection = for_migrator(readers.file()).read_only(true).connect().await?;
                let applied = connection.list_applied_migrations(table).await;
                connection.close().await?;
                applied
            }
            Self::Postgres(pool) => pool.acquire().await?.list_applied_migrations(table).await,
        };
        let applied = match applied {
            Ok(applied) => applied,
            // A database that nobody has migrated yet has no such table.
            Err(MigrateError::Execute(sqlx::Error::Database(error))) if is_missing_table(error.code().as_deref()) => {
                Vec::new()
            }
            Err(MigrateError::Execute(error)) => return Err(error.into()),
            Err(error) => return Err(StorageError::Schema(error.to_string())),
        };
        let last = |versions: &mut dyn Iterator<Item = i64>| versions.max().unwrap_or(0);
        let (has, wants) =
            (last(&mut applied.iter().map(|it| it.version)), last(&mut ours.iter().map(|it| it.version)));
        match has.cmp(&wants) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Less => {
                Err(StorageError::Schema(format!("is behind (at {has}, wanted {wants}); run `mostik migrate`")))
            }
            std::cmp::Ordering::Greater => Err(StorageError::Schema(format!(
                "is of a newer Mostik (at {has}, this one knows {wants}); use the newer program"
            ))),
        }
    }

    /// Brings the schema up to date. Safe to call at every start and from several processes.
    ///
    /// # Errors
    /// [`StorageError`] when a migration fails or the database is newer than this program.
    pub async fn migrate(&self) -> Result<(), StorageError> {
        let migrator = migrations();
        match self {
            Self::Sqlite { readers, .. } => {
                let mut connection = for_migrator(readers.file()).connect().await?;
                let result = migrator.run(&mut connection).await;
                connection.close().await?;
                result
            }
            Self::Postgres(pool) => {
                // A large table takes its time, so the limits do not hold for this connection.
                let mut connection = pool.acquire().await?.detach();
                connection.execute("SET statement_timeout = 0").await?;
                let result = migrator.run(&mut connection).await;
                connection.close().await?;
                if result.is_ok()
                    && let Err(error) = planner::leave_room(pool).await
                {
                    // It is slower without, and otherwise the same: another process may be doing the same right now.
                    tracing::warn!(%error, "tables could not be given room");
                }
                result
            }
        }
        .map_err(|e| StorageError::Schema(e.to_string()))
    }

    /// What kind of database it is, for people.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }

    /// Closes every connection.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }

    /// Begins a transaction.
    pub(super) async fn begin(&self) -> Result<Tx, StorageError> {
        self.begin_on(false, Patience::Usual).await
    }

    /// Begins a transaction whose statements may take as long as a large table takes.
    pub(super) async fn begin_patiently(&self) -> Result<Tx, StorageError> {
        self.begin_on(false, Patience::Long).await
    }

    /// Begins a transaction on a thread that may block.
    pub(super) async fn begin_on_own_thread(&self) -> Result<Tx, StorageError> {
        self.begin_on(true, Patience::Usual).await
    }

    async fn begin_on(&self, own_thread: bool, patience: Patience) -> Result<Tx, StorageError> {
        Ok(match self {
            Self::Sqlite { writer, .. } => Tx::Sqlite(writer.begin(own_thread).await?),
            Self::Postgres(pool) => Tx::Postgres(Loan::begin(pool, patience).await?),
        })
    }

    /// Reads rows outside any transaction.
    pub(super) async fn rows(&self, sql: &'static str, args: Vec<Arg>) -> Result<Vec<Row>, StorageError> {
        Ok(match self {
            Self::Sqlite { readers, .. } => {
                readers.rows(numbered(sql), args).await?.into_iter().map(Row::Local).collect()
            }
            Self::Postgres(pool) => {
                let rows = Loan::take(pool).await?.rows(sqlx::query_with(sql, postgres_args(args)?)).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// Reads at most one row outside any transaction.
    pub(super) async fn row(&self, sql: &'static str, args: Vec<Arg>) -> Result<Option<Row>, StorageError> {
        Ok(self.rows(sql, args).await?.into_iter().next())
    }

    /// Reads with a many-row statement outside any transaction.
    pub(super) async fn batch_rows(&self, batch: Batch, rows: Vec<Vec<Arg>>) -> Result<Vec<Row>, StorageError> {
        let mut found = Vec::new();
        for chunk in chunks(rows, self.dialect()) {
            let sql = expanded(batch, chunk.len(), self.dialect());
            match self {
                Self::Sqlite { .. } => found.extend(self.rows(sql, chunk.into_iter().flatten().collect()).await?),
                Self::Postgres(pool) => {
                    let question = sqlx::query_with(sql, postgres_columns(batch, chunk)?);
                    let rows = Loan::take(pool).await?.rows(question).await?;
                    found.extend(rows.into_iter().map(Row::Postgres));
                }
            }
        }
        Ok(found)
    }

    /// One write in a transaction of its own.
    pub(super) async fn write(&self, sql: &'static str, args: Vec<Arg>) -> Result<u64, StorageError> {
        let mut tx = self.begin().await?;
        let changed = tx.exec(sql, args).await?;
        tx.commit().await?;
        Ok(changed)
    }

    fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite { .. } => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }
}

impl Tx {
    /// Runs a statement; gives the number of rows it changed.
    pub(super) async fn exec(&mut self, sql: &'static str, args: Vec<Arg>) -> Result<u64, StorageError> {
        Ok(match self {
            Self::Sqlite(tx) => tx.exec(numbered(sql), args).await?,
            Self::Postgres(tx) => tx.exec(sqlx::query_with(sql, postgres_args(args)?)).await?,
        })
    }

    /// Runs a statement and reads its rows.
    pub(super) async fn rows(&mut self, sql: &'static str, args: Vec<Arg>) -> Result<Vec<Row>, StorageError> {
        Ok(match self {
            Self::Sqlite(tx) => tx.rows(numbered(sql), args).await?.into_iter().map(Row::Local).collect(),
            Self::Postgres(tx) => {
                let rows = tx.rows(sqlx::query_with(sql, postgres_args(args)?)).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// Runs a statement and reads at most one row.
    pub(super) async fn row(&mut self, sql: &'static str, args: Vec<Arg>) -> Result<Option<Row>, StorageError> {
        Ok(self.rows(sql, args).await?.into_iter().next())
    }

    /// Runs a many-row statement; no rows, no statement.
    pub(super) async fn batch(&mut self, batch: Batch, rows: Vec<Vec<Arg>>) -> Result<u64, StorageError> {
        let mut changed = 0;
        for chunk in chunks(rows, self.dialect()) {
            let sql = expanded(batch, chunk.len(), self.dialect());
            changed += match self {
                Self::Sqlite(tx) => tx.exec(sql, chunk.into_iter().flatten().collect()).await?,
                Self::Postgres(tx) => tx.exec(sqlx::query_with(sql, postgres_columns(batch, chunk)?)).await?,
            };
        }
        Ok(changed)
    }

    /// Runs a many-row statement and reads its rows.
    pub(super) async fn batch_rows(&mut self, batch: Batch, rows: Vec<Vec<Arg>>) -> Result<Vec<Row>, StorageError> {
        let mut found = Vec::new();
        for chunk in chunks(rows, self.dialect()) {
            let sql = expanded(batch, chunk.len(), self.dialect());
            match self {
                Self::Sqlite(tx) => {
                    let rows = tx.rows(sql, chunk.into_iter().flatten().collect()).await?;
                    found.extend(rows.into_iter().map(Row::Local));
                }
                Self::Postgres(tx) => {
                    let rows = tx.rows(sqlx::query_with(sql, postgres_columns(batch, chunk)?)).await?;
                    found.extend(rows.into_iter().map(Row::Postgres));
                }
            }
        }
        Ok(found)
    }

    /// Holds rows until the commit, in the order given. SQLite has one writer, which holds everything.
    pub(super) async fn lock(&mut self, batch: Batch, rows: &[Vec<Arg>]) -> Result<(), StorageError> {
        if self.dialect() == Dialect::Postgres {
            self.batch(batch, rows.to_vec()).await?;
        }
        Ok(())
    }

    /// Makes it durable.
    pub(super) async fn commit(self) -> Result<(), StorageError> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.commit().await,
        }
    }

    fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }
}

/// How rows are listed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Dialect {
    /// `VALUES (?, ?), (?, ?)`: every number of rows is a text of its own.
    Sqlite,
    /// `SELECT * FROM UNNEST($1::text[], $2::bigint[])`: one text for any number of rows, so it is planned once.
    Postgres,
}

/// Splits rows into pieces that one statement takes: for SQLite into powers of two, so that few texts are prepared.
fn chunks(rows: Vec<Vec<Arg>>, dialect: Dialect) -> Vec<Vec<Vec<Arg>>> {
    let mut pieces = Vec::new();
    let mut rest = rows;
    while !rest.is_empty() {
        let size = match dialect {
            Dialect::Sqlite => 1 << rest.len().min(ROWS_MAX).ilog2(),
            Dialect::Postgres => rest.len().min(ARRAY_MAX),
        };
        let tail = rest.split_off(size);
        pieces.push(std::mem::replace(&mut rest, tail));
    }
    pieces
}

/// The text of a batch for so many rows. Made once per text, size and dialect, and kept for the life of the process.
pub(super) fn expanded(batch: Batch, rows: usize, dialect: Dialect) -> &'static str {
    type Key = (usize, usize, Dialect);
    static TEXTS: LazyLock<Mutex<HashMap<Key, &'static str>>> = LazyLock::new(Mutex::default);
    let rows = if dialect == Dialect::Postgres { 0 } else { rows };
    let key = (batch.text.as_ptr().addr(), rows, dialect);
    let mut texts = TEXTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    texts.entry(key).or_insert_with(|| {
        let list = match dialect {
            Dialect::Sqlite => {
                let row = format!("({})", vec!["?"; batch.kinds.len()].join(", "));
                format!("VALUES {}", vec![row; rows].join(", "))
            }
            Dialect::Postgres => {
                let array =
                    |(index, kind)| format!("${}::{}[]", index + 1, if kind == 't' { "text" } else { "bigint" });
                let arrays: Vec<String> = batch.kinds.chars().enumerate().map(array).collect();
                // The names that PostgreSQL and SQLite give to the columns of VALUES.
                let names: Vec<String> = (1..=arrays.len()).map(|place| format!("column{place}")).collect();
                sql::ARRAYS.replace("{arrays}", &arrays.join(", ")).replace("{names}", &names.join(", "))
            }
        };
        let lock = if dialect == Dialect::Postgres { sql::LOCK } else { "" };
        Box::leak(batch.text.replace("VALUES {rows}", &list).replace("{lock}", lock).into_boxed_str())
    })
}

/// SQLite takes `$1` for a name and counts names in the order it meets them; `?1` is a number there. Made once per text.
fn numbered(text: &'static str) -> &'static str {
    static TEXTS: LazyLock<Mutex<HashMap<usize, &'static str>>> = LazyLock::new(Mutex::default);
    if !text.contains('$') {
        return text;
    }
    let mut texts = TEXTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    texts.entry(text.as_ptr().addr()).or_insert_with(|| Box::leak(text.replace('$', "?").into_boxed_str()))
}

fn postgres_args(args: Vec<Arg>) -> Result<PgArguments, StorageError> {
    let mut bound = PgArguments::default();
    bound.reserve(args.len(), args.len() * 16);
    for arg in args {
        match arg {
            Arg::Text(value) => bound.add(value),
            Arg::Int(value) => bound.add(value),
            Arg::MaybeText(value) => bound.add(value),
            Arg::MaybeInt(value) => bound.add(value),
        }
        .map_err(|e| StorageError::Broken(e.to_string()))?;
    }
    Ok(bound)
}

/// Rows as one array per column.
fn postgres_columns(batch: Batch, rows: Vec<Vec<Arg>>) -> Result<PgArguments, StorageError> {
    enum Column {
        Text(Vec<Option<String>>),
        Int(Vec<Option<i64>>),
    }
    let empty = |kind| match kind {
        't' => Column::Text(Vec::with_capacity(rows.len())),
        _ => Column::Int(Vec::with_capacity(rows.len())),
    };
    let mut columns: Vec<Column> = batch.kinds.chars().map(empty).collect();
    let wrong = || StorageError::Broken(format!("a row does not fit {:?}: {}", batch.kinds, batch.text));
    for row in rows {
        if row.len() != columns.len() {
            return Err(wrong());
        }
        for (column, value) in columns.iter_mut().zip(row) {
            match (column, value) {
                (Column::Text(list), Arg::Text(value)) => list.push(Some(value)),
                (Column::Text(list), Arg::MaybeText(value)) => list.push(value),
                (Column::Int(list), Arg::Int(value)) => list.push(Some(value)),
                (Column::Int(list), Arg::MaybeInt(value)) => list.push(value),
                (Column::Text(_), Arg::Int(_) | Arg::MaybeInt(_))
                | (Column::Int(_), Arg::Text(_) | Arg::MaybeText(_)) => {
                    return Err(wrong());
                }
            }
        }
    }
    let mut bound = PgArguments::default();
    for column in columns {
        match column {
            Column::Text(list) => bound.add(list),
            Column::Int(list) => bound.add(list),
        }
        .map_err(|e| StorageError::Broken(e.to_string()))?;
    }
    Ok(bound)
}

/// PostgreSQL says `undefined_table`; SQLite has no code of its own for it, only "error in the statement".
fn is_missing_table(code: Option<&str>) -> bool {
    matches!(code, Some("42P01" | "1"))
}

/// The one thing that is done through sqlx's own driver: its migrator wants it.
fn for_migrator(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(file).busy_timeout(Duration::from_secs(5)).disable_statement_logging()
}

/// What `database.url` says.
enum Address {
    Sqlite(PathBuf),
    Postgres(Box<PgConnectOptions>),
}

fn address(url: &str) -> Result<Address, StorageError> {
    let wrong = |e: sqlx::Error| StorageError::Config(format!("database.url: {e}"));
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        let options = PgConnectOptions::from_str(url)
            .map_err(wrong)?
            .application_name("mostik")
            .statement_cache_capacity(STATEMENTS.get())
            .disable_statement_logging();
        return Ok(Address::Postgres(Box::new(options)));
    }
    let file = url.strip_prefix("sqlite:").map(|rest| rest.strip_prefix("//").unwrap_or(rest));
    let file = file.map(|rest| rest.split('?').next().unwrap_or_default());
    match file {
        None => Err(StorageError::Config("database.url must start with sqlite:// or postgres://".to_owned())),
        // Readers and the writer are different connections, so each would have a memory of its own.
        Some("" | ":memory:") => {
            Err(StorageError::Config("database.url names no file; write sqlite://data/mostik.db".to_owned()))
        }
        Some(_) => {
            let options = SqliteConnectOptions::from_str(url).map_err(wrong)?;
            Ok(Address::Sqlite(options.get_filename().to_path_buf()))
        }
    }
}

/// The migrations, compiled in. Listed by hand, because the macro would compile both drivers a second time.
fn migrations() -> Migrator {
    const FILES: &[(i64, &str, &str)] = &[
        (1, "initial", include_str!("../../migrations/0001_initial.sql")),
        (2, "watch", include_str!("../../migrations/0002_watch.sql")),
        (3, "guards", include_str!("../../migrations/0003_guards.sql")),
        (5, "retention", include_str!("../../migrations/0005_retention.sql")),
        (6, "scale", include_str!("../../migrations/0006_scale.sql")),
        (7, "chats", include_str!("../../migrations/0007_chats.sql")),
        (8, "open_lines", include_str!("../../migrations/0008_open_lines.sql")),
        (9, "amocrm", include_str!("../../migrations/0009_amocrm.sql")),
        (10, "mirrors", include_str!("../../migrations/0010_mirrors.sql")),
        (11, "dialog_tags", include_str!("../../migrations/0011_dialog_tags.sql")),
        (12, "pages", include_str!("../../migrations/0012_pages.sql")),
        (13, "hearing", include_str!("../../migrations/0013_hearing.sql")),
        (14, "engine", include_str!("../../migrations/0014_engine.sql")),
        (15, "chat_changes", include_str!("../../migrations/0015_chat_changes.sql")),
        (16, "bitrix_portal", include_str!("../../migrations/0016_bitrix_portal.sql")),
        (17, "amocrm_chats", include_str!("../../migrations/0017_amocrm_chats.sql")),
        (18, "quiet_rows", include_str!("../../migrations/0018_quiet_rows.sql")),
    ];
    let list = FILES.iter().map(|(version, name, text)| {
        Migration::new(*version, (*name).into(), MigrationType::Simple, SqlSafeStr::into_sql_str(*text), false)
    });
    Migrator::with_migrations(list.collect())
}
