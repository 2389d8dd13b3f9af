//! CRMs that no longer listen to our address, whatever the portal.
//!
//! Some CRMs close the door to an address after too many calls (amoCRM answers every account with a page of its web
//! server). Calling on makes it worse, so everything to that CRM stops; when the time is over, one call of one portal
//! asks whether the door is open again, and the others follow only then. Pure: no clock, no I/O.

use std::collections::HashMap;

use crate::domain::job::QueueKey;
use crate::domain::portal::CrmKind;
use crate::domain::time::{Millis, Timestamp};

/// How often the others look while one call asks.
const LOOK: Millis = Millis::seconds(1);

/// Whether a CRM may be called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gate {
    /// Yes.
    Open,
    /// By one call, which finds out for all.
    Ask,
    /// Not before then.
    Closed(Timestamp),
}

#[derive(Debug)]
struct Stop {
    until: Timestamp,
    /// The queue whose call finds out whether it is over.
    asking: Option<QueueKey>,
}

/// All stops there are.
#[derive(Debug, Default)]
pub struct Stops(HashMap<CrmKind, Stop>);

impl Stops {
    /// Whether this CRM may be called.
    #[must_use]
    pub fn gate(&self, crm: CrmKind, now: Timestamp) -> Gate {
        match self.0.get(&crm) {
            None => Gate::Open,
            Some(stop) if stop.until > now => Gate::Closed(stop.until),
            Some(Stop { asking: None, .. }) => Gate::Ask,
            Some(Stop { asking: Some(_), .. }) => Gate::Closed(now.plus(LOOK)),
        }
    }

    /// The CRM does not listen; true when that is news.
    pub fn stop(&mut self, crm: CrmKind, until: Timestamp) -> bool {
        let known = self.0.get_mut(&crm);
        let news = known.is_none();
        match known {
            Some(stop) => stop.until = stop.until.max(until),
            None => {
                self.0.insert(crm, Stop { until, asking: None });
            }
        }
        news
    }

    /// A call of this queue asks for all.
    pub fn ask(&mut self, crm: CrmKind, queue: &QueueKey) {
        if let Some(stop) = self.0.get_mut(&crm) {
            stop.asking = Some(queue.clone());
        }
    }

    /// A call of this queue is over; true when it asked and was heard, so that the stop is over.
    pub fn called(&mut self, crm: CrmKind, queue: &QueueKey, now: Timestamp) -> bool {
        let Some(stop) = self.0.get_mut(&crm).filter(|stop| stop.asking.as_ref() == Some(queue)) else { return false };
        stop.asking = None;
        let over = stop.until <= now;
        if over {
            self.0.remove(&crm);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::PortalId;

    fn queue(id: &str) -> QueueKey {
        QueueKey::Crm(PortalId::new(id))
    }

    #[test]
    fn one_call_asks_and_the_others_follow_when_it_was_heard() {
        const CRM: CrmKind = CrmKind::Amocrm;
        let (mut stops, at) = (Stops::default(), Timestamp::from_seconds);
        assert_eq!(stops.gate(CRM, at(0)), Gate::Open);
        assert!(stops.stop(CRM, at(60)));
        assert!(!stops.stop(CRM, at(50)), "what was under way hears the same");
        assert_eq!(stops.gate(CRM, at(59)), Gate::Closed(at(60)));
        assert_eq!(stops.gate(CrmKind::Bitrix24, at(0)), Gate::Open, "another CRM is not concerned");
        assert_eq!(stops.gate(CRM, at(60)), Gate::Ask);
        stops.ask(CRM, &queue("1"));
        assert_eq!(stops.gate(CRM, at(61)), Gate::Closed(at(62)));
        assert!(!stops.called(CRM, &queue("2"), at(61)), "an older call of another portal says nothing");
        assert!(!stops.stop(CRM, at(120)));
        assert!(!stops.called(CRM, &queue("1"), at(61)), "still not heard");
        assert_eq!(stops.gate(CRM, at(120)), Gate::Ask);
        stops.ask(CRM, &queue("2"));
        assert!(stops.called(CRM, &queue("2"), at(121)));
        assert_eq!(stops.gate(CRM, at(121)), Gate::Open);
    }
}
