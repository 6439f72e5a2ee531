//! The TPM without a chip, behind the SDK's door: for load generators and tests, never for a device, since its keys lie in
//! ordinary memory. It registers and signs in as a TPM does; it makes no quotes.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::hmac;
use futures_util::future::{BoxFuture, ready};

use super::fault::ChipFault;
use super::front::{SecurityModule, TpmKeys};
use super::session::{Quote, QuoteOrder};
use crate::attestation::tpm::Draw;
use crate::attestation::tpm::software::SoftwareTpm;
use crate::domain::{TokenKey, TpmPublic};

/// See the module's documentation.
pub struct SoftwareModule {
    tpm: SoftwareTpm,
    identity: Mutex<Option<TokenKey>>,
}

impl fmt::Debug for SoftwareModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SoftwareModule")
    }
}

const NOT_FOR_IT: ChipFault = ChipFault::Blob { why: "it is not for this endorsement key" };

impl SoftwareModule {
    /// A TPM whose keys follow from random bytes; all are on P-256.
    pub fn of(random: [u8; Draw::BYTES]) -> Result<Self, ChipFault> {
        let tpm = SoftwareTpm::of(&Draw::new(random));
        let tpm = tpm.map_err(|_| ChipFault::Answer { why: "the random bytes make no keys" })?;
        Ok(Self { tpm, identity: Mutex::default() })
    }

    pub fn endorsement_key(&self) -> &TpmPublic {
        self.tpm.endorsement_key()
    }

    fn unwrap(&self, blob: &[u8]) -> Result<TokenKey, ChipFault> {
        self.tpm.activate(blob).map(|activated| activated.key).map_err(|_| NOT_FOR_IT)
    }
}

fn signed(key: &TokenKey, message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.secret()), message).as_ref().to_vec()
}

impl SecurityModule for SoftwareModule {
    fn keys(&self) -> BoxFuture<'_, Result<TpmKeys, ChipFault>> {
        Box::pin(ready(Ok(TpmKeys {
            endorsement_key: self.tpm.endorsement_key().as_bytes().to_vec(),
            storage_root_key: self.tpm.storage_root_key().as_bytes().to_vec(),
            certificates: Vec::new(),
        })))
    }

    fn attestation_key(&self) -> BoxFuture<'_, Result<Vec<u8>, ChipFault>> {
        Box::pin(ready(Ok(self.tpm.attestation_key().as_bytes().to_vec())))
    }

    fn sign_with(&self, blob: Vec<u8>, message: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, ChipFault>> {
        Box::pin(ready(self.unwrap(&blob).map(|key| signed(&key, &message))))
    }

    fn quote(&self, _: QuoteOrder) -> BoxFuture<'_, Result<Quote, ChipFault>> {
        Box::pin(ready(Err(ChipFault::Answer { why: "a TPM without a chip quotes nothing here" })))
    }

    fn keep(&self, blob: Vec<u8>) -> BoxFuture<'_, Result<(), ChipFault>> {
        Box::pin(ready(self.unwrap(&blob).map(|key| {
            *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
        })))
    }

    fn sign(&self, message: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, ChipFault>> {
        let identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(ready(match identity {
            Some(key) => Ok(signed(&key, &message)),
            None => Err(ChipFault::NoIdentity { handle: 0 }),
        }))
    }
}
