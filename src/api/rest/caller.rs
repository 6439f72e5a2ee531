//! Who calls as an operator or a back end: by the token of a shared access policy, or else by an operator's certificate.

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST};

use crate::api::authorization::{self, SEEING_KEYS, SEEING_KEYS_AT_HUB};
use crate::domain::{Fault, HubId, Permission, PresentedToken, Reason};
use crate::service::{Door, Peer};

use super::Edge;

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
        let allowed = authorization::judge(&operator, authorization::of_permission(asked))?;
        let sees_keys = match door {
            Door::Service => authorization::judge(&operator, SEEING_KEYS).is_ok(),
            Door::Hub(hub) => {
                allowed.at(hub)?;
                authorization::judge(&operator, SEEING_KEYS_AT_HUB).is_ok_and(|seeing| seeing.at(hub).is_ok())
            }
        };
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
        Door::Hub(_) => Permission::RegistryWrite,
    };
    Ok(Caller { by: holder.name(), sees_keys: holder.allow(keys).is_ok() })
}

/// The hub that is called by the name in the request.
pub fn hub(edge: &Edge, headers: &HeaderMap) -> Option<HubId> {
    let host = headers.get(HOST)?.to_str().ok()?;
    edge.service.hub_named(host)
}
