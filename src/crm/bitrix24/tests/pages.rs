//! Pages inside the portal: who opens them is asked of Bitrix24, not of the browser.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use secrecy::SecretString;
use serde_json::json;

use crate::crm::bitrix24::testing::{
    Answered, CLIENT_ID, MEMBER, MemoryStore, Received, Stub, World, answer_batch, memory_store, settings, token_info,
};
use crate::crm::bitrix24::{Bitrix24, Proof, ProveError, Who};
use crate::domain::outcome::FailureClass;
use crate::domain::time::{Clock, Timestamp};
use crate::outbound::Outbound;

fn token() -> SecretString {
    SecretString::from("falsetoken")
}

async fn prove(world: &World) -> Result<Proof, ProveError> {
    let server = world.stub.rest();
    world.crm.prove("main", &token(), Some(&server), MEMBER).await
}

#[tokio::test]
async fn a_token_of_ours_is_proved() {
    let world = World::start(|_, _| token_info(CLIENT_ID, MEMBER, "https://acme-demo.bitrix24.com/rest")).await;
    let proof = prove(&world).await.unwrap();
    assert_eq!(
        proof,
        Proof {
            client_id: CLIENT_ID.to_owned(),
            member_id: MEMBER.to_owned(),
            domain: "acme-demo.bitrix24.com".to_owned(),
            client_endpoint: "https://acme-demo.bitrix24.com/rest/".to_owned(),
            server_endpoint: world.stub.rest(),
            user_id: "7".to_owned(),
            installed: true,
            scopes: ["crm", "bizproc", "imopenlines", "im", "placement", "disk"].map(str::to_owned).to_vec(),
        }
    );
    assert!(world.crm.manifest().missing_scopes(&proof.scopes).is_empty());
    let asked = world.stub.received("/rest/app.info");
    assert_eq!((asked.len(), asked[0].token().as_str()), (1, "falsetoken"));
    // Older portals do not say which server is theirs.
    assert!(world.crm.prove("main", &token(), None, MEMBER).await.is_ok());
}

#[tokio::test]
async fn foreign_tokens_prove_nothing() {
    let endpoint = "https://acme-demo.bitrix24.com/rest/";
    let world = World::start(move |_, _| token_info("local.other", MEMBER, endpoint)).await;
    assert_eq!(prove(&world).await, Err(ProveError::Foreign("application")));
    let world = World::start(move |_, _| token_info(CLIENT_ID, "0000", endpoint)).await;
    assert_eq!(prove(&world).await, Err(ProveError::Foreign("portal")));
    let world = World::start(move |_, _| token_info(CLIENT_ID, "", endpoint)).await;
    assert_eq!(prove(&world).await, Err(ProveError::Foreign("portal")));
    assert_eq!(
        world.crm.prove("nobody", &token(), None, MEMBER).await,
        Err(ProveError::UnknownApp("nobody".to_owned()))
    );
    assert!(world.crm.has_app("main") && !world.crm.has_app("nobody"));
}

#[tokio::test]
async fn a_server_the_browser_names_is_not_called() {
    let store = memory_store(vec![]);
    let evil = Stub::start(
        &store,
        Arc::new(|_: &Received, _: &MemoryStore| token_info(CLIENT_ID, MEMBER, "https://acme.example/rest/")),
    )
    .await;
    let world = World::start(|_, _| token_info(CLIENT_ID, MEMBER, "https://acme.example/rest/")).await;
    for server in [evil.rest(), "https://oauth.bitrix.info/rest/".to_owned(), String::from("file:///etc/passwd")] {
        let proved = world.crm.prove("main", &token(), Some(&server), MEMBER).await;
        assert_eq!(proved, Err(ProveError::ForeignServer), "{server}");
    }
    assert!(evil.received("").is_empty());
    assert!(world.journal().is_empty());
}

