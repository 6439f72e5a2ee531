//! From a request to what is to be written: puts the decision of `policy` into the words of `moves`. Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::allocators::{AllocationQuestion, AnsweredTwin, CertificateFacts, CurrentHome, HubHost};
use crate::domain::{
    AuditAction, AuditEntry, ClientFacts, Credential, DeviceId, EkHash, Enrollment, EnrollmentId, Fault, HubId,
    InitialState, Operation, OperationId, OperationStatus, Pin, Reason, Registration, ReprovisionPolicy, RequestId,
    SubStatus, Timestamp, TpmDelivery, Version,
};
use crate::moves::{Carry, Commit, Intent, KnownState, Machine, Place, Plan, Preconditions, Standing};
use crate::policy::{self, Admission, Decision, HubView, Outcome, Snapshot, TpmObjection, TpmState, WebhookOutcome};

/// A wish to have the device's hub decided, whoever has it.
#[derive(Debug, Clone)]
pub struct Request {
    /// `device`, or an operator's name.
    pub by: String,
    pub is_device: bool,
    pub enrollment: Arc<Enrollment>,
    pub facts: ClientFacts,
    pub request_id: Option<RequestId>,
    /// What the device's certificate says, where a webhook will be asked.
    pub certificate: Option<CertificateFacts>,
    /// What the device signs in with; an operator's wish takes what is on record.
    pub credential: Option<Credential>,
    /// The device id of a first registration.
    pub device: DeviceId,
    /// A pin to be set.
    pub pin: Option<Pin>,
    /// The device goes back to the pinned hub, whatever its policy would carry.
    pub undo: Option<Undo>,
    /// What the device's TPM proved, and what is to be delivered through it.
    pub tpm: Option<TpmClaim>,
}

/// What an undone move brings back.
#[derive(Debug, Clone)]
pub struct Undo {
    /// The state to be put back; absent where the device keeps its current one.
    pub restore: Option<KnownState>,
}

/// What the service has seen last of a device at its hub.
#[derive(Debug, Clone)]
pub(super) enum Seen {
    NotLooked,
    Looked(Remembered),
}

/// What the service has of a device at its home.
#[derive(Debug, Clone, Default)]
pub(super) struct Remembered {
    pub known: Option<KnownState>,
    /// The home is gone for good and cannot have opened: what is known is all that there was.
    pub unopened: bool,
}

/// A proof by TPM, as far as it is judged here.
#[derive(Debug, Clone)]
pub struct TpmClaim {
    pub ek: EkHash,
    pub state: TpmState,
    /// The activation blob with the key that the credential is of.
    pub blob: Arc<[u8]>,
}

/// What the allocation webhook said.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub outcome: WebhookOutcome,
    pub initial_twin: Option<AnsweredTwin>,
    /// JSON text.
    pub payload: Option<String>,
}

impl Said {
    pub fn nothing() -> Self {
        Self { outcome: WebhookOutcome::NotAsked, initial_twin: None, payload: None }
    }
}

/// What follows from a request.
#[derive(Debug)]
pub(super) enum Judgement {
    /// Nothing is written.
    Answer {
        standing: Option<Box<Standing>>,
        why: String,
    },
    Refuse(Fault),
    /// The webhook must be asked first.
    Ask(Box<AllocationQuestion>),
    /// The newest state known of the device at this hub must be looked up first.
    Recall(HubId),
    Write {
        commit: Box<Commit>,
        why: String,
    },
}

/// The sub-status of a device that stays where it is.
const STAYED: SubStatus = SubStatus::ReprovisionedToInitialAssignment;

/// Judges one request against one snapshot of everything it depends on.
pub(super) fn judge(
    machine: &Machine,
    request: &Request,
    views: &[HubView],
    said: &Said,
    seen: &Seen,
    operation: OperationId,
    now: Timestamp,
) -> Judgement {
    let this = Case { machine, request, views, said, seen, operation, now };
    this.judge()
}

#[derive(Debug, Clone, Copy)]
struct Case<'a> {
    machine: &'a Machine,
    request: &'a Request,
    views: &'a [HubView],
    said: &'a Said,
    seen: &'a Seen,
    operation: OperationId,
    now: Timestamp,
}

