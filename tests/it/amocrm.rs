//! amoCRM from outside: an account is connected, its bots send and go on, its cards tell what became of it.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sandbox::{
    AccountSpec, Action, AmoAccount, AmoNote, BotCall, BotRun, BotState, ChatChannelSpec, Fault, IntegrationSpec,
};
use serde_json::{Value, json};
use sha1::Sha1;

use crate::world::{Wish, World, free_port};

pub(crate) const CLIENT: &str = "1f2e3d4c-5b6a-4798-8a9b-0c1d2e3f4a5b";
pub(crate) const SECRET: &str = "Zk3vQ9rT1xWmY7pL5sN8dB2hJ6gF4cA0eU1iO9tR7yK3mV5nX8bC2zD4wS6qP0la";

pub(crate) const CHAT_CHANNEL: &str = "7b0f3c52-4d1e-4a6b-9f27-3e5d8c1a2b40";
pub(crate) const CHAT_SECRET: &str = "9c1b64e0d2f5438a8e7d1f0a6b3c5d2e4f798081";
const CHAT_BOT: &str = "b1d2c3e4-0000-4000-8000-00000000b07a";

/// The signature of a hook of chats.
pub(crate) fn chat_signature(body: &[u8]) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(CHAT_SECRET.as_bytes()).unwrap();
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A world with an account of amoCRM in it.
pub(crate) struct Amo {
    pub(crate) world: World,
    pub(crate) account: AmoAccount,
}

impl Amo {
    /// Starts everything; no account is connected yet.
    pub(crate) async fn unconnected(postgres: bool, config: &str) -> Self {
        let (port, amo_port) = (free_port(), free_port());
        let config = format!(
            "{config}\n[amocrm]\naccount_url = \"http://127.0.0.1:{amo_port}/{{subdomain}}\"\n\
             chats_url = \"http://127.0.0.1:{amo_port}\"\n\
             [amocrm.apps.main]\nclient_id = \"{CLIENT}\"\nclient_secret = \"{SECRET}\"\n\
             chat_channel_id = \"{CHAT_CHANNEL}\"\nchat_channel_secret = \"{CHAT_SECRET}\"\n\
             chat_bot_id = \"{CHAT_BOT}\"\n"
        );
        let mut wish = Wish { postgres, config, port: Some(port), ..Wish::default() };
        wish.sandbox.amo_port = amo_port;
        // Late enough for a note to be there already, which then changes.
        wish.sandbox.graph.read_ms = 4_000;
        let world = World::with(wish).await;
        let base = format!("http://127.0.0.1:{port}/amocrm/main");
        world.sandbox.add_integration(IntegrationSpec {
            client_id: CLIENT.into(),
            client_secret: SECRET.into(),
            redirect_uri: format!("{base}/oauth"),
            uninstall_url: Some(format!("{base}/uninstall")),
        });
        let account = world.sandbox.add_account(AccountSpec::default()).unwrap();
        let amo = Self { world, account };
        amo.register_chats(CHAT_SECRET);
        amo
    }

    /// amoCRM's support registers our channel of chats, or changes its secret.
    pub(crate) fn register_chats(&self, secret: &str) {
        self.world.sandbox.add_chat_channel(ChatChannelSpec {
            channel_id: CHAT_CHANNEL.into(),
            secret: secret.into(),
            bot_id: CHAT_BOT.into(),
            hook_url: format!("{}/amocrm/main/chats/:scope_id", self.world.base()),
            client_id: CLIENT.into(),
        });
    }

    /// An administrator has let us into the account.
    pub(crate) async fn connected(postgres: bool, config: &str) -> Self {
        let amo = Self::unconnected(postgres, config).await;
        let url = amo.consent_url().await;
        let back = amo.account.consent(&url).await.unwrap();
        assert_eq!(back.status, 200, "{}", back.body);
        amo
    }

    pub(crate) async fn consent_url(&self) -> String {
        let (status, answer) = self.world.post("/api/v1/amocrm/main/authorize", json!({})).await;
        assert_eq!(status, 200, "{answer}");
        answer["url"].as_str().unwrap().to_owned()
    }

