//! Twins and what a hub keeps beside them.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

use super::field;
use super::json;
use crate::domain::twin::Metadata;
use crate::domain::{
    Capabilities, DeviceId, DeviceState, Document, HubId, HubStatus, Section, Timestamp, Twin, TwinPatch, Version,
    limits,
};
use crate::wire::WireFault;
use crate::wire::hub::v1;

const LAST_UPDATED: &str = "$lastUpdated";
const LAST_UPDATED_VERSION: &str = "$lastUpdatedVersion";

/// Which device at which hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinTarget {
    pub hub: HubId,
    pub device: DeviceId,
}

/// The device that a request names.
pub fn target(hub_id: &str, device_id: &str) -> Result<TwinTarget, WireFault> {
    Ok(TwinTarget {
        hub: field::id("hub_id", hub_id, HubId::parse)?,
        device: field::id("device_id", device_id, DeviceId::parse)?,
    })
}

/// The version that must still hold; empty is none.
fn precondition(etag: &str) -> Result<Option<u64>, WireFault> {
    field::optional_etag("etag", etag).map(|version| version.map(|version| version.0))
}

/// A device's report.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub target: TwinTarget,
    pub patch: Document,
}

impl TryFrom<&v1::UpdateReportedRequest> for Report {
    type Error = WireFault;

    fn try_from(request: &v1::UpdateReportedRequest) -> Result<Self, WireFault> {
        Ok(Self {
            target: target(&request.hub_id, &request.device_id)?,
            patch: json::document("patch", field::required("patch", request.patch.as_ref())?)?,
        })
    }
}

/// A back end's merge.
#[derive(Debug, Clone, PartialEq)]
pub struct Merge {
    pub target: TwinTarget,
    pub patch: TwinPatch,
    /// The twin version that must still hold.
    pub version: Option<u64>,
}

impl TryFrom<&v1::UpdateTwinRequest> for Merge {
    type Error = WireFault;

    fn try_from(request: &v1::UpdateTwinRequest) -> Result<Self, WireFault> {
        let (tags, desired) = sections(request.tags.as_ref(), request.desired.as_ref())?;
        Ok(Self {
            target: target(&request.hub_id, &request.device_id)?,
            patch: TwinPatch { tags, desired, reported: None },
            version: precondition(&request.etag)?,
        })
    }
}

/// A back end's replacement of the sections that are given.
#[derive(Debug, Clone, PartialEq)]
pub struct Replacement {
    pub target: TwinTarget,
    pub tags: Option<Document>,
    pub desired: Option<Document>,
    /// The twin version that must still hold.
    pub version: Option<u64>,
}

impl TryFrom<&v1::ReplaceTwinRequest> for Replacement {
    type Error = WireFault;

    fn try_from(request: &v1::ReplaceTwinRequest) -> Result<Self, WireFault> {
        let (tags, desired) = sections(request.tags.as_ref(), request.desired.as_ref())?;
        let target = target(&request.hub_id, &request.device_id)?;
        Ok(Self { target, tags, desired, version: precondition(&request.etag)? })
    }
}

type Sections = (Option<Document>, Option<Document>);

/// A write that names no section would change nothing and raise no version: surely a mistake.
fn sections(tags: Option<&prost_types::Struct>, desired: Option<&prost_types::Struct>) -> Result<Sections, WireFault> {
    if tags.is_none() && desired.is_none() {
        return Err(WireFault::new("desired", "is missing, and tags too: say what to write"));
    }
    Ok((json::optional_document("tags", tags)?, json::optional_document("desired", desired)?))
}

/// A back end's decision to let a device in or keep it out.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusChange {
    pub target: TwinTarget,
    pub status: HubStatus,
    /// The twin version that must still hold.
    pub version: Option<u64>,
}

impl TryFrom<&v1::UpdateDeviceStatusRequest> for StatusChange {
    type Error = WireFault;

    fn try_from(request: &v1::UpdateDeviceStatusRequest) -> Result<Self, WireFault> {
        let status = match request.status() {
            v1::DeviceStatus::Unspecified => return Err(WireFault::new("status", "is missing: say what it is to be")),
            v1::DeviceStatus::Enabled if request.reason.is_empty() => HubStatus::Enabled,
            v1::DeviceStatus::Enabled => return Err(WireFault::new("reason", "is kept with a disabled device only")),
            v1::DeviceStatus::Disabled => {
                HubStatus::Disabled { reason: field::free_text("reason", &request.reason, limits::REASON_CHARS_MAX)? }
            }
        };
        let target = target(&request.hub_id, &request.device_id)?;
        Ok(Self { target, status, version: precondition(&request.etag)? })
    }
}

