//! Telegram Bot API 10.1.
//!
//! Facts that shape this adapter: a bot writes only to people who have started it, and never by phone; `ok: true` is the
//! last that is heard of a message, because there are neither statuses nor receipts; there is no idempotency key and no
//! echo; the address of our webhook is set by a call and can be taken away by whoever else has the token; the token is part
//! of every address, so no address may ever be shown.
//!
//! Sources: Telegram, "Bot API" 10.1 ("Making requests", "Getting updates", `setWebhook`, `sendMessage` and the other
//! sending methods, "Sending files", `ResponseParameters`), the published server's own sources (webhook repetition, error
//! texts) and "Bots FAQ" (limits); read 2026-11.

mod errors;
mod webhook;
mod wire;

#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::domain::address::Addressing;
use crate::domain::capability::{
    Capabilities, CredentialField, MediaKind, PeerPace, ProviderSpec, TextUnit, UnclearRule, WebhookAuth,
};
use crate::domain::channel::{Channel, Messenger};
use crate::domain::event::ProviderEvent;
use crate::domain::ids::ProviderMessageId;
use crate::domain::message::{OutboundContent, OutboundMessage};
use crate::domain::outcome::{Accepted, ErrorCode, Failure, FailureClass, SendError};
use crate::domain::time::Millis;
use crate::outbound::{Answer, Call, Outbound};
use crate::webhook_auth;

use super::failures::{Secrets, as_answer, as_file, of_call, of_reading, refusal};
use super::{
    Entry, Kept, MediaFiles, MediaStream, Provider, ProviderSettings, ResolvedSettings, WebhookError, Webhooks,
};
use errors::of_answer;

const TOKEN: &str = "token";
/// What stands before a chat's number where we keep it.
const PEERS: Addressing = Addressing::Chats { prefix: "tg." };
/// What we read of a person; anything else would be sent for nothing.
const UPDATES: [&str; 2] = ["message", "edited_message"];

/// Everything that is fixed about this provider.
pub static SPEC: ProviderSpec = ProviderSpec {
    id: "telegram_bot",
    title: "Telegram Bot API",
    messenger: Messenger::Telegram,
    addressing: PEERS,
    capabilities: Capabilities {
        // `sendMessage`: 1-4096 characters; offsets are UTF-16 units, and so is the server's count.
        text_max: 4096,
        text_unit: TextUnit::Utf16,
        // `sendPhoto` and the others: caption 0-1024.
        caption_max: 1024,
        captions: &[MediaKind::Image, MediaKind::Video, MediaKind::Audio, MediaKind::Document],
        // "Sending files": the vendor fetches an address itself, photos up to 5 MB and others up to 20 MB.
        media_by_link: &[MediaKind::Image, MediaKind::Video, MediaKind::Audio, MediaKind::Document],
        link_max: &[
            (MediaKind::Image, 5 << 20),
            (MediaKind::Video, 20 << 20),
            (MediaKind::Audio, 20 << 20),
            (MediaKind::Document, 20 << 20),
        ],
        groups: true,
        templates: false,
        // `editMessageText` names no limit for a bot's own messages; `deleteMessage`: "if it was sent less than 48 hours ago".
        edits: true,
        withdraws: Some(Millis::hours(48)),
        // A chat stays open until the person blocks the bot.
        service_window: None,
        // "Bots FAQ": about 30 messages a second over all chats.
        messages_per_second: 30.0,
        // "Bots FAQ": one message a second to one chat; "short bursts" pass, and no number is named. To a
        // group 20 in any minute.
        per_peer: Some(PeerPace { interval: Millis::seconds(1), burst: 3, in_groups: Some((Millis::seconds(4), 5)) }),
    },
    credentials: &[CredentialField { name: TOKEN, required: true, secret: true }],
    webhook_auth: WebhookAuth::HeaderSecret { header: "X-Telegram-Bot-Api-Secret-Token", credential: TOKEN },
    handshake: None,
    // Nothing comes back that could tell: a person looks into the chat.
    unclear: UnclearRule { wait: Millis(0), give_up: Millis(0) },
    silence: None,
};

