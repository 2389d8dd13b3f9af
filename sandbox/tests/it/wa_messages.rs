//! Strict validation of sends (whatsapp-cloud.md §1.1, §2, §3).

use sandbox::{NumberSpec, PairLimit};
use serde_json::{Value, json};

use crate::support::{ANNA, Line};

#[tokio::test]
async fn every_simulated_type_is_accepted_in_its_documented_form() {
    let line = Line::open().await;
    let quoted = line.sandbox.phone(ANNA).say(&line.number, "Когда доставка?").unwrap();
    let good = [
        json!({"type": "text", "text": {"body": "Заказ https://crm.example/1", "preview_url": true}}),
        json!({"text": {"body": "no type means text"}}),
        json!({"recipient_type": "individual", "type": "text", "text": {"body": "x"}, "context": {"message_id": quoted}}),
        json!({"type": "image", "image": {"link": "https://crm.example/a.jpg", "caption": "c"}}),
        json!({"type": "document", "document": {"link": "https://crm.example/a.pdf", "filename": "a.pdf", "caption": "c"}}),
        json!({"type": "audio", "audio": {"link": "https://crm.example/a.ogg", "voice": true}}),
        json!({"type": "video", "video": {"link": "https://crm.example/a.mp4"}}),
        json!({"type": "sticker", "sticker": {"link": "https://crm.example/a.webp"}}),
        json!({"type": "location", "location": {"latitude": 59.9386, "longitude": "30.3141", "name": "Офис", "address": "Невский пр., 1"}}),
        json!({"type": "contacts", "contacts": [{"name": {"formatted_name": "Анна Тест", "first_name": "Анна"}, "birthday": "1990-04-05",
            "phones": [{"phone": "+7 916 765-43-21", "type": "CELL", "wa_id": "79167654321"}], "org": {"company": "ООО"}}]}),
        json!({"type": "reaction", "reaction": {"message_id": quoted, "emoji": "👍"}}),
        json!({"type": "reaction", "reaction": {"message_id": quoted, "emoji": ""}}),
        json!({"type": "interactive", "interactive": {"type": "button", "body": {"text": "?"}, "footer": {"text": "f"},
            "action": {"buttons": [{"type": "reply", "reply": {"id": "ok", "title": "Да"}}]}}}),
        json!({"type": "interactive", "interactive": {"type": "list", "header": {"type": "text", "text": "h"}, "body": {"text": "?"},
            "action": {"button": "Выбрать", "sections": [{"title": "Филиал", "rows": [{"id": "f1", "title": "Центр", "description": "до 21:00"}]}]}}}),
        json!({"type": "interactive", "interactive": {"type": "cta_url", "body": {"text": "?"},
            "action": {"name": "cta_url", "parameters": {"display_text": "Открыть", "url": "https://crm.example/p/1"}}}}),
        json!({"type": "interactive", "interactive": {"type": "location_request_message", "body": {"text": "?"}, "action": {"name": "send_location"}}}),
        json!({"to": "+7 (916) 123-45-67", "type": "text", "text": {"body": "x".repeat(4096)}, "biz_opaque_callback_data": "o".repeat(512)}),
    ];
    for parts in good {
        let (status, body) = line.send(parts.clone()).await;
        assert_eq!(status, 200, "{parts}: {body}");
        assert_eq!(body["messaging_product"], "whatsapp");
        assert_eq!(body["contacts"][0]["wa_id"], ANNA);
        assert!(body["messages"][0]["id"].as_str().unwrap().starts_with("wamid."));
        assert!(body["messages"][0].get("message_status").is_none());
    }
    assert!(line.sandbox.refusals().is_empty(), "{:?}", line.sandbox.refusals());
}

