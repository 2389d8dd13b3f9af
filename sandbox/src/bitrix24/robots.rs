//! Registration of robots and activities. Source: §6.1, §6.2.

use serde::Serialize;

use super::{
    handlers::check_url,
    rest::{Answer, Hit, RestError},
};
use crate::{http::json, journal::Severity, php::Php};

type Result = std::result::Result<Answer, RestError>;

const CODE_MAX: usize = 128;
const HANDLER_MAX: usize = 1000;
/// A serialized definition must stay below 64 KiB.
const PROPERTIES_MAX: usize = 64 * 1024;

/// Robot of a stage or block of a workflow; both share one code namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RobotKind {
    /// `bizproc.robot.*`.
    Robot,
    /// `bizproc.activity.*`.
    Activity,
}

/// One input of a robot.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Property {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) multiple: bool,
    pub(crate) required: bool,
    pub(crate) default: Php,
}

/// A registered robot or activity.
#[derive(Clone, Debug)]
pub(crate) struct Robot {
    pub(crate) code: String,
    pub(crate) kind: RobotKind,
    pub(crate) handler: String,
    pub(crate) auth_user_id: i64,
    /// `Y`, `N` or empty (the author of the automation chooses).
    pub(crate) use_subscription: String,
    pub(crate) properties: Vec<Property>,
    pub(crate) return_properties: Vec<String>,
    pub(crate) placement_handler: Option<String>,
    /// Everything as registered, keys of the top level in upper case.
    pub(crate) definition: Php,
}

/// A registered robot or activity, as shown.
#[derive(Clone, Debug, Serialize)]
pub struct RobotView {
    /// Application.
    pub client_id: String,
    /// Code.
    pub code: String,
    /// Robot or activity.
    pub kind: RobotKind,
    /// Callback address.
    pub handler: String,
    /// Whose tokens callbacks carry.
    pub auth_user_id: i64,
    /// `Y`, `N` or empty.
    pub use_subscription: String,
    /// Ids of the inputs, in order.
    pub properties: Vec<String>,
    /// Ids of the results.
    pub return_properties: Vec<String>,
    /// Address of the settings page.
    pub placement_handler: Option<String>,
    /// The whole definition as registered.
    pub definition: serde_json::Value,
}

impl Robot {
    pub(crate) fn view(&self, client_id: &str) -> RobotView {
        RobotView {
            client_id: client_id.to_owned(),
            code: self.code.clone(),
            kind: self.kind,
            handler: self.handler.clone(),
            auth_user_id: self.auth_user_id,
            use_subscription: self.use_subscription.clone(),
            properties: self.properties.iter().map(|property| property.id.clone()).collect(),
            return_properties: self.return_properties.clone(),
            placement_handler: self.placement_handler.clone(),
            definition: self.definition.to_json(),
        }
    }
}

pub(crate) fn robot_add(hit: &mut Hit<'_>, params: &Php) -> Result {
    add(hit, params, RobotKind::Robot)
}
pub(crate) fn robot_update(hit: &mut Hit<'_>, params: &Php) -> Result {
    update(hit, params, RobotKind::Robot)
}
pub(crate) fn robot_delete(hit: &mut Hit<'_>, params: &Php) -> Result {
    delete(hit, params, RobotKind::Robot)
}
pub(crate) fn robot_list(hit: &mut Hit<'_>, _params: &Php) -> Result {
    list(hit, RobotKind::Robot)
}
pub(crate) fn activity_add(hit: &mut Hit<'_>, params: &Php) -> Result {
    add(hit, params, RobotKind::Activity)
}
pub(crate) fn activity_update(hit: &mut Hit<'_>, params: &Php) -> Result {
    update(hit, params, RobotKind::Activity)
}
pub(crate) fn activity_delete(hit: &mut Hit<'_>, params: &Php) -> Result {
    delete(hit, params, RobotKind::Activity)
}
pub(crate) fn activity_list(hit: &mut Hit<'_>, _params: &Php) -> Result {
    list(hit, RobotKind::Activity)
}

const FIELDS: &[&str] = &[
    "HANDLER",
    "AUTH_USER_ID",
    "USE_SUBSCRIPTION",
    "NAME",
    "DESCRIPTION",
    "PROPERTIES",
    "RETURN_PROPERTIES",
    "DOCUMENT_TYPE",
    "FILTER",
    "USE_PLACEMENT",
    "PLACEMENT_HANDLER",
];

