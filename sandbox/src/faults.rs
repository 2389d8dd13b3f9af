//! Rules that make the simulated world misbehave on purpose.
//!
//! A rule names a *target* (a route of the sandbox or a kind of call that the sandbox makes), may narrow it by portal,
//! phone or a piece of the body, says how often it fires, and what happens then. Rules are tried in the order in which
//! they were added: delays add up, and the first other action that fires decides.
//!
//! Targets of incoming calls: `oauth.token`, `oauth.app.info`, `rest.<method>` (`rest.batch` for a whole batch),
//! `graph.messages`, `graph.phone`, `graph.templates`, `graph.debug_token`, `graph.subscribed_apps`, `graph.media`,
//! `telegram.<method>`, `telegram.file`, `amo.token`, `amo.subdomain`, `amo.account`, `amo.leads`, `amo.contacts`,
//! `amo.notes.add`, `amo.notes.change`, `amo.notes.list`, `amo.continue`.
//! Targets of calls that the sandbox makes: `amo.bot`, `robot.callback`, `event.<NAME>`, `webhook.statuses`, `webhook.messages`,
//! `webhook.<field>`, `telegram.update`. Targets of connections, where nobody knows yet what is asked: `wire.graph`,
//! `wire.telegram`, `wire.portal`, `wire.oauth`, `wire.amo`. A target also matches every target below it (`rest` matches
//! `rest.batch`), and `*` matches any text.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::{
    http::{CutFrom, Shape},
    ids::{mix, unit},
};

/// A rule as it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What it applies to; see the module's text.
    pub target: String,
    /// What happens.
    pub action: Action,
    /// Fires at most so often; absent = without end.
    #[serde(default)]
    pub times: Option<u32>,
    /// Lets so many matching calls pass before it begins.
    #[serde(default)]
    pub skip: u32,
    /// Chance that it fires when it matches, `0.0..=1.0`; absent = always.
    #[serde(default)]
    pub probability: Option<f64>,
    /// Seed of that chance, so that a run can be repeated.
    #[serde(default)]
    pub seed: u64,
    /// Only calls of this portal (`member_id`) or, for Graph, of this phone number id.
    #[serde(default)]
    pub portal: Option<String>,
    /// Only calls about this customer phone (digits).
    #[serde(default)]
    pub phone: Option<String>,
    /// Only calls whose body has this text (raw bytes as sent).
    #[serde(default)]
    pub contains: Option<String>,
}

impl Fault {
    /// A rule that always fires on `target`.
    pub fn new(target: impl Into<String>, action: Action) -> Self {
        Self {
            target: target.into(),
            action,
            times: None,
            skip: 0,
            probability: None,
            seed: 0,
            portal: None,
            phone: None,
            contains: None,
        }
    }

    /// Fires at most `times` times.
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Lets `skip` matching calls pass first.
    pub fn skip(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }

    /// Fires with this chance, drawn from this seed.
    pub fn chance(mut self, probability: f64, seed: u64) -> Self {
        self.probability = Some(probability);
        self.seed = seed;
        self
    }

    /// Only for this portal or phone number id.
    pub fn portal(mut self, portal: impl Into<String>) -> Self {
        self.portal = Some(portal.into());
        self
    }

    /// Only for this customer phone.
    pub fn phone(mut self, phone: impl Into<String>) -> Self {
        self.phone = Some(phone.into());
        self
    }

    /// Only if the body has this text.
    pub fn contains(mut self, text: impl Into<String>) -> Self {
        self.contains = Some(text.into());
        self
    }
}

