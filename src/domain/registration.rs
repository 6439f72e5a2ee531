//! The record of a device: where it lives, since when and why.

use std::fmt;
use std::sync::Arc;

use super::enrollment::{EnrollmentId, ReprovisionPolicy};
use super::fault::Reason;
use super::ids::{DeviceId, HubId, OperationId, Order, RegistrationId, RequestId, Thumbprint, Version};
use super::key::{DeliveredKeys, KeyPair, SealedKey};
use super::time::Timestamp;
use super::tpm::{EkHash, TpmName};

/// What a device signs in with at its hub. The hub is given this and nothing else.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// SHA-256 thumbprints of client certificates: both enrolled ones of an individual, the presented leaf of a group's
    /// device. Sorted and without repeats, at most two.
    X509 { thumbprints: Vec<Thumbprint> },
    /// Keys that sign tokens and came through the device's TPM. What a hub is told is the newest; the hub keeps those
    /// before it until that one is used.
    Delivered(DeliveredKeys),
    /// Keys that sign tokens and that the device had before: the enrolled ones of an individual, those made of its group's
    /// otherwise. Both are good; a hub that is told of others forgets these.
    Shared(KeyPair<SealedKey>),
}

impl Credential {
    /// A credential of one or two certificates, in one form whatever the order.
    pub fn x509(thumbprints: impl IntoIterator<Item = Thumbprint>) -> Self {
        let mut thumbprints: Vec<Thumbprint> = thumbprints.into_iter().collect();
        thumbprints.sort();
        thumbprints.dedup();
        Credential::X509 { thumbprints }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credential::X509 { thumbprints } => f.debug_list().entries(thumbprints).finish(),
            Credential::Delivered(keys) => f.debug_list().entries(keys.newest_first()).finish(),
            Credential::Shared(keys) => f.debug_list().entries(keys.both()).finish(),
        }
    }
}

/// The hub that is a device's home, and the generation that made it so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub hub: HubId,
    /// The order of the intent that gave the device this home.
    pub generation: Order,
    /// What the hub was last told the device signs in with. `None` when that is not known for sure.
    pub credential: Option<Credential>,
    pub assigned_at: Timestamp,
}

/// How an assignment came about (reference/dps.md §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubStatus {
    InitialAssignment,
    DeviceDataMigrated,
    DeviceDataReset,
    ReprovisionedToInitialAssignment,
}

impl SubStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            SubStatus::InitialAssignment => "initial_assignment",
            SubStatus::DeviceDataMigrated => "device_data_migrated",
            SubStatus::DeviceDataReset => "device_data_reset",
            SubStatus::ReprovisionedToInitialAssignment => "reprovisioned_to_initial_assignment",
        }
    }
}

/// Where the state came from that a device was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataSource {
    /// Sealed at the old hub: complete.
    Sealed,
    /// The newest the service had seen, taken at this time.
    LastKnown { seen_at: Timestamp },
    /// The enrollment's initial configuration.
    Initial,
}

impl DataSource {
    pub fn as_str(self) -> &'static str {
        match self {
            DataSource::Sealed => "sealed",
            DataSource::LastKnown { .. } => "last_known",
            DataSource::Initial => "initial",
        }
    }
}

/// Where one operation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationStatus {
    /// Work is under way.
    Assigning,
    /// The device has its hub. `data_source` is absent where nothing was written.
    Assigned { sub_status: SubStatus, data_source: Option<DataSource> },
    /// It ended without a new assignment; an earlier one stands.
    Failed { reason: Reason, message: String },
    /// The enrollment that decides is disabled.
    Disabled,
}

impl OperationStatus {
    pub fn is_final(&self) -> bool {
        match self {
            OperationStatus::Assigning => false,
            OperationStatus::Assigned { .. } | OperationStatus::Failed { .. } | OperationStatus::Disabled => true,
        }
    }

