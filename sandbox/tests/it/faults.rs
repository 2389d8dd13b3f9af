//! Faults, as a real client sees them.

use std::time::{Duration, Instant};

use sandbox::{Action, CutFrom, Fault};
use serde_json::{Value, json};

use crate::support::{ANNA, Line, Stage};

async fn attempt(line: &Line, opaque: &str) -> Result<(u16, Value), String> {
    let url = line.url(&format!("{}/messages", line.number.id()));
    let body =
        json!({"messaging_product": "whatsapp", "to": ANNA, "text": {"body": "x"}, "biz_opaque_callback_data": opaque});
    let request = line.http.post(url).bearer_auth(line.token()).json(&body).timeout(Duration::from_millis(300));
    let answer = request.send().await.map_err(|error| format!("send: {error:?}"))?;
    let status = answer.status().as_u16();
    let text = answer.text().await.map_err(|error| format!("body after {status}: {error:?}"))?;
    Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
}

#[tokio::test]
async fn connections_are_really_cut_before_after_and_inside() {
    let line = Line::open().await;
    // A connection from the pool is cut as well as a fresh one.
    attempt(&line, "warm").await.unwrap();
    let cut = async |action: Action| {
        line.sandbox.clear_faults();
        line.sandbox.add_fault(Fault::new("graph.messages", action.clone()).times(1));
        let opaque = format!("{action:?}");
        let outcome = attempt(&line, &opaque).await;
        (outcome, line.sandbox.ledger().by_opaque(&opaque).len())
    };
    let (outcome, processed) = cut(Action::CutBefore).await;
    assert!(outcome.as_ref().is_err_and(|error| error.starts_with("send:")), "{outcome:?}");
    assert_eq!(processed, 0);
    let (outcome, processed) = cut(Action::CutAfter).await;
    assert!(outcome.as_ref().is_err_and(|error| error.starts_with("send:")), "{outcome:?}");
    assert_eq!(processed, 1);
    for at in [0, 1, 40] {
        let (outcome, processed) = cut(Action::CutAnswer { at, from: CutFrom::Body }).await;
        assert!(outcome.as_ref().is_err_and(|error| error.starts_with("body after 200")), "{at}: {outcome:?}");
        assert_eq!(processed, 1);
    }
    let (outcome, processed) = cut(Action::CutAnswer { at: 12, from: CutFrom::Answer }).await;
    assert!(outcome.as_ref().is_err_and(|error| error.starts_with("send:")), "{outcome:?}");
    assert_eq!(processed, 1);
    let started = Instant::now();
    let (outcome, processed) = cut(Action::DropAnswer { hold_ms: 60_000 }).await;
    assert!(outcome.as_ref().is_err_and(|error| error.contains("TimedOut")), "{outcome:?}");
    assert!(started.elapsed() >= Duration::from_millis(290));
    assert_eq!(processed, 1);
    assert_eq!(attempt(&line, "after").await.unwrap().0, 200, "the next connection is whole");
}

#[tokio::test]
async fn a_cut_beyond_the_answer_changes_nothing() {
    let line = Line::open().await;
    line.sandbox.add_fault(Fault::new("graph", Action::CutAnswer { at: 100_000, from: CutFrom::Answer }));
    assert_eq!(attempt(&line, "o").await.unwrap().0, 200);
}

#[tokio::test]
async fn vendor_errors_have_vendor_shapes() {
    let line = Line::open().await;
    let error = |code: &str, after: bool| Action::Error {
        code: code.into(),
        status: None,
        description: None,
        retry_after: Some(7),
        after,
    };
    line.sandbox.add_fault(Fault::new("graph.messages", error("131016", false)).times(1));
    line.sandbox.add_fault(Fault::new("graph.messages", error("130429", true)).times(1));
    line.sandbox.add_fault(Fault::new("graph.messages", Action::Html { status: 502, after: true }).times(1));
    let (status, body) = attempt(&line, "a").await.unwrap();
    assert_eq!((status, &body["error"]["code"]), (503, &json!(131_016)));
    let (status, body) = attempt(&line, "b").await.unwrap();
    assert_eq!((status, &body["error"]["code"]), (429, &json!(130_429)));
    let (status, body) = attempt(&line, "c").await.unwrap();
    assert_eq!(status, 502);
    assert!(body.as_str().unwrap().contains("502 Bad Gateway"));
    let ledger = line.sandbox.ledger();
    let done = ["a", "b", "c"].map(|opaque| ledger.by_opaque(opaque).len());
    assert_eq!(done, [0, 1, 1], "`after` means processed");
    assert!(line.sandbox.refusals().is_empty(), "faults are nobody's mistake");
    let fired: Vec<u32> = line.sandbox.faults().iter().map(|rule| rule.fired).collect();
    assert_eq!(fired, [1, 1, 1]);
}

