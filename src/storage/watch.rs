//! Every state ends (`docs/adr/0009`): finding messages of which something has been awaited for too long, and what
//! becomes of them. Guarded by the state that was seen, so that two replicas doing it at once do it once.

use std::collections::{HashMap, HashSet};

use super::db::{Row, Tx, args};
use super::messages::{self, MessageNews};
use super::progress::{self, CommentTarget};
use super::writer::{Context, Harvest, Step};
use super::{Storage, StorageError, jobs, sql};
use crate::domain::ids::{ChannelId, MessageId, WorkerId};
use crate::domain::job::{GivenUp, Job, JobKind, JobState, QueueKey};
use crate::domain::message::Silence;
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::status::MessageState;
use crate::domain::time::Timestamp;

/// Messages to look for: those of one provider that have been in a state since `before` or longer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lookout {
    /// Registry id of the provider.
    pub provider: String,
    /// The state.
    pub state: MessageState,
    /// What has been said of it.
    pub silence: Option<Silence>,
    /// Entered then or earlier.
    pub before: Timestamp,
}

/// A message of which something has been awaited for long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watched {
    /// The message.
    pub id: MessageId,
    /// Its channel.
    pub channel: ChannelId,
    /// The person's address.
    pub peer: String,
    /// Where it stands.
    pub state: MessageState,
    /// Since when.
    pub since: Timestamp,
}

/// What is to become of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Its card says that no confirmation has come. An undecided send is given to a person.
    Silent,
    /// Nothing is awaited any more.
    Closed,
    /// Its time to be sent is over.
    Late,
}

/// A message and its verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The message as it was seen.
    pub message: Watched,
    /// What is to become of it.
    pub verdict: Verdict,
    /// A send begun later than this may still be under way and is left alone.
    pub begun_before: Timestamp,
}

impl Storage {
    /// True when this worker is the oldest living one.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn is_first_worker(&self, worker: &WorkerId) -> Result<bool, StorageError> {
        let row = self.db.row(sql::WORKER_FIRST, args![self.lease_time(false).await?.0]).await?;
        let first = row.map(|row| row.maybe_text("first")).transpose()?.flatten();
        Ok(first.as_deref() == Some(worker.as_str()))
    }

    /// Providers that channels have, also those that this version does not know.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn channel_providers(&self) -> Result<Vec<String>, StorageError> {
        self.db.rows(sql::CHANNEL_PROVIDERS, vec![]).await?.iter().map(|row| row.text("provider")).collect()
    }

    /// Messages that the lookouts are for, longest waiting first: a bounded number of each portal, so that a portal with
    /// thousands of them neither hides the others nor is flooded.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn watched(&self, lookouts: &[Lookout]) -> Result<Vec<Watched>, StorageError> {
        let word = |silence: Option<Silence>| silence.map_or("", Silence::code);
        let rows = lookouts.iter().map(|lookout| {
            args![lookout.provider.as_str(), lookout.state.code(), word(lookout.silence), lookout.before.0]
        });
        self.db.batch_rows(sql::MESSAGES_WATCHED, rows.collect()).await?.iter().map(read).collect()
    }

    /// Stores what becomes of watched messages, with everything that follows from it. What has moved since it was seen
    /// is left alone.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was stored.
    pub async fn settle_watched(&self, findings: Vec<Finding>) -> Result<(), StorageError> {
        self.writer.write(Step::Watch(findings)).await?;
        Ok(())
    }

    /// Since when the message that has been longest in its state has been there, by the word of the state. States of
    /// which nothing is awaited are left out.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn oldest_open(&self) -> Result<Vec<(String, Timestamp)>, StorageError> {
        let rows = self.db.rows(sql::MESSAGES_OLDEST_OPEN, vec![]).await?;
        rows.iter().map(|row| Ok((row.text("state")?, Timestamp(row.int("oldest")?)))).collect()
    }
}

fn read(row: &Row) -> Result<Watched, StorageError> {
    let state = row.text("state")?;
    Ok(Watched {
        id: MessageId::stored(row.text("id")?),
        channel: ChannelId::stored(row.text("channel_id")?),
        peer: row.text("peer")?,
        state: MessageState::find(&state).ok_or_else(|| StorageError::Broken(format!("messages.state: {state}")))?,
        since: Timestamp(row.int("changed_ms")?),
    })
}

/// What is done about one message.
enum Deed {
    /// Nothing: its job is alive and well.
    Leave,
    /// It moves: it surely was not sent.
    Fail,
    /// It moves: it may have been sent.
    Doubt,
    /// Its card says so.
    Say(Silence),
}

/// What is done about the job of that message.
enum Burial {
    /// Nothing.
    None,
    /// It becomes a dead letter, unless it has left this state.
    From(JobState, String),
    /// It is gone: a dead letter is made in its place.
    Anew(GivenUp),
}

