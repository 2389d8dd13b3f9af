//! One body for every refusal of the API (RFC 9457), with a closed list of ids.

use actix_web::http::StatusCode;
use actix_web::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;

use crate::storage::StorageError;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// 400: the request is not what the API takes; the text says what to mend.
    Malformed(String),
    /// 401: no or a wrong bearer token.
    Unauthorized,
    /// 401: no token is configured, so no token can be right.
    SwitchedOff,
    /// 403: the proof does not fit.
    Forbidden(String),
    /// 404: there is no such thing.
    NotFound(String),
    /// 405: the thing exists, this method does not.
    MethodNotAllowed,
    /// 409: it contradicts what is there.
    Conflict(String),
    /// 413: too large.
    TooLarge,
    /// 415: another content type is expected.
    UnsupportedMedia(String),
    /// 422: well-formed, but cannot be done; the text says why.
    Unprocessable(String),
    /// 429: too many requests; seconds to wait.
    TooMany(u64),
    /// 503: the store is down; come again.
    Unavailable,
    /// 500: a defect of ours.
    Internal,
}

/// How the body of a refusal is marked.
pub(super) const CONTENT_TYPE: &str = "application/problem+json";
/// Seconds after which a caller should come again when the store is down.
const COME_AGAIN: u64 = 5;

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
}

impl Problem {
    /// The closed list of ids, the last part of `type`.
    #[must_use]
    pub fn id(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Unauthorized | Self::SwitchedOff => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::NotFound(_) => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Conflict(_) => "conflict",
            Self::TooLarge => "too_large",
            Self::UnsupportedMedia(_) => "unsupported_media_type",
            Self::Unprocessable(_) => "unprocessable",
            Self::TooMany(_) => "too_many_requests",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    fn detail(&self) -> &str {
        match self {
            Self::Malformed(text)
            | Self::Forbidden(text)
            | Self::NotFound(text)
            | Self::Conflict(text)
            | Self::UnsupportedMedia(text)
            | Self::Unprocessable(text) => text,
            Self::Unauthorized => "send the header `Authorization: Bearer <token>` with the administrator's token",
            Self::SwitchedOff => "the API is switched off: configure security.admin_token to use it",
            Self::MethodNotAllowed | Self::TooLarge | Self::TooMany(_) | Self::Internal => "",
            Self::Unavailable => "nothing was stored; send the request again",
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.id(), self.detail())
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized | Self::SwitchedOff => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMedia(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unprocessable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        let mut response = HttpResponse::build(status);
        match self {
            Self::Unavailable => {
                response.insert_header((RETRY_AFTER, COME_AGAIN));
            }
            Self::TooMany(seconds) => {
                response.insert_header((RETRY_AFTER, *seconds));
            }
            Self::Unauthorized | Self::SwitchedOff => {
                response.insert_header((WWW_AUTHENTICATE, "Bearer"));
            }
            _ => {}
        }
        response.content_type(CONTENT_TYPE).json(Body {
            r#type: format!("urn:mostik:problem:{}", self.id()),
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: self.detail(),
        })
    }
}

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Unavailable(text) | StorageError::Clash(text) => {
                tracing::warn!(error = text, "store unavailable");
                Self::Unavailable
            }
            StorageError::Config(_) | StorageError::Schema(_) | StorageError::Broken(_) => {
                tracing::error!(%error, "store");
                Self::Internal
            }
        }
    }
}
