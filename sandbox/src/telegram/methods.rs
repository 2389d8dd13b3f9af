//! The methods: `/bot<token>/<method>`, and files. Source: channels.md §1.2, §3.1–§3.4.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{
    bots::{self, BotCell, WebhookView},
    changes,
    error::{BotError, Outcome},
    people::{BotMessage, GroupState},
    webhooks,
};
use crate::{
    http::{Request, Response},
    journal::Severity,
    world::{Call, World},
};

pub(super) const TEXT_MAX: usize = 4096;
pub(super) const CAPTION_MAX: usize = 1024;
const DOWNLOAD_MAX: usize = 20 * 1024 * 1024;
const PORTS: &[u16] = &[443, 80, 88, 8443];

/// Parameters every sending method takes.
const COMMON: &[&str] = &[
    "chat_id",
    "message_thread_id",
    "disable_notification",
    "protect_content",
    "reply_parameters",
    "allow_paid_broadcast",
];

pub(super) async fn route(world: &Arc<World>, request: &Request) -> Response {
    let path = request.path.trim_start_matches('/');
    if let Some(rest) = path.strip_prefix("file/bot") {
        return download(world, request, rest).await;
    }
    let Some((token, method)) = path.strip_prefix("bot").and_then(|rest| rest.split_once('/')) else {
        return BotError::not_found().response();
    };
    let bot = bots::by_token(&world.telegram, token);
    let scope = bot.as_ref().map_or_else(|_| Arc::from(""), |bot| bot.scope.clone());
    let target = format!("telegram.{}", if is_known(method) { method } else { "unknown" });
    let fields = fields_of(request);
    let chat = fields.as_ref().ok().and_then(|fields| fields.get("chat_id").cloned()).unwrap_or_default();
    let chat = chat.as_i64().map(|id| id.to_string()).or(chat.as_str().map(str::to_owned)).unwrap_or_default();
    let call = Call { request, target: &target, scope: &scope, phone: &chat };
    let process = || {
        let outcome = bot.and_then(|bot| carry_out(world, &bot, method, &target, fields));
        match outcome {
            Ok(result) => Response::value(200, &json!({"ok": true, "result": result})),
            Err(error) => {
                error.note(world, &target, &scope);
                error.response()
            }
        }
    };
    let revoke = || {
        if let Ok(bot) = bots::by_token(&world.telegram, token) {
            let fresh = bots::fresh_token(world, &bot.scope);
            bot.spec.write().token = fresh;
        }
    };
    world.admit(call, process, |wanted| BotError::wanted(wanted).response(), revoke).await
}

fn is_known(method: &str) -> bool {
    let reading = ["getMe", "getWebhookInfo", "getFile"];
    reading.contains(&method)
        || ["setWebhook", "deleteWebhook"].contains(&method)
        || ["editMessageText", "editMessageCaption", "deleteMessage"].contains(&method)
        || sending(method).is_some()
}

/// The field that carries the content of a sending method.
fn sending(method: &str) -> Option<&'static str> {
    Some(match method {
        "sendMessage" => "text",
        "sendPhoto" => "photo",
        "sendVideo" => "video",
        "sendAudio" => "audio",
        "sendVoice" => "voice",
        "sendDocument" => "document",
        _ => return None,
    })
}

pub(super) type Fields = BTreeMap<String, Value>;

/// Parameters, wherever they stand.
fn fields_of(request: &Request) -> Result<Fields, BotError> {
    let mut fields: Fields =
        crate::http::form::pairs(&request.query).map(|(name, value)| (name, Value::String(value))).collect();
    if request.method != hyper::Method::POST || request.body.is_empty() {
        return Ok(fields);
    }
    let kind = request.header("content-type");
    if request.is_json() {
        let body: Value = serde_json::from_slice(&request.body)
            .map_err(|error| BotError::bad_request(&format!("can't parse JSON object: {error}")))?;
        let Value::Object(map) = body else { return Err(BotError::bad_request("can't parse JSON object")) };
        fields.extend(map.into_iter().filter(|(_, value)| !value.is_null()));
    } else if kind.starts_with("application/x-www-form-urlencoded") {
        let pairs = crate::http::form::pairs(&request.body_text()).collect::<Vec<_>>();
        fields.extend(pairs.into_iter().map(|(name, value)| (name, Value::String(value))));
    } else {
        return Err(BotError::bad_request("unsupported content type: uploads are not simulated"));
    }
    Ok(fields)
}

