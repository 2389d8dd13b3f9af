//! What operators change and delete in a chat happens to what the client has, once and in their order; where it cannot, the
//! chat says so.

use sandbox::{Action, Bot, BotSpec, Chat, ChatAuthor, ChatMessage, Fault};
use serde_json::json;

use crate::chats::{OPERATOR, PHONE, begun, connected, message, portal_of};
use crate::telegram::PERSON;
use crate::world::{SOON, Wish, World};

/// A chat of an open line in which a person has written to a bot; gives the bot and its channel too.
pub(crate) async fn with_bot(wish: Wish) -> (World, Bot, String, Chat) {
    let (world, line) = connected(wish).await;
    let bot = world.sandbox.add_bot(BotSpec::default()).unwrap();
    let token = bot.view().spec.token;
    let channel = json!({"provider": "telegram_bot", "name": "Бот", "credentials": {"token": token}});
    let (status, answer) = world.post(&format!("/api/v1/lines/{}/channels", world.line), channel).await;
    assert_eq!(status, 201, "{answer}");
    let body = json!({"messenger": "telegram", "open_line": line.to_string(), "line": world.line});
    let path = format!("/api/v1/portals/{}/open-lines", portal_of(&world).await);
    assert_eq!(world.post(&path, body).await.0, 201);
    let stands = |w: &World| w.portal.standing("mostik_main_telegram", line).is_some_and(|standing| standing.active);
    world.until("the bot's connector stands", stands).await;
    world.sandbox.bot_person(PERSON).say(&bot, "Здравствуйте").unwrap();
    world.until("the person's words are shown", |w| !w.portal.chats().is_empty()).await;
    let chat = world.portal.chats().remove(0);
    (world, bot, answer["id"].as_str().unwrap().to_owned(), chat)
}

pub(crate) fn texts(bot: &Bot) -> Vec<String> {
    bot.sent(PERSON).into_iter().map(|message| message.text).collect()
}

pub(crate) fn notes(world: &World) -> Vec<String> {
    let messages = world.portal.chats().remove(0).messages.into_iter();
    messages.filter(|message| message.author == ChatAuthor::Note).map(|message| message.text).collect()
}

fn of(world: &World, id: i64) -> Option<ChatMessage> {
    world.portal.chats().into_iter().flat_map(|chat| chat.messages).find(|message| message.id == id)
}

fn confirmed(world: &World, id: i64) -> u32 {
    of(world, id).map_or(0, |message| message.confirmed)
}

