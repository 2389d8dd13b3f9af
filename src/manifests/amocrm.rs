//! The widget of amoCRM and Kommo: `connector-manifests/amocrm` and the catalogue of actions, made into an archive for one
//! address of ours.
//!
//! Source: amoCRM, "Widget structure", "manifest.json", "script.js" and the rules of moderation (our protocol reference,
//! section "Widget package", read 2026-11).

use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

use super::zip;
use crate::crm::amocrm::trigger::IN_SETTINGS;
use crate::domain::language::Language;
use crate::robots::{self, Property, PropertyKind, Robot};

const SCRIPT: &str = include_str!("../../connector-manifests/amocrm/script.js");
const STYLE: &str = include_str!("../../connector-manifests/amocrm/style.css");

/// Name of a picture in the archive, and its content. The vendor wants each in a size of its own.
const PICTURES: [(&str, &[u8]); 6] = [
    ("logo_main", include_bytes!("../../connector-manifests/amocrm/images/logo_main.png")),
    ("logo_small", include_bytes!("../../connector-manifests/amocrm/images/logo_small.png")),
    ("logo", include_bytes!("../../connector-manifests/amocrm/images/logo.png")),
    ("logo_medium", include_bytes!("../../connector-manifests/amocrm/images/logo_medium.png")),
    ("logo_min", include_bytes!("../../connector-manifests/amocrm/images/logo_min.png")),
    ("logo_dp", include_bytes!("../../connector-manifests/amocrm/images/logo_dp.png")),
];

/// Settings that the script keeps for itself: which action it is, and what stands for empty parameters.
const HELPERS: [&str; 2] = ["action", "param_defaults"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Widget {
    version: String,
    locations: Vec<String>,
    left_out: Vec<String>,
    for_bots: Vec<String>,
    properties: Vec<Property>,
}

/// For which address a package is made.
#[derive(Clone, Debug)]
pub struct Address {
    /// Our own address as the world sees it, without a slash at the end.
    pub public_url: String,
    /// Name of the integration in the configuration.
    pub app: String,
    /// Where people find help.
    pub support: String,
}

impl Address {
    fn base(&self) -> String {
        format!("{}/amocrm/{}", self.public_url, self.app)
    }

    /// # Errors
    /// A text for the operator: the vendor takes addresses with TLS and Latin names only. A loopback address passes: nobody
    /// but the simulator can call it.
    fn check(&self) -> Result<(), String> {
        let url = Url::parse(&self.public_url).map_err(|e| format!("server.public_url: {e}"))?;
        let host = url.host_str().unwrap_or_default();
        let is_loopback = matches!(host, "127.0.0.1" | "localhost" | "[::1]");
        if url.scheme() != "https" && !is_loopback {
            return Err("server.public_url: amoCRM calls https addresses only".to_owned());
        }
        if !self.public_url.is_ascii() || host.split('.').any(|label| label.starts_with("xn--")) {
            return Err("server.public_url: amoCRM takes no host names with other than Latin letters".to_owned());
        }
        Ok(())
    }
}

fn widget() -> Result<Widget, String> {
    toml::from_str(include_str!("../../connector-manifests/amocrm/widget.toml"))
        .map_err(|e| format!("connector-manifests/amocrm/widget.toml: {e}"))
}

/// The catalogue as Salesbot steps: fields that only Bitrix24 has are left out, those that only amoCRM has are added.
///
/// # Errors
/// A file that is compiled in cannot be read: a broken build.
pub fn steps() -> Result<Vec<Robot>, String> {
    let widget = widget()?;
    let mut robots = robots::load()?;
    for robot in &mut robots {
        robot.properties.retain(|property| !widget.left_out.contains(&property.key));
        // A rule about whom a message goes to belongs to actions that send to somebody.
        if robot.properties.iter().any(|property| property.key == "recipients") {
            robot.properties.extend(widget.properties.iter().cloned());
        }
    }
    Ok(robots)
}

/// Makes the archive.
///
/// # Errors
/// A text for the operator: an address the vendor does not take, or a broken build.
pub fn package(address: &Address) -> Result<Vec<u8>, String> {
    address.check()?;
    zip::archive(&files(address)?)
}

/// The files of the archive, by name.
///
/// # Errors
/// As [`package`].
pub fn files(address: &Address) -> Result<Vec<(String, Vec<u8>)>, String> {
    let (widget, steps) = (widget()?, steps()?);
    let script = SCRIPT.replace("__BASE__", &address.base()).replace("__VERSION__", &widget.version);
    let mut files = vec![
        ("manifest.json".to_owned(), pretty(&manifest(&widget, &steps, address))?),
        ("script.js".to_owned(), script.into_bytes()),
        ("style.css".to_owned(), STYLE.as_bytes().to_vec()),
    ];
    for language in Language::ALL {
        files.push((format!("i18n/{}.json", language.code()), pretty(&texts(&steps, language, address)?)?));
    }
    files.extend(PICTURES.iter().map(|(name, content)| (format!("images/{name}.png"), content.to_vec())));
    Ok(files)
}

fn pretty(value: &Value) -> Result<Vec<u8>, String> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|e| e.to_string())?;
    text.push(b'\n');
    Ok(text)
}

