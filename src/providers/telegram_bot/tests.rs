use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::domain::event::{InboundContent, InboundMessage, SharedPhone};
use crate::domain::message::OutboundContent;
use crate::domain::phone::Phone;
use crate::domain::time::Timestamp;
use crate::providers::contract::stub::{Reply, Stub};
use crate::providers::contract::{ErrorCase, Specimen, build, channel, message};
use crate::providers::failures::DEFAULT_WAIT;

use super::*;

const OWN_TOKEN: &str = "744556677:AAHtestTOKENtestTOKENtestTOKENtest12";
const KINDS: &str = include_str!("../../../tests/fixtures/telegram_bot/kinds.json");

/// What the contract suite must know of this vendor.
pub(crate) static SPECIMEN: Specimen = Specimen {
    entry: &ENTRY,
    credentials: &[(TOKEN, OWN_TOKEN)],
    peer: "tg.512000111",
    accepted: || (accepted(), "512000111:61"),
    probed: || (me(), "https://t.me/shop_demo_bot"),
    throttled: || refused(429, "Too Many Requests: retry later"),
    quoting: |text| refused(400, &format!("Bad Request: {text}")),
    errors: error_cases,
    callbacks: &[
        include_bytes!("../../../tests/fixtures/telegram_bot/start.json"),
        include_bytes!("../../../tests/fixtures/telegram_bot/document.json"),
    ],
    // An update does not name the bot it is for; the address and its secret do.
    foreign: None,
    sign: |channel, _body| webhook_auth::header_secret(channel, TOKEN),
};

fn result(result: Value) -> Reply {
    Reply::json(200, &json!({"ok": true, "result": result}))
}

fn accepted() -> Reply {
    result(
        json!({"message_id": 61, "date": 1_794_400_100, "chat": {"id": 512_000_111, "type": "private"}, "text": "a"}),
    )
}

fn me() -> Reply {
    result(json!({"id": 744_556_677, "is_bot": true, "first_name": "Shop", "username": "shop_demo_bot"}))
}

fn refused(code: i64, words: &str) -> Reply {
    let status = u16::try_from(code).unwrap();
    Reply::json(status, &json!({"ok": false, "error_code": code, "description": words}))
}

fn error_cases() -> Vec<ErrorCase> {
    errors::ERRORS
        .iter()
        .map(|row| ErrorCase {
            vendor_code: row.code.to_string(),
            reply: refused(row.code, &format!("Vendor: {}", row.words.to_uppercase())),
            class: row.class,
            code: row.error,
            retry_after: (row.class == FailureClass::Throttled).then_some(DEFAULT_WAIT),
        })
        .collect()
}

#[tokio::test]
async fn a_text_goes_to_the_method_behind_the_token() {
    let stub = Stub::start(vec![accepted()]).await;
    let provider = build(&ENTRY, &stub.url);
    let text = OutboundContent::Text("Заказ 1042 собран".into());
    provider.send(&channel(&SPECIMEN), &message("tg.512000111", text)).await.unwrap();
    let request = stub.requests().remove(0);
    assert_eq!(request.method, "POST");
    assert_eq!(request.target, format!("/bot{OWN_TOKEN}/sendMessage"));
    assert_eq!(request.json(), json!({"chat_id": 512_000_111, "text": "Заказ 1042 собран"}));
}

#[tokio::test]
async fn a_message_that_is_still_prepared_has_an_id_of_its_chat() {
    let stub = Stub::start(vec![result(json!({"message_id": 0, "date": 1, "chat": {"id": 512_000_111}}))]).await;
    let provider = build(&ENTRY, &stub.url);
    let sent = provider.send(&channel(&SPECIMEN), &message("tg.512000111", OutboundContent::Text("a".into()))).await;
    assert_eq!(sent.unwrap().id.as_str(), "512000111:0");
}

#[tokio::test]
async fn what_is_no_token_becomes_part_of_no_address() {
    let stub = Stub::start(vec![accepted()]).await;
    let provider = build(&ENTRY, &stub.url);
    let mut own = channel(&SPECIMEN);
    for bad in [
        "744556677",
        "744556677:short",
        "7:AAHtestTOKENtestTOKENtestTOKENtest12",
        "../x:AAHtestTOKENtestTOKENtestTOKENtest12",
    ] {
        own.credentials.insert(TOKEN.into(), bad.into());
        let error = provider.probe(&own).await.unwrap_err();
        assert_eq!((error.class, error.failure.code), (FailureClass::Misconfigured, ErrorCode::Misconfigured), "{bad}");
    }
    assert!(stub.requests().is_empty());
}

