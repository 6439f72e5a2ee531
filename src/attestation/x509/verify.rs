//! The verdict: a presented chain against one enrollment.
//!
//! Two halves. [`verify_chain`] does what costs (signatures, path, keys) and its [`ChainProof`] may be kept for the
//! connection; [`judge`] does what time and operators can change, and runs at every call.

use super::certificate::Part;
use super::chain::Presented;
use super::path::{self, Windows};
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
    credential: Credential,
    /// When each certificate that the proof rests on is valid.
    windows: Windows,
}

impl ChainProof {
    /// Whether the proof is of this chain and of the enrollment as it stands; if not, it is no longer of use.
    pub fn covers(&self, presented: &Presented, enrollment: &Enrollment) -> bool {
        self.chain == presented.digest()
            && self.enrollment.0 == enrollment.id
            && self.enrollment.1 == enrollment.version
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
    let (matched, credential, windows) = match &enrollment.attestation {
        Attestation::X509Leaf(leaves) => match_leaf(presented, leaves)?,
        Attestation::X509Ca(anchors) => match_anchor(presented, anchors, now)?,
    };
    let enrollment = (enrollment.id.clone(), enrollment.version);
    Ok(ChainProof { chain: presented.digest(), enrollment, matched, credential, windows })
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
    if !proof.covers(presented, enrollment) {
        return Err(Refusal::ProofOutdated);
    }
    match &enrollment.id {
        EnrollmentId::Individual(id) if id != registration_id => return Err(Refusal::EnrollmentMismatch),
        EnrollmentId::Individual(_) | EnrollmentId::Group(_) => {}
    }
    if presented.common_name() != registration_id {
        return Err(Refusal::CommonNameMismatch);
    }
    proof.windows.iter().try_for_each(|(part, window)| window.check(*part, now))?;
    Ok(Verified::new(
        registration_id.clone(),
        proof.enrollment.clone(),
        proof.credential.clone(),
        proof.matched,
        (presented.leaf().facts.window.not_after, presented.leaf().der.as_slice().into()),
    ))
}

type Match = (Matched, Credential, Windows);

fn match_leaf(presented: &Presented, leaves: &X509Leaves) -> Result<Match, Refusal> {
    let leaf = &presented.leaf().facts;
    let slot = slots(&leaves.primary, leaves.secondary.as_ref())
        .find(|(_, enrolled)| enrolled.thumbprint == leaf.reference.thumbprint)
        .map(|(slot, _)| slot)
        .ok_or(Refusal::LeafNotEnrolled)?;
    presented.certificates().iter().try_for_each(|certificate| certificate.facts.check_key())?;
    let enrolled = slots(&leaves.primary, leaves.secondary.as_ref()).map(|(_, enrolled)| enrolled.thumbprint);
    Ok((Matched::Leaf(slot), Credential::x509(enrolled), vec![(Part::Leaf, leaf.window)]))
}

fn match_anchor(presented: &Presented, anchors: &X509Anchors, now: Timestamp) -> Result<Match, Refusal> {
    let candidates = slots(&anchors.primary, anchors.secondary.as_ref())
        .map(|(slot, anchor)| (Matched::Anchor { slot, anchor: anchor.thumbprint }, &anchor.der));
    let (matched, windows) = path::find_any(presented.certificates(), candidates, now)?;
    Ok((matched, Credential::x509([presented.leaf().facts.reference.thumbprint]), windows))
}

fn slots<'a>(
    primary: &'a CertificateRef,
    secondary: Option<&'a CertificateRef>,
) -> impl Iterator<Item = (Slot, &'a CertificateRef)> {
    std::iter::once((Slot::Primary, primary)).chain(secondary.map(|secondary| (Slot::Secondary, secondary)))
}
