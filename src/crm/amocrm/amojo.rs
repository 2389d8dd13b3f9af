//! Calls to amoCRM's chats service. It knows no tokens: the secret of our chat channel signs every request (protocol
//! reference, sections 7.3 and 7.4, read 2026-11).
//!
//! The secret is text and is not decoded; what is signed are the very bytes that leave, so the body is made once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp as Moment;
use md5::{Digest as _, Md5};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use sha1::Sha1;
use subtle::ConstantTimeEq as _;

use crate::crm::own;
use crate::domain::effect::{CrmError, PortalTrouble, Reach};
use crate::domain::outcome::FailureClass;
use crate::domain::portal::{CrmKind, Portal};
use crate::domain::time::{Clock, Millis, Timestamp};
use crate::forms::text_at;
use crate::outbound::{Body, Call, CallError, Method, Outbound};

/// The vendor's own samples wait so long.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Waited after a 429: the vendor names neither limits nor waits.
const THROTTLED: Millis = Millis::seconds(10);
const JSON: &str = "application/json";
/// What the service calls a channel that it does not know.
const UNCONNECTED: &str = "ORIGIN_NOT_REGISTERED";
/// Stands for an account's domain in `amocrm.chats_url`.
const DOMAIN: &str = "{domain}";

/// A channel of chats that the vendor has registered for one of our integrations. `Debug` shows its id only.
#[derive(Clone)]
pub struct ChatKeys {
    /// UUID.
    pub channel_id: String,
    /// Signs requests and hooks, as text.
    pub secret: SecretString,
    /// amoCRM's id of the channel's bot: who speaks where nobody in particular has written.
    pub bot_id: String,
}

impl std::fmt::Debug for ChatKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChatKeys {{ channel_id {} }}", self.channel_id)
    }
}

/// One request; its path begins with a slash and is signed without the query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    /// Its name in metrics.
    pub(super) name: &'static str,
    pub(super) method: Method,
    pub(super) path: &'a str,
    /// With the question mark; may be empty.
    pub(super) query: &'a str,
    pub(super) body: Option<&'a Value>,
    /// True when it may be sent again without harm.
    pub(super) repeatable: bool,
}

impl<'a> Ask<'a> {
    pub(super) fn post(name: &'static str, path: &'a str, body: &'a Value) -> Self {
        Self { name, method: Method::Post, path, query: "", body: Some(body), repeatable: true }
    }
}

/// Why there is no result.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Refusal {
    /// HTTP status; `None` without an answer.
    pub(super) status: Option<u16>,
    /// True when the service does not know the channel in this account (any more).
    pub(super) is_unconnected: bool,
    pub(super) error: CrmError,
}

impl From<CrmError> for Refusal {
    fn from(error: CrmError) -> Self {
        Self { status: None, is_unconnected: false, error }
    }
}

/// Calls the chats service.
pub(super) struct Amojo {
    outbound: Arc<Outbound>,
    clock: Arc<dyn Clock>,
    /// Without a slash at the end.
    base: String,
}

impl Amojo {
    pub(super) fn new(outbound: Arc<Outbound>, clock: Arc<dyn Clock>, base: &str) -> Self {
        Self { outbound, clock, base: base.trim_end_matches('/').to_owned() }
    }

    /// Where chats of an account are: amoCRM and Kommo have a service each.
    pub(super) fn base(&self, portal: &Portal) -> String {
        let domain = portal.domain.split_once('.').map_or("", |(_, domain)| domain);
        self.base.replace(DOMAIN, domain)
    }

    /// Makes a signed request.
    pub(super) async fn call(&self, keys: &ChatKeys, portal: &Portal, ask: Ask<'_>) -> Result<Value, Refusal> {
        let started = Instant::now();
        let result = self.once(keys, portal, ask).await;
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let word = match &result {
            Ok(_) => "ok",
            Err(refusal) => {
                tracing::info!(
                    portal.id = %portal.id, crm = "amocrm", failure.class = refusal.error.class.code(),
                    vendor.code = refusal.error.code, method = ask.name, duration_ms, "call failed"
                );
                refusal.error.class.code()
            }
        };
        crate::telemetry::crm_call(CrmKind::Amocrm.code(), ask.name, word);
        result
    }

