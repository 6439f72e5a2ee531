//! The protobuf API: generated code, and its translation to and from domain types. Decides nothing.
//!
//! Generated types stay here and at the edges; everything further in sees domain types only.

pub mod convert;
mod fault;
mod generated;
mod status;
#[cfg(test)]
mod style;

pub use fault::WireFault;
pub use generated::rehome::{admin, device, hub};
pub use status::{ERROR_DOMAIN, RemoteFault};

/// Every message and service of the API with the Google types they use: what reflection serves.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rehome.binpb"));
