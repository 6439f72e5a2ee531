//! Devices with a TPM, over real gRPC: the proof in two calls, the credential that comes through the TPM, and who is kept
//! out. The TPM is the one without a chip; `swtpm` has its own tests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, Issuer, KeyPair, SubjectPublicKeyInfo};
use rehome::ambient::{Clock as _, SystemClock};
use rehome::attestation::sas;
use rehome::attestation::tpm::software::{Material, SoftwareTpm};
use rehome::attestation::tpm::{PublicArea, QuoteWanted};
use rehome::client::{RegistrationUpdate, RemoteFault, UpdateStatus};
use rehome::domain::token::UnsignedToken;
use rehome::domain::{
    AttestationDraft, AuditAction, EkHash, EnrollmentDraft, EnrollmentId, GroupId, PcrIndex, PcrMode, PcrPolicy,
    PcrValue, Reason, ReprovisionPolicy, SrkDraft, SubStatus, TokenKey, TpmMake, TpmPublic,
};
use rehome::wire::device::v1;
use rehome::wire::device::v1::registration_service_client::RegistrationServiceClient;
use rehome::wire::hub::v1 as hub;
use rehome::wire::hub::v1::twin_service_client::TwinServiceClient;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::world::{HOUR, World, document, hub_id, in_time, individual, registration_id};

/// A device with a TPM: what it has, and what it holds at its hub.
struct Chip {
    id: String,
    tpm: SoftwareTpm,
    channel: Channel,
    certificates: Vec<Vec<u8>>,
    requests: AtomicU32,
}

/// A challenge that was opened: what the device has to answer with.
struct Opened {
    challenge: v1::BeginTpmAttestationResponse,
    key: TokenKey,
    resource: String,
}

/// What a device was given for its hub.
#[derive(Clone)]
struct HubKey {
    key: TokenKey,
    resource: String,
    blob: Vec<u8>,
}

fn chip_of(endorsement: u8, storage: u8) -> SoftwareTpm {
    let key = |byte: u8| [byte; 32];
    SoftwareTpm::new(Material::P256(&key(endorsement)), Material::P256(&key(storage)), &key(0x31)).unwrap()
}

fn ek_hash(tpm: &SoftwareTpm) -> EkHash {
    PublicArea::of(tpm.endorsement_key().clone()).unwrap().ek_hash()
}

fn attestation_of(tpm: &SoftwareTpm, storage_root_key: SrkDraft, pcrs: Option<PcrPolicy>) -> AttestationDraft {
    AttestationDraft::Tpm { endorsement_key: tpm.endorsement_key().clone(), storage_root_key, pcrs }
}

fn individual_tpm(world: &World, id: &str, attestation: AttestationDraft) -> EnrollmentDraft {
    EnrollmentDraft { attestation, ..individual(id, &world.site.issue(id)) }
}

fn pcr_seven() -> PcrIndex {
    PcrIndex::new(7).unwrap()
}

fn pcrs(mode: PcrMode, value: u8) -> Option<PcrPolicy> {
    Some(PcrPolicy::new(mode, BTreeMap::from([(pcr_seven(), vec![PcrValue([value; 32])])])).unwrap())
}

fn reason_of(status: &Status) -> Option<Reason> {
    RemoteFault::from(status).known_reason()
}

fn token(resource: &str, key: &TokenKey, lasts_for: Duration) -> String {
    sas::sign(&UnsignedToken::new(resource, SystemClock.now().plus(lasts_for)), key, Some("registration"))
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", token.parse().unwrap());
    request
}

impl Chip {
    async fn new(world: &World, id: &str, tpm: SoftwareTpm) -> Self {
        let channel = world.site.channel(None).await;
        Self { id: id.to_owned(), tpm, channel, certificates: Vec::new(), requests: AtomicU32::new(0) }
    }

    fn registrations(&self) -> RegistrationServiceClient<Channel> {
        RegistrationServiceClient::new(self.channel.clone())
    }

    fn begin_request(&self) -> v1::BeginTpmAttestationRequest {
        v1::BeginTpmAttestationRequest {
            registration_id: self.id.clone(),
            endorsement_key: self.tpm.endorsement_key().as_bytes().to_vec(),
            storage_root_key: self.tpm.storage_root_key().as_bytes().to_vec(),
            endorsement_certificates: self.certificates.clone(),
            attestation_key: self.tpm.attestation_key().as_bytes().to_vec(),
        }
    }

    async fn begin_with(&self, request: v1::BeginTpmAttestationRequest) -> Result<Opened, Status> {
        let challenge = in_time(self.registrations().begin_tpm_attestation(request)).await?.into_inner();
        let activated = self.tpm.activate(&challenge.authentication_key).unwrap();
        let resource = String::from_utf8(activated.user_data).unwrap();
        Ok(Opened { challenge, key: activated.key, resource })
    }

    async fn begin(&self) -> Result<Opened, Status> {
        self.begin_with(self.begin_request()).await
    }

    fn evidence(&self, opened: &Opened) -> v1::TpmEvidence {
        let quote = opened.challenge.quote.as_ref().map(|asked| {
            let wanted = QuoteWanted {
                nonce: asked.nonce.as_slice().try_into().unwrap(),
                indices: asked.pcrs.iter().map(|index| PcrIndex::new(*index).unwrap()).collect(),
                credential: Some(asked.credential.clone()),
            };
            let quote = self.tpm.quote(&wanted).unwrap();
            let value = |(index, value): &(PcrIndex, PcrValue)| v1::PcrValue {
                index: index.number().into(),
                digest: value.0.to_vec(),
            };
            v1::TpmQuote {
                attested: quote.attest,
                signature: quote.signature,
                values: quote.values.iter().map(value).collect(),
                key_proof: quote.key_proof.to_vec(),
            }
        });
        v1::TpmEvidence { challenge_id: opened.challenge.challenge_id.clone(), quote }
    }

    fn request(&self, opened: &Opened, request_id: &str) -> v1::RegisterRequest {
        v1::RegisterRequest {
            registration_id: self.id.clone(),
            request_id: request_id.to_owned(),
            tpm: Some(self.evidence(opened)),
            ..v1::RegisterRequest::default()
        }
    }