#[tokio::test]
async fn every_documented_mistake_is_refused() {
    let line = Line::open().await;
    let text = |body: Value| json!({"type": "text", "text": body});
    let interactive = |kind: &str, action: Value| json!({"type": "interactive", "interactive": {"type": kind, "body": {"text": "b"}, "action": action}});
    let button = |id: &str, title: &str| json!({"type": "reply", "reply": {"id": id, "title": title}});
    let row = |id: &str| json!({"id": id, "title": "t"});
    let many_rows: Vec<Value> = (0..11).map(|nth| row(&nth.to_string())).collect();
    let cases = [
        (json!({"messaging_product": "telegram"}), 100),
        (json!({"type": "poll", "poll": {}}), 100),
        (json!({"type": "text", "text": {"body": "x"}, "txt": 1}), 100),
        (json!({"type": "text", "text": {"body": "x"}, "image": {"link": "https://a.b/c"}}), 100),
        (json!({"type": "text"}), 131008),
        (text(json!({})), 131008),
        (text(json!({"body": ""})), 131008),
        (text(json!({"body": "   "})), 100),
        (text(json!({"body": 5})), 100),
        (text(json!({"body": "x", "previewUrl": true})), 100),
        (text(json!({"body": "x", "preview_url": "true"})), 100),
        (text(json!({"body": "x".repeat(4097)})), 100),
        (json!({"to": "12ab", "text": {"body": "x"}}), 131009),
        (json!({"to": null, "text": {"body": "x"}}), 131008),
        (json!({"to": "79990001122", "text": {"body": "x"}}), 131021),
        (json!({"recipient_type": "group", "text": {"body": "x"}}), 131215),
        (json!({"recipient_type": "all", "text": {"body": "x"}}), 100),
        (json!({"text": {"body": "x"}, "biz_opaque_callback_data": "o".repeat(513)}), 100),
        (json!({"text": {"body": "x"}, "context": {"id": "wamid.x"}}), 100),
        (json!({"type": "image", "image": {}}), 131008),
        (json!({"type": "image", "image": {"id": "1", "link": "https://a.b/c"}}), 100),
        (json!({"type": "image", "image": {"link": "not a url"}}), 100),
        (json!({"type": "image", "image": {"link": "ftp://a.b/c"}}), 100),
        (json!({"type": "image", "image": {"id": "8800112233445566"}}), 100),
        (json!({"type": "image", "image": {"link": "https://a.b/c", "filename": "x"}}), 100),
        (json!({"type": "image", "image": {"link": "https://a.b/c", "caption": "x".repeat(1025)}}), 131009),
        (json!({"type": "audio", "audio": {"link": "https://a.b/c", "caption": "x"}}), 100),
        (json!({"type": "sticker", "sticker": {"link": "https://a.b/c", "caption": "x"}}), 100),
        (json!({"type": "location", "location": {"latitude": 91, "longitude": 0}}), 131009),
        (json!({"type": "location", "location": {"latitude": 1}}), 131008),
        (json!({"type": "contacts", "contacts": []}), 131008),
        (json!({"type": "contacts", "contacts": [{"name": {"formatted_name": "A"}}]}), 131009),
        (json!({"type": "contacts", "contacts": [{"name": {"first_name": "A"}}]}), 131008),
        (
            json!({"type": "contacts", "contacts": [{"name": {"formatted_name": "A", "first_name": "A"}, "phones": [{"number": "1"}]}]}),
            100,
        ),
        (json!({"type": "reaction", "reaction": {"message_id": "wamid.nothing", "emoji": "👍"}}), 131009),
        (json!({"type": "reaction", "reaction": {"message_id": "wamid.nothing"}}), 131008),
        (json!({"type": "reaction", "reaction": {"message_id": "wamid.nothing", "emoji": "ok"}}), 131009),
        (interactive("button", json!({"buttons": []})), 131008),
        (
            interactive(
                "button",
                json!({"buttons": [button("1", "a"), button("2", "b"), button("3", "c"), button("4", "d")]}),
            ),
            131009,
        ),
        (interactive("button", json!({"buttons": [button("1", "same"), button("2", "same")]})), 131009),
        (interactive("button", json!({"buttons": [button("1", "longer than twenty characters")]})), 131009),
        (interactive("list", json!({"button": "b", "sections": [{"rows": many_rows}]})), 131009),
        (
            interactive(
                "list",
                json!({"button": "b", "sections": [{"rows": [row("1")]}, {"title": "t", "rows": [row("2")]}]}),
            ),
            131008,
        ),
        (interactive("list", json!({"button": "b", "sections": [{"rows": [row("1"), row("1")]}]})), 131009),
        (
            interactive("cta_url", json!({"name": "cta", "parameters": {"display_text": "x", "url": "https://a.b"}})),
            100,
        ),
        (interactive("carousel", json!({})), 131051),
        (interactive("dance", json!({})), 100),
    ];
    for (parts, code) in cases {
        let (status, got) = line.refused(parts.clone()).await;
        assert_eq!((status, got), (400, code), "{parts}");
    }
    assert_eq!(line.sandbox.ledger().accepted(), 0);
}

