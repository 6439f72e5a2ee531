//! One hub that goes on from an older copy: every device is set as record and journal say, then the hub is let in again.
//!
//! Until the end the hub refuses everything, and the service makes no calls to it, so that nothing moves meanwhile but
//! what needs no call: moves may be given up, or pass the hub by. Devices that have open moves are therefore looked at
//! once more at the very end.

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::domain::{
    AuditAction, AuditEntry, Credential, DeviceId, DeviceState, Fault, FeedToken, Hub, HubId, InitialState,
    OperationId, Order, Reason, Registration, RegistrationId, SubStatus, UnreachableRule, limits,
};
use crate::hubs::entry::Phase;
use crate::hubs::{HubConnector, Reinstated, Reinstatement as Setting};
use crate::moves::{Intent, LeftOver, Machine, Move, Plan, Preconditions, Stand, left_over, stand_at};
use crate::service::fault;
use crate::store::{Change, Commit, CommitFault, DeviceFile, PageRequest, RegistrationFilter};

use super::home::Newest;
use super::{DeviceNews, ReconcileNews, Reinstatement, Run, away};

/// How often a device is looked at again that goes on meanwhile.
const LOOKS_MAX: u32 = 8;

/// The hub at hand, and what names this run there.
pub(super) struct Patient<'a> {
    pub hub: &'a Hub,
    pub connector: &'a dyn HubConnector,
    pub incarnation: crate::domain::Incarnation,
    pub session: Order,
}

impl Run {
    pub(super) async fn hub(&self, hub: Hub) -> Result<(), Fault> {
        let inner = &self.ground;
        let berth = inner.fleet.berth(&hub.id).ok_or_else(|| fault::no_hub(&hub.id))?;
        let report = berth.connector.describe().await.map_err(|why| away(&hub.id, why))?;
        let is_known = hub.incarnation.is_none_or(|known| known == report.incarnation);
        if is_known && !report.restored {
            // Whatever was believed of it: it is of the incarnation that is known, and accepts writes.
            if !self.dry_run {
                inner.fleet.set_restored(&hub.id, false);
            }
            return Ok(());
        }
        inner.fleet.set_restored(&hub.id, true);
        let session = if self.dry_run { Order::default() } else { self.begin(&hub.id).await? };
        let connector = berth.connector.as_ref();
        let patient = Patient { hub: &hub, connector, incarnation: report.incarnation, session };
        self.teller.tell(ReconcileNews::HubBegan { hub: hub.id.clone(), devices: report.devices }).await?;
        let mut devices = 0;
        if report.restored {
            let here = all_devices(&hub.id, connector).await?;
            devices += self.homes(&patient).await?;
            devices += self.left_overs(&patient, here).await?;
        }
        if !self.dry_run {
            for id in inner.store.unfinished().await.map_err(fault::of_store)? {
                self.home(&patient, &id, false).await?;
            }
            self.let_in(&patient).await?;
        }
        self.teller.tell(ReconcileNews::HubDone { hub: hub.id.clone(), devices }).await
    }

    async fn begin(&self, hub: &HubId) -> Result<Order, Fault> {
        let detail = format!("hub {hub} was restored from an older copy; going through its devices");
        let audit = self.entry(hub, detail);
        let commit = Commit { audit: vec![audit], ..Commit::default() };
        self.ground.store.commit(commit).await.map_err(fault::of_commit)
    }

    pub(super) fn entry(&self, hub: &HubId, detail: String) -> AuditEntry {
        let now = self.ground.clock.now();
        AuditEntry { hub: Some(hub.clone()), ..AuditEntry::new(now, &*self.by, AuditAction::HubReconciled, detail) }
    }

    /// Every device that lives here by our records.
    async fn homes(&self, patient: &Patient<'_>) -> Result<u64, Fault> {
        let filter = RegistrationFilter { hub: Some(patient.hub.id.clone()), ..RegistrationFilter::default() };
        let (mut devices, mut page) = (0, PageRequest { size: limits::PAGE_SIZE_MAX, token: None });
        loop {
            let found = self.ground.store.list_registrations(&filter, &page).await.map_err(fault::of_store)?;
            let ids: Vec<RegistrationId> =
                found.rows.into_iter().filter_map(|file| Some(file.registration?.id)).collect();
            devices += ids.len() as u64;
            let settled = stream::iter(ids).map(|id| async move { self.home(patient, &id, true).await });
            settled.buffer_unordered(limits::RECONCILED_AT_ONCE).try_collect::<()>().await?;
            match found.next {
                Some(token) => page.token = Some(token),
                None => return Ok(devices),
            }
        }
    }