    pub fn as_str(&self) -> &'static str {
        match self {
            OperationStatus::Assigning => "assigning",
            OperationStatus::Assigned { .. } => "assigned",
            OperationStatus::Failed { .. } => "failed",
            OperationStatus::Disabled => "disabled",
        }
    }
}

/// One run of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub id: OperationId,
    pub status: OperationStatus,
    /// The client's own id of the request that started it.
    pub request_id: Option<RequestId>,
    pub started_at: Timestamp,
    pub updated_at: Timestamp,
}

/// An operator's decision for one device, which outranks allocation until lifted or expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    pub hub: HubId,
    /// Who set it.
    pub by: String,
    /// Why, at most [`super::limits::REASON_CHARS_MAX`] characters.
    pub reason: String,
    pub set_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

impl Pin {
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}

/// Generations of the moves whose journals are kept as history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Past {
    /// Oldest first.
    pub moves: Vec<Order>,
    /// Those of them that left a home behind which may have accepted writes later. They do not count against the bound of
    /// the history, and only an operator removes them.
    pub late: Vec<Order>,
}

impl Past {
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }

    pub fn contains(&self, generation: Order) -> bool {
        self.moves.contains(&generation)
    }

    pub fn push(&mut self, generation: Order) {
        self.moves.push(generation);
    }

    /// Takes out the oldest ones beyond `max`, except those with a late twin.
    pub fn drop_surplus(&mut self, max: usize) -> Vec<Order> {
        let mut surplus = self.moves.len().saturating_sub(self.late.len()).saturating_sub(max);
        let mut dropped = Vec::new();
        self.moves.retain(|it| {
            let goes = surplus > 0 && !self.late.contains(it);
            if goes {
                surplus -= 1;
                dropped.push(*it);
            }
            !goes
        });
        dropped
    }

    pub fn remove(&mut self, generation: Order) {
        self.moves.retain(|it| *it != generation);
        self.late.retain(|it| *it != generation);
    }

    /// With every order as `map` says.
    pub fn mapped(&self, map: impl Fn(Order) -> Order) -> Self {
        let all = |orders: &[Order]| orders.iter().map(|it| map(*it)).collect();
        Self { moves: all(&self.moves), late: all(&self.late) }
    }
}

impl From<Vec<Order>> for Past {
    fn from(moves: Vec<Order>) -> Self {
        Self { moves, late: Vec::new() }
    }
}

/// The TPM that a device proved, and what is delivered through it.
#[derive(Clone, PartialEq, Eq)]
pub struct TpmDelivery {
    /// Of the endorsement key.
    pub ek: EkHash,
    /// The name of the storage root key; `None` once an operator had it forgotten.
    pub srk: Option<TpmName>,
    /// The activation blob with the key for the hub, which only this TPM can open. At most
    /// [`super::limits::TPM_BLOB_BYTES_MAX`] bytes.
    pub blob: Arc<[u8]>,
}

impl fmt::Debug for TpmDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TpmDelivery({}, {:?}, {} bytes)", self.ek, self.srk, self.blob.len())
    }
}

/// A device's record. Created by its first registration, never by an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    pub id: RegistrationId,
    /// What hubs call it; unique across registrations.
    pub device_id: DeviceId,
    /// The enrollment that decided last, and its version then.
    pub enrollment: EnrollmentId,
    pub enrollment_version: Version,
    /// The policy that applied last, for listings; `None` is sticky.
    pub policy: Option<ReprovisionPolicy>,
    /// `None` until the first assignment. Kept when its hub is unlinked.
    pub assignment: Option<Assignment>,
    /// The last finished operation.
    pub operation: Operation,
    pub pin: Option<Pin>,
    /// What the allocation webhook handed the device last: JSON text.
    pub payload: Option<String>,
    /// What the last assignment by TPM left; absent for other devices.
    pub tpm: Option<TpmDelivery>,
    /// The moves whose journals are kept as history (DESIGN 7).
    pub past: Past,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub version: Version,
}
