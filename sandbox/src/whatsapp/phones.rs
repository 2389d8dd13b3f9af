//! Customers' phones: what they are like, their dialogs with business numbers. Source: §5, §7, §11.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{GraphOptions, PairLimit, statuses::Track};
use crate::{
    clock::Millis,
    ids::{Ids, mix},
};

/// What can be said about a phone. Absent = leave as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PhoneTraits {
    /// Name in the profile.
    pub name: Option<String>,
    /// Has a WhatsApp account; `false`: messages fail with 131026.
    pub exists: Option<bool>,
    /// Switched on; `false`: messages stop at `sent` until it is `true` again.
    pub online: Option<bool>,
    /// Sends read receipts.
    pub read_receipts: Option<bool>,
    /// Reads what arrives by itself.
    pub auto_read: Option<bool>,
    /// Blocks this business number (`phone_number_id`, block?): messages fail with 130403.
    pub block: Option<(String, bool)>,
    /// Dialled number that leads to this phone though it is written differently (§1.2).
    pub alias: Option<String>,
}

/// A phone, as shown.
#[derive(Clone, Debug, Serialize)]
pub struct PhoneView {
    /// Digits.
    pub wa_id: String,
    /// Business-scoped user id.
    pub user_id: String,
    /// Name in the profile.
    pub name: String,
    /// Has a WhatsApp account.
    pub exists: bool,
    /// Switched on.
    pub online: bool,
    /// Sends read receipts.
    pub read_receipts: bool,
    /// Business numbers it blocks.
    pub blocked: Vec<String>,
    /// Until when each business number may write freely, milliseconds.
    pub windows: HashMap<String, Millis>,
}

#[derive(Default)]
pub(crate) struct Dialog {
    /// End of the customer service window.
    pub(crate) window_until_ms: Millis,
    /// Theoretical arrival time of the pair limiter.
    pair_tat_ms: Millis,
    /// Messages that wait for the phone to come online.
    pub(crate) undelivered: Vec<Arc<Track>>,
    /// Delivered messages that the person has not read.
    pub(crate) unread: Vec<Arc<Track>>,
}

pub(crate) struct PhoneState {
    pub(crate) wa_id: String,
    pub(crate) user_id: String,
    pub(crate) name: String,
    pub(crate) exists: bool,
    pub(crate) online: bool,
    pub(crate) read_receipts: bool,
    pub(crate) auto_read: Option<bool>,
    pub(crate) blocked: HashSet<String>,
    pub(crate) dialogs: HashMap<String, Dialog>,
}

impl PhoneState {
    pub(crate) fn dialog(&mut self, number: &str) -> &mut Dialog {
        self.dialogs.entry(number.to_owned()).or_default()
    }

    pub(crate) fn view(&self) -> PhoneView {
        let mut blocked: Vec<String> = self.blocked.iter().cloned().collect();
        blocked.sort();
        PhoneView {
            wa_id: self.wa_id.clone(),
            user_id: self.user_id.clone(),
            name: self.name.clone(),
            exists: self.exists,
            online: self.online,
            read_receipts: self.read_receipts,
            blocked,
            windows: self.dialogs.iter().map(|(number, dialog)| (number.clone(), dialog.window_until_ms)).collect(),
        }
    }
}

impl Dialog {
    /// §7: one message per interval sustained, a burst borrowed from the future.
    pub(crate) fn take_pair(&mut self, limit: PairLimit, now: Millis) -> bool {
        let tat = self.pair_tat_ms.max(now);
        if tat - now > limit.interval_ms * (limit.burst - 1) {
            return false;
        }
        self.pair_tat_ms = tat + limit.interval_ms;
        true
    }
}

#[derive(Default)]
pub(crate) struct Phones {
    by_wa_id: HashMap<String, PhoneState>,
    by_user_id: HashMap<String, String>,
    aliases: HashMap<String, String>,
}

