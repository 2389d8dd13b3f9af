//! Calls to a portal's REST: tokens, renames and limits are dealt with here, results and errors are handed on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tracing::Instrument;
use url::Url;

use super::batch::Batch;
use super::errors::{Cure, Fault, Place, Wait, own, read_answer};
use super::limits::Limits;
use super::oauth::{OauthServer, place_of, same_origin};
use crate::crm::TokenPair;
use crate::crm::tokens::Tokens;
use crate::domain::effect::{CrmError, PortalTrouble};
use crate::domain::outcome::FailureClass;
use crate::domain::portal::Portal;
use crate::domain::time::{Clock, Millis};
use crate::outbound::{Answer, Call, Outbound};

/// The cloud cuts a request after 60 s, so whoever stops waiting earlier does not know how it ended.
const TIMEOUT: Duration = Duration::from_secs(65);
/// Most requests one call may take: first try, new place, new token, and tokens of a few other users.
const ROUNDS: usize = 8;
/// Calls portals.
pub(super) struct Client {
    pub(super) outbound: Arc<Outbound>,
    oauth: Arc<OauthServer>,
    pub(super) tokens: Tokens,
    pub(super) limits: Limits,
    clock: Arc<dyn Clock>,
}

/// A failure with the wait that the portal's limits ask for.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    pub(super) fault: Fault,
    pub(super) retry_after: Option<Millis>,
}

impl Failed {
    /// In the pipeline's words. `repeatable` tells whether the request may be sent again without harm.
    pub(super) fn error(&self, repeatable: bool) -> CrmError {
        self.fault.error(repeatable, self.retry_after)
    }
}

/// What became of each entry of a batch.
pub(super) type Entries = Vec<Result<Value, Failed>>;

/// With whose tokens a call is made.
#[derive(Clone, Copy)]
pub(super) enum Caller<'a> {
    /// The portal's own: background work, cured on the way.
    Portal(&'a Portal),
    /// Those of somebody who is there now, at a proved endpoint of this account (`member_id`): what they may not see,
    /// the answer does not hold.
    Person {
        /// Stable id of the portal.
        account: &'a str,
        /// Base of its REST.
        endpoint: &'a str,
        /// The person's access token.
        token: &'a str,
    },
}

impl Client {
    /// Makes the calls of a batch as somebody.
    ///
    /// # Errors
    /// As [`Client::batch`] and [`Client::batch_as`].
    pub(super) async fn batch_of(&self, caller: Caller<'_>, batch: &Batch) -> Result<Entries, Failed> {
        match caller {
            Caller::Portal(portal) => self.batch(portal, batch).await,
            Caller::Person { account, endpoint, token } => self.batch_as(account, endpoint, token, batch).await,
        }
    }

    pub(super) fn new(
        outbound: Arc<Outbound>,
        oauth: Arc<OauthServer>,
        tokens: Tokens,
        limits: Limits,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { outbound, oauth, tokens, limits, clock }
    }

    /// The way out, for files that a portal gives by address.
    pub(super) fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    /// Makes the calls of a batch with the portal's own tokens.
    ///
    /// Cured on the way, each once: a token that ended, a user who is no longer accepted (as long as others are left),
    /// a portal that was renamed.
    ///
    /// # Errors
    /// The call as a whole failed, and every entry with it.
    pub(super) async fn batch(&self, portal: &Portal, batch: &Batch) -> Result<Entries, Failed> {
        let span = tracing::info_span!(target: crate::telemetry::SPANS, "crm.call", portal.id = %portal.id, crm = "bitrix24", entries = batch.len());
        let started = Instant::now();
        let result = self.cured(portal, batch).instrument(span.clone()).await;
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(parent: &span, duration_ms, answered = result.is_ok(), "call ended");
        match &result {
            Ok(entries) => {
                for (entry, result) in entries.iter().enumerate() {
                    let word = result.as_ref().map_or_else(|failed| failed.error(true).class.code(), |_| "ok");
                    count(batch.method(entry).unwrap_or("batch"), word);
                }
            }
            Err(failed) => {
                let error = failed.error(true);
                tracing::info!(
                    portal.id = %portal.id, crm = "bitrix24", failure.class = error.class.code(),
                    vendor.code = error.code, "call failed"
                );
                count("batch", error.class.code());
            }
        }
        result
    }

