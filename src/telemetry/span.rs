//! The span that every line of one registration is logged in.

use tracing::Span;

use crate::domain::{OperationId, RegistrationId};

/// Carries `registration_id` and, once there is one, `operation_id`. Works across tasks and actors by `Instrument`.
pub fn registration_span(registration: &RegistrationId, operation: Option<&OperationId>) -> Span {
    match operation {
        Some(operation) => {
            tracing::info_span!("registration", registration_id = %registration, operation_id = %operation)
        }
        None => tracing::info_span!("registration", registration_id = %registration),
    }
}
