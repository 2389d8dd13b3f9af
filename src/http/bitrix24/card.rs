//! The tab on a card: the dialogs with its people, live, and writing to them.
//!
//! The portal opens the page with the token of whoever looks. What that person may see of the card is read with this very
//! token and put into the page's pass; from then on the page asks us alone, by its pass.

use std::collections::HashMap;

use actix_web::http::StatusCode;
use actix_web::http::header::{ETAG, IF_NONE_MATCH};
use actix_web::{HttpRequest, HttpResponse, web};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::pass::{self, Pass, Scope};
use super::{Refused, broken, decode, notice_in_frame, opened, prove_viewer, require_app, require_form};
use crate::crm::bitrix24::{Proof, card_of};
use crate::domain::channel::ChannelState;
use crate::domain::command::SendMessage;
use crate::domain::dialog::ServiceWindow;
use crate::domain::event::InboundContent;
use crate::domain::ids::ChannelId;
use crate::domain::language::Language;
use crate::domain::message::{Content, TemplateCall};
use crate::domain::phone::Phone;
use crate::domain::portal::{CrmKind, Portal, PortalState};
use crate::domain::template::{ButtonKind, HeaderKind, TemplateDef, TemplateRef};
use crate::http::State;
use crate::http::problem::Problem;
use crate::i18n;
use crate::pipeline::cards::{CardDialog, Letter};
use crate::pipeline::submit::{RequestKey, SubmitError};
use crate::storage::messages::{Created, MessageHistory};
use crate::ui::{self, CardView};

/// The only place below `/placements/`.
const CARD: &str = "card";
/// Longest key of a letter, in bytes.
const KEY_MAX: usize = 64;
/// Longest text, address or name of a letter, in bytes; messengers take less.
const FIELD_MAX: usize = 65_536;
/// Most parameters of a template.
const PARAMS_MAX: usize = 40;

/// Shows the tab.
pub(super) async fn page(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    body: web::Bytes,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let (app, place) = path.into_inner();
    require_app(&state, &app)?;
    if place != CARD {
        return Err(Problem::NotFound("no such place".to_owned()));
    }
    require_form(&request)?;
    let Some(opened) = opened(&request, &decode(&body)?)? else { return ui::visitor().map_err(broken) };
    let language = Language::of_portal(&opened.language);
    let card = card_of(&opened.placement, &opened.options)
        .ok_or_else(|| Problem::Malformed("PLACEMENT and PLACEMENT_OPTIONS name no card".to_owned()))?;
    let shown = async {
        let tokens = opened.tokens.as_ref().ok_or(Refused::Said("no_access"))?;
        let endpoint = opened.server_endpoint.as_deref();
        let (portal, proof) = enter(&state, &app, &tokens.access, endpoint, &opened.member_id).await?;
        let people = people(&state, &proof, &tokens.access, card).await?;
        let pass = Pass::new(&state, &portal, &proof.user_id, language, Scope::card(card, people));
        Ok::<_, Refused>((pass.sealed(&state).map_err(Refused::Problem)?, proof))
    };
    match shown.await {
        Ok((pass, proof)) => {
            ui::card(&CardView { language, domain: proof.domain, base: format!("/bitrix24/{app}"), pass })
                .map_err(broken)
        }
        Err(Refused::Said(key)) => notice_in_frame(&opened, key),
        Err(Refused::Problem(problem)) => Err(problem),
    }
}

/// Proves who is there, in a portal that has installed the application; they need not be an administrator.
async fn enter(
    state: &State,
    app: &str,
    token: &SecretString,
    server_endpoint: Option<&str>,
    member_id: &str,
) -> Result<(Portal, Proof), Refused> {
    let proof = prove_viewer(state, app, token, server_endpoint, member_id).await?;
    let known = state.storage.find_portal(CrmKind::Bitrix24, app, member_id, false).await?;
    match known.filter(|known| known.portal.state != PortalState::Uninstalled) {
        Some(known) if !proof.user_id.is_empty() => Ok((known.portal.clone(), proof)),
        Some(_) => Err(Refused::Said("no_access")),
        None => Err(Refused::Said("not_installed")),
    }
}

/// The people of the card, as far as the token's owner may see them.
async fn people(
    state: &State,
    proof: &Proof,
    token: &SecretString,
    card: crate::domain::portal::CardRef,
) -> Result<Vec<crate::domain::effect::CardPerson>, Refused> {
    state.bitrix24.people_seen(proof, token, card).await.map_err(|error| {
        tracing::info!(vendor.code = error.code, "the card was not given");
        Refused::Said(if error.class.is_final() { "card_hidden" } else { "try_later" })
    })
}

