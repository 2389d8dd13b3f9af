//! SQLite: the one connection that writes, and those that only read.
//!
//! Calls are made on the calling thread: handing each statement of a commit, or each row of an answer, to another thread
//! and back (as sqlx's driver does) costs many times the work itself. So the collecting writer has a thread of its own and
//! runs whole transactions there; anybody else's statements go to the runtime's threads for blocking work, an answer at a
//! time.

use std::fs::{DirBuilder, File, OpenOptions};
use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rusqlite::types::{ToSql, ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};

use super::StorageError;
use super::db::{ACQUIRE, Arg, STATEMENTS};

/// How long another program that holds the database (a backup) is waited for.
const BUSY: Duration = Duration::from_secs(5);

/// The connection, until it is closed; one transaction at a time.
#[derive(Clone, Debug)]
pub struct Writer(Arc<Mutex<Option<Connection>>>);

/// A transaction under way; dropped, it is rolled back.
pub(in crate::storage) struct SqliteTx {
    /// `None` only while a statement runs on another thread.
    held: Option<Held>,
    /// The thread may block: it is the collecting writer's.
    own_thread: bool,
}

struct Held(OwnedMutexGuard<Option<Connection>>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(connection) = self.0.as_ref()
            && !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
    }
}

/// Most answers that are read at the same time.
const READERS: usize = 4;

/// Connections that only read: opened when they are first needed, and kept.
#[derive(Clone, Debug)]
pub struct Readers(Arc<ReadersInner>);

#[derive(Debug)]
struct ReadersInner {
    file: PathBuf,
    idle: std::sync::Mutex<Vec<Connection>>,
    free: Arc<Semaphore>,
}

/// One row: its values, and the names of the columns they share with their neighbours.
pub(in crate::storage) struct LocalRow {
    names: Arc<[String]>,
    values: Vec<Value>,
}

impl LocalRow {
    pub(super) fn value(&self, column: &str) -> Result<&Value, StorageError> {
        let place = self.names.iter().position(|name| name == column);
        let value = place.and_then(|place| self.values.get(place));
        value.ok_or_else(|| StorageError::Broken(format!("no column {column}")))
    }
}

impl ToSql for Arg {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Text(value) | Self::MaybeText(Some(value)) => ToSqlOutput::Borrowed(ValueRef::Text(value.as_bytes())),
            Self::Int(value) | Self::MaybeInt(Some(value)) => ToSqlOutput::Owned(Value::Integer(*value)),
            Self::MaybeText(None) | Self::MaybeInt(None) => ToSqlOutput::Owned(Value::Null),
        })
    }
}

impl From<rusqlite::Error> for StorageError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure
                | ErrorCode::DiskFull
                | ErrorCode::CannotOpen,
            ) => Self::Unavailable(error.to_string()),
            _ => Self::Broken(error.to_string()),
        }
    }
}

/// Makes the folder a file will stand in, if it is missing: for its owner only.
///
/// # Errors
/// The system refuses.
pub fn make_folder_of(file: &Path) -> std::io::Result<()> {
    match file.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        Some(folder) => DirBuilder::new().recursive(true).mode(0o700).create(folder),
        None => Ok(()),
    }
}

/// Opens a file to write, makes it for its owner only if it is missing.
///
/// # Errors
/// The system refuses.
pub fn private_file(file: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file)
}

impl Writer {
    /// Opens the file, makes it if missing.
    pub(super) fn open(file: &Path) -> Result<Self, StorageError> {
        // SQLite itself would let everybody on the machine read the file; what it puts beside it later (`-wal`, `-shm`)
        // gets the mode of the file. One that exists keeps the mode that somebody gave it.
        if !file.exists() {
            private_file(file).map_err(|e| StorageError::Unavailable(format!("{}: {e}", file.display())))?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags)?;
        connection.busy_timeout(BUSY)?;
        // 32 MiB of cache; memory is taken only as pages are touched. Every many-row statement has a list or two of its own
        // while it runs: as temporary files, each would cost more than the rows it is for.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
             PRAGMA cache_size = -32768; PRAGMA wal_autocheckpoint = 4000; PRAGMA temp_store = MEMORY;",
        )?;
        connection.set_prepared_statement_cache_capacity(NonZeroUsize::get(STATEMENTS));
        Ok(Self(Arc::new(Mutex::new(Some(connection)))))
    }

    /// Opens a file that is there for a process that only looks; every write is refused.
    pub(super) fn look_at(file: &Path) -> Result<Self, StorageError> {
        let connection = open_to_read(file)?;
        Ok(Self(Arc::new(Mutex::new(Some(connection)))))
    }

    /// Begins a transaction. `own_thread` says that the calling thread may block.
    pub(super) async fn begin(&self, own_thread: bool) -> Result<SqliteTx, StorageError> {
        let held = Held(Arc::clone(&self.0).lock_owned().await);
        let mut tx = SqliteTx { held: Some(held), own_thread };
        tx.run(|connection| connection.execute_batch("BEGIN IMMEDIATE")).await?;
        Ok(tx)
    }

    /// Waits for the last transaction and closes the file.
    pub(super) async fn close(&self) {
        drop(self.0.lock().await.take());
    }
}

