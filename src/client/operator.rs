//! Every call of the API over one connection, with messages as they are on the wire and faults with their reasons.

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::wire::{RemoteFault, admin, device, hub};

use super::ClientFault;

use admin::v1::audit_service_client::AuditServiceClient;
use admin::v1::enrollment_group_service_client::EnrollmentGroupServiceClient;
use admin::v1::enrollment_service_client::EnrollmentServiceClient;
use admin::v1::hub_service_client::HubServiceClient;
use admin::v1::registration_service_client::RegistrationServiceClient;
use admin::v1::store_service_client::StoreServiceClient;
use device::v1::registration_service_client::RegistrationServiceClient as DeviceServiceClient;
use hub::v1::twin_admin_service_client::TwinAdminServiceClient;
use hub::v1::twin_service_client::TwinServiceClient;

/// Where the service is and who calls. PEM texts; the key is secret.
#[derive(Clone)]
pub struct Access {
    /// `https://host:port`.
    pub server: String,
    /// Whom to believe that it is the service.
    pub ca_pem: Vec<u8>,
    /// Certificate chain and private key; `None` calls as nobody.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Access({}, {})",
            self.server,
            if self.identity.is_some() { "with a certificate" } else { "as nobody" }
        )
    }
}

/// A connection to the service.
#[derive(Debug, Clone)]
pub struct Api {
    channel: Channel,
}

impl Api {
    pub async fn connect(access: &Access) -> Result<Self, ClientFault> {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&access.ca_pem));
        if let Some((certificate, key)) = &access.identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        let endpoint = Endpoint::from_shared(access.server.clone())
            .map_err(|source| ClientFault::Unusable { what: "the server's address", source })?
            .tls_config(tls)
            .map_err(|source| ClientFault::Unusable { what: "the certificates", source })?;
        let channel = endpoint
            .connect()
            .await
            .map_err(|source| ClientFault::Unreachable { server: access.server.clone(), source })?;
        Ok(Self { channel })
    }
}

/// One method for each call: the service's generated client, the call, request and response.
macro_rules! calls {
    ($($client:ident . $call:ident($request:ty) -> $response:ty;)+) => {
        impl Api {
            $(pub async fn $call(&self, request: $request) -> Result<$response, ClientFault> {
                let answer = $client::new(self.channel.clone()).$call(request).await;
                answer.map(tonic::Response::into_inner).map_err(refused)
            })+
        }
    };
}

fn refused(status: tonic::Status) -> ClientFault {
    RemoteFault::from(&status).into()
}

