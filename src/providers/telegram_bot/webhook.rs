//! Updates: what people write to the bot.
//!
//! The body is walked as a JSON value and not read into structs: the vendor adds fields and kinds every few months, and an
//! update that is refused comes again for a day and holds up everything else of that chat.
//!
//! Sources: Telegram, "Bot API", `Update`, `Message`, `Contact`, "Getting updates"; read 2026-11.

use serde_json::Value;

use crate::domain::event::{InboundContent, InboundMessage, ProviderEvent, SharedPhone};
use crate::domain::ids::ProviderMessageId;
use crate::domain::phone::Phone;
use crate::domain::time::Timestamp;
use crate::providers::WebhookError;

/// Kinds of files a message can carry, each under a key of its name. An animation also comes as a document, for old
/// programs, so it stands first.
const FILES: [&str; 7] = ["animation", "document", "video", "video_note", "audio", "voice", "sticker"];
/// Kinds that stand beside others and say nothing of the content.
const ENVELOPE: [&str; 22] = [
    "message_id",
    "message_thread_id",
    "from",
    "sender_chat",
    "sender_boost_count",
    "sender_business_bot",
    "date",
    "edit_date",
    "chat",
    "business_connection_id",
    "forward_origin",
    "is_topic_message",
    "is_automatic_forward",
    "reply_to_message",
    "external_reply",
    "quote",
    "via_bot",
    "has_protected_content",
    "media_group_id",
    "author_signature",
    "entities",
    "link_preview_options",
];
/// Longest word of the vendor that is kept, in characters.
const WORD_MAX: usize = 64;

/// Reads one update. Kinds that nobody asked for, and what was written by bots, are no news.
///
/// # Errors
/// `Malformed`: not JSON, or without `update_id`. The words never quote the body.
pub(super) fn read(body: &[u8]) -> Result<Vec<ProviderEvent>, WebhookError> {
    let update: Value = serde_json::from_slice(body)
        .map_err(|e| WebhookError::Malformed(format!("not JSON at line {}, column {}", e.line(), e.column())))?;
    if !update.get("update_id").is_some_and(Value::is_i64) {
        return Err(WebhookError::Malformed("no update_id".to_owned()));
    }
    let Some(message) = update.get("message").or_else(|| update.get("edited_message")) else { return Ok(Vec::new()) };
    if message.pointer("/from/is_bot").and_then(Value::as_bool) == Some(true) {
        return Ok(Vec::new());
    }
    let Some(inbound) = inbound(message) else {
        tracing::warn!("telegram message without number, chat or time passed over");
        return Ok(Vec::new());
    };
    let shared = shared_phone(message, &inbound.peer);
    Ok([Some(ProviderEvent::Inbound(inbound)), shared.map(ProviderEvent::PhoneShared)].into_iter().flatten().collect())
}

/// The peer is the chat: in a group that is the group, whose words are nobody's private ones.
///
/// A message is known by chat and number; a changed one also by when it was changed, because it is another text.
fn inbound(message: &Value) -> Option<InboundMessage> {
    let id = super::message_id(message)?;
    let changed = message.get("edit_date").and_then(Value::as_i64);
    let provider_id = match changed {
        Some(at) => ProviderMessageId(format!("{id}:{at}")),
        None => id,
    };
    let at = changed.or_else(|| message.get("date").and_then(Value::as_i64))?;
    let chat = message.pointer("/chat/id")?.as_i64()?;
    Some(InboundMessage {
        provider_id,
        peer: super::PEERS.of_chat(&chat.to_string()),
        name: name(message.get("from").unwrap_or(&Value::Null)),
        at: Timestamp::from_seconds(at),
        opens_window: true,
        reply_to: message.get("reply_to_message").and_then(super::message_id),
        content: match changed {
            Some(_) => edited(message)?,
            None => content(message),
        },
    })
}

