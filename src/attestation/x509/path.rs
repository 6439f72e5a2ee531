//! From a group's leaf to one enrolled anchor: signatures, authorities, usages and lengths.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{EndEntityCert, KeyUsage, aws_lc_rs as algorithms};

use super::certificate::{Facts, Part, Window};
use super::chain::{Presented, PresentedCertificate};
use super::refusal::Refusal;
use crate::domain::{CertificateRef, Timestamp, limits};

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

/// Finds a path from the presented leaf to `anchor`; the answer is when each certificate on it is valid.
///
/// The search asks for dates too (`now`), so that of two paths the one in date is found. It knows an anchor as a name and
/// a key only: the anchor's own dates, usages and path length are held here. So are key usages, which it leaves out.
pub(super) fn find(
    presented: &Presented,
    anchor: &CertificateRef,
    now: Timestamp,
) -> Result<Vec<(Part, Window)>, Refusal> {
    let anchor_facts = Facts::parse(&anchor.der)?;
    let anchor_der = CertificateDer::from(anchor.der.as_slice());
    let trusted = [webpki::anchor_from_trusted_cert(&anchor_der).map_err(refusal)?];
    let leaf_der = CertificateDer::from(presented.leaf().der.as_slice());
    let leaf = EndEntityCert::try_from(&leaf_der).map_err(refusal)?;
    let others: Vec<CertificateDer<'_>> =
        presented.certificates[1..].iter().map(|certificate| certificate.der.as_slice().into()).collect();
    let since_epoch = Duration::from_secs(u64::try_from(now.as_secs()).unwrap_or(0));
    let path = leaf
        .verify_for_usage(
            SIGNATURES,
            &trusted,
            &others,
            UnixTime::since_unix_epoch(since_epoch),
            KeyUsage::client_auth(),
            None,
            None,
        )
        .map_err(refusal)?;

    let intermediates: Vec<&PresentedCertificate> = path
        .intermediate_certificates()
        .filter_map(|found| presented.certificates.iter().find(|certificate| *certificate.der == *found.der()))
        .collect();
    if intermediates.len() > limits::CHAIN_INTERMEDIATES_MAX {
        return Err(Refusal::TooManyIntermediates);
    }
    anchor_facts.check_anchor()?;
    anchor_facts.check_path_length(intermediates.len())?;
    anchor_facts.window.check(Part::Anchor, now)?;
    let mut windows = vec![(Part::Leaf, presented.leaf().facts.window), (Part::Anchor, anchor_facts.window)];
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
