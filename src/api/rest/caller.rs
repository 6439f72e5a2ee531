//! Who calls as an operator or a back end: by the token of a shared access policy, or else by an operator's certificate.

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::api::authorization;
use crate::domain::{Fault, HubId, Permission, PresentedToken, Reason};
use crate::service::{Door, Peer};

use super::Edge;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Somebody who was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// For the audit log.
    pub by: String,
    /// Whether keys are shown to it: whoever has one may act as the device.
    pub sees_keys: bool,
}

/// Lets in who has the permission.
pub fn let_in(
    edge: &Edge,
    peer: &Peer,
    headers: &HeaderMap,
    door: Door<'_>,
    asked: Permission,
) -> Result<Caller, Fault> {
    let mut tokens = headers.get_all(AUTHORIZATION).iter();
    let Some(token) = tokens.next() else {
        let operator = edge.service.operator(&peer.evidence)?;
        not_from_a_page(headers)?;
        let allowed = authorization::judge(&operator, authorization::of_permission(asked))?;
        if let Door::Hub(hub) = door {
            allowed.at(hub)?;
        }
        let sees_keys = authorization::judge(&operator, authorization::SEEING_KEYS).is_ok();
        return Ok(Caller { by: allowed.by, sees_keys });
    };
    let unreadable = || Fault::new(Reason::CallerUnauthenticated, "the authorization header cannot be read");
    if tokens.next().is_some() {
        return Err(unreadable());
    }
    let token = token.to_str().ok().and_then(|text| PresentedToken::new(text).ok()).ok_or_else(unreadable)?;
    let holder = edge.service.policy_holder(&token, door)?;
    holder.allow(asked)?;
    let keys = match door {
        Door::Service => Permission::EnrollmentWrite,
        Door::Hub(_) => Permission::DeviceKeys,
    };
    Ok(Caller { by: holder.name(), sees_keys: holder.allow(keys).is_ok() })
}

/// A browser presents its owner's certificate for whichever page asks it to: what a page sends is not the operator's.
fn not_from_a_page(headers: &HeaderMap) -> Result<(), Fault> {
    let from_a_page = headers.contains_key(ORIGIN) || headers.contains_key(FETCH_SITE);
    let is_json = |kind: &HeaderValue| kind.to_str().is_ok_and(|kind| kind.starts_with("application/json"));
    let is_typed = headers.get(CONTENT_TYPE).is_none_or(is_json);
    let message = "with a certificate this is for programs: no Origin, no Sec-Fetch-Site, and no body but JSON";
    let refused = || Fault::new(Reason::CallerUnauthenticated, message);
    if !from_a_page && is_typed { Ok(()) } else { Err(refused()) }
}

/// The hub that is called by the name in the request.
pub fn hub(edge: &Edge, headers: &HeaderMap) -> Option<HubId> {
    let host = headers.get(HOST)?.to_str().ok()?;
    edge.service.hub_named(host)
}
