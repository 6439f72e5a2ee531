//! Moves: undoable work as data. Knows what to do next and what to undo; performs nothing.
//!
//! `journal` is what is written, `plan` the lists of steps, `progress` the fold of a journal, `machine` the function that
//! actors and simulations drive, `standing` what people and devices are told about it.

pub mod journal;
pub mod machine;
pub mod place;
pub mod plan;
pub mod progress;
#[cfg(any(test, feature = "testing"))]
#[allow(clippy::unwrap_used, reason = "the names are valid")]
pub mod shapes;
pub mod standing;
#[cfg(test)]
mod tests;

pub use journal::{Bypass, Carry, Effect, Intent, JournalLine, JournalRecord, KnownState, MoveLog, Plan};
pub use machine::{
    CallKey, Commit, Due, EndLease, Machine, Place, Preconditions, Recall, RecordChange, Resolve, Tries, Unresolved,
    Way,
};
pub use place::{LeftOver, Stand, Tenancy, left_over, names, stand_at};
pub use progress::{Bypassed, Illegal, Move, Owed, OwedState, Phase};
pub use standing::{Abandoned, Ending, Episode, Obligation, Running, Standing, late_twin};
