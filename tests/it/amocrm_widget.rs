//! The widget of amoCRM from outside: its package against the vendor's rules, its calls with tokens of all kinds, and the
//! Digital Pipeline that it configures.

use std::process::{Command, Stdio};

use sandbox::{AccountSpec, AmoAccount, Trigger};
use serde_json::{Value, json};

use crate::amocrm::{Amo, CLIENT};
use crate::world::World;

/// Runs `mostik package amocrm` on the service's configuration; gives the archive and what was said.
pub(crate) async fn package(world: &World) -> (Vec<u8>, String) {
    let (config, folder) = (world.config().to_owned(), tempfile::tempdir().unwrap());
    let out = folder.path().join("widget.zip");
    let path = out.clone();
    let run = move || {
        let mut program = Command::new(env!("CARGO_BIN_EXE_mostik"));
        program.args(["package", "amocrm", "--out"]).arg(path).arg("--config").arg(config);
        program.stdin(Stdio::null()).output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (std::fs::read(out).unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// A program of another maker that reads archives says what is in this one.
fn listed_elsewhere(archive: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("widget.zip");
    std::fs::write(&path, archive).unwrap();
    let script = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; print('\\n'.join(z.namelist()))";
    let output = Command::new("python3").args(["-c", script]).arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Replaces bytes of the archive by others of the same length; checksums are not looked at by the vendor's rules.
fn mutated(archive: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut archive = archive.to_vec();
    let places: Vec<usize> = archive
        .windows(from.len())
        .enumerate()
        .filter(|(_, part)| *part == from.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty(), "{from} is not in the archive");
    for at in places {
        archive[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    archive
}

#[tokio::test(flavor = "multi_thread")]
async fn the_package_keeps_every_rule_and_breaking_one_is_noticed() {
    let amo = Amo::connected(false, "").await;
    let (archive, said) = package(&amo.world).await;
    amo.account.upload_widget(CLIENT, &archive).unwrap();
    let listed = listed_elsewhere(&archive);
    for name in
        ["manifest.json", "script.js", "i18n/ru.json", "i18n/en.json", "images/logo_main.png", "images/logo_dp.png"]
    {
        assert!(listed.lines().any(|line| line == name) && said.contains(name), "{name}: {listed}");
    }
    // The linter is no rubber stamp: each of these is found.
    for (from, to, words) in [
        ("\"init_once\": false", "\"init_once\": \"als\"", "init_once"),
        ("'use strict';", "alert('a');  ", "alert("),
        ("images/logo_min.png", "images/logo_mxn.png", "logo_min.png is missing"),
        ("\"salesbot_designer\"", "\"salesbot_designex\"", "salesbot_designe"),
        ("\"widget.name\"", "\"widget.nane\"", "widget.nane"),
        ("i18n/en.json", "i18n/xx.json", "i18n/en.json"),
        ("manifest.json", "w/anifest.json".get(..13).unwrap(), "manifest.json is missing"),
        (".mostik-root h3", ".another-one h3", "more than one root"),
        ("lcard-1", "lcard-7", "lcard-7 is unknown"),
        ("Sent\"", "Да\" ".get(..5).unwrap(), "holds Russian"),
    ] {
        let refused = amo.account.upload_widget(CLIENT, &mutated(&archive, from, to));
        let refused = refused.expect_err(from).to_string();
        assert!(refused.contains(words), "{from} → {to}: {refused}");
    }
    let mut crlf = archive.clone();
    let at = crlf.windows(11).position(|part| part == b"'use strict").unwrap() + 13;
    crlf[at] = b'\r';
    assert!(amo.account.upload_widget(CLIENT, &crlf).is_err());
    assert!(amo.account.upload_widget(CLIENT, b"no archive").is_err());
}

/// A caller like the widget in somebody's browser.
struct Widget<'a> {
    world: &'a World,
    token: String,
    origin: String,
}

impl<'a> Widget<'a> {
    fn of(world: &'a World, account: &AmoAccount) -> Self {
        let origin = format!("https://{}", account.host());
        Self { world, token: account.visitor_token(CLIENT, &json!({})).unwrap(), origin }
    }

    async fn ask(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> (u16, Option<String>, Value) {
        let url = format!("{}/amocrm/main/widget/{path}", self.world.base());
        let mut request = self.world.http.request(method, url).header("origin", &self.origin);
        if !self.token.is_empty() {
            request = request.header("x-auth-token", &self.token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let allowed =
            answer.headers().get("access-control-allow-origin").map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), allowed, answer.json().await.unwrap_or(Value::Null))
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let (status, _, answer) = self.ask(reqwest::Method::POST, path, Some(body)).await;
        (status, answer)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_accounts_own_pages_with_its_own_token_are_answered() {
    let amo = Amo::connected(false, "").await;
    let world = &amo.world;
    let good = Widget::of(world, &amo.account);
    let (status, allowed, answer) = good.ask(reqwest::Method::GET, "options?lang=en", None).await;
    assert_eq!((status, allowed.as_deref()), (200, Some(good.origin.as_str())), "{answer}");
    assert_eq!(answer["lines"][0]["channels"][0]["messenger"], "whatsapp");
    let label = |wanted: &str| {
        answer["templates"].as_array().unwrap().iter().any(|one| one["label"] == wanted && one["sendable"] == true)
    };
    assert!(label("order_update:ru") && label("order_update:en"), "{}", answer["templates"]);
    assert_eq!(answer["key"].as_str().unwrap().len(), 64);

    // Before it asks, a browser asks whether it may: without any token.
    let preflight = |origin: &str| {
        let url = format!("{}/amocrm/main/widget/messages", world.base());
        let request = world.http.request(reqwest::Method::OPTIONS, url).header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        async move {
            let answer =
                request.header("access-control-request-headers", "content-type,x-auth-token").send().await.unwrap();
            let header = |name: &str| {
                answer.headers().get(name).map_or(String::new(), |value| value.to_str().unwrap().to_owned())
            };
            (
                answer.status().as_u16(),
                header("access-control-allow-origin"),
                header("access-control-allow-headers"),
                header("vary"),
            )
        }
    };
    let (status, allowed, headers, vary) = preflight(&good.origin).await;
    assert_eq!((status, allowed, vary.as_str()), (204, good.origin.clone(), "Origin"));
    assert_eq!(headers, "Content-Type, X-Auth-Token");
    for origin in [
        "https://evil.example",
        "http://acme.amocrm.ru",
        "https://acme.amocrm.ru.evil.example",
        "null",
        "https://acme.amocrm.ru:8443",
        "https://amocrm.ru",
    ] {
        let (status, allowed, _, _) = preflight(origin).await;
        assert_eq!((status, allowed.as_str()), (403, ""), "{origin}");
    }

    let other = world.sandbox.add_account(AccountSpec { subdomain: "other".into(), ..AccountSpec::default() }).unwrap();
    let now = world.sandbox.now_ms() / 1000;
    let token = |changes: Value| amo.account.visitor_token(CLIENT, &changes).unwrap();
    let call = amo.call(1, json!({}));
    for (what, token, origin, status, told) in [
        ("no token", String::new(), good.origin.clone(), 403, true),
        (
            "a bot's token",
            amo.account.step_token(&call, crate::amocrm::SECRET, &json!({})),
            good.origin.clone(),
            403,
            true,
        ),
        ("expired", token(json!({"exp": now - 120})), good.origin.clone(), 403, true),
        (
            "a day old that says it lives for ever",
            token(json!({"iat": now - 86_400, "exp": now + 86_400})),
            good.origin.clone(),
            403,
            true,
        ),
        ("for somebody else", token(json!({"aud": "https://evil.example"})), good.origin.clone(), 403, true),
        ("of another integration", token(json!({"client_uuid": "x"})), good.origin.clone(), 403, true),
        (
            "of an account that is not installed",
            other.visitor_token(CLIENT, &json!({})).unwrap(),
            format!("https://{}", other.host()),
            403,
            true,
        ),
        ("on a page of another account", good.token.clone(), format!("https://{}", other.host()), 403, false),
        ("on a foreign page", good.token.clone(), "https://evil.example".to_owned(), 403, false),
    ] {
        let widget = Widget { world, token, origin };
        let (answered, allowed, _) = widget.ask(reqwest::Method::GET, "options", None).await;
        assert_eq!((answered, allowed.is_some()), (status, told), "{what}");
    }
    // A refusal is read by the widget, too.
    let (status, allowed, answer) = good.ask(reqwest::Method::POST, "check", Some(json!({"surprise": 1}))).await;
    assert_eq!((status, allowed.is_some()), (400, true), "{answer}");
    assert!(!world.log().contains(&good.token), "a token is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_fail_at_run_time_is_told_while_the_step_is_written() {
    let amo = Amo::connected(false, "").await;
    let widget = Widget::of(&amo.world, &amo.account);
    let step = |changes: Value| {
        let mut data = json!({"v": "1", "action": "send_message", "recipients": "main"});
        data.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        data
    };
    for (changes, field, words) in [
        (json!({}), "text", "no text"),
        (json!({"text": "{{contact.name}}, hello"}), "", ""),
        (json!({"text": "{{surprise}}"}), "text", "surprise"),
        (json!({"template": "order_update:en", "params": ["{{lead.id}}", "5"]}), "", ""),
        (
            json!({"template": "order_update:en", "params": ["{{contact.name}}", "5"]}),
            "params",
            "Parameter 1 may come empty",
        ),
        (
            json!({"template": "order_update:en", "params": ["{{contact.name}}", "5"], "param_defaults": ["friend"]}),
            "",
            "",
        ),
        (json!({"template": "order_update:en", "params": ["5"]}), "params", "parameters do not fit"),
        (json!({"template": "never_made:en"}), "template", "not approved"),
        (json!({"text": "Hi", "recipients": "given"}), "phones", "Nobody to write to"),
        (json!({"text": "Hi", "recipients": "given", "phones": "12"}), "phones", "not a phone number"),
        (json!({"text": "Hi", "recipients": "given", "phones": "{{contact.phone}}"}), "", ""),
        (json!({"text": "Hi", "messenger": "vk"}), "messenger", "VK"),
        (json!({"text": "Hi", "line": "line_unknown"}), "line", "line"),
        (json!({"text": "Hi", "files": ["not an address"]}), "files", ""),
        (json!({"text": "Hi", "wait": "for ever"}), "wait", ""),
    ] {
        let data = step(changes);
        let (status, answer) = widget.post("check", json!({"lang": "en", "data": data})).await;
        assert_eq!(status, 200, "{answer}");
        let problems = answer["problems"].as_array().unwrap();
        let first = problems.first().map_or((String::new(), String::new()), |problem| {
            (problem["field"].as_str().unwrap().to_owned(), problem["text"].as_str().unwrap().to_owned())
        });
        assert_eq!(first.0, field, "{data}: {answer}");
        assert!(first.1.contains(words), "{data}: {answer}");
    }
    // The pipeline fills nothing in, so what a bot would fill in is told there.
    let named = step(json!({"text": "{{contact.name}}, hello"}));
    let (_, answer) = widget.post("check", json!({"lang": "en", "pipeline": true, "data": named})).await;
    assert!(answer["problems"][0]["text"].as_str().unwrap().contains("{{contact.name}}"), "{answer}");
    let (_, russian) = widget.post("check", json!({"lang": "ru", "data": step(json!({}))})).await;
    assert!(russian["problems"][0]["text"].as_str().unwrap().contains("Нет ни текста"), "{russian}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_writes_first_and_sees_the_conversation() {
    let amo = Amo::connected(false, "").await;
    let (world, widget) = (&amo.world, Widget::of(&amo.world, &amo.account));
    let lead = amo.lead("+7 905 777-00-01");
    let data = json!({"v": "1", "action": "send_message", "lead": lead.to_string(), "recipients": "given",
        "phones": "+7 905 777-00-01", "template": "order_update:ru", "params": ["Анна", "12"]});
    // However often it is clicked.
    for _ in 0..3 {
        let (status, answer) = widget.post("messages", json!({"request": "click-1", "data": data})).await;
        assert_eq!(status, 202, "{answer}");
    }
    amo.note_says(lead, "Прочитано").await;
    assert_eq!(world.messages("79057770001").len(), 1);
    assert!(amo.note(lead).unwrap().text.contains("+79057770001"));
    let (status, answer) =
        widget.post("dialogs", json!({"lang": "ru", "phones": ["8 (905) 777-00-01", "nonsense"]})).await;
    assert_eq!(status, 200);
    let message = &answer["messages"][0];
    assert_eq!((message["state"].as_str(), message["words"].as_str()), (Some("read"), Some("Прочитано")), "{answer}");
    // What can never be sent is said at once, and is no note.
    let mut bad = data.clone();
    bad["template"] = json!("never_made:ru");
    let (status, answer) = widget.post("messages", json!({"lang": "ru", "request": "click-2", "data": bad})).await;
    assert_eq!(status, 422);
    assert!(answer["detail"].as_str().unwrap().contains("не одобрен"), "{answer}");
    assert_eq!(amo.account.notes(lead).len(), 1);
    // Channels of lines that are not this account's are not its business.
    let portal = amo.portal().await;
    let (portal, line) = (portal["id"].as_str().unwrap().to_owned(), world.line.clone());
    let url = format!("{}/api/v1/portals/{portal}/lines/{line}", world.base());
    let unbound = world.http.delete(url).bearer_auth("admin-token-of-the-tests").send().await.unwrap();
    assert!(unbound.status().is_success());
    let empty =
        || async { widget.post("dialogs", json!({"phones": ["79057770001"]})).await.1["messages"] == json!([]) };
    let deadline = std::time::Instant::now() + crate::world::SOON;
    while !empty().await {
        assert!(std::time::Instant::now() < deadline, "messages of a foreign line are shown");
        tokio::task::yield_now().await;
    }
}

async fn pipeline(postgres: bool) {
    let amo = Amo::connected(postgres, "").await;
    let (world, widget) = (&amo.world, Widget::of(&amo.world, &amo.account));
    let (archive, _) = package(world).await;
    amo.account.upload_widget(CLIENT, &archive).unwrap();
    let (_, _, options) = widget.ask(reqwest::Method::GET, "options", None).await;
    let key = options["key"].as_str().unwrap().to_owned();
    let settings = |key: &str| {
        let settings = json!({"key": key, "action": "send_message", "recipients": "main", "template": "order_update:ru",
            "params": "[\"\",\"{{lead.id}}\"]", "param_defaults": "[\"клиент\"]"});
        settings.as_object().unwrap().clone()
    };
    let trigger = |status: i64, key: &str| Trigger { status, settings: settings(key) };
    // amoCRM fills in what it knows in the settings of hooks as well as nothing; a number is given plainly.
    let mut good = trigger(60_010_204, &key);
    good.settings.insert("params".into(), json!("[\"\",\"1204\"]"));
    amo.account.add_trigger(good.clone());
    let lead = amo.lead("79056660001");
    amo.account.move_lead(lead, 60_010_204).unwrap();
    world.until("the hook is answered", |_| amo.account.hook_answers() == [200]).await;
    amo.note_says(lead, "Прочитано").await;
    let messages = world.messages("79056660001");
    assert_eq!(messages.len(), 1);
    // A stranger, a guess, an account that is not there: refused, and nothing is sent.
    let hook = format!("{}/amocrm/main/pipeline/widget", world.base());
    let other = amo.lead("79056660002");
    for (number, (url, key)) in [
        (hook.clone(), String::new()),
        (hook.clone(), "0".repeat(64)),
        (format!("{}/amocrm/main/pipeline/{}", world.base(), "0".repeat(64)), key.clone()),
        (format!("{}/amocrm/main/pipeline/x", world.base()), key.clone()),
    ]
    .into_iter()
    .enumerate()
    {
        amo.account.call_hook(&url, other, &trigger(142, &key));
        world.until("it is refused", |_| amo.account.hook_answers().get(number + 1) == Some(&403)).await;
    }
    // The word in the path does as well as in the settings.
    amo.account.call_hook(&format!("{}/amocrm/main/pipeline/{key}", world.base()), other, &trigger(142, ""));
    world.until("it is taken", |_| amo.account.hook_answers().last() == Some(&200)).await;
    // A placeholder that came unfilled is no text.
    world.until("the failure has its note", |_| amo.note(other).is_some()).await;
    assert_eq!(world.messages("79056660002").len(), 0);
    // The same call again is the same call.
    let body = "event[type]=14&event[data][id]=LEAD&event[data][element_type]=2&event[time]=1770110100\
        &action[settings][widget][settings][key]=KEY&action[settings][widget][settings][template]=order_update:ru\
        &action[settings][widget][settings][params]=[\"a\",\"b\"]&account_id=ACCOUNT&subdomain=acme";
    let third = amo.lead("79056660003");
    let body =
        body.replace("LEAD", &third.to_string()).replace("KEY", &key).replace("ACCOUNT", &amo.account.id().to_string());
    for direction in ["went_to_trigger", "went_to_trigger", "went_from_trigger"] {
        let body = format!("{body}&event[data][direction_of_movement]={direction}");
        let request = world.http.post(&hook).header("content-type", "application/x-www-form-urlencoded").body(body);
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    amo.note_says(third, "Прочитано").await;
    assert_eq!((world.messages("79056660003").len(), amo.account.notes(third).len()), (1, 1));
    assert_eq!(amo.complaints(), Vec::<String>::new());
    assert!(!world.log().contains(&key), "the word is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_comes_to_a_stage_is_written_to_sqlite() {
    pipeline(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_comes_to_a_stage_is_written_to_postgres() {
    pipeline(true).await;
}
