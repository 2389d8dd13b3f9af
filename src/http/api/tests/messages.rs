//! Sending and history.

use super::*;
use crate::domain::channel::Messenger;
use crate::domain::event::{InboundContent, InboundMessage};
use crate::domain::ids::{MessageId, ProviderMessageId};
use crate::domain::job::{Job, JobKind};
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::status::MessageState;
use crate::storage::ingest::Ingest;
use crate::storage::messages::{Attempt, MessageNews};
use crate::storage::settle::{Fate, Settlement};

async fn post_with_key(api: &Api, key: &str, body: &Value) -> Answer {
    let request = Api::authorized("post", "/messages").insert_header(("Idempotency-Key", key)).set_json(body);
    api.send(request).await
}

async fn count(api: &Api) -> usize {
    api.all("/messages", 200).await.len()
}

#[actix_web::test]
async fn a_message_is_taken_over_and_waits() {
    let api = Api::start().await;
    let channel = api.add_channel().await;
    let id = api.send_text(&channel, "8 (900) 123-45-67").await;
    let shown = api.get(&format!("/messages/{id}")).await;
    let expected = json!({
        "id": id,
        "direction": "out",
        "state": "queued",
        "channel": channel,
        "provider": "whatsapp_cloud",
        "provider_ids": [],
        "peer": "79001234567",
        "portal": null,
        "card": null,
        "content": {"kind": "text", "text": "Good day"},
        "used_fallback": false,
        "error": null,
        "silence": null,
        "created_at": "2025-11-21T23:00:00.000Z",
        "accepted_at": null,
        "sent_at": null,
        "delivered_at": null,
        "read_at": null,
        "failed_at": null,
        "attempts": [],
    });
    assert_eq!(shown.json, expected);
    let jobs = api.state.storage.jobs_now(&[Job::id_of(JobKind::Send, &id)]).await.unwrap();
    assert_eq!(jobs[0].not_after, Some(Timestamp(START).plus(Millis::hours(24))));
}

