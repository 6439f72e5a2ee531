//! One function for each thing that is counted or measured: rooms say what happened, metric names stay in here.
//!
//! Labels have few values: enums, steps and hub ids (at most 50), never a device's id.

use std::time::Duration;

use metrics::{counter, gauge, histogram};

use super::metric as names;
use crate::domain::{CallFault, CallOutcome, HubId, Reason};

/// An enum whose values are label values.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }
    };
}

label! {
    /// How a registration was answered.
    RegistrationOutcome {
        /// Something was written and the device has its hub.
        Assigned = "assigned",
        /// Nothing had changed, nothing was written.
        Unchanged = "unchanged",
        /// The caller got the operation that was already running.
        Joined = "joined",
        Failed = "failed",
        Disabled = "disabled",
        /// The caller proved nothing.
        Refused = "refused",
    }
}

label! {
    /// How a move ended.
    MoveOutcome { Done = "done", Aborted = "aborted", }
}

label! {
    /// What is known of a call to a hub.
    HubCallOutcome {
        Done = "done",
        Refused = "refused",
        /// It never reached the hub.
        Unavailable = "unavailable",
        Unknown = "unknown",
    }
}

impl HubCallOutcome {
    pub fn of(outcome: &CallOutcome) -> Self {
        match outcome {
            Ok(_) => HubCallOutcome::Done,
            Err(CallFault::Refused(_)) => HubCallOutcome::Refused,
            Err(CallFault::Unavailable(_)) => HubCallOutcome::Unavailable,
            Err(CallFault::Unknown(_)) => HubCallOutcome::Unknown,
        }
    }
}

label! {
    /// What is known of a commit.
    CommitOutcome { Done = "done", Conflict = "conflict", Failed = "failed", Unknown = "unknown", }
}

label! {
    HandshakeOutcome { Done = "done", Failed = "failed", TimedOut = "timed_out", TurnedAway = "turned_away", }
}

label! {
    WebhookOutcome { Answered = "answered", Refused = "refused", TimedOut = "timed_out", Failed = "failed", }
}

label! {
    /// The bounded queues.
    Queue {
        DeviceMailbox = "device_mailbox",
        HubMailbox = "hub_mailbox",
        StoreWriter = "store_writer",
        Registrations = "registrations",
    }
}

label! {
    ActorKind { Device = "device", Hub = "hub", }
}

label! {
    /// Files that are synced.
    DiskFile { Service = "service", Hub = "hub", }
}

/// A registration was answered for good.
pub fn registration_finished(outcome: RegistrationOutcome, reason: Option<Reason>, took: Duration) {
    let reason = reason.map_or("none", Reason::as_str);
    counter!(names::REGISTRATIONS, "outcome" => outcome.as_str(), "reason" => reason).increment(1);
    histogram!(names::REGISTRATION_SECONDS, "outcome" => outcome.as_str()).record(took);
}

pub fn move_finished(outcome: MoveOutcome, took: Duration) {
    counter!(names::MOVES, "outcome" => outcome.as_str()).increment(1);
    histogram!(names::MOVE_SECONDS, "outcome" => outcome.as_str()).record(took);
}

/// A hub answered a step of a move, or did not.
pub fn step_finished(step: &'static str, outcome: HubCallOutcome) {
    counter!(names::MOVE_STEPS, "step" => step, "outcome" => outcome.as_str()).increment(1);
}

/// How many moves stand at a step, and how long the oldest has been under way. Zero must be told, too.
pub fn moves_in_step(step: &'static str, count: usize, oldest: Duration) {
    gauge!(names::MOVES_IN_STEP, "step" => step).set(level(count));
    gauge!(names::MOVES_OLDEST_SECONDS, "step" => step).set(oldest.as_secs_f64());
}

/// How many obligations of a kind are open, and how many of these are stuck. Zero must be told, too.
pub fn obligations_owed(kind: &'static str, open: usize, stuck: usize) {
    gauge!(names::OBLIGATIONS, "kind" => kind).set(level(open));
    gauge!(names::OBLIGATIONS_STUCK, "kind" => kind).set(level(stuck));
}