const URL: &str = "https://connector.example/webhooks/telegram_bot/chan_01TEST";

fn info(url: &str, pending: i64, error: &str) -> Reply {
    let mut info = json!({"url": url, "has_custom_certificate": false, "pending_update_count": pending,
        "allowed_updates": ["edited_message", "message"]});
    if !error.is_empty() {
        info["last_error_date"] = json!(1_794_400_000);
        info["last_error_message"] = json!(error);
    }
    result(info)
}

#[tokio::test]
async fn an_address_that_stands_is_left_alone_and_any_other_is_set_again_with_its_secret() {
    let failed = "Wrong response from the webhook: 403 Forbidden";
    for (found, mended, trouble, calls) in [
        (info(URL, 0, ""), false, "", 1),
        // Long ago, and nothing waits any more.
        (info(URL, 0, failed), false, "", 1),
        (info(URL, 3, failed), false, failed, 2),
        (info("", 0, ""), true, "", 2),
        (info("https://elsewhere.example/", 2, ""), true, "", 2),
    ] {
        let stub = Stub::start(vec![found, result(json!(true))]).await;
        let provider = build(&ENTRY, &stub.url);
        let own = channel(&SPECIMEN);
        let kept = provider.webhooks().unwrap().keep(&own, URL).await.unwrap();
        assert_eq!(kept, Kept { mended, trouble: trouble.to_owned() });
        let requests = stub.requests();
        assert_eq!(requests.len(), calls);
        if let Some(set) = requests.get(1) {
            assert_eq!(set.target, format!("/bot{OWN_TOKEN}/setWebhook"));
            let secret = webhook_auth::header_secret(&own, TOKEN);
            let expected =
                json!({"url": URL, "secret_token": secret, "allowed_updates": ["message", "edited_message"]});
            assert_eq!(set.json(), expected);
        }
    }
}

#[tokio::test]
async fn looking_after_the_address_is_never_unclear_and_a_dead_token_is_said_to_be_one() {
    let stub = Stub::start(vec![Reply::Cut]).await;
    let provider = build(&ENTRY, &stub.url);
    let webhooks = provider.webhooks().unwrap();
    assert_eq!(webhooks.keep(&channel(&SPECIMEN), URL).await.unwrap_err().class, FailureClass::Unavailable);
    stub.script(vec![info("", 0, ""), Reply::Cut]);
    assert_eq!(webhooks.keep(&channel(&SPECIMEN), URL).await.unwrap_err().class, FailureClass::Unavailable);
    stub.script(vec![refused(401, "Unauthorized")]);
    assert_eq!(webhooks.keep(&channel(&SPECIMEN), URL).await.unwrap_err().class, FailureClass::Misconfigured);
    assert_eq!(webhooks.sender(&channel(&SPECIMEN)), "744556677");
}

fn only(body: &[u8]) -> InboundMessage {
    match webhook::read(body).unwrap().remove(0) {
        ProviderEvent::Inbound(inbound) => inbound,
        other => panic!("{other:?}"),
    }
}

#[test]
fn people_are_known_by_their_chat_and_messages_by_chat_and_number() {
    let start = only(include_bytes!("../../../tests/fixtures/telegram_bot/start.json"));
    assert_eq!((start.peer.as_str(), start.provider_id.as_str()), ("tg.512000111", "512000111:57"));
    assert_eq!((start.name.as_str(), start.at), ("Ирина", Timestamp::from_seconds(1_794_400_000)));
    assert_eq!(start.content, InboundContent::Text { body: "/start deal_4821".into() });
    let file = only(include_bytes!("../../../tests/fixtures/telegram_bot/document.json"));
    let media = |media: &str, id: &str, mime: &str, caption: &str| InboundContent::Media {
        media: media.into(),
        id: id.into(),
        mime: mime.into(),
        caption: caption.into(),
        filename: if media == "document" { "check.pdf" } else { "" }.into(),
    };
    assert_eq!(file.name, "Ирина К.");
    assert_eq!(file.reply_to, Some(ProviderMessageId("512000111:40".into())));
    assert_eq!(file.content, media("document", "BQACAgIAAx", "application/pdf", "Чек"));
}