/// How to make it.
pub static ENTRY: Entry = Entry {
    spec: &SPEC,
    defaults: ProviderSettings { base_url: "https://api.telegram.org", api_version: "" },
    build: |outbound, settings| Arc::new(TelegramBot::new(outbound, &settings)),
};

struct TelegramBot {
    outbound: Arc<Outbound>,
    /// Base address without a slash at the end.
    base: String,
}

impl TelegramBot {
    fn new(outbound: Arc<Outbound>, settings: &ResolvedSettings) -> Self {
        Self { outbound, base: settings.base_url.trim_end_matches('/').to_owned() }
    }

    /// The address of a method. What does not look like a token is refused before it becomes part of an address.
    fn method(&self, channel: &Channel, method: &str) -> Result<String, SendError> {
        let token = channel.credential(TOKEN).trim();
        if is_token(token) {
            return Ok(format!("{}/bot{token}/{method}", self.base));
        }
        let failure = Failure::with(ErrorCode::Misconfigured, format!("{TOKEN} ?"));
        Err(refusal(FailureClass::Misconfigured, failure))
    }

    /// A call that may be repeated: it reads, or sets what is set already. Gives the vendor's `result`.
    async fn repeatable(&self, channel: &Channel, call: Call) -> Result<Value, SendError> {
        let secrets = Secrets::of(&SPEC, channel);
        let answer = self.outbound.call(call).await.map_err(|e| of_reading(of_call(&e, &secrets)))?;
        success(&answer).ok_or_else(|| of_reading(of_answer(&answer, &secrets)))
    }

    /// Changes a message or deletes it. Done before is done: both may be repeated.
    async fn change(&self, call: Call, secrets: &Secrets<'_>, of: &ProviderMessageId) -> Result<Accepted, SendError> {
        let answer = self.outbound.call(call).await.map_err(|e| of_reading(of_call(&e, secrets)))?;
        if success(&answer).is_some() || errors::is_done_before(&answer) {
            return Ok(Accepted { id: of.clone() });
        }
        Err(of_reading(of_answer(&answer, secrets)))
    }

    async fn read(&self, channel: &Channel, method: &str) -> Result<Value, SendError> {
        self.repeatable(channel, Call::get(self.method(channel, method)?)).await
    }
}

/// `744556677:AAH…`, by the documented pattern.
fn is_token(text: &str) -> bool {
    let Some((id, secret)) = text.split_once(':') else { return false };
    let word = secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    (6..=12).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit()) && secret.len() >= 30 && word
}

/// The `result` of a good answer; `None` when the vendor refuses, or it is not the vendor's.
fn success(answer: &Answer) -> Option<Value> {
    if !(200..=299).contains(&answer.status) {
        return None;
    }
    let mut document: Value = serde_json::from_slice(&answer.body).ok()?;
    let is_ok = document.get("ok").and_then(Value::as_bool) == Some(true);
    is_ok.then(|| document.get_mut("result").map(Value::take)).flatten()
}

/// The id of a message: numbers count within a chat, so the chat is part of it.
fn message_id(message: &Value) -> Option<ProviderMessageId> {
    let chat = message.pointer("/chat/id")?.as_i64()?;
    let number = message.get("message_id")?.as_i64()?;
    Some(ProviderMessageId(format!("{chat}:{number}")))
}

