//! What the edges for existing Azure SDKs have in common: the JSON of registrations, enrollments, devices and twins, faults
//! with their codes, etags, queries, times.
//!
//! Shapes only. Who is let in and what happens is decided behind the service's façade, as for gRPC.

pub mod ascii;
pub mod bulk;
pub mod enrollment;
pub mod etag;
pub mod fault;
pub mod hub;
pub mod members;
pub mod names;
pub mod query;
pub mod registration;
pub mod time;
pub mod twin;
