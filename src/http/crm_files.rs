//! Files of CRMs for the vendors that fetch them: opened where the CRM keeps them and handed on as they come.

use actix_web::http::header::{CONTENT_DISPOSITION, X_CONTENT_TYPE_OPTIONS};
use actix_web::{HttpResponse, web};
use futures_util::{StreamExt as _, future};

use super::State;
use super::problem::Problem;
use crate::crm::FileQuery;
use crate::domain::file::mime_of;
use crate::domain::outcome::FailureClass;
use crate::domain::portal::PortalState;

/// More than any messenger of ours takes.
const FILE_MAX: u64 = 100 * 1024 * 1024;

/// `GET /files/crm/{word}/{name}`: the file that the word opens. The name is for whoever saves it.
async fn file(path: web::Path<(String, String)>, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    let none = || Problem::NotFound("there is no such file, or its address is over".to_owned());
    let link = state.storage.unseal_file(&path.0).ok_or_else(none)?;
    let known = state.storage.portal(&link.portal).await?.ok_or_else(none)?;
    if known.portal.state == PortalState::Uninstalled {
        return Err(none());
    }
    let files = state.pipeline.crm(known.portal.crm).and_then(|crm| crm.files()).ok_or_else(none)?;
    let query = FileQuery { card: link.card, file: link.file.clone() };
    let download = files.open_file(&known.portal, &query).await.map_err(|error| {
        tracing::warn!(%error, portal.id = %link.portal, "a file of the CRM could not be opened");
        match error.class {
            FailureClass::Rejected | FailureClass::NotPermitted | FailureClass::Misconfigured => none(),
            FailureClass::Throttled | FailureClass::Unavailable | FailureClass::Indeterminate => Problem::Unavailable,
        }
    })?;
    let length = download.length();
    if length.is_some_and(|length| length > FILE_MAX) {
        return Err(none());
    }
    let mut response = HttpResponse::Ok();
    response
        .content_type(mime_of(&link.name))
        .insert_header((CONTENT_DISPOSITION, "attachment"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"));
    if let Some(length) = length {
        response.no_chunking(length);
    }
    // Whatever has no end is cut off, and so is what is longer than it said.
    let mut left = length.unwrap_or(FILE_MAX);
    let chunks = download.chunks.map(move |chunk| {
        let chunk = chunk.map_err(|error| std::io::Error::other(error.to_string()))?;
        left = left.checked_sub(chunk.len() as u64).ok_or_else(|| std::io::Error::other("longer than allowed"))?;
        Ok::<_, std::io::Error>(chunk)
    });
    // After an error the connection ends: a vendor must not take a part for the whole.
    let mut failed = false;
    let chunks = chunks.take_while(move |chunk| future::ready(!std::mem::replace(&mut failed, chunk.is_err())));
    Ok(response.streaming(chunks))
}

/// Addresses below `/files/crm`.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(web::resource("/files/crm/{word}/{name}").route(web::get().to(file)));
}
