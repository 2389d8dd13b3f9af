//! Pages for people, made on the server. They live in the frame of a CRM, so each says which portal may frame it and
//! loads nothing from anywhere else.

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use askama::Template;

use crate::domain::channel::{Channel, ChannelState, Line};
use crate::domain::language::Language;
use crate::i18n;

/// What the application's page in the portal's frame shows.
pub struct FrameView {
    /// The person's language.
    pub language: Language,
    /// The portal's host: the only one that may frame the page.
    pub domain: String,
    /// True on the installer's page: the portal is told when all is well.
    pub installing: bool,
    /// True when everything is registered.
    pub ready: bool,
    /// What has to be there before everything works, in order.
    pub steps: Vec<Step>,
    /// How the installation stands.
    pub facts: Vec<Fact>,
    /// What the administrator should know beyond the steps.
    pub notes: Vec<String>,
    /// Senders this portal can use.
    pub channels: Vec<FrameChannel>,
    /// Calls of robots that never came, oldest first: the first few.
    pub lost: Vec<FrameLost>,
    /// Key of what is said about the button that was pressed, below `page.`.
    pub said: Option<&'static str>,
    /// With what the page's buttons call back.
    pub pass: String,
    /// Where they call: the beginning of the application's addresses.
    pub base: String,
    /// Our id of the portal, for support.
    pub portal: String,
}

impl FrameView {
    /// Everything is there.
    fn complete(&self) -> bool {
        self.ready && self.steps.iter().all(|step| step.done)
    }
}

/// One thing that has to be there.
pub struct Step {
    /// What.
    pub title: String,
    /// It is.
    pub done: bool,
    /// What to do until it is, a line each.
    pub advice: Vec<String>,
}

/// One line about the installation.
pub struct Fact {
    /// What about.
    pub label: String,
    /// How it stands.
    pub value: String,
    /// The same as a moment for machines, where it is one.
    pub at: Option<String>,
    /// As it should be, or not; `None` where neither.
    pub good: Option<bool>,
}

/// A call of a robot that never came.
pub struct FrameLost {
    /// The card, with its kind in the person's language.
    pub card: String,
    /// The stage it entered, in the portal's own words.
    pub stage: String,
    /// When, for people without a script.
    pub shown: String,
    /// When, for machines.
    pub at: String,
    /// False when the robot may have left the card out by itself.
    pub sure: bool,
}

/// What the tab on a card starts with; its dialogs it asks for itself.
pub struct CardView {
    /// The person's language.
    pub language: Language,
    /// The portal's host: the only one that may frame the page.
    pub domain: String,
    /// Where it calls: the beginning of the application's addresses.
    pub base: String,
    /// With what.
    pub pass: String,
}

/// One sender, as a page shows it.
pub struct FrameChannel {
    name: String,
    line: String,
    paused: Option<String>,
    state: String,
}

impl FrameChannel {
    /// Takes from a channel what may be shown.
    #[must_use]
    pub fn new(line: &Line, channel: &Channel, language: Language) -> Self {
        let (paused, key) = match &channel.state {
            ChannelState::Active => (None, "page.works"),
            ChannelState::Paused(reason) => (Some(reason.clone()), "page.paused"),
        };
        let state = i18n::text(language, key, &[]);
        Self { name: channel.name.clone(), line: line.name.clone(), paused, state }
    }
}

/// What the settings page of a connector shows.
pub struct SettingsView {
    /// The person's language.
    pub language: Language,
    /// The portal's host: the only one that may frame the page.
    pub domain: String,
    /// Name of the messenger.
    pub messenger: &'static str,
    /// Where the choice is posted: the page's own address.
    pub action: String,
    /// What goes with it, so that whoever chooses is proved again.
    pub fields: Vec<(&'static str, String)>,
    /// True when a line is chosen.
    pub connected: bool,
    /// What can be chosen.
    pub lines: Vec<LineChoice>,
    /// Whether the chosen line sends the portal's short messages; `None` while none is chosen.
    pub sms: Option<SmsChoice>,
    /// Key of what is said about the last choice, below `page.`.
    pub said: Option<&'static str>,
}

/// Whether a line sends the portal's short messages.
pub struct SmsChoice {
    /// It does.
    pub on: bool,
    /// Its template for a closed window; may be empty.
    pub template: String,
}

/// One line that can be chosen.
pub struct LineChoice {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Names of its channels for the messenger.
    pub channels: String,
    /// It is the one.
    pub chosen: bool,
}

/// A page that says one thing.
pub struct FrameNotice {
    /// The person's language.
    pub language: Language,
    /// Key of the text below `page.`.
    pub key: &'static str,
    /// The portal's host, if it is proved.
    pub domain: Option<String>,
}

#[derive(Template)]
#[template(path = "frame.html")]
struct FramePage<'a> {
    view: &'a FrameView,
    t: Texts,
}

#[derive(Template)]
#[template(path = "card.html")]
struct CardPage<'a> {
    view: &'a CardView,
    t: Texts,
    /// Texts that the page's script shows, as JSON.
    texts: String,
}

#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage<'a> {
    view: &'a SettingsView,
    t: Texts,
}

#[derive(Template)]
#[template(path = "notice.html")]
struct NoticePage {
    t: Texts,
    text: String,
}

/// Texts of a page in one language.
struct Texts(Language);

