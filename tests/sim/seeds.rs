//! Many runs, on all cores; a run that breaks a promise is cut down to what matters and told in full.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::run::{Ran, run};
use super::script::Script;
use super::world::Tally;

/// Seeds of a plain `cargo test`.
const SEEDS_DEBUG: u64 = 1_500;
const SEEDS_RELEASE: u64 = 10_000;

pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.replace('_', "").parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

#[test]
fn no_promise_is_broken() {
    if let Some(seed) = number("REHOME_SIM_SEED") {
        let ran = run(&Script::of(seed), None, true);
        println!("{}", ran.log.join("\n"));
        println!("\nseed {seed}: {}", ran.tally.events);
        if ran.broken.is_some() {
            panic!("{}", told(seed));
        }
        return;
    }
    let first = number("REHOME_SIM_FIRST").unwrap_or(0);
    let moves = number("REHOME_SIM_MOVES");
    let seeds = match (number("REHOME_SIM_SEEDS"), moves) {
        (Some(seeds), _) => seeds,
        (None, Some(_)) => u64::MAX - first,
        (None, None) if cfg!(debug_assertions) => SEEDS_DEBUG,
        (None, None) => SEEDS_RELEASE,
    };
    let (next, moved, stop) = (AtomicU64::new(first), AtomicU64::new(0), AtomicBool::new(false));
    let (tally, broken) = (Mutex::new(Tally::default()), Mutex::new(None::<u64>));
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own = Tally::default();
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed - first >= seeds {
                        break;
                    }
                    let ran = run(&Script::of(seed), None, false);
                    own.add(&ran.tally);
                    if ran.broken.is_some() {
                        let mut broken = broken.lock().unwrap();
                        *broken = Some(broken.map_or(seed, |other| other.min(seed)));
                        stop.store(true, Ordering::Relaxed);
                    }
                    let all = moved.fetch_add(ran.tally.all_moves(), Ordering::Relaxed) + ran.tally.all_moves();
                    if moves.is_some_and(|moves| all >= moves) {
                        break;
                    }
                }
                tally.lock().unwrap().add(&own);
            });
        }
    });
    let last = next.load(Ordering::Relaxed).min(first.saturating_add(seeds)).saturating_sub(1);
    println!("{}", report(first, last, &tally.into_inner().unwrap()));
    if let Some(seed) = broken.into_inner().unwrap() {
        panic!("{}", told(seed));
    }
}

pub fn report(first: u64, last: u64, tally: &Tally) -> String {
    let mut text = format!("seeds {first} to {last}, commit {}\n", commit());
    let list = |text: &mut String, what: &str, counts: &BTreeMap<&'static str, u64>| {
        let all: u64 = counts.values().sum();
        let _ = writeln!(text, "{what}: {all}");
        for (kind, count) in counts {
            let _ = writeln!(text, "  {count:>10}  {kind}");
        }
    };
    list(&mut text, "moves", &tally.moves);
    list(&mut text, "faults injected", &tally.faults);
    list(&mut text, "what operators ordered and got", &tally.acts);
    list(&mut text, "devices of hubs restored from a backup", &tally.reinstated);
    let _ = writeln!(
        text,
        "writes after the backup that nobody else knew, each reported as lost: {}; of homes left before: {}",
        tally.lost_with_copies, tally.lost_late
    );
    let _ = writeln!(text, "events: {}, calls to hubs: {}", tally.events, tally.calls);
    let _ = writeln!(text, "twin writes accepted, each traced to the end: {}", tally.writes);
    let _ = writeln!(text, "of these late, at a hub that was passed by: {}", tally.late_writes);
    let _ = writeln!(
        text,
        "of these given up by operators with a hub: {}; with late twins that they removed: {}; beyond the history's bound: {}; calls left stuck with a reason: {}",
        tally.abandoned, tally.forgotten, tally.trimmed, tally.stuck
    );
    text
}

/// A broken seed, cut down, with its log and how to see it again.
fn told(seed: u64) -> String {
    let whole = Script::of(seed);
    let small = shrink(&whole);
    let Ran { broken, log, .. } = run(&small, None, true);
    let why = broken.map(|(why, _)| why.0).unwrap_or_default();
    let again = format!("REHOME_SIM_SEED={seed} cargo test --test sim no_promise -- --nocapture");
    format!(
        "seed {seed} breaks a promise, commit {}\n{} of its {} events matter:\n\n{}\n\n{why}\n\nagain: {again}",
        commit(),
        small.events.len(),
        whole.events.len(),
        log.join("\n")
    )
}

/// Leaves events out as long as a promise is still broken.
pub fn shrink(script: &Script) -> Script {
    let mut small = script.clone();
    let Some((_, done)) = run(&small, None, false).broken else { return small };
    small.events.truncate(done + 1);
    let mut part = small.events.len().div_ceil(2);
    loop {
        let (mut at, mut smaller) = (0, false);
        while at < small.events.len() {
            let mut tried = small.clone();
            tried.events.drain(at..(at + part).min(tried.events.len()));
            if run(&tried, None, false).broken.is_some() {
                (small, smaller) = (tried, true);
            } else {
                at += part;
            }
        }
        if part == 1 && !smaller {
            return small;
        }
        part = if part == 1 { 1 } else { part.div_ceil(2) };
    }
}

fn commit() -> String {
    if let Ok(commit) = std::env::var("REHOME_COMMIT") {
        return commit;
    }
    let git = std::process::Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=40"])
        .output();
    let text =
        git.ok().filter(|git| git.status.success()).map(|git| String::from_utf8_lossy(&git.stdout).trim().to_owned());
    text.unwrap_or_else(|| "unknown".to_owned())
}
