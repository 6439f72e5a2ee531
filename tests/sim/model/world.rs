//! The states of the model and the steps between them.
//!
//! Three things are taken in one step, since nothing that could come between them can tell the difference: a call's
//! delivery and its answer (an answer that is lost, and a crash before it, are steps of their own); a commit and the calls
//! it makes due (sent is not delivered); a crash and the start after it (what was in the network stays there, with
//! nobody who waits for it).

use std::collections::hash_map::DefaultHasher;
use std::fmt::{self, Debug, Write};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use rehome::domain::{
    Assignment, Attestation, CallFault, CallOutcome, Capabilities, CertificateRef, ClientFacts, Credential, DeviceId,
    DeviceState, Document, Enrollment, EnrollmentId, Hub as HubRecord, HubCall, HubEffect, HubId, HubKind, HubState,
    HubStatus, InitialState, MustSeal, Operation, OperationId, OperationStatus, Order, Past, Pin, Registration,
    RegistrationId, ReprovisionPolicy, ResetOnSameHub, SubStatus, Thumbprint, Timestamp, Twin, TwinPatch,
    UnreachableRule, Version, X509Leaves, limits,
};
use rehome::hubs::entry::{EffectKind, Entry, LastCall, Outcome as CallEnd, Phase, Tenant};
use rehome::moves::{
    CallKey, Carry, Commit, EndLease, Episode, Intent, JournalLine, JournalRecord, KnownState, Machine, MoveLog, Plan,
    Preconditions, Standing,
};
use rehome::policy::{self, Decision, HubView, Outcome, Snapshot, WebhookOutcome};

use super::copies::{Life, StoreCopy};
use super::rules::{Rule, obeyed, taken};

const HUBS: [&str; 3] = ["a", "b", "c"];
/// When everything happens. Time is a step: a pause is over, a deadline passes.
pub const NOW: Timestamp = Timestamp(1_000_000);
/// Longer than the pause after a few tries, shorter than any deadline.
const PAUSE: Duration = Duration::from_secs(20);

/// What goes wrong, each at most this often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Left {
    pub crashes: u8,
    /// A call is obeyed, its answer is lost.
    pub lost: u8,
    /// A call that nobody waits for any more arrives later, or never.
    pub delayed: u8,
    /// A call is obeyed, and a copy arrives later, or never.
    pub doubled: u8,
    /// A call does not get through.
    pub cut: u8,
    /// A deadline passes.
    pub given_up: u8,
    pub writes: u8,
    /// A hub is unlinked.
    pub unlinked: u8,
    /// `b` dies for good before the device was opened there.
    pub dead: u8,
    /// The enrollment's initial configuration is edited.
    pub edits: u8,
    /// A copy is made of a hub, or of the store.
    pub copied: u8,
    /// A hub, or the store, goes on from its copy.
    pub restored: u8,
    /// `a` is cut off from the service, and comes back; devices and back ends near it can write there all the while.
    pub cut_off: u8,
}

/// What is asked of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The device registers; its enrollment says this hub.
    Register { to: &'static str, policy: ReprovisionPolicy, key: u8 },
    /// An operator sends it there.
    Send { to: &'static str },
    /// An operator deletes the device.
    Release,
}

/// A small world.
#[derive(Debug, Clone, Default)]
pub struct Scenario {
    /// Whether the device lives at `a` when it begins.
    pub at_home: bool,
    /// In this order, each when nothing else runs.
    pub asks: Vec<Ask>,
    pub left: Left,
    /// Where an operator wants the device in the end.
    pub wanted_at: Option<&'static str>,
    /// A hub that cannot be reached is passed by with the state that was seen there last, and may take late writes.
    pub passes_by: bool,
    /// Hubs take writes only while their lease is live.
    pub leases: bool,
    /// Which of the two is copied and restored.
    pub copies: Copies,
    pub without: Vec<Rule>,
}

/// What goes back in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Copies {
    #[default]
    OfHubs,
    OfTheStore,
}

/// One step. Numbers are places in the network, or of a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Deliver(u8),
    Lose(u8),
    Delay(u8),
    Double(u8),
    Cut(u8),
    /// A call that nobody waits for arrives.
    Late(u8),
    /// Every pause is over.
    Retry,
    GiveUp,
    Crash,
    Ask,
    Write(u8),
    Unlink(u8),
    Die(u8),
    Edit,
    CutOff,
    BackOn,
    /// So long that a hub which does not answer counts as away.
    TimePasses,
    LeaseRunsOut(u8),
    /// The service is sure that the lease of a hub it passes by has ended.
    LeaseOver,
    /// A renewal is sent, with the list of homes that must be sealed first.
    Renew(u8),
    Renewed(u8),
    CopyHub(u8),
    RestoreHub(u8),
    /// Somebody goes through the devices of a hub that was restored.
    ReconcileHub(u8),
    CopyStore,
    RestoreStore,
    ReconcileStore,
}

impl Step {
    /// Whether a service left alone would take it.
    pub fn is_progress(self) -> bool {
        match self {
            Step::Deliver(_)
            | Step::Retry
            | Step::Ask
            | Step::BackOn
            | Step::TimePasses
            | Step::LeaseRunsOut(_)
            | Step::LeaseOver
            | Step::Renew(_)
            | Step::Renewed(_)
            | Step::ReconcileHub(_)
            | Step::ReconcileStore => true,
            Step::Lose(_)
            | Step::Delay(_)
            | Step::Double(_)
            | Step::Cut(_)
            | Step::Late(_)
            | Step::GiveUp
            | Step::Crash
            | Step::Write(_)
            | Step::Unlink(_)
            | Step::Die(_)
            | Step::CutOff
            | Step::CopyHub(_)
            | Step::RestoreHub(_)
            | Step::CopyStore
            | Step::RestoreStore
            | Step::Edit => false,
        }
    }
}

/// A promise that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    TwoOpen,
    WriteLost,
    NoHome,
    /// A device is where nobody knows of it.
    Orphan,
    WrongTwin,
    WrongCredential,
    /// The device is told *assigned*, and its hub takes no writes.
    ToldTooEarly,
    /// Something is owed, and nobody will do it.
    Unfinished,
    /// The device is not where the operator sent it.
    SentBack,
}

