//! Lines and channels.

use super::*;

#[actix_web::test]
async fn lines_are_added_and_listed_by_pages() {
    let api = Api::start().await;
    let mut added = Vec::new();
    for name in ["Sales", "  Поддержка ", "Sales"] {
        added.push(api.add_line(name).await);
    }
    assert_eq!(api.all("/lines", 1).await, added);
    assert_eq!(api.all("/lines", 2).await, added);
    let page = api.get("/lines").await;
    let unset = json!({
        "not_after_minutes": null, "supersede": false, "duplicates": "off", "duplicate_hours": 24, "quiet_hours": null,
        "time_zone": null,
    });
    let expected = json!({"id": added[1], "name": "Поддержка", "settings": unset});
    assert_eq!(page.json["items"][1], expected);
    assert_eq!(api.get(&format!("/lines/{}", added[1])).await.json, expected);
    assert_eq!(page.json["next"], Value::Null);
    let answer = api.post("/lines", &json!({"name": "я".repeat(101)})).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
}

async fn change(api: &Api, line: &str, settings: &Value) -> Answer {
    let body = json!({"settings": settings});
    api.send(Api::authorized("patch", &format!("/lines/{line}")).set_json(body)).await
}

#[actix_web::test]
async fn settings_of_a_line_are_changed_one_by_one_and_taken_back() {
    let api = Api::start().await;
    let (line, other) = (api.add_line("Sales").await, api.add_line("Support").await);
    let all = json!({
        "not_after_minutes": 90, "supersede": true, "duplicates": "hold", "duplicate_hours": 2,
        "quiet_hours": {"from": "21:00", "to": "9:00"}, "time_zone": "asia/omsk",
    });
    let changed = change(&api, &line, &all).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.json);
    let mut shown = all;
    shown["quiet_hours"]["to"] = json!("09:00");
    shown["time_zone"] = json!("Asia/Omsk");
    assert_eq!(changed.json, json!({"id": line, "name": "Sales", "settings": shown}));
    let changed =
        change(&api, &line, &json!({"duplicates": "refuse", "quiet_hours": null, "not_after_minutes": null})).await;
    shown["duplicates"] = json!("refuse");
    shown["quiet_hours"] = Value::Null;
    shown["not_after_minutes"] = Value::Null;
    assert_eq!(changed.json["settings"], shown, "what is left out stays");
    assert_eq!(api.get(&format!("/lines/{line}")).await.json["settings"], shown);
    assert_eq!(change(&api, &line, &json!({})).await.json["settings"], shown);
    assert_eq!(api.get(&format!("/lines/{other}")).await.json["settings"]["supersede"], false);
}

#[actix_web::test]
async fn settings_that_cannot_be_are_refused_in_words() {
    let api = Api::start().await;
    let line = api.add_line("Sales").await;
    let (unprocessable, bad) = (StatusCode::UNPROCESSABLE_ENTITY, StatusCode::BAD_REQUEST);
    for (settings, status, words) in [
        (json!({"not_after_minutes": 0}), unprocessable, "settings.not_after_minutes: 1 to 43200"),
        (json!({"not_after_minutes": 43201}), unprocessable, "settings.not_after_minutes"),
        (json!({"not_after_minutes": "90"}), bad, "expected i64"),
        (json!({"duplicates": "drop"}), unprocessable, "settings.duplicates: off, refuse or hold"),
        (json!({"duplicate_hours": 721}), unprocessable, "settings.duplicate_hours: 1 to 720"),
        (
            json!({"quiet_hours": {"from": "21:00", "to": "21:00"}}),
            unprocessable,
            "settings.quiet_hours: two different",
        ),
        (json!({"quiet_hours": {"from": "21", "to": "9"}}), unprocessable, "settings.quiet_hours"),
        (json!({"quiet_hours": {"from": "21:00"}}), bad, "missing field `to`"),
        (json!({"quiet_hours": {"from": "21:00", "to": "09:00", "days": 1}}), bad, "unknown field `days`"),
        (json!({"time_zone": "Omsk"}), unprocessable, "settings.time_zone"),
        (json!({"colour": "red"}), bad, "unknown field `colour`"),
        (json!(null), bad, ""),
    ] {
        let answer = change(&api, &line, &settings).await;
        assert_eq!(answer.status, status, "{settings}: {}", answer.json);
        assert!(answer.text("/detail").contains(words), "{settings}: {}", answer.json);
    }
    let named = Api::authorized("patch", &format!("/lines/{line}")).set_json(json!({"name": "x", "settings": {}}));
    assert_eq!(api.send(named).await.status, bad);
    assert_eq!(change(&api, "line_404", &json!({})).await.status, StatusCode::NOT_FOUND);
}

