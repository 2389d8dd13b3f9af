//! The JSON of a send: `POST /{phone_number_id}/messages`.
//!
//! Sources: Meta, WhatsApp Business Platform, Cloud API reference "Messages", guides "Text / Image / Video / Audio /
//! Document messages", "Send message templates", "Business-scoped user IDs"; read 2026-11.

use serde::Serialize;

use crate::domain::capability::MediaKind;
use crate::domain::message::{OutboundContent, OutboundMessage};
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::template::{ButtonKind, ButtonValue, FilledTemplate, HeaderMedia, TemplateValue};

/// One message as the vendor takes it.
#[derive(Serialize)]
struct Envelope<'a> {
    messaging_product: &'static str,
    recipient_type: &'static str,
    #[serde(flatten)]
    address: Address,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    payload: Payload<'a>,
    /// Comes back in every status of the message (at most 512 characters): how an unclear send is settled.
    biz_opaque_callback_data: &'a str,
}

/// Where it goes.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Address {
    /// Digits with country code.
    To(String),
    /// A person whose phone is hidden, by the id the vendor gave them for this business.
    Recipient(String),
}

/// What it is; the key in the envelope equals its `type`.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Payload<'a> {
    Text(Text<'a>),
    Image(Media<'a>),
    Video(Media<'a>),
    Audio(Media<'a>),
    Document(Media<'a>),
    Template(Template<'a>),
}

#[derive(Serialize)]
struct Text<'a> {
    body: &'a str,
    /// Asks for a preview of the first link; left out when there is none.
    #[serde(skip_serializing_if = "is_false")]
    preview_url: bool,
}

#[derive(Serialize)]
struct Media<'a> {
    link: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    caption: &'a str,
    /// Documents only; its extension chooses the icon and the application that opens it.
    #[serde(skip_serializing_if = "String::is_empty")]
    filename: String,
}

#[derive(Serialize)]
struct Template<'a> {
    name: &'a str,
    language: Language<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    components: Vec<Component<'a>>,
}

#[derive(Serialize)]
struct Language<'a> {
    code: &'a str,
}

#[derive(Serialize)]
struct Component<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_type: Option<&'static str>,
    /// Place among all buttons, as text: the vendor refuses a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<String>,
    parameters: Vec<Parameter<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Parameter<'a> {
    Text {
        /// Required where the template uses names, forbidden where it uses numbers.
        #[serde(skip_serializing_if = "Option::is_none")]
        parameter_name: Option<&'a str>,
        text: &'a str,
    },
    Image {
        image: Media<'a>,
    },
    Video {
        video: Media<'a>,
    },
    Document {
        document: Media<'a>,
    },
    Payload {
        payload: &'a str,
    },
    CouponCode {
        coupon_code: &'a str,
    },
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Writes the body of a send.
///
/// # Errors
/// - `BadPhone`: the address is neither digits nor a business-scoped user id.
/// - `Unsupported`: a caption under audio, which the vendor has no place for. Preflight sends such a caption as a
///   message of its own; one that gets here is refused, because to send without it would lose words unseen. The same
///   for a template whose header is a sound.
/// - `CannotChange`: what was sent stays as it is.
pub(super) fn body(message: &OutboundMessage) -> Result<Vec<u8>, Failure> {
    let address = address(&message.to)?;
    let (kind, payload) = match &message.content {
        OutboundContent::Text(text) => {
            let preview_url = text.contains("https://") || text.contains("http://");
            ("text", Payload::Text(Text { body: text, preview_url }))
        }
        OutboundContent::Media { media, link, caption, filename } => media_payload(*media, link, caption, filename)?,
        OutboundContent::Template(filled) => ("template", Payload::Template(template(filled)?)),
        OutboundContent::Edit { .. } | OutboundContent::Withdraw { .. } => {
            return Err(Failure::new(ErrorCode::CannotChange));
        }
    };
    let envelope = Envelope {
        messaging_product: "whatsapp",
        recipient_type: "individual",
        address,
        kind,
        payload,
        biz_opaque_callback_data: message.id.as_str(),
    };
    serde_json::to_vec(&envelope).map_err(|e| Failure::with(ErrorCode::BadRequest, e.to_string()))
}

/// Sorts an address: digits however they are grouped, or `CC.` and letters and digits for a person without a phone.
fn address(to: &str) -> Result<Address, Failure> {
    if is_scoped_id(to) {
        return Ok(Address::Recipient(to.to_owned()));
    }
    let tolerated = |sign: char| sign.is_ascii_digit() || matches!(sign, '+' | ' ' | '-' | '(' | ')');
    let digits: String = to.chars().filter(char::is_ascii_digit).collect();
    if digits.is_empty() || !to.chars().all(tolerated) {
        return Err(Failure::new(ErrorCode::BadPhone));
    }
    Ok(Address::To(digits))
}

/// `RU.90817263544536271809`, or `RU.ENT.…` for linked businesses.
fn is_scoped_id(to: &str) -> bool {
    let Some((country, rest)) = to.split_once('.') else { return false };
    let country_fits = country.len() == 2 && country.bytes().all(|b| b.is_ascii_uppercase());
    country_fits && !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
}

fn media_payload<'a>(
    media: MediaKind,
    link: &'a str,
    caption: &'a str,
    filename: &'a str,
) -> Result<(&'static str, Payload<'a>), Failure> {
    let plain = Media { link, caption, filename: String::new() };
    match media {
        MediaKind::Image => Ok(("image", Payload::Image(plain))),
        MediaKind::Video => Ok(("video", Payload::Video(plain))),
        MediaKind::Audio if caption.is_empty() => Ok(("audio", Payload::Audio(plain))),
        MediaKind::Audio => Err(Failure::with(ErrorCode::Unsupported, "audio + caption")),
        MediaKind::Document => {
            let filename = if filename.is_empty() { name_in(link) } else { filename.to_owned() };
            Ok(("document", Payload::Document(Media { filename, ..plain })))
        }
    }
}