    async fn once(&self, keys: &ChatKeys, portal: &Portal, ask: Ask<'_>) -> Result<Value, Refusal> {
        let body = ask.body.map(|body| body.to_string().into_bytes());
        let date = date(self.clock.now());
        let content = body.as_deref().unwrap_or_default();
        let (md5, signature) = sign(keys.secret.expose_secret(), ask.method, content, &date, ask.path);
        let mut headers = vec![("date", date), ("content-md5", md5), ("x-signature", signature)];
        let body = match body {
            Some(bytes) => Body::Json(bytes),
            None => {
                headers.push(("content-type", JSON.to_owned()));
                Body::Empty
            }
        };
        let url = format!("{}{}{}", self.base(portal), ask.path, ask.query);
        let call = Call { method: ask.method, url, bearer: None, headers, body, timeout: TIMEOUT };
        let answer = self.outbound.call(call).await.map_err(|error| unanswered(&error, ask.repeatable))?;
        let document = serde_json::from_slice::<Value>(&answer.body).ok();
        if (200..300).contains(&answer.status) {
            return Ok(document.unwrap_or(Value::Null));
        }
        let said = document.map(|document| text_at(&document, &["error_type"])).unwrap_or_default();
        Err(refused(answer.status, &said, ask.repeatable))
    }
}

fn unanswered(error: &CallError, repeatable: bool) -> Refusal {
    let (class, code) = match error {
        CallError::Refused(_) => (FailureClass::Misconfigured, "address_refused"),
        CallError::NotConnected(_) => (FailureClass::Unavailable, "not_connected"),
        CallError::NoAnswer(_) if repeatable => (FailureClass::Unavailable, "no_answer"),
        CallError::NoAnswer(_) => (FailureClass::Indeterminate, "no_answer"),
    };
    own(class, PortalTrouble::None, code, error.to_string()).into()
}

fn refused(status: u16, said: &str, repeatable: bool) -> Refusal {
    let (class, text) = match status {
        // Whatever is wrong with a signature is said this way, also by a clock that is more than fifteen minutes off.
        403 => (FailureClass::Misconfigured, "the signature is refused: look at the channel's secret and at the clock"),
        429 => (FailureClass::Throttled, "too many requests"),
        400..=499 => (FailureClass::Rejected, "refused by the chats service"),
        _ if repeatable => (FailureClass::Unavailable, "the chats service is down"),
        _ => (FailureClass::Indeterminate, "the chats service gave no sensible answer"),
    };
    let error = own(class, PortalTrouble::None, &format!("amojo_{status}"), format!("{text} {said}").trim_end());
    let error = match status {
        429 => CrmError { retry_after: Some(THROTTLED), reach: Reach::Call, ..error },
        _ => error,
    };
    Refusal { status: Some(status), is_unconnected: status == 404 && said == UNCONNECTED, error }
}

