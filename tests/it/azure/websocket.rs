//! MQTT over WebSocket, on the port of HTTPS.

use std::net::SocketAddr;
use std::time::Duration;

use mqtt_proto::v3::ConnectReturnCode;
use rehome::ambient::{Clock as _, SystemClock};
use rehome::attestation::sas;
use rehome::domain::EnrollmentId;
use rehome::domain::token::UnsignedToken;
use rehome::pki::Issued;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::devices::{ANSWERS, REGISTER, SCOPE, world};
use super::wire::{Mqtt, connect, websocket};
use crate::world::{World, keyed, registration_id, token_key};

const PATH: &str = "/$iothub/websocket";

async fn open(
    world: &World,
    issued: Option<&Issued>,
    client_id: &str,
    name: &str,
    password: Option<&str>,
) -> Result<Mqtt, ConnectReturnCode> {
    let stream = connect(&world.site, world.https_address(), issued).await;
    let carried = websocket(stream, PATH, "mqtt").await.unwrap();
    Mqtt::open(carried, client_id, name, password).await
}

fn token(resource: &str) -> String {
    let ends_at = SystemClock.now().plus(Duration::from_secs(60));
    sas::sign(&UnsignedToken::new(resource, ends_at), &token_key(1), None)
}

#[tokio::test]
async fn devices_register_and_use_their_twin_over_websocket() {
    let world = world().await;
    let issued = world.site.issue("meter-1");
    world.enroll(&keyed(EnrollmentId::Individual(registration_id("dev-1")), 1, 2)).await;
    for (issued, id, password) in
        [(Some(&issued), "meter-1", None), (None, "dev-1", Some(token(&format!("{SCOPE}/registrations/dev-1"))))]
    {
        let name = format!("{SCOPE}/registrations/{id}/api-version=2019-03-31");
        let mut device = open(&world, issued, id, &name, password.as_deref()).await.unwrap();
        device.subscribe(&[ANSWERS]).await;
        let (topic, mut body) = device.ask(REGISTER, "").await.unwrap();
        assert!(topic.starts_with("$dps/registrations/res/20"), "{topic}");
        while body["status"] == "assigning" {
            let operation = body["operationId"].as_str().unwrap();
            let poll = format!("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=r2&operationId={operation}");
            body = device.ask(&poll, " ").await.unwrap().1;
        }
        assert_eq!(body["registrationState"]["assignedHub"], "hub-a.localhost", "{id}");
    }
    let name = "hub-a.localhost/dev-1/?api-version=2021-04-12";
    let password = token("hub-a.localhost/devices/dev-1");
    let mut device = open(&world, None, "dev-1", name, Some(&password)).await.unwrap();
    device.subscribe(&["$iothub/twin/res/#"]).await;
    // A document that comes in several messages and goes out in one.
    let large = json!({ "a": "x".repeat(4000), "b": "y".repeat(4000), "c": "z".repeat(4000) }).to_string();
    let report = "$iothub/twin/PATCH/properties/reported/?$rid=1";
    assert_eq!(device.ask(report, &large).await.unwrap().0, "$iothub/twin/res/204/?$rid=1&$version=2");
    let (_, twin) = device.ask("$iothub/twin/GET/?$rid=2", "").await.unwrap();
    assert_eq!(twin["reported"]["b"], "y".repeat(4000));
    world.send("dev-1", Some("hub-b"), "closer").await;
    world.settled("dev-1").await;
    assert_eq!(device.ask("$iothub/twin/GET/?$rid=3", "").await, None, "it is hung up on");
    let refused = open(&world, None, "dev-1", name, Some(&password)).await.err();
    assert_eq!(refused, Some(ConnectReturnCode::NotAuthorized));
    world.stop().await;
}

#[tokio::test]
async fn what_is_no_mqtt_over_websocket_is_refused() {
    let world = world().await;
    for (path, protocol, status) in
        [(PATH, "AMQPWSB10", 400), (PATH, "x", 400), ("/$iothub/other", "mqtt", 404), ("/", "mqtt", 404)]
    {
        let stream = connect(&world.site, world.https_address(), None).await;
        assert_eq!(websocket(stream, path, protocol).await.err(), Some(status), "{path} {protocol}");
    }
    for (path, protocol) in [("/%24iothub/websocket", "mqtt"), (PATH, "MQTT"), ("/$iothub/websocket?x=1", "mqtt")] {
        let stream = connect(&world.site, world.https_address(), None).await;
        assert!(websocket(stream, path, protocol).await.is_ok(), "{path} {protocol}");
    }
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x10, 0xff, 0xff, 0xff, 0x7f], &[0xc0, 0], &[0xff; 64]] {
        let stream = connect(&world.site, world.https_address(), None).await;
        let mut carried = websocket(stream, PATH, "mqtt").await.unwrap();
        carried.write_all(bytes).await.unwrap();
        assert!(Mqtt::over(carried).next().await.is_none(), "{bytes:02x?}");
    }
    let refused = open(&world, None, "meter-1", "nobody", None).await.err();
    assert_eq!(refused, Some(ConnectReturnCode::BadUserNameOrPassword));
    world.stop().await;
}

/// A WebSocket is a connection like others: it takes a place for as long as it lasts, and is hung up on when nothing comes.
#[tokio::test]
async fn a_websocket_takes_a_place_and_gives_it_back() {
    let world = World::start_with(|config| {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        (config.azure.https_listen, config.azure.mqtt_listen) = (Some(free), Some(free));
        config.limits.connections_max = 8;
        config.limits.handshake_timeout = Duration::from_secs(2);
    })
    .await;
    // Nobody says who he is: each is hung up on, and makes place for the next.
    for _ in 0..3 {
        let mut silent = Vec::new();
        for _ in 0..8 {
            let stream = connect(&world.site, world.https_address(), None).await;
            silent.push(websocket(stream, PATH, "mqtt").await.unwrap());
        }
        for carried in silent {
            assert!(Mqtt::over(carried).next().await.is_none());
        }
    }
    world.stop().await;
}