impl<'a> Case<'a> {
    fn judge(self) -> Judgement {
        let record = self.machine.registration();
        if let Admission::Disabled { .. } = policy::admit(&self.request.enrollment) {
            return self.disabled();
        }
        if self.is_repeat() {
            return self.answer("the request was answered before".to_owned());
        }
        if let Some(objection) = objection(self.machine, self.request) {
            let stored = self.request.enrollment.reprovision;
            let policy = record.map_or(stored, |record| record.policy);
            return self.fail(objection.reason(), &objection.to_string(), policy);
        }
        let home = record.and_then(|record| record.assignment.as_ref()).map(|assignment| &assignment.hub);
        let gone = home.filter(|home| self.views.iter().all(|view| view.hub.id != **home));
        let never_opened = match (gone, self.seen) {
            (Some(home), Seen::NotLooked) => return Judgement::Recall(home.clone()),
            (Some(_), Seen::Looked(remembered)) => remembered.unopened,
            (None, Seen::NotLooked | Seen::Looked(_)) => false,
        };
        let pin = self.pin();
        let snapshot = Snapshot {
            registration_id: self.machine.id(),
            enrollment: &self.request.enrollment,
            facts: &self.request.facts,
            current: home,
            never_opened,
            pin: pin.as_ref(),
            hubs: self.views,
            webhook: &self.said.outcome,
            enrollment_changed: record.is_some_and(|record| {
                record.enrollment != self.request.enrollment.id
                    || record.enrollment_version != self.request.enrollment.version
            }),
        };
        if self.said.outcome == WebhookOutcome::NotAsked
            && let Some(call) = policy::webhook_call(&snapshot)
        {
            return Judgement::Ask(Box::new(self.question(&call)));
        }
        let explanation = policy::evaluate(&snapshot);
        let policy = explanation.applies.policy();
        let decision = explanation.decision;
        let why = decision.why.clone();
        if let Some(source) = self.machine.replantable() {
            return match &decision.outcome {
                Outcome::Relocate { from, to, .. } => {
                    let plan = Plan::Replant { from: from.clone(), to: to.clone(), source: source.generation };
                    self.begin(plan, policy, &decision, pin)
                }
                Outcome::Assign { .. }
                | Outcome::AssignAnew { .. }
                | Outcome::Restore { .. }
                | Outcome::ResetInPlace { .. }
                | Outcome::Stay { .. }
                | Outcome::Fail { .. } => self.goes_on(),
            };
        }
        if self.machine.is_home_away(self.now) && !matches!(decision.outcome, Outcome::Relocate { .. }) {
            return self.goes_on();
        }
        if let Some(undo) = &self.request.undo {
            return self.undo(undo, policy, decision, pin);
        }
        if let Some(at) = self.asked_again() {
            let why = "the request was answered before: the device gets another key at its hub".to_owned();
            let decision = Decision { outcome: Outcome::Stay { at: at.clone(), note: None }, why };
            return self.begin(Plan::Refresh { at }, policy, &decision, pin);
        }
        if self.machine.is_home_closed() {
            match &decision.outcome {
                // What leaves the home opens nothing there.
                Outcome::Relocate { .. } | Outcome::AssignAnew { .. } | Outcome::Restore { .. } => {}
                Outcome::Assign { .. } | Outcome::ResetInPlace { .. } | Outcome::Stay { .. } | Outcome::Fail { .. } => {
                    return Judgement::Refuse(home_closed());
                }
            }
        }
        match &decision.outcome {
            Outcome::Assign { to } => self.begin(Plan::Assign { to: to.clone() }, policy, &decision, pin),
            Outcome::Relocate { from, to, carry } => {
                let carry = match carry {
                    policy::Carry::State => Carry::State,
                    policy::Carry::Initial => Carry::Initial,
                };
                self.begin(Plan::Relocate { from: from.clone(), to: to.clone(), carry }, policy, &decision, pin)
            }
            Outcome::AssignAnew { from, to } => {
                if let Seen::NotLooked = self.seen {
                    return Judgement::Recall(from.clone());
                }
                self.begin(Plan::Rehouse { from: from.clone(), to: to.clone() }, policy, &decision, pin)
            }
            Outcome::Restore { from, to } => match self.seen {
                Seen::NotLooked => Judgement::Recall(from.clone()),
                Seen::Looked(Remembered { known: Some(known), .. }) => {
                    let plan = Plan::Restore { from: from.clone(), to: to.clone(), seen_at: known.seen_at };
                    self.begin(plan, policy, &decision, pin)
                }
                Seen::Looked(Remembered { known: None, .. }) => {
                    let message =
                        format!("{from} is no longer linked, and the service has seen no state of the device");
                    self.fail(Reason::NoLastKnownState, &message, policy)
                }
            },
            Outcome::ResetInPlace { at } => {
                let plan = Plan::ResetInPlace { at: at.clone(), credential: self.credential_is_new() };
                self.begin(plan, policy, &decision, pin)
            }
            Outcome::Stay { at, note } => {
                let why = match note {
                    Some(note) => format!("{why} ({})", note.as_str()),
                    None => why,
                };
                if self.credential_is_new() {
                    self.begin(Plan::Refresh { at: at.clone() }, policy, &decision, pin)
                } else {
                    self.stay(policy, pin, why)
                }
            }
            Outcome::Fail { reason, message } => self.fail(*reason, message, policy),
        }
    }

