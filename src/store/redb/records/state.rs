//! Device states in the file. Metadata is kept as its nodes in preorder, so that reading needs no recursion.

use std::collections::BTreeMap;

use super::{Decoded, RecordFault, document, fault, form};
use crate::domain::twin::Metadata;
use crate::domain::{DeviceState, HubStatus, Section, Timestamp, Twin, limits};

/// Levels of metadata that are followed: twins have at most [`limits::TWIN_DEPTH_MAX`], with room for the root.
const METADATA_DEPTH_MAX: usize = 4 * limits::TWIN_DEPTH_MAX;

fn flatten(metadata: &Metadata) -> Vec<form::MetadataNode> {
    fn visit(key: &str, depth: u32, metadata: &Metadata, nodes: &mut Vec<form::MetadataNode>) {
        nodes.push(form::MetadataNode {
            depth,
            key: key.to_owned(),
            last_updated_at: metadata.last_updated_at.0,
            last_updated_version: metadata.last_updated_version,
        });
        for (key, below) in &metadata.properties {
            visit(key, depth + 1, below, nodes);
        }
    }
    let mut nodes = Vec::new();
    visit("", 0, metadata, &mut nodes);
    nodes
}

/// Builds the tree again. `path` holds the nodes that are still growing, root first.
fn grow(nodes: Vec<form::MetadataNode>) -> Decoded<Metadata> {
    let wrong = || fault("metadata", "the nodes make no tree");
    let mut path: Vec<(String, Metadata)> = Vec::new();
    let fold = |path: &mut Vec<(String, Metadata)>| {
        if let Some((key, done)) = path.pop()
            && let Some((_, parent)) = path.last_mut()
        {
            parent.properties.insert(key, done);
        }
    };
    for (place, node) in nodes.into_iter().enumerate() {
        let depth = usize::try_from(node.depth).map_err(|_| wrong())?;
        if depth > path.len() || depth > METADATA_DEPTH_MAX || (depth == 0) != (place == 0) {
            return Err(wrong());
        }
        while path.len() > depth {
            fold(&mut path);
        }
        let metadata = Metadata {
            last_updated_at: Timestamp(node.last_updated_at),
            last_updated_version: node.last_updated_version,
            properties: BTreeMap::new(),
        };
        path.push((node.key, metadata));
    }
    while path.len() > 1 {
        fold(&mut path);
    }
    path.pop().map(|(_, root)| root).ok_or_else(wrong)
}

impl From<&Section> for form::Section {
    fn from(Section { properties, version, metadata }: &Section) -> Self {
        Self { properties: properties.to_text(), version: *version, metadata: flatten(metadata) }
    }
}

impl TryFrom<form::Section> for Section {
    type Error = RecordFault;

    fn try_from(record: form::Section) -> Decoded<Self> {
        Ok(Self {
            properties: document(&record.properties)?,
            version: record.version,
            metadata: grow(record.metadata)?.into(),
        })
    }
}

impl From<&DeviceState> for form::DeviceState {
    fn from(DeviceState { twin, capabilities, status }: &DeviceState) -> Self {
        let Twin { desired, reported, tags, version } = twin;
        Self {
            twin: form::Twin {
                desired: desired.into(),
                reported: reported.into(),
                tags: tags.to_text(),
                version: *version,
            },
            capabilities: (*capabilities).into(),
            status: match status {
                HubStatus::Enabled => form::HubStatus::Enabled,
                HubStatus::Disabled { reason } => form::HubStatus::Disabled { reason: reason.clone() },
            },
        }
    }
}

impl TryFrom<form::DeviceState> for DeviceState {
    type Error = RecordFault;

    fn try_from(record: form::DeviceState) -> Decoded<Self> {
        Ok(Self {
            twin: Twin {
                desired: record.twin.desired.try_into()?,
                reported: record.twin.reported.try_into()?,
                tags: document(&record.twin.tags)?,
                version: record.twin.version,
            },
            capabilities: record.capabilities.into(),
            status: match record.status {
                form::HubStatus::Enabled => HubStatus::Enabled,
                form::HubStatus::Disabled { reason } => HubStatus::Disabled { reason },
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Document;

    #[test]
    fn numbers_come_back_to_the_last_bit() {
        for number in (1..2000).map(|number| (f64::from(number) * 0.07).exp() / 3.0) {
            let text = format!("{{\"n\":{number:e}}}");
            let section = Section::fresh(Document::from_text(&text).unwrap(), 1, Timestamp(1));
            let back = Section::try_from(form::Section::from(&section)).unwrap();
            let read = |section: &Section| section.properties.0.get("n").and_then(serde_json::Value::as_f64);
            assert_eq!((read(&section), read(&back)), (Some(number), Some(number)));
        }
    }

    #[test]
    fn metadata_that_makes_no_tree_is_refused() {
        let node =
            |depth| form::MetadataNode { depth, key: format!("k{depth}"), last_updated_at: 0, last_updated_version: 1 };
        for (depths, fits) in [
            (vec![0], true),
            (vec![0, 1, 2, 1, 2, 2], true),
            (vec![], false),
            (vec![1], false),
            (vec![0, 0], false),
            (vec![0, 2], false),
            ((0..100).collect(), false),
        ] {
            assert_eq!(grow(depths.iter().copied().map(node).collect()).is_ok(), fits, "{depths:?}");
        }
    }
}
