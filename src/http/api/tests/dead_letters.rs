//! Dead letters.

use super::*;
use crate::domain::ids::MessageId;
use crate::domain::job::{Job, JobKind, JobState};
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::status::MessageState;
use crate::storage::messages::MessageNews;
use crate::storage::settle::{Fate, Settlement};

/// Gives up the sends of these messages in one commit, as a worker does.
async fn bury(api: &Api, channel: &str, messages: &[String]) {
    let right = api.right(channel).await;
    let settlements = messages.iter().map(|id| {
        let news = MessageNews {
            failure: Some(Failure::new(ErrorCode::Expired)),
            ..MessageNews::new(MessageId::parse(id).unwrap(), MessageState::Failed, api.clock.now())
        };
        let fate = Fate::Keep {
            state: JobState::Dead,
            due: api.clock.now(),
            tries: 3,
            reason: Some("not sent in time".to_owned()),
        };
        let right = right.clone();
        Settlement { job: Job::id_of(JobKind::Send, id), right, fate, news: Some(news), attempt: None }
    });
    api.state.storage.settle(settlements.collect()).await.unwrap();
}

async fn with_dead(count: usize) -> (Api, String, Vec<String>) {
    let api = Api::start().await;
    let channel = api.add_channel().await;
    let mut messages = Vec::new();
    for _ in 0..count {
        messages.push(api.send_text(&channel, "79001234567").await);
    }
    bury(&api, &channel, &messages).await;
    (api, channel, messages)
}

#[actix_web::test]
async fn a_dead_letter_tells_whom_it_concerns() {
    let (api, channel, messages) = with_dead(1).await;
    let list = api.get("/dead-letters").await;
    let expected = json!({
        "id": format!("send:{}", messages[0]),
        "kind": "send",
        "reason": "not sent in time",
        "reason_code": "expired",
        "explanation": {
            "ru": "Не удалось отправить вовремя, и сообщение точно не ушло. Повтор отправит его",
            "en": "It could not be sent in time and surely was not. Redriving sends it",
        },
        "died_at": "2025-11-21T23:00:00.000Z",
        "tries": 3,
        "subject": messages[0],
        "message": {
            "id": messages[0],
            "peer": "79001234567",
            "channel": channel,
            "portal": null,
            "state": "failed",
        },
    });
    assert_eq!(list.json, json!({"items": [expected], "next": null}));
    assert_eq!(api.get(&format!("/channels/{channel}")).await.json["queue"], 0);
}

#[actix_web::test]
async fn no_letter_is_lost_between_pages() {
    // All of them died in one millisecond.
    let (api, channel, mut messages) = with_dead(7).await;
    api.clock.0.store(START + 1, Ordering::SeqCst);
    let later = api.send_text(&channel, "79001234567").await;
    bury(&api, &channel, std::slice::from_ref(&later)).await;
    messages.push(later);
    let newest_first: Vec<String> = messages.iter().rev().map(|id| format!("send:{id}")).collect();
    for limit in [1, 3, 200] {
        assert_eq!(api.all("/dead-letters", limit).await, newest_first, "{limit}");
    }
}

#[actix_web::test]
async fn a_redriven_letter_waits_again_with_a_new_deadline() {
    let (api, channel, messages) = with_dead(1).await;
    let id = format!("send:{}", messages[0]);
    let path = format!("/dead-letters/{id}/redrive");
    api.clock.0.store(START + 3_600_000, Ordering::SeqCst);
    let answer = api.call("post", &path).await;
    assert_eq!((answer.status, answer.json), (StatusCode::ACCEPTED, json!({"id": id, "state": "queued"})));
    let message = api.get(&format!("/messages/{}", messages[0])).await;
    assert_eq!((message.text("/state"), &message.json["error"]), ("queued", &Value::Null));
    assert_eq!(api.get(&format!("/channels/{channel}")).await.json["queue"], 1);
    let jobs = api.state.storage.jobs_now(&[id]).await.unwrap();
    assert_eq!(jobs[0].not_after, Some(Timestamp(START + 3_600_000).plus(Millis::hours(24))));
    assert_eq!(api.call("post", &path).await.status, StatusCode::NOT_FOUND, "it lives");
    assert_eq!(api.all("/dead-letters", 10).await, Vec::<String>::new());
}

