//! Every plan through every fault: on its way forward, on its way back from every step, past a hub that is away, and after
//! a person has said what is to become of what a hub refused. The process dies after every kind of line.

use super::*;

/// The faults that can meet a way of so many calls and commits; two more, since a fault makes it longer.
fn faults(calls: usize, commits: usize) -> impl Iterator<Item = Fault> {
    let of_calls = (1..=calls + 2).flat_map(|n| {
        [
            Fault::Refused(n),
            Fault::RefusedThenCrash(n),
            Fault::Lost(n),
            Fault::Unreachable(n),
            Fault::Twice(n),
            Fault::Again(n),
            Fault::Away(n),
        ]
    });
    of_calls.chain((1..=commits + 2).map(Fault::Crash))
}

/// A way that starts so, through every fault. What hubs have refused is ordered anew by a person, and must then end.
fn survives(plan: &Plan, start: impl Fn(Fault) -> Option<(World, Machine)>, died: &mut BTreeSet<&'static str>) {
    let mut ends = |fault| {
        let (mut world, machine) = start(fault)?;
        let machine = world.drive(machine, fault);
        check_end(plan, &world, &machine, fault);
        let machine = resolved(&mut world, machine, Way::Retry, fault);
        check_end(plan, &world, &machine, Fault::None);
        died.append(&mut world.died_after);
        Some((world.calls, world.commits))
    };
    let Some((calls, commits)) = ends(Fault::None) else { return };
    faults(calls, commits).for_each(|fault| {
        ends(fault);
    });
}

/// Everything that is stuck, resolved this way by a person.
fn resolved(world: &mut World, mut machine: Machine, way: Way, fault: Fault) -> Machine {
    while let Some((generation, owed)) = stuck_debt(&machine) {
        let (effect, hub) = (Some(owed.effect), Some(owed.hub));
        let wish = Resolve { generation, effect, hub, way, by: "olga".to_owned(), why: "a test".to_owned() };
        let commit = machine.resolve(&wish, OperationId(9), None, world.now).unwrap();
        world.commit(&mut machine, commit, fault);
        machine = world.drive(machine, fault);
    }
    machine
}

fn stuck_debt(machine: &Machine) -> Option<(Order, Owed)> {
    let mut owed = machine.moves().flat_map(|this| this.owed().iter().map(|owed| (this.generation, owed.clone())));
    owed.find(|(_, owed)| matches!(owed.state, OwedState::Stuck(_)))
}

/// A plan from its first line on.
fn begun(mut world: World, plan: &Plan, fault: Fault) -> (World, Machine) {
    let mut machine = world.load();
    let begin = machine.begin(world.intent_of(plan), Preconditions::default(), world.now);
    world.commit(&mut machine, begin, fault);
    (world, machine)
}

fn forward(died: &mut BTreeSet<&'static str>) {
    for (plan, rule) in shapes().iter().flat_map(|plan| RULES.map(|rule| (plan, rule))) {
        survives(plan, |fault| Some(begun(World { rule, ..world_of(plan) }, plan, fault)), died);
    }
}

#[test]
fn every_plan_survives_every_single_fault() {
    forward(&mut BTreeSet::new());
}

/// What has come of the step at which a move is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Not,
    /// It is done, and nobody heard.
    Done,
    /// It got lost, and nobody can tell.
    Lost,
    /// It arrives when everything is over.
    Late,
}

/// A move that is given up at its step `at`. `None` when it never stands there.
fn given_up(mut world: World, plan: &Plan, at: usize, asked: Asked) -> Option<(World, Machine)> {
    let (fresh, mut machine) = begun(world, plan, Fault::None);
    world = fresh;
    let stands_at = |machine: &Machine| match machine.running().map(|this| &this.phase) {
        Some(progress::Phase::Before { next }) => Some(*next),
        Some(progress::Phase::After { .. } | progress::Phase::Undoing { .. }) | None => None,
    };
    while stands_at(&machine)? < at {
        let due = machine.due(world.now);
        if let Some(commit) = due.commit {
            world.commit(&mut machine, *commit, Fault::None);
        }
        for (key, call) in due.calls {
            let outcome = world.call(&call, Fault::None);
            let commit = machine.finished(&key, outcome, world.now).unwrap();
            world.commit(&mut machine, commit, Fault::None);
        }
    }
    if asked != Asked::Not {
        let (key, call) = machine.due(world.now).calls.pop()?;
        match asked {
            Asked::Not | Asked::Lost => {}
            Asked::Done => drop(world.call(&call, Fault::None)),
            // What needs no undo is below no later order: it may still arrive, and harm nobody.
            Asked::Late => match plan.steps().before[at].undo {
                plan::Undo::Call(_) => world.late.push(call),
                plan::Undo::Nothing(_) => world.late_unfenced.push(call),
            },
        }
        assert_eq!(machine.finished(&key, Err(CallFault::Unknown("lost".to_owned())), world.now), None);
    }
    let abort = machine.give_up(Reason::HubUnavailable, "the deadline".to_owned(), world.now)?;
    world.commit(&mut machine, abort, Fault::None);
    (world.calls, world.commits) = (0, 0);
    Some((world, machine))
}

fn backward(died: &mut BTreeSet<&'static str>) {
    for plan in shapes() {
        let steps = plan.steps().before.len();
        let ways = [Asked::Not, Asked::Done, Asked::Lost, Asked::Late];
        for (at, asked) in (0..steps).flat_map(|at| ways.map(|asked| (at, asked))) {
            survives(&plan, |_| given_up(world_of(&plan), &plan, at, asked), died);
        }
    }
}

