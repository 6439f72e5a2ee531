//! The verdict: a presented chain against one enrollment.
//!
//! Two halves. [`verify_chain`] does what costs (signatures, path, keys) and its [`ChainProof`] may be kept for the
//! connection; [`judge`] does what time and operators can change, and runs at every call.

use super::certificate::Part;
use super::chain::Presented;
use super::path::{self, Errand, Windows};
use super::refusal::Refusal;
use crate::attestation::verified::{Matched, Slot, Verified};
use crate::domain::{
    Attestation, CertificateRef, Credential, Enrollment, EnrollmentId, RegistrationId, Thumbprint, Timestamp, Version,
    X509Anchors, X509Leaves,
};

/// Proof that exactly this chain answers to exactly this version of the enrollment. Says nothing of dates and names.
#[derive(Debug, Clone)]
pub struct ChainProof {
    chain: Thumbprint,
    enrollment: (EnrollmentId, Version),
    matched: Matched,
    /// When each certificate that the proof rests on is valid.
    windows: Windows,
}

impl ChainProof {
    /// What the device signs in with, if the proof is of this chain and of the enrollment as it stands.
    ///
    /// An id and a version do not tell an enrollment from one that was deleted and made again, which counts its versions
    /// anew: what was matched must still be enrolled.
    fn credential(&self, presented: &Presented, enrollment: &Enrollment) -> Option<Credential> {
        let is_of_both = self.chain == presented.digest()
            && self.enrollment.0 == enrollment.id
            && self.enrollment.1 == enrollment.version;
        if !is_of_both {
            return None;
        }
        let leaf = presented.leaf().facts.reference.thumbprint;
        match (self.matched, &enrollment.attestation) {
            (Matched::Leaf(slot), Attestation::X509Leaf(leaves)) => {
                let mut slots = slots(&leaves.primary, leaves.secondary.as_ref());
                slots.any(|it| it.0 == slot && it.1.thumbprint == leaf).then(|| of_leaves(leaves))
            }
            (Matched::Anchor { slot, anchor }, Attestation::X509Ca(anchors)) => {
                let mut slots = slots(&anchors.primary, anchors.secondary.as_ref());
                slots.any(|it| it.0 == slot && it.1.thumbprint == anchor).then(|| Credential::x509([leaf]))
            }
            (
                Matched::Leaf(_),
                Attestation::X509Ca(_)
                | Attestation::Tpm(_)
                | Attestation::TpmFleet(_)
                | Attestation::SymmetricKey(_)
                | Attestation::MasterKey(_),
            )
            | (
                Matched::Anchor { .. },
                Attestation::X509Leaf(_)
                | Attestation::Tpm(_)
                | Attestation::TpmFleet(_)
                | Attestation::SymmetricKey(_)
                | Attestation::MasterKey(_),
            )
            | (Matched::EndorsementKey(_) | Matched::Key(_), _) => None,
        }
    }
}

/// Verifies a presented chain for a registration id against the enrollment that matching found.
///
/// Individual: the leaf is the primary or secondary certificate, byte for byte. Group: a path of at most
/// [`crate::domain::limits::CHAIN_INTERMEDIATES_MAX`] intermediates leads from the leaf to the primary or secondary
/// anchor. In both the leaf's common name is the registration id (case aside), everything the verdict rests on is in
/// date at `now`, and the keys are allowed. Whether the enrollment is enabled is not asked.
pub fn verify(
    presented: &Presented,
    enrollment: &Enrollment,
    registration_id: &RegistrationId,
    now: Timestamp,
) -> Result<Verified, Refusal> {
    let proof = verify_chain(presented, enrollment, now)?;
    judge(&proof, presented, enrollment, registration_id, now)
}

/// The half that costs and may be kept. `now` only steers the search to a path that is in date.
pub fn verify_chain(presented: &Presented, enrollment: &Enrollment, now: Timestamp) -> Result<ChainProof, Refusal> {
    let (matched, windows) = match &enrollment.attestation {
        Attestation::X509Leaf(leaves) => match_leaf(presented, leaves)?,
        Attestation::X509Ca(anchors) => match_anchor(presented, anchors, now)?,
        Attestation::Tpm(_) | Attestation::TpmFleet(_) | Attestation::SymmetricKey(_) | Attestation::MasterKey(_) => {
            return Err(Refusal::NotEnrolledByCertificate);
        }
    };
    let enrollment = (enrollment.id.clone(), enrollment.version);
    Ok(ChainProof { chain: presented.digest(), enrollment, matched, windows })
}

/// The half that runs at every call: the proof still fits, the names agree, and everything is in date.
///
/// A refusal over dates of a kept proof need not be the last word: another path may be in date, so verify anew once.
pub fn judge(
    proof: &ChainProof,
    presented: &Presented,
    enrollment: &Enrollment,
    registration_id: &RegistrationId,
    now: Timestamp,
) -> Result<Verified, Refusal> {
    let credential = proof.credential(presented, enrollment).ok_or(Refusal::ProofOutdated)?;
    match &enrollment.id {
        EnrollmentId::Individual(id) if id != registration_id => return Err(Refusal::EnrollmentMismatch),
        EnrollmentId::Individual(_) | EnrollmentId::Group(_) => {}
    }
    if presented.common_name() != registration_id {
        return Err(Refusal::CommonNameMismatch);
    }
    proof.windows.iter().try_for_each(|(part, window)| window.check(*part, now))?;
    Ok(Verified::of_leaf(
        registration_id.clone(),
        proof.enrollment.clone(),
        credential,
        proof.matched,
        (presented.leaf().facts.window.not_after, presented.leaf().der.as_slice().into()),
    ))
}

type Match = (Matched, Windows);

fn match_leaf(presented: &Presented, leaves: &X509Leaves) -> Result<Match, Refusal> {
    let leaf = &presented.leaf().facts;
    let slot = slots(&leaves.primary, leaves.secondary.as_ref())
        .find(|(_, enrolled)| enrolled.thumbprint == leaf.reference.thumbprint)
        .map(|(slot, _)| slot)
        .ok_or(Refusal::LeafNotEnrolled)?;
    presented.certificates().iter().try_for_each(|certificate| certificate.facts.check_key())?;
    Ok((Matched::Leaf(slot), vec![(Part::Leaf, leaf.window)]))
}

fn match_anchor(presented: &Presented, anchors: &X509Anchors, now: Timestamp) -> Result<Match, Refusal> {
    let candidates = slots(&anchors.primary, anchors.secondary.as_ref())
        .map(|(slot, anchor)| (Matched::Anchor { slot, anchor: anchor.thumbprint }, &anchor.der));
    path::find_any(presented.certificates(), candidates, Errand::Device, now)
}

/// Both enrolled leaves, whichever was presented: the device may change over without a word.
fn of_leaves(leaves: &X509Leaves) -> Credential {
    Credential::x509(slots(&leaves.primary, leaves.secondary.as_ref()).map(|(_, enrolled)| enrolled.thumbprint))
}

fn slots<'a>(
    primary: &'a CertificateRef,
    secondary: Option<&'a CertificateRef>,
) -> impl Iterator<Item = (Slot, &'a CertificateRef)> {
    std::iter::once((Slot::Primary, primary)).chain(secondary.map(|secondary| (Slot::Secondary, secondary)))
}