fn add(hit: &mut Hit<'_>, params: &Php, kind: RobotKind) -> Result {
    let has_field = params.get_ci("CODE").is_some() || FIELDS.iter().any(|field| params.get_ci(field).is_some());
    if !has_field {
        return Err(invalid("Empty data!"));
    }
    let code = code_of(params)?;
    let definition = picked(params);
    if definition.get("HANDLER").is_none() {
        return Err(RestError::bad("ERROR_WRONG_HANDLER_URL", "Wrong handler URL"));
    }
    if definition.get("NAME").is_none_or(is_blank_name) {
        return Err(invalid("Empty activity NAME!"));
    }
    let robot = build(hit, &code, kind, definition)?;
    let mut state = hit.portal.state.lock();
    let Some(install) = state.installs.get_mut(&*hit.caller.client_id) else { return gone() };
    if let Some(own) = install.robots.get(&code) {
        return Err(if own.kind == kind {
            RestError::bad("ERROR_ACTIVITY_ALREADY_INSTALLED", "Activity or Robot already installed!")
        } else {
            RestError::bad("ERROR_ACTIVITY_ADD_FAILURE", "Activity or Robot already added!")
        });
    }
    check_placement(install, &robot)?;
    install.robots.insert(code, robot);
    drop(state);
    hit.world.change("robot", &hit.portal.member_id, "registered");
    Answer::yes()
}

fn update(hit: &mut Hit<'_>, params: &Php, kind: RobotKind) -> Result {
    let code = code_of(params)?;
    let changes = params.get_ci("FIELDS").map(picked).unwrap_or(Php::empty());
    if changes.entries().is_empty() {
        return Err(invalid("No fields to update"));
    }
    let mut definition = {
        let state = hit.portal.state.lock();
        let Some(install) = state.installs.get(&*hit.caller.client_id) else { return gone() };
        match install.robots.get(&code) {
            Some(own) if own.kind == kind => own.definition.clone(),
            _ => return not_found(),
        }
    };
    for (key, value) in changes.entries() {
        *definition.entry(key.clone()) = value.clone();
    }
    if definition.get("NAME").is_none_or(is_blank_name) {
        return Err(invalid("Empty activity NAME!"));
    }
    let robot = build(hit, &code, kind, definition)?;
    let mut state = hit.portal.state.lock();
    let Some(install) = state.installs.get_mut(&*hit.caller.client_id) else { return gone() };
    check_placement(install, &robot)?;
    install.robots.insert(code, robot);
    drop(state);
    hit.world.change("robot", &hit.portal.member_id, "registered");
    Answer::yes()
}

fn delete(hit: &mut Hit<'_>, params: &Php, kind: RobotKind) -> Result {
    let code = code_of(params)?;
    let mut state = hit.portal.state.lock();
    let Some(install) = state.installs.get_mut(&*hit.caller.client_id) else { return gone() };
    if install.robots.get(&code).is_none_or(|own| own.kind != kind) {
        return not_found();
    }
    install.robots.remove(&code);
    Answer::yes()
}

fn list(hit: &mut Hit<'_>, kind: RobotKind) -> Result {
    let state = hit.portal.state.lock();
    let Some(install) = state.installs.get(&*hit.caller.client_id) else { return gone() };
    let codes = install.robots.values().filter(|own| own.kind == kind).map(|own| Php::from(own.code.as_str()));
    Ok(Answer::of(Php::list(codes)))
}

fn code_of(params: &Php) -> std::result::Result<String, RestError> {
    let code = params.get_ci("CODE").map(Php::text).unwrap_or_default();
    if code.is_empty() {
        return Err(invalid("Empty activity code!"));
    }
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if code.len() > CODE_MAX || !code.bytes().all(is_good) {
        return Err(invalid("Wrong activity code!"));
    }
    Ok(code)
}

/// The known fields under upper-case keys, in their documented order.
fn picked(params: &Php) -> Php {
    let known = FIELDS.iter().filter_map(|field| params.get_ci(field).map(|value| (*field, value.clone())));
    Php::map(known.filter(|(_, value)| *value != Php::Null))
}

