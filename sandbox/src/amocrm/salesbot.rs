//! A Salesbot whose step calls a handler, parks, and goes on when it is continued. Source: §3.3–§3.6.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::Sha512;

use super::flow::{self, Next};
use super::rest::Ask;
use super::{AccountCell, AccountState, IntegrationSpec};
use crate::{
    clock::Millis,
    courier::Parcel,
    http::{Response, form::FormBody},
    journal::Severity,
    php::Php,
    world::World,
};

/// How long a token lives; undocumented (§11, point 2).
const TOKEN_LIVES_S: i64 = 300;
/// §3.5.
const SHOW_MAX: usize = 80;
const HANDLERS_MAX: usize = 10;

/// A step that is to be run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BotCall {
    /// Integration whose step it is.
    pub client_id: String,
    /// Address of its handler.
    pub url: String,
    /// The lead it runs on; 0 = a contact's bot.
    pub lead: i64,
    /// `data`; places of the lead and its main contact are filled in.
    pub data: Value,
}

/// Where a bot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BotState {
    /// Its call is on the way.
    Calling,
    /// Its call was not taken in time or not with 200 (§3.4).
    NotTaken,
    /// It waits to be continued.
    Parked,
    /// It went on.
    Continued,
}

/// One run of a bot.
#[derive(Clone, Debug, Serialize)]
pub struct BotRun {
    /// The bot.
    pub bot_id: i64,
    /// This step of this run.
    pub continue_id: i64,
    /// The lead.
    pub lead: i64,
    /// State.
    pub state: BotState,
    /// Answer to the call; 0 = none.
    pub call_status: Option<u16>,
    /// What it was continued with.
    pub data: Map<String, Value>,
    /// Calls to its continue address, also those that found nobody.
    pub continues: u32,
    /// When it went on, milliseconds.
    pub continued_ms: Option<Millis>,
    /// The way it left its block by, if it ran the code of one; words if it could not go on.
    pub left: Option<String>,
    /// The code of the block, and step and handler to go on at.
    #[serde(skip)]
    pub(super) block: Option<(Value, (usize, usize))>,
}

