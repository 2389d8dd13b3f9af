//! `batch` (bitrix24.md §3.4).

use serde_json::json;

use crate::support::Stage;

#[tokio::test]
async fn commands_run_in_order_and_refer_to_earlier_results() {
    let stage = Stage::installed().await;
    let contact = stage.portal.add_contact("Ada", "Byron", "+4915112345678").unwrap();
    let deal = stage.portal.add_deal("First", contact).unwrap();
    // Written as text: the order of the keys matters, and `json!` sorts them.
    let commands = [
        ("zdeal", format!("crm.deal.get?id={deal}")),
        ("acontact", "crm.contact.get?id=$result[zdeal][CONTACT_ID]".into()),
        ("found", "crm.duplicate.findbycomm?type=PHONE&values%5B%5D=$result[acontact][PHONE][0][VALUE]".into()),
        (
            "note",
            format!(
                "crm.timeline.comment.add?fields%5BENTITY_ID%5D={deal}&fields%5BENTITY_TYPE%5D=deal&fields%5BCOMMENT%5D=%24result%5Bacontact%5D%5BNAME%5D+%D0%B8+%26"
            ),
        ),
        ("list", "crm.item.list?entityTypeId=2&start=0".into()),
        ("bad", "crm.deal.get?id=999".into()),
        ("worse", "no.such?x=1".into()),
    ];
    let body = commands.map(|(key, command)| format!("{}:{}", json!(key), json!(command))).join(",");
    let url = format!("{}batch", stage.portal.client_endpoint());
    let request =
        stage.http.post(url).bearer_auth(stage.tokens().access_token).header("content-type", "application/json");
    let answer = request.body(format!("{{\"halt\":0,\"cmd\":{{{body}}}}}")).send().await.unwrap();
    let result = answer.json::<serde_json::Value>().await.unwrap()["result"].clone();
    assert_eq!(result["result"]["acontact"]["NAME"], "Ada");
    assert_eq!(result["result"]["found"], json!({"CONTACT": [contact]}));
    assert_eq!(result["result_total"], json!({"list": 1}));
    assert_eq!(result["result_next"], json!([]));
    assert_eq!(result["result_error"]["bad"], json!({"error": "", "error_description": "Not found"}));
    assert_eq!(result["result_error"]["worse"]["error"], "ERROR_METHOD_NOT_FOUND");
    assert_eq!(result["result_time"].as_object().unwrap().len(), 5);
    assert_eq!(stage.portal.timeline(2, deal)[0].text, "Ada и &");
}

#[tokio::test]
async fn whole_value_references_may_be_arrays() {
    let stage = Stage::installed().await;
    for title in ["a", "b"] {
        stage.portal.add_deal(title, 0).unwrap();
    }
    let result = stage
        .ok(
            "batch",
            json!({"cmd": {
                "k1": "crm.item.get?entityTypeId=2&id=1",
                "k2": "app.option.set?options=$result[k1][item]",
                "k3": "app.option.get",
            }}),
        )
        .await;
    assert_eq!(result["result"]["k3"]["title"], "a");
}

#[tokio::test]
async fn maps_become_arrays_for_numeric_keys_and_empty_ones_too() {
    let stage = Stage::installed().await;
    let result = stage.ok("batch", json!({"cmd": ["server.time", "profile"]})).await;
    assert!(result["result"].is_array() && result["result_time"].is_array());
    assert_eq!(result["result_error"], json!([]));
    assert!(stage.sandbox.violations().iter().any(|violation| violation.code == "batch_numeric_key"));
    let empty = stage.ok("batch", json!({"cmd": {}})).await;
    assert_eq!(empty["result"], json!([]));
}

#[tokio::test]
async fn halt_stops_at_the_first_error() {
    let stage = Stage::installed().await;
    let cmd = json!({"a": "server.time", "b": "no.such", "c": "server.time"});
    let halted = stage.ok("batch", json!({"halt": 1, "cmd": cmd})).await;
    assert_eq!(halted["result"].as_object().unwrap().len(), 1);
    let through = stage.ok("batch", json!({"halt": 0, "cmd": cmd})).await;
    assert_eq!(through["result"].as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn nesting_is_forbidden_text_is_required_and_fifty_is_the_limit() {
    let stage = Stage::installed().await;
    let mut cmd = serde_json::Map::new();
    cmd.insert("k00".into(), json!("batch?cmd[x]=profile"));
    cmd.insert("k01".into(), json!({"method": "profile"}));
    for nth in 2..53 {
        cmd.insert(format!("k{nth:02}"), json!("server.time"));
    }
    let result = stage.ok("batch", json!({"cmd": cmd})).await;
    assert_eq!(result["result_error"]["k00"]["error"], "ERROR_BATCH_METHOD_NOT_ALLOWED");
    assert!(result["result"].get("k01").is_none() && result["result_error"].get("k01").is_none());
    assert_eq!(result["result"].as_object().unwrap().len(), 48);
    for late in ["k50", "k51", "k52"] {
        assert_eq!(result["result_error"][late]["error"], "ERROR_BATCH_LENGTH_EXCEEDED", "{late}");
    }
}

#[tokio::test]
async fn form_encoded_batches_work_and_count_once_for_the_bucket() {
    let stage = Stage::installed().await;
    stage.portal.set_limits(sandbox::PortalLimits { burst: 2.0, ..sandbox::PortalLimits::default() });
    let url = format!("{}batch", stage.portal.client_endpoint());
    let token = stage.tokens().access_token;
    let form = [
        ("auth", token.as_str()),
        ("cmd[a]", "profile"),
        ("cmd[b]", "user.get?FILTER%5BID%5D=1"),
        ("cmd[c]", "server.time"),
    ];
    let answer: serde_json::Value = stage.http.post(url).form(&form).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["result"]["result"]["b"][0]["ID"], "1");
    assert_eq!(stage.rest("profile", json!({})).await.0, 200);
    assert_eq!(stage.rest("profile", json!({})).await.0, 503);
}
