//! Robots and event handlers: compared, and only the difference sent.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::crm::Crm;
use crate::crm::bitrix24::testing::{Answered, Received, World, answer_batch};
use crate::crm::bitrix24::{Report, Tally};
use crate::domain::action::ActionKind;
use crate::domain::language::Language;
use crate::domain::outcome::FailureClass;

const EVENTS_URL: &str = "https://c.example/bitrix24/main/events";

/// What a portal remembers.
#[derive(Default)]
struct State {
    robots: Vec<String>,
    handlers: Vec<(String, String)>,
    /// Place, address, title.
    places: Vec<(String, String, String)>,
}

type Shared = Arc<Mutex<State>>;
type Found = Result<Value, (&'static str, &'static str)>;

/// A portal that behaves as documented.
fn portal(state: &mut State, method: &str, params: &Value) -> Found {
    let text = |key: &str| params[key].as_str().unwrap_or_default().to_owned();
    let (code, event, handler) = (text("CODE"), text("event"), text("handler"));
    match method {
        "scope" => Ok(json!(["crm", "bizproc", "im", "imopenlines", "placement", "disk"])),
        "bizproc.robot.list" => Ok(json!(state.robots)),
        "bizproc.robot.add" if state.robots.contains(&code) => Err(("ERROR_ACTIVITY_ALREADY_INSTALLED", "x")),
        "bizproc.robot.add" => {
            state.robots.push(code);
            Ok(json!(true))
        }
        "bizproc.robot.update" if params["FIELDS"]["HANDLER"].is_null() => {
            Err(("ERROR_ACTIVITY_VALIDATION_FAILURE", "x"))
        }
        "bizproc.robot.update" | "bizproc.robot.delete" if !state.robots.contains(&code) => {
            Err(("ERROR_ACTIVITY_NOT_FOUND", "x"))
        }
        "bizproc.robot.update" => Ok(json!(true)),
        "bizproc.robot.delete" => {
            state.robots.retain(|known| *known != code);
            Ok(json!(true))
        }
        "event.get" => {
            let row = |(event, handler): &(String, String)| json!({"event": event, "handler": handler, "auth_type": "1", "offline": 0});
            Ok(state.handlers.iter().map(row).collect())
        }
        "event.bind" if state.handlers.contains(&(event.clone(), handler.clone())) => Err(("ERROR_CORE", "x")),
        "event.bind" => {
            state.handlers.push((event, handler));
            Ok(json!(true))
        }
        "event.unbind" => {
            state.handlers.retain(|known| *known != (event.clone(), handler.clone()));
            Ok(json!({"count": 1}))
        }
        "crm.type.list" => Ok(json!({"types": [{"id": 1, "entityTypeId": "180", "title": "Projects"}]})),
        "placement.get" => {
            let row = |(code, handler, title): &(String, String, String)| json!({"id": 1, "placement": code, "userId": 0, "handler": handler, "title": title, "langAll": []});
            Ok(state.places.iter().map(row).collect())
        }
        "placement.bind" if params["LANG_ALL"]["ru"]["TITLE"].is_null() => Err(("ERROR_ARGUMENT", "x")),
        "placement.bind"
            if state.places.iter().any(|known| known.0 == text("PLACEMENT") && known.1 == text("HANDLER")) =>
        {
            Err(("ERROR_CORE", "Unable to set placement handler: Handler already binded"))
        }
        "placement.bind" => {
            state.places.push((text("PLACEMENT"), text("HANDLER"), text("TITLE")));
            Ok(json!(true))
        }
        "placement.unbind" => {
            state.places.retain(|known| known.0 != text("PLACEMENT") || known.1 != text("HANDLER"));
            Ok(json!({"count": 2}))
        }
        other => panic!("{other}"),
    }
}

/// Codes of the whole catalogue.
fn catalogue() -> Vec<String> {
    ActionKind::ALL.iter().map(|action| action.code().to_owned()).collect()
}

