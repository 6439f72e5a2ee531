//! Audit entries in the file.

use super::{Decoded, Stored, fault, form, hub_id, registration_id, text};
use crate::domain::{AuditAction, AuditEntry, OperationId, Timestamp, TrackingId};

impl Stored for AuditEntry {
    const WHAT: &'static str = "audit entry";
    type Record = form::AuditEntry;

    fn to_record(&self) -> form::AuditEntry {
        form::AuditEntry {
            at: self.at.0,
            actor: self.actor.clone(),
            action: self.action.as_str().to_owned(),
            registration: self.registration.as_ref().map(|id| id.as_str().to_owned()),
            enrollment: self.enrollment.as_ref().map(Into::into),
            hub: self.hub.as_ref().map(text),
            operation: self.operation.map(|id| id.0),
            tracking: self.tracking.map(|id| id.0),
            detail: self.detail.clone(),
        }
    }

    fn from_record(record: form::AuditEntry) -> Decoded<Self> {
        let known = AuditAction::ALL.iter().copied().find(|action| action.as_str() == record.action);
        Ok(Self {
            at: Timestamp(record.at),
            actor: record.actor,
            action: known.ok_or_else(|| fault("audit action", &record.action))?,
            registration: record.registration.as_deref().map(registration_id).transpose()?,
            enrollment: record.enrollment.map(TryInto::try_into).transpose()?,
            hub: record.hub.as_deref().map(hub_id).transpose()?,
            operation: record.operation.map(OperationId),
            tracking: record.tracking.map(TrackingId),
            detail: record.detail,
        })
    }
}
