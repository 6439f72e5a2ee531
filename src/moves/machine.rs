//! The machine of one device: which call or commit is due next, and what a finished call means.
//!
//! Pure: it is told what happened and what time it is, and answers what to commit and what to call. An actor and a
//! simulation drive it in the same way:
//!
//! ```text
//! begin / finished / due  ─►  Commit  ─►  (the store)  ─►  applied  ─►  due  ─►  calls  ─►  (the hub)  ─►  finished …
//! ```
//!
//! **Why no effect runs before its commit.** A call is derived from the journal alone: [`Machine::due`] looks at lines that
//! are durable, and the order on a call is the order of the line that ordered it. What is not committed is not due.
//!
//! **Why an aborted move never goes forward.** The abort is a line; after it the fold has no step before the pivot left, so
//! no `create` or pivot can become due, whatever is still in flight. A late answer of such a call finds nothing due and is
//! ignored; the hub itself refuses a late *call*, since the undo carried a higher order.
//!
//! **Why a restart is safe.** In-flight calls and pauses are not journaled: after a load every due call is made again with
//! the same order, which a hub answers as before. Only [`Machine::replantable`] needs to know that a call was *never* made,
//! and it counts every call that was due at the load as one that may have been.
//!
//! **Superseding.** A new move that *leaves* its home X voids older debts `activate` and `unseal` at X in the commit of its
//! intent: its own calls to X carry higher orders, so the older ones could only be refused as stale, and its own undo opens
//! X again. What a given-up move had sealed at X stays in the history, since the new move may have to do without X
//! (`keep_sealed`). A `replace_twin` is settled first: what it replaced is in its answer and nowhere else. A move that
//! *stays* at X (a refresh, a reset in place) opens nothing: it waits until X is open
//! ([`Machine::is_home_closed`] keeps it from beginning), or the device would have no home that accepts writes. Clean-up
//! (`delete`, `collect`) owed *at the target* is settled before the first step; clean-up elsewhere goes on beside the move.

mod bypass;
mod resolve;

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::time::Duration;

use crate::domain::{
    Assignment, AuditAction, AuditEntry, CallFault, CallOutcome, DataSource, DeviceId, DeviceState, EkHash,
    EnrollmentId, HubAnswer, HubCall, HubEffect, HubId, HubRefusal, MustSeal, NewDevice, Operation, OperationStatus,
    Order, Past, Reason, Registration, RegistrationId, SubStatus, Timestamp, UnreachableRule, Version, limits,
};

use super::journal::{Bypass, Carry, Effect, Intent, JournalLine, JournalRecord, MoveLog, Plan};
use super::plan::{Side, Step, Undo};
use super::progress::{Bypassed, Illegal, Move, Owed, OwedState, Phase};

pub use resolve::{Resolve, Unresolved, Way};

/// What must hold when a move starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// The enrollment that was judged, at the version that was judged.
    pub enrollment: Option<(EnrollmentId, Version)>,
    /// The place that is taken at the target.
    pub takes: Option<Place>,
    /// The hub that the move starts at is still linked.
    pub from: Option<HubId>,
    /// The device id is nobody else's, and stays so while the move runs.
    pub device: Option<DeviceId>,
    /// A group decided, so no enrollment of the device's own may stand before it (it might be a disabled one).
    pub no_individual: Option<RegistrationId>,
    /// A group decided, so nor may one that claims the device's endorsement key, under whatever id.
    pub unclaimed: Option<EkHash>,
}

/// A place at a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub hub: HubId,
    /// An operator pinned the device there: neither the hub's capacity nor its state is asked.
    pub pinned: bool,
}

/// What becomes of the registration's record.
#[derive(Debug, Clone, PartialEq)]
pub enum RecordChange {
    Keep,
    /// At its version, which the store raises.
    Put(Box<Registration>),
    Delete {
        version: Version,
        past: Past,
    },
}

/// One durable step of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    pub registration: RegistrationId,
    pub at: Timestamp,
    pub expect: Preconditions,
    /// The open moves and their last lines as this commit knows them: two machines of one device cannot both go on.
    pub seen: Vec<(Order, Order)>,
    /// The record that this commit was decided on: its version, and the generation of its home. A first home is none of
    /// the store's business before it is there, so a machine that has seen neither record nor moves must not begin one
    /// for a device that has settled meanwhile; versions alone start again with every life of a registration.
    pub stands: (Version, Option<Order>),
    /// At most one line of each move. Without a generation: the intent of a new one.
    pub lines: Vec<(Option<Order>, JournalRecord)>,
    pub close: Vec<Order>,
    /// Closed moves whose lines are not history.
    pub forget: Vec<Order>,
    pub record: RecordChange,
    pub audit: Vec<AuditEntry>,
}

/// Names one due call. Equal keys are the same call, made again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallKey {
    pub generation: Order,
    pub order: Order,
    pub effect: Effect,
    pub hub: HubId,
    /// The second half of a collect.
    pub deleting: bool,
}

/// What is due now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Due {
    /// To be performed; each comes back through [`Machine::finished`].
    pub calls: Vec<(CallKey, HubCall)>,
    /// To be committed first: a deadline has passed, or a step needs no call.
    pub commit: Option<Box<Commit>>,
    /// The newest state known of the device at a hub is needed: to be handed to [`Machine::recalled`]. Nothing else is
    /// said beside it.
    pub recall: Option<Recall>,
    /// The hub's lease must have ended before the step after the bypass: [`Machine::lease_ended`].
    pub end_lease: Option<EndLease>,
    /// When to ask again though nothing has finished.
    pub wake_at: Option<Timestamp>,
}

