//! An enrollment as it is read: a record to JSON. Absent members are left out.

use serde_json::{Map, Value, json};

use crate::api::azure::etag;
use crate::api::azure::names::Names;
use crate::api::azure::time::seven_digits;
use crate::domain::{AllocationPolicy, Enrollment, EnrollmentId, KeyPair, ReprovisionPolicy, TokenKey};

use super::{EnrollmentKind, attestation};

/// The record, with keys where they are handed and with the webhook's address masked.
pub fn shown(enrollment: &Enrollment, names: &Names, keys: Option<&KeyPair<TokenKey>>) -> Map<String, Value> {
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| drop(body.insert(name.to_owned(), value));
    put(EnrollmentKind::of(&enrollment.id).id_member(), enrollment.id.name().into());
    if let EnrollmentId::Individual(_) = enrollment.id
        && let Some(device) = &enrollment.device_id
    {
        put("deviceId", device.as_str().into());
    }
    put("attestation", attestation::shown(&enrollment.attestation, names, keys));
    put("capabilities", json!({ "iotEdge": enrollment.initial.capabilities.iot_edge }));
    let initial = &enrollment.initial;
    if !initial.tags.is_empty() || !initial.desired.is_empty() {
        let (tags, desired) = (initial.tags.to_value(), initial.desired.to_value());
        put("initialTwin", json!({ "tags": tags, "properties": { "desired": desired } }));
    }
    put("etag", etag::of(enrollment.version, enrollment.created_at).into());
    put("provisioningStatus", if enrollment.enabled { "enabled" } else { "disabled" }.into());
    if let Some(policy) = enrollment.reprovision {
        let (update, migrate) = match policy {
            ReprovisionPolicy::Migrate => (true, true),
            ReprovisionPolicy::Reset => (true, false),
            ReprovisionPolicy::Never => (false, false),
        };
        put("reprovisionPolicy", json!({ "updateHubAssignment": update, "migrateDeviceData": migrate }));
    }
    if let Some(policy) = &enrollment.allocation {
        put("allocationPolicy", allocation_word(policy).into());
        if let AllocationPolicy::Custom(webhook) = policy {
            let definition = json!({ "webhookUrl": webhook.masked_url(), "apiVersion": webhook.api_version });
            put("customAllocationDefinition", definition);
        }
    }
    if !enrollment.hubs.is_empty() {
        put("iotHubs", enrollment.hubs.iter().map(|hub| names.host(hub)).collect());
    }
    put("createdDateTimeUtc", seven_digits(enrollment.created_at).into());
    put("lastUpdatedDateTimeUtc", seven_digits(enrollment.updated_at).into());
    body
}

fn allocation_word(policy: &AllocationPolicy) -> &'static str {
    match policy {
        AllocationPolicy::Static => "static",
        AllocationPolicy::Hashed => "hashed",
        AllocationPolicy::LowestLatency => "geoLatency",
        AllocationPolicy::Custom(_) => "custom",
    }
}
