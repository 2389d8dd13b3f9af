//! Our lines as SMS senders of a portal: registered, called, and their statuses told (protocol reference, section "SMS
//! senders", read 2026-11).
//!
//! The portal's SMS knows no words for a status, only five of them: why a message was not sent stands in the comment on its
//! card, like that of a robot's. The portal says "sent" by itself as soon as it has called us.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::batch::Batch;
use super::errors::store_down;
use super::reconcile::entry;
use super::wire::{Auth, Document, WireError};
use super::{Bitrix24, sha256_hex};
use crate::crm::SmsSenders;
use crate::crm::asked::asked;
use crate::domain::command::{Command, Reply, WaitFor};
use crate::domain::effect::{ActionResult, CrmError};
use crate::domain::ids::{CommandId, PortalId, ReplyToken};
use crate::domain::outcome::ErrorCode;
use crate::domain::portal::{CardKind, CardRef, Portal};
use crate::domain::sms::{SmsPlace, SmsSender};
use crate::domain::time::{Millis, Timestamp};
use crate::forms::{at, integer, items, member, text, texts};

const ADD: &str = "messageservice.sender.add";
const UPDATE: &str = "messageservice.sender.update";
const DELETE: &str = "messageservice.sender.delete";
const LIST: &str = "messageservice.sender.list";
/// Tells a message's status.
pub(super) const STATUS: &str = "messageservice.message.status.update";
/// Senders of ours begin so; what begins otherwise is none of ours to delete.
const OURS: &str = "mostik_";
/// A delivery is waited for so long: WhatsApp repeats its callbacks for up to seven days.
const WAIT: Millis = Millis::hours(7 * 24);
/// Beginning of the token that tells which message a status is for.
const TOKEN: &str = "sms:";
/// Longest id of a message; the portal's have 32 characters.
const ID_MAX: usize = 64;

/// A message that the portal wants sent through one of our senders. Nothing is trusted yet.
pub struct SmsCall {
    /// Code of the sender.
    pub code: String,
    /// The portal's id of the message.
    pub message_id: String,
    /// Addressee, as the portal has it.
    pub to: String,
    /// The text.
    pub body: String,
    /// The card it is about, if it is about one.
    pub card: Option<CardRef>,
    /// Who sends; absent when an automation without a user does.
    pub auth: Option<Auth>,
}

/// Reads a message from its decoded form.
///
/// # Errors
/// `Malformed` without a code or an id, or with an `auth` that cannot be read.
pub fn sms_call(form: &Value) -> Result<SmsCall, WireError> {
    let some = |key: &str| member(form, key).and_then(text).filter(|found| !found.trim().is_empty());
    let old = |key: &str| at(form, &["properties", key]).and_then(text);
    let plain = |id: &String| id.len() <= ID_MAX && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let message_id = some("message_id").filter(plain);
    let auth = match member(form, "auth") {
        Some(_) => match Auth::read(form) {
            Ok(auth) => Some(auth),
            // An automation without a user sends an empty one at most; the address proves the call then.
            Err(WireError::Unsigned(_)) => None,
            Err(error @ WireError::Malformed(_)) => return Err(error),
        },
        None => None,
    };
    Ok(SmsCall {
        code: some("code").ok_or_else(|| WireError::Malformed("code is missing".to_owned()))?,
        message_id: message_id.ok_or_else(|| WireError::Malformed("message_id is missing".to_owned()))?,
        to: some("message_to").or_else(|| old("phone_number")).unwrap_or_default(),
        body: some("message_body").or_else(|| old("message_text")).unwrap_or_default(),
        card: card_of(form),
        auth,
    })
}

/// The card a message is about: a deal or another document before the person behind it.
fn card_of(form: &Value) -> Option<CardRef> {
    let of_binding = |binding: &Value| {
        let number = |key: &str| member(binding, key).and_then(integer);
        let kind = match number("OWNER_TYPE_ID")? {
            1 => CardKind::Lead,
            2 => CardKind::Deal,
            3 => CardKind::Contact,
            4 => CardKind::Company,
            7 => CardKind::Quote,
            14 => CardKind::Order,
            31 => CardKind::Invoice,
            custom => CardKind::Custom(u32::try_from(custom).ok().filter(|custom| *custom >= 128)?),
        };
        let id = u64::try_from(number("OWNER_ID")?).ok().filter(|id| *id > 0)?;
        Some(CardRef { kind, id })
    };
    let bound = member(form, "bindings").map(items).unwrap_or_default();
    let mut cards: Vec<CardRef> = bound.into_iter().filter_map(of_binding).collect();
    cards.sort_by_key(|card| matches!(card.kind, CardKind::Contact | CardKind::Company));
    let part = |index: &str| at(form, &["document_id", index]).and_then(text).unwrap_or_default();
    let document = Document { module: part("0"), entity: part("1"), id: part("2") };
    cards.first().copied().or_else(|| document.card())
}

