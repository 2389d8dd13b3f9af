//! The values of an action as our widget writes them into steps, triggers and its own form.
//!
//! They are those of the catalogue (`surface.md` §5) with three additions of amoCRM: lists may be written as one JSON text,
//! because its forms hold flat texts; a parameter that comes empty takes its default (`param_defaults`), because a field
//! of a card that is not filled in expands to nothing; and `in_group` = `stop` leaves groups alone.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::crm::asked::{Asked, asked};
use crate::domain::command::CommandBody;
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::portal::{CardKind, CardRef};
use crate::forms::{integer, text, texts};

/// By lower-case key.
pub(super) type Values = BTreeMap<String, Value>;

/// Keys whose values are lists.
const LISTS: [&str; 3] = ["params", PARAM_DEFAULTS, "files"];
/// What stands for a parameter that comes empty, by its place.
pub(super) const PARAM_DEFAULTS: &str = "param_defaults";
/// What a step does about a recipient that is a group.
const IN_GROUP: &str = "in_group";

/// The values of an object, by lower-case key, lists taken apart.
pub(super) fn read(data: Option<&Value>) -> Values {
    let pairs = data.and_then(Value::as_object).into_iter().flatten();
    let mut values: Values = pairs.map(|(key, value)| (key.to_lowercase(), value.clone())).collect();
    for key in LISTS {
        let written = values.get(key).and_then(text).filter(|text| text.trim_start().starts_with('['));
        if let Some(list) = written.and_then(|text| serde_json::from_str::<Vec<String>>(&text).ok()) {
            values.insert(key.to_owned(), list.into());
        }
    }
    values
}

/// The code of the action that is meant.
pub(super) fn code_of(values: &Values) -> String {
    ["action", "handler"].iter().find_map(|key| values.get(*key).and_then(text)).unwrap_or_default()
}

/// What the values ask for. Never fails: what cannot be carried out says why.
pub(super) fn asked_of(code: &str, values: &Values) -> Asked {
    let mut values = values.clone();
    // Whoever names nobody means the card's main contact: that is what a step without a number shows.
    let given = ["recipients", "phones", "chat_ids", "messenger_field"];
    if given.iter().all(|key| is_empty(&values, key)) {
        values.insert("recipients".to_owned(), Value::String("main".to_owned()));
    }
    fill_params(&mut values);
    let mut asked = asked(code, &values);
    if let Some(failure) = group_rule(&values) {
        asked.body = CommandBody::Invalid { failure };
    }
    asked
}

fn is_empty(values: &Values, key: &str) -> bool {
    values.get(key).is_none_or(|value| texts(value).iter().all(|text| text.trim().is_empty()))
}

/// Puts defaults where parameters are empty: `` or, for those with names, `name=`.
fn fill_params(values: &mut Values) {
    let defaults = values.get(PARAM_DEFAULTS).map(texts).unwrap_or_default();
    let Some(params) = values.get("params").map(texts).filter(|_| !defaults.is_empty()) else { return };
    let count = params.len().max(defaults.len());
    let filled = (0..count).map(|place| {
        let (given, default) = (params.get(place), defaults.get(place).map_or("", String::as_str));
        match given.map_or("", |given| given.trim()) {
            "" => default.to_owned(),
            named if named.ends_with('=') && named.matches('=').count() == 1 => format!("{named}{default}"),
            given => given.to_owned(),
        }
    });
    let filled: Vec<String> = filled.collect();
    values.insert("params".to_owned(), filled.into());
}

/// Why nothing is sent to a group, or why the rule about groups cannot be read.
fn group_rule(values: &Values) -> Option<Failure> {
    let rule = values.get(IN_GROUP).and_then(text).unwrap_or_default().trim().to_lowercase();
    match rule.as_str() {
        "" | "run" => None,
        "stop" => {
            let is_word = |word: &str| values.get("recipients").and_then(text).is_some_and(|text| text.trim() == word);
            let chats = values.get("chat_ids").map(texts).unwrap_or_default();
            let of_group = |chat: &String| chat.trim().starts_with(['-', '@']);
            let group = is_word("group") || chats.iter().any(of_group);
            group.then(|| Failure::with(ErrorCode::Unsupported, format!("{IN_GROUP}=stop")))
        }
        other => Some(Failure::with(
            ErrorCode::BadRequest,
            format!("{IN_GROUP}={}", other.chars().take(40).collect::<String>()),
        )),
    }
}

