//! Registration over HTTPS, as existing device SDKs speak it (reference/dps.md §5).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Response};
use bytes::Bytes;
use data_encoding::BASE64;
use serde_json::json;

use crate::api::azure::fault::Refusal;
use crate::api::azure::registration::{self, Asked, TpmKeys, api_version};
use crate::api::peer::with_token;
use crate::domain::{ApiVersion, OperationId, Reason, RegistrationId, TpmPublic};
use crate::service::{BeginAsk, DeviceView, Peer, RegisterAsk, TOKEN_KEY_NAME};

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

/// The caller with its token, where it sends one.
fn presented(peer: &Peer, headers: &HeaderMap) -> Result<Peer, Refusal> {
    let mut tokens = headers.get_all(AUTHORIZATION).iter();
    let token = tokens.next().map(|value| value.to_str()).transpose();
    match (token, tokens.next()) {
        (Ok(token), None) => with_token(peer, token.unwrap_or_default())
            .map_err(|fault| Refusal::new(401_002, format!("authorization: {fault}"))),
        (Err(_), _) => Err(Refusal::new(401_002, "authorization is not printable ASCII")),
        (Ok(_), Some(_)) => Err(Refusal::new(400_004, "authorization is given twice")),
    }
}

/// `PUT /{scope}/registrations/{id}/register`
///
/// A device with a TPM calls twice. The first call, without a token, is answered with a challenge; so is one whose token
/// answers none that is still known, since the device can do nothing but begin again.
pub async fn register(
    State(edge): State<Edge>,
    Extension(peer): Extension<Arc<Peer>>,
    Path((scope, id)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let asked = async {
        let Addressed { id, version } = Addressed::read(&edge, &scope, &id, query.as_deref())?;
        let peer = presented(&peer, &headers)?;
        let asked = Asked::parse(&id, &body)?;
        if let Some(keys) = &asked.tpm
            && !edge.service.answers_a_challenge(&peer, &id)
        {
            return challenge(&edge, &peer, id, keys).await;
        }
        let ask = RegisterAsk { registration_id: id.clone(), facts: asked.facts(version), request_id: None, tpm: None };
        let ask = edge.service.naming_its_challenge(&peer, ask);
        match (edge.service.register(&peer, &ask).await, &asked.tpm) {
            (Ok(registering), _) => Ok(operation(&registering.view, version)),
            (Err(fault), Some(keys)) if fault.reason == Reason::TpmChallengeOutdated => {
                challenge(&edge, &peer, id, keys).await
            }
            (Err(fault), _) => Err(Refusal::from(fault)),
        }
    };
    asked.await.unwrap_or_else(|refusal| refused(&refusal, edge.service.now()))
}

/// `GET /{scope}/registrations/{id}/operations/{operation}`
pub async fn poll(
    State(edge): State<Edge>,
    Extension(peer): Extension<Arc<Peer>>,
    Path((scope, id, operation_id)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response<Body> {
    let asked = async {
        let Addressed { id, version } = Addressed::read(&edge, &scope, &id, query.as_deref())?;
        let operation_id: OperationId =
            operation_id.parse().map_err(|_| Refusal::new(404_001, "there is no such operation"))?;
        let view = edge.service.operation(&presented(&peer, &headers)?, &id, operation_id).await?;
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
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let asked = async {
        let Addressed { id, version } = Addressed::read(&edge, &scope, &id, query.as_deref())?;
        Asked::parse(&id, &body)?;
        let view = edge.service.look_up(&presented(&peer, &headers)?, &id).await?;
        Ok::<_, Refusal>(json(200, &registration::result(&view, version)))
    };
    asked.await.unwrap_or_else(|refusal| refused(&refusal, edge.service.now()))
}

/// Opens a proof by TPM (reference/dps.md §5.3): what existing SDKs take for a challenge is a refusal with a key in it.
async fn challenge(edge: &Edge, peer: &Peer, id: RegistrationId, keys: &TpmKeys) -> Result<Response<Body>, Refusal> {
    let public = |name: &str, bytes: &[u8]| {
        TpmPublic::parse(bytes).map_err(|fault| Refusal::new(400_004, format!("tpm.{name}: {fault}")))
    };
    let srk = keys.storage_root_key.as_deref();
    let srk = srk.ok_or_else(|| Refusal::new(400_004, "tpm.storageRootKey is missing"))?;
    let ask = BeginAsk {
        registration_id: id,
        endorsement_key: public("endorsementKey", &keys.endorsement_key)?,
        storage_root_key: public("storageRootKey", srk)?,
        endorsement_certificates: Vec::new(),
        attestation_key: None,
    };
    let begun = edge.service.begin_tpm(peer, &ask).await?;
    Ok(json(
        401,
        &json!({
            "message": "authorization is required: send the request again with a token that this key has signed",
            "keyName": TOKEN_KEY_NAME,
            "authenticationKey": BASE64.encode(&begun.invitation.blob),
        }),
    ))
}

fn operation(view: &DeviceView, version: ApiVersion) -> Response<Body> {
    let (status, body) = registration::operation(view, version);
    let seconds = view.retry_after.map_or(POLL_SECONDS, |span| span.as_secs().max(1));
    again_after(json(status, &body), (status == 202).then_some(seconds))
}
