//! The second messenger: a Telegram bot. People are known by chats, nobody can be written to first, and nothing is heard of a
//! message once it was taken.

use std::time::Duration;

use sandbox::{Action, Bot, BotInbound, BotSpec, Fault, GroupState};
use serde_json::{Value, json};

use crate::world::{SOON, Wish, World, text};

pub(crate) const PERSON: i64 = 512_000_111;
const PHONE: &str = "79161234567";

fn quick() -> Wish {
    let config = "[delivery]\nretry_schedule = [\"300ms\", \"500ms\"]\ncheck_webhooks = \"400ms\"\n".to_owned();
    Wish { config, ..Wish::default() }
}

/// A bot of the line; gives it with the channel's id and the address of its callbacks.
pub(crate) async fn connected(world: &World) -> (Bot, String, String) {
    let bot = world.sandbox.add_bot(BotSpec::default()).unwrap();
    let (status, channel) = connect(world, &bot.view().spec.token).await;
    assert_eq!(status, 201, "{channel}");
    let part = |key: &str| channel[key].as_str().unwrap().to_owned();
    (bot, part("id"), part("webhook_url"))
}

async fn connect(world: &World, token: &str) -> (u16, Value) {
    let channel = json!({"provider": "telegram_bot", "name": "Бот магазина", "credentials": {"token": token}});
    world.post(&format!("/api/v1/lines/{}/channels", world.line), channel).await
}

