//! Webhooks: building, signing, posting, retrying; and the verification challenge. Source: §5.

use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;

use super::{error::HookError, numbers::NumberCell, statuses::Pricing};
use crate::{
    courier::Parcel,
    http::{form, json},
    php::Php,
    world::{World, fetch},
};

/// Pauses before the first, second … retry, seconds; the last one repeats for seven days.
const RETRY_PAUSES_S: [f64; 9] = [0.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0];
const RETRY_UNTIL_S: f64 = 7.0 * 86_400.0;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct StatusJson {
    pub(crate) id: String,
    pub(crate) status: &'static str,
    pub(crate) timestamp: String,
    pub(crate) recipient_id: String,
    pub(crate) recipient_user_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) biz_opaque_callback_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pricing: Option<Pricing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) errors: Option<Vec<HookError>>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct StatusContact {
    pub(crate) wa_id: String,
    pub(crate) user_id: String,
}

/// One status on its way out; failed ones have no contact.
pub(crate) struct StatusNews {
    pub(crate) contact: Option<StatusContact>,
    pub(crate) json: StatusJson,
}

#[derive(Serialize)]
struct Envelope<'a, V: Serialize> {
    object: &'static str,
    entry: [EntryJson<'a, V>; 1],
}

#[derive(Serialize)]
struct EntryJson<'a, V: Serialize> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<i64>,
    changes: [ChangeJson<'a, V>; 1],
}

#[derive(Serialize)]
struct ChangeJson<'a, V: Serialize> {
    value: V,
    field: &'a str,
}

#[derive(Serialize)]
struct StatusValue<'a> {
    messaging_product: &'static str,
    metadata: Metadata<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    contacts: Vec<&'a StatusContact>,
    statuses: Vec<&'a StatusJson>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    display_phone_number: &'a str,
    phone_number_id: &'a str,
}

/// Queues a status; with batching it waits a little for company.
pub(crate) fn push_status(world: &Arc<World>, number: &Arc<NumberCell>, news: StatusNews) {
    let (batch_max, linger_ms) = {
        let options = world.graph.options.read();
        (options.batch_max.max(1), options.batch_linger_ms)
    };
    if batch_max == 1 {
        post_statuses(world, number, &[news]);
        return;
    }
    let (full, is_first) = {
        let mut batches = world.graph.batches.lock();
        let batch = batches.entry(number.id.to_string()).or_default();
        batch.push(news);
        let is_first = batch.len() == 1;
        ((batch.len() >= batch_max).then(|| std::mem::take(batch)), is_first)
    };
    match full {
        Some(batch) => post_statuses(world, number, &batch),
        None if is_first => {
            let (then, number) = (world.clone(), number.clone());
            world.timetable.after(linger_ms, move || {
                let batch = then.graph.batches.lock().get_mut(&*number.id).map(std::mem::take).unwrap_or_default();
                if !batch.is_empty() {
                    post_statuses(&then, &number, &batch);
                }
            });
        }
        None => {}
    }
}

fn post_statuses(world: &Arc<World>, number: &Arc<NumberCell>, batch: &[StatusNews]) {
    let mut contacts: Vec<&StatusContact> = Vec::new();
    for contact in batch.iter().filter_map(|news| news.contact.as_ref()) {
        if !contacts.contains(&contact) {
            contacts.push(contact);
        }
    }
    let value = StatusValue {
        messaging_product: "whatsapp",
        metadata: metadata(number),
        contacts,
        statuses: batch.iter().map(|news| &news.json).collect(),
    };
    let phone = batch.first().map(|news| news.json.recipient_id.clone()).unwrap_or_default();
    let body = envelope(number, "messages", None, value);
    post(world, number, "webhook.statuses", &phone, body.into());
}

fn metadata(number: &NumberCell) -> Metadata<'_> {
    Metadata { display_phone_number: &number.spec.display_phone_number, phone_number_id: &number.id }
}

fn envelope<V: Serialize>(number: &NumberCell, field: &str, time: Option<i64>, value: V) -> Vec<u8> {
    json::escaped(&Envelope {
        object: "whatsapp_business_account",
        entry: [EntryJson { id: &number.spec.waba_id, time, changes: [ChangeJson { value, field }] }],
    })
}

/// Posts inbound messages: `contacts` and `messages` of §5.5.
pub(crate) fn push_messages(world: &Arc<World>, number: &Arc<NumberCell>, phone: &str, contacts: Php, messages: Php) {
    let meta = Php::map([
        ("display_phone_number", number.spec.display_phone_number.as_str().into()),
        ("phone_number_id", (&*number.id).into()),
    ]);
    let mut value = vec![("messaging_product", "whatsapp".into()), ("metadata", meta)];
    if !contacts.entries().is_empty() {
        value.push(("contacts", contacts));
    }
    value.push(("messages", messages));
    let body = envelope(number, "messages", None, Php::map(value));
    post(world, number, "webhook.messages", phone, body.into());
}

/// Posts any other field; `entry.time` is there for all but `messages`.
pub(crate) fn push_field(world: &Arc<World>, number: &Arc<NumberCell>, field: &str, value: &serde_json::Value) {
    let time = (field != "messages").then(|| world.clock.now_secs());
    let body = envelope(number, field, time, value);
    post(world, number, &format!("webhook.{field}"), "", body.into());
}

