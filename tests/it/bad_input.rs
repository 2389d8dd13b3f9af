//! Whatever comes from outside: a refusal as agreed, or a failed result in words; never a panic, never a lost callback,
//! and nothing of it in the log but ids.

use reqwest::StatusCode;
use serde_json::json;

use crate::world::{World, text};

const PHONE: &str = "79161234567";

async fn form(world: &World, path: &str, body: impl Into<reqwest::Body>) -> StatusCode {
    let url = format!("{}{path}", world.base());
    let call = world.http.post(url).header("content-type", "application/x-www-form-urlencoded").body(body);
    call.send().await.unwrap().status()
}

/// A robot call as the portal sends it, with one part changed.
pub(crate) fn robot_call(world: &World, token: &str, member: &str, extra: &str) -> String {
    let domain = world.portal.domain();
    format!(
        "workflow_id=w1&code=send_message&document_id%5B0%5D=crm&document_id%5B1%5D=CCrmDocumentDeal\
         &document_id%5B2%5D=DEAL_1&document_type%5B0%5D=crm&document_type%5B1%5D=CCrmDocumentDeal\
         &document_type%5B2%5D=DEAL&event_token=w1%7CA1%7Cabc.def&properties%5Btext%5D=Hi&use_subscription=Y\
         &timeout_duration=0&ts=1767021111&auth%5Bdomain%5D={domain}&auth%5Bmember_id%5D={member}\
         &auth%5Bapplication_token%5D={token}{extra}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn robot_calls_that_prove_nothing_are_refused() {
    let world = World::new().await;
    let member = world.portal.member_id();
    let secret = world.portal.app(&world.client_id).unwrap().application_token;
    let path = "/bitrix24/main/robots/send_message";
    let forbidden = StatusCode::FORBIDDEN;
    assert_eq!(form(&world, path, robot_call(&world, "0".repeat(32).as_str(), &member, "")).await, forbidden);
    assert_eq!(form(&world, path, robot_call(&world, &secret, "f".repeat(32).as_str(), "")).await, forbidden);
    assert_eq!(form(&world, path, "code=send_message&event_token=x").await, forbidden);
    assert_eq!(form(&world, path, "").await, forbidden);
    assert_eq!(
        form(&world, "/bitrix24/other/robots/send_message", robot_call(&world, &secret, &member, "")).await,
        404
    );
    let no_token = robot_call(&world, &secret, &member, "").replace("event_token=w1%7CA1%7Cabc.def&", "");
    assert_eq!(form(&world, path, no_token).await, 400);
    let json = world.http.post(format!("{}{path}", world.base())).json(&json!({"code": "send_message"}));
    assert_eq!(json.send().await.unwrap().status(), 415);
    assert_eq!(form(&world, path, robot_call(&world, &secret, &member, "")).await, 200, "and the true one is taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn monsters_are_refused_quickly() {
    let world = World::new().await;
    let path = "/bitrix24/main/robots/send_message";
    let began = std::time::Instant::now();
    assert_eq!(form(&world, path, format!("a{}=1", "[b]".repeat(20_000))).await, 400);
    let many: String = (0..50_000).map(|n| format!("k{n}=1&")).collect();
    assert_eq!(form(&world, path, many).await, 400);
    assert_eq!(form(&world, path, vec![b'a'; 10 * 1024 * 1024]).await, 413);
    assert_eq!(form(&world, path, vec![0xff, 0xfe, b'=', 0xc0, b'&', b'%', b'z']).await, 403);
    assert_eq!(form(&world, "/bitrix24/main/events", "event=%ff").await, 403);
    assert!(began.elapsed().as_secs() < 10);
    assert_eq!(world.get_text("/healthz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_the_framework_are_problems_too() {
    let world = World::new().await;
    let webhook = format!("/webhooks/whatsapp_cloud/{}", world.channel);
    let robot = "/bitrix24/main/robots/send_message".to_owned();
    for path in [robot, "/bitrix24/main/events".into(), "/bitrix24/main/app".into(), webhook] {
        for (method, body, status) in [("POST", vec![b'a'; 5 * 1024 * 1024], 413), ("PUT", vec![], 405)] {
            let url = format!("{}{path}", world.base());
            let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
            let call = world.http.request(method, url).header("content-type", "application/x-www-form-urlencoded");
            let answer = call.body(body).send().await.unwrap();
            assert_eq!(answer.status(), status, "{path}");
            let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(header("content-type").as_deref(), Some("application/problem+json"), "{path} {status}");
            assert_eq!(header("allow").is_some_and(|allow| allow.contains("POST")), status == 405, "{path} {status}");
            let problem: serde_json::Value = answer.json().await.unwrap();
            assert_eq!(problem["status"], status);
            assert!(problem["type"].as_str().unwrap().starts_with("urn:mostik:problem:"), "{problem}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_answered_in_words() {
    let world = World::new().await;
    world.open_window(PHONE).await;
    for (properties, code) in [
        (json!({"recipients": "given", "phones": [PHONE], "text": "Здравствуйте, {{Имя}}"}), "unresolved_placeholder"),
        (json!({"recipients": "given", "text": "Кому?"}), "no_recipient"),
        (json!({"recipients": "given", "phones": [PHONE]}), "no_content"),
        (json!({"recipients": "everyone", "text": "x"}), "bad_request"),
        (json!({"recipients": "given", "phones": [PHONE], "text": "x", "messenger": "pigeon"}), "bad_request"),
        (json!({"recipients": "given", "phones": [PHONE], "text": "x", "messenger": "telegram"}), "no_channel"),
        (json!({"recipients": "given", "phones": [PHONE], "text": "x", "line": "line_unknown"}), "no_line"),
        (json!({"recipients": "given", "phones": ["позвоните мне"], "text": "x"}), "bad_phone"),
        (json!({"recipients": "given", "phones": [PHONE], "text": "я".repeat(5_000)}), "too_long"),
        (json!({"recipients": "given", "phones": [PHONE], "files": ["ftp://x.example/a.pdf"]}), "file_type"),
        (json!({"recipients": "given", "chat_ids": ["@ada"], "text": "x"}), "unsupported"),
    ] {
        let deal = world.deal("");
        world.fire(deal, &properties);
        let result = world.result_of(deal).await;
        assert_eq!((text(&result, "status"), text(&result, "error_code")), ("N".into(), code.into()), "{properties}");
        world.until("the card says why", |w| !w.comment(deal).is_empty()).await;
    }
    assert!(world.messages(PHONE).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_of_providers_prove_themselves_or_are_refused() {
    let world = World::new().await;
    let path = format!("/webhooks/whatsapp_cloud/{}", world.channel);
    let url = format!("{}{path}", world.base());
    let body = json!({"object": "whatsapp_business_account", "entry": []}).to_string();
    let send = async |signature: Option<&str>, body: Vec<u8>| {
        let mut call = world.http.post(&url).header("content-type", "application/json").body(body);
        if let Some(signature) = signature {
            call = call.header("x-hub-signature-256", signature);
        }
        call.send().await.unwrap().status()
    };
    assert_eq!(send(None, body.clone().into()).await, 403);
    assert_eq!(send(Some("sha256=00"), body.clone().into()).await, 403);
    assert_eq!(send(Some(""), vec![0xff; 100]).await, 403);
    assert_eq!(send(Some("sha256=00"), vec![b'x'; 10 * 1024 * 1024]).await, 413);
    assert_eq!(world.get_text("/webhooks/whatsapp_cloud/chan_UNKNOWN").await.0, 404);
    assert_eq!(world.get_text(&path.replace("whatsapp_cloud", "pigeon_post")).await.0, 404);
    let wrong = format!("{path}?hub.mode=subscribe&hub.challenge=1&hub.verify_token=wrong");
    assert_eq!(world.get_text(&wrong).await.0, 403);
    let right = format!("{path}?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=verify-me");
    assert_eq!(world.get_text(&right).await, (200, "1158201444".to_owned()));
    // Correctly signed, but of another number of the same account.
    world.number.send_webhook(
        "messages",
        &json!({
            "messaging_product": "whatsapp",
            "metadata": {"display_phone_number": "70000000000", "phone_number_id": "999999999999999"},
            "statuses": [{"id": "wamid.X", "status": "read", "timestamp": "1790000000", "recipient_id": PHONE}],
        }),
    );
    world.until("the foreign callback is noted", |w| w.log().contains("another sender")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_whole_run_holds_no_phone_text_or_secret() {
    let world = World::new().await;
    world.open_window(PHONE).await;
    let deal = world.deal("8 (916) 123-45-67");
    world.fire(deal, &json!({"recipients": "main", "text": "Совершенно секретно"}));
    world.result_of(deal).await;
    world.until("the comment says read", |w| w.comment(deal).contains("Прочитано")).await;
    let member = world.portal.member_id();
    form(&world, "/bitrix24/main/robots/send_message", robot_call(&world, "forged-token-value", &member, "")).await;
    world.number.set_token_valid(false);
    let second = world.deal(PHONE);
    world.fire(second, &json!({"recipients": "main", "text": "Совершенно секретно"}));
    world.until("the channel is paused", |w| w.log().contains("channel paused")).await;
    let log = world.log();
    let view = world.number.view();
    let install = world.portal.app(&world.client_id).unwrap();
    for secret in [
        PHONE,
        "9161234567",
        "123-45-67",
        "секретно",
        "Анна",
        "forged-token-value",
        &view.spec.access_token,
        &view.spec.app_secret,
        &install.application_token,
        "secret-of-the-application",
        "admin-token-of-the-tests",
    ] {
        assert!(!log.contains(secret), "{secret} is in the log: {log}");
    }
    assert!(log.contains("attempt"), "{log}");
}
