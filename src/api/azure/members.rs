//! The members of a JSON object, read one by one: null is absent, what is not known is passed over, and a fault names the
//! member.

use serde_json::{Map, Value};

use super::fault::Refusal;
use crate::domain::{Document, IdFault};

/// A JSON object and where it stands.
#[derive(Debug, Clone)]
pub struct Members<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

/// A member that is not what it should be.
pub fn wrong(path: &str, what: impl std::fmt::Display) -> Refusal {
    Refusal::new(400_004, format!("{path} {what}"))
}

/// A body that must be JSON.
pub fn json(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|_| Refusal::new(400_004, "the body is not JSON"))
}

impl<'a> Members<'a> {
    /// The members of a whole body.
    pub fn of(value: &'a Value) -> Result<Self, Refusal> {
        match value {
            Value::Object(map) => Ok(Self { map, path: String::new() }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(Refusal::new(400_004, "the body is no JSON object"))
            }
        }
    }

    /// Where a member stands.
    pub fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub fn value(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub fn text(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        self.read(name, "is no text", Value::as_str)
    }

    pub fn switch(&self, name: &str) -> Result<Option<bool>, Refusal> {
        self.read(name, "is neither true nor false", Value::as_bool)
    }

    pub fn list(&self, name: &str) -> Result<Option<&'a Vec<Value>>, Refusal> {
        self.read(name, "is no array", Value::as_array)
    }

    pub fn object(&self, name: &str) -> Result<Option<Members<'a>>, Refusal> {
        let map = self.read(name, "is no JSON object", Value::as_object)?;
        Ok(map.map(|map| Members { map, path: self.path(name) }))
    }

    /// A text of a form of its own.
    pub fn parsed<T>(&self, name: &str, parse: impl FnOnce(&str) -> Result<T, IdFault>) -> Result<Option<T>, Refusal> {
        let text = self.text(name)?;
        text.map(|text| parse(text).map_err(|fault| wrong(&self.path(name), format_args!("is refused: {fault}"))))
            .transpose()
    }

    /// An object of any content; absent is empty.
    pub fn document(&self, name: &str) -> Result<Document, Refusal> {
        let map = self.read(name, "is no JSON object", Value::as_object)?;
        Ok(Document::from(map.cloned().unwrap_or_default()))
    }

    /// What this service cannot keep is not taken in silence.
    pub fn must_be_empty(&self, name: &str) -> Result<(), Refusal> {
        match self.value(name) {
            None => Ok(()),
            Some(Value::Object(map)) if map.is_empty() => Ok(()),
            Some(_) => Err(wrong(&self.path(name), "is not kept by this service: leave it out")),
        }
    }

    fn read<T>(
        &self,
        name: &str,
        otherwise: &str,
        take: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        match self.value(name) {
            None => Ok(None),
            Some(value) => take(value).map(Some).ok_or_else(|| wrong(&self.path(name), otherwise)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn null_is_absent_and_a_fault_names_the_member() {
        let value = json!({ "a": null, "b": { "c": 1, "d": {} }, "e": "x", "f": [] });
        let members = Members::of(&value).unwrap();
        assert_eq!(members.text("a"), Ok(None));
        assert_eq!(members.text("e"), Ok(Some("x")));
        assert_eq!(members.text("f").unwrap_err().message, "f is no text");
        let below = members.object("b").unwrap().unwrap();
        assert_eq!(below.switch("c").unwrap_err().message, "b.c is neither true nor false");
        assert_eq!(below.must_be_empty("d"), Ok(()));
        assert_eq!(below.must_be_empty("c").unwrap_err().code.code, 400_004);
        assert!(members.document("a").unwrap().is_empty());
        for broken in [json!([]), json!(1), json!("x"), Value::Null] {
            assert!(Members::of(&broken).is_err());
        }
        assert!(json(b"{").is_err() && json(&[b'['; 100_000]).is_err());
    }
}
