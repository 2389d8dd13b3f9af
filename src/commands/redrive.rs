//! `mostik redrive`: dead letters from the shell.

use anyhow::bail;
use clap::Args;

use super::print;
use crate::app::{Probe, SystemClock, way_out};
use crate::config::Config;
use crate::domain::language::Language;
use crate::domain::time::{Clock, Timestamp};
use crate::i18n;
use crate::storage::dead_letters::{DeadFilter, DeadWords, Redriven};

/// Arguments of the command.
#[derive(Args)]
pub(super) struct Redrive {
    /// Ids of dead letters (`send:msg_…`)
    ids: Vec<String>,
    /// Redrive every dead letter that the options below leave
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Only list them
    #[arg(long, conflicts_with_all = ["ids", "all"])]
    list: bool,
    /// Only count what --all would do
    #[arg(long, requires = "all")]
    dry_run: bool,
    /// With --all: also sends whose messages may have reached the person, who may then get them twice
    #[arg(long, requires = "all")]
    undecided: bool,
    /// Only of this kind: send, command, comment, reply or reconcile
    #[arg(long, conflicts_with = "ids")]
    kind: Option<String>,
    /// Only about messages of this channel
    #[arg(long, conflicts_with = "ids")]
    channel: Option<String>,
    /// Only for this portal
    #[arg(long, conflicts_with = "ids")]
    portal: Option<String>,
    /// Only with this reason: expired, no_answer, gateway, process_ended, lost, or the code with which a CRM refused
    #[arg(long, conflicts_with = "ids")]
    reason: Option<String>,
    /// Only given up then or later (RFC 3339)
    #[arg(long, conflicts_with = "ids")]
    since: Option<String>,
    /// Only given up before (RFC 3339)
    #[arg(long, conflicts_with = "ids")]
    until: Option<String>,
    /// Language of the reasons that --list shows
    #[arg(long, default_value = "en", value_parser = ["en", "ru"])]
    language: String,
}

impl Redrive {
    /// Lists or redrives. A running service takes the jobs over by itself within seconds.
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<()> {
        if self.ids.is_empty() && !self.all && !self.list {
            bail!("name dead letters, or say --all or --list");
        }
        // Listing means all of them; redriving leaves out what may arrive twice unless that is asked for.
        let filter = self.filter(self.list || self.undecided)?;
        let language = Language::of_portal(&self.language);
        let probe = Probe::open(config, &way_out(config)?, self.list || self.dry_run).await?;
        let deadline = SystemClock.now().plus(config.delivery.not_after.0);
        let done = if self.list {
            list(&probe, &filter, language).await
        } else if self.all {
            redrive_all(&probe, &filter, self.dry_run, deadline).await
        } else {
            redrive(&probe, self.ids, deadline).await
        };
        probe.storage.close().await;
        done
    }

    fn filter(&self, undecided: bool) -> anyhow::Result<DeadFilter> {
        let words = DeadWords {
            kind: self.kind.as_deref(),
            channel: self.channel.as_deref(),
            portal: self.portal.as_deref(),
            reason: self.reason.as_deref(),
            since: self.since.as_deref(),
            until: self.until.as_deref(),
        };
        DeadFilter::parse(&words, undecided).map_err(|wrong| anyhow::anyhow!("--{wrong}"))
    }
}

async fn list(probe: &Probe, filter: &DeadFilter, language: Language) -> anyhow::Result<()> {
    let mut after = (Timestamp(i64::MAX), String::new());
    loop {
        let page = probe.storage.dead_letters(filter, after.0, &after.1, 200).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = (last.died, last.job.id.clone());
        for letter in page {
            let reason = letter.job.reason.as_deref().unwrap_or_default();
            print(&format!("{}\t{}\n", letter.job.id, i18n::dead_letter(language, reason)))?;
        }
    }
}

async fn redrive_all(probe: &Probe, filter: &DeadFilter, dry_run: bool, deadline: Timestamp) -> anyhow::Result<()> {
    let counts = if dry_run {
        probe.storage.count_redrive(filter).await?
    } else {
        probe.storage.redrive_matching(filter, u32::MAX, deadline).await?
    };
    print(&format!("{} match\n", counts.matched))?;
    if !dry_run {
        print(&format!("{} live again\n", counts.redriven))?;
    }
    if counts.settled > 0 {
        print(&format!("{} had left meanwhile; nothing is sent again\n", counts.settled))?;
    }
    if counts.left_out > 0 {
        let words = "may have reached the person and were left out; --undecided redrives them too";
        print(&format!("{} {words}\n", counts.left_out))?;
    }
    Ok(())
}

async fn redrive(probe: &Probe, ids: Vec<String>, deadline: Timestamp) -> anyhow::Result<()> {
    let mut unknown = Vec::new();
    for id in ids {
        match probe.storage.redrive(&id, deadline).await? {
            Redriven::Queued => print(&format!("{id} lives again\n"))?,
            Redriven::Settled => print(&format!("{id} had left meanwhile; nothing is sent again\n"))?,
            Redriven::Unknown => unknown.push(id),
        }
    }
    if unknown.is_empty() { Ok(()) } else { bail!("no such dead letter: {}", unknown.join(", ")) }
}
