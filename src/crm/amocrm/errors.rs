//! What amoCRM's answers mean: decided by status, never by wording (it is Russian on amocrm.ru and English on Kommo).
//!
//! Errors are problem documents; what is none comes from something in front of amoCRM. An HTML page with status 403 says
//! that our address is shut out, whoever calls (protocol reference, sections "Token endpoint", "Limits and blocking" and
//! "Errors", read 2026-11).

use serde_json::Value;

use crate::crm::{own, shorten};
use crate::domain::effect::{CrmError, PortalTrouble, Reach};
use crate::domain::outcome::FailureClass;
use crate::domain::time::Millis;
use crate::forms::{integer, items, member, text, text_at};
use crate::outbound::{Answer, CallError};

/// Waited after a 429 that does not say how long.
const THROTTLED: Millis = Millis::seconds(10);
/// An account that is not paid is asked again after this; it comes back by itself.
const UNPAID: Millis = Millis::hours(1);

/// One entity of a request that was refused as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Invalid {
    /// Our `request_id`, or the entity's place in the request.
    pub(super) request: String,
    /// The first code (`EntityNotFound`).
    pub(super) code: String,
    /// Which field.
    pub(super) path: String,
}

/// Why a call has no result.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Fault {
    /// amoCRM named an error.
    Said {
        /// HTTP status.
        status: u16,
        /// Its wording.
        text: String,
        /// True when it speaks of the token or code itself, and not of our keys.
        of_token: bool,
        /// How long it wants to be left alone.
        retry_after: Option<Millis>,
        /// The entities it does not take.
        invalid: Vec<Invalid>,
    },
    /// A page that says 403: nobody listens to our address any more.
    ShutOut,
    /// An answer that is none of theirs.
    Senseless {
        /// HTTP status.
        status: u16,
    },
    /// The request surely did not arrive.
    NotConnected(String),
    /// The request may have arrived.
    NoAnswer(String),
    /// The address may not be called.
    Refused(String),
    /// Decided earlier (no token, no store, silence asked for).
    Decided(CrmError),
}

impl From<CallError> for Fault {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(text) => Self::Refused(text),
            CallError::NotConnected(text) => Self::NotConnected(text),
            CallError::NoAnswer(text) => Self::NoAnswer(text),
        }
    }
}

impl From<CrmError> for Fault {
    fn from(error: CrmError) -> Self {
        Self::Decided(error)
    }
}

impl Fault {
    /// The status of the answer, if there was one; also of a page in front of amoCRM.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Said { status, .. } | Self::Senseless { status } => Some(*status),
            Self::ShutOut => Some(403),
            Self::NotConnected(_) | Self::NoAnswer(_) | Self::Refused(_) | Self::Decided(_) => None,
        }
    }

    /// How long the account wants silence.
    pub(super) fn silence(&self) -> Option<Millis> {
        match self {
            Self::Said { status: 429, retry_after, .. } => Some(retry_after.unwrap_or(THROTTLED)),
            Self::Senseless { status: 429 } => Some(THROTTLED),
            Self::Said { .. }
            | Self::Senseless { .. }
            | Self::ShutOut
            | Self::NotConnected(_)
            | Self::NoAnswer(_)
            | Self::Refused(_)
            | Self::Decided(_) => None,
        }
    }

    /// A gateway gave up waiting: the request was too large, and may have been carried out all the same.
    pub(super) fn is_gateway_timeout(&self) -> bool {
        self.status() == Some(504)
    }

    /// The entities that were not taken; empty when the request failed for another reason.
    pub(super) fn invalid(&self) -> &[Invalid] {
        match self {
            Self::Said { invalid, .. } => invalid,
            Self::ShutOut
            | Self::Senseless { .. }
            | Self::NotConnected(_)
            | Self::NoAnswer(_)
            | Self::Refused(_)
            | Self::Decided(_) => &[],
        }
    }

    /// The failure in the pipeline's words. `repeatable` tells whether the request may be sent again without harm.
    pub(super) fn error(&self, repeatable: bool) -> CrmError {
        let unclear = if repeatable { FailureClass::Unavailable } else { FailureClass::Indeterminate };
        let plain = |class, code: &str, text: &str| own(class, PortalTrouble::None, code, text);
        let waits = |class, code: &str, text: &str, wait| CrmError {
            retry_after: Some(wait),
            reach: Reach::Call,
            ..plain(class, code, text)
        };
        match self {
            Self::Decided(error) => error.clone(),
            Self::NotConnected(text) => plain(FailureClass::Unavailable, "not_connected", text),
            Self::NoAnswer(text) => plain(unclear, "no_answer", text),
            Self::Refused(text) => plain(FailureClass::Misconfigured, "address_refused", text),
            Self::ShutOut => CrmError {
                reach: Reach::Address,
                ..plain(FailureClass::Throttled, "shut_out", "our address is shut out for too many requests")
            },
            Self::Senseless { status: 429 } => {
                waits(FailureClass::Throttled, "http_429", "too many requests", THROTTLED)
            }
            Self::Senseless { status } => {
                let class = if (400..500).contains(status) { FailureClass::Unavailable } else { unclear };
                plain(class, &format!("http_{status}"), &format!("HTTP {status} without an answer of amoCRM"))
            }
            Self::Said { status, text, retry_after, .. } => {
                let code = format!("http_{status}");
                match status {
                    401 => own(FailureClass::Misconfigured, PortalTrouble::NeedsAuth, &code, text.as_str()),
                    402 => waits(FailureClass::Throttled, &code, text, UNPAID),
                    403 => plain(FailureClass::NotPermitted, &code, text),
                    429 => waits(FailureClass::Throttled, &code, text, retry_after.unwrap_or(THROTTLED)),
                    400..=499 => plain(FailureClass::Rejected, &code, text),
                    _ => plain(unclear, &code, text),
                }
            }
        }
    }
}

