//! Who is it: proving a portal and the person in front of a page.
//!
//! A page opening comes from a browser and a first event from anywhere; both carry a token. What the token is good for
//! is asked of Bitrix24's authorization server, and only its answer is believed: client id, portal, endpoint and user
//! (protocol reference, section "application_token and trust rules", rule 2, read 2026-11).

use secrecy::{ExposeSecret, SecretString};

use super::Bitrix24;
use super::batch::Batch;
use super::errors::{Fault, own, store_down};
use crate::domain::effect::{CrmError, PortalTrouble};
use crate::domain::outcome::FailureClass;
use crate::domain::portal::Portal;
use crate::forms::{flag, text_at};

/// What the authorization server says of a token that is ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proof {
    /// Our application.
    pub client_id: String,
    /// The portal, for ever.
    pub member_id: String,
    /// Host of the portal, lower case.
    pub domain: String,
    /// Base of the portal's REST, ends with `/`; safe to call.
    pub client_endpoint: String,
    /// Base of the REST of the authorization server that knows this portal, ends with `/`; to be kept with the portal.
    pub server_endpoint: String,
    /// The user the token belongs to.
    pub user_id: String,
    /// False until the installer page has finished.
    pub installed: bool,
    /// Rights the portal granted.
    pub scopes: Vec<String>,
}

/// The person a token belongs to, and what their portal reads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Who {
    /// The user.
    pub user_id: String,
    /// May administer the portal.
    pub is_admin: bool,
    /// Language of the portal, two letters; empty when it does not tell.
    pub language: String,
}

/// Why somebody is not who they say.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProveError {
    /// No such application in our configuration; answer 404.
    #[error("no application {0:?}")]
    UnknownApp(String),
    /// The authorization server named is not one of the configured ones; answer 403.
    #[error("authorization server not allowed")]
    ForeignServer,
    /// The token is of another application or portal, or leads to an address that must not be called; answer 403.
    #[error("token of another {0}")]
    Foreign(&'static str),
    /// The server does not take the token; answer 403.
    #[error("token refused: {0}")]
    Refused(CrmError),
    /// The server could not be asked; answer 503.
    #[error("not proved: {0}")]
    Unavailable(CrmError),
}

impl Bitrix24 {
    /// Proves that a token belongs to our application `app` in the portal `member_id`.
    ///
    /// `server_endpoint` is what the caller said, `None` on older portals; then the configured servers are asked.
    ///
    /// # Errors
    /// [`ProveError`], each variant with the HTTP status it stands for.
    pub async fn prove(
        &self,
        app: &str,
        token: &SecretString,
        server_endpoint: Option<&str>,
        member_id: &str,
    ) -> Result<Proof, ProveError> {
        let keys = self.oauth.keys(app).ok_or_else(|| ProveError::UnknownApp(app.to_owned()))?;
        if server_endpoint.is_some_and(|server| !self.oauth.is_ours(server)) {
            return Err(ProveError::ForeignServer);
        }
        let info = self.oauth.token_info(server_endpoint, token.expose_secret()).await.map_err(sort)?;
        if info.client_id != keys.client_id {
            return Err(ProveError::Foreign("application"));
        }
        if info.member_id != member_id {
            return Err(ProveError::Foreign("portal"));
        }
        let client_endpoint =
            info.client_endpoint.ok_or(ProveError::Foreign("kind: its portal has no https address"))?;
        Ok(Proof {
            client_id: info.client_id,
            member_id: info.member_id,
            domain: info.domain,
            client_endpoint,
            server_endpoint: info.server_endpoint,
            user_id: info.user_id,
            installed: info.installed,
            scopes: info.scopes,
        })
    }

    /// Asks an installed portal who we are there, with a token that still lives; for `doctor`.
    ///
    /// Renews, drops and keeps nothing, so that a look from another process cannot cost the running service its tokens.
    /// `None` when every access token has ended by its time: the service renews it with its next call.
    ///
    /// # Errors
    /// Why no living token was answered; `NeedsAuth` when the portal has no tokens left.
    pub async fn look(&self, portal: &Portal) -> Result<Option<Who>, CrmError> {
        let pairs = self.store.load_tokens(&portal.id).await.map_err(store_down)?;
        if pairs.is_empty() {
            let text = "no tokens left";
            return Err(own(FailureClass::Misconfigured, PortalTrouble::NeedsAuth, "no_tokens", text));
        }
        let now = self.clock.now();
        let mut failed = None;
        for pair in pairs.into_iter().filter(|pair| pair.expires > now) {
            match self.ask_who(&portal.member_id, &portal.client_endpoint, &pair.access).await {
                Ok(who) => return Ok(Some(who)),
                // Another user's token is taken only when it is the token that is refused.
                Err(error) if error.portal == PortalTrouble::NeedsAuth => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// Asks the proved portal whose token it is and whether that person administers it.
    ///
    /// # Errors
    /// The call failed, or the token belongs to somebody else than the proof says.
    pub async fn who(&self, proof: &Proof, token: &SecretString) -> Result<Who, CrmError> {
        let who = self.ask_who(&proof.member_id, &proof.client_endpoint, token.expose_secret()).await?;
        if !proof.user_id.is_empty() && who.user_id != proof.user_id {
            return Err(Fault::Unanswered.error(true, None));
        }
        Ok(who)
    }

    async fn ask_who(&self, account: &str, endpoint: &str, token: &str) -> Result<Who, CrmError> {
        let mut batch = Batch::default();
        let (profile, info) = (batch.push("profile", &[]), batch.push("app.info", &[]));
        let entries =
            self.client.batch_as(account, endpoint, token, &batch).await.map_err(|failed| failed.error(true))?;
        let answer = |entry: usize| match entries.get(entry) {
            Some(Ok(value)) => Ok(value),
            Some(Err(failed)) => Err(failed.error(true)),
            None => Err(Fault::Unanswered.error(true, None)),
        };
        let person = answer(profile)?;
        let user_id = text_at(person, &["ID"]);
        if user_id.is_empty() {
            return Err(Fault::Unanswered.error(true, None));
        }
        let is_admin = person.get("ADMIN").and_then(flag).unwrap_or(false);
        let language = answer(info).map(|info| text_at(info, &["LANGUAGE_ID"])).unwrap_or_default();
        Ok(Who { user_id, is_admin, language })
    }
}

fn sort(fault: Fault) -> ProveError {
    let error = fault.error(true, None);
    match error.class {
        FailureClass::Unavailable | FailureClass::Indeterminate | FailureClass::Throttled => {
            ProveError::Unavailable(error)
        }
        FailureClass::Rejected | FailureClass::NotPermitted | FailureClass::Misconfigured => ProveError::Refused(error),
    }
}
