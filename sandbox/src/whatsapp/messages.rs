//! `POST /{phone_number_id}/messages`. Source: §2.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::{
    GraphOptions,
    error::GraphError,
    ledger::{Message, Route},
    numbers::{self, NumberCell},
    phones,
    statuses::{self, Pricing, Track},
    template_send,
    templates::Template,
    validate::{self, Asked, Draft, Recipient},
};
use crate::{
    http::{Request, Response, json},
    world::{Call, World},
};

const TARGET: &str = "graph.messages";

#[derive(Serialize)]
struct Accepted<'a> {
    messaging_product: &'static str,
    contacts: [Contact<'a>; 1],
    messages: [Id<'a>; 1],
}

#[derive(Serialize)]
struct Contact<'a> {
    input: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    wa_id: Option<&'a str>,
    user_id: &'a str,
}

#[derive(Serialize)]
struct Id<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_status: Option<&'static str>,
}

pub(super) async fn post(world: &Arc<World>, number_id: &str, request: &Request) -> Response {
    let body: Option<Value> = serde_json::from_slice(&request.body).ok();
    let phone = body.as_ref().and_then(|body| body["to"].as_str()).and_then(phones::digits).unwrap_or_default();
    let call = Call { request, target: TARGET, scope: number_id, phone: &phone };
    let process = || {
        run(world, number_id, request, body.as_ref()).unwrap_or_else(|mut error| {
            if matches!(error.code, 4 | 80_007 | 130_429 | 131_048 | 131_056) {
                error.status = world.graph.options.read().throttle_status;
            }
            error.note(world, TARGET, number_id);
            error.response(world)
        })
    };
    let expire = || {
        if let Some(token) = request.bearer()
            && let Some(row) = world.graph.tokens.write().get_mut(token)
        {
            row.valid = false;
        }
    };
    world.admit(call, process, |wanted| GraphError::named(wanted).response(world), expire).await
}

fn run(world: &Arc<World>, number_id: &str, request: &Request, body: Option<&Value>) -> Result<Response, GraphError> {
    let token = numbers::check_token(world, request.bearer())?;
    let number = numbers::check_number(world, &token, number_id)?;
    if !token.may_send {
        return Err(GraphError::new(10, "The token lacks the permission whatsapp_business_messaging"));
    }
    if !number.state.read().registered {
        return Err(GraphError::new(133_010, "The phone number is not registered on the WhatsApp Business Platform"));
    }
    if !request.is_json() {
        return Err(GraphError::new(100, "The request must be application/json"));
    }
    let body = body.ok_or_else(|| GraphError::new(100, "The request body is not JSON"))?;
    let now = world.now_ms();
    if !number.take(now) {
        let limit = number.state.read().throughput;
        return Err(GraphError::new(130_429, format!("Rate limit hit: more than {limit} messages per second")));
    }
    match validate::read(body)? {
        Asked::Read { message_id, typing } => mark_read(world, &number, &message_id, typing),
        Asked::Send(draft) => send(world, &number, *draft),
    }
}

fn mark_read(world: &World, number: &NumberCell, message_id: &str, typing: bool) -> Result<Response, GraphError> {
    let mut ledger = world.graph.ledger.lock();
    let message = ledger.get_mut(message_id);
    let message = message.filter(|own| own.route == Route::In && *own.phone_number_id == *number.id);
    let message = message.ok_or_else(|| {
        GraphError::new(100, format!("Message {message_id} is not an inbound message of this number"))
    })?;
    message.marked_read = true;
    drop(ledger);
    world.journal.count(if typing { "messages.typing" } else { "messages.marked_read" });
    Ok(Response::value(200, &serde_json::json!({"success": true})))
}

fn send(world: &Arc<World>, number: &Arc<NumberCell>, mut draft: Draft<'_>) -> Result<Response, GraphError> {
    let options = world.graph.options.read().clone();
    let template = match &draft.template {
        Some(object) => Some(template_send::resolve(world, &number.spec.waba_id, object, &mut draft.shown)?),
        None => None,
    };
    check_media(world, number, &draft, &options)?;
    let now = world.now_ms();
    let chosen = choose_phone(world, number, &draft, &options, now)?;
    if let Some((message_id, emoji)) = &draft.reaction {
        react(world, &chosen.wa_id, message_id, emoji)?;
    }
    let failure = match &chosen.trouble {
        Some(code) => Some(GraphError::new(*code, trouble_text(*code))),
        None if !chosen.in_window && template.is_none() => Some(GraphError::new(131_047, trouble_text(131_047))),
        None => None,
    };
    if options.sync_failures
        && let Some(error) = failure
    {
        return Err(error);
    }
    let wamid = phones::wamid(&world.ids);
    let by_user = matches!(draft.recipient, Recipient::User(_));
    let answer = Accepted {
        messaging_product: "whatsapp",
        contacts: [Contact {
            input: &draft.input,
            wa_id: (!by_user).then_some(&*chosen.wa_id),
            user_id: &chosen.user_id,
        }],
        messages: [Id { id: &wamid, message_status: template.as_ref().map(|_| "accepted") }],
    };
    let response = Response::json(200, json::escaped(&answer));
    let link = draft.shown.media.as_ref().map(|media| (media.kind.clone(), media.link.clone()));
    let track = Track {
        number: number.clone(),
        wamid: wamid.clone(),
        wa_id: chosen.wa_id.clone(),
        user_id: chosen.user_id,
        opaque: draft.opaque.clone(),
        is_reaction: draft.reaction.is_some(),
        pricing: pricing(template.as_deref(), chosen.in_window),
    };
    let message = Message {
        wamid: wamid.clone(),
        route: Route::Out,
        phone_number_id: number.id.to_string(),
        phone: chosen.wa_id,
        at_ms: now,
        shown: draft.shown,
        opaque: draft.opaque,
        reply_to: draft.reply_to,
        arrived: false,
        statuses: Vec::new(),
        reaction: None,
        marked_read: false,
    };
    {
        let mut ledger = world.graph.ledger.lock();
        // A quote of something unknown is dropped silently (§2.1).
        let message = Message { reply_to: message.reply_to.filter(|quoted| ledger.get(quoted).is_some()), ..message };
        ledger.add(message, options.ledger_kept);
    }
    world.journal.count("messages.accepted");
    world.change("message", &number.id, wamid);
    statuses::begin(world, Arc::new(track), failure, link.filter(|(_, link)| options.fetch_links && !link.is_empty()));
    Ok(response)
}

