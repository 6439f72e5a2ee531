//! Mutations: what the promises rest on, taken away one piece at a time. Each must be found.
//!
//! They are generated from the lists of steps of every plan. Nothing in the service knows of them: the driver, the hubs
//! and the store of the simulation do what a service without that piece would do.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rehome::actors::PinTo;
use rehome::domain::{CallOutcome, HubAnswer, HubCall, OperationStatus, Order};
use rehome::hubs::entry::Entry;
use rehome::moves::plan::{Side, Undo};
use rehome::moves::shapes::shapes;
use rehome::moves::{Effect, JournalRecord, Plan};
use rehome::store::{Change, Commit};

use super::dice::Dice;
use super::ledger::{Ledger, Stage, word};
use super::network::{Caller, Flight};
use super::run::{run, watch};
use super::script::{Fate, STRIKES, Script};
use super::world::{Held, World};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Line {
    Intent,
    Step(Effect),
    Pivot,
    Abort,
    Bypassed,
    Regained,
    Collected,
    Settled(Effect),
    Stuck,
    Retried,
    Abandoned,
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, what } = self;
        write!(f, "{plan}: ")?;
        match what {
            What::DropUndo(effect) => write!(f, "the undo {} is not asked for", effect.as_str()),
            What::DropFence(stage, effect) => write!(f, "{} has no fence ({stage:?})", effect.as_str()),
            What::DropLine(line) => write!(f, "the line {line:?} is not written"),
            What::SwapWithNext(effect) | What::SwapDuties(effect) => {
                write!(f, "{} comes after the next one", effect.as_str())
            }
        }
    }
}

/// Survivors, and why each is harmless.
const HARMLESS: &[(&[&str], What, &str)] = &[(
    &["replant"],
    What::DropLine(Line::Intent),
    "no call goes out before the next line (to withhold needs none), and that line the store refuses, since it names a \
     move that the store does not have: the device is read again as it was, and nobody was told anything",
)];

/// Not harmless, and not found by as many runs as there are: the device would have to be passed by, collected, and back at
/// that hub, all while a copy of the collect lingers. Whoever finds them may take them out here.
const OPEN: &[(&[&str], What)] =
    &[(&["relocate", "relocate and reset", "relocate and put back"], What::DropFence(Stage::After, Effect::Collect))];

/// Every mutation of every plan, each once.
fn mutations() -> Vec<Mutation> {
    let mut all = Vec::new();
    for plan in shapes() {
        for what in mutations_of(&plan) {
            let mutation = Mutation { plan: word(&plan), what };
            if !all.contains(&mutation) {
                all.push(mutation);
            }
        }
    }
    all
}

fn mutations_of(plan: &Plan) -> Vec<What> {
    let steps = plan.steps();
    let mut all = vec![What::DropLine(Line::Intent)];
    for (place, step) in steps.before.iter().enumerate() {
        let is_last = place + 1 == steps.before.len();
        // What needs no call has neither fence nor place in the network.
        let has_call = step.effect != Effect::Withhold;
        all.push(What::DropLine(if is_last { Line::Pivot } else { Line::Step(step.effect) }));
        if has_call {
            all.push(What::DropFence(Stage::Before, step.effect));
        }
        if has_call && !(is_last && steps.after.is_empty()) {
            all.push(What::SwapWithNext(step.effect));
        }
        if let Undo::Call(undo) = step.undo {
            all.extend([What::DropUndo(undo), What::DropFence(Stage::Undoing, undo)]);
            all.push(What::DropLine(Line::Settled(undo)));
        }
    }
    let has_undo = steps.before.iter().any(|step| matches!(step.undo, Undo::Call(_)));
    if has_undo {
        all.push(What::DropLine(Line::Abort));
    }
    // Only a home that is left by sealing it can be passed by.
    if let Plan::Relocate { .. } = plan {
        all.extend([Line::Bypassed, Line::Regained].map(What::DropLine));
    }
    // A home that was passed by is collected where it would have been deleted.
    let duties: BTreeSet<Effect> = plan.duties(false).chain(plan.duties(true)).map(|duty| duty.effect).collect();
    let is_relocation = matches!(plan, Plan::Relocate { .. });
    let planned = |effect: &Effect| is_relocation || steps.after.iter().any(|duty| duty.effect == *effect);
    for effect in duties.into_iter().filter(planned) {
        all.push(What::DropFence(Stage::After, effect));
        all.push(What::DropLine(Line::Settled(effect)));
        if effect == Effect::Collect {
            all.push(What::DropLine(Line::Collected));
        }
    }
    for pair in steps.after.windows(2) {
        all.push(What::SwapDuties(pair[0].effect));
    }
    if has_undo || !steps.after.is_empty() {
        all.extend([Line::Stuck, Line::Retried, Line::Abandoned].map(What::DropLine));
    }
    all
}

