//! The archive of a widget: unpacked, and checked as amoCRM's back end and its moderators do. Source: §4.1–§4.7.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Files by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// §4.1: name, width, height.
const PICTURES: [(&str, u32, u32); 6] = [
    ("images/logo_main.png", 400, 272),
    ("images/logo_small.png", 108, 108),
    ("images/logo.png", 130, 100),
    ("images/logo_medium.png", 240, 84),
    ("images/logo_min.png", 84, 84),
    ("images/logo_dp.png", 174, 109),
];
const PICTURE_MAX: usize = 300 * 1024;
const LANGUAGES: [&str; 6] = ["ru", "en", "es", "pt", "tr", "id"];
/// §4.3: with a suffix, and without.
const AREAS: [&str; 8] = ["lcard", "ccard", "comcard", "cucard", "llist", "clist", "tlist", "culist"];
const PLACES: [&str; 14] = [
    "settings",
    "advanced_settings",
    "card_sdk",
    "catalogs",
    "digital_pipeline",
    "lead_sources",
    "whatsapp_modal",
    "salesbot_designer",
    "everywhere",
    "sms",
    "mobile_card",
    "amoforms",
    "widget_page",
    "ai_agent",
];
const BLOCKS: [&str; 11] = [
    "widget",
    "locations",
    "settings",
    "tour",
    "dp",
    "salesbot_designer",
    "advanced",
    "left_menu",
    "sms",
    "mobile",
    "amoforms_settings",
];
/// §4.7: constructs that moderators send back.
const FORBIDDEN: [&str; 14] = [
    "eval(",
    "new Function",
    "alert(",
    "confirm(",
    "console.log",
    "console.info",
    "console.warn",
    "console.error",
    "async: false",
    "async:false",
    ".click()",
    "trigger('click')",
    "trigger(\"click\")",
    "document.write",
];

fn number(bytes: &[u8], at: usize, length: usize) -> Option<usize> {
    let part = bytes.get(at..at + length)?;
    Some(part.iter().rev().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)))
}

/// Takes an archive apart. Compressed entries are not simulated.
pub(crate) fn unpack(archive: &[u8]) -> Result<Files, String> {
    let broken = || "the archive is broken".to_owned();
    let end = archive.windows(4).rposition(|part| part == b"PK\x05\x06").ok_or("this is no ZIP archive")?;
    let count = number(archive, end + 10, 2).ok_or_else(broken)?;
    let mut at = number(archive, end + 16, 4).ok_or_else(broken)?;
    let mut files = Files::new();
    for _ in 0..count {
        if archive.get(at..at + 4) != Some(b"PK\x01\x02") {
            return Err(broken());
        }
        let part = |offset: usize, length: usize| number(archive, at + offset, length).ok_or_else(broken);
        let (method, size, packed) = (part(10, 2)?, part(24, 4)?, part(20, 4)?);
        let (name, extra, comment, place) = (part(28, 2)?, part(30, 2)?, part(32, 2)?, part(42, 4)?);
        if method != 0 || size != packed {
            return Err("compressed entries are not simulated".to_owned());
        }
        let title = archive.get(at + 46..at + 46 + name).ok_or_else(broken)?;
        let title = String::from_utf8(title.to_vec()).map_err(|_other| "a name is no UTF-8".to_owned())?;
        let own = number(archive, place + 26, 2).zip(number(archive, place + 28, 2)).ok_or_else(broken)?;
        let start = place + 30 + own.0 + own.1;
        let content = archive.get(start..start + size).ok_or_else(broken)?.to_vec();
        if !title.ends_with('/') && files.insert(title.clone(), content).is_some() {
            return Err(format!("{title} is there twice"));
        }
        at += 46 + name + extra + comment;
    }
    Ok(files)
}

/// Collects what is wrong.
struct Findings(Vec<String>);

impl Findings {
    fn must(&mut self, holds: bool, words: impl Into<String>) {
        if !holds {
            self.0.push(words.into());
        }
    }
}