    fn goes_on(self) -> Judgement {
        self.answer("the move that is under way goes on".to_owned())
    }

    /// Back to the pinned hub: with the current state, or with one of the history in its place.
    fn undo(self, undo: &Undo, policy: Option<ReprovisionPolicy>, decision: Decision, pin: Option<Pin>) -> Judgement {
        let Outcome::Relocate { from, to, .. } = &decision.outcome else {
            return Judgement::Refuse(Fault::new(
                Reason::MoveStateConflict,
                format!("the device cannot be moved back now: {}", decision.why),
            ));
        };
        let carry = match &undo.restore {
            None => Carry::State,
            Some(restore) => Carry::Planted { seen_at: restore.seen_at },
        };
        let plan = Plan::Relocate { from: from.clone(), to: to.clone(), carry };
        // Undoing carries a state whatever the policy: the device is told so.
        let carried = Outcome::Relocate { from: from.clone(), to: to.clone(), carry: policy::Carry::State };
        let why = match &undo.restore {
            None => format!("the last move is undone: the device goes from {from} back to {to}"),
            Some(restore) => {
                format!(
                    "the last move is undone: the device goes from {from} back to {to}, with its twin of {}",
                    restore.seen_at
                )
            }
        };
        self.begin(plan, policy, &Decision { outcome: carried, why }, pin)
    }

    /// The same client request as the last operation, which is over.
    fn is_repeat(self) -> bool {
        let same = self.last_of_this_request().is_some_and(|last| last.status.is_final());
        // A device that signs in with something new must have it written, whatever it calls its request; and a home that
        // is not open yet is not to be told of.
        same && !self.credential_is_new() && !self.machine.is_home_closed()
    }

