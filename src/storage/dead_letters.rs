//! Jobs given up: finding them, and letting them live again under their old identity.

use futures_util::future::try_join_all;

use super::db::{Arg, Tx, args};
use super::writer::{Harvest, Outcome, Queued, Step, Work};
use super::{Storage, StorageError, jobs, sql};
use crate::domain::ids::{ChannelId, PortalId};
use crate::domain::job::{GivenUp, Job, JobKind, JobState};
use crate::domain::time::Timestamp;

/// Dead letters redriven together; they share a commit.
const PAGE: u32 = 200;

/// A job that was given up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadLetter {
    /// The job; its id is the dead letter's id, its reason says why it was given up ([`GivenUp::read`]).
    pub job: Job,
    /// When.
    pub died: Timestamp,
}

/// Which dead letters; what is `None` (or empty) does not narrow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadFilter {
    /// What the job does.
    pub kind: Option<JobKind>,
    /// The channel of its message.
    pub channel: Option<ChannelId>,
    /// The portal that asked for it.
    pub portal: Option<PortalId>,
    /// How its stored reason begins.
    pub reason: String,
    /// Given up then or later.
    pub since: Timestamp,
    /// Given up before.
    pub until: Timestamp,
    /// Also sends of messages that may have reached the client already.
    pub undecided: bool,
}

impl Default for DeadFilter {
    fn default() -> Self {
        Self {
            kind: None,
            channel: None,
            portal: None,
            reason: String::new(),
            since: Timestamp(0),
            until: Timestamp(i64::MAX),
            undecided: true,
        }
    }
}

/// The same in the words of people, as the API and the command take them.
#[derive(Clone, Debug, Default)]
pub struct DeadWords<'a> {
    /// `send`, `command`, `comment`, `reply`, `reconcile` or `chat`.
    pub kind: Option<&'a str>,
    /// Id of a channel.
    pub channel: Option<&'a str>,
    /// Id of a portal.
    pub portal: Option<&'a str>,
    /// A word of [`GivenUp`], or the code with which a CRM refused.
    pub reason: Option<&'a str>,
    /// RFC 3339.
    pub since: Option<&'a str>,
    /// RFC 3339.
    pub until: Option<&'a str>,
}

impl DeadFilter {
    /// Reads what people wrote; with `undecided`, also messages that may have arrived are meant.
    ///
    /// # Errors
    /// What is wrong, in words that begin with the name of the field.
    pub fn parse(words: &DeadWords<'_>, undecided: bool) -> Result<Self, String> {
        let given = |text: Option<&'_ str>| text.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        let moment = |field: &str, text: Option<&str>, otherwise: Timestamp| match given(text) {
            None => Ok(otherwise),
            Some(text) => text
                .parse::<jiff::Timestamp>()
                .map(|at| Timestamp(at.as_millisecond()))
                .map_err(|_unread| format!("{field}: a moment of RFC 3339, such as 2026-11-22T05:00:00Z")),
        };
        let kind = given(words.kind).map(|word| {
            let kinds: Vec<&str> = JobKind::ALL.iter().map(|kind| kind.code()).collect();
            JobKind::find(&word).ok_or_else(|| format!("kind: one of {}", kinds.join(", ")))
        });
        let channel = given(words.channel).map(|id| ChannelId::parse(&id).ok_or("channel: this is no id of a channel"));
        let portal = given(words.portal).map(|id| PortalId::parse(&id).ok_or("portal: this is no id of a portal"));
        let any = Self::default();
        Ok(Self {
            kind: kind.transpose()?,
            channel: channel.transpose()?,
            portal: portal.transpose()?,
            reason: given(words.reason).map_or(Ok(String::new()), |word| reason_start(&word))?,
            since: moment("since", words.since, any.since)?,
            until: moment("until", words.until, any.until)?,
            undecided,
        })
    }

    fn args(&self) -> Vec<Arg> {
        args![
            self.kind.map(JobKind::code).unwrap_or_default(),
            self.channel.as_ref().map(ChannelId::as_str).unwrap_or_default(),
            self.portal.as_ref().map(PortalId::as_str).unwrap_or_default(),
            self.reason.as_str(),
            self.since.0,
            self.until.0,
            self.undecided,
        ]
    }
}

