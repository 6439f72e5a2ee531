//! The service API: enrollments, groups and registrations over HTTPS, by shared access policies.

use rehome::domain::{AuditAction, PolicyArea};
use serde_json::{Value, json};

use super::backend::{
    Backend, OWNER, VERSION, a_minute_ago, in_an_hour, key, single_permissions, token, world, world_with,
};
use super::wire::{Answer, connect, send};
use crate::world::{HOUR, World, hub_id, registration_id};

/// An endorsement key of a real TPM (reference/dps.md, part B).
const EK: &str = "AToAAQALAAMAsgAgg3GXZ0SEs/gakMyNRqXXJP1S124GUgtk8qHaGzMUaaoABgCAAEMAEAgAAAAAAAEAopqgkUBwtpr1sCgVJcEZxsJtpmtOAt9K7SjGFe4hsp6DJ/dd2E5UFzBC+Jp8Fzqf5ukRBkqrAgIuAvHRsruIedk1uarJSLhbDpFLHxFd7iDNcYfrvdgVNT2T9zrvkh2y04WuRQg2D5qf0tZF82jeTjR/YJK7uWhaRwWOwZ3b1XD9l6wFOrwK/Ic0PEsjneFXQzL0n9uKyuHmHNz+wHppmOiMAabvnXXEin9ou7/iowY/+YhFm3j7atsVvxMI5HEM3Mq+W4imUuzPxVX7fZH+oWPKP5ofpWBTf+MdttGby1AjGnv8JE69JriOYoZG2/4qbsfv9M7a7NFrBlaW7Rt36w==";

fn enrollment(id: &str) -> String {
    format!("/enrollments/{id}?{VERSION}")
}

fn group(id: &str) -> String {
    format!("/enrollmentGroups/{id}?{VERSION}")
}

/// An individual enrollment by a certificate of the development authority, as SDKs write it.
fn individual(world: &World, id: &str) -> Value {
    let pem = world.site.issue(id).certificate_pem().to_owned();
    let pem = pem.split_inclusive("-----END CERTIFICATE-----").next().unwrap().to_owned();
    let pair = json!({ "primary": { "certificate": pem } });
    json!({ "registrationId": id, "attestation": { "type": "x509", "x509": { "clientCertificates": pair } } })
}

/// A group of the development authority; its certificate as base64 of PEM, as one SDK's own tests have it.
fn plant(world: &World) -> Value {
    let pem = std::fs::read(&world.site.paths.device_ca.certificate).unwrap();
    let pair = json!({ "primary": { "certificate": data_encoding::BASE64.encode(&pem) } });
    json!({ "enrollmentGroupId": "plant", "attestation": { "type": "x509", "x509": { "signingCertificates": pair } } })
}

#[track_caller]
fn is(answer: &Answer, code: u32) {
    assert_eq!((u32::from(answer.status), &answer.body["errorCode"]), (code / 1000, &json!(code)), "{answer:?}");
    assert!(answer.body["message"].as_str().is_some_and(|message| !message.is_empty()));
    assert!(answer.body["timestampUtc"].is_string() && answer.body["trackingId"].is_string());
}

#[track_caller]
fn good(answer: Answer) -> Value {
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.body
}

