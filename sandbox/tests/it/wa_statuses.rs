//! What becomes of a message, and how webhooks tell it (whatsapp-cloud.md §5, §7).

use std::time::Duration;

use sandbox::{Action, Fault, Inbound, PhoneTraits};
use serde_json::{Value, json};

use crate::support::{ANNA, Line, Receiver, SOON};

fn kinds(statuses: &[Value]) -> Vec<String> {
    statuses.iter().map(|status| status["status"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn statuses_come_signed_with_everything_of_section_5_6() {
    let line = Line::open().await;
    let wamid = line.accepted(json!({"text": {"body": "x"}, "biz_opaque_callback_data": "crm/b24:сделка"})).await;
    line.settled().await;
    let statuses = line.statuses();
    assert_eq!(kinds(&statuses), ["sent", "delivered", "read"]);
    let sent = &statuses[0];
    assert_eq!((&sent["id"], &sent["recipient_id"]), (&json!(wamid), &json!(ANNA)));
    assert!(sent["timestamp"].is_string());
    assert_eq!(sent["recipient_user_id"], json!(line.sandbox.phone(ANNA).view().user_id));
    assert_eq!(sent["biz_opaque_callback_data"], "crm/b24:сделка");
    assert_eq!(
        sent["pricing"],
        json!({"billable": false, "pricing_model": "PMP", "type": "free_customer_service", "category": "service"})
    );
    assert!(
        !statuses[1]["pricing"].is_null() && statuses[2].get("pricing").is_none(),
        "pricing comes with sent and delivered"
    );
    let got = &line.service.on("/hook").into_iter().find(|got| got.body.contains("\"sent\"")).unwrap();
    assert!(got.body.contains(r#""crm\/b24:\u0441\u0434\u0435\u043b\u043a\u0430""#), "{}", got.body);
    assert!(got.body.starts_with(r#"{"object":"whatsapp_business_account","entry":[{"id":"214466880011223","changes":[{"value":{"messaging_product":"whatsapp","metadata":{"display_phone_number":"79990001122","phone_number_id":"330011223344556"},"contacts":[{"wa_id":"79161234567","#), "{}", got.body);
    let signature = got.headers["x-hub-signature-256"].strip_prefix("sha256=").unwrap().to_owned();
    assert_eq!(signature, hmac(&line.number.view().spec.app_secret, &got.body));
    let message = line.sandbox.ledger().get(&wamid).unwrap();
    assert_eq!((message.status(), message.arrived), ("read", true));
    assert_eq!(line.sandbox.ledger().by_opaque("crm/b24:сделка").len(), 1);
}

fn hmac(secret: &str, body: &str) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn outside_the_window_free_text_is_accepted_and_fails_by_webhook() {
    let line = Line::start().await;
    let wamid = line.accepted(json!({"text": {"body": "x"}, "biz_opaque_callback_data": "o1"})).await;
    line.settled().await;
    let statuses = line.statuses();
    assert_eq!(kinds(&statuses), ["failed"]);
    let failed = &statuses[0];
    assert_eq!((&failed["id"], &failed["errors"][0]["code"]), (&json!(wamid), &json!(131_047)));
    for key in ["title", "message", "href"] {
        assert!(failed["errors"][0][key].is_string(), "{key}");
    }
    assert!(failed["errors"][0]["error_data"]["details"].is_string());
    assert!(line.values()[0].get("contacts").is_none(), "no contacts with failed");
    assert!(failed.get("pricing").is_none());
    assert_eq!(failed["biz_opaque_callback_data"], "o1");

    let template = json!({"type": "template", "template": {"name": "greeting", "language": {"code": "ru"}}});
    let wamid = line.accepted(template).await;
    line.settled().await;
    let sent = line.statuses().into_iter().find(|status| status["id"] == json!(wamid)).unwrap();
    assert_eq!(
        sent["pricing"],
        json!({"billable": true, "pricing_model": "PMP", "type": "regular", "category": "marketing"})
    );

    line.sandbox.phone(ANNA).say(&line.number, "Да").unwrap();
    let wamid = line.accepted(json!({"text": {"body": "now free"}})).await;
    line.settled().await;
    assert_eq!(line.sandbox.ledger().get(&wamid).unwrap().status(), "read");
    line.sandbox.advance(Duration::from_secs(24 * 3600 + 1));
    let wamid = line.accepted(json!({"text": {"body": "too late"}})).await;
    line.settled().await;
    assert_eq!(line.sandbox.ledger().get(&wamid).unwrap().failure(), Some(131_047));
}

#[tokio::test]
async fn phones_can_be_absent_blocking_off_and_secretive() {
    let line = Line::open().await;
    let text = json!({"text": {"body": "x"}});
    let phone = line.sandbox.phone(ANNA);
    phone.set_exists(false);
    let absent = line.accepted(text.clone()).await;
    phone.set_exists(true);
    phone.block(&line.number, true);
    let blocked = line.accepted(text.clone()).await;
    phone.block(&line.number, false);
    line.settled().await;
    let ledger = line.sandbox.ledger();
    assert_eq!(ledger.get(&absent).unwrap().failure(), Some(131_026));
    assert_eq!(ledger.get(&blocked).unwrap().failure(), Some(130_403));

    phone.set_online(false);
    let waiting = line.accepted(text.clone()).await;
    line.settled().await;
    assert_eq!(ledger.get(&waiting).unwrap().status(), "sent");
    assert!(!ledger.get(&waiting).unwrap().arrived && phone.screen().is_empty());
    phone.set(PhoneTraits { online: Some(true), read_receipts: Some(false), ..PhoneTraits::default() });
    line.settled().await;
    assert_eq!(ledger.get(&waiting).unwrap().status(), "delivered");

    phone.set(PhoneTraits { read_receipts: Some(true), auto_read: Some(false), ..PhoneTraits::default() });
    let unread = line.accepted(text.clone()).await;
    line.settled().await;
    assert_eq!(ledger.get(&unread).unwrap().status(), "delivered");
    phone.read(&line.number);
    line.settled().await;
    assert_eq!(ledger.get(&unread).unwrap().status(), "read");
    assert_eq!(phone.screen().len(), 2);

    line.sandbox.set_graph(|graph| graph.sync_failures = true);
    phone.block(&line.number, true);
    assert_eq!(line.refused(text).await, (400, 130_403));
}

#[tokio::test]
async fn reactions_get_only_sent() {
    let line = Line::open().await;
    let inbound = line.sandbox.phone(ANNA).say(&line.number, "hi").unwrap();
    let wamid = line.accepted(json!({"type": "reaction", "reaction": {"message_id": inbound, "emoji": "👍"}})).await;
    line.settled().await;
    let own: Vec<Value> = line.statuses().into_iter().filter(|status| status["id"] == json!(wamid)).collect();
    assert_eq!(kinds(&own), ["sent"]);
    assert_eq!(line.sandbox.ledger().get(&inbound).unwrap().reaction.as_deref(), Some("👍"));
}

#[tokio::test]
async fn webhooks_are_retried_until_exactly_200() {
    let line = Line::open().await;
    line.sandbox.phone(ANNA).set(PhoneTraits { auto_read: Some(false), ..PhoneTraits::default() });
    line.service.answer_with(201);
    line.accepted(json!({"text": {"body": "x"}})).await;
    let service = line.service.clone();
    // Two statuses, each with its immediate retry; the second retry of each is planned by then.
    line.sandbox.until(SOON, |sandbox| sandbox.counter("webhook.retried") == 4).await.unwrap();
    let before = line.service.on("/hook").len();
    assert_eq!(before, 4, "then a pause");
    line.service.answer_with(200);
    line.sandbox.advance(Duration::from_secs(11));
    line.sandbox.until(SOON, |_| service.on("/hook").len() >= 6).await.unwrap();
    line.settled().await;
    assert_eq!(line.sandbox.counter("webhook.retried"), 4);
    let bodies: Vec<String> = line.service.on("/hook").into_iter().map(|got| got.body).collect();
    assert_eq!(bodies.iter().filter(|body| **body == bodies[0]).count(), 3, "the same bytes every time");
}

#[tokio::test]
async fn webhooks_can_be_batched_duplicated_held_shuffled_and_lost() {
    let line = Line::open().await;
    line.sandbox.set_graph(|graph| (graph.batch_max, graph.batch_linger_ms) = (50, 20));
    let first = line.accepted(json!({"text": {"body": "1"}})).await;
    line.settled().await;
    assert_eq!(line.service.on("/hook").len(), 1, "three statuses in one post");
    assert_eq!(kinds(&line.statuses()), ["sent", "delivered", "read"]);
    assert_eq!(line.statuses()[0]["id"], json!(first));

    line.sandbox.set_graph(|graph| graph.batch_max = 1);
    line.service.clear();
    line.sandbox.set_webhook_knobs(|knobs| knobs.duplicate = 1);
    line.accepted(json!({"text": {"body": "2"}})).await;
    line.settled().await;
    assert_eq!(line.service.on("/hook").len(), 6);

    line.service.clear();
    line.sandbox.set_webhook_knobs(|knobs| (knobs.duplicate, knobs.hold, knobs.shuffle) = (0, true, true));
    for nth in 0..20 {
        line.accepted(json!({"text": {"body": format!("{nth}")}})).await;
    }
    line.settled().await;
    assert!(line.service.all().is_empty());
    line.sandbox.set_webhook_knobs(|knobs| knobs.hold = false);
    line.settled().await;
    let order = kinds(&line.arrivals());
    assert_eq!(order.len(), 60);
    assert_ne!(order[..20], vec!["sent".to_owned(); 20], "shuffled");

    line.service.clear();
    line.sandbox.set_webhook_knobs(|knobs| knobs.shuffle = false);
    line.sandbox.add_fault(Fault::new("webhook.statuses", Action::Lose).contains(r#""status":"delivered""#));
    line.sandbox.add_fault(
        Fault::new("webhook.statuses", Action::Duplicate { copies: 2, gap_ms: 1 }).contains(r#""status":"read""#),
    );
    line.accepted(json!({"text": {"body": "3"}})).await;
    line.settled().await;
    assert_eq!(kinds(&line.statuses()), ["sent", "read", "read", "read"]);
}

#[tokio::test]
async fn inbound_messages_have_their_documented_shapes() {
    let line = Line::start().await;
    let phone = line.sandbox.phone(ANNA);
    phone.set(PhoneTraits { name: Some("Анна".into()), ..PhoneTraits::default() });
    let template = json!({"type": "template", "template": {"name": "appointment", "language": {"code": "en"}, "components": [
        {"type": "header", "parameters": [{"type": "text", "parameter_name": "day", "text": "Friday"}]},
        {"type": "body", "parameters": [{"type": "text", "parameter_name": "client", "text": "Ann"}, {"type": "text", "parameter_name": "hour", "text": "12"}]}]}});
    let asked = line.accepted(template).await;
    line.settled().await;
    line.service.clear();
    phone.tap(&line.number, &asked, "Confirm").unwrap();
    line.settled().await;
    let value = &line.values()[0];
    assert_eq!(value["metadata"], json!({"display_phone_number": "79990001122", "phone_number_id": "330011223344556"}));
    assert_eq!(
        value["contacts"][0],
        json!({"profile": {"name": "Анна"}, "wa_id": ANNA, "user_id": phone.view().user_id})
    );
    let message = &value["messages"][0];
    assert_eq!(
        (&message["type"], &message["button"]),
        (&json!("button"), &json!({"payload": "Confirm", "text": "Confirm"}))
    );
    assert_eq!(message["context"], json!({"from": "79990001122", "id": asked}));
    assert!(message["timestamp"].is_string());
    assert_eq!((&message["from"], &message["from_user_id"]), (&json!(ANNA), &json!(phone.view().user_id)));

    let cases = [
        (Inbound::text("Привет"), "text", json!({"body": "Привет"})),
        (
            Inbound::ButtonReply { id: "ok".into(), title: "Да".into() },
            "interactive",
            json!({"type": "button_reply", "button_reply": {"id": "ok", "title": "Да"}}),
        ),
        (
            Inbound::Reaction { message_id: asked.clone(), emoji: "👍".into() },
            "reaction",
            json!({"message_id": asked, "emoji": "👍"}),
        ),
        (
            Inbound::Reaction { message_id: asked.clone(), emoji: String::new() },
            "reaction",
            json!({"message_id": asked}),
        ),
        (
            Inbound::Location { latitude: 59.9, longitude: 30.3, name: None, address: None },
            "location",
            json!({"latitude": 59.9, "longitude": 30.3}),
        ),
        (
            Inbound::Contacts { contacts: json!([{"name": {"formatted_name": "A"}}]) },
            "contacts",
            json!([{"name": {"formatted_name": "A"}}]),
        ),
        (Inbound::Revoke { message_id: "wamid.x".into() }, "revoke", json!({"original_message_id": "wamid.x"})),
    ];
    for (what, kind, body) in cases {
        line.service.clear();
        phone.send(&line.number, &what, None).unwrap();
        line.settled().await;
        let message = line.values()[0]["messages"][0].clone();
        assert_eq!((&message["type"], &message[kind]), (&json!(kind), &body), "{what:?}");
    }
    line.service.clear();
    let what = Inbound::Media {
        kind: "document".into(),
        mime: None,
        filename: Some("a.pdf".into()),
        caption: None,
        base64: Some("QUJD".into()),
    };
    phone.send(&line.number, &what, None).unwrap();
    line.settled().await;
    let document = line.values()[0]["messages"][0]["document"].clone();
    assert_eq!((&document["filename"], &document["mime_type"]), (&json!("a.pdf"), &json!("application/pdf")));
    assert_eq!(document["sha256"], "tdQEXD9Gb6kf4sxqvnkjKhpXzfEE96JucW4KHieJ33g=", "base64 in webhooks");
    let (_, file) = line.get(document["id"].as_str().unwrap()).await;
    assert_eq!(
        file["sha256"], "b5d4045c3f466fa91fe2cc6abe79232a1a57cdf104f7a26e716e0a1e2789df78",
        "hex at the media endpoint"
    );
    let bytes = line.http.get(file["url"].as_str().unwrap()).bearer_auth(line.token()).send().await.unwrap();
    assert_eq!(bytes.text().await.unwrap(), "ABC");
    phone.set_online(false);
    assert!(phone.say(&line.number, "x").is_err());
}

#[tokio::test]
async fn links_are_fetched_when_asked_and_failures_come_by_webhook() {
    let line = Line::open().await;
    line.sandbox.set_graph(|graph| graph.fetch_links = true);
    let files = Receiver::start().await;
    files.answer_with(404);
    let wamid = line.accepted(json!({"type": "image", "image": {"link": files.url("/a.png")}})).await;
    line.settled().await;
    assert_eq!(line.sandbox.ledger().get(&wamid).unwrap().failure(), Some(131_052));
    files.answer_with(200);
    let wamid = line.accepted(json!({"type": "image", "image": {"link": files.url("/a.png")}})).await;
    line.settled().await;
    assert_eq!(line.sandbox.ledger().get(&wamid).unwrap().failure(), Some(131_053), "no content type of an image");
    let wamid = line.accepted(json!({"type": "document", "document": {"link": files.url("/a.pdf")}})).await;
    line.settled().await;
    assert_eq!(line.sandbox.ledger().get(&wamid).unwrap().status(), "read");
}
