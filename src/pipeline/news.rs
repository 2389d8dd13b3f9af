//! Looks in the database for queues with work that nobody runs.
//!
//! Every commit that brings work to a queue of nobody asks for a look, so a rush over a thousand quiet portals asks for
//! a thousand at once. They are made one after the other, and all that ask meanwhile share the next one: looks side by
//! side would find the same queues and take each of them again, a commit every time.

use std::sync::{Arc, Mutex, PoisonError};

use super::Pipeline;
use super::mailbox::Message;
use crate::domain::job::QueueKey;
use crate::domain::time::Millis;
use crate::storage::StorageError;

/// Whether a look is under way.
#[derive(Default)]
pub(super) struct Looking {
    under_way: bool,
    /// Another one is wanted after it, and whether also for queues whose owner is gone.
    next: Option<bool>,
}

impl Looking {
    /// True when a look may begin now; otherwise one follows that under way. `orphans`: also for queues whose owner is gone.
    pub(super) fn begin(&mut self, orphans: bool) -> bool {
        if self.under_way {
            self.next = Some(orphans || self.next == Some(true));
            return false;
        }
        self.under_way = true;
        true
    }

    /// A look is over; gives the next one if it is wanted. `more`: there was more than one look can bring.
    pub(super) fn over(&mut self, more: bool) -> Option<bool> {
        self.under_way = false;
        self.next.take().or(more.then_some(true))
    }
}

/// Looks once, and takes what can be had.
pub(super) async fn look(pipeline: Arc<Pipeline>, orphans: bool) {
    let more = match pipeline.storage.queues_to_look_at(&pipeline.worker, orphans).await {
        Ok(found) => {
            let full = found.full;
            take_all(&pipeline, found.queues).await > 0 && full
        }
        Err(error) => {
            tracing::warn!(%error, "queues with news could not be looked up");
            false
        }
    };
    pipeline.scheduler.send(Message::Looked { more });
}

/// Jobs due for longer than this that nobody runs have fallen through somewhere.
const STRAGGLING: Millis = Millis::seconds(20);

/// Looks for queues with jobs that fell through, a page at a time and round and round: paused portals have such jobs for days,
/// and must not hide the others'. `behind` is the last queue of the page before.
pub(super) async fn look_for_stragglers(pipeline: Arc<Pipeline>, behind: Arc<Mutex<String>>) {
    let after = behind.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match pipeline.storage.queues_straggling(STRAGGLING, &after).await {
        Ok(found) => {
            let last = found.queues.last().filter(|_| found.full).map(ToString::to_string);
            *behind.lock().unwrap_or_else(PoisonError::into_inner) = last.unwrap_or_default();
            take_all(&pipeline, found.queues).await;
        }
        Err(error) => tracing::warn!(%error, "stragglers could not be looked up"),
    }
}

/// Takes the queues that are ours by the store, all or none.
pub(super) async fn take_own(pipeline: &Pipeline) -> Result<(), StorageError> {
    let queues = pipeline.storage.queues_owned(&pipeline.worker).await?;
    if !queues.is_empty() {
        pipeline.scheduler.send(Message::Taken(pipeline.storage.queues_take(&pipeline.worker, &queues).await?));
    }
    Ok(())
}

/// Takes every one of these queues that can be had, in one commit; tells how many.
pub(super) async fn take_all(pipeline: &Pipeline, queues: Vec<QueueKey>) -> usize {
    if queues.is_empty() {
        return 0;
    }
    match pipeline.storage.queues_take(&pipeline.worker, &queues).await {
        Ok(taken) => {
            let count = taken.len();
            pipeline.scheduler.send(Message::Taken(taken));
            count
        }
        Err(error) => {
            tracing::warn!(%error, count = queues.len(), "queues could not be taken");
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Looking;

    #[test]
    fn looks_that_are_asked_for_during_one_share_the_next() {
        let mut looking = Looking::default();
        assert!(looking.begin(false));
        for orphans in [false, true, false] {
            assert!(!looking.begin(orphans), "one is under way");
        }
        assert_eq!(looking.over(false), Some(true), "somebody wanted orphans too");
        assert!(looking.begin(false));
        assert_eq!(looking.over(false), None);
        assert!(looking.begin(false));
        assert_eq!(looking.over(true), Some(true), "there is more");
    }
}
