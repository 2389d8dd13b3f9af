//! What every adapter says in the same way: calls without an answer, refusals before a call, and secrets that must not
//! leave in a vendor's words.

use futures_util::StreamExt as _;

use crate::domain::capability::ProviderSpec;
use crate::domain::channel::Channel;
use crate::domain::outcome::{ErrorCode, Failure, FailureClass, SendError, ThrottleScope};
use crate::domain::time::Millis;
use crate::outbound::download::{Chunks, Download};
use crate::outbound::{Answer, CallError};
use crate::providers::MediaStream;

/// Longest raw answer that is kept, in characters.
pub(super) const RAW_MAX: usize = 2_000;
/// Longest wording of the vendor that is shown to people, in characters.
pub(super) const DETAIL_MAX: usize = 300;
/// Characters of an answer that are searched for our secrets before it is cut.
pub(super) const SCAN_MAX: usize = 64 * 1024;
/// Wait after a throttle answer that names neither a time nor a code of the table.
pub(super) const DEFAULT_WAIT: Millis = Millis::seconds(30);

/// What must never leave in a text that the vendor wrote.
///
/// A vendor quotes a token it dislikes ("Malformed access token …"), and its wording goes to the card and the journal.
pub(super) struct Secrets<'a>(pub(super) Vec<&'a str>);

impl<'a> Secrets<'a> {
    /// The secret credentials of a channel, as the specification marks them.
    pub(super) fn of(spec: &ProviderSpec, channel: &'a Channel) -> Self {
        /// Shorter values are no secrets worth the name, and would make holes in ordinary words.
        const MIN: usize = 6;
        let secret = spec.credentials.iter().filter(|field| field.secret);
        Self(secret.map(|field| channel.credential(field.name)).filter(|value| value.len() >= MIN).collect())
    }

    /// The text with every secret blotted out, cut to `max` characters.
    pub(super) fn hide(&self, text: &str, max: usize) -> String {
        let mut shown = text.to_owned();
        for secret in &self.0 {
            // The vendor's JSON writes `/` as `\/`.
            for spelling in [(*secret).to_owned(), secret.replace('/', "\\/")] {
                shown = shown.replace(&spelling, "•••");
            }
        }
        shown.chars().take(max).collect()
    }
}

/// Judges a call without an answer.
///
/// Not connected is surely not sent; no answer is not known; an address that our own guard refuses is for the
/// administrator, who set it.
pub(super) fn of_call(error: &CallError, secrets: &Secrets<'_>) -> SendError {
    let (class, code) = match error {
        CallError::Refused(_) => (FailureClass::Misconfigured, ErrorCode::Misconfigured),
        CallError::NotConnected(_) => (FailureClass::Unavailable, ErrorCode::Expired),
        CallError::NoAnswer(_) => (FailureClass::Indeterminate, ErrorCode::Undecided),
    };
    let words = error.to_string();
    SendError {
        class,
        failure: Failure::with(code, secrets.hide(&words, DETAIL_MAX)),
        vendor_code: String::new(),
        raw: secrets.hide(&words, RAW_MAX),
        retry_after: None,
        answered_by_gateway: false,
        scope: ThrottleScope::Channel,
    }
}

/// Refuses without a call: nothing has left, nothing needs to be settled.
pub(super) fn refusal(class: FailureClass, failure: Failure) -> SendError {
    SendError {
        class,
        failure,
        vendor_code: String::new(),
        raw: String::new(),
        retry_after: None,
        answered_by_gateway: false,
        scope: ThrottleScope::Channel,
    }
}

/// The same for a call that only reads: it changes nothing over there, so an unclear end is merely a failed try.
///
/// Without this an unanswered look-up would mark a message as perhaps sent that never left.
pub(super) fn of_reading(mut error: SendError) -> SendError {
    if error.class == FailureClass::Indeterminate {
        error.class = FailureClass::Unavailable;
        error.failure.code = ErrorCode::Expired;
        error.answered_by_gateway = false;
    }
    error
}

/// A good answer as a file on its way. `mime` and `size` are the vendor's words beside the file, where it has any.
pub(super) fn as_file(download: Download, mime: &str, size: Option<u64>) -> MediaStream {
    let named = mime.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let mime = if named.is_empty() { download.mime() } else { named };
    let size = download.size().or(size);
    let chunks = download.chunks.map(|chunk| chunk.map_err(|error| of_reading(of_call(&error, &Secrets(Vec::new())))));
    MediaStream { mime, filename: String::new(), size, chunks: Box::pin(chunks) }
}

/// The beginning of a refusal that came instead of a file, to be judged like any other answer.
pub(super) async fn as_answer(download: Download) -> Answer {
    let Download { status, headers, chunks } = download;
    Answer { status, headers, body: beginning(chunks).await }
}

async fn beginning(mut chunks: Chunks) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(Ok(chunk)) = chunks.next().await {
        body.extend_from_slice(chunk.get(..SCAN_MAX.saturating_sub(body.len())).unwrap_or(&chunk));
        if body.len() >= SCAN_MAX {
            break;
        }
    }
    body
}

/// How long an answer asks us to wait by its header; "in zero seconds" would be a tight loop, so it counts as no answer
/// to the question.
pub(super) fn asked_wait(answer: &Answer) -> Option<Millis> {
    let asked = answer.retry_after().map(|wait| Millis(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)));
    asked.filter(|wait| *wait > Millis(0))
}