pub fn wire_section(section: &Section) -> v1::TwinSection {
    v1::TwinSection {
        properties: Some(json::wire_document(&section.properties)),
        version: section.version,
        metadata: Some(json::wire_object(&metadata_object(&section.metadata))),
    }
}

/// A section of an answer.
pub fn section(field: &'static str, message: Option<&v1::TwinSection>) -> Result<Section, WireFault> {
    let message = field::required(field, message)?;
    let properties = json::document_or_empty(field, message.properties.as_ref())?;
    let metadata = json::document_or_empty(field, message.metadata.as_ref())?;
    Ok(Section { properties, version: message.version, metadata: metadata_of(field, &metadata.0)?.into() })
}

fn metadata_object(metadata: &Metadata) -> Map<String, Value> {
    let own = [
        (LAST_UPDATED.to_owned(), Value::String(metadata.last_updated_at.to_string())),
        (LAST_UPDATED_VERSION.to_owned(), Value::Number(Number::from(metadata.last_updated_version))),
    ];
    let below = metadata.properties.iter().map(|(key, inner)| (key.clone(), Value::Object(metadata_object(inner))));
    // Keys of properties hold no '$', so none is hidden by the two of our own.
    own.into_iter().chain(below).collect()
}

/// Depth is bounded by the translation to JSON before.
fn metadata_of(field: &'static str, object: &Map<String, Value>) -> Result<Metadata, WireFault> {
    let fault = || WireFault::new(field, "has metadata of another form");
    let at = object.get(LAST_UPDATED).and_then(Value::as_str).ok_or_else(fault)?;
    let last_updated_at: Timestamp = at.parse().map_err(|_| fault())?;
    let last_updated_version = object.get(LAST_UPDATED_VERSION).and_then(Value::as_u64).ok_or_else(fault)?;
    let properties = object
        .iter()
        .filter(|(key, _)| *key != LAST_UPDATED && *key != LAST_UPDATED_VERSION)
        .map(|(key, value)| {
            let inner = value.as_object().ok_or_else(fault)?;
            Ok((key.clone(), metadata_of(field, inner)?))
        })
        .collect::<Result<BTreeMap<_, _>, WireFault>>()?;
    Ok(Metadata { last_updated_at, last_updated_version, properties })
}

/// The twin as its device sees it: without tags.
pub fn wire_twin(twin: &Twin) -> v1::Twin {
    v1::Twin { desired: Some(wire_section(&twin.desired)), reported: Some(wire_section(&twin.reported)) }
}

/// The device as back ends see it. `accepts_writes` is false while it is on its way in or out.
pub fn wire_device(device: &DeviceId, state: &DeviceState, accepts_writes: bool) -> v1::Device {
    let (status, status_reason) = match &state.status {
        HubStatus::Enabled => (v1::DeviceStatus::Enabled, String::new()),
        HubStatus::Disabled { reason } => (v1::DeviceStatus::Disabled, reason.clone()),
    };
    v1::Device {
        device_id: device.to_string(),
        tags: Some(json::wire_document(&state.twin.tags)),
        desired: Some(wire_section(&state.twin.desired)),
        reported: Some(wire_section(&state.twin.reported)),
        version: state.twin.version,
        etag: Version(state.twin.version).etag(),
        capabilities: Some(v1::DeviceCapabilities { iot_edge: state.capabilities.iot_edge }),
        status: status.into(),
        status_reason,
        accepts_writes,
    }
}

/// A device as a back end reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceRecord {
    pub device: DeviceId,
    pub state: DeviceState,
    /// False while the device is on its way in or out.
    pub accepts_writes: bool,
}

impl TryFrom<&v1::Device> for DeviceRecord {
    type Error = WireFault;

