//! What a device's actor knows, and its atomic pieces of work: each takes the core, commits, and gives it back.
//!
//! It knows no actor: an actor starts the [`After`] as calls, timers and questions, a simulation (`tests/sim`) puts the very
//! same ones on its network. Nothing decides or commits but what stands here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::allocators::{AllocationAnswer, AllocationQuestion, AllocatorFault, CertificateFacts, ChosenHub};
use crate::attestation::Verified;
use crate::domain::{
    AllocationPolicy, Attestation, AuditAction, AuditEntry, CallFault, CallOutcome, ClientFacts, Credential, DeviceId,
    Enrollment, Fault, HubCall, HubId, HubState, Incarnation, InitialState, OperationId, OperationStatus, Order, Pin,
    Reason, Registration, RegistrationId, RequestId, SubStatus, Timestamp, TpmDelivery, UnreachableRule, Version,
};
use crate::moves::{
    self, CallKey, EndLease, Intent, KnownState, Machine, Move, Phase, Plan, Preconditions, Resolve, Standing, Tries,
    Unresolved, Way,
};
use crate::policy::{self, WebhookOutcome};
use crate::store::{CommitFault, Unexpected};
use crate::telemetry::{self, CommitOutcome, HubCallOutcome, MoveOutcome, RegistrationOutcome};

use super::super::messages::{self, Accepted, Answer, PinTo, Refused, Reply, UndoWish, Updates};
use super::Surroundings;
pub use super::judge::Request;
use super::judge::{self, Judgement, Remembered, Said, Seen, Undo};

/// How often a choice is made again because the chosen hub filled up meanwhile.
const CHOICES_MAX: u32 = 4;

/// How often a device looks whether moves go on.
const HALTED_PAUSE: Duration = Duration::from_secs(5);
/// When a caller may ask again: an operator has to act first.
const HALTED_RETRY: Duration = Duration::from_secs(60);

/// Somebody who waits for an answer.
#[derive(Debug)]
pub struct Asker {
    pub reply: Reply<Answer>,
    pub updates: Updates,
}

impl Asker {
    fn refuse(self, refused: Refused) {
        let _ = self.reply.send(Err(refused));
    }
}

/// A question that is out, and who waits for what follows from it.
struct Asking {
    request: Request,
    askers: Vec<Asker>,
}

/// What is to be started once an atomic piece of work is over.
#[derive(Debug, Default)]
pub struct After {
    pub calls: Vec<(CallKey, HubCall, OperationId)>,
    pub question: Option<Box<AllocationQuestion>>,
    /// Comes back through [`Core::lease_ended`].
    pub end_lease: Option<EndLease>,
    pub wake_at: Option<Timestamp>,
    /// The memory cannot be trusted any more.
    pub stop: bool,
}

impl After {
    pub(in crate::actors) fn stop() -> Self {
        Self { stop: true, ..Self::default() }
    }
}

/// Why a commit did not happen, as the actor sees it.
enum Trouble {
    /// The enrollment changed.
    Rejudge,
    /// The chosen hub filled up or went away.
    Again,
    Fault(Fault),
    /// It may have happened, or somebody else went on: read the store again.
    Stop(String),
}

/// See the module's documentation.
pub struct Core {
    pub machine: Machine,
    surroundings: Arc<Surroundings>,
    updates: watch::Sender<Option<Standing>>,
    asking: Option<Asking>,
    /// A register that joined a running operation with another credential: judged again when that is over.
    joined: Option<Request>,
    /// The incarnation that each hub had when it was called.
    called: BTreeMap<CallKey, Option<Incarnation>>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Core({})", self.machine.id())
    }
}

impl Request {
    pub fn of_device(
        verified: Verified,
        enrollment: Arc<Enrollment>,
        facts: ClientFacts,
        request_id: Option<RequestId>,
    ) -> Self {
        let named = enrollment.device_id.clone();
        let asks = matches!(enrollment.allocation, Some(AllocationPolicy::Custom(_)));
        let certificate = asks.then(|| verified.leaf()).flatten().map(|leaf| CertificateFacts {
            thumbprint: leaf.thumbprint,
            subject_name: leaf.subject,
            issuer_name: leaf.issuer,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            serial_number: leaf.serial_hex,
        });
        let tpm = verified.tpm().map(|proof| judge::TpmClaim {
            ek: proof.ek_hash(),
            state: policy::TpmState {
                storage_root_key: proof.storage_key_name().clone(),
                mismatches: proof.pcr_mismatches().to_vec(),
            },
            blob: Arc::from([]),
        });
        Self {
            certificate,
            by: "device".to_owned(),
            is_device: true,
            facts,
            request_id,
            credential: Some(verified.credential().clone()),
            device: named.unwrap_or_else(|| DeviceId::from(verified.registration_id())),
            enrollment,
            pin: None,
            undo: None,
            tpm,
        }
    }

    /// With what brings the device the key of its credential.
    pub fn with_blob(mut self, blob: Option<Arc<[u8]>>) -> Self {
        if let (Some(claim), Some(blob)) = (&mut self.tpm, blob) {
            claim.blob = blob;
        }
        self
    }

    /// Whether both are of one TPM with one storage root key.
    fn is_of_the_tpm_of(&self, other: &Request) -> bool {
        match (&self.tpm, &other.tpm) {
            (Some(one), Some(other)) => {
                one.ek == other.ek && one.state.storage_root_key == other.state.storage_root_key
            }
            (Some(_), None) | (None, Some(_) | None) => false,
        }
    }

