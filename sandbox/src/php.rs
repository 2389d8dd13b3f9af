//! A value as PHP has it: one ordered array type for lists and maps.
//!
//! Using it for requests and answers of the portal gives the documented ambiguities for free: an empty map is written as
//! `[]`, a map with keys `0..n-1` as a list, and the order of keys is kept. Source: bitrix24.md §3.2, §4.3.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
};

/// Array key; decimal text becomes a number, as in PHP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Int(i64),
    Str(String),
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let is_decimal = !digits.is_empty() && digits.len() < 19 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let is_canonical = is_decimal && (digits == "0" && text == "0" || !digits.starts_with('0'));
        match text.parse() {
            Ok(number) if is_canonical => Self::Int(number),
            _ => Self::Str(text.to_owned()),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(out),
            Self::Str(text) => text.fmt(out),
        }
    }
}

impl Key {
    fn is(&self, text: &str) -> bool {
        match self {
            Self::Str(own) => own == text,
            Self::Int(_) => Self::from(text) == *self,
        }
    }
}

/// A PHP value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Php {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Array(Vec<(Key, Php)>),
}

impl Php {
    pub(crate) fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Php)>) -> Self {
        Self::Array(entries.into_iter().map(|(key, value)| (Key::from(key), value)).collect())
    }

    pub(crate) fn list(values: impl IntoIterator<Item = Php>) -> Self {
        Self::Array(values.into_iter().zip(0..).map(|(value, at)| (Key::Int(at), value)).collect())
    }

    pub(crate) fn empty() -> Self {
        Self::Array(Vec::new())
    }

    pub(crate) fn yes_no(flag: bool) -> Self {
        Self::Str(if flag { "Y" } else { "N" }.to_owned())
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Php> {
        match self {
            Self::Array(entries) => entries.iter().find(|(own, _)| own.is(key)).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Like [`Php::get`] but case-insensitive, as classic methods read their top-level parameters.
    pub(crate) fn get_ci(&self, key: &str) -> Option<&Php> {
        self.get(key).or_else(|| match self {
            Self::Array(entries) => entries
                .iter()
                .find(|(own, _)| matches!(own, Key::Str(text) if text.eq_ignore_ascii_case(key)))
                .map(|(_, value)| value),
            _ => None,
        })
    }

    pub(crate) fn set(&mut self, key: &str, value: Php) {
        *self.entry(Key::from(key)) = value;
    }

    /// The slot under `key`, made if absent; a scalar in the way is replaced (later wins, as in PHP's parser).
    pub(crate) fn entry(&mut self, key: Key) -> &mut Php {
        let entries = self.as_array_mut();
        let at = entries.iter().position(|(own, _)| *own == key).unwrap_or_else(|| {
            entries.push((key, Php::Null));
            entries.len() - 1
        });
        &mut entries[at].1
    }

    pub(crate) fn push_slot(&mut self) -> &mut Php {
        let entries = self.as_array_mut();
        let next = entries.iter().filter_map(|(key, _)| if let Key::Int(at) = key { Some(at + 1) } else { None }).max();
        entries.push((Key::Int(next.unwrap_or(0).max(0)), Php::Null));
        let last = entries.len() - 1;
        &mut entries[last].1
    }

    fn as_array_mut(&mut self) -> &mut Vec<(Key, Php)> {
        if !matches!(self, Self::Array(_)) {
            *self = Self::empty();
        }
        match self {
            Self::Array(entries) => entries,
            _ => unreachable!("just made an array"),
        }
    }

    pub(crate) fn entries(&self) -> &[(Key, Php)] {
        match self {
            Self::Array(entries) => entries,
            _ => &[],
        }
    }

    pub(crate) fn is_array(&self) -> bool {
        matches!(self, Self::Array(_))
    }

    /// A scalar as PHP prints it; arrays print as nothing here.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Null | Self::Array(_) => String::new(),
            Self::Bool(flag) => if *flag { "1" } else { "" }.to_owned(),
            Self::Int(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Str(text) => text.clone(),
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// A number, or decimal text.
    pub(crate) fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Float(number) if number.fract() == 0.0 => format!("{number:.0}").parse().ok(),
            Self::Str(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// PHP's `empty()`.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(flag) => !flag,
            Self::Int(number) => *number == 0,
            Self::Float(number) => *number == 0.0,
            Self::Str(text) => text.is_empty() || text == "0",
            Self::Array(entries) => entries.is_empty(),
        }
    }

    /// `Y`, `1`, `true` and numbers other than zero.
    pub(crate) fn is_yes(&self) -> bool {
        match self {
            Self::Str(text) => matches!(text.as_str(), "Y" | "y" | "1" | "true"),
            other => !other.is_empty(),
        }
    }

    pub(crate) fn from_json(value: &serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(flag) => Self::Bool(*flag),
            serde_json::Value::Number(number) => {
                number.as_i64().map_or_else(|| Self::Float(number.as_f64().unwrap_or(0.0)), Self::Int)
            }
            serde_json::Value::String(text) => Self::Str(text.clone()),
            serde_json::Value::Array(values) => Self::list(values.iter().map(Self::from_json)),
            serde_json::Value::Object(map) => {
                Self::map(map.iter().map(|(key, value)| (key.as_str(), Self::from_json(value))))
            }
        }
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    fn is_list(entries: &[(Key, Php)]) -> bool {
        entries.iter().zip(0..).all(|((key, _), at)| *key == Key::Int(at))
    }
}

impl From<&str> for Php {
    fn from(text: &str) -> Self {
        Self::Str(text.to_owned())
    }
}
impl From<String> for Php {
    fn from(text: String) -> Self {
        Self::Str(text)
    }
}
impl From<i64> for Php {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}
impl From<bool> for Php {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

impl Serialize for Php {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(flag) => serializer.serialize_bool(*flag),
            Self::Int(number) => serializer.serialize_i64(*number),
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::Str(text) => serializer.serialize_str(text),
            Self::Array(entries) if Self::is_list(entries) => {
                serializer.collect_seq(entries.iter().map(|(_, value)| value))
            }
            Self::Array(entries) => serializer.collect_map(entries.iter().map(|(key, value)| (key.to_string(), value))),
        }
    }
}

impl<'de> Deserialize<'de> for Php {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PhpVisitor)
    }
}

