//! Registrations, their history and their explanation as they are shown.

use serde::Serialize;
use serde_json::Value;

use crate::cli::output::{Listed, Shown};
use crate::client::{
    AllocationKind, Explanation, HistoryRecord, HistoryTwin, MoveProgress, Obligation, OperationRecord,
    RegistrationRecord,
};
use crate::domain::{Credential, DataSource, Pin, ReprovisionPolicy, SubStatus};

use super::enrollment::EnrollmentRefView;
use super::twin::DeviceView;
use super::update::{StatusColumns, seen_at};
use super::{cell, document_fact, fact, full, text, yes_no};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RegistrationView {
    pub registration_id: String,
    pub device_id: String,
    pub enrollment: EnrollmentRefView,
    pub policy: &'static str,
    pub hub_id: Option<String>,
    pub generation: Option<u64>,
    pub assigned_at: Option<String>,
    pub thumbprints: Vec<String>,
    /// Fingerprints of the keys that the hub was given, newest first.
    pub key_fingerprints: Vec<String>,
    /// SHA-256 of the endorsement key of its TPM, in base32.
    pub endorsement_key_hash: Option<String>,
    /// The name of the storage root key it proved last.
    pub storage_root_key_name: Option<String>,
    pub status: &'static str,
    pub sub_status: Option<&'static str>,
    pub data_source: Option<&'static str>,
    pub data_seen_at: Option<String>,
    pub operation: OperationView,
    pub pin: Option<PinView>,
    pub payload: Value,
    #[serde(rename = "move")]
    pub running: Option<MoveView>,
    pub obligations: Vec<ObligationView>,
    pub split_hub_ids: Vec<String>,
    pub created_at: String,
    pub updated_at: String,
    pub etag: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OperationView {
    pub operation_id: String,
    pub status: &'static str,
    pub request_id: Option<String>,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub started_at: String,
    pub updated_at: String,
}

impl From<OperationRecord> for OperationView {
    fn from(operation: OperationRecord) -> Self {
        let columns = StatusColumns::from(operation.status);
        Self {
            operation_id: operation.id.to_string(),
            status: columns.status,
            request_id: operation.request_id.map(|id| id.as_str().to_owned()),
            reason: columns.reason,
            message: columns.message,
            started_at: operation.started_at.to_string(),
            updated_at: operation.updated_at.to_string(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PinView {
    pub hub_id: String,
    pub set_by: String,
    pub reason: Option<String>,
    pub set_at: String,
    pub expires_at: Option<String>,
}

impl From<Pin> for PinView {
    fn from(pin: Pin) -> Self {
        Self {
            hub_id: pin.hub.to_string(),
            set_by: pin.by,
            reason: full(pin.reason),
            set_at: pin.set_at.to_string(),
            expires_at: text(pin.expires_at),
        }
    }
}

impl PinView {
    fn line(&self) -> String {
        let until = self.expires_at.as_ref().map_or("until it is lifted".to_owned(), |at| format!("until {at}"));
        let why = self.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        format!("{}, by {} {until}{why}", self.hub_id, self.set_by)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MoveView {
    pub generation: u64,
    pub plan: String,
    pub from_hub_id: Option<String>,
    pub to_hub_id: Option<String>,
    pub step: String,
    pub hub_id: String,
    pub started_at: String,
    pub since: String,
    pub attempts: u32,
    pub last_error: Option<String>,
}

impl From<MoveProgress> for MoveView {
    fn from(progress: MoveProgress) -> Self {
        Self {
            generation: progress.generation.0,
            plan: progress.plan,
            from_hub_id: text(progress.from),
            to_hub_id: text(progress.to),
            step: progress.step,
            hub_id: progress.hub.to_string(),
            started_at: progress.started_at.to_string(),
            since: progress.since.to_string(),
            attempts: progress.attempts,
            last_error: progress.last_error,
        }
    }
}

impl MoveView {
    /// The move in one line: what, from where to where, and what it waits for.
    pub fn line(&self) -> String {
        let way = way(self.from_hub_id.as_deref(), self.to_hub_id.as_deref());
        let trouble = self.last_error.as_ref().map_or(String::new(), |error| format!(", last error: {error}"));
        format!("{} {way}: {} at {}, tried {} times{trouble}", self.plan, self.step, self.hub_id, self.attempts)
    }
}

fn way(from: Option<&str>, to: Option<&str>) -> String {
    match (from, to) {
        (Some(from), Some(to)) if from != to => format!("{from} → {to}"),
        (_, Some(to)) => format!("→ {to}"),
        (Some(from), None) => format!("{from} →"),
        (None, None) => "-".to_owned(),
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ObligationView {
    pub generation: u64,
    pub hub_id: String,
    pub what: String,
    pub since: String,
    pub attempts: u32,
    pub last_error: Option<String>,
    pub stuck_reason: Option<String>,
}

impl From<Obligation> for ObligationView {
    fn from(obligation: Obligation) -> Self {
        Self {
            generation: obligation.generation.0,
            hub_id: obligation.hub.to_string(),
            what: obligation.what,
            since: obligation.since.to_string(),
            attempts: obligation.attempts,
            last_error: obligation.last_error,
            stuck_reason: obligation.stuck_reason,
        }
    }
}

impl ObligationView {
    fn line(&self) -> String {
        let state = match (&self.stuck_reason, &self.last_error) {
            (Some(reason), _) => format!("STUCK, waits for a person: {reason}"),
            (None, Some(error)) => format!("tried {} times, last error: {error}", self.attempts),
            (None, None) => format!("tried {} times", self.attempts),
        };
        format!("{} at {} (move {}): {state}", self.what, self.hub_id, self.generation)
    }
}

/// The word of the policy that applied: without one, the device is *sticky*.
fn applied_word(policy: Option<ReprovisionPolicy>) -> &'static str {
    policy.map_or("sticky", ReprovisionPolicy::as_str)
}

fn thumbprints(credential: Option<Credential>) -> Vec<String> {
    match credential {
        Some(Credential::X509 { thumbprints }) => thumbprints.iter().map(ToString::to_string).collect(),
        Some(Credential::Delivered(_) | Credential::Shared(_)) | None => Vec::new(),
    }
}

fn key_fingerprints(credential: Option<&Credential>) -> Vec<String> {
    match credential {
        Some(Credential::Delivered(keys)) => {
            keys.newest_first().iter().map(|key| key.fingerprint().to_string()).collect()
        }
        Some(Credential::Shared(keys)) => keys.both().map(|key| key.fingerprint().to_string()).to_vec(),
        Some(Credential::X509 { .. }) | None => Vec::new(),
    }
}

impl From<RegistrationRecord> for RegistrationView {
    fn from(record: RegistrationRecord) -> Self {
        let columns = StatusColumns::from(record.operation.status.clone());
        let home = record.assignment;
        Self {
            registration_id: record.id.to_string(),
            device_id: record.device_id.to_string(),
            enrollment: EnrollmentRefView::from(&record.enrollment),
            policy: applied_word(record.policy),
            hub_id: home.as_ref().map(|home| home.hub.to_string()),
            generation: home.as_ref().map(|home| home.generation.0),
            assigned_at: home.as_ref().map(|home| home.assigned_at.to_string()),
            key_fingerprints: key_fingerprints(home.as_ref().and_then(|home| home.credential.as_ref())),
            endorsement_key_hash: record.tpm.as_ref().map(|tpm| tpm.endorsement_key_hash.clone()),
            storage_root_key_name: record.tpm.and_then(|tpm| tpm.storage_root_key_name),
            thumbprints: thumbprints(home.and_then(|home| home.credential)),
            status: columns.status,
            sub_status: columns.sub_status,
            data_source: columns.data_source,
            data_seen_at: columns.data_seen_at,
            operation: record.operation.into(),
            pin: record.pin.map(PinView::from),
            payload: record.payload.unwrap_or_default(),
            running: record.running.map(MoveView::from),
            obligations: record.obligations.into_iter().map(ObligationView::from).collect(),
            split_hub_ids: record.split.iter().map(ToString::to_string).collect(),
            created_at: record.created_at.to_string(),
            updated_at: record.updated_at.to_string(),
            etag: record.version.etag(),
        }
    }
}

impl RegistrationView {
    fn split_line(&self) -> String {
        match self.split_hub_ids.as_slice() {
            [] => String::new(),
            hubs => format!("{} may still accept late writes; they go to the history", hubs.join(", ")),
        }
    }
}

impl Listed for RegistrationView {
    const HEADINGS: &'static [&'static str] =
        &["registration", "hub", "status", "sub-status", "enrollment", "policy", "pinned", "updated"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.registration_id.clone(),
            cell(self.hub_id.as_deref()),
            if self.split_hub_ids.is_empty() { self.status.to_owned() } else { format!("{} (split)", self.status) },
            cell(self.sub_status),
            self.enrollment.to_string(),
            self.policy.to_owned(),
            cell(self.pin.as_ref().map(|pin| pin.hub_id.as_str())),
            self.updated_at.clone(),
        ]
    }
}

impl Shown for RegistrationView {
    fn facts(&self) -> Vec<(&'static str, String)> {
        let operation = &self.operation;
        let trouble = match (&operation.message, &operation.reason) {
            (Some(message), Some(reason)) => Some(format!("{message} ({reason})")),
            (Some(only), None) | (None, Some(only)) => Some(only.clone()),
            (None, None) => None,
        };
        let owed: Vec<String> = self.obligations.iter().map(ObligationView::line).collect();
        vec![
            ("registration", self.registration_id.clone()),
            ("device", self.device_id.clone()),
            ("hub", fact(self.hub_id.as_deref())),
            ("assigned", fact(self.assigned_at.as_deref())),
            ("generation", self.generation.map(|generation| generation.to_string()).unwrap_or_default()),
            ("status", self.status.to_owned()),
            ("sub-status", fact(self.sub_status)),
            ("because", fact(trouble.as_deref())),
            ("data source", fact(self.data_source)),
            ("data seen", fact(self.data_seen_at.as_deref())),
            ("enrollment", self.enrollment.to_string()),
            ("policy", self.policy.to_owned()),
            ("pinned to", self.pin.as_ref().map(PinView::line).unwrap_or_default()),
            ("moving", self.running.as_ref().map(MoveView::line).unwrap_or_default()),
            ("still owed", owed.join("\n")),
            ("split", self.split_line()),
            ("operation", operation.operation_id.clone()),
            ("payload", document_fact(&self.payload)),
            ("certificates", self.thumbprints.join("\n")),
            ("keys", self.key_fingerprints.join("\n")),
            ("endorsement key", fact(self.endorsement_key_hash.as_deref())),
            ("storage root key", fact(self.storage_root_key_name.as_deref())),
            ("created", self.created_at.clone()),
            ("updated", self.updated_at.clone()),
            ("etag", self.etag.clone()),
        ]
    }
}

/// One move of the past.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HistoryView {
    pub generation: u64,
    pub at: String,
    pub by: String,
    pub plan: String,
    pub from_hub_id: Option<String>,
    pub to_hub_id: Option<String>,
    pub why: String,
    pub ended: String,
    pub data_source: Option<&'static str>,
    pub data_seen_at: Option<String>,
    pub has_twins: bool,
    pub bypassed: Option<String>,
    pub split: bool,
    pub abandoned: Vec<String>,
}

impl From<HistoryRecord> for HistoryView {
    fn from(record: HistoryRecord) -> Self {
        Self {
            generation: record.generation.0,
            at: record.at.to_string(),
            by: record.by,
            plan: record.plan,
            from_hub_id: text(record.from),
            to_hub_id: text(record.to),
            why: record.why,
            ended: record.ended,
            data_source: record.data_source.map(DataSource::as_str),
            data_seen_at: seen_at(record.data_source),
            has_twins: record.has_twins,
            bypassed: record.bypassed,
            split: record.split,
            abandoned: record.abandoned,
        }
    }
}

impl HistoryView {
    /// Why, and what was out of the ordinary.
    fn story(&self) -> String {
        let bypassed = self.bypassed.as_ref().map(|why| format!("old hub {why}, not sealed"));
        let split = self.split.then(|| "split".to_owned());
        let given_up = (!self.abandoned.is_empty()).then(|| format!("given up: {}", self.abandoned.join("; ")));
        let notes: Vec<String> = [bypassed, split, given_up].into_iter().flatten().collect();
        if notes.is_empty() { self.why.clone() } else { format!("{} ({})", self.why, notes.join(", ")) }
    }
}

impl Listed for HistoryView {
    const HEADINGS: &'static [&'static str] =
        &["generation", "at", "by", "what", "way", "ended", "data", "twins", "why"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.generation.to_string(),
            self.at.clone(),
            self.by.clone(),
            self.plan.clone(),
            way(self.from_hub_id.as_deref(), self.to_hub_id.as_deref()),
            self.ended.clone(),
            cell(self.data_source),
            yes_no(self.has_twins),
            self.story(),
        ]
    }
}

/// A device state that the history keeps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HistoryTwinView {
    pub hub_id: Option<String>,
    pub at: String,
    pub late: bool,
    pub device: DeviceView,
    /// How a late one differs from what was carried in its stead.
    pub differences: Option<Value>,
}

impl From<HistoryTwin> for HistoryTwinView {
    fn from(twin: HistoryTwin) -> Self {
        let differences = twin.differences.map(|document| Value::Object(document.0));
        let (hub_id, at) = (twin.hub.map(|hub| hub.to_string()), twin.at.to_string());
        Self { hub_id, at, late: twin.late, device: twin.device.into(), differences }
    }
}

impl Listed for HistoryTwinView {
    const HEADINGS: &'static [&'static str] = &["hub", "taken at", "late", "tags", "desired", "reported", "differs by"];

    fn cells(&self) -> Vec<String> {
        vec![
            cell(self.hub_id.as_deref()),
            self.at.clone(),
            yes_no(self.late),
            self.device.tags.to_string(),
            self.device.desired.properties.to_string(),
            self.device.reported.properties.to_string(),
            cell(self.differences.as_ref().map(Value::to_string).as_deref()),
        ]
    }
}

/// Where a device would go now, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExplainView {
    pub enrollment: EnrollmentRefView,
    pub stored_policy: &'static str,
    pub applied_policy: &'static str,
    pub policy_basis: String,
    pub allocation_policy: &'static str,
    pub current_hub_id: Option<String>,
    pub hub_id: Option<String>,
    pub outcome: String,
    pub sub_status: Option<&'static str>,
    pub allocation_why: String,
    pub outcome_why: String,
    pub hubs_not_taken: Vec<NotTakenView>,
    pub pin: Option<PinView>,
    pub reason: Option<String>,
    pub held_by_policy: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotTakenView {
    pub hub_id: String,
    pub why: String,
}

impl From<Explanation> for ExplainView {
    fn from(explained: Explanation) -> Self {
        let not_taken = |(hub, why): (crate::domain::HubId, String)| NotTakenView { hub_id: hub.to_string(), why };
        Self {
            enrollment: EnrollmentRefView::from(&explained.enrollment),
            stored_policy: explained.stored_policy.map_or("none", ReprovisionPolicy::as_str),
            applied_policy: applied_word(explained.applied_policy),
            policy_basis: explained.policy_basis,
            allocation_policy: explained.allocation.map_or("default", AllocationKind::as_str),
            current_hub_id: text(explained.current),
            hub_id: text(explained.hub),
            outcome: explained.outcome,
            sub_status: explained.sub_status.map(SubStatus::as_str),
            allocation_why: explained.allocation_why,
            outcome_why: explained.outcome_why,
            hubs_not_taken: explained.not_taken.into_iter().map(not_taken).collect(),
            pin: explained.pin.map(PinView::from),
            reason: explained.reason,
            held_by_policy: explained.held_by_policy,
        }
    }
}

impl Shown for ExplainView {
    fn facts(&self) -> Vec<(&'static str, String)> {
        let others: Vec<String> =
            self.hubs_not_taken.iter().map(|hub| format!("{}: {}", hub.hub_id, hub.why)).collect();
        vec![
            ("outcome", self.outcome.clone()),
            ("because", self.outcome_why.clone()),
            ("reason", fact(self.reason.as_deref())),
            ("hub now", fact(self.current_hub_id.as_deref())),
            ("hub then", fact(self.hub_id.as_deref())),
            ("this hub because", self.allocation_why.clone()),
            ("other hubs", others.join("\n")),
            ("told", fact(self.sub_status)),
            ("enrollment", self.enrollment.to_string()),
            ("policy", format!("{} (stored: {})", self.applied_policy, self.stored_policy)),
            ("this policy because", self.policy_basis.clone()),
            ("allocation", self.allocation_policy.to_owned()),
            ("pinned to", self.pin.as_ref().map(PinView::line).unwrap_or_default()),
            ("held by policy", if self.held_by_policy { "yes".to_owned() } else { String::new() }),
        ]
    }
}

/// Records for the tests of this command line.
#[cfg(test)]
pub mod samples {
    use crate::client::{OperationRecord, RegistrationRecord, UpdateStatus};
    use crate::domain::{
        Assignment, DeviceId, EnrollmentId, GroupId, HubId, OperationId, Order, RegistrationId, ReprovisionPolicy,
        Timestamp, Version,
    };

    pub fn hub(id: &str) -> HubId {
        HubId::parse(id).unwrap()
    }

    pub fn record() -> RegistrationRecord {
        RegistrationRecord {
            id: RegistrationId::parse("dev-1").unwrap(),
            device_id: DeviceId::parse("dev-1").unwrap(),
            enrollment: EnrollmentId::Group(GroupId::parse("plant").unwrap()),
            policy: Some(ReprovisionPolicy::Migrate),
            assignment: Some(Assignment {
                hub: hub("hub-a"),
                generation: Order(4),
                credential: None,
                assigned_at: Timestamp(0),
            }),
            operation: OperationRecord {
                id: OperationId(1),
                status: UpdateStatus::Assigning,
                request_id: None,
                started_at: Timestamp(0),
                updated_at: Timestamp(0),
            },
            pin: None,
            tpm: None,
            payload: None,
            running: None,
            obligations: Vec::new(),
            split: Vec::new(),
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            version: Version(9),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{hub, record};
    use super::*;
    use crate::cli::output::{facts, table};
    use crate::domain::{Order, Timestamp};

    #[test]
    fn a_registration_is_a_row() {
        assert_eq!(
            table(&[RegistrationView::from(record())]),
            "REGISTRATION  HUB    STATUS     SUB-STATUS  ENROLLMENT   POLICY   PINNED  UPDATED\n\
             dev-1         hub-a  assigning  -           group plant  migrate  -       1970-01-01T00:00:00.000Z\n"
        );
    }

    #[test]
    fn what_is_under_way_and_owed_is_said() {
        let mut record = record();
        record.running = Some(MoveProgress {
            generation: Order(5),
            plan: "relocate".to_owned(),
            from: Some(hub("hub-a")),
            to: Some(hub("hub-b")),
            step: "seal".to_owned(),
            hub: hub("hub-a"),
            started_at: Timestamp(0),
            since: Timestamp(0),
            attempts: 2,
            last_error: Some("it did not answer".to_owned()),
        });
        let owed = |id: &str, what: &str, stuck_reason: Option<&str>| Obligation {
            generation: Order(0),
            hub: hub(id),
            what: what.to_owned(),
            since: Timestamp(0),
            attempts: 0,
            last_error: None,
            stuck_reason: stuck_reason.map(str::to_owned),
        };
        record.obligations = vec![owed("hub-c", "collect", None), owed("hub-d", "delete", Some("occupied"))];
        record.pin = Some(Pin {
            hub: hub("hub-b"),
            by: "ada".to_owned(),
            reason: String::new(),
            set_at: Timestamp(0),
            expires_at: None,
        });
        let shown = facts(&RegistrationView::from(record.clone()));
        for line in [
            "moving        relocate hub-a → hub-b: seal at hub-a, tried 2 times, last error: it did not answer\n",
            "still owed    collect at hub-c (move 0): tried 0 times\n",
            "              delete at hub-d (move 0): STUCK, waits for a person: occupied\n",
            "pinned to     hub-b, by ada until it is lifted\n",
        ] {
            assert!(shown.contains(line), "{line}in\n{shown}");
        }
        let json = serde_json::to_value(RegistrationView::from(record)).unwrap();
        assert_eq!(
            (&json["move"]["step"], &json["obligations"][1]["stuck_reason"]),
            (&"seal".into(), &"occupied".into())
        );
        assert_eq!(json["enrollment"]["group_id"], "plant");
    }

    #[test]
    fn an_explanation_names_why_the_other_hubs_were_not_taken() {
        let explained = Explanation {
            enrollment: record().enrollment,
            stored_policy: None,
            applied_policy: None,
            policy_basis: "an old device".to_owned(),
            allocation: None,
            current: Some(hub("hub-a")),
            hub: Some(hub("hub-a")),
            outcome: "stay".to_owned(),
            sub_status: None,
            allocation_why: String::new(),
            outcome_why: String::new(),
            not_taken: vec![(hub("hub-b"), "is full".to_owned())],
            pin: None,
            reason: None,
            held_by_policy: false,
        };
        let shown = facts(&ExplainView::from(explained));
        assert!(shown.contains("other hubs           hub-b: is full\n"), "{shown}");
        assert!(shown.contains("policy               sticky (stored: none)\n"), "{shown}");
    }

    #[test]
    fn the_way_of_a_move() {
        for (from, to, expected) in [
            (Some("a"), Some("b"), "a → b"),
            (None, Some("b"), "→ b"),
            (Some("a"), Some("a"), "→ a"),
            (Some("a"), None, "a →"),
            (None, None, "-"),
        ] {
            assert_eq!(way(from, to), expected);
        }
    }
}
