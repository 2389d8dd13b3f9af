//! Robots: registration, callback bytes, waiting and results (bitrix24.md §6).

use std::time::Duration;

use sandbox::{Automation, RobotState, SendEffect, entity};
use serde_json::{Value, json};

use crate::support::{SOON, Stage};

#[tokio::test]
async fn registration_is_checked_field_by_field() {
    let stage = Stage::installed().await;
    let good = json!({
        "CODE": "send_message", "HANDLER": stage.service.url("/robots/send_message"), "AUTH_USER_ID": 1,
        "USE_SUBSCRIPTION": "Y", "NAME": "Send",
    });
    let invalid = "ERROR_ACTIVITY_VALIDATION_FAILURE";
    let cases: Vec<(Value, &str, &str)> = vec![
        (json!({"CODE": ""}), invalid, "Empty activity code!"),
        (json!({"CODE": "плохо"}), invalid, "Wrong activity code!"),
        (json!({"NAME": ""}), invalid, "Empty activity NAME!"),
        (json!({"NAME": {"en": " "}}), invalid, "Empty activity NAME!"),
        (json!({"PROPERTIES": "x"}), invalid, "Wrong properties array!"),
        (json!({"PROPERTIES": {"1x": {"Name": "n"}}}), invalid, "Wrong property key (1x)!"),
        (json!({"PROPERTIES": {"a-b": {"Name": "n"}}}), invalid, "Wrong property key (a-b)!"),
        (json!({"PROPERTIES": {"x": {"Type": "string"}}}), invalid, "Empty property NAME (x)!"),
        (json!({"RETURN_PROPERTIES": {"x": {}}}), invalid, "Empty property NAME (x)!"),
        (json!({"PROPERTIES": {"x": {"Name": "n".repeat(70_000)}}}), invalid, "Wrong properties array!"),
        (json!({"FILTER": "x"}), invalid, "Wrong activity FILTER!"),
        (json!({"DOCUMENT_TYPE": ["crm"]}), invalid, "Wrong activity DOCUMENT_TYPE!"),
        (json!({"HANDLER": "ftp://a.b/"}), "ERROR_UNSUPPORTED_PROTOCOL", "Unsupported event handler protocol"),
        (json!({"HANDLER": "http://localhost/x"}), "ERROR_WRONG_HANDLER_URL", "Wrong handler URL"),
    ];
    for (change, code, text) in cases {
        let mut params = good.clone();
        for (key, value) in change.as_object().unwrap() {
            params[key] = value.clone();
        }
        let (status, body) = stage.rest("bizproc.robot.add", params).await;
        assert_eq!(
            (status, body["error"].as_str(), body["error_description"].as_str()),
            (400, Some(code), Some(text)),
            "{change}"
        );
    }
    assert_eq!(stage.refused("bizproc.robot.add", json!({})).await.1, invalid);
    stage.ok("bizproc.robot.add", good.clone()).await;
    assert_eq!(
        stage.refused("bizproc.robot.add", good.clone()).await,
        (400, "ERROR_ACTIVITY_ALREADY_INSTALLED".into())
    );
    assert_eq!(stage.refused("bizproc.activity.add", good.clone()).await, (400, "ERROR_ACTIVITY_ADD_FAILURE".into()));
    assert_eq!(stage.ok("bizproc.robot.list", json!({})).await, json!(["send_message"]));
    assert_eq!(stage.ok("bizproc.activity.list", json!({})).await, json!([]));
}

#[tokio::test]
async fn updates_and_deletions_find_their_robot() {
    let stage = Stage::installed().await;
    stage.with_robot(json!({"USE_PLACEMENT": "Y", "PLACEMENT_HANDLER": "https://c.example/p?code=1"})).await;
    let update = |params: Value| stage.refused("bizproc.robot.update", params);
    assert_eq!(update(json!({"CODE": "send_message", "FIELDS": {}})).await.1, "ERROR_ACTIVITY_VALIDATION_FAILURE");
    assert_eq!(update(json!({"CODE": "other", "FIELDS": {"NAME": "x"}})).await.1, "ERROR_ACTIVITY_NOT_FOUND");
    stage.ok("bizproc.robot.update", json!({"CODE": "send_message", "FIELDS": {"NAME": "New"}})).await;
    let robot = &stage.portal.robots()[0];
    assert_eq!(robot.definition["NAME"], "New");
    assert_eq!(robot.properties, ["phones", "text"]);
    let second = json!({
        "CODE": "second", "HANDLER": stage.service.url("/r"), "NAME": "n", "AUTH_USER_ID": 1, "USE_SUBSCRIPTION": "N",
        "USE_PLACEMENT": "Y", "PLACEMENT_HANDLER": "https://c.example/p?code=1",
    });
    assert_eq!(stage.refused("bizproc.robot.add", second).await, (400, "ERROR_CORE".into()));
    stage.ok("bizproc.robot.delete", json!({"CODE": "send_message"})).await;
    assert_eq!(
        stage.refused("bizproc.robot.delete", json!({"CODE": "send_message"})).await.1,
        "ERROR_ACTIVITY_NOT_FOUND"
    );
}

