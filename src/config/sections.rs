//! One type per section of the settings, each with its own rules.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{Config, ConfigError, Span};
use crate::domain::time::Millis;
use crate::storage::db::Db;
use crate::storage::retention::Retention;
use crate::storage::sealed::Sealer;

fn wrong(key: &str, what: impl std::fmt::Display) -> ConfigError {
    ConfigError(format!("{key}: {what}"))
}

/// A secret is a value or a file that holds it.
fn secret(key: &str, value: &mut Option<SecretString>, file: Option<&Path>) -> Result<(), ConfigError> {
    match (value.as_ref(), file) {
        (Some(_), Some(_)) => Err(wrong(key, format!("give {key} or {key}_file, not both"))),
        (Some(given), None) if given.expose_secret().trim().is_empty() => {
            *value = None;
            Ok(())
        }
        (Some(_) | None, None) => Ok(()),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .map_err(|e| wrong(&format!("{key}_file"), format!("{}: {e}", path.display())))?;
            *value = Some(SecretString::from(text.trim().to_owned()));
            Ok(())
        }
    }
}

/// An application's name is part of our routes.
fn name_of_app(key: &str, name: &str) -> Result<(), ConfigError> {
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Ok(());
    }
    Err(wrong(key, format!("`{name}` is part of our routes: letters, digits, - and _")))
}

fn web_address(key: &str, text: &str) -> Result<(), ConfigError> {
    let parsed = url::Url::parse(text).map_err(|e| wrong(key, format!("`{text}` is no address ({e})")))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
        return Err(wrong(key, format!("`{text}` must start with https://")));
    }
    if text.ends_with('/') {
        return Err(wrong(key, "leave out the slash at the end"));
    }
    Ok(())
}

/// `[server]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSection {
    /// Where the service listens.
    pub bind: SocketAddr,
    /// Our own address as the world sees it.
    pub public_url: String,
    /// Longest body of a request, in bytes.
    pub body_limit_bytes: usize,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Threads that serve requests; 0 is one per core.
    pub threads: usize,
}

impl ServerSection {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        web_address("server.public_url", &self.public_url)?;
        if !(65_536..=64 * 1024 * 1024).contains(&self.body_limit_bytes) {
            return Err(wrong("server.body_limit_bytes", "must be between 65536 and 67108864"));
        }
        Ok(())
    }
}

/// `[database]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSection {
    /// Address of the database; may hold a password.
    pub url: SecretString,
    url_file: Option<PathBuf>,
    /// How long an answer of PostgreSQL is waited for.
    pub answer_within: Span,
}

impl DatabaseSection {
    pub(super) fn resolve(&mut self) -> Result<(), ConfigError> {
        if self.answer_within.0.0 < 100 {
            return Err(wrong("database.answer_within", "at least 100 ms"));
        }
        if let Some(path) = &self.url_file {
            // The manual's default stands in `url`, so a file simply wins over it.
            let mut from_file = None;
            secret("database.url", &mut from_file, Some(path))?;
            self.url = from_file.unwrap_or_else(|| self.url.clone());
        }
        Db::check_url(self.url.expose_secret()).map_err(|e| ConfigError(e.to_string()))
    }
}

/// `[security]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecuritySection {
    /// Seals tokens and credentials at rest.
    pub master_key: Option<SecretString>,
    master_key_file: Option<PathBuf>,
    /// Keys used before.
    pub previous_keys: Vec<SecretString>,
    /// Bearer token of the management API.
    pub admin_token: Option<SecretString>,
    admin_token_file: Option<PathBuf>,
}

impl SecuritySection {
    pub(super) fn resolve(&mut self) -> Result<(), ConfigError> {
        secret("security.master_key", &mut self.master_key, self.master_key_file.as_deref())?;
        secret("security.admin_token", &mut self.admin_token, self.admin_token_file.as_deref())?;
        let keys = self.master_key.iter().map(|key| ("security.master_key", key));
        let previous = self.previous_keys.iter().map(|key| ("security.previous_keys", key));
        for (name, key) in keys.chain(previous) {
            if !Sealer::is_key(key.expose_secret()) {
                return Err(wrong(name, "must be base64 of 32 bytes (make one with: openssl rand -base64 32)"));
            }
        }
        Ok(())
    }

    /// Sealing with a made-up key would lose every token at the next start.
    pub(super) fn fit_to_serve(&self) -> Result<(), ConfigError> {
        if self.master_key.is_some() {
            return Ok(());
        }
        Err(wrong(
            "security.master_key",
            "missing: make one with `openssl rand -base64 32` and keep it safe; \
             without it sealed tokens cannot be opened again",
        ))
    }
}

