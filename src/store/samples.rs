//! Records for the tests of stores: small, valid, and different where it matters.

use std::time::Duration;

use super::{Change, Commit, Expect, PageRequest};
use crate::domain::*;
use crate::moves::{Effect, Intent, JournalRecord, Plan};

pub const NOW: Timestamp = Timestamp(1_700_000_000_000);

pub fn hub_id(text: &str) -> HubId {
    HubId::parse(text).unwrap()
}

pub fn reg_id(text: &str) -> RegistrationId {
    RegistrationId::parse(text).unwrap()
}

pub fn group_id(text: &str) -> EnrollmentId {
    EnrollmentId::Group(GroupId::parse(text).unwrap())
}

pub fn certificate(number: u8, subject: u8) -> CertificateRef {
    CertificateRef { der: vec![number; 40], thumbprint: Thumbprint([number; 32]), subject: Thumbprint([subject; 32]) }
}

pub fn tpm_name(number: u8) -> TpmName {
    TpmName::parse(&[&[0, 0x0b][..], &[number; 32]].concat()).unwrap()
}

/// A TPM whose endorsement key has this number, and so has its hash.
pub fn tpm_device(number: u8) -> TpmDevice {
    let endorsement_key = TpmPublic::parse(&[0, 1, number]).unwrap();
    TpmDevice { endorsement_key, ek_hash: EkHash([number; 32]), rules: TpmRules::default() }
}

pub fn sealed_key(number: u8) -> SealedKey {
    SealedKey::new(KeyFingerprint([number; 32]), vec![number; 60]).unwrap()
}

/// An enrollment whose certificate has this number; its subject has it too.
pub fn enrollment(id: EnrollmentId, number: u8) -> Enrollment {
    let primary = certificate(number, number);
    let attestation = match &id {
        EnrollmentId::Individual(_) => Attestation::X509Leaf(X509Leaves { primary, secondary: None }),
        EnrollmentId::Group(_) => Attestation::X509Ca(X509Anchors { primary, secondary: None }),
    };
    Enrollment {
        id,
        attestation,
        enabled: true,
        device_id: None,
        initial: initial(),
        reprovision: Some(ReprovisionPolicy::Migrate),
        allocation: None,
        hubs: Vec::new(),
        unreachable: UnreachableRule::Wait { deadline: Duration::from_millis(1500) },
        allow_late_writes: false,
        reset_on_same_hub: ResetOnSameHub::Always,
        reassign_when_down: false,
        adopt_existing: false,
        created_at: NOW,
        updated_at: NOW,
        version: Version::ABSENT,
    }
}

