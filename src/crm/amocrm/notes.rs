//! Telling an account several things: notes in arrays, and bots continued one by one.
//!
//! There is no key against doing it twice: a note that an earlier try may have written is looked for on its card first,
//! by the reference in its last line. A bot is continued once by the vendor's own rule: a second call finds nobody, which
//! counts as done (protocol reference, sections "Notes" and "Continuing the bot", read 2026-11).

use std::collections::{BTreeMap, HashMap};

use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use super::Amocrm;
use super::client::Ask;
use super::errors::Fault;
use crate::crm::comments::refers_to;
use crate::crm::{own, results};
use crate::domain::effect::{ActionResult, Applied, CommentEffect, CrmEffect, CrmError, PortalTrouble, ReplyEffect};
use crate::domain::ids::CrmCommentId;
use crate::domain::language::Language;
use crate::domain::outcome::FailureClass;
use crate::domain::portal::{CardKind, CardRef, Portal};
use crate::forms::{at, integer, items, member, text, text_at};

/// Notes in one request: more are taken, but a gateway may give up on them.
pub(super) const BATCH_MAX: usize = 50;
/// The type whose notes can be changed and may be long.
const NOTE_TYPE: &str = "extended_service_message";
/// Who speaks in a note.
const SERVICE: &str = "Mostik";
/// Longest text of a note, in characters; the vendor names no limit, so this is ours.
const TEXT_MAX: usize = 10_000;
/// Notes of a card that are searched for one that may have been written: pages, and notes per page.
const PAGES_MAX: usize = 4;
const PAGE: usize = 250;
/// Results come back as `{{json.status}}`; the branches of the step compare with these words.
const SUCCESS: &str = "success";
const FAIL: &str = "fail";

/// What became of one effect; `None` is none of our business.
pub(super) type Verdict = Option<Result<Applied, CrmError>>;

/// One note that is to be written or changed.
struct Note<'a> {
    /// Place among the effects.
    place: usize,
    effect: &'a CommentEffect,
    text: String,
}

/// The collection a card belongs to; `None` for cards amoCRM does not have.
fn collection(kind: CardKind) -> Option<&'static str> {
    match kind {
        CardKind::Deal => Some("leads"),
        CardKind::Contact => Some("contacts"),
        CardKind::Company => Some("companies"),
        CardKind::Customer => Some("customers"),
        CardKind::Lead | CardKind::Quote | CardKind::Invoice | CardKind::Order | CardKind::Custom(_) => None,
    }
}

/// The card is of a kind that amoCRM does not have, or has no contacts to be read.
pub(super) fn no_such_card(card: CardRef) -> CrmError {
    own(FailureClass::Rejected, PortalTrouble::None, "no_such_card", format!("amoCRM has no contacts for card {card}"))
}

/// Both halves of [`crate::crm::Crm::apply`] together answer every effect; this would be a defect of ours.
pub(super) fn unplanned() -> Result<Applied, CrmError> {
    Err(own(FailureClass::Rejected, PortalTrouble::None, "unplanned", "an effect nobody carried out"))
}

impl Amocrm {
    /// Continues the bots among the effects.
    pub(super) async fn continue_bots(&self, portal: &Portal, effects: &[CrmEffect]) -> Vec<Verdict> {
        join_all(effects.iter().map(|effect| async move {
            match effect {
                CrmEffect::Reply(reply) => Some(self.continue_bot(portal, reply).await),
                CrmEffect::Comment(_) | CrmEffect::Post(_) | CrmEffect::Verdict(_) => None,
            }
        }))
        .await
    }

    async fn continue_bot(&self, portal: &Portal, reply: &ReplyEffect) -> Result<Applied, CrmError> {
        let path = format!("api/v4/{}", reply.token.as_str());
        let body = json!({"data": self.values(portal.language, &reply.result)});
        let told = match self.client.call(portal, Ask::post("continue", &path, &body)).await {
            // Whatever it does not like about our values, the bot must not stay where it is.
            Err(Fault::Said { status: 400, text, .. }) => {
                tracing::warn!(portal.id = %portal.id, crm = "amocrm", text, "results refused; the bot gets none");
                let least = json!({"data": {"status": FAIL}});
                self.client.call(portal, Ask::post("continue", &path, &least)).await
            }
            other => other,
        };
        match told {
            Ok(_) => Ok(Applied::Done),
            // Nobody waits: continued by an earlier try whose answer was lost, stopped, or removed by a person.
            Err(Fault::Said { status: 404, .. }) => {
                tracing::info!(portal.id = %portal.id, crm = "amocrm", "no bot waits there any more");
                Ok(Applied::Done)
            }
            Err(fault) => Err(fault.error(true)),
        }
    }

