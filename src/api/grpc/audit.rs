//! The audit log.

use tonic::{Request, Response, Status};

use crate::domain::{TrackingId, limits};
use crate::service::{AuditFilter, Service};
use crate::wire::admin::v1::audit_service_server::{AuditService, AuditServiceServer};
use crate::wire::admin::v1::{
    GetAuditEntryRequest, GetAuditEntryResponse, ListAuditEntriesRequest, ListAuditEntriesResponse,
};
use crate::wire::convert::audit::AuditQuery;
use crate::wire::convert::field;

use super::failure::failed;
use super::pages::fitting;

/// See [`AuditService`].
#[derive(Debug)]
pub struct AuditEdge {
    service: Service,
}

impl AuditEdge {
    pub fn server(service: Service) -> AuditServiceServer<Self> {
        AuditServiceServer::new(Self { service }).max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl AuditService for AuditEdge {
    async fn list_audit_entries(
        &self,
        request: Request<ListAuditEntriesRequest>,
    ) -> Result<Response<ListAuditEntriesResponse>, Status> {
        let AuditQuery { action, registration, page } = AuditQuery::try_from(request.get_ref()).map_err(failed)?;
        let filter = &AuditFilter { action, registration };
        let page = fitting(page, async |page| {
            let found = self.service.audit_entries(filter, &page).await?;
            Ok(ListAuditEntriesResponse {
                entries: found.rows.iter().map(Into::into).collect(),
                next_page_token: found.next.unwrap_or_default(),
            })
        });
        Ok(Response::new(page.await?))
    }

    async fn get_audit_entry(
        &self,
        request: Request<GetAuditEntryRequest>,
    ) -> Result<Response<GetAuditEntryResponse>, Status> {
        let tracking = field::id("tracking_id", &request.get_ref().tracking_id, str::parse::<TrackingId>);
        let entry = self.service.audit_entry(tracking.map_err(failed)?).await?;
        Ok(Response::new(GetAuditEntryResponse { entry: Some((&entry).into()) }))
    }
}
