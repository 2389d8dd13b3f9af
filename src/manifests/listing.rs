//! What Bitrix24's partner cabinet asks for when an application is listed: the card's texts, rights with reasons,
//! addresses, pictures, and what has to be looked at before moderation (protocol reference, section "Marketplace listing
//! and policy", read 2026-11).

use super::{BITRIX24_ICON, Bitrix24App, Handlers, bitrix24};
use crate::domain::language::Language;
use crate::i18n;

/// The application's picture as the cabinet wants it: square, 250 to 650 pixels, without transparency.
const ICON_PNG: &[u8] = include_bytes!("../../connector-manifests/bitrix24/icon.png");
/// Sides of the icon, in pixels.
const ICON_SIDES: std::ops::RangeInclusive<u32> = 250..=650;
/// Largest screenshot, width and height in pixels.
const SHOT_MAX: (u32, u32) = (1280, 720);

/// Picture given from outside: its file name and content.
pub type Screenshot = (String, Vec<u8>);

/// One file of the folder: its path there, and its content.
pub type ListingFile = (String, Vec<u8>);

/// Texts of one language.
const fn texts(language: Language) -> (&'static str, &'static str) {
    match language {
        Language::Ru => (
            include_str!("../../connector-manifests/bitrix24/package/card.ru.md"),
            include_str!("../../connector-manifests/bitrix24/package/checklist.ru.md"),
        ),
        Language::En => (
            include_str!("../../connector-manifests/bitrix24/package/card.en.md"),
            include_str!("../../connector-manifests/bitrix24/package/checklist.en.md"),
        ),
    }
}

/// Everything that goes into the folder, for our application `{app}` at this public address.
///
/// # Errors
/// A text for the operator: a screenshot that the cabinet does not take.
pub fn files(app: &str, public_url: &str, screenshots: Vec<Screenshot>) -> Result<Vec<ListingFile>, String> {
    for (name, picture) in &screenshots {
        let fits = png(picture).is_some_and(|(width, height, _)| width <= SHOT_MAX.0 && height <= SHOT_MAX.1);
        if !fits {
            return Err(format!("{name}: a PNG of at most {} × {} pixels is expected", SHOT_MAX.0, SHOT_MAX.1));
        }
    }
    let manifest = bitrix24()?;
    let mut files =
        vec![("icon.png".to_owned(), ICON_PNG.to_vec()), ("icon.svg".to_owned(), BITRIX24_ICON.as_bytes().to_vec())];
    for language in Language::ALL {
        let (card, checklist) = texts(language);
        let checked = checks(language, &manifest, public_url, screenshots.len());
        let card = card
            .replace("{name}", manifest.name.of(language))
            .replace("{licence}", env!("CARGO_PKG_LICENSE"))
            .replace("{scopes}", &scopes(language, &manifest))
            .replace("{addresses}", &addresses(language, &manifest, app, public_url))
            .replace("{places}", &places(&manifest));
        files.push((format!("card.{}.md", language.code()), card.into_bytes()));
        files
            .push((format!("checklist.{}.md", language.code()), checklist.replace("{checked}", &checked).into_bytes()));
    }
    files.extend(screenshots.into_iter().map(|(name, picture)| (format!("screenshots/{name}"), picture)));
    Ok(files)
}

fn scopes(language: Language, manifest: &Bitrix24App) -> String {
    manifest.scopes.iter().map(|scope| format!("- `{}`: {}\n", scope.code, scope.reason.of(language))).collect()
}

fn addresses(language: Language, manifest: &Bitrix24App, app: &str, public_url: &str) -> String {
    let handlers = &manifest.handlers;
    let of = |key: &str, path: &str| {
        let address = Handlers::address(path, public_url, app, "");
        format!("- {}: {address}\n", i18n::text(language, &format!("package.{key}"), &[]))
    };
    [of("app", &handlers.app), of("install", &handlers.install), of("events", &handlers.events)].concat()
}

