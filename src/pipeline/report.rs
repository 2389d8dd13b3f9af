//! Calls to a CRM: comments and results in batches, cards read, registrations compared.

use std::collections::HashMap;
use std::sync::Arc;

use super::Pipeline;
use super::chats;
use super::checks;
use super::files;
use super::guards;
use super::intake;
use super::lanes::Group;
use super::mailbox::{Finished, Hold};
use super::mirrors;
use super::policy::{Decision, decide};
use super::senders;
use super::tags;
use crate::crm::{Crm, TokenStore as _};
use crate::domain::chat::{ChatPost, ChatVerdict};
use crate::domain::command::{Command, CommandBody};
use crate::domain::effect::{
    ActionResult, Applied, CommentEffect, CommentView, CrmEffect, CrmError, Planned, PortalTrouble, Reach,
    RecipientResult, ReplyEffect,
};
use crate::domain::ids::{CommandId, MessageId, PortalId};
use crate::domain::job::{GIVEN, Job, JobKind, JobState, QueueKey};
use crate::domain::message::{Content, MessageRecord, Silence};
use crate::domain::outcome::{ErrorCode, Failure, FailureClass};
use crate::domain::portal::{Portal, PortalState};
use crate::domain::status::MessageState;
use crate::domain::text::seed_of;
use crate::domain::time::{Millis, Timestamp};
use crate::lease;
use crate::storage::StorageError;
use crate::storage::commands::StoredCommand;
use crate::storage::effects::EffectSettlement;
use crate::storage::settle::{Fate, Start};
use crate::storage::writer::Queued;

/// Effects are given up after so many counted tries: about three days with the default plan.
const TRIES_MAX: u32 = 40;

/// Runs jobs of one portal that go into one call.
pub(super) async fn run(pipeline: &Arc<Pipeline>, queue: &QueueKey, group: Group, jobs: Vec<Queued>) {
    match group {
        Group::Commands => intake::run_with_cards(pipeline, queue, jobs).await,
        Group::Effects | Group::Chats | Group::Mirrors | Group::Reconcile | Group::Sends => {
            let QueueKey::Crm(portal_id) = queue else { return };
            let ended = match run_effects(pipeline, portal_id, &jobs).await {
                Ok(ended) => ended,
                Err(error) => {
                    tracing::warn!(%error, portal.id = %portal_id, "effects could not be run");
                    jobs.iter()
                        .map(|queued| Ended::again(&queued.job, pipeline.clock.now().plus(Millis::seconds(1))))
                        .collect()
                }
            };
            settle(pipeline, queue, jobs, ended).await;
        }
    }
}

/// How often work that waits for a person is looked at, when its portal is held for it …
const HELD_LOOK: Millis = Millis::seconds(1);
/// … and when nothing is.
const TROUBLE_LOOK: Millis = Millis::seconds(30);

/// When a client's message whose file could not go with this call is looked at again.
const FILE_LOOK: Millis = Millis::seconds(2);

/// How long a call to a CRM whose answer never came may still be carried out there.
const DOUBT_REST: Millis = Millis::seconds(10);

/// How long a CRM that no longer listens to our address is left alone before one call asks again: what it asks for
/// within these bounds, or the middle one.
const ADDRESS_REST_MIN: Millis = Millis::minutes(1);
const ADDRESS_REST: Millis = Millis::minutes(10);
const ADDRESS_REST_MAX: Millis = Millis::hours(1);

/// How one job ended.
struct Ended {
    settlement: Option<EffectSettlement>,
    again: Option<(JobState, Timestamp, u32)>,
    error: Option<CrmError>,
}

impl Ended {
    fn done(pipeline: &Pipeline, job: &Job, revision: i64) -> Self {
        let settlement = ended_with(pipeline, job, revision, Fate::Done);
        Self { settlement: Some(settlement), again: None, error: None }
    }