/// The header `Date`, with a numeric zone as documented.
fn date(now: Timestamp) -> String {
    let moment = Moment::from_millisecond(now.0).unwrap_or(Moment::UNIX_EPOCH);
    moment.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hmac(secret: &[u8], content: &[u8]) -> String {
    match Hmac::<Sha1>::new_from_slice(secret) {
        Ok(mut mac) => {
            mac.update(content);
            hex(&mac.finalize().into_bytes())
        }
        // An HMAC takes keys of every length.
        Err(_impossible) => String::new(),
    }
}

/// `Content-MD5` and `X-Signature` of a request.
fn sign(secret: &str, method: Method, body: &[u8], date: &str, path: &str) -> (String, String) {
    let method = match method {
        Method::Get => "GET",
        Method::Post => "POST",
        Method::Patch => "PATCH",
        Method::Delete => "DELETE",
    };
    let md5 = hex(&Md5::digest(body));
    let signature = hmac(secret.as_bytes(), format!("{method}\n{md5}\n{JSON}\n{date}\n{path}").as_bytes());
    (md5, signature)
}

/// True when a hook was signed with the channel's secret: over its body alone, unlike our own requests.
pub(super) fn signs_hook(secret: &SecretString, signature: &str, body: &[u8]) -> bool {
    let expected = hmac(secret.expose_secret().as_bytes(), body);
    !expected.is_empty() && bool::from(expected.as_bytes().ct_eq(signature.trim().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "9c1b64e0d2f5438a8e7d1f0a6b3c5d2e4f798081";
    const DATE: &str = "Tue, 03 Feb 2026 09:15:00 +0000";
    const CONNECT: &str = "/v2/origin/custom/7b0f3c52-4d1e-4a6b-9f27-3e5d8c1a2b40/connect";
    const SCOPE: &str = "/v2/origin/custom/7b0f3c52-4d1e-4a6b-9f27-3e5d8c1a2b40_c2a9d1e7-58b4-4f03-a1c6-0d9e7f6b5a34";
    const CONNECT_BODY: &str =
        r#"{"account_id":"c2a9d1e7-58b4-4f03-a1c6-0d9e7f6b5a34","title":"Acme Messenger","hook_api_version":"v2"}"#;

    #[test]
    fn requests_are_signed_as_the_worked_examples() {
        let message = r#"{"event_type":"new_message","payload":{"timestamp":1770110100,"msec_timestamp":1770110100123,"msgid":"wamid.A1","conversation_id":"wa-79005550101","silent":false,"sender":{"id":"wa-79005550101","name":"Анна","profile":{"phone":"+79005550101"}},"message":{"type":"text","text":"Добрый день"}}}"#;
        assert_eq!(message.len(), 306);
        let status = r#"{"status_code":-1,"error_code":905,"error":"Template paused"}"#;
        let disconnect = r#"{"account_id":"c2a9d1e7-58b4-4f03-a1c6-0d9e7f6b5a34"}"#;
        let message_id = "0f6d2c1e-7a4b-4c59-8e3d-b1a2c3d4e5f6";
        let chat = "5e0c7a11-3b2d-4f68-9a70-1c2d3e4f5a6b";
        for (method, path, body, md5, signature) in [
            (
                Method::Post,
                CONNECT.to_owned(),
                CONNECT_BODY,
                "2b7b581e59bb0b93af7097bbec17b21f",
                "800d1541c5d3b7861f78ee553b0388a3faa0c3a9",
            ),
            (
                Method::Post,
                SCOPE.to_owned(),
                message,
                "8fb5ab1f2805a2f3b3309d08f83d637b",
                "228c1055ee2543a9ad2cd3c95aa6688c12796786",
            ),
            (
                Method::Post,
                format!("{SCOPE}/{message_id}/delivery_status"),
                status,
                "9d69d8adc2b3c01b4ff65c7153620a8a",
                "1b1223b596ff1fb644fc477445a87232b70e4acb",
            ),
            (
                Method::Get,
                format!("{SCOPE}/chats/{chat}/history"),
                "",
                "d41d8cd98f00b204e9800998ecf8427e",
                "7e5a95e70caff9deb2bcdffaa1c12d660dafa355",
            ),
            (
                Method::Delete,
                CONNECT.replace("/connect", "/disconnect"),
                disconnect,
                "9da042194d95cc89be51f4f1827a2998",
                "9c9f48ede16eb77b5cc902aed58336bf1f280fac",
            ),
        ] {
            let signed = sign(SECRET, method, body.as_bytes(), DATE, &path);
            assert_eq!(signed, (md5.to_owned(), signature.to_owned()), "{path}");
        }
    }

    #[test]
    fn requests_are_signed_as_the_vendors_own_samples() {
        const SECRET: &str = "f2d7f8704eff95087ed45b23ba99c0b5aac8278e";
        let channel = "/v2/origin/custom/344a5002-f8ca-454d-af3d-396180102ac7";
        let scope = format!("{channel}_52e591f7-c98f-4255-8495-827210138c81");
        let connect = r#"{"account_id":"52e591f7-c98f-4255-8495-827210138c81","title":"ChatsIntegration","hook_api_version":"v2"}"#;
        let disconnect = r#"{"account_id":"52e591f7-c98f-4255-8495-827210138c81"}"#;
        let typing = r#"{"conversation_id":"my_int-d5a421f7f218","sender":{"id":"my_int-1376265f-86df-4c49-a0c3-a4816df41af8"}}"#;
        for (method, path, body, date, md5, signature) in [
            (
                Method::Post,
                format!("{channel}/connect"),
                connect,
                "Wed, 15 Dec 2021 23:12:55 +0000",
                "2fbcb3c652b61e24e004daddfc73d0ce",
                "81211856ce0c5095f3e1a90c0a38dc9d736cfd55",
            ),
            (
                Method::Delete,
                format!("{channel}/disconnect"),
                disconnect,
                "Wed, 15 Dec 2021 23:59:28 +0000",
                "271fa2e4fb0ff84a3ef9689027bd1f38",
                "e1678e3b6aa674b5127f4feb448e6200ce0bfc72",
            ),
            (
                Method::Post,
                format!("{scope}/typing"),
                typing,
                "Thu, 16 Dec 2021 16:01:21 +0000",
                "255a22566d68be207fa36804e78a523a",
                "e8263b1daf2b20396c02db6c8c846f95cc0f9540",
            ),
        ] {
            let signed = sign(SECRET, method, body.as_bytes(), date, &path);
            assert_eq!(signed, (md5.to_owned(), signature.to_owned()), "{path}");
        }
    }

    #[test]
    fn the_wrong_ways_to_sign_give_the_published_wrong_signatures() {
        let good = "800d1541c5d3b7861f78ee553b0388a3faa0c3a9";
        let (_, gmt) = sign(SECRET, Method::Post, CONNECT_BODY.as_bytes(), "Tue, 03 Feb 2026 09:15:00 GMT", CONNECT);
        assert_eq!(gmt, "f50ddf4693afe5167f7f0135198478cffa4dbfc4");
        let (md5, other) = sign(SECRET, Method::Post, format!("{CONNECT_BODY}\n").as_bytes(), DATE, CONNECT);
        assert_eq!(md5, "19565bb0923731adb68611c48228988c");
        let path = format!("{SCOPE}/chats/5e0c7a11-3b2d-4f68-9a70-1c2d3e4f5a6b/history?limit=50&offset=0");
        assert_eq!(sign(SECRET, Method::Get, b"", DATE, &path).1, "40dbab69b124a1fab23db9a5bd4a89e74f7fa12c");
        // The older scheme of body-only signatures is for hooks.
        assert_eq!(hmac(SECRET.as_bytes(), CONNECT_BODY.as_bytes()), "bc469c4edf456ec319ab5f322c3c83d1e717da2c");
        assert!(good != gmt && good != other);
        // The secret is text: decoded first, it is another key.
        let digits = SECRET.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        let decoded: Vec<u8> = digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        let text = format!("POST\n2b7b581e59bb0b93af7097bbec17b21f\n{JSON}\n{DATE}\n{CONNECT}");
        assert_eq!(hmac(&decoded, text.as_bytes()), "ad9b4b500c3f3d2805d8c5f217679112c02d8fca");
        // The other spelling of the same text is another body.
        let escaped = r#"{"event_type":"new_message","payload":{"timestamp":1770110100,"msec_timestamp":1770110100123,"msgid":"wamid.A1","conversation_id":"wa-79005550101","silent":false,"sender":{"id":"wa-79005550101","name":"\u0410\u043d\u043d\u0430","profile":{"phone":"+79005550101"}},"message":{"type":"text","text":"\u0414\u043e\u0431\u0440\u044b\u0439 \u0434\u0435\u043d\u044c"}}}"#;
        let signed = sign(SECRET, Method::Post, escaped.as_bytes(), DATE, SCOPE);
        let published = ("799fdb8d0cb67d19d8460cf84adaeaf9", "a96a83c523a03845810dd4b0ce718d8857e5936a");
        assert_eq!((signed.0.as_str(), signed.1.as_str()), published);
    }

    #[test]
    fn a_hook_is_proved_by_its_body_alone() {
        let body = r#"{"account_id":"c2a9d1e7-58b4-4f03-a1c6-0d9e7f6b5a34","time":1770110160,"message":{"receiver":{"id":"a7b8c9d0-1122-4a3b-8c4d-5e6f70819233","phone":"79005550101","email":"","client_id":"wa-79005550101"},"sender":{"id":"d4e5f6a7-3344-4b5c-9d6e-7f8091a2b3c4"},"conversation":{"id":"5e0c7a11-3b2d-4f68-9a70-1c2d3e4f5a6b","client_id":"wa-79005550101"},"source":{"external_id":"15550001111"},"timestamp":1770110159,"msec_timestamp":1770110159870,"message":{"id":"0f6d2c1e-7a4b-4c59-8e3d-b1a2c3d4e5f6","type":"text","text":"Hello","markup":null,"tag":"","media":"","thumbnail":"","file_name":"","file_size":0}}}"#;
        assert_eq!(body.len(), 603);
        let (secret, signature) = (SecretString::from(SECRET), "743e18376022a53b463fffa8e09b35b64dff6665");
        assert!(signs_hook(&secret, signature, body.as_bytes()));
        assert!(!signs_hook(&secret, signature, format!("{body} ").as_bytes()));
        assert!(!signs_hook(&secret, "", body.as_bytes()));
        assert!(!signs_hook(&SecretString::from("another"), signature, body.as_bytes()));
    }

    #[test]
    fn the_date_has_a_numeric_zone() {
        assert_eq!(date(Timestamp(1_770_110_100_000)), DATE);
    }
}
