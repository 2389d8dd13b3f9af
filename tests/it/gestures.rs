//! What clients do beside writing: answering a message, reacting, changing, taking back, sharing a place or a card.

use sandbox::{ChatAuthor, Inbound};
use serde_json::json;

use crate::chats::{OPERATOR, PHONE, begun, connected, message, shown};
use crate::world::{Wish, World};

/// What the client is shown to have written, without the greeting.
fn written(world: &World) -> Vec<String> {
    shown(world, ChatAuthor::Client).into_iter().skip(1).collect()
}

async fn gestures(wish: Wish) {
    let (world, _) = connected(wish).await;
    let chat = begun(&world).await;
    let asked = world.portal.operator_says(chat.id, OPERATOR, "Какой цвет?").unwrap();
    world.until("the question is confirmed", |w| !message(w, asked).sending).await;
    let question = world.messages(PHONE)[0].wamid.clone();
    let phone = world.sandbox.phone(PHONE);
    let mut count = 0;
    let mut next = async |what: Inbound, reply_to: Option<&str>| {
        let id = phone.send(&world.number, &what, reply_to).unwrap();
        count += 1;
        world.until("it is shown", |w| written(w).len() == count).await;
        id
    };
    let blue = next(Inbound::text("Синий"), Some(&question)).await;
    next(Inbound::Reaction { message_id: question.clone(), emoji: "👍".into() }, None).await;
    next(Inbound::Reaction { message_id: question.clone(), emoji: String::new() }, None).await;
    let name = Some("Офис".to_owned());
    next(Inbound::Location { latitude: 59.9386, longitude: 30.3141, name, address: None }, None).await;
    let cards = json!([{"name": {"formatted_name": "Борис"}, "phones": [{"phone": "+79167654321"}]}]);
    next(Inbound::Contacts { contacts: cards }, None).await;
    next(Inbound::Edit { message_id: "wamid.UNKNOWN".into(), body: "раньше".into() }, None).await;
    let place = "[Геопозиция] Офис\nhttps://yandex.ru/maps/?pt=30.3141,59.9386&z=17";
    let mut expected = vec![
        ">>Какой цвет?\nСиний",
        ">>Какой цвет?\nРеакция: 👍",
        ">>Какой цвет?\nРеакция убрана",
        place,
        "[Контакт]\nБорис +79167654321",
        "Сообщение изменено: раньше",
    ];
    assert_eq!(written(&world), expected);

    phone.send(&world.number, &Inbound::Edit { message_id: blue.clone(), body: "Красный".into() }, None).unwrap();
    world.until("it is changed where it stands", |w| written(w)[0] == "Красный").await;
    phone.send(&world.number, &Inbound::Revoke { message_id: blue }, None).unwrap();
    expected.remove(0);
    world.until("it is gone", |w| written(w) == expected).await;
    assert_eq!(world.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_do_beside_writing_is_seen_by_operators() {
    gestures(Wish::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_do_beside_writing_is_seen_by_operators_on_postgres() {
    gestures(Wish { postgres: true, ..Wish::default() }).await;
}