/// What a run passes through: where a mutation could have made a difference.
#[derive(Debug, Clone, Default)]
pub struct Passed {
    calls: BTreeSet<(&'static str, Stage, Effect)>,
    pub lines: BTreeSet<(&'static str, Line)>,
}

impl Passed {
    fn concerns(&self, Mutation { plan, what }: Mutation) -> bool {
        let calls = |stage, effect| self.calls.contains(&(plan, stage, effect));
        match what {
            // A home that is to be sealed may be passed by instead, where that is aimed at.
            what if follows_a_bypass(what) && calls(Stage::Before, Effect::Seal) => true,
            What::DropUndo(effect) => calls(Stage::Undoing, effect),
            What::DropFence(stage, effect) => calls(stage, effect),
            What::SwapWithNext(effect) => calls(Stage::Before, effect),
            What::SwapDuties(effect) => calls(Stage::After, effect),
            // What is owed is refused where that is aimed at, also if it was not before.
            What::DropLine(Line::Stuck | Line::Retried | Line::Abandoned) => {
                self.calls.iter().any(|(of, stage, _)| *of == plan && *stage != Stage::Before)
            }
            What::DropLine(line) => self.lines.contains(&(plan, line)),
        }
    }
}

/// Whether it is about what comes after a home was left without being sealed.
fn follows_a_bypass(what: What) -> bool {
    match what {
        What::DropLine(Line::Bypassed | Line::Regained | Line::Collected | Line::Settled(Effect::Collect))
        | What::DropFence(Stage::After, Effect::Collect) => true,
        What::DropUndo(_) | What::DropFence(..) | What::DropLine(_) | What::SwapWithNext(_) | What::SwapDuties(_) => {
            false
        }
    }
}

/// A run in which more goes wrong where a mutation is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Aim {
    pub mutation: Mutation,
    /// Another turn aims otherwise.
    pub turn: u64,
    /// Without it the run is the same, and must keep every promise: what breaks one is the mutation and not the aim.
    pub is_lacking: bool,
}

/// The state of a mutation within a run.
#[derive(Debug)]
pub struct Mutant {
    pub aim: Option<Aim>,
    /// The faults have ended.
    pub is_resting: bool,
    dice: Dice,
    /// Calls held back until the next step has been asked for.
    held: Vec<(Order, HubCall)>,
    /// Something was not asked for.
    has_struck: bool,
    /// So many events more once a mutation has struck, and the run comes to rest: what goes on for long may mend, or hide,
    /// what was broken.
    events_left: Option<usize>,
    passed: Option<BTreeSet<(&'static str, Stage, Effect)>>,
}

impl Mutant {
    pub fn new(aim: Option<Aim>, seed: u64) -> Self {
        let turn = aim.map_or(0, |aim| aim.turn);
        let mut dice = Dice::new(seed ^ turn.rotate_left(40) ^ 0xa1a);
        let events_left = (turn % 2 == 1).then(|| dice.below(60));
        Self { aim, is_resting: false, dice, held: Vec::new(), has_struck: false, events_left, passed: None }
    }

    fn lacks(&self) -> Option<Mutation> {
        self.aim.filter(|aim| aim.is_lacking).map(|aim| aim.mutation)
    }
}

impl World {
    /// Notes what it passes through.
    pub fn watch(&mut self) {
        self.mutant.passed = Some(BTreeSet::new());
        self.store.watch();
    }

    pub fn passed(&self) -> Passed {
        Passed { calls: self.mutant.passed.clone().unwrap_or_default(), lines: self.store.passed() }
    }

