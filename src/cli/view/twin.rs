//! Twins and their events as they are shown.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::cli::output::{Listed, Shown};
use crate::client::{DesiredChange, DeviceRecord, OwnTwin};
use crate::domain::twin::Metadata;
use crate::domain::{HubStatus, Section, Version};

use super::{document_fact, fact, full, yes_no};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SectionView {
    pub properties: Value,
    pub version: u64,
    pub metadata: Value,
}

impl From<Section> for SectionView {
    fn from(section: Section) -> Self {
        Self {
            properties: section.properties.into_value(),
            version: section.version,
            metadata: metadata(&section.metadata),
        }
    }
}

/// The tree of the properties with, in every node, when it was written and under which version.
fn metadata(node: &Metadata) -> Value {
    let mut object: Map<String, Value> =
        node.properties.iter().map(|(key, below)| (key.clone(), metadata(below))).collect();
    object.insert("$lastUpdated".to_owned(), Value::from(node.last_updated_at.to_string()));
    object.insert("$lastUpdatedVersion".to_owned(), Value::from(node.last_updated_version));
    Value::Object(object)
}

/// A twin as its device sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TwinView {
    pub desired: SectionView,
    pub reported: SectionView,
}

impl From<OwnTwin> for TwinView {
    fn from(twin: OwnTwin) -> Self {
        Self { desired: twin.desired.into(), reported: twin.reported.into() }
    }
}

impl Shown for TwinView {
    fn facts(&self) -> Vec<(&'static str, String)> {
        vec![
            ("desired", document_fact(&self.desired.properties)),
            ("desired version", self.desired.version.to_string()),
            ("reported", document_fact(&self.reported.properties)),
            ("reported version", self.reported.version.to_string()),
        ]
    }
}

/// A device of a hub as back ends see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceView {
    pub device_id: String,
    pub status: &'static str,
    pub status_reason: Option<String>,
    pub accepts_writes: bool,
    pub iot_edge: bool,
    pub tags: Value,
    pub desired: SectionView,
    pub reported: SectionView,
    pub version: u64,
    pub etag: String,
}

impl From<DeviceRecord> for DeviceView {
    fn from(record: DeviceRecord) -> Self {
        let version = Version(record.state.twin.version);
        let twin = record.state.twin;
        let (status, status_reason) = match record.state.status {
            HubStatus::Enabled => ("enabled", None),
            HubStatus::Disabled { reason } => ("disabled", full(reason)),
        };
        Self {
            device_id: record.device.to_string(),
            status,
            status_reason,
            accepts_writes: record.accepts_writes,
            iot_edge: record.state.capabilities.iot_edge,
            tags: twin.tags.into_value(),
            desired: twin.desired.into(),
            reported: twin.reported.into(),
            version: version.0,
            etag: version.etag(),
        }
    }
}

impl Listed for DeviceView {
    const HEADINGS: &'static [&'static str] = &["device", "status", "writes", "desired", "reported", "version"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.device_id.clone(),
            self.status.to_owned(),
            yes_no(self.accepts_writes),
            format!("v{}", self.desired.version),
            format!("v{}", self.reported.version),
            self.version.to_string(),
        ]
    }
}

impl Shown for DeviceView {
    fn facts(&self) -> Vec<(&'static str, String)> {
        vec![
            ("device", self.device_id.clone()),
            ("status", self.status.to_owned()),
            ("status reason", fact(self.status_reason.as_deref())),
            ("accepts writes", yes_no(self.accepts_writes)),
            ("iot edge", yes_no(self.iot_edge)),
            ("tags", document_fact(&self.tags)),
            ("desired", document_fact(&self.desired.properties)),
            ("desired version", self.desired.version.to_string()),
            ("reported", document_fact(&self.reported.properties)),
            ("reported version", self.reported.version.to_string()),
            ("version", self.version.to_string()),
            ("etag", self.etag.clone()),
        ]
    }
}

/// One event of a watch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DesiredView {
    /// `whole`, `patch` or `moved`.
    pub event: &'static str,
    pub version: Option<u64>,
    /// The whole document, or the merge patch.
    pub desired: Value,
}

impl From<DesiredChange> for DesiredView {
    fn from(change: DesiredChange) -> Self {
        match change {
            DesiredChange::Whole { desired, version } => {
                Self { event: "whole", version: Some(version), desired: desired.into_value() }
            }
            DesiredChange::Patch { patch, version } => {
                Self { event: "patch", version: Some(version), desired: patch.into_value() }
            }
            DesiredChange::Moved => Self { event: "moved", version: None, desired: Value::Null },
        }
    }
}

impl DesiredView {
    /// The event in one line.
    pub fn line(&self) -> String {
        match self.version {
            Some(version) => format!("v{version} {}: {}", self.event, self.desired),
            None => "the device is being moved: register again, then watch at its new hub".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::output::{facts, table};
    use crate::domain::{Capabilities, DeviceId, DeviceState, Document, InitialState, Timestamp, Twin};

    fn record() -> DeviceRecord {
        let initial = InitialState { desired: Document::from_text(r#"{"rate":5}"#).unwrap(), ..Default::default() };
        let twin = Twin::initial(&initial, Timestamp(0));
        let state = DeviceState { twin, capabilities: Capabilities::default(), status: HubStatus::Enabled };
        DeviceRecord { device: DeviceId::parse("dev-1").unwrap(), state, accepts_writes: true }
    }

    #[test]
    fn a_device_of_a_hub_is_a_row_and_facts() {
        let view = DeviceView::from(record());
        assert_eq!(
            table(std::slice::from_ref(&view)),
            "DEVICE  STATUS   WRITES  DESIRED  REPORTED  VERSION\ndev-1   enabled  yes     v1       v1        1\n"
        );
        assert_eq!(
            facts(&view),
            "device            dev-1\n\
             status            enabled\n\
             accepts writes    yes\n\
             iot edge          no\n\
             desired           {\n                    \"rate\": 5\n                  }\n\
             desired version   1\n\
             reported version  1\n\
             version           1\n\
             etag              v1\n"
        );
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!((&json["desired"]["properties"], &json["tags"]), (&json!({"rate": 5}), &json!({})));
        assert_eq!(json["desired"]["metadata"]["rate"]["$lastUpdatedVersion"], 1);
    }

    #[test]
    fn events_are_lines() {
        let document = |text: &str| Document::from_text(text).unwrap();
        let line = |change| DesiredView::from(change).line();
        let patch = DesiredChange::Patch { patch: document(r#"{"a":null}"#), version: 4 };
        assert_eq!(line(patch), "v4 patch: {\"a\":null}");
        assert_eq!(line(DesiredChange::Whole { desired: document("{}"), version: 1 }), "v1 whole: {}");
        assert!(line(DesiredChange::Moved).contains("register again"));
    }
}
