//! REST conventions, authorization errors, limits, renames (bitrix24.md §2.5, §2.6, §3).

use std::{collections::HashMap, time::Duration};

use sandbox::{MethodConfirm, OperatingLimit, PortalLimits, UserSpec};
use serde_json::{Value, json};

use crate::support::Stage;

#[tokio::test]
async fn tokens_travel_in_three_ways_and_input_in_three_forms() {
    let stage = Stage::installed().await;
    let token = stage.tokens().access_token;
    let url = format!("{}profile", stage.portal.client_endpoint());
    let id = |body: Value| body["result"]["ID"].clone();
    let json_body = stage.http.post(&url).json(&json!({"auth": token})).send().await.unwrap();
    assert_eq!(id(json_body.json().await.unwrap()), json!("1"));
    let form = stage.http.post(format!("{url}.json")).form(&[("access_token", &token)]).send().await.unwrap();
    assert_eq!(id(form.json().await.unwrap()), json!("1"));
    let query = stage.http.get(format!("{url}?auth={token}")).send().await.unwrap();
    assert_eq!(id(query.json().await.unwrap()), json!("1"));
    assert!(stage.sandbox.violations().iter().any(|violation| violation.code == "token_in_url"));
    let bearer = stage.http.get(&url).bearer_auth(&token).send().await.unwrap();
    let body: Value = bearer.json().await.unwrap();
    assert_eq!(body["result"]["ADMIN"], true);
    for key in ["start", "finish", "duration", "processing", "date_start", "date_finish"] {
        assert!(!body["time"][key].is_null(), "{key}");
    }
}

#[tokio::test]
async fn authorization_errors_have_their_codes() {
    let stage = Stage::installed().await;
    let pair = stage.tokens();
    let (id, token) = (stage.app.client_id.clone(), pair.access_token.clone());
    let check = async |token: &str, status: u16, code: &str| {
        let (got, body) = stage.rest_as(token, "profile", json!({})).await;
        assert_eq!((got, body["error"].as_str().unwrap_or("none")), (status, code));
    };
    check("?", 401, "NO_AUTH_FOUND").await;
    check("0123456789abcdef0123456789abcdef", 401, "invalid_token").await;

    let user = stage.portal.add_user(UserSpec::default());
    let own = stage.portal.issue_tokens(&id, user).unwrap().access_token;
    stage.portal.set_app_access(&id, Some(vec![1])).unwrap();
    check(&own, 403, "user_access_error").await;
    stage.portal.set_app_access(&id, None).unwrap();
    stage.portal.set_fired(user, true).unwrap();
    check(&own, 401, "authorization_error").await;

    stage.portal.set_switches(|switches| switches.overloaded = true);
    check(&token, 503, "OVERLOAD_LIMIT").await;
    stage.portal.set_switches(|switches| (switches.overloaded, switches.connection_error) = (false, true));
    check(&token, 401, "CONNECTION_ERROR").await;
    stage.portal.set_switches(|switches| (switches.connection_error, switches.rest_available) = (false, false));
    check(&token, 401, "ACCESS_DENIED").await;
    stage.portal.set_switches(|switches| switches.rest_available = true);
    stage.portal.set_payment_expired(&id, true).unwrap();
    check(&token, 401, "PAYMENT_REQUIRED").await;
    stage.portal.set_payment_expired(&id, false).unwrap();
    stage.portal.uninstall(&id, false).unwrap();
    check(&token, 401, "APPLICATION_NOT_FOUND").await;
    stage.portal.begin_install(&id).unwrap();
    check(&token, 401, "APPLICATION_NOT_FOUND").await;
}

#[tokio::test]
async fn a_token_of_one_portal_is_nothing_on_another() {
    let stage = Stage::installed().await;
    let other = stage.sandbox.add_portal(sandbox::PortalSpec::default()).await.unwrap();
    let url = format!("{}profile", other.client_endpoint());
    let answer = stage.http.post(url).bearer_auth(stage.tokens().access_token).send().await.unwrap();
    assert_eq!(answer.status(), 401);
}

#[tokio::test]
async fn methods_need_their_scope_their_plan_and_sometimes_an_administrator() {
    let stage = Stage::installed().await;
    assert_eq!(stage.refused("no.such.method", json!({})).await, (404, "ERROR_METHOD_NOT_FOUND".into()));
    stage.portal.set_switches(|switches| switches.robots_available = false);
    assert_eq!(stage.refused("bizproc.robot.list", json!({})).await, (404, "ERROR_METHOD_NOT_FOUND".into()));
    let probe = stage.ok("method.get", json!({"name": "bizproc.robot.add"})).await;
    assert_eq!(probe, json!({"isExisting": false, "isAvailable": false}));
    stage.portal.set_switches(|switches| switches.robots_available = true);

    let user = stage.portal.add_user(UserSpec::default());
    let own = stage.portal.issue_tokens(&stage.app.client_id, user).unwrap().access_token;
    let (status, body) = stage.rest_as(&own, "bizproc.robot.list", json!({})).await;
    assert_eq!((status, &body["error"]), (403, &json!("ACCESS_DENIED")));

    stage.portal.set_scopes(&stage.app.client_id, &["crm"]).unwrap();
    assert_eq!(stage.refused("bizproc.robot.list", json!({})).await, (401, "insufficient_scope".into()));
    assert_eq!(stage.ok("scope", json!({})).await, json!(["crm"]));

    stage
        .portal
        .set_switches(|switches| switches.method_confirm = [("profile".to_owned(), MethodConfirm::Waiting)].into());
    assert_eq!(stage.refused("profile", json!({})).await, (401, "METHOD_CONFIRM_WAITING".into()));
    stage
        .portal
        .set_switches(|switches| switches.method_confirm = [("profile".to_owned(), MethodConfirm::Denied)].into());
    assert_eq!(stage.refused("profile", json!({})).await, (403, "METHOD_CONFIRM_DENIED".into()));
}