#[test]
fn every_kind_is_told_and_only_ones_own_contact_in_private_tells_a_phone() {
    let updates: Vec<Value> = serde_json::from_str(KINDS).unwrap();
    let media = |media: &str, id: &str, mime: &str, caption: &str| InboundContent::Media {
        media: media.into(),
        id: id.into(),
        mime: mime.into(),
        caption: caption.into(),
        filename: if media == "document" { "check.pdf" } else { "" }.into(),
    };
    let card = |card: &str| InboundContent::Contacts { cards: vec![card.into()] };
    let place = InboundContent::Location { latitude: "55.75".into(), longitude: "37.61".into(), name: String::new() };
    let of = ProviderMessageId("512000111:1".into());
    let expected = [
        ("512000111:1", media("photo", "large", "image/jpeg", "Фото")),
        ("512000111:2", media("voice", "voice", "audio/ogg", "")),
        ("512000111:3", media("animation", "gif", "video/mp4", "")),
        ("512000111:4", media("sticker", "sticker", "image/webp", "")),
        ("512000111:5", place),
        ("512000111:6", card("Ирина +7 916 123-45-67")),
        ("512000111:7", card("Борис 79160000001")),
        ("-1001987654321:8", card("Ирина 79161234567")),
        ("512000111:1:1794400100", InboundContent::Edited { of, body: "Десять, а не сто".into() }),
        ("-1001987654321:9", InboundContent::Text { body: "/menu@shop_demo_bot".into() }),
    ];
    assert_eq!(updates.len(), expected.len());
    let mut phones = Vec::new();
    for (update, (id, content)) in updates.iter().zip(expected) {
        let mut events = webhook::read(update.to_string().as_bytes()).unwrap().into_iter();
        let Some(ProviderEvent::Inbound(inbound)) = events.next() else { panic!("{update}") };
        assert_eq!((inbound.provider_id.as_str(), &inbound.content), (id, &content), "{update}");
        assert!(inbound.opens_window && inbound.peer.starts_with("tg."));
        phones.extend(events);
    }
    let phone = Phone::from_digits("79161234567").unwrap();
    assert_eq!(phones, [ProviderEvent::PhoneShared(SharedPhone { peer: "tg.512000111".into(), phone })]);
}

#[test]
fn what_nobody_asked_for_is_taken_and_is_no_news() {
    let member = json!({"update_id": 1, "my_chat_member": {"chat": {"id": 512_000_111}}});
    let bot = json!({"update_id": 2, "message": {"message_id": 5, "date": 1, "from": {"id": 1, "is_bot": true},
        "chat": {"id": -5}, "text": "beep"}});
    let damaged = json!({"update_id": 3, "message": {"text": "from nowhere"}});
    for update in [member, bot, damaged] {
        assert_eq!(webhook::read(update.to_string().as_bytes()), Ok(Vec::new()), "{update}");
    }
}

#[tokio::test]
async fn a_file_is_fetched_behind_the_token_and_from_nowhere_else() {
    let told = |path: &str| result(json!({"file_id": "BQAC", "file_size": 4, "file_path": path}));
    let stub = Stub::start(vec![told("documents/file_7.pdf"), Reply::text(200, "%PDF")]).await;
    let provider = build(&ENTRY, &stub.url);
    let mut file = provider.media().unwrap().open(&channel(&SPECIMEN), "BQ/AC&x=1").await.unwrap();
    assert_eq!((file.mime.as_str(), file.size), ("", Some(4)), "name and type stand in the message");
    assert_eq!(&file.chunks.next().await.unwrap().unwrap()[..], b"%PDF");
    let requests = stub.requests();
    assert_eq!(requests[0].target, format!("/bot{OWN_TOKEN}/getFile?file_id=BQ%2FAC%26x%3D1"));
    assert_eq!(requests[1].target, format!("/file/bot{OWN_TOKEN}/documents/file_7.pdf"));
    for path in ["", "../botX/getMe", "/etc/passwd", "a/../b", "a?b", "http://evil.example/a", "a%2fb"] {
        let stub = Stub::start(vec![told(path)]).await;
        let opened = build(&ENTRY, &stub.url).media().unwrap().open(&channel(&SPECIMEN), "BQAC").await;
        assert_eq!(opened.err().map(|error| error.class), Some(FailureClass::Rejected), "{path}");
        assert_eq!(stub.requests().len(), 1, "{path}");
    }
    stub.script(vec![refused(400, "Bad Request: file is too big")]);
    let error = provider.media().unwrap().open(&channel(&SPECIMEN), "BQAC").await.err().unwrap();
    assert_eq!((error.class, error.failure.code), (FailureClass::Rejected, ErrorCode::FileTooLarge));
}
