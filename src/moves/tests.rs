//! Every plan through every single failure: refused at each step, cut off after each commit, each answer lost, each call
//! made twice. A plan is covered as soon as it stands in [`plans`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::Side;
use super::*;
use crate::domain::{
    AuditAction, AuditEntry, CallFault, CallOutcome, Capabilities, Credential, DeviceId, DeviceState, Document,
    EnrollmentId, HubAnswer, HubCall, HubEffect, HubId, HubRefusal, HubStatus, InitialState, OperationId,
    OperationStatus, Order, Reason, Registration, RegistrationId, ReprovisionPolicy, SubStatus, Thumbprint, Timestamp,
    Twin, TwinPatch, UnreachableRule, Version, limits,
};

const WAIT: Duration = Duration::from_secs(60);

fn hub(id: &str) -> HubId {
    HubId::parse(id).unwrap()
}

fn id() -> RegistrationId {
    RegistrationId::parse("dev-1").unwrap()
}

fn plans() -> Vec<Plan> {
    let (from, to) = (hub("a"), hub("b"));
    vec![
        Plan::Assign { to: to.clone() },
        Plan::TakeOver { to: to.clone(), adopt: false },
        Plan::TakeOver { to: to.clone(), adopt: true },
        Plan::Relocate { from: from.clone(), to: to.clone(), carry: Carry::State },
        Plan::Relocate { from: from.clone(), to: to.clone(), carry: Carry::Initial },
        Plan::Replant { from: from.clone(), to: to.clone(), source: Order(1) },
        Plan::Rehouse { from: from.clone(), to },
        Plan::ResetInPlace { at: from.clone(), credential: true },
        Plan::ResetInPlace { at: from.clone(), credential: false },
        Plan::Refresh { at: from.clone() },
        Plan::Release { from: Some(from) },
        Plan::Release { from: None },
    ]
}

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
    let planted = matches!(plan, Plan::Replant { .. }).then(|| Box::new(old_state()));
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
        past: vec![],
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
    said: Option<(&'static str, HubAnswer)>,
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
            return Ok(answer.clone());
        }
        let refuse = |refusal| Err(CallFault::Refused(refusal));
        let answer = match (&call.effect, self.tenant.take()) {
            (HubEffect::Create(_), Some(tenant)) => {
                self.tenant = Some(tenant);
                return refuse(HubRefusal::Occupied);
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
            (_, None) => return refuse(HubRefusal::NoSuchDevice),
            (HubEffect::Activate, Some((Phase::Staged, state))) => {
                self.tenant = Some((Phase::Open, state));
                HubAnswer::Done
            }
            (HubEffect::Activate, Some(tenant)) => {
                self.tenant = Some(tenant);
                return refuse(HubRefusal::NotStaged);
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
            (HubEffect::UpdateCredential(_), Some(tenant)) => {
                self.tenant = Some(tenant);
                HubAnswer::Done
            }
        };
        self.highest = call.order;
        self.said = Some((word, answer.clone()));
        self.obeyed.push((word, call.order));
        Ok(answer)
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
    /// The answer of the n-th call is lost.
    Lost(usize),
    /// The n-th call does not get through.
    Unreachable(usize),
    /// The n-th call is made twice, the copy at the very end.
    Twice(usize),
    /// The process dies after the n-th commit.
    Crash(usize),
    /// From the n-th call on, the hub called does not answer until the deadline.
    Away(usize),
}

/// A store of one device, two hubs, and a clock.
#[derive(Debug)]
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
    away: Option<(HubId, Timestamp)>,
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
            away: None,
        }
    }

    fn load(&self) -> Machine {
        let open = self.logs.values().filter(|log| !self.closed.contains(&log.generation)).cloned().collect();
        Machine::load(id(), self.registration.clone(), open, vec![]).unwrap()
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
        if fault == Fault::Crash(self.commits) {
            *machine = reloaded;
        }
    }

    fn call(&mut self, call: &HubCall, fault: Fault) -> CallOutcome {
        self.calls += 1;
        let this = self.calls;
        if let Fault::Away(n) = fault
            && this == n
        {
            self.away = Some((call.hub.clone(), self.now.plus(WAIT * 3)));
        }
        if let Some((away, until)) = &self.away
            && *away == call.hub
            && self.now < *until
        {
            return Err(CallFault::Unavailable("away".to_owned()));
        }
        match fault {
            Fault::Refused(n) if n == this => return Err(CallFault::Refused(HubRefusal::Full)),
            Fault::Unreachable(n) if n == this => return Err(CallFault::Unavailable("cut".to_owned())),
            _ => {}
        }
        if fault == Fault::Twice(this) {
            self.late.push(call.clone());
        }
        let outcome = self.hubs.get_mut(&call.hub).unwrap().obey(call);
        let open = self.hubs.values().filter(|hub| hub.is_open()).count();
        assert!(open <= 1, "two hubs accept writes after {call:?}");
        if fault == Fault::Lost(this) { Err(CallFault::Unknown("lost".to_owned())) } else { outcome }
    }

    /// Drives until nothing is due any more. Returns the machine at rest.
    fn run(&mut self, plan: Plan, fault: Fault) -> Machine {
        let mut machine = self.load();
        let begin = machine.begin(intent(plan, 7), Preconditions::default(), self.now);
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
            if due.calls.is_empty() {
                match due.wake_at {
                    Some(at) if !machine.is_idle() => self.now = self.now.max(at),
                    Some(_) | None => break,
                }
                continue;
            }
            for (key, call) in due.calls {
                let outcome = self.call(&call, fault);
                if let Some(commit) = machine.finished(&key, outcome.clone(), self.now) {
                    self.commit(&mut machine, commit, fault);
                }
                // The same answer again, as a network or a slow actor may bring it, changes nothing.
                assert_eq!(machine.finished(&key, outcome, self.now).filter(|_| !still_due(&mut machine, &key)), None);
            }
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
        // The old hub is not linked: whatever it holds, nobody asks it.
        Plan::Rehouse { .. } => World::new(None, Some(record(Some("a")))),
        Plan::Release { from: None } => World::new(None, Some(record(None))),
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
        assert!(matches!(fault, Fault::Refused(_)), "stuck without a refusal: {what}");
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
        // Never assigned, or its hub is unlinked: nothing was opened.
        (Plan::Assign { .. } | Plan::Rehouse { .. }, home) if open.is_empty() => {
            assert_eq!(present, 0, "{what}");
            assert_ne!(home, Some(&hub("b")), "{what}");
        }
        // What was found is still there, or in the history.
        (Plan::TakeOver { .. }, None) => {
            let kept = world.registration.as_ref().is_some_and(|record| {
                record.past.iter().any(|it| Episode::read(world.logs[it].clone()).unwrap().has_state)
            });
            assert!(kept || world.hubs[&hub("b")].tenant.is_some(), "{what}");
        }
        (_, home) => assert_eq!((open, present), (home.into_iter().collect(), 1), "{what}"),
    }
}

