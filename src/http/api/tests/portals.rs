//! Portals and their lines.

use super::*;
use crate::domain::job::{Job, JobKind};

/// How often the portal's registrations were asked to be compared.
async fn asked(api: &Api, portal: &Portal) -> i64 {
    let id = Job::id_of(JobKind::Reconcile, portal.id.as_str());
    let jobs = api.state.storage.jobs_now(&[id]).await.unwrap();
    jobs.first().map_or(0, |job| job.revision + 1)
}

#[actix_web::test]
async fn portals_are_listed_by_pages_without_their_secrets() {
    let api = Api::start().await;
    let mut added = Vec::new();
    for member in ["acme", "globex", "initech"] {
        added.push(api.add_portal(member).await.id.to_string());
    }
    assert_eq!(api.all("/portals", 2).await, added);
    let expected = json!({
        "id": added[0],
        "crm": "bitrix24",
        "app": "main",
        "member_id": "acme",
        "domain": "acme.bitrix24.example",
        "language": "ru",
        "state": "installed",
        "reason": "",
        "lines": [],
    });
    assert_eq!(api.get("/portals?limit=1").await.json["items"], json!([expected]));
}

#[actix_web::test]
async fn binding_is_idempotent_and_tells_the_portal() {
    let api = Api::start().await;
    let (first, second) = (api.add_line("Sales").await, api.add_line("Support").await);
    let portal = api.add_portal("acme").await;
    let path = |line: &str| format!("/portals/{}/lines/{line}", portal.id);
    for line in [&second, &second, &first] {
        assert_eq!(api.call("put", &path(line)).await.status, StatusCode::OK);
    }
    assert_eq!(asked(&api, &portal).await, 3);
    let bound = api.get("/portals").await;
    assert_eq!(bound.json["items"][0]["lines"], json!([first, second]));
    let unbound = api.call("delete", &path(&first)).await;
    assert_eq!((unbound.status, &unbound.json["lines"]), (StatusCode::OK, &json!([second])));
    assert_eq!(asked(&api, &portal).await, 4);
    assert_eq!(api.call("delete", &path(&first)).await.status, StatusCode::NOT_FOUND);
}

#[actix_web::test]
async fn the_only_line_binds_every_portal_that_has_none() {
    let api = Api::start().await;
    let (acme, globex) = (api.add_portal("acme").await, api.add_portal("globex").await);
    let gone = api.add_portal("gone").await;
    api.state.storage.uninstall_portal(&gone.id).await.unwrap();
    let only = api.add_line("Sales").await;
    let lines = |answer: &Answer, index: usize| answer.json["items"][index]["lines"].clone();
    let portals = api.get("/portals").await;
    assert_eq!((lines(&portals, 0), lines(&portals, 1), lines(&portals, 2)), (json!([only]), json!([only]), json!([])));
    assert_eq!((asked(&api, &acme).await, asked(&api, &globex).await, asked(&api, &gone).await), (1, 1, 0));
    // A second line is for an administrator to choose.
    api.add_line("Support").await;
    assert_eq!(lines(&api.get("/portals").await, 0), json!([only]));
    assert_eq!(asked(&api, &acme).await, 1);
}

#[actix_web::test]
async fn a_new_portal_gets_the_only_line() {
    let api = Api::start().await;
    let pipeline = &api.state.pipeline;
    let early = api.add_portal("early").await;
    assert!(!pipeline.bind_new_portal(&early.id).await.unwrap(), "no line yet");
    let only = api.add_line("Sales").await;
    let portal = api.add_portal("acme").await;
    assert!(pipeline.bind_new_portal(&portal.id).await.unwrap());
    assert!(!pipeline.bind_new_portal(&portal.id).await.unwrap(), "it has one");
    assert_eq!(asked(&api, &portal).await, 1);
    let bound = api.state.storage.lines_of_portal(&portal.id).await.unwrap();
    assert_eq!(bound[0].id.as_str(), only);
    api.add_line("Support").await;
    let late = api.add_portal("late").await;
    assert!(!pipeline.bind_new_portal(&late.id).await.unwrap(), "there is a choice");
    let gone = crate::domain::ids::PortalId::new("404");
    assert!(!pipeline.bind_new_portal(&gone).await.unwrap());
}
