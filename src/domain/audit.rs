//! What is written down about every change and every refusal, in the transaction of the change itself.

use super::enrollment::EnrollmentId;
use super::ids::{HubId, OperationId, Order, RegistrationId, TrackingId};
use super::time::Timestamp;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuditAction {
    RegistrationRefused,
    RegistrationStarted,
    RegistrationAssigned,
    RegistrationFailed,
    RegistrationDisabled,
    MoveAborted,
    HomeBypassed,
    HomeForced,
    ObligationDone,
    ObligationStuck,
    ObligationAbandoned,
    ObligationRetried,
    LateTwinForgotten,
    RegistrationDeleted,
    RegistrationUnpinned,
    StorageRootKeyChanged,
    StorageRootKeyForgotten,
    PcrMismatchAudited,
    EnrollmentCreated,
    EnrollmentUpdated,
    EnrollmentDeleted,
    EnrollmentKeysShown,
    HubLinked,
    HubUpdated,
    HubUnlinked,
    StoreBackedUp,
    HubReconciled,
    StoreReconciled,
}

impl AuditAction {
    pub const ALL: &'static [AuditAction] = &[
        AuditAction::RegistrationRefused,
        AuditAction::RegistrationStarted,
        AuditAction::RegistrationAssigned,
        AuditAction::RegistrationFailed,
        AuditAction::RegistrationDisabled,
        AuditAction::MoveAborted,
        AuditAction::HomeBypassed,
        AuditAction::HomeForced,
        AuditAction::ObligationDone,
        AuditAction::ObligationStuck,
        AuditAction::ObligationAbandoned,
        AuditAction::ObligationRetried,
        AuditAction::LateTwinForgotten,
        AuditAction::RegistrationDeleted,
        AuditAction::RegistrationUnpinned,
        AuditAction::StorageRootKeyChanged,
        AuditAction::StorageRootKeyForgotten,
        AuditAction::PcrMismatchAudited,
        AuditAction::EnrollmentCreated,
        AuditAction::EnrollmentUpdated,
        AuditAction::EnrollmentDeleted,
        AuditAction::EnrollmentKeysShown,
        AuditAction::HubLinked,
        AuditAction::HubUpdated,
        AuditAction::HubUnlinked,
        AuditAction::StoreBackedUp,
        AuditAction::HubReconciled,
        AuditAction::StoreReconciled,
    ];

    /// A stable word for listings and filters.
    pub fn as_str(self) -> &'static str {
        match self {
            AuditAction::RegistrationRefused => "registration_refused",
            AuditAction::RegistrationStarted => "registration_started",
            AuditAction::RegistrationAssigned => "registration_assigned",
            AuditAction::RegistrationFailed => "registration_failed",
            AuditAction::RegistrationDisabled => "registration_disabled",
            AuditAction::MoveAborted => "move_aborted",
            AuditAction::HomeBypassed => "home_bypassed",
            AuditAction::HomeForced => "home_forced",
            AuditAction::ObligationDone => "obligation_done",
            AuditAction::ObligationStuck => "obligation_stuck",
            AuditAction::ObligationAbandoned => "obligation_abandoned",
            AuditAction::ObligationRetried => "obligation_retried",
            AuditAction::LateTwinForgotten => "late_twin_forgotten",
            AuditAction::RegistrationDeleted => "registration_deleted",
            AuditAction::RegistrationUnpinned => "registration_unpinned",
            AuditAction::StorageRootKeyChanged => "storage_root_key_changed",
            AuditAction::StorageRootKeyForgotten => "storage_root_key_forgotten",
            AuditAction::PcrMismatchAudited => "pcr_mismatch_audited",
            AuditAction::EnrollmentCreated => "enrollment_created",
            AuditAction::EnrollmentUpdated => "enrollment_updated",
            AuditAction::EnrollmentDeleted => "enrollment_deleted",
            AuditAction::EnrollmentKeysShown => "enrollment_keys_shown",
            AuditAction::HubLinked => "hub_linked",
            AuditAction::HubUpdated => "hub_updated",
            AuditAction::HubUnlinked => "hub_unlinked",
            AuditAction::StoreBackedUp => "store_backed_up",
            AuditAction::HubReconciled => "hub_reconciled",
            AuditAction::StoreReconciled => "store_reconciled",
        }
    }
}

/// One line of the audit log. Holds nothing secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    pub at: Timestamp,
    /// Who did it: `device`, an operator's name, `service`, or a peer's address for an unproven caller.
    pub actor: String,
    pub action: AuditAction,
    pub registration: Option<RegistrationId>,
    pub enrollment: Option<EnrollmentId>,
    pub hub: Option<HubId>,
    pub operation: Option<OperationId>,
    /// Set for refusals of unproven callers.
    pub tracking: Option<TrackingId>,
    /// One sentence: what and why.
    pub detail: String,
}

impl AuditEntry {
    pub fn new(at: Timestamp, actor: impl Into<String>, action: AuditAction, detail: impl Into<String>) -> Self {
        Self {
            at,
            actor: actor.into(),
            action,
            registration: None,
            enrollment: None,
            hub: None,
            operation: None,
            tracking: None,
            detail: detail.into(),
        }
    }
}

/// An audit entry as it was stored: the order of its commit and its place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAudit {
    pub order: Order,
    pub place: u32,
    pub entry: AuditEntry,
}
