//! Approved templates of a provider, and how a robot's parameters are fitted into them.

use serde::{Deserialize, Serialize};

use super::outcome::{ErrorCode, Failure};

/// Names an approved template: what robots write as `name:language`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct TemplateRef {
    /// Name at the vendor.
    pub name: String,
    /// Language code; empty means "the only one there is".
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub language: String,
}

impl TemplateRef {
    /// Reads `name:language` or `name`; `None` for an empty name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (name, language) = text.trim().split_once(':').unwrap_or((text.trim(), ""));
        let (name, language) = (name.trim(), language.trim());
        (!name.is_empty()).then(|| Self { name: name.to_owned(), language: language.to_owned() })
    }

    /// `name:language`, or the bare name.
    #[must_use]
    pub fn label(&self) -> String {
        if self.language.is_empty() { self.name.clone() } else { format!("{}:{}", self.name, self.language) }
    }
}

/// What stands at the top of a template.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderKind {
    /// Nothing that needs a value.
    Fixed,
    /// A text with one variable.
    Text,
    /// A picture, given with every send.
    Image,
    /// A film, given with every send.
    Video,
    /// A file, given with every send.
    Document,
    /// A place; robots cannot give one.
    Location,
}

/// A button that takes a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TemplateButton {
    /// Place among all buttons of the template, from 0.
    pub index: usize,
    /// What kind of value.
    pub kind: ButtonKind,
}

/// Kinds of buttons that take a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ButtonKind {
    /// The variable end of an address; required.
    Url,
    /// A code to copy; required.
    CopyCode,
    /// What comes back when the person presses it; optional.
    QuickReply,
}

impl ButtonKind {
    /// True when a send without its value is refused.
    #[must_use]
    pub fn is_required(self) -> bool {
        match self {
            Self::Url | Self::CopyCode => true,
            Self::QuickReply => false,
        }
    }
}

/// One translation of a template as the vendor describes it, reduced to what sending needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TemplateDef {
    /// Name and language.
    pub id: TemplateRef,
    /// True when the vendor lets it be sent now.
    pub sendable: bool,
    /// The vendor's word for its state, for people.
    pub status: String,
    /// What stands at the top.
    pub header: HeaderKind,
    /// The body with its variables, for previews and excerpts.
    pub body: String,
    /// Variables of header text and body in order; `Some(name)` when the template uses names.
    pub header_variables: Vec<Option<String>>,
    /// Variables of the body in order.
    pub body_variables: Vec<Option<String>>,
    /// Buttons that take values.
    pub buttons: Vec<TemplateButton>,
}

/// A value for one variable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TemplateValue {
    /// The variable's name, if the template uses names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What stands in its place.
    pub text: String,
}

/// A value for one button.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ButtonValue {
    /// Place among all buttons, from 0.
    pub index: usize,
    /// Kind of the button.
    pub kind: ButtonKind,
    /// The value.
    pub text: String,
}

/// A template with every value in its place: ready for the provider.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FilledTemplate {
    /// Which template; the language is never empty here.
    pub id: TemplateRef,
    /// Address of the header's file and its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_media: Option<HeaderMedia>,
    /// Values of the header's text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub header: Vec<TemplateValue>,
    /// Values of the body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub body: Vec<TemplateValue>,
    /// Values of the buttons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buttons: Vec<ButtonValue>,
    /// The body as the person will read it; for excerpts and the length check.
    pub rendered: String,
}

/// The file at the top of a template.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeaderMedia {
    /// Image, video or document.
    pub kind: super::capability::MediaKind,
    /// Public address of the file.
    pub link: String,
}

/// Chooses the translation meant by a reference.
///
/// # Errors
/// `TemplateNotFound` when there is none, when the language was left out and several exist, or when the vendor does
/// not let it be sent now; the detail says which.
pub fn choose<'a>(known: &'a [TemplateDef], wanted: &TemplateRef) -> Result<&'a TemplateDef, Failure> {
    let of_name: Vec<&TemplateDef> = known.iter().filter(|def| def.id.name == wanted.name).collect();
    let candidates: Vec<&TemplateDef> = if wanted.language.is_empty() {
        of_name.iter().copied().filter(|def| def.sendable).collect()
    } else {
        of_name.iter().copied().filter(|def| def.id.language == wanted.language).collect()
    };
    match candidates.as_slice() {
        [] => {
            let languages: Vec<&str> = of_name.iter().map(|def| def.id.language.as_str()).collect();
            let detail = if languages.is_empty() {
                wanted.label()
            } else {
                format!("{} ({})", wanted.label(), languages.join(", "))
            };
            Err(Failure::with(ErrorCode::TemplateNotFound, detail))
        }
        [only] if only.sendable => Ok(only),
        [only] => Err(Failure::with(ErrorCode::TemplateNotFound, format!("{}: {}", wanted.label(), only.status))),
        several => {
            let languages: Vec<&str> = several.iter().map(|def| def.id.language.as_str()).collect();
            Err(Failure::with(ErrorCode::TemplateNotFound, format!("{}: {}", wanted.label(), languages.join(", "))))
        }
    }
}

