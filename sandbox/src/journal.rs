//! What happened: every call (bounded), exact counters, broken rules, and a feed of changes for pages and tests.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

use crate::clock::Millis;

/// Longest piece of a body that a record shows, bytes.
const BODY_SHOWN: usize = 16 * 1024;
/// Rules broken beyond this are only counted.
const VIOLATIONS_KEPT: usize = 5_000;
/// Changes a slow reader can still catch up on.
const CHANGES_KEPT: usize = 8_192;

/// Who called whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Somebody called the sandbox.
    In,
    /// The sandbox called somebody (robot callback, event, webhook, page).
    Out,
}

/// One call, as recorded.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at_ms: Millis,
    pub(crate) direction: Direction,
    pub(crate) target: Arc<str>,
    pub(crate) scope: Arc<str>,
    pub(crate) line: String,
    pub(crate) body: Bytes,
    pub(crate) status: u16,
    pub(crate) answer: Bytes,
    pub(crate) note: String,
}

/// One call, as shown.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// Running number, from 1.
    pub seq: u64,
    /// Time on the sandbox's clock, milliseconds.
    pub at_ms: Millis,
    /// Who called whom.
    pub direction: Direction,
    /// Name of the route or kind, as fault rules use it.
    pub target: String,
    /// Portal (`member_id`) or phone number id it concerns; may be empty.
    pub scope: String,
    /// Method and path with query, or method and URL.
    pub line: String,
    /// Body (cut to 16 KiB).
    pub body: String,
    /// HTTP status; 0 = no answer.
    pub status: u16,
    /// Answer (cut to 16 KiB).
    pub answer: String,
    /// A fault that fired, an error that was seen, or nothing.
    pub note: String,
}

/// How a rule was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The vendor refuses the request.
    Refused,
    /// A documented limit was exceeded.
    Limit,
    /// The vendor takes it, but the documents warn of it.
    Careless,
}

/// One broken rule.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    /// Time on the sandbox's clock, milliseconds.
    pub at_ms: Millis,
    /// How bad.
    pub severity: Severity,
    /// Route, as fault rules name it.
    pub target: String,
    /// Portal or phone number id.
    pub scope: String,
    /// Vendor code, or a name of ours for careless ones.
    pub code: String,
    /// In words.
    pub message: String,
}

/// A note that something changed; readers fetch the thing itself.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// Running number, from 1.
    pub seq: u64,
    /// Time on the sandbox's clock, milliseconds.
    pub at_ms: Millis,
    /// `item`, `stage`, `comment`, `robot`, `message`, `status`, `inbound`, `portal`, `install`, `phone`, `template`,
    /// `fault`, `event`.
    pub kind: &'static str,
    /// Portal (`member_id`) or phone number id.
    pub scope: String,
    /// Which one: `deal:134`, a wamid, a phone …
    pub id: String,
}

#[derive(Default)]
struct Ring<T> {
    items: VecDeque<T>,
    last: u64,
}

impl<T> Ring<T> {
    fn push(&mut self, item: T, keep: usize) -> u64 {
        self.last += 1;
        if keep > 0 {
            if self.items.len() >= keep {
                self.items.pop_front();
            }
            self.items.push_back(item);
        }
        self.last
    }

