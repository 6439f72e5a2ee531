//! Edges: they learn who is calling, hold the call against the table of what each role may, and translate. They decide
//! nothing else.

pub mod authorization;
mod azure;
pub mod grpc;
mod listener;
pub mod mqtt;
mod peer;
pub mod rest;
pub mod tls;

pub use self::listener::ConnectionsMax;
