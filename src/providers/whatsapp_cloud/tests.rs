use futures_util::StreamExt as _;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};

use crate::domain::message::OutboundContent;
use crate::domain::template::{
    ButtonKind, ButtonValue, FilledTemplate, HeaderKind, HeaderMedia, TemplateRef, TemplateValue, choose, fill,
};
use crate::providers::contract::stub::{Reply, Request, Stub};
use crate::providers::contract::{ErrorCase, Specimen, build, channel, message};

use super::*;

const SECRET: &str = "5f1c0d8e7a2b49c6b3e4a5d6c7f80912";
const TOKEN: &str = "EAAGtestTOKEN1234567890";

/// What the contract suite must know of this vendor.
pub(crate) static SPECIMEN: Specimen = Specimen {
    entry: &ENTRY,
    credentials: &[
        (PHONE_NUMBER_ID, "330011223344556"),
        (WABA_ID, "214466880011223"),
        (ACCESS_TOKEN, TOKEN),
        (APP_SECRET, SECRET),
        (VERIFY_TOKEN, "verify-77-token"),
    ],
    peer: "79161234567",
    accepted: || (accepted(), "wamid.TESTOUT0001"),
    probed: || (number(), "Ромашка"),
    throttled: || refused(130_429, "Rate limit hit"),
    quoting: |text| refused(190, &format!("Malformed access token {text}")),
    errors: error_cases,
    callbacks: &[
        include_bytes!("../../../tests/fixtures/whatsapp_cloud/status_sent.json"),
        include_bytes!("../../../tests/fixtures/whatsapp_cloud/inbound_text.json"),
    ],
    foreign: Some(include_bytes!("../../../tests/fixtures/whatsapp_cloud/foreign_number.json")),
    sign: |_channel, body| {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(body);
        let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256={hex}")
    },
};

fn accepted() -> Reply {
    let contact = json!({"input": "79161234567", "wa_id": "79161234567", "user_id": "RU.90817263544536271809"});
    let document = json!({"messaging_product": "whatsapp", "contacts": [contact],
        "messages": [{"id": "wamid.TESTOUT0001", "message_status": "accepted"}]});
    Reply::json(200, &document)
}

fn number() -> Reply {
    let document = json!({"id": "330011223344556", "display_phone_number": "+7 999 000-11-22",
        "verified_name": "Ромашка", "quality_rating": "GREEN", "status": "CONNECTED"});
    Reply::json(200, &document)
}

fn refused(code: i64, words: &str) -> Reply {
    let document = json!({"error": {"message": format!("(#{code}) {words}"), "type": "OAuthException", "code": code,
        "error_data": {"messaging_product": "whatsapp", "details": words}, "fbtrace_id": "AbCdEf012345"}});
    Reply::json(400, &document)
}

fn error_cases() -> Vec<ErrorCase> {
    let codes = errors::ERRORS.iter().flat_map(|row| [(row.first, row), (row.last, row)]);
    codes
        .map(|(code, row)| ErrorCase {
            vendor_code: code.to_string(),
            reply: refused(code, "words of the vendor"),
            class: row.class,
            code: row.error,
            retry_after: row.wait,
        })
        .collect()
}

/// What arrives at the vendor for this content.
async fn sent(to: &str, content: OutboundContent) -> Request {
    let stub = Stub::start(vec![accepted()]).await;
    let provider = build(&ENTRY, &stub.url);
    provider.send(&channel(&SPECIMEN), &message(to, content)).await.unwrap();
    stub.requests().remove(0)
}

/// The body expected for a part of it.
fn envelope(part: Value) -> Value {
    let mut body = json!({"messaging_product": "whatsapp", "recipient_type": "individual", "to": "79161234567",
        "biz_opaque_callback_data": "msg_01TESTMESSAGE"});
    body.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
    body
}

fn media(media: MediaKind, link: &str, caption: &str, filename: &str) -> OutboundContent {
    OutboundContent::Media { media, link: link.into(), caption: caption.into(), filename: filename.into() }
}

