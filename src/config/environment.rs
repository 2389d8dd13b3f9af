//! Settings from the environment: `MOSTIK__SECTION__KEY`.
//!
//! Values stay the text they are; what wants a number or a flag reads it from the text. Guessing kinds here would turn
//! the token `00123` into `123`.

use config::{Value, ValueKind};

use super::ConfigError;

/// What our variables start with.
const PREFIX: &str = "mostik__";
/// Settings that are lists; in a variable, commas separate.
const LISTS: [&str; 6] = [
    "server.trusted_proxies",
    "security.previous_keys",
    "network.allow_private",
    "bitrix24.oauth_hosts",
    "amocrm.account_hosts",
    "delivery.retry_schedule",
];

/// Our variables.
///
/// # Errors
/// [`ConfigError`] for one that is no text.
pub(super) fn read() -> Result<Vec<(String, String)>, ConfigError> {
    let ours = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    ours.filter(|(name, _)| name.to_ascii_lowercase().starts_with(PREFIX))
        .map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(ConfigError(format!("{name}: its value is no UTF-8 text"))),
        })
        .collect()
}

/// Keys and values as the layers take them; variables of others are left out.
pub(super) fn settings(variables: Vec<(String, String)>) -> impl Iterator<Item = (String, Value)> {
    variables.into_iter().filter_map(|(name, text)| {
        let name = name.to_ascii_lowercase();
        let key = name.strip_prefix(PREFIX)?.replace("__", ".");
        let kind = if LISTS.contains(&key.as_str()) {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            ValueKind::Array(items.map(Value::from).collect())
        } else {
            ValueKind::String(text)
        };
        Some((key, Value::new(Some(&format!("the variable {}", name.to_ascii_uppercase())), kind)))
    })
}
