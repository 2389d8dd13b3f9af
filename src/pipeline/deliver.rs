//! Sends: from the outbox to the provider, and what its answer means.
//!
//! A send is marked as begun, durably, before the request leaves. So after a crash, or an answer that never came,
//! nobody has to guess: the message is *undecided* until the provider's echo tells, and it is sent again only where
//! the absence of an echo proves that it never arrived (`docs/adr/0004`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;

use super::Pipeline;
use super::policy::{Decision, decide};
use super::preflight::{self, Ready, Refusal};
use super::scheduler::{Finished, Hold};
use crate::domain::channel::{Channel, ChannelState};
use crate::domain::ids::MessageId;
use crate::domain::job::{GivenUp, JobState, QueueKey};
use crate::domain::message::MessageRecord;
use crate::domain::outcome::{Accepted, ErrorCode, Failure, FailureClass, SendError, ThrottleScope};
use crate::domain::status::MessageState;
use crate::domain::text::seed_of;
use crate::domain::time::{Millis, Timestamp};
use crate::providers::Provider;
use crate::storage::StorageError;
use crate::storage::messages::{Attempt, MessageNews};
use crate::storage::settle::{Fate, Settlement, Start};
use crate::storage::writer::{Queued, Work};

/// First look for the echo of an unclear send; most come within the second.
const FIRST_LOOK: Millis = Millis::seconds(1);
/// Later looks.
const NEXT_LOOK: Millis = Millis::seconds(10);
/// From this try on a person at the card is told that it is late.
const LATE_TRY: u32 = 2;

/// Runs sends of one channel.
pub(super) async fn run(pipeline: &Arc<Pipeline>, queue: &QueueKey, jobs: Vec<Queued>) {
    let runs = Runs { pipeline, queue };
    let QueueKey::Channel(channel_id) = queue else { return };
    let (channel, messages) = match load(pipeline, channel_id, &jobs).await {
        Ok((Some(channel), messages)) => (channel, messages),
        Ok((None, _)) => {
            for queued in jobs {
                runs.settle(&queued, failed(&queued, runs.now(), Failure::new(ErrorCode::NoChannel))).await;
            }
            return;
        }
        Err(error) => {
            tracing::warn!(%error, "messages could not be read");
            jobs.into_iter().for_each(|queued| runs.again(queued, Millis::seconds(1)));
            return;
        }
    };
    let Some(provider) = pipeline.provider_of(&channel).cloned() else {
        for queued in jobs {
            let failure = Failure::with(ErrorCode::NoChannel, channel.provider.clone());
            runs.settle(&queued, failed(&queued, runs.now(), failure)).await;
        }
        return;
    };
    if matches!(channel.state, ChannelState::Paused(_)) {
        pipeline.scheduler.hold(queue.clone(), Hold::Paused);
        jobs.into_iter().for_each(|queued| runs.again(queued, Millis(0)));
        return;
    }
    let last_inbound = match windows(pipeline, &channel, &messages).await {
        Ok(found) => found,
        Err(error) => {
            // Not knowing is no reason to refuse.
            tracing::warn!(%error, "service windows could not be read");
            jobs.into_iter().for_each(|queued| runs.again(queued, Millis::seconds(1)));
            return;
        }
    };
    let prepared = jobs.into_iter().map(|queued| {
        let record = queued.job.message().and_then(|id| messages.get(&id).cloned());
        let (channel, provider, last_inbound) = (&channel, &provider, &last_inbound);
        async move { runs.prepare(queued, record, channel, provider, last_inbound).await }
    });
    let ready: Vec<(Queued, Ready)> = join_all(prepared).await.into_iter().flatten().collect();
    runs.send_all(&channel, &provider, ready).await;
}

type Messages = HashMap<MessageId, Arc<MessageRecord>>;

