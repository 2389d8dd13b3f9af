//! Pages inside Bitrix24 in a real browser, in both languages, on a desk and in a hand: the application's page and the tab
//! on a card. Pictures are left in `target/screenshots`.

use sandbox::{Switches, UserSpec};
use serde_json::{Value, json};

use crate::browser::{Browser, HAND, SEEN};
use crate::world::{Wish, World};

const PHONE: &str = "79161234567";
const OTHER_PHONE: &str = "79261234567";
/// As large as a picture may be where applications are listed; those of the folder `listing` are meant for that.
const DESK: (u32, u32) = (1280, 720);
const TAB: &str = "CRM_DEAL_DETAIL_TAB";

async fn furnished(language: &'static str) -> World {
    let world = World::with(Wish { open_lines: true, language, ..Wish::default() }).await;
    let has_tab =
        |w: &World| w.portal.app(&w.client_id).is_some_and(|app| app.placements.iter().any(|(code, _)| code == TAB));
    world.until("the tab is bound", has_tab).await;
    world
}

async fn fits(browser: &Browser) {
    let wide = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth";
    assert_eq!(browser.client.execute(wide, vec![]).await.unwrap(), json!(true), "the page does not fit");
}

async fn picture(browser: &Browser, name: &str) {
    browser.client.clone().enter_parent_frame().await.unwrap();
    browser.client.execute("window.scrollTo(0, 0)", vec![]).await.unwrap();
    browser.picture(name).await;
    browser.see("iframe").await.enter_frame().await.unwrap();
}

/// Where a picture goes that `mostik package bitrix24 --screenshots` may take.
fn listed(size: (u32, u32), name: &str) -> String {
    if size == DESK { format!("listing/{name}") } else { name.to_owned() }
}

async fn write(browser: &Browser, text: &str) {
    browser.see("#text:not([disabled])").await.send_keys(text).await.unwrap();
}

