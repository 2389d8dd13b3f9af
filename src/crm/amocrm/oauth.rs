//! Tokens from amoCRM: codes exchanged, pairs renewed, and renamed accounts found again.
//!
//! A refresh token is good for one exchange and three months; there is no grace period, so nothing here is repeated by
//! itself, and the time limit is generous (protocol reference, sections "Token endpoint" and "Access token claims", read
//! 2026-11).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::AmoKeys;
use super::client::take_turn;
use super::errors::{Fault, read_answer};
use super::hosts::Hosts;
use super::limits::Limits;
use crate::crm::own;
use crate::crm::tokens::{Fresh, Place, Refresher, Stale};
use crate::domain::effect::PortalTrouble;
use crate::domain::outcome::FailureClass;
use crate::domain::portal::{CrmKind, Portal};
use crate::domain::time::{Clock, Millis, Timestamp};
use crate::forms::{integer, member, text, text_at};
use crate::outbound::{Call, Outbound};

const TIMEOUT: Duration = Duration::from_secs(30);
/// Renewed at half its day, so that an hour's outage of amoCRM costs nothing.
const RENEW_BEFORE: Millis = Millis::hours(12);
/// Lifetime of an access token that does not say it.
const LIVES: i64 = 86_400;

/// What an access token says of itself. It is not proved by anything but where it came from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Claims {
    pub(super) account_id: String,
    /// Whose grant it is.
    pub(super) user_id: String,
    /// Which integration it is for.
    pub(super) client_id: String,
    /// Where renamed accounts are asked for.
    pub(super) api_domain: String,
    pub(super) issued: Option<Timestamp>,
    pub(super) expires: Option<Timestamp>,
}

impl Claims {
    /// Reads a token; `None` when it is none.
    pub(super) fn read(token: &str) -> Option<Self> {
        let payload = token.split('.').nth(1)?;
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        let moment = |key: &str| member(&claims, key).and_then(integer).map(Timestamp::from_seconds);
        Some(Self {
            account_id: text_at(&claims, &["account_id"]),
            user_id: text_at(&claims, &["sub"]),
            client_id: text_at(&claims, &["aud"]),
            api_domain: text_at(&claims, &["api_domain"]),
            issued: moment("iat"),
            expires: moment("exp"),
        })
    }
}

/// A pair as the token endpoint gave it.
pub(super) struct Pair {
    pub(super) access: String,
    pub(super) refresh: String,
    pub(super) lives: Millis,
}

/// The token endpoint and our keys for it.
pub(super) struct OauthServer {
    outbound: Arc<Outbound>,
    hosts: Arc<Hosts>,
    limits: Arc<Limits>,
    clock: Arc<dyn Clock>,
    apps: BTreeMap<String, AmoKeys>,
    /// Redirect URI by application: compared byte for byte.
    redirects: BTreeMap<String, String>,
}

impl OauthServer {
    pub(super) fn new(
        outbound: Arc<Outbound>,
        hosts: Arc<Hosts>,
        limits: Arc<Limits>,
        clock: Arc<dyn Clock>,
        apps: BTreeMap<String, AmoKeys>,
        redirects: BTreeMap<String, String>,
    ) -> Self {
        Self { outbound, hosts, limits, clock, apps, redirects }
    }

    /// Keys of an integration of ours.
    pub(super) fn keys(&self, app: &str) -> Option<&AmoKeys> {
        self.apps.get(app)
    }

    /// Exchanges a code for the first pair, at the account's own host.
    pub(super) async fn redeem(&self, app: &str, place: &Place, code: &str) -> Result<Pair, Fault> {
        self.exchange(app, &place.endpoint, &place.domain, ("authorization_code", "code", code)).await
    }

    async fn exchange(
        &self,
        app: &str,
        endpoint: &str,
        account: &str,
        (grant, key, value): (&str, &str, &str),
    ) -> Result<Pair, Fault> {
        let (Some(keys), Some(redirect)) = (self.apps.get(app), self.redirects.get(app)) else {
            let text = format!("no integration {app:?} in the configuration");
            return Err(own(FailureClass::Misconfigured, PortalTrouble::None, "app_unknown", text).into());
        };
        let secret = keys.secrets.first().map_or("", |secret| secret.expose_secret());
        let body = json!({
            "client_id": keys.client_id, "client_secret": secret, "grant_type": grant, key: value,
            "redirect_uri": redirect,
        });
        let call = Call::post_json(format!("{endpoint}oauth2/access_token"), body.to_string().into_bytes());
        let document = self.ask(call.timeout(TIMEOUT), account).await?;
        read_pair(&document).ok_or(Fault::Senseless { status: 200 })
    }

