//! News of a reconcile.

use super::field;
use crate::domain::{DeviceId, HubId, Order, RegistrationId, Timestamp};
use crate::wire::WireFault;
use crate::wire::admin::v1;
use crate::wire::admin::v1::reconcile_response::News;

/// What has happened to a device, as a stable word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    Kept,
    Replaced,
    Recreated,
    StartedAnew,
    AsJournaled,
    Collected,
    Unknown,
    HomeCorrected,
    Missing,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Kept => "kept",
            Outcome::Replaced => "replaced",
            Outcome::Recreated => "recreated",
            Outcome::StartedAnew => "started_anew",
            Outcome::AsJournaled => "as_journaled",
            Outcome::Collected => "collected",
            Outcome::Unknown => "unknown",
            Outcome::HomeCorrected => "home_corrected",
            Outcome::Missing => "missing",
        }
    }

    fn wire(self) -> v1::ReconcileOutcome {
        match self {
            Outcome::Kept => v1::ReconcileOutcome::Kept,
            Outcome::Replaced => v1::ReconcileOutcome::Replaced,
            Outcome::Recreated => v1::ReconcileOutcome::Recreated,
            Outcome::StartedAnew => v1::ReconcileOutcome::StartedAnew,
            Outcome::AsJournaled => v1::ReconcileOutcome::AsJournaled,
            Outcome::Collected => v1::ReconcileOutcome::Collected,
            Outcome::Unknown => v1::ReconcileOutcome::Unknown,
            Outcome::HomeCorrected => v1::ReconcileOutcome::HomeCorrected,
            Outcome::Missing => v1::ReconcileOutcome::Missing,
        }
    }

    fn read(message: &v1::ReconcileDevice) -> Result<Self, WireFault> {
        Ok(match message.outcome() {
            v1::ReconcileOutcome::Unspecified => {
                return Err(WireFault::new("device.outcome", "is missing or not known here"));
            }
            v1::ReconcileOutcome::Kept => Outcome::Kept,
            v1::ReconcileOutcome::Replaced => Outcome::Replaced,
            v1::ReconcileOutcome::Recreated => Outcome::Recreated,
            v1::ReconcileOutcome::StartedAnew => Outcome::StartedAnew,
            v1::ReconcileOutcome::AsJournaled => Outcome::AsJournaled,
            v1::ReconcileOutcome::Collected => Outcome::Collected,
            v1::ReconcileOutcome::Unknown => Outcome::Unknown,
            v1::ReconcileOutcome::HomeCorrected => Outcome::HomeCorrected,
            v1::ReconcileOutcome::Missing => Outcome::Missing,
        })
    }
}

/// One device that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReconciledDevice {
    pub hub: HubId,
    pub device: DeviceId,
    pub registration: Option<RegistrationId>,
    pub outcome: Outcome,
    /// Writes after this are lost, if there were any.
    pub seen_at: Option<Timestamp>,
    pub version: Option<u64>,
}

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReconcileNews {
    StoreBegun { orders_above: Order },
    HubBegun { hub: HubId, devices: u64 },
    Device(ReconciledDevice),
    HubDone { hub: HubId, devices: u64 },
    StoreDone,
}

pub fn wire_news(news: &ReconcileNews) -> v1::ReconcileResponse {
    let news = match news {
        ReconcileNews::StoreBegun { orders_above } => {
            News::StoreBegun(v1::ReconcileStoreBegun { orders_above: orders_above.0 })
        }
        ReconcileNews::HubBegun { hub, devices } => {
            News::HubBegun(v1::ReconcileHubBegun { hub_id: hub.to_string(), devices: *devices })
        }
        ReconcileNews::Device(device) => News::Device(v1::ReconcileDevice {
            hub_id: device.hub.to_string(),
            device_id: device.device.to_string(),
            registration_id: device.registration.as_ref().map(ToString::to_string).unwrap_or_default(),
            outcome: device.outcome.wire().into(),
            seen_at: device.seen_at.map(field::wire_time),
            version: device.version,
        }),
        ReconcileNews::HubDone { hub, devices } => {
            News::HubDone(v1::ReconcileHubDone { hub_id: hub.to_string(), devices: *devices })
        }
        ReconcileNews::StoreDone => News::StoreDone(v1::ReconcileStoreDone {}),
    };
    v1::ReconcileResponse { news: Some(news) }
}

impl TryFrom<v1::ReconcileResponse> for ReconcileNews {
    type Error = WireFault;

    fn try_from(message: v1::ReconcileResponse) -> Result<Self, WireFault> {
        let hub = |text: &str| field::id("hub_id", text, HubId::parse);
        Ok(match field::required("news", message.news)? {
            News::StoreBegun(begun) => ReconcileNews::StoreBegun { orders_above: Order(begun.orders_above) },
            News::HubBegun(begun) => ReconcileNews::HubBegun { hub: hub(&begun.hub_id)?, devices: begun.devices },
            News::Device(device) => ReconcileNews::Device(ReconciledDevice {
                hub: hub(&device.hub_id)?,
                device: field::id("device.device_id", &device.device_id, DeviceId::parse)?,
                registration: match device.registration_id.as_str() {
                    "" => None,
                    text => Some(field::id("device.registration_id", text, RegistrationId::parse)?),
                },
                outcome: Outcome::read(&device)?,
                seen_at: field::optional_time("device.seen_at", device.seen_at.as_ref())?,
                version: device.version,
            }),
            News::HubDone(done) => ReconcileNews::HubDone { hub: hub(&done.hub_id)?, devices: done.devices },
            News::StoreDone(_) => ReconcileNews::StoreDone,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_come_back() {
        let hub = HubId::parse("hub-a").unwrap();
        let device = |outcome, registration: Option<&str>| {
            ReconcileNews::Device(ReconciledDevice {
                hub: HubId::parse("hub-a").unwrap(),
                device: DeviceId::parse("d").unwrap(),
                registration: registration.map(|id| RegistrationId::parse(id).unwrap()),
                outcome,
                seen_at: registration.map(|_| Timestamp(5)),
                version: registration.map(|_| 7),
            })
        };
        for news in [
            ReconcileNews::StoreBegun { orders_above: Order(9) },
            ReconcileNews::HubBegun { hub: hub.clone(), devices: 3 },
            device(Outcome::Kept, Some("d")),
            device(Outcome::Replaced, Some("d")),
            device(Outcome::Recreated, Some("d")),
            device(Outcome::StartedAnew, Some("d")),
            device(Outcome::AsJournaled, Some("d")),
            device(Outcome::Collected, Some("d")),
            device(Outcome::Unknown, None),
            device(Outcome::HomeCorrected, Some("d")),
            device(Outcome::Missing, Some("d")),
            ReconcileNews::HubDone { hub, devices: 3 },
            ReconcileNews::StoreDone,
        ] {
            assert_eq!(ReconcileNews::try_from(wire_news(&news)), Ok(news));
        }
        assert!(ReconcileNews::try_from(v1::ReconcileResponse { news: None }).is_err());
    }
}
