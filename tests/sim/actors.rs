//! The same history through the real actors: a run is recorded, call by call, and played again to the directory, its
//! actors and its threads. Both must write the same journals and leave the same hubs.
//!
//! Faults are part of the record, so both meet the same ones. The player lets one call at a time come to its end, and goes
//! on when the actors have done what the record says they did.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rehome::actors::{Answer, Config, Directory, Fleet, PinTo, Refused, Surroundings};
use rehome::ambient::SeededEntropy;
use rehome::attestation::Verified;
use rehome::domain::{
    CallFault, CallOutcome, ClientFacts, DeviceId, Document, Enrollment, Fault, FeedToken, Hub, HubCall, HubId,
    Incarnation, Order, RegistrationId, RequestId, TwinPatch,
};
use rehome::hubs::entry::EffectKind;
use rehome::hubs::scripted::ScriptedHub;
use rehome::hubs::{
    Abilities, ChangePage, HubConnector, HubReport, LeaseRenewal, LeaseTicket, Reinstatement, Sighting, TwinHost,
};
use rehome::moves::CallKey;
use rehome::store::{Commit, Store};
use tokio::sync::oneshot;

use super::clock::SimClock;
use super::dice::Dice;
use super::identity::{LEAVES, identity, prove};
use super::network::Flight;
use super::script::{Fate, Script};
use super::seeds::number;
use super::store::{SimStore, Strike};
use super::world::{NOW, NoAllocator, World};

/// No play waits longer for what the record says must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Seeds that are played, unless the environment says how many.
const SEEDS: u64 = 40;

/// One thing that happened in the record.
#[derive(Debug, Clone)]
pub enum Op {
    /// An operator's commit.
    Operate(Box<Commit>),
    HubChanged(Box<Hub>),
    Register {
        verified: Box<Verified>,
        enrollment: Arc<Enrollment>,
        facts: ClientFacts,
        request_id: Option<RequestId>,
    },
    Reprovision {
        device: usize,
        enrollment: Arc<Enrollment>,
        to: Option<PinTo>,
    },
    Release {
        device: usize,
    },
    Unpin {
        device: usize,
    },
    /// What the last request was told.
    Told(String),
    Strike(Strike),
    Write {
        hub: HubId,
        device: DeviceId,
        write: usize,
    },
    /// A call that somebody waits for comes to its end; then this many commits of devices were tried.
    Deliver {
        call: HubCall,
        fate: Fate,
        commits: u64,
        device: usize,
    },
    /// A late copy arrives.
    Late {
        call: HubCall,
    },
    /// Nothing is under way but time.
    Advance {
        span: Duration,
        device: usize,
        tries: BTreeMap<CallKey, u32>,
    },
    Restart,
}

pub fn told(answer: Option<&Answer>) -> String {
    match answer {
        None => "no answer".to_owned(),
        Some(Ok(accepted)) => {
            let status = accepted.standing.as_ref().map_or("gone", |standing| standing.operation.status.as_str());
            format!("{status}: {}", accepted.why)
        }
        Some(Err(Refused::Rejudge)) => "judge again".to_owned(),
        Some(Err(Refused::Fault(fault))) => fault.to_string(),
    }
}

/// The record of one seed: what happened, the journals, and where every device is.
struct Record {
    hubs: Vec<Hub>,
    ops: Vec<Op>,
    journal: Vec<String>,
    places: Vec<String>,
}

fn record(seed: u64) -> Record {
    let script = Script { devices: 2, hubs: 3, seed, events: Vec::new(), recorded: true };
    let mut world = World::new(&script, None, false);
    let hubs = world.hubs.values().map(|hub| hub.record.clone()).collect();
    let mut dice = Dice::new(seed ^ 0xac70);
    for device in 0..world.devices.len() {
        world.enroll_simply(device, &mut dice);
    }
    for _ in 0..12 + dice.below(12) {
        let device = dice.below(world.devices.len());
        world.act(device, &mut dice);
        world.settle_recorded(device, &mut dice);
    }
    world.check_all().unwrap_or_else(|broken| panic!("seed {seed}: {}", broken.0));
    let places = places(world.hubs.iter().map(|(id, hub)| (id, &hub.scripted)));
    let journal = world.store.ledger(|ledger| ledger.journal.clone());
    Record { hubs, ops: world.ops.take().unwrap_or_default(), journal, places }
}