#[async_trait]
impl Provider for TelegramBot {
    fn spec(&self) -> &'static ProviderSpec {
        &SPEC
    }

    async fn send(&self, channel: &Channel, message: &OutboundMessage) -> Result<Accepted, SendError> {
        let secrets = Secrets::of(&SPEC, channel);
        let (method, body) = wire::body(message).map_err(|failure| refusal(FailureClass::Rejected, failure))?;
        let call = Call::post_json(self.method(channel, method)?, body);
        if let OutboundContent::Edit { of, .. } | OutboundContent::Withdraw { of } = &message.content {
            return self.change(call, &secrets, of).await;
        }
        let answer = self.outbound.call(call).await.map_err(|e| of_call(&e, &secrets))?;
        match success(&answer).as_ref().and_then(message_id) {
            Some(id) => Ok(Accepted { id }),
            None => Err(of_answer(&answer, &secrets)),
        }
    }

    fn parse(&self, _channel: &Channel, body: &[u8]) -> Result<Vec<ProviderEvent>, WebhookError> {
        webhook::read(body)
    }

    async fn probe(&self, channel: &Channel) -> Result<String, SendError> {
        let me = self.read(channel, "getMe").await?;
        let part = |key: &str| me.get(key).and_then(Value::as_str).unwrap_or("?");
        // The link is what people must be given: nobody can be written to who has not opened it.
        Ok(format!("{}: https://t.me/{}", part("first_name"), part("username")))
    }

    fn webhooks(&self) -> Option<&dyn Webhooks> {
        Some(self)
    }

    fn media(&self) -> Option<&dyn MediaFiles> {
        Some(self)
    }
}

#[async_trait]
impl MediaFiles for TelegramBot {
    /// The address of a file contains the token, so it never leaves this call.
    async fn open(&self, channel: &Channel, id: &str) -> Result<MediaStream, SendError> {
        let query: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
        let told = self.read(channel, &format!("getFile?file_id={query}")).await?;
        let path = told.get("file_path").and_then(Value::as_str).unwrap_or_default();
        if !is_path(path) {
            return Err(refusal(FailureClass::Rejected, Failure::with(ErrorCode::FileType, "file_path ?")));
        }
        let size = told.get("file_size").and_then(Value::as_u64);
        let token = channel.credential(TOKEN).trim();
        let secrets = Secrets::of(&SPEC, channel);
        let download = self.outbound.open(Call::get(format!("{}/file/bot{token}/{path}", self.base))).await;
        let download = download.map_err(|e| of_reading(of_call(&e, &secrets)))?;
        match download.status {
            200 => Ok(MediaStream { mime: String::new(), ..as_file(download, "", size) }),
            _ => Err(of_reading(of_answer(&as_answer(download).await, &secrets))),
        }
    }
}

/// `documents/file_7.pdf`: nothing that leads elsewhere.
fn is_path(path: &str) -> bool {
    let sound = |part: &str| {
        let word = part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        !part.is_empty() && part != "." && part != ".." && word
    };
    path.split('/').all(sound)
}

#[async_trait]
impl Webhooks for TelegramBot {
    /// The number of the bot: the part of the token that stays when the token is changed.
    fn sender(&self, channel: &Channel) -> String {
        channel.credential(TOKEN).trim().split(':').next().unwrap_or_default().to_owned()
    }

    /// The secret cannot be asked for: where calls fail at an address that is ours, it is set again too.
    async fn keep(&self, channel: &Channel, url: &str) -> Result<Kept, SendError> {
        let info = self.read(channel, "getWebhookInfo").await?;
        let said = info.get("url").and_then(Value::as_str).unwrap_or_default();
        let updates: Vec<&str> = info
            .get("allowed_updates")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let pending = info.get("pending_update_count").and_then(Value::as_i64).unwrap_or_default();
        let trouble = info.get("last_error_message").and_then(Value::as_str).filter(|_| pending > 0);
        let trouble = Secrets::of(&SPEC, channel).hide(trouble.unwrap_or_default(), super::failures::DETAIL_MAX);
        let stands = said == url && updates.len() == UPDATES.len() && UPDATES.iter().all(|kind| updates.contains(kind));
        if stands && trouble.is_empty() {
            return Ok(Kept { mended: false, trouble });
        }
        let secret = webhook_auth::header_secret(channel, TOKEN);
        let wanted = json!({"url": url, "secret_token": secret, "allowed_updates": UPDATES});
        let call = Call::post_json(self.method(channel, "setWebhook")?, wanted.to_string().into_bytes());
        self.repeatable(channel, call).await?;
        Ok(Kept { mended: !stands, trouble })
    }
}
