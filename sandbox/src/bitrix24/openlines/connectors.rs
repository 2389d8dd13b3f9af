//! Registration, and how a connector stands on a line. Source: §5.2, §5.3.

use super::{Connector, OpenLines, Standing, connector_and_line, required};
use crate::{
    bitrix24::{
        events::Raised,
        handlers::check_url,
        model::Placement,
        rest::{Answer, Hit, RestError},
    },
    journal::Severity,
    php::Php,
};

type Result = std::result::Result<Answer, RestError>;

/// An error that is *returned*: status 200, `result: false`, in the shape of the documents (§3.3).
fn returned(hit: &Hit<'_>, code: &str, text: &str) -> Result {
    hit.world.violation(Severity::Refused, "rest.imconnector.register", &hit.portal.member_id, code, text.to_owned());
    Ok(Answer::of(Php::map([("result", Php::Bool(false)), ("error", code.into()), ("error_description", text.into())])))
}

pub(crate) fn register(hit: &mut Hit<'_>, params: &Php) -> Result {
    let text = |name: &str| params.get_ci(name).map(Php::text).unwrap_or_default();
    let id = text("ID");
    if id.is_empty() {
        return returned(hit, "CONNECTOR_ID_REQUIRED", "Connector ID is required");
    }
    if id.contains('.') {
        return returned(hit, "APPLICATION_REGISTRATION_ERROR_POINT", "Connector ID must not contain a point");
    }
    let name = text("NAME");
    if name.is_empty() || name.chars().count() > 255 {
        return returned(hit, "NAME_REQUIRED", "Name is required");
    }
    let picture = params.get_ci("ICON").and_then(|icon| icon.get_ci("DATA_IMAGE")).map(Php::text).unwrap_or_default();
    if !picture.starts_with("data:image/svg+xml,") && !picture.starts_with("data:image/svg+xml;base64,") {
        return returned(hit, "ICON_REQUIRED", "Icon is required");
    }
    let handler = text("PLACEMENT_HANDLER");
    if handler.is_empty() {
        return returned(hit, "NO_PLACEMENT_HANDLER", "Placement handler is required");
    }
    check_url(&handler)?;
    for flag in ["DEL_EXTERNAL_MESSAGES", "EDIT_INTERNAL_MESSAGES", "DEL_INTERNAL_MESSAGES", "NEWSLETTER", "CHAT_GROUP"]
    {
        careless_flag(hit, params, flag);
    }
    let yes = |name: &str| params.get_ci(name).is_none_or(|value| value.text() != "N");
    let (id, client_id) = (id.to_lowercase(), hit.caller.client_id.to_string());
    let mut state = hit.portal.state.lock();
    let row = state.next_row();
    if let Some(install) = state.installs.get_mut(&client_id) {
        // Another address adds a row and leaves the old one.
        let known = install.placements.iter().any(|own| own.code == "SETTING_CONNECTOR" && own.handler == handler);
        if !known {
            install.placements.push(Placement {
                row,
                code: "SETTING_CONNECTOR".to_owned(),
                handler,
                title: name.clone(),
                description: String::new(),
                user_id: 0,
                options: Php::empty(),
                lang_all: Php::empty(),
            });
        }
    }
    let connector = Connector {
        client_id,
        name,
        needs_signature: yes("NEED_SIGNATURE"),
        needs_system: yes("NEED_SYSTEM_MESSAGES"),
        edits: yes("EDIT_INTERNAL_MESSAGES"),
        deletes: yes("DEL_INTERNAL_MESSAGES"),
    };
    // Whoever registers an id takes it over (§5.2).
    state.openlines.connectors.insert(id, connector);
    Ok(Answer::of(Php::map([("result", Php::Bool(true))])))
}

fn careless_flag(hit: &Hit<'_>, params: &Php, name: &str) {
    let said = params.get_ci(name).map(Php::text).unwrap_or_default();
    if !matches!(said.as_str(), "" | "Y" | "N") {
        let text = format!("{name} should be Y or N");
        hit.world.violation(
            Severity::Careless,
            "rest.imconnector.register",
            &hit.portal.member_id,
            "connector_flag",
            text,
        );
    }
}

pub(crate) fn unregister(hit: &mut Hit<'_>, params: &Php) -> Result {
    let id = params.get_ci("ID").map(Php::text).unwrap_or_default().to_lowercase();
    if id.is_empty() {
        return returned(hit, "CONNECTOR_ID_REQUIRED", "Connector ID is required");
    }
    let mut state = hit.portal.state.lock();
    let own = state.openlines.connectors.get(&id).is_some_and(|own| own.client_id == *hit.caller.client_id);
    if !own {
        drop(state);
        return returned(hit, "APPLICATION_UNREGISTRATION_ERROR", "Connector is not registered");
    }
    let lines: Vec<i64> =
        state.openlines.standings.keys().filter(|(connector, _)| *connector == id).map(|(_, line)| *line).collect();
    let raised: Vec<Raised> = lines.iter().filter_map(|line| status_delete(&mut state.openlines, &id, *line)).collect();
    state.openlines.connectors.remove(&id);
    drop(state);
    hit.events.extend(raised);
    Ok(Answer::of(Php::map([("result", Php::Bool(true))])))
}

