//! TPM 2.0: is there a TPM behind the caller, which one is it, and in what state is the machine around it?
//!
//! | file | what |
//! | --- | --- |
//! | `public`, `keys` | public areas as they came, and the rules for each of the three keys |
//! | `draw`, `protect`, `credential`, `duplicate`, `blob` | secrets on their way into one TPM |
//! | `ek_certificate` | the manufacturer's word for an endorsement key |
//! | `quote` | what the registers hold |
//! | `challenge`, `proof` | the two steps, and what they prove |
//! | `crypto` | the only file that knows the provider |
//! | `software` | a TPM without a chip, for tests and load |
//!
//! Structures and constants are those of the TPM 2.0 library specification; the layout of the blob and of tokens is that of
//! device code in the field.

mod blob;
mod challenge;
mod credential;
mod crypto;
mod draw;
mod duplicate;
mod ek_certificate;
mod form;
mod keys;
mod proof;
mod protect;
mod public;
mod quote;
mod refusal;
pub mod software;
#[cfg(test)]
mod tests;

pub use blob::{Blob, Malformed, activation_blob};
pub use challenge::{Answer, Challenge, Enrolled, Invitation, Presented, QuoteWanted, Rule, begin};
pub use draw::Draw;
pub use ek_certificate::{EkChain, EkFacts, check_authority};
pub use keys::{AttestationKey, EndorsementKey, StorageKey};
pub use proof::TpmProof;
pub use public::PublicArea;
pub use quote::{NONCE_SIZE, Quote};
pub use refusal::{CertificateFault, KeyFault, Part, QuoteFault, Refusal};
