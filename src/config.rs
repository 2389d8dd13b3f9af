//! Settings: `defaults.toml` (the manual), then a file, then the environment. Unknown keys are errors; a secret is a
//! value or a file, never both. This room and `app` are the only ones that read the environment.

mod duration;
mod environment;
mod sections;

use std::path::Path;

use config::{File, FileFormat};

pub use duration::Span;
pub use sections::{
    AmocrmApp, AmocrmSection, Bitrix24App, Bitrix24Section, CommentsSection, DatabaseSection, DeliverySection,
    LogFormat, LogSection, NetworkSection, PhonesSection, ProviderSection, RetentionSection, SecuritySection,
    ServerSection,
};

use serde::Deserialize;

/// The settings in force.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where we listen and how we are reached.
    pub server: ServerSection,
    /// Where data lives.
    pub database: DatabaseSection,
    /// Keys.
    pub security: SecuritySection,
    /// What outgoing calls may reach.
    pub network: NetworkSection,
    /// Bitrix24.
    pub bitrix24: Bitrix24Section,
    /// amoCRM.
    pub amocrm: AmocrmSection,
    /// Card comments.
    pub comments: CommentsSection,
    /// Phone numbers.
    pub phones: PhonesSection,
    /// Providers by registry id.
    pub providers: std::collections::BTreeMap<String, ProviderSection>,
    /// Retries and deadlines.
    pub delivery: DeliverySection,
    /// How long what is kept.
    pub retention: RetentionSection,
    /// Log.
    pub log: LogSection,
}

/// What is wrong with the settings, in words that say what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// The manual.
pub const DEFAULTS: &str = include_str!("config/defaults.toml");

