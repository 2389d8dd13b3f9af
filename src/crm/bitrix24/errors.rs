//! What Bitrix24's errors mean: one table, decided by code and never by description.
//!
//! Descriptions are translated and differ between versions; HTTP statuses differ between documents, servers and the
//! official clients. Codes are compared without regard to case. An error can come with status 200, and its code can be
//! empty, `"0"` or a number (protocol reference, sections "Errors", "Error bodies of the OAuth server", "Authorization
//! errors" and "Error catalogue", read 2026-11).

use serde_json::Value;

use crate::crm::shorten;
pub(super) use crate::crm::{own, store_down};
use crate::domain::effect::{CrmError, PortalTrouble, Reach};
use crate::domain::outcome::FailureClass;
use crate::domain::text::excerpt;
use crate::domain::time::Millis;
use crate::forms::{member, text};
use crate::outbound::{Answer, CallError};

/// What can be tried at once, before the failure is handed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cure {
    /// Nothing.
    None,
    /// A new access token of the same user.
    Refresh,
    /// The token of another user.
    OtherToken,
}

/// Which clock says when to try again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    /// None of theirs: the pipeline's schedule.
    Schedule,
    /// The portal's bucket is full: 1, 2, 4 s.
    Bucket,
    /// The method has used up its time: until its window moves on.
    Method,
    /// Bitrix24 holds the whole application back.
    Long,
}

/// Whether the failed request was surely not carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// The class, whatever was asked.
    Is(FailureClass),
    /// The server broke while it worked: repeatable requests count as not done, others as unclear.
    Broke,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// The code in lower case; a `*` at the end stands for any rest.
    code: &'static str,
    verdict: Verdict,
    trouble: PortalTrouble,
    cure: Cure,
    wait: Wait,
}

const fn rule(code: &'static str, class: FailureClass, trouble: PortalTrouble, cure: Cure, wait: Wait) -> Rule {
    Rule { code, verdict: Verdict::Is(class), trouble, cure, wait }
}

/// Refused for good.
const fn refused(code: &'static str) -> Rule {
    rule(code, FailureClass::Rejected, PortalTrouble::None, Cure::None, Wait::Schedule)
}

/// Not allowed here: rights to one card, a method the plan does not have.
const fn forbidden(code: &'static str) -> Rule {
    rule(code, FailureClass::NotPermitted, PortalTrouble::None, Cure::None, Wait::Schedule)
}

/// Somebody has to act before anything works.
const fn broken(code: &'static str, trouble: PortalTrouble, cure: Cure) -> Rule {
    rule(code, FailureClass::Misconfigured, trouble, cure, Wait::Schedule)
}

const fn throttled(code: &'static str, wait: Wait) -> Rule {
    rule(code, FailureClass::Throttled, PortalTrouble::None, Cure::None, wait)
}

/// Not done, may work later.
const fn later(code: &'static str) -> Rule {
    rule(code, FailureClass::Unavailable, PortalTrouble::None, Cure::None, Wait::Schedule)
}

const fn broke(code: &'static str) -> Rule {
    Rule { code, verdict: Verdict::Broke, trouble: PortalTrouble::None, cure: Cure::None, wait: Wait::Schedule }
}

