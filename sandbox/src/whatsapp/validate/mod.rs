//! Strict reading of a send request: every field known, of the right type, within its limit. Source: §2.
//!
//! Unknown or misspelt fields and wrong types are error 100, missing fields 131008, values outside their range 131009.

mod content;
mod interactive;
mod obj;

pub(crate) use content::{location, media};
pub(crate) use obj::Obj;

use serde_json::Value;

use super::{error::GraphError, ledger::Shown, phones};

type Result<T> = std::result::Result<T, GraphError>;

/// Longest `biz_opaque_callback_data`, characters.
const OPAQUE_MAX: usize = 512;

/// To whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Recipient {
    /// Dialled digits.
    Phone(String),
    /// Business-scoped user id.
    User(String),
}

/// A request that is good as far as it can be judged without the world around it.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) recipient: Recipient,
    /// As the answer repeats it.
    pub(crate) input: String,
    pub(crate) shown: Shown,
    pub(crate) opaque: Option<String>,
    pub(crate) reply_to: Option<String>,
    /// The `template` object, still to be held against the catalogue.
    pub(crate) template: Option<Obj<'a>>,
    /// `(message, emoji)` of a reaction.
    pub(crate) reaction: Option<(String, String)>,
}

/// A request to this edge.
#[derive(Debug)]
pub(crate) enum Asked<'a> {
    Send(Box<Draft<'a>>),
    /// Read mark, with or without typing.
    Read {
        message_id: String,
        typing: bool,
    },
}

const ENVELOPE: &[&str] = &[
    "messaging_product",
    "recipient_type",
    "to",
    "recipient",
    "type",
    "context",
    "biz_opaque_callback_data",
    "recipient_identity_key_hash",
];
const TYPES: &[&str] = &[
    "text",
    "image",
    "video",
    "audio",
    "document",
    "sticker",
    "location",
    "contacts",
    "reaction",
    "interactive",
    "template",
];

pub(crate) fn read(body: &Value) -> Result<Asked<'_>> {
    let body = Obj::root(body)?;
    if body.need_text("messaging_product")? != "whatsapp" {
        return Err(GraphError::new(100, "Param messaging_product must be one of {WHATSAPP}"));
    }
    if body.has("status") {
        return read_mark(&body);
    }
    let kind = body.text("type")?.unwrap_or("text");
    if !TYPES.contains(&kind) {
        return Err(GraphError::new(
            100,
            format!("Param type must be one of {{{}}} - got \"{kind}\"", TYPES.join(", ")),
        ));
    }
    let known: Vec<&str> = ENVELOPE.iter().copied().chain([kind]).collect();
    body.only(&known)?;
    match body.text("recipient_type")?.unwrap_or("individual") {
        "individual" => {}
        "group" => return Err(GraphError::new(131_215, "Groups are not simulated: this number is not eligible")),
        other => {
            return Err(GraphError::new(
                100,
                format!("Param recipient_type must be one of {{INDIVIDUAL, GROUP}} - got \"{other}\""),
            ));
        }
    }
    if body.has("recipient_identity_key_hash") {
        return Err(GraphError::new(137_000, "Identity hashes are not simulated: no hash matches"));
    }
    let (recipient, input) = recipient(&body)?;
    let opaque = body.text("biz_opaque_callback_data")?;
    if opaque.is_some_and(|opaque| opaque.chars().count() > OPAQUE_MAX) {
        return Err(GraphError::new(100, "Param biz_opaque_callback_data must be at most 512 characters long"));
    }
    let reply_to = match body.sub("context")? {
        Some(context) => {
            context.only(&["message_id"])?;
            Some(context.need_text("message_id")?.to_owned())
        }
        None => None,
    };
    let mut draft = Draft {
        recipient,
        input,
        shown: Shown { kind: kind.to_owned(), ..Shown::default() },
        opaque: opaque.map(str::to_owned),
        reply_to,
        template: None,
        reaction: None,
    };
    match kind {
        "text" => content::text(&body.need_sub("text")?, &mut draft.shown)?,
        "location" => location(&body.need_sub("location")?, &mut draft.shown)?,
        "contacts" => content::contacts(&body, &mut draft.shown)?,
        "reaction" => {
            if draft.reply_to.is_some() {
                return Err(GraphError::new(100, "context cannot be used with a reaction"));
            }
            draft.reaction = Some(content::reaction(&body.need_sub("reaction")?, &mut draft.shown)?);
        }
        "interactive" => interactive::read(&body.need_sub("interactive")?, &mut draft.shown)?,
        "template" => draft.template = Some(body.need_sub("template")?),
        kind => media(kind, &body.need_sub(kind)?, &mut draft.shown)?,
    }
    Ok(Asked::Send(Box::new(draft)))
}

fn read_mark<'a>(body: &Obj<'_>) -> Result<Asked<'a>> {
    body.only(&["messaging_product", "status", "message_id", "typing_indicator"])?;
    if body.need_text("status")? != "read" {
        return Err(GraphError::new(100, "Param status must be one of {READ}"));
    }
    let message_id = body.need_text("message_id")?.to_owned();
    let typing = match body.sub("typing_indicator")? {
        Some(typing) => {
            typing.only(&["type"])?;
            if typing.need_text("type")? != "text" {
                return Err(GraphError::new(100, "Param typing_indicator['type'] must be one of {TEXT}"));
            }
            true
        }
        None => false,
    };
    Ok(Asked::Read { message_id, typing })
}

/// `to` wins over `recipient`.
fn recipient(body: &Obj<'_>) -> Result<(Recipient, String)> {
    if let Some(to) = body.text("to")? {
        let digits = phones::digits(to);
        let digits = digits.ok_or_else(|| GraphError::new(131_009, format!("\"{to}\" is not a phone number")))?;
        return Ok((Recipient::Phone(digits), to.to_owned()));
    }
    if let Some(user) = body.text("recipient")? {
        let is_good = user.split_once('.').is_some_and(|(country, id)| {
            country.len() == 2
                && (1..=128).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')
        });
        if !is_good {
            return Err(GraphError::new(131_009, format!("\"{user}\" is not a business-scoped user id")));
        }
        return Ok((Recipient::User(user.to_owned()), user.to_owned()));
    }
    Err(GraphError::new(131_008, "The parameter to is required."))
}
