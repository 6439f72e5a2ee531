//! The twin of a device and what a hub keeps beside it; pure rules of patching, replacing and resetting.
//!
//! Invariants: a section's version never goes down and rises by one with every accepted write; a move changes neither
//! versions nor timestamps; a reset continues the versions of the twin it replaces; a twin holds no null.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::document::{Document, DocumentFault};
use super::enrollment::InitialState;
use super::limits;
use super::shared::Shared;
use super::time::Timestamp;

/// When a property was last written, for it and everything below it (`$metadata` in reference/dps.md §8.4).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    pub last_updated_at: Timestamp,
    pub last_updated_version: u64,
    pub properties: BTreeMap<String, Metadata>,
}

/// One half of a twin's properties.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    pub properties: Document,
    /// Strictly rising with every write; 1 for a fresh section.
    pub version: u64,
    pub metadata: Shared<Metadata>,
}

/// The twin of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Twin {
    /// Written by back ends, read by the device.
    pub desired: Section,
    /// Written by the device, read by back ends.
    pub reported: Section,
    /// Back ends only.
    pub tags: Document,
    /// Rises with every write of tags or desired; 1 for a fresh twin.
    pub version: u64,
}

/// What a device is able to do beyond a plain device; carried by migrate, taken from the enrollment by reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub iot_edge: bool,
}

/// Whether the hub lets the device connect. Carried by migrate; *disabled* survives a reset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HubStatus {
    #[default]
    Enabled,
    Disabled {
        /// Free text of at most [`limits::REASON_CHARS_MAX`] characters.
        reason: String,
    },
}

/// Everything that follows a device from hub to hub.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceState {
    pub twin: Twin,
    pub capabilities: Capabilities,
    pub status: HubStatus,
}

/// A merge patch (RFC 7396) of some parts of a twin: `None` leaves a part alone, null inside deletes a key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TwinPatch {
    pub tags: Option<Document>,
    pub desired: Option<Document>,
    pub reported: Option<Document>,
}

/// Why a write of a twin was refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{section} {fault}")]
pub struct TwinFault {
    pub section: &'static str,
    pub fault: DocumentFault,
}

impl Section {
    /// A section that has been written once.
    pub fn fresh(properties: Document, version: u64, now: Timestamp) -> Self {
        let metadata = stamp(&properties.0, version, now).into();
        Self { properties, version, metadata }
    }

    /// The section after a merge patch; null deletes. Timestamps change only on the way to what was written.
    fn patched(&self, patch: &Document, now: Timestamp) -> Self {
        let mut next = self.clone();
        next.version = self.version.saturating_add(1);
        merge(&mut next.properties.0, &mut next.metadata, &patch.0, next.version, now);
        next
    }

    fn replaced(&self, properties: Document, now: Timestamp) -> Self {
        Self::fresh(without_nulls(properties), self.version.saturating_add(1), now)
    }
}

impl Twin {
    /// How far the twin has come: of two states of one twin the one that was written later is further, whichever part was
    /// written. (The version of the whole says nothing of reports.)
    pub fn progress(&self) -> u128 {
        [self.version, self.desired.version, self.reported.version].into_iter().map(u128::from).sum()
    }

    /// The same documents with every version ahead by [`limits::VERSIONS_SKIPPED`]: above whatever writes that were lost
    /// can have been given, so that who saw them does not take what follows for older.
    pub fn ahead_of_lost_writes(&self) -> Self {
        let ahead = |section: &Section| Section {
            version: section.version.saturating_add(limits::VERSIONS_SKIPPED),
            ..section.clone()
        };
        Self {
            desired: ahead(&self.desired),
            reported: ahead(&self.reported),
            tags: self.tags.clone(),
            version: self.version.saturating_add(limits::VERSIONS_SKIPPED),
        }
    }

    /// The twin of a device that a hub sees for the first time.
    pub fn initial(initial: &InitialState, now: Timestamp) -> Self {
        Self {
            desired: Section::fresh(without_nulls(initial.desired.clone()), 1, now),
            reported: Section::fresh(Document::default(), 1, now),
            tags: without_nulls(initial.tags.clone()),
            version: 1,
        }
    }

    /// The twin set back to the initial one: reported empty, versions one above this twin's so that a client that
    /// remembers the old ones does not ignore the new desired properties.
    pub fn reset(&self, initial: &InitialState, now: Timestamp) -> Self {
        Self {
            desired: self.desired.replaced(initial.desired.clone(), now),
            reported: self.reported.replaced(Document::default(), now),
            tags: without_nulls(initial.tags.clone()),
            version: self.version.saturating_add(1),
        }
    }

    /// This twin's documents put back in the place of `old`: versions one above the old ones, as at a reset.
    pub fn restored_over(&self, old: &Twin, now: Timestamp) -> Self {
        let put_back = |this: &Section, old: &Section| {
            Section::fresh(this.properties.clone(), old.version.max(this.version).saturating_add(1), now)
        };
        Self {
            desired: put_back(&self.desired, &old.desired),
            reported: put_back(&self.reported, &old.reported),
            tags: self.tags.clone(),
            version: old.version.max(self.version).saturating_add(1),
        }
    }

