//! The seeded simulation of devices, hubs, network, store and operators over the very code that the service runs.

mod conformance;
mod disks;
mod model;
