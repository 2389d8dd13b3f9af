//! Hooks of the chats service: what operators write (protocol reference, sections 7.6, 7.9 and 7.10, read 2026-11).
//!
//! A hook comes once and is never repeated, so what can be understood of it is taken. Unknown fields appear over time, and
//! optional ones may be missing, `null` or empty; kinds that are nothing to us are no errors.

use serde_json::Value;

use super::{Amocrm, amojo};
use crate::domain::capability::MediaKind;
use crate::domain::chat::{ChatFile, ChatKey, ChatReference, WrittenInChat};
use crate::domain::markup::{Markup, Style};
use crate::domain::time::Timestamp;
use crate::forms::{integer, items, member, text_at};

/// Why a hook is not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HookError {
    /// It is of another account than its address says.
    #[error("the account is not that of the address")]
    Foreign,
    /// It cannot be read.
    #[error("{0}")]
    Malformed(String),
}

impl Amocrm {
    /// True when this body was signed with the secret of the integration's channel of chats.
    #[must_use]
    pub fn proves_chat_hook(&self, app: &str, signature: &str, body: &[u8]) -> bool {
        self.chat_keys(app).is_some_and(|keys| amojo::signs_hook(&keys.secret, signature, body))
    }
}

/// Reads a proved hook that came for the chats of this name; `None` for what is nothing to us.
///
/// # Errors
/// [`HookError`].
pub fn read(scope: &str, body: &[u8]) -> Result<Option<WrittenInChat>, HookError> {
    let hook: Value = serde_json::from_slice(body).map_err(|_unread| HookError::Malformed("no JSON".to_owned()))?;
    let account = text_at(&hook, &["account_id"]);
    if account.is_empty() || !scope.ends_with(&format!("_{account}")) {
        return Err(HookError::Foreign);
    }
    // Somebody types, or reacts; or a kind that came up later.
    let Some(told) = member(&hook, "message").filter(|told| told.is_object()) else { return Ok(None) };
    let at = |path: &[&str]| text_at(told, path);
    let lacks = |what: &str| HookError::Malformed(format!("message.{what} is missing"));
    let some = |path: &[&str], what: &str| Some(at(path)).filter(|found| !found.is_empty()).ok_or_else(|| lacks(what));
    let reference = ChatReference {
        chat: some(&["conversation", "id"], "conversation.id")?,
        message: some(&["message", "id"], "message.id")?,
    };
    // It becomes a part of addresses.
    if !reference.message.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(HookError::Malformed("message.message.id is none".to_owned()));
    }
    let own_name = at(&["conversation", "client_id"]);
    let chat = match own_name.is_empty() {
        true => None,
        // Of another system on the same channel: nobody here can answer, and the author is told so.
        false => Some(ChatKey::parse(&own_name).unwrap_or_else(|| nobodys(&own_name))),
    };
    let seconds = member(told, "timestamp").and_then(integer).unwrap_or_default();
    let written = member(told, "msec_timestamp").and_then(integer).filter(|at| *at > 0).unwrap_or(seconds * 1000);
    let content = member(told, "message").unwrap_or(&Value::Null);
    Ok(Some(WrittenInChat {
        chat,
        place: Some(at(&["source", "external_id"])).filter(|place| !place.is_empty()),
        phone: at(&["receiver", "phone"]),
        person: at(&["receiver", "id"]),
        reference,
        text: words(content),
        files: file(content).into_iter().collect(),
        written: Timestamp(written),
    }))
}

fn nobodys(name: &str) -> ChatKey {
    ChatKey { channel: crate::domain::ids::ChannelId::new("NONE"), peer: name.to_owned() }
}

/// The text, and below it the addresses of buttons, which messengers show as links.
fn words(content: &Value) -> Markup {
    let mut lines = vec![text_at(content, &["text"])];
    for row in content.pointer("/markup/buttons").map(items).unwrap_or_default() {
        for button in items(row) {
            let parts = [text_at(button, &["text"]), text_at(button, &["url"])];
            lines.push(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": "));
        }
    }
    lines.retain(|line| !line.trim().is_empty());
    let mut text = Markup::default();
    text.push(&lines.join("\n"), Style::default());
    text
}

