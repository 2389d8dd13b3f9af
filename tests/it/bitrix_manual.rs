//! `docs/BITRIX24.md` says which methods, events and places are used, and which test covers each. Held against the sources
//! of the service, of the simulated portal and of the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::house::{code, sources};

const MANUAL: &str = include_str!("../../docs/BITRIX24.md");
const MANIFEST: &str = include_str!("../../connector-manifests/bitrix24/app.toml");
const SIMULATED: &str = include_str!("../../sandbox/src/bitrix24/table.rs");
/// First words of the methods that concern us.
const FAMILIES: [&str; 11] = [
    "app",
    "bizproc",
    "crm",
    "disk",
    "event",
    "im",
    "imconnector",
    "imopenlines",
    "messageservice",
    "placement",
    "user",
];
/// A metric's or span's name that looks like a method.
const NOT_METHODS: [&str; 1] = ["crm.call"];

/// Rows of one table: what each is used for, and the test that covers it; both are empty for what is not used.
fn rows(section: &str) -> BTreeMap<String, (String, String)> {
    let text = MANUAL.split(&format!("## {section}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, purpose, test] = cells.as_slice() else { panic!("{line}") };
        let (purpose, test) = (purpose.trim_matches('–').to_owned(), test.trim_matches('`').to_owned());
        assert_eq!(purpose.is_empty(), test.is_empty(), "used and not covered, or covered and not used: {line}");
        let known = rows.insert(name.trim_matches('`').to_owned(), (purpose, test));
        assert!(known.is_none(), "{line} stands there twice");
    }
    assert!(!rows.is_empty(), "{section}");
    rows
}

fn used(rows: &BTreeMap<String, (String, String)>) -> BTreeSet<String> {
    rows.iter().filter(|(_, (purpose, _))| !purpose.is_empty()).map(|(name, _)| name.clone()).collect()
}

/// Words in quotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}

/// Methods that the service names in its code.
fn called() -> BTreeSet<String> {
    let is_word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_method = |word: &&str| {
        let parts: Vec<&str> = word.split('.').collect();
        parts.len() > 1 && parts.iter().all(|part| is_word(part)) && FAMILIES.contains(&parts[0])
    };
    let mut found = BTreeSet::from(["batch", "profile", "scope"].map(str::to_owned));
    for (path, text) in sources("src/crm/bitrix24") {
        if path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("testing.rs") {
            continue;
        }
        for line in code(&text).lines().filter(|line| !line.trim_start().starts_with("//")) {
            found.extend(quoted(line).filter(is_method).filter(|word| !NOT_METHODS.contains(word)).map(str::to_owned));
        }
    }
    found
}

/// Values of `code = "…"` below a heading of the manifest, with the line that follows it by name.
fn manifest(heading: &str) -> BTreeSet<String> {
    let blocks = MANIFEST.split("\n[[").filter(|block| block.starts_with(heading));
    blocks.filter_map(|block| block.split("code = \"").nth(1)?.split('"').next().map(str::to_owned)).collect()
}

#[test]
fn the_manual_of_bitrix24_tells_what_is_spoken() {
    let methods = rows("Methods");
    assert_eq!(used(&methods), called(), "what the service calls");
    let simulated = SIMULATED.lines().filter_map(|line| {
        let line = line.trim_start();
        let kinds = ["any(\"", "scoped(\"", "admin(\""];
        kinds.iter().find_map(|kind| line.strip_prefix(kind)).and_then(|rest| rest.split('"').next())
    });
    let missing: Vec<&str> = simulated.filter(|method| !methods.contains_key(*method)).collect();
    assert!(missing.is_empty(), "the simulated portal can do more than the manual tells: {missing:?}");
    assert_eq!(used(&rows("Events")), manifest("events]]"), "events that are bound");
    let mut places = manifest("placements]]");
    places.insert("SETTING_CONNECTOR".to_owned());
    assert_eq!(used(&rows("Places")), places, "places in which our pages appear");
}

#[test]
fn the_manual_of_bitrix24_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(root.join("docs/BITRIX24.md").exists());
    let mut tests = BTreeSet::new();
    for folder in ["src", "tests/it", "sandbox/tests"] {
        for (_, text) in sources(folder) {
            let mut lines = text.lines().map(str::trim).peekable();
            while let Some(line) = lines.next() {
                let is_test = line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                let next = lines.peek().copied().unwrap_or_default();
                if let Some(rest) = next.split("fn ").nth(1).filter(|_| is_test) {
                    tests.insert(rest.split('(').next().unwrap_or_default().to_owned());
                }
            }
        }
    }
    for section in ["Methods", "Events", "Places"] {
        for (name, (_, test)) in rows(section) {
            assert!(
                test.is_empty() || tests.contains(&test),
                "{name} is said to be covered by {test}, which is no test"
            );
        }
    }
}
