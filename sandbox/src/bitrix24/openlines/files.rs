//! Files of chats: those that the portal fetches from a connector during the call, and those that operators attach, which
//! anybody with their short link can fetch. Source: §5.5, §5.8.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::OpenLines;
use crate::{
    bitrix24::PortalCell,
    http::{Body, Request, Response, form},
    php::Php,
    world::{World, fetch},
};

/// The cloud cuts a call after a minute, whatever it still fetches.
const FETCH_MAX: Duration = Duration::from_secs(55);
/// Larger files are not fetched.
const SIZE_MAX: usize = 150 * 1024 * 1024;

/// A file as it stands in a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileShown {
    /// Its name, at most 50 characters.
    pub name: String,
    /// MIME type.
    pub mime: String,
    /// Bytes.
    pub size: usize,
    /// SHA-256 of the content, hex.
    pub sha256: String,
}

/// How the portal hands out what an operator attached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Serving {
    /// As it is.
    #[default]
    File,
    /// A sign-in page stands in its place.
    Page,
    /// Nothing.
    Empty,
    /// Bytes that never end.
    Endless,
    /// It says that it is larger than any messenger takes.
    Huge,
    /// It sends the caller to this address.
    Elsewhere(String),
    /// It is gone.
    Gone,
}

/// Something that an operator attaches.
#[derive(Clone, Debug, Default)]
pub struct Attachment {
    /// Name.
    pub name: String,
    /// MIME type.
    pub mime: String,
    /// Content.
    pub bytes: Vec<u8>,
    /// How it is handed out.
    pub serving: Serving,
}

/// What the portal has fetched for one call, by address.
pub(crate) type Fetched = HashMap<String, (String, Bytes)>;

/// Fetches the files that a call names. What cannot be fetched is left out without a word.
pub(crate) async fn fetch_all(world: &World, method: &str, params: &Php) -> Fetched {
    let mut urls = Vec::new();
    if method == "batch" {
        for (_, command) in params.get_ci("cmd").map(|cmd| cmd.entries().to_vec()).unwrap_or_default() {
            let command = command.text();
            let (name, query) = command.split_once('?').unwrap_or((&command, ""));
            if is_sending(&name.to_ascii_lowercase()) {
                urls.extend(urls_of(&form::parse(query)));
            }
        }
    } else if is_sending(method) {
        urls.extend(urls_of(params));
    }
    let mut fetched = Fetched::new();
    for url in urls {
        let request = world.client.get(&url).header("user-agent", "Bitrix Connector Client").timeout(FETCH_MAX);
        let Ok((200, headers, bytes)) = fetch(request).await else { continue };
        let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if bytes.len() <= SIZE_MAX {
            fetched.insert(url, (kind.to_owned(), bytes));
        }
    }
    fetched
}

fn is_sending(method: &str) -> bool {
    method.trim_start_matches('/') == "imconnector.send.messages"
}

fn urls_of(params: &Php) -> Vec<String> {
    let messages = params.get_ci("MESSAGES").map(|list| list.entries().to_vec()).unwrap_or_default();
    let files = messages.iter().flat_map(|(_, element)| named(element));
    files.map(|(url, _)| url).collect()
}

/// Addresses and names of the files of one message.
fn named(element: &Php) -> Vec<(String, String)> {
    let files = element.get_ci("message").and_then(|message| message.get_ci("files"));
    let part = |file: &Php, key: &str| file.get_ci(key).map(Php::text).unwrap_or_default();
    let files = files.map(|files| files.entries().to_vec()).unwrap_or_default();
    files.iter().map(|(_, file)| (part(file, "url"), part(file, "name"))).collect()
}

/// The files of one message as they now stand in the chat.
pub(crate) fn taken(element: &Php, fetched: &Fetched) -> Vec<FileShown> {
    let shown = |(url, name): (String, String)| {
        let (mime, bytes) = fetched.get(&url)?;
        let last: Vec<char> = name.chars().rev().take(50).collect();
        Some(FileShown {
            name: last.into_iter().rev().collect(),
            mime: mime.clone(),
            size: bytes.len(),
            sha256: Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    };
    named(element).into_iter().filter_map(shown).collect()
}

impl OpenLines {
    /// Keeps what an operator attached; gives its entry in an event and how it is shown.
    pub(crate) fn attach(&mut self, domain: &str, file: Attachment) -> (Php, FileShown) {
        let number = i64::try_from(self.attachments.len()).unwrap_or_default() + 4_711;
        let shown = FileShown {
            name: file.name.clone(),
            mime: file.mime.clone(),
            size: file.bytes.len(),
            sha256: Sha256::digest(&file.bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        let kind = ["image", "video", "audio"].into_iter().find(|kind| file.mime.starts_with(kind)).unwrap_or("file");
        let entry = Php::map([
            ("name", file.name.as_str().into()),
            ("type", kind.into()),
            ("mime", file.mime.as_str().into()),
            ("link", format!("http://{domain}/~f{number}").into()),
            ("downloadLink", format!("/pub/im.file.php?FILE_ID={number}&SIGN=0a1b2c").into()),
            ("size", file.bytes.len().to_string().into()),
        ]);
        self.attachments.insert(number, file);
        (entry, shown)
    }
}

/// `GET /~f<number>` and `GET /pub/im.file.php`: nobody is asked to sign in.
pub(crate) fn hand_out(world: &Arc<World>, portal: &PortalCell, request: &Request) -> Option<Response> {
    let gone = || Response::html(404, "<h1>404 Not Found</h1>");
    if let Some(number) = request.path.strip_prefix("/~f") {
        world.journal.count("portal.file.link");
        return Some(Response::redirect(302, format!("/pub/im.file.php?FILE_ID={number}&SIGN=0a1b2c")));
    }
    if request.path != "/pub/im.file.php" {
        return None;
    }
    world.journal.count("portal.file");
    let number = request.query_param("FILE_ID").and_then(|number| number.parse::<i64>().ok());
    let file = number.and_then(|number| portal.state.lock().openlines.attachments.get(&number).cloned());
    let Some(file) = file.filter(|_| request.query_param("SIGN").as_deref() == Some("0a1b2c")) else {
        return Some(gone());
    };
    let whole = |bytes: Vec<u8>| Response::new(200, &file.mime, bytes);
    Some(match &file.serving {
        Serving::File => whole(file.bytes),
        Serving::Page => Response::html(200, "<!DOCTYPE html><title>Вход</title>"),
        Serving::Empty => whole(Vec::new()),
        Serving::Endless => {
            let drip = futures_util::stream::repeat(Bytes::from(vec![b'0'; 64 * 1024]));
            Response { body: Body::Stream(Box::pin(drip)), ..whole(Vec::new()) }
        }
        Serving::Huge => whole(vec![b'0'; 101 * 1024 * 1024]),
        Serving::Elsewhere(url) => Response::redirect(302, url.clone()),
        Serving::Gone => gone(),
    })
}
