//! The main job as it should go.

use serde_json::json;

use crate::world::{DEAL, LEAD, Wish, World, text};

const PHONE: &str = "79161234567";

async fn main_job(world: World) {
    world.open_window(PHONE).await;
    let deal = world.deal("8 (916) 123-45-67");
    world.fire(deal, &json!({"recipients": "main", "text": "Заказ готов"}));
    let result = world.result_of(deal).await;
    assert_eq!(text(&result, "status"), "Y", "{result:?}");
    assert_eq!(text(&result, "detail"), format!("{PHONE}:Y"));
    assert_eq!(text(&result, "timeout"), "1");
    assert_eq!(text(&result, "error_code"), "");
    let messages = world.messages(PHONE);
    assert_eq!(messages.len(), 1);
    assert_eq!((messages[0].shown.kind.as_str(), messages[0].shown.text.as_str()), ("text", "Заказ готов"));
    assert_eq!(text(&result, "message_ids"), messages[0].wamid);
    world.until("the comment says read", |w| w.comment(deal).contains("Прочитано")).await;
    let comment = world.comment(deal);
    assert!(
        comment.contains("WhatsApp") && comment.contains("+79161234567") && comment.contains("Заказ готов"),
        "{comment}"
    );
    let run = world.run_of(deal);
    assert_eq!(run.callback_status, Some(200));
    assert!(run.sends[0].at_ms - run.callback_ms.unwrap() >= 2000, "not in the first two seconds");
    assert_eq!(world.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_robot_sends_a_text_and_the_card_tells_what_became_of_it() {
    main_job(World::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_on_postgres() {
    main_job(World::with(Wish { postgres: true, ..Wish::default() }).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_needs_no_open_window() {
    let world = World::new().await;
    let deal = world.deal(PHONE);
    let template = json!({"recipients": "main", "template": "order_update:ru", "params": ["Анна", "1042"]});
    world.fire(deal, &template);
    assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
    assert_eq!(world.messages(PHONE).len(), 1);
    world.until("the comment says read", |w| w.comment(deal).contains("Прочитано")).await;
    assert!(world.comment(deal).contains("order_update:ru"), "{}", world.comment(deal));
}

#[tokio::test(flavor = "multi_thread")]
async fn leads_and_smart_processes_have_cards_too() {
    let world = World::new().await;
    world.open_window(PHONE).await;
    let smart = 180;
    world.portal.add_smart_process(smart, "Заявки");
    for kind in [LEAD, smart] {
        let item = world
            .portal
            .add_item(sandbox::ItemSpec {
                entity_type_id: kind, title: "Карточка".into(), ..Default::default()
            })
            .unwrap();
        let properties = json!({"recipients": "given", "phones": ["+7 916 123-45-67"], "text": "Здравствуйте"});
        let stage = world.robot_on(kind, &properties, |_| {});
        world.portal.move_item(kind, item, &stage).unwrap();
        world
            .until("the card has its comment", |w| {
                w.portal.timeline(kind, item).iter().any(|c| c.text.contains("Прочитано"))
            })
            .await;
        let runs = world.portal.robot_runs(kind, item);
        world.until("the robot has its result", |w| w.portal.robot_runs(kind, item)[0].finished_ms.is_some()).await;
        assert_eq!(runs.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_with_its_text_as_caption() {
    let world = World::new().await;
    world.open_window(PHONE).await;
    let deal = world.deal(PHONE);
    let files = json!({"recipients": "main", "text": "Ваш счёт", "files": ["http://127.0.0.1:9/bill.pdf"]});
    world.fire(deal, &files);
    assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
    let messages = world.messages(PHONE);
    assert_eq!(messages.len(), 1, "{messages:?}");
    let media = messages[0].shown.media.clone().unwrap();
    assert_eq!(
        (media.kind.as_str(), media.filename.as_str(), media.caption.as_str()),
        ("document", "bill.pdf", "Ваш счёт")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn several_recipients_are_written_to_once_each() {
    let world = World::new().await;
    for phone in [PHONE, "79160000001"] {
        world.open_window(phone).await;
    }
    let deal = world.deal(PHONE);
    let list = json!({"recipients": "given", "phones": ["8 916 123-45-67; +79160000001", "+7 (916) 123 45 67"], "text": "Всем"});
    world.fire(deal, &list);
    let result = world.result_of(deal).await;
    assert_eq!(text(&result, "status"), "Y");
    assert_eq!(text(&result, "detail"), "79161234567:Y\n79160000001:Y");
    assert_eq!(world.messages(PHONE).len(), 1);
    assert_eq!(world.messages("79160000001").len(), 1);
    assert_eq!(world.comments(deal).len(), 2, "one living comment per message");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_robot_can_wait_until_the_message_is_read() {
    let world = World::new().await;
    world.open_window(PHONE).await;
    let phone = world.sandbox.phone(PHONE);
    phone.set_online(false);
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "Когда прочтёте", "wait": "read"}));
    world.until("it is sent", |w| w.messages(PHONE).iter().any(|message| !message.statuses.is_empty())).await;
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    assert!(world.result(deal).is_none(), "nobody has read it yet");
    phone.set_online(true);
    let result = world.result_of(deal).await;
    assert_eq!((text(&result, "status"), text(&result, "timeout")), ("Y".into(), "1".into()));
    assert!(!text(&result, "delivered_at").is_empty(), "{result:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_robot_that_does_not_wait_gets_no_result_and_a_card_without_wish_no_comment() {
    let world = World::new().await;
    world.open_window(PHONE).await;
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "Тихо", "comment": "N"}));
    assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
    assert!(world.comments(deal).is_empty());
    assert_eq!(world.messages(PHONE).len(), 1);
    assert_eq!(world.portal.timeline(DEAL, deal).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn variants_are_picked_and_both_dialects_of_line_breaks_survive() {
    let world = World::new().await;
    world.open_window(PHONE).await;
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "text": "{Привет|Здравствуйте}, Анна[br]\\{не вариант\\}"}));
    world.result_of(deal).await;
    let body = &world.messages(PHONE)[0].shown.text;
    assert!(body == "Привет, Анна\n{не вариант}" || body == "Здравствуйте, Анна\n{не вариант}", "{body}");
}
