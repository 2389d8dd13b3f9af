//! Tokens of a portal: which one to use, and how it is renewed without ever losing the portal.
//!
//! Both CRMs rotate: an access token lives an hour (Bitrix24) or a day (amoCRM), and every refresh replaces both tokens
//! of a pair. So a pair is renewed only when it is needed, by one caller at a time, and kept before it is used; a refresh
//! goes on even when whoever asked for it has gone, because the old pair dies when the server answers (protocol
//! references, sections "Refresh" and "Token endpoint", read 2026-11). What differs is said by a [`Refresher`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use tokio::sync::Mutex as AsyncMutex;

use super::{TokenPair, TokenStore, needs_auth, own, store_down};
use crate::domain::effect::{CrmError, PortalTrouble};
use crate::domain::ids::PortalId;
use crate::domain::outcome::FailureClass;
use crate::domain::portal::Portal;
use crate::domain::time::{Clock, Millis};

/// So many locks are kept before unused ones are looked for.
const LOCKS_SWEEP: usize = 512;

/// How one CRM renews.
#[async_trait]
pub(in crate::crm) trait Refresher: Send + Sync {
    /// The CRM's word in the log.
    fn crm(&self) -> &'static str;

    /// An access token that ends sooner is renewed before it is used.
    fn renew_before(&self) -> Millis;

    /// Exchanges a refresh token for a new pair. The old one is dead as soon as the server has answered.
    async fn refresh(&self, portal: &Portal, refresh: &str) -> Result<Fresh, Stale>;
}

/// A new pair.
pub(in crate::crm) struct Fresh {
    pub(in crate::crm) access: String,
    pub(in crate::crm) refresh: String,
    /// How long the access token lives from now on.
    pub(in crate::crm) lives: Millis,
    /// Where the portal's REST stands now, if the server tells.
    pub(in crate::crm) place: Option<Place>,
}

/// Where a portal stands. Both have been checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::crm) struct Place {
    /// Host as people know it.
    pub(in crate::crm) domain: String,
    /// Base of REST calls, ends with `/`.
    pub(in crate::crm) endpoint: String,
}

/// The tokens of all portals of one CRM.
pub(super) struct Tokens {
    inner: Arc<Inner>,
}

/// A user of a portal.
type Key = (PortalId, String);

struct Inner {
    refresher: Arc<dyn Refresher>,
    store: Arc<dyn TokenStore>,
    clock: Arc<dyn Clock>,
    /// One refresh at a time per user of a portal.
    locks: Mutex<HashMap<Key, Weak<AsyncMutex<()>>>>,
    /// New pairs the store did not take. They are the only living ones, so they are kept until it does.
    unsaved: Mutex<HashMap<Key, TokenPair>>,
    /// Portals that moved while somebody still holds the old record: old endpoint and new one.
    moved: Mutex<HashMap<PortalId, (String, String)>>,
}

/// Why a pair could not be renewed.
pub(in crate::crm) enum Stale {
    /// This pair is dead; another user's may live.
    Dead,
    /// It could not be found out.
    Failed(CrmError),
}

impl Tokens {
    pub(super) fn new(refresher: Arc<dyn Refresher>, store: Arc<dyn TokenStore>, clock: Arc<dyn Clock>) -> Self {
        let (locks, unsaved, moved) = Default::default();
        Self { inner: Arc::new(Inner { refresher, store, clock, locks, unsaved, moved }) }
    }

    /// The best living pair, renewed if it is about to end.
    ///
    /// # Errors
    /// `NeedsAuth` when no pair is left; otherwise why none could be renewed, if also none is still valid.
    pub(super) async fn usable(&self, portal: &Portal) -> Result<TokenPair, CrmError> {
        let pairs = self.inner.load(portal).await?;
        let mut failed = None;
        for pair in &pairs {
            if self.inner.is_fresh(pair) {
                return Ok(pair.clone());
            }
            if failed.is_some() {
                continue;
            }
            match self.renew(portal, pair).await {
                Ok(new) => return Ok(new),
                Err(Stale::Dead) => {}
                Err(Stale::Failed(error)) => failed = Some(error),
            }
        }
        let Some(error) = failed else { return Err(needs_auth()) };
        // The server could not be asked; a pair in its last minute may still do.
        let now = self.inner.clock.now();
        pairs.into_iter().find(|pair| pair.expires > now).ok_or(error)
    }

    /// The living pairs as they are kept, best first; nothing is renewed.
    pub(super) async fn kept(&self, portal: &Portal) -> Result<Vec<TokenPair>, CrmError> {
        self.inner.load(portal).await
    }

    /// The portal does not take this access token any more: renews the pair, or goes on to another user's.
    pub(super) async fn after_expiry(&self, portal: &Portal, pair: &TokenPair) -> Result<TokenPair, CrmError> {
        match self.renew(portal, pair).await {
            Ok(new) => Ok(new),
            Err(Stale::Dead) => self.usable(portal).await,
            Err(Stale::Failed(error)) => Err(error),
        }
    }

    /// The portal does not take this user any more (dismissed, no access to the application): goes on to another's.
    pub(super) async fn without(&self, portal: &Portal, pair: &TokenPair) -> Result<TokenPair, CrmError> {
        tracing::warn!(portal.id = %portal.id, crm = self.inner.refresher.crm(), crm.user = pair.user_id, "user no longer accepted");
        self.inner.store.drop_tokens(&portal.id, pair).await.map_err(store_down)?;
        self.usable(portal).await
    }