fn carry_out(
    world: &Arc<World>,
    bot: &Arc<BotCell>,
    method: &str,
    target: &str,
    fields: Result<Fields, BotError>,
) -> Outcome {
    let fields = fields?;
    let known = |names: &[&str]| {
        for name in fields.keys().filter(|name| !names.contains(&name.as_str())) {
            // The vendor reads over it; whoever sends it means something that does not happen.
            world.violation(Severity::Careless, target, &bot.scope, "parameter", format!("{name} is no parameter"));
        }
    };
    match method {
        "getMe" => {
            known(&[]);
            let mut me = bot.as_user();
            me["can_join_groups"] = json!(true);
            me["can_read_all_group_messages"] = json!(false);
            me["supports_inline_queries"] = json!(false);
            Ok(me)
        }
        "editMessageText" | "editMessageCaption" => {
            let key = if method == "editMessageText" { "text" } else { "caption" };
            known(&["chat_id", "message_id", key, "parse_mode", "entities", "link_preview_options"]);
            changes::edit(world, bot, key, &fields)
        }
        "deleteMessage" => {
            known(&["chat_id", "message_id"]);
            changes::delete(world, bot, &fields)
        }
        "setWebhook" => {
            known(&["url", "secret_token", "allowed_updates", "max_connections", "drop_pending_updates", "ip_address"]);
            set_webhook(world, bot, &fields)
        }
        "getWebhookInfo" => {
            known(&[]);
            Ok(webhook_info(bot))
        }
        "deleteWebhook" => {
            known(&["drop_pending_updates"]);
            *bot.webhook.write() = WebhookView::default();
            if flag(&fields, "drop_pending_updates") {
                bot.outbox.lock().clear();
            }
            world.change("webhook", &bot.scope, "");
            Ok(json!(true))
        }
        "getFile" => {
            known(&["file_id"]);
            get_file(world, bot, &fields)
        }
        _ => match sending(method) {
            Some(content) => {
                let own: &[&str] = match content {
                    "text" => &["text", "parse_mode", "entities", "link_preview_options"],
                    "photo" => &["photo", "caption", "parse_mode"],
                    "video" => &["video", "caption", "parse_mode", "duration", "width", "height", "supports_streaming"],
                    "audio" => &["audio", "caption", "parse_mode", "duration", "performer", "title"],
                    "voice" => &["voice", "caption", "parse_mode", "duration"],
                    _ => &["document", "caption", "parse_mode", "disable_content_type_detection"],
                };
                known(&[COMMON, own].concat());
                send(world, bot, content, &fields)
            }
            None => Err(BotError::not_found()),
        },
    }
}

pub(super) fn text_of<'f>(fields: &'f Fields, name: &str) -> Option<&'f str> {
    fields.get(name).and_then(Value::as_str)
}

fn flag(fields: &Fields, name: &str) -> bool {
    match fields.get(name) {
        Some(Value::Bool(flag)) => *flag,
        Some(Value::String(text)) => text == "true" || text == "1",
        _ => false,
    }
}

fn set_webhook(world: &Arc<World>, bot: &Arc<BotCell>, fields: &Fields) -> Outcome {
    let url = text_of(fields, "url").ok_or_else(|| BotError::bad_request("url is not specified"))?;
    let secret = text_of(fields, "secret_token").unwrap_or_default();
    let word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if fields.contains_key("secret_token") && !((1..=256).contains(&secret.len()) && word(secret)) {
        return Err(BotError::bad_request("secret token contains unallowed characters"));
    }
    let allowed = match fields.get("allowed_updates") {
        None => Vec::new(),
        Some(Value::String(text)) => serde_json::from_str(text)
            .map_err(|error| BotError::bad_request(&format!("can't parse allowed_updates: {error}")))?,
        Some(list) => serde_json::from_value::<Vec<String>>(list.clone())
            .map_err(|error| BotError::bad_request(&format!("can't parse allowed_updates: {error}")))?,
    };
    let connections = fields.get("max_connections").map_or(Some(40), |value| {
        value.as_i64().or_else(|| value.as_str()?.parse().ok()).filter(|count| (1..=100).contains(count))
    });
    let max_connections = connections.ok_or_else(|| BotError::bad_request("max_connections must be 1-100"))?;
    if !url.is_empty() {
        check_address(url, world.telegram.options().local_webhooks)?;
    }
    let wanted = WebhookView {
        url: url.to_owned(),
        secret_token: secret.to_owned(),
        allowed_updates: allowed,
        max_connections,
        ..bot.webhook.read().clone()
    };
    if wanted == *bot.webhook.read() {
        return Ok(json!(true));
    }
    bot.may_set_webhook(world.now_ms())?;
    *bot.webhook.write() = WebhookView { last_error_date: 0, last_error_message: String::new(), ..wanted };
    if flag(fields, "drop_pending_updates") {
        bot.outbox.lock().clear();
    }
    world.change("webhook", &bot.scope, url);
    webhooks::flush(world, bot);
    Ok(json!(true))
}