/// `[network]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSection {
    /// Networks that outgoing calls may reach although they are not public.
    pub allow_private: Vec<IpNet>,
}

/// `[bitrix24]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bitrix24Section {
    /// Applications by the name used in our routes.
    #[serde(default)]
    pub apps: BTreeMap<String, Bitrix24App>,
    /// Authorization servers that are believed.
    pub oauth_hosts: Vec<String>,
    /// Whether portals without TLS are allowed.
    pub insecure_http: bool,
    /// Calls per second a portal takes.
    pub requests_per_second: f64,
    /// Calls a portal lets us save up.
    pub burst: u32,
    /// When a robot's result is given once more.
    pub repeat_result: Span,
    /// How often calls of robots that never came are looked for; zero is never.
    pub lost_calls_every: Span,
    /// A call that has not come so long after the entry is lost.
    pub lost_calls_after: Span,
}

/// `[bitrix24.apps.<name>]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bitrix24App {
    /// Issued by Bitrix24.
    pub client_id: String,
    /// Issued by Bitrix24; `serve` refuses to start without it.
    pub client_secret: Option<SecretString>,
    client_secret_file: Option<PathBuf>,
}

impl Bitrix24Section {
    pub(super) fn resolve(&mut self) -> Result<(), ConfigError> {
        for (name, app) in &mut self.apps {
            name_of_app("bitrix24.apps", name)?;
            if app.client_id.trim().is_empty() {
                return Err(wrong(
                    &format!("bitrix24.apps.{name}.client_id"),
                    "empty: Bitrix24 shows it with the application",
                ));
            }
            let key = format!("bitrix24.apps.{name}.client_secret");
            secret(&key, &mut app.client_secret, app.client_secret_file.as_deref())?;
        }
        if self.oauth_hosts.is_empty() {
            return Err(wrong("bitrix24.oauth_hosts", "at least one address: without one nobody can prove a portal"));
        }
        for host in &self.oauth_hosts {
            web_address("bitrix24.oauth_hosts", host)?;
        }
        if !(0.1..=1000.0).contains(&self.requests_per_second) || self.burst == 0 {
            return Err(wrong("bitrix24.requests_per_second", "must be between 0.1 and 1000, burst at least 1"));
        }
        if self.lost_calls_after.0.0 < 1_000 {
            return Err(wrong("bitrix24.lost_calls_after", "at least a second: calls take that long to come"));
        }
        Ok(())
    }

    /// A refresh with an empty secret is refused, and the portal would be lost an hour after its installation.
    pub(super) fn fit_to_serve(&self) -> Result<(), ConfigError> {
        match self.apps.iter().find(|(_, app)| app.client_secret.is_none()) {
            None => Ok(()),
            Some((name, _)) => Err(wrong(
                &format!("bitrix24.apps.{name}.client_secret"),
                "missing: Bitrix24 shows it with the application; without it no token can be renewed",
            )),
        }
    }
}

/// `[amocrm]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AmocrmSection {
    /// Integrations by the name used in our routes.
    #[serde(default)]
    pub apps: BTreeMap<String, AmocrmApp>,
    /// Where accounts answer; `{subdomain}` stands for the account's.
    pub account_url: String,
    /// Domains under which accounts live.
    pub account_hosts: Vec<String>,
    /// Where the chats service answers; `{domain}` stands for that of the account.
    pub chats_url: String,
    /// Requests per second to one account, and to all together.
    pub requests_per_second: u32,
}

/// `[amocrm.apps.<name>]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AmocrmApp {
    /// UUID of the integration.
    pub client_id: String,
    /// Its secret; `serve` refuses to start without it.
    pub client_secret: Option<SecretString>,
    client_secret_file: Option<PathBuf>,
    /// The secret before it was changed; what is signed with it is still believed.
    pub previous_client_secret: Option<SecretString>,
    previous_client_secret_file: Option<PathBuf>,
    /// UUID of the channel of chats that the vendor has registered for it; without one it has no chats.
    pub chat_channel_id: Option<String>,
    /// That channel's secret.
    pub chat_channel_secret: Option<SecretString>,
    chat_channel_secret_file: Option<PathBuf>,
    /// The vendor's id of that channel's bot.
    pub chat_bot_id: Option<String>,
}

