//! What happens in chats of our connectors, as the portal tells it (protocol reference, section "Outgoing events", read
//! 2026-11). The shapes differ from event to event: lower-case keys here, a scalar there.

use serde_json::Value;

use super::bbcode;
use super::wire::WireError;
use crate::domain::capability::MediaKind;
use crate::domain::channel::Messenger;
use crate::domain::chat::{AnswerChange, ChatFile, ChatKey, ChatReference, OperatorMessage};
use crate::domain::ids::{CrmUserId, ProviderMessageId};
use crate::domain::message::ChangeKind;
use crate::domain::time::Timestamp;
use crate::forms::{items, member, text, text_at, texts};

/// Operators' messages of one event, in the order of their numbers.
///
/// Elements about chats that are none of ours cannot be answered by anybody and are passed over; `connector` tells which
/// connector they are of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OperatorEvent {
    /// The connector, lower case.
    pub connector: String,
    /// The messages; their messenger is that of the connector and is filled in by whoever knows it.
    pub messages: Vec<RawMessage>,
}

/// One message of an operator, before its connector was looked up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawMessage {
    place: String,
    chat: ChatKey,
    reference: ChatReference,
    author: Option<CrmUserId>,
    text: String,
    files: Vec<ChatFile>,
    change: Option<AnswerChange>,
}

impl RawMessage {
    /// The message in the product's words.
    #[must_use]
    pub fn into_message(self, messenger: Messenger) -> OperatorMessage {
        OperatorMessage {
            chat: self.chat,
            messenger,
            place: self.place,
            reference: self.reference,
            author: self.author,
            text: bbcode::parse(&self.text),
            files: self.files,
            written: None,
            echo_of: None,
            change: self.change,
        }
    }
}

/// Reads the data of `ONIMCONNECTORMESSAGEADD`.
///
/// # Errors
/// `Malformed` without connector or line, or when an element lacks a number.
pub(super) fn operator_event(data: &Value) -> Result<OperatorEvent, WireError> {
    let lacks = |what: &str| WireError::Malformed(format!("data[{what}] is missing"));
    let some = |key: &str| Some(text_at(data, &[key])).filter(|found| !found.is_empty());
    let connector = some("CONNECTOR").ok_or_else(|| lacks("CONNECTOR"))?.to_ascii_lowercase();
    let place = some("LINE").ok_or_else(|| lacks("LINE"))?;
    let mut messages = Vec::new();
    for element in items(member(data, "MESSAGES").unwrap_or(&Value::Null)) {
        let reference = ChatReference {
            chat: text_at(element, &["im", "chat_id"]),
            message: text_at(element, &["im", "message_id"]),
        };
        if reference.chat.is_empty() || reference.message.is_empty() {
            return Err(lacks("MESSAGES][im"));
        }
        let Some(chat) = ChatKey::parse(&text_at(element, &["chat", "id"])) else {
            tracing::warn!(connector, "an operator's message in a chat that is none of ours");
            continue;
        };
        let author = text_at(element, &["message", "user_id"]);
        let files = element.pointer("/message/files").map(items).unwrap_or_default();
        messages.push(RawMessage {
            place: place.clone(),
            chat,
            reference,
            author: Some(author).filter(|id| !id.is_empty() && id != "0").map(CrmUserId),
            text: text_at(element, &["message", "text"]),
            files: files.into_iter().map(file).collect(),
            change: None,
        });
    }
    messages.sort_by_key(|message| message.reference.message.parse::<u64>().unwrap_or(u64::MAX));
    Ok(OperatorEvent { connector, messages })
}

