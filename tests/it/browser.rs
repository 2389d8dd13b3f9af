//! The page of the sandbox and the application's page in the portal's frame, in a real browser: what people see and touch,
//! in both languages, on a desk and in a hand. Pictures are left in `target/screenshots`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::actions::{InputSource, MOUSE_BUTTON_LEFT, MouseActions, PointerAction, TouchActions};
use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use sandbox::{AppSpec, PortalSpec, Sandbox, StageSpec, Switches, TokenPair, entity};
use serde_json::{Value, json};

use crate::world::{DEAL, Wish, World, free_port};

const PHONE: &str = "79161234567";
/// Longest wait for something to appear; a busy machine draws slowly.
const SEEN: Duration = Duration::from_secs(30);
pub(crate) const DESK: (u32, u32) = (1280, 800);
pub(crate) const HAND: (u32, u32) = (400, 840);

/// A browser of its own, without a window.
pub(crate) struct Browser {
    pub(crate) client: Client,
    driver: Child,
    port: u16,
    session: String,
    size: (u32, u32),
    _profile: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends its browser only when it is asked to, and nothing can be awaited here.
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            let wish = format!(
                "DELETE /session/{} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                self.session, self.port
            );
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = stream.write_all(wish.as_bytes());
            let _ = stream.read_to_end(&mut Vec::new());
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The programs; a machine without them fails the test instead of passing it unseen.
fn program(name: &str) -> std::ffi::OsString {
    std::env::var_os(name).unwrap_or_else(|| {
        panic!("{name} is not set: run tests/run, or source tests/tools/browser first, which installs Chromium")
    })
}

impl Browser {
    pub(crate) async fn open(language: &str, size: (u32, u32)) -> Self {
        let (chromium, chromedriver) = (program("CHROMIUM"), program("CHROMEDRIVER"));
        let profile = tempfile::tempdir().unwrap();
        let port = free_port();
        let driver = Command::new(chromedriver)
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("CHROMEDRIVER cannot be run");
        let deadline = Instant::now() + SEEN;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "chromedriver does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let is_hand = size.0 < 800;
        let options = json!({
            "binary": chromium.to_str().unwrap(),
            "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--disable-dev-shm-usage",
                format!("--user-data-dir={}", profile.path().display()),
            ],
            "prefs": {"intl.accept_languages": language},
            "mobileEmulation": {"deviceMetrics": {
                "width": size.0, "height": size.1, "pixelRatio": if is_hand { 2 } else { 1 },
                "touch": is_hand, "mobile": is_hand,
            }},
        });
        let wishes = json!({"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}});
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(wishes.as_object().unwrap().clone())
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("Chromium does not start");
        let session = client.session_id().await.unwrap().unwrap();
        Self { client, driver, port, session, size, _profile: profile }
    }

    pub(crate) async fn see(&self, css: &str) -> Element {
        let wait = self.client.wait().at_most(SEEN).every(Duration::from_millis(50));
        match wait.for_element(Locator::Css(css)).await {
            Ok(element) => element,
            Err(error) => {
                self.picture("failure").await;
                panic!("{css} is not seen: {error}\n{}", self.client.source().await.unwrap_or_default());
            }
        }
    }

    /// Waits until the script gives something true; gives it.
    pub(crate) async fn until(&self, what: &str, script: &str) -> Value {
        let deadline = Instant::now() + SEEN;
        loop {
            let value = self.client.execute(script, vec![]).await.unwrap();
            if value.as_bool() == Some(true) || value.as_str().is_some_and(|text| !text.is_empty()) {
                return value;
            }
            if Instant::now() > deadline {
                self.picture("failure").await;
                panic!("not seen: {what}\n{}", self.client.source().await.unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn text(&self, css: &str) -> String {
        self.see(css).await.text().await.unwrap()
    }

    pub(crate) async fn click(&self, css: &str) {
        self.see(css).await.click().await.unwrap();
    }

    pub(crate) async fn count(&self, css: &str) -> usize {
        self.client.find_all(Locator::Css(css)).await.unwrap().len()
    }

    pub(crate) async fn picture(&self, name: &str) {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        let png = self.client.screenshot().await.unwrap();
        std::fs::write(folder.join(format!("{name}-{}.png", self.size.0)), png).unwrap();
    }

    async fn middle(&self, css: &str) -> (f64, f64) {
        let (x, y, width, height) = self.see(css).await.rectangle().await.unwrap();
        (x + width / 2.0, y + height / 2.0)
    }

    /// Drags a card to a stage: with a mouse on a desk, with a finger and over the edge in a hand.
    async fn drag(&self, deal: i64, stage: &str) {
        let (from_x, from_y) = self.middle(&format!("[data-deal='{deal}'] .client")).await;
        let (left, _, width, _) = self.see(&format!("[data-stage='{stage}']")).await.rectangle().await.unwrap();
        let seen = (f64::from(self.size.0) - 12.0).min(left + width / 2.0);
        let pause = |ms| PointerAction::Pause { duration: Duration::from_millis(ms) };
        let to = |x, y, ms| PointerAction::MoveTo { duration: Some(Duration::from_millis(ms)), x, y };
        let way = [
            to(from_x, from_y, 0),
            PointerAction::Down { button: MOUSE_BUTTON_LEFT },
            // Long enough for a finger; a mouse does not mind.
            pause(600),
            to(from_x + 20.0, from_y + 10.0, 60),
            to(seen, from_y + 40.0, 120),
            pause(60),
            PointerAction::Up { button: MOUSE_BUTTON_LEFT },
        ];
        if self.size == HAND {
            let finger = way.into_iter().fold(TouchActions::new("finger".to_owned()), TouchActions::then);
            self.client.perform_actions(finger).await.unwrap();
        } else {
            let mouse = way.into_iter().fold(MouseActions::new("mouse".to_owned()), MouseActions::then);
            self.client.perform_actions(mouse).await.unwrap();
        }
        self.client.release_actions().await.unwrap();
    }

    /// What the browser complained about: refused by policy, broken scripts, missing files.
    pub(crate) async fn complaints(&self, http: &reqwest::Client) -> Vec<String> {
        let url = format!("http://127.0.0.1:{}/session/{}/se/log", self.port, self.session);
        let answer = http.post(url).json(&json!({"type": "browser"})).send().await.unwrap();
        let log: Value = answer.json().await.unwrap();
        let entries = log["value"].as_array().unwrap().clone();
        entries.iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

fn words(language: &'static str) -> (&'static str, &'static str, &'static str) {
    match language {
        "ru" => ("Прочитано", "Лента", "Окно 24 ч: открыто"),
        _ => ("Read", "Timeline", "24-hour window: open"),
    }
}

/// Drag a deal to a stage with a robot, watch it become read, look at the card, answer from the phone.
async fn play(language: &'static str, size: (u32, u32)) {
    let world = World::with(Wish { language, ..Wish::default() }).await;
    let browser = Browser::open(language, size).await;
    let template = if language == "ru" { "order_update:ru" } else { "order_update:en" };
    world.robot_on(
        DEAL,
        &json!({"recipients": "main", "template": template, "params": ["{=Document:CONTACT.NAME}", "{=Document:ID}"]}),
        |automation| automation.stage_id = "PREPARATION".to_owned(),
    );
    let deal = world.deal(PHONE);
    let (read, timeline, open) = words(language);
    world.sandbox.clear_journal();

    browser.client.goto(&format!("{}/", world.sandbox.addresses().control)).await.unwrap();
    browser.see(&format!("[data-stage='NEW'] [data-deal='{deal}']")).await;
    browser.until("the page is live", "return document.getElementById('live').dataset.state === 'live'").await;
    assert_eq!(browser.client.execute("return document.documentElement.lang", vec![]).await.unwrap(), json!(language));
    browser.picture(&format!("board-{language}")).await;

    browser.drag(deal, "PREPARATION").await;
    browser.see(&format!("[data-stage='PREPARATION'] [data-deal='{deal}']")).await;
    let badge = format!("[data-deal='{deal}'] [data-testid='badge']");
    browser.see(&format!("{badge}[data-state='read']")).await;
    assert_eq!(browser.text(&badge).await, read);
    assert_eq!(world.messages(PHONE).len(), 1);
    browser.picture(&format!("moved-{language}")).await;

    browser.click(&format!("[data-deal='{deal}'] .open")).await;
    let comment = browser.text("[data-testid='comment']").await;
    for piece in ["WhatsApp", "+79161234567", template, read] {
        assert!(comment.contains(piece), "{piece}: {comment}");
    }
    assert!(browser.text("#panel").await.contains(timeline));
    browser.until("the robot's result", "return document.querySelector('.pill.good') !== null").await;
    browser.picture(&format!("card-{language}")).await;

    if size == HAND {
        browser.click("[data-testid='tab-phone']").await;
    }
    let said = "<b>Спасибо</b> & [b]до встречи[/b]";
    browser.see("[data-testid='answer']").await.send_keys(said).await.unwrap();
    browser.click("[data-testid='send']").await;
    browser.see("[data-testid='bubble'][data-route='in']").await;
    assert!(browser.text("[data-testid='bubble'][data-route='in']").await.contains(said));
    assert_eq!(browser.count("[data-testid='bubble']").await, 2);
    assert!(browser.text("[data-testid='window']").await.starts_with(open));
    browser.picture(&format!("phone-{language}")).await;
    world.within(SEEN, "the service has the answer", |w| w.sandbox.counter("webhook.messages") == 1).await;
    let (_, list) = world.get(&format!("/api/v1/messages?peer={PHONE}&state=received")).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");

    let tab = if size == HAND { "[data-testid='tab-lab']" } else { "[data-testid='lab']" };
    browser.click(tab).await;
    browser.click("[data-fault='cut']").await;
    browser.see(".active li").await;
    browser.picture(&format!("faults-{language}")).await;
    assert_eq!(world.sandbox.faults().len(), 1);
    assert_eq!(browser.complaints(&world.http).await, Vec::<String>::new());
    assert!(world.sandbox.refusals().is_empty(), "{:?}", world.sandbox.refusals());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deal_is_dragged_and_its_card_and_phone_tell_in_russian() {
    play("ru", DESK).await;
    play("ru", HAND).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deal_is_dragged_and_its_card_and_phone_tell_in_english() {
    play("en", DESK).await;
    play("en", HAND).await;
}

/// The real installation: our page in the portal's frame speaks with its parent until the portal says INSTALLED.
async fn install(world: &World, language: &'static str, size: (u32, u32)) {
    let switches = Switches { language: language.to_owned(), ..Switches::default() };
    let portal = world
        .sandbox
        .add_portal(PortalSpec { name: "Warm Home · Тёплый дом".into(), switches, ..PortalSpec::default() })
        .await
        .unwrap();
    portal.begin_install(&world.client_id).unwrap();
    let is_installed = || portal.app(&world.client_id).is_some_and(|app| app.installed);
    assert!(!is_installed(), "only the page finishes the installation");

    let browser = Browser::open(language, size).await;
    browser.client.goto(&portal.frame_url(&world.client_id, "DEFAULT")).await.unwrap();
    world.within(SEEN, "the portal says INSTALLED", |_| is_installed()).await;
    // The portal has opened the application itself now.
    world.within(SEEN, "the page is open again", |w| w.sandbox.counter("frame") >= 2).await;
    browser.until("the frame has grown", "return document.querySelector('iframe').style.height !== ''").await;
    browser.see("iframe").await.enter_frame().await.unwrap();
    let ready = browser.text(".good").await;
    assert!(ready.contains(if language == "ru" { "Всё готово" } else { "All is ready" }), "{ready}");
    assert_eq!(browser.client.execute("return document.documentElement.lang", vec![]).await.unwrap(), json!(language));
    let wide = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth";
    assert_eq!(browser.client.execute(wide, vec![]).await.unwrap(), json!(true), "the page does not fit");
    browser.client.clone().enter_parent_frame().await.unwrap();
    browser.picture(&format!("install-{language}")).await;
    assert!(portal.robots().iter().any(|robot| robot.code == "send_message"));
    assert_eq!(world.sandbox.counter("frame.command.setInstallFinish"), 1);
    world.sandbox.clear_journal();
    assert_eq!(browser.complaints(&world.http).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_in_the_frame_finishes_the_installation() {
    let world = World::new().await;
    world.sandbox.clear_journal();
    for (language, size) in [("ru", DESK), ("en", DESK), ("ru", HAND), ("en", HAND)] {
        install(&world, language, size).await;
    }
}

/// A portal with one card, and somebody who may write comments on it.
async fn stranger(sandbox: &Sandbox) -> (sandbox::Portal, TokenPair) {
    let app = sandbox.add_app(AppSpec { application_url: "http://127.0.0.1:9/app".into(), ..AppSpec::default() });
    let portal = sandbox.add_portal(PortalSpec::default()).await.unwrap();
    portal.begin_install(&app.client_id).unwrap();
    let tokens = portal.issue_tokens(&app.client_id, 1).unwrap();
    (portal, tokens)
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_text_stays_text() {
    const EVIL: &str = "<img src=x onerror=\"window.hacked=1\"><script>window.hacked=1</script>";
    let sandbox = Sandbox::start().await.unwrap();
    let (portal, tokens) = stranger(&sandbox).await;
    portal.add_stage(StageSpec {
        entity_type_id: entity::DEAL,
        category_id: 0,
        stage_id: "EVIL".into(),
        name: EVIL.into(),
        semantics: String::new(),
    });
    let contact = portal.add_contact(EVIL, "", &format!("+{PHONE}")).unwrap();
    let deal = portal.add_deal(EVIL, contact).unwrap();
    let text = format!(
        "{EVIL}[b]bold[/b][br][url=javascript:window.hacked=1]bad[/url] [url]javascript:window.hacked=1[/url] \
         [url=https://good.example/?a=1&b=\"2\"]good[/url] [color=red;background:url(x)]c[/color] [user=1]A[/user] \
         [i]open [/b] [img]x[/img] [url=data:text/html,x]d[/url]"
    );
    #[expect(clippy::disallowed_methods, reason = "tests call the portal from outside")]
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = json!({"fields": {"ENTITY_ID": deal, "ENTITY_TYPE": "deal", "COMMENT": text}});
    let url = format!("{}crm.timeline.comment.add", portal.client_endpoint());
    let answer = http.post(url).bearer_auth(&tokens.access_token).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
    let number = sandbox.add_number(sandbox::NumberSpec::default()).unwrap();
    sandbox.phone(PHONE).set(sandbox::PhoneTraits { name: Some(EVIL.into()), ..Default::default() });
    sandbox.phone(PHONE).say(&number, EVIL).unwrap();

    let browser = Browser::open("en", DESK).await;
    browser.client.goto(&format!("{}/", sandbox.addresses().control)).await.unwrap();
    browser.click(&format!("[data-deal='{deal}'] .open")).await;
    let shown = browser.text("[data-testid='comment']").await;
    assert!(shown.starts_with(&format!("{EVIL}bold\n")), "{shown}");
    for piece in ["[i]open [/b] [img]x[/img]", "javascript:window.hacked=1", "good", "bad"] {
        assert!(shown.contains(piece), "{piece}: {shown}");
    }
    browser.see("[data-testid='bubble']").await;
    let links = "return [...document.querySelectorAll('[data-testid=comment] a')].map((link) => link.href).join(' ')";
    assert_eq!(browser.until("the link", links).await, json!("https://good.example/?a=1&b=%222%22"));
    assert_eq!(browser.count("#board img, #panel img, #phone img, #board script").await, 0);
    assert_eq!(browser.client.execute("return window.hacked === undefined", vec![]).await.unwrap(), json!(true));
    assert_eq!(browser.complaints(&http).await, Vec::<String>::new());
    browser.picture("foreign-text").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_board_is_used_without_a_pointer_and_keeps_up_with_many_deals() {
    let sandbox = Sandbox::start().await.unwrap();
    let (portal, _) = stranger(&sandbox).await;
    let contact = portal.add_contact("Анна", "", &format!("+{PHONE}")).unwrap();
    let deal = portal.add_deal("Заказ", contact).unwrap();
    let browser = Browser::open("en", DESK).await;
    browser.client.goto(&format!("{}/", sandbox.addresses().control)).await.unwrap();
    browser.until("the page is live", "return document.getElementById('live').dataset.state === 'live'").await;

    let (tab, down, enter, escape) = ("\u{e004}", "\u{e015}", "\u{e007}", "\u{e00c}");
    browser.see(&format!("[data-deal='{deal}'] .open")).await.send_keys(tab).await.unwrap();
    let menu = browser.client.active_element().await.unwrap();
    menu.send_keys(enter).await.unwrap();
    let first = browser.client.active_element().await.unwrap();
    assert_eq!(first.attr("data-to").await.unwrap().as_deref(), Some("PREPARATION"));
    first.send_keys(down).await.unwrap();
    browser.client.active_element().await.unwrap().send_keys(enter).await.unwrap();
    browser.see(&format!("[data-stage='PREPAYMENT_INVOICE'] [data-deal='{deal}']")).await;
    assert_eq!(portal.item(DEAL, deal).unwrap().stage_id, "PREPAYMENT_INVOICE");
    assert!(browser.text("#say").await.contains("Заказ"));
    browser.see(&format!("[data-deal='{deal}'] .open")).await.send_keys(enter).await.unwrap();
    browser.see("#panel .sheet").await;
    browser.client.active_element().await.unwrap().send_keys(escape).await.unwrap();
    browser.until("the card is closed", "return document.getElementById('panel').hidden").await;

    browser
        .client
        .execute(
            "window.asked = 0; const own = fetch; \
             window.fetch = (...all) => { asked += String(all[0]).startsWith('/control/page'); return own(...all); }",
            vec![],
        )
        .await
        .unwrap();
    let began = Instant::now();
    let ids: Vec<i64> = (0..1000).map(|n| portal.add_deal(&format!("Заказ {n}"), 0).unwrap()).collect();
    portal.move_items(DEAL, &ids, "EXECUTING").unwrap();
    let counted = "return document.querySelector('[data-stage=EXECUTING] .count').textContent === '1,000'";
    browser.until("a thousand deals", counted).await;
    let seconds = began.elapsed().as_secs_f64();
    let asked = browser.client.execute("return asked", vec![]).await.unwrap().as_f64().unwrap();
    assert!(asked <= seconds.mul_add(5.0, 4.0), "{asked} questions in {seconds} s");
    assert_eq!(browser.count("[data-stage='EXECUTING'] .card").await, 12);
}
