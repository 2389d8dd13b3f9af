//! Tokens: codes and refresh tokens are good for one exchange, access tokens for a day. Source: §1.3–§1.8.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{AccountCell, AccountState, SHARED, problem};
use crate::{
    clock::Millis,
    http::{Request, Response, form},
    journal::Severity,
    php::Php,
    world::{Call, VendorError, World},
};

const CODE_LIVES_MS: Millis = 20 * 60_000;
const REFRESH_LIVES_MS: Millis = 90 * 86_400_000;

/// What a code or access token is good for.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) client_id: String,
    pub(crate) ends_ms: Millis,
    used: bool,
}

/// A refresh token.
#[derive(Clone, Debug)]
pub(crate) struct Refresh {
    client_id: String,
    ends_ms: Millis,
    used: bool,
}

/// Why no token is given.
enum Refusal {
    /// `hint`, §1.5.
    Hint(u16, &'static str),
    /// Wrong keys: no hint.
    Client,
    Malformed(&'static str),
}

impl Refusal {
    fn answer(self, world: &World) -> Response {
        let (status, code, body) = match self {
            Self::Hint(status, hint) => (
                status,
                hint,
                json!({"hint": hint, "title": "Некорректный запрос",
                    "detail": "В запросе отсутствует ряд параметров или параметры невалидны"}),
            ),
            Self::Client => {
                (401, "client", json!({"title": "Некорректный клиент", "detail": "Авторизация клиента не прошла"}))
            }
            Self::Malformed(what) => (400, what, json!({"title": "Некорректный запрос", "detail": what})),
        };
        world.violation(Severity::Refused, "amo.token", "", code, "no token is given");
        let mut answer = problem(status, "", body);
        if let Some(slot) = answer.headers.first_mut() {
            slot.1 = "application/json".to_owned();
        }
        answer
    }
}

fn vendor_error(wanted: &VendorError) -> Response {
    let status = wanted.status.unwrap_or(401);
    problem(status, wanted.description.as_deref().unwrap_or(""), json!({"hint": wanted.code}))
}

pub(super) async fn route(world: &Arc<World>, request: &Request, label: Option<&str>, rest: &[&str]) -> Response {
    match (request.method.as_str(), rest) {
        ("POST", ["oauth2", "access_token"]) if label != Some(SHARED) => {
            let call = Call { request, target: "amo.token", scope: "", phone: "" };
            let process = || {
                if let Some(refused) = world.amo.count(world, None) {
                    return refused;
                }
                token(world, request, label).unwrap_or_else(|refusal| refusal.answer(world))
            };
            world.admit(call, process, vendor_error, || {}).await
        }
        ("GET", ["oauth2", "account", "current", "subdomain"]) => {
            let call = Call { request, target: "amo.subdomain", scope: "", phone: "" };
            world.admit(call, || subdomain(world, request), vendor_error, || {}).await
        }
        _ => problem(404, "Not Found", json!({})),
    }
}

/// §1.6: does not use the token up.
fn subdomain(world: &World, request: &Request) -> Response {
    let (token, now) = (request.header("x-refresh-token"), world.now_ms());
    for cell in world.amo.accounts() {
        let state = cell.state.lock();
        if state.refresh.get(token).is_some_and(|known| !known.used && known.ends_ms > now) {
            let name = state.subdomain.clone();
            drop(state);
            let top = cell.domain.rsplit('.').next().unwrap_or_default();
            let body = json!({"id": cell.id, "subdomain": name, "domain": cell.host(), "top_level_domain": top});
            return Response::value(200, &body);
        }
    }
    problem(401, "Unauthorized", json!({"hint": "Token has been revoked"}))
}

fn token(world: &World, request: &Request, label: Option<&str>) -> Result<Response, Refusal> {
    let body = if request.is_json() {
        serde_json::from_slice::<Value>(&request.body).map_err(|_unread| Refusal::Malformed("body"))?
    } else if request.header("content-type").starts_with("application/x-www-form-urlencoded") {
        form::parse(&request.body_text()).to_json()
    } else {
        return Err(Refusal::Malformed("content type"));
    };
    let text = |key: &'static str| {
        let given = body.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        given.ok_or(Refusal::Malformed(key))
    };
    let (client_id, secret) = (text("client_id")?, text("client_secret")?);
    let integration = world.amo.integration(client_id).filter(|known| known.client_secret == secret);
    let integration = integration.ok_or(Refusal::Client)?;
    if text("redirect_uri")? != integration.redirect_uri {
        return Err(Refusal::Malformed("redirect_uri"));
    }
    let now = world.now_ms();
    let here = |cell: &Arc<AccountCell>| label.is_none_or(|label| cell.state.lock().subdomain == label);
    let cells: Vec<Arc<AccountCell>> = world.amo.accounts().into_iter().filter(here).collect();
    match text("grant_type")? {
        "authorization_code" => {
            let code = text("code")?;
            for cell in cells {
                let mut state = cell.state.lock();
                let Some(grant) = state.codes.get_mut(code).filter(|grant| grant.client_id == client_id) else {
                    continue;
                };
                if grant.used {
                    return Err(Refusal::Hint(400, "Authorization code has been revoked"));
                }
                grant.used = true;
                if grant.ends_ms <= now {
                    return Err(Refusal::Hint(400, "Authorization code has expired"));
                }
                state.installs.insert(client_id.to_owned(), true);
                return Ok(pair(world, &cell, &mut state, client_id));
            }
            Err(Refusal::Hint(400, "Cannot decrypt the authorization code"))
        }
        "refresh_token" => {
            let presented = text("refresh_token")?;
            for cell in cells {
                let mut state = cell.state.lock();
                let installed = state.installs.get(client_id).copied().unwrap_or(false);
                let Some(known) = state.refresh.get_mut(presented).filter(|known| known.client_id == client_id) else {
                    continue;
                };
                if known.used || !installed {
                    return Err(Refusal::Hint(401, "Token has been revoked"));
                }
                known.used = true;
                if known.ends_ms <= now {
                    return Err(Refusal::Hint(400, "Invalid refresh token"));
                }
                world.journal.count("amo.refreshed");
                return Ok(pair(world, &cell, &mut state, client_id));
            }
            Err(Refusal::Hint(401, "Token has been revoked"))
        }
        _ => Err(Refusal::Malformed("grant_type")),
    }
}

fn pair(world: &World, cell: &AccountCell, state: &mut AccountState, client_id: &str) -> Response {
    let lives = world.amo.options.read().access_lives_s;
    let (access, now) = (mint(world, cell, state, client_id, lives), world.now_ms());
    let refresh = format!("def50200{}", world.ids.hex(600));
    let known = Refresh { client_id: client_id.to_owned(), ends_ms: now + REFRESH_LIVES_MS, used: false };
    state.refresh.insert(refresh.clone(), known);
    Response::value(
        200,
        &json!({"token_type": "Bearer", "expires_in": lives, "server_time": now / 1000,
            "access_token": access, "refresh_token": refresh}),
    )
}

/// An access token with the claims of §1.6. Nobody but amoCRM can check its signature, so any bytes will do.
pub(super) fn mint(
    world: &World,
    cell: &AccountCell,
    state: &mut AccountState,
    client_id: &str,
    lives_s: i64,
) -> String {
    let now = world.now_ms();
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({
        "aud": client_id, "jti": world.ids.hex(80), "iat": now / 1000, "nbf": now / 1000, "exp": now / 1000 + lives_s,
        "sub": "2718281", "grant_type": "", "account_id": cell.id, "base_domain": cell.domain, "version": 2,
        "scopes": ["crm", "notifications"], "api_domain": format!("{SHARED}.{}", cell.domain),
    });
    let head = part(&json!({"typ": "JWT", "alg": "RS256"}));
    let token = format!("{head}.{}.{}", part(&claims), world.ids.letters(86));
    let grant = Grant { client_id: client_id.to_owned(), ends_ms: now + lives_s * 1000, used: false };
    state.access.insert(token.clone(), grant);
    token
}

/// A fresh code.
pub(super) fn code(world: &World, cell: &AccountCell, client_id: &str) -> String {
    let code = format!("def50200{}", world.ids.hex(900));
    let ends_ms = world.now_ms() + CODE_LIVES_MS;
    cell.state.lock().codes.insert(code.clone(), Grant { client_id: client_id.to_owned(), ends_ms, used: false });
    code
}

/// Whom a request comes from: account and integration; `None` is a 401.
pub(super) fn who(world: &World, request: &Request, label: Option<&str>) -> Option<(Arc<AccountCell>, String)> {
    let (token, now) = (request.bearer()?, world.now_ms());
    let cells = world.amo.accounts();
    let cell = cells.into_iter().find(|cell| cell.state.lock().access.contains_key(token))?;
    let state = cell.state.lock();
    let grant = state.access.get(token).filter(|grant| grant.ends_ms > now)?;
    let client_id = grant.client_id.clone();
    let welcome =
        state.installs.get(&client_id).copied().unwrap_or(false) && label.is_none_or(|label| state.subdomain == label);
    drop(state);
    welcome.then_some((cell, client_id))
}

impl AccountState {
    /// Every access token ends now.
    pub(super) fn expire_access(&mut self) {
        self.access.clear();
    }

    /// Every refresh token is dead.
    pub(super) fn revoke_refresh(&mut self) {
        self.refresh.values_mut().for_each(|known| known.used = true);
    }
}

/// §4.3 style encoding of a query for the redirects.
pub(super) fn query(pairs: &[(&str, &str)]) -> String {
    let pair = |(key, value): &(&str, &str)| format!("{key}={}", form::encoded(value));
    pairs.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// A value of a query that the service made.
pub(super) fn from_query(text: &str, key: &str) -> Option<String> {
    form::parse(text).get(key).map(Php::text)
}