/// What a rule does. Actions for incoming calls: `delay` … `expire_token`; for calls the sandbox makes: `delay`,
/// `duplicate`, `reorder`, `lose`, `without_auth`. An action that makes no sense for its target does nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Waits before anything else is done.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// Answers this instead.
    Respond {
        /// HTTP status.
        status: u16,
        /// Body text.
        #[serde(default)]
        body: String,
        /// Content type of the body; default JSON.
        #[serde(default)]
        content_type: Option<String>,
        /// `true`: the call is carried out first, only its answer is replaced.
        #[serde(default)]
        after: bool,
    },
    /// Answers with the HTML page of a gateway (502, 503, 504).
    Html {
        /// HTTP status.
        status: u16,
        /// `true`: the call is carried out first.
        #[serde(default)]
        after: bool,
    },
    /// Answers with the vendor's own error shape.
    Error {
        /// Vendor code: `QUERY_LIMIT_EXCEEDED`, `131016`, `invalid_grant`, …
        code: String,
        /// HTTP status; default as documented for the code.
        #[serde(default)]
        status: Option<u16>,
        /// Description or details; default as documented.
        #[serde(default)]
        description: Option<String>,
        /// Value of a `Retry-After` header, seconds.
        #[serde(default)]
        retry_after: Option<u32>,
        /// `true`: the call is carried out first.
        #[serde(default)]
        after: bool,
    },
    /// Closes the connection; nothing was done.
    CutBefore,
    /// Does the work, then closes the connection without a byte of the answer.
    CutAfter,
    /// Does the work and closes the connection inside the answer.
    CutAnswer {
        /// Bytes that still arrive.
        at: usize,
        /// Counted from here.
        #[serde(default)]
        from: CutFrom,
    },
    /// Cuts the connection as soon as so many bytes of a request have arrived; nothing was done. For the targets
    /// `wire.…` only.
    CutRequest {
        /// Bytes that are read.
        at: usize,
    },
    /// Does the work, answers in an unusual shape and closes the connection.
    Misshape {
        /// How the length of the body is told.
        shape: Shape,
        /// Bytes of the body that still arrive; absent = all of them.
        #[serde(default)]
        at: Option<usize>,
    },
    /// Does the work and never answers; the connection is closed after `hold_ms`.
    DropAnswer {
        /// Milliseconds; default ten minutes.
        #[serde(default = "ten_minutes")]
        hold_ms: u64,
    },
    /// The presented token has expired by now.
    ExpireToken,
    /// The call is made `copies` more times.
    Duplicate {
        /// Extra copies.
        copies: u32,
        /// Milliseconds between them.
        #[serde(default)]
        gap_ms: u64,
    },
    /// The call is put off by a random time, so that later ones overtake it.
    Reorder {
        /// Upper bound of that time, milliseconds.
        within_ms: u64,
    },
    /// The call is never made.
    Lose,
    /// Events only: the `auth` block has no tokens (nobody caused it).
    WithoutAuth,
}

fn ten_minutes() -> u64 {
    600_000
}

/// A rule with its score, as it is listed.
#[derive(Clone, Debug, Serialize)]
pub struct FaultStatus {
    /// Number of the rule, for removal.
    pub id: u64,
    /// The rule.
    #[serde(flatten)]
    pub fault: Fault,
    /// How often it matched (fired or not).
    pub matched: u32,
    /// How often it fired.
    pub fired: u32,
}

struct Rule {
    id: u64,
    fault: Fault,
    matched: AtomicU32,
    fired: AtomicU32,
    chance: AtomicU64,
}

/// What the rules of one call came to.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) delay_ms: u64,
    pub(crate) action: Option<Action>,
}

/// One call, as rules see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) target: &'a str,
    pub(crate) portal: &'a str,
    pub(crate) phone: &'a str,
    pub(crate) body: &'a [u8],
}

/// All rules. Costs one atomic load per call while it is empty.
#[derive(Default)]
pub(crate) struct FaultBook {
    rules: RwLock<Vec<Arc<Rule>>>,
    count: AtomicUsize,
    last_id: AtomicU64,
}

impl FaultBook {
    pub(crate) fn add(&self, fault: Fault) -> u64 {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let chance = AtomicU64::new(fault.seed);
        let mut rules = self.rules.write();
        rules.push(Arc::new(Rule { id, fault, matched: AtomicU32::new(0), fired: AtomicU32::new(0), chance }));
        self.count.store(rules.len(), Ordering::Release);
        id
    }

    pub(crate) fn remove(&self, id: u64) -> bool {
        let mut rules = self.rules.write();
        let before = rules.len();
        rules.retain(|rule| rule.id != id);
        self.count.store(rules.len(), Ordering::Release);
        rules.len() < before
    }

    pub(crate) fn clear(&self) {
        self.rules.write().clear();
        self.count.store(0, Ordering::Release);
    }

