//! The decisions of the service: which enrollment, whether it admits, which policy applies, which hub, and what is done.
//!
//! Pure: values in, a decision and its reason out. Nothing here reads a store, asks a hub or knows the time.
//!
//! [`evaluate`] runs compatibility, allocation and decision over one snapshot; the device actor performs what it says
//! and `Explain` only shows it, so the two can never differ.

pub mod admission;
pub mod allocation;
pub mod compatibility;
pub mod explain;
mod latency;
pub mod matching;
mod rendezvous;
pub mod reprovision;
pub mod tpm;

#[cfg(test)]
mod samples;

pub use admission::{Admission, admit};
pub use allocation::{
    Allocated, Allocation, AllocationFault, AllocationRequest, HubView, NotTaken, WebhookOutcome, choose_hub,
};
pub use compatibility::{Applies, Basis, applies, basis, remembered_facts};
pub use explain::{Explanation, Snapshot, WebhookCall, evaluate, webhook_call};
pub use matching::{Candidate, Lookups, Match, Reference, choose, choose_fleet, lookups};
pub use reprovision::{Carry, Current, Decision, Outcome, Situation, StayNote, decide, held_by_policy};
pub use tpm::{TpmObjection, TpmState, examine};
