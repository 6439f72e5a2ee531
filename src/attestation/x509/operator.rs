//! Operators and back ends: a client certificate of the operators' authority, and the roles that it grants.
//!
//! An [`Operator`] is a witness of its own: it never stands for a device.

use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use super::certificate::{common_name, parse, printable};
use super::chain;
use super::path;
use super::refusal::Refusal;
use crate::domain::{CertificateRef, RoleGrant, Thumbprint, Timestamp};

const ROLE: &str = "rehome:role:";

/// Somebody whose certificate the operators' authority vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    name: String,
    grants: Vec<RoleGrant>,
    thumbprint: Thumbprint,
}

impl Operator {
    /// The certificate's common name, its control characters replaced: for audit and pins.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// May be empty: then nothing is allowed.
    pub fn grants(&self) -> &[RoleGrant] {
        &self.grants
    }

    /// SHA-256 of the certificate.
    pub fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }
}

/// Verifies a presented chain (leaf first, DER) against the operators' authorities, by the rules of a group.
///
/// URIs that are no roles are ignored; a misspelt role is refused, so that nobody wonders about missing rights. To be
/// called at every call, like [`super::judge`].
pub fn verify_operator(chain: &[Vec<u8>], authorities: &[CertificateRef], now: Timestamp) -> Result<Operator, Refusal> {
    let certificates = chain::read(chain)?;
    let anchors = authorities.iter().map(|authority| ((), &authority.der));
    path::find_any(&certificates, anchors, path::Errand::Device, now)?;
    let leaf = &certificates[0];
    let name = printable(common_name(parse(&leaf.der)?.subject())?);
    let der = CertificateDer::from(leaf.der.as_slice());
    let grants = EndEntityCert::try_from(&der)
        .map_err(|_| Refusal::Malformed)?
        .valid_uri_names()
        .filter(|uri| uri.starts_with(ROLE))
        .map(|uri| uri.parse().map_err(|_| Refusal::RoleInvalid))
        .collect::<Result<_, _>>()?;
    Ok(Operator { name, grants, thumbprint: leaf.facts.reference.thumbprint })
}
