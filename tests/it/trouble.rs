//! The main job when something is in its way.

use std::time::Duration;

use sandbox::{Action, CutFrom, Fault};
use serde_json::json;
use sqlx::Executor as _;

use crate::world::{DEAL, Wish, World, text};

const PHONE: &str = "79161234567";

/// Waits between tries short enough for a test.
fn quick(extra: &str) -> Wish {
    let config =
        format!("[delivery]\nretry_schedule = [\"300ms\", \"500ms\", \"500ms\"]\nunclear_wait = \"1500ms\"\n{extra}");
    Wish { config, ..Wish::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_window_is_refused_before_the_call_with_advice() {
    let world = World::new().await;
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "Вы здесь?"}));
    let result = world.result_of(deal).await;
    assert_eq!((text(&result, "status"), text(&result, "error_code")), ("N".into(), "window_closed".into()));
    assert!(text(&result, "detail").starts_with(&format!("{PHONE}:N:[window_closed] ")), "{result:?}");
    assert_eq!(world.sandbox.ledger().accepted(), 0, "nothing was sent");
    world.until("the card says why and what to do", |w| w.comment(deal).contains("Выберите шаблон")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_window_takes_the_fallback_template() {
    let world = World::new().await;
    let deal = world.deal(PHONE);
    let properties = json!({"recipients": "main", "text": "Вы здесь?", "fallback_template": "greeting:ru"});
    world.fire(deal, &properties);
    assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
    let messages = world.messages(PHONE);
    assert_eq!((messages.len(), messages[0].shown.template.as_deref()), (1, Some("greeting:ru")));
    world.until("the card names the template", |w| w.comment(deal).contains("greeting:ru")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbound_message_opens_the_window_for_the_next_robot() {
    let world = World::new().await;
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "Первая"}));
    assert_eq!(text(&world.result_of(deal).await, "status"), "N");
    world.open_window(PHONE).await;
    let next = world.deal(PHONE);
    world.fire(next, &json!({"recipients": "main", "text": "Вторая"}));
    assert_eq!(text(&world.result_of(next).await, "status"), "Y");
    assert_eq!(world.messages(PHONE).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_without_the_messenger_fails_in_words() {
    let world = World::new().await;
    world.open_window(PHONE).await;
    world.sandbox.phone(PHONE).set_exists(false);
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "Есть кто?", "wait": "delivered"}));
    let result = world.result_of(deal).await;
    assert_eq!((text(&result, "status"), text(&result, "error_code")), ("N".into(), "not_on_messenger".into()));
    world.until("the card says so", |w| w.comment(deal).contains("131026")).await;
    assert_eq!(world.comments(deal).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn template_mistakes_are_told_before_the_call() {
    let world = World::new().await;
    for (properties, code) in [
        (json!({"recipients": "main", "template": "no_such:ru"}), "template_not_found"),
        (json!({"recipients": "main", "template": "order_update:kk", "params": ["a", "b"]}), "template_not_found"),
        (json!({"recipients": "main", "template": "order_update:ru", "params": ["a"]}), "template_params"),
        (json!({"recipients": "main", "template": "delivery_photo:ru", "params": ["1"]}), "template_params"),
        (json!({"recipients": "main", "template": "appointment:en", "params": ["client=Ann"]}), "template_params"),
    ] {
        let deal = world.deal(PHONE);
        world.fire(deal, &properties);
        assert_eq!(text(&world.result_of(deal).await, "error_code"), code, "{properties}");
    }
    assert_eq!(world.sandbox.ledger().accepted(), 0);
    world.number.set_template_status("greeting", "ru", "PAUSED", None).unwrap();
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "template": "greeting:ru"}));
    assert_eq!(text(&world.result_of(deal).await, "error_code"), "template_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn named_parameters_header_files_and_buttons_are_filled() {
    let world = World::new().await;
    let deal = world.deal(PHONE);
    let properties = json!({
        "recipients": "main", "template": "order_ready_ru:ru",
        "params": ["client=Анна", "order_id=1042", "button:0=1042"], "files": ["http://127.0.0.1:9/act.pdf"],
    });
    world.fire(deal, &properties);
    let result = world.result_of(deal).await;
    assert_eq!(text(&result, "status"), "Y", "{result:?}");
    let message = &world.messages(PHONE)[0];
    assert!(message.shown.text.contains("Заказ 1042 готов"), "{:?}", message.shown);
    assert_eq!(message.shown.media.as_ref().unwrap().filename, "act.pdf");
    assert!(
        message.shown.buttons.iter().any(|button| button.value.ends_with("/o/1042")),
        "{:?}",
        message.shown.buttons
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_gets_the_message_once_it_is_up() {
    let world = World::with(quick("")).await;
    world.open_window(PHONE).await;
    for (action, times) in [
        (Action::CutBefore, 0),
        (Action::Error { code: "131016".into(), status: None, description: None, retry_after: None, after: false }, 2),
    ] {
        world.sandbox.clear_faults();
        if times == 0 {
            continue;
        }
        world.sandbox.add_fault(Fault::new("graph.messages", action).times(times));
        let deal = world.deal(PHONE);
        world.fire(deal, &json!({"recipients": "main", "text": "Дойдёт"}));
        assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
        world.until("the comment says read", |w| w.comment(deal).contains("Прочитано")).await;
    }
    assert_eq!(world.messages(PHONE).len(), 1);
    assert_eq!(world.sandbox.ledger().repeated(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_cut_after_processing_is_settled_by_the_echo_and_not_repeated() {
    let world = World::with(quick("")).await;
    world.open_window(PHONE).await;
    let cuts = [
        Action::CutAfter,
        Action::CutAnswer { at: 0, from: CutFrom::default() },
        Action::CutAnswer { at: 40, from: CutFrom::default() },
        Action::Html { status: 502, after: true },
    ];
    for (index, action) in cuts.into_iter().enumerate() {
        world.sandbox.clear_faults();
        world.sandbox.add_fault(Fault::new("graph.messages", action).times(1));
        let deal = world.deal(PHONE);
        world.fire(deal, &json!({"recipients": "main", "text": format!("Один раз {index}")}));
        let result = world.result_of(deal).await;
        assert_eq!(text(&result, "status"), "Y", "cut {index}: {result:?}");
        world.until("the comment says read", |w| w.comment(deal).contains("Прочитано")).await;
        let sent = world.messages(PHONE).iter().filter(|m| m.shown.text == format!("Один раз {index}")).count();
        assert_eq!(sent, 1, "cut {index}");
    }
    // Long enough for a blind repetition to show.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.sandbox.ledger().repeated(), 0);
    assert_eq!(world.messages(PHONE).len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_echo_that_met_a_full_disk_is_waited_for_until_it_comes_again() {
    let mut wish = Wish { config: "[delivery]\nunclear_wait = \"1500ms\"\n".to_owned(), ..Wish::default() };
    wish.sandbox.graph.sent_ms = 600;
    let world = World::with(wish).await;
    let (unclear, later) = ("79161234567", "79161234568");
    for phone in [unclear, later] {
        world.open_window(phone).await;
    }
    let submit = world.submitter();
    let gateway = Action::Html { status: 502, after: true };
    world.sandbox.add_fault(Fault::new("graph.messages", gateway).phone(unclear).times(1));
    assert_eq!(submit.text(world.service.port(), unclear, "once").await, 202);
    world.until("it has been sent", |w| w.messages(unclear).len() == 1).await;
    world.until("the answer was seen", |w| w.log().contains("indeterminate")).await;
    world.service.limit_files(Some(64 * 1024));
    // Of each of its three statuses the vendor's next try after this one is 3.6 s away.
    world.until("the statuses are refused", |w| w.sandbox.counter("webhook.retried") >= 21).await;
    world.service.limit_files(None);
    assert_eq!(submit.text(world.service.port(), later, "proof").await, 202);
    // Its echo comes first. That the way back works again proves nothing about what came while it did not.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!((world.messages(later).len(), world.messages(unclear).len()), (1, 1), "{}", world.log());
    let (_, messages) = world.get("/api/v1/messages").await;
    let states: Vec<&str> = messages["items"].as_array().unwrap().iter().filter_map(|m| m["state"].as_str()).collect();
    assert_eq!(states.iter().filter(|state| **state == "read").count(), 2, "{messages}");
}

/// The database, which refuses this for good until `DROP TRIGGER refusing`.
async fn refusing(world: &World, what: &str) -> sqlx::PgPool {
    triggering(world, what, "RAISE 'no';").await
}

/// The database, which does this first.
async fn triggering(world: &World, what: &str, first: &str) -> sqlx::PgPool {
    let database = sqlx::PgPool::connect(&world.database()).await.unwrap();
    let text = format!(
        "CREATE SEQUENCE tries; CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {first} END $$;
        CREATE TRIGGER refusing BEFORE {what} FOR EACH ROW EXECUTE FUNCTION refuse()"
    );
    database.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(text))).await.unwrap();
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_clashes_with_another_is_made_again_and_nobody_notices() {
    let world = World::with(Wish { postgres: true, ..quick("") }).await;
    // Numbers of a sequence stay taken when a commit is undone.
    let clash = "IF nextval('tries') <= 3 THEN RAISE 'deadlock' USING ERRCODE = '40P01'; END IF; RETURN NEW;";
    let _database = triggering(&world, "INSERT ON commands", clash).await;
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "template": "greeting:ru"}));
    world.until("it says read", |w| w.comment(deal).contains("Прочитано")).await;
    assert_eq!(world.run_of(deal).callback_status, Some(200));
    assert_eq!(world.log().matches("a batch is written again").count(), 3);
    assert_eq!((world.messages(PHONE).len(), world.comments(deal).len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comment_whose_end_the_store_refuses_for_good_is_written_once_and_brought_up_to_date() {
    let world = World::with(Wish { postgres: true, ..quick("") }).await;
    let database = refusing(&world, "UPDATE OF comment_id ON messages").await;
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "template": "greeting:ru"}));
    world.until("it is refused", |w| w.log().contains("how effects ended could not be stored")).await;
    database.execute("DROP TRIGGER refusing ON messages").await.unwrap();
    world.within(Duration::from_secs(60), "it says read", |w| w.comment(deal).contains("Прочитано")).await;
    assert_eq!(world.comments(deal).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_whose_end_the_store_refuses_for_good_is_not_forgotten() {
    let world = World::with(Wish { postgres: true, ..quick("") }).await;
    world.open_window(PHONE).await;
    let database = refusing(&world, "INSERT ON attempts").await;
    let submit = world.submitter();
    assert_eq!(submit.text(world.service.port(), PHONE, "1").await, 202);
    world.until("it is refused", |w| w.log().contains("how a send ended could not be stored")).await;
    database.execute("DROP TRIGGER refusing ON attempts").await.unwrap();
    assert_eq!(submit.text(world.service.port(), PHONE, "2").await, 202);
    world.within(Duration::from_secs(40), "both have left", |w| w.messages(PHONE).len() >= 2).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let texts: Vec<String> = world.messages(PHONE).into_iter().map(|message| message.shown.text).collect();
    assert_eq!(texts, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unclear_send_without_an_echo_is_given_to_a_person() {
    let world = World::with(quick("")).await;
    world.open_window(PHONE).await;
    // Cut before processing: the vendor never saw it, and no echo will come.
    world.sandbox.add_fault(Fault::new("graph.messages", Action::CutBefore).times(1));
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "Пропало", "wait_minutes": "1"}));
    world.until("the card says that it is not known", |w| w.comment(deal).contains("Проверьте переписку")).await;
    let mut letters = json!(null);
    for _ in 0..200 {
        letters = world.get("/api/v1/dead-letters").await.1;
        if letters["items"].as_array().is_some_and(|items| !items.is_empty()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let id = letters["items"][0]["id"].as_str().unwrap_or_else(|| panic!("no dead letter: {letters}")).to_owned();
    assert!(world.messages(PHONE).is_empty());
    let (status, answer) = world.post(&format!("/api/v1/dead-letters/{id}/redrive"), json!({})).await;
    assert!((200..300).contains(&status), "{status} {answer}");
    world.until("the redriven message is read", |w| w.comment(deal).contains("Прочитано")).await;
    assert_eq!(world.messages(PHONE).len(), 1);
    assert_eq!(world.comments(deal).len(), 1, "the same living comment");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_send_waits_and_uses_up_no_try() {
    let world = World::with(quick("")).await;
    world.open_window(PHONE).await;
    let throttle =
        Action::Error { code: "130429".into(), status: None, description: None, retry_after: Some(1), after: false };
    world.sandbox.add_fault(Fault::new("graph.messages", throttle).times(2));
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "Терпение"}));
    assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
    let id = world.get(&format!("/api/v1/messages?peer={PHONE}&limit=1")).await.1["items"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let (_, message) = world.get(&format!("/api/v1/messages/{id}")).await;
    let outcomes: Vec<&str> =
        message["attempts"].as_array().unwrap().iter().map(|a| a["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["throttled", "throttled", "ok"], "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_who_had_too_much_delays_no_other() {
    let world = World::with(quick("")).await;
    let (busy, other) = (world.deal(PHONE), world.deal("79167654321"));
    let pair =
        Action::Error { code: "131056".into(), status: None, description: None, retry_after: None, after: false };
    world.sandbox.add_fault(Fault::new("graph.messages", pair).phone(PHONE).times(1));
    world.fire(busy, &json!({"recipients": "main", "template": "greeting:ru"}));
    world.until("the vendor refused the first", |w| w.sandbox.faults()[0].fired > 0).await;
    world.fire(other, &json!({"recipients": "main", "template": "greeting:ru"}));
    world.until("the other one is read", |w| w.comment(other).contains("Прочитано")).await;
    assert_eq!(world.messages(PHONE).len(), 0, "one message in six seconds to one person");
    world.until("the first is read too", |w| w.comment(busy).contains("Прочитано")).await;
    assert_eq!(world.messages(PHONE).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_token_pauses_the_channel_and_keeps_the_queue() {
    let world = World::with(quick("")).await;
    world.open_window(PHONE).await;
    world.number.set_token_valid(false);
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "Подождёт"}));
    let path = format!("/api/v1/channels/{}", world.channel);
    for _ in 0..200 {
        if world.get(&path).await.1["state"] == "paused" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (_, channel) = world.get(&path).await;
    assert_eq!(channel["state"], "paused", "{channel}");
    world.until("the card says who must act", |w| w.comment(deal).contains("Администратор")).await;
    let second = world.deal(PHONE);
    world.fire(second, &json!({"recipients": "main", "text": "И эта"}));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(world.messages(PHONE).is_empty());
    world.number.set_token_valid(true);
    let (status, _) = world.post(&format!("{path}/resume"), json!({})).await;
    assert_eq!(status, 200);
    world.until("both went out", |w| w.messages(PHONE).len() == 2).await;
    let texts: Vec<String> = world.messages(PHONE).iter().map(|message| message.shown.text.clone()).collect();
    assert_eq!(texts, ["Подождёт", "И эта"], "in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_resumed_while_its_pause_is_being_read_goes_on_at_once() {
    const ROUNDS: usize = 25;
    let world = World::with(quick("")).await;
    world.open_window(PHONE).await;
    let path = format!("/api/v1/channels/{}", world.channel);
    let stage = world.robot(&json!({"recipients": "main", "text": "Раунд"}));
    for _ in 0..ROUNDS {
        assert_eq!(world.post(&format!("{path}/pause"), json!({"reason": "check"})).await.0, 200);
        let deal = world.deal(PHONE);
        world.portal.move_item(DEAL, deal, &stage).unwrap();
        assert_eq!(world.post(&format!("{path}/resume"), json!({})).await.0, 200);
    }
    // A paused channel is looked at again after half a minute, which is longer than this waits.
    world.until("every round went out", |w| w.messages(PHONE).len() == ROUNDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_recipient_fails_and_the_other_does_not() {
    let world = World::new().await;
    world.open_window(PHONE).await;
    let deal = world.deal(PHONE);
    let list = json!({"recipients": "given", "phones": [PHONE, "12345"], "text": "Кому дойдёт"});
    world.fire(deal, &list);
    let result = world.result_of(deal).await;
    assert_eq!((text(&result, "status"), text(&result, "error_code")), ("N".into(), "bad_phone".into()));
    let detail = text(&result, "detail");
    assert!(detail.contains(&format!("{PHONE}:Y")) && detail.contains("12345:N:[bad_phone]"), "{detail}");
    world.until("both have a comment", |w| w.comments(deal).len() == 2).await;
    assert_eq!(world.messages(PHONE).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicate_callbacks_are_one_command() {
    let world = World::new().await;
    world.open_window(PHONE).await;
    world.sandbox.set_queue_knobs(|knobs| knobs.duplicate = 3);
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "Один раз"}));
    assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
    world.until("the comment says read", |w| w.comment(deal).contains("Прочитано")).await;
    assert_eq!(world.messages(PHONE).len(), 1);
    assert_eq!(world.comments(deal).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicate_and_shuffled_statuses_end_in_the_highest_state() {
    let world = World::new().await;
    world.open_window(PHONE).await;
    world.sandbox.set_webhook_knobs(|knobs| {
        knobs.duplicate = 2;
        knobs.jitter_ms = 400;
    });
    let deals: Vec<i64> = (0..20).map(|_| world.deal(PHONE)).collect();
    for deal in &deals {
        world.fire(*deal, &json!({"recipients": "main", "text": format!("Сделка {deal}")}));
    }
    for deal in deals {
        world.until("the comment says read", |w| w.comment(deal).contains("Прочитано")).await;
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for deal in world.portal.items(2, 100) {
        assert!(world.comment(deal.id).contains("Прочитано"), "late statuses undid nothing");
    }
    assert_eq!(world.messages(PHONE).len(), 20);
    assert_eq!(world.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_in_mid_flight_is_refreshed_once() {
    let world = World::new().await;
    world.open_window(PHONE).await;
    world.portal.expire_access_tokens();
    let before = world.sandbox.calls("oauth.token").len();
    let deals: Vec<i64> = (0..10).map(|_| world.deal(PHONE)).collect();
    for deal in &deals {
        world.fire(*deal, &json!({"recipients": "main", "text": format!("Сделка {deal}")}));
    }
    for deal in deals {
        assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
        world.until("the comment says read", |w| w.comment(deal).contains("Прочитано")).await;
    }
    assert_eq!(world.sandbox.calls("oauth.token").len() - before, 1, "single flight");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comment_whose_answer_was_lost_is_not_written_twice() {
    let world = World::with(quick("")).await;
    world.open_window(PHONE).await;
    for action in [Action::CutAfter, Action::Html { status: 504, after: true }] {
        world.sandbox.clear_faults();
        world.sandbox.add_fault(Fault::new("rest.batch", action).contains("crm.timeline.comment.add").times(1));
        let deal = world.deal(PHONE);
        world.fire(deal, &json!({"recipients": "main", "text": "Один комментарий"}));
        world.until("the comment says read", |w| w.comment(deal).contains("Прочитано")).await;
        assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
        assert_eq!(world.comments(deal).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_over_its_limit_gets_everything_in_the_end() {
    let world = World::with(quick("")).await;
    world.open_window(PHONE).await;
    let limit = Action::Error {
        code: "QUERY_LIMIT_EXCEEDED".into(),
        status: None,
        description: None,
        retry_after: None,
        after: false,
    };
    world.sandbox.add_fault(Fault::new("rest.batch", limit).times(3));
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "Не спеша"}));
    assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
    world.until("the comment says read", |w| w.comment(deal).contains("Прочитано")).await;
    assert_eq!(world.comments(deal).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_robot_is_answered_when_its_time_is_over() {
    let world = World::new().await;
    world.open_window(PHONE).await;
    world.sandbox.phone(PHONE).set_online(false);
    let deal = world.deal(PHONE);
    let properties = json!({"recipients": "main", "text": "Ждём", "wait": "delivered"});
    let stage = world.robot_on(2, &properties, |automation| automation.timeout_s = 9);
    world.portal.move_item(2, deal, &stage).unwrap();
    let result = world.result_of(deal).await;
    assert_eq!((text(&result, "status"), text(&result, "timeout")), ("N".into(), "0".into()), "{result:?}");
    assert_eq!(text(&result, "error_code"), "not_confirmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_cannot_be_written_delays_no_other_card() {
    let config = "[delivery]\nretry_schedule = [\"60s\"]\n".to_owned();
    let world = World::with(Wish { config, ..Wish::default() }).await;
    let (bad, good) = (world.deal(PHONE), world.deal("79167654321"));
    let error = Action::Error {
        code: "INTERNAL_SERVER_ERROR".into(),
        status: None,
        description: None,
        retry_after: None,
        after: false,
    };
    // The number of a card as it stands in the entry of the batch.
    let entity = format!("ENTITY_ID%5D={bad}&");
    world.sandbox.add_fault(Fault::new("rest.crm.timeline.comment.add", error).contains(entity));
    world.fire(bad, &json!({"recipients": "main", "template": "greeting:ru"}));
    world.until("the bad card was tried", |w| w.sandbox.faults()[0].fired > 0).await;
    world.fire(good, &json!({"recipients": "main", "template": "greeting:ru"}));
    world.until("the good card is told", |w| w.comment(good).contains("Прочитано")).await;
    assert_eq!(text(&world.result_of(bad).await, "status"), "Y", "its robot is answered all the same");
}
