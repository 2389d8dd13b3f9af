//! A portal's own port: `/rest/…` with every check of §2.5 and §3, plus the pages of the frame host.

use std::{borrow::Cow, net::IpAddr, sync::Arc, sync::atomic::Ordering};

use super::{
    MethodConfirm, PortalCell, automation, batch, disk, events, frame,
    limits::Operating,
    openlines::files::{Fetched, fetch_all, hand_out},
    table::{self, MethodSpec},
    tokens::Presented,
};
use crate::{
    clock::{Millis, iso},
    faults::{Action, Subject},
    http::{Handler, Reply, Request, Response, form, json},
    journal::Severity,
    php::Php,
    world::{Call, VendorError, World},
};

/// One port of one portal; after a rename the old door only redirects.
pub(crate) struct Door {
    pub(crate) world: Arc<World>,
    pub(crate) portal: Arc<PortalCell>,
    pub(crate) port: u16,
}

impl Handler for Door {
    fn handle(self: Arc<Self>, request: Request) -> Reply {
        Box::pin(async move { self.route(request).await })
    }

    fn cut_request(&self) -> Option<usize> {
        self.world.cut_request("wire.portal", &self.portal.member_id)
    }
}

impl Door {
    async fn route(&self, request: Request) -> Response {
        if self.port != self.portal.port.load(Ordering::Acquire) {
            return self.moved(&request);
        }
        if let Some(file) = disk::download(&self.world, &self.portal, &request) {
            return file;
        }
        if let Some(rest) = request.path.strip_prefix("/rest/") {
            // Doubled slashes are one, as web servers see it: the JavaScript SDK appends `/method` to `…/rest/`.
            let method = rest.trim_matches('/').trim_end_matches(".json").to_ascii_lowercase();
            let target = format!("rest.{method}");
            let params = params_of(&self.world, &self.portal, &target, &request);
            let token = token_of(&request, &params);
            let call = Call { request: &request, target: &target, scope: &self.portal.member_id, phone: "" };
            let files = fetch_all(&self.world, &method, &params).await;
            let process = || self.rest((&method, &target), &request, &params, &token, &files);
            let error = |wanted: &VendorError| RestError::named(wanted).answer();
            let expire = || self.world.bitrix.tokens.expire(&token);
            return self.world.admit(call, process, error, expire).await;
        }
        if self.portal.switches.read().deleted {
            return Response::html(404, "<h1>404 Not Found</h1>");
        }
        if let Some(file) = hand_out(&self.world, &self.portal, &request) {
            return file;
        }
        if request.path.starts_with("/frame") || request.path.starts_with("/oauth/authorize") {
            return frame::route(&self.world, &self.portal, request).await;
        }
        Response::html(404, "<h1>404 Not Found</h1>")
    }

    /// §2.6: HTTP 302 with the same path on the new host.
    fn moved(&self, request: &Request) -> Response {
        let mut location = format!("http://{}{}", self.portal.domain(), request.path);
        if !request.query.is_empty() {
            location.push('?');
            location.push_str(&request.query);
        }
        let answer = Response::redirect(302, location);
        let call = Call { request, target: "rest.moved", scope: &self.portal.member_id, phone: "" };
        self.world.note_call(&call, &answer, String::new());
        answer
    }

    fn rest(
        &self,
        (method, target): (&str, &str),
        request: &Request,
        params: &Php,
        token: &str,
        files: &Fetched,
    ) -> Response {
        let now = self.world.now_ms();
        let switches = self.portal.switches.read().clone();
        if switches.deleted && !switches.deleted_as_json {
            return Response::html(404, "<h1>404 Not Found</h1>");
        }
        if let Some(status) = switches.maintenance {
            return Response::gateway_page(status);
        }
        let outcome = self.gates(&switches, request.source, now).and_then(|()| {
            if request.query.contains("auth=") || request.query.contains("access_token=") {
                let message = "a token in the URL ends up in logs: send it in the body or as Bearer";
                self.world.violation(Severity::Careless, target, &self.portal.member_id, "token_in_url", message);
            }
            authorize(&self.world, &self.portal, token, now)
        });
        let caller = match outcome {
            Ok(caller) => caller,
            Err(error) => return self.refuse(&error, target),
        };
        let mut hit =
            Hit { world: &self.world, portal: &self.portal, caller, now, files, events: Vec::new(), fired: Vec::new() };
        let (result, operating) =
            if method == "batch" { (Ok(batch::run(&mut hit, params)), None) } else { hit.call(method, params, None) };
        hit.finish();
        match result {
            Ok(answer) => answer.render(&self.portal, now, operating),
            Err(error) => self.refuse(&error, target),
        }
    }