    /// Applies a merge patch to the parts it names. Refused whole when the outcome would break a limit.
    pub fn patched(&self, patch: &TwinPatch, now: Timestamp) -> Result<Twin, TwinFault> {
        let mut next = self.clone();
        if let Some(tags) = &patch.tags {
            check_patch("tags", tags, limits::TAGS_BYTES_MAX)?;
            merge(&mut next.tags.0, &mut Metadata::default(), &tags.0, 0, now);
        }
        if let Some(desired) = &patch.desired {
            check_patch("desired", desired, limits::DESIRED_BYTES_MAX)?;
            next.desired = self.desired.patched(desired, now);
        }
        if let Some(reported) = &patch.reported {
            check_patch("reported", reported, limits::REPORTED_BYTES_MAX)?;
            next.reported = self.reported.patched(reported, now);
        }
        if patch.tags.is_some() || patch.desired.is_some() {
            next.version = self.version.saturating_add(1);
        }
        next.check()?;
        Ok(next)
    }

    /// Replaces tags and desired as far as they are given; nulls inside are dropped.
    pub fn replaced(
        &self,
        tags: Option<Document>,
        desired: Option<Document>,
        now: Timestamp,
    ) -> Result<Twin, TwinFault> {
        let mut next = self.clone();
        if tags.is_some() || desired.is_some() {
            next.version = self.version.saturating_add(1);
        }
        if let Some(tags) = tags {
            check_patch("tags", &tags, limits::TAGS_BYTES_MAX)?;
            next.tags = without_nulls(tags);
        }
        if let Some(desired) = desired {
            check_patch("desired", &desired, limits::DESIRED_BYTES_MAX)?;
            next.desired = self.desired.replaced(desired, now);
        }
        next.check()?;
        Ok(next)
    }

    fn check(&self) -> Result<(), TwinFault> {
        check_section("tags", &self.tags, limits::TAGS_BYTES_MAX)?;
        check_section("desired", &self.desired.properties, limits::DESIRED_BYTES_MAX)?;
        check_section("reported", &self.reported.properties, limits::REPORTED_BYTES_MAX)
    }
}

/// Holds an initial configuration against the limits of a twin.
pub fn check_initial(initial: &InitialState) -> Result<(), TwinFault> {
    check_section("tags", &initial.tags, limits::TAGS_BYTES_MAX)?;
    check_section("desired", &initial.desired, limits::DESIRED_BYTES_MAX)
}

fn check_section(section: &'static str, document: &Document, bytes_max: usize) -> Result<(), TwinFault> {
    document.check(bytes_max).map_err(|fault| TwinFault { section, fault })
}

/// A patch is held against the shape limits before it is merged: a bad key that only deletes is still a bad key.
fn check_patch(section: &'static str, patch: &Document, bytes_max: usize) -> Result<(), TwinFault> {
    check_section(section, patch, bytes_max)
}

fn stamp(map: &Map<String, Value>, version: u64, now: Timestamp) -> Metadata {
    let properties = map
        .iter()
        .map(|(key, value)| {
            let below = match value {
                Value::Object(inner) => stamp(inner, version, now),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                    Metadata { last_updated_at: now, last_updated_version: version, properties: BTreeMap::new() }
                }
            };
            (key.clone(), below)
        })
        .collect();
    Metadata { last_updated_at: now, last_updated_version: version, properties }
}

/// Merges `patch` into `target` and stamps every node on the way. Depth is bounded by [`Document::check`] before.
fn merge(
    target: &mut Map<String, Value>,
    meta: &mut Metadata,
    patch: &Map<String, Value>,
    version: u64,
    now: Timestamp,
) {
    meta.last_updated_at = now;
    meta.last_updated_version = version;
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(key);
                meta.properties.remove(key);
            }
            Value::Object(inner) => {
                let below = meta.properties.entry(key.clone()).or_default();
                let slot = target.entry(key.clone()).or_insert_with(|| Value::Object(Map::new()));
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                    *below = Metadata::default();
                }
                if let Value::Object(existing) = slot {
                    merge(existing, below, inner, version, now);
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                target.insert(key.clone(), value.clone());
                meta.properties.insert(
                    key.clone(),
                    Metadata { last_updated_at: now, last_updated_version: version, properties: BTreeMap::new() },
                );
            }
        }
    }
}

/// A null deletes and is never kept: not in a document that replaces another one, nor in an initial one.
fn without_nulls(mut document: Document) -> Document {
    if has_null(&document.0) {
        strip_nulls(&mut document.0);
    }
    document
}

fn has_null(map: &Map<String, Value>) -> bool {
    map.values().any(|value| match value {
        Value::Null => true,
        Value::Object(inner) => has_null(inner),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => false,
    })
}

