//! The Digital Pipeline calls: a lead has come to a stage for which somebody chose our action.
//!
//! Nothing signs such a call. What proves it is a word that only the account's own widget is given, and which it writes into
//! the settings of the action (protocol reference, section "Digital Pipeline trigger", read 2026-11). amoCRM calls once
//! and never again, and may call twice for one move, so the call is known again by card, moment and settings.

use sha2::{Digest as _, Sha256};

use super::salesbot::{BodyKind, StepError, read_body};
use super::values::{self, Values};
use crate::domain::command::Command;
use crate::domain::ids::CommandId;
use crate::domain::portal::{CardRef, Portal};
use crate::domain::time::Timestamp;
use crate::forms::{at, member, text_at};

/// In the path of packages for every account: the account's word stands in the settings of the action instead.
pub const IN_SETTINGS: &str = "widget";
/// Where a lead moved that leaves the stages of the action, or moves among them: nothing is sent for it.
const NOT_ENTERING: [&str; 2] = ["went_from_trigger", "went_in_trigger"];
/// Event types that say the same: a lead moved to the stage, a lead appeared in it.
const MOVED: [&str; 2] = ["14", "15"];

/// A call whose word is still to be compared.
#[derive(Clone, PartialEq, Debug)]
pub struct Trigger {
    /// Which account it says it is of.
    pub account_id: String,
    /// The word from the action's settings.
    pub key: String,
    /// False when the lead leaves: then there is nothing to do.
    pub enters: bool,
    card: CardRef,
    dedupe: String,
    settings: String,
    values: Values,
}

/// Reads a call.
///
/// # Errors
/// [`StepError::Malformed`].
pub fn read(kind: BodyKind, body: &[u8]) -> Result<Trigger, StepError> {
    let call = read_body(kind, body)?;
    let malformed = |what: &str| StepError::Malformed(what.to_owned());
    let account_id = text_at(&call, &["account_id"]);
    if account_id.is_empty() {
        return Err(malformed("no account_id"));
    }
    let data = at(&call, &["event", "data"]).ok_or(malformed("no event.data"))?;
    let id = member(data, "id").and_then(values::number).ok_or(malformed("event.data.id is no card"))?;
    let kind = values::card_kind(&text_at(data, &["element_type"]));
    let card = CardRef { kind: kind.ok_or(malformed("event.data.element_type is no kind of card"))?, id };
    let values = values::read(at(&call, &["action", "settings", "widget", "settings"]));
    let kind = text_at(&call, &["event", "type"]);
    let event = if MOVED.contains(&kind.as_str()) { "moved" } else { kind.as_str() };
    let settings = fingerprint(&values);
    Ok(Trigger {
        key: values.get("key").and_then(crate::forms::text).unwrap_or_default(),
        enters: !NOT_ENTERING.contains(&text_at(data, &["direction_of_movement"]).as_str()),
        dedupe: format!("pipeline:{card}:{event}:{}:{settings}", text_at(&call, &["event", "time"])),
        account_id,
        card,
        settings,
        values,
    })
}

/// Tells one action's settings from another's.
fn fingerprint(values: &Values) -> String {
    let written = serde_json::to_vec(values).unwrap_or_default();
    Sha256::digest(&written).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Puts a proved call into the product's words. Never fails: what cannot be carried out is said on the card.
#[must_use]
pub fn command(portal: &Portal, trigger: &Trigger, id: CommandId, now: Timestamp) -> Command {
    let code = Some(values::code_of(&trigger.values)).filter(|code| !code.is_empty());
    let asked = values::asked_of(code.as_deref().unwrap_or("send_message"), &trigger.values);
    Command {
        id,
        portal: portal.id.clone(),
        dedupe_key: trigger.dedupe.clone(),
        card: Some(trigger.card),
        // Nobody waits: the lead has moved on.
        reply: None,
        comment: asked.comment,
        responsible: asked.responsible,
        received: now,
        robot: Some(format!("pipeline:{}", trigger.settings)),
        body: asked.body,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::portal::CardKind;

    const FORM: &str = "event[type]=15&event[type_code]=lead_appeared_in_status&event[data][id]=40401635\
        &event[data][element_type]=2&event[data][status_id]=60010203&event[data][pipeline_id]=7001200\
        &event[data][direction_of_movement]=went_to_trigger&event[time]=1770110100\
        &action[settings][widget][settings][template]=order_ready&action[settings][widget][settings][key]=f3a1\
        &subdomain=acme&account_id=31415926";

    fn tree() -> Value {
        json!({"event": {"type": 15, "type_code": "lead_appeared_in_status", "data": {"id": 40_401_635,
            "element_type": 2, "direction_of_movement": "went_to_trigger"}, "time": 1_770_110_100},
            "action": {"settings": {"widget": {"settings": {"template": "order_ready", "key": "f3a1"}}}},
            "subdomain": "acme", "account_id": 31_415_926})
    }

    #[test]
    fn the_documented_call_reads_the_same_in_both_shapes() {
        let form = read(BodyKind::Form, FORM.as_bytes()).unwrap();
        let json = read(BodyKind::Json, tree().to_string().as_bytes()).unwrap();
        assert_eq!(form, json);
        assert_eq!((form.account_id.as_str(), form.key.as_str(), form.enters), ("31415926", "f3a1", true));
        assert_eq!(form.card, CardRef { kind: CardKind::Deal, id: 40_401_635 });
    }

    #[test]
    fn fourteen_and_fifteen_are_one_move_and_leaving_is_none() {
        let of = |change: &dyn Fn(&mut Value)| {
            let mut call = tree();
            change(&mut call);
            read(BodyKind::Json, call.to_string().as_bytes()).unwrap()
        };
        let fourteen = of(&|call| call["event"]["type"] = json!(14));
        assert_eq!(fourteen.dedupe, of(&|_| {}).dedupe);
        assert_ne!(fourteen.dedupe, of(&|call| call["event"]["time"] = json!(1)).dedupe);
        for word in ["went_from_trigger", "went_in_trigger"] {
            assert!(!of(&|call| call["event"]["data"]["direction_of_movement"] = json!(word)).enters, "{word}");
        }
    }

    #[test]
    fn what_is_no_call_is_refused() {
        for body in [
            "",
            "account_id=1",
            "account_id=1&event[data][id]=x&event[data][element_type]=2",
            "account_id=1&event[data][id]=5&event[data][element_type]=7",
            "event[data][id]=5&event[data][element_type]=2",
        ] {
            assert!(matches!(read(BodyKind::Form, body.as_bytes()), Err(StepError::Malformed(_))), "{body}");
        }
        assert!(read(BodyKind::Json, b"{").is_err());
    }
}
