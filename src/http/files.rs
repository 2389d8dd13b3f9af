//! Files handed out to CRMs and vendors, under addresses that end: `/files/{word}/{name}`.

use actix_web::body::{BodyStream, SizedStream};
use actix_web::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use actix_web::{HttpResponse, HttpResponseBuilder, web};
use futures_util::StreamExt as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::State;
use super::problem::Problem;
use crate::pipeline::files::{FileTrouble, OpenFile};

/// Files on their way at once in this process; whoever comes later asks again.
static PLACES: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(64);

/// Hands a file out, piece by piece.
///
/// The browser of whoever opens the address must not take a stranger's file for a page of ours: it is an attachment,
/// without guessing and without rights.
pub async fn hand_out(path: web::Path<(String, String)>, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    let gone = || Problem::NotFound("no such file, or its time is over".to_owned());
    let file = state.storage.read_file_word(&path.0).ok_or_else(gone)?;
    let place = PLACES.try_acquire().map_err(|_full| Problem::Unavailable)?;
    let OpenFile { mime, name, size, chunks } = match state.pipeline.open_file(&file).await {
        Ok(open) => open,
        Err(FileTrouble::Refused(failure)) => {
            tracing::info!(code = failure.code.code(), "a file is not handed out");
            return Err(gone());
        }
        Err(FileTrouble::Unavailable(why)) => {
            tracing::warn!(why, "a file could not be opened");
            return Err(Problem::Unavailable);
        }
    };
    let mut answer = HttpResponse::Ok();
    headers(&mut answer, &mime, &name);
    // The place is free again when the last piece has left, or nobody takes it any more.
    let chunks = chunks.map(move |chunk| {
        let _held = &place;
        chunk
    });
    Ok(match size {
        Some(size) => answer.body(SizedStream::new(size, chunks)),
        None => answer.body(BodyStream::new(chunks)),
    })
}

fn headers(answer: &mut HttpResponseBuilder, mime: &str, name: &str) {
    let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
    let kind = HeaderValue::from_str(mime).ok().filter(|kind| !kind.is_empty());
    answer
        .insert_header((CONTENT_TYPE, kind.unwrap_or(HeaderValue::from_static("application/octet-stream"))))
        .insert_header((CONTENT_DISPOSITION, format!("attachment; filename*=UTF-8''{name}")))
        .insert_header(("x-content-type-options", "nosniff"))
        .insert_header(("content-security-policy", "default-src 'none'; sandbox"))
        .insert_header(("cache-control", "private, no-store"))
        .insert_header(("referrer-policy", "no-referrer"));
}
