//! The Bot API server, rule by rule. Source: channels.md §3.

use std::time::Duration;

use sandbox::{Bot, BotInbound, BotSpec, GroupState, Sandbox};
use serde_json::{Value, json};

use crate::support::{Receiver, SOON, client};

const PERSON: i64 = 512_000_111;

struct Shop {
    sandbox: Sandbox,
    bot: Bot,
    service: Receiver,
    http: reqwest::Client,
}

impl Shop {
    async fn open() -> Self {
        let sandbox = Sandbox::start().await.unwrap();
        let bot = sandbox.add_bot(BotSpec::default()).unwrap();
        Self { bot, sandbox, service: Receiver::start().await, http: client() }
    }

    /// Status and body of a method.
    async fn call(&self, method: &str, body: Value) -> (u16, Value) {
        let token = self.bot.view().spec.token;
        let url = format!("{}/bot{token}/{method}", self.sandbox.addresses().telegram);
        let answer = self.http.post(url).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn refused(&self, method: &str, body: Value) -> (u64, String) {
        let (status, answer) = self.call(method, body).await;
        assert_eq!(answer["ok"], false, "{answer}");
        assert_eq!(answer["error_code"], status);
        (u64::from(status), answer["description"].as_str().unwrap().to_owned())
    }

    async fn ok(&self, method: &str, body: Value) -> Value {
        let (status, answer) = self.call(method, body).await;
        assert_eq!((status, &answer["ok"]), (200, &json!(true)), "{answer}");
        answer["result"].clone()
    }

    async fn subscribe(&self) {
        let url = self.service.url("/hook");
        self.ok("setWebhook", json!({"url": url, "secret_token": "s3cret", "allowed_updates": ["message"]})).await;
    }
}

#[tokio::test]
async fn tokens_are_checked_before_anything_else() {
    let shop = Shop::open().await;
    let base = shop.sandbox.addresses().telegram;
    let get = async |path: &str| shop.http.get(format!("{base}/{path}")).send().await.unwrap().status().as_u16();
    assert_eq!(get("botnonsense/getMe").await, 404);
    assert_eq!(get("bot744556677:AAHtestTOKENtestTOKENtestTOKENtest12/getMe").await, 401);
    let token = shop.bot.view().spec.token;
    assert_eq!(get(&format!("bot{token}/getMe")).await, 200);
    assert_eq!(get(&format!("bot{token}/getUpdates")).await, 404, "not simulated, so not there");
    shop.bot.revoke();
    assert_eq!(get(&format!("bot{token}/getMe")).await, 401);
}

#[tokio::test]
async fn only_those_who_started_the_bot_can_be_written_to() {
    let shop = Shop::open().await;
    let text = |chat: Value| json!({"chat_id": chat, "text": "Здравствуйте"});
    let not_found = (400, "Bad Request: chat not found".to_owned());
    assert_eq!(shop.refused("sendMessage", text(json!(PERSON))).await, not_found);
    let person = shop.sandbox.bot_person(PERSON);
    person.set_name("Ирина", "irina_k");
    person.say(&shop.bot, "/start").unwrap();
    let sent = shop.ok("sendMessage", text(json!(PERSON))).await;
    assert_eq!(sent["chat"]["id"], PERSON);
    assert_eq!(shop.refused("sendMessage", text(json!("@irina_k"))).await, not_found, "people are no targets by name");
    person.block(&shop.bot, true).unwrap();
    let blocked = shop.refused("sendMessage", text(json!(PERSON))).await;
    assert_eq!(blocked, (403, "Forbidden: bot was blocked by the user".to_owned()));
    shop.bot.set_group(-1_001_987_654_321, GroupState::Member);
    shop.bot.name_group(-1_001_987_654_321, "shop_news");
    shop.ok("sendMessage", text(json!("@shop_news"))).await;
    shop.bot.set_group(-7, GroupState::Migrated(-1_001_987_654_321));
    let (_, moved) = shop.call("sendMessage", text(json!(-7))).await;
    assert_eq!(moved["parameters"]["migrate_to_chat_id"], -1_001_987_654_321_i64);
}

#[tokio::test]
async fn lengths_count_in_utf16_and_files_by_address_are_checked() {
    let shop = Shop::open().await;
    shop.sandbox.bot_person(PERSON).say(&shop.bot, "/start").unwrap();
    let text = |text: String| json!({"chat_id": PERSON, "text": text});
    shop.ok("sendMessage", text("👍".repeat(2048))).await;
    assert_eq!(shop.refused("sendMessage", text("👍".repeat(2049))).await.1, "Bad Request: message is too long");
    assert_eq!(shop.refused("sendMessage", text("  ".into())).await.1, "Bad Request: message text is empty");
    let document = |url: &str, caption: String| json!({"chat_id": PERSON, "document": url, "caption": caption});
    shop.ok("sendDocument", document("https://x.example/a.pdf", "я".repeat(1024))).await;
    let long = shop.refused("sendDocument", document("https://x.example/a.pdf", "я".repeat(1025))).await;
    assert_eq!(long.1, "Bad Request: message caption is too long");
    let word = shop.refused("sendDocument", document("https://x.example/a.docx", String::new())).await;
    assert_eq!(word.1, "Bad Request: wrong type of the web page content");
    let odd = json!({"chat_id": PERSON, "text": "a", "recipient": 1});
    shop.ok("sendMessage", odd).await;
    assert!(shop.sandbox.violations().iter().any(|violation| violation.message == "recipient is no parameter"));
}

#[tokio::test]
async fn limits_hold_per_chat_and_per_bot_and_name_a_wait() {
    let shop = Shop::open().await;
    shop.sandbox.bot_person(PERSON).say(&shop.bot, "/start").unwrap();
    let text = json!({"chat_id": PERSON, "text": "a"});
    for _ in 0..5 {
        shop.ok("sendMessage", text.clone()).await;
    }
    let (status, answer) = shop.call("sendMessage", text.clone()).await;
    assert_eq!((status, &answer["parameters"]["retry_after"]), (429, &json!(1)), "{answer}");
    shop.sandbox.advance(Duration::from_secs(1));
    shop.ok("sendMessage", text.clone()).await;
    let mut refused = 0;
    for chat in 1..=40 {
        shop.sandbox.bot_person(chat).say(&shop.bot, "/start").unwrap();
        let (status, _) = shop.call("sendMessage", json!({"chat_id": chat, "text": "a"})).await;
        refused += usize::from(status == 429);
    }
    assert!(refused > 0, "thirty a second over all chats");
    shop.bot.set_group(-5, GroupState::Member);
    for _ in 0..20 {
        shop.sandbox.advance(Duration::from_secs(1));
        shop.ok("sendMessage", json!({"chat_id": -5, "text": "a"})).await;
    }
    let (status, answer) = shop.call("sendMessage", json!({"chat_id": -5, "text": "a"})).await;
    let wait = answer["parameters"]["retry_after"].as_i64().unwrap();
    assert!(status == 429 && (30..=41).contains(&wait), "twenty in any minute: {answer}");
}

#[tokio::test]
async fn webhooks_carry_the_secret_keep_the_order_of_a_chat_and_are_repeated() {
    let shop = Shop::open().await;
    shop.sandbox.set_telegram(|options| options.retry_scale = 0.02);
    let person = shop.sandbox.bot_person(PERSON);
    person.say(&shop.bot, "one").unwrap();
    assert_eq!(shop.ok("getWebhookInfo", json!({})).await["pending_update_count"], 1, "it waits for an address");
    shop.service.answer_with(500);
    shop.subscribe().await;
    person.say(&shop.bot, "two").unwrap();
    shop.sandbox.until(SOON, |_| shop.service.on("/hook").len() >= 2).await.unwrap();
    let info = shop.ok("getWebhookInfo", json!({})).await;
    assert!(info["last_error_message"].as_str().unwrap().contains("500"), "{info}");
    assert!(shop.service.on("/hook").iter().all(|got| got.json()["message"]["text"] == "one"), "two waits behind one");
    shop.service.answer_with(200);
    shop.sandbox.settled(SOON).await.unwrap();
    let got = shop.service.on("/hook");
    assert_eq!(got.last().unwrap().json()["message"]["text"], "two");
    assert!(got.iter().all(|got| got.headers["x-telegram-bot-api-secret-token"] == "s3cret"));
    assert_eq!(shop.ok("getWebhookInfo", json!({})).await["pending_update_count"], 0);
}

#[tokio::test]
async fn addresses_are_set_by_the_documented_rules() {
    let shop = Shop::open().await;
    for (body, words) in [
        (json!({"url": "http://shop.example/hook"}), "HTTPS"),
        (json!({"url": "https://shop.example:8080/hook"}), "ports"),
        (json!({"url": "https://shop.example/hook", "secret_token": "a b"}), "secret token"),
        (json!({"url": "https://shop.example/hook", "max_connections": 101}), "max_connections"),
    ] {
        let (code, said) = shop.refused("setWebhook", body).await;
        assert!(code == 400 && said.contains(words), "{said}");
    }
    shop.subscribe().await;
    shop.subscribe().await;
    let (status, answer) = shop.call("setWebhook", json!({"url": "https://shop.example/hook"})).await;
    assert_eq!((status, &answer["parameters"]["retry_after"]), (429, &json!(1)), "twice within a second");
    shop.ok("deleteWebhook", json!({})).await;
    assert_eq!(shop.ok("getWebhookInfo", json!({})).await["url"], "");
}

#[tokio::test]
async fn files_are_fetched_by_id_and_belong_to_their_bot() {
    let shop = Shop::open().await;
    shop.subscribe().await;
    let file = json!({"type": "media", "kind": "document", "mime": "text/plain", "filename": "a.txt", "base64": "0J/RgNC40LLQtdGC"});
    let file: BotInbound = serde_json::from_value(file).unwrap();
    shop.sandbox.bot_person(PERSON).send(&shop.bot, None, &file).unwrap();
    shop.sandbox.settled(SOON).await.unwrap();
    let document = shop.service.on("/hook")[0].json()["message"]["document"].clone();
    let found = shop.ok("getFile", json!({"file_id": document["file_id"]})).await;
    let (base, token) = (shop.sandbox.addresses().telegram, shop.bot.view().spec.token);
    let url = format!("{base}/file/bot{token}/{}", found["file_path"].as_str().unwrap());
    assert_eq!(shop.http.get(url).send().await.unwrap().text().await.unwrap(), "Привет");
    assert_eq!(shop.refused("getFile", json!({"file_id": "BQACAgwrong"})).await.0, 400);
}
