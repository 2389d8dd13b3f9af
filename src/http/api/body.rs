//! Request bodies: bounded, JSON, and refused in words that repeat no value (a value may be a secret).

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::header::CONTENT_ENCODING;
use actix_web::web::Bytes;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use futures_util::future::LocalBoxFuture;
use serde::de::DeserializeOwned;

use crate::domain::text::excerpt;
use crate::http::problem::Problem;

/// Longest body, in bytes.
pub(super) const BODY_MAX: usize = 1024 * 1024;

/// A JSON document that has to be there.
///
/// Refused: 413 when longer than [`BODY_MAX`], 415 when it is not declared as JSON, 400 when it cannot be read or does
/// not have the shape of `T`.
pub(in crate::http) struct Document<T>(pub(in crate::http) T);

/// The same, but it may be left out.
pub(super) struct Optional<T>(pub(super) Option<T>);

impl<T: DeserializeOwned + 'static> FromRequest for Document<T> {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let is_json = is_json(request);
        let bytes = Bytes::from_request(request, payload);
        Box::pin(async move {
            is_json?;
            let bytes = bytes.await.map_err(|error| unread(&error))?;
            parse(&bytes).map(Self)
        })
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for Optional<T> {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let is_json = is_json(request);
        let bytes = Bytes::from_request(request, payload);
        Box::pin(async move {
            let bytes = bytes.await.map_err(|error| unread(&error))?;
            if bytes.is_empty() {
                return Ok(Self(None));
            }
            is_json?;
            if bytes.trim_ascii() == b"null" {
                return Ok(Self(None));
            }
            parse(&bytes).map(Some).map(Self)
        })
    }
}

fn is_json(request: &HttpRequest) -> Result<(), Problem> {
    let encoding = request.headers().get(CONTENT_ENCODING);
    if encoding.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Problem::UnsupportedMedia("send the body without Content-Encoding".to_owned()));
    }
    let declared = request.mime_type().ok().flatten();
    let is_json = declared.is_some_and(|mime| {
        (mime.type_() == "application" && mime.subtype() == "json") || mime.suffix().is_some_and(|it| it == "json")
    });
    if is_json {
        return Ok(());
    }
    Err(Problem::UnsupportedMedia("send JSON with the header `Content-Type: application/json`".to_owned()))
}

fn unread(error: &actix_web::Error) -> Problem {
    match error.as_error::<PayloadError>() {
        Some(PayloadError::Overflow) => Problem::TooLarge,
        _ => Problem::Malformed("the body ended early or could not be read".to_owned()),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if has_nul(bytes) {
        return Err(Problem::Malformed("a text holds the character U+0000, which cannot be stored".to_owned()));
    }
    let value = serde_json::from_slice(bytes).map_err(|error| Problem::Malformed(words(&error)))?;
    // serde also reads a struct from a list of its fields, which nobody writes on purpose.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::Malformed("the body is no JSON object".to_owned()));
    }
    Ok(value)
}

/// True when a JSON document holds the escape `\u0000`: PostgreSQL stores no such text.
fn has_nul(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let escape = rest.get(at + 1..).unwrap_or_default();
        if escape.starts_with(b"u0000") {
            return true;
        }
        rest = escape.get(1..).unwrap_or_default();
    }
    false
}

/// What is wrong with a document and where, without the values that serde's own words quote.
fn words(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    if !error.is_data() {
        return format!("the body is no valid JSON (line {line}, column {column})");
    }
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    let names_a_field = ["missing field", "unknown field", "duplicate field"].iter().any(|it| text.starts_with(it));
    let what = match text.rsplit_once(", expected ") {
        Some((_, expected)) if !names_a_field => format!("expected {expected}"),
        Some(_) | None if names_a_field => text.to_owned(),
        Some(_) | None => "a value does not fit".to_owned(),
    };
    format!("{} (line {line}, column {column})", excerpt(&what, 300))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its shape is looked at")]
    struct Shape {
        name: String,
        limit: Option<u8>,
    }

    fn refusal(json: &str) -> String {
        match parse::<Shape>(json.as_bytes()) {
            Err(Problem::Malformed(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn refusals_name_the_place_and_no_value() {
        for (json, expected) in [
            ("", "no valid JSON"),
            ("{\"name\":", "no valid JSON"),
            ("{\"name\":\"\\ud800\"}", "no valid JSON"),
            ("[]", "expected struct Shape"),
            ("[\"a\", null]", "no JSON object"),
            ("{}", "missing field `name` (line 1, column 2)"),
            ("{\"nmae\":1}", "unknown field `nmae`, expected `name` or `limit`"),
            ("{\"name\":\"a\",\"name\":\"b\"}", "duplicate field `name`"),
            ("{\"name\":{\"token\":\"s3cret\"}}", "expected a string"),
            ("\"s3cret, expected s3cret\"", "expected struct Shape"),
            ("{\"name\":\"a\",\"limit\":1234567}", "expected u8"),
            ("{\"name\":\"a\\u0000\"}", "U+0000"),
        ] {
            let text = refusal(json);
            assert!(text.contains(expected), "{json}: {text}");
            assert!(!text.contains("s3cret") && !text.contains("1234567"), "{text}");
        }
        assert!(parse::<Shape>(br#"{"name":"\\u0000 is written so"}"#).is_ok());
    }
}
