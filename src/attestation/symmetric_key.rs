//! Symmetric keys: tokens signed with a key that is enrolled for the device, or with one that is made of its group's.
//!
//! A group's key never leaves the operator: what a device of the group holds is HMAC-SHA256 of its registration id under
//! the group's key (reference/dps.md §1.3). A token says nothing of the group; the group is the one whose key verifies.

use aws_lc_rs::hmac;

use super::sas::{self, Demand};
use super::{Matched, Slot, Verified};
use crate::domain::token::{SasToken, TokenKey};
use crate::domain::{Credential, EnrollmentId, KeyPair, RegistrationId, SealedKey, Timestamp, Version, limits};

/// What tokens for registrations call their key, where they name it.
pub const KEY_NAME: &str = "registration";

/// Why a token does not let a device in: the closed list, for the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Token(#[from] sas::Refusal),
    #[error("it names another key than {KEY_NAME}")]
    KeyNameMismatch,
}

impl Refusal {
    /// The stable code in the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::Token(refusal) => refusal.as_str(),
            Refusal::KeyNameMismatch => "token_key_name_mismatch",
        }
    }

    /// Whether the token may be good for another enrollment: none of this one's keys signed it.
    pub fn is_of_another(self) -> bool {
        match self {
            Refusal::Token(sas::Refusal::SignatureInvalid) => true,
            Refusal::Token(
                sas::Refusal::Missing
                | sas::Refusal::Malformed(_)
                | sas::Refusal::ResourceMismatch
                | sas::Refusal::Expired
                | sas::Refusal::ExpiresTooLate,
            )
            | Refusal::KeyNameMismatch => false,
        }
    }
}

/// What an enrollment by keys says, its keys opened.
#[derive(Debug, Clone, Copy)]
pub struct Enrolled<'a> {
    pub id: &'a EnrollmentId,
    pub version: Version,
    /// The device's own, or its group's.
    pub keys: &'a KeyPair<TokenKey>,
}

/// The key of a group's device. The id counts as it is written, in its casing.
pub fn device_key(master: &TokenKey, id: &str) -> TokenKey {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, master.secret()), id.as_bytes());
    TokenKey::new(tag.as_ref()).expect("a tag of HMAC-SHA256 has 32 bytes, which a key may have")
}

