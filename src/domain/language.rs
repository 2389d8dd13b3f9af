//! Languages people read us in.

use serde::{Deserialize, Serialize};

/// A language the product speaks to people.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Russian.
    Ru,
    /// English; also what everybody else gets.
    #[default]
    En,
}

impl Language {
    /// Every language, for tests that demand a text in each.
    pub const ALL: [Self; 2] = [Self::Ru, Self::En];

    /// Picks by a CRM's two-letter code (`ru`, `en`, `by`, `kz` …): Russian where portals of that code are read in
    /// Russian, English otherwise.
    #[must_use]
    pub fn of_portal(code: &str) -> Self {
        match code.trim().to_ascii_lowercase().as_str() {
            "ru" | "by" | "be" | "kz" | "kk" | "uz" | "kg" | "am" | "az" | "ge" => Self::Ru,
            _ => Self::En,
        }
    }

    /// The two-letter code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Ru => "ru",
            Self::En => "en",
        }
    }
}
