//! Dead letters: jobs given up, why, and how they live again.

use std::collections::HashMap;

use actix_web::Responder;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path, Query};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::Document;
use super::page::{LIMIT_MAX, Page, PageQuery, cursor_of, limit_of};
use super::views::moment;
use crate::domain::ids::MessageId;
use crate::domain::job::JobKind;
use crate::domain::message::MessageRecord;
use crate::domain::time::Timestamp;
use crate::http::State;
use crate::http::admin::Admin;
use crate::http::problem::Problem;
use crate::storage::jobs::DeadLetter;

/// A job that was given up.
#[derive(Serialize, ToSchema)]
pub(super) struct DeadLetterView {
    /// Its id, to redrive it by.
    #[schema(example = "send:msg_01JD0000000000000000000000")]
    id: String,
    /// `send`, `command`, `comment`, `reply` or `reconcile`.
    kind: &'static str,
    /// Why it was given up.
    reason: String,
    /// When.
    #[schema(format = DateTime)]
    died_at: String,
    /// Failed tries that counted.
    tries: u32,
    /// Id of the command, message or portal it was about.
    subject: String,
    /// The message, if it was about one.
    message: Option<AboutMessage>,
}

/// The message a dead letter is about.
#[derive(Serialize, ToSchema)]
pub(super) struct AboutMessage {
    /// Its id.
    id: String,
    /// The person's address in full.
    peer: String,
    /// The channel; null when none could be chosen.
    channel: Option<String>,
    /// The portal that asked for it; null for messages of the API.
    portal: Option<String>,
    /// Where it stands.
    state: &'static str,
}

/// Dead letters to redrive.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RedriveMany {
    /// 1 to 200 ids.
    #[schema(min_items = 1, max_items = 200)]
    ids: Vec<String>,
}

/// A dead letter that lives again.
#[derive(Serialize, ToSchema)]
pub(super) struct Redriven {
    /// Its id.
    id: String,
    /// Always `queued`.
    state: &'static str,
}

/// What became of several.
#[derive(Serialize, ToSchema)]
pub(super) struct RedrivenMany {
    /// Those that live again.
    redriven: Vec<String>,
    /// Those that are no dead letters (any more).
    unknown: Vec<String>,
}

/// List dead letters, newest first.
#[utoipa::path(get, path = "/api/v1/dead-letters", tag = "dead letters", operation_id = "list_dead_letters",
    params(PageQuery), responses((status = 200, description = "A page of dead letters", body = Page<DeadLetterView>)))]
pub(super) async fn list(_: Admin, state: Data<State>, page: Query<PageQuery>) -> Result<impl Responder, Problem> {
    let limit = limit_of(page.limit)?;
    let after = cursor_of(page.cursor.as_deref(), read_cursor)?;
    let (died, id) = after.unwrap_or((Timestamp(i64::MAX), String::new()));
    let letters = state.storage.dead_letters(died, &id, limit + 1).await?;
    let messages = messages_of(&state, &letters).await?;
    Ok(Json(Page::of(letters, limit, cursor_to, |letter| view(&letter, &messages))))
}

/// Let a dead letter live again, under its old identity and with a new deadline.
///
/// A send whose outcome was never known may reach the person a second time: its reason says so.
#[utoipa::path(post, path = "/api/v1/dead-letters/{letter}/redrive", tag = "dead letters", operation_id = "redrive",
    params(("letter" = String, Path, description = "Id of the dead letter")),
    responses((status = 202, description = "It waits for its turn", body = Redriven),
        (status = 404, description = "No such dead letter")))]
pub(super) async fn redrive(_: Admin, state: Data<State>, letter: Path<String>) -> Result<impl Responder, Problem> {
    let id = letter.into_inner();
    if !revive(&state, &id).await? {
        return Err(Problem::NotFound("there is no such dead letter".to_owned()));
    }
    Ok((Json(Redriven { id, state: "queued" }), StatusCode::ACCEPTED))
}

