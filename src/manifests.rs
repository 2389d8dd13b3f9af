//! What the CRMs must know of us: `connector-manifests/`, compiled in.

pub mod amocrm;
pub mod listing;
mod zip;

use serde::Deserialize;

use crate::domain::channel::Messenger;
use crate::robots::Texts;

/// The Bitrix24 application.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bitrix24App {
    /// Its name in the portal.
    pub name: Texts,
    /// File beside the manifest; its content is [`BITRIX24_ICON`].
    pub icon: String,
    /// Where our pages and handlers stand.
    pub handlers: Handlers,
    /// Rights it needs.
    pub scopes: Vec<Scope>,
    /// Events we want to be told.
    pub events: Vec<EventName>,
    /// Where our pages appear.
    pub placements: Vec<Placement>,
}

/// Paths below the public address, with `{app}` and `{code}` to be filled in.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handlers {
    /// The installer page.
    pub install: String,
    /// The application's own page.
    pub app: String,
    /// All events.
    pub events: String,
    /// One robot.
    pub robots: String,
    /// The settings page of one connector.
    pub settings: String,
    /// The tab on a card.
    pub card: String,
}

/// One right.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Bitrix24's word.
    pub code: String,
    /// What it is needed for, to complete "the right … is needed".
    pub reason: Texts,
    /// Everything else works without it, so its absence is no gap.
    #[serde(default)]
    pub optional: bool,
}

/// One event.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventName {
    /// Bitrix24's word, upper case.
    pub code: String,
    /// The right it comes with; without that right the portal does not know the event.
    #[serde(default)]
    pub scope: Option<String>,
}

impl EventName {
    /// True when a portal that granted these rights knows the event.
    #[must_use]
    pub fn is_known_to(&self, granted: &[String]) -> bool {
        self.scope.as_ref().is_none_or(|scope| granted.iter().any(|have| have.eq_ignore_ascii_case(scope)))
    }
}

/// One place where a page of ours appears.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// Bitrix24's word; `{type}` stands for the number of each smart process.
    pub code: String,
    /// Path below the public address.
    pub path: String,
    /// True when it has to be registered with `placement.bind`.
    pub bind: bool,
    /// Its title.
    pub title: Texts,
}

/// One connector: how a messenger appears in the portal's Contact center.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connector {
    /// The messenger.
    pub messenger: Messenger,
    /// Bitrix24's id of it, lower case, with `{app}` to be filled in: unique in the whole portal, so that two of our
    /// applications there do not take each other's connectors over.
    pub id: String,
    /// Its name in the portal.
    pub name: Texts,
    /// True when the messenger lets sent messages be changed and deleted.
    #[serde(default)]
    pub changes: bool,
    /// Background of its picture, `#rrggbb`.
    pub color: String,
    /// Its picture, as SVG.
    pub icon: String,
}

impl Connector {
    /// The id in a portal where our application `{app}` is installed. Whatever an id may not hold becomes `_`.
    #[must_use]
    pub fn id_for(&self, app: &str) -> String {
        let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' };
        self.id.replace("{app}", &app.chars().map(plain).collect::<String>())
    }
}

/// What stands in the file of connectors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Connectors {
    connectors: Vec<Connector>,
}

/// Reads the manifest of the Bitrix24 connectors.
///
/// # Errors
/// As [`bitrix24`].
pub fn connectors() -> Result<Vec<Connector>, String> {
    toml::from_str(include_str!("../connector-manifests/bitrix24/connectors.toml"))
        .map(|file: Connectors| file.connectors)
        .map_err(|e| format!("connector-manifests/bitrix24/connectors.toml: {e}"))
}

/// Picture of the Bitrix24 application.
pub const BITRIX24_ICON: &str = include_str!("../connector-manifests/bitrix24/icon.svg");

/// Reads the manifest of the Bitrix24 application.
///
/// # Errors
/// The file is not what it should be; it is compiled in and tested, so this means a broken build.
pub fn bitrix24() -> Result<Bitrix24App, String> {
    toml::from_str(include_str!("../connector-manifests/bitrix24/app.toml"))
        .map_err(|e| format!("connector-manifests/bitrix24/app.toml: {e}"))
}

