//! A TPM for the demo: the simulator `swtpm`, started and ended with the story.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use crate::client::tpm::{EkKind, Tpm, TpmAddress, TpmSettings};

/// A running simulator. Dropped, it ends.
pub struct SoftwareTpm {
    process: Child,
    socket: PathBuf,
}

impl SoftwareTpm {
    /// Starts one on files in a folder; `None` where there is no `swtpm`.
    pub fn start(folder: &Path) -> anyhow::Result<Option<Self>> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let folder = folder.canonicalize()?;
        let socket = folder.join("socket");
        let spawned = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", folder.display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}.ctrl", socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match spawned {
            Ok(process) => Ok(Some(Self { process, socket })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("cannot start swtpm"),
        }
    }

    pub fn is_up(&self) -> bool {
        self.socket.exists()
    }

    /// The TPM, with an endorsement key of that kind.
    pub fn tpm(&self, kind: EkKind) -> Tpm {
        let settings = TpmSettings::at(TpmAddress::Unix(self.socket.clone()));
        Tpm::new(TpmSettings { endorsement: Some(kind), ..settings })
    }
}

impl Drop for SoftwareTpm {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing left to do then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
