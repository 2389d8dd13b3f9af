//! The central OAuth server: `/oauth/token/` and `/rest/app.info`. Source: §1.6, §2.2–§2.4.

use std::sync::Arc;

use super::{
    PortalCell,
    tokens::{Grant, Presented, Refreshed, TokenPair},
};
use crate::{
    clock::iso,
    http::{Handler, Reply, Request, Response, form, json},
    journal::Severity,
    php::Php,
    world::{Call, VendorError, World},
};

/// The OAuth server's port.
pub(crate) struct Door(pub(crate) Arc<World>);

impl Handler for Door {
    fn handle(self: Arc<Self>, request: Request) -> Reply {
        Box::pin(async move { route(&self.0, request).await })
    }

    fn cut_request(&self) -> Option<usize> {
        self.0.cut_request("wire.oauth", "")
    }
}

async fn route(world: &Arc<World>, request: Request) -> Response {
    let path = request.path.trim_end_matches('/').to_owned();
    let params = params_of(&request);
    match path.as_str() {
        "/oauth/token" => {
            let refresh = params.get("refresh_token").map(Php::text).unwrap_or_default();
            let scope = world.bitrix.tokens.refresh_grant(&refresh).map(|grant| grant.member_id.to_string());
            let call =
                Call { request: &request, target: "oauth.token", scope: scope.as_deref().unwrap_or(""), phone: "" };
            let process = || token(world, &request, &params).unwrap_or_else(|refusal| refusal.answer(world));
            let expire = || world.bitrix.tokens.kill_one_refresh(&refresh);
            world.admit(call, process, vendor_error, expire).await
        }
        "/rest/app.info" | "/rest/app.info.json" => {
            let token = request
                .bearer()
                .map(str::to_owned)
                .or_else(|| params.get("auth").or_else(|| params.get("access_token")).map(Php::text));
            let token = token.unwrap_or_default();
            let call = Call { request: &request, target: "oauth.app.info", scope: "", phone: "" };
            let process = || app_info(world, &token).unwrap_or_else(|refusal| refusal.answer(world));
            let expire = || world.bitrix.tokens.expire(&token);
            world.admit(call, process, vendor_error, expire).await
        }
        _ => Response::html(404, "<h1>404 Not Found</h1>"),
    }
}

fn params_of(request: &Request) -> Php {
    let mut params = form::parse(&request.query);
    let body = if request.is_json() {
        serde_json::from_slice(&request.body).unwrap_or_default()
    } else {
        form::parse(&request.body_text())
    };
    for (key, value) in body.entries() {
        *params.entry(key.clone()) = value.clone();
    }
    params
}

struct Refusal {
    status: u16,
    error: &'static str,
    description: String,
}

impl Refusal {
    fn new(status: u16, error: &'static str, description: impl Into<String>) -> Self {
        Self { status, error, description: description.into() }
    }

    fn answer(self, world: &World) -> Response {
        let message = format!("{} ({})", self.description, self.status);
        world.violation(Severity::Refused, "oauth.token", "", self.error, message);
        world.journal.count(&format!("oauth.error.{}", self.error));
        error_body(self.status, self.error, &self.description)
    }
}

fn error_body(status: u16, error: &str, description: &str) -> Response {
    let body = Php::map([("error", error.into()), ("error_description", description.into())]);
    Response::json(status, json::escaped(&body))
}

fn vendor_error(wanted: &VendorError) -> Response {
    let status = wanted.status.unwrap_or(match wanted.code.as_str() {
        "wrong_client" => 200,
        "invalid_scope" | "insufficient_scope" => 403,
        "PAYMENT_REQUIRED" | "NOT_INSTALLED" | "NO_AUTH_FOUND" | "ERROR_OAUTH" => 401,
        _ => 400,
    });
    error_body(status, &wanted.code, wanted.description.as_deref().unwrap_or(""))
}

