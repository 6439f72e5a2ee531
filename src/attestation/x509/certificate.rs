//! One certificate: bounded, parsed strictly, and reduced to the facts that the rules ask for.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use rustls_pki_types::pem::{PemObject, SectionKind};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};

use super::path::Errand;
use super::refusal::Refusal;
use crate::domain::{AnchorRef, CertificateRef, Thumbprint, Timestamp, limits};

/// Base64 makes four characters of three bytes; the rest is room for line ends, markers and an `openssl -text` preamble.
const PEM_BYTES_MAX: usize = 4 * limits::CERTIFICATE_BYTES_MAX;
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// One certificate for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    pub subject: String,
    pub issuer: String,
    /// The subject's common name, if there is exactly one.
    pub common_name: Option<String>,
    /// The serial number in lower-case hex, two digits a byte.
    pub serial_hex: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub thumbprint: Thumbprint,
    /// SHA-1 of the DER, for those who know certificates by it: nothing here does.
    pub sha1: [u8; 20],
}

/// Takes one certificate for an enrollment, as DER or as PEM text with nothing else in it.
///
/// Checks form only: [`check_leaf`] and [`check_anchor`] judge whether it may be enrolled.
pub fn certificate_ref(der_or_pem: &[u8]) -> Result<CertificateRef, Refusal> {
    require(der_or_pem.len() <= PEM_BYTES_MAX, Refusal::CertificateTooLarge)?;
    let der = match is_pem(der_or_pem) {
        true => der_of_pem(der_or_pem)?,
        false => der_or_pem.to_vec(),
    };
    let reference = Facts::parse(&der)?.reference;
    Ok(CertificateRef { der, thumbprint: reference.thumbprint, subject: reference.subject })
}

/// May the certificate stand in an individual enrollment? Its key must be allowed.
pub fn check_leaf(certificate: &CertificateRef) -> Result<(), Refusal> {
    Facts::parse(&certificate.der)?.check_key()
}

/// May the certificate stand in a group? It must be an authority's, fit to sign device certificates, with an allowed key.
/// Its dates are not asked: an authority may be enrolled ahead of time, and [`super::judge`] asks at every call.
pub fn check_anchor(certificate: &CertificateRef) -> Result<(), Refusal> {
    check_authority(&certificate.der, Errand::Device)
}

/// May the certificate stand for an authority that vouches for leaves of the kind?
pub(in crate::attestation) fn check_authority(der: &[u8], errand: Errand) -> Result<(), Refusal> {
    Facts::parse(der)?.check_anchor(errand)
}

/// What a listing shows of a certificate. Control characters in names are replaced.
pub fn describe(der: &[u8]) -> Result<CertificateInfo, Refusal> {
    let certificate = parse(der)?;
    let facts = Facts::of(&certificate, der)?;
    Ok(CertificateInfo {
        subject: printable(&certificate.subject().to_string()),
        issuer: printable(&certificate.issuer().to_string()),
        common_name: common_name(certificate.subject()).ok().map(printable),
        serial_hex: data_encoding::HEXLOWER.encode(certificate.raw_serial()),
        not_before: facts.window.not_before,
        not_after: facts.window.not_after,
        thumbprint: facts.reference.thumbprint,
        sha1: sha1(der),
    })
}

/// Do two certificates stand for the same authority, that is, have the same key or the same subject name? Keeps an
/// operators' authority from being enrolled as a device authority in another certificate's clothes.
pub fn shares_authority(one: &[u8], other: &[u8]) -> Result<bool, Refusal> {
    let (one, other) = (parse(one)?, parse(other)?);
    Ok(one.public_key().subject_public_key == other.public_key().subject_public_key
        || one.subject().as_raw() == other.subject().as_raw())
}

/// From when to when a certificate is valid, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::attestation) struct Window {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

/// The place of a certificate in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::attestation) enum Part {
    Leaf,
    Intermediate,
    Anchor,
}

impl Window {
    pub(super) fn check(self, part: Part, now: Timestamp) -> Result<(), Refusal> {
        let (not_yet_valid, expired) = match part {
            Part::Leaf => (Refusal::LeafNotYetValid, Refusal::LeafExpired),
            Part::Intermediate => (Refusal::IntermediateNotYetValid, Refusal::IntermediateExpired),
            Part::Anchor => (Refusal::AnchorNotYetValid, Refusal::AnchorExpired),
        };
        if now < self.not_before {
            Err(not_yet_valid)
        } else if now.as_secs() > self.not_after.as_secs() {
            // A certificate is valid through the whole of its last second.
            Err(expired)
        } else {
            Ok(())
        }
    }
}

/// What the rules ask of a certificate.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) reference: AnchorRef,
    pub(super) window: Window,
    key_allowed: bool,
    is_ca: bool,
    /// How many intermediates may follow, where the certificate says so.
    path_length: Option<usize>,
    /// Absent key usage allows everything.
    may_sign_data: bool,
    may_sign_certificates: bool,
    /// Absent extended key usage allows everything.
    for_client_authentication: bool,
}

impl Facts {
    pub(super) fn parse(der: &[u8]) -> Result<Self, Refusal> {
        Self::of(&parse(der)?, der)
    }