    fn next_request_id(&self) -> String {
        format!("r-{}", self.requests.fetch_add(1, Ordering::Relaxed))
    }

    /// Follows a registration to its end.
    async fn send(&self, request: v1::RegisterRequest, token: &str) -> Result<v1::RegistrationUpdate, Status> {
        in_time(async {
            let mut updates = self.registrations().register(with_token(request, token)).await?.into_inner();
            let mut last = None;
            while let Some(update) = updates.message().await? {
                last = update.update;
            }
            Ok(last.expect("at least one update"))
        })
        .await
    }

    async fn try_register(&self) -> Result<v1::RegistrationUpdate, Status> {
        let opened = self.begin().await?;
        let token = token(&opened.resource, &opened.key, HOUR);
        self.send(self.request(&opened, &self.next_request_id()), &token).await
    }

    /// Registers, and takes up what came through the TPM.
    async fn register(&self) -> (RegistrationUpdate, HubKey) {
        let update = self.try_register().await.unwrap();
        (RegistrationUpdate::try_from(update.clone()).unwrap(), self.hub_key(&update))
    }

    fn hub_key(&self, update: &v1::RegistrationUpdate) -> HubKey {
        let tpm = update.tpm.clone().unwrap_or_else(|| panic!("no credential in {update:?}"));
        let key = self.tpm.activate(&tpm.authentication_key).unwrap().key;
        HubKey { key, resource: tpm.resource, blob: tpm.authentication_key }
    }

    async fn read_twin(&self, hub: &str, token: &str) -> Result<(), Status> {
        let request = hub::GetTwinRequest { hub_id: hub.to_owned(), device_id: self.id.clone() };
        let mut twins = TwinServiceClient::new(self.channel.clone());
        in_time(twins.get_twin(with_token(request, token))).await.map(drop)
    }

    /// Whether the hub lets the device in with this key; otherwise why not.
    async fn signs_in(&self, hub: &str, held: &HubKey) -> Result<(), Option<Reason>> {
        let outcome = self.read_twin(hub, &token(&held.resource, &held.key, HOUR)).await;
        outcome.map_err(|status| reason_of(&status))
    }
}

fn is_at(update: &RegistrationUpdate, hub: &str, expected: SubStatus) {
    let UpdateStatus::Assigned { sub_status, .. } = update.status else { panic!("not assigned: {update:?}") };
    assert_eq!((update.hub.as_ref().unwrap().id.as_str(), sub_status), (hub, expected));
}

async fn enrolled(world: &World, id: &str, endorsement: u8) -> Chip {
    let chip = Chip::new(world, id, chip_of(endorsement, 0x21)).await;
    world.enroll(&individual_tpm(world, id, attestation_of(&chip.tpm, SrkDraft::Any, None))).await;
    chip
}

/// Refused as a stranger is, with this in the audit log.
async fn check_refused(world: &World, outcome: Result<impl Sized, Status>, reason: Reason, why: &str) {
    let Err(status) = outcome else { panic!("it was let in: {why}") };
    assert_eq!(reason_of(&status), Some(reason), "{status:?} ({why})");
    let newest = world.audit().await.into_iter().map(|stored| stored.entry).next().unwrap();
    assert_eq!(newest.action, AuditAction::RegistrationRefused);
    assert!(newest.detail.contains(why), "{}", newest.detail);
}

const REFUSED: Reason = Reason::RegistrationRefused;
const OUTDATED: Reason = Reason::TpmChallengeOutdated;