/// What a page sends to get another pass.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Renewal {
    /// The pass it has.
    pass: String,
    /// A fresh token of the same person, from the portal's frame.
    token: SecretString,
}

/// Gives a page another pass for a fresh token of the same person: who they are and what they may see is asked again.
pub(super) async fn renew(
    path: web::Path<String>,
    state: web::Data<State>,
    renewal: web::Json<Renewal>,
) -> Result<HttpResponse, Problem> {
    let app = path.into_inner();
    require_app(&state, &app)?;
    let refused = |refused| match refused {
        Refused::Said("try_later") => Problem::Unavailable,
        Refused::Said(_) => Problem::Forbidden("the page has to be opened again".to_owned()),
        Refused::Problem(problem) => problem,
    };
    let shown = pass::open_old(&state, &app, &renewal.pass).await?;
    let seen = shown.pass.seen_card()?;
    let server = Some(shown.portal.server_endpoint.as_str()).filter(|server| !server.is_empty());
    let (portal, proof) =
        enter(&state, &app, &renewal.token, server, &shown.portal.member_id).await.map_err(refused)?;
    if proof.user_id != shown.pass.user.as_str() || portal.id != shown.pass.portal {
        return Err(Problem::Forbidden("the token of somebody else".to_owned()));
    }
    let people = people(&state, &proof, &renewal.token, seen.card).await.map_err(refused)?;
    let pass = shown.pass.renewed(&state, Scope::card(seen.card, people)).sealed(&state)?;
    Ok(HttpResponse::Ok().json(HashMap::from([("pass", pass)])))
}

/// One dialog, as the page draws it.
#[derive(Serialize)]
struct DialogView {
    channel: String,
    /// Empty where the reader is asked for a name.
    to: String,
    /// Name of the person, or their address where no name is known.
    title: String,
    /// Their address, as people write it.
    address: String,
    messenger: &'static str,
    sender: String,
    /// `unlimited`, `open` or `closed`.
    window: &'static str,
    /// When the window closes, in milliseconds.
    closes_ms: Option<i64>,
    templates: bool,
    /// People can be written to by their names there.
    names: bool,
    paused: bool,
    messages: Vec<MessageView>,
}

/// One message, as the page draws it.
#[derive(Serialize)]
struct MessageView {
    id: String,
    out: bool,
    text: String,
    /// What kind of file it carries, in words; empty for none.
    file: String,
    /// Where the file is, if the reader may open it.
    link: String,
    at_ms: i64,
    /// The state's word, `received` for a message from the person.
    state: &'static str,
    /// The same for people.
    mark: String,
    /// Why it failed and what to do; empty otherwise.
    why: String,
}

#[derive(Serialize)]
struct DialogsView {
    dialogs: Vec<DialogView>,
}

/// The dialogs of the card; 304 when nothing has changed since the page last asked.
pub(super) async fn dialogs(
    request: HttpRequest,
    path: web::Path<String>,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let shown = pass::open(&state, &path, pass::of_header(&request)?).await?;
    let language = shown.pass.language;
    let seen = shown.pass.seen_card()?;
    let found = state.pipeline.card_dialogs(&seen).await?;
    let mut dialogs: Vec<DialogView> = found.iter().map(|dialog| view_of(&state, language, dialog)).collect();
    // Where people have names, somebody without any dialog can be written to by theirs.
    for channel in state.pipeline.channels_of_portal(&seen.portal).await? {
        let (peer, name) = (String::new(), i18n::text(language, "card.by_name", &[]));
        let blank = CardDialog { channel, peer, name, window: ServiceWindow::Unlimited, messages: Vec::new() };
        dialogs.extend(Some(view_of(&state, language, &blank)).filter(|view| view.names));
    }
    let text = serde_json::to_string(&DialogsView { dialogs }).map_err(|_never| Problem::Internal)?;
    let tag = format!("\"{}\"", Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect::<String>());
    let known = request.headers().get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known == Some(tag.as_str()) {
        return Ok(HttpResponse::build(StatusCode::NOT_MODIFIED).insert_header((ETAG, tag)).finish());
    }
    Ok(HttpResponse::Ok()
        .insert_header((ETAG, tag))
        .insert_header(("cache-control", "no-store"))
        .content_type("application/json")
        .body(text))
}

