//! Access and refresh tokens of all portals. Source: §2.3.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use serde::Serialize;

use super::OAuthOptions;
use crate::{clock::Millis, ids::Ids};

/// Pairs beyond this are forgotten, oldest first; their tokens then count as garbled.
const PAIRS_KEPT: usize = 400_000;
/// An authorization code lives 30 seconds (§2.2).
const CODE_LIFE_MS: i64 = 30_000;

/// For whom and what a token was issued.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) member_id: Arc<str>,
    pub(crate) client_id: Arc<str>,
    pub(crate) user_id: i64,
    pub(crate) epoch: u64,
    /// Hops left for events caused with this token (§4.2.6); `None` = an ordinary token.
    pub(crate) hops: Option<u8>,
}

/// A fresh pair.
#[derive(Clone, Debug, Serialize)]
pub struct TokenPair {
    /// Access token.
    pub access_token: String,
    /// Refresh token.
    pub refresh_token: String,
    /// Unix seconds at which the access token dies.
    pub expires: i64,
    /// Seconds until then.
    pub expires_in: i64,
}

struct Access {
    grant: Arc<Grant>,
    expires_ms: Millis,
    revoked: bool,
}

struct Refresh {
    grant: Arc<Grant>,
    expires_ms: Millis,
    used_ms: Option<Millis>,
    access: String,
}

#[derive(Default)]
struct Inner {
    access: HashMap<String, Access>,
    refresh: HashMap<String, Refresh>,
    codes: HashMap<String, (Arc<Grant>, Millis)>,
    order: VecDeque<(String, String)>,
}

/// How a presented access token fares.
pub(crate) enum Presented {
    Good(Arc<Grant>),
    Expired,
    Unknown,
}

/// How a presented refresh token fares.
pub(crate) enum Refreshed {
    Good(Arc<Grant>, TokenPair),
    Refused(&'static str),
}

#[derive(Default)]
pub(crate) struct TokenStore {
    inner: Mutex<Inner>,
}

impl TokenStore {
    pub(crate) fn issue(&self, ids: &Ids, options: &OAuthOptions, now: Millis, grant: Grant) -> TokenPair {
        self.inner.lock().issue(ids, options, now, Arc::new(grant))
    }

    pub(crate) fn check(&self, token: &str, now: Millis) -> Presented {
        match self.inner.lock().access.get(token) {
            None => Presented::Unknown,
            Some(access) if access.revoked || access.expires_ms <= now => Presented::Expired,
            Some(access) => Presented::Good(access.grant.clone()),
        }
    }

    /// Makes an access token expire at once.
    pub(crate) fn expire(&self, token: &str) {
        if let Some(access) = self.inner.lock().access.get_mut(token) {
            access.revoked = true;
        }
    }

    /// Makes every access token of a portal expire at once.
    pub(crate) fn expire_portal(&self, member_id: &str) -> usize {
        let mut inner = self.inner.lock();
        let tokens =
            inner.access.values_mut().filter(|access| &*access.grant.member_id == member_id && !access.revoked);
        tokens.map(|access| access.revoked = true).count()
    }

    /// Makes refresh tokens of a portal useless (180 days are over, or Bitrix withdrew them).
    pub(crate) fn kill_refresh(&self, member_id: &str) -> usize {
        let mut inner = self.inner.lock();
        let tokens = inner.refresh.values_mut().filter(|refresh| &*refresh.grant.member_id == member_id);
        tokens.map(|refresh| refresh.expires_ms = 0).count()
    }

    pub(crate) fn kill_one_refresh(&self, token: &str) {
        if let Some(refresh) = self.inner.lock().refresh.get_mut(token) {
            refresh.expires_ms = 0;
        }
    }

    pub(crate) fn refresh_grant(&self, token: &str) -> Option<Arc<Grant>> {
        self.inner.lock().refresh.get(token).map(|refresh| refresh.grant.clone())
    }

    pub(crate) fn refresh(
        &self,
        ids: &Ids,
        options: &OAuthOptions,
        now: Millis,
        client_id: &str,
        token: &str,
    ) -> Refreshed {
        let mut inner = self.inner.lock();
        let Some(row) = inner.refresh.get_mut(token) else { return Refreshed::Refused("unknown refresh token") };
        if &*row.grant.client_id != client_id {
            return Refreshed::Refused("refresh token was issued to another client");
        }
        if row.expires_ms <= now {
            return Refreshed::Refused("refresh token has expired");
        }
        if row.used_ms.is_some_and(|used| options.grace_ms == 0 || now - used > options.grace_ms) {
            return Refreshed::Refused("refresh token was used before");
        }
        row.used_ms.get_or_insert(now);
        let (grant, old_access) = (row.grant.clone(), row.access.clone());
        if options.revoke_on_refresh
            && let Some(access) = inner.access.get_mut(&old_access)
        {
            access.revoked = true;
        }
        // A token won by refreshing is an ordinary one, whatever it descends from.
        let fresh = Arc::new(Grant { hops: None, ..(*grant).clone() });
        let pair = inner.issue(ids, options, now, fresh.clone());
        Refreshed::Good(fresh, pair)
    }

    pub(crate) fn issue_code(&self, ids: &Ids, now: Millis, grant: Grant) -> String {
        let code = ids.letters(32);
        self.inner.lock().codes.insert(code.clone(), (Arc::new(grant), now + CODE_LIFE_MS));
        code
    }

    /// Redeems a code; once.
    pub(crate) fn redeem(
        &self,
        ids: &Ids,
        options: &OAuthOptions,
        now: Millis,
        client_id: &str,
        code: &str,
    ) -> Refreshed {
        let mut inner = self.inner.lock();
        match inner.codes.remove(code) {
            Some((grant, until)) if until > now && &*grant.client_id == client_id => {
                let pair = inner.issue(ids, options, now, grant.clone());
                Refreshed::Good(grant, pair)
            }
            Some(_) => Refreshed::Refused("code has expired or belongs to another client"),
            None => Refreshed::Refused("unknown or used code"),
        }
    }
}

impl Inner {
    fn issue(&mut self, ids: &Ids, options: &OAuthOptions, now: Millis, grant: Arc<Grant>) -> TokenPair {
        let expires = now / 1000 + options.access_life_s;
        let access_token = format!("{:08x}{}", expires & 0xffff_ffff, ids.hex(62));
        let refresh_token = format!("{:08x}{}", (expires + options.refresh_life_s) & 0xffff_ffff, ids.hex(62));
        let expires_ms = now + options.access_life_s * 1000;
        self.access.insert(access_token.clone(), Access { grant: grant.clone(), expires_ms, revoked: false });
        let refresh = Refresh {
            grant,
            expires_ms: now + options.refresh_life_s * 1000,
            used_ms: None,
            access: access_token.clone(),
        };
        self.refresh.insert(refresh_token.clone(), refresh);
        self.order.push_back((access_token.clone(), refresh_token.clone()));
        if self.order.len() > PAIRS_KEPT
            && let Some((access, refresh)) = self.order.pop_front()
        {
            self.access.remove(&access);
            self.refresh.remove(&refresh);
        }
        TokenPair { access_token, refresh_token, expires, expires_in: options.access_life_s }
    }
}
