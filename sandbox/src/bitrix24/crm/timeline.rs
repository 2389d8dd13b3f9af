//! Comments and log messages on cards. Source: §8.3, §8.4.

use std::collections::{BTreeMap, HashMap};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;

use super::{kinds, read};
use crate::{
    bitrix24::{
        events::Raised,
        rest::{Answer, Hit, RestError},
    },
    clock::{Millis, iso},
    journal::Severity,
    php::Php,
};

type Result = std::result::Result<Answer, RestError>;

/// Earlier texts of a comment that are remembered.
const HISTORY_KEPT: usize = 20;

/// One entry of a card's timeline, as shown.
#[derive(Clone, Debug, Serialize)]
pub struct TimelineEntry {
    /// Id.
    pub id: i64,
    /// `comment` or `log`.
    pub kind: &'static str,
    /// Card type.
    pub entity_type_id: i64,
    /// Card.
    pub entity_id: i64,
    /// User whose token wrote it.
    pub author_id: i64,
    /// Application that wrote it; absent = a person.
    pub client_id: Option<String>,
    /// Title (log messages only).
    pub title: String,
    /// Icon (log messages only).
    pub icon: String,
    /// Text as it stands.
    pub text: String,
    /// `(name, bytes)` of attached files.
    pub files: Vec<(String, usize)>,
    /// When it was written, milliseconds.
    pub created_ms: Millis,
    /// When it was last changed, milliseconds.
    pub updated_ms: Millis,
    /// How often it was changed.
    pub edits: u32,
    /// Earlier texts, oldest first (at most twenty).
    pub history: Vec<String>,
}

#[derive(Default)]
pub(crate) struct Timeline {
    entries: BTreeMap<i64, TimelineEntry>,
    by_card: HashMap<(i64, i64), Vec<i64>>,
    last_id: i64,
}

impl Timeline {
    pub(crate) fn of(&self, type_id: i64, id: i64) -> Vec<TimelineEntry> {
        let ids = self.by_card.get(&(type_id, id)).map_or(&[][..], Vec::as_slice);
        ids.iter().filter_map(|id| self.entries.get(id)).cloned().collect()
    }

    pub(crate) fn count(&self, type_id: i64, id: i64) -> usize {
        self.by_card.get(&(type_id, id)).map_or(0, Vec::len)
    }

