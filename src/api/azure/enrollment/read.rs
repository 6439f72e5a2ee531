//! An enrollment as it is written: JSON to a draft.

use serde_json::Value;

use crate::api::azure::fault::Refusal;
use crate::api::azure::members::{Members, wrong};
use crate::api::azure::names::Names;
use crate::domain::{
    AllocationPolicy, Capabilities, DeviceId, Document, Enrollment, EnrollmentDraft, EnrollmentId, GroupId, HubId,
    InitialState, RegistrationId, ReprovisionPolicy, ResetOnSameHub, UnreachableRule, WebhookPolicy, limits,
};

use super::{EnrollmentKind, attestation};

/// Members that this service cannot keep.
const NOT_KEPT: &[&str] = &[
    "optionalDeviceInformation",
    "credentialPolicyName",
    "certificatePolicyResourceId",
    "trustBundleId",
    "clientCertificateIssuancePolicy",
    "serverCertificateIssuancePolicy",
];

/// The id that an entry of a bulk operation names.
pub fn id_of(kind: EnrollmentKind, given: &Members<'_>) -> Result<EnrollmentId, Refusal> {
    let missing = || wrong(kind.id_member(), "is missing");
    Ok(match kind {
        EnrollmentKind::Individual => {
            EnrollmentId::Individual(given.parsed(kind.id_member(), RegistrationId::parse)?.ok_or_else(missing)?)
        }
        EnrollmentKind::Group => {
            EnrollmentId::Group(given.parsed(kind.id_member(), GroupId::parse)?.ok_or_else(missing)?)
        }
    })
}

/// Reads an enrollment that is to be `id`, and of which `stored` is there already.
pub fn draft(
    id: &EnrollmentId,
    given: &Members<'_>,
    stored: Option<&Enrollment>,
    names: &Names,
) -> Result<EnrollmentDraft, Refusal> {
    let kind = EnrollmentKind::of(id);
    if given.value(kind.id_member()).is_some() && id_of(kind, given)? != *id {
        return Err(wrong(kind.id_member(), "is not the one of the address"));
    }
    NOT_KEPT.iter().try_for_each(|name| given.must_be_empty(name))?;
    let attested = given.object("attestation")?.ok_or_else(|| wrong("attestation", "is missing"))?;
    let hubs = hubs(given, names)?;
    Ok(EnrollmentDraft {
        id: id.clone(),
        attestation: attestation::draft(kind, &attested, stored.map(|stored| &stored.attestation), names)?,
        enabled: enabled(given)?,
        device_id: given.parsed("deviceId", DeviceId::parse)?,
        initial: initial(given)?,
        reprovision: reprovision(given)?,
        allocation: allocation(given, &hubs)?,
        hubs,
        unreachable: stored.map_or(WAIT, |stored| stored.unreachable),
        allow_late_writes: stored.is_some_and(|stored| stored.allow_late_writes),
        reset_on_same_hub: stored.map_or(ResetOnSameHub::Always, |stored| stored.reset_on_same_hub),
        reassign_when_down: stored.is_some_and(|stored| stored.reassign_when_down),
        adopt_existing: stored.is_some_and(|stored| stored.adopt_existing),
    })
}

const WAIT: UnreachableRule = UnreachableRule::Wait { deadline: limits::UNREACHABLE_WAIT_DEFAULT };

fn enabled(given: &Members<'_>) -> Result<bool, Refusal> {
    match given.text("provisioningStatus")? {
        None => Ok(true),
        Some(text) if text.eq_ignore_ascii_case("enabled") => Ok(true),
        Some(text) if text.eq_ignore_ascii_case("disabled") => Ok(false),
        Some(_) => Err(wrong("provisioningStatus", "is neither enabled nor disabled")),
    }
}