#[test]
fn every_plan_survives_every_single_fault() {
    for plan in plans() {
        let mut clean = world_of(&plan);
        let machine = clean.run(plan.clone(), Fault::None);
        check_end(&plan, &clean, &machine, Fault::None);
        let (calls, commits) = (clean.calls, clean.commits);
        let faults = (1..=calls + 2)
            .flat_map(|n| [Fault::Refused(n), Fault::Lost(n), Fault::Unreachable(n), Fault::Twice(n), Fault::Away(n)]);
        for fault in faults.chain((1..=commits + 2).map(Fault::Crash)) {
            let mut world = world_of(&plan);
            let machine = world.run(plan.clone(), fault);
            check_end(&plan, &world, &machine, fault);
        }
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
    let printed: Vec<String> = plans().iter().map(print).collect();
    assert_eq!(
        printed,
        [
            "assign: create(b) | activate(b)",
            "take_over: seal(b) delete(b) create(b) | activate(b)",
            "take_over: seal(b) update_credential(b) | unseal(b)",
            "relocate: seal(a) create(b) | activate(b) delete(a)",
            "relocate: seal(a) create(b) | activate(b) delete(a)",
            "replant: withhold(a) create(b) | activate(b) delete(a)",
            "rehouse: create(b) | activate(b)",
            "reset_in_place: update_credential(a) | replace_twin(a)",
            "reset_in_place:  | replace_twin(a)",
            "refresh: update_credential(a) | ",
            "release:  | collect(a)",
            "release:  | ",
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
    assert_eq!(machine.earlier(), [log.generation]);
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
        let log = world.logs[record.past.last().unwrap()].clone();
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
    assert_eq!((machine.moves().count(), machine.earlier().len()), (0, 2));
    let reset = world.logs[&machine.earlier()[0]].clone();
    assert!(Episode::read(reset).unwrap().has_state, "what was replaced is in the history");
}

#[test]
fn a_first_record_takes_its_device_id_and_a_later_one_has_it() {
    for (existing, expected) in [(None, true), (Some(record(Some("a"))), false)] {
        let machine = Machine::load(id(), existing, vec![], vec![]).unwrap();
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