    /// Whether the running move brings this device what it asks for: the credential it came with, or one that its TPM can
    /// open, which is as good as the new one.
    fn is_served_by(&self, running: &Intent) -> bool {
        let same_tpm = match (&self.tpm, &running.tpm) {
            (Some(claim), Some(delivery)) => {
                claim.ek == delivery.ek && delivery.srk.as_ref() == Some(&claim.state.storage_root_key)
            }
            (Some(_), None) | (None, Some(_) | None) => false,
        };
        same_tpm || self.credential.as_ref().is_none_or(|credential| *credential == running.credential)
    }
}

impl Core {
    /// Takes the device up from the store, with whatever is left to do.
    pub async fn load(
        id: RegistrationId,
        surroundings: Arc<Surroundings>,
        updates: watch::Sender<Option<Standing>>,
    ) -> Result<(Self, After), String> {
        let file = surroundings.store.load_device(&id).await.map_err(|fault| fault.to_string())?;
        let mut machine =
            Machine::load(id, file.registration, file.open, file.earlier).map_err(|fault| fault.to_string())?;
        machine.away_after = surroundings.fleet.away_after();
        let mut this = Self { machine, surroundings, updates, asking: None, joined: None, called: BTreeMap::new() };
        let after = this.drive().await;
        if after.stop { Err("its first step could not be written".to_owned()) } else { Ok((this, after)) }
    }

    /// Nothing is under way and nobody waits.
    pub fn is_idle(&self) -> bool {
        self.machine.is_idle() && self.asking.is_none() && self.joined.is_none()
    }

    pub fn standing(&self) -> Option<Standing> {
        Standing::of(self.machine.registration(), self.machine.moves())
    }

    /// Tells whoever follows the device how it stands now.
    pub fn publish(&self) {
        let standing = self.standing();
        self.updates.send_if_modified(|current| {
            let changed = *current != standing;
            *current = standing;
            changed
        });
    }

    /// Followers first: whoever is accepted finds the news already there.
    fn accept(&self, askers: impl IntoIterator<Item = Asker>, standing: Option<Standing>, why: &str) {
        self.publish();
        for Asker { reply, updates } in askers {
            let accepted = Accepted { standing: standing.clone(), why: why.to_owned(), updates };
            // Whoever asked may have given up: what was committed stands all the same.
            let _ = reply.send(Ok(accepted));
        }
    }

    pub fn tries(&self) -> Vec<(CallKey, Tries)> {
        self.machine.tries().map(|(key, tries)| (key.clone(), tries.clone())).collect()
    }

    /// A device registers. Joins what is under way, else decides.
    pub async fn register(mut self, request: Request, asker: Asker) -> (Self, After) {
        // Whoever joins gets what is under way: that must not be more than it would get alone.
        if (self.asking.is_some() || self.machine.running().is_some())
            && let Some(objection) = judge::objection(&self.machine, &request)
        {
            asker.refuse(Fault::new(objection.reason(), objection.to_string()).into());
            return (self, After::default());
        }
        let now = self.surroundings.clock.now();
        // Whoever joins is let in like the one that it joins, and that must be seen as well. One that is not served by what it
        // joins is judged when that is over, and noted then.
        let joins = match (&self.asking, self.machine.joinable(now)) {
            (Some(asking), _) if request.is_of_the_tpm_of(&asking.request) => Some(None),
            (None, Some(running)) if request.is_served_by(&running.intent) => Some(Some(running.intent.operation)),
            (Some(_), _) | (None, Some(_) | None) => None,
        };
        if let Some(operation) = joins
            && let Some(note) = judge::note_on_registers(&self.machine, &request, operation, now)
            && let Err(trouble) = self.commit(self.machine.note(note, now)).await
        {
            return self.give_back(vec![asker], trouble);
        }
        if let Some(asking) = &mut self.asking {
            let waiting = &asking.request;
            if request.credential != waiting.credential && !request.is_of_the_tpm_of(waiting) {
                self.joined = Some(request);
            }
            asking.askers.push(asker);
            return (self, After::default());
        }
        if let Some(running) = self.machine.joinable(now) {
            telemetry::registration_finished(RegistrationOutcome::Joined, None, Duration::ZERO);
            let why = format!("joined the {} that is under way", running.intent.plan.as_str());
            if !request.is_served_by(&running.intent) {
                self.joined = Some(request);
            }
            self.accept([asker], self.standing(), &why);
            return (self, After::default());
        }
        self.decide(request, vec![asker], Said::nothing()).await
    }

    /// An operator wants the decision now, perhaps with a pin.
    pub async fn reprovision(
        self,
        enrollment: Arc<Enrollment>,
        to: Option<PinTo>,
        by: String,
        request_id: Option<RequestId>,
        asker: Asker,
    ) -> (Self, After) {
        let Some(record) = self.machine.registration() else {
            asker.refuse(not_registered(self.machine.id()).into());
            return (self, After::default());
        };
        let now = self.surroundings.clock.now();
        if let Some(running) = self.machine.joinable(now)
            && (to.is_none() || (request_id.is_some() && running.intent.request_id == request_id))
        {
            let why = format!("joined the {} that is under way", running.intent.plan.as_str());
            self.accept([asker], self.standing(), &why);
            return (self, After::default());
        }
        if self.asking.is_some() || self.machine.joinable(now).is_some() {
            asker.refuse(under_way().into());
            return (self, After::default());
        }
        if let Some(to) = to.as_ref().filter(|to| !self.surroundings.fleet.is_linked(&to.hub)) {
            asker.refuse(Fault::new(Reason::HubNotFound, format!("hub {} is not linked", to.hub)).into());
            return (self, After::default());
        }
        let facts = policy::remembered_facts(record.policy, enrollment.reprovision);
        let request = Request {
            pin: to.map(|to| Pin {
                hub: to.hub,
                by: by.clone(),
                reason: to.reason,
                set_at: now,
                expires_at: to.expires_at,
            }),
            by,
            is_device: false,
            facts,
            request_id,
            certificate: None,
            credential: enrolled_keys(&enrollment, record),
            device: record.device_id.clone(),
            tpm: None,
            enrollment,
            undo: None,
        };
        self.decide(request, vec![asker], Said::nothing()).await
    }

