//! What devices and operators use to speak to the service.

pub use crate::wire::{admin, device, hub};
