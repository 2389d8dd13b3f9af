//! How an account comes to us and goes again.
//!
//! An installation is known by the account's id, which the first access token tells: the redirect names only a host,
//! hosts are renamed, and anybody can call a redirect. What proves it is that amoCRM exchanges the code for our keys at
//! that host (protocol reference, sections 1.3 to 1.10, read 2026-11).

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::client::{ACCOUNT, Ask};
use super::errors::Fault;
use super::hosts::Hosts;
use super::oauth::Claims;
use super::{Amocrm, proof};
use crate::crm::tokens::Place;
use crate::crm::{StoreDown, TokenPair, own};
use crate::domain::effect::{CrmError, PortalTrouble};
use crate::domain::ids::PortalId;
use crate::domain::language::Language;
use crate::domain::outcome::FailureClass;
use crate::domain::portal::{CrmKind, Portal, PortalState};
use crate::domain::time::{Millis, Timestamp};
use crate::forms::text_at;

/// How long a refresh token lives that nobody uses.
const REFRESH_LIVES: Millis = Millis::hours(24 * 90);
/// Days before the end of a token at which somebody is told.
const WARNED_AT: [i64; 3] = [1, 3, 14];
/// Where it is remembered which warning was given.
const WARNING_KEY: &str = "token:end";
const DAY: Millis = Millis::hours(24);

/// What a redirect brings.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// Which of our integrations.
    pub app: &'a str,
    /// The account's host as the redirect names it; not believed before it fits.
    pub host: &'a str,
    /// The code.
    pub code: &'a str,
}

/// An account that has proved itself.
pub struct Installed {
    /// Its number, for ever.
    pub account_id: String,
    /// Its host.
    pub domain: String,
    /// Base of its REST, ends with `/`.
    pub client_endpoint: String,
    /// Base of the shared API host that knows renamed accounts, ends with `/`; empty when the token tells none.
    pub server_endpoint: String,
    /// What people there read.
    pub language: Language,
    /// Its tokens.
    pub pair: TokenPair,
}

/// Why an account could not be installed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InstallError {
    /// The host is no account of the configured domains; answer 403.
    #[error("this host is no account of amoCRM")]
    ForeignHost,
    /// The token is of another integration or tells no account; answer 403.
    #[error("the token is not for this integration")]
    Foreign,
    /// amoCRM does not take the code or token; answer 403.
    #[error("refused: {0}")]
    Refused(CrmError),
    /// amoCRM could not be asked; answer 503.
    #[error("not asked: {0}")]
    Unavailable(CrmError),
}

impl Amocrm {
    /// Where a person is sent to let us into an account.
    #[must_use]
    pub fn consent_url(&self, app: &str, state: &str) -> Option<String> {
        let keys = self.oauth.keys(app)?;
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("client_id", &keys.client_id)
            .append_pair("state", state)
            .finish();
        Some(format!("{}?{query}", self.hosts.consent()))
    }

    /// Exchanges a code for an account's first tokens.
    ///
    /// # Errors
    /// [`InstallError`], each variant with the HTTP status it stands for. The code is used up unless amoCRM could not be
    /// asked.
    pub async fn install(&self, grant: Grant<'_>) -> Result<Installed, InstallError> {
        let place = self.hosts.place(grant.host).ok_or(InstallError::ForeignHost)?;
        let pair = self.oauth.redeem(grant.app, &place, grant.code).await.map_err(sort)?;
        let expires = self.clock.now().plus(pair.lives);
        self.installed(grant.app, place, &pair.access, pair.refresh, expires).await
    }

    /// Takes an account over with a token that a person made by hand.
    ///
    /// # Errors
    /// [`InstallError`].
    pub async fn install_long_lived(
        &self,
        app: &str,
        host: &str,
        token: &SecretString,
    ) -> Result<Installed, InstallError> {
        let place = self.hosts.place(host).ok_or(InstallError::ForeignHost)?;
        let token = token.expose_secret().trim();
        let expires = Claims::read(token).and_then(|claims| claims.expires).ok_or(InstallError::Foreign)?;
        let installed = self.installed(app, place, token, String::new(), expires).await?;
        // Nobody has proved this token yet: the account must take it.
        self.who(&portal_of(app, &installed), &installed.pair).await.map_err(sort)?;
        Ok(installed)
    }

