//! What each of the vendor's error codes means for a message.
//!
//! The vendor asks to decide on `error.code` and, for words, on `error_data.details`; titles and HTTP statuses may
//! change. Most send failures come later, in a status webhook and after a 200, so both paths read the same table.
//!
//! Sources: Meta, WhatsApp Business Platform, "Error codes" (2026 edition), "Rate limits", "Webhooks for Groups API"
//! (errors); read 2026-11.

use serde_json::Value;

use crate::domain::outcome::{ErrorCode, Failure, FailureClass, SendError, ThrottleScope};
use crate::domain::time::Millis;
use crate::outbound::Answer;
use crate::providers::failures::{self, DEFAULT_WAIT, DETAIL_MAX, RAW_MAX, SCAN_MAX, Secrets};

use FailureClass::{Misconfigured, NotPermitted, Rejected, Throttled, Unavailable};

/// The limit of one sender towards one recipient.
const PAIR_LIMIT: i64 = 131_056;

/// One line of the table: a code, or a range of codes, and the decision.
pub(super) struct Row {
    /// First code it speaks of.
    pub(super) first: i64,
    /// Last code it speaks of; equal to `first` for a single code.
    pub(super) last: i64,
    /// What the pipeline does.
    pub(super) class: FailureClass,
    /// What people are told.
    pub(super) error: ErrorCode,
    /// How long to wait when the answer itself names no time; given where the repetition is a matter of time.
    pub(super) wait: Option<Millis>,
}

const fn row(code: i64, class: FailureClass, error: ErrorCode) -> Row {
    Row { first: code, last: code, class, error, wait: None }
}

const fn rows(first: i64, last: i64, class: FailureClass, error: ErrorCode) -> Row {
    Row { first, last, class, error, wait: None }
}

const fn throttled(code: i64, wait: Millis) -> Row {
    Row { first: code, last: code, class: Throttled, error: ErrorCode::Rejected, wait: Some(wait) }
}

