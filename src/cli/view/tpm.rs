//! A TPM, as it is shown.

use serde::Serialize;

use crate::cli::output::Shown;
use crate::client::tpm::{EkCertificate, TpmSummary};
use crate::client::tpm::{base64, pem};

use super::{fact, yes_no};

/// A TPM's endorsement key and what its manufacturer says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TpmView {
    pub registration_id: String,
    pub endorsement_key_hash: String,
    pub endorsement_key_kind: &'static str,
    pub endorsement_key_handle: String,
    pub is_persistent: bool,
    /// TPM2B_PUBLIC, base64.
    pub endorsement_key: String,
    pub certificate: Option<CertificateView>,
    /// The certificate and those above it.
    pub certificates_pem: Vec<String>,
    pub has_identity_key: bool,
}

/// An endorsement key's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateView {
    pub subject: String,
    pub issuer: String,
    pub manufacturer: Option<String>,
    pub model: Option<String>,
    pub version: Option<String>,
    pub valid_from: String,
    pub valid_until: String,
    pub is_for_key: bool,
}

impl From<EkCertificate> for CertificateView {
    fn from(certificate: EkCertificate) -> Self {
        Self {
            subject: certificate.subject,
            issuer: certificate.issuer,
            manufacturer: certificate.manufacturer,
            model: certificate.model,
            version: certificate.version,
            valid_from: certificate.not_before.to_string(),
            valid_until: certificate.not_after.to_string(),
            is_for_key: certificate.is_for_key,
        }
    }
}

impl From<&TpmSummary> for TpmView {
    fn from(summary: &TpmSummary) -> Self {
        let key = &summary.endorsement;
        let leaf = summary.certificates.first();
        Self {
            registration_id: key.hash().registration_id().to_string(),
            endorsement_key_hash: key.hash().to_string(),
            endorsement_key_kind: key.kind.as_str(),
            endorsement_key_handle: format!("0x{:08x}", key.handle),
            is_persistent: key.is_persistent,
            endorsement_key: base64(&key.public),
            certificate: leaf.and_then(|der| EkCertificate::read(der, &key.public)).map(CertificateView::from),
            certificates_pem: summary.certificates.iter().map(|der| pem(der)).collect(),
            has_identity_key: summary.has_identity,
        }
    }
}

impl Shown for TpmView {
    fn facts(&self) -> Vec<(&'static str, String)> {
        let kept = if self.is_persistent { "" } else { " (free: the key is made at the first registration)" };
        let mut facts = vec![
            ("registration id", self.registration_id.clone()),
            ("endorsement key", self.endorsement_key_kind.to_owned()),
            ("  SHA-256", self.endorsement_key_hash.clone()),
            ("  handle", format!("{}{kept}", self.endorsement_key_handle)),
            ("identity key", yes_no(self.has_identity_key)),
        ];
        match &self.certificate {
            None => facts.push(("certificate", "none in the TPM".to_owned())),
            Some(certificate) => facts.extend([
                ("certificate of", certificate.subject.clone()),
                ("  issuer", certificate.issuer.clone()),
                ("  manufacturer", fact(certificate.manufacturer.as_deref())),
                ("  model", fact(certificate.model.as_deref())),
                ("  version", fact(certificate.version.as_deref())),
                ("  valid from", certificate.valid_from.clone()),
                ("  valid until", certificate.valid_until.clone()),
                ("  is for this key", yes_no(certificate.is_for_key)),
            ]),
        }
        facts
    }
}
