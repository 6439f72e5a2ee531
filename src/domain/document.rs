//! A JSON object of bounded shape: what twins, initial twins and payloads are made of.

use std::fmt;

use serde_json::{Map, Value};

use super::limits;
use super::shared::Shared;

/// Why a JSON value is not a document that a twin can hold (reference/dps.md §8.4).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentFault {
    #[error("must be a JSON object")]
    NotAnObject,
    #[error("is {bytes} bytes, the most is {max}")]
    TooLarge { bytes: usize, max: usize },
    #[error("is nested deeper than {max} levels at {path}")]
    TooDeep { path: String, max: usize },
    #[error("the key at {path} is longer than {max} bytes")]
    KeyTooLong { path: String, max: usize },
    #[error("the key {key:?} holds a character that is not allowed (control characters, '.', '$' and blank)")]
    KeyCharacter { key: String },
    #[error("the text at {path} is longer than {max} bytes")]
    StringTooLong { path: String, max: usize },
    #[error("the integer at {path} is outside -4503599627370496 to 4503599627370495")]
    IntegerRange { path: String },
    #[error("there is a null at {path} inside an array, which has no meaning in a twin")]
    NullInArray { path: String },
}

/// A JSON object. Keys are sorted, so that equal documents have equal text. Copies share their members.
#[derive(Clone, Default, PartialEq)]
pub struct Document(pub Shared<Map<String, Value>>);

impl From<Map<String, Value>> for Document {
    fn from(map: Map<String, Value>) -> Self {
        Self(map.into())
    }
}

impl Document {
    /// The merge patch (RFC 7396) that turns this document into `other`: null for what it lacks.
    pub fn difference_to(&self, other: &Document) -> Document {
        difference(&self.0, &other.0).into()
    }

    /// Takes an object; anything else is refused. Says nothing about limits: see [`Document::check`].
    pub fn from_value(value: Value) -> Result<Self, DocumentFault> {
        match value {
            Value::Object(map) => Ok(map.into()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(DocumentFault::NotAnObject)
            }
        }
    }

    /// The members, for good.
    pub fn into_value(self) -> Value {
        Value::Object(self.0.into_inner())
    }

