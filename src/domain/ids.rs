//! Identifiers: validated once at the edge, never plain strings inside.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use super::limits;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdFault {
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} has {length} characters, the most is {max}")]
    TooLong { what: &'static str, length: usize, max: usize },
    #[error("{what} may hold {allowed}, not {found:?}")]
    Character { what: &'static str, allowed: &'static str, found: char },
    #[error("{what} must start and end with a letter or digit")]
    Edge { what: &'static str },
    #[error("{what} is not {expected}")]
    Form { what: &'static str, expected: &'static str },
}

/// Checks the rule shared by registration ids and group ids: 1–128 of ASCII letters, digits and `-._:`, first and last
/// alphanumeric; a trailing `-` is let pass (reference/dps.md §1.1).
fn check_registration_text(what: &'static str, text: &str) -> Result<(), IdFault> {
    check_length(what, text, limits::REGISTRATION_ID_CHARS_MAX)?;
    if let Some(found) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || "-._:".contains(*c))) {
        return Err(IdFault::Character { what, allowed: "ASCII letters, digits and -._:", found });
    }
    let first_fits = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let last_fits = text.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
    if first_fits && last_fits { Ok(()) } else { Err(IdFault::Edge { what }) }
}

fn check_length(what: &'static str, text: &str, max: usize) -> Result<(), IdFault> {
    if text.is_empty() {
        return Err(IdFault::Empty { what });
    }
    let length = text.chars().count();
    if length > max { Err(IdFault::TooLong { what, length, max }) } else { Ok(()) }
}

/// An id compared without case that keeps the casing it was first written in.
macro_rules! caseless_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Validates a text; the error names the broken rule.
            pub fn parse(text: &str) -> Result<Self, IdFault> {
                check_registration_text($what, text)?;
                Ok(Self(text.into()))
            }

            /// The text in the casing it was given in.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The lower-cased text: equal exactly when the ids are equal. The key in every store.
            pub fn folded(&self) -> String {
                self.0.to_ascii_lowercase()
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.eq_ignore_ascii_case(&other.0)
            }
        }

        impl Eq for $name {}

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.0.bytes().for_each(|byte| state.write_u8(byte.to_ascii_lowercase()));
                state.write_u8(0xff);
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                let left = self.0.bytes().map(|byte| byte.to_ascii_lowercase());
                left.cmp(other.0.bytes().map(|byte| byte.to_ascii_lowercase()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdFault;

            fn from_str(text: &str) -> Result<Self, IdFault> {
                Self::parse(text)
            }
        }
    };
}

caseless_id!(
    /// The name a device registers under. Compared without case; the first casing becomes the device id of a group's device.
    RegistrationId,
    "registration id"
);
caseless_id!(
    /// The name of an enrollment group; the same rule as a registration id.
    GroupId,
    "enrollment group id"
);

/// The name of a device in a hub: 1–128, case-sensitive, a wider set of characters than a registration id
/// (reference/dps.md §8.1).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(Arc<str>);

impl DeviceId {
    /// Validates a text; the error names the broken rule.
    pub fn parse(text: &str) -> Result<Self, IdFault> {
        const WHAT: &str = "device id";
        check_length(WHAT, text, limits::DEVICE_ID_CHARS_MAX)?;
        if let Some(found) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || "-:.+%_#*?!(),=@;$'".contains(*c))) {
            return Err(IdFault::Character {
                what: WHAT,
                allowed: "ASCII letters, digits and -:.+%_#*?!(),=@;$'",
                found,
            });
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&RegistrationId> for DeviceId {
    /// Every registration id is a device id (its characters are a subset).
    fn from(id: &RegistrationId) -> Self {
        Self(id.as_str().into())
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({})", self.0)
    }
}

impl FromStr for DeviceId {
    type Err = IdFault;

    fn from_str(text: &str) -> Result<Self, IdFault> {
        Self::parse(text)
    }
}

/// The operator's name of a hub: 1–64 of lower-case letters, digits and `-`, first and last alphanumeric (so that it
/// can be a file name and a DNS label on every system).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HubId(Arc<str>);

impl HubId {
    /// Validates a text; the error names the broken rule.
    pub fn parse(text: &str) -> Result<Self, IdFault> {
        const WHAT: &str = "hub id";
        check_length(WHAT, text, limits::HUB_ID_CHARS_MAX)?;
        if let Some(found) = text.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')) {
            return Err(IdFault::Character { what: WHAT, allowed: "lower-case ASCII letters, digits and -", found });
        }
        if text.starts_with('-') || text.ends_with('-') {
            Err(IdFault::Edge { what: WHAT })
        } else {
            Ok(Self(text.into()))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HubId({})", self.0)
    }
}

impl FromStr for HubId {
    type Err = IdFault;

    fn from_str(text: &str) -> Result<Self, IdFault> {
        Self::parse(text)
    }
}

/// 128 random bits written as 32 lower-case hex digits (url-safe, opaque to clients).
macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:032x})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdFault;

            fn from_str(text: &str) -> Result<Self, IdFault> {
                let fault = IdFault::Form { what: $what, expected: "32 lower-case hexadecimal digits" };
                if text.len() != 32 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                    return Err(fault);
                }
                u128::from_str_radix(text, 16).map(Self).map_err(|_| fault)
            }
        }
    };
}

