//! Clock, faults, knobs, calls, counters, violations, state and change feed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Ask, Outcome, Refusal, done, good, not_allowed};
use crate::{
    amocrm::Amo,
    courier::{Courier, CourierKnobs},
    faults::Fault,
    http::{Body, Response},
    world::World,
};

/// A feed answers with at most so many changes.
const CHANGES_MAX: usize = 1_000;

pub(super) async fn route(ask: &Ask<'_>, rest: &[&str]) -> Outcome {
    let world = ask.world;
    match (ask.method, rest) {
        ("GET", ["addresses"]) => good(&json!({
            "oauth": format!("http://{}", world.bitrix.oauth_host()),
            "server_endpoint": world.bitrix.server_endpoint(),
            "amocrm": world.amo.account_url(),
            "graph": world.graph.base_url(),
            "telegram": world.telegram.base_url(),
        })),
        ("GET", ["clock"]) => good(&json!({"now_ms": world.now_ms(), "offset_ms": world.clock.offset_ms()})),
        ("POST", ["clock", "advance"]) => {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct By {
                ms: u64,
            }
            world.timetable.advance(Duration::from_millis(ask.body::<By>()?.ms));
            good(&json!({"now_ms": world.now_ms(), "offset_ms": world.clock.offset_ms()}))
        }
        ("GET", ["settled"]) => settled(ask).await,
        ("GET", ["counters"]) => good(&world.journal.counters()),
        ("GET", ["calls"]) => {
            let (target, scope) = (ask.request.query_param("target"), ask.request.query_param("scope"));
            let since = ask.query("since").unwrap_or(0);
            let limit = ask.query("limit").unwrap_or(100_usize).min(5_000);
            good(&world.journal.calls(since, target.as_deref(), scope.as_deref(), limit))
        }
        ("GET", ["violations"]) => good(&world.journal.violations()),
        ("GET", ["changes"]) => changes(ask).await,
        ("GET", ["events"]) => Ok(stream(world, ask.query("since"))),
        ("GET", ["state"]) => good(&state(ask)),
        ("POST", ["reset"]) => {
            reset(world);
            done()
        }
        (_, ["faults", rest @ ..]) => faults(ask, rest),
        (_, ["knobs", "queue", rest @ ..]) => knobs(ask, &world.bitrix.queue, rest),
        (_, ["knobs", "bots", rest @ ..]) => knobs(ask, &world.amo.courier, rest),
        (_, ["knobs", "webhooks", rest @ ..]) => knobs(ask, &world.graph.courier, rest),
        (_, ["knobs", "updates", rest @ ..]) => knobs(ask, &world.telegram.courier, rest),
        _ => Err(Refusal::missing("route")),
    }
}

/// `?within_ms=5000`: waits until nothing is owed.
async fn settled(ask: &Ask<'_>) -> Outcome {
    let within = Duration::from_millis(ask.query("within_ms").unwrap_or(5_000_u64).min(60_000));
    let zero = tokio::time::timeout(within, ask.world.pending.zero()).await.is_ok();
    good(&json!({"settled": zero, "pending": ask.world.pending.get()}))
}

fn faults(ask: &Ask<'_>, rest: &[&str]) -> Outcome {
    let book = &ask.world.faults;
    match (ask.method, rest) {
        ("GET", []) => good(&book.list()),
        ("POST", []) => {
            let id = book.add(ask.body::<Fault>()?);
            ask.world.change("fault", "", id.to_string());
            good(&json!({"id": id}))
        }
        ("DELETE", []) => {
            book.clear();
            ask.world.change("fault", "", "");
            done()
        }
        ("DELETE", [id]) => {
            let was = id.parse().is_ok_and(|id| book.remove(id));
            ask.world.change("fault", "", *id);
            if was { done() } else { Err(Refusal::missing("fault")) }
        }
        _ => not_allowed(ask),
    }
}

fn knobs(ask: &Ask<'_>, courier: &Courier, rest: &[&str]) -> Outcome {
    match (ask.method, rest) {
        ("GET", []) => {
            let (held, in_flight) = (courier.held(), courier.in_flight());
            good(&json!({"knobs": courier.knobs(), "held": held, "in_flight": in_flight}))
        }
        ("PATCH", []) => {
            let knobs = ask.patched(&courier.knobs())?;
            courier.set_knobs(ask.world, knobs);
            good(&courier.knobs())
        }
        ("POST", ["drop_held"]) => good(&json!({"dropped": courier.drop_held()})),
        _ => not_allowed(ask),
    }
}

