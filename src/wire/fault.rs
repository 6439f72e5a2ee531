//! Why a message could not be translated: the field and what is wrong with it.

use std::fmt;

use crate::domain::{Fault, Reason};

/// A field that does not fit the domain. Nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct WireFault {
    pub field: &'static str,
    pub problem: String,
    reason: Reason,
}

impl WireFault {
    pub fn new(field: &'static str, problem: impl fmt::Display) -> Self {
        Self { field, problem: problem.to_string(), reason: Reason::InvalidArgument }
    }

    /// A twin document of a shape that no twin has.
    pub(super) fn twin(field: &'static str, problem: impl fmt::Display) -> Self {
        Self { field, problem: problem.to_string(), reason: Reason::TwinInvalid }
    }
}

impl From<WireFault> for Fault {
    fn from(fault: WireFault) -> Self {
        Fault::new(fault.reason, fault.to_string()).with("field", fault.field)
    }
}
