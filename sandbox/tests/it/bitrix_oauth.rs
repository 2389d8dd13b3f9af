//! OAuth: rotation, refusals, identity (bitrix24.md §1.6, §2).

use serde_json::{Value, json};

use crate::support::Stage;

async fn refresh(stage: &Stage, token: &str) -> (u16, Value) {
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", &stage.app.client_id),
        ("client_secret", &stage.app.client_secret),
        ("refresh_token", token),
    ];
    post(stage, &form).await
}

async fn post(stage: &Stage, form: &[(&str, &str)]) -> (u16, Value) {
    let url = format!("{}/oauth/token/", stage.sandbox.addresses().oauth);
    let answer = stage.http.post(url).form(form).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn refresh_rotates_both_tokens_and_refuses_the_used_one() {
    let stage = Stage::installed().await;
    let first = stage.tokens();
    let (status, second) = refresh(&stage, &first.refresh_token).await;
    assert_eq!(status, 200);
    let keys: Vec<&String> = second.as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 11);
    assert_ne!(second["access_token"], json!(first.access_token));
    assert_ne!(second["refresh_token"], json!(first.refresh_token));
    assert_eq!(second["expires_in"], 3600);
    let oauth_host = stage.sandbox.addresses().oauth.replace("http://", "");
    assert_eq!(second["domain"], json!(oauth_host), "the host is the OAuth server's");
    assert_eq!(second["client_endpoint"], json!(stage.portal.client_endpoint()));
    assert_eq!(second["member_id"], json!(stage.portal.member_id()));

    let (status, body) = refresh(&stage, &first.refresh_token).await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_grant")));
    let fresh = second["access_token"].as_str().unwrap();
    assert_eq!(stage.rest_as(fresh, "profile", json!({})).await.0, 200);
    assert_eq!(stage.rest_as(&first.access_token, "profile", json!({})).await.0, 200);
}

#[tokio::test]
async fn a_grace_period_can_keep_the_used_token_alive() {
    let stage = Stage::installed().await;
    stage.sandbox.set_oauth(|oauth| oauth.grace_ms = 60_000);
    let first = stage.tokens();
    assert_eq!(refresh(&stage, &first.refresh_token).await.0, 200);
    assert_eq!(refresh(&stage, &first.refresh_token).await.0, 200);
    stage.sandbox.advance(std::time::Duration::from_secs(61));
    assert_eq!(refresh(&stage, &first.refresh_token).await.1["error"], "invalid_grant");
}

#[tokio::test]
async fn refusals_follow_the_table() {
    let stage = Stage::installed().await;
    let (id, secret) = (stage.app.client_id.as_str(), stage.app.client_secret.as_str());
    let check = async |form: &[(&str, &str)], status: u16, error: &str| {
        let (got, body) = post(&stage, form).await;
        assert_eq!((got, body["error"].as_str().unwrap()), (status, error), "{form:?}");
    };
    check(
        &[
            ("grant_type", "refresh_token"),
            ("client_id", "local.nobody"),
            ("client_secret", "x"),
            ("refresh_token", "y"),
        ],
        200,
        "wrong_client",
    )
    .await;
    check(
        &[("grant_type", "refresh_token"), ("client_id", id), ("client_secret", "x"), ("refresh_token", "y")],
        400,
        "invalid_client",
    )
    .await;
    check(
        &[("grant_type", "refresh_token"), ("client_id", id), ("client_secret", secret), ("refresh_token", "y")],
        400,
        "invalid_grant",
    )
    .await;
    check(&[("grant_type", "refresh_token"), ("client_id", id), ("client_secret", secret)], 400, "invalid_request")
        .await;
    check(&[("client_id", id)], 400, "invalid_request").await;

    let pair = stage.tokens();
    stage.portal.set_payment_expired(id, true).unwrap();
    assert_eq!(
        refresh(&stage, &pair.refresh_token).await,
        (401, json!({"error": "PAYMENT_REQUIRED", "error_description": "Payment required"}))
    );
    stage.portal.set_payment_expired(id, false).unwrap();
    stage.portal.uninstall(id, true).unwrap();
    let (status, body) = refresh(&stage, &pair.refresh_token).await;
    assert_eq!((status, &body["error"]), (401, &json!("NOT_INSTALLED")));
    stage.sandbox.remove_app(id);
    let (status, body) = refresh(&stage, &pair.refresh_token).await;
    assert_eq!((status, &body["error"]), (200, &json!("wrong_client")));
}

