//! What an open move means to the store: which hubs it names, whether a device is on its way, and whether the operation
//! behind it is still under way. Folded from the journal's lines alone, so that it can always be made again.
//!
//! It says what [`crate::moves::Move`] says, without the twins and intents that one holds: it is kept for every open move.

use crate::domain::{DeviceId, HubId, Order, RegistrationId};
use crate::moves::plan::Side;
use crate::moves::{Effect, Intent, JournalLine, JournalRecord, MoveLog};

/// How far the operation behind a move is. Clean-up may keep a move open long after its operation is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Before,
    Pivoted,
    Aborted,
}

/// A call that the device waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Awaited {
    effect: Effect,
    hub: HubId,
    stuck: bool,
}

/// An open move as the store keeps it in mind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenMove {
    pub generation: Order,
    pub registration: RegistrationId,
    pub device: DeviceId,
    /// The order of its last line.
    pub last: Order,
    hubs: Vec<HubId>,
    arrives_at: Option<HubId>,
    /// What is left of what the device waits for after the pivot.
    awaited: Vec<Awaited>,
    stage: Stage,
}

impl OpenMove {
    /// A move whose only line is its intent.
    pub fn begin(generation: Order, intent: &Intent) -> Self {
        let plan = &intent.plan;
        let steps = plan.steps();
        let mut hubs: Vec<HubId> =
            [Side::From, Side::To].into_iter().filter_map(|side| plan.hub(side).cloned()).collect();
        hubs.dedup();
        let awaited = steps.after.iter().filter(|duty| duty.awaited).filter_map(|duty| {
            let hub = plan.hub(duty.side)?.clone();
            Some(Awaited { effect: duty.effect, hub, stuck: false })
        });
        Self {
            generation,
            registration: intent.registration.clone(),
            device: intent.device.clone(),
            last: generation,
            hubs,
            arrives_at: plan.arrives_at().cloned(),
            awaited: awaited.collect(),
            stage: if steps.before.is_empty() { Stage::Pivoted } else { Stage::Before },
        }
    }

    /// A move from all its lines; `None` when the first is not an intent.
    pub fn of(log: &MoveLog) -> Option<Self> {
        let (first, rest) = log.lines.split_first()?;
        let mut open = match &first.record {
            JournalRecord::Intent(intent) => Self::begin(log.generation, intent),
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
            | JournalRecord::Abandoned { .. } => return None,
        };
        rest.iter().for_each(|line| open.note(line));
        Some(open)
    }

    /// Takes one more line into account.
    pub fn note(&mut self, line: &JournalLine) {
        self.last = line.order;
        match &line.record {
            JournalRecord::Pivoted { .. } => self.stage = Stage::Pivoted,
            JournalRecord::Aborted { .. } => self.stage = Stage::Aborted,
            JournalRecord::Settled { effect, hub, .. }
            | JournalRecord::Dropped { effect, hub, .. }
            | JournalRecord::Abandoned { effect, hub, .. } => {
                self.awaited.retain(|awaited| awaited.effect != *effect || awaited.hub != *hub);
                // A move owes one hub one thing at most: with it given up, nothing ties the hub to the move.
                if let JournalRecord::Abandoned { .. } = &line.record {
                    self.hubs.retain(|named| named != hub);
                }
            }
            JournalRecord::Stuck { effect, hub, .. } => {
                let of_line = |awaited: &&mut Awaited| awaited.effect == *effect && awaited.hub == *hub;
                self.awaited.iter_mut().filter(of_line).for_each(|awaited| awaited.stuck = true);
            }
            JournalRecord::Retried { effect, hub, as_effect, .. } => {
                let of_line = |awaited: &&mut Awaited| awaited.effect == *effect && awaited.hub == *hub;
                for awaited in self.awaited.iter_mut().filter(of_line) {
                    (awaited.effect, awaited.stuck) = (*as_effect, false);
                }
            }
            JournalRecord::Intent(_)
            | JournalRecord::StepDone { .. }
            | JournalRecord::Collected { .. }
            | JournalRecord::Bypassed { .. }
            | JournalRecord::Regained { .. } => {}
        }
    }

    /// The operation is not finished: the device is being *assigned*.
    pub fn is_under_way(&self) -> bool {
        match self.stage {
            Stage::Before => true,
            Stage::Pivoted => self.awaited.iter().any(|awaited| !awaited.stuck),
            Stage::Aborted => false,
        }
    }

