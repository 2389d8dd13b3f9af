//! Deadlines, replaced messages, texts that must not come twice, quiet hours: from the robot's call to the card.

use std::time::Duration;

use sandbox::{Action, Fault};
use serde_json::{Value, json};

use crate::world::{DEAL, SOON, Wish, World, text};

/// A mobile number of Russia: it does not tell where its owner is.
const PHONE: &str = "79161234567";
const TOKEN: &str = "admin-token-of-the-tests";

/// A service that gives up after so long, and tries again often.
fn hasty(not_after: &str) -> Wish {
    let config = format!("[delivery]\nretry_schedule = [\"400ms\"]\nnot_after = \"{not_after}\"\n");
    Wish { config, ..Wish::default() }
}

/// Changes settings of the line.
async fn set_line(world: &World, settings: &Value) {
    let url = format!("{}/api/v1/lines/{}", world.base(), world.line);
    let body = json!({"settings": settings});
    let answer = world.http.patch(url).bearer_auth(TOKEN).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{settings}");
}

async fn channel(world: &World, verb: &str) {
    let path = format!("/api/v1/channels/{}/{verb}", world.channel);
    assert_eq!(world.post(&path, json!({})).await.0, 200);
}

/// Waits until the API lists so many messages of ours; gives their states, newest first.
async fn listed(world: &World, count: usize) -> Vec<String> {
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let (_, list) = world.get(&format!("/api/v1/messages?channel={}&limit=200", world.channel)).await;
        let ours: Vec<&Value> = list["items"].as_array().unwrap().iter().filter(|m| m["direction"] == "out").collect();
        if ours.len() == count {
            return ours.iter().map(|message| message["state"].as_str().unwrap().to_owned()).collect();
        }
        assert!(std::time::Instant::now() < deadline, "not {count}: {list}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn texts(world: &World) -> Vec<String> {
    world.messages(PHONE).into_iter().map(|message| message.shown.text).collect()
}

/// `HH:MM` by a clock of this offset, so many minutes from now.
fn clock(offset_hours: i64, minutes: i64) -> String {
    #[expect(clippy::disallowed_methods, reason = "the service under test lives by the same clock")]
    let now = jiff::Timestamp::now().as_second();
    let minute = (now / 60 + offset_hours * 60 + minutes).rem_euclid(1440);
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_kept_while_the_channel_is_paused() {
    let world = World::with(hasty("1s")).await;
    world.open_window(PHONE).await;
    channel(&world, "pause").await;
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "Напоминание"}));
    let result = world.result_of(deal).await;
    assert_eq!((text(&result, "status"), text(&result, "error_code")), ("N".into(), "expired".into()), "{result:?}");
    world.until("the card says so", |w| w.comment(deal).contains("Срок отправки истёк")).await;
    let (_, letters) = world.get("/api/v1/dead-letters").await;
    assert_eq!(letters["items"][0]["reason"], "not sent in time", "{letters}");
    channel(&world, "resume").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(texts(&world), Vec::<String>::new(), "it is too late");
}

