//! Enrollments as existing service SDKs write and read them (reference/dps.md §1.4, §1.5 and §7).
//!
//! What their JSON has no words for (the unreachable rule, PCRs, a pinned storage root key) is kept as it was when an
//! enrollment is written back, and starts as in `rehome enroll create` when it is new.

pub mod attestation;
mod read;
mod show;

pub use read::{draft, id_of};
pub use show::shown;

use crate::domain::EnrollmentId;

/// Which of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnrollmentKind {
    Individual,
    Group,
}

impl EnrollmentKind {
    pub fn of(id: &EnrollmentId) -> Self {
        match id {
            EnrollmentId::Individual(_) => EnrollmentKind::Individual,
            EnrollmentId::Group(_) => EnrollmentKind::Group,
        }
    }

    /// The member that holds the id.
    pub fn id_member(self) -> &'static str {
        match self {
            EnrollmentKind::Individual => "registrationId",
            EnrollmentKind::Group => "enrollmentGroupId",
        }
    }

    /// The member of a bulk operation that holds the entries.
    pub fn bulk_member(self) -> &'static str {
        match self {
            EnrollmentKind::Individual => "enrollments",
            EnrollmentKind::Group => "enrollmentGroups",
        }
    }

    /// As `x-ms-item-type` says it.
    pub fn item_type(self) -> &'static str {
        match self {
            EnrollmentKind::Individual => "Enrollment",
            EnrollmentKind::Group => "EnrollmentGroup",
        }
    }
}
