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
    /// Its home, sealed for a move that goes on: the state that the hub answered then. Nothing was written since.
    Held(Tenancy, Box<DeviceState>),
    /// Its home, closed until a move has opened it again: the state that the hub answered when it was sealed, if that is
    /// known. The hub may have opened it unheard.
    Sealed(Tenancy, Option<Box<DeviceState>>),
    /// It has just arrived and is still to be opened, with this. The hub may have opened it unheard.
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
                    | Plan::Release { .. }
                    | Plan::Collect { .. } => {
                        if let Some(sealed) = &this.sealed {
                            return Stand::Held(tenancy, sealed.clone());
                        }
                    }
                }
            }
            Phase::Before { .. } => {}
            Phase::After { owed, .. } | Phase::Undoing { owed, .. } => {
                let owes = |effect| owed.iter().any(|owed| owed.effect == effect && owed.hub == *hub);
                if owes(Effect::Unseal) {
                    return Stand::Sealed(tenancy, closed_state(this));
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

/// What a home has that a move has still to open again: what was sealed there, or what the move brought.
fn closed_state(this: &Move) -> Option<Box<DeviceState>> {
    match (&this.phase, &this.intent.plan) {
        (Phase::After { .. }, Plan::TakeOver { adopt: true, .. })
        | (Phase::Before { .. } | Phase::Undoing { .. }, _) => this.sealed.clone(),
        (
            Phase::After { .. },
            Plan::Assign { .. }
            | Plan::TakeOver { adopt: false, .. }
            | Plan::Relocate { .. }
            | Plan::Replant { .. }
            | Plan::Rehouse { .. }
            | Plan::Restore { .. }
            | Plan::ResetInPlace { .. }
            | Plan::Refresh { .. }
            | Plan::Release { .. }
            | Plan::Collect { .. },
        ) => this.arriving_state().map(Box::new),
    }
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

/// What is to become of a device that a hub holds, of the generation `found`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOver {
    /// It lives there.
    Home,
    /// A move takes it away, or goes on with it.
    Owed,
    /// A move brings the device there, and cannot as long as this is in its way.
    InTheWay,
    /// Nothing will touch it.
    Loose,
}

/// See [`LeftOver`].
pub fn left_over<'a>(
    hub: &HubId,
    record: Option<&Registration>,
    moves: impl DoubleEndedIterator<Item = &'a Move> + Clone,
    found: Order,
) -> LeftOver {
    match stand_at(hub, record, moves.clone()) {
        Stand::Open(_) | Stand::Held(..) | Stand::Sealed(..) | Stand::Staged(..) => return LeftOver::Home,
        Stand::Leaving | Stand::Elsewhere => {}
    }
    let takes_away = |this: &Move| match &this.phase {
        // A first home takes over what it finds.
        Phase::Before { .. } => {
            this.intent.plan.arrives_at() == Some(hub)
                && match &this.intent.plan {
                    Plan::Assign { .. } | Plan::TakeOver { .. } => true,
                    Plan::Relocate { .. }
                    | Plan::Replant { .. }
                    | Plan::Rehouse { .. }
                    | Plan::Restore { .. }
                    | Plan::ResetInPlace { .. }
                    | Plan::Refresh { .. }
                    | Plan::Release { .. }
                    | Plan::Collect { .. } => this.generation == found,
                }
        }
        Phase::After { owed, .. } => {
            owed.iter().any(|it| it.hub == *hub && matches!(it.effect, Effect::Delete | Effect::Collect))
        }
        // What another move has brought there is no business of an undo.
        Phase::Undoing { owed, .. } => {
            this.generation == found && owed.iter().any(|it| it.hub == *hub && it.effect == Effect::Delete)
        }
    };
    let comes = |this: &Move| match &this.phase {
        Phase::Before { .. } => this.intent.plan.arrives_at() == Some(hub),
        Phase::After { .. } | Phase::Undoing { .. } => false,
    };
    if moves.clone().any(takes_away) {
        LeftOver::Owed
    } else if moves.clone().any(comes) {
        LeftOver::InTheWay
    } else {
        LeftOver::Loose
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
                Stand::Held(tenancy, _) => format!("held {}", fence(tenancy)),
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
        check("a", Some(moved(relocate(), &[sealed()])), [("a", "held 19"), ("b", "leaving")]);
        check("a", Some(moved(relocate(), &[sealed(), aborted()])), [("a", "as sealed 29"), ("b", "leaving")]);
        check("a", Some(moved(relocate(), &[aborted()])), [("a", "sealed 19"), ("b", "elsewhere")]);
        let unsealed = [sealed(), aborted(), settled(Effect::Unseal, &a)];
        check("a", Some(moved(relocate(), &unsealed)), [("a", "open 1000"), ("b", "leaving")]);
        check("b", Some(moved(relocate(), &[sealed(), pivoted()])), [("a", "leaving"), ("b", "staged 29")]);
        let activated = [sealed(), pivoted(), settled(Effect::Activate, &b)];
        let collect = moved(Plan::Collect { from: Some(b.clone()) }, &[]);
        check("a", Some(collect), [("a", "open 1000"), ("b", "leaving")]);
        check("b", Some(moved(relocate(), &activated)), [("a", "leaving"), ("b", "open 1000")]);
        let replant = || Plan::Replant { from: a.clone(), to: b.clone(), source: Order(5) };
        let withheld = || JournalRecord::StepDone { effect: Effect::Withhold, state: None };
        check("a", Some(moved(replant(), &[withheld()])), [("a", "staged 19"), ("b", "leaving")]);
        let refresh = moved(Plan::Refresh { at: a.clone() }, &[]);
        check("a", Some(refresh), [("a", "open 9"), ("b", "elsewhere")]);
        // After the pivot, what the operator has opened by force has what arrived there, not what was left elsewhere.
        let stuck = JournalRecord::Stuck {
            effect: Effect::Activate,
            hub: b.clone(),
            refusal: crate::domain::HubRefusal::NotStaged,
        };
        let forced = JournalRecord::Retried {
            effect: Effect::Activate,
            hub: b.clone(),
            as_effect: Effect::Unseal,
            by: "ops".to_owned(),
            why: String::new(),
        };
        let replanted = moved(replant(), &[withheld(), pivoted(), stuck, forced]);
        let record_at_b = registration("d", Some("b"));
        let Stand::Sealed(_, state) = stand_at(&b, Some(&record_at_b), [&replanted].into_iter()) else {
            panic!("it is closed until it is opened by force");
        };
        assert_eq!(state, replanted.arriving_state().map(Box::new));
        assert!(state.is_some());
        let record = registration("d", None);
        let assign = moved(Plan::Assign { to: a.clone() }, &[]);
        assert_eq!(stand_at(&a, Some(&record), [&assign].into_iter()), Stand::Leaving, "it is still to come");
        assert_eq!(stand_at(&a, None, [].into_iter()), Stand::Elsewhere);
    }

    #[test]
    fn what_is_left_at_a_hub_is_nobodys_business_unless_a_move_takes_it_away() {
        use LeftOver::{Home, InTheWay, Loose, Owed};
        let (a, b, c) = (hub_id("a"), hub_id("b"), hub_id("c"));
        let relocate = || Plan::Relocate { from: a.clone(), to: b.clone(), carry: Carry::State };
        let sealed = || JournalRecord::StepDone { effect: Effect::Seal, state: Some(Box::new(device_state())) };
        let pivoted = || JournalRecord::Pivoted { data_source: None };
        let aborted =
            || JournalRecord::Aborted { reason: Reason::MoveAborted, message: String::new(), spare_current: false };
        let deleted = || JournalRecord::Settled { effect: Effect::Delete, hub: a.clone(), state: None };
        let activated = || JournalRecord::Settled { effect: Effect::Activate, hub: b.clone(), state: None };
        for (home, plan, lines, hub, found, expected) in [
            ("a", relocate(), vec![], &a, 1, Home),
            ("a", relocate(), vec![], &b, 3, InTheWay),
            ("a", relocate(), vec![sealed()], &b, 3, InTheWay),
            ("a", relocate(), vec![sealed()], &b, 10, Owed),
            ("a", relocate(), vec![sealed()], &c, 3, Loose),
            ("a", relocate(), vec![sealed(), aborted()], &b, 10, Owed),
            ("a", relocate(), vec![sealed(), aborted()], &b, 3, Loose),
            ("b", relocate(), vec![sealed(), pivoted()], &a, 1, Owed),
            ("b", relocate(), vec![sealed(), pivoted()], &b, 10, Home),
            ("b", relocate(), vec![sealed(), pivoted()], &c, 3, Loose),
            ("b", relocate(), vec![sealed(), pivoted(), deleted()], &a, 1, Loose),
            ("b", relocate(), vec![sealed(), pivoted(), activated()], &a, 1, Owed),
            ("c", Plan::Collect { from: Some(a.clone()) }, vec![], &a, 1, Owed),
            ("c", Plan::Collect { from: Some(a.clone()) }, vec![], &b, 1, Loose),
            ("c", Plan::Assign { to: a.clone() }, vec![], &a, 1, Owed),
        ] {
            let this = moved(plan, &lines);
            let record = registration("d", Some(home));
            let found = left_over(hub, Some(&record), [&this].into_iter(), Order(found));
            assert_eq!(found, expected, "{hub} of {this:?}");
        }
    }
}