    async fn installed(
        &self,
        app: &str,
        place: Place,
        access: &str,
        refresh: String,
        expires: Timestamp,
    ) -> Result<Installed, InstallError> {
        let claims = Claims::read(access).unwrap_or_default();
        let keys = self.oauth.keys(app).ok_or(InstallError::Foreign)?;
        if !claims.client_id.is_empty() && claims.client_id != keys.client_id {
            return Err(InstallError::Foreign);
        }
        let elsewhere = self.hosts.place(&claims.api_domain).map(|place| place.endpoint).unwrap_or_default();
        let mut installed = Installed {
            account_id: claims.account_id,
            language: if Hosts::reads_russian(&place.domain) { Language::Ru } else { Language::En },
            domain: place.domain,
            client_endpoint: place.endpoint,
            server_endpoint: elsewhere,
            // Only an administrator can install.
            pair: TokenPair { user_id: claims.user_id, is_admin: true, access: access.to_owned(), refresh, expires },
        };
        if installed.account_id.is_empty() {
            // A token that tells nothing; the account tells who it is.
            let account = self.who(&portal_of(app, &installed), &installed.pair).await.map_err(sort)?;
            installed.account_id = text_at(&account, &["id"]);
        }
        let is_number = !installed.account_id.is_empty() && installed.account_id.bytes().all(|b| b.is_ascii_digit());
        if is_number { Ok(installed) } else { Err(InstallError::Foreign) }
    }

    /// Asks an account who it is, with this pair and no other.
    async fn who(&self, portal: &Portal, pair: &TokenPair) -> Result<Value, Fault> {
        self.client.once(portal, Ask::get("account", ACCOUNT), pair).await
    }

    /// Asks an installed account who it is, with a token that still lives; for `doctor`. Renews, drops and keeps nothing.
    /// `None` when every access token has ended by its time; otherwise until when the account can be talked to if nobody
    /// renews.
    ///
    /// # Errors
    /// Why the account did not take a living token; `NeedsAuth` when there is none left.
    pub async fn look(&self, portal: &Portal) -> Result<Option<Timestamp>, CrmError> {
        let pairs = self.client.tokens.kept(portal).await?;
        let now = self.clock.now();
        if pairs.is_empty() {
            return Err(crate::crm::needs_auth());
        }
        let Some(living) = pairs.iter().find(|pair| pair.expires > now) else { return Ok(None) };
        self.who(portal, living).await.map_err(|fault| fault.error(true))?;
        Ok(pairs.iter().map(end_of).max())
    }

    /// True when `signature` proves that amoCRM says that this integration was disabled in this account. It can be
    /// replayed for ever, so it says only that somebody should look ([`Amocrm::is_gone`]).
    #[must_use]
    pub fn proves_removal(&self, app: &str, client_id: &str, account_id: &str, signature: &str) -> bool {
        let Some(keys) = self.oauth.keys(app).filter(|keys| keys.client_id == client_id) else { return false };
        proof::signs_removal(&keys.secrets, client_id, account_id, signature)
    }

    /// Whether the account really no longer lets us in.
    ///
    /// # Errors
    /// It could not be found out.
    pub async fn is_gone(&self, portal: &Portal) -> Result<bool, CrmError> {
        match self.client.call(portal, Ask::get("account", ACCOUNT)).await {
            Ok(_) => Ok(false),
            Err(fault) => {
                let error = fault.error(true);
                if error.portal == PortalTrouble::NeedsAuth { Ok(true) } else { Err(error) }
            }
        }
    }

