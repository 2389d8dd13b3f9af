//! Texts for people, by key and language. The files are compiled in; a missing text fails a test, not a customer.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::domain::job::GivenUp;
use crate::domain::language::Language;
use crate::domain::outcome::ErrorCode;

type Texts = BTreeMap<String, String>;

static RU: LazyLock<Texts> = LazyLock::new(|| flatten(include_str!("i18n/ru.toml")));
static EN: LazyLock<Texts> = LazyLock::new(|| flatten(include_str!("i18n/en.toml")));

/// Text of `key` (`table.name`) in the language, with `{name}` places filled.
///
/// An unknown key gives the key itself: visible, harmless, and caught by the test that reads the sources.
#[must_use]
pub fn text(language: Language, key: &str, values: &[(&str, &str)]) -> String {
    let Some(pattern) = texts_of(language).get(key) else { return key.to_owned() };
    fill(pattern, values)
}

/// What a failure means, in one sentence, without advice.
#[must_use]
pub fn error(language: Language, code: ErrorCode, detail: &str) -> String {
    let sentence = text(language, &format!("error.{}", code.code()), &[]);
    if detail.is_empty() { sentence } else { format!("{sentence} ({detail})") }
}

/// Who must do what about it; empty when nothing can be done.
#[must_use]
pub fn advice(language: Language, code: ErrorCode) -> String {
    text(language, &format!("advice.{}", code.code()), &[])
}

/// Every text of a table, by name: for a page whose script says them.
#[must_use]
pub fn table(language: Language, table: &str) -> BTreeMap<String, String> {
    let texts = texts_of(language);
    let own = texts.iter().filter_map(|(key, text)| Some((key.strip_prefix(table)?.strip_prefix('.')?, text)));
    own.map(|(name, text)| (name.to_owned(), text.clone())).collect()
}

fn texts_of(language: Language) -> &'static Texts {
    match language {
        Language::Ru => &RU,
        Language::En => &EN,
    }
}

/// What kind of file a client sent, by the vendor's word for it.
#[must_use]
pub fn file_kind(language: Language, media: &str) -> String {
    let key = match media {
        "image" | "video" | "sticker" => media,
        "audio" | "voice" => "audio",
        _ => "document",
    };
    text(language, &format!("chat.{key}"), &[])
}

/// Why a job was given up and what redriving it means, by the reason stored with it.
#[must_use]
pub fn dead_letter(language: Language, stored: &str) -> String {
    let (reason, particulars) = GivenUp::read(stored);
    let sentence = text(language, &format!("dead.{}", reason.code()), &[]);
    if particulars.is_empty() { sentence } else { format!("{sentence} ({particulars})") }
}

/// Fills `{name}` places in one pass, so that a value can contain braces.
fn fill(pattern: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    while let Some(open) = rest.find('{') {
        let (before, from) = rest.split_at(open);
        out.push_str(before);
        let place = from.find('}').and_then(|close| Some((from.get(1..close)?, from.get(close + 1..)?)));
        match place.and_then(|(name, after)| Some((values.iter().find(|(key, _)| *key == name)?.1, after))) {
            Some((value, after)) => {
                out.push_str(value);
                rest = after;
            }
            None => {
                out.push('{');
                rest = from.get(1..).unwrap_or_default();
            }
        }
    }
    out.push_str(rest);
    out
}

fn flatten(source: &str) -> Texts {
    let mut texts = Texts::new();
    let Ok(tables) = source.parse::<toml::Table>() else { return texts };
    for (table, entries) in tables {
        let Some(entries) = entries.as_table() else { continue };
        for (name, value) in entries {
            if let Some(value) = value.as_str() {
                texts.insert(format!("{table}.{name}"), value.to_owned());
            }
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_have_the_same_keys_and_places() {
        assert!(!RU.is_empty());
        assert_eq!(RU.keys().collect::<Vec<_>>(), EN.keys().collect::<Vec<_>>());
        for (key, ru) in &*RU {
            assert_eq!(places(ru), places(&EN[key]), "{key}");
        }
    }

    #[test]
    fn every_error_has_a_sentence_and_an_advice_entry() {
        for code in ErrorCode::ALL {
            for language in Language::ALL {
                assert!(!error(language, code, "").starts_with("error."), "{code:?}");
                assert!(!advice(language, code).starts_with("advice."), "{code:?}");
            }
        }
    }

    #[test]
    fn every_sign_about_a_phone_has_its_sentence() {
        for sign in crate::domain::deed::PhoneSign::ALL {
            for language in Language::ALL {
                assert!(!text(language, &format!("deed.phone_{}", sign.code()), &[]).starts_with("deed."), "{sign:?}");
            }
        }
    }

    #[test]
    fn every_reason_of_a_dead_letter_has_its_sentence() {
        for reason in GivenUp::ALL {
            for language in Language::ALL {
                let words = dead_letter(language, &reason.with("131000"));
                assert!(!words.starts_with("dead.") && words.ends_with(" (131000)"), "{words}");
            }
        }
    }

    #[test]
    fn the_manual_of_robots_lists_every_error_code_in_these_words() {
        let manual = include_str!("../docs/ROBOTS.md");
        let listed: Vec<&str> = manual.lines().filter(|line| line.starts_with("| `")).collect();
        let errors = manual.split("## `error_code`\n").nth(1).unwrap();
        for language in Language::ALL {
            for code in ErrorCode::ALL {
                let row = format!("| `{}` | {} | {} |", code.code(), error(language, code, ""), advice(language, code));
                assert!(listed.contains(&row.as_str()), "docs/ROBOTS.md lacks: {row}");
            }
        }
        let rows = errors.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, ErrorCode::ALL.len() * Language::ALL.len(), "docs/ROBOTS.md lists a code that is none");
    }

    #[test]
    fn values_with_braces_are_not_filled_again() {
        assert_eq!(fill("{a} and {b} {c}", &[("a", "{b}"), ("b", "x")]), "{b} and x {c}");
    }

    fn places(pattern: &str) -> Vec<&str> {
        let mut found: Vec<&str> =
            pattern.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(name, _)| name).collect();
        found.sort_unstable();
        found
    }
}
