//! Etags as existing SDKs keep them: in JSON the base64 of a quoted text, without quotes around it; sent back as it is or
//! in quotes (reference/dps.md §1.6 and §7.1).
//!
//! A record's version alone would do within one life of the record. One that is deleted and made again counts from the
//! beginning, so the time of its making stands in the etag, too.

use data_encoding::BASE64;

use crate::domain::{Timestamp, Version};

/// A record's etag.
pub fn of(version: Version, created_at: Timestamp) -> String {
    BASE64.encode(format!("\"{}-{:x}\"", version.etag(), created_at.0).as_bytes())
}

/// A text without the quotes (and the mark of a weak etag) around it.
pub fn unquoted(text: &str) -> &str {
    let text = text.strip_prefix("W/").unwrap_or(text);
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// What `If-Match` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Nothing was said.
    None,
    /// It must be there.
    Any,
    /// It must have this etag.
    Etag(String),
}

impl Condition {
    /// Reads the header, or the etag of an entry.
    pub fn read(text: Option<&str>) -> Self {
        match text.map(|text| unquoted(text.trim())) {
            None | Some("") => Condition::None,
            Some("*") => Condition::Any,
            Some(text) => Condition::Etag(text.to_owned()),
        }
    }

    /// Whether something that is there, with this etag, is as it is asked for.
    pub fn holds(&self, etag: &str) -> bool {
        match self {
            Condition::None | Condition::Any => true,
            Condition::Etag(asked) => asked == etag,
        }
    }

    /// Whether it holds for whatever is there.
    pub fn is_open(&self) -> bool {
        match self {
            Condition::None | Condition::Any => true,
            Condition::Etag(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_come_back_with_quotes_or_without() {
        let etag = of(Version(7), Timestamp(255));
        assert_eq!(etag, BASE64.encode(b"\"v7-ff\""));
        let quoted = format!("\"{etag}\"");
        for (text, expected) in [
            (None, Condition::None),
            (Some(""), Condition::None),
            (Some("*"), Condition::Any),
            (Some("\"*\""), Condition::Any),
            (Some(etag.as_str()), Condition::Etag(etag.clone())),
            (Some(quoted.as_str()), Condition::Etag(etag.clone())),
            (Some(&format!("W/{quoted}")), Condition::Etag(etag.clone())),
            (Some(&format!(" {etag} ")), Condition::Etag(etag.clone())),
        ] {
            assert_eq!(Condition::read(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_an_etag_holds_for() {
        let etag = of(Version(7), Timestamp(255));
        for (asked, holds) in [
            (None, true),
            (Some("*"), true),
            (Some(etag.as_str()), true),
            (Some("v7-ff"), false),
            (Some("?"), false),
            (Some(&of(Version(6), Timestamp(255))), false),
            (Some(&of(Version(7), Timestamp(256))), false),
            (Some(&format!("{etag}, {etag}")), false),
        ] {
            assert_eq!(Condition::read(asked).holds(&etag), holds, "{asked:?}");
        }
    }
}
