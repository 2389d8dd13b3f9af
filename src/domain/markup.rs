//! Text with formatting, between the markup of CRMs and that of messengers.
//!
//! Kept as runs of equally styled text: that can be cut anywhere, and each part is written with marks of its own. What a
//! messenger has no mark for is left as plain text; nothing that was written is lost.

use serde::{Deserialize, Serialize};

use super::channel::Messenger;

/// How a run looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Style {
    /// Bold.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub bold: bool,
    /// Italic.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub italic: bool,
    /// Struck out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub strike: bool,
    /// Program text; has no other marks inside.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub code: bool,
    /// A quotation: its lines stand behind `> `.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub quote: bool,
}

/// Text of one style.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    /// The text; lines end with `\n`.
    pub text: String,
    /// How it looks.
    #[serde(default)]
    pub style: Style,
}

/// Text with formatting.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Markup(Vec<Run>);

/// Whether a style has a certain look.
type Has = fn(&Style) -> bool;

/// One character with its style.
type Letter = (char, Style);

impl Markup {
    /// Adds text; equal neighbours become one run.
    pub fn push(&mut self, text: &str, style: Style) {
        if text.is_empty() {
            return;
        }
        match self.0.last_mut() {
            Some(last) if last.style == style => last.text.push_str(text),
            Some(_) | None => self.0.push(Run { text: text.to_owned(), style }),
        }
    }

    /// The text without its formatting.
    #[must_use]
    pub fn plain(&self) -> String {
        self.0.iter().map(|run| run.text.as_str()).collect()
    }

    /// True when there is nothing to read.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.0.iter().all(|run| run.text.trim().is_empty())
    }

    /// The text in the messenger's own markup.
    #[must_use]
    pub fn render(&self, messenger: Messenger) -> String {
        render(&self.letters(), messenger)
    }

    /// The text in the messenger's own markup, in parts of at most `max` characters: cut between paragraphs, lines,
    /// sentences or words, as large as they fit. Nothing but the white space at the cuts is lost.
    #[must_use]
    pub fn split(&self, messenger: Messenger, max: usize) -> Vec<String> {
        let letters = self.letters();
        let mut rest = trim(&letters);
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let mut room = max.min(rest.len()).max(1);
            // Marks take room too: what they take too much is taken off the text.
            let (end, part) = loop {
                let end = if room >= rest.len() { rest.len() } else { cut(rest, room) };
                let part = render(trim(rest.get(..end).unwrap_or(rest)), messenger);
                let length = part.chars().count();
                if length <= max || room == 1 {
                    break (end, part);
                }
                room = room.saturating_sub(length - max).max(1);
            };
            parts.push(part);
            rest = trim(rest.get(end..).unwrap_or_default());
        }
        parts
    }

    fn letters(&self) -> Vec<Letter> {
        self.0.iter().flat_map(|run| run.text.chars().map(|letter| (letter, run.style))).collect()
    }
}

fn trim(letters: &[Letter]) -> &[Letter] {
    let solid = |(letter, _): &Letter| !letter.is_whitespace();
    let Some(first) = letters.iter().position(solid) else { return &[] };
    let last = letters.iter().rposition(solid).map_or(letters.len(), |last| last + 1);
    letters.get(first..last).unwrap_or_default()
}

/// Where a text that does not fit is cut: in its second half if there is a good place, otherwise in the first, and inside
/// a word only when that fills the whole part.
fn cut(letters: &[Letter], room: usize) -> usize {
    let at = |index: usize| letters.get(index).map_or(' ', |letter| letter.0);
    let paragraph = |end: usize| at(end) == '\n' && at(end + 1) == '\n';
    let line = |end: usize| at(end) == '\n';
    let sentence = |end: usize| at(end).is_whitespace() && end > 0 && matches!(at(end - 1), '.' | '!' | '?' | '…');
    let word = |end: usize| at(end).is_whitespace();
    let half = room / 2;
    let last = |from: usize, good: &dyn Fn(usize) -> bool| (from.max(1)..=room).rev().find(|end| good(*end));
    last(half, &paragraph)
        .or_else(|| last(half, &line))
        .or_else(|| last(half, &sentence))
        .or_else(|| last(1, &word))
        .unwrap_or(room)
}