fn decide(finding: &Finding, job: Option<&Job>, now: Timestamp) -> (Deed, Burial) {
    let message = &finding.message;
    let known = job.map(|job| (job, job.state));
    let own_reason = |job: &Job| job.reason.clone().unwrap_or_else(|| GivenUp::ProcessEnded.stored().to_owned());
    let may_be_under_way = |job: &Job| job.started.is_some_and(|at| at > finding.begun_before);
    let too_late = |job: &Job| job.not_after.is_none_or(|limit| now > limit);
    match (finding.verdict, message.state) {
        (Verdict::Late, _) => match known {
            None => (Deed::Fail, Burial::Anew(GivenUp::Lost)),
            Some((_, JobState::Dead)) => (Deed::Fail, Burial::None),
            Some((job, state @ JobState::Ready)) if too_late(job) => {
                (Deed::Fail, Burial::From(state, GivenUp::Expired.stored().to_owned()))
            }
            Some((job, state @ (JobState::Started | JobState::Unclear))) if !may_be_under_way(job) => {
                (Deed::Doubt, Burial::From(state, own_reason(job)))
            }
            Some((_, JobState::Ready | JobState::Started | JobState::Unclear)) => (Deed::Leave, Burial::None),
        },
        (Verdict::Silent | Verdict::Closed, MessageState::Undecided) => {
            let say = if finding.verdict == Verdict::Closed { Silence::Closed } else { Silence::Told };
            match known {
                None => (Deed::Say(say), Burial::Anew(GivenUp::Lost)),
                Some((job, state @ (JobState::Started | JobState::Unclear))) if !may_be_under_way(job) => {
                    (Deed::Say(say), Burial::From(state, own_reason(job)))
                }
                Some((_, JobState::Started | JobState::Unclear)) => (Deed::Leave, Burial::None),
                // It was found that it never left, and it waits to be sent again.
                Some((job, state @ JobState::Ready)) if say == Silence::Closed && too_late(job) => {
                    (Deed::Fail, Burial::From(state, GivenUp::Expired.stored().to_owned()))
                }
                Some((_, JobState::Ready)) if say == Silence::Closed => (Deed::Leave, Burial::None),
                Some((_, JobState::Ready | JobState::Dead)) => (Deed::Say(say), Burial::None),
            }
        }
        (Verdict::Silent, _) => (Deed::Say(Silence::Told), Burial::None),
        (Verdict::Closed, _) => (Deed::Say(Silence::Closed), Burial::None),
    }
}

pub(super) async fn write(
    tx: &mut Tx,
    context: &Context,
    now: Timestamp,
    findings: &[Finding],
    harvest: &mut Harvest,
) -> Result<(), StorageError> {
    let job_id = |finding: &Finding| Job::id_of(JobKind::Send, finding.message.id.as_str());
    let mut known: HashMap<String, Job> = HashMap::new();
    for row in tx.batch_rows(sql::JOBS_BY_ID, findings.iter().map(|finding| args![job_id(finding)]).collect()).await? {
        let job = jobs::read(&row)?;
        known.insert(job.id.clone(), job);
    }
    let (mut bury, mut anew, mut deeds) = (Vec::new(), Vec::new(), Vec::new());
    for finding in findings {
        let id = job_id(finding);
        let (deed, burial) = decide(finding, known.get(&id), now);
        match burial {
            Burial::None => deeds.push((None, deed, finding)),
            Burial::From(state, reason) => {
                bury.push(args![id.as_str(), state.code(), Some(reason), now.0]);
                deeds.push((Some(id), deed, finding));
            }
            Burial::Anew(reason) => {
                anew.push(dead_row(context, now, &id, finding, reason));
                deeds.push((Some(id), deed, finding));
            }
        }
    }
    let mut buried = HashSet::new();
    for row in tx.batch_rows(sql::JOBS_BURY, bury).await? {
        let id = row.text("id")?;
        if let Some(job) = known.get(&id) {
            harvest.gone.push((job.queue.clone(), id.clone()));
        }
        buried.insert(id);
    }
    for row in tx.batch_rows(sql::JOBS_ADD_DEAD, anew).await? {
        buried.insert(row.text("id")?);
    }
    let (mut news, mut said) = (Vec::new(), Vec::new());
    for (job, deed, finding) in deeds {
        if job.is_some_and(|id| !buried.contains(&id)) {
            // Somebody has taken it up meanwhile.
            continue;
        }
        let id = &finding.message.id;
        let moved =
            |state, code| MessageNews { failure: Some(Failure::new(code)), ..MessageNews::new(id.clone(), state, now) };
        match deed {
            Deed::Leave => {}
            Deed::Fail => news.push(moved(MessageState::Failed, ErrorCode::Expired)),
            Deed::Doubt => news.push(moved(MessageState::Undecided, ErrorCode::Undecided)),
            Deed::Say(silence) => {
                said.push(args![id.as_str(), finding.message.state.code(), silence.code(), now.0]);
            }
        }
    }
    messages::move_up(tx, context, now, &news.iter().collect::<Vec<_>>(), harvest).await?;
    let mut targets = Vec::new();
    for row in tx.batch_rows(sql::MESSAGES_SILENT, said).await? {
        targets.extend(CommentTarget::of(&row)?);
    }
    progress::ask_comments(tx, context, now, targets.into_iter(), harvest).await
}

fn dead_row(context: &Context, now: Timestamp, id: &str, finding: &Finding, reason: GivenUp) -> Vec<super::db::Arg> {
    let message = &finding.message;
    args![
        id,
        QueueKey::Channel(message.channel.clone()).to_string(),
        message.peer.as_str(),
        JobKind::Send.code(),
        message.id.as_str(),
        context.ids.ulid(),
        JobState::Dead.code(),
        0,
        0,
        now.0,
        now.0,
        Some(reason.stored().to_owned()),
        now.0,
    ]
}
