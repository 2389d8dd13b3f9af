//! Chats of amoCRM: clients write, managers answer, statuses come back, and one dialog is one chat for ever.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox::{AccountSpec, Action, AmojoChat, AmojoMessage, Fault, Inbound, Outgoing, SaidBy};
use serde_json::{Value, json};

use crate::amocrm::{Amo, CHAT_CHANNEL, CLIENT, template};
use crate::world::World;

const PHONE: &str = "79167770101";

impl Amo {
    async fn chats_path(&self) -> String {
        format!("/api/v1/portals/{}/chats", self.portal().await["id"].as_str().unwrap())
    }

    async fn connect_chats(&self) {
        let (status, answer) = self.world.post(&self.chats_path().await, json!({"line": self.world.line})).await;
        assert_eq!(status, 201, "{answer}");
        self.world.until("chats are connected", |_| self.account.chat_scopes().len() == 1).await;
        self.world
            .until("the service knows it", |w| w.log().contains("mostik::crm::amocrm::chats: chats connected"))
            .await;
    }

    /// An account whose chats are connected.
    async fn with_chats(postgres: bool) -> Self {
        let config = "[delivery]\nretry_schedule = [\"200ms\"]\nunclear_wait = \"300ms\"\n";
        let amo = Self::connected(postgres, config).await;
        amo.connect_chats().await;
        amo
    }

    fn says(&self, text: &str) {
        self.world.sandbox.phone(PHONE).say(&self.world.number, text).unwrap();
    }

    /// The only chat.
    fn chat(&self) -> Option<AmojoChat> {
        let chats = self.account.chats();
        assert!(chats.len() <= 1, "one dialog, one chat: {chats:?}");
        chats.into_iter().next()
    }

    fn shown(&self, by: SaidBy) -> Vec<AmojoMessage> {
        let messages = self.chat().map(|chat| chat.messages).unwrap_or_default();
        messages.into_iter().filter(|message| message.by == by).collect()
    }

    fn words(&self, by: SaidBy) -> Vec<String> {
        self.shown(by).into_iter().map(|message| message.text).collect()
    }

    fn message(&self, id: &str) -> AmojoMessage {
        self.shown(SaidBy::Manager).into_iter().find(|message| message.id == id).unwrap()
    }

    /// The client writes the first words, and they are shown.
    async fn begun(&self) -> AmojoChat {
        self.says("Здравствуйте");
        self.world.until("the client's words are shown", |_| self.words(SaidBy::Client).len() == 1).await;
        self.chat().unwrap()
    }

    fn manager(&self, chat: &str, text: &str) -> String {
        self.account.manager_says(chat, &Outgoing { text: text.into(), ..Outgoing::default() }).unwrap()
    }

    async fn has_status(&self, id: &str, status: i64) {
        // It may have got further since.
        let has = |_: &World| self.message(id).statuses.last().is_some_and(|last| *last >= status);
        self.world.until(&format!("the manager sees {status}"), has).await;
    }

    fn got(&self) -> Vec<String> {
        self.world.messages(PHONE).into_iter().map(|message| message.shown.text).collect()
    }
}