    pub fn pass(&mut self, caller: &Caller) {
        if self.mutant.passed.is_some()
            && let Some((plan, stage)) = self.place(caller)
            && let Some(passed) = &mut self.mutant.passed
        {
            passed.insert((plan, stage, caller.key.effect));
        }
    }

    /// Where a call stands in its plan.
    fn place(&self, caller: &Caller) -> Option<(&'static str, Stage)> {
        self.store.ledger(|ledger| {
            let note = ledger.moves.get(&caller.key.generation)?;
            Some((word(&note.plan), note.stage))
        })
    }

    /// Whether the run is to come to rest now.
    pub fn is_over(&mut self) -> bool {
        let has_struck = self.mutant.has_struck || self.store.has_left_out();
        match self.mutant.events_left.as_mut().filter(|_| has_struck) {
            None => false,
            Some(left) => std::mem::replace(left, left.saturating_sub(1)) == 0,
        }
    }

    /// Whether a call is the one that a mutation is about.
    pub fn is_aimed_at(&self, caller: &Caller) -> bool {
        let Some(Aim { mutation: Mutation { plan, what }, .. }) = self.mutant.aim else { return false };
        let Some((of_plan, stage)) = self.place(caller) else { return false };
        let effect = caller.key.effect;
        of_plan == plan
            && match what {
                What::DropUndo(of) => (stage, effect) == (Stage::Undoing, of),
                What::DropFence(at, of) => (stage, effect) == (at, of),
                What::SwapWithNext(of) => (stage, effect) == (Stage::Before, of),
                What::SwapDuties(of) => (stage, effect) == (Stage::After, of),
                What::DropLine(Line::Stuck | Line::Retried | Line::Abandoned) => stage != Stage::Before,
                // While a hub is passed by, what is made elsewhere gets lost, and the hub answers after all.
                What::DropLine(Line::Regained) => {
                    stage == Stage::Before && effect == Effect::Create && self.passes_by(caller)
                }
                What::DropLine(_) => false,
            }
    }

    fn passes_by(&self, caller: &Caller) -> bool {
        self.store.ledger(|ledger| ledger.moves.get(&caller.key.generation).is_some_and(|note| note.bypassed))
    }

    /// Whether a call goes to a home that is to be passed by.
    pub fn is_to_be_passed_by(&self, caller: &Caller) -> bool {
        let Some(mutation) = self.mutant.aim.map(|aim| aim.mutation) else { return false };
        follows_a_bypass(mutation.what)
            && !self.mutant.is_resting
            && caller.key.effect == Effect::Seal
            && self.place(caller) == Some((mutation.plan, Stage::Before))
            && !self.passes_by(caller)
    }

    /// Whether a call is made while a hub is passed by that is to answer after all.
    pub fn is_to_be_regained(&self, caller: &Caller) -> bool {
        let is_wanted = |aim: Aim| aim.mutation.what == What::DropLine(Line::Regained);
        self.mutant.aim.is_some_and(is_wanted) && self.is_aimed_at(caller)
    }

    /// Whether the hub is to obey a call whatever its order.
    pub fn is_unfenced(&self, caller: &Caller) -> bool {
        matches!(self.mutant.lacks(), Some(Mutation { what: What::DropFence(..), .. })) && self.is_aimed_at(caller)
    }

    /// What becomes of a call that is aimed at: it lingers where its fence is in question, is refused where what follows
    /// from a refusal is, and else goes wrong more often than others.
    pub fn aimed_fate(&mut self, fate: Fate) -> Fate {
        let Some(Aim { mutation, .. }) = self.mutant.aim else { return fate };
        let dice = &mut self.mutant.dice;
        match mutation.what {
            What::DropFence(..) => *dice.pick(&[fate, Fate::Duplicated, Fate::Duplicated, Fate::Delayed]),
            What::DropLine(Line::Stuck | Line::Retried | Line::Abandoned) if dice.percent(60) => Fate::Refused,
            What::DropLine(Line::Regained) => *dice.pick(&[Fate::CallLost, Fate::AnswerLost, Fate::AnswerLost]),
            What::DropUndo(_) | What::DropLine(_) | What::SwapWithNext(_) | What::SwapDuties(_) => {
                *dice.pick(&[fate, fate, Fate::AnswerLost, Fate::Duplicated])
            }
        }
    }