    /// Where the account stands now. The refresh token is not used up by the question.
    async fn find(&self, portal: &Portal, refresh: &str) -> Result<Place, Fault> {
        let url = format!("{}oauth2/account/current/subdomain", portal.server_endpoint);
        let document = self.ask(Call::get(url).header("X-Refresh-Token", refresh), &portal.member_id).await?;
        if text_at(&document, &["id"]) != portal.member_id {
            return Err(Fault::Senseless { status: 200 });
        }
        self.hosts.place(&text_at(&document, &["domain"])).ok_or(Fault::Senseless { status: 200 })
    }

    async fn ask(&self, call: Call, account: &str) -> Result<Value, Fault> {
        take_turn(&self.limits, &*self.clock, account).await;
        let answer = self.outbound.call(call).await?;
        read_answer(&answer)
    }

    /// The account may have been renamed: looks where it is, and renews there.
    async fn renew_elsewhere(&self, portal: &Portal, refresh: &str, here: Fault) -> Result<Fresh, Stale> {
        let verdict = verdict_of(&here);
        if portal.server_endpoint.is_empty() {
            return Err(verdict);
        }
        let place = match self.find(portal, refresh).await {
            Ok(place) if place.endpoint != portal.client_endpoint => place,
            Ok(_) => return Err(verdict),
            Err(fault) if matches!(fault.status(), Some(400..=499)) && fault != Fault::ShutOut => return Err(verdict),
            // Not known whether it moved: its tokens may be as good as ever.
            Err(fault) => return Err(Stale::Failed(fault.error(true))),
        };
        match self.exchange(&portal.app, &place.endpoint, &portal.member_id, renewing(refresh)).await {
            Ok(pair) => Ok(Fresh { access: pair.access, refresh: pair.refresh, lives: pair.lives, place: Some(place) }),
            Err(fault) => Err(verdict_of(&fault)),
        }
    }
}

fn renewing(refresh: &str) -> (&'static str, &'static str, &str) {
    ("refresh_token", "refresh_token", refresh)
}

/// What a refused refresh says of the pair. Without a hint it speaks of our keys, and the pair may live.
fn verdict_of(fault: &Fault) -> Stale {
    match fault {
        Fault::Said { status: 400 | 401, of_token: true, .. } => Stale::Dead,
        Fault::Said { .. }
        | Fault::Senseless { .. }
        | Fault::ShutOut
        | Fault::NotConnected(_)
        | Fault::NoAnswer(_)
        | Fault::Refused(_)
        | Fault::Decided(_) => Stale::Failed(fault.error(true)),
    }
}

fn read_pair(document: &Value) -> Option<Pair> {
    let token = |key: &str| member(document, key).and_then(text).filter(|token| !token.is_empty());
    let lives = member(document, "expires_in").and_then(integer).filter(|seconds| *seconds > 0).unwrap_or(LIVES);
    Some(Pair { access: token("access_token")?, refresh: token("refresh_token")?, lives: Millis::seconds(lives) })
}

#[async_trait]
impl Refresher for OauthServer {
    fn crm(&self) -> &'static str {
        CrmKind::Amocrm.code()
    }

    fn renew_before(&self) -> Millis {
        RENEW_BEFORE
    }

    async fn refresh(&self, portal: &Portal, refresh: &str) -> Result<Fresh, Stale> {
        if refresh.is_empty() {
            // A long-lived token: nothing renews it.
            return Err(Stale::Dead);
        }
        match self.exchange(&portal.app, &portal.client_endpoint, &portal.member_id, renewing(refresh)).await {
            Ok(pair) => Ok(Fresh { access: pair.access, refresh: pair.refresh, lives: pair.lives, place: None }),
            Err(fault) if matches!(fault.status(), Some(401 | 404)) => {
                self.renew_elsewhere(portal, refresh, fault).await
            }
            Err(fault) => Err(verdict_of(&fault)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_whose_it_is() {
        let claims = r#"{"aud":"id","sub":"27","iat":10,"exp":20,"account_id":314,"api_domain":"api-b.amocrm.ru"}"#;
        let token = format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims));
        let read = Claims::read(&token).unwrap();
        assert_eq!((read.account_id.as_str(), read.user_id.as_str(), read.client_id.as_str()), ("314", "27", "id"));
        assert_eq!((read.issued, read.expires), (Some(Timestamp(10_000)), Some(Timestamp(20_000))));
        for opaque in ["", "opaque", "a.b.c", "a.!!.c"] {
            assert_eq!(Claims::read(opaque), None, "{opaque}");
        }
    }

    #[test]
    fn a_pair_needs_both_tokens() {
        let pair = read_pair(&json!({"access_token": "a", "refresh_token": "r", "expires_in": "60"})).unwrap();
        assert_eq!((pair.access.as_str(), pair.refresh.as_str(), pair.lives), ("a", "r", Millis::seconds(60)));
        assert!(read_pair(&json!({"access_token": "a", "expires_in": 60})).is_none());
    }
}
