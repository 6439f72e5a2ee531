//! The terms of a certificate: its kind of key, and from when to when it is valid.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, RsaKeySize};

use super::fault::PkiFault;
use crate::domain::{IdFault, Timestamp};

/// Clocks of devices and servers differ: what is issued now is valid since a moment ago.
const BACKDATED_FOR: Duration = Duration::from_secs(5 * 60);
/// The last second of the year 9999, the last that a certificate can write.
const LAST_SECOND: i64 = 253_402_300_799;

/// What a certificate is issued for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub key: KeyType,
    pub validity: Validity,
}

impl Terms {
    /// A P-256 key, valid from `now` for `lifetime`.
    pub fn starting(now: Timestamp, lifetime: Duration) -> Self {
        Self { key: KeyType::default(), validity: Validity::starting(now, lifetime) }
    }
}

/// The kind of a new key; each is one that attestation accepts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyType {
    #[default]
    P256,
    P384,
    Ed25519,
    Rsa3072,
}

impl KeyType {
    pub const ALL: &'static [KeyType] = &[KeyType::P256, KeyType::P384, KeyType::Ed25519, KeyType::Rsa3072];

    pub fn as_str(self) -> &'static str {
        match self {
            KeyType::P256 => "p256",
            KeyType::P384 => "p384",
            KeyType::Ed25519 => "ed25519",
            KeyType::Rsa3072 => "rsa3072",
        }
    }

    pub(super) fn generate(self) -> Result<KeyPair, PkiFault> {
        match self {
            KeyType::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyType::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            KeyType::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
            KeyType::Rsa3072 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
        }
        .map_err(PkiFault::Making)
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KeyType {
    type Err = IdFault;

    fn from_str(text: &str) -> Result<Self, IdFault> {
        KeyType::ALL
            .iter()
            .copied()
            .find(|key| key.as_str() == text)
            .ok_or(IdFault::Form { what: "key type", expected: "p256, p384, ed25519 or rsa3072" })
    }
}

/// From when to when, both included; certificates know whole seconds only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl Validity {
    /// From `now` (and a little before) until `lifetime` later.
    pub fn starting(now: Timestamp, lifetime: Duration) -> Self {
        let backdated = i64::try_from(BACKDATED_FOR.as_secs()).unwrap_or(0);
        Self {
            not_before: Timestamp::from_secs(now.as_secs().saturating_sub(backdated)),
            not_after: Timestamp::from_secs(now.plus(lifetime).as_secs()),
        }
    }

    /// The part of it in which the issuer is valid too.
    pub(super) fn within(self, issuer: Validity) -> Self {
        Self { not_before: self.not_before.max(issuer.not_before), not_after: self.not_after.min(issuer.not_after) }
    }

    pub fn contains(self, now: Timestamp) -> bool {
        self.not_before <= now && now.as_secs() <= self.not_after.as_secs()
    }

    pub(super) fn write_to(self, params: &mut CertificateParams) -> Result<(), PkiFault> {
        let (from, until) = (self.not_before.as_secs(), self.not_after.as_secs());
        if from > until || until > LAST_SECOND {
            return Err(PkiFault::Validity);
        }
        let time = |seconds: i64| {
            let since_epoch = u64::try_from(seconds).map_err(|_| PkiFault::Validity)?;
            Ok(rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(since_epoch))
        };
        (params.not_before, params.not_after) = (time(from)?, time(until)?);
        Ok(())
    }
}
