//! The certificates that a first start makes, so that the service runs with no preparation.
//!
//! Later starts complete what is missing and renew what runs out. What was not made here is never overwritten, and an
//! authority never at all: devices and operators hold certificates that rest on it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::authority::{Authority, Purpose, validity_of};
use super::fault::{Flaw, PkiFault};
use super::files::{self, Existing, Pair};
use super::issued::Issued;
use super::terms::{Terms, Validity};
use crate::ambient::{Clock, Entropy};
use crate::domain::{Role, RoleGrant, Timestamp};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Longer than a test fleet lives; there is no renewal of an authority.
const AUTHORITY_LIFETIME: Duration = DAY.saturating_mul(3650);
/// As long as public server certificates were allowed to be.
const LEAF_LIFETIME: Duration = DAY.saturating_mul(397);
/// A service is restarted at least once a month, or its operator has other means.
const RENEWED_BEFORE: Duration = DAY.saturating_mul(30);

/// The files of a development PKI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevelopmentPaths {
    /// Clients trust its certificate.
    pub server_ca: Pair,
    pub server: Pair,
    /// The service trusts its certificate for operators and back ends.
    pub operator_ca: Pair,
    pub operator: Pair,
    pub reader: Pair,
    pub enroller: Pair,
    pub backend: Pair,
    /// To be enrolled as a group's authority.
    pub device_ca: Pair,
}

impl DevelopmentPaths {
    pub fn of(folder: &Path) -> Self {
        let pair = |name| Pair::named(folder, name);
        Self {
            server_ca: pair("server-ca"),
            server: pair("server"),
            operator_ca: pair("operator-ca"),
            operator: pair("operator"),
            reader: pair("reader"),
            enroller: pair("enroller"),
            backend: pair("backend"),
            device_ca: pair("device-ca"),
        }
    }
}

/// A development PKI that is complete and in date.
#[derive(Debug)]
pub struct Development {
    pub paths: DevelopmentPaths,
    /// The certificates that were made or renewed just now.
    pub written: Vec<PathBuf>,
}

impl Development {
    /// Makes, completes or renews the PKI in a folder; repeated, it changes nothing. Blocks on the disk.
    ///
    /// The server's certificate is renewed too when it lacks one of `host_names` (names or addresses). Two processes in
    /// one folder wait for each other. On an error, what was written before it is whole and stays.
    pub fn ensure(
        folder: &Path,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
        host_names: &[String],
    ) -> Result<Self, PkiFault> {
        let _held = files::lock_folder(folder)?;
        let paths = DevelopmentPaths::of(folder);
        let mut workshop = Workshop { now: clock.now(), entropy, written: Vec::new() };

        let server_ca = workshop.authority(&paths.server_ca, Purpose::Server, &[&paths.server])?;
        workshop.leaf(&paths.server, &server_ca, &Wanted::Server { host_names })?;

        let operators = [
            (&paths.operator, Role::Operator),
            (&paths.reader, Role::Reader),
            (&paths.enroller, Role::Enroller),
            (&paths.backend, Role::Backend),
        ];
        let operator_ca =
            workshop.authority(&paths.operator_ca, Purpose::Operator, &operators.map(|(pair, _)| pair))?;
        for (pair, role) in operators {
            workshop.leaf(pair, &operator_ca, &Wanted::Operator { role })?;
        }

        workshop.authority(&paths.device_ca, Purpose::Device, &[])?;
        Ok(Self { paths, written: workshop.written })
    }
}

/// What a leaf certificate is to be.
enum Wanted<'a> {
    Server { host_names: &'a [String] },
    Operator { role: Role },
}

impl Wanted<'_> {
    fn usage(&self) -> KeyUsage {
        match self {
            Wanted::Server { .. } => KeyUsage::server_auth(),
            Wanted::Operator { .. } => KeyUsage::client_auth(),
        }
    }

    /// Whether a certificate says what it should.
    fn is_named_by(&self, certificate: &EndEntityCert<'_>) -> bool {
        match self {
            Wanted::Server { host_names } => host_names.iter().all(|name| {
                ServerName::try_from(name.as_str())
                    .is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok())
            }),
            Wanted::Operator { role } => {
                certificate.valid_uri_names().eq([RoleGrant::everywhere(*role).to_string().as_str()])
            }
        }
    }

    fn issue(&self, authority: &Authority, terms: Terms, entropy: &dyn Entropy) -> Result<Issued, PkiFault> {
        match self {
            Wanted::Server { host_names } => authority.issue_server(host_names, terms, entropy),
            Wanted::Operator { role } => {
                let name = format!("development {role}");
                authority.issue_operator(&name, &[RoleGrant::everywhere(*role)], terms, entropy)
            }
        }
    }
}

