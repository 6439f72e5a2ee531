//! What the server puts beside every request: who calls, and what allows it.

use std::sync::Arc;

use tonic::{Request, Status};

pub use crate::api::authorization::Allowed;
use crate::domain::{Evidence, Fault, PresentedToken, Reason};
use crate::service::Peer;

/// The metadata that holds a token.
const AUTHORIZATION: &str = "authorization";

/// Who calls. A token goes before the certificates of the connection: whoever presents one means it.
pub fn peer<T>(request: &Request<T>) -> Result<Arc<Peer>, Status> {
    let peer = request.extensions().get::<Arc<Peer>>().cloned().ok_or_else(|| absent("caller"))?;
    let mut tokens = request.metadata().get_all(AUTHORIZATION).iter();
    let Some(token) = tokens.next() else { return Ok(peer) };
    let wrong =
        |message: &str| Status::from(Fault::new(Reason::InvalidArgument, format!("{AUTHORIZATION}: {message}")));
    if tokens.next().is_some() {
        return Err(wrong("is given twice"));
    }
    let text = token.to_str().map_err(|_| wrong("is not printable ASCII"))?;
    let token = PresentedToken::new(text).map_err(|fault| wrong(&fault.to_string()))?;
    Ok(Arc::new(Peer::new(peer.address, Evidence::Token(token))))
}

/// The operator or back end that calls, and may.
pub fn allowed<T>(request: &Request<T>) -> Result<Allowed, Status> {
    request.extensions().get::<Allowed>().cloned().ok_or_else(|| absent("role"))
}

/// Only a server that was put together wrongly comes here: nothing is allowed then.
fn absent(what: &str) -> Status {
    tracing::error!("a request came without its {what}");
    Fault::new(Reason::Internal, "the call was not prepared, the log has the details").into()
}
