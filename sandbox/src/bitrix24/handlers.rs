//! `event.*` and `placement.*`. Source: §1.8, §4.1, §9.

use super::{
    events::Raised,
    model::{EventHandler, Placement},
    rest::{Answer, Hit, RestError},
};
use crate::php::Php;

type Result = std::result::Result<Answer, RestError>;

/// The shared check of handler addresses: scheme, then a dot in the host (so `localhost` is refused).
pub(crate) fn check_url(url: &str) -> std::result::Result<(), RestError> {
    let wrong = || RestError::bad("ERROR_WRONG_HANDLER_URL", "Wrong handler URL");
    let Some((scheme, rest)) = url.split_once("://") else { return Err(wrong()) };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(RestError::bad("ERROR_UNSUPPORTED_PROTOCOL", "Unsupported event handler protocol"));
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or("");
    let has_dot = host.find('.').is_some_and(|at| at >= 1);
    if !has_dot || reqwest::Url::parse(url).is_err() {
        return Err(wrong());
    }
    Ok(())
}

/// Events by the scope that opens them; the empty scope is for everybody.
const EVENTS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "ONAPPINSTALL",
            "ONAPPUPDATE",
            "ONAPPUNINSTALL",
            "ONAPPPAYMENT",
            "ONSUBSCRIPTIONRENEW",
            "ONAPPTEST",
            "ONAPPMETHODCONFIRM",
            "ONOFFLINEEVENT",
            "ONUSERADD",
        ],
    ),
    (
        "crm",
        &[
            "ONCRMLEADADD",
            "ONCRMLEADUPDATE",
            "ONCRMLEADDELETE",
            "ONCRMDEALADD",
            "ONCRMDEALUPDATE",
            "ONCRMDEALDELETE",
            "ONCRMCONTACTADD",
            "ONCRMCONTACTUPDATE",
            "ONCRMCONTACTDELETE",
            "ONCRMCOMPANYADD",
            "ONCRMCOMPANYUPDATE",
            "ONCRMCOMPANYDELETE",
            "ONCRMDYNAMICITEMADD",
            "ONCRMDYNAMICITEMUPDATE",
            "ONCRMDYNAMICITEMDELETE",
            "ONCRMTIMELINECOMMENTADD",
            "ONCRMTIMELINECOMMENTUPDATE",
            "ONCRMTIMELINECOMMENTDELETE",
            "ONCRMTIMELINEITEMACTION",
            "ONCRMDOCUMENTGENERATORDOCUMENTADD",
            "ONCRMDOCUMENTGENERATORDOCUMENTUPDATE",
            "ONCRMDOCUMENTGENERATORDOCUMENTDELETE",
        ],
    ),
    (
        "imopenlines",
        &[
            "ONIMCONNECTORMESSAGEADD",
            "ONIMCONNECTORMESSAGEUPDATE",
            "ONIMCONNECTORMESSAGEDELETE",
            "ONIMCONNECTORSTATUSDELETE",
            "ONIMCONNECTORLINEDELETE",
            "ONIMCONNECTORDIALOGSTART",
            "ONIMCONNECTORDIALOGFINISH",
            "ONOPENLINEMESSAGEADD",
            "ONOPENLINEMESSAGEUPDATE",
            "ONOPENLINEMESSAGEDELETE",
            "ONSESSIONSTART",
            "ONSESSIONFINISH",
        ],
    ),
];

fn known_events(scopes: &[String]) -> impl Iterator<Item = &'static str> + '_ {
    let open = |scope: &str| scope.is_empty() || scopes.iter().any(|own| own == scope);
    EVENTS.iter().filter(move |(scope, _)| open(scope)).flat_map(|(_, names)| names.iter().copied())
}

pub(crate) fn event_bind(hit: &mut Hit<'_>, params: &Php) -> Result {
    let event = required(params, "event")?.to_ascii_uppercase();
    let offline = params.get_ci("event_type").map(Php::text).is_some_and(|kind| kind.eq_ignore_ascii_case("offline"));
    if !known_events(&hit.caller.scopes).any(|known| known == event) {
        return Err(RestError::bad("ERROR_EVENT_NOT_FOUND", "Event not found"));
    }
    let handler = if offline {
        String::new()
    } else {
        let handler = required(params, "handler")?;
        check_url(&handler)?;
        handler
    };
    let mut auth_type = params.get_ci("auth_type").and_then(Php::as_int).unwrap_or(0);
    if !hit.caller.is_admin {
        if offline || (auth_type != 0 && auth_type != hit.caller.user_id) {
            return Err(RestError::new(403, "ACCESS_DENIED", "Access denied!"));
        }
        auth_type = hit.caller.user_id;
    }
    let mut state = hit.portal.state.lock();
    let row = state.next_row();
    let Some(install) = state.installs.get_mut(&*hit.caller.client_id) else { return gone() };
    let is_bound = install.handlers.iter().any(|own| {
        own.event == event && own.handler == handler && own.auth_type == auth_type && own.offline == offline
    });
    if is_bound {
        return Err(RestError::bad("ERROR_CORE", "Unable to set event handler: Handler already binded"));
    }
    install.handlers.push(EventHandler { row, event, handler, auth_type, offline });
    Answer::yes()
}

