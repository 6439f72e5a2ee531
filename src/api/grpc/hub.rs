//! Linked hubs.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use crate::domain::hub::HubEvent;
use crate::domain::{HubId, limits};
use crate::service::{self, HubReading, Reinstatement, Service};
use crate::wire::WireFault;
use crate::wire::admin::v1;
use crate::wire::admin::v1::hub_service_server::{HubService, HubServiceServer};
use crate::wire::convert::field;
use crate::wire::convert::hub::{HubDebts, HubUsage, draft, wire_hub};
use crate::wire::convert::reconcile::{Outcome, ReconcileNews, ReconciledDevice, wire_news};

use super::call;
use super::failure::failed;

/// See [`HubService`].
#[derive(Debug)]
pub struct HubEdge {
    service: Service,
}

impl HubEdge {
    pub fn server(service: Service) -> HubServiceServer<Self> {
        HubServiceServer::new(Self { service }).max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
    }
}

fn message(reading: &HubReading) -> Option<v1::Hub> {
    let HubReading { hub, used, reachable, restored, synced_at, lease_renewed_at, debts } = reading;
    let usage = HubUsage {
        reachable: *reachable,
        devices: used.homes,
        arriving: used.arriving,
        moves: used.moves,
        restored: *restored,
        incarnation: hub.incarnation,
        synced_at: *synced_at,
        lease_renewed_at: *lease_renewed_at,
        debts: debts.map(|service::HubDebts { owed, stuck, oldest_at, splits }| HubDebts {
            owed,
            stuck,
            oldest_at,
            splits,
        }),
    };
    Some(wire_hub(hub, usage))
}

fn news(news: service::ReconcileNews) -> ReconcileNews {
    match news {
        service::ReconcileNews::StoreBegan { orders_above } => ReconcileNews::StoreBegun { orders_above },
        service::ReconcileNews::HubBegan { hub, devices } => ReconcileNews::HubBegun { hub, devices },
        service::ReconcileNews::Device(device) => {
            let service::DeviceNews { hub, device, registration, became, seen_at, version } = device;
            let outcome = outcome(became);
            ReconcileNews::Device(ReconciledDevice { hub, device, registration, outcome, seen_at, version })
        }
        service::ReconcileNews::HubDone { hub, devices } => ReconcileNews::HubDone { hub, devices },
        service::ReconcileNews::StoreDone => ReconcileNews::StoreDone,
    }
}

fn outcome(became: Reinstatement) -> Outcome {
    match became {
        Reinstatement::Kept => Outcome::Kept,
        Reinstatement::Replaced => Outcome::Replaced,
        Reinstatement::Recreated => Outcome::Recreated,
        Reinstatement::StartedAnew => Outcome::StartedAnew,
        Reinstatement::AsJournaled => Outcome::AsJournaled,
        Reinstatement::Collected => Outcome::Collected,
        Reinstatement::Unknown => Outcome::Unknown,
        Reinstatement::HomeCorrected => Outcome::HomeCorrected,
        Reinstatement::Missing => Outcome::Missing,
    }
}

fn id(text: &str) -> Result<HubId, Status> {
    field::id("hub_id", text, HubId::parse).map_err(failed)
}

fn missing() -> Status {
    failed(WireFault::new("hub", "is missing"))
}

#[tonic::async_trait]
impl HubService for HubEdge {
    type ReconcileStream = BoxStream<'static, Result<v1::ReconcileResponse, Status>>;

