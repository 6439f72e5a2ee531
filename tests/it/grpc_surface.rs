//! The doors of the service: which of them are open to whom, over real gRPC.

use prost::Message as _;
use rehome::client::RemoteFault;
use rehome::domain::{Kind, Reason};
use rehome::wire::FILE_DESCRIPTOR_SET;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::{v1, v1alpha};

use crate::world::{World, issue};

const REFLECTION: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Every method of the API, as a path.
fn methods() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                methods.push(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    methods
}

/// Calls a method with an empty message. Of a stream only the first answer is waited for.
async fn call(channel: &Channel, path: &str) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path: PathAndQuery = path.parse().unwrap();
    let answer = grpc.server_streaming(Request::new(()), path, ProstCodec::<(), ()>::default()).await?;
    answer.into_inner().message().await.map(drop)
}

async fn check(channel: &Channel, path: &str, expected: &[Reason]) {
    let status = call(channel, path).await.expect_err(path);
    let fault = RemoteFault::from(&status);
    assert!(fault.known_reason().is_some_and(|reason| expected.contains(&reason)), "{path}: {status:?}");
}

#[tokio::test]
async fn strangers_may_do_nothing_but_try_to_register() {
    let world = World::start().await;
    let before = (world.records().await, world.operator.list_hubs().await.unwrap());
    let anonymous = world.site.channel(None).await;
    // A certificate of nobody that the service knows.
    let elsewhere = World::start().await;
    let stranger = issue(&elsewhere.site.device_ca(), "dev-1");
    let foreign_operator = std::fs::read(&elsewhere.site.paths.operator.certificate).unwrap();
    let foreign_key = std::fs::read(&elsewhere.site.paths.operator.key).unwrap();
    let pem = (stranger.certificate_pem().into_bytes(), stranger.key_pem().as_bytes().to_vec());
    let device = world.site.channel(Some((&pem.0, &pem.1))).await;
    let operator = world.site.channel(Some((&foreign_operator, &foreign_key))).await;
    let methods = methods();
    assert!(methods.len() > 40, "{methods:?}");

    for channel in [&anonymous, &device, &operator] {
        for path in &methods {
            let expected: &[Reason] = if path.starts_with("/rehome.device.v1.") {
                // An empty registration id is no id at all, which a stranger may be told.
                &[Reason::RegistrationRefused, Reason::InvalidArgument]
            } else if path.starts_with("/rehome.hub.v1.TwinService/") {
                &[Reason::CallerUnauthenticated, Reason::InvalidArgument]
            } else {
                &[Reason::CallerUnauthenticated]
            };
            check(channel, path, expected).await;
        }
        for path in REFLECTION {
            check(channel, path, &[Reason::CallerUnauthenticated]).await;
        }
        let status = call(channel, "/rehome.admin.v1.HubService/Nothing").await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
    }

    assert_eq!((world.records().await, world.operator.list_hubs().await.unwrap()), before);
    elsewhere.stop().await;
    world.stop().await;
}

#[tokio::test]
async fn every_operator_method_is_closed_to_a_device() {
    let world = World::start().await;
    world.enroll(&world.site.group()).await;
    let member = world.registered("dev-1").await;
    let (certificate, key) = (member.issued.certificate_pem(), member.issued.key_pem());
    let channel = world.site.channel(Some((certificate.as_bytes(), key.as_bytes()))).await;
    for path in methods().iter().filter(|path| path.starts_with("/rehome.admin.") || path.contains("TwinAdmin")) {
        check(&channel, path, &[Reason::CallerUnauthenticated]).await;
    }
    world.stop().await;
}

#[tokio::test]
async fn readers_change_nothing() {
    let world = World::start().await;
    let reader = world.site.channel_as(&world.site.paths.reader).await;
    let reads = ["/Get", "/List", "/Explain"];
    let mut refused = 0;
    for path in methods().iter().filter(|path| path.starts_with("/rehome.admin.") || path.contains("TwinAdmin")) {
        let outcome = call(&reader, path).await;
        let reason = outcome.err().and_then(|status| RemoteFault::from(&status).known_reason());
        // Whoever reads keys can be the device.
        if reads.iter().any(|read| path.contains(read)) && !path.ends_with("Keys") {
            assert_ne!(reason.map(Reason::kind), Some(Kind::Denied), "{path}");
        } else {
            assert_eq!(reason, Some(Reason::RoleNotAllowed), "{path}");
            refused += 1;
        }
    }
    assert!(refused > 15, "{refused}");
    world.stop().await;
}

#[tokio::test]
async fn health_is_open_to_everybody() {
    let world = World::start().await;
    let mut health = HealthClient::new(world.site.channel(None).await);
    let service = String::new();
    let HealthCheckResponse { status } = health.check(HealthCheckRequest { service }).await.unwrap().into_inner();
    assert_eq!(ServingStatus::try_from(status), Ok(ServingStatus::Serving));
    world.stop().await;
}

#[tokio::test]
async fn operators_find_every_service_by_either_version_of_reflection() {
    let world = World::start().await;
    let mut expected: Vec<String> = methods().iter().map(|path| path.split('/').nth(1).unwrap().to_owned()).collect();
    expected.dedup();
    for pair in [&world.site.paths.operator, &world.site.paths.reader, &world.site.paths.backend] {
        let channel = world.site.channel_as(pair).await;

        let ask = v1::server_reflection_request::MessageRequest::ListServices(String::new());
        let request = v1::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
        let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
        let asked = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
        let answer = asked.into_inner().message().await.unwrap().unwrap();
        let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) = answer.message_response
        else {
            panic!("{answer:?}")
        };
        let found: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
        assert!(expected.iter().all(|service| found.contains(service)), "{found:?}");

        let ask = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
        let request = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
        let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
        let asked = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
        let answer = asked.into_inner().message().await.unwrap().unwrap();
        let Some(v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
            answer.message_response
        else {
            panic!("{answer:?}")
        };
        let found: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
        assert!(expected.iter().all(|service| found.contains(service)), "{found:?}");
    }
    world.stop().await;
}
