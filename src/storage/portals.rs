//! Portals, their tokens and what was registered in them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use moka::future::Cache;
use serde::{Deserialize, Serialize};

use super::db::{Row, args};
use super::{Storage, StorageError, sql};
use crate::crm::{StoreDown, TokenPair, TokenStore};
use crate::domain::ids::PortalId;
use crate::domain::job::QueueKey;
use crate::domain::language::Language;
use crate::domain::portal::{CrmKind, Portal, PortalState};
use crate::domain::time::Timestamp;

/// How long another process's change may stay unseen.
const FRESH: Duration = Duration::from_secs(30);

/// How long an offered pair is worth trying.
const OFFER: Duration = Duration::from_secs(3600);

/// A portal with the secret its callbacks carry. Has no `Debug`.
#[derive(Clone)]
pub struct KnownPortal {
    /// The portal.
    pub portal: Portal,
    /// What its callbacks prove themselves with; `None` until the CRM has told it.
    pub application_token: Option<String>,
}

/// A portal about to be installed or brought up to date.
pub struct Installation {
    /// Which CRM.
    pub crm: CrmKind,
    /// Which of our applications.
    pub app: String,
    /// The CRM's stable id.
    pub member_id: String,
    /// Host for people.
    pub domain: String,
    /// Base of REST calls.
    pub client_endpoint: String,
    /// Base of the authorization server's REST.
    pub server_endpoint: String,
    /// The secret of its callbacks; `None` keeps the one known.
    pub application_token: Option<String>,
    /// What people there read.
    pub language: Language,
}

type Key = (CrmKind, String, String);

/// What is kept in memory of portals.
pub(super) struct PortalCache {
    by_member: Cache<Key, Arc<KnownPortal>>,
    by_id: Cache<PortalId, Arc<KnownPortal>>,
    /// The latest pair that came along with a proved call. Kept in memory only, and used when every stored pair has
    /// died: a robot's call brings a living pair, and storing one per call would double the work of the hot path.
    offered: Cache<PortalId, Arc<TokenPair>>,
}

impl PortalCache {
    pub(super) fn new() -> Self {
        Self {
            by_member: Cache::builder().max_capacity(10_000).time_to_live(FRESH).build(),
            by_id: Cache::builder().max_capacity(10_000).time_to_live(FRESH).build(),
            offered: Cache::builder().max_capacity(10_000).time_to_live(OFFER).build(),
        }
    }

    async fn forget(&self, portal: &PortalId) {
        if let Some(known) = self.by_id.remove(portal).await {
            let key = (known.portal.crm, known.portal.app.clone(), known.portal.member_id.clone());
            self.by_member.invalidate(&key).await;
        }
    }
}

/// What a sealed pair consists of.
#[derive(Serialize, Deserialize)]
struct StoredPair {
    access: String,
    refresh: String,
}

impl Storage {
    /// The portal behind a callback, as of at most half a minute ago; `fresh` reads it again (for a secret that does
    /// not match).
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn find_portal(
        &self,
        crm: CrmKind,
        app: &str,
        member_id: &str,
        fresh: bool,
    ) -> Result<Option<Arc<KnownPortal>>, StorageError> {
        let key = (crm, app.to_owned(), member_id.to_owned());
        if !fresh && let Some(known) = self.portals.by_member.get(&key).await {
            return Ok(Some(known));
        }
        let row = self.db.row(sql::PORTAL_BY_MEMBER, args![crm.code(), app, member_id]).await?;
        self.keep_portal(row).await
    }

