//! Enrollments and groups as they are shown.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::cli::output::{Listed, Shown};
use crate::client::EnrollmentRecord;
use crate::domain::{
    AllocationPolicy, EnrollmentDraft, EnrollmentId, ReprovisionPolicy, ResetOnSameHub, UnreachableRule,
};

use super::{document_fact, fact, text, yes_no};

/// Which enrollment: one of the two is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnrollmentRefView {
    pub registration_id: Option<String>,
    pub group_id: Option<String>,
}

impl From<&EnrollmentId> for EnrollmentRefView {
    fn from(id: &EnrollmentId) -> Self {
        match id {
            EnrollmentId::Individual(id) => Self { registration_id: Some(id.to_string()), group_id: None },
            EnrollmentId::Group(id) => Self { registration_id: None, group_id: Some(id.to_string()) },
        }
    }
}

impl fmt::Display for EnrollmentRefView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.registration_id, &self.group_id) {
            (Some(_), _) => f.write_str("individual"),
            (None, Some(id)) => write!(f, "group {id}"),
            (None, None) => f.write_str("-"),
        }
    }
}

/// What individual enrollments and groups have in common; flat beside the id in JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SettingsView {
    pub enabled: bool,
    /// `none`, `migrate`, `reset` or `never`.
    pub reprovision_policy: &'static str,
    /// `default`, `static`, `hashed`, `lowest_latency` or `custom`.
    pub allocation_policy: &'static str,
    pub hub_ids: Vec<String>,
    pub webhook: Option<WebhookView>,
    pub initial_twin: InitialTwinView,
    pub unreachable_rule: &'static str,
    pub unreachable_wait_seconds: Option<u64>,
    pub allow_late_writes: bool,
    pub reset_on_same_hub: &'static str,
    pub reassign_when_down: bool,
    pub adopt_existing: bool,
    pub primary_thumbprint: Option<String>,
    pub secondary_thumbprint: Option<String>,
    pub primary_key_fingerprint: Option<String>,
    pub secondary_key_fingerprint: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WebhookView {
    /// Masked by the service.
    pub url: String,
    pub api_version: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InitialTwinView {
    pub tags: Value,
    pub desired: Value,
    pub iot_edge: bool,
}

impl SettingsView {
    fn of(draft: EnrollmentDraft, thumbprints: Vec<String>, fingerprints: Vec<String>) -> Self {
        let (mut thumbprints, mut fingerprints) = (thumbprints.into_iter(), fingerprints.into_iter());
        let (unreachable_rule, wait_for) = match draft.unreachable {
            UnreachableRule::Wait { deadline } => ("wait", Some(deadline)),
            UnreachableRule::LastKnown => ("last_known", None),
            UnreachableRule::Reset => ("reset", None),
        };
        Self {
            enabled: draft.enabled,
            reprovision_policy: draft.reprovision.map_or("none", ReprovisionPolicy::as_str),
            allocation_policy: draft.allocation.as_ref().map_or("default", AllocationPolicy::as_str),
            hub_ids: draft.hubs.iter().map(ToString::to_string).collect(),
            webhook: match draft.allocation {
                Some(AllocationPolicy::Custom(hook)) => {
                    Some(WebhookView { url: hook.masked_url(), api_version: hook.api_version })
                }
                Some(AllocationPolicy::Static | AllocationPolicy::Hashed | AllocationPolicy::LowestLatency) | None => {
                    None
                }
            },
            initial_twin: InitialTwinView {
                tags: draft.initial.tags.into_value(),
                desired: draft.initial.desired.into_value(),
                iot_edge: draft.initial.capabilities.iot_edge,
            },
            unreachable_rule,
            unreachable_wait_seconds: wait_for.map(|span| span.as_secs()),
            allow_late_writes: draft.allow_late_writes,
            reset_on_same_hub: match draft.reset_on_same_hub {
                ResetOnSameHub::Always => "always",
                ResetOnSameHub::WhenEnrollmentChanged => "when_enrollment_changed",
                ResetOnSameHub::Off => "off",
            },
            reassign_when_down: draft.reassign_when_down,
            adopt_existing: draft.adopt_existing,
            primary_thumbprint: thumbprints.next(),
            secondary_thumbprint: thumbprints.next(),
            primary_key_fingerprint: fingerprints.next(),
            secondary_key_fingerprint: fingerprints.next(),
        }
    }

    fn hubs(&self) -> String {
        if self.hub_ids.is_empty() { "any".to_owned() } else { self.hub_ids.join(", ") }
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let wait = self.unreachable_wait_seconds.map(|seconds| format!("{}, {seconds} s", self.unreachable_rule));
        vec![
            ("enabled", yes_no(self.enabled)),
            ("reprovision", self.reprovision_policy.to_owned()),
            ("allocation", self.allocation_policy.to_owned()),
            ("hubs", self.hubs()),
            ("webhook", self.webhook.as_ref().map(|hook| hook.url.clone()).unwrap_or_default()),
            ("webhook version", self.webhook.as_ref().map(|hook| hook.api_version.clone()).unwrap_or_default()),
            ("initial tags", document_fact(&self.initial_twin.tags)),
            ("initial desired", document_fact(&self.initial_twin.desired)),
            ("iot edge", yes_no(self.initial_twin.iot_edge)),
            ("unreachable hub", wait.unwrap_or_else(|| self.unreachable_rule.to_owned())),
            ("late writes", if self.allow_late_writes { "allowed" } else { "not allowed" }.to_owned()),
            ("reset on same hub", self.reset_on_same_hub.to_owned()),
            ("reassign when down", yes_no(self.reassign_when_down)),
            ("adopt existing", yes_no(self.adopt_existing)),
            ("certificate", fact(self.primary_thumbprint.as_deref())),
            ("second certificate", fact(self.secondary_thumbprint.as_deref())),
            ("key", fact(self.primary_key_fingerprint.as_deref())),
            ("second key", fact(self.secondary_key_fingerprint.as_deref())),
        ]
    }
}

/// An individual enrollment or a group; `registration_id` or `group_id` says which.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EnrollmentView {
    #[serde(flatten)]
    pub id: EnrollmentRefView,
    pub device_id: Option<String>,
    #[serde(flatten)]
    pub settings: SettingsView,
    pub created_at: String,
    pub updated_at: String,
    pub etag: String,
}

