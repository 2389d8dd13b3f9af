//! Installation, life-cycle events, events, placements, pages and frames (bitrix24.md §1, §4, §9, §10.3).

use sandbox::{AppSpec, Fault, PageRequest, Portal, entity};
use serde_json::{Value, json};

use crate::support::{SOON, Stage};

#[tokio::test]
async fn installation_is_silent_until_it_is_finished() {
    let stage = Stage::bare().await;
    let id = stage.app.client_id.clone();
    stage.portal.begin_install(&id).unwrap();
    let page = stage.portal.open_installer(&id).await.unwrap();
    assert_eq!(page.status, 200);
    let got = stage.service.on("/install").pop().unwrap();
    let names: Vec<String> = got.fields().into_iter().map(|(name, _)| name).collect();
    let expected = [
        "AUTH_ID",
        "AUTH_EXPIRES",
        "REFRESH_ID",
        "SERVER_ENDPOINT",
        "APPLICATION_TOKEN",
        "APPLICATION_SCOPE",
        "member_id",
        "status",
        "PLACEMENT",
        "PLACEMENT_OPTIONS",
    ];
    assert_eq!(names, expected);
    assert_eq!(got.field("PLACEMENT").as_deref(), Some("DEFAULT"));
    assert_eq!(got.field("PLACEMENT_OPTIONS").as_deref(), Some(r#"{"URI":"\/devops\/"}"#));
    assert_eq!(got.headers["origin"], format!("http://{}", stage.portal.domain()));
    let encoded_domain = stage.portal.domain().replace(':', "%3A");
    assert!(got.query.starts_with(&format!("DOMAIN={encoded_domain}&PROTOCOL=0&LANG=ru&APP_SID=")), "{}", got.query);
    assert!(!stage.portal.app(&id).unwrap().installed);
    assert_eq!(stage.ok("app.info", json!({})).await["INSTALLED"], false);

    // Registration is allowed before the end, but nothing is delivered.
    stage.ok("event.bind", json!({"event": "onCrmDealAdd", "handler": stage.service.url("/deal")})).await;
    stage.portal.add_deal("before", 0).unwrap();
    stage.sandbox.settled(SOON).await.unwrap();
    assert!(stage.service.on("/deal").is_empty() && stage.service.on("/events").is_empty());

    assert!(stage.portal.finish_install(&id).unwrap());
    assert!(!stage.portal.finish_install(&id).unwrap());
    stage.portal.add_deal("after", 0).unwrap();
    stage.sandbox.settled(SOON).await.unwrap();
    assert_eq!(stage.service.on("/deal").len(), 1);
    let install = stage.service.events("ONAPPINSTALL");
    assert_eq!(install.len(), 1);
    let names: Vec<String> = install[0].fields().into_iter().map(|(name, _)| name).collect();
    let expected = [
        "event",
        "event_handler_id",
        "data[VERSION]",
        "data[ACTIVE]",
        "data[INSTALLED]",
        "data[LANGUAGE_ID]",
        "ts",
        "auth[access_token]",
        "auth[expires]",
        "auth[expires_in]",
        "auth[scope]",
        "auth[domain]",
        "auth[server_endpoint]",
        "auth[status]",
        "auth[client_endpoint]",
        "auth[member_id]",
        "auth[user_id]",
        "auth[refresh_token]",
        "auth[application_token]",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn old_portals_send_the_shorter_form() {
    let stage = Stage::bare().await;
    stage.portal.set_switches(|switches| switches.old_pages = true);
    stage.portal.begin_install(&stage.app.client_id).unwrap();
    stage.portal.open_installer(&stage.app.client_id).await.unwrap();
    let names: Vec<String> = stage.service.on("/install")[0].fields().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["AUTH_ID", "AUTH_EXPIRES", "REFRESH_ID", "member_id", "status", "PLACEMENT"]);
}

#[tokio::test]
async fn an_application_without_pages_is_installed_by_event() {
    let stage = Stage::bare().await;
    let app = stage.sandbox.add_app(AppSpec {
        ui: false,
        installer_url: Some(stage.service.url("/silent")),
        ..AppSpec::default()
    });
    stage.portal.begin_install(&app.client_id).unwrap();
    stage.sandbox.settled(SOON).await.unwrap();
    let got = stage.service.on("/silent").pop().unwrap();
    assert_eq!(got.field("event").as_deref(), Some("ONAPPINSTALL"));
    assert!(got.field("auth[refresh_token]").is_some());
}

#[tokio::test]
async fn an_update_removes_robots_and_tells() {
    let stage = Stage::installed().await;
    stage.with_robot(json!({})).await;
    let id = stage.app.client_id.clone();
    for event in ["ONAPPINSTALL", "ONAPPUPDATE"] {
        stage.ok("event.bind", json!({"event": event, "handler": stage.service.url("/bound")})).await;
    }
    stage.ok("placement.bind", json!({"PLACEMENT": "CRM_DEAL_DETAIL_TAB", "HANDLER": stage.service.url("/tab")})).await;
    stage.portal.update_app(&id, 2).unwrap();
    stage.sandbox.settled(SOON).await.unwrap();
    let updates = stage.service.events("ONAPPUPDATE");
    assert_eq!(updates.len(), 2, "card handler and bound handler");
    assert_eq!(updates[0].field("data[PREVIOUS_VERSION]").as_deref(), Some("1"));
    assert!(updates[0].field("auth[refresh_token]").is_some());
    let app = stage.portal.app(&id).unwrap();
    assert!(app.robots.is_empty() && app.placements.is_empty());
    assert_eq!(app.event_handlers, [("ONAPPUPDATE".to_owned(), stage.service.url("/bound"))]);
}

#[tokio::test]
async fn an_uninstall_says_farewell_without_tokens() {
    let stage = Stage::installed().await;
    let token = stage.portal.app(&stage.app.client_id).unwrap().application_token;
    stage.portal.uninstall(&stage.app.client_id, true).unwrap();
    stage.sandbox.settled(SOON).await.unwrap();
    let got = stage.service.events("ONAPPUNINSTALL").pop().unwrap();
    assert_eq!(got.field("data[CLEAN]").as_deref(), Some("1"));
    let auth: Vec<String> =
        got.fields().into_iter().map(|(name, _)| name).filter(|name| name.starts_with("auth")).collect();
    assert_eq!(
        auth,
        [
            "auth[domain]",
            "auth[client_endpoint]",
            "auth[server_endpoint]",
            "auth[member_id]",
            "auth[application_token]"
        ]
    );
    assert_eq!(got.field("auth[application_token]"), Some(token.clone()));
    stage.portal.install(&stage.app.client_id).await.unwrap();
    assert_ne!(stage.portal.app(&stage.app.client_id).unwrap().application_token, token);
}

#[tokio::test]
async fn binding_has_its_rules() {
    let stage = Stage::installed().await;
    let url = stage.service.url("/e");
    let bind = |params: Value| stage.refused("event.bind", params);
    assert_eq!(bind(json!({"event": "ONNOTHING", "handler": url})).await.1, "ERROR_EVENT_NOT_FOUND");
    assert_eq!(bind(json!({"handler": url})).await.1, "ERROR_ARGUMENT");
    assert_eq!(bind(json!({"event": "ONAPPTEST", "handler": "http://localhost/"})).await.1, "ERROR_WRONG_HANDLER_URL");
    stage.ok("event.bind", json!({"EVENT": "onAppTest", "HANDLER": url, "auth_type": 1})).await;
    assert_eq!(bind(json!({"event": "ONAPPTEST", "handler": url, "auth_type": 1})).await, (400, "ERROR_CORE".into()));
    let get = stage.ok("event.get", json!({})).await;
    assert_eq!(get, json!([{"event": "ONAPPTEST", "handler": url, "auth_type": "1", "offline": 0}]));
    assert_eq!(stage.ok("event.test", json!({"any": "thing"})).await, json!(1));
    stage.sandbox.settled(SOON).await.unwrap();
    assert_eq!(stage.service.events("ONAPPTEST")[0].field("data[QUERY][any]").as_deref(), Some("thing"));
    assert_eq!(stage.ok("event.unbind", json!({"event": "ONAPPTEST", "handler": url})).await, json!({"count": 1}));
    let user = stage.portal.add_user(sandbox::UserSpec::default());
    let own = stage.portal.issue_tokens(&stage.app.client_id, user).unwrap().access_token;
    let (status, _) =
        stage.rest_as(&own, "event.bind", json!({"event": "ONAPPTEST", "handler": url, "auth_type": 1})).await;
    assert_eq!(status, 403);

    let place = |params: Value| stage.refused("placement.bind", params);
    assert_eq!(place(json!({"PLACEMENT": "SETTING_CONNECTOR", "HANDLER": url})).await.1, "ERROR_PLACEMENT_NOT_FOUND");
    assert_eq!(place(json!({"PLACEMENT": "CRM_DEAL_DETAIL_TAB"})).await.1, "EMPTY_ERROR_HANDLER_URL");
    stage.ok("placement.bind", json!({"PLACEMENT": "CRM_DEAL_DETAIL_TAB", "HANDLER": url, "TITLE": "WhatsApp"})).await;
    assert_eq!(place(json!({"PLACEMENT": "CRM_DEAL_DETAIL_TAB", "HANDLER": url})).await.1, "ERROR_CORE");
    assert_eq!(stage.ok("placement.get", json!({})).await[0]["title"], "WhatsApp");
    let unbound = stage.ok("placement.unbind", json!({"PLACEMENT": "CRM_DEAL_DETAIL_TAB"})).await;
    assert_eq!(unbound["count"], 2, "each row is counted twice");
}

#[tokio::test]
async fn events_are_deduplicated_carry_no_refresh_token_and_lose_hops() {
    let stage = Stage::installed().await;
    stage.ok("event.bind", json!({"event": "ONCRMDEALUPDATE", "handler": stage.service.url("/u")})).await;
    let deal = stage.portal.add_deal("x", 0).unwrap();
    let update = |nth: i64| format!("crm.item.update?entityTypeId=2&id={deal}&fields%5Btitle%5D=t{nth}");
    stage.ok("batch", json!({"cmd": {"a": update(1), "b": update(2)}})).await;
    stage.sandbox.settled(SOON).await.unwrap();
    let got = stage.service.on("/u");
    assert_eq!(got.len(), 1, "identical events of one hit are one");
    assert_eq!(got[0].field("data[FIELDS][ID]"), Some(deal.to_string()));
    assert_eq!(got[0].field("auth[refresh_token]"), None);
    assert_eq!(got[0].field("auth[user_id]").as_deref(), Some("1"));

    let mut token = got[0].field("auth[access_token]").unwrap();
    let mut hops = 0;
    loop {
        stage.service.clear();
        let fields = json!({"entityTypeId": 2, "id": deal, "fields": {"title": "again"}});
        assert_eq!(stage.rest_as(&token, "crm.item.update", fields).await.0, 200);
        stage.sandbox.settled(SOON).await.unwrap();
        let Some(next) = stage.service.on("/u").pop() else { break };
        token = next.field("auth[access_token]").unwrap();
        hops += 1;
    }
    assert_eq!(hops, 7);

    stage.service.clear();
    stage.sandbox.add_fault(Fault::new("event.ONCRMDEALUPDATE", sandbox::Action::WithoutAuth));
    stage.portal.move_item(entity::DEAL, deal, "WON").unwrap();
    stage.sandbox.settled(SOON).await.unwrap();
    let got = stage.service.on("/u").pop().unwrap();
    assert_eq!(got.field("auth[access_token]"), None);
    assert!(got.field("auth[application_token]").is_some());
}

#[tokio::test]
async fn placements_open_with_their_options() {
    let stage = Stage::installed().await;
    stage
        .ok("placement.bind", json!({"PLACEMENT": "CRM_DEAL_DETAIL_TAB", "HANDLER": stage.service.url("/tab?x=1")}))
        .await;
    let request = PageRequest {
        client_id: stage.app.client_id.clone(),
        place: "CRM_DEAL_DETAIL_TAB".into(),
        options: json!({"ID": "134"}),
        ..PageRequest::default()
    };
    let page = stage.portal.open_page(&request).await.unwrap();
    assert_eq!(page.status, 200);
    let got = stage.service.on("/tab").pop().unwrap();
    assert!(got.query.starts_with("x=1&DOMAIN="));
    assert_eq!(got.field("PLACEMENT_OPTIONS").as_deref(), Some(r#"{"ID":"134"}"#));
    assert_eq!(stage.rest_as(&page.access_token, "profile", json!({})).await.0, 200);
}

async fn frame_call(stage: &Stage, portal: &Portal, sid: &str, message: Value) -> (u16, Value) {
    let url = format!("http://{}/frame/call", portal.domain());
    let answer = stage.http.post(url).json(&json!({"sid": sid, "message": message})).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

#[tokio::test]
async fn a_browser_can_install_through_the_frame_host() {
    let stage = Stage::bare().await;
    stage.portal.begin_install(&stage.app.client_id).unwrap();
    let url = stage.portal.frame_url(&stage.app.client_id, "DEFAULT");
    let html = stage.http.get(&url).send().await.unwrap().text().await.unwrap();
    assert!(html.contains(&stage.service.url("/install").replace('&', "&amp;")), "the installer is opened");
    let sid = html.split("const sid = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert!(html.contains(&format!("{}|0|{sid}", stage.portal.domain())));

    let (status, answer) = frame_call(&stage, &stage.portal, &sid, json!(format!("getInitData:cb1:{sid}"))).await;
    assert_eq!((status, &answer["callback"]), (200, &json!("cb1")));
    let data = &answer["reply"];
    assert_eq!(
        (&data["INSTALL"], &data["IS_ADMIN"], &data["PLACEMENT"]),
        (&json!(true), &json!(true), &json!("DEFAULT"))
    );
    assert_eq!(
        (&data["DOMAIN"], &data["PROTOCOL"], &data["AUTH_EXPIRES"]),
        (&json!(stage.portal.domain()), &json!("0"), &json!("3600"))
    );
    let token = data["AUTH_ID"].as_str().unwrap();
    assert_eq!(stage.rest_as(token, "profile", json!({})).await.0, 200);
    let (_, answer) = frame_call(&stage, &stage.portal, &sid, json!(format!("refreshAuth:cb2:{sid}"))).await;
    assert!(answer["reply"]["REFRESH_ID"].is_string());
    let (_, answer) = frame_call(
        &stage,
        &stage.portal,
        &sid,
        json!(format!("resizeWindow:{{\"width\":\"100%\",\"height\":500}}:{sid}")),
    )
    .await;
    assert_eq!(answer["resize"]["height"], 500);
    assert_eq!(frame_call(&stage, &stage.portal, &sid, json!("getInitData:cb1:other")).await.0, 403);

    let (_, answer) = frame_call(&stage, &stage.portal, &sid, json!(format!("setInstallFinish:{sid}"))).await;
    assert_eq!(answer["reload"], true);
    assert!(stage.portal.app(&stage.app.client_id).unwrap().installed);
    stage.sandbox.settled(SOON).await.unwrap();
    assert_eq!(stage.service.events("ONAPPINSTALL").len(), 1);
    let html = stage.http.get(&url).send().await.unwrap().text().await.unwrap();
    assert!(html.contains(&stage.service.url("/app")), "now the application is opened");
}
