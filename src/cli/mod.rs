//! The command line: what can be said, and who does it.
//!
//! Commands turn flags into messages, call the service, and hand what comes back to `output`, the only place that prints.

mod advice;
mod audit;
mod bench;
mod connection_string;
mod context;
mod demo;
mod device;
mod enroll;
mod enrollment;
mod group;
mod hub;
mod import;
mod input;
mod keys;
mod output;
mod pki;
mod proof;
mod reconcile;
mod register;
mod serve;
mod settings;
mod store;
mod tpm;
mod twin;
mod view;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use context::{Context, Globals};
use output::Output;

const HELP: &str = "First steps, with a service that `rehome serve` started in this folder:
  rehome hub list
  rehome pki device dev-1
  rehome group create plant --certificate certs/device-ca.pem
  rehome register --id dev-1 --cert certs/dev-1.pem --key certs/dev-1.key
  rehome device show dev-1
  rehome device reprovision dev-1 --to hub-b --wait

Exit codes: 0 done, 1 it failed, 2 the command line is wrong.";

/// Tells every device which hub it belongs to, and moves devices between hubs without losing their twin.
#[derive(Debug, Parser)]
#[command(name = "rehome", version, after_help = HELP, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, PartialEq, Subcommand)]
enum Command {
    /// Run the service
    Serve(serve::Serve),
    /// Play the whole story against the real service, and check every claim
    Demo(demo::Demo),
    /// Link hubs, see how they are used, and take them through their lifecycle
    #[command(subcommand)]
    Hub(hub::HubCommand),
    /// Individual enrollments: let one device register
    #[command(subcommand)]
    Enroll(enroll::EnrollCommand),
    /// Enrollment groups: let every device of an authority register
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Where devices live and why; move them, keep them out
    #[command(subcommand)]
    Device(device::DeviceCommand),
    /// Read, change and watch twins
    #[command(subcommand)]
    Twin(twin::TwinCommand),
    /// Act as a device and register
    Register(register::Register),
    /// Make the key of a group's device
    DeriveKey(keys::DeriveKey),
    /// Look at a device's TPM, to enroll it
    #[command(subcommand)]
    Tpm(tpm::TpmCommand),
    /// What was changed and what was refused
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Go through what was restored from a backup, and set it right
    Reconcile(reconcile::Reconcile),
    /// Back the service's storage up, check it, compact it
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Make authorities and certificates
    #[command(subcommand)]
    Pki(pki::PkiCommand),
    /// Print what the users of existing Azure SDKs paste
    ConnectionString(connection_string::ConnectionString),
    /// Put load on a server, and say what it can do
    Bench(bench::Bench),
}

impl Cli {
    /// Runs the command, and says on standard error why it failed if it does.
    pub fn run(self) -> ExitCode {
        let output = Output { json: self.globals.json };
        match self.outcome() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                output.failure(&error);
                ExitCode::FAILURE
            }
        }
    }

    fn outcome(self) -> anyhow::Result<()> {
        let context = Context::load(self.globals)?;
        match self.command {
            Command::Serve(command) => command.run(&context),
            Command::Demo(command) => command.run(&context),
            Command::Pki(command) => command.run(&context),
            Command::Bench(command) => command.run(&context),
            Command::ConnectionString(command) => wait_for(command.run(&context)),
            Command::Hub(command) => wait_for(command.run(&context)),
            Command::Enroll(command) => wait_for(command.run(&context)),
            Command::Group(command) => wait_for(command.run(&context)),
            Command::Device(command) => wait_for(command.run(&context)),
            Command::Twin(command) => wait_for(command.run(&context)),
            Command::Register(command) => wait_for(command.run(&context)),
            Command::DeriveKey(command) => wait_for(command.run(&context)),
            Command::Tpm(command) => wait_for(command.run(&context)),
            Command::Audit(command) => wait_for(command.run(&context)),
            Command::Reconcile(command) => wait_for(command.run(&context)),
            Command::Store(command) => wait_for(command.run(&context)),
        }
    }
}

/// Runs a command that calls the service.
fn wait_for(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?
        .block_on(command)
}

#[cfg(test)]
mod tests;