fn file(content: &Value) -> Option<ChatFile> {
    let link = Some(text_at(content, &["media"])).filter(|link| !link.trim().is_empty())?;
    let named = text_at(content, &["file_name"]);
    let tail = link.split(['?', '#']).next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let name = if named.trim().is_empty() { tail.to_owned() } else { named };
    // The name decides what messengers take as what it is; the kind counts where there is no ending to judge by.
    let media = match (text_at(content, &["type"]).as_str(), name.contains('.')) {
        ("file", _) => MediaKind::Document,
        ("picture" | "sticker", false) => MediaKind::Image,
        ("video", false) => MediaKind::Video,
        ("voice" | "audio", false) => MediaKind::Audio,
        _ => MediaKind::of_name(&name),
    };
    Some(ChatFile { name, media, link })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::channel::Messenger;

    const SCOPE: &str = "chan_acc";

    fn hook(message: Value) -> Vec<u8> {
        json!({"account_id": "acc", "time": 1, "message": message}).to_string().into_bytes()
    }

    fn full() -> Value {
        json!({
            "receiver": {"id": "a7b8", "phone": "79005550101", "email": "", "client_id": "chan_01J:79005550101"},
            "sender": {"id": "d4e5"}, "conversation": {"id": "5e0c", "client_id": "chan_01J:79005550101"},
            "source": {"external_id": "whatsapp-01J"}, "timestamp": 1_770_110_159, "msec_timestamp": 1_770_110_159_870_i64,
            "message": {"id": "0f6d-2c1e", "type": "picture", "text": "Счёт", "tag": "", "media": "https://amojo.amocrm.ru/attachments/x/bill.jpg",
                "thumbnail": "", "file_name": "bill.jpg", "file_size": 0,
                "markup": {"mode": "inline", "buttons": [[{"text": "Оплатить", "url": "https://pay.example"}], [{"text": "Нет"}]]}},
        })
    }

    #[test]
    fn text_media_and_buttons_of_one_hook_are_all_read() {
        let written = read(SCOPE, &hook(full())).unwrap().unwrap();
        assert_eq!(written.chat.unwrap().to_string(), "chan_01J:79005550101");
        assert_eq!((written.place.as_deref(), written.written), (Some("whatsapp-01J"), Timestamp(1_770_110_159_870)));
        assert_eq!(written.text.render(Messenger::Telegram), "Счёт\nОплатить: https://pay.example\nНет");
        assert_eq!((written.files.len(), written.files[0].media), (1, MediaKind::Image));
    }

    #[test]
    fn whoever_is_written_to_first_has_a_phone_and_no_name_of_ours() {
        let mut first = full();
        first["conversation"] = json!({"id": "5e0c"});
        first["receiver"] = json!({"id": "a7b8", "phone": "79005550101", "email": null});
        first["source"] = Value::Null;
        first["message"] =
            json!({"id": "1", "type": "text", "text": "Hello", "markup": null, "media": "", "file_name": null});
        let written = read(SCOPE, &hook(first)).unwrap().unwrap();
        assert_eq!((written.chat, written.place, written.files.len()), (None, None, 0));
        assert_eq!((written.phone.as_str(), written.person.as_str()), ("79005550101", "a7b8"));
    }

    #[test]
    fn other_kinds_are_nothing_to_us_and_foreign_or_broken_ones_are_refused() {
        for kind in ["typing", "reaction", "later"] {
            let body = json!({"account_id": "acc", "time": 1, "action": {kind: {"user": {"id": "1"}}}}).to_string();
            assert_eq!(read(SCOPE, body.as_bytes()), Ok(None));
        }
        assert_eq!(read("chan_other", &hook(full())), Err(HookError::Foreign));
        for (path, value) in
            [("/conversation/id", json!("")), ("/message/id", json!("../connect")), ("/message/id", json!(null))]
        {
            let mut broken = full();
            *broken.pointer_mut(path).unwrap() = value;
            assert!(matches!(read(SCOPE, &hook(broken)), Err(HookError::Malformed(_))), "{path}");
        }
        assert!(matches!(read(SCOPE, b"{"), Err(HookError::Malformed(_))));
    }
}