impl Phones {
    /// The phone behind dialled digits; it comes into being when it is first named.
    pub(crate) fn dial(&mut self, options: &GraphOptions, digits: &str) -> &mut PhoneState {
        let wa_id = self.aliases.get(digits).cloned().unwrap_or_else(|| digits.to_owned());
        if !self.by_wa_id.contains_key(&wa_id) {
            let user_id = user_id_of(&wa_id);
            self.by_user_id.insert(user_id.clone(), wa_id.clone());
            self.by_wa_id.insert(
                wa_id.clone(),
                PhoneState {
                    wa_id: wa_id.clone(),
                    user_id,
                    name: name_of(&wa_id),
                    exists: options.unknown_phones_exist,
                    online: true,
                    read_receipts: true,
                    auto_read: None,
                    blocked: HashSet::new(),
                    dialogs: HashMap::new(),
                },
            );
        }
        match self.by_wa_id.get_mut(&wa_id) {
            Some(phone) => phone,
            None => unreachable!("inserted above"),
        }
    }

    pub(crate) fn by_user_id(&self, user_id: &str) -> Option<String> {
        self.by_user_id.get(user_id).cloned()
    }

    pub(crate) fn alias(&mut self, dialled: String, wa_id: String) {
        self.aliases.insert(dialled, wa_id);
    }

    pub(crate) fn len(&self) -> usize {
        self.by_wa_id.len()
    }

    /// Phones in the order of their digits, at most `limit`.
    pub(crate) fn views(&self, limit: usize) -> Vec<PhoneView> {
        let mut phones: Vec<&PhoneState> = self.by_wa_id.values().collect();
        phones.sort_by(|left, right| left.wa_id.cmp(&right.wa_id));
        phones.into_iter().take(limit).map(PhoneState::view).collect()
    }
}

/// `CC.` and digits; the same phone always has the same id.
fn user_id_of(wa_id: &str) -> String {
    let number = wa_id.bytes().fold(7_u64, |sum, byte| mix(sum ^ u64::from(byte)));
    let country = match wa_id.as_bytes().first() {
        Some(b'7') if wa_id.as_bytes().get(1).is_some_and(|next| matches!(next, b'6' | b'7')) => "KZ",
        Some(b'7') => "RU",
        Some(b'1') => "US",
        _ => "DE",
    };
    format!("{country}.{number:020}")
}

fn name_of(wa_id: &str) -> String {
    const NAMES: [&str; 8] = ["Анна", "Иван", "Мария", "Пётр", "Ольга", "Сергей", "Елена", "Дмитрий"];
    let seed = wa_id.bytes().fold(3_u64, |sum, byte| mix(sum ^ u64::from(byte)));
    NAMES[usize::try_from(seed % 8).unwrap_or(0)].to_owned()
}

/// Digits of a number as people write it; `None` if anything else than `+ ( ) - .` and spaces is in it.
pub(crate) fn digits(text: &str) -> Option<String> {
    let mut digits = String::with_capacity(text.len());
    for symbol in text.chars() {
        match symbol {
            '0'..='9' => digits.push(symbol),
            '+' | ' ' | '-' | '(' | ')' => {}
            _ => return None,
        }
    }
    (5..=15).contains(&digits.len()).then_some(digits)
}

/// A message id: starts `wamid.`, opaque else.
pub(crate) fn wamid(ids: &Ids) -> String {
    format!("wamid.HBgL{}", ids.letters(44))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pair_limit_lets_a_burst_pass_and_then_one_per_interval() {
        let mut dialog = Dialog::default();
        let limit = PairLimit::default();
        assert_eq!((0..60).filter(|_| dialog.take_pair(limit, 1_000)).count(), 45);
        assert!(!dialog.take_pair(limit, 6_999));
        assert!(dialog.take_pair(limit, 7_000));
        assert!(!dialog.take_pair(limit, 7_001));
    }

    #[test]
    fn numbers_are_read_as_people_write_them() {
        assert_eq!(digits("+7 (916) 123-45-67").as_deref(), Some("79161234567"));
        assert_eq!(digits("7916x"), None);
        assert_eq!(digits("1234"), None);
    }
}
