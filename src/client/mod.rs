//! What devices and operators use to speak to the service.

mod fault;
mod operator;

pub use crate::wire::{RemoteFault, admin, device, hub};
pub use fault::ClientFault;
pub use operator::{Access, Answers, Api};
