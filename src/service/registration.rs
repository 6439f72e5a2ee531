//! What a device asks for: to be registered, and how its registration stands.
//!
//! A caller that proved nothing is told one thing only, *refused*, with a tracking id; why stands in the audit log under
//! that id. Everything else is told to callers whose evidence verified.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::future::ready;
use futures_util::stream;
use futures_util::{Stream, StreamExt as _};
use tracing::Instrument;

use crate::actors::{Accepted, Refused, Updates};
use crate::attestation::x509::{Presented, Refusal};
use crate::domain::{
    AuditAction, AuditEntry, ClientFacts, EnrollmentId, Evidence, Fault, Hub, Kind, OperationId, OperationStatus,
    Reason, RegistrationId, RequestId, Timestamp, TrackingId,
};
use crate::moves::Standing;
use crate::store::Commit;
use crate::telemetry::{self, Queue, RegistrationOutcome};

use super::crowd::Place;
use super::proof::{Proven, Unproven};
use super::tpm::TpmAnswer;
use super::{Service, fault};

/// How often evidence is judged again because the enrollment changed between judgement and commit.
pub(super) const JUDGEMENTS_MAX: u32 = 3;
/// When a device that polls should ask again: most moves are over by then.
const POLL_AFTER: Duration = Duration::from_secs(2);
/// When a device should register again after a failure that may pass.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// Ends of an actor in a row that a stream follows before it gives up.
const REDESCRIPTIONS_MAX: u32 = 3;

/// Where a call comes from and what it presents. One for a connection: its chain is read when it is first asked for, and
/// then remembered.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: SocketAddr,
    pub evidence: Evidence,
    pub(super) presented: OnceLock<Result<Box<Presented>, Refusal>>,
}

impl Peer {
    pub fn new(address: SocketAddr, evidence: Evidence) -> Self {
        Self { address, evidence, presented: OnceLock::new() }
    }

    /// The chain, read; what it is worth is another question.
    pub(super) fn presented(&self) -> Result<&Presented, Refusal> {
        let read = self.presented.get_or_init(|| match &self.evidence {
            Evidence::None | Evidence::Token(_) => Err(Refusal::NothingPresented),
            Evidence::X509 { chain } => Presented::parse(chain).map(Box::new),
        });
        read.as_deref().map_err(|refusal| *refusal)
    }
}

/// What a device asks with.
#[derive(Debug, Clone)]
pub struct RegisterAsk {
    pub registration_id: RegistrationId,
    pub facts: ClientFacts,
    pub request_id: Option<RequestId>,
    /// The answer to a challenge, beside the token that the call presents.
    pub tpm: Option<TpmAnswer>,
}

/// How a device stands, as the device is told.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceView {
    pub standing: Standing,
    /// The record of its home, where that is linked.
    pub home: Option<Hub>,
    /// When to ask, or to register, again.
    pub retry_after: Option<Duration>,
}

/// A registration that was taken.
#[derive(Debug, Clone)]
pub struct Registering {
    pub view: DeviceView,
    /// One sentence: what was decided and why.
    pub why: String,
    pub(super) updates: Updates,
}

impl Service {
    /// Registers a device that proves itself. Answers once what follows is decided and committed, not once it is done:
    /// see [`Service::follow`]. While an operation runs a second call joins it.
    pub async fn register(&self, peer: &Peer, ask: &RegisterAsk) -> Result<Registering, Fault> {
        let span = telemetry::registration_span(&ask.registration_id, None);
        let registering = self.register_inside(peer, ask).instrument(span.clone()).await?;
        let operation = &registering.view.standing.operation;
        telemetry::operation_started(&span, &operation.id);
        span.in_scope(|| tracing::info!("{}: {}", operation.status.as_str(), registering.why));
        Ok(registering)
    }

    async fn register_inside(&self, peer: &Peer, ask: &RegisterAsk) -> Result<Registering, Fault> {
        // Held until it is decided.
        let _place = self.place()?;
        if let Some(answer) = &ask.tpm {
            return self.register_by_tpm(peer, ask, answer).await;
        }
        for _ in 0..JUDGEMENTS_MAX {
            let Proven { verified, enrollment } = self.admit(peer, &ask.registration_id).await?;
            let directory = &self.inner.directory;
            let answer = directory.register(verified, enrollment, ask.facts.clone(), ask.request_id.clone()).await?;
            match answer {
                Ok(accepted) => return self.registering(&ask.registration_id, accepted),
                Err(Refused::Rejudge) => tracing::debug!("the enrollment changed meanwhile, judging again"),
                Err(Refused::Fault(fault)) => return Err(fault),
            }
        }
        Err(fault::of_refused(Refused::Rejudge))
    }

