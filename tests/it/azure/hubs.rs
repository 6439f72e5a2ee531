//! The registry and the twins of embedded hubs over HTTPS, by the hubs' own policies.

use http::request::Builder;
use rehome::ambient::{Clock as _, SystemClock, SystemEntropy};
use rehome::client::Patience;
use rehome::compose::PolicyKeys;
use rehome::domain::{AuditAction, ClientFacts, PolicyArea, StoredAudit, TokenKey};
use rehome::pki::{Authority, Terms};
use serde_json::{Value, json};

use super::backend::{
    Backend, HUB_OWNER, HUB_VERSION, OWNER, VERSION, in_an_hour, policies, single_permissions, token, world, world_with,
};
use super::wire::{Answer, connect, send};
use crate::world::{HOUR, World, document, group, hub_id, in_time, registration_id};

fn device(id: &str) -> String {
    format!("/devices/{id}?{HUB_VERSION}")
}

fn twin(id: &str) -> String {
    format!("/twins/{id}?{HUB_VERSION}")
}

/// A refusal as SDKs of hubs take it apart.
#[track_caller]
fn is(answer: &Answer, status: u16, word: &str) {
    let message = answer.body["Message"].as_str().unwrap_or_default();
    assert!(message.starts_with(&format!("ErrorCode:{word};")), "{answer:?}");
    assert_eq!((answer.status, answer.header("iothub-errorcode")), (status, Some(word)), "{answer:?}");
    assert!(answer.body["ExceptionMessage"].as_str().is_some_and(|text| text.starts_with("Tracking ID:")));
}

#[track_caller]
fn good(answer: Answer) -> Value {
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.body
}

/// Devices of the development authority, which live at hub-a.
async fn settled_in(world: &World, ids: &[&str]) {
    world.enroll(&group("plant", &world.site.device_ca())).await;
    for id in ids {
        world.registered(id).await;
    }
}