/// Each undo fails, is repeated, gets lost and comes late, after each step.
#[test]
fn every_undo_of_every_plan_survives_every_single_fault() {
    backward(&mut BTreeSet::new());
}

/// The old hub is away from the start, for so long, with or without a lease; then every fault on top of that.
fn past_a_hub_that_is_away(died: &mut BTreeSet<&'static str>) {
    let secs = Duration::from_secs;
    let carries = [Carry::State, Carry::Initial, Carry::Planted { seen_at: Timestamp(4) }];
    for (carry, rule) in carries.into_iter().flat_map(|carry| RULES.map(|rule| (carry, rule))) {
        for (away_for, lease_for) in [(secs(20), 0), (secs(31), 0), (secs(34), 40), (secs(60), 40), (secs(300), 40)] {
            let plan = Plan::Relocate { from: hub("a"), to: hub("b"), carry };
            let start = |fault| {
                let mut world = World { rule, away_for, ..world_of(&plan) };
                world.away = Some((hub("a"), world.now.plus(away_for)));
                world.lease_ends_at = (lease_for > 0).then(|| world.now.plus(secs(lease_for)));
                Some(begun(world, &plan, fault))
            };
            survives(&plan, start, died);
        }
    }
}

#[test]
fn a_bypass_survives_every_single_fault() {
    past_a_hub_that_is_away(&mut BTreeSet::new());
}

/// What a hub refused, on the way forward or back, and what a person then does about it, by either way that may end it.
fn after_a_refusal(died: &mut BTreeSet<&'static str>) {
    for plan in shapes() {
        let forward = |fault| Some(begun(world_of(&plan), &plan, fault));
        let last = plan.steps().before.len().checked_sub(1);
        let backward = |_| given_up(world_of(&plan), &plan, last?, Asked::Done);
        let starts: [&dyn Fn(Fault) -> Option<(World, Machine)>; 2] = [&forward, &backward];
        for (start, refused) in starts.into_iter().flat_map(|start| (1..=6).map(move |n| (start, n))) {
            let Some((mut world, machine)) = start(Fault::None) else { continue };
            let machine = world.drive(machine, Fault::Refused(refused));
            let Some((_, owed)) = stuck_debt(&machine) else { continue };
            let opens = matches!(owed.effect, Effect::Activate | Effect::Unseal);
            let ways = [Way::Retry, if opens { Way::Force } else { Way::Abandon }];
            for (way, crash) in ways.into_iter().flat_map(|way| [0, 1, 2].map(|at| (way, at))) {
                let mut world = World { commits: 0, ..world.clone() };
                let machine = resolved(&mut world, machine.clone(), way, Fault::Crash(crash));
                died.append(&mut world.died_after);
                let what = format!("{plan:?}, {owed:?}, {way:?}, {crash}: {world:#?}");
                assert!(machine.is_idle() && machine.moves().count() == 0, "{what}");
                let open: Vec<&HubId> = world.hubs.iter().filter(|(_, it)| it.is_open()).map(|(id, _)| id).collect();
                let home = world.registration.as_ref().and_then(|record| record.assignment.as_ref()).map(|it| &it.hub);
                match way {
                    Way::Retry => check_end(&plan, &world, &machine, Fault::None),
                    // What was not taken back stays where it was, and is open at most where it is no home of anybody.
                    Way::Abandon | Way::Force => match &plan {
                        Plan::Release { .. } => assert!(home.is_none() && open.len() <= 1, "{what}"),
                        // Never assigned, or the home is gone: it was only tidied up after.
                        Plan::Assign { .. } | Plan::TakeOver { .. } | Plan::Rehouse { .. } | Plan::Restore { .. }
                            if open.is_empty() => {}
                        _ => assert_eq!(open, home.into_iter().collect::<Vec<_>>(), "{what}"),
                    },
                }
            }
        }
    }
}

#[test]
fn what_a_person_resolves_survives_a_crash_after_every_line() {
    after_a_refusal(&mut BTreeSet::new());
}

/// A move that was given up still owes the old home its opening and the new hub its clean-up when the next one begins.
fn superseded(died: &mut BTreeSet<&'static str>) {
    for plan in shapes() {
        let leaves = matches!(plan, Plan::Relocate { .. } | Plan::Release { from: Some(_) });
        if !leaves {
            continue;
        }
        let start = |fault| {
            let first = relocate(Carry::State);
            let (mut world, mut machine) = given_up(world_of(&first), &first, 1, Asked::Done)?;
            let next = machine.begin(intent(plan.clone(), 8), Preconditions::default(), world.now);
            world.commit(&mut machine, next, fault);
            Some((world, machine))
        };
        survives(&plan, start, died);
    }
}

#[test]
fn a_move_that_follows_one_that_was_given_up_survives_every_single_fault() {
    superseded(&mut BTreeSet::new());
}

/// The lines that there are. One more does not compile in [`word`] before it has a word of its own.
const WORDS: [&str; 12] = [
    "aborted",
    "abandoned",
    "bypassed",
    "collected",
    "done",
    "dropped",
    "intent",
    "pivoted",
    "regained",
    "retried",
    "settled",
    "stuck",
];

#[test]
fn the_process_dies_after_every_kind_of_line() {
    let mut died = BTreeSet::new();
    forward(&mut died);
    backward(&mut died);
    past_a_hub_that_is_away(&mut died);
    after_a_refusal(&mut died);
    superseded(&mut died);
    assert_eq!(died, BTreeSet::from(WORDS));
}