    /// A place among the registrations that are worked on; beyond what can be served nothing is looked up for anybody.
    pub(super) fn place(&self) -> Result<Place<'_>, Fault> {
        let (now, draw) = (self.inner.clock.monotonic(), self.inner.entropy.draw_u128());
        self.inner.crowd.enter(now, draw).map_err(|wait| {
            telemetry::overloaded(Queue::Registrations);
            Fault::new(Reason::Overloaded, "more devices register at once than can be served").retry_after(wait)
        })
    }

    /// Registrations that are worked on now.
    pub fn registrations_inside(&self) -> usize {
        self.inner.crowd.inside()
    }

    pub(super) fn registering(&self, id: &RegistrationId, accepted: Accepted) -> Result<Registering, Fault> {
        let Accepted { standing, why, updates } = accepted;
        let standing = standing.ok_or_else(|| fault::no_registration(id))?;
        Ok(Registering { view: self.device_view(standing), why, updates })
    }

    /// How the device's operation goes: the view it starts with, then every change, up to the first final one. Ends with
    /// a fault when the registration goes away.
    pub fn follow(&self, registering: Registering) -> impl Stream<Item = Result<DeviceView, Fault>> + Send + use<> {
        let Registering { view, updates, why: _ } = registering;
        // What is over at once, as most are, needs nobody who follows it.
        let goes_on = |view: &DeviceView| !view.standing.operation.status.is_final();
        let following = goes_on(&view).then(|| {
            let last = Some(view.clone());
            Box::new(Following { service: self.clone(), last, updates })
        });
        let rest = stream::unfold(following, move |following| async move {
            let mut following = following?;
            match following.next().await {
                Ok(view) => {
                    following.last = Some(view.clone());
                    let following = goes_on(&view).then_some(following);
                    Some((Ok(view), following))
                }
                Err(fault) => Some((Err(fault), None)),
            }
        });
        stream::once(ready(Ok(view))).chain(rest)
    }

    /// The status of the device's last operation, from the store: wakes nobody.
    pub async fn operation(
        &self,
        peer: &Peer,
        id: &RegistrationId,
        operation: OperationId,
    ) -> Result<DeviceView, Fault> {
        let unknown =
            || Fault::new(Reason::OperationNotFound, format!("{operation} is not the last operation of {id}"));
        match self.read_by_token(peer, id).await? {
            Some(own) if own != operation => return Err(unknown()),
            Some(_) => {}
            None => drop(self.admit(peer, id).await?),
        }
        let standing = self.standing(id).await?.filter(|standing| standing.operation.id == operation);
        standing.map(|standing| self.device_view(standing)).ok_or_else(unknown)
    }

    /// The device's own record, from the store: wakes nobody and changes nothing.
    pub async fn look_up(&self, peer: &Peer, id: &RegistrationId) -> Result<DeviceView, Fault> {
        let own = self.read_by_token(peer, id).await?;
        if own.is_none() {
            self.admit(peer, id).await?;
        }
        let standing = self.standing(id).await?.ok_or_else(|| fault::no_registration(id))?;
        match own {
            // A token reads the operation that it was made for, and no later one.
            Some(own) if own != standing.operation.id => {
                let message = format!("{own} is not the last operation of {id} any more");
                Err(Fault::new(Reason::OperationNotFound, message))
            }
            Some(_) | None => Ok(self.device_view(standing)),
        }
    }

    /// How a device stands according to the store.
    pub(super) async fn standing(&self, id: &RegistrationId) -> Result<Option<Standing>, Fault> {
        let file = self.inner.store.load_device(id).await.map_err(fault::of_store)?;
        Standing::read(file.registration.as_ref(), file.open).map_err(|illegal| {
            tracing::error!(registration_id = %id, "the journal cannot be followed: {illegal}");
            Fault::new(Reason::Internal, "the device's record cannot be read, the log has the details")
        })
    }

    /// A device's registration as the device would be told of it, from the store: wakes nobody. For callers that may see
    /// every device.
    pub async fn registration_state(&self, id: &RegistrationId) -> Result<Option<DeviceView>, Fault> {
        Ok(self.standing(id).await?.map(|standing| self.device_view(standing)))
    }

    /// As above, of one that was listed.
    pub fn device_view(&self, standing: Standing) -> DeviceView {
        let home = standing.assignment.as_ref().and_then(|at| self.inner.directory.fleet().berth(&at.hub));
        let retry_after = retry_after(&standing.operation.status);
        DeviceView { standing, home: home.map(|berth| berth.hub), retry_after }
    }

    /// Lets a caller in that proves to be the device, or refuses it in a way that tells nothing.
    async fn admit(&self, peer: &Peer, id: &RegistrationId) -> Result<Proven, Fault> {
        let started = self.inner.clock.now();
        self.check_throttle(peer, id, started)?;
        match self.prove(peer, id).await {
            Ok(proven) => Ok(proven),
            Err(unproven) => Err(self.turn_away(peer, id, unproven, Reason::RegistrationRefused, started).await),
        }
    }

    /// Lets nobody try who was refused too often, except who is known.
    pub(super) fn check_throttle(&self, peer: &Peer, id: &RegistrationId, now: Timestamp) -> Result<(), Fault> {
        let wait = self.inner.throttle.wait(peer.address.ip(), id, now);
        if wait.is_zero() || self.is_known(peer) {
            return Ok(());
        }
        telemetry::rate_limited("peer_refusals_per_minute");
        let message = "too many refused registrations came from this address";
        Err(Fault::new(Reason::RateLimited, message).retry_after(wait))
    }

    /// What a caller is told who proved nothing.
    pub(super) async fn turn_away(
        &self,
        peer: &Peer,
        id: &RegistrationId,
        unproven: Unproven,
        reason: Reason,
        started: Timestamp,
    ) -> Fault {
        match unproven {
            Unproven::Fault(fault) => fault,
            Unproven::Refused { why, enrollment } => {
                self.inner.throttle.note(peer.address.ip(), id, started);
                self.refuse(peer, id, enrollment, why, reason, started).await
            }
        }
    }

    /// One answer, whatever the cause, and no sooner than any cause takes.
    async fn refuse(
        &self,
        peer: &Peer,
        id: &RegistrationId,
        enrollment: Option<EnrollmentId>,
        why: String,
        reason: Reason,
        started: Timestamp,
    ) -> Fault {
        let tracking = TrackingId(self.inner.entropy.draw_u128());
        tracing::info!(tracking_id = %tracking, peer = %peer.address.ip(), "a registration was refused: {why}");
        let entry = AuditEntry {
            registration: Some(id.clone()),
            enrollment,
            tracking: Some(tracking),
            ..AuditEntry::new(started, peer.address.ip().to_string(), AuditAction::RegistrationRefused, why)
        };
        let commit = Commit { audit: vec![entry], ..Commit::default() };
        if let Err(fault) = self.inner.store.commit(commit).await {
            tracing::error!(tracking_id = %tracking, "the refusal is not in the audit log: {fault}");
        }
        let took = self.inner.clock.now().since(started);
        telemetry::registration_finished(RegistrationOutcome::Refused, Some(reason), took);
        self.inner.clock.sleep_until(started.plus(self.inner.config.refuse_after)).await;
        let message = match reason {
            Reason::TpmChallengeOutdated => "the challenge does not count (any more): begin the proof by TPM again",
            _ => "the registration was refused; an operator finds the reason under the tracking id",
        };
        Fault::new(reason, message).with("tracking_id", tracking.to_string())
    }
}

