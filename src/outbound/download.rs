//! Answers that are read while they come: files pass through without ever being in memory as a whole.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use reqwest::header::HeaderMap;

use super::{Call, CallError, Outbound, cause, describe};

/// Longest time a file may take as a whole.
const TRANSFER_MAX: Duration = Duration::from_secs(600);
/// Longest silence within a file.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// The pieces of a body as they come; an error ends them.
pub type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, CallError>> + Send>>;

/// An answer whose body has not been read.
pub struct Download {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The body.
    pub chunks: Chunks,
}

impl Download {
    /// One header as text; `None` if absent or not text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// MIME type without parameters, lower case; may be empty.
    #[must_use]
    pub fn mime(&self) -> String {
        let kind = self.header("content-type").unwrap_or_default();
        kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// Bytes that the other side announces.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }
}

impl Outbound {
    /// Makes one call and gives its answer as soon as the headers are there; `timeout` of the call counts until then.
    /// Bounded in time, not in size: whoever reads counts.
    ///
    /// # Errors
    /// [`CallError`]; nothing in it contains the address's query or a token.
    pub async fn open(&self, call: Call) -> Result<Download, CallError> {
        let until_headers = call.timeout;
        let request = self.request(call.timeout(TRANSFER_MAX))?;
        let sent = tokio::time::timeout(until_headers, request.send()).await;
        let response = sent.map_err(|_late| CallError::NoAnswer("timed out".to_owned()))?.map_err(describe)?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = Box::pin(response.bytes_stream());
        let chunks = futures_util::stream::unfold(Some(body), |body| async move {
            let mut body = body?;
            match tokio::time::timeout(IDLE_MAX, body.next()).await {
                Ok(None) => None,
                Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(body))),
                Ok(Some(Err(error))) => {
                    Some((Err(CallError::NoAnswer(format!("cut in the answer: {}", cause(&error)))), None))
                }
                Err(_silent) => Some((Err(CallError::NoAnswer("silent within the answer".to_owned())), None)),
            }
        });
        Ok(Download { status, headers, chunks: Box::pin(chunks) })
    }
}
