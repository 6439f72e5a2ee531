//! From a presented leaf to one trusted anchor: signatures, authorities, usages and lengths.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{EndEntityCert, KeyUsage, aws_lc_rs as algorithms};

use super::certificate::{Facts, Part, Window};
use super::chain::PresentedCertificate;
use super::refusal::Refusal;
use crate::domain::{Timestamp, limits};

/// Signatures that allowed keys make; SHA-1, P-521 and the post-quantum ones are not among them.
static SIGNATURES: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P256_SHA512,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ECDSA_P384_SHA512,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// What a path is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::attestation) enum Errand {
    /// A device's certificate, which it signs in with.
    Device,
    /// The certificate of a TPM's endorsement key. It encrypts and signs nothing, and its key was compared already.
    EndorsementKey,
}

/// `tcg-kp-EKCertificate`, 2.23.133.8.1. Authorities of manufacturers often leave it out, so it is held only where there
/// is any extended key usage.
const EK_CERTIFICATE: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x01];

impl Errand {
    fn key_usage(self) -> KeyUsage {
        match self {
            Errand::Device => KeyUsage::client_auth(),
            Errand::EndorsementKey => KeyUsage::required_if_present(EK_CERTIFICATE),
        }
    }
}

/// When each certificate of a path is valid.
pub(in crate::attestation) type Windows = Vec<(Part, Window)>;

/// Finds a path from the leaf of a presented chain to one of the anchors; answers which one, and the path's windows.
///
/// The anchors are tried one by one: a renewed authority may have the name and key of the one it replaces.
pub(in crate::attestation) fn find_any<A>(
    presented: &[PresentedCertificate],
    anchors: impl IntoIterator<Item = (A, impl AsRef<[u8]>)>,
    errand: Errand,
    now: Timestamp,
) -> Result<(A, Windows), Refusal> {
    let (leaf, others) = presented.split_first().ok_or(Refusal::NothingPresented)?;
    others.iter().try_for_each(|certificate| certificate.facts.check_key())?;
    leaf.facts.check_leaf(errand)?;
    leaf.facts.window.check(Part::Leaf, now)?;
    let mut refusal = Refusal::UntrustedIssuer;
    for (which, anchor) in anchors {
        match find(leaf, others, anchor.as_ref(), errand, now) {
            Ok(windows) => return Ok((which, windows)),
            // The first anchor that is more than a stranger says best what is wrong.
            Err(found) if refusal == Refusal::UntrustedIssuer => refusal = found,
            Err(_) => {}
        }
    }
    Err(refusal)
}

/// Finds a path from the leaf to one anchor.
///
/// The search asks for dates too (`now`), so that of two paths the one in date is found. It knows an anchor as a name and
/// a key only: the anchor's own dates, usages and path length are held here. So are key usages, which it leaves out.
fn find(
    leaf: &PresentedCertificate,
    others: &[PresentedCertificate],
    anchor: &[u8],
    errand: Errand,
    now: Timestamp,
) -> Result<Windows, Refusal> {
    let anchor_facts = Facts::parse(anchor)?;
    let anchor_der = CertificateDer::from(anchor);
    let trusted = [webpki::anchor_from_trusted_cert(&anchor_der).map_err(refusal)?];
    let leaf_der = CertificateDer::from(leaf.der.as_slice());
    let end_entity = EndEntityCert::try_from(&leaf_der).map_err(refusal)?;
    let candidates: Vec<CertificateDer<'_>> =
        others.iter().map(|certificate| certificate.der.as_slice().into()).collect();
    let since_epoch = Duration::from_secs(u64::try_from(now.as_secs()).unwrap_or(0));
    let path = end_entity
        .verify_for_usage(
            SIGNATURES,
            &trusted,
            &candidates,
            UnixTime::since_unix_epoch(since_epoch),
            errand.key_usage(),
            None,
            None,
        )
        .map_err(refusal)?;

    let intermediates: Vec<&PresentedCertificate> = path
        .intermediate_certificates()
        .filter_map(|found| others.iter().find(|certificate| *certificate.der == *found.der()))
        .collect();
    if intermediates.len() > limits::CHAIN_INTERMEDIATES_MAX {
        return Err(Refusal::TooManyIntermediates);
    }
    anchor_facts.check_anchor(errand)?;
    anchor_facts.check_path_length(intermediates.len())?;
    anchor_facts.window.check(Part::Anchor, now)?;
    let mut windows = vec![(Part::Leaf, leaf.facts.window), (Part::Anchor, anchor_facts.window)];
    for intermediate in intermediates {
        intermediate.facts.check_issuer()?;
        windows.push((Part::Intermediate, intermediate.facts.window));
    }
    Ok(windows)
}

/// The leaf's dates are checked before the search, so a date that fails in it is an intermediate's.
fn refusal(error: webpki::Error) -> Refusal {
    use webpki::Error;
    match error {
        Error::UnknownIssuer => Refusal::UntrustedIssuer,
        Error::InvalidSignatureForPublicKey => Refusal::SignatureInvalid,
        Error::CertExpired { .. } => Refusal::IntermediateExpired,
        Error::CertNotValidYet { .. } => Refusal::IntermediateNotYetValid,
        Error::CaUsedAsEndEntity => Refusal::LeafIsCa,
        Error::EndEntityUsedAsCa => Refusal::NotACa,
        Error::PathLenConstraintViolated => Refusal::PathLengthExceeded,
        Error::MaximumPathDepthExceeded => Refusal::TooManyIntermediates,
        Error::MaximumPathBuildCallsExceeded
        | Error::MaximumSignatureChecksExceeded
        | Error::MaximumNameConstraintComparisonsExceeded => Refusal::PathTooComplex,
        Error::NameConstraintViolation => Refusal::NameNotPermitted,
        Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => Refusal::ExtendedKeyUsageNotAllowed,
        Error::SignatureAlgorithmMismatch
        | Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Refusal::SignatureAlgorithmNotAllowed,
        Error::UnsupportedCriticalExtension => Refusal::CriticalExtensionUnknown,
        // Every other error of a search without revocation lists is about the form of a certificate.
        _ => Refusal::Malformed,
    }
}
