//! Forms as PHP writes them: `application/x-www-form-urlencoded` with brackets in the names.
//!
//! Bitrix24 sends every robot call, event and page in this shape ("events", section "payload", read 2026-11). The
//! crates at hand either refuse sparse numeric keys or lose repeated ones, so the decoder is ours: it follows PHP where
//! senders rely on it and sets limits where PHP would not. The size of the body is bounded before it comes here.
//!
//! The second half reads single values leniently: in a form everything is text, in PHP's JSON a number may be text, an
//! empty map a list, and a flag one of six spellings.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Most fields of one form; a real callback has some forty.
pub const FIELDS_MAX: usize = 2_000;
/// Most names in one path: `a[b][c]` has three.
pub const DEPTH_MAX: usize = 8;

/// How large a form may be, counted before anything is built.
#[derive(Clone, Copy, Debug)]
pub struct FormLimits {
    /// Most fields.
    pub fields: usize,
    /// Most names in one path.
    pub depth: usize,
}

impl Default for FormLimits {
    fn default() -> Self {
        Self { fields: FIELDS_MAX, depth: DEPTH_MAX }
    }
}

/// Why a form is refused. The sender's fault; the same form will be refused again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormError {
    /// More fields than allowed.
    #[error("more than {0} fields")]
    TooManyFields(usize),
    /// A path with more names than allowed.
    #[error("brackets nest deeper than {0}")]
    TooDeep(usize),
}

/// Decodes a form, or a query string, into an object whose leaves are texts.
///
/// As PHP does it: the last of several equal names wins, also between a text and a map; `a[]` takes the next free
/// number; text after the last `]` is dropped; a name with an unclosed bracket is an ordinary name. Bytes that are no
/// UTF-8 become the replacement character. A map whose keys are exactly 0..n-1 becomes a list; other numbers stay an
/// object (read both with [`items`]).
///
/// # Errors
/// [`FormError`] as soon as a limit is passed.
pub fn decode(form: &[u8], limits: FormLimits) -> Result<Value, FormError> {
    let mut root = Branch::default();
    for (count, (name, value)) in form_urlencoded::parse(form).enumerate() {
        if count >= limits.fields {
            return Err(FormError::TooManyFields(limits.fields));
        }
        if name.is_empty() {
            continue;
        }
        let path = read_path(&name, limits.depth)?;
        root.insert(&path, value.into_owned());
    }
    Ok(Value::Object(root.into_object()))
}

/// Splits `a[b][]` into `a`, `b` and an empty name that stands for "next number".
fn read_path(name: &str, depth: usize) -> Result<Vec<&str>, FormError> {
    let Some(open) = name.find('[').filter(|at| *at > 0) else { return Ok(vec![name]) };
    let (base, mut rest) = name.split_at(open);
    let mut path = vec![base];
    while let Some((key, after)) = rest.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        path.push(key);
        if path.len() > depth {
            return Err(FormError::TooDeep(depth));
        }
        rest = after;
    }
    Ok(if path.len() == 1 { vec![name] } else { path })
}

#[derive(Default)]
struct Branch {
    entries: BTreeMap<String, Node>,
    /// What the next `[]` gets: one more than the largest number so far.
    next: u64,
}

enum Node {
    Text(String),
    Branch(Branch),
}

impl Branch {
    fn insert(&mut self, path: &[&str], value: String) {
        let Some((key, rest)) = path.split_first() else { return };
        let key = if key.is_empty() { self.next.to_string() } else { (*key).to_owned() };
        if let Some(number) = index(&key) {
            self.next = self.next.max(number.saturating_add(1));
        }
        if rest.is_empty() {
            self.entries.insert(key, Node::Text(value));
            return;
        }
        let node = self.entries.entry(key).or_insert_with(|| Node::Branch(Self::default()));
        match node {
            Node::Branch(branch) => branch.insert(rest, value),
            Node::Text(_) => {
                let mut branch = Self::default();
                branch.insert(rest, value);
                *node = Node::Branch(branch);
            }
        }
    }

    fn into_value(self) -> Value {
        let length = self.entries.len();
        let numbers: Vec<Option<usize>> =
            self.entries.keys().map(|key| index(key).and_then(|n| usize::try_from(n).ok())).collect();
        if !numbers.iter().all(|number| number.is_some_and(|n| n < length)) {
            return Value::Object(self.into_object());
        }
        let mut list = vec![Value::Null; length];
        for (number, node) in numbers.into_iter().flatten().zip(self.entries.into_values()) {
            if let Some(place) = list.get_mut(number) {
                *place = node.into_value();
            }
        }
        Value::Array(list)
    }

