//! `rehome bench`: puts load on a server and says what it can do: a load generator, and so a capacity planner.
//!
//! The devices are real ones, each with its own key and certificate, and their connections prove themselves unless a
//! scenario says that they resume. The load shares the machine with a server of the bench's own: figures are to be
//! compared with others of the same run, and the processor time is the server's alone.

mod child;
mod devices;
mod filled;
mod load;
mod meter;
mod report;
mod scenario;
mod stage;
mod world;

use std::io::BufRead as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::ambient::{Entropy as _, SystemEntropy};
use crate::domain::limits;

use super::advice::Advised;
use super::context::Context;
use super::input;
use super::serve::key_value;
use meter::Meter;
use report::{Row, Summary};
use scenario::{Choice, Scenario};
use stage::{Amount, Stage};
use world::World;

const HELP: &str = "Scenarios (a word before a dash names all of them; without any, all but the storms are played):
  first             the first registration of a device, on an open connection
  warm, look-up     a registration that changes nothing, and the device's own record, on an open connection
  cold-group        a new connection with a full handshake, then a registration that changes nothing;
  cold-individual     proven by a group's authority, or by an enrollment of the device's own
  resumed           the same, but the handshake resumes the device's last connection
  move-migrate      every registration moves the device to the other hub, with its twin,
  move-reset          or with the one of its enrollment
  tpm               a challenge to a TPM, its answer, and the registration; the TPM is one without a chip
  twin-report       reported properties by the device
  twin-push         desired properties by a back end, until the device that watches has them
  mix               of ten operations six warm, two cold, a move and a report
  storm-stay        every device once at --rate, each on a new connection
  storm-move          and every one moves to the other hub
  storm-return        the same, but the handshakes resume the devices' last connections
  restart           the bench's own server is killed, and started again on what it left

Without --running a server is started for the purpose: this program, in a folder of its own in the
system's temporary one, killed and removed at the end.

Examples:
  rehome bench
  rehome bench warm move --rounds 5 --share 0.7 --json
  rehome bench storm-move --devices 10000 --rate 1000
  rehome bench cold --running --server https://rehome.example:7443 --certs certs";

#[derive(Debug, PartialEq, Args)]
#[command(after_help = HELP)]
pub struct Bench {
    /// What to measure [default: everything but the storms]
    #[arg(value_name = "SCENARIO")]
    pub scenarios: Vec<Choice>,
    /// Devices, each with its own key and certificate
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub devices: u32,
    /// The bench's own server begins with so many devices of a group that have registered, and --devices of them are used.
    /// The service itself writes them, in this process and without connections; --dir keeps them for the next run
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=9_999_999), conflicts_with = "running")]
    pub filled: Option<u32>,
    /// Open connections of warm and look-up, each of another device [default: as many as operations under way]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: Option<u32>,
    /// Operations under way at once
    #[arg(long, value_name = "NUMBER", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub in_flight: u32,
    /// How long to measure
    #[arg(long = "for", value_name = "SPAN", default_value = "5s", value_parser = input::span)]
    pub lasts: Duration,
    /// Operations a second, whatever the server does [default: as fast as it answers]
    #[arg(long, value_name = "NUMBER", value_parser = positive)]
    pub rate: Option<f64>,
    /// Measure again at this share of what was reached, at an even rate
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with = "rate")]
    pub share: Option<f64>,
    /// Measure everything so often; the middle one counts
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// The twin of a device that moves, half of it desired and half reported
    #[arg(long, value_name = "BYTES", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(0..=32_768))]
    pub twin_bytes: u32,
    /// Measure the running service that --server names, as its operator; what is made there is deleted again
    #[arg(long)]
    pub running: bool,
    /// With --running: the service's process on this machine, to read its processor time and memory
    #[arg(long, value_name = "PID", requires = "running")]
    pub server_process: Option<u32>,
    /// With --running: where its metrics are, to read its syncs
    #[arg(long, value_name = "ADDRESS:PORT", requires = "running")]
    pub server_metrics: Option<SocketAddr>,
    /// The folder of the bench's own server [default: a new one in the system's temporary folder]
    #[arg(long, value_name = "DIR", conflicts_with = "running")]
    pub dir: Option<PathBuf>,
    /// Leave what was made: the folder, or on a running service the enrollments and registrations
    #[arg(long)]
    pub keep: bool,
    /// A setting of the bench's own server; repeat it for more
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value, conflicts_with = "running")]
    pub settings: Vec<(String, String)>,
    /// Wait for a line on standard input before each measurement, and print each as a line of JSON: for a program that
    /// measures something else in between
    #[arg(long, hide = true)]
    pub paced: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err(format!("{text} is not above 0")) }
}

fn share(text: &str) -> Result<f64, String> {
    positive(text).and_then(|share| if share <= 1.0 { Ok(share) } else { Err(format!("{text} is more than 1")) })
}

