//! An authority: a CA certificate with its key, for one purpose.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, DnsName};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::fault::{Flaw, PkiFault};
use super::files::{self, Existing, Pair};
use super::issued::{Issued, pem_of};
use super::terms::{Terms, Validity};
use crate::ambient::Entropy;
use crate::domain::{IdFault, RegistrationId, RoleGrant, Timestamp};

/// A common name's bound in X.520.
const NAME_CHARS_MAX: usize = 64;
const ORGANIZATION: &str = "rehome";

/// Whom an authority vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The service itself.
    Server,
    /// People and back ends: certificates with roles.
    Operator,
    /// Devices: the authority that a group is enrolled with.
    Device,
}

impl Purpose {
    pub const ALL: &'static [Purpose] = &[Purpose::Server, Purpose::Operator, Purpose::Device];

    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Server => "server",
            Purpose::Operator => "operator",
            Purpose::Device => "device",
        }
    }

    /// The organisational unit in the subject that marks it.
    fn unit(self) -> String {
        format!("{self} authority")
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Purpose {
    type Err = IdFault;

    fn from_str(text: &str) -> Result<Self, IdFault> {
        Purpose::ALL
            .iter()
            .copied()
            .find(|purpose| purpose.as_str() == text)
            .ok_or(IdFault::Form { what: "purpose", expected: "server, operator or device" })
    }
}

/// A CA certificate with its key.
pub struct Authority {
    purpose: Purpose,
    name: String,
    validity: Validity,
    /// The authority's certificate, then those above it.
    certificates: Vec<CertificateDer<'static>>,
    is_root: bool,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a self-signed authority.
    pub fn create(name: &str, purpose: Purpose, terms: Terms, entropy: &dyn Entropy) -> Result<Self, PkiFault> {
        let params = authority_params(name, purpose, terms.validity, entropy)?;
        let key = terms.key.generate()?;
        let certificate = params.self_signed(&key).map_err(PkiFault::Making)?;
        Ok(Self {
            purpose,
            name: name.to_owned(),
            validity: terms.validity,
            certificates: vec![certificate.into()],
            is_root: true,
            issuer: Issuer::new(params, key),
        })
    }

    /// Makes an authority below this one, for the same purpose and not longer than this one is valid.
    pub fn issue_intermediate(&self, name: &str, terms: Terms, entropy: &dyn Entropy) -> Result<Self, PkiFault> {
        let validity = terms.validity.within(self.validity);
        let params = authority_params(name, self.purpose, validity, entropy)?;
        let key = terms.key.generate()?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(PkiFault::Making)?;
        let certificates = std::iter::once(certificate.into()).chain(self.to_present().iter().cloned()).collect();
        Ok(Self {
            purpose: self.purpose,
            name: name.to_owned(),
            validity,
            certificates,
            is_root: false,
            issuer: Issuer::new(params, key),
        })
    }

    /// Reads an authority that was made here. Its dates are not judged: see [`Authority::validity`].
    pub fn load(pair: &Pair) -> Result<Self, PkiFault> {
        let certificate_pem = files::read(&pair.certificate)?;
        let key_pem = files::read_secret(&pair.key)?;
        let unusable = |path: &std::path::Path, flaw| PkiFault::Unusable { path: path.to_owned(), flaw };
        let key = KeyPair::from_pem(&key_pem).map_err(|_| unusable(&pair.key, Flaw::NotAKey))?;
        Self::assemble(&certificate_pem, key).map_err(|flaw| unusable(&pair.certificate, flaw))
    }

    fn assemble(certificate_pem: &str, key: KeyPair) -> Result<Self, Flaw> {
        let certificates = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Flaw::NotACertificate)?;
        let own = certificates.first().ok_or(Flaw::NotACertificate)?.clone();
        let (rest, parsed) = X509Certificate::from_der(&own).map_err(|_| Flaw::NotACertificate)?;
        let subject = parsed.subject();
        // The issuing library takes for granted that no part of a name is empty.
        if !rest.is_empty() || subject.iter().any(|part| part.iter().next().is_none()) {
            return Err(Flaw::NotACertificate);
        }
        if !parsed.is_ca() {
            return Err(Flaw::NotAnAuthority);
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(Flaw::KeyOfAnother);
        }
        let text = |value: Option<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
            value.and_then(|value| value.as_str().ok()).map(str::to_owned)
        };
        let unit = text(subject.iter_organizational_unit().next()).unwrap_or_default();
        let purpose = Purpose::ALL.iter().copied().find(|purpose| purpose.unit() == unit).ok_or(Flaw::NoPurpose)?;
        Ok(Self {
            purpose,
            name: text(subject.iter_common_name().next()).unwrap_or_default(),
            validity: validity_of(&parsed),
            is_root: subject.as_raw() == parsed.issuer().as_raw(),
            issuer: Issuer::from_ca_cert_der(&own, key).map_err(|_| Flaw::NotACertificate)?,
            certificates,
        })
    }

    /// Writes the certificate (with those above it) and the key.
    pub fn save(&self, pair: &Pair, existing: Existing, entropy: &dyn Entropy) -> Result<(), PkiFault> {
        let key_pem = zeroize::Zeroizing::new(self.issuer.key().serialize_pem());
        pair.write(&self.certificate_pem(), &key_pem, existing, entropy)
    }

    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn validity(&self) -> Validity {
        self.validity
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificates[0]
    }

    /// The certificate, then those above it.
    pub fn certificate_pem(&self) -> String {
        pem_of(&self.certificates)
    }

    /// Issues a server certificate for host names and addresses; the first is its common name.
    pub fn issue_server(&self, host_names: &[String], terms: Terms, entropy: &dyn Entropy) -> Result<Issued, PkiFault> {
        self.expect(Purpose::Server)?;
        let first = host_names.first().ok_or(PkiFault::NoHostName)?;
        let mut params = leaf_params(first, ExtendedKeyUsagePurpose::ServerAuth);
        params.subject_alt_names = host_names.iter().map(|name| alternative_name(name)).collect::<Result<_, _>>()?;
        self.issue(params, terms, entropy)
    }

    /// Issues a client certificate with roles.
    pub fn issue_operator(
        &self,
        name: &str,
        grants: &[RoleGrant],
        terms: Terms,
        entropy: &dyn Entropy,
    ) -> Result<Issued, PkiFault> {
        self.expect(Purpose::Operator)?;
        check_name(name)?;
        if grants.is_empty() {
            return Err(PkiFault::NoRole);
        }
        let mut params = leaf_params(name, ExtendedKeyUsagePurpose::ClientAuth);
        params.subject_alt_names = grants
            .iter()
            .map(|grant| grant.to_string().try_into().map(SanType::URI).map_err(PkiFault::Making))
            .collect::<Result<_, _>>()?;
        self.issue(params, terms, entropy)
    }

    /// Issues a device certificate; its common name is the registration id.
    pub fn issue_device(
        &self,
        registration_id: &RegistrationId,
        terms: Terms,
        entropy: &dyn Entropy,
    ) -> Result<Issued, PkiFault> {
        self.expect(Purpose::Device)?;
        self.issue(leaf_params(registration_id.as_str(), ExtendedKeyUsagePurpose::ClientAuth), terms, entropy)
    }

    fn issue(&self, mut params: CertificateParams, terms: Terms, entropy: &dyn Entropy) -> Result<Issued, PkiFault> {
        terms.validity.within(self.validity).write_to(&mut params)?;
        params.serial_number = Some(serial_number(entropy));
        let key = terms.key.generate()?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(PkiFault::Making)?;
        let chain = std::iter::once(certificate.into()).chain(self.to_present().iter().cloned()).collect();
        Ok(Issued::new(chain, &key))
    }

    /// The certificates that a holder must present beside its own: all but the root.
    fn to_present(&self) -> &[CertificateDer<'static>] {
        if self.is_root { &[] } else { &self.certificates }
    }

    fn expect(&self, needed: Purpose) -> Result<(), PkiFault> {
        if self.purpose == needed { Ok(()) } else { Err(PkiFault::WrongPurpose { needed, found: self.purpose }) }
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({:?}, {})", self.name, self.purpose)
    }
}

