//! Google's well-known types as JSON and text, and back.

use std::time::Duration;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Timestamp as WireTime, Value as WireValue};
use serde_json::{Map, Number, Value};

use crate::domain::{Geo, Timestamp};

use super::api::device::GeoPoint;

/// Integers up to here survive the trip through the wire's floating-point numbers.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

pub fn json(value: &WireValue) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(truth)) => Value::Bool(*truth),
        Some(Kind::NumberValue(number)) => number_json(*number),
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::ListValue(list)) => Value::Array(list.values.iter().map(json).collect()),
        Some(Kind::StructValue(object)) => Value::Object(object_json(object)),
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the number is whole and within ±2^53")]
fn number_json(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() <= EXACT_MAX {
        Value::from(number as i64)
    } else {
        Number::from_f64(number).map_or(Value::Null, Value::Number)
    }
}

fn object_json(object: &Struct) -> Map<String, Value> {
    object.fields.iter().map(|(key, value)| (key.clone(), json(value))).collect()
}

/// An object; `null` when it is absent.
pub fn document(object: Option<&Struct>) -> Value {
    object.map_or(Value::Null, |object| Value::Object(object_json(object)))
}

pub fn wire_value(value: &Value) -> WireValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(truth) => Kind::BoolValue(*truth),
        // A JSON number always has a nearest f64: serde_json holds no bigger ones.
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(wire_value).collect() }),
        Value::Object(map) => Kind::StructValue(wire_object(map)),
    };
    WireValue { kind: Some(kind) }
}

pub fn wire_object(map: &Map<String, Value>) -> Struct {
    Struct { fields: map.iter().map(|(key, value)| (key.clone(), wire_value(value))).collect() }
}

/// RFC 3339; `None` when it is absent.
pub fn time(time: Option<&WireTime>) -> Option<String> {
    time.map(|time| {
        let millis = time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos) / 1_000_000);
        Timestamp(millis).to_string()
    })
}

pub fn wire_time(time: Timestamp) -> WireTime {
    let nanos = i32::try_from(time.0.rem_euclid(1000) * 1_000_000).unwrap_or_default();
    WireTime { seconds: time.as_secs(), nanos }
}

pub fn seconds(span: Option<&prost_types::Duration>) -> Option<u64> {
    span.and_then(|span| u64::try_from(span.seconds).ok())
}

pub fn wire_span(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or_default(),
    }
}

pub fn wire_place(place: Geo) -> GeoPoint {
    GeoPoint { latitude: place.latitude, longitude: place.longitude }
}

/// The word of an enum value: its name in the API without the enum's own, in lower case. `None` for *unspecified* and for
/// values that this build does not know.
pub fn word(name: Option<&'static str>, prefix: &str) -> Option<String> {
    let word = name?.strip_prefix(prefix)?;
    (word != "UNSPECIFIED").then(|| word.to_ascii_lowercase())
}

/// A text, `None` when it is empty.
pub fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_come_back_as_they_went() {
        for value in [
            json!({}),
            json!({"a": 1, "b": -2.5, "c": [true, null, "x", {"d": {}}], "e": 4_503_599_627_370_495_i64}),
            json!({"big": 1e300}),
        ] {
            let object = value.as_object().unwrap();
            assert_eq!(document(Some(&wire_object(object))), value);
        }
        assert_eq!(document(None), Value::Null);
        let odd = WireValue { kind: Some(Kind::NumberValue(f64::NAN)) };
        assert_eq!(json(&odd), Value::Null);
    }

    #[test]
    fn times_are_rfc_3339() {
        let at = Timestamp(1_700_000_000_250);
        assert_eq!(time(Some(&wire_time(at))).as_deref(), Some("2023-11-14T22:13:20.250Z"));
        assert_eq!(wire_time(Timestamp(-1)), WireTime { seconds: -1, nanos: 999_000_000 });
        assert_eq!(time(None), None);
    }

    #[test]
    fn words_are_the_api_s_names() {
        assert_eq!(word(Some("HUB_STATE_ACTIVE"), "HUB_STATE_").as_deref(), Some("active"));
        assert_eq!(word(Some("HUB_STATE_UNSPECIFIED"), "HUB_STATE_"), None);
        assert_eq!(word(None, "HUB_STATE_"), None);
    }
}
