//! The vendor's description of a template, reduced to what sending needs.
//!
//! Sources: Meta, WhatsApp Business Platform, "Templates", "Template components", "Template status", Management API
//! `GET /{waba}/message_templates`; read 2026-11.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::domain::template::{ButtonKind, HeaderKind, TemplateButton, TemplateDef, TemplateRef};

/// States in which the vendor lets a template be sent. A word that is not here, also one not known yet, is not
/// sendable: to send a disabled template harms the number's rating, to wait for a new release of ours harms nobody.
const SENDABLE: [&str; 5] = ["APPROVED", "FLAGGED", "REINSTATED", "LOCKED", "UNLOCKED"];

/// Components and buttons that must be given values with every send, of kinds that no robot can give.
const BEYOND_US: [&str; 5] = ["CAROUSEL", "LIMITED_TIME_OFFER", "MPM", "SPM", "ORDER_DETAILS"];

/// Reads one translation; `None` when it has no name or language.
pub(super) fn read(template: &Value) -> Option<TemplateDef> {
    let id = TemplateRef { name: text(template, "name").to_owned(), language: text(template, "language").to_owned() };
    if id.name.is_empty() || id.language.is_empty() {
        return None;
    }
    let named = match text(template, "parameter_format").to_ascii_uppercase().as_str() {
        "NAMED" => Some(true),
        "POSITIONAL" => Some(false),
        _ => None,
    };
    let mut status = text(template, "status").to_ascii_uppercase();
    let mut def = TemplateDef {
        id,
        sendable: SENDABLE.contains(&status.as_str()),
        status: String::new(),
        header: HeaderKind::Fixed,
        body: String::new(),
        header_variables: Vec::new(),
        body_variables: Vec::new(),
        buttons: Vec::new(),
    };
    for component in template.get("components").and_then(Value::as_array).into_iter().flatten() {
        if let Err(foreign) = read_component(&mut def, component, named) {
            def.sendable = false;
            status = format!("{status} ({foreign})");
        }
    }
    // The text of a code is the vendor's own and may be left out of the description; it always takes the code.
    if def.body.is_empty() && text(template, "category").eq_ignore_ascii_case("AUTHENTICATION") {
        def.body_variables = vec![None];
    }
    def.status = status;
    Some(def)
}

/// Adds one component; the error is the vendor's word for something a robot cannot fill.
fn read_component(def: &mut TemplateDef, component: &Value, named: Option<bool>) -> Result<(), String> {
    let kind = text(component, "type").to_ascii_uppercase();
    match kind.as_str() {
        "HEADER" => {
            let format = text(component, "format").to_ascii_uppercase();
            def.header_variables = variables(text(component, "text"), named);
            def.header = match format.as_str() {
                "TEXT" | "" if def.header_variables.is_empty() => HeaderKind::Fixed,
                "TEXT" | "" => HeaderKind::Text,
                "IMAGE" => HeaderKind::Image,
                "VIDEO" => HeaderKind::Video,
                "DOCUMENT" => HeaderKind::Document,
                "LOCATION" => HeaderKind::Location,
                _ => return Err(format!("HEADER {format}")),
            };
        }
        "BODY" => {
            def.body = text(component, "text").to_owned();
            def.body_variables = variables(&def.body, named);
        }
        "BUTTONS" => {
            let buttons = component.get("buttons").and_then(Value::as_array);
            for (index, button) in buttons.into_iter().flatten().enumerate() {
                let kind = text(button, "type").to_ascii_uppercase();
                if BEYOND_US.contains(&kind.as_str()) {
                    return Err(kind);
                }
                def.buttons.extend(button_kind(&kind, text(button, "url")).map(|kind| TemplateButton { index, kind }));
            }
        }
        _ if BEYOND_US.contains(&kind.as_str()) => return Err(kind),
        _ => {}
    }
    Ok(())
}

/// What value a button takes; `None` when it takes none.
///
/// The button of an authentication template is described as `OTP` (or, by the list, as the address it becomes) and takes
/// the code as the variable end of an address, whichever way it copies.
fn button_kind(kind: &str, url: &str) -> Option<ButtonKind> {
    match kind {
        "URL" if url.contains("{{") => Some(ButtonKind::Url),
        "OTP" => Some(ButtonKind::Url),
        "COPY_CODE" => Some(ButtonKind::CopyCode),
        "QUICK_REPLY" => Some(ButtonKind::QuickReply),
        _ => None,
    }
}