/// The phone a message goes to, as far as sending needs to know it.
struct Chosen {
    wa_id: String,
    user_id: String,
    in_window: bool,
    /// Why it will not arrive.
    trouble: Option<u32>,
}

fn choose_phone(
    world: &World,
    number: &NumberCell,
    draft: &Draft<'_>,
    options: &GraphOptions,
    now: crate::clock::Millis,
) -> Result<Chosen, GraphError> {
    let mut phones = world.graph.phones.lock();
    let digits = match &draft.recipient {
        Recipient::Phone(digits) => digits.clone(),
        Recipient::User(user) => {
            let unknown = || GraphError::new(131_009, format!("recipient {user} is unknown in this portfolio"));
            phones.by_user_id(user).ok_or_else(unknown)?
        }
    };
    if digits == number.spec.display_phone_number {
        return Err(GraphError::new(131_021, "Sender and recipient phone numbers are the same"));
    }
    if number.spec.allow_list.as_ref().is_some_and(|allowed| !allowed.contains(&digits)) {
        let details = "Recipient phone number not in allowed list: add it to the recipient list of the test number";
        return Err(GraphError::new(131_030, details));
    }
    let phone = phones.dial(options, &digits);
    let trouble = if !phone.exists {
        Some(131_026)
    } else if phone.blocked.contains(&*number.id) {
        Some(130_403)
    } else {
        None
    };
    let (wa_id, user_id) = (phone.wa_id.clone(), phone.user_id.clone());
    let dialog = phone.dialog(&number.id);
    if options.pair_limit.is_some_and(|limit| !dialog.take_pair(limit, now)) {
        let details = "Message failed to send because there were too many messages sent from this phone number to the same phone number in a short period of time.";
        return Err(GraphError::new(131_056, details));
    }
    Ok(Chosen { wa_id, user_id, in_window: dialog.window_until_ms > now, trouble })
}

fn trouble_text(code: u32) -> &'static str {
    match code {
        131_026 => "Message Undeliverable.",
        130_403 => "The business is blocked by this user.",
        _ => {
            "Message failed to send because more than 24 hours have passed since the customer last replied to this number."
        }
    }
}

fn check_media(
    world: &World,
    number: &NumberCell,
    draft: &Draft<'_>,
    options: &GraphOptions,
) -> Result<(), GraphError> {
    let Some(media) = &draft.shown.media else { return Ok(()) };
    if !media.link.is_empty() {
        let is_allowed =
            media.link.starts_with("https://") || (options.http_links && media.link.starts_with("http://"));
        if !is_allowed {
            return Err(GraphError::new(100, format!("Param {}['link'] must be a public https address", media.kind)));
        }
        return Ok(());
    }
    let owner = world.graph.media.lock().owner(&media.id, world.now_ms());
    if owner.as_deref() != Some(&*number.id) {
        let details =
            format!("Param {}['id'] is not a valid whatsapp business account media attachment ID", media.kind);
        return Err(GraphError::new(100, details));
    }
    Ok(())
}

/// §2.7: not on unknown or foreign messages, not on reactions.
fn react(world: &World, wa_id: &str, message_id: &str, emoji: &str) -> Result<(), GraphError> {
    let mut ledger = world.graph.ledger.lock();
    let target = ledger.get_mut(message_id).filter(|own| own.phone == wa_id && own.shown.kind != "reaction");
    let target = target
        .ok_or_else(|| GraphError::new(131_009, "The message to react to does not exist or cannot be reacted to"))?;
    if target.route == Route::In {
        target.reaction = (!emoji.is_empty()).then(|| emoji.to_owned());
    }
    Ok(())
}

/// §5.6: delivered templates are charged, except utility ones in an open window; all else is free.
fn pricing(template: Option<&Template>, in_window: bool) -> Pricing {
    let Some(template) = template else { return Pricing::new(false, "free_customer_service", "service") };
    let category = match template.spec.category.as_str() {
        "MARKETING" => "marketing",
        "AUTHENTICATION" => "authentication",
        _ => "utility",
    };
    if category == "utility" && in_window {
        Pricing::new(false, "free_customer_service", category)
    } else {
        Pricing::new(true, "regular", category)
    }
}
