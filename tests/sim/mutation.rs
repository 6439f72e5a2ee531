//! Mutations: what the promises rest on, taken away one piece at a time. Each must be found.
//!
//! They are generated from the lists of steps of every plan. Nothing in the service knows of them: the driver, the hubs
//! and the store of the simulation do what a service without that piece would do.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rehome::domain::{CallOutcome, HubAnswer, HubCall, HubId, Order};
use rehome::hubs::entry::Entry;
use rehome::moves::plan::{Side, Undo};
use rehome::moves::{Carry, Effect, JournalRecord, Plan};
use rehome::store::{Change, Commit};

use super::ledger::{Ledger, Stage, word};
use super::network::Caller;
use super::run::run;
use super::script::Script;
use super::world::World;

/// One piece that is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mutation {
    pub plan: &'static str,
    pub what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The undo is believed to be done and is not asked for.
    DropUndo(Effect),
    /// The hub obeys this call whatever its order.
    DropFence(Stage, Effect),
    /// The line is believed to be durable and is not written.
    DropLine(Line),
    /// The step is believed to be done, and is asked for after the next one.
    SwapWithNext(Effect),
    /// As above, for what is owed after the pivot.
    SwapDuties(Effect),
}

/// A line of a journal, by what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Intent,
    Step(Effect),
    Pivot,
    Abort,
    Collected,
    Settled(Effect),
}

/// Survivors, and why each is harmless.
const HARMLESS: &[(&str, What, &str)] = &[];

/// Every plan, as far as its steps differ.
fn plans() -> Vec<Plan> {
    let hub = |name: &str| HubId::parse(name).unwrap();
    let (a, b) = (|| hub("a"), || hub("b"));
    vec![
        Plan::Assign { to: b() },
        Plan::TakeOver { to: b(), adopt: false },
        Plan::TakeOver { to: b(), adopt: true },
        Plan::Relocate { from: a(), to: b(), carry: Carry::State },
        Plan::Relocate { from: a(), to: b(), carry: Carry::Initial },
        Plan::Replant { from: a(), to: b(), source: Order(1) },
        Plan::Rehouse { from: a(), to: b() },
        Plan::ResetInPlace { at: a(), credential: true },
        Plan::Refresh { at: a() },
        Plan::Release { from: Some(a()) },
    ]
}

/// Every mutation of every plan.
fn mutations() -> Vec<Mutation> {
    let mut all = Vec::new();
    for plan in plans() {
        let steps = plan.steps();
        let mut of_plan = vec![What::DropLine(Line::Intent)];
        for (place, step) in steps.before.iter().enumerate() {
            let is_last = place + 1 == steps.before.len();
            // What needs no call has neither fence nor place in the network.
            let has_call = step.effect != Effect::Withhold;
            of_plan.push(What::DropLine(if is_last { Line::Pivot } else { Line::Step(step.effect) }));
            if has_call {
                of_plan.push(What::DropFence(Stage::Before, step.effect));
                of_plan.push(What::SwapWithNext(step.effect));
            }
            if let Undo::Call(undo) = step.undo {
                of_plan.extend([What::DropUndo(undo), What::DropFence(Stage::Undoing, undo)]);
                of_plan.push(What::DropLine(Line::Settled(undo)));
            }
        }
        if steps.before.iter().any(|step| matches!(step.undo, Undo::Call(_))) {
            of_plan.push(What::DropLine(Line::Abort));
        }
        for (place, duty) in steps.after.iter().enumerate() {
            of_plan.push(What::DropFence(Stage::After, duty.effect));
            of_plan.push(What::DropLine(Line::Settled(duty.effect)));
            if duty.effect == Effect::Collect {
                of_plan.push(What::DropLine(Line::Collected));
            }
            if place + 1 < steps.after.len() {
                of_plan.push(What::SwapDuties(duty.effect));
            }
        }
        for what in of_plan {
            let mutation = Mutation { plan: word(&plan), what };
            if !all.contains(&mutation) {
                all.push(mutation);
            }
        }
    }
    all
}

/// The state of a mutation within a run.
#[derive(Debug, Default)]
pub struct Mutant {
    pub mutation: Option<Mutation>,
    /// Calls held back until the next step has been asked for.
    held: Vec<(Order, HubCall)>,
}

impl World {
    /// Where a call stands in its plan.
    fn place(&self, caller: &Caller) -> Option<(&'static str, Stage)> {
        self.store.ledger(|ledger| {
            let note = ledger.moves.get(&caller.key.generation)?;
            Some((word(&note.plan), note.stage))
        })
    }

    /// Whether the hub is to obey a call whatever its order.
    pub fn is_unfenced(&self, caller: &Caller) -> bool {
        let Some(Mutation { plan, what: What::DropFence(stage, effect) }) = self.mutant.mutation else { return false };
        effect == caller.key.effect && self.place(caller) == Some((plan, stage))
    }

    /// What the driver does with a call instead of making it: the answer that is believed.
    pub fn interpose(&mut self, caller: &Caller, call: &HubCall) -> Option<CallOutcome> {
        let Mutation { plan, what } = self.mutant.mutation?;
        let (of_plan, stage) = self.place(caller)?;
        if of_plan != plan {
            return None;
        }
        match (what, stage) {
            (What::DropUndo(effect), Stage::Undoing) if effect == caller.key.effect => Some(Ok(HubAnswer::Done)),
            (What::SwapWithNext(effect), Stage::Before) if effect == caller.key.effect => {
                Some(self.hold_back(caller, call))
            }
            (What::SwapDuties(effect), Stage::After) if effect == caller.key.effect => {
                Some(self.hold_back(caller, call))
            }
            _ => None,
        }
    }