/// Name of a field in the language files.
fn label(step: &Robot, key: &str) -> String {
    if HELPERS.contains(&key) { format!("salesbot.{key}") } else { format!("salesbot.{}_{key}", step.code) }
}

fn manifest(widget: &Widget, steps: &[Robot], address: &Address) -> Value {
    let languages: Vec<&str> = Language::ALL.iter().map(|language| language.code()).collect();
    let mut designer = Map::new();
    for step in steps {
        let mut settings: Map<String, Value> =
            step.properties.iter().map(|property| (property.key.clone(), setting(step, property))).collect();
        for key in HELPERS {
            let default = if key == "action" { step.code.as_str() } else { "" };
            let helper = json!({"name": label(step, key), "default_value": default, "type": "text", "manual": true});
            settings.insert(key.to_owned(), helper);
        }
        let block = json!({"name": format!("salesbot.{}", step.code), "settings": settings});
        designer.insert(step.code.clone(), block);
    }
    json!({
        "widget": {
            "name": "widget.name", "description": "widget.description", "short_description": "widget.short_description",
            "version": widget.version, "interface_version": 2, "init_once": false, "locale": languages,
            "installation": true, "support": {"link": address.support},
        },
        "locations": widget.locations,
        // Required, so that nobody's data leaves before somebody agreed; the script draws the box to tick.
        "settings": {"consent": {"name": "settings.consent", "type": "custom", "required": true}},
        "advanced": {"title": "advanced.title"},
        "dp": {
            "settings": trigger(widget, steps), "action_multiple": false, "title": "dp.title",
            // The account's word stands in the settings: one package serves every account.
            "webhook_url": format!("{}/pipeline/{}", address.base(), IN_SETTINGS),
        },
        "salesbot_designer": designer,
    })
}

fn setting(step: &Robot, property: &Property) -> Value {
    let kind = match property.kind {
        PropertyKind::Int => "numeric",
        PropertyKind::String | PropertyKind::Text | PropertyKind::Bool | PropertyKind::Select | PropertyKind::User => {
            "text"
        }
    };
    let default = property.default.clone().unwrap_or_default();
    json!({"name": label(step, &property.key), "default_value": default, "type": kind, "manual": true})
}

/// Settings of the action of a pipeline's stage: the step that sends, without what only a waiting bot needs.
fn trigger(widget: &Widget, steps: &[Robot]) -> Value {
    let mut settings = Map::new();
    for step in steps.iter().filter(|step| step.code == "send_message") {
        let keys = step.properties.iter().map(|property| property.key.as_str()).chain(HELPERS);
        for key in keys.filter(|key| !widget.for_bots.iter().any(|own| own == key)) {
            settings.insert(key.to_owned(), json!({"name": label(step, key), "type": "text", "required": false}));
        }
    }
    settings.insert("key".to_owned(), json!({"name": "dp.key", "type": "text", "required": true}));
    Value::Object(settings)
}

fn texts(steps: &[Robot], language: Language, address: &Address) -> Result<Value, String> {
    let (name, source) = match language {
        Language::Ru => ("ru", include_str!("../../connector-manifests/amocrm/ru.json")),
        Language::En => ("en", include_str!("../../connector-manifests/amocrm/en.json")),
    };
    let source = source.replace("#SUPPORT#", &address.support);
    let broken = |what: &str| format!("connector-manifests/amocrm/{name}.json: {what}");
    let mut texts: Value = serde_json::from_str(&source).map_err(|e| broken(&e.to_string()))?;
    let salesbot = texts.get_mut("salesbot").and_then(Value::as_object_mut).ok_or_else(|| broken("no salesbot"))?;
    for step in steps {
        salesbot.insert(step.code.clone(), step.name.of(language).into());
        for property in &step.properties {
            salesbot.insert(format!("{}_{}", step.code, property.key), property.name.of(language).into());
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(public_url: &str) -> Address {
        Address { public_url: public_url.into(), app: "main".into(), support: "https://connector.example/help".into() }
    }

    #[test]
    fn addresses_the_vendor_would_not_call_are_refused() {
        for url in ["http://connector.example", "https://коннектор.example", "https://xn--j1aef.example", "nonsense"]
        {
            assert!(package(&address(url)).is_err(), "{url}");
        }
        assert!(package(&address("http://127.0.0.1:8080")).is_ok());
    }

    #[test]
    fn the_same_address_makes_the_same_archive() {
        let of = |url: &str| package(&address(url)).unwrap();
        assert_eq!(of("https://connector.example"), of("https://connector.example"));
        assert_ne!(of("https://connector.example"), of("https://other.example"));
    }

    #[test]
    fn nothing_is_left_to_be_filled_in() {
        for (name, content) in files(&address("https://connector.example")).unwrap() {
            let text = String::from_utf8_lossy(&content);
            assert!(
                !text.contains("__BASE__") && !text.contains("#SUPPORT#") && !text.contains("__VERSION__"),
                "{name}"
            );
        }
    }

    #[test]
    fn every_action_of_the_catalogue_is_a_step() {
        let steps = steps().unwrap();
        assert_eq!(steps.len(), crate::domain::action::ActionKind::ALL.len());
        let send = steps.iter().find(|step| step.code == "send_message").unwrap();
        let has = |key: &str| send.properties.iter().any(|property| property.key == key);
        assert!(has("in_group") && !has("messenger_field"));
    }
}
