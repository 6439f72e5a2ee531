//! What an open move means to the store: which hubs it names, whether a device is on its way, and whether the operation
//! behind it is still under way. Folded from the journal's lines alone, so that it can always be made again.

use crate::domain::{HubId, Order, RegistrationId};
use crate::moves::{Effect, Intent, JournalRecord, MoveLog, Plan};

/// How far the operation behind a move is. Clean-up may keep a move open long after its operation is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Neither pivoted nor aborted.
    Deciding,
    /// Pivoted; the new home is not open yet.
    Opening,
    /// Aborted, or pivoted with nothing left that the device waits for.
    Finished,
}

/// An open move as the store keeps it in mind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenMove {
    pub generation: Order,
    pub registration: RegistrationId,
    from: Option<HubId>,
    to: Option<HubId>,
    stage: Stage,
}

impl OpenMove {
    /// A move whose only line is its intent.
    pub fn begin(generation: Order, intent: &Intent) -> Self {
        let (from, to) = ends(&intent.plan);
        Self { generation, registration: intent.registration.clone(), from, to, stage: Stage::Deciding }
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
            | JournalRecord::Dropped { .. } => return None,
        };
        rest.iter().for_each(|line| open.note(&line.record));
        Some(open)
    }

    /// Takes one more line into account.
    pub fn note(&mut self, record: &JournalRecord) {
        match record {
            JournalRecord::Pivoted { .. } => {
                self.stage = if self.to.is_some() { Stage::Opening } else { Stage::Finished };
            }
            JournalRecord::Aborted { .. } => self.stage = Stage::Finished,
            JournalRecord::Settled { effect, hub, .. } | JournalRecord::Dropped { effect, hub, .. } => {
                let opens_home = *effect == Effect::Activate && self.to.as_ref() == Some(hub);
                if self.stage == Stage::Opening && opens_home {
                    self.stage = Stage::Finished;
                }
            }
            JournalRecord::Intent(_)
            | JournalRecord::StepDone { .. }
            | JournalRecord::Collected { .. }
            | JournalRecord::Stuck { .. } => {}
        }
    }

    /// The operation is not finished: the device is being *assigned*.
    pub fn is_under_way(&self) -> bool {
        match self.stage {
            Stage::Deciding | Stage::Opening => true,
            Stage::Finished => false,
        }
    }

    /// The hub the device is on its way to. From the pivot on it lives there, so it is not counted twice; an aborted
    /// move arrives nowhere.
    pub fn arriving_at(&self) -> Option<&HubId> {
        match self.stage {
            Stage::Deciding => self.to.as_ref(),
            Stage::Opening | Stage::Finished => None,
        }
    }

    /// Every hub it names, each once, in whatever role.
    pub fn hubs(&self) -> impl Iterator<Item = &HubId> {
        let to = self.to.as_ref().filter(|to| self.from.as_ref() != Some(to));
        self.from.iter().chain(to)
    }
}

/// Where a plan takes the device from, and the new home it brings it to. A plan that stays in place brings it nowhere.
fn ends(plan: &Plan) -> (Option<HubId>, Option<HubId>) {
    match plan {
        Plan::Assign { to } => (None, Some(to.clone())),
        Plan::Relocate { from, to, carry: _ } | Plan::Replant { from, to, source: _ } | Plan::Rehouse { from, to } => {
            (Some(from.clone()), Some(to.clone()))
        }
        Plan::ResetInPlace { at, credential: _ } | Plan::Refresh { at } => (Some(at.clone()), None),
        Plan::Release { from } => (from.clone(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{aborted, dropped, hub_id, intent, pivoted, reg_id, settled};
    use super::*;
    use crate::moves::Carry;

    /// (under way, arriving, named)
    fn check(plan: Plan, lines: &[JournalRecord]) -> (bool, Option<String>, Vec<String>) {
        let mut open = OpenMove::begin(Order(1), &intent(&reg_id("d"), plan));
        lines.iter().for_each(|line| open.note(line));
        let text = |hub: &HubId| hub.as_str().to_owned();
        (open.is_under_way(), open.arriving_at().map(text), open.hubs().map(text).collect())
    }

    #[test]
    fn what_a_move_means_line_by_line() {
        let (a, b) = (hub_id("a"), hub_id("b"));
        let assign = || Plan::Assign { to: b.clone() };
        let relocate = || Plan::Relocate { from: a.clone(), to: b.clone(), carry: Carry::State };
        let refresh = || Plan::Refresh { at: a.clone() };
        let release = |from: Option<&HubId>| Plan::Release { from: from.cloned() };
        for (plan, lines, under_way, arriving, named) in [
            (assign(), vec![], true, Some("b"), vec!["b"]),
            (relocate(), vec![], true, Some("b"), vec!["a", "b"]),
            (relocate(), vec![pivoted()], true, None, vec!["a", "b"]),
            (relocate(), vec![pivoted(), settled(Effect::Collect, &a)], true, None, vec!["a", "b"]),
            (relocate(), vec![pivoted(), settled(Effect::Activate, &b)], false, None, vec!["a", "b"]),
            (relocate(), vec![pivoted(), dropped(Effect::Activate, &b)], false, None, vec!["a", "b"]),
            (relocate(), vec![aborted()], false, None, vec!["a", "b"]),
            (relocate(), vec![aborted(), settled(Effect::Delete, &b)], false, None, vec!["a", "b"]),
            (refresh(), vec![], true, None, vec!["a"]),
            (refresh(), vec![pivoted()], false, None, vec!["a"]),
            (release(Some(&a)), vec![], true, None, vec!["a"]),
            (release(None), vec![pivoted()], false, None, vec![]),
        ] {
            let expected = (under_way, arriving.map(str::to_owned), named.into_iter().map(str::to_owned).collect());
            assert_eq!(check(plan.clone(), &lines), expected, "{plan:?} {lines:?}");
        }
    }
}