    /// The account as the API shows it.
    pub(crate) async fn portal(&self) -> Value {
        let (_, list) = self.world.get("/api/v1/portals").await;
        let items = list["items"].as_array().unwrap().clone();
        items.into_iter().find(|portal| portal["crm"] == "amocrm").unwrap_or(Value::Null)
    }

    /// A lead whose main contact has this phone.
    pub(crate) fn lead(&self, phone: &str) -> i64 {
        let contact = self.account.add_contact("Анна Ким", &[(phone, "MOB")]);
        self.account.add_lead("Заказ", &[contact])
    }

    pub(crate) fn call(&self, lead: i64, data: Value) -> BotCall {
        let url = format!("{}/amocrm/main/salesbot", self.world.base());
        BotCall { client_id: CLIENT.into(), url, lead, data }
    }

    pub(crate) fn bot(&self, lead: i64, data: Value) -> i64 {
        self.account.run_bot(&self.call(lead, data)).unwrap()
    }

    /// Waits until the bot goes on.
    pub(crate) async fn went_on(&self, bot: i64) -> BotRun {
        self.world.until("the bot goes on", |_| self.run(bot).state == BotState::Continued).await;
        self.run(bot)
    }

    pub(crate) fn run(&self, bot: i64) -> BotRun {
        self.account.bot(bot).unwrap()
    }

    /// The lead's only note; `None` while there is none.
    pub(crate) fn note(&self, lead: i64) -> Option<AmoNote> {
        let notes = self.account.notes(lead);
        assert!(notes.len() <= 1, "more than one note: {notes:?}");
        notes.into_iter().next()
    }

    pub(crate) async fn note_says(&self, lead: i64, words: &str) {
        let says = |_: &World| self.note(lead).is_some_and(|note| note.text.contains(words));
        self.world.until(&format!("the note says {words}"), says).await;
    }

    /// What amoCRM had to refuse or found careless.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let all = self.world.sandbox.violations();
        all.iter().filter(|v| v.target.starts_with("amo")).map(|violation| format!("{violation:?}")).collect()
    }
}

pub(crate) fn template() -> Value {
    json!({"v": "1", "action": "send_message", "lead": "{{lead.id}}", "contact": "{{contact.id}}",
        "template": "order_update:ru", "params": ["Анна", "12"]})
}

