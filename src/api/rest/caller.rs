//! Who calls as an operator or a back end: by the token of a shared access policy, or else by an operator's certificate.

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST};

use crate::api::authorization;
use crate::domain::{Fault, HubId, Permission, PresentedToken, Reason};
use crate::service::{Door, Peer};

use super::Edge;

/// Lets in who has the permission; answers who it is, for the audit log.
pub fn let_in(
    edge: &Edge,
    peer: &Peer,
    headers: &HeaderMap,
    door: Door<'_>,
    asked: Permission,
) -> Result<String, Fault> {
    let mut tokens = headers.get_all(AUTHORIZATION).iter();
    let Some(token) = tokens.next() else {
        let operator = edge.service.operator(&peer.evidence)?;
        let allowed = authorization::judge(&operator, authorization::of_permission(asked))?;
        if let Door::Hub(hub) = door {
            allowed.at(hub)?;
        }
        return Ok(allowed.by);
    };
    let unreadable = || Fault::new(Reason::CallerUnauthenticated, "the authorization header cannot be read");
    if tokens.next().is_some() {
        return Err(unreadable());
    }
    let token = token.to_str().ok().and_then(|text| PresentedToken::new(text).ok()).ok_or_else(unreadable)?;
    let holder = edge.service.policy_holder(&token, door)?;
    holder.allow(asked)?;
    Ok(holder.name())
}

/// The hub that is called by the name in the request.
pub fn hub(edge: &Edge, headers: &HeaderMap) -> Option<HubId> {
    let host = headers.get(HOST)?.to_str().ok()?;
    edge.service.hub_named(host)
}
