//! How a device is to stand at one hub, by its record and its open moves: what a hub that lost its memory is set to. Pure.
//!
//! A call that is still due there will be made again under its order, so the fence must lie below it; what was answered
//! before is made true again. Everything else may stay as it is, as long as it accepts nothing.

use crate::domain::{Credential, DeviceState, HubId, Order, Registration};

use super::journal::{Effect, Plan};
use super::plan::Side;
use super::progress::{Move, Phase};

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq)]
pub enum Stand {
    /// Its home, open: the newest state known.
    Open(Tenancy),
    /// Its home, and a move that will open it again, or take it away, has it sealed: the state that the hub answered then,
    /// or else the newest one known.
    Sealed(Tenancy, Option<Box<DeviceState>>),
    /// It has just arrived and is still to be opened.
    Staged(Tenancy, Box<DeviceState>),
    /// Its home is elsewhere, and what is to become of what is left there is owed already.
    Leaving,
    /// Its home is elsewhere, and nothing is owed here.
    Elsewhere,
}

/// What goes with a device wherever it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Tenancy {
    pub generation: Order,
    /// Absent when it is not known for sure what the hub holds.
    pub credential: Option<Credential>,
    /// The lowest order of the calls that are still to be made there; absent when none is.
    pub due: Option<Order>,
}

impl Tenancy {
    /// The fence, when what comes from now on has orders above `latest`.
    pub fn fence(&self, latest: Order) -> Order {
        self.due.map_or(latest, |due| Order(due.0.saturating_sub(1)))
    }
}

/// How the device is to stand at `hub`.
pub fn stand_at<'a>(
    hub: &HubId,
    record: Option<&Registration>,
    moves: impl DoubleEndedIterator<Item = &'a Move> + Clone,
) -> Stand {
    let due = moves.clone().filter_map(|this| due_at(this, hub)).min();
    let home = record.and_then(|record| record.assignment.as_ref()).filter(|home| home.hub == *hub);
    let Some(home) = home else {
        // What is there of a move that has not pivoted is sealed or not there at all; it goes on by its own calls.
        return if moves.clone().any(|this| names(this, hub)) { Stand::Leaving } else { Stand::Elsewhere };
    };
    let tenancy = Tenancy { generation: home.generation, credential: home.credential.clone(), due };
    for this in moves.rev() {
        match &this.phase {
            Phase::Before { next } if *next > 0 && this.intent.plan.hub(Side::From) == Some(hub) => {
                match &this.intent.plan {
                    // The home never opened: what was withheld is still there as it arrived.
                    Plan::Replant { .. } => {
                        if let Some(state) = &this.intent.planted {
                            return Stand::Staged(tenancy, state.clone());
                        }
                    }
                    Plan::Assign { .. }
                    | Plan::TakeOver { .. }
                    | Plan::Relocate { .. }
                    | Plan::Restore { .. }
                    | Plan::Rehouse { .. }
                    | Plan::ResetInPlace { .. }
                    | Plan::Refresh { .. }
                    | Plan::Release { .. } => {
                        if this.sealed.is_some() {
                            return Stand::Sealed(tenancy, this.sealed.clone());
                        }
                    }
                }
            }
            Phase::Before { .. } => {}
            Phase::After { owed, .. } | Phase::Undoing { owed, .. } => {
                let owes = |effect| owed.iter().any(|owed| owed.effect == effect && owed.hub == *hub);
                if owes(Effect::Unseal) {
                    return Stand::Sealed(tenancy, this.sealed.clone());
                }
                if owes(Effect::Activate)
                    && let Some(state) = this.arriving_state()
                {
                    return Stand::Staged(tenancy, Box::new(state));
                }
            }
        }
        if this.bypass().is_some_and(|(at, _)| at == *hub) {
            return Stand::Sealed(tenancy, None);
        }
    }
    Stand::Open(tenancy)
}

/// The lowest order of this move's calls to the hub that are still to be made.
fn due_at(this: &Move, hub: &HubId) -> Option<Order> {
    match &this.phase {
        // Whether the hub is the one of the step that is due or of a later one: later ones have higher orders.
        Phase::Before { .. } => names(this, hub).then_some(this.order),
        Phase::After { owed, .. } | Phase::Undoing { owed, .. } => {
            owed.iter().filter(|owed| owed.hub == *hub).map(|owed| owed.order).min()
        }
    }
}