#[tokio::test]
async fn errors_have_graphs_shape() {
    let line = Line::open().await;
    let (_, body) = line.send(json!({"to": "79990001122", "text": {"body": "x"}})).await;
    let error = &body["error"];
    assert_eq!(error["message"], "(#131021) Recipient cannot be sender");
    assert_eq!(error["type"], "OAuthException");
    assert_eq!(error["error_data"]["messaging_product"], "whatsapp");
    assert!(error["error_data"]["details"].is_string() && error["fbtrace_id"].is_string());
}

#[tokio::test]
async fn access_is_checked_before_anything_else() {
    let line = Line::open().await;
    let send = async |url: String, token: Option<&str>| {
        let mut request =
            line.http.post(url).json(&json!({"messaging_product": "whatsapp", "to": ANNA, "text": {"body": "x"}}));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        (status, body["error"]["code"].as_i64().unwrap_or(0))
    };
    let path = format!("{}/messages", line.number.id());
    let (url, token) = (line.url(&path), line.token());
    assert_eq!(send(url.clone(), None).await, (403, 200));
    assert_eq!(send(url.clone(), Some("EAAGnonsense")).await, (401, 190));
    assert_eq!(send(line.url("999/messages"), Some(&token)).await, (400, 100));
    let graph = line.sandbox.addresses().graph;
    assert_eq!(send(format!("{graph}/{path}"), Some(&token)).await, (400, 100), "no version");
    assert_eq!(send(format!("{graph}/v12.0/{path}"), Some(&token)).await, (400, 100), "dead version");
    let other = line.sandbox.add_number(NumberSpec::default()).unwrap();
    assert_eq!(send(url.clone(), Some(&other.view().spec.access_token)).await, (403, 10));
    line.number.set_token_may_send(false);
    assert_eq!(send(url.clone(), Some(&token)).await, (403, 10));
    line.number.set_token_may_send(true);
    line.number.set_registered(false);
    assert_eq!(send(url.clone(), Some(&token)).await, (400, 133_010));
    line.number.set_deleted(true);
    assert_eq!(send(url.clone(), Some(&token)).await, (400, 33));
    line.number.set_token_valid(false);
    assert_eq!(send(url, Some(&token)).await, (401, 190));
}

#[tokio::test]
async fn test_numbers_write_only_to_their_list() {
    let line = Line::open().await;
    let test = line
        .sandbox
        .add_number(NumberSpec { allow_list: Some(vec!["79160000001".into()]), ..Default::default() })
        .unwrap();
    let url = line.url(&format!("{}/messages", test.id()));
    let body = json!({"messaging_product": "whatsapp", "to": ANNA, "text": {"body": "x"}});
    let answer = line.http.post(url).bearer_auth(test.view().spec.access_token).json(&body).send().await.unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap()["error"]["code"], 131_030);
}

fn template(name: &str, language: &str, components: Value) -> Value {
    json!({"type": "template", "template": {"name": name, "language": {"code": language}, "components": components}})
}