    pub(super) fn of(certificate: &X509Certificate<'_>, der: &[u8]) -> Result<Self, Refusal> {
        // Repeated extensions fail here. Basic constraints that do not parse count as none, which makes no authority.
        let basic_constraints = certificate.basic_constraints().map_err(|_| Refusal::Malformed)?;
        let key_usage = certificate.key_usage().map_err(|_| Refusal::Malformed)?.map(|usage| usage.value);
        let extended = certificate.extended_key_usage().map_err(|_| Refusal::Malformed)?.map(|usage| usage.value);
        let constraints = basic_constraints.map(|constraints| constraints.value);
        Ok(Self {
            reference: AnchorRef {
                thumbprint: sha256(der),
                subject: sha256(certificate.subject().as_raw()),
                issuer: sha256(certificate.issuer().as_raw()),
            },
            window: Window {
                not_before: timestamp(certificate.validity().not_before),
                not_after: timestamp(certificate.validity().not_after),
            },
            key_allowed: is_allowed(certificate.public_key()),
            is_ca: constraints.is_some_and(|constraints| constraints.ca),
            path_length: constraints
                .and_then(|constraints| constraints.path_len_constraint)
                .map(|length| usize::try_from(length).unwrap_or(usize::MAX)),
            may_sign_data: key_usage.is_none_or(|usage| usage.digital_signature()),
            may_sign_certificates: key_usage.is_none_or(|usage| usage.key_cert_sign()),
            for_client_authentication: extended.is_none_or(|usage| usage.client_auth),
        })
    }

    pub(super) fn check_key(&self) -> Result<(), Refusal> {
        require(self.key_allowed, Refusal::KeyNotAllowed)
    }

    /// As the leaf of a path.
    pub(super) fn check_leaf(&self, errand: Errand) -> Result<(), Refusal> {
        match errand {
            Errand::Device => {
                self.check_key()?;
                require(!self.is_ca, Refusal::LeafIsCa)?;
                require(self.may_sign_data, Refusal::KeyUsageNotAllowed)?;
                require(self.for_client_authentication, Refusal::ExtendedKeyUsageNotAllowed)
            }
            Errand::EndorsementKey => require(!self.is_ca, Refusal::LeafIsCa),
        }
    }

    /// As a certificate that vouches for another.
    pub(super) fn check_issuer(&self) -> Result<(), Refusal> {
        require(self.is_ca, Refusal::NotACa)?;
        require(self.may_sign_certificates, Refusal::KeyUsageNotAllowed)
    }

    /// As an enrolled authority.
    pub(super) fn check_anchor(&self, errand: Errand) -> Result<(), Refusal> {
        self.check_key()?;
        self.check_issuer()?;
        match errand {
            Errand::Device => require(self.for_client_authentication, Refusal::ExtendedKeyUsageNotAllowed),
            Errand::EndorsementKey => Ok(()),
        }
    }

    /// As an enrolled authority with that many intermediates below it.
    pub(super) fn check_path_length(&self, intermediates: usize) -> Result<(), Refusal> {
        require(self.path_length.is_none_or(|most| intermediates <= most), Refusal::PathLengthExceeded)
    }
}

/// Parses exactly one certificate: bounded before anything is read, nothing behind it.
pub(super) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Refusal> {
    require(der.len() <= limits::CERTIFICATE_BYTES_MAX, Refusal::CertificateTooLarge)?;
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| Refusal::Malformed)?;
    require(rest.is_empty(), Refusal::TrailingBytes)?;
    Ok(certificate)
}

/// The one common name of a subject.
pub(super) fn common_name<'a>(subject: &'a X509Name<'_>) -> Result<&'a str, Refusal> {
    let mut names = subject.iter_common_name();
    let name = names.next().ok_or(Refusal::CommonNameMissing)?;
    require(names.next().is_none(), Refusal::CommonNameRepeated)?;
    name.as_str().map_err(|_| Refusal::CommonNameInvalid)
}

pub(super) fn sha256(bytes: &[u8]) -> Thumbprint {
    let mut thumbprint = [0; 32];
    thumbprint.copy_from_slice(digest(&SHA256, bytes).as_ref());
    Thumbprint(thumbprint)
}

fn sha1(bytes: &[u8]) -> [u8; 20] {
    let mut digested = [0; 20];
    digested.copy_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref());
    digested
}

fn require(holds: bool, otherwise: Refusal) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(otherwise) }
}

fn timestamp(time: ASN1Time) -> Timestamp {
    Timestamp::from_secs(time.timestamp())
}

fn is_allowed(key: &SubjectPublicKeyInfo<'_>) -> bool {
    let algorithm = &key.algorithm.algorithm;
    if *algorithm == OID_PKCS1_RSAENCRYPTION {
        match key.parsed() {
            Ok(PublicKey::RSA(rsa)) => RSA_BITS.contains(&bits(rsa.modulus)),
            Ok(_) | Err(_) => false,
        }
    } else if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        curve.is_some_and(|curve| curve == OID_EC_P256 || curve == OID_NIST_EC_P384)
    } else {
        *algorithm == OID_SIG_ED25519
    }
}

/// The length of a big-endian number in bits, leading zeros not counted.
fn bits(number: &[u8]) -> usize {
    match number.iter().position(|byte| *byte != 0) {
        Some(start) => (number.len() - start) * 8 - usize::try_from(number[start].leading_zeros()).unwrap_or(0),
        None => 0,
    }
}

/// DER of a certificate starts with a SEQUENCE; text never does.
fn is_pem(bytes: &[u8]) -> bool {
    const MARKER: &[u8] = b"-----BEGIN ";
    bytes.first() != Some(&0x30) && bytes.windows(MARKER.len()).any(|window| window == MARKER)
}

/// A text with a private key beside the certificate is refused too: the operator should learn that it was sent.
fn der_of_pem(pem: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem);
    match (sections.next(), sections.next()) {
        (Some(Ok((SectionKind::Certificate, der))), None) => Ok(der),
        (Some(Err(_)), _) => Err(Refusal::Malformed),
        (_, _) => Err(Refusal::NotOneCertificate),
    }
}

/// Without control characters, which are replaced.
pub(in crate::attestation) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