    /// [`crate::crm::Crm::reconcile`].
    pub(super) async fn stay_known(&self, portal: &Portal) -> Result<(), CrmError> {
        let asked = self.client.call(portal, Ask::get("account", ACCOUNT)).await;
        // Also, and above all, when the account cannot be reached.
        self.warn_of_end(portal).await.map_err(crate::crm::store_down)?;
        let account = asked.map_err(|fault| fault.error(true))?;
        let id = text_at(&account, &["id"]);
        if id == portal.member_id {
            return Ok(());
        }
        let text = format!("another account answers there: {id}");
        Err(own(FailureClass::Misconfigured, PortalTrouble::NeedsAuth, "foreign_account", text))
    }

    /// Tells, once at each of some distances, that the last token of an account is about to end.
    async fn warn_of_end(&self, portal: &Portal) -> Result<(), StoreDown> {
        let pairs = self.client.tokens.kept(portal).await.unwrap_or_default();
        let Some(end) = pairs.iter().map(end_of).max() else { return Ok(()) };
        let Some(days) = warning(end, self.clock.now()) else { return Ok(()) };
        let given = format!("{days}:{}", end.0);
        let known = self.store.load_registrations(&portal.id).await?;
        if known.iter().any(|(key, value)| key == WARNING_KEY && *value == given) {
            return Ok(());
        }
        tracing::error!(
            portal.id = %portal.id, crm = "amocrm", domain = portal.domain, days,
            "the account's token ends within so many days and cannot be renewed; an administrator has to connect it anew"
        );
        self.store.save_registration(&portal.id, WARNING_KEY, Some(&given)).await
    }
}

/// Until when a pair is good for anything: a long-lived token ends, a refresh token has three months from its making.
fn end_of(pair: &TokenPair) -> Timestamp {
    if pair.refresh.is_empty() {
        return pair.expires;
    }
    let made = Claims::read(&pair.access).and_then(|claims| claims.issued);
    made.unwrap_or_else(|| pair.expires.plus(Millis(-DAY.0))).plus(REFRESH_LIVES)
}

/// The distance at which somebody is to be told, once it is reached.
fn warning(end: Timestamp, now: Timestamp) -> Option<i64> {
    WARNED_AT.into_iter().find(|days| end.since(now).0 <= days * DAY.0)
}

fn sort(fault: Fault) -> InstallError {
    let error = fault.error(true);
    match fault.status() {
        Some(400..=404) if fault != Fault::ShutOut => InstallError::Refused(error),
        Some(_) | None => InstallError::Unavailable(error),
    }
}

/// The account as it would be stored, for a call before it is.
fn portal_of(app: &str, installed: &Installed) -> Portal {
    Portal {
        id: PortalId::new("NEW"),
        crm: CrmKind::Amocrm,
        app: app.to_owned(),
        member_id: installed.account_id.clone(),
        domain: installed.domain.clone(),
        client_endpoint: installed.client_endpoint.clone(),
        server_endpoint: installed.server_endpoint.clone(),
        language: installed.language,
        state: PortalState::Installed,
        state_reason: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_is_told_14_3_and_1_days_before_the_end() {
        let end = Timestamp(Millis::hours(24 * 100).0);
        let before = |hours: i64| warning(end, end.plus(Millis(-Millis::hours(hours).0)));
        assert_eq!(before(15 * 24), None);
        assert_eq!(before(14 * 24), Some(14));
        assert_eq!(before(73), Some(14));
        assert_eq!(before(72), Some(3));
        assert_eq!(before(24), Some(1));
        assert_eq!(before(-5), Some(1));
    }

    #[test]
    fn an_idle_pair_ends_three_months_after_it_was_made() {
        let expires = Timestamp(Millis::hours(24 * 11).0);
        let pair = |refresh: &str| TokenPair {
            user_id: "1".to_owned(),
            is_admin: true,
            access: "opaque".to_owned(),
            refresh: refresh.to_owned(),
            expires,
        };
        assert_eq!(end_of(&pair("")), expires);
        assert_eq!(end_of(&pair("r")), Timestamp(Millis::hours(24 * 100).0));
    }
}