/// A question for the newest state the service has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recall {
    pub generation: Order,
    pub hub: HubId,
    pub why: Bypass,
}

/// A wish that a hub which was bypassed holds no lease any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndLease {
    pub generation: Order,
    pub hub: HubId,
    pub must_seal: MustSeal,
}

/// How often a call was tried, as far as this machine knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tries {
    pub attempts: u32,
    pub next_at: Timestamp,
    /// When the last one failed.
    pub failed_at: Option<Timestamp>,
    /// It may have reached the hub.
    pub may_have_happened: bool,
    /// The hub answered that it has no such device, where it should.
    pub missing: bool,
    pub last_fault: Option<String>,
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Machine {
    id: RegistrationId,
    registration: Option<Registration>,
    moves: BTreeMap<Order, Move>,
    earlier: Past,
    in_flight: BTreeSet<CallKey>,
    tries: BTreeMap<CallKey, Tries>,
    leases: BTreeMap<Order, Lease>,
    /// How long an old hub may not answer before it can be passed by: [`limits::BYPASS_AFTER`] unless an operator has said
    /// otherwise.
    pub away_after: Duration,
}

/// What is known of the lease of a hub that a move has bypassed. Not journaled: a restart asks again, and the hub's actor
/// then counts from its own start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lease {
    Asked,
    Ended { at: Timestamp },
}

impl Machine {
    /// Takes a device up from what the store has.
    pub fn load(
        id: RegistrationId,
        registration: Option<Registration>,
        open: Vec<MoveLog>,
        earlier: Past,
    ) -> Result<Self, Illegal> {
        let moves = open
            .into_iter()
            .map(|log| Move::replay(log).map(|this| (this.generation, this)))
            .collect::<Result<BTreeMap<_, _>, _>>()?;
        let (in_flight, tries, leases) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        let away_after = limits::BYPASS_AFTER;
        let mut this = Self { id, registration, moves, earlier, in_flight, tries, leases, away_after };
        for key in this.due_keys() {
            this.tries.insert(key, Tries { may_have_happened: true, ..Tries::default() });
        }
        Ok(this)
    }

    pub fn id(&self) -> &RegistrationId {
        &self.id
    }

    pub fn registration(&self) -> Option<&Registration> {
        self.registration.as_ref()
    }

    /// Generations kept from an earlier life of the registration.
    pub fn earlier(&self) -> &Past {
        &self.earlier
    }

