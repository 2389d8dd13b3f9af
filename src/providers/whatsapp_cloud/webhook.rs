//! Callbacks: what the vendor tells of our messages, of people and of templates.
//!
//! The body is walked as a JSON value and not read into structs: the vendor adds keys, leaves keys out (phones of
//! people with usernames), and writes the same number as text here and as a number there; one odd field must not take
//! a whole batch down, because a refused batch comes again for seven days.
//!
//! Sources: Meta, WhatsApp Business Platform, "Webhooks" (envelope, `messages`, statuses, `message_template_*`,
//! `template_category_update`), "Business-scoped user IDs"; read 2026-11.

use serde_json::Value;

use crate::domain::channel::Channel;
use crate::domain::event::{InboundContent, InboundMessage, ProviderEvent, StatusNews, TypedMessage};
use crate::domain::ids::{MessageId, ProviderMessageId};
use crate::domain::status::MessageState;
use crate::domain::time::Timestamp;
use crate::providers::WebhookError;

use super::errors;
use crate::providers::failures::Secrets;

/// `object` of every callback of this product.
const OBJECT: &str = "whatsapp_business_account";

/// Reads one callback.
///
/// Changes of the fields `messages` and `smb_message_echoes` count when they name the channel's own number; template changes count whatever the
/// account, because the worst they do is to have a list fetched again, and one app reports all its accounts at one
/// address. Other fields are no news for a channel.
///
/// # Errors
/// - `Malformed`: not JSON, not this product, or no `entry`. The words never quote the body.
/// - `ForeignSender`: there were message changes, none of them ours, and nothing else of interest.
pub(super) fn read(channel: &Channel, body: &[u8]) -> Result<Vec<ProviderEvent>, WebhookError> {
    let malformed = |what: &str| WebhookError::Malformed(what.to_owned());
    let document: Value = serde_json::from_slice(body)
        .map_err(|e| WebhookError::Malformed(format!("not JSON at line {}, column {}", e.line(), e.column())))?;
    if text(&document, "/object") != OBJECT {
        return Err(malformed("object is not whatsapp_business_account"));
    }
    let entries = document.get("entry").and_then(Value::as_array).ok_or_else(|| malformed("no entry"))?;
    let own = channel.credential(super::PHONE_NUMBER_ID).trim();
    let mut events = Vec::new();
    let mut foreign = 0_usize;
    let mut ours = 0_usize;
    let mut templates_changed = false;
    for change in entries.iter().flat_map(|entry| list(entry, "changes")) {
        let value = change.get("value").unwrap_or(&Value::Null);
        let field = text(change, "/field");
        if field == "messages" {
            if own.is_empty() || word(value, "/metadata/phone_number_id") != own {
                foreign += 1;
                continue;
            }
            ours += 1;
            read_messages(channel, value, &mut events);
        } else if field == "smb_message_echoes" {
            if own.is_empty() || word(value, "/metadata/phone_number_id") != own {
                foreign += 1;
                continue;
            }
            ours += 1;
            read_typed(channel, value, &mut events);
        } else if field.starts_with("message_template_") || field == "template_category_update" {
            templates_changed = true;
        }
    }
    if templates_changed {
        events.push(ProviderEvent::TemplatesChanged);
    }
    if foreign > 0 && ours == 0 && events.is_empty() {
        return Err(WebhookError::ForeignSender);
    }
    Ok(events)
}

fn read_messages(channel: &Channel, value: &Value, events: &mut Vec<ProviderEvent>) {
    let secrets = Secrets::of(&super::SPEC, channel);
    for status in list(value, "statuses") {
        events.extend(read_status(status, &secrets).map(ProviderEvent::Status));
    }
    for message in list(value, "messages") {
        match read_inbound(message, value) {
            Some(inbound) => events.push(ProviderEvent::Inbound(inbound)),
            None => tracing::warn!(channel.id = %channel.id, "inbound message without id or sender passed over"),
        }
    }
    for error in list(value, "errors") {
        tracing::warn!(channel.id = %channel.id, vendor.code = %word(error, "/code"), "vendor reports an account error");
    }
}