#[actix_web::test]
async fn a_message_follows_the_deadline_of_its_line() {
    let api = Api::start().await;
    let line = api.add_line("Sales").await;
    let channel = api.post(&format!("/lines/{line}/channels"), &new_channel()).await.text("/id").to_owned();
    change(&api, &line, &json!({"not_after_minutes": 90, "quiet_hours": {"from": "00:00", "to": "23:59"}})).await;
    let message = api.send_text(&channel, "79001234567").await;
    let job = api.state.storage.jobs_now(&[format!("send:{message}")]).await.unwrap().remove(0);
    assert_eq!(job.not_after, Some(Timestamp(START + 90 * 60_000)));
    assert_eq!((job.due, job.lane.as_str()), (Timestamp(START), "beside:79001234567"), "it waits for nothing planned");
}

#[actix_web::test]
async fn a_channel_shows_its_address_and_the_names_of_its_credentials() {
    let api = Api::start().await;
    let line = api.add_line("Sales").await;
    let mut new = new_channel();
    new["credentials"]["access_token"] = json!("  access-s3cret\n");
    new["credentials"]["waba_id"] = json!(" ");
    new["settings"] = json!({"messages_per_second": 20, "country": "kz"});
    let answer = api.post(&format!("/lines/{line}/channels"), &new).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.json);
    let id = answer.text("/id").to_owned();
    let expected = json!({
        "id": id,
        "line": line,
        "provider": "whatsapp_cloud",
        "name": "+7 495 000-00-00",
        "state": "active",
        "reason": "",
        "ramp": null,
        "webhook_url": format!("https://mostik.example/webhooks/whatsapp_cloud/{id}"),
        "credentials": ["access_token", "app_secret", "phone_number_id", "verify_token"],
        "settings": {"messages_per_second": 20.0, "country": "KZ"},
    });
    assert_eq!(answer.json, expected);
    assert_eq!(api.get("/channels").await.json["items"], json!([expected]));
    let stored = api.state.storage.find_channel(&channel_id(&id)).await.unwrap().unwrap();
    assert_eq!(stored.credential("access_token"), "access-s3cret");
    let mut shown = expected;
    shown["queue"] = json!(0);
    assert_eq!(api.get(&format!("/channels/{id}")).await.json, shown);
}