    /// Open moves, oldest first.
    pub fn moves(&self) -> btree_map::Values<'_, Order, Move> {
        self.moves.values()
    }

    /// An open move by its generation.
    pub fn open_move(&self, generation: Order) -> Option<&Move> {
        self.moves.get(&generation)
    }

    /// The move whose operation is not over; a second register joins it.
    pub fn running(&self) -> Option<&Move> {
        let mut of_this_life = self.moves.values().rev().take_while(|this| !this.ends_a_life());
        of_this_life.find(|this| !this.is_told())
    }

    fn is_running(&self, this: &Move) -> bool {
        self.running().is_some_and(|running| running.generation == this.generation)
    }

    /// Nothing runs, nothing is due, nothing is in flight: the machine can be forgotten and loaded again when needed.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.running().is_none() && self.due_keys().is_empty()
    }

    /// How the calls that are due fare: for people.
    pub fn tries(&self) -> impl Iterator<Item = (&CallKey, &Tries)> {
        self.tries.iter()
    }

    /// The running move whose new home never opened: its activation was refused, or every try of it failed before it
    /// reached the hub. A new move may start from its journal.
    pub fn replantable(&self) -> Option<&Move> {
        let this = self.moves.values().rev().find(|this| !this.is_aside())?;
        let Phase::After { owed, .. } = &this.phase else { return None };
        let activation = owed.iter().find(|owed| owed.effect == Effect::Activate && owed.awaited)?;
        let free = match &activation.state {
            OwedState::Stuck(_) => true,
            OwedState::Due | OwedState::Collected => {
                let key = owed_key(this, activation);
                !self.in_flight.contains(&key)
                    && self.tries.get(&key).is_some_and(|tries| tries.attempts > 0 && !tries.may_have_happened)
            }
        };
        (free && this.arriving_state().is_some()).then_some(this)
    }

    /// The home accepts no writes yet: an undo (or an activation that a hub refused) has still to open it. Nothing that
    /// leaves the device there may begin meanwhile, and nobody may be told *assigned*.
    pub fn is_home_closed(&self) -> bool {
        let Some(home) = self.registration.as_ref().and_then(|record| record.assignment.as_ref()) else { return false };
        self.moves
            .values()
            .flat_map(Move::owed)
            .any(|owed| owed.hub == home.hub && matches!(owed.effect, Effect::Unseal | Effect::Activate))
    }

    /// The commit that starts a move.
    pub fn begin(&self, intent: Box<Intent>, expect: Preconditions, now: Timestamp) -> Commit {
        let mut commit = self.blank_commit(now);
        commit.expect = expect;
        commit.expect.device = intent.plan.arrives_at().map(|_| intent.device.clone());
        commit.expect.from = match &intent.plan {
            Plan::Relocate { from, .. }
            | Plan::Replant { from, .. }
            | Plan::Release { from: Some(from) }
            | Plan::Collect { from: Some(from) } => Some(from.clone()),
            Plan::ResetInPlace { at, .. } | Plan::Refresh { at } => Some(at.clone()),
            Plan::Rehouse { from, to } | Plan::Restore { from, to, .. } => (from == to).then(|| to.clone()),
            Plan::Assign { .. }
            | Plan::TakeOver { .. }
            | Plan::Release { from: None }
            | Plan::Collect { from: None } => None,
        };
        if let Plan::Collect { .. } = intent.plan {
            self.set_aside(&mut commit);
            commit.lines.push((None, JournalRecord::Intent(intent)));
            return commit;
        }
        commit.audit.push(self.audit(&intent, AuditAction::RegistrationStarted, intent.why.clone(), now));
        if intent.plan.steps().before.is_empty() {
            self.pivot_record(&intent, None, None, now, &mut commit);
        }
        self.supersede(&intent, &mut commit);
        commit.lines.push((None, JournalRecord::Intent(intent)));
        commit
    }

    /// Keeps a move that only cleans up in the history; the record is not touched otherwise.
    fn set_aside(&self, commit: &mut Commit) {
        let Some(record) = &self.registration else { return };
        let mut record = record.clone();
        record.past.push(OWN_ORDER);
        self.keep_bounded(&mut record.past, commit);
        commit.record = RecordChange::Put(Box::new(record));
    }

    /// Debts of older moves that this move's own orders void.
    fn supersede(&self, intent: &Intent, commit: &mut Commit) {
        let home = match &intent.plan {
            Plan::Relocate { from, .. }
            | Plan::Replant { from, .. }
            | Plan::Rehouse { from, .. }
            | Plan::Restore { from, .. }
            | Plan::Release { from: Some(from) } => from,
            Plan::Assign { .. }
            | Plan::TakeOver { .. }
            | Plan::ResetInPlace { .. }
            | Plan::Refresh { .. }
            | Plan::Release { from: None }
            | Plan::Collect { .. } => return,
        };
        for this in self.moves.values() {
            let void = this.owed().iter().find(|owed| owed.hub == *home && is_void_once_left(owed));
            let Some(void) = void else { continue };
            self.keep_sealed(this, void, commit);
            if this.owed().len() == 1 {
                self.close(this, commit);
            } else {
                let why = format!("a later move ({}) orders {home}", intent.plan.as_str());
                let record = JournalRecord::Dropped { effect: void.effect, hub: home.clone(), why };
                commit.lines.push((Some(this.generation), record));
            }
        }
    }

    /// The commit that gives the running move up, when it has not pivoted yet.
    pub fn give_up(&self, reason: Reason, message: String, now: Timestamp) -> Option<Commit> {
        let this = self.running().filter(|this| matches!(this.phase, Phase::Before { .. }))?;
        Some(self.abort(this, reason, message, false, now))
    }

    /// A commit that changes the record alone: a finished operation without a move (failed, disabled, payload, pin).
    pub fn record_only(
        &self,
        record: Registration,
        expect: Preconditions,
        audit: AuditEntry,
        now: Timestamp,
    ) -> Commit {
        let mut commit = self.blank_commit(now);
        commit.expect = expect;
        // A first record takes its device id: were another device on its way under that name, its pivot could never be
        // written.
        if self.registration.is_none() {
            commit.expect.device = Some(record.device_id.clone());
        }
        commit.record = RecordChange::Put(Box::new(record));
        commit.audit.push(audit);
        commit
    }

    /// The call behind a key. `None` only when a plan carries a state that was never sealed, which no plan does.
    fn call_of(&self, this: &Move, key: &CallKey) -> Option<HubCall> {
        let effect = match key.effect {
            Effect::Seal => HubEffect::Seal,
            Effect::Create => HubEffect::Create(Box::new(NewDevice {
                generation: this.generation,
                credential: this.intent.credential.clone(),
                state: this.arriving_state()?,
            })),
            Effect::Withhold => return None,
            Effect::UpdateCredential => self.credential_call(&this.intent),
            Effect::Activate => HubEffect::Activate,
            Effect::Unseal => HubEffect::Unseal,
            // A create that never arrived must not cost whoever has the name there his twin.
            Effect::Delete if this.clearing || matches!(this.phase, Phase::Undoing { .. }) => {
                HubEffect::Discard(this.generation)
            }
            Effect::Delete => HubEffect::Delete,
            Effect::Collect if key.deleting => HubEffect::Delete,
            Effect::Collect => HubEffect::Seal,
            Effect::ReplaceTwin => HubEffect::ReplaceTwin(Box::new(this.intent.initial.clone())),
        };
        Some(HubCall { hub: key.hub.clone(), device: this.intent.device.clone(), order: key.order, effect })
    }

    /// Keys that were delivered earlier stay good at the hub until a newer one is used, but only those of the same TPM: where
    /// another one comes in its place, or in that of whoever was found there, they end at once.
    fn credential_call(&self, intent: &Intent) -> HubEffect {
        let credential = intent.credential.clone();
        let known = self.registration.as_ref().and_then(|record| record.tpm.as_ref());
        let is_same = known.map(|tpm| tpm.ek) == intent.tpm.as_ref().map(|tpm| tpm.ek);
        if is_same { HubEffect::UpdateCredential(credential) } else { HubEffect::ReplaceCredential(credential) }
    }

    /// An entry of the audit log and nothing else.
    pub fn note(&self, audit: AuditEntry, now: Timestamp) -> Commit {
        let mut commit = self.blank_commit(now);
        commit.audit.push(audit);
        commit
    }

    /// What a finished call means. `None`: nothing to write (a pause before the next try, or an answer nobody waits for).
    pub fn finished(&mut self, key: &CallKey, outcome: CallOutcome, now: Timestamp) -> Option<Commit> {
        self.in_flight.remove(key);
        if !self.due_keys().contains(key) {
            return None;
        }
        let this = self.moves.get(&key.generation)?;
        match outcome {
            Ok(answer) => {
                let state = match answer {
                    HubAnswer::Done => None,
                    HubAnswer::State(state) => Some(state),
                };
                Some(self.done(this, key, state, now))
            }
            // It has nothing, or something else is in the way: the bypass stands, and may be pivoted on.
            Err(CallFault::Refused(refusal)) if is_beside_bypass(this, key) => {
                self.pause(key, refusal.to_string(), true, now);
                None
            }
            // The home has lost its device. What follows needs the newest state the service has seen.
            Err(CallFault::Refused(refusal @ HubRefusal::NoSuchDevice))
                if must_be_there(this, key) && self.is_running(this) =>
            {
                self.pause(key, refusal.to_string(), true, now);
                if let Some(tries) = self.tries.get_mut(key) {
                    tries.missing = true;
                }
                None
            }
            Err(CallFault::Refused(refusal)) => Some(self.refused(this, key, refusal, now)),
            Err(CallFault::Unavailable(fault)) => {
                self.pause(key, fault, false, now);
                self.deadline_commit(now)
            }
            Err(CallFault::Unknown(fault)) => {
                self.pause(key, fault, true, now);
                self.deadline_commit(now)
            }
        }
    }

    fn pause(&mut self, key: &CallKey, fault: String, may_have_happened: bool, now: Timestamp) {
        let tries = self.tries.entry(key.clone()).or_default();
        tries.attempts = tries.attempts.saturating_add(1);
        tries.may_have_happened |= may_have_happened;
        tries.last_fault = Some(fault);
        tries.failed_at = Some(now);
        tries.next_at = now.plus(pause_after(key, tries.attempts));
    }

    /// What to do now. Calls that are returned count as in flight until they finish.
    pub fn due(&mut self, now: Timestamp) -> Due {
        if let Some(commit) = self.callless_step(now).or_else(|| self.deadline_commit(now)) {
            return Due { commit: Some(Box::new(commit)), ..Due::default() };
        }
        let keys = self.due_keys();
        self.tries.retain(|key, _| keys.contains(key));
        if let Some(recall) = self.recall() {
            return Due { recall: Some(recall), ..Due::default() };
        }
        let mut due = Due { end_lease: self.lease_to_end(), ..Due::default() };
        let mut wake = |at: Timestamp| due.wake_at = Some(due.wake_at.map_or(at, |earlier| earlier.min(at)));
        if let Some(deadline) = self.running().and_then(|this| self.deadline_of(this)) {
            wake(deadline);
        }
        let bypass_at = self.bypass_at();
        for key in keys {
            if self.in_flight.contains(&key) || self.waits_for_lease(&key) {
                continue;
            }
            // No pause is longer than the longest, even when the clock has gone back since it was set.
            let longest = now.plus(limits::RETRY_MAX * 2);
            let (mut next_at, failed_at) = self
                .tries
                .get(&key)
                .map_or((Timestamp(i64::MIN), None), |tries| (tries.next_at.min(longest), tries.failed_at));
            // A hub is asked once more before it is passed by.
            if let Some(at) = bypass_at.filter(|at| key.effect == Effect::Seal && failed_at.is_none_or(|it| it < *at)) {
                next_at = next_at.min(at);
            }
            if next_at > now {
                wake(next_at);
                continue;
            }
            let Some(call) = self.moves.get(&key.generation).and_then(|this| self.call_of(this, &key)) else {
                continue;
            };
            self.tries.entry(key.clone()).or_default();
            self.in_flight.insert(key.clone());
            due.calls.push((key, call));
        }
        due
    }

    /// Takes in a commit that has become durable under `order`.
    pub fn applied(&mut self, commit: &Commit, order: Order) -> Result<(), Illegal> {
        for (generation, record) in &commit.lines {
            let line = JournalLine { order, at: commit.at, record: record.clone() };
            match (generation, &line.record) {
                (None, JournalRecord::Intent(intent)) => {
                    self.moves.insert(order, Move::begun(order, commit.at, intent.clone()));
                }
                (None, _) => return Err(Illegal { generation: order, order, what: "a move begins without an intent" }),
                (Some(generation), _) => {
                    let Some(this) = self.moves.remove(generation) else {
                        return Err(Illegal { generation: *generation, order, what: "the move is not open" });
                    };
                    self.moves.insert(*generation, this.apply(line)?);
                }
            }
        }
        for generation in &commit.close {
            self.moves.remove(generation);
        }
        match &commit.record {
            RecordChange::Keep => {}
            RecordChange::Put(record) => {
                let mut record = (**record).clone();
                record.version = record.version.next();
                name_own_order(&mut record.past, order);
                self.registration = Some(record);
            }
            RecordChange::Delete { past, .. } => {
                self.registration = None;
                self.earlier = past.clone();
                name_own_order(&mut self.earlier, order);
            }
        }
        Ok(())
    }

    /// A step that needs no call is done as soon as it is due; a move that owes nothing is closed.
    fn callless_step(&self, now: Timestamp) -> Option<Commit> {
        if let Some(this) = self.moves.values().find(|this| this.is_closed()) {
            let mut commit = self.blank_commit(now);
            self.close(this, &mut commit);
            return Some(commit);
        }
        let this = self.running()?;
        let step = due_step(this)?;
        match step.effect {
            Effect::Withhold => {
                let mut commit = self.blank_commit(now);
                let record = JournalRecord::StepDone { effect: step.effect, state: None };
                commit.lines.push((Some(this.generation), record));
                Some(commit)
            }
            Effect::Seal
            | Effect::Create
            | Effect::UpdateCredential
            | Effect::Activate
            | Effect::Unseal
            | Effect::Delete
            | Effect::Collect
            | Effect::ReplaceTwin => None,
        }
    }

    fn deadline_commit(&self, now: Timestamp) -> Option<Commit> {
        let this = self.running()?;
        let step = due_step(this)?;
        let hub = this.intent.plan.hub(step.side)?;
        if self.deadline_of(this)? > now {
            return None;
        }
        let message = match self.first_to_settle(this) {
            Some(first) => format!("hub {first} could not be reached in time to take back what it has of the device"),
            None => format!("hub {hub} could not be reached in time to {}", step.effect.as_str()),
        };
        Some(self.abort(this, Reason::HubUnavailable, message, false, now))
    }

    /// Every call that the journals order and that is not done, whether in flight or not.
    fn due_keys(&self) -> BTreeSet<CallKey> {
        let mut keys = BTreeSet::new();
        for this in self.moves.values() {
            if let Some(step) = due_step(this)
                && !self.must_settle_first(this)
                && step.effect != Effect::Withhold
                && let Some(hub) = this.intent.plan.hub(step.side)
            {
                let effect = if this.clearing { Effect::Delete } else { step.effect };
                let key = |effect, hub: &HubId| CallKey {
                    generation: this.generation,
                    order: this.order,
                    effect,
                    hub: hub.clone(),
                    deleting: false,
                };
                keys.insert(key(effect, hub));
                if let (Some(Bypass::Away), Some(from)) = (cause_of(this), this.intent.plan.hub(Side::From)) {
                    keys.insert(key(Effect::Seal, from));
                }
            }
            if (this.ends_a_life() || this.is_aside()) && self.must_settle_first(this) {
                continue;
            }
            let due = this.owed().iter().filter(|owed| !matches!(owed.state, OwedState::Stuck(_)));
            keys.extend(due.map(|owed| owed_key(this, owed)));
        }
        keys
    }

    /// Whether something must be settled before the first step (DESIGN 7, step 1b): see [`Machine::first_to_settle`].
    fn must_settle_first(&self, this: &Move) -> bool {
        self.first_to_settle(this).is_some()
    }

    /// The hub at which an older move has to settle something before this one may begin: its target, while that is owed
    /// clean-up; a home that a release gave up, as long as it is not known to be sealed, since it accepts writes and the
    /// device would have two; and the home it leaves, while a reset there may have happened, whose answer alone has what
    /// was replaced. Mere clean-up overtakes nothing that is owed at its hub.
    fn first_to_settle(&self, this: &Move) -> Option<&HubId> {
        let (leaves, arrives) = (this.intent.plan.hub(Side::From), this.intent.plan.arrives_at());
        let older = self.moves.values().filter(|other| other.generation < this.generation);
        let mut owed = older.flat_map(|other| other.owed().iter().map(move |owed| (other, owed)));
        let blocks = |(other, owed): &(&Move, &Owed)| {
            let at_target = arrives == Some(&owed.hub) && matches!(owed.effect, Effect::Delete | Effect::Collect);
            let given_up = other.ends_a_life() && owed.effect == Effect::Collect;
            let is_reset = owed.effect == Effect::ReplaceTwin && owed.state == OwedState::Due;
            at_target
                || (this.is_aside() && leaves == Some(&owed.hub))
                || (arrives.is_some() && given_up && owed.state != OwedState::Collected)
                || (leaves == Some(&owed.hub) && is_reset)
        };
        owed.find(blocks).map(|(_, owed)| &owed.hub)
    }

    fn done(&self, this: &Move, key: &CallKey, state: Option<Box<DeviceState>>, now: Timestamp) -> Commit {
        let mut commit = self.blank_commit(now);
        if let Phase::Before { next } = this.phase {
            let before = this.intent.plan.steps().before;
            if is_beside_bypass(this, key)
                && let Some(state) = state
            {
                let clear = self.may_have_created(this);
                commit.lines.push((Some(this.generation), JournalRecord::Regained { state, clear }));
            } else if this.clearing {
                let record = JournalRecord::StepDone { effect: Effect::Delete, state: None };
                commit.lines.push((Some(this.generation), record));
            } else if next + 1 < before.len() {
                commit.lines.push((Some(this.generation), JournalRecord::StepDone { effect: key.effect, state }));
            } else {
                let data_source = data_source_of(&this.intent.plan, this.bypassed.as_ref());
                self.pivot_record(&this.intent, Some(this.generation), data_source, now, &mut commit);
                if this.intent.plan.steps().after.is_empty() {
                    self.close(this, &mut commit);
                } else {
                    commit.lines.push((Some(this.generation), JournalRecord::Pivoted { data_source }));
                }
            }
            return commit;
        }
        let first_half = key.effect == Effect::Collect && !key.deleting;
        if first_half {
            commit.lines.push((Some(this.generation), JournalRecord::Collected { hub: key.hub.clone(), state }));
        } else if this.owed().len() == 1 && state.is_none() {
            self.close(this, &mut commit);
        } else {
            let record = JournalRecord::Settled { effect: key.effect, hub: key.hub.clone(), state };
            commit.lines.push((Some(this.generation), record));
            if this.owed().len() == 1 {
                self.close(this, &mut commit);
            }
        }
        commit
    }

    fn refused(&self, this: &Move, key: &CallKey, refusal: HubRefusal, now: Timestamp) -> Commit {
        if let (Plan::Assign { to }, Phase::Before { .. }, HubRefusal::Occupied) =
            (&this.intent.plan, &this.phase, &refusal)
        {
            return self.take_over(this, to.clone(), now);
        }
        if this.clearing && refusal == HubRefusal::NoSuchDevice {
            return self.done(this, key, None, now);
        }
        if matches!(this.phase, Phase::Before { .. }) {
            let message = format!("hub {} refused to {}: {refusal}", key.hub, key.effect.as_str());
            return self.abort(this, Reason::HubRefused, message, spares(&refusal), now);
        }
        // The registration has ended since: nobody makes the device again that was to be set back.
        let ended = key.effect == Effect::ReplaceTwin && !self.is_running(this);
        let nothing_left =
            refusal == HubRefusal::NoSuchDevice && (ended || matches!(key.effect, Effect::Collect | Effect::Delete));
        if nothing_left {
            return self.done(this, &CallKey { deleting: true, ..key.clone() }, None, now);
        }
        let mut commit = self.blank_commit(now);
        let what = format!("hub {} refused to {}: {refusal}", key.hub, key.effect.as_str());
        let mut audit = self.audit(&this.intent, AuditAction::ObligationStuck, what, now);
        audit.hub = Some(key.hub.clone());
        commit.audit.push(audit);
        let record = JournalRecord::Stuck { effect: key.effect, hub: key.hub.clone(), refusal };
        commit.lines.push((Some(this.generation), record));
        commit
    }

    /// The first home has a device of that name which nobody here knows of: the same operation goes on by another plan.
    fn take_over(&self, this: &Move, to: HubId, now: Timestamp) -> Commit {
        let mut commit = self.blank_commit(now);
        // What is found is nobody's: a device of that name that somebody has would never be touched.
        commit.expect.device = Some(this.intent.device.clone());
        self.close(this, &mut commit);
        let adopt = this.intent.adopt_existing;
        let becomes = if adopt { "is taken over as it is" } else { "goes to the history and is replaced" };
        let intent = Intent {
            why: format!("{}; {to} has a device of that name already, which {becomes}", this.intent.why),
            sub_status: if adopt { SubStatus::ReprovisionedToInitialAssignment } else { this.intent.sub_status },
            plan: Plan::TakeOver { to, adopt },
            ..(*this.intent).clone()
        };
        commit.audit.push(self.audit(&intent, AuditAction::RegistrationStarted, intent.why.clone(), now));
        commit.lines.push((None, JournalRecord::Intent(Box::new(intent))));
        commit
    }

    fn abort(&self, this: &Move, reason: Reason, message: String, spare_current: bool, now: Timestamp) -> Commit {
        let spare_current = spare_current || self.is_undo_ahead(this);
        let mut commit = self.blank_commit(now);
        commit.audit.push(self.audit(&this.intent, AuditAction::MoveAborted, message.clone(), now));
        let status = OperationStatus::Failed { reason, message: message.clone() };
        let mut record = self.record_of(&this.intent, status, this.started_at, now);
        // What the hub lets in is not known for sure: it is told again by the next registration, which also finds out
        // whether the hub has the device at all.
        let untold = match &this.intent.plan {
            Plan::Rehouse { from, to } | Plan::Restore { from, to, .. } => from == to,
            plan @ (Plan::Assign { .. }
            | Plan::TakeOver { .. }
            | Plan::Relocate { .. }
            | Plan::Replant { .. }
            | Plan::ResetInPlace { .. }
            | Plan::Refresh { .. }
            | Plan::Release { .. }
            | Plan::Collect { .. }) => plan.steps().before.iter().any(|step| step.effect == Effect::UpdateCredential),
        };
        if untold && let Some(assignment) = record.assignment.as_mut() {
            assignment.credential = None;
        }
        // What was found may have been deleted at the hub by now: the journal has the only copy.
        if matches!(this.intent.plan, Plan::TakeOver { .. }) && this.sealed.is_some() {
            record.past.push(this.generation);
            self.keep_bounded(&mut record.past, &mut commit);
        }
        commit.record = RecordChange::Put(Box::new(record));
        let nothing_to_undo = match this.phase {
            Phase::Before { next } => {
                let begun = if spare_current { next } else { next + 1 };
                let mut steps = this.intent.plan.steps().before.iter().take(begun);
                steps.all(|step| matches!(step.undo, Undo::Nothing(_)))
            }
            Phase::After { .. } | Phase::Undoing { .. } => true,
        };
        if nothing_to_undo {
            self.close(this, &mut commit);
        } else {
            commit.lines.push((Some(this.generation), JournalRecord::Aborted { reason, message, spare_current }));
        }
        commit
    }

    /// Whether the step that is due waits for something to be settled, was therefore never asked for, and has an undo that
    /// would overtake what it waits for. The undo of leaving a home overtakes nothing elsewhere, and is owed all the same:
    /// the intent may have voided an older debt to open that home, and nobody else would open it then.
    fn is_undo_ahead(&self, this: &Move) -> bool {
        let Some(waits_at) = self.first_to_settle(this) else { return false };
        due_step(this).is_none_or(|step| {
            let leaves = step.side == Side::From && matches!(step.effect, Effect::Seal | Effect::Withhold);
            !leaves || this.intent.plan.hub(step.side) == Some(waits_at)
        })
    }

    /// The record after a pivot. `generation` is absent when the intent itself is the pivot.
    fn pivot_record(
        &self,
        intent: &Intent,
        generation: Option<Order>,
        data_source: Option<DataSource>,
        now: Timestamp,
        commit: &mut Commit,
    ) {
        if let Plan::Release { .. } = intent.plan {
            let (version, mut past) = match &self.registration {
                Some(record) => (record.version, record.past.clone()),
                None => (Version::ABSENT, self.earlier.clone()),
            };
            past.push(OWN_ORDER);
            self.keep_bounded(&mut past, commit);
            commit.record = RecordChange::Delete { version, past };
            commit.audit.push(self.audit(intent, AuditAction::RegistrationDeleted, intent.why.clone(), now));
            return;
        }
        let data_source = data_source.or_else(|| data_source_of(&intent.plan, None));
        let bypassed = generation.and_then(|it| self.moves.get(&it)).and_then(|this| this.bypassed.as_ref());
        let sub_status = match (&intent.plan, bypassed.map(|bypassed| bypassed.carry)) {
            // The rule carries less than the policy would have.
            (Plan::Relocate { carry: Carry::State, .. }, Some(Carry::Initial)) => SubStatus::DeviceDataReset,
            (_, None | Some(Carry::State | Carry::Initial | Carry::Planted { .. })) => intent.sub_status,
        };
        let status = OperationStatus::Assigned { sub_status, data_source };
        let started_at = generation.and_then(|it| self.moves.get(&it)).map_or(now, |this| this.started_at);
        let mut record = self.record_of(intent, status, started_at, now);
        if let Some(hub) = intent.plan.hub(Side::To) {
            let credential = Some(intent.credential.clone());
            let kept = record.assignment.take().filter(|_| !intent.plan.makes_home());
            record.assignment = Some(match kept {
                Some(assignment) => Assignment { credential, ..assignment },
                None => Assignment {
                    hub: hub.clone(),
                    generation: generation.unwrap_or(OWN_ORDER),
                    credential,
                    assigned_at: now,
                },
            });
        }
        record.pin = intent.pin.clone();
        record.payload = intent.payload.clone();
        record.tpm = intent.tpm.clone();
        if intent.plan.is_remembered() {
            let kept_as = generation.unwrap_or(OWN_ORDER);
            record.past.push(kept_as);
            if bypassed.is_some_and(|bypassed| bypassed.cause == Bypass::Away) {
                record.past.late.push(kept_as);
            }
            self.keep_bounded(&mut record.past, commit);
        }
        let mut audit = self.audit(intent, AuditAction::RegistrationAssigned, intent.why.clone(), now);
        audit.hub = intent.plan.hub(Side::To).cloned();
        commit.audit.push(audit);
        commit.record = RecordChange::Put(Box::new(record));
    }

    /// The record with this operation as its last one; a device's first record when there is none.
    pub fn record_of(
        &self,
        intent: &Intent,
        status: OperationStatus,
        started_at: Timestamp,
        now: Timestamp,
    ) -> Registration {
        let operation = Operation {
            id: intent.operation,
            status,
            request_id: intent.request_id.clone(),
            started_at,
            updated_at: now,
        };
        match &self.registration {
            Some(record) => Registration {
                enrollment: intent.enrollment.clone(),
                enrollment_version: intent.enrollment_version,
                policy: intent.policy,
                operation,
                updated_at: now,
                ..record.clone()
            },
            None => Registration {
                id: self.id.clone(),
                device_id: intent.device.clone(),
                enrollment: intent.enrollment.clone(),
                enrollment_version: intent.enrollment_version,
                policy: intent.policy,
                assignment: None,
                operation,
                pin: None,
                payload: None,
                tpm: None,
                past: self.earlier.clone(),
                created_at: now,
                updated_at: now,
                version: Version::ABSENT,
            },
        }
    }

    /// Keeps the newest moves; closed ones that fall out are forgotten, open ones when they close.
    fn keep_bounded(&self, past: &mut Past, commit: &mut Commit) {
        let dropped = past.drop_surplus(limits::HISTORY_ENTRIES_MAX);
        commit.forget.extend(dropped.into_iter().filter(|it| !self.moves.contains_key(it)));
    }

    fn blank_commit(&self, now: Timestamp) -> Commit {
        Commit {
            registration: self.id.clone(),
            at: now,
            expect: Preconditions::default(),
            seen: self.moves.values().map(|this| (this.generation, this.last)).collect(),
            stands: self.registration.as_ref().map_or((Version::ABSENT, None), |record| {
                (record.version, record.assignment.as_ref().map(|home| home.generation))
            }),
            lines: Vec::new(),
            close: Vec::new(),
            forget: Vec::new(),
            record: RecordChange::Keep,
            audit: Vec::new(),
        }
    }

    /// Closes a move; its lines stay only when they are part of the device's history.
    fn close(&self, this: &Move, commit: &mut Commit) {
        commit.close.push(this.generation);
        let remembered = |past: &Past| past.contains(this.generation);
        let is_history = match &commit.record {
            RecordChange::Put(record) => remembered(&record.past),
            RecordChange::Delete { past, .. } => remembered(past),
            RecordChange::Keep => match &self.registration {
                Some(record) => remembered(&record.past),
                None => remembered(&self.earlier),
            },
        };
        if !is_history {
            commit.forget.push(this.generation);
        }
    }

    fn audit(&self, intent: &Intent, action: AuditAction, detail: String, now: Timestamp) -> AuditEntry {
        AuditEntry {
            registration: Some(self.id.clone()),
            enrollment: Some(intent.enrollment.clone()),
            hub: intent.plan.hub(Side::To).cloned(),
            operation: Some(intent.operation),
            ..AuditEntry::new(now, intent.by.clone(), action, detail)
        }
    }
}

