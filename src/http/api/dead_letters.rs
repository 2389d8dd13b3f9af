//! Dead letters: jobs given up, why, and how they live again.

use std::collections::HashMap;

use actix_web::Responder;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path, Query};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::body::Document;
use super::page::{LIMIT_MAX, Page, cursor_of, limit_of};
use super::views::moment;
use crate::domain::ids::MessageId;
use crate::domain::job::{GivenUp, JobKind};
use crate::domain::language::Language;
use crate::domain::message::MessageRecord;
use crate::domain::time::Timestamp;
use crate::http::State;
use crate::http::admin::Admin;
use crate::http::problem::Problem;
use crate::i18n;
use crate::storage::dead_letters::{DeadFilter, DeadLetter, DeadWords, Redriven};

/// Most dead letters that one call by filter redrives, and as many as it does when nothing is said.
const MATCHING_MAX: u32 = 10_000;
const MATCHING_USUAL: u32 = 1_000;

/// A job that was given up.
#[derive(Serialize, ToSchema)]
pub(super) struct DeadLetterView {
    /// Its id, to redrive it by.
    #[schema(example = "send:msg_01JD0000000000000000000000")]
    id: String,
    /// `send`, `command`, `comment`, `reply`, `reconcile` or `chat`.
    kind: &'static str,
    /// Why it was given up, as it was noted then.
    reason: String,
    /// `expired`, `no_answer`, `gateway`, `process_ended`, `lost` or `refused`.
    reason_code: &'static str,
    /// The same for people, and what redriving it means.
    explanation: Explanation,
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

/// Words for people.
#[derive(Serialize, ToSchema)]
pub(super) struct Explanation {
    /// In Russian.
    ru: String,
    /// In English.
    en: String,
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

/// Which dead letters to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// `send`, `command`, `comment`, `reply`, `reconcile` or `chat`.
    kind: Option<String>,
    /// Id of the channel of its message.
    channel: Option<String>,
    /// Id of the portal that asked for it.
    portal: Option<String>,
    /// A `reason_code`, or the code with which a CRM refused.
    reason: Option<String>,
    /// Given up then or later, RFC 3339.
    since: Option<String>,
    /// Given up before, RFC 3339.
    until: Option<String>,
    /// Most items.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Which dead letters to redrive; what is left out does not narrow.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RedriveMatching {
    /// `send`, `command`, `comment`, `reply`, `reconcile` or `chat`.
    kind: Option<String>,
    /// Id of the channel of its message.
    channel: Option<String>,
    /// Id of the portal that asked for it.
    portal: Option<String>,
    /// A `reason_code`, or the code with which a CRM refused.
    reason: Option<String>,
    /// Given up then or later.
    #[schema(format = DateTime)]
    since: Option<String>,
    /// Given up before.
    #[schema(format = DateTime)]
    until: Option<String>,
    /// Also sends whose messages may have reached the person: they may be sent twice. Left out, they stay.
    include_undecided: bool,
    /// Only count.
    dry_run: bool,
    /// Most to redrive in this call, 1 to 10000, the newest first; left out, 1000.
    #[schema(minimum = 1, maximum = 10000)]
    limit: Option<u32>,
}

/// What became of those that match.
#[derive(Serialize, ToSchema)]
pub(super) struct RedrivenMatching {
    /// True when nothing was done but counting.
    dry_run: bool,
    /// Dead letters that matched when the call came.
    matched: i64,
    /// Those that would match too, left out because their messages may have reached the person.
    undecided_left_out: i64,
    /// Those that live again.
    redriven: i64,
    /// Those whose messages had left meanwhile: nothing was sent again.
    settled: i64,
}

/// A dead letter that lives again.
#[derive(Serialize, ToSchema)]
pub(super) struct RedrivenOne {
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
    /// Those whose messages had left meanwhile: nothing is sent again, and they are dead letters no more.
    settled: Vec<String>,
    /// Those that are no dead letters (any more).
    unknown: Vec<String>,
}

/// List dead letters, newest first.
#[utoipa::path(get, path = "/api/v1/dead-letters", tag = "dead letters", operation_id = "list_dead_letters",
    params(ListQuery), responses((status = 200, description = "A page of dead letters", body = Page<DeadLetterView>)))]