#[actix_web::test]
async fn what_cannot_become_a_channel_is_refused_in_words() {
    let api = Api::start().await;
    let path = format!("/lines/{}/channels", api.add_line("Sales").await);
    let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
    for (pointer, value, status, words) in [
        ("/provider", json!("carrier_pigeon"), unprocessable, "whatsapp_cloud"),
        ("/name", json!(""), unprocessable, "name"),
        ("/credentials/access_token", json!(""), unprocessable, "credentials.access_token: required"),
        ("/credentials/app_secret", json!("  "), unprocessable, "credentials.app_secret: required"),
        ("/credentials/app_secret", json!("app-s3cret\nx"), unprocessable, "credentials.app_secret: one line"),
        ("/credentials/app_secret", json!("a".repeat(4097)), unprocessable, "credentials.app_secret: one line"),
        ("/credentials", json!({}), unprocessable, "required"),
        ("/credentials", json!({"acess_token": "access-s3cret"}), unprocessable, "it has phone_number_id"),
        ("/credentials", json!("access-s3cret"), StatusCode::BAD_REQUEST, "expected a map"),
        ("/credentials/access_token", json!(["access-s3cret"]), StatusCode::BAD_REQUEST, "expected a string"),
        ("/settings", json!({"country": "Russia"}), unprocessable, "settings.country"),
        ("/settings", json!({"country": "ZZ"}), unprocessable, "settings.country"),
        ("/settings", json!({"messages_per_second": 0}), unprocessable, "settings.messages_per_second"),
        ("/settings", json!({"messages_per_second": -1}), unprocessable, "settings.messages_per_second"),
        ("/settings", json!({"messages_per_second": 1e6}), unprocessable, "settings.messages_per_second"),
        ("/settings", json!({"colour": "red"}), StatusCode::BAD_REQUEST, "unknown field `colour`"),
    ] {
        let mut body = new_channel();
        *body.pointer_mut(pointer).unwrap() = value;
        let answer = api.post(&path, &body).await;
        assert_eq!(answer.status, status, "{pointer}: {}", answer.json);
        assert!(answer.text("/detail").contains(words), "{pointer}: {}", answer.json);
    }
    assert_eq!(api.all("/channels", 10).await, Vec::<String>::new());
}

