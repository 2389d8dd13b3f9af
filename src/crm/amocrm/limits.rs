//! Our twin of amoCRM's limits: requests per second to one account, and from our address to all of them.
//!
//! amoCRM counts 7 requests a second, by account and integration in one text and by address in another, so both are
//! kept. Whoever goes on after a 429 is shut out with the whole address (protocol reference, section "Limits and
//! blocking", read 2026-11); therefore each request takes its turn here, also those of one job that needs several. What
//! counts is when a request really left: after a stall, waiting requests must not leave all at once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::crm::Budget;
use crate::domain::time::{Millis, Timestamp};

/// The vendor's second, and what the way there may compress.
const WINDOW: Millis = Millis(1_100);
/// Entities in one request after a gateway gave up on one of them, at least.
const ENTITIES_MIN: usize = 1;
/// So many accounts are let in before idle ones are looked for.
const SWEEP_AT: usize = 512;

/// The twins of all accounts in use.
pub(super) struct Limits {
    per_second: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    address: Window,
    accounts: HashMap<String, Account>,
}

#[derive(Default)]
struct Account {
    window: Window,
    blocked_until: Option<Timestamp>,
    /// Entities in one request, after a 504 fewer; `None` is the usual number.
    entities: Option<usize>,
}

/// When the last requests left, oldest first.
#[derive(Default)]
struct Window(VecDeque<Timestamp>);

impl Window {
    fn used(&self, now: Timestamp) -> usize {
        self.0.iter().filter(|left| left.plus(WINDOW) > now).count()
    }

    /// How long until another may leave.
    fn wait(&self, now: Timestamp, most: usize) -> Millis {
        let used = self.used(now);
        let frees = used.checked_sub(most).and_then(|over| self.0.iter().rev().nth(used - 1 - over));
        frees.map_or(Millis(0), |left| left.plus(WINDOW).since(now).max(Millis(1)))
    }

