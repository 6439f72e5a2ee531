//! The id scope: what devices of existing SDKs name the service by, beside its host name (reference/dps.md §1).

use std::fmt;
use std::str::FromStr;

use super::ids::IdFault;

/// Real ones have 11 characters.
const CHARS_MAX: usize = 64;

/// 1–64 ASCII letters and digits, compared without case. Not a secret.
#[derive(Debug, Clone)]
pub struct IdScope(String);

impl IdScope {
    /// As it is written in addresses and tokens.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a device means this one.
    pub fn is(&self, named: &str) -> bool {
        self.0.eq_ignore_ascii_case(named)
    }
}

impl PartialEq for IdScope {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.0)
    }
}

impl Eq for IdScope {}

impl FromStr for IdScope {
    type Err = IdFault;

    fn from_str(text: &str) -> Result<Self, IdFault> {
        let fits = (1..=CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let fault = IdFault::Form { what: "id scope", expected: "1 to 64 ASCII letters and digits" };
        fits.then(|| Self(text.to_owned())).ok_or(fault)
    }
}

impl fmt::Display for IdScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_letters_and_digits() {
        let scope: IdScope = "0ne00AB1234".parse().unwrap();
        assert!(scope.is("0NE00ab1234"));
        assert!(!scope.is("0NE00ab1235") && !scope.is(""));
        for text in ["", "0ne-1", "0ne 1", "0ne1/", &"a".repeat(CHARS_MAX + 1)] {
            assert!(text.parse::<IdScope>().is_err(), "{text:?}");
        }
    }
}
