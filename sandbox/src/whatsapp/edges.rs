//! The Graph server's routes besides sending: versions, numbers, templates, subscriptions, tokens, media.
//! Source: §1, §4, §5.4, §6.1, §10.3.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::{
    error::GraphError,
    media, messages,
    numbers::{self, NumberCell, TokenRow},
    webhooks,
};
use crate::{
    http::{Request, Response, form},
    world::{Call, World},
};

type Outcome = Result<Value, GraphError>;

pub(super) async fn route(world: &Arc<World>, request: Request) -> Response {
    let segments = request.segments();
    if let ["whatsapp_business", "attachments"] = segments.as_slice() {
        return download(world, &request).await;
    }
    let versioned =
        segments.split_first().and_then(|(first, rest)| Some((first.strip_prefix('v')?.strip_suffix(".0")?, rest)));
    let Some((version, rest)) = versioned else {
        return refuse(world, &request, "graph.version", GraphError::new(100, "Pin an API version: /v24.0/…")).await;
    };
    let alive = version.parse().is_ok_and(|version: u32| world.graph.options.read().versions.contains(&version));
    if !alive {
        let error = GraphError::new(100, format!("API version v{version}.0 is unknown or no longer served"));
        return refuse(world, &request, "graph.version", error).await;
    }
    if let Err(error) = proof(world, &request) {
        return refuse(world, &request, "graph.appsecret_proof", error).await;
    }
    let method = request.method.as_str();
    match (method, rest) {
        ("POST", [number, "messages"]) => messages::post(world, number, &request).await,
        ("POST", [number, "media"]) => {
            answer(world, &request, "graph.media", number, || upload(world, number, &request)).await
        }
        ("GET", ["debug_token"]) => {
            answer(world, &request, "graph.debug_token", "", || debug_token(world, &request)).await
        }
        ("GET", ["oauth", "access_token"]) => {
            answer(world, &request, "graph.app_token", "", || app_token(world, &request)).await
        }
        (_, [waba, "subscribed_apps"]) => subscribed_apps(world, waba, &request).await,
        ("GET", [waba, "message_templates"]) => {
            answer(world, &request, "graph.templates", waba, || list_templates(world, waba, &request)).await
        }
        ("GET", [waba, "phone_numbers"]) => {
            answer(world, &request, "graph.phone_numbers", waba, || list_numbers(world, waba, &request)).await
        }
        ("POST", [number]) if world.graph.number(number).is_some() => configure(world, number, &request).await,
        ("GET", [id]) if world.graph.number(id).is_some() => {
            answer(world, &request, "graph.phone", id, || show_number(world, id, &request)).await
        }
        ("GET" | "DELETE", [id]) if id.bytes().all(|byte| byte.is_ascii_digit()) => {
            answer(world, &request, "graph.media", "", || one_file(world, id, &request)).await
        }
        _ => {
            let details = format!("Unsupported {method} request: /{} is unknown or not simulated", rest.join("/"));
            refuse(world, &request, "graph.unknown", GraphError::new(100, details)).await
        }
    }
}

async fn answer(
    world: &Arc<World>,
    request: &Request,
    target: &str,
    scope: &str,
    work: impl FnOnce() -> Outcome,
) -> Response {
    let call = Call { request, target, scope, phone: "" };
    let process = || match work() {
        Ok(value) => Response::value(200, &value),
        Err(error) => {
            error.note(world, target, scope);
            error.response(world)
        }
    };
    let expire = || {
        if let Some(token) = request.bearer()
            && let Some(row) = world.graph.tokens.write().get_mut(token)
        {
            row.valid = false;
        }
    };
    world.admit(call, process, |wanted| GraphError::named(wanted).response(world), expire).await
}

async fn refuse(world: &Arc<World>, request: &Request, target: &str, error: GraphError) -> Response {
    answer(world, request, target, "", || Err(error)).await
}

/// `appsecret_proof` is optional, but if it comes it must be right (§1.1).
fn proof(world: &World, request: &Request) -> Result<(), GraphError> {
    let Some(given) = request.query_param("appsecret_proof") else { return Ok(()) };
    let token = request.bearer().unwrap_or("");
    let tokens = world.graph.tokens.read();
    let number = tokens.get(token).and_then(|row| row.numbers.iter().next()).and_then(|id| world.graph.number(id));
    let right = number.map(|number| webhooks::signature(&number.spec.app_secret, token.as_bytes()));
    if right.is_none_or(|right| right == given) {
        Ok(())
    } else {
        Err(GraphError::new(100, "Invalid appsecret_proof provided in the API argument"))
    }
}

fn bearer(world: &World, request: &Request) -> Result<TokenRow, GraphError> {
    let from_query = request.query_param("access_token");
    numbers::check_token(world, request.bearer().or(from_query.as_deref()))
}

