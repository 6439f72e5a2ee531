//! The protobuf API: generated code, and its translation to and from domain types. Decides nothing.
//!
//! Generated types stay here and at the edges; everything further in sees domain types only.

mod generated;

pub use generated::rehome::{admin, device, hub};

/// Every message and service of the API with the Google types they use: what reflection serves.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rehome.binpb"));