/// Errors of a portal's REST.
const REST: &[Rule] = &[
    throttled("query_limit_exceeded", Wait::Bucket),
    throttled("operation_time_limit", Wait::Method),
    throttled("overload_limit", Wait::Long),
    broken("expired_token", PortalTrouble::NeedsAuth, Cure::Refresh),
    broken("invalid_token", PortalTrouble::NeedsAuth, Cure::Refresh),
    broken("no_auth_found", PortalTrouble::NeedsAuth, Cure::Refresh),
    broken("authorization_error", PortalTrouble::NeedsAuth, Cure::OtherToken),
    broken("user_access_error", PortalTrouble::NeedsAuth, Cure::OtherToken),
    broken("application_not_found", PortalTrouble::Uninstalled, Cure::None),
    broken("error_oauth", PortalTrouble::Uninstalled, Cure::None),
    broken("not_installed", PortalTrouble::Uninstalled, Cure::None),
    broken("portal_deleted", PortalTrouble::Uninstalled, Cure::None),
    broken("insufficient_scope", PortalTrouble::Blocked, Cure::None),
    broken("access_denied", PortalTrouble::Blocked, Cure::None),
    broken("payment_required", PortalTrouble::Blocked, Cure::None),
    broken("wrong_auth_type", PortalTrouble::Blocked, Cure::None),
    broken("wrong_license", PortalTrouble::Blocked, Cure::None),
    later("connection_error"),
    later("method_confirm_waiting"),
    forbidden("method_confirm_denied"),
    forbidden("error_method_not_found"),
    broke("internal_server_error"),
    broke("error_unexpected_answer"),
    refused("error_argument"),
    refused("100"),
    refused("invalid_arg_value"),
    refused("error_core"),
    refused(""),
    refused("0"),
    refused("not_found"),
    refused("owner_not_found"),
    // "Https required": the portal refuses plain http.
    broken("invalid_request", PortalTrouble::None, Cure::None),
    refused("wrong_encoding"),
    refused("error_batch_method_not_allowed"),
    refused("error_batch_length_exceeded"),
    refused("error_event_not_found"),
    refused("error_placement_*"),
    refused("empty_error_handler_url"),
    refused("error_unsupported_protocol"),
    refused("error_wrong_handler_url"),
    refused("not_active_line"),
    refused("imconnector_*"),
    refused("provider_unsupported_type_incoming_message"),
    refused("connector_proxy_*"),
    refused("chat_renaming_failed"),
    refused("application_registration_error*"),
    refused("application_unregistration_error"),
    refused("general_connector_registration_error"),
    refused("connector_id_required"),
    refused("name_required"),
    refused("icon_required"),
    refused("no_application_id"),
    refused("no_placement_handler"),
    refused("error_activity_*"),
    refused("error_empty_log_message"),
    refused("error_sender_*"),
    refused("error_message_not_found"),
    refused("error_message_status_incorrect"),
    refused("error_wrong_context"),
    refused("error_wrong_application"),
    refused("error_empty_layout"),
    refused("field_is_required"),
    refused("field_is_redundant"),
    refused("enum_field"),
    refused("too_many_items"),
    refused("key_contain_wrong_symbols"),
    refused("wrong_lang"),
    refused("wrong_field_value"),
    refused("incoming_activity_can_not_be_with_deadline"),
    refused("wrong_datetime_format"),
    refused("chat_not_in_crm"),
    refused("canceled"),
    refused("message_empty"),
    forbidden("access_error"),
    forbidden("docgen_access_error"),
];

/// Errors of the authorization server. `invalid_grant` is about one pair of tokens; whoever holds another goes on.
const OAUTH: &[Rule] = &[
    broken("invalid_grant", PortalTrouble::NeedsAuth, Cure::OtherToken),
    broken("bad_verification_code", PortalTrouble::NeedsAuth, Cure::OtherToken),
    broken("invalid_client", PortalTrouble::NeedsAuth, Cure::None),
    broken("wrong_client", PortalTrouble::NeedsAuth, Cure::None),
    broken("invalid_request", PortalTrouble::NeedsAuth, Cure::None),
    broken("invalid_scope", PortalTrouble::NeedsAuth, Cure::None),
    broken("insufficient_scope", PortalTrouble::Blocked, Cure::None),
    broken("payment_required", PortalTrouble::Blocked, Cure::None),
    broken("not_installed", PortalTrouble::Uninstalled, Cure::None),
    broken("no_auth_found", PortalTrouble::NeedsAuth, Cure::None),
    broken("invalid_token", PortalTrouble::NeedsAuth, Cure::None),
    broken("expired_token", PortalTrouble::NeedsAuth, Cure::None),
    broken("error_oauth", PortalTrouble::Uninstalled, Cure::None),
];

/// Codes that speak of the whole application when they answer a call, but of one card or one method when they stand
/// beside other answers of a batch.
const LOCAL_IN_BATCH: [&str; 4] = ["access_denied", "insufficient_scope", "wrong_auth_type", "wrong_license"];

/// Where an error was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// It answers a whole call to a portal.
    Call,
    /// It answers one entry of a batch.
    Entry,
    /// It answers a call to the authorization server.
    Oauth,
}

