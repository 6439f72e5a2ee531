//! The store: the port behind which everything is remembered.
//!
//! Every write is one [`Commit`]: expectations, changes and audit entries that happen together or not at all, and get one
//! [`Order`], the store-wide sequence number that is never reused (not after deletions, not after a restart).
//! Records carry the version they were read at; a commit that finds another one changes nothing and says so.

mod listing;
mod memory;
mod open_move;
pub mod redb;
mod shape;

#[cfg(any(test, feature = "testing"))]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a failing case may panic")]
pub mod conformance;
#[cfg(any(test, feature = "testing"))]
#[allow(clippy::unwrap_used, reason = "the samples are valid")]
pub mod samples;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::domain::{
    AnchorRef, AuditAction, AuditEntry, Claim, DeviceId, DeviceState, EkHash, Enrollment, EnrollmentId, FeedToken,
    GroupId, Hub, HubId, HubState, Order, Past, Registration, RegistrationId, ReprovisionPolicy, StoredAudit,
    Timestamp, TrackingId, Version,
};
use crate::moves::{self, JournalRecord, MoveLog, RecordChange};

pub use self::redb::RedbStore;
pub use memory::MemoryStore;

/// Why a read failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreFault {
    #[error("the store cannot be read: {0}")]
    Broken(String),
    #[error("the store holds a record that cannot be understood: {0}")]
    Corrupt(String),
    #[error("the page token was not made by this listing")]
    PageToken,
    #[error("the store is closed")]
    Closed,
    /// There is no usable copy at the target; the store itself is as it was.
    #[error("the store was not backed up: {0}")]
    BackUp(String),
}

/// Why a commit failed. Only [`CommitFault::Unknown`] may have happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitFault {
    /// An expectation does not hold. Nothing was changed; read again and decide again.
    #[error("{0}")]
    Unexpected(Unexpected),
    /// Nothing was changed, for a reason that is not the caller's.
    #[error("nothing was written: {0}")]
    NotWritten(String),
    /// It may have been written: stop, read again, decide again.
    #[error("it is not known whether it was written: {0}")]
    Unknown(String),
}

/// Which expectation did not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unexpected {
    #[error("{id} changed: expected version {expected:?}, found {found:?}")]
    Enrollment { id: EnrollmentId, expected: Version, found: Version },
    #[error("registration {id} changed: expected version {expected:?}, found {found:?}")]
    Registration { id: RegistrationId, expected: Version, found: Version },
    #[error("hub {id} changed: expected version {expected:?}, found {found:?}")]
    Hub { id: HubId, expected: Version, found: Version },
    #[error("hub {hub} is not linked")]
    HubNotLinked { hub: HubId },
    #[error("hub {hub} is full")]
    HubFull { hub: HubId },
    #[error("hub {hub} is {} and takes nothing new", .state.as_str())]
    HubClosed { hub: HubId, state: HubState },
    #[error("hub {hub} is named by {homes} registrations and {moves} moves")]
    HubInUse { hub: HubId, homes: u64, moves: u64 },
    #[error("device id {device} belongs to registration {owner}")]
    DeviceIdTaken { device: DeviceId, owner: RegistrationId },
    #[error("a certificate of it belongs to {owner}")]
    CertificateTaken { owner: EnrollmentId },
    #[error("its endorsement key belongs to {owner}")]
    EndorsementKeyTaken { owner: EnrollmentId },
    #[error("a key of it belongs to {owner}")]
    MasterKeyTaken { owner: EnrollmentId },
    #[error("move {generation} is not open")]
    MoveNotOpen { generation: Order },
    #[error("the journal of registration {id} has gone on")]
    Journal { id: RegistrationId },
}

impl Unexpected {
    /// What an enrollment claims is another's.
    fn taken(claim: Claim, owner: EnrollmentId) -> Self {
        match claim {
            Claim::Certificate(_) => Unexpected::CertificateTaken { owner },
            Claim::EndorsementKey(_) => Unexpected::EndorsementKeyTaken { owner },
            Claim::MasterKey(_) => Unexpected::MasterKeyTaken { owner },
        }
    }
}

