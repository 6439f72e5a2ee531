//! EK certificates: the manufacturer's word that an endorsement key is in a TPM of its make.
//!
//! They differ from other certificates, and from one manufacturer to the next: padding behind the end (they come out of a
//! TPM's memory as it is), no subject, a name in a critical extension, `CA:FALSE` spelled out, the key marked as one for
//! OAEP. All of that is taken. A critical extension that is not understood is not.

use std::fmt;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, Oid, asn1_rs::oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};

use super::crypto::{Curve, Point};
use super::keys::{EndorsementKey, Numbers};
use super::refusal::CertificateFault;
use crate::attestation::verified::{Matched, Slot};
use crate::attestation::x509::{self, Errand, PresentedCertificate, Refusal};
use crate::domain::{
    AnchorRef, CertificateRef, Thumbprint, Timestamp, TpmFleet, TpmMake, TpmManufacturer, TpmModel, limits,
};

const OID_EK_CERTIFICATE: Oid<'static> = oid!(2.23.133.8.1);
const OID_MANUFACTURER: Oid<'static> = oid!(2.23.133.2.1);
const OID_MODEL: Oid<'static> = oid!(2.23.133.2.2);
const OID_VERSION: Oid<'static> = oid!(2.23.133.2.3);
/// `id-RSAES-OAEP`, which some old certificates mark their key with.
const OID_RSA_OAEP: Oid<'static> = oid!(1.2.840.113549.1.1.7);

/// An EK certificate and what came with it, leaf first: well-formed and bounded, still unproven.
#[derive(Clone)]
pub struct EkChain {
    /// Never empty.
    certificates: Vec<PresentedCertificate>,
    references: Vec<AnchorRef>,
}

/// What a verified EK certificate says of its TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EkFacts {
    pub thumbprint: Thumbprint,
    pub not_after: Timestamp,
    pub manufacturer: Option<TpmManufacturer>,
    pub model: Option<TpmModel>,
    /// As the certificate writes it, without control characters.
    pub version: Option<String>,
}

impl EkChain {
    /// Reads a chain, leaf first, DER, each certificate perhaps padded with zeros or ones.
    pub fn parse(chain: &[Vec<u8>]) -> Result<Self, Refusal> {
        if chain.len() > limits::CHAIN_CERTIFICATES_MAX {
            return Err(Refusal::ChainTooLong);
        }
        let trimmed: Vec<Vec<u8>> = chain.iter().map(|der| without_padding(der).to_vec()).collect();
        let certificates = x509::read_chain(&trimmed)?;
        let references = certificates.iter().map(PresentedCertificate::reference).collect();
        Ok(Self { certificates, references })
    }

    /// How each certificate can be looked up, leaf first: what matching walks along.
    pub fn references(&self) -> &[AnchorRef] {
        &self.references
    }

    /// Verifies that the certificate is of this key, that a path leads to the fleet's authorities at `now`, and that the
    /// fleet takes TPMs of the make.
    pub(super) fn verify(
        &self,
        key: &EndorsementKey,
        fleet: &TpmFleet,
        now: Timestamp,
    ) -> Result<(Matched, EkFacts), CertificateFault> {
        let leaf = self.certificates.first().ok_or(CertificateFault::Missing)?;
        const MALFORMED: CertificateFault = CertificateFault::Chain(Refusal::Malformed);
        let (_, certificate) = X509Certificate::from_der(leaf.der()).map_err(|_| MALFORMED)?;
        if !is_key_of(key, certificate.public_key()) {
            return Err(CertificateFault::KeyMismatch);
        }
        let usage = certificate.extended_key_usage().map_err(|_| MALFORMED)?;
        let is_made_out =
            usage.map_or(fleet.usage_may_be_absent, |usage| usage.value.other.contains(&OID_EK_CERTIFICATE));
        if !is_made_out {
            return Err(CertificateFault::UsageNotAllowed);
        }
        let anchors = [
            Some((Slot::Primary, &fleet.anchors.primary)),
            fleet.anchors.secondary.as_ref().map(|it| (Slot::Secondary, it)),
        ];
        let anchors = anchors.into_iter().flatten();
        let anchors = anchors.map(|(slot, anchor)| (Matched::Anchor { slot, anchor: anchor.thumbprint }, &anchor.der));
        let (matched, _) = x509::find_path(&self.certificates, anchors, Errand::EndorsementKey, now)
            .map_err(CertificateFault::Chain)?;
        let facts = EkFacts::of(&certificate, leaf)?;
        facts.check_make(&fleet.makes)?;
        Ok((matched, facts))
    }
}

