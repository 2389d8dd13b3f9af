//! Pages inside Bitrix24 without a browser: who gets in, what a page may do, and that nothing is sent twice.

use sandbox::{Action, BotInbound, Fault, ItemSpec, Page, PageRequest, UserSpec};
use serde_json::{Value, json};

use crate::telegram::{PERSON, connected, stored};
use crate::world::{DEAL, SOON, Wish, World};

const PHONE: &str = "79161234567";
const OTHER_PHONE: &str = "79261234567";
const TAB: &str = "CRM_DEAL_DETAIL_TAB";

async fn furnished() -> World {
    let world = World::with(Wish { open_lines: true, ..Wish::default() }).await;
    until_tabs(&world, &[TAB]).await;
    world
}

fn places(world: &World) -> Vec<String> {
    let app = world.portal.app(&world.client_id).unwrap();
    app.placements.into_iter().map(|(code, _)| code).collect()
}

fn nothing_is_compared(world: &World) -> bool {
    let file = rusqlite::Connection::open(world.database().strip_prefix("sqlite://").unwrap()).unwrap();
    file.query_row("SELECT COUNT(*) FROM jobs WHERE kind = 'reconcile'", [], |row| row.get::<_, i64>(0)).unwrap() == 0
}

async fn until_tabs(world: &World, tabs: &[&str]) {
    world.until("the tabs are bound", |w| tabs.iter().all(|tab| places(w).iter().any(|place| place == tab))).await;
}

async fn open(world: &World, place: &str, user: i64, options: Value) -> Page {
    let request = PageRequest {
        client_id: world.client_id.clone(),
        user_id: user,
        place: place.to_owned(),
        options,
        ..PageRequest::default()
    };
    world.portal.open_page(&request).await.unwrap()
}

/// The pass in a page.
fn pass_of(page: &Page) -> String {
    assert_eq!(page.status, 200, "{}", page.body);
    let after = ["data-pass=\"", "name=\"pass\" value=\""].iter().find_map(|mark| page.body.split(mark).nth(1));
    let after = after.unwrap_or_else(|| panic!("no pass: {}", page.body));
    after.split('"').next().unwrap().to_owned()
}

/// A call of the page's script.
async fn call(world: &World, pass: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let url = format!("{}/bitrix24/main{path}", world.base());
    let call = match body {
        Some(body) => world.http.post(url).json(&body),
        None => world.http.get(url),
    };
    let answer = call.bearer_auth(pass).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
}

