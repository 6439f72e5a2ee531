//! Whether the enrollment that decides lets devices register.
//!
//! Judged only after the evidence was verified: a stranger must not learn that an enrollment is disabled.

use crate::domain::{Enrollment, EnrollmentId};

/// The outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    Admitted,
    /// No registration now; an assignment that stands is not touched.
    Disabled {
        by: EnrollmentId,
    },
}

/// Judges the enrollment that [`super::choose`] found. It decides alone: a disabled individual blocks its device inside an
/// enabled group, and a disabled group is not stepped over.
pub fn admit(enrollment: &Enrollment) -> Admission {
    if enrollment.enabled { Admission::Admitted } else { Admission::Disabled { by: enrollment.id.clone() } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::samples;

    #[test]
    fn only_an_enabled_enrollment_admits() {
        let mut enrollment = samples::group("g", &[]);
        assert_eq!(admit(&enrollment), Admission::Admitted);
        enrollment.enabled = false;
        assert_eq!(admit(&enrollment), Admission::Disabled { by: enrollment.id.clone() });
    }
}
