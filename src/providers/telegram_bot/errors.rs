//! What each of the vendor's refusals means for a message.
//!
//! There is one number per kind of refusal, the HTTP status, and words; the number decides first, then a piece of the words
//! in lower case. Numbers and words that are not here keep the vendor's text and follow the number alone.
//!
//! Sources: Telegram, "Bot API", "Making requests" and `ResponseParameters`; error texts of the published server and of
//! client libraries that list them; read 2026-11.

use serde_json::Value;

use crate::domain::outcome::{ErrorCode, Failure, FailureClass, SendError, ThrottleScope};
use crate::domain::time::Millis;
use crate::outbound::Answer;
use crate::providers::failures::{self, DEFAULT_WAIT, DETAIL_MAX, RAW_MAX, SCAN_MAX, Secrets};

use FailureClass::{Indeterminate, Misconfigured, NotPermitted, Rejected, Throttled, Unavailable};

/// One line of the table.
pub(super) struct Row {
    /// The number.
    pub(super) code: i64,
    /// Words that must be in the description, in lower case; empty for whatever else has this number.
    pub(super) words: &'static str,
    /// What the pipeline does.
    pub(super) class: FailureClass,
    /// What people are told.
    pub(super) error: ErrorCode,
}

const fn row(code: i64, words: &'static str, class: FailureClass, error: ErrorCode) -> Row {
    Row { code, words, class, error }
}

/// Every refusal that can concern sending or the webhook; the first line that fits decides.
pub(super) const ERRORS: &[Row] = &[
    // The token: revoked, or none at all.
    row(401, "", Misconfigured, ErrorCode::Misconfigured),
    row(404, "", Misconfigured, ErrorCode::Misconfigured),
    // The person has never opened the bot, or the number is nobody's; nobody can tell which.
    row(400, "chat not found", NotPermitted, ErrorCode::CannotWriteFirst),
    row(400, "peer_id_invalid", NotPermitted, ErrorCode::CannotWriteFirst),
    row(400, "user not found", NotPermitted, ErrorCode::CannotWriteFirst),
    row(400, "have no access to the user", NotPermitted, ErrorCode::CannotWriteFirst),
    row(403, "can't initiate conversation", NotPermitted, ErrorCode::CannotWriteFirst),
    // The person does not want to hear of us, or is gone.
    row(403, "bot was blocked by the user", Rejected, ErrorCode::OptedOut),
    row(403, "user is deactivated", Rejected, ErrorCode::NotOnMessenger),
    row(403, "can't send messages to bots", Rejected, ErrorCode::NotOnMessenger),
    // The group: thrown out, gone, or under another number, which the answer names.
    row(403, "bot was kicked", Rejected, ErrorCode::NotInGroup),
    row(403, "bot is not a member", Rejected, ErrorCode::NotInGroup),
    row(403, "chat was deleted", Rejected, ErrorCode::NotInGroup),
    row(400, "upgraded to a supergroup", Rejected, ErrorCode::GroupMoved),
    row(400, "not enough rights", NotPermitted, ErrorCode::NotInGroup),
    row(400, "chat_admin_required", NotPermitted, ErrorCode::NotInGroup),
    row(400, "need administrator rights", NotPermitted, ErrorCode::NotInGroup),
    row(400, "chat_write_forbidden", NotPermitted, ErrorCode::NotInGroup),
    row(400, "topic_closed", NotPermitted, ErrorCode::NotInGroup),
    // A message that cannot be changed or deleted, or not any more.
    row(400, "message to edit not found", Rejected, ErrorCode::CannotChange),
    row(400, "message can't be edited", Rejected, ErrorCode::CannotChange),
    row(400, "message can't be deleted", Rejected, ErrorCode::CannotChange),
    // The content.
    row(400, "message text is empty", Rejected, ErrorCode::NoContent),
    row(400, "message is too long", Rejected, ErrorCode::TooLong),
    row(400, "message_too_long", Rejected, ErrorCode::TooLong),
    row(400, "caption is too long", Rejected, ErrorCode::TooLong),
    row(400, "can't parse entities", Rejected, ErrorCode::Rejected),
    row(400, "file is too big", Rejected, ErrorCode::FileTooLarge),
    row(413, "", Rejected, ErrorCode::FileTooLarge),
    row(400, "failed to get http url content", Rejected, ErrorCode::FileType),
    row(400, "wrong type of the web page content", Rejected, ErrorCode::FileType),
    row(400, "wrong file identifier", Rejected, ErrorCode::FileType),
    row(400, "wrong file_id", Rejected, ErrorCode::FileType),
    row(400, "photo_invalid_dimensions", Rejected, ErrorCode::FileType),
    row(400, "", Rejected, ErrorCode::Rejected),
    row(403, "", Rejected, ErrorCode::Rejected),
    // Somebody else works with the same bot at this moment; it passes, and nothing was done.
    row(409, "", Unavailable, ErrorCode::Rejected),
    // A limit of one chat may be that of the whole bot, and the answer does not say which: everybody waits.
    row(429, "", Throttled, ErrorCode::Rejected),
];

/// The vendor's refusal, reduced to what decides.
struct VendorError {
    code: i64,
    words: String,
    retry_after: Option<Millis>,
    moved_to: Option<i64>,
}