    /// Ends the registration: gives up what has not pivoted, then releases the home.
    pub async fn release(self, by: String, why: String, asker: Asker) -> (Self, After) {
        self.release_as_seen(by, why, None, asker).await
    }

    /// As above, if the registration is still as it was seen. Nothing is given up otherwise.
    pub async fn release_as_seen(
        mut self,
        by: String,
        why: String,
        seen: Option<messages::Seen>,
        asker: Asker,
    ) -> (Self, After) {
        if let Some(seen) = seen
            && !self.is_as(seen)
        {
            let message = format!("registration {} changed since it was read: read it again", self.machine.id());
            asker.refuse(Fault::new(Reason::EtagMismatch, message).into());
            return (self, After::default());
        }
        for waiting in self.asking.take().map(|asking| asking.askers).unwrap_or_default() {
            waiting.refuse(not_registered(self.machine.id()).into());
        }
        self.joined = None;
        let now = self.surroundings.clock.now();
        let message = "the registration is being deleted".to_owned();
        if let Some(abort) = self.machine.give_up(Reason::MoveAborted, message, now)
            && let Err(trouble) = self.commit(abort).await
        {
            return self.give_back(vec![asker], trouble);
        }
        let Some(record) = self.machine.registration() else {
            let after = self.drive().await;
            match after.stop {
                true => drop(asker),
                false => asker.refuse(not_registered(self.machine.id()).into()),
            }
            return (self, after);
        };
        let intent = self.release_intent(record, by, why.clone());
        let commit = self.machine.begin(Box::new(intent), Preconditions::default(), now);
        if let Err(trouble) = self.commit(commit).await {
            return self.give_back(vec![asker], trouble);
        }
        let after = self.drive().await;
        if !after.stop {
            self.accept([asker], self.standing(), &why);
        }
        (self, after)
    }

    fn is_as(&self, seen: messages::Seen) -> bool {
        let record = self.machine.registration();
        match seen {
            // Without a record the first assignment runs.
            messages::Seen::Version(version) => record.map_or(Version::ABSENT, |record| record.version) == version,
            messages::Seen::Home(generation) => record
                .and_then(|record| record.assignment.as_ref())
                .is_some_and(|assignment| assignment.generation == generation),
        }
    }

    fn release_intent(&self, record: &Registration, by: String, why: String) -> Intent {
        let linked = |hub: &HubId| self.surroundings.fleet.is_linked(hub);
        let home = record.assignment.as_ref().map(|assignment| assignment.hub.clone());
        let credential = record.assignment.as_ref().and_then(|assignment| assignment.credential.clone());
        Intent {
            operation: self.draw_operation(),
            request_id: None,
            by,
            registration: record.id.clone(),
            device: record.device_id.clone(),
            // Nothing can be asked of a hub that is not linked any more.
            plan: Plan::Release { from: home.filter(linked) },
            enrollment: record.enrollment.clone(),
            enrollment_version: record.enrollment_version,
            policy: record.policy,
            sub_status: SubStatus::ReprovisionedToInitialAssignment,
            credential: credential.unwrap_or_else(|| Credential::x509([])),
            initial: InitialState::default(),
            planted: None,
            unreachable: UnreachableRule::LastKnown,
            allow_late_writes: false,
            adopt_existing: false,
            payload: None,
            tpm: None,
            pin: None,
            why,
        }
    }

    /// Lifts the pin, when there is one.
    pub async fn unpin(mut self, by: String, asker: Asker) -> (Self, After) {
        let Some(record) = self.machine.registration().cloned() else {
            asker.refuse(not_registered(self.machine.id()).into());
            return (self, After::default());
        };
        if record.pin.is_none() {
            self.accept([asker], self.standing(), "the device is not pinned");
            return (self, After::default());
        }
        if self.machine.running().is_some() {
            asker.refuse(under_way().into());
            return (self, After::default());
        }
        let now = self.surroundings.clock.now();
        let audit = AuditEntry {
            registration: Some(record.id.clone()),
            ..AuditEntry::new(now, by, AuditAction::RegistrationUnpinned, "the pin was lifted")
        };
        let record = Registration { pin: None, updated_at: now, ..record };
        let commit = self.machine.record_only(record, Preconditions::default(), audit, now);
        match self.commit(commit).await {
            Ok(()) => {
                self.accept([asker], self.standing(), "the pin was lifted");
                (self, After::default())
            }
            Err(trouble) => self.give_back(vec![asker], trouble),
        }
    }

