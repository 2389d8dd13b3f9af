//! From a robot call to a [`Command`]: the robot's fields in the product's words.
//!
//! The keys are those of `surface.md` §5, saved in customers' automations. A robot that was filled in wrongly still
//! becomes a command ([`CommandBody::Invalid`]): its author has to be told on the card and in the workflow, and an HTTP
//! error would tell nobody.

use std::collections::BTreeMap;

use serde_json::Value;

use super::sha256_hex;
use super::wire::RobotCall;
use crate::domain::action::ActionKind;
use crate::domain::channel::Messenger;
use crate::domain::command::{
    Command, CommandBody, RecipientSource, Recipients, Reply, SendMessage, WaitFor, split_list,
};
use crate::domain::guards::{ActionGuards, Duplicates, NOT_AFTER_MINUTES, QuietChoice};
use crate::domain::ids::{CommandId, CrmUserId, ReplyToken};
use crate::domain::message::TemplateCall;
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::portal::Portal;
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

/// Puts a robot call into the product's words.
///
/// Never fails: what cannot be carried out becomes [`CommandBody::Invalid`] with the reason. With a template the files
/// belong to it ([`TemplateCall::files`]) and [`SendMessage::files`] is empty, so that nothing is sent twice; the
/// fallback template gets the same parameters and files.
#[must_use]
pub fn command(portal: &Portal, call: &RobotCall, id: CommandId, now: Timestamp, options: &CommandOptions) -> Command {
    let fields = Fields(&call.properties);
    let wait = fields.word("wait", WaitFor::find);
    let minutes = fields.wait_minutes();
    let comment = fields.comment();
    let body = send_message(call, &fields)
        .and_then(|work| wait.as_ref().map_err(Clone::clone).map(|_| work))
        .and_then(|work| minutes.as_ref().map_err(Clone::clone).map(|_| work))
        .and_then(|work| comment.as_ref().map_err(Clone::clone).map(|_| work));
    let reply = call.event_token.clone().filter(|_| call.use_subscription).map(|token| Reply {
        token: ReplyToken(token),
        wait: wait.ok().flatten().unwrap_or_default(),
        answer_by: answer_by(call.timeout_duration, minutes.ok().flatten(), now, options),
    });
    Command {
        id,
        portal: portal.id.clone(),
        dedupe_key: dedupe_key(call),
        card: call.document.card(),
        reply,
        comment: comment.ok().flatten().unwrap_or(true),
        responsible: fields.responsible(),
        received: now,
        robot: call.event_token.as_deref().and_then(robot_of),
        body: match body {
            Ok(work) => CommandBody::SendMessage(Box::new(work)),
            Err(failure) => CommandBody::Invalid { failure },
        },
    }
}

/// What makes a call unique in its portal: the event token; without one (nobody waits) the content with its moment.
fn dedupe_key(call: &RobotCall) -> String {
    if let Some(token) = &call.event_token {
        return token.clone();
    }
    let properties: Vec<(&String, &Value)> = call.properties.iter().collect();
    let moment = call.ts.map_or(0, |ts| ts.0);
    let content = serde_json::json!([call.workflow_id, call.code, call.document.id, moment, properties]);
    format!("content:{}", sha256_hex(content.to_string().as_bytes()))
}

