//! Registration over HTTPS, as existing device SDKs speak it (reference/dps.md §5).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::Response;
use bytes::Bytes;

use crate::api::azure::fault::Refusal;
use crate::api::azure::registration::{self, Asked, api_version};
use crate::domain::{ApiVersion, OperationId, RegistrationId};
use crate::service::{DeviceView, Peer, RegisterAsk};

use super::Edge;
use super::answer::{again_after, json, refused};

/// When to ask again where the service does not say: what SDKs do by themselves.
const POLL_SECONDS: u64 = 2;

/// The parts of an address that every call of a device has.
struct Addressed {
    id: RegistrationId,
    version: ApiVersion,
}

impl Addressed {
    fn read(edge: &Edge, scope: &str, id: &str, query: Option<&str>) -> Result<Self, Refusal> {
        let version = api_version(query.and_then(|query| parameter(query, "api-version")))?;
        Refusal::of_scope(&edge.settings.id_scope, scope)?;
        let id = RegistrationId::parse(id).map_err(|fault| Refusal::new(400_004, fault.to_string()))?;
        Ok(Self { id, version })
    }
}

/// The value of a parameter of the query. None of those that are read here is ever escaped.
pub(super) fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(key, _)| key.eq_ignore_ascii_case(name)))
        .map(|(_, value)| value)
}

/// `PUT /{scope}/registrations/{id}/register`
pub async fn register(
    State(edge): State<Edge>,
    Extension(peer): Extension<Arc<Peer>>,
    Path((scope, id)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Response<Body> {
    let asked = async {
        let Addressed { id, version } = Addressed::read(&edge, &scope, &id, query.as_deref())?;
        let asked = Asked::parse(&id, &body)?;
        let ask = RegisterAsk { registration_id: id, facts: asked.facts(version), request_id: None, tpm: None };
        let registering = edge.service.register(&peer, &ask).await?;
        Ok::<_, Refusal>(operation(&registering.view, version))
    };
    asked.await.unwrap_or_else(|refusal| refused(&refusal, edge.service.now()))
}

/// `GET /{scope}/registrations/{id}/operations/{operation}`
pub async fn poll(
    State(edge): State<Edge>,
    Extension(peer): Extension<Arc<Peer>>,
    Path((scope, id, operation_id)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
) -> Response<Body> {
    let asked = async {
        let Addressed { id, version } = Addressed::read(&edge, &scope, &id, query.as_deref())?;
        let operation_id: OperationId =
            operation_id.parse().map_err(|_| Refusal::new(404_001, "there is no such operation"))?;
        let view = edge.service.operation(&peer, &id, operation_id).await?;
        Ok::<_, Refusal>(operation(&view, version))
    };
    asked.await.unwrap_or_else(|refusal| refused(&refusal, edge.service.now()))
}

/// `POST /{scope}/registrations/{id}`
pub async fn look_up(
    State(edge): State<Edge>,
    Extension(peer): Extension<Arc<Peer>>,
    Path((scope, id)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Response<Body> {
    let asked = async {
        let Addressed { id, version } = Addressed::read(&edge, &scope, &id, query.as_deref())?;
        Asked::parse(&id, &body)?;
        let view = edge.service.look_up(&peer, &id).await?;
        Ok::<_, Refusal>(json(200, &registration::state(&view, version)))
    };
    asked.await.unwrap_or_else(|refusal| refused(&refusal, edge.service.now()))
}

fn operation(view: &DeviceView, version: ApiVersion) -> Response<Body> {
    let (status, body) = registration::operation(view, version);
    let seconds = view.retry_after.map_or(POLL_SECONDS, |span| span.as_secs().max(1));
    again_after(json(status, &body), (status == 202).then_some(seconds))
}
