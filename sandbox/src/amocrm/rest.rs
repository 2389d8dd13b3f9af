//! REST v4: account, leads, contacts. Source: §6.1–§6.6.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{AccountCell, notes, oauth, problem, salesbot};
use crate::{
    http::{Request, Response, form},
    journal::Severity,
    world::{Call, VendorError, World},
};

/// §6.2: page and batch.
const LIMIT_MAX: usize = 250;

/// One request of a known integration.
pub(super) struct Ask<'a> {
    pub(super) world: &'a Arc<World>,
    pub(super) request: &'a Request,
    pub(super) cell: &'a AccountCell,
}

impl Ask<'_> {
    pub(super) fn refuse(&self, target: &str, status: u16, code: &str, more: Value) -> Response {
        let message = format!("{} {}", self.request.method, self.request.path);
        self.world.violation(Severity::Refused, target, &self.cell.scope(), code, message);
        problem(status, code, more)
    }

    /// The body as JSON.
    pub(super) fn body(&self, target: &str) -> Result<Value, Response> {
        if !self.request.is_json() {
            return Err(self.refuse(target, 415, "Unsupported Media Type", json!({})));
        }
        serde_json::from_slice(&self.request.body)
            .map_err(|_unread| self.refuse(target, 400, "Bad Request", json!({"detail": "no JSON"})))
    }

    /// The items of a body that must be an array (§6.1).
    pub(super) fn array(&self, target: &str) -> Result<Vec<Value>, Response> {
        match self.body(target)? {
            Value::Array(items) if items.is_empty() || items.len() > LIMIT_MAX => {
                Err(self.refuse(target, 400, "Bad Request", json!({"detail": "1 to 250 entities"})))
            }
            Value::Array(items) => Ok(items),
            _ => Err(self.refuse(target, 400, "Bad Request", json!({"detail": "an array is expected"}))),
        }
    }

    /// `page` and `limit` of a list.
    pub(super) fn page(&self, target: &str) -> Result<(usize, usize), Response> {
        let number = |key: &str, otherwise: usize| {
            self.request.query_param(key).map_or(Some(otherwise), |text| text.parse().ok().filter(|n| *n > 0))
        };
        match (number("page", 1), number("limit", 50)) {
            (Some(page), Some(limit)) if limit <= LIMIT_MAX => Ok((page, limit)),
            (Some(_), Some(_)) => Err(self.refuse(target, 422, "Limit 250 per page", json!({}))),
            _ => Err(self.refuse(target, 400, "Bad Request", json!({"detail": "page or limit"}))),
        }
    }

    /// A page of a collection as HAL; 204 without a body when it is empty (§6.1).
    pub(super) fn list(&self, target: &str, name: &str, items: Vec<Value>) -> Response {
        let (page, limit) = match self.page(target) {
            Ok(page) => page,
            Err(refusal) => return refusal,
        };
        let (start, count) = ((page - 1) * limit, items.len());
        let shown: Vec<Value> = items.into_iter().skip(start).take(limit).collect();
        if shown.is_empty() {
            return nothing();
        }
        let own = format!("https://{}{}", self.cell.host(), self.request.path);
        let mut links = json!({"self": {"href": own}});
        if start + shown.len() < count {
            links["next"] = json!({"href": format!("{own}?page={}&limit={limit}", page + 1)});
        }
        hal(json!({"_page": page, "_links": links, "_embedded": {name: shown}}))
    }
}

pub(super) fn hal(body: Value) -> Response {
    Response::new(200, "application/hal+json", crate::http::json::escaped(&body))
}

pub(super) fn nothing() -> Response {
    Response::new(204, "application/hal+json", "")
}

pub(super) async fn route(world: &Arc<World>, request: &Request, label: Option<&str>, rest: &[&str]) -> Response {
    let who = oauth::who(world, request, label);
    let scope = who.as_ref().map(|(cell, _)| cell.scope()).unwrap_or_default();
    let target = target(request.method.as_str(), rest);
    let process = || {
        let grant = who.as_ref().map(|(cell, client)| (cell.id, client.clone()));
        if let Some(refused) = world.amo.count(world, grant.as_ref()) {
            return refused;
        }
        let Some((cell, _)) = &who else {
            world.journal.count("amo.unauthorized");
            return problem(401, "Unauthorized", json!({"detail": "Неверный логин или пароль"}));
        };
        if !cell.state.lock().paid {
            return problem(402, "Payment Required", json!({}));
        }
        answer(&Ask { world, request, cell }, target, rest)
    };
    let expire = || {
        if let Some((cell, _)) = oauth::who(world, request, label) {
            cell.state.lock().expire_access();
        }
    };
    let call = Call { request, target, scope: &scope, phone: "" };
    world.admit(call, process, vendor_error, expire).await
}

/// Name of a route, as fault rules use it.
fn target(method: &str, rest: &[&str]) -> &'static str {
    match (method, rest) {
        (_, ["account"]) => "amo.account",
        (_, ["salesbot" | "marketingbot", _, "continue", _]) => "amo.continue",
        ("POST", [.., "notes"]) => "amo.notes.add",
        ("PATCH", [_, "notes"]) => "amo.notes.change",
        (_, [.., "notes"]) => "amo.notes.list",
        (_, ["leads", ..]) => "amo.leads",
        (_, ["contacts", ..]) => "amo.contacts",
        _ => "amo.other",
    }
}

fn vendor_error(wanted: &VendorError) -> Response {
    problem(wanted.status.unwrap_or(500), wanted.description.as_deref().unwrap_or(&wanted.code), json!({}))
}