    fn into_object(self) -> Map<String, Value> {
        self.entries.into_iter().map(|(key, node)| (key, node.into_value())).collect()
    }
}

impl Node {
    fn into_value(self) -> Value {
        match self {
            Self::Text(text) => Value::String(text),
            Self::Branch(branch) => branch.into_value(),
        }
    }
}

/// The number a key stands for: decimal, no sign, no leading zero, as PHP decides between number and name.
fn index(key: &str) -> Option<u64> {
    let canonical = key == "0" || (!key.starts_with('0') && key.len() <= 18);
    if canonical && key.bytes().all(|b| b.is_ascii_digit()) { key.parse().ok() } else { None }
}

/// Follows a path of names and numbers through objects and lists.
#[must_use]
pub fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| match value {
        Value::Object(map) => map.get(*key),
        Value::Array(list) => list.get(usize::try_from(index(key)?).ok()?),
        _ => None,
    })
}

/// One member of an object, whatever the case of its name; the exact spelling is preferred.
#[must_use]
pub fn member<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    let map = value.as_object()?;
    map.get(key).or_else(|| map.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, found)| found))
}

/// A scalar as text: numbers in their shortest form (`12` for `12.0`), flags as `1` and `0`; `None` for the rest.
#[must_use]
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(if *flag { "1" } else { "0" }.to_owned()),
        Value::Number(_) => Some(integer(value).map_or_else(|| value.to_string(), |whole| whole.to_string())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The text at a path; empty when there is none.
#[must_use]
pub fn text_at(value: &Value, path: &[&str]) -> String {
    at(value, path).and_then(text).unwrap_or_default()
}

/// A whole number that may be written `12`, `12.0` or `"12"`.
#[must_use]
pub fn integer(value: &Value) -> Option<i64> {
    /// Above it an `f64` no longer holds every whole number.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let float = number.as_f64()?;
            let whole = float.fract() == 0.0 && float.abs() <= EXACT;
            if whole { format!("{float:.0}").parse().ok() } else { None }
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A number that may be written as text.
#[must_use]
pub fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|float: &f64| float.is_finite())
}

/// A flag as PHP and Bitrix24 spell it: `Y`, `N`, `1`, `0`, `true`, `false`; `None` for an empty or another text.
#[must_use]
pub fn flag(value: &Value) -> Option<bool> {
    match text(value)?.trim().to_ascii_lowercase().as_str() {
        "y" | "1" | "true" | "yes" => Some(true),
        "n" | "0" | "false" | "no" => Some(false),
        _ => None,
    }
}

/// The members of what should be a list: a list, an object with numbers for keys (in their order), or a lone scalar.
///
/// `null` and the empty text stand for an empty list.
#[must_use]
pub fn items(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        Value::String(text) if text.is_empty() => Vec::new(),
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => {
            let mut members: Vec<(&String, &Value)> = map.iter().collect();
            members.sort_by_key(|(key, _)| (index(key).is_none(), index(key)));
            members.into_iter().map(|(_, member)| member).collect()
        }
        Value::String(_) | Value::Number(_) | Value::Bool(_) => vec![value],
    }
}

