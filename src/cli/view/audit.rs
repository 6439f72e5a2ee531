//! Audit entries as they are shown.

use serde::Serialize;

use crate::cli::output::{Listed, Shown};
use crate::domain::StoredAudit;

use super::enrollment::EnrollmentRefView;
use super::{cell, fact, text};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditView {
    pub at: String,
    pub actor: String,
    pub action: &'static str,
    pub registration_id: Option<String>,
    pub enrollment: Option<EnrollmentRefView>,
    pub hub_id: Option<String>,
    pub operation_id: Option<String>,
    pub tracking_id: Option<String>,
    pub detail: String,
    pub order: u64,
    pub place: u32,
}

impl From<StoredAudit> for AuditView {
    fn from(stored: StoredAudit) -> Self {
        let entry = stored.entry;
        Self {
            at: entry.at.to_string(),
            action: entry.action.as_str(),
            registration_id: text(entry.registration),
            enrollment: entry.enrollment.as_ref().map(EnrollmentRefView::from),
            hub_id: text(entry.hub),
            operation_id: text(entry.operation),
            tracking_id: text(entry.tracking),
            order: stored.order.0,
            place: stored.place,
            actor: entry.actor,
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
            self.at.clone(),
            self.actor.clone(),
            self.action.to_owned(),
            cell(self.subject().as_deref()),
            self.detail.clone(),
        ]
    }
}

impl Shown for AuditView {
    fn facts(&self) -> Vec<(&'static str, String)> {
        vec![
            ("at", self.at.clone()),
            ("actor", self.actor.clone()),
            ("action", self.action.to_owned()),
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
    use crate::domain::{AuditAction, AuditEntry, EnrollmentId, GroupId, HubId, Order, Timestamp};

    #[test]
    fn an_entry_names_what_it_is_about() {
        let entry = AuditEntry {
            hub: Some(HubId::parse("hub-a").unwrap()),
            ..AuditEntry::new(Timestamp(0), "127.0.0.1", AuditAction::RegistrationRefused, "the chain is too long")
        };
        let view = AuditView::from(StoredAudit { order: Order(1), place: 0, entry: entry.clone() });
        assert_eq!(
            table(&[view]),
            "AT                        ACTOR      ACTION                ABOUT  DETAIL\n\
             1970-01-01T00:00:00.000Z  127.0.0.1  registration_refused  hub-a  the chain is too long\n"
        );
        let group = EnrollmentId::Group(GroupId::parse("plant").unwrap());
        let entry = AuditEntry { enrollment: Some(group), ..entry };
        let about_group = AuditView::from(StoredAudit { order: Order(1), place: 0, entry });
        assert_eq!(about_group.subject().as_deref(), Some("group plant"));
    }
}