calls! {
    HubServiceClient.link_hub(admin::v1::LinkHubRequest) -> admin::v1::LinkHubResponse;
    HubServiceClient.get_hub(admin::v1::GetHubRequest) -> admin::v1::GetHubResponse;
    HubServiceClient.list_hubs(admin::v1::ListHubsRequest) -> admin::v1::ListHubsResponse;
    HubServiceClient.update_hub(admin::v1::UpdateHubRequest) -> admin::v1::UpdateHubResponse;
    HubServiceClient.drain_hub(admin::v1::DrainHubRequest) -> admin::v1::DrainHubResponse;
    HubServiceClient.activate_hub(admin::v1::ActivateHubRequest) -> admin::v1::ActivateHubResponse;
    HubServiceClient.retire_hub(admin::v1::RetireHubRequest) -> admin::v1::RetireHubResponse;
    HubServiceClient.unlink_hub(admin::v1::UnlinkHubRequest) -> admin::v1::UnlinkHubResponse;
    HubServiceClient.take_down_hub(admin::v1::TakeDownHubRequest) -> admin::v1::TakeDownHubResponse;
    HubServiceClient.bring_up_hub(admin::v1::BringUpHubRequest) -> admin::v1::BringUpHubResponse;
    EnrollmentServiceClient.create_enrollment(admin::v1::CreateEnrollmentRequest) -> admin::v1::CreateEnrollmentResponse;
    EnrollmentServiceClient.get_enrollment(admin::v1::GetEnrollmentRequest) -> admin::v1::GetEnrollmentResponse;
    EnrollmentServiceClient.list_enrollments(admin::v1::ListEnrollmentsRequest) -> admin::v1::ListEnrollmentsResponse;
    EnrollmentServiceClient.update_enrollment(admin::v1::UpdateEnrollmentRequest) -> admin::v1::UpdateEnrollmentResponse;
    EnrollmentServiceClient.enable_enrollment(admin::v1::EnableEnrollmentRequest) -> admin::v1::EnableEnrollmentResponse;
    EnrollmentServiceClient.disable_enrollment(admin::v1::DisableEnrollmentRequest) -> admin::v1::DisableEnrollmentResponse;
    EnrollmentServiceClient.delete_enrollment(admin::v1::DeleteEnrollmentRequest) -> admin::v1::DeleteEnrollmentResponse;
    EnrollmentGroupServiceClient.create_enrollment_group(admin::v1::CreateEnrollmentGroupRequest) -> admin::v1::CreateEnrollmentGroupResponse;
    EnrollmentGroupServiceClient.get_enrollment_group(admin::v1::GetEnrollmentGroupRequest) -> admin::v1::GetEnrollmentGroupResponse;
    EnrollmentGroupServiceClient.list_enrollment_groups(admin::v1::ListEnrollmentGroupsRequest) -> admin::v1::ListEnrollmentGroupsResponse;
    EnrollmentGroupServiceClient.update_enrollment_group(admin::v1::UpdateEnrollmentGroupRequest) -> admin::v1::UpdateEnrollmentGroupResponse;
    EnrollmentGroupServiceClient.enable_enrollment_group(admin::v1::EnableEnrollmentGroupRequest) -> admin::v1::EnableEnrollmentGroupResponse;
    EnrollmentGroupServiceClient.disable_enrollment_group(admin::v1::DisableEnrollmentGroupRequest) -> admin::v1::DisableEnrollmentGroupResponse;
    EnrollmentGroupServiceClient.delete_enrollment_group(admin::v1::DeleteEnrollmentGroupRequest) -> admin::v1::DeleteEnrollmentGroupResponse;
    RegistrationServiceClient.list_registrations(admin::v1::ListRegistrationsRequest) -> admin::v1::ListRegistrationsResponse;
    RegistrationServiceClient.get_registration(admin::v1::GetRegistrationRequest) -> admin::v1::GetRegistrationResponse;
    RegistrationServiceClient.list_history(admin::v1::ListHistoryRequest) -> admin::v1::ListHistoryResponse;
    RegistrationServiceClient.get_history_twins(admin::v1::GetHistoryTwinsRequest) -> admin::v1::GetHistoryTwinsResponse;
    RegistrationServiceClient.explain(admin::v1::ExplainRequest) -> admin::v1::ExplainResponse;
    RegistrationServiceClient.reprovision(admin::v1::ReprovisionRequest) -> admin::v1::ReprovisionResponse;
    RegistrationServiceClient.unpin(admin::v1::UnpinRequest) -> admin::v1::UnpinResponse;
    RegistrationServiceClient.revoke(admin::v1::RevokeRequest) -> admin::v1::RevokeResponse;
    RegistrationServiceClient.delete_registration(admin::v1::DeleteRegistrationRequest) -> admin::v1::DeleteRegistrationResponse;
    AuditServiceClient.list_audit_entries(admin::v1::ListAuditEntriesRequest) -> admin::v1::ListAuditEntriesResponse;
    AuditServiceClient.get_audit_entry(admin::v1::GetAuditEntryRequest) -> admin::v1::GetAuditEntryResponse;
    TwinAdminServiceClient.update_twin(hub::v1::UpdateTwinRequest) -> hub::v1::UpdateTwinResponse;
    TwinAdminServiceClient.replace_twin(hub::v1::ReplaceTwinRequest) -> hub::v1::ReplaceTwinResponse;
    TwinAdminServiceClient.list_twins(hub::v1::ListTwinsRequest) -> hub::v1::ListTwinsResponse;
    TwinAdminServiceClient.update_device_status(hub::v1::UpdateDeviceStatusRequest) -> hub::v1::UpdateDeviceStatusResponse;
    TwinServiceClient.get_twin(hub::v1::GetTwinRequest) -> hub::v1::GetTwinResponse;
    TwinServiceClient.update_reported(hub::v1::UpdateReportedRequest) -> hub::v1::UpdateReportedResponse;
    DeviceServiceClient.look_up_registration(device::v1::LookUpRegistrationRequest) -> device::v1::LookUpRegistrationResponse;
}

/// A stream of answers; it ends with the first fault.
pub type Answers<T> = BoxStream<'static, Result<T, ClientFault>>;

fn answers<T: Send + 'static>(answer: tonic::Response<tonic::Streaming<T>>) -> Answers<T> {
    answer.into_inner().map(|item| item.map_err(refused)).boxed()
}

impl Api {
    /// The back end's view of a twin; the device's is [`Api::get_twin`].
    pub async fn get_device(
        &self,
        request: hub::v1::TwinAdminServiceGetTwinRequest,
    ) -> Result<hub::v1::TwinAdminServiceGetTwinResponse, ClientFault> {
        let answer = TwinAdminServiceClient::new(self.channel.clone()).get_twin(request).await;
        answer.map(tonic::Response::into_inner).map_err(refused)
    }

    pub async fn register(
        &self,
        request: device::v1::RegisterRequest,
    ) -> Result<Answers<device::v1::RegisterResponse>, ClientFault> {
        DeviceServiceClient::new(self.channel.clone()).register(request).await.map(answers).map_err(refused)
    }

    pub async fn watch_desired(
        &self,
        request: hub::v1::WatchDesiredRequest,
    ) -> Result<Answers<hub::v1::WatchDesiredResponse>, ClientFault> {
        TwinServiceClient::new(self.channel.clone()).watch_desired(request).await.map(answers).map_err(refused)
    }

    pub async fn backup(&self) -> Result<Answers<admin::v1::BackupResponse>, ClientFault> {
        let request = admin::v1::BackupRequest {};
        StoreServiceClient::new(self.channel.clone()).backup(request).await.map(answers).map_err(refused)
    }
}