    fn leaves(&mut self, now: Timestamp) {
        while self.0.front().is_some_and(|left| left.plus(WINDOW) <= now) {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }
}

impl Limits {
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second: usize::try_from(per_second).unwrap_or(1).max(1), state: Mutex::default() }
    }

    /// Lets a request leave now, or tells when to ask again.
    pub(super) fn leave(&self, account: &str, now: Timestamp) -> Result<(), Millis> {
        let mut state = self.lock();
        let by_address = state.address.wait(now, self.per_second);
        let wait = by_address.max(Self::account(&mut state, account, now).window.wait(now, self.per_second));
        if wait.0 > 0 {
            return Err(wait);
        }
        state.address.leaves(now);
        Self::account(&mut state, account, now).window.leaves(now);
        Ok(())
    }

    /// The account asked for silence.
    pub(super) fn block(&self, account: &str, now: Timestamp, wait: Millis) {
        let mut state = self.lock();
        let account = Self::account(&mut state, account, now);
        let until = now.plus(wait);
        account.blocked_until = Some(account.blocked_until.map_or(until, |earlier| earlier.max(until)));
    }

    /// Until when nothing may be sent to the account.
    pub(super) fn blocked_until(&self, account: &str, now: Timestamp) -> Option<Timestamp> {
        self.lock().accounts.get(account)?.blocked_until.filter(|until| *until > now)
    }

    /// How many entities one request to the account may carry.
    pub(super) fn entities(&self, account: &str, usual: usize) -> usize {
        self.lock().accounts.get(account).and_then(|account| account.entities).unwrap_or(usual)
    }

    /// A gateway gave up on a request of so many entities: the next ones are half as large.
    pub(super) fn halve(&self, account: &str, entities: usize, now: Timestamp) {
        let mut state = self.lock();
        Self::account(&mut state, account, now).entities = Some((entities / 2).max(ENTITIES_MIN));
    }

    /// A request of so many entities went through: a lowered number grows again.
    pub(super) fn grow(&self, account: &str, entities: usize, usual: usize) {
        let mut state = self.lock();
        let Some(account) = state.accounts.get_mut(account) else { return };
        if let Some(lowered) = account.entities.filter(|lowered| entities >= *lowered) {
            account.entities = Some(lowered * 2).filter(|next| *next < usual);
        }
    }

    /// What may be called now.
    pub(super) fn budget(&self, account: &str, now: Timestamp) -> Budget {
        let state = self.lock();
        let known = state.accounts.get(account);
        let used = known.map_or(0, |account| account.window.used(now)).max(state.address.used(now));
        let most = self.per_second as f64;
        let blocked_until = known.and_then(|account| account.blocked_until).filter(|until| *until > now);
        Budget { calls: (most - used as f64).max(0.0), burst: most, per_second: most, blocked_until }
    }

    fn account<'a>(state: &'a mut State, account: &str, now: Timestamp) -> &'a mut Account {
        if state.accounts.len() >= SWEEP_AT && !state.accounts.contains_key(account) {
            state
                .accounts
                .retain(|_, known| known.window.used(now) > 0 || known.blocked_until.is_some_and(|until| until > now));
        }
        state.accounts.entry(account.to_owned()).or_default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp(1_000_000 + millis)
    }

    #[test]
    fn no_second_ever_holds_more_than_is_allowed() {
        let limits = Limits::new(5);
        let (mut now, mut sent) = (0, Vec::new());
        while sent.len() < 40 {
            match limits.leave("1", at(now)) {
                Ok(()) => sent.push(now),
                // A process that stalls comes late, and then at once.
                Err(wait) => now += wait.0.max(if sent.len() == 20 { 3_000 } else { 0 }),
            }
        }
        for start in &sent {
            let within = sent.iter().filter(|moment| (*start..*start + 1000).contains(moment)).count();
            assert!(within <= 5, "{within} requests from {start} ms on");
        }
        assert!(sent[39] <= 11_000, "full use is made of the limit: {sent:?}");
    }

    #[test]
    fn accounts_share_the_address() {
        let limits = Limits::new(2);
        assert_eq!(limits.leave("1", at(0)), Ok(()));
        assert_eq!(limits.leave("2", at(100)), Ok(()));
        assert_eq!(limits.leave("3", at(200)), Err(Millis(900)));
        assert_eq!(limits.budget("9", at(200)).calls, 0.0);
        assert_eq!(limits.budget("9", at(1_100)).calls, 1.0);
        assert_eq!(limits.leave("3", at(1_100)), Ok(()));
    }

    #[test]
    fn an_account_that_asks_for_silence_gets_it_alone() {
        let limits = Limits::new(5);
        limits.block("1", at(0), Millis::seconds(300));
        limits.block("1", at(0), Millis::seconds(1));
        assert_eq!(limits.budget("1", at(0)).blocked_until, Some(at(300_000)));
        assert_eq!(limits.blocked_until("1", at(299_999)), Some(at(300_000)));
        assert_eq!(limits.blocked_until("1", at(300_000)), None);
        assert_eq!(limits.budget("2", at(0)).blocked_until, None);
    }

    #[test]
    fn requests_shrink_when_a_gateway_gives_up_and_grow_again() {
        let limits = Limits::new(5);
        assert_eq!(limits.entities("1", 50), 50);
        limits.halve("1", 50, at(0));
        limits.halve("1", 25, at(0));
        assert_eq!(limits.entities("1", 50), 12);
        limits.grow("1", 3, 50);
        assert_eq!(limits.entities("1", 50), 12, "a small one proves nothing");
        limits.grow("1", 12, 50);
        limits.grow("1", 24, 50);
        assert_eq!(limits.entities("1", 50), 48);
        limits.grow("1", 48, 50);
        assert_eq!(limits.entities("1", 50), 50);
        limits.halve("2", 1, at(0));
        assert_eq!(limits.entities("2", 50), 1);
    }
}
