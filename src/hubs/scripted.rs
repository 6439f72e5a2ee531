//! A hub for tests, in memory: the rules of a real one, and faults on demand.
//!
//! Faults are queued per kind of call and taken one by one; a call without a fault is obeyed at once. Calls that the
//! network keeps (lost ones, duplicates) are delivered when the test says so. Deterministic: it has no time of its own.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use super::entry::{self, EffectKind, Entry, Phase, Tenant};
use super::twins::{self, Presence, Written};
use super::watch::{Notice, Watchers};
use super::{
    Abilities, ChangePage, DesiredEvent, HubConnector, HubReport, LeaseRenewal, LeaseTicket, Reinstatement, Resident,
    ResidentPage, Sighting, TwinCaller, TwinHost, TwinRefusal, TwinWrite,
};
use crate::ambient::Clock;
use crate::domain::{
    CallFault, CallOutcome, DeviceId, DeviceState, Document, FeedToken, HubCall, HubRefusal, Incarnation, Order,
    TwinPatch, limits,
};

/// What goes wrong with one call.
#[derive(Debug, Clone)]
pub enum ScriptedFault {
    /// It does not reach the hub.
    Unavailable,
    /// It is obeyed and the answer is lost.
    LoseAnswer,
    /// It is lost on the way, and nobody can tell.
    LoseCall,
    /// It is lost to the caller and stays in the network until [`ScriptedHub::deliver_late`].
    Delay,
    /// It is answered, and a copy stays in the network until [`ScriptedHub::deliver_late`].
    Duplicate,
    /// The hub says no, whatever its state.
    Refuse(HubRefusal),
    /// It waits at the hub's door until the hold is released, and is then obeyed.
    Hold(Hold),
}

/// A door that a test opens. Clones are the same door.
#[derive(Debug, Clone)]
pub struct Hold {
    door: Arc<Door>,
}

#[derive(Debug)]
struct Door {
    waiting: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

impl Hold {
    pub fn new() -> Self {
        let (waiting, open) = (watch::Sender::new(0), watch::Sender::new(false));
        Self { door: Arc::new(Door { waiting, open }) }
    }

    /// Resolves once a call waits, or has waited, at the door.
    pub async fn reached(&self) {
        // The sender is in this very door: it cannot be gone.
        let _ = self.door.waiting.subscribe().wait_for(|waiting| *waiting > 0).await;
    }

    /// Opens the door for good.
    pub fn release(&self) {
        self.door.open.send_replace(true);
    }