async fn load(
    pipeline: &Pipeline,
    channel: &crate::domain::ids::ChannelId,
    jobs: &[Queued],
) -> Result<(Option<Arc<Channel>>, Messages), StorageError> {
    let mut messages = Messages::new();
    let mut missing = Vec::new();
    for queued in jobs {
        match (&queued.work, queued.job.message()) {
            (Work::Message(record), _) => {
                messages.insert(record.id.clone(), Arc::clone(record));
            }
            (Work::Stored | Work::Command(_), Some(id)) => missing.push(id),
            (Work::Stored | Work::Command(_), None) => {}
        }
    }
    for record in pipeline.storage.load_messages(&missing).await? {
        messages.insert(record.id.clone(), Arc::new(record));
    }
    Ok((pipeline.storage.find_channel(channel).await?, messages))
}

/// When each person last wrote; only asked for what needs an open window.
async fn windows(
    pipeline: &Pipeline,
    channel: &Channel,
    messages: &Messages,
) -> Result<HashMap<String, Timestamp>, StorageError> {
    let needing = messages.values().filter(|record| record.draft.content.needs_window());
    let people: Vec<(String, String)> = needing.map(|record| (channel.id.to_string(), record.peer.clone())).collect();
    let found = pipeline.storage.last_inbound(&people).await?;
    Ok(found.into_iter().map(|((_, peer), at)| (peer, at)).collect())
}

/// How a message's job fails before anything was sent.
fn failed(queued: &Queued, now: Timestamp, failure: Failure) -> Settlement {
    let news = queued
        .job
        .message()
        .map(|id| MessageNews { failure: Some(failure), ..MessageNews::new(id, MessageState::Failed, now) });
    Settlement { job: queued.job.id.clone(), fate: Fate::Done, news, attempt: None }
}

/// What the steps of a run share.
#[derive(Clone, Copy)]
struct Runs<'a> {
    pipeline: &'a Arc<Pipeline>,
    queue: &'a QueueKey,
}

