//! The MQTT 3.1.1 edge, for devices that speak through existing Azure SDKs.

mod hub;
mod link;
mod name;
mod packet;
mod provisioning;
mod server;
mod topic;

pub use server::{Endpoint, Limits, Settings, serve};
