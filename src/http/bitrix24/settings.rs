//! The settings page of a connector: which of our lines' clients write into this open line.
//!
//! The portal opens the page when somebody connects the connector to an open line, and later for its settings. The choice
//! is posted to the same address with the tokens the portal gave this browser, so whoever chooses is proved again.

use actix_web::{HttpRequest, HttpResponse, web};
use secrecy::ExposeSecret as _;

use super::{Refused, broken, decode, enter, notice_in_frame, opened, require_app};
use crate::crm::bitrix24::wire::PageOpen;
use crate::domain::channel::Messenger;
use crate::domain::chat::ChatLine;
use crate::domain::language::Language;
use crate::domain::portal::Portal;
use crate::domain::sms::SmsSender;
use crate::domain::template::TemplateRef;
use crate::forms::{member, text, text_at};
use crate::http::State;
use crate::http::problem::Problem;
use crate::storage::chats::Connected;
use crate::ui::{self, LineChoice, SettingsView, SmsChoice};

/// Field of the form that names the line chosen; empty disconnects.
const CHOSEN: &str = "chosen";
/// Field of the form that switches short messages: `on` or `off` …
const SMS: &str = "sms";
/// … and the one that names their template for a closed window.
const SMS_TEMPLATE: &str = "sms_template";
/// Longest number of an open line that is taken.
const PLACE_MAX: usize = 20;

/// Shows the page, and carries out what was chosen on it.
pub(super) async fn page(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    body: web::Bytes,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let (app, connector) = path.into_inner();
    require_app(&state, &app)?;
    let missing = || Problem::NotFound("no such connector".to_owned());
    let messenger = state.bitrix24.messenger_of(&app, &connector).ok_or_else(missing)?;
    let form = decode(&body)?;
    let Some(opened) = opened(&request, &form)? else { return ui::visitor().map_err(broken) };
    let place = text_at(&opened.options, &["LINE"]);
    let of_connector = text_at(&opened.options, &["CONNECTOR"]).eq_ignore_ascii_case(&connector);
    if !of_connector || place.is_empty() || place.len() > PLACE_MAX || !place.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Problem::Malformed("PLACEMENT_OPTIONS name no open line of this connector".to_owned()));
    }
    let language = Language::of_portal(&opened.language);
    let wish = Wish::read(&form);
    let page = Page { state: &state, opened: &opened, messenger, place, language };
    let shown = match enter(&state, &app, &opened).await {
        Ok((portal, proof)) => page.show(&portal, &proof.domain, &request, wish).await,
        Err(refused) => Err(refused),
    };
    match shown {
        Ok(view) => ui::settings(&view).map_err(broken),
        Err(Refused::Said(key)) => notice_in_frame(&opened, key),
        Err(Refused::Problem(problem)) => Err(problem),
    }
}

/// What somebody wants changed.
enum Wish {
    /// Nothing: the page is only looked at.
    Nothing,
    /// The line of this id is connected; empty disconnects.
    Line(String),
    /// The connected line sends the portal's short messages, with this template for a closed window (may be empty).
    Sms(String),
    /// It sends none.
    NoSms,
}

impl Wish {
    fn read(form: &serde_json::Value) -> Self {
        let field = |name: &str| member(form, name).and_then(text);
        match (field(CHOSEN), field(SMS).as_deref()) {
            (Some(line), _) => Self::Line(line),
            (None, Some("on")) => Self::Sms(field(SMS_TEMPLATE).unwrap_or_default().trim().to_owned()),
            (None, Some(_)) => Self::NoSms,
            (None, None) => Self::Nothing,
        }
    }
}

struct Page<'a> {
    state: &'a State,
    opened: &'a PageOpen,
    messenger: Messenger,
    place: String,
    language: Language,
}