/// Takes a connector off a line and tells its application, in lower-case keys (§5.8).
pub(crate) fn status_delete(lines: &mut OpenLines, connector: &str, line: i64) -> Option<Raised> {
    lines.standings.remove(&(connector.to_owned(), line))?;
    let only = lines.connectors.get(connector).map(|own| own.client_id.as_str().into());
    let data = Php::map([("connector", connector.into()), ("line", line.to_string().into())]);
    Some(Raised { only, ..Raised::new("ONIMCONNECTORSTATUSDELETE", data) })
}

pub(crate) fn activate(hit: &mut Hit<'_>, params: &Php) -> Result {
    let (connector, line) = connector_and_line(params)?;
    let active = params.get_ci("ACTIVE").filter(|value| **value != Php::Null);
    let active = active.ok_or_else(|| RestError::argument("ACTIVE"))?;
    let said = active.text();
    if !matches!(said.as_str(), "1" | "0") {
        let text = format!("ACTIVE={said}: whatever is not empty switches on; send 1 or 0");
        let target = "rest.imconnector.activate";
        hit.world.violation(Severity::Careless, target, &hit.portal.member_id, "active_flag", text);
    }
    let on = !active.is_empty();
    let mut state = hit.portal.state.lock();
    let lines = &mut state.openlines;
    if !on {
        let raised = status_delete(lines, &connector, line);
        drop(state);
        hit.events.extend(raised);
        return Answer::yes();
    }
    if !lines.connectors.contains_key(&connector) || !lines.lines.contains_key(&line) {
        return Ok(Answer::of(false));
    }
    let standing = lines.standings.entry((connector, line)).or_default();
    (standing.active, standing.error) = (true, false);
    Answer::yes()
}

pub(crate) fn status(hit: &mut Hit<'_>, params: &Php) -> Result {
    let (connector, line) = connector_and_line(params)?;
    let state = hit.portal.state.lock();
    // An unknown connector is no error: all false.
    let standing = state.openlines.standings.get(&(connector.clone(), line)).cloned().unwrap_or_default();
    Ok(Answer::of(Php::map([
        ("LINE", Php::Int(line)),
        ("CONNECTOR", connector.into()),
        ("ERROR", Php::Bool(standing.error)),
        ("CONFIGURED", Php::Bool(standing.active)),
        ("STATUS", Php::Bool(standing.active && !standing.error)),
    ])))
}

pub(crate) fn data_set(hit: &mut Hit<'_>, params: &Php) -> Result {
    let (connector, line) = connector_and_line(params)?;
    let data = params.get_ci("DATA").filter(|data| data.is_array()).ok_or_else(|| RestError::argument("DATA"))?;
    let mut state = hit.portal.state.lock();
    if let Some(Standing { data: own, .. }) = state.openlines.standings.get_mut(&(connector, line)) {
        for (key, value) in data.entries() {
            let (key, value) = (key.to_string().to_uppercase(), value.text());
            // Only what is not empty is merged.
            if matches!(key.as_str(), "ID" | "URL" | "URL_IM" | "NAME") && !value.is_empty() {
                own.insert(key, value);
            }
        }
    }
    Answer::yes()
}

pub(crate) fn set_error(hit: &mut Hit<'_>, params: &Php) -> Result {
    let (connector, line) = connector_and_line(params)?;
    let mut state = hit.portal.state.lock();
    if let Some(standing) = state.openlines.standings.get_mut(&(connector, line)) {
        standing.error = true;
    }
    Ok(Answer::of(Php::map([("SUCCESS", Php::Bool(true)), ("DATA", Php::empty())])))
}

pub(crate) fn name_set(hit: &mut Hit<'_>, params: &Php) -> Result {
    let (connector, line) = connector_and_line(params)?;
    let (chat, user, name) = (required(params, "CHAT_ID")?, required(params, "USER_ID")?, required(params, "NAME")?);
    let mut state = hit.portal.state.lock();
    let lines = &mut state.openlines;
    if lines.standings.get(&(connector.clone(), line)).is_none_or(|standing| !standing.active) {
        return Err(RestError::bad("NOT_ACTIVE_LINE", "Line is not active"));
    }
    let is_it = |own: &&mut super::Chat| {
        own.connector == connector && own.line == line && own.external_chat == chat && own.external_user == user
    };
    let Some(own) = lines.chats.values_mut().find(is_it) else {
        return Err(RestError::bad("CHAT_RENAMING_FAILED", "Chat renaming failed"));
    };
    own.name = name;
    Ok(Answer::of(Php::map([("SUCCESS", Php::Bool(true)), ("DATA", Php::empty())])))
}

pub(crate) fn list(hit: &mut Hit<'_>, _params: &Php) -> Result {
    if !hit.caller.is_admin {
        return Err(RestError::bad("ACCESS_DENIED", "Access denied"));
    }
    let state = hit.portal.state.lock();
    let own = state.openlines.connectors.iter().map(|(id, own)| (id.as_str(), Php::from(own.name.as_str())));
    Ok(Answer::of(Php::map([("livechat", Php::from("Live chat"))].into_iter().chain(own))))
}
