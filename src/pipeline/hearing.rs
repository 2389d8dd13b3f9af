//! What this process and the others may have missed of the vendors' callbacks, and how long that makes us wait for an echo or a
//! status (`domain::hearing`, `docs/adr/0004`).

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Pipeline;
use crate::domain::hearing::Deaf;
use crate::domain::time::{Millis, Timestamp};
use crate::storage::StorageError;

/// A process that gives no sign of life may come back for so many leases; until then it may hold an echo.
const PATIENCE: i64 = 3;

/// What all processes may have missed together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Heard {
    pub(super) deaf: Deaf,
    /// One of them gives no sign of life and may still come back, with more.
    pub(super) silent: bool,
}

/// What this process may have missed, and what of that the others have been told.
pub(super) struct Own(Mutex<(Deaf, Deaf)>);

impl Own {
    /// For a process that begins now and has not yet asked what was before.
    pub(super) fn unknown(now: Timestamp) -> Self {
        Self(Mutex::new((Deaf { from: Timestamp(0), until: now }, Deaf::NEVER)))
    }

    fn lock(&self) -> MutexGuard<'_, (Deaf, Deaf)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pipeline {
    /// Callbacks may not have been taken from `from` until now: one was refused because the database did not answer, or
    /// this process stood still for longer than its lease. The vendor calls again, later.
    pub fn was_deaf(&self, from: Timestamp) {
        let now = self.clock.now();
        let mut own = self.hearing.lock();
        own.0 = Deaf::last(vec![own.0, Deaf { from: from.min(now), until: now }], self.next_try());
    }

    /// What this process knows by itself to have been missed.
    pub(super) fn deaf(&self) -> Deaf {
        self.hearing.lock().0
    }

    /// How long a vendor takes to call again after its first try, at most: as long as an echo is usually waited for.
    pub(super) fn next_try(&self) -> Millis {
        let rules = self.providers.values().map(|provider| provider.spec().unclear.wait);
        self.settings.unclear_wait.or(rules.max()).unwrap_or(Millis(0))
    }

    /// How long after its lease a silent process may still come back.
    fn patience(&self) -> Millis {
        Millis(self.settings.lease.0.saturating_mul(PATIENCE))
    }

    /// What all processes may have missed together.
    pub(super) async fn heard_by_all(&self) -> Result<Heard, StorageError> {
        let others = self.storage.others_hearing(&self.worker, self.patience()).await?;
        let all = others.deaf.into_iter().chain([self.deaf()]).collect();
        Ok(Heard { deaf: Deaf::last(all, self.next_try()), silent: others.silent })
    }

    /// The first sign of life. Before whoever left is forgotten, what it told is taken over.
    pub(super) async fn begin_hearing(&self) -> Result<(), StorageError> {
        let (lease, least) = (self.settings.lease, self.next_try());
        let patience = Millis(lease.0.saturating_add(self.patience().0));
        let before = self.storage.worker_begin(&self.worker, lease, patience, least).await?;
        let mut own = self.hearing.lock();
        // Until now the beginning of time was assumed.
        *own = (Deaf { from: before.from, until: own.0.until.max(before.until) }, before);
        Ok(())
    }

    /// Tells the others what this process may have missed, if that is news: together with what they have missed, because a
    /// vendor's tries may lead from one to the other.
    pub(super) async fn tell_deafness(&self) -> Result<(), StorageError> {
        let (known, told) = *self.hearing.lock();
        if known == told {
            return Ok(());
        }
        let deaf = self.heard_by_all().await?.deaf;
        self.storage.worker_deaf(&self.worker, deaf).await?;
        let mut own = self.hearing.lock();
        if own.0 == known {
            own.0 = deaf;
        }
        own.1 = deaf;
        Ok(())
    }

    /// How long, from its beginning, the echo of a send is waited for before its absence means anything, as far as this
    /// process knows. `rule` is the provider's usual wait; without an echo there is nothing to wait for.
    pub(super) fn echo_wait(&self, rule: Millis, started: Timestamp) -> Millis {
        self.echo_wait_after(rule, started, self.deaf())
    }

    /// The same after a stretch in which processes were deaf.
    pub(super) fn echo_wait_after(&self, rule: Millis, started: Timestamp, deaf: Deaf) -> Millis {
        if rule.0 == 0 {
            return rule;
        }
        let wait = self.settings.unclear_wait.unwrap_or(rule);
        if deaf.until <= started { wait } else { wait.max(deaf.made_up(started, wait).since(started)) }
    }
}