    /// Forgets the storage root key that the device is held to, when there is one.
    pub async fn forget_storage_root_key(mut self, by: String, asker: Asker) -> (Self, After) {
        let Some(record) = self.machine.registration().cloned() else {
            asker.refuse(not_registered(self.machine.id()).into());
            return (self, After::default());
        };
        let Some(tpm) = record.tpm.clone().filter(|tpm| tpm.srk.is_some()) else {
            self.accept([asker], self.standing(), "no storage root key is known");
            return (self, After::default());
        };
        if self.machine.running().is_some() {
            let fault =
                Fault::new(Reason::DeviceMoving, "an operation of this device is under way: try again when it is over");
            asker.refuse(fault.into());
            return (self, After::default());
        }
        let now = self.surroundings.clock.now();
        let why = "the storage root key was forgotten";
        let audit = AuditEntry {
            registration: Some(record.id.clone()),
            ..AuditEntry::new(now, by, AuditAction::StorageRootKeyForgotten, why)
        };
        let tpm = Some(TpmDelivery { srk: None, ..tpm });
        let record = Registration { tpm, updated_at: now, ..record };
        let commit = self.machine.record_only(record, Preconditions::default(), audit, now);
        match self.commit(commit).await {
            Ok(()) => {
                self.accept([asker], self.standing(), why);
                (self, After::default())
            }
            Err(trouble) => self.give_back(vec![asker], trouble),
        }
    }

    /// An operator takes the move back that gave the device its home: it goes to the hub before, and is pinned there.
    pub async fn undo(self, enrollment: Arc<Enrollment>, wish: UndoWish, asker: Asker) -> (Self, After) {
        let now = self.surroundings.clock.now();
        if let Some(running) = self.machine.joinable(now)
            && wish.request_id.is_some()
            && running.intent.request_id == wish.request_id
        {
            self.accept([asker], self.standing(), "joined the move that is under way");
            return (self, After::default());
        }
        if self.asking.is_some() || self.machine.joinable(now).is_some() {
            asker.refuse(under_way().into());
            return (self, After::default());
        }
        let (to, restore) = match self.undone(&wish).await {
            Ok(undone) => undone,
            Err(Trouble::Fault(fault)) => {
                asker.refuse(fault.into());
                return (self, After::default());
            }
            Err(trouble) => return self.give_back(vec![asker], trouble),
        };
        let Some(record) = self.machine.registration() else {
            asker.refuse(not_registered(self.machine.id()).into());
            return (self, After::default());
        };
        let pin = Pin { hub: to, by: wish.by.clone(), reason: wish.reason, set_at: now, expires_at: wish.expires_at };
        let request = Request {
            pin: Some(pin),
            by: wish.by,
            is_device: false,
            facts: policy::remembered_facts(record.policy, enrollment.reprovision),
            request_id: wish.request_id,
            certificate: None,
            credential: enrolled_keys(&enrollment, record),
            device: record.device_id.clone(),
            enrollment,
            undo: Some(Undo { restore }),
            tpm: None,
        };
        self.decide(request, vec![asker], Said::nothing()).await
    }

    /// Where an undo leads, and the state it brings back.
    async fn undone(&self, wish: &UndoWish) -> Result<(HubId, Option<KnownState>), Trouble> {
        let refuse = |reason, message: String| Trouble::Fault(Fault::new(reason, message));
        let record = self.machine.registration().ok_or_else(|| Trouble::Fault(not_registered(self.machine.id())))?;
        let home = record.assignment.as_ref().ok_or_else(|| {
            refuse(Reason::MoveNotFound, "the device has no hub yet: there is no move to undo".to_owned())
        })?;
        let generation = wish.generation.unwrap_or(home.generation);
        if generation != home.generation {
            let message = format!(
                "only the move that gave the device its home can be undone, and that is {}: undo that one, or move the                  device with `--to`",
                home.generation
            );
            return Err(refuse(Reason::MoveStateConflict, message));
        }
        let forgotten =
            || refuse(Reason::MoveNotFound, format!("the history does not keep move {generation} any more"));
        let read = self.surroundings.store.load_move(generation).await;
        let log = read.map_err(|fault| Trouble::Stop(fault.to_string()))?.ok_or_else(forgotten)?;
        let late = moves::late_twin(&log);
        let made = Move::replay(log).map_err(|fault| Trouble::Stop(fault.to_string()))?;
        let from =
            made.intent.plan.hub(moves::plan::Side::From).filter(|from| **from != home.hub).ok_or_else(|| {
                refuse(Reason::MoveNotFound, format!("move {generation} brought the device from no other hub"))
            })?;
        let views = self.surroundings.fleet.views();
        let view = views.iter().find(|view| view.hub.id == *from).ok_or_else(|| {
            refuse(Reason::HubNotFound, format!("hub {from}, where the device came from, is not linked any more"))
        })?;
        match view.hub.state {
            HubState::Active => {}
            state @ (HubState::Draining | HubState::Retired) => {
                let message = format!("hub {from}, where the device came from, is {}", state.as_str());
                return Err(refuse(Reason::HubStateConflict, message));
            }
        }
        if view.hub.capacity.is_some_and(|capacity| view.occupied >= capacity) {
            let message = format!("hub {from}, where the device came from, is full");
            return Err(refuse(Reason::NoHubAvailable, message));
        }
        if !wish.restore_twin {
            return Ok((from.clone(), None));
        }
        let before = late.or_else(|| made.left_state()).ok_or_else(|| {
            refuse(Reason::TwinNotFound, format!("the history keeps no twin from before move {generation}"))
        })?;
        Ok((from.clone(), Some(before)))
    }