impl Bench {
    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the asynchronous runtime")?
            .block_on(self.play(context))
    }

    fn scenarios(&self) -> Vec<Scenario> {
        if self.scenarios.is_empty() {
            let is_storm = |scenario: &Scenario| {
                matches!(scenario, Scenario::StormStay | Scenario::StormMove | Scenario::StormReturn)
            };
            let is_played =
                |scenario: &Scenario| !is_storm(scenario) && (*scenario != Scenario::Restart || !self.running);
            return Scenario::ALL.iter().copied().filter(is_played).collect();
        }
        self.scenarios.iter().flat_map(|choice| choice.0.iter().copied()).collect()
    }

    fn amount(&self) -> Amount {
        Amount {
            devices: self.devices as usize,
            in_flight: self.in_flight as usize,
            connections: self.connections.map(|count| count as usize),
            lasts: self.lasts,
            rate: self.rate,
            share: self.share,
            twin_bytes: self.twin_bytes as usize,
        }
    }

    async fn play(self, context: &Context) -> anyhow::Result<()> {
        let scenarios = self.scenarios();
        if self.running && scenarios.contains(&Scenario::Restart) {
            return Err(Advised::usage("a running service is not killed", "leave out restart, or --running").into());
        }
        let half = self.twin_bytes as usize / 2;
        ensure!(half <= limits::DESIRED_BYTES_MAX.min(limits::REPORTED_BYTES_MAX), "the twin would be too large");
        if self.running {
            let meter = Meter { process: self.server_process, metrics: self.server_metrics };
            let mut stage = Stage::new(World::running(context, meter).await?, self.amount(), context.output);
            let played = self.measure(&scenarios, &mut stage, context).await;
            if !self.keep {
                stage.clean_up().await.context("what was made could not be deleted")?;
            }
            return played;
        }
        let (folder, is_new) = self.folder();
        let played = self.on_own_server(&scenarios, &folder, context).await;
        if is_new && !self.keep {
            std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        } else {
            context.output.note(&format!("the server's folder is {}", folder.display()))?;
        }
        played
    }

    /// The folder of the bench's own server, and whether it is ours to remove.
    fn folder(&self) -> (PathBuf, bool) {
        match &self.dir {
            Some(folder) => (folder.clone(), !folder.exists()),
            None => {
                let named = format!("rehome-bench-{:08x}", SystemEntropy::new().draw_u128() >> 96);
                (crate::config::temporary_folder().join(named), true)
            }
        }
    }

    async fn on_own_server(&self, scenarios: &[Scenario], folder: &Path, context: &Context) -> anyhow::Result<()> {
        let filled = match self.filled {
            Some(count) => Some(filled::fill(folder, count as usize, context.output).await?),
            None => None,
        };
        let (world, took) = World::start(folder.to_owned(), self.settings.clone()).await?;
        let mut stage = Stage::new(world, self.amount(), context.output).filled(filled);
        self.measure(scenarios, &mut stage, context).await?;
        let memory = stage.world.meter.memory().map_or(0.0, mebibytes);
        let size = size_of(&folder.join("data")).map_or(0.0, mebibytes);
        context.output.note(&format!(
            "the server took {:.3} s to start, has {memory:.0} MiB in memory now, and {size:.0} MiB on the disk",
            took.as_secs_f64()
        ))?;
        Ok(())
    }

    async fn measure(&self, scenarios: &[Scenario], stage: &mut Stage, context: &Context) -> anyhow::Result<()> {
        for scenario in scenarios {
            stage.prepare(*scenario).await.with_context(|| format!("cannot prepare {scenario}"))?;
        }
        let mut rows = Vec::new();
        for round in 1..=self.rounds {
            for scenario in scenarios {
                if self.paced && !wait_for_line().await? {
                    return Ok(());
                }
                let measured = stage.measure(*scenario, round).await;
                for row in measured.with_context(|| format!("cannot measure {scenario}"))? {
                    self.tell(&row, context)?;
                    rows.push(row);
                }
            }
        }
        if self.paced { Ok(()) } else { Ok(context.output.list(&Summary::all(rows), false)?) }
    }

    fn tell(&self, row: &Row, context: &Context) -> anyhow::Result<()> {
        if self.paced {
            Ok(context.output.event(row, &report::line(row))?)
        } else {
            Ok(context.output.note(&report::line(row))?)
        }
    }
}

/// Whether a line came; none when the other side is done.
async fn wait_for_line() -> anyhow::Result<bool> {
    let read = || std::io::stdin().lock().read_line(&mut String::new());
    let read = tokio::task::spawn_blocking(read).await.context("waiting for a line broke off")?;
    Ok(read.context("cannot read standard input")? > 0)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

/// Bytes of the files in a folder.
fn size_of(folder: &Path) -> Option<u64> {
    let sizes = std::fs::read_dir(folder).ok()?.map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_shares_are_numbers_above_zero() {
        for (text, rate, of_all) in [
            ("0.7", true, true),
            ("1", true, true),
            ("1000", true, false),
            ("0", false, false),
            ("-1", false, false),
            ("inf", false, false),
            ("NaN", false, false),
            ("fast", false, false),
        ] {
            assert_eq!((positive(text).is_ok(), share(text).is_ok()), (rate, of_all), "{text}");
        }
    }
}