/// Every code that can concern sending. Codes of other parts of the API (registration of templates, block list,
/// usernames, flows, calling, coexistence) fall under the rule for unknown codes, [`of_answer`].
///
/// Throttled and unavailable rows say `Rejected` to people, which they read only when such a code ends a message for
/// good in a status webhook; a try that may be repeated shows nothing.
pub(super) const ERRORS: &[Row] = &[
    // The token: expired, revoked, absent, or without the permission. 200 is also "no token given".
    row(0, Misconfigured, ErrorCode::Misconfigured),
    row(3, Misconfigured, ErrorCode::Misconfigured),
    row(10, Misconfigured, ErrorCode::Misconfigured),
    row(190, Misconfigured, ErrorCode::Misconfigured),
    rows(200, 299, Misconfigured, ErrorCode::Misconfigured),
    row(131_005, Misconfigured, ErrorCode::Misconfigured),
    // The sender: wrong or deleted number, policy block, lock, unapproved name, unpaid account, not registered.
    row(33, Misconfigured, ErrorCode::Misconfigured),
    row(368, Misconfigured, ErrorCode::Misconfigured),
    row(131_031, Misconfigured, ErrorCode::Misconfigured),
    row(131_037, Misconfigured, ErrorCode::Misconfigured),
    row(131_042, Misconfigured, ErrorCode::Misconfigured),
    row(131_044, Misconfigured, ErrorCode::Misconfigured),
    row(131_045, Misconfigured, ErrorCode::Misconfigured),
    row(133_000, Misconfigured, ErrorCode::Misconfigured),
    rows(133_005, 133_006, Misconfigured, ErrorCode::Misconfigured),
    rows(133_008, 133_010, Misconfigured, ErrorCode::Misconfigured),
    rows(133_015, 133_016, Misconfigured, ErrorCode::Misconfigured),
    // The vendor is down or stumbled; its own table asks for a repetition, so it was not sent.
    row(1, Unavailable, ErrorCode::Rejected),
    row(2, Unavailable, ErrorCode::Rejected),
    row(131_000, Unavailable, ErrorCode::Rejected),
    row(131_016, Unavailable, ErrorCode::Rejected),
    row(133_004, Unavailable, ErrorCode::Rejected),
    // Too much: of the app, of the account, of the number, towards one person.
    throttled(4, Millis::minutes(1)),
    throttled(80_007, Millis::minutes(5)),
    throttled(130_429, Millis::seconds(2)),
    throttled(131_048, Millis::minutes(10)), // Spam limit of the number: falls with its quality, so soon is too soon.
    throttled(131_056, Millis::seconds(6)),  // Pair rate: one per six seconds, sustained.
    throttled(131_057, Millis::minutes(1)),  // Throughput upgrade of the number: at most a minute, says the vendor.
    throttled(131_064, Millis::minutes(10)), // Limit after wrong template categories.
    throttled(132_069, Millis::minutes(1)),  // Flow throttled.
    throttled(134_101, Millis::minutes(10)), // Template still syncing.
    throttled(131_208, Millis::minutes(1)),  // Group operations.
    // The window, and what the person allows.
    row(131_047, NotPermitted, ErrorCode::WindowClosed),
    row(130_403, Rejected, ErrorCode::OptedOut),
    row(131_050, Rejected, ErrorCode::OptedOut),
    // The recipient. 131026 is deliberately ambiguous: no account, terms not accepted, or a client too old.
    row(131_026, Rejected, ErrorCode::NotOnMessenger),
    row(131_203, Rejected, ErrorCode::NotOnMessenger),
    row(131_021, Rejected, ErrorCode::Rejected), // Sender and recipient are the same number.
    row(131_030, Rejected, ErrorCode::Rejected), // A test number writes to its allow list only.
    row(130_472, Rejected, ErrorCode::Rejected), // The person is in an experiment; must not be repeated.
    row(131_049, Rejected, ErrorCode::Rejected), // Per-person marketing cap; earliest after a day, so not ours to retry.
    row(130_497, Rejected, ErrorCode::Rejected), // Country not open to this business.
    row(137_000, Rejected, ErrorCode::Rejected), // Identity of the person changed.
    // The template. A paused one may come back, so that is a rule of the moment.
    row(132_000, Rejected, ErrorCode::TemplateParams),
    row(132_008, Rejected, ErrorCode::TemplateParams),
    row(132_012, Rejected, ErrorCode::TemplateParams),
    row(132_018, Rejected, ErrorCode::TemplateParams),
    row(132_001, Rejected, ErrorCode::TemplateNotFound),
    row(132_007, Rejected, ErrorCode::TemplateNotFound),
    row(132_015, NotPermitted, ErrorCode::TemplateNotFound),
    row(132_016, Rejected, ErrorCode::TemplateNotFound),
    row(134_102, Rejected, ErrorCode::TemplateNotFound),
    row(132_005, Rejected, ErrorCode::TooLong),
    row(131_058, Rejected, ErrorCode::Rejected), // `hello_world` leaves public test numbers only.
    row(131_063, Rejected, ErrorCode::Unsupported), // Marketing templates need the vendor's other endpoint.
    row(134_100, Rejected, ErrorCode::Unsupported),
    row(132_068, Rejected, ErrorCode::Rejected), // Flow blocked.
    // The content.
    row(131_051, Rejected, ErrorCode::Unsupported),
    row(131_062, Rejected, ErrorCode::Unsupported), // This kind cannot go to a person whose phone is hidden.
    row(131_052, Rejected, ErrorCode::FileType),
    row(131_053, Rejected, ErrorCode::FileType),
    row(100, Rejected, ErrorCode::Rejected),
    row(131_008, Rejected, ErrorCode::Rejected),
    row(131_009, Rejected, ErrorCode::Rejected),
    row(131_055, Rejected, ErrorCode::Rejected),
    row(134_011, Rejected, ErrorCode::Rejected),
    row(135_000, Rejected, ErrorCode::Rejected),
    // Groups.
    row(131_020, Rejected, ErrorCode::Rejected),
    row(131_041, Rejected, ErrorCode::Rejected),
    rows(131_201, 131_202, Rejected, ErrorCode::Rejected),
    row(131_204, Rejected, ErrorCode::Rejected),
    row(131_207, Rejected, ErrorCode::Rejected),
    rows(131_211, 131_213, Rejected, ErrorCode::Rejected),
    rows(131_214, 131_215, Rejected, ErrorCode::Unsupported),
];