impl VendorError {
    /// Reads an answer; `None` when it is not the vendor's.
    fn read(answer: &Answer) -> Option<Self> {
        let body: Value = serde_json::from_slice(&answer.body).ok()?;
        if body.get("ok")?.as_bool()? {
            return None;
        }
        let seconds = body.pointer("/parameters/retry_after").and_then(Value::as_i64).filter(|wait| *wait > 0);
        Some(Self {
            code: body.get("error_code")?.as_i64()?,
            words: body.get("description").and_then(Value::as_str).unwrap_or_default().to_owned(),
            retry_after: seconds.map(|seconds| Millis(seconds.saturating_mul(1000))),
            moved_to: body.pointer("/parameters/migrate_to_chat_id").and_then(Value::as_i64),
        })
    }

    fn row(&self) -> Option<&'static Row> {
        let words = self.words.to_lowercase();
        ERRORS.iter().find(|row| row.code == self.code && words.contains(row.words))
    }
}

/// True when a change is refused because it has been carried out before.
pub(super) fn is_done_before(answer: &Answer) -> bool {
    let done = ["message is not modified", "message to delete not found"];
    VendorError::read(answer).is_some_and(|error| {
        let words = error.words.to_lowercase();
        error.code == 400 && done.iter().any(|own| words.contains(own))
    })
}

/// Judges an answer that is not an acceptance.
///
/// 503 is `Unavailable` with any body. Any other 5xx, also the vendor's own, may come after the message was carried out:
/// the vendor's documents say so. What is not the vendor's JSON came from somebody in between.
pub(super) fn of_answer(answer: &Answer, secrets: &Secrets<'_>) -> SendError {
    let vendor = VendorError::read(answer);
    let row = vendor.as_ref().and_then(VendorError::row);
    let status = answer.status;
    let ours = vendor.is_some();
    let (class, error) = match (row, status) {
        (Some(row), _) => (row.class, row.error),
        (None, 503) => (Unavailable, ErrorCode::Expired),
        (None, 429) => (Throttled, ErrorCode::Rejected),
        // A redirect, or a refusal to talk that is not the vendor's: a wrong address or a gateway that wants a login.
        (None, 300..=399) => (Misconfigured, ErrorCode::Misconfigured),
        (None, 401 | 403 | 404 | 407) if !ours => (Misconfigured, ErrorCode::Misconfigured),
        (None, 408 | 425) if !ours => (Unavailable, ErrorCode::Expired),
        (None, 400..=499) => (Rejected, ErrorCode::Rejected),
        (None, _) => (Indeterminate, ErrorCode::Undecided),
    };
    let asked = vendor.as_ref().and_then(|error| error.retry_after).or_else(|| failures::asked_wait(answer));
    let retry_after = match class {
        Throttled => asked.or(Some(DEFAULT_WAIT)),
        Unavailable => asked,
        Rejected | NotPermitted | Misconfigured | Indeterminate => None,
    };
    let words = match &vendor {
        Some(VendorError { moved_to: Some(to), .. }) => super::PEERS.of_chat(&to.to_string()),
        Some(error) if !error.words.is_empty() => error.words.clone(),
        Some(_) | None => format!("HTTP {status}"),
    };
    SendError {
        class,
        failure: Failure::with(error, secrets.hide(&words, DETAIL_MAX)),
        vendor_code: vendor.map(|error| error.code.to_string()).unwrap_or_default(),
        raw: secrets.hide(&answer.text(SCAN_MAX), RAW_MAX),
        retry_after,
        answered_by_gateway: class == Indeterminate && !ours && !(200..=299).contains(&status),
        scope: ThrottleScope::Channel,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &str) -> SendError {
        let answer = Answer { status, headers: Default::default(), body: body.as_bytes().to_vec() };
        of_answer(&answer, &Secrets(Vec::new()))
    }

    #[test]
    fn every_line_can_be_reached() {
        for (place, row) in ERRORS.iter().enumerate() {
            assert_eq!(row.words, row.words.to_lowercase());
            let earlier = ERRORS.iter().take(place).find(|own| own.code == row.code && row.words.contains(own.words));
            assert!(earlier.is_none(), "{} {:?} is hidden", row.code, row.words);
        }
    }

    #[test]
    fn a_group_that_moved_names_its_new_number_the_way_robots_take_it() {
        let error = judged(
            400,
            r#"{"ok":false,"error_code":400,"description":"Bad Request: group chat was upgraded to a supergroup chat","parameters":{"migrate_to_chat_id":-1001987654321}}"#,
        );
        assert_eq!((error.class, error.failure.code), (Rejected, ErrorCode::GroupMoved));
        assert_eq!(error.failure.detail, "tg.-1001987654321");
    }

    #[test]
    fn the_wait_stands_in_the_body() {
        let body = r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 7","parameters":{"retry_after":7}}"#;
        let error = judged(429, body);
        assert_eq!((error.class, error.retry_after), (Throttled, Some(Millis::seconds(7))));
        assert_eq!(error.scope, ThrottleScope::Channel);
    }

    #[test]
    fn a_server_of_the_vendors_that_breaks_may_have_sent() {
        for code in [500, 502, 504] {
            let body = format!(r#"{{"ok":false,"error_code":{code},"description":"Internal Server Error"}}"#);
            let error = judged(code, &body);
            assert_eq!((error.class, error.answered_by_gateway), (Indeterminate, false), "{code}");
        }
        assert_eq!(judged(404, "<html>").class, Misconfigured);
        assert_eq!(judged(418, r#"{"ok":false,"error_code":418,"description":"new"}"#).class, Rejected);
    }
}