/// What staff wrote in the phone's own application, where it shares the number with us.
fn read_typed(channel: &Channel, value: &Value, events: &mut Vec<ProviderEvent>) {
    for message in list(value, "message_echoes") {
        let provider_id = word(message, "/id");
        let to = [word(message, "/to"), word(message, "/to_user_id")].into_iter().find(|peer| !peer.is_empty());
        match to.filter(|_| !provider_id.is_empty()) {
            Some(peer) => events.push(ProviderEvent::Typed(TypedMessage {
                provider_id: ProviderMessageId(provider_id),
                peer,
                at: moment(message),
                content: content(message),
            })),
            None => tracing::warn!(channel.id = %channel.id, "echo without id or recipient passed over"),
        }
    }
}

/// Reads one status; `None` for a step we do not follow, or without the id of a message.
fn read_status(status: &Value, secrets: &Secrets<'_>) -> Option<StatusNews> {
    let state = match text(status, "/status") {
        "sent" => MessageState::Sent,
        "delivered" => MessageState::Delivered,
        // A voice note that was played has been opened.
        "read" | "played" => MessageState::Read,
        "failed" => MessageState::Failed,
        _ => return None,
    };
    let provider_id = word(status, "/id");
    if provider_id.is_empty() {
        return None;
    }
    let (failure, vendor_code) = if state == MessageState::Failed {
        let (failure, code) = errors::of_status(status.get("errors").unwrap_or(&Value::Null), secrets);
        (Some(failure), code)
    } else {
        (None, String::new())
    };
    Some(StatusNews {
        provider_id: ProviderMessageId(provider_id),
        message: MessageId::parse(text(status, "/biz_opaque_callback_data")),
        state,
        at: moment(status),
        failure,
        vendor_code,
    })
}

/// Reads one message of a person; `None` when it cannot be told apart from others or belongs to nobody.
///
/// The peer is the group where the message was written in one: its words must neither appear on a person's card as if
/// written in private, nor open that person's service window. Otherwise the phone, and where the person hides it, the
/// id the vendor gave them for this business.
fn read_inbound(message: &Value, value: &Value) -> Option<InboundMessage> {
    let provider_id = word(message, "/id");
    let phone = word(message, "/from");
    let user = word(message, "/from_user_id");
    let group = word(message, "/group_id");
    let peer = [&group, &phone, &user].into_iter().find(|peer| !peer.is_empty())?.clone();
    if provider_id.is_empty() {
        return None;
    }
    Some(InboundMessage {
        provider_id: ProviderMessageId(provider_id),
        peer,
        name: name_of(&phone, &user, value),
        at: moment(message),
        opens_window: message.get("type").and_then(Value::as_str) != Some("system"),
        reply_to: Some(word(message, "/context/id")).filter(|id| !id.is_empty()).map(ProviderMessageId),
        content: content(message),
    })
}

/// The sender's name. Contacts are matched by id: their order is not that of the messages.
fn name_of(phone: &str, user: &str, value: &Value) -> String {
    let same = |own: &str, path: &str, contact: &Value| !own.is_empty() && word(contact, path) == own;
    let contact = list(value, "contacts")
        .find(|contact| same(phone, "/wa_id", contact) || same(user, "/user_id", contact))
        .unwrap_or(&Value::Null);
    let shown = [text(contact, "/profile/name"), text(contact, "/profile/username")];
    shown.into_iter().find(|name| !name.trim().is_empty()).unwrap_or_default().to_owned()
}