    /// The last operation, if it was begun by the same client request.
    fn last_of_this_request(self) -> Option<&'a Operation> {
        let last = &self.machine.registration()?.operation;
        (last.request_id.is_some() && last.request_id == self.request.request_id).then_some(last)
    }

    /// The hub that the same request gave a device which is to be told of a new key there. One that signs in by its TPM comes
    /// with a new key each time, so that it can ask again for an answer it did not hear; what was done must not be done twice
    /// for that, whatever the policy says.
    fn asked_again(self) -> Option<HubId> {
        let last = self.last_of_this_request()?;
        let was_assigned = matches!(last.status, OperationStatus::Assigned { .. });
        let home = &self.machine.registration()?.assignment.as_ref()?.hub;
        let is_linked = self.views.iter().any(|view| view.hub.id == *home);
        (was_assigned && self.request.tpm.is_some() && is_linked && !self.machine.is_home_closed())
            .then(|| home.clone())
    }

    /// The pin that is to be in force after this request.
    fn pin(self) -> Option<Pin> {
        let recorded = || self.machine.registration().and_then(|record| record.pin.clone());
        self.request.pin.clone().or_else(recorded).filter(|pin| pin.is_in_force(self.now))
    }

    fn recorded_credential(self) -> Option<Credential> {
        self.machine.registration()?.assignment.as_ref()?.credential.clone()
    }

    /// The hub must be told what the device signs in with now.
    fn credential_is_new(self) -> bool {
        self.request.credential.is_some() && self.request.credential != self.recorded_credential()
    }

    fn begin(self, plan: Plan, policy: Option<ReprovisionPolicy>, decision: &Decision, pin: Option<Pin>) -> Judgement {
        let Some(credential) = self.request.credential.clone().or_else(|| self.recorded_credential()) else {
            let message = "what the device signs in with is not known for sure: it must register itself";
            return Judgement::Refuse(Fault::new(Reason::HubStateConflict, message));
        };
        let enrollment = &self.request.enrollment;
        let initial = match &self.said.initial_twin {
            Some(twin) if decision.takes_webhook_twin() => InitialState {
                tags: twin.tags.clone(),
                desired: twin.desired.clone(),
                capabilities: enrollment.initial.capabilities,
            },
            Some(_) | None => enrollment.initial.clone(),
        };
        let planted = match &plan {
            Plan::Replant { .. } => self.machine.replantable().and_then(|source| source.arriving_state()).map(Box::new),
            Plan::Rehouse { .. } | Plan::Restore { .. } => match self.seen {
                Seen::Looked(Remembered { known, .. }) => known.as_ref().map(|known| known.state.clone()),
                Seen::NotLooked => None,
            },
            Plan::Relocate { .. } => {
                self.request.undo.as_ref().and_then(|undo| undo.restore.as_ref()).map(|restore| restore.state.clone())
            }
            Plan::Assign { .. }
            | Plan::TakeOver { .. }
            | Plan::ResetInPlace { .. }
            | Plan::Refresh { .. }
            | Plan::Release { .. }
            | Plan::Collect { .. } => None,
        };
        // A pin outranks the capacity and the state of its hub, as it does when the hub is chosen; an undo does not.
        let is_pinned_to = |hub: &HubId| self.request.undo.is_none() && pin.as_ref().is_some_and(|pin| pin.hub == *hub);
        let takes = plan.arrives_at().map(|hub| Place { hub: hub.clone(), pinned: is_pinned_to(hub) });
        let intent = Intent {
            operation: self.operation,
            request_id: self.request.request_id.clone(),
            by: self.request.by.clone(),
            registration: self.machine.id().clone(),
            device: self.device(),
            plan,
            enrollment: enrollment.id.clone(),
            enrollment_version: enrollment.version,
            policy,
            sub_status: decision.sub_status().unwrap_or(STAYED),
            credential,
            initial,
            planted,
            unreachable: enrollment.unreachable,
            allow_late_writes: enrollment.allow_late_writes,
            adopt_existing: enrollment.adopt_existing,
            payload: self.said.payload.clone(),
            tpm: self.delivery(),
            pin,
            why: decision.why.clone(),
        };
        let expect = Preconditions { takes, ..self.expect_enrollment() };
        let mut commit = self.machine.begin(Box::new(intent), expect, self.now);
        commit.audit.extend(self.notes_on_tpm());
        Judgement::Write { commit: Box::new(commit), why: decision.why.clone() }
    }

    /// What the assignment leaves of the device's TPM: what it proved now, or what is on record where an operator decides.
    fn delivery(self) -> Option<TpmDelivery> {
        if !self.request.is_device {
            return self.machine.registration().and_then(|record| record.tpm.clone());
        }
        self.request.tpm.as_ref().map(|claim| TpmDelivery {
            ek: claim.ek,
            srk: Some(claim.state.storage_root_key.clone()),
            blob: claim.blob.clone(),
        })
    }

    /// What is let pass and must not go unseen: another storage root key than before, registers under a policy that audits.
    fn notes_on_tpm(self) -> impl Iterator<Item = AuditEntry> {
        let claim = self.request.tpm.as_ref();
        let before = self.machine.registration().and_then(|record| record.tpm.as_ref()).and_then(|it| it.srk.as_ref());
        let changed = claim.zip(before).and_then(|(claim, before)| {
            let now = &claim.state.storage_root_key;
            let detail = format!("the storage root key was {before} and is {now}");
            (before != now).then_some((AuditAction::StorageRootKeyChanged, detail))
        });
        let changed = changed.map(|(action, detail)| AuditEntry {
            registration: Some(self.machine.id().clone()),
            enrollment: Some(self.request.enrollment.id.clone()),
            operation: Some(self.operation),
            ..AuditEntry::new(self.now, self.request.by.clone(), action, detail)
        });
        changed.into_iter().chain(note_on_registers(self.machine, self.request, Some(self.operation), self.now))
    }

    /// A device keeps the name it was first given, whatever its enrollment says later.
    fn device(self) -> DeviceId {
        let recorded = self.machine.registration().map(|record| record.device_id.clone());
        recorded.unwrap_or_else(|| self.request.device.clone())
    }

    /// Nothing is written when everything is as it was: the common case after an outage.
    fn stay(self, policy: Option<ReprovisionPolicy>, pin: Option<Pin>, why: String) -> Judgement {
        let stayed = OperationStatus::Assigned { sub_status: STAYED, data_source: None };
        if let Some(record) = self.machine.registration() {
            let unchanged = record.policy == policy
                && record.pin == pin
                && record.payload == self.said.payload
                && record.enrollment == self.request.enrollment.id
                && matches!(record.operation.status, OperationStatus::Assigned { .. });
            if unchanged {
                let standing = Standing::of(Some(record), self.machine.moves()).map(|mut standing| {
                    standing.operation.status = stayed;
                    Box::new(standing)
                });
                return Judgement::Answer { standing, why };
            }
        }
        let record = Registration { payload: self.said.payload.clone(), pin, ..self.record(stayed, policy) };
        self.write(record, AuditAction::RegistrationAssigned, why)
    }

    fn fail(self, reason: Reason, message: &str, policy: Option<ReprovisionPolicy>) -> Judgement {
        if !self.request.is_device {
            return Judgement::Refuse(Fault::new(reason, message));
        }
        let status = OperationStatus::Failed { reason, message: message.to_owned() };
        self.end_without_move(status, AuditAction::RegistrationFailed, policy, message.to_owned())
    }

    fn disabled(self) -> Judgement {
        let message = format!("{} is disabled", self.request.enrollment.id);
        if !self.request.is_device {
            return Judgement::Refuse(Fault::new(Reason::EnrollmentDisabled, message));
        }
        // A group that lets nobody in writes nothing on what another enrollment decided.
        let is_anothers = |record: &&Registration| record.enrollment != self.request.enrollment.id;
        if let (EnrollmentId::Group(_), Some(record)) =
            (&self.request.enrollment.id, self.machine.registration().filter(is_anothers))
        {
            let standing = Standing::of(Some(record), self.machine.moves()).map(|mut standing| {
                standing.operation.status = OperationStatus::Disabled;
                Box::new(standing)
            });
            return Judgement::Answer { standing, why: message };
        }
        let stored = self.request.enrollment.reprovision;
        let policy = self.machine.registration().map_or(stored, |record| record.policy);
        self.end_without_move(OperationStatus::Disabled, AuditAction::RegistrationDisabled, policy, message)
    }

    /// An operation that ends at once. The same end twice is written once.
    fn end_without_move(
        self,
        status: OperationStatus,
        action: AuditAction,
        policy: Option<ReprovisionPolicy>,
        why: String,
    ) -> Judgement {
        let same = |record: &&Registration| {
            record.operation.status == status && record.enrollment == self.request.enrollment.id
        };
        if self.machine.registration().filter(same).is_some() {
            return self.answer(why);
        }
        self.write(self.record(status, policy), action, why)
    }

    fn answer(self, why: String) -> Judgement {
        let standing = Standing::of(self.machine.registration(), self.machine.moves()).map(Box::new);
        Judgement::Answer { standing, why }
    }

    /// The record with an operation that ended without a move. What an assignment or reset depends on is left alone.
    fn record(self, status: OperationStatus, policy: Option<ReprovisionPolicy>) -> Registration {
        let enrollment = &self.request.enrollment;
        let operation = Operation {
            id: self.operation,
            status,
            request_id: self.request.request_id.clone(),
            started_at: self.now,
            updated_at: self.now,
        };
        match self.machine.registration() {
            Some(record) => {
                let same_enrollment = record.enrollment == enrollment.id;
                Registration {
                    enrollment: enrollment.id.clone(),
                    enrollment_version: if same_enrollment { record.enrollment_version } else { enrollment.version },
                    policy,
                    operation,
                    updated_at: self.now,
                    ..record.clone()
                }
            }
            None => Registration {
                id: self.machine.id().clone(),
                device_id: self.device(),
                enrollment: enrollment.id.clone(),
                enrollment_version: enrollment.version,
                policy,
                assignment: None,
                operation,
                pin: None,
                payload: None,
                tpm: None,
                past: self.machine.earlier().clone(),
                created_at: self.now,
                updated_at: self.now,
                version: Version::ABSENT,
            },
        }
    }

    fn write(self, record: Registration, action: AuditAction, why: String) -> Judgement {
        let enrollment = &self.request.enrollment;
        let audit = AuditEntry {
            registration: Some(self.machine.id().clone()),
            enrollment: Some(enrollment.id.clone()),
            hub: record.assignment.as_ref().map(|assignment| assignment.hub.clone()),
            operation: Some(record.operation.id),
            ..AuditEntry::new(self.now, self.request.by.clone(), action, why.clone())
        };
        let expect = self.expect_enrollment();
        let commit = self.machine.record_only(record, expect, audit, self.now);
        Judgement::Write { commit: Box::new(commit), why }
    }

    /// What was judged still decides: this enrollment at this version, and for a group that the device has none of its own,
    /// neither by its id nor by its endorsement key.
    fn expect_enrollment(self) -> Preconditions {
        let enrollment = &self.request.enrollment;
        let (no_individual, unclaimed) = match &enrollment.id {
            EnrollmentId::Group(_) => {
                (Some(self.machine.id().clone()), self.request.tpm.as_ref().map(|claim| claim.ek))
            }
            EnrollmentId::Individual(_) => (None, None),
        };
        let enrollment = Some((enrollment.id.clone(), enrollment.version));
        Preconditions { enrollment, no_individual, unclaimed, ..Preconditions::default() }
    }

    fn question(self, call: &policy::WebhookCall<'_>) -> AllocationQuestion {
        let host =
            |id: &HubId| self.views.iter().find(|view| view.hub.id == *id).map(|view| view.hub.host_name.clone());
        let assignment = self.machine.registration().and_then(|record| record.assignment.as_ref());
        let offered =
            call.offered.iter().map(|view| HubHost { hub: view.hub.id.clone(), host_name: view.hub.host_name.clone() });
        AllocationQuestion {
            webhook: call.webhook.clone(),
            enrollment: Enrollment::clone(&self.request.enrollment),
            enrollment_host_names: self.request.enrollment.hubs.iter().filter_map(host).collect(),
            registration_id: self.machine.id().clone(),
            current: assignment.and_then(|assignment| {
                Some(CurrentHome { host_name: host(&assignment.hub)?, device_id: self.device() })
            }),
            certificate: self.request.certificate.clone(),
            payload: self.request.facts.payload.clone(),
            offered: offered.collect(),
        }
    }
}

