//! The witness that evidence survived the check.
//!
//! Whoever holds a [`Verified`] need not ask again who the device is: only this room can make one, and only from evidence.

use std::sync::Arc;

use super::tpm::TpmProof;
use super::x509::{CertificateInfo, describe};
use crate::domain::{Credential, EkHash, EnrollmentId, RegistrationId, Thumbprint, Timestamp, Version};

/// Which of an enrollment's two certificates or keys. Two, so that one can be rolled while the other stays in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    Primary,
    Secondary,
}

impl Slot {
    pub fn as_str(self) -> &'static str {
        match self {
            Slot::Primary => "primary",
            Slot::Secondary => "secondary",
        }
    }
}

/// What in the enrollment the evidence matched: for the audit log, and to tell when a roll-over is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Matched {
    /// The presented leaf is this enrolled leaf.
    Leaf(Slot),
    /// The path of the presented leaf, or of the EK certificate, ends at this enrolled anchor.
    Anchor { slot: Slot, anchor: Thumbprint },
    /// The TPM is the one with the enrolled endorsement key.
    EndorsementKey(EkHash),
    /// The token was signed with this enrolled key, or with one made of it.
    Key(Slot),
}

/// A device that proved itself against one version of one enrollment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    registration_id: RegistrationId,
    enrollment_id: EnrollmentId,
    enrollment_version: Version,
    credential: Credential,
    matched: Matched,
    proof: Proof,
}

/// By what it proved itself.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Proof {
    Leaf { not_after: Timestamp, der: Arc<[u8]> },
    Tpm(Arc<TpmProof>),
    Key,
}

impl Verified {
    pub(in crate::attestation) fn of_leaf(
        registration_id: RegistrationId,
        (enrollment_id, enrollment_version): (EnrollmentId, Version),
        credential: Credential,
        matched: Matched,
        (not_after, der): (Timestamp, Arc<[u8]>),
    ) -> Self {
        let proof = Proof::Leaf { not_after, der };
        Self { registration_id, enrollment_id, enrollment_version, credential, matched, proof }
    }

    pub(in crate::attestation) fn of_tpm(
        registration_id: RegistrationId,
        (enrollment_id, enrollment_version): (EnrollmentId, Version),
        credential: Credential,
        matched: Matched,
        tpm: TpmProof,
    ) -> Self {
        let proof = Proof::Tpm(Arc::new(tpm));
        Self { registration_id, enrollment_id, enrollment_version, credential, matched, proof }
    }

    pub(in crate::attestation) fn of_key(
        registration_id: RegistrationId,
        (enrollment_id, enrollment_version): (EnrollmentId, Version),
        credential: Credential,
        matched: Matched,
    ) -> Self {
        Self { registration_id, enrollment_id, enrollment_version, credential, matched, proof: Proof::Key }
    }

    /// In the casing the device asked with.
    pub fn registration_id(&self) -> &RegistrationId {
        &self.registration_id
    }

    pub fn enrollment_id(&self) -> &EnrollmentId {
        &self.enrollment_id
    }

    /// The version that was verified against: the precondition of every commit that rests on this proof.
    pub fn enrollment_version(&self) -> Version {
        self.enrollment_version
    }

    /// What the hub is to be told that the device signs in with.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    pub fn matched(&self) -> Matched {
        self.matched
    }

    /// What the presented leaf certificate says, for whoever is asked to allocate. `None` where there is none.
    pub fn leaf(&self) -> Option<CertificateInfo> {
        match &self.proof {
            Proof::Leaf { not_after: _, der } => describe(der).ok(),
            Proof::Tpm(_) | Proof::Key => None,
        }
    }

    /// When the presented leaf certificate ends.
    pub fn leaf_not_after(&self) -> Option<Timestamp> {
        match &self.proof {
            Proof::Leaf { not_after, der: _ } => Some(*not_after),
            Proof::Tpm(_) | Proof::Key => None,
        }
    }

    /// The TPM, if it was one that proved itself.
    pub fn tpm(&self) -> Option<&Arc<TpmProof>> {
        match &self.proof {
            Proof::Leaf { .. } | Proof::Key => None,
            Proof::Tpm(tpm) => Some(tpm),
        }
    }
}