    pub(crate) fn newest_comment(&self, type_id: i64, id: i64) -> Option<&TimelineEntry> {
        let ids = self.by_card.get(&(type_id, id))?;
        ids.iter().rev().filter_map(|id| self.entries.get(id)).find(|entry| entry.kind == "comment")
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn add(&mut self, mut entry: TimelineEntry) -> i64 {
        self.last_id += 1;
        entry.id = self.last_id;
        self.by_card.entry((entry.entity_type_id, entry.entity_id)).or_default().push(entry.id);
        self.entries.insert(entry.id, entry);
        self.last_id
    }

    fn remove(&mut self, id: i64) -> Option<TimelineEntry> {
        let entry = self.entries.remove(&id)?;
        if let Some(ids) = self.by_card.get_mut(&(entry.entity_type_id, entry.entity_id)) {
            ids.retain(|own| *own != id);
        }
        Some(entry)
    }
}

fn fields_of(params: &Php) -> std::result::Result<&Php, RestError> {
    params.get("fields").filter(|fields| fields.is_array()).ok_or_else(|| RestError::missing("fields"))
}

fn owner_not_found() -> RestError {
    RestError::bad("OWNER_NOT_FOUND", "Владелец не найден")
}

fn not_found() -> RestError {
    RestError::bad("NOT_FOUND", "Комментарий не найден")
}

fn owner(fields: &Php) -> std::result::Result<(i64, i64), RestError> {
    let id = fields.get("ENTITY_ID").and_then(Php::as_int).ok_or_else(|| RestError::missing("ENTITY_ID"))?;
    let named = fields.get("ENTITY_TYPE").map(Php::text).filter(|name| !name.is_empty());
    let type_id = match named {
        Some(name) => kinds::of_name(&name).ok_or_else(owner_not_found)?,
        None => {
            let type_id = fields.get("ENTITY_TYPE_ID").and_then(Php::as_int);
            type_id.ok_or_else(|| RestError::missing("ENTITY_TYPE"))?
        }
    };
    Ok((type_id, id))
}

fn text_of(fields: &Php) -> std::result::Result<String, RestError> {
    let text = fields.get("COMMENT").map(Php::text).unwrap_or_default().trim().to_owned();
    if text.is_empty() {
        return Err(RestError::bad("INVALID_ARG_VALUE", "Пустое значение поля COMMENT"));
    }
    Ok(text)
}

/// `[["name.pdf","BASE64"],…]`, a list of pairs even for one file.
fn files_of(fields: &Php) -> std::result::Result<Vec<(String, usize)>, RestError> {
    let wrong = || RestError::bad("INVALID_ARG_VALUE", "FILES must be a list of pairs [name, base64]");
    let Some(files) = fields.get("FILES").filter(|files| !files.is_empty()) else { return Ok(Vec::new()) };
    let mut read = Vec::new();
    for (_, pair) in files.entries() {
        let [(_, name), (_, content)] = pair.entries() else { return Err(wrong()) };
        let (Some(name), Some(content)) = (name.as_str(), content.as_str()) else { return Err(wrong()) };
        let bytes = STANDARD
            .decode(content)
            .map_err(|broken| RestError::bad("INVALID_ARG_VALUE", format!("FILES: {name} is not base64: {broken}")))?;
        read.push((name.to_owned(), bytes.len()));
    }
    Ok(read)
}

fn careless_keys(hit: &Hit<'_>, fields: &Php, known: &[&str]) {
    for (key, _) in fields.entries() {
        let name = key.to_string();
        if !known.contains(&name.as_str()) {
            let message = format!("fields.{name} is not read (keys are upper-case, the author is the token's user)");
            let target = "rest.crm.timeline.comment";
            hit.world.violation(Severity::Careless, target, &hit.portal.member_id, "unknown_field", message);
        }
    }
}

pub(crate) fn comment_add(hit: &mut Hit<'_>, params: &Php) -> Result {
    let fields = fields_of(params)?;
    careless_keys(hit, fields, &["ENTITY_ID", "ENTITY_TYPE", "ENTITY_TYPE_ID", "COMMENT", "FILES"]);
    let (type_id, entity_id) = owner(fields)?;
    let text = text_of(fields)?;
    let files = files_of(fields)?;
    let mut state = hit.portal.state.lock();
    if state.crm.item(type_id, entity_id).is_none() {
        return Err(owner_not_found());
    }
    let id = state.crm.timeline.add(TimelineEntry {
        id: 0,
        kind: "comment",
        entity_type_id: type_id,
        entity_id,
        author_id: hit.caller.user_id,
        client_id: Some(hit.caller.client_id.to_string()),
        title: String::new(),
        icon: String::new(),
        text,
        files,
        created_ms: hit.now,
        updated_ms: hit.now,
        edits: 0,
        history: Vec::new(),
    });
    drop(state);
    hit.events.push(happened("ONCRMTIMELINECOMMENTADD", id));
    hit.world.change("comment", &hit.portal.member_id, kinds::card(type_id, entity_id));
    Ok(Answer::of(Php::Int(id)))
}

fn happened(event: &'static str, id: i64) -> Raised {
    Raised::new(event, Php::map([("FIELDS", Php::map([("ID", Php::Int(id))]))]))
}

pub(crate) fn comment_update(hit: &mut Hit<'_>, params: &Php) -> Result {
    let id = read::int_param(params, "id")?;
    let fields = fields_of(params)?;
    careless_keys(hit, fields, &["COMMENT", "FILES"]);
    let files = if fields.get("FILES").is_some() { Some(files_of(fields)?) } else { None };
    let mut state = hit.portal.state.lock();
    let entry =
        state.crm.timeline.entries.get_mut(&id).filter(|entry| entry.kind == "comment").ok_or_else(not_found)?;
    let text = text_of(fields)?;
    if entry.history.len() >= HISTORY_KEPT {
        entry.history.remove(0);
    }
    entry.history.push(std::mem::replace(&mut entry.text, text));
    entry.files = files.unwrap_or_else(|| std::mem::take(&mut entry.files));
    entry.updated_ms = hit.now;
    entry.edits += 1;
    let card = kinds::card(entry.entity_type_id, entry.entity_id);
    drop(state);
    hit.events.push(happened("ONCRMTIMELINECOMMENTUPDATE", id));
    hit.world.change("comment", &hit.portal.member_id, card);
    Answer::yes()
}

pub(crate) fn comment_delete(hit: &mut Hit<'_>, params: &Php) -> Result {
    let id = read::int_param(params, "id")?;
    let mut state = hit.portal.state.lock();
    let is_comment = state.crm.timeline.entries.get(&id).is_some_and(|entry| entry.kind == "comment");
    let entry = if is_comment { state.crm.timeline.remove(id) } else { None }.ok_or_else(not_found)?;
    drop(state);
    hit.events.push(happened("ONCRMTIMELINECOMMENTDELETE", id));
    hit.world.change("comment", &hit.portal.member_id, kinds::card(entry.entity_type_id, entry.entity_id));
    Answer::yes()
}

fn shown(entry: &TimelineEntry, offset_min: i64) -> Php {
    let files = entry.files.iter().zip(1..).map(|((name, size), at)| {
        let id: i64 = entry.id * 100 + at;
        let size = i64::try_from(*size).unwrap_or(0);
        Php::map([("id", Php::Int(id)), ("name", name.as_str().into()), ("size", Php::Int(size))])
    });
    Php::map([
        ("ID", entry.id.to_string().into()),
        ("ENTITY_ID", entry.entity_id.to_string().into()),
        ("ENTITY_TYPE", kinds::name(entry.entity_type_id).into()),
        ("CREATED", iso(entry.created_ms, offset_min).into()),
        ("AUTHOR_ID", entry.author_id.to_string().into()),
        ("COMMENT", entry.text.as_str().into()),
        ("FILES", Php::list(files)),
    ])
}

pub(crate) fn comment_get(hit: &mut Hit<'_>, params: &Php) -> Result {
    let id = read::int_param(params, "id")?;
    let offset = hit.portal.switches.read().offset_min;
    let state = hit.portal.state.lock();
    let entry = state.crm.timeline.entries.get(&id).filter(|entry| entry.kind == "comment").ok_or_else(not_found)?;
    Ok(Answer::of(shown(entry, offset)))
}

pub(crate) fn comment_list(hit: &mut Hit<'_>, params: &Php) -> Result {
    let filter = params.get("filter").ok_or_else(|| RestError::missing("filter"))?;
    let (type_id, entity_id) = owner(filter)?;
    let descending = params
        .get("order")
        .and_then(|order| order.entries().first())
        .is_some_and(|(_, way)| way.text().eq_ignore_ascii_case("DESC"));
    let select: Vec<String> = params
        .get("select")
        .map(|select| select.entries().iter().map(|(_, name)| name.text()).collect())
        .unwrap_or_default();
    let start = params.get("start").and_then(Php::as_int).unwrap_or(0).max(0);
    let offset = hit.portal.switches.read().offset_min;
    let state = hit.portal.state.lock();
    if state.crm.item(type_id, entity_id).is_none() {
        return Err(owner_not_found());
    }
    let mut entries = state.crm.timeline.of(type_id, entity_id);
    entries.retain(|entry| entry.kind == "comment");
    if descending {
        entries.reverse();
    }
    let total = i64::try_from(entries.len()).unwrap_or(0);
    let keep = |key: &str| select.is_empty() || select.iter().any(|name| name == "*" || name == key);
    let page = entries.iter().skip(usize::try_from(start).unwrap_or(0)).take(50).map(|entry| {
        Php::Array(shown(entry, offset).entries().iter().filter(|(key, _)| keep(&key.to_string())).cloned().collect())
    });
    let next = (start + 50 < total).then_some(start + 50);
    Ok(Answer { result: Php::list(page), total: Some(total), next })
}

/// Icon codes of §8.4; `call-*` is a family.
const ICONS: &[&str] = &[
    "info",
    "check",
    "complete",
    "circle-check",
    "circle-crossed",
    "attention",
    "clock",
    "comment",
    "IM",
    "sms",
    "whatsapp",
    "telegram",
    "mail-outcome",
    "document",
    "task",
    "robot",
    "bizproc",
    "message-with-point",
    "link",
    "view",
];

pub(crate) fn log_add(hit: &mut Hit<'_>, params: &Php) -> Result {
    let fields = fields_of(params)?;
    let type_id = read::int_param(fields, "entityTypeId")?;
    let entity_id = read::int_param(fields, "entityId")?;
    let text = |name: &str| {
        let value = fields.get(name).map(Php::text).filter(|value| !value.trim().is_empty());
        value.ok_or_else(|| RestError::missing(name))
    };
    let (title, body, icon) = (text("title")?, text("text")?, text("iconCode")?);
    if !ICONS.contains(&icon.as_str()) && !icon.starts_with("call-") {
        return Err(RestError::bad("100", format!("Unknown iconCode {icon}")));
    }
    let offset = hit.portal.switches.read().offset_min;
    let mut state = hit.portal.state.lock();
    if state.crm.item(type_id, entity_id).is_none() {
        return Err(owner_not_found());
    }
    let id = state.crm.timeline.add(TimelineEntry {
        id: 0,
        kind: "log",
        entity_type_id: type_id,
        entity_id,
        author_id: hit.caller.user_id,
        client_id: Some(hit.caller.client_id.to_string()),
        title: title.clone(),
        icon: icon.clone(),
        text: body.clone(),
        files: Vec::new(),
        created_ms: hit.now,
        updated_ms: hit.now,
        edits: 0,
        history: Vec::new(),
    });
    drop(state);
    hit.world.change("comment", &hit.portal.member_id, kinds::card(type_id, entity_id));
    let message = Php::map([
        ("id", Php::Int(id)),
        ("created", iso(hit.now, offset).into()),
        ("authorId", Php::Int(hit.caller.user_id)),
        ("title", title.into()),
        ("text", body.into()),
        ("iconCode", icon.into()),
    ]);
    Ok(Answer::of(Php::map([("logMessage", message)])))
}
