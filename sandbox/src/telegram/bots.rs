//! Bots: tokens, limits, webhooks. Source: channels.md §1.3, §3.1, §3.2.

use std::{collections::HashMap, sync::Arc};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Telegram, TelegramOptions, error::BotError, webhooks::Outbox};
use crate::{clock::Millis, world::World};

/// A bot to be added.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BotSpec {
    /// Token as @BotFather gives it; made up when empty.
    pub token: String,
    /// Name; made up when empty.
    pub first_name: String,
    /// Name that ends in `bot`; made up when empty.
    pub username: String,
}

/// A bot, as shown.
#[derive(Clone, Debug, Serialize)]
pub struct BotView {
    /// The number before the token's colon.
    pub id: i64,
    /// Everything it was made with, made-up parts filled in; the token is the one that holds now.
    #[serde(flatten)]
    pub spec: BotSpec,
    /// Where updates go.
    pub webhook: WebhookView,
    /// Updates that nobody has taken yet.
    pub pending: usize,
}

/// What `setWebhook` was told.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct WebhookView {
    /// Address; empty = none.
    pub url: String,
    /// Comes back in a header of every delivery.
    pub secret_token: String,
    /// Kinds of updates that are sent; empty = the usual ones.
    pub allowed_updates: Vec<String>,
    /// Deliveries at a time.
    pub max_connections: i64,
    /// When a delivery last failed, Unix seconds; 0 = never.
    pub last_error_date: i64,
    /// And why.
    pub last_error_message: String,
}

/// Counts messages against a limit: a bucket that holds `size` and loses one per `per_ms`.
#[derive(Default)]
struct Bucket {
    level: f64,
    at_ms: Millis,
}

impl Bucket {
    /// Takes one, or tells after how many milliseconds there is room for it.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "milliseconds between messages")]
    fn take(&mut self, now: Millis, size: f64, per_ms: f64) -> Result<(), Millis> {
        let drained = (now - self.at_ms).max(0) as f64 / per_ms;
        self.level = (self.level - drained).max(0.0);
        self.at_ms = now;
        if self.level + 1.0 > size + 1e-9 {
            return Err(((self.level + 1.0 - size) * per_ms).ceil() as Millis);
        }
        self.level += 1.0;
        Ok(())
    }
}

#[derive(Default)]
struct Limits {
    bot: Bucket,
    chats: HashMap<i64, Bucket>,
    /// When messages went into a group, within the last minute.
    groups: HashMap<i64, Vec<Millis>>,
    webhook_set_ms: Option<Millis>,
}

pub(crate) struct BotCell {
    pub(crate) id: i64,
    pub(crate) scope: Arc<str>,
    pub(crate) spec: RwLock<BotSpec>,
    pub(crate) webhook: RwLock<WebhookView>,
    pub(crate) outbox: Mutex<Outbox>,
    limits: Mutex<Limits>,
}

impl BotCell {
    /// Counts one message to a chat against the limits.
    pub(crate) fn take(&self, options: &TelegramOptions, now: Millis, chat: i64) -> Result<(), BotError> {
        let mut limits = self.limits.lock();
        let late = |wait: Millis| BotError::too_many((wait + 999) / 1000);
        let to_chat = limits.chats.entry(chat).or_default();
        if chat < 0 && options.group_per_minute > 0 {
            let sent = limits.groups.entry(chat).or_default();
            sent.retain(|at| now - at < 60_000);
            if let Some(first) = sent.first().filter(|_| sent.len() >= options.group_per_minute as usize) {
                return Err(late(first + 60_000 - now));
            }
            sent.push(now);
        } else if chat > 0 && options.chat_interval_ms > 0 {
            #[expect(clippy::cast_precision_loss, reason = "a pause between messages")]
            let interval = options.chat_interval_ms as f64;
            to_chat.take(now, f64::from(options.chat_burst.max(1)), interval).map_err(late)?;
        }
        if options.per_second > 0 {
            let size = f64::from(options.per_second);
            limits.bot.take(now, size, 1000.0 / size).map_err(late)?;
        }
        Ok(())
    }

    /// A second `setWebhook` within a second is too many, unless it asks for what is there.
    pub(crate) fn may_set_webhook(&self, now: Millis) -> Result<(), BotError> {
        let mut limits = self.limits.lock();
        if limits.webhook_set_ms.is_some_and(|at| now - at < 1_000) {
            return Err(BotError::too_many(1));
        }
        limits.webhook_set_ms = Some(now);
        Ok(())
    }

    /// As `User` in answers and updates.
    pub(crate) fn as_user(&self) -> Value {
        let spec = self.spec.read();
        json!({"id": self.id, "is_bot": true, "first_name": spec.first_name, "username": spec.username})
    }

    pub(crate) fn view(&self) -> BotView {
        let (spec, webhook) = (self.spec.read().clone(), self.webhook.read().clone());
        BotView { id: self.id, spec, webhook, pending: self.outbox.lock().pending() }
    }
}

/// `744556677:AAH…`, by the documented pattern.
pub(crate) fn is_token(text: &str) -> bool {
    let Some((id, secret)) = text.split_once(':') else { return false };
    let word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    (6..=12).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit()) && secret.len() >= 30 && word(secret)
}

pub(crate) fn fresh_token(world: &World, id: &str) -> String {
    format!("{id}:AAH{}", world.ids.letters(32))
}

/// Adds a bot.
pub(crate) fn create(world: &World, mut spec: BotSpec) -> anyhow::Result<Arc<BotCell>> {
    if spec.token.is_empty() {
        spec.token = fresh_token(world, &format!("7{}", world.ids.digits(8)));
    }
    anyhow::ensure!(is_token(&spec.token), "this is no token");
    let id: i64 = spec.token.split(':').next().unwrap_or_default().parse()?;
    if spec.first_name.is_empty() {
        spec.first_name = "Ромашка".to_owned();
    }
    if spec.username.is_empty() {
        spec.username = format!("shop_{id}_bot");
    }
    let cell = Arc::new(BotCell {
        id,
        scope: Arc::from(id.to_string()),
        spec: RwLock::new(spec),
        webhook: RwLock::default(),
        outbox: Mutex::default(),
        limits: Mutex::default(),
    });
    let mut bots = world.telegram.bots.write();
    anyhow::ensure!(!bots.contains_key(&id), "bot {id} exists already");
    bots.insert(id, cell.clone());
    drop(bots);
    world.change("bot", &cell.scope, "");
    Ok(cell)
}

/// The bot behind a token: 404 for what is none, 401 for one that does not hold (any more).
pub(crate) fn by_token(telegram: &Telegram, token: &str) -> Result<Arc<BotCell>, BotError> {
    if !is_token(token) {
        return Err(BotError::not_found());
    }
    let id = token.split(':').next().and_then(|id| id.parse::<i64>().ok());
    let found = id.and_then(|id| telegram.bots.read().get(&id).cloned());
    found.filter(|bot| bot.spec.read().token == token).ok_or_else(BotError::unauthorized)
}
