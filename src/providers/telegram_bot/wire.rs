//! The JSON of a send: which method, and its parameters.
//!
//! Texts go as they are, without `parse_mode`: nothing in them can be taken for a tag, and "can't parse entities" cannot
//! happen.
//!
//! Sources: Telegram, "Bot API", `sendMessage`, `sendPhoto`, `sendVideo`, `sendAudio`, `sendVoice`, `sendDocument`,
//! "Sending files"; read 2026-11.

use serde::Serialize;

use crate::domain::capability::MediaKind;
use crate::domain::ids::ProviderMessageId;
use crate::domain::message::{OutboundContent, OutboundMessage};
use crate::domain::outcome::{ErrorCode, Failure};

/// Number of a chat, or `@name` of a public group or channel.
#[derive(Serialize)]
#[serde(untagged)]
enum Chat<'a> {
    Number(i64),
    Name(&'a str),
}

#[derive(Serialize)]
struct Send<'a> {
    chat_id: Chat<'a>,
    #[serde(flatten)]
    content: Content<'a>,
    #[serde(skip_serializing_if = "str::is_empty")]
    caption: &'a str,
}

/// A change of a message that was sent.
#[derive(Serialize)]
struct Change<'a> {
    chat_id: Chat<'a>,
    message_id: i64,
    #[serde(flatten)]
    words: Option<Words<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Words<'a> {
    Text(&'a str),
    Caption(&'a str),
}

/// The key equals the method's own word.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Content<'a> {
    Text(&'a str),
    Photo(&'a str),
    Video(&'a str),
    Audio(&'a str),
    Voice(&'a str),
    Document(&'a str),
}

/// Writes a send: method and body.
///
/// # Errors
/// - `CannotWriteFirst`: the address is no chat of this messenger.
/// - `Unsupported`: a template, which the vendor does not have.
/// - `CannotChange`: the id of the message to be changed is none of this vendor.
pub(super) fn body(message: &OutboundMessage) -> Result<(&'static str, Vec<u8>), Failure> {
    let chat_id = chat(&message.to).ok_or_else(|| Failure::new(ErrorCode::CannotWriteFirst))?;
    let (method, content, caption) = match &message.content {
        OutboundContent::Text(text) => ("sendMessage", Content::Text(text), ""),
        OutboundContent::Media { media, link, caption, .. } => {
            let (method, content) = file(*media, link);
            (method, content, caption.as_str())
        }
        OutboundContent::Template(filled) => {
            return Err(Failure::with(ErrorCode::Unsupported, filled.id.name.clone()));
        }
        OutboundContent::Edit { of, body, caption: true } => {
            return change("editMessageCaption", chat_id, of, Some(Words::Caption(body)));
        }
        OutboundContent::Edit { of, body, caption: false } => {
            return change("editMessageText", chat_id, of, Some(Words::Text(body)));
        }
        OutboundContent::Withdraw { of } => return change("deleteMessage", chat_id, of, None),
    };
    let send = Send { chat_id, content, caption };
    let body = serde_json::to_vec(&send).map_err(|e| Failure::with(ErrorCode::BadRequest, e.to_string()))?;
    Ok((method, body))
}

/// A message's id is that of its chat and its number there.
fn change(
    method: &'static str,
    chat_id: Chat<'_>,
    of: &ProviderMessageId,
    words: Option<Words<'_>>,
) -> Result<(&'static str, Vec<u8>), Failure> {
    let number = of.as_str().rsplit(':').next().and_then(|number| number.parse().ok());
    let message_id = number.ok_or_else(|| Failure::new(ErrorCode::CannotChange))?;
    let change = Change { chat_id, message_id, words };
    let body = serde_json::to_vec(&change).map_err(|e| Failure::with(ErrorCode::BadRequest, e.to_string()))?;
    Ok((method, body))
}

fn chat(peer: &str) -> Option<Chat<'_>> {
    let own = super::PEERS.at_vendor(peer)?;
    match own.strip_prefix('@') {
        Some(_) => Some(Chat::Name(own)),
        None => own.parse().ok().map(Chat::Number),
    }
}

/// Voice messages are OGG; `sendAudio` takes MP3 and M4A only.
fn file(media: MediaKind, link: &str) -> (&'static str, Content<'_>) {
    let path = link.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    match media {
        MediaKind::Image => ("sendPhoto", Content::Photo(link)),
        MediaKind::Video => ("sendVideo", Content::Video(link)),
        MediaKind::Audio if path.ends_with(".ogg") || path.ends_with(".opus") => ("sendVoice", Content::Voice(link)),
        MediaKind::Audio => ("sendAudio", Content::Audio(link)),
        MediaKind::Document => ("sendDocument", Content::Document(link)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::ids::MessageId;

    fn sent(to: &str, content: OutboundContent) -> Result<(&'static str, Value), ErrorCode> {
        let message = OutboundMessage { id: MessageId::new("01T"), to: to.to_owned(), content };
        let (method, body) = body(&message).map_err(|failure| failure.code)?;
        Ok((method, serde_json::from_slice(&body).unwrap()))
    }

    fn media(media: MediaKind, link: &str, caption: &str) -> OutboundContent {
        OutboundContent::Media { media, link: link.into(), caption: caption.into(), filename: "f".into() }
    }

    #[test]
    fn every_kind_has_its_method_and_its_fields() {
        let text = OutboundContent::Text("<b>1 < 2</b>".into());
        assert_eq!(
            sent("tg.512000111", text).unwrap(),
            ("sendMessage", json!({"chat_id": 512_000_111, "text": "<b>1 < 2</b>"}))
        );
        let at = |name: &str| format!("https://x.example/{name}");
        for (kind, name, caption, method, key) in [
            (MediaKind::Image, "a.png", "Фото", "sendPhoto", "photo"),
            (MediaKind::Video, "a.mp4", "", "sendVideo", "video"),
            (MediaKind::Audio, "a.mp3", "Песня", "sendAudio", "audio"),
            (MediaKind::Audio, "a.OGG?x=1", "", "sendVoice", "voice"),
            (MediaKind::Document, "a.pdf", "Счёт", "sendDocument", "document"),
        ] {
            let mut expected = json!({"chat_id": -100_198_765, key: at(name)});
            if !caption.is_empty() {
                expected["caption"] = json!(caption);
            }
            assert_eq!(sent("tg.-100198765", media(kind, &at(name), caption)).unwrap(), (method, expected));
        }
        let named = sent("tg.@shop_news", OutboundContent::Text("a".into())).unwrap();
        assert_eq!(named.1, json!({"chat_id": "@shop_news", "text": "a"}));
    }

    #[test]
    fn a_change_names_the_message_by_its_number() {
        let of = || ProviderMessageId("512000111:61".into());
        let edit = |caption| OutboundContent::Edit { of: of(), body: "Новые слова".into(), caption };
        let (method, body) = sent("tg.512000111", edit(false)).unwrap();
        assert_eq!(method, "editMessageText");
        assert_eq!(body, json!({"chat_id": 512_000_111, "message_id": 61, "text": "Новые слова"}));
        let (method, body) = sent("tg.512000111", edit(true)).unwrap();
        assert_eq!((method, &body["caption"]), ("editMessageCaption", &json!("Новые слова")));
        let (method, body) = sent("tg.512000111", OutboundContent::Withdraw { of: of() }).unwrap();
        assert_eq!((method, body), ("deleteMessage", json!({"chat_id": 512_000_111, "message_id": 61})));
        let foreign = OutboundContent::Withdraw { of: ProviderMessageId("wamid.X".into()) };
        assert_eq!(sent("tg.512000111", foreign), Err(ErrorCode::CannotChange));
    }

    #[test]
    fn a_phone_never_leaves_as_the_number_of_a_chat() {
        for to in ["79161234567", "+79161234567", "max.42", "tg.", "tg.x", ""] {
            assert_eq!(sent(to, OutboundContent::Text("a".into())), Err(ErrorCode::CannotWriteFirst), "{to}");
        }
    }
}
