//! Files of chats, both ways: they pass through us in pieces, under addresses that end.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox::{Attachment, BotInbound, BotSpec, ChatAuthor, ChatMessage, Inbound, Serving};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::chats::{OPERATOR, PHONE, begun, chat, connected, message, portal_of, shown};
use crate::world::{Wish, World};

fn media(kind: &str, caption: Option<&str>, filename: Option<&str>, bytes: &[u8]) -> Inbound {
    Inbound::Media {
        kind: kind.into(),
        mime: None,
        filename: filename.map(str::to_owned),
        caption: caption.map(str::to_owned),
        base64: Some(STANDARD.encode(bytes)),
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the client sent, as the chat shows it, without the greeting.
fn received(world: &World) -> Vec<ChatMessage> {
    let messages = chat(world).unwrap().messages;
    messages.into_iter().filter(|message| message.author == ChatAuthor::Client).skip(1).collect()
}

async fn to_operators(wish: Wish) {
    let (world, _) = connected(wish).await;
    begun(&world).await;
    // Three pieces of the wire and more, so that nobody can have it in one.
    let photo: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).take(3_000_000).collect();
    let phone = world.sandbox.phone(PHONE);
    phone.send(&world.number, &media("image", Some("Вот [b]чек[/b]"), None, &photo), None).unwrap();
    world.until("the photo is shown", |w| received(w).len() == 1).await;
    phone.send(&world.number, &media("document", None, Some("Договор № 7.pdf"), b"%PDF-1.4 seven"), None).unwrap();
    world.until("the document is shown", |w| received(w).len() == 2).await;
    let [first, second] = <[ChatMessage; 2]>::try_from(received(&world)).unwrap();
    assert_eq!(first.text, "Вот ［b］чек［/b］");
    assert_eq!((first.files[0].name.as_str(), first.files[0].mime.as_str()), ("image.jpg", "image/jpeg"));
    assert_eq!((first.files[0].size, first.files[0].sha256.clone()), (photo.len(), sha256(&photo)));
    assert_eq!((second.text.as_str(), second.files[0].name.as_str()), ("", "Договор № 7.pdf"));
    assert_eq!(second.files[0].sha256, sha256(b"%PDF-1.4 seven"));
    assert_eq!(world.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_send_stands_in_the_chat() {
    to_operators(Wish::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_send_stands_in_the_chat_on_postgres() {
    to_operators(Wish { postgres: true, ..Wish::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_or_nothing_in_a_file_s_place_is_told_in_words() {
    let (world, _) = connected(Wish::default()).await;
    begun(&world).await;
    let phone = world.sandbox.phone(PHONE);
    phone
        .send(&world.number, &media("document", Some("смотрите"), Some("page.pdf"), b"<!DOCTYPE html>"), None)
        .unwrap();
    world.until("the first is told of", |w| received(w).len() == 1).await;
    phone.send(&world.number, &media("image", None, None, b""), None).unwrap();
    world.until("the second is told of", |w| received(w).len() == 2).await;
    for (shown, words) in received(&world).iter().zip(["[Файл] page.pdf", "[Изображение]"]) {
        assert!(shown.files.is_empty() && shown.text.starts_with(words), "{shown:?}");
        assert!(shown.text.contains("[Файл не показан:"), "{shown:?}");
    }
    assert!(received(&world)[0].text.ends_with("смотрите"));
}

fn attached(name: &str, mime: &str, bytes: &[u8]) -> Attachment {
    Attachment { name: name.into(), mime: mime.into(), bytes: bytes.to_vec(), serving: Serving::File }
}

/// Address of the file of each message that the client has got.
fn links(world: &World) -> Vec<(String, String)> {
    let sent = world.messages(PHONE).into_iter();
    sent.filter_map(|message| message.shown.media).map(|media| (media.link, media.caption)).collect()
}

async fn to_clients(wish: Wish) {
    let (world, _) = connected(wish).await;
    let number = begun(&world).await.id;
    let offer: Vec<u8> = (0..500_000_u32).flat_map(u32::to_le_bytes).collect();
    let one = attached("offer.pdf", "application/pdf", &offer);
    let id = world.portal.operator_sends(number, OPERATOR, "[b]Счёт[/b]", vec![one]).unwrap();
    world.until("one file is confirmed", |w| !message(w, id).sending).await;
    let two = vec![attached("a.png", "image/png", b"\x89PNG a"), attached("b.pdf", "application/pdf", b"%PDF b")];
    let id = world.portal.operator_sends(number, OPERATOR, "", two).unwrap();
    world.until("two files are confirmed", |w| !message(w, id).sending).await;
    assert_eq!(message(&world, id).external_ids.len(), 2);
    let links = links(&world);
    assert_eq!(links.iter().map(|(_, caption)| caption.as_str()).collect::<Vec<_>>(), ["*Счёт*", "", ""], "in order");
    for ((link, _), expected) in links.iter().zip([&offer[..], b"\x89PNG a", b"%PDF b"]) {
        assert!(link.starts_with(&format!("{}/files/", world.base())), "an address of ours: {link}");
        let answer = world.http.get(link).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        let header = |name: &str| answer.headers().get(name).unwrap().to_str().unwrap().to_owned();
        assert!(header("content-disposition").starts_with("attachment"));
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(answer.bytes().await.unwrap(), expected);
    }
    let forged = links[0].0.replace("/files/s1.", "/files/s1.0");
    assert_eq!(world.http.get(forged).send().await.unwrap().status().as_u16(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_attach_goes_out_in_order_under_our_addresses() {
    to_clients(Wish::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_attach_goes_out_in_order_under_our_addresses_on_postgres() {
    to_clients(Wish { postgres: true, ..Wish::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_files_of_operators_are_refused_in_words_before_anything_is_sent() {
    let (world, _) = connected(Wish::default()).await;
    let number = begun(&world).await.id;
    let elsewhere = Serving::Elsewhere("http://169.254.169.254/latest/meta-data".to_owned());
    let outside = Serving::Elsewhere(format!("{}/readyz", world.base()));
    let bad = [Serving::Page, Serving::Empty, Serving::Huge, Serving::Gone, elsewhere, outside];
    let count = bad.len();
    for serving in bad {
        let file = Attachment { serving, ..attached("x.pdf", "application/pdf", b"%PDF") };
        world.portal.operator_sends(number, OPERATOR, "", vec![file]).unwrap();
    }
    world.until("the operator is told of each", |w| shown(w, ChatAuthor::Note).len() == count).await;
    let notes = shown(&world, ChatAuthor::Note);
    assert!(notes.iter().all(|note| note.contains("Не отправлено клиенту") && note.contains("x.pdf")), "{notes:?}");
    assert!(links(&world).is_empty());

    // One that never ends cannot be told before it is fetched: it is cut off there.
    let file = Attachment { serving: Serving::Endless, ..attached("y.pdf", "application/pdf", b"") };
    world.portal.operator_sends(number, OPERATOR, "", vec![file]).unwrap();
    world.until("its address is given away", |w| links(w).len() == 1).await;
    let mut answer = world.http.get(&links(&world)[0].0).send().await.unwrap();
    let mut read = 0;
    let cut = loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => read += chunk.len(),
            Ok(None) => break false,
            Err(_cut) => break true,
        }
    };
    assert!(cut && read <= 100 * 1024 * 1024, "{read} bytes, cut: {cut}");
    world
        .until("what could be sent is confirmed", |w| {
            chat(w).unwrap().messages.iter().filter(|message| message.sending).count() == count
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_sends_to_a_bot_stands_in_the_chat() {
    const PERSON: i64 = 512_000_111;
    let (world, line) = connected(Wish::default()).await;
    let bot = world.sandbox.add_bot(BotSpec::default()).unwrap();
    let token = bot.view().spec.token;
    let channel = json!({"provider": "telegram_bot", "name": "Бот", "credentials": {"token": token}});
    let (status, answer) = world.post(&format!("/api/v1/lines/{}/channels", world.line), channel).await;
    assert_eq!(status, 201, "{answer}");
    let body = json!({"messenger": "telegram", "open_line": line.to_string(), "line": world.line});
    let path = format!("/api/v1/portals/{}/open-lines", portal_of(&world).await);
    assert_eq!(world.post(&path, body).await.0, 201);
    let stands = |w: &World| w.portal.standing("mostik_main_telegram", line).is_some_and(|standing| standing.active);
    world.until("the bot's connector stands", stands).await;
    let person = world.sandbox.bot_person(PERSON);
    person.say(&bot, "/start").unwrap();
    let file = BotInbound::Media {
        kind: "document".into(),
        mime: Some("application/pdf".into()),
        filename: Some("check.pdf".into()),
        caption: Some("Чек".into()),
        base64: Some(STANDARD.encode(b"%PDF check")),
    };
    person.send(&bot, None, &file).unwrap();
    let files = |w: &World| {
        let messages = w.portal.chats().into_iter().flat_map(|chat| chat.messages);
        messages.filter(|message| !message.files.is_empty()).collect::<Vec<_>>()
    };
    world.until("the file is shown", |w| files(w).len() == 1).await;
    let shown = files(&world).remove(0);
    assert_eq!((shown.text.as_str(), shown.files[0].name.as_str()), ("Чек", "check.pdf"));
    assert_eq!(
        (shown.files[0].mime.as_str(), shown.files[0].sha256.clone()),
        ("application/pdf", sha256(b"%PDF check"))
    );
    assert!(!world.log().contains(&token), "the token is in no line of the log");
    assert_eq!(world.complaints(), Vec::<String>::new());
}