fn name(person: &Value) -> String {
    let parts = [text(person, "/first_name"), text(person, "/last_name")];
    let shown = parts.into_iter().filter(|part| !part.trim().is_empty()).collect::<Vec<_>>().join(" ");
    if shown.is_empty() { text(person, "/username").to_owned() } else { shown }
}

/// A changed message with its new words; a changed file is told as one that came anew.
fn edited(message: &Value) -> Option<InboundContent> {
    let words = [text(message, "/text"), text(message, "/caption")].into_iter().find(|words| !words.is_empty());
    match words {
        Some(body) => Some(InboundContent::Edited { of: super::message_id(message)?, body: body.to_owned() }),
        None => Some(content(message)),
    }
}

/// A place or a card, where the message is one.
fn gesture(message: &Value) -> Option<InboundContent> {
    if let Some(card) = message.get("contact") {
        let parts = [text(card, "/first_name"), text(card, "/last_name"), text(card, "/phone_number")];
        let card = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
        return (!card.is_empty()).then(|| InboundContent::Contacts { cards: vec![card] });
    }
    // A venue repeats its place beside itself.
    let place = message.get("location")?;
    let degrees = |key: &str| place.get(key).and_then(Value::as_f64).map(|number| number.to_string());
    let parts = [text(message, "/venue/title"), text(message, "/venue/address")];
    let name = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
    Some(InboundContent::Location { latitude: degrees("latitude")?, longitude: degrees("longitude")?, name })
}

fn content(message: &Value) -> InboundContent {
    let body = text(message, "/text");
    if !body.is_empty() {
        return InboundContent::Text { body: body.to_owned() };
    }
    if let Some(known) = media(message).or_else(|| gesture(message)) {
        return known;
    }
    let kind = message.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
    let what = kind.into_iter().find(|key| !ENVELOPE.contains(key)).unwrap_or("unknown");
    InboundContent::Other { what: what.chars().take(WORD_MAX).collect() }
}

fn media(message: &Value) -> Option<InboundContent> {
    let found = |media: &str, file: &Value, usual: &str| {
        let id = text(file, "/file_id");
        let told = text(file, "/mime_type");
        (!id.is_empty()).then(|| InboundContent::Media {
            media: media.to_owned(),
            id: id.to_owned(),
            mime: if told.is_empty() { usual.to_owned() } else { told.to_owned() },
            caption: text(message, "/caption").to_owned(),
            filename: text(file, "/file_name").to_owned(),
        })
    };
    // One photo in several sizes, the largest last.
    if let Some(photo) = message.get("photo").and_then(Value::as_array).and_then(|sizes| sizes.last()) {
        return found("photo", photo, "image/jpeg");
    }
    FILES.into_iter().find_map(|kind| found(kind, message.get(kind)?, usual_type(kind)))
}

/// The type of files for which the vendor names none.
fn usual_type(kind: &str) -> &'static str {
    match kind {
        "voice" => "audio/ogg",
        "video_note" | "video" | "animation" => "video/mp4",
        "sticker" => "image/webp",
        _ => "application/octet-stream",
    }
}

/// The person's own phone, from their own hand: the messenger vouches for it only when the contact is that of the sender,
/// and only in private is the chat the person's.
fn shared_phone(message: &Value, peer: &str) -> Option<SharedPhone> {
    let owner = message.pointer("/contact/user_id")?.as_i64()?;
    let sender = message.pointer("/from/id")?.as_i64()?;
    let chat = message.pointer("/chat/id")?.as_i64()?;
    let digits: String = text(message, "/contact/phone_number").chars().filter(char::is_ascii_digit).collect();
    let phone = Phone::from_digits(&digits)?;
    // A forwarded card says what its first owner shared elsewhere.
    let forwarded = message.get("forward_origin").is_some();
    (owner == sender && chat == sender && !forwarded).then(|| SharedPhone { peer: peer.to_owned(), phone })
}

/// A text; empty when it is absent or something else.
fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}
