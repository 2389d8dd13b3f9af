//! Backups of SQLite while the service runs, and putting one in place.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::StorageError;
use super::db::{Db, args};
use super::past::BACKUP;
use super::sql::{self, transfer};
use super::sqlite::make_folder_of;
use crate::domain::time::Clock;

fn failed(path: &Path) -> impl Fn(std::io::Error) -> StorageError {
    let path = path.to_path_buf();
    move |error| StorageError::Config(format!("{}: {error}", path.display()))
}

/// A file of the same name with something at its end.
fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name: OsString = file.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// A new file for its owner only; one that exists is never touched.
fn new_file(path: &Path) -> Result<File, StorageError> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed(path))
}

/// The name outlives a power cut only when the folder was written too.
fn settle_on_disk(file: &Path) -> Result<(), StorageError> {
    File::open(file).and_then(|file| file.sync_all()).map_err(failed(file))?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))
}

/// Writes a consistent copy of the database of `url` to `to`, also while a service works on it: SQLite copies one moment
/// in a read transaction, which holds up no writer. The copy knows that it is one ([`super::past`]). It is checked, and
/// has its name only when it is whole. Gives its size in bytes.
///
/// # Errors
/// [`StorageError`]: not SQLite, `to` exists, no room. Nothing is left behind.
pub async fn backup(url: &str, to: &Path, clock: &dyn Clock) -> Result<u64, StorageError> {
    let Some(from) = Db::sqlite_file(url)? else {
        return Err(StorageError::Config(
            "PostgreSQL has tools of its own: use pg_dump or continuous archiving, and run `mostik restore` on what was \
             restored before you serve it (docs/OPERATIONS.md)"
                .to_owned(),
        ));
    };
    // Refuses a database that is not there or of another version.
    Db::open_beside(url, true).await?.close().await;
    // The name is taken first, so that nobody else's file is written over at the end.
    drop(new_file(to)?);
    let partial = beside(to, ".partial");
    let written = copy(&from, &partial, clock).and_then(|()| {
        std::fs::rename(&partial, to).map_err(failed(to))?;
        settle_on_disk(to)?;
        std::fs::metadata(to).map(|file| file.len()).map_err(failed(to))
    });
    if written.is_err() {
        // What is left of it is of no use; the error says what went wrong.
        let _ = std::fs::remove_file(&partial);
        let _ = std::fs::remove_file(to);
    }
    written
}

fn copy(from: &Path, partial: &Path, clock: &dyn Clock) -> Result<(), StorageError> {
    drop(new_file(partial)?);
    let name = partial.to_str().ok_or_else(|| StorageError::Config("the name of the file must be UTF-8".to_owned()))?;
    let source = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    source.execute(transfer::COPY_INTO, [name])?;
    let copy = Connection::open_with_flags(partial, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let found: String = copy.query_row(transfer::CHECK, [], |row| row.get(0))?;
    if found != "ok" {
        return Err(StorageError::Broken(format!("the copy is damaged: {found}")));
    }
    // By the clock after the copy: everything in it is older.
    let now = clock.now().0;
    copy.execute(sql::NOTE_DROP, [BACKUP])?;
    copy.execute(sql::NOTE_ADD, (BACKUP, now.to_string(), now))?;
    copy.close().map_err(|(_, error)| error.into())
}

/// Puts a copy of `file` in the place of the database of `url`, brought up to date and marked as a backup; what was
/// open in it is put in doubt by [`super::Storage::doubt`].
///
/// # Errors
/// [`StorageError`]: not SQLite, there is a database (or the remains of one) in that place. Nothing is left behind.
pub async fn put_in_place(file: &Path, url: &str, clock: &dyn Clock) -> Result<(), StorageError> {
    let Some(to) = Db::sqlite_file(url)? else {
        return Err(StorageError::Config(
            "restore PostgreSQL with its own tools, then run `mostik restore` without --from".to_owned(),
        ));
    };
    // A log of another database beside it would be played into the copy.
    for ending in ["", "-wal", "-shm", "-journal"] {
        let there = beside(&to, ending);
        if there.exists() {
            return Err(StorageError::Config(format!(
                "{} exists: move {}* away first, nothing is written over",
                there.display(),
                to.display()
            )));
        }
    }
    make_folder_of(&to).map_err(failed(&to))?;
    let partial = beside(&to, ".partial");
    let mut copy = new_file(&partial)?;
    let put = async {
        let mut from = File::open(file).map_err(failed(file))?;
        std::io::copy(&mut from, &mut copy).map_err(failed(&partial))?;
        let db = Db::open(&format!("sqlite://{}", partial.display())).await?;
        let marked = mark(&db, clock).await;
        db.close().await;
        marked?;
        std::fs::rename(&partial, &to).map_err(failed(&to))?;
        settle_on_disk(&to)
    };
    let put = put.await;
    if put.is_err() {
        for ending in ["", "-wal", "-shm"] {
            // What is left of it is of no use; the error says what went wrong.
            let _ = std::fs::remove_file(beside(&partial, ending));
        }
    }
    put
}

async fn mark(db: &Db, clock: &dyn Clock) -> Result<(), StorageError> {
    db.migrate().await?;
    let now = clock.now().0;
    db.write(sql::NOTE_ADD, args![BACKUP, now.to_string(), now]).await?;
    Ok(())
}
