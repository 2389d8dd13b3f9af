//! Every state ends (`docs/adr/0009`): a slow look at messages of which something is awaited. A provider's silence is told
//! on the card, what could not be sent in time is given up even when nobody runs its queue, and after the provider's
//! horizon nothing is awaited any more.
//!
//! No timer per message: one look every few seconds reads what an index holds ready, a bounded number of each portal,
//! so that an outage of a provider costs a portal no more than one batch a look.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Pipeline;
use crate::domain::capability::{SilenceRule, UnclearRule};
use crate::domain::hearing::Deaf;
use crate::domain::message::Silence;
use crate::domain::status::MessageState;
use crate::domain::time::{Millis, Timestamp};
use crate::providers;
use crate::storage::StorageError;
use crate::storage::watch::{Finding, Lookout, Verdict, Watched};

/// Longest and shortest time between two looks.
const LOOK_MAX: Millis = Millis::seconds(15);
const LOOK_MIN: Millis = Millis(500);
/// Whoever runs a queue goes first; this is the net below.
const GRACE: Millis = Millis::minutes(1);
/// For a channel whose provider this version does not know: nobody sends or hears anything there.
const UNKNOWN: (Option<SilenceRule>, UnclearRule) = (
    Some(SilenceRule { accepted: Millis::hours(1), sent: Millis::hours(1), horizon: HORIZON }),
    UnclearRule { wait: Millis::minutes(10), give_up: Millis::minutes(10) },
);
/// After this nothing is awaited of an unclear send whose provider tells nothing anyway.
const HORIZON: Millis = Millis::hours(7 * 24);

/// How long a provider may be silent, as configured; `None` is the provider's own rule ([`SilenceRule`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SilenceSettings {
    /// After it took a message.
    pub accepted: Option<Millis>,
    /// After `sent`.
    pub sent: Option<Millis>,
    /// Until nothing is awaited any more.
    pub closed: Option<Millis>,
}

impl SilenceSettings {
    /// How often it is worth looking.
    fn pace(self) -> Duration {
        let shortest = [self.accepted, self.sent, self.closed].into_iter().flatten().min().unwrap_or(LOOK_MAX);
        Millis((shortest.0 / 4).clamp(LOOK_MIN.0, LOOK_MAX.0)).to_duration()
    }
}

/// Looks until `stop`.
pub(super) async fn run(pipeline: Arc<Pipeline>, stop: CancellationToken) {
    let pace = pipeline.settings.silence.pace();
    loop {
        tokio::select! {
            () = tokio::time::sleep(pace) => {}
            () = stop.cancelled() => return,
        }
        let looked = match pipeline.storage.is_first_worker(&pipeline.worker).await {
            Ok(true) => look(&pipeline).await,
            Ok(false) => continue,
            Err(error) => Err(error),
        };
        match looked {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "messages waited for too long; their cards say so"),
            Err(error) => tracing::warn!(%error, "waiting messages could not be looked up"),
        }
    }
}

/// Looks once; tells how many messages something was found out about.
pub(crate) async fn look(pipeline: &Pipeline) -> Result<usize, StorageError> {
    let now = pipeline.clock.now();
    let heard = pipeline.heard_by_all().await?;
    let mut findings = Vec::new();
    for provider in pipeline.storage.channel_providers().await? {
        let rules = Rules::of(pipeline, provider, heard.deaf, now);
        let found = pipeline.storage.watched(&rules.lookouts()).await?;
        findings.extend(found.into_iter().filter_map(|message| rules.judge(message)));
    }
    let count = findings.len();
    if count > 0 {
        pipeline.storage.settle_watched(findings).await?;
    }
    Ok(count)
}

/// What holds for the channels of one provider at one moment.
struct Rules<'a> {
    pipeline: &'a Pipeline,
    provider: String,
    /// `None`: the provider tells nothing after it took a message, so its silence says nothing.
    silence: Option<SilenceRule>,
    horizon: Millis,
    unclear: UnclearRule,
    /// When processes may have missed what would have broken a silence.
    deaf: Deaf,
    now: Timestamp,
}

impl<'a> Rules<'a> {
    fn of(pipeline: &'a Pipeline, provider: String, deaf: Deaf, now: Timestamp) -> Self {
        let (own, unclear) =
            providers::find(&provider).map_or(UNKNOWN, |entry| (entry.spec.silence, entry.spec.unclear));
        let said = pipeline.settings.silence;
        let silence = own.map(|own| SilenceRule {
            accepted: said.accepted.unwrap_or(own.accepted),
            sent: said.sent.unwrap_or(own.sent),
            horizon: said.closed.unwrap_or(own.horizon),
        });
        let horizon = silence.map_or_else(|| said.closed.unwrap_or(HORIZON), |silence| silence.horizon);
        Self { pipeline, provider, silence, horizon, unclear, deaf, now }
    }

    fn ago(&self, wait: Millis) -> Timestamp {
        self.now.plus(Millis(-wait.0))
    }

    /// Until when after an unclear send its own run decides.
    fn undecided(&self, since: Timestamp) -> Millis {
        let wait = self.pipeline.echo_wait_after(self.unclear.wait, since, self.deaf);
        Millis(self.unclear.give_up.0.max(wait.0) + GRACE.0)
    }

    fn lookouts(&self) -> Vec<Lookout> {
        let lookout = |state, silence, before| Lookout { provider: self.provider.clone(), state, silence, before };
        let mut lookouts = vec![lookout(
            MessageState::Queued,
            None,
            self.ago(Millis(self.pipeline.settings.not_after.0.saturating_add(GRACE.0))),
        )];
        let mut steps = vec![(MessageState::Undecided, Millis(self.unclear.give_up.0 + GRACE.0))];
        if let Some(silence) = self.silence {
            steps.extend([(MessageState::Accepted, silence.accepted), (MessageState::Sent, silence.sent)]);
        }
        for (state, wait) in steps {
            if self.deaf.lets_count(wait, self.now, self.pipeline.next_try()) {
                lookouts.push(lookout(state, None, self.ago(wait)));
            }
            lookouts.push(lookout(state, Some(Silence::Told), self.ago(self.horizon)));
        }
        lookouts
    }

    fn judge(&self, message: Watched) -> Option<Finding> {
        let waited = self.now.since(message.since);
        let verdict = match message.state {
            MessageState::Queued => Verdict::Late,
            MessageState::Undecided if waited < self.undecided(message.since) => return None,
            MessageState::Undecided | MessageState::Accepted | MessageState::Sent => {
                if waited >= self.horizon {
                    Verdict::Closed
                } else {
                    Verdict::Silent
                }
            }
            MessageState::Delivered | MessageState::Read | MessageState::Failed | MessageState::Cancelled => {
                return None;
            }
        };
        Some(Finding { message, verdict, begun_before: self.ago(self.unclear.give_up) })
    }
}