fn may_manage(row: &TokenRow, waba: &str) -> Result<(), GraphError> {
    if row.wabas.contains(waba) {
        return Ok(());
    }
    Err(GraphError::new(
        100,
        format!("Unsupported request. Object with ID '{waba}' does not exist or permissions are missing"),
    ))
}

/// Keeps the asked fields; `id` always.
fn picked(request: &Request, all: Map<String, Value>, default: &[&str]) -> Value {
    let fields = request.query_param("fields").unwrap_or_default();
    let asked: Vec<String> =
        fields.split(',').map(|field| field.split('{').next().unwrap_or("").trim().to_owned()).collect();
    let keep = |key: &str| {
        key == "id" || if fields.is_empty() { default.contains(&key) } else { asked.iter().any(|field| field == key) }
    };
    Value::Object(all.into_iter().filter(|(key, _)| keep(key)).collect())
}

fn number_fields(world: &World, cell: &NumberCell) -> Map<String, Value> {
    let state = cell.state.read().clone();
    let can_send = if state.registered { "AVAILABLE" } else { "BLOCKED" };
    let account = world.graph.accounts.read().get(&cell.spec.waba_id).and_then(|account| account.callback_url.clone());
    let level = if state.throughput > 80 { "HIGH" } else { "STANDARD" };
    let fields = json!({
        "id": &*cell.id,
        "display_phone_number": cell.spec.display_phone_number,
        "verified_name": cell.spec.verified_name,
        "status": if state.registered { "CONNECTED" } else { "PENDING" },
        "quality_rating": state.quality,
        "name_status": "APPROVED",
        "code_verification_status": "VERIFIED",
        "platform_type": "CLOUD_API",
        "throughput": {"level": level},
        "account_mode": if cell.spec.allow_list.is_some() { "SANDBOX" } else { "LIVE" },
        "whatsapp_business_manager_messaging_limit": "TIER_10K",
        "is_official_business_account": false,
        "is_on_biz_app": false,
        "is_pin_enabled": true,
        "health_status": {"can_send_message": can_send, "entities": [
            {"entity_type": "PHONE_NUMBER", "id": &*cell.id, "can_send_message": can_send},
            {"entity_type": "WABA", "id": cell.spec.waba_id, "can_send_message": "AVAILABLE"},
        ]},
        "webhook_configuration": {
            "phone_number": state.callback_url.as_deref(),
            "whatsapp_business_account": account,
        },
    });
    match fields {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

const NUMBER_DEFAULT: &[&str] =
    &["display_phone_number", "verified_name", "quality_rating", "code_verification_status"];

fn show_number(world: &World, id: &str, request: &Request) -> Outcome {
    let token = bearer(world, request)?;
    let cell = numbers::check_number(world, &token, id)?;
    Ok(picked(request, number_fields(world, &cell), NUMBER_DEFAULT))
}

fn list_numbers(world: &World, waba: &str, request: &Request) -> Outcome {
    may_manage(&bearer(world, request)?, waba)?;
    let ids = world.graph.accounts.read().get(waba).map(|account| account.numbers.clone()).unwrap_or_default();
    let cells = ids.iter().filter_map(|id| world.graph.number(id));
    let data: Vec<Value> = cells.map(|cell| picked(request, number_fields(world, &cell), NUMBER_DEFAULT)).collect();
    Ok(json!({"data": data, "paging": {"cursors": {"before": cursor(0), "after": cursor(data.len())}}}))
}

fn cursor(at: usize) -> String {
    URL_SAFE_NO_PAD.encode(format!("at:{at}"))
}

fn at_cursor(text: &str) -> Option<usize> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    String::from_utf8(bytes).ok()?.strip_prefix("at:")?.parse().ok()
}

fn list_templates(world: &World, waba: &str, request: &Request) -> Outcome {
    may_manage(&bearer(world, request)?, waba)?;
    let wanted = |key: &str| request.query_param(key).filter(|value| !value.is_empty());
    let (name, status, language, category) = (wanted("name"), wanted("status"), wanted("language"), wanted("category"));
    let limit = wanted("limit").and_then(|limit| limit.parse().ok()).unwrap_or(25_usize).clamp(1, 1000);
    let start = match wanted("after") {
        Some(after) => at_cursor(&after).ok_or_else(|| GraphError::new(100, "Invalid cursor in after"))?,
        None => 0,
    };
    let same =
        |wanted: &Option<String>, own: &str| wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(own));
    let list = world.graph.templates.read().list(waba);
    let found: Vec<_> = list
        .iter()
        .filter(|own| same(&name, &own.spec.name) && same(&status, &own.spec.status))
        .filter(|own| same(&language, &own.spec.language) && same(&category, &own.spec.category))
        .collect();
    let data: Vec<Value> = found
        .iter()
        .skip(start)
        .take(limit)
        .map(|own| {
            let mut all = Map::new();
            all.insert("id".into(), json!(own.id));
            all.insert("name".into(), json!(own.spec.name));
            all.insert("status".into(), json!(own.spec.status));
            all.insert("category".into(), json!(own.spec.category));
            all.insert("language".into(), json!(own.spec.language));
            all.insert("components".into(), own.spec.components.clone());
            all.insert("parameter_format".into(), json!(own.spec.parameter_format.to_uppercase()));
            all.insert("quality_score".into(), json!({"score": "GREEN", "date": world.clock.now_secs()}));
            all.insert("rejected_reason".into(), json!(own.spec.rejected_reason.as_deref().unwrap_or("NONE")));
            picked(request, all, &["name", "status", "category", "language", "components", "parameter_format"])
        })
        .collect();
    let end = start + data.len();
    let mut paging = json!({"cursors": {"before": cursor(start), "after": cursor(end)}});
    if end < found.len() {
        let base = world.graph.base_url();
        paging["next"] = json!(format!("{base}{}?limit={limit}&after={}", request.path, cursor(end)));
    }
    Ok(json!({"data": data, "paging": paging}))
}

