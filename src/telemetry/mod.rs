//! What the service tells about itself: log lines with the ids of the registration they belong to, and metrics.
//!
//! Rooms call small typed functions and open spans; names of metrics, formats and the exporter stay in here. Without
//! [`start_logging`] and [`Metrics::install`] every one of these calls is a no-op.

mod endpoint;
mod logging;
mod metric;
mod record;
mod span;

pub use endpoint::{EndpointLimits, serve_metrics};
pub use logging::{LogFormat, LoggingFault, logger, start_logging};
pub use metric::{METRICS, Metric, MetricKind, Metrics, MetricsFault};
pub use record::{
    ActorKind, CommitOutcome, DiskFile, HandshakeOutcome, HubCallOutcome, MoveOutcome, Queue, RegistrationOutcome,
    WebhookOutcome, actor_panicked, actors_active, actors_passivated, api_call_finished, circuit_changed,
    connection_closed, connection_opened, disk_synced, handshake_finished, hub_call_finished, hub_reachable,
    hub_restored, move_finished, moves_halted, moves_in_step, obligations_owed, overloaded, queue_depth, rate_limited,
    registration_finished, step_finished, store_commit_finished, webhook_call_finished,
};
pub use span::{operation_started, registration_span};