    /// One portal, as of at most half a minute ago.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn portal(&self, id: &PortalId) -> Result<Option<Arc<KnownPortal>>, StorageError> {
        if let Some(known) = self.portals.by_id.get(id).await {
            return Ok(Some(known));
        }
        let row = self.db.row(sql::PORTAL_GET, args![id.as_str()]).await?;
        self.keep_portal(row).await
    }

    async fn keep_portal(&self, row: Option<Row>) -> Result<Option<Arc<KnownPortal>>, StorageError> {
        let Some(row) = row else { return Ok(None) };
        let known = Arc::new(self.read_portal(&row)?);
        let key = (known.portal.crm, known.portal.app.clone(), known.portal.member_id.clone());
        self.portals.by_member.insert(key, Arc::clone(&known)).await;
        self.portals.by_id.insert(known.portal.id.clone(), Arc::clone(&known)).await;
        Ok(Some(known))
    }

    /// Portals in order of installation, those after `after` (`None` is the beginning).
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn list_portals(&self, after: Option<&PortalId>, limit: u32) -> Result<Vec<Portal>, StorageError> {
        let after = after.map_or("", PortalId::as_str);
        let rows = self.db.rows(sql::PORTALS, args![after, i64::from(limit)]).await?;
        rows.iter().map(|row| Ok(self.read_portal(row)?.portal)).collect()
    }

    /// Installs a portal or brings it up to date, together with the tokens that came along. `since` is when the proof
    /// of it was asked for: a removal after that is the newer word, because calls of a portal overtake each other.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was stored.
    pub async fn install_portal(
        &self,
        installation: &Installation,
        tokens: Option<&TokenPair>,
        since: Timestamp,
    ) -> Result<Portal, StorageError> {
        let fresh = PortalId::new(&self.ids.ulid());
        let known = self.find_portal(installation.crm, &installation.app, &installation.member_id, true).await?;
        let id = known.map_or(fresh, |known| known.portal.id.clone());
        let sealed = installation.application_token.as_deref().map(|token| self.sealer.seal(&token_place(&id), token));
        let mut tx = self.db.begin().await?;
        let now = self.clock.now();
        let args = args![
            id.as_str(),
            installation.crm.code(),
            installation.app.as_str(),
            installation.member_id.as_str(),
            installation.domain.as_str(),
            installation.client_endpoint.as_str(),
            installation.server_endpoint.as_str(),
            sealed.transpose()?,
            installation.language.code(),
            now.0,
            since.0,
        ];
        let row = tx.row(sql::PORTAL_UPSERT, args).await?;
        let removed = || StorageError::Unavailable("the application was removed meanwhile".to_owned());
        let stored = row.ok_or_else(removed)?.text("id")?;
        if stored != id.as_str() {
            // Two first installations met; the other one is in, and this one's secrets are sealed to the wrong row.
            return Err(StorageError::Unavailable("the portal is being installed by another request".to_owned()));
        }
        if let Some(pair) = tokens {
            self.save_pair(&mut tx, &id, pair).await?;
        }
        tx.commit().await?;
        self.portals.forget(&id).await;
        let row = self.db.row(sql::PORTAL_GET, args![id.as_str()]).await?;
        let row = row.ok_or_else(|| StorageError::Broken("portals: no row".to_owned()))?;
        Ok(self.read_portal(&row)?.portal)
    }

    /// The word with which calls that the CRM does not sign prove that they are of this portal; made when it is first asked
    /// for, and kept until the application is removed.
    ///
    /// # Errors
    /// [`StorageError`]; may be repeated.
    pub async fn word_of(&self, id: &PortalId) -> Result<String, StorageError> {
        let known = self.portal(id).await?;
        if let Some(word) = known.and_then(|known| known.application_token.clone()) {
            return Ok(word);
        }
        let sealed = self.sealer.seal(&token_place(id), &self.fresh_word()?)?;
        self.db.write(sql::PORTAL_WORD, args![id.as_str(), sealed]).await?;
        self.portals.forget(id).await;
        // Another process may have been first.
        let known = self.portal(id).await?;
        let word = known.and_then(|known| known.application_token.clone());
        word.ok_or_else(|| StorageError::Unavailable("the portal was removed meanwhile".to_owned()))
    }

    /// The portal can, or for the given reason cannot, be talked to.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn set_portal_state(&self, id: &PortalId, state: PortalState, reason: &str) -> Result<(), StorageError> {
        self.db.write(sql::PORTAL_STATE, args![id.as_str(), state.code(), reason, self.clock.now().0]).await?;
        self.portals.forget(id).await;
        Ok(())
    }

    /// Living tokens have come for a portal whose own had died: keeps them, where every replica finds them, and lets the
    /// portal work again. False when it was not waiting for tokens.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was changed.
    pub async fn revive_portal(&self, id: &PortalId, pair: Option<&TokenPair>) -> Result<bool, StorageError> {
        let mut tx = self.db.begin().await?;
        if tx.row(sql::PORTAL_REVIVE, args![id.as_str(), self.clock.now().0]).await?.is_none() {
            return Ok(false);
        }
        if let Some(pair) = pair {
            self.save_pair(&mut tx, id, pair).await?;
        }
        tx.commit().await?;
        self.portals.forget(id).await;
        Ok(true)
    }

    /// Revives the portals that wait for tokens and whose robots brought some to this process since: a call may come in
    /// the very moment in which the old pairs are found dead, also by another replica. Tells which.
    ///
    /// # Errors
    /// [`StorageError`]; may be repeated.
    pub async fn revive_offered(&self) -> Result<Vec<PortalId>, StorageError> {
        let mut revived = Vec::new();
        if self.portals.offered.iter().next().is_none() {
            return Ok(revived);
        }
        for row in self.db.rows(sql::PORTALS_NEEDING_AUTH, args![]).await? {
            let id = PortalId::stored(row.text("id")?);
            let Some(offered) = self.portals.offered.remove(&id).await else { continue };
            if self.revive_portal(&id, Some(&offered)).await? {
                revived.push(id);
            }
        }
        Ok(revived)
    }

    /// The application was removed from the portal: its secrets are forgotten, what was registered is gone, and what was
    /// still to be told to it has nobody to hear it.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was changed.
    pub async fn uninstall_portal(&self, id: &PortalId) -> Result<(), StorageError> {
        let mut tx = self.db.begin().await?;
        let now = self.clock.now().0;
        tx.exec(sql::PORTAL_STATE, args![id.as_str(), PortalState::Uninstalled.code(), "", now]).await?;
        tx.exec(sql::PORTAL_FORGET_TOKEN, args![id.as_str()]).await?;
        tx.exec(sql::TOKENS_FORGET, args![id.as_str()]).await?;
        tx.exec(sql::REGISTRATIONS_FORGET, args![id.as_str()]).await?;
        tx.exec(sql::CLEAN_JOBS_OF_QUEUE, args![QueueKey::Crm(id.clone()).to_string()]).await?;
        tx.commit().await?;
        self.portals.forget(id).await;
        Ok(())
    }

    /// The portal asked that what is known of its people be deleted: its commands, messages, attempts and jobs go. The
    /// portal's own row stays, so that a new installation finds its lines.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was deleted.
    pub async fn clean_portal(&self, id: &PortalId) -> Result<(), StorageError> {
        let mut tx = self.db.begin().await?;
        for queue in [QueueKey::Intake(id.clone()), QueueKey::Crm(id.clone())] {
            tx.exec(sql::CLEAN_JOBS_OF_QUEUE, args![queue.to_string()]).await?;
        }
        for statement in [
            sql::CLEAN_SENDS,
            sql::CLEAN_ATTEMPTS,
            sql::CLEAN_SENT_TEXTS,
            sql::CLEAN_ROBOT_TURNS,
            sql::CLEAN_MESSAGES,
            sql::CLEAN_COMMANDS,
            sql::CLEAN_CHAT_MIRRORS,
            sql::CLEAN_CHAT_CHANGES,
            sql::CLEAN_PAGE_SENDS,
            sql::CLEAN_PAGE_ATTEMPTS,
            sql::CLEAN_PAGE_MESSAGES,
            sql::CLEAN_SIGNS,
            sql::CLEAN_LOST_CALLS,
            sql::CLEAN_LOST_RULES,
            sql::CLEAN_STAGE_ROBOTS,
            sql::CLEAN_STAGE_LOOKS,
            sql::CLEAN_SMS_SENDERS,
            sql::CLEAN_CHATS,
            sql::CLEAN_CHAT_LINES,
        ] {
            tx.exec(statement, args![id.as_str()]).await?;
        }
        tx.commit().await
    }

    /// The CRM removed what we had registered (an update of the application does that).
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn forget_registrations(&self, id: &PortalId) -> Result<(), StorageError> {
        self.db.write(sql::REGISTRATIONS_FORGET, args![id.as_str()]).await?;
        Ok(())
    }

    /// Remembers, in memory only, a pair that came with a proved call.
    pub async fn offer_tokens(&self, portal: &PortalId, pair: TokenPair) {
        self.portals.offered.insert(portal.clone(), Arc::new(pair)).await;
    }

    async fn save_pair(&self, tx: &mut super::db::Tx, portal: &PortalId, pair: &TokenPair) -> Result<(), StorageError> {
        let stored = StoredPair { access: pair.access.clone(), refresh: pair.refresh.clone() };
        let text = serde_json::to_string(&stored).map_err(|e| StorageError::Broken(e.to_string()))?;
        let sealed = self.sealer.seal(&pair_place(portal, &pair.user_id), &text)?;
        let args =
            args![portal.as_str(), pair.user_id.as_str(), pair.is_admin, sealed, pair.expires.0, self.clock.now().0];
        tx.exec(sql::TOKEN_SAVE, args).await?;
        Ok(())
    }

    fn open_pair(&self, portal: &PortalId, user: &str, sealed: &str) -> Result<StoredPair, StorageError> {
        let text = self.sealer.open(&pair_place(portal, user), sealed)?;
        serde_json::from_str(&text).map_err(|e| StorageError::Broken(format!("portal_tokens.pair: {e}")))
    }

    fn read_portal(&self, row: &Row) -> Result<KnownPortal, StorageError> {
        let broken = |what: &str, value: &str| StorageError::Broken(format!("portals.{what}: {value}"));
        let id = PortalId::stored(row.text("id")?);
        let (crm, state) = (row.text("crm")?, row.text("state")?);
        let sealed = row.maybe_text("application_token")?;
        let application_token = sealed.map(|sealed| self.sealer.open(&token_place(&id), &sealed)).transpose()?;
        let portal = Portal {
            crm: CrmKind::find(&crm).ok_or_else(|| broken("crm", &crm))?,
            app: row.text("app")?,
            member_id: row.text("member_id")?,
            domain: row.text("domain")?,
            client_endpoint: row.text("client_endpoint")?,
            server_endpoint: row.text("server_endpoint")?,
            language: if row.text("language")? == Language::Ru.code() { Language::Ru } else { Language::En },
            state: PortalState::find(&state).ok_or_else(|| broken("state", &state))?,
            state_reason: row.text("state_reason")?,
            id,
        };
        Ok(KnownPortal { portal, application_token })
    }
}

