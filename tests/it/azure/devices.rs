//! Devices: registration over HTTPS and MQTT, the twin over MQTT, and what is refused on the way.

use std::net::SocketAddr;

use http::request::Builder;
use mqtt_proto::v3::{Connect, ConnectReturnCode};
use rehome::domain::{EnrollmentId, GroupId};
use rehome::pki::Issued;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::wire::{Answer, Mqtt, connect, send};
use crate::world::{World, document, group};

pub const SCOPE: &str = "0ne00REHOME";
pub const REGISTER: &str = "$dps/registrations/PUT/iotdps-register/?$rid=r1";
pub const ANSWERS: &str = "$dps/registrations/res/#";
const CHANGES: &str = "$iothub/twin/PATCH/properties/desired/#";

fn plant() -> EnrollmentId {
    EnrollmentId::Group(GroupId::parse("plant").unwrap())
}

/// A world whose other edges are served, too, and whose group sends devices to hub-a.
pub async fn world() -> World {
    let world = World::start_with(|config| {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        (config.azure.https_listen, config.azure.mqtt_listen) = (Some(free), Some(free));
    })
    .await;
    world.enroll(&group("plant", &world.site.device_ca())).await;
    world
}

async fn https(world: &World, issued: Option<&Issued>, method: &str, path: &str, body: &str) -> Answer {
    let stream = connect(&world.site, world.https_address(), issued).await;
    send(stream, Builder::new().method(method).uri(path).header("content-type", "application/json"), body).await
}

/// As SDKs do: registers, and polls until it is over.
async fn register(world: &World, issued: &Issued, id: &str, version: &str) -> Value {
    let path = format!("/{SCOPE}/registrations/{id}/register?api-version={version}");
    let mut answer = https(world, Some(issued), "PUT", &path, &json!({ "registrationId": id }).to_string()).await;
    while answer.status == 202 {
        assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok()));
        let operation = answer.body["operationId"].as_str().unwrap();
        let path = format!("/{SCOPE}/registrations/{id}/operations/{operation}?api-version={version}");
        answer = https(world, Some(issued), "GET", &path, "{}").await;
    }
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.body
}

async fn mqtt(world: &World, issued: &Issued, id: &str) -> Mqtt {
    let stream = connect(&world.site, world.mqtt_address(), Some(issued)).await;
    let name = format!("{SCOPE}/registrations/{id}/api-version=2019-03-31&ClientVersion=x");
    Mqtt::open(stream, id, &name, None).await.unwrap()
}

async fn at_hub(world: &World, issued: &Issued, hub: &str, id: &str) -> Result<Mqtt, ConnectReturnCode> {
    let stream = connect(&world.site, world.mqtt_address(), Some(issued)).await;
    Mqtt::open(stream, id, &format!("{hub}.localhost/{id}/?api-version=2021-04-12"), None).await
}

