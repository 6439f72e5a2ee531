//! Whom the webhook client trusts: the system's authorities and those of one extra file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::ambient::Clock;

use super::Config;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustFault {
    #[error("the authorities in {path} cannot be read: {reason}")]
    File { path: PathBuf, reason: String },
    #[error("{path} holds no certificate")]
    Empty { path: PathBuf },
    #[error("the TLS settings are refused: {0}")]
    Tls(#[from] rustls::Error),
}

/// The client side of TLS. Validity of certificates is judged by the service's own clock.
pub fn client_config(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<ClientConfig>, TrustFault> {
    let mut roots = RootCertStore::empty();
    // A system whose store is broken or empty trusts nobody, which every call then says; it is no reason not to start.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &config.extra_ca_file {
        let fault = |reason: String| TrustFault::File { path: path.clone(), reason };
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| fault(error.to_string()))?;
        if certificates.is_empty() {
            return Err(TrustFault::Empty { path: path.clone() });
        }
        for certificate in certificates {
            roots.add(certificate).map_err(|error| fault(error.to_string()))?;
        }
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_details(provider, Arc::new(ClockTime(clock)))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(tls))
}

/// Our clock as rustls asks for it.
#[derive(Debug)]
struct ClockTime(Arc<dyn Clock>);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_secs()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}