fn places(manifest: &Bitrix24App) -> String {
    let places = manifest.placements.iter().map(|place| place.code.as_str());
    let codes = places.chain(manifest.events.iter().map(|event| event.code.as_str()));
    codes.map(|code| format!("- `{code}`\n")).collect()
}

/// What could be looked at right here, done or still open.
fn checks(language: Language, manifest: &Bitrix24App, public_url: &str, screenshots: usize) -> String {
    let icon =
        png(ICON_PNG).is_some_and(|(width, height, opaque)| opaque && width == height && ICON_SIDES.contains(&width));
    let named = [&manifest.name.ru, &manifest.name.en].iter().all(|name| !name.to_lowercase().contains("bitrix"));
    let reasons = manifest.scopes.iter().all(|scope| !scope.reason.of(language).is_empty());
    let checks = [
        ("https", public_url.starts_with("https://")),
        ("icon", icon),
        ("name", named),
        ("reasons", reasons),
        ("screenshots", screenshots > 0),
    ];
    let line = |(key, done): &(&str, bool)| {
        let mark = if *done { "x" } else { " " };
        format!("- [{mark}] {}\n", i18n::text(language, &format!("package.{key}"), &[]))
    };
    checks.iter().map(line).collect()
}

/// Width and height of a PNG, and whether its kind of colours has no transparency; `None` for anything else.
fn png(bytes: &[u8]) -> Option<(u32, u32, bool)> {
    let header = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n")?.get(4..)?.strip_prefix(b"IHDR")?;
    let number = |from: usize| header.get(from..from + 4)?.try_into().ok().map(u32::from_be_bytes);
    let opaque = matches!(header.get(9)?, 0 | 2 | 3);
    Some((number(0)?, number(4)?, opaque))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(files: &[ListingFile], name: &str) -> String {
        let (_, content) = files.iter().find(|(known, _)| known == name).unwrap();
        String::from_utf8(content.clone()).unwrap()
    }

    #[test]
    fn the_folder_holds_what_the_cabinet_asks_for() {
        let shot = ("app-ru.png".to_owned(), ICON_PNG.to_vec());
        let files = files("main", "https://c.example/", vec![shot]).unwrap();
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["icon.png", "icon.svg", "card.ru.md", "card.en.md", "checklist.ru.md", "screenshots/app-ru.png"] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        for language in ["ru", "en"] {
            let card = text(&files, &format!("card.{language}.md"));
            let checklist = text(&files, &format!("checklist.{language}.md"));
            assert!(
                card.contains("https://c.example/bitrix24/main/install") && card.contains("`placement`: "),
                "{card}"
            );
            assert!(card.contains("Apache-2.0") && card.contains("CRM_DEAL_DETAIL_TAB"), "{card}");
            assert!(!card.contains("{}") && !card.contains("package."), "{card}");
            assert_eq!(checklist.matches("- [x]").count(), 5, "{checklist}");
        }
        assert!(!text(&files, "card.en.md").lines().next().unwrap().to_lowercase().contains("bitrix"));
    }

    #[test]
    fn what_is_open_is_left_open() {
        let files = files("main", "http://127.0.0.1:8080", vec![]).unwrap();
        let checklist = text(&files, "checklist.en.md");
        assert_eq!(checklist.matches("- [x]").count(), 3, "{checklist}");
        assert!(files.iter().all(|(name, _)| !name.starts_with("screenshots")));
    }

    #[test]
    fn pictures_the_cabinet_refuses_are_refused_here() {
        assert_eq!(png(ICON_PNG), Some((512, 512, true)));
        let mut large = ICON_PNG.to_vec();
        large[16..20].copy_from_slice(&1281_u32.to_be_bytes());
        for bad in [large, b"GIF89a".to_vec(), vec![]] {
            let said = files("main", "https://c.example", vec![("bad.png".to_owned(), bad)]).unwrap_err();
            assert!(said.starts_with("bad.png"), "{said}");
        }
    }
}
