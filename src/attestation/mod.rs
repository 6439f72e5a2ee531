//! Judges evidence: what a caller presented becomes [`Verified`], or a refusal whose reason only the audit log learns.
//!
//! Pure: the caller hands in the enrollment and the time. Whether the enrollment is enabled is not judged here; that is
//! an operator's decision and belongs to `policy`.

pub mod sas;
pub mod symmetric_key;
pub mod tpm;
mod verified;
pub mod x509;

pub use verified::{Matched, Slot, Verified};