/// Stands in a record's `past` for the order of the very commit that writes it, which only the store knows.
pub const OWN_ORDER: Order = Order(0);

fn name_own_order(past: &mut Past, order: Order) {
    *past = past.mapped(|it| if it == OWN_ORDER { order } else { it });
}

/// Whether a refusal proves that the call did not happen and that a late copy of it will be refused too.
fn spares(refusal: &HubRefusal) -> bool {
    match refusal {
        HubRefusal::Occupied
        | HubRefusal::NoSuchDevice
        | HubRefusal::Stale { .. }
        | HubRefusal::OrderReused
        | HubRefusal::WrongIncarnation { .. } => true,
        HubRefusal::NotStaged | HubRefusal::Full | HubRefusal::StateInvalid(_) => false,
    }
}

/// A debt at a home that is left: the orders of leaving void it. A reset that is still due is none: it may have happened.
fn is_void_once_left(owed: &Owed) -> bool {
    match owed.effect {
        Effect::Activate | Effect::Unseal => true,
        Effect::ReplaceTwin => matches!(owed.state, OwedState::Stuck(_)),
        Effect::Seal
        | Effect::Create
        | Effect::Withhold
        | Effect::UpdateCredential
        | Effect::Delete
        | Effect::Collect => false,
    }
}