/// Variables of a text: numbered ones by number, named ones by first appearance, each once.
///
/// `named` is the template's declared format; where the vendor leaves it out, variables that are all digits are
/// numbered.
fn variables(pattern: &str, named: Option<bool>) -> Vec<Option<String>> {
    let mut found: Vec<&str> = Vec::new();
    for part in pattern.split("{{").skip(1) {
        let Some((name, _)) = part.split_once("}}") else { continue };
        let name = name.trim();
        let plausible = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if plausible && !found.contains(&name) {
            found.push(name);
        }
    }
    let numbers: Option<BTreeSet<u32>> = found.iter().map(|name| name.parse().ok()).collect();
    match (named, numbers) {
        (Some(false) | None, Some(numbers)) => numbers.into_iter().map(|_| None).collect(),
        (_, None) | (Some(true), Some(_)) => found.into_iter().map(|name| Some(name.to_owned())).collect(),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(components: Value) -> Value {
        json!({"name": "order", "language": "ru", "status": "APPROVED", "category": "UTILITY",
            "parameter_format": "POSITIONAL", "components": components})
    }

    fn named(names: &[&str]) -> Vec<Option<String>> {
        names.iter().map(|name| Some((*name).to_owned())).collect()
    }

    #[test]
    fn only_known_good_states_are_sendable() {
        let state = |status: &str| read(&json!({"name": "a", "language": "ru", "status": status})).unwrap().sendable;
        for status in ["APPROVED", "approved", "FLAGGED", "REINSTATED", "LOCKED", "UNLOCKED"] {
            assert!(state(status), "{status}");
        }
        for status in [
            "PENDING",
            "REJECTED",
            "PAUSED",
            "DISABLED",
            "IN_APPEAL",
            "PENDING_DELETION",
            "DELETED",
            "LIMIT_EXCEEDED",
            "ARCHIVED",
            "UNARCHIVED",
            "SOMETHING_NEW",
            "",
        ] {
            assert!(!state(status), "{status}");
        }
    }

    #[test]
    fn numbered_variables_are_counted_once_and_by_number() {
        let def = read(&with(json!([{"type": "BODY", "text": "{{2}} {{ 1 }} {{2}} {{}} {{a b}} {{3"}]))).unwrap();
        assert_eq!(def.body_variables, [None, None]);
    }

    #[test]
    fn names_are_kept_and_recognised_without_a_declared_format() {
        let mut template = with(json!([
            {"type": "HEADER", "format": "TEXT", "text": "Dear {{client}}"},
            {"type": "BODY", "text": "{{order_id}} for {{client}}, {{order_id}}"}]));
        template["parameter_format"] = json!("named");
        let def = read(&template).unwrap();
        assert_eq!(def.header, HeaderKind::Text);
        assert_eq!(def.header_variables, named(&["client"]));
        assert_eq!(def.body_variables, named(&["order_id", "client"]));
        template.as_object_mut().unwrap().remove("parameter_format");
        assert_eq!(read(&template).unwrap().body_variables, named(&["order_id", "client"]));
    }

    #[test]
    fn headers_tell_what_they_need() {
        for (header, kind) in [
            (json!({"type": "HEADER", "format": "TEXT", "text": "News"}), HeaderKind::Fixed),
            (json!({"type": "header", "format": "image"}), HeaderKind::Image),
            (json!({"type": "HEADER", "format": "VIDEO"}), HeaderKind::Video),
            (json!({"type": "HEADER", "format": "DOCUMENT"}), HeaderKind::Document),
            (json!({"type": "HEADER", "format": "LOCATION"}), HeaderKind::Location),
        ] {
            let def = read(&with(json!([header]))).unwrap();
            assert!(def.sendable && def.header == kind, "{kind:?}");
        }
    }

    #[test]
    fn what_a_robot_cannot_fill_is_not_sendable_and_says_why() {
        for (component, why) in [
            (json!({"type": "HEADER", "format": "GIF"}), "APPROVED (HEADER GIF)"),
            (json!({"type": "CAROUSEL", "cards": []}), "APPROVED (CAROUSEL)"),
            (json!({"type": "BUTTONS", "buttons": [{"type": "MPM"}]}), "APPROVED (MPM)"),
        ] {
            let def = read(&with(json!([component]))).unwrap();
            assert!(!def.sendable);
            assert_eq!(def.status, why);
        }
    }

    #[test]
    fn buttons_keep_their_place_among_all_buttons() {
        let def = read(&with(json!([{"type": "BUTTONS", "buttons": [
            {"type": "PHONE_NUMBER", "phone_number": "+79990001122"},
            {"type": "URL", "url": "https://crm.example/fixed"},
            {"type": "URL", "url": "https://crm.example/o/{{1}}"},
            {"type": "COPY_CODE"}, {"type": "FLOW"}, {"type": "QUICK_REPLY", "text": "Stop"}]}])))
        .unwrap();
        let kinds: Vec<(usize, ButtonKind)> = def.buttons.iter().map(|button| (button.index, button.kind)).collect();
        assert_eq!(kinds, [(2, ButtonKind::Url), (3, ButtonKind::CopyCode), (5, ButtonKind::QuickReply)]);
    }

    #[test]
    fn a_code_goes_into_the_body_and_its_button() {
        let mut template = with(json!([
            {"type": "BODY", "add_security_recommendation": true},
            {"type": "FOOTER", "code_expiration_minutes": 5},
            {"type": "BUTTONS", "buttons": [{"type": "OTP", "otp_type": "COPY_CODE", "text": "Copy"}]}]));
        template["category"] = json!("AUTHENTICATION");
        let def = read(&template).unwrap();
        assert_eq!(def.body_variables, [None]);
        assert_eq!(def.buttons, [TemplateButton { index: 0, kind: ButtonKind::Url }]);
    }

    #[test]
    fn damaged_descriptions_are_passed_over() {
        assert!(read(&json!({"language": "ru"})).is_none());
        assert!(read(&json!([])).is_none());
        let def = read(&json!({"name": "a", "language": "ru", "status": 7, "components": {"type": "BODY"}})).unwrap();
        assert!(!def.sendable && def.body_variables.is_empty());
    }
}
