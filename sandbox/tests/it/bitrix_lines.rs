//! Open lines: connectors, chats, operators (bitrix24.md §5, §8.6).

use sandbox::ChatAuthor;
use serde_json::{Value, json};

use crate::support::{SOON, Stage};

fn connector(stage: &Stage, id: &str, signature: &str) -> Value {
    json!({
        "ID": id, "NAME": "Acme WhatsApp", "ICON": {"DATA_IMAGE": "data:image/svg+xml,%3Csvg%3E%3C/svg%3E"},
        "PLACEMENT_HANDLER": stage.service.url("/settings"), "NEED_SIGNATURE": signature,
    })
}

/// A line on which the connector stands, its events told to us.
async fn connected(signature: &str) -> (Stage, i64) {
    let stage = Stage::installed().await;
    let line = stage.portal.add_open_line("Sales");
    assert_eq!(stage.ok("imconnector.register", connector(&stage, "Acme_WA", signature)).await["result"], true);
    for event in ["OnImConnectorMessageAdd", "OnImConnectorStatusDelete", "OnImConnectorLineDelete"] {
        stage.ok("event.bind", json!({"event": event, "handler": stage.service.url("/chats")})).await;
    }
    let on = json!({"CONNECTOR": "acme_wa", "LINE": line, "ACTIVE": 1});
    assert_eq!(stage.ok("imconnector.activate", on).await, true);
    (stage, line)
}

fn message(id: &str, text: &str) -> Value {
    json!({"user": {"id": "u1", "name": "Ada", "phone": "+4915112345678"}, "message": {"id": id, "text": text},
        "chat": {"id": "c1"}})
}

async fn send(stage: &Stage, line: i64, messages: &[Value]) -> Value {
    let params = json!({"CONNECTOR": "acme_wa", "LINE": line, "MESSAGES": messages});
    stage.ok("imconnector.send.messages", params).await["DATA"]["RESULT"].clone()
}

#[tokio::test]
async fn registration_answers_well_and_means_it_badly() {
    let stage = Stage::installed().await;
    for (change, code) in [
        (json!({"ID": ""}), "CONNECTOR_ID_REQUIRED"),
        (json!({"ID": "a.b"}), "APPLICATION_REGISTRATION_ERROR_POINT"),
        (json!({"NAME": ""}), "NAME_REQUIRED"),
        (json!({"ICON": {"DATA_IMAGE": "icon.svg"}}), "ICON_REQUIRED"),
        (json!({"PLACEMENT_HANDLER": ""}), "NO_PLACEMENT_HANDLER"),
    ] {
        let mut params = connector(&stage, "acme_wa", "N");
        for (key, value) in change.as_object().unwrap() {
            params[key] = value.clone();
        }
        let (status, body) = stage.rest("imconnector.register", params).await;
        assert_eq!(
            (status, body["result"]["result"].clone(), body["result"]["error"].clone()),
            (200, json!(false), json!(code))
        );
    }
    assert!(stage.portal.connectors().is_empty());
    stage.ok("imconnector.register", connector(&stage, "Acme_WA", "N")).await;
    assert_eq!(stage.portal.connectors(), ["acme_wa"], "stored in lower case");
    assert_eq!(stage.ok("imconnector.list", json!({})).await["acme_wa"], "Acme WhatsApp");
}

#[tokio::test]
async fn a_connector_stands_on_a_line_until_it_is_taken_off() {
    let (stage, line) = connected("N").await;
    let place = json!({"CONNECTOR": "acme_wa", "LINE": line});
    let status = stage.ok("imconnector.status", place.clone()).await;
    assert_eq!((status["STATUS"].clone(), status["CONFIGURED"].clone()), (json!(true), json!(true)));
    stage.ok("imconnector.set.error", place.clone()).await;
    let status = stage.ok("imconnector.status", place.clone()).await;
    assert_eq!((status["STATUS"].clone(), status["ERROR"].clone()), (json!(false), json!(true)));
    let with = |active: &str| json!({"CONNECTOR": "acme_wa", "LINE": line, "ACTIVE": active});
    // "N" is not empty, so it switches on (and clears the error).
    assert_eq!(stage.ok("imconnector.activate", with("N")).await, true);
    assert!(stage.sandbox.violations().iter().any(|violation| violation.code == "active_flag"));
    assert!(!stage.portal.standing("acme_wa", line).unwrap().error);
    stage.ok("imconnector.activate", with("0")).await;
    assert!(stage.portal.standing("acme_wa", line).is_none());
    stage.sandbox.settled(SOON).await.unwrap();
    let told = stage.service.on("/chats").pop().unwrap();
    assert_eq!(told.field("data[connector]").as_deref(), Some("acme_wa"), "our own doing, in lower-case keys");
    assert_eq!(stage.ok("imconnector.status", json!({"CONNECTOR": "nobody", "LINE": line})).await["STATUS"], false);
    stage.portal.delete_open_line(line).unwrap();
    stage.sandbox.settled(SOON).await.unwrap();
    assert_eq!(stage.service.on("/chats").pop().unwrap().field("data"), Some(line.to_string()));
}

