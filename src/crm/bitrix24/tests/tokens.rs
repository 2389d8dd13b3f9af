//! Tokens: renewed once, kept before use, never lost; renames followed only when proved.

use std::sync::Arc;

use serde_json::json;

use crate::crm::Crm;
use crate::crm::bitrix24::testing::{
    Answered, CLIENT_ID, MEMBER, MemoryStore, Received, Stub, World, answer_batch, fresh_tokens, memory_store, pair,
    token_info,
};
use crate::domain::effect::{ActionResult, Applied, CrmEffect, CrmError, PortalTrouble, ReplyEffect};
use crate::domain::ids::ReplyToken;
use crate::domain::outcome::FailureClass;
use crate::domain::portal::Portal;
use crate::domain::time::Millis;

fn reply() -> Vec<CrmEffect> {
    let result = ActionResult { in_time: true, ..ActionResult::default() };
    vec![CrmEffect::Reply(Box::new(ReplyEffect { token: ReplyToken("tok".to_owned()), result }))]
}

async fn call(world: &World) -> Result<Applied, CrmError> {
    call_as(world, &world.portal).await
}

async fn call_as(world: &World, portal: &Portal) -> Result<Applied, CrmError> {
    world.crm.apply(portal, &reply()).await.remove(0)
}

fn all_well(request: &Received) -> Answered {
    answer_batch(request, |_, _| Ok(json!(true)))
}

fn oauth_error(status: u16, code: &str) -> Answered {
    Answered::Json(status, json!({"error": code, "error_description": "x"}))
}