    /// Items with a number above `since`, with their numbers.
    fn after(&self, since: u64) -> impl Iterator<Item = (u64, &T)> {
        let first = self.last - self.items.len() as u64 + 1;
        let skip = usize::try_from((since + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        self.items.iter().enumerate().skip(skip).map(move |(at, item)| (first + at as u64, item))
    }
}

/// The sandbox's memory of calls.
pub(crate) struct Journal {
    keep: usize,
    calls: Mutex<Ring<Entry>>,
    counters: Mutex<HashMap<Arc<str>, u64>>,
    violations: Mutex<Ring<Violation>>,
    changes: Mutex<Ring<Change>>,
    changed: watch::Sender<u64>,
}

impl Journal {
    /// `keep` = calls remembered; 0 turns recording off (counters stay exact).
    pub(crate) fn new(keep: usize) -> Self {
        Self {
            keep,
            calls: Mutex::new(Ring { items: VecDeque::new(), last: 0 }),
            counters: Mutex::default(),
            violations: Mutex::new(Ring { items: VecDeque::new(), last: 0 }),
            changes: Mutex::new(Ring { items: VecDeque::new(), last: 0 }),
            changed: watch::Sender::new(0),
        }
    }

    pub(crate) fn record(&self, entry: impl FnOnce() -> Entry) {
        if self.keep > 0 {
            let entry = entry();
            self.calls.lock().push(entry, self.keep);
        }
        self.poke();
    }

    /// Wakes whoever waits for something without noting a change.
    fn poke(&self) {
        self.changed.send_modify(|tick| *tick += 1);
    }

    pub(crate) fn count(&self, name: &str) {
        self.count_by(name, 1);
    }

    pub(crate) fn count_by(&self, name: &str, by: u64) {
        let mut counters = self.counters.lock();
        if let Some(counter) = counters.get_mut(name) {
            *counter += by;
        } else {
            counters.insert(Arc::from(name), by);
        }
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.counters.lock().get(name).copied().unwrap_or(0)
    }

    pub(crate) fn counters(&self) -> BTreeMap<String, u64> {
        self.counters.lock().iter().map(|(name, count)| (name.to_string(), *count)).collect()
    }

    pub(crate) fn violation(&self, violation: Violation) {
        self.count("violations");
        let severity = match violation.severity {
            Severity::Refused => "violations.refused",
            Severity::Limit => "violations.limit",
            Severity::Careless => "violations.careless",
        };
        self.count(severity);
        tracing::debug!(target = %violation.target, code = %violation.code, message = %violation.message, "rule broken");
        self.violations.lock().push(violation, VIOLATIONS_KEPT);
    }

    pub(crate) fn violations(&self) -> Vec<Violation> {
        self.violations.lock().items.iter().cloned().collect()
    }

    pub(crate) fn change(&self, at_ms: Millis, kind: &'static str, scope: &str, id: impl Into<String>) {
        let change = Change { seq: 0, at_ms, kind, scope: scope.to_owned(), id: id.into() };
        self.changes.lock().push(change, CHANGES_KEPT);
        self.poke();
    }

    /// Changes after `since` (at most `limit`) and the number to ask with next time.
    pub(crate) fn changes(&self, since: u64, limit: usize) -> (Vec<Change>, u64) {
        let changes = self.changes.lock();
        let found: Vec<Change> =
            changes.after(since).take(limit).map(|(seq, change)| Change { seq, ..change.clone() }).collect();
        let next = found.last().map_or(changes.last, |change| change.seq);
        (found, next)
    }

    pub(crate) fn last_change(&self) -> u64 {
        self.changes.lock().last
    }

    /// Ticks at every change, call and violation.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Recorded calls after `since` whose target matches, oldest first, the last `limit` of them.
    pub(crate) fn calls(&self, since: u64, target: Option<&str>, scope: Option<&str>, limit: usize) -> Vec<Call> {
        let matches = |entry: &Entry| {
            target.is_none_or(|pattern| crate::faults::target_matches(pattern, &entry.target))
                && scope.is_none_or(|scope| scope == &*entry.scope)
        };
        let calls = self.calls.lock();
        let mut found: Vec<(u64, Entry)> =
            calls.after(since).filter(|(_, entry)| matches(entry)).map(|(seq, entry)| (seq, entry.clone())).collect();
        drop(calls);
        let extra = found.len().saturating_sub(limit);
        found.drain(..extra);
        found.into_iter().map(|(seq, entry)| entry.show(seq)).collect()
    }

    pub(crate) fn clear(&self) {
        self.calls.lock().items.clear();
        self.counters.lock().clear();
        self.violations.lock().items.clear();
    }
}

impl Entry {
    fn show(self, seq: u64) -> Call {
        let cut = |bytes: &Bytes| String::from_utf8_lossy(&bytes[..bytes.len().min(BODY_SHOWN)]).into_owned();
        Call {
            seq,
            at_ms: self.at_ms,
            direction: self.direction,
            target: self.target.to_string(),
            scope: self.scope.to_string(),
            body: cut(&self.body),
            answer: cut(&self.answer),
            line: self.line,
            status: self.status,
            note: self.note,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_catch_up_on_changes_even_after_old_ones_fell_out() {
        let journal = Journal::new(0);
        for at in 0..(CHANGES_KEPT as i64 + 10) {
            journal.change(at, "item", "p", at.to_string());
        }
        let (first, next) = journal.changes(0, 2);
        assert_eq!(first.iter().map(|change| change.seq).collect::<Vec<_>>(), [11, 12]);
        let (rest, next) = journal.changes(next, usize::MAX);
        assert_eq!(rest.len(), CHANGES_KEPT - 2);
        assert!(journal.changes(next, 10).0.is_empty());
        assert_eq!(journal.changes(next, 10).1, next);
    }
}