fn due_step(this: &Move) -> Option<Step> {
    match this.phase {
        Phase::Before { next } => this.intent.plan.steps().before.get(next).copied(),
        Phase::After { .. } | Phase::Undoing { .. } => None,
    }
}

fn owed_key(this: &Move, owed: &Owed) -> CallKey {
    CallKey {
        generation: this.generation,
        order: owed.order,
        effect: owed.effect,
        hub: owed.hub.clone(),
        deleting: owed.effect == Effect::Collect && owed.state == OwedState::Collected,
    }
}

fn data_source_of(plan: &Plan, bypassed: Option<&Bypassed>) -> Option<DataSource> {
    if let Some(Bypassed { known: Some(known), carry: Carry::State, .. }) = bypassed {
        return Some(DataSource::LastKnown { seen_at: known.seen_at });
    }
    if let Some(Bypassed { carry: Carry::Initial, .. }) = bypassed {
        return Some(DataSource::Initial);
    }
    match plan {
        Plan::Restore { seen_at, .. } | Plan::Relocate { carry: Carry::Planted { seen_at }, .. } => {
            Some(DataSource::LastKnown { seen_at: *seen_at })
        }
        Plan::Relocate { carry: Carry::State, .. } | Plan::Replant { .. } | Plan::TakeOver { adopt: true, .. } => {
            Some(DataSource::Sealed)
        }
        Plan::Relocate { carry: Carry::Initial, .. }
        | Plan::Assign { .. }
        | Plan::TakeOver { adopt: false, .. }
        | Plan::Rehouse { .. }
        | Plan::ResetInPlace { .. } => Some(DataSource::Initial),
        Plan::Refresh { .. } | Plan::Release { .. } | Plan::Collect { .. } => None,
    }
}

