//! `mostik redrive`: dead letters from the shell.

use anyhow::bail;
use clap::Args;

use super::print;
use crate::app::{Probe, SystemClock, way_out};
use crate::config::Config;
use crate::domain::time::{Clock, Timestamp};

/// Arguments of the command.
#[derive(Args)]
pub(super) struct Redrive {
    /// Ids of dead letters (`send:msg_…`)
    ids: Vec<String>,
    /// Redrive every dead letter
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Only list them
    #[arg(long, conflicts_with_all = ["ids", "all"])]
    list: bool,
}

impl Redrive {
    /// Lists or redrives. A running service takes the jobs over by itself within seconds.
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<()> {
        if self.ids.is_empty() && !self.all && !self.list {
            bail!("name dead letters, or say --all or --list");
        }
        let probe = Probe::open(config, &way_out(config)?, self.list).await?;
        let mut ids = self.ids;
        if self.all || self.list {
            let mut after = (Timestamp(i64::MAX), String::new());
            loop {
                let page = probe.storage.dead_letters(after.0, &after.1, 200).await?;
                let Some(last) = page.last() else { break };
                after = (last.died, last.job.id.clone());
                for letter in page {
                    if self.list {
                        let reason = letter.job.reason.as_deref().unwrap_or_default();
                        print(&format!("{}\t{}\n", letter.job.id, reason))?;
                    } else {
                        ids.push(letter.job.id);
                    }
                }
            }
        }
        let not_after = SystemClock.now().plus(config.delivery.not_after.0);
        let mut unknown = Vec::new();
        for id in ids {
            if probe.storage.redrive(&id, Some(not_after)).await? {
                print(&format!("{id} lives again\n"))?;
            } else {
                unknown.push(id);
            }
        }
        probe.storage.close().await;
        if unknown.is_empty() { Ok(()) } else { bail!("no such dead letter: {}", unknown.join(", ")) }
    }
}
