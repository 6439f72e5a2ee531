//! Why a call did not succeed: it never reached the service, or the service refused.

use crate::wire::RemoteFault;

#[derive(Debug, thiserror::Error)]
pub enum ClientFault {
    /// The address, a certificate or a key cannot be used as it is.
    #[error("cannot use {what}")]
    Unusable {
        what: &'static str,
        #[source]
        source: tonic::transport::Error,
    },
    /// Nothing is known to have happened.
    #[error("cannot connect to {server}")]
    Unreachable {
        server: String,
        #[source]
        source: tonic::transport::Error,
    },
    #[error(transparent)]
    Refused(#[from] RemoteFault),
}
