//! Tokens: was this one signed with the key of whom it names, for what it is used for, and does it still hold?

use std::time::Duration;

use aws_lc_rs::hmac;

use crate::domain::token::{SasToken, TokenFault, TokenKey, UnsignedToken};
use crate::domain::{Timestamp, limits};

/// Why a token was refused: the closed list, for the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    #[error("none was presented")]
    Missing,
    #[error("{0}")]
    Malformed(TokenFault),
    #[error("it was not signed with the device's key")]
    SignatureInvalid,
    #[error("it is for something else")]
    ResourceMismatch,
    #[error("it has expired")]
    Expired,
    #[error("it expires later than tokens may")]
    ExpiresTooLate,
}

impl Refusal {
    /// The stable code in the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::Missing => "token_missing",
            Refusal::Malformed(fault) => fault.as_str(),
            Refusal::SignatureInvalid => "token_signature_invalid",
            Refusal::ResourceMismatch => "token_resource_mismatch",
            Refusal::Expired => "token_expired",
            Refusal::ExpiresTooLate => "token_expires_too_late",
        }
    }
}

/// What a token must be for, and for how long it may be good.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// In plain text; the token's is compared without case, since some clients lower it.
    pub resource: &'a str,
    pub lifetime_max: Duration,
}

impl<'a> Demand<'a> {
    /// With the lifetime that every token of ours may have.
    pub fn of(resource: &'a str) -> Self {
        Self { resource, lifetime_max: limits::TOKEN_LIFETIME_MAX }
    }
}

/// Verifies a token against the keys that its owner may sign with, and answers which of them did, counted from 0.
///
/// The signature comes first, so that whoever has no key learns nothing of the rest. A token must end after `now`, and at
/// most the longest lifetime and [`limits::CLOCK_SKEW`] after it: a clock that runs ahead makes tokens that seem to last
/// longer. There is no grace for clocks that run behind, since a token that has ended must be worthless.
pub fn verify<'k>(
    token: &SasToken,
    keys: impl IntoIterator<Item = &'k TokenKey>,
    demand: Demand<'_>,
    now: Timestamp,
) -> Result<usize, Refusal> {
    let which = keys.into_iter().position(|key| is_signed_by(token, key)).ok_or(Refusal::SignatureInvalid)?;
    if !token.resource().eq_ignore_ascii_case(demand.resource) {
        return Err(Refusal::ResourceMismatch);
    }
    if token.expires_at() <= now {
        return Err(Refusal::Expired);
    }
    if token.expires_at() > now.plus(demand.lifetime_max).plus(limits::CLOCK_SKEW) {
        return Err(Refusal::ExpiresTooLate);
    }
    Ok(which)
}

/// Whether this key has signed the token, in constant time. What the token is for, and whether it still holds, is another
/// question.
pub fn is_signed_by(token: &SasToken, key: &TokenKey) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.secret());
    hmac::verify(&key, token.signed_text().as_bytes(), token.signature()).is_ok()
}

/// Signs a token with a key that is at hand.
pub fn sign(unsigned: &UnsignedToken, key: &TokenKey, key_name: Option<&str>) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.secret()), unsigned.text().as_bytes());
    let mut signature = [0; 32];
    signature.copy_from_slice(tag.as_ref());
    unsigned.signed(&signature, key_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const RESOURCE: &str = "scope/registrations/dev-1";

    fn key(byte: u8) -> TokenKey {
        TokenKey::new(&[byte; 32]).unwrap()
    }

    fn check(resource: &str, ends: Timestamp, signer: u8, expected: Result<usize, Refusal>) {
        let text = sign(&UnsignedToken::new(resource, ends), &key(signer), Some("registration"));
        let token = SasToken::parse(text.as_bytes()).unwrap();
        assert_eq!(verify(&token, &[key(1), key(2)], Demand::of(RESOURCE), NOW), expected, "{text}");
    }

    #[test]
    fn a_token_holds_for_its_resource_and_its_time() {
        let soon = NOW.plus(Duration::from_secs(30));
        let latest = NOW.plus(limits::TOKEN_LIFETIME_MAX).plus(limits::CLOCK_SKEW);
        check(RESOURCE, soon, 1, Ok(0));
        check(RESOURCE, soon, 2, Ok(1));
        check("SCOPE/Registrations/DEV-1", soon, 1, Ok(0));
        check(RESOURCE, NOW.plus(Duration::from_secs(1)), 1, Ok(0));
        check(RESOURCE, latest, 1, Ok(0));
        check(RESOURCE, soon, 3, Err(Refusal::SignatureInvalid));
        check("scope/registrations/dev-2", soon, 1, Err(Refusal::ResourceMismatch));
        check("other/registrations/dev-1", soon, 1, Err(Refusal::ResourceMismatch));
        check("scope/registrations/dev-1/", soon, 1, Err(Refusal::ResourceMismatch));
        check("", soon, 1, Err(Refusal::ResourceMismatch));
        // A Kelvin sign is a k to Unicode, and is none here.
        check("scope/registrations/dev-\u{212a}", soon, 1, Err(Refusal::ResourceMismatch));
        check(RESOURCE, NOW, 1, Err(Refusal::Expired));
        check(RESOURCE, Timestamp(0), 1, Err(Refusal::Expired));
        check(RESOURCE, latest.plus(Duration::from_secs(1)), 1, Err(Refusal::ExpiresTooLate));
        check(RESOURCE, Timestamp::from_secs(99_999_999_999), 1, Err(Refusal::ExpiresTooLate));
        // Who has no key learns nothing of the rest.
        check("other", Timestamp(0), 3, Err(Refusal::SignatureInvalid));
    }

    #[test]
    fn the_signature_is_over_the_text_as_received() {
        // Made elsewhere: openssl, key of 32 times 0x01, text "scope%2fregistrations%2fdev-1\n1700000030".
        let token = |resource: &str| {
            let text = format!(
                "SharedAccessSignature sig=%2bNXrDUWY%2bYiiP9BpcRXD17he/OJa/GQFYEfcovnmgo4%3d&sr={resource}&se=1700000030"
            );
            SasToken::parse(text.as_bytes()).unwrap()
        };
        let verdict = |resource: &str| verify(&token(resource), &[key(1)], Demand::of(RESOURCE), NOW);
        assert_eq!(verdict("scope%2fregistrations%2fdev-1"), Ok(0));
        assert_eq!(verdict("scope%2Fregistrations%2Fdev-1"), Err(Refusal::SignatureInvalid));
        assert_eq!(verdict("scope/registrations/dev-1"), Err(Refusal::SignatureInvalid));
    }

    #[test]
    fn without_keys_nothing_verifies() {
        let text = sign(&UnsignedToken::new(RESOURCE, NOW.plus(Duration::from_secs(9))), &key(1), None);
        let token = SasToken::parse(text.as_bytes()).unwrap();
        assert_eq!(verify(&token, [], Demand::of(RESOURCE), NOW), Err(Refusal::SignatureInvalid));
    }
}
