//! What the chats service takes: every field by its type, nothing it does not know. Source: §7.3, §7.4, §7.8.

use serde_json::{Map, Value};

use crate::clock::Millis;

/// A message, an edit, or a chat that is to be made.
#[derive(Default)]
pub(super) struct Said {
    pub(super) edits: bool,
    pub(super) msgid: String,
    pub(super) conversation_id: String,
    pub(super) conversation_ref: Option<String>,
    pub(super) silent: bool,
    pub(super) by_bot: bool,
    pub(super) sender_id: String,
    /// The client: the connector's id, amojo's if it was given, name and phone.
    pub(super) person_id: String,
    pub(super) person_ref: Option<String>,
    pub(super) name: String,
    pub(super) phone: String,
    pub(super) source: Option<String>,
    pub(super) kind: String,
    pub(super) text: String,
    pub(super) media: Option<String>,
    pub(super) file_name: String,
    pub(super) file_size: i64,
    pub(super) at_ms: Millis,
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, String> {
    value.as_object().ok_or_else(|| format!("{what} must be an object"))
}

/// Refuses keys that are not documented.
pub(super) fn only(value: &Value, keys: &[&str]) -> Result<(), String> {
    let unknown = object(value, "the body")?.keys().find(|key| !keys.contains(&key.as_str()));
    unknown.map_or(Ok(()), |key| Err(format!("{key} is unknown here")))
}

fn words(value: &Value, key: &str) -> Result<String, String> {
    match &value[key] {
        Value::String(text) if !text.is_empty() => Ok(text.clone()),
        _ => Err(format!("{key} must be a text")),
    }
}

fn maybe(value: &Value, key: &str) -> Result<Option<String>, String> {
    match &value[key] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        _ => Err(format!("{key} must be a text")),
    }
}

fn whole(value: &Value, key: &str) -> Result<i64, String> {
    value[key].as_i64().ok_or_else(|| format!("{key} must be a whole number"))
}

/// A participant (§7.4): id, `ref_id`, name, phone.
fn participant(value: &Value) -> Result<(String, Option<String>, String, String), String> {
    only(value, &["id", "name", "ref_id", "avatar", "profile", "profile_link"])?;
    let profile = &value["profile"];
    let phone = match profile {
        Value::Null => None,
        profile => {
            only(profile, &["phone", "email"])?;
            maybe(profile, "phone")?
        }
    };
    Ok((words(value, "id")?, maybe(value, "ref_id")?, words(value, "name")?, phone.unwrap_or_default()))
}

fn source(value: &Value) -> Result<Option<String>, String> {
    if value.is_null() {
        return Ok(None);
    }
    only(value, &["external_id"])?;
    let id = words(value, "external_id")?;
    let printable = id.len() <= 40 && id.bytes().all(|b| (0x20..0x7f).contains(&b));
    if printable { Ok(Some(id)) } else { Err("external_id: at most 40 printable signs".to_owned()) }
}

/// A new or changed message (§7.4).
pub(super) fn read(body: &Value, bot_id: &str) -> Result<Said, String> {
    only(body, &["event_type", "payload"])?;
    let payload = &body["payload"];
    only(
        payload,
        &[
            "timestamp",
            "msec_timestamp",
            "msgid",
            "conversation_id",
            "conversation_ref_id",
            "silent",
            "source",
            "sender",
            "receiver",
            "id",
            "message",
            "reply_to",
            "forwards",
        ],
    )?;
    let edits = match body["event_type"].as_str() {
        Some("new_message") => false,
        Some("edit_message") => true,
        _ => return Err("event_type".to_owned()),
    };
    let (seconds, at_ms) = (whole(payload, "timestamp")?, whole(payload, "msec_timestamp")?);
    if at_ms / 1000 != seconds {
        return Err("timestamp and msec_timestamp are of different moments".to_owned());
    }
    let mut said = Said {
        edits,
        at_ms,
        msgid: words(payload, "msgid")?,
        conversation_id: words(payload, "conversation_id")?,
        ..Said::default()
    };
    message(&payload["message"], &mut said)?;
    if edits {
        return Ok(said);
    }
    said.conversation_ref = maybe(payload, "conversation_ref_id")?;
    said.silent = payload["silent"].as_bool().ok_or("silent must be true or false")?;
    said.source = source(&payload["source"])?;
    let (sender, sender_ref, sender_name, sender_phone) = participant(&payload["sender"])?;
    said.sender_id = sender.clone();
    if payload["receiver"].is_null() {
        (said.person_id, said.person_ref, said.name, said.phone) = (sender, sender_ref, sender_name, sender_phone);
    } else {
        // Whoever is neither a user nor the bot is a client, and clients write to nobody else.
        if sender_ref.as_deref() != Some(bot_id) {
            return Err("sender.ref_id is neither a user's nor the bot's".to_owned());
        }
        said.by_bot = true;
        (said.person_id, said.person_ref, said.name, said.phone) = participant(&payload["receiver"])?;
    }
    Ok(said)
}