/// The seal that goes on beside a bypass.
fn is_beside_bypass(this: &Move, key: &CallKey) -> bool {
    matches!(this.phase, Phase::Before { .. }) && this.bypassed.is_some() && key.effect == Effect::Seal
}

/// Whether the device must be at the hub that is called: its home, which has not been left.
fn must_be_there(this: &Move, key: &CallKey) -> bool {
    match (&this.intent.plan, key.effect) {
        (Plan::Relocate { .. }, Effect::Seal)
        | (Plan::Refresh { .. } | Plan::ResetInPlace { .. }, Effect::UpdateCredential) => {
            matches!(this.phase, Phase::Before { .. })
        }
        (Plan::ResetInPlace { .. }, Effect::ReplaceTwin) => true,
        (
            Plan::Assign { .. }
            | Plan::TakeOver { .. }
            | Plan::Relocate { .. }
            | Plan::Replant { .. }
            | Plan::Rehouse { .. }
            | Plan::Restore { .. }
            | Plan::ResetInPlace { .. }
            | Plan::Refresh { .. }
            | Plan::Release { .. }
            | Plan::Collect { .. },
            _,
        ) => false,
    }
}

fn cause_of(this: &Move) -> Option<Bypass> {
    this.bypassed.as_ref().map(|bypassed| bypassed.cause)
}