fn view_of(state: &State, language: Language, dialog: &CardDialog) -> DialogView {
    let provider = state.pipeline.provider_of(&dialog.channel);
    let spec = provider.map(|provider| provider.spec());
    let address = Phone::from_digits(&dialog.peer).map_or_else(
        || dialog.peer.rsplit_once('.').map_or(dialog.peer.as_str(), |(_, own)| own).to_owned(),
        |phone| phone.international(),
    );
    let (window, closes_ms) = match dialog.window {
        ServiceWindow::Unlimited => ("unlimited", None),
        ServiceWindow::OpenUntil(until) => ("open", Some(until.0)),
        ServiceWindow::Closed => ("closed", None),
    };
    DialogView {
        channel: dialog.channel.id.to_string(),
        to: dialog.peer.clone(),
        title: if dialog.name.trim().is_empty() { address.clone() } else { dialog.name.clone() },
        address,
        messenger: spec.map_or("", |spec| spec.messenger.title()),
        sender: dialog.channel.name.clone(),
        window,
        closes_ms,
        templates: spec.is_some_and(|spec| spec.capabilities.templates),
        names: spec.is_some_and(|spec| spec.addressing.marks_chat("@name")),
        paused: matches!(dialog.channel.state, ChannelState::Paused(_)),
        messages: dialog
            .messages
            .iter()
            .filter(|known| is_said(known))
            .map(|history| message_of(language, history))
            .collect(),
    }
}

/// False for what was done about a person without a word to them, and for changes of earlier words.
fn is_said(history: &MessageHistory) -> bool {
    // A change shows in the messenger on the message that it is about.
    !matches!(history.record.draft.content, Content::Deed(_)) && history.record.draft.change.is_none()
}

fn message_of(language: Language, history: &MessageHistory) -> MessageView {
    let record = &history.record;
    let say = |key: &str| i18n::text(language, key, &[]);
    let (text, file, link) = match &history.inbound_content {
        Some(stored) => of_person(language, stored),
        None => match &record.draft.content {
            Content::Text { body } => (body.clone(), String::new(), String::new()),
            Content::Media { link, caption, filename, media: _ } => (caption.clone(), filename.clone(), link.clone()),
            Content::Template(call) => {
                let name = i18n::text(language, "comment.template", &[("name", &call.template.label())]);
                let words = std::iter::once(name).chain(call.params.iter().cloned()).collect::<Vec<_>>().join("\n");
                (words, String::new(), String::new())
            }
            Content::Deed(_) => Default::default(),
        },
    };
    let code = record.state.code();
    let why = record.failure.as_ref().map(|failure| {
        let advice = i18n::advice(language, failure.code);
        format!("{}. {advice}", i18n::error(language, failure.code, &failure.detail))
    });
    MessageView {
        id: record.id.to_string(),
        out: !history.inbound,
        text,
        file,
        link: Some(link).filter(|link| link.starts_with("https://")).unwrap_or_default(),
        at_ms: if history.inbound {
            record.times.sent.unwrap_or(record.times.created).0
        } else {
            record.times.created.0
        },
        state: if history.inbound { "received" } else { code },
        mark: if history.inbound { String::new() } else { say(&format!("comment.state_{code}")) },
        why: why.unwrap_or_default(),
    }
}

/// Text, kind of file and link of what a person wrote.
fn of_person(language: Language, stored: &str) -> (String, String, String) {
    match serde_json::from_str::<InboundContent>(stored) {
        Ok(InboundContent::Text { body }) => (body, String::new(), String::new()),
        Ok(InboundContent::Media { media, caption, id: _, mime: _, filename: _ }) => {
            (caption, i18n::file_kind(language, &media), String::new())
        }
        Ok(InboundContent::Other { what }) => {
            (String::new(), i18n::text(language, "chat.other", &[("what", &what)]), String::new())
        }
        Ok(content) => (content.words(), String::new(), String::new()),
        // Written by a newer version: shown as something that came.
        Err(_) => (String::new(), i18n::file_kind(language, ""), String::new()),
    }
}

/// What somebody wrote on the page.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LetterForm {
    channel: String,
    to: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    template: String,
    #[serde(default)]
    params: Vec<String>,
    #[serde(default)]
    file: String,
}

/// The letter with what recognises it when it comes again: a double click, a retry after a cut.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Posted {
    key: String,
    letter: LetterForm,
}

