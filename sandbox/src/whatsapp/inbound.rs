//! What a phone sends to a business number. Source: §5.5.

use std::sync::Arc;

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    ledger::{MediaShown, Message, Route, Shown},
    numbers::NumberCell,
    phones, webhooks,
};
use crate::{php::Php, world::World};

/// Something a person does on the phone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Inbound {
    /// Types a text.
    Text {
        /// Text.
        body: String,
    },
    /// Sends a file. The content is a stub unless given.
    Media {
        /// `image`, `video`, `audio`, `document`, `sticker`.
        kind: String,
        /// MIME type; default by kind.
        #[serde(default)]
        mime: Option<String>,
        /// File name (documents).
        #[serde(default)]
        filename: Option<String>,
        /// Caption.
        #[serde(default)]
        caption: Option<String>,
        /// Content, base64.
        #[serde(default)]
        base64: Option<String>,
    },
    /// Shares a place.
    Location {
        /// Degrees.
        latitude: f64,
        /// Degrees.
        longitude: f64,
        /// Name.
        #[serde(default)]
        name: Option<String>,
        /// Address.
        #[serde(default)]
        address: Option<String>,
    },
    /// Shares contacts (§2.6 shape).
    Contacts {
        /// Array of contacts.
        contacts: Value,
    },
    /// Clicks a quick reply of a template.
    Button {
        /// Payload.
        payload: String,
        /// Caption.
        text: String,
    },
    /// Clicks a button of an interactive message.
    ButtonReply {
        /// Id of the button.
        id: String,
        /// Caption.
        title: String,
    },
    /// Picks a row of a list.
    ListReply {
        /// Id of the row.
        id: String,
        /// Caption.
        title: String,
        /// Second line.
        #[serde(default)]
        description: Option<String>,
    },
    /// Reacts to a message; empty emoji takes the reaction back.
    Reaction {
        /// Message reacted to.
        message_id: String,
        /// Emoji.
        emoji: String,
    },
    /// Sends something the platform does not carry (poll, view-once …).
    Unsupported,
    /// Changes the text of an earlier message.
    Edit {
        /// Message that is changed.
        message_id: String,
        /// New text.
        body: String,
    },
    /// Deletes an earlier message for everyone.
    Revoke {
        /// Message that is deleted.
        message_id: String,
    },
}

impl Inbound {
    /// A text.
    pub fn text(body: impl Into<String>) -> Self {
        Self::Text { body: body.into() }
    }
}

/// Sends it: opens the window, notes it, posts the webhook. Gives the message id.
pub(crate) fn send(
    world: &Arc<World>,
    number: &Arc<NumberCell>,
    wa_id: &str,
    what: &Inbound,
    reply_to: Option<&str>,
) -> anyhow::Result<String> {
    let options = world.graph.options.read().clone();
    let now = world.now_ms();
    let (phone, user_id, name) = {
        let mut phones = world.graph.phones.lock();
        let phone = phones.dial(&options, wa_id);
        if !phone.exists {
            bail!("{wa_id} is not on WhatsApp");
        }
        if !phone.online {
            bail!("{wa_id} is offline");
        }
        if phone.blocked.contains(&*number.id) {
            bail!("{wa_id} blocks this business");
        }
        phone.dialog(&number.id).window_until_ms = now + options.window_s * 1000;
        (phone.wa_id.clone(), phone.user_id.clone(), phone.name.clone())
    };
    // Inbound messages count against the throughput too (§7), but are never refused.
    number.take(now);
    let wamid = phones::wamid(&world.ids);
    let (kind, content, shown) = content(world, number, what)?;
    let mut message = vec![
        ("from", phone.as_str().into()),
        ("from_user_id", user_id.as_str().into()),
        ("id", wamid.as_str().into()),
        ("timestamp", (now / 1000).to_string().into()),
        ("type", kind.into()),
    ];
    message.extend(content);
    if let Some(quoted) = reply_to {
        let from = number.spec.display_phone_number.as_str();
        message.push(("context", Php::map([("from", from.into()), ("id", quoted.into())])));
    }
    {
        let mut ledger = world.graph.ledger.lock();
        if let Inbound::Reaction { message_id, emoji } = what {
            let target = ledger.get_mut(message_id).context("no such message to react to")?;
            target.reaction = (!emoji.is_empty()).then(|| emoji.clone());
        }
        ledger.add(
            Message {
                wamid: wamid.clone(),
                route: Route::In,
                phone_number_id: number.id.to_string(),
                phone: phone.clone(),
                at_ms: now,
                shown,
                opaque: None,
                reply_to: reply_to.map(str::to_owned),
                arrived: true,
                statuses: Vec::new(),
                reaction: None,
                marked_read: false,
            },
            options.ledger_kept,
        );
    }
    world.journal.count("messages.inbound");
    world.change("inbound", &number.id, wamid.clone());
    let profile = Php::map([("name", name.into())]);
    let contact = Php::map([("profile", profile), ("wa_id", phone.as_str().into()), ("user_id", user_id.into())]);
    webhooks::push_messages(world, number, &phone, Php::list([contact]), Php::list([Php::map(message)]));
    Ok(wamid)
}

type Content = (&'static str, Vec<(&'static str, Php)>, Shown);

