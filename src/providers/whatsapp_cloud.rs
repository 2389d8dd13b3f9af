//! WhatsApp Business Platform, Cloud API of Meta, version v24.0.
//!
//! Facts that shape this adapter: there is no idempotency key, so a repeated request is a second message; a 200 means
//! "accepted for processing" and nothing more; most refusals come later by webhook; a status echoes the text we put in
//! `biz_opaque_callback_data`, which settles sends whose answer never came.
//!
//! Sources: Meta, WhatsApp Business Platform documentation ("Cloud API", "Messages", "Error codes", "Webhooks",
//! "Templates", "Throughput", "Rate limits", "Business-scoped user IDs") and the published OpenAPI description of the
//! business messaging API v23.0; read 2026-11.

mod errors;
mod templates;
mod webhook;
mod wire;

#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::domain::address::Addressing;
use crate::domain::capability::{
    Capabilities, CredentialField, Handshake, MediaKind, PeerPace, ProviderSpec, SilenceRule, TextUnit, UnclearRule,
    WebhookAuth,
};
use crate::domain::channel::{Channel, Messenger};
use crate::domain::event::ProviderEvent;
use crate::domain::ids::ProviderMessageId;
use crate::domain::message::OutboundMessage;
use crate::domain::outcome::{Accepted, ErrorCode, Failure, FailureClass, SendError};
use crate::domain::template::TemplateDef;
use crate::domain::time::Millis;
use crate::outbound::{Answer, Call, Outbound};

use super::failures::{Secrets, as_answer, as_file, of_call, of_reading, refusal};
use super::{Entry, MediaFiles, MediaStream, Provider, ProviderSettings, ResolvedSettings, Templates, WebhookError};
use errors::of_answer;

const PHONE_NUMBER_ID: &str = "phone_number_id";
const WABA_ID: &str = "waba_id";
const ACCESS_TOKEN: &str = "access_token";
const APP_SECRET: &str = "app_secret";
const VERIFY_TOKEN: &str = "verify_token";

/// Everything that is fixed about this provider. Texts are counted in Unicode characters.
pub static SPEC: ProviderSpec = ProviderSpec {
    id: "whatsapp_cloud",
    title: "WhatsApp Cloud API",
    messenger: Messenger::Whatsapp,
    addressing: Addressing::Phones,
    capabilities: Capabilities {
        // "Text messages": body 1 to 4096. Longer is refused with 100 or 131009.
        text_max: 4096,
        text_unit: TextUnit::Characters,
        // "Image / Video / Document messages": caption up to 1024. "Audio messages" and "Sticker messages": none.
        caption_max: 1024,
        captions: &[MediaKind::Image, MediaKind::Video, MediaKind::Document],
        // "Media": the vendor fetches a public HTTPS address itself; an address it cannot fetch fails by webhook.
        media_by_link: &[MediaKind::Image, MediaKind::Video, MediaKind::Audio, MediaKind::Document],
        // "Media", supported types: sizes by kind.
        link_max: &[
            (MediaKind::Image, 5 << 20),
            (MediaKind::Video, 16 << 20),
            (MediaKind::Audio, 16 << 20),
            (MediaKind::Document, 100 << 20),
        ],
        // Groups of the Cloud API are not served yet.
        groups: false,
        templates: true,
        // There is no call for either.
        edits: false,
        withdraws: None,
        // "Customer service windows": 24 hours from each message of the person.
        service_window: Some(Millis::hours(24)),
        // "Throughput": 80 messages a second for a number by default (20 for a number shared with the phone app).
        messages_per_second: 80.0,
        // "Rate limits", pair rate: one in 6 s to one person; 45 may be borrowed at once.
        per_peer: Some(PeerPace { interval: Millis::seconds(6), burst: 45, in_groups: None }),
    },
    credentials: &[
        CredentialField { name: PHONE_NUMBER_ID, required: true, secret: false },
        // Without it templates cannot be looked up; texts and files are sent all the same.
        CredentialField { name: WABA_ID, required: false, secret: false },
        CredentialField { name: ACCESS_TOKEN, required: true, secret: true },
        CredentialField { name: APP_SECRET, required: true, secret: true },
        CredentialField { name: VERIFY_TOKEN, required: true, secret: true },
    ],
    webhook_auth: WebhookAuth::HmacSha256 { header: "X-Hub-Signature-256", prefix: "sha256=", credential: APP_SECRET },
    handshake: Some(Handshake::HubChallenge { credential: VERIFY_TOKEN }),
    // A status usually follows within seconds; webhooks are repeated for days, but a person cannot wait for days.
    unclear: UnclearRule { wait: Millis::seconds(60), give_up: Millis::minutes(10) },
    // "Webhooks": what we did not take is sent again "with decreasing frequency" for up to 7 days, and then never.
    silence: Some(SilenceRule {
        accepted: Millis::minutes(15),
        sent: Millis::hours(1),
        horizon: Millis::hours(7 * 24),
    }),
};