/// The app token is `{app}|{secret}`; any live token of the app may ask as well.
fn debug_token(world: &World, request: &Request) -> Outcome {
    let asker = request.query_param("access_token").or_else(|| request.bearer().map(str::to_owned)).unwrap_or_default();
    let is_app = asker.split_once('|').is_some_and(|(app, secret)| {
        world.graph.numbers.read().values().any(|cell| cell.spec.app_id == app && cell.spec.app_secret == secret)
    });
    if !is_app {
        numbers::check_token(world, Some(&asker))?;
    }
    let input = request
        .query_param("input_token")
        .ok_or_else(|| GraphError::new(100, "The parameter input_token is required."))?;
    let tokens = world.graph.tokens.read();
    let Some(row) = tokens.get(&input) else {
        return Ok(
            json!({"data": {"is_valid": false, "scopes": [], "error": {"code": 190, "message": "Invalid OAuth access token"}}}),
        );
    };
    let mut scopes = vec!["whatsapp_business_management"];
    if row.may_send {
        scopes.push("whatsapp_business_messaging");
    }
    let wabas: Vec<&String> = row.wabas.iter().collect();
    let granular: Vec<Value> = scopes.iter().map(|scope| json!({"scope": scope, "target_ids": wabas})).collect();
    let is_valid = row.valid && (row.expires_at == 0 || row.expires_at > world.clock.now_secs());
    Ok(json!({"data": {
        "app_id": row.app_id, "type": "SYSTEM_USER", "application": "Sandbox", "is_valid": is_valid,
        "expires_at": row.expires_at, "scopes": scopes, "granular_scopes": granular,
    }}))
}

fn app_token(world: &World, request: &Request) -> Outcome {
    let query = |name: &str| request.query_param(name).unwrap_or_default();
    let (app, secret) = (query("client_id"), query("client_secret"));
    let is_known =
        world.graph.numbers.read().values().any(|cell| cell.spec.app_id == app && cell.spec.app_secret == secret);
    if query("grant_type") != "client_credentials" || !is_known {
        return Err(GraphError::new(100, "Error validating client secret or grant_type"));
    }
    Ok(json!({"access_token": format!("{app}|{secret}"), "token_type": "bearer"}))
}

fn body_of(request: &Request) -> Value {
    if request.is_json() {
        return serde_json::from_slice(&request.body).unwrap_or_default();
    }
    form::parse(&request.body_text()).to_json()
}

async fn subscribed_apps(world: &Arc<World>, waba: &str, request: &Request) -> Response {
    let checked = bearer(world, request).and_then(|row| may_manage(&row, waba).map(|()| row));
    let mut override_url = None;
    let mut outcome = checked.map(|row| row.app_id);
    if request.method == hyper::Method::POST && outcome.is_ok() {
        let body = body_of(request);
        if let Some(url) = body["override_callback_uri"].as_str().filter(|url| !url.is_empty()) {
            let token = body["verify_token"].as_str().unwrap_or("");
            match webhooks::verify(world, url, token).await {
                Ok(()) => override_url = Some(url.to_owned()),
                Err(error) => outcome = Err(GraphError::new(100, format!("Callback verification failed: {error:#}"))),
            }
        }
    }
    let work = || {
        let app = outcome?;
        let mut accounts = world.graph.accounts.write();
        let account = accounts.entry(waba.to_owned()).or_default();
        match request.method.as_str() {
            "POST" => {
                account.subscribed = true;
                account.callback_url = override_url.or(account.callback_url.take());
                Ok(json!({"success": true}))
            }
            "DELETE" => {
                account.subscribed = false;
                account.callback_url = None;
                Ok(json!({"success": true}))
            }
            _ if account.subscribed => {
                let data = json!({"id": app, "name": "Sandbox", "link": "https://example.org/"});
                Ok(
                    json!({"data": [{"whatsapp_business_api_data": data, "override_callback_uri": account.callback_url}]}),
                )
            }
            _ => Ok(json!({"data": []})),
        }
    };
    answer(world, request, "graph.subscribed_apps", waba, work).await
}