    /// How it ended cannot be stored: what may stand in the CRM by now is looked for before it is done again.
    fn in_doubt(job: &Job, due: Timestamp) -> Self {
        let state = match job.kind {
            JobKind::Comment | JobKind::Chat => JobState::Unclear,
            JobKind::Command | JobKind::Send | JobKind::Reply | JobKind::Reconcile => job.state,
        };
        Self { settlement: None, again: Some((state, due, job.tries)), error: None }
    }

    /// Nothing was tried; later, without a trace.
    fn again(job: &Job, due: Timestamp) -> Self {
        Self { settlement: None, again: Some((job.state, due, job.tries)), error: None }
    }
}

fn ended_with(pipeline: &Pipeline, job: &Job, revision: i64, fate: Fate) -> EffectSettlement {
    let worker = pipeline.worker.clone();
    EffectSettlement { job: job.id.clone(), worker, revision, fate, comment: None, replied: None, shown: None }
}

async fn settle(pipeline: &Arc<Pipeline>, queue: &QueueKey, jobs: Vec<Queued>, mut ended: Vec<Ended>) {
    let settlements: Vec<EffectSettlement> = ended.iter().filter_map(|end| end.settlement.clone()).collect();
    let mut wait = Millis(100);
    while !settlements.is_empty() {
        match pipeline.storage.settle_effects(settlements.clone()).await {
            Ok(()) => break,
            Err(StorageError::Unavailable(error) | StorageError::Clash(error)) => {
                tracing::warn!(error, "how effects ended is not stored yet");
                tokio::time::sleep(wait.to_duration()).await;
                wait = Millis((wait.0 * 2).min(5_000));
            }
            Err(error) => {
                tracing::error!(%error, "how effects ended could not be stored");
                let due = pipeline.clock.now().plus(TROUBLE_LOOK);
                for (queued, end) in jobs.iter().zip(&mut ended).filter(|(_, end)| end.settlement.is_some()) {
                    *end = Ended::in_doubt(&queued.job, due);
                }
                break;
            }
        }
    }
    hold_if_all_wait(pipeline, queue, &ended);
    let troubles = |e: &&CrmError| e.portal != PortalTrouble::None || e.reach == Reach::Address;
    if let Some(error) = ended.iter().filter_map(|end| end.error.as_ref()).find(troubles) {
        note_trouble(pipeline, queue, error).await;
    }
    for (queued, end) in jobs.into_iter().zip(ended) {
        let (lane, id) = (queued.job.lane.clone(), queued.job.id.clone());
        let reason = end.settlement.and_then(|settlement| match settlement.fate {
            Fate::Keep { reason, .. } => reason,
            Fate::Done => None,
        });
        let again = end.again.map(|(state, due, tries)| {
            let mut next = queued;
            next.job.reason = reason.or(next.job.reason);
            next.job.state = state;
            next.job.due = due;
            next.job.tries = tries;
            next
        });
        pipeline.scheduler.finished(Finished { queue: queue.clone(), lane, id, again });
    }
}

/// When the whole call failed for a passing reason, the portal as a whole waits, not each effect by itself. An entry
/// that fails alone delays nobody else.
fn hold_if_all_wait(pipeline: &Pipeline, queue: &QueueKey, ended: &[Ended]) {
    let passing = |end: &Ended| {
        end.error.as_ref().is_some_and(|error| {
            error.reach != Reach::Entry
                && matches!(
                    error.class,
                    FailureClass::Throttled | FailureClass::Unavailable | FailureClass::Indeterminate
                )
        })
    };
    let earliest = ended.iter().filter_map(|end| end.again).map(|(_, due, _)| due).min();
    if let Some(due) = earliest.filter(|_| ended.iter().all(passing)) {
        pipeline.scheduler.hold(queue.clone(), Hold::Until(due));
    }
}