/// How to make it.
pub static ENTRY: Entry = Entry {
    spec: &SPEC,
    defaults: ProviderSettings { base_url: "https://graph.facebook.com", api_version: "v24.0" },
    build: |outbound, settings| Arc::new(WhatsappCloud::new(outbound, &settings)),
};

/// Templates asked for in one call, the most the vendor gives.
const PAGE_SIZE: usize = 100;
/// Pages read of one look-up. A name has one entry per language, of which there are fewer than a hundred; an account may
/// have 250 names, and those behind the last page are reached by their name.
const PAGES_MAX: usize = 5;

struct WhatsappCloud {
    outbound: Arc<Outbound>,
    /// Base address with version, without a slash at the end.
    root: String,
}

impl WhatsappCloud {
    fn new(outbound: Arc<Outbound>, settings: &ResolvedSettings) -> Self {
        let base = settings.base_url.trim_end_matches('/');
        let version = settings.api_version.trim_matches('/');
        let root = if version.is_empty() { base.to_owned() } else { format!("{base}/{version}") };
        Self { outbound, root }
    }

    /// The address of an object named by a credential, with the token that opens it.
    ///
    /// Ids are digits; anything else is refused before it becomes part of an address.
    fn object<'c>(&self, channel: &'c Channel, field: &str) -> Result<(String, &'c str), SendError> {
        let unusable = |field: &str| {
            refusal(FailureClass::Misconfigured, Failure::with(ErrorCode::Misconfigured, format!("{field} ?")))
        };
        let id = channel.credential(field).trim();
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
            return Err(unusable(field));
        }
        let token = channel.credential(ACCESS_TOKEN).trim();
        if token.is_empty() {
            return Err(unusable(ACCESS_TOKEN));
        }
        Ok((format!("{}/{id}", self.root), token))
    }

    /// A call that changes nothing over there; the answer is the vendor's JSON.
    async fn read(&self, channel: &Channel, url: String, token: &str) -> Result<Value, SendError> {
        let secrets = Secrets::of(&SPEC, channel);
        let answer = self.outbound.call(Call::get(url).bearer(token)).await;
        let answer = answer.map_err(|e| of_reading(of_call(&e, &secrets)))?;
        match success(&answer) {
            Some(document) => Ok(document),
            None => Err(of_reading(of_answer(&answer, &secrets))),
        }
    }
}

/// The document of a good answer; `None` when the vendor refuses, or it is no JSON object.
fn success(answer: &Answer) -> Option<Value> {
    if !(200..=299).contains(&answer.status) {
        return None;
    }
    let document: Value = serde_json::from_slice(&answer.body).ok()?;
    (document.is_object() && document.get("error").is_none()).then_some(document)
}

/// The query of one page of templates.
fn template_query(name: &str, after: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if !name.is_empty() {
        query.append_pair("name", name);
    }
    query.append_pair("fields", "name,status,category,language,components,parameter_format");
    query.append_pair("limit", &PAGE_SIZE.to_string());
    if !after.is_empty() {
        query.append_pair("after", after);
    }
    query.finish()
}

#[async_trait]
impl Provider for WhatsappCloud {
    fn spec(&self) -> &'static ProviderSpec {
        &SPEC
    }

    async fn send(&self, channel: &Channel, message: &OutboundMessage) -> Result<Accepted, SendError> {
        let secrets = Secrets::of(&SPEC, channel);
        let (object, token) = self.object(channel, PHONE_NUMBER_ID)?;
        let body = wire::body(message).map_err(|failure| refusal(FailureClass::Rejected, failure))?;
        let call = Call::post_json(format!("{object}/messages"), body).bearer(token);
        let answer = self.outbound.call(call).await.map_err(|e| of_call(&e, &secrets))?;
        let id = success(&answer).and_then(|document| {
            let id = document.pointer("/messages/0/id")?.as_str()?.trim();
            (!id.is_empty()).then(|| ProviderMessageId(id.to_owned()))
        });
        match id {
            Some(id) => Ok(Accepted { id }),
            None => Err(of_answer(&answer, &secrets)),
        }
    }

    fn parse(&self, channel: &Channel, body: &[u8]) -> Result<Vec<ProviderEvent>, WebhookError> {
        webhook::read(channel, body)
    }

    async fn probe(&self, channel: &Channel) -> Result<String, SendError> {
        let (object, token) = self.object(channel, PHONE_NUMBER_ID)?;
        let url = format!("{object}?fields=display_phone_number,verified_name,quality_rating,status");
        let number = self.read(channel, url, token).await?;
        let part = |key: &str| number.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
        let (name, phone) = (part("verified_name"), part("display_phone_number"));
        Ok(format!("{name}, {phone}: {}, quality {}", part("status"), part("quality_rating")))
    }

    fn templates(&self) -> Option<&dyn Templates> {
        Some(self)
    }

    fn media(&self) -> Option<&dyn MediaFiles> {
        Some(self)
    }
}

