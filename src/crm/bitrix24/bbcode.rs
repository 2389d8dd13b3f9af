//! What operators write: BBCode of the portal's chats to text with formatting (protocol reference, section "Outgoing
//! events", and the table of channel formatting; read 2026-11).
//!
//! Tags nest; one that is never closed reaches to the end, one that was never opened is left out, and the text inside a
//! tag we do not know is kept. Only names that the portal is known to write count as tags, so that `[1]` and `[sic]` stay.

use crate::domain::markup::{Markup, Style};

/// Tags without a look of their own: their text is kept.
const PLAIN: &[&str] = &[
    "u",
    "size",
    "color",
    "font",
    "send",
    "put",
    "call",
    "timestamp",
    "user",
    "chat",
    "context",
    "left",
    "right",
    "center",
    "justify",
    "attach",
    "rating",
    "dialog",
];

/// Tags that change how text looks, links, and lists.
const STYLED: &[&str] = &["b", "i", "s", "code", "quote", "url", "list", "img", "icon", "disk"];

/// A tag that stands open.
struct Open {
    name: String,
    before: Style,
    /// Address of a link, with the place in the plain text where its words begin.
    link: Option<(String, usize)>,
}

/// Reads a text of a chat.
pub(super) fn parse(text: &str) -> Markup {
    let text = text.replace("\r\n", "\n").replace("#BR#", "\n");
    let mut reader = Reader { markup: Markup::default(), length: 0, style: Style::default(), open: Vec::new() };
    let mut rest = text.as_str();
    while let Some(at) = rest.find('[') {
        let (before, tag) = rest.split_at(at);
        reader.words(before);
        match read_tag(tag) {
            Some((name, value, closes, after)) => {
                reader.tag(&name, value, closes);
                rest = after;
            }
            None => {
                reader.words("[");
                rest = tag.get(1..).unwrap_or_default();
            }
        }
    }
    reader.words(rest);
    reader.end()
}

/// Name in lower case, value, whether it closes, and the text behind; `None` when it is no tag.
fn read_tag(text: &str) -> Option<(String, &str, bool, &str)> {
    let inner = text.strip_prefix('[')?;
    let (inside, after) = inner.split_once(']')?;
    let (closes, inside) = inside.strip_prefix('/').map_or((false, inside), |inside| (true, inside));
    let (name, value) = inside.split_once('=').unwrap_or((inside, ""));
    let name = name.trim().to_ascii_lowercase();
    let known =
        matches!(name.as_str(), "br" | "*") || PLAIN.contains(&name.as_str()) || STYLED.contains(&name.as_str());
    known.then_some((name, value.trim().trim_matches('"'), closes, after))
}

struct Reader {
    markup: Markup,
    /// Bytes of text so far.
    length: usize,
    style: Style,
    open: Vec<Open>,
}

impl Reader {
    fn words(&mut self, text: &str) {
        self.length += text.len();
        self.markup.push(text, self.style);
    }

    fn new_line(&mut self) {
        if self.length > 0 && !self.markup.plain().ends_with('\n') {
            self.words("\n");
        }
    }

    fn tag(&mut self, name: &str, value: &str, closes: bool) {
        match name {
            "br" => return self.words("\n"),
            "*" => {
                self.new_line();
                return self.words("• ");
            }
            "icon" => return,
            _ => {}
        }
        if closes {
            return self.close(name);
        }
        let before = self.style;
        match name {
            "b" => self.style.bold = true,
            "i" => self.style.italic = true,
            "s" => self.style.strike = true,
            "code" => self.style.code = true,
            "quote" => {
                self.new_line();
                self.style.quote = true;
            }
            _ => {}
        }
        // An address stands behind its words, unless the words are the address.
        let link = (name == "url" && !value.is_empty()).then(|| (value.to_owned(), self.length));
        self.open.push(Open { name: name.to_owned(), before, link });
    }

    /// Closes the innermost tag of this name, and with it what was opened inside.
    fn close(&mut self, name: &str) {
        let Some(at) = self.open.iter().rposition(|open| open.name == name) else { return };
        let inside = self.open.split_off(at);
        for open in inside.into_iter().rev() {
            self.end_of(open);
        }
    }

    fn end_of(&mut self, open: Open) {
        if let Some((address, from)) = open.link {
            let plain = self.markup.plain();
            let words = plain.get(from..).unwrap_or_default().trim();
            if words.is_empty() {
                self.words(&address);
            } else if words != address {
                let address = format!(" ({address})");
                self.words(&address);
            }
        }
        self.style = open.before;
        if matches!(open.name.as_str(), "quote" | "list") {
            self.new_line();
        }
    }

    fn end(mut self) -> Markup {
        while let Some(open) = self.open.pop() {
            self.end_of(open);
        }
        self.markup
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::channel::Messenger;

    fn whatsapp(text: &str) -> String {
        parse(text).render(Messenger::Whatsapp)
    }

    #[test]
    fn the_table_of_formatting() {
        for (bbcode, expected) in [
            ("[b]x[/b] [i]y[/i] [u]z[/u] [s]w[/s]", "*x* _y_ z ~w~"),
            ("[url]https://a.example[/url]", "https://a.example"),
            ("[url=https://a.example]цены[/url]", "цены (https://a.example)"),
            ("[URL=https://a.example]https://a.example[/URL]", "https://a.example"),
            ("[code]a=1[/code]", "```a=1```"),
            ("[quote]раз\nдва[/quote]ответ", "> раз\n> два\nответ"),
            ("a[br]b#BR#c\r\nd", "a\nb\nc\nd"),
            ("Есть:[list][*]раз[*]два[/list]", "Есть:\n• раз\n• два\n"),
            ("[user=12]Анна[/user] и [chat=5]Отдел[/chat]", "Анна и Отдел"),
            ("[size=20][color=#f00]красное[/color][/size]", "красное"),
            ("[send=/help]Помощь[/send]", "Помощь"),
            ("[icon=https://x/y.png]смайл", "смайл"),
        ] {
            assert_eq!(whatsapp(bbcode), expected, "{bbcode}");
        }
    }

    #[test]
    fn what_is_no_tag_stays_and_broken_nesting_loses_nothing() {
        assert_eq!(whatsapp("см. [1] и [sic] [b"), "см. [1] и [sic] [b");
        assert_eq!(whatsapp("[b]раз [i]два[/b] три"), "*раз _два_* три");
        assert_eq!(whatsapp("[b]до конца"), "*до конца*");
        assert_eq!(whatsapp("[/b]ничего"), "ничего");
        assert!(parse("[b] [br][/b]").is_blank());
    }
}
