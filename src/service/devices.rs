//! Registrations as operators see and change them: where each device is, why, and what can be done about it.

use std::sync::Arc;

use crate::actors::{Answer, PinTo, Seen, UndoWish};
use crate::domain::{
    Attestation, AuditAction, CertificateRef, Credential, DeviceId, DeviceState, Document, Enrollment, EnrollmentId,
    Fault, HubId, Order, Pin, Reason, Registration, RegistrationId, RequestId, Thumbprint, Timestamp, Twin,
    UnreachableRule, Version, X509Leaves, limits,
};
use crate::moves::plan::Side;
use crate::moves::{CallKey, Effect, Episode, Illegal, JournalRecord, Move, MoveLog, Plan, Resolve, Standing, Tries};
use crate::policy::{self, Explanation, Snapshot, WebhookOutcome};
use crate::store::{DeviceFile, Page, PageRequest, RegistrationFilter};

use super::{Service, fault};

/// The unreachable rule of an enrollment that has no group to take one from.
const WAIT: UnreachableRule = UnreachableRule::Wait { deadline: limits::UNREACHABLE_WAIT_DEFAULT };

/// A registration, and how the calls it is waiting for fare.
#[derive(Debug, Clone)]
pub struct RegistrationView {
    pub standing: Standing,
    /// Empty in listings, which wake nobody.
    pub tries: Vec<(CallKey, Tries)>,
}

/// A pin that an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinRequest {
    pub hub: HubId,
    /// At most [`crate::domain::limits::REASON_CHARS_MAX`] characters.
    pub reason: String,
    pub expires_at: Option<Timestamp>,
}

/// What would be decided now.
#[derive(Debug, Clone, PartialEq)]
pub struct Explained {
    pub enrollment: Arc<Enrollment>,
    pub explanation: Explanation,
    /// The pin in force.
    pub pin: Option<Pin>,
}

/// A device that is kept out.
#[derive(Debug, Clone)]
pub struct Revoked {
    /// The disabled enrollment that keeps it out.
    pub enrollment: EnrollmentId,
    /// Absent when it was gone at once.
    pub registration: Option<RegistrationView>,
}

/// The moves that are kept of a device.
struct Kept {
    /// Newest first.
    generations: Vec<Order>,
    open: Vec<Order>,
}

/// A device state that the history keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptState {
    /// The hub it was taken from, where its journal names it.
    pub hub: Option<HubId>,
    pub at: Timestamp,
    /// It was taken after the device had left.
    pub late: bool,
    pub state: DeviceState,
    /// How a late one differs from what was carried in its stead: tags, desired and reported as merge patches.
    pub differences: Option<Document>,
}

impl Service {
    /// Registrations by id.
    pub async fn registrations(
        &self,
        filter: &RegistrationFilter,
        page: &PageRequest,
    ) -> Result<Page<RegistrationView>, Fault> {
        let Page { rows, next } = self.inner.store.list_registrations(filter, page).await.map_err(fault::of_store)?;
        let mut views = Vec::with_capacity(rows.len());
        for DeviceFile { registration, open, .. } in rows {
            let standing = Standing::read(registration.as_ref(), open).map_err(unreadable)?;
            views.extend(standing.map(|standing| RegistrationView { standing, tries: Vec::new() }));
        }
        Ok(Page { rows: views, next })
    }

    /// One registration, as its actor sees it.
    pub async fn registration(&self, id: &RegistrationId) -> Result<RegistrationView, Fault> {
        // An id that nobody has must not cost an actor.
        self.standing(id).await?.ok_or_else(|| fault::no_registration(id))?;
        let report = self.inner.directory.describe(id).await?;
        let standing = report.standing.ok_or_else(|| fault::no_registration(id))?;
        Ok(RegistrationView { standing, tries: report.tries })
    }

