//! Every metric of the service in one table, and the recorder that keeps their values.

use std::fmt;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// Spans from a group commit on a quiet disk (0.3 ms) to a webhook's time limit (10 s) and a move that had to wait.
const SECONDS_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0, 900.0];

/// How a metric's value behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only rises.
    Counter,
    /// A level that is set.
    Gauge,
    /// A distribution.
    Histogram,
}

impl MetricKind {
    pub fn as_str(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        }
    }
}

/// A metric as the README lists it.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub kind: MetricKind,
    pub labels: &'static [&'static str],
    pub meaning: &'static str,
}

macro_rules! metric_table {
    ($($constant:ident = $kind:ident $name:literal $labels:tt $meaning:literal;)+) => {
        $(pub(super) const $constant: &str = $name;)+

        /// Every metric, in the order of the README's table.
        pub const METRICS: &[Metric] = &[
            $(Metric { name: $name, kind: MetricKind::$kind, labels: &$labels, meaning: $meaning },)+
        ];
    };
}

metric_table! {
    REGISTRATIONS = Counter "rehome_registrations_total" ["outcome", "reason"]
        "registrations answered, by outcome and by the reason of a refusal (`none` without one)";
    REGISTRATION_SECONDS = Histogram "rehome_registration_seconds" ["outcome"]
        "from the call to its final answer";
    MOVES = Counter "rehome_moves_total" ["outcome"]
        "moves ended: done, or aborted with the device where it was";
    MOVE_SECONDS = Histogram "rehome_move_seconds" ["outcome"]
        "from a move's intent to its end";
    MOVE_STEPS = Counter "rehome_move_steps_total" ["step", "outcome"]
        "answers of hubs to steps of moves: done, refused, unavailable or unknown";
    MOVES_IN_STEP = Gauge "rehome_moves_in_step" ["step"]
        "moves under way, by the step they are at";
    MOVES_OLDEST_SECONDS = Gauge "rehome_moves_oldest_seconds" ["step"]
        "age of the oldest move at that step";
    OBLIGATIONS = Gauge "rehome_obligations" ["kind"]
        "clean-up still owed to hubs after moves";
    OBLIGATIONS_STUCK = Gauge "rehome_obligations_stuck" ["kind"]
        "obligations that a hub refused: they wait for a person";
    HUB_CALLS = Counter "rehome_hub_calls_total" ["hub", "kind", "outcome"]
        "calls to hubs";
    HUB_CALL_SECONDS = Histogram "rehome_hub_call_seconds" ["kind"]
        "time a hub took to answer";
    HUB_REACHABLE = Gauge "rehome_hub_reachable" ["hub"]
        "1 while the hub answers, else 0";
    HUB_RESTORED = Gauge "rehome_hub_restored" ["hub"]
        "1 while a restored hub waits to be gone through, else 0";
    MOVES_HALTED = Gauge "rehome_moves_halted" []
        "1 while no device is moved because the service's own store went back in time, else 0";
    HUB_CIRCUIT_OPEN = Gauge "rehome_hub_circuit_open" ["hub"]
        "1 while calls to the hub are held back after failures, else 0";
    QUEUE_DEPTH = Gauge "rehome_queue_depth" ["queue"]
        "waiting in a bounded queue";
    OVERLOADS = Counter "rehome_overloads_total" ["queue"]
        "refused because a queue was full";
    RATE_LIMITED = Counter "rehome_rate_limited_total" ["limit"]
        "refused because a peer asked too often";
    STORE_COMMITS = Counter "rehome_store_commits_total" ["outcome"]
        "commits to the store: done, conflict, failed or unknown";
    STORE_COMMIT_SECONDS = Histogram "rehome_store_commit_seconds" []
        "from handing a commit in to knowing its outcome";
    DISK_SYNCS = Counter "rehome_disk_syncs_total" ["file"]
        "groups of commits made durable, each by one sync: in the service's store, and in embedded hubs";
    ACTORS_ACTIVE = Gauge "rehome_actors_active" ["kind"]
        "actors in memory";
    ACTORS_PASSIVATED = Counter "rehome_actors_passivated_total" ["kind"]
        "idle actors let go";
    ACTOR_PANICS = Counter "rehome_actor_panics_total" ["kind"]
        "actors that ended by a panic: each is a defect";
    CONNECTIONS = Gauge "rehome_connections" []
        "open TLS connections";
    HANDSHAKES = Counter "rehome_handshakes_total" ["outcome"]
        "TLS handshakes: done, failed, timed_out or turned_away";
    API_CALLS = Counter "rehome_api_calls_total" ["method", "code"]
        "gRPC calls, by method and status code";
    API_CALL_SECONDS = Histogram "rehome_api_call_seconds" ["method"]
        "time until the first answer of a call";
    WEBHOOK_CALLS = Counter "rehome_webhook_calls_total" ["outcome"]
        "calls to allocation webhooks: answered, refused, timed_out or failed";
    WEBHOOK_CALL_SECONDS = Histogram "rehome_webhook_call_seconds" []
        "time an allocation webhook took";
}

