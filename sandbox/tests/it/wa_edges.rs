//! The Graph server besides sending (whatsapp-cloud.md §1, §4, §5.1, §5.4, §6.1, §10.3).

use sandbox::TemplateSpec;
use serde_json::{Value, json};

use crate::support::{ANNA, Line, Receiver};

#[tokio::test]
async fn numbers_tell_the_asked_fields() {
    let line = Line::start().await;
    let (_, all) = line.get(&line.number.id()).await;
    assert_eq!(all["display_phone_number"], "79990001122");
    let (_, some) = line.get(&format!("{}?fields=quality_rating,throughput,health_status", line.number.id())).await;
    assert_eq!(some.as_object().unwrap().len(), 4);
    assert_eq!(
        (&some["throughput"]["level"], &some["health_status"]["can_send_message"]),
        (&json!("STANDARD"), &json!("AVAILABLE"))
    );
    let (_, list) = line.get("214466880011223/phone_numbers").await;
    assert_eq!(list["data"][0]["id"], json!(line.number.id()));
    assert_eq!(line.get("999999").await.0, 400);
}

#[tokio::test]
async fn templates_are_listed_page_by_page() {
    let line = Line::start().await;
    let path = "214466880011223/message_templates?fields=id,name,status,language,components,parameter_format&limit=3";
    let mut names = Vec::new();
    let mut after = String::new();
    loop {
        let (_, page) = line.get(&format!("{path}&after={after}")).await;
        let data = page["data"].as_array().unwrap().clone();
        assert!(data.len() <= 3);
        names.extend(data.iter().map(|template| {
            format!("{}:{}", template["name"].as_str().unwrap(), template["language"].as_str().unwrap())
        }));
        if page["paging"].get("next").is_none() {
            break;
        }
        after = page["paging"]["cursors"]["after"].as_str().unwrap().to_owned();
    }
    assert_eq!(names.len(), line.number.templates().len());
    let (_, one) = line.get("214466880011223/message_templates?name=order_update&language=en").await;
    assert_eq!(one["data"].as_array().unwrap().len(), 1);
    let (_, none) = line.get("214466880011223/message_templates?status=PAUSED").await;
    assert_eq!(none["data"], json!([]));
}

#[tokio::test]
async fn template_changes_are_told_by_webhook() {
    let line = Line::start().await;
    line.number
        .put_template(TemplateSpec {
            name: "mine".into(),
            components: json!([{"type": "BODY", "text": "Hi"}]),
            status: "PENDING".into(),
            ..Default::default()
        })
        .unwrap();
    line.number.set_template_status("mine", "ru", "APPROVED", None).unwrap();
    line.settled().await;
    let got = line.service.on("/hook").pop().unwrap().json();
    let change = &got["entry"][0]["changes"][0];
    assert_eq!(change["field"], "message_template_status_update");
    assert_eq!(
        (&change["value"]["event"], &change["value"]["message_template_name"]),
        (&json!("APPROVED"), &json!("mine"))
    );
    assert!(change["value"]["message_template_id"].is_u64() && got["entry"][0]["time"].is_i64());
    line.sandbox.phone(ANNA).open_window(&line.number);
    line.accepted(json!({"type": "template", "template": {"name": "mine", "language": {"code": "ru"}}})).await;
    let bad = TemplateSpec { name: "Bad Name".into(), ..Default::default() };
    assert!(line.number.put_template(bad).is_err());
}

#[tokio::test]
async fn tokens_can_be_debugged() {
    let line = Line::start().await;
    let spec = line.number.view().spec;
    let (_, app) = line
        .get(&format!(
            "oauth/access_token?client_id={}&client_secret={}&grant_type=client_credentials",
            spec.app_id, spec.app_secret
        ))
        .await;
    let asker = app["access_token"].as_str().unwrap().replace('|', "%7C");
    let (_, good) = line.get(&format!("debug_token?input_token={}&access_token={asker}", spec.access_token)).await;
    assert_eq!((&good["data"]["is_valid"], &good["data"]["app_id"]), (&json!(true), &json!(spec.app_id)));
    assert_eq!(good["data"]["granular_scopes"][0]["target_ids"], json!(["214466880011223"]));
    let (_, bad) = line.get(&format!("debug_token?input_token=nonsense&access_token={asker}")).await;
    assert_eq!(bad["data"]["is_valid"], false);
}

