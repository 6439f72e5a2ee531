//! rehome tells every device which hub it belongs to, and moves devices between hubs without ever losing their twin.
//!
//! The rooms, in dependency order (`ARCHITECTURE.md` has the map, `tests/it/fences.rs` holds it):
#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::panic, missing_debug_implementations)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "a failing test may panic"))]

/// The words of the service as types.
pub mod domain;

/// The only door to "now" and "random".
pub mod ambient;

/// Who is it? Evidence goes in, a witness that it was checked comes out.
pub mod attestation;

/// Decides, from values alone: which enrollment, whether it admits, which hub, and what happens to the twin.
pub mod policy;

/// Undoable work as data: plans, steps, journals.
pub mod moves;

/// The port behind which everything is remembered, and its adapters.
pub mod store;

/// The port behind which hubs live, and its adapters.
pub mod hubs;

/// Allocation that is asked outside.
pub mod allocators;

/// The protobuf API and its translation to domain types.
pub mod wire;

/// Makes certificates: the development PKI and issuing.
pub mod pki;

/// What the service tells about itself: logs and metrics.
pub mod telemetry;

/// One actor per device and one per hub.
pub mod actors;

/// What the service is told before it starts.
pub mod config;

/// The device SDK and the operator's client.
pub mod client;

/// The one API that every edge calls.
pub mod service;

/// Edges: who is calling, what may be called, and translation.
pub mod api;

/// Puts the service together.
pub mod compose;

/// The command line.
pub mod cli;
