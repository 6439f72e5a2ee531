//! A server of the bench's own: this very executable as a child process, in a folder of its own, on free ports.
//!
//! A process of its own, so that its processor time and memory are the server's alone. It is killed when the bench is
//! done with it; what it leaves behind is what a server leaves behind that was killed.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::ambient::{Clock as _, SystemClock};
use crate::config;

use super::meter::Meter;

/// What the server says when it runs; its own sentences.
const LISTENS: &str = "rehome listens on https://";
const METRICS: &str = "metrics are at http://";

/// How it is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Of data and certificates: a server started again here finds what the one before left.
    pub folder: PathBuf,
    pub settings: Vec<(String, String)>,
    /// Absent: any free port.
    pub listen: Option<SocketAddr>,
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct OwnServer {
    child: Child,
    pub address: SocketAddr,
    pub metrics: SocketAddr,
    /// From the start of the process to the first word that it serves.
    pub start_took: Duration,
}

impl OwnServer {
    /// Starts it and waits until it serves. Blocks.
    pub fn start(setting: &Setting) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&setting.folder)
            .with_context(|| format!("cannot make {}", setting.folder.display()))?;
        let clock = SystemClock;
        let began = clock.monotonic();
        let mut command = Command::new(config::executable().context("cannot find this program's own file")?);
        let at = setting.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        command.arg("serve").arg("--listen").arg(at.to_string()).args(["--metrics-listen", "127.0.0.1:0"]);
        command.args(["--data-dir", "data", "--certs", "certs", "--set", "log.filter=warn"]);
        // A load is more from one address, and of one device, than anybody else would be allowed.
        for bound in ["peer", "device"] {
            command.arg("--set").arg(format!("limits.{bound}_challenges_per_minute=1000000"));
        }
        command.args(["--set", "limits.address_connections_max=1000000"]);
        for (key, value) in &setting.settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        // In its own folder and without our environment, so that nobody's configuration is taken by chance.
        command.current_dir(&setting.folder).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start the server")?;
        match child.stderr.take().context("the server has no standard error").and_then(listen) {
            Ok((address, metrics)) => {
                Ok(Self { child, address, metrics, start_took: clock.monotonic().saturating_sub(began) })
            }
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    pub fn meter(&self) -> Meter {
        Meter { process: Some(self.child.id()), metrics: Some(self.metrics) }
    }

    pub fn certs(folder: &Path) -> PathBuf {
        folder.join("certs")
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Kills it, and waits until it is gone.
fn end(child: &mut Child) {
    // One that has ended by itself needs no killing.
    let _ = child.kill();
    let _ = child.wait();
}

/// Reads what the server says until it has named its addresses. A thread reads on, so that the server can go on talking.
fn listen(stderr: ChildStderr) -> anyhow::Result<(SocketAddr, SocketAddr)> {
    let mut lines = BufReader::new(stderr).lines();
    let (mut address, mut said) = (None, Vec::new());
    while let Some(Ok(line)) = lines.next() {
        if let Some(text) = line.strip_prefix(LISTENS) {
            address = Some(text.parse().context("the server names no address")?);
        }
        if let Some(text) = line.strip_prefix(METRICS) {
            let metrics = text.trim_end_matches("/metrics").parse().context("the server names no address")?;
            let address = address.context("the server named its metrics first")?;
            std::thread::Builder::new().name("server-words".to_owned()).spawn(move || {
                for line in lines.map_while(Result::ok) {
                    tracing::debug!("server: {line}");
                }
            })?;
            return Ok((address, metrics));
        }
        said.push(line);
    }
    bail!("the server ended before it served: {}", said.join("; "))
}