/// The recorder could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum MetricsFault {
    #[error("the metric buckets are not usable")]
    Buckets(#[source] BuildError),
    #[error("another metrics recorder is installed in this process")]
    Foreign,
}

/// The values of all metrics of this process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Installs the recorder of this process. A second call gets the values of the first: two services in one process
    /// share them.
    pub fn install() -> Result<Self, MetricsFault> {
        static INSTALLED: OnceLock<Metrics> = OnceLock::new();
        if let Some(installed) = INSTALLED.get() {
            return Ok(installed.clone());
        }
        let (recorder, values) = Self::recorder()?;
        match metrics::set_global_recorder(recorder) {
            Ok(()) => {
                metrics::with_recorder(|recorder| describe(recorder));
                Ok(INSTALLED.get_or_init(|| values).clone())
            }
            // Lost a race against another call of this function, or somebody else installed one.
            Err(_) => INSTALLED.get().cloned().ok_or(MetricsFault::Foreign),
        }
    }

    /// A recorder of its own with a handle on its values.
    pub(super) fn recorder() -> Result<(PrometheusRecorder, Metrics), MetricsFault> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS_BUCKETS)
            .map_err(MetricsFault::Buckets)?
            .build_recorder();
        let values = Metrics(recorder.handle());
        Ok((recorder, values))
    }

    /// The values in the Prometheus text format.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds what histograms gathered, so that memory stays bounded when nobody scrapes.
    pub(super) fn fold(&self) {
        self.0.run_upkeep();
    }
}

/// Hands the meanings to a recorder.
pub(super) fn describe(recorder: &dyn metrics::Recorder) {
    for metric in METRICS {
        let (name, meaning) = (metric.name.into(), metric.meaning.into());
        match metric.kind {
            MetricKind::Counter => recorder.describe_counter(name, None, meaning),
            MetricKind::Gauge => recorder.describe_gauge(name, None, meaning),
            MetricKind::Histogram => recorder.describe_histogram(name, None, meaning),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_say_their_unit_and_kind() {
        let mut seen = BTreeSet::new();
        for metric in METRICS {
            assert!(seen.insert(metric.name), "{} stands twice", metric.name);
            assert!(metric.name.starts_with("rehome_"), "{}", metric.name);
            let ends_in_total = metric.name.ends_with("_total");
            assert_eq!(ends_in_total, metric.kind == MetricKind::Counter, "{}", metric.name);
            assert!(metric.kind != MetricKind::Histogram || metric.name.ends_with("_seconds"), "{}", metric.name);
        }
    }

    #[test]
    fn a_second_install_shares_the_first_ones_values() {
        let first = Metrics::install().unwrap();
        let second = Metrics::install().unwrap();
        metrics::counter!("rehome_test_shared_total").increment(3);
        for values in [first, second] {
            assert!(values.render().contains("rehome_test_shared_total 3"));
        }
    }
}