/// What must hold for a commit, beyond the versions inside its changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// The enrollment still has this version.
    Enrollment { id: EnrollmentId, version: Version },
    /// The hub is linked, active, and fewer devices live there or are on their way than its record says it may hold.
    /// Where an operator pinned the device to it, it is enough that it is linked.
    HubTakes { hub: HubId, pinned: bool },
    /// No registration lives there and no open move names it.
    HubUnused { hub: HubId },
    /// The hub is linked.
    HubLinked { hub: HubId },
    /// No open move names it that began after this order (zero: none at all); devices may live there.
    HubUnnamed { hub: HubId, after: Order },
    /// No enrollment claims the endorsement key.
    EndorsementKeyUnclaimed { key: EkHash },
    /// No other registration has this device id, and no open move of another one names it, clean-up included.
    DeviceId { device: DeviceId, registration: RegistrationId },
    /// The device's record has this version, and a home of this generation.
    Record { registration: RegistrationId, version: Version, home: Option<Order> },
    /// The device has exactly these open moves, and the last line of each has this order.
    Journal { registration: RegistrationId, seen: Vec<(Order, Order)> },
}

/// One change of a commit. Changes take effect one after the other: each is judged against what those before it left.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Creates (`version` absent) or replaces (at that version). A certificate or an endorsement key may stand in one
    /// enrollment only.
    PutEnrollment(Box<Enrollment>),
    DeleteEnrollment {
        id: EnrollmentId,
        version: Version,
    },
    /// Creates or replaces as above.
    PutHub(Box<Hub>),
    DeleteHub {
        id: HubId,
        version: Version,
    },
    /// Creates or replaces as above. A device id may stand in one registration only. [`moves::machine::OWN_ORDER`] in
    /// `past` stands for the order of this commit (also in `DeleteRegistration`).
    ///
    /// [`moves::machine::OWN_ORDER`]: crate::moves::machine::OWN_ORDER
    PutRegistration(Box<Registration>),
    /// Removes the record; `past` stays behind so that the history outlives it. It replaces what an earlier life left
    /// (hand [`DeviceFile::earlier`] on to keep it), and stays when the device registers again.
    DeleteRegistration {
        id: RegistrationId,
        version: Version,
        past: Past,
    },
    /// Appends a line to a move's journal; without a generation it opens a move, whose generation is this commit's order.
    /// At most one line of each move in a commit. The line of a pivot comes with the new assignment, so that the device
    /// counts once at its new hub.
    Journal {
        registration: RegistrationId,
        generation: Option<Order>,
        at: Timestamp,
        record: JournalRecord,
    },
    /// The move owes nothing any more. Its lines stay until they are forgotten.
    CloseMove {
        generation: Order,
    },
    /// Removes the lines of a closed move; of one that was forgotten before, nothing. An open move is not forgotten.
    ForgetMove {
        generation: Order,
    },
    /// A page of a hub's change feed: the newest states, and how far the feed was read. A device whose registration lives
    /// elsewhere, or that nobody has, is passed over, and so is a state older than the one known of that hub.
    NoteSeen {
        hub: HubId,
        token: FeedToken,
        seen_at: Timestamp,
        rows: Vec<(DeviceId, DeviceState)>,
    },
    /// This commit's order, and so all later ones, lies above this one (at most [`ORDER_RAISED_MAX`]).
    RaiseOrders {
        above: Order,
    },
    /// Whether the store is known to have gone back in time: see [`StoreLife`].
    SetRestored(bool),
}

/// The highest order that others can make the store rise above: half of all there are, so that nobody can use them up.
pub const ORDER_RAISED_MAX: Order = Order(u64::MAX / 2);

/// Orders are never reused, not even by a store that was put back from a copy: one that is opened from a copy goes on at
/// the next multiple of this. That is more than a service writes in twenty years (26,000 commits a second), and leaves room for a
/// million restores.
pub const ORDERS_OF_A_LIFE: u64 = 1 << 44;

/// In which life a store is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreLife {
    /// The highest order that was given out.
    pub last: Order,
    /// It was opened from a copy, or was found out to be an older copy of itself, and nobody has gone through the hubs
    /// since: what it says of moves may be untrue.
    pub restored: bool,
}

/// The newest state of a device that the service has seen at its home.
#[derive(Debug, Clone, PartialEq)]
pub struct LastKnown {
    pub hub: HubId,
    pub state: Box<DeviceState>,
    pub seen_at: Timestamp,
}

