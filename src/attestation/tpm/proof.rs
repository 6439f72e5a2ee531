//! What is known of a TPM that proved itself.

use super::blob::activation_blob;
use super::draw::Draw;
use super::ek_certificate::EkFacts;
use super::keys::{EndorsementKey, StorageKey};
use super::refusal::Refusal;
use crate::domain::{EkHash, PcrIndex, TokenKey, TpmName};

/// The TPM behind a [`crate::attestation::Verified`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmProof {
    endorsement_key: EndorsementKey,
    storage_key: StorageKey,
    certificate: Option<EkFacts>,
    pcr_mismatches: Vec<PcrIndex>,
}

impl TpmProof {
    pub(super) fn new(
        endorsement_key: EndorsementKey,
        storage_key: StorageKey,
        certificate: Option<EkFacts>,
        pcr_mismatches: Vec<PcrIndex>,
    ) -> Self {
        Self { endorsement_key, storage_key, certificate, pcr_mismatches }
    }

    pub fn ek_hash(&self) -> EkHash {
        self.endorsement_key.ek_hash()
    }

    /// Of this TPM for sure: whether it is one that the enrollment lets in is not judged here.
    pub fn storage_key_name(&self) -> &TpmName {
        self.storage_key.name()
    }

    /// What the EK certificate says, where the enrollment goes by it.
    pub fn certificate(&self) -> Option<&EkFacts> {
        self.certificate.as_ref()
    }

    /// Registers that were quoted with a value which the enrollment does not name, ascending: what follows from that is the
    /// enrollment's to say.
    pub fn pcr_mismatches(&self) -> &[PcrIndex] {
        &self.pcr_mismatches
    }

    /// Wraps a key so that only this TPM can use it: the activation blob in which a hub's key travels.
    pub fn deliver(&self, key: &TokenKey, user_data: &[u8], draw: &Draw) -> Result<Vec<u8>, Refusal> {
        activation_blob(&self.endorsement_key, &self.storage_key, key, user_data, draw)
    }
}
