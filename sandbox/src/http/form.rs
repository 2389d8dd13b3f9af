//! PHP's form encoding, both ways: `http_build_query` for what the queue server posts, bracket-aware parsing for what a
//! portal receives. Source: bitrix24.md §4.3.

use crate::php::{Key, Php};

/// More nested keys than this are treated as one flat key, as `max_input_nesting_level` would cut them.
const DEPTH_MAX: usize = 64;

/// Builds a body in the order in which fields are added.
#[derive(Debug, Default)]
pub(crate) struct FormBody {
    text: String,
}

impl FormBody {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes) }
    }

    /// Adds one scalar under an already known path, e.g. `["document_id", "0"]`.
    pub(crate) fn put(&mut self, path: &[&str], value: &str) {
        if !self.text.is_empty() {
            self.text.push('&');
        }
        for (depth, part) in path.iter().enumerate() {
            if depth == 0 {
                encode(part, &mut self.text);
            } else {
                self.text.push_str("%5B");
                encode(part, &mut self.text);
                self.text.push_str("%5D");
            }
        }
        self.text.push('=');
        encode(value, &mut self.text);
    }

    pub(crate) fn put_int(&mut self, path: &[&str], value: i64) {
        self.put(path, &value.to_string());
    }

    /// Adds a whole value: lists get explicit indices, `null` and empty arrays vanish, booleans become `1` and `0`.
    pub(crate) fn put_value(&mut self, path: &mut Vec<String>, value: &Php) {
        if let Php::Array(entries) = value {
            for (key, inner) in entries {
                path.push(key.to_string());
                self.put_value(path, inner);
                path.pop();
            }
            return;
        }
        let scalar = match value {
            Php::Bool(flag) => if *flag { "1" } else { "0" }.to_owned(),
            Php::Null => return,
            other => other.text(),
        };
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        self.put(&parts, &scalar);
    }

    pub(crate) fn finish(self) -> String {
        self.text
    }
}

/// `urlencode` of PHP: letters, digits and `-_.` stay, a space becomes `+`.
pub(crate) fn encode(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => {
                out.push('%');
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
}

pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    encode(text, &mut out);
    out
}

/// Undoes percent and plus encoding; broken escapes stay as they are, invalid UTF-8 is replaced.
pub(crate) fn decode(text: &str) -> String {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'+' => out.push(b' '),
            b'%' => {
                let pair =
                    bytes.get(at + 1).and_then(|high| hex(*high)).zip(bytes.get(at + 2).and_then(|low| hex(*low)));
                if let Some((high, low)) = pair {
                    out.push(high * 16 + low);
                    at += 2;
                } else {
                    out.push(b'%');
                }
            }
            other => out.push(other),
        }
        at += 1;
    }
    String::from_utf8(out).unwrap_or_else(|broken| String::from_utf8_lossy(broken.as_bytes()).into_owned())
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Parses a query string or form body into a tree, with PHP's rules (later duplicates win, `a[]` appends).
pub(crate) fn parse(text: &str) -> Php {
    let mut tree = Php::Array(Vec::new());
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        insert(&mut tree, &decode(name), Php::Str(decode(value)));
    }
    tree
}

/// The pairs of a query string, without nesting.
pub(crate) fn pairs(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

fn insert(tree: &mut Php, name: &str, value: Php) {
    let (head, mut rest) = match name.find('[') {
        Some(at) if at > 0 => name.split_at(at),
        _ => (name, ""),
    };
    let mut slot = tree.entry(Key::from(head));
    let mut depth = 0;
    while let Some(inner) = rest.strip_prefix('[') {
        let Some(end) = inner.find(']') else { break };
        let key = &inner[..end];
        rest = &inner[end + 1..];
        depth += 1;
        if depth > DEPTH_MAX {
            break;
        }
        slot = if key.is_empty() { slot.push_slot() } else { slot.entry(Key::from(key)) };
    }
    *slot = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_what_http_build_query_builds() {
        let mut form = FormBody::default();
        form.put(&["event"], "ONAPPINSTALL");
        let data = Php::map([
            ("list", Php::list([Php::from("a b"), Php::from("c\n~|*")])),
            ("no", Php::Null),
            ("none", Php::Array(Vec::new())),
            ("yes", Php::Bool(true)),
            ("n", Php::Int(7)),
        ]);
        form.put_value(&mut vec!["data".to_owned()], &data);
        assert_eq!(
            form.finish(),
            "event=ONAPPINSTALL&data%5Blist%5D%5B0%5D=a+b&data%5Blist%5D%5B1%5D=c%0A%7E%7C%2A&data%5Byes%5D=1&data%5Bn%5D=7"
        );
    }

    #[test]
    fn parses_nesting_appending_and_duplicates() {
        let tree = parse("a%5Bb%5D%5B%5D=1&a[b][]=2&a[c]=x&x=1&x=2&select%5B%5D=ID&broken%=%zz&e");
        let at = |path: &[&str]| path.iter().try_fold(&tree, |value, key| value.get(key)).map(Php::text);
        assert_eq!(at(&["a", "b", "0"]).as_deref(), Some("1"));
        assert_eq!(at(&["a", "b", "1"]).as_deref(), Some("2"));
        assert_eq!(at(&["x"]).as_deref(), Some("2"));
        assert_eq!(at(&["broken%"]).as_deref(), Some("%zz"));
        assert_eq!(at(&["e"]).as_deref(), Some(""));
    }
}
