//! Holding a `template` object of a send against the approved template. Source: §2.9.

use std::sync::Arc;

use serde_json::Value;

use super::{
    error::GraphError,
    ledger::{Button, Shown},
    templates::{Header, Template, fill},
    validate::{self, Obj},
};
use crate::world::World;

type Result<T> = std::result::Result<T, GraphError>;

/// A rendered body may not be longer.
const BODY_MAX: usize = 1024;

/// Finds the template and checks the whole object; fills `shown` with what the phone will show.
pub(crate) fn resolve(world: &World, waba_id: &str, object: &Obj<'_>, shown: &mut Shown) -> Result<Arc<Template>> {
    object.only(&["name", "language", "components"])?;
    let name = object.need_text("name")?;
    let language = object.need_sub("language")?;
    language.only(&["code", "policy"])?;
    if language.text("policy")?.is_some_and(|policy| policy != "deterministic") {
        return Err(GraphError::new(100, "Param template['language']['policy'] must be one of {DETERMINISTIC}"));
    }
    let code = language.need_text("code")?;
    let template = world.graph.templates.read().find(waba_id, name, code);
    let missing = || GraphError::new(132_001, format!("template name ({name}) does not exist in {code}"));
    let template = template.ok_or_else(missing)?;
    match template.spec.status.as_str() {
        "APPROVED" | "FLAGGED" | "REINSTATED" | "LOCKED" | "UNLOCKED" => {}
        "PAUSED" => return Err(GraphError::new(132_015, format!("template {name} is paused for low quality"))),
        "DISABLED" => return Err(GraphError::new(132_016, format!("template {name} is disabled"))),
        _ => return Err(missing()),
    }
    let mut given = Given::default();
    if object.list("components")?.is_some_and(|list| !list.is_empty()) {
        for component in object.need_objects("components", 20)? {
            read_component(&template, &component, &mut given)?;
        }
    }
    render(&template, given, shown)?;
    shown.template = Some(format!("{name}:{code}"));
    Ok(template)
}

/// What the request supplies.
#[derive(Default)]
struct Given {
    header: Vec<(String, String)>,
    header_media: Option<Shown>,
    body: Vec<(String, String)>,
    body_seen: bool,
    /// Values by button position.
    buttons: Vec<(usize, String)>,
}

fn read_component(template: &Template, component: &Obj<'_>, given: &mut Given) -> Result<()> {
    match component.need_text("type")? {
        "header" => {
            component.only(&["type", "parameters"])?;
            header(template, component, given)
        }
        "body" => {
            component.only(&["type", "parameters"])?;
            let parameters = parameters(component)?;
            given.body = texts(template, &parameters, &template.variables, "body")?;
            given.body_seen = true;
            Ok(())
        }
        "button" => {
            component.only(&["type", "sub_type", "index", "parameters"])?;
            button(template, component, given)
        }
        other => Err(GraphError::new(100, format!("component type \"{other}\" is unknown or not simulated"))),
    }
}

fn parameters<'a>(component: &Obj<'a>) -> Result<Vec<Obj<'a>>> {
    match component.list("parameters")? {
        Some(list) if !list.is_empty() => component.need_objects("parameters", 100),
        _ => Ok(Vec::new()),
    }
}

