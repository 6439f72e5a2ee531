//! A device at its hub: its own twin, its reports, and the desired properties as they change.

use tonic::transport::Channel;
use tonic::{Request, Streaming};

use super::fault::ClientFault;
use super::proof::Pass;
use super::target::Target;
use super::{AssignedHub, DesiredChange};
use crate::domain::{DeviceId, Document, HubId, Section};
use crate::wire::convert::field::required;
use crate::wire::convert::json::wire_document;
use crate::wire::convert::twin::section;
use crate::wire::hub::v1;
use crate::wire::hub::v1::twin_service_client::TwinServiceClient;

/// The hub that a device was assigned to. Calls fail with `DEVICE_MOVING` or `DEVICE_MOVED` once it is not any more:
/// register again.
#[derive(Debug, Clone)]
pub struct Home {
    hub: HubId,
    device: DeviceId,
    twins: TwinServiceClient<Channel>,
    /// Absent: the certificate of the connection lets the device in.
    pass: Option<Pass>,
}

/// A device's own twin; its tags are for back ends.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnTwin {
    pub desired: Section,
    pub reported: Section,
}

impl Home {
    pub(super) async fn open(
        target: &Target,
        hub: &AssignedHub,
        device: &DeviceId,
        pass: Option<Pass>,
    ) -> Result<Self, ClientFault> {
        let channel = target.at(&hub.endpoint, &hub.host_name).connect().await?;
        Ok(Self { hub: hub.id.clone(), device: device.clone(), twins: TwinServiceClient::new(channel), pass })
    }

    async fn call<T>(&self, message: T) -> Result<Request<T>, ClientFault> {
        match &self.pass {
            Some(pass) => pass.show(message).await,
            None => Ok(Request::new(message)),
        }
    }

    pub fn hub(&self) -> &HubId {
        &self.hub
    }

    /// Whether a token lets the device in, and not the certificate of the connection.
    pub(super) fn comes_by_token(&self) -> bool {
        self.pass.is_some()
    }

    pub async fn twin(&self) -> Result<OwnTwin, ClientFault> {
        let request = v1::GetTwinRequest { hub_id: self.hub.to_string(), device_id: self.device.to_string() };
        let twin = required("twin", self.twins.clone().get_twin(self.call(request).await?).await?.into_inner().twin)?;
        Ok(OwnTwin {
            desired: section("desired", twin.desired.as_ref())?,
            reported: section("reported", twin.reported.as_ref())?,
        })
    }

    /// Merges into the reported properties (null deletes a key); the version they have then. Durable once it is answered.
    pub async fn report(&self, patch: &Document) -> Result<u64, ClientFault> {
        let request = v1::UpdateReportedRequest {
            hub_id: self.hub.to_string(),
            device_id: self.device.to_string(),
            patch: Some(wire_document(patch)),
        };
        Ok(self.twins.clone().update_reported(self.call(request).await?).await?.into_inner().version)
    }

    /// The desired properties: whole first, then every change.
    pub async fn watch(&self) -> Result<Watch, ClientFault> {
        let request = v1::WatchDesiredRequest { hub_id: self.hub.to_string(), device_id: self.device.to_string() };
        Ok(Watch { events: self.twins.clone().watch_desired(self.call(request).await?).await?.into_inner() })
    }
}

/// A stream of changes.
#[derive(Debug)]
pub struct Watch {
    events: Streaming<v1::WatchDesiredResponse>,
}

impl Watch {
    pub(super) fn over(events: Streaming<v1::WatchDesiredResponse>) -> Self {
        Self { events }
    }

    /// The next change; `None` when the hub ended the stream. Safe to drop while it waits.
    pub async fn next(&mut self) -> Result<Option<DesiredChange>, ClientFault> {
        match self.events.message().await? {
            Some(event) => Ok(Some(DesiredChange::try_from(&event)?)),
            None => Ok(None),
        }
    }
}