#[derive(Debug, Clone)]
pub struct Log {
    pub lines: Arc<MoveLog>,
    pub print: u64,
    /// The writes that stand in its states.
    pub holds: u8,
}

#[derive(Debug, Clone)]
pub struct Hub {
    pub id: HubId,
    pub entry: Option<Arc<Entry>>,
    linked: bool,
    alive: bool,
    cut: bool,
    /// Absent where hubs need none.
    lease: Option<Lease>,
    pub life: Life,
    print: u64,
    pub holds: u8,
    /// Of these, the writes in the twin.
    lives: u8,
}

/// The lease of a hub.
#[derive(Debug, Clone, Hash)]
struct Lease {
    live: bool,
    /// A renewal in the network: generation and order of each home to be sealed, and whether it may still extend the lease.
    renewal: Option<(Vec<(Order, Order)>, bool)>,
}

/// A call in the network.
#[derive(Debug, Clone)]
pub struct Sent {
    key: CallKey,
    call: Arc<HubCall>,
    print: u64,
    /// Nobody waits for its answer.
    late: bool,
    /// The life of the hub that is called.
    incarnation: u8,
}

/// Everything, at one moment.
#[derive(Debug, Clone)]
pub struct State {
    pub order: u64,
    pub record: Option<Arc<Registration>>,
    pub record_print: u64,
    pub earlier: Past,
    pub open: Vec<Log>,
    pub history: Vec<Log>,
    pub machine: Arc<Machine>,
    pub hubs: Vec<Hub>,
    pub net: Vec<Sent>,
    pub left: Left,
    asked: u8,
    written: u8,
    edition: u8,
    /// A long time has passed.
    late: bool,
    passes_by_rule: bool,
    /// Leases that the service waits for.
    ending: Vec<EndLease>,
    pub store_copy: Option<Arc<StoreCopy>>,
    /// The store went back in time, and nobody has gone through the hubs since.
    pub halted: bool,
    /// Writes that a restored hub had not yet when its copy was made.
    pub reported_lost: u8,
}

impl State {
    /// Where a scenario begins.
    pub fn first(scenario: &Scenario) -> Self {
        let home = |id: &str| {
            (scenario.at_home && id == "a").then(|| {
                let tenant =
                    Tenant { generation: Order(1), phase: Phase::Open, credential: key(0), state: first_state() };
                let last = LastCall { effect: EffectKind::Activate, outcome: CallEnd::Done };
                Arc::new(Entry { highest: Order(2), last, tenant: Some(tenant), departed: None })
            })
        };
        let hubs = HUBS.iter().map(|id| {
            let entry = home(id);
            let print = print_of(&entry);
            let lease = scenario.leases.then_some(Lease { live: true, renewal: None });
            Hub {
                id: hub_id(id),
                entry,
                linked: true,
                alive: true,
                cut: false,
                lease,
                life: Life::default(),
                print,
                holds: 0,
                lives: 0,
            }
        });
        let record = scenario.at_home.then(|| Arc::new(settled_at_a()));
        let machine = Machine::load(id(), record.as_deref().cloned(), vec![], Past::default()).unwrap();
        Self {
            order: 9,
            record_print: print_of(&record),
            record,
            earlier: Past::default(),
            open: vec![],
            history: vec![],
            machine: Arc::new(machine),
            hubs: hubs.collect(),
            net: vec![],
            left: scenario.left,
            asked: 0,
            written: 0,
            edition: 1,
            late: false,
            passes_by_rule: scenario.passes_by,
            ending: vec![],
            store_copy: None,
            halted: false,
            reported_lost: 0,
        }
    }

    pub fn now(&self) -> Timestamp {
        if self.late { NOW.plus(limits::BYPASS_AFTER + Duration::from_secs(1)) } else { NOW }
    }

