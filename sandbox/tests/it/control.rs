//! The control API, driven as the demo's page and shell scripts will drive it.

use std::time::Duration;

use futures_util::StreamExt;
use sandbox::{PortalLimits, Sandbox};
use serde_json::{Value, json};

use crate::support::{ANNA, Receiver, client};

struct Control {
    sandbox: Sandbox,
    http: reqwest::Client,
}

impl Control {
    async fn start() -> Self {
        Self { sandbox: Sandbox::start().await.unwrap(), http: client() }
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let url = format!("{}/control/{path}", self.sandbox.addresses().control);
        let mut request = self.http.request(method.parse().unwrap(), url);
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, Value::Null).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call("POST", path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }
}

#[tokio::test]
async fn a_portal_is_built_used_and_watched_over_http() {
    let control = Control::start().await;
    let service = Receiver::start().await;
    let app = control
        .post("apps", json!({"application_url": service.url("/app"), "installer_url": service.url("/install"), "event_handler_url": service.url("/events")}))
        .await;
    let client_id = app["client_id"].as_str().unwrap().to_owned();
    let portal = control.post("portals", json!({"name": "Ромашка"})).await;
    let at = format!("portals/{}", portal["member_id"].as_str().unwrap());
    let installed = control.post(&format!("{at}/install"), json!({"client_id": client_id})).await;
    assert_eq!(installed["install"]["installed"], true);
    assert_eq!(installed["page"]["status"], 200);
    control.get("settled").await;
    assert_eq!(service.events("ONAPPINSTALL").len(), 1);

    let handle = control.sandbox.portals()[0].clone();
    let token = control.post(&format!("{at}/tokens"), json!({"client_id": client_id})).await;
    let robot =
        json!({"CODE": "r", "HANDLER": service.url("/r"), "NAME": "r", "AUTH_USER_ID": 1, "USE_SUBSCRIPTION": "Y"});
    let url = format!("{}bizproc.robot.add", handle.client_endpoint());
    control.http.post(url).bearer_auth(token["access_token"].as_str().unwrap()).json(&robot).send().await.unwrap();
    assert_eq!(control.get(&format!("{at}/robots")).await[0]["code"], "r");

    control.post(&format!("{at}/automations"), json!({"stage_id": "WON", "robot": "r", "timeout_s": 60})).await;
    let bulk = control.post(&format!("{at}/bulk"), json!({"count": 30, "phone_from": 79160000000_u64})).await;
    assert_eq!(bulk["count"], 30);
    let since = control.get("changes").await["next"].clone();
    let moved = control.post(&format!("{at}/move"), json!({"from": "NEW", "stage_id": "WON"})).await;
    assert_eq!(moved["moved"], 30);
    control.get("settled").await;
    assert_eq!(service.on("/r").len(), 30);
    let seen = control.get(&format!("changes?since={since}&wait_ms=1000")).await;
    assert!(seen["changes"].as_array().unwrap().iter().any(|change| change["kind"] == "item"));
    let card = control.get(&format!("{at}/items/2/{}", bulk["first"])).await;
    assert_eq!((&card["item"]["stage_id"], &card["runs"][0]["state"]), (&json!("WON"), &json!("waiting")));

    let state = control.get("state?deals=10").await;
    assert_eq!(state["portals"][0]["cards"].as_array().unwrap().len(), 10);
    assert_eq!(state["portals"][0]["cards"][0]["robot"], "waiting");
    assert_eq!(control.get("counters").await["robot.callback"], 30);
    let calls = control.get("calls?target=robot.callback&limit=5").await;
    assert_eq!(
        (calls.as_array().unwrap().len(), &calls[0]["direction"], &calls[0]["status"]),
        (5, &json!("out"), &json!(200))
    );
    control.post("clock/advance", json!({"ms": 61_000})).await;
    control.sandbox.until(Duration::from_secs(5), |sandbox| sandbox.counter("robot.timed_out") == 30).await.unwrap();
    control.post(&format!("{at}/uninstall"), json!({"client_id": client_id, "clean": true})).await;
    assert_eq!(control.get(&at).await["installs"], json!([]));
}

