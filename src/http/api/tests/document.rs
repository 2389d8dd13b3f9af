//! The description and the table say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::*;
use crate::http::api::{DESCRIPTION, PREFIX, TABLE, openapi};

fn document() -> Value {
    serde_json::from_str(&openapi()).unwrap()
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let registered: BTreeMap<String, BTreeSet<String>> = TABLE
        .iter()
        .map(|row| (format!("{PREFIX}{}", row.path), row.methods.iter().map(ToString::to_string).collect()))
        .collect();
    let described: BTreeMap<String, BTreeSet<String>> = document()["paths"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(path, item)| (path.clone(), item.as_object().unwrap().keys().cloned().collect()))
        .collect();
    assert_eq!(registered, described);
}

#[test]
fn operations_have_names_tags_and_refusals() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut names = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let place = format!("{method} {path}");
            assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{place}");
            assert!(operation["tags"][0].is_string() && operation["summary"].is_string(), "{place}");
            let responses = operation["responses"].as_object().unwrap();
            for status in ["400", "401", "429", "503"] {
                let schema = &responses[status]["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Problem", "{place} {status}");
            }
            assert_eq!(responses.contains_key("415"), operation["requestBody"].is_object(), "{place}");
            let places = path.matches('{').count();
            let parameters = operation["parameters"]
                .as_array()
                .map_or(0, |list| list.iter().filter(|parameter| parameter["in"] == "path").count());
            assert_eq!(places, parameters, "{place}");
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|inner| references(inner, found));
            }
            Value::Array(list) => list.iter().for_each(|inner| references(inner, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 10);
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}

#[test]
fn the_copy_in_docs_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    #[expect(clippy::disallowed_methods, reason = "a test is told by the environment to write instead of to compare")]
    let rewrite = std::env::var("UPDATE_SNAPSHOTS").is_ok_and(|value| value == "1");
    if rewrite {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, openapi()).unwrap();
    }
    let copy = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        copy == openapi(),
        "docs/openapi.json is stale; rewrite it with: UPDATE_SNAPSHOTS=1 cargo nextest run -p mostik the_copy_in_docs"
    );
}

#[actix_web::test]
async fn the_description_needs_no_token() {
    let api = Api::with_token(None).await;
    let answer = api.send(TestRequest::get().uri(DESCRIPTION)).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json, document());
    let answer = api.send(TestRequest::post().uri(DESCRIPTION)).await;
    assert_eq!((answer.status, answer.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET"));
}
