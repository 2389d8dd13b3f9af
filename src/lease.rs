//! What a process may still believe of its queues: the lease, as its owner sees it.
//!
//! A process that stood still (stopped, swapped out, cut off from the database) wakes up believing that its queues are
//! still its own, and may be about to write a request whose job somebody else has meanwhile taken over. The store
//! refuses to let it *begin* such a job; this refuses to let a request *leave* that was begun before. Whoever
//! begins what must not be done twice takes a [`Pass`] first, and the way out looks at it where the request's body is
//! handed to the connection, as late as can be (`docs/adr/0008`).
//!
//! Time is measured by the machine's steady clock, which no setting of the wall clock moves.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::domain::time::Millis;

tokio::task_local! {
    static PASS: Pass;
}

/// The lease of this process on its queues. Copies are one lease.
#[derive(Clone, Default)]
pub struct Lease(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Grows whenever the lease had ended: what was begun in an earlier term is no longer ours.
    term: u64,
    /// The others keep off until then at least; `None` before the first sign of life and after the last.
    until: Option<Instant>,
}

impl State {
    fn is_over(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() >= until)
    }
}

impl Lease {
    /// The sign of life that was begun at `from` has been stored and holds for `length`. True when the lease had ended
    /// before: others may have taken our queues.
    pub fn renew(&self, from: Instant, length: Millis) -> bool {
        let mut state = self.lock();
        let lost = state.until.is_some() && state.is_over();
        if lost {
            state.term += 1;
        }
        state.until = Some(from + length.to_duration());
        lost
    }

    /// Nothing leaves any more.
    pub fn end(&self) {
        let mut state = self.lock();
        state.term += 1;
        state.until = None;
    }

    /// A pass for what begins now.
    #[must_use]
    pub fn pass(&self) -> Pass {
        Pass { lease: self.clone(), term: self.lock().term }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to send what was begun while the lease held. It ends with the lease and does not come back with the next one.
#[derive(Clone)]
pub struct Pass {
    lease: Lease,
    term: u64,
}

impl Pass {
    /// True while the lease has held without a gap since the pass was taken.
    #[must_use]
    pub fn holds(&self) -> bool {
        let state = self.lease.lock();
        state.term == self.term && !state.is_over()
    }
}

/// Runs `work`; its calls that change something leave only while the pass holds.
pub async fn within<F: Future>(pass: Pass, work: F) -> F::Output {
    PASS.scope(pass, work).await
}

/// The pass that the running work was given; `None` for work that needs none.
#[must_use]
pub fn current() -> Option<Pass> {
    PASS.try_with(Clone::clone).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Millis = Millis::minutes(1);

    #[test]
    fn a_pass_ends_with_the_lease_and_does_not_come_back() {
        let lease = Lease::default();
        assert!(!lease.pass().holds(), "no sign of life yet");
        let long_ago = Instant::now().checked_sub(LONG.to_duration()).unwrap();
        assert!(!lease.renew(Instant::now(), LONG), "the first one");
        let pass = lease.pass();
        assert!(pass.holds());
        assert!(!lease.renew(Instant::now(), LONG), "no gap");
        assert!(pass.holds());
        lease.renew(long_ago, Millis(1));
        assert!(!pass.holds(), "it is over");
        assert!(lease.renew(Instant::now(), LONG), "others may have been here");
        assert!(!pass.holds() && lease.pass().holds());
        let pass = lease.pass();
        lease.end();
        lease.renew(Instant::now(), LONG);
        assert!(!pass.holds());
    }

    #[tokio::test]
    async fn work_carries_its_pass() {
        let lease = Lease::default();
        lease.renew(Instant::now(), LONG);
        assert!(current().is_none());
        let inside = within(lease.pass(), async { current().is_some_and(|pass| pass.holds()) }).await;
        assert!(inside && current().is_none());
    }
}
