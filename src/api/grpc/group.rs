//! Enrollment groups.

use tonic::{Request, Response, Status};

use crate::domain::{Enrollment, EnrollmentId, GroupId, limits};
use crate::service::{EnrollmentListing, Service};
use crate::wire::WireFault;
use crate::wire::admin::v1;
use crate::wire::admin::v1::enrollment_group_service_server::{EnrollmentGroupService, EnrollmentGroupServiceServer};
use crate::wire::convert::enrollment::{EnrollmentMessage, Writing, group_draft, wire_enrollment};
use crate::wire::convert::field;
use crate::wire::convert::symmetric_key::wire_keys;

use super::call;
use super::failure::failed;
use super::pages::fitting;

/// See [`EnrollmentGroupService`].
#[derive(Debug)]
pub struct GroupEdge {
    service: Service,
}

impl GroupEdge {
    pub fn server(service: Service) -> EnrollmentGroupServiceServer<Self> {
        EnrollmentGroupServiceServer::new(Self { service }).max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
    }
}

fn message(enrollment: &Enrollment) -> Option<v1::EnrollmentGroup> {
    match wire_enrollment(enrollment) {
        EnrollmentMessage::Group(message) => Some(message),
        EnrollmentMessage::Individual(_) => None,
    }
}

fn id(text: &str) -> Result<EnrollmentId, Status> {
    field::id("group_id", text, GroupId::parse).map(EnrollmentId::Group).map_err(failed)
}

fn missing() -> Status {
    failed(WireFault::new("enrollment_group", "is missing"))
}

#[tonic::async_trait]
impl EnrollmentGroupService for GroupEdge {
    async fn create_enrollment_group(
        &self,
        request: Request<v1::CreateEnrollmentGroupRequest>,
    ) -> Result<Response<v1::CreateEnrollmentGroupResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let given = request.into_inner().enrollment_group.ok_or_else(missing)?;
        let draft = group_draft(&given, Writing::Create).map_err(failed)?;
        let made = self.service.create_enrollment(draft, &by).await?;
        Ok(Response::new(v1::CreateEnrollmentGroupResponse { enrollment_group: message(&made) }))
    }

    async fn get_enrollment_group(
        &self,
        request: Request<v1::GetEnrollmentGroupRequest>,
    ) -> Result<Response<v1::GetEnrollmentGroupResponse>, Status> {
        let found = self.service.enrollment(&id(&request.get_ref().group_id)?).await?;
        Ok(Response::new(v1::GetEnrollmentGroupResponse { enrollment_group: message(&found) }))
    }

    async fn get_enrollment_group_keys(
        &self,
        request: Request<v1::GetEnrollmentGroupKeysRequest>,
    ) -> Result<Response<v1::GetEnrollmentGroupKeysResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let keys = self.service.enrollment_keys(&id(&request.get_ref().group_id)?, &by).await?;
        Ok(Response::new(v1::GetEnrollmentGroupKeysResponse { keys: Some(wire_keys(&keys)) }))
    }

    async fn list_enrollment_groups(
        &self,
        request: Request<v1::ListEnrollmentGroupsRequest>,
    ) -> Result<Response<v1::ListEnrollmentGroupsResponse>, Status> {
        let request = request.get_ref();
        let page = field::page(request.page_size, &request.page_token).map_err(failed)?;
        let page = fitting(page, async |page| {
            let found = self.service.enrollments(EnrollmentListing::Groups, &page).await?;
            Ok(v1::ListEnrollmentGroupsResponse {
                enrollment_groups: found.rows.iter().filter_map(|row| message(row)).collect(),
                next_page_token: found.next.unwrap_or_default(),
            })
        });
        Ok(Response::new(page.await?))
    }

    async fn update_enrollment_group(
        &self,
        request: Request<v1::UpdateEnrollmentGroupRequest>,
    ) -> Result<Response<v1::UpdateEnrollmentGroupResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let given = request.into_inner().enrollment_group.ok_or_else(missing)?;
        let draft = group_draft(&given, Writing::Update).map_err(failed)?;
        let version = field::etag("etag", &given.etag).map_err(failed)?;
        let kept = self.service.update_enrollment(draft, version, &by).await?;
        Ok(Response::new(v1::UpdateEnrollmentGroupResponse { enrollment_group: message(&kept) }))
    }

    async fn enable_enrollment_group(
        &self,
        request: Request<v1::EnableEnrollmentGroupRequest>,
    ) -> Result<Response<v1::EnableEnrollmentGroupResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let request = request.get_ref();
        let version = field::optional_etag("etag", &request.etag).map_err(failed)?;
        let kept = self.service.set_enrollment_enabled(&id(&request.group_id)?, true, version, &by).await?;
        Ok(Response::new(v1::EnableEnrollmentGroupResponse { enrollment_group: message(&kept) }))
    }

    async fn disable_enrollment_group(
        &self,
        request: Request<v1::DisableEnrollmentGroupRequest>,
    ) -> Result<Response<v1::DisableEnrollmentGroupResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let request = request.get_ref();
        let version = field::optional_etag("etag", &request.etag).map_err(failed)?;
        let kept = self.service.set_enrollment_enabled(&id(&request.group_id)?, false, version, &by).await?;
        Ok(Response::new(v1::DisableEnrollmentGroupResponse { enrollment_group: message(&kept) }))
    }

    async fn delete_enrollment_group(
        &self,
        request: Request<v1::DeleteEnrollmentGroupRequest>,
    ) -> Result<Response<v1::DeleteEnrollmentGroupResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let request = request.get_ref();
        let version = field::optional_etag("etag", &request.etag).map_err(failed)?;
        self.service.delete_enrollment(&id(&request.group_id)?, version, &by).await?;
        Ok(Response::new(v1::DeleteEnrollmentGroupResponse {}))
    }
}
