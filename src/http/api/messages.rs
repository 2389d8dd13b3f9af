//! Messages: send one, look one up, history.

use std::collections::HashMap;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path, Query};
use actix_web::{HttpRequest, Responder};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};

use super::body::Document;
use super::page::{Page, cursor_of, limit_of};
use super::views::{MessageDetail, MessageView};
use crate::domain::channel::Channel;
use crate::domain::command::SendMessage;
use crate::domain::ids::{ChannelId, MessageId};
use crate::domain::language::Language;
use crate::domain::message::TemplateCall;
use crate::domain::outcome::Failure;
use crate::domain::status::MessageState;
use crate::domain::template::TemplateRef;
use crate::domain::text::excerpt;
use crate::http::State;
use crate::http::admin::Admin;
use crate::http::problem::Problem;
use crate::i18n;
use crate::numbers;
use crate::pipeline::submit::{RequestKey, SubmitError};
use crate::storage::messages::{Created, MessageFilter, MessageHistory};

/// Header that makes a repeated request recognisable.
const KEY_HEADER: &str = "Idempotency-Key";
/// Longest value of it, in bytes.
const KEY_MAX: usize = 200;
/// What messages from persons are listed as.
const RECEIVED: &str = "received";
/// Longest `name:language` of a template, in bytes; vendors allow some 500.
const LABEL_MAX: usize = 600;
/// Longest address of a file, in bytes.
const LINK_MAX: usize = 2048;
/// Longest address that is looked for, in bytes; stored ones are shorter.
const PEER_MAX: usize = 400;

/// A message to send: `text`, or one of `files` with a `caption`, or a `template` with `params` and `files`. It is sent
/// as it stands.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SendRequest {
    /// Id of the channel that sends.
    #[schema(example = "chan_01JD0000000000000000000000")]
    channel: String,
    /// The person's phone in any notation.
    #[schema(example = "79001234567")]
    to: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(example = "Good day!")]
    text: String,
    /// Approved template as `name:language`; the language may be left out when there is only one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    template: String,
    /// Values of the template's variables in order, also of the fallback template's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    params: Vec<String>,
    /// Public addresses of files: one to send, or those of the template's header.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    files: Vec<String>,
    /// Text under the file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    caption: String,
    /// Template, as `name:language`, that is sent instead of text or file when the messenger does not allow free
    /// content.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    fallback_template: String,
}

/// A message that was taken over.
#[derive(Serialize, ToSchema)]
pub(super) struct Accepted {
    /// Its id.
    #[schema(example = "msg_01JD0000000000000000000000")]
    id: String,
    /// `queued`; for a repeated request, the state of the message of then.
    #[schema(example = "queued")]
    state: &'static str,
}

/// Which messages to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    /// The person's address; a phone in any notation.
    peer: Option<String>,
    /// Id of the channel.
    channel: Option<String>,
    /// Only messages in this state.
    state: Option<String>,
    /// Most items.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Send a message.
///
/// It is kept when 202 is answered. With an `Idempotency-Key`, a repeated request sends nothing again and answers with
/// the message of then.
#[utoipa::path(post, path = "/api/v1/messages", tag = "messages", operation_id = "send_message",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 200 visible ASCII characters, your own")),
    request_body = SendRequest,
    responses((status = 202, description = "Taken over, now or before", body = Accepted),
        (status = 409, description = "The key came before with another content"),
        (status = 422, description = "It can never be sent like this; `detail` starts with an error code")))]