impl Runs<'_> {
    fn now(&self) -> Timestamp {
        self.pipeline.clock.now()
    }

    fn finished(&self, queued: &Queued, again: Option<Queued>) {
        let (lane, id) = (queued.job.lane.clone(), queued.job.id.clone());
        self.pipeline.scheduler.finished(Finished { queue: self.queue.clone(), lane, id, again });
    }

    /// Nothing happened; look at it again after `wait`.
    fn again(&self, queued: Queued, wait: Millis) {
        let mut next = queued.clone();
        next.job.due = self.now().plus(wait);
        self.finished(&queued, Some(next));
    }

    /// Stores how a run ended and lets the lane go on. A store that does not answer is asked until it does: the
    /// message has been handed over, and forgetting that would send it twice.
    async fn settle(&self, queued: &Queued, settlement: Settlement) {
        let again = match &settlement.fate {
            Fate::Done => None,
            Fate::Keep { state: JobState::Dead, .. } => None,
            Fate::Keep { state, due, tries, reason } => {
                let mut next = queued.clone();
                next.job.state = *state;
                next.job.due = *due;
                next.job.tries = *tries;
                next.job.reason.clone_from(reason);
                // What is stored with the message has changed.
                next.work = Work::Stored;
                Some(next)
            }
        };
        let mut wait = Millis(100);
        loop {
            match self.pipeline.storage.settle(vec![settlement.clone()]).await {
                Ok(()) => break,
                Err(error @ (StorageError::Broken(_) | StorageError::Config(_) | StorageError::Schema(_))) => {
                    tracing::error!(%error, job.id = %queued.job.id, "how a send ended could not be stored");
                    break;
                }
                Err(error @ StorageError::Unavailable(_)) => {
                    tracing::warn!(%error, job.id = %queued.job.id, "how a send ended is not stored yet");
                    tokio::time::sleep(wait.to_duration()).await;
                    wait = Millis((wait.0 * 2).min(5_000));
                }
            }
        }
        self.finished(queued, again);
    }

    /// Decides whether a job may send now; settles or puts back whatever may not.
    async fn prepare(
        &self,
        queued: Queued,
        record: Option<Arc<MessageRecord>>,
        channel: &Channel,
        provider: &Arc<dyn Provider>,
        last_inbound: &HashMap<String, Timestamp>,
    ) -> Option<(Queued, Ready)> {
        let now = self.now();
        let Some(record) = record else {
            let done = Settlement { job: queued.job.id.clone(), fate: Fate::Done, news: None, attempt: None };
            self.settle(&queued, done).await;
            return None;
        };
        match queued.job.state {
            JobState::Started | JobState::Unclear => {
                self.look_for_echo(queued, &record, channel, provider).await;
                return None;
            }
            JobState::Ready | JobState::Dead => {}
        }
        if record.state != MessageState::Queued && record.state != MessageState::Undecided {
            let done = Settlement { job: queued.job.id.clone(), fate: Fate::Done, news: None, attempt: None };
            self.settle(&queued, done).await;
            return None;
        }
        if queued.job.not_after.is_some_and(|limit| now > limit) {
            self.settle(&queued, expired(&queued, now, "")).await;
            return None;
        }
        let last = last_inbound.get(&record.peer).copied();
        match preflight::prepare(self.pipeline, channel, provider, &record, last, now).await {
            Ok(ready) => Some((queued, ready)),
            Err(Refusal::Failed(failure)) => {
                self.settle(&queued, failed(&queued, now, failure)).await;
                None
            }
            Err(Refusal::Provider(error)) => {
                let settlement = self.after_error(&queued, channel, *error, now, Millis(0)).await;
                self.settle(&queued, settlement).await;
                None
            }
        }
    }

    async fn send_all(&self, channel: &Channel, provider: &Arc<dyn Provider>, ready: Vec<(Queued, Ready)>) {
        if ready.is_empty() {
            return;
        }
        let start = Start {
            jobs: ready.iter().map(|(queued, _)| queued.job.id.clone()).collect(),
            by: self.pipeline.worker.to_string(),
            again: false,
        };
        let begun = match self.pipeline.storage.start(start).await {
            Ok(begun) => begun,
            Err(error) => {
                tracing::warn!(%error, "sends could not be begun");
                ready.into_iter().for_each(|(queued, _)| self.again(queued, Millis::seconds(1)));
                return;
            }
        };
        let sends = ready.into_iter().map(|(queued, ready)| {
            let may = begun.contains(&queued.job.id);
            async move {
                if may {
                    self.send(channel, provider, queued, ready).await;
                } else {
                    // Withdrawn, or begun by somebody else: it is not ours any more.
                    self.finished(&queued, None);
                }
            }
        });
        join_all(sends).await;
    }

    async fn send(&self, channel: &Channel, provider: &Arc<dyn Provider>, mut queued: Queued, ready: Ready) {
        let began = self.now();
        queued.job.started = Some(began);
        let clock = Instant::now();
        let result = provider.send(channel, &ready.message).await;
        let took = Millis(i64::try_from(clock.elapsed().as_millis()).unwrap_or(i64::MAX));
        let settlement = match result {
            Ok(accepted) => self.after_acceptance(&queued, accepted, ready.used_fallback, began, took),
            Err(error) => {
                let mut settlement = self.after_error(&queued, channel, error, began, took).await;
                if let Some(news) = &mut settlement.news {
                    news.used_fallback = ready.used_fallback;
                }
                settlement
            }
        };
        self.log_attempt(&queued, channel, &settlement, took);
        self.settle(&queued, settlement).await;
    }

    fn after_acceptance(
        &self,
        queued: &Queued,
        accepted: Accepted,
        used_fallback: bool,
        began: Timestamp,
        took: Millis,
    ) -> Settlement {
        let news = queued.job.message().map(|id| MessageNews {
            provider_id: Some(accepted.id),
            used_fallback,
            ..MessageNews::new(id, MessageState::Accepted, self.now())
        });
        let attempt = Attempt {
            job: queued.job.id.clone(),
            message: queued.job.message(),
            at: began,
            duration: took,
            outcome: "ok".to_owned(),
            failure_class: None,
            vendor_code: String::new(),
            raw: String::new(),
        };
        Settlement { job: queued.job.id.clone(), fate: Fate::Done, news, attempt: Some(attempt) }
    }

    /// What a failed call means for job, message and channel.
    async fn after_error(
        &self,
        queued: &Queued,
        channel: &Channel,
        error: SendError,
        began: Timestamp,
        took: Millis,
    ) -> Settlement {
        let now = self.now();
        let job = &queued.job;
        let plan = &self.pipeline.settings.retries;
        let decision = decide(plan, error.class, error.retry_after, job.tries, job.not_after, now, seed_of(&job.id));
        let keep = |state, due, tries, reason: Option<&str>| Fate::Keep {
            state,
            due,
            tries,
            reason: reason.map(str::to_owned),
        };
        let told = |state: MessageState, failure: Failure| {
            job.message().map(|id| MessageNews {
                failure: Some(failure),
                vendor_code: error.vendor_code.clone(),
                ..MessageNews::new(id, state, now)
            })
        };
        let (fate, news) = match decision {
            Decision::Settle => (Fate::Done, told(MessageState::Failed, error.failure.clone())),
            Decision::Pause => {
                self.pause(channel, &error).await;
                (keep(JobState::Ready, now, job.tries, None), told(MessageState::Queued, error.failure.clone()))
            }
            Decision::Again { due, counts } => {
                if error.class == FailureClass::Throttled && error.scope == ThrottleScope::Channel {
                    self.pipeline.scheduler.hold(self.queue.clone(), Hold::Until(due));
                }
                let tries = job.tries + u32::from(counts);
                let late =
                    (counts && tries == LATE_TRY).then(|| told(MessageState::Queued, error.failure.clone())).flatten();
                (keep(JobState::Ready, due, tries, None), late)
            }
            Decision::Expire => {
                let settlement = expired(queued, now, &error.failure.detail);
                (settlement.fate, settlement.news)
            }
            Decision::Unclear => {
                let why = if error.answered_by_gateway { GivenUp::Gateway } else { GivenUp::NoAnswer };
                let fate = keep(JobState::Unclear, now.plus(FIRST_LOOK), job.tries, Some(why.stored()));
                (fate, told(MessageState::Undecided, Failure::new(ErrorCode::Undecided)))
            }
        };
        let attempt = Attempt {
            job: job.id.clone(),
            message: job.message(),
            at: began,
            duration: took,
            outcome: error.class.code().to_owned(),
            failure_class: Some(error.class.code().to_owned()),
            vendor_code: error.vendor_code.clone(),
            raw: error.raw,
        };
        Settlement { job: job.id.clone(), fate, news, attempt: Some(attempt) }
    }

    /// The channel cannot work until somebody mends it: it stops at once, and its queue stays.
    async fn pause(&self, channel: &Channel, error: &SendError) {
        let reason = format!("{} {}", error.vendor_code, error.failure.detail).trim().to_owned();
        tracing::error!(
            channel.id = %channel.id, vendor.code = %error.vendor_code,
            "channel paused: its credentials or account need the administrator"
        );
        let state = ChannelState::Paused(reason);
        if let Err(error) = self.pipeline.storage.set_channel_state(&channel.id, &state, None).await {
            tracing::error!(%error, "the pause could not be stored");
        }
        self.pipeline.scheduler.hold(self.queue.clone(), Hold::Paused);
    }

    /// Nobody knows how this send ended. The echo may have come; the provider's rule decides otherwise.
    async fn look_for_echo(
        &self,
        queued: Queued,
        record: &MessageRecord,
        channel: &Channel,
        provider: &Arc<dyn Provider>,
    ) {
        let now = self.now();
        let job = &queued.job;
        let rule = provider.spec().unclear;
        let started = job.started.unwrap_or(now);
        let wait = self.pipeline.echo_wait(rule.wait, started);
        let waited = now.since(started);
        let settlement = |fate, news| Settlement { job: job.id.clone(), fate, news, attempt: None };
        let keep =
            |state, due, reason: &str| Fate::Keep { state, due, tries: job.tries, reason: Some(reason.to_owned()) };
        if record.state != MessageState::Queued && record.state != MessageState::Undecided {
            self.settle(&queued, settlement(Fate::Done, None)).await;
            return;
        }
        let undecided = || {
            job.message().map(|id| MessageNews {
                failure: Some(Failure::new(ErrorCode::Undecided)),
                ..MessageNews::new(id, MessageState::Undecided, now)
            })
        };
        if job.state == JobState::Started {
            let fate = keep(JobState::Unclear, now.plus(FIRST_LOOK), GivenUp::ProcessEnded.stored());
            self.settle(&queued, settlement(fate, undecided())).await;
            return;
        }
        let reason = job.reason.clone().unwrap_or_else(|| GivenUp::ProcessEnded.stored().to_owned());
        if waited < wait {
            let due = now.plus(Millis(NEXT_LOOK.0.min(wait.0 - waited.0).max(100)));
            self.settle(&queued, settlement(keep(JobState::Unclear, due, &reason), None)).await;
            return;
        }
        let may_have_missed = match GivenUp::read(&reason).0 {
            GivenUp::ProcessEnded | GivenUp::Gateway => true,
            GivenUp::Expired | GivenUp::NoAnswer | GivenUp::Lost | GivenUp::Refused => false,
        };
        if may_have_missed && self.echo_works_since(channel, started).await {
            tracing::info!(job.id = %job.id, reason, "no echo though later ones came: it never arrived and is sent now");
            self.settle(&queued, settlement(keep(JobState::Ready, now, &reason), None)).await;
            return;
        }
        if may_have_missed && waited < rule.give_up {
            let due = now.plus(Millis(NEXT_LOOK.0.min(wait.0).max(100)));
            self.settle(&queued, settlement(keep(JobState::Unclear, due, &reason), None)).await;
            return;
        }
        tracing::warn!(job.id = %job.id, reason, "no echo in time: a person must look before it is sent again");
        self.settle(&queued, settlement(keep(JobState::Dead, now, &reason), undecided())).await;
    }

    /// True when an echo has come for a message that was accepted after this send began.
    async fn echo_works_since(&self, channel: &Channel, started: Timestamp) -> bool {
        match self.pipeline.storage.channel_echo(&channel.id).await {
            Ok(echo) => echo.is_some_and(|at| at > started),
            Err(error) => {
                tracing::warn!(%error, "the channel's echo could not be looked up");
                false
            }
        }
    }

    /// One line per attempt: ids and classes, never a phone or a text.
    fn log_attempt(&self, queued: &Queued, channel: &Channel, settlement: &Settlement, took: Millis) {
        let attempt = settlement.attempt.as_ref();
        let outcome = attempt.map_or("", |attempt| attempt.outcome.as_str());
        let vendor_code = attempt.map_or("", |attempt| attempt.vendor_code.as_str());
        crate::telemetry::attempt(queued.job.kind.code(), &channel.provider, outcome, took);
        tracing::info!(
            job.id = %queued.job.id, job.attempt = queued.job.tries + 1, channel.id = %channel.id,
            provider = %channel.provider, outcome, vendor.code = vendor_code, duration_ms = took.0, "attempt"
        );
    }
}

/// Too late: the message fails and its job becomes a dead letter that a person may redrive.
fn expired(queued: &Queued, now: Timestamp, last_error: &str) -> Settlement {
    let failure = Failure::with(ErrorCode::Expired, last_error);
    let reason = GivenUp::Expired.with(last_error);
    let fate = Fate::Keep { state: JobState::Dead, due: now, tries: queued.job.tries, reason: Some(reason) };
    Settlement { fate, ..failed(queued, now, failure) }
}
