//! How a device stands, as people and devices are told: derived from its record and its open moves, by the store's
//! readers and by its actor alike.

use std::fmt;

use crate::domain::{
    Assignment, DataSource, DeviceId, EnrollmentId, HubId, HubRefusal, Operation, OperationStatus, Order, Pin, Reason,
    Registration, RegistrationId, ReprovisionPolicy, Timestamp, TpmDelivery, Version,
};

use super::journal::{Bypass, Effect, JournalRecord, KnownState, MoveLog, Plan};
use super::progress::{Illegal, Move, OwedState, Phase};

/// The step a running move is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub generation: Order,
    /// The plan's word.
    pub plan: &'static str,
    pub from: Option<HubId>,
    pub to: Option<HubId>,
    /// What is being asked of which hub.
    pub effect: Effect,
    pub hub: HubId,
    pub started_at: Timestamp,
    /// Since when this step is due.
    pub since: Timestamp,
}

/// Clean-up still owed to a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obligation {
    pub generation: Order,
    pub effect: Effect,
    pub hub: HubId,
    pub since: Timestamp,
    /// The refusal it is stuck on.
    pub stuck: Option<HubRefusal>,
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub id: RegistrationId,
    pub device_id: DeviceId,
    pub enrollment: EnrollmentId,
    /// The policy of the last operation; `None` is sticky.
    pub policy: Option<ReprovisionPolicy>,
    /// The running operation, else the last one.
    pub operation: Operation,
    pub assignment: Option<Assignment>,
    pub running: Option<Running>,
    pub obligations: Vec<Obligation>,
    /// Hubs that may still accept late writes of the device, since they were left without being sealed.
    pub split: Vec<HubId>,
    pub pin: Option<Pin>,
    /// JSON text.
    pub payload: Option<String>,
    /// What the last assignment delivered through a TPM.
    pub tpm: Option<TpmDelivery>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Of the record; absent while the first assignment runs.
    pub version: Version,
}

impl Standing {
    /// `None` for a device that has neither a record nor an open move that is its own (clean-up after a deletion alone
    /// is not a device).
    pub fn of<'a>(
        registration: Option<&Registration>,
        moves: impl DoubleEndedIterator<Item = &'a Move> + Clone,
    ) -> Option<Self> {
        let mut of_this_life = moves.clone().rev().take_while(|this| !this.ends_a_life());
        let running = of_this_life.find(|this| !this.is_told());
        let obligations = moves.clone().flat_map(obligations_of).collect();
        // A move that pivoted but whose activation was refused: the record says assigned, the device must not be told so.
        let newest = moves.clone().rev().find(|this| !this.is_aside());
        let refused = newest.filter(|this| this.is_told()).and_then(|this| {
            let (owed, refusal) = this.awaited_refusal()?;
            let message = format!("hub {} refused to {}: {refusal}", owed.hub, owed.effect.as_str());
            Some(OperationStatus::Failed { reason: Reason::HubRefused, message })
        });
        let mut this = match (registration, running) {
            (Some(record), _) => Self::of_record(record),
            (None, Some(running)) => Self::of_first(running),
            (None, None) => return None,
        };
        this.obligations = obligations;
        this.split = moves.clone().filter_map(Move::split_at).collect();
        if let Some(running) = running {
            this.operation = operation_of(running);
            this.policy = running.intent.policy;
            this.updated_at = running.at;
            this.running = running_of(running);
        } else if let Some(status) = refused {
            this.operation.status = status;
        }
        Some(this)
    }

    /// As [`Standing::of`], from journals that were read.
    pub fn read(registration: Option<&Registration>, open: Vec<MoveLog>) -> Result<Option<Self>, Illegal> {
        let moves = open.into_iter().map(Move::replay).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::of(registration, moves.iter()))
    }

    /// An abort has not yet opened the old home again.
    pub fn is_unsealing(&self) -> bool {
        self.obligations.iter().any(|owed| owed.effect == Effect::Unseal)
    }

    fn of_record(record: &Registration) -> Self {
        Self {
            id: record.id.clone(),
            device_id: record.device_id.clone(),
            enrollment: record.enrollment.clone(),
            policy: record.policy,
            operation: record.operation.clone(),
            assignment: record.assignment.clone(),
            running: None,
            obligations: Vec::new(),
            split: Vec::new(),
            pin: record.pin.clone(),
            payload: record.payload.clone(),
            tpm: record.tpm.clone(),
            created_at: record.created_at,
            updated_at: record.updated_at,
            version: record.version,
        }
    }

    fn of_first(running: &Move) -> Self {
        let intent = &running.intent;
        Self {
            id: intent.registration.clone(),
            device_id: intent.device.clone(),
            enrollment: intent.enrollment.clone(),
            policy: intent.policy,
            operation: operation_of(running),
            assignment: None,
            running: None,
            obligations: Vec::new(),
            split: Vec::new(),
            pin: None,
            payload: None,
            tpm: None,
            created_at: running.started_at,
            updated_at: running.at,
            version: Version::ABSENT,
        }
    }
}

