//! Etags as existing SDKs keep them: in JSON the base64 of a quoted text, without quotes around it; sent back as it is or
//! in quotes (reference/dps.md §1.6 and §7.1).

use data_encoding::BASE64;

use crate::domain::Version;

/// A record's etag.
pub fn of_version(version: Version) -> String {
    BASE64.encode(format!("\"{}\"", version.etag()).as_bytes())
}

/// Reads an etag back; `None` when it was never one of ours.
pub fn version(text: &str) -> Option<Version> {
    let bytes = BASE64.decode(unquoted(text).as_bytes()).ok()?;
    let text = std::str::from_utf8(&bytes).ok()?;
    Version::from_etag(text.strip_prefix('"')?.strip_suffix('"')?)
}

/// A text without the quotes (and the mark of a weak etag) around it.
pub fn unquoted(text: &str) -> &str {
    let text = text.strip_prefix("W/").unwrap_or(text);
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// What `If-Match` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing was said.
    None,
    /// It must be there.
    Any,
    /// It must have this version.
    Version(Version),
    /// An etag that nothing ever had.
    Never,
}

impl Condition {
    /// Reads the header, or the etag of an entry.
    pub fn read(text: Option<&str>) -> Self {
        match text.map(str::trim) {
            None | Some("") => Condition::None,
            Some(text) if unquoted(text) == "*" => Condition::Any,
            Some(text) => version(text).map_or(Condition::Never, Condition::Version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_come_back_with_quotes_or_without() {
        let etag = of_version(Version(7));
        assert_eq!(etag, "InY3Ig==");
        for (text, expected) in [
            (None, Condition::None),
            (Some(""), Condition::None),
            (Some("*"), Condition::Any),
            (Some("\"*\""), Condition::Any),
            (Some("InY3Ig=="), Condition::Version(Version(7))),
            (Some("\"InY3Ig==\""), Condition::Version(Version(7))),
            (Some("W/\"InY3Ig==\""), Condition::Version(Version(7))),
            (Some(" InY3Ig== "), Condition::Version(Version(7))),
            (Some("v7"), Condition::Never),
            (Some("InY3Ig"), Condition::Never),
            (Some("InYwNyI="), Condition::Never),
            (Some("InY3Ig==, InY4Ig=="), Condition::Never),
            (Some("\""), Condition::Never),
        ] {
            assert_eq!(Condition::read(text), expected, "{text:?}");
        }
    }
}
