//! Devices of existing SDKs that prove themselves by tokens: of symmetric keys, and of a TPM.

use std::time::Duration;

use data_encoding::BASE64;
use http::request::Builder;
use mqtt_proto::v3::ConnectReturnCode;
use rehome::ambient::{Clock as _, SystemClock};
use rehome::attestation::sas;
use rehome::client::device_key;
use rehome::client::tpm::{SecurityModule as _, SoftwareModule};
use rehome::domain::token::UnsignedToken;
use rehome::domain::{AttestationDraft, EnrollmentDraft, EnrollmentId, GroupId, SrkDraft, Timestamp, TokenKey};
use serde_json::{Value, json};

use super::devices::{ANSWERS, REGISTER, SCOPE, world};
use super::wire::{Answer, Mqtt, connect, send};
use crate::world::{World, keyed, registration_id, token_key};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn in_a_minute() -> Timestamp {
    SystemClock.now().plus(MINUTE)
}

fn in_a_day() -> Timestamp {
    SystemClock.now().plus(DAY)
}

/// As C and Python write it: everything escaped, the key named or not.
fn token(key: &TokenKey, resource: &str, ends_at: Timestamp, name: Option<&str>) -> String {
    sas::sign(&UnsignedToken::new(resource, ends_at), key, name)
}

/// As Node writes it: the resource as it is, and another order.
fn as_node_writes(key: &TokenKey, resource: &str) -> String {
    let ends_at = in_a_minute().as_secs();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key.secret());
    let tag = aws_lc_rs::hmac::sign(&key, format!("{resource}\n{ends_at}").as_bytes());
    let signature = BASE64.encode(tag.as_ref()).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    format!("SharedAccessSignature sr={resource}&sig={signature}&skn=registration&se={ends_at}")
}

fn registration(id: &str) -> String {
    format!("{SCOPE}/registrations/{id}")
}

fn lamps() -> EnrollmentId {
    EnrollmentId::Group(GroupId::parse("lamps").unwrap())
}

async fn https(world: &World, method: &str, path: &str, tokens: &[&str], body: &str) -> Answer {
    let stream = connect(&world.site, world.https_address(), None).await;
    let request = Builder::new().method(method).uri(path).header("content-type", "application/json");
    send(stream, tokens.iter().fold(request, |request, token| request.header("authorization", *token)), body).await
}

async fn put(world: &World, id: &str, tokens: &[&str], body: &str) -> Answer {
    let path = format!("/{SCOPE}/registrations/{id}/register?api-version=2021-06-01");
    https(world, "PUT", &path, tokens, body).await
}

/// Polls until it is over.
async fn finished(world: &World, id: &str, token: &str, mut answer: Answer) -> Value {
    while answer.status == 202 {
        let operation = answer.body["operationId"].as_str().unwrap();
        let path = format!("/{SCOPE}/registrations/{id}/operations/{operation}?api-version=2021-06-01");
        answer = https(world, "GET", &path, &[token], "{}").await;
    }
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.body["registrationState"].clone()
}

async fn at_hub(world: &World, hub: &str, id: &str, password: &str) -> Result<Mqtt, ConnectReturnCode> {
    let stream = connect(&world.site, world.mqtt_address(), None).await;
    let name = format!("{hub}.localhost/{id}/?api-version=2021-04-12");
    Mqtt::open(stream, id, &name, Some(password)).await
}

async fn provisioning(world: &World, id: &str, password: &str) -> Result<Mqtt, ConnectReturnCode> {
    let stream = connect(&world.site, world.mqtt_address(), None).await;
    Mqtt::open(stream, id, &format!("{}/api-version=2019-03-31", registration(id)), Some(password)).await
}