fn template(filled: &FilledTemplate) -> Result<Template<'_>, Failure> {
    let mut components = Vec::new();
    let mut header: Vec<Parameter<'_>> = Vec::new();
    if let Some(media) = &filled.header_media {
        header.push(header_parameter(media)?);
    }
    header.extend(filled.header.iter().map(text_parameter));
    if !header.is_empty() {
        components.push(Component { kind: "header", sub_type: None, index: None, parameters: header });
    }
    if !filled.body.is_empty() {
        let parameters = filled.body.iter().map(text_parameter).collect();
        components.push(Component { kind: "body", sub_type: None, index: None, parameters });
    }
    components.extend(filled.buttons.iter().map(button));
    Ok(Template { name: &filled.id.name, language: Language { code: &filled.id.language }, components })
}

fn header_parameter(media: &HeaderMedia) -> Result<Parameter<'_>, Failure> {
    let plain = Media { link: &media.link, caption: "", filename: String::new() };
    match media.kind {
        MediaKind::Image => Ok(Parameter::Image { image: plain }),
        MediaKind::Video => Ok(Parameter::Video { video: plain }),
        MediaKind::Document => Ok(Parameter::Document { document: Media { filename: name_in(&media.link), ..plain } }),
        MediaKind::Audio => Err(Failure::with(ErrorCode::Unsupported, "header: audio")),
    }
}

fn text_parameter(value: &TemplateValue) -> Parameter<'_> {
    Parameter::Text { parameter_name: value.name.as_deref(), text: &value.text }
}

fn button(value: &ButtonValue) -> Component<'_> {
    let text = value.text.as_str();
    let (sub_type, parameter) = match value.kind {
        ButtonKind::Url => ("url", Parameter::Text { parameter_name: None, text }),
        ButtonKind::CopyCode => ("copy_code", Parameter::CouponCode { coupon_code: text }),
        ButtonKind::QuickReply => ("quick_reply", Parameter::Payload { payload: text }),
    };
    Component {
        kind: "button",
        sub_type: Some(sub_type),
        index: Some(value.index.to_string()),
        parameters: vec![parameter],
    }
}

/// The file name in an address: its last path segment, decoded. Empty when there is none.
///
/// The person reads it, and its extension decides what opens the file; a template's document without a name shows as
/// untitled.
fn name_in(link: &str) -> String {
    let Ok(url) = url::Url::parse(link) else { return String::new() };
    let segment = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
    let decoded = percent_encoding::percent_decode_str(segment).decode_utf8_lossy();
    let name = decoded.rsplit(['/', '\\']).next().unwrap_or_default();
    name.chars().filter(|sign| !sign.is_control()).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_file_is_read_from_its_address() {
        for (link, name) in [
            ("https://x.example/a/schet-1042.pdf?sig=a/b.txt#p=2", "schet-1042.pdf"),
            ("https://x.example/%D0%A1%D1%87%D1%91%D1%82%20%E2%84%96%201.pdf", "Счёт № 1.pdf"),
            ("https://x.example/a+b.pdf", "a+b.pdf"),
            ("https://x.example/..%2Fetc%2Fpasswd", "passwd"),
            ("https://x.example/folder/", ""),
            ("https://x.example", ""),
            ("no address", ""),
        ] {
            assert_eq!(name_in(link), name, "{link}");
        }
    }

    #[test]
    fn addresses_are_digits_or_scoped_ids() {
        assert!(matches!(address("79161234567"), Ok(Address::To(to)) if to == "79161234567"));
        assert!(matches!(address("+7 (916) 123-45-67"), Ok(Address::To(to)) if to == "79161234567"));
        assert!(matches!(address("RU.90817263544536271809"), Ok(Address::Recipient(_))));
        assert!(matches!(address("RU.ENT.908172"), Ok(Address::Recipient(_))));
        for bad in ["", "+", "@ada", "ada.7916", "ru.908", "RU.", "7916;7917", "79161234567@c.us"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