/// What the person sent. Whatever is nothing we know keeps the vendor's word, and is shown as a placeholder.
fn content(message: &Value) -> InboundContent {
    let kind = text(message, "/type");
    let body = match kind {
        "text" => text(message, "/text/body"),
        "button" => first_of(message, &["/button/text", "/button/payload"]),
        "interactive" => first_of(message, &["/interactive/button_reply/title", "/interactive/list_reply/title"]),
        _ => "",
    };
    if !body.is_empty() {
        return InboundContent::Text { body: body.to_owned() };
    }
    if let "image" | "video" | "document" | "audio" | "sticker" = kind {
        let file = message.get(kind).unwrap_or(&Value::Null);
        let id = word(file, "/id");
        // Without an id the file was lost on the way (too large, for example) and there is nothing to fetch.
        if !id.is_empty() {
            return InboundContent::Media {
                media: kind.to_owned(),
                id,
                mime: text(file, "/mime_type").to_owned(),
                caption: text(file, "/caption").to_owned(),
                filename: text(file, "/filename").to_owned(),
            };
        }
    }
    if let Some(known) = gesture(kind, message) {
        return known;
    }
    if kind == "system" && text(message, "/system/type") == "user_changed_number" {
        return InboundContent::Other { what: InboundContent::NUMBER_LEFT.to_owned() };
    }
    const WORD_MAX: usize = 64;
    let what = first_of(message, &["/interactive/type", "/type"]);
    let what = if what.is_empty() { "unknown" } else { what };
    InboundContent::Other { what: what.chars().take(WORD_MAX).collect() }
}

/// What is neither text nor file: a place, cards, and what concerns an earlier message.
fn gesture(kind: &str, message: &Value) -> Option<InboundContent> {
    let id = |path: &str| Some(word(message, path)).filter(|id| !id.is_empty()).map(ProviderMessageId);
    match kind {
        "location" => {
            let degrees = |path: &str| message.pointer(path).and_then(Value::as_f64).map(|number| number.to_string());
            let parts = [text(message, "/location/name"), text(message, "/location/address")];
            let name = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
            let (latitude, longitude) = (degrees("/location/latitude")?, degrees("/location/longitude")?);
            Some(InboundContent::Location { latitude, longitude, name })
        }
        "contacts" => {
            let card = |card: &Value| {
                let phones = list(card, "phones").map(|phone| text(phone, "/phone"));
                let parts = std::iter::once(text(card, "/name/formatted_name")).chain(phones);
                parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
            };
            let cards: Vec<String> = list(message, "contacts").map(card).filter(|card| !card.is_empty()).collect();
            (!cards.is_empty()).then_some(InboundContent::Contacts { cards })
        }
        "reaction" => {
            let emoji = text(message, "/reaction/emoji").to_owned();
            Some(InboundContent::Reaction { of: id("/reaction/message_id")?, emoji })
        }
        "edit" => {
            let inner = message.pointer("/edit/message").unwrap_or(&Value::Null);
            let of = id("/edit/original_message_id")?;
            let caption = format!("/{}/caption", text(inner, "/type"));
            let body = first_of(inner, &["/text/body", &caption]).to_owned();
            (!body.is_empty()).then_some(InboundContent::Edited { of, body })
        }
        "revoke" => Some(InboundContent::Deleted { of: id("/revoke/original_message_id")? }),
        _ => None,
    }
}

/// The vendor's moment: Unix seconds, as text in most places and as a number in some. Zero where it is missing, which
/// opens no service window.
fn moment(value: &Value) -> Timestamp {
    Timestamp::from_seconds(word(value, "/timestamp").parse().unwrap_or_default())
}

/// A text; empty when it is absent or something else.
fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// The first text that is not empty.
fn first_of<'a>(value: &'a Value, paths: &[&str]) -> &'a str {
    paths.iter().map(|path| text(value, path)).find(|found| !found.is_empty()).unwrap_or_default()
}

/// A text, or a whole number as text: ids and times come both ways.
fn word(value: &Value, path: &str) -> String {
    match value.pointer(path) {
        Some(Value::String(text)) => text.trim().to_owned(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => String::new(),
    }
}

/// The elements of a list; none when it is absent or something else.
fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests;
