//! Actors: one per device and one per hub. They serialise and perform; what to do is decided by `policy` and `moves`.
//!
//! actix lives in this room and nowhere else: the rest of the service sees [`Directory`], whose methods are plain futures.
//! Asks go one way, service → device → hub; what comes back up are facts.

mod arbiters;
mod device;
mod directory;
mod fleet;
mod hub;
mod messages;
mod reconciler;
#[cfg(test)]
mod tests;

pub use device::{After, Asker, Core, Request, Surroundings};
pub use directory::{Config, Directory};
pub use fleet::{Berth, Fleet};
pub use hub::{FeedFault, FeedRead, FeedRound, Lease, hear, unless_gone_back};
pub use messages::{Accepted, Answer, PinTo, Refused, Reply, Report, Seen, UndoWish, Updates};
