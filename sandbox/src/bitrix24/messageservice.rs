//! SMS senders: `messageservice.*`, and messages that people and automations of the portal send through them. Source: §7.

use serde::Serialize;

use super::{
    PortalCell, PortalState,
    events::{Auth, put_auth, queue_post},
    handle::Portal,
    handlers::check_url,
    rest::{Answer, Hit, RestError},
};
use crate::{clock::Millis, courier::Parcel, http::form::FormBody, php::Php, world::World};

type Result = std::result::Result<Answer, RestError>;

/// A registered sender.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    handler: String,
    name: Php,
}

/// A registered sender, as shown.
#[derive(Clone, Debug, Serialize)]
pub struct SenderView {
    /// Code.
    pub code: String,
    /// Callback address.
    pub handler: String,
    /// Name as registered.
    pub name: serde_json::Value,
}

/// An SMS of the portal, as shown.
#[derive(Clone, Debug, Serialize)]
pub struct SmsView {
    /// Internal number.
    pub id: i64,
    /// 32 hex, as the callback tells it.
    pub message_id: String,
    /// Its sender.
    pub code: String,
    /// Addressee as stored.
    pub to: String,
    /// Text.
    pub body: String,
    /// Every status it had, oldest first; the portal itself says `sent` when it has queued the callback.
    pub statuses: Vec<(Millis, String)>,
    /// HTTP status of the callback; 0 = no answer; absent = not (yet) made.
    pub callback_status: Option<u16>,
    client_id: String,
    author: i64,
}

impl SmsView {
    /// The status now.
    pub fn status(&self) -> &str {
        self.statuses.last().map_or("", |(_, status)| status)
    }
}

/// An SMS to be sent.
#[derive(Clone, Debug)]
pub struct SmsSpec {
    /// The sender's code.
    pub code: String,
    /// Addressee.
    pub to: String,
    /// Text.
    pub body: String,
    /// Cards it is about: type and id.
    pub bindings: Vec<(i64, i64)>,
    /// Who sends; 0 = an automation without a user: the callback then carries no `auth` at all.
    pub author: i64,
}

/// `CODE`, `HANDLER`, `NAME`, `TYPE` as far as given.
fn field(params: &Php, name: &str) -> Option<Php> {
    params.get_ci(name).filter(|value| **value != Php::Null).cloned()
}

fn invalid(description: &str) -> RestError {
    RestError::bad("ERROR_SENDER_VALIDATION_FAILURE", description)
}

fn gone() -> RestError {
    RestError::new(401, "APPLICATION_NOT_FOUND", "Application not found")
}

fn is_blank(name: &Php) -> bool {
    match name {
        Php::Array(entries) => entries.iter().all(|(_, text)| text.text().trim().is_empty()),
        other => other.text().trim().is_empty(),
    }
}

/// `messageservice.sender.add`.
pub(crate) fn sender_add(hit: &mut Hit<'_>, params: &Php) -> Result {
    if ["CODE", "HANDLER", "NAME", "TYPE"].iter().all(|name| field(params, name).is_none()) {
        return Err(invalid("Empty data!"));
    }
    let code = field(params, "CODE").map(|code| code.text()).unwrap_or_default();
    if code.is_empty() {
        return Err(invalid("Empty sender code!"));
    }
    let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
    if code.len() > 128 || !code.to_ascii_lowercase().bytes().all(is_good) {
        return Err(invalid("Wrong sender code!"));
    }
    let name = field(params, "NAME").unwrap_or_default();
    if is_blank(&name) {
        return Err(invalid("Empty sender NAME!"));
    }
    match field(params, "TYPE").map(|kind| kind.text()).unwrap_or_default().as_str() {
        "SMS" => {}
        "" => return Err(invalid("Empty sender message TYPE!")),
        _ => return Err(invalid("Unknown sender message TYPE!")),
    }
    let handler = field(params, "HANDLER").map(|url| url.text()).unwrap_or_default();
    check_url(&handler)?;
    let mut state = hit.portal.state.lock();
    let install = state.installs.get_mut(&*hit.caller.client_id).ok_or_else(gone)?;
    if install.senders.contains_key(&code) {
        return Err(RestError::bad("ERROR_SENDER_ALREADY_INSTALLED", "Sender already installed!"));
    }
    install.senders.insert(code, Sender { handler, name });
    Answer::yes()
}

