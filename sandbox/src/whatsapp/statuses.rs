//! What becomes of an accepted message: `sent`, `delivered`, `read`, or `failed`, each by webhook. Source: §5.6.

use std::sync::Arc;

use serde::Serialize;

use super::{
    error::GraphError,
    ledger::Delivery,
    numbers::NumberCell,
    webhooks::{self, StatusContact, StatusJson, StatusNews},
};
use crate::{
    clock::Millis,
    world::{World, fetch},
};

/// `pricing` of a status.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pricing {
    billable: bool,
    pricing_model: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    category: &'static str,
}

impl Pricing {
    pub(crate) fn new(billable: bool, kind: &'static str, category: &'static str) -> Self {
        Self { billable, pricing_model: "PMP", kind, category }
    }
}

/// What later statuses of a message need to know.
pub(crate) struct Track {
    pub(crate) number: Arc<NumberCell>,
    pub(crate) wamid: String,
    pub(crate) wa_id: String,
    pub(crate) user_id: String,
    pub(crate) opaque: Option<String>,
    pub(crate) is_reaction: bool,
    pub(crate) pricing: Pricing,
}

/// Starts the life of a message; `link` = medium to be fetched first.
pub(crate) fn begin(
    world: &Arc<World>,
    track: Arc<Track>,
    failure: Option<GraphError>,
    link: Option<(String, String)>,
) {
    let delay = delay_ms(world, world.graph.options.read().sent_ms);
    let Some((kind, link)) = link.filter(|_| failure.is_none()) else {
        later(world, delay, track, move |world, track| match failure {
            Some(error) => fail(world, &track, &error),
            None => sent(world, track),
        });
        return;
    };
    let world = world.clone();
    world.pending.add();
    tokio::spawn(async move {
        let failure = fetch_link(&world, &kind, &link).await.err();
        later(&world, delay, track, move |world, track| match failure {
            Some(error) => fail(world, &track, &error),
            None => sent(world, track),
        });
        world.pending.done();
    });
}

fn delay_ms(world: &World, base: u64) -> u64 {
    let jitter = world.graph.options.read().jitter_ms;
    base + if jitter > 0 { world.ids.up_to(jitter) } else { 0 }
}

fn later(
    world: &Arc<World>,
    delay: u64,
    track: Arc<Track>,
    step: impl FnOnce(&Arc<World>, Arc<Track>) + Send + 'static,
) {
    let then = world.clone();
    world.timetable.after(delay, move || step(&then, track));
}

/// Meta fetches the file itself; what goes wrong is told by webhook (§2.4).
async fn fetch_link(world: &World, kind: &str, link: &str) -> Result<(), GraphError> {
    let broken = |details: String| GraphError::new(131_053, details);
    let url = reqwest::Url::parse(link).map_err(|error| broken(error.to_string()))?;
    if !matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]")) {
        return Ok(());
    }
    let request = world.client.get(url).timeout(std::time::Duration::from_secs(20));
    let (status, headers, body) =
        fetch(request).await.map_err(|error| GraphError::new(131_052, format!("{error:#}")))?;
    if status != 200 {
        return Err(GraphError::new(131_052, format!("Downloading media from weblink failed with http code {status}")));
    }
    let mime = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or("");
    super::media::check(kind, mime, body.len()).map_err(broken)
}

fn sent(world: &Arc<World>, track: Arc<Track>) {
    note(world, &track, "sent", None);
    tell(world, &track, "sent", true, None);
    if track.is_reaction {
        // §2.7: only `sent` comes back for a reaction.
        if let Some(message) = world.graph.ledger.lock().get_mut(&track.wamid) {
            message.arrived = true;
        }
        return;
    }
    let options = world.graph.options.read().clone();
    let is_online = {
        let mut phones = world.graph.phones.lock();
        let phone = phones.dial(&options, &track.wa_id);
        if !phone.online {
            phone.dialog(&track.number.id).undelivered.push(track.clone());
        }
        phone.online
    };
    if is_online {
        later(world, delay_ms(world, options.delivered_ms), track, delivered);
    }
}

/// The phone shows the message now.
pub(crate) fn delivered(world: &Arc<World>, track: Arc<Track>) {
    let options = world.graph.options.read().clone();
    let reads = {
        let mut phones = world.graph.phones.lock();
        let phone = phones.dial(&options, &track.wa_id);
        if !phone.online {
            phone.dialog(&track.number.id).undelivered.push(track.clone());
            return;
        }
        let reads = phone.auto_read.unwrap_or(options.auto_read);
        if !reads {
            phone.dialog(&track.number.id).unread.push(track.clone());
        }
        reads
    };
    if let Some(message) = world.graph.ledger.lock().get_mut(&track.wamid) {
        message.arrived = true;
    }
    note(world, &track, "delivered", None);
    tell(world, &track, "delivered", true, None);
    if reads {
        later(world, delay_ms(world, options.read_ms), track, |world, track| read(world, &track));
    }
}

/// The person has seen it; told only if receipts are on.
pub(crate) fn read(world: &Arc<World>, track: &Track) {
    let options = world.graph.options.read().clone();
    if !world.graph.phones.lock().dial(&options, &track.wa_id).read_receipts {
        return;
    }
    note(world, track, "read", None);
    tell(world, track, "read", false, None);
}

fn fail(world: &Arc<World>, track: &Track, error: &GraphError) {
    note(world, track, "failed", Some(error.code));
    world.journal.count(&format!("status.failed.{}", error.code));
    tell(world, track, "failed", false, Some(error));
}

fn note(world: &World, track: &Track, status: &str, code: Option<u32>) {
    let at_ms: Millis = world.now_ms();
    if let Some(message) = world.graph.ledger.lock().get_mut(&track.wamid) {
        message.statuses.push(Delivery { status: status.to_owned(), at_ms, code });
    }
    world.journal.count(match status {
        "sent" => "status.sent",
        "delivered" => "status.delivered",
        "read" => "status.read",
        _ => "status.failed",
    });
    world.change("status", &track.number.id, track.wamid.clone());
}

fn tell(world: &Arc<World>, track: &Track, status: &'static str, priced: bool, error: Option<&GraphError>) {
    let contact = StatusContact { wa_id: track.wa_id.clone(), user_id: track.user_id.clone() };
    let json = StatusJson {
        id: track.wamid.clone(),
        status,
        timestamp: world.clock.now_secs().to_string(),
        recipient_id: track.wa_id.clone(),
        recipient_user_id: track.user_id.clone(),
        biz_opaque_callback_data: track.opaque.clone(),
        pricing: priced.then(|| track.pricing.clone()),
        errors: error.map(|error| vec![error.hook()]),
    };
    webhooks::push_status(world, &track.number, StatusNews { contact: error.is_none().then_some(contact), json });
}
