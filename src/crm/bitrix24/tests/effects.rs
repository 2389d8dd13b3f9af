//! Comments and results: one call for many, each settled for itself, nothing written twice.

use serde_json::{Value, json};

use crate::crm::Crm;
use crate::crm::bitrix24::testing::{Answered, MemoryStore, NOW, Received, World, answer_batch};
use crate::domain::channel::Messenger;
use crate::domain::effect::{
    ActionResult, Applied, CommentEffect, CommentView, CrmEffect, CrmError, PortalTrouble, RecipientResult, ReplyEffect,
};
use crate::domain::ids::{CrmCommentId, MessageId, PortalId, ProviderMessageId, ReplyToken};
use crate::domain::language::Language;
use crate::domain::outcome::{ErrorCode, Failure, FailureClass};
use crate::domain::portal::{CardKind, CardRef, Portal};
use crate::domain::status::MessageState;
use crate::domain::time::Millis;

const DEAL: CardRef = CardRef { kind: CardKind::Deal, id: 134 };
const SHORT: &str = "VWXYZ0";

fn view() -> CommentView {
    CommentView {
        message: MessageId::new("01JABCDEFGHJKMNPQRSTVWXYZ0"),
        messenger: Some(Messenger::Whatsapp),
        channel: "Sales".to_owned(),
        peer: "79001234567".to_owned(),
        excerpt: "Hi".to_owned(),
        template: None,
        state: MessageState::Delivered,
        at: NOW,
        failure: None,
        vendor_code: String::new(),
        receipts: true,
        deed: None,
        silence: None,
        silent_for: Millis(0),
        responsible: None,
        planned: None,
    }
}

fn comment(card: CardRef, existing: Option<&str>, maybe_written: bool) -> CrmEffect {
    let existing = existing.map(|id| CrmCommentId(id.to_owned()));
    CrmEffect::Comment(Box::new(CommentEffect { card, existing, maybe_written, view: view() }))
}

fn reply(token: &str) -> CrmEffect {
    let result = ActionResult { in_time: true, ..ActionResult::default() };
    CrmEffect::Reply(Box::new(ReplyEffect { token: ReplyToken(token.to_owned()), result }))
}

fn written(id: &str) -> Result<Applied, CrmError> {
    Ok(Applied::Comment(CrmCommentId(id.to_owned())))
}

fn classes(results: &[Result<Applied, CrmError>]) -> Vec<FailureClass> {
    results.iter().map(|result| result.as_ref().unwrap_err().class).collect()
}

/// A portal that takes everything; comments get the number 901.
fn willing(method: &str, _: &Value) -> Result<Value, (&'static str, &'static str)> {
    match method {
        "crm.timeline.comment.add" => Ok(json!("901")),
        "crm.timeline.comment.list" => Ok(json!([])),
        _ => Ok(json!(true)),
    }
}

#[tokio::test]
async fn many_effects_travel_in_one_call() {
    let world = World::start(|request, _| answer_batch(request, willing)).await;
    let custom = CardRef { kind: CardKind::Custom(180), id: 5 };
    let effects = [comment(DEAL, None, false), reply("tok"), comment(custom, Some("77"), false)];
    let results = world.crm.apply(&world.portal, &effects).await;
    assert_eq!(results, [written("901"), Ok(Applied::Done), written("77")]);
    let calls = world.stub.received("/rest/batch");
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].methods(), ["crm.timeline.comment.add", "bizproc.event.send", "crm.timeline.comment.update"]);
    let add = calls[0].params(0);
    assert_eq!((&add["fields"]["ENTITY_ID"], &add["fields"]["ENTITY_TYPE"]), (&json!("134"), &json!("deal")));
    let text = add["fields"]["COMMENT"].as_str().unwrap();
    assert!(text.contains("Delivered, 14:03 21.11") && text.ends_with(&format!("№{SHORT}[/color]")), "{text}");
    assert_eq!(calls[0].params(2)["id"], json!("77"));
    assert_eq!(calls[0].body["halt"], json!(0));
}

#[tokio::test]
async fn more_than_fifty_effects_take_several_calls() {
    let world = World::start(|request, _| answer_batch(request, willing)).await;
    let effects: Vec<CrmEffect> = (0..51).map(|n| reply(&format!("tok{n}"))).collect();
    let results = world.crm.apply(&world.portal, &effects).await;
    assert!(results.iter().all(|result| *result == Ok(Applied::Done)) && results.len() == 51);
    let sizes: Vec<usize> = world.stub.received("/rest/batch").iter().map(|call| call.methods().len()).collect();
    assert_eq!(sizes, [50, 1]);
    assert_eq!(world.crm.budget(&world.portal, NOW).calls, 48.0);
    assert!(world.crm.apply(&world.portal, &[]).await.is_empty());
}

