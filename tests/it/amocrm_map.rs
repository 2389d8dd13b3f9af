//! The tables of `docs/AMOCRM.md` against the tests that they name: what is said to be covered is, and by a test that runs.

use std::path::Path;

use crate::house::sources;

fn rows(text: &str) -> Vec<(String, String)> {
    let covered = text.split("## What is covered").nth(1).unwrap();
    let rows = covered.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.rsplit_once(" | "));
    let rows = rows.filter(|(_, test)| test.starts_with('`'));
    rows.map(|(what, test)| (what.to_owned(), test.trim_matches('`').to_owned())).collect()
}

#[test]
fn every_row_of_the_tables_of_amocrm_names_a_test_that_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rows = rows(&std::fs::read_to_string(root.join("docs/AMOCRM.md")).unwrap());
    assert!(rows.len() >= 30, "only {} rows were found", rows.len());
    let tests: Vec<(_, String)> = [sources("src/crm"), sources("tests/it")].into_iter().flatten().collect();
    for (what, test) in rows {
        let named = format!("fn {test}()");
        let found = tests
            .iter()
            .find_map(|(path, text)| Some((path, text.split(&named).next().filter(|_| text.contains(&named))?)));
        let (path, before) = found.unwrap_or_else(|| panic!("{what}: there is no test {test}"));
        let marks: Vec<&str> = before.lines().rev().take(3).collect();
        assert!(marks.iter().any(|mark| mark.contains("test")), "{what}: {test} in {} is no test", path.display());
        assert!(!marks.iter().any(|mark| mark.contains("ignore")), "{what}: {test} does not run");
    }
}

#[test]
fn every_address_of_amocrm_is_in_the_manual() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manual = std::fs::read_to_string(root.join("docs/AMOCRM.md")).unwrap();
    let routes = std::fs::read_to_string(root.join("src/http/amocrm.rs")).unwrap();
    let table = routes.split("pub(super) fn routes(").nth(1).unwrap();
    let paths: Vec<&str> = table.split("web::resource(\"").skip(1).filter_map(|part| part.split('"').next()).collect();
    assert!(paths.len() >= 4, "{paths:?}");
    for path in paths {
        let first = path.trim_start_matches('/').split('/').next().unwrap();
        assert!(manual.contains(&format!("/{first}")), "docs/AMOCRM.md does not tell of {path}");
    }
}