fn initial(given: &Members<'_>) -> Result<InitialState, Refusal> {
    let capabilities = given.object("capabilities")?.map(|capabilities| capabilities.switch("iotEdge")).transpose()?;
    let capabilities = Capabilities { iot_edge: capabilities.flatten().unwrap_or(false) };
    let Some(twin) = given.object("initialTwin")? else {
        return Ok(InitialState { capabilities, ..InitialState::default() });
    };
    let desired = twin.object("properties")?.map(|properties| properties.document("desired")).transpose()?;
    let (tags, desired) = (twin.document("tags")?, desired.unwrap_or_default());
    Ok(InitialState { tags: counted_out(tags), desired: counted_out(desired), capabilities })
}

/// Some SDKs put what they counted themselves beside the properties: `$version` and `$metadata` are nobody's.
fn counted_out(mut document: Document) -> Document {
    for name in ["$version", "$metadata"] {
        document.0.remove(name);
    }
    document
}

/// None is none: it is never turned into a policy.
fn reprovision(given: &Members<'_>) -> Result<Option<ReprovisionPolicy>, Refusal> {
    let Some(policy) = given.object("reprovisionPolicy")? else { return Ok(None) };
    let member = |name: &str| policy.switch(name).map(|given| given.unwrap_or(true));
    Ok(Some(match (member("updateHubAssignment")?, member("migrateDeviceData")?) {
        (true, true) => ReprovisionPolicy::Migrate,
        (true, false) => ReprovisionPolicy::Reset,
        (false, true | false) => ReprovisionPolicy::Never,
    }))
}

/// The hubs of `iotHubs`; the one of `iotHubHostName`, which is older, where that says nothing.
fn hubs(given: &Members<'_>, names: &Names) -> Result<Vec<HubId>, Refusal> {
    let hub = |member: &str, called: &str| {
        let found = names.hub(called).cloned();
        found.ok_or_else(|| wrong(member, format_args!("names {called:?}, which is no linked hub")))
    };
    let listed = given.list("iotHubs")?.map(Vec::as_slice).unwrap_or_default();
    if listed.len() > limits::HUBS_MAX {
        return Err(wrong("iotHubs", format_args!("names more than {} hubs", limits::HUBS_MAX)));
    }
    let named = |value: &Value| match value.as_str() {
        Some(called) => hub("iotHubs", called),
        None => Err(wrong("iotHubs", "holds something that is no text")),
    };
    if let (true, Some(called)) = (listed.is_empty(), given.text("iotHubHostName")?) {
        return Ok(vec![hub("iotHubHostName", called)?]);
    }
    listed.iter().map(named).collect()
}

