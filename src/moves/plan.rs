//! Every plan as a list of steps: what each does, where, how it is taken back, and where the pivot stands.
//!
//! Steps before the pivot run one after the other; each is committed before the next begins, and the last one's commit is
//! the pivot. A failure there unwinds: the undo of every step that may have begun is owed. What stands after the pivot is
//! owed at once, in any order, until it is done: from there work only goes forward. A plan without steps before the pivot
//! pivots with its intent.

use crate::domain::HubId;

use super::journal::{Effect, Plan};

/// Which of a plan's hubs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Where the device lives when the move starts (in place: the only hub).
    From,
    /// Where it will live.
    To,
}

/// How a step before the pivot is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undo {
    Call(Effect),
    /// Nothing needs taking back, and why.
    Nothing(&'static str),
}

/// A step before the pivot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub effect: Effect,
    pub side: Side,
    pub undo: Undo,
}

/// What is owed to a hub after the pivot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duty {
    pub effect: Effect,
    pub side: Side,
    /// Whether the device is told *assigned* only once this is done.
    pub awaited: bool,
}

/// A plan's steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    pub before: &'static [Step],
    pub after: &'static [Duty],
}

const SEAL: Step = Step { effect: Effect::Seal, side: Side::From, undo: Undo::Call(Effect::Unseal) };
const CREATE: Step = Step { effect: Effect::Create, side: Side::To, undo: Undo::Call(Effect::Delete) };
const WITHHOLD: Step = Step { effect: Effect::Withhold, side: Side::From, undo: Undo::Call(Effect::Activate) };
const CREDENTIAL: Step = Step {
    effect: Effect::UpdateCredential,
    side: Side::From,
    undo: Undo::Nothing(
        "the device proved the new credential; which one the hub holds is recorded as unknown and written again by the next registration",
    ),
};
// What is found has no home here that it could be given back to. Left sealed, it loses nothing: the device's next
// registration finds it and takes it over.
const SEAL_FOUND: Step = Step {
    effect: Effect::Seal,
    side: Side::To,
    undo: Undo::Nothing("the next registration takes over what was found"),
};
const DELETE_FOUND: Step =
    Step { effect: Effect::Delete, side: Side::To, undo: Undo::Nothing("what was found is in the history") };
const CREDENTIAL_FOUND: Step = Step {
    effect: Effect::UpdateCredential,
    side: Side::To,
    undo: Undo::Nothing("what was found stays sealed: nobody signs in there"),
};
const OPEN_FOUND: Duty = Duty { effect: Effect::Unseal, side: Side::To, awaited: true };
const ACTIVATE: Duty = Duty { effect: Effect::Activate, side: Side::To, awaited: true };
// A plain delete: the sealed state was committed before the pivot, and nothing can have been written since.
const DELETE_OLD: Duty = Duty { effect: Effect::Delete, side: Side::From, awaited: false };
const COLLECT_OLD: Duty = Duty { effect: Effect::Collect, side: Side::From, awaited: false };
const REPLACE_TWIN: Duty = Duty { effect: Effect::ReplaceTwin, side: Side::From, awaited: true };

impl Plan {
    /// The steps, whole.
    pub fn steps(&self) -> Steps {
        match self {
            Plan::Assign { .. } => Steps { before: &[CREATE], after: &[ACTIVATE] },
            Plan::TakeOver { adopt: false, .. } => {
                Steps { before: &[SEAL_FOUND, DELETE_FOUND, CREATE], after: &[ACTIVATE] }
            }
            Plan::TakeOver { adopt: true, .. } => {
                Steps { before: &[SEAL_FOUND, CREDENTIAL_FOUND], after: &[OPEN_FOUND] }
            }
            Plan::Relocate { .. } => Steps { before: &[SEAL, CREATE], after: &[ACTIVATE, DELETE_OLD] },
            Plan::Replant { .. } => Steps { before: &[WITHHOLD, CREATE], after: &[ACTIVATE, DELETE_OLD] },
            // The old hub is unlinked or has nothing: nobody can be asked to clean up there, or needs to be.
            Plan::Rehouse { .. } | Plan::Restore { .. } => Steps { before: &[CREATE], after: &[ACTIVATE] },
            Plan::ResetInPlace { credential: true, .. } => Steps { before: &[CREDENTIAL], after: &[REPLACE_TWIN] },
            Plan::ResetInPlace { credential: false, .. } => Steps { before: &[], after: &[REPLACE_TWIN] },
            Plan::Refresh { .. } => Steps { before: &[CREDENTIAL], after: &[] },
            Plan::Release { from: Some(_) } | Plan::Collect { from: Some(_) } => {
                Steps { before: &[], after: &[COLLECT_OLD] }
            }
            Plan::Release { from: None } | Plan::Collect { from: None } => Steps { before: &[], after: &[] },
        }
    }