async fn a_step_sends_and_the_bot_goes_on(postgres: bool) {
    let amo = Amo::connected(postgres, "").await;
    let lead = amo.lead("+7 905 111-22-33");
    let bot = amo.bot(lead, template());
    let run = amo.went_on(bot).await;
    assert_eq!((run.exit(), run.call_status, run.continues), (Some("success"), Some(200), 1));
    assert_eq!((run.value("detail").as_str(), run.value("timeout").as_str()), ("79051112233:Y", "1"));
    assert!(run.value("message_ids").starts_with("wamid.") && run.value("error_code").is_empty(), "{:?}", run.data);
    amo.note_says(lead, "Прочитано").await;
    let note = amo.note(lead).unwrap();
    assert_eq!((note.note_type.as_str(), note.service.as_str()), ("extended_service_message", "Mostik"));
    assert!(note.text.starts_with("WhatsApp · +7 999 000-11-22 → +79051112233\n"), "{}", note.text);
    assert!(!note.text.contains('[') && note.changes > 0, "{note:?}");
    assert_eq!(amo.world.messages("79051112233").len(), 1);
    // The same step written as JSON, waiting for the phone.
    amo.world.sandbox.set_amo(|options| options.json_bots = true);
    let mut data = template();
    data["wait"] = json!("delivered");
    let second = amo.lead("8 905 111 22 44");
    let run = amo.went_on(amo.bot(second, data)).await;
    assert_eq!(run.exit(), Some("success"));
    assert!(!run.value("delivered_at").is_empty(), "{:?}", run.data);
    assert_eq!(amo.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_salesbot_step_sends_and_goes_on_sqlite() {
    a_step_sends_and_the_bot_goes_on(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_salesbot_step_sends_and_goes_on_postgres() {
    a_step_sends_and_the_bot_goes_on(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_always_goes_on_also_when_nothing_can_be_sent() {
    let amo = Amo::connected(false, "").await;
    let nobody = amo.account.add_lead("Заказ", &[]);
    let silent = amo.lead("");
    let (good, long) = (amo.lead("79051110001"), amo.lead("79051110002"));
    let free = |text: String| json!({"v": "1", "action": "send_message", "text": text});
    let mut group = template();
    group["recipients"] = json!("group");
    let mut odd = template();
    // Shapes that PHP makes of nothing, and lists where a text is meant.
    odd["text"] = json!({"a": "b"});
    odd["phones"] = json!([]);
    odd["comment"] = json!("");
    for (lead, data, code) in [
        (nobody, template(), "no_recipient"),
        (silent, template(), "no_recipient"),
        (999, template(), "crm_unavailable"),
        (good, free("Hi".into()), "window_closed"),
        (good, free("Заказ {{lead.cf.1}}".into()), "unresolved_placeholder"),
        (long, free("я".repeat(64 * 1024 / 2)), "too_long"),
        (good, json!({"v": "1", "action": "unknown"}), "bad_request"),
        (good, json!({}), "bad_request"),
        (good, group, "unsupported"),
    ] {
        let run = amo.went_on(amo.bot(lead, data)).await;
        assert_eq!((run.exit(), run.value("error_code").as_str()), (Some("fail"), code), "{:?}", run.data);
        assert_eq!(run.continues, 1);
    }
    assert_eq!(amo.went_on(amo.bot(good, odd)).await.exit(), Some("success"));
    amo.world.until("every failure has its note", |_| amo.account.notes(good).len() == 6).await;
    assert!(amo.account.notes(silent)[0].text.contains("Что делать"), "{:?}", amo.account.notes(silent));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_proved_is_refused_and_kept_out() {
    let amo = Amo::connected(false, "").await;
    let (lead, world) = (amo.lead("79052220001"), &amo.world);
    let call = amo.call(lead, template());
    let now = world.sandbox.now_ms() / 1000;
    let good = amo.account.step_token(&call, SECRET, &json!({}));
    let back = format!("https://{}/api/v4/salesbot/1/continue/2", amo.account.host());
    let parts: Vec<&str> = good.split('.').collect();
    let token = |changes: Value| amo.account.step_token(&call, SECRET, &changes);
    // {"typ":"JWT","alg":"none"} and {"typ":"JWT","alg":"HS256"}.
    let none = format!("eyJ0eXAiOiJKV1QiLCJhbGciOiJub25lIn0.{}.", parts[1]);
    let other_alg = format!("eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.{}.{}", parts[1], parts[2]);
    let data = template();
    let form = |token: &str, back: &str| amo.account.step_body(token, &data, back);
    let mut rows = vec![
        ("forged", form(&amo.account.step_token(&call, "another secret", &json!({})), &back), 403),
        ("unsigned", form(&none, &back), 403),
        ("HS256 where HS512 is due", form(&other_alg, &back), 403),
        ("expired", form(&token(json!({"exp": now - 120})), &back), 403),
        ("without an end", form(&token(json!({"exp": null})), &back), 403),
        ("not yet", form(&token(json!({"nbf": now + 600})), &back), 403),
        ("for somebody else", form(&token(json!({"aud": "https://evil.example"})), &back), 403),
        ("of another integration", form(&token(json!({"client_uuid": "x"})), &back), 403),
        ("of a foreign issuer", form(&token(json!({"iss": "https://evil.example"})), &back), 403),
        ("of an account we do not know", form(&token(json!({"account_id": 1})), &back), 403),
        ("without a token", format!("return_url={back}"), 403),
        ("empty", String::new(), 403),
    ];
    let host = amo.account.host();
    for address in [
        "https://evil.example/api/v4/salesbot/1/continue/2".to_owned(),
        format!("http://{host}/api/v4/salesbot/1/continue/2"),
        format!("https://{host}:8443/api/v4/salesbot/1/continue/2"),
        format!("https://{host}@evil.example/api/v4/salesbot/1/continue/2"),
        format!("https://{host}.evil.example/api/v4/salesbot/1/continue/2"),
        format!("https://{host}/api/v4/leads/1"),
        format!("https://{host}/api/v4/salesbot/1/continue/2/../../../leads"),
        format!("https://{host}/api/v4/salesbot/1/continue/-2"),
        format!("https://{host}/api/v4/salesbot/1/continue/2?x=1"),
        String::new(),
    ] {
        rows.push(("return_url elsewhere", form(&good, &address), 400));
    }
    let url = format!("{}/amocrm/main/salesbot", world.base());
    let post = |kind: &'static str, body: String| {
        let request = world.http.post(&url).header("content-type", kind).body(body);
        async move { request.send().await.unwrap().status().as_u16() }
    };
    const FORM: &str = "application/x-www-form-urlencoded";
    for (what, body, status) in rows {
        assert_eq!(post(FORM, body.clone()).await, status, "{what}: {}", &body[..body.len().min(300)]);
    }
    assert_eq!(post("text/plain", form(&good, &back)).await, 415);
    assert_eq!(post("application/json", "{\"token\":[]}".into()).await, 403);
    assert_eq!(post(FORM, "a".repeat(600 * 1024)).await, 413);
    let foreign = world.http.post(format!("{}/amocrm/other/salesbot", world.base()));
    assert_eq!(foreign.send().await.unwrap().status(), 404);
    // Nothing of all that was stored; the good one is, once, however often it comes.
    for _ in 0..3 {
        assert_eq!(post(FORM, form(&good, &back)).await, 200);
    }
    world.until("the message is there", |w| w.messages("79052220001").len() == 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(world.messages("79052220001").len(), 1);
    assert_eq!(world.sandbox.counter("amo.wrong_host"), 0);
    let log = world.log();
    assert!(!log.contains("79052220001") && !log.contains(parts[2]) && !log.contains(SECRET), "secrets in the log");
}

async fn installations(postgres: bool) {
    let amo = Amo::unconnected(postgres, "").await;
    let world = &amo.world;
    // A word that was never given, one that is used up, and a person who says no.
    let url = amo.consent_url().await;
    let (_, state) = url.rsplit_once("state=").unwrap();
    assert_eq!(amo.account.redirect(CLIENT, Some("guessed")).await.unwrap().status, 403);
    assert_eq!(amo.portal().await, Value::Null);
    assert_eq!(amo.account.redirect(CLIENT, Some(state)).await.unwrap().status, 200);
    assert_eq!(amo.account.redirect(CLIENT, Some(state)).await.unwrap().status, 403);
    let portal = amo.portal().await;
    assert_eq!((portal["state"].as_str(), portal["domain"].as_str()), (Some("installed"), Some("acme.amocrm.ru")));
    assert_eq!(portal["member_id"], json!(amo.account.id().to_string()));
    assert_eq!(portal["lines"].as_array().unwrap().len(), 1, "the only line is bound");
    let redirect = |query: &str| world.http.get(format!("{}/amocrm/main/oauth?{query}", world.base()));
    for (query, status) in [
        ("code=x&referer=evil.example", 403),
        ("code=garbage&referer=acme.amocrm.ru", 403),
        ("code=x&referer=acme.amocrm.ru&client_id=other", 403),
        ("referer=acme.amocrm.ru", 400),
        ("error=access_denied&referer=acme.amocrm.ru", 200),
    ] {
        assert_eq!(redirect(query).send().await.unwrap().status(), status, "{query}");
    }
    // The token ends: one refresh, however many bots come.
    amo.account.expire_access_tokens();
    let leads: Vec<i64> = (0..4).map(|n| amo.lead(&format!("7905333000{n}"))).collect();
    let bots: Vec<i64> = leads.iter().map(|lead| amo.bot(*lead, template())).collect();
    for bot in bots {
        assert_eq!(amo.went_on(bot).await.exit(), Some("success"));
    }
    assert_eq!(world.sandbox.counter("amo.refreshed"), 1);
    // The account is renamed: found again, also by a bot that was parked before.
    let before = amo.bot(leads[0], template());
    world.until("the bot is parked", |_| amo.run(before).state == BotState::Parked).await;
    amo.account.rename("acme-new");
    assert_eq!(amo.went_on(before).await.exit(), Some("success"));
    assert_eq!(amo.portal().await["domain"], "acme-new.amocrm.ru");
    assert_eq!(amo.went_on(amo.bot(leads[1], template())).await.exit(), Some("success"));
    // A removal that is forged, and one that is replayed while the account lets us in.
    let forged = format!("account_id={}&client_uuid={CLIENT}&signature={}", amo.account.id(), "0".repeat(64));
    let hook = world.http.get(format!("{}/amocrm/main/uninstall?{forged}", world.base()));
    assert_eq!(hook.send().await.unwrap().status(), 403);
    assert_eq!(amo.account.say_uninstalled(CLIENT).await.unwrap().status, 200);
    assert_eq!(amo.portal().await["state"], "installed");
    // A true one.
    assert_eq!(amo.account.uninstall(CLIENT).await.unwrap().status, 200);
    assert_eq!(amo.portal().await["state"], "uninstalled");
    let run = amo.bot(leads[2], template());
    world.until("the step is refused", |_| amo.run(run).call_status == Some(403)).await;
    // And back from the market, whose server nobody sees.
    assert_eq!(amo.account.install_from_market(CLIENT).await.unwrap().status, 200);
    assert_eq!(amo.portal().await["state"], "installed");
    assert_eq!(amo.went_on(amo.bot(leads[3], template())).await.exit(), Some("success"));
    assert!(!world.log().contains("def50200"), "a token is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_come_move_and_go_sqlite() {
    installations(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_come_move_and_go_postgres() {
    installations(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_made_by_hand_connects_an_account() {
    let amo = Amo::unconnected(false, "").await;
    let add =
        |host: &str, token: &str| json!({"crm": "amocrm", "app": "main", "host": host, "long_lived_token": token});
    let token = amo.account.long_lived_token(CLIENT, 10);
    for (body, status) in [
        (add("evil.example", &token), 422),
        (add("acme.amocrm.ru", "opaque"), 422),
        (add("acme.amocrm.ru", &amo.account.long_lived_token("another", 10)), 422),
        (json!({"crm": "amocrm", "app": "none", "host": "acme.amocrm.ru", "long_lived_token": token}), 404),
        (json!({"crm": "bitrix24", "app": "main", "host": "acme.amocrm.ru", "long_lived_token": token}), 422),
        (add("acme.amocrm.ru", &token), 201),
    ] {
        let (answered, answer) = amo.world.post("/api/v1/portals", body).await;
        assert_eq!(answered, status, "{answer}");
        assert!(!answer.to_string().contains(&token));
    }
    let lead = amo.lead("79053330101");
    assert_eq!(amo.went_on(amo.bot(lead, template())).await.exit(), Some("success"));
    // Ten days are less than fourteen: somebody is told. Comparing happens at the start and every day.
    let mut amo = amo;
    amo.world.kill();
    amo.world.restart().await;
    amo.world.until("the end of the token is told", |w| w.log().contains("token ends within")).await;
    // It is revoked: nothing renews it, and the account waits for a person.
    amo.account.expire_access_tokens();
    let bot = amo.bot(lead, template());
    let deadline = std::time::Instant::now() + crate::world::SOON;
    while amo.portal().await["state"] != "needs_auth" {
        assert!(std::time::Instant::now() < deadline, "{}", amo.world.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(amo.run(bot).state, BotState::Parked);
    let again = add("acme.amocrm.ru", &amo.account.long_lived_token(CLIENT, 100));
    assert_eq!(amo.world.post("/api/v1/portals", again).await.0, 201);
    assert_eq!(amo.went_on(bot).await.exit(), Some("success"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_is_written_once_whatever_becomes_of_its_request() {
    let amo = Amo::connected(false, "[delivery]\nretry_schedule = [\"200ms\"]\nunclear_wait = \"500ms\"\n").await;
    let world = &amo.world;
    let rule = |target: &str, action: Action| Fault { times: Some(1), ..Fault::new(target, action) };
    let gateway = |status| Action::Html { status, after: true };
    for (n, fault) in [
        rule("amo.notes.add", Action::CutAfter),
        rule("amo.notes.add", gateway(504)),
        rule("amo.notes.add", Action::CutBefore),
        rule("amo.notes.change", gateway(502)),
        rule("amo.continue", Action::CutAfter),
        rule("amo.continue", gateway(504)),
        rule("amo.continue", Action::Html { status: 500, after: false }),
        rule("amo.leads", Action::CutBefore),
    ]
    .into_iter()
    .enumerate()
    {
        let what = format!("{fault:?}");
        world.sandbox.clear_faults();
        world.sandbox.add_fault(fault);
        let lead = amo.lead(&format!("7905444000{n}"));
        let run = amo.went_on(amo.bot(lead, template())).await;
        assert_eq!(run.exit(), Some("success"), "{what}");
        amo.note_says(lead, "Прочитано").await;
        assert_eq!(world.messages(&format!("7905444000{n}")).len(), 1, "{what}");
    }
    // What is refused for one does not keep the others.
    world.sandbox.clear_faults();
    let lead = amo.lead("79054441000");
    amo.went_on(amo.bot(lead, template())).await;
    amo.note_says(lead, "Прочитано").await;
    // A value amoCRM does not take: the bot goes on without results.
    let refuse =
        Action::Error { code: "TooLong".into(), status: Some(400), description: None, retry_after: None, after: false };
    world.sandbox.add_fault(rule("amo.continue", refuse));
    let run = amo.went_on(amo.bot(lead, template())).await;
    assert_eq!((run.exit(), run.data.len()), (Some("fail"), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_an_account_are_kept_and_its_refusals_obeyed() {
    let amo = Amo::connected(false, "[delivery]\nretry_schedule = [\"200ms\"]\n").await;
    let world = &amo.world;
    let leads: Vec<i64> = (0..20).map(|n| amo.lead(&format!("790555500{n:02}"))).collect();
    let bots: Vec<i64> = leads.iter().map(|lead| amo.bot(*lead, template())).collect();
    for bot in bots {
        let on = |_: &World| amo.run(bot).state == BotState::Continued;
        world.within(Duration::from_secs(60), "every bot goes on", on).await;
    }
    for lead in &leads {
        let read = |_: &World| amo.note(*lead).is_some_and(|note| note.text.contains("Прочитано"));
        world.within(Duration::from_secs(60), "every note is there", read).await;
    }
    assert_eq!(amo.complaints(), Vec::<String>::new(), "seven requests a second are never passed");
    // A 429 with its wait: nothing is sent meanwhile, then everything goes on.
    let many = json!({"title": "Too Many Requests", "status": 429, "detail": "", "retry_after": 3}).to_string();
    let respond = Action::Respond { status: 429, body: many, content_type: None, after: false };
    world.sandbox.add_fault(Fault { times: Some(1), ..Fault::new("amo.leads", respond) });
    let start = std::time::Instant::now();
    assert_eq!(amo.went_on(amo.bot(leads[0], template())).await.exit(), Some("success"));
    assert!(start.elapsed() > Duration::from_secs(3), "{:?}", start.elapsed());
    // The address is shut out: one request learns it, the operator is told, nobody asks again.
    world.sandbox.set_amo_shut(true);
    let bots: Vec<i64> = leads[1..4].iter().map(|lead| amo.bot(*lead, template())).collect();
    world.until("the operator is told", |w| w.log().contains("no longer listens to our address")).await;
    let asked = world.sandbox.counter("amo.leads");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(world.sandbox.counter("amo.leads") <= asked + 3, "nobody hammers at a closed door");
    assert!(bots.iter().all(|bot| amo.run(*bot).state == BotState::Parked));
}
