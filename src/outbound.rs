//! The one way out: every call to a vendor or a CRM goes through [`Outbound::call`].
//!
//! It bounds every call in time and size, follows no redirect, uses no proxy from the environment, and refuses
//! addresses inside the operator's own network: a portal's domain or a file's link is chosen by outsiders, and must
//! not become a way into the machines beside us. What `[network] allow_private` lists is reachable all the same.
//!
//! Errors say whether the request can have reached the other side, because that decides if it may be repeated. Work that
//! was given a pass ([`crate::lease`]) reaches nobody once that has ended.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use futures_util::{Stream, StreamExt};
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::lease::{self, Pass};

/// Longest time to establish a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer that is read, in bytes.
const ANSWER_MAX: usize = 4 * 1024 * 1024;

/// The outgoing HTTP client.
pub struct Outbound {
    client: reqwest::Client,
    guard: Arc<AddressGuard>,
}

/// Method of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// GET.
    Get,
    /// POST.
    Post,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
}

/// Body of a call.
#[derive(Clone, Debug)]
pub enum Body {
    /// None.
    Empty,
    /// `application/json`; the bytes are the document.
    Json(Vec<u8>),
    /// `application/x-www-form-urlencoded`, already encoded.
    Form(String),
}

/// One call.
pub struct Call {
    /// Method.
    pub method: Method,
    /// Whole address with query. Never logged as a whole: it may carry a token.
    pub url: String,
    /// `Authorization: Bearer`, if any.
    pub bearer: Option<String>,
    /// More headers. Their values are never logged: they may be secret.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: Body,
    /// Longest time from the first byte sent to the last byte read.
    pub timeout: Duration,
}

impl Call {
    /// A GET without body, 15 s.
    #[must_use]
    pub fn get(url: impl Into<String>) -> Self {
        Self {
            method: Method::Get,
            url: url.into(),
            bearer: None,
            headers: Vec::new(),
            body: Body::Empty,
            timeout: Duration::from_secs(15),
        }
    }

    /// A POST of a JSON document, 30 s.
    #[must_use]
    pub fn post_json(url: impl Into<String>, document: Vec<u8>) -> Self {
        Self {
            method: Method::Post,
            url: url.into(),
            bearer: None,
            headers: Vec::new(),
            body: Body::Json(document),
            timeout: Duration::from_secs(30),
        }
    }

    /// A POST of a form, 15 s.
    #[must_use]
    pub fn post_form(url: impl Into<String>, form: String) -> Self {
        Self {
            method: Method::Post,
            url: url.into(),
            bearer: None,
            headers: Vec::new(),
            body: Body::Form(form),
            timeout: Duration::from_secs(15),
        }
    }

    /// With a bearer token.
    #[must_use]
    pub fn bearer(mut self, token: &str) -> Self {
        self.bearer = Some(token.to_owned());
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// With another time limit.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, at most 4 MiB.
    pub body: Vec<u8>,
}

impl Answer {
    /// One header as text; `None` if absent or not text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        text_of(&self.headers, name)
    }

    /// The body as text, damaged bytes replaced, cut to `max` characters.
    #[must_use]
    pub fn text(&self, max: usize) -> String {
        String::from_utf8_lossy(&self.body).chars().take(max).collect()
    }

    /// `Retry-After` in whole seconds; dates are not read (no vendor of ours sends them).
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.header("retry-after")?.trim().parse().ok().map(Duration::from_secs)
    }
}

/// An answer whose body is still coming.
pub struct Download {
    /// HTTP status.
    pub status: u16,
    headers: HeaderMap,
    /// The body, in the order it comes.
    pub chunks: Pin<Box<dyn Stream<Item = Result<Bytes, CallError>> + Send>>,
}

impl Download {
    /// One header as text; `None` if absent or not text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        text_of(&self.headers, name)
    }

    /// Length of the body in bytes, where it is told.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }
}

