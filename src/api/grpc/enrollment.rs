//! Individual enrollments.

use tonic::{Request, Response, Status};

use crate::domain::{Enrollment, EnrollmentId, Fault, RegistrationId, limits};
use crate::service::{EnrollmentListing, Imported, Service};
use crate::wire::WireFault;
use crate::wire::admin::v1;
use crate::wire::admin::v1::enrollment_service_server::{EnrollmentService, EnrollmentServiceServer};
use crate::wire::convert::enrollment::{EnrollmentMessage, Writing, draft, wire_enrollment};
use crate::wire::convert::field;
use crate::wire::convert::symmetric_key::wire_keys;

use super::call;
use super::failure::failed;
use super::pages::fitting;

/// See [`EnrollmentService`].
#[derive(Debug)]
pub struct EnrollmentEdge {
    service: Service,
}

impl EnrollmentEdge {
    pub fn server(service: Service) -> EnrollmentServiceServer<Self> {
        EnrollmentServiceServer::new(Self { service }).max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
    }
}

fn message(enrollment: &Enrollment) -> Option<v1::Enrollment> {
    match wire_enrollment(enrollment) {
        EnrollmentMessage::Individual(message) => Some(message),
        EnrollmentMessage::Group(_) => None,
    }
}

fn outcome(imported: Imported) -> v1::ImportOutcome {
    let (status, differs, refusal) = match imported {
        Imported::Created => (v1::ImportStatus::Created, false, None),
        Imported::Exists { differs } => (v1::ImportStatus::Exists, differs, None),
        Imported::Refused(fault) => (v1::ImportStatus::Refused, false, Some(fault)),
    };
    let (reason, message) = refusal.map(|fault| (fault.reason.as_str().to_owned(), fault.message)).unwrap_or_default();
    v1::ImportOutcome { status: status.into(), differs, reason, message }
}

fn id(text: &str) -> Result<EnrollmentId, Status> {
    field::id("registration_id", text, RegistrationId::parse).map(EnrollmentId::Individual).map_err(failed)
}

fn missing() -> Status {
    failed(WireFault::new("enrollment", "is missing"))
}

#[tonic::async_trait]
impl EnrollmentService for EnrollmentEdge {
    async fn create_enrollment(
        &self,
        request: Request<v1::CreateEnrollmentRequest>,
    ) -> Result<Response<v1::CreateEnrollmentResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let given = request.into_inner().enrollment.ok_or_else(missing)?;
        let draft = draft(&given, Writing::Create).map_err(failed)?;
        let made = self.service.create_enrollment(draft, &by).await?;
        Ok(Response::new(v1::CreateEnrollmentResponse { enrollment: message(&made) }))
    }

    async fn import_enrollments(
        &self,
        request: Request<v1::ImportEnrollmentsRequest>,
    ) -> Result<Response<v1::ImportEnrollmentsResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let request = request.into_inner();
        let drafts = request.enrollments.iter().map(|given| draft(given, Writing::Create).map_err(Fault::from));
        let imported = self.service.import_enrollments(drafts.collect(), request.skip_existing, &by).await?;
        Ok(Response::new(v1::ImportEnrollmentsResponse { outcomes: imported.into_iter().map(outcome).collect() }))
    }

    async fn get_enrollment(
        &self,
        request: Request<v1::GetEnrollmentRequest>,
    ) -> Result<Response<v1::GetEnrollmentResponse>, Status> {
        let found = self.service.enrollment(&id(&request.get_ref().registration_id)?).await?;
        Ok(Response::new(v1::GetEnrollmentResponse { enrollment: message(&found) }))
    }

    async fn get_enrollment_keys(
        &self,
        request: Request<v1::GetEnrollmentKeysRequest>,
    ) -> Result<Response<v1::GetEnrollmentKeysResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let keys = self.service.enrollment_keys(&id(&request.get_ref().registration_id)?, &by).await?;
        Ok(Response::new(v1::GetEnrollmentKeysResponse { keys: Some(wire_keys(&keys)) }))
    }

    async fn list_enrollments(
        &self,
        request: Request<v1::ListEnrollmentsRequest>,
    ) -> Result<Response<v1::ListEnrollmentsResponse>, Status> {
        let request = request.get_ref();
        let page = field::page(request.page_size, &request.page_token).map_err(failed)?;
        let page = fitting(page, async |page| {
            let found = self.service.enrollments(EnrollmentListing::Individuals, &page).await?;
            Ok(v1::ListEnrollmentsResponse {
                enrollments: found.rows.iter().filter_map(|row| message(row)).collect(),
                next_page_token: found.next.unwrap_or_default(),
            })
        });
        Ok(Response::new(page.await?))
    }

    async fn update_enrollment(
        &self,
        request: Request<v1::UpdateEnrollmentRequest>,
    ) -> Result<Response<v1::UpdateEnrollmentResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let given = request.into_inner().enrollment.ok_or_else(missing)?;
        let draft = draft(&given, Writing::Update).map_err(failed)?;
        let version = field::etag("etag", &given.etag).map_err(failed)?;
        let kept = self.service.update_enrollment(draft, version, &by).await?;
        Ok(Response::new(v1::UpdateEnrollmentResponse { enrollment: message(&kept) }))
    }

    async fn enable_enrollment(
        &self,
        request: Request<v1::EnableEnrollmentRequest>,
    ) -> Result<Response<v1::EnableEnrollmentResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let request = request.get_ref();
        let version = field::optional_etag("etag", &request.etag).map_err(failed)?;
        let kept = self.service.set_enrollment_enabled(&id(&request.registration_id)?, true, version, &by).await?;
        Ok(Response::new(v1::EnableEnrollmentResponse { enrollment: message(&kept) }))
    }

    async fn disable_enrollment(
        &self,
        request: Request<v1::DisableEnrollmentRequest>,
    ) -> Result<Response<v1::DisableEnrollmentResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let request = request.get_ref();
        let version = field::optional_etag("etag", &request.etag).map_err(failed)?;
        let kept = self.service.set_enrollment_enabled(&id(&request.registration_id)?, false, version, &by).await?;
        Ok(Response::new(v1::DisableEnrollmentResponse { enrollment: message(&kept) }))
    }

    async fn delete_enrollment(
        &self,
        request: Request<v1::DeleteEnrollmentRequest>,
    ) -> Result<Response<v1::DeleteEnrollmentResponse>, Status> {
        let by = call::allowed(&request)?.by;
        let request = request.get_ref();
        let version = field::optional_etag("etag", &request.etag).map_err(failed)?;
        self.service.delete_enrollment(&id(&request.registration_id)?, version, &by).await?;
        Ok(Response::new(v1::DeleteEnrollmentResponse {}))
    }
}