async fn both_ways(postgres: bool) {
    let amo = Amo::with_chats(postgres).await;
    let world = &amo.world;
    let chat = amo.begun().await;
    assert_eq!(chat.conversation_id, Some(format!("{}:{PHONE}", world.channel)));
    assert_eq!((chat.phone.as_str(), chat.unsorted), (PHONE, true));
    assert!(chat.source.clone().unwrap().starts_with("whatsapp-"), "{chat:?}");
    amo.says("Есть <b>синий</b>?\nСрочно 🙂");
    world.until("the second words too", |_| amo.words(SaidBy::Client).len() == 2).await;
    assert_eq!(amo.words(SaidBy::Client), ["Здравствуйте", "Есть <b>синий</b>?\nСрочно 🙂"]);

    let id = amo.manager(&chat.id, "Да, осталось два");
    amo.has_status(&id, 2).await;
    let answer = amo.message(&id);
    assert_eq!(answer.hook, Some(200));
    assert!(answer.statuses.is_sorted(), "they go one way: {answer:?}");
    assert_eq!(amo.got(), ["Да, осталось два"]);

    // What was sent past the chat is shown in it once, as the bot's, and does not come back.
    let body = json!({"channel": world.channel, "to": PHONE, "text": "Счёт готов"});
    assert_eq!(world.post("/api/v1/messages", body).await.0, 202);
    world.until("it is shown", |_| amo.words(SaidBy::Bot) == ["Через API: Счёт готов"]).await;
    world.number.type_on_phone(PHONE, "Я перезвоню");
    let typed = |_: &World| amo.words(SaidBy::Bot).contains(&"С телефона: Я перезвоню".to_owned());
    world.until("what was typed is shown", typed).await;
    assert!(amo.shown(SaidBy::Bot).iter().all(|message| message.silent), "{:?}", amo.chat());
    // A barrier behind all of that: nothing was sent twice.
    let last = amo.manager(&chat.id, "И это всё");
    amo.has_status(&last, 2).await;
    assert_eq!(amo.got().len(), 3, "{:?}", amo.got());
    assert_eq!((amo.words(SaidBy::Bot).len(), amo.words(SaidBy::Client).len()), (2, 2));
    assert_eq!(amo.complaints(), Vec::<String>::new());
    let log = world.log();
    assert!(!log.contains(PHONE) && !log.contains("осталось") && !log.contains(crate::amocrm::CHAT_SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_write_and_managers_answer_sqlite() {
    both_ways(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_write_and_managers_answer_postgres() {
    both_ways(true).await;
}

async fn written_first(postgres: bool) {
    let amo = Amo::connected(postgres, "").await;
    let world = &amo.world;
    // He wrote before there were chats: his window is open, and amoCRM knows nothing of him.
    world.open_window(PHONE).await;
    amo.connect_chats().await;
    let source = world.get(&amo.chats_path().await).await.1;
    let source = source.as_array().unwrap().iter().find(|row| row["messenger"] == "whatsapp").unwrap();
    let (chat, id) = amo.account.write_first(PHONE, source["source"].as_str(), "Вы оставили заявку").unwrap();
    amo.has_status(&id, 2).await;
    assert_eq!(amo.got(), ["Вы оставили заявку"]);
    // Again before any answer, and then his answer: one chat, joined to the one that was begun.
    let second = amo.manager(&chat, "Удобно говорить?");
    amo.has_status(&second, 2).await;
    amo.says("Да, слушаю");
    world.until("his answer stands there", |_| amo.words(SaidBy::Client) == ["Да, слушаю"]).await;
    let joined = amo.chat().unwrap();
    assert_eq!(joined.id, chat);
    assert_eq!(joined.conversation_id, Some(format!("{}:{PHONE}", world.channel)));
    let third = amo.manager(&chat, "Отлично");
    amo.has_status(&third, 2).await;
    amo.says("Жду");
    world.until("so does his next", |_| amo.words(SaidBy::Client).len() == 2).await;
    assert_eq!(amo.got().len(), 3);
    assert_eq!(amo.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_written_to_first_answers_in_the_same_chat_sqlite() {
    written_first(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_written_to_first_answers_in_the_same_chat_postgres() {
    written_first(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_is_told_in_words_with_a_code() {
    let amo = Amo::with_chats(false).await;
    // Nobody has written to us: WhatsApp takes templates only. There is one place in which anybody can be written to.
    let (_, closed) = amo.account.write_first("79167770102", None, "Добрый день").unwrap();
    let (_, nobody) = amo.account.write_first("12", Some("whatsapp-nowhere"), "Добрый день").unwrap();
    let of = |id: &str| {
        let all: Vec<AmojoMessage> = amo.account.chats().into_iter().flat_map(|chat| chat.messages).collect();
        all.into_iter().find(|message| message.id == id).unwrap()
    };
    for (id, code, words) in [(&closed, 905, "шаблон"), (&nobody, 904, "канал")] {
        amo.world.until("the manager is told", |_| of(id).error.is_some()).await;
        let told = of(id);
        let (said, text) = told.error.clone().unwrap();
        assert_eq!((said, told.statuses.as_slice(), told.hook), (code, [-1].as_slice(), Some(200)), "{told:?}");
        assert!(text.to_lowercase().contains(words), "{text}");
    }
    assert_eq!(amo.world.messages("79167770102").len(), 0);
    assert_eq!(amo.complaints(), Vec::<String>::new());
}

async fn hooks(postgres: bool) {
    let mut amo = Amo::with_chats(postgres).await;
    let chat = amo.begun().await;
    let known = amo.account.chat_scopes().remove(0);
    let (scope, foreign) = (known.as_str(), format!("chan_{}", amo.account.amojo_id()));
    let base = format!("{}/amocrm/main/chats", amo.world.base());
    let body = json!({"account_id": amo.account.amojo_id(), "time": 1, "message": {"conversation": {"id": chat.id,
        "client_id": chat.conversation_id}, "message": {"id": "aa-1", "type": "text", "text": "Подделка"}}});
    let hook = |scope: &str, body: &Value, signature: Option<String>| {
        let body = body.to_string();
        let signature = signature.unwrap_or_else(|| crate::amocrm::chat_signature(body.as_bytes()));
        amo.world.http.post(format!("{base}/{scope}")).header("x-signature", signature).body(body).send()
    };
    let mut nameless = body.clone();
    nameless["message"]["conversation"]["id"] = json!("");
    let mut strange = body.clone();
    strange["account_id"] = json!("another");
    for (scope, body, signature, status) in [
        (scope, &body, Some(String::new()), 403),
        (scope, &body, Some("0".repeat(40)), 403),
        (scope, &strange, None, 403),
        ("chan_unknown", &body, None, 403),
        (foreign.as_str(), &body, None, 404),
        (scope, &nameless, None, 400),
        (scope, &json!({"account_id": amo.account.amojo_id(), "action": {"typing": {}}}), None, 200),
        (scope, &json!("no object"), None, 403),
    ] {
        assert_eq!(hook(scope, body, signature).await.unwrap().status().as_u16(), status, "{scope} {body}");
    }
    amo.account.typing_hook(scope);
    // They overtake each other and come twice; then the process dies with them in hand.
    amo.world.sandbox.set_bot_knobs(|knobs| (knobs.hold, knobs.shuffle, knobs.duplicate) = (true, true, 1));
    let mut words = Vec::new();
    let mut ids = Vec::new();
    for number in 1..=6 {
        words.push(format!("ответ {number}"));
        ids.push(amo.manager(&chat.id, &words[number - 1]));
        // Two hooks of one millisecond have no order.
        let now = amo.world.sandbox.now_ms();
        amo.world.until("time goes on", |w| w.sandbox.now_ms() > now).await;
    }
    amo.world.sandbox.set_bot_knobs(|knobs| knobs.hold = false);
    amo.world.until("all are taken", |_| ids.iter().all(|id| amo.message(id).hook == Some(200))).await;
    amo.world.kill();
    amo.world.restart().await;
    for id in &ids {
        amo.has_status(id, 2).await;
    }
    assert_eq!(amo.got(), words, "in order, and each once");
    let repeated = amo.complaints();
    assert_eq!(repeated, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_are_proved_kept_and_sent_once_in_order_sqlite() {
    hooks(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_are_proved_kept_and_sent_once_in_order_postgres() {
    hooks(true).await;
}

async fn trouble(postgres: bool) {
    let amo = Amo::with_chats(postgres).await;
    let world = &amo.world;
    let chat = amo.begun().await;
    let refused = |status: u16, after: bool| Action::Error {
        code: "ORIGIN_INVALID_SIGNATURE".into(),
        status: Some(status),
        description: None,
        retry_after: None,
        after,
    };
    // Lost answers of every kind: what was shown is not shown again.
    for (number, fault) in [
        Fault::new("amojo.message", Action::CutAfter),
        Fault::new("amojo.message", Action::CutBefore),
        Fault::new("amojo.message", refused(500, true)),
        Fault::new("amojo.message", refused(429, false)),
    ]
    .into_iter()
    .enumerate()
    {
        world.sandbox.add_fault(fault.times(1));
        amo.says(&format!("вопрос {number}"));
        let limit = std::time::Duration::from_secs(60);
        world.within(limit, "it is shown", |_| amo.words(SaidBy::Client).len() == number + 2).await;
    }
    assert!(world.sandbox.counter("amojo.repeated") >= 2, "the second try was refused as known");
    // Statuses, too.
    for fault in [Action::CutAfter, refused(500, false), refused(404, false)] {
        world.sandbox.add_fault(Fault::new("amojo.status", fault).times(1));
        let id = amo.manager(&chat.id, "минуту");
        amo.has_status(&id, 2).await;
    }
    assert_eq!(amo.got().len(), 3);
    assert_eq!(amo.words(SaidBy::Client)[1..], [0, 1, 2, 3].map(|n| format!("вопрос {n}")));
    assert_eq!(amo.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_of_the_chats_service_show_nothing_twice_sqlite() {
    trouble(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_of_the_chats_service_show_nothing_twice_postgres() {
    trouble(true).await;
}

async fn connections(postgres: bool) {
    let amo = Amo::with_chats(postgres).await;
    let world = &amo.world;
    let chat = amo.begun().await;
    // The integration is disabled and installed again: chats are connected anew, and the chat is the same.
    assert_eq!(amo.account.uninstall(CLIENT).await.unwrap().status, 200);
    assert_eq!(amo.account.chat_scopes(), Vec::<String>::new());
    assert_eq!(amo.account.install_from_market(CLIENT).await.unwrap().status, 200);
    world.until("chats are connected again", |_| amo.account.chat_scopes().len() == 1).await;
    amo.says("Снова я");
    world.until("it stands in the same chat", |_| amo.words(SaidBy::Client).len() == 2).await;
    let id = amo.manager(&chat.id, "И снова здравствуйте");
    amo.has_status(&id, 2).await;
    // Somebody has cut them without a word: the next message connects again.
    world.sandbox.cut_chats(CLIENT, &amo.account);
    amo.says("А теперь?");
    world.until("it is shown all the same", |_| amo.words(SaidBy::Client).len() == 3).await;
    assert_eq!(amo.account.chat_scopes().len(), 1);
    // Nobody wants them any more.
    let path = format!("{}/{}", amo.chats_path().await, world.line);
    assert_eq!(world.delete(&path).await, 204);
    world.until("chats are disconnected", |_| amo.account.chat_scopes().is_empty()).await;
    assert_eq!(world.delete(&path).await, 404);
    assert_eq!(world.get(&amo.chats_path().await).await.1, json!([]));
    let (_, portals) = world.get("/api/v1/portals").await;
    let bitrix = portals["items"].as_array().unwrap().iter().find(|portal| portal["crm"] == "bitrix24").unwrap();
    let path = format!("/api/v1/portals/{}/chats", bitrix["id"].as_str().unwrap());
    assert_eq!(world.post(&path, json!({"line": world.line})).await.0, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_are_connected_again_after_every_installation_sqlite() {
    connections(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_are_connected_again_after_every_installation_postgres() {
    connections(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_signature_keeps_messages_and_names_the_clock_and_the_secret() {
    let amo = Amo::with_chats(false).await;
    amo.begun().await;
    let known = amo.account.chat_scopes();
    // The secret was changed at amoCRM.
    amo.register_chats("f2d7f8704eff95087ed45b23ba99c0b5aac8278e");
    amo.says("Слышно?");
    amo.world.until("the operator is told", |w| w.sandbox.refusals().iter().any(|v| v.target == "amojo.message")).await;
    amo.world.until("and in the log", |w| w.log().contains("amojo_403")).await;
    assert_eq!(amo.words(SaidBy::Client).len(), 1);
    // It is right again: what waited is shown.
    amo.register_chats(crate::amocrm::CHAT_SECRET);
    let limit = std::time::Duration::from_secs(90);
    amo.world.within(limit, "it is shown", |_| amo.words(SaidBy::Client).len() == 2).await;
    assert_eq!(amo.account.chat_scopes(), known);
    assert!(known[0].starts_with(CHAT_CHANNEL));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_pass_both_ways_and_text_with_media_and_buttons_is_one_answer() {
    let amo = Amo::with_chats(false).await;
    let world = &amo.world;
    let chat = amo.begun().await;
    let photo: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).take(300_000).collect();
    let media = |kind: &str, caption: Option<&str>, name: Option<&str>, bytes: &[u8]| Inbound::Media {
        kind: kind.into(),
        mime: None,
        filename: name.map(str::to_owned),
        caption: caption.map(str::to_owned),
        base64: Some(STANDARD.encode(bytes)),
    };
    let phone = world.sandbox.phone(PHONE);
    phone.send(&world.number, &media("image", Some("Вот чек"), None, &photo), None).unwrap();
    let last = || amo.shown(SaidBy::Client).pop().unwrap();
    world.until("the photo is fetched", |_| last().fetched == Some(photo.len())).await;
    assert_eq!(
        (last().kind.as_str(), last().text.as_str(), last().file_name.as_str()),
        ("picture", "Вот чек", "image.jpg")
    );
    phone.send(&world.number, &media("document", None, Some("Договор № 7.pdf"), b"%PDF-1.4 seven"), None).unwrap();
    world.until("the document is fetched", |_| last().fetched == Some(14)).await;
    assert_eq!((last().kind.as_str(), last().file_name.as_str()), ("file", "Договор № 7.pdf"));
    phone.send(&world.number, &media("document", None, Some("page.pdf"), b"<!DOCTYPE html>"), None).unwrap();
    world.until("what is no file is told in words", |_| last().text.contains("[Файл не показан:")).await;

    let offer = b"%PDF-1.4 offer".to_vec();
    let outgoing = Outgoing {
        text: "Счёт".into(),
        file: Some(("file".into(), "offer.pdf".into(), offer.clone())),
        buttons: vec![vec![("Оплатить".into(), "https://pay.example/7".into())]],
    };
    let id = amo.account.manager_says(&chat.id, &outgoing).unwrap();
    amo.has_status(&id, 2).await;
    let sent = world.messages(PHONE);
    assert_eq!(sent.len(), 1, "{sent:?}");
    let shown = sent[0].shown.media.clone().unwrap();
    assert_eq!(shown.caption, "Счёт\nОплатить: https://pay.example/7");
    assert!(shown.link.starts_with(&format!("{}/files/", world.base())), "{}", shown.link);
    let answer = world.http.get(&shown.link).send().await.unwrap();
    assert_eq!(answer.bytes().await.unwrap(), offer);
    assert_eq!(amo.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_do_beside_writing_is_seen_by_managers() {
    let amo = Amo::with_chats(false).await;
    let world = &amo.world;
    let chat = amo.begun().await;
    let asked = amo.manager(&chat.id, "Какой цвет?");
    amo.has_status(&asked, 1).await;
    let question = world.messages(PHONE)[0].wamid.clone();
    let phone = world.sandbox.phone(PHONE);
    let mut count = 1;
    let mut next = async |what: Inbound, reply_to: Option<&str>| {
        let id = phone.send(&world.number, &what, reply_to).unwrap();
        count += 1;
        world.until("it is shown", |_| amo.words(SaidBy::Client).len() == count).await;
        id
    };
    let blue = next(Inbound::text("Синий"), Some(&question)).await;
    // amoCRM knows the manager's own message under no name of ours: said in words.
    next(Inbound::Reaction { message_id: question, emoji: "👍".into() }, None).await;
    let name = Some("Офис".to_owned());
    next(Inbound::Location { latitude: 59.9386, longitude: 30.3141, name, address: None }, None).await;
    assert_eq!(amo.words(SaidBy::Client)[1..3], ["> Какой цвет?\nСиний", "> Какой цвет?\nРеакция: 👍"]);
    assert_eq!(amo.shown(SaidBy::Client)[3].kind, "location");
    let own = |_: &World| amo.shown(SaidBy::Client)[1].clone();
    phone.send(&world.number, &Inbound::Reaction { message_id: blue.clone(), emoji: "❤".into() }, None).unwrap();
    world.until("his own message is marked", |w| own(w).reaction.as_deref() == Some("❤")).await;
    phone.send(&world.number, &Inbound::Reaction { message_id: blue.clone(), emoji: String::new() }, None).unwrap();
    world.until("and not any more", |w| own(w).reaction.is_none()).await;
    phone.send(&world.number, &Inbound::Edit { message_id: blue.clone(), body: "Красный".into() }, None).unwrap();
    world.until("it is changed where it stands", |w| own(w).text == "Красный" && own(w).edits == 1).await;
    next(Inbound::Edit { message_id: "wamid.UNKNOWN".into(), body: "раньше".into() }, None).await;
    next(Inbound::Revoke { message_id: blue }, None).await;
    assert_eq!(amo.words(SaidBy::Client)[4], "Сообщение изменено: раньше");
    assert!(amo.words(SaidBy::Client)[5].ends_with("\nСообщение удалено клиентом"));
    let unknown = |complaint: &String| complaint.contains("amojo.react") && complaint.contains("no such message");
    assert!(amo.complaints().iter().all(unknown), "{:?}", amo.complaints());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_of_kommo_is_served_at_its_own_host_and_in_english() {
    let mut amo = Amo::unconnected(false, "").await;
    let kommo = AccountSpec { subdomain: "globex".into(), domain: "kommo.com".into() };
    amo.account = amo.world.sandbox.add_account(kommo).unwrap();
    let url = amo.consent_url().await;
    assert_eq!(amo.account.consent(&url).await.unwrap().status, 200);
    let portal = amo.portal().await;
    assert_eq!((portal["domain"].as_str(), portal["state"].as_str()), (Some("globex.kommo.com"), Some("installed")));
    let lead = amo.lead("+1 415 555 0101");
    assert_eq!(amo.went_on(amo.bot(lead, template())).await.exit(), Some("success"));
    amo.note_says(lead, "Read").await;
    amo.connect_chats().await;
    let chat = amo.begun().await;
    let id = amo.manager(&chat.id, "Hello");
    amo.has_status(&id, 2).await;
    let (_, closed) = amo.account.write_first("14155550102", chat.source.as_deref(), "Hello").unwrap();
    let told = || amo.account.chats().into_iter().flat_map(|chat| chat.messages).find(|m| m.id == closed).unwrap();
    amo.world.until("the manager is told", |_| told().error.is_some()).await;
    assert!(told().error.unwrap().1.to_lowercase().contains("template"), "{:?}", told());
    assert_eq!(amo.complaints(), Vec::<String>::new());
}