    /// The hub on one side, where the plan has one.
    pub fn hub(&self, side: Side) -> Option<&HubId> {
        match (self, side) {
            (Plan::Assign { .. } | Plan::TakeOver { .. }, Side::From)
            | (Plan::Release { .. } | Plan::Collect { .. }, Side::To) => None,
            (Plan::Assign { to } | Plan::TakeOver { to, .. }, Side::To) => Some(to),
            (
                Plan::Relocate { from, .. }
                | Plan::Replant { from, .. }
                | Plan::Rehouse { from, .. }
                | Plan::Restore { from, .. },
                Side::From,
            ) => Some(from),
            (
                Plan::Relocate { to, .. }
                | Plan::Replant { to, .. }
                | Plan::Rehouse { to, .. }
                | Plan::Restore { to, .. },
                Side::To,
            ) => Some(to),
            (Plan::ResetInPlace { at, .. } | Plan::Refresh { at }, Side::From | Side::To) => Some(at),
            (Plan::Release { from } | Plan::Collect { from }, Side::From) => from.as_ref(),
        }
    }

    /// The hub that a place is taken at: where the device does not live yet.
    pub fn arrives_at(&self) -> Option<&HubId> {
        match self {
            Plan::Assign { to } | Plan::TakeOver { to, .. } | Plan::Relocate { to, .. } | Plan::Replant { to, .. } => {
                Some(to)
            }
            Plan::Rehouse { from, to } | Plan::Restore { from, to, .. } => (from != to).then_some(to),
            Plan::ResetInPlace { .. } | Plan::Refresh { .. } | Plan::Release { .. } | Plan::Collect { .. } => None,
        }
    }

    /// Whether the device gets a home of this move's generation.
    pub fn makes_home(&self) -> bool {
        match self {
            Plan::Assign { .. }
            | Plan::TakeOver { .. }
            | Plan::Relocate { .. }
            | Plan::Replant { .. }
            | Plan::Rehouse { .. }
            | Plan::Restore { .. } => true,
            Plan::ResetInPlace { .. } | Plan::Refresh { .. } | Plan::Release { .. } | Plan::Collect { .. } => false,
        }
    }

    /// What is owed after the pivot. A home that was bypassed has not been sealed, so it is collected, never just deleted.
    pub fn duties(&self, bypassed: bool) -> impl Iterator<Item = Duty> + '_ {
        self.steps().after.iter().map(move |duty| match (bypassed, duty.effect, duty.side) {
            (true, Effect::Delete, Side::From) => COLLECT_OLD,
            (true | false, _, Side::From | Side::To) => *duty,
        })
    }

    /// Whether the move stays in the device's history once it is done.
    pub fn is_remembered(&self) -> bool {
        match self {
            Plan::Assign { .. }
            | Plan::TakeOver { .. }
            | Plan::Relocate { .. }
            | Plan::Replant { .. }
            | Plan::Rehouse { .. }
            | Plan::Restore { .. }
            | Plan::ResetInPlace { .. }
            | Plan::Release { .. }
            | Plan::Collect { .. } => true,
            Plan::Refresh { .. } => false,
        }
    }

    /// A stable word for logs, metrics and listings.
    pub fn as_str(&self) -> &'static str {
        match self {
            Plan::Assign { .. } => "assign",
            Plan::TakeOver { .. } => "take_over",
            Plan::Relocate { .. } => "relocate",
            Plan::Replant { .. } => "replant",
            Plan::Rehouse { .. } => "rehouse",
            Plan::Restore { .. } => "restore",
            Plan::ResetInPlace { .. } => "reset_in_place",
            Plan::Refresh { .. } => "refresh",
            Plan::Release { .. } => "release",
            Plan::Collect { .. } => "collect",
        }
    }
}