    /// The device's past, newest first. Outlives the registration.
    pub async fn history(&self, id: &RegistrationId) -> Result<Vec<Episode>, Fault> {
        let Kept { generations, open } = self.kept(id).await?;
        let mut episodes = Vec::new();
        for generation in generations {
            if let Some(log) = self.inner.store.load_move(generation).await.map_err(fault::of_store)? {
                let read = if open.contains(&generation) { Episode::read(log) } else { Episode::read_closed(log) };
                episodes.push(read.map_err(unreadable)?);
            }
        }
        Ok(episodes)
    }

    /// The device states that the history keeps of one move, oldest first, and whose they are.
    pub async fn history_states(
        &self,
        id: &RegistrationId,
        generation: Order,
    ) -> Result<(DeviceId, Vec<KeptState>), Fault> {
        let none =
            || Fault::new(Reason::TwinNotFound, format!("the history of {id} keeps no twin of move {generation}"));
        if !self.kept(id).await?.generations.contains(&generation) {
            return Err(none());
        }
        let log = self.inner.store.load_move(generation).await.map_err(fault::of_store)?.ok_or_else(none)?;
        let (device, states) = kept_states(log).ok_or_else(none)?;
        if states.is_empty() { Err(none()) } else { Ok((device, states)) }
    }

    /// The moves that are kept.
    async fn kept(&self, id: &RegistrationId) -> Result<Kept, Fault> {
        let DeviceFile { registration, open, earlier } =
            self.inner.store.load_device(id).await.map_err(fault::of_store)?;
        let open: Vec<Order> = open.iter().map(|log| log.generation).collect();
        let past = registration.map(|record| record.past).unwrap_or_default();
        let mut generations: Vec<Order> = past.moves.into_iter().chain(earlier.moves).collect();
        generations.extend(&open);
        generations.sort_unstable_by(|a, b| b.cmp(a));
        generations.dedup();
        if generations.is_empty() && self.standing(id).await?.is_none() {
            return Err(fault::no_registration(id));
        }
        Ok(Kept { generations, open })
    }

    /// Where the device would go now, and why. Decides nothing, writes nothing, asks no webhook.
    pub async fn explain(&self, id: &RegistrationId) -> Result<Explained, Fault> {
        let record = self.record(id).await?;
        let enrollment = self.deciding_enrollment(&record).await?;
        let pin = record.pin.clone().filter(|pin| pin.is_in_force(self.inner.clock.now()));
        let facts = policy::remembered_facts(record.policy, enrollment.reprovision);
        let made = match &record.assignment {
            Some(home) => self.inner.store.load_move(home.generation).await.map_err(fault::of_store)?,
            None => None,
        };
        let never_opened = made.and_then(|log| Move::replay(log).ok()).is_some_and(|made| made.unopened);
        let explanation = policy::evaluate(&Snapshot {
            registration_id: &record.id,
            enrollment: &enrollment,
            facts: &facts,
            current: record.assignment.as_ref().map(|assignment| &assignment.hub),
            never_opened,
            pin: pin.as_ref(),
            hubs: &self.inner.directory.fleet().views(),
            webhook: &WebhookOutcome::NotAsked,
            enrollment_changed: record.enrollment != enrollment.id || record.enrollment_version != enrollment.version,
        });
        Ok(Explained { enrollment, explanation, pin })
    }

    /// Decides now, without waiting for the device; to a named hub the device is pinned.
    pub async fn reprovision(
        &self,
        id: &RegistrationId,
        to: Option<PinRequest>,
        request_id: Option<RequestId>,
        by: &str,
    ) -> Result<RegistrationView, Fault> {
        let record = self.record(id).await?;
        let to = match to {
            None => None,
            Some(PinRequest { hub, reason, expires_at }) => {
                if !self.inner.directory.fleet().is_linked(&hub) {
                    return Err(fault::no_hub(&hub));
                }
                if expires_at.is_some_and(|at| at <= self.inner.clock.now()) {
                    return Err(Fault::invalid("pin_expires_at", "is not in the future"));
                }
                Some(PinTo { hub, reason, expires_at })
            }
        };
        let enrollment = self.as_of_device(self.deciding_enrollment(&record).await?, &record);
        let answer = self.inner.directory.reprovision(id, enrollment, to, by, request_id).await;
        let standing = fault::flat(answer)?.standing.ok_or_else(|| fault::no_registration(id))?;
        Ok(RegistrationView { standing, tries: Vec::new() })
    }

