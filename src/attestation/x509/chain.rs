//! The presented chain: parsed, bounded, and still unproven.

use std::fmt;

use super::certificate::{Facts, common_name, parse, sha256};
use super::refusal::Refusal;
use crate::domain::{AnchorRef, RegistrationId, Thumbprint, Timestamp, limits};

/// What a caller presented, leaf first. It names who the leaf says it is; it proves nothing.
#[derive(Clone)]
pub struct Presented {
    /// Never empty.
    certificates: Vec<PresentedCertificate>,
    references: Vec<AnchorRef>,
    common_name: RegistrationId,
    digest: Thumbprint,
}

#[derive(Clone)]
pub(in crate::attestation) struct PresentedCertificate {
    pub(super) der: Vec<u8>,
    pub(super) facts: Facts,
}

impl PresentedCertificate {
    pub(in crate::attestation) fn der(&self) -> &[u8] {
        &self.der
    }

    pub(in crate::attestation) fn reference(&self) -> AnchorRef {
        self.facts.reference
    }

    pub(in crate::attestation) fn not_after(&self) -> Timestamp {
        self.facts.window.not_after
    }
}

impl Presented {
    /// Reads a chain, leaf first, DER.
    pub fn parse(chain: &[Vec<u8>]) -> Result<Self, Refusal> {
        let certificates = read(chain)?;
        let leaf = parse(&certificates[0].der)?;
        let common_name =
            RegistrationId::parse(common_name(leaf.subject())?).map_err(|_| Refusal::CommonNameInvalid)?;
        let references: Vec<AnchorRef> = certificates.iter().map(|certificate| certificate.facts.reference).collect();
        // Thumbprints have one length, so their concatenation stands for exactly one chain.
        let thumbprints: Vec<u8> = references.iter().flat_map(|reference| reference.thumbprint.0).collect();
        Ok(Self { certificates, references, common_name, digest: sha256(&thumbprints) })
    }

    /// How each certificate can be looked up, leaf first: what matching walks along.
    pub fn references(&self) -> &[AnchorRef] {
        &self.references
    }

    /// Who the leaf says it is.
    pub fn common_name(&self) -> &RegistrationId {
        &self.common_name
    }

    /// SHA-256 over the chain's thumbprints: the key under which a proof of exactly this chain can be kept.
    pub fn digest(&self) -> Thumbprint {
        self.digest
    }

    /// In the presented order.
    pub(super) fn certificates(&self) -> &[PresentedCertificate] {
        &self.certificates
    }

    pub(super) fn leaf(&self) -> &PresentedCertificate {
        &self.certificates[0]
    }
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Presented({}, {} certificates)", self.common_name, self.certificates.len())
    }
}

/// Reads 1 to [`limits::CHAIN_CERTIFICATES_MAX`] certificates; nothing is parsed before all sizes are known to fit.
pub(in crate::attestation) fn read(chain: &[Vec<u8>]) -> Result<Vec<PresentedCertificate>, Refusal> {
    if chain.is_empty() {
        return Err(Refusal::NothingPresented);
    }
    if chain.len() > limits::CHAIN_CERTIFICATES_MAX {
        return Err(Refusal::ChainTooLong);
    }
    if chain.iter().any(|der| der.len() > limits::CERTIFICATE_BYTES_MAX) {
        return Err(Refusal::CertificateTooLarge);
    }
    chain.iter().map(|der| Ok(PresentedCertificate { der: der.clone(), facts: Facts::parse(der)? })).collect()
}