pub(super) async fn list(_: Admin, state: Data<State>, query: Query<ListQuery>) -> Result<impl Responder, Problem> {
    let limit = limit_of(query.limit)?;
    let words = DeadWords {
        kind: query.kind.as_deref(),
        channel: query.channel.as_deref(),
        portal: query.portal.as_deref(),
        reason: query.reason.as_deref(),
        since: query.since.as_deref(),
        until: query.until.as_deref(),
    };
    let filter = DeadFilter::parse(&words, true).map_err(Problem::Malformed)?;
    let after = cursor_of(query.cursor.as_deref(), read_cursor)?;
    let (died, id) = after.unwrap_or((Timestamp(i64::MAX), String::new()));
    let letters = state.storage.dead_letters(&filter, died, &id, limit + 1).await?;
    let messages = messages_of(&state, &letters).await?;
    Ok(Json(Page::of(letters, limit, cursor_to, |letter| view(&letter, &messages))))
}

/// Let a dead letter live again, under its old identity and with a new deadline.
///
/// A send whose outcome was never known may reach the person a second time: its reason says so.
#[utoipa::path(post, path = "/api/v1/dead-letters/{letter}/redrive", tag = "dead letters", operation_id = "redrive",
    params(("letter" = String, Path, description = "Id of the dead letter")),
    responses((status = 202, description = "It waits for its turn", body = RedrivenOne),
        (status = 404, description = "No such dead letter"),
        (status = 409, description = "Its message has left meanwhile; nothing is sent again")))]
pub(super) async fn redrive(_: Admin, state: Data<State>, letter: Path<String>) -> Result<impl Responder, Problem> {
    let id = letter.into_inner();
    match revive(&state, &id).await? {
        Redriven::Queued => Ok((Json(RedrivenOne { id, state: "queued" }), StatusCode::ACCEPTED)),
        Redriven::Settled => Err(Problem::Conflict("its message has left meanwhile; nothing is sent again".to_owned())),
        Redriven::Unknown => Err(Problem::NotFound("there is no such dead letter".to_owned())),
    }
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
    let mut answer = RedrivenMany { redriven: Vec::new(), settled: Vec::new(), unknown: Vec::new() };
    for (id, found) in wanted.ids.into_iter().zip(found) {
        let list = match found? {
            Redriven::Queued => &mut answer.redriven,
            Redriven::Settled => &mut answer.settled,
            Redriven::Unknown => &mut answer.unknown,
        };
        list.push(id);
    }
    Ok((Json(answer), StatusCode::ACCEPTED))
}

/// Let all dead letters live again that match, or count them first.
///
/// Sends whose messages may have reached the person are left out unless they are asked for.
#[utoipa::path(post, path = "/api/v1/dead-letters/redrive-matching", tag = "dead letters",
    operation_id = "redrive_matching", request_body = RedriveMatching,
    responses((status = 202, description = "What became of them", body = RedrivenMatching),
        (status = 422, description = "No such filter")))]
pub(super) async fn redrive_matching(
    _: Admin,
    state: Data<State>,
    Document(wanted): Document<RedriveMatching>,
) -> Result<impl Responder, Problem> {
    let words = DeadWords {
        kind: wanted.kind.as_deref(),
        channel: wanted.channel.as_deref(),
        portal: wanted.portal.as_deref(),
        reason: wanted.reason.as_deref(),
        since: wanted.since.as_deref(),
        until: wanted.until.as_deref(),
    };
    let filter = DeadFilter::parse(&words, wanted.include_undecided).map_err(Problem::Unprocessable)?;
    let limit = wanted.limit.unwrap_or(MATCHING_USUAL);
    if !(1..=MATCHING_MAX).contains(&limit) {
        return Err(Problem::Unprocessable(format!("limit: 1 to {MATCHING_MAX}")));
    }
    let counts = if wanted.dry_run {
        state.storage.count_redrive(&filter).await?
    } else {
        state.storage.redrive_matching(&filter, limit, state.pipeline.deadline(state.clock.now())).await?
    };
    if counts.redriven > 0 {
        tracing::info!(redriven = counts.redriven, settled = counts.settled, "dead letters redriven by a filter");
    }
    let answer = RedrivenMatching {
        dry_run: wanted.dry_run,
        matched: counts.matched,
        undecided_left_out: counts.left_out,
        redriven: counts.redriven,
        settled: counts.settled,
    };
    Ok((Json(answer), StatusCode::ACCEPTED))
}

async fn revive(state: &State, id: &str) -> Result<Redriven, Problem> {
    if kind_of(id).is_none() {
        return Ok(Redriven::Unknown);
    }
    let redriven = state.storage.redrive(id, state.pipeline.deadline(state.clock.now())).await?;
    if redriven == Redriven::Queued {
        tracing::info!(job.id = id, "dead letter redriven");
    }
    Ok(redriven)
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
    let reason = job.reason.clone().unwrap_or_default();
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
        reason_code: GivenUp::read(&reason).0.code(),
        explanation: Explanation {
            ru: i18n::dead_letter(Language::Ru, &reason),
            en: i18n::dead_letter(Language::En, &reason),
        },
        reason,
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