    /// A person resolves what a move waits for.
    pub async fn resolve(mut self, wish: Resolve, asker: Asker) -> (Self, After) {
        let now = self.surroundings.clock.now();
        let known = match self.machine.open_move(wish.generation).map(|open| &open.phase) {
            Some(Phase::After { .. } | Phase::Undoing { .. }) if wish.way == Way::Force => {
                let home = self.machine.registration().and_then(|record| record.assignment.as_ref());
                match home.map(|home| home.hub.clone()) {
                    None => None,
                    Some(home) => match self.newest_known(&home).await {
                        Ok(known) => known,
                        Err(why) => return self.give_back(vec![asker], Trouble::Stop(why)),
                    },
                }
            }
            Some(Phase::Before { .. } | Phase::After { .. } | Phase::Undoing { .. }) | None => None,
        };
        match self.machine.resolve(&wish, self.draw_operation(), known, now) {
            Ok(commit) => {
                if let Err(trouble) = self.commit(commit).await {
                    return self.give_back(vec![asker], trouble);
                }
                self.machine.hurry(wish.generation, now);
                let after = self.drive().await;
                if !after.stop {
                    self.accept([asker], self.standing(), wish.way.as_str());
                }
                self.follow_up(after).await
            }
            Err(fault) => {
                asker.refuse(unresolved(&fault).into());
                (self, After::default())
            }
        }
    }

    /// The hub was unlinked by force: what names it is given up.
    pub async fn force_out(mut self, hub: HubId, by: String, why: String, asker: Asker) -> (Self, After) {
        while let Some(commit) = self.machine.forced_out(&hub, &by, &why, self.surroundings.clock.now()) {
            if let Err(trouble) = self.commit(commit).await {
                return self.give_back(vec![asker], trouble);
            }
        }
        // Whoever asks goes by what stands in the store, where an actor before this one may have written last.
        match self.is_current().await {
            Ok(true) => {}
            Ok(false) => return self.give_back(vec![asker], Trouble::Stop("somebody else went on".to_owned())),
            Err(why) => return self.give_back(vec![asker], Trouble::Stop(why)),
        }
        let after = self.drive().await;
        if !after.stop {
            self.accept([asker], self.standing(), &why);
        }
        self.follow_up(after).await
    }

    /// Whether the open moves of the store are those that are known here.
    async fn is_current(&self) -> Result<bool, String> {
        let file = self.surroundings.store.load_device(self.machine.id()).await.map_err(|fault| fault.to_string())?;
        let stored = file.open.iter().map(|log| (log.generation, log.lines.last().map(|line| line.order)));
        let known = self.machine.moves().map(|this| (this.generation, Some(this.last)));
        Ok(stored.collect::<BTreeSet<_>>() == known.collect())
    }

    /// Takes a late twin out of the history.
    pub async fn forget_late_twin(mut self, generation: Order, by: String, asker: Asker) -> (Self, After) {
        match self.machine.forget_late_twin(generation, &by, self.surroundings.clock.now()) {
            Ok(commit) => match self.commit(commit).await {
                Ok(()) => {
                    self.accept([asker], self.standing(), "the late twin was removed");
                    (self, After::default())
                }
                Err(trouble) => self.give_back(vec![asker], trouble),
            },
            Err(fault) => {
                asker.refuse(unresolved(&fault).into());
                (self, After::default())
            }
        }
    }

    /// The webhook has answered, or will not.
    pub async fn allocated(mut self, outcome: Result<AllocationAnswer, AllocatorFault>) -> (Self, After) {
        let Some(Asking { request, askers }) = self.asking.take() else { return (self, After::default()) };
        let said = match outcome {
            Ok(answer) => Said {
                outcome: match answer.hub {
                    ChosenHub::Offered(hub) => WebhookOutcome::Answered { hub },
                    ChosenHub::NotOffered { host_name } => WebhookOutcome::AnsweredOther { host_name },
                },
                initial_twin: answer.initial_twin,
                payload: answer.payload.map(|payload| payload.to_string()),
            },
            Err(fault) => {
                tracing::warn!(registration_id = %self.machine.id(), "no allocation: {fault}");
                Said { outcome: WebhookOutcome::Failed(fault.to_string()), ..Said::nothing() }
            }
        };
        let (this, after) = self.decide(request, askers, said).await;
        this.follow_up(after).await
    }

    /// A call to a hub has ended.
    pub async fn finished(mut self, key: CallKey, outcome: CallOutcome) -> (Self, After) {
        let now = self.surroundings.clock.now();
        let outcome = self.still_true(&key, outcome);
        telemetry::step_finished(key.effect.as_str(), HubCallOutcome::of(&outcome));
        match &outcome {
            Ok(_) => tracing::debug!(hub = %key.hub, order = %key.order, "{} is done", key.effect.as_str()),
            Err(fault) => {
                tracing::info!(hub = %key.hub, order = %key.order, "{} is not done: {fault}", key.effect.as_str());
            }
        }
        let was_running = self.machine.running().map(|running| (running.generation, running.started_at));
        if let Some(commit) = self.machine.finished(&key, outcome, now)
            && let Err(trouble) = self.commit(commit).await
        {
            // A step that the store refuses is due again: by a new actor, which reads what stands in its way.
            let (this, _) = self.give_back(Vec::new(), trouble);
            return (this, After::stop());
        }
        if let Some((generation, started_at)) = was_running
            && self.machine.running().is_none_or(|running| running.generation != generation)
        {
            self.note_end(now.since(started_at));
        }
        self.go_on().await
    }

