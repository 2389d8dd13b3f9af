//! Notes on cards. Source: §6.7. There is no key against doing it twice: whoever writes twice has two notes.

use serde::Serialize;
use serde_json::{Value, json};

use super::rest::{Ask, hal, nothing};
use super::{AccountState, problem};
use crate::{
    clock::Millis,
    http::{Response, form},
    journal::Severity,
};

/// Types that can be changed (§6.7).
const EDITABLE: [&str; 10] = [
    "common",
    "service_message",
    "extended_service_message",
    "message_cashier",
    "sms_in",
    "sms_out",
    "call_in",
    "call_out",
    "geolocation",
    "attachment",
];

/// One note.
#[derive(Clone, Debug, Serialize)]
pub struct AmoNote {
    /// Number.
    pub id: i64,
    /// `leads`, `contacts` …
    pub collection: String,
    /// The card's number.
    pub entity_id: i64,
    /// Type.
    pub note_type: String,
    /// `params.text`.
    pub text: String,
    /// `params.service`.
    pub service: String,
    /// Changes so far.
    pub changes: u32,
    /// Last change, milliseconds.
    pub updated_ms: Millis,
}

/// What is wrong with one note: code and path.
type Wrong = (&'static str, String);

pub(super) fn route(ask: &Ask<'_>, target: &str, rest: &[&str]) -> Response {
    match (ask.request.method.as_str(), rest) {
        ("POST", [kind, "notes"]) => add(ask, target, kind, None),
        ("POST", [kind, id, "notes"]) => add(ask, target, kind, id.parse().ok()),
        ("PATCH", [kind, "notes"]) => change(ask, target, kind),
        ("GET", [kind, id, "notes"]) => list(ask, target, kind, id.parse().ok()),
        ("GET", [kind, "notes"]) => list(ask, target, kind, None),
        _ => problem(405, "Method Not Allowed", json!({})),
    }
}

fn exists(state: &AccountState, kind: &str, id: i64) -> bool {
    match kind {
        "leads" => state.leads.contains_key(&id),
        "contacts" => state.contacts.contains_key(&id),
        _ => false,
    }
}

/// Type and parameters of a note.
fn content(note: &Value) -> Result<(String, String, String), Wrong> {
    let kind = note.get("note_type").and_then(Value::as_str).ok_or(("FieldMissing", "note_type".to_owned()))?;
    if !EDITABLE.contains(&kind) {
        return Err(("NotSupportedChoice", "note_type".to_owned()));
    }
    let param = |key: &str| match note.pointer(&format!("/params/{key}")) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(("InvalidType", format!("params.{key}"))),
        None => Err(("FieldMissing", format!("params.{key}"))),
    };
    let service = if kind.ends_with("service_message") { param("service")? } else { String::new() };
    Ok((kind.to_owned(), param("text")?, service))
}

/// §6.3: a batch with one wrong entity is refused as a whole.
fn refuse(ask: &Ask<'_>, target: &str, wrong: &[(String, Wrong)]) -> Response {
    let errors: Vec<Value> = wrong
        .iter()
        .map(|(request, (code, path))| {
            json!({"request_id": request, "errors": [{"code": code, "path": path, "detail": "wrong"}]})
        })
        .collect();
    let more = json!({"validation-errors": errors, "detail": "Request validation failed"});
    ask.refuse(target, 400, "Bad Request", more)
}

fn request_id(note: &Value, at: usize) -> String {
    note.get("request_id").and_then(Value::as_str).map_or_else(|| at.to_string(), str::to_owned)
}

