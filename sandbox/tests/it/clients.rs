//! The sandbox as clients of other makers see it (`tests/clients`): Bitrix24's SDKs, two WhatsApp libraries, a client
//! of amoCRM.
//!
//! Whatever they read from an answer or a webhook is the vendor's form, not our idea of it. They are installed by
//! `tests/tools/clients`; without them these tests fail.

use std::{process::Stdio, time::Duration};

use sandbox::{
    AccountSpec, Inbound, IntegrationSpec, PhoneTraits, PortalLimits, Sandbox, TemplateSpec, Violation, entity,
};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::{ANNA, Line, SOON, Stage};

const PATIENCE: Duration = Duration::from_mins(1);

/// Runs `program script` from `tests/clients`; panics with all it printed unless it ends well.
async fn run(program: &str, script: &str, stage: &Value, input: &str) -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/clients");
    let mut child = tokio::process::Command::new(program)
        .arg(script)
        .current_dir(folder)
        .env("CLIENTS_STAGE", stage.to_string())
        .env("NO_PROXY", "127.0.0.1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{program} does not start: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let done = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let done = done.unwrap_or_else(|_| panic!("{script} did not end within {PATIENCE:?}")).unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{script}: {}\n{said}\n{}", done.status, String::from_utf8_lossy(&done.stderr));
    said.lines().map(str::to_owned).collect()
}

fn needed(variable: &str) -> String {
    #[expect(clippy::disallowed_methods, reason = "where the clients are installed is told by the environment")]
    let found = std::env::var(variable);
    found.unwrap_or_else(|_| {
        panic!("{variable} is not set: run tests/run, or `. tests/tools/clients` before the test runner")
    })
}

/// Violations other than the expected ones, `(target, code)`, each of which must have happened.
fn surprises(violations: Vec<Violation>, expected: &[(&str, &str)]) -> Vec<Violation> {
    let is = |own: &Violation, (target, code): &(&str, &str)| own.target == *target && own.code == *code;
    for wanted in expected {
        assert!(violations.iter().any(|own| is(own, wanted)), "{wanted:?} did not happen: {violations:?}");
    }
    violations.into_iter().filter(|own| !expected.iter().any(|wanted| is(own, wanted))).collect()
}

#[tokio::test]
async fn the_official_javascript_sdk_works_with_a_portal() {
    needed("CLIENTS_NODE");
    let stage = Stage::installed().await;
    stage.portal.set_limits(PortalLimits::default());
    let contact = stage.portal.add_contact("Анна", "Тест", "+7 916 123-45-67").unwrap();
    let deal = stage.portal.add_deal("№ 1042", contact).unwrap();
    for nth in 1..120 {
        stage.portal.add_deal(&format!("№ {}", 1042 + nth), contact).unwrap();
    }
    let given = json!({
        "control": stage.sandbox.addresses().control,
        "server_endpoint": stage.sandbox.addresses().server_endpoint,
        "member_id": stage.portal.member_id(),
        "domain": stage.portal.domain(),
        "client_endpoint": stage.portal.client_endpoint(),
        "client_id": stage.app.client_id,
        "client_secret": stage.app.client_secret,
        "application_token": stage.portal.app(&stage.app.client_id).unwrap().application_token,
        "tokens": stage.tokens(),
        "deal": deal,
        "deals": stage.portal.item_count(entity::DEAL),
        "contact": contact,
    });
    run("node", "bitrix24.mjs", &given, "").await;
    let expected = [("rest.crm.no.such.method", "ERROR_METHOD_NOT_FOUND"), ("oauth.token", "invalid_grant")];
    let surprises = surprises(stage.sandbox.violations(), &expected);
    assert!(surprises.is_empty(), "{surprises:#?}");
    assert_eq!(stage.portal.timeline_len(entity::DEAL, deal), 2);
}

#[tokio::test]
async fn an_independent_client_works_with_the_graph_api() {
    needed("CLIENTS_NODE");
    let line = Line::start().await;
    with_template(&line);
    let given = stage_of(&line);
    run("node", "whatsapp.mjs", &given, "").await;
    let expected = [("graph.messages", "132001")];
    let surprises = surprises(line.sandbox.violations(), &expected);
    assert!(surprises.is_empty(), "{surprises:#?}");
}

