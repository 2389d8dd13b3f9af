//! What our widget in somebody's browser asks for: who proves themselves, from which pages, and what the form's values come
//! to, now or when a step will run (protocol reference, sections "Disposable token" and "Calling your server from the
//! widget", read 2026-11).

use serde_json::Value;
use url::Url;

use super::Amocrm;
use super::proof::{self, Signer};
use super::salesbot::StepError;
use super::values::{self, PARAM_DEFAULTS, Values};
use crate::domain::command::{Command, CommandBody};
use crate::domain::ids::{CommandId, CrmUserId};
use crate::domain::portal::Portal;
use crate::domain::time::Timestamp;
use crate::forms::{text_at, texts};

/// A person in whose browser our widget runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Visitor {
    /// Which account's page it is.
    pub account_id: String,
    /// Who looks at it.
    pub user: CrmUserId,
}

impl Amocrm {
    /// Proves the disposable token of a widget's call.
    ///
    /// # Errors
    /// [`StepError::Unproved`].
    pub fn prove_visitor(&self, app: &str, token: &str) -> Result<Visitor, StepError> {
        let claims = self.believed(app, Signer::Browser, token)?;
        let user = CrmUserId(text_at(&claims, &["user_id"]));
        Ok(Visitor { account_id: proof::account_of(&claims)?, user })
    }

    /// True when a page of this origin may be an account's: a browser may then ask before anybody has proved anything.
    #[must_use]
    pub fn is_page(&self, origin: &str) -> bool {
        let Ok(url) = Url::parse(origin) else { return false };
        if url.origin().ascii_serialization() != origin {
            return false;
        }
        let host = url.host_str().filter(|_| url.scheme() == "https" && url.port().is_none());
        host.is_some_and(|host| self.hosts.place(host).is_some()) || self.hosts.is_stand_in(origin)
    }

    /// True when pages of this origin are this account's own.
    #[must_use]
    pub fn is_page_of(&self, origin: &str, portal: &Portal) -> bool {
        origin == format!("https://{}", portal.domain) || self.hosts.is_stand_in(origin)
    }
}

/// Puts what somebody wrote in the widget's own form into the product's words. `request` is the widget's word for this one
/// click: the same word is the same request.
#[must_use]
pub fn command(
    portal: &Portal,
    visitor: &Visitor,
    request: &str,
    data: &Value,
    (id, now): (CommandId, Timestamp),
) -> Command {
    let values = values::read(Some(data));
    let asked = values::asked_of(&values::code_of(&values), &values);
    Command {
        id,
        portal: portal.id.clone(),
        dedupe_key: format!("widget:{}:{request}", visitor.user),
        card: values::card_of(&values),
        reply: None,
        comment: asked.comment,
        responsible: asked.responsible.or_else(|| Some(visitor.user.clone())),
        received: now,
        robot: None,
        body: asked.body,
    }
}

/// What a step would come to.
pub struct Rehearsal {
    /// The work, or why there is none. Where the CRM will fill something in, a value that fits stands for it.
    pub body: CommandBody,
    /// Parameters, from 1, that may come empty and have no default.
    pub may_be_empty: Vec<usize>,
}

/// Places that the CRM always fills in, so that they are never empty (protocol reference, section "Bot JSON").
const ALWAYS_FILLED: [&str; 9] = [
    "lead.id",
    "contact.id",
    "customer.id",
    "lead.price",
    "lead.status_id",
    "current_date",
    "rand",
    "short_rand",
    "short_rand_num",
];
/// Places the CRM knows by their whole name.
const PLACES: [&str; 6] = ["name", "message_text", "origin", "talk.id", "cf.talk.nps", "last_validation_result"];
/// Places the CRM knows by how they begin.
const FAMILIES: [&str; 6] = ["contact.", "lead.", "customer.", "company.", "json.", "message_text."];
/// Stands for what the CRM will fill in; fits a phone and any text.
const STAND_IN: &str = "79001234567";
/// The same where an address of a file is meant.
const STAND_IN_FILE: &str = "https://example.org/file.pdf";

fn is_place(name: &str) -> bool {
    let family = FAMILIES.iter().any(|start| name.strip_prefix(start).is_some_and(|rest| !rest.is_empty()));
    family || ALWAYS_FILLED.contains(&name) || PLACES.contains(&name)
}