#[tokio::test]
async fn subscribing_asks_the_challenge() {
    let line = Line::start().await;
    let other = Receiver::start().await;
    let path = line.url("214466880011223/subscribed_apps");
    let subscribe = async |url: String| {
        let body = json!({"override_callback_uri": url, "verify_token": "vt 77"});
        let answer = line.http.post(&path).bearer_auth(line.token()).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    assert_eq!(subscribe(other.url("/hook")).await, (200, json!({"success": true})));
    let asked = &other.all()[0];
    assert_eq!(asked.method, "GET");
    assert!(
        asked.query.starts_with("hub.mode=subscribe&hub.challenge=")
            && asked.query.ends_with("&hub.verify_token=vt+77"),
        "{}",
        asked.query
    );
    other.answer_with(403);
    assert_eq!(subscribe(other.url("/hook")).await.0, 400);
    // Number before account: the account's address is used only without an own one.
    line.number.set_callback(None);
    other.answer_with(200);
    other.clear();
    line.sandbox.phone(ANNA).say(&line.number, "x").unwrap();
    line.settled().await;
    assert_eq!(other.on("/hook").len(), 1);
    line.http.delete(&path).bearer_auth(line.token()).send().await.unwrap();
    line.sandbox.phone(ANNA).say(&line.number, "y").unwrap();
    line.settled().await;
    assert_eq!(other.on("/hook").len(), 1);
    assert!(line.number.subscribe(&format!("{}/nobody", other.base.replace("127.0.0.1", "127.0.0.2"))).await.is_err());
}

#[tokio::test]
async fn media_are_uploaded_used_and_belong_to_their_number() {
    let line = Line::open().await;
    let upload = async |mime: &str| {
        let body = format!(
            "--B\r\nContent-Disposition: form-data; name=\"messaging_product\"\r\n\r\nwhatsapp\r\n--B\r\nContent-Disposition: form-data; name=\"type\"\r\n\r\n{mime}\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\nContent-Type: {mime}\r\n\r\nABC\r\n--B--\r\n"
        );
        let request = line.http.post(line.url(&format!("{}/media", line.number.id()))).bearer_auth(line.token());
        let answer = request.header("content-type", "multipart/form-data; boundary=B").body(body).send().await.unwrap();
        answer.json::<Value>().await.unwrap()
    };
    let id = upload("image/png").await["id"].as_str().unwrap().to_owned();
    line.accepted(json!({"type": "image", "image": {"id": id}})).await;
    let other = line.sandbox.add_number(sandbox::NumberSpec::default()).unwrap();
    let body = json!({"messaging_product": "whatsapp", "to": ANNA, "type": "image", "image": {"id": id}});
    let url = line.url(&format!("{}/messages", other.id()));
    let answer = line.http.post(url).bearer_auth(other.view().spec.access_token).json(&body).send().await.unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap()["error"]["code"], 100, "a foreign id");
    let (_, file) = line.get(&id).await;
    let address = file["url"].as_str().unwrap().to_owned();
    assert_eq!(line.http.get(&address).send().await.unwrap().status(), 401);
    line.sandbox.advance(std::time::Duration::from_secs(301));
    assert_eq!(line.http.get(&address).bearer_auth(line.token()).send().await.unwrap().status(), 404);
    line.http.delete(line.url(&id)).bearer_auth(line.token()).send().await.unwrap();
    assert_eq!(line.get(&id).await.0, 400);
}

#[tokio::test]
async fn app_secret_proof_must_be_right_if_given() {
    let line = Line::start().await;
    let path = format!("{}?appsecret_proof=", line.number.id());
    assert_eq!(line.get(&format!("{path}00")).await.0, 400);
    assert_eq!(line.get(&line.number.id()).await.0, 200);
}
