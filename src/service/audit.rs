//! Reading the audit log. It is written with the changes themselves.

use crate::domain::{Fault, Reason, StoredAudit, TrackingId};
use crate::store::{AuditFilter, Page, PageRequest};

use super::{Service, fault};

impl Service {
    /// Entries, newest first.
    pub async fn audit_entries(&self, filter: &AuditFilter, page: &PageRequest) -> Result<Page<StoredAudit>, Fault> {
        self.inner.store.list_audit(filter, page).await.map_err(fault::of_store)
    }

    /// The entry behind a refusal.
    pub async fn audit_entry(&self, tracking: TrackingId) -> Result<StoredAudit, Fault> {
        let found = self.inner.store.find_audit(tracking).await.map_err(fault::of_store)?;
        found.ok_or_else(|| {
            Fault::new(Reason::AuditEntryNotFound, format!("there is no audit entry under {tracking}, or no more"))
        })
    }
}
