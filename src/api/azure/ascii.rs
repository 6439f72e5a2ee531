//! JSON in ASCII: some SDKs decode answers as such (reference/azure-sdk-wire.md), so every other character is escaped.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};

/// The value's text, with every character beyond ASCII as `\uXXXX` (RFC 8259, section 7).
pub fn ascii_json(value: &Value) -> Vec<u8> {
    let mut text = Vec::new();
    // A JSON value has string keys only, and memory takes what is written: there is nothing that could fail.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut text, Ascii));
    text
}

struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut units = [0; 2];
        for character in fragment.chars() {
            if character.is_ascii() {
                writer.write_all(&[character as u8])?;
            } else {
                for unit in character.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ascii_is_escaped_and_means_the_same() {
        let value = serde_json::json!({ "größe": ["5 µm", "🚚", "\u{7f}\"\n"], "n": 1.5, "deep": { "ok": null } });
        let text = ascii_json(&value);
        assert!(text.is_ascii());
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), value);
        assert_eq!(ascii_json(&Value::from("é")), br#""\u00e9""#);
        assert_eq!(ascii_json(&Value::from("🚚")), br#""\ud83d\ude9a""#);
    }
}