#[async_trait]
impl TokenStore for Storage {
    async fn load_tokens(&self, portal: &PortalId) -> Result<Vec<TokenPair>, StoreDown> {
        let rows = self.db.rows(sql::TOKENS, args![portal.as_str()]).await?;
        let read = |row: &Row| -> Result<TokenPair, StorageError> {
            let user_id = row.text("user_id")?;
            let stored = self.open_pair(portal, &user_id, &row.text("pair")?)?;
            Ok(TokenPair {
                is_admin: row.flag("is_admin")?,
                access: stored.access,
                refresh: stored.refresh,
                expires: Timestamp(row.int("expires_ms")?),
                user_id,
            })
        };
        let living: Vec<TokenPair> = rows.iter().map(read).collect::<Result<_, _>>()?;
        if !living.is_empty() {
            return Ok(living);
        }
        // Every stored pair is dead; one that came with a call since may live. It is offered once.
        let Some(offered) = self.portals.offered.remove(portal).await else { return Ok(living) };
        self.save_tokens(portal, &offered).await?;
        Ok(vec![(*offered).clone()])
    }

    async fn save_tokens(&self, portal: &PortalId, pair: &TokenPair) -> Result<(), StoreDown> {
        let mut tx = self.db.begin().await?;
        self.save_pair(&mut tx, portal, pair).await?;
        Ok(tx.commit().await?)
    }

