//! The only door to "now", "later" and "random"; everything above is handed a [`Clock`] and an [`Entropy`].
//!
//! The manual versions make tests exact: time stands still until it is advanced, random numbers follow a seed.

mod clock;
mod entropy;
mod secret;
mod size;
mod writer;

pub use clock::{Clock, ManualClock, SystemClock};
pub use entropy::{Entropy, SeededEntropy, SystemEntropy};
pub use secret::{OwnSecret, SecretFault, make_secret_text, own_secret, secret_text};
pub use size::FileSize;
pub use writer::{GroupWriter, WriterClosed};
