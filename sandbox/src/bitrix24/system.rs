//! Methods about the application, the portal and its users. Source: §8.8.

use super::{
    User,
    rest::{Answer, Hit, RestError},
    table,
};
use crate::{clock::iso, php::Php};

type Result = std::result::Result<Answer, RestError>;

pub(crate) fn app_info(hit: &mut Hit<'_>, _params: &Php) -> Result {
    let license = hit.portal.switches.read().license.clone();
    let language = hit.portal.switches.read().language.clone();
    let state = hit.portal.state.lock();
    let Some(install) = state.installs.get(&*hit.caller.client_id) else {
        return Err(RestError::new(401, "APPLICATION_NOT_FOUND", "Application not found"));
    };
    let (kind, family) = license.split_once('_').map_or((license.as_str(), ""), |(region, plan)| (plan, region));
    Ok(Answer::of(Php::map([
        ("ID", Php::Int(i64::try_from(install.epoch).unwrap_or(1))),
        ("CODE", install.app.client_id.as_str().into()),
        ("VERSION", Php::Int(install.version)),
        ("STATUS", install.status.as_str().into()),
        ("INSTALLED", Php::Bool(install.installed)),
        ("PAYMENT_EXPIRED", Php::yes_no(install.payment_expired)),
        ("DAYS", Php::Null),
        ("LANGUAGE_ID", language.into()),
        ("LICENSE", license.as_str().into()),
        ("LICENSE_PREVIOUS", "".into()),
        ("LICENSE_TYPE", kind.into()),
        ("LICENSE_FAMILY", family.into()),
    ])))
}

pub(crate) fn app_option_get(hit: &mut Hit<'_>, params: &Php) -> Result {
    let state = hit.portal.state.lock();
    let all = state.installs.get(&*hit.caller.client_id).map(|install| install.options.clone()).unwrap_or(Php::empty());
    Ok(Answer::of(option_of(&all, params)))
}

pub(crate) fn app_option_set(hit: &mut Hit<'_>, params: &Php) -> Result {
    let options = params.get_ci("options").filter(|options| options.is_array());
    let options = options.ok_or_else(|| RestError::argument("options"))?;
    let mut state = hit.portal.state.lock();
    if let Some(install) = state.installs.get_mut(&*hit.caller.client_id) {
        for (key, value) in options.entries() {
            *install.options.entry(key.clone()) = value.clone();
        }
    }
    Answer::yes()
}

pub(crate) fn user_option_get(hit: &mut Hit<'_>, params: &Php) -> Result {
    let state = hit.portal.state.lock();
    let install = state.installs.get(&*hit.caller.client_id);
    let all = install.and_then(|install| install.user_options.get(&hit.caller.user_id)).cloned();
    Ok(Answer::of(option_of(&all.unwrap_or(Php::empty()), params)))
}

pub(crate) fn user_option_set(hit: &mut Hit<'_>, params: &Php) -> Result {
    let options = params.get_ci("options").filter(|options| options.is_array());
    let options = options.ok_or_else(|| RestError::argument("options"))?;
    let mut state = hit.portal.state.lock();
    if let Some(install) = state.installs.get_mut(&*hit.caller.client_id) {
        let own = install.user_options.entry(hit.caller.user_id).or_insert_with(Php::empty);
        for (key, value) in options.entries() {
            *own.entry(key.clone()) = value.clone();
        }
    }
    Answer::yes()
}

fn option_of(all: &Php, params: &Php) -> Php {
    match params.get_ci("option").map(Php::text).filter(|name| !name.is_empty()) {
        Some(name) => all.get(&name).cloned().unwrap_or_else(|| "".into()),
        None => all.clone(),
    }
}

const ALL_SCOPES: &[&str] = &[
    "crm",
    "bizproc",
    "placement",
    "imopenlines",
    "imconnector",
    "im",
    "messageservice",
    "disk",
    "user",
    "user_brief",
    "user_basic",
    "contact_center",
    "documentgenerator",
    "userfieldconfig",
];

pub(crate) fn scope(hit: &mut Hit<'_>, params: &Php) -> Result {
    if params.get_ci("full").is_some_and(Php::is_yes) {
        return Ok(Answer::of(Php::list(ALL_SCOPES.iter().map(|scope| Php::from(*scope)))));
    }
    Ok(Answer::of(Php::list(hit.caller.scopes.iter().map(|scope| Php::from(scope.as_str())))))
}