/// What a failed call means for the portal as a whole, and for every other portal of its CRM.
pub(super) async fn note_trouble(pipeline: &Pipeline, queue: &QueueKey, error: &CrmError) {
    let QueueKey::Crm(portal) = queue else { return };
    if error.reach == Reach::Address {
        let asked = error.retry_after.unwrap_or(ADDRESS_REST);
        let rest = Millis(asked.0.clamp(ADDRESS_REST_MIN.0, ADDRESS_REST_MAX.0));
        pipeline.scheduler.hold(queue.clone(), Hold::Address(pipeline.clock.now().plus(rest)));
    }
    let state = match error.portal {
        PortalTrouble::None => return,
        PortalTrouble::NeedsAuth => PortalState::NeedsAuth,
        PortalTrouble::Blocked => PortalState::Blocked,
        PortalTrouble::Uninstalled => PortalState::Uninstalled,
    };
    tracing::error!(portal.id = %portal, code = %error.code, state = state.code(), "the portal needs its administrator");
    if let Err(error) = pipeline.storage.set_portal_state(portal, state, &error.to_string()).await {
        tracing::error!(%error, "the portal's state could not be stored");
    }
    if error.code == "no_tokens" {
        revive_if_offered(pipeline, portal).await;
    }
    pipeline.scheduler.hold(queue.clone(), Hold::Paused);
}

/// When a job that met trouble only a person can mend is looked at again. A portal in trouble is held as a whole, so its
/// jobs go on as soon as it is mended; trouble of ours (an application that is no longer configured) has nobody to hold
/// it, so it must not spin.
pub(super) fn trouble_look(error: &CrmError) -> Millis {
    if error.portal == PortalTrouble::None { TROUBLE_LOOK } else { HELD_LOOK }
}

/// A robot's call may have brought fresh tokens while the old ones were found dead; nothing else would wake the portal.
async fn revive_if_offered(pipeline: &Pipeline, portal: &PortalId) {
    let revived = match pipeline.storage.load_tokens(portal).await {
        Ok(pairs) if pairs.is_empty() => return,
        Ok(_) => pipeline.storage.revive_portal(portal, None).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.0),
    };
    match revived {
        Ok(_) => tracing::info!(portal.id = %portal, "fresh tokens came while the old ones died"),
        Err(error) => tracing::warn!(error, portal.id = %portal, "the portal could not be revived"),
    }
}

async fn run_effects(
    pipeline: &Arc<Pipeline>,
    portal_id: &PortalId,
    jobs: &[Queued],
) -> Result<Vec<Ended>, StorageError> {
    let gone = || StorageError::Broken(format!("portal {portal_id} or its CRM is gone"));
    let known = pipeline.storage.portal(portal_id).await?.ok_or_else(gone)?;
    let crm = Arc::clone(pipeline.crm(known.portal.crm).ok_or_else(gone)?);
    if jobs.iter().all(|queued| queued.job.kind == JobKind::Reconcile) {
        let mut ended = Vec::new();
        for queued in jobs {
            ended.push(reconcile(pipeline, &crm, &known.portal, &queued.job).await?);
        }
        return Ok(ended);
    }
    let batch = Batch::load(pipeline, &known.portal, jobs).await?;
    let now = pipeline.clock.now();
    let rests: Vec<Option<Timestamp>> = jobs.iter().map(|queued| batch.rests(pipeline, &queued.job, now)).collect();
    let effects: Vec<Option<CrmEffect>> = {
        let mut effects = Vec::with_capacity(jobs.len());
        for (queued, rest) in jobs.iter().zip(&rests) {
            effects.push(if rest.is_none() { batch.effect(pipeline, &queued.job).await? } else { None });
        }
        effects
    };
    // Taken before anything is marked: a process that stood still meanwhile must not write what another has written.
    let pass = pipeline.lease.pass();
    let begun = begin_additions(pipeline, jobs, &effects).await?;
    let ready: Vec<CrmEffect> =
        effects.iter().zip(jobs).filter_map(|(effect, queued)| effect.clone().filter(|_| begun(&queued.job))).collect();
    mirrors::begin(pipeline, &crm, &known.portal, &ready).await?;
    let began = pipeline.clock.now();
    let answers =
        if ready.is_empty() { Vec::new() } else { lease::within(pass, crm.apply(&known.portal, &ready)).await };
    mirrors::note_refused(pipeline, &ready, &answers).await;
    let mut answers = answers.into_iter();
    let now = pipeline.clock.now();
    let took = now.since(began);
    let loses_replies = crm.spec().loses_replies;
    Ok(jobs
        .iter()
        .zip(effects)
        .zip(rests)
        .map(|((queued, effect), rest)| {
            let job = &queued.job;
            let revision = batch.revision(job);
            match effect {
                None => rest.map_or_else(|| Ended::done(pipeline, job, revision), |until| Ended::again(job, until)),
                Some(_) if !begun(job) => Ended::again(job, now.plus(Millis::seconds(1))),
                Some(effect) => match answers.next() {
                    Some(Ok(applied)) => {
                        log_attempt(job, portal_id, None, took);
                        succeeded(pipeline, job, revision, &effect, (applied, loses_replies), now)
                    }
                    Some(Err(error)) => {
                        log_attempt(job, portal_id, Some(&error), took);
                        failed(pipeline, job, revision, &effect, error, now)
                    }
                    None => Ended::again(job, now.plus(Millis::seconds(1))),
                },
            }
        })
        .collect())
}

