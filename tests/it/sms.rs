//! Our lines as senders of a portal's short messages.

use sandbox::{PageRequest, SmsSpec, TemplateSpec};
use serde_json::{Value, json};

use crate::chats::{CONNECTOR, connected, hidden};
use crate::world::{DEAL, Wish, World};

const PHONE: &str = "79161234567";

impl World {
    async fn sms_path(&self, more: &str) -> String {
        let (_, portals) = self.get("/api/v1/portals").await;
        format!("/api/v1/portals/{}/sms-senders{more}", portals["items"][0]["id"].as_str().unwrap())
    }

    /// Makes the line a sender of WhatsApp; gives its code once the portal has it.
    async fn sms_sender(&self, settings: Value) -> String {
        let path = self.sms_path(&format!("/whatsapp/{}", self.line)).await;
        let (status, sender) = self.put(&path, settings).await;
        assert_eq!(status, 200, "{sender}");
        let code = sender["code"].as_str().unwrap().to_owned();
        self.until("the portal has the sender", |w| w.portal.senders(&w.client_id).iter().any(|own| own.code == code))
            .await;
        code
    }

    fn sms(&self, code: &str, body: &str, deal: i64, author: i64) -> String {
        let spec = SmsSpec {
            code: code.to_owned(),
            to: format!("+{PHONE}"),
            body: body.to_owned(),
            bindings: vec![(3, 1), (DEAL, deal)],
            author,
        };
        self.portal.send_sms(&self.client_id, &spec).unwrap()
    }

    fn sms_statuses(&self, id: &str) -> Vec<String> {
        let all = self.portal.sms();
        let one = all.iter().find(|sms| sms.message_id == id).unwrap();
        one.statuses.iter().map(|(_, status)| status.clone()).collect()
    }
}

fn wish() -> Wish {
    Wish { scopes: &["messageservice"], bitrix24: "repeat_result = \"0s\"\n", ..Wish::default() }
}