/// Holds a token against an enrollment. `resources` are the names that a token for this registration may be for, each as
/// good as the other; `seal` closes the keys that the device's hub is to know.
///
/// A group's device may have made its key of the id as it asks with it or of the id in lower case, since tools do either.
pub fn verify(
    token: &SasToken,
    enrolled: Enrolled<'_>,
    id: &RegistrationId,
    resources: &[String],
    seal: impl Fn(&TokenKey) -> SealedKey,
    now: Timestamp,
) -> Result<Verified, Refusal> {
    let mut casings = vec![id.as_str().to_owned(), id.folded()];
    casings.dedup();
    let candidates = match enrolled.id {
        EnrollmentId::Individual(_) => vec![enrolled.keys.clone()],
        EnrollmentId::Group(_) => casings.iter().map(|id| enrolled.keys.map(|master| device_key(master, id))).collect(),
    };
    let named = token.resource();
    let resource = resources.iter().find(|resource| resource.eq_ignore_ascii_case(&named)).or(resources.first());
    let demand = Demand {
        resource: resource.map(String::as_str).unwrap_or_default(),
        lifetime_max: limits::KEY_TOKEN_LIFETIME_MAX,
    };
    let which = sas::verify(token, candidates.iter().flat_map(KeyPair::both), demand, now)?;
    if token.key_name().is_some_and(|name| name != KEY_NAME) {
        return Err(Refusal::KeyNameMismatch);
    }
    let slot = if which % 2 == 0 { Slot::Primary } else { Slot::Secondary };
    let keys = candidates.get(which / 2).ok_or(sas::Refusal::SignatureInvalid)?;
    let credential = Credential::Shared(keys.map(seal));
    Ok(Verified::of_key(id.clone(), (enrolled.id.clone(), enrolled.version), credential, Matched::Key(slot)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use data_encoding::BASE64;

    use super::*;
    use crate::domain::{GroupId, KeyFingerprint, UnsignedToken};

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn key(byte: u8) -> TokenKey {
        TokenKey::new(&[byte; 32]).unwrap()
    }

    /// Closed in a way that tests can tell.
    fn seal(key: &TokenKey) -> SealedKey {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(&key.secret()[..32]);
        SealedKey::new(KeyFingerprint(fingerprint), vec![1]).unwrap()
    }

    fn id(text: &str) -> RegistrationId {
        RegistrationId::parse(text).unwrap()
    }

    fn device() -> EnrollmentId {
        EnrollmentId::Individual(id("Dev-1"))
    }

    fn group() -> EnrollmentId {
        EnrollmentId::Group(GroupId::parse("plant").unwrap())
    }

    struct Token<'a> {
        resource: &'a str,
        ends_in: Duration,
        key_name: Option<&'a str>,
    }

    const GOOD: Token<'static> =
        Token { resource: "rehome/registrations/Dev-1", ends_in: Duration::from_secs(60), key_name: Some(KEY_NAME) };

    fn judge(enrollment: &EnrollmentId, signer: &TokenKey, token: &Token<'_>) -> Result<Verified, Refusal> {
        let unsigned = UnsignedToken::new(token.resource, NOW.plus(token.ends_in));
        let token = SasToken::parse(sas::sign(&unsigned, signer, token.key_name).as_bytes()).unwrap();
        let keys = KeyPair { primary: key(1), secondary: key(2) };
        let enrolled = Enrolled { id: enrollment, version: Version(3), keys: &keys };
        let resources = ["rehome/registrations/Dev-1".to_owned(), "0ne1/registrations/Dev-1".to_owned()];
        verify(&token, enrolled, &id("Dev-1"), &resources, seal, NOW)
    }

    #[test]
    fn either_key_of_a_device_lets_it_in_and_its_hub_is_told_both() {
        for (signer, slot) in [(1, Slot::Primary), (2, Slot::Secondary)] {
            let verified = judge(&device(), &key(signer), &GOOD).unwrap();
            assert_eq!(verified.matched(), Matched::Key(slot));
            let both = KeyPair { primary: seal(&key(1)), secondary: seal(&key(2)) };
            assert_eq!(verified.credential(), &Credential::Shared(both));
            assert_eq!((verified.enrollment_id(), verified.enrollment_version()), (&device(), Version(3)));
            assert!(verified.leaf().is_none() && verified.leaf_not_after().is_none() && verified.tpm().is_none());
        }
    }

    #[test]
    fn a_groups_device_signs_with_a_key_made_of_the_groups() {
        for (master, casing, slot) in
            [(1, "Dev-1", Slot::Primary), (2, "Dev-1", Slot::Secondary), (2, "dev-1", Slot::Secondary)]
        {
            let verified = judge(&group(), &device_key(&key(master), casing), &GOOD).unwrap();
            assert_eq!(verified.matched(), Matched::Key(slot), "{master} {casing}");
            let both = KeyPair { primary: key(1), secondary: key(2) }.map(|it| seal(&device_key(it, casing)));
            assert_eq!(verified.credential(), &Credential::Shared(both), "{master} {casing}");
        }
    }

    fn refused(enrollment: &EnrollmentId, signer: &TokenKey, token: Token<'_>, expected: impl Into<Refusal>) {
        assert_eq!(judge(enrollment, signer, &token).unwrap_err(), expected.into());
    }

    #[test]
    fn who_is_refused() {
        use sas::Refusal::{Expired, ExpiresTooLate, ResourceMismatch, SignatureInvalid};
        let day = limits::KEY_TOKEN_LIFETIME_MAX;
        assert!(judge(&device(), &key(1), &Token { resource: "0NE1/registrations/dev-1", ..GOOD }).is_ok());
        assert!(judge(&device(), &key(1), &Token { key_name: None, ..GOOD }).is_ok());
        assert!(judge(&device(), &key(1), &Token { ends_in: day, ..GOOD }).is_ok());
        refused(&device(), &key(3), GOOD, SignatureInvalid);
        refused(&device(), &device_key(&key(1), "Dev-1"), GOOD, SignatureInvalid);
        // A group's key is no device's key, nor is another device's.
        refused(&group(), &key(1), GOOD, SignatureInvalid);
        refused(&group(), &device_key(&key(1), "dev-2"), GOOD, SignatureInvalid);
        refused(&group(), &device_key(&key(1), "DEV-1"), GOOD, SignatureInvalid);
        for enrollment in [device(), group()] {
            let own = match &enrollment {
                EnrollmentId::Individual(_) => key(1),
                EnrollmentId::Group(_) => device_key(&key(1), "Dev-1"),
            };
            for resource in ["other/registrations/Dev-1", "rehome/registrations/dev-2", "rehome", "hub-a/devices/Dev-1"]
            {
                refused(&enrollment, &own, Token { resource, ..GOOD }, ResourceMismatch);
            }
            refused(&enrollment, &own, Token { ends_in: Duration::ZERO, ..GOOD }, Expired);
            refused(&enrollment, &own, Token { ends_in: day * 2, ..GOOD }, ExpiresTooLate);
            for name in ["", "Registration", "owner"] {
                let token = Token { key_name: Some(name), ..GOOD };
                refused(&enrollment, &own, token, Refusal::KeyNameMismatch);
            }
        }
    }

    #[test]
    fn device_keys_are_those_of_existing_tools() {
        // reference/dps.md §B.
        let master = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==";
        let master = TokenKey::new(&BASE64.decode(master.as_bytes()).unwrap()).unwrap();
        for (id, expected) in [
            ("sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6", "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc="),
            ("MyDevice", "4mrRkN7hJsuWLXnoXAjOIS3qsJXMN2PKYgQIlVKAvt0="),
            ("mydevice", "byBlqTy7hDhy8Y4bs2LsSevU96i3WDja/CA7Jb3jqjw="),
        ] {
            assert_eq!(BASE64.encode(device_key(&master, id).secret()), expected, "{id}");
        }
    }
}
