//! Which hosts are accounts, and where they are called.
//!
//! Hosts come from redirects, tokens and return addresses, all of which outsiders can choose. So only hosts one label
//! below a configured domain are accounts, and what is called is built from the label and the configuration (protocol
//! reference, section "Redirect with the code", read 2026-11).

use url::Url;

use crate::crm::tokens::Place;

/// Stands for an account's subdomain in `amocrm.account_url`.
const SUBDOMAIN: &str = "{subdomain}";
/// The label of the vendor's own pages.
const WWW: &str = "www";

/// The configured addresses.
#[derive(Debug)]
pub(super) struct Hosts {
    /// Without a slash at the end.
    pattern: String,
    /// Lower case, without a dot in front.
    domains: Vec<String>,
    /// The scheme, when the pattern is the vendor's own form `https://{subdomain}.<domain>`.
    vendor: Option<String>,
}

impl Hosts {
    /// # Errors
    /// A text for the operator: no address, or no domain.
    pub(super) fn new(pattern: &str, domains: &[String]) -> Result<Self, String> {
        let pattern = pattern.trim_end_matches('/').to_owned();
        let parsed = Url::parse(&pattern.replace(SUBDOMAIN, "x")).map_err(|e| format!("amocrm.account_url: {e}"))?;
        if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
            return Err(format!("amocrm.account_url: {pattern} is no http address"));
        }
        let domains: Vec<String> = domains.iter().map(|domain| domain.trim().to_ascii_lowercase()).collect();
        if domains.iter().all(String::is_empty) {
            return Err("amocrm.account_hosts: at least one domain".to_owned());
        }
        let of_vendor = |domain: &String| pattern == format!("{}://{SUBDOMAIN}.{domain}", parsed.scheme());
        let vendor = domains.iter().any(of_vendor).then(|| parsed.scheme().to_owned());
        Ok(Self { pattern, domains, vendor })
    }

    /// Label and domain of a host that may be an account.
    fn split<'a>(&'a self, host: &'a str) -> Option<(&'a str, &'a str)> {
        let (label, domain) = host.split_once('.')?;
        let is_label = !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        (is_label && self.domains.iter().any(|known| known == domain)).then_some((label, domain))
    }

    /// Where the account of this host is called; `None` when the host is no account.
    pub(super) fn place(&self, host: &str) -> Option<Place> {
        let host = host.trim().to_ascii_lowercase();
        let (label, domain) = self.split(&host)?;
        let base = self.base(label, domain);
        Some(Place { endpoint: format!("{base}/"), domain: host.clone() })
    }

    fn base(&self, label: &str, domain: &str) -> String {
        match &self.vendor {
            Some(scheme) => format!("{scheme}://{label}.{domain}"),
            None => self.pattern.replace(SUBDOMAIN, label),
        }
    }

    /// True when accounts are called at an address that stands for the vendor's (tests, the simulator), and this is its
    /// origin: pages of accounts come from there, too.
    pub(super) fn is_stand_in(&self, origin: &str) -> bool {
        let own = || Url::parse(&self.base("x", "")).is_ok_and(|url| url.origin().ascii_serialization() == origin);
        self.vendor.is_none() && own()
    }

    /// The vendor's consent page for a person who has not chosen an account yet.
    pub(super) fn consent(&self) -> String {
        let domain = self.domains.first().map_or("", String::as_str);
        format!("{}/oauth", self.base(WWW, domain))
    }

    /// True when both hosts are accounts of one domain: an account keeps it when it is renamed.
    pub(super) fn are_siblings(&self, one: &str, other: &str) -> bool {
        let domain = |host: &str| self.split(&host.to_ascii_lowercase()).map(|(_, domain)| domain.to_owned());
        matches!((domain(one), domain(other)), (Some(one), Some(other)) if one == other)
    }

    /// True when accounts of this host read Russian: amoCRM; Kommo's do not.
    pub(super) fn reads_russian(host: &str) -> bool {
        host.ends_with(".ru")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(pattern: &str) -> Hosts {
        Hosts::new(pattern, &["amocrm.ru".to_owned(), "kommo.com".to_owned()]).unwrap()
    }

    fn endpoint(hosts: &Hosts, host: &str) -> Option<String> {
        hosts.place(host).map(|place| place.endpoint)
    }

    #[test]
    fn accounts_are_called_under_their_own_domain() {
        let hosts = hosts("https://{subdomain}.amocrm.ru");
        assert_eq!(endpoint(&hosts, "Acme.amocrm.ru").as_deref(), Some("https://acme.amocrm.ru/"));
        assert_eq!(endpoint(&hosts, "acme.kommo.com").as_deref(), Some("https://acme.kommo.com/"));
        assert_eq!(hosts.consent(), "https://www.amocrm.ru/oauth");
        assert!(hosts.are_siblings("acme.amocrm.ru", "acme-new.amocrm.ru"));
        assert!(!hosts.are_siblings("acme.amocrm.ru", "acme.kommo.com"));
    }

    #[test]
    fn a_fixed_address_stands_for_every_account() {
        assert_eq!(endpoint(&hosts("http://127.0.0.1:8/"), "acme.amocrm.ru").as_deref(), Some("http://127.0.0.1:8/"));
        let by_path = hosts("http://127.0.0.1:8/{subdomain}");
        assert_eq!(endpoint(&by_path, "acme.kommo.com").as_deref(), Some("http://127.0.0.1:8/acme/"));
        assert_eq!(by_path.consent(), "http://127.0.0.1:8/www/oauth");
    }

    #[test]
    fn pages_come_from_elsewhere_only_where_the_address_stands_for_the_vendors() {
        assert!(hosts("http://127.0.0.1:8/{subdomain}").is_stand_in("http://127.0.0.1:8"));
        assert!(!hosts("http://127.0.0.1:8/{subdomain}").is_stand_in("http://127.0.0.1:9"));
        assert!(!hosts("https://{subdomain}.amocrm.ru").is_stand_in("https://x.amocrm.ru"));
    }

    #[test]
    fn hosts_that_outsiders_chose_are_no_accounts() {
        let hosts = hosts("https://{subdomain}.amocrm.ru");
        for host in [
            "amocrm.ru",
            ".amocrm.ru",
            "evil.example",
            "acme.amocrm.ru.evil.example",
            "evilamocrm.ru",
            "a.b.amocrm.ru",
            "acme.amocrm.ru:8443",
            "acme.amocrm.ru/x",
            "user@acme.amocrm.ru",
            "a/b.amocrm.ru",
            "..amocrm.ru",
            "",
        ] {
            assert_eq!(endpoint(&hosts, host), None, "{host}");
        }
    }

    #[test]
    fn nonsense_is_refused_at_the_start() {
        for (pattern, domains) in [("ftp://x", vec!["a.b"]), ("nonsense", vec!["a.b"]), ("https://x.example", vec![])] {
            let domains: Vec<String> = domains.into_iter().map(str::to_owned).collect();
            assert!(Hosts::new(pattern, &domains).is_err(), "{pattern}");
        }
    }
}
