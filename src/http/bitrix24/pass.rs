//! Passes: with what a page inside the portal calls back.
//!
//! A frame is a third party to the browser, so there are no cookies: the page carries a pass in its own text and shows it
//! with every call. A pass is sealed (nobody reads or changes it), bound to one portal, one person and one place, and lives
//! for an hour; the page gets another for a fresh token of the portal, with which everything is asked again. Any replica
//! opens it, and nothing is kept of it.

use actix_web::HttpRequest;
use serde::{Deserialize, Serialize};

use crate::domain::effect::CardPerson;
use crate::domain::ids::{CrmUserId, PortalId};
use crate::domain::language::Language;
use crate::domain::portal::{CardRef, Portal, PortalState};
use crate::domain::time::{Millis, Timestamp};
use crate::http::State;
use crate::http::problem::Problem;
use crate::pipeline::cards::SeenCard;

/// How long a pass lives: as long as the token of the portal for which it was given.
const LIVES: Millis = Millis::hours(1);
/// A page that was left open overnight gets a new pass; one that is older has to be opened again.
const RENEWED_WITHIN: Millis = Millis::hours(24);
/// Longest pass that is looked at, in bytes.
const LENGTH_MAX: usize = 16_384;

/// What a page may do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "place", rename_all = "snake_case")]
pub(super) enum Scope {
    /// The application's page of an administrator.
    App,
    /// One card, with the people its viewer may see.
    Card {
        /// The card.
        card: CardRef,
        /// Names and phones.
        people: Vec<(String, Vec<String>)>,
    },
}

/// Who looks at which page of which portal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Pass {
    /// The portal.
    pub(super) portal: PortalId,
    /// Our application there.
    pub(super) app: String,
    /// The person.
    pub(super) user: CrmUserId,
    /// What they read.
    pub(super) language: Language,
    /// When the page was opened.
    pub(super) opened: Timestamp,
    /// The pass is good until then.
    pub(super) until: Timestamp,
    /// What it is good for.
    pub(super) scope: Scope,
}

/// A pass that was opened, and its portal.
pub(super) struct Shown {
    /// The pass.
    pub(super) pass: Pass,
    /// The portal, as it stands now.
    pub(super) portal: Portal,
}

impl Scope {
    /// For one card with these people.
    pub(super) fn card(card: CardRef, people: Vec<CardPerson>) -> Self {
        Self::Card { card, people: people.into_iter().map(|person| (person.name, person.phones)).collect() }
    }
}

impl Pass {
    /// A pass for somebody who was proved a moment ago.
    pub(super) fn new(state: &State, portal: &Portal, user: &str, language: Language, scope: Scope) -> Self {
        let now = state.clock.now();
        Self {
            portal: portal.id.clone(),
            app: portal.app.clone(),
            user: CrmUserId(user.to_owned()),
            language,
            opened: now,
            until: now.plus(LIVES),
            scope,
        }
    }

    /// The text that the page carries.
    pub(super) fn sealed(&self, state: &State) -> Result<String, Problem> {
        let text = serde_json::to_string(self).map_err(|_never| Problem::Internal)?;
        Ok(state.storage.seal_pass(&text)?)
    }

    /// The card this pass is for; refused for any other page's.
    pub(super) fn seen_card(&self) -> Result<SeenCard, Problem> {
        match &self.scope {
            Scope::App => Err(refused()),
            Scope::Card { card, people } => Ok(SeenCard {
                portal: self.portal.clone(),
                card: *card,
                people: people
                    .iter()
                    .map(|(name, phones)| CardPerson { name: name.clone(), phones: phones.clone() })
                    .collect(),
                user: self.user.clone(),
            }),
        }
    }

    /// The same pass, good for another while.
    pub(super) fn renewed(mut self, state: &State, scope: Scope) -> Self {
        self.until = state.clock.now().plus(LIVES);
        self.scope = scope;
        self
    }
}

fn refused() -> Problem {
    Problem::Forbidden("the page has to be opened again".to_owned())
}

/// The pass in the header of a call.
pub(super) fn of_header(request: &HttpRequest) -> Result<&str, Problem> {
    let value = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.strip_prefix("Bearer ").ok_or(Problem::Unauthorized)
}

/// Opens a pass of this application that is still good.
pub(super) async fn open(state: &State, app: &str, sealed: &str) -> Result<Shown, Problem> {
    let shown = open_old(state, app, sealed).await?;
    if shown.pass.until <= state.clock.now() { Err(Problem::Unauthorized) } else { Ok(shown) }
}

/// Opens a pass that may have ended, to be renewed.
pub(super) async fn open_old(state: &State, app: &str, sealed: &str) -> Result<Shown, Problem> {
    let text = Some(sealed).filter(|sealed| sealed.len() <= LENGTH_MAX);
    let text = text.and_then(|sealed| state.storage.open_pass(sealed)).ok_or_else(refused)?;
    let pass: Pass = serde_json::from_str(&text).map_err(|_of_another_version| refused())?;
    let known = state.storage.portal(&pass.portal).await?.ok_or_else(refused)?;
    let now = state.clock.now();
    let gone = known.portal.state == PortalState::Uninstalled;
    if gone || pass.app != app || known.portal.app != app || pass.opened.plus(RENEWED_WITHIN) <= now {
        return Err(refused());
    }
    Ok(Shown { pass, portal: known.portal.clone() })
}
