//! The HTTPS edge for existing Azure SDKs: registration for devices, on the same façade as gRPC.

mod answer;
mod device;
mod path;
mod server;
mod websocket;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post, put};

use crate::api::mqtt;
use crate::domain::{IdScope, limits};
use crate::service::Service;

pub use server::{Limits, serve};

/// What the edge is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What devices name this service by.
    pub id_scope: IdScope,
}

/// What every request shares.
#[derive(Clone)]
struct Edge {
    service: Service,
    settings: Arc<Settings>,
    /// What a WebSocket leads to.
    mqtt: mqtt::Endpoint,
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
        // With its first character as it is, or escaped.
        .route("/$iothub/websocket", get(websocket::mqtt))
        .route("/%24iothub/websocket", get(websocket::mqtt))
        .layer(DefaultBodyLimit::max(limits::MESSAGE_BYTES_MAX))
        .fallback(server::no_such_address)
        .method_not_allowed_fallback(server::no_such_method)
        .with_state(edge)
}
