//! A telephone number that is known to be well-formed, and how much of it may be shown.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An international number: digits with country code, no `+` (`79001234567`).
///
/// `Display` and `Debug` mask it, because both end in logs; the full value is reached by [`Phone::digits`] only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Phone(String);

impl Phone {
    /// Wraps digits that a number library has approved. `None` unless there are 7 to 15 ASCII digits (E.164).
    #[must_use]
    pub fn from_digits(digits: &str) -> Option<Self> {
        let plausible = (7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        plausible.then(|| Self(digits.to_owned()))
    }

    /// The digits, for the wire and the database. Never for a log.
    #[must_use]
    pub fn digits(&self) -> &str {
        &self.0
    }

    /// `+79001234567`, for people who may see it.
    #[must_use]
    pub fn international(&self) -> String {
        format!("+{}", self.0)
    }
}

impl fmt::Display for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked(&self.0))
    }
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Shows a number as `+7•••••12-34`: enough to recognise, not enough to call. Other text shows its first character.
#[must_use]
pub fn masked(peer: &str) -> String {
    // The number of a chat, behind its messenger's prefix (`domain::address`).
    let chat =
        peer.split_once('.').filter(|(prefix, _)| !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_lowercase()));
    if let Some((prefix, number)) = chat {
        let skipped = number.chars().count().saturating_sub(3);
        return format!("{prefix}.•••{}", number.chars().skip(skipped.max(1)).collect::<String>());
    }
    let digits: Vec<char> = peer.chars().filter(char::is_ascii_digit).collect();
    if digits.len() >= 7 {
        let tail: String = digits.iter().skip(digits.len() - 4).collect();
        let (a, b) = tail.split_at(2);
        let head = digits.first().copied().unwrap_or('0');
        return format!("+{head}•••••{a}-{b}");
    }
    match peer.chars().next() {
        Some(first) => format!("{first}•••"),
        None => "•••".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_never_prints_itself_in_full() {
        let phone = Phone::from_digits("79001231234").unwrap();
        assert_eq!(format!("{phone} {phone:?}"), "+7•••••12-34 +7•••••12-34");
        assert_eq!(phone.digits(), "79001231234");
    }

    #[test]
    fn nonsense_is_no_phone() {
        for bad in ["", "123", "+79001234567", "7900123456789012", "79OO1234567"] {
            assert!(Phone::from_digits(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn names_are_masked_too() {
        assert_eq!(masked("@ada"), "@•••");
        assert_eq!(masked(""), "•••");
        assert_eq!(masked("tg.512000111"), "tg.•••111");
        assert_eq!(masked("tg.42"), "tg.•••2");
    }
}