    fn try_from(message: &v1::Device) -> Result<Self, WireFault> {
        let status = match message.status() {
            v1::DeviceStatus::Unspecified => return Err(WireFault::new("status", "is missing or not known here")),
            v1::DeviceStatus::Enabled => HubStatus::Enabled,
            v1::DeviceStatus::Disabled => HubStatus::Disabled { reason: message.status_reason.clone() },
        };
        Ok(Self {
            device: field::id("device_id", &message.device_id, DeviceId::parse)?,
            state: DeviceState {
                twin: Twin {
                    desired: section("desired", message.desired.as_ref())?,
                    reported: section("reported", message.reported.as_ref())?,
                    tags: json::document_or_empty("tags", message.tags.as_ref())?,
                    version: message.version,
                },
                capabilities: Capabilities {
                    iot_edge: message.capabilities.as_ref().is_some_and(|capabilities| capabilities.iot_edge),
                },
                status,
            },
            accepts_writes: message.accepts_writes,
        })
    }
}

/// What a watcher of desired properties is told.
#[derive(Debug, Clone, PartialEq)]
pub enum DesiredChange {
    /// The whole document: first, and again for a reader that fell behind.
    Whole { desired: Document, version: u64 },
    /// A merge patch that leads from `version - 1` to `version`.
    Patch { patch: Document, version: u64 },
    /// Register again. The last one.
    Moved,
}

impl From<&DesiredChange> for v1::WatchDesiredResponse {
    fn from(change: &DesiredChange) -> Self {
        use v1::watch_desired_response::Event;
        let event = match change {
            DesiredChange::Whole { desired, version } => {
                Event::Whole(v1::DesiredWhole { desired: Some(json::wire_document(desired)), version: *version })
            }
            DesiredChange::Patch { patch, version } => {
                Event::Patch(v1::DesiredPatch { patch: Some(json::wire_document(patch)), version: *version })
            }
            DesiredChange::Moved => Event::Moved(v1::DeviceMoved {}),
        };
        Self { event: Some(event) }
    }
}

impl TryFrom<&v1::WatchDesiredResponse> for DesiredChange {
    type Error = WireFault;