impl fmt::Debug for EkChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EkChain({} certificates)", self.certificates.len())
    }
}

/// May the certificate stand in a group of TPMs? It must be an authority's with an allowed key.
pub fn check_authority(certificate: &CertificateRef) -> Result<(), Refusal> {
    x509::check_authority(&certificate.der, Errand::EndorsementKey)
}

impl EkFacts {
    fn of(certificate: &X509Certificate<'_>, leaf: &PresentedCertificate) -> Result<Self, CertificateFault> {
        let names = certificate.subject_alternative_name().map_err(|_| CertificateFault::MakeMalformed)?;
        let mut directories = names.iter().flat_map(|extension| &extension.value.general_names).filter_map(directory);
        let directory = directories.next();
        let text = |oid| directory.map(|name| attribute(name, oid)).transpose().map(Option::flatten);
        let (manufacturer, model, version) = (text(&OID_MANUFACTURER)?, text(&OID_MODEL)?, text(&OID_VERSION)?);
        Ok(Self {
            thumbprint: leaf.reference().thumbprint,
            not_after: leaf.not_after(),
            manufacturer: manufacturer
                .map(|text| text.parse().map_err(|_| CertificateFault::MakeMalformed))
                .transpose()?,
            model: model
                .map(|text| TpmModel::parse(&x509::printable(text)).map_err(|_| CertificateFault::MakeMalformed))
                .transpose()?,
            version: version.map(x509::printable),
        })
    }

    fn check_make(&self, makes: &[TpmMake]) -> Result<(), CertificateFault> {
        if makes.is_empty() {
            return Ok(());
        }
        let manufacturer = self.manufacturer.ok_or(CertificateFault::MakeMissing)?;
        let is_taken =
            |make: &TpmMake| make.manufacturer == manufacturer && (make.model.is_none() || make.model == self.model);
        if makes.iter().any(is_taken) { Ok(()) } else { Err(CertificateFault::MakeNotAllowed) }
    }
}

fn directory<'a, 'b>(name: &'b GeneralName<'a>) -> Option<&'b X509Name<'a>> {
    match name {
        GeneralName::DirectoryName(name) => Some(name),
        _ => None,
    }
}

/// The one value of an attribute, if there is any.
fn attribute<'a>(name: &'a X509Name<'_>, oid: &Oid<'_>) -> Result<Option<&'a str>, CertificateFault> {
    let mut values = name.iter().flat_map(|rdn| rdn.iter()).filter(|attribute| attribute.attr_type() == oid);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.as_str().map(Some).map_err(|_| CertificateFault::MakeMalformed),
        (Some(_), Some(_)) => Err(CertificateFault::MakeMalformed),
    }
}

/// Whether a certificate's key has the same numbers.
fn is_key_of(key: &EndorsementKey, subject: &SubjectPublicKeyInfo<'_>) -> bool {
    let algorithm = &subject.algorithm.algorithm;
    let bits = subject.subject_public_key.data.as_ref();
    match key.numbers() {
        Numbers::Rsa { modulus } => {
            let is_rsa = *algorithm == OID_PKCS1_RSAENCRYPTION || *algorithm == OID_RSA_OAEP;
            let is_same = |rsa: &RSAPublicKey<'_>| {
                without_zeros(rsa.modulus) == modulus && without_zeros(rsa.exponent) == [1, 0, 1]
            };
            is_rsa && RSAPublicKey::from_der(bits).is_ok_and(|(rest, rsa)| rest.is_empty() && is_same(&rsa))
        }
        Numbers::Ecc(Point { curve, x, y }) => {
            let oid = match curve {
                Curve::P256 => OID_EC_P256,
                Curve::P384 => OID_NIST_EC_P384,
            };
            let parameters = subject.algorithm.parameters.as_ref().and_then(|it| it.as_oid().ok());
            let is_curve = *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && parameters.is_some_and(|found| found == oid);
            is_curve && *bits == [&[4], x.as_slice(), y].concat()
        }
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    number.iter().position(|byte| *byte != 0).map_or(&[], |start| &number[start..])
}

/// The certificate that a memory starts with, if nothing but zeros or nothing but ones follow; else all of it.
fn without_padding(memory: &[u8]) -> &[u8] {
    let size = match memory {
        [0x30, 0x82, high, low, ..] => 4 + usize::from(u16::from_be_bytes([*high, *low])),
        _ => return memory,
    };
    match memory.split_at_checked(size) {
        Some((certificate, padding)) => {
            let is_padding = padding.iter().all(|byte| *byte == 0) || padding.iter().all(|byte| *byte == 0xff);
            if is_padding { certificate } else { memory }
        }
        None => memory,
    }
}