    /// Believes that a call is done, with the answer that it would have had by now.
    fn hold_back(&mut self, caller: &Caller, call: &HubCall) -> CallOutcome {
        self.mutant.held.push((caller.key.generation, call.clone()));
        let state = self.hubs.get(&call.hub).and_then(|hub| hub.scripted.state(&call.device));
        Ok(match (caller.key.effect, state) {
            (Effect::Seal | Effect::ReplaceTwin, Some(state)) => HubAnswer::State(Box::new(state)),
            (_, Some(_) | None) => HubAnswer::Done,
        })
    }

    /// The next step of a move arrives: what was held back for it follows.
    pub fn release_held(&mut self, call: &HubCall) {
        if self.mutant.held.is_empty() {
            return;
        }
        let next = |(generation, held): &(Order, HubCall)| {
            held.device == call.device && held.order != call.order && *generation <= call.order
        };
        while let Some(at) = self.mutant.held.iter().position(next) {
            let (_, held) = self.mutant.held.remove(at);
            let incarnation = self.hubs.get(&held.hub).and_then(|hub| hub.record.incarnation);
            let _ = self.obey(incarnation, &held, false);
        }
    }
}

/// An entry whose fence lets a call through.
pub fn unfenced(entry: Entry, call: &HubCall) -> Entry {
    Entry { highest: entry.highest.min(Order(call.order.0 - 1)), ..entry }
}

/// Whether a commit is one whose line is to be left out.
pub fn is_left_out(mutation: Mutation, ledger: &Ledger, commit: &Commit) -> bool {
    let What::DropLine(line) = mutation.what else { return false };
    let of_plan =
        |generation: &Order| ledger.moves.get(generation).is_some_and(|note| word(&note.plan) == mutation.plan);
    let mut closes = false;
    for change in &commit.changes {
        match change {
            Change::Journal { generation: None, record: JournalRecord::Intent(intent), .. }
                if line == Line::Intent && word(&intent.plan) == mutation.plan =>
            {
                return true;
            }
            Change::Journal { generation: Some(generation), record, .. } if of_plan(generation) => {
                let says = match record {
                    JournalRecord::StepDone { effect, .. } => Some(Line::Step(*effect)),
                    JournalRecord::Pivoted { .. } => Some(Line::Pivot),
                    JournalRecord::Aborted { .. } => Some(Line::Abort),
                    JournalRecord::Collected { .. } => Some(Line::Collected),
                    JournalRecord::Settled { effect, .. } => Some(Line::Settled(*effect)),
                    JournalRecord::Intent(_)
                    | JournalRecord::Stuck { .. }
                    | JournalRecord::Dropped { .. }
                    | JournalRecord::Bypassed { .. }
                    | JournalRecord::Regained { .. }
                    | JournalRecord::Retried { .. }
                    | JournalRecord::Abandoned { .. } => None,
                };
                if says == Some(line) {
                    return true;
                }
            }
            Change::CloseMove { generation } if of_plan(generation) => closes = true,
            _ => {}
        }
    }
    // The last thing that is owed has no line but the close.
    let last = matches!(line, Line::Settled(_) | Line::Pivot);
    closes && last && commit.changes.iter().all(|change| !matches!(change, Change::Journal { generation: None, .. }))
}

/// Seeds that a mutation may live through.
const SEEDS: u64 = if cfg!(debug_assertions) { 600 } else { 6_000 };

/// The first seed that finds it.
fn found(mutation: Mutation) -> Option<u64> {
    (0..SEEDS).find(|seed| run(&Script::of(*seed), Some(mutation), false).broken.is_some())
}

#[test]
#[ignore = "takes minutes, and not every survivor has been judged yet"]
fn every_mutation_is_found() {
    let all = mutations();
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(vec![None; all.len()]);
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(mutation) = all.get(next.load(Ordering::Relaxed)) {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutation) = all.get(place).or(Some(mutation)).filter(|_| place < all.len()) else { break };
                    let found = found(*mutation);
                    outcomes.lock().unwrap()[place] = found;
                }
            });
        }
    });
    let mut survivors = BTreeSet::new();
    for (mutation, found) in all.iter().zip(outcomes.into_inner().unwrap()) {
        let Mutation { plan, what } = mutation;
        let why = HARMLESS.iter().find(|(of, it, _)| of == plan && it == what).map(|(_, _, why)| why);
        match (found, why) {
            (Some(seed), None) => println!("{plan}: {what:?} is found by seed {seed}"),
            (Some(seed), Some(_)) => {
                survivors.insert(format!("{plan}: {what:?} is found by seed {seed}, and listed as harmless"));
            }
            (None, Some(why)) => println!("{plan}: {what:?} is harmless: {why}"),
            (None, None) => {
                survivors.insert(format!("{plan}: {what:?} lives through {SEEDS} seeds"));
            }
        }
    }
    println!("{} mutations", all.len());
    assert!(survivors.is_empty(), "{survivors:#?}");
}

#[test]
fn every_step_of_every_plan_is_mutated() {
    for plan in plans() {
        let steps = plan.steps();
        let effects = steps.before.iter().map(|step| step.effect).chain(steps.after.iter().map(|duty| duty.effect));
        for effect in effects.filter(|effect| *effect != Effect::Withhold) {
            let fence = |what| matches!(what, What::DropFence(_, of) if of == effect);
            assert!(mutations().iter().any(|it| it.plan == word(&plan) && fence(it.what)), "{plan:?} {effect:?}");
        }
        assert!(plan.hub(Side::From).or(plan.hub(Side::To)).is_some());
    }
}