#[tokio::test]
async fn a_device_with_a_tpm_gets_a_home_moves_and_is_let_in_by_what_came_through_its_tpm() {
    let world = World::start().await;
    let chip = enrolled(&world, "pump-1", 0x11).await;
    let id = EnrollmentId::Individual(registration_id("pump-1"));
    let (update, first) = chip.register().await;
    is_at(&update, "hub-a", SubStatus::InitialAssignment);
    assert_eq!(first.resource, format!("{}/devices/pump-1", update.hub.as_ref().unwrap().host_name));
    assert_eq!(chip.signs_in("hub-a", &first).await, Ok(()));
    let by_id = HubKey { resource: "HUB-A/devices/pump-1".to_owned(), ..first.clone() };
    assert_eq!(chip.signs_in("hub-a", &by_id).await, Ok(()), "the hub's id does as well as its name");

    // Where it is already: the credential rotates, and the one before ends with the first use of the new one.
    let (update, second) = chip.register().await;
    is_at(&update, "hub-a", SubStatus::ReprovisionedToInitialAssignment);
    assert_eq!(chip.signs_in("hub-a", &first).await, Ok(()));
    assert_eq!(chip.signs_in("hub-a", &second).await, Ok(()));
    assert_eq!(chip.signs_in("hub-a", &first).await, Err(Some(Reason::CallerUnauthenticated)));

    // A move with its twin.
    world.patch("hub-a", "pump-1", r#"{"site":"x"}"#, r#"{"rate":7}"#).await;
    world.allot(&id, "hub-b").await;
    let (update, third) = chip.register().await;
    is_at(&update, "hub-b", SubStatus::DeviceDataMigrated);
    assert_eq!(world.twin("hub-b", "pump-1").await.state.twin.desired.properties, document(r#"{"rate":7}"#));
    assert_eq!(chip.signs_in("hub-b", &third).await, Ok(()));
    world.settled("pump-1").await;
    let moved = Err(Some(Reason::DeviceMoved));
    let at_old = HubKey { resource: second.resource.clone(), ..third.clone() };
    assert_eq!(chip.signs_in("hub-a", &second).await, moved, "the old home tells who lived there that it has moved");
    assert_eq!(chip.signs_in("hub-a", &at_old).await, Err(Some(Reason::CallerUnauthenticated)), "and nobody else");
    let at_new = HubKey { resource: third.resource.clone(), ..second };
    assert_eq!(chip.signs_in("hub-b", &at_new).await, Err(Some(Reason::CallerUnauthenticated)));

    let record = world.settled("pump-1").await;
    let tpm = record.tpm.unwrap();
    assert_eq!(tpm.endorsement_key_hash, ek_hash(&chip.tpm).registration_id().to_string());
    assert!(tpm.storage_root_key_name.is_some());
    world.stop().await;
}

#[tokio::test]
async fn tokens_for_a_hub_are_held_to_their_hub_their_device_and_their_time() {
    let world = World::start().await;
    let chip = enrolled(&world, "pump-1", 0x11).await;
    let (_, held) = chip.register().await;
    let other = enrolled(&world, "pump-2", 0x12).await;
    let (_, others) = other.register().await;
    let out = Some(Reason::CallerUnauthenticated);
    let day = 24 * HOUR;
    for (resource, key, lasts_for, why) in [
        (others.resource.as_str(), &held.key, HOUR, "another device"),
        ("hub-b/devices/pump-1", &held.key, HOUR, "another hub"),
        (held.resource.as_str(), &others.key, HOUR, "another's key"),
        (held.resource.as_str(), &held.key, Duration::ZERO, "it has ended"),
        (held.resource.as_str(), &held.key, day + HOUR, "it lasts for too long"),
        ("rehome/registrations/pump-1", &held.key, HOUR, "it is for a registration"),
    ] {
        let refused = chip.read_twin("hub-a", &token(resource, key, lasts_for)).await.unwrap_err();
        assert_eq!(reason_of(&refused), out, "{why}");
    }
    assert!(chip.read_twin("hub-a", &token(&held.resource, &held.key, day)).await.is_ok());
    for text in ["SharedAccessSignature sr=x", "Bearer abc", ""] {
        let refused = chip.read_twin("hub-a", text).await.unwrap_err();
        assert_eq!(reason_of(&refused), out, "{text}");
    }
    let refused = chip.read_twin("hub-a", &"x".repeat(4000)).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::InvalidArgument));

    // What a device watches ends with the token it came in with.
    let watch = hub::WatchDesiredRequest { hub_id: "hub-a".to_owned(), device_id: "pump-1".to_owned() };
    let short = token(&held.resource, &held.key, Duration::from_secs(3));
    let mut twins = TwinServiceClient::new(chip.channel.clone());
    let mut events = in_time(twins.watch_desired(with_token(watch, &short))).await.unwrap().into_inner();
    assert!(in_time(events.message()).await.unwrap().is_some());
    assert!(in_time(events.message()).await.unwrap().is_none());
    world.stop().await;
}

#[tokio::test]
async fn who_is_not_the_enrolled_tpm_is_refused() {
    let world = World::start().await;
    let chip = enrolled(&world, "pump-1", 0x11).await;
    let stranger = Chip::new(&world, "pump-1", chip_of(0x66, 0x21)).await;
    check_refused(&world, stranger.begin().await, REFUSED, "the endorsement key is not the enrolled one").await;
    let misnamed = Chip::new(&world, "pump-9", chip_of(0x11, 0x21)).await;
    check_refused(&world, misnamed.begin().await, REFUSED, "the endorsement key is enrolled by individual pump-1")
        .await;
    let nobody = Chip::new(&world, "pump-9", chip_of(0x19, 0x21)).await;
    check_refused(&world, nobody.begin().await, REFUSED, "no enrollment refers to the endorsement key").await;
    // Somebody who is enrolled by certificate.
    world.enroll(&individual("by-cert", &world.site.issue("by-cert"))).await;
    let by_cert = Chip::new(&world, "by-cert", chip_of(0x11, 0x21)).await;
    check_refused(&world, by_cert.begin().await, REFUSED, "asks for a certificate").await;
    // And the other way round: a certificate of that name opens nothing.
    let issued = world.site.issue("pump-1");
    let device = world.site.device("pump-1", &issued).await;
    assert_eq!(crate::world::reason(device.look_up().await), Some(REFUSED));
    // Keys that are no storage keys of a TPM.
    for (key, why) in
        [(chip.tpm.attestation_key().as_bytes().to_vec(), "storage root key"), (vec![0, 1, 7], "storage root key")]
    {
        let request = v1::BeginTpmAttestationRequest { storage_root_key: key, ..chip.begin_request() };
        check_refused(&world, chip.begin_with(request).await, REFUSED, why).await;
    }
    // Flipped bits in what the storage root key claims to be.
    let mut swapped = chip.tpm.storage_root_key().as_bytes().to_vec();
    swapped[9] ^= 0x02;
    let request = v1::BeginTpmAttestationRequest { storage_root_key: swapped, ..chip.begin_request() };
    check_refused(&world, chip.begin_with(request).await, REFUSED, "storage root key").await;
    world.stop().await;
}

#[tokio::test]
async fn a_challenge_is_answered_by_its_key_for_its_purpose_and_in_time() {
    let world = World::start().await;
    let chip = enrolled(&world, "pump-1", 0x11).await;
    let other = enrolled(&world, "pump-2", 0x12).await;
    let good = |opened: &Opened| token(&opened.resource, &opened.key, HOUR);

    // Signed with another key, for something else, too long, or not at all.
    let opened = chip.begin().await.unwrap();
    let others = other.begin().await.unwrap();
    let request = || chip.request(&opened, "a");
    for (wrong, why) in [
        (token(&opened.resource, &others.key, HOUR), "not signed with the device's key"),
        (token(&others.resource, &opened.key, HOUR), "for something else"),
        (token("hub-a/devices/pump-1", &opened.key, HOUR), "for something else"),
        (token(&opened.resource, &opened.key, Duration::ZERO), "has expired"),
        (token(&opened.resource, &opened.key, 25 * HOUR), "later than tokens may"),
        ("SharedAccessSignature sr=a&sig=b&se=c".to_owned(), "base64"),
    ] {
        check_refused(&world, chip.send(request(), &wrong).await, REFUSED, why).await;
    }
    let without = in_time(chip.registrations().register(request())).await;
    check_refused(&world, without, REFUSED, "none was presented").await;
    // After all that it still counts.
    chip.send(request(), &good(&opened)).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn a_challenge_is_of_one_device_and_used_once() {
    let world = World::start().await;
    let chip = enrolled(&world, "pump-1", 0x11).await;
    let other = enrolled(&world, "pump-2", 0x12).await;
    let good = |opened: &Opened| token(&opened.resource, &opened.key, HOUR);
    let opened = chip.begin().await.unwrap();
    let others = other.begin().await.unwrap();
    let request = || chip.request(&opened, "a");
    // Another device's challenge, and one that nobody made.
    let cross = v1::RegisterRequest { tpm: Some(other.evidence(&others)), ..request() };
    check_refused(&world, chip.send(cross.clone(), &good(&others)).await, REFUSED, "another registration id").await;
    check_refused(&world, chip.send(cross, &good(&opened)).await, REFUSED, "another registration id").await;
    let made_up = v1::TpmEvidence { challenge_id: "0".repeat(32), quote: None };
    let made_up = v1::RegisterRequest { tpm: Some(made_up), ..request() };
    check_refused(&world, chip.send(made_up, &good(&opened)).await, OUTDATED, "not known").await;
    // A token alone is nothing.
    let alone = v1::RegisterRequest { tpm: None, ..request() };
    check_refused(&world, chip.send(alone, &good(&opened)).await, REFUSED, "asks for a proof by TPM").await;

    // It counts once; a repeat is the same registration.
    let token = good(&opened);
    let first = chip.send(request(), &token).await.unwrap();
    let again = chip.send(request(), &token).await.unwrap();
    assert_eq!((&again.operation_id, &again.tpm), (&first.operation_id, &first.tpm));
    let another = v1::RegisterRequest { request_id: "b".to_owned(), ..request() };
    check_refused(&world, chip.send(another, &token).await, OUTDATED, "used before").await;
    let unnamed = v1::RegisterRequest { request_id: String::new(), ..request() };
    check_refused(&world, chip.send(unnamed, &token).await, OUTDATED, "used before").await;
    let resigned = self::token(&opened.resource, &opened.key, HOUR / 2);
    check_refused(&world, chip.send(request(), &resigned).await, OUTDATED, "used before").await;
    world.stop().await;
}

#[tokio::test]
async fn a_token_reads_its_own_operation_and_nothing_else() {
    let world = World::start().await;
    let chip = enrolled(&world, "pump-1", 0x11).await;
    let opened = chip.begin().await.unwrap();
    let token = token(&opened.resource, &opened.key, HOUR);
    let operation = |operation_id: &str, token: &str| {
        let (registration_id, operation_id) = (chip.id.clone(), operation_id.to_owned());
        let request = with_token(v1::GetOperationRequest { registration_id, operation_id }, token);
        let mut registrations = chip.registrations();
        async move { in_time(registrations.get_operation(request)).await.map(|it| it.into_inner().update.unwrap()) }
    };
    let look_up = |id: &str, token: &str| {
        let request = with_token(v1::LookUpRegistrationRequest { registration_id: id.to_owned() }, token);
        let mut registrations = chip.registrations();
        async move { in_time(registrations.look_up_registration(request)).await.map(|it| it.into_inner().update.unwrap()) }
    };
    check_refused(&world, look_up("pump-1", &token).await, REFUSED, "no registration that was made lately").await;
    let update = chip.send(chip.request(&opened, "a"), &token).await.unwrap();
    assert_eq!(operation(&update.operation_id, &token).await.unwrap(), update);
    assert_eq!(look_up("pump-1", &token).await.unwrap(), update);
    let unknown = operation(&"0".repeat(32), &token).await.unwrap_err();
    assert_eq!(reason_of(&unknown), Some(Reason::OperationNotFound));
    let other = self::token(&opened.resource, &opened.key, HOUR / 2);
    check_refused(&world, look_up("pump-1", &other).await, REFUSED, "no registration that was made lately").await;
    check_refused(&world, look_up("pump-2", &token).await, REFUSED, "no registration that was made lately").await;
    // A later registration is not this token's to read.
    chip.register().await;
    assert_eq!(reason_of(&look_up("pump-1", &token).await.unwrap_err()), Some(Reason::OperationNotFound));
    let late = chip.send(chip.request(&opened, "a"), &token).await.unwrap_err();
    assert_eq!(reason_of(&late), Some(Reason::OperationNotFound));
    world.stop().await;
}

#[tokio::test]
async fn answers_that_are_lost_leave_the_device_where_it_was() {
    let world = World::start().await;
    let chip = enrolled(&world, "pump-1", 0x11).await;
    let (_, held) = chip.register().await;
    assert_eq!(chip.signs_in("hub-a", &held).await, Ok(()));
    // Ten registrations whose final answers never arrive.
    for _ in 0..10 {
        chip.try_register().await.unwrap();
    }
    assert_eq!(chip.signs_in("hub-a", &held).await, Ok(()));
    // The same with a move: what it has opens nothing any more, but registering does.
    world.allot(&EnrollmentId::Individual(registration_id("pump-1")), "hub-b").await;
    chip.try_register().await.unwrap();
    world.settled("pump-1").await;
    assert_eq!(chip.signs_in("hub-a", &held).await, Err(Some(Reason::DeviceMoved)));
    let (update, held) = chip.register().await;
    is_at(&update, "hub-b", SubStatus::ReprovisionedToInitialAssignment);
    assert_eq!(chip.signs_in("hub-b", &held).await, Ok(()));
    world.stop().await;
}

#[tokio::test]
async fn an_operator_s_move_takes_the_last_key_along_and_the_device_gets_a_new_one() {
    let world = World::start().await;
    let chip = enrolled(&world, "pump-1", 0x11).await;
    let (_, held) = chip.register().await;
    assert_eq!(chip.signs_in("hub-a", &held).await, Ok(()));
    world.send("pump-1", Some("hub-b"), "quarantine").await;
    world.settled("pump-1").await;
    assert_eq!(chip.signs_in("hub-a", &held).await, Err(Some(Reason::DeviceMoved)), "register again");
    let here = HubKey { resource: "hub-b/devices/pump-1".to_owned(), ..held.clone() };
    assert_eq!(chip.signs_in("hub-b", &here).await, Ok(()));
    let (update, new) = chip.register().await;
    is_at(&update, "hub-b", SubStatus::ReprovisionedToInitialAssignment);
    assert_eq!(chip.signs_in("hub-b", &new).await, Ok(()));
    assert_eq!(chip.signs_in("hub-b", &here).await, Err(Some(Reason::CallerUnauthenticated)));
    world.stop().await;
}

#[tokio::test]
async fn what_changes_between_the_two_calls_counts() {
    let world = World::start().await;
    let chip = enrolled(&world, "pump-1", 0x11).await;
    let id = EnrollmentId::Individual(registration_id("pump-1"));
    let answer = |opened: &Opened| {
        let (request, token) = (chip.request(opened, "x"), token(&opened.resource, &opened.key, HOUR));
        let chip = &chip;
        async move { chip.send(request, &token).await }
    };
    let opened = chip.begin().await.unwrap();
    world.change(&id, |draft| draft.reassign_when_down = true).await;
    assert_eq!(reason_of(&answer(&opened).await.unwrap_err()), Some(OUTDATED));
    let opened = chip.begin().await.unwrap();
    world.operator.disable_enrollment(&id, None).await.unwrap();
    let told = answer(&opened).await.unwrap();
    assert_eq!(told.status(), v1::RegistrationStatus::Disabled, "who is proven is told");
    assert_eq!(told.tpm, None);
    check_refused(&world, chip.begin().await, REFUSED, "the enrollment is disabled").await;
    world.operator.enable_enrollment(&id, None).await.unwrap();
    let opened = chip.begin().await.unwrap();
    world.operator.delete_enrollment(&id, None).await.unwrap();
    check_refused(&world, answer(&opened).await, REFUSED, "deleted").await;
    world.stop().await;
}

#[tokio::test]
async fn an_endorsement_key_stands_in_one_enrollment() {
    let world = World::start().await;
    let chip = enrolled(&world, "pump-1", 0x11).await;
    let twice = individual_tpm(&world, "pump-2", attestation_of(&chip.tpm, SrkDraft::Any, None));
    let refused = world.operator.create_enrollment(&twice).await;
    assert_eq!(crate::world::reason(refused), Some(Reason::EndorsementKeyInUse));
    // Keys that no TPM may use.
    for bytes in [chip.tpm.attestation_key().as_bytes(), &[0, 1, 7][..]] {
        let endorsement_key = TpmPublic::parse(bytes).unwrap();
        let attestation = AttestationDraft::Tpm { endorsement_key, storage_root_key: SrkDraft::Any, pcrs: None };
        let refused = world.operator.create_enrollment(&individual_tpm(&world, "pump-3", attestation)).await;
        assert_eq!(crate::world::reason(refused), Some(Reason::InvalidArgument));
    }
    let record = world.operator.enrollment(&EnrollmentId::Individual(registration_id("pump-1"))).await.unwrap();
    assert_eq!(record.endorsement_key_hash, Some(ek_hash(&chip.tpm).registration_id().to_string()));
    world.stop().await;
}

#[tokio::test]
async fn a_storage_root_key_is_held_to_its_rule() {
    let world = World::start().await;
    let id = EnrollmentId::Individual(registration_id("pump-1"));
    let chip = Chip::new(&world, "pump-1", chip_of(0x11, 0x21)).await;
    world.enroll(&individual_tpm(&world, "pump-1", attestation_of(&chip.tpm, SrkDraft::PinFirst, None))).await;
    let (_, held) = chip.register().await;
    // The TPM was cleared: the same endorsement key, another storage root key.
    let cleared = Chip::new(&world, "pump-1", chip_of(0x11, 0x22)).await;
    let failed = cleared.try_register().await.unwrap();
    assert_eq!(
        (failed.status(), failed.reason.as_str()),
        (v1::RegistrationStatus::Failed, "STORAGE_ROOT_KEY_NOT_ALLOWED")
    );
    assert_eq!(failed.tpm, None);
    assert_eq!(chip.signs_in("hub-a", &held).await, Ok(()), "what it had is what it has");
    // An operator has the key forgotten.
    world.operator.reset_storage_root_key(&registration_id("pump-1"), None).await.unwrap();
    is_at(&cleared.register().await.0, "hub-a", SubStatus::ReprovisionedToInitialAssignment);
    let failed = chip.try_register().await.unwrap();
    assert_eq!(failed.reason, "STORAGE_ROOT_KEY_NOT_ALLOWED", "the first one has become another's");
    // Any, and every change is written down.
    world.change(&id, |draft| draft.attestation = attestation_of(&chip.tpm, SrkDraft::Any, None)).await;
    chip.register().await;
    let actions: Vec<AuditAction> = world.audit().await.into_iter().map(|it| it.entry.action).collect();
    assert!(actions.contains(&AuditAction::StorageRootKeyChanged), "{actions:?}");
    assert!(actions.contains(&AuditAction::StorageRootKeyForgotten), "{actions:?}");
    // Exactly this one.
    let pinned = SrkDraft::Key(chip.tpm.storage_root_key().clone());
    world.change(&id, |draft| draft.attestation = attestation_of(&chip.tpm, pinned, None)).await;
    chip.register().await;
    assert_eq!(cleared.try_register().await.unwrap().reason, "STORAGE_ROOT_KEY_NOT_ALLOWED");
    // What is read back can be written back.
    world.change(&id, |draft| draft.reassign_when_down = true).await;
    assert_eq!(cleared.try_register().await.unwrap().reason, "STORAGE_ROOT_KEY_NOT_ALLOWED");
    world.stop().await;
}

#[tokio::test]
async fn registers_are_held_to_the_policy_at_every_registration() {
    let world = World::start().await;
    let id = EnrollmentId::Individual(registration_id("pump-1"));
    let mut chip = Chip::new(&world, "pump-1", chip_of(0x11, 0x21)).await;
    chip.tpm.set_register(pcr_seven(), PcrValue([1; 32]));
    let attestation = attestation_of(&chip.tpm, SrkDraft::Any, pcrs(PcrMode::Enforce, 1));
    world.enroll(&individual_tpm(&world, "pump-1", attestation)).await;

    // Without a key for the quote the device is told what is missing.
    let bare = v1::BeginTpmAttestationRequest { attestation_key: Vec::new(), ..chip.begin_request() };
    let told = in_time(chip.registrations().begin_tpm_attestation(bare)).await.unwrap().into_inner();
    let asked = told.quote.unwrap();
    assert_eq!((asked.pcrs, asked.credential.len()), (vec![7], 0));

    // Without the quote, or with another's.
    let opened = chip.begin().await.unwrap();
    let good = token(&opened.resource, &opened.key, HOUR);
    let without = v1::TpmEvidence { quote: None, ..chip.evidence(&opened) };
    let without = v1::RegisterRequest { tpm: Some(without), ..chip.request(&opened, "a") };
    check_refused(&world, chip.send(without, &good).await, REFUSED, "the quote").await;
    let earlier = chip.begin().await.unwrap();
    let replayed = v1::TpmEvidence { quote: chip.evidence(&earlier).quote, ..chip.evidence(&opened) };
    let replayed = v1::RegisterRequest { tpm: Some(replayed), ..chip.request(&opened, "a") };
    check_refused(&world, chip.send(replayed, &good).await, REFUSED, "the quote").await;

    is_at(&chip.register().await.0, "hub-a", SubStatus::InitialAssignment);
    chip.tpm.set_register(pcr_seven(), PcrValue([2; 32]));
    let failed = chip.try_register().await.unwrap();
    assert_eq!((failed.status(), failed.reason.as_str()), (v1::RegistrationStatus::Failed, "PCR_NOT_ALLOWED"));
    assert!(failed.message.contains("PCR 7"), "{}", failed.message);
    let newest = world.audit().await.remove(0).entry;
    assert!(newest.action == AuditAction::RegistrationFailed && newest.detail.contains("PCR 7"), "{newest:?}");

    let audited = attestation_of(&chip.tpm, SrkDraft::Any, pcrs(PcrMode::Audit, 1));
    world.change(&id, |draft| draft.attestation = audited).await;
    chip.register().await;
    let entries = world.audit().await;
    let noted = entries.iter().find(|it| it.entry.action == AuditAction::PcrMismatchAudited).unwrap();
    assert!(noted.entry.detail.contains("PCR 7"), "{noted:?}");
    world.stop().await;
}

/// A manufacturer of TPMs.
struct Maker {
    issuer: Issuer<'static, KeyPair>,
    certificate: Vec<u8>,
}

impl Maker {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// The certificate of an endorsement key on P-256, of a TPM of this make.
    fn certify(&self, tpm: &SoftwareTpm) -> Vec<u8> {
        let area = tpm.endorsement_key().as_bytes();
        let (x, y) = (&area[area.len() - 66..area.len() - 34], &area[area.len() - 32..]);
        let head = [
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
            0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
        ];
        let key = SubjectPublicKeyInfo::from_der(&[&head[..], x, y].concat()).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.custom_extensions = vec![
            CustomExtension::from_oid_content(&[2, 5, 29, 37], vec![0x30, 7, 6, 5, 0x67, 0x81, 5, 8, 1]),
            names(&[("id:494E5443", 1), ("fTPM", 2), ("id:00010001", 3)]),
        ];
        params.signed_by(&key, &self.issuer).unwrap().der().to_vec()
    }
}

/// The subject alternative name of an EK certificate: one directory name with the TCG's three attributes.
fn names(attributes: &[(&str, u8)]) -> CustomExtension {
    let tlv = |tag: u8, content: &[u8]| [&[tag, u8::try_from(content.len()).unwrap()], content].concat();
    let set = |(value, number): &(&str, u8)| {
        let oid = [6, 5, 0x67, 0x81, 5, 2, *number];
        tlv(0x31, &tlv(0x30, &[&oid[..], &tlv(0x0c, value.as_bytes())].concat()))
    };
    let name = tlv(0x30, &attributes.iter().flat_map(set).collect::<Vec<u8>>());
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 17], tlv(0x30, &tlv(0xa4, &name)));
    extension.set_criticality(true);
    extension
}