/// One line per attempt; the time is that of the call, which carries many effects.
fn log_attempt(job: &Job, portal: &PortalId, error: Option<&CrmError>, took: Millis) {
    tracing::info!(
        job.id = %job.id, job.kind = job.kind.code(), job.attempt = job.tries + 1, portal.id = %portal,
        outcome = error.map_or("ok", |error| error.class.code()),
        vendor.code = error.map_or("", |error| error.code.as_str()), duration_ms = took.0, "attempt"
    );
}

/// What must not be done twice (a new comment, a client's message in a chat) is marked as begun first.
async fn begin_additions(
    pipeline: &Pipeline,
    jobs: &[Queued],
    effects: &[Option<CrmEffect>],
) -> Result<impl Fn(&Job) -> bool + use<>, StorageError> {
    let adds: Vec<String> = jobs
        .iter()
        .zip(effects)
        .filter(|(_, effect)| effect.as_ref().is_some_and(CrmEffect::adds))
        .map(|(queued, _)| queued.job.id.clone())
        .collect();
    let begun = if adds.is_empty() {
        std::collections::HashSet::new()
    } else {
        let (worker, run) = (pipeline.worker.clone(), pipeline.worker.to_string());
        let start = Start { jobs: adds.clone(), worker, run, again: true };
        pipeline.storage.start(start).await?
    };
    let refused: std::collections::HashSet<String> = adds.into_iter().filter(|id| !begun.contains(id)).collect();
    Ok(move |job: &Job| !refused.contains(&job.id))
}

fn succeeded(
    pipeline: &Pipeline,
    job: &Job,
    revision: i64,
    effect: &CrmEffect,
    (applied, loses_replies): (Applied, bool),
    now: Timestamp,
) -> Ended {
    let mut ended = Ended::done(pipeline, job, revision);
    let Some(settlement) = &mut ended.settlement else { return ended };
    match (effect, applied) {
        (CrmEffect::Comment(comment), Applied::Comment(id)) => {
            settlement.comment = Some((comment.view.message.clone(), id));
        }
        (CrmEffect::Comment(_), Applied::Done | Applied::Shown(_))
        | (CrmEffect::Post(_), Applied::Done | Applied::Comment(_)) => {}
        (CrmEffect::Post(post), Applied::Shown(number)) => settlement.shown = Some((post.chat.clone(), number)),
        (CrmEffect::Verdict(_), _) => settlement.replied = job.command(),
        (CrmEffect::Reply(_), Applied::Comment(_) | Applied::Shown(_) | Applied::Done) => {
            settlement.replied = job.command();
            let repeat = pipeline.settings.repeat_reply;
            if loses_replies && repeat.0 > 0 && job.tries == 0 {
                let due = now.plus(repeat);
                let reason = Some(GIVEN.to_owned());
                settlement.fate = Fate::Keep { state: JobState::Ready, due, tries: 1, reason };
                ended.again = Some((JobState::Ready, due, 1));
            }
        }
    }
    if ended.again.is_none() {
        crate::telemetry::settled(job.kind.code(), "", "ok");
    }
    ended
}

