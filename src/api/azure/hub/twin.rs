//! A twin as service SDKs read and write it: tags, properties with their metadata, and what is known of the device
//! (reference/dps.md §8.2 and §8.4).

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use crate::api::azure::fault::Refusal;
use crate::api::azure::members::{Members, wrong};
use crate::domain::twin::{Metadata, Section};
use crate::domain::{DeviceId, Document, TwinPatch};
use crate::service::{HubDevice, TwinWrite};

use super::{NEVER, device};

/// The twin.
pub fn shown(device: &HubDevice) -> Value {
    let state = &device.resident.state;
    let (status, reason) = device::status(&state.status);
    let credential = device.credential.as_ref();
    json!({
        "deviceId": device.resident.device.as_str(),
        "etag": etag(device),
        "deviceEtag": device::etag(device),
        "status": status,
        "statusReason": reason,
        "statusUpdateTime": NEVER,
        "connectionState": "Disconnected",
        "lastActivityTime": NEVER,
        "cloudToDeviceMessageCount": 0,
        "authenticationType": device::authentication_type(credential),
        "x509Thumbprint": device::thumbprints(credential),
        "capabilities": { "iotEdge": state.capabilities.iot_edge },
        "version": state.twin.version,
        "tags": state.twin.tags.to_value(),
        "properties": {
            "desired": section(&state.twin.desired, true),
            "reported": section(&state.twin.reported, false),
        },
    })
}

fn section(section: &Section, versions: bool) -> Value {
    let mut properties = (*section.properties.0).clone();
    properties.insert("$metadata".to_owned(), metadata(&section.metadata, versions));
    properties.insert("$version".to_owned(), section.version.into());
    Value::Object(properties)
}

fn metadata(of: &Metadata, versions: bool) -> Value {
    let mut map = Map::new();
    map.insert("$lastUpdated".to_owned(), of.last_updated_at.to_string().into());
    if versions {
        map.insert("$lastUpdatedVersion".to_owned(), of.last_updated_version.into());
    }
    map.extend(of.properties.iter().map(|(name, below)| (name.clone(), metadata(below, versions))));
    Value::Object(map)
}

/// A twin's etag: its version, and the generation that brought the device, since a device that comes anew counts from the
/// beginning.
pub fn etag(device: &HubDevice) -> String {
    let generation = device.generation.map_or(0, |generation| generation.0);
    let version = device.resident.state.twin.version;
    BASE64.encode(&[version.to_be_bytes(), generation.to_be_bytes()].concat())
}

/// How a twin is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Merge,
    Replace,
}

/// What a body asks for. Reported properties are the device's: they, and what a twin says beside, are passed over, since
/// programs write back what they have read.
pub fn write(given: &Members<'_>, device: &DeviceId, way: Way) -> Result<TwinWrite, Refusal> {
    if given.parsed("deviceId", DeviceId::parse)?.is_some_and(|named| named != *device) {
        return Err(wrong("deviceId", "is not the one of the address"));
    }
    let part = |given: &Members<'_>, name: &str| match given.value(name) {
        None => Ok(None),
        Some(_) => given.document(name).map(counted_out).map(Some),
    };
    let tags = part(given, "tags")?;
    let desired = match given.object("properties")? {
        None => None,
        Some(properties) => part(&properties, "desired")?,
    };
    Ok(match way {
        Way::Merge => TwinWrite::Patch(TwinPatch { tags, desired, reported: None }),
        Way::Replace => TwinWrite::Replace { tags, desired },
    })
}

fn counted_out(mut document: Document) -> Document {
    for name in ["$version", "$metadata"] {
        document.0.remove(name);
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Capabilities, DeviceState, HubStatus, InitialState, Order, Timestamp, Twin};
    use crate::service::Resident;

    fn id() -> DeviceId {
        DeviceId::parse("dev-1").unwrap()
    }

    fn document(text: &str) -> Document {
        Document::from_text(text).unwrap()
    }

    fn device() -> HubDevice {
        let initial = InitialState {
            tags: document(r#"{"site":"x"}"#),
            desired: document(r#"{"a":{"b":1}}"#),
            capabilities: Capabilities { iot_edge: true },
        };
        let twin = Twin::initial(&initial, Timestamp(0));
        let state = DeviceState { twin, capabilities: initial.capabilities, status: HubStatus::Enabled };
        HubDevice { resident: Resident { device: id(), state, open: true }, generation: None, credential: None }
    }

    #[test]
    fn a_twin_has_its_versions_and_times_at_every_level() {
        let shown = shown(&device());
        let at = "1970-01-01T00:00:00.000Z";
        let stamp = json!({ "$lastUpdated": at, "$lastUpdatedVersion": 1 });
        let mut metadata = json!({ "$lastUpdated": at, "$lastUpdatedVersion": 1, "a": stamp });
        metadata["a"]["b"] = stamp;
        assert_eq!(
            shown["properties"],
            json!({
                "desired": { "a": { "b": 1 }, "$metadata": metadata, "$version": 1 },
                "reported": { "$metadata": { "$lastUpdated": at }, "$version": 1 },
            })
        );
        assert_eq!((&shown["tags"], &shown["version"]), (&json!({ "site": "x" }), &json!(1)));
        assert_eq!(shown["etag"], BASE64.encode(&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]));
        let mut moved = device();
        moved.generation = Some(Order(9));
        assert_ne!(etag(&moved), etag(&device()));
    }

    #[test]
    fn what_was_read_can_be_written_back() {
        let body = shown(&device());
        let written = write(&Members::of(&body).unwrap(), &id(), Way::Replace).unwrap();
        let (tags, desired) = (Some(document(r#"{"site":"x"}"#)), Some(document(r#"{"a":{"b":1}}"#)));
        assert_eq!(written, TwinWrite::Replace { tags, desired });
    }

    #[test]
    fn parts_that_are_absent_are_left_alone() {
        let check = |body: Value, expected: Result<(Option<&str>, Option<&str>), u32>| {
            let written = write(&Members::of(&body).unwrap(), &id(), Way::Merge);
            let expected = expected.map(|(tags, desired)| {
                let patch =
                    TwinPatch { tags: tags.map(document), desired: desired.map(document), ..TwinPatch::default() };
                TwinWrite::Patch(patch)
            });
            assert_eq!(written.map_err(|refusal| refusal.code.code), expected, "{body}");
        };
        check(json!({}), Ok((None, None)));
        check(json!({ "tags": null, "properties": null }), Ok((None, None)));
        check(json!({ "tags": { "a": null } }), Ok((Some(r#"{"a":null}"#), None)));
        let both = json!({ "properties": { "desired": { "b": 1, "$version": 4 }, "reported": { "c": 1 } } });
        check(both, Ok((None, Some(r#"{"b":1}"#))));
        check(json!({ "tags": [] }), Err(400_004));
        check(json!({ "properties": { "desired": 1 } }), Err(400_004));
        check(json!({ "deviceId": "dev-2" }), Err(400_004));
    }
}