/// Puts a value for each place that the CRM knows. What it does not know stays, and is refused as it will be.
fn stand_in(text: &str, value: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, from)) = rest.split_once("{{") {
        out.push_str(before);
        match from.split_once("}}") {
            Some((name, after)) if is_place(name.trim()) => {
                out.push_str(value);
                rest = after;
            }
            Some(_) | None => {
                out.push_str("{{");
                rest = from;
            }
        }
    }
    out.push_str(rest);
    out
}

/// True when a parameter consists of places that may all be empty.
fn may_be_empty(param: &str) -> bool {
    let value = param.split_once('=').filter(|(name, _)| !name.contains("{{")).map_or(param, |(_, value)| value);
    let mut rest = value.trim();
    while let Some(from) = rest.strip_prefix("{{") {
        let Some((name, after)) = from.split_once("}}") else { return false };
        if ALWAYS_FILLED.contains(&name.trim()) {
            return false;
        }
        rest = after.trim_start();
    }
    rest.is_empty()
}

/// Who will carry an action out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carrier {
    /// A Salesbot, which fills in what it knows of the card.
    Bot,
    /// A stage of the pipeline, which hands settings over as they were saved.
    Pipeline,
}

/// What an action with these values would come to.
#[must_use]
pub fn rehearse(data: &Value, carrier: Carrier) -> Rehearsal {
    let values = values::read(Some(data));
    let (params, defaults) = (list(&values, "params"), list(&values, PARAM_DEFAULTS));
    let has_default = |place: usize| defaults.get(place).is_some_and(|default| !default.trim().is_empty());
    let bare = params.iter().enumerate().filter(|(place, param)| may_be_empty(param) && !has_default(*place));
    let bare = bare.map(|(place, _)| place + 1).collect();
    let filled: Values = match carrier {
        Carrier::Bot => with_stand_ins(&values),
        Carrier::Pipeline => values.clone(),
    };
    Rehearsal { body: values::asked_of(&values::code_of(&values), &filled).body, may_be_empty: bare }
}

fn with_stand_ins(values: &Values) -> Values {
    values
        .iter()
        .map(|(key, value)| {
            let value_of_place = if key == "files" { STAND_IN_FILE } else { STAND_IN };
            let filled: Vec<String> = texts(value).iter().map(|text| stand_in(text, value_of_place)).collect();
            (key.clone(), filled.into())
        })
        .collect()
}

fn list(values: &Values, key: &str) -> Vec<String> {
    values.get(key).map(texts).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::outcome::ErrorCode;

    fn refused(data: &Value) -> Option<ErrorCode> {
        match rehearse(data, Carrier::Bot).body {
            CommandBody::Invalid { failure } => Some(failure.code),
            CommandBody::SendMessage(_)
            | CommandBody::Answer(_)
            | CommandBody::RenameChat(_)
            | CommandBody::TagDialog(_)
            | CommandBody::CheckPhone(_) => None,
        }
    }

    #[test]
    fn places_of_the_crm_are_no_mistakes() {
        let step = |text: &str| json!({"action": "send_message", "text": text});
        assert_eq!(refused(&step("{{contact.name}}, {{ lead.cf.12 }} {Hi|Hello} {{json.reply}}")), None);
        for text in ["{{contact.}}", "{{surprise}}", "{=Document:ID}"] {
            assert_eq!(refused(&step(text)), Some(ErrorCode::UnresolvedPlaceholder), "{text}");
        }
        assert_eq!(refused(&step("")), Some(ErrorCode::NoContent));
        assert_eq!(refused(&json!({"action": "dance", "text": "Hi"})), Some(ErrorCode::BadRequest));
    }

    #[test]
    fn the_pipeline_fills_nothing_in() {
        let data = json!({"action": "send_message", "text": "{{contact.name}}, hello"});
        let CommandBody::Invalid { failure } = rehearse(&data, Carrier::Pipeline).body else { panic!("it would pass") };
        assert_eq!(failure.code, ErrorCode::UnresolvedPlaceholder);
    }

    #[test]
    fn a_parameter_that_may_be_empty_wants_a_default() {
        let bare = |params: Value, defaults: Value| {
            let data = json!({"action": "send_message", "template": "t", "params": params, "param_defaults": defaults});
            rehearse(&data, Carrier::Bot).may_be_empty
        };
        assert_eq!(bare(json!(["{{contact.name}}", "{{lead.id}}", "Mr {{contact.name}}", ""]), json!([])), [1, 4]);
        assert_eq!(bare(json!(["{{contact.name}}{{name}}", "n={{lead.cf.1}}"]), json!(["friend"])), [2]);
        assert_eq!(bare(json!(["{{lead.id}} {{lead.cf.1}}"]), json!([])), [0; 0]);
    }
}