#[tokio::test]
async fn the_callback_is_the_documented_form_in_the_documented_order() {
    let stage = Stage::installed().await;
    stage.with_robot(json!({})).await;
    let (deal, callback) = stage.fire().await;
    assert_eq!(callback.method, "POST");
    assert_eq!(callback.headers["content-type"], "application/x-www-form-urlencoded");
    let field = |name: &str| callback.field(name).unwrap_or_default();
    let encoded = |name: &str| form_urlencoded::byte_serialize(field(name).as_bytes()).collect::<String>();
    let expected = [
        format!("workflow_id={}", field("workflow_id")),
        "code=send_message".into(),
        "document_id%5B0%5D=crm&document_id%5B1%5D=CCrmDocumentDeal".into(),
        format!("document_id%5B2%5D=DEAL_{deal}"),
        "document_type%5B0%5D=crm&document_type%5B1%5D=CCrmDocumentDeal&document_type%5B2%5D=DEAL".into(),
        format!("event_token={}", encoded("event_token")),
        "properties%5Bphones%5D%5B0%5D=%2B7+916+123-45-67".into(),
        "properties%5Btext%5D=%D0%97%D0%B0%D0%BA%D0%B0%D0%B7+%E2%84%96+1042+%D0%B3%D0%BE%D1%82%D0%BE%D0%B2%0A%D0%B6%D0%B4%D1%91%D0%BC".into(),
        "use_subscription=Y&timeout_duration=86400".into(),
        format!("ts={}", field("ts")),
        format!("auth%5Baccess_token%5D={}", field("auth[access_token]")),
        format!("auth%5Bexpires%5D={}&auth%5Bexpires_in%5D=3600", field("auth[expires]")),
        "auth%5Bscope%5D=crm%2Cbizproc%2Cplacement%2Cuser_brief%2Cimopenlines%2Cmessageservice%2Cim%2Cdisk".into(),
        format!("auth%5Bdomain%5D={}", encoded("auth[domain]")),
        format!("auth%5Bserver_endpoint%5D={}", encoded("auth[server_endpoint]")),
        "auth%5Bstatus%5D=L".into(),
        format!("auth%5Bclient_endpoint%5D={}", encoded("auth[client_endpoint]")),
        format!("auth%5Bmember_id%5D={}", stage.portal.member_id()),
        "auth%5Buser_id%5D=1".into(),
        format!("auth%5Brefresh_token%5D={}", field("auth[refresh_token]")),
        format!("auth%5Bapplication_token%5D={}", stage.portal.app(&stage.app.client_id).unwrap().application_token),
    ]
    .join("&");
    assert_eq!(callback.body, expected);
    assert_eq!(field("auth[client_endpoint]"), stage.portal.client_endpoint());
    let token = field("event_token");
    let (head, signature) = token.rsplit_once('.').unwrap();
    assert_eq!(signature.len(), 64);
    let parts: Vec<&str> = head.split('|').collect();
    assert_eq!((parts[0], parts[2].len()), (field("workflow_id").as_str(), 32));
    // Its tokens work, for AUTH_USER_ID.
    assert_eq!(stage.rest_as(&field("auth[access_token]"), "profile", json!({})).await.1["result"]["ID"], "1");
}