/// Whether an old hub that is away is waited for. The other rules need the operator's word that late writes may come.
fn waits(intent: &Intent) -> bool {
    match intent.unreachable {
        UnreachableRule::Wait { .. } => true,
        UnreachableRule::LastKnown | UnreachableRule::Reset => !intent.allow_late_writes,
    }
}

/// When the step that is due is given up, as far as the journal says.
fn journaled_deadline(this: &Move) -> Option<Timestamp> {
    let step = due_step(this)?;
    let (since, span) = match step.effect {
        Effect::Seal => (this.started_at, wait_of(this.intent.unreachable)),
        Effect::Create
        | Effect::UpdateCredential
        | Effect::Withhold
        | Effect::Activate
        | Effect::Unseal
        | Effect::Delete
        | Effect::Collect
        | Effect::ReplaceTwin => (this.at, limits::TARGET_WAIT),
    };
    Some(since.plus(span))
}

fn wait_of(rule: UnreachableRule) -> Duration {
    match rule {
        UnreachableRule::Wait { deadline } => deadline,
        UnreachableRule::LastKnown | UnreachableRule::Reset => limits::UNREACHABLE_WAIT_DEFAULT,
    }
}

/// Doubles from the first pause to the longest, spread by a quarter either way so that devices do not retry in step.
fn pause_after(key: &CallKey, attempts: u32) -> Duration {
    let doubled = limits::RETRY_FIRST.saturating_mul(1u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX));
    let pause = doubled.min(limits::RETRY_MAX);
    let spread = key.order.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(u64::from(attempts)) >> 32;
    pause.mul_f64(0.75 + (spread % 1000) as f64 / 2000.0)
}