    pub(crate) fn list(&self) -> Vec<FaultStatus> {
        let rules = self.rules.read();
        rules
            .iter()
            .map(|rule| FaultStatus {
                id: rule.id,
                fault: rule.fault.clone(),
                matched: rule.matched.load(Ordering::Relaxed),
                fired: rule.fired.load(Ordering::Relaxed),
            })
            .collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Decides about one call. `may` says which actions can be carried out at this place; other rules do not fire.
    pub(crate) fn decide(&self, subject: Subject<'_>, may: impl Fn(&Action) -> bool) -> Verdict {
        let mut verdict = Verdict::default();
        if self.is_empty() {
            return verdict;
        }
        for rule in self.rules.read().iter() {
            let is_delay = matches!(rule.fault.action, Action::Delay { .. });
            if (!is_delay && verdict.action.is_some()) || !may(&rule.fault.action) || !rule.matches(subject) {
                continue;
            }
            if !rule.fires() {
                continue;
            }
            match &rule.fault.action {
                Action::Delay { ms } => verdict.delay_ms += ms,
                other => verdict.action = Some(other.clone()),
            }
        }
        verdict
    }
}

impl Rule {
    fn matches(&self, subject: Subject<'_>) -> bool {
        let fault = &self.fault;
        let is = |wanted: &Option<String>, own: &str| wanted.as_deref().is_none_or(|wanted| wanted == own);
        let has = |text: &str| subject.body.windows(text.len().max(1)).any(|window| window == text.as_bytes());
        target_matches(&fault.target, subject.target)
            && is(&fault.portal, subject.portal)
            && is(&fault.phone, subject.phone)
            && fault.contains.as_deref().is_none_or(has)
    }

    fn fires(&self) -> bool {
        let nth = self.matched.fetch_add(1, Ordering::Relaxed);
        if nth < self.fault.skip {
            return false;
        }
        if let Some(probability) = self.fault.probability {
            const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
            let drawn = unit(mix(self.chance.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP)));
            if drawn >= probability {
                return false;
            }
        }
        let limit = self.fault.times.unwrap_or(u32::MAX);
        let more = |fired: u32| (fired < limit).then_some(fired + 1);
        self.fired.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// Whether `pattern` covers `target`: equal, a parent of it, or a pattern with `*`.
pub(crate) fn target_matches(pattern: &str, target: &str) -> bool {
    if let Some((before, after)) = pattern.split_once('*') {
        return target.strip_prefix(before).is_some_and(|rest| {
            after.is_empty()
                || (0..=rest.len()).any(|at| rest.is_char_boundary(at) && target_matches(after, &rest[at..]))
        });
    }
    let below = target.get(..pattern.len()).is_some_and(|head| head.eq_ignore_ascii_case(pattern));
    below && (target.len() == pattern.len() || target.as_bytes()[pattern.len()] == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(target: &str) -> Subject<'_> {
        Subject { target, portal: "p1", phone: "79", body: b"{\"to\":\"79\"}" }
    }

    #[test]
    fn targets_match_themselves_children_and_patterns() {
        assert!(target_matches("rest", "rest.batch"));
        assert!(target_matches("rest.crm.timeline", "rest.crm.timeline.comment.add"));
        assert!(target_matches("rest.*.add", "rest.crm.timeline.comment.add"));
        assert!(target_matches("webhook", "webhook"));
        assert!(target_matches("event.ONAPPINSTALL", "event.onappinstall"));
        assert!(!target_matches("rest.crm.time", "rest.crm.timeline.comment.add"));
        assert!(!target_matches("rest.*.add", "rest.crm.timeline.comment.update"));
    }

    #[test]
    fn counts_skips_and_chances() {
        let book = FaultBook::default();
        book.add(Fault::new("rest", Action::Delay { ms: 5 }));
        book.add(Fault::new("rest.batch", Action::CutBefore).skip(1).times(1).contains("\"to\"").portal("p1"));
        let all = |_: &Action| true;
        assert_eq!(book.decide(subject("rest.batch"), all).action, None);
        let second = book.decide(subject("rest.batch"), all);
        assert_eq!((second.delay_ms, second.action), (5, Some(Action::CutBefore)));
        assert_eq!(book.decide(subject("rest.batch"), all).action, None);
        let half = FaultBook::default();
        half.add(Fault::new("webhook", Action::Lose).chance(0.5, 7));
        let lost = (0..1000).filter(|_| half.decide(subject("webhook.statuses"), all).action.is_some()).count();
        assert!((400..600).contains(&lost), "{lost}");
    }
}