/// Code and subcode of "no such object": what a mistyped `phone_number_id` gets, although 100 alone speaks of the
/// message. Without this every message would be refused one by one instead of the channel being paused once.
const NO_SUCH_OBJECT: (i64, i64) = (100, 33);

/// The vendor's error object, reduced to what decides.
struct VendorError {
    code: i64,
    subcode: i64,
    words: String,
    transient: bool,
}

impl VendorError {
    /// Reads one error object; `None` when it has no code, and therefore is not the vendor's.
    fn read(error: &Value) -> Option<Self> {
        let words = ["/error_data/details", "/message", "/title"]
            .into_iter()
            .filter_map(|path| error.pointer(path)?.as_str())
            .find(|words| !words.trim().is_empty());
        Some(Self {
            code: number(error.get("code")?)?,
            subcode: error.get("error_subcode").and_then(number).unwrap_or_default(),
            words: words.unwrap_or_default().to_owned(),
            transient: error.get("is_transient").and_then(Value::as_bool).unwrap_or_default(),
        })
    }

    fn row(&self) -> Option<&'static Row> {
        let meant = if (self.code, self.subcode) == NO_SUCH_OBJECT { self.subcode } else { self.code };
        find(meant)
    }
}

/// A whole number, also in quotation marks.
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// The line that speaks of a code.
fn find(code: i64) -> Option<&'static Row> {
    ERRORS.iter().find(|row| (row.first..=row.last).contains(&code))
}

/// Judges an answer that is not an acceptance.
///
/// The vendor's code decides where the table knows it, whatever the HTTP status. Otherwise: 503 is `Unavailable` with
/// any body, 429 is `Throttled`; a 4xx refused this message; a 5xx of the vendor is `Indeterminate` unless it calls
/// itself transient; a 5xx that is not the vendor's JSON came from a gateway, and nobody knows how far the request got.
/// A 2xx without a message id is `Indeterminate` and counts as the vendor's own, because somebody said yes to the send.
pub(super) fn of_answer(answer: &Answer, secrets: &Secrets<'_>) -> SendError {
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let vendor = body.as_ref().and_then(|body| VendorError::read(body.get("error")?));
    let row = vendor.as_ref().and_then(VendorError::row);
    let status = answer.status;
    let ours = vendor.is_some();
    let (class, error) = match (row, status) {
        (Some(row), _) => (row.class, row.error),
        (None, 503) => (Unavailable, ErrorCode::Expired),
        (None, 429) => (Throttled, ErrorCode::Rejected),
        (None, 200..=299) if ours => (Rejected, ErrorCode::Rejected),
        (None, 500..) if vendor.as_ref().is_some_and(|error| error.transient) => (Unavailable, ErrorCode::Expired),
        // A redirect, or a refusal to talk that is not the vendor's: a wrong address or a gateway that wants a login.
        (None, 300..=399) => (Misconfigured, ErrorCode::Misconfigured),
        (None, 401 | 403 | 407) if !ours => (Misconfigured, ErrorCode::Misconfigured),
        (None, 408 | 425) if !ours => (Unavailable, ErrorCode::Expired),
        (None, 400..=499) => (Rejected, ErrorCode::Rejected),
        (None, _) => (FailureClass::Indeterminate, ErrorCode::Undecided),
    };
    let asked = failures::asked_wait(answer);
    let retry_after = match class {
        Throttled => asked.or(row.and_then(|row| row.wait)).or(Some(DEFAULT_WAIT)),
        Unavailable => asked,
        Rejected | NotPermitted | Misconfigured | FailureClass::Indeterminate => None,
    };
    // The pair limit concerns one recipient; every other limit the whole number.
    let pair_limit = vendor.as_ref().is_some_and(|error| error.code == PAIR_LIMIT);
    let vendor_scope = if pair_limit { ThrottleScope::Peer } else { ThrottleScope::Channel };
    let words = match &vendor {
        Some(error) if !error.words.is_empty() => error.words.clone(),
        Some(_) | None => format!("HTTP {status}"),
    };
    SendError {
        class,
        failure: Failure::with(error, secrets.hide(&words, DETAIL_MAX)),
        vendor_code: vendor.map(|error| error.code.to_string()).unwrap_or_default(),
        raw: secrets.hide(&answer.text(SCAN_MAX), RAW_MAX),
        retry_after,
        answered_by_gateway: class == FailureClass::Indeterminate && !ours && !(200..=299).contains(&status),
        scope: vendor_scope,
    }
}

