//! From a robot call to a [`Command`].

use serde_json::Value;

use super::sha256_hex;
use super::wire::RobotCall;
use crate::crm::asked::{CommandOptions, asked};
use crate::domain::command::Command;
use crate::domain::ids::CommandId;
use crate::domain::portal::Portal;
use crate::domain::time::Timestamp;

/// Puts a robot call into the product's words. Never fails: what cannot be carried out says why.
#[must_use]
pub fn command(portal: &Portal, call: &RobotCall, id: CommandId, now: Timestamp, options: &CommandOptions) -> Command {
    let asked = asked(&call.code, &call.properties);
    let token = call.event_token.clone().filter(|_| call.use_subscription);
    let reply = token.map(|token| asked.reply(token, call.timeout_duration, now, options));
    Command {
        id,
        portal: portal.id.clone(),
        dedupe_key: dedupe_key(call),
        card: call.document.card(),
        reply,
        comment: asked.comment,
        responsible: asked.responsible,
        received: now,
        robot: call.event_token.as_deref().and_then(robot_of),
        body: asked.body,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use std::collections::BTreeMap;

    use crate::crm::asked::{FILLED, Fields};
    use crate::crm::bitrix24::testing::portal;
    use crate::crm::bitrix24::wire::robot_call;
    use crate::domain::channel::Messenger;
    use crate::domain::command::{CommandBody, RecipientSource, SendMessage, WaitFor};
    use crate::domain::guards::{Duplicates, QuietChoice};
    use crate::domain::ids::CrmUserId;
    use crate::domain::outcome::{ErrorCode, Failure};
    use crate::domain::time::Millis;
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
            other @ (CommandBody::CheckPhone(_)
            | CommandBody::RenameChat(_)
            | CommandBody::TagDialog(_)
            | CommandBody::Answer(_)
            | CommandBody::Invalid { .. }) => {
                panic!("{other:?} for {properties}")
            }
        }
    }

    fn failure(properties: &Value) -> Failure {
        match made(&call(properties)).body {
            CommandBody::Invalid { failure } => failure,
            other @ (CommandBody::SendMessage(_)
            | CommandBody::CheckPhone(_)
            | CommandBody::RenameChat(_)
            | CommandBody::TagDialog(_)
            | CommandBody::Answer(_)) => {
                panic!("{other:?}")
            }
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
        assert_eq!(Fields(&BTreeMap::new()).bad("k", &"x".repeat(90)).detail.chars().count(), 42);
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