/// `POST /{pn}` with `webhook_configuration`; an empty address clears.
async fn configure(world: &Arc<World>, id: &str, request: &Request) -> Response {
    let checked = bearer(world, request).and_then(|token| numbers::check_number(world, &token, id));
    let body = body_of(request);
    let wanted = &body["webhook_configuration"];
    let url = wanted["override_callback_uri"].as_str().map(str::to_owned);
    let token = wanted["verify_token"].as_str().unwrap_or("").to_owned();
    let verified = match (&checked, &url) {
        (Ok(_), Some(url)) if !url.is_empty() => webhooks::verify(world, url, &token).await,
        _ => Ok(()),
    };
    let work = || {
        let cell = checked?;
        let url = url.ok_or_else(|| GraphError::new(100, "Only webhook_configuration is simulated here"))?;
        verified.map_err(|error| GraphError::new(100, format!("Callback verification failed: {error:#}")))?;
        let mut state = cell.state.write();
        state.callback_url = (!url.is_empty()).then(|| Arc::from(url.as_str()));
        state.verify_token = token;
        Ok(json!({"success": true}))
    };
    answer(world, request, "graph.phone", id, work).await
}

fn upload(world: &World, number: &str, request: &Request) -> Outcome {
    let token = bearer(world, request)?;
    let cell = numbers::check_number(world, &token, number)?;
    let parts = media::parts(request.header("content-type"), &request.body);
    let parts = parts.ok_or_else(|| GraphError::new(100, "The request must be multipart/form-data"))?;
    let part = |name: &str| parts.iter().find(|part| part.name == name);
    let text = |name: &str| part(name).map(|part| String::from_utf8_lossy(part.content).into_owned());
    if text("messaging_product").as_deref() != Some("whatsapp") {
        return Err(GraphError::new(100, "(#100) The parameter messaging_product is required."));
    }
    let file = part("file").ok_or_else(|| GraphError::new(131_008, "The parameter file is required."))?;
    let mime = text("type").filter(|mime| !mime.is_empty()).unwrap_or_else(|| file.mime.clone());
    let mime = if mime.is_empty() { file.mime.clone() } else { mime };
    media::check(media::kind_of(&mime), &mime, file.content.len())
        .map_err(|details| GraphError::new(131_053, details))?;
    let id = world.ids.digits(16);
    let (bytes, now) = (file.content.to_vec(), world.now_ms());
    world.graph.media.lock().put(&id, &cell.id, &mime, bytes, now, media::Origin::Uploaded);
    Ok(json!({"id": id}))
}

fn one_file(world: &World, id: &str, request: &Request) -> Outcome {
    let token = bearer(world, request)?;
    let missing = || GraphError::new(100, format!("Unsupported get request. Object with ID '{id}' does not exist"));
    let mut store = world.graph.media.lock();
    let now = world.now_ms();
    let owner = store.owner(id, now).filter(|owner| token.numbers.contains(owner)).ok_or_else(missing)?;
    if request.query_param("phone_number_id").is_some_and(|number| number != owner) {
        return Err(missing());
    }
    if request.method == hyper::Method::DELETE {
        store.remove(id);
        return Ok(json!({"success": true}));
    }
    let url = store.address(&world.graph.base_url(), id, &world.ids, now);
    let file = store.get(id, now).ok_or_else(missing)?;
    Ok(json!({
        "messaging_product": "whatsapp", "url": url, "mime_type": file.mime, "sha256": file.sha256_hex(),
        "file_size": file.bytes.len(), "id": id,
    }))
}

/// The media host: bearer needed, five minutes, 404 afterwards.
async fn download(world: &Arc<World>, request: &Request) -> Response {
    let call = Call { request, target: "graph.media.download", scope: "", phone: "" };
    let process = || {
        let Ok(token) = numbers::check_token(world, request.bearer()) else { return Response::html(401, "") };
        let key = request.query_param("hash").unwrap_or_default();
        let store = world.graph.media.lock();
        match store.by_address(&key, world.now_ms()) {
            Some(file) if token.numbers.contains(&file.number) => Response::new(200, &file.mime, file.bytes.clone()),
            _ => Response::html(404, ""),
        }
    };
    world.admit(call, process, |wanted| GraphError::named(wanted).response(world), || {}).await
}
