//! The journal of a move: an append-only list of lines, from which alone the move can be taken up again.
//!
//! The first line is the intent; its order is the move's generation. A line is written before the effect that it orders.

use crate::domain::{
    Credential, DataSource, DeviceId, DeviceState, EnrollmentId, HubId, HubRefusal, InitialState, OperationId, Order,
    Pin, Reason, RegistrationId, ReprovisionPolicy, RequestId, SubStatus, Timestamp, TpmDelivery, UnreachableRule,
    Version,
};

/// One kind of work; each has its list of steps in [`super::plan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// The device's first home.
    Assign { to: HubId },
    /// The device's first home, at a hub that has a device of that name which nobody here knows of. What is found goes to
    /// the history and is replaced, or is taken over as it is (`adopt`).
    TakeOver { to: HubId, adopt: bool },
    /// Old home to new home, sealing the old one.
    Relocate { from: HubId, to: HubId, carry: Carry },
    /// New home for a device whose state is in the journal (of the move `source`) and whose home `from` never opened.
    Replant { from: HubId, to: HubId, source: Order },
    /// New home for a device whose old hub is unlinked, so that nothing can be asked of it.
    Rehouse { from: HubId, to: HubId },
    /// Set the twin back where it is; `credential` when the hub's is out of date too.
    ResetInPlace { at: HubId, credential: bool },
    /// Tell the hub a new credential.
    Refresh { at: HubId },
    /// End the registration; `from` is absent when it never had a home.
    Release { from: Option<HubId> },
}

/// What a new home starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carry {
    /// The state sealed at the old hub.
    State,
    /// The initial configuration.
    Initial,
}

/// Every input of a move, fixed when it starts: later edits of the enrollment affect the next operation only.
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    pub operation: OperationId,
    pub request_id: Option<RequestId>,
    /// Who asked: `device`, or an operator's name.
    pub by: String,
    pub registration: RegistrationId,
    pub device: DeviceId,
    pub plan: Plan,
    pub enrollment: EnrollmentId,
    pub enrollment_version: Version,
    /// `None` is sticky.
    pub policy: Option<ReprovisionPolicy>,
    pub sub_status: SubStatus,
    pub credential: Credential,
    pub initial: InitialState,
    /// The state to plant, where it comes from the journal of an earlier move.
    pub planted: Option<Box<DeviceState>>,
    pub unreachable: UnreachableRule,
    pub allow_late_writes: bool,
    /// What an unknown device found at a first home becomes: see [`Plan::TakeOver`].
    pub adopt_existing: bool,
    /// JSON text handed to the device with the assignment.
    pub payload: Option<String>,
    /// What is delivered with the assignment through the device's TPM, where it has one.
    pub tpm: Option<TpmDelivery>,
    /// The pin to be in force once the move is done.
    pub pin: Option<Pin>,
    /// One sentence: why this hub and why now.
    pub why: String,
}

/// A step of a plan, as the journal names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    Seal,
    Create,
    /// No call: the owed activation of a home that never opened is taken back.
    Withhold,
    UpdateCredential,
    Activate,
    Unseal,
    Delete,
    /// Seal, commit what is there as a late twin, delete.
    Collect,
    ReplaceTwin,
}

impl Effect {
    pub fn as_str(self) -> &'static str {
        match self {
            Effect::Seal => "seal",
            Effect::Create => "create",
            Effect::Withhold => "withhold",
            Effect::UpdateCredential => "update_credential",
            Effect::Activate => "activate",
            Effect::Unseal => "unseal",
            Effect::Delete => "delete",
            Effect::Collect => "collect",
            Effect::ReplaceTwin => "replace_twin",
        }
    }
}

/// What one line says.
#[derive(Debug, Clone, PartialEq)]
pub enum JournalRecord {
    Intent(Box<Intent>),
    /// A step before the pivot is done; `state` is what the hub answered (a seal).
    StepDone {
        effect: Effect,
        state: Option<Box<DeviceState>>,
    },
    /// The assignment has changed; what is owed to hubs follows from the plan.
    Pivoted {
        data_source: Option<DataSource>,
    },
    /// Given up before the pivot: never goes forward again. `spare_current`: the hub's refusal proves that the step that
    /// was due did not happen and cannot happen late, so it is not undone (a refused create must not delete whoever
    /// occupies the name).
    Aborted {
        reason: Reason,
        message: String,
        spare_current: bool,
    },
    /// A collect has read the left-over twin: the next call deletes it.
    Collected {
        hub: HubId,
        state: Option<Box<DeviceState>>,
    },
    /// What was owed is done; `state` is what a reset replaced.
    Settled {
        effect: Effect,
        hub: HubId,
        state: Option<Box<DeviceState>>,
    },
    /// A hub refused what it is owed: waits for a person.
    Stuck {
        effect: Effect,
        hub: HubId,
        refusal: HubRefusal,
    },
    /// Not owed any more, since a later move ordered something else of that hub, or an operator gave it up.
    Dropped {
        effect: Effect,
        hub: HubId,
        why: String,
    },
}

/// One line of a journal.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalLine {
    /// The order of the commit that wrote it.
    pub order: Order,
    pub at: Timestamp,
    pub record: JournalRecord,
}

/// All lines of one move, in order. The first is its intent.
#[derive(Debug, Clone, PartialEq)]
pub struct MoveLog {
    pub generation: Order,
    pub registration: RegistrationId,
    pub lines: Vec<JournalLine>,
}