fn fleet(world: &World, id: &str, maker: &Maker, makes: &[&str]) -> EnrollmentDraft {
    let make = |text: &&str| TpmMake { manufacturer: text.parse().unwrap(), model: None };
    EnrollmentDraft {
        id: EnrollmentId::Group(GroupId::parse(id).unwrap()),
        attestation: AttestationDraft::TpmFleet {
            primary: maker.certificate.clone(),
            secondary: None,
            makes: makes.iter().map(make).collect(),
            usage_may_be_absent: false,
            pin_first: false,
            pcrs: None,
        },
        ..world.site.group()
    }
}

#[tokio::test]
async fn a_group_takes_every_tpm_that_its_maker_vouches_for() {
    let world = World::start().await;
    let (maker, other) = (Maker::new("maker"), Maker::new("other"));
    world.enroll(&fleet(&world, "intel", &maker, &["INTC"])).await;
    let certified = async |endorsement: u8, maker: &Maker| certified(&world, maker, endorsement).await;
    let chip = certified(0x11, &maker).await;
    let (update, held) = chip.register().await;
    is_at(&update, "hub-a", SubStatus::InitialAssignment);
    assert_eq!(chip.signs_in("hub-a", &held).await, Ok(()));

    // Under another id, with another's certificate, with none, or of another maker.
    let named =
        Chip { id: "pump-1".to_owned(), certificates: chip.certificates.clone(), ..certified(0x11, &maker).await };
    check_refused(&world, named.begin().await, REFUSED, "registration id is not the one of the endorsement key").await;
    let borrowed = Chip { certificates: chip.certificates.clone(), ..certified(0x12, &maker).await };
    check_refused(&world, borrowed.begin().await, REFUSED, "certificate").await;
    let bare = Chip { certificates: Vec::new(), ..certified(0x12, &maker).await };
    check_refused(&world, bare.begin().await, REFUSED, "no enrollment refers").await;
    check_refused(&world, certified(0x13, &other).await.begin().await, REFUSED, "no enrollment refers").await;
    // A maker that takes the name of the other signs for nobody.
    check_refused(&world, certified(0x14, &Maker::new("maker")).await.begin().await, REFUSED, "certificate").await;
    // Not a make that the group takes.
    let id = EnrollmentId::Group(GroupId::parse("intel").unwrap());
    world.change(&id, |draft| draft.attestation = fleet(&world, "intel", &maker, &["IFX"]).attestation).await;
    check_refused(&world, chip.begin().await, REFUSED, "certificate").await;
    world.change(&id, |draft| draft.attestation = fleet(&world, "intel", &maker, &[]).attestation).await;
    chip.register().await;
    // An individual enrollment goes first, and blocks when it is disabled.
    world.operator.revoke(&registration_id(&chip.id), "lost").await.unwrap();
    assert_eq!(reason_of(&chip.begin().await.err().unwrap()), Some(REFUSED));
    // A certificate of a device by that authority opens nothing: it vouches for keys of TPMs.
    world.stop().await;
}

