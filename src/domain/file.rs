//! Files that pass through us: which they are, what they may be, and what they are called.

use serde::{Deserialize, Serialize};

use super::ids::{CommandId, MessageId};

/// Largest file that passes through, in bytes: the most that messengers send and take.
pub const FILE_MAX: u64 = 100 * 1024 * 1024;

/// Which file.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileRef {
    /// The file of a message that the provider told us of.
    Message(MessageId),
    /// A file of an operator's message, by its place among them.
    Answer(CommandId, usize),
    /// A file that a CRM keeps: a [`super::crm_file::FileLink`] as it is written.
    Kept(String),
}

/// The name of a file for which the messenger names none: its kind with an ending that fits its type.
#[must_use]
pub fn name_of(kind: &str, mime: &str) -> String {
    let mime = mime.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let ending = match mime.as_str() {
        "image/jpeg" => "jpg",
        "image/png" => "png",
        "image/webp" => "webp",
        "image/gif" => "gif",
        "video/mp4" => "mp4",
        "video/3gpp" => "3gp",
        "video/webm" => "webm",
        "audio/ogg" => "ogg",
        "audio/mpeg" => "mp3",
        "audio/mp4" => "m4a",
        "audio/aac" => "aac",
        "audio/amr" => "amr",
        "application/pdf" => "pdf",
        "text/plain" => "txt",
        _ => "bin",
    };
    format!("{kind}.{ending}")
}

/// True for what is a page and no file: a sign-in form or an error that stands where a file should be.
#[must_use]
pub fn is_page(mime: &str, beginning: &[u8]) -> bool {
    const LOOK: usize = 256;
    let look = beginning.get(..LOOK).unwrap_or(beginning);
    let text = String::from_utf8_lossy(look).trim_start_matches('\u{feff}').trim_start().to_ascii_lowercase();
    mime == "text/html"
        || mime == "application/xhtml+xml"
        || text.starts_with("<!doctype html")
        || text.starts_with("<html")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_name_is_called_by_its_kind() {
        assert_eq!(name_of("voice", "audio/ogg; codecs=opus"), "voice.ogg");
        assert_eq!(name_of("document", ""), "document.bin");
    }

    #[test]
    fn pages_are_told_from_files() {
        assert!(is_page("text/html", b""));
        assert!(is_page("application/pdf", b"\xef\xbb\xbf \n<!DOCTYPE HTML><title>Sign in"));
        assert!(is_page("image/jpeg", b"<html lang=ru>"));
        assert!(!is_page("text/plain", b"<p>not a page</p>"));
        assert!(!is_page("image/png", b"\x89PNG\r\n"));
    }

    #[test]
    fn what_is_named_in_addresses_reads_back() {
        let kept = FileRef::Kept("crm:prt_1:-:disk:12/offer.pdf".to_owned());
        for file in [FileRef::Message(MessageId::new("1")), FileRef::Answer(CommandId::new("2"), 3), kept] {
            let text = serde_json::to_string(&file).unwrap();
            assert_eq!(serde_json::from_str::<FileRef>(&text).unwrap(), file);
        }
    }
}