    /// Counts a registration that was answered for good; one that moves is counted when its move ends.
    fn note_answer(&self, standing: Option<&Standing>, assigned: RegistrationOutcome, began: Duration) {
        let took = self.surroundings.clock.monotonic().saturating_sub(began);
        match standing.map(|standing| &standing.operation.status) {
            None | Some(OperationStatus::Assigning) => {}
            Some(OperationStatus::Assigned { .. }) => telemetry::registration_finished(assigned, None, took),
            Some(OperationStatus::Failed { reason, .. }) => {
                telemetry::registration_finished(RegistrationOutcome::Failed, Some(*reason), took);
            }
            Some(OperationStatus::Disabled) => {
                telemetry::registration_finished(RegistrationOutcome::Disabled, None, took);
            }
        }
    }

    /// The running operation is over: says how it ended.
    fn note_end(&self, took: Duration) {
        let began = self.surroundings.clock.monotonic().saturating_sub(took);
        self.note_answer(self.standing().as_ref(), RegistrationOutcome::Assigned, began);
        let ended = match self.standing().map(|standing| standing.operation.status) {
            Some(OperationStatus::Failed { message, .. }) => {
                tracing::info!("the move ended without a new home: {message}");
                MoveOutcome::Aborted
            }
            Some(OperationStatus::Assigning | OperationStatus::Assigned { .. } | OperationStatus::Disabled) | None => {
                tracing::info!("the move is done");
                MoveOutcome::Done
            }
        };
        telemetry::move_finished(ended, took);
    }

    /// Time has passed.
    pub async fn woken(self) -> (Self, After) {
        self.go_on().await
    }

    async fn go_on(mut self) -> (Self, After) {
        let after = self.drive().await;
        self.follow_up(after).await
    }

    /// Once nothing runs any more, a register that joined with another credential has its turn.
    async fn follow_up(mut self, after: After) -> (Self, After) {
        if after.stop || self.asking.is_some() || self.machine.running().is_some() {
            return (self, after);
        }
        match self.joined.take() {
            None => (self, after),
            Some(request) => {
                let (this, mut next) = self.decide(request, Vec::new(), Said::nothing()).await;
                next.calls.extend(after.calls);
                next.wake_at = next.wake_at.into_iter().chain(after.wake_at).min();
                (this, next)
            }
        }
    }

    async fn decide(mut self, request: Request, askers: Vec<Asker>, said: Said) -> (Self, After) {
        if let Some(why) = self.surroundings.fleet.halted() {
            // Even where it lives may be untrue.
            let fault = Fault::new(Reason::ServiceUnavailable, format!("no device is moved now: {why}"));
            return self.give_back(askers, Trouble::Fault(fault.retry_after(HALTED_RETRY)));
        }
        let began = self.surroundings.clock.monotonic();
        let mut seen = Seen::NotLooked;
        // One round more for what was looked up.
        for _ in 0..=CHOICES_MAX {
            let now = self.surroundings.clock.now();
            self.count_hubs(now).await;
            let views = self.surroundings.fleet.views();
            let operation = self.draw_operation();
            match judge::judge(&self.machine, &request, &views, &said, &seen, operation, now) {
                Judgement::Ask(question) => {
                    self.asking = Some(Asking { request, askers });
                    return (self, After { question: Some(question), ..After::default() });
                }
                Judgement::Recall(hub) => match self.remembered(&hub).await {
                    Ok(remembered) => seen = Seen::Looked(remembered),
                    Err(why) => return self.give_back(askers, Trouble::Stop(why)),
                },
                Judgement::Answer { standing, why } => {
                    let standing = standing.map(|standing| *standing);
                    self.note_answer(standing.as_ref(), RegistrationOutcome::Unchanged, began);
                    self.accept(askers, standing, &why);
                    return (self, After::default());
                }
                Judgement::Refuse(fault) => {
                    askers.into_iter().for_each(|asker| asker.refuse(fault.clone().into()));
                    return (self, After::default());
                }
                Judgement::Write { commit, why } => match self.commit(*commit).await {
                    Ok(()) => {
                        telemetry::operation_started(&tracing::Span::current(), &operation);
                        tracing::info!("{why}");
                        let after = self.drive().await;
                        if !after.stop {
                            let standing = self.standing();
                            self.note_answer(standing.as_ref(), RegistrationOutcome::Assigned, began);
                            self.accept(askers, standing, &why);
                        }
                        return (self, after);
                    }
                    Err(Trouble::Again) => self.surroundings.fleet.expire_counts(),
                    Err(trouble) => return self.give_back(askers, trouble),
                },
            }
        }
        let fault = Fault::new(Reason::NoHubAvailable, "the hubs filled up while one was being chosen: try again");
        self.give_back(askers, Trouble::Fault(fault))
    }

    fn give_back(self, askers: Vec<Asker>, trouble: Trouble) -> (Self, After) {
        match trouble {
            Trouble::Rejudge | Trouble::Again => {
                askers.into_iter().for_each(|asker| asker.refuse(Refused::Rejudge));
                (self, After::default())
            }
            Trouble::Fault(fault) => {
                askers.into_iter().for_each(|asker| asker.refuse(fault.clone().into()));
                (self, After::default())
            }
            Trouble::Stop(why) => {
                tracing::warn!(registration_id = %self.machine.id(), "the device is read again from the store: {why}");
                // The askers are dropped: the directory asks the next actor, which knows what was written.
                (self, After::stop())
            }
        }
    }

