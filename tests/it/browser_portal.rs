//! What administrators switch and decide in the portal's frame, in a real browser: lost calls of robots, short messages.

use sandbox::{Action, Fault};
use serde_json::json;

use crate::browser::{Browser, HAND};
use crate::chats::{CONNECTOR, connected};
use crate::lost_calls::QUICK;
use crate::world::{DEAL, Wish};

const LOST: &str = "79161230040";
const DESK: (u32, u32) = (1280, 720);

async fn fits(browser: &Browser) {
    let wide = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth";
    assert_eq!(browser.client.execute(wide, vec![]).await.unwrap(), json!(true), "the page does not fit");
}

/// In one language: a lost call stands on the page and is made up for; the connected line becomes a sender and none again.
async fn decide(language: &'static str, size: (u32, u32)) {
    let (world, line) =
        connected(Wish { language, scopes: &["messageservice"], bitrix24: QUICK, ..Wish::default() }).await;
    let robot = json!({"recipients": "main", "template": "order_update:ru", "params": ["Анна", "1"]});
    let stage = world.robot(&robot);
    world.make_known(&stage, 12).await;
    let deal = world.deal(LOST);
    world.sandbox.add_fault(Fault::new("robot.callback", Action::Lose).times(1));
    world.portal.move_item(DEAL, deal, &stage).unwrap();
    world.until_lost("the lost call is found", "", |lost| lost["open"] == 1).await;

    let browser = Browser::open(language, size).await;
    browser.client.goto(&world.portal.frame_url(&world.client_id, "DEFAULT")).await.unwrap();
    browser.see("iframe").await.enter_frame().await.unwrap();
    let listed = browser.text("#lost tbody").await;
    assert!(listed.contains(&deal.to_string()) && listed.contains(&stage), "{listed}");
    fits(&browser).await;
    browser.click("#replay").await;
    browser.see(".said").await;
    assert_eq!(browser.count("#lost").await, 0);
    world.until("it is sent", |w| w.messages(LOST).len() == 1).await;

    let options = json!({"CONNECTOR": CONNECTOR, "LINE": line.to_string(), "STATUS": true, "ACTIVE_STATUS": true});
    let options: String = form_urlencoded::byte_serialize(options.to_string().as_bytes()).collect();
    let url = format!("{}&options={options}", world.portal.frame_url(&world.client_id, "SETTING_CONNECTOR"));
    browser.client.goto(&url).await.unwrap();
    browser.see("iframe").await.enter_frame().await.unwrap();
    browser.click("#sms button[value='on']").await;
    browser.see("#sms button[value='off']").await;
    fits(&browser).await;
    world.until("the portal has the sender", |w| w.portal.senders(&w.client_id).len() == 1).await;
    browser.click("#sms button[value='off']").await;
    browser.until("it is off", "return document.querySelectorAll(\"#sms button[value='off']\").length === 0").await;
    world.until("it is gone", |w| w.portal.senders(&w.client_id).is_empty()).await;
    assert_eq!(browser.complaints(&world.http).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_decides_in_the_frame_in_russian() {
    decide("ru", DESK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_decides_in_the_frame_in_english() {
    decide("en", HAND).await;
}
