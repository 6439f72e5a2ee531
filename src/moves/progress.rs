//! One move as its journal tells it: a total function from line to line.
//!
//! ```text
//! Before(step 0) ─ StepDone ─► Before(step n) ─ Pivoted ─► After{owed} ─ Settled … ─► closed
//!      └──────────────┴─ Aborted ─► Undoing{owed} ─ Settled … ─► closed
//! ```

use crate::domain::{DataSource, DeviceState, HubId, HubRefusal, HubStatus, Order, Reason, Timestamp, Twin};

use super::journal::{Carry, Effect, Intent, JournalLine, JournalRecord, MoveLog, Plan};
use super::plan::Undo;

/// A line that cannot follow what stands before it: the journal is corrupt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the journal of move {generation} has a line at order {order} that cannot follow: {what}")]
pub struct Illegal {
    pub generation: Order,
    pub order: Order,
    pub what: &'static str,
}

/// Where an owed call stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwedState {
    Due,
    /// A collect that has read: what is left is to delete.
    Collected,
    /// The hub refused: waits for a person.
    Stuck(HubRefusal),
}

/// A call owed to a hub until it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    pub effect: Effect,
    pub hub: HubId,
    pub order: Order,
    pub since: Timestamp,
    pub awaited: bool,
    pub state: OwedState,
}

/// How far a move has come.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// `next` counts the plan's steps before the pivot.
    Before { next: usize },
    /// The assignment has changed.
    After { owed: Vec<Owed>, data_source: Option<DataSource> },
    /// Given up.
    Undoing { owed: Vec<Owed>, reason: Reason, message: String },
}

/// A move.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    pub generation: Order,
    pub intent: Box<Intent>,
    pub started_at: Timestamp,
    /// Of the last line before the pivot: what the next step's call is fenced by.
    pub order: Order,
    /// When that line was written.
    pub at: Timestamp,
    /// What the old hub answered when it was sealed.
    pub sealed: Option<Box<DeviceState>>,
    pub phase: Phase,
    /// The order of the very last line.
    pub last: Order,
}

impl Move {
    /// A move of which only the intent is written.
    pub fn begun(generation: Order, at: Timestamp, intent: Box<Intent>) -> Self {
        let mut this = Self {
            generation,
            intent,
            started_at: at,
            order: generation,
            at,
            sealed: None,
            phase: Phase::Before { next: 0 },
            last: generation,
        };
        if this.intent.plan.steps().before.is_empty() {
            this.phase = this.pivoted(generation, at, None);
        }
        this
    }

    /// Folds a whole journal.
    pub fn replay(log: MoveLog) -> Result<Self, Illegal> {
        let generation = log.generation;
        let mut lines = log.lines.into_iter();
        let first = lines.next();
        let Some(JournalLine { order, at, record: JournalRecord::Intent(intent) }) = first else {
            return Err(Illegal { generation, order: generation, what: "the first line is not an intent" });
        };
        if order != generation {
            return Err(Illegal { generation, order, what: "the intent has another order than its move" });
        }
        lines.try_fold(Self::begun(generation, at, intent), Self::apply)
    }

    /// The move after one more line.
    pub fn apply(mut self, line: JournalLine) -> Result<Self, Illegal> {
        let JournalLine { order, at, record } = line;
        let illegal = |what| Illegal { generation: self.generation, order, what };
        if order <= self.last {
            return Err(illegal("orders must rise"));
        }
        let last = order;
        match (self.phase, record) {
            (_, JournalRecord::Intent(_)) => return Err(illegal("a second intent")),
            (Phase::Before { next }, JournalRecord::StepDone { effect, state }) => {
                let before = self.intent.plan.steps().before;
                match before.get(next) {
                    Some(step) if step.effect == effect && next + 1 < before.len() => {
                        if state.is_some() {
                            self.sealed = state;
                        }
                        (self.order, self.at) = (order, at);
                        self.phase = Phase::Before { next: next + 1 };
                    }
                    Some(_) | None => return Err(illegal("not the step that was due")),
                }
            }
            (Phase::Before { next }, JournalRecord::Pivoted { data_source }) => {
                if next + 1 != self.intent.plan.steps().before.len() {
                    return Err(illegal("a pivot before its last step"));
                }
                self.phase = Phase::Before { next };
                self.phase = self.pivoted(order, at, data_source);
            }
            (Phase::Before { next }, JournalRecord::Aborted { reason, message, spare_current }) => {
                let begun = if spare_current { next } else { next + 1 };
                let owed = undo_of(&self.intent.plan, begun, order, at);
                self.phase = Phase::Undoing { owed, reason, message };
            }
            (
                Phase::Before { .. },
                JournalRecord::Collected { .. }
                | JournalRecord::Settled { .. }
                | JournalRecord::Stuck { .. }
                | JournalRecord::Dropped { .. },
            ) => return Err(illegal("nothing is owed before the pivot")),
            (
                Phase::After { .. } | Phase::Undoing { .. },
                JournalRecord::StepDone { .. } | JournalRecord::Pivoted { .. } | JournalRecord::Aborted { .. },
            ) => return Err(illegal("the pivot or the abort stands already")),
            (Phase::After { mut owed, data_source }, record) => {
                settle(&mut owed, record).map_err(illegal)?;
                self.phase = Phase::After { owed, data_source };
            }
            (Phase::Undoing { mut owed, reason, message }, record) => {
                settle(&mut owed, record).map_err(illegal)?;
                self.phase = Phase::Undoing { owed, reason, message };
            }
        }
        self.last = last;
        Ok(self)
    }

