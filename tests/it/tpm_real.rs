//! Devices with a TPM from end to end: the service and the SDK over gRPC, the TPM a real implementation.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use rehome::ambient::{Clock as _, SystemClock};
use rehome::client::tpm::{EkKind, SecurityModule as _, Tpm};
use rehome::client::{ClientFault, Device, Home, Patience, RegistrationUpdate, UpdateStatus, registration_id_of};
use rehome::domain::token::{UnsignedToken, registration_resource};
use rehome::domain::{
    AttestationDraft, AuditAction, ClientFacts, EnrollmentDraft, EnrollmentId, GroupId, PcrIndex, PcrMode, PcrPolicy,
    PcrValue, Reason, SrkDraft, SubStatus, TpmMake, TpmPublic,
};
use rehome::wire::device::v1;
use rehome::wire::device::v1::registration_service_client::RegistrationServiceClient;
use tonic::Request;
use tpm2_protocol::basic::TpmBuffer;
use tpm2_protocol::data::{
    Tpm2bData, Tpm2bEncryptedSecret, Tpm2bPrivate, Tpm2bPublic, TpmAlgId, TpmRh, TpmlDigestValues, TpmtHa,
    TpmtSymDefObject, TpmuHa,
};
use tpm2_protocol::frame::{
    TpmClearCommand, TpmClearResponse, TpmDuplicateCommand, TpmDuplicateResponse, TpmImportCommand, TpmImportResponse,
    TpmPcrExtendCommand, TpmPcrExtendResponse,
};
use tpm2_protocol::{TpmSized as _, TpmUnmarshal as _};

use crate::swtpm::Swtpm;
use crate::world::{HOUR, World, document, in_time, individual, outcome, reason, registration_id};

/// A device and its TPM, enrolled and not registered yet.
struct Enrolled {
    /// pump-1, unless its endorsement key names it.
    name: String,
    chip: Swtpm,
    world: World,
    tpm: Tpm,
    device: Device,
    id: EnrollmentId,
}

impl Enrolled {
    async fn with(
        chip: Option<Swtpm>,
        kind: EkKind,
        storage_root_key: SrkDraft,
        pcrs: Option<PcrPolicy>,
    ) -> Option<Self> {
        let chip = chip?;
        let world = World::start().await;
        let tpm = chip.tpm_with(|settings| settings.endorsement = Some(kind));
        let endorsement_key = TpmPublic::parse(&tpm.keys().await.unwrap().endorsement_key).unwrap();
        let attestation = AttestationDraft::Tpm { endorsement_key, storage_root_key, pcrs };
        let draft = EnrollmentDraft { attestation, ..individual("pump-1", &world.site.issue("pump-1")) };
        let id = world.enroll(&draft).await.draft.id;
        let device = world.site.caller_as("pump-1", None).await.by_tpm(Arc::new(tpm.clone()));
        Some(Self { name: "pump-1".to_owned(), chip, world, tpm, device, id })
    }

    /// By the certificate of its endorsement key, in the group of everything that the manufacturer certified.
    async fn by_certificate(kind: EkKind) -> Option<Self> {
        let chip = Swtpm::manufactured()?;
        let world = World::start().await;
        let tpm = chip.tpm_with(|settings| settings.endorsement = Some(kind));
        let id = world.enroll(&fleet(&world, &chip, &["id:00001014"])).await.draft.id;
        let name = registration_id_of(&tpm.keys().await.unwrap()).to_string();
        let device = world.site.caller_as(&name, None).await.by_tpm(Arc::new(tpm.clone()));
        Some(Self { name, chip, world, tpm, device, id })
    }

    async fn blank(kind: EkKind) -> Option<Self> {
        Self::with(Swtpm::blank(), kind, SrkDraft::Any, None).await
    }

    async fn try_register(&self) -> Result<RegistrationUpdate, ClientFault> {
        in_time(self.device.register(&ClientFacts::default(), Patience::Tries(1), |_| ())).await
    }

    async fn register(&self) -> (RegistrationUpdate, Home) {
        let update = self.try_register().await.unwrap();
        let home = self.device.home(&update).await.unwrap();
        (update, home)
    }

    /// Why a registration that the service heard ended without a hub.
    async fn failure(&self) -> String {
        match self.try_register().await {
            Err(ClientFault::NotAssigned { status: UpdateStatus::Failed { reason, .. }, .. }) => reason,
            other => panic!("it should have failed: {other:?}"),
        }
    }