fn check_address(url: &str, local: bool) -> Result<(), BotError> {
    let bad = |words: &str| Err(BotError::bad_request(&format!("bad webhook: {words}")));
    let Ok(url) = reqwest::Url::parse(url) else { return bad("invalid url") };
    let is_here = url.host_str().is_some_and(|host| host == "127.0.0.1" || host == "localhost");
    if local && is_here && url.scheme() == "http" {
        return Ok(());
    }
    if url.scheme() != "https" {
        return bad("An HTTPS URL must be provided for webhook");
    }
    match url.port_or_known_default() {
        Some(port) if PORTS.contains(&port) => Ok(()),
        _ => bad("Webhook can be set up only on ports 80, 88, 443 or 8443"),
    }
}

fn webhook_info(bot: &BotCell) -> Value {
    let webhook = bot.webhook.read().clone();
    let mut info = json!({
        "url": webhook.url, "has_custom_certificate": false, "pending_update_count": bot.outbox.lock().pending(),
    });
    if !webhook.url.is_empty() {
        info["max_connections"] = json!(webhook.max_connections);
        if !webhook.allowed_updates.is_empty() {
            info["allowed_updates"] = json!(webhook.allowed_updates);
        }
    }
    if webhook.last_error_date > 0 {
        info["last_error_date"] = json!(webhook.last_error_date);
        info["last_error_message"] = json!(webhook.last_error_message);
    }
    info
}

/// The chat of a request, if this bot may write to it.
pub(super) fn chat_of(world: &World, bot: &BotCell, fields: &Fields) -> Result<i64, BotError> {
    let not_found = || BotError::bad_request("chat not found");
    let given = fields.get("chat_id").ok_or_else(|| BotError::bad_request("chat_id is empty"))?;
    let people = world.telegram.people.lock();
    let chat = match given {
        Value::Number(number) => number.as_i64().ok_or_else(not_found)?,
        Value::String(text) => match text.strip_prefix('@') {
            // Names of people are no targets, only those of public groups and channels.
            Some(name) => *people.names.get(&name.to_ascii_lowercase()).ok_or_else(not_found)?,
            None => text.parse().ok().ok_or_else(not_found)?,
        },
        _ => return Err(not_found()),
    };
    if chat < 0 {
        let supergroup = chat <= -1_000_000_000_000;
        let kind = if supergroup { "supergroup" } else { "group" };
        return match people.groups.get(&(chat, bot.id)) {
            None => Err(not_found()),
            Some(GroupState::Member) => Ok(chat),
            Some(GroupState::Kicked) => Err(BotError::forbidden(&format!("bot was kicked from the {kind} chat"))),
            Some(GroupState::ReadOnly) => {
                Err(BotError::bad_request("not enough rights to send text messages to the chat"))
            }
            Some(GroupState::Migrated(to)) => Err(BotError::migrated(*to)),
        };
    }
    let person = people.persons.get(&chat).filter(|person| person.started.contains(&bot.id)).ok_or_else(not_found)?;
    if person.deactivated {
        return Err(BotError::forbidden("user is deactivated"));
    }
    if person.blocked.contains(&bot.id) {
        return Err(BotError::forbidden("bot was blocked by the user"));
    }
    Ok(chat)
}