    fn gates(&self, switches: &super::Switches, source: IpAddr, now: Millis) -> Result<(), RestError> {
        if switches.deleted {
            return Err(RestError::new(403, "PORTAL_DELETED", "Portal was deleted"));
        }
        if !self.portal.limiter.lock().take(source, now) {
            return Err(RestError::new(503, "QUERY_LIMIT_EXCEEDED", "Too many requests"));
        }
        if switches.overloaded {
            return Err(RestError::new(503, "OVERLOAD_LIMIT", "REST API is blocked due to overload."));
        }
        if switches.connection_error {
            return Err(RestError::new(401, "CONNECTION_ERROR", "Error connecting to authorization server"));
        }
        if !switches.rest_available {
            return Err(RestError::new(401, "ACCESS_DENIED", "REST is available only on commercial plans."));
        }
        Ok(())
    }

    fn refuse(&self, error: &RestError, target: &str) -> Response {
        error.note(&self.world, &self.portal, target);
        error.answer()
    }
}

/// Query and body in one tree; the body wins.
fn params_of(world: &World, portal: &PortalCell, target: &str, request: &Request) -> Php {
    let mut params = form::parse(&request.query);
    if request.body.is_empty() {
        return params;
    }
    let body = if request.is_json() {
        serde_json::from_slice(&request.body).unwrap_or_else(|error| {
            let message = format!("the body is not JSON: {error}");
            world.violation(Severity::Refused, target, &portal.member_id, "bad_json", message);
            Php::empty()
        })
    } else if request.header("content-type").starts_with("application/x-www-form-urlencoded") {
        form::parse(&request.body_text())
    } else {
        let message = "only JSON and urlencoded bodies are simulated";
        world.violation(Severity::Refused, target, &portal.member_id, "content_type", message);
        Php::empty()
    };
    if params.entries().is_empty() {
        return body;
    }
    for (key, value) in body.entries() {
        *params.entry(key.clone()) = value.clone();
    }
    params
}

fn token_of(request: &Request, params: &Php) -> String {
    let from_params = || params.get("auth").or_else(|| params.get("access_token")).map(Php::text);
    request.bearer().map(str::to_owned).or_else(from_params).unwrap_or_default()
}

/// Who calls.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) client_id: Arc<str>,
    pub(crate) user_id: i64,
    pub(crate) is_admin: bool,
    pub(crate) scopes: Arc<[String]>,
    /// Hops left for events caused by this call; `None` = no event token.
    pub(crate) hops: Option<u8>,
}

fn authorize(world: &World, portal: &PortalCell, token: &str, now: Millis) -> Result<Caller, RestError> {
    let grant = match world.bitrix.tokens.check(token, now) {
        Presented::Good(grant) => grant,
        Presented::Expired => {
            return Err(RestError::new(401, "expired_token", "The access token provided has expired"));
        }
        Presented::Unknown => {
            let is_wellformed = token.len() >= 20 && token.bytes().all(|byte| byte.is_ascii_alphanumeric());
            return Err(if is_wellformed {
                RestError::new(401, "invalid_token", "Unable to get application by token")
            } else {
                RestError::new(401, "NO_AUTH_FOUND", "Wrong authorization data")
            });
        }
    };
    if grant.member_id != portal.member_id {
        return Err(RestError::new(401, "invalid_token", "Unable to get application by token"));
    }
    let state = portal.state.lock();
    let install = state.installs.get(&*grant.client_id);
    let Some(install) = install.filter(|install| install.epoch == grant.epoch && install.active) else {
        return Err(RestError::new(401, "APPLICATION_NOT_FOUND", "Application not found"));
    };
    if install.payment_expired {
        return Err(RestError::new(401, "PAYMENT_REQUIRED", "Payment required"));
    }
    let Some(user) = state.users.get(&grant.user_id).filter(|user| !user.fired) else {
        return Err(RestError::new(401, "authorization_error", "Unable to authorize user"));
    };
    if install.access.as_ref().is_some_and(|users| !users.contains(&user.id)) {
        let text = "The user does not have access to the application.";
        return Err(RestError::new(403, "user_access_error", text));
    }
    Ok(Caller {
        client_id: grant.client_id.clone(),
        user_id: user.id,
        is_admin: user.admin,
        scopes: install.scopes.clone(),
        hops: grant.hops,
    })
}