pub(crate) fn methods(hit: &mut Hit<'_>, _params: &Php) -> Result {
    Ok(Answer::of(Php::list(table::names(&hit.caller.scopes).map(Php::from))))
}

pub(crate) fn method_get(hit: &mut Hit<'_>, params: &Php) -> Result {
    let name = params.get_ci("name").map(Php::text).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| RestError::argument("name"))?.to_ascii_lowercase();
    let has_robots = hit.portal.switches.read().robots_available;
    let is_existing = name == "batch" || table::find(&name).is_some_and(|spec| has_robots || spec.scope != "bizproc");
    let is_available = is_existing && table::names(&hit.caller.scopes).any(|known| known == name);
    Ok(Answer::of(Php::map([("isExisting", Php::Bool(is_existing)), ("isAvailable", Php::Bool(is_available))])))
}

pub(crate) fn feature_get(hit: &mut Hit<'_>, params: &Php) -> Result {
    let code = params.get_ci("CODE").map(Php::text).filter(|code| !code.is_empty());
    let code = code.ok_or_else(|| RestError::argument("CODE"))?;
    let switches = hit.portal.switches.read();
    let has = match code.as_str() {
        "bizproc" | "crm_automation" | "bizproc_automation" => switches.robots_available,
        "rest_auth_connector" | "rest_offline_extended" => false,
        _ => true,
    };
    Ok(Answer::of(Php::map([("value", Php::yes_no(has))])))
}

pub(crate) fn profile(hit: &mut Hit<'_>, _params: &Php) -> Result {
    let state = hit.portal.state.lock();
    let Some(user) = state.users.get(&hit.caller.user_id) else {
        return Err(RestError::new(401, "authorization_error", "Unable to authorize user"));
    };
    Ok(Answer::of(Php::map([
        ("ID", user.id.to_string().into()),
        ("ADMIN", Php::Bool(user.admin)),
        ("NAME", user.name.as_str().into()),
        ("LAST_NAME", user.last_name.as_str().into()),
        ("PERSONAL_GENDER", "".into()),
        ("TIME_ZONE", "".into()),
        ("TIME_ZONE_OFFSET", Php::Int(0)),
    ])))
}

pub(crate) fn server_time(hit: &mut Hit<'_>, _params: &Php) -> Result {
    Ok(Answer::of(iso(hit.now, hit.portal.switches.read().offset_min)))
}

pub(crate) fn user_admin(hit: &mut Hit<'_>, _params: &Php) -> Result {
    Ok(Answer::of(hit.caller.is_admin))
}

pub(crate) fn user_current(hit: &mut Hit<'_>, _params: &Php) -> Result {
    let state = hit.portal.state.lock();
    let user = state.users.get(&hit.caller.user_id).map(|user| shown(user, &hit.caller.scopes));
    Ok(Answer::of(user.unwrap_or(Php::empty())))
}

pub(crate) fn user_get(hit: &mut Hit<'_>, params: &Php) -> Result {
    let start = params.get_ci("start").and_then(Php::as_int).unwrap_or(0);
    let filter = params.get_ci("FILTER").or_else(|| params.get_ci("filter"));
    let wanted = params.get_ci("ID").or_else(|| filter.and_then(|filter| filter.get_ci("ID"))).and_then(Php::as_int);
    let state = hit.portal.state.lock();
    let found: Vec<&User> = state.users.values().filter(|user| wanted.is_none_or(|id| id == user.id)).collect();
    let total = i64::try_from(found.len()).unwrap_or(0);
    let page = found.into_iter().skip(usize::try_from(start).unwrap_or(0)).take(50);
    let result = Php::list(page.map(|user| shown(user, &hit.caller.scopes)));
    let next = (start + 50 < total).then_some(start + 50);
    Ok(Answer { result, total: Some(total), next })
}

/// A user with the fields that the narrowest granted scope allows.
fn shown(user: &User, scopes: &[String]) -> Php {
    let mut fields = vec![
        ("ID", Php::from(user.id.to_string())),
        ("ACTIVE", Php::Bool(!user.fired)),
        ("NAME", user.name.as_str().into()),
        ("LAST_NAME", user.last_name.as_str().into()),
        ("SECOND_NAME", "".into()),
        ("USER_TYPE", "employee".into()),
    ];
    if scopes.iter().any(|scope| scope == "user" || scope == "user_basic") {
        fields.push(("EMAIL", user.email.as_str().into()));
    }
    Php::map(fields)
}
