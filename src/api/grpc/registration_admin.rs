//! Registrations, for operators.

use tonic::{Request, Response, Status};

use crate::domain::{DeviceId, Fault, Order, RegistrationId, limits};
use crate::service::{
    Effect, KeptState, PinRequest, RegistrationFilter, RegistrationView, Resolve, Service, StatusFilter, UndoWish, Way,
};
use crate::wire::admin::v1;
use crate::wire::admin::v1::registration_service_server::{RegistrationService, RegistrationServiceServer};
use crate::wire::convert::field;
use crate::wire::convert::registration_admin::{
    RegistrationQuery, ReprovisionCall, Resolution, ResolveCall, StatusQuery, UndoCall,
};
use crate::wire::convert::registration_record::HistoryTwin;
use crate::wire::convert::twin::DeviceRecord;

use super::call;
use super::failure::failed;
use super::pages::fitting;
use super::records;

/// See [`RegistrationService`].
#[derive(Debug)]
pub struct RegistrationAdminEdge {
    service: Service,
}

impl RegistrationAdminEdge {
    pub fn server(service: Service) -> RegistrationServiceServer<Self> {
        RegistrationServiceServer::new(Self { service }).max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
    }
}

fn id(text: &str) -> Result<RegistrationId, Status> {
    field::id("registration_id", text, RegistrationId::parse).map_err(failed)
}

fn message(view: &RegistrationView) -> v1::Registration {
    (&records::registration(view)).into()
}

fn filter(query: &RegistrationQuery) -> RegistrationFilter {
    RegistrationFilter {
        hub: query.hub.clone(),
        group: query.group.clone(),
        status: query.status.map(|status| match status {
            StatusQuery::Assigning => StatusFilter::Assigning,
            StatusQuery::Assigned => StatusFilter::Assigned,
            StatusQuery::Failed => StatusFilter::Failed,
            StatusQuery::Disabled => StatusFilter::Disabled,
        }),
        policy: query.policy,
        pinned: query.pinned,
    }
}

fn history_twin(kept: KeptState, device: &DeviceId) -> v1::HistoryTwin {
    let KeptState { hub, at, late, state, differences } = kept;
    let device = DeviceRecord { device: device.clone(), state, accepts_writes: false };
    (&HistoryTwin { hub, at, late, device, differences }).into()
}

#[tonic::async_trait]
impl RegistrationService for RegistrationAdminEdge {
    async fn list_registrations(
        &self,
        request: Request<v1::ListRegistrationsRequest>,
    ) -> Result<Response<v1::ListRegistrationsResponse>, Status> {
        let query = RegistrationQuery::try_from(request.get_ref()).map_err(failed)?;
        let filter = &filter(&query);
        let page = fitting(query.page, async |page| {
            let found = self.service.registrations(filter, &page).await?;
            Ok(v1::ListRegistrationsResponse {
                registrations: found.rows.iter().map(message).collect(),
                next_page_token: found.next.unwrap_or_default(),
            })
        });
        Ok(Response::new(page.await?))
    }

    async fn get_registration(
        &self,
        request: Request<v1::GetRegistrationRequest>,
    ) -> Result<Response<v1::GetRegistrationResponse>, Status> {
        let view = self.service.registration(&id(&request.get_ref().registration_id)?).await?;
        Ok(Response::new(v1::GetRegistrationResponse { registration: Some(message(&view)) }))
    }

    async fn list_history(
        &self,
        request: Request<v1::ListHistoryRequest>,
    ) -> Result<Response<v1::ListHistoryResponse>, Status> {
        let episodes = self.service.history(&id(&request.get_ref().registration_id)?).await?;
        let entries = episodes.iter().map(|episode| (&records::episode(episode)).into()).collect();
        Ok(Response::new(v1::ListHistoryResponse { entries }))
    }

    async fn get_history_twins(
        &self,
        request: Request<v1::GetHistoryTwinsRequest>,
    ) -> Result<Response<v1::GetHistoryTwinsResponse>, Status> {
        let request = request.get_ref();
        let (device, states) =
            self.service.history_states(&id(&request.registration_id)?, Order(request.generation)).await?;
        let twins = states.into_iter().map(|kept| history_twin(kept, &device)).collect();
        Ok(Response::new(v1::GetHistoryTwinsResponse { twins }))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Result<Response<v1::ExplainResponse>, Status> {
        let explained = self.service.explain(&id(&request.get_ref().registration_id)?).await?;
        Ok(Response::new((&records::explanation(&explained)).into()))
    }

    async fn reprovision(
        &self,
        request: Request<v1::ReprovisionRequest>,
    ) -> Result<Response<v1::ReprovisionResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let ReprovisionCall { registration, to, pin_expires_at, reason, request_id } =
            ReprovisionCall::try_from(request.get_ref()).map_err(failed)?;
        let to = to.map(|hub| PinRequest { hub, reason, expires_at: pin_expires_at });
        let view = self.service.reprovision(&registration, to, request_id, &by).await?;
        Ok(Response::new(v1::ReprovisionResponse { registration: Some(message(&view)) }))
    }