pub(super) async fn create(
    _: Admin,
    state: Data<State>,
    request: HttpRequest,
    Document(body): Document<SendRequest>,
) -> Result<impl Responder, Problem> {
    let key = key_of(&request, &body)?;
    let unknown = || Problem::Unprocessable("channel: there is no such channel".to_owned());
    let channel = ChannelId::parse(&body.channel).ok_or_else(unknown)?;
    let channel = state.storage.find_channel(&channel).await?.ok_or_else(unknown)?;
    let send = send_of(&body)?;
    let created = state.pipeline.submit(&channel, &body.to, &send, key).await.map_err(|error| match error {
        SubmitError::Refused(failure) => Problem::Unprocessable(words(&failure)),
        SubmitError::Storage(error) => error.into(),
    })?;
    let accepted = match created {
        Created::New(id) => Accepted { id: id.to_string(), state: MessageState::Queued.code() },
        Created::Known(id) => {
            let known = state.storage.find_message(&id).await?.ok_or_else(|| {
                Problem::Conflict(format!("this {KEY_HEADER} belongs to a message that is not kept any more"))
            })?;
            Accepted { id: id.to_string(), state: known.record.state.code() }
        }
        Created::Conflict => {
            return Err(Problem::Conflict(format!("this {KEY_HEADER} came before with another content")));
        }
    };
    Ok((Json(accepted), StatusCode::ACCEPTED))
}

/// Show a message with every try to send it.
#[utoipa::path(get, path = "/api/v1/messages/{message}", tag = "messages", operation_id = "get_message",
    params(("message" = String, Path, description = "Id of the message")),
    responses((status = 200, description = "The message", body = MessageDetail),
        (status = 404, description = "No such message")))]
pub(super) async fn get(_: Admin, state: Data<State>, message: Path<String>) -> Result<impl Responder, Problem> {
    let missing = || Problem::NotFound("there is no such message".to_owned());
    let id = MessageId::parse(&message).ok_or_else(missing)?;
    let history = state.storage.find_message(&id).await?.ok_or_else(missing)?;
    let attempts = state.storage.attempts(&id).await?;
    let channels = channels_of(&state, std::slice::from_ref(&history)).await?;
    Ok(Json(MessageDetail::of(view(&history, &channels), attempts)))
}

/// List messages of both directions, newest first.
///
/// By channel or state alone, a page looks through 10,000 messages at most: it may be short or empty and still have a `next`.
#[utoipa::path(get, path = "/api/v1/messages", tag = "messages", operation_id = "list_messages", params(HistoryQuery),
    responses((status = 200, description = "A page of messages", body = Page<MessageView>)))]
pub(super) async fn list(_: Admin, state: Data<State>, query: Query<HistoryQuery>) -> Result<impl Responder, Problem> {
    let limit = limit_of(query.limit)?;
    let mut filter = filter_of(&query, state.pipeline.country())?;
    filter.limit = limit + 1;
    let walked = state.storage.walk_messages(&filter).await?;
    let channels = channels_of(&state, &walked.found).await?;
    let cursor = |history: &MessageHistory| history.record.id.to_string();
    let mut page = Page::of(walked.found, limit, cursor, |history| view(&history, &channels));
    page.next = page.next.or(walked.rest.map(|rest| rest.to_string()));
    Ok(Json(page))
}

/// The request's key with what stands for its content; `None` when none was given.
fn key_of(request: &HttpRequest, body: &SendRequest) -> Result<Option<RequestKey>, Problem> {
    let Some(value) = request.headers().get(KEY_HEADER) else { return Ok(None) };
    let visible = |key: &&str| (1..=KEY_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    let Some(key) = value.to_str().ok().map(str::trim).filter(visible) else {
        return Err(Problem::Malformed(format!("{KEY_HEADER}: 1 to {KEY_MAX} visible ASCII characters")));
    };
    // The document as we understood it, so that a repetition may be written differently.
    let content = serde_json::to_vec(body).map_err(|_never| Problem::Internal)?;
    let fingerprint = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Some(RequestKey { key: key.to_owned(), fingerprint }))
}