    /// Takes back the move that gave the device its home, and pins it where it was before.
    pub async fn undo(&self, id: &RegistrationId, wish: UndoWish) -> Result<RegistrationView, Fault> {
        let record = self.record(id).await?;
        if wish.expires_at.is_some_and(|at| at <= self.inner.clock.now()) {
            return Err(Fault::invalid("pin_expires_at", "is not in the future"));
        }
        let enrollment = self.as_of_device(self.deciding_enrollment(&record).await?, &record);
        self.viewed(id, self.inner.directory.undo(id, enrollment, wish).await)
    }

    /// Resolves what an open move waits for.
    pub async fn resolve(&self, id: &RegistrationId, wish: Resolve) -> Result<RegistrationView, Fault> {
        // An id that nobody has must not cost an actor.
        self.standing(id).await?.ok_or_else(|| fault::no_registration(id))?;
        self.viewed(id, self.inner.directory.resolve(id, wish).await)
    }

    /// Takes a late twin, and the move that left it, out of the history.
    pub async fn forget_late_twin(&self, id: &RegistrationId, generation: Order, by: &str) -> Result<(), Fault> {
        self.record(id).await?;
        fault::flat(self.inner.directory.forget_late_twin(id, generation, by).await).map(drop)
    }

    fn viewed(&self, id: &RegistrationId, answer: Result<Answer, Fault>) -> Result<RegistrationView, Fault> {
        let standing = fault::flat(answer)?.standing.ok_or_else(|| fault::no_registration(id))?;
        Ok(RegistrationView { standing, tries: Vec::new() })
    }

    /// Lifts a pin. Without one nothing changes.
    pub async fn unpin(
        &self,
        id: &RegistrationId,
        version: Option<Version>,
        by: &str,
    ) -> Result<RegistrationView, Fault> {
        let record = self.record(id).await?;
        fault::check_etag(format!("registration {id}"), version, record.version)?;
        let answer = self.inner.directory.unpin(id, by).await;
        let standing = fault::flat(answer)?.standing.ok_or_else(|| fault::no_registration(id))?;
        Ok(RegistrationView { standing, tries: Vec::new() })
    }

    /// Ends a registration and takes the device out of its hub; its history stays. Answers what is still to be done, or
    /// nothing when it is gone.
    pub async fn delete_registration(
        &self,
        id: &RegistrationId,
        version: Option<Version>,
        by: &str,
    ) -> Result<Option<RegistrationView>, Fault> {
        let standing = self.standing(id).await?.ok_or_else(|| fault::no_registration(id))?;
        fault::check_etag(format!("registration {id}"), version, standing.version)?;
        self.delete_as_seen(id, version.map(Seen::Version), by).await
    }

    /// As above, if the registration is still as it was seen when its actor comes to it.
    pub(super) async fn delete_as_seen(
        &self,
        id: &RegistrationId,
        seen: Option<Seen>,
        by: &str,
    ) -> Result<Option<RegistrationView>, Fault> {
        let why = "an operator deleted the registration";
        let accepted = fault::flat(self.inner.directory.release_as_seen(id, by, why, seen).await)?;
        Ok(accepted.standing.map(|standing| RegistrationView { standing, tries: Vec::new() }))
    }

    /// Keeps a device out: blocks it, then ends its registration. A device of a group is blocked by a disabled individual
    /// enrollment of its own, made here with the group's settings.
    pub async fn revoke(&self, id: &RegistrationId, reason: &str, by: &str) -> Result<Revoked, Fault> {
        let standing = self.standing(id).await?.ok_or_else(|| fault::no_registration(id))?;
        let individual = EnrollmentId::Individual(id.clone());
        let known = self.inner.store.load_enrollment(&individual).await.map_err(fault::of_store)?;
        match known {
            Some(_) => drop(self.set_enrollment_enabled(&individual, false, None, by).await?),
            None => self.block(&standing, by).await?,
        }
        let why = match reason {
            "" => "an operator revoked the device".to_owned(),
            reason => format!("an operator revoked the device: {reason}"),
        };
        let registration = match self.release(id, by, &why).await {
            Ok(registration) => registration,
            // Its first assignment was given up by the release: there is nothing left of it.
            Err(fault) if fault.reason == Reason::RegistrationNotFound => None,
            Err(fault) => return Err(fault),
        };
        Ok(Revoked { enrollment: individual, registration })
    }

