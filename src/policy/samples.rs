//! Values that the tests of this room share.

use std::time::Duration;

use aws_lc_rs::digest;

use crate::domain::{
    Attestation, CertificateRef, Enrollment, EnrollmentId, GroupId, Hub, HubId, HubKind, HubState, InitialState,
    RegistrationId, ResetOnSameHub, Thumbprint, Timestamp, UnreachableRule, Version, X509Anchors, X509Leaves,
};
use crate::policy::HubView;

pub fn hub_id(text: &str) -> HubId {
    HubId::parse(text).unwrap()
}

pub fn registration_id(text: &str) -> RegistrationId {
    RegistrationId::parse(text).unwrap()
}

/// An active, reachable, empty hub of weight 1.
pub fn hub(id: &str) -> HubView {
    HubView {
        hub: Hub {
            id: hub_id(id),
            host_name: format!("{id}.example.net"),
            incarnation: None,
            endpoint: format!("{id}.example.net:443"),
            kind: HubKind::Embedded,
            state: HubState::Active,
            location: None,
            weight: 1,
            capacity: None,
            calls_per_second: None,
            taken_down: false,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            version: Version(1),
        },
        occupied: 0,
        reachable: true,
    }
}

/// A digest that stands for a name or a certificate.
pub fn thumbprint(text: &str) -> Thumbprint {
    Thumbprint(digest::digest(&digest::SHA256, text.as_bytes()).as_ref().try_into().unwrap())
}

/// A certificate `name:serial`.
fn certificate(text: &str) -> CertificateRef {
    let subject = text.split_once(':').map_or(text, |(subject, _)| subject);
    CertificateRef { der: Vec::new(), thumbprint: thumbprint(text), subject: thumbprint(subject) }
}

/// A group whose primary and secondary anchors are these certificates.
pub fn group(id: &str, anchors: &[&str]) -> Enrollment {
    let mut anchors = anchors.iter().map(|text| certificate(text));
    let primary = anchors.next().unwrap_or_else(|| certificate("anchor:0"));
    let anchors = X509Anchors { primary, secondary: anchors.next() };
    enrollment(EnrollmentId::Group(GroupId::parse(id).unwrap()), Attestation::X509Ca(anchors))
}

pub fn individual(id: &str) -> Enrollment {
    let leaves = X509Leaves { primary: certificate("leaf:0"), secondary: None };
    enrollment(EnrollmentId::Individual(registration_id(id)), Attestation::X509Leaf(leaves))
}

fn enrollment(id: EnrollmentId, attestation: Attestation) -> Enrollment {
    Enrollment {
        id,
        attestation,
        enabled: true,
        device_id: None,
        initial: InitialState::default(),
        reprovision: None,
        allocation: None,
        hubs: Vec::new(),
        unreachable: UnreachableRule::Wait { deadline: Duration::from_secs(900) },
        allow_late_writes: false,
        reset_on_same_hub: ResetOnSameHub::Always,
        reassign_when_down: false,
        adopt_existing: false,
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        version: Version(1),
    }
}