    async fn pass(&self) {
        self.door.waiting.send_modify(|waiting| *waiting += 1);
        let _ = self.door.open.subscribe().wait_for(|open| *open).await;
    }
}

impl Default for Hold {
    fn default() -> Self {
        Self::new()
    }
}

/// A hub whose faults are scripted. Clones are handles on the same hub.
#[derive(Clone)]
pub struct ScriptedHub {
    shared: Arc<Shared>,
}

/// The same hub as its devices and back ends see it.
#[derive(Debug, Clone)]
struct ScriptedTwins(ScriptedHub);

struct Shared {
    clock: Arc<dyn Clock>,
    watchers: Watchers,
    state: Mutex<State>,
}

struct State {
    abilities: Abilities,
    incarnation: Incarnation,
    /// It was restored and waits to be gone through; the highest session that did so.
    restored: bool,
    session: Order,
    /// Devices that are still set right before it goes away.
    reinstates: Option<u32>,
    reachable: bool,
    devices_max: Option<u64>,
    entries: BTreeMap<DeviceId, Entry>,
    highest: Order,
    /// The feed: each device at the place of its last change.
    changes: BTreeMap<u64, DeviceId>,
    changed: BTreeMap<DeviceId, u64>,
    position: u64,
    lease: Lease,
    script: BTreeMap<EffectKind, VecDeque<ScriptedFault>>,
    received: Vec<HubCall>,
    /// Calls that are still in the network, and the incarnation they name.
    late: Vec<(Option<Incarnation>, HubCall)>,
}

/// What a hub knows of its lease, by its own monotonic clock.
#[derive(Debug, Default)]
struct Lease {
    /// Tickets that were given out, newest last, and when.
    tickets: VecDeque<(LeaseTicket, Duration)>,
    last: u64,
    until: Option<Duration>,
}

impl Lease {
    fn is_live(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    fn extend(&mut self, ticket: LeaseTicket) {
        let given = self.tickets.iter().find(|(number, _)| *number == ticket);
        if let Some((_, at)) = given {
            self.until = self.until.max(Some(*at + limits::LEASE_FOR));
        }
    }

    fn give_out(&mut self, now: Duration) -> LeaseTicket {
        self.last += 1;
        let ticket = LeaseTicket(self.last);
        self.tickets.push_back((ticket, now));
        if self.tickets.len() > limits::LEASE_TICKETS_MAX {
            self.tickets.pop_front();
        }
        ticket
    }
}

impl ScriptedHub {
    /// An empty hub that can do everything but leases.
    pub fn new(incarnation: Incarnation, clock: Arc<dyn Clock>) -> Self {
        let abilities = Abilities { writes_reported: true, seals: true, stages: true, fences: true, leases: false };
        let state = State {
            abilities,
            incarnation,
            restored: false,
            session: Order::default(),
            reinstates: None,
            reachable: true,
            devices_max: None,
            entries: BTreeMap::new(),
            highest: Order::default(),
            changes: BTreeMap::new(),
            changed: BTreeMap::new(),
            position: 0,
            lease: Lease::default(),
            script: BTreeMap::new(),
            received: Vec::new(),
            late: Vec::new(),
        };
        Self { shared: Arc::new(Shared { clock, watchers: Watchers::default(), state: Mutex::new(state) }) }
    }

    /// Queues a fault for the next call of this kind that has none yet.
    pub fn script(&self, kind: EffectKind, fault: ScriptedFault) {
        self.lock().script.entry(kind).or_default().push_back(fault);
    }

    /// Queues a door for the next call of this kind.
    pub fn hold(&self, kind: EffectKind) -> Hold {
        let hold = Hold::new();
        self.script(kind, ScriptedFault::Hold(hold.clone()));
        hold
    }

    /// Cuts the hub off, or connects it again. What it holds stays; devices that still reach it are a test's
    /// [`ScriptedHub::write_directly`].
    pub fn set_reachable(&self, reachable: bool) {
        self.lock().reachable = reachable;
        if !reachable {
            self.shared.watchers.end_all();
        }
    }

    pub fn set_abilities(&self, abilities: Abilities) {
        self.lock().abilities = abilities;
    }

    /// Devices it takes; `None` is no bound.
    pub fn set_devices_max(&self, devices_max: Option<u64>) {
        self.lock().devices_max = devices_max;
    }

    /// It goes away once so many devices of it were set right.
    pub fn set_reinstates(&self, reinstates: Option<u32>) {
        self.lock().reinstates = reinstates;
    }

    /// Goes on with other data and another incarnation, as after a restore from a backup.
    pub fn restore(&self, incarnation: Incarnation, entries: BTreeMap<DeviceId, Entry>) {
        let mut state = self.lock();
        (state.incarnation, state.restored, state.session) = (incarnation, true, Order::default());
        state.highest = entries.values().map(|entry| entry.highest).max().unwrap_or_default();
        state.lease = Lease::default();
        (state.changes, state.changed, state.position) = Default::default();
        state.entries.clear();
        for (device, entry) in entries {
            state.keep(&device, entry);
        }
    }

    /// It goes on from other data and waits to be gone through.
    pub fn is_restored(&self) -> bool {
        self.lock().restored
    }

    /// All that it holds, to be restored later.
    pub fn snapshot(&self) -> BTreeMap<DeviceId, Entry> {
        self.lock().entries.clone()
    }

    /// Delivers what is still in the network, in the order in which it was sent. The answers reach nobody else.
    pub fn deliver_late(&self) -> Vec<CallOutcome> {
        let late = std::mem::take(&mut self.lock().late);
        late.iter().map(|(incarnation, call)| self.arrive(*incarnation, call)).collect()
    }