/// One that is told how a device's operation goes.
struct Following {
    service: Service,
    last: Option<DeviceView>,
    updates: Updates,
}

impl Following {
    /// The next view that differs from the last one.
    async fn next(&mut self) -> Result<DeviceView, Fault> {
        let mut ends = 0;
        loop {
            let standing = match self.updates.changed().await {
                Ok(()) => self.updates.borrow_and_update().clone(),
                Err(_) if ends < REDESCRIPTIONS_MAX => {
                    ends += 1;
                    self.describe_again().await?
                }
                Err(_) => {
                    let message = "the device's record cannot be worked on now, register again";
                    return Err(Fault::new(Reason::ServiceUnavailable, message).retry_after(POLL_AFTER));
                }
            };
            let Some(standing) = standing else {
                return Err(Fault::new(Reason::RegistrationNotFound, "the registration was deleted"));
            };
            let view = self.service.device_view(standing);
            if self.last.as_ref() != Some(&view) {
                return Ok(view);
            }
        }
    }

    /// The actor has ended; another one has, or will have, read the store.
    async fn describe_again(&mut self) -> Result<Option<Standing>, Fault> {
        let Some(id) = self.last.as_ref().map(|view| view.standing.id.clone()) else { return Ok(None) };
        let report = self.service.inner.directory.describe(&id).await?;
        self.updates = report.updates;
        Ok(report.standing)
    }
}

fn retry_after(status: &OperationStatus) -> Option<Duration> {
    match status {
        OperationStatus::Assigning => Some(POLL_AFTER),
        OperationStatus::Failed { reason, .. } => match reason.kind() {
            Kind::Unavailable | Kind::Exhausted => Some(RETRY_AFTER),
            Kind::Conflict => (*reason == Reason::NoHubAvailable).then_some(RETRY_AFTER),
            Kind::Invalid | Kind::Unauthenticated | Kind::Denied | Kind::NotFound | Kind::Internal => None,
        },
        OperationStatus::Assigned { .. } | OperationStatus::Disabled => None,
    }
}
