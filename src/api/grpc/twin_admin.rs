//! Twins, for back ends. Every call names a hub, which the caller's role must reach.

use tonic::{Request, Response, Status};

use crate::domain::{HubId, limits};
use crate::service::{Resident, Service, TwinWrite};
use crate::wire::convert::field;
use crate::wire::convert::twin::{Merge, Replacement, StatusChange, TwinTarget, target, wire_device};
use crate::wire::hub::v1;
use crate::wire::hub::v1::twin_admin_service_server::{TwinAdminService, TwinAdminServiceServer};

use super::call;
use super::failure::failed;
use super::pages::fitting;

/// See [`TwinAdminService`].
#[derive(Debug)]
pub struct TwinAdminEdge {
    service: Service,
}

impl TwinAdminEdge {
    pub fn server(service: Service) -> TwinAdminServiceServer<Self> {
        TwinAdminServiceServer::new(Self { service }).max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
    }
}

fn message(resident: &Resident) -> v1::Device {
    wire_device(&resident.device, &resident.state, resident.open)
}

impl TwinAdminEdge {
    async fn write(
        &self,
        allowed: &call::Allowed,
        TwinTarget { hub, device }: TwinTarget,
        version: Option<u64>,
        write: TwinWrite,
    ) -> Result<Option<v1::Device>, Status> {
        allowed.at(&hub)?;
        let written = self.service.write_twin(&hub, &device, version, write).await?;
        Ok(Some(message(&written)))
    }
}

#[tonic::async_trait]
impl TwinAdminService for TwinAdminEdge {
    async fn get_twin(
        &self,
        request: Request<v1::TwinAdminServiceGetTwinRequest>,
    ) -> Result<Response<v1::TwinAdminServiceGetTwinResponse>, Status> {
        let allowed = call::allowed(&request)?;
        let request = request.get_ref();
        let TwinTarget { hub, device } = target(&request.hub_id, &request.device_id).map_err(failed)?;
        allowed.at(&hub)?;
        let found = self.service.twin(&hub, &device).await?;
        Ok(Response::new(v1::TwinAdminServiceGetTwinResponse { device: Some(message(&found)) }))
    }

    async fn update_twin(
        &self,
        request: Request<v1::UpdateTwinRequest>,
    ) -> Result<Response<v1::UpdateTwinResponse>, Status> {
        let allowed = call::allowed(&request)?;
        let Merge { target, patch, version } = Merge::try_from(request.get_ref()).map_err(failed)?;
        let device = self.write(&allowed, target, version, TwinWrite::Patch(patch)).await?;
        Ok(Response::new(v1::UpdateTwinResponse { device }))
    }

    async fn replace_twin(
        &self,
        request: Request<v1::ReplaceTwinRequest>,
    ) -> Result<Response<v1::ReplaceTwinResponse>, Status> {
        let allowed = call::allowed(&request)?;
        let Replacement { target, tags, desired, version } =
            Replacement::try_from(request.get_ref()).map_err(failed)?;
        let device = self.write(&allowed, target, version, TwinWrite::Replace { tags, desired }).await?;
        Ok(Response::new(v1::ReplaceTwinResponse { device }))
    }

    async fn list_twins(
        &self,
        request: Request<v1::ListTwinsRequest>,
    ) -> Result<Response<v1::ListTwinsResponse>, Status> {
        let allowed = call::allowed(&request)?;
        let request = request.get_ref();
        let hub = &field::id("hub_id", &request.hub_id, HubId::parse).map_err(failed)?;
        let page = field::page(request.page_size, &request.page_token).map_err(failed)?;
        allowed.at(hub)?;
        let page = fitting(page, async |page| {
            let found = self.service.list_twins(hub, page.size, page.token.as_deref()).await?;
            Ok(v1::ListTwinsResponse {
                devices: found.rows.iter().map(message).collect(),
                next_page_token: found.next.unwrap_or_default(),
            })
        });
        Ok(Response::new(page.await?))
    }

    async fn update_device_status(
        &self,
        request: Request<v1::UpdateDeviceStatusRequest>,
    ) -> Result<Response<v1::UpdateDeviceStatusResponse>, Status> {
        let allowed = call::allowed(&request)?;
        let StatusChange { target, status, version } = StatusChange::try_from(request.get_ref()).map_err(failed)?;
        let device = self.write(&allowed, target, version, TwinWrite::Status(status)).await?;
        Ok(Response::new(v1::UpdateDeviceStatusResponse { device }))
    }
}