#[tokio::test]
async fn property_values_follow_php() {
    let stage = Stage::installed().await;
    let properties = json!({
        "flag": {"Name": "f", "Type": "bool"}, "none": {"Name": "n"}, "list": {"Name": "l", "Multiple": "Y"},
        "nothing": {"Name": "e", "Multiple": "Y"}, "pick": {"Name": "p", "Type": "select", "Default": "ch_1"},
        "raw": {"Name": "r"},
    });
    stage
        .ok(
            "bizproc.robot.add",
            json!({
                "CODE": "p", "HANDLER": stage.service.url("/p"), "NAME": "p", "AUTH_USER_ID": 0,
                "PROPERTIES": properties,
            }),
        )
        .await;
    stage.portal.add_automation(Automation {
        stage_id: "EXECUTING".into(),
        robot: "p".into(),
        properties: [
            ("flag".to_owned(), json!(true)),
            ("list".to_owned(), json!(["a", "{=Document:TITLE}"])),
            ("nothing".to_owned(), json!([])),
            ("raw".to_owned(), json!("{=Variable:X} {{y}}")),
        ]
        .into(),
        use_subscription: Some(true),
        ..Automation::default()
    });
    let deal = stage.portal.add_deal("T", 0).unwrap();
    stage.portal.move_item(entity::DEAL, deal, "EXECUTING").unwrap();
    stage.sandbox.settled(SOON).await.unwrap();
    let got = stage.service.on("/p").pop().unwrap();
    let properties: Vec<(String, String)> =
        got.fields().into_iter().filter(|(name, _)| name.starts_with("properties")).collect();
    let expected = [
        ("properties[flag]", "Y"),
        ("properties[list][0]", "a"),
        ("properties[list][1]", "T"),
        ("properties[none]", ""),
        ("properties[pick]", "ch_1"),
        ("properties[raw]", "{=Variable:X} {{y}}"),
    ];
    assert_eq!(properties, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(got.field("use_subscription").as_deref(), Some("Y"));
    assert_eq!(got.field("timeout_duration").as_deref(), Some("0"));
    // A robot of user 0 brings no tokens, but can still be recognised.
    assert_eq!(got.field("auth[access_token]"), None);
    assert_eq!(got.field("auth[refresh_token]"), None);
    assert!(got.field("auth[application_token]").is_some());
    assert!(stage.sandbox.violations().iter().any(|violation| violation.code == "robot_without_user"));
}

#[tokio::test]
async fn a_result_counts_once_and_not_too_early() {
    let stage = Stage::installed().await;
    stage.with_robot(json!({})).await;
    let (deal, callback) = stage.fire().await;
    let token = callback.field("event_token").unwrap();
    let send = async |values: Value| {
        stage
            .ok("bizproc.event.send", json!({"EVENT_TOKEN": token, "RETURN_VALUES": values, "LOG_MESSAGE": "said"}))
            .await
    };
    assert_eq!(send(json!({"status": "early"})).await, json!(true));
    let run = stage.portal.deal_run(deal).unwrap();
    assert_eq!((run.state, run.sends[0].effect), (RobotState::Waiting, SendEffect::TooEarly));
    assert_eq!(run.callback_status, Some(200));

    stage.sandbox.advance(Duration::from_millis(1_100));
    assert_eq!(send(json!({"STATUS": "Y", "Detail": "", "unknown": "x"})).await, json!(true));
    assert_eq!(send(json!({"status": "second"})).await, json!(true));
    let run = stage.portal.deal_run(deal).unwrap();
    assert_eq!(run.state, RobotState::Finished);
    assert_eq!(run.result("status").as_deref(), Some("Y"));
    assert_eq!(run.result("detail").as_deref(), Some(""));
    assert_eq!(run.results.len(), 2, "unknown keys are dropped");
    let effects: Vec<SendEffect> = run.sends.iter().map(|send| send.effect).collect();
    assert_eq!(effects, [SendEffect::TooEarly, SendEffect::Applied, SendEffect::Ignored]);

    assert_eq!(
        stage.refused("bizproc.event.send", json!({"EVENT_TOKEN": "x|y|z.0"})).await,
        (403, "ACCESS_DENIED".into())
    );
    let garbled = format!("{token}0");
    assert_eq!(stage.refused("bizproc.event.send", json!({"EVENT_TOKEN": garbled})).await.0, 403);
}

#[tokio::test]
async fn a_waiting_robot_times_out_and_later_results_are_ignored() {
    let stage = Stage::installed().await;
    stage.with_robot(json!({})).await;
    let (deal, callback) = stage.fire().await;
    let token = callback.field("event_token").unwrap();
    stage.ok("bizproc.activity.log", json!({"EVENT_TOKEN": token, "LOG_MESSAGE": "queued"})).await;
    assert_eq!(
        stage.refused("bizproc.activity.log", json!({"EVENT_TOKEN": token, "LOG_MESSAGE": ""})).await.1,
        "ERROR_EMPTY_LOG_MESSAGE"
    );
    stage.sandbox.advance(Duration::from_secs(86_401));
    stage.sandbox.until(SOON, |_| stage.portal.deal_run(deal).unwrap().state == RobotState::TimedOut).await.unwrap();
    let run = stage.portal.deal_run(deal).unwrap();
    assert_eq!(run.results["IsTimeout"], 1);
    assert_eq!(run.log, ["queued"]);
    assert_eq!(
        stage.ok("bizproc.event.send", json!({"EVENT_TOKEN": token, "RETURN_VALUES": {"status": "Y"}})).await,
        json!(true)
    );
    assert_eq!(stage.portal.deal_run(deal).unwrap().result("status"), None);
}

#[tokio::test]
async fn a_robot_that_does_not_wait_keeps_its_defaults() {
    let stage = Stage::installed().await;
    stage.with_robot(json!({"USE_SUBSCRIPTION": "N"})).await;
    let (deal, callback) = stage.fire().await;
    assert_eq!(callback.field("use_subscription").as_deref(), Some("N"));
    let token = callback.field("event_token").unwrap();
    stage.ok("bizproc.event.send", json!({"EVENT_TOKEN": token, "RETURN_VALUES": {"status": "Y"}})).await;
    let run = stage.portal.deal_run(deal).unwrap();
    assert_eq!((run.state, run.results.len()), (RobotState::NotWaiting, 0));
}

#[tokio::test]
async fn failed_callbacks_are_not_repeated_and_bulk_moves_arrive_in_parallel() {
    let stage = Stage::installed().await;
    stage.with_robot(json!({})).await;
    stage.service.answer_with(500);
    stage.service.answer_after(20);
    let deals: Vec<i64> = (0..300).map(|nth| stage.portal.add_deal(&format!("d{nth}"), 0).unwrap()).collect();
    stage.portal.move_items(entity::DEAL, &deals, "PREPARATION").unwrap();
    stage.sandbox.settled(SOON).await.unwrap();
    assert_eq!(stage.service.on("/robots/send_message").len(), 300);
    assert_eq!(stage.sandbox.counter("robot.callback"), 300);
    assert_eq!(stage.portal.deal_run(deals[7]).unwrap().callback_status, Some(500));
    let mut tokens: Vec<String> = stage.service.all().iter().map(|got| got.field("event_token").unwrap()).collect();
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 300);
}