impl From<EnrollmentRecord> for EnrollmentView {
    fn from(record: EnrollmentRecord) -> Self {
        Self {
            id: EnrollmentRefView::from(&record.draft.id),
            device_id: text(record.draft.device_id.as_ref()),
            settings: SettingsView::of(record.draft, record.thumbprints, record.key_fingerprints),
            created_at: record.created_at.to_string(),
            updated_at: record.updated_at.to_string(),
            etag: record.version.etag(),
        }
    }
}

impl EnrollmentView {
    fn name(&self) -> String {
        fact(self.id.registration_id.as_deref().or(self.id.group_id.as_deref()))
    }
}

impl Listed for EnrollmentView {
    const HEADINGS: &'static [&'static str] =
        &["enrollment", "enabled", "reprovision", "allocation", "hubs", "updated"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name(),
            yes_no(self.settings.enabled),
            self.settings.reprovision_policy.to_owned(),
            self.settings.allocation_policy.to_owned(),
            self.settings.hubs(),
            self.updated_at.clone(),
        ]
    }
}

impl Shown for EnrollmentView {
    fn facts(&self) -> Vec<(&'static str, String)> {
        let kind = if self.id.group_id.is_some() { "group" } else { "registration" };
        let mut facts = vec![(kind, self.name()), ("device", fact(self.device_id.as_deref()))];
        facts.extend(self.settings.facts());
        facts.extend([
            ("created", self.created_at.clone()),
            ("updated", self.updated_at.clone()),
            ("etag", self.etag.clone()),
        ]);
        facts
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::cli::output::{facts, table};
    use crate::domain::{AttestationDraft, GroupId, HubId, InitialState, Timestamp, Version, WebhookPolicy};

    fn record() -> EnrollmentRecord {
        EnrollmentRecord {
            draft: EnrollmentDraft {
                id: EnrollmentId::Group(GroupId::parse("plant").unwrap()),
                attestation: AttestationDraft::X509 { primary: vec![1], secondary: None },
                enabled: true,
                device_id: None,
                initial: InitialState::default(),
                reprovision: None,
                allocation: None,
                hubs: ["hub-a", "hub-b"].map(|id| HubId::parse(id).unwrap()).to_vec(),
                unreachable: UnreachableRule::Wait { deadline: Duration::from_secs(900) },
                allow_late_writes: false,
                reset_on_same_hub: ResetOnSameHub::Always,
                reassign_when_down: false,
                adopt_existing: false,
            },
            endorsement_key_hash: None,
            key_fingerprints: Vec::new(),
            thumbprints: vec!["ab".to_owned()],
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            version: Version(1),
        }
    }

    #[test]
    fn none_stored_is_shown_as_none() {
        let view = EnrollmentView::from(record());
        assert_eq!(
            table(std::slice::from_ref(&view)),
            "ENROLLMENT  ENABLED  REPROVISION  ALLOCATION  HUBS          UPDATED\n\
             plant       yes      none         default     hub-a, hub-b  1970-01-01T00:00:00.000Z\n"
        );
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!((&json["reprovision_policy"], &json["allocation_policy"]), (&json!("none"), &json!("default")));
        assert_eq!((&json["group_id"], &json["registration_id"]), (&json!("plant"), &json!(null)));
        assert_eq!(json["initial_twin"], json!({"tags": {}, "desired": {}, "iot_edge": false}));
        assert_eq!((&json["unreachable_rule"], &json["unreachable_wait_seconds"]), (&json!("wait"), &json!(900)));
        assert_eq!((&json["primary_thumbprint"], &json["secondary_thumbprint"]), (&json!("ab"), &json!(null)));
    }

    #[test]
    fn facts_leave_out_what_is_not_there_and_mask_what_is_secret() {
        let shown = facts(&EnrollmentView::from(record()));
        assert!(shown.contains("reprovision         none\n"), "{shown}");
        assert!(!shown.contains("webhook") && !shown.contains("second certificate"), "{shown}");
        let mut custom = record();
        let url = "https://x.example/a?code=secret".to_owned();
        custom.draft.allocation = Some(AllocationPolicy::Custom(WebhookPolicy { url, api_version: "v1".to_owned() }));
        let shown = facts(&EnrollmentView::from(custom));
        assert!(shown.contains("https://x.example/a?****") && !shown.contains("secret"), "{shown}");
    }
}
