//! The one API that every edge calls: domain types in, domain types or a [`Fault`] out; no protocol of any kind.
//!
//! Here evidence becomes proof, requests are held against what else is stored, and every change is committed with its
//! audit entry. What a device's registration *does* is the device's actor's.

mod audit;
mod backup;
mod challenges;
mod crowd;
mod devices;
mod enrollment;
mod fault;
mod fleet;
mod import;
mod keys;
mod operators;
mod policies;
mod proof;
mod reconcile;
mod registration;
mod registry;
mod throttle;
mod tpm;
mod twin;
mod vault;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::actors::Directory;
use crate::ambient::{Clock, Entropy};
use crate::domain::{CertificateRef, IdScope, Timestamp};
use crate::hubs::HubFactory;
use crate::store::Store;

pub use self::backup::BackupPart;
pub use self::devices::{Explained, KeptState, PinRequest, RegistrationView, Revoked};
pub use self::enrollment::describe_certificate;
pub use self::fleet::{HubDebts, HubReading};
pub use self::import::Imported;
pub use self::policies::{Door, PolicyHolder, SharedAccess, hub_policy_key};
pub use self::reconcile::{DeviceNews, ReconcileNews, Reinstatement};
#[cfg(any(test, feature = "testing"))]
pub use self::reconcile::{Ground, News, Tidings};
pub use self::registration::{DeviceView, Peer, RegisterAsk, Registering};
pub use self::registry::HubDevice;
pub use self::throttle::subnet;
pub use self::tpm::{BeginAsk, Begun, QuoteAsk, TOKEN_KEY_NAME, TOKEN_SCOPE, TpmAnswer};
pub use self::twin::DesiredWatch;
pub use self::vault::{VAULT_KEY_BYTES, Vault};
pub use crate::actors::UndoWish;
pub use crate::attestation::x509::{CertificateInfo, Operator};
pub use crate::hubs::{DesiredEvent, Resident, TwinWrite};
pub use crate::moves::{CallKey, Effect, Episode, Resolve, Tries, Way};
pub use crate::policy::Outcome;
pub use crate::store::{AuditFilter, EnrollmentListing, PageRequest, RegistrationFilter, StatusFilter};

/// Bounds and choices of this room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Registrations that are worked on at once; beyond it devices are told when to come back.
    pub registrations_max: usize,
    /// A refused registration is answered no sooner than this after it was asked, whatever its cause, so that the time
    /// tells a stranger nothing. Longer than any judgement takes.
    pub refuse_after: Duration,
    /// Refused registrations that one address may have in a row, and how soon one more is allowed. Room for the devices
    /// behind one address translator; each costs an audit entry.
    pub refusals_per_peer: u32,
    pub refusal_regained_after: Duration,
    /// As above, for one registration id from one address.
    pub refusals_per_id: u32,
    pub id_refusal_regained_after: Duration,
    /// Addresses (and addresses with an id) whose refusals are counted; beyond it the oldest are forgotten.
    pub throttled_max: usize,
    /// Challenges made for one address before it must wait: a plant behind one address may start at once.
    pub challenges_per_peer: u32,
    pub challenge_regained_after: Duration,
    /// The same for one registration id at one address.
    pub challenges_per_id: u32,
    pub id_challenge_regained_after: Duration,
    /// Challenges that are out, and registrations whose tokens still read, some 6 KiB each; beyond it the oldest go.
    pub challenges_max: usize,
    /// Checked chains that are remembered, some 2 KiB each; and tokens that verified, some 200 bytes each.
    pub proofs_max: usize,
    /// What an embedded hub is called when its operator does not say: its id under this domain.
    pub embedded_domain: String,
    /// Where embedded hubs are reached when their operator does not say: `host:port` of this very service.
    pub embedded_endpoint: String,
    /// What existing SDKs name the service by: tokens may be for it by this name, too.
    pub id_scope: Option<IdScope>,
    /// Where copies lie while a backup is read.
    pub scratch_folder: PathBuf,
    /// Who calls by a key, and what the service is called by those.
    pub shared_access: SharedAccess,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            registrations_max: 4_096,
            refuse_after: Duration::from_millis(100),
            refusals_per_peer: 100,
            refusal_regained_after: Duration::from_millis(500),
            refusals_per_id: 10,
            id_refusal_regained_after: Duration::from_secs(6),
            throttled_max: 10_000,
            challenges_per_peer: 1_200,
            challenge_regained_after: Duration::from_millis(50),
            challenges_per_id: 20,
            id_challenge_regained_after: Duration::from_secs(3),
            challenges_max: 10_000,
            proofs_max: 10_000,
            embedded_domain: "rehome.local".to_owned(),
            embedded_endpoint: "localhost:8443".to_owned(),
            id_scope: None,
            scratch_folder: PathBuf::from("tmp"),
            shared_access: SharedAccess::default(),
        }
    }
}

/// What the service is made of.
#[derive(Debug)]
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub directory: Directory,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub hubs: Arc<dyn HubFactory>,
    pub vault: Vault,
    /// The authorities of the operators' certificates. Without one nobody is an operator.
    pub operator_authorities: Vec<CertificateRef>,
    pub config: Config,
}

/// A handle on the service; cheap to clone.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    directory: Directory,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    hubs: Arc<dyn HubFactory>,
    operator_authorities: Vec<CertificateRef>,
    config: Config,
    proofs: proof::Proofs,
    crowd: crowd::Crowd,
    tokens: keys::Tokens,
    throttle: throttle::Throttle,
    challenges: challenges::Challenges,
    challenge_throttle: throttle::Throttle,
    vault: Arc<Vault>,
    shown_keys: registry::ShownKeys,
    /// Held while a hub is linked, changed or unlinked: opening its files and writing its record are two things.
    fleet_gate: Arc<Mutex<()>>,
    /// Held while a backup is made and read.
    backup_gate: Arc<Mutex<()>>,
    /// Held while hubs are gone through.
    reconcile_gate: Arc<Mutex<()>>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("store", &self.inner.store).finish_non_exhaustive()
    }
}

impl Service {
    /// Time since some fixed moment: for measuring how long a call took.
    pub fn monotonic(&self) -> Duration {
        self.inner.clock.monotonic()
    }

    /// The service's time.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Puts the parts together. Nothing is opened or resumed: see [`Service::start`].
    pub fn new(parts: Parts) -> Self {
        let Parts { store, directory, clock, entropy, hubs, vault, operator_authorities, config } = parts;
        let proofs = proof::Proofs::new(config.proofs_max);
        let crowd = crowd::Crowd::new(config.registrations_max);
        let tokens = keys::Tokens::new(config.proofs_max);
        let throttle = throttle::Throttle::new(&config);
        let challenges = challenges::Challenges::new(config.challenges_max);
        let challenge_throttle = throttle::Throttle::of_challenges(&config);
        let (fleet_gate, backup_gate, reconcile_gate) = (Arc::default(), Arc::default(), Arc::default());
        let inner = Inner {
            store,
            directory,
            clock,
            entropy,
            hubs,
            operator_authorities,
            config,
            proofs,
            crowd,
            tokens,
            throttle,
            challenges,
            challenge_throttle,
            vault: Arc::new(vault),
            shown_keys: registry::ShownKeys::default(),
            fleet_gate,
            backup_gate,
            reconcile_gate,
        };
        Self { inner: Arc::new(inner) }
    }
}