impl Texts {
    fn say(&self, key: &str) -> String {
        i18n::text(self.0, &format!("page.{key}"), &[])
    }

    fn lang(&self) -> &'static str {
        self.0.code()
    }
}

/// The application's page.
///
/// # Errors
/// The template could not be filled; a defect of ours.
pub fn frame(view: &FrameView) -> Result<HttpResponse, askama::Error> {
    let page = FramePage { view, t: Texts(view.language) }.render()?;
    Ok(html(page, Some(&view.domain)))
}

/// The tab on a card.
///
/// # Errors
/// As [`frame`].
pub fn card(view: &CardView) -> Result<HttpResponse, askama::Error> {
    let texts = i18n::table(view.language, "card");
    let texts = serde_json::to_string(&texts).map_err(|error| askama::Error::Custom(error.into()))?;
    let page = CardPage { view, t: Texts(view.language), texts }.render()?;
    Ok(html(page, Some(&view.domain)))
}

/// The settings page of a connector.
///
/// # Errors
/// As [`frame`].
pub fn settings(view: &SettingsView) -> Result<HttpResponse, askama::Error> {
    let page = SettingsPage { view, t: Texts(view.language) }.render()?;
    Ok(html(page, Some(&view.domain)))
}

/// A page that says one thing, inside a frame.
///
/// # Errors
/// As [`frame`].
pub fn frame_notice(notice: &FrameNotice) -> Result<HttpResponse, askama::Error> {
    let t = Texts(notice.language);
    let text = t.say(notice.key);
    Ok(html(NoticePage { t, text }.render()?, notice.domain.as_deref()))
}

/// What somebody sees who opens one of our addresses outside a portal.
///
/// # Errors
/// As [`frame`].
pub fn visitor() -> Result<HttpResponse, askama::Error> {
    let (ru, en) = (Texts(Language::Ru).say("visitor"), Texts(Language::En).say("visitor"));
    Ok(html(NoticePage { t: Texts(Language::En), text: format!("{en}\n\n{ru}") }.render()?, None))
}

/// An HTML answer that may be framed by the given portal only.
fn html(page: String, framed_by: Option<&str>) -> HttpResponse {
    // The host was proved by the authorization server; what is no plain host frames nothing.
    let host = framed_by.filter(|host| {
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':'))
    });
    let ancestors = host.map_or("'none'".to_owned(), |host| format!("'self' https://{host} http://{host}"));
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
         form-action 'self'; frame-ancestors {ancestors}"
    );
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, policy))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(page)
}

/// Files of our pages, compiled in.
pub fn assets(config: &mut web::ServiceConfig) {
    config
        .route("/assets/page.css", web::get().to(async || asset("text/css", include_str!("ui/assets/page.css"))))
        .route("/assets/frame.js", web::get().to(async || asset("text/javascript", include_str!("ui/assets/frame.js"))))
        .route("/assets/card.js", web::get().to(async || asset("text/javascript", include_str!("ui/assets/card.js"))));
}

fn asset(kind: &'static str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(format!("{kind}; charset=utf-8"))
        .insert_header((header::CACHE_CONTROL, "public, max-age=300"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(response: HttpResponse) -> String {
        let bytes = actix_web::body::to_bytes(response.into_body()).await.unwrap_or_default();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn view(language: Language) -> FrameView {
        FrameView {
            language,
            domain: "acme.example".into(),
            installing: true,
            ready: true,
            steps: vec![Step { title: "<b>".into(), done: false, advice: vec!["<i>".into()] }],
            facts: vec![Fact { label: "<u>".into(), value: "1".into(), at: None, good: Some(false) }],
            notes: vec!["<script>alert(1)</script>".into()],
            channels: vec![],
            lost: vec![FrameLost {
                card: "<s>".into(),
                stage: "<em>".into(),
                shown: "1".into(),
                at: "1".into(),
                sure: false,
            }],
            said: Some("repaired"),
            pass: "pass".into(),
            base: "/bitrix24/main".into(),
            portal: "prt_1".into(),
        }
    }

    #[actix_web::test]
    async fn only_the_portal_may_frame_its_page() {
        let response = frame(&view(Language::Ru)).unwrap();
        let policy = response.headers().get("content-security-policy").unwrap().to_str().unwrap().to_owned();
        assert!(policy.ends_with("frame-ancestors 'self' https://acme.example http://acme.example"), "{policy}");
        let mut strange = view(Language::En);
        strange.domain = "x.example; script-src *".into();
        let policy =
            frame(&strange).unwrap().headers().get("content-security-policy").unwrap().to_str().unwrap().to_owned();
        assert!(policy.ends_with("frame-ancestors 'none'"), "{policy}");
    }

    #[actix_web::test]
    async fn pages_escape_what_they_show_and_exist_in_both_languages() {
        let russian = body(frame(&view(Language::Ru)).unwrap()).await;
        let english = body(frame(&view(Language::En)).unwrap()).await;
        for page in [&russian, &english] {
            for raw in ["<script>alert", "<b>", "<i>", "<u>", "<s>", "<em>"] {
                assert!(!page.contains(raw), "{raw}: {page}");
            }
            assert!(!page.contains(">page."), "a text is missing: {page}");
        }
        assert_ne!(russian, english);
        assert!(russian.contains("lang=\"ru\"") && english.contains("lang=\"en\""));
    }
}
