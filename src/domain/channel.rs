//! Lines and channels: who speaks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::guards::LineSettings;
use super::ids::{ChannelId, LineId};

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
}

impl Channel {
    /// One credential; empty text when it was never given (the form demands the required ones).
    #[must_use]
    pub fn credential(&self, field: &str) -> &str {
        self.credentials.get(field).map_or("", String::as_str)
    }
}
