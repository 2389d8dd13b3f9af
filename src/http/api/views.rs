//! Messages as the API shows them. Only the administrator sees them, so addresses stand in full; tokens are in no part
//! of a message.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::channel::Channel;
use crate::domain::event::InboundContent;
use crate::domain::language::Language;
use crate::domain::message::{Content, Silence, TemplateCall};
use crate::domain::time::Timestamp;
use crate::i18n;
use crate::storage::messages::{Attempt, MessageHistory};

/// A message in either direction.
#[derive(Serialize, ToSchema)]
pub(super) struct MessageView {
    /// Its id.
    #[schema(example = "msg_01JD0000000000000000000000")]
    id: String,
    /// `out` to a person, `in` from a person.
    direction: &'static str,
    /// `queued` → `accepted` → `sent` → `delivered` → `read`; `failed`, `undecided` (no clear answer yet), `cancelled`;
    /// `received` for a message from a person.
    #[schema(example = "delivered")]
    state: &'static str,
    /// The channel; null when none could be chosen.
    channel: Option<String>,
    /// Id of the channel's provider.
    provider: Option<String>,
    /// Ids the provider gave it.
    provider_ids: Vec<String>,
    /// The person's address in full: digits for phones.
    #[schema(example = "79001234567")]
    peer: String,
    /// The portal that asked for it; null for messages of the API.
    portal: Option<String>,
    /// The card that shows it, such as `deal:134`.
    card: Option<String>,
    /// What was to be sent, or came.
    content: ContentView,
    /// True when the fallback template was sent instead.
    used_fallback: bool,
    /// What its card says of a confirmation that did not come: `told`, that none has come yet; `closed`, that none is
    /// awaited any more; null otherwise. It is no state, and a late confirmation takes it back.
    silence: Option<&'static str>,
    /// Why it failed, is undecided or still waits.
    error: Option<ErrorView>,
    /// When it was taken over.
    #[schema(format = DateTime)]
    created_at: String,
    /// When the provider took it.
    #[schema(format = DateTime)]
    accepted_at: Option<String>,
    /// When the messenger had it; for a message from a person, when it was written.
    #[schema(format = DateTime)]
    sent_at: Option<String>,
    /// When it was on the device.
    #[schema(format = DateTime)]
    delivered_at: Option<String>,
    /// When it was opened.
    #[schema(format = DateTime)]
    read_at: Option<String>,
    /// When it failed or was cancelled.
    #[schema(format = DateTime)]
    failed_at: Option<String>,
}

/// A message with every try to send it.
#[derive(Serialize, ToSchema)]
pub(super) struct MessageDetail {
    /// The message.
    #[serde(flatten)]
    message: MessageView,
    /// Oldest first, at most 200.
    attempts: Vec<AttemptView>,
}

/// What a message consists of.
#[derive(Serialize, ToSchema, Default)]
pub(super) struct ContentView {
    /// `text`, `media`, `template`, or `other` for what has no better word; `check_phone`, `rename_chat` or `tag_dialog` for what a robot did that is no message; `edit` or `withdraw` for what an operator did to an earlier message.
    kind: &'static str,
    /// The text, or the caption of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// Kind of a file (`image`, `video`, `audio`, `document`), or the vendor's word for anything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    media: Option<String>,
    /// Address of a file; one that begins with `crm:` is a file that the CRM keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    /// Template as `name:language`.
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<String>,
    /// Values of the template's variables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    params: Vec<String>,
    /// Template that is sent when free text is not allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback_template: Option<String>,
}

/// Why something went wrong.
#[derive(Serialize, ToSchema)]
pub(super) struct ErrorView {
    /// One of a closed list.
    #[schema(example = "window_closed")]
    code: &'static str,
    /// The same for people, in English.
    message: String,
    /// What to do about it, in English; may be empty.
    advice: String,
    /// The provider's own code; may be empty.
    vendor_code: String,
}

/// One try.
#[derive(Serialize, ToSchema)]
pub(super) struct AttemptView {
    /// When it began.
    #[schema(format = DateTime)]
    at: String,
    /// How long it took, in milliseconds.
    duration_ms: i64,
    /// `ok`, or the class of the failure.
    outcome: String,
    /// `rejected`, `not_permitted`, `misconfigured`, `throttled`, `unavailable` or `indeterminate`.
    failure_class: Option<String>,
    /// The provider's own code; may be empty.
    vendor_code: String,
    /// The provider's answer as it came, at most 2,000 characters; may be empty.
    raw: String,
}

/// A moment as RFC 3339 in UTC, to the millisecond; empty for one beyond the calendar.
pub(in crate::http) fn moment(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0).map(|at| format!("{at:.3}")).unwrap_or_default()
}

