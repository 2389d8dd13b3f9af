//! What an automation asks for: the fields of a robot or a Salesbot step in the product's words.
//!
//! The keys are those of `surface.md` §5, saved in customers' automations, and the same in both CRMs. What was filled in
//! wrongly still becomes a command ([`CommandBody::Invalid`]): its author has to be told on the card and in the workflow,
//! and an HTTP error would tell nobody.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::domain::action::ActionKind;
use crate::domain::channel::Messenger;
use crate::domain::command::{
    CheckPhone, CommandBody, RecipientSource, Recipients, RenameChat, Reply, SendMessage, TagDialog, WaitFor,
    split_list,
};
use crate::domain::crm_file::CrmFile;
use crate::domain::guards::{ActionGuards, Duplicates, NOT_AFTER_MINUTES, QuietChoice};
use crate::domain::ids::{CrmUserId, ReplyToken};
use crate::domain::message::TemplateCall;
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::template::TemplateRef;
use crate::domain::text::{excerpt, find_unresolved};
use crate::domain::time::{Millis, Timestamp};
use crate::forms::{flag, integer, items, text, texts};
use crate::zones;

/// Waiting times around a robot.
#[derive(Clone, Copy, Debug)]
pub struct CommandOptions {
    /// Waited for the result when the robot does not say.
    pub wait: Millis,
    /// Least and longest wait a robot can ask for, in minutes.
    pub wait_minutes: (i64, i64),
    /// How long before the robot's own time limit the result is given: after the limit nobody listens.
    pub margin: Millis,
}

impl Default for CommandOptions {
    fn default() -> Self {
        Self { wait: Millis::minutes(10), wait_minutes: (1, 1440), margin: Millis::seconds(5) }
    }
}

/// What was asked for, as far as it can be read.
pub(in crate::crm) struct Asked {
    /// The work, or why there is none.
    pub(in crate::crm) body: CommandBody,
    /// Which step is waited for.
    wait: WaitFor,
    /// How long, if the automation says.
    minutes: Option<i64>,
    /// Whether the card gets a comment.
    pub(in crate::crm) comment: bool,
    /// Who is shown as the author.
    pub(in crate::crm) responsible: Option<CrmUserId>,
}

/// Reads the values of the action `code`, by lower-case key.
///
/// Never fails: what cannot be carried out becomes [`CommandBody::Invalid`] with the reason. With a template the files
/// belong to it ([`TemplateCall::files`]) and [`SendMessage::files`] is empty, so that nothing is sent twice; the
/// fallback template gets the same parameters and files.
pub(in crate::crm) fn asked(code: &str, values: &BTreeMap<String, Value>) -> Asked {
    let fields = Fields(values);
    let wait = fields.word("wait", WaitFor::find);
    let minutes = fields.wait_minutes();
    let comment = fields.comment();
    let body = work(code, &fields)
        .and_then(|work| wait.as_ref().map_err(Clone::clone).map(|_| work))
        .and_then(|work| minutes.as_ref().map_err(Clone::clone).map(|_| work))
        .and_then(|work| comment.as_ref().map_err(Clone::clone).map(|_| work));
    Asked {
        body: body.unwrap_or_else(|failure| CommandBody::Invalid { failure }),
        wait: wait.ok().flatten().unwrap_or_default(),
        minutes: minutes.ok().flatten(),
        comment: comment.ok().flatten().unwrap_or(true),
        responsible: fields.responsible(),
    }
}

/// The work that an action's values ask for, for somebody who is no CRM; [`CommandBody::Invalid`] says what is wrong.
#[must_use]
pub fn body_of(code: &str, values: &BTreeMap<String, Value>) -> CommandBody {
    asked(code, values).body
}

impl Asked {
    /// How the waiting CRM is continued. `limit` is its own time limit, if it has one.
    pub(in crate::crm) fn reply(
        &self,
        token: String,
        limit: Option<Millis>,
        now: Timestamp,
        options: &CommandOptions,
    ) -> Reply {
        Reply { token: ReplyToken(token), wait: self.wait, answer_by: answer_by(limit, self.minutes, now, options) }
    }
}

fn answer_by(limit: Option<Millis>, minutes: Option<i64>, now: Timestamp, options: &CommandOptions) -> Timestamp {
    let (least, most) = options.wait_minutes;
    let wait = minutes.map_or(options.wait, |minutes| Millis::minutes(minutes.clamp(least, most)));
    let own = now.plus(wait);
    match limit {
        Some(limit) => own.min(now.plus(limit).plus(Millis(-options.margin.0)).max(now)),
        None => own,
    }
}