struct Workshop<'a> {
    now: Timestamp,
    entropy: &'a dyn Entropy,
    written: Vec<PathBuf>,
}

impl Workshop<'_> {
    /// Loads an authority, or makes it when neither it nor anything that rests on it is there.
    fn authority(&mut self, pair: &Pair, purpose: Purpose, leaves: &[&Pair]) -> Result<Authority, PkiFault> {
        let half = |present: &PathBuf, missing: &PathBuf| {
            Err(PkiFault::HalfPair { present: present.clone(), missing: missing.clone() })
        };
        match (files::exists(&pair.certificate)?, files::exists(&pair.key)?) {
            (true, true) => self.load_authority(pair, purpose),
            (true, false) => half(&pair.certificate, &pair.key),
            (false, true) => half(&pair.key, &pair.certificate),
            (false, false) => {
                for leaf in leaves {
                    if files::exists(&leaf.certificate)? {
                        return unusable(&leaf.certificate, Flaw::AuthorityMissing);
                    }
                }
                self.create_authority(pair, purpose)
            }
        }
    }

    fn load_authority(&self, pair: &Pair, purpose: Purpose) -> Result<Authority, PkiFault> {
        let authority = Authority::load(pair)?;
        if authority.purpose() != purpose {
            unusable(&pair.certificate, Flaw::OtherPurpose)
        } else if !authority.validity().contains(self.now) {
            unusable(&pair.certificate, Flaw::OutOfDate)
        } else {
            Ok(authority)
        }
    }

    fn create_authority(&mut self, pair: &Pair, purpose: Purpose) -> Result<Authority, PkiFault> {
        // Two folders' authorities must not share a name: an enrollment is found by it.
        let mark = self.entropy.draw_u128() & 0xffff_ffff;
        let name = format!("rehome development {purpose} CA {mark:08x}");
        let terms = Terms::starting(self.now, AUTHORITY_LIFETIME);
        let authority = Authority::create(&name, purpose, terms, self.entropy)?;
        authority.save(pair, Existing::Refuse, self.entropy)?;
        self.written.push(pair.certificate.clone());
        Ok(authority)
    }

    /// Keeps a leaf that fits; otherwise issues it. A certificate of another origin is an error.
    fn leaf(&mut self, pair: &Pair, authority: &Authority, wanted: &Wanted<'_>) -> Result<(), PkiFault> {
        if files::exists(&pair.certificate)? && self.fits(pair, authority, wanted)? {
            return Ok(());
        }
        let issued = wanted.issue(authority, Terms::starting(self.now, LEAF_LIFETIME), self.entropy)?;
        issued.save(pair, Existing::Replace, self.entropy)?;
        self.written.push(pair.certificate.clone());
        Ok(())
    }

    fn fits(&self, pair: &Pair, authority: &Authority, wanted: &Wanted<'_>) -> Result<bool, PkiFault> {
        let pem = files::read(&pair.certificate)?;
        let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else {
            return unusable(&pair.certificate, Flaw::NotACertificate);
        };
        let (Ok(certificate), Ok((_, parsed))) = (EndEntityCert::try_from(&der), X509Certificate::from_der(&der))
        else {
            return unusable(&pair.certificate, Flaw::NotACertificate);
        };
        let validity = validity_of(&parsed);
        if !is_issued_by(&certificate, authority, validity, wanted.usage()) {
            return unusable(&pair.certificate, Flaw::NotIssuedHere);
        }
        let lasts = validity.contains(self.now) && validity.not_after >= self.now.plus(RENEWED_BEFORE);
        // A renewal that was cut short leaves a new key beside an old certificate: the next one mends it.
        let has_its_key = files::exists(&pair.key)?
            && KeyPair::from_pem(&files::read_secret(&pair.key)?)
                .is_ok_and(|key| key.subject_public_key_info() == *parsed.public_key().raw);
        Ok(lasts && has_its_key && wanted.is_named_by(&certificate))
    }
}

/// Whether the authority signed the certificate, however long ago.
fn is_issued_by(certificate: &EndEntityCert<'_>, authority: &Authority, validity: Validity, usage: KeyUsage) -> bool {
    let Ok(anchor) = webpki::anchor_from_trusted_cert(authority.certificate()) else {
        return false;
    };
    let in_date = Duration::from_secs(u64::try_from(validity.not_after.as_secs()).unwrap_or(0));
    let in_date = UnixTime::since_unix_epoch(in_date);
    certificate.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &[anchor], &[], in_date, usage, None, None).is_ok()
}

fn unusable<T>(path: &Path, flaw: Flaw) -> Result<T, PkiFault> {
    Err(PkiFault::Unusable { path: path.to_owned(), flaw })
}