pub fn hub_call_finished(hub: &HubId, kind: &'static str, outcome: HubCallOutcome, took: Duration) {
    counter!(names::HUB_CALLS, "hub" => hub.to_string(), "kind" => kind, "outcome" => outcome.as_str()).increment(1);
    histogram!(names::HUB_CALL_SECONDS, "kind" => kind).record(took);
}

pub fn hub_reachable(hub: &HubId, reachable: bool) {
    gauge!(names::HUB_REACHABLE, "hub" => hub.to_string()).set(flag(reachable));
}

/// Whether the hub waits to be gone through after a restore.
pub fn hub_restored(hub: &HubId, restored: bool) {
    gauge!(names::HUB_RESTORED, "hub" => hub.to_string()).set(flag(restored));
}

/// Whether all moves stand still, since the service's own store went back in time.
pub fn moves_halted(halted: bool) {
    gauge!(names::MOVES_HALTED).set(flag(halted));
}

pub fn circuit_changed(hub: &HubId, open: bool) {
    gauge!(names::HUB_CIRCUIT_OPEN, "hub" => hub.to_string()).set(flag(open));
}

pub fn queue_depth(queue: Queue, waiting: usize) {
    gauge!(names::QUEUE_DEPTH, "queue" => queue.as_str()).set(level(waiting));
}

/// A group of commits was made durable.
pub fn disk_synced(file: DiskFile) {
    counter!(names::DISK_SYNCS, "file" => file.as_str()).increment(1);
}

/// Somebody was refused because a queue was full.
pub fn overloaded(queue: Queue) {
    counter!(names::OVERLOADS, "queue" => queue.as_str()).increment(1);
}

/// Somebody was refused because of a rate; `limit` is the setting's name.
pub fn rate_limited(limit: &'static str) {
    counter!(names::RATE_LIMITED, "limit" => limit).increment(1);
}

pub fn store_commit_finished(outcome: CommitOutcome, took: Duration) {
    counter!(names::STORE_COMMITS, "outcome" => outcome.as_str()).increment(1);
    histogram!(names::STORE_COMMIT_SECONDS).record(took);
}

pub fn actors_active(kind: ActorKind, count: usize) {
    gauge!(names::ACTORS_ACTIVE, "kind" => kind.as_str()).set(level(count));
}

pub fn actors_passivated(kind: ActorKind, count: u64) {
    counter!(names::ACTORS_PASSIVATED, "kind" => kind.as_str()).increment(count);
}

pub fn actor_panicked(kind: ActorKind) {
    counter!(names::ACTOR_PANICS, "kind" => kind.as_str()).increment(1);
}

pub fn connection_opened() {
    gauge!(names::CONNECTIONS).increment(1.0);
}

pub fn connection_closed() {
    gauge!(names::CONNECTIONS).decrement(1.0);
}

pub fn handshake_finished(outcome: HandshakeOutcome) {
    counter!(names::HANDSHAKES, "outcome" => outcome.as_str()).increment(1);
}

/// `method` is a method this service has, never the path that a caller sent: that would be a label without bound.
pub fn api_call_finished(method: &'static str, code: &'static str, took: Duration) {
    counter!(names::API_CALLS, "method" => method, "code" => code).increment(1);
    histogram!(names::API_CALL_SECONDS, "method" => method).record(took);
}

pub fn webhook_call_finished(outcome: WebhookOutcome, took: Duration) {
    counter!(names::WEBHOOK_CALLS, "outcome" => outcome.as_str()).increment(1);
    histogram!(names::WEBHOOK_CALL_SECONDS).record(took);
}

/// A count as a gauge's value; exact up to 2^53, far above anything that fits in memory.
fn level(count: usize) -> f64 {
    count as f64
}