    /// A disabled individual enrollment stands before every group.
    async fn block(&self, standing: &Standing, by: &str) -> Result<(), Fault> {
        let group = self.inner.store.load_enrollment(&standing.enrollment).await.map_err(fault::of_store)?;
        let now = self.inner.clock.now();
        let enrollment = Enrollment {
            id: EnrollmentId::Individual(standing.id.clone()),
            attestation: self.proof_on_record(standing),
            enabled: false,
            device_id: Some(standing.device_id.clone()),
            created_at: now,
            updated_at: now,
            version: Version::ABSENT,
            // With the settings of its group, it is as good as the group once an operator gives it a certificate.
            initial: group.as_ref().map(|group| group.initial.clone()).unwrap_or_default(),
            reprovision: group.as_ref().and_then(|group| group.reprovision),
            allocation: group.as_ref().and_then(|group| group.allocation.clone()),
            hubs: group.as_ref().map(|group| group.hubs.clone()).unwrap_or_default(),
            unreachable: group.as_ref().map_or(WAIT, |group| group.unreachable),
            allow_late_writes: group.as_ref().is_some_and(|group| group.allow_late_writes),
            reset_on_same_hub: group.as_ref().map(|group| group.reset_on_same_hub).unwrap_or_default(),
            reassign_when_down: group.as_ref().is_some_and(|group| group.reassign_when_down),
            adopt_existing: group.as_ref().is_some_and(|group| group.adopt_existing),
        };
        let detail = format!("{} was created disabled, to keep the device out", enrollment.id);
        self.put_enrollment(enrollment, AuditAction::EnrollmentCreated, by, detail).await.map(drop)
    }

    /// What the device proved itself by last, so that it can prove itself again and is told that it is disabled.
    fn proof_on_record(&self, standing: &Standing) -> Attestation {
        let recorded = standing.assignment.as_ref().and_then(|assignment| assignment.credential.as_ref());
        match recorded {
            Some(Credential::Shared(keys)) => Attestation::SymmetricKey(keys.clone()),
            Some(Credential::X509 { .. } | Credential::Delivered(_)) | None => {
                Attestation::X509Leaf(self.leaves_on_record(standing))
            }
        }
    }

    /// What is on record of the device's certificate is its thumbprint. Where not even that is known for sure, one that no
    /// certificate has keeps the place: the device is then refused instead of being told that it is disabled.
    fn leaves_on_record(&self, standing: &Standing) -> X509Leaves {
        let recorded = standing.assignment.as_ref().and_then(|assignment| assignment.credential.as_ref());
        let mut thumbprints = match recorded {
            Some(Credential::X509 { thumbprints }) => thumbprints.clone(),
            // Its id is what keeps a device with a TPM out: an individual enrollment stands before every group.
            Some(Credential::Delivered(_) | Credential::Shared(_)) | None => Vec::new(),
        }
        .into_iter();
        let leaf = |thumbprint| CertificateRef { der: Vec::new(), thumbprint, subject: Thumbprint([0; 32]) };
        let primary = thumbprints.next().unwrap_or_else(|| {
            let mut bytes = [0; 32];
            self.inner.entropy.fill(&mut bytes);
            Thumbprint(bytes)
        });
        X509Leaves { primary: leaf(primary), secondary: thumbprints.next().map(leaf) }
    }

    async fn release(&self, id: &RegistrationId, by: &str, why: &str) -> Result<Option<RegistrationView>, Fault> {
        let accepted = fault::flat(self.inner.directory.release(id, by, why).await)?;
        Ok(accepted.standing.map(|standing| RegistrationView { standing, tries: Vec::new() }))
    }

