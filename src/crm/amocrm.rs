//! amoCRM and Kommo: Salesbot steps, notes on cards, and everything in between.
//!
//! Product: amoCRM (CIS) and Kommo, REST v4 with OAuth integrations (public and private) and long-lived tokens, in the
//! state of the documents read 2026-11 (our protocol reference, sections 1, 3, 6, 8 and 9). What a Salesbot asks comes in
//! through [`salesbot`], what a stage of the pipeline asks through [`trigger`], what our widget asks through [`widget`]; what we have to tell goes out through [`Crm`]; [`Amocrm::install`], [`Amocrm::proves_removal`]
//! and [`Amocrm::is_gone`] serve the life of an installation.
//!
//! Invariant: this room knows nothing of the storage (but [`TokenStore`]), of providers, of the pipeline or of HTTP
//! handlers.

#![deny(clippy::wildcard_enum_match_arm)]

mod amojo;
pub mod chat_hook;
mod chats;
mod client;
mod errors;
mod hosts;
mod install;
mod limits;
mod notes;
mod oauth;
mod people;
mod proof;
pub mod salesbot;
pub mod trigger;
mod values;
pub mod widget;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join3;
use jiff::tz::TimeZone;
use secrecy::SecretString;

use self::amojo::Amojo;
pub use self::amojo::ChatKeys;
pub use self::chats::SCOPE as CHATS_SCOPE;
use self::client::Client;
use self::hosts::Hosts;
pub use self::install::{Grant, InstallError, Installed};
use self::limits::Limits;
use self::oauth::OauthServer;
use crate::crm::comments::{CommentStyle, Markup};
use crate::crm::tokens::{Refresher, Tokens};
use crate::crm::{Budget, Chats, Crm, CrmSpec, TokenStore};
use crate::domain::effect::{Applied, CardPerson, CrmEffect, CrmError, RecipientQuery};
use crate::domain::portal::{CrmKind, Portal};
use crate::domain::time::{Clock, Millis, Timestamp};
use crate::outbound::Outbound;

static SPEC: CrmSpec = CrmSpec {
    kind: CrmKind::Amocrm,
    // More are taken (250), but a request of fifty notes is what the vendor recommends.
    batch_max: notes::BATCH_MAX,
    // The bot is parked when our 200 has arrived; a continue that overtakes it finds nobody and is lost.
    reply_not_before: Millis::seconds(2),
    loses_replies: false,
};

/// Keys of one of our integrations. `Debug` shows the id only.
#[derive(Clone)]
pub struct AmoKeys {
    /// UUID of the integration.
    pub client_id: String,
    /// The secret in use first, then those that were before and may still sign.
    pub secrets: Vec<SecretString>,
    /// Its channel of chats, if the vendor has registered one for it.
    pub chats: Option<ChatKeys>,
}

impl fmt::Debug for AmoKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AmoKeys {{ client_id {} }}", self.client_id)
    }
}

/// What the operator configures for amoCRM.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Integrations by the `{app}` of our routes.
    pub apps: BTreeMap<String, AmoKeys>,
    /// Where accounts answer; `{subdomain}` is replaced by the account's.
    pub account_url: String,
    /// Domains under which accounts live.
    pub account_hosts: Vec<String>,
    /// Where the chats service answers; `{domain}` is replaced by that of the account's host.
    pub chats_url: String,
    /// Our own public address.
    pub public_url: String,
    /// Requests per second to one account, and from our address to all of them together.
    pub requests_per_second: u32,
    /// Show phones in notes as `+7•••••12-34`.
    pub mask_phones: bool,
    /// IANA name of the zone in which notes give times (`Europe/Moscow`).
    pub time_zone: String,
}

/// amoCRM.
pub struct Amocrm {
    settings: Settings,
    hosts: Arc<Hosts>,
    store: Arc<dyn TokenStore>,
    clock: Arc<dyn Clock>,
    oauth: Arc<OauthServer>,
    client: Client,
    amojo: Amojo,
    style: CommentStyle,
}

impl Amocrm {
    /// Makes the adapter.
    ///
    /// # Errors
    /// A text for the operator: an address that is none, or a time zone nobody knows.
    pub fn new(
        outbound: Arc<Outbound>,
        store: Arc<dyn TokenStore>,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Result<Self, String> {
        let zone = TimeZone::get(&settings.time_zone)
            .map_err(|e| format!("comments.time_zone: {}: {e}", settings.time_zone))?;
        let hosts = Arc::new(Hosts::new(&settings.account_url, &settings.account_hosts)?);
        let limits = Arc::new(Limits::new(settings.requests_per_second));
        let redirect = |app: &str| format!("{}/amocrm/{app}/oauth", settings.public_url);
        let redirects = settings.apps.keys().map(|app| (app.clone(), redirect(app))).collect();
        let oauth = OauthServer::new(
            Arc::clone(&outbound),
            Arc::clone(&hosts),
            Arc::clone(&limits),
            Arc::clone(&clock),
            settings.apps.clone(),
            redirects,
        );
        let oauth = Arc::new(oauth);
        let tokens = Tokens::new(Arc::clone(&oauth) as Arc<dyn Refresher>, Arc::clone(&store), Arc::clone(&clock));
        let amojo = Amojo::new(Arc::clone(&outbound), Arc::clone(&clock), &settings.chats_url);
        let client = Client::new(outbound, tokens, limits, Arc::clone(&clock));
        let style = CommentStyle { markup: Markup::Plain, mask: settings.mask_phones, zone };
        Ok(Self { settings, hosts, store, clock, oauth, client, amojo, style })
    }

    /// True when `{app}` of a route is one of our integrations.
    #[must_use]
    pub fn has_app(&self, app: &str) -> bool {
        self.settings.apps.contains_key(app)
    }

    /// True when this is the id of the integration.
    #[must_use]
    pub fn is_client(&self, app: &str, client_id: &str) -> bool {
        self.oauth.keys(app).is_some_and(|keys| keys.client_id == client_id)
    }
}

#[async_trait]
impl Crm for Amocrm {
    fn spec(&self) -> &'static CrmSpec {
        &SPEC
    }

    async fn apply(&self, portal: &Portal, effects: &[CrmEffect]) -> Vec<Result<Applied, CrmError>> {
        // Notes and bots share nothing but the pace, and a bot must not wait for fifty notes; chats are another service.
        let (bots, notes, chats) = join3(
            self.continue_bots(portal, effects),
            self.write_notes(portal, effects),
            self.tell_chats(portal, effects),
        )
        .await;
        let parts = bots.into_iter().zip(notes).zip(chats);
        parts.map(|((bot, note), chat)| bot.or(note).or(chat).unwrap_or_else(notes::unplanned)).collect()
    }

    fn chats(&self) -> Option<&dyn Chats> {
        Some(self)
    }

    async fn people(&self, portal: &Portal, queries: &[RecipientQuery]) -> Vec<Result<Vec<CardPerson>, CrmError>> {
        self.people_of(portal, queries).await
    }

    /// Nothing is registered in an account; it is asked who it is. That keeps the three months of an idle account's
    /// refresh token from ending, finds a renamed account, and tells in time when a token ends that nobody renews.
    async fn reconcile(&self, portal: &Portal, _lines: &[(String, String)]) -> Result<(), CrmError> {
        self.stay_known(portal).await
    }

    fn budget(&self, portal: &Portal, now: Timestamp) -> Budget {
        self.client.limits.budget(&portal.member_id, now)
    }
}