fn answer(ask: &Ask<'_>, target: &'static str, rest: &[&str]) -> Response {
    match (ask.request.method.as_str(), rest) {
        ("GET", ["account"]) => {
            let state = ask.cell.state.lock();
            let country = if ask.cell.domain.ends_with(".ru") { "RU" } else { "US" };
            let mut account = json!({"id": ask.cell.id, "name": state.subdomain, "subdomain": state.subdomain,
                "current_user_id": 2_718_281, "country": country});
            // §6.4: only where it is asked for.
            if ask.request.query_param("with").is_some_and(|with| with.split(',').any(|part| part == "amojo_id")) {
                account["amojo_id"] = json!(ask.cell.amojo_id);
            }
            hal(account)
        }
        // Before the entities: `notes` is no id.
        (_, ["leads" | "contacts" | "companies" | "customers", .., "notes"]) => notes::route(ask, target, rest),
        ("GET", [kind @ ("leads" | "contacts")]) => entities(ask, target, kind),
        ("GET", [kind @ ("leads" | "contacts"), id]) => match entity(ask, kind, id) {
            Some(found) => hal(found),
            // §6.1: a missing one is no 404.
            None => nothing(),
        },
        ("PATCH", [kind @ ("leads" | "contacts"), id]) => patch(ask, target, kind, id),
        ("PATCH", [kind @ ("leads" | "contacts")]) => patch_many(ask, target, kind),
        ("POST", [kind @ ("salesbot" | "marketingbot"), bot, "continue", id]) => {
            salesbot::go_on(ask, target, kind, bot, id)
        }
        (_, ["account" | "leads" | "contacts", ..]) => problem(405, "Method Not Allowed", json!({})),
        _ => ask.refuse(target, 404, "Not Found", json!({})),
    }
}

fn entity(ask: &Ask<'_>, kind: &str, id: &str) -> Option<Value> {
    let id: i64 = id.parse().ok()?;
    let state = ask.cell.state.lock();
    let found = if kind == "leads" { state.leads.get(&id) } else { state.contacts.get(&id) };
    found.cloned().map(|entity| shown(ask, entity))
}

/// §6.6: without `with=contacts` there is no such key.
fn shown(ask: &Ask<'_>, mut entity: Value) -> Value {
    let with = ask.request.query_param("with").unwrap_or_default();
    if !with.split(',').any(|part| part == "contacts")
        && let Some(embedded) = entity.pointer_mut("/_embedded").and_then(Value::as_object_mut)
    {
        embedded.remove("contacts");
    }
    entity
}

fn entities(ask: &Ask<'_>, target: &str, kind: &str) -> Response {
    let pairs = form::pairs(&ask.request.query);
    let wanted: Vec<i64> =
        pairs.filter(|(key, _)| key.starts_with("filter[id][")).filter_map(|(_, id)| id.parse().ok()).collect();
    let state = ask.cell.state.lock();
    let all = if kind == "leads" { &state.leads } else { &state.contacts };
    let chosen = all.iter().filter(|(id, _)| wanted.is_empty() || wanted.contains(id));
    let found: Vec<Value> = chosen.map(|(_, entity)| entity.clone()).collect();
    drop(state);
    ask.list(target, kind, found.into_iter().map(|entity| shown(ask, entity)).collect())
}

/// One object; what is given replaces what was there, whole lists too (§6.5).
fn patch(ask: &Ask<'_>, target: &str, kind: &str, id: &str) -> Response {
    let body = match ask.body(target) {
        Ok(Value::Object(body)) => body,
        Ok(_) => return ask.refuse(target, 400, "Bad Request", json!({"detail": "one object is expected"})),
        Err(refusal) => return refusal,
    };
    let Ok(id) = id.parse::<i64>() else { return ask.refuse(target, 400, "Bad Request", json!({})) };
    change(ask, kind, id, body).map_or_else(nothing, hal)
}

/// The same for several, each with its id.
fn patch_many(ask: &Ask<'_>, target: &str, kind: &str) -> Response {
    let items = match ask.array(target) {
        Ok(items) => items,
        Err(refusal) => return refusal,
    };
    let mut changed = Vec::new();
    for (at, item) in items.into_iter().enumerate() {
        let (id, Value::Object(body)) = (item.get("id").and_then(Value::as_i64), item) else {
            return ask.refuse(target, 400, "Bad Request", json!({"detail": "objects are expected"}));
        };
        match id.and_then(|id| change(ask, kind, id, body)) {
            Some(answer) => changed.push(answer),
            None => {
                let error = json!({"request_id": at.to_string(),
                    "errors": [{"code": "EntityNotFound", "path": "id", "detail": "not found"}]});
                return ask.refuse(target, 400, "Bad Request", json!({"validation-errors": [error]}));
            }
        }
    }
    hal(json!({"_links": {}, "_embedded": {kind: changed}}))
}

/// Changes one entity; `None` when it is not there.
fn change(ask: &Ask<'_>, kind: &str, id: i64, body: Map<String, Value>) -> Option<Value> {
    let mut state = ask.cell.state.lock();
    let all = if kind == "leads" { &mut state.leads } else { &mut state.contacts };
    let entity = all.get_mut(&id)?.as_object_mut()?;
    for (key, value) in body {
        if matches!(key.as_str(), "name" | "status_id" | "pipeline_id" | "price" | "custom_fields_values") {
            entity.insert(key, value);
        }
    }
    let now = ask.world.now_ms() / 1000;
    entity.insert("updated_at".to_owned(), json!(now));
    Some(json!({"id": id, "updated_at": now}))
}
