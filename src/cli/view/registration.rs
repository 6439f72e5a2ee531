//! Registrations, their history and their explanation as they are shown.

use serde::Serialize;
use serde_json::Value;

use crate::cli::api::admin;
use crate::cli::output::{Listed, Shown};
use crate::cli::value;

use super::device::{data_source_word, status_word, sub_status_word};
use super::enrollment::EnrollmentRefView;
use super::twin::DeviceView;
use super::{cell, document_fact, fact, yes_no};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RegistrationView {
    pub registration_id: String,
    pub device_id: String,
    pub enrollment: Option<EnrollmentRefView>,
    pub policy: Option<String>,
    pub hub_id: Option<String>,
    pub generation: Option<u64>,
    pub assigned_at: Option<String>,
    pub thumbprints: Vec<String>,
    pub status: Option<String>,
    pub sub_status: Option<String>,
    pub data_source: Option<String>,
    pub data_seen_at: Option<String>,
    pub operation: Option<OperationView>,
    pub pin: Option<PinView>,
    pub payload: Value,
    #[serde(rename = "move")]
    pub running: Option<MoveView>,
    pub obligations: Vec<ObligationView>,
    pub created_at: Option<String>,
    pub updated_at: Option<String>,
    pub etag: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OperationView {
    pub operation_id: String,
    pub status: Option<String>,
    pub request_id: Option<String>,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub started_at: Option<String>,
    pub updated_at: Option<String>,
}

impl From<admin::Operation> for OperationView {
    fn from(operation: admin::Operation) -> Self {
        Self {
            status: status_word(operation.status),
            request_id: value::text(&operation.request_id),
            reason: value::text(&operation.reason),
            message: value::text(&operation.message),
            started_at: value::time(operation.started_at.as_ref()),
            updated_at: value::time(operation.updated_at.as_ref()),
            operation_id: operation.operation_id,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PinView {
    pub hub_id: String,
    pub set_by: String,
    pub reason: Option<String>,
    pub set_at: Option<String>,
    pub expires_at: Option<String>,
}

impl From<admin::Pin> for PinView {
    fn from(pin: admin::Pin) -> Self {
        Self {
            reason: value::text(&pin.reason),
            set_at: value::time(pin.set_at.as_ref()),
            expires_at: value::time(pin.expires_at.as_ref()),
            hub_id: pin.hub_id,
            set_by: pin.set_by,
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
    pub hub_id: Option<String>,
    pub started_at: Option<String>,
    pub since: Option<String>,
    pub attempts: u32,
    pub last_error: Option<String>,
}

impl From<admin::MoveProgress> for MoveView {
    fn from(progress: admin::MoveProgress) -> Self {
        Self {
            generation: progress.generation,
            from_hub_id: value::text(&progress.from_hub_id),
            to_hub_id: value::text(&progress.to_hub_id),
            hub_id: value::text(&progress.hub_id),
            started_at: value::time(progress.started_at.as_ref()),
            since: value::time(progress.since.as_ref()),
            attempts: progress.attempts,
            last_error: value::text(&progress.last_error),
            plan: progress.plan,
            step: progress.step,
        }
    }
}

impl MoveView {
    /// The move in one line: what, from where to where, and what it waits for.
    pub fn line(&self) -> String {
        let way = way(self.from_hub_id.as_deref(), self.to_hub_id.as_deref());
        let at = self.hub_id.as_ref().map_or(String::new(), |hub| format!(" at {hub}"));
        let trouble = self.last_error.as_ref().map_or(String::new(), |error| format!(", last error: {error}"));
        format!("{} {way}: {}{at}, tried {} times{trouble}", self.plan, self.step, self.attempts)
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
    pub since: Option<String>,
    pub attempts: u32,
    pub last_error: Option<String>,
    pub stuck_reason: Option<String>,
}

impl From<admin::Obligation> for ObligationView {
    fn from(obligation: admin::Obligation) -> Self {
        Self {
            generation: obligation.generation,
            since: value::time(obligation.since.as_ref()),
            attempts: obligation.attempts,
            last_error: value::text(&obligation.last_error),
            stuck_reason: value::text(&obligation.stuck_reason),
            hub_id: obligation.hub_id,
            what: obligation.what,
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

impl From<admin::Registration> for RegistrationView {
    fn from(registration: admin::Registration) -> Self {
        let policy = admin::AppliedPolicy::try_from(registration.policy).ok();
        let assignment = registration.assignment;
        Self {
            enrollment: EnrollmentRefView::of(registration.enrollment),
            policy: value::word(policy.map(|policy| policy.as_str_name()), "APPLIED_POLICY_"),
            hub_id: assignment.as_ref().and_then(|home| value::text(&home.hub_id)),
            generation: assignment.as_ref().map(|home| home.generation),
            assigned_at: assignment.as_ref().and_then(|home| value::time(home.assigned_at.as_ref())),
            thumbprints: assignment.map(|home| home.thumbprints).unwrap_or_default(),
            status: status_word(registration.status),
            sub_status: sub_status_word(registration.sub_status),
            data_source: data_source_word(registration.data_source),
            data_seen_at: value::time(registration.data_seen_at.as_ref()),
            operation: registration.operation.map(OperationView::from),
            pin: registration.pin.map(PinView::from),
            payload: registration.payload.as_ref().map_or(Value::Null, value::json),
            running: registration.r#move.map(MoveView::from),
            obligations: registration.obligations.into_iter().map(ObligationView::from).collect(),
            created_at: value::time(registration.created_at.as_ref()),
            updated_at: value::time(registration.updated_at.as_ref()),
            registration_id: registration.registration_id,
            device_id: registration.device_id,
            etag: registration.etag,
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
            cell(self.status.as_deref()),
            cell(self.sub_status.as_deref()),
            cell(self.enrollment.as_ref().map(ToString::to_string).as_deref()),
            cell(self.policy.as_deref()),
            cell(self.pin.as_ref().map(|pin| pin.hub_id.as_str())),
            cell(self.updated_at.as_deref()),
        ]
    }
}

impl Shown for RegistrationView {
    fn facts(&self) -> Vec<(&'static str, String)> {
        let operation = self.operation.as_ref();
        let trouble = operation.and_then(|operation| match (&operation.message, &operation.reason) {
            (Some(message), Some(reason)) => Some(format!("{message} ({reason})")),
            (Some(only), None) | (None, Some(only)) => Some(only.clone()),
            (None, None) => None,
        });
        let owed: Vec<String> = self.obligations.iter().map(ObligationView::line).collect();
        vec![
            ("registration", self.registration_id.clone()),
            ("device", self.device_id.clone()),
            ("hub", fact(self.hub_id.as_deref())),
            ("assigned", fact(self.assigned_at.as_deref())),
            ("generation", self.generation.map(|generation| generation.to_string()).unwrap_or_default()),
            ("status", fact(self.status.as_deref())),
            ("sub-status", fact(self.sub_status.as_deref())),
            ("because", fact(trouble.as_deref())),
            ("data source", fact(self.data_source.as_deref())),
            ("data seen", fact(self.data_seen_at.as_deref())),
            ("enrollment", self.enrollment.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("policy", fact(self.policy.as_deref())),
            ("pinned to", self.pin.as_ref().map(PinView::line).unwrap_or_default()),
            ("moving", self.running.as_ref().map(MoveView::line).unwrap_or_default()),
            ("still owed", owed.join("\n")),
            ("operation", fact(operation.map(|operation| operation.operation_id.as_str()))),
            ("payload", document_fact(&self.payload)),
            ("certificates", self.thumbprints.join("\n")),
            ("created", fact(self.created_at.as_deref())),
            ("updated", fact(self.updated_at.as_deref())),
            ("etag", self.etag.clone()),
        ]
    }
}

/// One move of the past.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HistoryView {
    pub generation: u64,
    pub at: Option<String>,
    pub by: String,
    pub plan: String,
    pub from_hub_id: Option<String>,
    pub to_hub_id: Option<String>,
    pub why: String,
    pub ended: String,
    pub data_source: Option<String>,
    pub data_seen_at: Option<String>,
    pub has_twins: bool,
}

impl From<admin::HistoryEntry> for HistoryView {
    fn from(entry: admin::HistoryEntry) -> Self {
        Self {
            generation: entry.generation,
            at: value::time(entry.at.as_ref()),
            from_hub_id: value::text(&entry.from_hub_id),
            to_hub_id: value::text(&entry.to_hub_id),
            data_source: data_source_word(entry.data_source),
            data_seen_at: value::time(entry.data_seen_at.as_ref()),
            has_twins: entry.has_twins,
            by: entry.by,
            plan: entry.plan,
            why: entry.why,
            ended: entry.ended,
        }
    }
}

impl Listed for HistoryView {
    const HEADINGS: &'static [&'static str] =
        &["generation", "at", "by", "what", "way", "ended", "data", "twins", "why"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.generation.to_string(),
            cell(self.at.as_deref()),
            self.by.clone(),
            self.plan.clone(),
            way(self.from_hub_id.as_deref(), self.to_hub_id.as_deref()),
            self.ended.clone(),
            cell(self.data_source.as_deref()),
            yes_no(self.has_twins),
            self.why.clone(),
        ]
    }
}

/// A device state that the history keeps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HistoryTwinView {
    pub hub_id: String,
    pub at: Option<String>,
    pub late: bool,
    pub device: DeviceView,
}

impl From<admin::HistoryTwin> for HistoryTwinView {
    fn from(twin: admin::HistoryTwin) -> Self {
        Self {
            at: value::time(twin.at.as_ref()),
            late: twin.late,
            device: twin.device.unwrap_or_default().into(),
            hub_id: twin.hub_id,
        }
    }
}

impl Listed for HistoryTwinView {
    const HEADINGS: &'static [&'static str] = &["hub", "taken at", "late", "tags", "desired", "reported"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.hub_id.clone(),
            cell(self.at.as_deref()),
            yes_no(self.late),
            self.device.tags.to_string(),
            self.device.desired.properties.to_string(),
            self.device.reported.properties.to_string(),
        ]
    }
}

/// Where a device would go now, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExplainView {
    pub enrollment: Option<EnrollmentRefView>,
    pub stored_policy: String,
    pub applied_policy: Option<String>,
    pub policy_basis: String,
    pub allocation_policy: String,
    pub current_hub_id: Option<String>,
    pub hub_id: Option<String>,
    pub outcome: String,
    pub sub_status: Option<String>,
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

impl From<admin::ExplainResponse> for ExplainView {
    fn from(explained: admin::ExplainResponse) -> Self {
        let stored = admin::ReprovisionPolicy::try_from(explained.stored_policy).ok();
        let applied = admin::AppliedPolicy::try_from(explained.applied_policy).ok();
        let allocation = admin::AllocationPolicy::try_from(explained.allocation_policy).ok();
        let word = |word: Option<String>, absent: &str| word.unwrap_or_else(|| absent.to_owned());
        let not_taken = |hub: admin::HubNotTaken| NotTakenView { hub_id: hub.hub_id, why: hub.why };
        Self {
            enrollment: EnrollmentRefView::of(explained.enrollment),
            stored_policy: word(value::word(stored.map(|p| p.as_str_name()), "REPROVISION_POLICY_"), "none"),
            applied_policy: value::word(applied.map(|p| p.as_str_name()), "APPLIED_POLICY_"),
            policy_basis: explained.policy_basis,
            allocation_policy: word(value::word(allocation.map(|p| p.as_str_name()), "ALLOCATION_POLICY_"), "default"),
            current_hub_id: value::text(&explained.current_hub_id),
            hub_id: value::text(&explained.hub_id),
            outcome: explained.outcome,
            sub_status: sub_status_word(explained.sub_status),
            allocation_why: explained.allocation_why,
            outcome_why: explained.outcome_why,
            hubs_not_taken: explained.hubs_not_taken.into_iter().map(not_taken).collect(),
            pin: explained.pin.map(PinView::from),
            reason: value::text(&explained.reason),
            held_by_policy: explained.held_by_policy,
        }
    }
}

impl Shown for ExplainView {
    fn facts(&self) -> Vec<(&'static str, String)> {
        let others: Vec<String> =
            self.hubs_not_taken.iter().map(|hub| format!("{}: {}", hub.hub_id, hub.why)).collect();
        let applied = self.applied_policy.as_deref().unwrap_or("-");
        vec![
            ("outcome", self.outcome.clone()),
            ("because", self.outcome_why.clone()),
            ("reason", fact(self.reason.as_deref())),
            ("hub now", fact(self.current_hub_id.as_deref())),
            ("hub then", fact(self.hub_id.as_deref())),
            ("this hub because", self.allocation_why.clone()),
            ("other hubs", others.join("\n")),
            ("told", fact(self.sub_status.as_deref())),
            ("enrollment", self.enrollment.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("policy", format!("{applied} (stored: {})", self.stored_policy)),
            ("this policy because", self.policy_basis.clone()),
            ("allocation", self.allocation_policy.clone()),
            ("pinned to", self.pin.as_ref().map(PinView::line).unwrap_or_default()),
            ("held by policy", if self.held_by_policy { "yes".to_owned() } else { String::new() }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::api::device;
    use crate::cli::output::{facts, table};

    fn registration() -> admin::Registration {
        let group = admin::enrollment_ref::Id::GroupId("plant".to_owned());
        let mut registration = admin::Registration {
            registration_id: "dev-1".to_owned(),
            device_id: "dev-1".to_owned(),
            enrollment: Some(admin::EnrollmentRef { id: Some(group) }),
            assignment: Some(admin::Assignment { hub_id: "hub-a".to_owned(), generation: 4, ..Default::default() }),
            etag: "v9".to_owned(),
            ..Default::default()
        };
        registration.set_policy(admin::AppliedPolicy::Migrate);
        registration.set_status(device::RegistrationStatus::Assigning);
        registration
    }

    #[test]
    fn a_registration_is_a_row() {
        assert_eq!(
            table(&[RegistrationView::from(registration())]),
            "REGISTRATION  HUB    STATUS     SUB-STATUS  ENROLLMENT   POLICY   PINNED  UPDATED\n\
             dev-1         hub-a  assigning  -           group plant  migrate  -       -\n"
        );
    }

    #[test]
    fn what_is_under_way_and_owed_is_said() {
        let mut registration = registration();
        registration.r#move = Some(admin::MoveProgress {
            plan: "relocate".to_owned(),
            from_hub_id: "hub-a".to_owned(),
            to_hub_id: "hub-b".to_owned(),
            step: "seal".to_owned(),
            hub_id: "hub-a".to_owned(),
            attempts: 2,
            last_error: "it did not answer".to_owned(),
            ..Default::default()
        });
        registration.obligations = vec![
            admin::Obligation { hub_id: "hub-c".to_owned(), what: "collect".to_owned(), ..Default::default() },
            admin::Obligation {
                hub_id: "hub-d".to_owned(),
                what: "delete".to_owned(),
                stuck_reason: "occupied".to_owned(),
                ..Default::default()
            },
        ];
        registration.pin =
            Some(admin::Pin { hub_id: "hub-b".to_owned(), set_by: "ada".to_owned(), ..Default::default() });
        let shown = facts(&RegistrationView::from(registration.clone()));
        for line in [
            "moving        relocate hub-a → hub-b: seal at hub-a, tried 2 times, last error: it did not answer\n",
            "still owed    collect at hub-c (move 0): tried 0 times\n",
            "              delete at hub-d (move 0): STUCK, waits for a person: occupied\n",
            "pinned to     hub-b, by ada until it is lifted\n",
        ] {
            assert!(shown.contains(line), "{line}in\n{shown}");
        }
        let json = serde_json::to_value(RegistrationView::from(registration)).unwrap();
        assert_eq!(
            (&json["move"]["step"], &json["obligations"][1]["stuck_reason"]),
            (&"seal".into(), &"occupied".into())
        );
        assert_eq!(json["enrollment"]["group_id"], "plant");
    }

    #[test]
    fn an_explanation_names_why_the_other_hubs_were_not_taken() {
        let explained = admin::ExplainResponse {
            outcome: "stay".to_owned(),
            hub_id: "hub-a".to_owned(),
            hubs_not_taken: vec![admin::HubNotTaken { hub_id: "hub-b".to_owned(), why: "is full".to_owned() }],
            ..Default::default()
        };
        let shown = facts(&ExplainView::from(explained));
        assert!(shown.contains("other hubs  hub-b: is full\n"), "{shown}");
        assert!(shown.contains("policy      - (stored: none)\n"), "{shown}");
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
