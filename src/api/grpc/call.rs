//! What the server puts beside every request: who calls, and what allows it.

use std::sync::Arc;

use tonic::{Request, Status};

pub use crate::api::authorization::Allowed;
use crate::domain::{Fault, Reason};
use crate::service::Peer;

/// Who calls.
pub fn peer<T>(request: &Request<T>) -> Result<Arc<Peer>, Status> {
    request.extensions().get::<Arc<Peer>>().cloned().ok_or_else(|| absent("caller"))
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