#[tokio::test]
async fn a_device_registers_over_https_and_is_told_in_the_words_of_its_version() {
    let world = world().await;
    let issued = world.site.issue("Meter-1");
    let body = register(&world, &issued, "Meter-1", "2019-03-31").await;
    assert_eq!(body["status"], "assigned");
    let state = &body["registrationState"];
    assert_eq!((&state["registrationId"], &state["deviceId"]), (&json!("Meter-1"), &json!("Meter-1")));
    assert_eq!((&state["assignedHub"], &state["substatus"]), (&json!("hub-a.localhost"), &json!("initialAssignment")));
    assert!(state["createdDateTimeUtc"].as_str().is_some_and(|text| text.len() == 28 && text.ends_with('Z')));
    assert!(state["etag"].is_string() && state.get("errorCode").is_none());

    for (version, word) in [
        ("2018-04-01", Value::Null),
        ("2019-03-31", json!("initialAssignment")),
        ("2021-10-01", json!("reprovisionedToInitialAssignment")),
    ] {
        let body = register(&world, &issued, "meter-1", version).await;
        assert_eq!(body["registrationState"]["substatus"], word, "{version}");
        assert_eq!(body["registrationState"]["deviceId"], "Meter-1", "the first casing stands");
    }
    let path = format!("/{SCOPE}/registrations/Meter-1?api-version=2021-10-01");
    let looked = https(&world, Some(&issued), "POST", &path, r#"{"registrationId":"Meter-1"}"#).await;
    assert_eq!((looked.status, &looked.body["assignedHub"]), (200, &json!("hub-a.localhost")));
    world.stop().await;
}

#[tokio::test]
async fn a_move_carries_the_twin_and_each_edge_sees_what_another_did() {
    let world = world().await;
    let member = world.registered("meter-2").await;
    world.patch("hub-a", "meter-2", r#"{"site":"x"}"#, r#"{"every":5}"#).await;
    world.allot(&plant(), "hub-b").await;

    let mut device = mqtt(&world, &member.issued, "meter-2").await;
    assert_eq!(device.subscribe(&[ANSWERS, "#", "$iothub/twin/res/#"]).await, [true, false, false]);
    let (topic, mut body) = device.ask(REGISTER, r#"{"payload": null, "registrationId": "meter-2"}"#).await.unwrap();
    assert!(topic.starts_with("$dps/registrations/res/20") && topic.contains("/?$rid=r1"), "{topic}");
    while body["status"] == "assigning" {
        let poll = format!(
            "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=r2&operationId={}",
            body["operationId"].as_str().unwrap()
        );
        body = device.ask(&poll, " ").await.unwrap().1;
    }
    let state = &body["registrationState"];
    assert_eq!((&state["assignedHub"], &state["substatus"]), (&json!("hub-b.localhost"), &json!("deviceDataMigrated")));

    world.settled("meter-2").await;
    assert!(!world.is_at("hub-a", "meter-2").await);
    assert_eq!(world.twin("hub-b", "meter-2").await.state.twin.desired.properties, document(r#"{"every":5}"#));
    let again = register(&world, &member.issued, "meter-2", "2021-10-01").await;
    assert_eq!(again["registrationState"]["assignedHub"], "hub-b.localhost");
    world.stop().await;
}

#[tokio::test]
async fn a_device_lives_at_its_hub_over_mqtt_until_it_moves_away() {
    let world = world().await;
    let member = world.registered("meter-3").await;
    let mut device = at_hub(&world, &member.issued, "hub-a", "meter-3").await.unwrap();
    assert_eq!(device.subscribe(&["$iothub/twin/res/#", CHANGES, "devices/x/#"]).await, [true, true, false]);

    let (topic, twin) = device.ask("$iothub/twin/GET/?$rid=1", " ").await.unwrap();
    assert_eq!(topic, "$iothub/twin/res/200/?$rid=1");
    assert_eq!(twin, json!({ "desired": { "$version": 1 }, "reported": { "$version": 1 } }));

    let report = "$iothub/twin/PATCH/properties/reported/?$rid=2";
    let (topic, body) = device.ask(report, r#"{"größe":7}"#).await.unwrap();
    assert_eq!((topic.as_str(), body), ("$iothub/twin/res/204/?$rid=2&$version=2", Value::Null));
    for broken in ["[]", "{", r#"{"a.b":1}"#, "\"x\""] {
        let (topic, body) = device.ask(report, broken).await.unwrap();
        assert_eq!((topic.as_str(), &body["errorCode"]), ("$iothub/twin/res/400/?$rid=2", &json!(400_004)), "{broken}");
    }

    world.patch("hub-a", "meter-3", r#"{"secret":"tags"}"#, r#"{"every":{"s":5}}"#).await;
    let (topic, patch) = device.published().await.unwrap();
    assert_eq!(topic, "$iothub/twin/PATCH/properties/desired/?$version=2");
    assert_eq!(patch, json!({ "every": { "s": 5 }, "$version": 2 }));

    // Subscribing again takes nothing away of what is on its way.
    world.patch("hub-a", "meter-3", "{}", r#"{"every":{"s":6}}"#).await;
    let (topic, _) = device.subscribe_again(CHANGES).await.unwrap();
    assert_eq!(topic, "$iothub/twin/PATCH/properties/desired/?$version=3");

    world.send("meter-3", Some("hub-b"), "closer").await;
    world.settled("meter-3").await;
    assert_eq!(device.published().await, None, "it is hung up on");
    assert_eq!(at_hub(&world, &member.issued, "hub-a", "meter-3").await.err(), Some(ConnectReturnCode::NotAuthorized));
    let mut device = at_hub(&world, &member.issued, "hub-b", "meter-3").await.unwrap();
    device.subscribe(&["$iothub/twin/res/#"]).await;
    let (_, twin) = device.ask("$iothub/twin/GET/?$rid=3", "").await.unwrap();
    assert_eq!(twin["reported"]["größe"], 7);
    assert_eq!(twin["desired"]["every"]["s"], 6);
    world.stop().await;
}

/// SDKs ask for a session that outlives its connection, and after a cut they do not subscribe again.
#[tokio::test]
async fn a_device_that_comes_back_need_not_subscribe_again() {
    let world = world().await;
    let member = world.registered("meter-20").await;
    let stream = connect(&world.site, world.mqtt_address(), Some(&member.issued)).await;
    let mut asked = Connect::new("meter-20".into(), 60);
    asked.username = Some("hub-a.localhost/meter-20/?api-version=2019-10-01".into());
    asked.clean_session = false;
    let mut device = Mqtt::open_with(stream, asked).await.unwrap();

    let (topic, twin) = device.ask("$iothub/twin/GET/?$rid=1", " ").await.unwrap();
    assert_eq!((topic.as_str(), &twin["desired"]["$version"]), ("$iothub/twin/res/200/?$rid=1", &json!(1)));
    world.patch("hub-a", "meter-20", "{}", r#"{"every":5}"#).await;
    let (topic, patch) = device.published().await.unwrap();
    assert_eq!(topic, "$iothub/twin/PATCH/properties/desired/?$version=2");
    assert_eq!(patch, json!({ "every": 5, "$version": 2 }));

    // Who asks for a clean session has subscribed to nothing.
    let mut device = at_hub(&world, &member.issued, "hub-a", "meter-20").await.unwrap();
    assert_eq!(device.ask("$iothub/twin/GET/?$rid=1", " ").await, None);
    world.stop().await;
}

#[tokio::test]
async fn requests_over_https_that_are_refused() {
    let world = world().await;
    let (issued, stranger) = (world.site.issue("meter-4"), world.site.issue("meter-5"));
    let path = |scope: &str, id: &str, query: &str| format!("/{scope}/registrations/{id}/register{query}");
    let good = path(SCOPE, "meter-4", "?api-version=2021-10-01");
    let large = format!(r#"{{"payload":"{}"}}"#, "x".repeat(400_000));
    for (issued, method, path, body, code) in [
        (Some(&issued), "PUT", path(SCOPE, "meter-4", ""), "", 400_004),
        (Some(&issued), "PUT", path(SCOPE, "meter-4", "?api-version=2016-01-01"), "", 400_004),
        (Some(&issued), "PUT", path("0ne00OTHER", "meter-4", "?api-version=2021-10-01"), "", 404_001),
        (Some(&issued), "PUT", path(SCOPE, "a%20b", "?api-version=2021-10-01"), "", 400_004),
        (Some(&issued), "PUT", good.clone(), "{", 400_004),
        (Some(&issued), "PUT", good.clone(), r#"{"registrationId":"meter-9"}"#, 400_004),
        (Some(&issued), "POST", good.clone(), "", 405_001),
        (Some(&issued), "GET", "/".to_owned(), "", 404_001),
        (Some(&stranger), "PUT", good.clone(), "", 401_002),
        (None, "PUT", good.clone(), "", 401_002),
        (
            Some(&issued),
            "GET",
            format!("/{SCOPE}/registrations/meter-4/operations/1?api-version=2021-10-01"),
            "",
            404_001,
        ),
    ] {
        let answer = https(&world, issued, method, &path, body).await;
        assert_eq!(answer.body["errorCode"], code, "{method} {path} {body}");
        assert_eq!(u32::from(answer.status), code / 1000, "{method} {path} {body}");
        assert_eq!(answer.header("x-ms-error-code"), Some(code.to_string().as_str()));
    }
    let answer = https(&world, Some(&issued), "PUT", &good, &large).await;
    assert_eq!((answer.status, &answer.body["errorCode"]), (413, &json!(413_001)));
    let (_, registrations, _) = world.records().await;
    assert!(registrations.is_empty(), "nothing was registered");
    world.stop().await;
}

#[tokio::test]
async fn connections_over_mqtt_that_are_refused() {
    let world = world().await;
    let member = world.registered("meter-6").await;
    let issued = &member.issued;
    use ConnectReturnCode::{BadUserNameOrPassword, NotAuthorized};
    for (issued, client_id, name, code) in [
        (Some(issued), "meter-6", "x", BadUserNameOrPassword),
        (Some(issued), "meter-7", "0ne00REHOME/registrations/meter-6/api-version=2019-03-31", BadUserNameOrPassword),
        (Some(issued), "meter-6", "0ne00OTHER/registrations/meter-6/api-version=2019-03-31", NotAuthorized),
        (Some(issued), "meter-6", "0ne00REHOME/registrations/meter-6/api-version=2016-01-01", NotAuthorized),
        (None, "meter-6", "0ne00REHOME/registrations/meter-6/api-version=2019-03-31", NotAuthorized),
        (None, "meter-6", "hub-a.localhost/meter-6/?api-version=2021-04-12", NotAuthorized),
        (Some(issued), "meter-6", "hub-x.localhost/meter-6/?api-version=2021-04-12", NotAuthorized),
        (Some(issued), "meter-6", "hub-b.localhost/meter-6/?api-version=2021-04-12", NotAuthorized),
        (Some(issued), "meter-8", "hub-a.localhost/meter-8/?api-version=2021-04-12", NotAuthorized),
    ] {
        let stream = connect(&world.site, world.mqtt_address(), issued).await;
        assert_eq!(Mqtt::open(stream, client_id, name, None).await.err(), Some(code), "{client_id} {name}");
    }
    // What a proof is worth is said where it is used.
    let mut stranger = mqtt(&world, issued, "meter-9").await;
    stranger.subscribe(&[ANSWERS]).await;
    let (topic, body) = stranger.ask(REGISTER, "").await.unwrap();
    assert_eq!((topic.as_str(), &body["errorCode"]), ("$dps/registrations/res/401/?$rid=r1", &json!(401_002)));
    let (topic, _) = stranger.ask(REGISTER, "{").await.unwrap();
    assert_eq!(topic, "$dps/registrations/res/400/?$rid=r1");
    // Who is refused again and again keeps no place by asking on.
    let mut refused = 2;
    while stranger.ask(REGISTER, "").await.is_some() {
        refused += 1;
    }
    assert_eq!(refused, 16);
    world.stop().await;
}

#[tokio::test]
async fn packets_that_do_not_belong_end_the_connection_and_nothing_else() {
    let world = world().await;
    let member = world.registered("meter-10").await;
    for (topic, body) in
        [("$iothub/twin/GET/?$rid=1", ""), ("nowhere", ""), ("$dps/registrations/PUT/iotdps-register", "")]
    {
        let mut device = mqtt(&world, &member.issued, "meter-10").await;
        device.subscribe(&[ANSWERS]).await;
        assert_eq!(device.ask(topic, body).await, None, "{topic}");
    }
    let mut device = mqtt(&world, &member.issued, "meter-10").await;
    assert_eq!(device.ask(REGISTER, "").await, None, "an answer has nowhere to go");
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x10, 0xff, 0xff, 0xff, 0x7f], &[0xc0, 0], &[0xff; 64]] {
        let mut stream = connect(&world.site, world.mqtt_address(), Some(&member.issued)).await;
        stream.write_all(bytes).await.unwrap();
        let mut device = Mqtt::over(stream);
        assert!(device.next().await.is_none(), "{bytes:02x?}");
    }
    let mut device = mqtt(&world, &member.issued, "meter-10").await;
    device.subscribe(&[ANSWERS]).await;
    assert!(device.ask(REGISTER, "").await.is_some(), "others are served as before");
    world.stop().await;
}
