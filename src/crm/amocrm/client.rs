//! Calls to an account's REST: tokens, renames and limits are dealt with here, results and faults are handed on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tracing::Instrument as _;

use super::errors::{Fault, read_answer};
use super::limits::Limits;
use crate::crm::tokens::Tokens;
use crate::crm::{TokenPair, own};
use crate::domain::effect::{CrmError, PortalTrouble, Reach};
use crate::domain::outcome::FailureClass;
use crate::domain::portal::{CrmKind, Portal};
use crate::domain::time::Clock;
use crate::outbound::{Body, Call, Method, Outbound};

/// Gateways of amoCRM give up earlier.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Most requests one call may take: first try, new place, new token, tokens of a few other users.
const ROUNDS: usize = 6;
/// Who we are there: changes nothing, and answers every token.
pub(super) const ACCOUNT: &str = "api/v4/account";

/// Calls accounts.
pub(super) struct Client {
    pub(super) outbound: Arc<Outbound>,
    pub(super) tokens: Tokens,
    pub(super) limits: Arc<Limits>,
    clock: Arc<dyn Clock>,
}

/// One request below an account's address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    /// Its name in metrics.
    pub(super) name: &'static str,
    pub(super) method: Method,
    /// Path and query, without a slash in front.
    pub(super) path: &'a str,
    pub(super) body: Option<&'a Value>,
}

impl<'a> Ask<'a> {
    pub(super) fn get(name: &'static str, path: &'a str) -> Self {
        Self { name, method: Method::Get, path, body: None }
    }

    pub(super) fn post(name: &'static str, path: &'a str, body: &'a Value) -> Self {
        Self { name, method: Method::Post, path, body: Some(body) }
    }

    pub(super) fn patch(name: &'static str, path: &'a str, body: &'a Value) -> Self {
        Self { name, method: Method::Patch, path, body: Some(body) }
    }
}

impl Client {
    pub(super) fn new(outbound: Arc<Outbound>, tokens: Tokens, limits: Arc<Limits>, clock: Arc<dyn Clock>) -> Self {
        Self { outbound, tokens, limits, clock }
    }

    /// Makes a request with the account's own tokens.
    ///
    /// Cured on the way, each once: a token that ended, a user who is no longer accepted (as long as others are left),
    /// an account that was renamed.
    ///
    /// # Errors
    /// [`Fault`], after what can be cured was.
    pub(super) async fn call(&self, portal: &Portal, ask: Ask<'_>) -> Result<Value, Fault> {
        let span = tracing::info_span!(
            target: crate::telemetry::SPANS, "crm.call", portal.id = %portal.id, crm = "amocrm", method = ask.name
        );
        let started = Instant::now();
        let result = self.cured(portal, ask).instrument(span.clone()).await;
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(parent: &span, duration_ms, answered = result.is_ok(), "call ended");
        let word = match &result {
            Ok(_) => "ok",
            Err(fault) => {
                let error = fault.error(true);
                tracing::info!(
                    portal.id = %portal.id, crm = "amocrm", failure.class = error.class.code(),
                    vendor.code = error.code, method = ask.name, "call failed"
                );
                error.class.code()
            }
        };
        crate::telemetry::crm_call(CrmKind::Amocrm.code(), ask.name, word);
        result
    }

    async fn cured(&self, portal: &Portal, ask: Ask<'_>) -> Result<Value, Fault> {
        let mut pair = self.tokens.usable(portal).await?;
        let (mut refreshed, mut looked) = (false, false);
        for _ in 0..ROUNDS {
            let fault = match self.once(portal, ask, &pair).await {
                Ok(document) => return Ok(document),
                Err(fault) => fault,
            };
            match fault.status() {
                Some(401) if refreshed => {
                    refreshed = false;
                    pair = self.tokens.without(portal, &pair).await?;
                }
                Some(401) => {
                    // A renamed account is found by the refresh.
                    refreshed = true;
                    pair = self.tokens.after_expiry(portal, &pair).await?;
                }
                Some(404) if !looked && ask.path != ACCOUNT => {
                    // "No such thing" is said by the account, or by a host that is nobody's any more.
                    looked = true;
                    match self.once(portal, Ask::get("account", ACCOUNT), &pair).await {
                        Ok(_) => return Err(fault),
                        Err(gone) if matches!(gone.status(), Some(401 | 404)) => {
                            refreshed = true;
                            pair = self.tokens.after_expiry(portal, &pair).await?;
                        }
                        Err(other) => return Err(other),
                    }
                }
                Some(404) if !refreshed && ask.path == ACCOUNT => {
                    refreshed = true;
                    pair = self.tokens.after_expiry(portal, &pair).await?;
                }
                Some(_) | None => return Err(fault),
            }
        }
        let text = "too many turns for one call";
        Err(own(FailureClass::Unavailable, PortalTrouble::None, "no_end", text).into())
    }

    /// One request with this pair, when its turn has come.
    pub(super) async fn once(&self, portal: &Portal, ask: Ask<'_>, pair: &TokenPair) -> Result<Value, Fault> {
        let account = portal.member_id.as_str();
        take_turn(&self.limits, &*self.clock, account).await;
        let now = self.clock.now();
        if let Some(until) = self.limits.blocked_until(account, now) {
            let text = "the account wants to be left alone for a while";
            let error = own(FailureClass::Throttled, PortalTrouble::None, "http_429", text);
            return Err(CrmError { retry_after: Some(until.since(now)), reach: Reach::Call, ..error }.into());
        }
        let call = Call {
            method: ask.method,
            url: format!("{}{}", self.tokens.endpoint(portal), ask.path),
            bearer: Some(pair.access.clone()),
            headers: Vec::new(),
            body: ask.body.map_or(Body::Empty, |body| Body::Json(body.to_string().into_bytes())),
            timeout: TIMEOUT,
        };
        let answer = self.outbound.call(call).await?;
        let read = read_answer(&answer);
        if let Err(fault) = &read
            && let Some(wait) = fault.silence()
        {
            self.limits.block(account, self.clock.now(), wait);
        }
        read
    }
}

/// Waits until a request to this account may leave.
pub(super) async fn take_turn(limits: &Limits, clock: &dyn Clock, account: &str) {
    while let Err(wait) = limits.leave(account, clock.now()) {
        tokio::time::sleep(wait.to_duration()).await;
    }
}
