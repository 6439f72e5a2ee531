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

/// What the service tells about itself: logs and metrics.
pub mod telemetry;

/// What the service is told before it starts.
pub mod config;
