//! `mostik backup`, `mostik restore` and `mostik migrate --from`: what an operator does with whole databases.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use secrecy::ExposeSecret;

use super::print;
use crate::app::{Probe, SystemClock, lock_database, way_out};
use crate::config::Config;
use crate::domain::time::Clock;
use crate::storage::db::Db;
use crate::storage::{backup, transfer};

/// Arguments of `migrate`.
#[derive(Args)]
pub(super) struct Migrate {
    /// Move everything from this SQLite database (sqlite://path), which nobody may be serving
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Move it to this empty PostgreSQL database; without it, to `database.url`
    #[arg(long, value_name = "URL", requires = "from")]
    to: Option<String>,
}

impl Migrate {
    /// Brings the schema up to date, or moves everything.
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<()> {
        let url = config.database.url.expose_secret();
        let Some(from) = self.from else {
            let db = Db::open(url).await?;
            db.migrate().await?;
            db.close().await;
            return print("the schema is up to date\n");
        };
        let to = self.to.as_deref().unwrap_or(url);
        let _lock = lock_database(&from)?;
        let moved = transfer::to_postgres(&from, to, SystemClock.now(), progress).await?;
        let rows: u64 = moved.iter().map(|table| table.rows).sum();
        print(&format!(
            "moved {rows} rows in {} tables\n\
             next: set database.url to the target, keep security.master_key as it is, and start `mostik serve`.\n\
             The old database is marked as moved and is not served again; keep it until you have seen the new one work.\n",
            moved.len()
        ))
    }
}

fn progress(line: &str) {
    // Progress that nobody can read is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Arguments of `backup`.
#[derive(Args)]
pub(super) struct Backup {
    /// File to write; it must not exist
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

impl Backup {
    /// Copies the database while the service works.
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<()> {
        let bytes = backup::backup(config.database.url.expose_secret(), &self.to, &SystemClock).await?;
        print(&format!(
            "{} written, {bytes} bytes\nkeep security.master_key beside it: without the key it cannot be used\n",
            self.to.display()
        ))
    }
}

/// Arguments of `restore`.
#[derive(Args)]
pub(super) struct Restore {
    /// Put this backup in the place of `database.url` first (SQLite; that place must be empty). Without it the database
    /// that is there counts as restored
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

impl Restore {
    /// Makes a database of the past fit to be served.
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<()> {
        let url = config.database.url.expose_secret();
        let lock = lock_database(url)?;
        if let Some(file) = &self.from {
            backup::put_in_place(file, url, &SystemClock).await?;
        }
        let probe = Probe::open(config, &way_out(config)?, false).await?;
        let doubts = doubt(&probe, lock.is_some()).await;
        probe.storage.close().await;
        print(&format!(
            "the database is fit to be served\n\
             {} jobs were open when it was saved. What they send may have been sent since, so nothing of it is sent by \
             itself: they wait as dead letters.\n\
             next: start `mostik serve`, give it some minutes to hear from the providers, then look at the rest with \
             `mostik redrive --list` and redrive what did not arrive.\n",
            doubts?
        ))
    }
}

/// `alone`: a lock proves that nobody works on the database, whatever it says of the moment when it was saved.
async fn doubt(probe: &Probe, alone: bool) -> anyhow::Result<usize> {
    let now = SystemClock.now();
    if !alone && let Some((worker, until)) = probe.storage.living_worker().await? {
        let wait = until.since(now).0 / 1000 + 1;
        bail!(
            "{worker} is working on this database: stop every service; if it crashed, wait {wait} s and run this again"
        );
    }
    let taken = probe.storage.call_backup().await?;
    Ok(probe.storage.doubt(taken).await?)
}