impl Bitrix24App {
    /// Rights that are needed and not among those granted; not those that only switches ask for.
    #[must_use]
    pub fn missing_scopes(&self, granted: &[String]) -> Vec<&Scope> {
        let lacks = |scope: &&Scope| !granted.iter().any(|have| have.eq_ignore_ascii_case(&scope.code));
        self.scopes.iter().filter(|scope| !scope.optional).filter(lacks).collect()
    }
}

impl Handlers {
    /// The whole address of a path: the public address, `{app}` and `{code}` filled in.
    #[must_use]
    pub fn address(path: &str, public_url: &str, app: &str, code: &str) -> String {
        format!("{}{}", public_url.trim_end_matches('/'), path.replace("{app}", app).replace("{code}", code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_is_sound() {
        let app = bitrix24().unwrap();
        assert!(!app.name.ru.to_lowercase().contains("bitrix") && !app.name.en.to_lowercase().contains("bitrix"));
        assert_eq!(app.icon, "icon.svg");
        assert!(BITRIX24_ICON.starts_with("<svg") && BITRIX24_ICON.trim_end().ends_with("</svg>"));
        assert!(!app.scopes.is_empty());
        for scope in &app.scopes {
            assert!(!scope.reason.ru.is_empty() && !scope.reason.en.is_empty(), "{}", scope.code);
        }
        for event in ["ONAPPINSTALL", "ONAPPUPDATE", "ONAPPUNINSTALL"] {
            assert!(app.events.iter().any(|known| known.code == event), "{event}");
        }
        assert!(app.events.iter().all(|event| event.code == event.code.to_ascii_uppercase()));
        let handlers = [&app.handlers.install, &app.handlers.app, &app.handlers.events, &app.handlers.robots];
        let handlers = handlers.into_iter().chain([&app.handlers.settings, &app.handlers.card]);
        let placements = app.placements.iter().map(|placement| &placement.path);
        for path in handlers.chain(placements) {
            assert!(path.starts_with("/bitrix24/{app}/"), "{path}");
        }
        assert!(app.placements.iter().filter(|place| place.bind).all(|place| place.path == app.handlers.card));
        assert!(app.placements.iter().any(|place| place.bind && place.code.contains("{type}")));
    }

    #[test]
    fn missing_rights_are_named() {
        let app = bitrix24().unwrap();
        let missing = |granted: &[&str]| -> Vec<String> {
            let granted: Vec<String> = granted.iter().map(|scope| (*scope).to_owned()).collect();
            app.missing_scopes(&granted).iter().map(|scope| scope.code.clone()).collect()
        };
        assert_eq!(missing(&["crm", "bizproc", "imopenlines", "im", "placement", "disk"]), [""; 0]);
        assert_eq!(missing(&["CRM", "im", "imopenlines", "placement", "disk"]), ["bizproc"]);
        assert_eq!(missing(&[]), ["crm", "bizproc", "imopenlines", "im", "placement", "disk"]);
    }

    #[test]
    fn connectors_are_sound() {
        let connectors = connectors().unwrap();
        assert!(connectors.iter().any(|connector| connector.messenger == Messenger::Whatsapp));
        for connector in &connectors {
            let id = connector.id_for("Main.App");
            assert!(id.contains("main_app") && id.contains(connector.messenger.code()), "{id}");
            assert!(id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{id}");
            assert!(connector.icon.starts_with("<svg") && connector.icon.ends_with("</svg>"));
            assert!(connector.color.len() == 7 && connector.color.starts_with('#'));
        }
    }

    #[test]
    fn addresses_are_filled_in() {
        assert_eq!(
            Handlers::address("/bitrix24/{app}/robots/{code}", "https://c.example/", "main", "send_message"),
            "https://c.example/bitrix24/main/robots/send_message"
        );
    }
}