/// `X-Hub-Signature-256` without its prefix.
pub(crate) fn signature(secret: &str, body: &[u8]) -> String {
    // A key of any length is taken.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where webhooks of a number go: its own address, else the account's.
fn callback(world: &World, number: &NumberCell) -> Option<Arc<str>> {
    let accounts = world.graph.accounts.read();
    let account = accounts.get(&number.spec.waba_id)?;
    if !account.subscribed {
        return None;
    }
    let own = number.state.read().callback_url.clone();
    own.or_else(|| account.callback_url.as_deref().map(Arc::from))
}

fn post(world: &Arc<World>, number: &Arc<NumberCell>, target: &str, phone: &str, body: Bytes) {
    let Some(url) = callback(world, number) else {
        world.journal.count("webhook.unsubscribed");
        return;
    };
    let signature = format!("sha256={}", signature(&number.spec.app_secret, &body));
    let letter = Letter { target: Arc::from(target), phone: phone.to_owned(), body, signature, url };
    attempt(world, number.clone(), Arc::new(letter), 0, 0.0);
}

/// A signed body with its address.
struct Letter {
    target: Arc<str>,
    phone: String,
    body: Bytes,
    signature: String,
    url: Arc<str>,
}

fn attempt(world: &Arc<World>, number: Arc<NumberCell>, letter: Arc<Letter>, nth: usize, waited_s: f64) {
    let again = (number.clone(), letter.clone());
    let parcel = Parcel {
        target: letter.target.clone(),
        scope: number.id.clone(),
        phone: letter.phone.clone(),
        url: letter.url.clone(),
        headers: vec![
            ("content-type", "application/json".to_owned()),
            ("user-agent", "facebookexternalua".to_owned()),
            ("x-hub-signature-256", letter.signature.clone()),
        ],
        body: letter.body.clone(),
        start: None,
        done: Some(Box::new(move |world, receipt| {
            // Exactly 200 counts; everything else is tried again.
            if receipt.status != 200 {
                let (number, letter) = again;
                retry(world, number, letter, nth, waited_s);
            }
        })),
    };
    world.graph.courier.send(world, parcel);
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a pause of at most half a day")]
fn retry(world: &Arc<World>, number: Arc<NumberCell>, letter: Arc<Letter>, nth: usize, waited_s: f64) {
    let pause_s = RETRY_PAUSES_S[nth.min(RETRY_PAUSES_S.len() - 1)];
    if waited_s + pause_s > RETRY_UNTIL_S {
        world.journal.count("webhook.given_up");
        return;
    }
    world.journal.count("webhook.retried");
    let scale = world.graph.options.read().retry_scale;
    let delay_ms = (pause_s * scale * 1000.0) as u64;
    let then = world.clone();
    let again = move || attempt(&then, number, letter, nth + 1, waited_s + pause_s);
    // Only quick retries keep `settled` waiting.
    if delay_ms <= 2_000 {
        world.timetable.after(delay_ms, again);
    } else {
        world.timetable.in_background(delay_ms, again);
    }
}

/// The challenge of §5.1: 200 and the challenge as plain text, or the address is not taken.
pub(crate) async fn verify(world: &World, url: &str, verify_token: &str) -> anyhow::Result<()> {
    let challenge = world.ids.digits(10);
    let joint = if url.contains('?') { '&' } else { '?' };
    let token = form::encoded(verify_token);
    let asked = format!("{url}{joint}hub.mode=subscribe&hub.challenge={challenge}&hub.verify_token={token}");
    let request = world.client.get(&asked).timeout(std::time::Duration::from_secs(10));
    let (status, _, body) = fetch(request).await.context("the callback address did not answer")?;
    world.journal.count("webhook.verification");
    if status != 200 || body != challenge.as_bytes() {
        let said = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        bail!("the callback address answered {status} {said:?} instead of 200 and the challenge");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "5f1c0d8e7a2b49c6b3e4a5d6c7f80912";

    #[test]
    fn signs_like_the_worked_examples() {
        let first = r#"{"object":"whatsapp_business_account","entry":[{"id":"214466880011223","changes":[{"value":{"messaging_product":"whatsapp","metadata":{"display_phone_number":"79990001122","phone_number_id":"330011223344556"},"statuses":[{"id":"wamid.TESTAAA1","status":"delivered","timestamp":"1790000000","recipient_id":"79161234567"}]},"field":"messages"}]}]}"#;
        assert_eq!(first.len(), 345);
        assert_eq!(
            signature(SECRET, first.as_bytes()),
            "e333a822f55d7ebf019b2f73625d0ee48bc5a29f33e86dd9fcde36ee19260b8c"
        );
        let note = Php::map([("note", "Привет".into()), ("url", "https://crm.example/a".into())]);
        let escaped = json::escaped(&note);
        assert_eq!(escaped, br#"{"note":"\u041f\u0440\u0438\u0432\u0435\u0442","url":"https:\/\/crm.example\/a"}"#);
        assert_eq!(signature(SECRET, &escaped), "efeac20f33a82a48c807d292b4618ab556fd35454913f21a2e77b26666532593");
        let plain = json::plain(&note);
        assert_eq!(signature(SECRET, &plain), "944a672806afe362114ee459b1c644c2d867e26164e85a6f92066f3eb315f9a4");
    }

    #[test]
    fn app_secret_proof_is_the_same_function() {
        let proof = signature(SECRET, b"EAAGtestTOKEN1234567890");
        assert_eq!(proof, "0585db3404b25ab8a0af85982b5fc4eb341e542833ba85023a8469d9e46a6133");
    }
}
