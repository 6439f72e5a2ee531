//! The shape every commit must have, whatever the store holds. A commit of another shape is a defect of the caller: it
//! is refused whole.

use std::collections::BTreeSet;

use super::{Change, Commit, CommitFault, Unexpected};
use crate::domain::{Order, Past, Version};
use crate::moves::JournalRecord;
use crate::moves::machine::OWN_ORDER;

/// Refuses a commit that no state of the store could take.
pub(super) fn check_shape(commit: &Commit) -> Result<(), CommitFault> {
    let mut written = BTreeSet::new();
    for change in &commit.changes {
        match change {
            Change::Journal { registration, generation, at: _, record } => {
                if !written.insert(*generation) {
                    return Err(not_written("a commit takes at most one line of each move"));
                }
                match (generation, record) {
                    (None, JournalRecord::Intent(intent)) if intent.registration != *registration => {
                        return Err(not_written("the intent is of another registration"));
                    }
                    (None, JournalRecord::Intent(_)) => {}
                    (Some(_), JournalRecord::Intent(_)) => {
                        return Err(not_written("an intent opens a move of its own"));
                    }
                    (
                        generation,
                        JournalRecord::StepDone { .. }
                        | JournalRecord::Pivoted { .. }
                        | JournalRecord::Aborted { .. }
                        | JournalRecord::Collected { .. }
                        | JournalRecord::Settled { .. }
                        | JournalRecord::Stuck { .. }
                        | JournalRecord::Dropped { .. }
                        | JournalRecord::Bypassed { .. }
                        | JournalRecord::Regained { .. }
                        | JournalRecord::Retried { .. }
                        | JournalRecord::Abandoned { .. },
                    ) => {
                        if generation.is_none() {
                            return Err(not_written("a move opens with an intent"));
                        }
                    }
                }
            }
            Change::PutEnrollment(_)
            | Change::DeleteEnrollment { .. }
            | Change::PutHub(_)
            | Change::DeleteHub { .. }
            | Change::PutRegistration(_)
            | Change::DeleteRegistration { .. }
            | Change::CloseMove { .. }
            | Change::ForgetMove { .. } => {}
        }
    }
    Ok(())
}

pub(super) fn not_written(why: impl Into<String>) -> CommitFault {
    CommitFault::NotWritten(why.into())
}

/// What never existed cannot be deleted, whatever the version says.
pub(super) fn expect_existing(version: Version) -> Result<(), CommitFault> {
    if version == Version::ABSENT { Err(not_written("a deletion names the version it deletes")) } else { Ok(()) }
}

/// The generations of a record, its own commit's order filled in.
pub(super) fn named(past: &Past, order: Order) -> Past {
    past.mapped(|it| if it == OWN_ORDER { order } else { it })
}

impl From<Unexpected> for CommitFault {
    fn from(unexpected: Unexpected) -> Self {
        CommitFault::Unexpected(unexpected)
    }
}
