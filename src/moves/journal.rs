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
    /// New home with the initial configuration, for a device whose old hub is unlinked or has lost it, so that nothing can
    /// be asked there. What was known of the old state stays in the history.
    Rehouse { from: HubId, to: HubId },
    /// As [`Plan::Rehouse`], with the newest state the service has seen (in the intent), which is of this time.
    Restore { from: HubId, to: HubId, seen_at: Timestamp },
    /// Set the twin back where it is; `credential` when the hub's is out of date too.
    ResetInPlace { at: HubId, credential: bool },
    /// Tell the hub a new credential.
    Refresh { at: HubId },
    /// End the registration; `from` is absent when it never had a home.
    Release { from: Option<HubId> },
    /// Takes what a hub has left of a device whose home is elsewhere into the history, and deletes it there. Home and
    /// operation stay as they are, whatever else runs. Without `from` nothing is left at a hub: the intent has the state.
    Collect { from: Option<HubId> },
}

/// What a new home starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carry {
    /// The state sealed at the old hub.
    State,
    /// The initial configuration.
    Initial,
    /// A state from the history, taken at this time (in the intent). What is sealed goes to the history.
    Planted { seen_at: Timestamp },
}

/// The newest state the service has seen of a device at its home.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownState {
    pub state: Box<DeviceState>,
    pub seen_at: Timestamp,
}

impl KnownState {
    /// The newest of several states of one home.
    ///
    /// Every write that a home accepts raises a version and none is ever lowered there, so the states of one home stand in
    /// a row, and how far each has come ([`crate::domain::Twin::progress`]) says where, whoever kept it and whatever the
    /// clocks said: a state sealed for a move that was given up gives way to what was seen of the home after it opened
    /// again, and stands above what was seen before. Time decides between states of the same writes alone, which differ
    /// at most in whether the device is let in.
    pub fn newest(of_one_home: impl IntoIterator<Item = KnownState>) -> Option<KnownState> {
        of_one_home.into_iter().max_by_key(|known| (known.state.twin.progress(), known.seen_at))
    }
}

/// Why a home is left without being sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bypass {
    /// Its hub does not answer, and the enrollment says that it is not waited for. It may accept late writes.
    Away,
    /// Its hub answered that it has no such device: there is nothing that could be written to.
    Missing,
}

impl Bypass {
    /// A stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Bypass::Away => "away",
            Bypass::Missing => "missing",
        }
    }
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
    /// A state that the service has from elsewhere: of an earlier move's journal, of the history, or the newest it has
    /// seen. What becomes of it is the plan's.
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
    /// The effect of a word, as [`Effect::as_str`] says it.
    pub fn parse(word: &str) -> Option<Self> {
        Effect::ALL.into_iter().find(|effect| effect.as_str() == word)
    }

    pub const ALL: [Effect; 9] = [
        Effect::Seal,
        Effect::Create,
        Effect::Withhold,
        Effect::UpdateCredential,
        Effect::Activate,
        Effect::Unseal,
        Effect::Delete,
        Effect::Collect,
        Effect::ReplaceTwin,
    ];

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
    /// Not owed any more, since a later move ordered something else of that hub.
    Dropped {
        effect: Effect,
        hub: HubId,
        why: String,
    },
    /// The old home is left without being sealed: what the new one starts with.
    Bypassed {
        cause: Bypass,
        /// Absent when nothing was known; only where the initial configuration is carried.
        known: Option<KnownState>,
        /// What the new home gets: the known state, or the initial configuration.
        carry: Carry,
    },
    /// The old hub answered after all, before the pivot: its sealed state is the one that counts. `clear`: the new home
    /// may have been made with the other state already, and is taken back first.
    Regained {
        state: Box<DeviceState>,
        clear: bool,
    },
    /// An operator orders anew what a hub had refused, as this effect.
    Retried {
        effect: Effect,
        hub: HubId,
        as_effect: Effect,
        by: String,
        why: String,
    },
    /// Not owed any more, since an operator gave it up: what it was for stays as it is at the hub.
    Abandoned {
        effect: Effect,
        hub: HubId,
        by: String,
        why: String,
        /// The hub cannot have obeyed it: it was refused, or it never got there.
        unheard: bool,
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
