//! Every plan through every single failure: refused at each step, cut off after each commit, each answer lost, each call
//! made twice. A plan is covered as soon as it is one of the [`shapes`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::plan::Side;
use super::shapes::shapes;
use super::*;
use crate::domain::{
    AuditAction, AuditEntry, CallFault, CallOutcome, Capabilities, Credential, DataSource, DeviceId, DeviceState,
    Document, EnrollmentId, HubAnswer, HubCall, HubEffect, HubId, HubRefusal, HubStatus, Incarnation, InitialState,
    OperationId, OperationStatus, Order, Past, Reason, Registration, RegistrationId, ReprovisionPolicy, SubStatus,
    Thumbprint, Timestamp, Twin, TwinPatch, UnreachableRule, Version, limits,
};

mod faults;

const WAIT: Duration = Duration::from_secs(60);

fn hub(id: &str) -> HubId {
    HubId::parse(id).unwrap()
}

fn id() -> RegistrationId {
    RegistrationId::parse("dev-1").unwrap()
}

/// The three rules for a hub that is away, each as it works.
const RULES: [UnreachableRule; 3] =
    [UnreachableRule::Wait { deadline: WAIT }, UnreachableRule::LastKnown, UnreachableRule::Reset];

fn initial() -> InitialState {
    let desired = Document::from_text(r#"{"mode":"initial"}"#).unwrap();
    InitialState { desired, tags: Document::default(), capabilities: Capabilities { iot_edge: true } }
}

fn old_state() -> DeviceState {
    let patch = TwinPatch { reported: Some(Document::from_text(r#"{"seen":1}"#).unwrap()), ..TwinPatch::default() };
    DeviceState {
        twin: Twin::initial(&initial(), Timestamp(5)).patched(&patch, Timestamp(6)).unwrap(),
        capabilities: Capabilities::default(),
        status: HubStatus::Disabled { reason: "quarantine".to_owned() },
    }
}

fn intent(plan: Plan, operation: u128) -> Box<Intent> {
    let planted = match &plan {
        Plan::Replant { .. }
        | Plan::Restore { .. }
        | Plan::Rehouse { .. }
        | Plan::Relocate { carry: Carry::Planted { .. }, .. }
        | Plan::Collect { from: None } => Some(Box::new(old_state())),
        Plan::Relocate { carry: Carry::State | Carry::Initial, .. }
        | Plan::Assign { .. }
        | Plan::TakeOver { .. }
        | Plan::ResetInPlace { .. }
        | Plan::Refresh { .. }
        | Plan::Collect { from: Some(_) }
        | Plan::Release { .. } => None,
    };
    Box::new(Intent {
        operation: OperationId(operation),
        request_id: None,
        by: "device".to_owned(),
        registration: id(),
        device: DeviceId::parse("dev-1").unwrap(),
        plan,
        enrollment: EnrollmentId::Individual(id()),
        enrollment_version: Version(1),
        policy: Some(ReprovisionPolicy::Migrate),
        sub_status: SubStatus::DeviceDataMigrated,
        credential: Credential::x509([Thumbprint([2; 32])]),
        initial: initial(),
        planted,
        unreachable: UnreachableRule::Wait { deadline: WAIT },
        allow_late_writes: false,
        adopt_existing: false,
        tpm: None,
        payload: None,
        pin: None,
        why: "a test".to_owned(),
    })
}

fn record(home: Option<&str>) -> Registration {
    Registration {
        id: id(),
        device_id: DeviceId::parse("dev-1").unwrap(),
        enrollment: EnrollmentId::Individual(id()),
        enrollment_version: Version(1),
        policy: None,
        assignment: home.map(|home| crate::domain::Assignment {
            hub: hub(home),
            generation: Order(1),
            credential: Some(Credential::x509([Thumbprint([1; 32])])),
            assigned_at: Timestamp(1),
        }),
        operation: crate::domain::Operation {
            id: OperationId(1),
            status: OperationStatus::Assigned { sub_status: SubStatus::InitialAssignment, data_source: None },
            request_id: None,
            started_at: Timestamp(1),
            updated_at: Timestamp(1),
        },
        pin: None,
        tpm: None,
        payload: None,
        past: Past::default(),
        created_at: Timestamp(1),
        updated_at: Timestamp(1),
        version: Version(1),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Staged,
    Open,
    Sealed,
}

/// A hub for one device, obeying as `domain::call` says.
#[derive(Debug, Default, Clone)]
struct Hub {
    highest: Order,
    tenant: Option<(Phase, DeviceState)>,
    /// What brought the tenant there.
    generation: Order,
    /// The answer of the highest order, for repeats.
    said: Option<(&'static str, CallOutcome)>,
    obeyed: Vec<(&'static str, Order)>,
}

impl Hub {
    fn obey(&mut self, call: &HubCall) -> CallOutcome {
        let word = call.effect.as_str();
        if call.order < self.highest {
            return Err(CallFault::Refused(HubRefusal::Stale { highest: self.highest }));
        }
        if call.order == self.highest
            && let Some((said, answer)) = &self.said
            && *said == word
        {
            return answer.clone();
        }
        let answer = match (&call.effect, self.tenant.take()) {
            (HubEffect::Create(_), Some(tenant)) => {
                self.tenant = Some(tenant);
                return self.refuse(call, HubRefusal::Occupied);
            }
            (HubEffect::Create(new), None) => {
                self.tenant = Some((Phase::Staged, new.state.clone()));
                self.generation = new.generation;
                HubAnswer::Done
            }
            (HubEffect::Discard(generation), Some(tenant)) if self.generation != *generation => {
                self.tenant = Some(tenant);
                HubAnswer::Done
            }
            (HubEffect::Delete | HubEffect::Discard(_), _) => HubAnswer::Done,
            (_, None) => return self.refuse(call, HubRefusal::NoSuchDevice),
            (HubEffect::Activate, Some((Phase::Staged, state))) => {
                self.tenant = Some((Phase::Open, state));
                HubAnswer::Done
            }
            (HubEffect::Activate, Some(tenant)) => {
                self.tenant = Some(tenant);
                return self.refuse(call, HubRefusal::NotStaged);
            }
            (HubEffect::Seal, Some((_, state))) => {
                self.tenant = Some((Phase::Sealed, state.clone()));
                HubAnswer::State(Box::new(state))
            }
            (HubEffect::Unseal, Some((_, state))) => {
                self.tenant = Some((Phase::Open, state));
                HubAnswer::Done
            }
            (HubEffect::ReplaceTwin(initial), Some((phase, state))) => {
                let twin = state.twin.reset(initial, Timestamp(9));
                self.tenant = Some((phase, DeviceState { twin, ..state.clone() }));
                HubAnswer::State(Box::new(state))
            }
            (HubEffect::UpdateCredential(_) | HubEffect::ReplaceCredential(_), Some(tenant)) => {
                self.tenant = Some(tenant);
                HubAnswer::Done
            }
        };
        self.highest = call.order;
        self.said = Some((word, Ok(answer.clone())));
        self.obeyed.push((word, call.order));
        Ok(answer)
    }

    /// A refusal raises the fence too, and is remembered.
    fn refuse(&mut self, call: &HubCall, refusal: HubRefusal) -> CallOutcome {
        if call.order < self.highest {
            return Err(CallFault::Refused(HubRefusal::Stale { highest: self.highest }));
        }
        let answer = Err(CallFault::Refused(refusal));
        self.highest = call.order;
        self.said = Some((call.effect.as_str(), answer.clone()));
        answer
    }

    fn is_open(&self) -> bool {
        matches!(self.tenant, Some((Phase::Open, _)))
    }
}

/// What goes wrong once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The n-th call is refused by a hub that is full.
    Refused(usize),
    /// As above, and the process dies after the commit that follows from it.
    RefusedThenCrash(usize),
    /// The answer of the n-th call is lost.
    Lost(usize),
    /// The n-th call does not get through.
    Unreachable(usize),
    /// The n-th call is made twice, the copy at the very end.
    Twice(usize),
    /// The n-th call is made twice, one right after the other.
    Again(usize),
    /// The process dies after the n-th commit.
    Crash(usize),
    /// From the n-th call on, the hub called does not answer until the deadline.
    Away(usize),
}

/// A store of one device, two hubs, and a clock.
#[derive(Debug, Clone)]
struct World {
    order: Order,
    now: Timestamp,
    registration: Option<Registration>,
    logs: BTreeMap<Order, MoveLog>,
    closed: Vec<Order>,
    hubs: BTreeMap<HubId, Hub>,
    commits: usize,
    calls: usize,
    late: Vec<HubCall>,
    /// As above, of steps that nothing takes back.
    late_unfenced: Vec<HubCall>,
    away: Option<(HubId, Timestamp)>,
    /// For how long a hub stays away.
    away_for: Duration,
    rule: UnreachableRule,
    /// The newest state that the service has seen of the device at its hub.
    known: Option<KnownState>,
    /// A lease that the old hub holds is over then.
    lease_ends_at: Option<Timestamp>,
    /// The kinds of line that the process died after.
    died_after: BTreeSet<&'static str>,
    dies_next: bool,
    lives: usize,
}

impl World {
    fn new(home: Option<Phase>, registration: Option<Registration>) -> Self {
        let mut hubs = BTreeMap::from([(hub("a"), Hub::default()), (hub("b"), Hub::default())]);
        if let (Some(phase), Some(home)) = (home, hubs.get_mut(&hub("a"))) {
            *home = Hub { highest: Order(5), tenant: Some((phase, old_state())), ..Hub::default() };
        }
        Self {
            order: Order(10),
            now: Timestamp(1_000_000),
            registration,
            logs: BTreeMap::new(),
            closed: vec![],
            hubs,
            commits: 0,
            calls: 0,
            late: vec![],
            late_unfenced: vec![],
            away: None,
            away_for: WAIT * 3,
            rule: RULES[0],
            known: Some(KnownState { state: Box::new(old_state()), seen_at: Timestamp(4) }),
            lease_ends_at: None,
            died_after: BTreeSet::new(),
            dies_next: false,
            lives: 1,
        }
    }

    fn load(&self) -> Machine {
        let open = self.logs.values().filter(|log| !self.closed.contains(&log.generation)).cloned().collect();
        Machine::load(id(), self.registration.clone(), open, Past::default()).unwrap()
    }

    /// Makes a commit durable and tells the machine; the machine is loaded anew when the process dies there.
    fn commit(&mut self, machine: &mut Machine, commit: Commit, fault: Fault) {
        self.order.0 += 1;
        let order = self.order;
        for (generation, record) in &commit.lines {
            let line = JournalLine { order, at: commit.at, record: record.clone() };
            let generation = generation.unwrap_or(order);
            let log = self.logs.entry(generation);
            log.or_insert_with(|| MoveLog { generation, registration: id(), lines: vec![] }).lines.push(line);
        }
        self.closed.extend(&commit.close);
        machine.applied(&commit, order).unwrap();
        self.registration = machine.registration().cloned();
        self.commits += 1;
        let reloaded = self.load();
        assert_eq!(
            Standing::of(reloaded.registration(), reloaded.moves()),
            Standing::of(machine.registration(), machine.moves()),
            "what was applied is what would be loaded"
        );
        let dies = fault == Fault::Crash(self.commits) || std::mem::take(&mut self.dies_next);
        if dies {
            self.died_after.extend(commit.lines.iter().map(|(_, record)| word(record)));
            self.lives += 1;
            *machine = reloaded;
        }
    }

    fn call(&mut self, call: &HubCall, fault: Fault) -> CallOutcome {
        self.calls += 1;
        let this = self.calls;
        if let Fault::Away(n) = fault
            && this == n
        {
            self.away = Some((call.hub.clone(), self.now.plus(self.away_for)));
        }
        if let Some((away, until)) = &self.away
            && *away == call.hub
            && self.now < *until
        {
            return Err(CallFault::Unavailable("away".to_owned()));
        }
        match fault {
            Fault::Refused(n) | Fault::RefusedThenCrash(n) if n == this => {
                self.dies_next = matches!(fault, Fault::RefusedThenCrash(_));
                return self.hubs.get_mut(&call.hub).unwrap().refuse(call, HubRefusal::Full);
            }
            Fault::Unreachable(n) if n == this => return Err(CallFault::Unavailable("cut".to_owned())),
            _ => {}
        }
        if fault == Fault::Twice(this) {
            self.late.push(call.clone());
        }
        let outcome = self.hubs.get_mut(&call.hub).unwrap().obey(call);
        if fault == Fault::Again(this) {
            assert_eq!(self.hubs.get_mut(&call.hub).unwrap().obey(call), outcome, "{call:?} again");
        }
        let split: Vec<HubId> = self.load().moves().filter_map(Move::split_at).collect();
        let open = self.hubs.iter().filter(|(id, hub)| hub.is_open() && !split.contains(id)).count();
        assert!(open <= 1, "two hubs accept writes after {call:?}");
        if fault == Fault::Lost(this) { Err(CallFault::Unknown("lost".to_owned())) } else { outcome }
    }

    fn intent_of(&self, plan: &Plan) -> Box<Intent> {
        let allow_late_writes = !matches!(self.rule, UnreachableRule::Wait { .. });
        Box::new(Intent { unreachable: self.rule, allow_late_writes, ..*intent(plan.clone(), 7) })
    }

    /// Drives until nothing is due any more. Returns the machine at rest.
    fn run(&mut self, plan: Plan, fault: Fault) -> Machine {
        let mut machine = self.load();
        let begin = machine.begin(self.intent_of(&plan), Preconditions::default(), self.now);
        self.commit(&mut machine, begin, fault);
        self.drive(machine, fault)
    }

    fn drive(&mut self, mut machine: Machine, fault: Fault) -> Machine {
        for _ in 0..500 {
            let due = machine.due(self.now);
            if let Some(commit) = due.commit {
                self.commit(&mut machine, *commit, fault);
                continue;
            }
            if let Some(recall) = due.recall {
                let commit = machine.recalled(&recall, self.known.clone(), self.now).unwrap();
                self.commit(&mut machine, commit, fault);
                continue;
            }
            if let Some(asked) = due.end_lease {
                let over = self.lease_ends_at.is_none_or(|at| at <= self.now);
                if over {
                    machine.lease_ended(asked.generation, self.now);
                } else {
                    machine.lease_unknown(asked.generation);
                }
                if over && due.calls.is_empty() {
                    continue;
                }
            }
            if due.calls.is_empty() {
                let lease = self.lease_ends_at.filter(|at| *at > self.now);
                match due.wake_at.into_iter().chain(lease).min() {
                    Some(at) if !machine.is_idle() => self.now = self.now.max(at),
                    Some(_) | None => break,
                }
                continue;
            }
            let life = self.lives;
            for (key, call) in due.calls {
                // The process that asked is no more: what it asked arrives when nobody expects it.
                if self.lives > life {
                    self.late.push(call);
                    continue;
                }
                let outcome = self.call(&call, fault);
                if let Some(commit) = machine.finished(&key, outcome.clone(), self.now) {
                    self.commit(&mut machine, commit, fault);
                }
                // The same answer again, as a network or a slow actor may bring it, changes nothing.
                assert_eq!(machine.finished(&key, outcome, self.now).filter(|_| !still_due(&mut machine, &key)), None);
            }
        }
        for call in std::mem::take(&mut self.late_unfenced) {
            let _ = self.hubs.get_mut(&call.hub).unwrap().obey(&call);
        }
        for call in std::mem::take(&mut self.late) {
            let before = self.hubs[&call.hub].tenant.clone();
            let _ = self.hubs.get_mut(&call.hub).unwrap().obey(&call);
            assert_eq!(self.hubs[&call.hub].tenant, before, "a late copy of {call:?} changes nothing");
        }
        machine
    }
}

fn still_due(machine: &mut Machine, key: &CallKey) -> bool {
    machine.due(Timestamp(i64::MAX / 2)).calls.iter().any(|(due, _)| due == key)
}

/// The world a plan starts in.
fn world_of(plan: &Plan) -> World {
    match plan {
        Plan::Assign { .. } => World::new(None, None),
        Plan::TakeOver { .. } => {
            let mut world = World::new(None, None);
            let found = world.hubs.get_mut(&hub("b")).unwrap();
            *found = Hub { highest: Order(5), tenant: Some((Phase::Open, old_state())), ..Hub::default() };
            world
        }
        Plan::Replant { .. } => World::new(Some(Phase::Staged), Some(record(Some("a")))),
        // The old hub is not linked, or has lost the device: nobody asks it.
        Plan::Rehouse { from, .. } | Plan::Restore { from, .. } => World::new(None, Some(record(Some(from.as_str())))),
        Plan::Release { from: None } => World::new(None, Some(record(None))),
        Plan::Collect { .. } => {
            let mut world = World::new(None, Some(record(Some("b"))));
            let home = world.hubs.get_mut(&hub("b")).unwrap();
            *home = Hub { highest: Order(7), tenant: Some((Phase::Open, old_state())), ..Hub::default() };
            if plan.hub(Side::From).is_some() {
                let left = world.hubs.get_mut(&hub("a")).unwrap();
                *left = Hub { highest: Order(5), tenant: Some((Phase::Sealed, old_state())), ..Hub::default() };
            }
            world
        }
        Plan::Relocate { .. } | Plan::ResetInPlace { .. } | Plan::Refresh { .. } | Plan::Release { from: Some(_) } => {
            World::new(Some(Phase::Open), Some(record(Some("a"))))
        }
    }
}

/// The device has exactly one home that accepts writes, or is gone for good, and nothing is left behind.
fn check_end(plan: &Plan, world: &World, machine: &Machine, fault: Fault) {
    let what = format!("{plan:?} with {fault:?}: {world:#?}");
    let stuck = machine.moves().any(|this| this.owed().iter().any(|owed| matches!(owed.state, OwedState::Stuck(_))));
    assert!(machine.is_idle(), "not at rest: {what}");
    if stuck {
        assert!(matches!(fault, Fault::Refused(_) | Fault::RefusedThenCrash(_)), "stuck without a refusal: {what}");
        return;
    }
    assert_eq!(machine.moves().count(), 0, "still open: {what}");
    let open: Vec<&HubId> = world.hubs.iter().filter(|(_, hub)| hub.is_open()).map(|(id, _)| id).collect();
    let present = world.hubs.values().filter(|hub| hub.tenant.is_some()).count();
    let home = world.registration.as_ref().and_then(|record| record.assignment.as_ref()).map(|it| &it.hub);
    match (plan, home) {
        (Plan::Release { .. }, _) => {
            assert_eq!((present, world.registration.is_none()), (0, true), "{what}");
        }
        // Never assigned, or its hub is unlinked or has lost it: nothing was opened, and the record is as it was.
        (Plan::Assign { .. }, home) if open.is_empty() => assert_eq!((present, home), (0, None), "{what}"),
        (Plan::Rehouse { from, .. } | Plan::Restore { from, .. }, home) if open.is_empty() => {
            assert_eq!((present, home), (0, Some(from)), "{what}");
        }
        // What was left there is in the history.
        (Plan::Collect { .. }, home) => {
            let record = world.registration.as_ref().unwrap();
            let kept = record.past.moves.iter().any(|it| Episode::read(world.logs[it].clone()).unwrap().has_state);
            assert_eq!((open, present, kept), (home.into_iter().collect(), 1, true), "{what}");
        }
        // What was found is still there, or in the history.
        (Plan::TakeOver { .. }, None) => {
            let kept = world.registration.as_ref().is_some_and(|record| {
                record.past.moves.iter().any(|it| Episode::read(world.logs[it].clone()).unwrap().has_state)
            });
            assert!(kept || world.hubs[&hub("b")].tenant.is_some(), "{what}");
        }
        (_, home) => assert_eq!((open, present), (home.into_iter().collect(), 1), "{what}"),
    }
}

#[test]
fn the_steps_of_every_plan() {
    let print = |plan: &Plan| {
        let steps = plan.steps();
        let word = |effect: Effect, side: Side| {
            format!("{}({})", effect.as_str(), plan.hub(side).map_or("-", |hub| hub.as_str()))
        };
        let before: Vec<String> = steps.before.iter().map(|step| word(step.effect, step.side)).collect();
        let after: Vec<String> = steps.after.iter().map(|duty| word(duty.effect, duty.side)).collect();
        format!("{}: {} | {}", plan.as_str(), before.join(" "), after.join(" "))
    };
    let printed: Vec<String> = shapes().iter().map(print).collect();
    assert_eq!(
        printed,
        [
            "assign: create(b) | activate(b)",
            "take_over: seal(b) delete(b) create(b) | activate(b)",
            "take_over: seal(b) update_credential(b) | unseal(b)",
            "relocate: seal(a) create(b) | activate(b) delete(a)",
            "relocate: seal(a) create(b) | activate(b) delete(a)",
            "relocate: seal(a) create(b) | activate(b) delete(a)",
            "replant: withhold(a) create(b) | activate(b) delete(a)",
            "rehouse: create(b) | activate(b)",
            "rehouse: create(b) | activate(b)",
            "restore: create(b) | activate(b)",
            "restore: create(b) | activate(b)",
            "reset_in_place: update_credential(a) | replace_twin(a)",
            "reset_in_place:  | replace_twin(a)",
            "refresh: update_credential(a) | ",
            "release:  | collect(a)",
            "release:  | ",
            "collect:  | collect(a)",
            "collect:  | ",
        ]
    );
}

#[test]
fn a_migrated_state_arrives_as_it_was_and_a_reset_one_as_enrolled() {
    for (carry, twin_is_old) in [(Carry::State, true), (Carry::Initial, false)] {
        let plan = Plan::Relocate { from: hub("a"), to: hub("b"), carry };
        let mut world = world_of(&plan);
        world.run(plan, Fault::None);
        let (_, state) = world.hubs[&hub("b")].tenant.clone().unwrap();
        assert_eq!(state == old_state(), twin_is_old);
        assert_eq!(state.status, old_state().status, "disabled stays, whatever the policy");
        if !twin_is_old {
            assert_eq!(state.twin.desired.properties, initial().desired);
            assert_eq!(state.capabilities, initial().capabilities);
            assert!(state.twin.desired.version > old_state().twin.desired.version, "versions never go down");
            assert!(state.twin.reported.version > old_state().twin.reported.version);
        }
        let log = world.logs.values().next().unwrap().clone();
        assert!(Episode::read(log).unwrap().has_state, "the old state is in the history");
    }
}

#[test]
fn what_a_release_takes_back_goes_to_the_history() {
    let plan = Plan::Release { from: Some(hub("a")) };
    let mut world = world_of(&plan);
    let machine = world.run(plan, Fault::None);
    let log = world.logs.values().next().unwrap().clone();
    assert_eq!(machine.earlier().moves, [log.generation]);
    assert!(Episode::read(log).unwrap().has_state);
}

#[test]
fn a_first_home_that_has_an_unknown_device_takes_it_over_and_loses_nothing() {
    for adopt in [false, true] {
        let mut world = world_of(&Plan::TakeOver { to: hub("b"), adopt });
        let mut machine = world.load();
        let first = Intent { adopt_existing: adopt, ..*intent(Plan::Assign { to: hub("b") }, 7) };
        let begin = machine.begin(Box::new(first), Preconditions::default(), world.now);
        world.commit(&mut machine, begin, Fault::None);
        let machine = world.drive(machine, Fault::None);
        let record = machine.registration().unwrap();
        assert_eq!(record.operation.id, OperationId(7), "the same operation goes on");
        assert_eq!(record.assignment.as_ref().unwrap().hub, hub("b"));
        let (phase, state) = world.hubs[&hub("b")].tenant.clone().unwrap();
        assert_eq!((phase, state == old_state()), (Phase::Open, adopt));
        let log = world.logs[record.past.moves.last().unwrap()].clone();
        assert!(Episode::read(log).unwrap().has_state, "what was found is in the history");
    }
}

#[test]
fn a_refused_create_never_deletes_whoever_is_there() {
    let plan = Plan::Relocate { from: hub("a"), to: hub("b"), carry: Carry::State };
    let mut world = world_of(&plan);
    world.hubs.get_mut(&hub("b")).unwrap().tenant = Some((Phase::Sealed, old_state()));
    let machine = world.run(plan, Fault::None);
    assert!(world.hubs[&hub("b")].tenant.is_some());
    assert!(world.hubs[&hub("a")].is_open());
    let status = machine.registration().unwrap().operation.status.clone();
    assert!(matches!(status, OperationStatus::Failed { reason: Reason::HubRefused, .. }));
}

#[test]
fn a_create_that_may_have_happened_is_taken_back_and_whoever_is_there_stays() {
    let plan = Plan::Relocate { from: hub("a"), to: hub("b"), carry: Carry::State };
    for occupied in [false, true] {
        let mut world = world_of(&plan);
        if occupied {
            world.hubs.get_mut(&hub("b")).unwrap().tenant = Some((Phase::Sealed, old_state()));
        }
        let mut machine = world.load();
        let begin = machine.begin(intent(plan.clone(), 7), Preconditions::default(), world.now);
        world.commit(&mut machine, begin, Fault::None);
        let (seal, call) = machine.due(world.now).calls.remove(0);
        let sealed = world.call(&call, Fault::None);
        let step = machine.finished(&seal, sealed, world.now).unwrap();
        world.commit(&mut machine, step, Fault::None);
        let (create, call) = machine.due(world.now).calls.remove(0);
        if !occupied {
            world.call(&call, Fault::None).unwrap();
        }
        machine.finished(&create, Err(CallFault::Unknown("lost".to_owned())), world.now);
        let abort = machine.give_up(Reason::MoveAborted, "no".to_owned(), world.now).unwrap();
        world.commit(&mut machine, abort, Fault::None);
        let machine = world.drive(machine, Fault::None);
        assert_eq!(machine.moves().count(), 0);
        assert!(world.hubs[&hub("a")].is_open());
        assert_eq!(world.hubs[&hub("b")].tenant.is_some(), occupied, "its own goes, another's stays");
    }
}

/// What is due, as words.
fn due_words(machine: &mut Machine, now: Timestamp) -> Vec<String> {
    let calls = machine.due(now).calls;
    calls.iter().map(|(_, call)| format!("{}({})", call.effect.as_str(), call.hub)).collect()
}

/// Begins a move after what is under way.
fn begin(world: &mut World, machine: &mut Machine, plan: Plan) {
    let commit = machine.begin(intent(plan, 8), Preconditions::default(), world.now);
    world.commit(machine, commit, Fault::None);
}

#[test]
fn a_new_life_begins_once_the_home_of_the_old_one_is_sealed() {
    let release = Plan::Release { from: Some(hub("a")) };
    for to in ["a", "b"] {
        let mut world = world_of(&release);
        let mut machine = world.load();
        begin(&mut world, &mut machine, release.clone());
        let (seal, call) = machine.due(world.now).calls.remove(0);
        begin(&mut world, &mut machine, Plan::Assign { to: hub(to) });
        assert_eq!(due_words(&mut machine, world.now), Vec::<String>::new(), "hub a accepts writes");
        // Given up while it waits, it takes nothing back: nothing was asked, and an undo would overtake the collect.
        let given_up = machine.clone();
        let abort = given_up.give_up(Reason::HubUnavailable, "no".to_owned(), world.now).unwrap();
        assert_eq!((abort.lines.len(), abort.close.len()), (0, 1));
        let sealed = world.call(&call, Fault::None);
        let collected = machine.finished(&seal, sealed, world.now).unwrap();
        world.commit(&mut machine, collected, Fault::None);
        let expected: &[&str] = if to == "a" { &["delete(a)"] } else { &["delete(a)", "create(b)"] };
        assert_eq!(due_words(&mut machine, world.now), expected);
    }
}

#[test]
fn a_move_that_is_given_up_while_it_waits_opens_the_home_that_an_older_one_sealed() {
    let there = Plan::Relocate { from: hub("a"), to: hub("b"), carry: Carry::State };
    let mut world = world_of(&there);
    let mut machine = world.load();
    begin(&mut world, &mut machine, there.clone());
    let (seal, call) = machine.due(world.now).calls.remove(0);
    let sealed = world.call(&call, Fault::None);
    let step = machine.finished(&seal, sealed, world.now).unwrap();
    world.commit(&mut machine, step, Fault::None);
    let abort = machine.give_up(Reason::HubUnavailable, "no".to_owned(), world.now).unwrap();
    world.commit(&mut machine, abort, Fault::None);
    // The next move takes over the debt of opening a, and waits for b to be cleaned up.
    begin(&mut world, &mut machine, there);
    assert_eq!(due_words(&mut machine.clone(), world.now), ["discard(b)"]);
    let abort = machine.give_up(Reason::HubUnavailable, "no".to_owned(), world.now).unwrap();
    world.commit(&mut machine, abort, Fault::None);
    let machine = world.drive(machine, Fault::None);
    assert_eq!(machine.moves().count(), 0);
    assert!(world.hubs[&hub("a")].is_open());
}

#[test]
fn a_reset_that_may_have_happened_is_settled_before_its_home_is_left() {
    let reset = Plan::ResetInPlace { at: hub("a"), credential: false };
    let mut world = world_of(&reset);
    let mut machine = world.load();
    begin(&mut world, &mut machine, reset);
    let (replace, call) = machine.due(world.now).calls.remove(0);
    world.call(&call, Fault::None).unwrap();
    assert_eq!(machine.finished(&replace, Err(CallFault::Unknown("lost".to_owned())), world.now), None);
    begin(&mut world, &mut machine, Plan::Release { from: Some(hub("a")) });
    assert!(machine.running().is_none(), "the registration is over, whatever is still owed");
    assert_eq!(Standing::of(machine.registration(), machine.moves()), None);
    world.now = world.now.plus(limits::RETRY_FIRST * 2);
    assert_eq!(due_words(&mut machine.clone(), world.now), ["replace_twin(a)"]);
    let machine = world.drive(machine, Fault::None);
    assert_eq!((machine.moves().count(), machine.earlier().moves.len()), (0, 2));
    let reset = world.logs[&machine.earlier().moves[0]].clone();
    assert!(Episode::read(reset).unwrap().has_state, "what was replaced is in the history");
}

#[test]
fn a_first_record_takes_its_device_id_and_a_later_one_has_it() {
    for (existing, expected) in [(None, true), (Some(record(Some("a"))), false)] {
        let machine = Machine::load(id(), existing, vec![], Past::default()).unwrap();
        let audit = AuditEntry::new(Timestamp(1), "device", AuditAction::RegistrationDisabled, "disabled");
        let commit = machine.record_only(record(None), Preconditions::default(), audit, Timestamp(1));
        assert_eq!(commit.expect.device, expected.then(|| record(None).device_id));
    }
}

#[test]
fn an_abort_is_committed_before_its_first_undo_and_never_goes_forward() {
    let plan = Plan::Relocate { from: hub("a"), to: hub("b"), carry: Carry::State };
    let mut world = world_of(&plan);
    let mut machine = world.load();
    let begin = machine.begin(intent(plan, 7), Preconditions::default(), world.now);
    world.commit(&mut machine, begin, Fault::None);
    let (seal, _) = machine.due(world.now).calls.remove(0);
    let late = world.hubs.get_mut(&hub("a")).unwrap().obey(&HubCall {
        hub: hub("a"),
        device: DeviceId::parse("dev-1").unwrap(),
        order: seal.order,
        effect: HubEffect::Seal,
    });
    let abort = machine.give_up(Reason::MoveAborted, "no".to_owned(), world.now).unwrap();
    assert!(machine.due(world.now).calls.is_empty(), "no undo before the abort is durable");
    world.commit(&mut machine, abort, Fault::None);
    assert_eq!(machine.finished(&seal, late, world.now), None, "the late answer finds nothing due");
    let undo: Vec<HubEffect> = machine.due(world.now).calls.into_iter().map(|(_, call)| call.effect).collect();
    assert_eq!(undo, [HubEffect::Unseal], "create was never due, so nothing is deleted");
    assert_eq!(machine.give_up(Reason::MoveAborted, "no".to_owned(), world.now), None);
}

#[test]
fn clean_up_owed_at_the_target_is_settled_first() {
    let there = Plan::Relocate { from: hub("a"), to: hub("b"), carry: Carry::State };
    let mut world = world_of(&there);
    let mut machine = world.load();
    let begin = machine.begin(intent(there, 7), Preconditions::default(), world.now);
    world.commit(&mut machine, begin, Fault::None);
    // Everything but the deletion at the old hub.
    let mut owed = None;
    while machine.running().is_some() {
        for (key, call) in machine.due(world.now).calls {
            if key.effect == Effect::Delete {
                owed = Some((key, call));
                continue;
            }
            let outcome = world.call(&call, Fault::None);
            let commit = machine.finished(&key, outcome, world.now).unwrap();
            world.commit(&mut machine, commit, Fault::None);
        }
    }
    let (owed, deletion) = owed.unwrap();
    let back = Plan::Relocate { from: hub("b"), to: hub("a"), carry: Carry::State };
    let begin = machine.begin(intent(back, 8), Preconditions::default(), world.now);
    world.commit(&mut machine, begin, Fault::None);
    assert!(machine.due(world.now).calls.is_empty(), "the way back waits for the clean-up");
    let outcome = world.call(&deletion, Fault::None);
    let commit = machine.finished(&owed, outcome, world.now).unwrap();
    world.commit(&mut machine, commit, Fault::None);
    let due = machine.due(world.now).calls;
    assert_eq!(due.iter().map(|(_, call)| call.effect.clone()).collect::<Vec<_>>(), [HubEffect::Seal]);
}

#[test]
fn a_new_move_may_start_from_the_journal_only_when_the_activation_never_got_through() {
    let plan = Plan::Relocate { from: hub("a"), to: hub("b"), carry: Carry::State };
    for (fault, replantable) in [
        (CallFault::Unavailable("cut".to_owned()), true),
        (CallFault::Unknown("lost".to_owned()), false),
        (CallFault::Refused(HubRefusal::NoSuchDevice), true),
    ] {
        let mut world = world_of(&plan);
        let mut machine = world.load();
        let begin = machine.begin(intent(plan.clone(), 7), Preconditions::default(), world.now);
        world.commit(&mut machine, begin, Fault::None);
        let mut outcome = None;
        while outcome.is_none() {
            for (key, call) in machine.due(world.now).calls {
                let answer = match key.effect {
                    Effect::Activate => Err(fault.clone()),
                    _ => world.call(&call, Fault::None),
                };
                if let Some(commit) = machine.finished(&key, answer, world.now) {
                    world.commit(&mut machine, commit, Fault::None);
                }
                outcome = outcome.or((key.effect == Effect::Activate).then_some(()));
            }
        }
        assert_eq!(machine.replantable().is_some(), replantable, "{fault:?}");
        let reloaded = world.load();
        let stuck = matches!(fault, CallFault::Refused(_));
        assert_eq!(reloaded.replantable().is_some(), stuck, "after a restart a call counts as one that was made");
    }
}

#[test]
fn a_journal_that_cannot_be_is_refused() {
    let begun = || Move::begun(Order(5), Timestamp(1), intent(Plan::Assign { to: hub("b") }, 7));
    let line = |order, record| JournalLine { order: Order(order), at: Timestamp(2), record };
    let settled = JournalRecord::Settled { effect: Effect::Delete, hub: hub("b"), state: None };
    let pivoted = JournalRecord::Pivoted { data_source: None };
    let aborted = JournalRecord::Aborted { reason: Reason::MoveAborted, message: String::new(), spare_current: false };
    for (record, order) in [
        (JournalRecord::Intent(intent(Plan::Refresh { at: hub("a") }, 8)), 6),
        (JournalRecord::StepDone { effect: Effect::Seal, state: None }, 6),
        (settled.clone(), 6),
        (pivoted.clone(), 5),
        (pivoted.clone(), 4),
    ] {
        assert!(begun().apply(line(order, record.clone())).is_err(), "{record:?} at {order}");
    }
    for first in [pivoted, aborted] {
        let later = begun().apply(line(6, first)).unwrap();
        for record in [
            JournalRecord::Pivoted { data_source: None },
            JournalRecord::StepDone { effect: Effect::Create, state: None },
        ] {
            assert!(later.clone().apply(line(7, record)).is_err());
        }
    }
    assert!(Move::replay(MoveLog { generation: Order(1), registration: id(), lines: vec![line(1, settled)] }).is_err());
}

fn relocate(carry: Carry) -> Plan {
    Plan::Relocate { from: hub("a"), to: hub("b"), carry }
}

/// A world whose device lives at `a`, which is away.
fn cut_off(rule: UnreachableRule, away_for: Duration) -> World {
    let mut world = World { rule, away_for, ..world_of(&relocate(Carry::State)) };
    world.away = Some((hub("a"), world.now.plus(away_for)));
    world
}

fn reported(text: &str) -> TwinPatch {
    TwinPatch { reported: Some(Document::from_text(text).unwrap()), ..TwinPatch::default() }
}

/// The device writes at a hub that accepts it.
fn write(world: &mut World, at: &str, text: &str) {
    let Some((Phase::Open, state)) = &mut world.hubs.get_mut(&hub(at)).unwrap().tenant else { panic!("not open") };
    state.twin = state.twin.patched(&reported(text), Timestamp(50)).unwrap();
}

/// The same documents above the versions of whatever was written unseen.
fn ahead(state: DeviceState) -> DeviceState {
    DeviceState { twin: state.twin.ahead_of_lost_writes(), ..state }
}

fn state_at<'a>(world: &'a World, at: &str) -> &'a DeviceState {
    &world.hubs[&hub(at)].tenant.as_ref().unwrap().1
}

/// A stable word for a kind of line.
fn word(record: &JournalRecord) -> &'static str {
    match record {
        JournalRecord::Intent(_) => "intent",
        JournalRecord::StepDone { .. } => "done",
        JournalRecord::Pivoted { .. } => "pivoted",
        JournalRecord::Aborted { .. } => "aborted",
        JournalRecord::Collected { .. } => "collected",
        JournalRecord::Settled { .. } => "settled",
        JournalRecord::Stuck { .. } => "stuck",
        JournalRecord::Dropped { .. } => "dropped",
        JournalRecord::Bypassed { .. } => "bypassed",
        JournalRecord::Regained { .. } => "regained",
        JournalRecord::Retried { .. } => "retried",
        JournalRecord::Abandoned { .. } => "abandoned",
    }
}

fn lines(world: &World, generation: Order) -> Vec<&'static str> {
    world.logs[&generation].lines.iter().map(|line| word(&line.record)).collect()
}

#[test]
fn by_the_rule_a_hub_that_is_away_is_waited_for_or_passed_by() {
    let hour = Duration::from_secs(3600);
    let sealed = |reason| OperationStatus::Failed { reason, message: String::new() };
    let assigned = |sub_status, data_source| OperationStatus::Assigned { sub_status, data_source: Some(data_source) };
    for (carry, rule, expected) in [
        (Carry::State, RULES[0], sealed(Reason::HubUnavailable)),
        (Carry::Initial, RULES[0], sealed(Reason::HubUnavailable)),
        (
            Carry::State,
            RULES[1],
            assigned(SubStatus::DeviceDataMigrated, DataSource::LastKnown { seen_at: Timestamp(4) }),
        ),
        (Carry::Initial, RULES[1], assigned(SubStatus::DeviceDataMigrated, DataSource::Initial)),
        (Carry::State, RULES[2], assigned(SubStatus::DeviceDataReset, DataSource::Initial)),
    ] {
        let mut world = cut_off(rule, hour);
        write(&mut world, "a", r#"{"unseen":1}"#);
        let machine = world.run(relocate(carry), Fault::None);
        let mut status = machine.registration().unwrap().operation.status.clone();
        if let OperationStatus::Failed { message, .. } = &mut status {
            message.clear();
        }
        assert_eq!(status, expected, "{carry:?} {rule:?}");
        if let OperationStatus::Assigned { data_source, .. } = status {
            // Nothing that was unseen is in the live twin, and all of it is in the history.
            let live = state_at(&world, "b");
            assert_eq!(live.status, old_state().status, "disabled stays");
            assert_eq!(*live == ahead(old_state()), matches!(data_source, Some(DataSource::LastKnown { .. })));
            let generation = *world.logs.keys().next().unwrap();
            assert_eq!(
                lines(&world, generation),
                ["intent", "bypassed", "pivoted", "settled", "collected"],
                "sealed and read before it is deleted"
            );
            let late = late_twin(&world.logs[&generation]).unwrap();
            assert_eq!(late.state.twin.reported.properties.to_text(), r#"{"seen":1,"unseen":1}"#);
            assert_eq!(machine.registration().unwrap().past.late, [generation]);
        }
    }
}

/// Who followed the twin at a hub that could not be asked any more must not take what follows for older.
#[test]
fn versions_go_on_above_whatever_a_home_may_have_accepted_that_was_not_sealed() {
    let (a, b, seen_at) = (hub("a"), hub("b"), Timestamp(4));
    for (plan, rule) in [
        (relocate(Carry::State), RULES[1]),
        (relocate(Carry::State), RULES[2]),
        (relocate(Carry::Initial), RULES[1]),
        (relocate(Carry::Planted { seen_at }), RULES[1]),
        (Plan::Restore { from: a.clone(), to: b.clone(), seen_at }, RULES[0]),
        (Plan::Restore { from: b.clone(), to: b.clone(), seen_at }, RULES[0]),
        (Plan::Rehouse { from: a.clone(), to: b.clone() }, RULES[0]),
        (Plan::Rehouse { from: b.clone(), to: b.clone() }, RULES[0]),
    ] {
        for is_known in [true, false] {
            let needs_it = matches!(plan, Plan::Restore { .. } | Plan::Relocate { carry: Carry::State, .. });
            if !is_known && needs_it && rule != RULES[2] {
                continue;
            }
            let mut world = World { rule, ..world_of(&plan) };
            world.known = world.known.filter(|_| is_known);
            world.away = Some((a.clone(), world.now.plus(Duration::from_secs(3600))));
            let mut machine = world.load();
            let mut asked = Intent { unreachable: rule, allow_late_writes: true, ..*intent(plan.clone(), 7) };
            if !is_known && matches!(plan, Plan::Rehouse { .. }) {
                asked.planted = None;
            }
            let begin = machine.begin(Box::new(asked), Preconditions::default(), world.now);
            world.commit(&mut machine, begin, Fault::None);
            world.drive(machine, Fault::None);
            let mut unseen = old_state().twin;
            for n in 0..40 {
                let patch = TwinPatch { desired: Some(Document::default()), ..reported(&format!(r#"{{"n":{n}}}"#)) };
                unseen = unseen.patched(&patch, Timestamp(50)).unwrap();
            }
            let twin = &state_at(&world, "b").twin;
            let versions = |twin: &Twin| [twin.version, twin.desired.version, twin.reported.version];
            for (arrived, unseen) in versions(twin).into_iter().zip(versions(&unseen)) {
                assert!(arrived > unseen, "{plan:?} {rule:?} {is_known}: {arrived} {unseen}");
            }
        }
    }
}

/// The home is sealed, and is not opened again: it is gone for good, or a later move leaves it.
#[test]
fn a_sealed_state_is_kept_until_its_home_has_opened_again() {
    for (ends_by, kept) in [("opened", false), ("forced out", true), ("left", true), ("released", true)] {
        let mut world = world_of(&relocate(Carry::State));
        let mut machine = world.load();
        let begin = machine.begin(intent(relocate(Carry::State), 7), Preconditions::default(), world.now);
        world.commit(&mut machine, begin, Fault::None);
        let generation = *world.logs.keys().next().unwrap();
        for (key, call) in machine.due(world.now).calls {
            let outcome = world.call(&call, Fault::None);
            let commit = machine.finished(&key, outcome, world.now).unwrap();
            world.commit(&mut machine, commit, Fault::None);
        }
        let abort = machine.give_up(Reason::MoveAborted, String::new(), world.now).unwrap();
        world.commit(&mut machine, abort, Fault::None);
        let held = machine.open_move(generation).unwrap().sealed_at(&hub("a")).unwrap();
        assert_eq!((*held.state, machine.open_move(generation).unwrap().sealed_at(&hub("b"))), (old_state(), None));
        let mut forgotten = Vec::new();
        match ends_by {
            "opened" => {}
            "forced out" => {
                while let Some(commit) = machine.forced_out(&hub("a"), "olga", "it burnt down", world.now) {
                    forgotten.extend(commit.forget.clone());
                    world.commit(&mut machine, commit, Fault::None);
                }
            }
            _ => {
                let next = match ends_by {
                    "left" => relocate(Carry::State),
                    _ => Plan::Release { from: Some(hub("a")) },
                };
                let commit = machine.begin(intent(next, 8), Preconditions::default(), world.now);
                forgotten.extend(commit.forget.clone());
                world.commit(&mut machine, commit, Fault::None);
            }
        }
        // Whatever is left to do, until the first move is over.
        while machine.open_move(generation).is_some() {
            let due = machine.due(world.now);
            let mut commits: Vec<Commit> = due.commit.map(|commit| *commit).into_iter().collect();
            for (key, call) in due.calls.into_iter().filter(|_| commits.is_empty()).collect::<Vec<_>>() {
                let outcome = world.call(&call, Fault::None);
                if let Some(commit) = machine.finished(&key, outcome, world.now) {
                    forgotten.extend(commit.forget.clone());
                    world.commit(&mut machine, commit, Fault::None);
                }
            }
            for commit in commits.drain(..) {
                forgotten.extend(commit.forget.clone());
                world.commit(&mut machine, commit, Fault::None);
            }
        }
        assert_eq!(!forgotten.contains(&generation), kept, "{ends_by}");
        let past = match machine.registration() {
            Some(record) => record.past.clone(),
            None => machine.earlier().clone(),
        };
        assert_eq!(past.contains(generation), kept, "{ends_by}");
        assert!(past.moves.is_sorted(), "{ends_by}: {past:?}");
    }
}

/// The states of one home stand in a row, whatever the clocks said.
#[test]
fn the_newest_of_several_states_of_one_home() {
    let first = old_state();
    let reports =
        DeviceState { twin: first.twin.patched(&reported(r#"{"n":1}"#), Timestamp(9)).unwrap(), ..old_state() };
    let let_in = DeviceState { status: HubStatus::Enabled, ..reports.clone() };
    let known = |state: &DeviceState, at| KnownState { state: Box::new(state.clone()), seen_at: Timestamp(at) };
    for (all, newest) in [
        (vec![], None),
        (vec![known(&first, 5)], Some(known(&first, 5))),
        (vec![known(&reports, 1), known(&first, 5)], Some(known(&reports, 1))),
        (vec![known(&first, 5), known(&reports, 1)], Some(known(&reports, 1))),
        (vec![known(&let_in, 8), known(&reports, 7)], Some(known(&let_in, 8))),
        (vec![known(&let_in, 6), known(&reports, 7)], Some(known(&reports, 7))),
    ] {
        assert_eq!(KnownState::newest(all.clone()), newest, "{all:?}");
    }
}

/// Whether the new home may have opened before its hub was gone for good is told by the journal.
#[test]
fn a_home_is_known_to_have_never_opened_only_when_its_hub_cannot_have_heard_of_it() {
    for (outcome, unopened) in [
        (None, true),
        (Some(CallFault::Unavailable(String::new())), true),
        (Some(CallFault::Refused(HubRefusal::NotStaged)), true),
        (Some(CallFault::Unknown(String::new())), false),
    ] {
        let mut world = world_of(&relocate(Carry::State));
        let mut machine = world.load();
        let begin = machine.begin(intent(relocate(Carry::Initial), 7), Preconditions::default(), world.now);
        world.commit(&mut machine, begin, Fault::None);
        let generation = *world.logs.keys().next().unwrap();
        let activates =
            |machine: &Machine| machine.moves().flat_map(Move::owed).any(|it| it.effect == Effect::Activate);
        while !activates(&machine) {
            for (key, call) in machine.due(world.now).calls {
                let answer = world.call(&call, Fault::None);
                let commit = machine.finished(&key, answer, world.now).unwrap();
                world.commit(&mut machine, commit, Fault::None);
            }
        }
        if let Some(fault) = outcome.clone() {
            for (key, _) in machine.due(world.now).calls.into_iter().filter(|(key, _)| key.effect == Effect::Activate) {
                if let Some(commit) = machine.finished(&key, Err(fault.clone()), world.now) {
                    world.commit(&mut machine, commit, Fault::None);
                }
            }
        }
        while let Some(commit) = machine.forced_out(&hub("b"), "olga", "it burnt down", world.now) {
            world.commit(&mut machine, commit, Fault::None);
        }
        let made = Move::replay(world.logs[&generation].clone()).unwrap();
        assert_eq!(made.unopened, unopened, "{outcome:?}");
        // The exact state, though it is an initial one, which otherwise says nothing about the device.
        let brought = made.brought_state().map(|known| *known.state);
        assert_eq!(brought, made.arriving_state().filter(|_| unopened), "{outcome:?}");
    }
}

#[test]
fn nothing_is_passed_by_before_its_time_or_without_leave_for_late_writes() {
    for (allowed, away_for, passed_by) in [(true, 300, true), (true, 25, false), (false, 300, false)] {
        let mut world = cut_off(UnreachableRule::LastKnown, Duration::from_secs(away_for));
        let mut machine = world.load();
        let asked = Intent {
            unreachable: UnreachableRule::LastKnown,
            allow_late_writes: allowed,
            ..*intent(relocate(Carry::State), 7)
        };
        let begin = machine.begin(Box::new(asked), Preconditions::default(), world.now);
        world.commit(&mut machine, begin, Fault::None);
        world.drive(machine, Fault::None);
        let generation = *world.logs.keys().next().unwrap();
        assert_eq!(lines(&world, generation).contains(&"bypassed"), passed_by, "{allowed} {away_for}");
    }
}

#[test]
fn without_a_state_that_was_seen_the_rule_fails_and_the_home_stays() {
    let mut world = World { known: None, ..cut_off(UnreachableRule::LastKnown, Duration::from_secs(100)) };
    let machine = world.run(relocate(Carry::State), Fault::None);
    let status = &machine.registration().unwrap().operation.status;
    assert!(matches!(status, OperationStatus::Failed { reason: Reason::NoLastKnownState, .. }), "{status:?}");
    assert!(world.hubs[&hub("a")].is_open() && world.hubs[&hub("b")].tenant.is_none());
}

/// A lease, or answers that get lost, keep the bypass waiting; the hub answers again, and its own state is the one that
/// counts.
#[test]
fn a_hub_that_answers_before_the_pivot_is_sealed_first() {
    for created in [false, true] {
        let (back_after, lease_for) = if created { (40, 32) } else { (36, 45) };
        let mut world = cut_off(UnreachableRule::LastKnown, Duration::from_secs(back_after));
        write(&mut world, "a", r#"{"unseen":1}"#);
        world.lease_ends_at = Some(world.now.plus(Duration::from_secs(lease_for)));
        // The create reaches `b`, and its answers get lost until `a` is sealed.
        let begin = Intent {
            unreachable: UnreachableRule::LastKnown,
            allow_late_writes: true,
            ..*intent(relocate(Carry::State), 7)
        };
        let mut machine = world.load();
        let begin = machine.begin(Box::new(begin), Preconditions::default(), world.now);
        world.commit(&mut machine, begin, Fault::None);
        for _ in 0..200 {
            let due = machine.due(world.now);
            if let Some(commit) = due.commit {
                world.commit(&mut machine, *commit, Fault::None);
            } else if let Some(recall) = due.recall {
                let commit = machine.recalled(&recall, world.known.clone(), world.now).unwrap();
                world.commit(&mut machine, commit, Fault::None);
            } else {
                let over = world.lease_ends_at.is_none_or(|at| at <= world.now);
                if let Some(asked) = due.end_lease {
                    match over {
                        true => machine.lease_ended(asked.generation, world.now),
                        false => machine.lease_unknown(asked.generation),
                    }
                }
                for (key, call) in due.calls {
                    let made = key.effect == Effect::Create;
                    let sealed = !world.hubs[&hub("a")].is_open();
                    assert!(!made || over || sealed, "nothing is made elsewhere while the lease may run");
                    let mut outcome = world.call(&call, Fault::None);
                    if made && !sealed {
                        outcome = Err(CallFault::Unknown("lost".to_owned()));
                    }
                    if let Some(commit) = machine.finished(&key, outcome, world.now) {
                        world.commit(&mut machine, commit, Fault::None);
                    }
                }
                world.now = world.now.plus(Duration::from_millis(500));
            }
        }
        assert!(machine.is_idle());
        let generation = *world.logs.keys().next().unwrap();
        let told = lines(&world, generation);
        assert!(told.contains(&"regained"), "{told:?}");
        assert_eq!(state_at(&world, "b").twin.reported.properties.to_text(), r#"{"seen":1,"unseen":1}"#);
        let deleted = world.hubs[&hub("b")].obeyed.iter().any(|(word, _)| *word == "discard");
        assert_eq!(deleted, created, "what was made with the other state is taken back, and nothing else");
        let status = &machine.registration().unwrap().operation.status;
        assert!(
            matches!(status, OperationStatus::Assigned { data_source: Some(DataSource::Sealed), .. }),
            "{status:?}"
        );
        assert!(machine.registration().unwrap().past.late.is_empty());
    }
}

#[test]
fn a_hub_that_has_lost_its_device_is_left_with_what_was_seen_last() {
    for (plan, known, ends_at, reported) in [
        (relocate(Carry::State), true, Some("b"), r#"{"seen":1}"#),
        (relocate(Carry::Initial), false, Some("b"), "{}"),
        (relocate(Carry::State), false, None, ""),
        (Plan::Refresh { at: hub("a") }, true, Some("a"), r#"{"seen":1}"#),
        (Plan::Refresh { at: hub("a") }, false, None, ""),
        (Plan::ResetInPlace { at: hub("a"), credential: true }, false, Some("a"), "{}"),
        (Plan::ResetInPlace { at: hub("a"), credential: false }, true, Some("a"), "{}"),
    ] {
        let mut world = world_of(&plan);
        world.hubs.insert(hub("a"), Hub::default());
        world.known = world.known.filter(|_| known);
        let machine = world.run(plan.clone(), Fault::None);
        let record = machine.registration().unwrap();
        let Some(ends_at) = ends_at else {
            let failed =
                matches!(record.operation.status, OperationStatus::Failed { reason: Reason::NoLastKnownState, .. });
            assert!(failed, "{plan:?}: {record:?}");
            continue;
        };
        assert_eq!(record.assignment.as_ref().unwrap().hub, hub(ends_at), "{plan:?}");
        assert!(world.hubs[&hub(ends_at)].is_open(), "{plan:?}");
        assert_eq!(state_at(&world, ends_at).twin.reported.properties.to_text(), reported, "{plan:?}");
        assert_eq!(machine.moves().count(), 0, "{plan:?}");
        assert!(record.past.late.is_empty(), "nothing could be written there");
        assert_eq!(record.operation.id, OperationId(7), "the same operation");
    }
}

#[test]
fn a_twin_put_back_goes_on_from_the_versions_of_the_one_it_replaces() {
    let mut world = world_of(&relocate(Carry::State));
    let newer = old_state().twin.patched(&reported(r#"{"seen":2}"#), Timestamp(9)).unwrap();
    world.hubs.get_mut(&hub("a")).unwrap().tenant =
        Some((Phase::Open, DeviceState { twin: newer.clone(), ..old_state() }));
    let seen_at = Timestamp(4);
    let machine = world.run(relocate(Carry::Planted { seen_at }), Fault::None);
    let twin = &state_at(&world, "b").twin;
    assert_eq!(twin.reported.properties.to_text(), r#"{"seen":1}"#);
    assert!(twin.reported.version > newer.reported.version && twin.desired.version > newer.desired.version);
    let status = &machine.registration().unwrap().operation.status;
    let source = DataSource::LastKnown { seen_at };
    assert!(matches!(status, OperationStatus::Assigned { data_source: Some(it), .. } if *it == source));
    let log = world.logs.values().next().unwrap().clone();
    assert_eq!(Move::replay(log).unwrap().sealed.unwrap().twin, newer, "the current one is in the history");
}

/// A hub whose lease ran out takes this list before it accepts writes again.
#[test]
fn what_a_hub_must_seal_is_named_as_long_as_the_bypass_stands() {
    let mut world = cut_off(UnreachableRule::LastKnown, Duration::from_secs(3600));
    let asked = Intent { unreachable: world.rule, allow_late_writes: true, ..*intent(relocate(Carry::State), 7) };
    let mut machine = world.load();
    let begin = machine.begin(Box::new(asked), Preconditions::default(), world.now);
    world.commit(&mut machine, begin, Fault::None);
    let mut named = vec![];
    while !machine.moves().any(|this| this.is_told()) {
        let due = machine.due(world.now);
        if let Some(recall) = due.recall {
            let commit = machine.recalled(&recall, world.known.clone(), world.now).unwrap();
            world.commit(&mut machine, commit, Fault::None);
        }
        if let Some(asked) = due.end_lease {
            machine.lease_ended(asked.generation, world.now);
        }
        for (key, call) in due.calls {
            let outcome = world.call(&call, Fault::None);
            if let Some(commit) = machine.finished(&key, outcome, world.now) {
                world.commit(&mut machine, commit, Fault::None);
            }
        }
        named.extend(world.load().moves().filter_map(Move::bypass));
        world.now = world.now.plus(Duration::from_millis(500));
    }
    let this = machine.moves().next().unwrap();
    named.dedup();
    let [(at, must)] = named.as_slice() else { panic!("{named:?}") };
    assert_eq!((at, must.generation), (&hub("a"), this.generation));
    assert!(must.order > this.generation, "above every older undo of the home");
    assert!(this.owed().iter().all(|owed| owed.order > must.order), "and below what collects it");
    assert_eq!(Standing::of(machine.registration(), machine.moves()).unwrap().split, [hub("a")]);
}

/// A relocation whose step at a hub was refused once: `activate` at `b`, or (given up) `unseal` at `a`.
fn stuck(effect: Effect, refusal: HubRefusal) -> (World, Machine) {
    let mut world = world_of(&relocate(Carry::State));
    let mut machine = world.load();
    let begin = machine.begin(intent(relocate(Carry::State), 7), Preconditions::default(), world.now);
    world.commit(&mut machine, begin, Fault::None);
    for _ in 0..20 {
        for (key, call) in machine.due(world.now).calls {
            let outcome = match key.effect == effect {
                true => Err(CallFault::Refused(refusal.clone())),
                false if effect == Effect::Unseal && key.effect == Effect::Create => {
                    Err(CallFault::Refused(HubRefusal::Full))
                }
                false => world.call(&call, Fault::None),
            };
            if let Some(commit) = machine.finished(&key, outcome, world.now) {
                world.commit(&mut machine, commit, Fault::None);
            }
        }
    }
    (world, machine)
}

fn wish(machine: &Machine, way: Way) -> Resolve {
    let generation = machine.moves().next().unwrap().generation;
    Resolve { generation, effect: None, hub: None, way, by: "olga".to_owned(), why: "a test".to_owned() }
}

fn granted(world: &mut World, mut machine: Machine, way: Way) -> Machine {
    let commit = machine.resolve(&wish(&machine, way), OperationId(9), None, world.now).unwrap();
    assert!(commit.audit.iter().any(|entry| entry.actor == "olga"));
    world.commit(&mut machine, commit, Fault::None);
    world.drive(machine, Fault::None)
}

#[test]
fn what_a_person_may_do_about_a_home_that_was_not_opened() {
    for (effect, home) in [(Effect::Activate, "b"), (Effect::Unseal, "a")] {
        for refusal in [HubRefusal::NotStaged, HubRefusal::OrderReused, HubRefusal::Stale { highest: Order(1) }] {
            for way in [Way::Retry, Way::Force] {
                let (mut world, machine) = stuck(effect, refusal.clone());
                let before = wish(&machine, Way::Abandon);
                assert_eq!(machine.resolve(&before, OperationId(9), None, world.now), Err(Unresolved::OpensHome));
                let machine = granted(&mut world, machine, way);
                assert_eq!(machine.moves().count(), 0, "{effect:?} {refusal:?} {way:?}");
                let open: Vec<&HubId> = world.hubs.iter().filter(|(_, it)| it.is_open()).map(|(id, _)| id).collect();
                assert_eq!(open, [&hub(home)], "{effect:?} {refusal:?} {way:?}");
            }
        }
        // The hub has lost it: made anew from the journal.
        let (mut world, machine) = stuck(effect, HubRefusal::NoSuchDevice);
        world.hubs.get_mut(&hub(home)).unwrap().tenant = None;
        let machine = granted(&mut world, machine, Way::Force);
        assert_eq!((machine.moves().count(), state_at(&world, home)), (0, &ahead(old_state())), "{effect:?}");
        assert!(world.hubs[&hub(home)].is_open());
        let (world, machine) = stuck(effect, HubRefusal::WrongIncarnation { current: Incarnation(4) });
        let refused = machine.resolve(&wish(&machine, Way::Force), OperationId(9), None, world.now);
        assert_eq!(refused, Err(Unresolved::OtherIncarnation));
    }
}

/// A copy of the refused call that comes late must not undo what was ordered anew.
#[test]
fn what_is_ordered_anew_is_above_every_copy_of_what_was_refused() {
    let (mut world, machine) = stuck(Effect::Delete, HubRefusal::OrderReused);
    let old = machine.moves().next().unwrap().owed()[0].order;
    let machine = granted(&mut world, machine, Way::Retry);
    assert_eq!(machine.moves().count(), 0);
    let (word, order) = *world.hubs[&hub("a")].obeyed.last().unwrap();
    assert_eq!((word, order > old), ("delete", true));
    let generation = *world.logs.keys().next().unwrap();
    assert!(lines(&world, generation).contains(&"retried"));
}

#[test]
fn clean_up_can_be_abandoned_and_never_forced() {
    let (mut world, machine) = stuck(Effect::Delete, HubRefusal::OrderReused);
    let forced = machine.resolve(&wish(&machine, Way::Force), OperationId(9), None, world.now);
    assert_eq!(forced, Err(Unresolved::NoHome));
    let machine = granted(&mut world, machine, Way::Abandon);
    assert_eq!(machine.moves().count(), 0);
    let log = world.logs.values().next().unwrap().clone();
    let told = Episode::read(log).unwrap().abandoned;
    assert_eq!(told.iter().map(|it| (it.effect, it.by.as_str())).collect::<Vec<_>>(), [(Effect::Delete, "olga")]);
    // What stays behind does not block a move back for ever: the hub says that the name is taken.
    let machine = {
        let back = Plan::Relocate { from: hub("b"), to: hub("a"), carry: Carry::State };
        let mut machine = machine;
        let begin = machine.begin(intent(back, 8), Preconditions::default(), world.now);
        world.commit(&mut machine, begin, Fault::None);
        world.drive(machine, Fault::None)
    };
    assert!(machine.is_idle() && world.hubs[&hub("b")].is_open());
}

/// Its answer is the only copy of the twin that it replaced.
#[test]
fn a_reset_in_place_is_not_abandoned_while_its_call_may_be_obeyed() {
    let reset = Plan::ResetInPlace { at: hub("a"), credential: false };
    let mut world = world_of(&reset);
    let mut machine = world.load();
    let begin = machine.begin(intent(reset, 7), Preconditions::default(), world.now);
    world.commit(&mut machine, begin, Fault::None);
    let (key, call) = machine.due(world.now).calls.remove(0);
    let abandon = wish(&machine, Way::Abandon);
    assert_eq!(machine.resolve(&abandon, OperationId(9), None, world.now), Err(Unresolved::NotStuck));
    let answer = world.call(&call, Fault::None);
    let commit = machine.finished(&key, answer, world.now).unwrap();
    world.commit(&mut machine, commit, Fault::None);
    let generation = *world.logs.keys().next().unwrap();
    let kept = Episode::read(world.logs[&generation].clone()).unwrap();
    assert!(kept.has_state && machine.moves().count() == 0);

    // Refused, it cannot happen any more.
    let mut world = world_of(&Plan::ResetInPlace { at: hub("a"), credential: false });
    let mut machine = world.load();
    let reset = Plan::ResetInPlace { at: hub("a"), credential: false };
    let begin = machine.begin(intent(reset, 7), Preconditions::default(), world.now);
    world.commit(&mut machine, begin, Fault::None);
    let (key, _) = machine.due(world.now).calls.remove(0);
    let refused = Err(CallFault::Refused(HubRefusal::StateInvalid("it does not fit".to_owned())));
    let commit = machine.finished(&key, refused, world.now).unwrap();
    world.commit(&mut machine, commit, Fault::None);
    let machine = granted(&mut world, machine, Way::Abandon);
    assert_eq!(machine.moves().count(), 0);
}

/// Its order would be above that of the later one, whose answer may be the only copy of what it replaced.
#[test]
fn a_refused_reset_in_place_is_not_ordered_anew_beside_a_later_move() {
    let stays = [Plan::ResetInPlace { at: hub("a"), credential: false }, Plan::Refresh { at: hub("a") }];
    for later in stays.into_iter().chain([relocate(Carry::State)]) {
        let reset = Plan::ResetInPlace { at: hub("a"), credential: false };
        let mut world = world_of(&reset);
        let mut machine = world.load();
        let begin = machine.begin(intent(reset, 7), Preconditions::default(), world.now);
        world.commit(&mut machine, begin, Fault::None);
        let (key, _) = machine.due(world.now).calls.remove(0);
        let refused = Err(CallFault::Refused(HubRefusal::StateInvalid("it does not fit".to_owned())));
        let commit = machine.finished(&key, refused, world.now).unwrap();
        world.commit(&mut machine, commit, Fault::None);
        let retry = wish(&machine, Way::Retry);
        assert!(machine.resolve(&retry, OperationId(9), None, world.now).is_ok());
        // One that leaves the home has no use for it.
        let leaves = matches!(later, Plan::Relocate { .. });
        let overtaken = match leaves {
            true => Unresolved::NoMove { generation: retry.generation },
            false => Unresolved::Overtaken,
        };
        let begin = machine.begin(intent(later, 8), Preconditions::default(), world.now);
        world.commit(&mut machine, begin, Fault::None);
        assert_eq!(machine.resolve(&retry, OperationId(9), None, world.now), Err(overtaken));
        let machine = world.drive(machine, Fault::None);
        assert_eq!(machine.resolve(&retry, OperationId(9), None, world.now).is_ok(), !leaves);
    }
}

/// The hub has lost the device in the midst of a reset, and the registration ended: nothing is made again, nothing waits.
#[test]
fn a_release_does_not_wait_for_a_reset_of_what_its_hub_has_lost() {
    let reset = Plan::ResetInPlace { at: hub("a"), credential: false };
    let mut world = world_of(&reset);
    let mut machine = world.load();
    let begin = machine.begin(intent(reset, 7), Preconditions::default(), world.now);
    world.commit(&mut machine, begin, Fault::None);
    let begin = machine.begin(intent(Plan::Release { from: Some(hub("a")) }, 8), Preconditions::default(), world.now);
    world.commit(&mut machine, begin, Fault::None);
    world.hubs.get_mut(&hub("a")).unwrap().tenant = None;
    let machine = world.drive(machine, Fault::None);
    assert_eq!(machine.moves().count(), 0);
}

#[test]
fn before_the_pivot_a_person_gives_a_move_up_and_after_it_only_what_is_stuck_is_ordered_anew() {
    let mut world = cut_off(RULES[0], Duration::from_secs(30));
    let mut machine = world.load();
    let begin = machine.begin(intent(relocate(Carry::State), 7), Preconditions::default(), world.now);
    world.commit(&mut machine, begin, Fault::None);
    let now = world.now;
    assert_eq!(machine.resolve(&wish(&machine, Way::Force), OperationId(9), None, now), Err(Unresolved::NotPivoted));
    let other = Resolve { generation: Order(3), ..wish(&machine, Way::Retry) };
    assert_eq!(machine.resolve(&other, OperationId(9), None, now), Err(Unresolved::NoMove { generation: Order(3) }));
    let machine = granted(&mut world, machine, Way::Abandon);
    assert!(machine.is_idle() && world.hubs[&hub("a")].is_open());
    let status = &machine.registration().unwrap().operation.status;
    assert!(matches!(status, OperationStatus::Failed { reason: Reason::MoveAborted, .. }));
}

#[test]
fn a_hub_that_is_forced_out_is_owed_nothing_and_the_history_says_so() {
    for (plan, steps) in [(relocate(Carry::State), 3), (relocate(Carry::State), 1), (relocate(Carry::State), 0)] {
        for gone in ["a", "b"] {
            let mut world = world_of(&plan);
            let mut machine = world.load();
            let begin = machine.begin(intent(plan.clone(), 7), Preconditions::default(), world.now);
            world.commit(&mut machine, begin, Fault::None);
            for _ in 0..steps {
                for (key, call) in machine.due(world.now).calls.into_iter().take(1) {
                    let outcome = world.call(&call, Fault::None);
                    let commit = machine.finished(&key, outcome, world.now).unwrap();
                    world.commit(&mut machine, commit, Fault::None);
                }
            }
            while let Some(commit) = machine.forced_out(&hub(gone), "olga", "it burnt down", world.now) {
                world.commit(&mut machine, commit, Fault::None);
            }
            let names = machine.moves().flat_map(Move::owed).any(|owed| owed.hub == hub(gone));
            assert!(!names, "{steps} {gone}: {:?}", machine.moves().collect::<Vec<_>>());
            world.hubs.insert(hub(gone), Hub::default());
            let machine = world.load();
            let machine = world.drive(machine, Fault::None);
            assert_eq!(machine.moves().count(), 0, "{steps} {gone}");
            let home = machine.registration().unwrap().assignment.clone().unwrap().hub;
            assert_eq!(world.hubs[&home].is_open(), home != hub(gone), "{steps} {gone}");
        }
    }
}

#[test]
fn late_twins_are_kept_beyond_the_bound_until_somebody_removes_them() {
    let all: Vec<Order> = (1..=40).map(Order).collect();
    let mut past = Past { moves: all, late: vec![Order(2), Order(5)] };
    let dropped = past.drop_surplus(32);
    assert_eq!(dropped, [1, 3, 4, 6, 7, 8].map(Order));
    assert_eq!((past.moves.len(), past.moves[..2].to_vec()), (34, vec![Order(2), Order(5)]));
    let mut registration = record(Some("a"));
    registration.past = past;
    let mut world = World::new(Some(Phase::Open), Some(registration));
    let mut machine = world.load();
    let no = |generation| Err(Unresolved::NoLateTwin { generation });
    assert_eq!(machine.forget_late_twin(Order(9), "olga", world.now), no(Order(9)));
    let commit = machine.forget_late_twin(Order(5), "olga", world.now).unwrap();
    assert_eq!(commit.forget, [Order(5)]);
    world.commit(&mut machine, commit, Fault::None);
    assert_eq!(machine.registration().unwrap().past.late, [Order(2)]);
    assert_eq!(machine.forget_late_twin(Order(5), "olga", world.now), no(Order(5)));
}

#[test]
fn as_many_homes_left_behind_as_may_be_and_the_next_hub_is_waited_for() {
    let mut world = cut_off(UnreachableRule::LastKnown, Duration::from_secs(100));
    let late: Vec<Order> = (100..100 + limits::LATE_TWINS_MAX as u64).map(Order).collect();
    world.registration.as_mut().unwrap().past = Past { moves: late.clone(), late };
    world.order = Order(500);
    let machine = world.run(relocate(Carry::State), Fault::None);
    let status = &machine.registration().unwrap().operation.status;
    assert!(matches!(status, OperationStatus::Failed { reason: Reason::HubUnavailable, .. }), "{status:?}");
    assert!(world.hubs[&hub("a")].is_open());
}

/// What a hub had left of the device is collected while the device moves between two others: the move is still what runs,
/// is joined and given up as before, and no second one begins beside it.
#[test]
fn a_collect_hides_no_move() {
    let plan = Plan::Relocate { from: hub("a"), to: hub("b"), carry: Carry::State };
    let begun = |world: &mut World| {
        world.hubs.insert(hub("c"), Hub { tenant: Some((Phase::Sealed, old_state())), ..Hub::default() });
        let mut machine = world.load();
        let begin = machine.begin(intent(plan.clone(), 7), Preconditions::default(), world.now);
        world.commit(&mut machine, begin, Fault::None);
        let moving = machine.running().unwrap().generation;
        let collect = intent(Plan::Collect { from: Some(hub("c")) }, 8);
        let collect = machine.begin(collect, Preconditions::default(), world.now);
        world.commit(&mut machine, collect, Fault::None);
        assert_eq!(machine.running().map(|this| this.generation), Some(moving));
        let standing = Standing::of(machine.registration(), machine.moves()).unwrap();
        assert_eq!(standing.operation.status, OperationStatus::Assigning);
        assert_eq!(standing.running.unwrap().generation, moving);
        machine
    };
    let mut world = world_of(&plan);
    let machine = begun(&mut world);
    let machine = world.drive(machine, Fault::None);
    assert!(machine.is_idle());
    assert!(world.hubs[&hub("b")].is_open() && world.hubs[&hub("c")].tenant.is_none());
    assert_eq!(machine.registration().unwrap().assignment.as_ref().unwrap().hub, hub("b"));

    let mut world = world_of(&plan);
    let mut machine = begun(&mut world);
    let give_up = machine.give_up(Reason::MoveAborted, "deleted".to_owned(), world.now).unwrap();
    world.commit(&mut machine, give_up, Fault::None);
    world.drive(machine, Fault::None);
    assert!(world.hubs[&hub("a")].is_open() && world.hubs[&hub("b")].tenant.is_none());
}

/// An undo that is owed to the same hub is not overtaken by a collect, and a home whose activation was refused can still
/// be left with what it was to get.
#[test]
fn a_collect_waits_for_what_is_owed_at_its_hub() {
    let plan = Plan::Relocate { from: hub("a"), to: hub("b"), carry: Carry::State };
    let mut world = world_of(&plan);
    let mut machine = world.load();
    let begin = machine.begin(intent(plan, 7), Preconditions::default(), world.now);
    world.commit(&mut machine, begin, Fault::None);
    for word in ["seal", "create"] {
        let (key, call) = machine.due(world.now).calls.remove(0);
        assert_eq!(call.effect.as_str(), word);
        let outcome = world.call(&call, Fault::None);
        if word == "seal" {
            let done = machine.finished(&key, outcome, world.now).unwrap();
            world.commit(&mut machine, done, Fault::None);
        }
    }
    let give_up = machine.give_up(Reason::MoveAborted, "in its way".to_owned(), world.now).unwrap();
    world.commit(&mut machine, give_up, Fault::None);
    let collect = intent(Plan::Collect { from: Some(hub("b")) }, 8);
    let collect = machine.begin(collect, Preconditions::default(), world.now);
    world.commit(&mut machine, collect, Fault::None);
    let due: Vec<&str> = machine.due(world.now).calls.iter().map(|(_, call)| call.effect.as_str()).collect();
    assert_eq!(due, ["unseal", "discard"]);
}
