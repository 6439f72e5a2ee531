//! What the service says of itself: spans, logs and metrics.

mod span;

pub use span::registration_span;