pub(crate) fn event_unbind(hit: &mut Hit<'_>, params: &Php) -> Result {
    let event = required(params, "event")?.to_ascii_uppercase();
    let kind = params.get_ci("event_type").map(Php::text);
    let offline = kind.as_deref().map(|kind| kind.eq_ignore_ascii_case("offline"));
    let handler = if offline == Some(true) { None } else { Some(required(params, "handler")?) };
    let auth_type = params.get_ci("auth_type").and_then(Php::as_int);
    let mut state = hit.portal.state.lock();
    let Some(install) = state.installs.get_mut(&*hit.caller.client_id) else { return gone() };
    let before = install.handlers.len();
    install.handlers.retain(|own| {
        let matches = own.event == event
            && handler.as_ref().is_none_or(|handler| *handler == own.handler)
            && auth_type.is_none_or(|user| user == own.auth_type)
            && offline.is_none_or(|offline| offline == own.offline);
        !matches
    });
    let count = before - install.handlers.len();
    Ok(Answer::of(Php::map([("count", Php::Int(i64::try_from(count).unwrap_or(0)))])))
}

pub(crate) fn event_get(hit: &mut Hit<'_>, _params: &Php) -> Result {
    let state = hit.portal.state.lock();
    let Some(install) = state.installs.get(&*hit.caller.client_id) else { return gone() };
    let rows = install.handlers.iter().map(|row| {
        Php::map([
            ("event", row.event.as_str().into()),
            ("handler", row.handler.as_str().into()),
            ("auth_type", row.auth_type.to_string().into()),
            ("offline", Php::Int(i64::from(row.offline))),
        ])
    });
    Ok(Answer::of(Php::list(rows)))
}

pub(crate) fn events(hit: &mut Hit<'_>, _params: &Php) -> Result {
    Ok(Answer::of(Php::list(known_events(&hit.caller.scopes).map(Php::from))))
}

pub(crate) fn event_test(hit: &mut Hit<'_>, params: &Php) -> Result {
    let query: Vec<_> = params
        .entries()
        .iter()
        .filter(|(key, _)| !matches!(key.to_string().as_str(), "auth" | "access_token"))
        .cloned()
        .collect();
    let data = Php::map([("QUERY", Php::Array(query))]);
    hit.events.push(Raised { only: Some(hit.caller.client_id.clone()), ..Raised::new("ONAPPTEST", data) });
    Ok(Answer::of(Php::Int(1)))
}

/// Places an application may bind, with the scope of the place. Private ones (robot dialog, connector settings, user
/// field) are bound by other methods and are "not found" here.
const PLACES: &[(&str, &str)] = &[
    ("crm", "CRM_LEAD"),
    ("crm", "CRM_DEAL"),
    ("crm", "CRM_CONTACT"),
    ("crm", "CRM_COMPANY"),
    ("crm", "CRM_QUOTE"),
    ("crm", "CRM_SMART_INVOICE"),
    ("crm", "CRM_ORDER"),
];
const CARD_PLACES: &[&str] =
    &["DETAIL_TAB", "DETAIL_ACTIVITY", "DETAIL_TOOLBAR", "LIST_MENU", "LIST_TOOLBAR", "ACTIVITY_TIMELINE_MENU"];
const OTHER_PLACES: &[(&str, &str)] = &[
    ("contact_center", "CONTACT_CENTER"),
    ("im", "IM_TEXTAREA"),
    ("im", "IM_SIDEBAR"),
    ("im", "IM_CONTEXT_MENU"),
    ("placement", "REST_APP_URI"),
    ("placement", "PAGE_BACKGROUND_WORKER"),
    ("placement", "LEFT_MENU"),
];

fn known_places(hit: &Hit<'_>) -> Vec<String> {
    let open = |scope: &str| hit.caller.scopes.iter().any(|own| own == scope);
    let mut places = Vec::new();
    for (scope, prefix) in PLACES.iter().filter(|(scope, _)| open(scope)) {
        debug_assert_eq!(*scope, "crm");
        places.extend(CARD_PLACES.iter().map(|place| format!("{prefix}_{place}")));
    }
    if open("crm") {
        for type_id in hit.portal.state.lock().crm.smart_types() {
            places.extend(CARD_PLACES.iter().map(|place| format!("CRM_DYNAMIC_{type_id}_{place}")));
        }
    }
    places.extend(OTHER_PLACES.iter().filter(|(scope, _)| open(scope)).map(|(_, place)| (*place).to_owned()));
    places
}

