//! The edge over real TLS and real gRPC, on a free port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tower::ServiceExt as _;

use super::{Limits, serve};
use crate::api::ConnectionsMax;
use crate::api::authorization::{Access, TABLE};
use crate::api::tls::{Spoken, tls_config};
use crate::domain::Role;
use crate::hubs::entry::EffectKind;
use crate::pki::{Authority, Issued, Purpose};
use crate::service::samples::{World, hub_id, terms};
use crate::wire::RemoteFault;
use crate::wire::admin::v1 as admin;
use crate::wire::admin::v1::hub_service_client::HubServiceClient;
use crate::wire::device::v1 as device;
use crate::wire::device::v1::registration_service_client::RegistrationServiceClient;
use crate::wire::hub::v1 as hub;
use crate::wire::hub::v1::twin_admin_service_client::TwinAdminServiceClient;
use crate::wire::hub::v1::twin_service_client::TwinServiceClient;

/// A server that runs until it is dropped.
struct Served {
    world: World,
    address: SocketAddr,
    trusted: RootCertStore,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Served {
    async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    async fn with(limits: Limits) -> Self {
        let world = World::new().await;
        let authority = Authority::create("server", Purpose::Server, terms(), world.entropy.as_ref()).unwrap();
        let issued = authority.issue_server(&["localhost".to_owned()], terms(), world.entropy.as_ref()).unwrap();
        let mut trusted = RootCertStore::empty();
        trusted.add(authority.certificate().clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = tls_config(issued.chain().to_vec(), issued.key(), Spoken::Http2).unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move { drop(stopped.await) };
        let task = tokio::spawn(serve(listener, tls, world.service.clone(), limits, shutdown));
        Self { world, address, trusted, stop: Some(stop), task }
    }

    fn tls(&self, resolver: Option<Arc<dyn ResolvesClientCert>>) -> TlsConnector {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        // The certificates of these tests are from a time of their own.
        let verifier = Arc::new(AtTestTime::new(&self.trusted, &provider));
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match resolver {
            None => builder.with_no_client_auth(),
            Some(resolver) => builder.with_client_cert_resolver(resolver),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    async fn channel(&self, issued: Option<&Issued>) -> Channel {
        self.connect(issued.map(|issued| presenting(issued.chain().to_vec(), issued))).await.unwrap()
    }

    async fn connect(&self, resolver: Option<Arc<dyn ResolvesClientCert>>) -> Result<Channel, tonic::transport::Error> {
        let (tls, address) = (self.tls(resolver), self.address);
        let connector = tower::service_fn(move |_| {
            let tls = tls.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::try_from("localhost").unwrap();
                tls.connect(name, stream).await.map(TokioIo::new)
            }
        });
        Endpoint::from_static("http://localhost").connect_with_connector(connector).await
    }
}

/// Presents a chain, and signs with the key of `signer`, whoever's that is.
fn presenting(chain: Vec<rustls::pki_types::CertificateDer<'static>>, signer: &Issued) -> Arc<dyn ResolvesClientCert> {
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&signer.key()).unwrap();
    Arc::new(Presenting(Arc::new(CertifiedKey::new(chain, key))))
}

#[derive(Debug)]
struct Presenting(Arc<CertifiedKey>);

impl ResolvesClientCert for Presenting {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Verifies the server as of the tests' own time.
#[derive(Debug)]
struct AtTestTime(Arc<rustls::client::WebPkiServerVerifier>);

impl AtTestTime {
    fn new(trusted: &RootCertStore, provider: &Arc<rustls::crypto::CryptoProvider>) -> Self {
        let trusted = Arc::new(trusted.clone());
        Self(rustls::client::WebPkiServerVerifier::builder_with_provider(trusted, provider.clone()).build().unwrap())
    }
}

impl rustls::client::danger::ServerCertVerifier for AtTestTime {
    fn verify_server_cert(
        &self,
        end_entity: &rustls::pki_types::CertificateDer<'_>,
        intermediates: &[rustls::pki_types::CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        let seconds = u64::try_from(crate::service::samples::NOW.as_secs()).unwrap();
        let now = rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn ask(id: &str) -> device::RegisterRequest {
    device::RegisterRequest { registration_id: id.to_owned(), ..device::RegisterRequest::default() }
}

fn told<T: std::fmt::Debug>(outcome: Result<T, tonic::Status>) -> (Code, String) {
    let remote = RemoteFault::from(&outcome.unwrap_err());
    (remote.code, remote.reason.unwrap_or_default())
}

#[tokio::test]
async fn a_device_registers_and_uses_its_twin() {
    let served = Served::new().await;
    let (own, other) = (served.world.device("dev-1"), served.world.device("dev-2"));
    let channel = served.channel(Some(&own)).await;
    let stream = RegistrationServiceClient::new(channel.clone()).register(ask("dev-1")).await.unwrap().into_inner();
    let updates: Vec<_> = stream.collect().await;
    let last = updates.last().unwrap().as_ref().unwrap().update.clone().unwrap();
    assert_eq!(last.status(), device::RegistrationStatus::Assigned);
    let home = last.hub.unwrap();
    assert_eq!((home.hub_id.as_str(), home.host_name.as_str()), ("a", "a.rehome.local"));

    let twin = || hub::GetTwinRequest { hub_id: "a".to_owned(), device_id: "dev-1".to_owned() };
    let found = TwinServiceClient::new(channel).get_twin(twin()).await.unwrap().into_inner().twin.unwrap();
    assert_eq!(found.desired.unwrap().version, 1);
    let stranger = TwinServiceClient::new(served.channel(Some(&other)).await).get_twin(twin()).await;
    assert_eq!(told(stranger), (Code::Unauthenticated, "CALLER_UNAUTHENTICATED".to_owned()));
}

#[tokio::test]
async fn a_caller_without_proof_can_only_be_refused() {
    let served = Served::new().await;
    let channel = served.channel(None).await;
    let refused = RegistrationServiceClient::new(channel.clone()).register(ask("dev-1")).await.unwrap_err();
    let remote = RemoteFault::from(&refused);
    assert_eq!(remote.reason.as_deref(), Some("REGISTRATION_REFUSED"));
    assert!(remote.metadata.contains_key("tracking_id"));
    let hubs = HubServiceClient::new(channel.clone()).list_hubs(admin::ListHubsRequest {}).await;
    assert_eq!(told(hubs), (Code::Unauthenticated, "CALLER_UNAUTHENTICATED".to_owned()));
    assert!(reflect(channel.clone()).await.is_err());
    let health = HealthClient::new(channel).check(HealthCheckRequest { service: String::new() }).await;
    assert_eq!(health.unwrap().into_inner().status, 1);
}

async fn reflect(channel: Channel) -> Result<usize, tonic::Status> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(tokio_stream::iter([request])).await?.into_inner();
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    match answers.next().await.unwrap()?.message_response.unwrap() {
        MessageResponse::ListServicesResponse(list) => Ok(list.service.len()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn operators_may_what_their_roles_say() {
    let served = Served::new().await;
    let reader = served.channel(Some(&served.world.operator(&["rehome:role:reader"]))).await;
    let hubs = HubServiceClient::new(reader.clone()).list_hubs(admin::ListHubsRequest {}).await.unwrap().into_inner();
    assert_eq!(hubs.hubs.len(), 2);
    let drain = || admin::DrainHubRequest { hub_id: "a".to_owned(), etag: String::new() };
    let refused = HubServiceClient::new(reader.clone()).drain_hub(drain()).await;
    assert_eq!(told(refused), (Code::PermissionDenied, "ROLE_NOT_ALLOWED".to_owned()));
    assert!(reflect(reader).await.unwrap() >= 9);

    let operator = served.channel(Some(&served.world.operator(&["rehome:role:operator"]))).await;
    let drained = HubServiceClient::new(operator).drain_hub(drain()).await.unwrap().into_inner().hub.unwrap();
    assert_eq!(drained.state(), admin::HubState::Draining);

    let backend = served.channel(Some(&served.world.operator(&["rehome:role:backend:a"]))).await;
    let list = |hub: &str| hub::ListTwinsRequest { hub_id: hub.to_owned(), ..hub::ListTwinsRequest::default() };
    let mut twins = TwinAdminServiceClient::new(backend.clone());
    assert!(twins.list_twins(list("a")).await.is_ok());
    assert_eq!(told(twins.list_twins(list("b")).await).1, "ROLE_NOT_ALLOWED");
    let device = served.channel(Some(&served.world.device("dev-1"))).await;
    let refused = HubServiceClient::new(device).list_hubs(admin::ListHubsRequest {}).await;
    assert_eq!(told(refused).1, "CALLER_UNAUTHENTICATED");
}

/// The status of a call with an empty message, as far as it stands in the headers.
async fn status_of(channel: &Channel, path: &str) -> Option<i32> {
    let empty = tonic::body::Body::new(http_body_util::Full::new(bytes::Bytes::from_static(&[0; 5])));
    let request = http::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(empty)
        .unwrap();
    let response = channel.clone().oneshot(request).await.unwrap();
    response.headers().get("grpc-status").map(|code| code.to_str().unwrap().parse().unwrap())
}

#[tokio::test]
async fn every_method_is_open_to_whom_the_table_says_and_to_nobody_else() {
    let served = Served::new().await;
    let kinds: [(Option<Role>, Option<Issued>); 6] = [
        (None, None),
        (None, Some(served.world.device("dev-1"))),
        (Some(Role::Reader), Some(served.world.operator(&["rehome:role:reader"]))),
        (Some(Role::Enroller), Some(served.world.operator(&["rehome:role:enroller"]))),
        (Some(Role::Operator), Some(served.world.operator(&["rehome:role:operator"]))),
        (Some(Role::Backend), Some(served.world.operator(&["rehome:role:backend"]))),
    ];
    for (role, issued) in kinds {
        let channel = served.channel(issued.as_ref()).await;
        for (path, access) in TABLE {
            let may = match access {
                Access::Open | Access::Proof => true,
                Access::Roles(roles) | Access::AtHub(roles) => role.is_some_and(|role| roles.contains(&role)),
            };
            let refusals = [i32::from(Code::PermissionDenied), i32::from(Code::Unauthenticated)];
            let refused = status_of(&channel, path).await.is_some_and(|code| refusals.contains(&code));
            assert_eq!(refused, !may, "{role:?} at {path}");
        }
        let nothing = status_of(&channel, "/rehome.admin.v1.HubService/Nothing").await;
        assert_eq!(nothing, Some(i32::from(Code::Unimplemented)));
    }
}

#[tokio::test]
async fn somebody_else_s_certificate_is_of_no_use_without_its_key() {
    let served = Served::new().await;
    let (victim, thief) = (served.world.device("dev-1"), served.world.device("dev-2"));
    let stolen = presenting(victim.chain().to_vec(), &thief);
    let refused = match served.connect(Some(stolen)).await {
        // Under TLS 1.3 the client learns of the refusal with its first read.
        Ok(channel) => RegistrationServiceClient::new(channel).register(ask("dev-1")).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    let refusals = served.world.service.registrations(&Default::default(), &page()).await.unwrap();
    assert!(refusals.rows.is_empty());
    let audit = served.world.service.audit_entries(&Default::default(), &page()).await.unwrap();
    assert!(audit.rows.iter().all(|row| row.entry.registration.is_none()), "the call came through: {audit:?}");
    let own = presenting(victim.chain().to_vec(), &victim);
    let channel = served.connect(Some(own)).await.unwrap();
    assert!(RegistrationServiceClient::new(channel).register(ask("dev-1")).await.is_ok());
}

fn page() -> crate::service::PageRequest {
    crate::service::PageRequest { size: 100, token: None }
}

#[tokio::test]
async fn what_is_too_large_is_refused_with_a_reason() {
    let served = Served::new().await;
    let channel = served.channel(Some(&served.world.device("dev-1"))).await;
    let request = device::RegisterRequest { api_version: "x".repeat(5 * 1024 * 1024), ..ask("dev-1") };
    let refused = RegistrationServiceClient::new(channel.clone()).register(request).await;
    assert_eq!(told(refused), (Code::InvalidArgument, "MESSAGE_TOO_LARGE".to_owned()));
    assert!(RegistrationServiceClient::new(channel).register(ask("dev-1")).await.is_ok());
}

#[tokio::test]
async fn whoever_does_not_get_ready_to_talk_is_hung_up_on() {
    let limits = Limits {
        handshake_timeout: Duration::from_millis(50),
        connections_max: ConnectionsMax { all: 2, of_one: 2 },
        ..Limits::default()
    };
    let served = Served::with(limits).await;
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    let stream = TcpStream::connect(served.address).await.unwrap();
    let mut handshaken = served.tls(None).connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    // Both places are taken: this one is answered once the silent ones are gone.
    let channel = served.channel(None).await;
    assert!(HealthClient::new(channel).check(HealthCheckRequest { service: String::new() }).await.is_ok());
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(handshaken.read(&mut [0]).await.unwrap_or(0), 0);

    let stream = TcpStream::connect(served.address).await.unwrap();
    let mut old = served.tls(None).connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    old.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert_eq!(old.read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_stops() {
    let mut served = Served::with(Limits { drain_for: Duration::from_millis(50), ..Limits::default() }).await;
    let channel = served.channel(Some(&served.world.device("dev-1"))).await;
    let mut first = RegistrationServiceClient::new(channel).register(ask("dev-1")).await.unwrap().into_inner();
    // To its end: what is held below must be the second device's call.
    while let Some(update) = first.next().await {
        assert!(update.is_ok());
    }
    let hold = served.world.hubs.hub(&hub_id("a")).hold(EffectKind::Create);
    let waiting = served.channel(Some(&served.world.device("dev-2"))).await;
    let mut updates = RegistrationServiceClient::new(waiting).register(ask("dev-2")).await.unwrap().into_inner();
    assert!(updates.next().await.unwrap().is_ok());
    hold.reached().await;
    drop(served.stop.take());
    tokio::time::timeout(Duration::from_secs(10), served.task).await.unwrap().unwrap().unwrap();
    // What was sent before the stop may still be read; then the stream is cut.
    while let Some(Ok(update)) = updates.next().await {
        assert!(format!("{update:?}").contains("Assigning"), "{update:?}");
    }
    let World { service, hubs, .. } = served.world;
    drop(service);
    assert_eq!(Arc::strong_count(&hubs), 1, "a call still holds the service");
    assert!(TcpStream::connect(served.address).await.is_err());
}
