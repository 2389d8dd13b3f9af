//! Bitrix24: robots on cards of a portal, comments on those cards, and everything in between.
//!
//! Product: Bitrix24 cloud and self-hosted, REST with OAuth applications (local and marketplace), in the state of the
//! documents read 2026-11 (our protocol reference, sections 1–4, 6 and 8). What a robot asks comes in through [`wire`]
//! and [`command`]; what we have to tell goes out through [`Crm`]; [`Bitrix24::prove`] and [`Bitrix24::who`] serve the
//! pages inside the portal.
//!
//! Invariant: this room knows nothing of the storage (but [`TokenStore`]), of providers, of the pipeline or of HTTP
//! handlers.

#![deny(clippy::wildcard_enum_match_arm)]

mod batch;
mod bbcode;
mod cards;
pub mod chat_events;
mod chat_names;
mod chats;
mod client;
pub mod command;
mod effects;
mod errors;
mod files;
mod install;
mod limits;
mod oauth;
mod places;
mod reconcile;
mod robots;
pub mod sms;
mod stages;
pub mod wire;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::tz::TimeZone;
use moka::future::Cache;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use self::batch::BATCH_MAX;
use self::client::{Caller, Client};
pub use self::install::{Proof, ProveError, Who};
use self::limits::Limits;
pub use self::oauth::AppKeys;
use self::oauth::OauthServer;
pub use self::places::card_of;
pub use self::reconcile::{Report, Tally};
use crate::crm::comments::{CommentStyle, Markup};
use crate::crm::tokens::{Refresher, Tokens};
use crate::crm::{Budget, ChatNames, Chats, Crm, CrmSpec, Files, SmsSenders, Stages, TokenStore};
use crate::domain::effect::{Applied, CardPerson, CrmEffect, CrmError, RecipientQuery};
use crate::domain::ids::PortalId;
use crate::domain::portal::{CrmKind, Portal};
use crate::domain::time::{Clock, Millis, Timestamp};
use crate::manifests::{self, Bitrix24App, Connector};
use crate::outbound::Outbound;
use crate::robots::Robot;

static SPEC: CrmSpec = CrmSpec {
    kind: CrmKind::Bitrix24,
    batch_max: BATCH_MAX,
    // The queue server is called from the hit that stores the workflow's state; sooner, nobody may be waiting yet
    // (protocol reference, section "Waiting", read 2026-11).
    reply_not_before: Millis::seconds(2),
    loses_replies: true,
};

/// What the operator configures for Bitrix24.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Applications by the `{app}` of our routes.
    pub apps: BTreeMap<String, AppKeys>,
    /// Authorization servers that may be called, scheme and host.
    pub oauth_hosts: Vec<String>,
    /// Portals may be called without TLS. For tests and self-hosted portals in a closed network.
    pub insecure_http: bool,
    /// Our own public address.
    pub public_url: String,
    /// Calls per second to one portal; Bitrix24 drains 2, on Enterprise 5.
    pub requests_per_second: f64,
    /// Calls at once to an idle portal; Bitrix24 holds 50, on Enterprise 250.
    pub burst: f64,
    /// Show phones in comments as `+7•••••12-34`.
    pub mask_phones: bool,
    /// IANA name of the zone in which comments give times (`Europe/Moscow`).
    pub time_zone: String,
}

/// Bitrix24.
pub struct Bitrix24 {
    settings: Settings,
    store: Arc<dyn TokenStore>,
    clock: Arc<dyn Clock>,
    oauth: Arc<OauthServer>,
    client: Client,
    style: CommentStyle,
    manifest: Bitrix24App,
    robots: Vec<Robot>,
    connectors: Vec<Connector>,
    /// One comparison of registrations per portal at a time.
    comparing: Cache<PortalId, Arc<Mutex<()>>>,
    /// Whether a portal granted the right to chats, as of its last comparison.
    chats_granted: Cache<PortalId, bool>,
}

impl Bitrix24 {
    /// Makes the adapter.
    ///
    /// # Errors
    /// A text for the operator: an authorization host that is no address, or a time zone nobody knows.
    pub fn new(
        outbound: Arc<Outbound>,
        store: Arc<dyn TokenStore>,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Result<Self, String> {
        let zone = TimeZone::get(&settings.time_zone)
            .map_err(|e| format!("bitrix24.time_zone: {}: {e}", settings.time_zone))?;
        let oauth = OauthServer::new(
            Arc::clone(&outbound),
            settings.apps.clone(),
            &settings.oauth_hosts,
            settings.insecure_http,
        )?;
        let oauth = Arc::new(oauth);
        let tokens = Tokens::new(Arc::clone(&oauth) as Arc<dyn Refresher>, Arc::clone(&store), Arc::clone(&clock));
        let limits = Limits::new(settings.requests_per_second, settings.burst);
        let client = Client::new(outbound, Arc::clone(&oauth), tokens, limits, Arc::clone(&clock));
        let style = CommentStyle { markup: Markup::BbCode, mask: settings.mask_phones, zone };
        let (manifest, robots) = (manifests::bitrix24()?, crate::robots::load()?);
        let connectors = manifests::connectors()?;
        let comparing = Cache::builder().max_capacity(10_000).time_to_idle(Duration::from_secs(600)).build();
        let chats_granted = Cache::builder().max_capacity(10_000).time_to_idle(Duration::from_secs(600)).build();
        Ok(Self {
            settings,
            store,
            clock,
            oauth,
            client,
            style,
            manifest,
            robots,
            connectors,
            comparing,
            chats_granted,
        })
    }

    /// True when `{app}` of a route is one of our applications.
    #[must_use]
    pub fn has_app(&self, app: &str) -> bool {
        self.oauth.keys(app).is_some()
    }

    /// What the application is called and needs, for pages and the package.
    #[must_use]
    pub fn manifest(&self) -> &Bitrix24App {
        &self.manifest
    }
}

#[async_trait]
impl Crm for Bitrix24 {
    fn spec(&self) -> &'static CrmSpec {
        &SPEC
    }

    async fn apply(&self, portal: &Portal, effects: &[CrmEffect]) -> Vec<Result<Applied, CrmError>> {
        self.apply_all(portal, effects).await
    }

    async fn people(&self, portal: &Portal, queries: &[RecipientQuery]) -> Vec<Result<Vec<CardPerson>, CrmError>> {
        self.people_of(Caller::Portal(portal), queries).await
    }

    async fn reconcile(&self, portal: &Portal, lines: &[(String, String)]) -> Result<(), CrmError> {
        let report = self.reconcile_report(portal, lines).await?;
        report.problems.into_iter().next().map_or(Ok(()), Err)
    }

    fn budget(&self, portal: &Portal, now: Timestamp) -> Budget {
        self.client.limits.budget(&portal.member_id, now)
    }

    fn chats(&self) -> Option<&dyn Chats> {
        Some(self)
    }

    fn chat_names(&self) -> Option<&dyn ChatNames> {
        Some(self)
    }

    fn files(&self) -> Option<&dyn Files> {
        Some(self)
    }

    fn sms_senders(&self) -> Option<&dyn SmsSenders> {
        Some(self)
    }

    fn stages(&self) -> Option<&dyn Stages> {
        Some(self)
    }
}

/// SHA-256 as lower-case hex: for keys and fingerprints, where equality is all that counts.
fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
