//! `/api/v1/*`: management and messaging. JSON in and out, refusals as RFC 9457 problems.
//!
//! `TABLE` is the whole URL table; [`openapi()`] describes it, and a test holds the two together. (Collecting the
//! description while routes are registered, as `utoipa-actix-web` does, wants one service per handler; a path would then
//! answer a wrong method with 404 instead of 405.) Every call needs the
//! administrator's bearer token, unknown paths included, so that nothing can be learnt without it.

mod amocrm;
pub(super) mod body;
mod channels;
mod chats;
mod dead_letters;
mod line_settings;
mod lines;
mod lost_calls;
mod messages;
mod open_lines;
mod openapi;
mod page;
mod portals;
mod sms_senders;
#[cfg(test)]
mod tests;
pub(super) mod views;

use actix_web::http::header::{ALLOW, CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use actix_web::middleware::DefaultHeaders;
use actix_web::web::{PathConfig, PayloadConfig, QueryConfig, ServiceConfig};
use actix_web::{HttpResponse, Resource, ResponseError, web};

use super::admin::Admin;
use super::problem::Problem;
pub use openapi::openapi;

/// Where the API stands.
const PREFIX: &str = "/api/v1";
/// Where its description stands; open to everybody, because it is the same for every installation.
const DESCRIPTION: &str = "/api/openapi.json";

/// One path and its methods.
struct Row {
    /// Below [`PREFIX`].
    path: &'static str,
    /// In lower case.
    methods: &'static [&'static str],
    /// Adds a handler per method.
    add: fn(Resource) -> Resource,
}

/// Declares the URL table: `"/path": method handler, method handler;`.
macro_rules! table {
    ($($path:literal: $($method:ident $handler:path),+;)*) => {
        /// Every path of the API.
        static TABLE: &[Row] = &[$(Row {
            path: $path,
            methods: &[$(stringify!($method)),+],
            add: |resource| resource$(.route(web::$method().to($handler)))+,
        }),*];
    };
}

table! {
    "/lines": get lines::list, post lines::create;
    "/lines/{line}": get lines::get, patch lines::change;
    "/lines/{line}/channels": post channels::create;
    "/channels": get channels::list;
    "/channels/{channel}": get channels::get;
    "/channels/{channel}/pause": post channels::pause;
    "/channels/{channel}/resume": post channels::resume;
    "/channels/{channel}/queue": delete channels::cancel;
    "/portals": get portals::list, post amocrm::add;
    "/amocrm/{app}/authorize": post amocrm::authorize;
    "/portals/{portal}/lines/{line}": put portals::bind, delete portals::unbind;
    "/portals/{portal}/open-lines": get open_lines::list, post open_lines::create;
    "/portals/{portal}/open-lines/{messenger}/{open_line}": delete open_lines::remove;
    "/portals/{portal}/chats": get chats::list, post chats::create;
    "/portals/{portal}/chats/{line}": delete chats::remove;
    "/portals/{portal}/lost-calls": get lost_calls::list;
    "/portals/{portal}/lost-calls/rule": put lost_calls::rule;
    "/portals/{portal}/lost-calls/replay": post lost_calls::replay;
    "/portals/{portal}/lost-calls/dismiss": post lost_calls::dismiss;
    "/portals/{portal}/sms-senders": get sms_senders::list;
    "/portals/{portal}/sms-senders/{messenger}/{line}": put sms_senders::put, delete sms_senders::remove;
    "/messages": get messages::list, post messages::create;
    "/messages/{message}": get messages::get;
    "/dead-letters": get dead_letters::list;
    "/dead-letters/redrive": post dead_letters::redrive_many;
    "/dead-letters/redrive-matching": post dead_letters::redrive_matching;
    "/dead-letters/{letter}/redrive": post dead_letters::redrive;
}

/// Adds the API to an application whose data holds `web::Data<State>`.
pub fn routes(config: &mut ServiceConfig) {
    let mut scope = web::scope(PREFIX)
        .app_data(PayloadConfig::new(body::BODY_MAX))
        .app_data(QueryConfig::default().error_handler(|error, _| Problem::Malformed(format!("query: {error}")).into()))
        .app_data(PathConfig::default().error_handler(|error, _| Problem::Malformed(format!("path: {error}")).into()));
    for row in TABLE {
        let methods = row.methods;
        let refuse = move |_: Admin| async move { method_not_allowed(methods) };
        scope = scope.service((row.add)(web::resource(row.path)).default_service(web::to(refuse)));
    }
    let scope = scope
        .default_service(web::to(not_found))
        .wrap(DefaultHeaders::new().add((CACHE_CONTROL, "no-store")).add((X_CONTENT_TYPE_OPTIONS, "nosniff")));
    let description = web::resource(DESCRIPTION)
        .route(web::get().to(describe))
        .default_service(web::to(|| async { method_not_allowed(&["get"]) }));
    config.service(description).service(scope);
}

async fn describe() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(openapi())
}

async fn not_found(_: Admin) -> HttpResponse {
    Problem::NotFound("the API has no such path".to_owned()).error_response()
}

fn method_not_allowed(methods: &[&str]) -> HttpResponse {
    let mut response = Problem::MethodNotAllowed.error_response();
    if let Ok(methods) = methods.join(", ").to_ascii_uppercase().parse() {
        response.headers_mut().insert(ALLOW, methods);
    }
    response
}