/// A TPM of the maker's, as the group knows it.
async fn certified(world: &World, maker: &Maker, endorsement: u8) -> Chip {
    let tpm = chip_of(endorsement, 0x21);
    let (id, certificate) = (ek_hash(&tpm).registration_id().to_string(), maker.certify(&tpm));
    Chip { certificates: vec![certificate], ..Chip::new(world, &id, tpm).await }
}

#[tokio::test]
async fn a_tpm_that_is_enrolled_for_itself_gets_into_no_group() {
    let world = World::start().await;
    let maker = Maker::new("maker");
    world.enroll(&fleet(&world, "intel", &maker, &[])).await;
    let own = |id: &str, chip: &Chip| individual_tpm(&world, id, attestation_of(&chip.tpm, SrkDraft::Any, None));
    const WHY: &str = "the endorsement key is enrolled by";

    // Enrolled first, under a name of its own.
    let chip = certified(&world, &maker, 0x11).await;
    world.enroll(&own("pump-1", &chip)).await;
    check_refused(&world, chip.begin().await, REFUSED, WHY).await;
    let id = EnrollmentId::Individual(registration_id("pump-1"));
    world.operator.disable_enrollment(&id, None).await.unwrap();
    check_refused(&world, chip.begin().await, REFUSED, WHY).await;

    // In the group first: from then on it comes in by its own enrollment or not at all.
    let chip = certified(&world, &maker, 0x12).await;
    chip.register().await;
    let opened = chip.begin().await.unwrap();
    let own = EnrollmentDraft { enabled: false, ..own("pump-2", &chip) };
    world.enroll(&own).await;
    let late = chip.send(chip.request(&opened, "late"), &token(&opened.resource, &opened.key, HOUR)).await;
    assert_eq!(reason_of(&late.unwrap_err()), Some(OUTDATED), "who is proven is told to begin again");
    check_refused(&world, chip.begin().await, REFUSED, WHY).await;
    // Its own enrollment gone, the group vouches for it again.
    world.operator.delete_enrollment(&own.id, None).await.unwrap();
    chip.register().await;
    world.stop().await;
}