impl AmocrmSection {
    pub(super) fn resolve(&mut self) -> Result<(), ConfigError> {
        for (name, app) in &mut self.apps {
            name_of_app("amocrm.apps", name)?;
            let key = |field: &str| format!("amocrm.apps.{name}.{field}");
            if app.client_id.trim().is_empty() {
                return Err(wrong(&key("client_id"), "empty: amoCRM shows it with the integration"));
            }
            secret(&key("client_secret"), &mut app.client_secret, app.client_secret_file.as_deref())?;
            let file = app.previous_client_secret_file.as_deref();
            secret(&key("previous_client_secret"), &mut app.previous_client_secret, file)?;
            let file = app.chat_channel_secret_file.as_deref();
            secret(&key("chat_channel_secret"), &mut app.chat_channel_secret, file)?;
            let given = |value: &Option<String>| value.as_ref().is_some_and(|text| !text.trim().is_empty());
            if given(&app.chat_channel_id) && !(app.chat_channel_secret.is_some() && given(&app.chat_bot_id)) {
                let text = "missing beside chat_channel_id: support gives secret and bot together with the channel";
                return Err(wrong(&key("chat_channel_secret, chat_bot_id"), text));
            }
        }
        web_address("amocrm.chats_url", &self.chats_url.replace("{domain}", "amocrm.ru"))?;
        web_address("amocrm.account_url", &self.account_url.replace("{subdomain}", "acme"))?;
        if self.account_hosts.is_empty() {
            return Err(wrong("amocrm.account_hosts", "at least one domain: without one no account can be told"));
        }
        if !(1..=7).contains(&self.requests_per_second) {
            return Err(wrong(
                "amocrm.requests_per_second",
                "must be between 1 and 7, which is all that amoCRM allows",
            ));
        }
        Ok(())
    }

    /// Without the secret no step is proved and no token renewed.
    pub(super) fn fit_to_serve(&self) -> Result<(), ConfigError> {
        match self.apps.iter().find(|(_, app)| app.client_secret.is_none()) {
            None => Ok(()),
            Some((name, _)) => Err(wrong(
                &format!("amocrm.apps.{name}.client_secret"),
                "missing: amoCRM shows it with the integration; without it no step is proved and no token renewed",
            )),
        }
    }
}

/// `[comments]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommentsSection {
    /// Whether phones are masked.
    pub mask_phones: bool,
    /// Time zone of the times shown.
    pub time_zone: String,
}

impl CommentsSection {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        match jiff::tz::TimeZone::get(&self.time_zone) {
            Ok(_) => Ok(()),
            Err(_) => Err(wrong("comments.time_zone", format!("`{}` is no IANA time zone", self.time_zone))),
        }
    }
}

/// `[phones]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhonesSection {
    /// Country in which numbers without a country code are read.
    pub country: String,
}

impl PhonesSection {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let capital = self.country.bytes().all(|b| b.is_ascii_uppercase());
        if capital && crate::numbers::is_country(&self.country) {
            return Ok(());
        }
        Err(wrong("phones.country", format!("`{}` is no country; two capital letters, for example RU", self.country)))
    }
}

/// `[providers.<name>]`; what is absent is the provider's own default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSection {
    /// Base address of the vendor's API.
    pub base_url: Option<String>,
    /// Version segment of its addresses.
    pub api_version: Option<String>,
}

impl ProviderSection {
    pub(super) fn validate(&self, name: &str) -> Result<(), ConfigError> {
        match &self.base_url {
            Some(url) => web_address(&format!("providers.{name}.base_url"), url),
            None => Ok(()),
        }
    }
}

/// `[delivery]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliverySection {
    /// Waits between tries.
    pub retry_schedule: Vec<Span>,
    /// How long a message may wait to be sent.
    pub not_after: Span,
    /// Sends of one channel under way at once.
    pub workers: usize,
    /// How long a silent process keeps its queues.
    pub lease: Span,
    /// How long an unclear send waits for its echo; zero is the provider's rule.
    pub unclear_wait: Span,
    /// Silence after acceptance that is told on the card; zero is the provider's rule.
    pub silence_accepted: Span,
    /// Silence after `sent` that is told on the card; zero is the provider's rule.
    pub silence_sent: Span,
    /// When nothing is awaited any more; zero is the provider's rule.
    pub silence_closed: Span,
    /// How often it is looked up where vendors call us, where that is set by a call.
    pub check_webhooks: Span,
}