/// Why a call has no result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// The other side named an error.
    Said {
        /// Where.
        place: Place,
        /// HTTP status.
        status: u16,
        /// Its code as it came.
        code: String,
        /// Its wording.
        text: String,
    },
    /// An answer that is none of theirs: a gateway's page, a maintenance page, half a document.
    Senseless {
        /// HTTP status.
        status: u16,
    },
    /// A batch was answered, but this entry was not.
    Unanswered,
    /// Answered by a redirect to this address: the portal may have been renamed. Nothing was done.
    Moved(String),
    /// The request surely did not arrive.
    NotConnected(String),
    /// The request may have arrived.
    NoAnswer(String),
    /// The address may not be called.
    Refused(String),
    /// Decided earlier (no token, no store).
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
    /// What can be tried at once.
    pub(super) fn cure(&self) -> Cure {
        self.rule().map_or(Cure::None, |rule| rule.cure)
    }

    /// Which clock says when to try again.
    pub(super) fn wait(&self) -> Wait {
        match self {
            Self::Senseless { status: 429 } => Wait::Bucket,
            Self::Said { .. }
            | Self::Senseless { .. }
            | Self::Unanswered
            | Self::Moved(_)
            | Self::NotConnected(_)
            | Self::NoAnswer(_)
            | Self::Refused(_)
            | Self::Decided(_) => self.rule().map_or(Wait::Schedule, |rule| rule.wait),
        }
    }

    /// True when the other side named this code.
    pub(super) fn is(&self, wanted: &str) -> bool {
        match self {
            Self::Said { code, .. } => code.eq_ignore_ascii_case(wanted),
            Self::Decided(error) => error.code.eq_ignore_ascii_case(wanted),
            Self::Senseless { .. }
            | Self::Unanswered
            | Self::Moved(_)
            | Self::NotConnected(_)
            | Self::NoAnswer(_)
            | Self::Refused(_) => false,
        }
    }

    /// The failure in the pipeline's words. `repeatable` tells whether the request may be sent again without harm.
    pub(super) fn error(&self, repeatable: bool, retry_after: Option<Millis>) -> CrmError {
        let unclear = if repeatable { FailureClass::Unavailable } else { FailureClass::Indeterminate };
        let own = |class: FailureClass, code: &str, text: &str| CrmError {
            class,
            portal: PortalTrouble::None,
            code: code.to_owned(),
            text: shorten(text),
            retry_after,
            reach: Reach::Entry,
        };
        match self {
            Self::Decided(error) => error.clone(),
            Self::NotConnected(text) => own(FailureClass::Unavailable, "not_connected", text),
            Self::NoAnswer(text) => own(unclear, "no_answer", text),
            Self::Refused(text) => own(FailureClass::Misconfigured, "address_refused", text),
            Self::Moved(_) => {
                own(FailureClass::Unavailable, "moved", "a redirect that leads to no place of this portal")
            }
            Self::Unanswered => own(unclear, "no_entry", "the batch was answered without this entry"),
            Self::Senseless { status } => {
                let text = format!("HTTP {status} without a Bitrix24 answer");
                match status {
                    429 => own(FailureClass::Throttled, "http_429", &text),
                    // Something in front of the portal refused; the portal itself saw nothing.
                    400..=499 => own(FailureClass::Unavailable, &format!("http_{status}"), &text),
                    _ => own(unclear, &format!("http_{status}"), &text),
                }
            }
            Self::Said { status, code, text, .. } => {
                let shown = if code.is_empty() { format!("http_{status}") } else { excerpt(code, 60) };
                let Some(rule) = self.rule() else {
                    let class = if *status >= 500 { unclear } else { FailureClass::Rejected };
                    return own(class, &shown, text);
                };
                let class = match rule.verdict {
                    Verdict::Is(class) => class,
                    Verdict::Broke => unclear,
                };
                CrmError { portal: rule.trouble, ..own(class, &shown, text) }
            }
        }
    }

    /// The row that applies; `None` for codes we do not know and for nameless errors of a broken server.
    fn rule(&self) -> Option<Rule> {
        let Self::Said { place, status, code, .. } = self else { return None };
        let code = code.trim().to_ascii_lowercase();
        let nameless = matches!(code.as_str(), "" | "0" | "100" | "error_core");
        if nameless && *status >= 500 {
            return None;
        }
        let table = match place {
            Place::Call | Place::Entry => REST,
            Place::Oauth => OAUTH,
        };
        let found = table.iter().find(|rule| match rule.code.strip_suffix('*') {
            Some(start) => code.starts_with(start),
            None => rule.code == code,
        })?;
        if *place != Place::Entry {
            return Some(*found);
        }
        if LOCAL_IN_BATCH.contains(&code.as_str()) {
            return Some(forbidden(found.code));
        }
        // The call as a whole was let in, so a trouble with the token concerns this entry only and passes.
        Some(match found.cure {
            Cure::None => *found,
            Cure::Refresh | Cure::OtherToken => later(found.code),
        })
    }
}