/// What a certificate does not vouch for cannot be said in two ways.
#[tokio::test]
async fn a_tpm_of_a_group_has_one_identity() {
    let world = World::start().await;
    let maker = Maker::new("maker");
    world.enroll(&fleet(&world, "intel", &maker, &[])).await;
    let chip = certified(&world, &maker, 0x11).await;
    chip.register().await;
    let mut area = chip.tpm.endorsement_key().as_bytes().to_vec();
    area[12] ^= 1;
    let variant = PublicArea::parse(&area).unwrap();
    let request = v1::BeginTpmAttestationRequest {
        registration_id: variant.ek_hash().registration_id().to_string(),
        endorsement_key: area,
        ..chip.begin_request()
    };
    check_refused(&world, chip.begin_with(request).await, REFUSED, "the TCG's template").await;
    world.stop().await;
}

/// A device that asks again for what it did not hear of gets a key that it can open, and nothing happens twice.
#[tokio::test]
async fn a_registration_that_is_asked_for_again_resets_nothing() {
    let world = World::start().await;
    let chip = enrolled(&world, "pump-1", 0x11).await;
    let id = EnrollmentId::Individual(registration_id("pump-1"));
    world.change(&id, |draft| draft.reprovision = Some(ReprovisionPolicy::Reset)).await;
    let again = async |request_id: &str| {
        let opened = chip.begin().await.unwrap();
        let token = token(&opened.resource, &opened.key, HOUR);
        let update = chip.send(chip.request(&opened, request_id), &token).await.unwrap();
        let held = chip.hub_key(&update);
        (RegistrationUpdate::try_from(update).unwrap(), held)
    };
    is_at(&again("first").await.0, "hub-a", SubStatus::InitialAssignment);
    for _ in 0..2 {
        let (update, held) = again("first").await;
        is_at(&update, "hub-a", SubStatus::ReprovisionedToInitialAssignment);
        assert_eq!(chip.signs_in("hub-a", &held).await, Ok(()));
    }
    is_at(&again("second").await.0, "hub-a", SubStatus::DeviceDataReset);
    is_at(&again("second").await.0, "hub-a", SubStatus::ReprovisionedToInitialAssignment);
    world.stop().await;
}

