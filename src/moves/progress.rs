//! One move as its journal tells it: a total function from line to line.
//!
//! ```text
//! Before(step 0) ─ StepDone ─► Before(step n) ─ Pivoted ─► After{owed} ─ Settled … ─► closed
//!      └──────────────┴─ Aborted ─► Undoing{owed} ─ Settled … ─► closed
//!
//! Before(seal) ─ Bypassed ─► Before(create, the seal goes on beside it) ─ Pivoted ─► After{activate, collect}
//!                                 └─ Regained ─► Before(delete what was created) ─ StepDone ─► Before(create) …
//! ```

use crate::domain::{DataSource, DeviceState, HubId, HubRefusal, HubStatus, MustSeal, Order, Reason, Timestamp, Twin};

use super::journal::{Bypass, Carry, Effect, Intent, JournalLine, JournalRecord, KnownState, MoveLog, Plan};
use super::plan::{Side, Undo};

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

/// A home left without being sealed.
#[derive(Debug, Clone, PartialEq)]
pub struct Bypassed {
    pub cause: Bypass,
    pub known: Option<KnownState>,
    pub carry: Carry,
    /// Of the line: fences the seal that goes on beside, and the hub's own when its lease runs again.
    pub order: Order,
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
    /// The old home was not sealed.
    pub bypassed: Option<Bypassed>,
    /// What was made at the target with another state is taken back before the step that is due.
    pub clearing: bool,
    /// The home that it brought the device to is gone for good and cannot have opened: the state in this journal is all
    /// that there ever was of it.
    pub unopened: bool,
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
            bypassed: None,
            clearing: false,
            unopened: false,
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
            (Phase::Before { next }, JournalRecord::StepDone { effect: Effect::Delete, state: None })
                if self.clearing =>
            {
                (self.order, self.at, self.clearing) = (order, at, false);
                self.phase = Phase::Before { next };
            }
            (Phase::Before { .. }, JournalRecord::StepDone { .. } | JournalRecord::Pivoted { .. }) if self.clearing => {
                return Err(illegal("what was made is taken back first"));
            }
            (Phase::Before { next: 0 }, JournalRecord::Bypassed { cause, known, carry })
                if matches!(self.intent.plan, Plan::Relocate { .. }) =>
            {
                (self.order, self.at) = (order, at);
                self.bypassed = Some(Bypassed { cause, known, carry, order });
                self.phase = Phase::Before { next: 1 };
            }
            (Phase::Before { next }, JournalRecord::Regained { state, clear }) if self.bypassed.is_some() => {
                (self.order, self.at, self.clearing) = (order, at, clear);
                (self.sealed, self.bypassed) = (Some(state), None);
                self.phase = Phase::Before { next };
            }
            (_, JournalRecord::Bypassed { .. } | JournalRecord::Regained { .. }) => {
                return Err(illegal("nothing is sealed now that could be bypassed or regained"));
            }
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
                | JournalRecord::Dropped { .. }
                | JournalRecord::Retried { .. }
                | JournalRecord::Abandoned { .. },
            ) => return Err(illegal("nothing is owed before the pivot")),
            (
                Phase::After { .. } | Phase::Undoing { .. },
                JournalRecord::StepDone { .. } | JournalRecord::Pivoted { .. } | JournalRecord::Aborted { .. },
            ) => return Err(illegal("the pivot or the abort stands already")),
            (Phase::After { mut owed, data_source }, record) => {
                if let JournalRecord::Abandoned {
                    effect: Effect::Activate | Effect::Unseal, hub, unheard: true, ..
                } = &record
                {
                    self.unopened |= self.intent.plan.hub(Side::To) == Some(hub);
                }
                settle(&mut owed, record, order, at).map_err(illegal)?;
                self.phase = Phase::After { owed, data_source };
            }
            (Phase::Undoing { mut owed, reason, message }, record) => {
                settle(&mut owed, record, order, at).map_err(illegal)?;
                self.phase = Phase::Undoing { owed, reason, message };
            }
        }
        self.last = last;
        Ok(self)
    }

    fn pivoted(&self, order: Order, at: Timestamp, data_source: Option<DataSource>) -> Phase {
        let plan = &self.intent.plan;
        let owed = plan.duties(self.bypassed.is_some()).filter_map(|duty| {
            let hub = plan.hub(duty.side)?.clone();
            Some(Owed { effect: duty.effect, hub, order, since: at, awaited: duty.awaited, state: OwedState::Due })
        });
        Phase::After { owed: owed.collect(), data_source }
    }

    /// What the bypassed hub must seal before its lease runs again, as long as the bypass stands: until the old home is
    /// sealed, or the move is given up. Of this move's generation and not of the old home's own: a home that the device
    /// gets there later has a higher one, every earlier one a lower.
    pub fn bypass(&self) -> Option<(HubId, MustSeal)> {
        let bypassed = self.bypassed.as_ref().filter(|it| it.cause == Bypass::Away)?;
        let from = self.intent.plan.hub(Side::From)?;
        let stands = match &self.phase {
            Phase::Before { .. } => true,
            Phase::After { owed, .. } => {
                owed.iter().any(|it| it.effect == Effect::Collect && it.state != OwedState::Collected)
            }
            Phase::Undoing { .. } => false,
        };
        let device = self.intent.device.clone();
        let must = MustSeal { device, generation: self.generation, order: bypassed.order };
        stands.then(|| (from.clone(), must))
    }

    /// The hub that may still accept late writes of a device that lives elsewhere by now.
    pub fn split_at(&self) -> Option<HubId> {
        match self.phase {
            Phase::After { .. } => self.bypass().map(|(hub, _)| hub),
            Phase::Before { .. } | Phase::Undoing { .. } => None,
        }
    }

    /// The state that this move brought to the device's home, and when: known to be what the device had, though the hub
    /// may have accepted writes since. Initial configurations are not *seen*: they say nothing about the device.
    pub fn brought_state(&self) -> Option<KnownState> {
        let Phase::After { data_source, .. } = &self.phase else { return None };
        let carried = match (&self.intent.plan, data_source) {
            // The home never opened, so whatever was to arrive there is what the device has.
            (_, _) if self.unopened => true,
            (_, Some(DataSource::Initial) | None) => false,
            (
                Plan::Relocate { .. }
                | Plan::Replant { .. }
                | Plan::Restore { .. }
                | Plan::TakeOver { adopt: true, .. },
                Some(DataSource::Sealed | DataSource::LastKnown { .. }),
            ) => true,
            (
                Plan::Assign { .. }
                | Plan::TakeOver { adopt: false, .. }
                | Plan::Rehouse { .. }
                | Plan::ResetInPlace { .. }
                | Plan::Refresh { .. }
                | Plan::Release { .. }
                | Plan::Collect { .. },
                Some(DataSource::Sealed | DataSource::LastKnown { .. }),
            ) => false,
        };
        let seen_at = match data_source {
            Some(DataSource::LastKnown { seen_at }) => *seen_at,
            Some(DataSource::Sealed | DataSource::Initial) | None => self.at,
        };
        let state = self.arriving_state().filter(|_| carried)?;
        Some(KnownState { state: Box::new(state), seen_at })
    }

    /// What this move, given up since, had sealed at the home that it was to leave. See [`KnownState::newest`].
    pub fn sealed_at(&self, home: &HubId) -> Option<KnownState> {
        let Plan::Relocate { from, .. } = &self.intent.plan else { return None };
        let state = self.sealed.clone().filter(|_| from == home && matches!(self.phase, Phase::Undoing { .. }))?;
        Some(KnownState { state, seen_at: self.at })
    }

    /// The newest state of the old home that this move's own journal has, and when it was taken.
    pub fn left_state(&self) -> Option<KnownState> {
        let known = self.bypassed.as_ref().and_then(|bypassed| bypassed.known.clone());
        let own = |state: &DeviceState, seen_at| KnownState { state: Box::new(state.clone()), seen_at };
        let planted = || match &self.intent.plan {
            Plan::Restore { seen_at, .. } => self.intent.planted.as_deref().map(|state| own(state, *seen_at)),
            Plan::Rehouse { .. } | Plan::Replant { .. } | Plan::Collect { .. } => {
                self.intent.planted.as_deref().map(|state| own(state, self.started_at))
            }
            Plan::Assign { .. }
            | Plan::TakeOver { .. }
            | Plan::Relocate { .. }
            | Plan::ResetInPlace { .. }
            | Plan::Refresh { .. }
            | Plan::Release { .. } => None,
        };
        self.sealed.as_deref().map(|state| own(state, self.at)).or(known).or_else(planted)
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

    /// It cleans up beside whatever the device's last operation is, and says nothing of that.
    pub fn is_aside(&self) -> bool {
        matches!(self.intent.plan, Plan::Collect { .. })
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
    ///
    /// Where the old home was not sealed, its hub may have accepted writes that nobody here has seen, and may have shown
    /// their versions to whoever follows the twin. What arrives goes on above them ([`Twin::ahead_of_lost_writes`]), also
    /// where nothing at all was known, or it would be taken for older and ignored.
    pub fn arriving_state(&self) -> Option<DeviceState> {
        let initial = &self.intent.initial;
        let fresh = || DeviceState {
            twin: Twin::initial(initial, self.at),
            capabilities: initial.capabilities,
            status: HubStatus::Enabled,
        };
        // The initial configuration after an old state: versions never go down, and *disabled* stays.
        let reset = |old: &DeviceState| DeviceState {
            twin: old.twin.reset(initial, self.at),
            capabilities: initial.capabilities,
            status: old.status.clone(),
        };
        let ahead = |state: DeviceState| DeviceState { twin: state.twin.ahead_of_lost_writes(), ..state };
        match &self.intent.plan {
            Plan::Assign { .. } | Plan::TakeOver { adopt: false, .. } => Some(fresh()),
            Plan::TakeOver { adopt: true, .. } => self.sealed.as_deref().cloned(),
            Plan::Rehouse { .. } => Some(ahead(self.intent.planted.as_deref().map_or_else(fresh, reset))),
            Plan::Restore { .. } => self.intent.planted.as_deref().cloned().map(ahead),
            Plan::Replant { .. } => self.intent.planted.as_deref().cloned(),
            Plan::Relocate { carry, .. } => {
                let (old, carry) = match &self.bypassed {
                    None => (Some(self.sealed.as_deref()?), *carry),
                    Some(bypassed) => (bypassed.known.as_ref().map(|known| &*known.state), bypassed.carry),
                };
                let arriving = match carry {
                    Carry::State => old.cloned(),
                    Carry::Initial => Some(old.map_or_else(fresh, reset)),
                    Carry::Planted { .. } => {
                        let planted = self.intent.planted.as_deref()?;
                        Some(old.map_or_else(|| planted.clone(), |old| restored(planted, old, self.at)))
                    }
                };
                if self.bypassed.is_some() { arriving.map(ahead) } else { arriving }
            }
            Plan::ResetInPlace { .. } | Plan::Refresh { .. } | Plan::Release { .. } | Plan::Collect { .. } => None,
        }
    }
}

/// A state of the history put back: its documents, above the versions of the one it replaces, which also says whether the
/// device is let in.
fn restored(planted: &DeviceState, old: &DeviceState, at: Timestamp) -> DeviceState {
    DeviceState {
        twin: planted.twin.restored_over(&old.twin, at),
        capabilities: planted.capabilities,
        status: old.status.clone(),
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

fn settle(owed: &mut Vec<Owed>, record: JournalRecord, order: Order, now: Timestamp) -> Result<(), &'static str> {
    let find = |owed: &[Owed], effect: Effect, hub: &HubId| {
        owed.iter().position(|item| item.effect == effect && item.hub == *hub).ok_or("settles what is not owed")
    };
    match record {
        JournalRecord::Settled { effect, hub, .. }
        | JournalRecord::Dropped { effect, hub, .. }
        | JournalRecord::Abandoned { effect, hub, .. } => {
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
        JournalRecord::Retried { effect, hub, as_effect, .. } => {
            let at = find(owed, effect, &hub)?;
            if !matches!(owed[at].state, OwedState::Stuck(_)) {
                return Err("orders anew what no hub has refused");
            }
            owed[at] = Owed { effect: as_effect, order, since: now, state: OwedState::Due, ..owed[at].clone() };
        }
        JournalRecord::Intent(_)
        | JournalRecord::StepDone { .. }
        | JournalRecord::Pivoted { .. }
        | JournalRecord::Aborted { .. }
        | JournalRecord::Bypassed { .. }
        | JournalRecord::Regained { .. } => return Err("not a line about what is owed"),
    }
    Ok(())
}
