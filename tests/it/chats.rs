//! Chats of open lines: clients write, operators answer, and nothing is lost, doubled or out of order.

use std::time::Duration;

use sandbox::{Action, Chat, ChatAuthor, ChatMessage, Fault, PageRequest};
use serde_json::{Value, json};

use crate::world::{DEAL, Wish, World, text};

pub(crate) const PHONE: &str = "79161234567";
pub(crate) const CONNECTOR: &str = "mostik_main_whatsapp";
pub(crate) const OPERATOR: i64 = 1;

/// A world whose portal has an open line, and the connector standing on it.
pub(crate) async fn connected(wish: Wish) -> (World, i64) {
    let world = World::with(Wish { open_lines: true, ..wish }).await;
    let line = world.portal.add_open_line("Продажи");
    world.until("the connector is registered", |w| w.portal.connectors().contains(&CONNECTOR.to_owned())).await;
    let path = format!("/api/v1/portals/{}/open-lines", portal_of(&world).await);
    let body = json!({"messenger": "whatsapp", "open_line": line.to_string(), "line": world.line});
    let (status, answer) = world.post(&path, body).await;
    assert_eq!(status, 201, "{answer}");
    world.until("the connector stands", |w| stands(w, line)).await;
    (world, line)
}

pub(crate) async fn portal_of(world: &World) -> String {
    let (_, portals) = world.get("/api/v1/portals").await;
    portals["items"][0]["id"].as_str().unwrap().to_owned()
}

async fn open_lines(world: &World) -> Value {
    world.get(&format!("/api/v1/portals/{}/open-lines", portal_of(world).await)).await.1
}

fn stands(world: &World, line: i64) -> bool {
    world.portal.standing(CONNECTOR, line).is_some_and(|standing| standing.active && !standing.error)
}

fn is_broken(world: &World, line: i64) -> bool {
    world.portal.standing(CONNECTOR, line).is_some_and(|standing| standing.error)
}

pub(crate) fn chat(world: &World) -> Option<Chat> {
    let chats = world.portal.chats();
    assert!(chats.len() <= 1, "one dialog, one chat: {chats:?}");
    chats.into_iter().next()
}

pub(crate) fn shown(world: &World, author: ChatAuthor) -> Vec<String> {
    let messages = chat(world).map(|chat| chat.messages).unwrap_or_default();
    messages.into_iter().filter(|message| message.author == author).map(|message| message.text).collect()
}

pub(crate) fn message(world: &World, id: i64) -> ChatMessage {
    chat(world).unwrap().messages.into_iter().find(|message| message.id == id).unwrap()
}

pub(crate) fn got(world: &World) -> Vec<String> {
    world.messages(PHONE).into_iter().map(|message| message.shown.text).collect()
}

/// The client writes the first words, and they are shown.
pub(crate) async fn begun(world: &World) -> Chat {
    world.sandbox.phone(PHONE).say(&world.number, "Здравствуйте").unwrap();
    world.until("the client's words are shown", |w| !shown(w, ChatAuthor::Client).is_empty()).await;
    chat(world).unwrap()
}

