//! Notes, notifications and history of chats. Source: §8.6.

use super::{ChatAuthor, Notification, required};
use crate::{
    bitrix24::rest::{Answer, Hit, RestError},
    php::Php,
};

type Result = std::result::Result<Answer, RestError>;

/// `im.message.add`: only the note into a chat of an open line is simulated.
pub(crate) fn message_add(hit: &mut Hit<'_>, params: &Php) -> Result {
    let dialog = required(params, "DIALOG_ID").map_err(|_missing| RestError::bad("CHAT_ID_EMPTY", "Chat is empty"))?;
    let text = params.get_ci("MESSAGE").map(Php::text).unwrap_or_default();
    if text.is_empty() {
        return Err(RestError::bad("MESSAGE_EMPTY", "Message is empty"));
    }
    let number = dialog.strip_prefix("chat").and_then(|number| number.parse::<i64>().ok());
    let number = number.ok_or_else(|| RestError::bad("CHAT_ID_EMPTY", "Only chats are simulated"))?;
    if params.get_ci("SYSTEM").map(Php::text).as_deref() != Some("Y") {
        return Err(RestError::bad("PARAMS_ERROR", "Only notes (SYSTEM=Y) are simulated"));
    }
    let now = hit.now;
    let mut state = hit.portal.state.lock();
    let name = state.installs.get(&*hit.caller.client_id).map(|install| install.app.name.clone()).unwrap_or_default();
    let lines = &mut state.openlines;
    if lines.chats.get(&number).is_none_or(|chat| !chat.open_to_app) {
        return Err(RestError::new(403, "ACCESS_ERROR", "You do not have access to the specified dialog"));
    }
    let id =
        lines.put(number, ChatAuthor::Note, &format!("[b]{name}[/b]\n{text}"), Vec::new(), now).unwrap_or_default();
    drop(state);
    hit.world.change("chat", &hit.portal.member_id, number.to_string());
    Ok(Answer::of(Php::Int(id)))
}

pub(crate) fn notify_add(hit: &mut Hit<'_>, params: &Php) -> Result {
    let user_id = required(params, "USER_ID").map_err(|_missing| RestError::bad("USER_ID_EMPTY", "User is empty"))?;
    let text = required(params, "MESSAGE").map_err(|_missing| RestError::bad("MESSAGE_EMPTY", "Message is empty"))?;
    let user_id = user_id.parse().map_err(|_text| RestError::bad("USER_ID_EMPTY", "User is empty"))?;
    let tag = params.get_ci("TAG").map(Php::text).unwrap_or_default();
    let mut state = hit.portal.state.lock();
    let notifications = &mut state.openlines.notifications;
    notifications.retain(|own| tag.is_empty() || own.tag != tag || own.user_id != user_id);
    notifications.push(Notification { user_id, text, tag });
    Ok(Answer::of(Php::Int(i64::try_from(notifications.len()).unwrap_or(0))))
}

/// `imopenlines.session.history.get`: keys in lower case, messages by their numbers, `params` a list when empty.
pub(crate) fn history_get(hit: &mut Hit<'_>, params: &Php) -> Result {
    let number = |name: &str| params.get_ci(name).and_then(Php::as_int);
    let (chat, session) = (number("CHAT_ID"), number("SESSION_ID"));
    let state = hit.portal.state.lock();
    let found = state.openlines.chats.values().find(|own| match session {
        Some(session) => own.session_id == session,
        None => Some(own.id) == chat,
    });
    let Some(found) = found else { return Err(RestError::bad("CHAT_ID_EMPTY", "Chat is not found")) };
    let messages: Vec<(String, Php)> = found
        .messages
        .iter()
        .map(|message| {
            let mids = Php::list(message.external_ids.iter().map(|id| Php::from(id.as_str())));
            let params =
                if message.external_ids.is_empty() { Php::empty() } else { Php::map([("connectorMid", mids)]) };
            let sender = match message.author {
                ChatAuthor::Client => found.user_id,
                ChatAuthor::Employee(id) => id,
                ChatAuthor::System | ChatAuthor::Note => 0,
            };
            let row = Php::map([
                ("id", message.id.to_string().into()),
                ("chatid", found.id.to_string().into()),
                ("senderid", sender.to_string().into()),
                ("text", message.text.as_str().into()),
                ("params", params),
            ]);
            (message.id.to_string(), row)
        })
        .collect();
    let messages = Php::map(messages.iter().map(|(id, row)| (id.as_str(), row.clone())));
    Ok(Answer::of(Php::map([
        ("chatid", found.id.to_string().into()),
        ("sessionid", found.session_id.to_string().into()),
        ("message", messages),
        ("users", Php::empty()),
        ("files", Php::empty()),
    ])))
}
