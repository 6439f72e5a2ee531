//! Operators and back ends: who holds a certificate of the operators' authority, judged at every call.

use crate::attestation::x509::{self, Operator};
use crate::domain::{Evidence, Fault, Reason};

use super::Service;

impl Service {
    /// Who calls, when it is an operator or a back end. What it may do is in its grants.
    pub fn operator(&self, evidence: &Evidence) -> Result<Operator, Fault> {
        let chain = match evidence {
            // A device's token is no operator's certificate.
            Evidence::None | Evidence::Token(_) => {
                let message = "this call needs an operator's client certificate, and none was presented";
                return Err(Fault::new(Reason::CallerUnauthenticated, message));
            }
            Evidence::X509 { chain } => chain,
        };
        x509::verify_operator(chain, &self.inner.operator_authorities, self.inner.clock.now()).map_err(|refusal| {
            tracing::info!("an operator's certificate was not accepted: {refusal}");
            let message = "the client certificate is not an operator's, or not valid now";
            Fault::new(Reason::CallerUnauthenticated, message)
        })
    }
}
