//! Where to connect, whom to trust, and as whom.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use zeroize::Zeroizing;

use super::fault::ClientFault;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Until an answer begins; streams may then last as long as they like.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// A connection that lost its other end is noticed within the sum of the two.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A client certificate with its key, PEM. The key is wiped when it is dropped and never shown.
#[derive(Clone)]
pub struct Identity {
    /// The leaf first, then its issuers.
    certificates_pem: Vec<u8>,
    key_pem: Zeroizing<Vec<u8>>,
}

impl Identity {
    pub fn from_pem(certificates_pem: impl Into<Vec<u8>>, key_pem: impl Into<Vec<u8>>) -> Self {
        Self { certificates_pem: certificates_pem.into(), key_pem: Zeroizing::new(key_pem.into()) }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(…)")
    }
}

/// A server, and how to speak with it.
#[derive(Debug, Clone)]
pub struct Target {
    /// `https://host:port`.
    pub address: String,
    /// The name the server's certificate must bear; absent is the address's host.
    pub server_name: Option<String>,
    /// The authorities a server's certificate may come from, PEM.
    pub roots_pem: Vec<u8>,
    /// Absent: an anonymous caller.
    pub identity: Option<Identity>,
}

impl Target {
    /// The same trust and identity at another address.
    pub(super) fn at(&self, host_and_port: &str, server_name: &str) -> Self {
        let server_name = (!server_name.is_empty()).then(|| server_name.to_owned());
        Self { address: format!("https://{host_and_port}"), server_name, ..self.clone() }
    }

    /// Connects; the channel reconnects by itself afterwards.
    pub(super) async fn connect(&self) -> Result<Channel, ClientFault> {
        let endpoint = self.endpoint()?;
        endpoint.connect().await.map_err(|error| self.explain(&error))
    }

    fn endpoint(&self) -> Result<Endpoint, ClientFault> {
        let address = || ClientFault::Address { given: self.address.clone() };
        let endpoint = Endpoint::from_shared(self.address.clone()).map_err(|_| address())?;
        if endpoint.uri().scheme_str() != Some("https") || endpoint.uri().host().is_none() {
            return Err(address());
        }
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.roots_pem));
        if let Some(name) = &self.server_name {
            tls = tls.domain_name(name);
        }
        if let Some(identity) = &self.identity {
            let pair = tonic::transport::Identity::from_pem(&identity.certificates_pem, identity.key_pem.as_slice());
            tls = tls.identity(pair);
        }
        let endpoint = endpoint.tls_config(tls).map_err(|error| ClientFault::Credentials { why: innermost(&error) })?;
        Ok(endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true))
    }

    fn explain(&self, error: &tonic::transport::Error) -> ClientFault {
        let to = self.address.clone();
        match tls_fault(error) {
            Some(fault) => ClientFault::Tls { to, why: in_words(fault) },
            None => ClientFault::Connect { to, why: innermost(error) },
        }
    }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

/// A TLS fault travels inside an IO error, which does not count it as its source.
fn tls_fault<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    chain(error).find_map(|error| {
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        error.downcast_ref::<rustls::Error>().or_else(|| inside.and_then(|inside| inside.downcast_ref()))
    })
}

fn in_words(fault: &rustls::Error) -> String {
    use rustls::CertificateError as Certificate;
    match fault {
        rustls::Error::InvalidCertificate(Certificate::UnknownIssuer) => {
            "the server's certificate does not come from the trusted roots; give the root it was issued under"
                .to_owned()
        }
        rustls::Error::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => "the server's certificate is for another name; use the name it was issued for as the address".to_owned(),
        rustls::Error::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            "the server's certificate has expired; renew it, or mend this machine's clock".to_owned()
        }
        // The library's own list, which grows: its text says it well enough.
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str) -> Target {
        let identity = Some(Identity::from_pem("certificate", "very secret"));
        Target { address: address.to_owned(), server_name: None, roots_pem: Vec::new(), identity }
    }

    #[test]
    fn addresses_are_https() {
        for address in ["", "localhost:8443", "http://localhost:8443", "https://", "ftp://x", "https:// x"] {
            let refused = target(address).endpoint().map(|_| ());
            assert_eq!(refused, Err(ClientFault::Address { given: address.to_owned() }), "{address:?}");
        }
    }

    #[test]
    fn a_key_is_never_shown() {
        let shown = format!("{:?}", target("https://localhost:8443"));
        assert!(!shown.contains("secret"), "{shown}");
        let refused = target("https://localhost:8443").endpoint().map(|_| ());
        assert!(matches!(&refused, Err(ClientFault::Credentials { why }) if !why.contains("secret")), "{refused:?}");
    }

    #[test]
    fn a_hub_is_reached_at_its_endpoint_under_its_name() {
        let hub = target("https://service:1").at("10.0.0.1:8443", "hub-a.example");
        assert_eq!(
            (hub.address.as_str(), hub.server_name.as_deref()),
            ("https://10.0.0.1:8443", Some("hub-a.example"))
        );
        assert_eq!(target("https://service:1").at("h:1", "").server_name, None);
    }

    #[test]
    fn a_tls_fault_is_found_inside_an_io_error() {
        let fault = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = io::Error::new(io::ErrorKind::InvalidData, fault);
        assert!(tls_fault(&error).is_some_and(|fault| in_words(fault).contains("trusted roots")));
        assert!(tls_fault(&io::Error::from(io::ErrorKind::ConnectionRefused)).is_none());
    }
}