/// The marks of a messenger; `None` where it has none.
struct Marks {
    bold: Option<&'static str>,
    italic: Option<&'static str>,
    strike: Option<&'static str>,
    code: Option<&'static str>,
    quote: Option<&'static str>,
}

fn marks(messenger: Messenger) -> Marks {
    match messenger {
        Messenger::Whatsapp => {
            Marks { bold: Some("*"), italic: Some("_"), strike: Some("~"), code: Some("```"), quote: Some("> ") }
        }
        Messenger::Telegram | Messenger::Max | Messenger::Vk | Messenger::Avito | Messenger::Email | Messenger::Sms => {
            Marks { bold: None, italic: None, strike: None, code: None, quote: Some("> ") }
        }
    }
}

fn render(letters: &[Letter], messenger: Messenger) -> String {
    let marks = marks(messenger);
    let mut out = String::with_capacity(letters.len() + 16);
    let mut rest = letters;
    while let Some((_, first)) = rest.first() {
        // Program text is one piece over its lines; everything else is marked line by line.
        let same = rest.iter().take_while(|(_, style)| style.code == first.code).count();
        let (piece, after) = rest.split_at(same);
        match marks.code.filter(|_| first.code) {
            Some(mark) => {
                out.push_str(mark);
                out.extend(piece.iter().map(|(letter, _)| *letter));
                out.push_str(mark);
            }
            None => render_lines(piece, &marks, &mut out),
        }
        rest = after;
    }
    out
}

fn render_lines(letters: &[Letter], marks: &Marks, out: &mut String) {
    for (index, line) in letters.split(|(letter, _)| *letter == '\n').enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let begins = out.is_empty() || out.ends_with('\n');
        if let Some(mark) = marks.quote.filter(|_| begins && line.first().is_some_and(|(_, style)| style.quote)) {
            out.push_str(mark);
        }
        render_line(line, marks, out);
    }
}