/// Events behind those of the application's life, in the order of the manifest.
const OTHER_EVENTS: [&str; 6] = [
    "ONAPPTEST",
    "ONIMCONNECTORMESSAGEADD",
    "ONIMCONNECTORMESSAGEUPDATE",
    "ONIMCONNECTORMESSAGEDELETE",
    "ONIMCONNECTORSTATUSDELETE",
    "ONIMCONNECTORLINEDELETE",
];
/// Tabs on cards of a portal with one smart process.
const TABS: [&str; 5] = [
    "CRM_LEAD_DETAIL_TAB",
    "CRM_DEAL_DETAIL_TAB",
    "CRM_CONTACT_DETAIL_TAB",
    "CRM_COMPANY_DETAIL_TAB",
    "CRM_DYNAMIC_180_DETAIL_TAB",
];
const TAB_URL: &str = "https://c.example/bitrix24/main/placements/card";

async fn world(state: &Shared) -> World {
    let state = Arc::clone(state);
    World::start(move |request, _| {
        answer_batch(request, |method, params| portal(&mut state.lock().unwrap(), method, params))
    })
    .await
}

fn lines(names: &[&str]) -> Vec<(String, String)> {
    names.iter().map(|name| (format!("line_{name}"), (*name).to_owned())).collect()
}

async fn report(world: &World, names: &[&str]) -> Report {
    world.crm.reconcile_report(&world.portal, &lines(names)).await.unwrap()
}

fn tally(all: usize) -> Tally {
    Tally { wanted: all, stand: all }
}

fn bound(state: &Shared) -> Vec<(String, String)> {
    state.lock().unwrap().handlers.clone()
}

#[tokio::test]
async fn a_fresh_portal_gets_everything_in_four_calls() {
    let state = Shared::default();
    let world = world(&state).await;
    let done = report(&world, &["Sales"]).await;
    assert_eq!(done.added, catalogue());
    assert_eq!(done.bound[..3], ["ONAPPINSTALL", "ONAPPUPDATE", "ONAPPUNINSTALL"]);
    assert_eq!(done.bound[3..], OTHER_EVENTS);
    assert_eq!((done.problems, done.missing_scopes, done.robots_unavailable), (vec![], vec![], None));
    assert!(bound(&state).iter().all(|(_, handler)| handler == EVENTS_URL));
    assert_eq!(done.placed, TABS);
    let calls = world.stub.received("/rest/batch");
    assert_eq!(calls.len(), 4);
    let add = calls[1].params(0);
    assert_eq!(add["CODE"], json!("send_message"));
    assert_eq!(add["HANDLER"], json!("https://c.example/bitrix24/main/robots/send_message"));
    assert_eq!(add["AUTH_USER_ID"], json!("1"));
    assert_eq!(add["PROPERTIES"]["line"]["Options"], json!({"line_Sales": "Sales"}));
    assert_eq!(calls[1].params(ActionKind::ALL.len())["auth_type"], json!("1"));
}

#[tokio::test]
async fn what_is_in_line_is_left_alone() {
    let state = Shared::default();
    let world = world(&state).await;
    report(&world, &["Sales"]).await;
    let again = report(&world, &["Sales"]).await;
    let Report { robots, events, places, .. } = again.clone();
    assert_eq!((robots, events, places), (tally(catalogue().len()), tally(9), tally(5)));
    assert_eq!(again, Report { robots, events, places, ..Report::default() });
    assert_eq!(world.stub.received("/rest/batch").len(), 6);
    assert_eq!(world.crm.reconcile(&world.portal, &lines(&["Sales"])).await, Ok(()));
}

#[tokio::test]
async fn a_new_line_reaches_the_robot() {
    let state = Shared::default();
    let world = world(&state).await;
    report(&world, &["Sales"]).await;
    let done = report(&world, &["Sales", "Support"]).await;
    assert_eq!((done.added, done.updated), (vec![], catalogue()));
    // Behind it the places are looked at.
    let update = world.stub.received("/rest/batch").iter().rev().nth(1).unwrap().params(0);
    let options = &update["FIELDS"]["PROPERTIES"]["line"]["Options"];
    assert_eq!(*options, json!({"line_Sales": "Sales", "line_Support": "Support"}));
    assert_eq!(update["FIELDS"].get("CODE"), None);
}

#[tokio::test]
async fn robots_deleted_by_an_update_come_back() {
    let state = Shared::default();
    let world = world(&state).await;
    report(&world, &[]).await;
    state.lock().unwrap().robots.clear();
    state.lock().unwrap().handlers.remove(0);
    let done = report(&world, &[]).await;
    assert_eq!((done.added, done.bound), (catalogue(), vec!["ONAPPINSTALL".to_owned()]));
}

