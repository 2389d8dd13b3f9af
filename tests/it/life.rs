//! Installation, update, removal, renaming: the life of the application in a portal.

use sandbox::UserSpec;
use serde_json::json;

use crate::world::{World, text};

const PHONE: &str = "79161234567";

async fn works(world: &World) {
    let deal = world.deal(PHONE);
    world.fire(deal, &json!({"recipients": "main", "template": "greeting:ru"}));
    assert_eq!(text(&world.result_of(deal).await, "status"), "Y");
    world.until("the comment says read", |w| w.comment(deal).contains("Прочитано")).await;
}

fn has_robot(world: &World) -> bool {
    world.portal.robots().iter().any(|robot| robot.code == "send_message")
}

/// Removes the application and waits until the service knows.
async fn uninstall(world: &World, clean: bool) {
    world.portal.uninstall(&world.client_id, clean).unwrap();
    for _ in 0..400 {
        if world.get("/api/v1/portals").await.1["items"][0]["state"] == "uninstalled" {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the service did not hear of the removal: {}", world.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_installer_page_registers_everything_before_the_installation_is_finished() {
    let world = World::new().await;
    let (_, portals) = world.get("/api/v1/portals").await;
    assert_eq!(portals["items"][0]["state"], "installed", "{portals}");
    let robot = world.portal.robots().into_iter().find(|robot| robot.code == "send_message").unwrap();
    assert!(robot.handler.ends_with("/bitrix24/main/robots/send_message"), "{}", robot.handler);
    assert!(format!("{:?}", robot).contains(&world.line), "the line can be chosen");
    assert_eq!(world.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_brings_the_robots_back() {
    let world = World::new().await;
    world.portal.update_app(&world.client_id, 2).unwrap();
    assert!(!has_robot(&world), "the portal removes robots at an update");
    world.until("the robot is back", has_robot).await;
    works(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_an_administrator_replaces_the_application_token() {
    let world = World::new().await;
    let user = world.portal.add_user(UserSpec { admin: false, ..UserSpec::default() });
    let tokens = world.portal.issue_tokens(&world.client_id, user).unwrap();
    for event in ["ONAPPINSTALL", "ONAPPUPDATE"] {
        let (member, domain) = (world.portal.member_id(), world.portal.domain());
        let form = [
            ("event", event),
            ("data[VERSION]", "1"),
            ("auth[access_token]", &tokens.access_token),
            ("auth[refresh_token]", &tokens.refresh_token),
            ("auth[member_id]", &member),
            ("auth[domain]", &domain),
            ("auth[user_id]", "1"),
            ("auth[application_token]", "0123456789abcdef0123456789abcdef"),
        ];
        let url = format!("{}/bitrix24/main/events", world.base());
        assert_eq!(world.http.post(url).form(&form).send().await.unwrap().status(), 403, "{event}");
    }
    works(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn robots_that_went_missing_are_back_after_a_start() {
    let mut world = World::new().await;
    let tokens = world.portal.issue_tokens(&world.client_id, 1).unwrap();
    let url = format!("{}bizproc.robot.delete", world.portal.client_endpoint());
    let body = json!({"CODE": "send_message"});
    let answer = world.http.post(url).bearer_auth(&tokens.access_token).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!has_robot(&world));
    world.kill();
    world.restart().await;
    world.until("the robot is back", has_robot).await;
    works(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_application_is_forgotten_and_can_come_back() {
    let world = World::new().await;
    uninstall(&world, true).await;
    world.portal.install(&world.client_id).await.unwrap();
    world.until("the robot is back", has_robot).await;
    works(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_portal_is_followed() {
    let world = World::new().await;
    world.portal.rename().await.unwrap();
    works(&world).await;
    let (_, portals) = world.get("/api/v1/portals").await;
    assert_eq!(portals["items"][0]["domain"], world.portal.domain(), "{portals}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_portal_that_tells_no_secret_on_its_page_works_too() {
    let world = World::new().await;
    uninstall(&world, false).await;
    world.portal.set_switches(|switches| switches.old_pages = true);
    world.portal.install(&world.client_id).await.unwrap();
    world.until("the robot is there", has_robot).await;
    works(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_tokens_are_replaced_by_the_next_robot_call() {
    let world = World::new().await;
    world.portal.expire_access_tokens();
    world.portal.kill_refresh_tokens();
    works(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_without_robots_is_told_and_the_installation_still_finishes() {
    let world = World::new().await;
    uninstall(&world, false).await;
    world.portal.set_switches(|switches| switches.robots_available = false);
    let page = world.portal.install(&world.client_id).await.unwrap();
    assert_eq!(page.status, 200);
    assert!(
        page.body.contains("ERROR_METHOD_NOT_FOUND") || page.body.contains("тариф") || page.body.contains("plan"),
        "{}",
        page.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_outside_the_frame_sees_a_friendly_page() {
    let world = World::new().await;
    for path in ["/bitrix24/main/install", "/bitrix24/main/app"] {
        let (status, html) = world.get_text(path).await;
        assert!(status == 200 && html.contains("Mostik"), "{status} {html}");
        let answer = world.http.post(format!("{}{path}", world.base())).form(&[("a", "b")]).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(world.get_text("/bitrix24/other/app").await.0, 404);
}
