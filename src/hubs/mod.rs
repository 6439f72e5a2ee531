//! Hubs: the port behind which a hub lives, whether inside this process or across an ocean.
//!
//! The service moves devices through [`HubConnector`] alone. An embedded hub also serves twins to devices and back ends:
//! that is [`TwinHost`], which a hub elsewhere does for itself.

#[cfg(any(test, feature = "testing"))]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a failing case may panic")]
pub mod conformance;
pub mod embedded;
pub mod entry;
pub mod scripted;
mod twins;
mod watch;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::domain::{
    CallFault, CallOutcome, Credential, DeviceId, DeviceState, Document, FeedToken, Hub, HubCall, HubId, HubStatus,
    Incarnation, MustSeal, Order, SealedKey, TwinFault, TwinPatch,
};

pub use entry::Reinstated;

/// What a hub can do; one that cannot gets the nearest substitute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    pub writes_reported: bool,
    pub seals: bool,
    pub stages: bool,
    pub fences: bool,
    pub leases: bool,
}

/// What a hub says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubReport {
    pub incarnation: Incarnation,
    /// Devices it holds, staged and sealed ones too.
    pub devices: u64,
    /// It goes on from an older copy and refuses calls and writes until its devices have been gone through.
    pub restored: bool,
    /// The highest order it has ever answered, for whatever device.
    pub highest: Order,
}

/// A device as a hub shows it to the service.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting {
    pub device: DeviceId,
    /// The order of the intent that brought it here.
    pub generation: Order,
    pub phase: entry::Phase,
    pub state: DeviceState,
}

/// Devices in the order of their last change, each once.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangePage {
    pub rows: Vec<Sighting>,
    /// Where to go on.
    pub next: FeedToken,
    /// There is more to be had now.
    pub more: bool,
    /// It began again from the first device: the token was none, of another incarnation, or from beyond a gap.
    pub whole: bool,
}

/// A moment that only the hub knows, by its own monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseTicket(pub u64);

/// What a hub is told so that it may go on accepting writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRenewal {
    pub incarnation: Option<Incarnation>,
    /// The lease runs from the moment this was given out; absent, nothing is extended.
    pub ticket: Option<LeaseTicket>,
    /// Taken, durably, before anything is extended.
    pub must_seal: Vec<MustSeal>,
}

/// How one device is to stand in a restored hub.
#[derive(Debug, Clone, PartialEq)]
pub struct Reinstatement {
    /// The new one.
    pub incarnation: Incarnation,
    /// The order of the commit that began to go through the hub: a lower one than before is refused as stale.
    pub session: Order,
    pub device: DeviceId,
    pub becomes: Reinstated,
}

/// The port the service moves devices through. Implementations pass the suite in `hubs/conformance`.
pub trait HubConnector: fmt::Debug + Send + Sync + 'static {
    fn abilities(&self) -> Abilities;

    /// Answers when the hub can be reached.
    fn describe(&self) -> BoxFuture<'_, Result<HubReport, CallFault>>;

    /// Obeys one call, durably before it answers. The rules of orders and states are in [`crate::domain::call`].
    /// `incarnation` is the one the caller knows; another one is refused.
    fn obey<'a>(&'a self, incarnation: Option<Incarnation>, call: &'a HubCall) -> BoxFuture<'a, CallOutcome>;

    /// A device as it is now, whatever its phase; `None` when the hub has none.
    fn read<'a>(&'a self, device: &'a DeviceId) -> BoxFuture<'a, Result<Option<Sighting>, CallFault>>;

    /// Devices that have changed since a token, oldest change first: every call that was obeyed and every write of a
    /// twin is a change. At most `max` rows (1 to [`crate::domain::limits::FEED_ROWS_MAX`]). Devices that have left are
    /// not told of. A token that the hub cannot go on from is answered from the beginning; one of its own incarnation
    /// that lies beyond its end proves that its data went back in time: then it has a new incarnation from now on, and
    /// waits to be gone through.
    fn changes(&self, since: Option<FeedToken>, max: u32) -> BoxFuture<'_, Result<ChangePage, CallFault>>;

    /// Lets a hub that can hold a lease accept writes for [`crate::domain::limits::LEASE_FOR`], counted on its own
    /// monotonic clock from when it gave the ticket out: a renewal that was long in the network extends nothing, and
    /// once none has been sent for that long the hub accepts nothing. Answers the next ticket.
    fn renew_lease<'a>(&'a self, renewal: &'a LeaseRenewal) -> BoxFuture<'a, Result<LeaseTicket, CallFault>>;

    /// Sets one device of a restored hub right, fence and all. Repeating changes nothing. Refused (`WrongIncarnation`)
    /// unless the hub waits.
    fn reinstate<'a>(&'a self, device: &'a Reinstatement) -> BoxFuture<'a, Result<(), CallFault>>;

    /// Ends the wait of a restored hub. One that does not wait is left as it is.
    fn readmit(&self, incarnation: Incarnation, session: Order) -> BoxFuture<'_, Result<(), CallFault>>;

    /// The twins, where this hub serves them itself.
    fn twins(&self) -> Option<Arc<dyn TwinHost>>;
}