/// Everything that is wrong with a package.
pub(crate) fn check(files: &Files) -> Vec<String> {
    let mut found = Findings(Vec::new());
    texts(files, &mut found);
    pictures(files, &mut found);
    let manifest = files.get("manifest.json").map(|text| serde_json::from_slice::<Value>(text));
    let manifest = match manifest {
        Some(Ok(Value::Object(manifest))) => manifest,
        Some(_) => {
            found.must(false, "manifest.json is no JSON object");
            return found.0;
        }
        None => {
            found.must(false, "manifest.json is missing at the root of the archive");
            return found.0;
        }
    };
    let languages = languages(files, &manifest, &mut found);
    widget(&manifest, &mut found);
    locations(&manifest, &mut found);
    settings(&manifest, &mut found);
    designer(&manifest, &mut found);
    for key in i18n_keys(&manifest) {
        for (language, texts) in &languages {
            let text = key.split('.').try_fold(texts, |texts, part| texts.get(part)).and_then(Value::as_str);
            found.must(text.is_some_and(|text| !text.is_empty()), format!("i18n/{language}.json lacks {key}"));
        }
    }
    script(files, &mut found);
    style(files, &mut found);
    unused(files, &manifest, &mut found);
    found.0
}

fn text<'a>(files: &'a Files, name: &str) -> &'a str {
    files.get(name).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
}

/// §4.1: UTF-8 without a mark, line ends of Unix.
fn texts(files: &Files, found: &mut Findings) {
    for (name, bytes) in files.iter().filter(|(name, _)| !name.starts_with("images/")) {
        found.must(std::str::from_utf8(bytes).is_ok(), format!("{name} is no UTF-8"));
        found.must(!bytes.starts_with(b"\xef\xbb\xbf"), format!("{name} begins with a byte order mark"));
        found.must(!bytes.contains(&b'\r'), format!("{name} has line ends of Windows"));
    }
}

fn pictures(files: &Files, found: &mut Findings) {
    for (name, width, height) in PICTURES {
        let Some(bytes) = files.get(name) else {
            found.must(false, format!("{name} is missing"));
            continue;
        };
        let size = |at: usize| {
            bytes.get(at..at + 4).map(|part| part.iter().fold(0_u32, |n, byte| (n << 8) | u32::from(*byte)))
        };
        found.must(bytes.starts_with(b"\x89PNG\r\n\x1a\n"), format!("{name} is no PNG"));
        let fits = (size(16), size(20)) == (Some(width), Some(height));
        found.must(fits, format!("{name} must be {width} × {height}"));
        found.must(bytes.len() <= PICTURE_MAX, format!("{name} is longer than 300 KB"));
        found.must(!bytes.windows(4).any(|part| part == b"acTL"), format!("{name} moves"));
    }
}

fn widget(manifest: &Map<String, Value>, found: &mut Findings) {
    for key in manifest.keys() {
        found.must(BLOCKS.contains(&key.as_str()), format!("manifest.json: {key} is unknown"));
    }
    let widget = manifest.get("widget").cloned().unwrap_or_default();
    let version = widget["version"].as_str().unwrap_or_default();
    let parts: Vec<&str> = version.split('.').collect();
    let is_version = parts.len() == 3 && parts.iter().all(|part| part.parse::<u32>().is_ok());
    found.must(is_version, "widget.version must look like 1.0.0");
    found.must(widget["interface_version"] == 2, "widget.interface_version must be 2");
    found.must(widget["init_once"].is_boolean(), "widget.init_once must be true or false");
    found.must(widget["installation"].is_boolean(), "widget.installation must be true or false");
    let support = widget["support"]["link"].as_str().or_else(|| widget["support"]["email"].as_str());
    found.must(support.is_some_and(|support| !support.is_empty()), "widget.support needs a link or an email");
}

fn locations(manifest: &Map<String, Value>, found: &mut Findings) {
    let list = manifest.get("locations").and_then(Value::as_array).cloned().unwrap_or_default();
    found.must(!list.is_empty(), "locations are missing");
    let mut areas = BTreeSet::new();
    for location in list.iter().filter_map(Value::as_str) {
        let area = location.strip_suffix("-0").or_else(|| location.strip_suffix("-1")).unwrap_or(location);
        let known = AREAS.contains(&area) || (area == location && PLACES.contains(&area));
        found.must(known, format!("the location {location} is unknown"));
        found.must(areas.insert(area.to_owned()), format!("the location {area} is there twice"));
    }
    for (location, block) in [
        ("digital_pipeline", "dp"),
        ("salesbot_designer", "salesbot_designer"),
        ("advanced_settings", "advanced"),
        ("settings", "settings"),
    ] {
        let (has, told) = (areas.contains(location), manifest.contains_key(block));
        found.must(has == told, format!("{block} and the location {location} belong together"));
    }
}

