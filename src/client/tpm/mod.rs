//! A device's TPM 2.0: raw frames over a device file or a socket, with no C library behind it.
//!
//! [`Tpm`] is what the rest of the SDK sees. Below it, from the outside in: what a device does with its TPM (`session`), the
//! commands (`chip`), their bytes (`frame`), and the way there and back (`link`).

mod address;
mod blob;
mod certificate;
mod chip;
mod fault;
mod frame;
mod front;
mod link;
mod nv;
mod session;
mod settings;
mod software;
mod template;

pub use address::{TpmAddress, TpmAddressFault};
pub use certificate::{EkCertificate, base64, pem};
pub use fault::{ChipFault, ResponseCode};
pub use front::{SecurityModule, Tpm, TpmKeys, TpmSummary};
pub use session::{Endorsement, Quote, QuoteOrder, endorsement_hash};
pub use settings::{AuthValue, TpmSettings};
pub use software::SoftwareModule;
pub use template::{EkKind, SrkKind};