    /// The operation is finished, but the device cannot be told so: the hub refused what it waits for.
    pub fn is_refused(&self) -> bool {
        self.stage == Stage::Pivoted && !self.is_under_way() && !self.awaited.is_empty()
    }

    /// The hub the device is on its way to. From the pivot on it lives there, so it is not counted twice; an aborted
    /// move arrives nowhere.
    pub fn arriving_at(&self) -> Option<&HubId> {
        match self.stage {
            Stage::Before => self.arrives_at.as_ref(),
            Stage::Pivoted | Stage::Aborted => None,
        }
    }

    /// Every hub it names, each once, in whatever role.
    pub fn hubs(&self) -> impl Iterator<Item = &HubId> {
        self.hubs.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{NOW, aborted, dropped, hub_id, intent, pivoted, reg_id, settled, stuck};
    use super::*;
    use crate::moves::{Carry, Move, Plan};

    fn log(plan: Plan, lines: &[JournalRecord]) -> MoveLog {
        let intent = intent(&reg_id("d"), plan);
        let lines = std::iter::once(JournalRecord::Intent(Box::new(intent))).chain(lines.iter().cloned());
        let lines = (1..).zip(lines).map(|(order, record)| JournalLine { order: Order(order), at: NOW, record });
        MoveLog { generation: Order(1), registration: reg_id("d"), lines: lines.collect() }
    }

    #[test]
    fn what_a_move_means_line_by_line() {
        let (a, b) = (hub_id("a"), hub_id("b"));
        let assign = || Plan::Assign { to: b.clone() };
        let relocate = || Plan::Relocate { from: a.clone(), to: b.clone(), carry: Carry::State };
        let reset = |credential| Plan::ResetInPlace { at: a.clone(), credential };
        let refresh = || Plan::Refresh { at: a.clone() };
        let release = |from: Option<&HubId>| Plan::Release { from: from.cloned() };
        let sealed = || JournalRecord::StepDone { effect: Effect::Seal, state: None };
        let (activated, replaced) = (|| settled(Effect::Activate, &b), || settled(Effect::ReplaceTwin, &a));
        for (plan, lines, under_way, refused, arriving, named) in [
            (assign(), vec![], true, false, Some("b"), "b"),
            (relocate(), vec![], true, false, Some("b"), "a b"),
            (relocate(), vec![sealed()], true, false, Some("b"), "a b"),
            (relocate(), vec![sealed(), pivoted()], true, false, None, "a b"),
            (relocate(), vec![sealed(), pivoted(), settled(Effect::Delete, &a)], true, false, None, "a b"),
            (relocate(), vec![sealed(), pivoted(), activated()], false, false, None, "a b"),
            (relocate(), vec![sealed(), pivoted(), dropped(Effect::Activate, &b)], false, false, None, "a b"),
            (relocate(), vec![sealed(), pivoted(), stuck(Effect::Activate, &b)], false, true, None, "a b"),
            (relocate(), vec![sealed(), pivoted(), stuck(Effect::Delete, &a)], true, false, None, "a b"),
            (relocate(), vec![aborted()], false, false, None, "a b"),
            (relocate(), vec![aborted(), settled(Effect::Unseal, &a)], false, false, None, "a b"),
            (reset(false), vec![], true, false, None, "a"),
            (reset(false), vec![replaced()], false, false, None, "a"),
            (reset(true), vec![], true, false, None, "a"),
            (reset(true), vec![pivoted()], true, false, None, "a"),
            (reset(true), vec![pivoted(), replaced()], false, false, None, "a"),
            (refresh(), vec![], true, false, None, "a"),
            (refresh(), vec![pivoted()], false, false, None, "a"),
            (release(Some(&a)), vec![], false, false, None, "a"),
            (release(None), vec![], false, false, None, ""),
        ] {
            let log = log(plan, &lines);
            let open = OpenMove::of(&log).unwrap();
            let hubs: Vec<&str> = open.hubs().map(HubId::as_str).collect();
            let found = (open.is_under_way(), open.is_refused(), open.arriving_at().map(HubId::as_str), hubs.join(" "));
            assert_eq!(found, (under_way, refused, arriving, named.to_owned()), "{log:?}");
            // The whole fold says the same.
            let whole = Move::replay(log).unwrap();
            let said = (!whole.is_told(), whole.is_told() && whole.awaited_refusal().is_some(), whole.last);
            assert_eq!((open.is_under_way(), open.is_refused(), open.last), said, "{whole:?}");
        }
    }
}