/// Everything that happens together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Commit {
    pub expect: Vec<Expect>,
    pub changes: Vec<Change>,
    pub audit: Vec<AuditEntry>,
}

/// What a device's actor loads: its record, its open moves (oldest first), and what an earlier life left behind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeviceFile {
    pub registration: Option<Registration>,
    pub open: Vec<MoveLog>,
    /// Generations kept from a registration that was deleted.
    pub earlier: Past,
}

/// How a hub is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HubUse {
    /// Registrations that live there.
    pub homes: u64,
    /// Open moves that will bring a device there and have neither pivoted nor aborted.
    pub arriving: u64,
    /// Open moves that name it (as source, target or for clean-up).
    pub moves: u64,
}

/// One page of a listing and where the next begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// Absent on the last page. Bound to the listing and its filter; another's is refused.
    pub next: Option<String>,
}

/// Which page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// 1 to [`crate::domain::limits::PAGE_SIZE_MAX`].
    pub size: u32,
    pub token: Option<String>,
}

/// Which registrations; all given filters must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct RegistrationFilter {
    pub hub: Option<HubId>,
    pub group: Option<GroupId>,
    pub status: Option<StatusFilter>,
    /// The policy that applied last; `Some(None)` is sticky.
    pub policy: Option<Option<ReprovisionPolicy>>,
    pub pinned: Option<bool>,
}

/// The status of a registration as listings see it: each has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatusFilter {
    /// It has an open move whose operation is under way: not aborted, and before its pivot or with something left that the
    /// device waits for. A move that is open for clean-up alone does not count.
    Assigning,
    /// Nothing is under way, and this is how the last finished operation ended.
    Assigned,
    /// As above, or the hub refused what the device waits for.
    Failed,
    Disabled,
}

/// Which audit entries; all given filters must hold. Newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct AuditFilter {
    pub action: Option<AuditAction>,
    pub registration: Option<RegistrationId>,
}

/// Individuals or groups, by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EnrollmentListing {
    Individuals,
    Groups,
}