/// Why the TPM that proved itself is not let in as it is.
pub(super) fn objection(machine: &Machine, request: &Request) -> Option<TpmObjection> {
    let claim = request.tpm.as_ref()?;
    let known = machine.registration().and_then(|record| record.tpm.as_ref());
    let known = known.filter(|known| known.ek == claim.ek).and_then(|known| known.srk.as_ref());
    let rules = request.enrollment.attestation.tpm_rules()?;
    policy::examine(rules, known, &claim.state).err()
}

/// Registers that hold other values than the enrollment names, under a policy that lets that pass and audits it.
pub(super) fn note_on_registers(
    machine: &Machine,
    request: &Request,
    operation: Option<OperationId>,
    now: Timestamp,
) -> Option<AuditEntry> {
    let mismatches = request.tpm.as_ref().map(|claim| claim.state.mismatches.as_slice()).unwrap_or_default();
    let numbers: Vec<String> = mismatches.iter().map(ToString::to_string).collect();
    let detail = format!("PCR {} holds a value that the enrollment does not name", numbers.join(", "));
    (!numbers.is_empty()).then(|| AuditEntry {
        registration: Some(machine.id().clone()),
        enrollment: Some(request.enrollment.id.clone()),
        operation,
        ..AuditEntry::new(now, request.by.clone(), AuditAction::PcrMismatchAudited, detail)
    })
}

/// How soon a device may ask again whose home is being opened.
const OPENING_RETRY_AFTER: Duration = Duration::from_secs(2);

fn home_closed() -> Fault {
    let message =
        "the device's hub is still being told to open it again after a move that was given up: register again";
    Fault::new(Reason::DeviceMoving, message).retry_after(OPENING_RETRY_AFTER)
}
