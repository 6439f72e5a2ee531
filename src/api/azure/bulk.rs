//! A bulk operation of the service API: what is asked of each entry, and what came of those that failed
//! (reference/dps.md §7).

use serde_json::{Value, json};

use super::enrollment::EnrollmentKind;
use super::fault::Refusal;
use super::members::{Members, wrong};
use crate::domain::limits;

/// What is to be done to every entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// None of them may be there.
    Create,
    /// All of them must be there, as their etags say.
    Update,
    /// As above; an entry without an etag is not understood.
    UpdateIfMatch,
    /// As above, where an etag is given.
    Delete,
}

/// A bulk operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Bulk {
    pub mode: Mode,
    pub entries: Vec<Value>,
}

impl Bulk {
    /// Takes a body apart. Its entries are judged one by one later.
    pub fn read(kind: EnrollmentKind, mut body: Value) -> Result<Self, Refusal> {
        let given = Members::of(&body)?;
        let mode = match given.text("mode")?.map(str::to_ascii_lowercase).as_deref() {
            Some("create") => Mode::Create,
            Some("update") => Mode::Update,
            Some("updateifmatchetag") => Mode::UpdateIfMatch,
            Some("delete") => Mode::Delete,
            Some(_) => return Err(wrong("mode", "is not one of create, update, updateIfMatchETag and delete")),
            None => return Err(wrong("mode", "is missing")),
        };
        let member = kind.bulk_member();
        let count = given.list(member)?.ok_or_else(|| wrong(member, "is missing"))?.len();
        if count == 0 || count > limits::BULK_MAX {
            return Err(wrong(member, format_args!("has {count} entries, it may have 1 to {}", limits::BULK_MAX)));
        }
        let entries = body.get_mut(member).and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
        Ok(Self { mode, entries })
    }
}

/// The line of an entry that failed.
pub fn failed(kind: EnrollmentKind, entry: &Value, refusal: &Refusal) -> Value {
    let id = entry.get(kind.id_member()).and_then(Value::as_str).unwrap_or_default();
    let id: String = id.chars().take(limits::REGISTRATION_ID_CHARS_MAX).collect();
    let mut line = json!({ "errorCode": refusal.code.code, "errorStatus": refusal.message });
    line[kind.id_member()] = id.into();
    line
}

/// The answer.
pub fn outcome(errors: Vec<Value>) -> Value {
    json!({ "isSuccessful": errors.is_empty(), "errors": errors })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_entries() {
        let read = |body: Value| Bulk::read(EnrollmentKind::Individual, body);
        let entries = json!([{ "registrationId": "a" }]);
        for (word, mode) in [
            ("create", Mode::Create),
            ("update", Mode::Update),
            ("updateIfMatchETag", Mode::UpdateIfMatch),
            ("UPDATEIFMATCHETAG", Mode::UpdateIfMatch),
            ("delete", Mode::Delete),
        ] {
            let bulk = read(json!({ "mode": word, "enrollments": entries })).unwrap();
            assert_eq!((bulk.mode, bulk.entries.len()), (mode, 1), "{word}");
        }
        for body in [
            json!([]),
            json!({}),
            json!({ "mode": "create" }),
            json!({ "mode": 1, "enrollments": entries }),
            json!({ "mode": "upsert", "enrollments": entries }),
            json!({ "mode": "create", "enrollments": {} }),
            json!({ "mode": "create", "enrollments": [] }),
            json!({ "mode": "create", "enrollmentGroups": entries }),
            json!({ "mode": "create", "enrollments": vec![0; limits::BULK_MAX + 1] }),
        ] {
            assert_eq!(read(body.clone()).unwrap_err().code.code, 400_004, "{body}");
        }
    }

    #[test]
    fn a_failed_entry_is_named_where_it_can_be() {
        let refusal = Refusal::new(409_201, "it is there");
        for (entry, id) in [(json!({ "registrationId": "a" }), "a"), (json!(7), ""), (json!({}), "")] {
            let line = failed(EnrollmentKind::Individual, &entry, &refusal);
            assert_eq!(line, json!({ "registrationId": id, "errorCode": 409_201, "errorStatus": "it is there" }));
        }
        assert_eq!(outcome(Vec::new()), json!({ "isSuccessful": true, "errors": [] }));
    }
}