/// `messageservice.sender.update`.
pub(crate) fn sender_update(hit: &mut Hit<'_>, params: &Php) -> Result {
    let code = required_code(params)?;
    let (handler, name) = (field(params, "HANDLER"), field(params, "NAME"));
    if handler.is_none() && name.is_none() && field(params, "DESCRIPTION").is_none() {
        return Err(RestError::bad("ERROR_SENDER_OTHER_PARAMS_REQUIRED", "No fields to update"));
    }
    if let Some(handler) = &handler {
        check_url(&handler.text())?;
    }
    let mut state = hit.portal.state.lock();
    let install = state.installs.get_mut(&*hit.caller.client_id).ok_or_else(gone)?;
    let sender = install.senders.get_mut(&code).ok_or_else(unknown)?;
    if let Some(handler) = handler {
        sender.handler = handler.text();
    }
    if let Some(name) = name {
        sender.name = name;
    }
    Answer::yes()
}

/// `messageservice.sender.delete`.
pub(crate) fn sender_delete(hit: &mut Hit<'_>, params: &Php) -> Result {
    let code = required_code(params)?;
    let mut state = hit.portal.state.lock();
    let install = state.installs.get_mut(&*hit.caller.client_id).ok_or_else(gone)?;
    install.senders.remove(&code).ok_or_else(unknown)?;
    Answer::yes()
}

/// `messageservice.sender.list`: codes of the caller's application.
pub(crate) fn sender_list(hit: &mut Hit<'_>, _params: &Php) -> Result {
    let state = hit.portal.state.lock();
    let install = state.installs.get(&*hit.caller.client_id).ok_or_else(gone)?;
    Ok(Answer::of(Php::list(install.senders.keys().map(|code| Php::from(code.as_str())))))
}

fn required_code(params: &Php) -> std::result::Result<String, RestError> {
    let code = field(params, "CODE").map(|code| code.text()).filter(|code| !code.is_empty());
    code.ok_or_else(|| RestError::bad("ERROR_SENDER_CODE_REQUIRED", "Sender code is required"))
}

fn unknown() -> RestError {
    RestError::bad("ERROR_SENDER_NOT_FOUND", "Sender not found!")
}

/// `messageservice.message.status.update`: by the callback's id; only for its author or an administrator.
pub(crate) fn status_update(hit: &mut Hit<'_>, params: &Php) -> Result {
    let code = required_code(params)?;
    let text = |name: &str| field(params, name).map(|value| value.text()).unwrap_or_default();
    let (message_id, status) = (text("MESSAGE_ID"), text("STATUS"));
    if !matches!(status.as_str(), "queued" | "sent" | "delivered" | "undelivered" | "failed") {
        return Err(RestError::bad("ERROR_MESSAGE_STATUS_INCORRECT", "Message status incorrect!"));
    }
    let (now, user) = (hit.now, hit.caller.user_id);
    let mut state = hit.portal.state.lock();
    let admin = state.users.get(&user).is_some_and(|user| user.admin);
    let own =
        |sms: &&mut SmsView| sms.message_id == message_id && sms.code == code && sms.client_id == *hit.caller.client_id;
    let sms = state.sms.iter_mut().find(own);
    let sms = sms.ok_or_else(|| RestError::bad("ERROR_MESSAGE_NOT_FOUND", "Message not found!"))?;
    if !admin && sms.author != user {
        return Err(RestError::new(403, "ACCESS_DENIED", "Access denied!"));
    }
    sms.statuses.push((now, status));
    drop(state);
    hit.world.change("sms", &hit.portal.member_id, message_id);
    Answer::yes()
}