    /// Calls that were sent to it, in order, whether or not they arrived.
    pub fn received(&self) -> Vec<HubCall> {
        self.lock().received.clone()
    }

    pub fn entry(&self, device: &DeviceId) -> Option<Entry> {
        self.lock().entries.get(device).cloned()
    }

    /// Looks at what it keeps of a device without a copy of it.
    pub fn inspect<T>(&self, device: &DeviceId, look: impl FnOnce(Option<&Entry>) -> T) -> T {
        look(self.lock().entries.get(device))
    }

    /// Where the device stands; `None` when it is not here.
    pub fn phase(&self, device: &DeviceId) -> Option<Phase> {
        self.entry(device)?.tenant.map(|tenant| tenant.phase)
    }

    /// What it holds of the device; `None` when it is not here.
    pub fn state(&self, device: &DeviceId) -> Option<DeviceState> {
        self.entry(device)?.tenant.map(|tenant| tenant.state)
    }

    /// Writes as the device or a back end would that still reaches the hub, whether or not the service does.
    pub fn write_directly(&self, device: &DeviceId, patch: TwinPatch) -> Result<Resident, TwinRefusal> {
        self.write_twin(device, &TwinCaller::BackEnd, |tenant, now| {
            twins::write(tenant, None, TwinWrite::Patch(patch), now)
        })
    }

    /// Puts a device there without a call, or takes it away.
    pub fn place(&self, device: &DeviceId, entry: Option<Entry>) {
        let mut state = self.lock();
        match entry {
            Some(entry) => state.keep(device, entry),
            None => {
                state.entries.remove(device);
                state.move_in_feed(device, false);
            }
        }
    }

    fn arrive(&self, incarnation: Option<Incarnation>, call: &HubCall) -> CallOutcome {
        let mut state = self.lock();
        let current = state.incarnation;
        if state.restored || incarnation.is_some_and(|known| known != current) {
            return Err(CallFault::Refused(HubRefusal::WrongIncarnation { current }));
        }
        let before = state.entries.get(&call.device);
        let arrives = EffectKind::from(&call.effect) == EffectKind::Create
            && before.is_none_or(|entry| entry.tenant.is_none() && call.order > entry.highest);
        if arrives && state.devices_max.is_some_and(|most| state.devices() >= most) {
            return Err(CallFault::Refused(HubRefusal::Full));
        }
        let verdict = entry::obey(before, call, self.shared.clock.now());
        let notice = twins::notice_of(verdict.change, verdict.entry.as_ref());
        if let Some(entry) = verdict.entry {
            state.keep(&call.device, entry);
        }
        self.publish(state, &call.device, notice);
        verdict.answer.map_err(CallFault::Refused)
    }

    /// The state is released first, since a watcher that enters locks the watchers before it. Two changes may so be told
    /// out of turn: their versions tell, and a gap is closed by a whole document.
    fn publish(&self, state: MutexGuard<'_, State>, device: &DeviceId, notice: Option<Notice>) {
        drop(state);
        if let Some(notice) = notice {
            self.shared.watchers.publish(device, &notice);
        }
    }

    fn write_twin(
        &self,
        device: &DeviceId,
        caller: &TwinCaller,
        write: impl FnOnce(&Tenant, crate::domain::Timestamp) -> Result<Written, TwinRefusal>,
    ) -> Result<Resident, TwinRefusal> {
        let now = self.shared.clock.now();
        let monotonic = self.shared.clock.monotonic();
        let mut state = self.lock();
        if state.restored {
            return Err(TwinRefusal::Moving);
        }
        if state.abilities.leases && !state.lease.is_live(monotonic) {
            return Err(TwinRefusal::Unavailable);
        }
        let entry = state.entries.get(device);
        let tenant = twins::admit_write(Presence::from(entry), caller)?;
        let written = write(tenant, now)?;
        let (credential, notice) = match twins::used_up(&tenant.credential, caller) {
            Some(left) => (left, written.notice.or(Some(Notice::Ended))),
            None => (tenant.credential.clone(), written.notice),
        };
        let tenant = Tenant { state: written.state, credential, ..tenant.clone() };
        let resident = twins::resident(device, &tenant);
        if let Some(entry) = entry {
            let entry = Entry { tenant: Some(tenant), ..entry.clone() };
            state.keep(device, entry);
        }
        self.publish(state, device, notice);
        Ok(resident)
    }

