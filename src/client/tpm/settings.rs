//! Which TPM, which of its keys, and the passwords of its hierarchies.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::address::TpmAddress;
use super::template::{EkKind, SrkKind};

/// Where the storage root key is kept (TCG Provisioning Guidance 7.8).
const SRK_HANDLE: u32 = 0x8100_0001;
/// Where the identity key is kept, and the place it is exchanged through.
const IDENTITY_HANDLE: u32 = 0x8100_0100;
const EXCHANGE_HANDLE: u32 = 0x8100_0101;
/// Creating an RSA key takes a slow TPM a minute.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);

/// A hierarchy's password, empty where it has none. Wiped when the last copy is dropped, and never shown.
#[derive(Clone, Default)]
pub struct AuthValue(Arc<Zeroizing<Vec<u8>>>);

impl AuthValue {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for AuthValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "AuthValue(none)" } else { "AuthValue(…)" })
    }
}

/// How a TPM is used. The handles have the usual values and need a change only where something else holds them.
#[derive(Debug, Clone)]
pub struct TpmSettings {
    pub address: TpmAddress,
    /// Which endorsement key; absent: the first that is already there, RSA-2048 before P-256 before P-384, else a new
    /// RSA-2048 one.
    pub endorsement: Option<EkKind>,
    /// Absent: the usual one of its kind.
    pub endorsement_handle: Option<u32>,
    pub storage_root_handle: u32,
    /// What is made where the handle is free; absent: RSA for an RSA endorsement key, else P-256.
    pub storage_root: Option<SrkKind>,
    pub identity_handle: u32,
    /// Free but for moments: a new identity key is whole here before it replaces the old one.
    pub exchange_handle: u32,
    pub owner_auth: AuthValue,
    pub endorsement_auth: AuthValue,
    /// How long one command may take.
    pub answer_within: Duration,
}

impl TpmSettings {
    pub fn at(address: TpmAddress) -> Self {
        Self {
            address,
            endorsement: None,
            endorsement_handle: None,
            storage_root_handle: SRK_HANDLE,
            storage_root: None,
            identity_handle: IDENTITY_HANDLE,
            exchange_handle: EXCHANGE_HANDLE,
            owner_auth: AuthValue::default(),
            endorsement_auth: AuthValue::default(),
            answer_within: ANSWER_WITHIN,
        }
    }
}