/// Hosts below which the vendor keeps files, when they are not where its API is.
const FILE_HOSTS: [&str; 3] = ["fbsbx.com", "whatsapp.net", "facebook.com"];

impl WhatsappCloud {
    /// True for an address that our token may be sent to: the API's own place, or one of the vendor's.
    fn is_vendors(&self, address: &str) -> bool {
        let (Ok(url), Ok(own)) = (url::Url::parse(address), url::Url::parse(&self.root)) else { return false };
        let host = url.host_str().unwrap_or_default();
        let below = |known: &&str| host.strip_suffix(*known).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        url.origin() == own.origin() || (url.scheme() == "https" && FILE_HOSTS.iter().any(below))
    }
}

#[async_trait]
impl MediaFiles for WhatsappCloud {
    /// An address lives five minutes, so it is asked for each time and not kept.
    async fn open(&self, channel: &Channel, id: &str) -> Result<MediaStream, SendError> {
        let gone = |what: &str| refusal(FailureClass::Rejected, Failure::with(ErrorCode::FileType, what));
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
            return Err(gone("id ?"));
        }
        let (_, token) = self.object(channel, PHONE_NUMBER_ID)?;
        let own = channel.credential(PHONE_NUMBER_ID).trim();
        let told = self.read(channel, format!("{}/{id}?phone_number_id={own}", self.root), token).await?;
        let address = told.get("url").and_then(Value::as_str).unwrap_or_default();
        if !self.is_vendors(address) {
            return Err(gone("url ?"));
        }
        // A number here, digits in a text there.
        let size = told.get("file_size").and_then(|size| size.as_u64().or_else(|| size.as_str()?.parse().ok()));
        let mime = told.get("mime_type").and_then(Value::as_str).unwrap_or_default();
        let secrets = Secrets::of(&SPEC, channel);
        let download = self.outbound.open(Call::get(address).bearer(token)).await;
        let download = download.map_err(|e| of_reading(of_call(&e, &secrets)))?;
        match download.status {
            200 => Ok(as_file(download, mime, size)),
            _ => Err(of_reading(of_answer(&as_answer(download).await, &secrets))),
        }
    }
}

impl WhatsappCloud {
    /// Templates whose name is like `name`, page by page; all of them when it is empty.
    async fn pages(&self, channel: &Channel, name: &str) -> Result<Vec<TemplateDef>, SendError> {
        if channel.credential(WABA_ID).trim().is_empty() {
            let failure = Failure::with(ErrorCode::TemplateNotFound, format!("{name}: {WABA_ID} ?"));
            return Err(refusal(FailureClass::NotPermitted, failure));
        }
        let (object, token) = self.object(channel, WABA_ID)?;
        let mut found = Vec::new();
        let mut after = String::new();
        for _ in 0..PAGES_MAX {
            let url = format!("{object}/message_templates?{}", template_query(name, &after));
            let page = self.read(channel, url, token).await?;
            let entries = page.get("data").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            found.extend(entries.iter().filter_map(templates::read));
            // The last page carries a cursor too, so the cursor alone does not say that there is more.
            let more = page.pointer("/paging/next").is_some() || entries.len() >= PAGE_SIZE;
            let cursor = page.pointer("/paging/cursors/after").and_then(Value::as_str).unwrap_or_default();
            if !more || cursor.is_empty() || cursor == after {
                break;
            }
            cursor.clone_into(&mut after);
        }
        Ok(found)
    }
}

#[async_trait]
impl Templates for WhatsappCloud {
    /// Looks a template up by name, page by page.
    ///
    /// The vendor's own name filter may match more than the name, so it is repeated here. Pages are followed by their
    /// cursor and never by the `next` address, which an answer could point anywhere, and which carries the token.
    ///
    /// A channel without `waba_id` cannot look anything up; that refuses the message and does not pause the channel,
    /// because its texts and files still go.
    async fn find(&self, channel: &Channel, name: &str) -> Result<Vec<TemplateDef>, SendError> {
        let mut found = self.pages(channel, name).await?;
        found.retain(|def| def.id.name == name);
        Ok(found)
    }

    async fn list(&self, channel: &Channel) -> Result<Vec<TemplateDef>, SendError> {
        self.pages(channel, "").await
    }
}
