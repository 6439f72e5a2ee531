//! TLS of the edges: 1.2 and 1.3, one crypto provider, client certificates asked for and never required.
//!
//! The handshake accepts any certificate and proves that the caller has its key; what the certificate is worth is judged
//! at every call, since a resumed session never comes past a verifier again.
//!
//! Sessions are resumed by tickets that the server keeps no memory of: a storm of devices that come back is larger than
//! any cache. A ticket holds the certificates that its owner proved the key of, under a key of this process alone that is
//! changed every few hours; it spares the handshake's signatures and says nothing that is not judged at the next call.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};

/// Why no server can be made of a certificate and its key.
#[derive(Debug, thiserror::Error)]
#[error("the server's certificate or key cannot be used")]
pub struct TlsFault(#[source] rustls::Error);

/// What is spoken over TLS, as ALPN (RFC 7301) names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// gRPC.
    Http2,
    /// Existing SDKs over HTTPS and WebSocket; a client that names nothing is let in.
    Http1,
    /// MQTT has a name, which no existing SDK uses: none is agreed on.
    Mqtt,
}

/// The configuration for a server that presents this chain (leaf first).
pub fn tls_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    spoken: Spoken,
) -> Result<Arc<ServerConfig>, TlsFault> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = AnyCertificate::new(&provider);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsFault)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain, key)
        .map_err(TlsFault)?;
    config.ticketer = Arc::new(Tickets(Ticketer::new().map_err(TlsFault)?));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // Each resumed connection brings the next one's.
    config.send_tls13_tickets = 1;
    config.alpn_protocols = match spoken {
        Spoken::Http2 => vec![b"h2".to_vec()],
        Spoken::Http1 => vec![b"http/1.1".to_vec()],
        Spoken::Mqtt => Vec::new(),
    };
    Ok(Arc::new(config))
}

/// What a ticket may hold: a chain of the longest kind that is accepted, of ordinary certificates. Whoever presents more
/// comes back with a full handshake.
const TICKET_BYTES_MAX: usize = 16 * 1024;

/// Tickets of a bounded size.
#[derive(Debug)]
struct Tickets(Arc<dyn ProducesTickets>);

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if plain.len() > TICKET_BYTES_MAX { None } else { self.0.encrypt(plain) }
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(cipher)
    }
}

/// Accepts every certificate whose key the caller proves to have.
#[derive(Debug)]
struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyCertificate {
    fn new(provider: &CryptoProvider) -> Self {
        Self { algorithms: provider.signature_verification_algorithms }
    }
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Naming authorities here would tell strangers who is enrolled.
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_has_a_bound() {
        let tickets = Tickets(Ticketer::new().unwrap());
        for (length, expected) in [(0, true), (TICKET_BYTES_MAX, true), (TICKET_BYTES_MAX + 1, false)] {
            let plain = vec![7; length];
            let ticket = tickets.encrypt(&plain);
            assert_eq!(ticket.is_some(), expected, "{length}");
            if let Some(ticket) = ticket {
                assert_eq!(tickets.decrypt(&ticket), Some(plain));
                let other = Tickets(Ticketer::new().unwrap());
                assert_eq!(other.decrypt(&ticket), None, "a ticket of another process");
            }
        }
    }
}