    fn check(&self) -> Result<(), CallFault> {
        if self.lock().reachable { Ok(()) } else { Err(CallFault::Unavailable("it is cut off".to_owned())) }
    }

    fn check_twins(&self) -> Result<(), TwinRefusal> {
        self.check().map_err(|_| TwinRefusal::Unavailable)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn devices(&self) -> u64 {
        let here = self.entries.values().filter(|entry| entry.tenant.is_some()).count();
        u64::try_from(here).unwrap_or(u64::MAX)
    }

    fn keep(&mut self, device: &DeviceId, entry: Entry) {
        self.highest = self.highest.max(entry.highest);
        self.move_in_feed(device, entry.tenant.is_some());
        self.entries.insert(device.clone(), entry);
    }

    /// To the end of the feed, or out of it.
    fn move_in_feed(&mut self, device: &DeviceId, is_here: bool) {
        if let Some(before) = self.changed.remove(device) {
            self.changes.remove(&before);
        }
        if is_here {
            self.position += 1;
            self.changes.insert(self.position, device.clone());
            self.changed.insert(device.clone(), self.position);
        }
    }

    /// Whoever goes through a restored hub, or why not.
    fn check_session(&mut self, incarnation: Incarnation, session: Order) -> Result<(), CallFault> {
        if self.incarnation != incarnation {
            return Err(CallFault::Refused(HubRefusal::WrongIncarnation { current: self.incarnation }));
        }
        if session < self.session {
            return Err(CallFault::Refused(HubRefusal::Stale { highest: self.session }));
        }
        self.session = session;
        Ok(())
    }

    fn page(&self, since: Option<FeedToken>, max: u32) -> ChangePage {
        let start = since.filter(|since| since.incarnation == self.incarnation && since.position <= self.position);
        let from = start.map_or(0, |since| since.position);
        let mut left = self.changes.range((Bound::Excluded(from), Bound::Unbounded));
        let mut next = FeedToken { incarnation: self.incarnation, position: from };
        let mut rows = Vec::new();
        for (position, device) in left.by_ref().take(max.clamp(1, limits::FEED_ROWS_MAX) as usize) {
            next.position = *position;
            let tenant = self.entries.get(device).and_then(|entry| entry.tenant.as_ref());
            rows.extend(tenant.map(|tenant| twins::sighting(device, tenant)));
        }
        ChangePage { rows, next, more: left.next().is_some(), whole: start.is_none() }
    }
}

impl HubConnector for ScriptedHub {
    fn abilities(&self) -> Abilities {
        self.lock().abilities
    }

    fn describe(&self) -> BoxFuture<'_, Result<HubReport, CallFault>> {
        Box::pin(async {
            self.check()?;
            let state = self.lock();
            Ok(HubReport {
                incarnation: state.incarnation,
                devices: state.devices(),
                restored: state.restored,
                highest: state.highest,
            })
        })
    }