fn strip_nulls(map: &mut Map<String, Value>) {
    map.retain(|_, value| !value.is_null());
    for value in map.values_mut() {
        if let Value::Object(inner) = value {
            strip_nulls(inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T1: Timestamp = Timestamp(1_000);
    const T2: Timestamp = Timestamp(2_000);

    fn doc(text: &str) -> Document {
        Document::from_text(text).unwrap()
    }

    #[test]
    fn nulls_of_an_initial_configuration_are_not_kept() {
        let initial = InitialState {
            desired: doc(r#"{"a":null,"b":{"c":null,"d":1}}"#),
            tags: doc(r#"{"e":{"f":null}}"#),
            ..InitialState::default()
        };
        let fresh = Twin::initial(&initial, T1);
        for twin in [fresh.clone(), fresh.reset(&initial, T2)] {
            assert_eq!(twin.desired.properties, doc(r#"{"b":{"d":1}}"#));
            assert_eq!(twin.tags, doc(r#"{"e":{}}"#));
            assert_eq!(twin.desired.metadata.properties.len(), 1);
        }
    }

    fn initial() -> InitialState {
        InitialState {
            tags: doc(r#"{"site":"x"}"#),
            desired: doc(r#"{"rate":5,"net":{"apn":"a","mtu":1}}"#),
            capabilities: Capabilities::default(),
        }
    }

    fn desired(text: &str) -> TwinPatch {
        TwinPatch { desired: Some(doc(text)), ..TwinPatch::default() }
    }

    #[test]
    fn a_patch_merges_and_null_deletes() {
        for (patch, expected) in [
            (r#"{"rate":6}"#, r#"{"net":{"apn":"a","mtu":1},"rate":6}"#),
            (r#"{"net":{"mtu":null}}"#, r#"{"net":{"apn":"a"},"rate":5}"#),
            (r#"{"net":null}"#, r#"{"rate":5}"#),
            (r#"{"net":7}"#, r#"{"net":7,"rate":5}"#),
            (r#"{"rate":{"x":{"y":null}}}"#, r#"{"net":{"apn":"a","mtu":1},"rate":{"x":{}}}"#),
            (r#"{"list":[1,2]}"#, r#"{"list":[1,2],"net":{"apn":"a","mtu":1},"rate":5}"#),
            (r#"{"nope":null}"#, r#"{"net":{"apn":"a","mtu":1},"rate":5}"#),
        ] {
            let twin = Twin::initial(&initial(), T1).patched(&desired(patch), T2).unwrap();
            assert_eq!(twin.desired.properties.to_text(), expected, "{patch}");
            assert_eq!((twin.desired.version, twin.version, twin.reported.version), (2, 2, 1), "{patch}");
        }
    }

    #[test]
    fn timestamps_change_only_where_something_was_written() {
        let twin = Twin::initial(&initial(), T1).patched(&desired(r#"{"net":{"mtu":9}}"#), T2).unwrap();
        let meta = &twin.desired.metadata;
        assert_eq!(meta.last_updated_at, T2);
        assert_eq!(meta.properties["rate"].last_updated_at, T1);
        assert_eq!(meta.properties["net"].last_updated_at, T2);
        assert_eq!(meta.properties["net"].properties["apn"].last_updated_version, 1);
        assert_eq!(meta.properties["net"].properties["mtu"].last_updated_version, 2);
    }

    #[test]
    fn a_refused_patch_names_the_section() {
        let twin = Twin::initial(&initial(), T1);
        let patch = TwinPatch { reported: Some(doc(r#"{"a.b":1}"#)), ..TwinPatch::default() };
        assert_eq!(twin.patched(&patch, T2).unwrap_err().section, "reported");
        let big = format!("{{\"k\":[{}]}}", vec!["1"; 1100].join(","));
        let patch = TwinPatch { tags: Some(doc(&big)), ..TwinPatch::default() };
        assert_eq!(twin.patched(&patch, T2).unwrap_err().section, "tags");
    }

    #[test]
    fn a_reset_takes_the_initial_twin_and_continues_the_versions() {
        let twin = Twin::initial(&initial(), T1).patched(&desired(r#"{"rate":6}"#), T2).unwrap();
        let reset = twin.reset(&initial(), T2);
        assert_eq!(reset.desired.properties, initial().desired);
        assert!(reset.reported.properties.is_empty());
        assert_eq!((reset.desired.version, reset.reported.version, reset.version), (3, 2, 3));
    }

    #[test]
    fn a_replace_takes_whole_sections_and_drops_nulls() {
        let twin = Twin::initial(&initial(), T1).replaced(None, Some(doc(r#"{"a":{"b":null,"c":1}}"#)), T2).unwrap();
        assert_eq!(twin.desired.properties.to_text(), r#"{"a":{"c":1}}"#);
        assert_eq!(twin.tags, initial().tags);
    }
}