/// Messengers know a mark only at the edge of a word, so a style that begins or ends inside one is left out, and white
/// space at its edges stands outside.
fn render_line(line: &[Letter], marks: &Marks, out: &mut String) {
    let mut opening: Vec<Vec<(usize, &str)>> = vec![Vec::new(); line.len() + 1];
    let mut closing: Vec<Vec<(usize, &str)>> = vec![Vec::new(); line.len() + 1];
    let kinds: [(Option<&'static str>, Has); 3] =
        [(marks.bold, |style| style.bold), (marks.italic, |style| style.italic), (marks.strike, |style| style.strike)];
    for (mark, has) in kinds {
        let Some(mark) = mark else { continue };
        for (start, end) in stretches(line, has) {
            if let Some(place) = opening.get_mut(start) {
                place.push((end - start, mark));
            }
            if let Some(place) = closing.get_mut(end) {
                place.push((end - start, mark));
            }
        }
    }
    for index in 0..=line.len() {
        // The longer one stands outside; of equal ones, the first opened is closed last.
        if let Some(place) = closing.get_mut(index) {
            place.reverse();
            place.sort_by_key(|(length, _)| *length);
            out.extend(place.iter().map(|(_, mark)| *mark));
        }
        if let Some(place) = opening.get_mut(index) {
            place.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
            out.extend(place.iter().map(|(_, mark)| *mark));
        }
        out.extend(line.get(index).map(|(letter, _)| *letter));
    }
}

/// From where to where a style goes, without the white space at its edges and without what begins or ends in a word.
fn stretches(line: &[Letter], has: Has) -> Vec<(usize, usize)> {
    let in_word = |index: Option<usize>| {
        index.and_then(|index| line.get(index)).is_some_and(|(letter, _)| letter.is_alphanumeric())
    };
    let mut found = Vec::new();
    let mut at = 0;
    while at < line.len() {
        let length = line.iter().skip(at).take_while(|(_, style)| has(style)).count();
        let piece = line.get(at..at + length).unwrap_or_default();
        let solid = |(letter, _): &Letter| !letter.is_whitespace();
        if let (Some(first), Some(last)) = (piece.iter().position(solid), piece.iter().rposition(solid)) {
            let (start, end) = (at + first, at + last + 1);
            let cuts = (in_word(start.checked_sub(1)) && in_word(Some(start)))
                || (in_word(Some(end)) && in_word(end.checked_sub(1)));
            if !cuts {
                found.push((start, end));
            }
        }
        at += length.max(1);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOLD: Style = Style { bold: true, italic: false, strike: false, code: false, quote: false };

    fn markup(runs: &[(&str, Style)]) -> Markup {
        let mut markup = Markup::default();
        runs.iter().for_each(|(text, style)| markup.push(text, *style));
        markup
    }

    fn whatsapp(runs: &[(&str, Style)]) -> String {
        markup(runs).render(Messenger::Whatsapp)
    }

    #[test]
    fn marks_stand_at_the_edges_of_words_and_never_span_lines() {
        let plain = Style::default();
        let italic = Style { italic: true, ..plain };
        let both = Style { bold: true, italic: true, ..plain };
        assert_eq!(whatsapp(&[("Да, ", plain), ("два ", BOLD), ("осталось", plain)]), "Да, *два* осталось");
        assert_eq!(whatsapp(&[("a\nb", BOLD)]), "*a*\n*b*");
        assert_eq!(whatsapp(&[("x", both)]), "*_x_*");
        assert_eq!(whatsapp(&[("d", both), (" e", italic)]), "_*d* e_");
        assert_eq!(whatsapp(&[("a ", BOLD), ("b", both), (" c", BOLD)]), "*a _b_ c*");
        assert_eq!(whatsapp(&[("сло", BOLD), ("во", plain)]), "слово", "inside a word there is no mark");
        assert_eq!(whatsapp(&[(" \n ", BOLD)]), " \n ");
        let strike = Style { strike: true, ..plain };
        assert_eq!(whatsapp(&[("10", strike), (" 8", plain)]), "~10~ 8");
        assert_eq!(markup(&[("10", strike)]).render(Messenger::Vk), "10");
    }

    #[test]
    fn program_text_and_quotations() {
        let plain = Style::default();
        let (code, quote) = (Style { code: true, ..plain }, Style { quote: true, ..plain });
        assert_eq!(whatsapp(&[("try ", plain), ("a\nb", code)]), "try ```a\nb```");
        assert_eq!(whatsapp(&[("one\ntwo\n", quote), ("three", plain)]), "> one\n> two\nthree");
    }

    #[test]
    fn long_texts_are_cut_at_good_places_and_nothing_is_lost() {
        let text = "Первый абзац.\n\nВторой абзац, подлиннее. Третья фраза? Да";
        let parts = markup(&[(text, Style::default())]).split(Messenger::Whatsapp, 26);
        assert_eq!(parts, ["Первый абзац.", "Второй абзац, подлиннее.", "Третья фраза? Да"]);
        let words = "слово ".repeat(1000);
        let parts = markup(&[(&words, BOLD)]).split(Messenger::Whatsapp, 100);
        assert!(parts.iter().all(|part| part.chars().count() <= 100 && part.starts_with('*') && part.ends_with('*')));
        let again: Vec<String> = parts.iter().map(|part| part.trim_matches('*').to_owned()).collect();
        assert_eq!(again.join(" "), words.trim());
        let solid = "x".repeat(250);
        let parts = markup(&[(&solid, Style::default())]).split(Messenger::Whatsapp, 100);
        assert_eq!(parts.concat(), solid);
        assert_eq!(parts.len(), 3);
        assert!(markup(&[(" \n", BOLD)]).split(Messenger::Whatsapp, 100).is_empty());
    }
}