    /// Where the portal's REST stands, as far as we have heard since the record was read.
    pub(super) fn endpoint(&self, portal: &Portal) -> String {
        let mut moved = self.inner.moved.lock().unwrap_or_else(PoisonError::into_inner);
        match moved.get(&portal.id) {
            Some((old, new)) if *old == portal.client_endpoint => return new.clone(),
            Some(_) => {
                moved.remove(&portal.id);
            }
            None => {}
        }
        portal.client_endpoint.clone()
    }

    /// Remembers that the portal moved.
    pub(super) async fn adopt(&self, portal: &Portal, place: &Place) {
        self.inner.adopt(portal, place).await;
    }

    async fn renew(&self, portal: &Portal, pair: &TokenPair) -> Result<TokenPair, Stale> {
        let (inner, portal, pair) = (Arc::clone(&self.inner), portal.clone(), pair.clone());
        let running = tokio::spawn(async move { inner.renew(&portal, &pair).await });
        running.await.unwrap_or_else(|e| {
            let text = format!("the refresh was interrupted: {e}");
            Err(Stale::Failed(own(FailureClass::Unavailable, PortalTrouble::None, "refresh_interrupted", text)))
        })
    }
}

impl Inner {
    async fn renew(&self, portal: &Portal, stale: &TokenPair) -> Result<TokenPair, Stale> {
        let key: Key = (portal.id.clone(), stale.user_id.clone());
        let lock = self.lock_of(&key);
        let _one_at_a_time = lock.lock().await;
        self.save_late(&key).await?;
        let Some(mut kept) = self.kept(portal, stale).await? else { return Err(Stale::Dead) };
        if kept.access != stale.access && self.is_fresh(&kept) {
            return Ok(kept);
        }
        for last in [false, true] {
            match self.refresher.refresh(portal, &kept.refresh).await {
                Ok(fresh) => {
                    let new = TokenPair {
                        access: fresh.access,
                        refresh: fresh.refresh,
                        expires: self.clock.now().plus(fresh.lives),
                        ..kept
                    };
                    self.save(&key, &new).await?;
                    if let Some(place) = fresh.place {
                        self.adopt(portal, &place).await;
                    }
                    return Ok(new);
                }
                Err(Stale::Failed(error)) => return Err(Stale::Failed(error)),
                Err(Stale::Dead) => {}
            }
            // Another process may have been faster: then the store holds a pair we have not tried.
            match self.kept(portal, stale).await? {
                Some(other) if other.refresh != kept.refresh && self.is_fresh(&other) => return Ok(other),
                Some(other) if other.refresh != kept.refresh && !last => kept = other,
                Some(_) | None => break,
            }
        }
        tracing::warn!(portal.id = %portal.id, crm = self.refresher.crm(), crm.user = kept.user_id, "tokens are dead");
        self.store.drop_tokens(&portal.id, &kept).await.map_err(|e| Stale::Failed(store_down(e)))?;
        Err(Stale::Dead)
    }

    async fn load(&self, portal: &Portal) -> Result<Vec<TokenPair>, CrmError> {
        self.store.load_tokens(&portal.id).await.map_err(store_down)
    }

    /// The pair of the same user as the store has it now.
    async fn kept(&self, portal: &Portal, pair: &TokenPair) -> Result<Option<TokenPair>, Stale> {
        let pairs = self.load(portal).await.map_err(Stale::Failed)?;
        Ok(pairs.into_iter().find(|kept| kept.user_id == pair.user_id))
    }

    async fn save(&self, key: &Key, pair: &TokenPair) -> Result<(), Stale> {
        if let Err(error) = self.store.save_tokens(&key.0, pair).await {
            tracing::error!(
                portal.id = %key.0, crm = self.refresher.crm(),
                "new tokens could not be kept; trying again with the next call"
            );
            self.unsaved().insert(key.clone(), pair.clone());
            return Err(Stale::Failed(store_down(error)));
        }
        Ok(())
    }

    async fn save_late(&self, key: &Key) -> Result<(), Stale> {
        let waiting = self.unsaved().get(key).cloned();
        let Some(pair) = waiting else { return Ok(()) };
        self.save(key, &pair).await?;
        self.unsaved().remove(key);
        Ok(())
    }

    async fn adopt(&self, portal: &Portal, place: &Place) {
        if place.endpoint == portal.client_endpoint && place.domain == portal.domain {
            return;
        }
        tracing::info!(portal.id = %portal.id, crm = self.refresher.crm(), domain = place.domain, "portal moved");
        if let Err(error) = self.store.save_endpoint(&portal.id, &place.domain, &place.endpoint).await {
            tracing::warn!(portal.id = %portal.id, error = error.0, "new endpoint could not be kept");
        }
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        moved.insert(portal.id.clone(), (portal.client_endpoint.clone(), place.endpoint.clone()));
    }

    /// A token that cannot be renewed (a long-lived one) is good to its last moment.
    fn is_fresh(&self, pair: &TokenPair) -> bool {
        let before = if pair.refresh.is_empty() { Millis(0) } else { self.refresher.renew_before() };
        pair.expires > self.clock.now().plus(before)
    }

    fn unsaved(&self) -> std::sync::MutexGuard<'_, HashMap<Key, TokenPair>> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_of(&self, key: &Key) -> Arc<AsyncMutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        if locks.len() >= LOCKS_SWEEP {
            locks.retain(|_, lock| lock.strong_count() > 0);
        }
        let lock = Arc::new(AsyncMutex::new(()));
        locks.insert(key.clone(), Arc::downgrade(&lock));
        lock
    }
}
