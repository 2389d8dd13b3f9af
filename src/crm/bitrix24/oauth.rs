//! Bitrix24's authorization servers: new tokens, and what a token is good for.
//!
//! Only configured hosts are ever called: the address of the server comes with requests that are not proved yet, and
//! whoever could choose it would get our tokens and secrets. Sources: protocol reference, sections "OAuth 2" and
//! "application_token and trust rules", read 2026-11.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use oauth2::basic::{
    BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::{
    AccessToken, AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, RefreshToken, RequestTokenError, Scope,
    StandardRevocableToken, TokenResponse, TokenUrl, http,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use super::errors::{self, Cure, Fault, own, read_answer};
use super::wire::read_scopes;
use crate::crm::tokens::{Fresh, Place, Refresher, Stale};
use crate::domain::effect::{CrmError, PortalTrouble};
use crate::domain::outcome::FailureClass;
use crate::domain::portal::{CrmKind, Portal};
use crate::domain::time::Millis;
use crate::forms::{at, flag, integer, text_at};
use crate::outbound::{Call, Outbound};

/// Keys of one of our applications. `Debug` shows the id only.
#[derive(Clone)]
pub struct AppKeys {
    /// `local.…` or `app.…`.
    pub client_id: String,
    /// Goes to the authorization server and nowhere else.
    pub client_secret: SecretString,
}

impl fmt::Debug for AppKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppKeys {{ client_id {} }}", self.client_id)
    }
}

/// The authorization servers and our keys for them.
pub(super) struct OauthServer {
    outbound: Arc<Outbound>,
    apps: BTreeMap<String, AppKeys>,
    /// Never empty.
    hosts: Vec<Url>,
    insecure_http: bool,
}

/// What the server answers to a refresh, reduced to what we use. `expires` and `domain` are left out on purpose: the
/// first is by the server's clock, the second is the server's own host and not the portal's.
#[derive(Debug, Serialize, Deserialize)]
struct TokenAnswer {
    access_token: AccessToken,
    refresh_token: Option<RefreshToken>,
    #[serde(default)]
    expires_in: Value,
    #[serde(default)]
    client_endpoint: Option<String>,
    #[serde(default)]
    member_id: Option<String>,
}

impl TokenResponse for TokenAnswer {
    type TokenType = BasicTokenType;

    fn access_token(&self) -> &AccessToken {
        &self.access_token
    }

    /// The server names no type; it is always this one.
    fn token_type(&self) -> &BasicTokenType {
        &BasicTokenType::Bearer
    }

    fn expires_in(&self) -> Option<Duration> {
        integer(&self.expires_in).and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
    }

    fn refresh_token(&self) -> Option<&RefreshToken> {
        self.refresh_token.as_ref()
    }

    fn scopes(&self) -> Option<&Vec<Scope>> {
        None
    }
}

type TokenClient = oauth2::Client<
    BasicErrorResponse,
    TokenAnswer,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
>;

/// What a token is good for, by the authorization server's word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct TokenInfo {
    pub(super) client_id: String,
    pub(super) user_id: String,
    pub(super) member_id: String,
    pub(super) domain: String,
    /// Ends with `/`; `None` when the address is not fit to be called.
    pub(super) client_endpoint: Option<String>,
    /// Base of the REST of the server that knew the token, ends with `/`.
    pub(super) server_endpoint: String,
    pub(super) installed: bool,
    pub(super) scopes: Vec<String>,
}

/// A fault on its way through the OAuth crate.
#[derive(Debug, thiserror::Error)]
#[error("no token")]
struct Lost(Fault);

