//! Up to fifty REST calls in one request: how it is written and how its answer is read.
//!
//! Every call of ours travels this way, even a single one: a batch needs no right of its own, counts once for the
//! portal's bucket, and tells of each entry apart (protocol reference, section "batch", read 2026-11).

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;

use super::errors::{Fault, Place, read_error};
use crate::forms::{member, text};

/// Most entries of one batch.
pub(super) const BATCH_MAX: usize = 50;

/// A parameter. Keeps the order of its members, because the portal shows a robot's fields in that order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Param {
    /// A scalar; numbers too, since a query knows only text.
    Text(String),
    /// `a[0]=…&a[1]=…`; an empty one vanishes.
    List(Vec<Param>),
    /// `a[key]=…`; an empty one vanishes.
    Map(Vec<(String, Param)>),
}

impl Param {
    /// A map of the members given.
    pub(super) fn map<const N: usize>(members: [(&str, Self); N]) -> Self {
        Self::Map(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// A value that the portal takes from the answer of an earlier entry of the same batch.
    ///
    /// A path that leads nowhere stops at the last member there is, without an error: whoever uses a reference must
    /// check that the answer is about what was meant.
    pub(super) fn of_answer(entry: usize, path: &[&str]) -> Self {
        let path: String = path.iter().map(|key| format!("[{key}]")).collect();
        Self::Text(format!("$result[{}]{path}", key_of(entry)))
    }

    fn write(&self, name: &str, query: &mut form_urlencoded::Serializer<'_, String>) {
        match self {
            Self::Text(text) => {
                query.append_pair(name, text);
            }
            Self::List(list) => {
                for (index, value) in list.iter().enumerate() {
                    value.write(&format!("{name}[{index}]"), query);
                }
            }
            Self::Map(members) => {
                for (key, value) in members {
                    value.write(&format!("{name}[{key}]"), query);
                }
            }
        }
    }
}

impl From<&str> for Param {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Param {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Param {
    fn from(number: u64) -> Self {
        Self::Text(number.to_string())
    }
}

/// One call of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    method: &'static str,
    /// `method?query`, encoded once.
    command: String,
}

/// Calls to be made in one request, in this order; an error of one does not stop the others.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Batch {
    entries: Vec<Entry>,
}

impl Batch {
    /// Adds a call; gives its place, for references and for reading the answer.
    pub(super) fn push(&mut self, method: &'static str, params: &[(&str, Param)]) -> usize {
        let query = encode(params);
        let command = if query.is_empty() { method.to_owned() } else { format!("{method}?{query}") };
        self.entries.push(Entry { method, command });
        self.entries.len() - 1
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The method of one entry.
    pub(super) fn method(&self, entry: usize) -> Option<&'static str> {
        self.entries.get(entry).map(|entry| entry.method)
    }

    /// The request's document. The token stands in it and not in a header, because web servers in front of self-hosted
    /// portals tend to drop `Authorization`; it never stands in an address.
    pub(super) fn document(&self, token: &str) -> Result<Vec<u8>, serde_json::Error> {
        #[derive(Serialize)]
        struct Document<'a> {
            halt: u8,
            cmd: Commands<'a>,
            auth: &'a str,
        }
        serde_json::to_vec(&Document { halt: 0, cmd: Commands(&self.entries), auth: token })
    }

    /// Sorts the answer by entries, in the order of the request.
    pub(super) fn read(&self, document: &Value) -> Vec<Result<Value, Fault>> {
        let answer = member(document, "result").unwrap_or(&Value::Null);
        let part = |name: &str, key: &str| {
            // PHP writes an empty map as `[]`; then nothing is found in it.
            member(answer, name).and_then(Value::as_object).and_then(|map| map.get(key))
        };
        (0..self.entries.len())
            .map(|entry| {
                let key = key_of(entry);
                if let Some(error) = part("result_error", &key).filter(|error| !error.is_null()) {
                    let (code, wording) = read_error(error).unwrap_or_else(|| (String::new(), bare(error)));
                    return Err(Fault::Said { place: Place::Entry, status: 400, code, text: wording });
                }
                part("result", &key).cloned().ok_or(Fault::Unanswered)
            })
            .collect()
    }

    /// Running times of the entries by method, as far as the portal tells.
    pub(super) fn times<'a>(&self, document: &'a Value) -> Vec<(&'static str, &'a Value)> {
        let times = member(document, "result").and_then(|answer| member(answer, "result_time"));
        let Some(times) = times.and_then(Value::as_object) else { return Vec::new() };
        let of_entry = |(entry, call): (usize, &Entry)| Some((call.method, times.get(&key_of(entry))?));
        self.entries.iter().enumerate().filter_map(of_entry).collect()
    }
}

