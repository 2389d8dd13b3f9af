//! JSON text as PHP and Meta write it: everything outside ASCII as lowercase `\uXXXX`, and `/` as `\/`.
//!
//! Source: whatsapp-cloud.md §5.2, bitrix24.md §1.3 (notes).

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};

struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut plain_from = 0;
        for (at, symbol) in fragment.char_indices() {
            if symbol != '/' && symbol.is_ascii() {
                continue;
            }
            writer.write_all(&fragment.as_bytes()[plain_from..at])?;
            plain_from = at + symbol.len_utf8();
            if symbol == '/' {
                writer.write_all(b"\\/")?;
                continue;
            }
            let mut units = [0_u16; 2];
            for unit in symbol.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        writer.write_all(&fragment.as_bytes()[plain_from..])
    }
}

/// Serializes with the escapes above; the bytes are what a signature must cover.
pub(crate) fn escaped<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Escaping);
    if let Err(error) = value.serialize(&mut serializer) {
        tracing::error!(%error, "sandbox could not serialize an answer");
    }
    out
}

/// Serializes plainly.
pub(crate) fn plain<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, CompactFormatter);
    if let Err(error) = value.serialize(&mut serializer) {
        tracing::error!(%error, "sandbox could not serialize an answer");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_like_the_vendors_do() {
        let text = String::from_utf8(escaped(&serde_json::json!({"note": "Привет 👍 \"a/b\"\n"}))).unwrap();
        assert_eq!(text, r#"{"note":"\u041f\u0440\u0438\u0432\u0435\u0442 \ud83d\udc4d \"a\/b\"\n"}"#);
    }
}