impl BotRun {
    /// The exit the sub-flow of §3.6 leaves by; `None` until it went on.
    pub fn exit(&self) -> Option<&'static str> {
        (self.state == BotState::Continued).then(|| if self.value("status") == "success" { "success" } else { "fail" })
    }

    /// `{{json.KEY}}`.
    pub fn value(&self, key: &str) -> String {
        self.data.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

fn segment(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A token signed with HS512 (§3.3).
pub(super) fn token(secret: &str, claims: &Value) -> String {
    let signed = format!("{}.{}", segment(&json!({"typ": "JWT", "alg": "HS512"})), segment(claims));
    let mac = Hmac::<Sha512>::new_from_slice(secret.as_bytes()).map(|mut mac| {
        mac.update(signed.as_bytes());
        mac.finalize().into_bytes()
    });
    let signature = mac.map(|mac| URL_SAFE_NO_PAD.encode(mac)).unwrap_or_default();
    format!("{signed}.{signature}")
}

/// The claims of a step's token. `entity_type` is a number as text (§3.3, observed).
pub(super) fn claims(world: &World, cell: &AccountCell, client_id: &str, call: &BotCall) -> Value {
    let now = world.now_ms() / 1000;
    // Without the port: §2, §3.3.
    let (scheme, rest) = call.url.split_once("://").unwrap_or(("https", call.url.as_str()));
    let host = rest.split(['/', ':']).next().unwrap_or_default();
    let subdomain = cell.state.lock().subdomain.clone();
    let (kind, id) = if call.lead > 0 { ("2", call.lead) } else { ("1", 0) };
    json!({
        "iss": format!("https://{}", cell.host()), "aud": format!("{scheme}://{host}"), "iat": now, "nbf": now,
        "exp": now + TOKEN_LIVES_S, "account_id": cell.id, "subdomain": subdomain, "client_uuid": client_id,
        "bot_type": "salesbot", "entity_type": kind, "entity_id": id,
    })
}

/// The body of a call, as a form or as JSON.
pub(super) fn body(json_bots: bool, token: &str, data: &Value, return_url: &str) -> (Bytes, &'static str) {
    if json_bots {
        let body = json!({"token": token, "data": data, "return_url": return_url});
        return (Bytes::from(crate::http::json::escaped(&body)), "application/json");
    }
    let mut form = FormBody::with_capacity(1024);
    form.put(&["token"], token);
    form.put_value(&mut vec!["data".to_owned()], &Php::from_json(data));
    form.put(&["return_url"], return_url);
    (Bytes::from(form.finish()), "application/x-www-form-urlencoded")
}

/// What places of a bot's texts stand for (§3.2): those of its lead and main contact that a connector meets.
fn places(state: &AccountState, lead: i64, contact: i64) -> Vec<(String, String)> {
    let card = state.leads.get(&lead);
    let person = state.contacts.get(&contact);
    let number = |key: &str| card.and_then(|card| card[key].as_i64()).map(|value| value.to_string());
    let name = person.and_then(|person| person["name"].as_str()).map(str::to_owned);
    let phone = person.map(|person| person.pointer("/custom_fields_values/0/values/0/value").and_then(Value::as_str));
    let known = [
        ("lead.id", Some(lead.to_string())),
        ("contact.id", Some(contact.to_string())),
        ("lead.price", number("price")),
        ("lead.status_id", number("status_id")),
        ("contact.name", name.clone()),
        ("name", name),
        ("contact.phone", phone.map(|phone| phone.unwrap_or_default().to_owned())),
    ];
    // Of a card that is not there the place itself stays.
    let known = known.into_iter().filter_map(|(place, value)| Some((format!("{{{{{place}}}}}"), value?)));
    known.collect()
}

/// Every value as the text it is expanded to (§3.2, §3.3).
fn filled(value: &Value, places: &[(String, String)]) -> Value {
    match value {
        Value::String(text) => {
            let text = places.iter().fold(text.clone(), |text, (place, value)| text.replace(place, value));
            Value::String(text)
        }
        Value::Number(number) => Value::String(number.to_string()),
        Value::Array(items) => Value::Array(items.iter().map(|item| filled(item, places)).collect()),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, item)| (key.clone(), filled(item, places))).collect())
        }
        other => other.clone(),
    }
}

/// Runs a step; gives its `continue_id`.
pub(super) fn run(world: &Arc<World>, cell: &Arc<AccountCell>, integration: &IntegrationSpec, call: &BotCall) -> i64 {
    let (bot_id, continue_id, places) = {
        let mut state = cell.state.lock();
        let (bot_id, continue_id) = (7_712, state.next());
        let lead = state.leads.get(&call.lead);
        let contact = lead.and_then(|lead| lead.pointer("/_embedded/contacts/0/id")).and_then(Value::as_i64);
        state.bots.push(BotRun {
            bot_id,
            continue_id,
            lead: call.lead,
            state: BotState::Calling,
            call_status: None,
            data: Map::new(),
            continues: 0,
            continued_ms: None,
            left: None,
            block: None,
        });
        let places = places(&state, call.lead, contact.unwrap_or(0));
        (bot_id, continue_id, places)
    };
    let signed = token(&integration.client_secret, &claims(world, cell, &integration.client_id, call));
    let return_url = format!("https://{}/api/v4/salesbot/{bot_id}/continue/{continue_id}", cell.host());
    let json_bots = world.amo.options.read().json_bots;
    let (body, kind) = body(json_bots, &signed, &filled(&call.data, &places), &return_url);
    let later = cell.clone();
    let parcel = Parcel {
        target: Arc::from("amo.bot"),
        scope: Arc::from(cell.scope().as_str()),
        phone: String::new(),
        url: Arc::from(call.url.as_str()),
        headers: vec![("content-type", kind.to_owned())],
        body,
        start: None,
        done: Some(Box::new(move |world, receipt| {
            let mut state = later.state.lock();
            if let Some(run) = state.bots.iter_mut().find(|run| run.continue_id == continue_id) {
                run.call_status = Some(receipt.status);
                // §3.4: exactly 200.
                run.state = if receipt.status == 200 { BotState::Parked } else { BotState::NotTaken };
            }
            drop(state);
            world.change("amo.bot", &later.scope(), continue_id.to_string());
        })),
    };
    world.amo.courier.send(world, parcel);
    continue_id
}

