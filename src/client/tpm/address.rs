//! Where a TPM is reached: a device file, or a socket that speaks raw TPM frames.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A TPM's address. As text: `/dev/tpmrm0`, `tcp:HOST:PORT` or `unix:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TpmAddress {
    /// A character device. `/dev/tpmrm0` is the one to use: the kernel keeps what other programs load apart from ours.
    Device(PathBuf),
    /// A simulator's data port.
    Tcp { host: String, port: u16 },
    /// A simulator's data socket.
    Unix(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not where a TPM can be: write /dev/tpmrm0, tcp:HOST:PORT or unix:PATH")]
pub struct TpmAddressFault {
    given: String,
}

impl FromStr for TpmAddress {
    type Err = TpmAddressFault;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = || TpmAddressFault { given: text.to_owned() };
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(fault()) } else { Ok(Self::Unix(path.into())) };
        }
        if let Some(place) = text.strip_prefix("tcp:") {
            let (host, port) = place.rsplit_once(':').ok_or_else(fault)?;
            // As in a URL, an IPv6 address stands in brackets.
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            return match port.parse() {
                Ok(port) if port > 0 && !host.is_empty() => Ok(Self::Tcp { host: host.to_owned(), port }),
                Ok(_) | Err(_) => Err(fault()),
            };
        }
        if text.starts_with('/') && text.len() > 1 { Ok(Self::Device(text.into())) } else { Err(fault()) }
    }
}

impl fmt::Display for TpmAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TpmAddress::Device(path) => write!(f, "{}", path.display()),
            TpmAddress::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            TpmAddress::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
            TpmAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<TpmAddress>) {
        assert_eq!(text.parse::<TpmAddress>().ok(), expected, "{text:?}");
        if let Some(address) = expected {
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn addresses_are_device_files_and_sockets() {
        let tcp = |host: &str, port| Some(TpmAddress::Tcp { host: host.to_owned(), port });
        check("/dev/tpmrm0", Some(TpmAddress::Device("/dev/tpmrm0".into())));
        check("tcp:127.0.0.1:2321", tcp("127.0.0.1", 2321));
        check("tcp:localhost:1", tcp("localhost", 1));
        check("tcp:[::1]:2321", tcp("::1", 2321));
        check("unix:/run/tpm.sock", Some(TpmAddress::Unix("/run/tpm.sock".into())));
        check("unix:relative", Some(TpmAddress::Unix("relative".into())));
        for text in ["", "/", "tpm0", "dev/tpm0", "tcp:", "tcp:host", "tcp::1", "tcp:host:0", "tcp:host:65536", "unix:"]
        {
            check(text, None);
        }
        for text in ["tcp:host:x", "tcp:[]:1", "TCP:host:1", "http://x:1", "swtpm:host=x,port=1"] {
            check(text, None);
        }
    }
}