    /// Commits what the machine wants committed, until only calls and waiting are left.
    async fn drive(&mut self) -> After {
        // What the store says of moves may be untrue: nothing is decided by it until somebody has gone through the hubs.
        if self.surroundings.fleet.halted().is_some() && !self.machine.is_idle() {
            let wake_at = Some(self.surroundings.clock.now().plus(HALTED_PAUSE));
            return After { wake_at, ..After::default() };
        }
        loop {
            let now = self.surroundings.clock.now();
            let due = self.machine.due(now);
            let commit = match (due.commit, due.recall) {
                (Some(commit), _) => *commit,
                (None, Some(recall)) => match self.newest_known(&recall.hub).await {
                    Ok(known) => match self.machine.recalled(&recall, known, now) {
                        Some(commit) => commit,
                        None => continue,
                    },
                    Err(why) => {
                        tracing::warn!(registration_id = %self.machine.id(), "what was seen of it cannot be read: {why}");
                        return After::stop();
                    }
                },
                (None, None) => {
                    if let Some(asked) = due.end_lease.as_ref().filter(|asked| !self.leases(&asked.hub)) {
                        self.machine.lease_ended(asked.generation, now);
                        let mut after = self.due_calls(due.calls, due.wake_at, None);
                        let more = self.machine.due(now);
                        after.calls.extend(self.due_calls(more.calls, None, None).calls);
                        after.wake_at = after.wake_at.into_iter().chain(more.wake_at).min();
                        return after;
                    }
                    return self.due_calls(due.calls, due.wake_at, due.end_lease);
                }
            };
            if let Err(trouble) = self.commit(commit).await {
                if let Trouble::Stop(why) | Trouble::Fault(Fault { message: why, .. }) = trouble {
                    tracing::warn!(registration_id = %self.machine.id(), "a step could not be written: {why}");
                }
                return After::stop();
            }
        }
    }

    fn due_calls(
        &mut self,
        calls: Vec<(CallKey, HubCall)>,
        wake_at: Option<Timestamp>,
        end_lease: Option<EndLease>,
    ) -> After {
        let calls = calls.into_iter().filter_map(|(key, call)| {
            let operation = self.machine.open_move(key.generation)?.intent.operation;
            Some((key, call, operation))
        });
        let calls: Vec<_> = calls.collect();
        for (key, _, _) in &calls {
            self.called.insert(key.clone(), self.incarnation_of(&key.hub));
        }
        After { calls, wake_at, end_lease, ..After::default() }
    }

    fn incarnation_of(&self, hub: &HubId) -> Option<Incarnation> {
        self.surroundings.fleet.berth(hub).and_then(|berth| berth.hub.incarnation)
    }

    /// What an answer is worth by now: what a hub said before its data went back in time may not be so any more, and is asked
    /// again under its order. Whoever goes through the hub first notes that it waits, and then commits; so an answer is
    /// either in the journal that is gone by, or it is not believed.
    fn still_true(&mut self, key: &CallKey, outcome: CallOutcome) -> CallOutcome {
        let called = self.called.remove(key);
        let fleet = &self.surroundings.fleet;
        let is_same = called.is_none_or(|called| called == self.incarnation_of(&key.hub));
        match outcome {
            Ok(_) | Err(CallFault::Refused(_)) if fleet.is_restored(&key.hub) || !is_same => {
                Err(CallFault::Unknown("the hub's data has gone back in time since it answered".to_owned()))
            }
            Ok(_) | Err(CallFault::Refused(_) | CallFault::Unavailable(_) | CallFault::Unknown(_)) => outcome,
        }
    }

    /// Whether the hub may hold a lease. One that is not linked any more was drained, or forced out on its operator's word.
    fn leases(&self, hub: &HubId) -> bool {
        self.surroundings.fleet.berth(hub).is_some_and(|berth| berth.connector.abilities().leases)
    }

    /// The lease of a bypassed hub has ended, or nobody can tell.
    pub async fn lease_ended(mut self, generation: Order, ended: bool) -> (Self, After) {
        match ended {
            true => self.machine.lease_ended(generation, self.surroundings.clock.now()),
            false => self.machine.lease_unknown(generation),
        }
        self.go_on().await
    }

    /// The newest state that the service has seen of the device at its home.
    async fn newest_known(&self, hub: &HubId) -> Result<Option<KnownState>, String> {
        Ok(self.remembered(hub).await?.known)
    }

    /// What the service knows of the device at its home: from the hub's feed, what a move brought there, and what moves
    /// that were given up had sealed there.
    async fn remembered(&self, hub: &HubId) -> Result<Remembered, String> {
        let record = self.machine.registration();
        let home = record.and_then(|record| record.assignment.as_ref()).filter(|home| home.hub == *hub);
        let (Some(record), Some(home)) = (record, home) else { return Ok(Remembered::default()) };
        let made = self.read_move(home.generation).await?;
        let brought = made.as_ref().and_then(Move::brought_state);
        if made.is_some_and(|made| made.unopened) {
            return Ok(Remembered { known: brought, unopened: true });
        }
        let mut known: Vec<KnownState> = brought.into_iter().collect();
        // Everything later than the home's own move was at this home.
        let open = self.machine.moves().map(|this| this.generation);
        let later: BTreeSet<Order> =
            record.past.moves.iter().copied().chain(open).filter(|it| *it > home.generation).collect();
        for generation in later {
            known.extend(self.read_move(generation).await?.and_then(|this| this.sealed_at(hub)));
        }
        let seen = self.surroundings.store.load_last_known(self.machine.id()).await;
        let seen = seen.map_err(|fault| fault.to_string())?.filter(|seen| seen.hub == *hub);
        known.extend(seen.map(|seen| KnownState { state: seen.state, seen_at: seen.seen_at }));
        Ok(Remembered { known: KnownState::newest(known), unopened: false })
    }