/// Puts a message into the product's words. Never fails: what cannot be carried out says why.
#[must_use]
pub fn sms_command(portal: &PortalId, sender: &SmsSender, call: &SmsCall, id: CommandId, now: Timestamp) -> Command {
    let mut values: BTreeMap<String, Value> = [
        ("recipients", "given"),
        ("phones", call.to.as_str()),
        ("line", sender.line.as_str()),
        ("messenger", sender.messenger.code()),
        ("text", call.body.as_str()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), json!(value)))
    .collect();
    if let Some(template) = &sender.template {
        values.insert("fallback_template".to_owned(), json!(template.label()));
        values.insert("params".to_owned(), json!([call.body]));
    }
    let asked = asked("send_message", &values);
    let token = ReplyToken(format!("{TOKEN}{}:{}", call.code, call.message_id));
    Command {
        id,
        portal: portal.clone(),
        dedupe_key: format!("{TOKEN}{}", call.message_id),
        card: call.card,
        reply: Some(Reply { token, wait: WaitFor::Delivered, answer_by: now.plus(WAIT) }),
        comment: true,
        responsible: None,
        received: now,
        robot: None,
        body: asked.body,
    }
}

/// Code of the sender and id of the message, if a result is for one.
pub(super) fn of_token(token: &str) -> Option<(&str, &str)> {
    token.strip_prefix(TOKEN)?.rsplit_once(':')
}

/// The status that tells a result; `None` when "sent", which the portal says by itself, is all that is known.
pub(super) fn status_of(result: &ActionResult) -> Option<&'static str> {
    match result.error {
        // Nobody knows whether it left; who reads "failed" sends it again.
        Some(ErrorCode::Undecided) => None,
        Some(_) if result.in_time => Some("failed"),
        Some(_) => None,
        None if result.delivered_at.is_some() => Some("delivered"),
        None => None,
    }
}

impl Bitrix24 {
    fn sender_key(code: &str) -> String {
        format!("sms:{code}")
    }
}