/// Exchanges a code or a refresh token for a new pair.
fn token(world: &Arc<World>, request: &Request, params: &Php) -> Result<Response, Refusal> {
    let text = |name: &str| params.get(name).map(Php::text).unwrap_or_default();
    let need = |name: &str| {
        let value = text(name);
        if value.is_empty() {
            Err(Refusal::new(400, "invalid_request", format!("No \"{name}\" parameter found")))
        } else {
            Ok(value)
        }
    };
    if request.query.contains("client_secret=") {
        let message = "client_secret in the URL ends up in access logs: prefer POST";
        world.violation(Severity::Careless, "oauth.token", "", "secret_in_url", message);
    }
    let grant_type = need("grant_type")?;
    let client_id = need("client_id")?;
    let secret = need("client_secret")?;
    let Some(app) = world.bitrix.app(&client_id) else {
        return Err(Refusal::new(200, "wrong_client", "Wrong client"));
    };
    if app.client_secret != secret {
        return Err(Refusal::new(400, "invalid_client", "The client credentials are invalid"));
    }
    let (now, options) = (world.now_ms(), world.bitrix.oauth.read().clone());
    let tokens = &world.bitrix.tokens;
    match grant_type.as_str() {
        "refresh_token" => {
            let presented = need("refresh_token")?;
            // The installation is looked at first: a refused refresh must not use the token up.
            if let Some(grant) = tokens.refresh_grant(&presented) {
                usable(world, &grant)?;
            }
            match tokens.refresh(&world.ids, &options, now, &client_id, &presented) {
                Refreshed::Good(grant, pair) => {
                    world.journal.count("oauth.refreshed");
                    answer(world, &grant, &pair)
                }
                Refreshed::Refused(why) => Err(Refusal::new(400, "invalid_grant", why)),
            }
        }
        "authorization_code" => match tokens.redeem(&world.ids, &options, now, &client_id, &need("code")?) {
            Refreshed::Good(grant, pair) => {
                usable(world, &grant)?;
                answer(world, &grant, &pair)
            }
            Refreshed::Refused(why) => Err(Refusal::new(400, "invalid_grant", why)),
        },
        other => Err(Refusal::new(400, "invalid_request", format!("Unknown grant_type {other}"))),
    }
}

/// Whether the installation behind a grant still allows tokens.
fn usable(world: &Arc<World>, grant: &Grant) -> Result<Arc<PortalCell>, Refusal> {
    let not_installed = || Refusal::new(401, "NOT_INSTALLED", "Application not installed");
    let portal = world.bitrix.portal(&grant.member_id).ok_or_else(not_installed)?;
    let state = portal.state.lock();
    let install = state.installs.get(&*grant.client_id).filter(|install| install.epoch == grant.epoch);
    let install = install.ok_or_else(not_installed)?;
    if install.payment_expired {
        return Err(Refusal::new(401, "PAYMENT_REQUIRED", "Payment required"));
    }
    drop(state);
    Ok(portal)
}

fn answer(world: &Arc<World>, grant: &Grant, pair: &TokenPair) -> Result<Response, Refusal> {
    let portal = usable(world, grant)?;
    let (scope, status) = {
        let state = portal.state.lock();
        let install = state.installs.get(&*grant.client_id);
        install.map(|install| (install.scope_list(), install.status.clone())).unwrap_or_default()
    };
    let as_text = world.bitrix.oauth.read().numbers_as_text;
    let number = |value: i64| if as_text { Php::Str(value.to_string()) } else { Php::Int(value) };
    let body = Php::map([
        ("access_token", pair.access_token.as_str().into()),
        ("expires", number(pair.expires)),
        ("expires_in", number(pair.expires_in)),
        ("scope", scope.into()),
        // The trap of §2.2: this is the OAuth server's host, not the portal's.
        ("domain", world.bitrix.oauth_host().into()),
        ("server_endpoint", world.bitrix.server_endpoint().into()),
        ("status", status.into()),
        ("client_endpoint", portal.endpoint().into()),
        ("member_id", (&*grant.member_id).into()),
        ("user_id", number(grant.user_id)),
        ("refresh_token", pair.refresh_token.as_str().into()),
    ]);
    Ok(Response::json(200, json::escaped(&body)))
}

/// The trusted answer about who a token belongs to, §1.6.
fn app_info(world: &Arc<World>, token: &str) -> Result<Response, Refusal> {
    let now = world.now_ms();
    let grant = match world.bitrix.tokens.check(token, now) {
        Presented::Good(grant) => grant,
        Presented::Expired => {
            return Err(Refusal::new(401, "expired_token", "The access token provided has expired"));
        }
        Presented::Unknown if token.is_empty() => {
            return Err(Refusal::new(401, "NO_AUTH_FOUND", "Wrong authorization data"));
        }
        Presented::Unknown => {
            return Err(Refusal::new(401, "invalid_token", "Unable to get application by token"));
        }
    };
    let portal = usable(world, &grant)?;
    let state = portal.state.lock();
    let Some(install) = state.installs.get(&*grant.client_id) else {
        return Err(Refusal::new(401, "NOT_INSTALLED", "Application not installed"));
    };
    let scope = install.scope_list();
    let domain = portal.domain();
    let result = Php::map([
        ("client_id", (&*grant.client_id).into()),
        ("scope", scope.as_str().into()),
        ("expires", iso(now + 3_600_000, 0).into()),
        ("user_id", Php::Int(grant.user_id)),
        (
            "install",
            Php::map([
                ("installed", Php::Bool(install.installed)),
                ("version", Php::Int(install.version)),
                ("status", install.status.as_str().into()),
                ("scope", scope.into()),
                ("uri", format!("http://{domain}").into()),
                ("domain", domain.into()),
                ("client_endpoint", portal.endpoint().into()),
                ("member_id", (&*grant.member_id).into()),
                ("member_type", "B24".into()),
            ]),
        ),
    ]);
    let body = Php::map([("result", result), ("time", super::rest::time_block(now, now, 0, None))]);
    Ok(Response::json(200, json::escaped(&body)))
}
