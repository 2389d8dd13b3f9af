//! The small shop of the demo: application, number, templates, clients, deals and robots.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use sandbox::{
    AppSpec, Automation, ItemSpec, Number, NumberSpec, PhoneTraits, Portal, PortalSpec, Sandbox, StageSpec, Switches,
    TemplateSpec, UserSpec, entity,
};
use serde_json::{Value, json};

use crate::service::Service;

/// Stages of the shop; three of them have a robot.
const STAGES: [&str; 5] = ["NEW", "PREPARATION", "PREPAYMENT_INVOICE", "EXECUTING", "WON"];
/// Order numbers as a shop has them.
const FIRST_DEAL: i64 = 1035;
const WITHIN: Duration = Duration::from_secs(20);

/// `n` random bytes.
pub(crate) fn hex(bytes: usize) -> String {
    (0..bytes).fold(String::with_capacity(bytes * 2), |mut text, _| {
        // Writing to a String does not fail.
        let _ = write!(text, "{:02x}", rand::random::<u8>());
        text
    })
}

/// The application's keys; the service must know them before the simulated Bitrix24 does.
pub(crate) struct AppKeys {
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl AppKeys {
    pub(crate) fn new() -> Self {
        let digits = rand::random_range(10_000_000..100_000_000_u32);
        Self { id: format!("local.{}.{digits}", &hex(7)[..13]), secret: hex(25) }
    }
}

/// What is told about it.
pub(crate) struct Shop {
    /// Captions of the stages with robots.
    pub(crate) stages: [String; 3],
    /// Where the application's own page opens in the portal's frame.
    pub(crate) frame_url: String,
}

/// Builds everything. The order matters: cards are there before the robots, so that nothing is sent by building.
pub(crate) async fn build(sandbox: &Sandbox, service: &Service, keys: &AppKeys, russian: bool) -> anyhow::Result<Shop> {
    let cast = if russian { Cast::russian() } else { Cast::english() };
    let base = &service.base;
    sandbox.add_app(AppSpec {
        client_id: keys.id.clone(),
        client_secret: keys.secret.clone(),
        application_url: format!("{base}/bitrix24/main/app"),
        installer_url: Some(format!("{base}/bitrix24/main/install")),
        event_handler_url: Some(format!("{base}/bitrix24/main/events")),
        scopes: ["crm", "bizproc", "imopenlines", "im", "placement", "disk"].map(str::to_owned).to_vec(),
        ..AppSpec::default()
    });
    let number = sandbox.add_number(NumberSpec {
        display_phone_number: cast.number.to_owned(),
        verified_name: cast.shop.to_owned(),
        verify_token: hex(12),
        ..NumberSpec::default()
    })?;
    number.put_template(cast.ready_template())?;
    connect(service, &number, cast.line).await?;

    let language = if russian { "ru" } else { "en" };
    let switches = Switches { language: language.to_owned(), ..Switches::default() };
    let portal =
        sandbox.add_portal(PortalSpec { name: cast.portal.to_owned(), switches, ..PortalSpec::default() }).await?;
    populate(sandbox, &portal, &cast)?;
    portal.install(&keys.id).await.context("the application could not be installed on the portal")?;
    let installed = |_: &Sandbox| portal.robots().iter().any(|robot| robot.code == "send_message");
    sandbox.until(WITHIN, installed).await.context("the service has not registered its robot")?;
    for (stage, properties) in [(1, cast.confirm()), (2, cast.ready()), (3, cast.review())] {
        automate(&portal, STAGES[stage], properties)?;
    }
    sandbox.settled(WITHIN).await?;
    // Counters tell what the visitor did.
    sandbox.clear_journal();
    let [_, confirmed, ready, review, _] = cast.stages.map(str::to_owned);
    Ok(Shop { stages: [confirmed, ready, review], frame_url: portal.frame_url(&keys.id, "DEFAULT") })
}

/// A line with one channel, and the number's webhook verified, all through the management API.
async fn connect(service: &Service, number: &Number, line: &str) -> anyhow::Result<()> {
    let line = service.post("/api/v1/lines", &json!({"name": line})).await?;
    let spec = number.view().spec;
    let channel = json!({
        "provider": "whatsapp_cloud",
        "name": format!("+{}", spec.display_phone_number),
        "credentials": {
            "phone_number_id": spec.phone_number_id,
            "waba_id": spec.waba_id,
            "access_token": spec.access_token,
            "app_secret": spec.app_secret,
            "verify_token": spec.verify_token,
        },
        "settings": {},
    });
    let id = text(&line, "id")?;
    let channel = service.post(&format!("/api/v1/lines/{id}/channels"), &channel).await?;
    number.subscribe(&text(&channel, "webhook_url")?).await.context("the webhook of the channel was not verified")
}

fn text(value: &Value, key: &str) -> anyhow::Result<String> {
    let Some(text) = value[key].as_str() else { bail!("the service's answer has no {key}: {value}") };
    Ok(text.to_owned())
}

fn populate(sandbox: &Sandbox, portal: &Portal, cast: &Cast) -> anyhow::Result<()> {
    let semantics = ["", "", "", "", "S"];
    let stages = STAGES.iter().zip(cast.stages).zip(semantics).map(|((id, name), semantics)| StageSpec {
        entity_type_id: entity::DEAL,
        category_id: 0,
        stage_id: (*id).to_owned(),
        name: name.to_owned(),
        semantics: semantics.to_owned(),
    });
    portal.set_stages(entity::DEAL, 0, stages.collect())?;
    let (name, last_name) = cast.manager;
    portal.add_user(UserSpec {
        id: 1,
        name: name.to_owned(),
        last_name: last_name.to_owned(),
        admin: true,
        ..UserSpec::default()
    });
    let mut contacts = Vec::new();
    for (name, last_name, phone) in cast.people {
        contacts.push(portal.add_contact(name, last_name, phone)?);
        let traits = PhoneTraits { name: Some(format!("{name} {last_name}")), ..PhoneTraits::default() };
        sandbox.phone(&digits(phone)).set(traits);
    }
    let (company_name, company_phone) = cast.company;
    let company = portal.add_item(ItemSpec {
        entity_type_id: entity::COMPANY,
        title: company_name.to_owned(),
        phones: vec![company_phone.to_owned()],
        ..ItemSpec::default()
    })?;
    sandbox
        .phone(&digits(company_phone))
        .set(PhoneTraits { name: Some(company_name.to_owned()), ..Default::default() });
    portal.add_item(ItemSpec {
        entity_type_id: entity::LEAD,
        title: cast.lead.to_owned(),
        name: cast.people[0].0.to_owned(),
        phones: vec![cast.people[0].2.to_owned()],
        ..ItemSpec::default()
    })?;
    // The last one added stands on top.
    for (id, (title, stage, amount, person)) in (FIRST_DEAL..).zip(cast.deals.iter().rev()) {
        portal.add_item(ItemSpec {
            id,
            title: (*title).to_owned(),
            stage_id: STAGES[*stage].to_owned(),
            opportunity: format!("{amount}.00"),
            currency_id: cast.currency.to_owned(),
            contact_ids: contacts.get(*person).copied().into_iter().collect(),
            company_id: if *person < contacts.len() { 0 } else { company },
            ..ItemSpec::default()
        })?;
    }
    Ok(())
}

/// Digits as WhatsApp knows the number; 8 at the start of a Russian one is 7.
fn digits(phone: &str) -> String {
    let digits: String = phone.chars().filter(char::is_ascii_digit).collect();
    match digits.strip_prefix('8') {
        Some(rest) if digits.len() == 11 => format!("7{rest}"),
        _ => digits,
    }
}

fn automate(portal: &Portal, stage: &str, properties: Value) -> anyhow::Result<()> {
    let properties: BTreeMap<String, Value> = serde_json::from_value(properties).context("robot")?;
    portal.add_automation(Automation {
        entity_type_id: entity::DEAL,
        stage_id: stage.to_owned(),
        robot: "send_message".to_owned(),
        properties,
        timeout_s: 900,
        ..Automation::default()
    });
    Ok(())
}

/// Who plays, and what is said, in one language.
struct Cast {
    language: &'static str,
    portal: &'static str,
    shop: &'static str,
    line: &'static str,
    manager: (&'static str, &'static str),
    number: &'static str,
    currency: &'static str,
    stages: [&'static str; 5],
    people: [(&'static str, &'static str, &'static str); 6],
    company: (&'static str, &'static str),
    lead: &'static str,
    /// Title, stage, amount, person; a person beyond the list is the company.
    deals: [(&'static str, usize, u32, usize); 8],
    /// Body and buttons of the template for orders that are ready.
    ready_body: &'static str,
    ready_buttons: [&'static str; 2],
    ready_text: &'static str,
    review_text: &'static str,
}

impl Cast {
    fn russian() -> Self {
        Self {
            language: "ru",
            portal: "Магазин «Тёплый дом»",
            shop: "Тёплый дом",
            line: "Продажи",
            manager: ("Екатерина", "Петрова"),
            number: "79990001122",
            currency: "RUB",
            stages: ["Новый заказ", "Принят", "Готов к выдаче", "Ждём отзыв", "Завершён"],
            people: [
                ("Анна", "Смирнова", "+7 916 123-45-67"),
                ("Игорь", "Волков", "8 (903) 555-10-20"),
                ("Мария", "Лебедева", "+7 925 700-33-44"),
                ("Павел", "Орлов", "+7 926 410-55-66"),
                ("Ольга", "Кузнецова", "+7 905 321-00-11"),
                ("Дмитрий", "Соколов", "+7 977 888-12-12"),
            ],
            company: ("ООО «Вектор»", "+7 495 120-30-40"),
            lead: "Заявка с сайта",
            deals: [
                ("Кофемашина", 0, 48_900, 0),
                ("Кресло «Лофт», 2 шт.", 0, 31_400, 1),
                ("Торшер «Север»", 0, 12_700, 2),
                ("Письменный стол", 1, 26_500, 3),
                ("Мебель для офиса", 1, 184_000, 6),
                ("Шторы на заказ", 2, 15_200, 4),
                ("Детская кровать", 3, 37_800, 5),
                ("Стеллаж", 4, 22_300, 2),
            ],
            ready_body: "{{1}}, ваш заказ № {{2}} готов к выдаче. Когда вам удобно его забрать?",
            ready_buttons: ["Заберу сегодня", "Позвоните мне"],
            ready_text: "{Здравствуйте|Добрый день}, {=Document:CONTACT.NAME}! Заказ № {=Document:ID} готов, ждём вас до 21:00.",
            review_text: "{=Document:CONTACT.NAME}, всё ли понравилось в заказе № {=Document:ID}? Будем рады отзыву.",
        }
    }

    fn english() -> Self {
        Self {
            language: "en",
            portal: "Warm Home store",
            shop: "Warm Home",
            line: "Sales",
            manager: ("Kate", "Peters"),
            number: "12025550100",
            currency: "USD",
            stages: ["New order", "Confirmed", "Ready to collect", "Review awaited", "Completed"],
            people: [
                ("Anna", "Smith", "+1 202 555 0123"),
                ("Igor", "Wolf", "+1 (202) 555-0134"),
                ("Maria", "Swan", "+1 202 555 0145"),
                ("Paul", "Eagle", "+1 202 555 0156"),
                ("Olga", "Miller", "+1 202 555 0167"),
                ("Dan", "Falcon", "+1 202 555 0178"),
            ],
            company: ("Vector Ltd", "+1 202 555 0189"),
            lead: "Request from the site",
            deals: [
                ("Coffee machine", 0, 489, 0),
                ("Loft armchair, 2 pcs", 0, 314, 1),
                ("Floor lamp", 0, 127, 2),
                ("Writing desk", 1, 265, 3),
                ("Office furniture", 1, 1_840, 6),
                ("Custom curtains", 2, 152, 4),
                ("Child's bed", 3, 378, 5),
                ("Bookcase", 4, 223, 2),
            ],
            ready_body: "{{1}}, your order {{2}} is ready. When would you like to collect it?",
            ready_buttons: ["Today", "Call me"],
            ready_text: "{Hello|Good day}, {=Document:CONTACT.NAME}! Order {=Document:ID} is ready, we are open until 9 pm.",
            review_text: "{=Document:CONTACT.NAME}, did you like everything in order {=Document:ID}? We would love a review.",
        }
    }

    fn ready_template(&self) -> TemplateSpec {
        let buttons = self.ready_buttons.map(|text| json!({"type": "QUICK_REPLY", "text": text}));
        TemplateSpec {
            name: "order_ready".to_owned(),
            language: self.language.to_owned(),
            components: json!([
                {"type": "BODY", "text": self.ready_body, "example": {"body_text": [["Anna", "1042"]]}},
                {"type": "BUTTONS", "buttons": buttons},
            ]),
            ..TemplateSpec::default()
        }
    }

    /// A template: needs no open window.
    fn confirm(&self) -> Value {
        json!({
            "recipients": "main",
            "template": format!("order_update:{}", self.language),
            "params": ["{=Document:CONTACT.NAME}", "{=Document:ID}"],
            "wait": "delivered",
        })
    }

    /// A text, with a template for a closed window.
    fn ready(&self) -> Value {
        json!({
            "recipients": "main",
            "text": self.ready_text,
            "fallback_template": format!("order_ready:{}", self.language),
            "params": ["{=Document:CONTACT.NAME}", "{=Document:ID}"],
            "wait": "read",
        })
    }

    /// A text alone: refused with advice while the window is closed.
    fn review(&self) -> Value {
        json!({"recipients": "main", "text": self.review_text})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phones_are_named_as_whatsapp_knows_them() {
        assert_eq!(digits("8 (903) 555-10-20"), "79035551020");
        assert_eq!(digits("+1 202 555 0123"), "12025550123");
    }

    #[test]
    fn keys_look_like_those_of_a_local_application() {
        let keys = AppKeys::new();
        let parts: Vec<&str> = keys.id.split('.').collect();
        assert_eq!((parts[0], parts[1].len(), parts[2].len(), keys.secret.len()), ("local", 13, 8, 50));
    }
}
