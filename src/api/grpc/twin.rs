//! Twins, for the devices they describe.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use crate::domain::limits;
use crate::service::{DesiredEvent, Service};
use crate::wire::convert::twin::{DesiredChange, Report, TwinTarget, target, wire_twin};
use crate::wire::hub::v1;
use crate::wire::hub::v1::twin_service_server::{TwinService, TwinServiceServer};

use super::call;
use super::failure::failed;

/// See [`TwinService`].
#[derive(Debug)]
pub struct TwinEdge {
    service: Service,
}

impl TwinEdge {
    pub fn server(service: Service) -> TwinServiceServer<Self> {
        TwinServiceServer::new(Self { service }).max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
    }
}

fn change(event: DesiredEvent) -> DesiredChange {
    match event {
        DesiredEvent::Whole { desired, version } => DesiredChange::Whole { desired, version },
        DesiredEvent::Patch { patch, version } => DesiredChange::Patch { patch, version },
        DesiredEvent::Moved => DesiredChange::Moved,
    }
}

#[tonic::async_trait]
impl TwinService for TwinEdge {
    async fn get_twin(&self, request: Request<v1::GetTwinRequest>) -> Result<Response<v1::GetTwinResponse>, Status> {
        let peer = call::peer(&request)?;
        let request = request.get_ref();
        let TwinTarget { hub, device } = target(&request.hub_id, &request.device_id).map_err(failed)?;
        let resident = self.service.own_twin(&peer.evidence, &hub, &device).await?;
        Ok(Response::new(v1::GetTwinResponse { twin: Some(wire_twin(&resident.state.twin)) }))
    }

    async fn update_reported(
        &self,
        request: Request<v1::UpdateReportedRequest>,
    ) -> Result<Response<v1::UpdateReportedResponse>, Status> {
        let peer = call::peer(&request)?;
        let Report { target: TwinTarget { hub, device }, patch } =
            Report::try_from(request.get_ref()).map_err(failed)?;
        let resident = self.service.report(&peer.evidence, &hub, &device, patch).await?;
        Ok(Response::new(v1::UpdateReportedResponse { version: resident.state.twin.reported.version }))
    }

    type WatchDesiredStream = BoxStream<'static, Result<v1::WatchDesiredResponse, Status>>;

    async fn watch_desired(
        &self,
        request: Request<v1::WatchDesiredRequest>,
    ) -> Result<Response<Self::WatchDesiredStream>, Status> {
        let peer = call::peer(&request)?;
        let request = request.get_ref();
        let TwinTarget { hub, device } = target(&request.hub_id, &request.device_id).map_err(failed)?;
        let watch = self.service.watch_desired(&peer.evidence, &hub, &device).await?;
        let told = watch.into_stream().map(|event| Ok((&change(event)).into()));
        Ok(Response::new(told.boxed()))
    }
}