async fn both_ways(wish: Wish) {
    let (world, line) = connected(wish).await;
    let chat = begun(&world).await;
    assert_eq!((chat.connector.as_str(), chat.line, chat.user_phone.as_str()), (CONNECTOR, line, "+79161234567"));
    assert_eq!(chat.external_chat, format!("{}:{PHONE}", world.channel));
    world.sandbox.phone(PHONE).say(&world.number, "Есть [b]синий[/b]?\nСрочно").unwrap();
    world.until("the second words too", |w| shown(w, ChatAuthor::Client).len() == 2).await;
    assert_eq!(shown(&world, ChatAuthor::Client), ["Здравствуйте", "Есть ［b］синий［/b］?\nСрочно"]);

    let id = world.portal.operator_says(chat.id, OPERATOR, "[b]Да[/b], осталось два[br]Берёте?").unwrap();
    world.until("the client has the answer", |w| got(w) == ["*Да*, осталось два\nБерёте?"]).await;
    world.until("the operator sees that it is delivered", |w| !message(w, id).sending).await;
    let answer = message(&world, id);
    assert_eq!(answer.external_ids, [world.messages(PHONE)[0].wamid.clone()]);
    assert_eq!(answer.confirmed, 1);
    world.portal.line_says(chat.id, "Оцените нас").unwrap();
    world.until("what the line says goes out too", |w| got(w).len() == 2).await;
    assert_eq!(shown(&world, ChatAuthor::Note), [""; 0]);
    assert_eq!(world.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_write_and_operators_answer() {
    both_ways(Wish::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_write_and_operators_answer_on_postgres() {
    both_ways(Wish { postgres: true, ..Wish::default() }).await;
}

/// Values of the hidden fields of a page.
pub(crate) fn hidden(page: &str) -> Vec<(String, String)> {
    let value = |part: &str, name: &str| {
        let (_, rest) = part.split_once(&format!("{name}=\"")).unwrap();
        let text = rest.split('"').next().unwrap();
        text.replace("&quot;", "\"").replace("&#34;", "\"").replace("&#x2F;", "/").replace("&amp;", "&")
    };
    page.split("<input type=\"hidden\"").skip(1).map(|part| (value(part, "name"), value(part, "value"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_page_connects_and_only_an_administrator_may() {
    let world = World::with(Wish { open_lines: true, ..Wish::default() }).await;
    let line = world.portal.add_open_line("Продажи");
    world.until("the connector is registered", |w| w.portal.connectors().contains(&CONNECTOR.to_owned())).await;
    let options = json!({"CONNECTOR": CONNECTOR, "LINE": line.to_string(), "STATUS": false, "ACTIVE_STATUS": true});
    let request = PageRequest {
        client_id: world.client_id.clone(),
        place: "SETTING_CONNECTOR".into(),
        options: options.clone(),
        ..PageRequest::default()
    };
    let page = world.portal.open_page(&request).await.unwrap();
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(page.body.contains("Sales: +7 999 000-11-22"), "{}", page.body);
    let address = format!("{}/bitrix24/main/settings/{CONNECTOR}", world.base());
    let choose = |fields: Vec<(String, String)>, chosen: &str| {
        let mut fields = fields;
        fields.push(("chosen".into(), chosen.into()));
        world.http.post(&address).form(&fields).send()
    };
    let fields = hidden(&page.body);
    assert!(fields.iter().all(|(name, _)| name != "REFRESH_ID" && name != "APPLICATION_TOKEN"), "{fields:?}");
    let answer = choose(fields.clone(), &world.line).await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    let shown = answer.text().await.unwrap();
    assert!(shown.contains("Подключено"), "{shown}");
    world.until("the connector stands", |w| stands(w, line)).await;
    assert_eq!(world.portal.standing(CONNECTOR, line).unwrap().data["NAME"], "+7 999 000-11-22");
    begun(&world).await;

    // Whoever is no administrator, or makes up a line, connects nothing.
    let worker = world.portal.add_user(sandbox::UserSpec::default());
    let theirs = world.portal.open_page(&PageRequest { user_id: worker, ..request.clone() }).await.unwrap();
    assert!(hidden(&theirs.body).is_empty(), "{}", theirs.body);
    assert_eq!(choose(fields.clone(), "line_01J0000000").await.unwrap().status().as_u16(), 404);
    let mut forged = fields.clone();
    forged.iter_mut().filter(|(name, _)| name == "AUTH_ID").for_each(|(_, value)| *value = "a".repeat(70));
    assert_eq!(choose(forged, "").await.unwrap().status().as_u16(), 403);
    assert!(stands(&world, line));

    let off = choose(fields, "").await.unwrap().text().await.unwrap();
    assert!(off.contains("Отключено"), "{off}");
    world.until("the connector is off the line", |w| w.portal.standing(CONNECTOR, line).is_none()).await;
    assert_eq!(open_lines(&world).await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_goes_in_parts_and_is_confirmed_once_with_all_of_them() {
    let (world, _) = connected(Wish::default()).await;
    let chat = begun(&world).await;
    let text = "Очень длинный ответ. ".repeat(400);
    let id = world.portal.operator_says(chat.id, OPERATOR, &text).unwrap();
    world.until("it is confirmed", |w| !message(w, id).sending).await;
    let parts = world.messages(PHONE);
    assert!(parts.len() >= 3 && parts.iter().all(|part| part.shown.text.chars().count() <= 4096));
    let whole = parts.iter().map(|part| part.shown.text.as_str()).collect::<Vec<_>>().join(" ");
    assert_eq!(whole, text.trim());
    let ids: Vec<String> = parts.iter().map(|part| part.wamid.clone()).collect();
    assert_eq!((message(&world, id).external_ids, message(&world, id).confirmed), (ids, 1));
}

async fn in_order(wish: Wish) {
    let (world, _) = connected(wish).await;
    let chat = begun(&world).await;
    world.sandbox.set_queue_knobs(|knobs| (knobs.hold, knobs.shuffle, knobs.duplicate) = (true, true, 1));
    let words: Vec<String> = (1..=8).map(|number| format!("ответ {number}")).collect();
    for text in &words {
        world.portal.operator_says(chat.id, OPERATOR, text).unwrap();
    }
    world.sandbox.set_queue_knobs(|knobs| knobs.hold = false);
    world.until("all are confirmed", chat_is_confirmed).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(got(&world), words, "in order, and each once");
}

pub(crate) fn chat_is_confirmed(world: &World) -> bool {
    chat(world).unwrap().messages.iter().all(|message| !message.sending)
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_overtake_each_other_or_come_twice_are_sent_once_in_their_order() {
    in_order(Wish::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_keep_their_order_on_postgres_too() {
    in_order(Wish { postgres: true, ..Wish::default() }).await;
}

/// Waits until so many messages of the client are stored.
async fn stored(world: &World, count: usize) {
    listed(world, "received", count).await;
}

/// Waits until so many messages from or to the client stand in a state.
pub(crate) async fn listed(world: &World, state: &str, count: usize) {
    let deadline = std::time::Instant::now() + crate::world::SOON;
    loop {
        let (_, list) = world.get(&format!("/api/v1/messages?peer={PHONE}&state={state}")).await;
        if list["items"].as_array().is_some_and(|items| items.len() == count) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "not stored: {list}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn not_lost(wish: Wish) {
    let (mut world, _) = connected(wish).await;
    let chat = begun(&world).await;
    world.portal.set_switches(|switches| switches.maintenance = Some(503));
    for number in 1..=3 {
        // One after the other: callbacks of the same second have no order.
        world.sandbox.phone(PHONE).say(&world.number, &format!("вопрос {number}")).unwrap();
        stored(&world, number + 1).await;
    }
    world.portal.operator_says(chat.id, OPERATOR, "сейчас отвечу").unwrap();
    world.until("the answer was taken over", |w| w.sandbox.counter("event.ONIMCONNECTORMESSAGEADD") == 1).await;
    world.kill();
    world.portal.set_switches(|switches| switches.maintenance = None);
    world.restart().await;
    world.until("all is shown", |w| shown(w, ChatAuthor::Client).len() >= 4).await;
    world.until("and sent", |w| !got(w).is_empty() && chat_is_confirmed(w)).await;
    assert_eq!(shown(&world, ChatAuthor::Client), ["Здравствуйте", "вопрос 1", "вопрос 2", "вопрос 3"]);
    assert_eq!(got(&world), ["сейчас отвечу"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_when_the_process_is_killed() {
    not_lost(Wish::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_when_the_process_is_killed_on_postgres() {
    not_lost(Wish { postgres: true, ..Wish::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_the_portal_that_gets_lost_shows_nothing_twice() {
    let (world, _) = connected(Wish::default()).await;
    begun(&world).await;
    let cut = Fault::new("rest.batch", Action::CutAfter).contains("imconnector.send.messages").times(1);
    world.sandbox.add_fault(cut);
    world.sandbox.phone(PHONE).say(&world.number, "Вы тут?").unwrap();
    world.until("it is shown", |w| shown(w, ChatAuthor::Client).len() == 2).await;
    world.sandbox.phone(PHONE).say(&world.number, "Ау").unwrap();
    // The chat waits until a slow portal can no longer carry the call out, then looks before it writes.
    world
        .within(Duration::from_secs(40), "the next one is shown", |w| {
            shown(w, ChatAuthor::Client).contains(&"Ау".to_owned())
        })
        .await;
    assert_eq!(shown(&world, ChatAuthor::Client), ["Здравствуйте", "Вы тут?", "Ау"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_refused_is_told_in_the_chat_and_not_confirmed() {
    let (world, _) = connected(Wish::default()).await;
    let chat = begun(&world).await;
    let refuse = || {
        let action =
            Action::Error { code: "131026".into(), status: None, description: None, retry_after: None, after: false };
        Fault::new("graph.messages", action).times(1)
    };
    world.sandbox.add_fault(refuse());
    let id = world.portal.operator_says(chat.id, OPERATOR, "Не дойдёт").unwrap();
    world.until("the operator is told", |w| !shown(w, ChatAuthor::Note).is_empty()).await;
    let notes = shown(&world, ChatAuthor::Note);
    assert!(notes[0].contains("Не отправлено клиенту") && notes[0].contains("Не дойдёт"), "{notes:?}");
    assert!(message(&world, id).sending, "the mark stays");

    // Where the application may not enter the chat, the operator gets a notification.
    world.portal.open_chat_to_app(chat.id, false).unwrap();
    world.sandbox.add_fault(refuse());
    world.portal.operator_says(chat.id, OPERATOR, "И это тоже").unwrap();
    world.until("the operator is notified", |w| !w.portal.notifications().is_empty()).await;
    let told = world.portal.notifications();
    assert!(told.len() == 1 && told[0].user_id == OPERATOR && told[0].text.contains("И это тоже"), "{told:?}");
    assert!(got(&world).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_channel_shows_in_the_portal_and_keeps_answers() {
    let (world, line) = connected(Wish::default()).await;
    let chat = begun(&world).await;
    let (status, _) = world.post(&format!("/api/v1/channels/{}/pause", world.channel), json!({})).await;
    assert_eq!(status, 200);
    world.until("the portal shows it as broken", |w| is_broken(w, line)).await;
    let id = world.portal.operator_says(chat.id, OPERATOR, "Позже").unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(got(&world).is_empty() && message(&world, id).sending);
    world.post(&format!("/api/v1/channels/{}/resume", world.channel), json!({})).await;
    world.until("the portal shows that it works", |w| stands(w, line)).await;
    world.until("the answer is sent and confirmed", |w| got(w) == ["Позже"] && !message(w, id).sending).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_disconnected_in_the_portal_stays_so_and_speaks_for_nobody() {
    let (world, line) = connected(Wish::default()).await;
    let chat = begun(&world).await;
    world.portal.disconnect(CONNECTOR, line).unwrap();
    let deadline = std::time::Instant::now() + crate::world::SOON;
    while open_lines(&world).await != json!([]) {
        assert!(std::time::Instant::now() < deadline, "the disconnection was not noticed: {}", world.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(world.portal.standing(CONNECTOR, line).is_none());
    world.portal.operator_says(chat.id, OPERATOR, "Кому?").unwrap();
    world.until("the operator is told", |w| !shown(w, ChatAuthor::Note).is_empty()).await;
    world.sandbox.phone(PHONE).say(&world.number, "Никто не слышит").unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(shown(&world, ChatAuthor::Client), ["Здравствуйте"]);
    assert!(got(&world).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_open_line_is_forgotten_and_another_is_not() {
    let (world, line) = connected(Wish::default()).await;
    let other = world.portal.add_open_line("Поддержка");
    world.portal.delete_open_line(other).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(stands(&world, line));
    world.portal.delete_open_line(line).unwrap();
    let deadline = std::time::Instant::now() + crate::world::SOON;
    while open_lines(&world).await != json!([]) {
        assert!(std::time::Instant::now() < deadline, "the deletion was not noticed: {}", world.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_survive_an_update_and_a_new_installation() {
    let (world, line) = connected(Wish::default()).await;
    let chat = begun(&world).await;
    world.portal.update_app(&world.client_id, 2).unwrap();
    world.until("the robot is back", |w| w.portal.robots().iter().any(|robot| robot.code == "send_message")).await;
    world.portal.uninstall(&world.client_id, false).unwrap();
    assert!(world.portal.standing(CONNECTOR, line).is_none() && world.portal.connectors().is_empty());
    world.sandbox.phone(PHONE).say(&world.number, "пока никого").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.portal.install(&world.client_id).await.unwrap();
    world.until("the connector stands again", |w| stands(w, line)).await;
    world.sandbox.phone(PHONE).say(&world.number, "снова тут").unwrap();
    world.until("in the same chat", |w| shown(w, ChatAuthor::Client).contains(&"снова тут".to_owned())).await;
    world.portal.operator_says(chat.id, OPERATOR, "И мы").unwrap();
    world.until("and back", |w| got(w) == ["И мы"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_before_what_robots_have_waiting() {
    let channel = json!({"messages_per_second": 4.0});
    let (world, _) = connected(Wish { channel, no_bucket: true, ..Wish::default() }).await;
    let chat = begun(&world).await;
    let stage = world.robot(&json!({"recipients": "main", "template": "order_update:ru", "params": ["Анна", "1042"]}));
    let deals: Vec<i64> = (0..40).map(|number| world.deal(&format!("7916000{number:04}"))).collect();
    world.portal.move_items(DEAL, &deals, &stage).unwrap();
    world.until("robots are sending", |w| !w.messages("79160000000").is_empty()).await;
    let began = std::time::Instant::now();
    world.portal.operator_says(chat.id, OPERATOR, "Сразу").unwrap();
    world.until("the client has it", |w| got(w) == ["Сразу"]).await;
    let waiting = deals.len() - (0..40).filter(|n| !world.messages(&format!("7916000{n:04}")).is_empty()).count();
    assert!(waiting > 5, "the robots were through already after {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_line_s_chats_stand_in_one_portal() {
    let (world, _) = connected(Wish::default()).await;
    let (other, _) = world.other_portal(&json!({"recipients": "main", "text": "x"})).await;
    let line = other.add_open_line("Чужая");
    let (_, portals) = world.get("/api/v1/portals").await;
    let id = portals["items"][1]["id"].as_str().unwrap().to_owned();
    let body = json!({"messenger": "whatsapp", "open_line": line.to_string(), "line": world.line});
    let (status, answer) = world.post(&format!("/api/v1/portals/{id}/open-lines"), body).await;
    assert_eq!(status, 409, "{answer}");
    begun(&world).await;
    assert!(other.chats().is_empty());
}

async fn renames(wish: Wish) {
    let (world, line) = connected(wish).await;
    world.until_registered("rename_chat").await;
    // Without a chat there is nothing to name.
    let deal = world.deal(PHONE);
    world.run("rename_chat", deal, &json!({"recipients": "main", "name": "Анна, заказ 7"}));
    assert_eq!(text(&world.result_of(deal).await, "error_code"), "no_chat");
    begun(&world).await;
    // A portal that is short of breath is asked again.
    let busy = Action::Error {
        code: "QUERY_LIMIT_EXCEEDED".into(),
        status: None,
        description: None,
        retry_after: None,
        after: false,
    };
    world.sandbox.add_fault(Fault::new("rest.imconnector.chat.name.set", busy).times(1));
    let deal = world.deal(PHONE);
    world.run("rename_chat", deal, &json!({"recipients": "main", "name": "Анна, заказ 7"}));
    let result = world.result_of(deal).await;
    assert_eq!((text(&result, "status"), text(&result, "detail")), ("Y".into(), format!("{PHONE}:Y")), "{result:?}");
    assert_eq!((chat(&world).unwrap().name.as_str(), chat(&world).unwrap().line), ("Анна, заказ 7", line));
    world.until("the card tells", |w| w.comment(deal).contains("Чат назван «Анна, заказ 7»")).await;
    assert!(got(&world).is_empty(), "the client got nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_robot_renames_the_clients_chat() {
    renames(Wish::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_robot_renames_the_clients_chat_on_postgres() {
    renames(Wish { postgres: true, ..Wish::default() }).await;
}
