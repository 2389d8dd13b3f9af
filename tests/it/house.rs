//! The walls of the house, read from its own sources (`lib.rs`, invariants).

use std::path::{Path, PathBuf};

pub(crate) fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    let mut left = vec![root];
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} is empty");
    found
}

/// The text before the tests at its end.
pub(crate) fn code(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

fn forbid(files: Vec<(PathBuf, String)>, words: &[&str], except: &[&str]) {
    for (path, text) in files {
        if except.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        for (number, line) in code(&text).lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            for word in words {
                assert!(!line.contains(word), "{}:{}: `{word}` does not belong here", path.display(), number + 1);
            }
        }
    }
}

#[test]
fn the_domain_imports_only_std_and_serde() {
    for (path, text) in sources("src/domain") {
        for line in code(&text).lines().map(str::trim).filter(|line| line.starts_with("use ")) {
            let allowed = ["use std::", "use serde::", "use super::", "use self::", "use crate::domain"];
            assert!(allowed.iter().any(|start| line.starts_with(start)), "{}: {line}", path.display());
        }
    }
}

#[test]
fn providers_and_crms_do_not_see_the_store_or_each_other() {
    forbid(sources("src/providers"), &["crate::storage", "crate::crm", "crate::pipeline", "crate::http"], &[]);
    forbid(sources("src/crm"), &["crate::storage", "crate::providers", "crate::pipeline", "crate::http"], &[]);
}

#[test]
fn sql_stands_in_one_place() {
    let words = ["\"SELECT ", "\"INSERT ", "\"UPDATE ", "\"DELETE ", "sqlx::query(\""];
    let rest = sources("src").into_iter().filter(|(path, _)| !path.to_string_lossy().contains("src/storage/sql/"));
    forbid(rest.collect(), &words, &["storage/sql.rs", "storage/contract.rs"]);
    let outside: Vec<_> =
        sources("src").into_iter().filter(|(path, _)| !path.to_string_lossy().contains("storage")).collect();
    forbid(outside, &["sqlx"], &[]);
}

#[test]
fn there_is_one_http_client() {
    forbid(sources("src"), &["reqwest::Client", "reqwest::get"], &["outbound.rs"]);
}

#[test]
fn every_provider_file_is_in_the_registry() {
    let registry = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/providers.rs")).unwrap();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/providers")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.is_file() && name != "contract" && name != "failures" {
            assert!(registry.contains(&format!("&{name}::ENTRY")), "{name} is not in REGISTRY");
        }
    }
}

#[test]
fn every_migration_is_compiled_in() {
    let listed = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/storage/db.rs")).unwrap();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(listed.contains(&format!("/migrations/{name}\")")), "{name} is not in the list of migrations");
    }
}

#[test]
fn files_stay_readable() {
    for folder in ["src", "sandbox/src", "tests"] {
        for (path, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(lines <= 800, "{} has {lines} lines", path.display());
        }
    }
}