fn filled() -> FilledTemplate {
    FilledTemplate {
        id: TemplateRef { name: "order_ready_ru".into(), language: "ru".into() },
        header_media: None,
        header: vec![],
        body: vec![],
        buttons: vec![],
        rendered: String::new(),
    }
}

fn value(name: Option<&str>, text: &str) -> TemplateValue {
    TemplateValue { name: name.map(str::to_owned), text: text.to_owned() }
}

#[tokio::test]
async fn a_text_goes_to_the_number_with_token_and_version() {
    let request = sent("79161234567", OutboundContent::Text("Заказ 1042 собран".into())).await;
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/v24.0/330011223344556/messages"));
    assert_eq!(request.header("authorization"), Some("Bearer EAAGtestTOKEN1234567890"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.json(), envelope(json!({"type": "text", "text": {"body": "Заказ 1042 собран"}})));
}

#[tokio::test]
async fn a_preview_is_asked_for_only_where_there_is_a_link() {
    let request = sent("79161234567", OutboundContent::Text("See https://crm.example/o/1".into())).await;
    let text = json!({"body": "See https://crm.example/o/1", "preview_url": true});
    assert_eq!(request.json(), envelope(json!({"type": "text", "text": text})));
}

#[tokio::test]
async fn a_person_without_a_phone_is_addressed_by_id() {
    let request = sent("RU.90817263544536271809", OutboundContent::Text("Hi".into())).await;
    let mut expected =
        envelope(json!({"type": "text", "text": {"body": "Hi"}, "recipient": "RU.90817263544536271809"}));
    expected.as_object_mut().unwrap().remove("to");
    assert_eq!(request.json(), expected);
}

#[tokio::test]
async fn files_go_by_link_with_caption_and_name_where_the_vendor_has_a_place() {
    for (content, part) in [
        (
            media(MediaKind::Image, "https://x.example/a.png", "Фото", "ignored.png"),
            json!({"type": "image", "image": {"link": "https://x.example/a.png", "caption": "Фото"}}),
        ),
        (
            media(MediaKind::Video, "https://x.example/a.mp4", "", ""),
            json!({"type": "video", "video": {"link": "https://x.example/a.mp4"}}),
        ),
        (
            media(MediaKind::Audio, "https://x.example/a.ogg", "", ""),
            json!({"type": "audio", "audio": {"link": "https://x.example/a.ogg"}}),
        ),
        (
            media(MediaKind::Document, "https://x.example/1", "Счёт", "schet.pdf"),
            json!({"type": "document",
                "document": {"link": "https://x.example/1", "caption": "Счёт", "filename": "schet.pdf"}}),
        ),
        (
            media(MediaKind::Document, "https://x.example/d/kp%201.docx?s=1", "", ""),
            json!({"type": "document",
                "document": {"link": "https://x.example/d/kp%201.docx?s=1", "filename": "kp 1.docx"}}),
        ),
    ] {
        assert_eq!(sent("79161234567", content).await.json(), envelope(part));
    }
}

#[tokio::test]
async fn what_cannot_be_said_is_refused_and_nothing_leaves() {
    let stub = Stub::start(vec![accepted()]).await;
    let provider = build(&ENTRY, &stub.url);
    let mut audio_header = filled();
    audio_header.header_media = Some(HeaderMedia { kind: MediaKind::Audio, link: "https://x.example/a.ogg".into() });
    for (to, content, code) in [
        ("79161234567", media(MediaKind::Audio, "https://x.example/a.ogg", "words", ""), ErrorCode::Unsupported),
        ("79161234567", OutboundContent::Template(audio_header), ErrorCode::Unsupported),
        ("@ada", OutboundContent::Text("Hi".into()), ErrorCode::BadPhone),
    ] {
        let error = provider.send(&channel(&SPECIMEN), &message(to, content)).await.unwrap_err();
        assert_eq!((error.class, error.failure.code), (FailureClass::Rejected, code));
    }
    assert!(stub.requests().is_empty());
}

#[tokio::test]
async fn a_bare_template_has_no_components() {
    let request = sent("79161234567", OutboundContent::Template(filled())).await;
    let template = json!({"name": "order_ready_ru", "language": {"code": "ru"}});
    assert_eq!(request.json(), envelope(json!({"type": "template", "template": template})));
}

#[tokio::test]
async fn a_numbered_template_with_everything() {
    let mut full = filled();
    full.header_media =
        Some(HeaderMedia { kind: MediaKind::Document, link: "https://x.example/d/schet.pdf?sig=1".into() });
    full.body = vec![value(None, "Анна"), value(None, "1042")];
    full.buttons = vec![
        ButtonValue { index: 0, kind: ButtonKind::Url, text: "o/1042".into() },
        ButtonValue { index: 1, kind: ButtonKind::QuickReply, text: "cancel:1042".into() },
        ButtonValue { index: 2, kind: ButtonKind::CopyCode, text: "SALE".into() },
    ];
    let request = sent("79161234567", OutboundContent::Template(full)).await;
    let document = json!({"link": "https://x.example/d/schet.pdf?sig=1", "filename": "schet.pdf"});
    let components = json!([
        {"type": "header", "parameters": [{"type": "document", "document": document}]},
        {"type": "body", "parameters": [{"type": "text", "text": "Анна"}, {"type": "text", "text": "1042"}]},
        {"type": "button", "sub_type": "url", "index": "0", "parameters": [{"type": "text", "text": "o/1042"}]},
        {"type": "button", "sub_type": "quick_reply", "index": "1",
            "parameters": [{"type": "payload", "payload": "cancel:1042"}]},
        {"type": "button", "sub_type": "copy_code", "index": "2",
            "parameters": [{"type": "coupon_code", "coupon_code": "SALE"}]}]);
    let template = json!({"name": "order_ready_ru", "language": {"code": "ru"}, "components": components});
    assert_eq!(request.json(), envelope(json!({"type": "template", "template": template})));
}

#[tokio::test]
async fn a_named_template_names_every_text() {
    let mut named = filled();
    named.header = vec![value(Some("client"), "Анна")];
    named.body = vec![value(Some("order_id"), "1042")];
    let request = sent("79161234567", OutboundContent::Template(named)).await;
    let components = json!([
        {"type": "header", "parameters": [{"type": "text", "parameter_name": "client", "text": "Анна"}]},
        {"type": "body", "parameters": [{"type": "text", "parameter_name": "order_id", "text": "1042"}]}]);
    assert_eq!(request.json()["template"]["components"], components);
}

#[tokio::test]
async fn pictures_and_films_stand_in_headers_without_a_name() {
    for (kind, word) in [(MediaKind::Image, "image"), (MediaKind::Video, "video")] {
        let mut with_header = filled();
        with_header.header_media = Some(HeaderMedia { kind, link: "https://x.example/a".into() });
        let request = sent("79161234567", OutboundContent::Template(with_header)).await;
        let parameter = json!({"type": word, word: {"link": "https://x.example/a"}});
        let components = json!([{"type": "header", "parameters": [parameter]}]);
        assert_eq!(request.json()["template"]["components"], components);
    }
}

#[tokio::test]
async fn ids_that_are_not_digits_never_become_part_of_an_address() {
    let stub = Stub::start(vec![number()]).await;
    let provider = build(&ENTRY, &stub.url);
    for bad in ["../1", "1/2", "1?x=", "33 00", "３３"] {
        let mut broken = channel(&SPECIMEN);
        broken.credentials.insert(PHONE_NUMBER_ID.into(), bad.into());
        assert_eq!(provider.probe(&broken).await.unwrap_err().failure.detail, "phone_number_id ?");
    }
    assert!(stub.requests().is_empty());
}

#[tokio::test]
async fn the_harmless_call_shows_the_number_and_its_state() {
    let stub = Stub::start(vec![number()]).await;
    let shown = build(&ENTRY, &stub.url).probe(&channel(&SPECIMEN)).await.unwrap();
    assert_eq!(shown, "Ромашка, +7 999 000-11-22: CONNECTED, quality GREEN");
    let target = "/v24.0/330011223344556?fields=display_phone_number,verified_name,quality_rating,status";
    assert_eq!(stub.requests()[0].target, target);
}

#[tokio::test]
async fn templates_are_found_by_their_exact_name() {
    let page = include_str!("../../../tests/fixtures/whatsapp_cloud/templates_page.json");
    let stub = Stub::start(vec![Reply::text(200, page)]).await;
    let provider = build(&ENTRY, &stub.url);
    let found = provider.templates().unwrap().find(&channel(&SPECIMEN), "order_ready_ru").await.unwrap();
    let request = stub.requests().remove(0);
    assert_eq!(stub.requests().len(), 1, "the last page is not asked for twice");
    let target = "/v24.0/214466880011223/message_templates?name=order_ready_ru\
        &fields=name%2Cstatus%2Ccategory%2Clanguage%2Ccomponents%2Cparameter_format&limit=100";
    assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", target));
    assert_eq!(request.header("authorization"), Some("Bearer EAAGtestTOKEN1234567890"));
    let seen: Vec<(&str, bool, &str)> =
        found.iter().map(|def| (def.id.language.as_str(), def.sendable, def.status.as_str())).collect();
    assert_eq!(seen, [("ru", true, "APPROVED"), ("kk", false, "PAUSED")]);
    assert_eq!(found[0].header, HeaderKind::Document);
}

#[tokio::test]
async fn a_found_template_is_filled_and_sent_as_the_vendor_wants_it() {
    let page = include_str!("../../../tests/fixtures/whatsapp_cloud/templates_page.json");
    let stub = Stub::start(vec![Reply::text(200, page), accepted()]).await;
    let provider = build(&ENTRY, &stub.url);
    let channel = channel(&SPECIMEN);
    let found = provider.templates().unwrap().find(&channel, "order_ready_ru").await.unwrap();
    let def = choose(&found, &TemplateRef { name: "order_ready_ru".into(), language: "ru".into() }).unwrap();
    let params = ["client=Анна", "order_id=1042", "button:0=o/1042"].map(str::to_owned);
    let filled = fill(def, &params, &["https://x.example/schet.pdf".to_owned()]).unwrap();
    provider.send(&channel, &message("79161234567", OutboundContent::Template(filled))).await.unwrap();
    let document = json!({"link": "https://x.example/schet.pdf", "filename": "schet.pdf"});
    let components = json!([
        {"type": "header", "parameters": [{"type": "document", "document": document}]},
        {"type": "body", "parameters": [
            {"type": "text", "parameter_name": "client", "text": "Анна"},
            {"type": "text", "parameter_name": "order_id", "text": "1042"}]},
        {"type": "button", "sub_type": "url", "index": "0", "parameters": [{"type": "text", "text": "o/1042"}]}]);
    assert_eq!(stub.requests()[1].json()["template"]["components"], components);
}

fn page(names: &[&str], after: &str, next: Option<&str>) -> Reply {
    let data: Vec<Value> =
        names.iter().map(|name| json!({"name": name, "language": "ru", "status": "APPROVED"})).collect();
    let mut document = json!({"data": data, "paging": {"cursors": {"before": "b", "after": after}}});
    if let Some(next) = next {
        document["paging"]["next"] = json!(next);
    }
    Reply::json(200, &document)
}

#[tokio::test]
async fn pages_are_followed_by_cursor_and_not_by_address() {
    let elsewhere = Some("http://10.0.0.1/steal?access_token=x");
    let stub = Stub::start(vec![page(&["other"], "A&B", elsewhere), page(&["order"], "C", None)]).await;
    let provider = build(&ENTRY, &stub.url);
    let found = provider.templates().unwrap().find(&channel(&SPECIMEN), "order").await.unwrap();
    assert_eq!(found.len(), 1);
    let targets: Vec<String> = stub.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets.len(), 2);
    assert!(targets[1].ends_with("&limit=100&after=A%26B"), "{}", targets[1]);
}