/// The client's words and ours, live; written first with a template; a double click sends once; a reload shows it all.
async fn play(language: &'static str, size: (u32, u32)) {
    let world = furnished(language).await;
    let deal = world.deal(PHONE);
    let browser = Browser::open(language, size).await;
    let options = json!({"ID": deal.to_string()}).to_string();
    let options: String = form_urlencoded::byte_serialize(options.as_bytes()).collect();
    let url = format!("{}&options={options}", world.portal.frame_url(&world.client_id, TAB));
    browser.client.goto(&url).await.unwrap();
    browser.see("iframe").await.enter_frame().await.unwrap();
    browser.see("#dialogs button.chosen").await;
    browser.until("templates are offered", "return document.querySelectorAll('#template option').length > 1").await;
    assert_eq!(browser.client.execute("return document.documentElement.lang", vec![]).await.unwrap(), json!(language));
    assert_eq!(browser.count("#text[disabled]").await, 1, "free text has to wait for the client");
    fits(&browser).await;
    picture(&browser, &format!("tab-closed-{language}")).await;

    let template = if language == "ru" { "order_update:ru" } else { "order_update:en" };
    browser.see("#template").await.select_by_value(template).await.unwrap();
    browser.see("#params input:first-child").await.send_keys("Анна").await.unwrap();
    browser.see("#params input:last-child").await.send_keys("1042").await.unwrap();
    let preview = browser.text("#preview").await;
    assert!(preview.contains("Анна") && preview.contains("1042"), "{preview}");
    picture(&browser, &format!("tab-template-{language}")).await;
    // A double click: the second one finds the letter on its way, or known.
    browser
        .client
        .execute("const b = document.getElementById('send'); b.click(); b.click(); return true", vec![])
        .await
        .unwrap();
    browser.see("#messages .out[data-state='read']").await;
    assert_eq!(world.messages(PHONE).len(), 1);

    world.open_window(PHONE).await;
    browser.see("#messages .in").await;
    browser.see("#window.open").await;
    picture(&browser, &listed(size, &format!("tab-{language}"))).await;
    let said = "<b>Спасибо</b> & [b]до встречи[/b] 👍";
    write(&browser, said).await;
    browser.click("#send").await;
    browser
        .until("it is read", "return document.querySelectorAll(\"#messages .out[data-state='read']\").length === 2")
        .await;
    assert_eq!(browser.text("#messages .out:last-child p").await, said);
    assert_eq!(
        browser.client.execute("return document.getElementById('text').value", vec![]).await.unwrap(),
        json!("")
    );
    fits(&browser).await;
    picture(&browser, &format!("tab-open-{language}")).await;

    // Opened again: everything is there, and nothing is sent again.
    browser.client.goto(&url).await.unwrap();
    browser.see("iframe").await.enter_frame().await.unwrap();
    browser.until("all is there", "return document.querySelectorAll('#messages article').length === 3").await;
    assert_eq!(world.messages(PHONE).len(), 2);
    assert_eq!(browser.complaints(&world.http).await, Vec::<String>::new());
    assert!(world.sandbox.refusals().is_empty(), "{:?}", world.sandbox.refusals());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tab_on_a_card_is_live_in_russian() {
    play("ru", DESK).await;
    play("ru", HAND).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tab_on_a_card_is_live_in_english() {
    play("en", DESK).await;
    play("en", HAND).await;
}

/// A pass that has ended is renewed by the portal's frame, without a word to the person.
#[tokio::test(flavor = "multi_thread")]
async fn a_tab_left_open_gets_another_pass_from_the_portal() {
    let world = furnished("en").await;
    world.open_window(PHONE).await;
    let contact = world.portal.add_contact("Ada", "Byron", PHONE).unwrap();
    let deal = world.portal.add_deal("Order", contact).unwrap();
    let employee = world.portal.add_user(UserSpec { name: "Oleg".into(), ..UserSpec::default() });
    let browser = Browser::open("en", DESK).await;
    let options: String =
        form_urlencoded::byte_serialize(json!({"ID": deal.to_string()}).to_string().as_bytes()).collect();
    let url = format!("{}&user={employee}&options={options}", world.portal.frame_url(&world.client_id, TAB));
    // The page's clock runs; the service answers 401 as it does for a pass that has ended.
    browser.client.goto(&url).await.unwrap();
    browser.see("iframe").await.enter_frame().await.unwrap();
    browser.see("#messages .in").await;
    let ended = "const real = window.fetch; window.refused = 0; window.fetch = function (path, options) { \
        if (window.refused === 0 && String(path).endsWith('/card/dialogs')) { window.refused = 1; \
        return Promise.resolve(new Response('', { status: 401 })); } \
        if (String(path).endsWith('/card/pass')) { window.renewed = true; } return real(path, options); }; return true";
    browser.client.execute(ended, vec![]).await.unwrap();
    browser.until("another pass was asked for", "return window.renewed === true").await;
    world.within(SEEN, "the frame was asked", |w| w.sandbox.counter("frame.command.refreshAuth") == 1).await;
    write(&browser, "Still here").await;
    browser.click("#send").await;
    browser.see("#messages .out[data-state='read']").await;
    // Settings are not for them, and the page says so where it is looked at.
    browser
        .client
        .goto(&format!("{}&user={employee}", world.portal.frame_url(&world.client_id, "DEFAULT")))
        .await
        .unwrap();
    browser.see("iframe").await.enter_frame().await.unwrap();
    let said = browser.text("p.lines").await;
    assert!(said.contains("administrators"), "{said}");
    assert_eq!(browser.complaints(&world.http).await, Vec::<String>::new());
}

/// The application's page: what is missing, how it stands, buttons.
async fn look(world: &World, language: &'static str, size: (u32, u32)) {
    world.portal.set_switches(|switches: &mut Switches| switches.language = language.to_owned());
    world.portal.set_scopes(&world.client_id, &["crm", "bizproc", "imopenlines", "im", "disk"]).unwrap();
    let browser = Browser::open(language, size).await;
    let url = world.portal.frame_url(&world.client_id, "DEFAULT");
    browser.client.goto(&url).await.unwrap();
    browser.see("iframe").await.enter_frame().await.unwrap();
    let missing = browser.text(".steps .open").await;
    assert!(missing.contains("placement"), "{missing}");
    picture(&browser, &format!("app-missing-{language}")).await;

    world.portal.set_scopes(&world.client_id, &["crm", "bizproc", "imopenlines", "im", "placement", "disk"]).unwrap();
    browser.click("#repair").await;
    browser.see(".said").await;
    browser.see(".good").await;
    assert_eq!(browser.count(".steps .open").await, 0);
    browser.click("#test").await;
    let words = if language == "ru" { "обе стороны" } else { "both directions" };
    browser
        .until("the event came", &format!("return document.querySelector('.said').textContent.includes('{words}')"))
        .await;
    assert_eq!(browser.client.execute("return document.documentElement.lang", vec![]).await.unwrap(), json!(language));
    let times = "return [...document.querySelectorAll('time')].every(time => !time.textContent.includes('UTC'))";
    assert_eq!(browser.client.execute(times, vec![]).await.unwrap(), Value::Bool(true), "in the reader's own time");
    fits(&browser).await;
    picture(&browser, &listed(size, &format!("app-{language}"))).await;
    assert_eq!(browser.complaints(&world.http).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_says_what_is_missing_and_mends_it() {
    let world = furnished("ru").await;
    world.deal(OTHER_PHONE);
    for (language, size) in [("ru", DESK), ("en", HAND), ("ru", HAND), ("en", DESK)] {
        look(&world, language, size).await;
    }
}