/// Puts a robot's parameters and files into a template.
///
/// Shape of `params`: for a template with numbered variables the values in the order header, body, buttons; for one
/// with names `name=value` in any order. A button can always be addressed as `button:0=value` (place from 0), which is
/// the only way to give a quick reply its payload. The first file goes to a header that shows a file.
///
/// # Errors
/// `TemplateParams` with words that say what is missing or too much; nothing is guessed.
pub fn fill(def: &TemplateDef, params: &[String], files: &[String]) -> Result<FilledTemplate, Failure> {
    let wrong = |detail: String| Failure::with(ErrorCode::TemplateParams, detail);
    let mut buttons = Vec::new();
    let mut plain: Vec<&str> = Vec::new();
    for param in params {
        match read_button(param) {
            Some((index, text)) => {
                let Some(button) = def.buttons.iter().find(|button| button.index == index) else {
                    return Err(wrong(format!("button:{index} ?")));
                };
                buttons.push(ButtonValue { index, kind: button.kind, text: text.to_owned() });
            }
            None => plain.push(param),
        }
    }
    let named = def.body_variables.iter().chain(&def.header_variables).any(Option::is_some);
    let (header, body) = if named {
        fill_named(def, &plain).map_err(wrong)?
    } else {
        fill_numbered(def, &plain, &mut buttons).map_err(wrong)?
    };
    for button in &def.buttons {
        if button.kind.is_required() && !buttons.iter().any(|value| value.index == button.index) {
            return Err(wrong(format!("button:{}=…", button.index)));
        }
    }
    buttons.sort_by_key(|value| value.index);
    let header_media = header_media(def.header, files)?;
    let rendered = render(&def.body, &body);
    Ok(FilledTemplate { id: def.id.clone(), header_media, header, body, buttons, rendered })
}

/// Reads `button:2=value`.
fn read_button(param: &str) -> Option<(usize, &str)> {
    let (index, text) = param.strip_prefix("button:")?.split_once('=')?;
    Some((index.trim().parse().ok()?, text))
}

fn fill_named(def: &TemplateDef, plain: &[&str]) -> Result<(Vec<TemplateValue>, Vec<TemplateValue>), String> {
    let mut given: Vec<(&str, &str)> = Vec::new();
    for param in plain {
        let Some((name, value)) = param.split_once('=') else {
            return Err(format!("{param} (name=value)"));
        };
        given.push((name.trim(), value));
    }
    let take = |variables: &[Option<String>]| -> Result<Vec<TemplateValue>, String> {
        variables
            .iter()
            .flatten()
            .map(|name| {
                let value = given.iter().rev().find(|(given, _)| given == name);
                let text = value.map(|(_, text)| clean(text)).ok_or_else(|| format!("{name}=…"))?;
                Ok(TemplateValue { name: Some(name.clone()), text })
            })
            .collect()
    };
    let header = take(&def.header_variables)?;
    let body = take(&def.body_variables)?;
    let known = |name: &str| {
        def.header_variables.iter().chain(&def.body_variables).flatten().any(|variable| variable.as_str() == name)
    };
    match given.iter().find(|(name, _)| !known(name)) {
        Some((name, _)) => Err(format!("{name} ?")),
        None => Ok((header, body)),
    }
}

fn fill_numbered(
    def: &TemplateDef,
    plain: &[&str],
    buttons: &mut Vec<ButtonValue>,
) -> Result<(Vec<TemplateValue>, Vec<TemplateValue>), String> {
    let open: Vec<&TemplateButton> = def
        .buttons
        .iter()
        .filter(|button| button.kind != ButtonKind::QuickReply)
        .filter(|button| !buttons.iter().any(|value| value.index == button.index))
        .collect();
    let expected = def.header_variables.len() + def.body_variables.len() + open.len();
    if plain.len() != expected {
        return Err(format!("{} / {expected}", plain.len()));
    }
    let mut values = plain.iter().map(|text| clean(text));
    let mut take = |count: usize| -> Vec<TemplateValue> {
        values.by_ref().take(count).map(|text| TemplateValue { name: None, text }).collect()
    };
    let header = take(def.header_variables.len());
    let body = take(def.body_variables.len());
    for (button, value) in open.into_iter().zip(take(expected)) {
        buttons.push(ButtonValue { index: button.index, kind: button.kind, text: value.text });
    }
    Ok((header, body))
}

