//! X.509: is the presented chain a device that the enrollment lets in?
//!
//! Possession of the leaf's key was proven by the TLS handshake; everything else is judged here, and at every call, since
//! a resumed TLS session never shows its certificates to a verifier again (DESIGN 8).
//!
//! ```text
//! bytes ─ Presented::parse ─▶ Presented ─ verify_chain ─▶ ChainProof ─ judge ─▶ Verified
//!         bounds, strict DER              signatures,     may be kept   CN, times,
//!                                         path, keys      per connection same enrollment version
//! ```
//!
//! There is no revocation list: a device is stopped by its enrollment (reference/dps.md §2.2).

mod certificate;
mod chain;
mod operator;
mod path;
mod refusal;
#[cfg(test)]
mod tests;
mod verify;

pub use certificate::{CertificateInfo, certificate_ref, check_anchor, check_leaf, describe, shares_authority};
pub(super) use certificate::{check_authority, printable};
pub use chain::Presented;
pub(super) use chain::{PresentedCertificate, read as read_chain};
pub use operator::{Operator, verify_operator};
pub(super) use path::{Errand, find_any as find_path};
pub use refusal::Refusal;
pub use verify::{ChainProof, judge, verify, verify_chain};