#[actix_web::test]
async fn several_are_redriven_and_the_unknown_are_named() {
    let (api, _, messages) = with_dead(3).await;
    let id = |index: usize| format!("send:{}", messages[index]);
    let body = json!({"ids": [id(0), "send:msg_404", id(2), "nonsense", id(0)]});
    let answer = api.post("/dead-letters/redrive", &body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(
        answer.json,
        json!({"redriven": [id(0), id(2)], "settled": [], "unknown": ["send:msg_404", "nonsense", id(0)]})
    );
    assert_eq!(api.all("/dead-letters", 10).await, [id(1)]);
    for (body, status) in [
        (json!({"ids": []}), StatusCode::UNPROCESSABLE_ENTITY),
        (json!({"ids": vec!["send:msg_1"; 201]}), StatusCode::UNPROCESSABLE_ENTITY),
        (json!({"ids": "send:msg_1"}), StatusCode::BAD_REQUEST),
        (json!({}), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(api.post("/dead-letters/redrive", &body).await.status, status);
    }
}

#[actix_web::test]
async fn many_are_counted_first_and_then_redriven_by_filter() {
    let (api, channel, messages) = with_dead(5).await;
    let path = "/dead-letters/redrive-matching";
    let body = json!({"kind": "send", "channel": channel, "reason": "expired", "dry_run": true});
    let counted = api.post(path, &body).await;
    let expected = json!({"dry_run": true, "matched": 5, "undecided_left_out": 0, "redriven": 0, "settled": 0});
    assert_eq!((counted.status, counted.json), (StatusCode::ACCEPTED, expected));
    assert_eq!(api.all("/dead-letters?reason=expired", 2).await.len(), 5, "counting does nothing");
    assert_eq!(api.all("/dead-letters?reason=no_answer", 2).await.len(), 0);
    assert_eq!(api.all(&format!("/dead-letters?channel={channel}&until=2025-11-21T23:00:00Z"), 2).await.len(), 0);
    let two = api.post(path, &json!({"limit": 2})).await;
    assert_eq!((&two.json["matched"], &two.json["redriven"]), (&json!(5), &json!(2)));
    let rest = api.post(path, &json!({})).await;
    assert_eq!((&rest.json["matched"], &rest.json["redriven"]), (&json!(3), &json!(3)));
    assert_eq!(api.post(path, &json!({})).await.json["matched"], 0);
    for message in messages {
        assert_eq!(api.get(&format!("/messages/{message}")).await.text("/state"), "queued");
    }
    assert_eq!(api.get(&format!("/channels/{channel}")).await.json["queue"], 5);
    for (body, status) in [
        (json!({"kind": "letter"}), StatusCode::UNPROCESSABLE_ENTITY),
        (json!({"channel": "prt_1"}), StatusCode::UNPROCESSABLE_ENTITY),
        (json!({"since": "yesterday"}), StatusCode::UNPROCESSABLE_ENTITY),
        (json!({"limit": 0}), StatusCode::UNPROCESSABLE_ENTITY),
        (json!({"limit": 10001}), StatusCode::UNPROCESSABLE_ENTITY),
        (json!({"chanel": "x"}), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(api.post(path, &body).await.status, status, "{body}");
    }
    for query in ["kind=letter", "since=yesterday", "reason=refused", "chanel=x"] {
        assert_eq!(api.get(&format!("/dead-letters?{query}")).await.status, StatusCode::BAD_REQUEST, "{query}");
    }
}