fn message(value: &Value, said: &mut Said) -> Result<(), String> {
    only(
        value,
        &[
            "type",
            "text",
            "media",
            "file_name",
            "file_size",
            "media_duration",
            "sticker_id",
            "location",
            "contact",
            "callback_data",
            "shared_post",
            "post",
            "delivery_status",
        ],
    )?;
    said.kind = words(value, "type")?;
    said.text = maybe(value, "text")?.unwrap_or_default();
    match said.kind.as_str() {
        "text" => {
            words(value, "text")?;
        }
        "file" | "video" | "picture" => {
            words(value, "file_name")?;
            whole(value, "file_size")?;
            words(value, "media")?;
        }
        "voice" | "audio" | "sticker" => {
            words(value, "media")?;
        }
        "location" => {
            let place = &value["location"];
            only(place, &["lon", "lat"])?;
            if !(place["lon"].is_f64() && place["lat"].is_f64()) {
                return Err("location: lon and lat must be decimal numbers".to_owned());
            }
        }
        "contact" => {
            words(&value["contact"], "name")?;
            words(&value["contact"], "phone")?;
        }
        other => return Err(format!("type {other}")),
    }
    said.media = maybe(value, "media")?.filter(|media| !media.is_empty());
    said.file_name = maybe(value, "file_name")?.unwrap_or_default();
    said.file_size = value["file_size"].as_i64().unwrap_or_default();
    Ok(())
}

/// A chat that is to be made (§7.4).
pub(super) fn read_chat(body: &Value) -> Result<Said, String> {
    only(body, &["conversation_id", "source", "user"])?;
    let (person_id, _, name, phone) = participant(&body["user"])?;
    let source = source(&body["source"])?;
    Ok(Said { conversation_id: words(body, "conversation_id")?, person_id, name, phone, source, ..Said::default() })
}

/// A delivery status (§7.8): its code, and the error's code and words.
pub(super) fn read_status(body: &Value) -> Result<(i64, Option<(i64, String)>), String> {
    only(body, &["status_code", "error_code", "error"])?;
    match whole(body, "status_code")? {
        code @ (1 | 2) if body["error_code"].is_null() && body["error"].is_null() => Ok((code, None)),
        -1 => {
            let code = whole(body, "error_code")?;
            let said = if code == 905 { words(body, "error")? } else { maybe(body, "error")?.unwrap_or_default() };
            if !(901..=905).contains(&code) {
                return Err("error_code".to_owned());
            }
            Ok((-1, Some((code, said))))
        }
        _ => Err("status_code".to_owned()),
    }
}

/// The moment of a header `Date`: `Tue, 03 Feb 2026 09:15:00 +0000`, or with `GMT`.
pub(super) fn date_ms(text: &str) -> Option<Millis> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.split_once(", ")?;
    let parts: Vec<&str> = rest.split(' ').collect();
    let [day, month, year, time, zone] = parts.as_slice() else { return None };
    let month = i64::try_from(MONTHS.iter().position(|known| known == month)?).ok()? + 1;
    let (day, year): (i64, i64) = (day.parse().ok()?, year.parse().ok()?);
    let clock: Vec<i64> = time.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [hour, minute, second] = clock.as_slice() else { return None };
    let zone = match *zone {
        "GMT" => 0,
        zone => {
            let minutes: i64 = zone.get(1..3)?.parse::<i64>().ok()? * 60 + zone.get(3..5)?.parse::<i64>().ok()?;
            if zone.starts_with('-') { -minutes } else { minutes }
        }
    };
    // Days since 1970 (the civil calendar, years counted from March).
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some((((days * 24 + hour) * 60 + minute - zone) * 60 + second) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_both_spellings_are_read() {
        for text in
            ["Tue, 03 Feb 2026 09:15:00 +0000", "Tue, 03 Feb 2026 09:15:00 GMT", "Tue, 03 Feb 2026 12:15:00 +0300"]
        {
            assert_eq!(date_ms(text), Some(1_770_110_100_000), "{text}");
        }
        assert_eq!(date_ms("2026-02-03T09:15:00Z"), None);
    }
}