fn is_token(request: &Received) -> bool {
    request.path == "/oauth/token/"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_calls_at_once_renew_once() {
    let ended = pair("1", 1, Millis(-1));
    let world = World::with(vec![ended], &[], |request, _: &MemoryStore| match is_token(request) {
        true => fresh_tokens(request, ""),
        false => all_well(request),
    })
    .await;
    let world = Arc::new(world);
    let calls: Vec<_> = (0..20)
        .map(|_| {
            tokio::spawn({
                let world = Arc::clone(&world);
                async move { call(&world).await }
            })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(Applied::Done));
    }
    assert_eq!(world.stub.received("/oauth/token/").len(), 1);
    let batches = world.stub.received("/rest/batch");
    assert_eq!(batches.len(), 20);
    assert!(batches.iter().all(|request| request.token() == "access-1-2"));
}

#[tokio::test]
async fn a_new_pair_is_kept_before_it_is_used() {
    let about_to_end = pair("1", 1, Millis::seconds(59));
    let world = World::with(vec![about_to_end], &[], |request, _: &MemoryStore| match is_token(request) {
        true => fresh_tokens(request, ""),
        false => all_well(request),
    })
    .await;
    assert_eq!(call(&world).await, Ok(Applied::Done));
    assert_eq!(world.journal(), ["/oauth/token/ ", "saved access-1-2", "/rest/batch access-1-2"]);
    let form = &world.stub.received("/oauth/token/")[0].body;
    assert_eq!(
        *form,
        json!({"grant_type": "refresh_token", "client_id": CLIENT_ID, "client_secret": "falsesecret",
            "refresh_token": "refresh-1-1"})
    );
    let kept = world.store.tokens.lock().unwrap()[0].clone();
    assert!(kept.is_admin);
    assert_eq!(kept.expires.since(crate::crm::bitrix24::testing::NOW), Millis::hours(1));
}

#[tokio::test]
async fn a_pair_that_lives_is_not_renewed() {
    let world = World::start(|request, _| all_well(request)).await;
    for _ in 0..3 {
        assert_eq!(call(&world).await, Ok(Applied::Done));
    }
    assert!(world.stub.received("/oauth/token/").is_empty());
}

#[tokio::test]
async fn a_pair_the_store_did_not_take_is_not_lost() {
    let world = World::with(vec![pair("1", 1, Millis(-1))], &[], |request, _: &MemoryStore| match is_token(request) {
        true => fresh_tokens(request, ""),
        false => all_well(request),
    })
    .await;
    *world.store.failing_saves.lock().unwrap() = 2;
    for _ in 0..2 {
        let error = call(&world).await.unwrap_err();
        assert_eq!((error.class, error.code.as_str()), (FailureClass::Unavailable, "store_down"));
    }
    assert!(world.stub.received("/rest/batch").is_empty(), "used before it was kept");
    assert_eq!(call(&world).await, Ok(Applied::Done));
    assert_eq!(world.stub.received("/oauth/token/").len(), 1);
}

#[tokio::test]
async fn a_token_that_ends_on_the_way_is_renewed_once() {
    let world = World::start(|request, _| match (is_token(request), request.token().as_str()) {
        (true, _) => fresh_tokens(request, ""),
        (false, "access-1-1") => Answered::Json(401, json!({"error": "EXPIRED_TOKEN", "error_description": "x"})),
        (false, _) => all_well(request),
    })
    .await;
    assert_eq!(call(&world).await, Ok(Applied::Done));
    assert_eq!(
        world.journal(),
        ["/rest/batch access-1-1", "/oauth/token/ ", "saved access-1-2", "/rest/batch access-1-2"]
    );
}

#[tokio::test]
async fn a_portal_that_refuses_every_token_is_not_asked_for_ever() {
    let world = World::start(|request, _| match is_token(request) {
        true => fresh_tokens(request, ""),
        false => oauth_error(401, "invalid_token"),
    })
    .await;
    let error = call(&world).await.unwrap_err();
    assert_eq!((error.class, error.portal), (FailureClass::Misconfigured, PortalTrouble::NeedsAuth));
    assert_eq!(world.stub.received("/rest/batch").len(), 2);
    assert_eq!(world.stub.received("/oauth/token/").len(), 1);
}

#[tokio::test]
async fn dead_tokens_are_dropped_and_the_next_user_speaks() {
    let tokens = vec![pair("1", 1, Millis(-1)), pair("2", 1, Millis(-1)), pair("3", 1, Millis(-1))];
    let world = World::with(tokens, &[], |request, _: &MemoryStore| match is_token(request) {
        true if request.body["refresh_token"] != "refresh-3-1" => oauth_error(400, "invalid_grant"),
        true => fresh_tokens(request, ""),
        false => all_well(request),
    })
    .await;
    assert_eq!(call(&world).await, Ok(Applied::Done));
    let journal = world.journal();
    assert!(journal.contains(&"dropped access-1-1".to_owned()) && journal.contains(&"dropped access-2-1".to_owned()));
    assert_eq!(journal.last().unwrap(), "/rest/batch access-3-2");
}

#[tokio::test]
async fn without_living_tokens_the_portal_needs_its_administrator() {
    let refusing = |request: &Received, _: &MemoryStore| match is_token(request) {
        true => oauth_error(200, "invalid_grant"),
        false => all_well(request),
    };
    for tokens in [vec![], vec![pair("1", 1, Millis(-1))]] {
        let world = World::with(tokens, &[], refusing).await;
        let error = call(&world).await.unwrap_err();
        assert_eq!((error.class, error.portal), (FailureClass::Misconfigured, PortalTrouble::NeedsAuth));
        assert!(world.stub.received("/rest/batch").is_empty());
        assert!(world.store.tokens.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_faster_process_is_noticed_before_tokens_are_dropped() {
    let world = World::with(vec![pair("1", 1, Millis(-1))], &[], |request, store: &MemoryStore| {
        if is_token(request) {
            *store.tokens.lock().unwrap() = vec![pair("1", 5, Millis::minutes(50))];
            return oauth_error(400, "invalid_grant");
        }
        all_well(request)
    })
    .await;
    assert_eq!(call(&world).await, Ok(Applied::Done));
    assert_eq!(world.journal(), ["/oauth/token/ ", "/rest/batch access-1-5"]);
}

#[tokio::test]
async fn a_dismissed_user_is_replaced_by_another_administrator() {
    let tokens = vec![pair("1", 1, Millis::minutes(9)), pair("2", 1, Millis::minutes(9))];
    let world = World::with(tokens, &[], |request, _: &MemoryStore| match request.token().as_str() {
        "access-1-1" => oauth_error(403, "authorization_error"),
        _ => all_well(request),
    })
    .await;
    assert_eq!(call(&world).await, Ok(Applied::Done));
    assert_eq!(world.journal(), ["/rest/batch access-1-1", "dropped access-1-1", "/rest/batch access-2-1"]);
}

#[tokio::test]
async fn another_region_is_asked_only_when_the_application_is_unknown() {
    let store = memory_store(vec![]);
    let other = Stub::start(&store, Arc::new(|request: &Received, _: &MemoryStore| fresh_tokens(request, ""))).await;
    for (status, code) in [(200, "wrong_client"), (400, "invalid_client")] {
        let handler = move |request: &Received, _: &MemoryStore| match is_token(request) {
            true => oauth_error(status, code),
            false => all_well(request),
        };
        let world = World::with(vec![pair("1", 1, Millis(-1))], std::slice::from_ref(&other.base), handler).await;
        assert_eq!(call(&world).await, Ok(Applied::Done), "{code}");
    }
    assert_eq!(other.received("/oauth/token/").len(), 2);
    for answer in [|| Answered::Cut, || Answered::Page(502, "<html>"), || oauth_error(401, "PAYMENT_REQUIRED")] {
        let handler = move |_: &Received, _: &MemoryStore| answer();
        let world = World::with(vec![pair("1", 1, Millis(-1))], std::slice::from_ref(&other.base), handler).await;
        assert!(call(&world).await.is_err());
    }
    assert_eq!(other.received("/oauth/token/").len(), 2);
}

#[tokio::test]
async fn an_authorization_server_that_is_down_costs_no_tokens() {
    let down = |request: &Received, _: &MemoryStore| match is_token(request) {
        true => Answered::Page(503, "<html>maintenance</html>"),
        false => all_well(request),
    };
    let world = World::with(vec![pair("1", 1, Millis(-1))], &[], down).await;
    let error = call(&world).await.unwrap_err();
    assert_eq!((error.class, error.portal), (FailureClass::Unavailable, PortalTrouble::None));
    assert_eq!(world.store.tokens.lock().unwrap().len(), 1);
    // The last minute of a token is still good for a call.
    let world = World::with(vec![pair("1", 1, Millis::seconds(30))], &[], down).await;
    assert_eq!(call(&world).await, Ok(Applied::Done));
}

#[tokio::test]
async fn an_authorization_server_of_a_stranger_is_not_called() {
    let world = World::with(vec![pair("1", 1, Millis(-1))], &[], |request, _: &MemoryStore| all_well(request)).await;
    let mut portal = world.portal.clone();
    portal.server_endpoint = "http://127.0.0.1:9/rest/".to_owned();
    assert_eq!(call_as(&world, &portal).await.unwrap_err().code, "oauth_host_refused");
    portal.server_endpoint = world.portal.server_endpoint.clone();
    portal.app = "other".to_owned();
    assert_eq!(call_as(&world, &portal).await.unwrap_err().code, "app_unknown");
    assert!(world.journal().is_empty());
}

#[tokio::test]
async fn tokens_of_another_portal_are_not_kept() {
    let world = World::with(vec![pair("1", 1, Millis(-1))], &[], |request, _: &MemoryStore| {
        let Answered::Json(status, mut answer) = fresh_tokens(request, "") else { panic!("no answer") };
        answer["member_id"] = json!("0000");
        Answered::Json(status, answer)
    })
    .await;
    assert_eq!(call(&world).await.unwrap_err().code, "foreign_tokens");
    assert_eq!(world.store.tokens.lock().unwrap()[0].access, "access-1-1");
}

#[tokio::test]
async fn a_refresh_outlives_whoever_asked_for_it() {
    let world = World::with(vec![pair("1", 1, Millis(-1))], &[], |request, _: &MemoryStore| match is_token(request) {
        true => fresh_tokens(request, ""),
        false => all_well(request),
    })
    .await;
    let hasty = tokio::time::timeout(std::time::Duration::from_millis(10), call(&world)).await;
    assert!(hasty.is_err(), "the store takes 20 ms");
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(call(&world).await, Ok(Applied::Done));
    assert_eq!(world.stub.received("/oauth/token/").len(), 1);
}

#[tokio::test]
async fn a_new_address_in_the_token_answer_is_adopted() {
    let store = memory_store(vec![]);
    let new = Stub::start(&store, Arc::new(|request: &Received, _: &MemoryStore| all_well(request))).await;
    let endpoint = new.rest();
    let world = World::with(vec![pair("1", 1, Millis(-1))], &[], move |request, _: &MemoryStore| {
        assert!(is_token(request), "{} at the old place", request.path);
        fresh_tokens(request, &endpoint)
    })
    .await;
    assert_eq!(call(&world).await, Ok(Applied::Done));
    let (domain, kept) = world.store.endpoint.lock().unwrap().clone().unwrap();
    assert_eq!(kept, new.rest());
    assert_eq!(format!("http://{domain}"), new.base);
    assert_eq!(new.received("/rest/batch").len(), 1);
}

#[tokio::test]
async fn a_renamed_portal_is_followed_when_the_authorization_server_agrees() {
    let store = memory_store(vec![]);
    let new = Stub::start(&store, Arc::new(|request: &Received, _: &MemoryStore| all_well(request))).await;
    let (base, rest) = (new.base.clone(), new.rest());
    let world = World::start(move |request, _| match request.path.as_str() {
        "/rest/app.info" => token_info(CLIENT_ID, MEMBER, &rest),
        _ => Answered::Redirect(format!("{base}/rest/batch")),
    })
    .await;
    assert_eq!(call(&world).await, Ok(Applied::Done));
    assert_eq!(world.store.endpoint.lock().unwrap().clone().unwrap().1, new.rest());
    // The caller still holds the old record; the new place is known all the same.
    assert_eq!(call(&world).await, Ok(Applied::Done));
    assert_eq!(world.stub.received("/rest/batch").len(), 1);
    assert_eq!(new.received("/rest/batch").len(), 2);
}

#[tokio::test]
async fn a_redirect_to_a_stranger_is_refused() {
    let store = memory_store(vec![]);
    let evil = Stub::start(&store, Arc::new(|request: &Received, _: &MemoryStore| all_well(request))).await;
    let evil_rest = evil.rest();
    let rows: [(&str, &str, Option<String>); 4] = [
        // The authorization server knows the portal at its old place, or at a third one.
        (CLIENT_ID, MEMBER, None),
        (CLIENT_ID, MEMBER, Some("http://127.0.0.1:1/rest/".to_owned())),
        // It agrees on the place but speaks of another application or portal.
        ("local.other", MEMBER, Some(evil_rest.clone())),
        (CLIENT_ID, "0000", Some(evil_rest.clone())),
    ];
    for (client, member, stands) in rows {
        let base = evil.base.clone();
        let place = stands.clone();
        let world = World::start(move |request, _| match request.path.as_str() {
            "/rest/app.info" => token_info(client, member, place.as_deref().unwrap_or("http://127.0.0.1:2/rest/")),
            _ => Answered::Redirect(format!("{base}/rest/batch")),
        })
        .await;
        let error = call(&world).await.unwrap_err();
        assert_eq!((error.class, error.code.as_str()), (FailureClass::Unavailable, "moved"), "{stands:?}");
        assert!(world.store.endpoint.lock().unwrap().is_none());
    }
    assert!(evil.received("").is_empty(), "the stranger was called");
}

#[tokio::test]
async fn a_redirect_in_a_circle_ends() {
    let world = World::start(|_, _| Answered::Redirect("/login/?backurl=x".to_owned())).await;
    assert_eq!(call(&world).await.unwrap_err().code, "moved");
    assert!(world.stub.received("/rest/app.info").is_empty());
    assert_eq!(world.stub.received("/rest/batch").len(), 1);
}