    /// Sets one device right whose home is here; others are left alone.
    async fn home(&self, patient: &Patient<'_>, id: &RegistrationId, tell: bool) -> Result<(), Fault> {
        let (hub, inner) = (&patient.hub.id, &self.ground);
        let file = inner.store.load_device(id).await.map_err(fault::of_store)?;
        let Some(record) = &file.registration else { return Ok(()) };
        let moves = replay(&file)?;
        let (tenancy, phase, journaled, held) = match stand_at(hub, Some(record), moves.iter()) {
            Stand::Open(tenancy) => (tenancy, Phase::Open, None, false),
            Stand::Held(tenancy, state) => (tenancy, Phase::Sealed, Some(state), true),
            Stand::Sealed(tenancy, state) => (tenancy, Phase::Sealed, state, false),
            Stand::Staged(tenancy, state) => (tenancy, Phase::Staged, Some(state), false),
            Stand::Leaving | Stand::Elsewhere => {
                // What lived here when it was looked at first may have left since.
                if !self.dry_run && !tell {
                    self.set(patient, &record.device_id, Reinstated::Sealed).await?;
                }
                return Ok(());
            }
        };
        let mut newest = self.newest(record, &moves, patient.connector).await?;
        // To the letter, unless the hub has opened it unheard and more is known of it since.
        if let Some(state) = journaled.filter(|it| held || it.twin.progress() >= newest.state.twin.progress()) {
            let seen_at = newest.seen_at.filter(|_| !held);
            newest = Newest { state, became: Reinstatement::AsJournaled, seen_at, ..newest };
        }
        if !held {
            newest.state.twin = newest.state.twin.ahead_of_lost_writes();
        }
        let Newest { state, became, seen_at, older } = newest;
        let version = Some(state.twin.version);
        if !self.dry_run {
            if let Some(older) = older {
                self.keep(hub, id, older).await?;
            }
            // First the report, then what makes the loss invisible: a run that begins again finds everything as it is set. What
            // is set counts as seen, or a hub that is restored once more would show versions again that it has shown since.
            let entry = tell.then(|| {
                let since = seen_at.map_or(String::new(), |at| format!(", as it was at {at}"));
                let detail = format!("hub {hub} was restored: {} {}{since}", record.device_id, became.as_str());
                AuditEntry { registration: Some(id.clone()), ..self.entry(hub, detail) }
            });
            let seen = Change::NoteSeen {
                hub: hub.clone(),
                // Its feed is read from the beginning.
                token: FeedToken { incarnation: patient.incarnation, position: 0 },
                seen_at: inner.clock.now(),
                rows: vec![(record.device_id.clone(), (*state).clone())],
            };
            let commit = Commit { changes: vec![seen], audit: entry.into_iter().collect(), ..Commit::default() };
            inner.store.commit(commit).await.map_err(fault::of_commit)?;
            let becomes = Reinstated::As {
                generation: tenancy.generation,
                phase,
                fence: tenancy.fence(patient.session),
                credential: tenancy.credential,
                state,
            };
            self.set(patient, &record.device_id, becomes).await?;
        }
        if !tell {
            return Ok(());
        }
        self.news(hub, &record.device_id, Some(id), became, seen_at, version).await
    }

    async fn set(&self, patient: &Patient<'_>, device: &DeviceId, becomes: Reinstated) -> Result<(), Fault> {
        let setting =
            Setting { incarnation: patient.incarnation, session: patient.session, device: device.clone(), becomes };
        patient.connector.reinstate(&setting).await.map_err(|why| away(&patient.hub.id, why))
    }

    /// Every device that the copy holds and that does not live here.
    async fn left_overs(&self, patient: &Patient<'_>, here: Vec<(DeviceId, Order)>) -> Result<u64, Fault> {
        let settled = stream::iter(here).map(|(device, of)| async move { self.left_over(patient, &device, of).await });
        settled.buffer_unordered(limits::RECONCILED_AT_ONCE).try_fold(0, |all, one| async move { Ok(all + one) }).await
    }