fn build(hit: &Hit<'_>, code: &str, kind: RobotKind, definition: Php) -> std::result::Result<Robot, RestError> {
    let text = |field: &str| definition.get(field).map(Php::text).unwrap_or_default();
    let handler = text("HANDLER");
    check_url(&handler)?;
    if handler.len() > HANDLER_MAX {
        return Err(RestError::bad("ERROR_WRONG_HANDLER_URL", "Wrong handler URL"));
    }
    let properties = properties_of(definition.get("PROPERTIES"))?;
    let return_properties = properties_of(definition.get("RETURN_PROPERTIES"))?;
    if definition.get("FILTER").is_some_and(|filter| !is_filter(filter)) {
        return Err(invalid("Wrong activity FILTER!"));
    }
    let is_type =
        |value: &Php| value.entries().len() == 3 && value.entries().iter().all(|(_, part)| part.as_str().is_some());
    if definition.get("DOCUMENT_TYPE").is_some_and(|value| !value.is_empty() && !is_type(value)) {
        return Err(invalid("Wrong activity DOCUMENT_TYPE!"));
    }
    let placement_handler = if definition.get("USE_PLACEMENT").is_some_and(Php::is_yes) {
        let url = text("PLACEMENT_HANDLER");
        check_url(&url)?;
        Some(url)
    } else {
        None
    };
    let use_subscription = match text("USE_SUBSCRIPTION").as_str() {
        "Y" | "y" => "Y",
        "N" | "n" => "N",
        _ => "",
    };
    let auth_user_id = definition.get("AUTH_USER_ID").and_then(Php::as_int).unwrap_or(0);
    if auth_user_id == 0 {
        careless(hit, "robot_without_user", code, "without AUTH_USER_ID the robot runs as user 0 and brings no token");
    }
    if use_subscription.is_empty() {
        careless(hit, "robot_subscription", code, "USE_SUBSCRIPTION should be said explicitly: code and docs disagree");
    }
    if properties.iter().any(|property| property.kind == "file") {
        careless(
            hit,
            "robot_file_property",
            code,
            "a file property arrives as an internal id that no method downloads",
        );
    }
    Ok(Robot {
        code: code.to_owned(),
        kind,
        handler,
        auth_user_id,
        use_subscription: use_subscription.to_owned(),
        properties,
        return_properties: return_properties.into_iter().map(|property| property.id).collect(),
        placement_handler,
        definition,
    })
}

fn properties_of(value: Option<&Php>) -> std::result::Result<Vec<Property>, RestError> {
    let Some(value) = value else { return Ok(Vec::new()) };
    if value.is_empty() {
        return Ok(Vec::new());
    }
    if !value.is_array() || json::plain(value).len() >= PROPERTIES_MAX {
        return Err(invalid("Wrong properties array!"));
    }
    let mut properties = Vec::new();
    for (key, descriptor) in value.entries() {
        let id = key.to_string();
        let mut symbols = id.bytes();
        let is_good = symbols.next().is_some_and(|first| first.is_ascii_alphabetic())
            && symbols.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_good {
            return Err(invalid(format!("Wrong property key ({id})!")));
        }
        if descriptor.get_ci("NAME").is_none_or(is_blank_name) {
            return Err(invalid(format!("Empty property NAME ({id})!")));
        }
        let yes = |field: &str| descriptor.get_ci(field).is_some_and(Php::is_yes);
        let kind = descriptor.get_ci("TYPE").map(Php::text).filter(|kind| !kind.is_empty());
        properties.push(Property {
            kind: kind.unwrap_or_else(|| "string".to_owned()),
            multiple: yes("MULTIPLE"),
            required: yes("REQUIRED"),
            default: descriptor.get_ci("DEFAULT").cloned().unwrap_or_default(),
            id,
        });
    }
    Ok(properties)
}

/// Text, or a map of language to text with at least one text in it.
fn is_blank_name(name: &Php) -> bool {
    match name {
        Php::Array(entries) => entries.iter().all(|(_, text)| text.text().trim().is_empty()),
        other => other.text().trim().is_empty(),
    }
}

fn is_filter(filter: &Php) -> bool {
    let is_rules = |(key, rules): &(crate::php::Key, Php)| {
        matches!(key.to_string().to_ascii_uppercase().as_str(), "INCLUDE" | "EXCLUDE") && rules.is_array()
    };
    filter.is_array() && filter.entries().iter().all(is_rules)
}

/// One settings page address per code.
fn check_placement(install: &super::Install, robot: &Robot) -> std::result::Result<(), RestError> {
    let is_taken = robot.placement_handler.is_some()
        && install
            .robots
            .values()
            .any(|other| other.code != robot.code && other.placement_handler == robot.placement_handler);
    if is_taken {
        let text = "Unable to set placement handler: You should use unique placement handler for each CODE!";
        return Err(RestError::bad("ERROR_CORE", text));
    }
    Ok(())
}

fn invalid(description: impl Into<String>) -> RestError {
    RestError::bad("ERROR_ACTIVITY_VALIDATION_FAILURE", description)
}

fn not_found() -> Result {
    Err(RestError::bad("ERROR_ACTIVITY_NOT_FOUND", "Activity or Robot not found!"))
}

fn gone() -> Result {
    Err(RestError::new(401, "APPLICATION_NOT_FOUND", "Application not found"))
}

fn careless(hit: &Hit<'_>, name: &str, code: &str, message: &str) {
    let message = format!("{code}: {message}");
    hit.world.violation(Severity::Careless, "rest.bizproc.robot", &hit.portal.member_id, name, message);
}