    /// How many copies of a call that comes late stay in the network.
    pub fn copies(&self) -> usize {
        match self.mutant.aim.map(|aim| aim.mutation.what) {
            Some(What::DropFence(..)) => 3,
            Some(What::DropUndo(_) | What::DropLine(_) | What::SwapWithNext(_) | What::SwapDuties(_)) | None => 1,
        }
    }

    /// A late copy that is aimed at waits for the worst moment: after a later call to the same device at the same hub.
    pub fn lingers(&mut self) -> bool {
        self.mutant.dice.percent(60)
    }

    pub fn is_worst_moment(&mut self) -> bool {
        self.mutant.dice.percent(40)
    }

    /// Before the actor hears of what is aimed at, the device writes, or the next commit meets a fault.
    pub fn trouble_around(&mut self, caller: &Caller) -> Held {
        if !self.is_aimed_at(caller) {
            return Ok(());
        }
        if self.mutant.dice.percent(15) {
            let strike = *self.mutant.dice.pick(STRIKES);
            self.store.strike(strike);
        }
        if self.mutant.dice.percent(50) {
            let seed = self.mutant.dice.draw();
            return self.write(caller.device, seed);
        }
        Ok(())
    }

    /// After the actor has heard of a refusal that was aimed at, an operator does something about it.
    pub fn resolved_around(&mut self, device: usize, aimed: bool) -> Held {
        let resolves = |aim: Aim| matches!(aim.mutation.what, What::DropLine(Line::Retried | Line::Abandoned));
        if aimed && self.mutant.aim.is_some_and(resolves) && self.mutant.dice.percent(70) {
            let seed = self.mutant.dice.draw();
            return self.resolve(device, seed);
        }
        // A copy that lingers does harm once the device is there again.
        let lingers_at = |flight: &&Flight| flight.is_aimed_copy() && flight.call.device == self.name_of(device);
        let haunted = self.network.flights.iter().find(lingers_at).map(|flight| flight.call.hub.clone());
        let enrollment = self.devices[device].enrollment.clone();
        if let (Some(hub), Some(enrollment)) = (haunted, enrollment)
            && self.hubs.contains_key(&hub)
            && self.mutant.dice.percent(15)
        {
            let to = PinTo { hub, reason: "a copy lingers there".to_owned(), expires_at: None };
            let _ = self.ask_reprovision(device, enrollment, Some(to));
            return Ok(());
        }
        let is_fence = |aim: Aim| matches!(aim.mutation.what, What::DropFence(..));
        if self.mutant.aim.is_some_and(is_fence) && self.mutant.dice.percent(8) {
            let seed = self.mutant.dice.draw();
            return if self.mutant.dice.percent(50) { self.undo(device, seed) } else { self.reprovision(device, seed) };
        }
        Ok(())
    }

