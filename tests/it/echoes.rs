//! What went to a client past the chat appears in it once, and what the portal then tells of it is not sent again.

use sandbox::{ChatAuthor, ChatMessage};
use serde_json::json;

use crate::chats::{OPERATOR, PHONE, begun, chat, chat_is_confirmed, connected, got, listed, message, shown};
use crate::world::{DEAL, Wish, World};

const EVENT: &str = "event.ONIMCONNECTORMESSAGEADD";

/// What employees are shown to have written in the client's chat.
fn ours(world: &World) -> Vec<ChatMessage> {
    let messages = chat(world).map(|chat| chat.messages).unwrap_or_default();
    messages.into_iter().filter(|message| matches!(message.author, ChatAuthor::Employee(_))).collect()
}

fn words(world: &World) -> Vec<String> {
    ours(world).into_iter().map(|message| message.text).collect()
}

async fn by_robot(wish: Wish) {
    let (world, _) = connected(wish).await;
    let stage = world.robot(&json!({"recipients": "main", "text": "Ваш заказ [1042] готов"}));
    let chat = begun(&world).await;
    let deal = world.deal(PHONE);
    world.portal.move_items(DEAL, &[deal], &stage).unwrap();
    world.until("it is shown as ours", |w| words(w) == ["Робот: Ваш заказ ［1042］ готов"]).await;
    world.until("what the portal tells of it is confirmed", chat_is_confirmed).await;
    let mirrored = ours(&world).remove(0);
    assert_eq!(mirrored.external_ids, [world.messages(PHONE)[0].wamid.clone()]);
    assert_eq!(world.sandbox.counter(EVENT), 1, "the portal told of it as if it had been written in the chat");

    // What the operator writes himself goes out all the same, the same words too.
    let own = world.portal.operator_says(chat.id, OPERATOR, "Ваш заказ [1042] готов").unwrap();
    let again = world.portal.operator_says(chat.id, OPERATOR, &mirrored.text).unwrap();
    world.until("they are confirmed", |w| !message(w, own).sending && !message(w, again).sending).await;
    assert_eq!(got(&world), ["Ваш заказ [1042] готов", "Ваш заказ [1042] готов", "Робот: Ваш заказ ［1042］ готов"]);
    assert_eq!(words(&world).len(), 3, "operators' own messages are not shown a second time");
    assert_eq!(world.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_robot_sends_is_shown_once_and_not_sent_again() {
    by_robot(Wish::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_robot_sends_is_shown_once_and_not_sent_again_on_postgres() {
    by_robot(Wish { postgres: true, ..Wish::default() }).await;
}

async fn through_trouble(wish: Wish) {
    let (mut world, _) = connected(wish).await;
    let chat = begun(&world).await;
    // The portal's word of it comes late, twice, and in between the process dies.
    world.sandbox.set_queue_knobs(|knobs| (knobs.hold, knobs.shuffle, knobs.duplicate) = (true, true, 1));
    for number in 1..=3 {
        let body = json!({"channel": world.channel, "to": PHONE, "text": format!("счёт {number}")});
        assert_eq!(world.post("/api/v1/messages", body).await.0, 202);
    }
    world.until("all are shown", |w| words(w).len() == 3).await;
    world.kill();
    world.restart().await;
    world.sandbox.set_queue_knobs(|knobs| knobs.hold = false);
    world.until("all are confirmed", chat_is_confirmed).await;
    let own = world.portal.operator_says(chat.id, OPERATOR, "и это всё").unwrap();
    world.until("what comes after is sent", |w| !message(w, own).sending).await;
    let mut sent = got(&world);
    sent.sort();
    assert_eq!(sent, ["и это всё", "счёт 1", "счёт 2", "счёт 3"], "each once");
    assert_eq!(words(&world).len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_echo_that_comes_late_twice_and_after_a_crash_is_not_sent() {
    through_trouble(Wish::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_echo_that_comes_late_twice_and_after_a_crash_is_not_sent_on_postgres() {
    through_trouble(Wish { postgres: true, ..Wish::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_on_the_phone_is_shown_once_and_not_sent() {
    let (world, _) = connected(Wish::default()).await;
    let chat = begun(&world).await;
    world.sandbox.set_webhook_knobs(|knobs| knobs.duplicate = 1);
    let wamid = world.number.type_on_phone(PHONE, "Я перезвоню");
    world.until("it is shown", |w| words(w) == ["С телефона: Я перезвоню"]).await;
    world.until("and confirmed", chat_is_confirmed).await;
    assert_eq!(ours(&world)[0].external_ids, [wamid]);
    let own = world.portal.operator_says(chat.id, OPERATOR, "Ждите").unwrap();
    world.until("what comes after is sent", |w| !message(w, own).sending).await;
    assert_eq!(got(&world), ["Ждите"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_has_written_no_chat_is_made() {
    let (world, _) = connected(Wish::default()).await;
    world.number.type_on_phone(PHONE, "Здравствуйте, это магазин");
    listed(&world, "sent", 1).await;
    begun(&world).await;
    assert_eq!((words(&world), shown(&world, ChatAuthor::Client)), (vec![], vec!["Здравствуйте".to_owned()]));
}

async fn of_who_left(wish: Wish) {
    let config = "[delivery]\nretry_schedule = [\"300ms\", \"500ms\"]\n".to_owned();
    let (world, _) = connected(Wish { config, ..wish }).await;
    let chat = begun(&world).await;
    let left = world.portal.add_user(sandbox::UserSpec::default());
    world.portal.set_fired(left, true).unwrap();
    let properties = json!({"recipients": "main", "text": "Ваш заказ готов", "responsible": left.to_string()});
    let stage = world.robot(&properties);
    let deal = world.deal(PHONE);
    world.portal.move_items(DEAL, &[deal], &stage).unwrap();
    world.until("it is shown in another name", |w| words(w) == ["Робот: Ваш заказ готов"]).await;
    assert_eq!(ours(&world)[0].author, ChatAuthor::Employee(OPERATOR));
    world.until("what the portal tells of it is confirmed", chat_is_confirmed).await;
    let own = world.portal.operator_says(chat.id, OPERATOR, "Робот: Ваш заказ готов").unwrap();
    world.until("the operator's own words go out", |w| !message(w, own).sending).await;
    assert_eq!(got(&world), ["Ваш заказ готов", "Робот: Ваш заказ готов"], "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_in_the_name_of_somebody_who_left_is_shown_in_another() {
    of_who_left(Wish::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_in_the_name_of_somebody_who_left_is_shown_on_postgres() {
    of_who_left(Wish { postgres: true, ..Wish::default() }).await;
}