/// The kind of card that a number or a word, one or many, stands for.
pub(super) fn card_kind(word: &str) -> Option<CardKind> {
    match word.to_ascii_lowercase().as_str() {
        "1" | "contact" | "contacts" => Some(CardKind::Contact),
        "2" | "lead" | "leads" => Some(CardKind::Deal),
        "3" | "company" | "companies" => Some(CardKind::Company),
        "12" | "customer" | "customers" => Some(CardKind::Customer),
        _ => None,
    }
}

/// The card that the values themselves name.
pub(super) fn card_of(values: &Values) -> Option<CardRef> {
    let kinds = [
        ("lead", CardKind::Deal),
        ("customer", CardKind::Customer),
        ("contact", CardKind::Contact),
        ("company", CardKind::Company),
    ];
    kinds.into_iter().find_map(|(key, kind)| values.get(key).and_then(number).map(|id| CardRef { kind, id }))
}

/// The number of a card.
pub(super) fn number(value: &Value) -> Option<u64> {
    integer(value).and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn send(data: &Value) -> Result<crate::domain::command::SendMessage, Failure> {
        match asked_of("send_message", &read(Some(data))).body {
            CommandBody::SendMessage(send) => Ok(*send),
            CommandBody::Invalid { failure } => Err(failure),
            other @ (CommandBody::Answer(_)
            | CommandBody::RenameChat(_)
            | CommandBody::TagDialog(_)
            | CommandBody::CheckPhone(_)) => panic!("{other:?}"),
        }
    }

    #[test]
    fn lists_come_as_lists_or_as_one_text() {
        let of = |params: Value| send(&json!({"template": "t:ru", "params": params})).unwrap().template.unwrap().params;
        assert_eq!(of(json!(["a", "b"])), ["a", "b"]);
        assert_eq!(of(json!(r#"["a","b, [c]"]"#)), ["a", "b, [c]"]);
        assert_eq!(of(json!("[not json")), ["[not json"]);
    }

    #[test]
    fn a_parameter_that_comes_empty_takes_its_default() {
        let of = |params: Value, defaults: Value| {
            let data = json!({"template": "t:ru", "params": params, "param_defaults": defaults});
            send(&data).unwrap().template.unwrap().params
        };
        assert_eq!(of(json!(["", " ", "x"]), json!(["friend", "", "y"])), ["friend", "", "x"]);
        assert_eq!(of(json!(["name=", "city=Omsk"]), json!(["friend", "Moscow"])), ["name=friend", "city=Omsk"]);
        assert_eq!(of(json!([]), json!(["a", "b"])), ["a", "b"]);
    }

    #[test]
    fn groups_are_left_alone_where_the_step_says_so() {
        let step = |rule: &str, chat: &str| send(&json!({"text": "Hi", "chat_ids": chat, "in_group": rule}));
        assert!(step("run", "-100123").is_ok() && step("", "@open_group").is_ok() && step("stop", "5001").is_ok());
        for chat in ["-100123", "@open_group"] {
            assert_eq!(step("stop", chat).unwrap_err().code, ErrorCode::Unsupported);
        }
        assert_eq!(step("perhaps", "5001").unwrap_err().code, ErrorCode::BadRequest);
    }

    #[test]
    fn whoever_names_nobody_means_the_main_contact() {
        use crate::domain::command::RecipientSource;
        let source = |data: Value| send(&data).unwrap().recipients.source;
        assert_eq!(source(json!({"text": "Hi", "phones": " "})), RecipientSource::Main);
        assert_eq!(source(json!({"text": "Hi", "phones": "79001234567"})), RecipientSource::Given);
    }
}