fn work(code: &str, fields: &Fields<'_>) -> Result<CommandBody, Failure> {
    let action = ActionKind::find(code).ok_or_else(|| fields.bad("code", code))?;
    fields.check_placeholders()?;
    Ok(match action {
        ActionKind::SendMessage | ActionKind::SendFile => CommandBody::SendMessage(Box::new(send_message(fields)?)),
        ActionKind::SendDocument => {
            let written = fields.one("document_id");
            let document = CrmFile::document_of_person(&written).ok_or_else(|| fields.bad("document_id", &written))?;
            CommandBody::SendMessage(Box::new(SendMessage { files: vec![document.to_string()], ..fields.sending()? }))
        }
        ActionKind::SendToGroup => {
            let written = fields.one("document_id");
            let document = match written.is_empty() {
                true => None,
                false => {
                    let document = CrmFile::document_of_person(&written);
                    Some(document.ok_or_else(|| fields.bad("document_id", &written))?.to_string())
                }
            };
            let files = document.into_iter().collect();
            to_group(fields, SendMessage { text: fields.prose("text"), files, ..fields.sending()? })?
        }
        ActionKind::SendFileToGroup => to_group(fields, SendMessage { files: fields.files()?, ..fields.sending()? })?,
        ActionKind::RenameChat => {
            let name = excerpt(&fields.one("name"), CHAT_NAME_MAX);
            if name.is_empty() {
                return Err(Failure::new(ErrorCode::NoContent));
            }
            CommandBody::RenameChat(Box::new(RenameChat {
                recipients: fields.recipients()?,
                line: fields.one("line"),
                messenger: fields.messenger()?,
                name,
            }))
        }
        ActionKind::TagDialog => {
            let tags = |key: &str| fields.split(key).iter().map(|tag| excerpt(tag, TAG_MAX)).collect::<Vec<_>>();
            let (add, remove) = (tags("add"), tags("remove"));
            if add.is_empty() && remove.is_empty() {
                return Err(Failure::new(ErrorCode::NoContent));
            }
            if add.len() + remove.len() > TAGS_MAX {
                return Err(fields.bad("add", &format!("{} tags", add.len() + remove.len())));
            }
            CommandBody::TagDialog(Box::new(TagDialog {
                recipients: fields.recipients()?,
                line: fields.one("line"),
                messenger: fields.messenger()?,
                add,
                remove,
            }))
        }
        ActionKind::CheckPhone => CommandBody::CheckPhone(Box::new(CheckPhone {
            recipients: fields.recipients()?,
            line: fields.one("line"),
            messenger: fields.messenger()?,
        })),
    })
}

/// Something for the groups that the automation names.
fn to_group(fields: &Fields<'_>, send: SendMessage) -> Result<CommandBody, Failure> {
    if send.text.is_empty() && send.files.is_empty() {
        return Err(Failure::new(ErrorCode::NoContent));
    }
    let recipients = Recipients { chat_ids: fields.split("group"), ..Recipients::default() };
    Ok(CommandBody::SendMessage(Box::new(SendMessage { recipients, to_group: true, ..send })))
}

fn send_message(fields: &Fields<'_>) -> Result<SendMessage, Failure> {
    let files = fields.files()?;
    let params = fields.params();
    let template = |key: &str| -> Result<Option<TemplateCall>, Failure> {
        let name = fields.one(key);
        if name.is_empty() {
            return Ok(None);
        }
        let template = TemplateRef::parse(&name).ok_or_else(|| fields.bad(key, &name))?;
        Ok(Some(TemplateCall { template, params: params.clone(), files: files.clone() }))
    };
    let work = SendMessage {
        text: fields.prose("text"),
        template: template("template")?,
        fallback: template("fallback_template")?,
        files: if fields.one("template").is_empty() { files.clone() } else { Vec::new() },
        ..fields.sending()?
    };
    if work.text.is_empty() && work.template.is_none() && work.files.is_empty() {
        return Err(Failure::new(ErrorCode::NoContent));
    }
    Ok(work)
}