    /// What the driver does with a call instead of making it: the answer that is believed.
    pub fn interpose(&mut self, caller: &Caller, call: &HubCall) -> Option<CallOutcome> {
        let Mutation { what, .. } = self.mutant.lacks()?;
        if !self.is_aimed_at(caller) {
            return None;
        }
        self.mutant.has_struck |= !matches!(what, What::DropFence(..) | What::DropLine(_));
        match what {
            What::DropUndo(_) => Some(Ok(HubAnswer::Done)),
            What::SwapWithNext(_) | What::SwapDuties(_) => Some(self.hold_back(caller, call)),
            What::DropFence(..) | What::DropLine(_) => None,
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

/// The lines that a commit writes, by their plans.
pub fn lines_of(ledger: &Ledger, commit: &Commit) -> Vec<(&'static str, Line)> {
    let note = |generation: &Order| ledger.moves.get(generation);
    let mut lines = Vec::new();
    let begins = commit.changes.iter().any(|change| matches!(change, Change::Journal { generation: None, .. }));
    for change in &commit.changes {
        match change {
            Change::Journal { generation: None, record: JournalRecord::Intent(intent), .. } => {
                lines.push((word(&intent.plan), Line::Intent));
            }
            Change::Journal { generation: Some(generation), record, .. } => {
                let says = match record {
                    JournalRecord::StepDone { effect, .. } => Line::Step(*effect),
                    JournalRecord::Pivoted { .. } => Line::Pivot,
                    JournalRecord::Aborted { .. } => Line::Abort,
                    JournalRecord::Collected { .. } => Line::Collected,
                    JournalRecord::Settled { effect, .. } => Line::Settled(*effect),
                    JournalRecord::Bypassed { .. } => Line::Bypassed,
                    JournalRecord::Regained { .. } => Line::Regained,
                    JournalRecord::Stuck { .. } => Line::Stuck,
                    JournalRecord::Retried { .. } => Line::Retried,
                    JournalRecord::Abandoned { .. } => Line::Abandoned,
                    // Written with the intent of the move that voids the debt: one commit, and one mutation.
                    JournalRecord::Intent(_) | JournalRecord::Dropped { .. } => continue,
                };
                lines.extend(note(generation).map(|note| (word(&note.plan), says)));
            }
            // The last thing that is owed has no line but the close; a move that another one follows on ends with its intent.
            Change::CloseMove { generation } if !begins => {
                let Some(note) = note(generation) else { continue };
                let steps = note.plan.steps();
                let plan = word(&note.plan);
                match note.stage {
                    Stage::Before if gives_up(commit) => lines.push((plan, Line::Abort)),
                    Stage::Before => lines.push((plan, Line::Pivot)),
                    Stage::After => {
                        lines.extend(note.plan.duties(note.bypassed).map(|it| (plan, Line::Settled(it.effect))));
                    }
                    Stage::Undoing => lines.extend(steps.before.iter().filter_map(|step| match step.undo {
                        Undo::Call(undo) => Some((plan, Line::Settled(undo))),
                        Undo::Nothing(_) => None,
                    })),
                }
            }
            Change::Journal { .. }
            | Change::CloseMove { .. }
            | Change::ForgetMove { .. }
            | Change::PutRegistration(_)
            | Change::DeleteRegistration { .. }
            | Change::PutEnrollment(_)
            | Change::DeleteEnrollment { .. }
            | Change::PutHub(_)
            | Change::DeleteHub { .. }
            | Change::NoteSeen { .. }
            | Change::RaiseOrders { .. }
            | Change::SetRestored(_) => {}
        }
    }
    lines
}

fn gives_up(commit: &Commit) -> bool {
    commit.changes.iter().any(|change| match change {
        Change::PutRegistration(record) => matches!(record.operation.status, OperationStatus::Failed { .. }),
        _ => false,
    })
}

/// Whether a commit is one whose line is to be left out.
pub fn is_left_out(mutation: Mutation, ledger: &Ledger, commit: &Commit) -> bool {
    match mutation.what {
        What::DropLine(line) => lines_of(ledger, commit).contains(&(mutation.plan, line)),
        What::DropUndo(_) | What::DropFence(..) | What::SwapWithNext(_) | What::SwapDuties(_) => false,
    }
}

/// Seeds whose runs are looked through for the place of each mutation.
const SEEDS: u64 = 12_000;
/// Runs that a mutation may live through.
const RUNS: usize = 1_500;

/// What became of a mutation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fared {
    Found {
        seed: u64,
        turn: u64,
        why: String,
    },
    Lived {
        runs: usize,
    },
    /// No run passes through its place.
    NeverPassed,
}

/// Runs it where it can make a difference, until a promise breaks.
fn hunt(mutation: Mutation, runs: &[(u64, Passed)]) -> Fared {
    let seeds: Vec<u64> = runs.iter().filter(|(_, passed)| passed.concerns(mutation)).map(|(seed, _)| *seed).collect();
    if seeds.is_empty() {
        return Fared::NeverPassed;
    }
    let turns = (0..).flat_map(|turn| seeds.iter().map(move |seed| (*seed, turn)));
    for (seed, turn) in turns.take(RUNS) {
        let script = Script::of(seed);
        let aim = Aim { mutation, turn, is_lacking: true };
        let Some((found, _)) = run(&script, Some(aim), false).broken else { continue };
        let whole = run(&script, Some(Aim { is_lacking: false, ..aim }), true);
        if let Some((broken, _)) = whole.broken {
            println!("{}", whole.log.join("\n"));
            panic!("seed {seed}, turn {turn} breaks a promise with nothing taken away ({mutation}): {}", broken.0);
        }
        return Fared::Found { seed, turn, why: found.0 };
    }
    Fared::Lived { runs: RUNS }
}

/// The same for every item, on all cores; outcomes in the order of the items.
fn on_all_cores<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(place) else { break };
                    let outcome = work(item);
                    outcomes.lock().unwrap().push((place, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap();
    outcomes.sort_by_key(|(place, _)| *place);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn is_open(mutation: Mutation) -> bool {
    OPEN.iter().any(|(plans, what)| *what == mutation.what && plans.contains(&mutation.plan))
}

fn why_harmless(mutation: Mutation) -> Option<&'static str> {
    let of_it = |(plans, what, _): &&(&[&str], What, &str)| *what == mutation.what && plans.contains(&mutation.plan);
    HARMLESS.iter().find(of_it).map(|(_, _, why)| *why)
}

/// `REHOME_SIM_MUTATION` names the only one that is looked for, by a part of how it is printed.
#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a build that is not optimised")]
fn every_mutation_is_found() {
    let took = std::time::Instant::now();
    let only = std::env::var("REHOME_SIM_MUTATION").unwrap_or_default();
    let all: Vec<Mutation> = mutations().into_iter().filter(|it| it.to_string().contains(&only)).collect();
    let seeds: Vec<u64> = (0..super::seeds::number("REHOME_SIM_SEEDS").unwrap_or(SEEDS)).collect();
    let runs: Vec<(u64, Passed)> = on_all_cores(&seeds, |seed| (*seed, watch(&Script::of(*seed))));
    let fared = on_all_cores(&all, |mutation| hunt(*mutation, &runs));
    let (mut found, mut harmless, mut open, mut wrong) = (0, 0, 0, Vec::new());
    for (mutation, fared) in all.iter().zip(fared) {
        match (fared, why_harmless(*mutation)) {
            (Fared::Found { seed, turn, why }, None) => {
                found += 1;
                println!("{mutation}: found by seed {seed}, turn {turn}: {why:.160}");
            }
            (Fared::Lived { .. }, Some(why)) => {
                harmless += 1;
                println!("{mutation}: harmless, {why}");
            }
            (Fared::Found { seed, turn, why }, Some(_)) => {
                wrong.push(format!("{mutation}: listed as harmless, and found by seed {seed}, turn {turn}: {why}"));
            }
            (Fared::Lived { .. } | Fared::NeverPassed, None) if is_open(*mutation) => {
                open += 1;
                println!("{mutation}: NOT FOUND, and not harmless");
            }
            (Fared::Lived { runs }, None) => wrong.push(format!("{mutation}: lives through {runs} runs")),
            (Fared::NeverPassed, _) => wrong.push(format!("{mutation}: no run comes to where it would matter")),
        }
    }
    println!(
        "{} mutations: {found} found, {harmless} harmless, {open} not found, in {} s",
        all.len(),
        took.elapsed().as_secs()
    );
    assert!(wrong.is_empty(), "{} are neither found nor known to be harmless: {wrong:#?}", wrong.len());
}

#[test]
fn every_step_of_every_plan_is_mutated() {
    let all = mutations();
    for plan in shapes() {
        let steps = plan.steps();
        let effects = steps.before.iter().map(|step| step.effect).chain(steps.after.iter().map(|duty| duty.effect));
        for effect in effects.filter(|effect| *effect != Effect::Withhold) {
            let fence = |what| matches!(what, What::DropFence(_, of) if of == effect);
            assert!(all.iter().any(|it| it.plan == word(&plan) && fence(it.what)), "{plan:?} {effect:?}");
        }
        let has_hub = plan.hub(Side::From).or(plan.hub(Side::To)).is_some();
        assert!(has_hub || steps.before.is_empty() && steps.after.is_empty(), "{plan:?}");
    }
    // None of the harmless is of a plan or a step that there is no more.
    for (plans, what, _) in HARMLESS {
        for plan in *plans {
            assert!(all.iter().any(|it| it.plan == *plan && it.what == *what), "{plan} has no {what:?}");
        }
    }
}
