//! The HTTPS edge for existing Azure SDKs, on the same façade as gRPC: registration for devices; enrollments, registrations,
//! and the devices and twins of embedded hubs for back ends.

mod answer;
mod call;
mod caller;
mod device;
mod enrollments;
mod hub;
mod paging;
mod path;
mod registrations;
mod server;
mod websocket;

use std::fmt;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post, put};
use axum::{Extension, Router};

use crate::api::azure::enrollment::EnrollmentKind;
use crate::api::azure::names::Names;
use crate::api::mqtt;
use crate::domain::{IdScope, limits};
use crate::service::Service;

pub use crate::api::azure::names::NamedAuthority;
pub use server::{Limits, serve};

/// What the edge is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What devices name this service by.
    pub id_scope: IdScope,
    /// What enrollment groups may refer to.
    pub authorities: Arc<[NamedAuthority]>,
}

/// What every request shares.
#[derive(Clone)]
struct Edge {
    service: Service,
    settings: Arc<Settings>,
    /// What a WebSocket leads to.
    mqtt: mqtt::Endpoint,
}

impl Edge {
    fn names(&self) -> Names {
        Names { hubs: self.service.hub_host_names(), authorities: self.settings.authorities.clone() }
    }
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Edge({:?})", self.settings)
    }
}

fn routes(edge: Edge) -> Router {
    Router::new()
        .route("/{scope}/registrations/{id}/register", put(device::register))
        .route("/{scope}/registrations/{id}/operations/{operation}", get(device::poll))
        .route("/{scope}/registrations/{id}", post(device::look_up))
        .merge(enrollment_routes("/enrollments").layer(Extension(EnrollmentKind::Individual)))
        .merge(enrollment_routes("/enrollmentGroups").layer(Extension(EnrollmentKind::Group)))
        .route("/registrations/{id}", get(registrations::get).delete(registrations::delete))
        .route("/registrations/{id}/query", post(registrations::list))
        .route("/devices", get(hub::list_devices).post(hub::change_devices))
        .route("/devices/query", post(hub::list_twins))
        .route("/devices/{id}", get(hub::read_device).put(hub::write_device).delete(hub::remove_device))
        .route("/twins/{id}", get(hub::read_twin).patch(hub::merge_twin).put(hub::replace_twin))
        // With its first character as it is, or escaped.
        .route("/$iothub/websocket", get(websocket::mqtt))
        .route("/%24iothub/websocket", get(websocket::mqtt))
        .layer(DefaultBodyLimit::max(limits::MESSAGE_BYTES_MAX))
        .fallback(server::no_such_address)
        .method_not_allowed_fallback(server::no_such_method)
        .with_state(edge)
}

fn enrollment_routes(collection: &str) -> Router<Edge> {
    Router::new()
        .route(collection, post(enrollments::run_bulk))
        .route(&format!("{collection}/query"), post(enrollments::list))
        .route(&format!("{collection}/{{id}}"), get(enrollments::get).put(enrollments::put).delete(enrollments::delete))
        .route(&format!("{collection}/{{id}}/attestationmechanism"), post(enrollments::attestation_mechanism))
}
