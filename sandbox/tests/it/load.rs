//! The sandbox must not be the slow one: deals through a minimal service, and the rates that came out.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use sandbox::entity;
use serde_json::json;

use crate::support::Stage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_deals_pass_quickly_and_once() {
    pass(300).await;
}

/// Robots fire, messages are sent, statuses come back, comments are written in batches: everything arrives once.
async fn pass(deals_wanted: usize) {
    let stage = Stage::installed().await;
    stage.with_robot(json!({})).await;
    stage.portal.set_switches(|switches| switches.event_send_deaf_ms = 0);
    let number = stage
        .sandbox
        .add_number(sandbox::NumberSpec {
            throughput: 0,
            callback_url: Some(stage.service.url("/hook")),
            ..Default::default()
        })
        .unwrap();
    let spec = number.view().spec;
    let mut deals = Vec::new();
    for nth in 0..deals_wanted {
        let contact = stage.portal.add_contact("A", "B", &format!("+7916{nth:07}")).unwrap();
        deals.push(stage.portal.add_deal("load", contact).unwrap());
        stage.sandbox.phone(&format!("7916{nth:07}")).open_window(&number);
    }
    let started = Instant::now();
    stage.portal.move_items(entity::DEAL, &deals, "PREPARATION").unwrap();
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let graph = format!("{}/v24.0/{}/messages", stage.sandbox.addresses().graph, spec.phone_number_id);
    let senders: Vec<_> = (0..16)
        .map(|_| {
            let (http, graph, token, sent) = (stage.http.clone(), graph.clone(), spec.access_token.clone(), sent.clone());
            tokio::spawn(async move {
                loop {
                    let nth = sent.fetch_add(1, Ordering::Relaxed);
                    if nth >= deals_wanted {
                        return;
                    }
                    let body = json!({"messaging_product": "whatsapp", "to": format!("7916{nth:07}"), "text": {"body": "x"}, "biz_opaque_callback_data": format!("o{nth}")});
                    assert_eq!(http.post(&graph).bearer_auth(&token).json(&body).send().await.unwrap().status(), 200);
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    for chunk in deals.chunks(50) {
        let command = |deal: &i64| {
            format!(
                "crm.timeline.comment.add?fields%5BENTITY_ID%5D={deal}&fields%5BENTITY_TYPE%5D=deal&fields%5BCOMMENT%5D=sent"
            )
        };
        let cmd: serde_json::Map<String, serde_json::Value> =
            chunk.iter().map(|deal| (format!("k{deal}"), json!(command(deal)))).collect();
        assert_eq!(stage.ok("batch", json!({"cmd": cmd})).await["result_error"], json!([]));
    }
    stage.sandbox.settled(Duration::from_secs(30)).await.unwrap();
    let took = started.elapsed();
    let ledger = stage.sandbox.ledger();
    assert_eq!((ledger.accepted(), ledger.repeated()), (deals_wanted as u64, 0));
    assert_eq!(stage.sandbox.counter("webhook.statuses"), 3 * deals_wanted as u64);
    assert_eq!(stage.sandbox.counter("robot.callback"), deals_wanted as u64);
    assert_eq!(stage.service.on("/robots/send_message").len(), deals_wanted);
    assert_eq!(stage.portal.timeline_total(), deals_wanted);
    assert!(stage.sandbox.refusals().is_empty());
    // The limit is loose: a busy machine and a debug build are no fault of the sandbox.
    assert!(took < Duration::from_secs(15), "{took:?}");
    eprintln!("{deals_wanted} deals in {took:?}");
}
