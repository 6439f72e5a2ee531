//! Edges: they learn who is calling, hold the call against the table of what each role may, and translate. They decide
//! nothing else.

pub mod authorization;
pub mod grpc;
mod peer;
