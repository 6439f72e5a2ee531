//! What is shown of each record: a table row, a list of facts, and JSON with stable keys.

pub mod audit;
pub mod enrollment;
pub mod hub;
pub mod registration;
pub mod tpm;
pub mod twin;
pub mod update;

use serde_json::Value;

/// A text of a cell: a dash where there is nothing.
pub(super) fn cell(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}

/// A fact's value: empty, and so left out, where there is nothing.
fn fact(text: Option<&str>) -> String {
    text.unwrap_or_default().to_owned()
}

fn yes_no(truth: bool) -> String {
    if truth { "yes" } else { "no" }.to_owned()
}

/// A document for people: indented, and nothing for an absent or empty one.
fn document_fact(document: &Value) -> String {
    let is_empty = document.is_null() || document.as_object().is_some_and(serde_json::Map::is_empty);
    if is_empty { String::new() } else { serde_json::to_string_pretty(document).unwrap_or_default() }
}

/// The text of something that may be absent.
fn text(value: Option<impl ToString>) -> Option<String> {
    value.map(|value| value.to_string())
}

/// A text, `None` when it is empty.
fn full(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}