#[tokio::test]
async fn a_tpm_that_was_replaced_keeps_no_key() {
    let world = World::start().await;
    let old = enrolled(&world, "pump-1", 0x11).await;
    let (_, held) = old.register().await;
    assert_eq!(old.signs_in("hub-a", &held).await, Ok(()));
    let new = Chip::new(&world, "pump-1", chip_of(0x12, 0x22)).await;
    let id = EnrollmentId::Individual(registration_id("pump-1"));
    world.change(&id, |draft| draft.attestation = attestation_of(&new.tpm, SrkDraft::Any, None)).await;
    let (_, fresh) = new.register().await;
    assert_eq!(old.signs_in("hub-a", &held).await, Err(Some(Reason::CallerUnauthenticated)), "before the new is used");
    assert_eq!(new.signs_in("hub-a", &fresh).await, Ok(()));
    assert_eq!(reason_of(&old.begin().await.err().unwrap()), Some(REFUSED));
    // One TPM's keys stay until a newer one is used.
    let (_, newer) = new.register().await;
    assert_eq!(new.signs_in("hub-a", &fresh).await, Ok(()));
    assert_eq!(new.signs_in("hub-a", &newer).await, Ok(()));
    world.stop().await;
}

/// However many calls use one answer at once, it is one registration, and everybody who repeats it is told the same.
#[tokio::test]
async fn one_answer_at_once_is_one_registration() {
    let world = World::start().await;
    let chip = enrolled(&world, "pump-1", 0x11).await;
    let opened = chip.begin().await.unwrap();
    let token = token(&opened.resource, &opened.key, HOUR);
    let same = || chip.send(chip.request(&opened, "same"), &token);
    let told = futures_util::future::join_all((0..8).map(|_| same())).await;
    let told: Vec<v1::RegistrationUpdate> = told.into_iter().map(|update| update.unwrap()).collect();
    assert!(told.iter().all(|update| update.operation_id == told[0].operation_id && update.tpm == told[0].tpm));
    chip.signs_in("hub-a", &chip.hub_key(&told[0])).await.unwrap();

    let opened = chip.begin().await.unwrap();
    let token = self::token(&opened.resource, &opened.key, HOUR);
    let different = (0..8).map(|number| chip.send(chip.request(&opened, &format!("other-{number}")), &token));
    let outcomes = futures_util::future::join_all(different).await;
    let taken: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
    assert_eq!(taken.len(), 1, "{outcomes:?}");
    chip.signs_in("hub-a", &chip.hub_key(taken[0])).await.unwrap();
    world.stop().await;
}