impl OauthServer {
    /// Checks the configured hosts.
    ///
    /// # Errors
    /// A text for the operator: no host, or one that is no address.
    pub(super) fn new(
        outbound: Arc<Outbound>,
        apps: BTreeMap<String, AppKeys>,
        hosts: &[String],
        insecure_http: bool,
    ) -> Result<Self, String> {
        let mut parsed = Vec::new();
        for host in hosts {
            let url = Url::parse(host).map_err(|e| format!("bitrix24.oauth_hosts: {host}: {e}"))?;
            if url.host_str().is_none() || !matches!(url.scheme(), "http" | "https") {
                return Err(format!("bitrix24.oauth_hosts: {host} is no http address"));
            }
            parsed.push(url);
        }
        if parsed.is_empty() {
            return Err("bitrix24.oauth_hosts is empty".to_owned());
        }
        Ok(Self { outbound, apps, hosts: parsed, insecure_http })
    }

    /// Keys of an application of ours.
    pub(super) fn keys(&self, app: &str) -> Option<&AppKeys> {
        self.apps.get(app)
    }

    /// Exchanges a refresh token for a new pair.
    ///
    /// The portal's own server is asked; the other configured ones only when it says that it does not know our
    /// application, which is how it speaks of a portal that belongs to another region.
    async fn renewed(&self, portal: &Portal, refresh: &str) -> Result<Fresh, Fault> {
        let Some(keys) = self.apps.get(&portal.app) else {
            let text = format!("no application {:?} in the configuration", portal.app);
            return Err(own(FailureClass::Misconfigured, PortalTrouble::None, "app_unknown", text).into());
        };
        let bases = self.bases(&portal.server_endpoint)?;
        let mut first: Option<Fault> = None;
        for base in bases {
            match self.exchange(&base, keys, refresh).await {
                Ok(answer) => return self.accept(portal, answer),
                Err(fault) if fault.is("invalid_client") || fault.is("wrong_client") => {
                    first.get_or_insert(fault);
                }
                // Another server's "no such token" says nothing; the first answer does.
                Err(fault) => return Err(first.unwrap_or(fault)),
            }
        }
        Err(first.unwrap_or(Fault::Unanswered))
    }