/// Reads an answer: the document of a good one, `Null` where amoCRM says nothing (an empty collection, a missing lead).
pub(super) fn read_answer(answer: &Answer) -> Result<Value, Fault> {
    let status = answer.status;
    let document = serde_json::from_slice::<Value>(&answer.body).ok();
    if (200..300).contains(&status) {
        let silent = answer.body.trim_ascii().is_empty();
        return document.or(silent.then_some(Value::Null)).ok_or(Fault::Senseless { status });
    }
    let Some(problem) = document.filter(Value::is_object) else {
        return Err(if status == 403 { Fault::ShutOut } else { Fault::Senseless { status } });
    };
    let wording = ["hint", "detail", "title"].map(|key| text_at(&problem, &[key]));
    let said = wording.iter().find(|text| !text.is_empty()).cloned().unwrap_or_default();
    let seconds = member(&problem, "retry_after").and_then(integer).filter(|seconds| *seconds > 0);
    let invalid = read_invalid(&problem);
    let text = match invalid.first() {
        Some(first) => format!("{said} {} {}", first.code, first.path),
        None => said,
    };
    Err(Fault::Said {
        status,
        text: shorten(&text),
        of_token: member(&problem, "hint").and_then(crate::forms::text).is_some_and(|hint| !hint.is_empty()),
        retry_after: seconds.map(Millis::seconds),
        invalid,
    })
}

fn read_invalid(problem: &Value) -> Vec<Invalid> {
    let entities = member(problem, "validation-errors").map(items).unwrap_or_default();
    let read = |entity: &Value| {
        let request = member(entity, "request_id").and_then(text)?;
        let errors = member(entity, "errors").map(items).unwrap_or_default();
        let first = errors.first().copied().unwrap_or(&Value::Null);
        Some(Invalid { request, code: text_at(first, &["code"]), path: text_at(first, &["path"]) })
    };
    entities.into_iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;

    use super::*;

    fn fault(status: u16, body: &str) -> Fault {
        let answer = Answer { status, headers: HeaderMap::new(), body: body.as_bytes().to_vec() };
        read_answer(&answer).unwrap_err()
    }

    #[test]
    fn every_status_has_a_meaning() {
        let problem = r#"{"title":"T","status":0,"detail":"D"}"#;
        for (status, class, trouble) in [
            (400, FailureClass::Rejected, PortalTrouble::None),
            (401, FailureClass::Misconfigured, PortalTrouble::NeedsAuth),
            (402, FailureClass::Throttled, PortalTrouble::None),
            (403, FailureClass::NotPermitted, PortalTrouble::None),
            (404, FailureClass::Rejected, PortalTrouble::None),
            (422, FailureClass::Rejected, PortalTrouble::None),
            (429, FailureClass::Throttled, PortalTrouble::None),
            (500, FailureClass::Indeterminate, PortalTrouble::None),
            (504, FailureClass::Indeterminate, PortalTrouble::None),
        ] {
            let error = fault(status, problem).error(false);
            assert_eq!((error.class, error.portal), (class, trouble), "{status}");
            assert_eq!((error.code, error.text), (format!("http_{status}"), "D".to_owned()));
        }
        assert_eq!(fault(500, problem).error(true).class, FailureClass::Unavailable);
        assert_eq!(fault(502, "<html>").error(false).class, FailureClass::Indeterminate);
        assert_eq!(fault(404, "<html>").error(false).class, FailureClass::Unavailable);
    }

    #[test]
    fn a_page_that_says_403_shuts_out_the_whole_address() {
        let error = fault(403, "<html><h1>403 Forbidden</h1></html>").error(true);
        assert_eq!((error.class, error.reach), (FailureClass::Throttled, Reach::Address));
        assert_eq!(fault(403, r#"{"title":"Forbidden","status":403}"#).error(true).reach, Reach::Entry);
    }

    #[test]
    fn the_wait_stands_in_the_body() {
        let said = fault(429, r#"{"title":"Too Many Requests","status":429,"retry_after":300}"#);
        assert_eq!(said.silence(), Some(Millis::seconds(300)));
        assert_eq!(said.error(true).retry_after, Some(Millis::seconds(300)));
        assert_eq!(fault(429, "busy").silence(), Some(THROTTLED));
        assert_eq!(fault(500, "{}").silence(), None);
    }

    #[test]
    fn refused_entities_are_named() {
        let said = fault(
            400,
            r#"{"validation-errors":[{"request_id":"m1","errors":[{"code":"EntityNotFound","path":"entity_id","detail":"x"}]}],
                "title":"Bad Request","status":400,"detail":"Request validation failed"}"#,
        );
        let expected =
            Invalid { request: "m1".to_owned(), code: "EntityNotFound".to_owned(), path: "entity_id".to_owned() };
        assert_eq!(said.invalid(), [expected]);
        assert!(said.error(true).text.contains("EntityNotFound entity_id"));
    }

    #[test]
    fn nothing_is_an_answer_too() {
        let answer = |status, body: &str| Answer { status, headers: HeaderMap::new(), body: body.as_bytes().to_vec() };
        assert_eq!(read_answer(&answer(204, "")), Ok(Value::Null));
        assert_eq!(read_answer(&answer(202, " ")), Ok(Value::Null));
        assert_eq!(read_answer(&answer(200, "<html>")), Err(Fault::Senseless { status: 200 }));
        assert_eq!(read_answer(&answer(302, "")), Err(Fault::Senseless { status: 302 }));
    }
}