struct PhpVisitor;

impl<'de> Visitor<'de> for PhpVisitor {
    type Value = Php;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Php, E> {
        Ok(Php::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Php, E> {
        Ok(Php::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Php, E> {
        Ok(Php::Int(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Php, E> {
        Ok(i64::try_from(number).map_or_else(|_| Php::Str(number.to_string()), Php::Int))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Php, E> {
        Ok(Php::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Php, E> {
        Ok(Php::Str(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Php, E> {
        Ok(Php::Str(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Php, A::Error> {
        let mut entries = Vec::new();
        while let Some(value) = access.next_element()? {
            entries.push((Key::Int(i64::try_from(entries.len()).unwrap_or(0)), value));
        }
        Ok(Php::Array(entries))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Php, A::Error> {
        let mut entries: Vec<(Key, Php)> = Vec::new();
        while let Some((key, value)) = access.next_entry::<String, Php>()? {
            entries.push((Key::from(key.as_str()), value));
        }
        Ok(Php::Array(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(text: &str) -> String {
        let value: Php = serde_json::from_str(text).unwrap();
        serde_json::to_string(&value).unwrap()
    }

    #[test]
    fn maps_look_like_php_prints_them() {
        assert_eq!(round("{}"), "[]");
        assert_eq!(round(r#"{"0":"a","1":"b"}"#), r#"["a","b"]"#);
        assert_eq!(round(r#"{"1":"a","0":"b"}"#), r#"{"1":"a","0":"b"}"#);
        assert_eq!(round(r#"{"z":1,"a":{"k":null}}"#), r#"{"z":1,"a":{"k":null}}"#);
        assert_eq!(round(r#"{"01":1}"#), r#"{"01":1}"#);
    }
}