fn failed(pipeline: &Pipeline, job: &Job, revision: i64, effect: &CrmEffect, error: CrmError, now: Timestamp) -> Ended {
    let adds = effect.adds();
    let keep = |state, due, tries, reason: Option<String>| {
        ended_with(pipeline, job, revision, Fate::Keep { state, due, tries, reason })
    };
    // What an earlier try may have done stays in doubt, however surely this try did nothing.
    let doubtful = effect.is_doubtful();
    // An unclear answer to something repeatable is simply repeated; an unclear addition is looked for first.
    let unclear = error.class == FailureClass::Indeterminate;
    let class = if unclear { FailureClass::Unavailable } else { error.class };
    let plan = &pipeline.settings.retries;
    let decision = decide(plan, class, error.retry_after, job.tries, None, now, seed_of(&job.id));
    let (settlement, again) = match decision {
        Decision::Again { due, counts } if job.tries < TRIES_MAX => {
            let state = if (unclear && adds) || doubtful { JobState::Unclear } else { JobState::Ready };
            let tries = job.tries + u32::from(counts);
            (keep(state, due, tries, job.reason.clone()), Some((state, due, tries)))
        }
        Decision::Pause => {
            let due = now.plus(trouble_look(&error));
            let state = if doubtful { JobState::Unclear } else { JobState::Ready };
            (keep(state, due, job.tries, job.reason.clone()), Some((state, due, job.tries)))
        }
        Decision::Settle | Decision::Expire | Decision::Unclear | Decision::Again { .. } => {
            if matches!(effect, CrmEffect::Post(_)) {
                tracing::error!(job.id = %job.id, vendor.code = %error.code, "operators do not see what a client wrote");
            }
            crate::telemetry::settled(job.kind.code(), "", error.class.code());
            (keep(JobState::Dead, now, job.tries, Some(error.to_string())), None)
        }
    };
    Ended { settlement: Some(settlement), again, error: Some(error) }
}