fn text_of<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The address is not allowed or no address at all. Repeating does not help.
    #[error("address refused: {0}")]
    Refused(String),
    /// No connection: the request surely did not arrive.
    #[error("not connected: {0}")]
    NotConnected(String),
    /// The request may have arrived; the answer did not.
    #[error("no answer: {0}")]
    NoAnswer(String),
}

impl Outbound {
    /// Builds the client. `allow_private` are networks that may be reached although they are not public.
    ///
    /// # Errors
    /// When the TLS set-up fails; the text says why.
    pub fn new(allow_private: Vec<IpNet>) -> Result<Self, String> {
        let guard = Arc::new(AddressGuard { allowed: allow_private });
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        let client = reqwest::Client::builder()
            .use_preconfigured_tls(tls_config()?)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .dns_resolver(Arc::clone(&guard))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(Duration::from_secs(50))
            .pool_max_idle_per_host(64)
            .tcp_nodelay(true)
            .user_agent(concat!("Mostik/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| format!("HTTP client: {e}"))?;
        Ok(Self { client, guard })
    }

    /// Makes one call and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// [`CallError`]; nothing in it contains the address's query or a token.
    pub async fn call(&self, call: Call) -> Result<Answer, CallError> {
        let response = self.request(call).await?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let mut body = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|e| cut(&e))?;
            if body.len() + chunk.len() > ANSWER_MAX {
                return Err(CallError::NoAnswer(format!("answer longer than {ANSWER_MAX} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body })
    }

    /// Makes one call and gives its body as it comes, of any length: whoever reads it must know when it is enough. The
    /// call's time limit holds for the whole.
    ///
    /// # Errors
    /// As [`Outbound::call`]; a body that breaks off ends with one.
    pub async fn open(&self, call: Call) -> Result<Download, CallError> {
        let response = self.request(call).await?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let chunks = response.bytes_stream().map(|chunk| chunk.map_err(|e| cut(&e)));
        Ok(Download { status, headers, chunks: Box::pin(chunks) })
    }

    async fn request(&self, call: Call) -> Result<reqwest::Response, CallError> {
        let url = reqwest::Url::parse(&call.url).map_err(|e| CallError::Refused(format!("no address: {e}")))?;
        self.guard.check_literal(&url)?;
        let method = match call.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Patch => reqwest::Method::PATCH,
            Method::Delete => reqwest::Method::DELETE,
        };
        let mut request = self.client.request(method, url).timeout(call.timeout);
        if let Some(token) = &call.bearer {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|e| CallError::Refused(format!("token cannot be a header: {e}")))?;
            value.set_sensitive(true);
            request = request.header(HeaderName::from_static("authorization"), value);
        }
        for (name, value) in &call.headers {
            let mut value = HeaderValue::from_str(value)
                .map_err(|e| CallError::Refused(format!("{name} cannot be a header: {e}")))?;
            value.set_sensitive(true);
            request = request.header(*name, value);
        }
        let gate = Gate { pass: lease::current(), withheld: Arc::default() };
        request = match call.body {
            Body::Empty => request,
            Body::Json(document) => request.header("content-type", "application/json").body(gate.guard(document)),
            Body::Form(form) => {
                request.header("content-type", "application/x-www-form-urlencoded").body(gate.guard(form.into_bytes()))
            }
        };
        let sent = request.send().await;
        if gate.withheld.load(Ordering::Acquire) {
            return Err(CallError::NotConnected(LEASE_OVER.to_owned()));
        }
        sent.map_err(describe)
    }
}

/// The answer had begun.
fn cut(error: &reqwest::Error) -> CallError {
    CallError::NoAnswer(format!("cut in the answer: {}", cause(error)))
}

const LEASE_OVER: &str = "the lease of this process has ended";

/// Holds back the body of a request whose pass has ended: without its body nobody carries it out.
struct Gate {
    pass: Option<Pass>,
    /// Set when a body was held back.
    withheld: Arc<AtomicBool>,
}

impl Gate {
    fn guard(&self, body: Vec<u8>) -> reqwest::Body {
        match &self.pass {
            None => body.into(),
            Some(pass) => {
                let bytes = Some(Bytes::from(body)).filter(|bytes| !bytes.is_empty());
                reqwest::Body::wrap(Guarded { bytes, pass: pass.clone(), withheld: Arc::clone(&self.withheld) })
            }
        }
    }
}

/// A body that is given away whole, or not at all. The connection asks for it when it writes, which is the last moment
/// at which a process that stood still can learn that it is too late.
struct Guarded {
    bytes: Option<Bytes>,
    pass: Pass,
    withheld: Arc<AtomicBool>,
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        let Some(bytes) = self.bytes.take() else { return Poll::Ready(None) };
        if !self.pass.holds() {
            self.withheld.store(true, Ordering::Release);
            return Poll::Ready(Some(Err(std::io::Error::other(LEASE_OVER))));
        }
        Poll::Ready(Some(Ok(http_body::Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// Trust in certificates comes from the operating system's store.
fn tls_config() -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls_native_certs::load_native_certs().certs {
        // A single unreadable certificate in the system's store is not our business.
        let _ = roots.add(certificate);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS: {e}"))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Sorts a failure by whether the request can have arrived.
fn describe(error: reqwest::Error) -> CallError {
    let text = cause(&error);
    if error.is_builder() {
        CallError::Refused(text)
    } else if error.is_connect() {
        if text.contains(REFUSED_BY_GUARD) { CallError::Refused(text) } else { CallError::NotConnected(text) }
    } else {
        CallError::NoAnswer(text)
    }
}

/// The chain of causes without the address, which may carry a token.
fn cause(error: &reqwest::Error) -> String {
    let mut parts = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        parts.push(inner.to_string());
        source = inner.source();
    }
    if parts.is_empty() && error.is_timeout() {
        return "timed out".to_owned();
    }
    if parts.is_empty() { "request failed".to_owned() } else { parts.join(": ") }
}

const REFUSED_BY_GUARD: &str = "address inside a private network (see [network] allow_private)";

/// Refuses addresses that outsiders must not make us call.
struct AddressGuard {
    allowed: Vec<IpNet>,
}

impl AddressGuard {
    fn permits(&self, ip: IpAddr) -> bool {
        let plain = match ip {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
            IpAddr::V4(_) => ip,
        };
        self.allowed.iter().any(|net| net.contains(&plain)) || is_public(plain)
    }

    /// Address literals skip the resolver, so they are checked before the call.
    fn check_literal(&self, url: &reqwest::Url) -> Result<(), CallError> {
        let ip = match url.host() {
            Some(url::Host::Ipv4(v4)) => IpAddr::V4(v4),
            Some(url::Host::Ipv6(v6)) => IpAddr::V6(v6),
            Some(url::Host::Domain(_)) => return Ok(()),
            None => return Err(CallError::Refused("no host in the address".to_owned())),
        };
        if self.permits(ip) { Ok(()) } else { Err(CallError::Refused(format!("{ip}: {REFUSED_BY_GUARD}"))) }
    }
}

impl Resolve for AddressGuard {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = Self { allowed: self.allowed.clone() };
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let permitted: Vec<SocketAddr> = found.filter(|address| allowed.permits(address.ip())).collect();
            if permitted.is_empty() {
                return Err(format!("{}: {REFUSED_BY_GUARD}", name.as_str()).into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocol = a == 192 && b == 0 && c == 0;
    let benchmark = a == 198 && (b == 18 || b == 19);
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_unspecified()
        || ip.is_broadcast()
        || ip.is_documentation()
        || ip.is_multicast()
        || shared
        || protocol
        || benchmark
        || a == 0
        || a >= 240)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let first = ip.segments()[0];
    let unique_local = first & 0xfe00 == 0xfc00;
    let link_local = first & 0xffc0 == 0xfe80;
    let documentation = first == 0x2001 && ip.segments()[1] == 0x0db8;
    // 64:ff9b::/96 and 2002::/16 carry an IPv4 address inside; nothing of ours lives there.
    let translated = (first == 0x0064 && ip.segments()[1] == 0xff9b) || first == 0x2002;
    !(ip.is_loopback()
        || ip.is_unspecified()
        || ip.is_multicast()
        || unique_local
        || link_local
        || documentation
        || translated)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allowed: &[&str]) -> AddressGuard {
        AddressGuard { allowed: allowed.iter().map(|net| net.parse().unwrap()).collect() }
    }

    #[test]
    fn private_addresses_are_refused_in_every_spelling() {
        let guard = guard(&[]);
        for url in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://10.0.0.1/",
            "http://169.254.169.254/latest/meta-data",
            "http://100.64.0.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[fd00::1]/",
            "http://[fe80::1]/",
            "http://0.0.0.0/",
        ] {
            let url = reqwest::Url::parse(url).unwrap();
            assert!(guard.check_literal(&url).is_err(), "{url}");
        }
        for url in ["https://8.8.8.8/", "https://[2a00:1450::1]/"] {
            assert!(guard.check_literal(&reqwest::Url::parse(url).unwrap()).is_ok(), "{url}");
        }
    }

    #[test]
    fn listed_networks_are_reachable() {
        let guard = guard(&["127.0.0.0/8"]);
        assert!(guard.permits("127.0.0.1".parse().unwrap()));
        assert!(guard.permits("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!guard.permits("10.0.0.1".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_refused() {
        let outbound = Outbound::new(vec![]).unwrap();
        let error = outbound.call(Call::get("http://localhost:9/")).await.unwrap_err();
        assert!(matches!(error, CallError::Refused(_)), "{error}");
    }

    #[tokio::test]
    async fn a_closed_port_is_surely_not_reached() {
        let outbound = Outbound::new(vec!["127.0.0.0/8".parse().unwrap()]).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = outbound.call(Call::get(format!("http://127.0.0.1:{port}/?token=secret"))).await.unwrap_err();
        assert!(matches!(error, CallError::NotConnected(_)), "{error}");
        assert!(!error.to_string().contains("secret"));
    }

    /// Answers requests until they stop coming; gives how many had their whole body.
    async fn hear(listener: tokio::net::TcpListener, body: &'static [u8], heard: Arc<std::sync::atomic::AtomicUsize>) {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(body) {
                if tokio::io::AsyncReadExt::read_buf(&mut socket, &mut request).await.unwrap() == 0 {
                    break;
                }
            }
            if request.ends_with(body) {
                heard.fetch_add(1, Ordering::SeqCst);
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                tokio::io::AsyncWriteExt::write_all(&mut socket, answer).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_request_whose_pass_has_ended_reaches_nobody() {
        let outbound = Outbound::new(vec!["127.0.0.0/8".parse().unwrap()]).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let heard = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        tokio::spawn(hear(listener, b"{\"a\":1}", Arc::clone(&heard)));
        let call = || outbound.call(Call::post_json(url.clone(), b"{\"a\":1}".to_vec()));
        let lease = crate::lease::Lease::default();
        lease.renew(std::time::Instant::now(), crate::domain::time::Millis::minutes(1));
        let pass = lease.pass();
        assert_eq!(lease::within(pass.clone(), call()).await.unwrap().status, 200);
        lease.end();
        let error = lease::within(pass, call()).await.unwrap_err();
        assert!(matches!(error, CallError::NotConnected(_)), "surely not sent: {error}");
        assert_eq!(call().await.unwrap().status, 200, "what needs no pass leaves");
        assert_eq!(heard.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_cut_connection_is_no_answer() {
        let outbound = Outbound::new(vec!["127.0.0.0/8".parse().unwrap()]).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 512];
            tokio::io::AsyncReadExt::read(&mut socket, &mut buffer).await.unwrap();
        });
        let call = Call::post_json(format!("http://127.0.0.1:{port}/"), b"{}".to_vec());
        let error = outbound.call(call).await.unwrap_err();
        assert!(matches!(error, CallError::NoAnswer(_)), "{error}");
    }
}