/// `messageservice.message.status.get`: by the internal number.
pub(crate) fn status_get(hit: &mut Hit<'_>, params: &Php) -> Result {
    let id = field(params, "MESSAGE_ID").as_ref().and_then(Php::as_int).unwrap_or(0);
    let state = hit.portal.state.lock();
    let sms = state.sms.iter().find(|sms| sms.id == id && sms.client_id == *hit.caller.client_id);
    let sms = sms.ok_or_else(|| RestError::bad("ERROR_MESSAGE_NOT_FOUND", "Message not found!"))?;
    Ok(Answer::of(Php::from(sms.status())))
}

impl Portal {
    /// Senders of an application.
    pub fn senders(&self, client_id: &str) -> Vec<SenderView> {
        let state = self.cell.state.lock();
        let senders = state.installs.get(client_id).map(|install| &install.senders);
        senders
            .into_iter()
            .flatten()
            .map(|(code, sender)| SenderView {
                code: code.clone(),
                handler: sender.handler.clone(),
                name: sender.name.to_json(),
            })
            .collect()
    }

    /// Every SMS, oldest first.
    pub fn sms(&self) -> Vec<SmsView> {
        self.cell.state.lock().sms.clone()
    }

    /// Sends an SMS through a sender of an application, as a card or an automation does. Gives its id.
    pub fn send_sms(&self, client_id: &str, spec: &SmsSpec) -> anyhow::Result<String> {
        let now = self.world.now_ms();
        let (message_id, parcel) = {
            let mut state = self.cell.state.lock();
            queued(&self.world, &self.cell, &mut state, client_id, spec, now)?
        };
        self.world.bitrix.queue.send(&self.world, self.told(parcel, &message_id));
        self.world.change("sms", &self.cell.member_id, message_id.clone());
        Ok(message_id)
    }

    fn told(&self, parcel: Parcel, message_id: &str) -> Parcel {
        let (cell, id) = (self.cell.clone(), message_id.to_owned());
        Parcel {
            done: Some(Box::new(move |_world, receipt| {
                let mut state = cell.state.lock();
                if let Some(sms) = state.sms.iter_mut().find(|sms| sms.message_id == id) {
                    sms.callback_status = Some(receipt.status);
                }
            })),
            ..parcel
        }
    }
}

fn queued(
    world: &World,
    portal: &PortalCell,
    state: &mut PortalState,
    client_id: &str,
    spec: &SmsSpec,
    now: Millis,
) -> anyhow::Result<(String, Parcel)> {
    let install = state.installs.get(client_id).ok_or_else(|| anyhow::anyhow!("not installed"))?;
    let sender = install.senders.get(&spec.code).ok_or_else(|| anyhow::anyhow!("no sender {}", spec.code))?;
    let message_id = world.ids.hex(32);
    let mut form = FormBody::with_capacity(1024);
    if !spec.bindings.is_empty() {
        form.put(&["module_id"], "crm");
        for (at, (kind, id)) in spec.bindings.iter().enumerate() {
            form.put_int(&["bindings", &at.to_string(), "OWNER_TYPE_ID"], *kind);
            form.put_int(&["bindings", &at.to_string(), "OWNER_ID"], *id);
        }
    }
    form.put(&["properties", "phone_number"], &spec.to);
    form.put(&["properties", "message_text"], &spec.body);
    form.put(&["type"], "SMS");
    form.put(&["code"], &spec.code);
    form.put(&["message_id"], &message_id);
    form.put(&["message_to"], &spec.to);
    form.put(&["message_body"], &spec.body);
    form.put_int(&["ts"], now / 1000);
    if spec.author > 0 {
        put_auth(
            &mut form,
            world,
            portal,
            install,
            Auth::User { id: spec.author, with_refresh: false, hops: None },
            now,
        );
    }
    let parcel = queue_post("sms.callback".into(), portal, &sender.handler, form);
    let id = i64::try_from(state.sms.len()).unwrap_or(0) + 1;
    state.sms.push(SmsView {
        id,
        message_id: message_id.clone(),
        code: spec.code.clone(),
        to: spec.to.clone(),
        body: spec.body.clone(),
        statuses: vec![(now, "sent".to_owned())],
        callback_status: None,
        client_id: client_id.to_owned(),
        author: spec.author,
    });
    Ok((message_id, parcel))
}