/// Messages of the person that the service has stored.
pub(crate) async fn stored(world: &World, count: usize) -> Vec<Value> {
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let (_, list) = world.get(&format!("/api/v1/messages?peer=tg.{PERSON}&state=received")).await;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        if items.len() >= count {
            return items;
        }
        assert!(std::time::Instant::now() < deadline, "{count} messages are not stored: {list}\n{}", world.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn to_chat(text: &str) -> Value {
    json!({"recipients": "given", "chat_ids": [PERSON.to_string()], "messenger": "telegram", "text": text})
}

async fn main_job(world: World) {
    let (bot, _, url) = connected(&world).await;
    assert_eq!(bot.view().webhook.url, url, "connected without a further step");
    let person = world.sandbox.bot_person(PERSON);
    person.set_name("Ирина", "irina_k");
    person.say(&bot, "/start").unwrap();
    let heard = stored(&world, 1).await;
    assert_eq!(
        heard[0]["content"]["text"].as_str().or(heard[0]["content"]["body"].as_str()),
        Some("/start"),
        "{heard:?}"
    );

    // Who has written can be answered. A robot that waits for delivery does not wait for what is never told.
    let deal = world.deal(PHONE);
    let mut properties = to_chat("Заказ 👍 готов");
    properties["wait"] = json!("delivered");
    world.fire(deal, &properties);
    let result = world.result_of(deal).await;
    assert_eq!((text(&result, "status"), text(&result, "error_code")), ("Y".into(), String::new()), "{result:?}");
    assert_eq!(text(&result, "detail"), format!("tg.{PERSON}:Y"));
    assert_eq!(text(&result, "timeout"), "1");
    let sent = bot.sent(PERSON);
    assert_eq!((sent.len(), sent[0].text.as_str()), (1, "Заказ 👍 готов"));
    assert_eq!(text(&result, "message_ids"), format!("{PERSON}:{}", sent[0].message_id));
    world.until("the card says what is known", |w| w.comment(deal).contains("Telegram не сообщает")).await;
    let comment = world.comment(deal);
    assert!(comment.contains("Отправлено") && comment.contains(&format!("tg.{PERSON}")), "{comment}");

    // A phone leads nowhere until its person has shared it.
    let by_phone = json!({"recipients": "main", "messenger": "telegram", "text": "По телефону"});
    let deal = world.deal("8 (916) 123-45-67");
    world.fire(deal, &by_phone);
    let result = world.result_of(deal).await;
    assert_eq!((text(&result, "status"), text(&result, "error_code")), ("N".into(), "cannot_write_first".into()));
    world.until("the card says what helps", |w| w.comment(deal).contains("отправить боту свой контакт")).await;
    assert_eq!(bot.sent(PERSON).len(), 1, "refused before the call");
    let contact = |own| BotInbound::Contact { phone: "+7 916 123-45-67".into(), own };
    person.send(&bot, None, &contact(false)).unwrap();
    person.send(&bot, None, &contact(true)).unwrap();
    stored(&world, 3).await;
    let deal = world.deal("8 (916) 123-45-67");
    world.fire(deal, &by_phone);
    assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
    assert_eq!(bot.sent(PERSON).last().unwrap().text, "По телефону");
    // Nothing of it reached the other messenger of the line.
    assert_eq!(world.sandbox.ledger().accepted(), 0);

    // A file with its text as caption.
    let deal = world.deal(PHONE);
    let mut file = to_chat("Ваш счёт");
    file["files"] = json!(["https://files.example/bill.pdf"]);
    world.fire(deal, &file);
    assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
    let last = bot.sent(PERSON).pop().unwrap();
    assert_eq!((last.kind.as_str(), last.text.as_str()), ("document", "Ваш счёт"));
    assert_eq!(last.file, "https://files.example/bill.pdf");
    assert_eq!(world.complaints(), Vec::<String>::new());
    assert!(!world.log().contains(&bot.view().spec.token), "the token is in no line of the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_who_wrote_to_the_bot_can_be_answered_by_robots() {
    main_job(World::with(quick()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_on_postgres() {
    main_job(World::with(Wish { postgres: true, ..quick() }).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_choice_the_messenger_the_person_last_wrote_from_is_taken() {
    let world = World::with(quick()).await;
    let (bot, _, _) = connected(&world).await;
    world.open_window(PHONE).await;
    let auto = json!({"recipients": "main", "text": "Кому как удобно"});
    let deal = world.deal(PHONE);
    world.fire(deal, &auto);
    assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
    assert_eq!((world.messages(PHONE).len(), bot.sent(PERSON).len()), (1, 0), "only one messenger reaches them");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let person = world.sandbox.bot_person(PERSON);
    person.send(&bot, None, &BotInbound::Contact { phone: PHONE.into(), own: true }).unwrap();
    stored(&world, 1).await;
    let deal = world.deal(PHONE);
    world.fire(deal, &auto);
    assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
    assert_eq!((world.messages(PHONE).len(), bot.sent(PERSON).len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_proved_before_a_channel_is_made_of_it() {
    let world = World::with(quick()).await;
    for wrong in ["744556677", "744556677:AAHtestTOKENtestTOKENtestTOKENtest12"] {
        let (status, problem) = connect(&world, wrong).await;
        assert_eq!(status, 422, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("Telegram Bot API refuses them"), "{problem}");
        assert!(!problem.to_string().contains("AAHtest"));
    }
    let (bot, channel, url) = connected(&world).await;
    let (status, problem) = connect(&world, &bot.view().spec.token).await;
    assert_eq!(status, 409, "a bot has one address: {problem}");
    assert!(problem["detail"].as_str().unwrap().contains(&channel));
    let secret = bot.view().webhook.secret_token;
    for (given, status) in [(Some("forged"), 403), (None, 403), (Some(secret.as_str()), 400)] {
        let mut call = world.http.post(&url).body("{\"damaged\"");
        if let Some(secret) = given {
            call = call.header("X-Telegram-Bot-Api-Secret-Token", secret);
        }
        assert_eq!(call.send().await.unwrap().status().as_u16(), status, "{given:?}: proved before it is read");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_wait_as_long_as_they_are_told_and_lose_nothing() {
    let world = World::with(quick()).await;
    let (bot, _, _) = connected(&world).await;
    world.sandbox.bot_person(PERSON).say(&bot, "/start").unwrap();
    let action = Action::Error { code: "429".into(), status: None, description: None, retry_after: None, after: false };
    world.sandbox.add_fault(Fault::new("telegram.sendMessage", action).times(2));
    let deal = world.deal(PHONE);
    let began = std::time::Instant::now();
    world.fire(deal, &to_chat("Один раз"));
    assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
    assert!(began.elapsed() > Duration::from_secs(2), "a second each");
    assert_eq!(bot.sent(PERSON).len(), 1);
    // More than the pace allows to one person: all arrive, and the vendor has to refuse none.
    world.sandbox.clear_journal();
    let deals: Vec<i64> = (0..6).map(|_| world.deal(PHONE)).collect();
    for (nth, deal) in deals.iter().enumerate() {
        world.fire(*deal, &to_chat(&format!("Сообщение {nth}")));
    }
    world.until("all have arrived", |_| bot.sent(PERSON).len() == 7).await;
    assert_eq!(world.sandbox.counter("telegram.error.429"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_pauses_the_channel_and_keeps_its_queue() {
    let world = World::with(quick()).await;
    let (bot, channel, _) = connected(&world).await;
    world.sandbox.bot_person(PERSON).say(&bot, "/start").unwrap();
    let token = bot.view().spec.token;
    bot.revoke();
    // Nobody has to send anything for that to be found out.
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let (_, view) = world.get(&format!("/api/v1/channels/{channel}")).await;
        if view["state"] == "paused" {
            assert!(view["reason"].as_str().unwrap().contains("401"), "{view}");
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{view}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let deal = world.deal(PHONE);
    world.fire(deal, &to_chat("Подождёт"));
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(bot.sent(PERSON).is_empty());
    bot.set_token(&token);
    let (status, _) = world.post(&format!("/api/v1/channels/{channel}/resume"), json!({})).await;
    assert_eq!(status, 200);
    assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
    assert_eq!(bot.sent(PERSON).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_was_taken_away_is_set_again_and_nothing_that_was_written_is_lost() {
    let world = World::with(quick()).await;
    let (bot, _, url) = connected(&world).await;
    let person = world.sandbox.bot_person(PERSON);
    for (nth, taken) in ["", "http://127.0.0.1:9/elsewhere"].into_iter().enumerate() {
        // A second set within a second is too many for the vendor.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        bot.set_webhook(taken);
        person.say(&bot, &format!("Есть кто? {nth}")).unwrap();
        world.until("the address is ours again", |_| bot.view().webhook.url == url).await;
        stored(&world, nth + 1).await;
    }
    assert!(world.log().contains("callbacks went elsewhere"));
    // The same message twice is one: the vendor repeats what it thinks was not taken.
    world.sandbox.set_update_knobs(|knobs| knobs.duplicate = 2);
    person.say(&bot, "Ещё раз").unwrap();
    stored(&world, 3).await;
    world.sandbox.settled(SOON).await.unwrap();
    assert_eq!(stored(&world, 3).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_who_block_the_bot_and_groups_that_moved_are_told_in_words() {
    let world = World::with(quick()).await;
    let (bot, _, _) = connected(&world).await;
    let person = world.sandbox.bot_person(PERSON);
    person.say(&bot, "/start").unwrap();
    person.block(&bot, true).unwrap();
    bot.set_group(-4001, GroupState::Migrated(-1_001_987_654_321));
    bot.set_group(-4002, GroupState::Kicked);
    let group =
        |id: i64| json!({"recipients": "given", "chat_ids": [id.to_string()], "messenger": "telegram", "text": "Всем"});
    for (properties, code, words) in [
        (to_chat("Вы здесь?"), "opted_out", "отказался"),
        (group(-4001), "group_moved", "tg.-1001987654321"),
        (group(-4002), "not_in_group", "верните бота в группу"),
        (group(999_999_999), "cannot_write_first", "ссылку на бота"),
    ] {
        let deal = world.deal(PHONE);
        world.fire(deal, &properties);
        let result = world.result_of(deal).await;
        assert_eq!((text(&result, "status"), text(&result, "error_code")), ("N".into(), code.into()), "{result:?}");
        world.until("the card says why", |w| w.comment(deal).contains(words)).await;
    }
    assert!(bot.sent(PERSON).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_know_goes_to_a_person_at_once_and_is_not_repeated() {
    let world = World::with(quick()).await;
    let (bot, _, _) = connected(&world).await;
    world.sandbox.bot_person(PERSON).say(&bot, "/start").unwrap();
    for (nth, action) in
        [Action::CutAfter, Action::Html { status: 502, after: true }, Action::CutBefore].into_iter().enumerate()
    {
        world.sandbox.clear_faults();
        world.sandbox.add_fault(Fault::new("telegram.sendMessage", action).times(1));
        let deal = world.deal(PHONE);
        let before = bot.sent(PERSON).len();
        world.fire(deal, &to_chat(&format!("Дошло ли {nth}")));
        world.until("a person is asked", |w| w.comment(deal).contains("Проверьте переписку")).await;
        let deadline = std::time::Instant::now() + SOON;
        let letters = loop {
            let (_, letters) = world.get("/api/v1/dead-letters").await;
            if letters["items"].as_array().is_some_and(|items| items.len() == nth + 1) {
                break letters;
            }
            assert!(std::time::Instant::now() < deadline, "{letters}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        tokio::time::sleep(Duration::from_millis(600)).await;
        let arrived = usize::from(nth < 2);
        assert_eq!(bot.sent(PERSON).len(), before + arrived, "not repeated: {letters}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn robots_write_to_groups_through_bots_and_say_where_that_cannot_be_done() {
    let world = World::with(quick()).await;
    world.until_registered("send_file_to_group").await;
    // A number of the Cloud API writes to no group, and nothing is tried.
    let deal = world.deal(PHONE);
    world.run("send_to_group", deal, &json!({"group": "-4003", "text": "Всем"}));
    let result = world.result_of(deal).await;
    assert_eq!(text(&result, "error_code"), "unsupported", "{result:?}");
    assert!(text(&result, "detail").contains("WhatsApp Cloud API"), "{result:?}");
    let (bot, _, _) = connected(&world).await;
    bot.set_group(-4003, GroupState::Member);
    let deal = world.deal(PHONE);
    world.run("send_to_group", deal, &json!({"group": "-4003", "text": "Собрание в 10"}));
    let result = world.result_of(deal).await;
    assert_eq!((text(&result, "status"), text(&result, "detail")), ("Y".into(), "tg.-4003:Y".into()), "{result:?}");
    let deal = world.deal(PHONE);
    let files = json!({"group": "-4003", "files": ["https://shop.example/plan.pdf"], "caption": "План"});
    world.run("send_file_to_group", deal, &files);
    assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
    assert_eq!(bot.sent(-4003).len(), 2);
    // A person is no group.
    let deal = world.deal(PHONE);
    world.run("send_to_group", deal, &json!({"group": PERSON.to_string(), "text": "Всем"}));
    assert_eq!(text(&world.result_of(deal).await, "error_code"), "not_in_group");
    assert!(bot.sent(PERSON).is_empty());
}