    async fn link_hub(&self, request: Request<v1::LinkHubRequest>) -> Result<Response<v1::LinkHubResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let draft = draft(&request.into_inner().hub.ok_or_else(missing)?).map_err(failed)?;
        let linked = self.service.link_hub(draft, &by).await?;
        Ok(Response::new(v1::LinkHubResponse { hub: message(&linked) }))
    }

    async fn get_hub(&self, request: Request<v1::GetHubRequest>) -> Result<Response<v1::GetHubResponse>, Status> {
        let found = self.service.hub_and_debts(&id(&request.get_ref().hub_id)?).await?;
        Ok(Response::new(v1::GetHubResponse { hub: message(&found) }))
    }

    async fn list_hubs(&self, _: Request<v1::ListHubsRequest>) -> Result<Response<v1::ListHubsResponse>, Status> {
        let hubs = self.service.hubs().await?;
        Ok(Response::new(v1::ListHubsResponse { hubs: hubs.iter().filter_map(message).collect() }))
    }

    async fn update_hub(
        &self,
        request: Request<v1::UpdateHubRequest>,
    ) -> Result<Response<v1::UpdateHubResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let given = request.into_inner().hub.ok_or_else(missing)?;
        let version = field::etag("hub.etag", &given.etag).map_err(failed)?;
        let kept = self.service.update_hub(draft(&given).map_err(failed)?, version, &by).await?;
        Ok(Response::new(v1::UpdateHubResponse { hub: message(&kept) }))
    }

    async fn drain_hub(&self, request: Request<v1::DrainHubRequest>) -> Result<Response<v1::DrainHubResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let request = request.get_ref();
        let version = field::optional_etag("etag", &request.etag).map_err(failed)?;
        let kept = self.service.step_hub(&id(&request.hub_id)?, HubEvent::Drain, version, &by).await?;
        Ok(Response::new(v1::DrainHubResponse { hub: message(&kept) }))
    }

    async fn activate_hub(
        &self,
        request: Request<v1::ActivateHubRequest>,
    ) -> Result<Response<v1::ActivateHubResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let request = request.get_ref();
        let version = field::optional_etag("etag", &request.etag).map_err(failed)?;
        let kept = self.service.step_hub(&id(&request.hub_id)?, HubEvent::Activate, version, &by).await?;
        Ok(Response::new(v1::ActivateHubResponse { hub: message(&kept) }))
    }

    async fn retire_hub(
        &self,
        request: Request<v1::RetireHubRequest>,
    ) -> Result<Response<v1::RetireHubResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let request = request.get_ref();
        let version = field::optional_etag("etag", &request.etag).map_err(failed)?;
        let kept = self.service.step_hub(&id(&request.hub_id)?, HubEvent::Retire, version, &by).await?;
        Ok(Response::new(v1::RetireHubResponse { hub: message(&kept) }))
    }

    async fn unlink_hub(
        &self,
        request: Request<v1::UnlinkHubRequest>,
    ) -> Result<Response<v1::UnlinkHubResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let request = request.get_ref();
        let version = field::optional_etag("etag", &request.etag).map_err(failed)?;
        self.service.unlink_hub(&id(&request.hub_id)?, version, request.force, &by).await?;
        Ok(Response::new(v1::UnlinkHubResponse {}))
    }

    async fn take_down_hub(
        &self,
        request: Request<v1::TakeDownHubRequest>,
    ) -> Result<Response<v1::TakeDownHubResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let kept = self.service.take_down_hub(&id(&request.get_ref().hub_id)?, &by).await?;
        Ok(Response::new(v1::TakeDownHubResponse { hub: message(&kept) }))
    }

    async fn bring_up_hub(
        &self,
        request: Request<v1::BringUpHubRequest>,
    ) -> Result<Response<v1::BringUpHubResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let kept = self.service.bring_up_hub(&id(&request.get_ref().hub_id)?, &by).await?;
        Ok(Response::new(v1::BringUpHubResponse { hub: message(&kept) }))
    }

    async fn sync_hub(&self, request: Request<v1::SyncHubRequest>) -> Result<Response<v1::SyncHubResponse>, Status> {
        let devices = self.service.sync_hub(&id(&request.get_ref().hub_id)?).await?;
        Ok(Response::new(v1::SyncHubResponse { devices }))
    }

    async fn reconcile(
        &self,
        request: Request<v1::ReconcileRequest>,
    ) -> Result<Response<Self::ReconcileStream>, Status> {
        let by = call::allowed(&request)?.by;
        let request = request.get_ref();
        let only = match request.hub_id.as_str() {
            "" => None,
            text => Some(id(text)?),
        };
        let told = self.service.reconcile(only, request.dry_run, &by).await?;
        let told = told.map(|found| Ok(wire_news(&news(found?))));
        Ok(Response::new(told.boxed()))
    }
}
