//! What a line or an automation's author forbids a message: to come late, to come outdated, to come twice, to come at
//! night. Everything here is off unless somebody turns it on.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::time::{Millis, Timestamp};

/// Minutes a deadline may be set to: one minute to thirty days.
pub const NOT_AFTER_MINUTES: RangeInclusive<i64> = 1..=43_200;
/// Hours for which a text may be kept from coming twice: one hour to thirty days.
pub const DUPLICATE_HOURS: RangeInclusive<i64> = 1..=720;
/// Hours, unless the line says otherwise.
const DUPLICATE_HOURS_DEFAULT: i64 = 24;

/// Settings of a line. Stored as JSON, so old rows parse for ever; what is absent follows the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LineSettings {
    /// A message that could not be sent for so many minutes is not sent any more; `None` is the configured time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after_minutes: Option<i64>,
    /// A robot's newer message to a card and person replaces its waiting one.
    pub supersede: bool,
    /// What happens to a text that the person has just got.
    pub duplicates: Duplicates,
    /// For how many hours a text counts as just got; `None` is a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate_hours: Option<i64>,
    /// When clients are left in peace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quiet_hours: Option<QuietHours>,
    /// Zone of clients whose own is not known (canonical, see [`crate::zones`]); `None` is the configured one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
}

impl LineSettings {
    /// For how long a text counts as just got.
    #[must_use]
    pub fn duplicate_window(&self) -> Millis {
        Millis::hours(self.duplicate_hours.unwrap_or(DUPLICATE_HOURS_DEFAULT))
    }
}

/// What an action says for itself; what is absent follows its line.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ActionGuards {
    /// As [`LineSettings::not_after_minutes`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after_minutes: Option<i64>,
    /// As [`LineSettings::supersede`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supersede: Option<bool>,
    /// As [`LineSettings::duplicates`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicates: Option<Duplicates>,
    /// As [`LineSettings::quiet_hours`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quiet_hours: Option<QuietChoice>,
    /// The client's zone, canonical, when the card knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
}

impl ActionGuards {
    /// True when the action says nothing for itself.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What happens to a text that the person has just got.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duplicates {
    /// It is sent.
    #[default]
    Off,
    /// It fails.
    Refuse,
    /// It becomes a dead letter that a person can release.
    Hold,
}

impl Duplicates {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::Off, Self::Refuse, Self::Hold];

    /// The word in automations, the API and the database.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Refuse => "refuse",
            Self::Hold => "hold",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn find(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|choice| choice.code() == code.trim())
    }
}

/// What an action says of quiet hours.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuietChoice {
    /// It may be sent at any hour, whatever the line says.
    Off,
    /// These instead of the line's.
    Hours(QuietHours),
}

impl QuietChoice {
    /// Reads `off` or `21:00-09:00`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.trim().eq_ignore_ascii_case("off") { Some(Self::Off) } else { QuietHours::parse(text).map(Self::Hours) }
    }
}

/// Hours of a day in which nothing is sent; may go past midnight. `from` belongs to them, `to` does not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct QuietHours {
    /// They begin.
    pub from: TimeOfDay,
    /// They are over.
    pub to: TimeOfDay,
}

impl QuietHours {
    /// `None` when both ends are the same: nobody could say whether that is always or never.
    #[must_use]
    pub fn new(from: TimeOfDay, to: TimeOfDay) -> Option<Self> {
        (from != to).then_some(Self { from, to })
    }

    /// Reads `21:00-09:00`, with any dash and spaces.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.split_once(['-', '–', '—'])?;
        Self::new(TimeOfDay::parse(from)?, TimeOfDay::parse(to)?)
    }

    /// True when this time of day is quiet.
    #[must_use]
    pub fn contain(self, time: TimeOfDay) -> bool {
        if self.from <= self.to { self.from <= time && time < self.to } else { self.from <= time || time < self.to }
    }
}

/// A time of day to the minute, as a clock on the wall shows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    /// `None` for what no clock shows.
    #[must_use]
    pub fn new(hour: u16, minute: u16) -> Option<Self> {
        (hour < 24 && minute < 60).then(|| Self(hour * 60 + minute))
    }

    /// Reads `9:00` or `09:00`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (hour, minute) = text.trim().split_once(':')?;
        let number = |text: &str, least: usize| {
            let digits = (least..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten()
        };
        Self::new(number(hour, 1)?, number(minute, 2)?)
    }

    /// 0 to 23.
    #[must_use]
    pub fn hour(self) -> u16 {
        self.0 / 60
    }

    /// 0 to 59.
    #[must_use]
    pub fn minute(self) -> u16 {
        self.0 % 60
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.hour(), self.minute())
    }
}

impl From<TimeOfDay> for String {
    fn from(time: TimeOfDay) -> Self {
        time.to_string()
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("a time of day such as 09:00")
    }
}

/// The quiet hours of one message, kept with it: they hold whenever it could leave, not only when it was planned.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Quiet {
    /// Which hours.
    pub hours: QuietHours,
    /// By whose clock: a canonical zone ([`crate::zones`]).
    pub zone: String,
    /// True when that is the client's own zone, false when it only stands in for it.
    pub of_client: bool,
    /// The end of these hours, for a message that failed because they end after its deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub too_late: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_read_as_people_write_them() {
        for text in ["21:00-09:00", " 21:00 – 9:00 ", "21:00—09:00"] {
            let hours = QuietHours::parse(text).unwrap();
            assert_eq!((hours.from.to_string(), hours.to.to_string()), ("21:00".into(), "09:00".into()), "{text}");
        }
        for bad in ["", "21-9", "21:00", "24:00-09:00", "21:60-09:00", "09:00-09:00", "21:0-09:00", "+1:00-09:00"] {
            assert_eq!(QuietHours::parse(bad), None, "{bad}");
        }
        assert_eq!(QuietChoice::parse("OFF"), Some(QuietChoice::Off));
    }

    #[test]
    fn hours_may_go_past_midnight() {
        let at = |text: &str| TimeOfDay::parse(text).unwrap();
        let night = QuietHours::parse("21:00-09:00").unwrap();
        assert!(night.contain(at("21:00")) && night.contain(at("00:00")) && night.contain(at("08:59")));
        assert!(!night.contain(at("09:00")) && !night.contain(at("20:59")));
        let noon = QuietHours::parse("12:00-13:00").unwrap();
        assert!(noon.contain(at("12:30")) && !noon.contain(at("13:00")) && !noon.contain(at("03:00")));
    }

    #[test]
    fn stored_settings_of_version_one_parse_for_ever() {
        assert_eq!(serde_json::from_str::<LineSettings>("{}").unwrap(), LineSettings::default());
        let text = r#"{"not_after_minutes":90,"supersede":true,"duplicates":"hold","duplicate_hours":2,
            "quiet_hours":{"from":"21:00","to":"09:00"},"time_zone":"Asia/Omsk","unknown":1}"#;
        let settings: LineSettings = serde_json::from_str(text).unwrap();
        assert_eq!((settings.duplicates, settings.duplicate_window()), (Duplicates::Hold, Millis::hours(2)));
        assert_eq!(settings.quiet_hours, QuietHours::parse("21:00-09:00"));
        assert!(serde_json::from_str::<QuietHours>(r#"{"from":"25:00","to":"09:00"}"#).is_err());
        let action = r#"{"quiet_hours":{"hours":{"from":"22:00","to":"08:00"}},"supersede":false}"#;
        let action: ActionGuards = serde_json::from_str(action).unwrap();
        assert_eq!((action.supersede, action.quiet_hours), (Some(false), QuietChoice::parse("22:00-08:00")));
    }
}
