//! From evidence to proof: finds the enrollment that decides and has `attestation` verify the evidence against it.
//!
//! Signatures over a chain are checked once for a chain and a version of an enrollment and then remembered; times, names
//! and the enrollment itself are judged at every call.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::attestation::Verified;
use crate::attestation::x509::{self, ChainProof, Presented, Refusal};
use crate::domain::{Enrollment, EnrollmentId, Evidence, Fault, RegistrationId, Thumbprint, Timestamp};
use crate::policy::matching::{Match, Reference, choose};

use super::{Peer, Service, fault};

/// A device that has proven itself, and the enrollment that it was judged by.
#[derive(Debug, Clone)]
pub struct Proven {
    pub verified: Verified,
    pub enrollment: Arc<Enrollment>,
}

/// Why there is no proof.
#[derive(Debug)]
pub enum Unproven {
    /// Told to the audit log only.
    Refused { why: String, enrollment: Option<EnrollmentId> },
    /// It could not be judged.
    Fault(Fault),
}

impl Unproven {
    pub(super) fn refused(why: impl fmt::Display, enrollment: Option<&Enrollment>) -> Self {
        Unproven::Refused { why: why.to_string(), enrollment: enrollment.map(|enrollment| enrollment.id.clone()) }
    }
}

impl Service {
    /// Whether the caller presents a chain or a token that was checked lately: then it is no stranger.
    pub(super) fn is_known(&self, peer: &Peer) -> bool {
        match &peer.evidence {
            Evidence::None => false,
            Evidence::Token(token) => self.inner.tokens.knows(token.text()),
            Evidence::X509 { .. } => {
                peer.presented().is_ok_and(|presented| self.inner.proofs.knows(presented.digest()))
            }
        }
    }

    /// Finds out whether the caller is the device it says.
    pub(super) async fn prove(&self, peer: &Peer, id: &RegistrationId) -> Result<Proven, Unproven> {
        if let Evidence::Token(token) = &peer.evidence {
            return self.prove_by_key(token, id).await;
        }
        let presented = peer.presented().map_err(|refusal| Unproven::refused(refusal, None))?;
        let read = |fault| Unproven::Fault(fault::of_store(fault));
        let individual = EnrollmentId::Individual(id.clone());
        let individual = self.inner.store.load_enrollment(&individual).await.map_err(read)?;
        let groups = match individual {
            Some(_) => Vec::new(),
            None => self.inner.store.find_groups(presented.references()).await.map_err(read)?,
        };
        let now = self.inner.clock.now();
        let proven = |enrollment: &Arc<Enrollment>| {
            let verified = self.inner.proofs.verify(presented, enrollment, id, now);
            verified.map(|verified| Proven { verified, enrollment: enrollment.clone() })
        };
        match choose(individual.as_deref(), presented.references(), &groups) {
            Match::Nothing => Err(Unproven::refused("no enrollment refers to the presented certificates", None)),
            Match::Individual(enrollment) => {
                let enrollment = individual.as_ref().filter(|found| found.id == enrollment.id);
                let Some(enrollment) = enrollment else { return Err(Unproven::refused("no enrollment", None)) };
                proven(enrollment).map_err(|refusal| Unproven::refused(refusal, Some(enrollment)))
            }
            Match::Groups(candidates) => {
                let mut last = Unproven::refused(Refusal::UntrustedIssuer, None);
                for candidate in candidates {
                    let Some(group) = groups.iter().find(|group| group.id == candidate.group.id) else { continue };
                    match proven(group) {
                        Ok(proven) => return Ok(proven),
                        Err(refusal) => {
                            last = Unproven::refused(refusal, Some(group));
                            if !is_namesake(candidate.by, refusal) {
                                return Err(last);
                            }
                        }
                    }
                }
                Err(last)
            }
        }
    }
}

/// Whether the group was found by a name that it merely shares with the issuer: its key did not sign, perhaps since it is
/// of another kind.
fn is_namesake(by: Reference, refusal: Refusal) -> bool {
    match by {
        Reference::Presented => false,
        Reference::IssuerName => matches!(
            refusal,
            Refusal::UntrustedIssuer | Refusal::SignatureInvalid | Refusal::SignatureAlgorithmNotAllowed
        ),
    }
}

/// Remembers checked chains. Two generations: what was used lately is in the younger one, and the older is dropped when
/// the younger is full.
#[derive(Debug)]
pub struct Proofs {
    kept: Mutex<Kept>,
    generation_max: usize,
}

#[derive(Debug, Default)]
struct Kept {
    young: HashMap<Thumbprint, ChainProof>,
    old: HashMap<Thumbprint, ChainProof>,
}

impl Proofs {
    pub fn new(proofs_max: usize) -> Self {
        Self { kept: Mutex::default(), generation_max: (proofs_max / 2).max(1) }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn knows(&self, digest: Thumbprint) -> bool {
        let kept = self.lock();
        kept.young.contains_key(&digest) || kept.old.contains_key(&digest)
    }

    /// Verifies, without the signatures where they were checked before.
    pub fn verify(
        &self,
        presented: &Presented,
        enrollment: &Enrollment,
        id: &RegistrationId,
        now: Timestamp,
    ) -> Result<Verified, Refusal> {
        if let Some(proof) = self.recall(presented.digest())
            && let Ok(verified) = x509::judge(&proof, presented, enrollment, id, now)
        {
            return Ok(verified);
        }
        // Not checked yet, or the enrollment is another by now, or the remembered path is out of date and another may not be.
        let proof = x509::verify_chain(presented, enrollment, now)?;
        let verified = x509::judge(&proof, presented, enrollment, id, now)?;
        self.keep(presented.digest(), proof);
        Ok(verified)
    }

    fn recall(&self, digest: Thumbprint) -> Option<ChainProof> {
        let mut kept = self.lock();
        if let Some(proof) = kept.young.get(&digest) {
            return Some(proof.clone());
        }
        let proof = kept.old.remove(&digest)?;
        self.put(&mut kept, digest, proof.clone());
        Some(proof)
    }

    fn keep(&self, digest: Thumbprint, proof: ChainProof) {
        let mut kept = self.lock();
        self.put(&mut kept, digest, proof);
    }

    fn put(&self, kept: &mut Kept, digest: Thumbprint, proof: ChainProof) {
        if kept.young.len() >= self.generation_max {
            kept.old = std::mem::take(&mut kept.young);
        }
        kept.young.insert(digest, proof);
    }
}