impl DeliverySection {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.retry_schedule.is_empty() {
            return Err(wrong("delivery.retry_schedule", "at least one wait"));
        }
        if !(1..=10_000).contains(&self.workers) {
            return Err(wrong("delivery.workers", "between 1 and 10000"));
        }
        if self.check_webhooks.0.0 < 200 {
            return Err(wrong("delivery.check_webhooks", "at least 200ms; 5m is often enough"));
        }
        if self.lease.0.0 < 1000 {
            return Err(wrong("delivery.lease", "at least one second"));
        }
        let closed = self.silence_closed.0.0;
        if closed > 0 && closed <= self.silence_accepted.0.0.max(self.silence_sent.0.0) {
            return Err(wrong("delivery.silence_closed", "longer than silence_accepted and silence_sent"));
        }
        Ok(())
    }
}

/// `[retention]`: how long what is kept, in days; 0 is for ever.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionSection {
    /// How often old rows are looked for.
    pub every: Span,
    /// Texts, phones and names in messages and commands.
    pub bodies_days: u32,
    /// Messages and commands as a whole.
    pub messages_days: u32,
    /// Tries, with the vendors' raw words.
    pub attempts_days: u32,
    /// People who have been silent.
    pub dialogs_days: u32,
    /// Jobs given up.
    pub dead_letters_days: u32,
    /// Idempotency keys of the messaging API.
    pub api_requests_days: u32,
}

impl RetentionSection {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.every.0.0 < 1000 {
            return Err(wrong("retention.every", "at least one second"));
        }
        let least = |key: &str, days: u32, least: u32, why: &str| {
            if days == 0 || days >= least {
                return Ok(());
            }
            Err(wrong(&format!("retention.{key}"), format!("0 (for ever) or at least {least} days: {why}")))
        };
        least("messages_days", self.messages_days, 8, "providers repeat a callback for seven days")?;
        least("dialogs_days", self.dialogs_days, 2, "an open service window must not be forgotten")?;
        least("bodies_days", self.bodies_days, 2, "a message may wait for a day, and its statuses come later")
    }

    /// For the work itself.
    #[must_use]
    pub fn keep(&self) -> Retention {
        let days = |days: u32| (days > 0).then(|| Millis::hours(24 * i64::from(days)));
        Retention {
            bodies: days(self.bodies_days),
            messages: days(self.messages_days),
            attempts: days(self.attempts_days),
            dialogs: days(self.dialogs_days),
            dead_letters: days(self.dead_letters_days),
            api_requests: days(self.api_requests_days),
        }
    }
}

/// `[log]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSection {
    /// Filter as in `RUST_LOG`.
    pub level: String,
    /// Whether spans are written.
    pub spans: bool,
    /// How lines are written.
    pub format: LogFormat,
}

impl LogSection {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        crate::telemetry::filter(&self.level).map(|_| ()).map_err(|what| wrong("log.level", what))
    }
}