/// What is wrong with the body of a continue.
fn wrong(body: &Value) -> Option<(&'static str, String)> {
    let Some(body) = body.as_object() else { return Some(("InvalidType", String::new())) };
    if body.get("data").is_some_and(|data| !data.is_object()) {
        return Some(("InvalidType", "data".to_owned()));
    }
    let handlers = match body.get("execute_handlers") {
        None => return None,
        Some(Value::Array(handlers)) => handlers,
        Some(_) => return Some(("InvalidType", "execute_handlers".to_owned())),
    };
    if handlers.is_empty() || handlers.len() > HANDLERS_MAX {
        return Some((if handlers.is_empty() { "TooFew" } else { "TooMany" }, "execute_handlers".to_owned()));
    }
    handlers.iter().enumerate().find_map(|(at, handler)| {
        let path = |rest: &str| format!("execute_handlers.{at}.{rest}");
        match handler.get("handler").and_then(Value::as_str) {
            Some("show") => {
                let value = handler.pointer("/params/value").and_then(Value::as_str).unwrap_or_default();
                (value.chars().count() > SHOW_MAX).then(|| ("TooLong", path("params.value")))
            }
            Some("goto") => handler.pointer("/params/step").is_none().then(|| ("FieldMissing", path("params.step"))),
            _ => Some(("NotSupportedChoice", path("handler"))),
        }
    })
}

/// §3.5: good for one call; whoever comes later finds nobody.
pub(super) fn go_on(ask: &Ask<'_>, target: &str, kind: &str, bot: &str, id: &str) -> Response {
    let body = match ask.body(target) {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    if let Some((code, path)) = wrong(&body) {
        let error = json!({"request_id": "0", "errors": [{"code": code, "path": path, "detail": "wrong"}]});
        return ask.refuse(target, 400, "Bad Request", json!({"validation-errors": [error]}));
    }
    let data = body.get("data").and_then(Value::as_object).cloned().unwrap_or_default();
    if data.values().any(|value| !value.is_string()) {
        let message = "values should be flat texts (§3.5)";
        ask.world.violation(Severity::Careless, target, &ask.cell.scope(), "flat", message);
    }
    let mut state = ask.cell.state.lock();
    let is_it =
        |run: &&mut BotRun| kind == "salesbot" && run.bot_id.to_string() == bot && run.continue_id.to_string() == id;
    let Some(run) = state.bots.iter_mut().find(is_it) else {
        drop(state);
        return ask.refuse(target, 404, "Not Found", json!({"detail": "no such bot"}));
    };
    run.continues += 1;
    if run.state != BotState::Parked {
        drop(state);
        ask.world.journal.count("amo.continue.nobody");
        return super::problem(404, "Not Found", json!({"detail": "nobody waits"}));
    }
    run.state = BotState::Continued;
    run.data = data;
    run.continued_ms = Some(ask.world.now_ms());
    run.left = run.block.as_ref().map(|(code, at)| match flow::run(code, *at, &run.data) {
        Next::Exit(way) => way,
        Next::Call { .. } => "called once more".to_owned(),
        Next::Stuck(words) => words,
    });
    drop(state);
    ask.world.change("amo.bot", &ask.cell.scope(), id);
    Response::new(202, "application/json", "")
}
