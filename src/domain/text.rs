//! What happens to a text between the CRM and the messenger: placeholders, variants, excerpts.

use serde::{Deserialize, Serialize};

/// Why a text cannot be sent as it stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TextProblem {
    /// The CRM left a placeholder unfilled; the text of the placeholder, cut to 40 characters.
    Unresolved(String),
}

/// Finds a placeholder that the CRM should have filled in: `{{Name}}` or `{=Document:TITLE}`.
#[must_use]
pub fn find_unresolved(text: &str) -> Option<String> {
    let cut = |start: usize| text.get(start..).unwrap_or_default().chars().take(40).collect::<String>();
    let braces =
        text.match_indices("{{").map(|(at, _)| at).find(|at| text.get(*at..).is_some_and(|t| t.contains("}}")));
    let document =
        text.match_indices("{=").map(|(at, _)| at).find(|at| text.get(*at..).is_some_and(|t| t.contains('}')));
    match (braces, document) {
        (Some(a), Some(b)) => Some(cut(a.min(b))),
        (Some(a), None) => Some(cut(a)),
        (None, Some(b)) => Some(cut(b)),
        (None, None) => None,
    }
}

/// Picks one variant of every `{Hello|Hi|Good day}`; `\{`, `\}` and `\|` stand for the bare sign.
///
/// Braces without a bar are ordinary text. `seed` decides the choice, so that the same message always reads the same,
/// whatever is retried. Groups do not nest: an inner brace makes the outer one ordinary text.
#[must_use]
pub fn pick_variants(text: &str, seed: u64) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut group: u64 = 0;
    while let Some(at) = rest.find(['{', '\\']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        if let Some(escaped) = from.strip_prefix('\\') {
            match escaped.chars().next() {
                Some(sign @ ('{' | '}' | '|')) => {
                    out.push(sign);
                    rest = escaped.get(sign.len_utf8()..).unwrap_or_default();
                }
                _ => {
                    out.push('\\');
                    rest = escaped;
                }
            }
            continue;
        }
        match read_group(from) {
            Some((variants, after)) => {
                group += 1;
                let pick = usize::try_from(mix(seed, group) % variants.len() as u64).unwrap_or(0);
                out.push_str(variants.get(pick).map_or("", String::as_str));
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

/// Reads `{a|b}` at the start of `text`; `None` if there is no closed group with a bar and without inner braces.
fn read_group(text: &str) -> Option<(Vec<String>, &str)> {
    let mut variants = vec![String::new()];
    let mut chars = text.char_indices().skip(1);
    while let Some((at, sign)) = chars.next() {
        match sign {
            '\\' => match chars.next() {
                Some((_, escaped @ ('{' | '}' | '|'))) => variants.last_mut()?.push(escaped),
                Some((_, other)) => variants.last_mut()?.extend(['\\', other]),
                None => return None,
            },
            '{' => return None,
            '|' => variants.push(String::new()),
            '}' if variants.len() > 1 => return Some((variants, text.get(at + 1..).unwrap_or_default())),
            '}' => return None,
            other => variants.last_mut()?.push(other),
        }
    }
    None
}

/// Spreads seed and group number over 64 bits (the finaliser of SplitMix64).
fn mix(seed: u64, group: u64) -> u64 {
    let mut x = seed ^ group.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// A stable number made of text, for [`pick_variants`] (FNV-1a, 64 bits).
#[must_use]
pub fn seed_of(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The beginning of a text on one line, at most `max` characters, with `…` where it was cut.
#[must_use]
pub fn excerpt(text: &str, max: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= max {
        return line;
    }
    let cut: String = line.chars().take(max.saturating_sub(1)).collect();
    format!("{}…", cut.trim_end())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unresolved_placeholders_are_found() {
        assert_eq!(find_unresolved("Hi {{Name}}!").as_deref(), Some("{{Name}}!"));
        assert_eq!(find_unresolved("Deal {=Document:TITLE}").as_deref(), Some("{=Document:TITLE}"));
        assert_eq!(find_unresolved("{Hello|Hi} {name} {="), None);
        assert_eq!(find_unresolved("a } {{ b"), None);
    }

    #[test]
    fn a_variant_is_picked_and_stays() {
        let text = "{Hello|Hi|Good day}, Ada {and|&} Bob";
        let first = pick_variants(text, 7);
        assert_eq!(first, pick_variants(text, 7));
        assert!(["Hello", "Hi", "Good day"].iter().any(|w| first.starts_with(w)), "{first}");
        let seen: std::collections::BTreeSet<_> = (0..200).map(|seed| pick_variants("{a|b|c}", seed)).collect();
        assert_eq!(seen.len(), 3);
    }

    #[test]
    fn escapes_and_plain_braces_stay_text() {
        assert_eq!(pick_variants(r"\{a|b\}", 1), "{a|b}");
        assert_eq!(pick_variants("{one}", 1), "{one}");
        assert_eq!(pick_variants("{open|never", 1), "{open|never");
        assert_eq!(pick_variants(r"C:\dir", 1), r"C:\dir");
        assert_eq!(pick_variants(r"{a\|b|a\|b}", 1), "a|b");
    }

    #[test]
    fn excerpt_is_one_line() {
        assert_eq!(excerpt("a\n b\t c", 20), "a b c");
        assert_eq!(excerpt("абвгдежз", 5), "абвг…");
    }

    proptest! {
        #[test]
        fn variants_never_panic_and_never_grow(text in "\\PC{0,60}", seed: u64) {
            prop_assert!(pick_variants(&text, seed).len() <= text.len());
        }
    }
}