fn add(ask: &Ask<'_>, target: &str, kind: &str, of: Option<i64>) -> Response {
    let items = match ask.array(target) {
        Ok(items) => items,
        Err(refusal) => return refusal,
    };
    let mut state = ask.cell.state.lock();
    let (mut good, mut wrong) = (Vec::new(), Vec::new());
    for (at, note) in items.iter().enumerate() {
        let request = request_id(note, at);
        let entity = of.or_else(|| note.get("entity_id").and_then(Value::as_i64));
        let read = match entity {
            None => Err(("FieldMissing", "entity_id".to_owned())),
            Some(id) if !exists(&state, kind, id) => Err(("EntityNotFound", "entity_id".to_owned())),
            Some(id) => content(note).map(|content| (id, content)),
        };
        match read {
            Ok(read) => good.push((request, read)),
            Err(why) => wrong.push((request, why)),
        }
        if note.get("is_need_to_trigger_digital_pipeline") != Some(&Value::Bool(false)) {
            let message = "an own note sets off triggers unless told not to (§6.7)";
            ask.world.violation(Severity::Careless, target, &ask.cell.scope(), "trigger", message);
        }
    }
    if !wrong.is_empty() {
        drop(state);
        return refuse(ask, target, &wrong);
    }
    let mut answers = Vec::new();
    for (request, (entity_id, (note_type, text, service))) in good {
        let id = state.next();
        answers.push(json!({"id": id, "entity_id": entity_id, "request_id": request, "_links": {}}));
        let (collection, updated_ms) = (kind.to_owned(), ask.world.now_ms());
        state.notes.push(AmoNote { id, collection, entity_id, note_type, text, service, changes: 0, updated_ms });
    }
    drop(state);
    ask.world.change("amo.note", &ask.cell.scope(), "");
    hal(json!({"_links": {}, "_embedded": {"notes": answers}}))
}

fn change(ask: &Ask<'_>, target: &str, kind: &str) -> Response {
    let items = match ask.array(target) {
        Ok(items) => items,
        Err(refusal) => return refusal,
    };
    let mut state = ask.cell.state.lock();
    let (mut good, mut wrong) = (Vec::new(), Vec::new());
    for (at, note) in items.iter().enumerate() {
        let request = request_id(note, at);
        let id = note.get("id").and_then(Value::as_i64);
        let place = id.and_then(|id| state.notes.iter().position(|known| known.id == id && known.collection == kind));
        match (id, place, content(note)) {
            (None, _, _) => wrong.push((request, ("FieldMissing", "id".to_owned()))),
            (Some(_), None, _) => wrong.push((request, ("EntityNotFound", "id".to_owned()))),
            (Some(_), Some(_), Err(why)) => wrong.push((request, why)),
            (Some(_), Some(place), Ok(content)) => good.push((request, place, content)),
        }
    }
    if !wrong.is_empty() {
        drop(state);
        return refuse(ask, target, &wrong);
    }
    let now = ask.world.now_ms();
    let mut answers = Vec::new();
    for (request, place, (_, text, service)) in good {
        let note = &mut state.notes[place];
        (note.text, note.service, note.updated_ms) = (text, service, now);
        note.changes += 1;
        answers.push(json!({"id": note.id, "request_id": request, "updated_at": now / 1000}));
    }
    drop(state);
    ask.world.change("amo.note", &ask.cell.scope(), "");
    hal(json!({"_links": {}, "_embedded": {"notes": answers}}))
}

fn list(ask: &Ask<'_>, target: &str, kind: &str, of: Option<i64>) -> Response {
    let pairs: Vec<(String, String)> = form::pairs(&ask.request.query).collect();
    let types: Vec<&str> =
        pairs.iter().filter(|(key, _)| key == "filter[note_type][]").map(|(_, value)| value.as_str()).collect();
    let newest_first = pairs.iter().any(|(key, value)| key == "order[updated_at]" && value == "desc");
    let state = ask.cell.state.lock();
    let fits = |note: &&AmoNote| {
        note.collection == kind
            && of.is_none_or(|id| note.entity_id == id)
            && (types.is_empty() || types.contains(&note.note_type.as_str()))
    };
    let mut found: Vec<AmoNote> = state.notes.iter().filter(fits).cloned().collect();
    drop(state);
    if newest_first {
        found.reverse();
    }
    let shown = found
        .iter()
        .map(|note| {
            json!({"id": note.id, "entity_id": note.entity_id, "note_type": note.note_type,
                "params": {"service": note.service, "text": note.text}, "updated_at": note.updated_ms / 1000})
        })
        .collect::<Vec<_>>();
    if shown.is_empty() { nothing() } else { ask.list(target, "notes", shown) }
}