pub(super) fn validity_of(certificate: &X509Certificate<'_>) -> Validity {
    Validity {
        not_before: Timestamp::from_secs(certificate.validity().not_before.timestamp()),
        not_after: Timestamp::from_secs(certificate.validity().not_after.timestamp()),
    }
}

fn authority_params(
    name: &str,
    purpose: Purpose,
    validity: Validity,
    entropy: &dyn Entropy,
) -> Result<CertificateParams, PkiFault> {
    check_name(name)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
    params.distinguished_name.push(DnType::OrganizationalUnitName, purpose.unit());
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial_number(entropy));
    validity.write_to(&mut params)?;
    Ok(params)
}

fn leaf_params(common_name: &str, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params
}

fn alternative_name(name: &str) -> Result<SanType, PkiFault> {
    let fault = || PkiFault::HostName { name: name.to_owned() };
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    DnsName::try_from(name).map_err(|_| fault())?;
    name.try_into().map(SanType::DnsName).map_err(|_| fault())
}

fn check_name(name: &str) -> Result<(), PkiFault> {
    let fits = (1..=NAME_CHARS_MAX).contains(&name.chars().count()) && !name.contains(char::is_control);
    if fits { Ok(()) } else { Err(PkiFault::Name { name: name.to_owned(), max: NAME_CHARS_MAX }) }
}

/// 126 random bits: positive and of one length (RFC 5280, 4.1.2.2).
fn serial_number(entropy: &dyn Entropy) -> rcgen::SerialNumber {
    let mut bytes = entropy.draw_u128().to_be_bytes();
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    bytes.to_vec().into()
}
