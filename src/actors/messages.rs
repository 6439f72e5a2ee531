//! What actors say to each other. Messages own their data and hold domain types only.
//!
//! | message | kind | reply | who sends it | may it wait |
//! | --- | --- | --- | --- | --- |
//! | [`Register`] | request | [`Accepted`] or [`Refused`] | service, through the directory | for one commit, or for the allocation webhook |
//! | [`Reprovision`] | request | as above | service | as above |
//! | [`Release`] | request | as above | service | for two commits |
//! | [`Unpin`] | request | as above | service | for one commit |
//! | [`ForgetStorageRootKey`] | request | as above | service | for one commit |
//! | [`TakeBack`] | request | as above | service | for one commit |
//! | [`Settle`] | request | as above | service | for a few commits |
//! | [`ForceOut`] | request | as above | service | for a few commits |
//! | [`ForgetLateTwin`] | request | as above | service | for one commit |
//! | [`Describe`] | request | [`Report`] | service | no |
//! | [`Allocated`] | fact | – | the device's own question to the webhook | – |
//! | [`StepFinished`] | fact | – | the device's own call to a hub | – |
//! | [`LeaseEnded`] | fact | – | the device's own question to a hub that it bypasses | – |
//! | [`Wake`] | nudge | – | timers, the directory | – |
//! | [`ReadAgain`] | nudge | – | service, after a reconcile | – |
//! | [`Perform`] | request | `CallOutcome` | a device | for its slot in the hub's rate, and for the hub |
//! | [`EndLease`] | request | `()` | a device that bypasses the hub | until the hub surely accepts nothing more |
//! | [`ReadFeed`] | request | [`FeedRead`] or why not | service, the hub's own timer | for the hub and the store |
//! | [`FeedEnded`] | fact | – | the hub's own reading | – |
//! | [`RenewLease`] | nudge | – | the hub's own timers | – |
//! | [`LeaseLoaded`] | fact | – | the hub's own look at the store | – |
//! | [`LeaseRenewed`] | fact | – | the hub's own renewal | – |
//! | [`HubChanged`] | fact | – | the directory | – |
//! | [`Probed`] | fact | – | the hub's own probe | – |
//!
//! A reply travels in the request as a one-shot sender: an actor that stops or panics drops it, and the directory takes
//! the device up again from the store and asks once more. Nothing is lost by it, since whatever was committed is found
//! by the second try.

use std::fmt;
use std::sync::Arc;

use actix::Message;
use tokio::sync::{oneshot, watch};

use crate::allocators::{AllocationAnswer, AllocatorFault};
use crate::attestation::Verified;
use crate::domain::{
    CallFault, CallOutcome, ClientFacts, Enrollment, Fault, Hub, HubCall, HubId, MustSeal, Order, RequestId, Timestamp,
    Version,
};
use crate::hubs::LeaseTicket;
use crate::moves::{CallKey, Resolve, Standing, Tries};

pub use super::hub::{FeedFault, FeedRead};

/// Where a reply goes.
pub type Reply<T> = oneshot::Sender<T>;

/// How a device stands, as it changes. `None` once its registration is gone.
pub type Updates = watch::Receiver<Option<Standing>>;

/// The answer to a request that was taken.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub standing: Option<Standing>,
    /// One sentence: what was decided and why.
    pub why: String,
    pub updates: Updates,
}

/// Why a request was not taken. Nothing was changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Refused {
    /// The enrollment changed since the evidence was judged: judge again.
    Rejudge,
    Fault(Fault),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Refused::Fault(fault)
    }
}

pub type Answer = Result<Accepted, Refused>;

/// A device registers, and has proven itself.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Register {
    pub verified: Verified,
    /// The enrollment that the evidence was judged by.
    pub enrollment: Arc<Enrollment>,
    pub facts: ClientFacts,
    pub request_id: Option<RequestId>,
    /// The activation blob with the key of the credential, of a proof by TPM.
    pub blob: Option<Arc<[u8]>>,
    pub reply: Reply<Answer>,
}

/// An operator wants the decision now, without waiting for the device.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Reprovision {
    pub enrollment: Arc<Enrollment>,
    /// Pin the device to this hub and move it there.
    pub to: Option<PinTo>,
    pub by: String,
    pub request_id: Option<RequestId>,
    pub reply: Reply<Answer>,
}