/// Let several dead letters live again. Those that could be redriven are, whatever becomes of the others.
#[utoipa::path(post, path = "/api/v1/dead-letters/redrive", tag = "dead letters", operation_id = "redrive_many",
    request_body = RedriveMany, responses((status = 202, description = "What became of each", body = RedrivenMany),
        (status = 422, description = "No ids, or too many")))]
pub(super) async fn redrive_many(
    _: Admin,
    state: Data<State>,
    Document(wanted): Document<RedriveMany>,
) -> Result<impl Responder, Problem> {
    if !(1..=LIMIT_MAX as usize).contains(&wanted.ids.len()) {
        return Err(Problem::Unprocessable(format!("ids: 1 to {LIMIT_MAX}")));
    }
    // Together, so that the store can write them in one commit.
    let found = join_all(wanted.ids.iter().map(|id| revive(&state, id))).await;
    let mut answer = RedrivenMany { redriven: Vec::new(), unknown: Vec::new() };
    for (id, found) in wanted.ids.into_iter().zip(found) {
        let list = if found? { &mut answer.redriven } else { &mut answer.unknown };
        list.push(id);
    }
    Ok((Json(answer), StatusCode::ACCEPTED))
}

/// False when there is no such dead letter.
async fn revive(state: &State, id: &str) -> Result<bool, Problem> {
    let Some(kind) = kind_of(id) else { return Ok(false) };
    // Only messages grow stale; a comment or a registration is brought up to date whenever it runs.
    let not_after = (kind == JobKind::Send).then(|| state.pipeline.deadline(state.clock.now()));
    let found = state.storage.redrive(id, not_after).await?;
    if found {
        tracing::info!(job.id = id, "dead letter redriven");
    }
    Ok(found)
}

/// The kind in a job's id (`kind:subject`); `None` for text that is no such id.
fn kind_of(id: &str) -> Option<JobKind> {
    let (kind, subject) = id.split_once(':')?;
    let plausible =
        (1..=100).contains(&subject.len()) && subject.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    JobKind::find(kind).filter(|_| plausible)
}

fn cursor_to(letter: &DeadLetter) -> String {
    format!("{}:{}", letter.died.0, letter.job.id)
}

fn read_cursor(text: &str) -> Option<(Timestamp, String)> {
    let (died, id) = text.split_once(':')?;
    kind_of(id)?;
    Some((Timestamp(died.parse().ok()?), id.to_owned()))
}

async fn messages_of(state: &State, letters: &[DeadLetter]) -> Result<HashMap<MessageId, MessageRecord>, Problem> {
    let ids: Vec<MessageId> = letters.iter().filter_map(|letter| letter.job.message()).collect();
    let records = state.storage.load_messages(&ids).await?;
    Ok(records.into_iter().map(|record| (record.id.clone(), record)).collect())
}

fn view(letter: &DeadLetter, messages: &HashMap<MessageId, MessageRecord>) -> DeadLetterView {
    let job = &letter.job;
    let about = job.message().and_then(|id| messages.get(&id)).map(|record| AboutMessage {
        id: record.id.to_string(),
        peer: record.peer.clone(),
        channel: record.channel.as_ref().map(ToString::to_string),
        portal: record.portal.as_ref().map(ToString::to_string),
        state: record.state.code(),
    });
    DeadLetterView {
        id: job.id.clone(),
        kind: job.kind.code(),
        reason: job.reason.clone().unwrap_or_default(),
        died_at: moment(letter.died),
        tries: job.tries,
        subject: job.subject.clone(),
        message: about,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_of_jobs_are_looked_up() {
        assert_eq!(kind_of("send:msg_01J"), Some(JobKind::Send));
        assert_eq!(kind_of("reconcile:prt_01J"), Some(JobKind::Reconcile));
        for bad in ["", "send", "send:", "steal:msg_1", "send:msg\u{0}1", "send:msg 1", "send:a:b", "msg_1"] {
            assert_eq!(kind_of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn cursors_read_back() {
        assert_eq!(read_cursor("17:send:msg_1"), Some((Timestamp(17), "send:msg_1".to_owned())));
        for bad in ["17", "x:send:msg_1", "17:msg_1", "17:"] {
            assert_eq!(read_cursor(bad), None, "{bad}");
        }
    }
}