#[tokio::test]
async fn devices_register_over_https_by_their_own_key_and_by_their_groups() {
    let world = world().await;
    world.enroll(&keyed(EnrollmentId::Individual(registration_id("dev-1")), 1, 2)).await;
    world.enroll(&keyed(lamps(), 11, 12)).await;
    let lamp = device_key(&token_key(12), "lamp-1");
    for (id, key, told) in [
        ("dev-1", token_key(1), Value::Null),
        ("dev-1", token_key(2), Value::Null),
        ("lamp-1", lamp, json!({ "enrollmentGroupId": "lamps" })),
    ] {
        for token in [token(&key, &registration(id), in_a_minute(), None), as_node_writes(&key, &registration(id))] {
            let answer = put(&world, id, &[&token], &json!({ "registrationId": id }).to_string()).await;
            let state = finished(&world, id, &token, answer).await;
            assert_eq!((&state["status"], &state["assignedHub"]), (&json!("assigned"), &json!("hub-a.localhost")));
            assert_eq!(state["symmetricKey"], told, "{id}");
            assert!(state.get("tpm").is_none() && state.get("x509").is_none());
            let path = format!("/{SCOPE}/registrations/{id}?api-version=2021-06-01");
            let looked = https(&world, "POST", &path, &[&token], "").await;
            assert_eq!((looked.status, &looked.body["deviceId"]), (200, &json!(id)));
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn a_device_signs_in_over_mqtt_with_its_key_and_moves_with_it() {
    let world = world().await;
    world.enroll(&keyed(lamps(), 11, 12)).await;
    let key = device_key(&token_key(11), "lamp-1");
    let own = token(&key, &registration("lamp-1"), in_a_minute(), None);
    let mut device = provisioning(&world, "lamp-1", &own).await.unwrap();
    device.subscribe(&[ANSWERS]).await;
    let (_, mut body) = device.ask(REGISTER, r#"{"payload": null, "registrationId": "lamp-1"}"#).await.unwrap();
    while body["status"] == "assigning" {
        let operation = body["operationId"].as_str().unwrap();
        let poll = format!("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=r2&operationId={operation}");
        body = device.ask(&poll, " ").await.unwrap().1;
    }
    assert_eq!(body["registrationState"]["assignedHub"], "hub-a.localhost");

    let at = |hub: &str| token(&key, &format!("{hub}/devices/lamp-1"), in_a_minute(), None);
    for resource in ["hub-a.localhost", "hub-a.localhost:8883", "HUB-A.localhost"] {
        assert!(at_hub(&world, "hub-a", "lamp-1", &at(resource)).await.is_ok(), "{resource}");
    }
    let mut device = at_hub(&world, "hub-a", "lamp-1", &at("hub-a.localhost")).await.unwrap();
    device.subscribe(&["$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#"]).await;
    let report = "$iothub/twin/PATCH/properties/reported/?$rid=1";
    assert_eq!(device.ask(report, r#"{"lit":true}"#).await.unwrap().0, "$iothub/twin/res/204/?$rid=1&$version=2");
    world.send("lamp-1", Some("hub-b"), "closer").await;
    world.settled("lamp-1").await;
    assert_eq!(device.published().await, None, "it is hung up on");
    let gone = at_hub(&world, "hub-a", "lamp-1", &at("hub-a.localhost")).await.err();
    assert_eq!(gone, Some(ConnectReturnCode::NotAuthorized), "what makes SDKs register again");
    let mut device = at_hub(&world, "hub-b", "lamp-1", &at("hub-b.localhost")).await.unwrap();
    device.subscribe(&["$iothub/twin/res/#"]).await;
    let (_, twin) = device.ask("$iothub/twin/GET/?$rid=3", "").await.unwrap();
    assert_eq!(twin["reported"]["lit"], true);
    world.stop().await;
}

#[tokio::test]
async fn tokens_over_https_that_are_refused() {
    let world = world().await;
    world.enroll(&keyed(EnrollmentId::Individual(registration_id("dev-1")), 1, 2)).await;
    world.enroll(&keyed(lamps(), 11, 12)).await;
    let own = |key: u8| token(&token_key(key), &registration("dev-1"), in_a_minute(), None);
    let good = own(1);
    let past = token(&token_key(1), &registration("dev-1"), SystemClock.now(), None);
    let never = token(&token_key(1), &registration("dev-1"), SystemClock.now().plus(DAY * 30), None);
    let named = token(&token_key(1), &registration("dev-1"), in_a_minute(), Some("owner"));
    let foreign = token(&token_key(1), "0ne00OTHER/registrations/dev-1", in_a_minute(), None);
    let at_hub = token(&token_key(1), "hub-a.localhost/devices/dev-1", in_a_minute(), None);
    let master = token(&token_key(11), &registration("lamp-1"), in_a_minute(), None);
    let long = format!("SharedAccessSignature sr={}", "x".repeat(3000));
    for (id, tokens, code) in [
        ("dev-1", vec![own(3).as_str()], 401_002),
        ("dev-1", vec![past.as_str()], 401_002),
        ("dev-1", vec![never.as_str()], 401_002),
        ("dev-1", vec![named.as_str()], 401_002),
        ("dev-1", vec![foreign.as_str()], 401_002),
        ("dev-1", vec![at_hub.as_str()], 401_002),
        ("dev-1", vec!["Bearer x"], 401_002),
        ("dev-1", vec!["SharedAccessSignature"], 401_002),
        ("dev-1", vec![long.as_str()], 401_002),
        ("dev-1", vec![good.as_str(), good.as_str()], 400_004),
        ("dev-1", vec![], 401_002),
        ("dev-2", vec![good.as_str()], 401_002),
        ("lamp-1", vec![master.as_str()], 401_002),
    ] {
        let answer = put(&world, id, &tokens, "{}").await;
        assert_eq!(answer.body["errorCode"], code, "{id} {tokens:?}");
        assert_eq!(u32::from(answer.status), code / 1000);
    }
    let (_, registrations, _) = world.records().await;
    assert!(registrations.is_empty(), "nothing was registered");
    world.stop().await;
}

#[tokio::test]
async fn passwords_over_mqtt_that_are_refused() {
    let world = world().await;
    world.enroll(&keyed(EnrollmentId::Individual(registration_id("dev-1")), 1, 2)).await;
    use ConnectReturnCode::{BadUserNameOrPassword, NotAuthorized};
    for password in ["x", "SharedAccessSignature sr=a", &"x".repeat(3000)] {
        assert_eq!(provisioning(&world, "dev-1", password).await.err(), Some(BadUserNameOrPassword), "{password}");
    }
    // A token that reads as one is let in, and what it is worth is said where it is used.
    for (key, ends_at) in [(3, in_a_minute()), (1, SystemClock.now())] {
        let stale = token(&token_key(key), &registration("dev-1"), ends_at, None);
        let mut device = provisioning(&world, "dev-1", &stale).await.unwrap();
        device.subscribe(&[ANSWERS]).await;
        let (topic, body) = device.ask(REGISTER, "").await.unwrap();
        assert_eq!((topic.as_str(), &body["errorCode"]), ("$dps/registrations/res/401/?$rid=r1", &json!(401_002)));
    }
    let good = token(&token_key(1), &registration("dev-1"), in_a_minute(), None);
    let answer = put(&world, "dev-1", &[&good], "{}").await;
    finished(&world, "dev-1", &good, answer).await;
    let at = |key: u8, resource: &str, ends_at| token(&token_key(key), resource, ends_at, None);
    let own = "hub-a.localhost/devices/dev-1";
    for (password, code) in [
        (at(1, own, in_a_minute()), None),
        (at(2, own, in_a_minute()), None),
        (at(3, own, in_a_minute()), Some(NotAuthorized)),
        (at(1, own, SystemClock.now()), Some(NotAuthorized)),
        (at(1, own, SystemClock.now().plus(DAY * 3)), Some(NotAuthorized)),
        (at(1, "hub-b.localhost/devices/dev-1", in_a_minute()), Some(NotAuthorized)),
        (at(1, "hub-a.localhost/devices/dev-2", in_a_minute()), Some(NotAuthorized)),
        (good, Some(NotAuthorized)),
    ] {
        assert_eq!(at_hub(&world, "hub-a", "dev-1", &password).await.err(), code, "{password}");
    }
    world.stop().await;
}

/// A device with a TPM, enrolled by its endorsement key.
async fn pump(world: &World, id: &str) -> (SoftwareModule, Value) {
    let chip = SoftwareModule::of([7; 64]).unwrap();
    let attestation = AttestationDraft::Tpm {
        endorsement_key: chip.endorsement_key().clone(),
        storage_root_key: SrkDraft::Any,
        pcrs: None,
    };
    let enrollment = EnrollmentDraft { attestation, ..keyed(EnrollmentId::Individual(registration_id(id)), 1, 1) };
    world.enroll(&enrollment).await;
    let keys = chip.keys().await.unwrap();
    let tpm = json!({
        "endorsementKey": BASE64.encode(&keys.endorsement_key),
        "storageRootKey": BASE64.encode(&keys.storage_root_key),
    });
    (chip, tpm)
}

/// Answers a challenge: the token that the key in it has signed, for as long as the SDKs make them that take the longest.
async fn answered(chip: &SoftwareModule, challenge: &Answer, id: &str) -> String {
    let blob = BASE64.decode(challenge.body["authenticationKey"].as_str().unwrap().as_bytes()).unwrap();
    let unsigned = UnsignedToken::new(&registration(id), in_a_day());
    let signature = chip.sign_with(blob, unsigned.text().into_bytes()).await.unwrap();
    unsigned.signed(&signature.try_into().unwrap(), Some("registration"))
}

#[tokio::test]
async fn a_device_with_a_tpm_is_challenged_over_https_and_signs_in_at_its_hub() {
    let world = world().await;
    let (chip, tpm) = pump(&world, "pump-1").await;
    let body = json!({ "registrationId": "pump-1", "tpm": tpm }).to_string();
    let challenge = put(&world, "pump-1", &[], &body).await;
    assert_eq!((challenge.status, &challenge.body["keyName"]), (401, &json!("registration")));
    let token = answered(&chip, &challenge, "pump-1").await;
    // Some SDKs do not repeat their keys with the token.
    let answer = put(&world, "pump-1", &[&token], r#"{"registrationId":"pump-1"}"#).await;
    let state = finished(&world, "pump-1", &token, answer).await;
    assert_eq!((&state["status"], &state["assignedHub"]), (&json!("assigned"), &json!("hub-a.localhost")));
    let key = state["tpm"]["authenticationKey"].as_str().unwrap();
    chip.keep(BASE64.decode(key.as_bytes()).unwrap()).await.unwrap();

    // The same request again is answered with the same key, not with another one.
    let again = put(&world, "pump-1", &[&token], &body).await;
    assert_eq!(finished(&world, "pump-1", &token, again).await["tpm"]["authenticationKey"], key);

    let unsigned = UnsignedToken::new("hub-a.localhost/devices/pump-1", in_a_minute());
    let signature = chip.sign(unsigned.text().into_bytes()).await.unwrap();
    let password = unsigned.signed(&signature.try_into().unwrap(), None);
    let mut device = at_hub(&world, "hub-a", "pump-1", &password).await.unwrap();
    device.subscribe(&["$iothub/twin/res/#"]).await;
    assert_eq!(device.ask("$iothub/twin/GET/?$rid=1", "").await.unwrap().0, "$iothub/twin/res/200/?$rid=1");
    world.stop().await;
}

#[tokio::test]
async fn a_proof_by_tpm_over_https_begins_again_or_is_refused() {
    let world = world().await;
    let (chip, tpm) = pump(&world, "pump-1").await;
    let body = json!({ "tpm": tpm }).to_string();
    let stranger = SoftwareModule::of([9; 64]).unwrap().keys().await.unwrap();
    let strange = json!({ "tpm": {
        "endorsementKey": BASE64.encode(&stranger.endorsement_key),
        "storageRootKey": BASE64.encode(&stranger.storage_root_key),
    } });
    let no_root = json!({ "tpm": { "endorsementKey": tpm["endorsementKey"] } });
    let no_key = json!({ "tpm": { "endorsementKey": "AAAA", "storageRootKey": tpm["storageRootKey"] } });
    for (id, body, code) in [
        ("pump-1", &strange, 401_002),
        ("pump-2", &strange, 401_002),
        ("pump-1", &no_root, 400_004),
        ("pump-1", &no_key, 400_004),
    ] {
        let answer = put(&world, id, &[], &body.to_string()).await;
        assert_eq!(answer.body["errorCode"], code, "{id} {body}");
        assert!(answer.body.get("authenticationKey").is_none());
    }
    // A token of nobody's is answered with a challenge, since the device can only begin again.
    let nobodys = token(&token_key(1), &registration("pump-1"), in_a_minute(), None);
    let challenge = put(&world, "pump-1", &[&nobodys], &body).await;
    assert_eq!((challenge.status, challenge.body["authenticationKey"].is_string()), (401, true));
    // Without its keys it is refused, and so is a poll.
    let refused = put(&world, "pump-1", &[&nobodys], "{}").await;
    assert_eq!((refused.status, &refused.body["errorCode"]), (401, &json!(401_002)));

    let token = answered(&chip, &challenge, "pump-1").await;
    let other = put(&world, "pump-2", &[&token], "{}").await;
    assert_eq!((other.status, &other.body["errorCode"]), (401, &json!(401_002)), "it is another's");
    // The enrollment changes in between: the challenge does not count any more.
    world.change(&EnrollmentId::Individual(registration_id("pump-1")), |draft| draft.adopt_existing = true).await;
    let anew = put(&world, "pump-1", &[&token], &body).await;
    assert_eq!((anew.status, anew.body["authenticationKey"].is_string()), (401, true), "{:?}", anew.body);
    let token = answered(&chip, &anew, "pump-1").await;
    let answer = put(&world, "pump-1", &[&token], &body).await;
    assert_eq!(finished(&world, "pump-1", &token, answer).await["status"], "assigned");
    world.stop().await;
}