fn settings(manifest: &Map<String, Value>, found: &mut Findings) {
    let own = manifest.get("settings").and_then(Value::as_object).cloned().unwrap_or_default();
    fields("settings", &own, found);
    let dp = manifest.get("dp").cloned().unwrap_or_default();
    if dp.is_null() {
        return;
    }
    let triggers = dp["settings"].as_object().cloned().unwrap_or_default();
    fields("dp.settings", &triggers, found);
    found.must(dp["action_multiple"].is_boolean(), "dp.action_multiple must be true or false");
    let hook = dp["webhook_url"].as_str().unwrap_or_default();
    // The simulated account calls its own machine without TLS.
    let callable = hook.starts_with("https://") || hook.starts_with("http://127.0.0.1:");
    found.must(callable && hook.is_ascii(), "dp.webhook_url must be an https address");
}

fn fields(block: &str, fields: &Map<String, Value>, found: &mut Findings) {
    let mut customs = 0;
    for (key, field) in fields {
        let kind = field["type"].as_str().unwrap_or_default();
        customs += usize::from(kind == "custom");
        let known = ["text", "pass", "users", "users_lp", "custom"].contains(&kind);
        found.must(known, format!("{block}.{key}: the type {kind} is unknown"));
        found.must(field["required"].is_boolean(), format!("{block}.{key}.required must be true or false"));
        found.must(field["name"].is_string(), format!("{block}.{key} has no name"));
    }
    found.must(customs <= 1, format!("{block}: more than one custom field"));
}

fn designer(manifest: &Map<String, Value>, found: &mut Findings) {
    let blocks = manifest.get("salesbot_designer").and_then(Value::as_object).cloned().unwrap_or_default();
    for (code, block) in blocks.iter().filter(|(code, _)| *code != "logo") {
        found.must(block["name"].is_string(), format!("salesbot_designer.{code} has no name"));
        for (key, setting) in block["settings"].as_object().cloned().unwrap_or_default() {
            let kind = setting["type"].as_str().unwrap_or_default();
            let known = ["text", "numeric", "url"].contains(&kind);
            found.must(known, format!("salesbot_designer.{code}.{key}: the type {kind} is unknown"));
            found.must(
                setting["default_value"].is_string(),
                format!("salesbot_designer.{code}.{key}: no default_value"),
            );
        }
    }
}

/// Every place of the manifest that names a text.
fn i18n_keys(manifest: &Map<String, Value>) -> BTreeSet<String> {
    fn look(key: &str, value: &Value, keys: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| look(key, value, keys)),
            Value::Array(items) => items.iter().for_each(|value| look(key, value, keys)),
            Value::String(text)
                if matches!(key, "name" | "title" | "description" | "short_description" | "tour_description") =>
            {
                keys.insert(text.clone());
            }
            _ => {}
        }
    }
    let mut keys = BTreeSet::new();
    manifest.iter().for_each(|(key, value)| look(key, value, &mut keys));
    keys
}

/// The language files; they must be those of the manifest, with the same keys, each in its own language.
fn languages(files: &Files, manifest: &Map<String, Value>, found: &mut Findings) -> Vec<(String, Value)> {
    let locale = manifest.get("widget").and_then(|widget| widget["locale"].as_array()).cloned().unwrap_or_default();
    found.must(!locale.is_empty(), "widget.locale is empty");
    let mut read = Vec::new();
    for language in locale.iter().filter_map(Value::as_str) {
        found.must(LANGUAGES.contains(&language), format!("the language {language} is unknown"));
        let name = format!("i18n/{language}.json");
        match serde_json::from_str::<Value>(text(files, &name)) {
            Ok(texts) => read.push((language.to_owned(), texts)),
            Err(_) => found.must(false, format!("{name} is missing or no JSON")),
        }
    }
    let keys = |texts: &Value| {
        let mut keys = BTreeSet::new();
        paths(texts, String::new(), &mut keys);
        keys
    };
    for pair in read.windows(2) {
        let ((one, first), (other, second)) = (&pair[0], &pair[1]);
        let (first, second) = (keys(first), keys(second));
        let lacks: Vec<&String> = first.symmetric_difference(&second).collect();
        found.must(lacks.is_empty(), format!("i18n: {one} and {other} differ in {lacks:?}"));
    }
    for (language, texts) in &read {
        let text = texts.to_string();
        let name = texts["widget"]["name"].as_str().unwrap_or_default().to_lowercase();
        found.must(!name.contains("amo"), format!("i18n/{language}.json: the name may not contain \"amo\""));
        if language != "ru" {
            let cyrillic = text.chars().find(|sign| ('а'..='я').contains(sign) || ('А'..='Я').contains(sign));
            found.must(cyrillic.is_none(), format!("i18n/{language}.json holds Russian"));
            found.must(!text.contains(".ru"), format!("i18n/{language}.json links to .ru"));
        }
    }
    read
}