fn places<'a>(hubs: impl Iterator<Item = (&'a HubId, &'a ScriptedHub)>) -> Vec<String> {
    let mut places = Vec::new();
    for (id, hub) in hubs {
        for (device, entry) in hub.snapshot() {
            let tenant = entry.tenant.map(|tenant| (tenant.generation, tenant.phase, tenant.state));
            places.push(format!("{id} {device}: {} {tenant:?}", entry.highest));
        }
    }
    places
}

impl World {
    pub fn op(&mut self, op: Op) {
        if let Some(ops) = &mut self.ops {
            ops.push(op);
        }
    }

    /// One request, edit, write or restart.
    fn act(&mut self, device: usize, dice: &mut Dice) {
        if dice.percent(25) {
            let strike = *dice.pick(&[Strike::NotWritten, Strike::LostUnknown, Strike::WrittenUnknown]);
            self.op(Op::Strike(strike));
            self.store.strike(strike);
        }
        match dice.below(20) {
            0..8 => {
                let enrollment = self.devices[device].enrollment.clone().unwrap();
                let leaf = dice.below(LEAVES);
                let now = self.now();
                let verified = (0..LEAVES).find_map(|turn| prove(device, (leaf + turn) % LEAVES, &enrollment, now));
                let verified = Box::new(verified.unwrap());
                let facts = ClientFacts::default();
                let request_id = dice.percent(40).then(|| RequestId::parse("r").unwrap());
                self.op(Op::Register {
                    verified: verified.clone(),
                    enrollment: enrollment.clone(),
                    facts: facts.clone(),
                    request_id: request_id.clone(),
                });
                let told = self.ask_register(device, *verified, enrollment, facts, request_id);
                self.op(Op::Told(told));
            }
            8..11 => {
                let enrollment = self.devices[device].enrollment.clone().unwrap();
                let to = self.hub_of(dice.below(1 << 16)).filter(|_| dice.percent(70)).map(|hub| PinTo {
                    hub,
                    reason: "the record".to_owned(),
                    expires_at: None,
                });
                self.op(Op::Reprovision { device, enrollment: enrollment.clone(), to: to.clone() });
                let told = self.ask_reprovision(device, enrollment, to);
                self.op(Op::Told(told));
            }
            11..15 => {
                self.enroll_simply(device, dice);
                let enrollment = self.devices[device].enrollment.clone().unwrap();
                self.op(Op::Reprovision { device, enrollment: enrollment.clone(), to: None });
                let told = self.ask_reprovision(device, enrollment, None);
                self.op(Op::Told(told));
            }
            15 => {
                self.op(Op::Unpin { device });
                let told = self.ask_unpin(device);
                self.op(Op::Told(told));
            }
            16 if dice.percent(50) => {
                self.op(Op::Release { device });
                let told = self.ask_release(device);
                self.op(Op::Told(told));
            }
            16 => self.drain_or_activate(dice.below(1 << 16)),
            17 if dice.percent(50) => {
                self.op(Op::Restart);
                self.crash();
            }
            _ => {
                let name = self.name_of(device);
                let at =
                    self.hubs.iter().find(|(_, hub)| hub.scripted.phase(&name).is_some()).map(|(id, _)| id.clone());
                let write = self.tally.writes as usize;
                if let Some(hub) = at.filter(|_| write < super::keys::WRITES_MAX) {
                    self.tally.writes += 1;
                    let accepted = self.hubs[&hub].scripted.write_directly(&name, tags(write)).is_ok();
                    if accepted {
                        let key = super::keys::Keys::one(write);
                        self.store.ledger(|ledger| ledger.accepted(&name, &hub, key, Default::default()));
                    }
                    self.op(Op::Write { hub, device: name, write });
                }
            }
        }
    }

