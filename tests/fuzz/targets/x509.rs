//! Certificates and chains as a stranger presents them.

use rehome::attestation::x509::{
    Presented, certificate_ref, check_anchor, check_leaf, describe, shares_authority, verify, verify_operator,
};
use rehome::domain::{
    Attestation, Enrollment, EnrollmentId, GroupId, InitialState, ResetOnSameHub, Thumbprint, Timestamp,
    UnreachableRule, Version, X509Anchors, limits,
};

/// The authority of the enrolled group, whose key nobody has kept.
pub const AUTHORITY: &[u8] = include_bytes!("../fixed/authority.der");
/// A device of that authority.
pub const LEAF: &[u8] = include_bytes!("../fixed/leaf.der");
/// Both are valid then.
const NOW: Timestamp = Timestamp(1_900_000_000_000);

/// A certificate as an operator enrolls it, DER or PEM.
pub fn x509_certificate(input: &[u8]) -> bool {
    let Ok(certificate) = certificate_ref(input) else { return false };
    let again = certificate_ref(&certificate.der).expect("what was read can be read again");
    assert_eq!(again, certificate);
    // Whatever they say, they say it without a panic.
    let _ = (check_leaf(&certificate), check_anchor(&certificate), describe(&certificate.der));
    let _ = shares_authority(&certificate.der, AUTHORITY);
    let _ = verify_operator(std::slice::from_ref(&certificate.der), std::slice::from_ref(&certificate), NOW);
    assert_ne!(certificate.thumbprint, Thumbprint([0; 32]));
    true
}

/// A chain, each certificate behind two bytes of its length. Whoever is let in has presented the one leaf that the
/// authority has ever signed, unchanged.
pub fn x509_chain(input: &[u8]) -> bool {
    let Ok(presented) = Presented::parse(&super::split(input)) else { return false };
    assert!((1..=limits::CHAIN_CERTIFICATES_MAX).contains(&presented.references().len()));
    let primary = certificate_ref(AUTHORITY).expect("the authority is a certificate");
    let group = Enrollment {
        id: EnrollmentId::Group(GroupId::parse("plant").expect("an id")),
        attestation: Attestation::X509Ca(X509Anchors { primary, secondary: None }),
        enabled: true,
        device_id: None,
        initial: InitialState::default(),
        reprovision: None,
        allocation: None,
        hubs: Vec::new(),
        unreachable: UnreachableRule::LastKnown,
        allow_late_writes: false,
        reset_on_same_hub: ResetOnSameHub::Always,
        reassign_when_down: false,
        adopt_existing: false,
        created_at: NOW,
        updated_at: NOW,
        version: Version(1),
    };
    let is_in = verify(&presented, &group, presented.common_name(), NOW).is_ok();
    assert!(!is_in || super::split(input)[0] == LEAF, "somebody got in who was never signed");
    is_in
}
