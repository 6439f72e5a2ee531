//! Registrations over HTTPS, as existing service SDKs look at them and delete them (reference/dps.md §7).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, Response};
use bytes::Bytes;

use crate::api::azure::etag;
use crate::api::azure::fault::Refusal;
use crate::api::azure::query::Query;
use crate::api::azure::registration;
use crate::domain::{Fault, GroupId, Permission, Reason, RegistrationId};
use crate::service::{DeviceView, Peer, RegistrationFilter};

use super::Edge;
use super::answer::json;
use super::call::{Call, answered, condition, gone};
use super::paging::{self, Shown};

fn id_of(text: &str) -> Result<RegistrationId, Refusal> {
    RegistrationId::parse(text).map_err(|fault| Refusal::new(400_004, fault.to_string()))
}

impl Edge {
    async fn state(&self, id: &RegistrationId) -> Result<DeviceView, Fault> {
        let none = || Fault::new(Reason::RegistrationNotFound, format!("{id} is not registered"));
        self.service.registration_state(id).await?.ok_or_else(none)
    }
}

/// `GET /registrations/{id}`
pub async fn get(
    State(edge): State<Edge>,
    Extension(peer): Extension<Arc<Peer>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response<Body> {
    let asked = async {
        let call = Call::begin(&edge, &peer, &headers, query.as_deref(), Permission::RegistrationStatusRead)?;
        let view = edge.state(&id_of(&id)?).await?;
        Ok(json(200, &registration::state(&view, call.version)))
    };
    answered(&edge, asked.await)
}

/// `DELETE /registrations/{id}`: ends the registration and takes the device out of its hub; its history stays.
pub async fn delete(
    State(edge): State<Edge>,
    Extension(peer): Extension<Arc<Peer>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response<Body> {
    let asked = async {
        let call = Call::begin(&edge, &peer, &headers, query.as_deref(), Permission::RegistrationStatusWrite)?;
        let id = id_of(&id)?;
        let condition = condition(&headers);
        let version = match condition.is_open() {
            true => None,
            false => {
                let standing = edge.state(&id).await?.standing;
                if !condition.holds(&etag::of(standing.version, standing.created_at)) {
                    let message = format!("registration {id} changed since it was read: read it again");
                    return Err(Refusal::new(412_001, message));
                }
                Some(standing.version)
            }
        };
        edge.service.delete_registration(&id, version, &call.caller.by).await?;
        Ok(gone())
    };
    answered(&edge, asked.await)
}

/// `POST /registrations/{group}/query`: the devices of a group.
pub async fn list(
    State(edge): State<Edge>,
    Extension(peer): Extension<Arc<Peer>>,
    Path(group): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let asked = async {
        let call = Call::begin(&edge, &peer, &headers, query.as_deref(), Permission::RegistrationStatusRead)?;
        let group = GroupId::parse(&group).map_err(|fault| Refusal::new(400_004, fault.to_string()))?;
        let query = Query::of_body(&body, "deviceRegistrations")?;
        let filter = RegistrationFilter { group: Some(group), ..RegistrationFilter::default() };
        let (service, filter, version) = (&edge.service, &filter, call.version);
        let page = paging::found(paging::asked(&headers)?, &query, async |page| {
            let found = service.registrations(filter, &page).await?;
            let shown = |view| registration::state(&service.device_view(view), version);
            let rows = found.rows.into_iter().map(|row| shown(row.standing)).collect();
            Ok(Shown { rows, next: found.next })
        });
        Ok(paging::answer(page.await?, "DeviceRegistration"))
    };
    answered(&edge, asked.await)
}