fn send(world: &Arc<World>, bot: &Arc<BotCell>, content: &'static str, fields: &Fields) -> Outcome {
    if fields.contains_key("parse_mode") || fields.contains_key("entities") {
        return Err(BotError::bad_request("formatting is not simulated"));
    }
    let units = |text: &str| text.encode_utf16().count();
    let (text, file) = if content == "text" {
        (text_of(fields, "text").unwrap_or_default(), "")
    } else {
        (text_of(fields, "caption").unwrap_or_default(), text_of(fields, content).unwrap_or_default())
    };
    let chat = chat_of(world, bot, fields)?;
    if content == "text" {
        if text.trim().is_empty() {
            return Err(BotError::bad_request("message text is empty"));
        }
        if units(text) > TEXT_MAX {
            return Err(BotError::bad_request("message is too long"));
        }
    } else {
        check_file(content, file)?;
        if units(text) > CAPTION_MAX {
            return Err(BotError::bad_request("message caption is too long"));
        }
    }
    bot.take(&world.telegram.options(), world.now_ms(), chat)?;
    let (message_id, chat_view) = {
        let mut people = world.telegram.people.lock();
        let message_id = people.next_message();
        people.messages.push(BotMessage {
            bot: bot.id,
            chat,
            message_id,
            from_bot: true,
            at_ms: world.now_ms(),
            kind: content.to_owned(),
            text: text.to_owned(),
            file: file.to_owned(),
        });
        (message_id, people.as_chat(chat))
    };
    world.journal.count("telegram.sent");
    world.change("bot_message", &bot.scope, format!("{chat}:{message_id}"));
    let mut message =
        json!({"message_id": message_id, "date": world.clock.now_secs(), "from": bot.as_user(), "chat": chat_view});
    match content {
        "text" => message["text"] = json!(text),
        kind => {
            let shown = json!({"file_id": format!("BQACAg{message_id}"), "file_unique_id": message_id.to_string()});
            message[kind] = if kind == "photo" { json!([shown]) } else { shown };
            if !text.is_empty() {
                message["caption"] = json!(text);
            }
        }
    }
    Ok(message)
}

/// A file by address. By address only these documents are taken reliably: PDF, ZIP, GIF.
fn check_file(content: &str, file: &str) -> Result<(), BotError> {
    if file.is_empty() {
        return Err(BotError::bad_request(&format!("there is no {content} in the request")));
    }
    let Some(url) = reqwest::Url::parse(file).ok().filter(|url| matches!(url.scheme(), "http" | "https")) else {
        return Err(BotError::bad_request("wrong file identifier/HTTP URL specified"));
    };
    let ending = url.path().rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
    let fits = match content {
        "photo" => matches!(ending.as_str(), "jpg" | "jpeg" | "png" | "webp"),
        "video" => ending == "mp4",
        "audio" => matches!(ending.as_str(), "mp3" | "m4a"),
        "voice" => matches!(ending.as_str(), "ogg" | "opus" | "oga"),
        _ => matches!(ending.as_str(), "pdf" | "zip" | "gif"),
    };
    if fits { Ok(()) } else { Err(BotError::bad_request("wrong type of the web page content")) }
}

fn get_file(world: &World, bot: &BotCell, fields: &Fields) -> Outcome {
    let id = text_of(fields, "file_id").ok_or_else(|| BotError::bad_request("file_id not specified"))?;
    let people = world.telegram.people.lock();
    let file = people.files.get(id).filter(|file| file.bot == bot.id);
    let file = file.ok_or_else(|| BotError::bad_request("wrong file_id or the file is temporarily unavailable"))?;
    if file.bytes.len() > DOWNLOAD_MAX {
        return Err(BotError::bad_request("file is too big"));
    }
    Ok(json!({"file_id": id, "file_unique_id": "u", "file_size": file.bytes.len(), "file_path": file.path}))
}

/// `GET /file/bot<token>/<file_path>`.
async fn download(world: &Arc<World>, request: &Request, rest: &str) -> Response {
    let (token, path) = rest.split_once('/').unwrap_or((rest, ""));
    let bot = bots::by_token(&world.telegram, token);
    let scope = bot.as_ref().map_or_else(|_| Arc::from(""), |bot| bot.scope.clone());
    let call = Call { request, target: "telegram.file", scope: &scope, phone: "" };
    let process = || match bot {
        Err(error) => error.response(),
        Ok(bot) => {
            let people = world.telegram.people.lock();
            let found = people.files.values().find(|file| file.bot == bot.id && file.path == path);
            found.map_or_else(
                || BotError::not_found().response(),
                |file| Response::new(200, "application/octet-stream", file.bytes.clone()),
            )
        }
    };
    world.admit(call, process, |wanted| BotError::wanted(wanted).response(), || {}).await
}