#[async_trait]
impl SmsSenders for Bitrix24 {
    async fn reconcile_senders(&self, portal: &Portal, wanted: &[SmsPlace]) -> Result<(), CrmError> {
        let sent = self.store.load_registrations(&portal.id).await.map_err(store_down)?;
        let ever = sent.iter().any(|(key, _)| key.starts_with(TOKEN));
        if wanted.is_empty() && !ever {
            return Ok(());
        }
        let mut look = Batch::default();
        let at = look.push(LIST, &[]);
        let answer = self.client.batch(portal, &look).await.map_err(|failed| failed.error(true))?;
        let known: Vec<String> = entry(&answer, at).map(texts)?;
        let mut batch = Batch::default();
        let mut keys: Vec<(String, Option<String>)> = Vec::new();
        for place in wanted {
            let key = Self::sender_key(&place.code);
            let print = sha256_hex(place.print.as_bytes());
            let stands = known.iter().any(|code| code.eq_ignore_ascii_case(&place.code));
            if stands && sent.iter().any(|(kept, kept_print)| *kept == key && *kept_print == print) {
                continue;
            }
            let mut params = vec![
                ("CODE", place.code.as_str().into()),
                ("HANDLER", place.handler.as_str().into()),
                ("NAME", place.name.as_str().into()),
            ];
            if !stands {
                params.push(("TYPE", "SMS".into()));
            }
            batch.push(if stands { UPDATE } else { ADD }, &params);
            keys.push((key, Some(print)));
        }
        let strange = known.iter().filter(|code| code.to_ascii_lowercase().starts_with(OURS));
        for code in strange.filter(|code| wanted.iter().all(|place| !place.code.eq_ignore_ascii_case(code))) {
            batch.push(DELETE, &[("CODE", code.as_str().into())]);
            keys.push((Self::sender_key(code), None));
        }
        if batch.is_empty() {
            return Ok(());
        }
        let answer = self.client.batch(portal, &batch).await.map_err(|failed| failed.error(true))?;
        let mut problem = None;
        for (at, (key, print)) in keys.into_iter().enumerate() {
            match entry(&answer, at) {
                Ok(_) => self.store.save_registration(&portal.id, &key, print.as_deref()).await.map_err(store_down)?,
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        tracing::info!(portal.id = %portal.id, senders = wanted.len(), "SMS senders compared");
        problem.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::channel::Messenger;
    use crate::domain::command::CommandBody;
    use crate::domain::ids::LineId;
    use crate::domain::template::TemplateRef;
    use crate::forms::{FormLimits, decode};

    fn form(more: &str) -> Value {
        let text =
            format!("code=c&message_id=0cc175b9c0f1b6a831c399e269772661&message_to=%2B7916&message_body=Hi{more}");
        decode(text.as_bytes(), FormLimits::default()).unwrap()
    }

    fn sender(template: Option<&str>) -> SmsSender {
        SmsSender {
            messenger: Messenger::Whatsapp,
            line: LineId::stored("line_01JD".to_owned()),
            template: template.and_then(TemplateRef::parse),
        }
    }

    #[test]
    fn a_message_is_about_its_document_before_its_person() {
        let both = "&module_id=crm&bindings[0][OWNER_TYPE_ID]=3&bindings[0][OWNER_ID]=17\
            &bindings[1][OWNER_TYPE_ID]=2&bindings[1][OWNER_ID]=134";
        assert_eq!(sms_call(&form(both)).unwrap().card.unwrap().to_string(), "deal:134");
        let robot = "&document_id[0]=crm&document_id[1]=CCrmDocumentLead&document_id[2]=LEAD_5";
        assert_eq!(sms_call(&form(robot)).unwrap().card.unwrap().to_string(), "lead:5");
        assert_eq!(sms_call(&form("&bindings[0][OWNER_TYPE_ID]=99&bindings[0][OWNER_ID]=1")).unwrap().card, None);
        assert!(sms_call(&form("")).unwrap().auth.is_none());
        assert!(sms_call(&form("&auth[domain]=x")).unwrap().auth.is_none());
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for text in ["message_id=0cc1", "code=c", "code=c&message_id=a:b", "code=c&message_id=a%20b"] {
            let form = decode(text.as_bytes(), FormLimits::default()).unwrap();
            assert!(matches!(sms_call(&form), Err(WireError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn a_message_is_a_letter_with_its_text_as_the_template_s_parameter() {
        let call = sms_call(&form("")).unwrap();
        let portal = PortalId::stored("prt_1".to_owned());
        let command = |sender: &SmsSender| {
            sms_command(&portal, sender, &call, CommandId::stored("cmd_1".to_owned()), Timestamp(0))
        };
        let made = command(&sender(Some("sms:ru")));
        let CommandBody::SendMessage(send) = &made.body else { panic!("{:?}", made.body) };
        assert_eq!((send.text.as_str(), send.recipients.phones.as_slice()), ("Hi", &["+7916".to_owned()][..]));
        assert_eq!(send.fallback.as_ref().unwrap().params, ["Hi"]);
        let reply = made.reply.unwrap();
        assert_eq!(of_token(reply.token.as_str()), Some(("c", "0cc175b9c0f1b6a831c399e269772661")));
        assert_eq!(of_token("6b4d|A1|kW"), None);
        let CommandBody::SendMessage(send) = command(&sender(None)).body else { panic!("not sent") };
        assert_eq!((send.fallback, send.line.as_str()), (None, "line_01JD"));
        assert_eq!(sender(None).code(), "mostik_whatsapp_line_01jd");
    }

    #[test]
    fn only_what_is_known_is_told() {
        let result = |error, in_time, delivered_at| ActionResult { error, in_time, delivered_at, ..Default::default() };
        assert_eq!(status_of(&result(None, true, Some(Timestamp(1)))), Some("delivered"));
        assert_eq!(status_of(&result(None, true, None)), None, "taken by a messenger that tells no more");
        assert_eq!(status_of(&result(Some(ErrorCode::WindowClosed), true, None)), Some("failed"));
        assert_eq!(status_of(&result(Some(ErrorCode::Undecided), true, None)), None);
        assert_eq!(status_of(&result(None, false, None)), None, "nobody knows after a week");
    }
}
