//! The device SDK over real TLS against scripted services: a device follows itself from hub to hub.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use rehome::ambient::{Clock as _, SeededEntropy, SystemClock};
use rehome::client::{AssignedHub, ClientFault, DesiredChange, Device, DeviceEvent, Follow, Identity, Target};
use rehome::client::{RegistrationUpdate, UpdateStatus};
use rehome::domain::{
    ClientFacts, DeviceId, Document, Fault, HubId, OperationId, Reason, RegistrationId, SubStatus, Timestamp,
};
use rehome::pki::{Authority, Purpose, Terms};
use rehome::wire::device::v1 as device;
use rehome::wire::device::v1::registration_service_server::{RegistrationService, RegistrationServiceServer};
use rehome::wire::hub::v1 as hub;
use rehome::wire::hub::v1::twin_service_server::{TwinService, TwinServiceServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, ServerTlsConfig};
use tonic::{Request, Response, Status};

fn document(text: &str) -> Document {
    Document::from_text(text).unwrap()
}

/// Assigns the device to the next hub of the list at every registration.
struct Assigning(Mutex<VecDeque<AssignedHub>>);

#[tonic::async_trait]
impl RegistrationService for Assigning {
    type RegisterStream = BoxStream<'static, Result<device::RegisterResponse, Status>>;

    async fn register(
        &self,
        request: Request<device::RegisterRequest>,
    ) -> Result<Response<Self::RegisterStream>, Status> {
        let leaf = request.peer_certs().is_some_and(|chain| !chain.is_empty());
        let hub = self.0.lock().unwrap().pop_front().filter(|_| leaf);
        let hub = hub.ok_or_else(|| Status::from(Fault::new(Reason::RegistrationRefused, "no more hubs")))?;
        let update = RegistrationUpdate {
            registration_id: RegistrationId::parse("dev-1").unwrap(),
            operation_id: OperationId(1),
            status: UpdateStatus::Assigned { sub_status: SubStatus::InitialAssignment, data_source: None },
            device_id: DeviceId::parse("dev-1").unwrap(),
            hub: Some(hub),
            generation: 1,
            payload: None,
            retry_after: None,
            tpm: None,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
        };
        let answer = device::RegisterResponse { update: Some((&update).into()) };
        Ok(Response::new(futures_util::stream::iter([Ok(answer)]).boxed()))
    }

    async fn begin_tpm_attestation(
        &self,
        _request: Request<device::BeginTpmAttestationRequest>,
    ) -> Result<Response<device::BeginTpmAttestationResponse>, Status> {
        Err(Status::failed_precondition("the script has no TPM"))
    }

    async fn start_registration(
        &self,
        _: Request<device::StartRegistrationRequest>,
    ) -> Result<Response<device::StartRegistrationResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn get_operation(
        &self,
        _: Request<device::GetOperationRequest>,
    ) -> Result<Response<device::GetOperationResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn look_up_registration(
        &self,
        _: Request<device::LookUpRegistrationRequest>,
    ) -> Result<Response<device::LookUpRegistrationResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }
}

/// A hub that tells every watcher the same, and takes reports or refuses them.
#[derive(Clone)]
struct Hub {
    tells: Vec<DesiredChange>,
    report: Result<u64, Reason>,
}

#[tonic::async_trait]
impl TwinService for Hub {
    type WatchDesiredStream = BoxStream<'static, Result<hub::WatchDesiredResponse, Status>>;

    async fn get_twin(&self, _: Request<hub::GetTwinRequest>) -> Result<Response<hub::GetTwinResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn update_reported(
        &self,
        _: Request<hub::UpdateReportedRequest>,
    ) -> Result<Response<hub::UpdateReportedResponse>, Status> {
        match self.report {
            Ok(version) => Ok(Response::new(hub::UpdateReportedResponse { version })),
            Err(reason) => Err(Fault::new(reason, "as scripted").into()),
        }
    }

    async fn watch_desired(
        &self,
        _: Request<hub::WatchDesiredRequest>,
    ) -> Result<Response<Self::WatchDesiredStream>, Status> {
        let tells: Vec<_> = self.tells.iter().map(|change| Ok(hub::WatchDesiredResponse::from(change))).collect();
        Ok(Response::new(futures_util::stream::iter(tells).chain(futures_util::stream::pending()).boxed()))
    }
}

struct World {
    server: Authority,
    devices: Authority,
    entropy: SeededEntropy,
    terms: Terms,
}

impl World {
    fn new() -> Self {
        let entropy = SeededEntropy::new(1);
        let terms = Terms::starting(SystemClock.now(), Duration::from_secs(3600));
        let server = Authority::create("servers", Purpose::Server, terms, &entropy).unwrap();
        let devices = Authority::create("devices", Purpose::Device, terms, &entropy).unwrap();
        Self { server, devices, entropy, terms }
    }

    fn tls(&self, name: &str) -> ServerTlsConfig {
        let issued = self.server.issue_server(&[name.to_owned()], self.terms, &self.entropy).unwrap();
        let identity = tonic::transport::Identity::from_pem(issued.certificate_pem(), issued.key_pem());
        ServerTlsConfig::new().identity(identity).client_ca_root(Certificate::from_pem(self.devices.certificate_pem()))
    }