    /// Lets everything that follows happen, one thing at a time, each call with the fate that chance gives it.
    fn settle_recorded(&mut self, device: usize, dice: &mut Dice) {
        let mut attempts: BTreeMap<(HubId, Order, EffectKind), u32> = BTreeMap::new();
        for _ in 0..10_000 {
            self.take_up().unwrap();
            if !self.network.answers.is_empty() {
                self.answer(0).unwrap();
            } else if !self.network.flights.is_empty() {
                let at = dice.below(self.network.flights.len());
                let Flight { call, caller, .. } = self.network.flights[at].clone();
                // Of equal calls the first one comes first, here and there.
                let same = |flight: &Flight| flight.call == call && flight.caller.is_some() == caller.is_some();
                let at = self.network.flights.iter().position(same).unwrap();
                if caller.is_none() {
                    self.carry(at, Fate::Arrives);
                    self.op(Op::Late { call });
                    continue;
                }
                let kind = EffectKind::from(&call.effect);
                let attempt = attempts.entry((call.hub.clone(), call.order, kind)).or_default();
                *attempt += 1;
                let fates = [Fate::AnswerLost, Fate::CallLost, Fate::Delayed, Fate::Duplicated, Fate::Unreachable];
                let fate = if *attempt <= 2 && dice.percent(30) { *dice.pick(&fates) } else { Fate::Arrives };
                self.carry(at, fate);
                let last = self.network.answers.len() - 1;
                self.answer(last).unwrap();
                let commits = self.store.commits();
                self.op(Op::Deliver { call, fate, commits, device });
            } else {
                let busy = self.seats[device].iter().filter(|seat| seat.core.as_ref().is_some_and(|it| !it.is_idle()));
                let Some(seat) = busy.into_iter().find(|seat| seat.wakes_at.is_some()) else { break };
                let core = seat.core.as_ref().unwrap();
                let tries = core.tries().into_iter().map(|(key, tries)| (key, tries.attempts)).collect();
                let span = seat.wakes_at.unwrap().since(self.now()).max(Duration::from_millis(1));
                self.op(Op::Advance { span, device, tries });
                self.advance(span).unwrap();
            }
            self.check().unwrap();
        }
    }
}

fn tags(write: usize) -> TwinPatch {
    let tags = Document::from_text(&format!(r#"{{"w{write}":{write}}}"#)).unwrap();
    TwinPatch { tags: Some(tags), ..TwinPatch::default() }
}

type Waiting = (HubCall, oneshot::Sender<CallOutcome>);

/// A hub at whose door calls wait until the player says what becomes of them.
#[derive(Clone)]
struct PlayedHub {
    scripted: ScriptedHub,
    waiting: Arc<Mutex<Vec<Waiting>>>,
}

impl fmt::Debug for PlayedHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlayedHub")
    }
}

impl HubConnector for PlayedHub {
    fn abilities(&self) -> Abilities {
        self.scripted.abilities()
    }

