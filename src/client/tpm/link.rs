//! The way to a TPM and back: one frame out, one frame in. Blocks; whoever calls it is on a thread of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use zeroize::Zeroizing;

use super::address::TpmAddress;
use super::fault::ChipFault;
use super::frame::{FRAME_BYTES_MAX, HEADER_BYTES, promised_length};

/// A simulator that is there takes the connection at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An open TPM.
pub struct Link {
    address: TpmAddress,
    answer_within: Duration,
    stream: Stream,
}

enum Stream {
    /// One write is one command, one read is its whole answer. The driver has time limits of its own for every command.
    Device(File),
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Link {
    pub fn open(address: &TpmAddress, answer_within: Duration) -> Result<Self, ChipFault> {
        let stream = Self::connect(address, answer_within).map_err(|error| ChipFault::Open {
            address: address.to_string(),
            why: match error.kind() {
                io::ErrorKind::PermissionDenied => "permission denied; add the user to the group tss".to_owned(),
                io::ErrorKind::NotFound => "there is no such file; does this machine have a TPM 2.0?".to_owned(),
                // The standard library's list, which grows: its text says it well enough.
                _ => error.to_string(),
            },
        })?;
        Ok(Self { address: address.clone(), answer_within, stream })
    }

    fn connect(address: &TpmAddress, answer_within: Duration) -> io::Result<Stream> {
        match address {
            TpmAddress::Device(path) => Ok(Stream::Device(OpenOptions::new().read(true).write(true).open(path)?)),
            TpmAddress::Tcp { host, port } => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
                for place in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&place, CONNECT_TIMEOUT) {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            stream.set_read_timeout(Some(answer_within))?;
                            stream.set_write_timeout(Some(answer_within))?;
                            return Ok(Stream::Tcp(stream));
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            TpmAddress::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(answer_within))?;
                stream.set_write_timeout(Some(answer_within))?;
                Ok(Stream::Unix(stream))
            }
        }
    }

    /// Sends a command and waits for its answer.
    pub fn exchange(&mut self, command: &[u8]) -> Result<Zeroizing<Vec<u8>>, ChipFault> {
        let answer = match &mut self.stream {
            Stream::Device(file) => through_device(file, command),
            Stream::Tcp(stream) => through_socket(stream, command),
            Stream::Unix(stream) => through_socket(stream, command),
        };
        answer.map_err(|fault| match fault {
            Trouble::Frame(fault) => fault,
            Trouble::Io(error) => self.explain(&error),
        })
    }

    fn explain(&self, error: &io::Error) -> ChipFault {
        let address = self.address.to_string();
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ChipFault::Silent { address, within: self.answer_within }
            }
            // The standard library's list, which grows: its text says it well enough.
            _ => ChipFault::Broken { address, why: error.to_string() },
        }
    }
}

enum Trouble {
    Io(io::Error),
    Frame(ChipFault),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Io(error)
    }
}

fn through_device(file: &mut File, command: &[u8]) -> Result<Zeroizing<Vec<u8>>, Trouble> {
    file.write_all(command)?;
    let mut answer = Zeroizing::new(vec![0; FRAME_BYTES_MAX]);
    let length = file.read(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

fn through_socket(stream: &mut (impl Read + Write), command: &[u8]) -> Result<Zeroizing<Vec<u8>>, Trouble> {
    stream.write_all(command)?;
    let mut answer = Zeroizing::new(vec![0; FRAME_BYTES_MAX]);
    let (header, rest) = answer.split_at_mut(HEADER_BYTES);
    stream.read_exact(header)?;
    let length = promised_length(header).map_err(Trouble::Frame)?;
    let rest = rest.get_mut(..length - HEADER_BYTES).unwrap_or_default();
    stream.read_exact(rest)?;
    answer.truncate(length);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    const COMMAND: &[u8] = &[0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0];

    /// Asks a TPM that answers with these bytes, and then hangs up or stays silent.
    fn ask(answer: &'static [u8], hangs_up: bool) -> Result<Vec<u8>, ChipFault> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tpm");
        let listener = UnixListener::bind(&path).unwrap();
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let simulator = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut command = [0; COMMAND.len()];
            stream.read_exact(&mut command).unwrap();
            assert_eq!(command, COMMAND);
            stream.write_all(answer).unwrap();
            if !hangs_up {
                // Returns once the other side has given up.
                let _ = wait.recv();
            }
        });
        // Only a TPM that stays silent is waited for in vain.
        let patience = if hangs_up { Duration::from_secs(60) } else { Duration::from_millis(20) };
        let mut link = Link::open(&TpmAddress::Unix(path), patience).unwrap();
        let outcome = link.exchange(COMMAND).map(|answer| answer.to_vec());
        drop(done);
        simulator.join().unwrap();
        outcome
    }

    #[test]
    fn an_answer_is_as_long_as_it_says() {
        let answer: &[u8] = &[0x80, 1, 0, 0, 0, 12, 0, 0, 0, 0, 7, 8];
        assert_eq!(ask(answer, true), Ok(answer.to_vec()));
        assert!(matches!(ask(&answer[..11], true), Err(ChipFault::Broken { .. })));
        assert!(matches!(ask(&[], true), Err(ChipFault::Broken { .. })));
        assert!(matches!(ask(&[0x80, 1, 0, 1, 0, 0, 0, 0, 0, 0], true), Err(ChipFault::Answer { .. })));
        assert!(matches!(ask(&[0x80, 1, 0, 0, 0, 9, 0, 0, 0, 0], true), Err(ChipFault::Answer { .. })));
    }

    #[test]
    fn a_tpm_that_stays_silent_is_given_up() {
        assert!(matches!(ask(&[0x80, 1], false), Err(ChipFault::Silent { .. })));
    }

    #[test]
    fn a_tpm_that_is_not_there_is_said_to_be_missing() {
        for address in ["/nowhere/tpm0", "unix:/nowhere/tpm", "tcp:127.0.0.1:1"] {
            let address: TpmAddress = address.parse().unwrap();
            let fault = Link::open(&address, Duration::from_secs(1)).err().unwrap();
            assert!(matches!(&fault, ChipFault::Open { .. }) && fault.may_pass(), "{fault}");
        }
    }
}
