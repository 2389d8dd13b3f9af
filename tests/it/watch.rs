//! Silence, told on the card and taken back.

use std::time::Duration;

use serde_json::json;

use crate::world::{Wish, World, text};

const PHONE: &str = "79161234567";

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_is_off_is_told_without_alarm_and_taken_back_on_sqlite() {
    silence(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_is_off_is_told_without_alarm_and_taken_back_on_postgres() {
    silence(true).await;
}

async fn silence(postgres: bool) {
    let config = "[delivery]\nsilence_sent = \"1s\"\n".to_owned();
    let world = World::with(Wish { postgres, config, ..Wish::default() }).await;
    world.open_window(PHONE).await;
    world.sandbox.phone(PHONE).set_online(false);
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "Заказ готов"}));
    world.until("the card tells the silence", |w| w.comment(deal).contains("возможно, телефон выключен")).await;
    let comment = world.comment(deal);
    assert!(comment.contains("Отправлено") && !comment.contains("Причина"), "{comment}");
    let (_, metrics) = world.get_text("/metrics").await;
    let oldest = metrics.lines().find(|line| line.starts_with("mostik_oldest_open_message_seconds{state=\"sent\"}"));
    let age: f64 = oldest.unwrap_or_else(|| panic!("{metrics}")).rsplit(' ').next().unwrap().parse().unwrap();
    assert!(age >= 1.0, "{age}");
    world.sandbox.phone(PHONE).set_online(true);
    world.until("the late status takes it back", |w| w.comment(deal).contains("Прочитано")).await;
    assert!(!world.comment(deal).contains("телефон выключен"), "{}", world.comment(deal));
    assert_eq!((world.comments(deal).len(), world.messages(PHONE).len()), (1, 1));
}

/// Waits until the channel's queue is so long.
async fn queue_of(world: &World, length: u64) {
    let path = format!("/api/v1/channels/{}", world.channel);
    for _ in 0..400 {
        if world.get(&path).await.1["queue"].as_u64() == Some(length) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the queue is not {length} long: {}", world.get(&path).await.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_incident_the_old_is_dropped_and_cards_and_robots_hear_of_it() {
    let world = World::new().await;
    world.open_window(PHONE).await;
    let path = format!("/api/v1/channels/{}", world.channel);
    assert_eq!(world.post(&format!("{path}/pause"), json!({})).await.0, 200);
    let old = world.deal(PHONE);
    world.fire(old, &json!({"recipients": "main", "text": "Старое"}));
    queue_of(&world, 1).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let young = world.deal(PHONE);
    world.fire(young, &json!({"recipients": "main", "text": "Новое"}));
    queue_of(&world, 2).await;
    let (status, resumed) = world.post(&format!("{path}/resume"), json!({"ramp": true, "drop_older_than": "8s"})).await;
    assert_eq!((status, &resumed["cancelled"], &resumed["ramp"]["percent"]), (200, &json!(1), &json!(10)), "{resumed}");
    let result = world.result_of(old).await;
    assert_eq!((text(&result, "status"), text(&result, "error_code")), ("N".into(), "cancelled".into()), "{result:?}");
    world.until("the card says so", |w| w.comment(old).contains("Отменено")).await;
    assert_eq!(text(&world.result_of(young).await, "status"), "Y");
    let texts: Vec<String> = world.messages(PHONE).iter().map(|message| message.shown.text.clone()).collect();
    assert_eq!(texts, ["Новое"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_start_outlasts_a_restart() {
    let channel = json!({"messages_per_second": 10});
    let mut world = World::with(Wish { channel, ..Wish::default() }).await;
    world.open_window(PHONE).await;
    let path = format!("/api/v1/channels/{}", world.channel);
    assert_eq!(world.post(&format!("{path}/pause"), json!({})).await.0, 200);
    for number in 0..20 {
        let to = format!("7916123{number:04}");
        let body = json!({"channel": world.channel, "to": to, "template": "greeting:ru"});
        assert_eq!(world.post("/api/v1/messages", body).await.0, 202);
    }
    queue_of(&world, 20).await;
    // One in a hundred seconds; two may leave at once, whenever a process begins.
    let slow = json!({"ramp": {"start_percent": 1, "double_every": "1h"}});
    let (status, resumed) = world.post(&format!("{path}/resume"), slow).await;
    assert_eq!((status, &resumed["ramp"]["percent"]), (200, &json!(1)), "{resumed}");
    world.until("some have left", |w| w.sandbox.ledger().accepted() >= 2).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = world.sandbox.ledger().accepted();
    assert!(before <= 3, "{before} left at a tenth of one a second");
    world.kill();
    world.restart().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let after = world.sandbox.ledger().accepted();
    assert!(after <= before + 3, "{after} left after the restart");
    assert_eq!(world.get(&path).await.1["ramp"]["percent"], 1);
    assert_eq!(world.post(&format!("{path}/resume"), json!({})).await.0, 200);
    world.until("the rest leaves at the whole pace", |w| w.sandbox.ledger().accepted() >= 19).await;
    world.until("nothing was lost", |w| w.sandbox.ledger().accepted() == 20).await;
    assert_eq!(world.sandbox.ledger().repeated(), 0);
}
