//! Sends: from the outbox to the provider, and what its answer means.
//!
//! A send is marked as begun, durably, before the request leaves. So after a crash, or an answer that never came,
//! nobody has to guess: the message is *undecided* until the provider's echo tells, and it is sent again only where
//! the absence of an echo proves that it never arrived (`docs/adr/0004`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tracing::Instrument as _;

use super::Pipeline;
use super::addresses;
use super::guards;
use super::limits::Turnstile;
use super::mailbox::{Finished, Hold};
use super::policy::{Decision, decide};
use super::preflight::{self, Ready, Refusal};
use crate::domain::channel::{Channel, ChannelState};
use crate::domain::ids::MessageId;
use crate::domain::job::{GivenUp, JobState, QueueKey};
use crate::domain::message::MessageRecord;
use crate::domain::outcome::{Accepted, ErrorCode, Failure, FailureClass, SendError, ThrottleScope};
use crate::domain::status::MessageState;
use crate::domain::text::seed_of;
use crate::domain::time::{Millis, Timestamp};
use crate::lease;
use crate::providers::Provider;
use crate::storage::StorageError;
use crate::storage::messages::{Attempt, MessageNews};
use crate::storage::settle::{Fate, Right, Settlement, Start};
use crate::storage::writer::{Queued, Work};
use crate::telemetry::SPANS;

/// First look for the echo of an unclear send; most come within the second.
const FIRST_LOOK: Millis = Millis::seconds(1);
/// Later looks.
const NEXT_LOOK: Millis = Millis::seconds(10);
/// When a send that could not be begun is tried again.
const NOT_YET: Millis = Millis(250);
/// Most sends that are marked as begun in one step.
const CHUNK: usize = 128;
/// From this try on a person at the card is told that it is late.
const LATE_TRY: u32 = 2;

/// How fast the sends of one run may leave.
pub(super) struct Pace {
    /// Time between two of them; `None` when the channel has no limit.
    pub(super) spacing: Option<Duration>,
    /// Shared by all runs of the channel.
    pub(super) turnstile: Arc<Turnstile>,
}