/// A pin that an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinTo {
    pub hub: HubId,
    pub reason: String,
    pub expires_at: Option<Timestamp>,
}

/// End the registration and take the device out of its hubs.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Release {
    pub by: String,
    pub why: String,
    /// What whoever asks has seen, and what must still hold.
    pub seen: Option<Seen>,
    pub reply: Reply<Answer>,
}

/// What somebody has seen of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The version of its record.
    Version(Version),
    /// The generation that gave it its home.
    Home(Order),
}

/// Lift the pin.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Unpin {
    pub by: String,
    pub reply: Reply<Answer>,
}

/// Forget the storage root key that the device is held to.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ForgetStorageRootKey {
    pub by: String,
    pub reply: Reply<Answer>,
}

/// Take the last move back.
#[derive(Message)]
#[rtype(result = "()")]
pub struct TakeBack {
    pub enrollment: Arc<Enrollment>,
    pub wish: UndoWish,
    pub reply: Reply<Answer>,
}

/// A move that an operator takes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndoWish {
    /// Absent: the one that gave the device its home.
    pub generation: Option<Order>,
    /// With the twin from before it; the current one goes to the history.
    pub restore_twin: bool,
    /// Of the pin.
    pub reason: String,
    pub expires_at: Option<Timestamp>,
    pub by: String,
    pub request_id: Option<RequestId>,
}

/// Resolve what a move waits for.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Settle {
    pub wish: Resolve,
    pub reply: Reply<Answer>,
}

/// Give up whatever names this hub, which is unlinked by force.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ForceOut {
    pub hub: HubId,
    pub by: String,
    pub why: String,
    pub reply: Reply<Answer>,
}

/// Take a late twin out of the history.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ForgetLateTwin {
    pub generation: Order,
    pub by: String,
    pub reply: Reply<Answer>,
}

/// How the device stands and how its calls fare.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Describe {
    pub reply: Reply<Report>,
}

/// The reply to [`Describe`].
#[derive(Debug, Clone)]
pub struct Report {
    pub standing: Option<Standing>,
    pub tries: Vec<(CallKey, Tries)>,
    pub updates: Updates,
}

/// The webhook has answered, or will not.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Allocated {
    pub outcome: Result<AllocationAnswer, AllocatorFault>,
}

/// A call to a hub has ended.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct StepFinished {
    pub key: CallKey,
    pub outcome: CallOutcome,
}

/// The lease of a hub that was bypassed has ended for sure, or nobody could tell.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct LeaseEnded {
    pub generation: Order,
    pub ended: bool,
}

/// Look whether something is due.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Wake;

/// Somebody else wrote lines of this device: read it again from the store.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct ReadAgain;

/// Make one call to the hub.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Perform {
    pub call: HubCall,
    /// Names the registration and operation in every line that is logged on the way.
    pub span: tracing::Span,
    pub reply: Reply<CallOutcome>,
}

/// The home of a device at this hub was bypassed, and that is committed: answered once the hub surely accepts no more
/// writes of it. A hub that holds no lease is never bypassed safely: answered at once.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct EndLease {
    pub must_seal: MustSeal,
    pub reply: Reply<()>,
}

/// Read what is new in the hub's change feed now.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct ReadFeed {
    pub reply: Option<Reply<Result<FeedRead, FeedFault>>>,
}

/// A round of reading the feed has ended.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct FeedEnded {
    pub outcome: Result<FeedRead, FeedFault>,
}

/// Look whether the lease is to be renewed.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct RenewLease {
    /// Of the timer that goes on for ever, not of one that waits for an end.
    pub in_turn: bool,
}

/// The bypasses that stand were read; `None` when they could not be.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct LeaseLoaded {
    pub stored: Option<Vec<MustSeal>>,
}

/// The hub has answered a renewal that carried these, or has not.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct LeaseRenewed {
    pub carried: Vec<MustSeal>,
    /// It had a ticket.
    pub extended: bool,
    pub outcome: Result<LeaseTicket, CallFault>,
}

/// The hub's record has changed.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct HubChanged {
    pub hub: Hub,
}

/// The hub was asked whether it is there.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Probed {
    pub answered: bool,
}

impl fmt::Debug for Perform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Perform").field(&self.call.effect.as_str()).field(&self.call.device).finish()
    }
}