    pub fn to_value(&self) -> Value {
        Value::Object((*self.0).clone())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Canonical JSON text.
    pub fn to_text(&self) -> String {
        // A Map of Values always serialises: its keys are strings and its numbers finite.
        serde_json::to_string(&*self.0).unwrap_or_default()
    }

    /// Reads JSON text of an object.
    pub fn from_text(text: &str) -> Result<Self, DocumentFault> {
        serde_json::from_str::<Map<String, Value>>(text).map(Self::from).map_err(|_| DocumentFault::NotAnObject)
    }

    /// The size that limits count: key bytes plus value bytes, strings without control characters, numbers 8,
    /// booleans 4, nulls 0, objects and arrays the sum of their parts (reference/dps.md §8.4).
    pub fn counted_bytes(&self) -> usize {
        object_bytes(&self.0)
    }

    /// Holds the document against the limits of a twin section of at most `bytes_max`.
    pub fn check(&self, bytes_max: usize) -> Result<(), DocumentFault> {
        check_object(&self.0, &mut String::new(), 1)?;
        let bytes = self.counted_bytes();
        if bytes > bytes_max { Err(DocumentFault::TooLarge { bytes, max: bytes_max }) } else { Ok(()) }
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

fn text_bytes(text: &str) -> usize {
    text.chars().filter(|c| !c.is_control()).map(char::len_utf8).sum()
}

fn object_bytes(map: &Map<String, Value>) -> usize {
    map.iter().map(|(key, value)| text_bytes(key) + value_bytes(value)).sum()
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text_bytes(text),
        Value::Array(items) => items.iter().map(value_bytes).sum(),
        Value::Object(map) => object_bytes(map),
    }
}

fn check_object(map: &Map<String, Value>, path: &mut String, depth: usize) -> Result<(), DocumentFault> {
    if depth > limits::TWIN_DEPTH_MAX {
        return Err(DocumentFault::TooDeep { path: path.clone(), max: limits::TWIN_DEPTH_MAX });
    }
    for (key, value) in map {
        if key.len() > limits::TWIN_KEY_BYTES_MAX {
            return Err(DocumentFault::KeyTooLong { path: path.clone(), max: limits::TWIN_KEY_BYTES_MAX });
        }
        if key.is_empty() || key.chars().any(|c| c.is_control() || matches!(c, '.' | '$' | ' ')) {
            return Err(DocumentFault::KeyCharacter { key: key.clone() });
        }
        let length = path.len();
        path.push('/');
        path.push_str(key);
        check_value(value, path, depth, false)?;
        path.truncate(length);
    }
    Ok(())
}

fn check_value(value: &Value, path: &mut String, depth: usize, in_array: bool) -> Result<(), DocumentFault> {
    match value {
        Value::Null if in_array => Err(DocumentFault::NullInArray { path: path.clone() }),
        Value::Null | Value::Bool(_) => Ok(()),
        Value::Number(number) => match number.as_i64() {
            Some(n) if (limits::TWIN_INTEGER_MIN..=limits::TWIN_INTEGER_MAX).contains(&n) => Ok(()),
            Some(_) => Err(DocumentFault::IntegerRange { path: path.clone() }),
            None if number.is_u64() => Err(DocumentFault::IntegerRange { path: path.clone() }),
            None => Ok(()),
        },
        Value::String(text) if text.len() > limits::TWIN_STRING_BYTES_MAX => {
            Err(DocumentFault::StringTooLong { path: path.clone(), max: limits::TWIN_STRING_BYTES_MAX })
        }
        Value::String(_) => Ok(()),
        Value::Array(items) => {
            if depth >= limits::TWIN_DEPTH_MAX {
                return Err(DocumentFault::TooDeep { path: path.clone(), max: limits::TWIN_DEPTH_MAX });
            }
            items.iter().try_for_each(|item| check_value(item, path, depth + 1, true))
        }
        Value::Object(map) => check_object(map, path, depth + 1),
    }
}

fn difference(from: &Map<String, Value>, to: &Map<String, Value>) -> Map<String, Value> {
    let gone = from.keys().filter(|key| !to.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = to.iter().filter_map(|(key, value)| match (from.get(key), value) {
        (Some(before), after) if before == after => None,
        (Some(Value::Object(before)), Value::Object(after)) => {
            Some((key.clone(), Value::Object(difference(before, after))))
        }
        (Some(_) | None, after) => Some((key.clone(), after.clone())),
    });
    gone.chain(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        Document::from_text(text).unwrap()
    }

    fn nested(levels: usize) -> Document {
        let open = "{\"a\":".repeat(levels);
        document(&format!("{open}1{}", "}".repeat(levels)))
    }

    #[test]
    fn what_a_twin_may_hold() {
        let long_key = format!("{{\"{}\":1}}", "k".repeat(1025));
        let long_text = format!("{{\"k\":\"{}\"}}", "x".repeat(4097));
        for (text, fits) in [
            ("{}", true),
            (r#"{"a":{"b":[1,2.5,"x",true,{"c":null}]}}"#, true),
            (r#"{"version":1,"count":2,"metadata":{}}"#, true),
            (r#"{"a":4503599627370495}"#, true),
            (r#"{"a":4503599627370496}"#, false),
            (r#"{"a":-4503599627370497}"#, false),
            (r#"{"a":18446744073709551615}"#, false),
            (r#"{"$a":1}"#, false),
            (r#"{"a.b":1}"#, false),
            (r#"{"a b":1}"#, false),
            (r#"{"":1}"#, false),
            (r#"{"a\u0007":1}"#, false),
            (r#"{"a":[null]}"#, false),
            (long_key.as_str(), false),
            (long_text.as_str(), false),
        ] {
            assert_eq!(document(text).check(limits::DESIRED_BYTES_MAX).is_ok(), fits, "{text:.80}");
        }
    }

    #[test]
    fn depth_is_bounded_at_ten() {
        assert_eq!(nested(10).check(1024), Ok(()));
        assert!(matches!(nested(11).check(1024), Err(DocumentFault::TooDeep { .. })));
    }

    #[test]
    fn size_counts_keys_and_values() {
        assert_eq!(
            document(r#"{"ab":1,"c":true,"d":"xyz","e":[1,2],"f":null}"#).counted_bytes(),
            2 + 8 + 1 + 4 + 1 + 3 + 1 + 16 + 1
        );
        assert!(matches!(document(r#"{"abc":1}"#).check(10), Err(DocumentFault::TooLarge { bytes: 11, max: 10 })));
    }

    #[test]
    fn a_difference_leads_from_one_document_to_the_other() {
        for (from, to, expected) in [
            ("{}", "{}", "{}"),
            (r#"{"a":1}"#, r#"{"a":1}"#, "{}"),
            (r#"{"a":1,"b":{"c":1,"d":2}}"#, r#"{"b":{"c":1,"d":3},"e":0}"#, r#"{"a":null,"b":{"d":3},"e":0}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":2}"#, r#"{"a":2}"#),
        ] {
            let (from, to) = (Document::from_text(from).unwrap(), Document::from_text(to).unwrap());
            assert_eq!(from.difference_to(&to), Document::from_text(expected).unwrap());
        }
    }
}