/// Which robot of the portal's automations calls. The token is `workflow|robot's own name|random`, and the name stays the
/// same from run to run (protocol reference, sections "Callback to HANDLER" and 6.5, read 2026-11). A token of another
/// shape tells no robot.
fn robot_of(token: &str) -> Option<String> {
    const NAME_MAX: usize = 100;
    let mut parts = token.split('|');
    let name = parts.nth(1).filter(|name| (1..=NAME_MAX).contains(&name.len()))?;
    (parts.count() == 1).then(|| name.to_owned())
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

fn send_message(call: &RobotCall, fields: &Fields<'_>) -> Result<SendMessage, Failure> {
    match ActionKind::find(&call.code) {
        Some(ActionKind::SendMessage) => {}
        None => return Err(fields.bad("code", &call.code)),
    }
    fields.check_placeholders()?;
    let source = fields.word("recipients", RecipientSource::find)?.unwrap_or_default();
    let messenger = fields.word("messenger", |word| match word {
        "auto" => Some(None),
        other => Messenger::find(other).map(Some),
    })?;
    let files = fields.files()?;
    let params = fields.params();
    let guards = fields.guards()?;
    let template = |key: &str| -> Result<Option<TemplateCall>, Failure> {
        let name = fields.one(key);
        if name.is_empty() {
            return Ok(None);
        }
        let template = TemplateRef::parse(&name).ok_or_else(|| fields.bad(key, &name))?;
        Ok(Some(TemplateCall { template, params: params.clone(), files: files.clone() }))
    };
    let work = SendMessage {
        recipients: Recipients {
            source,
            phones: fields.split("phones"),
            chat_ids: fields.split("chat_ids"),
            messenger_field: fields.split("messenger_field"),
        },
        line: fields.one("line"),
        messenger: messenger.flatten(),
        text: fields.prose("text"),
        template: template("template")?,
        fallback: template("fallback_template")?,
        files: if fields.one("template").is_empty() { files.clone() } else { Vec::new() },
        caption: fields.prose("caption"),
        first_name: fields.one("first_name"),
        last_name: fields.one("last_name"),
        guards,
    };
    if work.text.is_empty() && work.template.is_none() && work.files.is_empty() {
        return Err(Failure::new(ErrorCode::NoContent));
    }
    Ok(work)
}

/// Keys whose values reach a person or choose one: an unfilled placeholder in any of them is an error.
const FILLED: [&str; 20] = [
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

/// What a select of a robot says to follow the line.
const FOLLOW_LINE: &str = "line";

/// The values of a robot by lower-case key.
struct Fields<'a>(&'a BTreeMap<String, Value>);

impl Fields<'_> {
    fn list(&self, key: &str) -> Vec<String> {
        self.0.get(key).map(texts).unwrap_or_default()
    }

    /// The first text that is not blank, without spaces around; empty when there is none.
    fn one(&self, key: &str) -> String {
        self.list(key).iter().map(|value| value.trim()).find(|value| !value.is_empty()).unwrap_or_default().to_owned()
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

    /// Addresses of files. A robot that inserts a field with several files writes them into one value with commas; a
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
                    if !is_address(address) {
                        return Err(Failure::with(ErrorCode::FileType, excerpt(address, 40)));
                    }
                    files.push(address.to_owned());
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

    fn bad(&self, key: &str, value: &str) -> Failure {
        Failure::with(ErrorCode::BadRequest, format!("{key}={}", excerpt(value, 40)))
    }
}

fn is_address(text: &str) -> bool {
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http")
}

/// Splits `a,b` only where `b` begins like an address.
fn split_addresses(part: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    for (at, _) in part.match_indices([',', ';']) {
        if part.get(at + 1..).is_some_and(is_address_start) {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::crm::bitrix24::testing::portal;
    use crate::crm::bitrix24::wire::robot_call;
    use crate::forms::{FormLimits, decode};

    const NOW: Timestamp = Timestamp(1_000_000);

    fn call(properties: &Value) -> RobotCall {
        robot_call(&json!({
            "code": "send_message", "event_token": "tok", "use_subscription": "Y", "timeout_duration": "0",
            "document_id": ["crm", "CCrmDocumentDeal", "DEAL_134"], "properties": properties, "ts": "5",
            "auth": {"member_id": "m", "application_token": "t"},
        }))
        .unwrap()
    }

    fn made(call: &RobotCall) -> Command {
        command(&portal("http://x.example/rest/"), call, CommandId::new("1"), NOW, &CommandOptions::default())
    }

    fn work(properties: &Value) -> SendMessage {
        match made(&call(properties)).body {
            CommandBody::SendMessage(work) => *work,
            CommandBody::Answer(answer) => panic!("{answer:?}"),
            CommandBody::Invalid { failure } => panic!("{failure:?} for {properties}"),
        }
    }

    fn failure(properties: &Value) -> Failure {
        match made(&call(properties)).body {
            CommandBody::SendMessage(work) => panic!("{work:?}"),
            CommandBody::Answer(answer) => panic!("{answer:?}"),
            CommandBody::Invalid { failure } => failure,
        }
    }

    #[test]
    fn the_fixture_becomes_a_command() {
        let body: String = include_str!("../../../tests/fixtures/bitrix24/robot_call.txt").lines().collect();
        let call = robot_call(&decode(body.as_bytes(), FormLimits::default()).unwrap()).unwrap();
        let command = made(&call);
        assert_eq!(Some(&command.dedupe_key), call.event_token.as_ref());
        assert_eq!(command.card.unwrap().to_string(), "deal:134");
        assert_eq!(command.responsible, Some(CrmUserId("12".to_owned())));
        assert!(command.comment);
        let reply = command.reply.unwrap();
        assert_eq!(reply.wait, WaitFor::Delivered);
        assert_eq!(reply.answer_by, NOW.plus(Millis::minutes(30)));
        let CommandBody::SendMessage(work) = command.body else { panic!("invalid") };
        assert_eq!(work.recipients.phones, ["+7 900 123-45-67", "8 (900) 765-43-21"]);
        assert_eq!(work.text, "Your order is ready\nSee you soon");
    }

    #[test]
    fn every_field_finds_its_place() {
        let work = work(&json!({
            "PHONES": "+7900;8 (900) 1, ", "Chat_Ids": ["@ada", "42"], "recipients": "ALL", "messenger_field": "imol|x",
            "line": " line_1 ", "messenger": "WhatsApp", "text": "a<br>b<BR />c[br]d", "params": ["Ada", "", "x[br]y", ""],
            "fallback_template": "hello:ru", "files": ["https://x.example/a.pdf, https://x.example/b,c.pdf"],
            "caption": "see", "first_name": "Ada", "last_name": "L", "comment": "N",
        }));
        assert_eq!(work.recipients.source, RecipientSource::All);
        assert_eq!(work.recipients.phones, ["+7900", "8 (900) 1"]);
        assert_eq!(work.recipients.chat_ids, ["@ada", "42"]);
        assert_eq!(work.recipients.messenger_field, ["imol|x"]);
        assert_eq!((work.line.as_str(), work.messenger), ("line_1", Some(Messenger::Whatsapp)));
        assert_eq!(work.text, "a\nb\nc\nd");
        assert_eq!(work.files, ["https://x.example/a.pdf", "https://x.example/b,c.pdf"]);
        let fallback = work.fallback.unwrap();
        assert_eq!(fallback.template.label(), "hello:ru");
        assert_eq!(fallback.params, ["Ada", "", "x\ny"]);
        assert_eq!(fallback.files, work.files);
        assert_eq!((work.first_name.as_str(), work.last_name.as_str()), ("Ada", "L"));
    }

    #[test]
    fn guards_are_read_or_left_to_the_line() {
        let guards = |properties: &Value| {
            let mut all = json!({"text": "x"});
            all.as_object_mut().unwrap().extend(properties.as_object().unwrap().clone());
            work(&all).guards
        };
        for nothing in
            [json!({}), json!({"supersede": "line", "duplicates": "LINE", "quiet_hours": " ", "time_zone": ""})]
        {
            assert!(guards(&nothing).is_empty(), "{nothing}");
        }
        let all = guards(&json!({
            "not_after_minutes": "90", "supersede": "Y", "duplicates": "hold", "quiet_hours": "21:00-09:00",
            "time_zone": "мск+2",
        }));
        assert_eq!((all.not_after_minutes, all.supersede), (Some(90), Some(true)));
        assert_eq!((all.duplicates, all.quiet_hours), (Some(Duplicates::Hold), QuietChoice::parse("21:00-09:00")));
        assert_eq!(all.time_zone.as_deref(), Some("+05:00"));
        let none = guards(&json!({"supersede": "no", "duplicates": "off", "quiet_hours": "off"}));
        assert_eq!((none.supersede, none.duplicates), (Some(false), Some(Duplicates::Off)));
        assert_eq!(none.quiet_hours, Some(QuietChoice::Off));
    }

    #[test]
    fn the_robot_is_told_by_the_token() {
        let of = |token: &str| {
            let mut call = call(&json!({"text": "x"}));
            call.event_token = Some(token.to_owned());
            made(&call).robot
        };
        assert_eq!(of("6b4d.51|A70120_33921_55810_90112|kW3x.9f0c").as_deref(), Some("A70120_33921_55810_90112"));
        for other in ["tok", "a|b", "a||c", "a|b|c|d"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn files_of_a_template_belong_to_it() {
        let work = work(&json!({"template": "hello:ru", "params": "Ada", "files": "https://x.example/a.pdf"}));
        let call = work.template.unwrap();
        assert_eq!((call.params, call.files), (vec!["Ada".to_owned()], vec!["https://x.example/a.pdf".to_owned()]));
        assert!(work.files.is_empty());
    }

    #[test]
    fn empty_and_auto_choices_are_no_choice() {
        for word in ["", "auto", "AUTO"] {
            assert_eq!(work(&json!({"text": "x", "messenger": word, "recipients": ""})).messenger, None);
        }
        assert_eq!(work(&json!({"text": "x"})).recipients.source, RecipientSource::Given);
    }

    #[test]
    fn placeholders_left_anywhere_are_named() {
        for (key, value) in [
            ("text", json!("Hi {{Name}}")),
            ("params", json!(["ok", "{=Document:TITLE}"])),
            ("caption", json!("{{x}}")),
            ("phones", json!(["{=Document:PHONE}"])),
            ("files", json!("{=Document:UF_FILE > publink}")),
            ("template", json!("{{t}}")),
            ("messenger", json!("{=Variable:m}")),
            ("recipients", json!("{=Variable:r}")),
        ] {
            let mut properties = json!({"text": "x"});
            properties[key] = value;
            assert_eq!(failure(&properties).code, ErrorCode::UnresolvedPlaceholder, "{key}");
        }
        assert_eq!(failure(&json!({"text": "Hi {{Name}}"})).detail, "{{Name}}");
        assert_eq!(work(&json!({"text": "{Hi|Hello} {name}"})).text, "{Hi|Hello} {name}");
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        for (key, value, detail) in [
            ("wait", "soon", "wait=soon"),
            ("messenger", "pigeon", "messenger=pigeon"),
            ("recipients", "everyone", "recipients=everyone"),
            ("wait_minutes", "ten", "wait_minutes=ten"),
            ("comment", "perhaps", "comment=perhaps"),
            ("template", ":ru", "template=:ru"),
            ("fallback_template", ":", "fallback_template=:"),
            ("not_after_minutes", "0", "not_after_minutes=0"),
            ("not_after_minutes", "43201", "not_after_minutes=43201"),
            ("supersede", "perhaps", "supersede=perhaps"),
            ("duplicates", "drop", "duplicates=drop"),
            ("quiet_hours", "21-9", "quiet_hours=21-9"),
            ("quiet_hours", "21:00-21:00", "quiet_hours=21:00-21:00"),
            ("time_zone", "Екатеринбург", "time_zone=Екатеринбург"),
        ] {
            let mut properties = json!({"text": "x"});
            properties[key] = json!(value);
            assert_eq!(failure(&properties), Failure::with(ErrorCode::BadRequest, detail), "{key}");
        }
        let mut other = call(&json!({"text": "x"}));
        other.code = "fly_away".to_owned();
        let CommandBody::Invalid { failure } = made(&other).body else { panic!("valid") };
        assert_eq!(failure, Failure::with(ErrorCode::BadRequest, "code=fly_away"));
        assert_eq!(super::Fields(&BTreeMap::new()).bad("k", &"x".repeat(90)).detail.chars().count(), 42);
    }

    #[test]
    fn nothing_to_send_is_said() {
        for properties in
            [json!({}), json!({"text": " <br> "}), json!({"fallback_template": "a"}), json!({"caption": "c"})]
        {
            assert_eq!(failure(&properties).code, ErrorCode::NoContent, "{properties}");
        }
        assert_eq!(failure(&json!({"files": "1201"})), Failure::with(ErrorCode::FileType, "1201"));
    }

    #[test]
    fn the_answer_comes_before_the_robot_stops_waiting() {
        let answer_by = |properties: &Value, limit: &str| {
            let mut call = call(properties);
            call.timeout_duration = limit.parse().ok().filter(|n| *n > 0).map(Millis::seconds);
            made(&call).reply.unwrap().answer_by.since(NOW).0 / 1000
        };
        let text = |minutes: &str| json!({"text": "x", "wait_minutes": minutes});
        assert_eq!(answer_by(&text(""), "0"), 600);
        assert_eq!(answer_by(&text("3"), "0"), 180);
        assert_eq!(answer_by(&text("0"), "0"), 60);
        assert_eq!(answer_by(&text("-7"), "0"), 60);
        assert_eq!(answer_by(&text("100000"), "0"), 86_400);
        assert_eq!(answer_by(&text("3"), "86400"), 180);
        assert_eq!(answer_by(&text("3"), "60"), 55);
        assert_eq!(answer_by(&text("3"), "3"), 0);
        assert_eq!(answer_by(&json!({"wait_minutes": "ten"}), "0"), 600);
    }

    #[test]
    fn nobody_waits_without_subscription() {
        let mut running = call(&json!({"text": "x"}));
        running.use_subscription = false;
        let command = made(&running);
        assert_eq!((command.reply, command.dedupe_key.as_str()), (None, "tok"));
        running.event_token = None;
        let first = made(&running).dedupe_key;
        assert_eq!(first, made(&running).dedupe_key);
        running.properties.insert("text".to_owned(), json!("y"));
        assert_ne!(first, made(&running).dedupe_key);
    }

    #[test]
    fn the_author_is_shown_or_left_out() {
        let responsible = |value: Value| made(&call(&json!({"text": "x", "responsible": value}))).responsible;
        let user = |id: &str| Some(CrmUserId(id.to_owned()));
        assert_eq!(responsible(json!("user_1")), user("1"));
        assert_eq!(responsible(json!("12")), user("12"));
        assert_eq!(responsible(json!(["group_d4", "user_7"])), user("7"));
        for other in [json!(""), json!("user_0"), json!("Ada"), json!("user_1][/user]")] {
            assert_eq!(responsible(other.clone()), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_values_become_a_command(
            values in proptest::collection::vec("(<br>|\\[br|https?://|[,;{}=<\\[\\]/]|\\PC){0,12}", 23),
            listed: bool,
        ) {
            let value = |value: &String| if listed { json!([value, value]) } else { json!(value) };
            let keys = FILLED.iter().copied().chain(["wait_minutes", "comment", "responsible"]);
            let properties: Value = keys.zip(&values).map(|(key, text)| (key.to_owned(), value(text))).collect();
            prop_assert!(made(&call(&properties)).reply.is_some());
        }
    }
}
