//! One run from its seed to its end.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::mutation::{Aim, Passed};
use super::script::Script;
use super::world::{Broken, Tally, World};

/// What came of a run.
#[derive(Debug)]
pub struct Ran {
    pub tally: Tally,
    /// What broke, and after how many events (all of them: while coming to rest).
    pub broken: Option<(Broken, usize)>,
    pub log: Vec<String>,
}

/// What a run without faults of ours passes through.
pub fn watch(script: &Script) -> Passed {
    let mut world = World::new(script, None, false);
    world.watch();
    let through = script.events.iter().try_for_each(|event| world.step(*event)).and_then(|()| world.rest());
    match through {
        Ok(()) => world.passed(),
        // The run of all seeds tells more of it.
        Err(broken) => panic!("seed {} breaks a promise: {}", script.seed, broken.0),
    }
}

pub fn run(script: &Script, aim: Option<Aim>, logs: bool) -> Ran {
    let mut world = World::new(script, aim, logs);
    let mut done = 0;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for event in &script.events {
            if world.is_over() {
                break;
            }
            world.step(*event)?;
            done += 1;
        }
        world.rest()
    }));
    let broken = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(broken)) => Some((broken, done)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some((Broken(format!("a panic: {}", text.unwrap_or_default())), done))
        }
    };
    let World { mut tally, log, store, .. } = world;
    store.ledger(|ledger| {
        tally.moves = ledger.begun.clone();
        tally.abandoned += ledger.abandoned;
        tally.trimmed = ledger.trimmed;
        tally.forgotten = ledger.forgotten;
        (tally.lost_with_copies, tally.lost_late) = (ledger.lost_with_copies, ledger.lost_late);
    });
    Ran { tally, broken, log: log.unwrap_or_default() }
}
