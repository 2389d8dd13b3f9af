//! A JSON object with its place in the request, so that errors can name it.

use serde_json::{Map, Value};

use super::Result;
use crate::whatsapp::error::GraphError;

/// One object of the request.
#[derive(Clone, Debug)]
pub(crate) struct Obj<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Obj<'a> {
    pub(crate) fn root(value: &'a Value) -> Result<Self> {
        Self::at(value, String::new())
    }

    pub(crate) fn at(value: &'a Value, path: String) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(Self { map, path }),
            _ => Err(GraphError::new(100, format!("Param {path} must be a JSON object."))),
        }
    }

    pub(crate) fn place(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}['{key}']", self.path) }
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn value(&self) -> Value {
        Value::Object(self.map.clone())
    }

    /// Refuses every key outside `known`.
    pub(crate) fn only(&self, known: &[&str]) -> Result<()> {
        match self.map.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) if self.path.is_empty() => {
                Err(GraphError::new(100, format!("Unexpected key \"{key}\" in the request.")))
            }
            Some(key) => Err(GraphError::new(100, format!("Unexpected key \"{key}\" on param \"{}\".", self.path))),
        }
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(GraphError::new(100, format!("Param {} must be a string.", self.place(key)))),
        }
    }

    pub(crate) fn need_text(&self, key: &str) -> Result<&'a str> {
        match self.text(key)? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(self.missing(key)),
        }
    }

    /// A text of at most `max` characters.
    pub(crate) fn need_short(&self, key: &str, max: usize) -> Result<&'a str> {
        let text = self.need_text(key)?;
        self.short(key, text, max)
    }

    pub(crate) fn short_or_none(&self, key: &str, max: usize) -> Result<Option<&'a str>> {
        self.text(key)?.map(|text| self.short(key, text, max)).transpose()
    }

    fn short(&self, key: &str, text: &'a str, max: usize) -> Result<&'a str> {
        if text.chars().count() > max {
            let place = self.place(key);
            return Err(GraphError::new(131_009, format!("Param {place} must be at most {max} characters long.")));
        }
        Ok(text)
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(GraphError::new(100, format!("Param {} must be a boolean.", self.place(key)))),
        }
    }

    pub(crate) fn list(&self, key: &str) -> Result<Option<&'a [Value]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(values)) => Ok(Some(values)),
            Some(_) => Err(GraphError::new(100, format!("Param {} must be an array.", self.place(key)))),
        }
    }

    /// Objects of a required, non-empty list of at most `max`.
    pub(crate) fn need_objects(&self, key: &str, max: usize) -> Result<Vec<Obj<'a>>> {
        let values = self.list(key)?.filter(|values| !values.is_empty()).ok_or_else(|| self.missing(key))?;
        if values.len() > max {
            return Err(GraphError::new(131_009, format!("Param {} must have at most {max} items.", self.place(key))));
        }
        let place = self.place(key);
        values.iter().enumerate().map(|(at, value)| Obj::at(value, format!("{place}[{at}]"))).collect()
    }

    pub(crate) fn sub(&self, key: &str) -> Result<Option<Obj<'a>>> {
        self.get(key).map(|value| Obj::at(value, self.place(key))).transpose()
    }

    pub(crate) fn need_sub(&self, key: &str) -> Result<Obj<'a>> {
        self.sub(key)?.ok_or_else(|| self.missing(key))
    }

    pub(crate) fn missing(&self, key: &str) -> GraphError {
        GraphError::new(131_008, format!("The parameter {} is required.", self.place(key)))
    }
}
