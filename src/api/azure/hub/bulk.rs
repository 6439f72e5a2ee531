//! Many devices of a registry at once: what is asked of each, and what came of those that failed (reference/dps.md §8.1).

use serde_json::{Value, json};

use crate::api::azure::etag::Condition;
use crate::api::azure::fault::Refusal;
use crate::api::azure::members::{Members, wrong};
use crate::domain::{DeviceId, limits};

/// What is to be done to one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// It must not be there yet.
    Create,
    /// It must be as the condition says; where nothing is said, it may be missing, too.
    Write(Condition),
    Remove(Condition),
}

/// The entries of a body, at most [`limits::BULK_DEVICES_MAX`]. They are judged one by one later.
pub fn entries(body: &Value) -> Result<&[Value], Refusal> {
    let most = limits::BULK_DEVICES_MAX;
    let entries = body.as_array().ok_or_else(|| Refusal::new(400_004, "the body is no array"))?;
    if entries.is_empty() || entries.len() > most {
        return Err(Refusal::new(400_004, format!("there are {} devices, there may be 1 to {most}", entries.len())));
    }
    Ok(entries)
}

/// The device of an entry, and what is asked of it.
pub fn read(entry: &Members<'_>) -> Result<(DeviceId, Deed), Refusal> {
    let id = entry.parsed("id", DeviceId::parse)?.ok_or_else(|| wrong("id", "is missing"))?;
    let mode = entry.text("importMode")?.unwrap_or_default();
    let etag = || match Condition::read(entry.text("eTag")?) {
        Condition::None => Err(wrong("eTag", "is missing")),
        condition => Ok(condition),
    };
    let deed = match mode.to_ascii_lowercase().as_str() {
        "create" => Deed::Create,
        "update" => Deed::Write(Condition::Any),
        "createorupdate" => Deed::Write(Condition::None),
        "updateifmatchetag" | "createorupdateifmatchetag" => Deed::Write(etag()?),
        "delete" => Deed::Remove(Condition::Any),
        "deleteifmatchetag" => Deed::Remove(etag()?),
        _ => return Err(wrong("importMode", "is not one of create, update and delete, and their conditional kinds")),
    };
    Ok((id, deed))
}

/// The line of an entry that failed.
pub fn failed(entry: &Value, refusal: &Refusal) -> Value {
    let id = entry.get("id").and_then(Value::as_str).unwrap_or_default();
    let id: String = id.chars().take(limits::DEVICE_ID_CHARS_MAX).collect();
    json!({ "deviceId": id, "errorCode": refusal.code.code, "errorStatus": refusal.message })
}

/// The answer: its status, and the body.
pub fn outcome(errors: Vec<Value>) -> (u16, Value) {
    let is_successful = errors.is_empty();
    let body = json!({ "isSuccessful": is_successful, "errors": errors, "warnings": [] });
    (if is_successful { 200 } else { 400 }, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_of_a_device() {
        let read = |entry: Value| read(&Members::of(&entry).unwrap()).map_err(|refusal| refusal.code.code);
        let id = DeviceId::parse("d").unwrap();
        let etag = || Condition::Etag("e".to_owned());
        for (mode, deed) in [
            ("create", Deed::Create),
            ("update", Deed::Write(Condition::Any)),
            ("createOrUpdate", Deed::Write(Condition::None)),
            ("updateIfMatchETag", Deed::Write(etag())),
            ("createOrUpdateIfMatchETag", Deed::Write(etag())),
            ("delete", Deed::Remove(Condition::Any)),
            ("DELETEIFMATCHETAG", Deed::Remove(etag())),
        ] {
            let entry = json!({ "id": "d", "importMode": mode, "eTag": "\"e\"" });
            assert_eq!(read(entry), Ok((id.clone(), deed)), "{mode}");
        }
        for entry in [
            json!({}),
            json!({ "id": "d" }),
            json!({ "id": "d", "importMode": "updateTwin" }),
            json!({ "id": "d", "importMode": "deleteIfMatchETag" }),
            json!({ "id": "a b", "importMode": "delete" }),
            json!({ "id": 7, "importMode": "delete" }),
        ] {
            assert_eq!(read(entry.clone()), Err(400_004), "{entry}");
        }
        for (body, fits) in [
            (json!([1]), true),
            (json!(vec![1; limits::BULK_DEVICES_MAX]), true),
            (json!(vec![1; limits::BULK_DEVICES_MAX + 1]), false),
            (json!([]), false),
            (json!({}), false),
        ] {
            assert_eq!(entries(&body).is_ok(), fits);
        }
    }

    #[test]
    fn one_that_failed_makes_the_answer_a_refusal() {
        assert_eq!(outcome(Vec::new()).0, 200);
        let line = failed(&json!({ "id": "d" }), &Refusal::new(404_001, "no"));
        assert_eq!(line, json!({ "deviceId": "d", "errorCode": 404_001, "errorStatus": "no" }));
        assert_eq!(outcome(vec![line]).0, 400);
    }
}
