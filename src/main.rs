//! The `rehome` command.

use std::process::ExitCode;

use clap::Parser as _;
use mimalloc::MiMalloc;
use rehome::cli::Cli;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    Cli::parse().run()
}
