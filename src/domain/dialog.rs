//! A conversation of one channel with one person, and until when free text is allowed in it.

use super::time::{Millis, Timestamp};

/// Until when free text is allowed after the person's last message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServiceWindow {
    /// The messenger has no such rule.
    Unlimited,
    /// Open until the moment given.
    OpenUntil(Timestamp),
    /// The person has never written, or too long ago.
    Closed,
}

impl ServiceWindow {
    /// Judges by the provider's rule and the person's last message.
    ///
    /// A safety margin is taken off, because the vendor's clock and ours differ and a text needs time to travel.
    #[must_use]
    pub fn judge(rule: Option<Millis>, last_inbound: Option<Timestamp>, now: Timestamp) -> Self {
        const MARGIN: Millis = Millis::seconds(30);
        let Some(length) = rule else { return Self::Unlimited };
        match last_inbound.map(|at| at.plus(length).plus(Millis(-MARGIN.0))) {
            Some(until) if until > now => Self::OpenUntil(until),
            Some(_) | None => Self::Closed,
        }
    }

    /// True when free text may leave at `now`.
    #[must_use]
    pub fn is_open(self, now: Timestamp) -> bool {
        match self {
            Self::Unlimited => true,
            Self::OpenUntil(until) => until > now,
            Self::Closed => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_closes_a_little_before_the_vendor_closes_it() {
        let day = Some(Millis::hours(24));
        let wrote = Some(Timestamp(0));
        assert!(ServiceWindow::judge(day, wrote, Timestamp(1)).is_open(Timestamp(1)));
        let late = Timestamp(Millis::hours(24).0 - 10_000);
        assert_eq!(ServiceWindow::judge(day, wrote, late), ServiceWindow::Closed);
        assert_eq!(ServiceWindow::judge(day, None, Timestamp(0)), ServiceWindow::Closed);
        assert!(ServiceWindow::judge(None, None, late).is_open(late));
    }
}