fn content(world: &World, number: &NumberCell, what: &Inbound) -> anyhow::Result<Content> {
    let shown = |kind: &str, text: &str| Shown { kind: kind.into(), text: text.into(), ..Shown::default() };
    Ok(match what {
        Inbound::Text { body } => {
            ("text", vec![("text", Php::map([("body", body.as_str().into())]))], shown("text", body))
        }
        Inbound::Media { kind, mime, filename, caption, base64 } => {
            return media(
                world,
                number,
                kind,
                mime.as_deref(),
                filename.as_deref(),
                caption.as_deref(),
                base64.as_deref(),
            );
        }
        Inbound::Location { latitude, longitude, name, address } => {
            let mut place = vec![("latitude", Php::Float(*latitude)), ("longitude", Php::Float(*longitude))];
            place.extend(name.as_deref().map(|name| ("name", name.into())));
            place.extend(address.as_deref().map(|address| ("address", address.into())));
            ("location", vec![("location", Php::map(place))], shown("location", name.as_deref().unwrap_or("")))
        }
        Inbound::Contacts { contacts } => {
            ("contacts", vec![("contacts", Php::from_json(contacts))], shown("contacts", ""))
        }
        Inbound::Button { payload, text } => {
            let button = Php::map([("payload", payload.as_str().into()), ("text", text.as_str().into())]);
            ("button", vec![("button", button)], shown("button", text))
        }
        Inbound::ButtonReply { id, title } => {
            let reply = Php::map([("id", id.as_str().into()), ("title", title.as_str().into())]);
            let interactive = Php::map([("type", "button_reply".into()), ("button_reply", reply)]);
            ("interactive", vec![("interactive", interactive)], shown("interactive", title))
        }
        Inbound::ListReply { id, title, description } => {
            let mut reply = vec![("id", Php::from(id.as_str())), ("title", title.as_str().into())];
            reply.extend(description.as_deref().map(|text| ("description", text.into())));
            let interactive = Php::map([("type", "list_reply".into()), ("list_reply", Php::map(reply))]);
            ("interactive", vec![("interactive", interactive)], shown("interactive", title))
        }
        Inbound::Reaction { message_id, emoji } => {
            let mut reaction = vec![("message_id", message_id.as_str().into())];
            // A removal comes without the key.
            if !emoji.is_empty() {
                reaction.push(("emoji", emoji.as_str().into()));
            }
            ("reaction", vec![("reaction", Php::map(reaction))], shown("reaction", emoji))
        }
        Inbound::Unsupported => {
            let error = Php::map([
                ("code", Php::Int(131_051)),
                ("title", "Message type unknown".into()),
                ("message", "Message type unknown".into()),
                ("error_data", Php::map([("details", "Message type is currently not supported.".into())])),
            ]);
            let inner = Php::map([("type", "poll".into())]);
            ("unsupported", vec![("errors", Php::list([error])), ("unsupported", inner)], shown("unsupported", ""))
        }
        Inbound::Edit { message_id, body } => {
            let message = Php::map([("type", "text".into()), ("text", Php::map([("body", body.as_str().into())]))]);
            let edit = Php::map([("original_message_id", message_id.as_str().into()), ("message", message)]);
            ("edit", vec![("edit", edit)], shown("edit", body))
        }
        Inbound::Revoke { message_id } => {
            let revoke = Php::map([("original_message_id", message_id.as_str().into())]);
            ("revoke", vec![("revoke", revoke)], shown("revoke", ""))
        }
    })
}

fn media(
    world: &World,
    number: &NumberCell,
    kind: &str,
    mime: Option<&str>,
    filename: Option<&str>,
    caption: Option<&str>,
    base64: Option<&str>,
) -> anyhow::Result<Content> {
    let (kind, default_mime): (&'static str, &str) = match kind {
        "image" => ("image", "image/jpeg"),
        "video" => ("video", "video/mp4"),
        "audio" => ("audio", "audio/ogg; codecs=opus"),
        "document" => ("document", "application/pdf"),
        "sticker" => ("sticker", "image/webp"),
        other => bail!("{other} is not a kind of media"),
    };
    let mime = mime.unwrap_or(default_mime);
    let bytes = match base64 {
        Some(text) => STANDARD.decode(text).context("content is not base64")?,
        None => format!("stub of a {kind} from the sandbox").into_bytes(),
    };
    let digest = STANDARD.encode(Sha256::digest(&bytes));
    let (id, url) = {
        let id = world.ids.digits(16);
        let mut store = world.graph.media.lock();
        store.put(&id, &number.id, mime, bytes, world.now_ms(), super::media::Origin::Inbound);
        let url = store.address(&world.graph.base_url(), &id, &world.ids, world.now_ms());
        (id, url)
    };
    let mut object = Vec::new();
    object.extend(caption.map(|caption| ("caption", Php::from(caption))));
    object.extend(filename.map(|name| ("filename", Php::from(name))));
    object.extend([
        ("mime_type", mime.into()),
        ("sha256", digest.into()),
        ("id", id.as_str().into()),
        ("url", url.into()),
    ]);
    match kind {
        "audio" => object.push(("voice", Php::Bool(true))),
        "sticker" => object.push(("animated", Php::Bool(false))),
        _ => {}
    }
    let shown = Shown {
        kind: kind.into(),
        text: caption.unwrap_or("").into(),
        media: Some(MediaShown {
            kind: kind.into(),
            id,
            link: String::new(),
            filename: filename.unwrap_or("").into(),
            caption: caption.unwrap_or("").into(),
        }),
        ..Shown::default()
    };
    Ok((kind, vec![(kind, Php::map(object))], shown))
}