#[tokio::test]
async fn robots_that_are_no_longer_ours_go() {
    let state = Shared::default();
    state.lock().unwrap().robots = vec!["old_action".to_owned(), "SEND_MESSAGE".to_owned()];
    let world = world(&state).await;
    world.store.registrations.lock().unwrap().insert("robot:old_action".to_owned(), "x".to_owned());
    let done = report(&world, &[]).await;
    assert_eq!(done.deleted, ["old_action"]);
    assert!(!world.store.registrations.lock().unwrap().contains_key("robot:old_action"));
}

#[tokio::test]
async fn a_robot_that_is_there_unlisted_is_updated() {
    let state = Shared::default();
    state.lock().unwrap().robots = catalogue();
    let shared = Arc::clone(&state);
    let world = World::start(move |request, _| {
        answer_batch(request, |method, params| match method {
            "bizproc.robot.list" => Ok(json!([])),
            _ => portal(&mut shared.lock().unwrap(), method, params),
        })
    })
    .await;
    let done = report(&world, &[]).await;
    assert_eq!((done.added, done.updated, done.problems), (vec![], catalogue(), vec![]));
    assert!(world.store.registrations.lock().unwrap().contains_key("robot:send_message"));
}

#[tokio::test]
async fn a_portal_without_robots_is_reported_and_no_error() {
    for code in ["ERROR_METHOD_NOT_FOUND", "ACCESS_DENIED", "insufficient_scope"] {
        let state = Shared::default();
        let world = World::start(move |request, _| {
            answer_batch(request, |method, params| match method {
                "bizproc.robot.list" => Err((code, "x")),
                "scope" => Ok(json!("crm")),
                _ => portal(&mut state.lock().unwrap(), method, params),
            })
        })
        .await;
        let done = report(&world, &[]).await;
        assert_eq!(done.robots_unavailable.as_deref(), Some(code));
        assert_eq!(done.bound.len(), 4, "events that this portal knows are bound all the same");
        assert_eq!((done.robots.stand, done.missing_scopes.len()), (0, 5));
        for language in Language::ALL {
            let notes = done.notes(language);
            assert!(notes.len() == 6 && notes[0].contains("bizproc") && notes[5].contains(code), "{notes:?}");
        }
        assert_eq!(world.crm.reconcile(&world.portal, &[]).await, Ok(()));
    }
}

#[tokio::test]
async fn handlers_at_an_old_address_are_removed() {
    let state = Shared::default();
    let old = |event: &str, url: &str| (event.to_owned(), url.to_owned());
    state.lock().unwrap().handlers = vec![
        old("ONAPPINSTALL", "https://old.example/bitrix24/main/events"),
        old("ONAPPUPDATE", "https://c.example/prefix/bitrix24/main/events"),
        old("ONCRMLEADADD", EVENTS_URL),
        old("ONAPPUNINSTALL", EVENTS_URL),
        old("ONCRMLEADADD", "https://elsewhere.example/hook"),
    ];
    let world = world(&state).await;
    let done = report(&world, &[]).await;
    assert_eq!(done.unbound.len(), 3, "{:?}", done.unbound);
    assert_eq!(done.bound[..2], ["ONAPPINSTALL", "ONAPPUPDATE"]);
    assert_eq!(done.bound[2..], OTHER_EVENTS);
    let left = bound(&state);
    assert_eq!(left.len(), 10);
    assert!(left.contains(&old("ONCRMLEADADD", "https://elsewhere.example/hook")));
}

