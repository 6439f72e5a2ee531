//! Twin documents and patches.

use rehome::domain::{Document, InitialState, Timestamp, Twin, TwinPatch, limits, twin::Metadata};
use serde_json::{Map, Value};

const NOW: Timestamp = Timestamp(1_000);
const LATER: Timestamp = Timestamp(2_000);

/// Lines of JSON: the twin's desired properties, then patches of desired, reported and tags. What is accepted keeps the
/// limits, raises exactly the versions it should, leaves the other parts alone, and is the same when it comes twice.
pub fn twin_patch(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let mut lines = text.split('\n').map(|line| Document::from_text(line).ok());
    let Some(Some(desired)) = lines.next() else { return false };
    let read = Document::from_text(&desired.to_text()).expect("its own text");
    assert_eq!(read, desired);
    if desired.check(limits::DESIRED_BYTES_MAX).is_err() {
        return false;
    }
    let twin = Twin::initial(&InitialState { desired, ..InitialState::default() }, NOW);
    let patch =
        TwinPatch { desired: lines.next().flatten(), reported: lines.next().flatten(), tags: lines.next().flatten() };
    let Ok(patched) = twin.patched(&patch, LATER) else { return false };
    for (section, bytes_max) in [
        (&patched.tags, limits::TAGS_BYTES_MAX),
        (&patched.desired.properties, limits::DESIRED_BYTES_MAX),
        (&patched.reported.properties, limits::REPORTED_BYTES_MAX),
    ] {
        section.check(bytes_max).expect("what is accepted keeps the limits");
    }
    for (before, after, part) in
        [(&twin.desired, &patched.desired, &patch.desired), (&twin.reported, &patched.reported, &patch.reported)]
    {
        assert_eq!(after.version, before.version + u64::from(part.is_some()));
        if part.is_none() {
            assert_eq!(after, before);
        } else {
            assert!(mirrors(&after.metadata, &after.properties.0), "{after:?}");
            assert!(!after.properties.0.values().any(Value::is_null), "a null deletes, and is never kept");
        }
    }
    let again = patched.patched(&patch, LATER).expect("what fitted once fits again");
    assert_eq!(again.desired.properties, patched.desired.properties);
    assert_eq!(again.reported.properties, patched.reported.properties);
    assert_eq!(again.tags, patched.tags);
    true
}

/// The metadata names every property, and no other.
fn mirrors(metadata: &Metadata, properties: &Map<String, Value>) -> bool {
    metadata.properties.len() == properties.len()
        && properties.iter().all(|(key, value)| {
            metadata.properties.get(key).is_some_and(|below| match value {
                Value::Object(inner) => mirrors(below, inner),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                    below.properties.is_empty()
                }
            })
        })
}
