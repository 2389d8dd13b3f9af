//! Clients' messages on their way in, and confirmations. Source: §5.5, §5.7.

use super::{Chat, ChatAuthor, connector_and_line, files};
use crate::{
    bitrix24::{
        events::Raised,
        rest::{Answer, Hit, RestError},
    },
    journal::Severity,
    php::Php,
};

type Result = std::result::Result<Answer, RestError>;

/// Messages of a call; keys inside are read in any case.
fn elements(params: &Php) -> std::result::Result<Vec<&Php>, RestError> {
    let list = params.get_ci("MESSAGES").filter(|list| list.is_array() && !list.is_empty());
    let list = list.ok_or_else(|| RestError::argument("MESSAGES"))?;
    Ok(list.entries().iter().map(|(_, element)| element).collect())
}

fn text_of(value: &Php, block: &str, key: &str) -> String {
    value.get_ci(block).and_then(|block| block.get_ci(key)).map(Php::text).unwrap_or_default()
}

pub(crate) fn send(hit: &mut Hit<'_>, params: &Php) -> Result {
    let (connector, line) = connector_and_line(params)?;
    let elements = elements(params)?;
    // One element without its blocks fails the whole call.
    for element in &elements {
        for block in ["user", "message", "chat"] {
            if element.get_ci(block).is_none_or(|block| !block.is_array() || block.is_empty()) {
                return Err(RestError::argument(block));
            }
        }
    }
    standing(hit, &connector, line)?;
    let mut results = Vec::new();
    for element in elements {
        results.push(take(hit, &connector, line, element));
    }
    let data = Php::map([("RESULT", Php::list(results))]);
    Ok(Answer::of(Php::map([("SUCCESS", Php::Bool(true)), ("DATA", data)])))
}

/// `imconnector.update.messages`: the text of a message that was shown.
pub(crate) fn update(hit: &mut Hit<'_>, params: &Php) -> Result {
    change(hit, params, true)
}

/// `imconnector.delete.messages`.
pub(crate) fn delete(hit: &mut Hit<'_>, params: &Php) -> Result {
    change(hit, params, false)
}

fn change(hit: &mut Hit<'_>, params: &Php, is_update: bool) -> Result {
    let (connector, line) = connector_and_line(params)?;
    standing(hit, &connector, line)?;
    let mut results = Vec::new();
    for element in elements(params)? {
        let (user, chat) = (text_of(element, "user", "id"), text_of(element, "chat", "id"));
        let (id, text) = (text_of(element, "message", "id"), text_of(element, "message", "text"));
        if user.is_empty() || chat.is_empty() || id.is_empty() || (is_update && text.is_empty()) {
            let refused = Php::list([Php::from("IMCONNECTOR_NOT_ALL_THE_REQUIRED_DATA")]);
            results.push(Php::map([("SUCCESS", Php::Bool(false)), ("ERRORS", refused)]));
            continue;
        }
        hit.portal.state.lock().openlines.change(&connector, &chat, &id, is_update.then_some(text.as_str()));
        let message = Php::map([("id", id.into())]);
        let chat = Php::map([("id", chat.into())]);
        results.push(Php::map([
            ("user", "585".into()),
            ("message", message),
            ("chat", chat),
            ("SUCCESS", Php::Bool(true)),
        ]));
    }
    hit.world.change("chat", &hit.portal.member_id, "changed");
    let data = Php::map([("RESULT", Php::list(results))]);
    Ok(Answer::of(Php::map([("SUCCESS", Php::Bool(true)), ("DATA", data)])))
}

/// The line must live, and the connector stand on it under exactly this id (§5.5).
fn standing(hit: &Hit<'_>, connector: &str, line: i64) -> std::result::Result<(), RestError> {
    let state = hit.portal.state.lock();
    let lines = &state.openlines;
    if !lines.lines.contains_key(&line) {
        return Err(RestError::bad("NOT_ACTIVE_LINE", "The line is not active"));
    }
    let own = lines.connectors.get(connector).is_some_and(|own| own.client_id == *hit.caller.client_id);
    let stands = lines.standings.get(&(connector.to_owned(), line)).is_some_and(|standing| standing.active);
    if own && stands {
        Ok(())
    } else {
        let text = "The connector is not specified correctly";
        Err(RestError::bad("IMCONNECTOR_NOT_SPECIFIED_CORRECT_CONNECTOR", text))
    }
}

