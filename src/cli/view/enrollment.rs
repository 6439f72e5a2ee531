//! Enrollments and groups as they are shown.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::cli::api::admin;
use crate::cli::output::{Listed, Shown};
use crate::cli::value;

use super::{cell, document_fact, fact, yes_no};

/// Which enrollment: one of the two is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnrollmentRefView {
    pub registration_id: Option<String>,
    pub group_id: Option<String>,
}

impl EnrollmentRefView {
    pub fn of(reference: Option<admin::EnrollmentRef>) -> Option<Self> {
        Some(match reference?.id? {
            admin::enrollment_ref::Id::RegistrationId(id) => Self { registration_id: Some(id), group_id: None },
            admin::enrollment_ref::Id::GroupId(id) => Self { registration_id: None, group_id: Some(id) },
        })
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
    pub reprovision_policy: String,
    /// `default`, `static`, `hashed`, `lowest_latency` or `custom`.
    pub allocation_policy: String,
    pub hub_ids: Vec<String>,
    pub webhook: Option<WebhookView>,
    pub initial_twin: InitialTwinView,
    pub unreachable_rule: String,
    pub unreachable_wait_seconds: Option<u64>,
    pub allow_late_writes: bool,
    pub reset_on_same_hub: String,
    pub reassign_when_down: bool,
    pub adopt_existing: bool,
    pub primary_thumbprint: Option<String>,
    pub secondary_thumbprint: Option<String>,
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
    fn of(settings: Option<admin::EnrollmentSettings>, x509: Option<admin::X509Attestation>) -> Self {
        let settings = settings.unwrap_or_default();
        let x509 = x509.unwrap_or_default();
        let thumbprint = |certificate: Option<admin::Certificate>| certificate.and_then(|c| value::text(&c.thumbprint));
        let reprovision = admin::ReprovisionPolicy::try_from(settings.reprovision_policy).ok();
        let allocation = admin::AllocationPolicy::try_from(settings.allocation_policy).ok();
        let rule = admin::UnreachableRule::try_from(settings.unreachable_rule).ok();
        let reset = admin::ResetOnSameHub::try_from(settings.reset_on_same_hub).ok();
        let initial = settings.initial.unwrap_or_default();
        let word = |word: Option<String>, absent: &str| word.unwrap_or_else(|| absent.to_owned());
        Self {
            enabled: settings.enabled.unwrap_or_default(),
            reprovision_policy: word(value::word(reprovision.map(|p| p.as_str_name()), "REPROVISION_POLICY_"), "none"),
            allocation_policy: word(value::word(allocation.map(|p| p.as_str_name()), "ALLOCATION_POLICY_"), "default"),
            hub_ids: settings.hub_ids,
            webhook: settings.webhook.map(|hook| WebhookView { url: hook.url, api_version: hook.api_version }),
            initial_twin: InitialTwinView {
                tags: value::document(Some(&initial.tags.unwrap_or_default())),
                desired: value::document(Some(&initial.desired.unwrap_or_default())),
                iot_edge: initial.iot_edge,
            },
            unreachable_rule: word(value::word(rule.map(|r| r.as_str_name()), "UNREACHABLE_RULE_"), "wait"),
            unreachable_wait_seconds: value::seconds(settings.unreachable_wait_for.as_ref()),
            allow_late_writes: settings.allow_late_writes,
            reset_on_same_hub: word(value::word(reset.map(|r| r.as_str_name()), "RESET_ON_SAME_HUB_"), "always"),
            reassign_when_down: settings.reassign_when_down,
            adopt_existing: settings.adopt_existing,
            primary_thumbprint: thumbprint(x509.primary),
            secondary_thumbprint: thumbprint(x509.secondary),
        }
    }

    fn hubs(&self) -> String {
        if self.hub_ids.is_empty() { "any".to_owned() } else { self.hub_ids.join(", ") }
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let wait = self.unreachable_wait_seconds.map(|seconds| format!("{}, {seconds} s", self.unreachable_rule));
        vec![
            ("enabled", yes_no(self.enabled)),
            ("reprovision", self.reprovision_policy.clone()),
            ("allocation", self.allocation_policy.clone()),
            ("hubs", self.hubs()),
            ("webhook", self.webhook.as_ref().map(|hook| hook.url.clone()).unwrap_or_default()),
            ("webhook version", self.webhook.as_ref().map(|hook| hook.api_version.clone()).unwrap_or_default()),
            ("initial tags", document_fact(&self.initial_twin.tags)),
            ("initial desired", document_fact(&self.initial_twin.desired)),
            ("iot edge", yes_no(self.initial_twin.iot_edge)),
            ("unreachable hub", wait.unwrap_or_else(|| self.unreachable_rule.clone())),
            ("late writes", if self.allow_late_writes { "allowed" } else { "not allowed" }.to_owned()),
            ("reset on same hub", self.reset_on_same_hub.clone()),
            ("reassign when down", yes_no(self.reassign_when_down)),
            ("adopt existing", yes_no(self.adopt_existing)),
            ("certificate", fact(self.primary_thumbprint.as_deref())),
            ("second certificate", fact(self.secondary_thumbprint.as_deref())),
        ]
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EnrollmentView {
    pub registration_id: String,
    pub device_id: Option<String>,
    #[serde(flatten)]
    pub settings: SettingsView,
    pub created_at: Option<String>,
    pub updated_at: Option<String>,
    pub etag: String,
}

impl From<admin::Enrollment> for EnrollmentView {
    fn from(enrollment: admin::Enrollment) -> Self {
        Self {
            device_id: value::text(&enrollment.device_id),
            settings: SettingsView::of(enrollment.settings, enrollment.x509),
            created_at: value::time(enrollment.created_at.as_ref()),
            updated_at: value::time(enrollment.updated_at.as_ref()),
            registration_id: enrollment.registration_id,
            etag: enrollment.etag,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupView {
    pub group_id: String,
    #[serde(flatten)]
    pub settings: SettingsView,
    pub created_at: Option<String>,
    pub updated_at: Option<String>,
    pub etag: String,
}

impl From<admin::EnrollmentGroup> for GroupView {
    fn from(group: admin::EnrollmentGroup) -> Self {
        Self {
            settings: SettingsView::of(group.settings, group.x509),
            created_at: value::time(group.created_at.as_ref()),
            updated_at: value::time(group.updated_at.as_ref()),
            group_id: group.group_id,
            etag: group.etag,
        }
    }
}

const SETTINGS_HEADINGS: [&str; 5] = ["enabled", "reprovision", "allocation", "hubs", "updated"];

fn settings_cells(settings: &SettingsView, updated_at: Option<&str>) -> [String; 5] {
    [
        yes_no(settings.enabled),
        settings.reprovision_policy.clone(),
        settings.allocation_policy.clone(),
        settings.hubs(),
        cell(updated_at),
    ]
}

impl Listed for EnrollmentView {
    const HEADINGS: &'static [&'static str] = &[
        "registration",
        SETTINGS_HEADINGS[0],
        SETTINGS_HEADINGS[1],
        SETTINGS_HEADINGS[2],
        SETTINGS_HEADINGS[3],
        SETTINGS_HEADINGS[4],
    ];

    fn cells(&self) -> Vec<String> {
        let rest = settings_cells(&self.settings, self.updated_at.as_deref());
        std::iter::once(self.registration_id.clone()).chain(rest).collect()
    }
}

impl Listed for GroupView {
    const HEADINGS: &'static [&'static str] = &[
        "group",
        SETTINGS_HEADINGS[0],
        SETTINGS_HEADINGS[1],
        SETTINGS_HEADINGS[2],
        SETTINGS_HEADINGS[3],
        SETTINGS_HEADINGS[4],
    ];

    fn cells(&self) -> Vec<String> {
        let rest = settings_cells(&self.settings, self.updated_at.as_deref());
        std::iter::once(self.group_id.clone()).chain(rest).collect()
    }
}

fn record_facts(created_at: Option<&str>, updated_at: Option<&str>, etag: &str) -> [(&'static str, String); 3] {
    [("created", fact(created_at)), ("updated", fact(updated_at)), ("etag", etag.to_owned())]
}

impl Shown for EnrollmentView {
    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts =
            vec![("registration", self.registration_id.clone()), ("device", fact(self.device_id.as_deref()))];
        facts.extend(self.settings.facts());
        facts.extend(record_facts(self.created_at.as_deref(), self.updated_at.as_deref(), &self.etag));
        facts
    }
}

impl Shown for GroupView {
    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![("group", self.group_id.clone())];
        facts.extend(self.settings.facts());
        facts.extend(record_facts(self.created_at.as_deref(), self.updated_at.as_deref(), &self.etag));
        facts
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::output::{facts, table};

    fn group() -> admin::EnrollmentGroup {
        let mut settings = admin::EnrollmentSettings { enabled: Some(true), ..Default::default() };
        settings.hub_ids = vec!["hub-a".to_owned(), "hub-b".to_owned()];
        admin::EnrollmentGroup {
            group_id: "plant".to_owned(),
            settings: Some(settings),
            etag: "v1".to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn none_stored_is_shown_as_none() {
        let view = GroupView::from(group());
        assert_eq!(
            table(&[view.clone()]),
            "GROUP  ENABLED  REPROVISION  ALLOCATION  HUBS          UPDATED\n\
             plant  yes      none         default     hub-a, hub-b  -\n"
        );
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!((&json["reprovision_policy"], &json["allocation_policy"]), (&json!("none"), &json!("default")));
        assert_eq!(json["initial_twin"], json!({"tags": {}, "desired": {}, "iot_edge": false}));
        assert_eq!(json["unreachable_rule"], "wait");
    }

    #[test]
    fn facts_leave_out_what_is_not_there() {
        let mut group = group();
        let settings = group.settings.as_mut().unwrap();
        settings.set_reprovision_policy(admin::ReprovisionPolicy::Migrate);
        let shown = facts(&GroupView::from(group));
        assert!(shown.contains("reprovision         migrate\n"), "{shown}");
        assert!(!shown.contains("webhook") && !shown.contains("created"), "{shown}");
    }
}