#[tokio::test]
async fn devices_are_seen_kept_out_and_removed() {
    let world = world().await;
    settled_in(&world, &["meter-1", "meter-2", "meter-3"]).await;
    let owner = Backend::of_hub(&world, "hub-a", HUB_OWNER);
    let found = good(owner.get(&device("meter-1")).await);
    assert_eq!((&found["deviceId"], &found["status"]), (&json!("meter-1"), &json!("enabled")));
    assert_eq!(found["authentication"]["type"], "selfSigned");
    let thumbprint = found["authentication"]["x509Thumbprint"]["primaryThumbprint"].as_str().unwrap();
    assert_eq!((thumbprint.len(), thumbprint.to_uppercase().as_str()), (64, thumbprint));
    let listed = owner.get(&format!("/devices/?{HUB_VERSION}&top=2")).await;
    assert!(listed.header("x-ms-continuation").is_some());
    assert_eq!(good(listed).as_array().unwrap().len(), 2);
    assert_eq!(good(owner.get(&format!("/devices?{HUB_VERSION}")).await).as_array().unwrap().len(), 3);
    let other = Backend::of_hub(&world, "hub-b", HUB_OWNER);
    is(&other.get(&device("meter-1")).await, 404, "DeviceNotFound");

    // Kept out, and let in again: what the registry may say of a device.
    let mut written = found.clone();
    (written["status"], written["statusReason"]) = ("disabled".into(), "lost".into());
    let put = async |etag: &str, body: &Value| owner.call("PUT", &device("meter-1"), &[("if-match", etag)], body).await;
    let quoted = format!("\"{}\"", found["etag"].as_str().unwrap());
    let out = good(put(&quoted, &written).await);
    assert_eq!((&out["status"], &out["statusReason"]), (&json!("disabled"), &json!("lost")));
    is(&put(&quoted, &written).await, 412, "PreconditionFailed");
    let status = world.twin("hub-a", "meter-1").await.state.status;
    assert_eq!(status, rehome::domain::HubStatus::Disabled { reason: "lost".to_owned() });
    assert_eq!(good(put("\"*\"", &json!({ "status": "enabled" })).await)["status"], "enabled");

    // Past the service nothing comes, changes what it signs in with, or goes.
    let before = world.records().await;
    is(&owner.put(&device("stranger"), &json!({ "deviceId": "stranger" })).await, 400, "InvalidOperation");
    is(&owner.put(&device("meter-1"), &found).await, 409, "DeviceAlreadyExists");
    let headers = [("if-match", "\"*\"")];
    is(&owner.call("PUT", &device("stranger"), &headers, &json!({})).await, 404, "DeviceNotFound");
    for change in [
        json!({ "authentication": { "type": "sas", "symmetricKey": { "primaryKey": "AAAAAAAAAAAAAAAAAAAAAA==" } } }),
        json!({ "authentication": { "type": "certificateAuthority" } }),
        json!({ "authentication": { "x509Thumbprint": { "primaryThumbprint": "AB".repeat(32) } } }),
        json!({ "capabilities": { "iotEdge": true } }),
    ] {
        is(&put("*", &change).await, 400, "InvalidOperation");
    }
    let bulk = async |entries: Value| owner.post(&format!("/devices?{HUB_VERSION}"), &entries).await;
    let created = json!({ "id": "x", "importMode": "create", "authentication": { "type": "sas" } });
    let either = json!({ "id": "x", "importMode": "createOrUpdate" });
    let answer =
        bulk(json!([created, either, 7, { "id": "meter-1", "importMode": "updateIfMatchETag", "eTag": "x" }])).await;
    assert_eq!((answer.status, &answer.body["isSuccessful"]), (400, &json!(false)));
    let codes: Vec<&Value> =
        answer.body["errors"].as_array().unwrap().iter().map(|error| &error["errorCode"]).collect();
    assert_eq!(codes, [400_003, 400_003, 400_004, 412_001]);
    is(&bulk(json!({})).await, 400, "ArgumentInvalid");
    assert_eq!(world.records().await, before);

    world.patch("hub-a", "meter-2", "{}", r#"{"kept":"yes"}"#).await;
    let stale = owner.call("DELETE", &device("meter-2"), &[("if-match", "\"AAAA\"")], &Value::Null).await;
    is(&stale, 412, "PreconditionFailed");
    let gone = owner.call("DELETE", &device("meter-2"), &headers, &Value::Null).await;
    assert_eq!((gone.status, gone.body), (204, Value::Null));
    is(&owner.get(&device("meter-2")).await, 404, "DeviceNotFound");
    is(&owner.delete(&device("meter-2")).await, 404, "DeviceNotFound");
    let updated = good(bulk(json!([{ "id": "meter-3", "importMode": "update", "status": "disabled" }])).await);
    assert_eq!(updated, json!({ "isSuccessful": true, "errors": [], "warnings": [] }));
    assert_eq!(good(owner.get(&device("meter-3")).await)["status"], "disabled");
    good(bulk(json!([{ "id": "meter-3", "importMode": "delete" }])).await);
    is(&owner.get(&device("meter-3")).await, 404, "DeviceNotFound");
    let history = world.operator.history(&registration_id("meter-2")).await.unwrap();
    assert!(!history.is_empty(), "what it had is in the history");
    let audit = world.audit().await;
    let by_us = |entry: &&StoredAudit| entry.entry.actor == format!("policy {HUB_OWNER}");
    let removed: Vec<_> = audit.iter().filter(by_us).filter_map(|entry| entry.entry.registration.clone()).collect();
    assert!(removed.contains(&registration_id("meter-2")) && removed.contains(&registration_id("meter-3")));
    world.stop().await;
}

#[tokio::test]
async fn twins_are_read_merged_replaced_and_found() {
    let world = world().await;
    settled_in(&world, &["meter-4", "meter-5"]).await;
    let owner = Backend::of_hub(&world, "hub-a", "service");
    let found = good(owner.get(&twin("meter-4")).await);
    assert_eq!((&found["version"], &found["properties"]["desired"]["$version"]), (&json!(1), &json!(1)));
    let patch = json!({ "tags": { "site": "x" }, "properties": { "desired": { "every": { "s": 5 }, "b": 1 } } });
    let call = async |method: &str, etag: &str, body: &Value| {
        owner.call(method, &twin("meter-4"), &[("if-match", etag)], body).await
    };
    let quoted = |twin: &Value| format!("\"{}\"", twin["etag"].as_str().unwrap());
    let merged = good(call("PATCH", &quoted(&found), &patch).await);
    assert_eq!(merged["tags"], json!({ "site": "x" }));
    let desired = &merged["properties"]["desired"];
    assert_eq!((&desired["every"], &desired["b"], &desired["$version"]), (&json!({ "s": 5 }), &json!(1), &json!(2)));
    assert_eq!(desired["$metadata"]["every"]["s"]["$lastUpdatedVersion"], 2);
    is(&call("PATCH", &quoted(&found), &patch).await, 412, "PreconditionFailed");
    let without = good(call("PATCH", "\"*\"", &json!({ "properties": { "desired": { "b": null } } })).await);
    assert!(without["properties"]["desired"].get("b").is_none());
    let replaced = good(call("PUT", "\"*\"", &json!({ "tags": { "row": 7 } })).await);
    assert_eq!((&replaced["tags"], &replaced["properties"]), (&json!({ "row": 7 }), &without["properties"]));
    let back = good(call("PUT", &quoted(&replaced), &replaced).await);
    assert_eq!(back["properties"]["desired"]["every"], json!({ "s": 5 }), "what was read may be written back");

    let query = async |text: &str, headers: &[(&str, &str)]| {
        let path = format!("/devices/query?{HUB_VERSION}");
        owner.call("POST", &path, headers, &json!({ "query": text })).await
    };
    let first = query("SELECT * FROM devices", &[("x-ms-max-item-count", "1")]).await;
    let next = first.header("x-ms-continuation").unwrap().to_owned();
    assert_eq!(first.header("x-ms-item-type"), Some("twin"));
    assert_eq!(good(first)[0]["deviceId"], "meter-4");
    let second = query("SELECT * FROM devices", &[("x-ms-continuation", &next)]).await;
    assert_eq!(second.header("x-ms-continuation"), None);
    assert_eq!(good(second)[0]["deviceId"], "meter-5");
    let found = good(query("SELECT * FROM devices WHERE tags.row = 7", &[("x-ms-max-item-count", "1")]).await);
    assert_eq!(found.as_array().unwrap().len(), 1);
    is(&query("SELECT * FROM devices", &[("x-ms-continuation", "x")]).await, 400, "ArgumentInvalid");
    is(&query("SELECT deviceId FROM devices", &[]).await, 400, "ArgumentInvalid");
    is(&query("SELECT * FROM devices.modules", &[]).await, 400, "ArgumentInvalid");

    // A device that has moved on is not here any more, and its twin is where it is.
    world.send("meter-4", Some("hub-b"), "closer").await;
    world.settled("meter-4").await;
    is(&owner.get(&twin("meter-4")).await, 404, "DeviceNotFound");
    is(&call("PATCH", "*", &patch).await, 404, "DeviceNotFound");
    let there = good(Backend::of_hub(&world, "hub-b", "service").get(&twin("meter-4")).await);
    assert_eq!(there["tags"], json!({ "row": 7 }));
    assert_eq!(world.twin("hub-b", "meter-4").await.state.twin.tags, document(r#"{"row":7}"#));
    world.stop().await;
}

#[tokio::test]
async fn requests_that_are_refused() {
    let world = world().await;
    settled_in(&world, &["meter-6"]).await;
    let owner = Backend::of_hub(&world, "hub-a", HUB_OWNER);
    let large = json!({ "tags": { "a": "x".repeat(300_000) } }).to_string();
    let too_big = json!({ "tags": { "a": ["x".repeat(4_000), "x".repeat(4_000), "x".repeat(4_000)] } }).to_string();
    for (method, path, body, status, word) in [
        ("GET", "/twins/meter-6".to_owned(), "", 400, "InvalidProtocolVersion"),
        ("GET", "/twins/meter-6?api-version=2016-01-01".to_owned(), "", 400, "InvalidProtocolVersion"),
        ("GET", twin("nobody"), "", 404, "DeviceNotFound"),
        ("GET", twin("a%20b"), "", 400, "ArgumentInvalid"),
        ("PATCH", twin("meter-6"), "{", 400, "ArgumentInvalid"),
        ("PATCH", twin("meter-6"), "[]", 400, "ArgumentInvalid"),
        ("PATCH", twin("meter-6"), r#"{"tags":{"a.b":1}}"#, 400, "ArgumentInvalid"),
        ("PATCH", twin("meter-6"), r#"{"deviceId":"meter-7"}"#, 400, "ArgumentInvalid"),
        ("PATCH", twin("meter-6"), &too_big, 400, "ArgumentInvalid"),
        ("PATCH", twin("meter-6"), &large, 413, "MessageTooLarge"),
        ("DELETE", twin("meter-6"), "", 405, "InvalidOperation"),
        ("PUT", device("meter-6"), "{", 400, "ArgumentInvalid"),
        ("GET", format!("/devices?{HUB_VERSION}&top=0"), "", 400, "ArgumentInvalid"),
        ("GET", format!("/devices/a/modules?{HUB_VERSION}"), "", 400, "InvalidOperation"),
    ] {
        let answer = owner.raw(method, &path, &[], body).await;
        assert_eq!(answer.status, status, "{method} {path} {body:.60}: {:?}", answer.body);
        is(&answer, status, word);
    }
    let stranger = Backend { host: "hub-x.localhost".to_owned(), ..Backend::of_hub(&world, "hub-a", HUB_OWNER) };
    is(&stranger.get(&device("meter-6")).await, 401, "IotHubNotFound");
    // A hub's key opens that hub, whatever the token says.
    let keys = world.policy_keys();
    let policy = keys.of(PolicyArea::Hub).next().unwrap();
    let key_a = PolicyKeys::at_hub(&policy.keys.primary, &hub_id("hub-a"));
    for (resource, key, host) in [
        ("hub-b.localhost", &key_a, "hub-b.localhost"),
        ("hub-a.localhost", &key_a, "hub-b.localhost"),
        ("hub-a.localhost", &policy.keys.primary, "hub-a.localhost"),
        ("localhost", &key_a, "hub-a.localhost"),
    ] {
        let token = token(resource, in_an_hour(), key, HUB_OWNER);
        let caller = Backend { world: &world, host: host.to_owned(), token: Some(token) };
        is(&caller.get(&device("meter-6")).await, 401, "IotHubUnauthorizedAccess");
    }
    world.stop().await;
}

#[tokio::test]
async fn each_call_needs_its_own_permission() {
    let folder = tempfile::tempdir().unwrap();
    let file = single_permissions(&folder);
    let world = world_with(|config| config.azure.policies = Some(file)).await;
    for (method, path, allowed) in [
        ("GET", device("x"), &["RegistryRead", "RegistryWrite"] as &[&str]),
        ("GET", format!("/devices?{HUB_VERSION}"), &["RegistryRead", "RegistryWrite"]),
        ("PUT", device("x"), &["RegistryWrite"]),
        ("DELETE", device("x"), &["RegistryWrite"]),
        ("POST", format!("/devices?{HUB_VERSION}"), &["RegistryWrite"]),
        ("POST", format!("/devices/query?{HUB_VERSION}"), &["ServiceConnect"]),
        ("GET", twin("x"), &["ServiceConnect"]),
        ("PATCH", twin("x"), &["ServiceConnect"]),
        ("PUT", twin("x"), &["ServiceConnect"]),
    ] {
        for permission in ["RegistryRead", "RegistryWrite", "DeviceKeys", "ServiceConnect"] {
            let answer = Backend::of_hub(&world, "hub-a", permission).raw(method, &path, &[], "").await;
            let refused = answer.status == 401;
            assert_eq!(refused, !allowed.contains(&permission), "{method} {path} by {permission}: {:?}", answer.body);
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn a_devices_keys_are_seen_by_who_may_see_keys() {
    let folder = tempfile::tempdir().unwrap();
    let file = policies(
        &folder,
        &[
            ("service", OWNER, &["EnrollmentWrite"]),
            ("hub", "registryReadWrite", &["RegistryWrite"]),
            ("hub", "keys", &["RegistryWrite", "DeviceKeys"]),
        ],
    );
    let world = world_with(|config| config.azure.policies = Some(file)).await;
    let keys = json!({ "primaryKey": "AAAAAAAAAAAAAAAAAAAAAA==", "secondaryKey": "AQEBAQEBAQEBAQEBAQEBAQ==" });
    let enrollment = json!({
        "attestation": { "type": "symmetricKey", "symmetricKey": keys },
        "allocationPolicy": "static", "iotHubs": ["hub-a.localhost"],
    });
    let path = format!("/enrollments/lamp-1?{VERSION}");
    good(Backend::owner(&world).put(&path, &enrollment).await);
    let device_with_key = world.site.caller_as("lamp-1", None).await.by_key(TokenKey::new(&[0; 16]).unwrap());
    in_time(device_with_key.register(&ClientFacts::default(), Patience::Tries(1), |_| ())).await.unwrap();

    let owner = Backend::of_hub(&world, "hub-a", "keys");
    for _ in 0..3 {
        let found = good(owner.get(&device("lamp-1")).await);
        let shown = &found["authentication"];
        assert_eq!((&shown["type"], &shown["symmetricKey"]), (&json!("sas"), &keys));
    }
    let audit = world.audit().await;
    let showings: Vec<_> =
        audit.iter().filter(|entry| entry.entry.action == AuditAction::EnrollmentKeysShown).collect();
    let by_hub: Vec<_> = showings.iter().filter(|entry| entry.entry.actor == "policy keys").collect();
    assert_eq!(by_hub.len(), 1, "asking again is no other showing");
    let hidden = json!({ "primaryKey": null, "secondaryKey": null });
    let writer = Backend::of_hub(&world, "hub-a", "registryReadWrite");
    assert_eq!(good(writer.get(&device("lamp-1")).await)["authentication"]["symmetricKey"], hidden);
    let listed = good(owner.get(&format!("/devices?{HUB_VERSION}")).await);
    assert_eq!(listed[0]["authentication"]["symmetricKey"], hidden, "a listing shows no keys");
    let found = good(owner.get(&device("lamp-1")).await);

    // Written back as it was read; with another key it would be somebody else's device.
    let mut written = found.clone();
    written["status"] = "disabled".into();
    let put = async |body: &Value| owner.call("PUT", &device("lamp-1"), &[("if-match", "*")], body).await;
    assert_eq!(good(put(&written).await)["status"], "disabled");
    written["authentication"]["symmetricKey"]["primaryKey"] = keys["secondaryKey"].clone();
    is(&put(&written).await, 400, "InvalidOperation");
    world.stop().await;
}

#[tokio::test]
async fn a_certificate_may_at_a_hub_what_its_role_may_over_grpc() {
    let world = world().await;
    settled_in(&world, &["meter-7", "meter-8"]).await;
    let operators = Authority::load(&world.site.paths.operator_ca).unwrap();
    let certificate = |grant: &str| {
        let terms = Terms::starting(SystemClock.now(), HOUR);
        operators.issue_operator("ann", &[grant.parse().unwrap()], terms, &SystemEntropy::new()).unwrap()
    };
    let call = async |grant: &str, method: &str, path: &str, headers: &[(&str, &str)]| {
        let stream = connect(&world.site, world.https_address(), Some(&certificate(grant))).await;
        let request = Builder::new().method(method).uri(path).header("host", "hub-a.localhost");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        send(stream, request, if method == "PATCH" { "{}" } else { "" }).await.status
    };
    for (grant, method, path, status) in [
        ("rehome:role:reader", "GET", device("meter-7"), 200),
        ("rehome:role:reader:hub-a", "GET", device("meter-7"), 200),
        ("rehome:role:reader:hub-b", "GET", device("meter-7"), 401),
        ("rehome:role:enroller", "GET", device("meter-7"), 401),
        ("rehome:role:backend:hub-a", "PATCH", twin("meter-7"), 200),
        ("rehome:role:backend:hub-b", "PATCH", twin("meter-7"), 401),
        ("rehome:role:reader", "PATCH", twin("meter-7"), 401),
        ("rehome:role:operator:hub-a", "DELETE", device("meter-7"), 401),
        ("rehome:role:backend", "DELETE", device("meter-7"), 401),
        ("rehome:role:operator", "DELETE", device("meter-7"), 204),
    ] {
        assert_eq!(call(grant, method, &path, &[]).await, status, "{grant} {method} {path}");
    }
    // What a page in the operator's browser sends is not the operator's.
    for (name, value) in [
        ("origin", "https://elsewhere.example"),
        ("sec-fetch-site", "cross-site"),
        ("content-type", "text/plain"),
        ("content-type", "application/x-www-form-urlencoded"),
    ] {
        let status = call("rehome:role:operator", "PATCH", &twin("meter-8"), &[(name, value)]).await;
        assert_eq!(status, 401, "{name}: {value}");
    }
    world.stop().await;
}