    fn obey<'a>(&'a self, incarnation: Option<Incarnation>, call: &'a HubCall) -> BoxFuture<'a, CallOutcome> {
        Box::pin(async move {
            let kind = EffectKind::from(&call.effect);
            let (fault, reachable) = {
                let mut state = self.lock();
                state.received.push(call.clone());
                let reachable = state.reachable;
                // A hub that is cut off uses up no faults.
                let fault = if reachable { state.script.get_mut(&kind).and_then(VecDeque::pop_front) } else { None };
                (fault, reachable)
            };
            if !reachable {
                return Err(CallFault::Unavailable("it is cut off".to_owned()));
            }
            let unknown = || CallFault::Unknown("no answer came".to_owned());
            match fault {
                None => self.arrive(incarnation, call),
                Some(ScriptedFault::Unavailable) => Err(CallFault::Unavailable("scripted".to_owned())),
                Some(ScriptedFault::LoseAnswer) => {
                    let _ = self.arrive(incarnation, call);
                    Err(unknown())
                }
                Some(ScriptedFault::LoseCall) => Err(unknown()),
                Some(ScriptedFault::Delay) => {
                    self.lock().late.push((incarnation, call.clone()));
                    Err(unknown())
                }
                Some(ScriptedFault::Duplicate) => {
                    self.lock().late.push((incarnation, call.clone()));
                    self.arrive(incarnation, call)
                }
                Some(ScriptedFault::Refuse(refusal)) => Err(CallFault::Refused(refusal)),
                Some(ScriptedFault::Hold(hold)) => {
                    hold.pass().await;
                    self.arrive(incarnation, call)
                }
            }
        })
    }

    fn read<'a>(&'a self, device: &'a DeviceId) -> BoxFuture<'a, Result<Option<Sighting>, CallFault>> {
        Box::pin(async move {
            self.check()?;
            let tenant = self.entry(device).and_then(|entry| entry.tenant);
            Ok(tenant.map(|tenant| twins::sighting(device, &tenant)))
        })
    }

    fn changes(&self, since: Option<FeedToken>, max: u32) -> BoxFuture<'_, Result<ChangePage, CallFault>> {
        Box::pin(async move {
            self.check()?;
            let mut state = self.lock();
            let current = state.incarnation;
            if since.is_some_and(|since| since.incarnation == current && since.position > state.position) {
                // Its own end lies behind what it once said: an older copy went on under the old name.
                state.incarnation = Incarnation(current.0.wrapping_add(1));
                state.restored = true;
            }
            Ok(state.page(since, max))
        })
    }

    fn renew_lease<'a>(&'a self, renewal: &'a LeaseRenewal) -> BoxFuture<'a, Result<LeaseTicket, CallFault>> {
        Box::pin(async move {
            self.check()?;
            let (now, monotonic) = (self.shared.clock.now(), self.shared.clock.monotonic());
            let mut state = self.lock();
            if !state.abilities.leases {
                return Err(CallFault::Unavailable("it holds no lease".to_owned()));
            }
            let current = state.incarnation;
            if state.restored || renewal.incarnation.is_some_and(|known| known != current) {
                return Err(CallFault::Refused(HubRefusal::WrongIncarnation { current }));
            }
            let mut closed = Vec::new();
            for must in &renewal.must_seal {
                if let Some(entry) = entry::take(state.entries.get(&must.device), must, now) {
                    let is_open = entry.is_open();
                    state.keep(&must.device, entry);
                    closed.extend((!is_open).then_some(&must.device));
                }
            }
            if let Some(ticket) = renewal.ticket {
                state.lease.extend(ticket);
            }
            let next = state.lease.give_out(monotonic);
            drop(state);
            closed.into_iter().for_each(|device| self.shared.watchers.publish(device, &Notice::Closed));
            Ok(next)
        })
    }

    fn reinstate<'a>(&'a self, device: &'a Reinstatement) -> BoxFuture<'a, Result<(), CallFault>> {
        Box::pin(async move {
            self.check()?;
            let mut state = self.lock();
            let current = state.incarnation;
            if !state.restored {
                return Err(CallFault::Refused(HubRefusal::WrongIncarnation { current }));
            }
            state.check_session(device.incarnation, device.session)?;
            match &mut state.reinstates {
                Some(0) => return Err(CallFault::Unavailable("it has gone away".to_owned())),
                Some(left) => *left -= 1,
                None => {}
            }
            let next = entry::reinstate(state.entries.get(&device.device), &device.becomes);
            if let Some(entry) = next.map_err(CallFault::Refused)? {
                state.keep(&device.device, entry);
            }
            Ok(())
        })
    }