impl Page<'_> {
    async fn show(
        &self,
        portal: &Portal,
        domain: &str,
        request: &HttpRequest,
        wish: Wish,
    ) -> Result<SettingsView, Refused> {
        let said = match &wish {
            Wish::Nothing => None,
            Wish::Line(chosen) => Some(self.choose(portal, chosen).await?),
            Wish::Sms(template) => Some(self.send_sms(portal, template).await?),
            Wish::NoSms => Some(self.send_no_sms(portal).await?),
        };
        let stands = self.connected(portal).await?;
        let senders = self.state.storage.sms_senders(&portal.id).await?;
        let sms = stands.as_ref().map(|line| {
            let same = |sender: &&SmsSender| sender.line == line.line && sender.messenger == self.messenger;
            let sender = senders.iter().map(|(sender, _)| sender).find(same);
            SmsChoice {
                on: sender.is_some(),
                template: sender
                    .and_then(|sender| sender.template.as_ref())
                    .map(TemplateRef::label)
                    .unwrap_or_default(),
            }
        });
        let mut lines = Vec::new();
        for line in self.state.storage.lines_of_portal(&portal.id).await?.iter() {
            let channels = self.state.storage.channels_of_line(&line.id).await?;
            let of_messenger = channels.iter().filter(|channel| {
                let provider = self.state.pipeline.provider_of(channel);
                provider.is_some_and(|provider| provider.spec().messenger == self.messenger)
            });
            let names: Vec<&str> = of_messenger.map(|channel| channel.name.as_str()).collect();
            if !names.is_empty() {
                lines.push(LineChoice {
                    id: line.id.to_string(),
                    name: line.name.clone(),
                    channels: names.join(", "),
                    chosen: stands.as_ref().is_some_and(|stands| stands.line == line.id),
                });
            }
        }
        let tokens = self.opened.tokens.as_ref().map(|tokens| tokens.access.expose_secret().to_owned());
        Ok(SettingsView {
            language: self.language,
            domain: domain.to_owned(),
            messenger: self.messenger.title(),
            action: request.path().to_owned(),
            // Without the refresh token: it was kept when the page was opened, and may have been used since.
            fields: vec![
                ("AUTH_ID", tokens.unwrap_or_default()),
                ("member_id", self.opened.member_id.clone()),
                ("SERVER_ENDPOINT", self.opened.server_endpoint.clone().unwrap_or_default()),
                ("LANG", self.opened.language.clone()),
                ("PLACEMENT", self.opened.placement.clone()),
                ("PLACEMENT_OPTIONS", self.opened.options.to_string()),
            ],
            connected: stands.is_some(),
            lines,
            sms,
            said,
        })
    }

    /// The line whose chats stand in this open line.
    async fn connected(&self, portal: &Portal) -> Result<Option<ChatLine>, Refused> {
        let stands = self.state.storage.chat_lines(&portal.id).await?;
        Ok(stands.into_iter().find(|line| line.messenger == self.messenger && line.place == self.place))
    }

    /// Lets the connected line send the portal's short messages; gives the key of what is said about it.
    async fn send_sms(&self, portal: &Portal, template: &str) -> Result<&'static str, Refused> {
        let Some(line) = self.connected(portal).await? else { return Ok("sms_no_line") };
        let template = match template {
            "" => None,
            name => match TemplateRef::parse(name) {
                Some(template) => Some(template),
                None => return Ok("sms_template_wrong"),
            },
        };
        let sender = SmsSender { messenger: self.messenger, line: line.line, template };
        self.state.pipeline.make_sender(portal, &sender).await?;
        Ok("sms_saved")
    }

    /// It sends none any more.
    async fn send_no_sms(&self, portal: &Portal) -> Result<&'static str, Refused> {
        let Some(line) = self.connected(portal).await? else { return Ok("sms_no_line") };
        self.state.pipeline.unmake_sender(portal, self.messenger, &line.line).await?;
        Ok("sms_removed")
    }

    /// Carries out a choice; gives the key of what is said about it.
    async fn choose(&self, portal: &Portal, chosen: &str) -> Result<&'static str, Refused> {
        if chosen.is_empty() {
            self.state.pipeline.disconnect_chats(portal, self.messenger, &self.place).await?;
            return Ok("settings_off");
        }
        let lines = self.state.storage.lines_of_portal(&portal.id).await?;
        let Some(line) = lines.iter().find(|line| line.id.as_str() == chosen) else {
            return Err(Refused::Problem(Problem::NotFound("the portal does not have this line".to_owned())));
        };
        let wanted = ChatLine {
            portal: portal.id.clone(),
            messenger: self.messenger,
            place: self.place.clone(),
            line: line.id.clone(),
        };
        Ok(match self.state.pipeline.connect_chats(portal, &wanted).await? {
            Connected::Yes => "settings_saved",
            Connected::Elsewhere => "settings_elsewhere",
        })
    }
}