#[tokio::test]
async fn the_queue_can_duplicate_hold_and_lose() {
    let stage = Stage::installed().await;
    stage.with_robot(json!({})).await;
    stage.sandbox.set_queue_knobs(|knobs| knobs.duplicate = 1);
    stage.fire().await;
    let twice = stage.service.on("/robots/send_message");
    assert_eq!(twice.len(), 2);
    assert_eq!(twice[0].body, twice[1].body);
    stage.service.clear();
    stage.sandbox.set_queue_knobs(|knobs| (knobs.duplicate, knobs.hold) = (0, true));
    let deal = stage.portal.add_deal("x", 0).unwrap();
    stage.portal.move_item(entity::DEAL, deal, "PREPARATION").unwrap();
    stage.sandbox.settled(SOON).await.unwrap();
    assert!(stage.service.all().is_empty());
    stage.sandbox.set_queue_knobs(|knobs| knobs.hold = false);
    stage.sandbox.settled(SOON).await.unwrap();
    assert_eq!(stage.service.all().len(), 1);
    stage.sandbox.set_queue_knobs(|knobs| knobs.lose = 1.0);
    let deal = stage.portal.add_deal("y", 0).unwrap();
    stage.portal.move_item(entity::DEAL, deal, "PREPARATION").unwrap();
    stage.sandbox.settled(SOON).await.unwrap();
    assert_eq!(stage.service.all().len(), 1);
    assert_eq!(stage.portal.deal_run(deal).unwrap().callback_status, None);
}

#[tokio::test]
async fn smart_processes_and_leads_have_their_own_documents() {
    let stage = Stage::installed().await;
    stage.with_robot(json!({})).await;
    let smart = stage.portal.add_smart_process(180, "Заявки");
    assert_eq!(smart, 180);
    for (type_id, stage_id) in [(180, "DT180_1:CLIENT"), (entity::LEAD, "IN_PROCESS")] {
        stage.portal.add_automation(Automation {
            entity_type_id: type_id,
            stage_id: stage_id.into(),
            robot: "send_message".into(),
            ..Automation::default()
        });
        let id = stage
            .portal
            .add_item(sandbox::ItemSpec {
                entity_type_id: type_id,
                title: "x".into(),
                category_id: i64::from(type_id == 180),
                ..Default::default()
            })
            .unwrap();
        stage.portal.move_item(type_id, id, stage_id).unwrap();
    }
    stage.sandbox.settled(SOON).await.unwrap();
    let mut documents: Vec<(String, String)> = stage
        .service
        .all()
        .iter()
        .map(|got| (got.field("document_id[1]").unwrap(), got.field("document_id[2]").unwrap()))
        .collect();
    documents.sort();
    let expected =
        [("Bitrix\\Crm\\Integration\\BizProc\\Document\\Dynamic", "DYNAMIC_180_1"), ("CCrmDocumentLead", "LEAD_1")];
    assert_eq!(documents, expected.map(|(class, id)| (class.to_owned(), id.to_owned())));
}
