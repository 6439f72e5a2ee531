//! Which service answers a path.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::util::BoxCloneSyncService;
use tower::{Service as TowerService, ServiceExt as _};

use crate::service::Service;
use crate::wire;

use super::audit::AuditEdge;
use super::enrollment::EnrollmentEdge;
use super::group::GroupEdge;
use super::hub::HubEdge;
use super::registration::RegistrationEdge;
use super::registration_admin::RegistrationAdminEdge;
use super::store::StoreEdge;
use super::twin::TwinEdge;
use super::twin_admin::TwinAdminEdge;

type Request = http::Request<Incoming>;
type Response = http::Response<Body>;
type Route = BoxCloneSyncService<Request, Response, Infallible>;

/// Every service by its name; cheap to clone.
#[derive(Clone)]
pub struct Routes {
    by_name: Arc<HashMap<&'static str, Route>>,
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

impl Routes {
    /// The API, health and reflection.
    pub fn new(service: &Service) -> Result<Self, tonic_reflection::server::Error> {
        use tonic_reflection::server::Builder;

        let descriptors = || {
            Builder::configure()
                .register_encoded_file_descriptor_set(wire::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // So that a caller with reflection can read the details of errors.
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        };
        // Whoever can connect finds the service ready: hubs and devices were taken up before the listener was opened.
        let (_, health) = tonic_health::server::health_reporter();
        let routes = HashMap::from([
            route(RegistrationEdge::server(service.clone())),
            route(TwinEdge::server(service.clone())),
            route(TwinAdminEdge::server(service.clone())),
            route(EnrollmentEdge::server(service.clone())),
            route(GroupEdge::server(service.clone())),
            route(HubEdge::server(service.clone())),
            route(RegistrationAdminEdge::server(service.clone())),
            route(AuditEdge::server(service.clone())),
            route(StoreEdge::server(service.clone())),
            route(health),
            route(descriptors().build_v1()?),
            // Released grpcurl builds speak only this one.
            route(descriptors().build_v1alpha()?),
        ]);
        Ok(Self { by_name: Arc::new(routes) })
    }

    /// Has the call answered by the service that its path names.
    pub async fn answer(&self, request: Request) -> Result<Response, Infallible> {
        let name = request.uri().path().trim_start_matches('/').split('/').next().unwrap_or_default();
        match self.by_name.get(name) {
            Some(route) => route.clone().oneshot(request).await,
            None => Ok(Status::unimplemented("there is no such service").into_http()),
        }
    }
}

fn route<S>(service: S) -> (&'static str, Route)
where
    S: TowerService<Request, Response = Response, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    (S::NAME, BoxCloneSyncService::new(service))
}