    fn try_from(message: &v1::WatchDesiredResponse) -> Result<Self, WireFault> {
        use v1::watch_desired_response::Event;
        match field::required("event", message.event.as_ref())? {
            Event::Whole(whole) => Ok(DesiredChange::Whole {
                desired: json::document_or_empty("whole.desired", whole.desired.as_ref())?,
                version: whole.version,
            }),
            Event::Patch(patch) => Ok(DesiredChange::Patch {
                patch: json::document_or_empty("patch.patch", patch.patch.as_ref())?,
                version: patch.version,
            }),
            Event::Moved(v1::DeviceMoved {}) => Ok(DesiredChange::Moved),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::InitialState;

    fn doc(text: &str) -> Document {
        Document::from_text(text).unwrap()
    }

    fn state(status: HubStatus) -> DeviceState {
        let initial = InitialState {
            tags: doc(r#"{"site":"x"}"#),
            desired: doc(r#"{"rate":5,"net":{"apn":"a","mtu":1}}"#),
            capabilities: Capabilities { iot_edge: true },
        };
        let patch = TwinPatch {
            desired: Some(doc(r#"{"net":{"mtu":9}}"#)),
            reported: Some(doc(r#"{"on":[true,0.5]}"#)),
            tags: None,
        };
        let twin = Twin::initial(&initial, Timestamp(1_001)).patched(&patch, Timestamp(2_002)).unwrap();
        DeviceState { twin, capabilities: initial.capabilities, status }
    }

    #[test]
    fn devices_come_back_with_versions_and_timestamps() {
        let device = DeviceId::parse("pump#7").unwrap();
        for status in [HubStatus::Enabled, HubStatus::Disabled { reason: "stolen".to_owned() }] {
            for accepts_writes in [true, false] {
                let record = DeviceRecord { device: device.clone(), state: state(status.clone()), accepts_writes };
                let message = wire_device(&device, &record.state, accepts_writes);
                assert_eq!(message.etag, Version(record.state.twin.version).etag());
                assert_eq!(DeviceRecord::try_from(&message), Ok(record));
            }
        }
    }

    #[test]
    fn a_device_does_not_see_tags() {
        let twin = state(HubStatus::Enabled).twin;
        let message = wire_twin(&twin);
        assert_eq!(section("desired", message.desired.as_ref()), Ok(twin.desired));
        assert_eq!(section("reported", message.reported.as_ref()), Ok(twin.reported));
        assert!(!format!("{message:?}").contains("site"));
    }

    #[test]
    fn every_field_of_a_device_is_checked() {
        fn refused(change: impl FnOnce(&mut v1::Device), field: &str) {
            let device = DeviceId::parse("d").unwrap();
            let mut message = wire_device(&device, &state(HubStatus::Enabled), true);
            change(&mut message);
            assert_eq!(DeviceRecord::try_from(&message).map_err(|fault| fault.field), Err(field));
        }
        let text = |text: &str| {
            let value = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text.to_owned())) };
            Some(prost_types::Struct { fields: [(LAST_UPDATED.to_owned(), value)].into() })
        };
        refused(|d| d.device_id.clear(), "device_id");
        refused(|d| d.desired = None, "desired");
        refused(|d| d.reported = None, "reported");
        refused(|d| d.desired.get_or_insert_default().metadata = None, "desired");
        refused(|d| d.desired.get_or_insert_default().metadata = text("yesterday"), "desired");
        refused(|d| d.reported.get_or_insert_default().metadata = text("2026-01-31T12:00:00Z"), "reported");
        refused(|d| d.status = 0, "status");
    }

    #[test]
    fn writes_are_checked() {
        let written = || Some(json::wire_document(&doc(r#"{"a":null}"#)));
        let update = |hub: &str, device: &str, desired: Option<prost_types::Struct>, etag: &str| {
            let (hub_id, device_id, etag) = (hub.to_owned(), device.to_owned(), etag.to_owned());
            Merge::try_from(&v1::UpdateTwinRequest { hub_id, device_id, tags: None, desired, etag })
                .map_err(|fault| fault.field)
        };
        let merge = update("hub-a", "d", written(), "v7").unwrap();
        assert_eq!((merge.version, merge.patch.tags, merge.patch.desired), (Some(7), None, Some(doc(r#"{"a":null}"#))));
        assert_eq!(update("", "d", written(), ""), Err("hub_id"));
        assert_eq!(update("hub-a", "a b", written(), ""), Err("device_id"));
        assert_eq!(update("hub-a", "d", None, ""), Err("desired"));
        assert_eq!(update("hub-a", "d", written(), "7"), Err("etag"));

        let nothing =
            v1::ReplaceTwinRequest { hub_id: "h".to_owned(), device_id: "d".to_owned(), ..Default::default() };
        assert_eq!(Replacement::try_from(&nothing).map_err(|fault| fault.field), Err("desired"));
        let report = v1::UpdateReportedRequest { hub_id: "h".to_owned(), device_id: "d".to_owned(), patch: None };
        assert_eq!(Report::try_from(&report).map_err(|fault| fault.field), Err("patch"));
    }

    #[test]
    fn a_status_is_said_and_its_reason_bounded() {
        let change = |status: v1::DeviceStatus, reason: String| {
            let request = v1::UpdateDeviceStatusRequest {
                hub_id: "h".to_owned(),
                device_id: "d".to_owned(),
                status: status.into(),
                reason,
                etag: String::new(),
            };
            StatusChange::try_from(&request).map(|change| change.status).map_err(|fault| fault.field)
        };
        let stolen = HubStatus::Disabled { reason: "stolen".to_owned() };
        assert_eq!(change(v1::DeviceStatus::Disabled, "stolen".to_owned()), Ok(stolen));
        assert_eq!(change(v1::DeviceStatus::Enabled, String::new()), Ok(HubStatus::Enabled));
        assert_eq!(change(v1::DeviceStatus::Unspecified, String::new()), Err("status"));
        assert_eq!(change(v1::DeviceStatus::Enabled, "back".to_owned()), Err("reason"));
        assert_eq!(change(v1::DeviceStatus::Disabled, "x".repeat(129)), Err("reason"));
    }

    #[test]
    fn changes_come_back() {
        for change in [
            DesiredChange::Whole { desired: doc(r#"{"a":1}"#), version: 3 },
            DesiredChange::Patch { patch: doc(r#"{"a":null}"#), version: 4 },
            DesiredChange::Moved,
        ] {
            assert_eq!(DesiredChange::try_from(&v1::WatchDesiredResponse::from(&change)), Ok(change));
        }
        assert!(DesiredChange::try_from(&v1::WatchDesiredResponse { event: None }).is_err());
    }
}