#[actix_web::test]
async fn a_channel_is_paused_with_a_reason_and_resumed() {
    let api = Api::start().await;
    let id = api.add_channel().await;
    let path = format!("/channels/{id}");
    let paused = api.post(&format!("{path}/pause"), &json!({"reason": " Number is being moved "})).await;
    assert_eq!((paused.status, paused.text("/state")), (StatusCode::OK, "paused"));
    assert_eq!(api.get(&path).await.text("/reason"), "Number is being moved");
    let resumed = api.call("post", &format!("{path}/resume")).await;
    assert_eq!((resumed.status, resumed.text("/state")), (StatusCode::OK, "active"));
    assert_eq!(api.get(&path).await.text("/reason"), "");
    // The reason may be left out, with or without a body.
    for request in [
        Api::authorized("post", &format!("{path}/pause")),
        Api::authorized("post", &format!("{path}/pause")).set_json(json!({})),
        Api::authorized("post", &format!("{path}/pause")).set_json(json!(null)),
        Api::authorized("post", &format!("{path}/pause")).set_json(json!({"reason": null})),
    ] {
        assert_eq!(api.send(request).await.text("/reason"), "paused by an administrator");
    }
    for (body, status) in [
        (json!({"reason": "a".repeat(201)}), StatusCode::UNPROCESSABLE_ENTITY),
        (json!({"raeson": "a"}), StatusCode::BAD_REQUEST),
        (json!([]), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(api.post(&format!("{path}/pause"), &body).await.status, status);
    }
    let text = Api::authorized("post", &format!("{path}/pause")).set_payload("because");
    assert_eq!(api.send(text).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[actix_web::test]
async fn a_cancelled_queue_never_leaves() {
    let api = Api::start().await;
    let id = api.add_channel().await;
    let mut messages = Vec::new();
    for number in ["79001234561", "79001234562", "79001234562"] {
        messages.push(api.send_text(&id, number).await);
    }
    let path = format!("/channels/{id}");
    assert_eq!(api.get(&path).await.json["queue"], 3);
    let cancelled = api.call("delete", &format!("{path}/queue")).await;
    assert_eq!((cancelled.status, cancelled.json), (StatusCode::OK, json!({"cancelled": 3})));
    assert_eq!(api.get(&path).await.json["queue"], 0);
    assert_eq!(api.call("delete", &format!("{path}/queue")).await.json, json!({"cancelled": 0}));
    for message in messages {
        let shown = api.get(&format!("/messages/{message}")).await;
        assert_eq!(shown.text("/state"), "cancelled");
        assert_eq!(shown.text("/failed_at"), "2025-11-21T23:00:00.000Z");
    }
}

#[actix_web::test]
async fn a_resumed_channel_starts_slowly_and_without_what_is_too_old() {
    let api = Api::start().await;
    let id = api.add_channel().await;
    let path = format!("/channels/{id}");
    api.call("post", &format!("{path}/pause")).await;
    let old = api.send_text(&id, "79001234561").await;
    api.clock.0.store(START + 7_200_000, Ordering::SeqCst);
    let young = api.send_text(&id, "79001234562").await;
    let resumed = api.post(&format!("{path}/resume"), &json!({"ramp": true, "drop_older_than": "1h"})).await;
    assert_eq!((resumed.status, resumed.text("/state")), (StatusCode::OK, "active"));
    let expected = json!({
        "began_at": "2025-11-22T01:00:00.000Z", "percent": 10, "next_at": "2025-11-22T01:01:00.000Z",
    });
    assert_eq!(
        (&resumed.json["cancelled"], &resumed.json["queue"], &resumed.json["ramp"]),
        (&json!(1), &json!(1), &expected)
    );
    assert_eq!(api.get(&format!("/messages/{old}")).await.text("/state"), "cancelled");
    assert_eq!(api.get(&format!("/messages/{young}")).await.text("/state"), "queued");
    api.clock.0.store(START + 7_200_000 + 150_000, Ordering::SeqCst);
    assert_eq!(api.get(&path).await.json["ramp"]["percent"], 40);
    api.clock.0.store(START + 7_200_000 + 240_000, Ordering::SeqCst);
    assert_eq!(api.get(&path).await.json["ramp"], Value::Null, "it is over");
    let slow = json!({"ramp": {"start_percent": 1, "double_every": "1h"}});
    assert_eq!(api.post(&format!("{path}/resume"), &slow).await.json["ramp"]["percent"], 1);
    assert_eq!(api.call("post", &format!("{path}/pause")).await.json["ramp"], Value::Null, "a pause ends it");
    for body in [json!({}), json!({"ramp": false}), json!(null)] {
        assert_eq!(api.post(&format!("{path}/resume"), &body).await.json["ramp"], Value::Null, "{body}");
    }
    for (body, status) in [
        (json!({"ramp": {"start_percent": 0}}), StatusCode::UNPROCESSABLE_ENTITY),
        (json!({"ramp": {"start_percent": 101}}), StatusCode::UNPROCESSABLE_ENTITY),
        (json!({"ramp": {"double_every": "1ms"}}), StatusCode::UNPROCESSABLE_ENTITY),
        (json!({"ramp": {"slowly": true}}), StatusCode::BAD_REQUEST),
        (json!({"ramp": "yes"}), StatusCode::BAD_REQUEST),
        (json!({"drop_older_than": "two hours"}), StatusCode::BAD_REQUEST),
        (json!({"drop_older_then": "2h"}), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(api.post(&format!("{path}/resume"), &body).await.status, status, "{body}");
    }
}

#[actix_web::test]
async fn only_what_is_too_old_is_withdrawn_when_an_age_is_given() {
    let api = Api::start().await;
    let id = api.add_channel().await;
    let path = format!("/channels/{id}/queue");
    let old = api.send_text(&id, "79001234561").await;
    api.clock.0.store(START + 7_200_000, Ordering::SeqCst);
    let young = api.send_text(&id, "79001234562").await;
    assert_eq!(api.call("delete", &format!("{path}?older_than=1h")).await.json, json!({"cancelled": 1}));
    assert_eq!(api.get(&format!("/messages/{old}")).await.text("/state"), "cancelled");
    assert_eq!(api.get(&format!("/messages/{young}")).await.text("/state"), "queued");
    for query in ["older_than=long", "older_than=-1h", "older_then=1h"] {
        assert_eq!(api.call("delete", &format!("{path}?{query}")).await.status, StatusCode::BAD_REQUEST, "{query}");
    }
}
