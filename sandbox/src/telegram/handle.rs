//! Typed handles: a bot, and a person in front of it.

use std::sync::Arc;

use anyhow::{bail, ensure};
use serde_json::json;

use super::{
    bots::{self, BotCell, BotSpec, BotView},
    people::{BotInbound, BotMessage, GroupState, PersonView},
    webhooks,
};
use crate::world::World;

/// A bot. Cheap to clone.
#[derive(Clone)]
pub struct Bot {
    pub(crate) world: Arc<World>,
    pub(crate) cell: Arc<BotCell>,
}

impl Bot {
    pub(crate) fn create(world: &Arc<World>, spec: BotSpec) -> anyhow::Result<Self> {
        Ok(Self { world: world.clone(), cell: bots::create(world, spec)? })
    }

    pub(crate) fn find(world: &Arc<World>, id: i64) -> Option<Self> {
        let cell = world.telegram.bots.read().get(&id).cloned()?;
        Some(Self { world: world.clone(), cell })
    }

    pub(crate) fn all(world: &Arc<World>) -> Vec<Self> {
        let mut cells: Vec<Arc<BotCell>> = world.telegram.bots.read().values().cloned().collect();
        cells.sort_by_key(|cell| cell.id);
        cells.into_iter().map(|cell| Self { world: world.clone(), cell }).collect()
    }

    /// The number before the token's colon.
    pub fn id(&self) -> i64 {
        self.cell.id
    }

    /// Everything about it, the token included.
    pub fn view(&self) -> BotView {
        self.cell.view()
    }

    /// Takes the token away, as `/revoke` at @BotFather does; gives the new one.
    pub fn revoke(&self) -> String {
        let fresh = bots::fresh_token(&self.world, &self.cell.scope);
        self.cell.spec.write().token.clone_from(&fresh);
        fresh
    }

    /// Lets the token hold again that was taken away (a second revocation cannot do that at Telegram; tests can).
    pub fn set_token(&self, token: &str) {
        token.clone_into(&mut self.cell.spec.write().token);
    }

    /// Somebody else sets the webhook, or takes it away with an empty address.
    pub fn set_webhook(&self, url: &str) {
        url.clone_into(&mut self.cell.webhook.write().url);
        self.world.change("webhook", &self.cell.scope, url);
        webhooks::flush(&self.world, &self.cell);
    }

    /// The bot's standing in a group (a negative number; below −10¹² a supergroup).
    pub fn set_group(&self, chat: i64, state: GroupState) {
        self.world.telegram.people.lock().groups.insert((chat, self.cell.id), state);
    }

    /// Gives a group or channel a public name (without `@`).
    pub fn name_group(&self, chat: i64, name: &str) {
        self.world.telegram.people.lock().names.insert(name.to_ascii_lowercase(), chat);
    }

    /// Messages of this bot with a chat, both directions, oldest first.
    pub fn messages(&self, chat: i64) -> Vec<BotMessage> {
        let people = self.world.telegram.people.lock();
        people.messages.iter().filter(|message| message.bot == self.cell.id && message.chat == chat).cloned().collect()
    }

    /// What the bot has sent to a chat, oldest first.
    pub fn sent(&self, chat: i64) -> Vec<BotMessage> {
        self.messages(chat).into_iter().filter(|message| message.from_bot).collect()
    }
}

/// A person with a Telegram account. Cheap to clone.
#[derive(Clone)]
pub struct BotPerson {
    world: Arc<World>,
    id: i64,
}

impl BotPerson {
    pub(crate) fn of(world: &Arc<World>, id: i64) -> Self {
        world.telegram.people.lock().person(id);
        Self { world: world.clone(), id }
    }

    /// What they are like.
    pub fn view(&self) -> PersonView {
        self.world.telegram.people.lock().person(self.id).clone()
    }

    /// Gives them a name and a username (without `@`; empty = none).
    pub fn set_name(&self, first_name: &str, username: &str) {
        let mut people = self.world.telegram.people.lock();
        let person = people.person(self.id);
        first_name.clone_into(&mut person.first_name);
        username.clone_into(&mut person.username);
    }

    /// Writes a text to the bot; the first one starts it.
    pub fn say(&self, bot: &Bot, text: &str) -> anyhow::Result<i64> {
        self.send(bot, None, &BotInbound::Text { body: text.to_owned() })
    }

    /// Sends anything to the bot, in private or into a group; gives the number of the message.
    pub fn send(&self, bot: &Bot, group: Option<i64>, what: &BotInbound) -> anyhow::Result<i64> {
        let chat = group.unwrap_or(self.id);
        let date = self.world.clock.now_secs();
        let (kind, message_id, message) = {
            let mut people = self.world.telegram.people.lock();
            let person = people.person(self.id);
            if person.deactivated || (group.is_none() && person.blocked.contains(&bot.cell.id)) {
                bail!("{} cannot write to this bot", self.id);
            }
            if group.is_none() {
                person.started.insert(bot.cell.id);
            }
            let (mut message, shown, text) = people.content(&self.world.ids, bot.cell.id, self.id, what)?;
            let (kind, message_id) = match what {
                BotInbound::Edit { message_id, .. } => ("edited_message", *message_id),
                _ => ("message", people.next_message()),
            };
            message["message_id"] = json!(message_id);
            message["date"] = json!(date);
            if kind == "edited_message" {
                message["edit_date"] = json!(date);
            }
            message["from"] = people.as_user(self.id);
            message["chat"] = people.as_chat(chat);
            people.messages.push(BotMessage {
                bot: bot.cell.id,
                chat,
                message_id,
                from_bot: false,
                at_ms: self.world.now_ms(),
                kind: shown,
                text,
                file: String::new(),
            });
            (kind, message_id, message)
        };
        self.world.journal.count("telegram.inbound");
        webhooks::push(&self.world, &bot.cell, chat, kind, &message);
        Ok(message_id)
    }

    /// Blocks the bot, or takes it back; the bot is told by `my_chat_member`.
    pub fn block(&self, bot: &Bot, block: bool) -> anyhow::Result<()> {
        let update = {
            let mut people = self.world.telegram.people.lock();
            let person = people.person(self.id);
            ensure!(person.started.contains(&bot.cell.id), "who has not started a bot cannot block it");
            if block {
                person.blocked.insert(bot.cell.id)
            } else {
                person.blocked.remove(&bot.cell.id)
            };
            let (old, new) = if block { ("member", "kicked") } else { ("kicked", "member") };
            let member = |status: &str| json!({"status": status, "user": bot.cell.as_user()});
            json!({"chat": people.as_chat(self.id), "from": people.as_user(self.id), "date": self.world.clock.now_secs(),
                "old_chat_member": member(old), "new_chat_member": member(new)})
        };
        webhooks::push(&self.world, &bot.cell, self.id, "my_chat_member", &update);
        Ok(())
    }

    /// Deletes the account, or brings it back.
    pub fn set_deactivated(&self, deactivated: bool) {
        self.world.telegram.people.lock().person(self.id).deactivated = deactivated;
    }
}