/// Two storage root keys that are both the first to come: one of them is it, and only that one.
#[tokio::test]
async fn of_two_first_storage_root_keys_one_is_pinned() {
    let world = World::start().await;
    let [one, other] = [0x21, 0x22].map(|storage| chip_of(0x11, storage));
    world.enroll(&individual_tpm(&world, "pump-1", attestation_of(&one, SrkDraft::PinFirst, None))).await;
    let (one, other) = (Chip::new(&world, "pump-1", one).await, Chip::new(&world, "pump-1", other).await);
    let (first, second) = (one.begin().await.unwrap(), other.begin().await.unwrap());
    let tokens = [&first, &second].map(|opened| token(&opened.resource, &opened.key, HOUR));
    let (first, second) = tokio::join!(
        one.send(one.request(&first, "a"), &tokens[0]),
        other.send(other.request(&second, "b"), &tokens[1]),
    );
    let is_in =
        |outcome: &Result<v1::RegistrationUpdate, Status>| outcome.as_ref().is_ok_and(|update| update.tpm.is_some());
    // Both watch one device: the one that is it may hear of the other's failure in place of its own success.
    assert!(!(is_in(&first) && is_in(&second)), "{first:?} {second:?}");
    let again = [one.try_register().await, other.try_register().await];
    assert!(is_in(&again[0]) != is_in(&again[1]), "{again:?}");
    world.stop().await;
}

/// A device that registers while an operator's move of it runs joins the move, and is given a key that its new hub takes.
#[tokio::test]
async fn a_device_joins_the_move_that_an_operator_began() {
    let world = World::start().await;
    let chip = enrolled(&world, "pump-1", 0x11).await;
    chip.register().await;
    world.operator.take_down_hub(&hub_id("hub-b")).await.unwrap();
    let record = world.send("pump-1", Some("hub-b"), "closer").await;
    assert!(record.running.is_some(), "{record:?}");
    let opened = chip.begin().await.unwrap();
    let token = token(&opened.resource, &opened.key, HOUR);
    let request = chip.request(&opened, "joins");
    let joins = chip.send(request, &token);
    let hub = hub_id("hub-b");
    let (joined, up) = tokio::join!(joins, world.operator.bring_up_hub(&hub));
    up.unwrap();
    joined.unwrap();
    let (update, key) = chip.register().await;
    assert_eq!(update.hub.as_ref().unwrap().id.as_str(), "hub-b");
    chip.signs_in("hub-b", &key).await.unwrap();
    assert!(chip.signs_in("hub-a", &key).await.is_err());
    world.stop().await;
}

#[tokio::test]
async fn secrets_are_in_no_file_and_outlive_a_restart() {
    let world = World::start().await;
    let chip = enrolled(&world, "pump-1", 0x11).await;
    chip.register().await;
    world.allot(&EnrollmentId::Individual(registration_id("pump-1")), "hub-b").await;
    let opened = chip.begin().await.unwrap();
    let (update, held) = chip.register().await;
    is_at(&update, "hub-b", SubStatus::DeviceDataMigrated);
    assert_eq!(chip.signs_in("hub-b", &held).await, Ok(()));
    for (path, bytes) in world.files() {
        for (secret, what) in [(held.key.secret(), "the hub's key"), (opened.key.secret(), "a challenge's key")] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{what} in {}", path.display());
        }
        // The blob is there, so that a repeat gets the same one: only the TPM can open it.
        if path.ends_with("service.redb") {
            assert!(bytes.windows(64).any(|window| window == &held.blob[..64]), "the blob in {}", path.display());
        }
    }
    let world = world.restarted().await;
    let chip = Chip { channel: world.site.channel(None).await, ..chip };
    assert_eq!(chip.signs_in("hub-b", &held).await, Ok(()));
    // Challenges are in memory only: the device begins again.
    let token = token(&opened.resource, &opened.key, HOUR);
    check_refused(&world, chip.send(chip.request(&opened, "a"), &token).await, OUTDATED, "not known").await;
    chip.register().await;
    world.stop().await;
}

#[tokio::test]
async fn challenges_are_bounded_and_a_device_keeps_its_newest() {
    let world = World::start().await;
    let chip = enrolled(&world, "pump-1", 0x11).await;
    let mut opened = Vec::new();
    for _ in 0..4 {
        opened.push(chip.begin().await.unwrap());
    }
    let answer =
        async |opened: &Opened| chip.send(chip.request(opened, "x"), &token(&opened.resource, &opened.key, HOUR)).await;
    check_refused(&world, answer(&opened[0]).await, OUTDATED, "not known").await;
    check_refused(&world, answer(&opened[1]).await, OUTDATED, "not known").await;
    assert!(answer(&opened[2]).await.is_ok());
    assert!(answer(&opened[3]).await.is_ok());
    // Whoever begins over and over must wait.
    let mut last = None;
    for _ in 0..40 {
        if let Err(status) = chip.begin().await {
            last = Some(reason_of(&status));
            break;
        }
    }
    assert_eq!(last, Some(Some(Reason::RateLimited)));
    world.stop().await;
}
