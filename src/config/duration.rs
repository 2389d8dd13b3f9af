//! Lengths of time as people write them: `5s`, `2m`, `24h`, `500ms`, `7d`.

use std::fmt;

use serde::{Deserialize, Deserializer};

use crate::domain::time::Millis;

/// A length of time in a configuration file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span(pub Millis);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.0;
        for (unit, length) in [("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
            if millis % length == 0 && (millis != 0 || unit == "s") {
                return write!(f, "{}{unit}", millis / length);
            }
        }
        write!(f, "{millis}ms")
    }
}

impl Span {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at(digits);
        let number: i64 = number.parse().ok()?;
        let length = match unit.trim() {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        number.checked_mul(length).map(|millis| Self(Millis(millis)))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no length of time; write 30s, 10m or 24h")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_read_back_as_they_are_written() {
        for text in ["5s", "2m", "24h", "250ms", "0s", "90s"] {
            let span = Span::parse(text).unwrap();
            assert_eq!(Span::parse(&span.to_string()), Some(span), "{text}");
        }
        assert_eq!(Span::parse("7d"), Span::parse("168h"));
        for bad in ["", "5", "s", "-5s", "5 parsecs", "99999999999999999h"] {
            assert!(Span::parse(bad).is_none(), "{bad}");
        }
    }
}
