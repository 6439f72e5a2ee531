//! JSON in messages: `google.protobuf.Struct` and `Value`.
//!
//! The wire knows doubles only. A whole number comes in as a JSON integer, so that 5 stays 5; one that a double does not
//! hold exactly is left for the document's own check to refuse.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as WireValue};
use serde_json::{Map, Number, Value};

use crate::domain::{Document, limits};
use crate::wire::WireFault;

/// Levels that are translated at all: a bound on the stack, above what any document may have. protobuf decoders stop at
/// about the same depth.
pub const DEPTH_MAX: usize = 32;

/// Whole doubles of this size or more do not fit an `i64`.
const INTEGER_END: f64 = 9_223_372_036_854_775_808.0;

/// Any JSON of at most [`limits::PAYLOAD_BYTES_MAX`] bytes of text.
pub fn payload(field: &'static str, value: &WireValue) -> Result<Value, WireFault> {
    let value = read_value(value, DEPTH_MAX).map_err(|problem| WireFault::new(field, problem))?;
    let bytes = value.to_string().len();
    if bytes > limits::PAYLOAD_BYTES_MAX {
        let most = limits::PAYLOAD_BYTES_MAX;
        return Err(WireFault::new(field, format!("is {bytes} bytes of JSON, the most is {most}")));
    }
    Ok(value)
}

/// A JSON object. Its size and keys are judged by [`Document::check`], where the section is known.
pub fn document(field: &'static str, value: &Struct) -> Result<Document, WireFault> {
    read_object(value, DEPTH_MAX).map(Document::from).map_err(|problem| WireFault::twin(field, problem))
}

pub fn optional_document(field: &'static str, value: Option<&Struct>) -> Result<Option<Document>, WireFault> {
    value.map(|value| document(field, value)).transpose()
}

/// Absent is empty.
pub fn document_or_empty(field: &'static str, value: Option<&Struct>) -> Result<Document, WireFault> {
    Ok(optional_document(field, value)?.unwrap_or_default())
}

fn read_object(object: &Struct, depth_left: usize) -> Result<Map<String, Value>, String> {
    object.fields.iter().map(|(key, value)| Ok((key.clone(), read_value(value, depth_left)?))).collect()
}

fn read_value(value: &WireValue, depth_left: usize) -> Result<Value, String> {
    let below = || depth_left.checked_sub(1).ok_or_else(|| format!("is nested deeper than {DEPTH_MAX} levels"));
    match &value.kind {
        Some(Kind::NullValue(_)) => Ok(Value::Null),
        Some(Kind::BoolValue(flag)) => Ok(Value::Bool(*flag)),
        Some(Kind::NumberValue(number)) => read_number(*number),
        Some(Kind::StringValue(text)) => Ok(Value::String(text.clone())),
        Some(Kind::ListValue(list)) => {
            let depth_left = below()?;
            list.values.iter().map(|item| read_value(item, depth_left)).collect::<Result<_, _>>().map(Value::Array)
        }
        Some(Kind::StructValue(object)) => read_object(object, below()?).map(Value::Object),
        None => Err("holds a value of no kind".to_owned()),
    }
}

fn read_number(number: f64) -> Result<Value, String> {
    if number.fract() == 0.0 && (-INTEGER_END..INTEGER_END).contains(&number) {
        #[allow(clippy::cast_possible_truncation, reason = "whole and in range: the cast is exact")]
        return Ok(Value::from(number as i64));
    }
    Number::from_f64(number).map(Value::Number).ok_or_else(|| "holds a number that is not finite".to_owned())
}

pub fn wire_document(document: &Document) -> Struct {
    wire_object(&document.0)
}

pub fn wire_object(map: &Map<String, Value>) -> Struct {
    Struct { fields: map.iter().map(|(key, value)| (key.clone(), wire_value(value))).collect() }
}

/// A whole number beyond 2^53 loses digits: the wire has doubles only.
pub fn wire_value(value: &Value) -> WireValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(*flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(wire_value).collect() }),
        Value::Object(map) => Kind::StructValue(wire_object(map)),
    };
    WireValue { kind: Some(kind) }
}

/// JSON text as it was stored; text that is not JSON becomes a JSON string.
pub fn wire_text(text: &str) -> WireValue {
    match serde_json::from_str::<Value>(text) {
        Ok(value) => wire_value(&value),
        Err(_) => WireValue { kind: Some(Kind::StringValue(text.to_owned())) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: f64) -> WireValue {
        WireValue { kind: Some(Kind::NumberValue(number)) }
    }

    fn nested(levels: usize) -> WireValue {
        (0..levels)
            .fold(number(1.0), |inner, _| WireValue { kind: Some(Kind::ListValue(ListValue { values: vec![inner] })) })
    }

    #[test]
    fn documents_come_back_as_they_were() {
        for text in [
            "{}",
            r#"{"a":5,"b":-7,"c":0.5,"d":"x","e":true,"f":null,"g":[1,[2,{"h":{}}]],"i":{"j":[]}}"#,
            r#"{"max":4503599627370495,"min":-4503599627370496,"big":1e300}"#,
        ] {
            let document_before = Document::from_text(text).unwrap();
            assert_eq!(document("d", &wire_document(&document_before)), Ok(document_before), "{text}");
        }
    }

    #[test]
    fn whole_numbers_are_integers() {
        for (from, expected) in [
            (5.0, "5"),
            (-0.0, "0"),
            (0.5, "0.5"),
            (9_007_199_254_740_993.0, "9007199254740992"),
            (-9_223_372_036_854_775_808.0, "-9223372036854775808"),
            (9_223_372_036_854_775_808.0, "9.223372036854776e+18"),
        ] {
            assert_eq!(payload("p", &number(from)).unwrap().to_string(), expected, "{from}");
        }
    }

    #[test]
    fn a_number_that_a_double_cannot_hold_is_refused_by_the_document() {
        let object = Struct { fields: [("n".to_owned(), number(9_007_199_254_740_994.0))].into() };
        assert!(document("d", &object).unwrap().check(1024).is_err());
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for value in [
            number(f64::NAN),
            number(f64::INFINITY),
            WireValue { kind: None },
            nested(DEPTH_MAX + 1),
            nested(DEPTH_MAX * 8),
            WireValue { kind: Some(Kind::StringValue("x".repeat(limits::PAYLOAD_BYTES_MAX))) },
        ] {
            assert_eq!(payload("payload", &value).unwrap_err().field, "payload");
        }
        assert!(payload("payload", &nested(DEPTH_MAX)).is_ok());
    }

    #[test]
    fn a_document_of_no_shape_is_a_fault_of_the_twin() {
        let object = Struct { fields: [("n".to_owned(), nested(DEPTH_MAX + 1))].into() };
        let fault = crate::domain::Fault::from(document("desired", &object).unwrap_err());
        assert_eq!(fault.reason, crate::domain::Reason::TwinInvalid);
    }

    #[test]
    fn stored_text_is_handed_out_even_if_it_is_not_json() {
        assert_eq!(payload("p", &wire_text(r#"{"a":1}"#)), Ok(serde_json::json!({"a": 1})));
        assert_eq!(payload("p", &wire_text("{nope")), Ok(Value::String("{nope".to_owned())));
    }
}
