//! Calls to a hub as data: what is asked of it for one device, fenced by an order, and what it may answer.
//!
//! A hub keeps, per device and also after *delete*, the highest order obeyed: a lower one is refused `Stale`, an equal one
//! gets the same answer again, a higher one is obeyed. Within one order a hub gets one kind of call (a collect's
//! seal-then-delete excepted).

use super::enrollment::InitialState;
use super::ids::{DeviceId, HubId, Incarnation, Order};
use super::registration::Credential;
use super::twin::DeviceState;

/// One call to one hub for one device.
#[derive(Debug, Clone, PartialEq)]
pub struct HubCall {
    pub hub: HubId,
    pub device: DeviceId,
    pub order: Order,
    pub effect: HubEffect,
}

/// What a hub is asked to do with a device.
#[derive(Debug, Clone, PartialEq)]
pub enum HubEffect {
    /// Make the device, *staged*: it exists and accepts nothing until it is activated. Over an existing entry other than
    /// a repeat of the same order: refused `Occupied`, unless `adopt` says that the entry may be taken over.
    Create(Box<NewDevice>),
    /// Open what is staged.
    Activate,
    /// Stop writes; answer the device state as it is from now on.
    Seal,
    /// Open a sealed device again (also one still staged whose home this is). An open one stays open.
    Unseal,
    /// Remove the device; its order is remembered.
    Delete,
    /// Remove what this generation brought there, and nothing else: takes back a *create* of which nobody knows whether it
    /// happened. Whoever has the name stays as he is. To a hub it is a *delete* in every other way.
    Discard(Order),
    /// Set the twin back to the initial one (versions continue, *disabled* stays); answer the state it replaced.
    /// A repeat of the same order changes nothing and answers the same.
    ReplaceTwin(Box<InitialState>),
    /// Replace what the device signs in with; a key that was delivered comes before those that were delivered earlier.
    UpdateCredential(Credential),
    /// The same, and nothing of earlier stays good: who signs in from now on is another TPM. To a hub it is an *update
    /// credential* in every other way.
    ReplaceCredential(Credential),
}

impl HubEffect {
    /// A stable word for logs, metrics and errors.
    pub fn as_str(&self) -> &'static str {
        match self {
            HubEffect::Create(_) => "create",
            HubEffect::Activate => "activate",
            HubEffect::Seal => "seal",
            HubEffect::Unseal => "unseal",
            HubEffect::Delete => "delete",
            HubEffect::Discard(_) => "discard",
            HubEffect::ReplaceTwin(_) => "replace_twin",
            HubEffect::UpdateCredential(_) | HubEffect::ReplaceCredential(_) => "update_credential",
        }
    }
}

/// What a hub is given to make a device of.
#[derive(Debug, Clone, PartialEq)]
pub struct NewDevice {
    /// The order of the intent that gives the device this home.
    pub generation: Order,
    pub credential: Credential,
    pub state: DeviceState,
}

/// What a hub answers when it has obeyed.
#[derive(Debug, Clone, PartialEq)]
pub enum HubAnswer {
    Done,
    /// The state asked for (`Seal`), or the one replaced (`ReplaceTwin`).
    State(Box<DeviceState>),
}

/// A hub's no, which repeating the call does not change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HubRefusal {
    #[error("order is stale, the hub has obeyed order {highest}")]
    Stale { highest: Order },
    #[error("the hub already has a device of that name")]
    Occupied,
    #[error("the device is not staged")]
    NotStaged,
    #[error("the hub has no such device")]
    NoSuchDevice,
    /// Also the answer to every call while a restored hub waits to be gone through.
    #[error("the hub's data has another incarnation, {current}")]
    WrongIncarnation { current: Incarnation },
    #[error("the hub is full")]
    Full,
    #[error("the hub does not take that state: {0}")]
    StateInvalid(String),
    #[error("the hub obeyed another kind of call under this order")]
    OrderReused,
}

impl HubRefusal {
    /// A stable word for metrics and metadata.
    pub fn as_str(&self) -> &'static str {
        match self {
            HubRefusal::Stale { .. } => "stale",
            HubRefusal::Occupied => "occupied",
            HubRefusal::NotStaged => "not_staged",
            HubRefusal::NoSuchDevice => "no_such_device",
            HubRefusal::WrongIncarnation { .. } => "wrong_incarnation",
            HubRefusal::Full => "full",
            HubRefusal::StateInvalid(_) => "state_invalid",
            HubRefusal::OrderReused => "order_reused",
        }
    }
}

/// How a call ended when it was not obeyed. *Did not happen* and *may have happened* are different.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallFault {
    /// The hub said no; nothing was changed.
    #[error(transparent)]
    Refused(HubRefusal),
    /// The call never reached the hub; nothing was changed. Trying again may help.
    #[error("the hub cannot be reached: {0}")]
    Unavailable(String),
    /// The call may or may not have been obeyed: only a repeat with the same order can tell.
    #[error("the hub's answer is not known: {0}")]
    Unknown(String),
}

/// A place in a hub's change feed. Means something to that hub in that incarnation only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FeedToken {
    pub incarnation: Incarnation,
    pub position: u64,
}

/// A home that was bypassed while its hub was away: the hub seals it before its lease runs again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MustSeal {
    pub device: DeviceId,
    /// Of the home that was bypassed: what came there later is a home of its own and stays as it is (trace 4b).
    pub generation: Order,
    /// Of the commit that bypassed it; the fence is raised to it (trace 4c).
    pub order: Order,
}

/// The outcome of one call.
pub type CallOutcome = Result<HubAnswer, CallFault>;
