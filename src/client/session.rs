//! Connections whose handshakes are in the caller's hands: for a load generator, which must know whether a handshake was
//! a full one, and must not pay for reading the same certificate again at every connection.
//!
//! A connection here does no more than a device would; it tries nothing twice and hides no failure.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::{Resumption, WantsClientCert};
use rustls::{ClientConfig, ConfigBuilder, HandshakeKind, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::device::Device;
use super::fault::ClientFault;
use super::home::Watch;
use super::target::Target;
use super::{RegistrationUpdate, UpdateStatus};
use crate::ambient::{Clock, Entropy};
use crate::domain::{ClientFacts, DeviceId, Document, HubId, RegistrationId};
use crate::wire::convert::field::required;
use crate::wire::convert::json::wire_document;
use crate::wire::convert::registration::RegisterCall;
use crate::wire::device::v1;
use crate::wire::device::v1::registration_service_client::RegistrationServiceClient;
use crate::wire::hub::v1 as twins;
use crate::wire::hub::v1::twin_service_client::TwinServiceClient;

/// As the SDK's: a connection that takes longer is a failure worth counting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Tickets that are kept for a device: a server sends two or so with each connection.
const TICKETS_MAX: usize = 4;

/// How a connection proved who is at its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// Certificates and signatures both ways.
    Full,
    /// By a ticket of an earlier connection.
    Resumed,
}

/// Whether connections may resume the ones before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tickets {
    /// Every handshake is a full one.
    Refused,
    Kept,
}

/// A server that many devices connect to; cheap to clone.
#[derive(Clone)]
pub struct Server {
    endpoint: Endpoint,
    address: SocketAddr,
    name: ServerName<'static>,
    roots: Arc<RootCertStore>,
    /// For what the SDK opens itself.
    target: Arc<Target>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.address)
    }
}

fn credentials(why: impl ToString) -> ClientFault {
    ClientFault::Credentials { why: why.to_string() }
}

impl Server {
    /// A server at `https://host:port`, looked up once, believed when its certificate comes from one of the roots (PEM).
    pub async fn find(url: &str, roots_pem: &[u8]) -> Result<Self, ClientFault> {
        let fault = || ClientFault::Address { given: url.to_owned() };
        let uri: http::Uri = url.parse().map_err(|_| fault())?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(fault)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(443);
        let unreachable = |why: String| ClientFault::Connect { to: url.to_owned(), why };
        let found = tokio::net::lookup_host((host, port)).await.map_err(|error| unreachable(error.to_string()))?;
        let address = { found }.next().ok_or_else(|| unreachable("the name has no address".to_owned()))?;
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots_pem) {
            roots.add(root.map_err(credentials)?).map_err(credentials)?;
        }
        // TLS is spoken by the connector below: what tonic sees is the plain stream inside.
        let endpoint = Endpoint::from_shared(format!("http://{host}:{port}")).map_err(|_| fault())?;
        Ok(Self {
            endpoint: endpoint.connect_timeout(CONNECT_TIMEOUT).timeout(ANSWER_TIMEOUT),
            address,
            name: ServerName::try_from(host.to_owned()).map_err(|_| fault())?,
            roots: Arc::new(roots),
            target: Arc::new(Target {
                address: url.to_owned(),
                server_name: None,
                roots_pem: roots_pem.to_vec(),
                identity: None,
            }),
        })
    }

    /// Makes a device ready to connect: its certificate (leaf first) and key are read once.
    pub fn caller(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        tickets: Tickets,
    ) -> Result<Caller, ClientFault> {
        let config = self.tls()?.with_client_auth_cert(chain, key).map_err(credentials)?;
        Ok(self.prepared(config, tickets))
    }

    /// A caller without a certificate, as a device is that proves itself by its TPM.
    pub fn anonymous(&self, tickets: Tickets) -> Result<Caller, ClientFault> {
        Ok(self.prepared(self.tls()?.with_no_client_auth(), tickets))
    }

    fn tls(&self) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, ClientFault> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        Ok(config.map_err(credentials)?.with_root_certificates(self.roots.clone()))
    }

    fn prepared(&self, mut config: ClientConfig, tickets: Tickets) -> Caller {
        config.resumption = match tickets {
            Tickets::Refused => Resumption::disabled(),
            Tickets::Kept => Resumption::in_memory_sessions(TICKETS_MAX),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Caller { server: self.clone(), tls: Arc::new(config) }
    }
}

