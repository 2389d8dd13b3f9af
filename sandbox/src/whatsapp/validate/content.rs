//! Text, media, location, contacts, reaction. Source: §2.3–§2.7.

use serde_json::Value;

use super::{Obj, Result};
use crate::whatsapp::{
    error::GraphError,
    ledger::{MediaShown, Shown},
};

const TEXT_MAX: usize = 4096;
const CAPTION_MAX: usize = 1024;
/// The OpenAPI file says five, a guide page 257; the stricter one is simulated.
const CONTACTS_MAX: usize = 5;

pub(super) fn text(text: &Obj<'_>, shown: &mut Shown) -> Result<()> {
    text.only(&["body", "preview_url"])?;
    text.flag("preview_url")?;
    let body = text.need_text("body")?;
    if body.chars().count() > TEXT_MAX {
        return Err(GraphError::new(100, "Param text['body'] must be at most 4096 characters long."));
    }
    if body.trim().is_empty() {
        return Err(GraphError::new(100, "Param text['body'] must not be blank."));
    }
    body.clone_into(&mut shown.text);
    Ok(())
}

/// `{id}` or `{link}`, and what the kind allows beside it.
pub(crate) fn media(kind: &str, media: &Obj<'_>, shown: &mut Shown) -> Result<()> {
    let known: &[&str] = match kind {
        "image" | "video" => &["id", "link", "caption"],
        "document" => &["id", "link", "caption", "filename"],
        "audio" => &["id", "link", "voice"],
        _ => &["id", "link"],
    };
    media.only(known)?;
    media.flag("voice")?;
    let (id, link) = (media.text("id")?, media.text("link")?);
    match (id, link) {
        (Some(_), Some(_)) => {
            return Err(GraphError::new(100, format!("Param {kind}: only one of id and link is allowed.")));
        }
        (None, None) => {
            return Err(GraphError::new(131_008, format!("The parameter {kind}['id'] or {kind}['link'] is required.")));
        }
        (Some(id), None) if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_digit()) => {
            return Err(GraphError::new(
                100,
                format!("Param {kind}['id'] is not a valid whatsapp business account media attachment ID"),
            ));
        }
        (None, Some(link)) if reqwest::Url::parse(link).is_err() => {
            return Err(GraphError::new(100, format!("Param {kind}['link'] is not a valid URI.")));
        }
        _ => {}
    }
    let caption = media.short_or_none("caption", CAPTION_MAX)?.unwrap_or("");
    caption.clone_into(&mut shown.text);
    shown.media = Some(MediaShown {
        kind: kind.to_owned(),
        id: id.unwrap_or("").to_owned(),
        link: link.unwrap_or("").to_owned(),
        filename: media.text("filename")?.unwrap_or("").to_owned(),
        caption: caption.to_owned(),
    });
    Ok(())
}

pub(crate) fn location(location: &Obj<'_>, shown: &mut Shown) -> Result<()> {
    location.only(&["latitude", "longitude", "name", "address"])?;
    for (key, limit) in [("latitude", 90.0), ("longitude", 180.0)] {
        let number = match location.get(key) {
            None => return Err(location.missing(key)),
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        if number.is_none_or(|number: f64| number.abs() > limit) {
            return Err(GraphError::new(131_009, format!("Param {} is not a coordinate.", location.place(key))));
        }
    }
    location.text("address")?;
    location.text("name")?.unwrap_or("").clone_into(&mut shown.text);
    shown.raw = location.value();
    Ok(())
}

pub(super) fn contacts(body: &Obj<'_>, shown: &mut Shown) -> Result<()> {
    let mut names = Vec::new();
    for contact in body.need_objects("contacts", CONTACTS_MAX)? {
        contact.only(&["name", "birthday", "phones", "emails", "urls", "addresses", "org"])?;
        let name = contact.need_sub("name")?;
        let parts = ["first_name", "last_name", "middle_name", "prefix", "suffix"];
        name.only(&[&parts[..], &["formatted_name"]].concat())?;
        names.push(name.need_text("formatted_name")?.to_owned());
        let mut has_part = false;
        for part in parts {
            has_part |= name.text(part)?.is_some_and(|text| !text.is_empty());
        }
        if !has_part {
            let details =
                format!("{}: formatted_name needs at least one other part of the name.", contact.place("name"));
            return Err(GraphError::new(131_009, details));
        }
        if let Some(birthday) = contact.text("birthday")?
            && !is_date(birthday)
        {
            return Err(GraphError::new(131_009, format!("Param {} must be YYYY-MM-DD.", contact.place("birthday"))));
        }
        let lists: [(&str, &[&str]); 4] = [
            ("phones", &["phone", "type", "wa_id"]),
            ("emails", &["email", "type"]),
            ("urls", &["url", "type"]),
            ("addresses", &["street", "city", "state", "zip", "country", "country_code", "type"]),
        ];
        for (list, keys) in lists {
            if contact.list(list)?.is_some_and(|values| !values.is_empty()) {
                for entry in contact.need_objects(list, 100)? {
                    entry.only(keys)?;
                }
            }
        }
        if let Some(org) = contact.sub("org")? {
            org.only(&["company", "department", "title"])?;
        }
    }
    shown.text = names.join(", ");
    shown.raw = body.get("contacts").cloned().unwrap_or_default();
    Ok(())
}

fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 10
        && bytes
            .iter()
            .enumerate()
            .all(|(at, byte)| if at == 4 || at == 7 { *byte == b'-' } else { byte.is_ascii_digit() })
}

pub(super) fn reaction(reaction: &Obj<'_>, shown: &mut Shown) -> Result<(String, String)> {
    reaction.only(&["message_id", "emoji"])?;
    let message_id = reaction.need_text("message_id")?;
    let emoji = reaction.text("emoji")?.ok_or_else(|| reaction.missing("emoji"))?;
    let is_emoji = emoji.chars().count() <= 10 && !emoji.chars().any(|symbol| symbol.is_ascii_alphanumeric());
    if !is_emoji {
        return Err(GraphError::new(131_009, "Param reaction['emoji'] must be one emoji or empty."));
    }
    emoji.clone_into(&mut shown.text);
    Ok((message_id.to_owned(), emoji.to_owned()))
}