#[tokio::test]
async fn an_individual_enrollment_from_its_making_to_its_end() {
    let world = world().await;
    let owner = Backend::owner(&world);
    let mut wanted = individual(&world, "Meter-1");
    wanted["deviceId"] = "pump@1".into();
    wanted["initialTwin"] = json!({ "tags": { "site": "x" }, "properties": { "desired": { "every": 5 } } });
    wanted["allocationPolicy"] = "static".into();
    wanted["iotHubs"] = json!(["hub-b.localhost"]);
    wanted["reprovisionPolicy"] = json!({ "updateHubAssignment": true, "migrateDeviceData": false });
    wanted["provisioningStatus"] = Value::Null;
    wanted["capabilities"] = json!({ "iotEdge": true });

    let made = good(owner.put(&enrollment("Meter-1"), &wanted).await);
    for member in ["registrationId", "deviceId", "initialTwin", "allocationPolicy", "iotHubs", "reprovisionPolicy"] {
        assert_eq!(made[member], wanted[member], "{member}");
    }
    assert_eq!((&made["provisioningStatus"], &made["capabilities"]["iotEdge"]), (&json!("enabled"), &json!(true)));
    assert_eq!(made["registrationState"], json!({ "registrationId": "Meter-1", "status": "unassigned" }));
    let primary = &made["attestation"]["x509"]["clientCertificates"]["primary"];
    assert_eq!(primary["info"]["subjectName"], "CN=Meter-1");
    assert_eq!(primary["info"]["sha1Thumbprint"].as_str().map(str::len), Some(40));
    assert_eq!(primary["info"]["sha256Thumbprint"].as_str().map(str::len), Some(64));
    assert_eq!((primary.get("certificate"), &primary["info"]["version"]), (None, &json!(3)));
    assert!(made["createdDateTimeUtc"].as_str().is_some_and(|text| text.len() == 28 && text.ends_with('Z')));
    assert_eq!(good(owner.get(&enrollment("meter-1")).await), made, "ids have no case");

    // What was read is written back, with the etag that it has: nothing is lost, certificates and keys included.
    let etag = made["etag"].as_str().unwrap();
    let mut back = made.clone();
    back["provisioningStatus"] = "disabled".into();
    let put =
        async |etag: &str, body: &Value| owner.call("PUT", &enrollment("METER-1"), &[("if-match", etag)], body).await;
    let changed = good(put(etag, &back).await);
    assert_eq!((&changed["provisioningStatus"], &changed["registrationId"]), (&json!("disabled"), &json!("Meter-1")));
    assert_eq!(changed["attestation"], made["attestation"]);
    is(&put(etag, &back).await, 412_001);
    is(&put("\"nothing\"", &back).await, 412_001);
    back["provisioningStatus"] = "enabled".into();
    good(put(&format!("\"{}\"", changed["etag"].as_str().unwrap()), &back).await);
    good(put("*", &back).await);

    // A second certificate beside the first, and the first one alone: the second stays.
    let pair =
        json!({ "secondary": individual(&world, "Meter-1")["attestation"]["x509"]["clientCertificates"]["primary"] });
    back["attestation"] = json!({ "type": "x509", "x509": { "clientCertificates": pair } });
    let both = good(owner.put(&enrollment("Meter-1"), &back).await);
    let certificates = &both["attestation"]["x509"]["clientCertificates"];
    assert_eq!(&certificates["primary"], primary);
    assert_ne!(certificates["secondary"]["info"]["sha256Thumbprint"], primary["info"]["sha256Thumbprint"]);
    let kept = good(owner.put(&enrollment("Meter-1"), &wanted).await);
    assert_eq!(kept["attestation"]["x509"]["clientCertificates"]["secondary"], certificates["secondary"]);

    let stale = owner.call("DELETE", &enrollment("Meter-1"), &[("if-match", etag)], &Value::Null).await;
    is(&stale, 412_001);
    let gone = owner.call("DELETE", &enrollment("Meter-1"), &[("if-match", "*")], &Value::Null).await;
    assert_eq!((gone.status, gone.body), (204, Value::Null));
    is(&owner.delete(&enrollment("Meter-1")).await, 404_201);
    is(&owner.get(&enrollment("Meter-1")).await, 404_201);
    is(&put("*", &back).await, 412_001);
    let audit = world.audit().await;
    let deeds = [AuditAction::EnrollmentCreated, AuditAction::EnrollmentUpdated, AuditAction::EnrollmentDeleted];
    for deed in deeds {
        let entry = audit.iter().find(|entry| entry.entry.action == deed).unwrap();
        assert_eq!(entry.entry.actor, format!("policy {OWNER}"), "{deed:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_device_of_a_group_is_seen_and_sent_away() {
    let world = world().await;
    let owner = Backend::owner(&world);
    let mut wanted = plant(&world);
    wanted["iotHubHostName"] = "hub-b.localhost".into();
    let made = good(owner.put(&format!("/enrollmentgroups/plant/?{VERSION}"), &wanted).await);
    assert_eq!((&made["allocationPolicy"], &made["iotHubs"]), (&json!("static"), &json!(["hub-b.localhost"])));
    assert!(made.get("registrationState").is_none() && made.get("reprovisionPolicy").is_none());
    let mechanism = format!("/enrollmentgroups/plant/attestationmechanism?{VERSION}");
    assert_eq!(good(owner.post(&mechanism, &Value::Null).await), made["attestation"]);

    is(&owner.get(&format!("/registrations/meter-2?{VERSION}")).await, 404_001);
    let member = world.registered("meter-2").await;
    world.registered("meter-3").await;
    let state = good(owner.get(&format!("/registrations/METER-2?{VERSION}")).await);
    assert_eq!((&state["status"], &state["assignedHub"]), (&json!("assigned"), &json!("hub-b.localhost")));
    let listed = good(owner.post(&format!("/registrations/plant/query?{VERSION}"), &Value::Null).await);
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(listed[0], state);
    let elsewhere = good(owner.post(&format!("/registrations/other/query?{VERSION}"), &Value::Null).await);
    assert_eq!(elsewhere, json!([]));

    let delete = async |etag: &str| {
        let headers = [("if-match", etag)];
        owner.call("DELETE", &format!("/registrations/meter-2?{VERSION}"), &headers, &Value::Null).await
    };
    is(&delete("never").await, 412_001);
    is(&delete("InY5OTki").await, 412_001);
    assert_eq!(delete(state["etag"].as_str().unwrap()).await.status, 204);
    is(&owner.get(&format!("/registrations/meter-2?{VERSION}")).await, 404_001);
    let twins = async || world.operator.twin(&crate::world::twin_at("hub-b", "meter-2")).await;
    crate::world::in_time(async { while twins().await.is_ok() {} }).await;
    // It may come back: its enrollment is there.
    member.register().await;
    assert!(world.is_at("hub-b", "meter-2").await);
    world.stop().await;
}

#[tokio::test]
async fn a_tpm_is_enrolled_and_its_rules_stay() {
    let world = world().await;
    let owner = Backend::owner(&world);
    let wanted = json!({ "attestation": { "type": "tpm", "tpm": { "endorsementKey": EK, "storageRootKey": null } } });
    let made = good(owner.put(&enrollment("tpm-1"), &wanted).await);
    assert_eq!(made["attestation"], json!({ "type": "tpm", "tpm": { "endorsementKey": EK } }));
    let mechanism = format!("/enrollments/tpm-1/attestationmechanism?{VERSION}");
    assert_eq!(good(owner.post(&mechanism, &json!({})).await), made["attestation"]);
    is(&owner.put(&enrollment("tpm-2"), &wanted).await, 409_001);

    let id = rehome::domain::EnrollmentId::Individual(registration_id("tpm-1"));
    world.change(&id, |draft| draft.reassign_when_down = true).await;
    let mut back = good(owner.get(&enrollment("tpm-1")).await);
    back["attestation"] = json!({ "type": "tpm" });
    let kept = good(owner.put(&enrollment("tpm-1"), &back).await);
    assert_eq!(kept["attestation"], made["attestation"]);
    assert!(world.operator.enrollment(&id).await.unwrap().draft.reassign_when_down, "what SDKs have no word for");
    world.stop().await;
}

#[tokio::test]
async fn a_group_may_refer_to_an_authority_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("site.pem");
    let authority = {
        use rehome::ambient::{Clock as _, SystemClock, SystemEntropy};
        use rehome::pki::{Authority, Purpose, Terms};
        let terms = Terms::starting(SystemClock.now(), HOUR);
        Authority::create("site", Purpose::Device, terms, &SystemEntropy::new()).unwrap()
    };
    std::fs::write(&file, authority.certificate()).unwrap();
    let world = world_with(|config| {
        config.azure.authorities = vec![rehome::config::NamedAuthority { name: "site".to_owned(), file }];
    })
    .await;
    let owner = Backend::owner(&world);
    let references = |primary: &str| json!({ "attestation": { "type": "x509", "x509": { "caReferences": { "primary": primary } } } });
    let made = good(owner.put(&group("site"), &references("site")).await);
    assert_eq!(made["attestation"], references("site")["attestation"]);
    is(&owner.put(&group("site"), &references("nobody")).await, 400_004);
    let device = crate::world::issue(&authority, "meter-4");
    world.registered_as("meter-4", &device).await;
    world.stop().await;
}

#[tokio::test]
async fn many_at_once_and_each_by_itself() {
    let world = world().await;
    let owner = Backend::owner(&world);
    let bulk = async |mode: &str, entries: Value| {
        let body = json!({ "mode": mode, "enrollments": entries });
        owner.post(&format!("/enrollments/?{VERSION}"), &body).await
    };
    let [one, two, three] = ["bulk-1", "bulk-2", "bulk-3"].map(|id| individual(&world, id));
    let all_good = json!({ "isSuccessful": true, "errors": [] });
    assert_eq!(good(bulk("create", json!([one, two])).await), all_good);
    let nobody = json!({ "attestation": { "type": "none" } });
    let mixed = good(bulk("create", json!([one, three, nobody, 7, { "registrationId": "a b" }])).await);
    assert_eq!(mixed["isSuccessful"], false);
    let errors: Vec<(&str, u64)> = mixed["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| {
            assert!(error["errorStatus"].is_string());
            (error["registrationId"].as_str().unwrap(), error["errorCode"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(errors, [("bulk-1", 409_201), ("", 400_004), ("", 400_004), ("a b", 400_004)]);

    let codes_of = |answer: Value| -> Vec<u64> {
        answer["errors"].as_array().unwrap().iter().map(|error| error["errorCode"].as_u64().unwrap()).collect()
    };
    let mut disabled = three.clone();
    disabled["provisioningStatus"] = "disabled".into();
    assert_eq!(codes_of(good(bulk("update", json!([disabled])).await)), [409_201], "its etag is missing");
    disabled["etag"] = good(owner.get(&enrollment("bulk-3")).await)["etag"].clone();
    assert_eq!(good(bulk("update", json!([disabled])).await), all_good);
    assert_eq!(codes_of(good(bulk("update", json!([disabled])).await)), [412_001], "it changed");
    assert_eq!(codes_of(good(bulk("delete", json!([disabled])).await)), [412_001]);
    let stored = good(owner.get(&enrollment("bulk-3")).await);
    assert_eq!(stored["provisioningStatus"], "disabled");
    let missing = good(bulk("update", json!([individual(&world, "bulk-9")])).await);
    assert_eq!(missing["errors"][0]["errorCode"], 404_201);
    let mut matching = stored.clone();
    matching["provisioningStatus"] = "enabled".into();
    let codes = async |entries: Value| {
        let answer = good(bulk("updateIfMatchETag", entries).await);
        let codes: Vec<u64> =
            answer["errors"].as_array().unwrap().iter().map(|error| error["errorCode"].as_u64().unwrap()).collect();
        codes
    };
    assert_eq!(codes(json!([three])).await, [400_004], "an etag is needed");
    assert_eq!(codes(json!([matching, matching])).await, [412_001], "the first one changed it");
    let removed = good(bulk("delete", json!([one, two, three, one])).await);
    assert_eq!(removed["errors"].as_array().unwrap().len(), 1);
    is(&owner.get(&enrollment("bulk-2")).await, 404_201);

    let groups = json!({ "mode": "create", "enrollmentGroups": [plant(&world), { "enrollmentGroupId": "x" }] });
    let answer = good(owner.post(&format!("/enrollmentGroups?{VERSION}"), &groups).await);
    assert_eq!(answer["errors"][0]["enrollmentGroupId"], "x");
    for (mode, entries) in [
        ("upsert", json!([one])),
        ("create", json!([])),
        ("create", json!({})),
        ("create", json!(vec![one.clone(); 11])),
    ] {
        is(&bulk(mode, entries).await, 400_004);
    }
    world.stop().await;
}

#[tokio::test]
async fn listings_go_on_where_they_say() {
    let world = world().await;
    let owner = Backend::owner(&world);
    for number in 0..5 {
        let id = format!("list-{number}");
        let mut wanted = individual(&world, &id);
        wanted["initialTwin"] = json!({ "tags": { "row": number % 2 } });
        good(owner.put(&enrollment(&id), &wanted).await);
    }
    let query = async |text: &str, count: &str, continuation: Option<&str>| {
        let mut headers = vec![("x-ms-max-item-count", count)];
        headers.extend(continuation.map(|token| ("x-ms-continuation", token)));
        owner.call("POST", &format!("/Enrollments/Query?{VERSION}"), &headers, &json!({ "query": text })).await
    };
    let (mut ids, mut token) = (Vec::new(), None::<String>);
    let mut tokens = Vec::new();
    loop {
        let answer = query("SELECT *", "2", token.as_deref()).await;
        assert_eq!(answer.header("x-ms-item-type"), Some("Enrollment"));
        token = answer.header("x-ms-continuation").map(str::to_owned);
        tokens.extend(token.clone());
        let rows = good(answer);
        ids.extend(rows.as_array().unwrap().iter().map(|row| row["registrationId"].as_str().unwrap().to_owned()));
        if token.is_none() {
            break;
        }
    }
    assert_eq!(ids, ["list-0", "list-1", "list-2", "list-3", "list-4"]);
    let odd = good(query("SELECT * FROM enrollments WHERE initialTwin.tags.row = 1", "1000", None).await);
    assert_eq!(odd.as_array().unwrap().len(), 2);
    let all = good(owner.post(&format!("/enrollments/query?{VERSION}"), &Value::Null).await);
    assert_eq!(all.as_array().unwrap().len(), 5);

    // A token is good for its own listing and as it was given.
    let mut tampered = tokens[0].clone().into_bytes();
    tampered[10] = if tampered[10] == b'A' { b'B' } else { b'A' };
    for token in [String::from_utf8(tampered).unwrap(), "x".to_owned(), "A".repeat(5_000)] {
        is(&query("SELECT *", "2", Some(&token)).await, 400_004);
    }
    let headers = [("x-ms-continuation", tokens[0].as_str())];
    let path = format!("/enrollmentGroups/query?{VERSION}");
    is(&owner.call("POST", &path, &headers, &json!({ "query": "SELECT *" })).await, 400_004);
    for (text, count) in
        [("SELECT * FROM devices", "2"), ("DROP", "2"), ("SELECT *", "0"), ("SELECT *", "ten"), ("SELECT *", "-3")]
    {
        is(&query(text, count, None).await, 400_004);
    }
    world.stop().await;
}

#[tokio::test]
async fn requests_that_are_refused() {
    let world = world().await;
    let owner = Backend::owner(&world);
    good(owner.put(&enrollment("there"), &individual(&world, "there")).await);
    let (fits, before) = (individual(&world, "dev-1"), world.files());
    let other_name = {
        let mut other = individual(&world, "dev-2");
        other["registrationId"] = "dev-1".into();
        other
    };
    let with = |member: &str, value: Value| {
        let mut changed = fits.clone();
        changed[member] = value;
        changed
    };
    let mut of_two = with("allocationPolicy", json!("static"));
    of_two["iotHubs"] = json!(["hub-a.localhost", "hub-b.localhost"]);
    let large = with("initialTwin", json!({ "tags": { "a": "x".repeat(300_000) } }));
    let deep = "[".repeat(100_000);
    for (method, path, body, code) in [
        ("PUT", enrollment("dev-1"), "{".to_owned(), 400_004),
        ("PUT", enrollment("dev-1"), String::new(), 400_004),
        ("PUT", enrollment("dev-1"), "[]".to_owned(), 400_004),
        ("PUT", enrollment("dev-1"), deep, 400_004),
        ("PUT", enrollment("dev-1"), "{}".to_owned(), 400_004),
        ("PUT", enrollment("dev-1"), large.to_string(), 413_001),
        ("PUT", enrollment("dev-2"), fits.to_string(), 400_004),
        ("PUT", enrollment("dev-1"), other_name.to_string(), 400_004),
        ("PUT", enrollment("a%20b"), fits.to_string(), 400_004),
        ("PUT", enrollment("dev-1"), with("iotHubs", json!(["hub-x.localhost"])).to_string(), 400_004),
        ("PUT", enrollment("dev-1"), of_two.to_string(), 400_004),
        ("PUT", enrollment("dev-1"), with("allocationPolicy", json!("custom")).to_string(), 400_004),
        ("PUT", enrollment("dev-1"), with("optionalDeviceInformation", json!({ "a": 1 })).to_string(), 400_004),
        ("PUT", enrollment("dev-1"), with("initialTwin", json!({ "tags": { "a.b": 1 } })).to_string(), 400_004),
        ("PUT", group("dev-1"), fits.to_string(), 400_004),
        ("PUT", "/enrollments/dev-1".to_owned(), fits.to_string(), 400_004),
        ("PUT", "/enrollments/dev-1?api-version=2016-01-01".to_owned(), fits.to_string(), 400_004),
        ("PATCH", enrollment("there"), fits.to_string(), 405_001),
        ("DELETE", format!("/enrollments?{VERSION}"), String::new(), 405_001),
        ("GET", format!("/enrollments/a/b/c?{VERSION}"), String::new(), 404_001),
        ("GET", group("there"), String::new(), 404_202),
        ("DELETE", group("there"), String::new(), 404_202),
        ("POST", format!("/enrollments/nobody/attestationmechanism?{VERSION}"), String::new(), 404_201),
        ("DELETE", format!("/registrations/nobody?{VERSION}"), String::new(), 404_001),
        ("POST", format!("/registrations/a%20b/query?{VERSION}"), String::new(), 400_004),
    ] {
        let answer = owner.raw(method, &path, &[], &body).await;
        assert_eq!(answer.body["errorCode"], code, "{method} {path} {body:.200}: {:?}", answer.body);
        is(&answer, code);
    }
    assert_eq!(world.files(), before, "nothing was written");
    world.stop().await;
}

#[tokio::test]
async fn tokens_that_open_nothing() {
    let world = world().await;
    let owner = Backend::owner(&world);
    good(owner.put(&enrollment("there"), &individual(&world, "there")).await);
    let keys = world.policy_keys();
    let policy = keys.of(PolicyArea::Service).next().unwrap();
    let at_hub = keys.of(PolicyArea::Hub).next().unwrap();
    let key_a = rehome::compose::PolicyKeys::at_hub(&at_hub.keys.primary, &hub_id("hub-a"));
    let signed = |resource: &str| token(resource, in_an_hour(), &policy.keys.primary, OWNER);
    let good_token = signed("localhost:8443");
    for (token, fits) in [
        (Some(good_token.clone()), true),
        (Some(token("LOCALHOST", in_an_hour(), &policy.keys.secondary, OWNER)), true),
        (None, false),
        (Some(String::new()), false),
        (Some("Bearer abc".to_owned()), false),
        (Some("x".repeat(4_000)), false),
        (Some(signed("localhost.example")), false),
        (Some(signed("hub-a.localhost")), false),
        (Some(token("localhost", a_minute_ago(), &policy.keys.primary, OWNER)), false),
        (Some(token("localhost", in_an_hour().plus(HOUR * 100), &policy.keys.primary, OWNER)), false),
        (Some(token("localhost", in_an_hour(), &key(1), OWNER)), false),
        (Some(token("localhost", in_an_hour(), &policy.keys.primary, "nobody")), false),
        (Some(token("localhost", in_an_hour(), &key_a, "iothubowner")), false),
        (Some(good_token.replace("&se=", "&se=9")), false),
        (Some(good_token.replace("localhost", "localhos")), false),
    ] {
        let answer = Backend::owner(&world).with_token(token.clone()).get(&enrollment("there")).await;
        match fits {
            true => drop(good(answer)),
            false => {
                is(&answer, 401_002);
                let shown = answer.body.to_string();
                assert!(!shown.contains("sig="), "{shown}");
            }
        }
    }
    let twice = [("authorization", good_token.as_str())];
    is(&owner.call("GET", &enrollment("there"), &twice, &Value::Null).await, 401_002);
    world.stop().await;
}

#[tokio::test]
async fn each_call_needs_its_own_permission() {
    let folder = tempfile::tempdir().unwrap();
    let file = single_permissions(&folder);
    let world = world_with(|config| config.azure.policies = Some(file)).await;
    let permissions =
        ["ServiceConfig", "EnrollmentRead", "EnrollmentWrite", "RegistrationStatusRead", "RegistrationStatusWrite"];
    for (method, path, needed) in [
        ("GET", enrollment("x"), "EnrollmentRead"),
        ("PUT", enrollment("x"), "EnrollmentWrite"),
        ("DELETE", enrollment("x"), "EnrollmentWrite"),
        ("POST", format!("/enrollments?{VERSION}"), "EnrollmentWrite"),
        ("POST", format!("/enrollments/query?{VERSION}"), "EnrollmentRead"),
        ("POST", format!("/enrollments/x/attestationmechanism?{VERSION}"), "EnrollmentWrite"),
        ("GET", group("x"), "EnrollmentRead"),
        ("PUT", group("x"), "EnrollmentWrite"),
        ("DELETE", group("x"), "EnrollmentWrite"),
        ("POST", format!("/enrollmentGroups?{VERSION}"), "EnrollmentWrite"),
        ("POST", format!("/enrollmentGroups/query?{VERSION}"), "EnrollmentRead"),
        ("POST", format!("/enrollmentGroups/x/attestationmechanism?{VERSION}"), "EnrollmentWrite"),
        ("GET", format!("/registrations/x?{VERSION}"), "RegistrationStatusRead"),
        ("DELETE", format!("/registrations/x?{VERSION}"), "RegistrationStatusWrite"),
        ("POST", format!("/registrations/x/query?{VERSION}"), "RegistrationStatusRead"),
    ] {
        for permission in permissions {
            let answer = Backend::of(&world, permission).raw(method, &path, &[], "").await;
            let refused = answer.status == 401;
            assert_eq!(refused, permission != needed, "{method} {path} by {permission}: {:?}", answer.body);
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn an_operators_certificate_will_do_as_well() {
    let world = world().await;
    good(Backend::owner(&world).put(&enrollment("there"), &individual(&world, "there")).await);
    let call = async |pair: &rehome::pki::Pair, method: &str| {
        let read = |path: &std::path::Path| std::fs::read(path).unwrap();
        let identity = (read(&pair.certificate), read(&pair.key));
        let stream = super::wire::connect_as(&world.site, world.https_address(), &identity.0, &identity.1).await;
        let request = http::request::Builder::new().method(method).uri(enrollment("there"));
        send(stream, request, "").await.status
    };
    let paths = &world.site.paths;
    assert_eq!(call(&paths.reader, "GET").await, 200);
    assert_eq!(call(&paths.reader, "DELETE").await, 401);
    assert_eq!(call(&paths.backend, "GET").await, 401);
    assert_eq!(call(&paths.enroller, "DELETE").await, 204);
    let device = world.site.issue("there");
    let stream = connect(&world.site, world.https_address(), Some(&device)).await;
    let request = http::request::Builder::new().method("GET").uri(enrollment("there"));
    is(&send(stream, request, "").await, 401_002);
    world.stop().await;
}

#[tokio::test]
async fn symmetric_keys_are_drawn_shown_to_who_may_write_and_kept() {
    let world = world().await;
    let owner = Backend::owner(&world);
    let by_key = |keys: Value| json!({ "attestation": { "type": "symmetricKey", "symmetricKey": keys } });
    let made = good(owner.put(&enrollment("lamp-1"), &by_key(json!({ "primaryKey": null }))).await);
    let drawn = made["attestation"]["symmetricKey"].clone();
    for name in ["primaryKey", "secondaryKey"] {
        let key = data_encoding::BASE64.decode(drawn[name].as_str().unwrap().as_bytes()).unwrap();
        assert_eq!(key.len(), 64, "{name}");
    }
    assert_ne!(drawn["primaryKey"], drawn["secondaryKey"]);
    let read = good(owner.get(&enrollment("lamp-1")).await);
    assert_eq!(read["attestation"], json!({ "type": "symmetricKey" }));
    let listed = good(owner.post(&format!("/enrollments/query?{VERSION}"), &Value::Null).await);
    assert_eq!(listed[0]["attestation"], read["attestation"]);
    let mechanism = format!("/enrollments/lamp-1/attestationmechanism?{VERSION}");
    assert_eq!(good(owner.post(&mechanism, &Value::Null).await), made["attestation"]);
    let audit = world.audit().await;
    let shown = audit.iter().find(|entry| entry.entry.action == AuditAction::EnrollmentKeysShown).unwrap();
    assert_eq!(shown.entry.actor, format!("policy {OWNER}"));

    // What was read has no keys, and writing it back changes none; a new one takes the place of the one it names.
    assert_eq!(good(owner.put(&enrollment("lamp-1"), &read).await)["attestation"]["symmetricKey"], drawn);
    let new = data_encoding::BASE64.encode(&[9; 16]);
    let rolled = good(owner.put(&enrollment("lamp-1"), &by_key(json!({ "secondaryKey": new }))).await);
    let expected = json!({ "primaryKey": drawn["primaryKey"], "secondaryKey": new });
    assert_eq!(rolled["attestation"]["symmetricKey"], expected);
    for broken in [json!({ "primaryKey": "c2hvcnQ=" }), json!({ "primaryKey": "?" }), json!({ "primaryKey": [] })] {
        let answer = owner.put(&enrollment("lamp-2"), &by_key(broken)).await;
        is(&answer, 400_004);
        assert!(!answer.body.to_string().contains("c2hv"));
    }

    let master = good(owner.put(&group("lamps"), &by_key(Value::Null)).await);
    let other = good(owner.put(&group("pumps"), &by_key(Value::Null)).await);
    assert_ne!(master["attestation"], other["attestation"]);
    is(&owner.put(&group("more"), &by_key(master["attestation"]["symmetricKey"].clone())).await, 409_001);
    let mechanism = format!("/enrollmentgroups/lamps/attestationmechanism?{VERSION}");
    assert_eq!(good(owner.post(&mechanism, &Value::Null).await), master["attestation"]);

    // A certificate sees what its role sees over gRPC: an enroller writes and is shown no key.
    let enroller = async |method: &str, path: &str, body: &str| {
        let pair = &world.site.paths.enroller;
        let read = |path: &std::path::Path| std::fs::read(path).unwrap();
        let (chain, key) = (read(&pair.certificate), read(&pair.key));
        let stream = super::wire::connect_as(&world.site, world.https_address(), &chain, &key).await;
        good(send(stream, http::request::Builder::new().method(method).uri(path), body).await)
    };
    let hidden = json!({ "type": "symmetricKey" });
    let path = format!("/enrollments/lamp-1/attestationmechanism?{VERSION}");
    assert_eq!(enroller("POST", &path, "").await, hidden);
    assert_eq!(enroller("PUT", &enrollment("lamp-1"), &read.to_string()).await["attestation"], hidden);
    world.stop().await;
}

#[tokio::test]
async fn settings_as_other_suites_write_them() {
    let world = world().await;
    let owner = Backend::owner(&world);
    let uuid = data_encoding::BASE64.encode(b"0b5c0a5e-30f4-4f07-8d9c-1b6f5f3a9d11");
    let keys = json!({ "primaryKey": uuid, "secondaryKey": uuid });
    let attestation = json!({ "type": "symmetricKey", "symmetricKey": keys });
    let webhook = json!({ "webhookUrl": "https://web.hook/", "apiVersion": "2018-11-01" });
    for (policy, more) in
        [("static", Value::Null), ("hashed", Value::Null), ("geoLatency", Value::Null), ("custom", webhook)]
    {
        let mut wanted = json!({ "attestation": attestation, "allocationPolicy": policy });
        wanted["customAllocationDefinition"] = more.clone();
        let made = good(owner.put(&enrollment(policy), &wanted).await);
        assert_eq!(made["allocationPolicy"], policy);
        assert_eq!(made.get("customAllocationDefinition"), Some(&more).filter(|more| !more.is_null()));
        assert_eq!(made["attestation"], attestation);
    }
    world.stop().await;
}