    /// Equal for equal states, and (but for chance) for no others.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.order, self.record_print, self.left, self.asked, self.written, self.edition, self.late).hash(&mut hasher);
        print_of(&(&self.earlier, &self.ending)).hash(&mut hasher);
        (self.halted, self.reported_lost, self.store_copy.as_ref().map(|copy| copy.print())).hash(&mut hasher);
        for log in self.open.iter().chain(&self.history) {
            log.print.hash(&mut hasher);
        }
        for hub in &self.hubs {
            (hub.print, hub.linked, hub.alive, hub.cut, &hub.lease, hub.life.print()).hash(&mut hasher);
        }
        for sent in &self.net {
            (&sent.key, sent.print, sent.late, sent.incarnation).hash(&mut hasher);
        }
        for (key, tries) in self.machine.tries() {
            let attempts = tries.attempts.min(limits::BYPASS_TRIES_MIN);
            (key, attempts, tries.failed_at, tries.missing, tries.may_have_happened).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Every step that can be taken.
    pub fn steps(&self, scenario: &Scenario) -> Vec<Step> {
        let mut steps = Vec::new();
        let left = &self.left;
        let mut may = |count: u8, step: Step| {
            if count > 0 {
                steps.push(step);
            }
        };
        for (place, sent) in (0..).zip(&self.net) {
            if sent.late {
                may(u8::from(!self.is_cut(&sent.call.hub)), Step::Late(place));
                continue;
            }
            may(1, Step::Deliver(place));
            may(left.lost, Step::Lose(place));
            may(left.delayed, Step::Delay(place));
            may(left.doubled, Step::Double(place));
            may(left.cut, Step::Cut(place));
        }
        may(1, Step::Retry);
        may(u8::from(usize::from(self.asked) < scenario.asks.len() && !self.halted), Step::Ask);
        may(left.given_up * u8::from(!self.halted), Step::GiveUp);
        let of_store = scenario.copies == Copies::OfTheStore;
        may(left.copied * u8::from(of_store), Step::CopyStore);
        may(left.restored * u8::from(self.store_copy.is_some()), Step::RestoreStore);
        may(u8::from(self.halted), Step::ReconcileStore);
        may(left.crashes, Step::Crash);
        may(left.edits, Step::Edit);
        let a = &self.hubs[0];
        may(left.cut_off * u8::from(!a.cut), Step::CutOff);
        may(u8::from(a.cut), Step::BackOn);
        may(u8::from(a.cut && !self.late && self.machine.running().is_some()), Step::TimePasses);
        may(u8::from(self.can_be_sure(scenario)), Step::LeaseOver);
        for (place, hub) in (0..).zip(&self.hubs) {
            if let Some(lease) = &hub.lease {
                let is_renewed = !hub.cut && !self.passes_by(&hub.id);
                may(u8::from(lease.live && !is_renewed), Step::LeaseRunsOut(place));
                may(u8::from(!lease.live && lease.renewal.is_none() && !hub.cut), Step::Renew(place));
                may(u8::from(lease.renewal.is_some() && !hub.cut), Step::Renewed(place));
            }
            may(left.copied * u8::from(!of_store && hub.entry.is_some()), Step::CopyHub(place));
            may(left.restored * u8::from(hub.life.copy.is_some()), Step::RestoreHub(place));
            may(u8::from(hub.life.waits), Step::ReconcileHub(place));
            let is_open = hub.alive && hub.takes_writes();
            may(left.writes * u8::from(is_open), Step::Write(place));
            let may_go = hub.linked && (scenario.without.contains(&Rule::UnlinkRefused) || !self.names(&hub.id));
            may(left.unlinked * u8::from(may_go), Step::Unlink(place));
            let is_staged = hub.tenant().is_some_and(|tenant| tenant.phase == Phase::Staged);
            may(left.dead * u8::from(hub.alive && is_staged && hub.id.as_str() == "b"), Step::Die(place));
        }
        steps
    }

    /// The step in words.
    pub fn describe(&self, step: Step) -> String {
        let call = |place: u8| {
            let sent = &self.net[usize::from(place)];
            format!("{}({}) #{}", sent.call.effect.as_str(), sent.call.hub, sent.call.order)
        };
        let hub = |place: u8| &self.hubs[usize::from(place)].id;
        match step {
            Step::Deliver(place) => call(place),
            Step::Lose(place) => format!("{}, its answer is lost", call(place)),
            Step::Delay(place) => format!("{} is delayed", call(place)),
            Step::Double(place) => format!("{}, and a copy stays in the network", call(place)),
            Step::Cut(place) => format!("{} does not get through", call(place)),
            Step::Late(place) => format!("late {}", call(place)),
            Step::Retry => "pauses are over".to_owned(),
            Step::GiveUp => "the deadline passes".to_owned(),
            Step::Crash => "crash".to_owned(),
            Step::Ask => format!("ask {}", self.asked),
            Step::Write(place) => format!("write at {}", hub(place)),
            Step::Unlink(place) => format!("unlink {}", hub(place)),
            Step::Die(place) => format!("{} dies", hub(place)),
            Step::Edit => "the enrollment is edited".to_owned(),
            Step::CutOff => "a is cut off".to_owned(),
            Step::BackOn => "a is back".to_owned(),
            Step::TimePasses => "time passes".to_owned(),
            Step::LeaseRunsOut(place) => format!("the lease of {} runs out", hub(place)),
            Step::LeaseOver => "the service is sure that the lease has ended".to_owned(),
            Step::Renew(place) => format!("a renewal to {} is sent", hub(place)),
            Step::Renewed(place) => format!("a renewal at {}", hub(place)),
            Step::CopyHub(place) => format!("{} is copied", hub(place)),
            Step::RestoreHub(place) => format!("{} goes on from its copy", hub(place)),
            Step::ReconcileHub(place) => format!("the devices of {} are gone through", hub(place)),
            Step::CopyStore => "the store is copied".to_owned(),
            Step::RestoreStore => "the service goes on from the copy of its store".to_owned(),
            Step::ReconcileStore => "the hubs are gone through".to_owned(),
        }
    }

    /// The state after a step.
    pub fn after(&self, step: Step, scenario: &Scenario) -> State {
        let mut next = self.clone();
        next.take(step, scenario);
        next.net.sort_by(|one, other| (&one.key, one.late).cmp(&(&other.key, other.late)));
        next
    }

    fn take(&mut self, step: Step, scenario: &Scenario) {
        match step {
            Step::Deliver(place) => {
                let sent = self.net.remove(usize::from(place));
                let outcome = self.obey(&sent, scenario);
                self.finished(&sent.key, outcome, scenario);
            }
            Step::Lose(place) => {
                self.left.lost -= 1;
                let sent = self.net.remove(usize::from(place));
                let _ = self.obey(&sent, scenario);
                self.finished(&sent.key, unknown(), scenario);
            }
            Step::Delay(place) => {
                self.left.delayed -= 1;
                let sent = &mut self.net[usize::from(place)];
                sent.late = true;
                let key = sent.key.clone();
                self.finished(&key, unknown(), scenario);
            }
            Step::Double(place) => {
                self.left.doubled -= 1;
                let sent = self.net.remove(usize::from(place));
                self.net.push(Sent { late: true, ..sent.clone() });
                let outcome = self.obey(&sent, scenario);
                self.finished(&sent.key, outcome, scenario);
            }
            Step::Cut(place) => {
                self.left.cut -= 1;
                let sent = self.net.remove(usize::from(place));
                self.finished(&sent.key, unavailable(), scenario);
            }
            Step::Late(place) => {
                let sent = self.net.remove(usize::from(place));
                let _ = self.obey(&sent, scenario);
            }
            Step::Retry => self.pump(self.now().plus(PAUSE), scenario),
            Step::GiveUp => self.give_up(scenario),
            Step::Crash => {
                self.left.crashes -= 1;
                self.restart(scenario);
            }
            Step::Ask => self.ask(scenario),
            Step::Write(place) => {
                self.left.writes -= 1;
                self.write(usize::from(place));
            }
            Step::Unlink(place) => {
                self.left.unlinked -= 1;
                self.hubs[usize::from(place)].linked = false;
                self.answer_for_the_unreachable(scenario);
            }
            Step::Die(place) => {
                self.left.dead -= 1;
                self.hubs[usize::from(place)].alive = false;
                self.answer_for_the_unreachable(scenario);
            }
            Step::Edit => {
                self.left.edits -= 1;
                self.edition += 1;
            }
            Step::CutOff => {
                self.left.cut_off -= 1;
                self.hubs[0].cut = true;
                self.answer_for_the_unreachable(scenario);
            }
            Step::BackOn => self.hubs[0].cut = false,
            Step::TimePasses => {
                self.late = true;
                self.pump(self.now(), scenario);
            }
            Step::LeaseRunsOut(place) => {
                if let Some(lease) = &mut self.hubs[usize::from(place)].lease {
                    lease.live = false;
                }
            }
            Step::LeaseOver => self.lease_over(scenario),
            Step::Renew(place) => {
                let list = self.must_seal(&self.hubs[usize::from(place)].id);
                if let Some(lease) = &mut self.hubs[usize::from(place)].lease {
                    lease.renewal = Some((list, true));
                }
            }
            Step::Renewed(place) => self.renewed(usize::from(place), scenario),
            Step::CopyHub(place) => self.copy_hub(usize::from(place)),
            Step::RestoreHub(place) => self.restore_hub(usize::from(place), scenario),
            Step::ReconcileHub(place) => self.reconcile_hub(usize::from(place), scenario),
            Step::CopyStore => self.copy_store(),
            Step::RestoreStore => self.restore_store(scenario),
            Step::ReconcileStore => self.reconcile_store(scenario),
        }
    }

    fn is_cut(&self, hub: &HubId) -> bool {
        self.hubs.iter().any(|one| one.id == *hub && one.cut)
    }

    /// The homes at a hub that open moves have passed by.
    fn must_seal(&self, hub: &HubId) -> Vec<(Order, Order)> {
        let passed = self.machine.moves().filter_map(rehome::moves::Move::bypass);
        passed.filter(|(at, _)| at == hub).map(|(_, must)| (must.generation, must.order)).collect()
    }

    fn passes_by(&self, hub: &HubId) -> bool {
        !self.must_seal(hub).is_empty()
    }

    /// Whether the service may say that a lease has ended: it stopped renewing, and has waited for as long as one lasts.
    fn can_be_sure(&self, scenario: &Scenario) -> bool {
        self.ending.first().is_some_and(|ending| {
            scenario.without.contains(&Rule::Leases)
                || self
                    .hubs
                    .iter()
                    .any(|hub| hub.id == ending.hub && hub.lease.as_ref().is_none_or(|lease| !lease.live))
        })
    }

    fn lease_over(&mut self, scenario: &Scenario) {
        let ended = self.ending.remove(0);
        let hub = self.hubs.iter_mut().find(|hub| hub.id == ended.hub).unwrap();
        // A renewal counts from when it was sent: one that is still under way is too old to extend anything.
        if let Some(renewal) = hub.lease.as_mut().and_then(|lease| lease.renewal.as_mut()) {
            renewal.1 = false;
        }
        let now = self.now();
        Arc::make_mut(&mut self.machine).lease_ended(ended.generation, now);
        self.pump(now, scenario);
    }

    /// The hub takes the list, then writes again.
    fn renewed(&mut self, place: usize, scenario: &Scenario) {
        let hub = &mut self.hubs[place];
        let Some((list, extends)) = hub.lease.as_mut().and_then(|lease| lease.renewal.take()) else { return };
        for (generation, order) in list {
            let must = MustSeal { device: device(), generation, order };
            let entry = taken(hub.entry.as_deref(), &must, &scenario.without, NOW);
            hub.keep(entry);
        }
        if let Some(lease) = &mut hub.lease {
            lease.live |= extends;
        }
    }

    fn obey(&mut self, sent: &Sent, scenario: &Scenario) -> CallOutcome {
        let hub = self.hubs.iter_mut().find(|hub| hub.id == sent.call.hub).unwrap();
        // Whoever goes on from an older copy refuses all that names an earlier life; to the service it is away.
        let is_of_this_life = !hub.life.waits && sent.incarnation == hub.life.incarnation;
        if !hub.linked || !hub.alive || hub.cut || !is_of_this_life {
            return unavailable();
        }
        let mut call = (*sent.call).clone();
        let skips_collect = scenario.without.contains(&Rule::Collect)
            && sent.key.effect == rehome::moves::Effect::Collect
            && call.effect == HubEffect::Seal;
        if skips_collect {
            call.effect = HubEffect::Delete;
        }
        let (entry, answer) = obeyed(hub.entry.as_deref(), &call, &scenario.without, NOW);
        hub.keep(entry);
        if skips_collect {
            return Err(CallFault::Refused(rehome::domain::HubRefusal::NoSuchDevice));
        }
        answer.map_err(CallFault::Refused)
    }

    fn finished(&mut self, key: &CallKey, outcome: CallOutcome, scenario: &Scenario) {
        let now = self.now();
        let commit = if scenario.without.contains(&Rule::SettleFirst) {
            let mut alone = self.alone(key.generation);
            alone.as_mut().and_then(|alone| alone.finished(key, outcome.clone(), now))
        } else {
            Arc::make_mut(&mut self.machine).finished(key, outcome, now)
        };
        if let Some(commit) = commit {
            self.commit(&commit, scenario);
        }
        self.pump(now, scenario);
    }

    /// A mind that knows of one move only: what the service would be if each move looked after itself.
    fn alone(&self, generation: Order) -> Option<Machine> {
        let log = self.open.iter().find(|log| log.lines.generation == generation)?;
        let record = self.record.as_deref().cloned();
        Some(Machine::load(id(), record, vec![(*log.lines).clone()], self.earlier.clone()).unwrap())
    }

    /// Writes what can be written and sends what is due.
    pub fn pump(&mut self, now: Timestamp, scenario: &Scenario) {
        while !self.halted {
            let due = Arc::make_mut(&mut self.machine).due(now);
            if let Some(commit) = due.commit {
                self.commit(&commit, scenario);
                continue;
            }
            if let Some(recall) = due.recall {
                let known = KnownState { state: Box::new(first_state()), seen_at: NOW };
                if let Some(commit) = self.machine.recalled(&recall, Some(known), now) {
                    self.commit(&commit, scenario);
                }
                continue;
            }
            self.ending.extend(due.end_lease);
            let mut calls = due.calls;
            if scenario.without.contains(&Rule::SettleFirst) {
                let generations: Vec<Order> = self.open.iter().map(|log| log.lines.generation).collect();
                let alone = generations.into_iter().filter_map(|generation| self.alone(generation));
                calls.extend(alone.flat_map(|mut alone| alone.due(now).calls));
                calls.retain(|(key, _)| !self.net.iter().any(|sent| sent.key == *key && !sent.late));
                calls.sort_by(|one, other| one.0.cmp(&other.0));
                calls.dedup_by(|one, other| one.0 == other.0);
            }
            if calls.is_empty() {
                return;
            }
            for (key, mut call) in calls {
                if scenario.without.contains(&Rule::IntentHoldsInputs) {
                    take_todays_inputs(&mut call, &initial(self.edition));
                }
                let sent = self.sent(key, call, false);
                self.net.push(sent);
            }
            if !self.answer_for_the_unreachable(scenario) {
                return;
            }
        }
    }

    fn sent(&self, key: CallKey, call: HubCall, late: bool) -> Sent {
        let hub = self.hubs.iter().find(|hub| hub.id == call.hub);
        let incarnation = hub.map_or(0, |hub| hub.life.known);
        Sent { print: print_of(&call), key, call: Arc::new(call), late, incarnation }
    }

    /// What goes to a hub that is gone for good fails at once: trying again changes nothing.
    fn answer_for_the_unreachable(&mut self, scenario: &Scenario) -> bool {
        let gone: Vec<HubId> =
            self.hubs.iter().filter(|hub| !hub.linked || !hub.alive).map(|hub| hub.id.clone()).collect();
        // What nobody waits for is stuck before a hub that is cut off, and arrives when it is back.
        let (lost, kept): (Vec<Sent>, Vec<Sent>) = std::mem::take(&mut self.net).into_iter().partition(|sent| {
            gone.contains(&sent.call.hub)
                || (!sent.late && self.hubs.iter().any(|hub| hub.cut && hub.id == sent.call.hub))
        });
        self.net = kept;
        let (mut any, now) = (false, self.now());
        for sent in lost.into_iter().filter(|sent| !sent.late) {
            any = true;
            let machine = Arc::make_mut(&mut self.machine);
            if let Some(commit) = machine.finished(&sent.key, unavailable(), now) {
                self.commit(&commit, scenario);
            }
        }
        any && !self.machine_waits()
    }

    /// Whether all that is due now waits for a pause.
    fn machine_waits(&self) -> bool {
        let due = (*self.machine).clone().due(self.now());
        due.commit.is_none() && due.calls.is_empty() && due.recall.is_none()
    }

    pub fn commit(&mut self, commit: &Commit, scenario: &Scenario) {
        self.order += 1;
        let order = Order(self.order);
        for (generation, record) in &commit.lines {
            let line = JournalLine { order, at: commit.at, record: record.clone() };
            match generation {
                None => self.open.push(Log::begun(order, line)),
                Some(generation) => {
                    let log = self.open.iter_mut().find(|log| log.lines.generation == *generation).unwrap();
                    log.append(line);
                }
            }
        }
        for generation in &commit.close {
            let place = self.open.iter().position(|log| log.lines.generation == *generation).unwrap();
            self.history.push(self.open.remove(place));
        }
        self.history.retain(|log| !commit.forget.contains(&log.lines.generation));
        if scenario.without.contains(&Rule::SettleFirst) {
            // Each commit came from a mind of its own: what they wrote together is read from the store.
            let mut scratch =
                Machine::load(id(), self.record.as_deref().cloned(), vec![], self.earlier.clone()).unwrap();
            scratch.applied(&Commit { lines: vec![], close: vec![], ..commit.clone() }, order).unwrap();
            self.keep_record(&scratch);
            self.machine = Arc::new(self.loaded());
        } else {
            Arc::make_mut(&mut self.machine).applied(commit, order).unwrap();
            let machine = self.machine.clone();
            self.keep_record(&machine);
        }
        self.keep_ending();
    }

    /// Leases that nobody waits for any more are forgotten.
    fn keep_ending(&mut self) {
        let machine = self.machine.clone();
        self.ending.retain(|ending| machine.open_move(ending.generation).is_some());
    }

    fn keep_record(&mut self, machine: &Machine) {
        self.record = machine.registration().cloned().map(Arc::new);
        self.record_print = print_of(&self.record);
        self.earlier = machine.earlier().clone();
    }

    pub fn loaded(&self) -> Machine {
        let open = self.open.iter().map(|log| (*log.lines).clone()).collect();
        Machine::load(id(), self.record.as_deref().cloned(), open, self.earlier.clone()).unwrap()
    }

    pub fn restart(&mut self, scenario: &Scenario) {
        self.ending.clear();
        self.net.iter_mut().for_each(|sent| sent.late = true);
        self.machine = Arc::new(self.loaded());
        self.pump(self.now(), scenario);
    }

    fn give_up(&mut self, scenario: &Scenario) {
        let far = NOW.plus(limits::UNREACHABLE_WAIT_MAX * 2);
        let Some(commit) = (*self.machine).clone().due(far).commit else { return };
        let mut commit = *commit;
        self.left.given_up -= 1;
        if scenario.without.contains(&Rule::UndoTheUnknown) {
            for (_, record) in &mut commit.lines {
                if let JournalRecord::Aborted { spare_current, .. } = record {
                    *spare_current = true;
                }
            }
        }
        if scenario.without.contains(&Rule::AbortBeforeUndo) {
            // It calls first, and dies before it has written why.
            if self.left.crashes == 0 {
                return;
            }
            self.left.crashes -= 1;
            let mut unwritten = (*self.machine).clone();
            unwritten.applied(&commit, Order(self.order + 1)).unwrap();
            self.restart(scenario);
            let undo = unwritten.due(self.now()).calls.into_iter();
            let undo: Vec<Sent> = undo.map(|(key, call)| self.sent(key, call, true)).collect();
            self.net.extend(undo);
            return;
        }
        self.commit(&commit, scenario);
        self.pump(self.now(), scenario);
    }

    fn write(&mut self, place: usize) {
        let hub = &mut self.hubs[place];
        let mut entry = hub.entry.as_deref().cloned().unwrap();
        let tenant = entry.tenant.as_mut().unwrap();
        let tags = Document::from_text(&format!(r#"{{"w{}":1}}"#, self.written)).unwrap();
        let patch = TwinPatch { tags: Some(tags), ..TwinPatch::default() };
        tenant.state.twin = tenant.state.twin.patched(&patch, NOW).unwrap();
        hub.keep(Some(entry));
        self.written += 1;
    }

    /// What the service does when it is asked; a wish that joins what runs stays to be asked again.
    fn ask(&mut self, scenario: &Scenario) {
        let ask = scenario.asks[usize::from(self.asked)];
        let Some(commit) = self.judge(ask, scenario) else { return };
        self.asked += 1;
        if let Some(commit) = commit {
            self.commit(&commit, scenario);
        }
        self.pump(self.now(), scenario);
    }

    /// `None`: not now. `Some(None)`: nothing is to be done.
    fn judge(&self, ask: Ask, scenario: &Scenario) -> Option<Option<Commit>> {
        let machine = &self.machine;
        let replants = !scenario.without.contains(&Rule::Replant);
        let source = machine.replantable().filter(|_| replants);
        if machine.running().is_some() && source.is_none() {
            return None;
        }
        let current = machine.registration().and_then(|record| record.assignment.as_ref());
        let (to, policy, credential, pin) = match ask {
            Ask::Register { to, policy, key: number } => {
                let recorded = machine.registration().and_then(|record| record.pin.clone());
                let pin = recorded.filter(|_| !scenario.without.contains(&Rule::Pin));
                (to, policy, key(number), pin)
            }
            Ask::Send { to } => (to, ReprovisionPolicy::Migrate, key(0), Some(pin_to(to))),
            Ask::Release => {
                let plan = Plan::Release { from: current.map(|home| home.hub.clone()) };
                let intent = self.intent(plan, SubStatus::InitialAssignment, key(0), None);
                return Some(Some(machine.begin(intent, Preconditions::default(), self.now())));
            }
        };
        let enrollment = enrollment(to, policy);
        let views: Vec<HubView> = self.hubs.iter().filter(|hub| hub.linked).map(view).collect();
        let snapshot = Snapshot {
            registration_id: machine.id(),
            enrollment: &enrollment,
            facts: &ClientFacts::default(),
            current: current.map(|home| &home.hub),
            never_opened: false,
            pin: pin.as_ref(),
            hubs: &views,
            webhook: &WebhookOutcome::NotAsked,
            enrollment_changed: true,
        };
        let decision = policy::evaluate(&snapshot).decision;
        let refresh = current.is_some_and(|home| home.credential.as_ref() != Some(&credential));
        let Some(plan) = plan_of(&decision, source.map(|source| source.generation), refresh) else {
            return if machine.is_home_closed() { None } else { Some(None) };
        };
        if machine.is_home_closed() && plan.arrives_at().is_none() {
            return None;
        }
        let sub_status = decision.sub_status().unwrap_or(SubStatus::ReprovisionedToInitialAssignment);
        let mut intent = self.intent(plan, sub_status, credential, pin);
        intent.planted = source.and_then(|source| source.arriving_state()).map(Box::new);
        intent.policy = Some(policy);
        Some(Some(machine.begin(intent, Preconditions::default(), self.now())))
    }

    pub fn intent(&self, plan: Plan, sub_status: SubStatus, credential: Credential, pin: Option<Pin>) -> Box<Intent> {
        Box::new(Intent {
            operation: OperationId(u128::from(self.asked) + 2),
            request_id: None,
            by: "device".to_owned(),
            registration: id(),
            device: device(),
            plan,
            enrollment: EnrollmentId::Individual(id()),
            enrollment_version: Version(1),
            policy: None,
            sub_status,
            credential,
            initial: initial(self.edition),
            planted: None,
            unreachable: if self.passes_by_rule {
                UnreachableRule::LastKnown
            } else {
                UnreachableRule::Wait { deadline: limits::UNREACHABLE_WAIT_DEFAULT }
            },
            allow_late_writes: self.passes_by_rule,
            adopt_existing: false,
            tpm: None,
            payload: None,
            pin,
            why: String::new(),
        })
    }

    /// Whether a registration, a move or an obligation names the hub.
    fn names(&self, hub: &HubId) -> bool {
        let home = self.record.as_ref().and_then(|record| record.assignment.as_ref());
        home.is_some_and(|home| home.hub == *hub)
            || self.machine.moves().any(|this| {
                this.owed().iter().any(|owed| owed.hub == *hub)
                    || (!this.is_told()
                        && [rehome::moves::plan::Side::From, rehome::moves::plan::Side::To]
                            .iter()
                            .any(|side| this.intent.plan.hub(*side) == Some(hub)))
            })
    }

    /// What holds at every moment.
    pub fn broken(&self) -> Option<(Breach, String)> {
        // One that was passed by, and holds no lease, may take late writes until it is reached again: an operator said so.
        let split = |hub: &&Hub| hub.lease.is_none() && self.passes_by(&hub.id);
        let open = self.hubs.iter().filter(|hub| hub.alive && hub.takes_writes());
        let open: Vec<&HubId> = open.filter(|hub| !split(hub)).map(|hub| &hub.id).collect();
        if open.len() > 1 {
            return Some((Breach::TwoOpen, format!("{open:?} take writes")));
        }
        let kept = self.hubs.iter().map(|hub| hub.holds).chain(self.logs().map(|log| log.holds));
        let lost = self.all_writes() & !self.reported_lost & !kept.fold(0, |all, one| all | one);
        if lost != 0 {
            return Some((Breach::WriteLost, format!("writes {lost:#b} are neither at a hub nor in a journal")));
        }
        let standing = Standing::of(self.record.as_deref(), self.machine.moves())?;
        let told = standing.running.is_none() && matches!(standing.operation.status, OperationStatus::Assigned { .. });
        let home = standing.assignment.filter(|_| told)?.hub;
        let gone = self.hubs.iter().any(|hub| hub.id == home && !hub.linked);
        // Without its lease a hub takes writes again as soon as it has one.
        let waits = |hub: &Hub| hub.is_open() && hub.lease.is_some() || hub.life.waits;
        let waits = self.halted || self.hubs.iter().any(|hub| hub.id == home && waits(hub));
        (!gone && !waits && !open.contains(&&home))
            .then(|| (Breach::ToldTooEarly, format!("the device is told {home}, which takes no writes")))
    }

    /// What holds when there is nothing left to do.
    pub fn broken_at_rest(&self, scenario: &Scenario) -> Option<(Breach, String)> {
        let home = self.record.as_ref().and_then(|record| record.assignment.as_ref());
        for hub in &self.hubs {
            let is_home = home.is_some_and(|home| home.hub == hub.id);
            if is_home && !(hub.alive && hub.linked && hub.takes_writes()) {
                return Some((Breach::NoHome, format!("{} is the home and takes no writes", hub.id)));
            }
        }
        for hub in self.hubs.iter().filter(|hub| hub.alive && hub.tenant().is_some()) {
            if home.is_none_or(|home| home.hub != hub.id) {
                return Some((Breach::Orphan, format!("{} has the device, whose home is {home:?}", hub.id)));
            }
        }
        // What is owed to a hub that died stays owed.
        let dead = |hub: &HubId| self.hubs.iter().any(|one| one.id == *hub && !one.alive);
        let owed = |this: &rehome::moves::Move| this.owed().iter().any(|owed| !dead(&owed.hub)) || !this.is_told();
        if let Some(open) = self.machine.moves().find(|this| owed(this)) {
            return Some((Breach::Unfinished, format!("{open:?}")));
        }
        let home = home?;
        let hub = self.hubs.iter().find(|hub| hub.id == home.hub)?;
        let kept = self.history.iter().fold(hub.lives, |all, log| all | log.holds);
        if self.all_writes() & !self.reported_lost & !kept != 0 {
            return Some((Breach::WriteLost, "a write is neither in the twin nor in the history".to_owned()));
        }
        let tenant = hub.tenant()?;
        if home.credential.as_ref().is_some_and(|recorded| *recorded != tenant.credential) {
            return Some((Breach::WrongCredential, format!("{home:?}, and the hub has {:?}", tenant.credential)));
        }
        if let Some(wanted) = scenario.wanted_at
            && usize::from(self.asked) == scenario.asks.len()
            && home.hub.as_str() != wanted
            && self.left.given_up == scenario.left.given_up
        {
            return Some((Breach::SentBack, format!("the device is at {}, and was sent to {wanted}", home.hub)));
        }
        let last = self.history.iter().rev().filter_map(Log::intent).find(|intent| starts_afresh(&intent.plan))?;
        let (wanted, found) = (&last.initial.desired, &tenant.state.twin.desired.properties);
        (wanted != found).then(|| (Breach::WrongTwin, format!("{wanted:?} was to be, {found:?} is")))
    }

    pub fn logs(&self) -> impl Iterator<Item = &Log> {
        self.open.iter().chain(&self.history)
    }

    pub fn all_writes(&self) -> u8 {
        (1 << self.written) - 1
    }
}

impl Log {
    fn begun(generation: Order, line: JournalLine) -> Self {
        let lines = MoveLog { generation, registration: id(), lines: vec![] };
        let mut this = Self { lines: Arc::new(lines), print: 0, holds: 0 };
        this.append(line);
        this
    }

    fn append(&mut self, line: JournalLine) {
        self.print = print_of(&(self.print, &line));
        self.holds |= match &line.record {
            JournalRecord::StepDone { state, .. }
            | JournalRecord::Collected { state, .. }
            | JournalRecord::Settled { state, .. } => state.as_deref().map_or(0, writes_in),
            JournalRecord::Bypassed { known, .. } => known.as_ref().map_or(0, |known| writes_in(&known.state)),
            JournalRecord::Regained { state, .. } => writes_in(state),
            JournalRecord::Intent(intent) => intent.planted.as_deref().map_or(0, writes_in),
            JournalRecord::Pivoted { .. }
            | JournalRecord::Aborted { .. }
            | JournalRecord::Stuck { .. }
            | JournalRecord::Dropped { .. }
            | JournalRecord::Retried { .. }
            | JournalRecord::Abandoned { .. } => 0,
        };
        Arc::make_mut(&mut self.lines).lines.push(line);
    }

    /// Whether a state stands in one of its lines.
    pub fn holds_a_state(&self) -> bool {
        Episode::read((*self.lines).clone()).unwrap().has_state
    }

    fn intent(&self) -> Option<&Intent> {
        match &self.lines.lines.first()?.record {
            JournalRecord::Intent(intent) => Some(intent),
            JournalRecord::StepDone { .. }
            | JournalRecord::Pivoted { .. }
            | JournalRecord::Aborted { .. }
            | JournalRecord::Collected { .. }
            | JournalRecord::Settled { .. }
            | JournalRecord::Stuck { .. }
            | JournalRecord::Dropped { .. }
            | JournalRecord::Bypassed { .. }
            | JournalRecord::Regained { .. }
            | JournalRecord::Retried { .. }
            | JournalRecord::Abandoned { .. } => None,
        }
    }
}

impl Hub {
    pub fn tenant(&self) -> Option<&Tenant> {
        self.entry.as_ref().and_then(|entry| entry.tenant.as_ref())
    }

    fn is_open(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| entry.is_open())
    }

    fn takes_writes(&self) -> bool {
        self.is_open() && !self.life.waits && self.lease.as_ref().is_none_or(|lease| lease.live)
    }

    pub fn keep(&mut self, entry: Option<Entry>) {
        self.entry = entry.map(Arc::new);
        self.print = print_of(&self.entry);
        // What a reset replaced is kept by the hub until a repeat of the call has been answered with it.
        let replaced = self.entry.as_ref().map_or(0, |entry| match &entry.last.outcome {
            CallEnd::Replaced(state) => writes_in(state),
            CallEnd::Done | CallEnd::Sealed | CallEnd::Refused(_) => 0,
        });
        self.lives = self.tenant().map_or(0, |tenant| writes_in(&tenant.state));
        self.holds = self.lives | replaced;
    }
}

/// The writes whose mark a state carries.
fn writes_in(state: &DeviceState) -> u8 {
    let marks = state.twin.tags.0.keys().filter_map(|key| key.strip_prefix('w')?.parse::<u8>().ok());
    marks.fold(0, |all, number| all | (1 << number))
}

/// The hash of a value's `Debug` text, which names every field.
pub fn print_of(value: &impl Debug) -> u64 {
    struct Text(DefaultHasher);
    impl Write for Text {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let mut text = Text(DefaultHasher::new());
    write!(text, "{value:?}").unwrap();
    text.0.finish()
}

fn plan_of(decision: &Decision, replants: Option<Order>, refresh: bool) -> Option<Plan> {
    match (&decision.outcome, replants) {
        (Outcome::Relocate { from, to, .. }, Some(source)) => {
            Some(Plan::Replant { from: from.clone(), to: to.clone(), source })
        }
        (Outcome::Relocate { from, to, carry }, None) => {
            let carry = match carry {
                policy::Carry::State => Carry::State,
                policy::Carry::Initial => Carry::Initial,
            };
            Some(Plan::Relocate { from: from.clone(), to: to.clone(), carry })
        }
        (Outcome::Assign { to }, None) => Some(Plan::Assign { to: to.clone() }),
        (Outcome::AssignAnew { from, to }, None) => Some(Plan::Rehouse { from: from.clone(), to: to.clone() }),
        (Outcome::ResetInPlace { at }, None) => Some(Plan::ResetInPlace { at: at.clone(), credential: refresh }),
        (Outcome::Stay { at, .. }, None) if refresh => Some(Plan::Refresh { at: at.clone() }),
        (Outcome::Stay { .. }, None) | (Outcome::Fail { .. }, None) => None,
        // No scenario has a rule that goes on with what was seen last.
        (Outcome::Restore { .. }, None | Some(_)) => None,
        (
            Outcome::Assign { .. }
            | Outcome::AssignAnew { .. }
            | Outcome::ResetInPlace { .. }
            | Outcome::Stay { .. }
            | Outcome::Fail { .. },
            Some(_),
        ) => None,
    }
}

/// Whether the twin after the move is the initial one.
fn starts_afresh(plan: &Plan) -> bool {
    match plan {
        Plan::Assign { .. }
        | Plan::TakeOver { adopt: false, .. }
        | Plan::Relocate { carry: Carry::Initial, .. }
        | Plan::Rehouse { .. }
        | Plan::ResetInPlace { .. } => true,
        Plan::TakeOver { adopt: true, .. }
        | Plan::Relocate { carry: Carry::State | Carry::Planted { .. }, .. }
        | Plan::Replant { .. }
        | Plan::Restore { .. }
        | Plan::Refresh { .. }
        | Plan::Release { .. }
        | Plan::Collect { .. } => false,
    }
}

fn take_todays_inputs(call: &mut HubCall, initial: &InitialState) {
    match &mut call.effect {
        HubEffect::Create(device) => device.state.twin.desired.properties = initial.desired.clone(),
        HubEffect::ReplaceTwin(with) => **with = initial.clone(),
        HubEffect::Activate
        | HubEffect::Seal
        | HubEffect::Unseal
        | HubEffect::Delete
        | HubEffect::Discard(_)
        | HubEffect::UpdateCredential(_)
        | HubEffect::ReplaceCredential(_) => {}
    }
}

fn unknown() -> CallOutcome {
    Err(CallFault::Unknown(String::new()))
}

fn unavailable() -> CallOutcome {
    Err(CallFault::Unavailable(String::new()))
}

fn id() -> RegistrationId {
    RegistrationId::parse("dev").unwrap()
}

pub fn device() -> DeviceId {
    DeviceId::parse("dev").unwrap()
}

fn hub_id(id: &str) -> HubId {
    HubId::parse(id).unwrap()
}

fn key(number: u8) -> Credential {
    Credential::x509([Thumbprint([number; 32])])
}

fn pin_to(hub: &str) -> Pin {
    Pin { hub: hub_id(hub), by: "operator".to_owned(), reason: String::new(), set_at: NOW, expires_at: None }
}

/// The initial configuration in its editions; 0 is what the device had before.
fn initial(edition: u8) -> InitialState {
    let desired = Document::from_text(&format!(r#"{{"edition":{edition}}}"#)).unwrap();
    InitialState { desired, tags: Document::default(), capabilities: Capabilities::default() }
}

/// What the device had when the scenario began: also what was seen last of it.
pub fn first_state() -> DeviceState {
    DeviceState {
        twin: Twin::initial(&initial(0), NOW),
        capabilities: Capabilities::default(),
        status: HubStatus::Enabled,
    }
}

fn settled_at_a() -> Registration {
    Registration {
        id: id(),
        device_id: device(),
        enrollment: EnrollmentId::Individual(id()),
        enrollment_version: Version(1),
        policy: None,
        assignment: Some(Assignment {
            hub: hub_id("a"),
            generation: Order(1),
            credential: Some(key(0)),
            assigned_at: NOW,
        }),
        operation: Operation {
            id: OperationId(1),
            status: OperationStatus::Assigned { sub_status: SubStatus::InitialAssignment, data_source: None },
            request_id: None,
            started_at: NOW,
            updated_at: NOW,
        },
        pin: None,
        tpm: None,
        payload: None,
        past: Past::default(),
        created_at: NOW,
        updated_at: NOW,
        version: Version(1),
    }
}

fn enrollment(to: &str, policy: ReprovisionPolicy) -> Enrollment {
    let primary = CertificateRef { der: vec![], thumbprint: Thumbprint([0; 32]), subject: Thumbprint([0; 32]) };
    Enrollment {
        id: EnrollmentId::Individual(id()),
        attestation: Attestation::X509Leaf(X509Leaves { primary, secondary: None }),
        enabled: true,
        device_id: None,
        initial: InitialState::default(),
        reprovision: Some(policy),
        allocation: None,
        hubs: vec![hub_id(to)],
        unreachable: UnreachableRule::Wait { deadline: Duration::from_secs(900) },
        allow_late_writes: false,
        reset_on_same_hub: ResetOnSameHub::Always,
        reassign_when_down: true,
        adopt_existing: false,
        created_at: NOW,
        updated_at: NOW,
        version: Version(1),
    }
}

fn view(hub: &Hub) -> HubView {
    HubView {
        hub: HubRecord {
            id: hub.id.clone(),
            host_name: String::new(),
            endpoint: String::new(),
            kind: HubKind::Embedded,
            state: HubState::Active,
            location: None,
            weight: 1,
            capacity: None,
            calls_per_second: None,
            incarnation: None,
            taken_down: false,
            created_at: NOW,
            updated_at: NOW,
            version: Version(1),
        },
        occupied: 0,
        reachable: hub.alive && !hub.cut,
    }
}