fn header(template: &Template, component: &Obj<'_>, given: &mut Given) -> Result<()> {
    let parameters = parameters(component)?;
    match &template.header {
        Header::None if parameters.is_empty() => Ok(()),
        Header::None => Err(GraphError::new(132_000, "header: the template has no header, but parameters were given")),
        Header::Text { variables, .. } => {
            given.header = texts(template, &parameters, variables, "header")?;
            Ok(())
        }
        Header::Media(kind) => {
            let [parameter] = parameters.as_slice() else {
                return Err(GraphError::new(
                    132_000,
                    format!("header: expected 1 parameter, got {}", parameters.len()),
                ));
            };
            let got = parameter.need_text("type")?;
            if got != kind {
                return Err(mismatch(&format!(
                    "header: Format mismatch, expected {}, received {}",
                    kind.to_uppercase(),
                    got.to_uppercase()
                )));
            }
            parameter.only(&["type", kind])?;
            let mut medium = Shown::default();
            let object = parameter.need_sub(kind)?;
            if kind == "location" {
                validate_location(&object, &mut medium)?;
            } else {
                object.only(if kind == "document" { &["id", "link", "filename"] } else { &["id", "link"] })?;
                validate::media(kind, &object, &mut medium)?;
            }
            given.header_media = Some(medium);
            Ok(())
        }
    }
}

fn validate_location(object: &Obj<'_>, medium: &mut Shown) -> Result<()> {
    for key in ["latitude", "longitude", "name", "address"] {
        if object.get(key).is_none() {
            return Err(object.missing(key));
        }
    }
    validate::location(object, medium)
}