    fn pivoted(&self, order: Order, at: Timestamp, data_source: Option<DataSource>) -> Phase {
        let plan = &self.intent.plan;
        let owed = plan.steps().after.iter().filter_map(|duty| {
            let hub = plan.hub(duty.side)?.clone();
            Some(Owed { effect: duty.effect, hub, order, since: at, awaited: duty.awaited, state: OwedState::Due })
        });
        Phase::After { owed: owed.collect(), data_source }
    }

    /// What is owed to hubs now.
    pub fn owed(&self) -> &[Owed] {
        match &self.phase {
            Phase::Before { .. } => &[],
            Phase::After { owed, .. } | Phase::Undoing { owed, .. } => owed,
        }
    }

    /// Nothing is owed any more.
    pub fn is_closed(&self) -> bool {
        match &self.phase {
            Phase::Before { .. } => false,
            Phase::After { owed, .. } | Phase::Undoing { owed, .. } => owed.is_empty(),
        }
    }

    /// It ended the registration: what is older belongs to an earlier life of the device.
    pub fn ends_a_life(&self) -> bool {
        matches!(self.intent.plan, Plan::Release { .. })
    }

    /// The operation is over: the device can be told its end.
    pub fn is_told(&self) -> bool {
        match &self.phase {
            Phase::Before { .. } => false,
            Phase::Undoing { .. } => true,
            Phase::After { owed, .. } => {
                owed.iter().all(|owed| !owed.awaited || matches!(owed.state, OwedState::Stuck(_)))
            }
        }
    }

    /// The refusal that keeps the operation from ending well.
    pub fn awaited_refusal(&self) -> Option<(&Owed, &HubRefusal)> {
        self.owed().iter().filter(|owed| owed.awaited).find_map(|owed| match &owed.state {
            OwedState::Stuck(refusal) => Some((owed, refusal)),
            OwedState::Due | OwedState::Collected => None,
        })
    }

    /// What a new home is created with; a pure function of the journal, so that a repeat is the same call.
    /// `None` when the plan carries a state that was never sealed.
    pub fn arriving_state(&self) -> Option<DeviceState> {
        let initial = &self.intent.initial;
        let fresh = || DeviceState {
            twin: Twin::initial(initial, self.at),
            capabilities: initial.capabilities,
            status: HubStatus::Enabled,
        };
        match &self.intent.plan {
            Plan::Assign { .. } | Plan::TakeOver { .. } | Plan::Rehouse { .. } => Some(fresh()),
            Plan::Relocate { carry: Carry::State, .. } => self.sealed.as_deref().cloned(),
            Plan::Replant { .. } => self.intent.planted.as_deref().cloned(),
            Plan::Relocate { carry: Carry::Initial, .. } => self.sealed.as_deref().map(|sealed| DeviceState {
                twin: sealed.twin.reset(initial, self.at),
                capabilities: initial.capabilities,
                status: sealed.status.clone(),
            }),
            Plan::ResetInPlace { .. } | Plan::Refresh { .. } | Plan::Release { .. } => None,
        }
    }
}

/// The undo of the first `begun` steps.
fn undo_of(plan: &Plan, begun: usize, order: Order, at: Timestamp) -> Vec<Owed> {
    let begun = plan.steps().before.iter().take(begun);
    begun
        .filter_map(|step| match step.undo {
            Undo::Nothing(_) => None,
            Undo::Call(effect) => {
                let hub = plan.hub(step.side)?.clone();
                Some(Owed { effect, hub, order, since: at, awaited: false, state: OwedState::Due })
            }
        })
        .collect()
}

fn settle(owed: &mut Vec<Owed>, record: JournalRecord) -> Result<(), &'static str> {
    let find = |owed: &[Owed], effect: Effect, hub: &HubId| {
        owed.iter().position(|item| item.effect == effect && item.hub == *hub).ok_or("settles what is not owed")
    };
    match record {
        JournalRecord::Settled { effect, hub, .. } | JournalRecord::Dropped { effect, hub, .. } => {
            let at = find(owed, effect, &hub)?;
            owed.remove(at);
        }
        JournalRecord::Collected { hub, .. } => {
            let at = find(owed, Effect::Collect, &hub)?;
            owed[at].state = OwedState::Collected;
        }
        JournalRecord::Stuck { effect, hub, refusal } => {
            let at = find(owed, effect, &hub)?;
            owed[at].state = OwedState::Stuck(refusal);
        }
        JournalRecord::Intent(_)
        | JournalRecord::StepDone { .. }
        | JournalRecord::Pivoted { .. }
        | JournalRecord::Aborted { .. } => return Err("not a line about what is owed"),
    }
    Ok(())
}