fn operation_of(running: &Move) -> Operation {
    Operation {
        id: running.intent.operation,
        status: OperationStatus::Assigning,
        request_id: running.intent.request_id.clone(),
        started_at: running.started_at,
        updated_at: running.at,
    }
}

fn running_of(running: &Move) -> Option<Running> {
    let plan = &running.intent.plan;
    let (effect, hub, since) = match &running.phase {
        Phase::Before { next } => {
            let step = plan.steps().before.get(*next)?;
            (step.effect, plan.hub(step.side)?.clone(), running.at)
        }
        Phase::After { owed, .. } | Phase::Undoing { owed, .. } => {
            let owed = owed.iter().find(|owed| owed.awaited)?;
            (owed.effect, owed.hub.clone(), owed.since)
        }
    };
    Some(Running {
        generation: running.generation,
        plan: plan.as_str(),
        from: plan.hub(super::plan::Side::From).cloned(),
        to: plan.hub(super::plan::Side::To).cloned(),
        effect,
        hub,
        started_at: running.started_at,
        since,
    })
}

fn obligations_of(this: &Move) -> impl Iterator<Item = Obligation> {
    this.owed().iter().filter(|owed| !owed.awaited || matches!(owed.state, OwedState::Stuck(_))).map(|owed| {
        Obligation {
            generation: this.generation,
            effect: owed.effect,
            hub: owed.hub.clone(),
            since: owed.since,
            stuck: match &owed.state {
                OwedState::Stuck(refusal) => Some(refusal.clone()),
                OwedState::Due | OwedState::Collected => None,
            },
        }
    })
}

/// One remembered move, as its journal tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Episode {
    /// The move's generation: names it in history and undo.
    pub generation: Order,
    pub at: Timestamp,
    /// `device`, or an operator's name.
    pub by: String,
    pub plan: &'static str,
    pub from: Option<HubId>,
    pub to: Option<HubId>,
    pub why: String,
    pub ended: Ending,
    pub data_source: Option<DataSource>,
    /// A device state stands in the journal: sealed, replaced, collected, or the newest that was known.
    pub has_state: bool,
    /// The old home was left without being sealed, and why.
    pub bypassed: Option<Bypass>,
    /// It may still accept late writes.
    pub split: bool,
    /// What was owed to hubs and was given up by an operator.
    pub abandoned: Vec<Abandoned>,
}

/// A debt that an operator gave up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abandoned {
    pub effect: Effect,
    pub hub: HubId,
    pub by: String,
    pub why: String,
}

impl fmt::Display for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}, by {}: {}", self.effect.as_str(), self.hub, self.by, self.why)
    }
}

/// What a hub that was bypassed held when it was collected at last.
pub fn late_twin(log: &MoveLog) -> Option<KnownState> {
    log.lines.iter().find_map(|line| match &line.record {
        JournalRecord::Collected { state, .. } => state.clone().map(|state| KnownState { state, seen_at: line.at }),
        JournalRecord::Intent(_)
        | JournalRecord::StepDone { .. }
        | JournalRecord::Pivoted { .. }
        | JournalRecord::Aborted { .. }
        | JournalRecord::Settled { .. }
        | JournalRecord::Stuck { .. }
        | JournalRecord::Dropped { .. }
        | JournalRecord::Bypassed { .. }
        | JournalRecord::Regained { .. }
        | JournalRecord::Retried { .. }
        | JournalRecord::Abandoned { .. } => None,
    })
}