#[tokio::test]
async fn applications_in_one_portal_share_its_bucket_and_other_portals_do_not() {
    let world = World::start(|request, _| answer_batch(request, willing)).await;
    let of = |id: &str, app: &str, member_id: &str| Portal {
        id: PortalId::new(id),
        app: app.to_owned(),
        member_id: member_id.to_owned(),
        ..world.portal.clone()
    };
    let (neighbour, stranger) = (of("2", "other", &world.portal.member_id), of("3", "main", "another account"));
    world.crm.apply(&world.portal, &[reply("tok")]).await;
    assert_eq!(world.crm.budget(&neighbour, NOW).calls, 49.0, "one account, one address: one bucket");
    assert_eq!(world.crm.budget(&stranger, NOW).calls, 50.0);
}

#[tokio::test]
async fn each_entry_settles_for_itself() {
    let world = World::start(|request, _| {
        answer_batch(request, |method, params| match (method, params["fields"]["ENTITY_ID"].as_str()) {
            ("crm.timeline.comment.add", Some("1")) => Err(("OWNER_NOT_FOUND", "x")),
            ("crm.timeline.comment.add", Some("2")) => Err(("ACCESS_DENIED", "x")),
            ("crm.timeline.comment.add", Some("3")) => Err(("INTERNAL_SERVER_ERROR", "x")),
            ("crm.timeline.comment.add", Some("4")) => Ok(json!({})),
            ("crm.timeline.comment.update", _) => Err(("NOT_FOUND", "x")),
            ("bizproc.event.send", _) => Err(("ACCESS_DENIED", "x")),
            _ => Ok(json!(901)),
        })
    })
    .await;
    let deal = |id| CardRef { kind: CardKind::Deal, id };
    let mut effects: Vec<CrmEffect> = (1..=5).map(|id| comment(deal(id), None, false)).collect();
    effects.extend([
        comment(DEAL, Some("77"), false),
        reply("tok"),
        comment(CardRef { kind: CardKind::Customer, id: 1 }, None, false),
    ]);
    let results = world.crm.apply(&world.portal, &effects).await;
    use FailureClass::{Indeterminate, NotPermitted, Rejected};
    assert_eq!(classes(&results[..4]), [Rejected, NotPermitted, Indeterminate, Indeterminate]);
    assert_eq!(results[4], written("901"));
    assert_eq!(results[5], written("77"), "a deleted comment stays deleted");
    assert_eq!(classes(&results[6..]), [NotPermitted, Rejected]);
    for result in &results[..4] {
        assert_eq!(result.as_ref().unwrap_err().portal, PortalTrouble::None);
    }
}

#[tokio::test]
async fn a_call_without_answer_leaves_only_additions_unclear() {
    for (answer, class) in [
        ((|| Answered::Cut) as fn() -> Answered, FailureClass::Indeterminate),
        (|| Answered::Page(502, "<html>"), FailureClass::Indeterminate),
        (|| Answered::Page(200, "<html>"), FailureClass::Indeterminate),
        (|| Answered::Page(404, "<html>"), FailureClass::Unavailable),
        (|| Answered::Json(401, json!({"error": "CONNECTION_ERROR"})), FailureClass::Unavailable),
        (|| Answered::Json(500, json!({"error": "INTERNAL_SERVER_ERROR"})), FailureClass::Indeterminate),
    ] {
        let world = World::start(move |_, _| answer()).await;
        let effects = [comment(DEAL, None, false), comment(DEAL, Some("77"), false), reply("tok")];
        let results = world.crm.apply(&world.portal, &effects).await;
        assert_eq!(classes(&results), [class, FailureClass::Unavailable, FailureClass::Unavailable]);
        assert_eq!(world.stub.received("/rest/batch").len(), 1, "repeated by itself");
    }
    let missing = World::start(|_, _| Answered::Json(200, json!({"result": {"result": [], "result_error": []}}))).await;
    let results = missing.crm.apply(&missing.portal, &[comment(DEAL, None, false), reply("tok")]).await;
    assert_eq!(classes(&results), [FailureClass::Indeterminate, FailureClass::Unavailable]);
}