/// Parameters as a query string.
pub(super) fn encode(params: &[(&str, Param)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in params {
        value.write(name, &mut query);
    }
    query.finish()
}

/// An error that is no object but bare text.
fn bare(error: &Value) -> String {
    text(error).unwrap_or_default()
}

/// Key of an entry. Never a bare number (PHP would answer with a list), and of fixed width, so that sorting the keys
/// keeps the order that references need.
fn key_of(entry: usize) -> String {
    format!("k{entry:02}")
}

struct Commands<'a>(&'a [Entry]);

impl Serialize for Commands<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (index, entry) in self.0.iter().enumerate() {
            map.serialize_entry(&key_of(index), &entry.command)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::forms::{FormLimits, decode};

    fn batch() -> Batch {
        let mut batch = Batch::default();
        batch.push("profile", &[]);
        let fields = Param::map([("ENTITY_ID", 134.into()), ("COMMENT", "a & [b]\nü".into())]);
        batch.push("crm.timeline.comment.add", &[("fields", fields)]);
        batch.push("crm.item.get", &[("id", Param::of_answer(0, &["item", "contactId"]))]);
        batch
    }

    #[test]
    fn a_batch_is_encoded_once_and_in_order() {
        let document = batch().document("falsetoken").unwrap();
        let text = String::from_utf8(document.clone()).unwrap();
        assert!(text.find("k00").unwrap() < text.find("k01").unwrap());
        let document: Value = serde_json::from_slice(&document).unwrap();
        assert_eq!(document["halt"], json!(0));
        assert_eq!(document["auth"], json!("falsetoken"));
        assert_eq!(document["cmd"]["k00"], json!("profile"));
        let command = document["cmd"]["k01"].as_str().unwrap();
        let (method, query) = command.split_once('?').unwrap();
        assert_eq!(method, "crm.timeline.comment.add");
        let fields = decode(query.as_bytes(), FormLimits::default()).unwrap();
        assert_eq!(fields, json!({"fields": {"ENTITY_ID": "134", "COMMENT": "a & [b]\nü"}}));
        let query = document["cmd"]["k02"].as_str().unwrap().split_once('?').unwrap().1;
        assert_eq!(
            decode(query.as_bytes(), FormLimits::default()).unwrap(),
            json!({"id": "$result[k00][item][contactId]"})
        );
    }

    #[test]
    fn nested_parameters_keep_their_order() {
        let mut batch = Batch::default();
        let value = Param::Map(vec![
            ("z".to_owned(), Param::List(vec!["1".into(), Param::map([("y", "2".into())])])),
            ("a".to_owned(), Param::List(vec![])),
            ("b".to_owned(), "".into()),
        ]);
        batch.push("m", &[("p", value)]);
        assert_eq!(batch.entries[0].command, "m?p%5Bz%5D%5B0%5D=1&p%5Bz%5D%5B1%5D%5By%5D=2&p%5Bb%5D=");
    }

    #[test]
    fn each_entry_has_its_own_answer() {
        let answer = json!({"result": {
            "result": {"k00": {"ID": "1"}, "k02": null},
            "result_error": {"k01": {"error": "ACCESS_DENIED", "error_description": "Access denied!"}},
            "result_total": [], "result_next": [],
            "result_time": {"k00": {"operating": 0.5}, "k01": {"operating": 2}}
        }});
        let batch = batch();
        let read = batch.read(&answer);
        assert_eq!(read[0], Ok(json!({"ID": "1"})));
        assert!(read[1].as_ref().unwrap_err().is("access_denied"));
        assert_eq!(read[2], Ok(Value::Null));
        let times = batch.times(&answer);
        assert_eq!(times.len(), 2);
        assert_eq!(times[1].0, "crm.timeline.comment.add");
    }

    #[test]
    fn empty_maps_come_as_lists() {
        let answer = json!({"result": {"result": [], "result_error": [], "result_time": []}});
        for read in batch().read(&answer) {
            assert_eq!(read, Err(Fault::Unanswered));
        }
        assert!(batch().times(&answer).is_empty());
        let odd = json!({"result": {"result": {"k00": []}, "result_error": {"k01": "broken", "k02": {"error": 0}}}});
        let read = batch().read(&odd);
        assert_eq!(read[0], Ok(json!([])));
        let Err(Fault::Said { code, text, .. }) = &read[1] else { panic!("{read:?}") };
        assert_eq!((code.as_str(), text.as_str()), ("", "broken"));
        assert!(read[2].as_ref().unwrap_err().is("0"));
    }
}
