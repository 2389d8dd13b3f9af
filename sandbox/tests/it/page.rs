//! What the page of the sandbox stands on: its files, its one question, and who may ask.

use sandbox::{Automation, ItemSpec, NumberSpec, PhoneTraits, PortalSpec, Sandbox, StageSpec, entity};
use serde_json::{Value, json};

use crate::support::{ANNA, client};

async fn get(sandbox: &Sandbox, path: &str) -> (u16, Value) {
    let answer = client().get(format!("{}{path}", sandbox.addresses().control)).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn the_page_comes_with_a_strict_policy() {
    let sandbox = Sandbox::start().await.unwrap();
    let base = sandbox.addresses().control;
    for (path, kind) in [
        ("/", "text/html"),
        ("/page/main.js", "text/javascript"),
        ("/page/base.css", "text/css"),
        ("/page/icon.svg", "image/svg+xml"),
    ] {
        let answer = client().get(format!("{base}{path}")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert!(header("content-type").starts_with(kind), "{path}");
        let policy = header("content-security-policy");
        for rule in
            ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"]
        {
            assert!(policy.contains(rule), "{rule}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(header("x-content-type-options"), "nosniff");
    }
    assert_eq!(get(&sandbox, "/page/../../Cargo.toml").await.0, 404);
    assert_eq!(get(&sandbox, "/page/none.js").await.0, 404);
}

#[tokio::test]
async fn pages_of_other_sites_may_not_ask() {
    let sandbox = Sandbox::start().await.unwrap();
    let base = sandbox.addresses().control;
    let ask =
        |name: &'static str, value: String| client().post(format!("{base}/control/reset")).header(name, value).send();
    for origin in ["https://evil.example", "null", "http://127.0.0.1.evil.example", "http://localhost.evil.example:80"]
    {
        let answer = ask("origin", origin.to_owned()).await.unwrap();
        assert_eq!(answer.status(), 403, "{origin}");
        assert!(answer.headers().get("access-control-allow-origin").is_none());
    }
    assert_eq!(ask("host", "evil.example".to_owned()).await.unwrap().status(), 403, "a name that leads here");
    for origin in [base.clone(), "http://localhost:3000".to_owned()] {
        let answer = ask("origin", origin.clone()).await.unwrap();
        assert_eq!(answer.status(), 200, "{origin}");
        assert_eq!(answer.headers()["access-control-allow-origin"], origin.as_str());
    }
    assert_eq!(client().post(format!("{base}/control/reset")).send().await.unwrap().status(), 200, "a program");
}

#[tokio::test]
async fn one_question_brings_a_bounded_board() {
    let sandbox = Sandbox::start().await.unwrap();
    assert_eq!(get(&sandbox, "/control/page").await.1["portal"], Value::Null);
    let portal = sandbox.add_portal(PortalSpec { name: "Ромашка".into(), ..PortalSpec::default() }).await.unwrap();
    let stage = |id: &str, name: &str| StageSpec {
        entity_type_id: entity::DEAL,
        category_id: 0,
        stage_id: id.into(),
        name: name.into(),
        semantics: String::new(),
    };
    portal.set_stages(entity::DEAL, 0, vec![stage("A", "Первая"), stage("B", "Вторая")]).unwrap();
    assert!(
        portal
            .set_stages(entity::DEAL, 0, vec![stage("C1:A", "x"), StageSpec { category_id: 1, ..stage("C1:B", "y") }])
            .is_err()
    );
    let contact = portal.add_contact("Анна", "Смирнова", "+7 916 123-45-67").unwrap();
    let ids: Vec<i64> = (0..30).map(|n| portal.add_deal(&format!("Заказ {n}"), contact).unwrap()).collect();
    assert!(portal.set_stages(entity::DEAL, 0, vec![stage("B", "Вторая")]).is_err(), "cards stand on A");
    portal.add_automation(Automation { stage_id: "B".into(), robot: "r".into(), ..Automation::default() });
    sandbox.advance(std::time::Duration::from_secs(1));
    portal.move_item(entity::DEAL, ids[3], "A").unwrap();
    portal.move_item(entity::DEAL, ids[4], "B").unwrap();

    let (_, page) = get(&sandbox, "/control/page?per_stage=5").await;
    let columns = page["portal"]["columns"].as_array().unwrap();
    let told: Vec<_> =
        columns.iter().map(|own| (own["stage_id"].as_str().unwrap(), own["count"].as_u64().unwrap())).collect();
    assert_eq!(told, [("A", 29), ("B", 1)]);
    let cards = columns[0]["cards"].as_array().unwrap();
    assert_eq!(cards.len(), 5);
    assert_eq!((&cards[0]["id"], &cards[1]["id"]), (&json!(ids[3]), &json!(ids[29])), "last changed first");
    assert_eq!((&cards[0]["client"], &cards[0]["phone"]), (&json!("Анна Смирнова"), &json!("+7 916 123-45-67")));
    assert_eq!((&cards[0]["note"], &cards[0]["entries"]), (&Value::Null, &json!(0)));
    assert_eq!((&columns[1]["robots"][0]["code"], &columns[0]["robots"]), (&json!("r"), &json!([])));
    assert_eq!(page["portal"]["users"]["1"], "Анна Петрова");

    let at = format!("/control/portals/{}", portal.member_id());
    assert_eq!(get(&sandbox, &format!("{at}/kanban?per_stage=2")).await.1[0]["cards"].as_array().unwrap().len(), 2);
    let company = portal
        .add_item(ItemSpec { entity_type_id: entity::COMPANY, title: "Вектор".into(), ..ItemSpec::default() })
        .unwrap();
    let deal =
        portal.add_item(ItemSpec { contact_ids: vec![contact], company_id: company, ..ItemSpec::default() }).unwrap();
    let (_, card) = get(&sandbox, &format!("{at}/items/2/{deal}")).await;
    assert_eq!((&card["contacts"][0]["id"], &card["company"]["title"]), (&json!(contact), &json!("Вектор")));
    assert_eq!(get(&sandbox, "/control/page?portal=nobody").await.0, 404);
}

#[tokio::test]
async fn chats_are_listed_by_their_last_message_and_found_by_name() {
    let sandbox = Sandbox::start().await.unwrap();
    let number = sandbox.add_number(NumberSpec::default()).unwrap();
    let named = |name: &str| PhoneTraits { name: Some(name.into()), ..PhoneTraits::default() };
    sandbox.phone("79160000001").set(named("Иван"));
    sandbox.phone("79160000002").set(named("Борис"));
    sandbox.phone(ANNA).set(named("Анна"));
    sandbox.phone("79160000001").say(&number, "Раньше").unwrap();
    sandbox.phone(ANNA).say(&number, &"Позже".repeat(100)).unwrap();

    let (_, page) = get(&sandbox, "/control/page").await;
    let chats = page["chats"].as_array().unwrap();
    let names: Vec<_> = chats.iter().map(|chat| chat["phone"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Анна", "Иван", "Борис"]);
    assert_eq!(chats[0]["last"]["text"].as_str().unwrap().chars().count(), 120);
    assert_eq!((&chats[1]["last"]["route"], &chats[2]["last"]), (&json!("in"), &Value::Null));
    assert!(chats[0]["phone"]["windows"][number.id()].as_i64().unwrap() > page["now_ms"].as_i64().unwrap());
    assert_eq!(page["totals"]["inbound"], 2);
    let (_, found) = get(&sandbox, "/control/page?find=%D0%B1%D0%BE%D1%80&chats=1").await;
    assert_eq!((found["chats"].as_array().unwrap().len(), &found["chats"][0]["phone"]["name"]), (1, &json!("Борис")));
    let (_, few) = get(&sandbox, "/control/page?chats=1").await;
    assert_eq!((few["chats"].as_array().unwrap().len(), &few["phone_count"]), (1, &json!(3)));

    sandbox.phone(ANNA).say(&number, "Ещё").unwrap();
    let (_, chat) = get(&sandbox, &format!("/control/phones/{ANNA}?limit=1")).await;
    assert_eq!((chat["messages"].as_array().unwrap().len(), &chat["messages"][0]["shown"]["text"]), (1, &json!("Ещё")));
}
