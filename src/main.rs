//! The `rehome` command.

use std::process::ExitCode;

use clap::Parser as _;
use rehome::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