    async fn left_over(&self, patient: &Patient<'_>, device: &DeviceId, found: Order) -> Result<u64, Fault> {
        let (hub, inner) = (&patient.hub.id, &self.ground);
        let owner = inner.store.find_owner(device).await.map_err(fault::of_store)?;
        let Some(owner) = owner else {
            if !self.dry_run {
                self.set(patient, device, Reinstated::Sealed).await?;
            }
            self.news(hub, device, None, Reinstatement::Unknown, None, None).await?;
            return Ok(1);
        };
        let file = inner.store.load_device(&owner).await.map_err(fault::of_store)?;
        let moves = replay(&file)?;
        match left_over(hub, file.registration.as_ref(), moves.iter(), found) {
            LeftOver::Home => return Ok(0),
            LeftOver::Owed | LeftOver::InTheWay | LeftOver::Loose => {}
        }
        if !self.dry_run {
            // Closed first: what is still owed, or ordered now, is done once the hub is let in.
            self.set(patient, device, Reinstated::Sealed).await?;
            self.collect(hub, &owner, found).await?;
        }
        self.news(hub, device, Some(&owner), Reinstatement::Collected, None, None).await?;
        Ok(1)
    }

    /// Orders what a hub still has of a device that lives elsewhere to be taken into its history and deleted, beside
    /// whatever else is under way. A move that would bring the device there is given up first: it could not. Its home may
    /// change meanwhile, or come to be here: then nothing is ordered.
    pub(super) async fn collect(&self, hub: &HubId, id: &RegistrationId, found: Order) -> Result<(), Fault> {
        for _ in 0..LOOKS_MAX {
            let machine = self.machine(id).await?;
            let Some(record) = machine.registration() else { return Ok(()) };
            let now = self.ground.clock.now();
            let step = match left_over(hub, Some(record), machine.moves(), found) {
                LeftOver::Home | LeftOver::Owed => return Ok(()),
                LeftOver::InTheWay => {
                    let message =
                        format!("hub {hub} was restored from an older copy and has the device of an earlier time");
                    machine.give_up(Reason::HubStateConflict, message, now)
                }
                LeftOver::Loose => {
                    let why = format!("hub {hub} had a twin of {} left, whose home is elsewhere", record.device_id);
                    Some(self.aside(&machine, record, Some(hub), None, hub, why))
                }
            };
            // Nothing to give up: it is over by now, or of another life.
            let Some(step) = step else { continue };
            let is_ordered = step.lines.iter().any(|(generation, _)| generation.is_none());
            if self.written(id, step).await? && is_ordered {
                return Ok(());
            }
        }
        Err(keeps_changing(id))
    }

    /// Puts a state into the history of a device: what its hub had of an earlier time that the device lived there.
    async fn keep(&self, hub: &HubId, id: &RegistrationId, state: Box<DeviceState>) -> Result<(), Fault> {
        for _ in 0..LOOKS_MAX {
            let machine = self.machine(id).await?;
            let Some(record) = machine.registration() else { return Ok(()) };
            let why = format!("the copy of hub {hub} had {} of an earlier time that it lived there", record.device_id);
            let step = self.aside(&machine, record, None, Some(state.clone()), hub, why);
            if self.written(id, step).await? {
                return Ok(());
            }
        }
        Err(keeps_changing(id))
    }

    async fn machine(&self, id: &RegistrationId) -> Result<Machine, Fault> {
        let file = self.ground.store.load_device(id).await.map_err(fault::of_store)?;
        let machine = Machine::load(id.clone(), file.registration, file.open, file.earlier);
        machine.map_err(|illegal| Fault::new(Reason::Internal, illegal.to_string()))
    }

    /// Whether a step of a device was written; otherwise the device has gone on meanwhile.
    async fn written(&self, id: &RegistrationId, step: crate::moves::Commit) -> Result<bool, Fault> {
        let inner = &self.ground;
        match inner.store.commit(step.into()).await {
            Ok(_) => {
                inner.tidings.read_again(id);
                Ok(true)
            }
            Err(CommitFault::Unexpected(_)) => Ok(false),
            Err(fault @ CommitFault::NotWritten(_)) => Err(fault::of_commit(fault)),
            // It may be there, and nobody else would tell the device's actor.
            Err(fault @ CommitFault::Unknown(_)) => {
                inner.tidings.read_again(id);
                Err(fault::of_commit(fault))
            }
        }
    }

