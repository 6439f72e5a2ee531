//! A twin as existing device SDKs read it (reference/dps.md §8.4 and §8.6). Devices never see tags.

use serde_json::{Map, Value};

use crate::domain::{DeviceState, Document};

/// `{"desired":{…,"$version":n},"reported":{…,"$version":n}}`
pub fn of_device(state: &DeviceState) -> Value {
    let section = |document: &Document, version: u64| {
        let mut properties = (*document.0).clone();
        properties.insert("$version".to_owned(), version.into());
        Value::Object(properties)
    };
    let mut twin = Map::new();
    twin.insert("desired".to_owned(), section(&state.twin.desired.properties, state.twin.desired.version));
    twin.insert("reported".to_owned(), section(&state.twin.reported.properties, state.twin.reported.version));
    Value::Object(twin)
}

/// A change of desired properties: the merge patch and the version that it leads to.
pub fn desired_patch(patch: &Document, version: u64) -> Value {
    let mut patch = (*patch.0).clone();
    patch.insert("$version".to_owned(), version.into());
    Value::Object(patch)
}

/// The document after a merge patch (RFC 7396).
pub fn patched(document: &mut Document, patch: &Document) {
    merge(&mut document.0, &patch.0);
}

fn merge(into: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                into.remove(key);
            }
            Value::Object(below) => {
                let slot = into.entry(key.clone()).or_insert(Value::Null);
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(slot) = slot {
                    merge(slot, below);
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

/// The merge patch that leads from one document to another (RFC 7396).
pub fn patch_between(from: &Document, to: &Document) -> Document {
    difference(&from.0, &to.0).into()
}

fn difference(from: &Map<String, Value>, to: &Map<String, Value>) -> Map<String, Value> {
    let gone = from.keys().filter(|key| !to.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let there = to.iter().filter_map(|(key, wanted)| match (from.get(key), wanted) {
        (Some(had), wanted) if had == wanted => None,
        (Some(Value::Object(had)), Value::Object(wanted)) => Some((key.clone(), difference(had, wanted).into())),
        (_, wanted) => Some((key.clone(), wanted.clone())),
    });
    gone.chain(there).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        Document::from_text(text).unwrap()
    }

    #[test]
    fn a_patch_leads_from_one_document_to_the_other() {
        let check = |from: &str, to: &str, patch: &str| {
            assert_eq!(patch_between(&document(from), &document(to)), document(patch), "{from} to {to}");
            let mut led = document(from);
            patched(&mut led, &document(patch));
            assert_eq!(led, document(to), "{from} with {patch}");
        };
        check("{}", "{}", "{}");
        check(r#"{"a":1}"#, r#"{"a":1}"#, "{}");
        check(r#"{"a":1}"#, r#"{"a":2,"b":[1]}"#, r#"{"a":2,"b":[1]}"#);
        check(r#"{"a":1,"b":2}"#, r#"{"b":2}"#, r#"{"a":null}"#);
        check(r#"{"a":{"x":1,"y":2}}"#, r#"{"a":{"x":1}}"#, r#"{"a":{"y":null}}"#);
        check(r#"{"a":{"x":1}}"#, r#"{"a":7}"#, r#"{"a":7}"#);
        check(r#"{"a":7}"#, r#"{"a":{"x":1}}"#, r#"{"a":{"x":1}}"#);
    }

    #[test]
    fn a_change_carries_its_version() {
        assert_eq!(desired_patch(&document(r#"{"a":null}"#), 7), serde_json::json!({ "a": null, "$version": 7 }));
    }
}
