//! A public area: the bytes as they were received, and what they say.

use std::fmt;

use tpm2_protocol::TpmUnmarshal;
use tpm2_protocol::data::{TpmAlgId, TpmtPublic};

use super::crypto::{Hash, sha256};
use super::refusal::KeyFault;
use crate::domain::{EkHash, TpmFault, TpmName, TpmPublic};

/// A `TPM2B_PUBLIC` that parses to its last byte. Says nothing yet of what the key may be used for.
///
/// It is never marshalled again: names and hashes are made of the bytes that came.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicArea {
    public: TpmPublic,
    /// Large and rarely moved.
    parsed: Box<TpmtPublic>,
    hash: Hash,
}

impl PublicArea {
    /// Reads a `TPM2B_PUBLIC` of at most [`crate::domain::limits::TPM_PUBLIC_BYTES_MAX`] bytes with nothing behind it,
    /// named by SHA-256 or SHA-384.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyFault> {
        let public = TpmPublic::parse(bytes).map_err(|fault| match fault {
            TpmFault::PublicTooLarge { .. } => KeyFault::TooLarge,
            _ if bytes.len() > declared(bytes) => KeyFault::TrailingBytes,
            _ => KeyFault::Malformed,
        })?;
        Self::of(public)
    }

    /// Reads one whose bounds were checked.
    pub fn of(public: TpmPublic) -> Result<Self, KeyFault> {
        let (parsed, rest) = TpmtPublic::unmarshal(public.area()).map_err(|_| KeyFault::Malformed)?;
        if !rest.is_empty() {
            return Err(KeyFault::TrailingBytes);
        }
        let hash = match parsed.name_alg {
            TpmAlgId::Sha256 => Hash::Sha256,
            TpmAlgId::Sha384 => Hash::Sha384,
            _ => return Err(KeyFault::NameAlgorithmNotAllowed),
        };
        Ok(Self { public, parsed: Box::new(parsed), hash })
    }

    /// The bytes as they came.
    pub fn public(&self) -> &TpmPublic {
        &self.public
    }

    pub(super) fn parsed(&self) -> &TpmtPublic {
        &self.parsed
    }

    pub(super) fn hash(&self) -> Hash {
        self.hash
    }

    /// What the TPM calls the object: the hash algorithm, and the digest of the area without its size.
    pub fn name(&self) -> TpmName {
        name(self.hash, self.public.area())
    }

    /// What identifies the TPM, if this is its endorsement key.
    pub fn ek_hash(&self) -> EkHash {
        EkHash(sha256(self.public.as_bytes()))
    }
}

impl fmt::Debug for PublicArea {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicArea({})", self.name())
    }
}

pub(super) fn name(hash: Hash, area: &[u8]) -> TpmName {
    let algorithm: &[u8] = match hash {
        Hash::Sha256 => &[0x00, 0x0b],
        Hash::Sha384 => &[0x00, 0x0c],
    };
    TpmName::parse(&[algorithm, &hash.of(&[area])].concat()).expect("a digest has the size of its algorithm")
}

fn declared(bytes: &[u8]) -> usize {
    match bytes {
        [high, low, ..] => 2 + usize::from(u16::from_be_bytes([*high, *low])),
        _ => usize::MAX,
    }
}
