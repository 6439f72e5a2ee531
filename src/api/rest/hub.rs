//! The registry and the twins of an embedded hub over HTTPS, as existing service SDKs use them (reference/dps.md §8).
//!
//! Which hub is meant, the host name of the request says. What would take a device past the service is refused or goes
//! through it: see `api::azure::hub::device`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response};
use bytes::Bytes;
use serde_json::Value;

use crate::api::azure::etag::Condition;
use crate::api::azure::fault::Refusal;
use crate::api::azure::hub::bulk::{self, Deed};
use crate::api::azure::hub::twin::Way;
use crate::api::azure::hub::{self, device, fault, twin};
use crate::api::azure::members::{self, Members};
use crate::api::azure::query::Query;
use crate::domain::{DeviceId, Fault, HubId, KeyPair, Kind, Permission, TokenKey, limits};
use crate::service::{Door, HubDevice, PageRequest, Peer};

use super::Edge;
use super::answer::{again_after, json};
use super::call::{condition, gone};
use super::caller::{self, Caller};
use super::device::parameter;
use super::paging::{self, Shown};

const ERROR_CODE: HeaderName = HeaderName::from_static("iothub-errorcode");

type Answered = Result<Response<Body>, Refused>;

/// A refusal in the codes of hubs.
struct Refused(Refusal);

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Refused(fault::of_fault(fault))
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Refused(refusal)
    }
}

/// A refusal as SDKs of hubs read it.
pub fn refused(edge: &Edge, refusal: &Refusal) -> Response<Body> {
    let mut response = json(refusal.code.status, &fault::body(refusal, edge.service.now()));
    response.headers_mut().insert(ERROR_CODE, HeaderValue::from_static(fault::word(refusal.code)));
    again_after(response, refusal.retry_after)
}

fn answered(edge: &Edge, outcome: Answered) -> Response<Body> {
    outcome.unwrap_or_else(|Refused(refusal)| refused(edge, &refusal))
}

/// What every call has: the hub, and who may ask it.
struct Call {
    hub: HubId,
    caller: Caller,
}

impl Call {
    fn begin(
        edge: &Edge,
        peer: &Peer,
        headers: &HeaderMap,
        query: Option<&str>,
        asked: Permission,
    ) -> Result<Self, Refused> {
        let unknown = || Refusal::new(401_001, "no hub of this service is called by this host name");
        let hub = caller::hub(edge, headers).ok_or_else(unknown)?;
        let caller = caller::let_in(edge, peer, headers, Door::Hub(&hub), asked)?;
        hub::api_version(query.and_then(|query| parameter(query, "api-version")))?;
        Ok(Self { hub, caller })
    }
}

fn id_of(text: &str) -> Result<DeviceId, Refusal> {
    DeviceId::parse(text).map_err(|fault| Refusal::new(400_004, fault.to_string()))
}

/// Holds the etag that is asked for against the one of what is there.
fn check(condition: &Condition, etag: &str) -> Result<(), Refusal> {
    let changed = || Refusal::new(412_001, "it changed since it was read: read it again");
    if condition.holds(etag) { Ok(()) } else { Err(changed()) }
}

