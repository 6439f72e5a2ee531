//! Proof by symmetric keys, as operators enroll it. Keys never come back by the way they went in.

use std::fmt;

use crate::domain::{AttestationDraft, KeyPair, SealedKey, TokenKey};
use crate::wire::WireFault;
use crate::wire::admin::v1;

impl fmt::Debug for v1::SymmetricKeyAttestation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SymmetricKeyAttestation({}, {})", self.primary_key_fingerprint, self.secondary_key_fingerprint)
    }
}

impl fmt::Debug for v1::SymmetricKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SymmetricKeys(****)")
    }
}

/// Which keys an enrollment is to have. None is given where it is empty.
pub fn attestation(message: &v1::SymmetricKeyAttestation) -> Result<AttestationDraft, WireFault> {
    let given = |field, bytes: &[u8]| match bytes {
        [] => Ok(None),
        bytes => key(field, bytes).map(Some),
    };
    Ok(AttestationDraft::SymmetricKey {
        primary: given("symmetric_key.primary_key", &message.primary_key)?,
        secondary: given("symmetric_key.secondary_key", &message.secondary_key)?,
    })
}

/// A draft on its way to the service.
pub fn wire_attestation(draft: &AttestationDraft) -> Option<v1::SymmetricKeyAttestation> {
    let bytes = |key: &Option<TokenKey>| key.as_ref().map(|key| key.secret().to_vec()).unwrap_or_default();
    match draft {
        AttestationDraft::SymmetricKey { primary, secondary } => Some(v1::SymmetricKeyAttestation {
            primary_key: bytes(primary),
            secondary_key: bytes(secondary),
            ..v1::SymmetricKeyAttestation::default()
        }),
        AttestationDraft::X509 { .. } | AttestationDraft::Tpm { .. } | AttestationDraft::TpmFleet { .. } => None,
    }
}

/// What tells the keys of an enrollment apart.
pub fn tell_fingerprints(message: &mut v1::SymmetricKeyAttestation, keys: &KeyPair<SealedKey>) {
    message.primary_key_fingerprint = keys.primary.fingerprint().to_string();
    message.secondary_key_fingerprint = keys.secondary.fingerprint().to_string();
}

/// The fingerprints that were told, the primary key's first.
pub fn fingerprints(message: Option<&v1::SymmetricKeyAttestation>) -> Vec<String> {
    let told = message.map(|told| [told.primary_key_fingerprint.clone(), told.secondary_key_fingerprint.clone()]);
    told.into_iter().flatten().collect()
}

/// Keys for an operator.
pub fn wire_keys(keys: &KeyPair<TokenKey>) -> v1::SymmetricKeys {
    v1::SymmetricKeys { primary_key: keys.primary.secret().to_vec(), secondary_key: keys.secondary.secret().to_vec() }
}

impl TryFrom<&v1::SymmetricKeys> for KeyPair<TokenKey> {
    type Error = WireFault;

    fn try_from(message: &v1::SymmetricKeys) -> Result<Self, WireFault> {
        Ok(Self {
            primary: key("keys.primary_key", &message.primary_key)?,
            secondary: key("keys.secondary_key", &message.secondary_key)?,
        })
    }
}

fn key(field: &'static str, bytes: &[u8]) -> Result<TokenKey, WireFault> {
    TokenKey::new(bytes).map_err(|fault| WireFault::new(field, fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(primary: usize, secondary: usize, expected: Result<(bool, bool), &str>) {
        let message = v1::SymmetricKeyAttestation {
            primary_key: vec![7; primary],
            secondary_key: vec![7; secondary],
            ..v1::SymmetricKeyAttestation::default()
        };
        let found = attestation(&message).map(|draft| {
            assert_eq!(wire_attestation(&draft).as_ref(), Some(&message));
            let AttestationDraft::SymmetricKey { primary, secondary } = draft else { panic!("another proof") };
            (primary.is_some(), secondary.is_some())
        });
        assert_eq!(found.map_err(|fault| fault.field), expected, "{primary} {secondary}");
    }

    #[test]
    fn keys_are_bounded_and_may_be_left_out() {
        check(0, 0, Ok((false, false)));
        check(16, 0, Ok((true, false)));
        check(0, 64, Ok((false, true)));
        check(16, 64, Ok((true, true)));
        check(15, 64, Err("symmetric_key.primary_key"));
        check(16, 65, Err("symmetric_key.secondary_key"));
    }

    #[test]
    fn keys_are_never_shown() {
        let keys =
            KeyPair { primary: TokenKey::new(&[0x77; 32]).unwrap(), secondary: TokenKey::new(&[0x78; 32]).unwrap() };
        let wire = wire_keys(&keys);
        assert_eq!(KeyPair::try_from(&wire).unwrap(), keys);
        let attested =
            v1::SymmetricKeyAttestation { primary_key: vec![0x77; 32], ..v1::SymmetricKeyAttestation::default() };
        let enrolled = v1::Enrollment { symmetric_key: Some(attested), ..v1::Enrollment::default() };
        let shown = format!("{wire:?} {enrolled:?} {keys:?}");
        assert!(!shown.contains("119") && !shown.contains("77"), "{shown}");
    }
}