/// Whether a move still has something to do with the hub.
pub fn names(this: &Move, hub: &HubId) -> bool {
    match &this.phase {
        Phase::Before { .. } => [Side::From, Side::To].into_iter().any(|side| this.intent.plan.hub(side) == Some(hub)),
        Phase::After { owed, .. } | Phase::Undoing { owed, .. } => owed.iter().any(|owed| owed.hub == *hub),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Reason;
    use crate::moves::{Carry, JournalLine, JournalRecord, MoveLog};
    use crate::store::samples::{NOW, device_state, hub_id, intent, reg_id, registration};

    /// Lines of one move, at the orders 10, 20, 30 …
    fn moved(plan: Plan, lines: &[JournalRecord]) -> Move {
        let mut intent = intent(&reg_id("d"), plan);
        intent.planted = Some(Box::new(device_state()));
        let records = std::iter::once(JournalRecord::Intent(Box::new(intent))).chain(lines.iter().cloned());
        let lines = (1..).zip(records).map(|(n, record)| JournalLine { order: Order(n * 10), at: NOW, record });
        Move::replay(MoveLog { generation: Order(10), registration: reg_id("d"), lines: lines.collect() }).unwrap()
    }

    fn check(home: &str, this: Option<Move>, expected: [(&str, &str); 2]) {
        let record = registration("d", Some(home));
        for (hub, expected) in expected {
            let found = stand_at(&hub_id(hub), Some(&record), this.iter());
            let fence = |tenancy: &Tenancy| tenancy.fence(Order(1_000)).0;
            let found = match &found {
                Stand::Open(tenancy) => format!("open {}", fence(tenancy)),
                Stand::Sealed(tenancy, Some(_)) => format!("as sealed {}", fence(tenancy)),
                Stand::Sealed(tenancy, None) => format!("sealed {}", fence(tenancy)),
                Stand::Staged(tenancy, _) => format!("staged {}", fence(tenancy)),
                Stand::Leaving => "leaving".to_owned(),
                Stand::Elsewhere => "elsewhere".to_owned(),
            };
            assert_eq!(found, expected, "{hub} of {this:?}");
        }
    }

    #[test]
    fn where_a_device_stands_at_every_step() {
        let (a, b) = (hub_id("a"), hub_id("b"));
        let relocate = || Plan::Relocate { from: a.clone(), to: b.clone(), carry: Carry::State };
        let sealed = || JournalRecord::StepDone { effect: Effect::Seal, state: Some(Box::new(device_state())) };
        let pivoted = || JournalRecord::Pivoted { data_source: None };
        let aborted =
            || JournalRecord::Aborted { reason: Reason::MoveAborted, message: String::new(), spare_current: false };
        let settled = |effect, hub: &HubId| JournalRecord::Settled { effect, hub: hub.clone(), state: None };
        check("a", None, [("a", "open 1000"), ("b", "elsewhere")]);
        check("a", Some(moved(relocate(), &[])), [("a", "open 9"), ("b", "leaving")]);
        check("a", Some(moved(relocate(), &[sealed()])), [("a", "as sealed 19"), ("b", "leaving")]);
        check("a", Some(moved(relocate(), &[sealed(), aborted()])), [("a", "as sealed 29"), ("b", "leaving")]);
        check("a", Some(moved(relocate(), &[aborted()])), [("a", "sealed 19"), ("b", "elsewhere")]);
        let unsealed = [sealed(), aborted(), settled(Effect::Unseal, &a)];
        check("a", Some(moved(relocate(), &unsealed)), [("a", "open 1000"), ("b", "leaving")]);
        check("b", Some(moved(relocate(), &[sealed(), pivoted()])), [("a", "leaving"), ("b", "staged 29")]);
        let activated = [sealed(), pivoted(), settled(Effect::Activate, &b)];
        check("b", Some(moved(relocate(), &activated)), [("a", "leaving"), ("b", "open 1000")]);
        let replant = || Plan::Replant { from: a.clone(), to: b.clone(), source: Order(5) };
        let withheld = || JournalRecord::StepDone { effect: Effect::Withhold, state: None };
        check("a", Some(moved(replant(), &[withheld()])), [("a", "staged 19"), ("b", "leaving")]);
        let refresh = moved(Plan::Refresh { at: a.clone() }, &[]);
        check("a", Some(refresh), [("a", "open 9"), ("b", "elsewhere")]);
        let record = registration("d", None);
        let assign = moved(Plan::Assign { to: a.clone() }, &[]);
        assert_eq!(stand_at(&a, Some(&record), [&assign].into_iter()), Stand::Leaving, "it is still to come");
        assert_eq!(stand_at(&a, None, [].into_iter()), Stand::Elsewhere);
    }
}