    /// A challenge, its answer signed in the TPM and not sent yet.
    async fn answered(&self, lasts_for: std::time::Duration) -> Answered {
        let channel = self.world.site.channel(None).await;
        let mut service = RegistrationServiceClient::new(channel);
        let keys = self.tpm.keys().await.unwrap();
        let begin = v1::BeginTpmAttestationRequest {
            registration_id: "pump-1".to_owned(),
            endorsement_key: keys.endorsement_key,
            storage_root_key: keys.storage_root_key,
            ..v1::BeginTpmAttestationRequest::default()
        };
        let challenge = in_time(service.begin_tpm_attestation(begin)).await.unwrap().into_inner();
        let resource = registration_resource("rehome", &registration_id("pump-1"));
        let unsigned = UnsignedToken::new(&resource, SystemClock.now().plus(lasts_for));
        let signed = self.tpm.sign_with(challenge.authentication_key, unsigned.text().into_bytes()).await.unwrap();
        let token = unsigned.signed(&signed.try_into().unwrap(), Some("registration"));
        Answered { service, token, challenge_id: challenge.challenge_id }
    }
}

struct Answered {
    service: RegistrationServiceClient<tonic::transport::Channel>,
    token: String,
    challenge_id: String,
}

impl Answered {
    /// Sends the answer as whoever, and throws away what is told.
    async fn send(&self, id: &str, request_id: &str) -> Result<v1::RegistrationUpdate, Option<Reason>> {
        let told = async {
            let evidence = v1::TpmEvidence { challenge_id: self.challenge_id.clone(), quote: None };
            let mut request = Request::new(v1::RegisterRequest {
                registration_id: id.to_owned(),
                request_id: request_id.to_owned(),
                tpm: Some(evidence),
                ..v1::RegisterRequest::default()
            });
            request.metadata_mut().insert("authorization", self.token.parse().unwrap());
            let mut updates = self.service.clone().register(request).await?.into_inner();
            let mut last = None;
            while let Some(update) = updates.message().await? {
                last = update.update;
            }
            Ok(last.unwrap())
        };
        in_time(told).await.map_err(|status: tonic::Status| reason(Err::<(), _>(ClientFault::from(status))))
    }
}