#[tokio::test]
async fn rules_aim_at_a_portal_a_phone_or_a_text() {
    let line = Line::open().await;
    let respond = Action::Respond { status: 500, body: "{}".into(), content_type: None, after: false };
    line.sandbox.add_fault(Fault::new("graph.messages", respond.clone()).phone("79160000000"));
    line.sandbox.add_fault(Fault::new("graph.messages", respond.clone()).portal("another"));
    line.sandbox.add_fault(Fault::new("graph.messages", respond).contains("unlucky"));
    assert_eq!(attempt(&line, "fine").await.unwrap().0, 200);
    assert_eq!(attempt(&line, "unlucky").await.unwrap().0, 500);
    assert_eq!(line.send(json!({"to": "+7 916 000-00-00", "text": {"body": "x"}})).await.0, 500);
}

#[tokio::test]
async fn rest_faults_reach_single_methods_whole_batches_and_commands_inside() {
    let stage = Stage::installed().await;
    let deal = stage.portal.add_deal("x", 0).unwrap();
    let limit = Action::Error {
        code: "QUERY_LIMIT_EXCEEDED".into(),
        status: None,
        description: None,
        retry_after: None,
        after: false,
    };
    stage.sandbox.add_fault(Fault::new("rest.batch", limit).times(1));
    assert_eq!(stage.refused("batch", json!({"cmd": {"a": "profile"}})).await, (503, "QUERY_LIMIT_EXCEEDED".into()));
    let inner = Action::Error {
        code: "OWNER_NOT_FOUND".into(),
        status: None,
        description: None,
        retry_after: None,
        after: false,
    };
    stage
        .sandbox
        .add_fault(Fault::new("rest.crm.timeline.comment.add", inner).contains(format!("ENTITY_ID%5D={deal}&")));
    let add = |id: i64| {
        format!(
            "crm.timeline.comment.add?fields%5BENTITY_ID%5D={id}&fields%5BENTITY_TYPE%5D=deal&fields%5BCOMMENT%5D=x"
        )
    };
    let other = stage.portal.add_deal("y", 0).unwrap();
    let result = stage.ok("batch", json!({"cmd": {"a": add(deal), "b": add(other)}})).await;
    assert_eq!(result["result_error"]["a"]["error"], "OWNER_NOT_FOUND");
    assert_eq!(result["result"]["b"], 1);

    stage.sandbox.clear_faults();
    stage.sandbox.add_fault(Fault::new("rest", Action::ExpireToken).times(1));
    let pair = stage.tokens();
    let (status, body) = stage.rest_as(&pair.access_token, "profile", json!({})).await;
    assert_eq!((status, &body["error"]), (401, &json!("expired_token")));
    stage.sandbox.add_fault(Fault::new("rest.profile", Action::Delay { ms: 80 }));
    let started = Instant::now();
    stage.ok("profile", json!({})).await;
    assert!(started.elapsed() >= Duration::from_millis(80));
}

#[tokio::test]
async fn a_refresh_can_rotate_and_lose_its_answer() {
    let stage = Stage::installed().await;
    stage.sandbox.add_fault(Fault::new("oauth.token", Action::CutAfter).times(1));
    let pair = stage.tokens();
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", &stage.app.client_id),
        ("client_secret", &stage.app.client_secret),
        ("refresh_token", &pair.refresh_token),
    ];
    let url = format!("{}/oauth/token/", stage.sandbox.addresses().oauth);
    assert!(stage.http.post(&url).form(&form).send().await.is_err());
    let again: Value = stage.http.post(&url).form(&form).send().await.unwrap().json().await.unwrap();
    assert_eq!(again["error"], "invalid_grant");
}