pub(crate) fn placement_bind(hit: &mut Hit<'_>, params: &Php) -> Result {
    let code = required(params, "PLACEMENT")?.to_ascii_uppercase();
    if !known_places(hit).contains(&code) {
        return Err(RestError::bad("ERROR_PLACEMENT_NOT_FOUND", "Placement not found"));
    }
    let handler = params.get_ci("HANDLER").map(Php::text).unwrap_or_default();
    if handler.is_empty() {
        return Err(RestError::bad("EMPTY_ERROR_HANDLER_URL", "Handler URL is empty"));
    }
    check_url(&handler)?;
    let text = |name: &str| params.get_ci(name).map(Php::text).unwrap_or_default();
    let tree = |name: &str| params.get_ci(name).cloned().unwrap_or(Php::empty());
    let mut state = hit.portal.state.lock();
    let row = state.next_row();
    let Some(install) = state.installs.get_mut(&*hit.caller.client_id) else { return gone() };
    if install.placements.iter().any(|own| own.code == code && own.handler == handler) {
        return Err(RestError::bad("ERROR_CORE", "Unable to set placement handler: Handler already binded"));
    }
    install.placements.push(Placement {
        row,
        code,
        handler,
        title: text("TITLE"),
        description: text("DESCRIPTION"),
        user_id: params.get_ci("USER_ID").and_then(Php::as_int).unwrap_or(0),
        options: tree("OPTIONS"),
        lang_all: tree("LANG_ALL"),
    });
    Answer::yes()
}

pub(crate) fn placement_unbind(hit: &mut Hit<'_>, params: &Php) -> Result {
    let code = required(params, "PLACEMENT")?.to_ascii_uppercase();
    let handler = params.get_ci("HANDLER").map(Php::text).filter(|handler| !handler.is_empty());
    let mut state = hit.portal.state.lock();
    let Some(install) = state.installs.get_mut(&*hit.caller.client_id) else { return gone() };
    let before = install.placements.len();
    install
        .placements
        .retain(|own| own.code != code || handler.as_ref().is_some_and(|handler| *handler != own.handler));
    // Each removed row is counted twice, as the code does (§9.1).
    let count = (before - install.placements.len()) * 2;
    Ok(Answer::of(Php::map([("count", Php::Int(i64::try_from(count).unwrap_or(0)))])))
}

pub(crate) fn placement_get(hit: &mut Hit<'_>, _params: &Php) -> Result {
    let state = hit.portal.state.lock();
    let Some(install) = state.installs.get(&*hit.caller.client_id) else { return gone() };
    let rows = install.placements.iter().map(|row| {
        Php::map([
            ("id", Php::Int(row.row)),
            ("placement", row.code.as_str().into()),
            ("userId", Php::Int(row.user_id)),
            ("handler", row.handler.as_str().into()),
            ("options", row.options.clone()),
            ("title", row.title.as_str().into()),
            ("description", row.description.as_str().into()),
            ("langAll", row.lang_all.clone()),
        ])
    });
    Ok(Answer::of(Php::list(rows)))
}

pub(crate) fn placement_list(hit: &mut Hit<'_>, _params: &Php) -> Result {
    Ok(Answer::of(Php::list(known_places(hit).into_iter().map(Php::from))))
}

fn required(params: &Php, name: &str) -> std::result::Result<String, RestError> {
    let value = params.get_ci(name).map(Php::text).unwrap_or_default();
    if value.trim().is_empty() { Err(RestError::argument(name)) } else { Ok(value) }
}

fn gone() -> Result {
    Err(RestError::new(401, "APPLICATION_NOT_FOUND", "Application not found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handler_urls_need_http_and_a_dot_in_the_host() {
        let code = |url: &str| check_url(url).err().map(|error| error.code.into_owned());
        assert_eq!(code("https://connector.example/x"), None);
        assert_eq!(code("http://127.0.0.1:8080/x"), None);
        assert_eq!(code("http://localhost:8080/x").as_deref(), Some("ERROR_WRONG_HANDLER_URL"));
        assert_eq!(code("http://localhost/a.b").as_deref(), Some("ERROR_WRONG_HANDLER_URL"));
        assert_eq!(code("ftp://connector.example/x").as_deref(), Some("ERROR_UNSUPPORTED_PROTOCOL"));
        assert_eq!(code("connector.example").as_deref(), Some("ERROR_WRONG_HANDLER_URL"));
    }
}
