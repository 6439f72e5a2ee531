//! Runs a target: the kept inputs, then mutated ones.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rehome::ambient::{Clock as _, SystemClock};

use crate::mutate::Mutator;
use crate::targets::{self, Target};

/// Inputs of a target where no time is given: some seconds for all targets together.
const INPUTS: u64 = 10_000;
/// What a mutation leaves out when it has grown: parsers of ours refuse long before.
const INPUT_BYTES_MAX: usize = 64 * 1024;
/// A kept input of this prefix must be taken: what was valid once stays valid, also of older formats.
const VALID: &str = "valid-";

/// The kept inputs of a target, by name.
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut kept: Vec<(String, Vec<u8>)> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    kept.sort();
    kept
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// Whether the target took the input. Ends the test when it panicked, and keeps the input.
fn feed(name: &str, target: Target, input: &[u8], what: &str) -> bool {
    match catch_unwind(AssertUnwindSafe(|| target(input))) {
        Ok(taken) => taken,
        Err(_) => {
            let file = keep(name, input);
            panic!("{name} failed on {what}; the input is in {}", file.display());
        }
    }
}

fn keep(name: &str, input: &[u8]) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz");
    let print = input
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let file = folder.join(format!("{name}-{print:016x}"));
    fs::create_dir_all(&folder).and_then(|()| fs::write(&file, input)).unwrap();
    file
}

fn run(name: &str, target: Target) {
    let kept = corpus(name);
    assert!(!kept.is_empty(), "{name} has no kept inputs");
    for (file, input) in &kept {
        let taken = feed(name, target, input, file);
        assert!(taken || !file.starts_with(VALID), "{name} does not take {file} any more");
    }
    let seed = number("REHOME_FUZZ_SEED").unwrap_or(1);
    let seconds = number("REHOME_FUZZ_SECONDS").map(Duration::from_secs);
    let inputs: Vec<Vec<u8>> = kept.into_iter().map(|(_, input)| input).collect();
    let mut mutator = Mutator::new(seed, inputs);
    let (began, mut count, mut taken) = (SystemClock.monotonic(), 0, 0_u64);
    while match seconds {
        Some(seconds) => SystemClock.monotonic() - began < seconds,
        None => count < INPUTS,
    } {
        count += 1;
        let mut input = mutator.next_input();
        input.truncate(INPUT_BYTES_MAX);
        let is_taken = feed(name, target, &input, &format!("input {count} of seed {seed}"));
        taken += u64::from(is_taken);
        if is_taken {
            mutator.learn(input);
        }
    }
    println!("{name}: {count} inputs of seed {seed}, {taken} taken, 0 failed");
}

macro_rules! tests {
    ($($name:ident)+) => {
        $(#[test]
        fn $name() {
            run(stringify!($name), targets::$name);
        })+

        #[test]
        fn every_target_is_run_and_has_its_wrapper() {
            let run = [$(stringify!($name)),+];
            let known: Vec<&str> = targets::ALL.iter().map(|(name, _)| *name).collect();
            assert_eq!(run.as_slice(), known.as_slice());
            let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
            let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
            for name in run {
                assert!(fuzz.join(format!("fuzz_targets/{name}.rs")).exists(), "{name} has no wrapper");
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
            }
        }
    };
}

tests! {
    x509_certificate
    x509_chain
    tpm_keys
    tpm_blob
    tpm_answer
    sas_token
    twin_patch
    words
    configuration
    webhook_answer
    page_token
    wire_from_devices
    wire_from_operators
    wire_to_clients
    store_record
    hub_row
}

#[test]
fn a_target_that_panics_is_told_with_its_input() {
    let target: Target = |input| {
        assert_ne!(input, b"bad", "a planted failure");
        true
    };
    assert!(feed("planted", target, b"good", "a good input"));
    let told = catch_unwind(|| feed("planted", target, b"bad", "the 7th input")).unwrap_err();
    let told = told.downcast_ref::<String>().unwrap();
    let file = told.rsplit(' ').next().unwrap();
    assert!(told.contains("the 7th input"), "{told}");
    assert_eq!(fs::read(file).unwrap(), b"bad");
}