#[tokio::test]
async fn a_portal_without_tls_is_refused_unless_allowed() {
    let store = memory_store(vec![]);
    let stub = Stub::start(
        &store,
        Arc::new(|_: &Received, _: &MemoryStore| token_info(CLIENT_ID, MEMBER, "http://acme.example/rest/")),
    )
    .await;
    let world = World::start(|_, _| token_info(CLIENT_ID, MEMBER, "http://acme.example/rest/")).await;
    assert!(prove(&world).await.is_ok());
    let mut strict = settings(vec![stub.base.clone()]);
    strict.insecure_http = false;
    let strict = crate::crm::bitrix24::testing::adapter(&store, &world.clock, strict);
    let proved = strict.prove("main", &token(), Some(&stub.rest()), MEMBER).await;
    assert!(matches!(proved, Err(ProveError::Foreign(_))), "{proved:?}");
}

#[tokio::test]
async fn a_refusal_and_a_silence_are_told_apart() {
    let world = World::start(|_, _| Answered::Json(401, json!({"error": "expired_token"}))).await;
    assert!(matches!(prove(&world).await, Err(ProveError::Refused(_))));
    let world = World::start(|_, _| Answered::Json(200, json!({"error": "wrong_client"}))).await;
    assert!(matches!(prove(&world).await, Err(ProveError::Refused(_))));
    for answer in [
        (|| Answered::Cut) as fn() -> Answered,
        || Answered::Page(502, "<html>"),
        || Answered::Json(200, json!({"result": []})),
    ] {
        let world = World::start(move |_, _| answer()).await;
        assert!(matches!(prove(&world).await, Err(ProveError::Unavailable(_))));
    }
}

fn proof_at(world: &World) -> Proof {
    Proof {
        client_id: CLIENT_ID.to_owned(),
        member_id: MEMBER.to_owned(),
        domain: "acme".to_owned(),
        client_endpoint: world.stub.rest(),
        server_endpoint: world.stub.rest(),
        user_id: "7".to_owned(),
        installed: false,
        scopes: vec![],
    }
}

#[tokio::test]
async fn the_portal_says_who_administers_it() {
    for (admin, is_admin) in [(json!(true), true), (json!("Y"), true), (json!(false), false), (json!(null), false)] {
        let world = World::start(move |request, _| {
            answer_batch(request, |method, _| match method {
                "profile" => Ok(json!({"ID": "7", "ADMIN": admin, "NAME": "Ada"})),
                "app.info" => Ok(json!({"ID": 1, "LANGUAGE_ID": "ru"})),
                other => panic!("{other}"),
            })
        })
        .await;
        let who = world.crm.who(&proof_at(&world), &token()).await.unwrap();
        assert_eq!(who, Who { user_id: "7".to_owned(), is_admin, language: "ru".to_owned() });
        assert_eq!(world.stub.received("/rest/batch")[0].token(), "falsetoken");
    }
}

#[tokio::test]
async fn somebody_else_than_proved_is_not_believed() {
    let world = World::start(|request, _| {
        answer_batch(request, |method, _| match method {
            "profile" => Ok(json!({"ID": "1", "ADMIN": true})),
            _ => Err(("ACCESS_DENIED", "x")),
        })
    })
    .await;
    assert!(world.crm.who(&proof_at(&world), &token()).await.is_err());
    let mut proof = proof_at(&world);
    proof.user_id = "1".to_owned();
    assert_eq!(world.crm.who(&proof, &token()).await.unwrap().language, "");
    let world = World::start(|_, _| Answered::Json(401, json!({"error": "expired_token"}))).await;
    let error = world.crm.who(&proof_at(&world), &token()).await.unwrap_err();
    assert_eq!(error.class, FailureClass::Misconfigured);
}

#[test]
fn bad_settings_are_told_at_the_start() {
    struct Still(AtomicI64);
    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(std::sync::atomic::Ordering::Relaxed))
        }
    }
    let build = |change: fn(&mut crate::crm::bitrix24::Settings)| {
        let mut settings = settings(vec!["https://oauth.bitrix.info".to_owned()]);
        change(&mut settings);
        let outbound = Arc::new(Outbound::new(vec![]).unwrap());
        Bitrix24::new(outbound, memory_store(vec![]), Arc::new(Still(AtomicI64::new(0))), settings).err()
    };
    assert_eq!(build(|_| {}), None);
    assert!(build(|settings| settings.time_zone = "Moscow".to_owned()).unwrap().contains("bitrix24.time_zone"));
    assert!(build(|settings| settings.oauth_hosts.clear()).unwrap().contains("bitrix24.oauth_hosts"));
}