#[tokio::test]
async fn independent_parsers_read_what_is_sent_to_the_service() {
    let python = needed("CLIENTS_PYTHON");

    let stage = Stage::bare().await;
    stage.portal.install(&stage.app.client_id).await.unwrap();
    stage.with_robot(json!({})).await;
    let bind = json!({"event": "ONCRMDEALADD", "handler": stage.service.url("/events"), "auth_type": 0});
    stage.ok("event.bind", bind).await;
    let (_, robot) = stage.fire().await;
    let application_token = stage.portal.app(&stage.app.client_id).unwrap().application_token;
    stage.portal.uninstall(&stage.app.client_id, true).unwrap();
    stage.sandbox.settled(SOON).await.unwrap();
    let events: Vec<_> = stage.service.on("/events").into_iter().map(|got| got.body).collect();

    let line = Line::start().await;
    with_template(&line);
    line.number.subscribe(&line.service.url("/again")).await.unwrap();
    let challenge = line.service.on("/again")[0].query.clone();
    let body = json!([{"type": "body", "parameters": [{"type": "text", "text": "№ 1042"}]}]);
    let template = json!({"name": "order_ready", "language": {"code": "ru"}, "components": body});
    line.accepted(json!({"type": "template", "template": template, "biz_opaque_callback_data": "order-1042"})).await;
    line.accepted(json!({"type": "text", "text": {"body": "Рано"}})).await;
    let anna = line.sandbox.phone(ANNA);
    let said = anna.say(&line.number, "Здравствуйте! 😀 a/b").unwrap();
    for what in [
        json!({"type": "media", "kind": "image", "caption": "Фото"}),
        json!({"type": "location", "latitude": 55.75, "longitude": 37.61, "name": "Офис"}),
        json!({"type": "reaction", "message_id": said, "emoji": "👍"}),
    ] {
        anna.send(&line.number, &serde_json::from_value::<Inbound>(what).unwrap(), None).unwrap();
    }
    line.number.set_template_status("order_ready", "ru", "PAUSED", None).unwrap();
    line.settled().await;
    let webhooks: Vec<_> = line
        .service
        .on("/again")
        .into_iter()
        .filter(|got| got.method == "POST")
        .map(|got| json!({"body": got.body, "signature": got.headers["x-hub-signature-256"]}))
        .collect();

    let given = json!({
        "member_id": stage.portal.member_id(),
        "client_endpoint": stage.portal.client_endpoint(),
        "application_token": application_token,
        "robot": robot.body,
        "events": events,
        "number": line.number.view().spec,
        "customer": ANNA,
        "challenge": challenge,
        "webhooks": webhooks,
    });
    run(&python, "parsers.py", &Value::Null, &given.to_string()).await;
}

#[tokio::test]
async fn a_python_client_works_with_an_account_of_amocrm() {
    let python = needed("CLIENTS_PYTHON");
    let sandbox = Sandbox::start().await.unwrap();
    let integration = sandbox.add_integration(IntegrationSpec {
        redirect_uri: "https://connector.example/amocrm/main/oauth".into(),
        ..IntegrationSpec::default()
    });
    let account = sandbox.add_account(AccountSpec::default()).unwrap();
    let contact = account.add_contact("Анна Ким", &[("+7 905 111-22-33", "MOB")]);
    let lead = account.add_lead("Заказ", &[contact]);
    let given = json!({
        "base_url": sandbox.addresses().amocrm.replace("{subdomain}", "acme"),
        "client_id": integration.client_id,
        "client_secret": integration.client_secret,
        "redirect_uri": integration.redirect_uri,
        "code": account.code(&integration.client_id),
        "lead": lead,
        "contact": contact,
    });
    run(&python, "amocrm.py", &Value::Null, &given.to_string()).await;
    assert_eq!(account.notes(lead).len(), 1);
}

fn with_template(line: &Line) {
    let components = json!([{"type": "BODY", "text": "Заказ {{1}} готов.", "example": {"body_text": [["№ 1"]]}}]);
    line.number
        .put_template(TemplateSpec { name: "order_ready".into(), components, ..TemplateSpec::default() })
        .unwrap();
    let traits = PhoneTraits { name: Some("Анна".into()), auto_read: Some(true), ..PhoneTraits::default() };
    line.sandbox.phone(ANNA).set(traits);
}

fn stage_of(line: &Line) -> Value {
    let spec = line.number.view().spec;
    json!({
        "control": line.sandbox.addresses().control,
        "graph": line.sandbox.addresses().graph,
        "phone_number_id": spec.phone_number_id,
        "waba_id": spec.waba_id,
        "access_token": spec.access_token,
        "app_secret": spec.app_secret,
        "verify_token": spec.verify_token,
        "customer": ANNA,
    })
}
