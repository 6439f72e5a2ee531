//! A message that could not be translated, as a status.

use tonic::Status;

use crate::domain::Fault;
use crate::wire::WireFault;

/// The status of a message that does not fit the domain.
pub fn failed(fault: WireFault) -> Status {
    Fault::from(fault).into()
}
