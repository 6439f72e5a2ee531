//! A certificate that was just issued, with its private key.

use std::fmt;

use rcgen::KeyPair;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::fault::PkiFault;
use super::files::{Existing, Pair};
use crate::ambient::Entropy;

/// A leaf certificate, the intermediates that lead to its authority, and the private key.
pub struct Issued {
    chain: Vec<CertificateDer<'static>>,
    key_der: Zeroizing<Vec<u8>>,
    key_pem: Zeroizing<String>,
}

impl Issued {
    pub(super) fn new(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Self {
        Self { chain, key_der: Zeroizing::new(key.serialize_der()), key_pem: Zeroizing::new(key.serialize_pem()) }
    }

    /// Leaf first; what is to be presented.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The private key for a TLS configuration.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key_der.to_vec()).into()
    }

    pub fn certificate_pem(&self) -> String {
        pem_of(&self.chain)
    }

    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Writes certificate and key.
    pub fn save(&self, pair: &Pair, existing: Existing, entropy: &dyn Entropy) -> Result<(), PkiFault> {
        pair.write(&self.certificate_pem(), &self.key_pem, existing, entropy)
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issued({} certificates)", self.chain.len())
    }
}

/// The PEM text of certificates, lines of 64 characters (RFC 7468).
pub(super) fn pem_of(certificates: &[CertificateDer<'_>]) -> String {
    let mut pem = String::new();
    for certificate in certificates {
        let base64 = data_encoding::BASE64.encode(certificate);
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut rest = base64.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}
