//! What an endorsement key's certificate says, for people. Whether it is to be believed, the service judges.

use tpm2_protocol::TpmUnmarshal as _;
use tpm2_protocol::data::{Tpm2bPublic, TpmuPublicId};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::asn1_rs::{Oid, oid};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;

use crate::domain::Timestamp;

const OID_MANUFACTURER: Oid<'static> = oid!(2.23.133.2.1);
const OID_MODEL: Oid<'static> = oid!(2.23.133.2.2);
const OID_VERSION: Oid<'static> = oid!(2.23.133.2.3);

/// The words of a certificate. Texts are as the certificate writes them; whoever shows them takes care of control
/// characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EkCertificate {
    /// Empty where the manufacturer names none.
    pub subject: String,
    pub issuer: String,
    /// As `id:494E5443`.
    pub manufacturer: Option<String>,
    pub model: Option<String>,
    pub version: Option<String>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// Whether it certifies the key that it is shown with.
    pub is_for_key: bool,
}

impl EkCertificate {
    /// Reads a certificate beside the key (TPM2B_PUBLIC) that it should be for; `None` when it is none.
    pub fn read(der: &[u8], key: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let text = |wanted: &Oid<'_>| tpm_attribute(&certificate, wanted);
        let moment = |time: ASN1Time| Timestamp(time.timestamp().saturating_mul(1000));
        Some(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            manufacturer: text(&OID_MANUFACTURER),
            model: text(&OID_MODEL),
            version: text(&OID_VERSION),
            not_before: moment(certificate.validity().not_before),
            not_after: moment(certificate.validity().not_after),
            is_for_key: is_for(&certificate, key),
        })
    }
}

/// As keys are written to files.
pub fn base64(bytes: &[u8]) -> String {
    data_encoding::BASE64.encode(bytes)
}

/// A certificate as it is written to files (RFC 7468).
pub fn pem(der: &[u8]) -> String {
    let text = base64(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// A name of the TPM in the certificate's alternative names (TCG EK Credential Profile 2.5, section 3.2.9).
fn tpm_attribute(certificate: &X509Certificate<'_>, wanted: &Oid<'_>) -> Option<String> {
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    let mut directories = names.iter().filter_map(|name| match name {
        GeneralName::DirectoryName(directory) => Some(directory),
        // The library's list, which grows: none of the others holds such names.
        _ => None,
    });
    directories
        .find_map(|directory| directory.iter_attributes().find(|attribute| attribute.attr_type() == wanted))
        .and_then(|attribute| attribute.as_str().ok())
        .map(str::to_owned)
}

fn is_for(certificate: &X509Certificate<'_>, key: &[u8]) -> bool {
    let Ok((public, _)) = Tpm2bPublic::unmarshal(key) else {
        return false;
    };
    match (certificate.public_key().parsed(), &public.inner.unique) {
        (Ok(PublicKey::RSA(rsa)), TpmuPublicId::Rsa(modulus)) => without_zeros(rsa.modulus) == without_zeros(modulus),
        (Ok(PublicKey::EC(point)), TpmuPublicId::Ecc(unique)) => {
            let point = point.data();
            let half = point.len().saturating_sub(1) / 2;
            let coordinates = point.strip_prefix(&[4]).and_then(|point| point.split_at_checked(half));
            coordinates.is_some_and(|(x, y)| {
                without_zeros(x) == without_zeros(&unique.x) && without_zeros(y) == without_zeros(&unique.y)
            })
        }
        // A key of another type than the certificate's, or one that a TPM does not have.
        (_, _) => false,
    }
}

/// Numbers are the same with and without zeros before them.
fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}
