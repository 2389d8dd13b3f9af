//! Messages that a bot changes or deletes. Source: channels.md §3.3, §3.7.

use serde_json::{Value, json};

use super::{
    bots::BotCell,
    error::{BotError, Outcome},
    methods::{CAPTION_MAX, Fields, TEXT_MAX, chat_of, text_of},
    people::{BotMessage, People},
};
use crate::world::World;

/// So long a message may be deleted, milliseconds.
const DELETE_MAX_MS: i64 = 48 * 3_600_000;

fn number(fields: &Fields) -> Option<i64> {
    let given = fields.get("message_id")?;
    given.as_i64().or_else(|| given.as_str()?.parse().ok())
}

fn find<'p>(people: &'p mut People, bot: &BotCell, chat: i64, number: Option<i64>) -> Option<&'p mut BotMessage> {
    let is_it = |own: &&mut BotMessage| own.bot == bot.id && own.chat == chat && Some(own.message_id) == number;
    people.messages.iter_mut().find(is_it)
}

/// `editMessageText` and `editMessageCaption`: a bot's own messages, texts as texts and files by their captions.
pub(super) fn edit(world: &World, bot: &BotCell, key: &str, fields: &Fields) -> Outcome {
    if fields.contains_key("parse_mode") || fields.contains_key("entities") {
        return Err(BotError::bad_request("formatting is not simulated"));
    }
    let text = text_of(fields, key).unwrap_or_default();
    let units = text.encode_utf16().count();
    if key == "text" && text.trim().is_empty() {
        return Err(BotError::bad_request("message text is empty"));
    }
    if units > if key == "text" { TEXT_MAX } else { CAPTION_MAX } {
        return Err(BotError::bad_request(if key == "text" {
            "message is too long"
        } else {
            "message caption is too long"
        }));
    }
    let chat = chat_of(world, bot, fields)?;
    let mut people = world.telegram.people.lock();
    let message = find(&mut people, bot, chat, number(fields));
    let message = message.ok_or_else(|| BotError::bad_request("message to edit not found"))?;
    if !message.from_bot {
        return Err(BotError::bad_request("message can't be edited"));
    }
    if (message.kind == "text") != (key == "text") {
        let words = if key == "text" {
            "there is no text in the message to edit"
        } else {
            "there is no caption in the message to edit"
        };
        return Err(BotError::bad_request(words));
    }
    if message.text == text {
        let words = "message is not modified: specified new message content and reply markup are exactly the same as a \
                     current content and reply markup of the message";
        return Err(BotError::bad_request(words));
    }
    text.clone_into(&mut message.text);
    let (message_id, sent) = (message.message_id, message.at_ms / 1000);
    let chat_view = people.as_chat(chat);
    drop(people);
    world.journal.count("telegram.edited");
    world.change("bot_message", &bot.scope, format!("{chat}:{message_id}"));
    Ok(json!({"message_id": message_id, "date": sent, "edit_date": world.clock.now_secs(), "from": bot.as_user(),
        "chat": chat_view, key: text}))
}

/// `deleteMessage`.
pub(super) fn delete(world: &World, bot: &BotCell, fields: &Fields) -> Outcome {
    let chat = chat_of(world, bot, fields)?;
    let mut people = world.telegram.people.lock();
    let number = number(fields);
    let message = find(&mut people, bot, chat, number);
    let message = message.ok_or_else(|| BotError::bad_request("message to delete not found"))?;
    let own = message.from_bot || chat > 0;
    if !own || world.now_ms() - message.at_ms >= DELETE_MAX_MS {
        return Err(BotError::bad_request("message can't be deleted for everyone"));
    }
    people.messages.retain(|own| own.bot != bot.id || own.chat != chat || Some(own.message_id) != number);
    drop(people);
    world.journal.count("telegram.deleted");
    world.change("bot_message", &bot.scope, format!("{chat}:deleted"));
    Ok(Value::Bool(true))
}