fn flag(set: bool) -> f64 {
    if set { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::metric::{METRICS, Metrics, describe};
    use super::*;

    /// What is rendered after `record`, from a recorder of its own.
    fn rendered(record: impl FnOnce()) -> String {
        let (recorder, values) = Metrics::recorder().unwrap();
        describe(&recorder);
        metrics::with_local_recorder(&recorder, record);
        values.render()
    }

    fn hub() -> HubId {
        HubId::parse("hub-a").unwrap()
    }

    fn record_everything() {
        let took = Duration::from_millis(20);
        registration_finished(RegistrationOutcome::Failed, Some(Reason::NoHubAvailable), took);
        move_finished(MoveOutcome::Aborted, took);
        step_finished("seal", HubCallOutcome::Unknown);
        moves_in_step("seal", 3, Duration::from_secs(90));
        obligations_owed("collect", 2, 1);
        hub_call_finished(&hub(), "seal", HubCallOutcome::Refused, took);
        hub_reachable(&hub(), true);
        hub_restored(&hub(), false);
        moves_halted(true);
        circuit_changed(&hub(), false);
        queue_depth(Queue::StoreWriter, 7);
        disk_synced(DiskFile::Hub);
        overloaded(Queue::DeviceMailbox);
        rate_limited("peer_refusals_per_minute");
        store_commit_finished(CommitOutcome::Conflict, took);
        actors_active(ActorKind::Device, 5);
        actors_passivated(ActorKind::Device, 4);
        actor_panicked(ActorKind::Hub);
        connection_opened();
        connection_opened();
        connection_closed();
        handshake_finished(HandshakeOutcome::TimedOut);
        api_call_finished("Register", "OK", took);
        webhook_call_finished(WebhookOutcome::Answered, took);
    }

    #[test]
    fn each_fact_becomes_one_line() {
        let text = rendered(record_everything);
        for line in [
            r#"rehome_registrations_total{outcome="failed",reason="NO_HUB_AVAILABLE"} 1"#,
            r#"rehome_registration_seconds_bucket{outcome="failed",le="0.025"} 1"#,
            r#"rehome_moves_total{outcome="aborted"} 1"#,
            r#"rehome_move_steps_total{step="seal",outcome="unknown"} 1"#,
            r#"rehome_moves_in_step{step="seal"} 3"#,
            r#"rehome_moves_oldest_seconds{step="seal"} 90"#,
            r#"rehome_obligations{kind="collect"} 2"#,
            r#"rehome_obligations_stuck{kind="collect"} 1"#,
            r#"rehome_hub_calls_total{hub="hub-a",kind="seal",outcome="refused"} 1"#,
            r#"rehome_hub_reachable{hub="hub-a"} 1"#,
            r#"rehome_hub_restored{hub="hub-a"} 0"#,
            "rehome_moves_halted 1",
            r#"rehome_hub_circuit_open{hub="hub-a"} 0"#,
            r#"rehome_queue_depth{queue="store_writer"} 7"#,
            r#"rehome_disk_syncs_total{file="hub"} 1"#,
            r#"rehome_store_commits_total{outcome="conflict"} 1"#,
            r#"rehome_connections 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
    }

    #[test]
    fn an_answer_without_a_reason_says_none() {
        let text = rendered(|| registration_finished(RegistrationOutcome::Unchanged, None, Duration::ZERO));
        assert!(text.contains(r#"rehome_registrations_total{outcome="unchanged",reason="none"} 1"#), "{text}");
    }

    #[test]
    fn the_table_and_the_functions_agree() {
        let text = rendered(record_everything);
        let told: BTreeSet<(&str, &str)> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split_once(' '))
            .collect();
        let listed: BTreeSet<(&str, &str)> = METRICS.iter().map(|metric| (metric.name, metric.kind.as_str())).collect();
        assert_eq!(told, listed);
        for metric in METRICS {
            let help = format!("# HELP {} {}", metric.name, metric.meaning);
            assert!(text.contains(&help), "{help}");
            let first = text.lines().find(|line| line.starts_with(&format!("{}{{", metric.name)));
            for label in metric.labels {
                let of_histogram = format!("{label}=\"");
                let line =
                    first.or_else(|| text.lines().find(|line| line.starts_with(&format!("{}_bucket{{", metric.name))));
                assert!(line.is_some_and(|line| line.contains(&of_histogram)), "{} {label}", metric.name);
            }
        }
    }
}
