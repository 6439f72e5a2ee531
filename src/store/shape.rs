//! The shape every commit must have, whatever the store holds. A commit of another shape is a defect of the caller: it
//! is refused whole.

use std::collections::BTreeSet;

use super::{Change, Commit, CommitFault, HubUse, LastKnown, ORDER_RAISED_MAX, Unexpected};
use crate::domain::{DeviceState, Hub, HubId, HubState, Order, Past, Version};
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
            | Change::ForgetMove { .. }
            | Change::NoteSeen { .. }
            | Change::SetRestored(_) => {}
            Change::RaiseOrders { above } if *above > ORDER_RAISED_MAX => {
                return Err(not_written(format!(
                    "orders are not raised above {above}: no order that was given out is so high"
                )));
            }
            Change::RaiseOrders { .. } => {}
        }
    }
    Ok(())
}

pub(super) fn not_written(why: impl Into<String>) -> CommitFault {
    CommitFault::NotWritten(why.into())
}

/// The order that a commit gets after `last`.
pub(super) fn next_order(last: Order, commit: &Commit) -> Order {
    let raised = commit.changes.iter().filter_map(|change| match change {
        Change::RaiseOrders { above } => Some(*above),
        Change::PutEnrollment(_)
        | Change::DeleteEnrollment { .. }
        | Change::PutHub(_)
        | Change::DeleteHub { .. }
        | Change::PutRegistration(_)
        | Change::DeleteRegistration { .. }
        | Change::Journal { .. }
        | Change::CloseMove { .. }
        | Change::ForgetMove { .. }
        | Change::NoteSeen { .. }
        | Change::SetRestored(_) => None,
    });
    Order(raised.fold(last, Order::max).0 + 1)
}

/// What never existed cannot be deleted, whatever the version says.
pub(super) fn expect_existing(version: Version) -> Result<(), CommitFault> {
    if version == Version::ABSENT { Err(not_written("a deletion names the version it deletes")) } else { Ok(()) }
}

/// The generations of a record, its own commit's order filled in.
pub(super) fn named(past: &Past, order: Order) -> Past {
    past.mapped(|it| if it == OWN_ORDER { order } else { it })
}

/// Whether a hub takes one more device, by its record and how it is used.
pub(super) fn takes(
    record: Option<&Hub>,
    hub: &HubId,
    pinned: bool,
    used: impl FnOnce() -> HubUse,
) -> Result<(), Unexpected> {
    let Some(record) = record else { return Err(Unexpected::HubNotLinked { hub: hub.clone() }) };
    if pinned {
        return Ok(());
    }
    match record.state {
        HubState::Active => {}
        HubState::Draining | HubState::Retired => {
            return Err(Unexpected::HubClosed { hub: hub.clone(), state: record.state });
        }
    }
    let used = used();
    let fits = record.capacity.is_none_or(|capacity| used.homes + used.arriving < capacity);
    if fits { Ok(()) } else { Err(Unexpected::HubFull { hub: hub.clone() }) }
}

/// Whether a state seen at a hub replaces what is known: twins never go back, so one that is less far is older.
pub(super) fn is_newer(known: Option<&LastKnown>, hub: &HubId, state: &DeviceState) -> bool {
    known.is_none_or(|known| known.hub != *hub || known.state.twin.progress() <= state.twin.progress())
}

impl From<Unexpected> for CommitFault {
    fn from(unexpected: Unexpected) -> Self {
        CommitFault::Unexpected(unexpected)
    }
}