/// Reads the `errors` of a failed status: the failure and the vendor's code.
///
/// Shape: an array of error objects without the outer `error`; the first one counts. Unknown codes are `Rejected` with
/// the vendor's words.
pub(super) fn of_status(errors: &Value, secrets: &Secrets<'_>) -> (Failure, String) {
    let Some(error) = errors.get(0).and_then(VendorError::read) else {
        return (Failure::new(ErrorCode::Rejected), String::new());
    };
    let code = error.row().map_or(ErrorCode::Rejected, |row| row.error);
    (Failure::with(code, secrets.hide(&error.words, DETAIL_MAX)), error.code.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::outbound::CallError;
    use crate::providers::failures::{of_call, of_reading};

    const NONE: Secrets<'static> = Secrets(Vec::new());

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, headers: Default::default(), body: body.as_bytes().to_vec() }
    }

    fn judged(status: u16, body: &str) -> (FailureClass, ErrorCode, bool) {
        let error = of_answer(&answer(status, body), &NONE);
        (error.class, error.failure.code, error.answered_by_gateway)
    }

    #[test]
    fn no_code_stands_in_two_rows() {
        for (place, row) in ERRORS.iter().enumerate() {
            assert!(row.first <= row.last);
            for other in ERRORS.iter().skip(place + 1) {
                assert!(row.last < other.first || other.last < row.first, "{} and {}", row.first, other.first);
            }
        }
    }

    #[test]
    fn every_throttle_has_a_wait_and_nothing_else_has() {
        for row in ERRORS {
            assert_eq!(row.class == Throttled, row.wait.is_some(), "{}", row.first);
        }
    }

    #[test]
    fn every_documented_code_of_sending_has_a_row() {
        let messages = [
            0, 1, 2, 3, 4, 10, 33, 100, 190, 200, 250, 299, 368, 80007, 130403, 130429, 130472, 130497, 131000, 131005,
            131008, 131009, 131016, 131021, 131026, 131030, 131031, 131037, 131042, 131044, 131045, 131047, 131048,
            131049, 131050, 131051, 131052, 131053, 131055, 131056, 131057, 131058, 131062, 131063, 131064, 132000,
            132001, 132005, 132007, 132008, 132012, 132015, 132016, 132018, 132068, 132069, 133000, 133004, 133005,
            133006, 133008, 133009, 133010, 133015, 133016, 134011, 134100, 134101, 134102, 135000, 137000,
        ];
        let groups =
            [131020, 131041, 131201, 131202, 131203, 131204, 131207, 131208, 131211, 131212, 131213, 131214, 131215];
        for code in messages.into_iter().chain(groups) {
            assert!(find(code).is_some(), "{code}");
        }
        assert!(find(139_100).is_none() && find(300).is_none());
    }

    #[test]
    fn codes_that_must_never_be_repeated_are_final() {
        for code in [131_049, 131_050, 130_472] {
            assert_eq!(find(code).unwrap().class, Rejected, "{code}");
        }
    }

    #[test]
    fn the_code_decides_whatever_the_status_says() {
        for status in [200, 400, 403, 429, 500, 503] {
            let (class, code, _) = judged(status, r#"{"error":{"code":131047,"message":"late"}}"#);
            assert_eq!((class, code), (NotPermitted, ErrorCode::WindowClosed), "{status}");
        }
        assert_eq!(judged(400, r#"{"error":{"code":"190"}}"#).0, Misconfigured);
    }

    #[test]
    fn unknown_codes_follow_the_status() {
        let unknown = r#"{"error":{"code":999999,"message":"new"}}"#;
        assert_eq!(judged(400, unknown), (Rejected, ErrorCode::Rejected, false));
        assert_eq!(judged(403, unknown), (Rejected, ErrorCode::Rejected, false));
        assert_eq!(judged(200, unknown), (Rejected, ErrorCode::Rejected, false));
        assert_eq!(judged(500, unknown), (FailureClass::Indeterminate, ErrorCode::Undecided, false));
        assert_eq!(judged(429, unknown).0, Throttled);
        assert_eq!(judged(503, unknown).0, Unavailable);
        let transient = r#"{"error":{"code":999999,"is_transient":true}}"#;
        assert_eq!(judged(500, transient).0, Unavailable);
    }

    #[test]
    fn pages_of_gateways_are_told_from_the_vendor() {
        for body in ["<html>bad gateway</html>", "", r#"{"message":"no upstream"}"#, r#"{"error":"down"}"#] {
            for status in [500, 502, 504, 520] {
                assert_eq!(judged(status, body), (FailureClass::Indeterminate, ErrorCode::Undecided, true), "{status}");
            }
            assert_eq!(judged(503, body).0, Unavailable);
            assert_eq!(judged(200, body), (FailureClass::Indeterminate, ErrorCode::Undecided, false));
            assert_eq!(judged(404, body).0, Rejected);
            assert_eq!(judged(403, body).0, Misconfigured);
            assert_eq!(judged(408, body).0, Unavailable);
            assert_eq!(judged(302, body).0, Misconfigured);
        }
    }

    #[test]
    fn a_missing_object_is_the_channels_fault_and_not_the_messages() {
        let body = r#"{"error":{"code":100,"error_subcode":33,"message":"no such object"}}"#;
        let error = of_answer(&answer(400, body), &NONE);
        assert_eq!((error.class, error.vendor_code.as_str()), (Misconfigured, "100"));
    }

    #[test]
    fn the_vendors_particulars_are_shown_and_cut() {
        let details = "д".repeat(400);
        let body = json!({"error": {"code": 131009, "message": "short", "error_data": {"details": details}}});
        let error = of_answer(&answer(400, &body.to_string()), &NONE);
        assert_eq!(error.failure.detail.chars().count(), DETAIL_MAX);
        let long = format!(r#"{{"error":{{"code":1,"message":"{}"}}}}"#, "x".repeat(5000));
        assert_eq!(of_answer(&answer(500, &long), &NONE).raw.chars().count(), RAW_MAX);
    }

    #[test]
    fn a_quoted_token_is_blotted_out_even_at_the_cut() {
        let secrets = Secrets(vec!["EAAG/secret/token"]);
        let body = r#"{"error":{"code":190,"message":"Malformed access token EAAG\/secret\/token"}}"#;
        let error = of_answer(&answer(401, body), &secrets);
        assert_eq!(error.failure.detail, "Malformed access token •••");
        assert!(!error.raw.contains("secret"), "{}", error.raw);
        let late = format!("{}EAAG/secret/token", "x".repeat(RAW_MAX - 8));
        assert!(!of_answer(&answer(502, &late), &secrets).raw.contains("EAAG"));
    }

    #[test]
    fn reading_is_never_unclear() {
        let error = of_reading(of_call(&CallError::NoAnswer("cut".into()), &NONE));
        assert_eq!((error.class, error.failure.code), (Unavailable, ErrorCode::Expired));
        let gateway = of_reading(of_answer(&answer(502, "<html>"), &NONE));
        assert!(gateway.class == Unavailable && !gateway.answered_by_gateway);
    }

    #[test]
    fn failed_statuses_read_the_same_table() {
        let errors = json!([{"code": 131026, "title": "Message undeliverable", "message": "Message undeliverable",
            "error_data": {"details": "Unable to deliver"}}]);
        let (failure, code) = of_status(&errors, &NONE);
        assert_eq!((failure.code, failure.detail.as_str()), (ErrorCode::NotOnMessenger, "Unable to deliver"));
        assert_eq!(code, "131026");
        assert_eq!(of_status(&json!([{"code": 1, "title": "odd"}]), &NONE).0.detail, "odd");
        assert_eq!(of_status(&Value::Null, &NONE).0, Failure::new(ErrorCode::Rejected));
    }
}
