//! What every call of the service API has: who makes it, in which version, on what condition, and how it is answered.

use axum::body::Body;
use axum::http::header::IF_MATCH;
use axum::http::{HeaderMap, Response, StatusCode};

use crate::api::azure::etag::Condition;
use crate::api::azure::fault::Refusal;
use crate::api::azure::registration::api_version;
use crate::domain::{ApiVersion, Permission};
use crate::service::{Door, Peer};

use super::Edge;
use super::answer::refused;
use super::caller::{self, Caller};
use super::device::parameter;

/// A call that was let in.
pub struct Call {
    pub caller: Caller,
    pub version: ApiVersion,
}

impl Call {
    pub fn begin(
        edge: &Edge,
        peer: &Peer,
        headers: &HeaderMap,
        query: Option<&str>,
        asked: Permission,
    ) -> Result<Self, Refusal> {
        let caller = caller::let_in(edge, peer, headers, Door::Service, asked)?;
        let version = api_version(query.and_then(|query| parameter(query, "api-version")))?;
        Ok(Self { caller, version })
    }
}

/// What `If-Match` asks for. What cannot be read is no etag of ours.
pub fn condition(headers: &HeaderMap) -> Condition {
    match headers.get(IF_MATCH).map(|value| value.to_str()) {
        None => Condition::None,
        Some(Ok(text)) => Condition::read(Some(text)),
        Some(Err(_)) => Condition::Etag(String::new()),
    }
}

/// The answer, or the refusal as SDKs of the service read it.
pub fn answered(edge: &Edge, outcome: Result<Response<Body>, Refusal>) -> Response<Body> {
    outcome.unwrap_or_else(|refusal| refused(&refusal, edge.service.now()))
}

/// The answer about something that is not there any more.
pub fn gone() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