    /// Results as flat texts. Every key is always there, because a value of an earlier step would otherwise stay.
    fn values(&self, language: Language, result: &ActionResult) -> Value {
        let delivered = result.delivered_at.map(|at| self.style.moment(at, "%Y-%m-%dT%H:%M:%S%:z")).unwrap_or_default();
        let ids: Vec<&str> = result.message_ids.iter().map(crate::domain::ids::ProviderMessageId::as_str).collect();
        let mut values = json!({
            "status": if result.success() { SUCCESS } else { FAIL },
            "detail": results::detail(language, result),
            "timeout": if result.in_time { "1" } else { "0" },
            "error_code": result.error.map_or("", |code| code.code()),
            "message_ids": ids.join(","),
            "delivered_at": delivered,
        });
        for (key, own) in &result.own {
            values[*key] = Value::String(own.join(","));
        }
        values
    }

    /// Writes and changes the notes among the effects.
    pub(super) async fn write_notes(&self, portal: &Portal, effects: &[CrmEffect]) -> Vec<Verdict> {
        let mut verdicts: Vec<Verdict> = vec![None; effects.len()];
        let mut adds: BTreeMap<&'static str, Vec<Note<'_>>> = BTreeMap::new();
        let mut changes: BTreeMap<&'static str, Vec<(Note<'_>, CrmCommentId)>> = BTreeMap::new();
        for (place, effect) in effects.iter().enumerate() {
            let CrmEffect::Comment(effect) = effect else { continue };
            let Some(collection) = collection(effect.card.kind) else {
                put(&mut verdicts, place, Err(no_such_card(effect.card)));
                continue;
            };
            let existing = match &effect.existing {
                Some(id) => Some(id.clone()),
                None if effect.maybe_written => match self.look_for(portal, collection, effect).await {
                    Ok(found) => found,
                    Err(error) => {
                        put(&mut verdicts, place, Err(error));
                        continue;
                    }
                },
                None => None,
            };
            let text = self.style.text(portal.language, &effect.view);
            let note = Note { place, effect, text: cut(text) };
            match existing {
                Some(id) => changes.entry(collection).or_default().push((note, id)),
                None => adds.entry(collection).or_default().push(note),
            }
        }
        for (collection, notes) in adds {
            self.add(portal, collection, notes, &mut verdicts).await;
        }
        for (collection, notes) in changes {
            self.change(portal, collection, notes, &mut verdicts).await;
        }
        verdicts
    }

    /// A note that an earlier try may have written.
    async fn look_for(
        &self,
        portal: &Portal,
        collection: &str,
        effect: &CommentEffect,
    ) -> Result<Option<CrmCommentId>, CrmError> {
        let short = effect.view.message.short();
        for page in 1..=PAGES_MAX {
            let path = format!(
                "api/v4/{collection}/{}/notes?filter[note_type][]={NOTE_TYPE}&order[updated_at]=desc&limit={PAGE}&page={page}",
                effect.card.id
            );
            let answer = self.client.call(portal, Ask::get("notes.list", &path)).await.map_err(|f| f.error(true))?;
            let notes = at(&answer, &["_embedded", "notes"]).map(items).unwrap_or_default();
            let ours = |note: &&&Value| refers_to(&text_at(note, &["params", "text"]), short);
            if let Some(id) = notes.iter().find(ours).and_then(|note| note_id(note)) {
                return Ok(Some(id));
            }
            if at(&answer, &["_links", "next"]).is_none() {
                break;
            }
        }
        Ok(None)
    }

    async fn add(&self, portal: &Portal, collection: &str, mut notes: Vec<Note<'_>>, verdicts: &mut [Verdict]) {
        let path = format!("api/v4/{collection}/notes");
        let mut sifted = false;
        while !notes.is_empty() {
            let size = self.limits_of(portal).min(notes.len());
            let bodies: Vec<Value> = notes.iter().take(size).map(new_note).collect();
            let answer = self.client.call(portal, Ask::post("notes.add", &path, &Value::Array(bodies))).await;
            if let Err(fault) = &answer
                && !sifted
                && sift(
                    fault,
                    &mut notes,
                    size,
                    |note| note.effect.view.message.as_str(),
                    |note, error| {
                        put(verdicts, note.place, Err(error));
                    },
                )
            {
                // Refused as a whole for a few of them: nothing was written, and the others may try again.
                sifted = true;
                continue;
            }
            sifted = false;
            self.note_size(portal, size, answer.as_ref().err());
            let mut written = answer.as_ref().map(ids_by_request).unwrap_or_default();
            for note in notes.drain(..size) {
                let verdict = match &answer {
                    Ok(_) => written.remove(note.effect.view.message.as_str()).map(Applied::Comment).ok_or_else(|| {
                        let text = "the answer carries no id of the note";
                        own(FailureClass::Indeterminate, PortalTrouble::None, "no_id", text)
                    }),
                    Err(fault) => Err(fault.error(false)),
                };
                put(verdicts, note.place, verdict);
            }
        }
    }

    async fn change(
        &self,
        portal: &Portal,
        collection: &str,
        mut notes: Vec<(Note<'_>, CrmCommentId)>,
        verdicts: &mut [Verdict],
    ) {
        let path = format!("api/v4/{collection}/notes");
        let mut sifted = false;
        while !notes.is_empty() {
            let size = self.limits_of(portal).min(notes.len());
            let bodies: Vec<Value> = notes.iter().take(size).map(|(note, id)| changed_note(note, id)).collect();
            let answer = self.client.call(portal, Ask::patch("notes.change", &path, &Value::Array(bodies))).await;
            let gone =
                |portal: &Portal| tracing::info!(portal.id = %portal.id, crm = "amocrm", "a note is gone; left so");
            if let Err(fault) = &answer
                && !sifted
                && sift(
                    fault,
                    &mut notes,
                    size,
                    |(note, _)| note.effect.view.message.as_str(),
                    |(note, id), error| {
                        // A person removed it; it is not written again.
                        let verdict = if error.code == GONE { Ok(Applied::Comment(id)) } else { Err(error) };
                        if verdict.is_ok() {
                            gone(portal);
                        }
                        put(verdicts, note.place, verdict);
                    },
                )
            {
                sifted = true;
                continue;
            }
            sifted = false;
            self.note_size(portal, size, answer.as_ref().err());
            for (note, id) in notes.drain(..size) {
                let verdict = match &answer {
                    Ok(_) => Ok(Applied::Comment(id)),
                    Err(Fault::Said { status: 404, .. }) if size == 1 => {
                        gone(portal);
                        Ok(Applied::Comment(id))
                    }
                    Err(fault) => Err(fault.error(true)),
                };
                put(verdicts, note.place, verdict);
            }
        }
    }

    fn limits_of(&self, portal: &Portal) -> usize {
        self.client.limits.entities(&portal.member_id, BATCH_MAX)
    }

    fn note_size(&self, portal: &Portal, size: usize, fault: Option<&Fault>) {
        match fault {
            None => self.client.limits.grow(&portal.member_id, size, BATCH_MAX),
            Some(fault) if fault.is_gateway_timeout() => {
                self.client.limits.halve(&portal.member_id, size, self.clock.now());
            }
            Some(_) => {}
        }
    }
}

