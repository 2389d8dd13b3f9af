//! Business numbers, phones, ledger, Graph server.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Ask, Outcome, Refusal, done, good, not_allowed};
use crate::{
    whatsapp::{Inbound, Ledger, Number, NumberSpec, Phone, PhoneTraits, TemplateSpec},
    world::World,
};

pub(super) fn all(world: &Arc<World>) -> Vec<Number> {
    Number::all(world)
}

pub(super) fn graph(ask: &Ask<'_>) -> Outcome {
    let current = ask.world.graph.options.read().clone();
    match ask.method {
        "GET" => good(&*current),
        "PATCH" => {
            let changed = Arc::new(ask.patched(&*current)?);
            *ask.world.graph.options.write() = changed.clone();
            good(&*changed)
        }
        _ => not_allowed(ask),
    }
}

fn number(ask: &Ask<'_>, id: &str) -> Result<Number, Refusal> {
    Number::find(ask.world, id).ok_or_else(|| Refusal::missing("number"))
}

pub(super) async fn numbers(ask: &Ask<'_>, rest: &[&str]) -> Outcome {
    match (ask.method, rest) {
        ("GET", []) => good(&all(ask.world).iter().map(Number::view).collect::<Vec<_>>()),
        ("POST", []) => good(&Number::create(ask.world, ask.body::<NumberSpec>()?)?.view()),
        (_, [id, rest @ ..]) => one_number(ask, &number(ask, id)?, rest).await,
        _ => not_allowed(ask),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NumberPatch {
    #[serde(default)]
    callback_url: Option<String>,
    #[serde(default)]
    throughput: Option<u32>,
    #[serde(default)]
    registered: Option<bool>,
    #[serde(default)]
    deleted: Option<bool>,
    #[serde(default)]
    token_valid: Option<bool>,
    #[serde(default)]
    token_may_send: Option<bool>,
    #[serde(default)]
    quality: Option<String>,
}

async fn one_number(ask: &Ask<'_>, number: &Number, rest: &[&str]) -> Outcome {
    match (ask.method, rest) {
        ("GET", []) => good(&number.view()),
        ("PATCH", []) => {
            let patch: NumberPatch = ask.body()?;
            if let Some(url) = patch.callback_url {
                number.set_callback(Some(url.as_str()).filter(|url| !url.is_empty()));
            }
            if let Some(limit) = patch.throughput {
                number.set_throughput(limit);
            }
            if let Some(registered) = patch.registered {
                number.set_registered(registered);
            }
            if let Some(deleted) = patch.deleted {
                number.set_deleted(deleted);
            }
            if let Some(valid) = patch.token_valid {
                number.set_token_valid(valid);
            }
            if let Some(may_send) = patch.token_may_send {
                number.set_token_may_send(may_send);
            }
            if let Some(quality) = patch.quality {
                number.set_quality(&quality);
            }
            good(&number.view())
        }
        ("POST", ["subscribe"]) => {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Subscribe {
                url: String,
            }
            number.subscribe(&ask.body::<Subscribe>()?.url).await?;
            good(&number.view())
        }
        ("POST", ["webhook"]) => {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Webhook {
                field: String,
                value: Value,
            }
            let asked: Webhook = ask.body()?;
            number.send_webhook(&asked.field, &asked.value);
            done()
        }
        ("GET", ["templates"]) => good(&number.templates()),
        ("POST", ["templates"]) => good(&number.put_template(ask.body::<TemplateSpec>()?)?),
        ("POST", ["templates", "status"]) => {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Status {
                name: String,
                language: String,
                status: String,
                #[serde(default)]
                reason: Option<String>,
            }
            let asked: Status = ask.body()?;
            number.set_template_status(&asked.name, &asked.language, &asked.status, asked.reason.as_deref())?;
            done()
        }
        ("DELETE", ["templates", name, language]) => {
            if number.remove_template(name, language) {
                done()
            } else {
                Err(Refusal::missing("template"))
            }
        }
        _ => Err(Refusal::missing("route")),
    }
}

pub(super) fn phones(ask: &Ask<'_>, rest: &[&str]) -> Outcome {
    if let ("GET", []) = (ask.method, rest) {
        let limit = ask.query("limit").unwrap_or(100_usize).min(10_000);
        return good(&ask.world.graph.phones.lock().views(limit));
    }
    let [wa_id, rest @ ..] = rest else { return not_allowed(ask) };
    let phone = Phone::of(ask.world, wa_id);
    match (ask.method, rest) {
        ("GET", []) => {
            let mut messages = phone.messages();
            let extra = messages.len().saturating_sub(ask.query("limit").unwrap_or(usize::MAX));
            good(&json!({"phone": phone.view(), "messages": messages.split_off(extra), "now_ms": ask.world.now_ms()}))
        }
        ("PATCH", []) => {
            phone.set(ask.body::<PhoneTraits>()?);
            good(&phone.view())
        }
        ("GET", ["messages"]) => good(&phone.messages()),
        ("GET", ["screen"]) => good(&phone.screen()),
        ("POST", ["send"]) => {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Send {
                number: String,
                message: Inbound,
                #[serde(default)]
                reply_to: Option<String>,
            }
            let asked: Send = ask.body()?;
            let number = number(ask, &asked.number)?;
            good(&json!({"wamid": phone.send(&number, &asked.message, asked.reply_to.as_deref())?}))
        }
        ("POST", ["tap"]) => {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Tap {
                number: String,
                wamid: String,
                caption: String,
            }
            let asked: Tap = ask.body()?;
            let number = number(ask, &asked.number)?;
            good(&json!({"wamid": phone.tap(&number, &asked.wamid, &asked.caption)?}))
        }
        ("POST", [action @ ("read" | "open_window" | "close_window")]) => {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct With {
                number: String,
            }
            let number = number(ask, &ask.body::<With>()?.number)?;
            match *action {
                "read" => phone.read(&number),
                "open_window" => phone.open_window(&number),
                _ => phone.close_window(&number),
            }
            good(&phone.view())
        }
        _ => Err(Refusal::missing("route")),
    }
}

pub(super) fn ledger(ask: &Ask<'_>, rest: &[&str]) -> Outcome {
    let ledger = Ledger::of(ask.world);
    match (ask.method, rest) {
        ("GET", []) => {
            let query = |name: &str| ask.request.query_param(name);
            if let Some(opaque) = query("opaque") {
                return good(&ledger.by_opaque(&opaque));
            }
            if let Some(phone) = query("phone") {
                return good(&ledger.by_phone(&phone));
            }
            if let Some(wamid) = query("wamid") {
                return good(&ledger.get(&wamid).ok_or_else(|| Refusal::missing("message"))?);
            }
            good(&ledger.last(ask.query("limit").unwrap_or(100_usize).min(10_000)))
        }
        ("GET", ["totals"]) => {
            let count = |name: &str| ask.world.journal.counter(name);
            good(&json!({
                "accepted": ledger.accepted(), "repeated_opaque": ledger.repeated(),
                "repeated": ledger.repeated_opaques().into_iter().take(100).collect::<Vec<_>>(),
                "sent": count("status.sent"), "delivered": count("status.delivered"), "read": count("status.read"),
                "failed": count("status.failed"), "inbound": count("messages.inbound"),
            }))
        }
        _ => not_allowed(ask),
    }
}
