//! Robots as Bitrix24 wants them: from `robots/*.toml` to the fields of `bizproc.robot.add`.
//!
//! Only robots are registered for now, no activities: robots and activities of an application share one name space of
//! codes, so the same action cannot be both under one code (protocol reference, section "Fields of add", read 2026-11).

use super::batch::Param;
use crate::domain::language::Language;
use crate::robots::{DocumentKind, OptionsFrom, Property, ResultField, Robot, Texts};

/// Fields of a robot in the order they are sent, without its code.
pub(super) type Fields = Vec<(&'static str, Param)>;

/// What differs from portal to portal.
pub(super) struct Place<'a> {
    /// Where calls of the robot go.
    pub(super) handler: String,
    /// Whose token comes with the calls; a robot without one runs as nobody.
    pub(super) user_id: &'a str,
    /// Titles of choices exist in one language only.
    pub(super) language: Language,
    /// Ids and names of the lines to choose from.
    pub(super) lines: &'a [(String, String)],
}

/// Renders a robot for one portal.
pub(super) fn render(robot: &Robot, place: &Place<'_>) -> Fields {
    let properties = robot.properties.iter().map(|property| (property.key.clone(), descriptor(property, place)));
    let results = robot.results.iter().map(|result| (result.key.clone(), result_descriptor(result)));
    let documents = robot.documents.iter().map(|kind| document(*kind)).collect();
    vec![
        ("HANDLER", place.handler.as_str().into()),
        ("AUTH_USER_ID", place.user_id.into()),
        ("USE_SUBSCRIPTION", yes_no(robot.waits)),
        ("NAME", texts(&robot.name)),
        ("DESCRIPTION", texts(&robot.description)),
        ("PROPERTIES", Param::Map(properties.collect())),
        ("RETURN_PROPERTIES", Param::Map(results.collect())),
        ("FILTER", Param::map([("INCLUDE", Param::List(documents))])),
    ]
}

fn descriptor(property: &Property, place: &Place<'_>) -> Param {
    let mut members = vec![("Name", texts(&property.name))];
    if let Some(description) = &property.description {
        members.push(("Description", texts(description)));
    }
    members.push(("Type", property.kind.code().into()));
    let mut options: Vec<(String, Param)> =
        property.options.iter().map(|choice| (choice.value.clone(), choice.name.of(place.language).into())).collect();
    match property.options_from {
        Some(OptionsFrom::Lines) => {
            options.extend(place.lines.iter().map(|(id, name)| (id.clone(), name.as_str().into())));
        }
        None => {}
    }
    if !options.is_empty() {
        members.push(("Options", Param::Map(options)));
    }
    members.push(("Required", yes_no(property.required)));
    members.push(("Multiple", yes_no(property.multiple)));
    if let Some(default) = &property.default {
        members.push(("Default", default.as_str().into()));
    }
    Param::Map(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn result_descriptor(result: &ResultField) -> Param {
    Param::map([
        ("Name", texts(&result.name)),
        ("Type", result.kind.code().into()),
        ("Multiple", yes_no(result.multiple)),
    ])
}

/// Russian and English; people with another language see English.
fn texts(texts: &Texts) -> Param {
    Param::map([("en", texts.en.as_str().into()), ("ru", texts.ru.as_str().into())])
}

fn yes_no(yes: bool) -> Param {
    if yes { "Y" } else { "N" }.into()
}

/// A partial document type: module and class; every type number of smart processes shares one class.
fn document(kind: DocumentKind) -> Param {
    let class = match kind {
        DocumentKind::Lead => "CCrmDocumentLead",
        DocumentKind::Deal => "CCrmDocumentDeal",
        DocumentKind::Quote => r"Bitrix\Crm\Integration\BizProc\Document\Quote",
        DocumentKind::SmartInvoice => r"Bitrix\Crm\Integration\BizProc\Document\SmartInvoice",
        DocumentKind::SmartProcess => r"Bitrix\Crm\Integration\BizProc\Document\Dynamic",
        DocumentKind::Order => r"Bitrix\Crm\Integration\BizProc\Document\Order",
    };
    Param::List(vec!["crm".into(), class.into()])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::crm::bitrix24::batch::encode;
    use crate::forms::{FormLimits, decode};

    fn rendered(lines: &[(String, String)], language: Language) -> Value {
        let robots = crate::robots::load().unwrap();
        let handler = "https://c.example/bitrix24/main/robots/send_message".to_owned();
        let fields = render(&robots[0], &Place { handler, user_id: "7", language, lines });
        decode(encode(&fields).as_bytes(), FormLimits::default()).unwrap()
    }

    #[test]
    fn the_robot_is_what_the_portal_asks_for() {
        let lines = [("line_1".to_owned(), "Sales".to_owned()), ("line_2".to_owned(), "Support".to_owned())];
        let robot = rendered(&lines, Language::Ru);
        assert_eq!(robot["HANDLER"], json!("https://c.example/bitrix24/main/robots/send_message"));
        assert_eq!(robot["AUTH_USER_ID"], json!("7"));
        assert_eq!(robot["USE_SUBSCRIPTION"], json!("Y"));
        assert!(robot["NAME"]["ru"].is_string() && robot["NAME"]["en"].is_string());
        let properties = &robot["PROPERTIES"];
        assert_eq!(properties["line"]["Options"], json!({"line_1": "Sales", "line_2": "Support"}));
        assert_eq!(properties["line"]["Type"], json!("select"));
        assert_eq!(properties["phones"]["Multiple"], json!("Y"));
        assert_eq!(properties["recipients"]["Options"]["main"], json!("Основной контакт карточки"));
        assert_eq!(properties["wait"]["Default"], json!("accepted"));
        assert_eq!(properties["responsible"]["Type"], json!("user"));
        assert_eq!(robot["RETURN_PROPERTIES"]["message_ids"]["Multiple"], json!("Y"));
        let include = robot["FILTER"]["INCLUDE"].as_array().unwrap();
        assert_eq!(include.len(), 6);
        assert_eq!(include[4], json!(["crm", r"Bitrix\Crm\Integration\BizProc\Document\Dynamic"]));
    }

    #[test]
    fn a_portal_without_lines_has_no_choice_of_lines() {
        let robot = rendered(&[], Language::En);
        assert_eq!(robot["PROPERTIES"]["line"].get("Options"), None);
        assert_eq!(robot["PROPERTIES"]["recipients"]["Options"]["main"], json!("Main contact of the card"));
    }

    #[test]
    fn fields_are_shown_in_the_order_of_the_file() {
        let robots = crate::robots::load().unwrap();
        let place = Place { handler: String::new(), user_id: "1", language: Language::En, lines: &[] };
        let fields = render(&robots[0], &place);
        let Some((_, Param::Map(properties))) = fields.iter().find(|(key, _)| *key == "PROPERTIES") else {
            panic!("no properties")
        };
        let keys: Vec<&str> = properties.iter().map(|(key, _)| key.as_str()).collect();
        let file: Vec<&str> = robots[0].properties.iter().map(|property| property.key.as_str()).collect();
        assert_eq!(keys, file);
    }
}
