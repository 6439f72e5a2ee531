//! The span of one registration: every line written inside carries its ids, across tasks, actors and hub calls.
//!
//! A span does not follow a message by itself. Who sends work on takes the span along: `future.instrument(span)` for
//! futures, `span.in_scope(…)` for a handler, a clone of the span in the message for another actor.

use tracing::{Span, error_span, field};

use crate::domain::{OperationId, RegistrationId};

/// The name that the logger lets through whatever the filter says: a filter hides lines, never the ids of a line.
pub(super) const REGISTRATION: &str = "registration";

/// Opens the span. Where the operation is not known yet, [`operation_started`] adds it later.
pub fn registration_span(registration_id: &RegistrationId, operation_id: Option<&OperationId>) -> Span {
    let span = error_span!(REGISTRATION, registration_id = %registration_id, operation_id = field::Empty);
    if let Some(operation_id) = operation_id {
        operation_started(&span, operation_id);
    }
    span
}

/// Gives the operation's id to a span that was opened without one. Call it once for a span.
pub fn operation_started(span: &Span, operation_id: &OperationId) {
    span.record("operation_id", field::display(operation_id));
}