#[tokio::test]
async fn already_bound_counts_only_when_the_portal_lists_it() {
    for (listed, problems) in [(true, 0), (false, 4)] {
        let asked = Mutex::new(0);
        let world = World::start(move |request: &Received, _| {
            answer_batch(request, |method, _| match method {
                "event.get" => {
                    *asked.lock().unwrap() += 1;
                    let first = *asked.lock().unwrap() == 1;
                    let row = |event: &str| json!({"event": event, "handler": EVENTS_URL, "offline": "0"});
                    let rows = ["OnAppInstall", "ONAPPUPDATE", "ONAPPUNINSTALL", "ONAPPTEST"].map(row);
                    Ok(if first || !listed { json!([]) } else { json!(rows) })
                }
                "event.bind" => Err(("ERROR_CORE", "Handler already binded")),
                "bizproc.robot.list" => Ok(json!([])),
                _ => Ok(json!(true)),
            })
        })
        .await;
        let done = report(&world, &[]).await;
        assert_eq!(done.problems.len(), problems, "{:?}", done.problems);
        assert_eq!(world.crm.reconcile(&world.portal, &[]).await.is_err(), !listed);
    }
}

#[tokio::test]
async fn a_refused_robot_is_a_problem_and_the_rest_is_done() {
    let state = Shared::default();
    let shared = Arc::clone(&state);
    let world = World::start(move |request, _| {
        answer_batch(request, |method, params| match method {
            "bizproc.robot.add" => Err(("ERROR_WRONG_HANDLER_URL", "x")),
            _ => portal(&mut shared.lock().unwrap(), method, params),
        })
    })
    .await;
    let done = report(&world, &[]).await;
    assert_eq!((done.problems.len(), done.bound.len()), (ActionKind::ALL.len(), 9));
    assert_eq!(done.robots, Tally { wanted: ActionKind::ALL.len(), stand: 0 });
    assert_eq!(done.notes(Language::Ru).len(), ActionKind::ALL.len());
    assert!(world.store.registrations.lock().unwrap().is_empty());
    let error = world.crm.reconcile(&world.portal, &[]).await.unwrap_err();
    assert_eq!((error.class, error.code.as_str()), (FailureClass::Rejected, "ERROR_WRONG_HANDLER_URL"));
}

#[tokio::test]
async fn tabs_at_an_old_address_or_with_an_old_title_are_bound_again() {
    let state = Shared::default();
    let place = |code: &str, url: &str, title: &str| (code.to_owned(), url.to_owned(), title.to_owned());
    let foreign = place("CRM_DEAL_DETAIL_TAB", "https://elsewhere.example/tab", "Other");
    state.lock().unwrap().places = vec![
        place("CRM_LEAD_DETAIL_TAB", "https://old.example/bitrix24/main/placements/card", "Messages"),
        place("CRM_DEAL_DETAIL_TAB", TAB_URL, "An old title"),
        foreign.clone(),
    ];
    let world = world(&state).await;
    let done = report(&world, &[]).await;
    assert_eq!(done.unplaced, ["CRM_LEAD_DETAIL_TAB", "CRM_DEAL_DETAIL_TAB"]);
    assert_eq!((done.placed.as_slice(), done.problems.len()), (TABS.map(str::to_owned).as_slice(), 0));
    let places = state.lock().unwrap().places.clone();
    assert_eq!(places.len(), 6);
    assert!(places.contains(&foreign), "what is not ours stays");
    assert!(places.iter().all(|known| *known == foreign || known.1 == TAB_URL));
    let again = report(&world, &[]).await;
    assert_eq!((again.places, again.placed, again.unplaced), (tally(5), vec![], vec![]));
}

#[tokio::test]
async fn a_place_the_portal_does_not_have_is_counted_and_is_no_problem() {
    let state = Shared::default();
    let shared = Arc::clone(&state);
    let world = World::start(move |request, _| {
        answer_batch(request, |method, params| match method {
            "placement.bind" if params["PLACEMENT"] == json!("CRM_LEAD_DETAIL_TAB") => {
                Err(("ERROR_PLACEMENT_NOT_FOUND", "Placement not found"))
            }
            "crm.type.list" => Err(("ACCESS_DENIED", "x")),
            _ => portal(&mut shared.lock().unwrap(), method, params),
        })
    })
    .await;
    let done = report(&world, &[]).await;
    assert_eq!((done.places, done.problems), (Tally { wanted: 4, stand: 3 }, vec![]));
}

#[tokio::test]
async fn a_portal_that_cannot_be_asked_is_an_error() {
    let world = World::start(|_, _| Answered::Page(502, "<html>")).await;
    let error = world.crm.reconcile(&world.portal, &[]).await.unwrap_err();
    assert_eq!(error.class, FailureClass::Unavailable);
}