    fn describe(&self) -> BoxFuture<'_, Result<HubReport, CallFault>> {
        self.scripted.describe()
    }

    fn obey<'a>(&'a self, _: Option<Incarnation>, call: &'a HubCall) -> BoxFuture<'a, CallOutcome> {
        let (tell, told) = oneshot::channel();
        self.waiting.lock().unwrap().push((call.clone(), tell));
        Box::pin(async { told.await.unwrap_or_else(|_| Err(CallFault::Unknown("the play is over".to_owned()))) })
    }

    fn read<'a>(&'a self, device: &'a DeviceId) -> BoxFuture<'a, Result<Option<Sighting>, CallFault>> {
        self.scripted.read(device)
    }

    fn changes(&self, since: Option<FeedToken>, max: u32) -> BoxFuture<'_, Result<ChangePage, CallFault>> {
        self.scripted.changes(since, max)
    }

    fn renew_lease<'a>(&'a self, renewal: &'a LeaseRenewal) -> BoxFuture<'a, Result<LeaseTicket, CallFault>> {
        self.scripted.renew_lease(renewal)
    }

    fn reinstate<'a>(&'a self, device: &'a Reinstatement) -> BoxFuture<'a, Result<(), CallFault>> {
        self.scripted.reinstate(device)
    }

    fn readmit(&self, incarnation: Incarnation, session: Order) -> BoxFuture<'_, Result<(), CallFault>> {
        self.scripted.readmit(incarnation, session)
    }

    fn twins(&self) -> Option<Arc<dyn TwinHost>> {
        self.scripted.twins()
    }
}

struct Play {
    clock: Arc<SimClock>,
    store: Arc<SimStore>,
    hubs: BTreeMap<HubId, PlayedHub>,
    directory: Directory,
}

impl Play {
    fn start(clock: &Arc<SimClock>, store: &Arc<SimStore>) -> Directory {
        let surroundings = Surroundings {
            store: store.clone(),
            clock: clock.clone(),
            entropy: Arc::new(SeededEntropy::new(1)),
            allocator: Arc::new(NoAllocator),
            fleet: Arc::new(Fleet::default()),
        };
        Directory::start(Config::default(), surroundings).unwrap()
    }

    async fn attach(&self) {
        for (record, _) in self.store.hubs().await.unwrap() {
            if self.directory.fleet().is_linked(&record.id) {
                continue;
            }
            let connector = Arc::new(self.hubs[&record.id].clone());
            self.directory.attach_hub(record, connector);
        }
    }

