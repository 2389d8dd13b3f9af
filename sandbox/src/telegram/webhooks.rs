//! Updates on their way to the service. Source: channels.md §1.5, §3.2.
//!
//! Updates of one chat go one after another, those of different chats side by side. Any 2xx ends an update; otherwise it
//! comes again after 1 s, doubling up to a minute, until it is a day old.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use serde_json::{Value, json};

use super::bots::BotCell;
use crate::{clock::Millis, courier::Parcel, world::World};

const KEPT_MS: Millis = 24 * 3600 * 1000;
const PAUSE_MAX_MS: u64 = 60_000;
/// Kinds that come unless they are asked for by name or left out.
const USUAL: &[&str] = &["message", "edited_message", "callback_query", "my_chat_member"];

struct Update {
    body: Bytes,
    born_ms: Millis,
}

/// What a bot has not been able to hand over yet, by chat.
#[derive(Default)]
pub(crate) struct Outbox {
    chats: BTreeMap<i64, Chat>,
    last_update: i64,
}

#[derive(Default)]
struct Chat {
    waiting: VecDeque<Update>,
    /// The first one is on its way, or waits to be tried again.
    busy: bool,
    pause_ms: u64,
}

impl Outbox {
    pub(crate) fn pending(&self) -> usize {
        self.chats.values().map(|chat| chat.waiting.len()).sum()
    }

    pub(crate) fn clear(&mut self) {
        for chat in self.chats.values_mut() {
            let keep = usize::from(chat.busy).min(chat.waiting.len());
            chat.waiting.truncate(keep);
        }
    }
}

/// Puts an update into the bot's outbox and hands it over when its turn comes.
pub(crate) fn push(world: &Arc<World>, bot: &Arc<BotCell>, chat: i64, kind: &str, content: &Value) {
    let allowed = bot.webhook.read().allowed_updates.clone();
    let wanted = if allowed.is_empty() { USUAL.contains(&kind) } else { allowed.iter().any(|own| own == kind) };
    if !wanted {
        world.journal.count("telegram.update.unwanted");
        return;
    }
    {
        let mut outbox = bot.outbox.lock();
        if outbox.last_update == 0 {
            outbox.last_update = 845_120_000;
        }
        outbox.last_update += 1;
        let mut update = json!({"update_id": outbox.last_update});
        update[kind] = content.clone();
        let body = Bytes::from(update.to_string());
        let born_ms = world.now_ms();
        outbox.chats.entry(chat).or_default().waiting.push_back(Update { body, born_ms });
    }
    deliver(world, bot, chat);
}

/// Everything that waits, after the address has changed.
pub(crate) fn flush(world: &Arc<World>, bot: &Arc<BotCell>) {
    let chats: Vec<i64> = bot.outbox.lock().chats.keys().copied().collect();
    for chat in chats {
        deliver(world, bot, chat);
    }
}

fn deliver(world: &Arc<World>, bot: &Arc<BotCell>, chat: i64) {
    let webhook = bot.webhook.read().clone();
    if webhook.url.is_empty() {
        world.journal.count("telegram.webhook.absent");
        return;
    }
    let body = {
        let mut outbox = bot.outbox.lock();
        let Some(own) = outbox.chats.get_mut(&chat).filter(|own| !own.busy) else { return };
        while own.waiting.front().is_some_and(|update| world.now_ms() - update.born_ms > KEPT_MS) {
            own.waiting.pop_front();
            world.journal.count("telegram.update.given_up");
        }
        let Some(update) = own.waiting.front() else { return };
        own.busy = true;
        update.body.clone()
    };
    let mut headers = vec![("content-type", "application/json".to_owned())];
    if !webhook.secret_token.is_empty() {
        headers.push(("x-telegram-bot-api-secret-token", webhook.secret_token));
    }
    let owner = bot.clone();
    let parcel = Parcel {
        target: Arc::from("telegram.update"),
        scope: bot.scope.clone(),
        phone: chat.to_string(),
        url: Arc::from(webhook.url.as_str()),
        headers,
        body,
        start: None,
        done: Some(Box::new(move |world, receipt| ended(world, &owner, chat, receipt.status))),
    };
    world.telegram.courier.send(world, parcel);
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a pause of at most a minute"
)]
fn ended(world: &Arc<World>, bot: &Arc<BotCell>, chat: i64, status: u16) {
    if (200..300).contains(&status) {
        if let Some(own) = bot.outbox.lock().chats.get_mut(&chat) {
            own.waiting.pop_front();
            own.busy = false;
            own.pause_ms = 0;
        }
        return deliver(world, bot, chat);
    }
    {
        let mut webhook = bot.webhook.write();
        webhook.last_error_date = world.clock.now_secs();
        webhook.last_error_message = match status {
            0 => "Connection refused".to_owned(),
            status => format!("Wrong response from the webhook: {status}"),
        };
    }
    world.journal.count("telegram.update.retried");
    let pause = {
        let mut outbox = bot.outbox.lock();
        let Some(own) = outbox.chats.get_mut(&chat) else { return };
        own.pause_ms = if own.pause_ms == 0 { 1_000 } else { (own.pause_ms * 2).min(PAUSE_MAX_MS) };
        own.pause_ms
    };
    let delay_ms = (pause as f64 * world.telegram.options().retry_scale) as u64;
    let (then, bot) = (world.clone(), bot.clone());
    let again = move || {
        if let Some(own) = bot.outbox.lock().chats.get_mut(&chat) {
            own.busy = false;
        }
        deliver(&then, &bot, chat);
    };
    // Only quick retries keep `settled` waiting.
    if delay_ms <= 2_000 {
        world.timetable.after(delay_ms, again);
    } else {
        world.timetable.in_background(delay_ms, again);
    }
}