/// Reads the data of `ONIMCONNECTORMESSAGEUPDATE` and `ONIMCONNECTORMESSAGEDELETE`: what operators did to messages whose
/// ids the portal knows. An edit names all ids of its message at once, a deletion each in an element of its own; they are
/// put together again, so that one message is one change.
///
/// # Errors
/// As [`operator_event`].
pub(super) fn change_event(data: &Value, kind: ChangeKind, raised: Timestamp) -> Result<OperatorEvent, WireError> {
    let OperatorEvent { connector, messages: read } = operator_event(data)?;
    let elements = items(member(data, "MESSAGES").unwrap_or(&Value::Null)).into_iter();
    let ids: Vec<(String, Vec<String>)> = elements
        .map(|element| {
            let id = element.pointer("/message/id").unwrap_or(&Value::Null);
            (text_at(element, &["im", "message_id"]), texts(id))
        })
        .collect();
    let mut messages: Vec<RawMessage> = Vec::new();
    for raw in read {
        if messages.iter().any(|known| known.reference == raw.reference) {
            continue;
        }
        let own = ids.iter().filter(|(number, _)| *number == raw.reference.message).flat_map(|(_, ids)| ids);
        let mut of: Vec<ProviderMessageId> = Vec::new();
        for id in own.filter(|id| !id.is_empty()).map(|id| ProviderMessageId(id.clone())) {
            if !of.contains(&id) {
                of.push(id);
            }
        }
        messages.push(RawMessage { change: Some(AnswerChange { kind, of, raised }), ..raw });
    }
    Ok(OperatorEvent { connector, messages })
}

fn file(value: &Value) -> ChatFile {
    let name = text_at(value, &["name"]);
    let mime = text_at(value, &["mime"]).to_ascii_lowercase();
    let by_name = MediaKind::of_name(&name);
    // The name decides what the messenger takes: a picture of a kind it does not show goes as a file.
    let media = match text_at(value, &["type"]).as_str() {
        "file" if !mime.starts_with("audio/") => MediaKind::Document,
        _ => by_name,
    };
    // The second link may be a path of the portal.
    let links = [text_at(value, &["link"]), text_at(value, &["downloadLink"])];
    let link = links.into_iter().find(|link| !link.trim().is_empty()).unwrap_or_default();
    ChatFile { name, media, link }
}

/// Connector and line of `ONIMCONNECTORSTATUSDELETE`, whose keys are in lower case.
pub(super) fn status_deleted(data: &Value) -> (String, String) {
    (text_at(data, &["connector"]).to_ascii_lowercase(), text_at(data, &["line"]))
}