#[tokio::test]
async fn a_portal_that_is_not_there_has_surely_not_been_told() {
    let world = World::start(|request, _| answer_batch(request, willing)).await;
    let mut portal = world.portal.clone();
    portal.client_endpoint = "http://127.0.0.1:1/rest/".to_owned();
    let results = world.crm.apply(&portal, &[comment(DEAL, None, false)]).await;
    assert_eq!(classes(&results), [FailureClass::Unavailable]);
    portal.client_endpoint = "http://10.0.0.1/rest/".to_owned();
    let results = world.crm.apply(&portal, &[comment(DEAL, None, false)]).await;
    assert_eq!(results[0].as_ref().unwrap_err().code, "address_refused");
}

#[tokio::test]
async fn a_comment_that_may_be_there_is_looked_for_first() {
    let world = World::start(|request, _| {
        answer_batch(request, |method, params| match (method, params["filter"]["ENTITY_ID"].as_str()) {
            ("crm.timeline.comment.list", Some("134")) => Ok(json!([
                {"ID": "905", "COMMENT": "somebody wrote VWXYZ0\nand more"},
                {"ID": "904", "COMMENT": "WhatsApp\n[color=#959ca4]· №VWXYZ0[/color]"},
            ])),
            ("crm.timeline.comment.list", Some("2")) => Err(("ACCESS_DENIED", "x")),
            ("crm.timeline.comment.list", _) => Ok(json!([])),
            _ => willing(method, params),
        })
    })
    .await;
    let deal = |id| CardRef { kind: CardKind::Deal, id };
    let effects = [
        comment(deal(134), None, true),
        comment(deal(1), None, true),
        comment(deal(2), None, true),
        comment(deal(134), Some("77"), true),
        reply("tok"),
    ];
    let results = world.crm.apply(&world.portal, &effects).await;
    assert_eq!(results[0], written("904"));
    assert_eq!(results[1], written("901"));
    assert_eq!(classes(&results[2..3]), [FailureClass::NotPermitted]);
    assert_eq!(results[3..], [written("77"), Ok(Applied::Done)]);
    let calls = world.stub.received("/rest/batch");
    assert_eq!(calls[0].methods(), ["crm.timeline.comment.list"; 3]);
    let look = calls[0].params(0);
    assert_eq!(look["filter"], json!({"ENTITY_ID": "134", "ENTITY_TYPE": "deal"}));
    assert_eq!((&look["order"], &look["select"]), (&json!({"ID": "DESC"}), &json!(["ID", "COMMENT"])));
    assert_eq!(calls[1].methods().len(), 4);
}

#[tokio::test]
async fn when_the_look_fails_nothing_is_added() {
    let world = World::start(|_, _| Answered::Cut).await;
    let results = world.crm.apply(&world.portal, &[comment(DEAL, None, true)]).await;
    assert_eq!(classes(&results), [FailureClass::Unavailable]);
    assert_eq!(world.stub.received("/rest/batch").len(), 1);
}

#[tokio::test]
async fn a_full_bucket_tells_how_long_to_wait() {
    let world = World::start(|_, _| Answered::Json(503, json!({"error": "QUERY_LIMIT_EXCEEDED"}))).await;
    let mut waits = Vec::new();
    for _ in 0..4 {
        let error = world.crm.apply(&world.portal, &[comment(DEAL, None, false)]).await.remove(0).unwrap_err();
        assert_eq!(error.class, FailureClass::Throttled);
        waits.push(error.retry_after.unwrap().0 / 1000);
    }
    assert_eq!(waits, [1, 2, 4, 4]);
    let budget = world.crm.budget(&world.portal, NOW);
    assert_eq!((budget.calls, budget.blocked_until), (0.0, Some(NOW.plus(Millis::seconds(4)))));
}

#[tokio::test]
async fn a_method_that_ran_too_long_rests_alone() {
    let world = World::start(|request, _| {
        answer_batch(request, |method, params| match method {
            "crm.timeline.comment.add" => Err(("OPERATION_TIME_LIMIT", "x")),
            _ => willing(method, params),
        })
    })
    .await;
    let effects = [comment(DEAL, None, false), reply("tok")];
    for _ in 0..2 {
        let results = world.crm.apply(&world.portal, &effects).await;
        let error = results[0].as_ref().unwrap_err();
        assert_eq!((error.class, error.retry_after), (FailureClass::Throttled, Some(Millis::minutes(1))));
        assert_eq!(results[1], Ok(Applied::Done));
    }
    let calls = world.stub.received("/rest/batch");
    assert_eq!(calls[1].methods(), ["bizproc.event.send"]);
    world.clock.advance(Millis::seconds(61));
    world.crm.apply(&world.portal, &effects).await;
    assert_eq!(world.stub.received("/rest/batch")[2].methods().len(), 2);
}