/// How a stored reason of this word begins.
fn reason_start(word: &str) -> Result<String, String> {
    const CODE_MAX: usize = 100;
    match GivenUp::find(word) {
        Some(GivenUp::Refused) => Err("reason: give the code with which the CRM refused".to_owned()),
        Some(known) => Ok(known.stored().to_owned()),
        None if word.len() <= CODE_MAX && !word.contains('\0') => Ok(format!("{word} (")),
        None => Err("reason: this is no reason of ours and no code of a CRM".to_owned()),
    }
}

/// What became of a dead letter that was to be redriven.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Redriven {
    /// It lives again and waits for its turn.
    Queued,
    /// Its message has left meanwhile, so there was nothing to do any more; the letter is gone.
    Settled,
    /// There is no such dead letter (any more).
    Unknown,
}

/// What became of many.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RedriveCounts {
    /// Dead letters that the filter is for, before anything was done.
    pub matched: i64,
    /// Dead letters it would be for as well, left out because their messages may have arrived.
    pub left_out: i64,
    /// Those that live again.
    pub redriven: i64,
    /// Those whose messages had left meanwhile.
    pub settled: i64,
}

impl Storage {
    /// Jobs given up, newest first, those behind the one of this time and id. Jobs of one commit died in the same
    /// millisecond, so a page may end between them.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn dead_letters(
        &self,
        filter: &DeadFilter,
        died: Timestamp,
        id: &str,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StorageError> {
        let mut args = filter.args();
        args.extend(args![died.0, id, i64::from(limit)]);
        let rows = self.db.rows(sql::JOBS_DEAD, args).await?;
        rows.iter()
            .map(|row| Ok(DeadLetter { job: jobs::read(row)?, died: Timestamp(row.int("changed_ms")?) }))
            .collect()
    }

    /// How many there are.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn count_dead_letters(&self, filter: &DeadFilter) -> Result<i64, StorageError> {
        self.db.row(sql::JOBS_DEAD_COUNT, filter.args()).await?.map_or(Ok(0), |row| row.int("n"))
    }

    /// Lets a dead letter live again, under its old identity: the message keeps its id, so nothing is sent twice
    /// unknowingly. `deadline` is the new one of a send; nothing else grows stale.
    ///
    /// # Errors
    /// [`StorageError`]; it stays dead.
    pub async fn redrive(&self, id: &str, deadline: Timestamp) -> Result<Redriven, StorageError> {
        let redrive = Redrive { id: id.to_owned(), deadline };
        match self.writer.write(Step::Redrive(redrive)).await? {
            Outcome::Redrive(redriven) => Ok(redriven),
            _ => Err(StorageError::Broken("redrive: wrong outcome".to_owned())),
        }
    }

    /// How many a filter is for, and how many more may have arrived already.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn count_redrive(&self, filter: &DeadFilter) -> Result<RedriveCounts, StorageError> {
        let matched = self.count_dead_letters(filter).await?;
        let with_doubtful = DeadFilter { undecided: true, ..filter.clone() };
        let left_out = self.count_dead_letters(&with_doubtful).await? - matched;
        Ok(RedriveCounts { matched, left_out: left_out.max(0), ..RedriveCounts::default() })
    }

    /// Redrives what a filter is for, newest first, at most `limit` of them; a call with what is left may follow.
    ///
    /// # Errors
    /// [`StorageError`]; those already redriven live.
    pub async fn redrive_matching(
        &self,
        filter: &DeadFilter,
        limit: u32,
        deadline: Timestamp,
    ) -> Result<RedriveCounts, StorageError> {
        let mut counts = self.count_redrive(filter).await?;
        let mut after = (Timestamp(i64::MAX), String::new());
        let mut left = limit;
        while left > 0 {
            let page = self.dead_letters(filter, after.0, &after.1, left.min(PAGE)).await?;
            let Some(last) = page.last() else { break };
            after = (last.died, last.job.id.clone());
            left = left.saturating_sub(u32::try_from(page.len()).unwrap_or(u32::MAX));
            // Together, so that they share a commit.
            for redriven in try_join_all(page.iter().map(|letter| self.redrive(&letter.job.id, deadline))).await? {
                match redriven {
                    Redriven::Queued => counts.redriven += 1,
                    Redriven::Settled => counts.settled += 1,
                    Redriven::Unknown => {}
                }
            }
        }
        Ok(counts)
    }
}