async fn sends(world: World) {
    let code = world.sms_sender(json!({})).await;
    let names = world.portal.senders(&world.client_id);
    assert_eq!((names.len(), &names[0].name), (1, &json!("WhatsApp: Sales")));
    let deal = world.deal(PHONE);
    // The window is closed: the portal is told that it failed, and the card why and what to do.
    let id = world.sms(&code, "Заказ готов", deal, 1);
    world.until("the portal is told", |w| w.sms_statuses(&id) == ["sent", "failed"]).await;
    world.until("the card says why", |w| w.comment(deal).contains("24")).await;
    assert!(world.messages(PHONE).is_empty());

    // It is open: delivered. An automation without a user sends no tokens at all, and is believed by its address.
    world.open_window(PHONE).await;
    for author in [1, 0] {
        let deal = world.deal(PHONE);
        let id = world.sms(&code, &format!("Заказ готов, {author}"), deal, author);
        world.until("the portal is told", |w| w.sms_statuses(&id) == ["sent", "delivered"]).await;
        world.until("the card tells", |w| w.comment(deal).contains("Прочитано")).await;
    }
    assert_eq!(world.messages(PHONE).len(), 2);
    assert_eq!(world.portal.sms().iter().filter(|sms| sms.callback_status == Some(200)).count(), 3);

    // The same call again, and calls that prove nothing.
    let sender = world.portal.senders(&world.client_id).remove(0);
    let again = world.portal.sms().last().unwrap().clone();
    let form = |id: &str| {
        [
            ("code", code.clone()),
            ("message_id", id.to_owned()),
            ("message_to", again.to.clone()),
            ("message_body", again.body.clone()),
        ]
    };
    let post = |url: String, id: String| {
        let call = world.http.post(url).form(&form(&id));
        async move { call.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(post(sender.handler.clone(), again.message_id.clone()).await, 200);
    let (bare, _) = sender.handler.split_once('?').unwrap();
    for (url, refusal) in [
        (bare.to_owned(), 403),
        (format!("{bare}?key=s1.x.y"), 403),
        (sender.handler.replace("mostik_whatsapp", "mostik_telegram"), 403),
        (sender.handler.replace("/main/", "/other/"), 404),
    ] {
        assert_eq!(post(url.clone(), "0cc175b9c0f1b6a831c399e269772661".to_owned()).await, refusal, "{url}");
    }
    assert_eq!(post(sender.handler.clone(), String::new()).await, 400);
    world.open_window(PHONE).await;
    assert_eq!(world.messages(PHONE).len(), 2, "nothing more was sent");

    // An update of the application takes the sender away; it comes back. Switched off, it goes.
    world.portal.update_app(&world.client_id, 2).unwrap();
    world.until("it is back", |w| w.portal.senders(&w.client_id).len() == 1).await;
    let path = world.sms_path(&format!("/whatsapp/{}", world.line)).await;
    assert_eq!(world.delete(&path).await, 204);
    world.until("it is gone", |w| w.portal.senders(&w.client_id).is_empty()).await;
    assert_eq!(post(sender.handler, "1cc175b9c0f1b6a831c399e269772661".to_owned()).await, 404);
    let mut refusals = world.complaints();
    refusals.retain(|complaint| !complaint.contains("ERROR_ACTIVITY_NOT_FOUND"));
    assert_eq!(refusals, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn short_messages_of_the_portal_go_through_a_line_and_their_status_goes_back() {
    sends(World::with(wish()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn short_messages_go_through_a_line_on_postgres_too() {
    sends(World::with(Wish { postgres: true, ..wish() }).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_message_takes_its_template_when_the_window_is_closed_and_the_right_may_be_missing() {
    let world = World::with(Wish { scopes: &[], ..wish() }).await;
    // Without the right the portal has no senders; what else is registered stands all the same.
    let path = world.sms_path(&format!("/whatsapp/{}", world.line)).await;
    let (status, _) = world.put(&path, json!({"template": "order_update:ru"})).await;
    assert_eq!(status, 200);
    world.until("it was tried", |w| w.log().contains("senders are not offered")).await;
    assert!(world.portal.senders(&world.client_id).is_empty());
    world.portal.set_scopes(&world.client_id, &["crm", "bizproc", "messageservice"]).unwrap();
    let reminder = TemplateSpec {
        name: "reminder".into(),
        components: json!([{"type": "BODY", "text": "Напоминаем: {{1}}!", "example": {"body_text": [["приём"]]}}]),
        ..TemplateSpec::default()
    };
    world.number.put_template(reminder).unwrap();
    let code = world.sms_sender(json!({"template": "reminder:ru"})).await;
    let (_, list) = world.get(&world.sms_path("").await).await;
    assert_eq!((&list[0]["template"], &list[0]["code"]), (&json!("reminder:ru"), &json!(code)));
    let deal = world.deal(PHONE);
    let id = world.sms(&code, "завтра в 10", deal, 1);
    world.until("the portal is told", |w| w.sms_statuses(&id) == ["sent", "delivered"]).await;
    let sent = world.messages(PHONE);
    assert_eq!(sent.len(), 1);
    assert!(sent[0].shown.text.contains("Напоминаем: завтра в 10!"), "{:?}", sent[0].shown);
    let (status, _) = world.put(&path, json!({"template": "gone:ru"})).await;
    assert_eq!(status, 200);
    let deal = world.deal(PHONE);
    let id = world.sms(&code, "завтра в 11", deal, 1);
    world.until("an unknown template fails", |w| w.sms_statuses(&id) == ["sent", "failed"]).await;
    world.until("the card names it", |w| w.comment(deal).contains("gone")).await;
    for wrong in [json!({"template": ":ru"}), json!({"template": "reminder:ru", "text": 1})] {
        let (status, refused) = world.put(&path, wrong).await;
        assert_eq!(status, 400, "{refused}");
    }
    // Whatever we remember of it: a sender that stands there is brought up to date, not added twice.
    let page =
        PageRequest { client_id: world.client_id.clone(), place: "application".into(), ..PageRequest::default() };
    let page = world.portal.open_page(&page).await.unwrap();
    let pass = page.body.split("name=\"pass\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let repair = format!("{}/bitrix24/main/app/repair", world.base());
    assert_eq!(world.http.post(repair).form(&[("pass", pass)]).send().await.unwrap().status().as_u16(), 200);
    let updated = |w: &World| w.sandbox.counter("method.messageservice.sender.update") > 0;
    world.until("the sender is brought up to date", updated).await;
    assert_eq!(world.portal.senders(&world.client_id).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_page_switches_short_messages() {
    let (world, line) = connected(Wish { scopes: &["messageservice"], ..Wish::default() }).await;
    let options = json!({"CONNECTOR": CONNECTOR, "LINE": line.to_string(), "STATUS": true, "ACTIVE_STATUS": true});
    let request = PageRequest {
        client_id: world.client_id.clone(),
        place: "SETTING_CONNECTOR".into(),
        options,
        ..PageRequest::default()
    };
    let page = world.portal.open_page(&request).await.unwrap();
    assert!(page.body.contains("id=\"sms\"") && !page.body.contains("value=\"off\""), "{}", page.body);
    let mut fields = hidden(&page.body);
    fields.truncate(fields.len() / 2);
    let address = format!("{}/bitrix24/main/settings/{CONNECTOR}", world.base());
    let switch = |sms: &str, template: &str| {
        let mut fields = fields.clone();
        fields.push(("sms".into(), sms.into()));
        fields.push(("sms_template".into(), template.into()));
        let call = world.http.post(&address).form(&fields);
        async move { call.send().await.unwrap().text().await.unwrap() }
    };
    let said = switch("on", ":").await;
    assert!(said.contains("Шаблон пишется") && world.portal.senders(&world.client_id).is_empty(), "{said}");
    let said = switch("on", " reminder:ru ").await;
    assert!(said.contains("Сохранено") && said.contains("value=\"reminder:ru\""), "{said}");
    world.until("the portal has the sender", |w| w.portal.senders(&w.client_id).len() == 1).await;
    let said = switch("off", "").await;
    assert!(said.contains("больше не отправляет SMS"), "{said}");
    world.until("it is gone", |w| w.portal.senders(&w.client_id).is_empty()).await;
}