#[tokio::test(flavor = "multi_thread")]
async fn line_and_robot_set_deadlines_of_their_own() {
    let world = World::with(hasty("1s")).await;
    world.open_window(PHONE).await;
    let down = || {
        let action =
            Action::Error { code: "131016".into(), status: None, description: None, retry_after: None, after: false };
        world.sandbox.add_fault(Fault::new("graph.messages", action).times(6));
    };
    down();
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "Без срока"}));
    assert_eq!(text(&world.result_of(deal).await, "error_code"), "expired", "the configured second is over");
    world.sandbox.clear_faults();
    down();
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "Час у робота", "not_after_minutes": "60"}));
    assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
    set_line(&world, &json!({"not_after_minutes": 60})).await;
    down();
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "Час у линии"}));
    assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
    assert_eq!(texts(&world), ["Час у робота", "Час у линии"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_kept_while_the_card_cannot_be_read() {
    let world = World::with(hasty("1s")).await;
    world.open_window(PHONE).await;
    world.sandbox.add_fault(Fault::new("rest.batch", Action::CutBefore).times(1000));
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "Напоминание"}));
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.sandbox.clear_faults();
    let result = world.result_of(deal).await;
    assert_eq!((text(&result, "status"), text(&result, "error_code")), ("N".into(), "expired".into()), "{result:?}");
    world.until("the card says so", |w| w.comment(deal).contains("Срок отправки истёк")).await;
    assert_eq!(texts(&world), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_message_of_the_same_robot_replaces_the_waiting_one() {
    let world = World::new().await;
    world.open_window(PHONE).await;
    set_line(&world, &json!({"supersede": true})).await;
    channel(&world, "pause").await;
    let deal = world.deal(PHONE);
    let reminder = world.robot(&json!({"recipients": "main", "text": "Напоминание"}));
    let bill = world.robot(&json!({"recipients": "main", "text": "Счёт готов"}));
    let both = world.robot(&json!({"recipients": "main", "text": "Дважды", "supersede": "no"}));
    let stages = [&reminder, &bill, &both, &reminder, &both];
    for (number, stage) in stages.into_iter().enumerate() {
        world.portal.move_item(DEAL, deal, stage).unwrap();
        listed(&world, number + 1).await;
    }
    world
        .until("the replaced robot is answered", |w| {
            let runs = w.portal.robot_runs(DEAL, deal);
            runs.iter().filter(|run| run.finished_ms.is_some()).count() == 1
        })
        .await;
    let first = world.portal.robot_runs(DEAL, deal).into_iter().find(|run| run.finished_ms.is_some()).unwrap();
    assert_eq!(text(&first.results, "error_code"), "superseded");
    let replaced = "Заменено более новым сообщением";
    world
        .until("its card says so", |w| {
            let comments = w.comments(deal);
            comments.iter().any(|c| c.text.contains(replaced) && c.text.contains("Напоминание"))
        })
        .await;
    assert_eq!(world.comments(deal).iter().filter(|comment| comment.text.contains(replaced)).count(), 1);
    channel(&world, "resume").await;
    world.until("the others arrive", |w| w.messages(PHONE).len() == 4).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(texts(&world), ["Счёт готов", "Дважды", "Напоминание", "Дважды"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_was_just_sent_is_refused_or_held() {
    let world = World::new().await;
    world.open_window(PHONE).await;
    set_line(&world, &json!({"duplicates": "refuse", "duplicate_hours": 1})).await;
    let send = |properties: Value| {
        let deal = world.deal(PHONE);
        world.fire(deal, &properties);
        deal
    };
    let offer = |more: Value| {
        let mut properties = json!({"recipients": "main", "text": "{Акция|Распродажа} до вечера"});
        properties.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        properties
    };
    assert_eq!(text(&world.result_of(send(offer(json!({})))).await, "status"), "Y");
    let refused = send(offer(json!({})));
    let result = world.result_of(refused).await;
    assert_eq!((text(&result, "status"), text(&result, "error_code")), ("N".into(), "duplicate_text".into()));
    world.until("the card says so", |w| w.comment(refused).contains("Такой же текст клиент недавно получил")).await;
    let other = send(json!({"recipients": "main", "text": "Другой текст"}));
    assert_eq!(text(&world.result_of(other).await, "status"), "Y");

    let held = send(offer(json!({"duplicates": "hold"})));
    assert_eq!(text(&world.result_of(held).await, "error_code"), "duplicate_held");
    world.until("the card says that it is held", |w| w.comment(held).contains("Задержано")).await;
    assert_eq!(world.messages(PHONE).len(), 2);
    let (_, letters) = world.get("/api/v1/dead-letters").await;
    let letter = &letters["items"][0];
    assert_eq!(letter["reason_code"], "held", "{letters}");
    let path = format!("/api/v1/dead-letters/{}/redrive", letter["id"].as_str().unwrap());
    assert_eq!(world.post(&path, json!({})).await.0, 202);
    world.until("the released message is read", |w| w.comment(held).contains("Прочитано")).await;
    assert_eq!(world.messages(PHONE).len(), 3);

    let wanted = send(offer(json!({"duplicates": "off"})));
    assert_eq!(text(&world.result_of(wanted).await, "status"), "Y");
    assert_eq!(world.messages(PHONE).len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_robot_fired_twice_at_once_sends_one_text() {
    let world = World::with(Wish { postgres: true, ..Wish::default() }).await;
    world.open_window(PHONE).await;
    set_line(&world, &json!({"duplicates": "refuse"})).await;
    let stage = world.robot(&json!({"recipients": "given", "phones": [PHONE], "text": "Один раз"}));
    let deals: Vec<i64> = (0..8).map(|_| world.deal(PHONE)).collect();
    for deal in &deals {
        world.portal.move_item(DEAL, *deal, &stage).unwrap();
    }
    let mut codes = Vec::new();
    for deal in deals {
        codes.push(text(&world.result_of(deal).await, "error_code"));
    }
    codes.sort_unstable();
    assert_eq!(codes[0], "");
    assert!(codes[1..].iter().all(|code| code == "duplicate_text"), "{codes:?}");
    assert_eq!(texts(&world), ["Один раз"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_quiet_hours_is_planned_and_keeps_its_place() {
    let world = World::new().await;
    world.open_window(PHONE).await;
    let (from, to) = (clock(5, -60), clock(5, 120));
    // The card knows where the client is.
    let planned = world.deal(PHONE);
    let hours = format!("{from}-{to}");
    world.fire(
        planned,
        &json!({"recipients": "main", "text": "Утром", "quiet_hours": hours, "time_zone": "МСК+2", "wait_minutes": "1"}),
    );
    let words = format!("Запланировано на {to} ");
    world.until("the card says when", |w| w.comment(planned).contains(&words)).await;
    let comment = world.comment(planned);
    assert!(comment.contains("по времени клиента (UTC+05:00)") && comment.contains("Ждёт отправки"), "{comment}");
    // Behind it in the same dialog, whatever its own hours are.
    let behind = world.deal(PHONE);
    world.fire(behind, &json!({"recipients": "main", "text": "Следом", "quiet_hours": "off"}));
    listed(&world, 2).await;
    // Another dialog does not wait, and neither does what somebody writes now.
    world.open_window("79160000001").await;
    let elsewhere = world.deal("79160000001");
    world.fire(elsewhere, &json!({"recipients": "main", "text": "Другому"}));
    assert_eq!(text(&world.result_of(elsewhere).await, "status"), "Y");
    let reply = json!({"channel": world.channel, "to": PHONE, "text": "Отвечаю сейчас"});
    assert_eq!(world.post("/api/v1/messages", reply).await.0, 202);
    world.until("the reply is there", |w| !w.messages(PHONE).is_empty()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(texts(&world), ["Отвечаю сейчас"]);
    // Too late before it begins: said at once.
    let late = world.deal(PHONE);
    let properties = json!({
        "recipients": "main", "text": "К обеду", "quiet_hours": hours, "time_zone": "Asia/Yekaterinburg",
        "not_after_minutes": "30",
    });
    world.fire(late, &properties);
    assert_eq!(text(&world.result_of(late).await, "error_code"), "expired");
    let words = format!("Тихие часы кончаются в {to} ");
    world.until("the card says why", |w| w.comment(late).contains(&words)).await;
    assert_eq!(world.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_message_leaves_when_the_quiet_hours_of_its_line_end() {
    let world = World::new().await;
    world.open_window(PHONE).await;
    #[expect(clippy::disallowed_methods, reason = "the service under test lives by the same clock")]
    let second = jiff::Timestamp::now().as_second() % 60;
    // At least a few seconds ahead.
    let minutes = if second < 52 { 1 } else { 2 };
    let hours = json!({"from": clock(0, -30), "to": clock(0, minutes)});
    set_line(&world, &json!({"quiet_hours": hours, "time_zone": "UTC"})).await;
    let first = world.deal(PHONE);
    world.fire(first, &json!({"recipients": "main", "text": "Первое", "wait_minutes": "3"}));
    listed(&world, 1).await;
    let second = world.deal(PHONE);
    world.fire(second, &json!({"recipients": "main", "text": "Второе", "quiet_hours": "off", "wait_minutes": "3"}));
    assert_eq!(listed(&world, 2).await, ["queued", "queued"]);
    world.until("the card says when", |w| w.comment(first).contains("Запланировано на")).await;
    assert!(!world.comment(first).contains("клиента"), "the line's clock, not the client's: {}", world.comment(first));
    world.within(Duration::from_secs(90), "both arrive", |w| w.messages(PHONE).len() == 2).await;
    assert_eq!(texts(&world), ["Первое", "Второе"]);
    world.until("the card forgets the plan", |w| w.comment(first).contains("Прочитано")).await;
    assert!(!world.comment(first).contains("Запланировано"), "{}", world.comment(first));
    assert_eq!(text(&world.result_of(first).await, "status"), "Y");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_queued_before_does_not_leave_in_quiet_hours_either() {
    let world = World::new().await;
    world.open_window(PHONE).await;
    channel(&world, "pause").await;
    // Not quiet yet when it is planned; quiet when the channel is resumed.
    #[expect(clippy::disallowed_methods, reason = "the service under test lives by the same clock")]
    let second = jiff::Timestamp::now().as_second() % 60;
    let minutes = if second < 50 { 1 } else { 2 };
    let to = clock(0, 120);
    let hours = format!("{}-{to}", clock(0, minutes));
    let deal = world.deal(PHONE);
    let properties = json!({"recipients": "main", "text": "Не сейчас", "quiet_hours": hours, "time_zone": "UTC"});
    world.fire(deal, &properties);
    assert_eq!(listed(&world, 1).await, ["queued"]);
    assert_eq!(world.comment(deal), "", "it could leave at once");
    let wait = u64::try_from(minutes * 60 - second).unwrap() + 1;
    tokio::time::sleep(Duration::from_secs(wait)).await;
    channel(&world, "resume").await;
    let words = format!("Запланировано на {} ", clock(0, 119));
    let near = format!("Запланировано на {} ", clock(0, 118));
    world.until("the card says when", |w| w.comment(deal).contains(&words) || w.comment(deal).contains(&near)).await;
    assert!(!world.comment(deal).contains("Причина"), "{}", world.comment(deal));
    assert_eq!(texts(&world), Vec::<String>::new());
}