/// Runs sends of one channel.
pub(super) async fn run(pipeline: &Arc<Pipeline>, queue: &QueueKey, jobs: Vec<Queued>, pace: &Pace) {
    let runs = Runs { pipeline, queue, pace, provider: "" };
    let QueueKey::Channel(channel_id) = queue else { return };
    let (channel, messages) = match load(pipeline, channel_id, &jobs).await {
        Ok((Some(channel), messages)) => (channel, messages),
        Ok((None, _)) => {
            for queued in jobs {
                runs.settle(&queued, runs.failed(&queued, Failure::new(ErrorCode::NoChannel))).await;
            }
            return;
        }
        Err(error) => {
            tracing::warn!(%error, "messages could not be read");
            jobs.into_iter().for_each(|queued| runs.again(queued, Millis::seconds(1)));
            return;
        }
    };
    let runs = Runs { provider: &channel.provider, ..runs };
    let Some(provider) = pipeline.provider_of(&channel).cloned() else {
        for queued in jobs {
            let failure = Failure::with(ErrorCode::NoChannel, channel.provider.clone());
            runs.settle(&queued, runs.failed(&queued, failure)).await;
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
    // What is ready leaves at once: a template that must be looked up first delays nobody else.
    let prepared = prepared.collect::<FuturesUnordered<_>>().ready_chunks(CHUNK);
    let sends = |ready: Vec<Option<(Queued, Ready)>>| {
        let ready = ready.into_iter().flatten().collect();
        runs.send_all(&channel, &provider, ready)
    };
    prepared.for_each_concurrent(None, sends).await;
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

/// What the steps of a run share.
#[derive(Clone, Copy)]
struct Runs<'a> {
    pipeline: &'a Arc<Pipeline>,
    queue: &'a QueueKey,
    pace: &'a Pace,
    /// Registry id; empty until the channel has been read.
    provider: &'a str,
}

impl Runs<'_> {
    fn now(&self) -> Timestamp {
        self.pipeline.clock.now()
    }

    /// A settlement of a job that this run has not begun.
    fn settlement(&self, queued: &Queued, fate: Fate, news: Option<MessageNews>) -> Settlement {
        let right = Right::Owner(self.pipeline.worker.clone(), queued.job.state);
        Settlement { job: queued.job.id.clone(), right, fate, news, attempt: None }
    }

    /// How a message's job fails before anything was sent.
    fn failed(&self, queued: &Queued, failure: Failure) -> Settlement {
        let news = queued
            .job
            .message()
            .map(|id| MessageNews { failure: Some(failure), ..MessageNews::new(id, MessageState::Failed, self.now()) });
        self.settlement(queued, Fate::Done, news)
    }

    /// Too late: the message fails and its job becomes a dead letter that a person may redrive.
    fn expired(&self, queued: &Queued, last_error: &str) -> Settlement {
        let failure = Failure::with(ErrorCode::Expired, last_error);
        let reason = GivenUp::Expired.with(last_error);
        let fate = Fate::Keep { state: JobState::Dead, due: self.now(), tries: queued.job.tries, reason: Some(reason) };
        Settlement { fate, ..self.failed(queued, failure) }
    }

    /// It would leave in the person's quiet hours: it waits until they end, or fails if that is too late.
    fn put_off(&self, queued: &Queued, end: Timestamp) -> Settlement {
        if queued.job.not_after.is_some_and(|limit| end > limit) {
            return self.expired(queued, "");
        }
        let news = queued.job.message().map(|id| MessageNews {
            failure: Some(Failure::new(ErrorCode::StillQueued)),
            ..MessageNews::new(id, MessageState::Queued, self.now())
        });
        let fate = Fate::Keep { state: JobState::Ready, due: end, tries: queued.job.tries, reason: None };
        self.settlement(queued, fate, news)
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
                Ok(()) => {
                    self.count(queued, &settlement);
                    break;
                }
                Err(error @ (StorageError::Broken(_) | StorageError::Config(_) | StorageError::Schema(_))) => {
                    tracing::error!(%error, job.id = %queued.job.id, "how a send ended could not be stored");
                    // The store has it as it was before, so its lane must not go on: what was begun is looked for.
                    let mut next = queued.clone();
                    next.work = Work::Stored;
                    next.job.due = self.now().plus(NEXT_LOOK);
                    if matches!(settlement.right, Right::Begun(_)) {
                        next.job.state = JobState::Started;
                    }
                    return self.finished(queued, Some(next));
                }
                Err(error @ (StorageError::Unavailable(_) | StorageError::Clash(_))) => {
                    tracing::warn!(%error, job.id = %queued.job.id, "how a send ended is not stored yet");
                    tokio::time::sleep(wait.to_duration()).await;
                    wait = Millis((wait.0 * 2).min(5_000));
                }
            }
        }
        self.finished(queued, again);
    }

    /// Counts a send that ended.
    fn count(&self, queued: &Queued, settlement: &Settlement) {
        let class = match (&settlement.fate, &settlement.attempt) {
            (Fate::Keep { state: JobState::Ready | JobState::Started | JobState::Unclear, .. }, _) => return,
            (Fate::Done | Fate::Keep { state: JobState::Dead, .. }, Some(attempt)) => attempt.outcome.as_str(),
            (Fate::Keep { state: JobState::Dead, .. }, None) => "given_up",
            (Fate::Done, None) if settlement.news.is_some() => "refused",
            (Fate::Done, None) => "over",
        };
        crate::telemetry::settled(queued.job.kind.code(), self.provider, class);
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
            self.settle(&queued, self.settlement(&queued, Fate::Done, None)).await;
            return None;
        };
        match queued.job.state {
            JobState::Started | JobState::Unclear if record.draft.change.is_some() => {
                // A change may be carried out twice, so how it ended does not matter; but it is no more urgent than others.
                let (tries, class) = (queued.job.tries, FailureClass::Unavailable);
                let seed = seed_of(&queued.job.id);
                let due = match decide(&self.pipeline.settings.retries, class, None, tries, None, now, seed) {
                    Decision::Again { due, .. } => due,
                    Decision::Settle | Decision::Pause | Decision::Expire | Decision::Unclear => now.plus(NEXT_LOOK),
                };
                let fate = Fate::Keep { state: JobState::Ready, due, tries: tries + 1, reason: None };
                self.settle(&queued, self.settlement(&queued, fate, None)).await;
                return None;
            }
            JobState::Started | JobState::Unclear => {
                self.look_for_echo(queued, &record, channel, provider).await;
                return None;
            }
            JobState::Ready | JobState::Dead => {}
        }
        if record.state != MessageState::Queued && record.state != MessageState::Undecided {
            self.settle(&queued, self.settlement(&queued, Fate::Done, None)).await;
            return None;
        }
        if queued.job.not_after.is_some_and(|limit| now > limit) {
            self.settle(&queued, self.expired(&queued, "")).await;
            return None;
        }
        if let Some(end) = guards::quiet_until(&record, now) {
            self.settle(&queued, self.put_off(&queued, end)).await;
            return None;
        }
        let last = last_inbound.get(&record.peer).copied();
        match preflight::prepare(self.pipeline, channel, provider, &record, last, now).await {
            Ok(ready) => Some((queued, ready)),
            Err(Refusal::Failed(failure)) => {
                self.settle(&queued, self.failed(&queued, failure)).await;
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
        // Taken before anything is marked: whatever happens from here on, what is not sent under it is not sent.
        let pass = self.pipeline.lease.pass();
        let run = format!("{}/{}", self.pipeline.worker, self.pipeline.ids.ulid());
        let start = Start {
            jobs: ready.iter().map(|(queued, _)| queued.job.id.clone()).collect(),
            worker: self.pipeline.worker.clone(),
            run: run.clone(),
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
        let (ready, refused): (Vec<_>, Vec<_>) =
            ready.into_iter().partition(|(queued, _)| begun.contains(&queued.job.id));
        let refused = refused.into_iter().map(|(queued, _)| queued).collect();
        let sends = ready.into_iter().map(|(queued, ready)| {
            let span = attempt_span(&queued);
            self.send(channel, provider, queued, ready, &run).instrument(span)
        });
        let sends = sends.collect::<FuturesUnordered<_>>().collect::<()>();
        tokio::join!(lease::within(pass, sends), self.not_begun(refused));
    }

    /// Withdrawn, somebody else's, or behind a message that another process took over and of which the next look brings
    /// news. What still lives keeps its lane waiting, or a later message would overtake it.
    async fn not_begun(&self, refused: Vec<Queued>) {
        if refused.is_empty() {
            return;
        }
        let ids: Vec<String> = refused.iter().map(|queued| queued.job.id.clone()).collect();
        let left = match self.pipeline.storage.jobs_now(&ids).await {
            Ok(left) => left,
            Err(error) => {
                tracing::warn!(%error, "sends that could not be begun could not be looked up");
                return refused.into_iter().for_each(|queued| self.again(queued, Millis::seconds(1)));
            }
        };
        for queued in refused {
            let living = left.iter().find(|job| job.id == queued.job.id && job.state != JobState::Dead);
            let again = living.map(|job| {
                let mut next = Queued { job: job.clone(), work: Work::Stored };
                next.job.due = self.now().plus(NOT_YET);
                next
            });
            self.finished(&queued, again);
        }
    }

    async fn send(&self, channel: &Channel, provider: &Arc<dyn Provider>, mut queued: Queued, ready: Ready, run: &str) {
        self.pace.turnstile.pass(self.pace.spacing).await;
        let began = self.now();
        queued.job.started = Some(began);
        let clock = Instant::now();
        let call = tracing::info_span!(
            target: SPANS, "provider.call", channel.id = %channel.id, provider = %channel.provider,
            message.id = %ready.message.id
        );
        let result = provider.send(channel, &ready.message).instrument(call).await;
        let took = Millis(i64::try_from(clock.elapsed().as_millis()).unwrap_or(i64::MAX));
        let mut settlement = match result {
            Ok(accepted) => {
                let last = provider.spec().silence.is_none();
                self.after_acceptance(&queued, accepted, last, ready.used_fallback, began, took)
            }
            Err(error) if error.class == FailureClass::Unavailable && withheld() => {
                // Nothing was tried: if the queue is still ours, it goes out under the new lease.
                let (due, tries) = (self.now().plus(NOT_YET), queued.job.tries);
                self.settlement(&queued, Fate::Keep { state: JobState::Ready, due, tries, reason: None }, None)
            }
            Err(error) => {
                let mut settlement = self.after_error(&queued, channel, error, began, took).await;
                if let Some(news) = &mut settlement.news {
                    news.used_fallback = ready.used_fallback;
                }
                settlement
            }
        };
        if let Some(news) = settlement.news.as_mut().filter(|_| ready.message.content.is_change()) {
            // The id is that of the message which was changed.
            news.provider_id = None;
        }
        settlement.right = Right::Begun(run.to_owned());
        if let Some(attempt) = &settlement.attempt {
            self.log_attempt(&queued, channel, attempt);
        }
        self.settle(&queued, settlement).await;
    }

    /// `last`: the vendor tells nothing more, so that a message it took counts as sent.
    fn after_acceptance(
        &self,
        queued: &Queued,
        accepted: Accepted,
        last: bool,
        used_fallback: bool,
        began: Timestamp,
        took: Millis,
    ) -> Settlement {
        let news = queued.job.message().map(|id| MessageNews {
            provider_id: Some(accepted.id),
            used_fallback,
            last,
            ..MessageNews::new(id, if last { MessageState::Sent } else { MessageState::Accepted }, self.now())
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
        Settlement { attempt: Some(attempt), ..self.settlement(queued, Fate::Done, news) }
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
                addresses::pause(self.pipeline, channel, &error).await;
                (keep(JobState::Ready, now, job.tries, None), told(MessageState::Queued, error.failure.clone()))
            }
            Decision::Again { due, counts } => {
                match (error.class, error.scope) {
                    (FailureClass::Throttled, ThrottleScope::Channel) => {
                        self.pipeline.scheduler.hold(self.queue.clone(), Hold::Throttled(due));
                    }
                    (FailureClass::Throttled, ThrottleScope::Peer) => {
                        self.pipeline.scheduler.peer_refused(self.queue.clone(), job.lane.clone());
                    }
                    (
                        FailureClass::Rejected
                        | FailureClass::NotPermitted
                        | FailureClass::Misconfigured
                        | FailureClass::Unavailable
                        | FailureClass::Indeterminate,
                        ThrottleScope::Channel | ThrottleScope::Peer,
                    ) => {}
                }
                let tries = job.tries + u32::from(counts);
                let late =
                    (counts && tries == LATE_TRY).then(|| told(MessageState::Queued, error.failure.clone())).flatten();
                (keep(JobState::Ready, due, tries, None), late)
            }
            Decision::Expire => {
                let settlement = self.expired(queued, &error.failure.detail);
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
        Settlement { attempt: Some(attempt), ..self.settlement(queued, fate, news) }
    }

    /// Nobody knows how this send ended. The echo may have come; the provider's rule decides otherwise.
    async fn look_for_echo(
        &self,
        queued: Queued,
        record: &MessageRecord,
        channel: &Channel,
        provider: &Arc<dyn Provider>,
    ) {
        let Some(queued) = self.as_it_stands(queued).await else { return };
        let now = self.now();
        let job = &queued.job;
        let rule = provider.spec().unclear;
        let started = job.started.unwrap_or(now);
        let wait = self.pipeline.echo_wait(rule.wait, started);
        let waited = now.since(started);
        let settlement = |fate, news| self.settlement(&queued, fate, news);
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
            GivenUp::Expired
            | GivenUp::NoAnswer
            | GivenUp::Lost
            | GivenUp::Held
            | GivenUp::Restored
            | GivenUp::Refused => false,
        };
        let proven = may_have_missed
            && !self.missed_by_others(rule.wait, started).await
            && self.echo_works_since(channel, started).await;
        if proven {
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

    /// The job as the database has it, if it is still unclear: whoever began it may have settled it although its queue is
    /// ours by now.
    async fn as_it_stands(&self, queued: Queued) -> Option<Queued> {
        let found = match self.pipeline.storage.jobs_now(std::slice::from_ref(&queued.job.id)).await {
            Ok(found) => found.into_iter().next().filter(|job| job.state != JobState::Dead),
            Err(error) => {
                tracing::warn!(%error, "an unclear send could not be looked up");
                self.again(queued, Millis::seconds(1));
                return None;
            }
        };
        let found = found.map(|job| Queued { job, work: queued.work.clone() });
        match &found {
            Some(stands) if matches!(stands.job.state, JobState::Started | JobState::Unclear) => found,
            Some(_) | None => {
                self.finished(&queued, found);
                None
            }
        }
    }

    /// The echo may have met another process that did not hear it, and comes again later.
    async fn missed_by_others(&self, rule: Millis, started: Timestamp) -> bool {
        match self.pipeline.heard_by_all().await {
            Ok(heard) => {
                let wait = self.pipeline.echo_wait_after(rule, started, heard.deaf);
                heard.silent || self.now().since(started) < wait
            }
            Err(error) => {
                tracing::warn!(%error, "what other processes have heard could not be looked up");
                true
            }
        }
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
    fn log_attempt(&self, queued: &Queued, channel: &Channel, attempt: &Attempt) {
        let (outcome, vendor_code) = (attempt.outcome.as_str(), attempt.vendor_code.as_str());
        crate::telemetry::attempt(&channel.provider, attempt.duration);
        tracing::info!(
            job.id = %queued.job.id, job.attempt = queued.job.tries + 1, channel.id = %channel.id,
            provider = %channel.provider, outcome, vendor.code = vendor_code, duration_ms = attempt.duration.0, "attempt"
        );
    }
}

/// A try is a trace of its own: what queued the job may have ended days ago.
fn attempt_span(queued: &Queued) -> tracing::Span {
    let job = &queued.job;
    tracing::info_span!(
        target: SPANS, parent: None, "job.attempt", job.id = %job.id, job.kind = job.kind.code(),
        job.attempt = job.tries + 1, lane.key = %job.queue
    )
}

/// True when the work was held back because the lease has ended, or might have been.
fn withheld() -> bool {
    lease::current().is_some_and(|pass| !pass.holds())
}
