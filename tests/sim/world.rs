//! The world of one run: everything that exists in it, and how one event changes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rehome::actors::{Fleet, Surroundings};
use rehome::allocators::{AllocationAnswer, AllocationQuestion, Allocator, AllocatorFault};
use rehome::ambient::{Clock, SeededEntropy};
use rehome::domain::{DeviceId, Enrollment, HubId, Timestamp};
use rehome::store::Store;

use super::actors::Op;
use super::backup::Going;
use super::clock::SimClock;
use super::feed::Reading;
use super::hub::SimHub;
use super::identity::identity;
use super::mutation::{Aim, Mutant};
use super::network::Network;
use super::script::{Event, Script};
use super::seat::Seat;
use super::store::{SimStore, Strike};

pub const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// Why a run is over before its end: a promise is broken.
#[derive(Debug, Clone)]
pub struct Broken(pub String);

pub type Held = Result<(), Broken>;

pub fn broken(what: impl Into<String>) -> Held {
    Err(Broken(what.into()))
}

/// What a run met, for the report.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub events: u64,
    pub moves: BTreeMap<&'static str, u64>,
    pub faults: BTreeMap<&'static str, u64>,
    /// What operators ordered and got, beside moves.
    pub acts: BTreeMap<&'static str, u64>,
    pub writes: u64,
    pub late_writes: u64,
    pub calls: u64,
    pub stuck: u64,
    pub abandoned: u64,
    pub trimmed: u64,
    /// What became of devices of restored hubs.
    pub reinstated: BTreeMap<&'static str, u64>,
    /// Writes lost with hubs that came back as an older copy: at homes, each reported; and elsewhere.
    pub lost_with_copies: u64,
    pub lost_late: u64,
    /// Writes in late twins that operators removed.
    pub forgotten: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.events += other.events;
        self.writes += other.writes;
        self.late_writes += other.late_writes;
        self.calls += other.calls;
        self.stuck += other.stuck;
        self.abandoned += other.abandoned;
        self.trimmed += other.trimmed;
        self.forgotten += other.forgotten;
        self.lost_with_copies += other.lost_with_copies;
        self.lost_late += other.lost_late;
        let pairs = [
            (&mut self.moves, &other.moves),
            (&mut self.faults, &other.faults),
            (&mut self.acts, &other.acts),
            (&mut self.reinstated, &other.reinstated),
        ];
        for (all, some) in pairs {
            some.iter().for_each(|(kind, count)| *all.entry(kind).or_default() += count);
        }
    }

    pub fn all_moves(&self) -> u64 {
        self.moves.values().sum()
    }
}

/// One device as the operator and the device itself see it.
#[derive(Debug)]
pub struct Device {
    /// The enrollment as it stands, and as it stood before.
    pub enrollment: Option<Arc<Enrollment>>,
    pub before: Option<Arc<Enrollment>>,
    pub requests: u64,
    /// Two actors have worked on it: the memory of one may be old, until somebody asks it.
    pub doubled: bool,
}

/// The webhook is the script's: nobody asks this one.
#[derive(Debug)]
pub struct NoAllocator;

impl Allocator for NoAllocator {
    fn ask(&self, _: AllocationQuestion) -> BoxFuture<'_, Result<AllocationAnswer, AllocatorFault>> {
        std::future::pending().boxed()
    }
}

pub struct World {
    pub clock: Arc<SimClock>,
    pub store: Arc<SimStore>,
    pub surroundings: Arc<Surroundings>,
    pub hubs: BTreeMap<HubId, SimHub>,
    pub hubs_made: usize,
    /// Given to hubs that were restored.
    pub incarnations: u128,
    /// Somebody has the restored hubs gone through.
    pub going: Option<Going>,
    /// Feeds that are being read.
    pub readings: Vec<Reading>,
    pub devices: Vec<Device>,
    /// The actors of each device: one, or for a moment more.
    pub seats: Vec<Vec<Seat>>,
    pub seats_made: u64,
    pub asks: Vec<super::seat::Ask>,
    pub questions: Vec<super::seat::Question>,
    pub network: Network,
    /// Writes made so far, by device.
    pub written: BTreeMap<DeviceId, usize>,
    /// The versions that an open home showed last: desired, reported, twin.
    pub versions: BTreeMap<DeviceId, (u64, u64, u64)>,
    /// The status last accepted for a device at its home.
    pub dirty: BTreeSet<DeviceId>,
    pub mutant: Mutant,
    /// What has happened, where it is to be played again.
    pub ops: Option<Vec<Op>>,
    pub tally: Tally,
    /// The event log, where somebody wants it.
    pub log: Option<Vec<String>>,
}

