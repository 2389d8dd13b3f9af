//! Media: upload, address, download, and the table of allowed kinds. Source: §4.
//!
//! Content is kept in memory and bounded; codecs and pixels are not looked at.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::{clock::Millis, ids::Ids};

const FILES_KEPT: usize = 2_000;
const UPLOAD_LIFE_MS: i64 = 30 * 86_400_000;
const INBOUND_LIFE_MS: i64 = 7 * 86_400_000;
const ADDRESS_LIFE_MS: i64 = 5 * 60_000;

/// Where a file came from; decides how long its id lives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    Uploaded,
    Inbound,
}

pub(crate) struct File {
    pub(crate) number: String,
    pub(crate) mime: String,
    pub(crate) bytes: Bytes,
    expires_ms: Millis,
}

impl File {
    pub(crate) fn sha256_hex(&self) -> String {
        Sha256::digest(&self.bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[derive(Default)]
pub(crate) struct Store {
    files: HashMap<String, File>,
    order: VecDeque<String>,
    /// Download keys: media id and end of life.
    addresses: HashMap<String, (String, Millis)>,
    address_order: VecDeque<String>,
}

impl Store {
    pub(crate) fn put(&mut self, id: &str, number: &str, mime: &str, bytes: Vec<u8>, now: Millis, origin: Origin) {
        let life = match origin {
            Origin::Uploaded => UPLOAD_LIFE_MS,
            Origin::Inbound => INBOUND_LIFE_MS,
        };
        let file = File { number: number.into(), mime: mime.into(), bytes: bytes.into(), expires_ms: now + life };
        self.files.insert(id.to_owned(), file);
        self.order.push_back(id.to_owned());
        if self.order.len() > FILES_KEPT
            && let Some(old) = self.order.pop_front()
        {
            self.files.remove(&old);
        }
    }

    pub(crate) fn get(&self, id: &str, now: Millis) -> Option<&File> {
        self.files.get(id).filter(|file| file.expires_ms > now)
    }

    /// Business number that may use this id.
    pub(crate) fn owner(&self, id: &str, now: Millis) -> Option<String> {
        self.get(id, now).map(|file| file.number.clone())
    }

    pub(crate) fn remove(&mut self, id: &str) -> bool {
        self.files.remove(id).is_some()
    }

    /// A fresh address, good for five minutes.
    pub(crate) fn address(&mut self, base: &str, id: &str, ids: &Ids, now: Millis) -> String {
        let key = ids.hex(32);
        self.addresses.insert(key.clone(), (id.to_owned(), now + ADDRESS_LIFE_MS));
        self.address_order.push_back(key.clone());
        if self.address_order.len() > FILES_KEPT
            && let Some(old) = self.address_order.pop_front()
        {
            self.addresses.remove(&old);
        }
        format!("{base}/whatsapp_business/attachments/?mid={id}&ext={}&hash={key}", now / 1000 + 300)
    }

    pub(crate) fn by_address(&self, key: &str, now: Millis) -> Option<&File> {
        let (id, until) = self.addresses.get(key)?;
        if *until > now { self.get(id, now) } else { None }
    }
}

/// The table of §4: MIME type and size by kind.
pub(crate) fn check(kind: &str, mime: &str, size: usize) -> Result<(), String> {
    const MIB: usize = 1024 * 1024;
    let mime = mime.split(';').next().unwrap_or("").trim();
    let (types, limit): (&[&str], usize) = match kind {
        "image" => (&["image/jpeg", "image/png"], 5 * MIB),
        "video" => (&["video/mp4", "video/3gpp"], 16 * MIB),
        "audio" => (&["audio/aac", "audio/amr", "audio/mpeg", "audio/mp4", "audio/ogg"], 16 * MIB),
        "sticker" => (&["image/webp"], 500 * 1024),
        _ => (&[], 100 * MIB),
    };
    if !types.is_empty() && !types.contains(&mime) {
        return Err(format!("Unsupported {kind} mime type {mime}. Please use one of {}.", types.join(", ")));
    }
    if size > limit {
        return Err(format!("{kind} is too large: {size} of at most {limit} bytes"));
    }
    Ok(())
}

/// Kind that an upload of this type can be used as; `None` = not accepted at all.
pub(crate) fn kind_of(mime: &str) -> &'static str {
    let mime = mime.split(';').next().unwrap_or("").trim();
    ["image", "video", "audio", "sticker"].into_iter().find(|kind| check(kind, mime, 0).is_ok()).unwrap_or("document")
}

/// One part of a multipart form.
pub(crate) struct Part<'a> {
    pub(crate) name: String,
    pub(crate) mime: String,
    pub(crate) content: &'a [u8],
}

/// Splits `multipart/form-data`; enough for what clients send here.
pub(crate) fn parts<'a>(content_type: &str, body: &'a [u8]) -> Option<Vec<Part<'a>>> {
    let boundary = content_type.split("boundary=").nth(1)?.split(';').next()?.trim().trim_matches('"');
    let mark = format!("--{boundary}");
    let mut found = Vec::new();
    let mut rest = &body[find(body, mark.as_bytes())? + mark.len()..];
    while !rest.starts_with(b"--") {
        let end = find(rest, format!("\r\n{mark}").as_bytes())?;
        let part = rest.get(2..end)?;
        let split = find(part, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&part[..split]).into_owned();
        let header = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let disposition = header("content-disposition");
        let name = disposition.split("name=\"").nth(1).and_then(|text| text.split('"').next()).unwrap_or("");
        found.push(Part { name: name.to_owned(), mime: header("content-type"), content: &part[split + 4..] });
        rest = &rest[end + 2 + mark.len()..];
    }
    Some(found)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multipart_is_split() {
        let body = b"--B\r\nContent-Disposition: form-data; name=\"type\"\r\n\r\nimage/png\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n\r\n--B--\r\n";
        let parts = parts("multipart/form-data; boundary=B", body).unwrap();
        assert_eq!(parts.len(), 2);
        assert_eq!((parts[0].name.as_str(), parts[0].content), ("type", &b"image/png"[..]));
        assert_eq!((parts[1].mime.as_str(), parts[1].content), ("image/png", &b"\x89PNG\r\n"[..]));
    }
}