    /// Waits for what the record says must happen.
    async fn until(&self, device: usize, what: &str, mut is_so: impl AsyncFnMut(&Self) -> bool) {
        let waiting = async {
            while !is_so(self).await {
                // Whoever stopped is started again, as the reconciler would.
                let _ = self.directory.describe(&identity(device).id).await;
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("the actors did not come to {what}");
        }
    }

    async fn deliver(&self, call: &HubCall, fate: Fate) {
        let hub = &self.hubs[&call.hub];
        let (_, tell) = {
            let mut waiting = hub.waiting.lock().unwrap();
            let at = waiting.iter().position(|(waits, _)| waits == call).unwrap();
            waiting.remove(at)
        };
        let obeyed = match fate {
            Fate::Arrives | Fate::AnswerLost | Fate::Duplicated => Some(hub.scripted.obey(None, call).await),
            Fate::CallLost | Fate::Delayed | Fate::Unreachable | Fate::Refused => None,
        };
        let outcome = match (fate, obeyed) {
            (Fate::Arrives | Fate::Duplicated, Some(outcome)) => outcome,
            (Fate::Unreachable, _) => Err(CallFault::Unavailable("no way to it".to_owned())),
            (_, _) => Err(CallFault::Unknown("lost".to_owned())),
        };
        // An actor that stopped meanwhile hears nothing.
        let _ = tell.send(outcome);
    }

    async fn play(&mut self, op: Op, last: &mut String) {
        let heard = |answer: Result<Answer, Fault>| told(answer.ok().as_ref());
        match op {
            Op::Operate(commit) => {
                self.store.commit(*commit).await.unwrap();
                self.attach().await;
            }
            Op::HubChanged(hub) => self.directory.hub_changed(*hub).await,
            Op::Register { verified, enrollment, facts, request_id } => {
                *last = heard(self.directory.register(*verified, enrollment, facts, request_id).await);
            }
            Op::Reprovision { device, enrollment, to } => {
                let id = &identity(device).id;
                *last = heard(self.directory.reprovision(id, enrollment, to, "operator", None).await);
            }
            Op::Release { device } => {
                *last = heard(self.directory.release(&identity(device).id, "operator", "the script").await);
            }
            Op::Unpin { device } => *last = heard(self.directory.unpin(&identity(device).id, "operator").await),
            Op::Told(expected) => assert_eq!(*last, expected, "what the request was told"),
            Op::Strike(strike) => self.store.strike(strike),
            Op::Write { hub, device, write } => {
                let _ = self.hubs[&hub].scripted.write_directly(&device, tags(write));
            }
            Op::Deliver { call, fate, commits, device } => {
                let what = format!("{}({}) under order {}", call.effect.as_str(), call.hub, call.order);
                let waits = async |this: &Self| {
                    this.hubs[&call.hub].waiting.lock().unwrap().iter().any(|(waits, _)| *waits == call)
                };
                self.until(device, &what, waits).await;
                self.deliver(&call, fate).await;
                let written = async |this: &Self| this.store.commits() >= commits;
                self.until(device, &format!("commit {commits} after {what}"), written).await;
            }
            Op::Late { call } => {
                let _ = self.hubs[&call.hub].scripted.obey(None, &call).await;
            }
            Op::Advance { span, device, tries } => {
                let id: &RegistrationId = &identity(device).id;
                let tried = async |this: &Self| {
                    let Ok(report) = this.directory.describe(id).await else { return false };
                    let now: BTreeMap<CallKey, u32> =
                        report.tries.into_iter().map(|(key, tries)| (key, tries.attempts)).collect();
                    now == tries
                };
                self.until(device, &format!("the tries {tries:?}"), tried).await;
                self.clock.advance(span);
                self.clock.wake();
            }
            Op::Restart => {
                self.hubs.values().for_each(|hub| hub.waiting.lock().unwrap().clear());
                self.directory = Self::start(&self.clock, &self.store);
                self.attach().await;
                self.directory.resume().await.unwrap();
            }
        }
    }
}

async fn play(seed: u64, record: Record) {
    let clock = Arc::new(SimClock::at(NOW));
    let store = Arc::new(SimStore::new());
    store.ledger(|ledger| ledger.keeps_journal = true);
    let directory = Play::start(&clock, &store);
    let mut hubs = BTreeMap::new();
    for hub in &record.hubs {
        let scripted = ScriptedHub::new(hub.incarnation.unwrap(), clock.clone());
        hubs.insert(hub.id.clone(), PlayedHub { scripted, waiting: Arc::default() });
    }
    let mut play = Play { clock, store, hubs, directory };
    let mut last = String::new();
    for (place, op) in record.ops.into_iter().enumerate() {
        let what = format!("{op:?}");
        let played = std::panic::AssertUnwindSafe(play.play(op, &mut last)).catch_unwind().await;
        if played.is_err() {
            panic!("seed {seed}: the actors part from the record at op {place}: {what:.600}");
        }
    }
    let journal = play.store.ledger(|ledger| ledger.journal.clone());
    let differs = journal.iter().zip(&record.journal).find(|(played, recorded)| played != recorded);
    assert_eq!(differs, None, "seed {seed}: the journals differ");
    assert_eq!(journal.len(), record.journal.len(), "seed {seed}: one journal is longer");
    let places = places(play.hubs.iter().map(|(id, hub)| (id, &hub.scripted)));
    assert_eq!(places, record.places, "seed {seed}: the hubs differ");
}

#[test]
fn the_actors_write_the_same_history() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let (mut ops, mut lines) = (0, 0);
    let seeds = number("REHOME_SIM_PLAYS").unwrap_or(SEEDS);
    for seed in 0..seeds {
        let record = record(seed);
        (ops, lines) = (ops + record.ops.len(), lines + record.journal.len());
        runtime.block_on(play(seed, record));
    }
    println!("{seeds} seeds through the real actors: {ops} things that happened, {lines} commits, all the same");
}