#[tokio::test]
async fn the_bucket_overflows_after_fifty_requests() {
    let stage = Stage::installed().await;
    stage.portal.set_limits(PortalLimits::default());
    let mut refused = 0;
    for _ in 0..53 {
        let (status, body) = stage.rest("server.time", json!({})).await;
        if status == 503 {
            assert_eq!(body["error"], "QUERY_LIMIT_EXCEEDED");
            refused += 1;
        }
    }
    assert!((1..=3).contains(&refused), "{refused}");
    assert_eq!(stage.sandbox.counter("rest.error.QUERY_LIMIT_EXCEEDED"), refused);
    stage.sandbox.advance(Duration::from_secs(30));
    assert_eq!(stage.rest("server.time", json!({})).await.0, 200);
}

#[tokio::test]
async fn a_method_is_blocked_when_its_time_is_used_up_and_others_go_on() {
    let stage = Stage::installed().await;
    let cost_s = HashMap::from([("profile".to_owned(), 250.0)]);
    let operating = Some(OperatingLimit { cost_s, ..OperatingLimit::default() });
    stage.portal.set_limits(PortalLimits { operating, ..PortalLimits::off() });
    let (_, first) = stage.rest("profile", json!({})).await;
    assert_eq!(first["time"]["operating"], 250.0);
    let reset = first["time"]["operating_reset_at"].as_i64().unwrap() * 1000;
    stage.ok("profile", json!({})).await;
    assert_eq!(stage.refused("profile", json!({})).await, (429, "OPERATION_TIME_LIMIT".into()));
    stage.ok("server.time", json!({})).await;
    let wait = u64::try_from(reset - stage.sandbox.now_ms()).unwrap() + 1;
    stage.sandbox.advance(Duration::from_millis(wait));
    stage.ok("profile", json!({})).await;
}

#[tokio::test]
async fn a_renamed_portal_answers_302_at_its_old_address() {
    let stage = Stage::installed().await;
    let old = stage.portal.client_endpoint();
    let token = stage.tokens().access_token;
    let domain = stage.portal.rename().await.unwrap();
    let answer =
        stage.http.post(format!("{old}profile?x=1")).bearer_auth(&token).json(&json!({})).send().await.unwrap();
    assert_eq!(answer.status(), 302);
    assert_eq!(answer.headers()["location"], format!("http://{domain}/rest/profile?x=1"));
    assert_eq!(stage.rest_as(&token, "profile", json!({})).await.0, 200);
}

#[tokio::test]
async fn maintenance_and_deletion_answer_with_pages() {
    let stage = Stage::installed().await;
    let url = format!("{}profile", stage.portal.client_endpoint());
    let get = async || {
        let answer = stage.http.post(&url).send().await.unwrap();
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (answer.status().as_u16(), kind)
    };
    let html = "text/html; charset=utf-8".to_owned();
    stage.portal.set_switches(|switches| switches.maintenance = Some(502));
    assert_eq!(get().await, (502, html.clone()));
    stage.portal.set_switches(|switches| (switches.maintenance, switches.deleted) = (None, true));
    assert_eq!(get().await, (404, html));
    stage.portal.set_switches(|switches| switches.deleted_as_json = true);
    assert_eq!(stage.refused("profile", json!({})).await, (403, "PORTAL_DELETED".into()));
}

#[tokio::test]
async fn users_and_options_are_readable() {
    let stage = Stage::installed().await;
    let user = stage.portal.add_user(UserSpec { name: "Пётр".into(), ..UserSpec::default() });
    let (_, body) = stage.rest("user.get", json!({})).await;
    assert_eq!((body["total"].as_i64(), body["result"].as_array().unwrap().len()), (Some(2), 2));
    let one = stage.ok("user.get", json!({"ID": user})).await;
    assert_eq!(one[0]["NAME"], "Пётр");
    assert!(one[0].get("EMAIL").is_none(), "user_brief has no e-mail");
    assert_eq!(stage.ok("user.admin", json!({})).await, json!(true));
    assert_eq!(stage.ok("app.option.get", json!({})).await, json!([]));
    stage.ok("app.option.set", json!({"options": {"key": "v1"}})).await;
    assert_eq!(stage.ok("app.option.get", json!({"option": "key"})).await, json!("v1"));
    let info = stage.ok("app.info", json!({})).await;
    assert_eq!((&info["INSTALLED"], &info["PAYMENT_EXPIRED"]), (&json!(true), &json!("N")));
    assert_eq!(stage.ok("feature.get", json!({"CODE": "crm_automation"})).await, json!({"value": "Y"}));
}