#[tokio::test]
async fn an_overload_stops_the_portal_for_long() {
    let world = World::start(|_, _| Answered::Json(401, json!({"error": "OVERLOAD_LIMIT"}))).await;
    let error = world.crm.apply(&world.portal, &[reply("tok")]).await.remove(0).unwrap_err();
    assert_eq!((error.class, error.retry_after), (FailureClass::Throttled, Some(Millis::minutes(10))));
    assert!(world.crm.budget(&world.portal, NOW).blocked_until.is_some());
}

#[tokio::test]
async fn what_stops_the_whole_portal_is_said() {
    for (code, trouble) in [
        ("PAYMENT_REQUIRED", PortalTrouble::Blocked),
        ("ACCESS_DENIED", PortalTrouble::Blocked),
        ("APPLICATION_NOT_FOUND", PortalTrouble::Uninstalled),
        ("PORTAL_DELETED", PortalTrouble::Uninstalled),
    ] {
        let world =
            World::start(move |_: &Received, _: &MemoryStore| Answered::Json(401, json!({"error": code}))).await;
        let results = world.crm.apply(&world.portal, &[comment(DEAL, None, false), reply("tok")]).await;
        for result in results {
            let error = result.unwrap_err();
            assert_eq!((error.class, error.portal), (FailureClass::Misconfigured, trouble), "{code}");
        }
    }
}

#[tokio::test]
async fn results_are_in_the_products_words() {
    let world = World::start(|request, _| answer_batch(request, willing)).await;
    let failed = |code, detail: &str| Err(Failure::with(code, detail));
    let recipient = |chat_id: &str, outcome| RecipientResult { chat_id: chat_id.to_owned(), outcome };
    let mixed = ActionResult {
        recipients: vec![
            recipient("79001234567", Ok(())),
            recipient("79000000000", failed(ErrorCode::WindowClosed, "")),
            recipient("abc", failed(ErrorCode::BadPhone, "x\ny")),
        ],
        in_time: true,
        error: Some(ErrorCode::WindowClosed),
        message_ids: vec![ProviderMessageId("wamid.1".to_owned()), ProviderMessageId("wamid.2".to_owned())],
        delivered_at: None,
        sends_nothing: false,
        own: vec![("exists", vec!["Y".to_owned(), "U".to_owned()]), ("phones", Vec::new())],
    };
    let good = ActionResult {
        recipients: vec![recipient("79001234567", Ok(()))],
        in_time: true,
        delivered_at: Some(NOW),
        ..ActionResult::default()
    };
    let late = ActionResult { recipients: vec![recipient("79001234567", Ok(()))], ..ActionResult::default() };
    let effects: Vec<CrmEffect> = [mixed, good, late, ActionResult::default()]
        .into_iter()
        .map(|result| CrmEffect::Reply(Box::new(ReplyEffect { token: ReplyToken("a|b.c".to_owned()), result })))
        .collect();
    let mut portal = world.portal.clone();
    portal.language = Language::Ru;
    world.crm.apply(&portal, &effects).await;
    let call = &world.stub.received("/rest/batch")[0];
    let sent = |at: usize| (call.params(at)["RETURN_VALUES"].clone(), call.params(at)["LOG_MESSAGE"].clone());
    assert_eq!(call.params(0)["EVENT_TOKEN"], json!("a|b.c"));
    let (values, log) = sent(0);
    assert_eq!(
        values,
        json!({
            "status": "N", "timeout": "1", "error_code": "window_closed", "delivered_at": "",
            "detail": "79001234567:Y\n79000000000:N:[window_closed] 24-часовое окно закрыто\n\
                       abc:N:[bad_phone] Это не номер телефона (x\ny)",
            "message_ids": ["wamid.1", "wamid.2"],
            "exists": ["Y", "U"], "phones": "",
        })
    );
    assert_eq!(log, json!("Готово: 1 из 3. 24-часовое окно закрыто"));
    let (values, log) = sent(1);
    assert_eq!(
        values,
        json!({"status": "Y", "timeout": "1", "error_code": "", "detail": "79001234567:Y", "message_ids": "",
            "delivered_at": "2026-11-21T14:03:00+03:00"})
    );
    assert_eq!(log, json!("Готово: 1 из 1"));
    let (values, log) = sent(2);
    assert_eq!((&values["status"], &values["timeout"]), (&json!("Y"), &json!("0")));
    assert_eq!(log, json!("Готово: 1 из 1. Результат за отведённое время не получен"));
    assert_eq!(sent(3).0["status"], json!("N"));
}
