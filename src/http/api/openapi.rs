//! The description of the API (OpenAPI 3.1), made from the handlers' annotations. `docs/openapi.json` is its copy.

use std::sync::LazyLock;

use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{ArrayItems, Schema};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{Modify, OpenApi, ToSchema};

use super::{
    amocrm, channels, chats, dead_letters, lines, lost_calls, messages, open_lines, portals, sms_senders, views,
};

/// Why a request was refused (RFC 9457). `type` ends in one of a closed list of ids.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `http::problem` writes")]
struct Problem {
    /// `urn:mostik:problem:` and the id.
    #[schema(example = "urn:mostik:problem:not_found")]
    r#type: String,
    /// The status in words.
    title: String,
    /// The status again.
    status: u16,
    /// What is wrong and what to mend, for people.
    detail: Option<String>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Mostik",
        description = "Management and messaging API. Errors are problem details (RFC 9457). Unknown fields are refused. Times are RFC 3339 in UTC.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        lines::list, lines::create, lines::get, lines::change,
        channels::create, channels::list, channels::get, channels::pause, channels::resume, channels::cancel,
        portals::list, portals::bind, portals::unbind, amocrm::add, amocrm::authorize,
        open_lines::list, open_lines::create, open_lines::remove,
        chats::list, chats::create, chats::remove,
        sms_senders::list, sms_senders::put, sms_senders::remove,
        lost_calls::list, lost_calls::rule, lost_calls::replay, lost_calls::dismiss,
        messages::list, messages::create, messages::get,
        dead_letters::list, dead_letters::redrive_many, dead_letters::redrive_matching, dead_letters::redrive,
    ),
    components(schemas(
        Problem, lines::LineView, channels::ChannelView, portals::PortalView, views::MessageView,
        dead_letters::DeadLetterView, lost_calls::LostCallView,
    )),
    modifiers(&Common),
    security(("admin_token" = [])),
    tags(
        (name = "lines", description = "What an administrator picks in a robot"),
        (name = "channels", description = "Connected senders"),
        (name = "portals", description = "Installed CRMs"),
        (name = "messages", description = "Sending and history"),
        (name = "dead letters", description = "Work that was given up"),
    )
)]
struct Description;

/// What all operations have in common: the token and the refusals that do not depend on the work.
struct Common;

impl Modify for Common {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = Http::builder().scheme(HttpAuthScheme::Bearer);
        components.security_schemes.insert(
            "admin_token".to_owned(),
            SecurityScheme::Http(bearer.description(Some("`security.admin_token` of the configuration")).build())
                .into(),
        );
        components.schemas.iter_mut().for_each(|(name, schema)| name_items(name, schema));
        for item in document.paths.paths.values_mut() {
            let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
            operations.into_iter().flatten().for_each(add_refusals);
        }
    }
}

/// The items of a page are schemas of their own: `Page_LineView` lists `LineView`.
fn name_items(name: &str, schema: &mut RefOr<Schema>) {
    if let (Some(item), RefOr::T(Schema::Object(page))) = (name.strip_prefix("Page_"), schema)
        && let Some(RefOr::T(Schema::Array(items))) = page.properties.get_mut("items")
    {
        items.items = ArrayItems::RefOrSchema(Box::new(Ref::from_schema_name(item).into()));
    }
}

fn add_refusals(operation: &mut Operation) {
    let mut refusals = vec![
        ("400", "The request cannot be read; `detail` says what to mend"),
        ("401", "No or a wrong bearer token"),
        ("429", "Too many wrong tokens from this address; see `Retry-After`"),
        ("503", "The store is down, nothing was kept; see `Retry-After`"),
    ];
    if operation.request_body.is_some() {
        refusals.push(("413", "The body is longer than 1 MiB"));
        refusals.push(("415", "The body is not declared as JSON"));
    }
    let responses = &mut operation.responses.responses;
    for (status, words) in refusals {
        responses.entry(status.to_owned()).or_insert_with(|| ResponseBuilder::new().description(words).build().into());
    }
    for (_, response) in responses.iter_mut().filter(|(status, _)| status.starts_with(['4', '5'])) {
        if let RefOr::T(response) = response {
            describe_problem(response);
        }
    }
}

fn describe_problem(response: &mut Response) {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    response.content.insert("application/problem+json".to_owned(), body.into());
}

/// The description as JSON, indented and with a line end.
#[must_use]
pub fn openapi() -> String {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        // Nothing in it can fail to become JSON; a test reads it back.
        let text = Description::openapi().to_pretty_json().unwrap_or_default();
        format!("{text}\n")
    });
    TEXT.clone()
}