/// One HTTP request to a portal: what its methods need and what they leave to be sent afterwards.
pub(crate) struct Hit<'w> {
    pub(crate) world: &'w Arc<World>,
    pub(crate) portal: &'w Arc<PortalCell>,
    pub(crate) caller: Caller,
    pub(crate) now: Millis,
    /// What the call made the portal fetch.
    pub(crate) files: &'w Fetched,
    pub(crate) events: Vec<events::Raised>,
    pub(crate) fired: Vec<automation::Fired>,
}

impl Hit<'_> {
    /// Calls one method; `inside` is the command text if this is a command of a batch.
    pub(crate) fn call(
        &mut self,
        method: &str,
        params: &Php,
        inside: Option<&str>,
    ) -> (Result<Answer, RestError>, Option<Operating>) {
        let Some(spec) = self.find(method) else {
            return (Err(RestError::new(404, "ERROR_METHOD_NOT_FOUND", "Method not found!")), None);
        };
        if let Err(error) = self.check(spec, inside) {
            return (Err(error), None);
        }
        self.world.journal.count(&format!("method.{method}"));
        let result = (spec.run)(self, params);
        let booked = self.portal.limiter.lock().operate(&self.caller.client_id, spec.name, self.now);
        (result, booked.map(|(_, operating)| operating))
    }

    fn find(&self, method: &str) -> Option<&'static MethodSpec> {
        let spec = table::find(method)?;
        let is_hidden = spec.scope == "bizproc" && !self.portal.switches.read().robots_available;
        (!is_hidden).then_some(spec)
    }

    fn check(&self, spec: &'static MethodSpec, inside: Option<&str>) -> Result<(), RestError> {
        if !spec.scope.is_empty() && !self.caller.scopes.iter().any(|own| table::grants(own, spec.scope)) {
            let text = "The request requires higher privileges than provided by the access token";
            return Err(RestError::new(401, "insufficient_scope", text));
        }
        match self.portal.switches.read().method_confirm.get(spec.name) {
            Some(MethodConfirm::Waiting) => {
                return Err(RestError::new(401, "METHOD_CONFIRM_WAITING", "Waiting for confirmation"));
            }
            Some(MethodConfirm::Denied) => {
                return Err(RestError::new(403, "METHOD_CONFIRM_DENIED", "Method call denied"));
            }
            None => {}
        }
        if !self.portal.limiter.lock().may_operate(&self.caller.client_id, spec.name, self.now) {
            let text = "Method is blocked due to operation time limit.";
            return Err(RestError::new(429, "OPERATION_TIME_LIMIT", text));
        }
        if spec.admin && !self.caller.is_admin {
            return Err(RestError::new(403, "ACCESS_DENIED", "Access denied!"));
        }
        if let Some(command) = inside
            && !self.world.faults.is_empty()
        {
            let target = format!("rest.{}", spec.name);
            let member_id = &self.portal.member_id;
            let subject = Subject { target: &target, portal: member_id, phone: "", body: command.as_bytes() };
            let may = |action: &Action| matches!(action, Action::Error { after: false, .. });
            if let Some(Action::Error { code, status, description, .. }) = self.world.faults.decide(subject, may).action
            {
                return Err(RestError::named(&VendorError { code, status, description }));
            }
        }
        Ok(())
    }

    /// Sends what the methods left: events once each (§4.2.1), then robot callbacks.
    pub(crate) fn finish(self) {
        events::flush(self.world, self.portal, self.events, Some(self.caller.user_id), self.caller.hops);
        automation::launch(self.world, self.portal, self.fired);
    }
}

/// A good answer.
pub(crate) struct Answer {
    pub(crate) result: Php,
    pub(crate) total: Option<i64>,
    pub(crate) next: Option<i64>,
}

impl Answer {
    pub(crate) fn of(result: impl Into<Php>) -> Self {
        Self { result: result.into(), total: None, next: None }
    }

    pub(crate) fn yes() -> Result<Self, RestError> {
        Ok(Self::of(Php::Bool(true)))
    }

    fn render(self, portal: &PortalCell, started: Millis, operating: Option<Operating>) -> Response {
        let offset = portal.switches.read().offset_min;
        let mut body = vec![("result", self.result)];
        body.extend(self.total.map(|total| ("total", Php::Int(total))));
        body.extend(self.next.map(|next| ("next", Php::Int(next))));
        body.push(("time", time_block(started, started, offset, operating)));
        Response::json(200, json::escaped(&Php::map(body)))
    }
}