    async fn undo_move(&self, request: Request<v1::UndoMoveRequest>) -> Result<Response<v1::UndoMoveResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let UndoCall { registration, generation, restore_twin, reason, pin_expires_at, request_id } =
            UndoCall::try_from(request.get_ref()).map_err(failed)?;
        let wish = UndoWish { generation, restore_twin, reason, expires_at: pin_expires_at, by, request_id };
        let view = self.service.undo(&registration, wish).await?;
        Ok(Response::new(v1::UndoMoveResponse { registration: Some(message(&view)) }))
    }

    async fn resolve_move(
        &self,
        request: Request<v1::ResolveMoveRequest>,
    ) -> Result<Response<v1::ResolveMoveResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let ResolveCall { registration, generation, what, hub, resolution, reason } =
            ResolveCall::try_from(request.get_ref()).map_err(failed)?;
        let effect = match what {
            None => None,
            Some(word) => Some(Effect::parse(&word).ok_or_else(|| {
                Fault::invalid("what", "is not a word for what is owed: see `what` of the obligations")
            })?),
        };
        let way = match resolution {
            Resolution::Retry => Way::Retry,
            Resolution::Abandon => Way::Abandon,
            Resolution::Force => Way::Force,
        };
        let wish = Resolve { generation, effect, hub, way, by, why: reason };
        let view = self.service.resolve(&registration, wish).await?;
        Ok(Response::new(v1::ResolveMoveResponse { registration: Some(message(&view)) }))
    }

    async fn forget_late_twin(
        &self,
        request: Request<v1::ForgetLateTwinRequest>,
    ) -> Result<Response<v1::ForgetLateTwinResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let request = request.get_ref();
        self.service.forget_late_twin(&id(&request.registration_id)?, Order(request.generation), &by).await?;
        Ok(Response::new(v1::ForgetLateTwinResponse {}))
    }

    async fn unpin(&self, request: Request<v1::UnpinRequest>) -> Result<Response<v1::UnpinResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let request = request.get_ref();
        let version = field::optional_etag("etag", &request.etag).map_err(failed)?;
        let view = self.service.unpin(&id(&request.registration_id)?, version, &by).await?;
        Ok(Response::new(v1::UnpinResponse { registration: Some(message(&view)) }))
    }

    async fn revoke(&self, request: Request<v1::RevokeRequest>) -> Result<Response<v1::RevokeResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let request = request.get_ref();
        let reason = field::free_text("reason", &request.reason, limits::REASON_CHARS_MAX).map_err(failed)?;
        let revoked = self.service.revoke(&id(&request.registration_id)?, &reason, &by).await?;
        Ok(Response::new(v1::RevokeResponse {
            enrollment: Some((&revoked.enrollment).into()),
            registration: revoked.registration.as_ref().map(message),
        }))
    }

    async fn delete_registration(
        &self,
        request: Request<v1::DeleteRegistrationRequest>,
    ) -> Result<Response<v1::DeleteRegistrationResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let request = request.get_ref();
        let version = field::optional_etag("etag", &request.etag).map_err(failed)?;
        let left = self.service.delete_registration(&id(&request.registration_id)?, version, &by).await?;
        Ok(Response::new(v1::DeleteRegistrationResponse { registration: left.as_ref().map(message) }))
    }

    async fn reset_storage_root_key(
        &self,
        request: Request<v1::ResetStorageRootKeyRequest>,
    ) -> Result<Response<v1::ResetStorageRootKeyResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let request = request.get_ref();
        let version = field::optional_etag("etag", &request.etag).map_err(failed)?;
        let view = self.service.forget_storage_root_key(&id(&request.registration_id)?, version, &by).await?;
        Ok(Response::new(v1::ResetStorageRootKeyResponse { registration: Some(message(&view)) }))
    }
}
