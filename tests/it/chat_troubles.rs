//! Operators hear in the chat what became of their messages, also when nobody knows it or it turns out late.

use sandbox::{Action, ChatAuthor, Fault};

use crate::chats::{OPERATOR, PHONE, begun, connected, got, message, shown};
use crate::world::{Wish, World};

fn notes(world: &World) -> Vec<String> {
    shown(world, ChatAuthor::Note)
}

async fn unknown_end(wish: Wish) {
    let (world, _) = connected(wish).await;
    let chat = begun(&world).await;
    world.sandbox.set_webhook_knobs(|knobs| knobs.hold = true);
    world.sandbox.add_fault(Fault::new("graph.messages", Action::CutAfter).times(1));
    let id = world.portal.operator_says(chat.id, OPERATOR, "Дошло ли?").unwrap();
    world.until("the operator hears that nobody knows", |w| notes(w).len() == 1).await;
    assert!(notes(&world)[0].contains("Неизвестно, дошло ли до клиента:[/b] «Дошло ли?»"), "{:?}", notes(&world));
    assert!(message(&world, id).sending, "and it is not confirmed");
    world.sandbox.set_webhook_knobs(|knobs| knobs.hold = false);
    world.until("the echo settles it", |w| !message(w, id).sending).await;
    assert_eq!((got(&world), notes(&world).len()), (vec!["Дошло ли?".to_owned()], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_end_nobody_knows_is_told_in_the_chat() {
    unknown_end(Wish::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_end_nobody_knows_is_told_in_the_chat_on_postgres() {
    unknown_end(Wish { postgres: true, ..Wish::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_fails_after_it_was_taken_is_told_in_the_chat() {
    let (world, _) = connected(Wish::default()).await;
    let chat = begun(&world).await;
    world.sandbox.phone(PHONE).set_exists(false);
    world.portal.operator_says(chat.id, OPERATOR, "Вы где?").unwrap();
    world.until("the operator hears of it", |w| !notes(w).is_empty()).await;
    assert!(notes(&world)[0].contains("Не отправлено клиенту") && notes(&world)[0].contains("Вы где?"));
    assert_eq!(notes(&world).len(), 1);
}
