//! Errors as the Bot API answers them. Source: channels.md §3.1, §3.7.

use serde_json::{Value, json};

use crate::{
    http::Response,
    journal::Severity,
    world::{VendorError, World},
};

/// One error: the HTTP status equals `error_code`.
#[derive(Clone, Debug)]
pub(crate) struct BotError {
    pub(crate) code: u16,
    pub(crate) description: String,
    parameters: Option<Value>,
}

pub(crate) type Outcome = Result<Value, BotError>;

impl BotError {
    fn new(code: u16, description: impl Into<String>) -> Self {
        Self { code, description: description.into(), parameters: None }
    }

    pub(crate) fn bad_request(words: &str) -> Self {
        Self::new(400, format!("Bad Request: {words}"))
    }

    pub(crate) fn forbidden(words: &str) -> Self {
        Self::new(403, format!("Forbidden: {words}"))
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized")
    }

    pub(crate) fn not_found() -> Self {
        Self::new(404, "Not Found")
    }

    pub(crate) fn too_many(seconds: i64) -> Self {
        let seconds = seconds.max(1);
        let parameters = Some(json!({"retry_after": seconds}));
        Self { parameters, ..Self::new(429, format!("Too Many Requests: retry after {seconds}")) }
    }

    pub(crate) fn migrated(to: i64) -> Self {
        let parameters = Some(json!({"migrate_to_chat_id": to}));
        Self { parameters, ..Self::bad_request("group chat was upgraded to a supergroup chat") }
    }

    /// The error a fault rule asked for, by its code and words.
    pub(crate) fn wanted(wanted: &VendorError) -> Self {
        let code: u16 = wanted.code.parse().unwrap_or(400);
        let own = match code {
            400 => Self::bad_request("chat not found"),
            401 => Self::unauthorized(),
            403 => Self::forbidden("bot was blocked by the user"),
            404 => Self::not_found(),
            409 => Self::new(409, "Conflict: terminated by other getUpdates request"),
            413 => Self::new(413, "Request Entity Too Large"),
            429 => {
                let said = wanted.description.as_deref().and_then(|text| text.rsplit(' ').next()?.parse().ok());
                Self::too_many(said.unwrap_or(1))
            }
            502 => Self::new(502, "Bad Gateway"),
            _ => Self::new(code, "Internal Server Error"),
        };
        match &wanted.description {
            Some(description) => Self { description: description.clone(), ..own },
            None => own,
        }
    }

    pub(crate) fn response(&self) -> Response {
        let mut body = json!({"ok": false, "error_code": self.code, "description": self.description});
        if let Some(parameters) = &self.parameters {
            body["parameters"] = parameters.clone();
        }
        Response::value(self.code, &body)
    }

    /// Notes the refusal in the journal. That the person is not there to be written to breaks no rule of the vendor's.
    pub(crate) fn note(&self, world: &World, target: &str, bot: &str) {
        world.journal.count(&format!("telegram.error.{}", self.code));
        let severity = if self.code == 429 { Severity::Limit } else { Severity::Refused };
        world.violation(severity, target, bot, &self.code.to_string(), self.description.clone());
    }
}
