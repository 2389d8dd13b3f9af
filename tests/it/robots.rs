//! The catalogue beside `send_message`: what each robot does, says on the card and gives back.

use serde_json::{Value, json};

use crate::world::{DEAL, Wish, World, text};

const PHONE: &str = "79161234567";
const OTHER: &str = "79161234568";
const LOST: &str = "79161234570";

impl World {
    /// Puts this robot on a stage of its own and moves the deal there.
    pub(crate) fn run(&self, code: &str, deal: i64, properties: &Value) {
        let stage = self.robot_on(DEAL, properties, |automation| code.clone_into(&mut automation.robot));
        self.portal.move_item(DEAL, deal, &stage).unwrap();
    }

    /// How often the portal was asked for this method.
    fn asked(&self, method: &str) -> u64 {
        self.sandbox.counter(&format!("method.{method}"))
    }

    pub(crate) async fn until_registered(&self, code: &str) {
        self.until("the robot is registered", |w| w.portal.robots().iter().any(|robot| robot.code == code)).await;
    }
}

async fn checks(world: World) {
    world.until_registered("check_phone").await;
    // Nothing is known of a stranger, and nothing is sent to find out.
    let deal = world.deal("8 (916) 123-45-67");
    world.run("check_phone", deal, &json!({"recipients": "main"}));
    let result = world.result_of(deal).await;
    assert_eq!(
        (text(&result, "status"), text(&result, "exists"), text(&result, "phones")),
        ("Y".to_owned(), "U".to_owned(), PHONE.to_owned())
    );
    assert_eq!((text(&result, "detail"), text(&result, "error_code")), (format!("{PHONE}:Y"), String::new()));
    world.until("the card tells", |w| w.comment(deal).contains("переписки с этим номером не было")).await;
    assert!(world.messages(PHONE).is_empty());
    // Whoever wrote has an account.
    world.open_window(PHONE).await;
    let deal = world.deal(PHONE);
    world.run("check_phone", deal, &json!({"recipients": "main"}));
    assert_eq!(text(&world.result_of(deal).await, "exists"), "Y");
    world.until("the card tells", |w| w.comment(deal).contains("клиент писал с этого номера")).await;
    // So has whoever got a message; several phones are told apart, and what is no phone is said.
    let template =
        json!({"recipients": "given", "phones": [OTHER], "template": "order_update:ru", "params": ["Анна", "1"]});
    let deal = world.deal(OTHER);
    world.fire(deal, &template);
    world.until("it was delivered", |w| w.comment(deal).contains("Прочитано")).await;
    let deal = world.deal(PHONE);
    let phones = json!({"recipients": "given", "phones": [format!("+7 916 123-45-68; abc, {PHONE}"), "79160000000"]});
    world.run("check_phone", deal, &phones);
    let result = world.result_of(deal).await;
    assert_eq!(text(&result, "exists"), "Y,U,Y,U");
    assert_eq!(text(&result, "phones"), format!("{OTHER},abc,{PHONE},79160000000"));
    assert_eq!((text(&result, "status"), text(&result, "error_code")), ("N".to_owned(), "bad_phone".to_owned()));
    assert!(world.messages(PHONE).is_empty());
    // A number that was left is no account any more; one that could not be reached is none for sure.
    let notice = json!({
        "messaging_product": "whatsapp",
        "metadata": {
            "display_phone_number": "79990001122", "phone_number_id": world.number.view().spec.phone_number_id,
        },
        "messages": [{
            "from": OTHER, "id": "wamid.LEFT", "timestamp": (world.sandbox.now_ms() / 1000 + 60).to_string(), "type": "system",
            "system": {"body": "changed", "type": "user_changed_number", "wa_id": "79161234569"},
        }],
    });
    world.number.send_webhook("messages", &notice);
    world.until_stored(OTHER).await;
    world.sandbox.phone(LOST).set_exists(false);
    let deal = world.deal(LOST);
    world.fire(deal, &json!({"recipients": "main", "template": "order_update:ru", "params": ["Анна", "1"]}));
    world.until("it was not delivered", |w| w.comment(deal).contains("Не отправлено")).await;
    let deal = world.deal(OTHER);
    world.run("check_phone", deal, &json!({"recipients": "given", "phones": format!("{OTHER};{LOST}")}));
    let result = world.result_of(deal).await;
    assert_eq!((text(&result, "exists"), text(&result, "status")), ("N,U".to_owned(), "Y".to_owned()));
    let told = |w: &World, words: &str| w.comments(deal).iter().any(|comment| comment.text.contains(words));
    world.until("the card tells of both", |w| told(w, "сменил номер") && told(w, "скорее нет")).await;
    assert_eq!(world.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_is_checked_by_what_was_seen_and_nothing_is_sent() {
    checks(World::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_is_checked_on_postgres_too() {
    checks(World::with(Wish { postgres: true, ..Wish::default() }).await).await;
}

/// The bytes behind the address that the vendor was given for a message.
async fn fetched(world: &World, link: &str) -> (u16, String, Vec<u8>) {
    let answer = world.http.get(link).header("accept", "*/*").send().await.unwrap();
    let status = answer.status().as_u16();
    let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
    (status, kind, answer.bytes().await.unwrap().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_drive_and_of_fields_go_out_by_addresses_of_ours() {
    let mut world = World::with(Wish { scopes: &["disk"], ..Wish::default() }).await;
    world.until_registered("send_file").await;
    world.open_window(PHONE).await;
    let bill = world.portal.add_disk_file("Счёт № 7.pdf", b"%PDF-1.4 bill");
    let photo = world.portal.add_disk_file("photo.jpg", &[7; 4000]);
    let deal = world.deal(PHONE);
    world.portal.set_file_field(DEAL, deal, "ufCrm_1_PHOTO", &[photo]);
    let files =
        json!({"recipients": "main", "files": [format!("disk:{bill}"), "UF_CRM_1_PHOTO"], "caption": "Ваш счёт"});
    world.run("send_file", deal, &files);
    let result = world.result_of(deal).await;
    assert_eq!((text(&result, "status"), text(&result, "error_code")), ("Y".to_owned(), String::new()), "{result:?}");
    let media: Vec<_> = world.messages(PHONE).into_iter().filter_map(|message| message.shown.media).collect();
    assert_eq!(media.len(), 2);
    assert_eq!(
        (media[0].kind.as_str(), media[0].filename.as_str(), media[0].caption.as_str()),
        ("document", "Счёт № 7.pdf", "Ваш счёт")
    );
    assert_eq!(media[1].kind, "image");
    // The address is ours and tells nothing; it gives the bytes, as often as asked, and ends.
    let links: Vec<String> = media.iter().map(|media| media.link.clone()).collect();
    assert!(links.iter().all(|link| link.starts_with(world.base()) && !link.contains("auth=")), "{links:?}");
    for _ in 0..2 {
        assert_eq!(fetched(&world, &links[0]).await, (200, "application/pdf".to_owned(), b"%PDF-1.4 bill".to_vec()));
    }
    assert_eq!(fetched(&world, &links[1]).await, (200, "image/jpeg".to_owned(), vec![7; 4000]));
    assert_eq!(fetched(&world, &links[0].replace("s1.", "s2.")).await.0, 404);
    let word = links[0].rsplit('/').nth(1).unwrap();
    assert!(word.starts_with("s1.") && !world.log().contains(word), "what opens a file is not logged");
    world.kill();
    world.restart().await;
    assert_eq!(fetched(&world, &links[0]).await.0, 200, "addresses outlive a restart");
    assert!(world.portal.remove_disk_file(bill));
    assert_eq!(fetched(&world, &links[0]).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_sent_is_refused_in_words_before_anything_leaves() {
    let world = World::with(Wish { scopes: &["disk"], ..Wish::default() }).await;
    world.until_registered("send_file").await;
    world.open_window(PHONE).await;
    let large = world.portal.add_disk_file("large.png", &vec![0; 6 << 20]);
    let page = world.portal.add_disk_file_as("page.pdf", "text/html", b"<html>sign in</html>");
    let deal = world.deal(PHONE);
    world.portal.set_file_field(DEAL, deal, "ufCrm_1_PAGE", &[page]);
    for (file, code) in [
        (format!("disk:{large}"), "file_too_large"),
        ("disk:999999".to_owned(), "file_not_found"),
        ("UF_CRM_NOT_THERE".to_owned(), "file_not_found"),
        ("UF_CRM_1_PAGE".to_owned(), "file_not_found"),
        ("something".to_owned(), "file_type"),
        // What a file field leaves that was inserted as it is: not the Drive's number.
        (large.to_string(), "file_type"),
    ] {
        let deal = if code == "file_type" { world.deal(PHONE) } else { deal };
        world.run("send_file", deal, &json!({"recipients": "main", "files": [file]}));
        world
            .until("the robot was refused", |w| {
                let runs = w.portal.robot_runs(DEAL, deal);
                runs.last().is_some_and(|run| run.result("error_code").as_deref() == Some(code))
            })
            .await;
    }
    assert!(world.messages(PHONE).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_the_drive_a_link_still_goes_out() {
    let world = World::new().await;
    world.until_registered("send_file").await;
    world.open_window(PHONE).await;
    let file = world.portal.add_disk_file("a.pdf", b"a");
    let deal = world.deal(PHONE);
    world.run("send_file", deal, &json!({"recipients": "main", "files": [format!("disk:{file}")]}));
    assert_eq!(text(&world.result_of(deal).await, "error_code"), "file_not_found");
    let deal = world.deal(PHONE);
    world.run("send_file", deal, &json!({"recipients": "main", "files": ["http://127.0.0.1:9/bill.pdf"]}));
    assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
}

/// Waiting workflow and other work of the same card.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_leaves_once_its_pdf_is_ready_and_holds_nothing_up() {
    let world = World::new().await;
    world.until_registered("send_document").await;
    world.open_window(PHONE).await;
    let deal = world.deal(PHONE);
    world.portal.add_document(DEAL, deal, 5, "Старый договор");
    let document = world.portal.add_document(DEAL, deal, 5, "Договор 42");
    world.portal.add_document(DEAL, deal, 6, "Акт");
    world.run(
        "send_document",
        deal,
        &json!({"recipients": "main", "document_id": "template:5", "caption": "Ваш договор"}),
    );
    let waiting = world.run_of(deal).event_token;
    world.until("the portal was asked for the document", |w| w.asked("crm.documentgenerator.document.get") > 0).await;
    // The card's next robot does not wait behind it.
    world.run("send_message", deal, &json!({"recipients": "main", "text": "Здравствуйте"}));
    world.until("the text is there", |w| w.messages(PHONE).len() == 1).await;
    assert_eq!(world.messages(PHONE)[0].shown.text, "Здравствуйте");
    world.portal.finish_document(document, Some(b"%PDF contract"));
    let finished = |w: &World| {
        let runs = w.portal.robot_runs(DEAL, deal);
        runs.into_iter().find(|run| run.event_token == waiting && run.finished_ms.is_some())
    };
    world.within(std::time::Duration::from_secs(60), "the robot goes on", |w| finished(w).is_some()).await;
    let run = finished(&world).unwrap();
    assert_eq!(run.result("status").as_deref(), Some("Y"), "{run:?}");
    let sent = world.messages(PHONE).into_iter().filter_map(|message| message.shown.media).next().unwrap();
    assert_eq!(
        (sent.kind.as_str(), sent.filename.as_str(), sent.caption.as_str()),
        ("document", "Договор 42.pdf", "Ваш договор")
    );
    assert_eq!(fetched(&world, &sent.link).await.2, b"%PDF contract");
    assert_eq!(world.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_not_there_is_told_and_one_without_a_pdf_goes_as_it_is() {
    let world = World::new().await;
    world.until_registered("send_document").await;
    world.open_window(PHONE).await;
    let deal = world.deal(PHONE);
    world.run("send_document", deal, &json!({"recipients": "main"}));
    assert_eq!(text(&world.result_of(deal).await, "error_code"), "file_not_found");
    let deal = world.deal(PHONE);
    let document = world.portal.add_document(DEAL, deal, 5, "Договор");
    world.portal.finish_document(document, None);
    world.run("send_document", deal, &json!({"recipients": "main", "document_id": document.to_string()}));
    assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
    let sent = world.messages(PHONE).into_iter().filter_map(|message| message.shown.media).next().unwrap();
    assert_eq!((sent.filename.as_str(), fetched(&world, &sent.link).await.2), ("Договор.docx", b"PK docx".to_vec()));
}

async fn tags(world: World) {
    world.until_registered("tag_dialog").await;
    let tag = async |properties: Value| {
        let deal = world.deal(PHONE);
        world.run("tag_dialog", deal, &properties);
        (world.result_of(deal).await, deal)
    };
    let (result, deal) = tag(json!({"recipients": "main", "add": ["VIP, опт", "новый"]})).await;
    assert_eq!(
        (text(&result, "status"), text(&result, "tags")),
        ("Y".to_owned(), "VIP,новый,опт".to_owned()),
        "{result:?}"
    );
    world.until("the card tells", |w| w.comment(deal).contains("Теги диалога: VIP, новый, опт")).await;
    // They stay, and one that is asked for and refused at once is taken off.
    let (result, _) = tag(json!({"recipients": "main", "add": ["долг"], "remove": ["новый", "долг"]})).await;
    assert_eq!(text(&result, "tags"), "VIP,опт");
    let (result, _) = tag(json!({"recipients": "given", "phones": [OTHER], "remove": ["VIP"]})).await;
    assert_eq!((text(&result, "status"), text(&result, "tags")), ("Y".to_owned(), String::new()), "another dialog");
    let (result, _) = tag(json!({"recipients": "main"})).await;
    assert_eq!(text(&result, "error_code"), "no_content");
    assert!(world.messages(PHONE).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_stand_on_dialogs_and_go_on_to_later_robots() {
    tags(World::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_stand_on_dialogs_on_postgres_too() {
    tags(World::with(Wish { postgres: true, ..Wish::default() }).await).await;
}