/// Keys whose values reach a person or choose one: an unfilled placeholder in any of them is an error.
pub(in crate::crm) const FILLED: [&str; 25] = [
    "add",
    "remove",
    "name",
    "group",
    "document_id",
    "text",
    "params",
    "caption",
    "phones",
    "files",
    "chat_ids",
    "messenger_field",
    "template",
    "fallback_template",
    "first_name",
    "last_name",
    "line",
    "messenger",
    "recipients",
    "wait",
    "not_after_minutes",
    "supersede",
    "duplicates",
    "quiet_hours",
    "time_zone",
];

/// A longer name of a chat is cut.
const CHAT_NAME_MAX: usize = 255;

/// A longer tag is cut, and a robot names no more than so many.
const TAG_MAX: usize = 50;
const TAGS_MAX: usize = 50;

/// What a select of a robot says to follow the line.
const FOLLOW_LINE: &str = "line";

/// The values of a robot by lower-case key.
pub(in crate::crm) struct Fields<'a>(pub(in crate::crm) &'a BTreeMap<String, Value>);

impl Fields<'_> {
    fn list(&self, key: &str) -> Vec<String> {
        self.0.get(key).map(texts).unwrap_or_default()
    }

    /// The first text that is not blank, without spaces around; empty when there is none.
    fn one(&self, key: &str) -> String {
        self.list(key).iter().map(|value| value.trim()).find(|value| !value.is_empty()).unwrap_or_default().to_owned()
    }

    fn recipients(&self) -> Result<Recipients, Failure> {
        Ok(Recipients {
            source: self.word("recipients", RecipientSource::find)?.unwrap_or_default(),
            phones: self.split("phones"),
            chat_ids: self.split("chat_ids"),
            messenger_field: self.split("messenger_field"),
        })
    }

    /// Whom, through what and under which rules something is sent; what is sent is left empty.
    fn sending(&self) -> Result<SendMessage, Failure> {
        Ok(SendMessage {
            recipients: self.recipients()?,
            line: self.one("line"),
            messenger: self.messenger()?,
            caption: self.prose("caption"),
            first_name: self.one("first_name"),
            last_name: self.one("last_name"),
            guards: self.guards()?,
            ..SendMessage::default()
        })
    }

    /// The messenger chosen; `None` leaves it to the line.
    fn messenger(&self) -> Result<Option<Messenger>, Failure> {
        let messenger = self.word("messenger", |word| match word {
            "auto" => Some(None),
            other => Messenger::find(other).map(Some),
        })?;
        Ok(messenger.flatten())
    }

    /// Every value, split as people write lists.
    fn split(&self, key: &str) -> Vec<String> {
        self.list(key).iter().flat_map(|value| split_list(&breaks_to_newlines(value))).collect()
    }

    /// Text for a person: several values are lines of one text.
    fn prose(&self, key: &str) -> String {
        breaks_to_newlines(&self.list(key).join("\n")).trim().to_owned()
    }

    /// Parameters by their place; empty ones at the end are what the form left over.
    fn params(&self) -> Vec<String> {
        let mut params: Vec<String> =
            self.list("params").iter().map(|value| breaks_to_newlines(value).trim().to_owned()).collect();
        while params.last().is_some_and(String::is_empty) {
            params.pop();
        }
        params
    }

    /// Addresses of files, and files of the CRM as [`CrmFile`] writes them. A robot that inserts a field with several files writes them into one value with commas; a
    /// comma belongs to an address unless another address follows.
    fn files(&self) -> Result<Vec<String>, Failure> {
        let mut files: Vec<String> = Vec::new();
        for value in self.list("files") {
            for part in breaks_to_newlines(&value).split_whitespace() {
                for address in split_addresses(part) {
                    let address = address.trim_matches([',', ';']);
                    if address.is_empty() {
                        continue;
                    }
                    match CrmFile::of_person(address) {
                        Some(file) => files.push(file.to_string()),
                        None if is_address(address) => files.push(address.to_owned()),
                        None => return Err(Failure::with(ErrorCode::FileType, excerpt(address, 40))),
                    }
                }
            }
        }
        Ok(files)
    }

    /// One of a closed list of words; `None` when the field is empty.
    fn word<T>(&self, key: &str, find: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Failure> {
        let word = self.one(key).to_lowercase();
        if word.is_empty() {
            return Ok(None);
        }
        find(&word).map(Some).ok_or_else(|| self.bad(key, &word))
    }

    /// What a reader makes of a field; `None` when the field is empty.
    fn read<T>(&self, key: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Failure> {
        let written = self.one(key);
        if written.is_empty() {
            return Ok(None);
        }
        read(&written).map(Some).ok_or_else(|| self.bad(key, &written))
    }

    fn wait_minutes(&self) -> Result<Option<i64>, Failure> {
        self.read("wait_minutes", |written| integer(&Value::String(written.to_owned())))
    }

    fn comment(&self) -> Result<Option<bool>, Failure> {
        self.read("comment", |written| flag(&Value::String(written.to_owned())))
    }

    /// Deadline, quiet hours and the like; a choice of `line` is no choice.
    fn guards(&self) -> Result<ActionGuards, Failure> {
        let minutes = |written: &str| {
            integer(&Value::String(written.to_owned())).filter(|minutes| NOT_AFTER_MINUTES.contains(minutes))
        };
        let or_line = |written: &str| written.eq_ignore_ascii_case(FOLLOW_LINE);
        let supersede = self.read("supersede", |written| {
            if or_line(written) { Some(None) } else { flag(&Value::String(written.to_owned())).map(Some) }
        })?;
        let duplicates = self.read("duplicates", |written| {
            if or_line(written) { Some(None) } else { Duplicates::find(&written.to_lowercase()).map(Some) }
        })?;
        Ok(ActionGuards {
            not_after_minutes: self.read("not_after_minutes", minutes)?,
            supersede: supersede.flatten(),
            duplicates: duplicates.flatten(),
            quiet_hours: self.read("quiet_hours", QuietChoice::parse)?,
            time_zone: self.read("time_zone", zones::parse)?,
        })
    }

    /// The first user of the list, written `user_1` or `1`. Anything else (a department, a role) is passed over: who is
    /// shown must not decide whether a message leaves.
    fn responsible(&self) -> Option<CrmUserId> {
        let values = self.0.get("responsible").map(items).unwrap_or_default();
        values.into_iter().filter_map(text).find_map(|value| {
            let number: u64 = value.trim().trim_start_matches("user_").parse().ok()?;
            (number > 0).then(|| CrmUserId(number.to_string()))
        })
    }

    fn check_placeholders(&self) -> Result<(), Failure> {
        let left = FILLED.iter().flat_map(|key| self.list(key)).find_map(|value| find_unresolved(&value));
        match left {
            Some(placeholder) => Err(Failure::with(ErrorCode::UnresolvedPlaceholder, placeholder)),
            None => Ok(()),
        }
    }

    pub(in crate::crm) fn bad(&self, key: &str, value: &str) -> Failure {
        Failure::with(ErrorCode::BadRequest, format!("{key}={}", excerpt(value, 40)))
    }
}

fn is_address(text: &str) -> bool {
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http")
}

/// Splits `a,b` only where `b` begins like an address, or where `a` is none.
fn split_addresses(part: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    for (at, _) in part.match_indices([',', ';']) {
        let plain = part.get(start..at).is_some_and(|begun| !is_address_start(begun));
        if plain || part.get(at + 1..).is_some_and(is_address_start) {
            found.extend(part.get(start..at));
            start = at + 1;
        }
    }
    found.extend(part.get(start..));
    found
}

fn is_address_start(text: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .any(|scheme| text.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme)))
}

/// Line breaks that Bitrix24's editors leave as mark-up: `<br>`, `<br />`, `[br]`.
fn breaks_to_newlines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['<', '[']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        match break_length(from) {
            Some(length) => {
                out.push('\n');
                // `<br>` before a line end is one break, not two.
                let after = from.get(length..).unwrap_or_default();
                rest = after.strip_prefix("\r\n").or_else(|| after.strip_prefix('\n')).unwrap_or(after);
            }
            None => {
                out.push_str(from.get(..1).unwrap_or_default());
                rest = from.get(1..).unwrap_or_default();
            }
        }
    }
    out.push_str(rest);
    out.replace("\r\n", "\n")
}

/// Length of the break tag at the start of `text`, if there is one.
fn break_length(text: &str) -> Option<usize> {
    let close = if text.starts_with('<') { '>' } else { ']' };
    let end = text.char_indices().take(8).find(|(_, sign)| *sign == close)?.0;
    let name = text.get(1..end)?.trim().trim_end_matches('/').trim_end();
    name.eq_ignore_ascii_case("br").then_some(end + 1)
}
