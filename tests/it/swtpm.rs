//! A software TPM of its own for every test that needs one: `swtpm`, the reference implementation in a process.
//!
//! Where it is not installed such a test reports itself skipped and says how to get it; with `REHOME_REQUIRE_SWTPM=1` it
//! fails. Every test that ran or was skipped is a line in a file, so that a whole run can tell how many did.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rehome::ambient::{Clock as _, SystemClock};
use rehome::client::tpm::{Tpm, TpmAddress, TpmSettings};
use tempfile::TempDir;
use tpm2_protocol::TpmWriter;
use tpm2_protocol::data::{TpmRh, TpmSt, TpmsAuthCommand};
use tpm2_protocol::frame::{TpmFrame, TpmResponse, TpmUnmarshalBody, tpm_marshal_command};

use crate::world::DEADLINE;

/// Which tests ran; `.ci/run` counts its lines.
const LEDGER: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/tpm-tests");
const REQUIRED: &str = "REHOME_REQUIRE_SWTPM";
const HOW_TO_GET_IT: &str = "swtpm is not installed: apt-get install swtpm swtpm-tools";

/// A running TPM. Ends with the test.
pub struct Swtpm {
    process: Child,
    folder: TempDir,
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing left to do then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_installed() -> bool {
    let on_path = |tool: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
    };
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| ["swtpm", "swtpm_setup", "swtpm_localca"].into_iter().all(on_path))
}

/// Whether a test can have a TPM. It must return when it cannot.
fn available() -> bool {
    if is_installed() {
        note("ran");
        return true;
    }
    assert!(!is_required(), "{HOW_TO_GET_IT}");
    skipped(HOW_TO_GET_IT);
    false
}

/// Whether a test that cannot run must fail.
pub fn is_required() -> bool {
    std::env::var(REQUIRED).is_ok_and(|value| value == "1")
}

/// Says that the test is skipped, past the harness, which keeps what tests print to itself.
pub fn skipped(why: &str) {
    note("skipped");
    std::io::stderr().write_all(format!("skipped {}: {why}\n", test()).as_bytes()).unwrap();
}

fn test() -> String {
    std::thread::current().name().unwrap_or("?").to_owned()
}

fn note(what: &str) {
    let mut ledger = OpenOptions::new().create(true).append(true).open(LEDGER).unwrap();
    ledger.write_all(format!("{what} {}\n", test()).as_bytes()).unwrap();
}

impl Swtpm {
    /// One that its manufacturer has put nothing into; `None` skips the test.
    pub fn blank() -> Option<Self> {
        available().then(|| Self::run(tempfile::tempdir().unwrap()))
    }

    /// One with an RSA-2048 and a P-384 endorsement key and a certificate for each; `None` skips the test.
    pub fn manufactured() -> Option<Self> {
        available().then(|| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("state")).unwrap();
            manufacture(folder.path());
            Self::run(folder)
        })
    }

    fn run(folder: TempDir) -> Self {
        let state = folder.path().join("state");
        std::fs::create_dir_all(&state).unwrap();
        let socket = folder.path().join("tpm");
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", state.display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}.ctrl", socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let tpm = Self { process, folder };
        drop(tpm.connect());
        tpm
    }

    /// A connection, as soon as it is there to be had.
    fn connect(&self) -> UnixStream {
        let until = SystemClock.now().plus(DEADLINE);
        loop {
            match UnixStream::connect(self.socket()) {
                Ok(stream) => return stream,
                Err(error) => assert!(SystemClock.now() < until, "swtpm is not there: {error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("tpm")
    }

    pub fn address(&self) -> TpmAddress {
        TpmAddress::Unix(self.socket())
    }

    /// As the device uses it.
    pub fn tpm(&self) -> Tpm {
        self.tpm_with(|_| ())
    }

    pub fn tpm_with(&self, change: impl FnOnce(&mut TpmSettings)) -> Tpm {
        let mut settings = TpmSettings::at(self.address());
        settings.answer_within = DEADLINE;
        change(&mut settings);
        Tpm::new(settings)
    }

    /// The certificate of the authority that certified the endorsement keys.
    pub fn authority(&self) -> Vec<u8> {
        let pem = std::fs::read(self.folder.path().join("ca").join("issuercert.pem")).unwrap();
        x509_parser::pem::parse_x509_pem(&pem).unwrap().1.contents
    }

    /// What somebody else on the device does with the TPM: one command by empty passwords. The answer, or the code of the
    /// refusal.
    pub fn execute<C: TpmFrame, R: TpmUnmarshalBody>(&self, command: &C, passwords: usize) -> Result<R, u32> {
        let password = TpmsAuthCommand { session_handle: (TpmRh::Pw as u32).into(), ..TpmsAuthCommand::default() };
        let (tag, passwords) = match passwords {
            0 => (TpmSt::NoSessions, vec![]),
            count => (TpmSt::Sessions, vec![password; count]),
        };
        let mut buffer = [0; 4096];
        let mut writer = TpmWriter::new(&mut buffer);
        tpm_marshal_command(command, tag, &passwords, &mut writer).unwrap();
        let mut stream = self.connect();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(writer.as_bytes()).unwrap();
        let mut answer = vec![0; 10];
        stream.read_exact(&mut answer).unwrap();
        let length = u32::from_be_bytes(answer[2..6].try_into().unwrap()) as usize;
        answer.resize(length, 0);
        stream.read_exact(&mut answer[10..]).unwrap();
        match u32::from_be_bytes(answer[6..10].try_into().unwrap()) {
            0 => Ok(TpmResponse::cast(&answer).unwrap().unmarshal().unwrap()),
            code => Err(code),
        }
    }
}

/// Puts endorsement keys and their certificates into a new TPM's state.
fn manufacture(folder: &Path) {
    let (state, ca) = (folder.join("state"), folder.join("ca"));
    std::fs::create_dir_all(&ca).unwrap();
    let file = |name: &str, lines: &[String]| {
        let path = folder.join(name);
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        path.display().to_string()
    };
    let place = |name: &str| ca.join(name).display().to_string();
    let options = ["--platform-manufacturer rehome", "--platform-version 1", "--platform-model test"];
    let options = file("localca.options", &options.map(str::to_owned));
    let authority = file(
        "localca.conf",
        &[
            format!("statedir = {}", ca.display()),
            format!("signingkey = {}", place("signkey.pem")),
            format!("issuercert = {}", place("issuercert.pem")),
            format!("certserial = {}", place("certserial")),
        ],
    );
    let setup = file(
        "setup.conf",
        &[
            "create_certs_tool = swtpm_localca".to_owned(),
            format!("create_certs_tool_config = {authority}"),
            format!("create_certs_tool_options = {options}"),
            "active_pcr_banks = sha256".to_owned(),
        ],
    );
    let made = Command::new("swtpm_setup")
        .args(["--tpm2", "--create-ek-cert", "--overwrite", "--vmid", "device", "--config", &setup, "--tpmstate"])
        .arg(&state)
        .arg("--logfile")
        .arg(folder.join("setup.log"))
        .output()
        .unwrap();
    let log = std::fs::read_to_string(folder.join("setup.log")).unwrap_or_default();
    assert!(made.status.success(), "{}\n{log}", String::from_utf8_lossy(&made.stderr));
}
