//! The catalogue of actions as people configure them: `robots/*.toml`, one file per [`ActionKind`], compiled in.
//!
//! One description serves every CRM: Bitrix24 gets it as a robot, amoCRM as a Salesbot step. Keys are saved in
//! customers' automations (`surface.md` §5).

use serde::Deserialize;

use crate::domain::action::ActionKind;
use crate::domain::language::Language;

/// One action with its fields and results.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Robot {
    /// Code of the action.
    pub code: String,
    /// True when the CRM waits for the result.
    pub waits: bool,
    /// On which cards it is offered.
    pub documents: Vec<DocumentKind>,
    /// Its name.
    pub name: Texts,
    /// What it does, for whoever chooses it.
    pub description: Texts,
    /// Fields, in the order they are shown.
    pub properties: Vec<Property>,
    /// What it gives back.
    pub results: Vec<ResultField>,
}

/// A file of the catalogue. What means the same in several actions is described once, in that of `send_message`, and
/// named by its key elsewhere.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sheet {
    code: String,
    waits: bool,
    documents: Vec<DocumentKind>,
    name: Texts,
    description: Texts,
    /// Keys of the fields in their order, this file's and shared ones; absent: those of this file.
    fields: Option<Vec<String>>,
    /// The same of results.
    gives: Option<Vec<String>>,
    #[serde(default)]
    properties: Vec<Property>,
    #[serde(default)]
    results: Vec<ResultField>,
}

impl Sheet {
    fn read(action: ActionKind) -> Result<Self, String> {
        let sheet: Self = toml::from_str(source(action)).map_err(|e| e.to_string())?;
        if sheet.code == action.code() { Ok(sheet) } else { Err("other code".to_owned()) }
    }

    /// The action, with what it takes from the file of shared descriptions.
    fn robot(self, shared: &Self) -> Result<Robot, String> {
        Ok(Robot {
            properties: pick(self.fields, self.properties, &shared.properties, |property| &property.key)?,
            results: pick(self.gives, self.results, &shared.results, |result| &result.key)?,
            code: self.code,
            waits: self.waits,
            documents: self.documents,
            name: self.name,
            description: self.description,
        })
    }
}

/// The descriptions with these keys, in their order; one's own come before shared ones, and none may be left over.
fn pick<T: Clone>(
    keys: Option<Vec<String>>,
    mut own: Vec<T>,
    shared: &[T],
    key_of: fn(&T) -> &str,
) -> Result<Vec<T>, String> {
    let Some(keys) = keys else { return Ok(own) };
    let mut picked = Vec::with_capacity(keys.len());
    for key in keys {
        let found = match own.iter().position(|item| key_of(item) == key) {
            Some(at) => Some(own.remove(at)),
            None => shared.iter().find(|item| key_of(item) == key).cloned(),
        };
        picked.push(found.ok_or_else(|| format!("{key} is described nowhere"))?);
    }
    match own.first() {
        None => Ok(picked),
        Some(item) => Err(format!("{} is described and not named", key_of(item))),
    }
}

/// A text in every language.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Texts {
    /// Russian.
    pub ru: String,
    /// English.
    pub en: String,
}

impl Texts {
    /// The text in one language.
    #[must_use]
    pub fn of(&self, language: Language) -> &str {
        match language {
            Language::Ru => &self.ru,
            Language::En => &self.en,
        }
    }
}

/// Kinds of cards that have automations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentKind {
    /// A lead.
    Lead,
    /// A deal.
    Deal,
    /// A quote.
    Quote,
    /// An invoice of the newer kind.
    SmartInvoice,
    /// An item of any type the customer defined.
    SmartProcess,
    /// An order.
    Order,
}

/// One field.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Property {
    /// Saved in automations.
    pub key: String,
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: PropertyKind,
    /// True when it cannot be left empty.
    #[serde(default)]
    pub required: bool,
    /// True when it takes several values.
    #[serde(default)]
    pub multiple: bool,
    /// Value of a new robot.
    #[serde(default)]
    pub default: Option<String>,
    /// Its name.
    pub name: Texts,
    /// A hint.
    #[serde(default)]
    pub description: Option<Texts>,
    /// Choices of a `select`.
    #[serde(default)]
    pub options: Vec<Choice>,
    /// Where the choices come from, when they differ from portal to portal.
    #[serde(default)]
    pub options_from: Option<OptionsFrom>,
}

/// Kinds of fields every CRM can show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PropertyKind {
    /// One line.
    String,
    /// Several lines.
    Text,
    /// A whole number.
    Int,
    /// Yes or no.
    Bool,
    /// One of a list.
    Select,
    /// A user of the CRM.
    User,
}

impl PropertyKind {
    /// The word in the files, which is also Bitrix24's.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Text => "text",
            Self::Int => "int",
            Self::Bool => "bool",
            Self::Select => "select",
            Self::User => "user",
        }
    }
}

/// One choice of a `select`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// Saved in automations.
    pub value: String,
    /// What is shown.
    pub name: Texts,
}

/// Choices that differ from portal to portal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptionsFrom {
    /// The lines bound to the portal.
    Lines,
}

/// One result.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultField {
    /// Used by later steps of the automation.
    pub key: String,
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: PropertyKind,
    /// True when it holds several values.
    #[serde(default)]
    pub multiple: bool,
    /// Its name.
    pub name: Texts,
}

