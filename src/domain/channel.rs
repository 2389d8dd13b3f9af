//! Lines and channels: who speaks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::guards::LineSettings;
use super::ids::{ChannelId, LineId};
use super::time::{Millis, Timestamp};

/// The medium a person sees.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Messenger {
    /// WhatsApp.
    Whatsapp,
    /// Telegram.
    Telegram,
    /// MAX.
    Max,
    /// VK.
    Vk,
    /// Avito.
    Avito,
    /// E-mail.
    Email,
    /// SMS.
    Sms,
}

impl Messenger {
    /// Every messenger.
    pub const ALL: [Self; 7] =
        [Self::Whatsapp, Self::Telegram, Self::Max, Self::Vk, Self::Avito, Self::Email, Self::Sms];

    /// The word in automations, the API and the database.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Whatsapp => "whatsapp",
            Self::Telegram => "telegram",
            Self::Max => "max",
            Self::Vk => "vk",
            Self::Avito => "avito",
            Self::Email => "email",
            Self::Sms => "sms",
        }
    }

    /// The name people know it by.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Whatsapp => "WhatsApp",
            Self::Telegram => "Telegram",
            Self::Max => "MAX",
            Self::Vk => "VK",
            Self::Avito => "Avito",
            Self::Email => "E-mail",
            Self::Sms => "SMS",
        }
    }

    /// Finds a messenger by its word.
    #[must_use]
    pub fn find(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|messenger| messenger.code().eq_ignore_ascii_case(code.trim()))
    }
}

/// One business purpose ("Sales"): what an administrator picks in a robot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Ours.
    pub id: LineId,
    /// As the administrator named it.
    pub name: String,
    /// What holds for its messages unless their action says otherwise.
    pub settings: LineSettings,
}

/// Whether a channel works.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChannelState {
    /// Sends.
    Active,
    /// Keeps its queue until somebody resumes it; the reason is for people.
    Paused(String),
}

/// How a resumed channel comes back to its pace: it begins with a part of it, which doubles until it is the whole. A
/// function of the time alone, so that a restart or another process goes on where it stood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ramp {
    /// When it was resumed.
    pub began: Timestamp,
    /// The part it begins with, in percent of the channel's pace: 1 to 100.
    pub start_percent: u32,
    /// The part doubles each time after so long; at least a second.
    pub double_every: Millis,
}

impl Ramp {
    /// The part to begin with when nothing else is asked for.
    pub const START_PERCENT: u32 = 10;
    /// How long until it doubles when nothing else is asked for: the whole pace after four minutes.
    pub const DOUBLE_EVERY: Millis = Millis::minutes(1);

    fn doublings(self, now: Timestamp) -> i64 {
        now.since(self.began).0.max(0) / self.double_every.0.max(1)
    }

    /// Percent of the channel's pace that hold at `now`; 100 when the ramp is over.
    #[must_use]
    pub fn percent(self, now: Timestamp) -> u32 {
        // From one percent it is the whole after seven.
        let doublings = u32::try_from(self.doublings(now).min(7)).unwrap_or(7);
        (self.start_percent.clamp(1, 100) << doublings).min(100)
    }

    /// When more will hold; `None` when the ramp is over.
    #[must_use]
    pub fn next_step(self, now: Timestamp) -> Option<Timestamp> {
        let next = self.doublings(now).saturating_add(1).saturating_mul(self.double_every.0.max(1));
        (self.percent(now) < 100).then(|| self.began.plus(Millis(next)))
    }
}

/// Options of one channel; what is absent follows the provider's own limits and the configuration.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChannelSettings {
    /// Messages per second this channel may send; `None` is the provider's documented rate.
    pub messages_per_second: Option<f64>,
    /// Country (ISO 3166 two letters) in which numbers without a country code are read; `None` is the configured one.
    pub country: Option<String>,
}

/// One connected sender of a line, as the pipeline sees it.
#[derive(Clone)]
pub struct Channel {
    /// Ours.
    pub id: ChannelId,
    /// The line it belongs to.
    pub line: LineId,
    /// Registry id of the provider (`whatsapp_cloud`).
    pub provider: String,
    /// As the administrator named it, usually the number.
    pub name: String,
    /// Unsealed credentials by field name. Secret: never printed, which is why this type has no `Debug`.
    pub credentials: BTreeMap<String, String>,
    /// Options of this channel.
    pub settings: ChannelSettings,
    /// Whether it works.
    pub state: ChannelState,
    /// How it comes back to its pace after a pause; `None` when it sends as fast as it may.
    pub ramp: Option<Ramp>,
}

impl Channel {
    /// One credential; empty text when it was never given (the form demands the required ones).
    #[must_use]
    pub fn credential(&self, field: &str) -> &str {
        self.credentials.get(field).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_doubles_until_it_is_the_whole_and_needs_no_memory() {
        let began = Timestamp(1_000);
        let ramp = Ramp { began, start_percent: 10, double_every: Millis::minutes(1) };
        let minutes = |n: i64| began.plus(Millis::minutes(n));
        let percents: Vec<u32> = (-1..6).map(|n| ramp.percent(minutes(n))).collect();
        assert_eq!(percents, [10, 10, 20, 40, 80, 100, 100]);
        assert_eq!(ramp.next_step(minutes(1)), Some(minutes(2)));
        assert_eq!(ramp.next_step(minutes(2).plus(Millis(-1))), Some(minutes(2)));
        assert_eq!(ramp.next_step(minutes(4)), None);
        let slow = Ramp { start_percent: 1, ..ramp };
        assert_eq!((slow.percent(minutes(6)), slow.percent(minutes(7))), (64, 100));
        assert_eq!(slow.percent(Timestamp(i64::MAX)), 100);
    }
}