#[tokio::test]
async fn clients_messages_are_taken_one_by_one_and_as_often_as_they_come() {
    let (stage, line) = connected("N").await;
    let results = send(&stage, line, &[message("m1", "one"), message("m2", ""), message("m1", "one")]).await;
    let success: Vec<bool> = (0..3).map(|at| results[at]["SUCCESS"].as_bool().unwrap()).collect();
    assert_eq!(success, [true, false, true], "a message of its own, and no shield against doubles");
    let chats = stage.portal.chats();
    assert_eq!((chats.len(), chats[0].messages.len(), chats[0].user_phone.as_str()), (1, 2, "+4915112345678"));
    assert_eq!(results[0]["session"]["CHAT_ID"], chats[0].id.to_string());
    let history = stage.ok("imopenlines.session.history.get", json!({"CHAT_ID": chats[0].id})).await;
    let first = chats[0].messages[0].id.to_string();
    assert_eq!(history["message"][&first]["params"]["connectorMid"], json!(["m1"]));

    let call = |connector: &str, line: i64, element: Value| json!({"CONNECTOR": connector, "LINE": line, "MESSAGES": [element]});
    for (params, code) in [
        (call("Acme_WA", line, message("m3", "x")), "IMCONNECTOR_NOT_SPECIFIED_CORRECT_CONNECTOR"),
        (call("acme_wa", 99, message("m3", "x")), "NOT_ACTIVE_LINE"),
        (call("acme_wa", line, json!({"user": {"id": "u"}, "message": {"id": "m"}})), "ERROR_ARGUMENT"),
    ] {
        assert_eq!(stage.refused("imconnector.send.messages", params).await, (400, code.to_owned()));
    }
}

#[tokio::test]
async fn operators_are_told_to_the_application_and_their_first_confirmation_counts() {
    let (stage, line) = connected("Y").await;
    send(&stage, line, &[message("m1", "one")]).await;
    let chat = stage.portal.chats()[0].id;
    let id = stage.portal.operator_says(chat, 1, "Yes").unwrap();
    stage.sandbox.settled(SOON).await.unwrap();
    let told = stage.service.on("/chats").pop().unwrap();
    assert!(told.body.contains("data%5BMESSAGES%5D%5B0%5D%5Bim%5D%5Bmessage_id%5D="), "{}", told.body);
    assert_eq!(told.field("data[MESSAGES][0][chat][id]").as_deref(), Some("c1"));
    assert_eq!(told.field("data[MESSAGES][0][message][text]").as_deref(), Some("[b]Анна Петрова:[/b] [br]Yes"));
    assert!(told.field("auth[application_token]").is_some() && told.field("auth[refresh_token]").is_none());

    let confirm = |ids: Value| {
        let element = json!({"im": {"chat_id": chat, "message_id": id}, "message": {"id": ids}, "chat": {"id": "c1"}});
        json!({"CONNECTOR": "acme_wa", "LINE": line, "MESSAGES": [element]})
    };
    for ids in [json!(["out1", "out2"]), json!(["other"])] {
        assert_eq!(stage.ok("imconnector.send.status.delivery", confirm(ids)).await["SUCCESS"], true);
    }
    let message = stage.portal.chats()[0].messages.iter().find(|message| message.id == id).unwrap().clone();
    assert_eq!(
        (message.sending, message.external_ids, message.confirmed),
        (false, vec!["out1".into(), "out2".into()], 2)
    );
}

#[tokio::test]
async fn an_employees_message_comes_back_and_a_note_does_not() {
    let (stage, line) = connected("N").await;
    let mut echoed = message("m1", "typed on the phone");
    echoed["message"]["user_id"] = json!(1);
    send(&stage, line, &[echoed]).await;
    stage.sandbox.settled(SOON).await.unwrap();
    assert_eq!(stage.service.on("/chats").len(), 1, "the echo trap");
    let chat = stage.portal.chats()[0].id;
    let note = json!({"DIALOG_ID": format!("chat{chat}"), "MESSAGE": "not sent", "SYSTEM": "Y"});
    stage.ok("im.message.add", note.clone()).await;
    stage.sandbox.settled(SOON).await.unwrap();
    assert_eq!(stage.service.on("/chats").len(), 1);
    assert_eq!(stage.portal.chats()[0].messages[1].author, ChatAuthor::Note);
    stage.portal.open_chat_to_app(chat, false).unwrap();
    assert_eq!(stage.refused("im.message.add", note).await, (403, "ACCESS_ERROR".to_owned()));
}