    /// Serves a hub under a name that only its certificate knows.
    async fn hub(&self, id: &str, tells: Vec<DesiredChange>, report: Result<u64, Reason>) -> AssignedHub {
        let host_name = format!("{id}.test");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let server = tonic::transport::Server::builder().tls_config(self.tls(&host_name)).unwrap();
        tokio::spawn(async move {
            let hub = TwinServiceServer::new(Hub { tells, report });
            server.serve_with_incoming(hub, TcpListenerStream::new(listener)).await
        });
        AssignedHub { id: HubId::parse(id).unwrap(), host_name, endpoint, assigned_at: Timestamp(0) }
    }

    async fn service(&self, hubs: Vec<AssignedHub>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder().tls_config(self.tls("localhost")).unwrap();
        tokio::spawn(async move {
            let service = RegistrationServiceServer::new(Assigning(Mutex::new(hubs.into())));
            server.serve_with_incoming(service, TcpListenerStream::new(listener)).await
        });
        address
    }

    fn target(&self, address: SocketAddr) -> Target {
        let id = RegistrationId::parse("dev-1").unwrap();
        let issued = self.devices.issue_device(&id, self.terms, &self.entropy).unwrap();
        Target {
            address: format!("https://{address}"),
            server_name: Some("localhost".to_owned()),
            roots_pem: self.server.certificate_pem().into_bytes(),
            identity: Some(Identity::from_pem(issued.certificate_pem(), issued.key_pem())),
        }
    }
}

async fn connect(target: Target) -> Result<Device, ClientFault> {
    let id = RegistrationId::parse("dev-1").unwrap();
    Device::connect(id, target, Arc::new(SystemClock), Arc::new(SeededEntropy::new(2))).await
}

async fn next(follow: &mut Follow) -> DeviceEvent {
    tokio::time::timeout(Duration::from_secs(20), follow.next()).await.expect("an event in time").unwrap()
}

fn home_of(event: &DeviceEvent) -> Option<&str> {
    match event {
        DeviceEvent::Home(update) => update.hub.as_ref().map(|hub| hub.id.as_str()),
        DeviceEvent::Desired(_) | DeviceEvent::Away { .. } => None,
    }
}

#[tokio::test]
async fn a_device_that_is_told_moved_is_found_at_its_next_hub() {
    let world = World::new();
    let whole = |version| DesiredChange::Whole { desired: document(r#"{"rate":5}"#), version };
    let patch = DesiredChange::Patch { patch: document(r#"{"rate":6}"#), version: 2 };
    let hub_a = world.hub("hub-a", vec![whole(1), patch.clone(), DesiredChange::Moved], Ok(1)).await;
    let hub_b = world.hub("hub-b", vec![whole(3)], Ok(1)).await;
    let service = world.service(vec![hub_a, hub_b]).await;
    let mut follow = connect(world.target(service)).await.unwrap().follow(ClientFacts::default());

    assert_eq!(home_of(&next(&mut follow).await), Some("hub-a"));
    assert_eq!(next(&mut follow).await, DeviceEvent::Desired(whole(1)));
    assert_eq!(next(&mut follow).await, DeviceEvent::Desired(patch));
    assert!(matches!(next(&mut follow).await, DeviceEvent::Away { .. }));
    assert!(follow.home().is_none());
    assert_eq!(home_of(&next(&mut follow).await), Some("hub-b"));
    assert_eq!(next(&mut follow).await, DeviceEvent::Desired(whole(3)));
    assert_eq!(follow.home().map(|home| home.hub().as_str()), Some("hub-b"));
}

#[tokio::test]
async fn a_report_that_a_sealed_hub_refuses_arrives_at_the_next_one() {
    let world = World::new();
    for reason in [Reason::DeviceMoving, Reason::DeviceMoved] {
        let hub_a = world.hub("hub-a", vec![], Err(reason)).await;
        let hub_b = world.hub("hub-b", vec![], Ok(5)).await;
        let service = world.service(vec![hub_a, hub_b]).await;
        let mut follow = connect(world.target(service)).await.unwrap().follow(ClientFacts::default());
        assert_eq!(follow.report(&document(r#"{"on":true}"#)).await, Ok(5), "{reason}");
    }
}

#[tokio::test]
async fn a_report_that_no_hub_would_take_is_told_and_the_device_stays() {
    let world = World::new();
    let hub_a = world.hub("hub-a", vec![], Err(Reason::TwinInvalid)).await;
    let service = world.service(vec![hub_a]).await;
    let mut follow = connect(world.target(service)).await.unwrap().follow(ClientFacts::default());
    let fault = follow.report(&document("{}")).await.unwrap_err();
    assert_eq!(fault.remote().and_then(|remote| remote.known_reason()), Some(Reason::TwinInvalid));
    assert!(follow.home().is_some());
}

#[tokio::test]
async fn what_is_wrong_with_a_connection_is_said() {
    let world = World::new();
    let service = world.service(vec![]).await;
    let stranger = Target { roots_pem: World::new().devices.certificate_pem().into_bytes(), ..world.target(service) };
    let fault = connect(stranger).await.unwrap_err();
    assert!(matches!(&fault, ClientFault::Tls { why, .. } if why.contains("trusted roots")), "{fault}");

    let misnamed = Target { server_name: Some("elsewhere.test".to_owned()), ..world.target(service) };
    let fault = connect(misnamed).await.unwrap_err();
    assert!(matches!(&fault, ClientFault::Tls { why, .. } if why.contains("another name")), "{fault}");

    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = free.local_addr().unwrap();
    drop(free);
    let fault = connect(world.target(closed)).await.unwrap_err();
    assert!(matches!(&fault, ClientFault::Connect { .. }), "{fault}");
}