/// Forgets faults, knobs, calls, counters and violations; the simulated world itself stays.
fn reset(world: &Arc<World>) {
    world.faults.clear();
    world.bitrix.queue.set_knobs(world, CourierKnobs::default());
    world.graph.courier.set_knobs(world, CourierKnobs::default());
    world.amo.courier.set_knobs(world, Amo::usual_knobs());
    world.telegram.courier.set_knobs(world, CourierKnobs::default());
    world.journal.clear();
}

/// Long poll: `?since=N&wait_ms=20000`.
async fn changes(ask: &Ask<'_>) -> Outcome {
    let journal = &ask.world.journal;
    let since = ask.query("since").unwrap_or(0);
    let limit = ask.query("limit").unwrap_or(CHANGES_MAX).min(CHANGES_MAX);
    let wait = Duration::from_millis(ask.query("wait_ms").unwrap_or(0_u64).min(60_000));
    let mut ticks = journal.watch();
    let waiting = async {
        loop {
            ticks.mark_unchanged();
            let (found, next) = journal.changes(since, limit);
            if !found.is_empty() {
                return (found, next);
            }
            if ticks.changed().await.is_err() {
                return (found, next);
            }
        }
    };
    let found = tokio::time::timeout(wait, waiting).await;
    let (changes, next) = found.unwrap_or_else(|_| journal.changes(since, limit));
    good(&json!({"changes": changes, "next": next}))
}

/// Server-sent events: one `data:` line per change, its number as `id:`; a comment every 15 s keeps the line open.
fn stream(world: &Arc<World>, since: Option<u64>) -> Response {
    let start = since.unwrap_or_else(|| world.journal.last_change());
    let source = futures_util::stream::unfold((world.clone(), start, false), |(world, since, greeted)| async move {
        if !greeted {
            return Some((Bytes::from_static(b": hello\n\n"), (world, since, true)));
        }
        let mut ticks = world.journal.watch();
        loop {
            ticks.mark_unchanged();
            let (found, next) = world.journal.changes(since, CHANGES_MAX);
            if !found.is_empty() {
                let mut text = String::new();
                for change in &found {
                    let json = serde_json::to_string(change).unwrap_or_default();
                    text.push_str(&format!("id: {}\ndata: {json}\n\n", change.seq));
                }
                return Some((Bytes::from(text), (world, next, true)));
            }
            tokio::select! {
                changed = ticks.changed() => changed.ok()?,
                () = tokio::time::sleep(Duration::from_secs(15)) => {
                    return Some((Bytes::from_static(b": still here\n\n"), (world, since, true)));
                }
                () = world.stop.cancelled() => return None,
            }
        }
    });
    let mut response = Response::new(200, "text/event-stream", "");
    response.body = Body::Stream(Box::pin(source));
    response
}

/// What a page needs to draw itself: `?deals=200&phones=100` bound it.
fn state(ask: &Ask<'_>) -> Value {
    let world = ask.world;
    let deals = ask.query("deals").unwrap_or(200_usize).min(2_000);
    let phones = ask.query("phones").unwrap_or(100_usize).min(2_000);
    let change = world.journal.last_change();
    let portals: Vec<Value> =
        super::bitrix::all(world).iter().map(|portal| super::bitrix::board(portal, deals)).collect();
    json!({
        "now_ms": world.now_ms(),
        "change": change,
        "pending": world.pending.get(),
        "portals": portals,
        "apps": world.bitrix.apps(),
        "numbers": super::whatsapp::all(world).iter().map(|number| number.view()).collect::<Vec<_>>(),
        "phones": world.graph.phones.lock().views(phones),
        "phone_count": world.graph.phones.lock().len(),
        "faults": world.faults.list(),
        "knobs": {"queue": world.bitrix.queue.knobs(), "webhooks": world.graph.courier.knobs()},
        "messages_accepted": world.graph.ledger.lock().accepted,
        "violations": world.journal.counter("violations"),
    })
}