/// The `time` object of an answer, §3.2.
#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit an f64")]
pub(crate) fn time_block(started: Millis, finished: Millis, offset_min: i64, operating: Option<Operating>) -> Php {
    let seconds = |ms: Millis| Php::Float(ms as f64 / 1000.0);
    let took = Php::Float((finished - started) as f64 / 1000.0 + 0.001);
    let mut block = vec![
        ("start", seconds(started)),
        ("finish", seconds(finished)),
        ("duration", took.clone()),
        ("processing", took),
        ("date_start", iso(started, offset_min).into()),
        ("date_finish", iso(finished, offset_min).into()),
    ];
    if let Some(operating) = operating {
        block.push(("operating_reset_at", Php::Int(operating.reset_at)));
        block.push(("operating", Php::Float(operating.spent_s)));
    }
    Php::map(block)
}

/// A refused call.
#[derive(Clone, Debug)]
pub(crate) struct RestError {
    pub(crate) status: u16,
    pub(crate) code: Cow<'static, str>,
    pub(crate) description: String,
    pub(crate) argument: Option<String>,
}

impl RestError {
    pub(crate) fn new(status: u16, code: &'static str, description: impl Into<String>) -> Self {
        Self { status, code: Cow::Borrowed(code), description: description.into(), argument: None }
    }

    pub(crate) fn bad(code: &'static str, description: impl Into<String>) -> Self {
        Self::new(400, code, description)
    }

    /// `ERROR_ARGUMENT` of §3.3.
    pub(crate) fn argument(name: &str) -> Self {
        let mut error = Self::bad("ERROR_ARGUMENT", format!("Argument '{name}' is null or empty"));
        error.argument = Some(name.to_owned());
        error
    }

    /// Code `100`, as controllers answer to missing or unusable parameters.
    pub(crate) fn missing(name: &str) -> Self {
        Self::bad("100", format!("Could not find value for parameter {{{name}}}"))
    }

    /// An error that a fault rule asked for, with the documented status and text where there is one.
    pub(crate) fn named(wanted: &VendorError) -> Self {
        let (status, text) = match wanted.code.as_str() {
            "QUERY_LIMIT_EXCEEDED" => (503, "Too many requests"),
            "OPERATION_TIME_LIMIT" => (429, "Method is blocked due to operation time limit."),
            "OVERLOAD_LIMIT" => (503, "REST API is blocked due to overload."),
            "INTERNAL_SERVER_ERROR" | "ERROR_UNEXPECTED_ANSWER" => (500, "Internal server error"),
            "expired_token" => (401, "The access token provided has expired"),
            "invalid_token" => (401, "Unable to get application by token"),
            "NO_AUTH_FOUND" => (401, "Wrong authorization data"),
            "APPLICATION_NOT_FOUND" => (401, "Application not found"),
            "CONNECTION_ERROR" => (401, "Error connecting to authorization server"),
            "PAYMENT_REQUIRED" => (401, "Payment required"),
            "authorization_error" => (401, "Unable to authorize user"),
            "ACCESS_DENIED" => (403, "Access denied!"),
            "ERROR_METHOD_NOT_FOUND" => (404, "Method not found!"),
            _ => (400, "Error"),
        };
        Self {
            status: wanted.status.unwrap_or(status),
            code: Cow::Owned(wanted.code.clone()),
            description: wanted.description.clone().unwrap_or_else(|| text.to_owned()),
            argument: None,
        }
    }

    pub(crate) fn body(&self) -> Vec<(&'static str, Php)> {
        let mut body =
            vec![("error", Php::Str(self.code.to_string())), ("error_description", self.description.as_str().into())];
        body.extend(self.argument.as_deref().map(|name| ("argument", Php::from(name))));
        body
    }

    fn answer(&self) -> Response {
        Response::json(self.status, json::escaped(&Php::map(self.body())))
    }

    /// Counts the error and, where the caller broke a rule, notes it.
    pub(crate) fn note(&self, world: &World, portal: &PortalCell, target: &str) {
        world.journal.count(&format!("rest.error.{}", self.code));
        let severity = match &*self.code {
            "QUERY_LIMIT_EXCEEDED" | "OPERATION_TIME_LIMIT" => Severity::Limit,
            // States of the portal, a token or a card that is gone, which a caller cannot know beforehand.
            "NOT_FOUND"
            | "OVERLOAD_LIMIT"
            | "CONNECTION_ERROR"
            | "PORTAL_DELETED"
            | "expired_token"
            | "APPLICATION_NOT_FOUND"
            | "PAYMENT_REQUIRED"
            | "authorization_error"
            | "METHOD_CONFIRM_WAITING"
            | "METHOD_CONFIRM_DENIED" => return,
            _ => Severity::Refused,
        };
        world.violation(severity, target, &portal.member_id, &self.code, self.description.clone());
    }
}
