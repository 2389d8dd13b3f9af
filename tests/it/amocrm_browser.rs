//! The widget of amoCRM in a real browser: loaded from its archive into the simulated account's pages, filled in by hand,
//! in both languages. Pictures are left in `target/screenshots`.

use fantoccini::Locator;
use sandbox::BotState;
use serde_json::{Value, json};

use crate::amocrm::{Amo, CLIENT};
use crate::amocrm_widget::package;
use crate::browser::{Browser, DESK, HAND};

/// A connected account with the widget uploaded, and a browser on one of its pages.
struct Desk {
    amo: Amo,
    browser: Browser,
    language: &'static str,
}

impl Desk {
    async fn new(language: &'static str, size: (u32, u32)) -> Self {
        let amo = Amo::connected(false, "").await;
        let (archive, _) = package(&amo.world).await;
        amo.account.upload_widget(CLIENT, &archive).unwrap();
        let browser = Browser::open(language, size).await;
        Self { amo, browser, language }
    }

    async fn open(&self, place: &str) {
        self.open_with(place, "").await;
    }

    async fn open_with(&self, place: &str, query: &str) {
        let url = format!("{}?lang={}{query}#{place}", self.amo.account.page_url(), self.language);
        // The same page with another place would only be told of the place.
        self.browser.client.goto("about:blank").await.unwrap();
        self.browser.client.goto(&url).await.unwrap();
        let area = place.split('/').next().unwrap();
        self.browser.see(&format!("body[data-area='{area}']")).await;
    }