/// `GET /devices/{id}`
pub async fn read_device(
    State(edge): State<Edge>,
    Extension(peer): Extension<Arc<Peer>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response<Body> {
    let asked = async {
        let call = Call::begin(&edge, &peer, &headers, query.as_deref(), Permission::RegistryRead)?;
        let found = edge.service.hub_device(&call.hub, &id_of(&id)?).await?;
        let keys = edge.device_keys(&call, &found).await?;
        Ok(json(200, &device::shown(&found, keys.as_ref())))
    };
    answered(&edge, asked.await)
}

/// What became of a device.
enum Done {
    Written(Box<HubDevice>),
    Leaves,
}

impl Edge {
    /// Does to one device what may be done to it here.
    async fn carry_out(&self, call: &Call, id: &DeviceId, given: &Members<'_>, deed: &Deed) -> Result<Done, Refused> {
        let known = match self.service.hub_device(&call.hub, id).await {
            Ok(known) => Some(known),
            Err(fault) if fault.kind() == Kind::NotFound => None,
            Err(fault) => return Err(fault.into()),
        };
        let missing = || Refusal::new(404_001, format!("hub {} has no device {id}", call.hub));
        match (deed, known) {
            (Deed::Create | Deed::Write(Condition::None), None) => Err(device::not_made_here().into()),
            (Deed::Write(_) | Deed::Remove(_), None) => Err(missing().into()),
            (Deed::Create, Some(_)) => Err(Refusal::new(409_001, format!("device {id} exists already")).into()),
            (Deed::Write(condition), Some(known)) => {
                check(condition, &device::etag(&known))?;
                let keys = self.service.keys_at_hub(&known);
                let wanted = device::wanted_status(given, &known, keys.as_ref())?;
                let written = match wanted.filter(|status| *status != known.resident.state.status) {
                    Some(status) => self.service.set_hub_status(&call.hub, &known, status).await?,
                    None => known,
                };
                Ok(Done::Written(Box::new(written)))
            }
            (Deed::Remove(condition), Some(known)) => {
                check(condition, &device::etag(&known))?;
                self.service.remove_hub_device(&call.hub, &known, &call.caller.by).await?;
                Ok(Done::Leaves)
            }
        }
    }

    /// The keys that a device signs in with, for who may see them.
    async fn device_keys(&self, call: &Call, device: &HubDevice) -> Result<Option<KeyPair<TokenKey>>, Fault> {
        match call.caller.sees_keys {
            true => self.service.show_keys_at_hub(&call.hub, device, &call.caller.by).await,
            false => Ok(None),
        }
    }
}

/// `PUT /devices/{id}`: whether the device is let in, and nothing else.
pub async fn write_device(
    State(edge): State<Edge>,
    Extension(peer): Extension<Arc<Peer>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let asked = async {
        let call = Call::begin(&edge, &peer, &headers, query.as_deref(), Permission::RegistryWrite)?;
        let (id, body) = (id_of(&id)?, members::json(&body)?);
        let given = Members::of(&body)?;
        let deed = match condition(&headers) {
            Condition::None => Deed::Create,
            condition => Deed::Write(condition),
        };
        match edge.carry_out(&call, &id, &given, &deed).await? {
            // The status is all that is written here: keys are for who asks for them.
            Done::Written(written) => Ok(json(200, &device::shown(&written, None))),
            Done::Leaves => Ok(gone()),
        }
    };
    answered(&edge, asked.await)
}

/// `DELETE /devices/{id}`: ends the device's registration, which takes it out of the hub; its history stays.
pub async fn remove_device(
    State(edge): State<Edge>,
    Extension(peer): Extension<Arc<Peer>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response<Body> {
    let asked = async {
        let call = Call::begin(&edge, &peer, &headers, query.as_deref(), Permission::RegistryWrite)?;
        let (id, nothing) = (id_of(&id)?, Value::Object(Default::default()));
        let deed = Deed::Remove(condition(&headers));
        edge.carry_out(&call, &id, &Members::of(&nothing)?, &deed).await?;
        edge.service.until_left(&call.hub, &[id]).await;
        Ok(gone())
    };
    answered(&edge, asked.await)
}

/// `GET /devices`: up to `top` of them, and where the next begin.
pub async fn list_devices(
    State(edge): State<Edge>,
    Extension(peer): Extension<Arc<Peer>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response<Body> {
    let asked = async {
        let call = Call::begin(&edge, &peer, &headers, query.as_deref(), Permission::RegistryRead)?;
        let top = match query.as_deref().and_then(|query| parameter(query, "top")) {
            None => limits::PAGE_SIZE_MAX,
            Some(text) => match text.parse::<u32>() {
                Ok(top) if top > 0 => top.min(limits::PAGE_SIZE_MAX),
                Ok(_) | Err(_) => return Err(Refusal::new(400_004, "top is no count of devices").into()),
            },
        };
        let asked = PageRequest { size: top, ..paging::asked(&headers)? };
        let page = devices(&edge, &call.hub, asked, &Query::default(), |device| device::shown(device, None)).await?;
        Ok(paging::answer(page, "device"))
    };
    answered(&edge, asked.await)
}

async fn devices(
    edge: &Edge,
    hub: &HubId,
    asked: PageRequest,
    query: &Query,
    shown: impl Fn(&HubDevice) -> Value + Copy,
) -> Result<Shown, Fault> {
    paging::found(asked, query, async |page| {
        let found = edge.service.hub_devices(hub, &page).await?;
        Ok(Shown { rows: found.rows.iter().map(shown).collect(), next: found.next })
    })
    .await
}

/// `POST /devices`: each by itself; what fails keeps out nothing else.
pub async fn change_devices(
    State(edge): State<Edge>,
    Extension(peer): Extension<Arc<Peer>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let asked = async {
        let call = Call::begin(&edge, &peer, &headers, query.as_deref(), Permission::RegistryWrite)?;
        let body = members::json(&body)?;
        let (mut errors, mut leaving) = (Vec::new(), Vec::new());
        for entry in bulk::entries(&body)? {
            let done = async {
                let given = Members::of(entry)?;
                let (id, deed) = bulk::read(&given)?;
                let done = edge.carry_out(&call, &id, &given, &deed).await?;
                Ok::<_, Refused>((id, done))
            };
            match done.await {
                Ok((_, Done::Written(_))) => {}
                Ok((id, Done::Leaves)) => leaving.push(id),
                Err(Refused(refusal)) => errors.push(bulk::failed(entry, &refusal)),
            }
        }
        edge.service.until_left(&call.hub, &leaving).await;
        let (status, body) = bulk::outcome(errors);
        Ok(json(status, &body))
    };
    answered(&edge, asked.await)
}

/// `POST /devices/query`: twins.
pub async fn list_twins(
    State(edge): State<Edge>,
    Extension(peer): Extension<Arc<Peer>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let asked = async {
        let call = Call::begin(&edge, &peer, &headers, query.as_deref(), Permission::ServiceConnect)?;
        let query = Query::of_body(&body, "devices")?;
        let page = devices(&edge, &call.hub, paging::asked(&headers)?, &query, twin::shown).await?;
        Ok(paging::answer(page, "twin"))
    };
    answered(&edge, asked.await)
}

/// `GET /twins/{id}`
pub async fn read_twin(
    State(edge): State<Edge>,
    Extension(peer): Extension<Arc<Peer>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response<Body> {
    let asked = async {
        let call = Call::begin(&edge, &peer, &headers, query.as_deref(), Permission::ServiceConnect)?;
        let found = edge.service.hub_device(&call.hub, &id_of(&id)?).await?;
        Ok(json(200, &twin::shown(&found)))
    };
    answered(&edge, asked.await)
}

/// `PATCH /twins/{id}`
pub async fn merge_twin(
    state: State<Edge>,
    peer: Extension<Arc<Peer>>,
    path: Path<String>,
    query: RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    write_twin(state, peer, path, query, headers, body, Way::Merge).await
}

/// `PUT /twins/{id}`
pub async fn replace_twin(
    state: State<Edge>,
    peer: Extension<Arc<Peer>>,
    path: Path<String>,
    query: RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    write_twin(state, peer, path, query, headers, body, Way::Replace).await
}

async fn write_twin(
    State(edge): State<Edge>,
    Extension(peer): Extension<Arc<Peer>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
    way: Way,
) -> Response<Body> {
    let asked = async {
        let call = Call::begin(&edge, &peer, &headers, query.as_deref(), Permission::ServiceConnect)?;
        let (id, body) = (id_of(&id)?, members::json(&body)?);
        let write = twin::write(&Members::of(&body)?, &id, way)?;
        // Read before: what was written is answered as it was written, whatever becomes of the device.
        let known = edge.service.hub_device(&call.hub, &id).await?;
        let condition = condition(&headers);
        check(&condition, &twin::etag(&known))?;
        let version = (!condition.is_open()).then_some(known.resident.state.twin.version);
        let resident = edge.service.write_twin(&call.hub, &id, version, write).await?;
        Ok(json(200, &twin::shown(&HubDevice { resident, ..known })))
    };
    answered(&edge, asked.await)
}
