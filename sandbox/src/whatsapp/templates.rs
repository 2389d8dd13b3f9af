//! Message templates: definition, default set, catalogue. Source: §6.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::world::World;

/// A template as its author describes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TemplateSpec {
    /// `[a-z0-9_]`, 1–512.
    pub name: String,
    /// `ru`, `en_US` …
    pub language: String,
    /// `UTILITY`, `MARKETING`, `AUTHENTICATION`.
    pub category: String,
    /// `APPROVED`, `PENDING`, `REJECTED`, `PAUSED`, `DISABLED`, …
    pub status: String,
    /// `positional` or `named`.
    pub parameter_format: String,
    /// Components as in a create call (§6.1).
    pub components: Value,
    /// Reason of a rejection.
    pub rejected_reason: Option<String>,
}

impl Default for TemplateSpec {
    fn default() -> Self {
        Self {
            name: String::new(),
            language: "ru".into(),
            category: "UTILITY".into(),
            status: "APPROVED".into(),
            parameter_format: "positional".into(),
            components: json!([]),
            rejected_reason: None,
        }
    }
}

/// A template, as listed.
#[derive(Clone, Debug, Serialize)]
pub struct TemplateView {
    /// Id.
    pub id: String,
    /// Account.
    pub waba_id: String,
    /// Definition.
    #[serde(flatten)]
    pub spec: TemplateSpec,
}

/// Header of a template.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Header {
    None,
    Text {
        text: String,
        variables: Vec<String>,
    },
    /// `image`, `video`, `document`, `location`.
    Media(String),
}

/// Button of a template.
#[derive(Clone, Debug)]
pub(crate) struct TemplateButton {
    /// `quick_reply`, `url`, `phone_number`, `copy_code`, `flow`, …
    pub(crate) kind: String,
    pub(crate) text: String,
    pub(crate) url: String,
    /// The address ends in a variable.
    pub(crate) variable: bool,
}

/// A template, ready to be filled in.
pub(crate) struct Template {
    pub(crate) id: String,
    pub(crate) waba_id: String,
    pub(crate) spec: TemplateSpec,
    pub(crate) header: Header,
    pub(crate) body: String,
    pub(crate) variables: Vec<String>,
    pub(crate) footer: String,
    pub(crate) buttons: Vec<TemplateButton>,
}

impl Template {
    pub(crate) fn is_named(&self) -> bool {
        self.spec.parameter_format.eq_ignore_ascii_case("named")
    }

    pub(crate) fn view(&self) -> TemplateView {
        TemplateView { id: self.id.clone(), waba_id: self.waba_id.clone(), spec: self.spec.clone() }
    }
}

/// Names between `{{` and `}}`, in order, each once.
fn variables_of(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("{{") {
        let Some(end) = rest[at..].find("}}") else { break };
        let name = rest[at + 2..at + end].trim().to_owned();
        if !found.contains(&name) {
            found.push(name);
        }
        rest = &rest[at + end + 2..];
    }
    found
}

/// Puts values in place of `{{name}}`.
pub(crate) fn fill(text: &str, values: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len() + 32);
    let mut rest = text;
    while let Some(at) = rest.find("{{") {
        let Some(end) = rest[at..].find("}}") else { break };
        out.push_str(&rest[..at]);
        let name = rest[at + 2..at + end].trim();
        out.push_str(values.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value.as_str()));
        rest = &rest[at + end + 2..];
    }
    out.push_str(rest);
    out
}

