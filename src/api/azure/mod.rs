//! What the edges for existing Azure SDKs have in common: the JSON of a registration, faults with their codes, times.
//!
//! Shapes only. Who is let in and what happens is decided behind the service's façade, as for gRPC.

pub mod ascii;
pub mod fault;
pub mod registration;
mod time;
pub mod twin;