fn paths(texts: &Value, path: String, keys: &mut BTreeSet<String>) {
    match texts.as_object() {
        Some(map) => map.iter().for_each(|(key, value)| paths(value, format!("{path}.{key}"), keys)),
        None => {
            keys.insert(path);
        }
    }
}

fn script(files: &Files, found: &mut Findings) {
    let script = text(files, "script.js");
    found.must(!script.is_empty(), "script.js is missing");
    found.must(script.trim_start().starts_with("define(["), "script.js must be an AMD module");
    let dependencies = script.split(']').next().unwrap_or_default();
    found.must(!dependencies.contains("//"), "script.js: scripts of foreign hosts");
    for word in FORBIDDEN {
        found.must(!script.contains(word), format!("script.js: `{word}` is forbidden"));
    }
    for line in script.lines() {
        let line = line.trim();
        found.must(line.chars().count() <= 200, "script.js: minified code");
        let comment = line.strip_prefix("//").unwrap_or_default();
        found.must(!comment.trim_end().ends_with([';', '{', '}']), format!("script.js: commented-out code: {line}"));
        let writes =
            ["APP.", "AMOCRM."].iter().any(|global| line.strip_prefix(global).is_some_and(|rest| rest.contains(" = ")));
        found.must(!writes, format!("script.js: writes to a global: {line}"));
    }
    in_loops(script, found);
}

/// §4.7: no calls inside loops.
fn in_loops(script: &str, found: &mut Findings) {
    let mut open: Vec<bool> = Vec::new();
    for line in script.lines() {
        let loops = ["for (", "while (", "$.each(", ".forEach(", "$.map("].iter().any(|word| line.contains(word));
        let calls = ["$authorizedAjax(", "crm_post("].iter().any(|word| line.contains(word));
        found.must(!calls || !open.contains(&true), format!("script.js: a call inside a loop: {}", line.trim()));
        for sign in line.chars() {
            match sign {
                '{' => open.push(loops),
                '}' => {
                    open.pop();
                }
                _ => {}
            }
        }
    }
}

/// §4.7: only below a root of the widget's own.
fn style(files: &Files, found: &mut Findings) {
    let style = text(files, "style.css");
    if style.is_empty() {
        return;
    }
    let linked = text(files, "script.js").contains("style.css?v=");
    found.must(linked, "style.css must be linked as style.css?v={version}");
    let mut roots = BTreeSet::new();
    for rule in style.split('}').filter_map(|rule| rule.split_once('{')) {
        for selector in rule.0.split(',').map(str::trim).filter(|selector| !selector.is_empty()) {
            let root: String =
                selector.chars().skip(1).take_while(|sign| sign.is_alphanumeric() || "-_".contains(*sign)).collect();
            found.must(selector.starts_with('.'), format!("style.css: {selector} is not below the widget's root"));
            roots.insert(root);
        }
    }
    found.must(roots.len() <= 1, format!("style.css: more than one root: {roots:?}"));
}

fn unused(files: &Files, manifest: &Map<String, Value>, found: &mut Findings) {
    let (script, told) = (text(files, "script.js"), Value::Object(manifest.clone()).to_string());
    for name in files.keys() {
        let own = ["manifest.json", "script.js"].contains(&name.as_str());
        let picture = PICTURES.iter().any(|(picture, _, _)| picture == name);
        let language = name.strip_prefix("i18n/").and_then(|name| name.strip_suffix(".json"));
        let spoken = language
            .is_some_and(|language| manifest["widget"]["locale"].to_string().contains(&format!("\"{language}\"")));
        let file = name.rsplit('/').next().unwrap_or_default();
        let used = own || picture || spoken || script.contains(file) || told.contains(name.as_str());
        found.must(used, format!("{name} is not used"));
    }
}
