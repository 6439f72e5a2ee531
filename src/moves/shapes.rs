//! Every shape of a plan, for whatever must leave none out: the tests of the moves, the mutations of the simulation, the
//! kept records.

use crate::domain::{HubId, Order, Timestamp};

use super::journal::{Carry, Plan};

/// The shape that comes next. A new shape does not compile before it has its place here, and is then part of [`shapes`].
fn after(plan: &Plan) -> Option<Plan> {
    let relocate = |carry| Plan::Relocate { from: from(), to: to(), carry };
    Some(match plan {
        Plan::Assign { .. } => Plan::TakeOver { to: to(), adopt: false },
        Plan::TakeOver { adopt: false, .. } => Plan::TakeOver { to: to(), adopt: true },
        Plan::TakeOver { adopt: true, .. } => relocate(Carry::State),
        Plan::Relocate { carry: Carry::State, .. } => relocate(Carry::Initial),
        Plan::Relocate { carry: Carry::Initial, .. } => relocate(Carry::Planted { seen_at: Timestamp(4) }),
        Plan::Relocate { carry: Carry::Planted { .. }, .. } => {
            Plan::Replant { from: from(), to: to(), source: Order(1) }
        }
        Plan::Replant { .. } => Plan::Rehouse { from: from(), to: to() },
        Plan::Rehouse { from, to } if from != to => Plan::Rehouse { from: to.clone(), to: to.clone() },
        Plan::Rehouse { .. } => Plan::Restore { from: from(), to: to(), seen_at: Timestamp(4) },
        Plan::Restore { from, to, .. } if from != to => {
            Plan::Restore { from: to.clone(), to: to.clone(), seen_at: Timestamp(4) }
        }
        Plan::Restore { .. } => Plan::ResetInPlace { at: from(), credential: true },
        Plan::ResetInPlace { credential: true, .. } => Plan::ResetInPlace { at: from(), credential: false },
        Plan::ResetInPlace { credential: false, .. } => Plan::Refresh { at: from() },
        Plan::Refresh { .. } => Plan::Release { from: Some(from()) },
        Plan::Release { from: Some(_) } => Plan::Release { from: None },
        Plan::Release { from: None } => Plan::Collect { from: Some(from()) },
        Plan::Collect { from: Some(_) } => Plan::Collect { from: None },
        Plan::Collect { from: None } => return None,
    })
}

fn from() -> HubId {
    HubId::parse("a").unwrap()
}

fn to() -> HubId {
    HubId::parse("b").unwrap()
}

/// Every shape, from hub `a` to hub `b`.
pub fn shapes() -> Vec<Plan> {
    std::iter::successors(Some(Plan::Assign { to: to() }), after).collect()
}