/// The code of an error that says that an entity is not there.
const GONE: &str = "EntityNotFound";

/// Takes out of the first `size` entries those that a refused request names, and tells each. False when it names none,
/// or all that is left of it.
fn sift<T>(
    fault: &Fault,
    entries: &mut Vec<T>,
    size: usize,
    request: impl Fn(&T) -> &str,
    mut tell: impl FnMut(T, CrmError),
) -> bool {
    let refused: HashMap<&str, &str> =
        fault.invalid().iter().map(|invalid| (invalid.request.as_str(), invalid.code.as_str())).collect();
    let named =
        |place: usize, entry: &T| refused.get(request(entry)).or_else(|| refused.get(place.to_string().as_str()));
    let first = entries.iter().take(size).enumerate();
    let codes: Vec<Option<String>> = first.map(|(at, entry)| named(at, entry).map(|code| (*code).to_owned())).collect();
    if codes.iter().all(Option::is_none) {
        return false;
    }
    let rest = entries.split_off(size);
    for (entry, code) in std::mem::take(entries).into_iter().zip(codes) {
        match code {
            None => entries.push(entry),
            Some(code) => {
                let error = fault.error(true);
                tell(entry, CrmError { code, ..error });
            }
        }
    }
    entries.extend(rest);
    true
}