fn open_to_read(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

impl Readers {
    /// Reads this file, which must be there by the time the first answer is wanted.
    pub(super) fn of(file: &Path) -> Self {
        let (idle, free) = (std::sync::Mutex::default(), Arc::new(Semaphore::new(READERS)));
        Self(Arc::new(ReadersInner { file: file.to_path_buf(), idle, free }))
    }

    /// The file.
    pub(super) fn file(&self) -> &Path {
        &self.0.file
    }

    /// Reads an answer; each is a consistent picture of its own.
    pub(super) async fn rows(&self, sql: &'static str, args: Vec<Arg>) -> Result<Vec<LocalRow>, StorageError> {
        let closed = || StorageError::Unavailable("the store is closed".to_owned());
        let busy = |_late| StorageError::Unavailable("too many answers are being read".to_owned());
        let turn = tokio::time::timeout(ACQUIRE, Arc::clone(&self.0.free).acquire_owned()).await.map_err(busy)?;
        let turn = turn.map_err(|_closed| closed())?;
        let inner = Arc::clone(&self.0);
        let read = move || {
            let idle = inner.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = idle.map_or_else(|| inner.open(), Ok)?;
            let found = query(&connection, sql, &args);
            inner.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            drop(turn);
            found
        };
        Ok(tokio::task::spawn_blocking(read).await.map_err(|_ended| closed())??)
    }

    /// Waits for answers that are being read and lets go of the file.
    pub(super) async fn close(&self) {
        if let Ok(all) = self.0.free.acquire_many(u32::try_from(READERS).unwrap_or(u32::MAX)).await {
            self.0.free.close();
            drop(all);
        }
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl ReadersInner {
    fn open(&self) -> rusqlite::Result<Connection> {
        let connection = open_to_read(&self.file)?;
        // 4 MiB; the pages themselves stay with the system.
        connection.execute_batch("PRAGMA cache_size = -4096; PRAGMA temp_store = MEMORY;")?;
        connection.set_prepared_statement_cache_capacity(NonZeroUsize::get(STATEMENTS));
        Ok(connection)
    }
}

fn query(connection: &Connection, sql: &'static str, args: &[Arg]) -> rusqlite::Result<Vec<LocalRow>> {
    let mut statement = connection.prepare_cached(sql)?;
    let names: Arc<[String]> = statement.column_names().into_iter().map(str::to_owned).collect();
    let mut rows = statement.query(rusqlite::params_from_iter(args))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let values = (0..names.len()).map(|place| row.get(place)).collect::<Result<_, _>>()?;
        found.push(LocalRow { names: Arc::clone(&names), values });
    }
    Ok(found)
}

impl SqliteTx {
    pub(super) async fn exec(&mut self, sql: &'static str, args: Vec<Arg>) -> Result<u64, StorageError> {
        self.run(move |connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(rusqlite::params_from_iter(&args))?;
            // What it returns is of no interest here, but it is done only when all of it was read.
            while rows.next()?.is_some() {}
            Ok(connection.changes())
        })
        .await
    }

    pub(super) async fn rows(&mut self, sql: &'static str, args: Vec<Arg>) -> Result<Vec<LocalRow>, StorageError> {
        self.run(move |connection| query(connection, sql, &args)).await
    }

    pub(super) async fn commit(mut self) -> Result<(), StorageError> {
        self.run(|connection| connection.execute_batch("COMMIT")).await
    }

    async fn run<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let gone = || StorageError::Unavailable("the transaction is over".to_owned());
        let held = self.held.take().ok_or_else(gone)?;
        let work = move || {
            let result = held.0.as_ref().map(work);
            (held, result)
        };
        let (held, result) =
            if self.own_thread { work() } else { tokio::task::spawn_blocking(work).await.map_err(|_ended| gone())? };
        self.held = Some(held);
        Ok(result.ok_or_else(|| StorageError::Unavailable("the store is closed".to_owned()))??)
    }
}
