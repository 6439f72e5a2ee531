//! Parsers against bytes that nobody meant: every target is a function of bytes that must not panic and holds what it
//! takes in against what must be true of it.
//!
//! Each target is given its kept inputs first, then what a seeded mutator makes of them: a fixed number of inputs, or as
//! many as fit into `REHOME_FUZZ_SECONDS`, from `REHOME_FUZZ_SEED`. An input that fails is written to a file whose name
//! is printed, and stays under `corpus/` as a test once it is understood. With a nightly compiler and cargo-fuzz the same
//! targets run under `fuzz/`.

mod mutate;
mod run;
mod seeds;
mod targets;