/// The file of an action.
fn source(action: ActionKind) -> &'static str {
    match action {
        ActionKind::SendMessage => include_str!("../robots/send_message.toml"),
        ActionKind::SendFile => include_str!("../robots/send_file.toml"),
        ActionKind::SendDocument => include_str!("../robots/send_document.toml"),
        ActionKind::SendToGroup => include_str!("../robots/send_to_group.toml"),
        ActionKind::SendFileToGroup => include_str!("../robots/send_file_to_group.toml"),
        ActionKind::RenameChat => include_str!("../robots/rename_chat.toml"),
        ActionKind::TagDialog => include_str!("../robots/tag_dialog.toml"),
        ActionKind::CheckPhone => include_str!("../robots/check_phone.toml"),
    }
}

/// Reads the whole catalogue, in the order of [`ActionKind::ALL`].
///
/// # Errors
/// A file cannot be read as a robot; it names the file. The files are compiled in and tested, so this means a broken
/// build.
pub fn load() -> Result<Vec<Robot>, String> {
    let of_file = |action: ActionKind| move |e: String| format!("robots/{}.toml: {e}", action.code());
    let shared = Sheet::read(ActionKind::SendMessage).map_err(of_file(ActionKind::SendMessage))?;
    let read = |action| Sheet::read(action).and_then(|sheet| sheet.robot(&shared)).map_err(of_file(action));
    ActionKind::ALL.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::channel::Messenger;
    use crate::domain::command::{RecipientSource, WaitFor};
    use crate::domain::guards::Duplicates;

    /// `surface.md` §5: what customers' automations have saved.
    const KEYS: [&str; 23] = [
        "caption",
        "chat_ids",
        "comment",
        "duplicates",
        "fallback_template",
        "files",
        "first_name",
        "last_name",
        "line",
        "messenger",
        "messenger_field",
        "not_after_minutes",
        "params",
        "phones",
        "quiet_hours",
        "recipients",
        "responsible",
        "supersede",
        "template",
        "text",
        "time_zone",
        "wait",
        "wait_minutes",
    ];

    #[test]
    fn every_action_has_a_sound_file() {
        let robots = load().unwrap();
        assert_eq!(robots.len(), ActionKind::ALL.len());
        for robot in &robots {
            assert!(robot.code.len() <= 128 && is_key(&robot.code), "{}", robot.code);
            let mut keys = BTreeSet::new();
            for property in &robot.properties {
                assert!(is_key(&property.key) && keys.insert(&property.key), "{}", property.key);
                let select = property.kind == PropertyKind::Select;
                assert_eq!(select, !property.options.is_empty() || property.options_from.is_some(), "{}", property.key);
                if let Some(default) = property.default.as_ref().filter(|_| select) {
                    assert!(property.options.iter().any(|choice| choice.value == *default), "{}", property.key);
                }
            }
            for result in &robot.results {
                assert!(is_key(&result.key), "{}", result.key);
            }
            for texts in texts(robot) {
                assert!(!texts.ru.trim().is_empty() && !texts.en.trim().is_empty(), "{texts:?}");
            }
        }
    }

    #[test]
    fn keys_of_send_message_are_those_saved_in_automations() {
        let robots = load().unwrap();
        let robot = robots.iter().find(|robot| robot.code == "send_message").unwrap();
        let keys: BTreeSet<&str> = robot.properties.iter().map(|property| property.key.as_str()).collect();
        assert_eq!(keys, KEYS.into_iter().collect());
        let results: Vec<&str> = robot.results.iter().map(|result| result.key.as_str()).collect();
        assert_eq!(results, ["status", "detail", "timeout", "error_code", "message_ids", "delivered_at"]);
        let multiple: BTreeSet<&str> =
            robot.properties.iter().filter(|p| p.multiple).map(|property| property.key.as_str()).collect();
        assert_eq!(multiple, ["phones", "chat_ids", "params", "files"].into_iter().collect());
    }

    #[test]
    fn choices_are_words_the_product_knows() {
        let robots = load().unwrap();
        let choices = |key: &str| -> Vec<String> {
            let property = robots[0].properties.iter().find(|property| property.key == key).unwrap();
            property.options.iter().map(|choice| choice.value.clone()).collect()
        };
        assert!(choices("recipients").iter().all(|word| RecipientSource::find(word).is_some()));
        assert!(choices("wait").iter().all(|word| WaitFor::find(word).is_some()));
        let duplicates: Vec<String> = Duplicates::ALL.iter().map(|choice| choice.code().to_owned()).collect();
        assert_eq!(choices("duplicates").split_first().unwrap().1, duplicates);
        let messengers: Vec<String> = Messenger::ALL.iter().map(|messenger| messenger.code().to_owned()).collect();
        assert_eq!(choices("messenger").split_first().unwrap().1, messengers);
    }

    #[test]
    fn unknown_words_in_a_file_are_errors() {
        let text = source(ActionKind::SendMessage).replacen("waits = true", "waits = true\nsurprise = 1", 1);
        assert!(toml::from_str::<Sheet>(&text).is_err());
    }

    /// What Bitrix24 takes as a property key (protocol reference, section "Fields of add").
    fn is_key(key: &str) -> bool {
        key.starts_with(|sign: char| sign.is_ascii_lowercase())
            && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    }

    fn texts(robot: &Robot) -> Vec<&Texts> {
        let properties = robot.properties.iter();
        let choices = properties.clone().flat_map(|property| property.options.iter().map(|choice| &choice.name));
        let hints = properties.clone().filter_map(|property| property.description.as_ref());
        let results = robot.results.iter().map(|result| &result.name);
        let names = properties.map(|property| &property.name);
        [&robot.name, &robot.description].into_iter().chain(names).chain(hints).chain(choices).chain(results).collect()
    }
}
