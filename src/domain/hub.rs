//! A linked hub: where devices can live, and its lifecycle.
//!
//! ```text
//! active ⇄ draining → retired        unlinked = no record at all
//! ```

use super::evidence::Geo;
use super::ids::{HubId, Incarnation, Version};
use super::time::Timestamp;

/// How a hub is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubKind {
    /// Inside this process, with a database file of its own.
    Embedded,
}

/// Whether a hub takes devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HubState {
    /// Takes devices.
    Active,
    /// Takes no new ones; those it has are moved away when they register again.
    Draining,
    /// As draining, and meant to be unlinked.
    Retired,
}

impl HubState {
    pub fn as_str(self) -> &'static str {
        match self {
            HubState::Active => "active",
            HubState::Draining => "draining",
            HubState::Retired => "retired",
        }
    }
}

/// An operator's step in a hub's lifecycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubEvent {
    Activate,
    Drain,
    Retire,
}

/// A step that the lifecycle does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a {} hub cannot be set to {}", .from.as_str(), .to.as_str())]
pub struct IllegalHubStep {
    pub from: HubState,
    pub to: HubState,
}

impl HubState {
    /// The state after an operator's step; repeating one changes nothing. Retiring is for hubs that were drained first.
    pub fn apply(self, event: HubEvent) -> Result<HubState, IllegalHubStep> {
        match (self, event) {
            (HubState::Active | HubState::Draining | HubState::Retired, HubEvent::Activate) => Ok(HubState::Active),
            (HubState::Active | HubState::Draining, HubEvent::Drain) => Ok(HubState::Draining),
            (HubState::Draining | HubState::Retired, HubEvent::Retire) => Ok(HubState::Retired),
            (HubState::Retired, HubEvent::Drain) => Err(IllegalHubStep { from: self, to: HubState::Draining }),
            (HubState::Active, HubEvent::Retire) => Err(IllegalHubStep { from: self, to: HubState::Retired }),
        }
    }
}

/// The record of a linked hub.
#[derive(Debug, Clone, PartialEq)]
pub struct Hub {
    pub id: HubId,
    /// What devices are told: a DNS name (≤ 253 characters).
    pub host_name: String,
    /// Where devices and back ends connect: `host:port`.
    pub endpoint: String,
    pub kind: HubKind,
    pub state: HubState,
    /// For `lowest_latency`.
    pub location: Option<Geo>,
    /// Share under `hashed`, 1–1000.
    pub weight: u32,
    /// Devices it may hold; `None` is no bound.
    pub capacity: Option<u64>,
    /// Calls a second that the service may make to it; `None` is no bound.
    pub calls_per_second: Option<u32>,
    /// The life of its data that the service knows: calls name it, and a hub of another one refuses them.
    pub incarnation: Option<Incarnation>,
    /// Taken down by an operator: the service behaves as if the hub did not answer.
    pub taken_down: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub version: Version,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lifecycle_table() {
        use HubEvent::*;
        use HubState::*;
        for (from, event, to) in [
            (Active, Activate, Some(Active)),
            (Active, Drain, Some(Draining)),
            (Active, Retire, None),
            (Draining, Activate, Some(Active)),
            (Draining, Drain, Some(Draining)),
            (Draining, Retire, Some(Retired)),
            (Retired, Activate, Some(Active)),
            (Retired, Drain, None),
            (Retired, Retire, Some(Retired)),
        ] {
            assert_eq!(from.apply(event).ok(), to, "{from:?} {event:?}");
        }
    }
}