    /// The commit that begins a [`Plan::Collect`].
    fn aside(
        &self,
        machine: &Machine,
        record: &Registration,
        from: Option<&HubId>,
        planted: Option<Box<DeviceState>>,
        hub: &HubId,
        why: String,
    ) -> crate::moves::Commit {
        let entry = AuditEntry { registration: Some(record.id.clone()), ..self.entry(hub, why.clone()) };
        let intent = Intent {
            operation: OperationId(self.ground.entropy.draw_u128()),
            request_id: None,
            by: self.by.clone(),
            registration: record.id.clone(),
            device: record.device_id.clone(),
            plan: Plan::Collect { from: from.cloned() },
            enrollment: record.enrollment.clone(),
            enrollment_version: record.enrollment_version,
            policy: record.policy,
            sub_status: SubStatus::ReprovisionedToInitialAssignment,
            credential: Credential::x509([]),
            initial: InitialState::default(),
            planted,
            unreachable: UnreachableRule::LastKnown,
            allow_late_writes: false,
            adopt_existing: false,
            payload: None,
            tpm: None,
            pin: None,
            why,
        };
        let mut step = machine.begin(Box::new(intent), Preconditions::default(), self.ground.clock.now());
        step.audit.push(entry);
        step
    }

    /// The last two steps, in this order: were the hub let in first, it would be gone through again after a crash while it
    /// accepts writes.
    async fn let_in(&self, patient: &Patient<'_>) -> Result<(), Fault> {
        let inner = &self.ground;
        let _gate = inner.fleet_gate.lock().await;
        let hub = inner.store.load_hub(&patient.hub.id).await.map_err(fault::of_store)?;
        let hub = hub.ok_or_else(|| fault::no_hub(&patient.hub.id))?;
        let id = hub.id.clone();
        if hub.incarnation != Some(patient.incarnation) {
            let hub = Hub { incarnation: Some(patient.incarnation), updated_at: inner.clock.now(), ..hub };
            let entry = self.entry(&id, format!("hub {id} goes on as incarnation {}", patient.incarnation));
            let commit = Commit {
                changes: vec![Change::PutHub(Box::new(hub.clone()))],
                audit: vec![entry],
                ..Commit::default()
            };
            inner.store.commit(commit).await.map_err(fault::of_commit)?;
            inner.tidings.hub_changed(Hub { version: hub.version.next(), ..hub }).await;
        }
        let admitted = patient.connector.readmit(patient.incarnation, patient.session).await;
        admitted.map_err(|why| away(&id, why))?;
        inner.fleet.set_restored(&id, false);
        Ok(())
    }

    pub(super) async fn news(
        &self,
        hub: &HubId,
        device: &DeviceId,
        registration: Option<&RegistrationId>,
        became: Reinstatement,
        seen_at: Option<crate::domain::Timestamp>,
        version: Option<u64>,
    ) -> Result<(), Fault> {
        let (hub, device, registration) = (hub.clone(), device.clone(), registration.cloned());
        let news = DeviceNews { hub, device, registration, became, seen_at, version };
        self.teller.tell(ReconcileNews::Device(news)).await
    }
}

fn keeps_changing(id: &RegistrationId) -> Fault {
    Fault::new(Reason::ServiceUnavailable, format!("{id} keeps changing: run it again to go on"))
}

/// The open moves of a device. One that cannot be replayed ends the run: nothing may be guessed about it.
pub(super) fn replay(file: &DeviceFile) -> Result<Vec<Move>, Fault> {
    let moves = file.open.iter().cloned().map(Move::replay).collect::<Result<Vec<_>, _>>();
    moves.map_err(|illegal| Fault::new(Reason::Internal, illegal.to_string()))
}

/// All devices that a hub has, and what brought them there.
async fn all_devices(hub: &HubId, connector: &dyn HubConnector) -> Result<Vec<(DeviceId, Order)>, Fault> {
    let (mut devices, mut since) = (Vec::new(), None);
    loop {
        let page = connector.changes(since, limits::FEED_ROWS_MAX).await.map_err(|why| away(hub, why))?;
        devices.extend(page.rows.into_iter().map(|row| (row.device, row.generation)));
        if !page.more {
            return Ok(devices);
        }
        since = Some(page.next);
    }
}