/// Waits until so many messages to the person wait to be sent.
async fn waiting(world: &World, count: usize) {
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let (_, page) = world.get(&format!("/api/v1/messages?peer=tg.{PERSON}&state=queued")).await;
        if page["items"].as_array().is_some_and(|items| items.len() == count) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{page}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn changed(wish: Wish) {
    let (world, bot, _, chat) = with_bot(wish).await;
    // Every event comes twice.
    world.sandbox.set_queue_knobs(|knobs| knobs.duplicate = 1);
    let first = world.portal.operator_says(chat.id, OPERATOR, "Цена 100").unwrap();
    let second = world.portal.operator_says(chat.id, OPERATOR, "Ждём вас").unwrap();
    world.until("both are confirmed", |w| confirmed(w, first) > 0 && confirmed(w, second) > 0).await;
    world.portal.operator_edits(chat.id, OPERATOR, first, "Цена [b]120[/b]").unwrap();
    world.until("the client sees the new words", |_| texts(&bot) == ["Цена 120", "Ждём вас"]).await;
    world.until("the change is confirmed", |w| confirmed(w, first) > 1).await;
    world.portal.operator_deletes(chat.id, OPERATOR, second).unwrap();
    world.until("it is gone", |_| texts(&bot) == ["Цена 120"]).await;
    world.sandbox.settled(SOON).await.unwrap();
    assert_eq!((world.sandbox.counter("telegram.edited"), world.sandbox.counter("telegram.deleted")), (1, 1));
    assert_eq!((world.sandbox.counter("telegram.sent"), notes(&world)), (2, vec![]));
    assert_eq!(world.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_change_and_delete_the_client_sees_so() {
    changed(Wish::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_change_and_delete_the_client_sees_so_on_postgres() {
    changed(Wish { postgres: true, ..Wish::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_text_that_becomes_short_is_changed_in_its_first_part_and_the_rest_goes() {
    let (world, bot, _, chat) = with_bot(Wish::default()).await;
    let id = world.portal.operator_says(chat.id, OPERATOR, &"Очень длинный ответ. ".repeat(400)).unwrap();
    world.until("it is confirmed", |w| confirmed(w, id) > 0).await;
    assert!(texts(&bot).len() >= 2);
    world.portal.operator_edits(chat.id, OPERATOR, id, "Короче: да").unwrap();
    world.until("the rest is gone", |_| texts(&bot) == ["Короче: да"]).await;
    // Longer than what stands there cannot be put in its place.
    let id = world.portal.operator_says(chat.id, OPERATOR, "Коротко").unwrap();
    world.until("it is confirmed", |w| confirmed(w, id) > 0).await;
    world.portal.operator_edits(chat.id, OPERATOR, id, &"Теперь длинно. ".repeat(400)).unwrap();
    world.until("the operator is told", |w| notes(w).len() == 1).await;
    assert!(notes(&world)[0].contains("Изменение не дошло до клиента"), "{:?}", notes(&world));
    assert_eq!(texts(&bot), ["Короче: да", "Коротко"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_wait_are_overtaken_by_later_ones_and_by_the_deletion() {
    let (world, bot, channel, chat) = with_bot(Wish::default()).await;
    let id = world.portal.operator_says(chat.id, OPERATOR, "Первое").unwrap();
    let gone = world.portal.operator_says(chat.id, OPERATOR, "Лишнее").unwrap();
    world.until("both are confirmed", |w| confirmed(w, id) > 0 && confirmed(w, gone) > 0).await;
    assert_eq!(world.post(&format!("/api/v1/channels/{channel}/pause"), json!({})).await.0, 200);
    // Of changes in the same second nothing but their coming tells the order.
    for (told, words) in [(2, "Второе"), (4, "Третье")] {
        world.portal.operator_edits(chat.id, OPERATOR, id, words).unwrap();
        world.portal.operator_edits(chat.id, OPERATOR, gone, words).unwrap();
        world.until("they were told", |w| w.sandbox.counter("event.ONIMCONNECTORMESSAGEUPDATE") == told).await;
    }
    world.portal.operator_deletes(chat.id, OPERATOR, gone).unwrap();
    world.until("and this", |w| w.sandbox.counter("event.ONIMCONNECTORMESSAGEDELETE") == 1).await;
    // All that was taken over waits for the channel.
    waiting(&world, 5).await;
    assert_eq!(world.post(&format!("/api/v1/channels/{channel}/resume"), json!({})).await.0, 200);
    world.until("only the last of each is carried out", |_| texts(&bot) == ["Третье"]).await;
    world.sandbox.settled(SOON).await.unwrap();
    assert_eq!((world.sandbox.counter("telegram.edited"), world.sandbox.counter("telegram.deleted")), (1, 1));
    assert_eq!(notes(&world), [""; 0], "what was overtaken is nobody's trouble");
}

async fn through_doubt(wish: Wish) {
    let config = "[delivery]\nretry_schedule = [\"300ms\", \"500ms\"]\n".to_owned();
    let (mut world, bot, _, chat) = with_bot(Wish { config, ..wish }).await;
    let id = world.portal.operator_says(chat.id, OPERATOR, "Было").unwrap();
    world.until("it is confirmed", |w| confirmed(w, id) > 0).await;
    // The answer gets lost, and the process dies: a change may be carried out again, a message may not.
    world.sandbox.add_fault(Fault::new("telegram.editMessageText", Action::CutAfter).times(1));
    world.portal.operator_edits(chat.id, OPERATOR, id, "Стало").unwrap();
    world.until("it was carried out", |_| texts(&bot) == ["Стало"]).await;
    world.kill();
    world.restart().await;
    world.until("and is confirmed", |w| confirmed(w, id) > 1).await;
    world.sandbox.add_fault(Fault::new("telegram.deleteMessage", Action::CutAfter).times(1));
    world.portal.operator_deletes(chat.id, OPERATOR, id).unwrap();
    world.until("it is gone", |_| texts(&bot).is_empty()).await;
    waiting(&world, 0).await;
    assert_eq!((world.sandbox.counter("telegram.sent"), notes(&world)), (1, vec![]));
    assert_eq!(world.sandbox.counter("telegram.deleted"), 1, "what is gone is gone once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_answer_is_lost_is_carried_out_again_and_told_once() {
    through_doubt(Wish::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_answer_is_lost_is_carried_out_again_on_postgres() {
    through_doubt(Wish { postgres: true, ..Wish::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_messenger_refuses_is_told_in_the_chat_once() {
    let (world, bot, _, chat) = with_bot(Wish::default()).await;
    let id = world.portal.operator_says(chat.id, OPERATOR, "Останется").unwrap();
    world.until("it is confirmed", |w| confirmed(w, id) > 0).await;
    let refused = |words: &str| Action::Error {
        code: "400".into(),
        status: None,
        description: Some(format!("Bad Request: {words}")),
        retry_after: None,
        after: false,
    };
    let words = "message can't be deleted for everyone";
    world.sandbox.add_fault(Fault::new("telegram.deleteMessage", refused(words)));
    world.sandbox.set_queue_knobs(|knobs| knobs.duplicate = 1);
    world.portal.operator_deletes(chat.id, OPERATOR, id).unwrap();
    world.until("the operator is told", |w| !notes(w).is_empty()).await;
    world.sandbox.settled(SOON).await.unwrap();
    let told = notes(&world);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("Клиент по-прежнему видит удалённое сообщение"), "{told:?}");
    assert_eq!(texts(&bot), ["Останется"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_messenger_takes_nothing_back_the_portal_does_not_offer_it() {
    let (world, _) = connected(Wish::default()).await;
    let chat = begun(&world).await;
    let id = world.portal.operator_says(chat.id, OPERATOR, "Как есть").unwrap();
    world.until("it is confirmed", |w| !message(w, id).sending).await;
    assert!(world.portal.operator_edits(chat.id, OPERATOR, id, "Иначе").is_err());
    assert!(world.portal.operator_deletes(chat.id, OPERATOR, id).is_err());
    // A portal that still has an older registration tells of it all the same.
    let member = world.portal.member_id();
    let token = world.portal.app(&world.client_id).unwrap().application_token;
    let external = message(&world, id).external_ids.remove(0);
    let chat_name = chat.external_chat.replace(':', "%3A");
    let form = |kind: &str| {
        format!(
            "event=ONIMCONNECTORMESSAGE{kind}&data%5BCONNECTOR%5D={}&data%5BLINE%5D={}\
             &data%5BMESSAGES%5D%5B0%5D%5Bim%5D%5Bchat_id%5D={}&data%5BMESSAGES%5D%5B0%5D%5Bim%5D%5Bmessage_id%5D={id}\
             &data%5BMESSAGES%5D%5B0%5D%5Bmessage%5D%5Bid%5D={external}&data%5BMESSAGES%5D%5B0%5D%5Bmessage%5D%5Btext%5D=x\
             &data%5BMESSAGES%5D%5B0%5D%5Bchat%5D%5Bid%5D={chat_name}&ts=1767021111&auth%5Bdomain%5D={}\
             &auth%5Bmember_id%5D={member}&auth%5Bapplication_token%5D={token}",
            chat.connector,
            chat.line,
            chat.id,
            world.portal.domain()
        )
    };
    for (kind, told) in [("UPDATE", "Изменение не дошло"), ("DELETE", "по-прежнему видит")]
    {
        for _ in 0..2 {
            let call = world.http.post(format!("{}/bitrix24/main/events", world.base()));
            let call = call.header("content-type", "application/x-www-form-urlencoded").body(form(kind));
            assert_eq!(call.send().await.unwrap().status().as_u16(), 200);
        }
        world.until("the operator is told", |w| notes(w).iter().any(|note| note.contains(told))).await;
    }
    world.sandbox.settled(SOON).await.unwrap();
    assert_eq!(notes(&world).len(), 2, "each once: {:?}", notes(&world));
    assert_eq!(world.messages(PHONE).len(), 1);
}