impl World {
    pub fn new(script: &Script, aim: Option<Aim>, logs: bool) -> Self {
        let clock = Arc::new(SimClock::at(NOW));
        let store = Arc::new(SimStore::new());
        let surroundings = surroundings(&store, &clock, script.seed);
        let devices =
            (0..script.devices).map(|_| Device { enrollment: None, before: None, requests: 0, doubled: false });
        let mut this = Self {
            clock,
            store,
            surroundings,
            hubs: BTreeMap::new(),
            hubs_made: 0,
            incarnations: 0,
            going: None,
            readings: Vec::new(),
            devices: devices.collect(),
            seats: (0..script.devices).map(|_| Vec::new()).collect(),
            seats_made: 0,
            asks: Vec::new(),
            questions: Vec::new(),
            network: Network::default(),
            written: BTreeMap::new(),
            versions: BTreeMap::new(),
            dirty: BTreeSet::new(),
            mutant: Mutant::new(aim, script.seed),
            ops: script.recorded.then(Vec::new),
            tally: Tally::default(),
            log: logs.then(Vec::new),
        };
        this.store.ledger(|ledger| ledger.keeps_journal = script.recorded);
        let mut dice = super::dice::Dice::new(script.seed ^ 0x5eed);
        (0..script.hubs).for_each(|_| this.link_hub(&mut dice));
        (0..script.devices).for_each(|device| this.enroll(device, &mut dice));
        if let Some(aim) = aim.filter(|aim| aim.is_lacking) {
            this.store.mutate(aim.mutation);
        }
        this
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(line());
        }
    }

    pub fn fault(&mut self, kind: &'static str) {
        *self.tally.faults.entry(kind).or_default() += 1;
    }

    pub fn device_of(&self, number: usize) -> usize {
        number % self.devices.len()
    }

    /// A linked hub.
    pub fn hub_of(&self, number: usize) -> Option<HubId> {
        let count = self.hubs.len();
        self.hubs.keys().nth(if count == 0 { 0 } else { number % count }).cloned()
    }

    /// The names that hubs may know a device by.
    pub fn name_of(&self, device: usize) -> DeviceId {
        let record = self.store.ledger(|ledger| ledger.homes.get(&identity(device).id).map(|home| home.device.clone()));
        let enrolled = self.devices[device].enrollment.as_ref().and_then(|enrollment| enrollment.device_id.clone());
        record.or(enrolled).unwrap_or_else(|| DeviceId::from(&identity(device).id))
    }

    /// One event and what follows from it at once, then the promises.
    pub fn step(&mut self, event: Event) -> Held {
        self.tally.events += 1;
        self.happen(event)?;
        self.settle_asks()?;
        self.check()
    }

    fn happen(&mut self, event: Event) -> Held {
        match event {
            Event::Register { device, seed } => self.register(self.device_of(device), seed),
            Event::Reprovision { device, seed } => self.reprovision(self.device_of(device), seed),
            Event::Release { device } => self.release(self.device_of(device)),
            Event::Unpin { device } => self.unpin(self.device_of(device)),
            Event::Undo { device, seed } => self.undo(self.device_of(device), seed),
            Event::Resolve { device, seed } => self.resolve(self.device_of(device), seed),
            Event::ForgetLateTwin { device } => self.forget_late_twin(self.device_of(device)),
            Event::Edit { device, seed } => {
                self.edit(self.device_of(device), seed);
                Ok(())
            }
            Event::Hub { hub, seed } => self.change_hub(hub, seed),
            Event::Cut { hub, cut } => {
                let Some(id) = self.hub_of(hub) else { return Ok(()) };
                if let Some(hub) = self.hubs.get(&id).filter(|hub| hub.is_cut() != cut) {
                    hub.set_cut(cut);
                    self.note(|| format!("the way to {id} is {}", if cut { "cut" } else { "open again" }));
                    if cut {
                        self.fault("hub unreachable");
                    }
                }
                Ok(())
            }
            Event::Fill { hub, full } => {
                let Some(id) = self.hub_of(hub) else { return Ok(()) };
                if let Some(hub) = self.hubs.get(&id) {
                    hub.scripted.set_devices_max(full.then_some(0));
                    self.note(|| format!("{id} {}", if full { "is full" } else { "has room" }));
                    if full {
                        self.fault("hub full");
                    }
                }
                Ok(())
            }
            Event::Carry { pick, fate, heard } => match self.carry(pick, fate) {
                true if heard => self.answer(self.network.answers.len() - 1),
                true | false => Ok(()),
            },
            Event::Corner { device, seed } => self.corner(self.device_of(device), seed),
            Event::Answer { pick } => self.answer(pick),
            Event::Webhook { pick, seed } => self.webhook(pick, seed),
            Event::Advance { span } => self.advance(span),
            Event::SetBack { span } => {
                self.clock.set_back(span);
                self.fault("clock set back");
                self.note(|| format!("the clock is set back by {span:?}"));
                Ok(())
            }
            Event::Write { device, seed } => self.write(self.device_of(device), seed),
            Event::Stray { device, hub } => {
                self.stray(self.device_of(device), hub);
                Ok(())
            }
            Event::Tidy { device } => self.tidy(self.device_of(device)),
            Event::Strike(strike) => {
                self.store.strike(strike);
                self.note(|| format!("the next commit of a device meets: {strike:?}"));
                Ok(())
            }
            Event::Crash => {
                self.fault("crash between commits");
                self.crash();
                Ok(())
            }
            Event::Passivate { device } => {
                self.passivate(self.device_of(device));
                Ok(())
            }
            Event::Double { device } => self.double(self.device_of(device)),
            Event::TakeUp => self.take_up(),
            Event::ReadFeed { hub } => {
                self.read_feed(hub);
                Ok(())
            }
            Event::ReadOn => self.read_on(),
            Event::Strand { device, seed } => self.strand(self.device_of(device), seed),
            Event::BackUp { hub } => {
                self.back_up_hub(hub);
                Ok(())
            }
            Event::Restore { hub, seed } => {
                self.restore_hub(hub, seed);
                Ok(())
            }
            Event::Reconcile { turns } => (0..turns).try_for_each(|_| self.reconcile()),
        }
    }

    /// The process dies and is started again: what was in memory is gone, what is in the network is not.
    pub fn crash(&mut self) {
        self.note(|| "the service dies and starts again".to_owned());
        self.seats.iter_mut().for_each(Vec::clear);
        self.asks.clear();
        self.going = None;
        self.readings.clear();
        self.questions.clear();
        self.network.forget_callers();
        self.surroundings = surroundings(&self.store, &self.clock, self.tally.events);
        let hubs = self.store.hubs().now_or_never().and_then(Result::ok).unwrap_or_default();
        for (record, _) in hubs {
            self.moor(record);
        }
    }

    /// Looks whether the last commit met a fault, and counts it.
    pub fn count_strike(&mut self) {
        let kind = match self.store.struck() {
            None => return,
            Some(Strike::NotWritten) => "commit not written",
            Some(Strike::LostUnknown) => "commit lost, outcome unknown",
            Some(Strike::WrittenUnknown) => "commit written, outcome unknown",
            Some(Strike::CrashBeforeWrite) => "crash before the write",
            Some(Strike::CrashAfterWrite { kept: false }) => "crash after the write, write lost",
            Some(Strike::CrashAfterWrite { kept: true }) => "crash after the write, write kept",
            Some(Strike::CrashAfterSync) => "crash after the sync, reply lost",
        };
        self.note(|| format!("a commit of a device met: {kind}"));
        self.fault(kind);
    }

    pub fn advance(&mut self, span: Duration) -> Held {
        self.note(|| format!("{span:?} pass"));
        if span >= Duration::from_secs(600) {
            self.fault("clock leaps ahead");
        }
        self.clock.advance(span);
        self.expire_calls();
        self.probe_hubs();
        self.wake_seats()
    }
}

/// What actors live among, new for every life of the process.
fn surroundings(store: &Arc<SimStore>, clock: &Arc<SimClock>, seed: u64) -> Arc<Surroundings> {
    Arc::new(Surroundings {
        store: store.clone(),
        clock: clock.clone(),
        entropy: Arc::new(SeededEntropy::new(seed)),
        allocator: Arc::new(NoAllocator),
        fleet: Arc::new(Fleet::default()),
    })
}