    pub(super) async fn record(&self, id: &RegistrationId) -> Result<Registration, Fault> {
        let file = self.inner.store.load_device(id).await.map_err(fault::of_store)?;
        file.registration.ok_or_else(|| fault::no_registration(id))
    }

    /// The enrollment that would decide: the individual one, else the one that decided last.
    async fn deciding_enrollment(&self, record: &Registration) -> Result<Arc<Enrollment>, Fault> {
        let individual = EnrollmentId::Individual(record.id.clone());
        match self.inner.store.load_enrollment(&individual).await.map_err(fault::of_store)? {
            Some(enrollment) => Ok(enrollment),
            None => self.enrollment(&record.enrollment).await,
        }
    }
}

fn unreadable(illegal: Illegal) -> Fault {
    tracing::error!("a journal cannot be followed: {illegal}");
    Fault::new(Reason::Internal, "a device's record cannot be read, the log has the details")
}

/// The states in a journal, in its order. `None` for a journal without an intent, which nobody writes.
fn kept_states(log: MoveLog) -> Option<(DeviceId, Vec<KeptState>)> {
    let mut lines = log.lines.into_iter();
    let first = lines.next()?;
    let begun_at = first.at;
    let JournalRecord::Intent(intent) = first.record else { return None };
    let sealing = intent.plan.steps().before.iter().find(|step| step.effect == Effect::Seal);
    let sealed_at = sealing.and_then(|step| intent.plan.hub(step.side));
    let from = intent.plan.hub(Side::From).cloned();
    let mut kept = Vec::new();
    let planted_at = match &intent.plan {
        Plan::Restore { seen_at, .. } => Some(*seen_at),
        // What is put into the history by itself names no hub: the device is not to be deleted there.
        Plan::Rehouse { .. } | Plan::Collect { .. } => Some(begun_at),
        Plan::Assign { .. }
        | Plan::TakeOver { .. }
        | Plan::Relocate { .. }
        | Plan::Replant { .. }
        | Plan::ResetInPlace { .. }
        | Plan::Refresh { .. }
        | Plan::Release { .. } => None,
    };
    if let (Some(at), Some(state)) = (planted_at, &intent.planted) {
        kept.push(KeptState { hub: from.clone(), at, late: false, state: (**state).clone(), differences: None });
    }
    for line in lines {
        let (hub, at, late, state) = match line.record {
            JournalRecord::StepDone { effect: Effect::Seal, state } => (sealed_at.cloned(), line.at, false, state),
            JournalRecord::Collected { hub, state } => (Some(hub), line.at, true, state),
            JournalRecord::Settled { hub, state, .. } => (Some(hub), line.at, false, state),
            JournalRecord::Bypassed { known: Some(known), .. } => {
                (from.clone(), known.seen_at, false, Some(known.state))
            }
            JournalRecord::Regained { state, .. } => (from.clone(), line.at, false, Some(state)),
            JournalRecord::Intent(_)
            | JournalRecord::StepDone { .. }
            | JournalRecord::Pivoted { .. }
            | JournalRecord::Aborted { .. }
            | JournalRecord::Stuck { .. }
            | JournalRecord::Dropped { .. }
            | JournalRecord::Bypassed { known: None, .. }
            | JournalRecord::Retried { .. }
            | JournalRecord::Abandoned { .. } => continue,
        };
        if let (Some(hub), Some(state)) = (hub, state) {
            let carried = kept.first().filter(|_| late).map(|first: &KeptState| &first.state.twin);
            let differences = carried.map(|carried| differences(carried, &state.twin));
            kept.push(KeptState { hub: Some(hub), at, late, state: *state, differences });
        }
    }
    Some((intent.device.clone(), kept))
}

fn differences(carried: &Twin, late: &Twin) -> Document {
    let parts = [
        ("tags", carried.tags.difference_to(&late.tags)),
        ("desired", carried.desired.properties.difference_to(&late.desired.properties)),
        ("reported", carried.reported.properties.difference_to(&late.reported.properties)),
    ];
    Document(parts.into_iter().map(|(name, part)| (name.to_owned(), part.0.into())).collect())
}
