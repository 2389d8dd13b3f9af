//! The suite every provider of the registry passes, over a real connection.
//!
//! A provider brings one [`Specimen`]: what its vendor answers, word for word. The suite brings the faults.

pub(crate) mod stub;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Entry, Provider, REGISTRY, ResolvedSettings, WebhookError, find, telegram_bot, whatsapp_cloud};
use crate::domain::address::Addressing;
use crate::domain::capability::{Handshake, WebhookAuth};
use crate::domain::channel::{Channel, ChannelSettings, ChannelState};
use crate::domain::ids::{ChannelId, LineId, MessageId};
use crate::domain::message::{OutboundContent, OutboundMessage};
use crate::domain::outcome::{ErrorCode, FailureClass, SendError};
use crate::domain::time::Millis;
use crate::outbound::Outbound;
use crate::webhook_auth;
use stub::{Reply, Stub};

/// What the suite must know of a vendor.
pub(crate) struct Specimen {
    pub(crate) entry: &'static Entry,
    /// Credentials of a working channel; obviously false values.
    pub(crate) credentials: &'static [(&'static str, &'static str)],
    /// An address the vendor takes.
    pub(crate) peer: &'static str,
    /// The answer that accepts a message, and the id in it.
    pub(crate) accepted: fn() -> (Reply, &'static str),
    /// The answer to the harmless call, and a word that people must find in its result.
    pub(crate) probed: fn() -> (Reply, &'static str),
    /// The answer that throttles, without a time.
    pub(crate) throttled: fn() -> Reply,
    /// A refusal of the vendor that quotes the given text.
    pub(crate) quoting: fn(&str) -> Reply,
    /// Every row of the error table as the vendor would answer it.
    pub(crate) errors: fn() -> Vec<ErrorCase>,
    /// Callbacks for this channel that carry news.
    pub(crate) callbacks: &'static [&'static [u8]],
    /// A callback for another sender, where callbacks name their sender.
    pub(crate) foreign: Option<&'static [u8]>,
    /// What the header of a callback must say to be believed.
    pub(crate) sign: fn(&Channel, &[u8]) -> String,
}

/// One row of an error table.
pub(crate) struct ErrorCase {
    pub(crate) vendor_code: String,
    pub(crate) reply: Reply,
    pub(crate) class: FailureClass,
    pub(crate) code: ErrorCode,
    pub(crate) retry_after: Option<Millis>,
}

static SPECIMENS: &[&Specimen] = &[&whatsapp_cloud::tests::SPECIMEN, &telegram_bot::tests::SPECIMEN];

/// A channel with the specimen's credentials.
pub(crate) fn channel(specimen: &Specimen) -> Channel {
    Channel {
        id: ChannelId::new("01TEST"),
        line: LineId::new("01TEST"),
        provider: specimen.entry.spec.id.to_owned(),
        name: "test".to_owned(),
        credentials: specimen.credentials.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        settings: ChannelSettings::default(),
        state: ChannelState::Active,
        ramp: None,
    }
}

/// The provider, pointed at an address on this machine.
pub(crate) fn build(entry: &Entry, base_url: &str) -> Arc<dyn Provider> {
    let outbound = Outbound::new(vec!["127.0.0.0/8".parse().unwrap()]).unwrap();
    let settings =
        ResolvedSettings { base_url: base_url.to_owned(), api_version: entry.defaults.api_version.to_owned() };
    (entry.build)(Arc::new(outbound), settings)
}

/// A message with this content.
pub(crate) fn message(to: &str, content: OutboundContent) -> OutboundMessage {
    OutboundMessage { id: MessageId::new("01TESTMESSAGE"), to: to.to_owned(), content }
}

fn text_to(specimen: &Specimen) -> OutboundMessage {
    message(specimen.peer, OutboundContent::Text("Hello".to_owned()))
}

/// Sends one text to a server that answers so.
async fn send(specimen: &Specimen, reply: Reply) -> Result<String, SendError> {
    let stub = Stub::start(vec![reply]).await;
    let provider = build(specimen.entry, &stub.url);
    provider.send(&channel(specimen), &text_to(specimen)).await.map(|accepted| accepted.id.0)
}

#[test]
fn every_entry_has_a_specimen_and_an_id_of_its_own() {
    let registered: BTreeSet<&str> = REGISTRY.iter().map(|entry| entry.spec.id).collect();
    let shown: BTreeSet<&str> = SPECIMENS.iter().map(|specimen| specimen.entry.spec.id).collect();
    assert_eq!(registered, shown);
    assert_eq!(registered.len(), REGISTRY.len());
    assert!(find("whatsapp_cloud").is_some() && find("").is_none());
}

#[test]
fn specifications_are_sane() {
    for entry in REGISTRY {
        let spec = entry.spec;
        let credential = |name: &str| spec.credentials.iter().find(|field| field.name == name);
        assert!(spec.id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{}", spec.id);
        assert!(!spec.title.is_empty());
        let names: BTreeSet<&str> = spec.credentials.iter().map(|field| field.name).collect();
        assert_eq!(names.len(), spec.credentials.len(), "{}: two fields of one name", spec.id);
        assert!(spec.credentials.iter().any(|field| field.required), "{}", spec.id);
        match spec.webhook_auth {
            WebhookAuth::HmacSha256 { credential: name, header, .. }
            | WebhookAuth::HeaderSecret { credential: name, header } => {
                let field = credential(name).unwrap();
                assert!(field.required && field.secret && !header.is_empty(), "{}", spec.id);
            }
        }
        match spec.handshake {
            Some(Handshake::HubChallenge { credential: name }) => {
                let field = credential(name).unwrap();
                assert!(field.required && field.secret, "{}", spec.id);
            }
            None => {}
        }
        let can = spec.capabilities;
        assert!(can.text_max > 0 && can.messages_per_second > 0.0);
        assert!(can.captions.iter().all(|kind| can.media_by_link.contains(kind)));
        assert!(can.captions.is_empty() == (can.caption_max == 0));
        assert!(can.per_peer.is_none_or(|pace| pace.interval > Millis(0) && pace.burst > 0));
        let groups = can.per_peer.and_then(|pace| pace.in_groups);
        assert!(groups.is_none_or(|(interval, burst)| interval > Millis(0) && burst > 0));
        assert!(can.service_window.is_none_or(|window| window > Millis(0)));
        assert!(Millis(0) <= spec.unclear.wait && spec.unclear.wait <= spec.unclear.give_up);
        match spec.silence {
            Some(silence) => {
                assert!(Millis(0) < spec.unclear.wait, "{}: statuses are an echo", spec.id);
                assert!(Millis(0) < silence.accepted && silence.accepted <= silence.sent);
                assert!(silence.sent < silence.horizon);
            }
            None => assert_eq!(spec.unclear.give_up, Millis(0), "{}: there is nothing to wait for", spec.id),
        }
        if let Addressing::Chats { prefix } = spec.addressing {
            let letters = prefix.strip_suffix('.').unwrap();
            assert!(!letters.is_empty() && letters.bytes().all(|b| b.is_ascii_lowercase()), "{}", spec.id);
            assert!(REGISTRY.iter().filter(|other| other.spec.addressing == spec.addressing).count() == 1);
        }
        assert!(entry.defaults.base_url.starts_with("https://") && !entry.defaults.base_url.ends_with('/'));
    }
}

#[test]
fn what_is_claimed_exists() {
    for specimen in SPECIMENS {
        let provider = build(specimen.entry, "http://127.0.0.1:9");
        assert!(std::ptr::eq(provider.spec(), specimen.entry.spec));
        assert_eq!(provider.spec().capabilities.templates, provider.templates().is_some());
        let own_secret = matches!(provider.spec().webhook_auth, WebhookAuth::HeaderSecret { .. });
        assert!(!own_secret || provider.webhooks().is_some(), "nobody else can tell the vendor this secret");
    }
}

#[tokio::test]
async fn an_accepted_message_has_the_vendors_id_and_is_sent_once() {
    for specimen in SPECIMENS {
        let (reply, id) = (specimen.accepted)();
        let stub = Stub::start(vec![reply]).await;
        let provider = build(specimen.entry, &stub.url);
        let accepted = provider.send(&channel(specimen), &text_to(specimen)).await.unwrap();
        assert_eq!(accepted.id.as_str(), id);
        assert_eq!(stub.requests().len(), 1);
    }
}

#[tokio::test]
async fn every_row_of_the_error_table_yields_its_class() {
    for specimen in SPECIMENS {
        let stub = Stub::start(vec![Reply::Cut]).await;
        let provider = build(specimen.entry, &stub.url);
        let channel = channel(specimen);
        let cases = (specimen.errors)();
        assert!(!cases.is_empty());
        for case in cases {
            stub.script(vec![case.reply]);
            let error = provider.send(&channel, &text_to(specimen)).await.unwrap_err();
            let name = &case.vendor_code;
            assert_eq!((error.class, error.failure.code), (case.class, case.code), "{name}");
            assert_eq!(&error.vendor_code, name);
            assert_eq!(error.retry_after, case.retry_after, "{name}");
            assert!(error.raw.contains(name) && !error.failure.detail.is_empty(), "{name}");
            assert!(!error.answered_by_gateway, "{name}");
        }
    }
}

#[tokio::test]
async fn a_throttle_tells_how_long_to_wait() {
    for specimen in SPECIMENS {
        let error = send(specimen, (specimen.throttled)().with_header("retry-after", "7")).await.unwrap_err();
        assert_eq!((error.class, error.retry_after), (FailureClass::Throttled, Some(Millis::seconds(7))));
        let error = send(specimen, (specimen.throttled)().with_header("retry-after", "0")).await.unwrap_err();
        assert!(error.retry_after.unwrap() > Millis(0));
        let error = send(specimen, (specimen.throttled)()).await.unwrap_err();
        assert!(error.class == FailureClass::Throttled && error.retry_after.unwrap() > Millis(0));
        let error = send(specimen, Reply::text(429, "slow down")).await.unwrap_err();
        assert!(error.class == FailureClass::Throttled && error.retry_after.unwrap() > Millis(0));
    }
}

#[tokio::test]
async fn a_vendor_that_is_down_was_not_reached() {
    for specimen in SPECIMENS {
        for body in ["", "<html>Service Unavailable</html>", "{\"error\":{\"code\":987654321}}"] {
            let error = send(specimen, Reply::text(503, body)).await.unwrap_err();
            assert_eq!(error.class, FailureClass::Unavailable, "{body}");
        }
    }
}

#[tokio::test]
async fn a_page_of_a_gateway_is_unclear_and_said_to_be_one() {
    for specimen in SPECIMENS {
        for status in [500, 502, 504] {
            let error = send(specimen, Reply::text(status, "<html>Bad Gateway</html>")).await.unwrap_err();
            assert_eq!((error.class, error.answered_by_gateway), (FailureClass::Indeterminate, true), "{status}");
            assert_eq!(error.failure.code, ErrorCode::Undecided);
        }
    }
}

#[tokio::test]
async fn a_good_answer_that_makes_no_sense_is_unclear() {
    for specimen in SPECIMENS {
        for body in ["", "OK", "{}", "[]", "null", "{\"messages\":[]}", "{\"messages\":[{\"id\":\"\"}]}"] {
            let error = send(specimen, Reply::text(200, body)).await.unwrap_err();
            assert_eq!((error.class, error.answered_by_gateway), (FailureClass::Indeterminate, false), "{body}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_unclear() {
    for specimen in SPECIMENS {
        for reply in [Reply::Cut, Reply::CutInside] {
            let error = send(specimen, reply.clone()).await.unwrap_err();
            assert_eq!((error.class, error.answered_by_gateway), (FailureClass::Indeterminate, false), "{reply:?}");
            assert_eq!((error.failure.code, error.vendor_code.as_str()), (ErrorCode::Undecided, ""));
        }
    }
}

#[tokio::test]
async fn silence_after_the_request_is_unclear() {
    for specimen in SPECIMENS {
        let stub = Stub::start(vec![Reply::Silence]).await;
        let provider = build(specimen.entry, &stub.url);
        let (channel, message) = (channel(specimen), text_to(specimen));
        let sending = tokio::spawn(async move { provider.send(&channel, &message).await });
        stub.arrival().await;
        tokio::time::pause();
        let limit = Duration::from_secs(120);
        let error = tokio::time::timeout(limit, sending).await.unwrap().unwrap().unwrap_err();
        tokio::time::resume();
        assert_eq!((error.class, error.answered_by_gateway), (FailureClass::Indeterminate, false));
        assert_eq!(stub.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_closed_port_was_not_reached_and_a_forbidden_one_is_for_the_administrator() {
    for specimen in SPECIMENS {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        for (address, class) in
            [(closed.as_str(), FailureClass::Unavailable), ("http://10.0.0.1", FailureClass::Misconfigured)]
        {
            let provider = build(specimen.entry, address);
            let error = provider.send(&channel(specimen), &text_to(specimen)).await.unwrap_err();
            assert_eq!((error.class, error.vendor_code.as_str()), (class, ""));
        }
    }
}

#[tokio::test]
async fn a_missing_credential_stops_the_send_before_it_leaves() {
    for specimen in SPECIMENS {
        let stub = Stub::start(vec![(specimen.accepted)().0]).await;
        let provider = build(specimen.entry, &stub.url);
        let mut bare = channel(specimen);
        bare.credentials.clear();
        let error = provider.send(&bare, &text_to(specimen)).await.unwrap_err();
        assert_eq!((error.class, error.failure.code), (FailureClass::Misconfigured, ErrorCode::Misconfigured));
        assert!(provider.probe(&bare).await.is_err());
        assert!(stub.requests().is_empty());
    }
}

#[tokio::test]
async fn no_secret_comes_back_even_if_the_vendor_quotes_it() {
    for specimen in SPECIMENS {
        let secret_names: BTreeSet<&str> =
            specimen.entry.spec.credentials.iter().filter(|field| field.secret).map(|field| field.name).collect();
        for (_, secret) in specimen.credentials.iter().filter(|(name, _)| secret_names.contains(name)) {
            for reply in [(specimen.quoting)(secret), Reply::text(502, format!("<html>{secret}</html>"))] {
                let error = send(specimen, reply).await.unwrap_err();
                assert!(!format!("{error:?}").contains(secret));
            }
        }
    }
}

#[tokio::test]
async fn the_harmless_call_reads_and_its_failure_is_never_unclear() {
    for specimen in SPECIMENS {
        let (reply, word) = (specimen.probed)();
        let stub = Stub::start(vec![reply]).await;
        let provider = build(specimen.entry, &stub.url);
        assert!(provider.probe(&channel(specimen)).await.unwrap().contains(word));
        assert!(stub.requests().iter().all(|request| request.method == "GET"));
        for reply in [Reply::Cut, Reply::text(502, "<html>"), Reply::text(200, "")] {
            stub.script(vec![reply]);
            assert_eq!(provider.probe(&channel(specimen)).await.unwrap_err().class, FailureClass::Unavailable);
        }
    }
}

#[test]
fn callbacks_are_read_and_foreign_or_damaged_ones_are_not() {
    for specimen in SPECIMENS {
        let provider = build(specimen.entry, "http://127.0.0.1:9");
        let own = channel(specimen);
        assert!(!specimen.callbacks.is_empty());
        for body in specimen.callbacks {
            assert!(!provider.parse(&own, body).unwrap().is_empty());
            for end in 0..body.len() - 1 {
                assert!(matches!(provider.parse(&own, &body[..end]), Err(WebhookError::Malformed(_))), "cut at {end}");
            }
        }
        if let Some(foreign) = specimen.foreign {
            assert_eq!(provider.parse(&own, foreign), Err(WebhookError::ForeignSender));
        }
        let deep = "[".repeat(100_000);
        for body in ["", "null", "[]", "{}", "\"text\"", "{\"object\":\"page\",\"entry\":[]}", "\u{0}", &deep] {
            assert!(matches!(provider.parse(&own, body.as_bytes()), Err(WebhookError::Malformed(_))));
        }
        let mut bare = channel(specimen);
        bare.credentials.clear();
        assert!(specimen.foreign.is_none_or(|foreign| provider.parse(&bare, foreign).is_err()));
    }
}

#[test]
fn only_the_vendors_own_signature_is_believed() {
    for specimen in SPECIMENS {
        let own = channel(specimen);
        let auth = &specimen.entry.spec.webhook_auth;
        let (expected, covers_body) = match auth {
            WebhookAuth::HmacSha256 { header, .. } => (header, true),
            WebhookAuth::HeaderSecret { header, .. } => (header, false),
        };
        let other = Channel { id: ChannelId::new("01OTHER"), ..channel(specimen) };
        let mut stranger = channel(specimen);
        stranger.credentials.values_mut().for_each(|value| value.push('x'));
        for body in specimen.callbacks {
            let signature = (specimen.sign)(&own, body);
            let header = |name: &str| name.eq_ignore_ascii_case(expected).then_some(signature.as_str());
            assert!(webhook_auth::verify(auth, &own, header, body));
            assert_eq!(webhook_auth::verify(auth, &own, header, b"{\"forged\":1}"), !covers_body);
            assert!(!webhook_auth::verify(auth, &stranger, header, body));
            assert!(covers_body || !webhook_auth::verify(auth, &other, header, body), "a secret is of one channel");
            assert!(!webhook_auth::verify(auth, &own, |_| None, body));
        }
    }
}
