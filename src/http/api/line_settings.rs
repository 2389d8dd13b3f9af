//! Settings of a line as the API takes and shows them.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::domain::guards::{DUPLICATE_HOURS, Duplicates, LineSettings, NOT_AFTER_MINUTES, QuietHours, TimeOfDay};
use crate::http::problem::Problem;
use crate::zones;

/// What holds for the messages of a line's automations, unless their robot says otherwise. Null is "not set".
#[derive(Serialize, ToSchema)]
pub(super) struct SettingsView {
    /// A message that could not be sent for so many minutes is not sent any more; null is the configured time.
    not_after_minutes: Option<i64>,
    /// A robot's newer message to a card and person replaces its waiting one.
    supersede: bool,
    /// What happens to a text that the person has just got: `off` (it is sent), `refuse` or `hold` (a dead letter).
    #[schema(example = "off")]
    duplicates: &'static str,
    /// For how many hours a text counts as just got.
    duplicate_hours: i64,
    /// When clients are left in peace; null is never.
    quiet_hours: Option<QuietView>,
    /// Zone of clients whose own is not known; null is the configured one.
    #[schema(example = "Asia/Omsk")]
    time_zone: Option<String>,
}

/// Hours of a day; they may go past midnight.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QuietView {
    /// They begin.
    #[schema(example = "21:00")]
    from: String,
    /// They are over.
    #[schema(example = "09:00")]
    to: String,
}

/// What to change: what is left out stays, null takes back.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SettingsChange {
    /// 1 to 43200 (thirty days).
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 43200)]
    not_after_minutes: Option<Option<i64>>,
    /// On or off.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<bool>)]
    supersede: Option<Option<bool>>,
    /// `off`, `refuse` or `hold`.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>, example = "refuse")]
    duplicates: Option<Option<String>>,
    /// 1 to 720 (thirty days); 24 unless set.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 720)]
    duplicate_hours: Option<Option<i64>>,
    /// Times of day as `21:00`.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<QuietView>)]
    quiet_hours: Option<Option<QuietView>>,
    /// IANA name or offset: `Asia/Omsk`, `+06:00`.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>, example = "Asia/Omsk")]
    time_zone: Option<Option<String>>,
}

/// Tells null from what was left out.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(value: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(value).map(Some)
}

impl SettingsView {
    pub(super) fn of(settings: &LineSettings) -> Self {
        Self {
            not_after_minutes: settings.not_after_minutes,
            supersede: settings.supersede,
            duplicates: settings.duplicates.code(),
            duplicate_hours: settings.duplicate_window().0 / 3_600_000,
            quiet_hours: settings
                .quiet_hours
                .map(|hours| QuietView { from: hours.from.to_string(), to: hours.to.to_string() }),
            time_zone: settings.time_zone.clone(),
        }
    }
}

impl SettingsChange {
    /// The settings as they are after the change.
    ///
    /// # Errors
    /// 422 with the first value that cannot be; the value is not repeated.
    pub(super) fn apply(self, before: &LineSettings) -> Result<LineSettings, Problem> {
        let refuse = |text: String| Problem::Unprocessable(format!("settings.{text}"));
        let mut settings = before.clone();
        if let Some(minutes) = self.not_after_minutes {
            if minutes.is_some_and(|minutes| !NOT_AFTER_MINUTES.contains(&minutes)) {
                let (least, most) = (NOT_AFTER_MINUTES.start(), NOT_AFTER_MINUTES.end());
                return Err(refuse(format!("not_after_minutes: {least} to {most}")));
            }
            settings.not_after_minutes = minutes;
        }
        if let Some(supersede) = self.supersede {
            settings.supersede = supersede.unwrap_or_default();
        }
        if let Some(word) = self.duplicates {
            let choice = word.map_or(Some(Duplicates::default()), |word| Duplicates::find(&word));
            settings.duplicates = choice.ok_or_else(|| refuse("duplicates: off, refuse or hold".to_owned()))?;
        }
        if let Some(hours) = self.duplicate_hours {
            if hours.is_some_and(|hours| !DUPLICATE_HOURS.contains(&hours)) {
                let (least, most) = (DUPLICATE_HOURS.start(), DUPLICATE_HOURS.end());
                return Err(refuse(format!("duplicate_hours: {least} to {most}")));
            }
            settings.duplicate_hours = hours;
        }
        if let Some(hours) = self.quiet_hours {
            let read = |hours: QuietView| QuietHours::new(TimeOfDay::parse(&hours.from)?, TimeOfDay::parse(&hours.to)?);
            settings.quiet_hours = match hours {
                None => None,
                Some(hours) => Some(read(hours).ok_or_else(|| {
                    refuse("quiet_hours: two different times of day, such as 21:00 and 09:00".to_owned())
                })?),
            };
        }
        if let Some(zone) = self.time_zone {
            settings.time_zone = match zone {
                None => None,
                Some(zone) => Some(zones::parse(&zone).ok_or_else(|| {
                    refuse("time_zone: an IANA name or an offset, such as Asia/Omsk or +06:00".to_owned())
                })?),
            };
        }
        Ok(settings)
    }
}