#[tokio::test]
async fn endless_pages_end() {
    let round = |cursor: &str| page(&["other"], cursor, Some("https://more.example"));
    let stub = Stub::start(["A", "B"].repeat(5).into_iter().map(round).collect()).await;
    let provider = build(&ENTRY, &stub.url);
    assert!(provider.templates().unwrap().find(&channel(&SPECIMEN), "order").await.unwrap().is_empty());
    assert_eq!(stub.requests().len(), PAGES_MAX);
    let stub = Stub::start(vec![round("same")]).await;
    let provider = build(&ENTRY, &stub.url);
    assert!(provider.templates().unwrap().find(&channel(&SPECIMEN), "order").await.unwrap().is_empty());
    assert_eq!(stub.requests().len(), 2);
}

#[tokio::test]
async fn a_failed_look_up_never_makes_a_message_unclear() {
    let stub = Stub::start(vec![Reply::Cut]).await;
    let provider = build(&ENTRY, &stub.url);
    for (reply, class) in [
        (Reply::Cut, FailureClass::Unavailable),
        (Reply::text(502, "<html>"), FailureClass::Unavailable),
        (Reply::text(200, "<html>"), FailureClass::Unavailable),
        (refused(80_007, "limit"), FailureClass::Throttled),
        (refused(190, "expired"), FailureClass::Misconfigured),
    ] {
        stub.script(vec![reply]);
        let error = provider.templates().unwrap().find(&channel(&SPECIMEN), "order").await.unwrap_err();
        assert_eq!(error.class, class);
    }
}

