//! The search: visits every state that can be reached, once.

use std::collections::{HashSet, VecDeque};
use std::fmt;

use super::world::{Breach, Scenario, State, Step};

/// A promise that was broken, and how it came to that.
#[derive(Debug, Clone)]
pub struct Violation {
    pub breach: Breach,
    pub what: String,
    /// Every step on the way, as text.
    pub path: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}: {}", self.breach, self.what)?;
        self.path.iter().enumerate().try_for_each(|(number, step)| writeln!(f, "  {:2}. {step}", number + 1))
    }
}

/// What a search came to.
#[derive(Debug, Default)]
pub struct Outcome {
    pub states: usize,
    /// States in which nothing was left to do.
    pub ends: usize,
    /// Steps to the farthest state on the way it was found first.
    pub depth: usize,
    pub violation: Option<Violation>,
}

/// In which order states are visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// Nearest first: finds the shortest way to a violation.
    Breadth,
    /// Newest first: holds few states at a time.
    Depth,
}

/// No scenario of ours comes near it; a search that does has lost its bounds.
const STATES_MAX: usize = 20_000_000;

/// Visits all states, or all until a violation that is `wanted`; other violations are passed over.
pub fn explore(scenario: &Scenario, search: Search, wanted: impl Fn(&Violation) -> bool) -> Outcome {
    let mut outcome = Outcome::default();
    let mut seen = HashSet::new();
    // How each state was reached: the place of the one before, and the step from there.
    let mut came: Vec<(usize, Step)> = Vec::new();
    let first = State::first(scenario);
    seen.insert(first.fingerprint());
    let mut frontier = VecDeque::from([(first, usize::MAX, 0)]);
    while let Some((state, place, depth)) = match search {
        Search::Breadth => frontier.pop_front(),
        Search::Depth => frontier.pop_back(),
    } {
        outcome.states += 1;
        outcome.depth = outcome.depth.max(depth);
        assert!(outcome.states < STATES_MAX, "the scenario has no end: {scenario:?}");
        let mut at_rest = true;
        let mut next = Vec::new();
        for step in state.steps(scenario) {
            let after = state.after(step, scenario);
            let print = after.fingerprint();
            at_rest &= !step.is_progress() || print == state.fingerprint();
            if seen.insert(print) {
                next.push((step, after));
            }
        }
        let broken = state.broken().or_else(|| if at_rest { state.broken_at_rest(scenario) } else { None });
        if let Some((breach, what)) = broken {
            let violation = Violation { breach, what, path: path(scenario, &came, place) };
            if wanted(&violation) {
                outcome.violation = Some(violation);
                return outcome;
            }
            continue;
        }
        outcome.ends += usize::from(at_rest);
        for (step, after) in next {
            came.push((place, step));
            frontier.push_back((after, came.len() - 1, depth + 1));
        }
    }
    outcome
}

fn path(scenario: &Scenario, came: &[(usize, Step)], place: usize) -> Vec<String> {
    let mut steps = Vec::new();
    let mut at = place;
    while let Some((before, step)) = came.get(at) {
        steps.push(*step);
        at = *before;
    }
    let mut state = State::first(scenario);
    let mut path = Vec::new();
    for step in steps.into_iter().rev() {
        path.push(state.describe(step));
        state = state.after(step, scenario);
    }
    path
}