pub fn initial() -> InitialState {
    InitialState {
        tags: Document::from_text(r#"{"site":"x"}"#).unwrap(),
        desired: Document::from_text(r#"{"net":{"apn":"a","list":[1,{"b":2.5}]},"rate":5}"#).unwrap(),
        capabilities: Capabilities { iot_edge: true },
    }
}

pub fn hub(id: &str) -> Hub {
    Hub {
        id: hub_id(id),
        host_name: format!("{id}.example"),
        endpoint: format!("{id}.example:443"),
        kind: HubKind::Embedded,
        state: HubState::Active,
        location: Geo::new(52.5, -13.25),
        weight: 1,
        capacity: Some(10),
        calls_per_second: None,
        incarnation: None,
        taken_down: false,
        created_at: NOW,
        updated_at: NOW,
        version: Version::ABSENT,
    }
}

pub fn credential() -> Credential {
    Credential::x509([Thumbprint([7; 32]), Thumbprint([3; 32])])
}

/// A registration that lives at a hub, or nowhere.
pub fn registration(id: &str, home: Option<&str>) -> Registration {
    let id = reg_id(id);
    Registration {
        device_id: DeviceId::from(&id),
        enrollment: EnrollmentId::Individual(id.clone()),
        id,
        enrollment_version: Version(1),
        policy: Some(ReprovisionPolicy::Migrate),
        assignment: home.map(|hub| Assignment {
            hub: hub_id(hub),
            generation: Order(1),
            credential: Some(credential()),
            assigned_at: NOW,
        }),
        operation: Operation {
            id: OperationId(9),
            status: OperationStatus::Assigned {
                sub_status: SubStatus::InitialAssignment,
                data_source: Some(DataSource::LastKnown { seen_at: NOW }),
            },
            request_id: RequestId::parse("r-1").ok(),
            started_at: NOW,
            updated_at: NOW,
        },
        pin: None,
        tpm: None,
        payload: Some("{\"k\":1}".to_owned()),
        past: vec![Order(1)].into(),
        created_at: NOW,
        updated_at: NOW,
        version: Version::ABSENT,
    }
}

pub fn failed() -> OperationStatus {
    OperationStatus::Failed { reason: Reason::NoHubAvailable, message: "none".to_owned() }
}

pub fn pin(hub: &str) -> Pin {
    Pin { hub: hub_id(hub), by: "ops".to_owned(), reason: "test".to_owned(), set_at: NOW, expires_at: Some(NOW) }
}

pub fn intent(id: &RegistrationId, plan: Plan) -> Intent {
    Intent {
        operation: OperationId(5),
        request_id: None,
        by: "device".to_owned(),
        registration: id.clone(),
        device: DeviceId::from(id),
        plan,
        enrollment: EnrollmentId::Individual(id.clone()),
        enrollment_version: Version(1),
        policy: None,
        sub_status: SubStatus::InitialAssignment,
        credential: credential(),
        initial: initial(),
        planted: None,
        unreachable: UnreachableRule::LastKnown,
        allow_late_writes: true,
        adopt_existing: true,
        payload: None,
        tpm: None,
        pin: None,
        why: "test".to_owned(),
    }
}

pub fn assign_to(hub: &str) -> Plan {
    Plan::Assign { to: hub_id(hub) }
}

pub fn pivoted() -> JournalRecord {
    JournalRecord::Pivoted { data_source: Some(DataSource::Sealed) }
}

pub fn aborted() -> JournalRecord {
    JournalRecord::Aborted { reason: Reason::HubUnavailable, message: "away".to_owned(), spare_current: false }
}

pub fn settled(effect: Effect, hub: &HubId) -> JournalRecord {
    JournalRecord::Settled { effect, hub: hub.clone(), state: None }
}

pub fn dropped(effect: Effect, hub: &HubId) -> JournalRecord {
    JournalRecord::Dropped { effect, hub: hub.clone(), why: "test".to_owned() }
}

pub fn stuck(effect: Effect, hub: &HubId) -> JournalRecord {
    JournalRecord::Stuck { effect, hub: hub.clone(), refusal: HubRefusal::Full }
}

/// The state of a device that has been written to a few times.
pub fn device_state() -> DeviceState {
    let patch = |text: &str| Some(Document::from_text(text).unwrap());
    let twin = Twin::initial(&initial(), NOW)
        .patched(
            &TwinPatch { desired: patch(r#"{"net":{"mtu":9},"rate":null}"#), ..TwinPatch::default() },
            Timestamp(NOW.0 + 1),
        )
        .unwrap()
        .patched(&TwinPatch { reported: patch(r#"{"a":{"b":{"c":1}}}"#), ..TwinPatch::default() }, Timestamp(NOW.0 + 2))
        .unwrap();
    DeviceState {
        twin,
        capabilities: Capabilities { iot_edge: true },
        status: HubStatus::Disabled { reason: "lost".to_owned() },
    }
}

pub fn audit(detail: &str, registration: Option<&str>) -> AuditEntry {
    AuditEntry { registration: registration.map(reg_id), ..AuditEntry::new(NOW, "ops", AuditAction::HubLinked, detail) }
}

pub fn page(size: u32) -> PageRequest {
    PageRequest { size, token: None }
}

pub fn put_registration(registration: Registration) -> Change {
    Change::PutRegistration(Box::new(registration))
}

pub fn put_enrollment(enrollment: Enrollment) -> Change {
    Change::PutEnrollment(Box::new(enrollment))
}

pub fn put_hub(hub: Hub) -> Change {
    Change::PutHub(Box::new(hub))
}

/// Opens a move.
pub fn open(id: &str, plan: Plan) -> Change {
    let registration = reg_id(id);
    let record = JournalRecord::Intent(Box::new(intent(&registration, plan)));
    Change::Journal { registration, generation: None, at: NOW, record }
}

/// Adds a line to a move.
pub fn line(id: &str, generation: Order, record: JournalRecord) -> Change {
    Change::Journal { registration: reg_id(id), generation: Some(generation), at: NOW, record }
}

pub fn changes(changes: impl IntoIterator<Item = Change>) -> Commit {
    Commit { changes: changes.into_iter().collect(), ..Commit::default() }
}

pub fn expecting(expect: impl IntoIterator<Item = Expect>, commit: Commit) -> Commit {
    Commit { expect: expect.into_iter().collect(), ..commit }
}

/// A group whose devices' keys are made of these.
pub fn key_group(id: EnrollmentId, [primary, secondary]: [u8; 2], version: u64) -> Enrollment {
    let keys = KeyPair { primary: sealed_key(primary), secondary: sealed_key(secondary) };
    Enrollment { attestation: Attestation::MasterKey(keys), version: Version(version), ..enrollment(id, 0) }
}
