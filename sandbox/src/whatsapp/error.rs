//! Errors as Graph answers them and as webhooks carry them. Source: §3.

use serde::Serialize;

use crate::{
    http::{Response, json},
    journal::Severity,
    world::{VendorError, World},
};

/// One error: code, the HTTP status that goes with it, and texts.
#[derive(Clone, Debug)]
pub(crate) struct GraphError {
    pub(crate) code: u32,
    pub(crate) status: u16,
    pub(crate) details: String,
}

#[derive(Serialize)]
struct Body<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    code: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_data: Option<Data<'a>>,
    fbtrace_id: String,
}

#[derive(Serialize)]
struct Data<'a> {
    messaging_product: &'static str,
    details: &'a str,
}

/// The same error in a webhook: an array element without the outer object.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HookError {
    code: u32,
    title: &'static str,
    message: &'static str,
    error_data: HookData,
    href: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct HookData {
    details: String,
}

impl GraphError {
    pub(crate) fn new(code: u32, details: impl Into<String>) -> Self {
        Self { code, status: known(code).0, details: details.into() }
    }

    /// An error that a fault rule asked for.
    pub(crate) fn named(wanted: &VendorError) -> Self {
        let code = wanted.code.parse().unwrap_or(131_000);
        let (status, title) = known(code);
        Self {
            code,
            status: wanted.status.unwrap_or(status),
            details: wanted.description.clone().unwrap_or_else(|| title.to_owned()),
        }
    }

    pub(crate) fn response(&self, world: &World) -> Response {
        let title = known(self.code).1;
        let error_data = (self.code >= 1000).then_some(Data { messaging_product: "whatsapp", details: &self.details });
        let message = if error_data.is_some() { title } else { self.details.as_str() };
        let body = Body {
            error: Inner {
                message: format!("(#{}) {message}", self.code),
                kind: "OAuthException",
                code: self.code,
                error_data,
                fbtrace_id: format!("A{}", world.ids.letters(21)),
            },
        };
        Response::json(self.status, json::escaped(&body))
    }

    /// Counts a refusal and notes the broken rule, if it is one.
    pub(crate) fn note(&self, world: &World, target: &str, scope: &str) {
        world.journal.count(&format!("graph.error.{}", self.code));
        let severity = match self.code {
            4 | 80_007 | 130_429 | 131_048 | 131_056 => Severity::Limit,
            // What a phone or an account is like cannot be known beforehand.
            130_403 | 131_026 | 131_000 | 131_016 | 131_057 | 190 => return,
            _ => Severity::Refused,
        };
        world.violation(severity, target, scope, &self.code.to_string(), self.details.clone());
    }

    pub(crate) fn hook(&self) -> HookError {
        let title = known(self.code).1;
        HookError {
            code: self.code,
            title,
            message: title,
            error_data: HookData { details: self.details.clone() },
            href: "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/",
        }
    }
}

/// HTTP status and title of a code.
pub(crate) fn known(code: u32) -> (u16, &'static str) {
    match code {
        0 => (401, "AuthException"),
        1 => (400, "API Unknown"),
        2 => (503, "API Service"),
        3 => (403, "API Method"),
        4 => (429, "Application request limit reached"),
        10 => (403, "Permission denied"),
        33 => (400, "Parameter value is not valid"),
        100 => (400, "Invalid parameter"),
        190 => (401, "Access token has expired"),
        200..=299 => (403, "API permission missing"),
        368 => (403, "Temporarily blocked for policy violations"),
        80_007 => (429, "Rate limit issues"),
        130_403 => (400, "Business is blocked by this user"),
        130_429 => (429, "Rate limit hit"),
        130_472 => (400, "User's number is part of an experiment"),
        130_497 => (403, "Business account is restricted from messaging users in this country"),
        131_000 => (500, "Something went wrong"),
        131_005 => (403, "Access denied"),
        131_008 => (400, "Required parameter is missing"),
        131_009 => (400, "Parameter value is not valid"),
        131_016 => (503, "Service unavailable"),
        131_021 => (400, "Recipient cannot be sender"),
        131_026 => (400, "Message undeliverable"),
        131_030 => (400, "Recipient phone number not in allowed list"),
        131_031 => (403, "Account has been locked"),
        131_042 => (400, "Business eligibility payment issue"),
        131_045 => (500, "Incorrect certificate"),
        131_047 => (400, "Re-engagement message"),
        131_048 => (429, "Spam rate limit hit"),
        131_049 => (400, "This message was not delivered to maintain healthy ecosystem engagement."),
        131_050 => (400, "User has stopped marketing messages from your business"),
        131_051 => (400, "Unsupported message type"),
        131_052 => (400, "Media download error"),
        131_053 => (400, "Media upload error"),
        131_056 => (429, "(Business Account, Consumer Account) pair rate limit hit"),
        131_057 => (500, "Business account is in maintenance mode"),
        131_215 => (400, "Groups are not available for this number"),
        132_000 => (400, "Number of parameters does not match the expected number of params"),
        132_001 => (404, "Template name does not exist in the translation"),
        132_005 => (400, "Translated text too long"),
        132_007 => (400, "Template format character policy violated"),
        132_008 => (400, "Template parameter value is not valid"),
        132_012 => (400, "Parameter format does not match format in the created template"),
        132_015 => (400, "Template is paused"),
        132_016 => (400, "Template is disabled"),
        132_018 => (400, "Invalid template parameters"),
        133_010 => (400, "Phone number not registered"),
        137_000 => (400, "Identity key hash mismatch"),
        _ => (400, "Generic user error"),
    }
}
