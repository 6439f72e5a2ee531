//! Registration, for devices.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use crate::domain::{Fault, Reason, RegistrationId, limits};
use crate::service::{DeviceView, RegisterAsk, Service};
use crate::wire::convert::field;
use crate::wire::convert::registration::{AssignedHub, RegisterCall, RegistrationUpdate, UpdateStatus, operation_of};
use crate::wire::device::v1;
use crate::wire::device::v1::registration_service_server::{RegistrationService, RegistrationServiceServer};

use super::call;
use super::failure::failed;

/// See [`RegistrationService`].
#[derive(Debug)]
pub struct RegistrationEdge {
    service: Service,
}

impl RegistrationEdge {
    pub fn server(service: Service) -> RegistrationServiceServer<Self> {
        RegistrationServiceServer::new(Self { service }).max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
    }
}

fn ask(request: &v1::RegisterRequest) -> Result<RegisterAsk, Status> {
    let RegisterCall { registration_id, facts, request_id } = RegisterCall::try_from(request).map_err(failed)?;
    Ok(RegisterAsk { registration_id, facts, request_id })
}

fn update(view: &DeviceView) -> Option<v1::RegistrationUpdate> {
    let DeviceView { standing, home, retry_after } = view;
    let assignment = standing.assignment.as_ref();
    let update = RegistrationUpdate {
        registration_id: standing.id.clone(),
        operation_id: standing.operation.id,
        status: UpdateStatus::from(&standing.operation.status),
        device_id: standing.device_id.clone(),
        hub: assignment.map(|assignment| AssignedHub {
            id: assignment.hub.clone(),
            // A hub that is no longer linked has neither.
            host_name: home.as_ref().map(|hub| hub.host_name.clone()).unwrap_or_default(),
            endpoint: home.as_ref().map(|hub| hub.endpoint.clone()).unwrap_or_default(),
            assigned_at: assignment.assigned_at,
        }),
        generation: assignment.map_or(0, |assignment| assignment.generation.0),
        payload: standing.payload.as_deref().and_then(|text| serde_json::from_str(text).ok()),
        retry_after: *retry_after,
        created_at: standing.created_at,
        updated_at: standing.updated_at,
    };
    Some((&update).into())
}

#[tonic::async_trait]
impl RegistrationService for RegistrationEdge {
    type RegisterStream = BoxStream<'static, Result<v1::RegisterResponse, Status>>;

    async fn register(&self, request: Request<v1::RegisterRequest>) -> Result<Response<Self::RegisterStream>, Status> {
        let peer = call::peer(&request)?;
        let registering = self.service.register(&peer, &ask(request.get_ref())?).await?;
        let updates = self.service.follow(registering);
        let told = updates.map(|view| Ok(v1::RegisterResponse { update: update(&view?) }));
        Ok(Response::new(told.boxed()))
    }

    async fn start_registration(
        &self,
        request: Request<v1::StartRegistrationRequest>,
    ) -> Result<Response<v1::StartRegistrationResponse>, Status> {
        let peer = call::peer(&request)?;
        let registering = self.service.register(&peer, &ask(&request.into_inner().into())?).await?;
        Ok(Response::new(v1::StartRegistrationResponse { update: update(&registering.view) }))
    }

    async fn get_operation(
        &self,
        request: Request<v1::GetOperationRequest>,
    ) -> Result<Response<v1::GetOperationResponse>, Status> {
        let peer = call::peer(&request)?;
        let (registration, operation) = operation_of(request.get_ref()).map_err(failed)?;
        let view = self.service.operation(&peer, &registration, operation).await?;
        Ok(Response::new(v1::GetOperationResponse { update: update(&view) }))
    }

    async fn look_up_registration(
        &self,
        request: Request<v1::LookUpRegistrationRequest>,
    ) -> Result<Response<v1::LookUpRegistrationResponse>, Status> {
        let peer = call::peer(&request)?;
        let id = field::id("registration_id", &request.get_ref().registration_id, RegistrationId::parse);
        let view = self.service.look_up(&peer, &id.map_err(failed)?).await?;
        Ok(Response::new(v1::LookUpRegistrationResponse { update: update(&view) }))
    }

    async fn begin_tpm_attestation(
        &self,
        request: Request<v1::BeginTpmAttestationRequest>,
    ) -> Result<Response<v1::BeginTpmAttestationResponse>, Status> {
        field::id("registration_id", &request.get_ref().registration_id, RegistrationId::parse).map_err(failed)?;
        Err(Fault::new(Reason::NotYetSupported, "no enrollment of this build accepts a proof by TPM").into())
    }
}