    async fn drop_tokens(&self, portal: &PortalId, pair: &TokenPair) -> Result<(), StoreDown> {
        let row = self.db.row(sql::TOKEN_GET, args![portal.as_str(), pair.user_id.as_str()]).await?;
        let Some(row) = row else { return Ok(()) };
        let sealed = row.text("pair")?;
        if self.open_pair(portal, &pair.user_id, &sealed)?.refresh == pair.refresh {
            self.db.write(sql::TOKEN_DROP, args![portal.as_str(), pair.user_id.as_str(), sealed]).await?;
        }
        Ok(())
    }

    async fn save_endpoint(&self, portal: &PortalId, domain: &str, client_endpoint: &str) -> Result<(), StoreDown> {
        let args = args![portal.as_str(), domain, client_endpoint, self.clock.now().0];
        self.db.write(sql::PORTAL_ENDPOINT, args).await?;
        self.portals.forget(portal).await;
        Ok(())
    }

    async fn load_registrations(&self, portal: &PortalId) -> Result<Vec<(String, String)>, StoreDown> {
        let rows = self.db.rows(sql::REGISTRATIONS, args![portal.as_str()]).await?;
        let read = |row: &Row| Ok((row.text("key")?, row.text("fingerprint")?));
        Ok(rows.iter().map(read).collect::<Result<_, StorageError>>()?)
    }

    async fn save_registration(
        &self,
        portal: &PortalId,
        key: &str,
        fingerprint: Option<&str>,
    ) -> Result<(), StoreDown> {
        match fingerprint {
            Some(text) => self.db.write(sql::REGISTRATION_SAVE, args![portal.as_str(), key, text]).await?,
            None => self.db.write(sql::REGISTRATION_DROP, args![portal.as_str(), key]).await?,
        };
        Ok(())
    }
}

/// Where the secret of a portal's callbacks is sealed to.
fn token_place(portal: &PortalId) -> String {
    format!("portals.application_token:{portal}")
}

/// Where a user's pair is sealed to.
fn pair_place(portal: &PortalId, user: &str) -> String {
    format!("portal_tokens.pair:{portal}:{user}")
}
