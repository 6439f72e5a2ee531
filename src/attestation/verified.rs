//! The witness that evidence survived the check.
//!
//! Whoever holds a [`Verified`] need not ask again who the device is: only this room can make one, and only from evidence.

use std::sync::Arc;

use super::x509::{CertificateInfo, describe};
use crate::domain::{Credential, EnrollmentId, RegistrationId, Thumbprint, Timestamp, Version};

/// Which of an enrollment's two certificates. Two, so that one can be rolled while the other stays in use.
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
    /// The presented leaf's path ends at this enrolled anchor.
    Anchor { slot: Slot, anchor: Thumbprint },
}

/// A device that proved itself against one version of one enrollment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    registration_id: RegistrationId,
    enrollment_id: EnrollmentId,
    enrollment_version: Version,
    credential: Credential,
    matched: Matched,
    leaf_not_after: Timestamp,
    leaf_der: Arc<[u8]>,
}

impl Verified {
    pub(in crate::attestation) fn new(
        registration_id: RegistrationId,
        (enrollment_id, enrollment_version): (EnrollmentId, Version),
        credential: Credential,
        matched: Matched,
        (leaf_not_after, leaf_der): (Timestamp, Arc<[u8]>),
    ) -> Self {
        Self { registration_id, enrollment_id, enrollment_version, credential, matched, leaf_not_after, leaf_der }
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

    /// What the presented leaf certificate says, for whoever is asked to allocate. `None` cannot be: it was read before.
    pub fn leaf(&self) -> Option<CertificateInfo> {
        describe(&self.leaf_der).ok()
    }

    /// When the presented leaf certificate ends.
    pub fn leaf_not_after(&self) -> Timestamp {
        self.leaf_not_after
    }
}
