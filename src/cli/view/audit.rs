//! Audit entries as they are shown.

use serde::Serialize;

use crate::cli::api::admin;
use crate::cli::output::{Listed, Shown};
use crate::cli::value;

use super::enrollment::EnrollmentRefView;
use super::{cell, fact};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditView {
    pub at: Option<String>,
    pub actor: String,
    pub action: String,
    pub registration_id: Option<String>,
    pub enrollment: Option<EnrollmentRefView>,
    pub hub_id: Option<String>,
    pub operation_id: Option<String>,
    pub tracking_id: Option<String>,
    pub detail: String,
    pub order: u64,
    pub place: u32,
}

impl From<admin::AuditEntry> for AuditView {
    fn from(entry: admin::AuditEntry) -> Self {
        Self {
            at: value::time(entry.at.as_ref()),
            registration_id: value::text(&entry.registration_id),
            enrollment: EnrollmentRefView::of(entry.enrollment),
            hub_id: value::text(&entry.hub_id),
            operation_id: value::text(&entry.operation_id),
            tracking_id: value::text(&entry.tracking_id),
            order: entry.order,
            place: entry.place,
            actor: entry.actor,
            action: entry.action,
            detail: entry.detail,
        }
    }
}

impl AuditView {
    /// What the entry is about: the narrowest thing it names.
    fn subject(&self) -> Option<String> {
        self.registration_id
            .clone()
            .or_else(|| self.enrollment.as_ref().map(ToString::to_string))
            .or_else(|| self.hub_id.clone())
    }
}

impl Listed for AuditView {
    const HEADINGS: &'static [&'static str] = &["at", "actor", "action", "about", "detail"];

    fn cells(&self) -> Vec<String> {
        vec![
            cell(self.at.as_deref()),
            self.actor.clone(),
            self.action.clone(),
            cell(self.subject().as_deref()),
            self.detail.clone(),
        ]
    }
}

impl Shown for AuditView {
    fn facts(&self) -> Vec<(&'static str, String)> {
        vec![
            ("at", fact(self.at.as_deref())),
            ("actor", self.actor.clone()),
            ("action", self.action.clone()),
            ("registration", fact(self.registration_id.as_deref())),
            ("enrollment", self.enrollment.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("hub", fact(self.hub_id.as_deref())),
            ("operation", fact(self.operation_id.as_deref())),
            ("tracking id", fact(self.tracking_id.as_deref())),
            ("detail", self.detail.clone()),
            ("order", format!("{}/{}", self.order, self.place)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::table;

    #[test]
    fn an_entry_names_what_it_is_about() {
        let entry = admin::AuditEntry {
            actor: "127.0.0.1".to_owned(),
            action: "registration_refused".to_owned(),
            hub_id: "hub-a".to_owned(),
            detail: "the chain is too long".to_owned(),
            ..Default::default()
        };
        assert_eq!(
            table(&[AuditView::from(entry.clone())]),
            "AT  ACTOR      ACTION                ABOUT  DETAIL\n\
             -   127.0.0.1  registration_refused  hub-a  the chain is too long\n"
        );
        let group = admin::enrollment_ref::Id::GroupId("plant".to_owned());
        let about_group = admin::AuditEntry { enrollment: Some(admin::EnrollmentRef { id: Some(group) }), ..entry };
        assert_eq!(AuditView::from(about_group).subject().as_deref(), Some("group plant"));
    }
}