fn put(verdicts: &mut [Verdict], place: usize, verdict: Result<Applied, CrmError>) {
    if let Some(slot) = verdicts.get_mut(place) {
        *slot = Some(verdict);
    }
}

fn params(note: &Note<'_>) -> Value {
    json!({"service": SERVICE, "text": note.text})
}

fn new_note(note: &Note<'_>) -> Value {
    json!({
        "entity_id": note.effect.card.id,
        "note_type": NOTE_TYPE,
        "request_id": note.effect.view.message.as_str(),
        "params": params(note),
        // Our own note must not set off the account's triggers.
        "is_need_to_trigger_digital_pipeline": false,
    })
}

fn changed_note(note: &Note<'_>, id: &CrmCommentId) -> Value {
    let mut body = Map::new();
    // A number for amoCRM; what is none would have come from somewhere else.
    body.insert("id".to_owned(), id.as_str().parse::<u64>().map_or_else(|_| json!(id.as_str()), |id| json!(id)));
    body.insert("note_type".to_owned(), json!(NOTE_TYPE));
    body.insert("request_id".to_owned(), json!(note.effect.view.message.as_str()));
    body.insert("params".to_owned(), params(note));
    Value::Object(body)
}

fn ids_by_request(answer: &Value) -> HashMap<String, CrmCommentId> {
    let notes = at(answer, &["_embedded", "notes"]).map(items).unwrap_or_default();
    let read = |note: &Value| Some((member(note, "request_id").and_then(text)?, note_id(note)?));
    notes.into_iter().filter_map(read).collect()
}

fn note_id(note: &Value) -> Option<CrmCommentId> {
    member(note, "id").and_then(integer).filter(|id| *id > 0).map(|id| CrmCommentId(id.to_string()))
}

/// Cuts the middle, so that the last line stays: it tells whose note it is.
fn cut(text: String) -> String {
    let length = text.chars().count();
    if length <= TEXT_MAX {
        return text;
    }
    let foot: String = text.lines().next_back().unwrap_or_default().to_owned();
    let keep = TEXT_MAX.saturating_sub(foot.chars().count() + 2);
    let head: String = text.chars().take(keep).collect();
    format!("{head}…\n{foot}")
}

#[cfg(test)]
mod tests {
    use super::super::errors::Invalid;
    use super::*;

    #[test]
    fn cards_have_amo_words() {
        assert_eq!(collection(CardKind::Deal), Some("leads"));
        assert_eq!(collection(CardKind::Customer), Some("customers"));
        assert_eq!(collection(CardKind::Lead), None);
    }

    #[test]
    fn a_long_note_keeps_its_last_line() {
        let text = cut(format!("{}\n· №VWXYZ0", "я".repeat(20_000)));
        assert_eq!(text.chars().count(), TEXT_MAX);
        assert!(refers_to(&text, "VWXYZ0"));
        assert_eq!(cut("short\n· №VWXYZ0".to_owned()), "short\n· №VWXYZ0");
    }

    fn refusal(requests: &[(&str, &str)]) -> Fault {
        let invalid = requests.iter().map(|(request, code)| Invalid {
            request: (*request).to_owned(),
            code: (*code).to_owned(),
            path: String::new(),
        });
        let (text, invalid) = (String::new(), invalid.collect());
        Fault::Said { status: 400, text, of_token: false, retry_after: None, invalid }
    }

    #[test]
    fn a_refused_request_is_sifted_by_our_id_or_by_place() {
        let mut entries = vec!["a", "b", "c", "d"];
        let mut told = Vec::new();
        let fault = refusal(&[("b", GONE), ("2", "TooLong")]);
        assert!(sift(&fault, &mut entries, 3, |entry| entry, |entry, error| told.push((entry, error.code))));
        assert_eq!(entries, ["a", "d"]);
        assert_eq!(told, [("b", GONE.to_owned()), ("c", "TooLong".to_owned())]);
        assert!(!sift(&refusal(&[("x", GONE)]), &mut entries, 2, |entry| entry, |_, _| panic!("nobody is named")));
    }

    #[test]
    fn ids_are_read_by_our_request() {
        let answer = json!({"_embedded": {"notes": [{"id": "7", "request_id": "m1"}, {"id": 0, "request_id": "m2"}]}});
        let ids = ids_by_request(&answer);
        assert_eq!((ids.get("m1"), ids.get("m2")), (Some(&CrmCommentId("7".to_owned())), None));
        assert!(ids_by_request(&Value::Null).is_empty());
    }
}