/// How a remembered move ended so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Running,
    Done,
    Aborted,
    /// The store was put back to a time when it ran: what became of it is not known, its journal is kept for what it sealed.
    Unknown,
}

impl Ending {
    pub fn as_str(self) -> &'static str {
        match self {
            Ending::Running => "running",
            Ending::Done => "done",
            Ending::Aborted => "aborted",
            Ending::Unknown => "unknown",
        }
    }
}

impl Episode {
    /// As [`Episode::read`], of a move that is closed: whatever its journal ends with, it does not run.
    pub fn read_closed(log: MoveLog) -> Result<Self, Illegal> {
        let this = Self::read(log)?;
        let ended = match this.ended {
            Ending::Running => Ending::Unknown,
            ended @ (Ending::Done | Ending::Aborted | Ending::Unknown) => ended,
        };
        Ok(Self { ended, ..this })
    }

    pub fn read(log: MoveLog) -> Result<Self, Illegal> {
        let has_state = log.lines.iter().any(|line| match &line.record {
            JournalRecord::StepDone { state, .. }
            | JournalRecord::Collected { state, .. }
            | JournalRecord::Settled { state, .. } => state.is_some(),
            JournalRecord::Regained { .. } => true,
            JournalRecord::Bypassed { known, .. } => known.is_some(),
            JournalRecord::Intent(intent) => match intent.plan {
                Plan::Rehouse { .. } | Plan::Restore { .. } | Plan::Collect { .. } => intent.planted.is_some(),
                Plan::Assign { .. }
                | Plan::TakeOver { .. }
                | Plan::Relocate { .. }
                | Plan::Replant { .. }
                | Plan::ResetInPlace { .. }
                | Plan::Refresh { .. }
                | Plan::Release { .. } => false,
            },
            JournalRecord::Pivoted { .. }
            | JournalRecord::Aborted { .. }
            | JournalRecord::Stuck { .. }
            | JournalRecord::Dropped { .. }
            | JournalRecord::Retried { .. }
            | JournalRecord::Abandoned { .. } => false,
        });
        let abandoned = log.lines.iter().filter_map(|line| match &line.record {
            JournalRecord::Abandoned { effect, hub, by, why, unheard: _ } => {
                Some(Abandoned { effect: *effect, hub: hub.clone(), by: by.clone(), why: why.clone() })
            }
            JournalRecord::Intent(_)
            | JournalRecord::StepDone { .. }
            | JournalRecord::Pivoted { .. }
            | JournalRecord::Aborted { .. }
            | JournalRecord::Collected { .. }
            | JournalRecord::Settled { .. }
            | JournalRecord::Stuck { .. }
            | JournalRecord::Dropped { .. }
            | JournalRecord::Bypassed { .. }
            | JournalRecord::Regained { .. }
            | JournalRecord::Retried { .. } => None,
        });
        let abandoned = abandoned.collect();
        let this = Move::replay(log)?;
        let (ended, data_source) = match &this.phase {
            Phase::Before { .. } => (Ending::Running, None),
            Phase::After { data_source, .. } => (Ending::Done, *data_source),
            Phase::Undoing { .. } => (Ending::Aborted, None),
        };
        let plan = &this.intent.plan;
        Ok(Self {
            generation: this.generation,
            at: this.started_at,
            by: this.intent.by.clone(),
            plan: plan.as_str(),
            from: plan.hub(super::plan::Side::From).cloned(),
            to: plan.hub(super::plan::Side::To).cloned(),
            why: this.intent.why.clone(),
            ended,
            data_source,
            has_state,
            bypassed: this.bypassed.as_ref().map(|bypassed| bypassed.cause),
            split: this.split_at().is_some(),
            abandoned,
        })
    }
}
