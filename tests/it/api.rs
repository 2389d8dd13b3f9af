//! The management and messaging API from outside, with the pipeline running behind it.

use serde_json::json;

use crate::world::World;

const PHONE: &str = "79161234567";

async fn until_state(world: &World, id: &str, state: &str) -> serde_json::Value {
    for _ in 0..400 {
        let (_, message) = world.get(&format!("/api/v1/messages/{id}")).await;
        if message["state"] == state {
            return message;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("not {state}: {}", world.get(&format!("/api/v1/messages/{id}")).await.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_given_through_the_api_reaches_the_phone_once() {
    let world = World::new().await;
    world.open_window(PHONE).await;
    let body = json!({"channel": world.channel, "to": "8 (916) 123-45-67", "text": "Из API"});
    let url = format!("{}/api/v1/messages", world.base());
    let mut ids = Vec::new();
    for _ in 0..2 {
        let call =
            world.http.post(&url).bearer_auth("admin-token-of-the-tests").header("idempotency-key", "k1").json(&body);
        let answer = call.send().await.unwrap();
        assert_eq!(answer.status(), 202);
        ids.push(answer.json::<serde_json::Value>().await.unwrap()["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids[0], ids[1]);
    let message = until_state(&world, &ids[0], "read").await;
    assert_eq!(message["attempts"].as_array().map(Vec::len), Some(1), "{message}");
    assert_eq!(world.messages(PHONE).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_channel_keeps_its_queue_and_the_queue_can_be_cleared() {
    let world = World::new().await;
    world.open_window(PHONE).await;
    let channel = format!("/api/v1/channels/{}", world.channel);
    assert_eq!(world.post(&format!("{channel}/pause"), json!({"reason": "стоп"})).await.0, 200);
    let send = json!({"channel": world.channel, "to": PHONE, "text": "Потом"});
    let (_, first) = world.post("/api/v1/messages", send.clone()).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(world.messages(PHONE).is_empty());
    let url = format!("{}{channel}/queue", world.base());
    let answer = world.http.delete(url).bearer_auth("admin-token-of-the-tests").send().await.unwrap();
    assert_eq!(answer.json::<serde_json::Value>().await.unwrap()["cancelled"], 1);
    until_state(&world, first["id"].as_str().unwrap(), "cancelled").await;
    assert_eq!(world.post(&format!("{channel}/resume"), json!({})).await.0, 200);
    let (_, second) = world.post("/api/v1/messages", send).await;
    until_state(&world, second["id"].as_str().unwrap(), "read").await;
    assert_eq!(world.messages(PHONE).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_have_their_addresses() {
    let world = World::new().await;
    assert_eq!(world.get_text("/healthz").await.0, 200);
    assert_eq!(world.get_text("/readyz").await.0, 200);
    let plain = world.http.get(format!("{}/metrics", world.base())).send().await.unwrap();
    assert_eq!(plain.status(), 401);
    let (status, metrics) = world.get_text("/metrics").await;
    assert!(status == 200 && metrics.contains("mostik_outbox_depth"), "{metrics}");
    let (status, description) = world.get_text("/api/openapi.json").await;
    assert!(status == 200 && description.contains("/api/v1/messages"));
    assert_eq!(world.get_text("/nowhere").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_service_ends_within_ten_seconds_and_goes_on_where_it_was() {
    let mut world = World::new().await;
    world.open_window(PHONE).await;
    let began = std::time::Instant::now();
    let ended = std::process::Command::new("kill").args(["-TERM", &world.pid().to_string()]).status().unwrap();
    assert!(ended.success());
    let code = world.wait_for_end();
    assert!(began.elapsed().as_secs() < 10);
    assert_eq!(code, Some(0), "{}", world.log());
    world.restart().await;
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "Снова здесь"}));
    world.until("the comment says read", |w| w.comment(deal).contains("Прочитано")).await;
}
