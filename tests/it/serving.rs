//! The service as the program that people run: a process of its own, killed and started at will.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use crate::world::{DEADLINE, Site};

/// `rehome serve` on a free port and on the folders `data` and `certs` of a folder, with settings.
pub fn serve(folder: &Path, settings: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rehome"));
    command
        .env_clear()
        .current_dir(folder)
        .args(["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "off", "--data-dir", "data"])
        .args(settings.iter().flat_map(|setting| ["--set", setting]))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// A service that runs as a process. Dropped, it is killed.
pub struct Serving {
    pub site: Site,
    child: Child,
    /// Ends with everything the process said on standard error.
    said: Option<JoinHandle<String>>,
}

impl Serving {
    /// Starts it and waits until it says where it listens.
    pub fn start(folder: &Path, settings: &[&str]) -> Self {
        let mut child = serve(folder, settings).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let (tell, told) = mpsc::channel();
        let said = std::thread::spawn(move || {
            let mut said = String::new();
            loop {
                let from = said.len();
                match stderr.read_line(&mut said) {
                    Ok(0) | Err(_) => return said,
                    Ok(_) => {
                        if let Some(at) = said[from..].trim().strip_prefix("rehome listens on https://") {
                            // Nobody waits any more when the start took too long.
                            let _ = tell.send(at.parse::<SocketAddr>());
                        }
                    }
                }
            }
        });
        let Ok(address) = told.recv_timeout(DEADLINE) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the service did not start:\n{}", said.join().unwrap());
        };
        let site = Site::new(address.unwrap(), &folder.join("certs"));
        Self { site, child, said: Some(said) }
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop (SIGTERM) and waits; what it said, and how it ended.
    pub fn stop(mut self) -> (String, ExitStatus) {
        let asked = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", self.child.id())).status().unwrap();
        assert!(asked.success());
        let ended = self.child.wait().unwrap();
        (self.said.take().unwrap().join().unwrap(), ended)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a service that must not start; what it said, once it has ended by itself.
pub fn refuses_to_start(mut command: Command) -> (String, ExitStatus) {
    let mut child = command.spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut said = String::new();
        let _ = stderr.read_to_string(&mut said);
        // Nobody waits any more when it took too long.
        let _ = tell.send(said);
    });
    let Ok(said) = told.recv_timeout(DEADLINE) else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("the service runs although it must not");
    };
    (said, child.wait().unwrap())
}