random_id!(
    /// One run of a registration.
    OperationId,
    "operation id"
);
random_id!(
    /// The name under which the audit log keeps why an unproven caller was refused.
    TrackingId,
    "tracking id"
);
random_id!(
    /// One life of a hub's data: new after every restore from a backup. Calls that name another one are refused.
    Incarnation,
    "incarnation"
);

/// A client's own id of a request, for idempotence: 1–64 printable ASCII characters without blanks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Validates a text; the error names the broken rule.
    pub fn parse(text: &str) -> Result<Self, IdFault> {
        const WHAT: &str = "request id";
        check_length(WHAT, text, limits::REQUEST_ID_CHARS_MAX)?;
        match text.chars().find(|c| !c.is_ascii_graphic()) {
            Some(found) => Err(IdFault::Character { what: WHAT, allowed: "printable ASCII without blanks", found }),
            None => Ok(Self(text.into())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The store-wide sequence number of the journal commit behind a hub call. It fences the call, is never reused, and the
/// order of a move's intent is that move's *generation*. Zero is before every order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Order(pub u64);

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The version of a stored record: 0 is "does not exist", each commit of the record adds one. Its text is the etag.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub u64);

impl Version {
    pub const ABSENT: Version = Version(0);

    /// The version after one more commit.
    pub fn next(self) -> Version {
        Version(self.0.saturating_add(1))
    }

    /// The etag that callers see: opaque to them, `v` and the number.
    pub fn etag(self) -> String {
        format!("v{}", self.0)
    }

    /// Reads an etag back; `None` when the text was never one of ours.
    pub fn from_etag(text: &str) -> Option<Version> {
        let digits = text.strip_prefix('v')?;
        let number: u64 = digits.parse().ok()?;
        (number.to_string() == digits).then_some(Version(number))
    }
}

/// SHA-256 of a certificate's DER, or of another credential: what identifies it. Not a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Thumbprint(pub [u8; 32]);

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Thumbprint({self})")
    }
}

impl FromStr for Thumbprint {
    type Err = IdFault;

    fn from_str(text: &str) -> Result<Self, IdFault> {
        data_encoding::HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or(IdFault::Form { what: "thumbprint", expected: "64 hexadecimal digits" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registration_ids_follow_the_rule() {
        let long = "a".repeat(129);
        let longest = "a".repeat(128);
        for (text, fits) in [
            ("a", true),
            ("Dev-01_a.b:c", true),
            ("trailing-", true),
            (longest.as_str(), true),
            ("", false),
            (long.as_str(), false),
            ("-lead", false),
            (".lead", false),
            ("tail.", false),
            ("tail_", false),
            ("tail:", false),
            ("a b", false),
            ("a@b", false),
            ("ä", false),
            ("a/b", false),
            ("a\0b", false),
        ] {
            assert_eq!(RegistrationId::parse(text).is_ok(), fits, "{text:?}");
        }
    }

    #[test]
    fn registration_ids_compare_without_case_and_keep_their_casing() {
        let (upper, lower) = (RegistrationId::parse("Dev-A").unwrap(), RegistrationId::parse("dev-a").unwrap());
        assert_eq!(upper, lower);
        assert_eq!(upper.cmp(&lower), std::cmp::Ordering::Equal);
        assert_eq!(std::collections::HashSet::from([upper.clone(), lower]).len(), 1);
        assert_eq!((upper.as_str(), upper.folded().as_str()), ("Dev-A", "dev-a"));
    }

    #[test]
    fn hub_ids_can_be_file_names() {
        for (text, fits) in [
            ("hub-a", true),
            ("h1", true),
            ("Hub", false),
            ("-h", false),
            ("h-", false),
            ("a/b", false),
            ("..", false),
            ("", false),
        ] {
            assert_eq!(HubId::parse(text).is_ok(), fits, "{text:?}");
        }
    }

    #[test]
    fn etags_read_back_and_nothing_else_does() {
        assert_eq!(Version::from_etag(&Version(7).etag()), Some(Version(7)));
        for text in ["", "7", "v", "v07", "v-1", "v7 ", "*"] {
            assert_eq!(Version::from_etag(text), None, "{text:?}");
        }
    }

    #[test]
    fn random_ids_read_back_in_one_form_only() {
        let id = OperationId(0xabc);
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "abc", "0000000000000000000000000000ABCD", "+0000000000000000000000000000abc"] {
            assert!(text.parse::<OperationId>().is_err(), "{text:?}");
        }
    }
}
