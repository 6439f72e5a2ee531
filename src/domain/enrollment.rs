//! The operator's rule that lets devices register: one device (individual) or many (group).

use std::fmt;
use std::time::Duration;

use super::document::Document;
use super::ids::{DeviceId, GroupId, HubId, RegistrationId, Thumbprint, Version};
use super::key::{KeyFingerprint, KeyPair, SealedKey};
use super::time::Timestamp;
use super::tpm::{EkHash, TpmDevice, TpmFleet, TpmRules};
use super::twin::Capabilities;

/// Which enrollment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EnrollmentId {
    Individual(RegistrationId),
    Group(GroupId),
}

impl EnrollmentId {
    /// The id alone.
    pub fn name(&self) -> &str {
        match self {
            EnrollmentId::Individual(id) => id.as_str(),
            EnrollmentId::Group(id) => id.as_str(),
        }
    }
}

impl fmt::Display for EnrollmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EnrollmentId::Individual(id) => write!(f, "individual {id}"),
            EnrollmentId::Group(id) => write!(f, "group {id}"),
        }
    }
}

/// A certificate as an enrollment stores it: the DER, and what it is looked up by.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateRef {
    pub der: Vec<u8>,
    /// SHA-256 of the DER.
    pub thumbprint: Thumbprint,
    /// SHA-256 of the DER of the subject name: finds a group by the issuer of a certificate it signed.
    pub subject: Thumbprint,
}

impl fmt::Debug for CertificateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateRef({})", self.thumbprint)
    }
}

/// How one certificate of a presented chain can be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AnchorRef {
    pub thumbprint: Thumbprint,
    pub subject: Thumbprint,
    pub issuer: Thumbprint,
}

/// The leaf certificates of an individual enrollment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct X509Leaves {
    pub primary: CertificateRef,
    pub secondary: Option<CertificateRef>,
}

/// The CA certificates of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct X509Anchors {
    pub primary: CertificateRef,
    pub secondary: Option<CertificateRef>,
}

/// How devices of an enrollment prove themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attestation {
    /// Individual: the leaf is one of these.
    X509Leaf(X509Leaves),
    /// Group: the leaf's chain ends at one of these.
    X509Ca(X509Anchors),
    /// Individual: the TPM has this endorsement key.
    Tpm(TpmDevice),
    /// Group: the certificate of the TPM's endorsement key comes from one of these.
    TpmFleet(TpmFleet),
    /// Individual: the device signs tokens with one of these.
    SymmetricKey(KeyPair<SealedKey>),
    /// Group: each device signs tokens with a key that is made of one of these and its registration id.
    MasterKey(KeyPair<SealedKey>),
}

/// Something by which an enrollment identifies devices. Each may stand in one enrollment only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Claim {
    Certificate(Thumbprint),
    EndorsementKey(EkHash),
    /// A group's key: a token that a key made of it has signed leads to the group.
    MasterKey(KeyFingerprint),
}

impl Claim {
    /// A digest, of a certificate or of a key: never the same for two of them.
    pub fn digest(&self) -> &[u8; 32] {
        match self {
            Claim::Certificate(thumbprint) => &thumbprint.0,
            Claim::EndorsementKey(hash) => &hash.0,
            Claim::MasterKey(fingerprint) => &fingerprint.0,
        }
    }
}

impl Attestation {
    /// Every certificate the enrollment holds.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateRef> {
        let (primary, secondary) = match self {
            Attestation::X509Leaf(leaves) => (Some(&leaves.primary), leaves.secondary.as_ref()),
            Attestation::X509Ca(anchors) => (Some(&anchors.primary), anchors.secondary.as_ref()),
            Attestation::Tpm(_) | Attestation::SymmetricKey(_) | Attestation::MasterKey(_) => (None, None),
            Attestation::TpmFleet(fleet) => (Some(&fleet.anchors.primary), fleet.anchors.secondary.as_ref()),
        };
        primary.into_iter().chain(secondary)
    }

    /// The keys that are enrolled: the device's own, or those that its devices' are made of.
    pub fn keys(&self) -> Option<&KeyPair<SealedKey>> {
        match self {
            Attestation::SymmetricKey(keys) | Attestation::MasterKey(keys) => Some(keys),
            Attestation::X509Leaf(_) | Attestation::X509Ca(_) | Attestation::Tpm(_) | Attestation::TpmFleet(_) => None,
        }
    }

    /// What is asked of a TPM beyond its endorsement key.
    pub fn tpm_rules(&self) -> Option<&TpmRules> {
        match self {
            Attestation::X509Leaf(_)
            | Attestation::X509Ca(_)
            | Attestation::SymmetricKey(_)
            | Attestation::MasterKey(_) => None,
            Attestation::Tpm(device) => Some(&device.rules),
            Attestation::TpmFleet(fleet) => Some(&fleet.rules),
        }
    }

    /// Everything that may stand in no other enrollment.
    pub fn claims(&self) -> impl Iterator<Item = Claim> {
        let (key, other) = match self {
            Attestation::Tpm(device) => (Some(Claim::EndorsementKey(device.ek_hash)), None),
            Attestation::MasterKey(keys) => {
                let [primary, secondary] = keys.both().map(|key| Claim::MasterKey(key.fingerprint()));
                (Some(primary), Some(secondary).filter(|secondary| *secondary != primary))
            }
            // A device is looked up by its id: what it signs with may be another's, too.
            Attestation::SymmetricKey(_)
            | Attestation::X509Leaf(_)
            | Attestation::X509Ca(_)
            | Attestation::TpmFleet(_) => (None, None),
        };
        self.certificates().map(|certificate| Claim::Certificate(certificate.thumbprint)).chain(key).chain(other)
    }
}