/// Reads and checks a definition against the limits of §6.2.
fn compile(id: String, waba_id: &str, spec: TemplateSpec) -> anyhow::Result<Template> {
    let is_name = (1..=512).contains(&spec.name.len())
        && spec.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !is_name {
        bail!("template name {:?} must be 1-512 of a-z, 0-9 and _", spec.name);
    }
    let mut template = Template {
        id,
        waba_id: waba_id.to_owned(),
        header: Header::None,
        body: String::new(),
        variables: Vec::new(),
        footer: String::new(),
        buttons: Vec::new(),
        spec,
    };
    let components = template.spec.components.as_array().cloned().context("components must be an array")?;
    for component in &components {
        let text = component["text"].as_str().unwrap_or("").to_owned();
        match component["type"].as_str().unwrap_or("").to_ascii_uppercase().as_str() {
            "HEADER" => template.header = header(component, text)?,
            "BODY" => {
                if text.is_empty() || text.chars().count() > 1024 {
                    bail!("BODY must have 1-1024 characters");
                }
                template.variables = variables_of(&text);
                template.body = text;
            }
            "FOOTER" => {
                if text.chars().count() > 60 || text.contains("{{") {
                    bail!("FOOTER: at most 60 characters, no variables");
                }
                template.footer = text;
            }
            "BUTTONS" => {
                let buttons = component["buttons"].as_array().context("BUTTONS needs buttons")?;
                if buttons.len() > 10 {
                    bail!("at most 10 buttons");
                }
                template.buttons = buttons.iter().map(button).collect();
            }
            other => bail!("component type {other:?} is not simulated"),
        }
    }
    if template.body.is_empty() {
        bail!("a template needs a BODY");
    }
    let is_named = template.is_named();
    for name in &template.variables {
        let is_number = name.parse::<u32>().is_ok();
        let is_word = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if (is_named && (is_number || !is_word)) || (!is_named && !is_number) {
            bail!("variable {{{{{name}}}}} does not fit parameter_format {}", template.spec.parameter_format);
        }
    }
    Ok(template)
}

fn header(component: &Value, text: String) -> anyhow::Result<Header> {
    Ok(match component["format"].as_str().unwrap_or("TEXT").to_ascii_uppercase().as_str() {
        "TEXT" => {
            let variables = variables_of(&text);
            if text.chars().count() > 60 || variables.len() > 1 {
                bail!("HEADER text: at most 60 characters and one variable");
            }
            Header::Text { text, variables }
        }
        kind @ ("IMAGE" | "VIDEO" | "DOCUMENT" | "LOCATION") => Header::Media(kind.to_ascii_lowercase()),
        other => bail!("header format {other:?} is not simulated"),
    })
}

fn button(button: &Value) -> TemplateButton {
    let url = button["url"].as_str().unwrap_or("").to_owned();
    TemplateButton {
        kind: button["type"].as_str().unwrap_or("").to_ascii_lowercase(),
        text: button["text"].as_str().unwrap_or("").to_owned(),
        variable: url.contains("{{"),
        url,
    }
}

/// All templates of all accounts.
#[derive(Default)]
pub(crate) struct Catalogue {
    by_key: HashMap<String, Arc<Template>>,
    of_waba: HashMap<String, Vec<Arc<Template>>>,
}

fn key(waba_id: &str, name: &str, language: &str) -> String {
    format!("{waba_id}|{name}|{language}")
}

impl Catalogue {
    /// Adds a template, or replaces the one with the same name and language.
    pub(crate) fn put(&mut self, world: &World, waba_id: &str, spec: TemplateSpec) -> anyhow::Result<Arc<Template>> {
        let key = key(waba_id, &spec.name, &spec.language);
        let id = self.by_key.get(&key).map_or_else(|| world.ids.digits(16), |own| own.id.clone());
        let template = Arc::new(compile(id, waba_id, spec)?);
        self.by_key.insert(key, template.clone());
        let list = self.of_waba.entry(waba_id.to_owned()).or_default();
        list.retain(|own| own.id != template.id);
        list.push(template.clone());
        Ok(template)
    }

    pub(crate) fn find(&self, waba_id: &str, name: &str, language: &str) -> Option<Arc<Template>> {
        self.by_key.get(&key(waba_id, name, language)).cloned()
    }

    pub(crate) fn list(&self, waba_id: &str) -> Vec<Arc<Template>> {
        self.of_waba.get(waba_id).cloned().unwrap_or_default()
    }

    pub(crate) fn remove(&mut self, waba_id: &str, name: &str, language: &str) -> bool {
        if let Some(list) = self.of_waba.get_mut(waba_id) {
            list.retain(|own| own.spec.name != name || own.spec.language != language);
        }
        self.by_key.remove(&key(waba_id, name, language)).is_some()
    }

    /// The set every new account has.
    pub(crate) fn add_defaults(&mut self, world: &World, waba_id: &str) {
        for spec in defaults() {
            if let Err(error) = self.put(world, waba_id, spec) {
                tracing::error!(%error, "a default template of the sandbox is wrong");
            }
        }
    }
}

