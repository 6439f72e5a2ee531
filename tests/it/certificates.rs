//! What `pki` makes, `attestation` accepts; and each authority vouches for its own kind only.

use std::time::Duration;

use rehome::ambient::{ManualClock, SeededEntropy};
use rehome::attestation::x509::{self, Presented, Refusal};
use rehome::domain::{
    Attestation, CertificateRef, Enrollment, EnrollmentId, GroupId, InitialState, RegistrationId, ResetOnSameHub, Role,
    RoleGrant, Timestamp, UnreachableRule, Version, X509Anchors,
};
use rehome::pki::{Authority, Development, Issued, KeyType, Pair, Terms};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// A development PKI in a folder of its own.
struct Given {
    _folder: tempfile::TempDir,
    made: Development,
    entropy: SeededEntropy,
    terms: Terms,
}

impl Given {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let entropy = SeededEntropy::new(1);
        let clock = ManualClock::at(NOW);
        let made = Development::ensure(folder.path(), &clock, &entropy, &["localhost".to_owned()]).unwrap();
        Self { _folder: folder, made, entropy, terms: Terms::starting(NOW, MONTH) }
    }

    fn authority(&self, pair: &Pair) -> Authority {
        Authority::load(pair).unwrap()
    }
}

fn chain_in(pair: &Pair) -> Vec<Vec<u8>> {
    let pem = std::fs::read(&pair.certificate).unwrap();
    CertificateDer::pem_slice_iter(&pem).map(|der| der.unwrap().to_vec()).collect()
}

fn chain_of(issued: &Issued) -> Vec<Vec<u8>> {
    issued.chain().iter().map(|der| der.to_vec()).collect()
}

fn anchor(authority: &Authority) -> CertificateRef {
    x509::certificate_ref(authority.certificate()).unwrap()
}

fn group_of(authority: &Authority) -> Enrollment {
    Enrollment {
        id: EnrollmentId::Group(GroupId::parse("fleet").unwrap()),
        attestation: Attestation::X509Ca(X509Anchors { primary: anchor(authority), secondary: None }),
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
    }
}

fn verify(chain: &[Vec<u8>], enrollment: &Enrollment, id: &RegistrationId) -> Result<(), Refusal> {
    x509::verify(&Presented::parse(chain)?, enrollment, id, NOW).map(|_| ())
}

#[test]
fn devices_of_the_development_authority_register_in_its_group() {
    let given = Given::new();
    let device_ca = given.authority(&given.made.paths.device_ca);
    let group = group_of(&device_ca);
    x509::check_anchor(&anchor(&device_ca)).unwrap();
    let id = RegistrationId::parse("dev-1").unwrap();
    let other = RegistrationId::parse("dev-2").unwrap();
    for key in KeyType::ALL {
        let device = device_ca.issue_device(&id, Terms { key: *key, ..given.terms }, &given.entropy).unwrap();
        assert_eq!(verify(&chain_of(&device), &group, &id), Ok(()), "{key}");
        assert_eq!(verify(&chain_of(&device), &group, &other), Err(Refusal::CommonNameMismatch), "{key}");
    }
    let factory = device_ca.issue_intermediate("factory", given.terms, &given.entropy).unwrap();
    let line = factory.issue_intermediate("line 1", given.terms, &given.entropy).unwrap();
    let device = line.issue_device(&id, given.terms, &given.entropy).unwrap();
    assert_eq!(verify(&chain_of(&device), &group, &id), Ok(()));
    assert_eq!(verify(&chain_of(&device), &group_of(&factory), &id), Ok(()));
    assert_eq!(verify(&chain_of(&device)[..1], &group, &id), Err(Refusal::UntrustedIssuer));
}

#[test]
fn operators_and_devices_do_not_stand_in_for_each_other() {
    let given = Given::new();
    let paths = &given.made.paths;
    let (device_ca, operator_ca) = (given.authority(&paths.device_ca), given.authority(&paths.operator_ca));
    let trusted = [anchor(&operator_ca)];
    for (pair, role) in [
        (&paths.operator, Role::Operator),
        (&paths.reader, Role::Reader),
        (&paths.enroller, Role::Enroller),
        (&paths.backend, Role::Backend),
    ] {
        let operator = x509::verify_operator(&chain_in(pair), &trusted, NOW).unwrap();
        assert_eq!(operator.grants(), [RoleGrant::everywhere(role)]);
        assert_eq!(operator.name(), format!("development {role}"));
    }
    let id = RegistrationId::parse("dev-1").unwrap();
    let device = device_ca.issue_device(&id, given.terms, &given.entropy).unwrap();
    let as_operator = x509::verify_operator(&chain_of(&device), &trusted, NOW);
    assert_eq!(as_operator, Err(Refusal::UntrustedIssuer));
    let as_server = x509::verify_operator(&chain_in(&paths.server), &trusted, NOW);
    assert_eq!(as_server, Err(Refusal::ExtendedKeyUsageNotAllowed));
    let named_like_a_device = operator_ca
        .issue_operator("dev-1", &[RoleGrant::everywhere(Role::Operator)], given.terms, &given.entropy)
        .unwrap();
    let as_device = verify(&chain_of(&named_like_a_device), &group_of(&device_ca), &id);
    assert_eq!(as_device, Err(Refusal::UntrustedIssuer));

    // What keeps the operators' authority from being enrolled for devices, and the reverse.
    let same = |one: &Authority, other: &Authority| x509::shares_authority(one.certificate(), other.certificate());
    assert_eq!(same(&operator_ca, &operator_ca), Ok(true));
    assert_eq!(same(&operator_ca, &device_ca), Ok(false));
}