impl MessageView {
    /// `channel` is the message's channel, where it still exists.
    pub(super) fn of(history: &MessageHistory, channel: Option<&Channel>) -> Self {
        let record = &history.record;
        let times = &record.times;
        Self {
            id: record.id.to_string(),
            direction: if history.inbound { "in" } else { "out" },
            state: if history.inbound { "received" } else { record.state.code() },
            channel: record.channel.as_ref().map(ToString::to_string),
            provider: channel.map(|channel| channel.provider.clone()),
            provider_ids: record.provider_id.iter().map(ToString::to_string).collect(),
            peer: record.peer.clone(),
            portal: record.portal.as_ref().map(ToString::to_string),
            card: record.card.map(|card| card.to_string()),
            content: match &history.inbound_content {
                Some(stored) => inbound(stored),
                None => {
                    let view = outbound(&record.draft.content, record.draft.fallback.as_ref());
                    let change = record.draft.change.as_ref().map(|change| change.kind.code());
                    ContentView { kind: change.unwrap_or(view.kind), ..view }
                }
            },
            used_fallback: record.used_fallback,
            silence: record.silence.map(Silence::code),
            error: record.failure.as_ref().map(|failure| ErrorView {
                code: failure.code.code(),
                message: i18n::error(Language::En, failure.code, &failure.detail),
                advice: i18n::advice(Language::En, failure.code),
                vendor_code: record.vendor_code.clone(),
            }),
            created_at: moment(times.created),
            accepted_at: times.accepted.map(moment),
            sent_at: times.sent.map(moment),
            delivered_at: times.delivered.map(moment),
            read_at: times.read.map(moment),
            failed_at: times.failed.map(moment),
        }
    }
}

impl MessageDetail {
    pub(super) fn of(message: MessageView, attempts: Vec<Attempt>) -> Self {
        let attempts = attempts.into_iter().map(|attempt| AttemptView {
            at: moment(attempt.at),
            duration_ms: attempt.duration.0,
            outcome: attempt.outcome,
            failure_class: attempt.failure_class,
            vendor_code: attempt.vendor_code,
            raw: attempt.raw,
        });
        Self { message, attempts: attempts.collect() }
    }
}

fn outbound(content: &Content, fallback: Option<&TemplateCall>) -> ContentView {
    let view = match content {
        Content::Text { body } => ContentView { kind: "text", text: Some(body.clone()), ..ContentView::default() },
        Content::Media { media, link, caption, filename: _ } => ContentView {
            kind: "media",
            text: some(caption),
            media: serde_json::to_value(media).ok().and_then(|word| word.as_str().map(str::to_owned)),
            file: Some(link.clone()),
            ..ContentView::default()
        },
        Content::Template(call) => ContentView {
            kind: "template",
            template: Some(call.template.label()),
            params: call.params.clone(),
            file: call.files.first().cloned(),
            ..ContentView::default()
        },
        Content::Deed(deed) => ContentView { kind: deed.code(), ..ContentView::default() },
    };
    ContentView { fallback_template: fallback.map(|call| call.template.label()), ..view }
}

fn inbound(stored: &str) -> ContentView {
    // Content written by a newer version is shown by its kind only.
    match serde_json::from_str::<InboundContent>(stored) {
        Ok(InboundContent::Text { body }) => ContentView { kind: "text", text: Some(body), ..ContentView::default() },
        Ok(InboundContent::Media { media, caption, id: _, mime: _, filename: _ }) => {
            ContentView { kind: "media", text: some(&caption), media: Some(media), ..ContentView::default() }
        }
        Ok(InboundContent::Other { what }) => {
            ContentView { kind: "other", media: Some(what), ..ContentView::default() }
        }
        Ok(content) => {
            let what = match &content {
                InboundContent::Location { .. } => "location",
                InboundContent::Contacts { .. } => "contacts",
                InboundContent::Reaction { .. } => "reaction",
                InboundContent::Edited { .. } => "edit",
                InboundContent::Deleted { .. } => "revoke",
                InboundContent::Text { .. } | InboundContent::Media { .. } | InboundContent::Other { .. } => "",
            };
            let media = Some(what.to_owned());
            ContentView { kind: "other", text: some(&content.words()), media, ..ContentView::default() }
        }
        Err(_) => ContentView { kind: "other", ..ContentView::default() },
    }
}

/// What a message says, in one text: words, template or file.
pub(in crate::http) fn words_of(history: &MessageHistory) -> String {
    let content = match &history.inbound_content {
        Some(stored) => inbound(stored),
        None => outbound(&history.record.draft.content, None),
    };
    let template = content.template.map(|label| format!("{label}: {}", content.params.join(", ")));
    content.text.or(template).or(content.file).or(content.media).unwrap_or_default()
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_rfc_3339_in_utc() {
        assert_eq!(moment(Timestamp(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(moment(Timestamp(1_763_766_000_123)), "2025-11-21T23:00:00.123Z");
        assert_eq!(moment(Timestamp(i64::MAX)), "");
    }
}