/// Takes a letter over; 202 once it is kept, also for one that came before.
pub(super) async fn write(
    request: HttpRequest,
    path: web::Path<String>,
    state: web::Data<State>,
    posted: web::Json<Posted>,
) -> Result<HttpResponse, Problem> {
    let shown = pass::open(&state, &path, pass::of_header(&request)?).await?;
    let language = shown.pass.language;
    let Posted { key, letter } = posted.into_inner();
    if key.is_empty() || key.len() > KEY_MAX || !key.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(Problem::Malformed(format!("key: 1 to {KEY_MAX} letters and digits")));
    }
    let fields = [&letter.to, &letter.text, &letter.template, &letter.file];
    let long = fields.into_iter().chain(&letter.params).any(|field| field.len() > FIELD_MAX || field.contains('\0'));
    if long || letter.params.len() > PARAMS_MAX {
        return Err(Problem::TooLarge);
    }
    let content = serde_json::to_vec(&letter).map_err(|_never| Problem::Internal)?;
    let fingerprint = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    let channel = ChannelId::parse(&letter.channel).ok_or_else(|| Problem::Malformed("channel: no id".to_owned()))?;
    let send = send_of(&letter);
    // A blank is in no key that a program may give (`Idempotency-Key` is visible ASCII), so the two never meet.
    let key = RequestKey { key: format!("card {} {key}", shown.pass.portal), fingerprint };
    let letter = Letter { channel, to: letter.to, send, key };
    let created = state.pipeline.write_on_card(&shown.pass.seen_card()?, letter).await;
    match created {
        Ok(Created::New(id) | Created::Known(id)) => {
            Ok(HttpResponse::Accepted().json(HashMap::from([("id", id.to_string())])))
        }
        Ok(Created::Conflict) => Err(Problem::Conflict(i18n::text(language, "card.sent_before", &[]))),
        Err(SubmitError::Refused(failure)) => {
            let advice = i18n::advice(language, failure.code);
            Err(Problem::Unprocessable(format!("{}. {advice}", i18n::error(language, failure.code, &failure.detail))))
        }
        Err(SubmitError::Storage(error)) => Err(error.into()),
    }
}

/// A person's words are sent as they stand: there are no variants to pick and no fields to fill in.
fn send_of(letter: &LetterForm) -> SendMessage {
    let files: Vec<String> =
        Some(letter.file.trim()).filter(|link| !link.is_empty()).map(str::to_owned).into_iter().collect();
    match TemplateRef::parse(&letter.template) {
        Some(template) => SendMessage {
            template: Some(TemplateCall { template, params: letter.params.clone(), files }),
            ..SendMessage::default()
        },
        None => SendMessage { text: letter.text.trim().to_owned(), files, ..SendMessage::default() },
    }
}

/// A template, as the page offers it.
#[derive(Serialize)]
struct TemplateView {
    /// `name:language`.
    label: String,
    body: String,
    /// What is asked for, in the order in which it is given: variables of the header, of the body, values of buttons.
    params: Vec<ParamView>,
    /// It needs a file by link.
    file: bool,
}

/// One value of a template.
#[derive(Serialize)]
struct ParamView {
    /// What stands before the value when it is given: `name=` or `button:0=`; empty for numbered ones.
    prefix: String,
    /// Place of the variable in the body, as the body writes it; empty for others.
    place: String,
}

/// The templates of a channel that may be sent now.
pub(super) async fn templates(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let (app, channel) = path.into_inner();
    let shown = pass::open(&state, &app, pass::of_header(&request)?).await?;
    let seen = shown.pass.seen_card()?;
    let missing = || Problem::NotFound("no such channel".to_owned());
    let channel = ChannelId::parse(&channel).ok_or_else(missing)?;
    let channels = state.pipeline.channels_of_portal(&seen.portal).await?;
    let channel = channels.into_iter().find(|known| known.id == channel).ok_or_else(missing)?;
    let found = state.pipeline.templates_of(&channel).await.map_err(|error| {
        tracing::warn!(channel.id = %channel.id, failure.class = error.class.code(), "templates were not given");
        Problem::Unavailable
    })?;
    // A place on the map cannot be given here.
    let views: Vec<TemplateView> =
        found.iter().filter(|def| def.sendable && def.header != HeaderKind::Location).map(template_of).collect();
    Ok(HttpResponse::Ok().insert_header(("cache-control", "no-store")).json(HashMap::from([("templates", views)])))
}

fn template_of(def: &TemplateDef) -> TemplateView {
    let of = |variable: &Option<String>, place: String| ParamView {
        prefix: variable.as_ref().map(|name| format!("{name}=")).unwrap_or_default(),
        place: variable.as_ref().map_or(place, |name| format!("{{{{{name}}}}}")),
    };
    let header = def.header_variables.iter().map(|variable| of(variable, String::new()));
    let body = def.body_variables.iter().enumerate().map(|(at, variable)| of(variable, format!("{{{{{}}}}}", at + 1)));
    let buttons = def.buttons.iter().filter(|button| match button.kind {
        ButtonKind::Url | ButtonKind::CopyCode => true,
        ButtonKind::QuickReply => false,
    });
    let buttons = buttons.map(|button| ParamView { prefix: format!("button:{}=", button.index), place: String::new() });
    TemplateView {
        label: def.id.label(),
        body: def.body.clone(),
        params: header.chain(body).chain(buttons).collect(),
        file: matches!(def.header, HeaderKind::Image | HeaderKind::Video | HeaderKind::Document),
    }
}