fn texts(values: &[&str]) -> Value {
    let parameters: Vec<Value> = values.iter().map(|value| json!({"type": "text", "text": value})).collect();
    json!({"type": "body", "parameters": parameters})
}

#[tokio::test]
async fn templates_are_held_against_their_definition() {
    let line = Line::start().await;
    line.number.set_template_status("greeting", "ru", "PAUSED", None).unwrap();
    line.number.set_template_status("catalog_link", "ru", "DISABLED", None).unwrap();
    line.number.set_template_status("delivery_photo", "ru", "REJECTED", Some("SCAM")).unwrap();
    let named = |entries: &[(&str, &str)]| {
        let parameters: Vec<Value> =
            entries.iter().map(|(name, text)| json!({"type": "text", "parameter_name": name, "text": text})).collect();
        json!({"type": "body", "parameters": parameters})
    };
    let file = json!({"type": "header", "parameters": [{"type": "document", "document": {"link": "https://crm.example/s.pdf", "filename": "s.pdf"}}]});
    let photo =
        json!({"type": "header", "parameters": [{"type": "image", "image": {"link": "https://crm.example/s.png"}}]});
    let both = named(&[("client", "Анна"), ("order_id", "1042")]);
    let url = |index: Value| json!({"type": "button", "sub_type": "url", "index": index, "parameters": [{"type": "text", "text": "o/1042"}]});
    let cancel = json!({"type": "button", "sub_type": "quick_reply", "index": "1", "parameters": [{"type": "payload", "payload": "cancel:1042"}]});
    let ready = |components: Value| template("order_ready_ru", "ru", components);
    let update = |components: Value| template("order_update", "ru", components);
    let cases = [
        (template("nothing", "ru", json!([])), (404, 132_001)),
        (template("order_update", "kk", json!([])), (404, 132_001)),
        (template("delivery_photo", "ru", json!([])), (404, 132_001)),
        (template("greeting", "ru", json!([])), (400, 132_015)),
        (template("catalog_link", "ru", json!([])), (400, 132_016)),
        (update(json!([])), (400, 132_000)),
        (update(json!([texts(&["a"])])), (400, 132_000)),
        (update(json!([texts(&["a", "b", "c"])])), (400, 132_000)),
        (update(json!([texts(&["a", "b\nc"])])), (400, 132_018)),
        (update(json!([texts(&["a", "b     c"])])), (400, 132_018)),
        (update(json!([texts(&["a", &"b".repeat(1024)])])), (400, 132_005)),
        (update(json!([texts(&["a", ""])])), (400, 131_008)),
        (update(json!([named(&[("1", "a"), ("2", "b")])])), (400, 132_012)),
        (update(json!([texts(&["a", "b"]), file])), (400, 132_000)),
        (update(json!([{"type": "Body", "parameters": []}])), (400, 100)),
        (update(json!([{"type": "body", "params": []}])), (400, 100)),
        (ready(json!([both, url(json!("0"))])), (400, 132_012)),
        (ready(json!([photo, both, url(json!("0"))])), (400, 132_012)),
        (ready(json!([file, texts(&["a", "b"]), url(json!("0"))])), (400, 132_012)),
        (ready(json!([file, named(&[("client", "a"), ("order", "b")]), url(json!("0"))])), (400, 132_012)),
        (ready(json!([file, both])), (400, 131_008)),
        (ready(json!([file, both, url(json!(0))])), (400, 100)),
        (ready(json!([file, both, url(json!("1"))])), (400, 132_012)),
        (ready(json!([file, both, url(json!("5"))])), (400, 132_000)),
    ];
    for (parts, expected) in cases {
        assert_eq!(line.refused(parts.clone()).await, expected, "{parts}");
    }
    let (status, body) = line.send(ready(json!([file, both, url(json!("0")), cancel]))).await;
    assert_eq!((status, &body["messages"][0]["message_status"]), (200, &json!("accepted")), "{body}");
    let shown = &line.sandbox.ledger().last(1)[0].shown;
    assert_eq!(shown.text, "Здравствуйте, Анна! Заказ 1042 готов к выдаче.");
    assert_eq!(shown.footer, "Ответьте СТОП, чтобы не получать");
    assert_eq!(shown.template.as_deref(), Some("order_ready_ru:ru"));
    assert_eq!(shown.media.as_ref().unwrap().filename, "s.pdf");
    assert_eq!(
        (shown.buttons[0].value.as_str(), shown.buttons[1].value.as_str()),
        ("https://crm.example/o/o/1042", "cancel:1042")
    );
    line.accepted(update(json!([texts(&["Анна", "1042"])]))).await;
}