/// What happens to twin and hub when a device registers again. *None stored* is a state of its own: `Option<…>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReprovisionPolicy {
    /// Move, and carry the device state over.
    Migrate,
    /// Move, and set back to the initial configuration.
    Reset,
    /// Stay.
    Never,
}

impl ReprovisionPolicy {
    pub fn as_str(self) -> &'static str {
        match self {
            ReprovisionPolicy::Migrate => "migrate",
            ReprovisionPolicy::Reset => "reset",
            ReprovisionPolicy::Never => "never",
        }
    }
}

/// A webhook that is asked for the hub (reference/dps.md §1.10). The URL may carry a key: never logged, never shown whole.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookPolicy {
    /// `https://…`, at most [`super::limits::WEBHOOK_URL_CHARS_MAX`] characters.
    pub url: String,
    pub api_version: String,
}

impl WebhookPolicy {
    /// The URL with its query masked.
    pub fn masked_url(&self) -> String {
        match self.url.split_once('?') {
            Some((before, _)) => format!("{before}?****"),
            None => self.url.clone(),
        }
    }
}

impl fmt::Debug for WebhookPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookPolicy({}, {})", self.masked_url(), self.api_version)
    }
}

/// How a hub is chosen among the candidates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllocationPolicy {
    /// The hub that the enrollment names; where it names none, the only one that is linked.
    Static,
    /// Weighted rendezvous hashing on the case-folded registration id.
    Hashed,
    /// By the device's reported latencies or its location.
    LowestLatency,
    /// Asked outside.
    Custom(WebhookPolicy),
}

impl AllocationPolicy {
    pub fn as_str(&self) -> &'static str {
        match self {
            AllocationPolicy::Static => "static",
            AllocationPolicy::Hashed => "hashed",
            AllocationPolicy::LowestLatency => "lowest_latency",
            AllocationPolicy::Custom(_) => "custom",
        }
    }
}

/// What to do when the old hub does not answer a seal (DESIGN 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnreachableRule {
    /// Retry until the deadline, then give the move up.
    Wait { deadline: Duration },
    /// Carry the newest state the service has seen.
    LastKnown,
    /// Carry the initial configuration.
    Reset,
}

/// When the policy *reset* sets a device back whose hub does not change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ResetOnSameHub {
    #[default]
    Always,
    /// Only when the enrollment changed since the device was last assigned or reset.
    WhenEnrollmentChanged,
    Off,
}

/// The configuration a device starts with, and is set back to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InitialState {
    pub tags: Document,
    pub desired: Document,
    pub capabilities: Capabilities,
}

/// The operator's rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Enrollment {
    pub id: EnrollmentId,
    pub attestation: Attestation,
    pub enabled: bool,
    /// Individual only; absent is the registration id. A group's device is always named by its registration id.
    pub device_id: Option<DeviceId>,
    pub initial: InitialState,
    /// `None` is stored as none and never turned into a policy.
    pub reprovision: Option<ReprovisionPolicy>,
    /// `None`: the service's default (hashed).
    pub allocation: Option<AllocationPolicy>,
    /// Candidates; empty means every linked hub.
    pub hubs: Vec<HubId>,
    pub unreachable: UnreachableRule,
    /// Needed by `last_known` and `reset`, which otherwise act as `wait`.
    pub allow_late_writes: bool,
    pub reset_on_same_hub: ResetOnSameHub,
    /// A device whose hub is down is moved away instead of staying.
    pub reassign_when_down: bool,
    /// A device that the hub has but the service does not know is adopted instead of replaced.
    pub adopt_existing: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub version: Version,
}
