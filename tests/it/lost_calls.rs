//! Calls of robots that get lost on their way: found, shown, and made up for once.

use sandbox::{Action, Fault, MethodConfirm};
use serde_json::{Value, json};

use crate::world::{DEAL, Wish, World, text};

pub(crate) const QUICK: &str = "lost_calls_every = \"1s\"\nlost_calls_after = \"5s\"\n";

fn wish() -> Wish {
    Wish { bitrix24: QUICK, ..Wish::default() }
}

fn constant() -> Value {
    json!({"recipients": "main", "template": "order_update:ru", "params": ["Анна", "1"]})
}

impl World {
    async fn portal_id(&self) -> String {
        let (_, portals) = self.get("/api/v1/portals").await;
        portals["items"][0]["id"].as_str().unwrap().to_owned()
    }

    async fn lost(&self, path: &str) -> Value {
        let (status, answer) = self.get(&format!("/api/v1/portals/{}/lost-calls{path}", self.portal_id().await)).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    async fn ask_lost(&self, path: &str, body: Value) -> Value {
        let path = format!("/api/v1/portals/{}/lost-calls/{path}", self.portal_id().await);
        let (status, answer) = self.post(&path, body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Waits until the API tells this of lost calls.
    pub(crate) async fn until_lost(&self, what: &str, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = std::time::Instant::now() + crate::world::SOON;
        loop {
            let answer = self.lost(path).await;
            if fits(&answer) {
                return answer;
            }
            assert!(std::time::Instant::now() < deadline, "{what}: {answer}\n{}", self.log());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// So many cards enter the stage, and its robot is known from then on: well enough that one loss in five of them does
    /// not look like a condition.
    pub(crate) async fn make_known(&self, stage: &str, cards: u32) {
        // Looks begin with the first call of a kind of card; what came before is not judged.
        let first = self.deal("79161231000");
        self.portal.move_item(DEAL, first, stage).unwrap();
        self.until_lost("the portal is looked at", "", |lost| lost["looks"][0]["kind"] == "deal").await;
        let before = self.lost("").await["watched"].as_u64().unwrap();
        let deals: Vec<i64> = (1..=cards).map(|n| self.deal(&format!("791612310{n:02}"))).collect();
        for deal in &deals {
            self.portal.move_item(DEAL, *deal, stage).unwrap();
        }
        let called = |w: &Self, deal| w.portal.deal_run(deal).is_some_and(|run| run.callback_status == Some(200));
        self.until("its robot called", |w| deals.iter().all(|deal| called(w, *deal))).await;
        self.until_lost("the robot is known", "", |lost| lost["watched"].as_u64().unwrap() > before).await;
    }

    /// A deal enters the stage, and the call of its robot gets lost. Gives the deal and the id of the lost call.
    async fn lose(&self, phone: &str, stage: &str) -> (i64, String) {
        let deal = self.deal(phone);
        self.sandbox.add_fault(Fault::new("robot.callback", Action::Lose).times(1));
        self.portal.move_item(DEAL, deal, stage).unwrap();
        let card = format!("deal:{deal}");
        let has = |lost: &Value| lost["items"].as_array().unwrap().iter().any(|one| one["card"] == card);
        let lost = self.until_lost("the lost call is found", "", has).await;
        let one = lost["items"].as_array().unwrap().iter().find(|one| one["card"] == card).unwrap().clone();
        assert_eq!((one["stage"].as_str(), one["sure"].as_bool()), (Some(stage), Some(true)), "{one}");
        (deal, one["id"].as_str().unwrap().to_owned())
    }

    /// The call that was lost comes after all.
    async fn deliver_late(&self, deal: i64) -> u16 {
        let run = self.run_of(deal);
        let app = self.portal.app(&self.client_id).unwrap();
        let (ts, document) = ((run.started_ms / 1000).to_string(), format!("DEAL_{deal}"));
        let member = self.portal.member_id();
        let domain = self.portal.domain();
        let form = [
            ("workflow_id", run.workflow_id.as_str()),
            ("code", run.code.as_str()),
            ("document_id[0]", "crm"),
            ("document_id[1]", "CCrmDocumentDeal"),
            ("document_id[2]", document.as_str()),
            ("event_token", run.event_token.as_str()),
            ("properties[recipients]", "main"),
            ("properties[template]", "order_update:ru"),
            ("properties[params][0]", "Анна"),
            ("properties[params][1]", "1"),
            ("use_subscription", "Y"),
            ("ts", ts.as_str()),
            ("auth[domain]", domain.as_str()),
            ("auth[member_id]", member.as_str()),
            ("auth[application_token]", app.application_token.as_str()),
        ];
        let url = format!("{}/bitrix24/main/robots/send_message", self.base());
        self.http.post(url).form(&form).send().await.unwrap().status().as_u16()
    }
}

async fn found_and_made_up_for(world: World) {
    let stage = world.robot(&constant());
    world.make_known(&stage, 13).await;
    assert_eq!(world.lost("").await["open"], 0, "nothing is lost yet");
    let (deal, id) = world.lose("79161230010", &stage).await;
    assert!(world.messages("79161230010").is_empty());

    let ends = world.ask_lost("replay", json!({"ids": [id, "no-such-call"]})).await;
    assert_eq!(ends, json!({"calls": [{"id": id, "end": "replayed"}], "unknown": ["no-such-call"]}));
    world.until("the message is read", |w| w.comment(deal).contains("Прочитано")).await;
    // Asked for again, and the call comes after all, twice: still one message, and the robot that waits is told.
    assert_eq!(world.ask_lost("replay", json!({"ids": [id]})).await["calls"][0]["end"], "replayed");
    assert_eq!(world.deliver_late(deal).await, 200);
    assert_eq!(world.deliver_late(deal).await, 200);
    let asked = |w: &World| w.portal.deal_run(deal).is_some_and(|run| !run.sends.is_empty());
    world.until("the robot is answered", asked).await;
    let told = world.run_of(deal).sends.first().unwrap().values.clone();
    assert_eq!(told["error_code"], "duplicate_text", "{told}");
    assert_eq!((world.messages("79161230010").len(), world.comments(deal).len()), (1, 1));
    assert_eq!(world.lost("?state=open").await["items"], json!([]));

    // A call that comes after it was found, and before anybody decided, is the robot's own: it is sent, and once.
    let (deal, id) = world.lose("79161230011", &stage).await;
    assert_eq!(world.deliver_late(deal).await, 200);
    world.until("the message is read", |w| w.comment(deal).contains("Прочитано")).await;
    assert_eq!(world.ask_lost("replay", json!({"ids": [id]})).await["calls"][0]["end"], "came");
    assert_eq!(world.messages("79161230011").len(), 1);

    // A card that stands elsewhere by now is left alone, as is what a person gave up.
    let (deal, id) = world.lose("79161230012", &stage).await;
    world.portal.move_item(DEAL, deal, "WON").unwrap();
    assert_eq!(world.ask_lost("replay", json!({"ids": [id]})).await["calls"][0]["end"], "moved_on");
    let (_, id) = world.lose("79161230013", &stage).await;
    assert_eq!(world.ask_lost("dismiss", json!({"ids": [id]})).await["calls"][0]["end"], "dismissed");
    assert_eq!(world.ask_lost("replay", json!({"ids": [id]})).await["calls"][0]["end"], "dismissed");
    assert!(world.messages("79161230012").is_empty() && world.messages("79161230013").is_empty());
    assert!(world.sandbox.refusals().is_empty(), "{:?}", world.sandbox.refusals());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_never_came_is_found_and_made_up_for_once() {
    found_and_made_up_for(World::with(wish()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_never_came_is_found_on_postgres_too() {
    found_and_made_up_for(World::with(Wish { postgres: true, ..wish() }).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_robot_fills_in_is_asked_for_and_a_rule_does_the_rest() {
    let world = World::with(wish()).await;
    // The text names the card: nobody can know it without the call.
    let stage =
        world.robot(&json!({"recipients": "main", "template": "order_update:ru", "params": ["{=Document:ID}", "1"]}));
    world.make_known(&stage, 5).await;
    let (_, id) = world.lose("79161230020", &stage).await;
    assert_eq!(world.ask_lost("replay", json!({"ids": [id]})).await["calls"][0]["end"], "work_unknown");
    assert!(world.messages("79161230020").is_empty());
    let portal = world.portal_id().await;
    let replay = format!("/api/v1/portals/{portal}/lost-calls/replay");
    let (status, refused) = world.post(&replay, json!({"ids": [id], "properties": {"text": "{{Имя}}"}})).await;
    assert_eq!(status, 422, "{refused}");
    let said = world.ask_lost("replay", json!({"ids": [id], "properties": constant()})).await;
    assert_eq!(said["calls"][0]["end"], "replayed");
    world.until("it is sent", |w| w.messages("79161230020").len() == 1).await;

    // By rule, without anybody: what is the same for every card. What is not stays for a person.
    let same = world.robot(&constant());
    world.make_known(&same, 12).await;
    let rule = format!("/api/v1/portals/{portal}/lost-calls/rule");
    let (status, answer) = world.put(&rule, json!({"mode": "replay"})).await;
    assert_eq!((status, &answer["mode"]), (200, &json!("replay")), "{answer}");
    let (deal, _) = world.lose("79161230021", &same).await;
    world.until("it is sent", |w| w.comment(deal).contains("Прочитано")).await;
    let (_, id) = world.lose("79161230022", &stage).await;
    world.until_lost("the other is done", "?state=replayed", |lost| lost["items"].as_array().unwrap().len() == 2).await;
    let open = world.lost("?state=open").await;
    assert_eq!(open["items"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect::<Vec<_>>(), [json!(id)]);
    assert_eq!((world.messages("79161230021").len(), world.messages("79161230022").len()), (1, 0));
    for (path, body) in [("rule", json!({"mode": "soon"})), ("replay", json!({"ids": []}))] {
        let path = format!("/api/v1/portals/{portal}/lost-calls/{path}");
        let (status, answer) =
            if path.ends_with("rule") { world.put(&path, body).await } else { world.post(&path, body).await };
        assert!((400..500).contains(&status), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_that_does_not_tell_its_history_is_said_so_and_asked_again() {
    let world = World::with(wish()).await;
    let stage = world.robot(&constant());
    world.make_known(&stage, 12).await;
    let method = "crm.stagehistory.list".to_owned();
    world.portal.set_switches(|switches| {
        switches.method_confirm.insert(method.clone(), MethodConfirm::Denied);
    });
    let told = world.until_lost("it is said", "", |lost| lost["looks"][0]["trouble"] != "").await;
    assert_eq!(told["looks"][0]["trouble"], "METHOD_CONFIRM_DENIED");
    world.portal.set_switches(|switches| {
        switches.method_confirm.remove(&method);
    });
    world.until_lost("it is told again", "", |lost| lost["looks"][0]["trouble"] == "").await;
    let (deal, id) = world.lose("79161230030", &stage).await;
    world.ask_lost("replay", json!({"ids": [id]})).await;
    world.until("it is sent", |w| w.comment(deal).contains("Прочитано")).await;
    assert_eq!(
        text(&world.portal.deal_run(deal).unwrap().results, "status"),
        "",
        "nobody answered a call that never came"
    );
}
