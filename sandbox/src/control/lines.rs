//! Open lines and their chats.

use serde::Deserialize;
use serde_json::json;

use super::{Ask, Outcome, Refusal, done, good, not_allowed};
use crate::bitrix24::Portal;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewLine {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Says {
    /// Absent: the portal says it by itself.
    #[serde(default)]
    user_id: Option<i64>,
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Off {
    connector: String,
    line: i64,
}

/// `open-lines` and `chats` of one portal.
pub(super) fn of_portal(ask: &Ask<'_>, portal: &Portal, rest: &[&str]) -> Outcome {
    let number = |text: &str| text.parse::<i64>().map_err(|_text| Refusal::missing("number"));
    match (ask.method, rest) {
        ("POST", ["open-lines"]) => good(&json!({"id": portal.add_open_line(&ask.body::<NewLine>()?.name)})),
        ("DELETE", ["open-lines", line]) => {
            portal.delete_open_line(number(line)?)?;
            done()
        }
        ("POST", ["open-lines", "disconnect"]) => {
            let off: Off = ask.body()?;
            portal.disconnect(&off.connector, off.line)?;
            done()
        }
        ("GET", ["chats"]) => good(&portal.chats()),
        ("POST", ["chats", chat, "say"]) => {
            let says: Says = ask.body()?;
            let id = match says.user_id {
                Some(user_id) => portal.operator_says(number(chat)?, user_id, &says.text)?,
                None => portal.line_says(number(chat)?, &says.text)?,
            };
            good(&json!({"id": id}))
        }
        _ => not_allowed(ask),
    }
}