/// A device that is ready to connect. Clones share their tickets.
#[derive(Clone)]
pub struct Caller {
    server: Server,
    tls: Arc<ClientConfig>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Caller({})", self.server.address)
    }
}

impl Caller {
    /// Connects; the handshake is over when this returns.
    pub async fn connect(&self) -> Result<Session, ClientFault> {
        let told = Arc::new(Mutex::new(None));
        let (this, tell) = (self.clone(), told.clone());
        let connector = tower::service_fn(move |_: http::Uri| {
            let (this, tell) = (this.clone(), tell.clone());
            async move {
                let tcp = TcpStream::connect(this.server.address).await?;
                tcp.set_nodelay(true)?;
                let tls = TlsConnector::from(this.tls).connect(this.server.name, tcp).await?;
                let kind = tls.get_ref().1.handshake_kind();
                *tell.lock().unwrap_or_else(PoisonError::into_inner) = kind;
                Ok::<_, io::Error>(TokioIo::new(tls))
            }
        });
        let to = || self.server.address.to_string();
        let channel = self.server.endpoint.connect_with_connector(connector).await.map_err(|error| {
            let why = innermost(&error);
            ClientFault::Connect { to: to(), why }
        })?;
        let handshake = match *told.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(HandshakeKind::Resumed) => Handshake::Resumed,
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => Handshake::Full,
        };
        Ok(Session { channel, handshake, target: self.server.target.clone() })
    }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// One open connection. Clones share it.
#[derive(Debug, Clone)]
pub struct Session {
    channel: Channel,
    handshake: Handshake,
    target: Arc<Target>,
}

impl Session {
    pub fn handshake(&self) -> Handshake {
        self.handshake
    }

    /// The connection itself, for calls that no client makes.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The SDK's device on this connection.
    pub fn device(&self, id: RegistrationId, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Device {
        let (target, service) = (Target::clone(&self.target), RegistrationServiceClient::new(self.channel.clone()));
        Device { id, target, service, clock, entropy, prover: None }
    }

    /// Registers and waits until the operation is over; anything but *assigned* is a fault.
    pub async fn register(&self, id: &RegistrationId, facts: &ClientFacts) -> Result<RegistrationUpdate, ClientFault> {
        let call = RegisterCall { registration_id: id.clone(), facts: facts.clone(), request_id: None, tpm: None };
        let mut service = RegistrationServiceClient::new(self.channel.clone());
        let mut updates = service.register(v1::RegisterRequest::from(&call)).await?.into_inner();
        let mut last = None;
        while let Some(message) = updates.message().await? {
            let update = RegistrationUpdate::try_from(required("update", message.update)?)?;
            let is_final = update.status.is_final();
            last = Some(update);
            if is_final {
                break;
            }
        }
        let update = required("update", last)?;
        match update.status {
            UpdateStatus::Assigned { .. } => Ok(update),
            UpdateStatus::Assigning | UpdateStatus::Failed { .. } | UpdateStatus::Disabled => {
                Err(ClientFault::NotAssigned { status: update.status, retry_after: update.retry_after })
            }
        }
    }

    /// The device's own record, without registering.
    pub async fn look_up(&self, id: &RegistrationId) -> Result<RegistrationUpdate, ClientFault> {
        let request = v1::LookUpRegistrationRequest { registration_id: id.to_string() };
        let mut service = RegistrationServiceClient::new(self.channel.clone());
        let answer = service.look_up_registration(request).await?.into_inner();
        Ok(RegistrationUpdate::try_from(required("update", answer.update)?)?)
    }

    /// Merges into the reported properties at a hub of this server; the version they have then.
    pub async fn report(&self, hub: &HubId, device: &DeviceId, patch: &Document) -> Result<u64, ClientFault> {
        let request = twins::UpdateReportedRequest {
            hub_id: hub.to_string(),
            device_id: device.to_string(),
            patch: Some(wire_document(patch)),
        };
        let mut service = TwinServiceClient::new(self.channel.clone());
        Ok(service.update_reported(request).await?.into_inner().version)
    }

    /// The desired properties at a hub of this server: whole first, then every change.
    pub async fn watch(&self, hub: &HubId, device: &DeviceId) -> Result<Watch, ClientFault> {
        let request = twins::WatchDesiredRequest { hub_id: hub.to_string(), device_id: device.to_string() };
        let mut service = TwinServiceClient::new(self.channel.clone());
        Ok(Watch::over(service.watch_desired(request).await?.into_inner()))
    }
}