#[tokio::test]
async fn without_an_account_id_templates_are_refused_and_the_channel_lives() {
    let provider = build(&ENTRY, "http://127.0.0.1:9");
    let mut bare = channel(&SPECIMEN);
    bare.credentials.remove(WABA_ID);
    let error = provider.templates().unwrap().find(&bare, "order").await.unwrap_err();
    assert_eq!((error.class, error.failure.code), (FailureClass::NotPermitted, ErrorCode::TemplateNotFound));
    assert_eq!(error.failure.detail, "order: waba_id ?");
}

#[test]
fn an_empty_version_leaves_no_hole_in_the_address() {
    let outbound = Arc::new(Outbound::new(vec![]).unwrap());
    let settings = ResolvedSettings { base_url: "https://gateway.example/wa/".into(), api_version: String::new() };
    assert_eq!(WhatsappCloud::new(outbound, &settings).root, "https://gateway.example/wa");
}

#[tokio::test]
async fn a_file_is_fetched_with_the_token_and_only_from_the_vendor() {
    let told =
        |url: &str| Reply::json(200, &json!({"url": url, "mime_type": "image/jpeg", "file_size": "3", "id": "880011"}));
    let stub = Stub::start(vec![Reply::Silence]).await;
    stub.script(vec![
        told(&format!("{}/whatsapp_business/attachments/?mid=880011", stub.url)),
        Reply::text(200, "jpg"),
    ]);
    let provider = build(&ENTRY, &stub.url);
    let mut file = provider.media().unwrap().open(&channel(&SPECIMEN), "880011").await.unwrap();
    assert_eq!((file.mime.as_str(), file.size), ("image/jpeg", Some(3)));
    assert_eq!(&file.chunks.next().await.unwrap().unwrap()[..], b"jpg");
    let requests = stub.requests();
    assert_eq!(requests[0].target, "/v24.0/880011?phone_number_id=330011223344556");
    assert_eq!(requests[1].header("authorization"), Some(format!("Bearer {TOKEN}").as_str()));
    for (id, url) in [
        ("880011", "https://evil.example/a"),
        ("880011", "https://fbsbx.com.evil.example/a"),
        ("880011", "https://evilfbsbx.com/a"),
        ("880011", "http://lookaside.fbsbx.com/a"),
        ("880011", ""),
        ("../330011223344556", "https://lookaside.fbsbx.com/a"),
    ] {
        let stub = Stub::start(vec![told(url)]).await;
        let opened = build(&ENTRY, &stub.url).media().unwrap().open(&channel(&SPECIMEN), id).await;
        assert_eq!(opened.err().map(|error| error.class), Some(FailureClass::Rejected), "{id} {url}");
        assert!(stub.requests().iter().all(|request| request.target.starts_with("/v24.0/880011")), "{id} {url}");
    }
}