/// Text parameters against variables: count, naming, types, whitespace.
fn texts(
    template: &Template,
    parameters: &[Obj<'_>],
    variables: &[String],
    place: &str,
) -> Result<Vec<(String, String)>> {
    if parameters.len() != variables.len() {
        let details = format!(
            "{place}: number of localizable_params ({}) does not match the expected number of params ({})",
            parameters.len(),
            variables.len()
        );
        return Err(GraphError::new(132_000, details));
    }
    let mut values: Vec<(String, String)> = Vec::with_capacity(parameters.len());
    for (at, parameter) in parameters.iter().enumerate() {
        let kind = parameter.need_text("type")?;
        parameter.only(&["type", "parameter_name", kind])?;
        let text = match kind {
            "text" => parameter
                .text("text")?
                .filter(|text| !text.is_empty())
                .ok_or_else(|| parameter.missing("text"))?
                .to_owned(),
            "currency" | "date_time" => fallback(parameter, kind)?,
            other => return Err(mismatch(&format!("{place}: parameter {at} of type {other} cannot stand in a text"))),
        };
        if text.contains(['\n', '\t']) || text.contains("     ") {
            let details =
                format!("{place}: Param text cannot have new-line/tab characters or more than 4 consecutive spaces");
            return Err(GraphError::new(132_018, details));
        }
        let name = match (template.is_named(), parameter.text("parameter_name")?) {
            (true, Some(name)) if variables.iter().any(|own| own == name) => name.to_owned(),
            (true, Some(name)) => {
                return Err(mismatch(&format!("{place}: parameter_name \"{name}\" is not in the template")));
            }
            (true, None) => return Err(mismatch(&format!("{place}: parameter {at} needs a parameter_name"))),
            (false, Some(_)) => {
                return Err(mismatch(&format!("{place}: the template has positional parameters, not named ones")));
            }
            (false, None) => variables[at].clone(),
        };
        if values.iter().any(|(own, _)| *own == name) {
            return Err(mismatch(&format!("{place}: parameter_name \"{name}\" is given twice")));
        }
        values.push((name, text));
    }
    Ok(values)
}

fn fallback(parameter: &Obj<'_>, kind: &str) -> Result<String> {
    let object = parameter.need_sub(kind)?;
    if kind == "currency" {
        object.only(&["fallback_value", "code", "amount_1000"])?;
        object.need_text("code")?;
        if !object.get("amount_1000").is_some_and(Value::is_i64) {
            return Err(object.missing("amount_1000"));
        }
    } else {
        object.only(&["fallback_value"])?;
    }
    Ok(object.need_text("fallback_value")?.to_owned())
}

fn mismatch(details: &str) -> GraphError {
    GraphError::new(132_012, details)
}

fn button(template: &Template, component: &Obj<'_>, given: &mut Given) -> Result<()> {
    let index: usize = match component.get("index") {
        Some(Value::String(text)) if text.len() == 1 => text
            .parse()
            .map_err(|error| GraphError::new(100, format!("Param {}: {error}", component.place("index"))))?,
        None => return Err(component.missing("index")),
        Some(_) => {
            let details = format!("Param {} must be a string \"0\"..\"9\".", component.place("index"));
            return Err(GraphError::new(100, details));
        }
    };
    let sub_type = component.need_text("sub_type")?;
    let Some(own) = template.buttons.get(index) else {
        return Err(GraphError::new(132_000, format!("buttons: the template has no button at index {index}")));
    };
    if own.kind != sub_type {
        return Err(mismatch(&format!("buttons: button at index {index} is of type {}, not {sub_type}", own.kind)));
    }
    let parameters = parameters(component)?;
    let [parameter] = parameters.as_slice() else {
        return Err(GraphError::new(
            132_000,
            format!("buttons: button at index {index} takes 1 parameter, got {}", parameters.len()),
        ));
    };
    let (wanted, is_taken) = match sub_type {
        "quick_reply" => ("payload", true),
        "url" => ("text", own.variable),
        "copy_code" => ("coupon_code", true),
        other => return Err(GraphError::new(132_018, format!("buttons: sub_type {other} is not simulated"))),
    };
    if !is_taken {
        return Err(GraphError::new(
            132_018,
            format!("buttons: button at index {index} has no variable and takes no component"),
        ));
    }
    if parameter.need_text("type")? != wanted {
        return Err(mismatch(&format!("buttons: button at index {index} takes a parameter of type {wanted}")));
    }
    parameter.only(&["type", wanted])?;
    let value = parameter.need_text(wanted)?;
    if given.buttons.iter().any(|(own, _)| *own == index) {
        return Err(mismatch(&format!("buttons: index {index} is given twice")));
    }
    given.buttons.push((index, value.to_owned()));
    Ok(())
}

fn render(template: &Template, given: Given, shown: &mut Shown) -> Result<()> {
    if !given.body_seen && !template.variables.is_empty() {
        let details = format!(
            "body: number of localizable_params (0) does not match the expected number of params ({})",
            template.variables.len()
        );
        return Err(GraphError::new(132_000, details));
    }
    match &template.header {
        Header::None => {}
        Header::Text { text, variables } => {
            if given.header.len() != variables.len() {
                return Err(GraphError::new(
                    132_000,
                    format!("header: expected {} parameters, got {}", variables.len(), given.header.len()),
                ));
            }
            shown.header = fill(text, &given.header);
        }
        Header::Media(kind) => {
            let Some(medium) = given.header_media else {
                return Err(mismatch(&format!(
                    "header: Format mismatch, expected {}, received UNKNOWN",
                    kind.to_uppercase()
                )));
            };
            shown.media = medium.media;
            shown.raw = medium.raw;
        }
    }
    shown.text = fill(&template.body, &given.body);
    if shown.text.chars().count() > BODY_MAX {
        return Err(GraphError::new(132_005, format!("body: rendered text is longer than {BODY_MAX} characters")));
    }
    shown.footer.clone_from(&template.footer);
    for (at, own) in template.buttons.iter().enumerate() {
        let value = given.buttons.iter().find(|(index, _)| *index == at).map(|(_, value)| value.clone());
        if own.variable && value.is_none() {
            return Err(GraphError::new(
                131_008,
                format!("buttons: Button at index {at} of type Url requires a parameter"),
            ));
        }
        let value = match own.kind.as_str() {
            "url" => {
                let cut = own.url.find("{{").map_or(own.url.as_str(), |at| &own.url[..at]);
                format!("{cut}{}", value.unwrap_or_default())
            }
            "quick_reply" => value.unwrap_or_else(|| own.text.clone()),
            _ => value.unwrap_or_default(),
        };
        shown.buttons.push(Button { kind: own.kind.clone(), text: own.text.clone(), value });
    }
    Ok(())
}