/// Vendors refuse line breaks, tabs and runs of spaces inside a value; CRM fields are full of them.
fn clean(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn header_media(header: HeaderKind, files: &[String]) -> Result<Option<HeaderMedia>, Failure> {
    use super::capability::MediaKind;
    let kind = match header {
        HeaderKind::Fixed | HeaderKind::Text => return Ok(None),
        HeaderKind::Image => MediaKind::Image,
        HeaderKind::Video => MediaKind::Video,
        HeaderKind::Document => MediaKind::Document,
        HeaderKind::Location => return Err(Failure::with(ErrorCode::Unsupported, "header: location")),
    };
    match files.first() {
        Some(link) => Ok(Some(HeaderMedia { kind, link: link.clone() })),
        None => Err(Failure::with(ErrorCode::TemplateParams, "files[0]")),
    }
}

/// Puts values into `{{1}}` or `{{name}}` of a body, for people to read.
fn render(body: &str, values: &[TemplateValue]) -> String {
    let mut text = body.to_owned();
    for (place, value) in values.iter().enumerate() {
        let variable = value.name.clone().unwrap_or_else(|| (place + 1).to_string());
        text = text.replace(&format!("{{{{{variable}}}}}"), &value.text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn def(header: HeaderKind, body_variables: Vec<Option<String>>, buttons: Vec<TemplateButton>) -> TemplateDef {
        TemplateDef {
            id: TemplateRef { name: "order".into(), language: "ru".into() },
            sendable: true,
            status: "APPROVED".into(),
            header,
            body: "Hello {{1}}, order {{2}}".into(),
            header_variables: vec![],
            body_variables,
            buttons,
        }
    }

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|v| (*v).to_owned()).collect()
    }

    #[test]
    fn reference_is_name_and_language() {
        assert_eq!(TemplateRef::parse(" order : ru ").unwrap().label(), "order:ru");
        assert_eq!(TemplateRef::parse("order").unwrap().language, "");
        assert!(TemplateRef::parse(" :ru").is_none());
    }

    #[test]
    fn numbered_values_go_in_order_and_are_cleaned() {
        let filled =
            fill(&def(HeaderKind::Fixed, vec![None, None], vec![]), &texts(&["Ada\nByron", "42"]), &[]).unwrap();
        assert_eq!(filled.rendered, "Hello Ada Byron, order 42");
        assert_eq!(filled.body.len(), 2);
    }

    #[test]
    fn a_wrong_count_is_refused_with_both_numbers() {
        let failure = fill(&def(HeaderKind::Fixed, vec![None, None], vec![]), &texts(&["Ada"]), &[]).unwrap_err();
        assert_eq!((failure.code, failure.detail.as_str()), (ErrorCode::TemplateParams, "1 / 2"));
    }

    #[test]
    fn named_values_are_found_by_name() {
        let mut named = def(HeaderKind::Fixed, vec![Some("client".into()), Some("order_id".into())], vec![]);
        named.body = "Dear {{client}}: {{order_id}}".into();
        let filled = fill(&named, &texts(&["order_id=7=7", "client=Ada"]), &[]).unwrap();
        assert_eq!(filled.rendered, "Dear Ada: 7=7");
        assert_eq!(fill(&named, &texts(&["client=Ada"]), &[]).unwrap_err().detail, "order_id=…");
        assert_eq!(fill(&named, &texts(&["client=A", "order_id=1", "x=2"]), &[]).unwrap_err().detail, "x ?");
    }

    #[test]
    fn header_media_needs_a_file() {
        let with_file = def(HeaderKind::Document, vec![], vec![]);
        assert_eq!(fill(&with_file, &[], &[]).unwrap_err().detail, "files[0]");
        let filled = fill(&with_file, &[], &texts(&["https://x.example/a.pdf"])).unwrap();
        assert_eq!(filled.header_media.unwrap().link, "https://x.example/a.pdf");
    }

    #[test]
    fn buttons_take_the_values_after_the_body_or_by_place() {
        let url = TemplateButton { index: 1, kind: ButtonKind::Url };
        let reply = TemplateButton { index: 0, kind: ButtonKind::QuickReply };
        let with_buttons = def(HeaderKind::Fixed, vec![None, None], vec![reply, url]);
        let filled = fill(&with_buttons, &texts(&["a", "b", "o/1"]), &[]).unwrap();
        assert_eq!(filled.buttons, [ButtonValue { index: 1, kind: ButtonKind::Url, text: "o/1".into() }]);
        let filled = fill(&with_buttons, &texts(&["button:0=yes", "a", "b", "button:1=o/1"]), &[]).unwrap();
        assert_eq!(filled.buttons.len(), 2);
        assert_eq!(fill(&with_buttons, &texts(&["a", "b"]), &[]).unwrap_err().detail, "2 / 3");
        assert_eq!(fill(&with_buttons, &texts(&["button:7=x"]), &[]).unwrap_err().detail, "button:7 ?");
    }

    #[test]
    fn the_only_sendable_translation_is_found_without_a_language() {
        let russian = def(HeaderKind::Fixed, vec![], vec![]);
        let mut english = russian.clone();
        english.id.language = "en".into();
        let wanted = TemplateRef { name: "order".into(), language: String::new() };
        assert_eq!(choose(std::slice::from_ref(&russian), &wanted).unwrap().id.language, "ru");
        assert!(choose(&[russian.clone(), english.clone()], &wanted).is_err());
        english.sendable = false;
        english.status = "PAUSED".into();
        assert_eq!(choose(&[russian, english.clone()], &wanted).unwrap().id.language, "ru");
        let asked = TemplateRef { name: "order".into(), language: "en".into() };
        assert_eq!(choose(&[english], &asked).unwrap_err().detail, "order:en: PAUSED");
    }
}