/// The port. Implementations pass the suite in `store/conformance`.
///
/// Reads see every commit that was acknowledged before they began. All methods may be called from any thread.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    fn load_enrollment<'a>(
        &'a self,
        id: &'a EnrollmentId,
    ) -> BoxFuture<'a, Result<Option<Arc<Enrollment>>, StoreFault>>;

    /// The groups that hold a certificate with one of these thumbprints, or whose certificate's subject is one of these
    /// issuers; each group once.
    fn find_groups<'a>(&'a self, chain: &'a [AnchorRef]) -> BoxFuture<'a, Result<Vec<Arc<Enrollment>>, StoreFault>>;

    /// The groups whose devices' keys are made of theirs, by id.
    fn key_groups(&self) -> BoxFuture<'_, Result<Vec<Arc<Enrollment>>, StoreFault>>;

    fn load_hub<'a>(&'a self, id: &'a HubId) -> BoxFuture<'a, Result<Option<Hub>, StoreFault>>;

    /// Every linked hub and how it is used, by id. There are at most [`crate::domain::limits::HUBS_MAX`].
    fn hubs(&self) -> BoxFuture<'_, Result<Vec<(Hub, HubUse)>, StoreFault>>;

    fn load_device<'a>(&'a self, id: &'a RegistrationId) -> BoxFuture<'a, Result<DeviceFile, StoreFault>>;

    /// The lines of one move, open or closed; absent when it was forgotten.
    fn load_move(&self, generation: Order) -> BoxFuture<'_, Result<Option<MoveLog>, StoreFault>>;

    /// The enrollment that claims a certificate or an endorsement key.
    fn find_claim<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<Option<EnrollmentId>, StoreFault>>;

    /// Who has a device id.
    fn find_owner<'a>(&'a self, device: &'a DeviceId) -> BoxFuture<'a, Result<Option<RegistrationId>, StoreFault>>;

    fn list_enrollments<'a>(
        &'a self,
        listing: EnrollmentListing,
        page: &'a PageRequest,
    ) -> BoxFuture<'a, Result<Page<Arc<Enrollment>>, StoreFault>>;

    /// By registration id. Rows come with their open moves. A device whose first assignment is under way is listed without
    /// a record: it lives at no hub, has no pin, and takes group and policy from its intent. One that was deleted and only
    /// owes clean-up is not listed.
    fn list_registrations<'a>(
        &'a self,
        filter: &'a RegistrationFilter,
        page: &'a PageRequest,
    ) -> BoxFuture<'a, Result<Page<DeviceFile>, StoreFault>>;

    fn list_audit<'a>(
        &'a self,
        filter: &'a AuditFilter,
        page: &'a PageRequest,
    ) -> BoxFuture<'a, Result<Page<StoredAudit>, StoreFault>>;

    fn find_audit(&self, tracking: TrackingId) -> BoxFuture<'_, Result<Option<StoredAudit>, StoreFault>>;

    /// The newest state seen at the registration's home. It goes when the home changes or the record is deleted, and stays
    /// when the home's hub is unlinked.
    fn load_last_known<'a>(&'a self, id: &'a RegistrationId) -> BoxFuture<'a, Result<Option<LastKnown>, StoreFault>>;

    /// How far a hub's change feed was read.
    fn load_feed<'a>(&'a self, hub: &'a HubId) -> BoxFuture<'a, Result<Option<FeedToken>, StoreFault>>;

    fn life(&self) -> BoxFuture<'_, Result<StoreLife, StoreFault>>;

    /// The devices that have an open move: what must be taken up again after a start.
    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<RegistrationId>, StoreFault>>;

    /// Makes everything in the commit durable, or nothing. When it returns `Ok` it survives a crash.
    ///
    /// Expectations are judged against the store before any of the changes. A put record is stored with the version after
    /// the one it carries. Every commit that succeeds takes an order of its own, also one without changes.
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Order, CommitFault>>;

    /// Writes a consistent copy to a file that does not exist yet, while the store serves. `progress` is told rows done and
    /// rows in all.
    fn back_up<'a>(
        &'a self,
        to: &'a Path,
        progress: &'a (dyn Fn(u64, u64) + Send + Sync),
    ) -> BoxFuture<'a, Result<(), StoreFault>>;
}

impl From<moves::Commit> for Commit {
    /// A device's step as the store writes it.
    fn from(step: moves::Commit) -> Self {
        let moves::Commit {
            registration,
            at,
            expect,
            seen,
            stands: (version, home),
            lines,
            close,
            forget,
            record,
            audit,
        } = step;
        let journal = Expect::Journal { registration: registration.clone(), seen };
        let stands = Expect::Record { registration: registration.clone(), version, home };
        let enrollment = expect.enrollment.map(|(id, version)| Expect::Enrollment { id, version });
        let takes = expect.takes.map(|place| Expect::HubTakes { hub: place.hub, pinned: place.pinned });
        let individual = expect
            .no_individual
            .map(|id| Expect::Enrollment { id: EnrollmentId::Individual(id), version: Version::ABSENT });
        let unclaimed = expect.unclaimed.map(|key| Expect::EndorsementKeyUnclaimed { key });
        let from = expect.from.map(|hub| Expect::HubLinked { hub });
        let id = registration.clone();
        let device = expect.device.map(|device| Expect::DeviceId { device, registration: id });
        let record = match record {
            RecordChange::Keep => None,
            RecordChange::Put(record) => Some(Change::PutRegistration(record)),
            RecordChange::Delete { version: Version::ABSENT, .. } => None,
            RecordChange::Delete { version, past } => {
                Some(Change::DeleteRegistration { id: registration.clone(), version, past })
            }
        };
        let lines = lines.into_iter().map(|(generation, record)| Change::Journal {
            registration: registration.clone(),
            generation,
            at,
            record,
        });
        let close = close.into_iter().map(|generation| Change::CloseMove { generation });
        let forget = forget.into_iter().map(|generation| Change::ForgetMove { generation });
        Self {
            expect: [journal, stands]
                .into_iter()
                .chain(enrollment)
                .chain(individual)
                .chain(unclaimed)
                .chain(takes)
                .chain(from)
                .chain(device)
                .collect(),
            changes: lines.chain(record).chain(close).chain(forget).collect(),
            audit,
        }
    }
}
