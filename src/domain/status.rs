//! The life of one message, and the only rule by which it moves.

use serde::{Deserialize, Serialize};

/// Where a message stands. The words are part of the API (`surface.md` §4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageState {
    /// Waits for its turn; nothing has left yet.
    Queued,
    /// The request may have left, and no answer tells; the provider's echo will settle it.
    Undecided,
    /// The provider took the message and gave it an id.
    Accepted,
    /// The messenger has it.
    Sent,
    /// It is on the person's device.
    Delivered,
    /// The person has opened it.
    Read,
    /// It will not arrive; final.
    Failed,
    /// A person or a rule withdrew it before it left; final.
    Cancelled,
}

impl MessageState {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Undecided,
        Self::Accepted,
        Self::Sent,
        Self::Delivered,
        Self::Read,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The word used in the API and the database.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Undecided => "undecided",
            Self::Accepted => "accepted",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the word back; `None` for a word this version does not know.
    #[must_use]
    pub fn find(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.code() == code)
    }

    /// How far a message in this state has come. Stored beside the state, so that the database can hold the rule.
    #[must_use]
    pub fn rank(self) -> i64 {
        match self {
            Self::Queued => 0,
            Self::Undecided => 1,
            Self::Accepted => 2,
            Self::Sent => 3,
            Self::Delivered => 4,
            Self::Read => 5,
            Self::Failed | Self::Cancelled => 9,
        }
    }

    /// A message enters this state only while its rank is below this bound.
    ///
    /// News may arrive late, twice and in any order (WhatsApp promises none of it), so a message only moves up. A
    /// failure is final, but it cannot undo a delivery that was seen; a cancellation reaches only what has not left.
    #[must_use]
    pub fn enters_below(self) -> i64 {
        match self {
            Self::Queued => 0,
            Self::Undecided | Self::Cancelled => 1,
            Self::Accepted => 2,
            Self::Sent => 3,
            Self::Delivered | Self::Failed => 4,
            Self::Read => 5,
        }
    }

    /// The state after hearing `news`: the news, or what it was if the news is stale.
    #[must_use]
    pub fn advance(self, news: Self) -> Self {
        if self.rank() < news.enters_below() { news } else { self }
    }

    /// True while something must still come: that it leaves, or that the messenger confirms it.
    #[must_use]
    pub fn is_awaited(self) -> bool {
        match self {
            Self::Queued | Self::Undecided | Self::Accepted | Self::Sent => true,
            Self::Delivered | Self::Read | Self::Failed | Self::Cancelled => false,
        }
    }

    /// True when nothing can follow.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Read | Self::Failed | Self::Cancelled => true,
            Self::Queued | Self::Undecided | Self::Accepted | Self::Sent | Self::Delivered => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn late_sent_status_does_not_undo_delivered() {
        assert_eq!(MessageState::Delivered.advance(MessageState::Sent), MessageState::Delivered);
        assert_eq!(MessageState::Read.advance(MessageState::Delivered), MessageState::Read);
    }

    #[test]
    fn failure_is_final_but_cannot_undo_a_delivery() {
        assert_eq!(MessageState::Sent.advance(MessageState::Failed), MessageState::Failed);
        assert_eq!(MessageState::Failed.advance(MessageState::Read), MessageState::Failed);
        assert_eq!(MessageState::Delivered.advance(MessageState::Failed), MessageState::Delivered);
    }

    #[test]
    fn only_what_has_not_left_can_be_cancelled() {
        assert_eq!(MessageState::Queued.advance(MessageState::Cancelled), MessageState::Cancelled);
        assert_eq!(MessageState::Undecided.advance(MessageState::Cancelled), MessageState::Undecided);
        assert_eq!(MessageState::Cancelled.advance(MessageState::Accepted), MessageState::Cancelled);
    }

    #[test]
    fn echo_settles_an_undecided_message() {
        assert_eq!(MessageState::Undecided.advance(MessageState::Sent), MessageState::Sent);
        assert_eq!(MessageState::Queued.advance(MessageState::Delivered), MessageState::Delivered);
    }

    #[test]
    fn words_read_back() {
        for state in MessageState::ALL {
            assert_eq!(MessageState::find(state.code()), Some(state));
        }
        assert_eq!(MessageState::find("lost"), None);
    }

    fn any_state() -> impl Strategy<Value = MessageState> {
        proptest::sample::select(MessageState::ALL.to_vec())
    }

    fn vendor_news() -> impl Strategy<Value = MessageState> {
        proptest::sample::select(vec![MessageState::Sent, MessageState::Delivered, MessageState::Read])
    }

    proptest! {
        #[test]
        fn never_moves_down(from in any_state(), news in any_state()) {
            prop_assert!(from.advance(news).rank() >= from.rank());
        }

        #[test]
        fn repetition_changes_nothing(from in any_state(), news in any_state()) {
            let once = from.advance(news);
            prop_assert_eq!(once.advance(news), once);
        }

        #[test]
        fn order_of_good_news_does_not_matter(mut news in proptest::collection::vec(vendor_news(), 1..8)) {
            let shuffled = news.iter().fold(MessageState::Accepted, |state, n| state.advance(*n));
            news.sort_by_key(|state| state.rank());
            let sorted = news.iter().fold(MessageState::Accepted, |state, n| state.advance(*n));
            prop_assert_eq!(shuffled, sorted);
        }
    }
}