    async fn write(&self, css: &str, text: &str) {
        let field = self.browser.see(css).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    async fn choose(&self, css: &str, value: &str) {
        let field = self.browser.see(css).await;
        // Choices come with the lists that the service gives.
        self.browser.see(&format!("{css} option[value='{value}']")).await;
        field.select_by_value(value).await.unwrap();
    }

    /// Nothing the widget did was against the rules of the host, and nothing broke in the browser. What a refusal leaves in
    /// its log is told beforehand.
    async fn is_clean(&self, expected: usize) {
        let errors =
            self.browser.client.execute("return document.getElementById('errors').textContent", vec![]).await.unwrap();
        assert_eq!(errors, json!(""));
        let complaints = self.browser.complaints(&self.amo.world.http).await;
        assert_eq!(complaints.len(), expected, "{complaints:?}");
    }

    async fn fits(&self) {
        let fits = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth";
        assert_eq!(self.browser.client.execute(fits, vec![]).await.unwrap(), json!(true), "the page does not fit");
    }
}

async fn a_step_is_written_saved_and_run(language: &'static str) {
    let desk = Desk::new(language, DESK).await;
    let (amo, browser) = (&desk.amo, &desk.browser);
    let russian = language == "ru";
    desk.open("designer/send_message").await;
    // Nothing is chosen yet: that would fail, and is told before anybody saves.
    let empty = if russian { "Нет ни текста" } else { "There is no text" };
    browser
        .until(
            "the problem is told",
            &format!(
                "return (document.querySelector('.mostik-problem')||{{}}).textContent?.includes('{empty}') === true"
            ),
        )
        .await;
    browser.picture(&format!("widget-step-empty-{language}")).await;
    let template = if russian { "order_update:ru" } else { "order_update:en" };
    desk.choose("[data-name='template']", template).await;
    browser.see("[data-param='2']").await;
    // A field of the card that may be empty, without a default.
    let insert = ".mostik-param:nth-of-type(1) .mostik-insert";
    desk.choose(insert, "{{contact.name}}").await;
    desk.write("[data-param='2']", "1204").await;
    let bare = if russian {
        "Параметр 1 может оказаться пустым"
    } else {
        "Parameter 1 may come empty"
    };
    browser
        .until(
            "the empty parameter is told",
            &format!(
                "return (document.querySelector('.mostik-problem')||{{}}).textContent?.includes('{bare}') === true"
            ),
        )
        .await;
    browser.picture(&format!("widget-step-problem-{language}")).await;
    desk.write("[data-param-default='1']", if russian { "клиент" } else { "friend" }).await;
    browser.until("nothing is wrong", "return document.querySelector('.mostik-good') !== null && document.querySelector('.mostik-problem') === null").await;
    browser.picture(&format!("widget-step-{language}")).await;
    browser.click("[data-testid='save-block']").await;
    browser.see("[data-testid='said'][data-block='0']").await;
    let code = &amo.account.blocks()[0].code;
    let data = &code[0]["question"][0]["params"]["data"];
    assert_eq!(
        (&data["v"], &data["action"], &data["template"]),
        (&json!("1"), &json!("send_message"), &json!(template))
    );
    assert_eq!((&data["params"], &data["lead"]), (&json!(["{{contact.name}}", "1204"]), &json!("{{lead.id}}")));
    // The frozen code runs, and the bot fills in the name; where there is none, the default stands.
    for (phone, name) in [("79058880001", "Анна Ким"), ("79058880011", "")] {
        let contact = amo.account.add_contact(name, &[(phone, "MOB")]);
        let lead = amo.account.add_lead("Заказ", &[contact]);
        let run = amo.went_on(amo.account.run_block(0, lead).unwrap()).await;
        assert_eq!((run.state, run.left.as_deref()), (BotState::Continued, Some("success")), "{:?}", run.data);
        let default = if russian { "клиент" } else { "friend" };
        let shown = amo.world.messages(phone)[0].shown.text.clone();
        assert!(shown.contains(if name.is_empty() { default } else { name }), "{shown}");
        amo.note_says(lead, "Прочитано").await;
    }
    desk.is_clean(0).await;
    // The other way out.
    let nobody = amo.account.add_lead("Заказ", &[]);
    let failed = amo.went_on(amo.account.run_block(0, nobody).unwrap()).await;
    assert_eq!(failed.left.as_deref(), Some("fail"), "{:?}", failed.data);
    for shape in ["nested", "objects"] {
        desk.open_with("designer/send_message", &format!("&params={shape}")).await;
        desk.choose("[data-name='template']", template).await;
        desk.write("[data-param='1']", "a").await;
        desk.write("[data-param='2']", "b").await;
        let before = amo.account.blocks().len();
        browser.click("[data-testid='save-block']").await;
        browser.see(&format!("[data-testid='said'][data-block='{before}']")).await;
        let data = amo.account.blocks()[before].code[0]["question"][0]["params"]["data"].clone();
        assert_eq!((&data["params"], &data["template"]), (&json!(["a", "b"]), &json!(template)), "{shape}");
    }
    desk.is_clean(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_written_saved_and_run_in_russian() {
    a_step_is_written_saved_and_run("ru").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_written_saved_and_run_in_english() {
    a_step_is_written_saved_and_run("en").await;
}

async fn a_card(language: &'static str, size: (u32, u32)) {
    let desk = Desk::new(language, size).await;
    let (amo, browser) = (&desk.amo, &desk.browser);
    let russian = language == "ru";
    let lead = amo.lead("+7 905 888-00-02");
    desk.open(&format!("lead/{lead}")).await;
    browser.see("#right .mostik-panel .mostik-composer [data-name='send']").await;
    desk.fits().await;
    browser.picture(&format!("widget-card-{language}")).await;
    // A click on the phone, a channel, a template, and away.
    browser.click("[data-phone='+7 905 888-00-02']").await;
    let caption = browser.text("[data-testid='call-action']").await;
    assert_eq!(caption, if russian { "Написать в мессенджер" } else { "Write in a messenger" });
    browser.click("[data-testid='call-action']").await;
    browser.see(".mostik-over [data-name='send']").await;
    // Nothing written yet: said at once, and nothing is sent.
    browser.click(".mostik-over [data-name='send']").await;
    browser.see(".mostik-over .mostik-bad").await;
    desk.choose(".mostik-over [data-name='template']", if russian { "order_update:ru" } else { "order_update:en" })
        .await;
    desk.write(".mostik-over [data-param='1']", "Анна").await;
    desk.write(".mostik-over [data-param='2']", "12").await;
    browser.picture(&format!("widget-write-first-{language}")).await;
    browser.click(".mostik-over [data-name='send']").await;
    browser.see(".mostik-over .mostik-good").await;
    browser.click(".mostik-close").await;
    amo.note_says(lead, "Прочитано").await;
    assert_eq!(amo.world.messages("79058880002").len(), 1);
    browser.see("[data-testid='note']").await;
    // What the client answers stands in the panel, and foreign text stays text.
    let said = "<b>Спасибо</b><img src=x onerror=\"window.hacked=1\">";
    amo.world.sandbox.phone("79058880002").say(&amo.world.number, said).unwrap();
    amo.world.until("the answer is here", |w| w.sandbox.counter("webhook.messages") >= 1).await;
    desk.open(&format!("lead/{lead}")).await;
    let deadline = std::time::Instant::now() + crate::world::SOON;
    loop {
        browser.see(".mostik-dialog .mostik-out").await;
        let answers = browser.client.find_all(Locator::Css(".mostik-dialog .mostik-in .mostik-bubble")).await.unwrap();
        if let Some(answer) = answers.first() {
            assert_eq!(answer.text().await.unwrap(), said);
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the answer is not in the panel");
        desk.open(&format!("lead/{lead}")).await;
    }
    assert_eq!(browser.client.execute("return window.hacked === undefined", vec![]).await.unwrap(), json!(true));
    browser.picture(&format!("widget-dialog-{language}")).await;
    desk.is_clean(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_writes_first_from_a_card_in_russian() {
    a_card("ru", DESK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_writes_first_from_a_card_in_english() {
    a_card("en", HAND).await;
}

async fn settings_and_triggers(language: &'static str) {
    let desk = Desk::new(language, DESK).await;
    let (amo, browser) = (&desk.amo, &desk.browser);
    desk.open("settings").await;
    // Without consent it is not installed.
    browser.click("[data-testid='install']").await;
    browser.see("[data-testid='said'][data-saved='0']").await;
    assert!(!amo.account.widget_installed());
    browser.click("#mostik-consent").await;
    browser.picture(&format!("widget-settings-{language}")).await;
    browser.click("[data-testid='install']").await;
    browser.see("[data-testid='said'][data-saved='1']").await;
    assert!(amo.account.widget_installed());
    desk.open("settings").await;
    browser.see(".mostik-overview .mostik-line .mostik-good").await;
    desk.open("advanced").await;
    browser.see("#list_page_holder .mostik-line .mostik-good").await;
    browser.picture(&format!("widget-advanced-{language}")).await;
    desk.open("trigger").await;
    let template = if language == "ru" { "order_update:ru" } else { "order_update:en" };
    desk.choose("[data-name='template']", template).await;
    desk.write("[data-param='1']", "Анна").await;
    desk.write("[data-param='2']", "12").await;
    browser.picture(&format!("widget-trigger-{language}")).await;
    browser.click("[data-testid='save-trigger']").await;
    browser.see("[data-testid='said'][data-saved='1']").await;
    let lead = amo.lead("79058880003");
    desk.open(&format!("lead/{lead}")).await;
    browser.click("[data-move='60010204']").await;
    amo.note_says(lead, "Прочитано").await;
    assert_eq!(amo.world.messages("79058880003").len(), 1);
    // The refused installation is the one thing in the browser's log.
    desk.is_clean(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_widget_is_set_up_in_russian() {
    settings_and_triggers("ru").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_widget_is_set_up_in_english() {
    settings_and_triggers("en").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_answer_is_told_and_asked_again() {
    let mut desk = Desk::new("en", DESK).await;
    desk.amo.world.kill();
    desk.open("designer/send_message").await;
    let words = desk.browser.text(".mostik-step .mostik-bad").await;
    assert!(words.contains("does not answer"), "{words}");
    desk.amo.world.restart().await;
    desk.browser.click(".mostik-step .mostik-button").await;
    desk.browser.see(".mostik-step [data-name='template']").await;
    let left: Value = desk
        .browser
        .client
        .execute("return document.querySelector('.mostik-step .mostik-button')", vec![])
        .await
        .unwrap();
    assert_eq!(left, Value::Null);
}