/// Reads an answer: the whole document when it carries a result.
pub(super) fn read_answer(answer: &Answer, place: Place) -> Result<Value, Fault> {
    let status = answer.status;
    let Ok(document) = serde_json::from_slice::<Value>(&answer.body) else {
        return Err(Fault::Senseless { status });
    };
    if !document.is_object() {
        return Err(Fault::Senseless { status });
    }
    match read_error(&document) {
        Some((code, text)) if status >= 400 || is_real(&document, &code, &text) => {
            Err(Fault::Said { place, status, code, text })
        }
        Some(_) | None if status >= 300 => Err(Fault::Senseless { status }),
        Some(_) | None => Ok(document),
    }
}

/// Code and wording of an error object; `None` when it is none.
pub(super) fn read_error(document: &Value) -> Option<(String, String)> {
    let error = member(document, "error").filter(|error| !error.is_null())?;
    let wording = |value: &Value, key: &str| member(value, key).and_then(text).unwrap_or_default();
    if error.is_object() {
        return Some((wording(error, "code"), wording(error, "message")));
    }
    let described = wording(document, "error_description");
    let described = if described.is_empty() { wording(document, "error_message") } else { described };
    Some((text(error).unwrap_or_default(), described))
}

/// A good answer may carry an empty `error` beside its result; anything more is an error, whatever the status.
fn is_real(document: &Value, code: &str, text: &str) -> bool {
    !code.is_empty() || !text.is_empty() || member(document, "result").is_none()
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, headers: HeaderMap::new(), body: body.as_bytes().to_vec() }
    }

    fn fault(place: Place, status: u16, body: &str) -> Fault {
        read_answer(&answer(status, body), place).unwrap_err()
    }

    fn said(place: Place, code: &str, status: u16) -> Fault {
        Fault::Said { place, status, code: code.to_owned(), text: "text".to_owned() }
    }

    #[test]
    fn codes_decide_whatever_the_status() {
        use Cure::{None as Nothing, OtherToken, Refresh};
        use FailureClass::{Indeterminate, Misconfigured, NotPermitted, Rejected, Throttled, Unavailable};
        use PortalTrouble::{Blocked, NeedsAuth, None as Fine, Uninstalled};
        use Wait::{Bucket, Long, Method, Schedule};
        let rows = [
            ("QUERY_LIMIT_EXCEEDED", Throttled, Fine, Nothing, Bucket),
            ("OPERATION_TIME_LIMIT", Throttled, Fine, Nothing, Method),
            ("OVERLOAD_LIMIT", Throttled, Fine, Nothing, Long),
            ("expired_token", Misconfigured, NeedsAuth, Refresh, Schedule),
            ("EXPIRED_TOKEN", Misconfigured, NeedsAuth, Refresh, Schedule),
            ("invalid_token", Misconfigured, NeedsAuth, Refresh, Schedule),
            ("NO_AUTH_FOUND", Misconfigured, NeedsAuth, Refresh, Schedule),
            ("authorization_error", Misconfigured, NeedsAuth, OtherToken, Schedule),
            ("user_access_error", Misconfigured, NeedsAuth, OtherToken, Schedule),
            ("APPLICATION_NOT_FOUND", Misconfigured, Uninstalled, Nothing, Schedule),
            ("ERROR_OAUTH", Misconfigured, Uninstalled, Nothing, Schedule),
            ("NOT_INSTALLED", Misconfigured, Uninstalled, Nothing, Schedule),
            ("PORTAL_DELETED", Misconfigured, Uninstalled, Nothing, Schedule),
            ("insufficient_scope", Misconfigured, Blocked, Nothing, Schedule),
            ("ACCESS_DENIED", Misconfigured, Blocked, Nothing, Schedule),
            ("PAYMENT_REQUIRED", Misconfigured, Blocked, Nothing, Schedule),
            ("WRONG_AUTH_TYPE", Misconfigured, Blocked, Nothing, Schedule),
            ("WRONG_LICENSE", Misconfigured, Blocked, Nothing, Schedule),
            ("CONNECTION_ERROR", Unavailable, Fine, Nothing, Schedule),
            ("METHOD_CONFIRM_WAITING", Unavailable, Fine, Nothing, Schedule),
            ("METHOD_CONFIRM_DENIED", NotPermitted, Fine, Nothing, Schedule),
            ("ERROR_METHOD_NOT_FOUND", NotPermitted, Fine, Nothing, Schedule),
            ("INTERNAL_SERVER_ERROR", Indeterminate, Fine, Nothing, Schedule),
            ("ERROR_UNEXPECTED_ANSWER", Indeterminate, Fine, Nothing, Schedule),
            ("INVALID_REQUEST", Misconfigured, Fine, Nothing, Schedule),
            ("NOT_FOUND", Rejected, Fine, Nothing, Schedule),
            ("OWNER_NOT_FOUND", Rejected, Fine, Nothing, Schedule),
            ("ERROR_ARGUMENT", Rejected, Fine, Nothing, Schedule),
            ("100", Rejected, Fine, Nothing, Schedule),
            ("", Rejected, Fine, Nothing, Schedule),
            ("0", Rejected, Fine, Nothing, Schedule),
            ("ERROR_CORE", Rejected, Fine, Nothing, Schedule),
            ("ERROR_ACTIVITY_ALREADY_INSTALLED", Rejected, Fine, Nothing, Schedule),
            ("IMCONNECTOR_ANYTHING", Rejected, Fine, Nothing, Schedule),
            ("ACCESS_ERROR", NotPermitted, Fine, Nothing, Schedule),
            ("SOMETHING_NEW", Rejected, Fine, Nothing, Schedule),
        ];
        for (code, class, trouble, cure, wait) in rows {
            for status in [200, 400, 403] {
                let fault = said(Place::Call, code, status);
                let error = fault.error(false, None);
                assert_eq!((error.class, error.portal), (class, trouble), "{code}");
                assert_eq!((fault.cure(), fault.wait()), (cure, wait), "{code}");
            }
        }
    }

    #[test]
    fn every_row_is_reached_by_its_own_code() {
        for table in [REST, OAUTH] {
            for (at, rule) in table.iter().enumerate() {
                assert_eq!(rule.code, rule.code.to_ascii_lowercase());
                let code = rule.code.replace('*', "x");
                let first = table.iter().position(|other| match other.code.strip_suffix('*') {
                    Some(start) => code.starts_with(start),
                    None => other.code == code,
                });
                assert_eq!(first, Some(at), "{}", rule.code);
            }
        }
    }

    #[test]
    fn oauth_errors_have_their_own_meaning() {
        let rows = [
            ("invalid_grant", PortalTrouble::NeedsAuth, Cure::OtherToken),
            ("wrong_client", PortalTrouble::NeedsAuth, Cure::None),
            ("invalid_client", PortalTrouble::NeedsAuth, Cure::None),
            ("invalid_request", PortalTrouble::NeedsAuth, Cure::None),
            ("invalid_scope", PortalTrouble::NeedsAuth, Cure::None),
            ("insufficient_scope", PortalTrouble::Blocked, Cure::None),
            ("PAYMENT_REQUIRED", PortalTrouble::Blocked, Cure::None),
            ("NOT_INSTALLED", PortalTrouble::Uninstalled, Cure::None),
            ("ERROR_OAUTH", PortalTrouble::Uninstalled, Cure::None),
            ("NO_AUTH_FOUND", PortalTrouble::NeedsAuth, Cure::None),
            ("bad_verification_code", PortalTrouble::NeedsAuth, Cure::OtherToken),
        ];
        for (code, trouble, cure) in rows {
            let fault = said(Place::Oauth, code, 200);
            assert_eq!((fault.error(true, None).portal, fault.cure()), (trouble, cure), "{code}");
            assert_eq!(fault.error(true, None).class, FailureClass::Misconfigured, "{code}");
        }
    }

    #[test]
    fn inside_a_batch_rights_concern_one_card() {
        for code in ["ACCESS_DENIED", "insufficient_scope", "WRONG_LICENSE"] {
            let error = said(Place::Entry, code, 200).error(false, None);
            assert_eq!((error.class, error.portal), (FailureClass::NotPermitted, PortalTrouble::None), "{code}");
        }
        let token = said(Place::Entry, "expired_token", 200).error(false, None);
        assert_eq!((token.class, token.portal), (FailureClass::Unavailable, PortalTrouble::None));
        let gone = said(Place::Entry, "APPLICATION_NOT_FOUND", 200).error(false, None);
        assert_eq!(gone.portal, PortalTrouble::Uninstalled);
    }

    #[test]
    fn errors_are_found_in_every_shape() {
        let code = |status, body| {
            let Fault::Said { code, text, .. } = fault(Place::Call, status, body) else { panic!("{body}") };
            (code, text)
        };
        let pair = |code: &str, text: &str| (code.to_owned(), text.to_owned());
        assert_eq!(code(400, r#"{"error":"","error_description":"Not found"}"#), pair("", "Not found"));
        assert_eq!(code(400, r#"{"error":0}"#), pair("0", ""));
        assert_eq!(code(400, r#"{"error":100,"error_description":"x"}"#), pair("100", "x"));
        assert_eq!(
            code(200, r#"{"result":false,"error":"CONNECTOR_ID_REQUIRED","error_description":"x"}"#),
            pair("CONNECTOR_ID_REQUIRED", "x")
        );
        assert_eq!(code(200, r#"{"error":"wrong_client"}"#), pair("wrong_client", ""));
        assert_eq!(code(401, r#"{"error":{"code":"X","message":"y"}}"#), pair("X", "y"));
        assert!(read_answer(&answer(200, r#"{"result":true,"error":""}"#), Place::Call).is_ok());
        assert!(read_answer(&answer(200, r#"{"result":[]}"#), Place::Call).is_ok());
        assert!(read_answer(&answer(200, r#"{"result":{},"error":null}"#), Place::Call).is_ok());
    }

    #[test]
    fn a_broken_server_leaves_unrepeatable_calls_unclear() {
        let page = "<html>Bad gateway</html>";
        for (status, body) in [(502, page), (504, ""), (500, page), (200, page), (200, "[]"), (500, "{}")] {
            let fault = fault(Place::Call, status, body);
            assert_eq!(fault.error(true, None).class, FailureClass::Unavailable, "{status} {body}");
            assert_eq!(fault.error(false, None).class, FailureClass::Indeterminate, "{status} {body}");
        }
        assert_eq!(fault(Place::Call, 404, page).error(false, None).class, FailureClass::Unavailable);
        assert_eq!(fault(Place::Call, 429, page).error(false, None).class, FailureClass::Throttled);
        assert_eq!(fault(Place::Call, 429, page).wait(), Wait::Bucket);
        let nameless = fault(Place::Call, 500, r#"{"error":"","error_description":"x"}"#);
        assert_eq!(nameless.error(false, None).class, FailureClass::Indeterminate);
        assert_eq!(nameless.error(false, None).code, "http_500");
    }

    #[test]
    fn transport_errors_say_whether_it_was_done() {
        let class = |error: CallError, repeatable| Fault::from(error).error(repeatable, None).class;
        assert_eq!(class(CallError::NotConnected(String::new()), false), FailureClass::Unavailable);
        assert_eq!(class(CallError::NoAnswer(String::new()), false), FailureClass::Indeterminate);
        assert_eq!(class(CallError::NoAnswer(String::new()), true), FailureClass::Unavailable);
        assert_eq!(class(CallError::Refused(String::new()), true), FailureClass::Misconfigured);
        assert_eq!(Fault::Unanswered.error(false, None).class, FailureClass::Indeterminate);
    }
}