    async fn exchange(&self, base: &str, keys: &AppKeys, refresh: &str) -> Result<TokenAnswer, Fault> {
        let address = TokenUrl::new(format!("{base}/oauth/token/")).map_err(|e| Fault::Refused(e.to_string()))?;
        let client = TokenClient::new(ClientId::new(keys.client_id.clone()))
            .set_client_secret(ClientSecret::new(keys.client_secret.expose_secret().to_owned()))
            .set_auth_type(AuthType::RequestBody)
            .set_token_uri(address);
        let token = RefreshToken::new(refresh.to_owned());
        let send = |request: HttpRequest| send(Arc::clone(&self.outbound), request);
        let answer: Result<TokenAnswer, _> = client.exchange_refresh_token(&token).request_async(&send).await;
        answer.map_err(|error| match error {
            RequestTokenError::Request(Lost(fault)) => fault,
            // Errors of the server never come so far: `send` has sorted them out by our table.
            RequestTokenError::ServerResponse(_) | RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
                Fault::Senseless { status: 200 }
            }
        })
    }

    fn accept(&self, portal: &Portal, answer: TokenAnswer) -> Result<Fresh, Fault> {
        if let Some(member) = answer.member_id.as_ref().filter(|member| **member != portal.member_id) {
            let text = format!("the tokens belong to portal {member}");
            return Err(own(FailureClass::Misconfigured, PortalTrouble::NeedsAuth, "foreign_tokens", text).into());
        }
        let Some(refresh) = answer.refresh_token() else { return Err(Fault::Senseless { status: 200 }) };
        let lives = answer.expires_in().and_then(|lives| i64::try_from(lives.as_secs()).ok()).unwrap_or(3600);
        Ok(Fresh {
            access: answer.access_token.secret().clone(),
            refresh: refresh.secret().clone(),
            lives: Millis::seconds(lives.clamp(60, 86_400)),
            place: answer
                .client_endpoint
                .as_deref()
                .and_then(|endpoint| self.endpoint(endpoint))
                .as_deref()
                .and_then(place_of),
        })
    }

    /// Asks what a token is good for: `app.info` of the authorization server.
    ///
    /// Without an address (older portals) the configured servers are asked in turn. A token of a foreign application
    /// is found out by the answer's `client_id`, which the caller compares.
    pub(super) async fn token_info(&self, server_endpoint: Option<&str>, token: &str) -> Result<TokenInfo, Fault> {
        let bases = match server_endpoint {
            Some(endpoint) => self.bases(endpoint)?.into_iter().take(1).collect(),
            None => self.bases("")?,
        };
        let form = form_urlencoded::Serializer::new(String::new()).append_pair("auth", token).finish();
        let mut last = Fault::Unanswered;
        for base in bases {
            let asked = self.outbound.call(Call::post_form(format!("{base}/rest/app.info"), form.clone())).await;
            match asked.map_err(Fault::from).and_then(|answer| read_answer(&answer, errors::Place::Oauth)) {
                Ok(document) => return self.read_info(&document, &base).ok_or(Fault::Senseless { status: 200 }),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    fn read_info(&self, document: &Value, base: &str) -> Option<TokenInfo> {
        let result = at(document, &["result"])?;
        let install = at(result, &["install"])?;
        let scopes = at(install, &["scope"]).or_else(|| at(result, &["scope"]));
        Some(TokenInfo {
            client_id: text_at(result, &["client_id"]),
            user_id: text_at(result, &["user_id"]),
            member_id: text_at(install, &["member_id"]),
            domain: text_at(install, &["domain"]).to_ascii_lowercase(),
            client_endpoint: self.endpoint(&text_at(install, &["client_endpoint"])),
            server_endpoint: format!("{base}/rest/"),
            installed: at(install, &["installed"]).and_then(flag).unwrap_or(false),
            scopes: scopes.map(read_scopes).unwrap_or_default(),
        })
    }

    /// Addresses of the servers to ask, the portal's own first, without `/rest/`.
    ///
    /// # Errors
    /// The portal's server is not among the configured ones.
    fn bases(&self, server_endpoint: &str) -> Result<Vec<String>, CrmError> {
        let plain = |url: &Url| url.as_str().trim_end_matches('/').to_owned();
        let others = |skip: Option<&Url>| -> Vec<String> {
            self.hosts.iter().filter(|host| skip.is_none_or(|skip| !same_origin(skip, host))).map(plain).collect()
        };
        if server_endpoint.is_empty() {
            return Ok(others(None));
        }
        let known = Url::parse(server_endpoint).ok().filter(|url| self.hosts.iter().any(|host| same_origin(host, url)));
        let Some(url) = known else {
            let text = "the portal's authorization server is not in bitrix24.oauth_hosts";
            return Err(own(FailureClass::Misconfigured, PortalTrouble::None, "oauth_host_refused", text));
        };
        let own_base = plain(&url);
        let mut bases = vec![own_base.strip_suffix("/rest").unwrap_or(&own_base).to_owned()];
        bases.extend(others(Some(&url)));
        Ok(bases)
    }

    /// True when the address names one of the configured servers.
    pub(super) fn is_ours(&self, server_endpoint: &str) -> bool {
        self.bases(server_endpoint).is_ok()
    }

    /// A REST base fit to be called: http(s) (plain http only where allowed), a host, no user name; ends with `/`.
    pub(super) fn endpoint(&self, text: &str) -> Option<String> {
        let url = Url::parse(text.trim()).ok()?;
        let scheme = url.scheme() == "https" || (self.insecure_http && url.scheme() == "http");
        let plain = url.username().is_empty() && url.password().is_none();
        let bare = url.query().is_none() && url.fragment().is_none();
        if !(scheme && plain && bare && url.host_str().is_some()) {
            return None;
        }
        let mut text = url.to_string();
        if !text.ends_with('/') {
            text.push('/');
        }
        Some(text)
    }
}

#[async_trait]
impl Refresher for OauthServer {
    fn crm(&self) -> &'static str {
        CrmKind::Bitrix24.code()
    }

    fn renew_before(&self) -> Millis {
        Millis::seconds(60)
    }

    async fn refresh(&self, portal: &Portal, refresh: &str) -> Result<Fresh, Stale> {
        self.renewed(portal, refresh).await.map_err(|fault| match fault.cure() {
            Cure::OtherToken => Stale::Dead,
            Cure::Refresh | Cure::None => Stale::Failed(fault.error(true, None)),
        })
    }
}

/// Where an endpoint stands: its host, with the port if it is not the usual one.
pub(super) fn place_of(endpoint: &str) -> Option<Place> {
    let url = Url::parse(endpoint).ok()?;
    let host = url.host_str()?.to_owned();
    let domain = url.port().map_or(host.clone(), |port| format!("{host}:{port}"));
    Some(Place { domain, endpoint: endpoint.to_owned() })
}

/// The OAuth crate's way out is ours. Errors are decided here, by the body and whatever the status.
async fn send(outbound: Arc<Outbound>, request: HttpRequest) -> Result<HttpResponse, Lost> {
    let (head, body) = request.into_parts();
    let form = String::from_utf8(body).map_err(|e| Lost(Fault::Refused(e.to_string())))?;
    let call = Call::post_form(head.uri.to_string(), form);
    let answer = outbound.call(call).await.map_err(|e| Lost(e.into()))?;
    read_answer(&answer, errors::Place::Oauth).map_err(Lost)?;
    let mut response = HttpResponse::new(answer.body);
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    Ok(response)
}

/// Scheme, host and port agree.
pub(super) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str().map(str::to_ascii_lowercase) == b.host_str().map(str::to_ascii_lowercase)
        && a.port_or_known_default() == b.port_or_known_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(hosts: &[&str], insecure_http: bool) -> OauthServer {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let outbound = Arc::new(Outbound::new(vec![]).unwrap());
        OauthServer::new(outbound, BTreeMap::new(), &hosts, insecure_http).unwrap()
    }

    #[test]
    fn only_configured_servers_are_asked() {
        let server = server(&["https://oauth.bitrix.info", "https://oauth.bitrix24.tech/"], false);
        assert_eq!(
            server.bases("https://oauth.bitrix24.tech/rest/").unwrap(),
            ["https://oauth.bitrix24.tech", "https://oauth.bitrix.info"]
        );
        assert_eq!(server.bases("").unwrap().len(), 2);
        for other in [
            "https://oauth.bitrix.info.evil.example/rest/",
            "http://oauth.bitrix.info/rest/",
            "https://oauth.bitrix.info:8443/rest/",
            "https://oauth.bitrix.info@evil.example/rest/",
            "//oauth.bitrix.info/rest/",
            "nonsense",
        ] {
            assert_eq!(server.bases(other).unwrap_err().code, "oauth_host_refused", "{other}");
            assert!(!server.is_ours(other));
        }
        assert!(server.is_ours("https://OAUTH.bitrix.info:443/rest/"));
    }

    #[test]
    fn hosts_are_checked_at_the_start() {
        let outbound = Arc::new(Outbound::new(vec![]).unwrap());
        for hosts in [vec![], vec!["oauth.bitrix.info".to_owned()], vec!["ftp://x.example".to_owned()]] {
            assert!(OauthServer::new(Arc::clone(&outbound), BTreeMap::new(), &hosts, false).is_err(), "{hosts:?}");
        }
    }

    #[test]
    fn endpoints_must_be_plain_addresses() {
        let strict = server(&["https://o.example"], false);
        assert_eq!(strict.endpoint("https://acme.example/rest").as_deref(), Some("https://acme.example/rest/"));
        for bad in ["http://acme.example/rest/", "https://u:p@acme.example/rest/", "https://acme.example/?a=1", "", "x"]
        {
            assert_eq!(strict.endpoint(bad), None, "{bad}");
        }
        let lax = server(&["https://o.example"], true);
        assert_eq!(lax.endpoint("http://127.0.0.1:8080/rest/").as_deref(), Some("http://127.0.0.1:8080/rest/"));
    }

    #[test]
    fn keys_do_not_print_their_secret() {
        let keys = AppKeys { client_id: "local.1".to_owned(), client_secret: SecretString::from("falsesecret") };
        assert!(!format!("{keys:?}").contains("falsesecret"));
    }
}