fn allocation(given: &Members<'_>, hubs: &[HubId]) -> Result<Option<AllocationPolicy>, Refusal> {
    let Some(word) = given.text("allocationPolicy")? else {
        // An enrollment from before there were policies means one hub.
        let is_old = given.text("iotHubHostName")?.is_some() && hubs.len() == 1;
        return Ok(is_old.then_some(AllocationPolicy::Static));
    };
    match word.to_ascii_lowercase().as_str() {
        "hashed" => Ok(Some(AllocationPolicy::Hashed)),
        "geolatency" => Ok(Some(AllocationPolicy::LowestLatency)),
        "static" => Ok(Some(AllocationPolicy::Static)),
        "custom" => {
            let webhook = given.object("customAllocationDefinition")?.ok_or_else(|| {
                wrong("customAllocationDefinition", "is missing: the policy custom asks the webhook that it names")
            })?;
            let member = |name: &str| {
                let text = webhook.text(name)?.map(str::to_owned);
                text.ok_or_else(|| wrong(&webhook.path(name), "is missing"))
            };
            let (url, api_version) = (member("webhookUrl")?, member("apiVersion")?);
            Ok(Some(AllocationPolicy::Custom(WebhookPolicy { url, api_version })))
        }
        _ => Err(wrong("allocationPolicy", "is not one of hashed, geoLatency, static and custom")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names() -> Names {
        let hub = |id: &str| (HubId::parse(id).unwrap(), format!("{id}.example"));
        Names { hubs: vec![hub("hub-a"), hub("hub-b")], ..Names::default() }
    }

    fn id() -> EnrollmentId {
        EnrollmentId::Individual(RegistrationId::parse("Dev-1").unwrap())
    }

    /// A draft by a certificate, which is any base64 here.
    fn read(mut more: Value) -> Result<EnrollmentDraft, Refusal> {
        let x509 = json!({ "clientCertificates": { "primary": { "certificate": "AQID" } } });
        more["attestation"] = json!({ "type": "x509", "x509": x509 });
        draft(&id(), &Members::of(&more).unwrap(), None, &names())
    }

    #[test]
    fn members_become_settings() {
        let plain = read(json!({})).unwrap();
        assert!(plain.enabled && plain.reprovision.is_none() && plain.allocation.is_none() && plain.hubs.is_empty());
        let check = |more: Value, change: &dyn Fn(&mut EnrollmentDraft)| {
            let mut expected = plain.clone();
            change(&mut expected);
            assert_eq!(read(more.clone()), Ok(expected), "{more}");
        };
        let nulls = json!({
            "registrationId": "dev-1", "deviceId": null, "registrationState": { "status": "assigned" }, "etag": null,
            "optionalDeviceInformation": null, "capabilities": null, "iotHubHostName": null, "initialTwin": null,
            "provisioningStatus": null, "reprovisionPolicy": null, "allocationPolicy": null, "iotHubs": null,
            "customAllocationDefinition": null, "createdDateTimeUtc": "x", "unknown": 1,
        });
        check(nulls, &|_| {});
        check(json!({ "provisioningStatus": "disabled" }), &|draft| draft.enabled = false);
        check(json!({ "deviceId": "pump@1" }), &|draft| draft.device_id = DeviceId::parse("pump@1").ok());
        check(json!({ "capabilities": { "iotEdge": true } }), &|draft| {
            draft.initial.capabilities = Capabilities { iot_edge: true };
        });
        let twin = json!({ "tags": { "a": 1 }, "properties": { "desired": { "b": 2, "$version": 3 } } });
        check(json!({ "initialTwin": twin }), &|draft| {
            draft.initial.tags = Document::from_text(r#"{"a":1}"#).unwrap();
            draft.initial.desired = Document::from_text(r#"{"b":2}"#).unwrap();
        });
        let policy = |update: bool, migrate: bool| json!({ "reprovisionPolicy": { "updateHubAssignment": update, "migrateDeviceData": migrate } });
        for (update, migrate, expected) in [
            (true, true, ReprovisionPolicy::Migrate),
            (true, false, ReprovisionPolicy::Reset),
            (false, false, ReprovisionPolicy::Never),
            (false, true, ReprovisionPolicy::Never),
        ] {
            check(policy(update, migrate), &|draft| draft.reprovision = Some(expected));
        }
        check(json!({ "reprovisionPolicy": {} }), &|draft| draft.reprovision = Some(ReprovisionPolicy::Migrate));
        let hub = |id: &str| HubId::parse(id).unwrap();
        check(json!({ "allocationPolicy": "static", "iotHubs": ["HUB-B.example"] }), &|draft| {
            (draft.allocation, draft.hubs) = (Some(AllocationPolicy::Static), vec![hub("hub-b")]);
        });
        check(json!({ "iotHubHostName": "hub-a.example" }), &|draft| {
            (draft.allocation, draft.hubs) = (Some(AllocationPolicy::Static), vec![hub("hub-a")]);
        });
        check(json!({ "allocationPolicy": "geoLatency" }), &|draft| {
            draft.allocation = Some(AllocationPolicy::LowestLatency);
        });
        let webhook = json!({ "webhookUrl": "https://w.example/a?code=s", "apiVersion": "2019-03-31" });
        check(json!({ "allocationPolicy": "custom", "customAllocationDefinition": webhook }), &|draft| {
            let (url, api_version) = ("https://w.example/a?code=s".to_owned(), "2019-03-31".to_owned());
            draft.allocation = Some(AllocationPolicy::Custom(WebhookPolicy { url, api_version }));
        });
    }

    #[test]
    fn members_that_are_refused() {
        for (more, part) in [
            (json!({ "registrationId": "dev-2" }), "registrationId is not the one of the address"),
            (json!({ "registrationId": 7 }), "registrationId is no text"),
            (json!({ "deviceId": "a b" }), "deviceId is refused"),
            (json!({ "provisioningStatus": "on" }), "provisioningStatus is neither"),
            (json!({ "provisioningStatus": true }), "provisioningStatus is no text"),
            (json!({ "initialTwin": [] }), "initialTwin is no JSON object"),
            (json!({ "initialTwin": { "tags": 1 } }), "initialTwin.tags is no JSON object"),
            (json!({ "capabilities": { "iotEdge": "yes" } }), "capabilities.iotEdge is neither true nor false"),
            (json!({ "reprovisionPolicy": true }), "reprovisionPolicy is no JSON object"),
            (json!({ "allocationPolicy": "random" }), "allocationPolicy is not one of"),
            (json!({ "allocationPolicy": "custom" }), "customAllocationDefinition is missing"),
            (
                json!({ "allocationPolicy": "custom", "customAllocationDefinition": { "webhookUrl": "https://x" } }),
                "customAllocationDefinition.apiVersion is missing",
            ),
            (json!({ "iotHubs": "hub-a.example" }), "iotHubs is no array"),
            (json!({ "iotHubs": [1] }), "iotHubs holds something that is no text"),
            (json!({ "iotHubs": ["hub-x.example"] }), "iotHubs names \"hub-x.example\", which is no linked hub"),
            (json!({ "iotHubs": vec!["hub-a.example"; 51] }), "iotHubs names more than 50 hubs"),
            (json!({ "iotHubHostName": "x" }), "iotHubHostName names \"x\""),
            (json!({ "optionalDeviceInformation": { "a": 1 } }), "optionalDeviceInformation is not kept"),
            (json!({ "trustBundleId": "t" }), "trustBundleId is not kept"),
        ] {
            let refusal = read(more.clone()).unwrap_err();
            assert!(refusal.message.starts_with(part), "{more}: {}", refusal.message);
            assert_eq!(refusal.code.code, 400_004);
        }
        let attested = |attestation: Value| {
            let body = json!({ "attestation": attestation });
            draft(&id(), &Members::of(&body).unwrap(), None, &names()).unwrap_err().message
        };
        for (attestation, part) in [
            (Value::Null, "attestation is missing"),
            (json!("x509"), "attestation is no JSON object"),
            (json!({}), "attestation.type is missing"),
            (json!({ "type": "none" }), "attestation.type is none"),
            (json!({ "type": "pin" }), "attestation.type is not one of"),
            (json!({ "type": "x509" }), "attestation.x509 has no primary certificate"),
            (json!({ "type": "x509", "x509": {} }), "attestation.x509.clientCertificates has no primary"),
            (
                json!({ "type": "x509", "x509": { "signingCertificates": {} } }),
                "attestation.x509.signingCertificates is",
            ),
            (json!({ "type": "x509", "x509": { "caReferences": {} } }), "attestation.x509.caReferences is for groups"),
            (
                json!({ "type": "x509", "x509": { "clientCertificates": { "primary": { "certificate": "?" } } } }),
                "attestation.x509.clientCertificates.primary.certificate is neither PEM nor base64",
            ),
            (
                json!({ "type": "symmetricKey", "symmetricKey": { "primaryKey": "c2VjcmV0" } }),
                "attestation.symmetricKey.primaryKey is not base64 of 16 to 64 bytes",
            ),
            (json!({ "type": "symmetricKey", "symmetricKey": { "secondaryKey": 7 } }), "attestation.symmetricKey.sec"),
            (json!({ "type": "tpm" }), "attestation.tpm has no endorsementKey"),
            (
                json!({ "type": "tpm", "tpm": { "endorsementKey": "?" } }),
                "attestation.tpm.endorsementKey is not base64",
            ),
            (
                json!({ "type": "tpm", "tpm": { "endorsementKey": "AQID" } }),
                "attestation.tpm.endorsementKey is refused",
            ),
        ] {
            let said = attested(attestation.clone());
            assert!(said.starts_with(part), "{attestation}: {said}");
        }
    }
}