async fn press(world: &World, pass: &str, action: &str) -> (u16, String) {
    let url = format!("{}/bitrix24/main/app/{action}", world.base());
    let answer = world.http.post(url).form(&[("pass", pass)]).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn tab(world: &World, deal: i64) -> String {
    pass_of(&open(world, TAB, 1, json!({"ID": deal.to_string()})).await)
}

async fn dialogs(world: &World, pass: &str) -> Vec<Value> {
    let (status, body) = call(world, pass, "/card/dialogs", None).await;
    assert_eq!(status, 200, "{body}");
    body["dialogs"].as_array().unwrap().clone()
}

fn letter(world: &World, key: &str, text: &str) -> Value {
    json!({"key": key, "letter": {"channel": world.channel, "to": PHONE, "text": text}})
}

#[tokio::test(flavor = "multi_thread")]
async fn tabs_stand_on_every_kind_of_card_and_come_back_after_an_update() {
    let world = furnished().await;
    let all = ["CRM_LEAD_DETAIL_TAB", TAB, "CRM_CONTACT_DETAIL_TAB", "CRM_COMPANY_DETAIL_TAB"];
    until_tabs(&world, &all).await;
    let number = world.portal.add_smart_process(0, "Проекты");
    let smart = format!("CRM_DYNAMIC_{number}_DETAIL_TAB");
    // An update that took the robots away in the middle of a comparison would be complained of, and mended by the next.
    world.until("nothing is being compared", nothing_is_compared).await;
    world.portal.update_app(&world.client_id, 2).unwrap();
    until_tabs(&world, &all).await;
    until_tabs(&world, &[&smart]).await;
    // Settings pages of connectors come and go with their registration.
    let mut places = places(&world);
    places.retain(|place| place.ends_with("_DETAIL_TAB"));
    places.sort();
    let count = places.len();
    places.dedup();
    assert_eq!((places.len(), count), (5, 5), "each place once: {places:?}");
    let deal = world.portal.add_item(ItemSpec {
        entity_type_id: number,
        title: "Ремонт".into(),
        contact_ids: vec![world.portal.add_contact("Анна", "Тестова", PHONE).unwrap()],
        ..ItemSpec::default()
    });
    let page = open(&world, &smart, 1, json!({"ID": deal.unwrap().to_string()})).await;
    assert_eq!(dialogs(&world, &pass_of(&page)).await.len(), 1);
    assert_eq!(world.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_shows_its_dialogs_and_somebody_writes_first() {
    let world = furnished().await;
    let deal = world.deal("8 (916) 123-45-67");
    let pass = tab(&world, deal).await;
    let first = dialogs(&world, &pass).await;
    assert_eq!(first.len(), 1);
    assert_eq!(
        (&first[0]["to"], &first[0]["window"], &first[0]["title"]),
        (&json!(PHONE), &json!("closed"), &json!("Анна Тестова"))
    );
    assert_eq!(first[0]["messages"], json!([]));

    // Nobody has written yet, so a template opens the dialog.
    let (status, list) = call(&world, &pass, &format!("/card/templates/{}", world.channel), None).await;
    assert_eq!(status, 200, "{list}");
    let template = list["templates"].as_array().unwrap().iter().find(|one| one["label"] == "order_update:ru").unwrap();
    assert_eq!(template["params"].as_array().unwrap().len(), 2, "{template}");
    let wanted = json!({"key": "a1", "letter": {"channel": world.channel, "to": PHONE, "template": "order_update:ru", "params": ["Анна", "1042"]}});
    let (status, kept) = call(&world, &pass, "/card/messages", Some(wanted.clone())).await;
    assert_eq!(status, 202, "{kept}");
    // Twice pressed: the same message.
    assert_eq!(call(&world, &pass, "/card/messages", Some(wanted)).await, (202, kept));
    world.until("it is read", |w| w.comment(deal).contains("Прочитано")).await;
    assert_eq!(world.messages(PHONE).len(), 1);

    // WhatsApp tells the time of what clients write in whole seconds: an answer within the second would stand before it.
    let read = world.sandbox.now_ms() / 1000;
    world.until("the next second has begun", |w| w.sandbox.now_ms() / 1000 > read).await;
    world.open_window(PHONE).await;
    let now = dialogs(&world, &pass).await;
    assert_eq!(now[0]["window"], json!("open"));
    let shown: Vec<(bool, &str)> = now[0]["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| (message["out"].as_bool().unwrap(), message["state"].as_str().unwrap()))
        .collect();
    assert_eq!(shown, [(true, "read"), (false, "received")]);

    let words = "{{Имя}}, {Hello|Hi} & <b>до встречи</b>";
    let (status, kept) = call(&world, &pass, "/card/messages", Some(letter(&world, "a2", words))).await;
    assert_eq!(status, 202, "{kept}");
    world
        .until("the text is sent as it stands", |w| {
            w.messages(PHONE).last().is_some_and(|last| last.shown.text == words)
        })
        .await;
    // The key of a letter that is on its way takes no other words.
    assert_eq!(call(&world, &pass, "/card/messages", Some(letter(&world, "a2", "other"))).await.0, 409);
    world.until("both have their comments", |w| w.comments(deal).len() == 2).await;
    assert_eq!(world.messages(PHONE).len(), 2);
    assert_eq!(world.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_lost_the_answer_sends_once() {
    let world = furnished().await;
    world.open_window(PHONE).await;
    let deal = world.deal(PHONE);
    let pass = tab(&world, deal).await;
    // Twenty presses at once, as an impatient person on a bad line makes them.
    let presses = (0..20).map(|_| call(&world, &pass, "/card/messages", Some(letter(&world, "once", "Один раз"))));
    let answers = futures_util::future::join_all(presses).await;
    assert!(answers.iter().all(|answer| answer.0 == 202 && answer.1 == answers[0].1), "{answers:?}");
    world.until("it is on the phone", |w| w.messages(PHONE).len() == 1).await;
    world.until("it is read", |w| w.comment(deal).contains("Прочитано")).await;
    assert_eq!(world.messages(PHONE).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_in_words_and_nothing_is_kept() {
    let world = furnished().await;
    let deal = world.deal(PHONE);
    let pass = tab(&world, deal).await;
    let with = |letter: Value| json!({"key": "k", "letter": letter});
    let own = |more: Value| {
        let mut letter = json!({"channel": world.channel, "to": PHONE});
        letter.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with(letter)
    };
    for (body, status) in [
        (own(json!({"text": "я".repeat(5_000)})), 422),
        (own(json!({"text": ""})), 422),
        (own(json!({"text": "x", "file": "ftp://x.example/a.pdf"})), 422),
        (with(json!({"channel": world.channel, "to": OTHER_PHONE, "text": "чужой номер"})), 422),
        (with(json!({"channel": world.channel, "to": "@ada", "text": "x"})), 422),
        (with(json!({"channel": "chan_01UNKNOWN", "to": PHONE, "text": "x"})), 422),
        (json!({"key": "two words", "letter": {"channel": world.channel, "to": PHONE, "text": "x"}}), 400),
        (json!({"key": "k", "letter": {"channel": "x y", "to": PHONE, "text": "x"}}), 400),
        (json!({"letter": {}}), 400),
    ] {
        let (got, problem) = call(&world, &pass, "/card/messages", Some(body.clone())).await;
        assert_eq!(got, status, "{body}: {problem}");
        if status == 422 {
            let words = problem["detail"].as_str().unwrap();
            assert!(words.chars().any(|letter| ('а'..='я').contains(&letter)), "in the reader's language: {words}");
        }
    }
    assert!(world.comments(deal).is_empty() && world.messages(PHONE).is_empty());
    // A text into a closed window is refused later, and the dialog and the card say why.
    assert_eq!(call(&world, &pass, "/card/messages", Some(letter(&world, "late", "Добрый день"))).await.0, 202);
    world.until("the card says why", |w| w.comment(deal).contains("24-часовое окно")).await;
    let shown = dialogs(&world, &pass).await;
    let last = shown[0]["messages"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["state"], json!("failed"));
    assert!(last["why"].as_str().unwrap().contains("24-часовое окно"), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_or_does_more_than_the_portal_lets_them() {
    let world = furnished().await;
    let employee = world.portal.add_user(UserSpec { name: "Олег".into(), ..UserSpec::default() });
    let contact = world.portal.add_contact("Анна", "Тестова", PHONE).unwrap();
    let (deal, secret) = (world.portal.add_deal("Заказ", contact).unwrap(), world.deal(OTHER_PHONE));
    world.portal.hide_item(DEAL, secret, employee);
    let id = |deal: i64| json!({"ID": deal.to_string()});

    // An employee works with a card, but neither sees a hidden one nor changes settings.
    let own = pass_of(&open(&world, TAB, employee, id(deal)).await);
    assert_eq!(dialogs(&world, &own).await.len(), 1);
    let page = open(&world, TAB, employee, id(secret)).await;
    assert!(page.body.contains("недоступна") && !page.body.contains("data-pass"), "{}", page.body);
    let page = open(&world, "application", employee, Value::Null).await;
    assert!(page.body.contains("администраторам") && !page.body.contains("name=\"pass\""), "{}", page.body);
    assert_eq!(press(&world, &own, "repair").await.0, 403);
    // A contact that is hidden takes its phones along.
    world.portal.hide_item(3, contact, employee);
    let blind = pass_of(&open(&world, TAB, employee, id(deal)).await);
    assert_eq!(dialogs(&world, &blind).await, Vec::<Value>::new());

    // An administrator's pass for the application opens no card, and no pass opens another application.
    let admin = pass_of(&open(&world, "application", 1, Value::Null).await);
    assert_eq!(call(&world, &admin, "/card/dialogs", None).await.0, 403);
    for pass in ["", "x", "s1.aaaaaaaa.AAAA", &format!("{}x", &own[..own.len() - 1])] {
        let (status, _) = call(&world, pass, "/card/dialogs", None).await;
        assert!(status == 401 || status == 403, "{pass}: {status}");
        assert!(matches!(press(&world, pass, "repair").await.0, 401 | 403), "{pass}");
    }
    assert_eq!(call(&world, &own, "/card/messages", Some(letter(&world, "e1", "Здравствуйте"))).await.0, 202);

    // Another pass is given for a fresh token of the same person only.
    let token = |user: i64| world.portal.issue_tokens(&world.client_id, user).unwrap().access_token;
    let again = call(&world, "", "/card/pass", Some(json!({"pass": own, "token": token(employee)}))).await;
    assert_eq!(again.0, 200, "{}", again.1);
    assert_eq!(
        dialogs(&world, again.1["pass"].as_str().unwrap()).await,
        Vec::<Value>::new(),
        "what is hidden now stays hidden"
    );
    assert_eq!(call(&world, "", "/card/pass", Some(json!({"pass": own, "token": token(1)}))).await.0, 403);
    assert_eq!(call(&world, "", "/card/pass", Some(json!({"pass": own, "token": "falsetoken"}))).await.0, 403);

    // Whoever removes the application takes every pass away.
    world.portal.uninstall(&world.client_id, true).unwrap();
    let deadline = std::time::Instant::now() + SOON;
    while call(&world, &own, "/card/dialogs", None).await.0 != 403 {
        assert!(std::time::Instant::now() < deadline, "a pass outlived the installation");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // CLEAN takes what was written on cards along.
    while world.get(&format!("/api/v1/messages?peer={PHONE}")).await.1["items"] != json!([]) {
        assert!(std::time::Instant::now() < deadline, "messages outlived the installation");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_may_be_framed_by_its_portal_alone() {
    let world = furnished().await;
    let deal = world.deal(PHONE);
    for (place, options) in [("application", Value::Null), (TAB, json!({"ID": deal.to_string()}))] {
        let page = open(&world, place, 1, options).await;
        let policy = &page.headers["content-security-policy"];
        let domain = world.portal.domain();
        assert!(policy.ends_with(&format!("frame-ancestors 'self' https://{domain} http://{domain}")), "{policy}");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{policy}");
        assert!(!page.headers.contains_key("set-cookie") && !page.headers.contains_key("x-frame-options"));
        assert_eq!(page.headers["cache-control"], "no-store");
    }
    for options in [json!({}), json!({"ID": "0"}), json!({"ID": "x"})] {
        assert_eq!(open(&world, TAB, 1, options).await.status, 400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_says_what_is_missing_and_mends_what_it_can() {
    let world = furnished().await;
    world.portal.set_scopes(&world.client_id, &["crm", "bizproc"]).unwrap();
    let page = open(&world, "application", 1, Value::Null).await;
    assert!(page.body.contains("placement") && page.body.contains("class=\"todo\""), "{}", page.body);
    world.portal.set_scopes(&world.client_id, &["crm", "bizproc", "imopenlines", "im", "placement", "disk"]).unwrap();
    let page = open(&world, "application", 1, Value::Null).await;
    assert!(page.body.contains("class=\"good\"") && !page.body.contains("class=\"open\""), "{}", page.body);
    let pass = pass_of(&page);

    // Somebody or something took registrations away: the button brings them back.
    world.portal.update_app(&world.client_id, 2).unwrap();
    let (status, body) = press(&world, &pass, "repair").await;
    assert_eq!(status, 200);
    assert!(body.contains("class=\"said\"") && body.contains("class=\"good\""), "{body}");
    assert!(world.portal.robots().iter().any(|robot| robot.code == "send_message"));
    assert!(places(&world).iter().any(|place| place == TAB));

    // Events come through, and the page says so.
    let (status, body) = press(&world, &pass, "test").await;
    assert_eq!(status, 200);
    assert!(body.contains("обе стороны"), "{body}");

    // No robots in the plan: said, and the rest works.
    world.portal.set_switches(|switches| switches.robots_available = false);
    let (_, body) = press(&world, &pass, "repair").await;
    assert!(body.contains("ERROR_METHOD_NOT_FOUND") && body.contains("class=\"todo\""), "{body}");

    // A portal that does not answer is not a page that does not open.
    world.portal.set_up(false);
    let (status, body) = press(&world, &pass, "test").await;
    assert_eq!(status, 200);
    assert!(body.contains("не принял запрос"), "{body}");
    world.portal.set_up(true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_sees_only_its_own_letters_on_a_shared_line() {
    let world = furnished().await;
    world.open_window(PHONE).await;
    let deal = world.deal(PHONE);
    let other = world
        .sandbox
        .add_portal(sandbox::PortalSpec { name: "Вторая".into(), ..sandbox::PortalSpec::default() })
        .await
        .unwrap();
    other.install(&world.client_id).await.unwrap();
    let contact = other.add_contact("Анна", "", PHONE).unwrap();
    let foreign = other.add_deal("Чужая", contact).unwrap();
    world
        .until("its tab is bound", |w| {
            other.app(&w.client_id).is_some_and(|app| app.placements.iter().any(|(code, _)| code == TAB))
        })
        .await;
    let request = PageRequest {
        client_id: world.client_id.clone(),
        place: TAB.to_owned(),
        options: json!({"ID": foreign.to_string()}),
        ..PageRequest::default()
    };
    let theirs = pass_of(&other.open_page(&request).await.unwrap());
    let pass = tab(&world, deal).await;
    assert_eq!(call(&world, &pass, "/card/messages", Some(letter(&world, "p1", "Наше"))).await.0, 202);
    world.until("it is on the phone", |w| w.messages(PHONE).len() == 1).await;
    let texts = |dialogs: Vec<Value>| {
        dialogs
            .iter()
            .flat_map(|one| one["messages"].as_array().unwrap().clone())
            .map(|one| one["text"].clone())
            .collect::<Vec<_>>()
    };
    assert!(texts(dialogs(&world, &pass).await).contains(&json!("Наше")));
    assert!(!texts(dialogs(&world, &theirs).await).contains(&json!("Наше")));
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_that_cannot_be_read_do_not_take_the_tab_away() {
    let world = furnished().await;
    let deal = world.deal(PHONE);
    let pass = tab(&world, deal).await;
    let broken = Action::Html { status: 502, after: false };
    world.sandbox.add_fault(Fault::new("graph.templates", broken).times(1));
    let path = format!("/card/templates/{}", world.channel);
    assert_eq!(call(&world, &pass, &path, None).await.0, 503);
    assert_eq!(dialogs(&world, &pass).await.len(), 1);
    assert_eq!(call(&world, &pass, &path, None).await.0, 200, "a failure is not kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn messengers_without_phones_are_written_to_by_the_phone_shared_and_by_name() {
    let world = furnished().await;
    let (bot, channel, _) = connected(&world).await;
    let deal = world.deal(PHONE);
    let pass = tab(&world, deal).await;
    let of_bot =
        |dialogs: Vec<Value>| dialogs.into_iter().filter(|one| one["channel"] == json!(channel)).collect::<Vec<_>>();
    // The phone leads to nobody there yet, so only a name is asked for.
    let before = of_bot(dialogs(&world, &pass).await);
    assert_eq!(before.len(), 1);
    assert_eq!((&before[0]["to"], &before[0]["names"]), (&json!(""), &json!(true)));

    let person = world.sandbox.bot_person(PERSON);
    person.say(&bot, "/start").unwrap();
    person.send(&bot, None, &BotInbound::Contact { phone: PHONE.into(), own: true }).unwrap();
    stored(&world, 2).await;
    let known = of_bot(dialogs(&world, &pass).await);
    let chat = known.iter().find(|one| one["to"] == json!(format!("tg.{PERSON}"))).unwrap();
    assert_eq!((&chat["window"], &chat["templates"]), (&json!("unlimited"), &json!(false)));
    let to = |key: &str, to: &str| json!({"key": key, "letter": {"channel": channel, "to": to, "text": "Добрый день"}});
    assert_eq!(call(&world, &pass, "/card/messages", Some(to("t1", &format!("tg.{PERSON}")))).await.0, 202);
    world.until("the bot has sent it", |_| bot.sent(PERSON).len() == 1).await;
    assert_eq!(bot.sent(PERSON)[0].text, "Добрый день");

    // A name that nobody has fails in words, and stays with the card.
    assert_eq!(call(&world, &pass, "/card/messages", Some(to("t2", "@nobody_there"))).await.0, 202);
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let dialogs = of_bot(dialogs(&world, &pass).await);
        let named = dialogs.iter().find(|one| one["to"] == json!("tg.@nobody_there")).unwrap();
        let last = &named["messages"][0];
        if last["state"] == json!("failed") {
            assert!(!last["why"].as_str().unwrap().is_empty() && named["address"] == json!("@nobody_there"), "{named}");
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{named}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // Somebody else's chat is no address of this card.
    assert_eq!(call(&world, &pass, "/card/messages", Some(to("t3", "tg.999000111"))).await.0, 422);
}