    async fn cured(&self, portal: &Portal, batch: &Batch) -> Result<Entries, Failed> {
        let mut pair =
            self.tokens.usable(portal).await.map_err(|error| self.failed(&portal.member_id, error.into(), None))?;
        let (mut refreshed, mut moved) = (false, false);
        for _ in 0..ROUNDS {
            let endpoint = self.tokens.endpoint(portal);
            let fault = match self.post(&portal.member_id, &endpoint, batch, &pair.access).await {
                Ok(document) => return Ok(self.sort(&portal.member_id, batch, &document)),
                Err(fault) => fault,
            };
            let cured = match (&fault, fault.cure()) {
                (Fault::Moved(location), _) if !moved => {
                    moved = true;
                    self.follow(portal, &endpoint, location, &pair).await.map(|()| pair.clone())
                }
                (_, Cure::Refresh) if !refreshed => {
                    refreshed = true;
                    self.tokens.after_expiry(portal, &pair).await.map_err(Fault::from)
                }
                (_, Cure::OtherToken) => {
                    refreshed = false;
                    self.tokens.without(portal, &pair).await.map_err(Fault::from)
                }
                (_, Cure::Refresh | Cure::None) => Err(fault),
            };
            pair = cured.map_err(|fault| self.failed(&portal.member_id, fault, None))?;
        }
        let error = own(FailureClass::Unavailable, PortalTrouble::None, "no_end", "too many turns for one call");
        Err(self.failed(&portal.member_id, error.into(), None))
    }

    /// Makes the calls of a batch with a token that somebody just gave us, at a proved endpoint of this account
    /// (`member_id`).
    ///
    /// # Errors
    /// As [`Client::batch`]; nothing is cured.
    pub(super) async fn batch_as(
        &self,
        account: &str,
        endpoint: &str,
        token: &str,
        batch: &Batch,
    ) -> Result<Entries, Failed> {
        match self.post(account, endpoint, batch, token).await {
            Ok(document) => Ok(self.sort(account, batch, &document)),
            Err(fault) => Err(self.failed(account, fault, None)),
        }
    }

    async fn post(&self, account: &str, endpoint: &str, batch: &Batch, token: &str) -> Result<Value, Fault> {
        let document = batch.document(token).map_err(|e| Fault::Refused(e.to_string()))?;
        self.limits.spend(account, self.clock.now());
        let answer = self.outbound.call(Call::post_json(format!("{endpoint}batch"), document).timeout(TIMEOUT)).await?;
        if let Some(location) = redirect(&answer) {
            return Err(Fault::Moved(location));
        }
        read_answer(&answer, Place::Call)
    }

    fn sort(&self, account: &str, batch: &Batch, document: &Value) -> Entries {
        self.limits.answered(account, self.clock.now(), &batch.times(document));
        let entries = batch.read(document).into_iter().enumerate();
        entries.map(|(at, entry)| entry.map_err(|fault| self.failed(account, fault, batch.method(at)))).collect()
    }

    fn failed(&self, account: &str, fault: Fault, method: Option<&'static str>) -> Failed {
        let wait = fault.wait();
        let retry_after = match wait {
            Wait::Schedule => None,
            Wait::Bucket | Wait::Method | Wait::Long => self.limits.refused(account, self.clock.now(), wait, method),
        };
        Failed { fault, retry_after }
    }

    /// Follows a portal to its new place, if that is where it moved.
    ///
    /// Whoever owns the old host can send us anywhere, so the address is only a hint: the authorization server must
    /// name the same scheme, host and port for this portal, and its word is what is kept.
    async fn follow(&self, portal: &Portal, endpoint: &str, location: &str, pair: &TokenPair) -> Result<(), Fault> {
        let refused = || Fault::Moved(location.to_owned());
        let (Ok(old), Some(new)) = (Url::parse(endpoint), resolve(endpoint, location)) else { return Err(refused()) };
        if same_origin(&old, &new) {
            return Err(refused());
        }
        let server = Some(portal.server_endpoint.as_str()).filter(|server| !server.is_empty());
        let info = self.oauth.token_info(server, &pair.access).await?;
        let Some(stands) = info.client_endpoint else { return Err(refused()) };
        let proved = Url::parse(&stands).is_ok_and(|stands| same_origin(&stands, &new));
        let ours = self.oauth.keys(&portal.app).is_some_and(|keys| keys.client_id == info.client_id);
        if !(proved && ours && info.member_id == portal.member_id) {
            tracing::warn!(portal.id = %portal.id, crm = "bitrix24", "redirect to an unproved place refused");
            return Err(refused());
        }
        if let Some(place) = place_of(&stands) {
            self.tokens.adopt(portal, &place).await;
        }
        Ok(())
    }
}

/// The place a redirect names; `None` for other answers.
fn redirect(answer: &Answer) -> Option<String> {
    matches!(answer.status, 301 | 302 | 303 | 307 | 308)
        .then(|| answer.header("location").unwrap_or_default().to_owned())
}

fn resolve(endpoint: &str, location: &str) -> Option<Url> {
    Url::parse(endpoint).ok()?.join(location).ok()
}

fn count(method: &'static str, result: &'static str) {
    crate::telemetry::crm_call("bitrix24", method, result);
}
