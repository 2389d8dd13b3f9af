//! From a CRM's request to its comment: accept, plan, deliver, report, ingest.
//!
//! The pipeline knows CRMs and providers only by their doors, and the storage by its steps. What runs when is decided
//! by the [`scheduler`], what a failure means by [`policy`]; no other place decides either.
#![deny(clippy::wildcard_enum_match_arm)]

pub mod accept;
pub mod addresses;
pub mod binding;
pub mod cards;
mod changes;
pub mod chats;
mod checks;
pub mod deliver;
pub mod files;
pub mod governor;
mod guards;
mod hearing;
pub mod ingest;
pub mod intake;
pub mod lanes;
pub mod limits;
pub mod lost_calls;
pub mod mailbox;
mod mirrors;
mod news;
pub mod peers;
pub mod policy;
pub mod preflight;
pub mod rehearse;
mod renames;
pub mod report;
pub mod retention;
pub mod scheduler;
mod senders;
mod sources;
pub mod stops;
pub mod submit;
mod tags;
pub mod upkeep;
pub mod watch;
mod written;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::crm::Crm;
use crate::domain::channel::Channel;
use crate::domain::ids::{IdSource, WorkerId};
use crate::domain::portal::CrmKind;
use crate::domain::time::{Clock, Millis, Timestamp};
use crate::lease::Lease;
use crate::providers::Provider;
use crate::storage::Storage;

use lost_calls::LostCallSettings;
use policy::RetryPlan;
use preflight::TemplateCache;
use watch::SilenceSettings;

/// What the pipeline is told by the configuration.
#[derive(Clone, Debug)]
pub struct PipelineSettings {
    /// When failed work is tried again.
    pub retries: RetryPlan,
    /// How long a message may wait to be sent.
    pub not_after: Millis,
    /// Country in which numbers without a country code are read, unless the channel says otherwise.
    pub country: String,
    /// Zone of people whose own is not known and whose line names none (IANA).
    pub time_zone: String,
    /// Sends of one channel under way at once.
    pub workers: usize,
    /// How long a worker that has fallen silent keeps its queues.
    pub lease: Millis,
    /// A robot's result is given once more after so long, because a too early one is lost without a word; zero: never.
    pub repeat_reply: Millis,
    /// How long an unclear send waits for its echo; `None` is the provider's own rule.
    pub unclear_wait: Option<Millis>,
    /// How long a provider may be silent.
    pub silence: SilenceSettings,
    /// Our own address as the world sees it, without a slash at the end.
    pub public_url: String,
    /// How often it is looked up where vendors call us.
    pub check_webhooks: Millis,
    /// When calls of robots that never came are looked for.
    pub lost_calls: LostCallSettings,
}

#[cfg(test)]
impl PipelineSettings {
    /// What tests inside the crate run with.
    pub(crate) fn for_tests(lease: Millis) -> Self {
        Self {
            retries: RetryPlan { waits: vec![Millis::seconds(5)] },
            not_after: Millis::hours(24),
            country: "RU".to_owned(),
            time_zone: "Europe/Moscow".to_owned(),
            workers: 8,
            lease,
            repeat_reply: Millis(0),
            unclear_wait: None,
            silence: SilenceSettings::default(),
            public_url: "https://mostik.example".to_owned(),
            check_webhooks: Millis::minutes(5),
            lost_calls: LostCallSettings { every: Millis(0), after: Millis::minutes(15) },
        }
    }
}

/// Everything the parts of the pipeline share.
pub struct Pipeline {
    pub(crate) storage: Arc<Storage>,
    pub(crate) crms: HashMap<CrmKind, Arc<dyn Crm>>,
    pub(crate) providers: HashMap<&'static str, Arc<dyn Provider>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdSource>,
    pub(crate) settings: PipelineSettings,
    pub(crate) scheduler: mailbox::Handle,
    pub(crate) worker: WorkerId,
    /// What this process may still believe of its queues.
    pub(crate) lease: Lease,
    hearing: hearing::Own,
    templates: TemplateCache,
}

/// What a pipeline is made of.
pub struct Parts {
    /// The store.
    pub storage: Arc<Storage>,
    /// CRMs by kind.
    pub crms: HashMap<CrmKind, Arc<dyn Crm>>,
    /// Providers by registry id.
    pub providers: HashMap<&'static str, Arc<dyn Provider>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids.
    pub ids: Arc<dyn IdSource>,
    /// What was configured.
    pub settings: PipelineSettings,
    /// Where jobs go; the same handle that the store was given as its sink.
    pub scheduler: mailbox::Handle,
}

impl Pipeline {
    /// Puts the parts together; nothing runs until [`scheduler::run`].
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let worker = WorkerId::new(&parts.ids.ulid());
        let hearing = hearing::Own::unknown(parts.clock.now());
        Arc::new(Self {
            storage: parts.storage,
            crms: parts.crms,
            providers: parts.providers,
            clock: parts.clock,
            ids: parts.ids,
            settings: parts.settings,
            scheduler: parts.scheduler,
            worker,
            lease: Lease::default(),
            hearing,
            templates: TemplateCache::new(Duration::from_secs(300)),
        })
    }

    /// The adapter of a channel's provider; `None` for a provider this version does not know.
    #[must_use]
    pub fn provider_of(&self, channel: &Channel) -> Option<&Arc<dyn Provider>> {
        self.providers.get(channel.provider.as_str())
    }

    /// The adapter of a CRM; `None` when none of its applications is configured.
    #[must_use]
    pub fn crm(&self, kind: CrmKind) -> Option<&Arc<dyn Crm>> {
        self.crms.get(&kind)
    }

    /// Country (ISO 3166, two letters) in which numbers without a country code are read, unless a channel says otherwise.
    #[must_use]
    pub fn country(&self) -> &str {
        &self.settings.country
    }

    /// Until when a message taken over (or redriven) at `from` may be sent.
    #[must_use]
    pub fn deadline(&self, from: Timestamp) -> Timestamp {
        from.plus(self.settings.not_after)
    }

    /// Tells the scheduler that a channel or portal may work again (or must stop): its state has changed.
    pub fn state_changed(&self, queue: crate::domain::job::QueueKey) {
        self.scheduler.wake(queue);
    }
}

#[cfg(test)]
mod tests;
