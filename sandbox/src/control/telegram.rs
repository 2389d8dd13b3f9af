//! Bots, people in front of them, the Bot API server.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::{Ask, Outcome, Refusal, done, good, not_allowed};
use crate::telegram::{Bot, BotInbound, BotPerson, BotSpec, GroupState};

pub(super) fn server(ask: &Ask<'_>) -> Outcome {
    let current = ask.world.telegram.options();
    match ask.method {
        "GET" => good(&*current),
        "PATCH" => {
            let changed = Arc::new(ask.patched(&*current)?);
            *ask.world.telegram.options.write() = changed.clone();
            good(&*changed)
        }
        _ => not_allowed(ask),
    }
}

fn bot(ask: &Ask<'_>, id: &str) -> Result<Bot, Refusal> {
    let found = id.parse().ok().and_then(|id| Bot::find(ask.world, id));
    found.ok_or_else(|| Refusal::missing("bot"))
}

pub(super) fn bots(ask: &Ask<'_>, rest: &[&str]) -> Outcome {
    match (ask.method, rest) {
        ("GET", []) => good(&Bot::all(ask.world).iter().map(Bot::view).collect::<Vec<_>>()),
        ("POST", []) => good(&Bot::create(ask.world, ask.body::<BotSpec>()?)?.view()),
        ("GET", [id]) => good(&bot(ask, id)?.view()),
        ("GET", [id, "messages", chat]) => {
            let chat = chat.parse().ok().ok_or_else(|| Refusal::missing("chat"))?;
            good(&bot(ask, id)?.messages(chat))
        }
        ("POST", [id, "revoke"]) => good(&json!({"token": bot(ask, id)?.revoke()})),
        ("POST", [id, "webhook"]) => {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Webhook {
                url: String,
            }
            bot(ask, id)?.set_webhook(&ask.body::<Webhook>()?.url);
            done()
        }
        ("POST", [id, "groups", chat]) => {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Group {
                state: GroupState,
                #[serde(default)]
                name: Option<String>,
            }
            let (bot, asked) = (bot(ask, id)?, ask.body::<Group>()?);
            let chat: i64 = chat.parse().ok().ok_or_else(|| Refusal::missing("chat"))?;
            bot.set_group(chat, asked.state);
            if let Some(name) = asked.name {
                bot.name_group(chat, &name);
            }
            done()
        }
        _ => Err(Refusal::missing("route")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Traits {
    #[serde(default)]
    first_name: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    deactivated: Option<bool>,
}

pub(super) fn people(ask: &Ask<'_>, rest: &[&str]) -> Outcome {
    let [id, rest @ ..] = rest else { return not_allowed(ask) };
    let id: i64 = id.parse().ok().ok_or_else(|| Refusal::missing("person"))?;
    let person = BotPerson::of(ask.world, id);
    match (ask.method, rest) {
        ("GET", []) => good(&person.view()),
        ("PATCH", []) => {
            let (asked, known) = (ask.body::<Traits>()?, person.view());
            let name = asked.first_name.unwrap_or(known.first_name);
            person.set_name(&name, &asked.username.unwrap_or(known.username));
            if let Some(deactivated) = asked.deactivated {
                person.set_deactivated(deactivated);
            }
            good(&person.view())
        }
        ("POST", ["send"]) => {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Send {
                bot: i64,
                message: BotInbound,
                #[serde(default)]
                group: Option<i64>,
            }
            let asked: Send = ask.body()?;
            let bot = bot(ask, &asked.bot.to_string())?;
            good(&json!({"message_id": person.send(&bot, asked.group, &asked.message)?}))
        }
        ("POST", ["block"]) => {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Block {
                bot: i64,
                block: bool,
            }
            let asked: Block = ask.body()?;
            person.block(&bot(ask, &asked.bot.to_string())?, asked.block)?;
            good(&person.view())
        }
        _ => Err(Refusal::missing("route")),
    }
}