#[tokio::test]
async fn throughput_and_pairs_are_limited() {
    let line = Line::open().await;
    line.number.set_throughput(5);
    let mut codes = Vec::new();
    for _ in 0..7 {
        codes.push(line.send(json!({"text": {"body": "x"}})).await.0);
    }
    assert_eq!(codes[..5], [200; 5]);
    assert!(codes[5..].contains(&429), "{codes:?}");
    line.sandbox.set_graph(|graph| graph.throttle_status = 400);
    line.number.set_throughput(1);
    line.send(json!({"text": {"body": "x"}})).await;
    assert_eq!(line.refused(json!({"text": {"body": "x"}})).await, (400, 130_429));

    line.number.set_throughput(0);
    line.sandbox.set_graph(|graph| {
        graph.pair_limit = Some(PairLimit { interval_ms: 6_000, burst: 3 });
        graph.throttle_status = 429;
    });
    let to = |phone: &str| json!({"to": phone, "text": {"body": "x"}});
    for _ in 0..3 {
        line.accepted(to("79160000009")).await;
    }
    assert_eq!(line.refused(to("79160000009")).await, (429, 131_056));
    line.accepted(to("79160000008")).await;
    line.sandbox.advance(std::time::Duration::from_secs(6));
    line.accepted(to("79160000009")).await;
    assert_eq!(line.sandbox.counter("graph.error.131056"), 1);
}

#[tokio::test]
async fn read_marks_need_an_inbound_message() {
    let line = Line::open().await;
    let wamid = line.sandbox.phone(ANNA).say(&line.number, "?").unwrap();
    let mark = |id: &str, more: Value| {
        let mut body = json!({"messaging_product": "whatsapp", "status": "read", "message_id": id});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        body
    };
    assert_eq!(line.post(&mark(&wamid, json!({}))).await, (200, json!({"success": true})));
    assert!(line.sandbox.ledger().get(&wamid).unwrap().marked_read);
    assert_eq!(line.post(&mark(&wamid, json!({"typing_indicator": {"type": "text"}}))).await.0, 200);
    assert_eq!(line.post(&mark("wamid.x", json!({}))).await.0, 400);
    assert_eq!(line.post(&mark(&wamid, json!({"typing_indicator": {"type": "dots"}}))).await.0, 400);
    assert_eq!(line.post(&mark(&wamid, json!({"to": ANNA}))).await.0, 400);
}

#[tokio::test]
async fn a_user_id_reaches_the_same_phone() {
    let line = Line::open().await;
    let user = line.sandbox.phone(ANNA).view().user_id;
    let body = json!({"messaging_product": "whatsapp", "recipient": user, "type": "text", "text": {"body": "x"}});
    let (status, answer) = line.post(&body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["contacts"][0], json!({"input": user, "user_id": user}));
    assert_eq!(line.sandbox.phone(ANNA).messages().len(), 1);
    line.sandbox.phone(ANNA).set(sandbox::PhoneTraits { alias: Some("5491123456789".into()), ..Default::default() });
    let (_, answer) = line.send(json!({"to": "5491123456789", "text": {"body": "y"}})).await;
    assert_eq!(answer["contacts"][0]["wa_id"], ANNA);
}