/// The step behind [`Storage::redrive`].
#[derive(Clone, Debug)]
pub(super) struct Redrive {
    id: String,
    deadline: Timestamp,
}

pub(super) async fn write(
    tx: &mut Tx,
    now: Timestamp,
    redrive: &Redrive,
    harvest: &mut Harvest,
) -> Result<Redriven, StorageError> {
    let id = redrive.id.as_str();
    let Some(row) = tx.row(sql::JOB_GET, args![id]).await? else { return Ok(Redriven::Unknown) };
    let mut job = jobs::read(&row)?;
    if job.state != JobState::Dead {
        return Ok(Redriven::Unknown);
    }
    let is_send = job.kind == JobKind::Send;
    // The message first, as everybody who tells of it does: two replicas then wait for each other and not crosswise.
    if is_send && tx.exec(sql::MESSAGE_REQUEUE, args![job.subject.as_str(), now.0]).await? == 0 {
        let forgotten = tx.exec(sql::JOB_FORGET_DEAD, args![id]).await?;
        return Ok(if forgotten == 1 { Redriven::Settled } else { Redriven::Unknown });
    }
    job.not_after = is_send.then_some(redrive.deadline);
    if tx.exec(sql::JOB_REDRIVE, args![id, now.0, job.not_after.map(|at| at.0)]).await? == 0 {
        return Ok(Redriven::Unknown);
    }
    let row = tx.row(sql::JOB_GET, args![id]).await?;
    let job = jobs::read(&row.ok_or_else(|| StorageError::Broken("redrive: the job vanished".to_owned()))?)?;
    harvest.jobs.push(Queued { job, work: Work::Stored });
    Ok(Redriven::Queued)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_and_refused_in_words() {
        let words = DeadWords {
            kind: Some("send"),
            channel: Some("chan_1"),
            portal: Some(" "),
            reason: Some("no_answer"),
            since: Some("2026-11-22T05:00:00+03:00"),
            until: None,
        };
        let filter = DeadFilter::parse(&words, false).unwrap();
        let any = DeadFilter::default();
        let expected = DeadFilter {
            kind: Some(JobKind::Send),
            channel: ChannelId::parse("chan_1"),
            reason: "no answer".to_owned(),
            since: Timestamp(1_795_312_800_000),
            undecided: false,
            ..any.clone()
        };
        assert_eq!(filter, expected);
        assert_eq!(DeadFilter::parse(&DeadWords::default(), true).unwrap(), any);
        let crm = DeadWords { reason: Some("ACCESS_DENIED"), ..DeadWords::default() };
        assert_eq!(DeadFilter::parse(&crm, true).unwrap().reason, "ACCESS_DENIED (");
        for (words, field) in [
            (DeadWords { kind: Some("letter"), ..DeadWords::default() }, "kind: one of command, send"),
            (DeadWords { channel: Some("prt_1"), ..DeadWords::default() }, "channel:"),
            (DeadWords { portal: Some("1"), ..DeadWords::default() }, "portal:"),
            (DeadWords { reason: Some("refused"), ..DeadWords::default() }, "reason:"),
            (DeadWords { since: Some("yesterday"), ..DeadWords::default() }, "since:"),
            (DeadWords { until: Some("2026-11-22"), ..DeadWords::default() }, "until:"),
        ] {
            let refused = DeadFilter::parse(&words, true).unwrap_err();
            assert!(refused.starts_with(field), "{refused}");
        }
    }
}