    fn readmit(&self, incarnation: Incarnation, session: Order) -> BoxFuture<'_, Result<(), CallFault>> {
        Box::pin(async move {
            self.check()?;
            let mut state = self.lock();
            state.check_session(incarnation, session)?;
            state.restored = false;
            Ok(())
        })
    }

    fn twins(&self) -> Option<Arc<dyn TwinHost>> {
        Some(Arc::new(ScriptedTwins(self.clone())))
    }
}

impl TwinHost for ScriptedTwins {
    fn read<'a>(
        &'a self,
        device: &'a DeviceId,
        caller: &'a TwinCaller,
    ) -> BoxFuture<'a, Result<Resident, TwinRefusal>> {
        Box::pin(async move {
            self.0.check_twins()?;
            let entry = self.0.entry(device);
            let tenant = twins::admit(Presence::from(entry.as_ref()), caller)?;
            match twins::used_up(&tenant.credential, caller) {
                Some(_) => self.0.write_twin(device, caller, |tenant, _| Ok(Written::nothing(tenant))),
                None => Ok(twins::resident(device, tenant)),
            }
        })
    }

    fn report<'a>(
        &'a self,
        device: &'a DeviceId,
        caller: &'a TwinCaller,
        patch: Document,
    ) -> BoxFuture<'a, Result<Resident, TwinRefusal>> {
        Box::pin(async move {
            self.0.check_twins()?;
            self.0.write_twin(device, caller, |tenant, now| twins::report(tenant, patch, now))
        })
    }

    fn write<'a>(
        &'a self,
        device: &'a DeviceId,
        version: Option<u64>,
        write: TwinWrite,
    ) -> BoxFuture<'a, Result<Resident, TwinRefusal>> {
        Box::pin(async move {
            self.0.check_twins()?;
            let back_end = TwinCaller::BackEnd;
            self.0.write_twin(device, &back_end, |tenant, now| twins::write(tenant, version, write, now))
        })
    }

    fn watch<'a>(
        &'a self,
        device: &'a DeviceId,
        caller: &'a TwinCaller,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<DesiredEvent>, TwinRefusal>> {
        Box::pin(async move {
            let entry = self.0.entry(device);
            let admitted = twins::admit(Presence::from(entry.as_ref()), caller);
            if admitted.is_ok_and(|tenant| twins::used_up(&tenant.credential, caller).is_some()) {
                self.0.write_twin(device, caller, |tenant, _| Ok(Written::nothing(tenant)))?;
            }
            self.0.shared.watchers.enter(device, || {
                self.0.check_twins()?;
                if self.0.lock().restored {
                    return Err(TwinRefusal::Moving);
                }
                let entry = self.0.entry(device);
                let tenant = twins::admit_write(Presence::from(entry.as_ref()), caller)?;
                Ok(twins::whole(&tenant.state))
            })
        })
    }

    fn list<'a>(&'a self, size: u32, token: Option<&'a str>) -> BoxFuture<'a, Result<ResidentPage, TwinRefusal>> {
        Box::pin(async move {
            self.0.check_twins()?;
            let after = token.map(twins::read_token).transpose()?;
            let state = self.0.lock();
            let start = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut here = state
                .entries
                .range::<DeviceId, _>((start, Bound::Unbounded))
                .filter_map(|(device, entry)| Some(twins::resident(device, entry.tenant.as_ref()?)));
            let size = usize::try_from(size.clamp(1, limits::PAGE_SIZE_MAX)).unwrap_or(usize::MAX);
            let rows: Vec<Resident> = here.by_ref().take(size).collect();
            let more = here.next().is_some();
            Ok(twins::page(rows, more))
        })
    }
}