    /// A move that is open or in the history.
    async fn read_move(&self, generation: Order) -> Result<Option<Move>, String> {
        if let Some(open) = self.machine.open_move(generation) {
            return Ok(Some(open.clone()));
        }
        let log = self.surroundings.store.load_move(generation).await.map_err(|fault| fault.to_string())?;
        log.map(Move::replay).transpose().map_err(|fault| fault.to_string())
    }

    async fn commit(&mut self, commit: moves::Commit) -> Result<(), Trouble> {
        let is_step = commit.lines.iter().any(|(generation, _)| generation.is_some());
        let begins = commit.lines.iter().any(|(generation, _)| generation.is_none());
        if let Some(why) = self.surroundings.fleet.halted().filter(|_| begins) {
            let fault = Fault::new(Reason::ServiceUnavailable, format!("no device is moved now: {why}"));
            return Err(Trouble::Fault(fault.retry_after(HALTED_RETRY)));
        }
        let clock = &self.surroundings.clock;
        let began = clock.monotonic();
        let written = self.surroundings.store.commit(commit.clone().into()).await;
        telemetry::store_commit_finished(word_of(&written), clock.monotonic().saturating_sub(began));
        match written {
            Ok(order) => self.machine.applied(&commit, order).map_err(|fault| Trouble::Stop(fault.to_string())),
            Err(CommitFault::Unexpected(unexpected)) => Err(trouble_of(unexpected)),
            // A step that was not written is due again; the calls behind it are repeated under their orders.
            Err(fault @ CommitFault::NotWritten(_)) if is_step => Err(Trouble::Stop(fault.to_string())),
            Err(CommitFault::NotWritten(why)) => {
                Err(Trouble::Fault(Fault::new(Reason::ServiceUnavailable, format!("nothing was written: {why}"))))
            }
            Err(fault @ CommitFault::Unknown(_)) => Err(Trouble::Stop(fault.to_string())),
        }
    }

    async fn count_hubs(&self, now: Timestamp) {
        let fleet = &self.surroundings.fleet;
        if !fleet.is_count_old(now) {
            return;
        }
        match self.surroundings.store.hubs().await {
            Ok(hubs) => fleet.set_counts(hubs.into_iter().map(|(hub, used)| (hub.id, used)), now),
            // Older counts do for choosing; the commit checks.
            Err(fault) => tracing::warn!("hubs could not be counted: {fault}"),
        }
    }

    fn draw_operation(&self) -> OperationId {
        OperationId(self.surroundings.entropy.draw_u128())
    }
}

fn word_of(written: &Result<Order, CommitFault>) -> CommitOutcome {
    match written {
        Ok(_) => CommitOutcome::Done,
        Err(CommitFault::Unexpected(_)) => CommitOutcome::Conflict,
        Err(CommitFault::NotWritten(_)) => CommitOutcome::Failed,
        Err(CommitFault::Unknown(_)) => CommitOutcome::Unknown,
    }
}

fn under_way() -> Fault {
    Fault::new(Reason::DeviceMoving, "an operation of this device is under way: try again when it is over")
}

fn unresolved(fault: &Unresolved) -> Fault {
    let reason = match fault {
        Unresolved::NoMove { .. } | Unresolved::NotOwed { .. } | Unresolved::NoLateTwin { .. } => Reason::MoveNotFound,
        Unresolved::Ambiguous { .. }
        | Unresolved::OpensHome
        | Unresolved::NoHome
        | Unresolved::NotStuck
        | Unresolved::OtherIncarnation
        | Unresolved::Overtaken
        | Unresolved::NotPivoted
        | Unresolved::StillOpen { .. } => Reason::MoveStateConflict,
        Unresolved::NothingKnown => Reason::NoLastKnownState,
    };
    Fault::new(reason, fault.to_string())
}

/// What a device signs in with by its enrollment as it is now, where that can be told without the device: its keys. A device
/// that signed in with something else before must come by itself.
fn enrolled_keys(enrollment: &Enrollment, record: &Registration) -> Option<Credential> {
    let recorded = record.assignment.as_ref().and_then(|assignment| assignment.credential.as_ref());
    match (&enrollment.attestation, recorded) {
        (Attestation::SymmetricKey(keys), Some(Credential::Shared(_))) => Some(Credential::Shared(keys.clone())),
        (_, _) => None,
    }
}

fn not_registered(id: &RegistrationId) -> Fault {
    Fault::new(Reason::RegistrationNotFound, format!("{id} is not registered"))
}

fn trouble_of(unexpected: Unexpected) -> Trouble {
    match unexpected {
        Unexpected::Enrollment { .. } | Unexpected::EndorsementKeyTaken { .. } => Trouble::Rejudge,
        Unexpected::HubFull { .. } | Unexpected::HubClosed { .. } | Unexpected::HubNotLinked { .. } => Trouble::Again,
        Unexpected::DeviceIdTaken { device, owner } => {
            let message = format!("the device id {device} belongs to registration {owner}");
            Trouble::Fault(Fault::new(Reason::DeviceIdInUse, message))
        }
        Unexpected::Registration { .. }
        | Unexpected::Hub { .. }
        | Unexpected::HubInUse { .. }
        | Unexpected::CertificateTaken { .. }
        | Unexpected::MasterKeyTaken { .. }
        | Unexpected::MoveNotOpen { .. }
        | Unexpected::Journal { .. } => Trouble::Stop(unexpected.to_string()),
    }
}
