//! What people are known by at a messenger, and how it is kept.
//!
//! A phone is kept as its digits. Everything else is kept with a prefix of the messenger's own, so that the number of a
//! chat is never taken for a phone, and one messenger's chat never for another's: guards, history and lanes know people by
//! this text alone.

/// What a messenger knows its people by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Addressing {
    /// Phones, and ids that stand for hidden ones: whoever has an account can be written to.
    Phones,
    /// Numbers of chats, which exist once the person has written first; groups have negative ones.
    Chats {
        /// What stands before the number (`tg.`): lower-case letters and a point.
        prefix: &'static str,
    },
}

/// Longest number of a chat, in digits; the documented ones have at most 16.
const DIGITS_MAX: usize = 19;

impl Addressing {
    /// Reads a chat as people and automations write it: its number, the way we keep it, or the public `@name` of a group
    /// or channel. Gives the way it is kept; `None` for anything else, and where people are known by phones.
    #[must_use]
    pub fn read_chat(self, given: &str) -> Option<String> {
        let Self::Chats { prefix } = self else { return None };
        let given = given.trim();
        let plain = given.strip_prefix(prefix).unwrap_or(given);
        let name = plain.strip_prefix('@').map(str::to_ascii_lowercase);
        match name {
            Some(name) => is_name(&name).then(|| format!("{prefix}@{name}")),
            None => is_number(plain).then(|| format!("{prefix}{plain}")),
        }
    }

    /// True for what can only be a chat: an address as we keep it, or an `@name`.
    #[must_use]
    pub fn marks_chat(self, given: &str) -> bool {
        match self {
            Self::Phones => false,
            Self::Chats { prefix } => given.trim().starts_with('@') || given.trim().starts_with(prefix),
        }
    }

    /// The way a chat is kept that the messenger told us of.
    #[must_use]
    pub fn of_chat(self, number: &str) -> String {
        match self {
            Self::Phones => number.to_owned(),
            Self::Chats { prefix } => format!("{prefix}{number}"),
        }
    }

    /// What the messenger itself calls an address that we keep; `None` when it is not one of its own.
    #[must_use]
    pub fn at_vendor(self, peer: &str) -> Option<&str> {
        match self {
            Self::Phones => Some(peer),
            Self::Chats { prefix } => peer.strip_prefix(prefix),
        }
    }
}

/// True for the address of a group or channel, also within the name of a lane.
#[must_use]
pub fn is_group(peer: &str) -> bool {
    peer.rsplit_once('.').is_some_and(|(_, own)| own.starts_with(['-', '@']))
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    (1..=DIGITS_MAX).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
}

/// Letters, digits and `_`, 4 to 32 of them.
fn is_name(text: &str) -> bool {
    (4..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATS: Addressing = Addressing::Chats { prefix: "tg." };

    #[test]
    fn chats_are_kept_so_that_nobody_takes_them_for_phones() {
        for (given, kept) in [
            ("512000111", "tg.512000111"),
            (" tg.512000111 ", "tg.512000111"),
            ("-1001987654321", "tg.-1001987654321"),
            ("@Shop_News", "tg.@shop_news"),
            ("tg.@shop_news", "tg.@shop_news"),
        ] {
            assert_eq!(CHATS.read_chat(given).as_deref(), Some(kept), "{given}");
            assert_eq!(CHATS.read_chat(kept).as_deref(), Some(kept), "reading it again changes nothing");
            assert!(crate::domain::phone::Phone::from_digits(kept).is_none());
        }
        for bad in ["", "-", "@ab", "@a b c d", "+79161234567", "0123", "12345678901234567890", "max.512000111", "tg."]
        {
            assert_eq!(CHATS.read_chat(bad), None, "{bad}");
        }
        assert_eq!(Addressing::Phones.read_chat("512000111"), None);
    }

    #[test]
    fn only_its_own_addresses_go_to_a_messenger() {
        assert_eq!(CHATS.at_vendor("tg.-42"), Some("-42"));
        assert_eq!(CHATS.at_vendor("79161234567"), None);
        assert_eq!(CHATS.at_vendor("max.42"), None);
        assert!(is_group("tg.-42") && is_group("beside:tg.@shop_news") && !is_group("tg.42") && !is_group("7916"));
        assert!(CHATS.marks_chat("@shop_news") && CHATS.marks_chat("tg.1") && !CHATS.marks_chat("512000111"));
    }
}