/// Takes one message; its failure stays its own.
fn take(hit: &mut Hit<'_>, connector: &str, line: i64, element: &Php) -> Php {
    let failed = |hit: &Hit<'_>, text: &str| {
        let target = "rest.imconnector.send.messages";
        hit.world.violation(Severity::Refused, target, &hit.portal.member_id, "message_refused", text.to_owned());
        Php::map([("SUCCESS", Php::Bool(false)), ("ERRORS", Php::list([Php::from(text)]))])
    };
    let (user, chat) = (text_of(element, "user", "id"), text_of(element, "chat", "id"));
    if user.is_empty() || chat.is_empty() {
        return failed(hit, "user.id and chat.id are required");
    }
    let message = element.get_ci("message").cloned().unwrap_or_default();
    if message.get_ci("attachments").is_some_and(|value| !value.is_empty()) {
        return failed(hit, "attachments are not simulated");
    }
    // A file that cannot be fetched is dropped without a word.
    let files = files::taken(element, hit.files);
    let (id, text) = (text_of(element, "message", "id"), text_of(element, "message", "text"));
    if text.is_empty() && files.is_empty() {
        return failed(hit, "IMCONNECTOR_NOT_ALL_THE_REQUIRED_DATA");
    }
    for name in ["name", "last_name"] {
        if text_of(element, "user", name).chars().count() > 25 {
            return failed(hit, "user names have at most 25 characters");
        }
    }
    let phone = text_of(element, "user", "phone");
    let valid = phone.starts_with('+') && phone.len() > 7 && phone.bytes().skip(1).all(|b| b.is_ascii_digit());
    if !phone.is_empty() && !valid {
        let text = format!("a phone that is none is dropped: {} characters", phone.len());
        let target = "rest.imconnector.send.messages";
        hit.world.violation(Severity::Careless, target, &hit.portal.member_id, "user_phone", text);
    }
    let employee = text_of(element, "message", "user_id").parse::<i64>().ok().filter(|id| *id > 0);
    let (now, mut raised) = (hit.now, None);
    let mut state = hit.portal.state.lock();
    if employee.is_some_and(|id| state.users.get(&id).is_none_or(|user| user.fired)) {
        drop(state);
        return failed(hit, "CONNECTOR_PROXY_NO_USER_IM");
    }
    let lines = &mut state.openlines;
    let number = lines.chat_of(connector, line, &chat, &user);
    if let Some(own) = lines.chats.get_mut(&number) {
        own.user_name = format!("{} {}", text_of(element, "user", "name"), text_of(element, "user", "last_name"));
        own.user_name.truncate(own.user_name.trim_end().len());
        if valid {
            own.user_phone = phone;
        }
    }
    let author = employee.map_or(ChatAuthor::Client, ChatAuthor::Employee);
    let shown = lines.put(number, author, &text, vec![id.clone()], now);
    let count = files.len();
    let told = files.iter().map(|file| {
        Php::map([("name", file.name.as_str().into()), ("type", "file".into()), ("mime", file.mime.as_str().into())])
    });
    let told: Vec<Php> = told.collect();
    if let Some(shown) = shown {
        lines.put_files(number, shown, files);
    }
    // §5.5, echo trap: an employee's message is an operator's message for the portal.
    if let (Some(employee), Some(shown), Some(own)) = (employee, shown, lines.chats.get(&number)) {
        raised = Some(operator_event(own, shown, employee, (&text, told), lines.connectors.get(connector)));
    }
    let (guest, session) = lines.chats.get(&number).map_or((0, 0), |own| (own.user_id, own.session_id));
    drop(state);
    hit.events.extend(raised);
    hit.world.change("chat", &hit.portal.member_id, number.to_string());
    Php::map([
        ("user", guest.to_string().into()),
        (
            "message",
            Php::map([
                ("id", id.into()),
                ("date", Php::empty()),
                ("text", text.into()),
                ("files", Php::list((0..count).map(|file| (9_011 + file).to_string().into()))),
            ]),
        ),
        ("chat", Php::map([("id", chat.into())])),
        ("SUCCESS", Php::Bool(true)),
        ("session", Php::map([("ID", session.to_string().into()), ("CHAT_ID", number.to_string().into())])),
    ])
}