#[tokio::test]
async fn a_token_of_another_client_is_refused_and_keeps_working_for_its_own() {
    let stage = Stage::installed().await;
    let other = stage.sandbox.add_app(sandbox::AppSpec::default());
    let pair = stage.tokens();
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", other.client_id.as_str()),
        ("client_secret", other.client_secret.as_str()),
        ("refresh_token", pair.refresh_token.as_str()),
    ];
    assert_eq!(post(&stage, &form).await.1["error"], "invalid_grant");
    assert_eq!(refresh(&stage, &pair.refresh_token).await.0, 200);
}

#[tokio::test]
async fn codes_work_once_and_for_thirty_seconds_and_get_is_answered_too() {
    let stage = Stage::installed().await;
    let code = stage.portal.issue_code(&stage.app.client_id, 1).unwrap();
    let url = format!(
        "{}/oauth/token/?grant_type=authorization_code&client_id={}&client_secret={}&code={code}",
        stage.sandbox.addresses().oauth,
        stage.app.client_id,
        stage.app.client_secret
    );
    let first: Value = stage.http.get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(first["user_id"], 1);
    let again: Value = stage.http.get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(again["error"], "invalid_grant");
    assert!(stage.sandbox.violations().iter().any(|violation| violation.code == "secret_in_url"));

    let late = stage.portal.issue_code(&stage.app.client_id, 1).unwrap();
    stage.sandbox.advance(std::time::Duration::from_secs(31));
    let url = url.replace(&code, &late);
    let late: Value = stage.http.get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(late["error"], "invalid_grant");
}

#[tokio::test]
async fn access_tokens_expire_on_the_clock() {
    let stage = Stage::installed().await;
    stage.sandbox.set_oauth(|oauth| oauth.access_life_s = 2);
    let pair = stage.tokens();
    assert_eq!(stage.rest_as(&pair.access_token, "profile", json!({})).await.0, 200);
    stage.sandbox.advance(std::time::Duration::from_secs(3));
    let (status, body) = stage.rest_as(&pair.access_token, "profile", json!({})).await;
    assert_eq!((status, &body["error"]), (401, &json!("expired_token")));
    assert_eq!(refresh(&stage, &pair.refresh_token).await.0, 200);
    stage.sandbox.advance(std::time::Duration::from_secs(181 * 86_400));
    let late = stage.tokens();
    stage.portal.kill_refresh_tokens();
    assert_eq!(refresh(&stage, &late.refresh_token).await.1["error"], "invalid_grant");
}

#[tokio::test]
async fn app_info_tells_who_a_token_belongs_to() {
    let stage = Stage::installed().await;
    let pair = stage.tokens();
    let url = format!("{}app.info", stage.sandbox.addresses().server_endpoint);
    let answer: Value =
        stage.http.post(&url).form(&[("auth", &pair.access_token)]).send().await.unwrap().json().await.unwrap();
    let result = &answer["result"];
    assert_eq!(result["client_id"], json!(stage.app.client_id));
    assert_eq!(result["user_id"], 1);
    assert_eq!(result["install"]["member_id"], json!(stage.portal.member_id()));
    assert_eq!(result["install"]["domain"], json!(stage.portal.domain()));
    assert_eq!(result["install"]["uri"], json!(format!("http://{}", stage.portal.domain())));
    assert_eq!(result["install"]["client_endpoint"], json!(stage.portal.client_endpoint()));
    assert_eq!(result["install"]["installed"], true);
    assert_eq!(result["install"]["member_type"], "B24");
    let answer = stage.http.get(&url).bearer_auth("0123456789abcdef0123456789").send().await.unwrap();
    assert_eq!(answer.status(), 401);
}

#[tokio::test]
async fn the_authorize_page_leads_back_with_a_code() {
    let stage = Stage::installed().await;
    let url = format!("http://{}/oauth/authorize/?client_id={}&state=s1", stage.portal.domain(), stage.app.client_id);
    let answer = stage.http.get(url).send().await.unwrap();
    assert_eq!(answer.status(), 302);
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    assert!(location.starts_with(&stage.app.application_url), "{location}");
    assert!(location.contains("state=s1") && location.contains("code="));
}
