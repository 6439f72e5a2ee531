//! Moves: undoable work as data. Knows what to do next and what to undo; performs nothing.

pub mod journal;

pub use journal::{Carry, Effect, Intent, JournalLine, JournalRecord, MoveLog, Plan};