async fn reconcile(pipeline: &Pipeline, crm: &Arc<dyn Crm>, portal: &Portal, job: &Job) -> Result<Ended, StorageError> {
    let revision = pipeline
        .storage
        .jobs_now(std::slice::from_ref(&job.id))
        .await?
        .first()
        .map_or(job.revision, |now| now.revision);
    let lines = pipeline.storage.lines_of_portal(&portal.id).await?;
    let lines: Vec<(String, String)> = lines.iter().map(|line| (line.id.to_string(), line.name.clone())).collect();
    let now = pipeline.clock.now();
    let compared = match crm.reconcile(portal, &lines).await {
        Ok(()) => match chats::reconcile(pipeline, crm, portal).await? {
            Ok(()) => senders::reconcile(pipeline, crm, portal).await?,
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    Ok(match compared {
        Ok(()) => {
            crate::telemetry::settled(job.kind.code(), "", "ok");
            Ended::done(pipeline, job, revision)
        }
        Err(error) => {
            tracing::warn!(%error, portal.id = %portal.id, "registrations could not be compared");
            let nothing = CrmEffect::Reply(Box::new(ReplyEffect {
                token: crate::domain::ids::ReplyToken(String::new()),
                result: ActionResult::default(),
            }));
            failed(pipeline, job, revision, &nothing, error, now)
        }
    })
}

/// What the effects of one call are made of.
struct Batch {
    jobs: HashMap<String, Job>,
    messages: HashMap<MessageId, MessageRecord>,
    commands: HashMap<CommandId, StoredCommand>,
    of_command: HashMap<CommandId, Vec<MessageRecord>>,
    /// `None` for those that nobody can be named the author of yet.
    posts: HashMap<MessageId, Option<ChatPost>>,
    /// Posts whose file goes with a later call.
    later: Vec<MessageId>,
    /// What operators are told of their messages.
    troubles: HashMap<MessageId, ChatVerdict>,
}

impl Batch {
    /// Reads the jobs before the messages: a request that comes between finds a larger revision and is run again.
    async fn load(pipeline: &Pipeline, portal: &Portal, jobs: &[Queued]) -> Result<Self, StorageError> {
        let ids: Vec<String> = jobs.iter().map(|queued| queued.job.id.clone()).collect();
        let of_kind = |kind: JobKind| jobs.iter().map(|queued| &queued.job).filter(move |job| job.kind == kind);
        let mut messages: Vec<MessageId> = of_kind(JobKind::Comment).filter_map(Job::message).collect();
        let commands: Vec<CommandId> = of_kind(JobKind::Reply).filter_map(Job::command).collect();
        let shown: Vec<MessageId> = of_kind(JobKind::Chat).filter_map(Job::message).collect();
        let now = pipeline.storage.jobs_now(&ids).await?;
        let commands_now = pipeline.storage.load_commands(&commands).await?;
        messages.extend(commands_now.values().filter_map(|stored| chats::echo_of(stored.command.as_ref().ok()?)));
        let records = pipeline.storage.load_messages(&messages).await?;
        let mut posts = mirrors::posts(pipeline, portal, &shown).await?;
        posts.extend(pipeline.storage.chat_posts(&shown).await?.into_iter().map(|(id, post)| (id, Some(post))));
        let rest: Vec<MessageId> = shown.into_iter().filter(|id| !posts.contains_key(id)).collect();
        let troubles = chats::troubles(pipeline, portal, &rest).await?;
        let tries = of_kind(JobKind::Chat).filter_map(|job| Some((job.message()?, job.tries))).collect();
        mirrors::quote(pipeline, &mut posts).await?;
        let later = files::attach(pipeline, &mut posts, &tries).await?;
        Ok(Self {
            jobs: now.into_iter().map(|job| (job.id.clone(), job)).collect(),
            messages: records.into_iter().map(|record| (record.id.clone(), record)).collect(),
            commands: commands_now,
            of_command: pipeline.storage.messages_of_commands(&commands).await?,
            posts,
            later,
            troubles,
        })
    }

    fn revision(&self, job: &Job) -> i64 {
        self.jobs.get(&job.id).map_or(job.revision, |now| now.revision)
    }

    /// Until when a job must rest. An addition in doubt is not looked for at once: a call that was cut may be carried out by
    /// a slow portal after we have looked, and what it adds would be there twice. What has no author yet waits for one.
    fn rests(&self, pipeline: &Pipeline, job: &Job, now: Timestamp) -> Option<Timestamp> {
        let known = self.jobs.get(&job.id).filter(|_| matches!(job.kind, JobKind::Comment | JobKind::Chat))?;
        if job.message().is_some_and(|id| matches!(self.posts.get(&id), Some(None))) {
            return Some(now.plus(TROUBLE_LOOK));
        }
        if job.message().is_some_and(|id| self.later.contains(&id)) {
            return Some(now.plus(FILE_LOOK));
        }
        let begun = known.started.filter(|_| matches!(known.state, JobState::Started | JobState::Unclear))?;
        let commented = job.message().and_then(|id| self.messages.get(&id)).is_some_and(|m| m.comment.is_some());
        let until = begun.plus(pipeline.settings.unclear_wait.unwrap_or(DOUBT_REST));
        Some(until).filter(|until| *until > now && !commented)
    }

    /// What to tell the CRM for a job; `None` when there is nothing to tell any more.
    async fn effect(&self, pipeline: &Pipeline, job: &Job) -> Result<Option<CrmEffect>, StorageError> {
        let Some(now) = self.jobs.get(&job.id) else { return Ok(None) };
        match job.kind {
            JobKind::Chat => {
                if let Some(verdict) = job.message().and_then(|id| self.troubles.get(&id)) {
                    return Ok(Some(CrmEffect::Verdict(Box::new(verdict.clone()))));
                }
                let Some(Some(post)) = job.message().and_then(|id| self.posts.get(&id)) else { return Ok(None) };
                let post = ChatPost { maybe_shown: in_doubt(job, now), ..post.clone() };
                Ok(Some(CrmEffect::Post(Box::new(post))))
            }
            JobKind::Comment => {
                let Some(record) = job.message().and_then(|id| self.messages.get(&id)) else { return Ok(None) };
                let Some(card) = record.card else { return Ok(None) };
                let maybe_written = record.comment.is_none() && in_doubt(job, now);
                let view = view(pipeline, record).await?;
                let effect = CommentEffect { card, existing: record.comment.clone(), maybe_written, view };
                Ok(Some(CrmEffect::Comment(Box::new(effect))))
            }
            JobKind::Reply => {
                let Some(id) = job.command() else { return Ok(None) };
                let Some(stored) = self.commands.get(&id) else { return Ok(None) };
                let Ok(command) = &stored.command else { return Ok(None) };
                let Some(reply) = &command.reply else { return Ok(None) };
                let messages = self.of_command.get(&id).map_or(&[][..], Vec::as_slice);
                if let CommandBody::Answer(answer) = &command.body {
                    let echoed = answer.echo_of.as_ref().and_then(|of| self.messages.get(of));
                    let messages = echoed.map_or(messages, std::slice::from_ref);
                    let verdict = chats::verdict(answer, messages, pipeline.clock.now());
                    return Ok(Some(CrmEffect::Verdict(Box::new(verdict))));
                }
                let result = result(command, messages, stored.in_time);
                Ok(Some(CrmEffect::Reply(Box::new(ReplyEffect { token: reply.token.clone(), result }))))
            }
            JobKind::Command | JobKind::Send | JobKind::Reconcile => Ok(None),
        }
    }
}

/// True when an earlier run may have done it without our hearing of it.
fn in_doubt(job: &Job, now: &Job) -> bool {
    matches!(job.state, JobState::Unclear | JobState::Started) || now.state != JobState::Ready
}

async fn view(pipeline: &Pipeline, record: &MessageRecord) -> Result<CommentView, StorageError> {
    let channel = match &record.channel {
        Some(id) => pipeline.storage.find_channel(id).await?,
        None => None,
    };
    let spec = channel.as_ref().and_then(|channel| pipeline.provider_of(channel)).map(|provider| provider.spec());
    let messenger = spec.map(|spec| spec.messenger);
    let template = match (&record.draft.content, &record.draft.fallback) {
        (Content::Template(call), _) => Some(call.template.label()),
        (Content::Text { .. } | Content::Media { .. }, Some(call)) if record.used_fallback => {
            Some(call.template.label())
        }
        (Content::Text { .. } | Content::Media { .. } | Content::Deed(_), Some(_) | None) => None,
    };
    Ok(CommentView {
        message: record.id.clone(),
        messenger,
        channel: channel.map(|channel| channel.name.clone()).unwrap_or_default(),
        peer: record.peer.clone(),
        excerpt: record.draft.content.excerpt(),
        template,
        deed: match &record.draft.content {
            Content::Deed(deed) => Some(deed.clone()),
            Content::Text { .. } | Content::Media { .. } | Content::Template(_) => None,
        },
        state: record.state,
        at: since(record),
        failure: record.failure.clone(),
        vendor_code: record.vendor_code.clone(),
        silence: record.silence,
        receipts: spec.is_none_or(|spec| spec.silence.is_some()),
        silent_for: record.times.silent.map_or(Millis(0), |told| told.since(record.times.entered)),
        responsible: record.responsible.clone(),
        planned: planned(record, pipeline.clock.now()),
    })
}

/// When a message leaves that waits for the end of quiet hours, or why it does not.
fn planned(record: &MessageRecord, now: Timestamp) -> Option<Planned> {
    let quiet = record.draft.quiet.as_ref()?;
    let (at, too_late) = match record.state {
        MessageState::Queued => (guards::quiet_until(record, now)?, false),
        MessageState::Failed => (quiet.too_late?, true),
        MessageState::Undecided
        | MessageState::Accepted
        | MessageState::Sent
        | MessageState::Delivered
        | MessageState::Read
        | MessageState::Cancelled => return None,
    };
    Some(Planned { at, zone: quiet.zone.clone(), of_client: quiet.of_client, too_late })
}

/// Since when a message is in its state.
fn since(record: &MessageRecord) -> Timestamp {
    let times = &record.times;
    let at = match record.state {
        MessageState::Queued | MessageState::Undecided => None,
        MessageState::Accepted => times.accepted,
        MessageState::Sent => times.sent,
        MessageState::Delivered => times.delivered,
        MessageState::Read => times.read,
        MessageState::Failed | MessageState::Cancelled => times.failed,
    };
    at.unwrap_or(times.created)
}

/// The result of a command as its messages stand.
fn result(command: &Command, messages: &[MessageRecord], in_time: bool) -> ActionResult {
    let waited_for = command.reply.as_ref().map_or(MessageState::Accepted, |reply| reply.wait.state());
    let mut recipients: Vec<RecipientResult> = Vec::new();
    for record in messages {
        let outcome = outcome_of(record, waited_for);
        match recipients.iter_mut().find(|known| known.chat_id == record.peer) {
            // Several messages to one person are one result: the first failure counts.
            Some(known) if known.outcome.is_ok() => known.outcome = outcome,
            Some(_) => {}
            None => recipients.push(RecipientResult { chat_id: record.peer.clone(), outcome }),
        }
    }
    let delivered: Option<Vec<Timestamp>> =
        messages.iter().map(|record| record.times.delivered.or(record.times.read)).collect();
    ActionResult {
        error: match recipients.iter().find_map(|recipient| recipient.outcome.as_ref().err()) {
            // The time was over before anybody was looked up: the card could not be read.
            None if recipients.is_empty() => Some(ErrorCode::StillQueued),
            found => found.map(|failure| failure.code),
        },
        recipients,
        in_time,
        message_ids: messages.iter().filter_map(|record| record.provider_id.clone()).collect(),
        delivered_at: delivered.and_then(|times| times.into_iter().max()),
        sends_nothing: command.body.sends_nothing(),
        own: match &command.body {
            CommandBody::CheckPhone(_) => checks::results(messages),
            CommandBody::TagDialog(_) => tags::results(messages),
            CommandBody::SendMessage(_)
            | CommandBody::RenameChat(_)
            | CommandBody::Answer(_)
            | CommandBody::Invalid { .. } => Vec::new(),
        },
    }
}

/// Success is: taken by the provider and not failed. What was waited for longer and did not come says so.
fn outcome_of(record: &MessageRecord, waited_for: MessageState) -> Result<(), Failure> {
    match record.state {
        MessageState::Failed | MessageState::Cancelled => {
            Err(record.failure.clone().unwrap_or_else(|| Failure::new(ErrorCode::Cancelled)))
        }
        MessageState::Undecided => Err(Failure::new(ErrorCode::Undecided)),
        MessageState::Queued => Err(record.failure.clone().unwrap_or_else(|| Failure::new(ErrorCode::StillQueued))),
        MessageState::Accepted | MessageState::Sent | MessageState::Delivered | MessageState::Read => {
            // What was never going to be confirmed is not missed.
            let was_last = record.silence == Some(Silence::Closed) && record.times.silent.is_none();
            if record.state.rank() >= waited_for.rank() || was_last {
                Ok(())
            } else {
                Err(Failure::with(ErrorCode::NotConfirmed, record.state.code()))
            }
        }
    }
}
