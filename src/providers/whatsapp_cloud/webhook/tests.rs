use crate::domain::outcome::ErrorCode;
use crate::providers::contract::channel;
use crate::providers::whatsapp_cloud::tests::SPECIMEN;

use super::*;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../../../tests/fixtures/whatsapp_cloud/", $name, ".json"))
    };
}

fn events(body: &[u8]) -> Vec<ProviderEvent> {
    read(&channel(&SPECIMEN), body).unwrap()
}

fn statuses(body: &[u8]) -> Vec<StatusNews> {
    let status = |event| if let ProviderEvent::Status(news) = event { Some(news) } else { None };
    events(body).into_iter().filter_map(status).collect()
}

fn inbound(body: &[u8]) -> Vec<InboundMessage> {
    let message = |event| if let ProviderEvent::Inbound(message) = event { Some(message) } else { None };
    events(body).into_iter().filter_map(message).collect()
}

#[test]
fn a_status_carries_the_vendors_id_and_ours() {
    let expected = StatusNews {
        provider_id: ProviderMessageId("wamid.TESTOUT0001".into()),
        message: MessageId::parse("msg_01JTESTMESSAGE"),
        state: MessageState::Sent,
        at: Timestamp(1_790_000_003_000),
        failure: None,
        vendor_code: String::new(),
    };
    assert!(expected.message.is_some());
    assert_eq!(events(fixture!("status_sent")), [ProviderEvent::Status(expected)]);
}

#[test]
fn a_batch_keeps_its_order_and_survives_damaged_items() {
    let news = statuses(fixture!("status_batch"));
    let seen: Vec<(&str, MessageState, i64)> =
        news.iter().map(|news| (news.provider_id.as_str(), news.state, news.at.0 / 1000)).collect();
    let expected = [
        ("wamid.TESTOUT0001", MessageState::Read, 1_790_000_003),
        ("wamid.TESTOUT0001", MessageState::Delivered, 1_790_000_004),
        ("wamid.TESTOUT0002", MessageState::Read, 1_790_000_009),
    ];
    assert_eq!(seen, expected);
    assert!(news.iter().all(|news| news.message.is_none()));
}

#[test]
fn failures_after_acceptance_read_the_error_table() {
    let news = statuses(fixture!("status_failed"));
    let seen: Vec<(ErrorCode, &str, &str)> = news
        .iter()
        .map(|news| {
            let failure = news.failure.as_ref().unwrap();
            (failure.code, failure.detail.as_str(), news.vendor_code.as_str())
        })
        .collect();
    let late = "More than 24 hours have passed since the customer last replied";
    let expected = [
        (ErrorCode::WindowClosed, late, "131047"),
        (ErrorCode::NotOnMessenger, "Message undeliverable", "131026"),
        (ErrorCode::Rejected, "Something new", "199999"),
        (ErrorCode::Rejected, "", ""),
    ];
    assert_eq!(seen, expected);
    assert!(news.iter().all(|news| news.state == MessageState::Failed));
}

#[test]
fn a_persons_text_is_read_through_the_vendors_escapes() {
    let expected = InboundMessage {
        provider_id: ProviderMessageId("wamid.TESTINBOUND01".into()),
        peer: "79161234567".into(),
        name: "Анна".into(),
        at: Timestamp(1_790_000_100_000),
        opens_window: true,
        reply_to: Some(ProviderMessageId("wamid.TESTOUT0001".into())),
        content: InboundContent::Text { body: "Когда доставка?".into() },
    };
    assert_eq!(events(fixture!("inbound_text")), [ProviderEvent::Inbound(expected)]);
}

#[test]
fn every_type_of_message_is_shown_somehow() {
    let text = |body: &str| InboundContent::Text { body: body.into() };
    let other = |what: &str| InboundContent::Other { what: what.into() };
    let media = |media: &str, id: &str, mime: &str, caption: &str| InboundContent::Media {
        media: media.into(),
        id: id.into(),
        mime: mime.into(),
        caption: caption.into(),
        filename: if media == "document" { "schet.pdf" } else { "" }.into(),
    };
    let seen: Vec<InboundContent> =
        inbound(fixture!("inbound_kinds")).into_iter().map(|message| message.content).collect();
    let expected = [
        media("image", "8801", "image/jpeg", "Фото"),
        media("video", "8802", "video/mp4", ""),
        media("document", "8803", "application/pdf", "Счёт"),
        media("audio", "8804", "audio/ogg; codecs=opus", ""),
        media("sticker", "8805", "image/webp", ""),
        InboundContent::Location { latitude: "59.9386".into(), longitude: "30.3141".into(), name: "Офис".into() },
        InboundContent::Contacts { cards: vec!["Борис +79167654321".into()] },
        text("Отменить"),
        text("Да"),
        text("Центр"),
        other("nfm_reply"),
        other("interactive"),
        InboundContent::Reaction { of: ProviderMessageId("wamid.TESTOUT0001".into()), emoji: String::new() },
        other("order"),
        other(InboundContent::NUMBER_LEFT),
        InboundContent::Edited { of: ProviderMessageId("wamid.TESTIN01".into()), body: "new".into() },
        InboundContent::Deleted { of: ProviderMessageId("wamid.TESTIN01".into()) },
        other("request_welcome"),
        other("unsupported"),
        other("video"),
        other("unknown"),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn people_without_a_phone_are_known_by_their_id_and_names_are_matched_by_it() {
    let seen: Vec<(String, String)> =
        inbound(fixture!("inbound_hidden_phone")).into_iter().map(|message| (message.peer, message.name)).collect();
    let expected = [("RU.90817263544536271809", "anna_t"), ("79167654321", "Борис"), ("79160000000", "")];
    assert_eq!(seen, expected.map(|(peer, name)| (peer.to_owned(), name.to_owned())));
}

#[test]
fn words_spoken_in_a_group_belong_to_the_group() {
    let messages = inbound(fixture!("inbound_group"));
    assert_eq!(messages[0].peer, "Y2FwaV9ncm91cDp0ZXN0OjEyMzQ1");
    assert_eq!(messages[0].name, "Анна");
}

#[test]
fn other_numbers_are_never_read() {
    assert_eq!(read(&channel(&SPECIMEN), fixture!("foreign_number")), Err(WebhookError::ForeignSender));
    let messages = inbound(fixture!("mixed_numbers"));
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].content, InboundContent::Text { body: "yours".into() });
}

#[test]
fn changes_of_templates_are_told_once() {
    assert_eq!(events(fixture!("template_status")), [ProviderEvent::TemplatesChanged]);
    assert_eq!(events(fixture!("template_category")), [ProviderEvent::TemplatesChanged]);
}

#[test]
fn other_fields_are_no_news() {
    assert_eq!(events(fixture!("account_update")), []);
    assert_eq!(events(br#"{"object":"whatsapp_business_account","entry":[]}"#), []);
    assert_eq!(events(br#"{"object":"whatsapp_business_account","entry":[{"id":"1"},7,{"changes":[null]}]}"#), []);
}

#[test]
fn a_refusal_never_quotes_the_body() {
    for body in [&br#"{"object":"secret words"}"#[..], b"secret words", br#"{"object":"whatsapp_business_account"}"#] {
        let error = read(&channel(&SPECIMEN), body).unwrap_err();
        assert!(matches!(error, WebhookError::Malformed(_)) && !error.to_string().contains("secret"));
    }
}