#[tokio::test]
async fn phones_and_numbers_are_driven_over_http() {
    let control = Control::start().await;
    let service = Receiver::start().await;
    let number =
        control.post("numbers", json!({"phone_number_id": "330", "display_phone_number": "79990001122"})).await;
    assert!(number["access_token"].as_str().unwrap().starts_with("EAAG"));
    control.post("numbers/330/subscribe", json!({"url": service.url("/hook")})).await;
    control.call("PATCH", &format!("phones/{ANNA}"), json!({"name": "Анна", "auto_read": false})).await;
    let said = control
        .post(&format!("phones/{ANNA}/send"), json!({"number": "330", "message": {"type": "text", "body": "Привет"}}))
        .await;
    assert!(said["wamid"].is_string());
    control.get("settled").await;
    assert_eq!(service.on("/hook").len(), 2, "challenge and message");

    let url = format!("{}/v24.0/330/messages", control.sandbox.addresses().graph);
    let body = json!({"messaging_product": "whatsapp", "to": ANNA, "text": {"body": "Здравствуйте"}, "biz_opaque_callback_data": "o1"});
    control.http.post(url).bearer_auth(number["access_token"].as_str().unwrap()).json(&body).send().await.unwrap();
    control.get("settled").await;
    let screen = control.get(&format!("phones/{ANNA}/screen")).await;
    assert_eq!(
        (&screen[0]["shown"]["text"], &screen[0]["statuses"][1]["status"]),
        (&json!("Здравствуйте"), &json!("delivered"))
    );
    control.post(&format!("phones/{ANNA}/read"), json!({"number": "330"})).await;
    let totals = control.get("ledger/totals").await;
    assert_eq!(
        (&totals["accepted"], &totals["read"], &totals["inbound"], &totals["repeated_opaque"]),
        (&json!(1), &json!(1), &json!(1), &json!(0))
    );
    assert_eq!(control.get("ledger?opaque=o1").await.as_array().unwrap().len(), 1);
    control
        .post("numbers/330/templates", json!({"name": "mine", "components": [{"type": "BODY", "text": "Hi"}]}))
        .await;
    control.post("numbers/330/templates/status", json!({"name": "mine", "language": "ru", "status": "PAUSED"})).await;
    let (status, _) = control.call("DELETE", "numbers/330/templates/mine/ru", Value::Null).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn options_are_patched_and_mistakes_named() {
    let control = Control::start().await;
    let (status, graph) = control.call("PATCH", "graph", json!({"sent_ms": 7, "pair_limit": null})).await;
    assert_eq!((status, &graph["sent_ms"], &graph["pair_limit"]), (200, &json!(7), &Value::Null));
    let (status, body) = control.call("PATCH", "graph", json!({"sent": 7})).await;
    assert_eq!(status, 400, "{body}");
    let (_, oauth) = control.call("PATCH", "oauth", json!({"access_life_s": 2})).await;
    assert_eq!(oauth["access_life_s"], 2);
    let (_, knobs) = control.call("PATCH", "knobs/webhooks", json!({"hold": true})).await;
    assert_eq!(knobs["hold"], true);
    assert_eq!(control.get("knobs/queue").await["held"], 0);
    let fault = control
        .post("faults", json!({"target": "graph.messages", "action": {"do": "cut_answer", "at": 5}, "times": 1}))
        .await;
    assert_eq!(control.get("faults").await[0]["id"], fault["id"]);
    let (status, _) = control.call("POST", "faults", json!({"target": "x", "action": {"do": "explode"}})).await;
    assert_eq!(status, 400);
    assert_eq!(control.call("DELETE", &format!("faults/{}", fault["id"]), Value::Null).await.0, 200);
    assert_eq!(control.call("DELETE", "faults/99", Value::Null).await.0, 404);
    control.post("reset", Value::Null).await;
    assert_eq!(control.get("knobs/webhooks").await["knobs"]["hold"], false);
    assert_eq!(control.call("GET", "nothing", Value::Null).await.0, 404);
    let portal = control.post("portals", json!({"limits": PortalLimits::off(), "switches": {"old_pages": true}})).await;
    let at = format!("portals/{}", portal["member_id"].as_str().unwrap());
    let (_, switches) = control.call("PATCH", &format!("{at}/switches"), json!({"maintenance": 502})).await;
    assert_eq!((&switches["maintenance"], &switches["old_pages"]), (&json!(502), &json!(true)));
    let (_, limits) = control.call("PUT", &format!("{at}/limits"), json!({"burst": 250.0, "drain_per_s": 5.0})).await;
    assert_eq!(limits["burst"], 250.0);
}

#[tokio::test]
async fn the_event_stream_tells_changes_as_they_happen() {
    let control = Control::start().await;
    let url = format!("{}/control/events", control.sandbox.addresses().control);
    let answer = control.http.get(url).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut stream = answer.bytes_stream();
    assert_eq!(stream.next().await.unwrap().unwrap(), ": hello\n\n");
    control.post("portals", json!({})).await;
    let told = String::from_utf8(stream.next().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(
        told.starts_with("id: 1\ndata: {") && told.contains("\"kind\":\"portal\"") && told.ends_with("\n\n"),
        "{told}"
    );
}