impl Config {
    /// Reads all layers and checks the rules between settings.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key and what to do.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::from_layers(file, environment::read()?)
    }

    fn from_layers(file: Option<&Path>, variables: Vec<(String, String)>) -> Result<Self, ConfigError> {
        let mut layers = config::Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        if let Some(path) = file {
            if !path.is_file() {
                return Err(ConfigError(format!("configuration file {} does not exist", path.display())));
            }
            layers = layers.add_source(File::from(path).format(FileFormat::Toml));
        }
        for (key, value) in environment::settings(variables) {
            layers = layers.set_override(key, value).map_err(|e| ConfigError(e.to_string()))?;
        }
        let layers = layers.build().map_err(|e| ConfigError(e.to_string()))?;
        let mut config: Self = layers.try_deserialize().map_err(|e| ConfigError(e.to_string()))?;
        config.resolve()?;
        Ok(config)
    }

    /// Reads secrets from their files and checks each section.
    fn resolve(&mut self) -> Result<(), ConfigError> {
        self.server.validate()?;
        self.database.resolve()?;
        self.security.resolve()?;
        self.bitrix24.resolve()?;
        self.amocrm.resolve()?;
        self.comments.validate()?;
        self.phones.validate()?;
        self.delivery.validate()?;
        self.retention.validate()?;
        self.log.validate()?;
        for (name, section) in &self.providers {
            if crate::providers::find(name).is_none() {
                return Err(ConfigError(format!("providers.{name}: there is no such provider")));
            }
            section.validate(name)?;
        }
        Ok(())
    }

    /// What may be missing for other commands, but not for serving. `check-config` and `doctor` ask the same question,
    /// so that nobody learns it from a service that does not start.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key and what to do.
    pub fn fit_to_serve(&self) -> Result<(), ConfigError> {
        self.security.fit_to_serve()?;
        self.bitrix24.fit_to_serve()?;
        self.amocrm.fit_to_serve()
    }

    /// The settings in force as TOML, secrets masked; for people.
    #[must_use]
    pub fn describe(&self) -> String {
        sections::describe(self)
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn load(file: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mostik.toml");
        std::fs::write(&path, file.replace("FOLDER", folder.path().to_str().unwrap())).unwrap();
        std::fs::write(folder.path().join("key"), "  AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").unwrap();
        let variables = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Config::from_layers(Some(&path), variables)
    }

    #[test]
    fn the_manual_is_a_valid_configuration() {
        let config = load("", &[]).unwrap();
        assert_eq!(config.server.bind.to_string(), "127.0.0.1:8080");
        assert!(config.security.master_key.is_none());
        assert_eq!(config.delivery.retry_schedule.len(), 6);
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_manual() {
        let file = "[server]\npublic_url = 'https://file.example'\nbind = '127.0.0.1:1'";
        let config = load(file, &[("MOSTIK__SERVER__PUBLIC_URL", "https://env.example")]).unwrap();
        assert_eq!((config.server.public_url.as_str(), config.server.bind.port()), ("https://env.example", 1));
        let lists = [("MOSTIK__NETWORK__ALLOW_PRIVATE", "127.0.0.0/8,10.0.0.0/8"), ("MOSTIK__BITRIX24__BURST", "250")];
        let config = load("", &lists).unwrap();
        assert_eq!((config.network.allow_private.len(), config.bitrix24.burst), (2, 250));
    }

    #[test]
    fn texts_of_the_environment_stay_as_they_were_written() {
        for text in ["00123", "1e5", "true", "0x10", "12345678901234567890123", " a,b "] {
            let variables = [
                ("MOSTIK__SECURITY__ADMIN_TOKEN", text),
                ("MOSTIK__BITRIX24__APPS__MAIN__CLIENT_ID", "0042"),
                ("mostik__bitrix24__apps__main__client_secret", text),
            ];
            let config = load("", &variables).unwrap();
            assert_eq!(config.security.admin_token.as_ref().unwrap().expose_secret(), text);
            let app = &config.bitrix24.apps["main"];
            assert_eq!((app.client_id.as_str(), app.client_secret.as_ref().unwrap().expose_secret()), ("0042", text));
        }
        let other_kinds = [
            ("MOSTIK__BITRIX24__INSECURE_HTTP", "true"),
            ("MOSTIK__BITRIX24__REQUESTS_PER_SECOND", "0.5"),
            ("MOSTIK__SERVER__THREADS", "3"),
            ("MOSTIK__NETWORK__ALLOW_PRIVATE", ""),
            ("MOSTIK__DELIVERY__RETRY_SCHEDULE", "1s, 2s"),
        ];
        let config = load("", &other_kinds).unwrap();
        assert!(config.bitrix24.insecure_http && (config.bitrix24.requests_per_second - 0.5).abs() < 1e-9);
        assert_eq!((config.server.threads, config.network.allow_private.len()), (3, 0));
        assert_eq!(config.delivery.retry_schedule.len(), 2);
    }

    #[test]
    fn unknown_keys_are_errors_wherever_they_stand() {
        for file in ["[server]\nbnd = 'x'", "[sevrer]\nbind = 'x'", "[bitrix24.apps.main]\nclient = 'x'"] {
            assert!(load(file, &[]).is_err(), "{file}");
        }
        assert!(load("", &[("MOSTIK__SERVER__BND", "x")]).is_err());
    }

    #[test]
    fn secrets_come_as_a_value_or_as_a_file_but_not_both() {
        let config = load("[security]\nmaster_key_file = 'FOLDER/key'", &[]).unwrap();
        let key = config.security.master_key.unwrap();
        assert_eq!(key.expose_secret(), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        let both = "[security]\nmaster_key = 'x'\nmaster_key_file = 'FOLDER/key'";
        assert!(load(both, &[]).unwrap_err().to_string().contains("master_key"));
        assert!(load("[security]\nmaster_key_file = 'FOLDER/none'", &[]).is_err());
    }

    #[test]
    fn applications_are_tables_by_name() {
        let file = "[bitrix24.apps.main]\nclient_id = 'local.1'\nclient_secret = 's3cret-value'";
        let config = load(file, &[]).unwrap();
        assert_eq!(config.bitrix24.apps["main"].client_id, "local.1");
        assert!(!config.describe().contains("s3cret-value"), "secrets are masked");
        assert!(!format!("{config:?}").contains("s3cret-value"));
        let nameless = "[bitrix24.apps.'ma/in']\nclient_id = 'local.1'\nclient_secret = 's'";
        assert!(load(nameless, &[]).is_err(), "the name is part of the routes");
    }

    #[test]
    fn nonsense_is_refused_with_words() {
        for (file, word) in [
            ("[server]\npublic_url = 'connector.example'", "public_url"),
            ("[server]\npublic_url = 'https://connector.example/'", "public_url"),
            ("[delivery]\nretry_schedule = []", "retry_schedule"),
            ("[delivery]\nnot_after = '5 parsecs'", "5 parsecs"),
            ("[delivery]\nsilence_sent = '1h'\nsilence_closed = '30m'", "delivery.silence_closed"),
            ("[phones]\ncountry = 'Russia'", "country"),
            ("[comments]\ntime_zone = 'Moon/Sea'", "time_zone"),
            ("[providers.smoke_signal]\nbase_url = 'https://x.example'", "smoke_signal"),
            ("[bitrix24]\noauth_hosts = ['oauth.bitrix.info']", "oauth_hosts"),
            ("[network]\nallow_private = ['everything']", "allow_private"),
            ("[amocrm]\naccount_url = 'acme.amocrm.ru'", "amocrm.account_url"),
            ("[amocrm]\naccount_hosts = []", "amocrm.account_hosts"),
            ("[amocrm]\nrequests_per_second = 50", "amocrm.requests_per_second"),
            ("[amocrm.apps.main]\nclient_id = ''\nclient_secret = 's'", "amocrm.apps.main.client_id"),
            ("[security]\nmaster_key = 'c2hvcnQ='", "security.master_key"),
            ("[security]\nmaster_key = 'not base64'", "security.master_key"),
            ("[security]\nprevious_keys = ['c2hvcnQ=']", "security.previous_keys"),
            ("[database]\nurl = 'mysql://x'", "database.url"),
            ("[database]\nurl = 'sqlite://'", "database.url"),
            ("[database]\nurl = 'postgres://host:port/name'", "database.url"),
            ("[bitrix24]\noauth_hosts = []", "bitrix24.oauth_hosts"),
            ("[bitrix24.apps.main]\nclient_id = ' '\nclient_secret = 's'", "bitrix24.apps.main.client_id"),
            ("[phones]\ncountry = 'XX'", "phones.country"),
            ("[log]\nlevel = 'loud'", "log.level"),
            ("[log]\nlevel = 'info,mostik=loud'", "log.level"),
            ("[log]\nlevel = ''", "log.level"),
        ] {
            let error = load(file, &[]).unwrap_err().to_string();
            assert!(error.contains(word), "{file}: {error}");
        }
    }

    #[test]
    fn serving_needs_a_key_and_the_secret_of_every_application() {
        const KEY: &str = "[security]\nmaster_key = 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='\n";
        assert!(load(KEY, &[]).unwrap().fit_to_serve().is_ok());
        for (file, word) in [
            (String::new(), "security.master_key"),
            ("[security]\nmaster_key = ''".to_owned(), "security.master_key"),
            (format!("{KEY}[bitrix24.apps.a]\nclient_id = 'x'"), "bitrix24.apps.a.client_secret"),
            (format!("{KEY}[bitrix24.apps.a]\nclient_id = 'x'\nclient_secret = ''"), "bitrix24.apps.a.client_secret"),
            (format!("{KEY}[amocrm.apps.a]\nclient_id = 'x'"), "amocrm.apps.a.client_secret"),
        ] {
            let error = load(&file, &[]).unwrap().fit_to_serve().unwrap_err().to_string();
            assert!(error.contains(word), "{file}: {error}");
        }
    }

    #[test]
    fn filters_of_the_log_are_levels_with_or_without_a_place() {
        for good in ["info", "OFF", "warn,mostik=debug", "mostik::pipeline=trace", "info,mostik[job]=debug"] {
            assert!(load(&format!("[log]\nlevel = '{good}'"), &[]).is_ok(), "{good}");
        }
    }
}