/// Opens the hubs that are linked: where a record becomes something that can be called.
pub trait HubFactory: fmt::Debug + Send + Sync + 'static {
    /// Opens the hub's data, or makes it. The text of a failure is for operators.
    fn open<'a>(&'a self, hub: &'a Hub) -> BoxFuture<'a, Result<Arc<dyn HubConnector>, String>>;

    /// Lets go of a hub; its data stays where it is, and is closed when the last connector to it is dropped.
    fn close<'a>(&'a self, hub: &'a HubId) -> BoxFuture<'a, ()>;

    /// Makes the hub behave as if it did not answer, also toward devices. A hub that is not open is left alone, here and
    /// below.
    fn take_down(&self, hub: &HubId);

    /// Ends what [`HubFactory::take_down`] began.
    fn bring_up(&self, hub: &HubId);

    /// Writes a consistent copy of an open hub's data to a new file while the hub goes on.
    fn back_up<'a>(&'a self, hub: &'a HubId, to: &'a Path) -> BoxFuture<'a, Result<(), String>>;
}

/// Why a twin request was refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TwinRefusal {
    #[error("the hub has no such device")]
    NotFound,
    /// Wrong credential, or the hub-side status is *disabled*: one answer for both.
    #[error("the device is not let in")]
    NotLetIn,
    #[error("the device is being moved, register again")]
    Moving,
    /// Told only to who signs in as the device did when it was here.
    #[error("the device has moved away, register again")]
    Moved,
    #[error("the twin changed since it was read")]
    VersionMismatch,
    #[error(transparent)]
    Invalid(#[from] TwinFault),
    #[error("the page token was not made by this listing")]
    PageToken,
    #[error("the hub is down")]
    Unavailable,
    #[error("it is not known whether the twin was written: {0}")]
    Unknown(String),
}

/// A token that a device presents, and all that a hub needs of it: whether one of its keys has signed it. Whoever makes
/// it has judged everything else and can open the keys; the hub cannot.
#[derive(Clone)]
pub struct SignedToken(Arc<dyn Fn(&SealedKey) -> bool + Send + Sync>);

impl SignedToken {
    pub fn new(is_signed_by: impl Fn(&SealedKey) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_signed_by))
    }

    /// The key among these that has signed it.
    pub fn signer<'k>(&self, credential: &'k Credential) -> Option<&'k SealedKey> {
        match credential {
            Credential::X509 { .. } => None,
            Credential::Delivered(keys) => keys.newest_first().iter().find(|key| (self.0)(key)),
            Credential::Shared(keys) => keys.both().into_iter().find(|key| (self.0)(key)),
        }
    }
}

impl fmt::Debug for SignedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedToken")
    }
}

/// Who asks for a twin.
#[derive(Debug, Clone)]
pub enum TwinCaller {
    /// The device, by what it signed in with; matched against what the hub was given.
    Device(Credential),
    /// The device, by a token.
    Token(SignedToken),
    /// An operator or back end whose role was checked at the edge.
    BackEnd,
}

/// What a watcher of desired properties is told.
#[derive(Debug, Clone, PartialEq)]
pub enum DesiredEvent {
    /// The whole document and its version: first, and again for a reader that fell behind.
    Whole { desired: Document, version: u64 },
    /// A merge patch that leads from `version - 1` to `version`, without gaps.
    Patch { patch: Document, version: u64 },
    /// The device is being moved or has left: register again. The last event.
    Moved,
}

/// A device as a hub lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct Resident {
    pub device: DeviceId,
    pub state: DeviceState,
    /// Whether writes are accepted now.
    pub open: bool,
}

/// Devices of a hub by id, and where the next page begins.
#[derive(Debug, Clone, PartialEq)]
pub struct ResidentPage {
    pub rows: Vec<Resident>,
    /// Absent on the last page.
    pub next: Option<String>,
}

/// A back end's change of a twin.
#[derive(Debug, Clone, PartialEq)]
pub enum TwinWrite {
    /// Merge.
    Patch(TwinPatch),
    /// Replace the parts that are given.
    Replace { tags: Option<Document>, desired: Option<Document> },
    /// Let the device in or keep it out.
    Status(HubStatus),
    /// As above, if its status is still the first one.
    StatusFrom(HubStatus, HubStatus),
}

/// Twins as an embedded hub serves them. Writes are durable before they are acknowledged, and accepted only while the
/// device is open (neither staged nor sealed).
pub trait TwinHost: fmt::Debug + Send + Sync + 'static {
    /// The twin; a device sees its own only, and never the tags (the edge leaves them out).
    fn read<'a>(&'a self, device: &'a DeviceId, caller: &'a TwinCaller)
    -> BoxFuture<'a, Result<Resident, TwinRefusal>>;

    /// The device's report: a merge patch of *reported*.
    fn report<'a>(
        &'a self,
        device: &'a DeviceId,
        caller: &'a TwinCaller,
        patch: Document,
    ) -> BoxFuture<'a, Result<Resident, TwinRefusal>>;

    /// A back end's change; `version` is the twin version that must still hold, when given.
    fn write<'a>(
        &'a self,
        device: &'a DeviceId,
        version: Option<u64>,
        write: TwinWrite,
    ) -> BoxFuture<'a, Result<Resident, TwinRefusal>>;

    /// Desired properties as they change. The channel is bounded; a reader that falls behind gets a whole document.
    fn watch<'a>(
        &'a self,
        device: &'a DeviceId,
        caller: &'a TwinCaller,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<DesiredEvent>, TwinRefusal>>;

    /// Devices by id, from a token on.
    fn list<'a>(&'a self, size: u32, token: Option<&'a str>) -> BoxFuture<'a, Result<ResidentPage, TwinRefusal>>;
}