/// ONIMCONNECTORMESSAGEADD of one message (§5.8), for the application that owns the connector.
pub(crate) fn operator_event(
    chat: &Chat,
    number: i64,
    user_id: i64,
    (text, files): (&str, Vec<Php>),
    connector: Option<&super::Connector>,
) -> Raised {
    let mut message = vec![("user_id", user_id.to_string().into()), ("text", text.into())];
    if !files.is_empty() {
        message.push(("files", Php::list(files)));
    }
    let element = Php::map([
        ("im", Php::map([("chat_id", chat.id.to_string().into()), ("message_id", number.to_string().into())])),
        ("message", Php::map(message)),
        ("chat", Php::map([("id", chat.external_chat.as_str().into())])),
    ]);
    let data = Php::map([
        ("CONNECTOR", chat.connector.as_str().into()),
        ("LINE", chat.line.to_string().into()),
        ("MESSAGES", Php::list([element])),
    ]);
    let only = connector.map(|own| own.client_id.as_str().into());
    Raised { only, ..Raised::new("ONIMCONNECTORMESSAGEADD", data) }
}

/// ONIMCONNECTORMESSAGEUPDATE or ONIMCONNECTORMESSAGEDELETE of one message (§5.8): an edit lists all ids, a deletion has an
/// element for each. Nobody is told of a message that was never confirmed with its ids (§5.7).
pub(crate) fn change_event(
    chat: &Chat,
    number: i64,
    external_ids: &[String],
    text: Option<&str>,
    connector: Option<&super::Connector>,
) -> Option<Raised> {
    if external_ids.is_empty() {
        return None;
    }
    let element = |message: Php| {
        Php::map([
            ("im", Php::map([("chat_id", chat.id.to_string().into()), ("message_id", number.to_string().into())])),
            ("message", message),
            ("chat", Php::map([("id", chat.external_chat.as_str().into())])),
        ])
    };
    let ids = external_ids.iter().map(|id| Php::from(id.as_str()));
    let (name, elements) = match text {
        Some(text) => {
            let message = Php::map([("id", Php::list(ids)), ("text", text.into())]);
            ("ONIMCONNECTORMESSAGEUPDATE", vec![element(message)])
        }
        None => ("ONIMCONNECTORMESSAGEDELETE", ids.map(|id| element(Php::map([("id", id)]))).collect()),
    };
    let data = Php::map([
        ("CONNECTOR", chat.connector.as_str().into()),
        ("LINE", chat.line.to_string().into()),
        ("MESSAGES", Php::list(elements)),
    ]);
    let only = connector.map(|own| own.client_id.as_str().into());
    Some(Raised { only, ..Raised::new(name, data) })
}

pub(crate) fn send_delivery(hit: &mut Hit<'_>, params: &Php) -> Result {
    let (connector, _line) = connector_and_line(params)?;
    let complain = |hit: &Hit<'_>, text: &str| {
        let target = "rest.imconnector.send.status.delivery";
        hit.world.violation(Severity::Careless, target, &hit.portal.member_id, "delivery", text.to_owned());
    };
    for element in elements(params)? {
        let number = text_of(element, "im", "message_id").parse::<i64>().unwrap_or_default();
        let ids = element.get_ci("message").and_then(|message| message.get_ci("id"));
        let Some(ids) = ids.filter(|ids| ids.is_array()) else {
            complain(hit, "message.id must be an array: without it no edit or delete will be told");
            continue;
        };
        let ids: Vec<String> = ids.entries().iter().map(|(_, id)| id.text()).filter(|id| !id.is_empty()).collect();
        let mut state = hit.portal.state.lock();
        let chats = &mut state.openlines.chats;
        let own = chats.values_mut().filter(|chat| chat.connector == connector);
        let message = own.flat_map(|chat| &mut chat.messages).find(|message| message.id == number);
        // An unknown id is no error either.
        let Some(message) = message else {
            drop(state);
            complain(hit, "no such message was ever sent to this connector");
            continue;
        };
        if message.sending {
            message.sending = false;
            if message.external_ids.is_empty() {
                message.external_ids = ids;
            }
        }
        message.confirmed += 1;
    }
    hit.world.change("chat", &hit.portal.member_id, "confirmed");
    Ok(Answer::of(Php::map([("SUCCESS", Php::Bool(true)), ("DATA", Php::empty())])))
}