/// Russian and English, positional and named, with media headers and buttons.
pub(crate) fn defaults() -> Vec<TemplateSpec> {
    let of = |name: &str, language: &str, category: &str, format: &str, components: Value| TemplateSpec {
        name: name.into(),
        language: language.into(),
        category: category.into(),
        parameter_format: format.into(),
        components,
        ..TemplateSpec::default()
    };
    vec![
        of(
            "order_update",
            "ru",
            "UTILITY",
            "positional",
            json!([
                {"type": "BODY", "text": "Здравствуйте, {{1}}! Заказ {{2}}: статус изменился.", "example": {"body_text": [["Анна", "1042"]]}},
                {"type": "FOOTER", "text": "Ответьте СТОП, чтобы не получать"}
            ]),
        ),
        of(
            "order_update",
            "en",
            "UTILITY",
            "positional",
            json!([
                {"type": "BODY", "text": "Hello {{1}}! Order {{2}}: the status has changed.", "example": {"body_text": [["Ann", "1042"]]}},
                {"type": "FOOTER", "text": "Reply STOP to opt out"}
            ]),
        ),
        of(
            "order_ready_ru",
            "ru",
            "UTILITY",
            "named",
            json!([
                {"type": "HEADER", "format": "DOCUMENT", "example": {"header_handle": ["4::aW"]}},
                {"type": "BODY", "text": "Здравствуйте, {{client}}! Заказ {{order_id}} готов к выдаче.", "example": {"body_text_named_params": [
                    {"param_name": "client", "example": "Анна"}, {"param_name": "order_id", "example": "1042"}]}},
                {"type": "FOOTER", "text": "Ответьте СТОП, чтобы не получать"},
                {"type": "BUTTONS", "buttons": [
                    {"type": "URL", "text": "Статус", "url": "https://crm.example/o/{{1}}", "example": ["https://crm.example/o/1042"]},
                    {"type": "QUICK_REPLY", "text": "Отменить"}]}
            ]),
        ),
        of(
            "delivery_photo",
            "ru",
            "UTILITY",
            "positional",
            json!([
                {"type": "HEADER", "format": "IMAGE", "example": {"header_handle": ["4::aW"]}},
                {"type": "BODY", "text": "Ваш заказ {{1}} доставлен, фото выше.", "example": {"body_text": [["1042"]]}}
            ]),
        ),
        of(
            "appointment",
            "en",
            "UTILITY",
            "named",
            json!([
                {"type": "HEADER", "format": "TEXT", "text": "Visit on {{day}}", "example": {"header_text_named_params": [{"param_name": "day", "example": "Friday"}]}},
                {"type": "BODY", "text": "Dear {{client}}, we expect you at {{hour}} o'clock.", "example": {"body_text_named_params": [
                    {"param_name": "client", "example": "Ann"}, {"param_name": "hour", "example": "12"}]}},
                {"type": "BUTTONS", "buttons": [{"type": "QUICK_REPLY", "text": "Confirm"}, {"type": "QUICK_REPLY", "text": "Cancel"}]}
            ]),
        ),
        of(
            "greeting",
            "ru",
            "MARKETING",
            "positional",
            json!([
                {"type": "BODY", "text": "Добрый день! Рады видеть вас снова."}
            ]),
        ),
        of(
            "catalog_link",
            "ru",
            "MARKETING",
            "positional",
            json!([
                {"type": "BODY", "text": "Для вас, {{1}}, новая подборка товаров.", "example": {"body_text": [["Анна"]]}},
                {"type": "BUTTONS", "buttons": [
                    {"type": "URL", "text": "Открыть", "url": "https://crm.example/catalog"},
                    {"type": "PHONE_NUMBER", "text": "Позвонить", "phone_number": "+79990001122"}]}
            ]),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_checked_and_filled() {
        for spec in defaults() {
            compile("1".into(), "w", spec).unwrap();
        }
        let named = TemplateSpec {
            name: "x".into(),
            parameter_format: "named".into(),
            components: json!([{"type": "BODY", "text": "Hi {{1}}"}]),
            ..TemplateSpec::default()
        };
        assert!(compile("1".into(), "w", named).is_err());
        let values = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "{{a}}".to_owned())];
        assert_eq!(fill("x {{a}} y {{ b }} z {{a}}", &values), "x 1 y {{a}} z 1");
    }
}
