//! Registration, for devices.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use crate::domain::token::hub_resource;
use crate::domain::{OperationStatus, RegistrationId, limits};
use crate::service::{BeginAsk, Begun, DeviceView, QuoteAsk, RegisterAsk, Service, TOKEN_KEY_NAME, TpmAnswer};
use crate::wire::convert::field;
use crate::wire::convert::registration::{
    AssignedHub, RegisterCall, RegistrationUpdate, TpmCredential, UpdateStatus, operation_of,
};
use crate::wire::convert::tpm::{BeginAnswer, BeginCall, QuoteChallenge};
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
    let RegisterCall { registration_id, facts, request_id, tpm } = RegisterCall::try_from(request).map_err(failed)?;
    let tpm = tpm.map(|answer| TpmAnswer {
        challenge: answer.challenge,
        quote: answer.quote.map(|quote| QuoteAsk {
            attest: quote.attested,
            signature: quote.signature,
            values: quote.values.into_iter().collect(),
            key_proof: quote.key_proof,
        }),
    });
    Ok(RegisterAsk { registration_id, facts, request_id, tpm })
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
        tpm: tpm_credential(view),
        created_at: standing.created_at,
        updated_at: standing.updated_at,
    };
    Some((&update).into())
}

/// What a device with a TPM needs at its hub; told once it is there.
fn tpm_credential(DeviceView { standing, home, .. }: &DeviceView) -> Option<TpmCredential> {
    match &standing.operation.status {
        OperationStatus::Assigned { .. } => Some(TpmCredential {
            authentication_key: standing.tpm.as_ref()?.blob.to_vec(),
            resource: hub_resource(&home.as_ref()?.host_name, &standing.device_id),
        }),
        OperationStatus::Assigning | OperationStatus::Failed { .. } | OperationStatus::Disabled => None,
    }
}

/// A challenge in the words of the wire.
fn begun(begun: Begun) -> BeginAnswer {
    let invitation = begun.invitation;
    BeginAnswer {
        challenge: begun.id,
        blob: invitation.blob,
        key_name: TOKEN_KEY_NAME.to_owned(),
        expires_at: invitation.expires_at,
        quote: invitation.quote.map(|quote| QuoteChallenge {
            nonce: quote.nonce.to_vec(),
            pcrs: quote.indices,
            credential: quote.credential.unwrap_or_default(),
        }),
    }
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
        let peer = call::peer(&request)?;
        let call = BeginCall::try_from(request.into_inner()).map_err(failed)?;
        let ask = BeginAsk {
            registration_id: call.registration_id,
            endorsement_key: call.endorsement_key,
            storage_root_key: call.storage_root_key,
            endorsement_certificates: call.endorsement_certificates,
            attestation_key: call.attestation_key,
        };
        Ok(Response::new(begun(self.service.begin_tpm(&peer, &ask).await?).into()))
    }
}