/// A whole registration, and a whole move.
async fn check_whole_life(enrolled: Option<Enrolled>) {
    let Some(pump) = enrolled else { return };
    let name = pump.name.as_str();
    let (update, old_home) = pump.register().await;
    assert_eq!(outcome(&update), ("hub-a".to_owned(), SubStatus::InitialAssignment));
    old_home.report(&document(r#"{"battery":80}"#)).await.unwrap();
    pump.world.patch("hub-a", name, r#"{"site":"north"}"#, r#"{"rate":7}"#).await;
    assert_eq!(old_home.twin().await.unwrap().desired.properties, document(r#"{"rate":7}"#));
    let lived = pump.world.twin("hub-a", name).await.state;

    pump.world.allot(&pump.id, "hub-b").await;
    let (update, home) = pump.register().await;
    assert_eq!(outcome(&update), ("hub-b".to_owned(), SubStatus::DeviceDataMigrated));
    pump.world.settled(name).await;
    assert_eq!(pump.world.twin("hub-b", name).await.state, lived, "the twin came along");
    home.report(&document(r#"{"battery":79}"#)).await.unwrap();
    assert!(!pump.world.is_at("hub-a", name).await);
    let out = reason(old_home.twin().await);
    assert!(matches!(out, Some(Reason::DeviceMoved | Reason::CallerUnauthenticated)), "{out:?}");

    // Again where it is: another credential, and the same home.
    let (update, home) = pump.register().await;
    assert_eq!(outcome(&update), ("hub-b".to_owned(), SubStatus::ReprovisionedToInitialAssignment));
    home.report(&document(r#"{"battery":78}"#)).await.unwrap();
    assert_eq!(pump.device.look_up().await.unwrap().generation, update.generation);

    // Nobody takes the credential out of the TPM.
    let duplicate = TpmDuplicateCommand {
        handles: [0x8100_0100_u32.into(), (TpmRh::Null as u32).into()],
        encryption_key_in: Tpm2bData::default(),
        symmetric_alg: TpmtSymDefObject::default(),
    };
    let taken: Result<TpmDuplicateResponse, u32> = pump.chip.execute(&duplicate, 1);
    assert!(taken.is_err(), "{taken:?}");
    pump.world.stop().await;
}

#[tokio::test]
async fn a_device_lives_by_an_rsa_endorsement_key() {
    check_whole_life(Enrolled::blank(EkKind::Rsa2048).await).await;
}

#[tokio::test]
async fn a_device_lives_by_a_p256_endorsement_key() {
    check_whole_life(Enrolled::blank(EkKind::EccP256).await).await;
}

#[tokio::test]
async fn a_device_lives_by_a_p384_endorsement_key() {
    check_whole_life(Enrolled::blank(EkKind::EccP384).await).await;
}

#[tokio::test]
async fn a_device_lives_by_a_manufactured_endorsement_key() {
    check_whole_life(Enrolled::with(Swtpm::manufactured(), EkKind::EccP384, SrkDraft::PinFirst, None).await).await;
}

#[tokio::test]
async fn a_device_lives_by_the_certificate_of_an_rsa_endorsement_key() {
    check_whole_life(Enrolled::by_certificate(EkKind::Rsa2048).await).await;
}

#[tokio::test]
async fn a_device_lives_by_the_certificate_of_a_p384_endorsement_key() {
    check_whole_life(Enrolled::by_certificate(EkKind::EccP384).await).await;
}

/// The group of everything that swtpm's authority certifies, with one make or any.
fn fleet(world: &World, chip: &Swtpm, makes: &[&str]) -> EnrollmentDraft {
    let make = |text: &&str| TpmMake { manufacturer: text.parse().unwrap(), model: None };
    let attestation = AttestationDraft::TpmFleet {
        primary: chip.authority(),
        secondary: None,
        makes: makes.iter().map(make).collect(),
        usage_may_be_absent: false,
        pin_first: false,
        pcrs: None,
    };
    let id = EnrollmentId::Group(GroupId::parse("tpms").unwrap());
    EnrollmentDraft { id, attestation, ..world.site.group() }
}

#[tokio::test]
async fn a_group_lets_in_what_the_manufacturer_certified_and_nothing_else() {
    let Some(chip) = Swtpm::manufactured() else { return };
    let world = World::start().await;
    let group = world.enroll(&fleet(&world, &chip, &["id:00001014"])).await.draft.id;
    let register = async |kind: EkKind| {
        let tpm = chip.tpm_with(|settings| settings.endorsement = Some(kind));
        let id = registration_id_of(&tpm.keys().await.unwrap());
        let device = world.site.caller_as(id.as_str(), None).await.by_tpm(Arc::new(tpm));
        let update = in_time(device.register(&ClientFacts::default(), Patience::Tries(1), |_| ())).await?;
        device.home(&update).await?.report(&document("{}")).await
    };
    for kind in [EkKind::Rsa2048, EkKind::EccP384] {
        register(kind).await.unwrap();
    }
    // It has no certificate for this one.
    assert_eq!(reason(register(EkKind::EccP256).await), Some(Reason::RegistrationRefused));
    world.change(&group, |draft| draft.attestation = fleet(&world, &chip, &["INTC"]).attestation).await;
    assert_eq!(reason(register(EkKind::Rsa2048).await), Some(Reason::RegistrationRefused));
    world.stop().await;
}

#[tokio::test]
async fn a_lost_final_answer_costs_the_device_nothing() {
    let Some(pump) = Enrolled::blank(EkKind::EccP256).await else { return };
    let (update, home) = pump.register().await;
    home.report(&document(r#"{"n":1}"#)).await.unwrap();
    // The service delivered; the device heard nothing of it.
    let lost = pump.answered(HOUR).await.send("pump-1", "lost").await.unwrap();
    assert!(lost.tpm.is_some());
    // What it has lets it in still, also with a token that it signs now.
    pump.device.home(&update).await.unwrap().report(&document(r#"{"n":2}"#)).await.unwrap();
    let (_, home) = pump.register().await;
    home.report(&document(r#"{"n":3}"#)).await.unwrap();
    // The same in a move: registering again always works.
    pump.world.allot(&pump.id, "hub-b").await;
    pump.answered(HOUR).await.send("pump-1", "lost-2").await.unwrap();
    let (update, home) = pump.register().await;
    assert_eq!(outcome(&update).0, "hub-b");
    home.report(&document(r#"{"n":4}"#)).await.unwrap();
    pump.world.stop().await;
}

#[tokio::test]
async fn an_answer_is_used_once_by_its_device_and_in_time() {
    let Some(pump) = Enrolled::blank(EkKind::EccP256).await else { return };
    let ended = pump.answered(std::time::Duration::ZERO).await;
    assert_eq!(ended.send("pump-1", "a").await.unwrap_err(), Some(Reason::RegistrationRefused));
    let answer = pump.answered(HOUR).await;
    assert!(answer.send("pump-2", "a").await.is_err(), "another device");
    let first = answer.send("pump-1", "b").await.unwrap();
    let repeat = answer.send("pump-1", "b").await.unwrap();
    assert_eq!((&repeat.operation_id, &repeat.tpm), (&first.operation_id, &first.tpm));
    assert!(answer.send("pump-1", "c").await.is_err(), "a second registration");
    // Disabled after the challenge was answered, before the service heard it.
    let answer = pump.answered(HOUR).await;
    pump.world.operator.disable_enrollment(&pump.id, None).await.unwrap();
    let told = answer.send("pump-1", "d").await;
    assert!(told.as_ref().map_or(true, |update| update.tpm.is_none()), "{told:?}");
    pump.world.stop().await;
}

fn clear(chip: &Swtpm) {
    let clear = TpmClearCommand { handles: [(TpmRh::Lockout as u32).into()] };
    let _: TpmClearResponse = chip.execute(&clear, 1).unwrap();
}

#[tokio::test]
async fn an_owner_who_clears_the_tpm_keeps_the_device_and_loses_what_the_rule_says() {
    let Some(pump) = Enrolled::blank(EkKind::EccP256).await else { return };
    pump.register().await;
    clear(&pump.chip);
    let (update, home) = pump.register().await;
    assert_eq!(outcome(&update), ("hub-a".to_owned(), SubStatus::ReprovisionedToInitialAssignment));
    home.report(&document("{}")).await.unwrap();
    pump.world.stop().await;

    let pinned = Enrolled::with(Swtpm::blank(), EkKind::EccP256, SrkDraft::PinFirst, None).await;
    let Some(pump) = pinned else { return };
    pump.register().await;
    clear(&pump.chip);
    assert_eq!(pump.failure().await, "STORAGE_ROOT_KEY_NOT_ALLOWED");
    pump.world.operator.reset_storage_root_key(&registration_id("pump-1"), None).await.unwrap();
    pump.register().await.1.report(&document("{}")).await.unwrap();
    pump.world.stop().await;
}

fn extend(chip: &Swtpm, pcr: u8) {
    let mut digests = TpmlDigestValues::new();
    let digest = TpmuHa::Digest(TpmBuffer::try_from([7; 32].as_slice()).unwrap());
    digests.try_push(TpmtHa { hash_alg: TpmAlgId::Sha256, digest }).unwrap();
    let extend = TpmPcrExtendCommand { handles: [u32::from(pcr).into()], digests };
    let _: TpmPcrExtendResponse = chip.execute(&extend, 1).unwrap();
}

#[tokio::test]
async fn registers_are_quoted_and_held_to_the_policy() {
    let policy = |mode| {
        let zero = || vec![PcrValue([0; 32])];
        let allowed = [7, 11].map(|index| (PcrIndex::new(index).unwrap(), zero()));
        PcrPolicy::new(mode, BTreeMap::from(allowed)).unwrap()
    };
    for kind in [EkKind::Rsa2048, EkKind::EccP384] {
        let enforced = Enrolled::with(Swtpm::blank(), kind, SrkDraft::Any, Some(policy(PcrMode::Enforce))).await;
        let Some(pump) = enforced else { return };
        let (_, home) = pump.register().await;
        extend(&pump.chip, 11);
        assert_eq!(pump.failure().await, "PCR_NOT_ALLOWED");
        home.report(&document("{}")).await.unwrap();
        pump.world
            .change(&pump.id, |draft| {
                if let AttestationDraft::Tpm { pcrs, .. } = &mut draft.attestation {
                    *pcrs = Some(policy(PcrMode::Audit));
                }
            })
            .await;
        pump.register().await;
        let audit = pump.world.audit().await;
        let noted = audit.iter().find(|it| it.entry.action == AuditAction::PcrMismatchAudited).unwrap();
        assert!(noted.entry.detail.contains("PCR 11"), "{noted:?}");
        pump.world.stop().await;
    }
}

/// A storage key of software, imported into the TPM: it looks like a storage root key but for where it comes from.
fn software_storage_key(chip: &Swtpm) -> Vec<u8> {
    let secret = [0x51; 32];
    let private = PrivateKey::from_private_key(&ECDH_P256, &secret).unwrap();
    let point = private.compute_public_key().unwrap();
    let (x, y) = point.as_ref()[1..].split_at(32);
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    // P-256 below SHA-256; user with auth, no DA, restricted, decrypt; no policy; AES-128-CFB, no scheme, no KDF.
    let head = "0023000b00030440000000060080004300100003 0010".replace(' ', "");
    let head = data_encoding::HEXLOWER.decode(head.as_bytes()).unwrap();
    let public = sized(&[head, sized(x), sized(y)].concat());
    // ECC, no password, a seed for its children, the scalar.
    let sensitive = sized(&[&[0, 0x23, 0, 0][..], &sized(&[0x52; 32]), &sized(&secret)].concat());
    let (parsed, _) = Tpm2bPublic::unmarshal(&public).unwrap();
    assert_eq!(parsed.len(), public.len());
    let import = TpmImportCommand {
        handles: [0x8100_0001_u32.into()],
        encryption_key: Tpm2bData::default(),
        object_public: parsed,
        duplicate: Tpm2bPrivate::try_from(sensitive.as_slice()).unwrap(),
        in_sym_seed: Tpm2bEncryptedSecret::default(),
        symmetric_alg: TpmtSymDefObject::default(),
    };
    let _: TpmImportResponse = chip.execute(&import, 1).expect("the TPM takes the key of software");
    public
}

#[tokio::test]
async fn a_storage_key_of_software_gets_no_challenge() {
    let Some(pump) = Enrolled::blank(EkKind::Rsa2048).await else { return };
    let keys = pump.tpm.keys().await.unwrap();
    let swapped = software_storage_key(&pump.chip);
    let begin = |storage_root_key: Vec<u8>| v1::BeginTpmAttestationRequest {
        registration_id: "pump-1".to_owned(),
        endorsement_key: keys.endorsement_key.clone(),
        storage_root_key,
        ..v1::BeginTpmAttestationRequest::default()
    };
    let mut service = RegistrationServiceClient::new(pump.world.site.channel(None).await);
    let refused = service.begin_tpm_attestation(begin(swapped.clone())).await.unwrap_err();
    assert_eq!(reason(Err::<(), _>(ClientFault::from(refused))), Some(Reason::RegistrationRefused));
    let newest = pump.world.audit().await.remove(0).entry;
    assert!(newest.detail.contains("storage root key"), "{newest:?}");
    // One that claims to be the TPM's own gets a challenge, which no TPM opens: it holds no such key.
    let mut forged = swapped;
    forged[9] |= 0x32;
    let challenge = service.begin_tpm_attestation(begin(forged)).await.unwrap().into_inner();
    assert!(pump.tpm.sign_with(challenge.authentication_key, b"x".to_vec()).await.is_err());
    pump.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_registers_by_a_tpm() {
    let Some(pump) = Enrolled::blank(EkKind::EccP256).await else { return };
    let run = |id: &str| {
        Command::new(env!("CARGO_BIN_EXE_rehome"))
            .env_clear()
            .args(["register", "--tpm", &pump.chip.address().to_string(), "--tpm-key", "ecc-p256", "--json"])
            .args(["--id", id, "--server", &format!("https://{}", pump.world.site.address)])
            .arg("--ca")
            .arg(&pump.world.site.paths.server_ca.certificate)
            .output()
            .unwrap()
    };
    let (told, refused) = tokio::task::block_in_place(|| (run("pump-1"), run("pump-2")));
    assert!(told.status.success(), "{told:?}");
    let last = String::from_utf8(told.stdout).unwrap();
    let last: serde_json::Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
    assert_eq!((&last["status"], &last["hub_id"]), (&"assigned".into(), &"hub-a".into()));
    assert!(!refused.status.success());
    // What it left in the TPM is what the SDK goes on with.
    pump.register().await.1.report(&document("{}")).await.unwrap();
    pump.world.stop().await;
}