impl fmt::Debug for ScriptedHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        write!(f, "ScriptedHub({} devices, {} calls)", state.devices(), state.received.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::ManualClock;
    use crate::domain::{
        Capabilities, Credential, HubAnswer, HubEffect, HubId, HubStatus, InitialState, NewDevice, Order, Thumbprint,
        Timestamp, Twin,
    };

    fn hub() -> ScriptedHub {
        ScriptedHub::new(Incarnation(1), Arc::new(ManualClock::at(Timestamp(1_000))))
    }

    fn device() -> DeviceId {
        DeviceId::parse("d").unwrap()
    }

    fn create() -> HubCall {
        let state = DeviceState {
            twin: Twin::initial(&InitialState::default(), Timestamp(1_000)),
            capabilities: Capabilities::default(),
            status: HubStatus::Enabled,
        };
        let credential = Credential::x509([Thumbprint([1; 32])]);
        let effect = HubEffect::Create(Box::new(NewDevice { generation: Order(1), credential, state }));
        HubCall { hub: HubId::parse("h").unwrap(), device: device(), order: Order(1), effect }
    }

    #[tokio::test]
    async fn every_fault_and_what_it_leaves_behind() {
        use ScriptedFault::*;
        let staged = Some(Phase::Staged);
        for (fault, outcome, phase, late) in [
            (None, "done", staged, 0),
            (Some(Unavailable), "unavailable", None, 0),
            (Some(LoseAnswer), "unknown", staged, 0),
            (Some(LoseCall), "unknown", None, 0),
            (Some(Delay), "unknown", None, 1),
            (Some(Duplicate), "done", staged, 1),
            (Some(Refuse(HubRefusal::Full)), "full", None, 0),
        ] {
            let hub = hub();
            let name = format!("{fault:?}");
            if let Some(fault) = fault {
                hub.script(EffectKind::Create, fault);
            }
            let told = match hub.obey(None, &create()).await {
                Ok(HubAnswer::Done) => "done",
                Ok(HubAnswer::State(_)) => "state",
                Err(CallFault::Refused(refusal)) => refusal.as_str(),
                Err(CallFault::Unavailable(_)) => "unavailable",
                Err(CallFault::Unknown(_)) => "unknown",
            };
            assert_eq!((told, hub.phase(&device())), (outcome, phase), "{name}");
            assert_eq!(hub.received(), [create()], "{name}");
            assert_eq!(hub.deliver_late(), vec![Ok(HubAnswer::Done); late], "{name}");
            assert_eq!(hub.obey(None, &create()).await, Ok(HubAnswer::Done), "{name}: one fault, one call");
        }
    }

    #[tokio::test]
    async fn a_held_call_waits_at_the_door() {
        let hub = hub();
        let hold = hub.hold(EffectKind::Create);
        let held = tokio::spawn({
            let hub = hub.clone();
            async move { hub.obey(None, &create()).await }
        });
        hold.reached().await;
        assert_eq!(hub.phase(&device()), None);
        hold.release();
        assert_eq!(held.await.unwrap(), Ok(HubAnswer::Done));
        assert_eq!(hub.phase(&device()), Some(Phase::Staged));
    }

    #[tokio::test]
    async fn a_hub_that_is_cut_off_keeps_its_faults_and_its_devices() {
        let hub = hub();
        assert_eq!(hub.obey(None, &create()).await, Ok(HubAnswer::Done));
        let open = HubCall { order: Order(2), effect: HubEffect::Activate, ..create() };
        assert_eq!(hub.obey(None, &open).await, Ok(HubAnswer::Done));
        hub.script(EffectKind::Seal, ScriptedFault::LoseCall);
        hub.set_reachable(false);
        let seal = HubCall { order: Order(3), effect: HubEffect::Seal, ..create() };
        assert!(matches!(hub.obey(None, &seal).await, Err(CallFault::Unavailable(_))));
        let late = TwinPatch { reported: Some(Document::from_text(r#"{"late":1}"#).unwrap()), ..TwinPatch::default() };
        assert!(hub.write_directly(&device(), late).is_ok());
        hub.set_reachable(true);
        assert!(matches!(hub.obey(None, &seal).await, Err(CallFault::Unknown(_))));
        let sealed = hub.obey(None, &seal).await.unwrap();
        assert_eq!(sealed, HubAnswer::State(Box::new(hub.state(&device()).unwrap())));
    }
}
