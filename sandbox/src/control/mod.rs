//! The page of the sandbox, and the control API: everything the typed handles can do, as JSON over HTTP. Routes and
//! examples: `sandbox/README.md`.
//!
//! Answers are JSON; errors are `{"error": "…"}` with 400 (cannot be done), 403 (asked by a foreign page), 404 (no such
//! thing) or 405. Unknown fields in bodies are errors. The API can open any address for whoever calls it, so it listens on
//! loopback, under loopback names, and to pages of loopback only.

mod amocrm;
mod bitrix;
mod lines;
mod observe;
mod page;
mod telegram;
mod whatsapp;

use std::sync::Arc;

use hyper::header::{ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, VARY};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    http::{Handler, Reply, Request, Response},
    world::World,
};

/// The control port.
pub(crate) struct Door(pub(crate) Arc<World>);

impl Handler for Door {
    fn handle(self: Arc<Self>, request: Request) -> Reply {
        Box::pin(async move {
            if is_foreign(&request) {
                let message = "only programs and pages of this machine may ask";
                return Response::value(403, &json!({"error": message}));
            }
            let answer = match route(&self.0, &request).await {
                Ok(answer) => answer,
                Err(Refusal { status, message }) => Response::value(status, &json!({"error": message})),
            };
            let origin = request.header("origin");
            if origin.is_empty() {
                return answer;
            }
            answer
                .with_header(ACCESS_CONTROL_ALLOW_ORIGIN, origin.to_owned())
                .with_header(VARY, "origin".to_owned())
                .with_header(ACCESS_CONTROL_ALLOW_HEADERS, "content-type".to_owned())
                .with_header(ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PATCH, PUT, DELETE".to_owned())
        })
    }
}

/// Whether a page of another site is behind the request, directly or by a name of its own that leads to this machine.
fn is_foreign(request: &Request) -> bool {
    let is_loopback = |host: &str| {
        let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|digit| digit.is_ascii_digit()));
        matches!(name.map_or(host, |(name, _)| name), "127.0.0.1" | "localhost" | "[::1]")
    };
    let (host, origin) = (request.header("host"), request.header("origin"));
    let is_own_page = |origin: &str| origin.split_once("://").is_some_and(|(_, host)| is_loopback(host));
    !is_loopback(host) || !(origin.is_empty() || is_own_page(origin))
}

/// Why a control call was not carried out.
pub(crate) struct Refusal {
    status: u16,
    message: String,
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self { status: 400, message: format!("{error:#}") }
    }
}

impl Refusal {
    fn missing(what: &str) -> Self {
        Self { status: 404, message: format!("no such {what}") }
    }
}

pub(crate) type Outcome = Result<Response, Refusal>;

/// One call with its path split.
pub(crate) struct Ask<'a> {
    pub(crate) world: &'a Arc<World>,
    pub(crate) request: &'a Request,
    pub(crate) method: &'a str,
}

impl Ask<'_> {
    /// The body as a value of this type; an empty body counts as `{}`.
    pub(crate) fn body<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        let text = if self.request.body.is_empty() { b"{}" } else { &self.request.body[..] };
        serde_json::from_slice(text).map_err(|error| Refusal { status: 400, message: format!("body: {error}") })
    }

    pub(crate) fn query<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.request.query_param(name).and_then(|text| text.parse().ok())
    }

    /// The current value with the body's top-level fields laid over it.
    pub(crate) fn patched<T: Serialize + DeserializeOwned>(&self, current: &T) -> Result<T, Refusal> {
        let patch: serde_json::Map<String, Value> = self.body()?;
        let mut merged =
            serde_json::to_value(current).map_err(|error| Refusal { status: 400, message: error.to_string() })?;
        for (key, value) in patch {
            merged[key.as_str()] = value;
        }
        serde_json::from_value(merged).map_err(|error| Refusal { status: 400, message: format!("body: {error}") })
    }
}

pub(crate) fn good<T: Serialize + ?Sized>(value: &T) -> Outcome {
    Ok(Response::value(200, value))
}

pub(crate) fn done() -> Outcome {
    good(&json!({"done": true}))
}

async fn route(world: &Arc<World>, request: &Request) -> Outcome {
    if request.method == hyper::Method::OPTIONS {
        return Ok(Response::text(204, ""));
    }
    let ask = Ask { world, request, method: request.method.as_str() };
    match request.segments().as_slice() {
        [] | ["page", ..] => page::file(request).ok_or_else(|| Refusal::missing("page")),
        ["control", "page"] => page::view(&ask),
        ["control", "portals", rest @ ..] => bitrix::portals(&ask, rest).await,
        ["control", "apps", rest @ ..] => bitrix::apps(&ask, rest),
        ["control", "oauth"] => bitrix::oauth(&ask),
        ["control", "amocrm", rest @ ..] => amocrm::route(&ask, rest).await,
        ["control", "numbers", rest @ ..] => whatsapp::numbers(&ask, rest).await,
        ["control", "phones", rest @ ..] => whatsapp::phones(&ask, rest),
        ["control", "ledger", rest @ ..] => whatsapp::ledger(&ask, rest),
        ["control", "graph"] => whatsapp::graph(&ask),
        ["control", "telegram"] => telegram::server(&ask),
        ["control", "bots", rest @ ..] => telegram::bots(&ask, rest),
        ["control", "people", rest @ ..] => telegram::people(&ask, rest),
        ["control", rest @ ..] => observe::route(&ask, rest).await,
        _ => Err(Refusal::missing("page; the control API is below /control/")),
    }
}

pub(crate) fn not_allowed(ask: &Ask<'_>) -> Outcome {
    Err(Refusal { status: 405, message: format!("{} is not possible here", ask.method) })
}