/// The line of `ONIMCONNECTORLINEDELETE`, whose data is a scalar.
pub(super) fn line_deleted(data: &Value) -> String {
    text(data).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forms::{FormLimits, decode};

    #[test]
    fn an_operators_message_is_read_from_the_documented_form() {
        let form = b"data%5BCONNECTOR%5D=Mostik_Main_Whatsapp&data%5BLINE%5D=7\
            &data%5BMESSAGES%5D%5B0%5D%5Bim%5D%5Bchat_id%5D=1767&data%5BMESSAGES%5D%5B0%5D%5Bim%5D%5Bmessage_id%5D=86498\
            &data%5BMESSAGES%5D%5B0%5D%5Bmessage%5D%5Buser_id%5D=0&data%5BMESSAGES%5D%5B0%5D%5Bmessage%5D%5Btext%5D=later\
            &data%5BMESSAGES%5D%5B0%5D%5Bchat%5D%5Bid%5D=chan_01J%3A4915112345678\
            &data%5BMESSAGES%5D%5B1%5D%5Bim%5D%5Bchat_id%5D=1767&data%5BMESSAGES%5D%5B1%5D%5Bim%5D%5Bmessage_id%5D=86497\
            &data%5BMESSAGES%5D%5B1%5D%5Bmessage%5D%5Buser_id%5D=27\
            &data%5BMESSAGES%5D%5B1%5D%5Bmessage%5D%5Btext%5D=%5Bb%5DYes%5B%2Fb%5D%5Bbr%5Dtwo+left\
            &data%5BMESSAGES%5D%5B1%5D%5Bmessage%5D%5Bfiles%5D%5B0%5D%5Bname%5D=offer.pdf\
            &data%5BMESSAGES%5D%5B1%5D%5Bmessage%5D%5Bfiles%5D%5B0%5D%5Btype%5D=file\
            &data%5BMESSAGES%5D%5B1%5D%5Bmessage%5D%5Bfiles%5D%5B0%5D%5Bmime%5D=application%2Fpdf\
            &data%5BMESSAGES%5D%5B1%5D%5Bmessage%5D%5Bfiles%5D%5B0%5D%5Blink%5D=https%3A%2F%2Facme.example%2F~Ab3dE\
            &data%5BMESSAGES%5D%5B1%5D%5Bchat%5D%5Bid%5D=chan_01J%3A4915112345678\
            &data%5BMESSAGES%5D%5B2%5D%5Bim%5D%5Bchat_id%5D=9&data%5BMESSAGES%5D%5B2%5D%5Bim%5D%5Bmessage_id%5D=3\
            &data%5BMESSAGES%5D%5B2%5D%5Bchat%5D%5Bid%5D=somebody";
        let form = decode(form, FormLimits::default()).unwrap();
        let event = operator_event(&form["data"]).unwrap();
        assert_eq!(event.connector, "mostik_main_whatsapp");
        let messages: Vec<_> = event.messages.into_iter().map(|raw| raw.into_message(Messenger::Whatsapp)).collect();
        assert_eq!(messages.len(), 2, "a foreign chat is passed over");
        let first = &messages[0];
        assert_eq!((first.place.as_str(), first.reference.message.as_str()), ("7", "86497"));
        assert_eq!(first.text.render(Messenger::Whatsapp), "*Yes*\ntwo left");
        assert_eq!((first.files[0].media, first.files[0].name.as_str()), (MediaKind::Document, "offer.pdf"));
        assert_eq!(first.author, Some(CrmUserId("27".into())));
        assert_eq!((messages[1].author.clone(), messages[1].text.plain()), (None, "later".into()));
    }

    #[test]
    fn changes_name_the_ids_of_their_messages_in_one_list_or_one_by_one() {
        let element = |id: &str, at: usize| {
            format!(
                "&data%5BMESSAGES%5D%5B{at}%5D%5Bim%5D%5Bchat_id%5D=1767&data%5BMESSAGES%5D%5B{at}%5D%5Bim%5D%5Bmessage_id%5D=86497\
                 {id}&data%5BMESSAGES%5D%5B{at}%5D%5Bchat%5D%5Bid%5D=chan_01J%3Atg.5"
            )
        };
        let id = |at: usize, rest: &str, value: &str| {
            format!("&data%5BMESSAGES%5D%5B{at}%5D%5Bmessage%5D%5Bid%5D{rest}={value}")
        };
        let read = |elements: &str, kind| {
            let form = format!("data%5BCONNECTOR%5D=mostik_main_telegram&data%5BLINE%5D=7{elements}");
            let form = decode(form.as_bytes(), FormLimits::default()).unwrap();
            change_event(&form["data"], kind, Timestamp(9)).unwrap().messages
        };
        let list = id(0, "%5B0%5D", "5%3A1") + &id(0, "%5B1%5D", "5%3A2");
        let edits = read(&element(&list, 0), ChangeKind::Edit);
        let each = element(&id(0, "", "5%3A1"), 0) + &element(&id(1, "", "5%3A2"), 1);
        let deletions = read(&each, ChangeKind::Withdraw);
        for (messages, kind) in [(edits, ChangeKind::Edit), (deletions, ChangeKind::Withdraw)] {
            let [message] = messages.as_slice() else { panic!("one message, one change: {messages:?}") };
            let of = ["5:1", "5:2"].map(|id| ProviderMessageId(id.to_owned())).to_vec();
            assert_eq!(message.change, Some(AnswerChange { kind, of, raised: Timestamp(9) }));
        }
        let old = read(&element(&id(0, "", "5%3A1"), 0), ChangeKind::Edit);
        assert_eq!(old[0].change.as_ref().unwrap().of.len(), 1, "older portals name one id alone");
    }

    #[test]
    fn the_odd_shapes_of_the_other_events_are_read() {
        let read = |form: &[u8]| decode(form, FormLimits::default()).unwrap();
        let status = read(b"data%5Bconnector%5D=mostik_main_whatsapp&data%5Bline%5D=7");
        assert_eq!(status_deleted(&status["data"]), ("mostik_main_whatsapp".into(), "7".into()));
        assert_eq!(line_deleted(&read(b"data=7")["data"]), "7");
        assert!(operator_event(&serde_json::json!({"CONNECTOR": "x"})).is_err());
    }
}
