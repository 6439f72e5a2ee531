//! Twins and their events as they are shown.

use serde::Serialize;
use serde_json::Value;

use crate::cli::api::hub;
use crate::cli::output::{Listed, Shown};
use crate::cli::value;

use super::{cell, document_fact, fact, yes_no};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SectionView {
    pub properties: Value,
    pub version: u64,
    pub metadata: Value,
}

impl SectionView {
    fn of(section: Option<hub::TwinSection>) -> Self {
        let section = section.unwrap_or_default();
        Self {
            properties: value::document(Some(&section.properties.unwrap_or_default())),
            version: section.version,
            metadata: value::document(section.metadata.as_ref()),
        }
    }
}

/// A twin as its device sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TwinView {
    pub desired: SectionView,
    pub reported: SectionView,
}

impl From<hub::Twin> for TwinView {
    fn from(twin: hub::Twin) -> Self {
        Self { desired: SectionView::of(twin.desired), reported: SectionView::of(twin.reported) }
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
    pub status: Option<String>,
    pub status_reason: Option<String>,
    pub accepts_writes: bool,
    pub iot_edge: bool,
    pub tags: Value,
    pub desired: SectionView,
    pub reported: SectionView,
    pub version: u64,
    pub etag: String,
}

impl From<hub::Device> for DeviceView {
    fn from(device: hub::Device) -> Self {
        let status = hub::DeviceStatus::try_from(device.status).ok();
        Self {
            status: value::word(status.map(|status| status.as_str_name()), "DEVICE_STATUS_"),
            status_reason: value::text(&device.status_reason),
            accepts_writes: device.accepts_writes,
            iot_edge: device.capabilities.is_some_and(|capabilities| capabilities.iot_edge),
            tags: value::document(Some(&device.tags.unwrap_or_default())),
            desired: SectionView::of(device.desired),
            reported: SectionView::of(device.reported),
            version: device.version,
            device_id: device.device_id,
            etag: device.etag,
        }
    }
}

impl Listed for DeviceView {
    const HEADINGS: &'static [&'static str] = &["device", "status", "writes", "desired", "reported", "version"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.device_id.clone(),
            cell(self.status.as_deref()),
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
            ("status", fact(self.status.as_deref())),
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

impl DesiredView {
    pub fn of(event: Option<hub::watch_desired_response::Event>) -> Option<Self> {
        use hub::watch_desired_response::Event;
        Some(match event? {
            Event::Whole(whole) => Self {
                event: "whole",
                version: Some(whole.version),
                desired: value::document(Some(&whole.desired.unwrap_or_default())),
            },
            Event::Patch(patch) => Self {
                event: "patch",
                version: Some(patch.version),
                desired: value::document(Some(&patch.patch.unwrap_or_default())),
            },
            Event::Moved(hub::DeviceMoved {}) => Self { event: "moved", version: None, desired: Value::Null },
        })
    }

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

    fn section(properties: &Value, version: u64) -> Option<hub::TwinSection> {
        let properties = Some(value::wire_object(properties.as_object().unwrap()));
        Some(hub::TwinSection { properties, version, metadata: None })
    }

    #[test]
    fn a_device_of_a_hub_is_a_row_and_facts() {
        let mut device = hub::Device {
            device_id: "dev-1".to_owned(),
            desired: section(&json!({"rate": 5}), 3),
            reported: section(&json!({}), 1),
            accepts_writes: true,
            version: 7,
            etag: "v7".to_owned(),
            ..Default::default()
        };
        device.set_status(hub::DeviceStatus::Enabled);
        let view = DeviceView::from(device);
        assert_eq!(
            table(&[view.clone()]),
            "DEVICE  STATUS   WRITES  DESIRED  REPORTED  VERSION\ndev-1   enabled  yes     v3       v1        7\n"
        );
        assert_eq!(
            facts(&view),
            "device            dev-1\n\
             status            enabled\n\
             accepts writes    yes\n\
             iot edge          no\n\
             desired           {\n                    \"rate\": 5\n                  }\n\
             desired version   3\n\
             reported version  1\n\
             version           7\n\
             etag              v7\n"
        );
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!((&json["desired"]["properties"], &json["tags"]), (&json!({"rate": 5}), &json!({})));
    }

    #[test]
    fn events_are_lines() {
        use hub::watch_desired_response::Event;
        let patch =
            hub::DesiredPatch { patch: Some(value::wire_object(json!({"a": null}).as_object().unwrap())), version: 4 };
        let line = |event| DesiredView::of(Some(event)).unwrap().line();
        assert_eq!(line(Event::Patch(patch)), "v4 patch: {\"a\":null}");
        assert_eq!(line(Event::Whole(hub::DesiredWhole { desired: None, version: 1 })), "v1 whole: {}");
        assert!(line(Event::Moved(hub::DeviceMoved {})).contains("register again"));
        assert_eq!(DesiredView::of(None), None);
    }
}