/// The texts of what should be a list of scalars; what is no scalar is left out.
#[must_use]
pub fn texts(value: &Value) -> Vec<String> {
    items(value).into_iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn decoded(form: &str) -> Value {
        decode(form.as_bytes(), FormLimits::default()).unwrap()
    }

    #[test]
    fn shapes_are_read_as_php_reads_them() {
        let cases = [
            ("a=1&b=x+y%0Az", json!({"a": "1", "b": "x y\nz"})),
            ("a%5Bb%5D%5B0%5D=v", json!({"a": {"b": ["v"]}})),
            ("a[b][0]=v&a[b][1]=w", json!({"a": {"b": ["v", "w"]}})),
            ("a[]=1&a[]=2", json!({"a": ["1", "2"]})),
            ("a[5]=1&a[]=2", json!({"a": {"5": "1", "6": "2"}})),
            ("a[1]=b&a[0]=a", json!({"a": ["a", "b"]})),
            ("a[0]=a&a[2]=c", json!({"a": {"0": "a", "2": "c"}})),
            ("a[01]=a", json!({"a": {"01": "a"}})),
            ("data[BOT][39][ID]=7", json!({"data": {"BOT": {"39": {"ID": "7"}}}})),
            ("a=1&a=2", json!({"a": "2"})),
            ("a[b]=1&a[b]=2", json!({"a": {"b": "2"}})),
            ("a=1&a[b]=2", json!({"a": {"b": "2"}})),
            ("a[b]=1&a=2", json!({"a": "2"})),
            ("a[b]=1&a[b][c]=2", json!({"a": {"b": {"c": "2"}}})),
            ("a[b]tail=1", json!({"a": {"b": "1"}})),
            ("a[b=1&[c]=2&=3&d", json!({"a[b": "1", "[c]": "2", "d": ""})),
            ("a=%FF%zz", json!({"a": "\u{FFFD}%zz"})),
            ("0=x&1=y", json!({"0": "x", "1": "y"})),
            ("", json!({})),
        ];
        for (form, expected) in cases {
            assert_eq!(decoded(form), expected, "{form}");
        }
    }

    #[test]
    fn more_than_nine_numbers_keep_their_order() {
        let form: String = (0..12).map(|n| format!("a[{n}]={n}&")).collect();
        assert_eq!(texts(&decoded(&form)["a"]), (0..12).map(|n| n.to_string()).collect::<Vec<_>>());
        let sparse = decoded("a[10]=c&a[9]=b&a[2]=a");
        assert_eq!(texts(&sparse["a"]), ["a", "b", "c"]);
    }

    #[test]
    fn limits_are_kept() {
        let many: String = (0..2_001).map(|n| format!("k{n}=1&")).collect();
        assert_eq!(decode(many.as_bytes(), FormLimits::default()), Err(FormError::TooManyFields(2_000)));
        assert!(decode(b"a[1][2][3][4][5][6][7]=x", FormLimits::default()).is_ok());
        assert_eq!(decode(b"a[1][2][3][4][5][6][7][8]=x", FormLimits::default()), Err(FormError::TooDeep(8)));
    }

    #[test]
    fn a_tower_of_brackets_is_refused_at_once() {
        let tower = format!("a{}=x", "[b]".repeat(20_000));
        assert_eq!(decode(tower.as_bytes(), FormLimits::default()), Err(FormError::TooDeep(8)));
        let open = format!("a{}=x", "[".repeat(20_000));
        assert_eq!(decoded(&open).as_object().unwrap().len(), 1);
    }

    #[test]
    fn huge_numbers_allocate_nothing() {
        let value = decoded("a[999999999999999999]=1&a[]=2&a[99999999999999999999]=3");
        assert_eq!(value["a"].as_object().unwrap().len(), 3);
    }

    #[test]
    fn scalars_are_read_leniently() {
        assert_eq!(integer(&json!("12")), Some(12));
        assert_eq!(integer(&json!(12.0)), Some(12));
        assert_eq!(integer(&json!(12.5)), None);
        assert_eq!(integer(&json!("")), None);
        assert_eq!(text(&json!(12.0)).as_deref(), Some("12"));
        assert_eq!(text(&json!({})), None);
        assert_eq!(number(&json!("0.5")), Some(0.5));
        assert_eq!(number(&json!("NaN")), None);
        for yes in [json!("Y"), json!("y"), json!("1"), json!(1), json!(true), json!("true")] {
            assert_eq!(flag(&yes), Some(true), "{yes}");
        }
        for no in [json!("N"), json!("0"), json!(0), json!(false)] {
            assert_eq!(flag(&no), Some(false), "{no}");
        }
        assert_eq!(flag(&json!("")), None);
        assert_eq!(flag(&json!("perhaps")), None);
    }

    #[test]
    fn lists_are_read_in_every_disguise() {
        assert_eq!(texts(&json!("a")), ["a"]);
        assert_eq!(texts(&json!(["a", 2])), ["a", "2"]);
        assert_eq!(texts(&json!({"1": "a", "7": "b"})), ["a", "b"]);
        assert!(texts(&json!("")).is_empty());
        assert!(texts(&json!([])).is_empty());
        assert!(texts(&Value::Null).is_empty());
    }

    #[test]
    fn members_are_found_in_any_case() {
        let value = json!({"auth": {"Member_Id": "m"}, "list": ["a", {"b": 1}]});
        assert_eq!(member(&value["auth"], "member_id"), Some(&json!("m")));
        assert_eq!(at(&value, &["list", "1", "b"]), Some(&json!(1)));
        assert_eq!(at(&value, &["list", "x"]), None);
        assert_eq!(text_at(&value, &["auth", "Member_Id"]), "m");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(form in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(value) = decode(&form, FormLimits::default()) {
                prop_assert!(value.is_object());
            }
        }

        #[test]
        fn any_brackets_are_read_without_panic(form in "[ab0-2=&\\[\\]%5BD]{0,80}") {
            if let Ok(value) = decode(form.as_bytes(), FormLimits { fields: 20, depth: 4 }) {
                prop_assert!(height(&value) <= 5);
            }
        }
    }

    fn height(value: &Value) -> usize {
        1 + items(value).into_iter().filter(|inner| !inner.is_string()).map(height).max().unwrap_or(0)
    }
}