/// The request in the words of the action that robots use; what contradicts itself is refused, because nothing that was
/// given may silently be left out.
fn send_of(body: &SendRequest) -> Result<SendMessage, Problem> {
    let refuse = |text: &str| Err(Problem::Unprocessable(text.to_owned()));
    let template = call_of("template", &body.template, body)?;
    let fallback = call_of("fallback_template", &body.fallback_template, body)?;
    let has_text = !body.text.trim().is_empty();
    let has_caption = !body.caption.trim().is_empty();
    if template.is_some() && (has_text || has_caption || fallback.is_some()) {
        return refuse("template: give it without text, caption and fallback_template");
    }
    if template.is_none() && fallback.is_none() && !body.params.is_empty() {
        return refuse("params: they belong to a template or fallback_template");
    }
    if template.is_none() && has_caption && body.files.is_empty() {
        return refuse("caption: it belongs to a file");
    }
    if body.files.iter().any(|link| link.len() > LINK_MAX) {
        return refuse(&format!("files: addresses of at most {LINK_MAX} bytes"));
    }
    let files = if template.is_some() { Vec::new() } else { body.files.clone() };
    let given = |has: bool, text: &str| if has { text.to_owned() } else { String::new() };
    Ok(SendMessage {
        text: given(has_text, &body.text),
        template,
        fallback,
        files,
        caption: given(has_caption, &body.caption),
        ..SendMessage::default()
    })
}

/// A template with the request's parameters and files; `None` when the field is empty.
fn call_of(field: &str, label: &str, body: &SendRequest) -> Result<Option<TemplateCall>, Problem> {
    if label.trim().is_empty() {
        return Ok(None);
    }
    let template = TemplateRef::parse(label).filter(|_| label.len() <= LABEL_MAX);
    let template =
        template.ok_or_else(|| Problem::Unprocessable(format!("{field}: name:language, or the name alone")))?;
    Ok(Some(TemplateCall { template, params: body.params.clone(), files: body.files.clone() }))
}

/// `code: sentence (particulars)`.
fn words(failure: &Failure) -> String {
    let detail = excerpt(&failure.detail, 200);
    format!("{}: {}", failure.code.code(), i18n::error(Language::En, failure.code, &detail))
}

fn filter_of(query: &HistoryQuery, country: &str) -> Result<MessageFilter, Problem> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let malformed = |text: String| Problem::Malformed(text);
    let peer = given(&query.peer);
    if peer.as_ref().is_some_and(|peer| peer.len() > PEER_MAX || peer.contains('\0')) {
        return Err(malformed(format!("peer: at most {PEER_MAX} bytes")));
    }
    let channel =
        given(&query.channel).map(|id| ChannelId::parse(&id).ok_or_else(|| malformed("channel: no id".into())));
    let state = given(&query.state);
    let is_state = |word: &String| word == RECEIVED || MessageState::find(word).is_some();
    if !state.as_ref().is_none_or(is_state) {
        let words: Vec<&str> = MessageState::ALL.iter().map(|state| state.code()).chain([RECEIVED]).collect();
        return Err(malformed(format!("state: one of {}", words.join(", "))));
    }
    Ok(MessageFilter {
        // Addresses that could not be read are stored as they were given, so they are looked for as they are given.
        peer: peer.map(|peer| numbers::read(&peer, country).map_or(peer, |phone| phone.digits().to_owned())),
        channel: channel.transpose()?,
        state,
        before: cursor_of(query.cursor.as_deref(), MessageId::parse)?,
        limit: 0,
    })
}

type Channels = HashMap<ChannelId, Arc<Channel>>;

async fn channels_of(state: &State, messages: &[MessageHistory]) -> Result<Channels, Problem> {
    let mut channels = Channels::new();
    for id in messages.iter().filter_map(|history| history.record.channel.as_ref()) {
        if !channels.contains_key(id)
            && let Some(channel) = state.storage.find_channel(id).await?
        {
            channels.insert(id.clone(), channel);
        }
    }
    Ok(channels)
}

fn view(history: &MessageHistory, channels: &Channels) -> MessageView {
    let channel = history.record.channel.as_ref().and_then(|id| channels.get(id));
    MessageView::of(history, channel.map(|channel| &**channel))
}