/// How log lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// The settings in force as TOML, secrets as `"***"`.
pub(super) fn describe(config: &Config) -> String {
    use toml::{Table, Value};
    let text = |value: &str| Value::String(value.to_owned());
    let list = |values: Vec<String>| Value::Array(values.into_iter().map(Value::String).collect());
    let masked = |value: &Option<SecretString>| text(if value.is_some() { "***" } else { "" });
    let number = |value: usize| Value::Integer(i64::try_from(value).unwrap_or(i64::MAX));
    let table = |entries: Vec<(&str, Value)>| {
        Value::Table(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    };
    let networks = |nets: &[IpNet]| list(nets.iter().map(ToString::to_string).collect());
    let apps: Table = config
        .bitrix24
        .apps
        .iter()
        .map(|(name, app)| {
            let entry = vec![("client_id", text(&app.client_id)), ("client_secret", masked(&app.client_secret))];
            (name.clone(), table(entry))
        })
        .collect();
    let integrations: Table = config
        .amocrm
        .apps
        .iter()
        .map(|(name, app)| {
            let entry = vec![
                ("client_id", text(&app.client_id)),
                ("client_secret", masked(&app.client_secret)),
                ("previous_client_secret", masked(&app.previous_client_secret)),
                ("chat_channel_id", text(app.chat_channel_id.as_deref().unwrap_or_default())),
                ("chat_channel_secret", masked(&app.chat_channel_secret)),
                ("chat_bot_id", text(app.chat_bot_id.as_deref().unwrap_or_default())),
            ];
            (name.clone(), table(entry))
        })
        .collect();
    let providers: Table = config
        .providers
        .iter()
        .map(|(name, section)| {
            let or_default = |value: &Option<String>| text(value.as_deref().unwrap_or_default());
            let entry =
                vec![("base_url", or_default(&section.base_url)), ("api_version", or_default(&section.api_version))];
            (name.clone(), table(entry))
        })
        .collect();
    let all = table(vec![
        (
            "server",
            table(vec![
                ("bind", text(&config.server.bind.to_string())),
                ("public_url", text(&config.server.public_url)),
                ("body_limit_bytes", number(config.server.body_limit_bytes)),
                ("trusted_proxies", networks(&config.server.trusted_proxies)),
                ("threads", number(config.server.threads)),
            ]),
        ),
        (
            "database",
            table(vec![
                ("url", text(&masked_url(config.database.url.expose_secret()))),
                ("answer_within", text(&config.database.answer_within.to_string())),
            ]),
        ),
        (
            "security",
            table(vec![
                ("master_key", masked(&config.security.master_key)),
                ("previous_keys", list(config.security.previous_keys.iter().map(|_| "***".to_owned()).collect())),
                ("admin_token", masked(&config.security.admin_token)),
            ]),
        ),
        ("network", table(vec![("allow_private", networks(&config.network.allow_private))])),
        (
            "bitrix24",
            table(vec![
                ("oauth_hosts", list(config.bitrix24.oauth_hosts.clone())),
                ("insecure_http", Value::Boolean(config.bitrix24.insecure_http)),
                ("requests_per_second", Value::Float(config.bitrix24.requests_per_second)),
                ("burst", Value::Integer(i64::from(config.bitrix24.burst))),
                ("repeat_result", text(&config.bitrix24.repeat_result.to_string())),
                ("lost_calls_every", text(&config.bitrix24.lost_calls_every.to_string())),
                ("lost_calls_after", text(&config.bitrix24.lost_calls_after.to_string())),
                ("apps", Value::Table(apps)),
            ]),
        ),
        (
            "amocrm",
            table(vec![
                ("account_url", text(&config.amocrm.account_url)),
                ("account_hosts", list(config.amocrm.account_hosts.clone())),
                ("chats_url", text(&config.amocrm.chats_url)),
                ("requests_per_second", Value::Integer(i64::from(config.amocrm.requests_per_second))),
                ("apps", Value::Table(integrations)),
            ]),
        ),
        (
            "comments",
            table(vec![
                ("mask_phones", Value::Boolean(config.comments.mask_phones)),
                ("time_zone", text(&config.comments.time_zone)),
            ]),
        ),
        ("phones", table(vec![("country", text(&config.phones.country))])),
        ("providers", Value::Table(providers)),
        (
            "delivery",
            table(vec![
                ("retry_schedule", list(config.delivery.retry_schedule.iter().map(ToString::to_string).collect())),
                ("not_after", text(&config.delivery.not_after.to_string())),
                ("workers", number(config.delivery.workers)),
                ("lease", text(&config.delivery.lease.to_string())),
                ("unclear_wait", text(&config.delivery.unclear_wait.to_string())),
                ("silence_accepted", text(&config.delivery.silence_accepted.to_string())),
                ("silence_sent", text(&config.delivery.silence_sent.to_string())),
                ("silence_closed", text(&config.delivery.silence_closed.to_string())),
                ("check_webhooks", text(&config.delivery.check_webhooks.to_string())),
            ]),
        ),
        (
            "retention",
            table(vec![
                ("every", text(&config.retention.every.to_string())),
                ("bodies_days", Value::Integer(i64::from(config.retention.bodies_days))),
                ("messages_days", Value::Integer(i64::from(config.retention.messages_days))),
                ("attempts_days", Value::Integer(i64::from(config.retention.attempts_days))),
                ("dialogs_days", Value::Integer(i64::from(config.retention.dialogs_days))),
                ("dead_letters_days", Value::Integer(i64::from(config.retention.dead_letters_days))),
                ("api_requests_days", Value::Integer(i64::from(config.retention.api_requests_days))),
            ]),
        ),
        (
            "log",
            table(vec![
                ("level", text(&config.log.level)),
                ("spans", Value::Boolean(config.log.spans)),
                ("format", text(if config.log.format == LogFormat::Json { "json" } else { "text" })),
            ]),
        ),
    ]);
    toml::to_string(&all).unwrap_or_default()
}

/// An address of a database without its password.
fn masked_url(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut parsed) if parsed.password().is_some() => {
            // Cannot fail for an address that has a password.
            let _ = parsed.set_password(Some("***"));
            parsed.to_string()
        }
        Ok(_) | Err(_) => url.to_owned(),
    }
}