#[actix_web::test]
async fn content_is_taken_as_it_was_given() {
    let api = Api::start().await;
    let channel = api.add_channel().await;
    for (given, expected) in [
        (json!({"text": "{Hello|Hi} {{name}} :sm01:"}), json!({"kind": "text", "text": "{Hello|Hi} {{name}} :sm01:"})),
        (
            json!({"text": "Good day", "fallback_template": "hello:ru", "params": ["Ada"]}),
            json!({"kind": "text", "text": "Good day", "fallback_template": "hello:ru"}),
        ),
        (
            json!({"files": ["https://x.example/offer.pdf"], "caption": "Our offer"}),
            json!({"kind": "media", "media": "document", "file": "https://x.example/offer.pdf", "text": "Our offer"}),
        ),
        (
            json!({"files": ["https://x.example/a.png"], "text": "Look"}),
            json!({"kind": "media", "media": "image", "file": "https://x.example/a.png", "text": "Look"}),
        ),
        (
            json!({"template": " hello : ru ", "params": ["Ada", ""], "files": ["https://x.example/a.png"]}),
            json!({"kind": "template", "template": "hello:ru", "params": ["Ada", ""], "file": "https://x.example/a.png"}),
        ),
        (json!({"template": "hello", "text": " "}), json!({"kind": "template", "template": "hello"})),
    ] {
        let mut body = given.clone();
        body["channel"] = json!(channel);
        body["to"] = json!("+7 900 123-45-67");
        let answer = api.post("/messages", &body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{given}: {}", answer.json);
        let shown = api.get(&format!("/messages/{}", answer.text("/id"))).await;
        assert_eq!(shown.json["content"], expected, "{given}");
    }
}

#[actix_web::test]
async fn what_can_never_be_sent_is_refused_with_its_code() {
    let api = Api::start().await;
    let channel = api.add_channel().await;
    let file = "https://x.example/a.png";
    let cases = [
        (json!({"to": "79001234567"}), "no_content: "),
        (json!({"to": "79001234567", "text": "  \n"}), "no_content: "),
        (json!({"to": "12", "text": "a"}), "bad_phone: "),
        (json!({"to": "", "text": "a"}), "bad_phone: "),
        (json!({"to": "@ada", "text": "a"}), "unsupported: "),
        (json!({"to": "79001234567,79001234568", "text": "a"}), "bad_phone: "),
        (json!({"to": "79001234567", "text": "я".repeat(4097)}), "too_long: "),
        (json!({"to": "79001234567", "files": [file], "caption": "a".repeat(1025)}), "too_long: "),
        (json!({"to": "79001234567", "files": ["ftp://x.example/a.png"]}), "file_type: "),
        (json!({"to": "79001234567", "files": [file, file]}), "unsupported: "),
        (json!({"to": "79001234567", "files": ["https://x.example/a.mp3"], "text": "a"}), "unsupported: "),
        (json!({"to": "79001234567", "template": "hello", "text": "a"}), "template: "),
        (json!({"to": "79001234567", "template": ":ru"}), "template: "),
        (json!({"to": "79001234567", "template": "a".repeat(601)}), "template: "),
        (json!({"to": "79001234567", "files": [format!("{file}?{}", "a".repeat(2048))]}), "files: "),
        (json!({"to": "79001234567", "text": "a", "fallback_template": ":"}), "fallback_template: "),
        (json!({"to": "79001234567", "text": "a", "params": ["b"]}), "params: "),
        (json!({"to": "79001234567", "text": "a", "caption": "b"}), "caption: "),
        (json!({"to": "79001234567", "text": "a", "channel": "chan_404"}), "channel: "),
        (json!({"to": "79001234567", "text": "a", "channel": ""}), "channel: "),
    ];
    for (mut body, words) in cases {
        if body.get("channel").is_none() {
            body["channel"] = json!(channel);
        }
        let answer = api.post("/messages", &body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{words}: {}", answer.json);
        assert!(answer.text("/detail").starts_with(words), "{words}: {}", answer.json);
        assert!(answer.text("/detail").len() < 400, "{words}: {}", answer.json);
    }
    for body in [json!({}), json!({"channel": channel}), json!({"channel": channel, "to": "7", "txt": "a"})] {
        assert_eq!(api.post("/messages", &body).await.status, StatusCode::BAD_REQUEST, "{body}");
    }
    assert_eq!(count(&api).await, 0);
}

#[actix_web::test]
async fn a_channel_reads_numbers_in_its_own_country() {
    let api = Api::start().await;
    let line = api.add_line("Sales").await;
    let mut new = new_channel();
    new["settings"] = json!({"country": "BY"});
    let channel = api.post(&format!("/lines/{line}/channels"), &new).await.text("/id").to_owned();
    let id = api.send_text(&channel, "8 029 123-45-67").await;
    assert_eq!(api.get(&format!("/messages/{id}")).await.text("/peer"), "375291234567");
}

#[actix_web::test]
async fn a_repeated_request_sends_nothing_again() {
    let api = Api::start().await;
    let channel = api.add_channel().await;
    let body = json!({"channel": channel, "to": "79001234567", "text": "Good day"});
    let first = post_with_key(&api, "order-7", &body).await;
    assert_eq!((first.status, first.text("/state")), (StatusCode::ACCEPTED, "queued"));
    api.call("delete", &format!("/channels/{channel}/queue")).await;
    let written_differently =
        json!({"text": "Good day", "to": "79001234567", "channel": channel, "params": [], "caption": ""});
    for again in [&body, &written_differently] {
        let answer = post_with_key(&api, "order-7", again).await;
        assert_eq!((answer.status, answer.text("/id")), (StatusCode::ACCEPTED, first.text("/id")));
        assert_eq!(answer.text("/state"), "cancelled", "as it stands now");
    }
    for (field, value) in [("text", "Good night"), ("to", "79001234568"), ("fallback_template", "hello")] {
        let mut other = body.clone();
        other[field] = json!(value);
        let answer = post_with_key(&api, "order-7", &other).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{field}");
    }
    assert_eq!(count(&api).await, 1);
    let other_key = post_with_key(&api, "order-8", &body).await;
    assert_ne!(other_key.text("/id"), first.text("/id"));
    assert_ne!(api.send_text(&channel, "79001234567").await, api.send_text(&channel, "79001234567").await);
    assert_eq!(count(&api).await, 4);
}

#[actix_web::test]
async fn requests_that_meet_become_one_message() {
    let api = Api::start().await;
    let channel = api.add_channel().await;
    let body = json!({"channel": channel, "to": "79001234567", "text": "Good day"});
    let answers = futures_util::future::join_all((0..30).map(|_| post_with_key(&api, "order-7", &body))).await;
    let ids: std::collections::BTreeSet<&str> = answers.iter().map(|answer| answer.text("/id")).collect();
    assert_eq!(ids.len(), 1);
    assert!(answers.iter().all(|answer| answer.status == StatusCode::ACCEPTED));
    assert_eq!(count(&api).await, 1);
}

#[actix_web::test]
async fn keys_are_bounded() {
    let api = Api::start().await;
    let channel = api.add_channel().await;
    let body = json!({"channel": channel, "to": "79001234567", "text": "Good day"});
    for (key, expected) in [
        ("", StatusCode::BAD_REQUEST),
        ("a b", StatusCode::BAD_REQUEST),
        (&"a".repeat(201), StatusCode::BAD_REQUEST),
        (&"a".repeat(200), StatusCode::ACCEPTED),
        ("7f1c-\"quoted\"", StatusCode::ACCEPTED),
    ] {
        assert_eq!(post_with_key(&api, key, &body).await.status, expected, "{key}");
    }
}

#[actix_web::test]
async fn a_message_tells_its_whole_story() {
    let api = Api::start().await;
    let channel = api.add_channel().await;
    let id = api.send_text(&channel, "79001234567").await;
    let message = MessageId::parse(&id).unwrap();
    let job = Job::id_of(JobKind::Send, &id);
    let attempt = |at: i64, outcome: &str, class: Option<&str>, raw: &str| Attempt {
        job: job.clone(),
        message: Some(message.clone()),
        at: Timestamp(at),
        duration: Millis(120),
        outcome: outcome.to_owned(),
        failure_class: class.map(str::to_owned),
        vendor_code: class.map_or("", |_| "131047").to_owned(),
        raw: raw.to_owned(),
    };
    let news = |state, at, failure: Option<Failure>| MessageNews {
        provider_id: Some(ProviderMessageId("wamid.TEST".to_owned())),
        failure,
        vendor_code: "131047".to_owned(),
        ..MessageNews::new(message.clone(), state, Timestamp(at))
    };
    let keep = Fate::Keep { state: crate::domain::job::JobState::Ready, due: Timestamp(START), tries: 1, reason: None };
    let right = api.right(&channel).await;
    let settle = |fate: &Fate, news: Option<MessageNews>, attempt: Attempt| {
        let (right, fate) = (right.clone(), fate.clone());
        let settlement = Settlement { job: job.clone(), right, fate, news, attempt: Some(attempt) };
        api.state.storage.settle(vec![settlement])
    };
    settle(&keep, None, attempt(START + 1, "unavailable", Some("unavailable"), "<html>")).await.unwrap();
    let accepted = news(MessageState::Accepted, START + 7, None);
    settle(&keep, Some(accepted), attempt(START + 5, "ok", None, "{}")).await.unwrap();
    let failure = Failure::with(ErrorCode::WindowClosed, "131047");
    let failed = news(MessageState::Failed, START + 9, Some(failure));
    settle(&Fate::Done, Some(failed), attempt(START + 8, "rejected", Some("rejected"), "no")).await.unwrap();
    let shown = api.get(&format!("/messages/{id}")).await;
    assert_eq!(shown.json["provider_ids"], json!(["wamid.TEST"]));
    assert_eq!((shown.text("/state"), shown.text("/error/code")), ("failed", "window_closed"));
    assert_eq!(shown.text("/error/vendor_code"), "131047");
    assert!(shown.text("/error/message").contains("24-hour") && shown.text("/error/advice").contains("template"));
    assert_eq!(shown.text("/accepted_at"), "2025-11-21T23:00:00.007Z");
    assert_eq!(shown.text("/failed_at"), "2025-11-21T23:00:00.009Z");
    let first = json!({
        "at": "2025-11-21T23:00:00.001Z",
        "duration_ms": 120,
        "outcome": "unavailable",
        "failure_class": "unavailable",
        "vendor_code": "131047",
        "raw": "<html>",
    });
    assert_eq!(shown.json["attempts"][0], first);
    let outcomes: Vec<&Value> =
        shown.json["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["outcome"]).collect();
    assert_eq!(outcomes, ["unavailable", "ok", "rejected"]);
}

#[actix_web::test]
async fn history_is_narrowed_and_paged_newest_first() {
    let api = Api::start().await;
    let channel = api.add_channel().await;
    let mut sent = Vec::new();
    for n in 0..5 {
        sent.push(api.send_text(&channel, &format!("7900123456{}", n % 2)).await);
    }
    let inbound = InboundMessage {
        provider_id: ProviderMessageId("wamid.IN".to_owned()),
        peer: "79001234560".to_owned(),
        name: "Ada".to_owned(),
        at: Timestamp(START + 60_000),
        opens_window: true,
        reply_to: None,
        content: InboundContent::Text { body: "Hello".to_owned() },
    };
    api.clock.0.store(START + 60_000, Ordering::SeqCst);
    let ingest = Ingest {
        channel: channel_id(&channel),
        messenger: Messenger::Whatsapp,
        statuses: Vec::new(),
        inbound: vec![inbound],
        phones: vec![],
        typed: vec![],
    };
    api.state.storage.ingest(ingest).await.unwrap();
    let newest_first: Vec<String> = sent.iter().rev().cloned().collect();
    let all = api.all("/messages", 2).await;
    assert_eq!(all.len(), 6);
    assert_eq!(api.all("/messages?state=queued", 2).await, newest_first);
    let received = api.get("/messages?state=received").await;
    let item = &received.json["items"][0];
    assert_eq!((&item["direction"], &item["state"]), (&json!("in"), &json!("received")));
    assert_eq!(item["content"], json!({"kind": "text", "text": "Hello"}));
    assert_eq!(item["sent_at"], "2025-11-21T23:01:00.000Z");
    for (query, expected) in [
        ("peer=79001234560", 4),
        ("peer=%2B7%20900%20123-45-60", 4),
        ("peer=+7%20900%20123-45-60", 4),
        ("peer=79001234561&state=queued", 2),
        ("peer=nobody", 0),
        ("state=failed", 0),
        ("channel=chan_404", 0),
        ("channel=&peer=&state=", 6),
    ] {
        assert_eq!(api.all(&format!("/messages?{query}"), 50).await.len(), expected, "{query}");
    }
    assert_eq!(api.all(&format!("/messages?channel={channel}"), 1).await, all);
    for query in ["state=lost", "channel=line_1", "peer=%00", &format!("peer={}", "1".repeat(401)), "cursor=line_1"] {
        assert_eq!(api.get(&format!("/messages?{query}")).await.status, StatusCode::BAD_REQUEST, "{query}");
    }
}
